//! Bearer tokens: JWTs that only this registry issues and only this registry reads (§4.3).
//!
//! A token names who, with which password, and what was asked for; it grants nothing by itself, since each request
//! asks for the subject's rights of that moment. The algorithm is fixed, the key is looked up by its exact name among
//! our own, and everything else that a header can hold is ignored or refused.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, Header, Validation};
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use wharf_oci::Scope;

use super::authenticate::AuthFailure;
use super::keys::Keyring;
use super::secret::Password;
use crate::Result;

/// The only algorithm that is signed with or accepted.
pub(crate) const ALGORITHM: Algorithm = Algorithm::ES256;
/// Its JWA name.
pub(crate) const ALGORITHM_NAME: &str = "ES256";
/// How far clocks may be apart, in seconds.
pub const LEEWAY_SECONDS: i64 = 60;
/// Longest token that is looked at, in bytes; headers beyond that fail in clients and proxies too (TOK-8).
pub const LONGEST_TOKEN: usize = 8 << 10;
/// How many verified tokens are remembered.
const REMEMBERED: usize = 10_000;

/// Why a token is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// Not a JWT of ours in form, or longer than [`LONGEST_TOKEN`].
    #[error("the token is not one that this registry issues")]
    Malformed,
    /// Another algorithm than ours, `none` among them.
    #[error("the token is signed with another algorithm than this registry uses")]
    Algorithm,
    /// A key that is not ours, or no longer.
    #[error(
        "the token is signed with a key that this registry does not use, or no longer; fetch a new token"
    )]
    Key,
    /// The signature does not fit.
    #[error("the token's signature is wrong")]
    Signature,
    /// From another issuer.
    #[error("the token was issued by another service")]
    Issuer,
    /// For another audience.
    #[error("the token was issued for another service")]
    Audience,
    /// Not yet valid, by more than [`LEEWAY_SECONDS`].
    #[error("the token is not valid yet; is the clock of a machine wrong?")]
    Early,
    /// No longer valid, by more than [`LEEWAY_SECONDS`].
    #[error("the token has expired; fetch a new one")]
    Expired,
    /// The user is gone or has another password, or what the token was bought with is no longer good.
    #[error("the token was revoked, or its user is gone or has a new password; sign in again")]
    Revoked,
}

impl TokenFault {
    /// A word for metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Early => "early",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// One entry of the `access` claim.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    name: String,
    actions: Vec<String>,
}

/// What a token says. `aud` is one string: we never issue an array, so none is accepted.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    exp: i64,
    nbf: i64,
    iat: i64,
    jti: String,
    access: Vec<Entry>,
    /// The credential that the subject proved; empty for anonymous.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    cred: String,
    /// It is not for what `access` lists, but for all that the subject may.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    whole: bool,
}

/// A token whose signature, issuer and audience are ours. Times and user are still to be looked at.
#[derive(Debug)]
pub(crate) struct Verified {
    /// Empty for anonymous.
    pub(crate) subject: Box<str>,
    pub(crate) credential: Box<str>,
    pub(crate) scopes: Arc<[Scope]>,
    /// It is good for all that the subject may; then there are no scopes.
    pub(crate) whole: bool,
    kid: Box<str>,
    not_before: i64,
    expires: i64,
}

impl Verified {
    /// Checks the times against `now` in ms; the leeway is for both ends.
    ///
    /// # Errors
    /// [`TokenFault::Early`]; expiry is no error here but tells since when, in ms.
    pub(crate) fn standing(&self, now: i64) -> Result<Option<i64>, TokenFault> {
        let ms = |seconds: i64| seconds.saturating_mul(1_000);
        if now < ms(self.not_before.saturating_sub(LEEWAY_SECONDS)) {
            Err(TokenFault::Early)
        } else if now >= ms(self.expires.saturating_add(LEEWAY_SECONDS)) {
            Ok(Some(ms(self.expires)))
        } else {
            Ok(None)
        }
    }
}

/// Signs and reads tokens.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// Issuer and audience.
    service: String,
    pub(crate) keys: Keyring,
    validation: Validation,
    verified: Cache<[u8; 32], Arc<Verified>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// How reading tokens went since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TokenCounts {
    /// Tokens that were known already.
    pub remembered: u64,
    /// Tokens that were looked at closely.
    pub checked: u64,
}

impl Tokens {
    pub(crate) fn new(service: String, keys: Keyring) -> Self {
        let mut validation = Validation::new(ALGORITHM);
        // The library would ask the machine's clock and take arrays; `verify` looks at these claims itself.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        Self {
            service,
            keys,
            validation,
            verified: Cache::new(REMEMBERED),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        }
    }

    pub(crate) fn service(&self) -> &str {
        &self.service
    }

    pub(crate) fn counts(&self) -> TokenCounts {
        TokenCounts {
            remembered: self.hits.load(Ordering::Relaxed),
            checked: self.misses.load(Ordering::Relaxed),
        }
    }

    /// Issues a token to `subject` (empty for anonymous) that ends `seconds` after `now` (in ms).
    pub(crate) fn issue(
        &self,
        subject: &str,
        credential: &str,
        scopes: &[Scope],
        now: i64,
        seconds: i64,
    ) -> Result<Password> {
        self.sign((subject, credential), Some(scopes), now, seconds)
    }

    /// Issues a token that is good for all that `subject` may.
    pub(crate) fn issue_whole(
        &self,
        subject: &str,
        credential: &str,
        now: i64,
        seconds: i64,
    ) -> Result<Password> {
        self.sign((subject, credential), None, now, seconds)
    }

    fn sign(
        &self,
        (subject, credential): (&str, &str),
        scopes: Option<&[Scope]>,
        now: i64,
        seconds: i64,
    ) -> Result<Password> {
        let issued = now.div_euclid(1_000);
        let whole = scopes.is_none();
        let scopes = scopes.unwrap_or_default();
        let access = scopes.iter().map(|scope| Entry {
            kind: scope.kind.clone(),
            name: scope.name.clone(),
            actions: scope.actions.clone(),
        });
        let claims = Claims {
            iss: self.service.clone(),
            sub: subject.into(),
            aud: self.service.clone(),
            exp: issued + seconds,
            nbf: issued,
            iat: issued,
            jti: Uuid::new_v4().simple().to_string(),
            access: access.collect(),
            cred: credential.into(),
            whole,
        };
        let signer = self.keys.signer();
        let header = Header {
            kid: Some(signer.kid.clone()),
            ..Header::new(ALGORITHM)
        };
        jsonwebtoken::encode(&header, &claims, &signer.key)
            .map(Password::new)
            .map_err(|error| {
                crate::Error::Internal(format!("a token could not be signed: {error}"))
            })
    }

    /// Reads a token. One that was read before costs a hash and a look-up, whatever its fate since: only its key must
    /// still be trusted.
    pub(crate) async fn verify(&self, token: &str, now: i64) -> Result<Arc<Verified>, AuthFailure> {
        if token.len() > LONGEST_TOKEN {
            return Err(TokenFault::Malformed.into());
        }
        let id: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.verified.get(&id)
            && self.keys.trusts(&known.kid, now)
        {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(known);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let kid = key_name(token)?;
        let key = self.keys.find(&kid, now).await?.ok_or(TokenFault::Key)?;
        let data =
            jsonwebtoken::decode::<Claims>(token, &key, &self.validation).map_err(|error| {
                match error.kind() {
                    jsonwebtoken::errors::ErrorKind::InvalidSignature => TokenFault::Signature,
                    _ => TokenFault::Malformed,
                }
            })?;
        let claims = data.claims;
        if claims.iss != self.service {
            return Err(TokenFault::Issuer.into());
        }
        if claims.aud != self.service {
            return Err(TokenFault::Audience.into());
        }
        let scopes = claims.access.into_iter().map(|entry| Scope {
            kind: entry.kind,
            class: None,
            name: entry.name,
            actions: entry.actions,
        });
        let verified = Arc::new(Verified {
            subject: claims.sub.into(),
            credential: claims.cred.into(),
            scopes: scopes.collect(),
            whole: claims.whole,
            kid: kid.into(),
            not_before: claims.nbf,
            expires: claims.exp,
        });
        self.verified.insert(id, verified.clone());
        Ok(verified)
    }
}

/// The name of the key that a token says it is signed with, if its header is one that we write. All that is read of a
/// token before its signature is checked; public for fuzzing.
pub fn key_name(token: &str) -> Result<String, TokenFault> {
    /// Only what is looked at; keys and addresses of keys in a header are never followed.
    #[derive(Deserialize)]
    struct Head {
        alg: String,
        typ: Option<String>,
        kid: Option<String>,
        crit: Option<serde::de::IgnoredAny>,
    }
    let head = token.split('.').next().unwrap_or_default();
    let head = URL_SAFE_NO_PAD
        .decode(head)
        .map_err(|_| TokenFault::Malformed)?;
    let head: Head = serde_json::from_slice(&head).map_err(|_| TokenFault::Malformed)?;
    if head.alg != ALGORITHM_NAME {
        return Err(TokenFault::Algorithm);
    }
    // A critical extension must be understood or the token refused (RFC 7515 §4.1.11).
    if head.crit.is_some() || head.typ.is_some_and(|typ| typ != "JWT") {
        return Err(TokenFault::Malformed);
    }
    head.kid.ok_or(TokenFault::Key)
}

/// Merges what was asked for into what a token carries: known resources and actions, each resource once (SCOPE-2).
pub(crate) fn sanitise(asked: &[Scope]) -> Vec<Scope> {
    let mut places: HashMap<(String, String), usize> = HashMap::new();
    let mut kept: Vec<Scope> = Vec::new();
    for scope in asked {
        let known: &[&str] = match (scope.kind.as_str(), scope.name.as_str()) {
            ("registry", "catalog" | "admin") => &["*"],
            ("repository", name) if wharf_oci::RepositoryName::parse(name).is_ok() => {
                &["pull", "push", "delete", "*"]
            }
            _ => continue,
        };
        let place = *places
            .entry((scope.kind.clone(), scope.name.clone()))
            .or_insert_with(|| {
                kept.push(Scope {
                    class: None,
                    actions: Vec::new(),
                    ..scope.clone()
                });
                kept.len() - 1
            });
        for action in known {
            let actions = &mut kept[place].actions;
            if scope.actions.iter().any(|asked| asked == action)
                && !actions.iter().any(|had| had == action)
            {
                actions.push((*action).to_owned());
            }
        }
    }
    kept.retain(|scope| !scope.actions.is_empty());
    kept
}
