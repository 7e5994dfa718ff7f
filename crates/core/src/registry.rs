//! The registry as one value: the stores, the rights, the clock and the rules that all services share.
//!
//! The server builds one at start and hands it to every request. It holds no state that another process would need
//! (ARCHITECTURE.md, invariant 7), apart from the locks that keep two requests of this process off one upload, and copies
//! of rows that `meta` vouches for.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use wharf_blob::BlobStore;
use wharf_meta::Meta;
use wharf_oci::RepositoryName;

use crate::access::Access;
use crate::audit::Gatherer;
use crate::cache::Manifests;
use crate::clock::{Ages, Clock};
use crate::gc;
use crate::upload;

/// Everything that a service needs.
#[derive(Debug)]
pub struct Registry {
    /// Rows.
    pub meta: Meta,
    /// Bytes.
    pub blobs: Arc<dyn BlobStore>,
    /// Who may do what.
    pub access: Arc<Access>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Sizes and times that bound what a client can ask for.
    pub limits: Limits,
    /// What a manifest must satisfy, by repository. Replaced as a whole when the configuration is read again.
    pub content: ArcSwap<ContentRules>,
    /// How long what nothing needs stays. Replaced as a whole when the configuration is read again.
    pub rules: ArcSwap<gc::Rules>,
    /// What collection has removed since the start.
    pub freed: gc::Tally,
    /// Told when somebody here added a job or let one run: whoever takes jobs looks at once.
    pub jobs: Notify,
    /// Sign-ins, refusals and reads on their way into the audit log.
    pub audit: Gatherer,
    /// Backups that are running: bytes that were replaced stay until they are done.
    pub(crate) holds: AtomicUsize,
    /// Manifests that were asked for lately.
    pub(crate) manifests: Manifests,
    /// One writer per upload within this process.
    pub(crate) uploads: upload::Locks,
    /// What is old although the clock may have been set.
    pub(crate) ages: Ages,
}

impl Registry {
    /// Puts the parts together.
    pub fn new(
        meta: Meta,
        blobs: Arc<dyn BlobStore>,
        access: Arc<Access>,
        clock: Arc<dyn Clock>,
        limits: Limits,
        content: ContentRules,
    ) -> Self {
        Self {
            meta,
            blobs,
            access,
            ages: Ages::new(&*clock),
            clock,
            limits,
            content: ArcSwap::from_pointee(content),
            rules: ArcSwap::from_pointee(gc::Rules::default()),
            freed: gc::Tally::default(),
            jobs: Notify::new(),
            audit: Gatherer::default(),
            holds: AtomicUsize::new(0),
            manifests: Manifests::default(),
            uploads: upload::Locks::default(),
        }
    }

    /// What ended before this time may be forgotten. A clock that was set forward by mistake ends nothing for good: it is a day ago, by
    /// time that really passed.
    pub(crate) fn long_over(&self) -> i64 {
        self.ages.older_than(&*self.clock, LONG_OVER)
    }

    /// The same for what lists show for longer, so that whoever misses it finds out why.
    pub(crate) fn shown_until(&self) -> i64 {
        self.ages.older_than(&*self.clock, SHOWN)
    }
}

/// So long sessions, terminals and invitations that have ended are kept, in ms.
const LONG_OVER: i64 = 86_400_000;
/// So long grants, robots' secrets and API tokens that have ended are kept, in ms.
const SHOWN: i64 = 30 * LONG_OVER;

/// Bounds on what one request or one client can take. All sizes in bytes.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest manifest accepted (MPUT-15 asks for at least 4 MB).
    pub manifest_size: u64,
    /// Largest blob accepted.
    pub blob_size: u64,
    /// Blobs smaller than this live in the metadata store beside the manifests.
    pub inline_below: u64,
    /// Uploads that nobody has touched for this long are forgotten, in milliseconds (UP-6).
    pub upload_age_ms: i64,
    /// Most tags that one push may set (MPUT-19 asks for at least ten).
    pub tags_per_push: usize,
    /// Longest page of tags, repositories or referrers (TAGS-3, REF-7, CAT-1).
    pub page: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            manifest_size: 4 << 20,
            blob_size: 1 << 40,
            inline_below: 80 << 10,
            upload_age_ms: 7 * 24 * 3_600_000,
            tags_per_push: 50,
            page: 1_000,
        }
    }
}

/// What a manifest must satisfy beyond its own format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRule {
    /// Config and layers must be in the repository (MPUT-9); non-distributable layers may always be absent (MPUT-14).
    pub require_blobs: bool,
    /// The children of an index must be in the repository. Off by default: sparse indexes are common (MPUT-10).
    pub require_children: bool,
    /// Sizes in descriptors must be those of the stored content (MPUT-18).
    pub check_sizes: bool,
}

impl Default for ContentRule {
    fn default() -> Self {
        Self {
            require_blobs: true,
            require_children: false,
            check_sizes: true,
        }
    }
}

/// Content rules with exceptions by prefix: the longest prefix that holds a repository decides.
#[derive(Debug, Clone, Default)]
pub struct ContentRules {
    /// Where no exception applies.
    pub default: ContentRule,
    /// Prefix on `/` borders, and its rule.
    pub overrides: Vec<(String, ContentRule)>,
}

impl ContentRules {
    /// The rule for `repository`.
    pub fn of(&self, repository: &RepositoryName) -> ContentRule {
        self.overrides
            .iter()
            .filter(|(prefix, _)| repository.is_within(prefix))
            .max_by_key(|(prefix, _)| prefix.len())
            .map_or(self.default, |(_, rule)| *rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_prefix_decides() {
        let lenient = ContentRule {
            require_blobs: false,
            ..ContentRule::default()
        };
        let rules = ContentRules {
            default: ContentRule::default(),
            overrides: vec![
                ("mirror".into(), lenient),
                ("mirror/strict".into(), ContentRule::default()),
            ],
        };
        let of = |name: &str| rules.of(&RepositoryName::parse(name).unwrap());
        assert!(of("team/app").require_blobs);
        assert!(!of("mirror/app").require_blobs);
        assert!(of("mirror/strict/app").require_blobs);
        assert!(of("mirrored/app").require_blobs);
    }
}
