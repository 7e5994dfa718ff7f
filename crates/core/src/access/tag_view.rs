//! Which tags of a repository somebody is shown, and where those lie in a listing.
//!
//! A binding may be for some tags only, and then lists hold no others. Asked for by whatever lists tags, beside the decision on
//! the request itself. A list may have to stop at a tag that its reader must not see: `Places` hides that.

use std::sync::Arc;

use aws_lc_rs::aead::{Aad, LessSafeKey, NONCE_LEN, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use wharf_oci::RepositoryName;

use super::binding::TagPattern;
use super::secret::random_bytes;
use crate::Result;

/// Greater than every byte of a tag.
const AFTER_ALL: char = '~';
/// Less than every byte of a tag.
const BEFORE_ALL: char = '\u{1}';

/// The tags that somebody may read in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagView {
    /// All.
    All,
    /// Those that one of the patterns matches, sorted.
    Matching(Vec<TagPattern>),
}

impl TagView {
    /// Whether this tag is one of them.
    pub fn shows(&self, tag: &str) -> bool {
        match self {
            Self::All => true,
            Self::Matching(patterns) => patterns.iter().any(|pattern| pattern.matches(tag)),
        }
    }

    /// What both show together.
    pub fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Matching(mut one), Self::Matching(mut other)) => {
                one.append(&mut other);
                Self::of(one)
            }
            _ => Self::All,
        }
    }

    /// Those that one of the patterns matches.
    pub(crate) fn of(mut patterns: Vec<TagPattern>) -> Self {
        if patterns.iter().any(TagPattern::is_everything) {
            return Self::All;
        }
        patterns.sort_unstable();
        patterns.dedup();
        Self::Matching(patterns)
    }

    /// How many patterns a tag is compared with.
    pub(crate) fn patterns(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Matching(patterns) => patterns.len(),
        }
    }

    /// The parts of a listing outside of which there is none of them: from the first bytes on and before the second ones, in
    /// order, none within another.
    pub(crate) fn ranges(&self) -> Vec<(String, String)> {
        let Self::Matching(patterns) = self else {
            return vec![(String::new(), AFTER_ALL.to_string())];
        };
        let range = |pattern: &TagPattern| {
            let (literal, whole) = pattern.beginning();
            let end = if whole { BEFORE_ALL } else { AFTER_ALL };
            (literal.to_owned(), format!("{literal}{end}"))
        };
        let mut ranges: Vec<_> = patterns.iter().map(range).collect();
        // Of two that begin alike the longer one first: those of beginnings lie apart, or one within the other.
        ranges.sort_unstable_by(|one, other| one.0.cmp(&other.0).then(other.1.cmp(&one.1)));
        let mut apart: Vec<(String, String)> = Vec::with_capacity(ranges.len());
        for range in ranges {
            if apart.last().is_none_or(|last| last.1 < range.1) {
                apart.push(range);
            }
        }
        apart
    }
}

/// The first name that can come after this one in a listing of tags.
pub(crate) fn after(name: &str) -> String {
    format!("{name}{BEFORE_ALL}")
}

/// What a hidden place begins with; no tag does.
const MARK: char = '~';
/// Bytes of a place at most: a tag and what [`after`] adds. All are filled up to this, so that none tells how long it is.
const LONGEST: usize = 132;

/// Hides places in listings, so that a list can go on behind a tag which its reader must not see.
pub(crate) struct Places(Vec<Arc<LessSafeKey>>);

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Places")
    }
}

impl Places {
    /// The first key hides, all of them find.
    pub(crate) fn new(keys: Vec<Arc<LessSafeKey>>) -> Self {
        Self(keys)
    }

    /// A place, for whom it must tell nothing.
    pub(crate) fn hide(&self, repository: &RepositoryName, place: &str) -> Result<String> {
        let failed = || crate::Error::Internal("a place in a list could not be hidden".into());
        let mut body = place.as_bytes().to_vec();
        if body.len() > LONGEST {
            return Err(failed());
        }
        body.resize(LONGEST, 0);
        let nonce = random_bytes::<NONCE_LEN>();
        let mut hidden = nonce.to_vec();
        let key = self.0.first().ok_or_else(failed)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let bound = Aad::from(repository.as_str().as_bytes());
        key.seal_in_place_append_tag(nonce, bound, &mut body)
            .map_err(|_| failed())?;
        hidden.append(&mut body);
        Ok(format!("{MARK}{}", URL_SAFE_NO_PAD.encode(hidden)))
    }

    /// The place again, if the text is one that was hidden here or by another replica.
    pub(crate) fn find(&self, repository: &RepositoryName, text: &str) -> Option<String> {
        let hidden = URL_SAFE_NO_PAD.decode(text.strip_prefix(MARK)?).ok()?;
        let (nonce, body) = hidden.split_at_checked(NONCE_LEN)?;
        self.0.iter().find_map(|key| {
            let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
            let bound = Aad::from(repository.as_str().as_bytes());
            let mut body = body.to_vec();
            let place = key.open_in_place(nonce, bound, &mut body).ok()?;
            let place = std::str::from_utf8(place).ok()?;
            Some(place.trim_end_matches('\0').to_owned())
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::SecretKeys;
    use super::*;

    fn view(patterns: &[&str]) -> TagView {
        TagView::of(patterns.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn name(text: &str) -> RepositoryName {
        RepositoryName::parse(text).unwrap()
    }

    #[test]
    fn beginnings_narrow_a_listing() {
        let range = |from: &str, until: &str| (from.to_owned(), until.to_owned());
        assert_eq!(view(&["v*"]).ranges(), [range("v", "v~")]);
        assert_eq!(
            view(&["v1", "v", "v1.*", "a?c"]).ranges(),
            [
                range("a", "a~"),
                range("v", "v\u{1}"),
                range("v1", "v1\u{1}"),
                range("v1.", "v1.~")
            ]
        );
        assert_eq!(
            view(&["v1.*", "v*", "v2", "v"]).ranges(),
            [range("v", "v~")]
        );
        assert_eq!(view(&["v*", "*-rc"]).ranges(), [range("", "~")]);
        assert_eq!(view(&["v*", "**"]), TagView::All);
        assert_eq!(TagView::All.ranges(), [range("", "~")]);
    }

    proptest! {
        /// Whatever is shown lies in exactly one range.
        #[test]
        fn every_tag_that_is_shown_lies_in_one_range(
            patterns in proptest::collection::vec("[a-c*?.]{1,4}", 1..6),
            tags in proptest::collection::vec("[a-c_][a-c.z]{0,4}", 1..20),
        ) {
            let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
            let view = view(&patterns);
            let ranges = view.ranges();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{:?}", ranges);
            for tag in &tags {
                let within = ranges.iter().filter(|(from, until)| from <= tag && tag < until).count();
                prop_assert!(within <= 1);
                prop_assert!(!view.shows(tag) || within == 1, "{} in {:?}", tag, ranges);
            }
        }

        #[test]
        fn what_is_no_hidden_place_is_found_nowhere(text in ".{0,300}") {
            let places = SecretKeys::of_tests().of_places();
            prop_assert_eq!(places.find(&name("a"), &text), None);
        }
    }

    #[test]
    fn a_hidden_place_is_found_where_it_was_hidden_and_tells_nothing() {
        let places = SecretKeys::of_tests().of_places();
        let (short, long) = ("v\u{1}", "secret-".repeat(18));
        let hidden = places.hide(&name("a"), short).unwrap();
        assert_eq!(places.find(&name("a"), &hidden).as_deref(), Some(short));
        assert_eq!(places.find(&name("b"), &hidden), None);
        let other = places.hide(&name("a"), &long).unwrap();
        assert_eq!(other.len(), hidden.len());
        assert_ne!(places.hide(&name("a"), short).unwrap(), hidden);
        let theirs = SecretKeys::parse(&SecretKeys::make()).unwrap().of_places();
        assert_eq!(theirs.find(&name("a"), &hidden), None);
        assert!(places.hide(&name("a"), &"x".repeat(LONGEST + 1)).is_err());
    }
}
