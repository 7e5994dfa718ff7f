//! Tags (TAG-1).

use std::borrow::Borrow;
use std::sync::Arc;

use crate::text::text_impls;

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

// Lets maps keyed by tags be asked with a plain string; sound because equality, order and hash are the text's.
impl Borrow<str> for Tag {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

text_impls!(Tag, TagError, "a tag");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Spec: TAG-1.
    #[test]
    fn follows_the_grammar() {
        for tag in [
            "a",
            "_",
            "1.2.3",
            "V1-rc_2..x--",
            "latest",
            "Latest",
            &"a".repeat(128),
        ] {
            assert_eq!(Tag::parse(tag).unwrap().as_str(), tag);
        }
        for tag in [
            "",
            ".a",
            "-a",
            "a b",
            "a:b",
            "a/b",
            "a+b",
            "ä",
            "a\n",
            "%61",
            &"a".repeat(129),
        ] {
            assert_eq!(Tag::parse(tag), Err(TagError), "{tag:?}");
        }
        assert_ne!(Tag::parse("latest"), Tag::parse("Latest"));
    }

    proptest! {
        /// Spec: TAG-1.
        #[test]
        fn all_that_the_grammar_makes_is_accepted(text in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}") {
            prop_assert_eq!(Tag::parse(&text).map(|tag| tag.to_string()), Ok(text));
        }

        #[test]
        fn any_text_with_another_character_is_refused(before in "[a-z]{1,9}", c in "[^a-zA-Z0-9._-]", after in "[a-z]{0,9}") {
            let text = format!("{}{}{}", before, c, after);
            prop_assert_eq!(Tag::parse(&text), Err(TagError));
        }
    }
}
