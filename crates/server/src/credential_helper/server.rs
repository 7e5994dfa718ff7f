//! A registry as clients name it: with a scheme or without, with a path or without.

use std::fmt;
use std::str::FromStr;

/// Longest name of a registry, in bytes.
const LONGEST: usize = 2_048;

/// Whose credentials: host and port, and the path that some keep apart.
///
/// Two spellings of one registry are the same: the scheme does not count, nor do capital letters of the host, the port 443 (and 80
/// behind `http://`), and slashes at the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    key: String,
    /// How much of it is host and port.
    host: usize,
}

/// Why a text names no registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("ServerURL {text:?} is no registry: {why}; write it like registry.example.com:5000")]
pub struct ServerError {
    text: String,
    why: &'static str,
}

impl Server {
    /// What its credentials are kept under.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The registry without a path.
    pub fn host(&self) -> &str {
        &self.key[..self.host]
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)
    }
}

impl FromStr for Server {
    type Err = ServerError;

    fn from_str(text: &str) -> Result<Self, ServerError> {
        let bad = |why| ServerError {
            // A URL may hold a password.
            text: match text.contains('@') || text.len() > 200 {
                true => "…".to_owned(),
                false => text.to_owned(),
            },
            why,
        };
        if text.len() > LONGEST {
            return Err(bad("it is too long"));
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(bad("it holds spaces or control characters"));
        }
        let (scheme, rest) = match text.split_once("://") {
            // Behind a slash it is part of a path.
            Some((scheme, rest)) if !scheme.contains('/') => {
                (Some(scheme.to_ascii_lowercase()), rest)
            }
            _ => (None, text),
        };
        let is_plain = match scheme.as_deref() {
            None | Some("https") => false,
            Some("http") => true,
            Some(_) => return Err(bad("the scheme is https or http")),
        };
        let rest = rest.split(['?', '#']).next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(bad("the user is no part of it"));
        }
        // The brackets of an IPv6 address hold colons of their own.
        let (name, port) = match authority.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') => (name, Some(port)),
            _ => (authority, None),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        let address = |inner: &str| inner.parse::<std::net::Ipv6Addr>().is_ok();
        let inner = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        if name.is_empty() || !inner.map_or(name.chars().all(plain), address) {
            return Err(bad("it begins with no host"));
        }
        let mut key = name.to_ascii_lowercase();
        if let Some(port) = port {
            let number: u16 = match port.bytes().all(|digit| digit.is_ascii_digit()) {
                true => port.parse().ok(),
                false => None,
            }
            .ok_or_else(|| bad("the port is no number up to 65535"))?;
            if number != 443 && !(is_plain && number == 80) {
                key.push_str(&format!(":{number}"));
            }
        }
        let host = key.len();
        key.push_str(path.trim_end_matches('/'));
        Ok(Self { key, host })
    }
}
