//! Repository names (NAME-1 to NAME-3).

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// Longest name in bytes (NAME-2): clients cap host, slash and name together at this length.
pub const MAX_LENGTH: usize = 255;

/// Why a string is not a repository name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The name is empty.
    #[error("the repository name is empty")]
    Empty,
    /// Longer than [`MAX_LENGTH`].
    #[error("the repository name is longer than {MAX_LENGTH} characters")]
    TooLong,
    /// The grammar of NAME-1 is broken.
    #[error(
        "a repository name is made of parts joined by '/', each of lower-case letters and digits, \
         which '.', '_', '__' or dashes may separate"
    )]
    Grammar,
}

/// A checked repository name; a clone is a reference count. Ordered bytewise, as listings are.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryName(Arc<str>);

impl RepositoryName {
    /// Checks length and grammar.
    pub fn parse(text: &str) -> Result<RepositoryName, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > MAX_LENGTH {
            return Err(NameError::TooLong);
        }
        if text.split('/').all(is_component) {
            Ok(RepositoryName(text.into()))
        } else {
            Err(NameError::Grammar)
        }
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this name is the namespace `prefix` or lies below it, on borders of `/`: `a/b` is within `a` and
    /// `a/b`, `ab` is not within `a`. Everything is within the empty prefix.
    pub fn is_within(&self, prefix: &str) -> bool {
        prefix.is_empty()
            || self
                .0
                .strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let mut separator: &[u8] = b"";
    let mut alphanumeric = false;
    let bytes = text.as_bytes();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => {
                alphanumeric = true;
                separator = b"";
            }
            b'.' | b'_' | b'-' if alphanumeric => {
                let longer = &bytes[at - separator.len()..=at];
                if !matches!(longer, b"." | b"_" | b"__") && !longer.iter().all(|b| *b == b'-') {
                    return false;
                }
                separator = longer;
            }
            _ => return false,
        }
    }
    alphanumeric && separator.is_empty()
}

impl AsRef<str> for RepositoryName {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

// Lets maps keyed by names be asked with a plain string; sound because equality, order and hash are the text's.
impl Borrow<str> for RepositoryName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RepositoryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RepositoryName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        RepositoryName::parse(text)
    }
}

impl Serialize for RepositoryName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for RepositoryName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = RepositoryName;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a repository name")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RepositoryName, E> {
                RepositoryName::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}
