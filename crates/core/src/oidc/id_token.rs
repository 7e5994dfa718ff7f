//! Whether an ID token proves who somebody is (OpenID Connect Core §3.1.3.7), or a logout token is the provider's (OpenID Connect
//! Back-Channel Logout §2.6). Neither is ever taken for the other.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde_json::{Map, Value};

use crate::workload::{Algorithm, Fetch, Jwt, Ring, signed_by};

/// How far clocks may be apart, in seconds.
pub(super) const LEEWAY: i64 = 60;
/// A proof that is older proves nothing of this sign-in, in seconds.
pub(super) const OLDEST: i64 = 15 * 60;

/// What a token must say.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    /// What this sign-in was begun with; `None`: the token was not asked for in a browser.
    pub(super) nonce: Option<&'a str>,
    /// In ms since 1970.
    pub(super) now: i64,
}

/// The event of which a logout token tells.
const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Whether claims are those of a logout token.
pub(super) fn is_logout(claims: &Map<String, Value>) -> bool {
    let events = claims.get("events").and_then(Value::as_object);
    events.is_some_and(|events| events.get(LOGOUT).is_some_and(Value::is_object))
}

/// The claims of a token that proves something, or why it does not.
pub(super) async fn verify(
    token: &str,
    expected: &Expected<'_>,
    ring: &Arc<Ring>,
    fetch: &Arc<dyn Fetch>,
    count: &Arc<AtomicU64>,
) -> Result<Map<String, Value>, String> {
    // An access token says so in its header (RFC 9068 §2.1), so that nobody takes it for a proof.
    let jwt = Jwt::read_as(token, &["jwt"]).map_err(|fault| fault.to_string())?;
    signed(&jwt, expected, ring, fetch, count).await?;
    stands(&jwt, expected)?;
    if jwt.claims.contains_key("events") {
        return Err("it tells of an event, and proves nobody's identity (events)".to_owned());
    }
    let nonce = jwt.claims.get("nonce").and_then(Value::as_str);
    if expected.nonce.is_some() && nonce != expected.nonce {
        return Err("it belongs to another sign-in (nonce)".to_owned());
    }
    Ok(jwt.claims)
}

/// The claims of a logout token that the provider issued for us lately, or why it does not count. What it says is for the caller to judge.
pub(super) async fn verify_logout(
    token: &str,
    expected: &Expected<'_>,
    ring: &Arc<Ring>,
    fetch: &Arc<dyn Fetch>,
    count: &Arc<AtomicU64>,
) -> Result<Map<String, Value>, String> {
    let jwt = Jwt::read_as(token, &["logout+jwt", "jwt"]).map_err(|fault| fault.to_string())?;
    signed(&jwt, expected, ring, fetch, count).await?;
    stands(&jwt, expected)?;
    Ok(jwt.claims)
}

async fn signed(
    jwt: &Jwt<'_>,
    expected: &Expected<'_>,
    ring: &Arc<Ring>,
    fetch: &Arc<dyn Fetch>,
    count: &Arc<AtomicU64>,
) -> Result<(), String> {
    if jwt.issuer() != Some(expected.issuer) {
        return Err("it is another issuer's (iss)".to_owned());
    }
    let signed = signed_by(ring, &Algorithm::ALL, jwt, expected.now, fetch, count).await;
    signed.map(drop).map_err(|fault| fault.to_string())
}

/// Whether a token that the provider signed is for us, and of now.
fn stands(jwt: &Jwt<'_>, expected: &Expected<'_>) -> Result<(), String> {
    let no = |reason: &str| Err(reason.to_owned());
    let audiences = jwt.audiences();
    if !audiences.contains(&expected.client_id) {
        return no("it is for another client (aud)");
    }
    let party = jwt.claims.get("azp");
    let ours = party.is_some_and(|party| party.as_str() == Some(expected.client_id));
    // For several, or with a word on it: then that word must name us.
    if (audiences.len() > 1 || party.is_some()) && !ours {
        return no("it was issued to another client (azp)");
    }
    let time = |name: &str| jwt.time(name).map_err(|fault| fault.to_string());
    let now = expected.now.div_euclid(1_000);
    let (Some(end), Some(issued)) = (time("exp")?, time("iat")?) else {
        return no("it has no end (exp), or no beginning (iat)");
    };
    if now >= end + LEEWAY {
        return no("it has expired (exp)");
    }
    let begin = time("nbf")?.unwrap_or(issued).max(issued);
    if now + LEEWAY < begin {
        return no("it is not valid yet (iat, nbf); is the clock of a machine wrong?");
    }
    if now > issued + OLDEST {
        return no("it was issued too long ago (iat)");
    }
    Ok(())
}
