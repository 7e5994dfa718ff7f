//! Lists in pages: `n` entries after a cursor, and the cursor of what follows.
//!
//! A cursor is the last entry's key in a coat that clients do not look under, so that keys can become others. It names its list, so
//! that one of another list is told from it and gives no page of anything.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::problem::Problem;

/// Entries on a page that does not ask for a number.
const USUAL: u32 = 100;
/// Entries on a page at most.
const MOST: u32 = 1_000;

/// Between a list's name and a key.
const BORDER: char = '\n';

/// Tells a cursor that lost something on its way (FNV-1a; who makes one up gains nothing).
fn checksum(key: &str) -> String {
    let hash = key.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{hash:08x}")
}

/// The answer for a cursor of another list.
pub(super) fn foreign() -> Problem {
    let text = "this cursor is of another list; take the `next` of this one";
    Problem::invalid("after", text)
}

/// Which page
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// At most so many entries, 100 if not given, and never more than 1000
    #[param(minimum = 1, maximum = 1000, example = 100)]
    n: Option<u32>,
    /// The `next` of the page before
    after: Option<String>,
}

impl Wanted {
    /// How many entries.
    pub(super) fn limit(&self) -> Result<u32, Problem> {
        match self.n {
            None => Ok(USUAL),
            Some(0) => Err(Problem::invalid("n", "n must be 1 or more")),
            Some(n) => Ok(n.min(MOST)),
        }
    }

    /// The key after which the page of this list begins.
    pub(super) fn after(&self, list: &str) -> Result<Option<String>, Problem> {
        let Some(cursor) = &self.after else {
            return Ok(None);
        };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
        let key = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
        // A key with a zero byte is none that PostgreSQL would compare.
        let Some(key) = key.filter(|key| !key.contains('\0')) else {
            let text = "this is no cursor; take the `next` of the page before as it is";
            return Err(Problem::invalid("after", text));
        };
        let whole = key.rsplit_once(BORDER);
        let Some((key, _)) = whole.filter(|(key, sum)| *sum == checksum(key)) else {
            let text = "this cursor is damaged; take the `next` of the page before as it is";
            return Err(Problem::invalid("after", text));
        };
        match key.split_once(BORDER) {
            Some((of, key)) if of == list => Ok(Some(key.to_owned())),
            _ => Err(foreign()),
        }
    }
}

impl Wanted {
    /// The page of a list that is at hand whole.
    pub(super) fn of<T>(
        &self,
        list: &str,
        mut all: Vec<T>,
        key: impl Fn(&T) -> String,
    ) -> Result<Page<T>, Problem> {
        let (limit, after) = (self.limit()?, self.after(list)?);
        all.retain(|one| after.as_ref().is_none_or(|after| key(one) > *after));
        all.sort_by_cached_key(&key);
        Ok(Page::cut(list, all, limit, key))
    }
}

/// One page of a list
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Page<T> {
    /// The entries, in the list's order
    pub(super) items: Vec<T>,
    /// What to send as `after` for the next page; absent on the last one
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A key of a list in its coat.
pub(super) fn cursor(list: &str, key: &str) -> String {
    let key = format!("{list}{BORDER}{key}");
    URL_SAFE_NO_PAD.encode(format!("{key}{BORDER}{}", checksum(&key)))
}

impl<T> Page<T> {
    /// A page whose follower is known.
    pub(super) fn new(items: Vec<T>, next: Option<String>) -> Self {
        Self { items, next }
    }

    /// Cuts a list that was asked for one entry more than the page holds; `key` gives an entry's key.
    pub(super) fn cut(
        list: &str,
        mut items: Vec<T>,
        limit: u32,
        key: impl Fn(&T) -> String,
    ) -> Self {
        let more = items.len() > limit as usize;
        items.truncate(limit as usize);
        let last = items.last().filter(|_| more);
        let next = last.map(|last| cursor(list, &key(last)));
        Self { items, next }
    }

    /// The same page of something else.
    pub(super) fn map<U>(self, to: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(to).collect(),
            next: self.next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(n: Option<u32>, after: Option<&str>) -> Wanted {
        Wanted {
            n,
            after: after.map(str::to_owned),
        }
    }

    #[test]
    fn a_cursor_comes_back_as_it_went() {
        let page = Page::cut("l", vec!["a/ü", "b", "c"], 2, |name| (*name).to_owned());
        assert_eq!(page.items, ["a/ü", "b"]);
        let next = page.next.unwrap();
        let after = wanted(None, Some(&next)).after("l").unwrap();
        assert_eq!(after.as_deref(), Some("b"));
        assert_eq!(
            Page::cut("l", vec![1, 2], 2, |number| number.to_string()).next,
            None
        );
        assert!(wanted(None, Some("no cursor!")).after("l").is_err());
        assert!(wanted(None, Some("AA")).after("l").is_err());
        assert!(wanted(None, Some(&next)).after("m").is_err());
        assert!(wanted(None, Some("YQ")).after("").is_err());
    }

    #[test]
    fn a_list_at_hand_is_cut_like_any_other() {
        let all = || vec!["c", "a", "b"];
        let key = |name: &&str| (*name).to_owned();
        let first = wanted(Some(2), None).of("l", all(), key).unwrap();
        assert_eq!(first.items, ["a", "b"]);
        let rest = wanted(Some(2), first.next.as_deref())
            .of("l", all(), key)
            .unwrap();
        assert_eq!((rest.items, rest.next), (vec!["c"], None));
    }

    #[test]
    fn pages_have_a_size() {
        assert_eq!(wanted(None, None).limit().unwrap(), USUAL);
        assert_eq!(wanted(Some(u32::MAX), None).limit().unwrap(), MOST);
        assert!(wanted(Some(0), None).limit().is_err());
    }
}
