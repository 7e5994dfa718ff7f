//! Tags (TAG-1).

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// Longest tag in bytes (TAG-1).
pub const MAX_LENGTH: usize = 128;

/// The string is not a tag (TAG-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a tag has 1 to {MAX_LENGTH} characters: letters, digits, '_', '.', '-', and the first is not '.' or '-'"
)]
pub struct TagError;

/// A checked tag, case sensitive; a clone is a reference count. Ordered bytewise, as listings are (TAGS-2).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Arc<str>);

impl Tag {
    /// Checks `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`.
    pub fn parse(text: &str) -> Result<Tag, TagError> {
        let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
        match text.as_bytes() {
            [first, rest @ ..]
                if word(first)
                    && rest.len() < MAX_LENGTH
                    && rest.iter().all(|b| word(b) || matches!(b, b'.' | b'-')) =>
            {
                Ok(Tag(text.into()))
            }
            _ => Err(TagError),
        }
    }

    /// The whole tag.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Tag {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

// Lets maps keyed by tags be asked with a plain string; sound because equality, order and hash are the text's.
impl Borrow<str> for Tag {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Tag {
    type Err = TagError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Tag::parse(text)
    }
}

impl Serialize for Tag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Tag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Tag;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a tag")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Tag, E> {
                Tag::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}
