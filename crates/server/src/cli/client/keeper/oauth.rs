//! OAuth 2.0 as a registry speaks it to terminals: RFC 8414 (what it can do), 8628 (devices), 6749 (refresh), 7009 (revocation).
//!
//! One request each. All of it goes to the registry that was named, and nowhere else: endpoints elsewhere are refused, redirects
//! are not followed. What a registry says is shown to people only if it is plain text.

use std::time::Duration;

use serde_json::Value;
use wharf_oci::percent::encode_query;

use super::super::place::{Place, place};
use super::super::wire::{self, Ask, Body, Bounds, Target};
use super::hosts;
use crate::cli::exit::{Exit, Failure};
use crate::credential_helper::check_user;

/// What a registry knows us as.
const CLIENT: &str = "wharf";
const METADATA: &str = "/.well-known/oauth-authorization-server";
pub(super) const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// All of it is small, and there at once.
const BOUNDS: Bounds = Bounds {
    largest: 64 << 10,
    whole: Some(Duration::from_secs(10)),
};
/// Signing out waits for nobody for long.
const REVOKE: Bounds = Bounds {
    whole: Some(Duration::from_secs(5)),
    ..BOUNDS
};
/// Longest token, in bytes.
const LONGEST_TOKEN: usize = 16 << 10;
/// Longest text of a registry that is shown.
const LONGEST_SHOWN: usize = 300;

/// Where a registry's endpoints are: paths on the registry itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoints {
    pub(super) device: String,
    pub(super) token: String,
    pub(super) revoke: Option<String>,
}

/// How one signs in there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// By device.
    Device(Endpoints),
    /// By name and password.
    Password,
    /// Under another name, which it gives.
    Elsewhere(String),
}

/// A code for a person to confirm.
#[derive(Debug, Clone)]
pub(in crate::cli) struct Code {
    pub(in crate::cli) device_code: String,
    pub(in crate::cli) user_code: String,
    pub(in crate::cli) uri: String,
    pub(in crate::cli) complete: Option<String>,
    pub(in crate::cli) lasts: Duration,
    pub(in crate::cli) interval: Duration,
}

/// Tokens.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) access: String,
    pub(super) refresh: String,
    pub(super) user: String,
    /// Seconds.
    pub(super) lasts: i64,
}

/// What the token endpoint says.
pub(super) enum Answered {
    Granted(Grant),
    /// An error of RFC 6749, 5.2, and what it tells a person.
    Refused {
        error: String,
        told: String,
    },
    /// Nothing that could be understood came: it may be granted or not.
    Unclear(Failure),
}

/// What is said of a registry, for people.
fn fault(target: Target<'_>, text: &str) -> Failure {
    Failure::text(Exit::Failure, format!("{}: {text}", target.url))
}

/// A text that may be shown on a terminal.
pub(super) fn plain(text: &str) -> Option<String> {
    let fits = !text.is_empty() && text.len() <= LONGEST_SHOWN;
    (fits && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))).then(|| text.to_owned())
}

/// A text that can go into a header.
fn token(text: &Value) -> Option<String> {
    let text = text.as_str()?;
    let fits = !text.is_empty() && text.len() <= LONGEST_TOKEN;
    (fits && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| text.to_owned())
}

/// A number that says how many seconds.
fn seconds(value: &Value, least: u64, most: u64) -> Option<u64> {
    value.as_u64().map(|seconds| seconds.clamp(least, most))
}

fn same(one: &Place, other: &Place) -> bool {
    one.tls == other.tls && one.port == other.port && one.host.eq_ignore_ascii_case(&other.host)
}

/// The path of an endpoint, if it is on the registry itself.
fn path_at(endpoint: &str, registry: &Place) -> Option<String> {
    let (scheme, rest) = endpoint.split_once("://")?;
    let (authority, path) = rest.split_at(rest.find('/')?);
    let there = place(&format!("{scheme}://{authority}")).ok()?;
    let plain = path.len() <= LONGEST_SHOWN && path.bytes().all(|byte| byte.is_ascii_graphic());
    (same(&there, registry) && plain && !path.contains('#')).then(|| path.to_owned())
}

/// Asks a registry how one signs in.
pub(super) fn discover(target: Target<'_>) -> Result<Found, Failure> {
    let here = place(target.url).map_err(|text| Failure::text(Exit::Usage, text))?;
    let ask = Ask {
        method: "GET",
        path: METADATA,
        body: None,
    };
    let answer = wire::remote(target, None, &ask, BOUNDS)?;
    if answer.status >= 500 || answer.status == 429 {
        let text = format!(
            "it cannot say now how one signs in (status {}); try again",
            answer.status
        );
        return Err(fault(target, &text));
    }
    // Registries that never heard of it answer in many ways.
    let body: Value = match answer.status {
        200 => serde_json::from_slice(&answer.body).unwrap_or(Value::Null),
        _ => Value::Null,
    };
    let Some(device) = body["device_authorization_endpoint"].as_str() else {
        return Ok(Found::Password);
    };
    // RFC 8414, 3.3: else somebody could send people to a registry of theirs.
    let issuer = body["issuer"].as_str().and_then(plain).unwrap_or_default();
    if !place(&issuer).is_ok_and(|issuer| same(&issuer, &here)) {
        return Ok(Found::Elsewhere(issuer));
    }
    let at = |name: &str, endpoint: Option<&str>| {
        endpoint
            .and_then(|endpoint| path_at(endpoint, &here))
            .ok_or_else(|| {
                fault(
                    target,
                    &format!(
                        "its {name} is not at {}, so nothing is sent there",
                        target.url
                    ),
                )
            })
    };
    let revoke = body["revocation_endpoint"].as_str();
    Ok(Found::Device(Endpoints {
        device: at("device_authorization_endpoint", Some(device))?,
        token: at("token_endpoint", body["token_endpoint"].as_str())?,
        revoke: revoke
            .map(|revoke| at("revocation_endpoint", Some(revoke)))
            .transpose()?,
    }))
}

fn post(
    target: Target<'_>,
    path: &str,
    form: &[(&str, &str)],
    bounds: Bounds,
) -> Result<wire::Answer, Failure> {
    let form: Vec<_> = form
        .iter()
        .map(|(name, value)| format!("{name}={}", encode_query(value)))
        .collect();
    let ask = Ask {
        method: "POST",
        path,
        body: Some(Body::Form(form.join("&"))),
    };
    wire::remote(target, None, &ask, bounds)
}

/// Asks for a code. `device` is what the person who confirms it is shown.
pub(super) fn code(
    target: Target<'_>,
    endpoints: &Endpoints,
    device: &str,
) -> Result<Code, Failure> {
    let form = [("client_id", CLIENT), ("device", device)];
    let form = if device.is_empty() {
        &form[..1]
    } else {
        &form[..]
    };
    let answer = post(target, &endpoints.device, form, BOUNDS)?;
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    if answer.status != 200 {
        let told = refusal(&body).map(|(_, told)| told);
        let told = told.unwrap_or_else(|| format!("status {}", answer.status));
        return Err(fault(
            target,
            &format!("it gives no code to sign in with: {told}"),
        ));
    }
    let read = || {
        let uri = |name: &str| {
            let uri = body[name].as_str().and_then(plain)?;
            (uri.starts_with("https://") || uri.starts_with("http://")).then_some(uri)
        };
        Some(Code {
            device_code: token(&body["device_code"])?,
            user_code: body["user_code"].as_str().and_then(plain)?,
            uri: uri("verification_uri")?,
            complete: uri("verification_uri_complete"),
            lasts: Duration::from_secs(seconds(&body["expires_in"], 1, 3_600)?),
            interval: Duration::from_secs(seconds(&body["interval"], 1, 60).unwrap_or(5)),
        })
    };
    read().ok_or_else(|| {
        fault(
            target,
            "it gives a code to sign in with that cannot be read",
        )
    })
}

/// Error and words of an answer that refuses.
fn refusal(body: &Value) -> Option<(String, String)> {
    let error = body["error"].as_str().and_then(plain)?;
    let told = body["error_description"].as_str().and_then(plain);
    let told = told.unwrap_or_else(|| error.clone());
    Some((error, told))
}

/// Asks the token endpoint for tokens.
pub(super) fn tokens(target: Target<'_>, path: &str, form: &[(&str, &str)]) -> Answered {
    let form: Vec<_> = form
        .iter()
        .copied()
        .chain([("client_id", CLIENT)])
        .collect();
    let answer = match post(target, path, &form, BOUNDS) {
        Ok(answer) => answer,
        Err(failure) if failure.exit == Exit::Usage => {
            let told = failure.error.to_string();
            return Answered::Refused {
                error: String::new(),
                told,
            };
        }
        Err(failure) => return Answered::Unclear(failure),
    };
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
    let unclear = |text: &str| Answered::Unclear(fault(target, text));
    match answer.status {
        200 => match grant(&body) {
            Some(grant) => Answered::Granted(grant),
            None => unclear("the answer holds no tokens: is a proxy in between?"),
        },
        300..=399 => Answered::Refused {
            error: String::new(),
            told: "it answers with a redirect, which is not followed with a secret".to_owned(),
        },
        status @ (408 | 429 | 500..) => unclear(&format!("status {status}")),
        status => match refusal(&body) {
            Some((error, told)) => Answered::Refused { error, told },
            None => Answered::Refused {
                error: String::new(),
                told: format!("status {status}, without a reason"),
            },
        },
    }
}

fn grant(body: &Value) -> Option<Grant> {
    let kind = body["token_type"].as_str()?;
    let user = body["username"].as_str()?;
    let fits = kind.eq_ignore_ascii_case("bearer") && check_user(user).is_ok();
    Some(Grant {
        access: token(&body["access_token"])?,
        refresh: token(&body["refresh_token"])?,
        user: fits.then(|| user.to_owned())?,
        lasts: i64::try_from(seconds(&body["expires_in"], 0, 86_400)?).ok()?,
    })
}

/// Ends a terminal at its registry.
pub(super) fn revoke(target: Target<'_>, path: &str, refresh: &str) -> Result<(), Failure> {
    let form = [
        ("token", refresh),
        ("token_type_hint", "refresh_token"),
        ("client_id", CLIENT),
    ];
    let answer = post(target, path, &form, REVOKE)?;
    match answer.status {
        200 => Ok(()),
        status => Err(fault(target, &format!("status {status}"))),
    }
}

/// How somebody signs in anew there.
pub(super) fn login(url: &str) -> String {
    format!("wharf login {}", hosts(url))
}
