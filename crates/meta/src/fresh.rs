//! Whether what was read before is still so: the seam between the writer and what callers keep in memory.
//!
//! Operations say what they change ([`crate::Tx::touch`]); the engine's writer marks it before the commit and once more
//! after it, so that a [`Stamp`] taken before a read tells later whether anything was, is being, or may have been changed
//! since. Nothing has to be removed anywhere, and a fill that overtakes a commit is stale from the start. Knows nothing of
//! what callers keep, and never waits.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use wharf_oci::RepositoryName;

/// So many places that manifests and tags share by hash: a push makes few others stale by chance. 32 KiB.
const SLOTS: usize = 4096;

/// When something was looked at; compare with [`crate::Meta::is_fresh`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    slot: u32,
    count: u64,
}

impl Stamp {
    /// One that is stale from the start: where others write too, nothing that was read stays so.
    pub(crate) const STALE: Stamp = Stamp { slot: 0, count: 1 };
}

/// Counts for what may be served under a tag or digest: odd while a commit that changes it is under way.
#[derive(Debug)]
pub(crate) struct Fresh {
    slots: Box<[AtomicU64]>,
    /// The same for everything together: commits begun and ended.
    commits: AtomicU64,
}

/// What the operations of one commit change.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    slots: Vec<u32>,
    all: bool,
}

impl Touched {
    /// Everything, for an operation that did not say what.
    pub(crate) fn all(&mut self) {
        self.all = true;
    }

    /// How many things were named.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn add(&mut self, repository: &RepositoryName, reference: &str) {
        self.slots.push(slot(repository, reference));
    }
}

/// The place of a tag or digest of a repository. No tag looks like a digest, so their text is enough. Who makes two of
/// them meet on purpose gains nothing: the one is read once more when the other changes.
fn slot(repository: &RepositoryName, reference: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    (repository.as_str(), reference).hash(&mut hasher);
    (hasher.finish() % SLOTS as u64) as u32
}

impl Default for Fresh {
    fn default() -> Fresh {
        Fresh {
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            commits: AtomicU64::new(0),
        }
    }
}

impl Fresh {
    /// To be taken before the read.
    pub(crate) fn stamp(&self, repository: &RepositoryName, reference: &str) -> Stamp {
        let slot = slot(repository, reference);
        Stamp {
            slot,
            count: self.slots[slot as usize].load(Ordering::SeqCst),
        }
    }

    /// Whether nothing was changed since, and nothing is being.
    pub(crate) fn is_fresh(&self, stamp: Stamp) -> bool {
        stamp.count.is_multiple_of(2)
            && self.slots[stamp.slot as usize].load(Ordering::SeqCst) == stamp.count
    }

    /// A number that is the same as long as no row whatsoever changes; none while a commit is under way.
    pub(crate) fn commits(&self) -> Option<u64> {
        let count = self.commits.load(Ordering::SeqCst);
        count.is_multiple_of(2).then_some(count)
    }

    /// Makes stamps of what is touched stale, and those that are taken until the guard goes. Begins before readers can
    /// see the change, and ends before anybody is told of it. Called by the writer alone.
    pub(crate) fn change(&self, mut touched: Touched) -> Changing<'_> {
        if touched.all {
            touched.slots = (0..SLOTS as u32).collect();
        } else {
            // Twice would be even again.
            touched.slots.sort_unstable();
            touched.slots.dedup();
        }
        let changing = Changing {
            fresh: self,
            slots: touched.slots,
        };
        changing.count();
        // The commit must not be seen before the counts.
        fence(Ordering::SeqCst);
        changing
    }
}

/// A commit under way.
#[derive(Debug)]
pub(crate) struct Changing<'a> {
    fresh: &'a Fresh,
    slots: Vec<u32>,
}

impl Changing<'_> {
    fn count(&self) {
        self.fresh.commits.fetch_add(1, Ordering::SeqCst);
        for slot in &self.slots {
            self.fresh.slots[*slot as usize].fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.count();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RepositoryName {
        RepositoryName::parse(text).unwrap()
    }

    fn touched(references: &[&str]) -> Touched {
        let mut touched = Touched::default();
        for reference in references {
            touched.add(&name("a"), reference);
        }
        touched
    }

    #[test]
    fn a_stamp_from_before_during_or_across_a_change_is_stale() {
        let fresh = Fresh::default();
        let before = fresh.stamp(&name("a"), "v1");
        let commits = fresh.commits();
        assert!(commits.is_some());
        assert!(fresh.is_fresh(before));
        // Named twice, as by two operations of one commit.
        let changing = fresh.change(touched(&["v1", "v1"]));
        let during = fresh.stamp(&name("a"), "v1");
        assert_eq!(fresh.commits(), None);
        assert!(!fresh.is_fresh(before) && !fresh.is_fresh(during));
        drop(changing);
        assert!(fresh.commits().is_some() && fresh.commits() != commits);
        assert!(!fresh.is_fresh(before) && !fresh.is_fresh(during));
        assert!(fresh.is_fresh(fresh.stamp(&name("a"), "v1")));
    }

    #[test]
    fn an_operation_that_names_nothing_makes_everything_stale() {
        let fresh = Fresh::default();
        let stamps: Vec<Stamp> = (0..100)
            .map(|n| fresh.stamp(&name("a"), &format!("v{n}")))
            .collect();
        drop(fresh.change(Touched::default()));
        assert!(stamps.iter().all(|stamp| fresh.is_fresh(*stamp)));
        let mut touched = Touched::default();
        touched.all();
        drop(fresh.change(touched));
        assert!(!stamps.iter().any(|stamp| fresh.is_fresh(*stamp)));
    }

    #[test]
    fn repositories_have_places_of_their_own() {
        let apart = (0..100)
            .filter(|n| {
                let tag = format!("v{n}");
                slot(&name("a"), &tag) != slot(&name("b"), &tag)
            })
            .count();
        assert!(apart > 90, "{apart}");
    }
}
