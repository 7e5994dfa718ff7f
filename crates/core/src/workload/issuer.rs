//! What an issuer's tokens must be, and where its keys are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::claim;
use super::jwks::KeySet;

/// Longest address or audience, in bytes.
const LONGEST: usize = 1 << 10;
/// Most audiences of one issuer.
const MOST_AUDIENCES: usize = 16;
/// Most bytes of certificates of one issuer.
const LARGEST_AUTHORITY: usize = 128 << 10;
/// The most that clocks may be apart, in seconds (OIDC-4).
const MOST_LEEWAY: u32 = 60;
/// A day, in seconds.
const DAY: u32 = 86_400;

/// What sort of issuer it is: whose tokens need looks of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Service accounts of a cluster: bound tokens alone.
    Kubernetes,
    /// GitHub Actions: nothing of what strangers can set off, such as pull requests, unless a rule asks for the event.
    Github,
    /// GitLab CI: nothing of merge requests unless a rule asks for the source.
    Gitlab,
    /// Any other.
    Oidc,
    /// No tokens at all: certificates of clients, whose authorities the configuration names.
    Certificate,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Kubernetes,
        Self::Github,
        Self::Gitlab,
        Self::Oidc,
        Self::Certificate,
    ];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Github => "github",
            Self::Gitlab => "gitlab",
            Self::Oidc => "oidc",
            Self::Certificate => "certificate",
        }
    }

    /// How principals are named unless an issuer says otherwise: by ids that are never given again, where there are any.
    pub const fn principal(self) -> &'static str {
        match self {
            Self::Kubernetes => "{kubernetes.io.namespace}/{kubernetes.io.serviceaccount.name}",
            Self::Github => "{repository_id}/{repository}",
            Self::Gitlab => "{project_id}/{project_path}",
            Self::Oidc => "{sub}",
            Self::Certificate => "{dns}",
        }
    }

    /// The claims of which a rule must ask one by its exact value: its tokens come from everybody. Empty: any will do.
    pub(crate) const fn anchors(self) -> &'static [&'static str] {
        match self {
            Self::Github => &["repository_id", "repository_owner_id", "enterprise_id"],
            Self::Gitlab => &["project_id", "namespace_id"],
            Self::Kubernetes | Self::Oidc | Self::Certificate => &[],
        }
    }

    /// What tells how a run began, and of which beginnings only those are capable who may write there anyway. Whatever else there is,
    /// or will be, a stranger may bring about (OIDC-2): a pull request, a comment, an edit of a wiki, a check or a deployment of one.
    pub(crate) const fn begins(self) -> Option<Begins> {
        match self {
            Self::Github => Some(Begins {
                claim: "event_name",
                own: &[
                    "push",
                    "create",
                    "delete",
                    "release",
                    "schedule",
                    "merge_group",
                    "workflow_dispatch",
                    "repository_dispatch",
                ],
                inherits: None,
            }),
            Self::Gitlab => Some(Begins {
                claim: "pipeline_source",
                own: &[
                    "push",
                    "web",
                    "webide",
                    "schedule",
                    "api",
                    "trigger",
                    "pipeline",
                    "chat",
                    "security_orchestration_policy",
                ],
                // Of a merge request's pipeline, too, which is on no protected ref.
                inherits: Some(("parent_pipeline", "ref_protected")),
            }),
            Self::Kubernetes | Self::Oidc | Self::Certificate => None,
        }
    }
}

/// How runs of a CI service begin.
pub(crate) struct Begins {
    /// The claim that tells it.
    pub(crate) claim: &'static str,
    /// What only those bring about who may write there.
    pub(crate) own: &'static [&'static str],
    /// What another run brings about, of whose beginning nothing is told; and the claim that has to be asked to be true for it.
    pub(crate) inherits: Option<(&'static str, &'static str)>,
}

/// Signature algorithms with a public key. There are none with a shared secret here, so no public key can be taken for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(clippy::upper_case_acronyms, missing_docs)]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// Those that clusters and CI services use.
    pub const USUAL: [Self; 2] = [Self::RS256, Self::ES256];

    /// The JWA name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    pub(crate) const fn of_library(self) -> jsonwebtoken::Algorithm {
        match self {
            Self::RS256 => jsonwebtoken::Algorithm::RS256,
            Self::RS384 => jsonwebtoken::Algorithm::RS384,
            Self::RS512 => jsonwebtoken::Algorithm::RS512,
            Self::PS256 => jsonwebtoken::Algorithm::PS256,
            Self::PS384 => jsonwebtoken::Algorithm::PS384,
            Self::PS512 => jsonwebtoken::Algorithm::PS512,
            Self::ES256 => jsonwebtoken::Algorithm::ES256,
            Self::ES384 => jsonwebtoken::Algorithm::ES384,
            Self::EdDSA => jsonwebtoken::Algorithm::EdDSA,
        }
    }
}

impl FromStr for Algorithm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|one| one.as_str() == text);
        known.ok_or_else(|| {
            let all = Self::ALL.map(Self::as_str).join(", ");
            format!(
                "{text:?} is no algorithm with a public key that is known here; there are {all}"
            )
        })
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the keys come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeySource {
    /// Where the document below the issuer's address says, on the same host.
    Discovery,
    /// From this address.
    Url(String),
    /// From nowhere: this JWKS.
    Static(String),
    /// There are none: the cluster at this address is asked about each token (TokenReview).
    Review(String),
}

/// What an issuer's tokens must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerSettings {
    /// What sort it is.
    pub kind: Kind,
    /// `iss`, letter by letter.
    pub issuer: String,
    /// One of these must be in `aud`.
    pub audiences: Vec<String>,
    /// What may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// Where the keys are.
    pub keys: KeySource,
    /// Certificates (PEM) of who may vouch for the issuer's host; empty: whom this machine trusts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub authority: String,
    /// How far clocks may be apart, in seconds.
    pub leeway: u32,
    /// Longest time from a token's issue to its end, in seconds.
    pub longest_life: u32,
    /// Longest life of a token of ours that one is exchanged for, in seconds.
    pub session: u32,
    /// How principals are named.
    pub principal: String,
}

/// A setting that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct SettingError {
    /// Which one.
    pub field: &'static str,
    /// What is wrong, and the way out.
    pub reason: String,
}

pub(crate) fn wrong(field: &'static str, reason: impl Into<String>) -> SettingError {
    let reason = reason.into();
    SettingError { field, reason }
}

impl IssuerSettings {
    /// What is usual for an issuer of that sort and address, with keys by discovery.
    pub fn new(kind: Kind, issuer: &str, audiences: Vec<String>) -> Self {
        Self {
            kind,
            issuer: issuer.to_owned(),
            audiences,
            algorithms: Algorithm::USUAL.to_vec(),
            keys: KeySource::Discovery,
            authority: String::new(),
            leeway: MOST_LEEWAY,
            longest_life: DAY,
            session: 3_600,
            principal: kind.principal().to_owned(),
        }
    }

    /// Whether keys are asked for at the same place, vouched for by the same.
    pub(crate) fn asks_where(&self, other: &Self) -> bool {
        (&self.issuer, &self.keys, &self.authority)
            == (&other.issuer, &other.keys, &other.authority)
    }

    /// Whether all of it can be meant.
    pub fn check(&self) -> Result<(), SettingError> {
        if self.kind == Kind::Certificate {
            return self.check_certificate();
        }
        text("issuer", &self.issuer)?;
        if self.audiences.is_empty() || self.audiences.len() > MOST_AUDIENCES {
            let reason =
                format!("name 1 to {MOST_AUDIENCES} audiences, such as this registry's name");
            return Err(wrong("audiences", reason));
        }
        for audience in &self.audiences {
            text("audiences", audience)?;
        }
        if self.algorithms.is_empty() {
            return Err(wrong("algorithms", "name at least one, such as RS256"));
        }
        match &self.keys {
            KeySource::Discovery => {
                origin(&self.issuer).map_err(|reason| {
                    let way = "give the keys' address or the keys themselves";
                    wrong(
                        "issuer",
                        format!("{reason}; without such an address, {way}"),
                    )
                })?;
            }
            KeySource::Url(url) => {
                origin(url).map_err(|reason| wrong("jwks_url", reason))?;
            }
            KeySource::Review(_) if self.kind != Kind::Kubernetes => {
                let reason = "only a Kubernetes cluster reviews tokens";
                return Err(wrong("token_review", reason));
            }
            KeySource::Review(server) => {
                origin(server).map_err(|reason| wrong("token_review", reason))?;
                if server.contains(['?', '#']) {
                    let reason =
                        "write the kube-apiserver's address alone, such as https://10.0.0.1:6443";
                    return Err(wrong("token_review", reason));
                }
            }
            KeySource::Static(jwks) => {
                let keys = KeySet::uploaded(jwks.as_bytes());
                keys.map_err(|error| wrong("jwks", error.to_string()))?;
            }
        }
        if self.authority.len() > LARGEST_AUTHORITY {
            let reason = format!("certificates may have {} KiB", LARGEST_AUTHORITY >> 10);
            return Err(wrong("authority", reason));
        }
        if !self.authority.is_empty() && !self.authority.contains("-----BEGIN CERTIFICATE-----") {
            return Err(wrong("authority", "this is no certificate in PEM form"));
        }
        if self.leeway > MOST_LEEWAY {
            return Err(wrong(
                "leeway",
                format!("clocks may be {MOST_LEEWAY} s apart at most"),
            ));
        }
        for (field, seconds, most) in [
            ("longest_life", self.longest_life, 366 * DAY),
            ("session", self.session, DAY),
        ] {
            if !(60..=most).contains(&seconds) {
                return Err(wrong(field, format!("write seconds, from 60 to {most}")));
            }
        }
        self.check_principal()
    }

    fn check_principal(&self) -> Result<(), SettingError> {
        if self.principal.len() > claim::LONGEST_PATTERN {
            let reason = format!("at most {} bytes", claim::LONGEST_PATTERN);
            return Err(wrong("principal", reason));
        }
        claim::named(&self.principal).map_err(|error| wrong("principal", error.to_string()))?;
        Ok(())
    }

    /// Certificates are judged where connections are made: nothing of what tokens have is theirs.
    fn check_certificate(&self) -> Result<(), SettingError> {
        for (field, given) in [
            ("issuer", !self.issuer.is_empty()),
            ("audiences", !self.audiences.is_empty()),
            ("keys", self.keys != KeySource::Discovery),
            ("authority", !self.authority.is_empty()),
        ] {
            if given {
                let reason = "certificates have none: whose they may be, `tls.clients` of the configuration says";
                return Err(wrong(field, reason));
            }
        }
        self.check_principal()
    }
}

fn text(field: &'static str, text: &str) -> Result<(), SettingError> {
    match text.is_empty() || text.len() > LONGEST || text.chars().any(char::is_control) {
        true => Err(wrong(
            field,
            format!("write 1 to {LONGEST} bytes without control characters"),
        )),
        false => Ok(()),
    }
}

/// Scheme, host and port of an address that keys may be fetched from: https, or http on this machine. Strict, so that nothing
/// can be read in two ways.
pub fn origin(url: &str) -> Result<String, String> {
    let no = |reason: &str| Err(format!("{url:?} {reason}"));
    let (scheme, rest) = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => ("https", rest),
        (_, Some(rest)) => ("http", rest),
        _ => return no("is no address that begins with https://"),
    };
    if url.len() > LONGEST {
        return Err(format!("an address has at most {LONGEST} bytes"));
    }
    let (place, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if !path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !b"\\#\"<>".contains(&byte))
    {
        return no("holds characters that an address must not, or a fragment");
    }
    let (host, port) = match place.strip_prefix('[').map(|inner| inner.split_once(']')) {
        Some(Some((host, port))) if host.parse::<std::net::Ipv6Addr>().is_ok() => (host, port),
        Some(_) => return no("has no host"),
        None => place.split_at(place.find(':').unwrap_or(place.len())),
    };
    let named = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let is_name = !host.is_empty() && host.chars().all(named);
    if !is_name && !place.starts_with('[') {
        return no("has no host, or more in its place than a host and a port");
    }
    let usual = if scheme == "https" { 443 } else { 80 };
    let port = match port.strip_prefix(':') {
        None if port.is_empty() => usual,
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            match digits.parse::<u16>() {
                Ok(port) if port > 0 => port,
                _ => return no("has no port that exists"),
            }
        }
        _ => return no("has no port that exists"),
    };
    let host = host.to_ascii_lowercase();
    let here = match host.parse::<std::net::IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host == "localhost",
    };
    if scheme == "http" && !here {
        return no("is not encrypted; only https:// is fetched from other machines");
    }
    Ok(format!("{scheme}://{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_are_read_in_one_way() {
        for (url, read) in [
            ("https://a.example", "https://a.example:443"),
            ("https://A.example:443/x?y=1", "https://a.example:443"),
            ("https://a.example:8443/", "https://a.example:8443"),
            ("https://[::1]:6443/openid/v1/jwks", "https://::1:6443"),
            ("http://127.0.0.1:80/k", "http://127.0.0.1:80"),
            ("http://localhost:3000", "http://localhost:3000"),
        ] {
            assert_eq!(origin(url).as_deref(), Ok(read), "{url}");
        }
        for bad in [
            "",
            "a.example",
            "ftp://a.example",
            "https://",
            "https:///x",
            "https://user@a.example",
            "https://a.example@evil.example",
            "https://a.example:443@evil.example/",
            "https://a.example\\@evil.example",
            "https://a.example:0",
            "https://a.example:99999",
            "https://a.example:4a",
            "https://a.example/#x",
            "https://a.example/ x",
            "https://a.example\n",
            "https://[a.example]",
            "https://[::1]x",
            "https://ä.example",
            "http://a.example/",
            "http://localhost.evil.example/",
            "http://169.254.169.254/latest",
        ] {
            assert!(origin(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_named() {
        let good = IssuerSettings::new(Kind::Oidc, "https://a.example", vec!["reg".into()]);
        assert_eq!(good.check(), Ok(()));
        type Change = fn(&mut IssuerSettings);
        let changes: [(&str, Change); 12] = [
            ("issuer", |it| {
                it.issuer = "kubernetes/serviceaccount".into()
            }),
            ("issuer", |it| it.issuer = String::new()),
            ("audiences", |it| it.audiences.clear()),
            ("audiences", |it| it.audiences = vec!["a".into(); 17]),
            ("algorithms", |it| it.algorithms.clear()),
            ("jwks_url", |it| {
                it.keys = KeySource::Url("http://a.example/".into())
            }),
            ("jwks", |it| it.keys = KeySource::Static("{}".into())),
            ("authority", |it| it.authority = "nonsense".into()),
            ("leeway", |it| it.leeway = 61),
            ("longest_life", |it| it.longest_life = 0),
            ("session", |it| it.session = DAY + 1),
            ("principal", |it| it.principal = "all".into()),
        ];
        for (field, change) in changes {
            let mut bad = good.clone();
            change(&mut bad);
            assert_eq!(bad.check().unwrap_err().field, field);
        }
        for shared in ["HS256", "HS384", "HS512", "none", "None", "rs256", ""] {
            assert!(shared.parse::<Algorithm>().is_err(), "{shared}");
            let row = serde_json::json!({"algorithms": [shared]});
            assert!(serde_json::from_value::<Vec<Algorithm>>(row["algorithms"].clone()).is_err());
        }
        for known in Algorithm::ALL {
            assert_eq!(known.as_str().parse(), Ok(known));
            assert_eq!(serde_json::to_value(known).unwrap(), known.as_str());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_none(text in "(https?://)?[a-z0-9.:@/\\[\\]\\\\?# -]{0,40}|.{0,40}") {
            if let Ok(read) = origin(&text) {
                prop_assert!(read.starts_with("https://") || read.starts_with("http://"));
                prop_assert!(!text.contains('@') || text.find('@') > text[8..].find(['/', '?']).map(|at| at + 8));
            }
        }
    }
}
