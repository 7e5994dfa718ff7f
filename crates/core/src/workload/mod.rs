//! Machines sign in with tokens that others sign: a cluster for its pods, a CI service for its jobs. No secret is kept anywhere.
//!
//! An [`Issuer`] says whose signatures count and what every token of it must be; a [`Rule`] says what a token must say besides.
//! Whoever has a token that a rule matches is a principal of kind workload, and has what is granted to its rules
//! (`workload:RULE`); a token that none matches is refused. Called by [`crate::access`], which asks for each request; a token that
//! was checked before costs a hash and a look-up. Nothing here knows HTTP: keys are fetched through [`Fetch`].

mod certificate;
mod change;
mod claim;
mod issuer;
mod jwks;
mod jwt;
mod keys;
mod load;
mod report;
mod review;
mod rule;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};
use wharf_meta::Meta;

pub use self::change::Bearer;
pub use self::claim::{Claims, Pattern, PatternError, find};
pub use self::issuer::{Algorithm, IssuerSettings, KeySource, Kind, SettingError, origin};
pub use self::jwks::{JwksError, KeySet, LARGEST_KEYS, MOST_KEYS};
pub use self::jwt::{Jwt, LONGEST_JWT, is_jwt};
pub(crate) use self::keys::Ring;
pub use self::keys::{
    FETCH_EVERY, Fetch, FetchRequest, Fetched, NoFetch, REFRESH_AFTER, STALE_AFTER, Standing,
};
pub use self::report::{Judged, Report, Seen};
pub use self::review::{REFUSED_FOR, REVIEW_STALE, REVIEWED_FOR};
pub use self::rule::{Condition, RuleSettings};
pub(crate) use self::verify::signed_by;
pub use self::verify::{Fault, WorkloadFault};

pub(crate) use self::load::purpose;
use crate::access::SecretKeys;
use crate::error::Result;

/// Most issuers.
pub const MOST_ISSUERS: usize = 100;
/// Most rules of all issuers together.
pub const MOST_RULES: usize = 1_000;
/// Most rules that one token can match; more give nothing.
pub const MOST_MATCHES: usize = 16;
/// How many checked tokens are remembered.
const REMEMBERED: usize = 10_000;

/// An issuer as it is in force.
#[derive(Debug)]
pub struct Issuer {
    /// The name, which all its principals' names begin with.
    pub name: Arc<str>,
    /// What its tokens must be.
    pub settings: IssuerSettings,
    /// Whether its keys are fetched with a secret of ours.
    pub has_bearer: bool,
    /// Counts the changes of the row.
    pub version: i64,
    /// In ms since 1970.
    pub created_at: i64,
    /// Who made it.
    pub created_by: String,
    pub(crate) print: String,
    pub(crate) ring: Arc<Ring>,
}

impl Issuer {
    /// How its keys stand in this process.
    pub fn standing(&self) -> Standing {
        self.ring.standing()
    }
}

/// A rule as it is in force.
#[derive(Debug)]
pub struct Rule {
    /// The name: grants say `workload:` and this.
    pub name: Arc<str>,
    /// Whose tokens.
    pub issuer: Arc<str>,
    /// What they must say.
    pub settings: RuleSettings,
    /// Counts the changes of the row.
    pub version: i64,
    /// In ms since 1970.
    pub created_at: i64,
    /// Who made it.
    pub created_by: String,
    pub(crate) print: String,
}

/// All issuers and rules as of one moment.
#[derive(Debug, Default)]
pub struct Trust {
    /// Which state of the rows this is.
    pub(crate) version: i64,
    /// By name.
    pub issuers: BTreeMap<Arc<str>, Arc<Issuer>>,
    /// By name.
    pub rules: BTreeMap<Arc<str>, Arc<Rule>>,
}

impl Trust {
    /// The rules on an issuer's tokens, by name.
    pub fn rules_of<'a>(&'a self, issuer: &'a str) -> impl Iterator<Item = &'a Arc<Rule>> {
        self.rules
            .values()
            .filter(move |rule| *rule.issuer == *issuer)
    }
}

/// Names a text without telling it: another text, another name.
pub(crate) fn print(parts: &[&str]) -> String {
    let mut sum = Sha256::new();
    for part in parts {
        sum.update((part.len() as u64).to_be_bytes());
        sum.update(part);
    }
    let sum = sum.finalize();
    sum[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whoever has a token that rules match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// The principal's name, `<issuer>:<what its template makes>`.
    pub name: Arc<str>,
    /// The rules that match, by name; never none.
    pub rules: Arc<[Arc<str>]>,
}

/// How checking tokens went since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkloadCounts {
    /// Tokens that were known already.
    pub remembered: u64,
    /// Signatures that were computed.
    pub checked: u64,
    /// Requests to issuers, for their keys or for what they say of a token.
    pub fetched: u64,
}

/// Everything about tokens of others, for one registry.
pub struct Workloads {
    sealing: Arc<SecretKeys>,
    fetch: Arc<dyn Fetch>,
    trust: ArcSwap<Trust>,
    known: Cache<[u8; 32], Arc<verify::Verified>>,
    shown: certificate::Shown,
    hits: AtomicU64,
    misses: AtomicU64,
    fetches: Arc<AtomicU64>,
}

impl fmt::Debug for Workloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workloads")
            .field("trust", &self.trust.load())
            .finish_non_exhaustive()
    }
}

impl Workloads {
    pub(crate) fn new(sealing: Arc<SecretKeys>, fetch: Arc<dyn Fetch>) -> Self {
        Self {
            sealing,
            fetch,
            trust: ArcSwap::default(),
            known: Cache::new(REMEMBERED),
            shown: certificate::Shown::new(REMEMBERED),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            fetches: Arc::default(),
        }
    }

    /// Issuers and rules as of this moment.
    pub fn trust(&self) -> Arc<Trust> {
        self.trust.load_full()
    }

    /// How it went since the start.
    pub fn counts(&self) -> WorkloadCounts {
        WorkloadCounts {
            remembered: self.hits.load(Ordering::Relaxed),
            checked: self.misses.load(Ordering::Relaxed),
            fetched: self.fetches.load(Ordering::Relaxed),
        }
    }

    /// Takes issuers and rules from the rows if they are others than those in force. Called by whoever reads changed rights.
    pub(crate) async fn refresh(&self, meta: &Meta) -> Result<()> {
        if let Some(trust) = load::changed(meta, &self.trust(), &self.sealing).await? {
            self.trust.store(Arc::new(trust));
        }
        Ok(())
    }
}
