//! There and back: what the browser takes along, and what is believed of what it brings.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::id_token::{Expected, verify};
use super::logout::{sealed_hint, sid};
use super::provider::{Denied, Document, Provider, short};
use super::{OidcError, People};
use crate::access::{Password, Principal, random_bytes};
use crate::identity::{Arrival, arrive};
use crate::registry::Registry;
use crate::session::is_local_path;
use crate::workload::find;
use wharf_oci::percent::encode_query;

/// How long a sign-in may take, in ms.
pub const FLOW_MS: i64 = 10 * 60_000;
/// What the cookie of a sign-in is sealed for.
const PURPOSE: &str = "oidc-flow";
/// Longest code and state that are looked at, in bytes.
const LONGEST: usize = 4_096;

/// Errors of a token endpoint that whoever runs the registry has to mend (RFC 6749 §5.2).
const OURS: [&str; 3] = [
    "invalid_client",
    "unauthorized_client",
    "unsupported_grant_type",
];

/// What the browser takes along, sealed.
#[derive(Serialize, Deserialize)]
pub(super) struct Flow {
    provider: String,
    state: String,
    nonce: String,
    verifier: String,
    redirect: String,
    back: String,
    at: i64,
}

/// Where to send the browser, and what it is to bring back.
#[derive(Debug)]
pub struct Started {
    /// The provider's page.
    pub location: String,
    /// For a cookie.
    pub flow: Password,
}

/// What the browser brought back in the address.
#[derive(Debug, Default, Clone)]
pub struct Answer {
    /// What is traded for tokens.
    pub code: Option<String>,
    /// What was sent along.
    pub state: Option<String>,
    /// Who answers (RFC 9207).
    pub iss: Option<String>,
    /// Why there is no code.
    pub error: Option<String>,
}

/// Somebody who has signed in.
#[derive(Debug)]
pub struct Arrived {
    /// Who it is here.
    pub principal: Principal,
    /// The account there.
    pub subject: String,
    /// What the provider calls its own session; empty where it says nothing.
    pub sid: String,
    /// With what the provider can be asked for it later.
    pub refresh: Option<Password>,
    /// What reminds the provider of this sign-in when it ends, for a cookie; `None`: nobody is sent there, or it is too long for one.
    pub hint: Option<Password>,
    /// Where to go on.
    pub back: String,
}

pub(super) fn random() -> String {
    URL_SAFE_NO_PAD.encode(random_bytes::<32>())
}

/// Begins a sign-in. `redirect` is our own address to which the provider sends back, `back` a path here.
pub async fn start(
    registry: &Registry,
    name: &str,
    redirect: &str,
    back: &str,
) -> Result<Started, OidcError> {
    let people = &registry.access.people;
    let provider = people.provider(name)?;
    let now = registry.clock.now_ms();
    let (document, _) = provider.document(people, now).await?;
    let flow = Flow {
        provider: name.to_owned(),
        state: random(),
        nonce: random(),
        verifier: random(),
        redirect: redirect.to_owned(),
        back: match is_local_path(back) {
            true => back.to_owned(),
            false => "/".to_owned(),
        },
        at: now,
    };
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&flow.verifier));
    let settings = &provider.settings;
    let fields = [
        ("response_type", "code"),
        ("client_id", &settings.client_id),
        ("redirect_uri", redirect),
        ("scope", &provider.scopes(&document)),
        ("state", &flow.state),
        ("nonce", &flow.nonce),
        ("code_challenge", &challenge),
        ("code_challenge_method", "S256"),
    ];
    let prompt = (settings.prompt.as_deref()).map(|prompt| ("prompt", prompt));
    let fields = fields.into_iter().chain(prompt);
    let fields = fields.map(|(name, value)| format!("{name}={}", encode_query(value)));
    let fields: Vec<_> = fields.collect();
    let endpoint = &document.authorization_endpoint;
    let sign = if endpoint.contains('?') { '&' } else { '?' };
    let location = format!("{endpoint}{sign}{}", fields.join("&"));
    let json = serde_json::to_vec(&flow).map_err(|_| OidcError::Flow("it cannot be written"))?;
    let sealed = people.sealing.seal(PURPOSE, &json)?;
    Ok(Started {
        location,
        flow: Password::new(URL_SAFE_NO_PAD.encode(sealed)),
    })
}

/// What this browser began, if it did, and lately.
pub(super) fn opened(
    people: &People,
    name: &str,
    flow: Option<&Password>,
    now: i64,
) -> Result<Flow, OidcError> {
    let flow = flow.ok_or(OidcError::Flow("no cookie"))?;
    let sealed = URL_SAFE_NO_PAD.decode(flow.reveal()).ok();
    let json = sealed.and_then(|sealed| people.sealing.open_sealed(PURPOSE, &sealed));
    let flow = json.and_then(|json| serde_json::from_slice::<Flow>(&json).ok());
    let flow = flow.ok_or(OidcError::Flow("a cookie of somebody else"))?;
    if flow.provider != name {
        return Err(OidcError::Flow("begun with another provider"));
    }
    let age = now.saturating_sub(flow.at);
    if !(-60_000..FLOW_MS).contains(&age) {
        return Err(OidcError::Flow("begun too long ago"));
    }
    Ok(flow)
}

/// Whether the answer is the one to this flow; gives the code.
fn judged<'a>(
    provider: &Provider,
    document: &Document,
    flow: &Flow,
    answer: &'a Answer,
) -> Result<&'a str, OidcError> {
    if answer.state.as_deref() != Some(&*flow.state) {
        return Err(OidcError::Flow("another state"));
    }
    let right = match &answer.iss {
        Some(iss) => *iss == provider.settings.issuer,
        None => !document.authorization_response_iss_parameter_supported,
    };
    if !right {
        return Err(OidcError::Flow("the answer of another provider"));
    }
    if let Some(error) = &answer.error {
        return Err(OidcError::Refused {
            provider: provider.settings.name.clone(),
            reason: short(error),
        });
    }
    let code = answer.code.as_deref();
    let code = code.filter(|code| !code.is_empty() && code.len() <= LONGEST);
    code.ok_or(OidcError::Flow("no code"))
}

/// Ends a sign-in: trades the code, believes the proof, and lets the account in.
pub async fn finish(
    registry: &Registry,
    name: &str,
    flow: Option<&Password>,
    answer: &Answer,
) -> Result<Arrived, OidcError> {
    let people = &registry.access.people;
    let provider = people.provider(name)?;
    let now = registry.clock.now_ms();
    let flow = opened(people, name, flow, now)?;
    let (document, ring) = provider.document(people, now).await?;
    let code = judged(provider, &document, &flow, answer)?;
    let form = vec![
        ("grant_type", "authorization_code".to_owned()),
        ("code", code.to_owned()),
        ("redirect_uri", flow.redirect.clone()),
        ("code_verifier", flow.verifier.clone()),
    ];
    let tokens = provider.tokens(&people.web, &document, form).await;
    let tokens = tokens.map_err(|denied| match denied {
        // Said about us, and not about who signs in.
        Denied::Says(error) if OURS.contains(&&*error) => {
            provider.down(format!("its token endpoint does not take us for who we are: {error}; are client_id and client_secret right?"))
        }
        Denied::Says(error) => OidcError::Refused {
            provider: name.to_owned(),
            reason: error,
        },
        Denied::Down(reason) => provider.down(reason),
    })?;
    let no_proof = |reason: String| OidcError::Proof {
        provider: name.to_owned(),
        reason,
    };
    let Some(id_token) = &tokens.id_token else {
        return Err(no_proof("it sent no ID token".to_owned()));
    };
    let settings = &provider.settings;
    let expected = Expected {
        issuer: &settings.issuer,
        client_id: &settings.client_id,
        nonce: Some(&flow.nonce),
        now,
    };
    let claims = verify(id_token, &expected, &ring, &people.fetch, &people.fetches).await;
    let claims = claims.map_err(no_proof)?;
    // Of the ID token alone: userinfo knows nothing of sessions.
    let sid = sid(&claims);
    let hint = sealed_hint(people, provider, id_token)?;
    let arrival = arrival(
        people,
        provider,
        &document,
        claims,
        tokens.access_token.as_deref(),
    );
    let arrival = arrival.await?;
    let principal = arrive(registry, &arrival).await?;
    let long = |token: &String| token.is_empty() || token.len() > LONGEST;
    Ok(Arrived {
        principal,
        subject: arrival.subject,
        sid,
        refresh: (tokens.refresh_token)
            .filter(|token| !long(token))
            .map(Password::new),
        hint,
        back: flow.back,
    })
}

/// What the claims say of the account; what they lack is asked for.
pub(super) async fn arrival(
    people: &People,
    provider: &Provider,
    document: &Document,
    mut claims: Map<String, Value>,
    access: Option<&str>,
) -> Result<Arrival, OidcError> {
    let settings = &provider.settings;
    let subject = claims.get("sub").and_then(Value::as_str);
    let subject = subject.unwrap_or_default().to_owned();
    let lacks = |claims: &Map<String, Value>, claim: &str| find(claims, claim).is_none();
    let lacking = lacks(&claims, &settings.groups_claim)
        || settings.onboards && lacks(&claims, &settings.username_claim);
    if let (true, Some(access), Some(_)) = (lacking, access, &document.userinfo_endpoint) {
        let more = provider.userinfo(&people.web, document, access).await;
        let more = more.map_err(|reason| provider.down(reason))?;
        // Somebody else's is no word on this account (OpenID Connect Core §5.3.2).
        if more.get("sub").and_then(Value::as_str) != Some(&*subject) {
            return Err(OidcError::Proof {
                provider: settings.name.clone(),
                reason: "its userinfo endpoint tells of another account (sub)".to_owned(),
            });
        }
        for (name, value) in more {
            claims.entry(name).or_insert(value);
        }
    }
    let groups = match find(&claims, &settings.groups_claim) {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(all)) => {
            let all = all.iter().filter_map(Value::as_str);
            all.map(str::to_owned).collect()
        }
        _ => Vec::new(),
    };
    let counts = |group: &String| {
        settings.group_filter.is_empty()
            || settings.admin_group.as_ref() == Some(group)
            || settings.group_filter.iter().any(|one| one.matches(group))
    };
    let name = find(&claims, &settings.username_claim).and_then(Value::as_str);
    Ok(Arrival {
        provider: settings.name.clone(),
        issuer: settings.issuer.clone(),
        subject,
        wished: settings
            .onboards
            .then(|| name.unwrap_or_default().to_owned()),
        groups: groups.into_iter().filter(counts).collect(),
    })
}
