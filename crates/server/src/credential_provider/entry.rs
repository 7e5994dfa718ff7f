//! A registry, or a part of one, as kubelets name it: host, port, and perhaps a path.

use std::fmt;
use std::str::FromStr;

/// Longest entry or image, in bytes.
const LONGEST: usize = 1 << 10;

/// What credentials are for: `registry.example`, `*.example:5000`, `registry.example/team`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// With the port. A star stands for any text within a label.
    host: String,
    /// With its slash; empty: all of the registry.
    path: String,
}

/// Why a text is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Of no length that could be meant.
    #[error("it is empty, or longer than {LONGEST} bytes")]
    Length,
    /// An address with a scheme.
    #[error(
        "leave out the scheme; registries are named as in images, such as registry.example:5000"
    )]
    Scheme,
    /// The host cannot be one.
    #[error("it begins with no registry, such as registry.example or registry.example:5000")]
    Host,
    /// The path cannot be one.
    #[error("its path is none of a repository, such as team/app")]
    Path,
}

impl Entry {
    /// Of a flag or an image: `stars` may stand for parts of labels in flags alone.
    fn read(text: &str, stars: bool) -> Result<Self, EntryError> {
        if text.is_empty() || text.len() > LONGEST {
            return Err(EntryError::Length);
        }
        if text.contains("://") {
            return Err(EntryError::Scheme);
        }
        let (host, path) = match text.find('/') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let path = path.trim_end_matches('/');
        if !is_host(host, stars) {
            return Err(EntryError::Host);
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let segments = path.split('/').skip(1);
        if !segments
            .into_iter()
            .all(|part| !part.is_empty() && part.bytes().all(fits))
        {
            return Err(EntryError::Path);
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            path: path.to_owned(),
        })
    }

    /// The registry of an image, and the repository in it.
    ///
    /// # Errors
    /// When it names no registry.
    pub fn of_image(image: &str) -> Result<Self, EntryError> {
        let name = image.split('@').next().unwrap_or_default();
        let name = match (name.rfind(':'), name.rfind('/')) {
            (Some(colon), Some(slash)) if colon > slash => &name[..colon],
            _ => name,
        };
        // The rule of all clients: without one of these the first word is no host.
        let first = name.split('/').next().unwrap_or_default();
        if !name.is_empty()
            && (!name.contains('/') || !(first.contains(['.', ':']) || first == "localhost"))
        {
            return Err(EntryError::Host);
        }
        Self::read(name, false)
    }

    /// With the port.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// This entry at that registry, if it is about it, as the key of an answer.
    pub fn at(&self, host: &str) -> Option<String> {
        let (own, own_port) = split(&self.host);
        let (other, port) = split(host);
        let mut labels = own.split('.').zip(other.split('.'));
        let fits = own_port == port
            && own.split('.').count() == other.split('.').count()
            && labels.all(|(pattern, label)| fits(pattern, label));
        fits.then(|| format!("{host}{}", self.path))
    }
}

impl FromStr for Entry {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, EntryError> {
        Self::read(text, true)
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)
    }
}

/// Host and port.
fn split(host: &str) -> (&str, &str) {
    match host.rfind(':') {
        Some(at) if !host.ends_with(']') => (&host[..at], &host[at + 1..]),
        _ => (host, ""),
    }
}

fn is_host(host: &str, stars: bool) -> bool {
    let (name, port) = split(host);
    let has_port = host.len() != name.len();
    if has_port && !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return false;
    }
    if let Some(address) = name.strip_prefix('[') {
        let address = address.strip_suffix(']');
        return address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let fits =
        |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte) || stars && byte == b'*';
    name.split('.')
        .all(|label| !label.is_empty() && label.bytes().all(fits))
}

/// Whether a label is what a pattern means, as kubelets read it.
fn fits(pattern: &str, label: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = label.strip_prefix(parts.next().unwrap_or_default()) else {
        return false;
    };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec: K8SCRED-3.
    #[test]
    fn entries_are_matched_as_kubelets_do() {
        for (entry, host, key) in [
            ("reg.example", "reg.example", Some("reg.example")),
            ("Reg.Example/team/", "reg.example", Some("reg.example/team")),
            ("reg.example", "reg.example:5000", None),
            (
                "reg.example:5000",
                "reg.example:5000",
                Some("reg.example:5000"),
            ),
            ("*.example", "reg.example", Some("reg.example")),
            ("*.example", "a.reg.example", None),
            ("*.example", "example", None),
            ("r*g.*:1/a", "reg.example:1", Some("reg.example:1/a")),
            ("r*g", "rg", Some("rg")),
            ("r*g", "rgx", None),
            ("a*b*a", "abba", Some("abba")),
            ("a*b*a", "aba", Some("aba")),
            ("a*b*a", "ab", None),
            ("[::1]:5000", "[::1]:5000", Some("[::1]:5000")),
            ("localhost:5000", "localhost", None),
        ] {
            let read: Entry = entry.parse().unwrap();
            assert_eq!(read.at(host).as_deref(), key, "{entry} {host}");
        }
        for (bad, why) in [
            ("", EntryError::Length),
            ("https://reg.example", EntryError::Scheme),
            ("reg example", EntryError::Host),
            ("/team", EntryError::Host),
            ("reg..example", EntryError::Host),
            ("reg.example:", EntryError::Host),
            ("reg.example:0", EntryError::Host),
            ("reg.example:x", EntryError::Host),
            ("[::g]:5000", EntryError::Host),
            ("reg.example/a//b", EntryError::Path),
            ("reg.example/te*m", EntryError::Path),
        ] {
            assert_eq!(bad.parse::<Entry>(), Err(why), "{bad}");
        }
    }

    #[test]
    fn an_image_names_its_registry() {
        for (image, host) in [
            ("reg.example/team/app:1", "reg.example"),
            ("reg.example:5000/app", "reg.example:5000"),
            ("reg.example:5000/app:1@sha256:0a", "reg.example:5000"),
            ("localhost/app@sha256:0a", "localhost"),
            ("[::1]:5000/app:v1", "[::1]:5000"),
        ] {
            assert_eq!(Entry::of_image(image).unwrap().host(), host, "{image}");
        }
        for none in [
            "",
            "nginx",
            "library/nginx",
            "reg.example",
            "a b/c",
            "*.example/app",
        ] {
            assert!(Entry::of_image(none).is_err(), "{none}");
        }
    }
}
