//! How long what nothing needs stays.

use wharf_oci::RepositoryName;

use crate::audit;
use crate::registry::Registry;

/// The last part of a grace in which a candidate counts as absent is this long at most, in milliseconds...
const FADING: i64 = 3_600_000;
/// ... and no more than this part of a shorter grace.
const FADING_PART: i64 = 8;

/// A time by prefix: the longest prefix that holds a repository decides. Milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Windows {
    /// Where no exception applies.
    pub default: i64,
    /// Prefix on `/` borders, and its time.
    pub overrides: Vec<(String, i64)>,
}

impl Windows {
    /// The time for `repository`.
    pub fn of(&self, repository: &RepositoryName) -> i64 {
        self.overrides
            .iter()
            .filter(|(prefix, _)| repository.is_within(prefix))
            .max_by_key(|(prefix, _)| prefix.len())
            .map_or(self.default, |(_, window)| *window)
    }
}

/// What collection goes by. Replaced as a whole when the configuration is read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// How long a blob stays that no manifest refers to, in milliseconds.
    pub grace: i64,
    /// How long a deleted manifest can be restored.
    pub restore: Windows,
    /// How long a manifest stays without a tag, an index or a subject that keeps it, in milliseconds; `None`: for good.
    pub untagged: Option<i64>,
    /// Period in which all bytes are read again, in milliseconds; 0: never.
    pub scrub: i64,
    /// How long events are kept, in milliseconds.
    pub events: i64,
    /// What is in the audit log, and for how long.
    pub audit: audit::Rules,
}

impl Default for Rules {
    fn default() -> Self {
        const DAY: i64 = 86_400_000;
        Self {
            grace: DAY,
            restore: Windows {
                default: 7 * DAY,
                overrides: Vec::new(),
            },
            untagged: None,
            scrub: 30 * DAY,
            events: 30 * DAY,
            audit: audit::Rules::default(),
        }
    }
}

/// Candidates since this moment or before are due.
pub(super) fn due(registry: &Registry) -> i64 {
    let grace = registry.rules.load().grace;
    registry.ages.older_than(&*registry.clock, grace)
}

/// Candidates since before this moment are so near their end that nobody should rely on them; milliseconds since 1970.
pub(crate) fn fading(registry: &Registry) -> i64 {
    let grace = registry.rules.load().grace;
    // Nothing would be left of no grace.
    if grace == 0 {
        return i64::MIN;
    }
    let due = registry.ages.older_than(&*registry.clock, grace);
    due + FADING.min(grace / FADING_PART)
}
