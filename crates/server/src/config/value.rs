//! The kinds of values that configuration knows, each with one way to write it.
//!
//! A value arrives as TOML (from a file) or as text (from an environment variable or a flag). Both ways end in the same
//! parser, and errors always say what was expected. Must never read files or the environment.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;
use wharf_core::access::Role;

use crate::http::listener::{ListenAddr, ListenAddrError};
use wharf_core::access::Network;

/// A value as it was written.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// In a file.
    Toml(&'a DeValue<'a>),
    /// In the environment or on the command line.
    Text(&'a str),
}

/// A type that a key can have.
pub trait Value: Sized {
    /// True or false.
    const SWITCH: bool = false;
    /// Several values.
    const LIST: bool = false;

    /// Completes "expected …".
    fn expects() -> String;
    /// An example as TOML.
    fn example() -> String;
    /// Reads text. The error says what is wrong with it, or is empty when "expected …" says everything.
    fn parse(text: &str) -> Result<Self, String>;
    /// The value as TOML; `None` for unset.
    fn to_toml(&self) -> Option<String>;

    /// Reads TOML; strings are the rule.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::String(text) => Self::parse(text),
            other => Err(format!("found {}", describe(other))),
        }
    }

    /// Reads either, with a whole sentence as error.
    fn read(input: &Input<'_>) -> Result<Self, String> {
        let result = match input {
            Input::Toml(value) => Self::from_toml(value),
            Input::Text(text) => Self::parse(text.trim()),
        };
        result.map_err(|problem| {
            let expects = Self::expects();
            if problem.is_empty() {
                format!("expected {expects}")
            } else {
                format!("{problem}; expected {expects}")
            }
        })
    }
}

/// What a TOML value is, for errors. Never its content: it may be a secret.
#[must_use]
pub fn describe(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a floating-point number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// A TOML basic string.
#[must_use]
pub fn quote(text: &str) -> String {
    toml::Value::from(text).to_string()
}

impl Value for bool {
    const SWITCH: bool = true;

    fn expects() -> String {
        "true or false".to_owned()
    }
    fn example() -> String {
        "true".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            other => Err(format!("`{other}` is neither")),
        }
    }
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value
            .as_bool()
            .ok_or_else(|| format!("found {}", describe(value)))
    }
    fn to_toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for u32 {
    fn expects() -> String {
        format!("a whole number from 0 to {}", u32::MAX)
    }
    fn example() -> String {
        "8".to_owned()
    }
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is not one"))
    }
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| format!("`{}` is out of range", number.as_str())),
            other => Err(format!("found {}", describe(other))),
        }
    }
    fn to_toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for String {
    fn expects() -> String {
        "text".to_owned()
    }
    fn example() -> String {
        quote("…")
    }
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn to_toml(&self) -> Option<String> {
        Some(quote(self))
    }
}

impl Value for PathBuf {
    fn expects() -> String {
        "a path".to_owned()
    }
    fn example() -> String {
        quote("/etc/wharf/file")
    }
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Err("the path is empty".to_owned())
        } else {
            Ok(PathBuf::from(text))
        }
    }
    fn to_toml(&self) -> Option<String> {
        Some(quote(&self.to_string_lossy()))
    }
}

impl Value for Duration {
    fn expects() -> String {
        "a duration: a whole number with its unit ms, s, m, h or d, such as \"30s\"".to_owned()
    }
    fn example() -> String {
        quote("30s")
    }
    fn parse(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text)?;
        let milliseconds = match unit {
            "ms" => Some(number),
            "s" => number.checked_mul(1000),
            "m" => number.checked_mul(60_000),
            "h" => number.checked_mul(3_600_000),
            "d" => number.checked_mul(86_400_000),
            "" => return Err(format!("`{text}` has no unit")),
            other => return Err(format!("the unit `{other}` is unknown")),
        };
        // Times are kept as i64 milliseconds everywhere, so nothing longer may enter.
        match milliseconds {
            Some(milliseconds) if i64::try_from(milliseconds).is_ok() => {
                Ok(Duration::from_millis(milliseconds))
            }
            _ => Err(format!("`{text}` is too long")),
        }
    }
    fn to_toml(&self) -> Option<String> {
        let milliseconds = self.as_millis();
        let (divisor, unit) = [
            (86_400_000, "d"),
            (3_600_000, "h"),
            (60_000, "m"),
            (1000, "s"),
        ]
        .into_iter()
        .find(|(divisor, _)| milliseconds >= *divisor && milliseconds.is_multiple_of(*divisor))
        .unwrap_or(if milliseconds == 0 {
            (1, "s")
        } else {
            (1, "ms")
        });
        Some(quote(&format!("{}{unit}", milliseconds / divisor)))
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// So many KiB.
    #[must_use]
    pub const fn kib(count: u64) -> Self {
        Self(count << 10)
    }

    /// So many MiB.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// So many GiB.
    #[must_use]
    pub const fn gib(count: u64) -> Self {
        Self(count << 30)
    }
}

const UNITS: [(u64, &str); 9] = [
    (1 << 40, "TiB"),
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
    (1_000_000_000_000, "TB"),
    (1_000_000_000, "GB"),
    (1_000_000, "MB"),
    (1000, "kB"),
    (1, "B"),
];

impl fmt::Display for Size {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (factor, unit) = UNITS
            .into_iter()
            .find(|(factor, _)| self.0 >= *factor && self.0.is_multiple_of(*factor))
            .unwrap_or((1, "B"));
        write!(out, "{}{unit}", self.0 / factor)
    }
}

impl Value for Size {
    fn expects() -> String {
        "a size: a whole number with its unit B, KiB, MiB, GiB, TiB (or kB, MB, GB, TB), such as \"4MiB\"".to_owned()
    }
    fn example() -> String {
        quote("4MiB")
    }
    fn parse(text: &str) -> Result<Self, String> {
        let (number, unit) = split_unit(text)?;
        if unit.is_empty() {
            return Err(format!("`{text}` has no unit"));
        }
        let (factor, _) = UNITS
            .into_iter()
            .find(|(_, name)| name.eq_ignore_ascii_case(unit))
            .ok_or_else(|| format!("the unit `{unit}` is unknown"))?;
        // Sizes travel through SQL as BIGINT.
        match number.checked_mul(factor) {
            Some(bytes) if i64::try_from(bytes).is_ok() => Ok(Self(bytes)),
            _ => Err(format!("`{text}` is too large")),
        }
    }
    fn to_toml(&self) -> Option<String> {
        Some(quote(&self.to_string()))
    }
}

fn split_unit(text: &str) -> Result<(u64, &str), String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!("`{text}` does not begin with a number"));
    }
    let number = number
        .parse()
        .map_err(|_| format!("`{text}` is too large"))?;
    Ok((number, unit.trim_start()))
}

/// Text that must never be shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` out of logs from now on.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(hidden)")
    }
}

impl Value for Secret {
    fn expects() -> String {
        "text".to_owned()
    }
    fn example() -> String {
        quote("…")
    }
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Err("the secret is empty".to_owned())
        } else {
            Ok(Self::new(text))
        }
    }
    fn to_toml(&self) -> Option<String> {
        Some(quote("(hidden)"))
    }
}

/// Unset is written as an empty text in the environment and on the command line.
impl<T: Value> Value for Option<T> {
    const SWITCH: bool = T::SWITCH;
    const LIST: bool = T::LIST;

    fn expects() -> String {
        T::expects()
    }
    fn example() -> String {
        T::example()
    }
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Ok(None)
        } else {
            T::parse(text).map(Some)
        }
    }
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        T::from_toml(value).map(Some)
    }
    fn to_toml(&self) -> Option<String> {
        self.as_ref().and_then(Value::to_toml)
    }
}

/// Several values: an array in TOML, separated by commas in text.
impl<T: Value> Value for Vec<T> {
    const LIST: bool = true;

    fn expects() -> String {
        format!("a list, each entry {}", T::expects())
    }
    fn example() -> String {
        format!("[{}]", T::example())
    }
    fn parse(text: &str) -> Result<Self, String> {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(T::parse)
            .collect()
    }
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        match value {
            DeValue::Array(values) => values
                .iter()
                .map(|value: &Spanned<_>| T::from_toml(value.get_ref()))
                .collect(),
            // One value where a list is expected has only one possible meaning.
            single @ DeValue::String(_) => T::from_toml(single).map(|single| vec![single]),
            other => Err(format!("found {}", describe(other))),
        }
    }
    fn to_toml(&self) -> Option<String> {
        Some(format!(
            "[{}]",
            self.iter()
                .filter_map(Value::to_toml)
                .collect::<Vec<_>>()
                .join(", ")
        ))
    }
}

impl Value for ListenAddr {
    fn expects() -> String {
        "an address with a port such as \"127.0.0.1:5000\", \"[::1]:5000\", \":5000\" (every address), or \
         \"unix:/run/wharf.sock?mode=660\""
            .to_owned()
    }
    fn example() -> String {
        quote("127.0.0.1:5001")
    }
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|error: ListenAddrError| format!("`{text}` is none: {}", error.reason()))
    }
    fn to_toml(&self) -> Option<String> {
        Some(quote(&self.to_string()))
    }
}

/// Peers whose `Forwarded` and `X-Forwarded-*` headers are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedProxy {
    /// Everybody in this network.
    Network(Network),
    /// Whoever may open the Unix sockets.
    Unix,
}

impl fmt::Display for TrustedProxy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(network) => network.fmt(out),
            Self::Unix => out.write_str("unix"),
        }
    }
}

impl Value for TrustedProxy {
    fn expects() -> String {
        "an address or network such as \"10.0.0.0/8\" or \"::1\", or \"unix\" for the peers of Unix sockets".to_owned()
    }
    fn example() -> String {
        quote("10.0.0.0/8")
    }
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "unix" => Ok(Self::Unix),
            text => text
                .parse()
                .map(Self::Network)
                .map_err(|_| format!("`{text}` is none")),
        }
    }
    fn to_toml(&self) -> Option<String> {
        Some(quote(&self.to_string()))
    }
}

impl Value for Role {
    fn expects() -> String {
        one_of(&Role::ALL.map(Role::as_str))
    }
    fn example() -> String {
        quote(Role::Reader.as_str())
    }
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| no_word(text, &Role::ALL.map(Role::as_str)))
    }
    fn to_toml(&self) -> Option<String> {
        Some(quote(self.as_str()))
    }
}

/// The beginning of repository names, on `/` borders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryPrefix(pub String);

impl Value for RepositoryPrefix {
    fn expects() -> String {
        "the beginning of a repository's name, such as \"team/a\"".to_owned()
    }
    fn example() -> String {
        quote("team/a")
    }
    fn parse(text: &str) -> Result<Self, String> {
        let bare = text.strip_suffix('/').unwrap_or(text);
        match wharf_oci::RepositoryName::parse(bare) {
            Ok(_) => Ok(Self(bare.to_owned())),
            Err(_) => Err(format!("`{text}` begins no repository's name")),
        }
    }
    fn to_toml(&self) -> Option<String> {
        Some(quote(&self.0))
    }
}

/// Where a service is reached over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpUrl(pub String);

impl Value for HttpUrl {
    fn expects() -> String {
        "a URL with http:// or https:// and a host, such as \"https://s3.example.com\"".to_owned()
    }
    fn example() -> String {
        quote("https://s3.example.com")
    }
    fn parse(text: &str) -> Result<Self, String> {
        match is_web_url(text) {
            // It is shown; what is secret has a key of its own.
            true if text.contains('@') => Err("there is a user or a password in it".to_owned()),
            true => Ok(Self(text.to_owned())),
            false => Err(String::new()),
        }
    }
    fn to_toml(&self) -> Option<String> {
        Some(quote(&self.0))
    }
}

fn is_web_url(text: &str) -> bool {
    text.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(leads_somewhere)
    })
}

/// Whether it has a host and a port that there can be: clients take a URL apart more strictly than [`http::Uri`] does.
fn leads_somewhere(authority: &http::uri::Authority) -> bool {
    let host = authority.host();
    let place = authority.as_str().rsplit('@').next().unwrap_or_default();
    let port = match place.strip_prefix(host) {
        Some("") => true,
        Some(rest) => (rest.strip_prefix(':')).is_some_and(|port| port.parse::<u16>().is_ok()),
        None => false,
    };
    let last = host.trim_end_matches('.').rsplit('.').next();
    let host = match host.strip_prefix('[') {
        Some(six) => (six.strip_suffix(']')).is_some_and(|six| six.parse::<Ipv6Addr>().is_ok()),
        None if last.is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit())) => {
            host.parse::<Ipv4Addr>().is_ok()
        }
        None => host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
    };
    host && port
}

/// The URL of a proxy. It may hold a password, so it is never shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyUrl(pub Secret);

impl Value for ProxyUrl {
    fn expects() -> String {
        "a URL with http:// or https:// and a host, such as \"http://proxy.example.com:3128\""
            .to_owned()
    }
    fn example() -> String {
        quote("http://proxy.example.com:3128")
    }
    fn parse(text: &str) -> Result<Self, String> {
        match is_web_url(text) {
            true => Ok(Self(Secret::new(text))),
            false => Err(String::new()),
        }
    }
    fn to_toml(&self) -> Option<String> {
        self.0.to_toml()
    }
}

/// The address under which clients reach this registry: scheme and host, nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalUrl {
    /// Whether the scheme is `https`.
    pub secure: bool,
    /// Host with the port if it is not the scheme's own.
    pub authority: String,
}

impl fmt::Display for ExternalUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "http{}://{}",
            if self.secure { "s" } else { "" },
            self.authority
        )
    }
}

impl Value for ExternalUrl {
    fn expects() -> String {
        "a URL with scheme and host only, such as \"https://registry.example.com\"".to_owned()
    }
    fn example() -> String {
        quote("https://registry.example.com")
    }
    fn parse(text: &str) -> Result<Self, String> {
        let uri: http::Uri = text.parse().map_err(|_| format!("`{text}` is not a URL"))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            Some(other) => return Err(format!("the scheme `{other}` is not http or https")),
            None => return Err(format!("`{text}` has no scheme")),
        };
        let authority = uri
            .authority()
            .ok_or_else(|| format!("`{text}` has no host"))?;
        if authority.as_str().contains('@') {
            return Err("a URL with a user or password is refused".to_owned());
        }
        if authority.host().is_empty() {
            return Err(format!("`{text}` has no host"));
        }
        // Clients put /v2/ right behind the host; a registry cannot live below a path.
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
            return Err(format!(
                "`{text}` has a path or a query: clients always ask for /v2/ right behind the host"
            ));
        }
        Ok(Self {
            secure,
            authority: authority.as_str().to_owned(),
        })
    }
    fn to_toml(&self) -> Option<String> {
        Some(quote(&self.to_string()))
    }
}

/// Defines an enum that is written as one of some words.
macro_rules! choice {
    ($(#[doc = $doc:literal])+ pub enum $name:ident { $($(#[doc = $variant_doc:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[doc = $variant_doc])+ $variant,)+ }

        impl $name {
            /// Every word, in the order of the source.
            pub const WORDS: &'static [&'static str] = &[$($word),+];

            /// As it is written.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str(self.as_str())
            }
        }

        impl $crate::config::value::Value for $name {
            fn expects() -> String {
                $crate::config::value::one_of(Self::WORDS)
            }
            fn example() -> String {
                $crate::config::value::quote(Self::WORDS[0])
            }
            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    other => Err($crate::config::value::no_word(other, Self::WORDS)),
                }
            }
            fn to_toml(&self) -> Option<String> {
                Some($crate::config::value::quote(self.as_str()))
            }
        }
    };
}

pub(crate) use choice;

/// "`a`, `b` or `c`".
#[must_use]
pub fn one_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// Says that `text` is none of `words`, and which one it may have meant.
#[must_use]
pub fn no_word(text: &str, words: &[&str]) -> String {
    match super::nearest::nearest(text, words.iter().copied()) {
        Some(word) => format!("`{text}` is unknown (did you mean \"{word}\"?)"),
        None => format!("`{text}` is unknown"),
    }
}
