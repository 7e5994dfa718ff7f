//! Whether an ID token proves who somebody is (OpenID Connect Core §3.1.3.7).

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use serde_json::{Map, Value};

use crate::workload::{Algorithm, Fetch, Jwt, Ring, signed_by};

/// How far clocks may be apart, in seconds.
const LEEWAY: i64 = 60;
/// A proof that is older proves nothing of this sign-in, in seconds.
const OLDEST: i64 = 15 * 60;

/// What a token must say.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    /// What this sign-in was begun with; `None`: the token was not asked for in a browser.
    pub(super) nonce: Option<&'a str>,
    /// In ms since 1970.
    pub(super) now: i64,
}

/// The claims of a token that proves something, or why it does not.
pub(super) async fn verify(
    token: &str,
    expected: &Expected<'_>,
    ring: &Arc<Ring>,
    fetch: &Arc<dyn Fetch>,
    count: &Arc<AtomicU64>,
) -> Result<Map<String, Value>, String> {
    let jwt = Jwt::read(token).map_err(|fault| fault.to_string())?;
    if jwt.issuer() != Some(expected.issuer) {
        return Err("it is another issuer's (iss)".to_owned());
    }
    let signed = signed_by(ring, &Algorithm::ALL, &jwt, expected.now, fetch, count);
    signed.await.map_err(|fault| fault.to_string())?;
    stands(&jwt, expected)?;
    Ok(jwt.claims)
}

/// Whether a token that the provider signed is about this sign-in.
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
    let nonce = jwt.claims.get("nonce").and_then(Value::as_str);
    if expected.nonce.is_some() && nonce != expected.nonce {
        return no("it belongs to another sign-in (nonce)");
    }
    Ok(())
}
