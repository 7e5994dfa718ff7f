//! How much each client may ask for, as the configuration says it.

use std::fmt;

use wharf_oci::RepositoryName;

use super::super::policy::Policy;
use super::super::principal::Caller;
use super::super::role::{Permission, Role};
use super::bucket::Refill;

/// The longest time in which a bucket may refill: 73 years, in ns.
const LONGEST: u128 = i64::MAX as u128 / 4;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RateKind {
    /// Passwords that have to be computed.
    SignIn,
    /// Requests for tokens.
    Token,
    /// Requests that change nothing.
    Reads,
    /// Requests that may change something.
    Writes,
    /// Bytes of bodies, in both directions.
    Bytes,
}

impl RateKind {
    /// All of them, as they stand in the configuration.
    pub const ALL: [Self; 5] = [
        Self::SignIn,
        Self::Token,
        Self::Reads,
        Self::Writes,
        Self::Bytes,
    ];

    /// The key in the configuration, and the label in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SignIn => "sign_in",
            Self::Token => "token",
            Self::Reads => "reads",
            Self::Writes => "writes",
            Self::Bytes => "bytes",
        }
    }

    /// For messages.
    pub(super) const fn what(self) -> &'static str {
        match self {
            Self::SignIn => "passwords to check from this address",
            Self::Token => "requests for tokens from this client",
            Self::Reads => "requests that read from this client",
            Self::Writes => "requests that write from this client",
            Self::Bytes => "bytes for this client",
        }
    }
}

/// The time to which a rate refers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Per {
    /// `/s`
    Second,
    /// `/m`
    Minute,
    /// `/h`
    Hour,
}

impl Per {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Second, Self::Minute, Self::Hour];

    /// The letter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
        }
    }

    const fn nanos(self) -> u128 {
        match self {
            Self::Second => 1_000_000_000,
            Self::Minute => 60_000_000_000,
            Self::Hour => 3_600_000_000_000,
        }
    }
}

/// So many in each second, minute or hour, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    count: u64,
    per: Per,
    burst: u64,
}

impl Rate {
    /// `None` when one of the numbers is 0, or what was used at once would take a lifetime to come back.
    pub fn new(count: u64, per: Per, burst: u64) -> Option<Self> {
        let rate = Self { count, per, burst };
        let fits = count > 0 && burst > 0 && u128::from(burst) * rate.nanos(1) <= LONGEST;
        fits.then_some(rate)
    }

    /// How many in each [`Rate::per`].
    pub const fn count(self) -> u64 {
        self.count
    }

    /// The time to which the count refers.
    pub const fn per(self) -> Per {
        self.per
    }

    /// How many at once.
    pub const fn burst(self) -> u64 {
        self.burst
    }

    /// Time in which so many come back, in ns, rounded up: never more than the rate.
    fn nanos(self, number: u64) -> u128 {
        (u128::from(number) * self.per.nanos()).div_ceil(u128::from(self.count.max(1)))
    }

    /// The same, as far as the clock goes.
    pub(super) fn cost(self, number: u64) -> i64 {
        i64::try_from(self.nanos(number)).unwrap_or(i64::MAX)
    }

    /// Time in which all comes back when it is taken one by one.
    pub(super) fn whole(self) -> i64 {
        i64::try_from(u128::from(self.burst) * self.nanos(1)).unwrap_or(i64::MAX)
    }
}

impl Rate {
    /// Time in which a million come back, in ns: more are counted in bytes than there are nanoseconds.
    pub(super) fn pace(self) -> i64 {
        self.cost(1_000_000)
    }

    pub(super) fn refill(self) -> Refill {
        Refill {
            whole: self.whole(),
            pace: self.pace(),
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.count, self.per.as_str())?;
        match self.burst == self.count {
            true => Ok(()),
            false => write!(out, " burst {}", self.burst),
        }
    }
}

/// Other rates for some.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RateOverride {
    /// In repositories below this prefix; `""`: wherever.
    pub on: String,
    /// For whoever holds this role there, or more.
    pub role: Option<Role>,
    /// `None`: no other rate than without this. `Some(None)`: no limit.
    pub token: Option<Option<Rate>>,
    /// The same.
    pub reads: Option<Option<Rate>>,
    /// The same.
    pub writes: Option<Option<Rate>>,
    /// The same.
    pub bytes: Option<Option<Rate>>,
}

impl RateOverride {
    const fn of(&self, kind: RateKind) -> Option<Option<Rate>> {
        match kind {
            RateKind::SignIn => None,
            RateKind::Token => self.token,
            RateKind::Reads => self.reads,
            RateKind::Writes => self.writes,
            RateKind::Bytes => self.bytes,
        }
    }

    /// What decides between two that both apply: the longer prefix, then the stronger role.
    fn weight(&self) -> (usize, u32) {
        let permissions = |role: Role| role.permissions().iter().count() as u32;
        (self.on.len(), self.role.map_or(0, permissions))
    }

    fn applies(
        &self,
        kind: RateKind,
        policy: &Policy,
        caller: &Caller,
        repository: Option<&RepositoryName>,
    ) -> bool {
        if kind == RateKind::Token && !self.on.is_empty() {
            // A token is for any number of repositories: what one may do on this one counts.
            let on = RepositoryName::parse(&self.on).ok();
            let role = self.role.unwrap_or(Role::Reader);
            return on.is_some() && holds(policy, caller, role, on.as_ref());
        }
        let below = self.on.is_empty() || repository.is_some_and(|name| name.is_within(&self.on));
        below
            && self
                .role
                .is_none_or(|role| holds(policy, caller, role, repository))
    }

    fn key(&self, kind: RateKind) -> String {
        let mut named = Vec::new();
        if !self.on.is_empty() {
            named.push(format!("on = {:?}", self.on));
        }
        if let Some(role) = self.role {
            named.push(format!("role = {:?}", role.as_str()));
        }
        let which = named.join(", ");
        format!(
            "{} in the [[rate_limits.override]] with {which}",
            kind.as_str()
        )
    }
}

/// Whether somebody has all that a role is made of.
fn holds(
    policy: &Policy,
    caller: &Caller,
    role: Role,
    repository: Option<&RepositoryName>,
) -> bool {
    let mut permissions = role.permissions().iter().filter(|permission| {
        // Without a repository that asks whether there is anything to list.
        *permission != Permission::Catalog || repository.is_some()
    });
    permissions.all(|permission| policy.allow(caller, permission, repository))
}

/// All rates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateRules {
    /// By address.
    pub sign_in: Option<Rate>,
    /// By principal and address, as all that follow.
    pub token: Option<Rate>,
    /// Of `/v2` and `/api/v1`.
    pub reads: Option<Rate>,
    /// Of `/v2` and `/api/v1`.
    pub writes: Option<Rate>,
    /// Of `/v2` and `/api/v1`.
    pub bytes: Option<Rate>,
    /// In any order.
    pub overrides: Vec<RateOverride>,
}

impl Default for RateRules {
    /// A rollout to 500 nodes behind one address passes all of them.
    fn default() -> Self {
        Self {
            sign_in: Rate::new(120, Per::Minute, 1_000),
            token: Rate::new(100, Per::Second, 6_000),
            reads: Rate::new(1_000, Per::Second, 60_000),
            writes: Rate::new(200, Per::Second, 12_000),
            bytes: None,
            overrides: Vec::new(),
        }
    }
}

impl RateRules {
    /// Nothing is limited.
    pub const OFF: Self = Self {
        sign_in: None,
        token: None,
        reads: None,
        writes: None,
        bytes: None,
        overrides: Vec::new(),
    };

    /// The same, with what decides first in front.
    pub(super) fn in_order(mut self) -> Self {
        self.overrides
            .sort_by_key(|rule| std::cmp::Reverse(rule.weight()));
        self
    }

    const fn plain(&self, kind: RateKind) -> Option<Rate> {
        match kind {
            RateKind::SignIn => self.sign_in,
            RateKind::Token => self.token,
            RateKind::Reads => self.reads,
            RateKind::Writes => self.writes,
            RateKind::Bytes => self.bytes,
        }
    }

    /// The rate for somebody at some repository, and the override that it comes from.
    pub(super) fn find(
        &self,
        kind: RateKind,
        policy: &Policy,
        caller: &Caller,
        repository: Option<&RepositoryName>,
    ) -> Option<(Rate, Option<&RateOverride>)> {
        let overrides = self.overrides.iter();
        let mut fitting = overrides.filter_map(|rule| Some((rule.of(kind)?, rule)));
        match fitting.find(|(_, rule)| rule.applies(kind, policy, caller, repository)) {
            Some((rate, rule)) => Some((rate?, Some(rule))),
            None => Some((self.plain(kind)?, None)),
        }
    }

    /// Where a rate stands in the configuration.
    pub(super) fn key(kind: RateKind, rule: Option<&RateOverride>) -> String {
        match rule {
            Some(rule) => rule.key(kind),
            None => format!("rate_limits.{}", kind.as_str()),
        }
    }
}
