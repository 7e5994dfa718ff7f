//! Repository names (NAME-1 to NAME-3).

use std::borrow::Borrow;
use std::sync::Arc;

use crate::text::text_impls;

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
    let alphanumeric = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9');
    let separator =
        |s: &[u8]| matches!(s, b"" | b"." | b"_" | b"__") || s.iter().all(|b| *b == b'-');
    let bytes = text.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.split(alphanumeric).all(separator)
}

// Lets maps keyed by names be asked with a plain string; sound because equality, order and hash are the text's.
impl Borrow<str> for RepositoryName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

text_impls!(RepositoryName, NameError, "a repository name");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Spec: NAME-1, API-1, API-2.
    #[test]
    fn follows_the_grammar() {
        for name in [
            "a",
            "0",
            "a/b/c",
            "a.b",
            "a_b",
            "a__b",
            "a-b",
            "a---b",
            "foo/blobs",
            "tags/list",
            "a/manifests/b",
        ] {
            assert_eq!(RepositoryName::parse(name).unwrap().as_str(), name);
        }
        for name in [
            "A",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a___b",
            "a_-b",
            "a._b",
            "a-.b",
            "-a",
            "a-",
            "_a",
            "a_",
            ".a",
            "a.",
            "a b",
            "a:b",
            "a%2fb",
            "ä",
            "a/_catalog",
            "_oci/ext",
            "../a",
            "a/../b",
            "a\0",
            "a\n",
        ] {
            assert_eq!(
                RepositoryName::parse(name),
                Err(NameError::Grammar),
                "{name:?}"
            );
        }
        assert_eq!(RepositoryName::parse(""), Err(NameError::Empty));
    }

    /// Spec: NAME-2.
    #[test]
    fn has_a_longest_length() {
        assert!(RepositoryName::parse(&"a".repeat(MAX_LENGTH)).is_ok());
        assert_eq!(
            RepositoryName::parse(&"a".repeat(MAX_LENGTH + 1)),
            Err(NameError::TooLong)
        );
    }

    #[test]
    fn lies_within_namespaces_on_borders_only() {
        let name = RepositoryName::parse("team/a/app").unwrap();
        for (prefix, within) in [
            ("", true),
            ("team", true),
            ("team/a", true),
            ("team/a/app", true),
            ("te", false),
            ("team/a/ap", false),
            ("team/a/app/x", false),
            ("team/", false),
            ("other", false),
        ] {
            assert_eq!(name.is_within(prefix), within, "{prefix}");
        }
    }

    /// The grammar as an automaton, written apart from the parser: the state is the run of separators before this byte.
    fn automaton(text: &str) -> bool {
        #[derive(PartialEq)]
        enum State {
            Start,
            Word,
            Dot,
            Underscore,
            TwoUnderscores,
            Dashes,
        }
        let mut state = State::Start;
        for c in text.chars() {
            state = match (state, c) {
                (_, 'a'..='z' | '0'..='9') => State::Word,
                (State::Word, '/') => State::Start,
                (State::Word, '.') => State::Dot,
                (State::Word, '_') => State::Underscore,
                (State::Underscore, '_') => State::TwoUnderscores,
                (State::Word | State::Dashes, '-') => State::Dashes,
                _ => return false,
            };
        }
        state == State::Word
    }

    /// Spec: NAME-1.
    #[test]
    fn agrees_with_an_automaton_on_all_short_texts() {
        const ALPHABET: &[u8] = b"a0._-/A";
        let mut texts = vec![String::new()];
        for _ in 0..6 {
            for text in &texts {
                assert_eq!(
                    RepositoryName::parse(text).is_ok(),
                    automaton(text),
                    "{text:?}"
                );
            }
            texts = texts
                .iter()
                .flat_map(|t| ALPHABET.iter().map(move |b| format!("{t}{}", *b as char)))
                .collect();
        }
    }

    proptest! {
        /// Spec: NAME-1.
        #[test]
        fn any_text_is_judged_as_the_automaton_does(text in ".{0,40}|[a-z0-9._/-]{0,40}") {
            let parsed = RepositoryName::parse(&text);
            prop_assert_eq!(parsed.is_ok(), automaton(&text));
            if let Ok(name) = parsed {
                prop_assert_eq!(name.as_str(), &text);
                prop_assert!(name.is_within(&text));
            }
        }
    }
}
