//! One provider: what its discovery document says, and asking it.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::Value;

use super::{Ask, Form, LARGEST_ANSWER, OidcError, OidcSettings, PATIENCE, People, Web};
use crate::access::Password;
use crate::workload::{IssuerSettings, KeySource, Kind, Ring, origin};

/// A document that is older is asked for anew, in ms.
const FRESH: i64 = 10 * 60_000;
/// While the provider does not answer, its last document is good for so long, in ms.
const STALE: i64 = 24 * 60 * 60_000;
/// A provider that did not answer is asked again after this, in ms.
const AGAIN: i64 = 3_000;
/// Most bytes of a reason that are kept.
const LONGEST_REASON: usize = 300;

/// What is looked at of a discovery document (OpenID Connect Discovery §3).
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Document {
    pub(super) issuer: String,
    pub(super) authorization_endpoint: String,
    pub(super) token_endpoint: String,
    pub(super) jwks_uri: String,
    pub(super) userinfo_endpoint: Option<String>,
    pub(super) end_session_endpoint: Option<String>,
    pub(super) scopes_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// RFC 9207: then an answer without `iss` is none of this provider's.
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

#[derive(Debug, Default)]
struct State {
    document: Option<Arc<Document>>,
    fetched_at: i64,
    failed_at: Option<i64>,
    ring: Option<Arc<Ring>>,
}

/// A provider, and what is known of it.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) settings: OidcSettings,
    state: Mutex<State>,
    /// Whoever asks; the others wait for what comes.
    asking: tokio::sync::Mutex<()>,
}

/// What a token endpoint gives.
#[derive(Deserialize)]
pub(super) struct Tokens {
    pub(super) id_token: Option<String>,
    pub(super) access_token: Option<String>,
    pub(super) refresh_token: Option<String>,
}

/// Why a token endpoint gives nothing.
pub(super) enum Denied {
    /// It says so: the error's name.
    Says(String),
    /// It cannot be asked, or answers something else.
    Down(String),
}

/// What is found out about a provider before it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Its name.
    pub name: String,
    /// What is wrong, in one sentence, and how to mend it.
    pub problem: Option<String>,
}

/// A text for people, of bounded length and in one line.
pub(super) fn short(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut kept = String::new();
    for c in plain {
        if kept.len() + c.len_utf8() > LONGEST_REASON {
            break;
        }
        kept.push(c);
    }
    kept
}

impl Provider {
    pub(super) fn new(settings: OidcSettings) -> Self {
        Self {
            settings,
            state: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        }
    }

    pub(super) fn down(&self, reason: impl AsRef<str>) -> OidcError {
        OidcError::Provider {
            provider: self.settings.name.clone(),
            reason: short(reason.as_ref()),
        }
    }

    async fn ask(&self, web: &Arc<dyn Web>, ask: Ask) -> Result<(u16, Vec<u8>), String> {
        origin(&ask.url)?;
        let url = ask.url.clone();
        let answer = tokio::time::timeout(PATIENCE, web.ask(ask)).await;
        let (status, body) =
            answer.map_err(|_| format!("{url}: no answer within {} s", PATIENCE.as_secs()))??;
        match body.len() > LARGEST_ANSWER {
            true => Err(format!(
                "{url}: the answer is larger than {} KiB",
                LARGEST_ANSWER >> 10
            )),
            false => Ok((status, body)),
        }
    }

    fn plain(&self, url: String) -> Ask {
        Ask {
            url,
            authority: self.settings.authority.clone(),
            form: None,
            basic: None,
            bearer: None,
        }
    }

    fn known(&self, now: i64, age: i64) -> Option<(Arc<Document>, Arc<Ring>)> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let good = now.abs_diff(state.fetched_at) < age.unsigned_abs();
        let (document, ring) = (state.document.clone()?, state.ring.clone()?);
        good.then_some((document, ring))
    }

    /// Its discovery document and the keys that it names.
    pub(super) async fn document(
        &self,
        people: &People,
        now: i64,
    ) -> Result<(Arc<Document>, Arc<Ring>), OidcError> {
        if let Some(known) = self.known(now, FRESH) {
            return Ok(known);
        }
        let _one = self.asking.lock().await;
        if let Some(known) = self.known(now, FRESH) {
            return Ok(known);
        }
        let failed = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.failed_at
        };
        if failed.is_some_and(|at| now.abs_diff(at) < AGAIN.unsigned_abs()) {
            let old = self.known(now, STALE);
            return old.ok_or_else(|| self.down("it did not answer a moment ago"));
        }
        match self.discover(&people.web).await {
            Ok(document) => {
                let document = Arc::new(document);
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let same = state.document.as_ref();
                let same = same.is_some_and(|known| known.jwks_uri == document.jwks_uri);
                let ring = match state.ring.clone().filter(|_| same) {
                    Some(ring) => ring,
                    None => Arc::new(self.ring(&document)),
                };
                *state = State {
                    document: Some(document.clone()),
                    fetched_at: now,
                    failed_at: None,
                    ring: Some(ring.clone()),
                };
                Ok((document, ring))
            }
            Err(reason) => {
                tracing::warn!(
                    provider = self.settings.name,
                    reason,
                    "a provider cannot be asked"
                );
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.failed_at = Some(now);
                drop(state);
                self.known(now, STALE).ok_or_else(|| self.down(reason))
            }
        }
    }

    fn ring(&self, document: &Document) -> Ring {
        let settings = IssuerSettings {
            keys: KeySource::Url(document.jwks_uri.clone()),
            authority: self.settings.authority.clone(),
            ..IssuerSettings::new(Kind::Oidc, &self.settings.issuer, Vec::new())
        };
        Ring::new(settings, None, String::new())
    }

    /// Asks for the document and judges it, in one sentence.
    async fn discover(&self, web: &Arc<dyn Web>) -> Result<Document, String> {
        let issuer = &self.settings.issuer;
        let url = format!(
            "{}/.well-known/openid-configuration",
            issuer.trim_end_matches('/')
        );
        let (status, body) = self.ask(web, self.plain(url.clone())).await?;
        if (300..400).contains(&status) {
            return Err(format!(
                "{url}: the answer is a redirect ({status}), which is not followed; is issuer = {issuer:?} what the provider calls itself?"
            ));
        }
        if status != 200 {
            return Err(format!(
                "{url}: the answer is {status}; is issuer = {issuer:?} right?"
            ));
        }
        let document: Document = serde_json::from_slice(&body).map_err(|_| {
            format!(
                "{url}: this is no discovery document of a provider; is issuer = {issuer:?} right?"
            )
        })?;
        if document.issuer != *issuer {
            return Err(format!(
                "{url}: the provider calls itself {:?}; write exactly that as issuer",
                short(&document.issuer)
            ));
        }
        let more = (document.userinfo_endpoint.iter()).chain(&document.end_session_endpoint);
        let named = [
            &document.authorization_endpoint,
            &document.token_endpoint,
            &document.jwks_uri,
        ];
        for address in named.into_iter().chain(more) {
            origin(address)
                .map_err(|reason| format!("{url}: an address in it cannot be used: {reason}"))?;
        }
        Ok(document)
    }

    /// Asks the token endpoint.
    pub(super) async fn tokens(
        &self,
        web: &Arc<dyn Web>,
        document: &Document,
        mut form: Vec<(&'static str, String)>,
    ) -> Result<Tokens, Denied> {
        let id = self.settings.client_id.clone();
        let methods = document.token_endpoint_auth_methods_supported.as_deref();
        // Without a word the first one is meant (Discovery §3).
        let by_form = methods.is_some_and(|known| {
            let has = |name: &str| known.iter().any(|one| one == name);
            has("client_secret_post") && !has("client_secret_basic")
        });
        let mut basic = None;
        match &self.settings.client_secret {
            None => form.push(("client_id", id)),
            Some(secret) if by_form => {
                form.push(("client_id", id));
                form.push(("client_secret", secret.reveal().to_owned()));
            }
            Some(secret) => basic = Some((encoded(&id), Password::new(encoded(secret.reveal())))),
        }
        let ask = Ask {
            form: Some(Form(form)),
            basic,
            ..self.plain(document.token_endpoint.clone())
        };
        let (status, body) = self.ask(web, ask).await.map_err(Denied::Down)?;
        if status == 200 {
            return serde_json::from_slice(&body)
                .map_err(|_| Denied::Down("its token endpoint answers no JSON".to_owned()));
        }
        #[derive(Deserialize)]
        struct Said {
            error: String,
        }
        match serde_json::from_slice::<Said>(&body) {
            Ok(said) if (400..500).contains(&status) => Err(Denied::Says(short(&said.error))),
            _ => Err(Denied::Down(format!("its token endpoint answers {status}"))),
        }
    }

    /// What the provider says of whoever has this access token.
    pub(super) async fn userinfo(
        &self,
        web: &Arc<dyn Web>,
        document: &Document,
        access: &str,
    ) -> Result<serde_json::Map<String, Value>, String> {
        let url = document.userinfo_endpoint.clone();
        let url = url.ok_or("it has no userinfo endpoint")?;
        let ask = Ask {
            bearer: Some(Password::new(access)),
            ..self.plain(url)
        };
        let (status, body) = self.ask(web, ask).await?;
        if status != 200 {
            return Err(format!("its userinfo endpoint answers {status}"));
        }
        match serde_json::from_slice(&body) {
            Ok(Value::Object(claims)) => Ok(claims),
            _ => Err("its userinfo endpoint answers no JSON object".to_owned()),
        }
    }

    /// What is asked for.
    pub(super) fn scopes(&self, document: &Document) -> String {
        let mut all = vec!["openid"];
        if self.settings.scopes.is_empty() {
            let known = document.scopes_supported.as_deref();
            let usual = ["profile", "email", "groups", "offline_access"];
            let asked = usual.into_iter().filter(|scope| match known {
                Some(known) => known.iter().any(|one| one == scope),
                None => matches!(*scope, "profile" | "email"),
            });
            all.extend(asked);
        } else {
            let more = self.settings.scopes.iter().map(String::as_str);
            all.extend(more.filter(|scope| *scope != "openid"));
        }
        all.join(" ")
    }
}

/// As user and password of a client are written (RFC 6749 §2.3.1).
fn encoded(text: &str) -> String {
    wharf_oci::percent::encode_query(text).into_owned()
}

/// Looks whether each provider can be used, for `wharf config check --online`.
pub async fn look(settings: Vec<OidcSettings>, web: Arc<dyn Web>) -> Vec<Checked> {
    let mut all = Vec::new();
    for one in settings {
        let provider = Provider::new(one);
        let problem = provider.discover(&web).await.err();
        all.push(Checked {
            name: provider.settings.name,
            problem,
        });
    }
    all
}
