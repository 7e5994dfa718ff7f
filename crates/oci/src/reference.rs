//! What stands after `/manifests/`: a tag or a digest (TAG-2).

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};
use crate::tag::{Tag, TagError};

/// A tag or a digest. A clone is a reference count.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// A name that can move.
    Tag(Tag),
    /// A content address.
    Digest(Digest),
}

/// Why a string is neither tag nor digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It has no colon, so it was read as a tag.
    #[error(transparent)]
    Tag(#[from] TagError),
    /// It has a colon, so it was read as a digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
}

impl Reference {
    /// A colon makes it a digest, since tags cannot have one (TAG-2).
    pub fn parse(text: &str) -> Result<Reference, ReferenceError> {
        if text.contains(':') {
            Ok(Reference::Digest(Digest::parse(text)?))
        } else {
            Ok(Reference::Tag(Tag::parse(text)?))
        }
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        match self {
            Reference::Tag(tag) => tag.as_str(),
            Reference::Digest(digest) => digest.as_str(),
        }
    }

    /// The tag, when it is one.
    pub fn tag(&self) -> Option<&Tag> {
        match self {
            Reference::Tag(tag) => Some(tag),
            Reference::Digest(_) => None,
        }
    }

    /// The digest, when it is one.
    pub fn digest(&self) -> Option<&Digest> {
        match self {
            Reference::Tag(_) => None,
            Reference::Digest(digest) => Some(digest),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Reference::parse(text)
    }
}

impl From<Tag> for Reference {
    fn from(tag: Tag) -> Self {
        Reference::Tag(tag)
    }
}

impl From<Digest> for Reference {
    fn from(digest: Digest) -> Self {
        Reference::Digest(digest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Spec: TAG-2.
    #[test]
    fn a_colon_makes_a_digest() {
        assert!(
            matches!(Reference::parse("v1").unwrap(), Reference::Tag(tag) if tag.as_str() == "v1")
        );
        let digest = format!("sha256:{}", "0".repeat(64));
        assert!(
            matches!(Reference::parse(&digest).unwrap(), Reference::Digest(d) if d.as_str() == digest)
        );
        assert!(matches!(
            Reference::parse(".bad"),
            Err(ReferenceError::Tag(_))
        ));
        assert!(matches!(
            Reference::parse("sha256:totallywrong"),
            Err(ReferenceError::Digest(_))
        ));
    }

    proptest! {
        #[test]
        fn any_text_parses_to_itself_or_not_at_all(text in ".{0,80}|[a-zA-Z0-9._:-]{0,80}") {
            match Reference::parse(&text) {
                Ok(reference) => {
                    prop_assert_eq!(reference.as_str(), &text);
                    prop_assert_eq!(reference.digest().is_some(), text.contains(':'));
                    prop_assert_eq!(reference.tag().is_some(), !text.contains(':'));
                }
                Err(ReferenceError::Digest(_)) => prop_assert!(text.contains(':')),
                Err(ReferenceError::Tag(_)) => prop_assert!(!text.contains(':')),
            }
        }
    }
}
