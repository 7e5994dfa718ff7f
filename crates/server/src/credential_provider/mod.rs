//! What a kubelet asks before it pulls, and what it is answered: the protocol of credential provider plugins (K8SCRED-2 to K8SCRED-5).
//!
//! Called by `cli/credential_provider.rs`. A function of the request and of the time: nothing is read, sent or kept here. The
//! service account's token is the password as it is; whether it is good the registry says.

mod entry;
pub mod node;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wharf_core::workload::{Jwt, is_jwt};

pub use self::entry::{Entry, EntryError};

/// The version of the protocol.
pub const VERSION: &str = "credentialprovider.kubelet.k8s.io/v1";
/// Largest request, in bytes: a token, and as many annotations as a service account can have (256 KiB), escaped.
pub const LARGEST_REQUEST: usize = 1 << 20;
/// The name that goes with a token, unless another one is asked for. The registry does not look at it.
pub const USER: &str = "kubernetes";
/// A kubelet keeps an answer for so long at most.
const LONGEST_KEPT: Duration = Duration::from_secs(3_600);
/// A token that a pull begins with should last for so long yet, or for half of what is left of it.
const LEFT: u64 = 300;
/// Most bytes of a request's text in an error.
const LONGEST_TOLD: usize = 100;

/// How requests are answered.
#[derive(Debug, Clone)]
pub struct Options {
    /// The registries, or parts of one, that are answered for; none: whichever an image names.
    pub entries: Vec<Entry>,
    /// The name that goes with a token.
    pub user: String,
    /// One of these the token has to be for; none: that is left to the registry.
    pub audiences: Vec<String>,
    /// A request without a token is an error, not one without credentials.
    pub needs_token: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            user: USER.to_owned(),
            audiences: Vec::new(),
            needs_token: false,
        }
    }
}

/// Why there is no answer. Never quotes a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// More than is read.
    #[error(
        "the request is larger than {} KiB, which no kubelet sends",
        LARGEST_REQUEST >> 10
    )]
    Large,
    /// No request.
    #[error(
        "standard input holds no CredentialProviderRequest: {0}; kubelets write one, `wharf credential-provider node-config` says how"
    )]
    Form(String),
    /// Of another version.
    #[error(
        "the request is of apiVersion {0} and kind {1}, and only {VERSION} CredentialProviderRequest is spoken here; set apiVersion: \
         {VERSION} for this provider in the kubelet's CredentialProviderConfig"
    )]
    Version(String, String),
    /// The image names no registry.
    #[error("image {0}: {1}")]
    Image(String, EntryError),
    /// There is no token, and there has to be one.
    #[error(
        "the request holds no serviceAccountToken; set tokenAttributes for this provider in the kubelet's CredentialProviderConfig, \
         or leave out --require-token"
    )]
    NoToken,
    /// What is there is no token.
    #[error("serviceAccountToken is no token that can be used: {0}")]
    Token(String),
    /// It is for somebody else.
    #[error(
        "serviceAccountToken is for {0}, and not for {1}; set tokenAttributes.serviceAccountTokenAudience for this provider"
    )]
    Audience(String, String),
    /// It is over.
    #[error(
        "serviceAccountToken ended {0} s ago; is the clock of this node right? The next one is asked for by the kubelet itself"
    )]
    Ended(i64),
}

/// Name and password.
#[derive(Serialize)]
struct Auth<'a> {
    username: &'a str,
    password: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    api_version: &'static str,
    kind: &'static str,
    cache_key_type: &'static str,
    cache_duration: String,
    auth: BTreeMap<String, Auth<'a>>,
}

/// The answer to a request, as JSON with its end of line. `now` is in seconds since 1970.
///
/// # Errors
/// What is wrong with the request, for the kubelet's log.
pub fn answer(request: &[u8], options: &Options, now: i64) -> Result<String, Refused> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Request {
        #[serde(default)]
        api_version: String,
        #[serde(default)]
        kind: String,
        #[serde(default)]
        image: String,
        #[serde(default)]
        service_account_token: String,
    }
    if request.len() > LARGEST_REQUEST {
        return Err(Refused::Large);
    }
    // What serde says may quote what it read, which may be a token.
    let told = |error: serde_json::Error| match error.classify() {
        serde_json::error::Category::Data => Refused::Form("a field is of another type".into()),
        _ if request.trim_ascii().is_empty() => Refused::Form("it is empty".into()),
        _ => Refused::Form(format!("no JSON at line {}", error.line())),
    };
    let request: Request = serde_json::from_slice(request).map_err(told)?;
    if request.api_version != VERSION || request.kind != "CredentialProviderRequest" {
        return Err(Refused::Version(
            short(&request.api_version),
            short(&request.kind),
        ));
    }
    let image = Entry::of_image(&request.image);
    let image = image.map_err(|error| Refused::Image(short(&request.image), error))?;
    let token = request.service_account_token.trim();
    let mut places: Vec<String> = Vec::new();
    let mut kept = Duration::ZERO;
    if token.is_empty() && options.needs_token {
        return Err(Refused::NoToken);
    }
    if !token.is_empty() {
        kept = lasts(token, options, now)?;
        places = match options.entries.is_empty() {
            true => vec![image.host().to_owned()],
            // All that are of this registry: the kubelet keeps the answer for it, and takes the entry that fits an image.
            false => options
                .entries
                .iter()
                .filter_map(|entry| entry.at(image.host()))
                .collect(),
        };
    }
    let auth = |place| {
        let auth = Auth {
            username: &options.user,
            password: token,
        };
        (place, auth)
    };
    let response = Response {
        api_version: VERSION,
        kind: "CredentialProviderResponse",
        cache_key_type: "Registry",
        cache_duration: duration(kept),
        auth: places.into_iter().map(auth).collect(),
    };
    let text = serde_json::to_string(&response);
    Ok(text.map_err(|error| Refused::Form(error.to_string()))? + "\n")
}

/// For how long a kubelet may use the token for pulls that begin.
fn lasts(token: &str, options: &Options, now: i64) -> Result<Duration, Refused> {
    let form = |text: &str| Refused::Token(text.to_owned());
    if !is_jwt(token) {
        return Err(form("it is no JWT"));
    }
    let token = Jwt::read(token).map_err(|fault| Refused::Token(fault.to_string()))?;
    let ours = |one: &&str| options.audiences.iter().any(|our| our == one);
    let named = token.audiences();
    if !options.audiences.is_empty() && !named.iter().any(ours) {
        let named = match named.is_empty() {
            true => "nobody".to_owned(),
            false => short(&named.join(", ")),
        };
        return Err(Refused::Audience(named, options.audiences.join(" or ")));
    }
    let end = token.end().map_err(|fault| form(&fault.to_string()))?;
    let end = end.ok_or_else(|| form("it has no end (exp), so the registry would refuse it"))?;
    match u64::try_from(end.saturating_sub(now)) {
        Ok(left) if left > 0 => {
            let usable = left - LEFT.min(left.div_ceil(2));
            Ok(Duration::from_secs(usable).min(LONGEST_KEPT))
        }
        _ => Err(Refused::Ended(now.saturating_sub(end))),
    }
}

/// As Go writes durations.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds / 60 {
        0 => format!("{seconds}s"),
        minutes => format!("{minutes}m{}s", seconds % 60),
    }
}

/// The beginning of a text of the request, for people.
fn short(text: &str) -> String {
    let cut = text
        .char_indices()
        .nth(LONGEST_TOLD)
        .map_or(text.len(), |at| at.0);
    let more = if cut < text.len() { "…" } else { "" };
    format!("{:?}{more}", &text[..cut])
}

#[cfg(test)]
mod tests;
