//! How often a client may ask: token buckets by principal and address.
//!
//! [`Access::admit`](super::Access::admit) is called once for each request, when it is known who asks and whether they may, and
//! before anything is looked up; [`Access`](super::Access) itself asks before it computes a password and before it makes a token.
//! Principal and address together have a bucket, so that one node in a loop slows neither the other nodes that share its robot
//! nor the others behind its gateway. Everything is in the memory of this process: see `docs/reference/limits.md`.

mod bucket;
mod rule;

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use wharf_oci::RepositoryName;

pub use self::bucket::MOST_BUCKETS;
pub use self::rule::{Per, Rate, RateKind, RateOverride, RateRules};

use self::bucket::{Buckets, Refill, Refused};
use super::network::one_client;
use super::policy::Policy;
use super::principal::{Caller, Circumstances, Principal};
use crate::audit::{Kind, Sight};
use crate::clock::Clock;

/// Clients that are refused together are told to come back within so many seconds of each other.
const SPREAD: u64 = 3;
/// So many bytes pass between two looks at the bucket.
const STEP: u64 = 4 << 20;

/// Too much was asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("too many {}: {key} allows {rate}; try again in {} s", kind.what(), retry_after.as_secs())]
pub struct Limited {
    /// Of what.
    pub kind: RateKind,
    /// When to ask again, in whole seconds.
    pub retry_after: Duration,
    /// Where the rate stands in the configuration.
    key: String,
    rate: Rate,
    whose: Box<Whose>,
}

/// Whose bucket was empty, for the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Whose {
    principal: String,
    credential: String,
    /// Of IPv6 the network, since that is what has a bucket.
    address: Option<IpAddr>,
    /// The namespace of the override.
    on: Option<String>,
}

impl Limited {
    /// The refusal as it is noted: the same for everything that this bucket refuses, whatever was asked for.
    pub fn sight(&self) -> Sight {
        let Self {
            kind,
            key,
            rate,
            whose,
            ..
        } = self;
        Sight {
            kind: Kind::Refuse,
            principal: whose.principal.clone(),
            credential: whose.credential.clone(),
            address: whose.address,
            repository: whose.on.clone(),
            digest: None,
            tag: None,
            asked: kind.as_str().to_owned(),
            reason: format!("{key} allows {rate}"),
        }
    }
}

impl Whose {
    fn new(caller: &Caller, rule: Option<&RateOverride>) -> Box<Self> {
        let origin = caller.origin("");
        Box::new(Self {
            principal: origin.actor,
            credential: origin.credential,
            address: caller.circumstances.address.map(one_client),
            on: rule.map(|rule| rule.on.clone()).filter(|on| !on.is_empty()),
        })
    }
}

/// All buckets of this process, and the rules by which they fill.
pub(crate) struct Rates {
    rules: ArcSwap<RateRules>,
    buckets: Buckets,
    /// Nobody outside can tell which clients share a set, or aim at another's bucket.
    hasher: RandomState,
    clock: Arc<dyn Clock>,
    refused: [AtomicU64; RateKind::ALL.len()],
}

impl std::fmt::Debug for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rates")
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

/// Whose bucket it is.
#[derive(Hash)]
struct Key<'a> {
    kind: RateKind,
    rule: Option<(&'a str, Option<&'static str>)>,
    principal: Option<&'a Principal>,
    place: Option<(bool, u64)>,
}

impl Rates {
    pub(crate) fn new(rules: RateRules, clock: Arc<dyn Clock>) -> Self {
        Self {
            rules: ArcSwap::from_pointee(rules.in_order()),
            buckets: Buckets::new(),
            hasher: RandomState::new(),
            clock,
            refused: Default::default(),
        }
    }

    /// Puts other rules in force. What has been taken stays taken, and comes back at the pace of the new ones where that is higher.
    pub(crate) fn configure(&self, rules: RateRules) {
        self.rules.store(Arc::new(rules.in_order()));
    }

    /// Requests that were refused, by kind; one that was repeated at once counts once.
    pub(crate) fn refused(&self) -> Vec<(&'static str, u64)> {
        let counts = RateKind::ALL.iter().zip(&self.refused);
        counts
            .map(|(kind, count)| (kind.as_str(), count.load(Ordering::Relaxed)))
            .collect()
    }

    /// Takes one password to compute.
    pub(crate) fn sign_in(&self, address: Option<IpAddr>) -> Result<(), Limited> {
        let rules = self.rules.load();
        let Some(rate) = rules.sign_in else {
            return Ok(());
        };
        let kind = RateKind::SignIn;
        let key = self.hasher.hash_one(Key {
            kind,
            rule: None,
            principal: None,
            place: place(address),
        });
        let taken = self
            .buckets
            .take(key, self.now(), rate.cost(1), rate.refill(), || 0);
        taken.map_err(|refused| {
            let nobody = Caller::anonymous().under(Circumstances::new(address, 0));
            self.limited((kind, rate, None), &nobody, refused, key)
        })
    }

    /// Takes one request, unless as many bytes have passed as may. `request` tells requests apart.
    pub(crate) fn take(
        &self,
        kind: RateKind,
        policy: &Policy,
        caller: &Caller,
        repository: Option<&RepositoryName>,
        request: &[&[u8]],
    ) -> Result<(), Limited> {
        let rules = self.rules.load();
        let print = || self.hasher.hash_one(request) as u32;
        let now = self.now();
        let find = |kind| rules.find(kind, policy, caller, repository);
        let passes_bytes = kind != RateKind::Token;
        if passes_bytes && let Some((rate, rule)) = find(RateKind::Bytes) {
            let key = self.key(RateKind::Bytes, rule, caller);
            let refill = Refill {
                whole: rate.cost(rate.burst()),
                pace: rate.pace(),
            };
            let looked = self.buckets.look(key, now, refill, print);
            looked.map_err(|refused| {
                self.limited((RateKind::Bytes, rate, rule), caller, refused, key)
            })?;
        }
        let Some((rate, rule)) = find(kind) else {
            return Ok(());
        };
        let key = self.key(kind, rule, caller);
        let taken = self
            .buckets
            .take(key, now, rate.cost(1), rate.refill(), print);
        taken.map_err(|refused| self.limited((kind, rate, rule), caller, refused, key))
    }

    /// What counts the bytes of a request, if they are limited.
    pub(crate) fn meter(
        self: &Arc<Self>,
        policy: &Policy,
        caller: &Caller,
        repository: Option<&RepositoryName>,
    ) -> Option<Meter> {
        let rules = self.rules.load();
        let (rate, rule) = rules.find(RateKind::Bytes, policy, caller, repository)?;
        Some(Meter {
            key: self.key(RateKind::Bytes, rule, caller),
            rates: self.clone(),
            rate,
            passed: 0,
        })
    }

    fn key(&self, kind: RateKind, rule: Option<&RateOverride>, caller: &Caller) -> u64 {
        self.hasher.hash_one(Key {
            kind,
            rule: rule.map(|rule| (&*rule.on, rule.role.map(super::Role::as_str))),
            principal: Some(&caller.principal),
            place: place(caller.circumstances.address),
        })
    }

    fn limited(
        &self,
        (kind, rate, rule): (RateKind, Rate, Option<&RateOverride>),
        caller: &Caller,
        refused: Refused,
        bucket: u64,
    ) -> Limited {
        if !refused.again {
            self.refused[kind as usize].fetch_add(1, Ordering::Relaxed);
        }
        let seconds = refused.wait.unsigned_abs().div_ceil(1_000_000_000);
        // Not all at once again; and the same for a client that asks again.
        let later = (bucket >> 32) % SPREAD;
        Limited {
            kind,
            retry_after: Duration::from_secs(seconds + later),
            key: RateRules::key(kind, rule),
            rate,
            whose: Whose::new(caller, rule),
        }
    }

    fn now(&self) -> i64 {
        self.clock.steady_ms().saturating_mul(1_000_000)
    }
}

/// Counts the bytes of one body while they pass, and what is left when it is dropped.
#[derive(Debug)]
pub struct Meter {
    rates: Arc<Rates>,
    key: u64,
    rate: Rate,
    passed: u64,
}

impl Meter {
    /// So many bytes have passed.
    pub fn pass(&mut self, bytes: u64) {
        self.passed = self.passed.saturating_add(bytes);
        if self.passed >= STEP {
            self.settle();
        }
    }

    /// Another one for the other direction.
    #[must_use]
    pub fn another(&self) -> Self {
        Self {
            rates: self.rates.clone(),
            key: self.key,
            rate: self.rate,
            passed: 0,
        }
    }

    fn settle(&mut self) {
        let bytes = std::mem::take(&mut self.passed);
        if bytes > 0 {
            let cost = self.rate.cost(bytes);
            let pace = self.rate.pace();
            let now = self.rates.now();
            self.rates.buckets.charge(self.key, now, cost, pace);
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.settle();
    }
}

/// [`one_client`] in few bytes.
fn place(address: Option<IpAddr>) -> Option<(bool, u64)> {
    address.map(|address| match one_client(address) {
        IpAddr::V4(address) => (false, address.to_bits().into()),
        IpAddr::V6(address) => (true, (address.to_bits() >> 64) as u64),
    })
}

#[cfg(test)]
mod tests;
