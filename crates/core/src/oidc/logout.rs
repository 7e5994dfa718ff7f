//! Signing out at the provider as well (OpenID Connect RP-Initiated Logout 1.0), and providers that sign people out here (OpenID Connect
//! Back-Channel Logout 1.0).
//!
//! Both come after the fact: a session here ends whether or not its provider can be asked, and a provider's word ends what it names and
//! nothing else. The ID token that some providers want for a hint is kept by the browser alone, sealed, and goes to its own issuer.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::flow::random;
use super::id_token::{Expected, LEEWAY, OLDEST, is_logout, verify_logout};
use super::provider::Provider;
use super::{OidcError, People};
use crate::access::Password;
use crate::registry::Registry;
use crate::session;
use wharf_oci::percent::encode_query;

/// Longest `sid`, `sub` and `jti` that are looked at, in bytes (OpenID Connect Core §2 has 255 for `sub`).
pub(super) const LONGEST_ID: usize = 255;

/// Longest ID token that is kept for a hint, in bytes: browsers keep 4 KiB of a cookie, and it is sealed.
const LONGEST_HINT: usize = 2_800;

/// What hints of a provider are sealed for.
fn purpose(provider: &Provider) -> String {
    format!("oidc-hint/{}", provider.settings.name)
}

/// An ID token for [`leave`], for the browser to keep.
pub(super) fn sealed_hint(
    people: &People,
    provider: &Provider,
    id_token: &str,
) -> crate::Result<Option<Password>> {
    if !provider.settings.leaves || id_token.len() > LONGEST_HINT {
        return Ok(None);
    }
    let sealed = people
        .sealing
        .seal(&purpose(provider), id_token.as_bytes())?;
    Ok(Some(Password::new(URL_SAFE_NO_PAD.encode(sealed))))
}

/// The ID token of a hint that was made here, for this provider.
fn opened_hint(people: &People, provider: &Provider, hint: &Password) -> Option<String> {
    let sealed = URL_SAFE_NO_PAD.decode(hint.reveal()).ok()?;
    let token = people.sealing.open_sealed(&purpose(provider), &sealed)?;
    String::from_utf8(token).ok()
}

/// Where to send a browser whose session here has ended, and what it is to bring back.
#[derive(Debug)]
pub struct Leaving {
    /// What people call the provider.
    pub title: String,
    /// The provider's page.
    pub location: String,
    /// For a cookie.
    pub state: Password,
}

/// Where somebody signs out at the provider; `None`: nobody is sent there, or it has no such page, or does not answer. `redirect` is our
/// own address to which it sends back, `hint` what the browser kept of its sign-in.
pub async fn leave(
    registry: &Registry,
    name: &str,
    redirect: &str,
    hint: Option<&Password>,
) -> Option<Leaving> {
    let people = &registry.access.people;
    let provider = people.provider(name).ok()?;
    let settings = &provider.settings;
    if !settings.leaves {
        return None;
    }
    let document = provider.document(people, registry.clock.now_ms()).await;
    let document = document
        .inspect_err(
            |error| tracing::warn!(provider = name, %error, "nobody can be signed out there"),
        )
        .ok()?
        .0;
    let endpoint = document.end_session_endpoint.as_ref()?;
    let state = random();
    let fields = [
        ("client_id", &*settings.client_id),
        ("post_logout_redirect_uri", redirect),
        ("state", &state),
    ];
    // Some providers end nothing without it, or ask first.
    let hint = hint.and_then(|hint| opened_hint(people, provider, hint));
    let hint = hint.as_deref().map(|token| ("id_token_hint", token));
    let fields = fields.into_iter().chain(hint);
    let fields = fields.map(|(name, value)| format!("{name}={}", encode_query(value)));
    let fields: Vec<_> = fields.collect();
    let sign = if endpoint.contains('?') { '&' } else { '?' };
    Some(Leaving {
        title: settings.title.clone(),
        location: format!("{endpoint}{sign}{}", fields.join("&")),
        state: Password::new(state),
    })
}

/// What people call the provider, if this browser comes back from signing out there.
pub fn left(people: &People, name: &str, kept: &Password, state: &str) -> Option<String> {
    let provider = people.provider(name).ok()?;
    (!state.is_empty() && kept.reveal() == state).then(|| provider.settings.title.clone())
}

/// A text of a claim that names something.
fn named<'a>(claims: &'a Map<String, Value>, claim: &str) -> Result<Option<&'a str>, String> {
    match claims.get(claim) {
        None => Ok(None),
        Some(Value::String(text)) if !text.is_empty() && text.len() <= LONGEST_ID => Ok(Some(text)),
        Some(_) => Err(format!("its {claim} is no text of 1 to {LONGEST_ID} bytes")),
    }
}

/// What the provider calls its own session; one that is written in no usual way is none.
pub(super) fn sid(claims: &Map<String, Value>) -> String {
    let sid = named(claims, "sid").ok().flatten();
    sid.unwrap_or_default().to_owned()
}

/// Hears a provider say that somebody signed out there (§2.6, §2.7): ends the sessions that it names; gives how many these were.
pub async fn heard(registry: &Registry, name: &str, token: &str) -> Result<usize, OidcError> {
    let people = &registry.access.people;
    let provider = people.provider(name)?;
    let now = registry.clock.now_ms();
    let (_, ring) = provider.document(people, now).await?;
    let expected = Expected {
        issuer: &provider.settings.issuer,
        client_id: &provider.settings.client_id,
        nonce: None,
        now,
    };
    let no_proof = |reason: String| OidcError::Proof {
        provider: name.to_owned(),
        reason,
    };
    let claims = verify_logout(token, &expected, &ring, &people.fetch, &people.fetches).await;
    let claims = claims.map_err(no_proof)?;
    let word = read(name, &claims, now).map_err(no_proof)?;
    let ended = session::signed_out_elsewhere(registry, word).await?;
    let Some(ended) = ended else {
        return Err(no_proof("it was heard before (jti)".to_owned()));
    };
    for (user, count) in &ended {
        tracing::info!(
            user,
            provider = name,
            count,
            "a provider says that somebody signed out there"
        );
    }
    Ok(ended.iter().map(|(_, count)| count).sum())
}

/// What a logout token says, whose signature, issuer, audience and times are good.
pub(super) fn read(
    provider: &str,
    claims: &Map<String, Value>,
    now: i64,
) -> Result<session::SignedOut, String> {
    if !is_logout(claims) {
        return Err("it is no logout token (events)".to_owned());
    }
    if claims.contains_key("nonce") {
        return Err("it has a nonce, which no logout token has".to_owned());
    }
    let (sid, subject) = (named(claims, "sid")?, named(claims, "sub")?);
    if sid.is_none() && subject.is_none() {
        return Err("it names neither a session (sid) nor an account (sub)".to_owned());
    }
    let jti = named(claims, "jti")?.ok_or("it has no name (jti)")?;
    Ok(session::SignedOut {
        provider: provider.to_owned(),
        sid: sid.map(str::to_owned),
        subject: subject.map(str::to_owned),
        jti: jti.to_owned(),
        // No token that was issued before now counts any longer then.
        until: now.saturating_add((OLDEST + 2 * LEEWAY) * 1_000),
    })
}
