//! Managing who can sign in: local users, robots with their secrets, API tokens.
//!
//! Called by whoever manages the registry: `server/src/admin` and the API. A request that signs in never comes here; that
//! is [`crate::access`], which is told of each change at once. A secret is given back once, when it is made, and kept as a hash.
//!
//! Whoever asks over the network is let in by the server; here it is seen to that they get no secret of anybody who may more than
//! what they came with ([`Access::stands_above`](crate::access::Access)), and that an API token makes no other.

mod invitation;
mod outside;
mod robot;
#[cfg(test)]
mod tests;
mod token;
mod user;

use wharf_meta::credential::{CredentialRow, Listed};
use wharf_meta::{Meant, principal};

use crate::access::{ChangeError, Limited, NetworkError, Password, PasswordRule, ScopeError};
use crate::access::{SecretKind, hash_secret, new_secret, random_id};
use crate::error::Error;
use crate::registry::Registry;

pub use self::invitation::{
    Invited, NewInvitation, accept_invitation, forget_ended, invite, list_invitations,
    withdraw_invitation,
};
pub use self::outside::{
    AccountRow, Arrival, ArriveError, LONGEST_GROUP, LONGEST_SUBJECT, MOST_ACCOUNTS, MOST_GROUPS,
    accounts_of, arrive, depart, link_account, providers_of, unlink_account,
};
pub(crate) use self::robot::lasts;
pub use self::robot::{
    LONGEST_OVERLAP_MS, MOST_BINDINGS, NewRobot, RobotBinding, RobotChange, change_robot,
    check_robot, create_robot, get_robot, list_robots, remove_robot, rotate_robot,
};
pub use self::token::{
    MOST_TOKENS, NewToken, Owner, create_own_token, create_token, list_tokens, owner_of,
    revoke_token,
};
pub use self::user::{create_user, disable_user, get_user, list_users, remove_user, set_password};
pub use wharf_meta::principal::PrincipalRow;

/// Why somebody was not made or changed.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be meant.
    #[error("{0}")]
    Wrong(String),
    /// There is nobody of that name, or nothing.
    #[error("{0}")]
    Unknown(String),
    /// The name is taken.
    #[error("{0}")]
    Taken(String),
    /// It needs the password of whom it is about, and came with something else.
    #[error("{0}")]
    ByPassword(String),
    /// A password that will not do.
    #[error(transparent)]
    Password(#[from] PasswordRule),
    /// A scope that cannot be meant.
    #[error(transparent)]
    Scope(#[from] ScopeError),
    /// A network that is none.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Somebody changed it since the version that was named.
    #[error("it is another version by now")]
    Differs,
    /// What it holds cannot be taken or given.
    #[error(transparent)]
    Rights(#[from] ChangeError),
    /// Too many tries from that address.
    #[error(transparent)]
    Limited(#[from] Limited),
    /// The metadata store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<wharf_meta::Error> for IdentityError {
    fn from(error: wharf_meta::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Shorthand for results of this module.
pub type Result<T, E = IdentityError> = std::result::Result<T, E>;

/// A secret that was just made. Nobody can be told it again.
#[derive(Debug, Clone)]
pub struct Made {
    /// Under which name to sign in with it.
    pub principal: String,
    /// The name of the secret in lists.
    pub id: String,
    /// The secret.
    pub secret: Password,
    /// When it ends, in ms since 1970.
    pub expires_at: i64,
}

/// A robot's secret or an API token, without the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its name in lists and tokens.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// What it leaves of its principal's rights, `pull,push:team/a`; `None`: all.
    pub scopes: Option<String>,
    /// When it ends, in ms since 1970.
    pub expires_at: Option<i64>,
    /// In ms since 1970.
    pub created_at: i64,
    /// Who made it.
    pub created_by: String,
    /// When it was used last, in ms since 1970, and from where, to the minute.
    pub used: Option<(i64, String)>,
}

impl From<Listed> for Shown {
    fn from((row, used): Listed) -> Self {
        Self {
            id: row.id,
            name: row.name,
            scopes: row.scopes,
            expires_at: row.expires_at,
            created_at: row.created_at,
            created_by: row.created_by,
            used,
        }
    }
}

/// A new secret and its row.
fn make(
    kind: SecretKind,
    principal: &str,
    source: &str,
    by: &str,
    expires_at: i64,
    now: i64,
) -> (Made, CredentialRow) {
    let (id, secret) = (random_id(), new_secret(kind));
    let row = CredentialRow {
        id: id.clone(),
        kind: kind.as_str().into(),
        principal: principal.into(),
        source: source.into(),
        name: String::new(),
        hash: hash_secret(&secret),
        scopes: None,
        expires_at: Some(expires_at),
        created_at: now,
        created_by: by.into(),
    };
    let made = Made {
        principal: principal.into(),
        id,
        secret,
        expires_at,
    };
    (made, row)
}

/// When something ends that is to live so long, in ms; without a wish, `usual`, or the longest if that is shorter.
fn end(registry: &Registry, lifetime: Option<i64>, usual: i64, now: i64) -> Result<i64> {
    let longest = registry.access.longest_lifetime();
    let lifetime = lifetime.unwrap_or(usual.min(longest));
    if lifetime <= 0 {
        return Err(IdentityError::Wrong(
            "its life must be longer than nothing".into(),
        ));
    }
    if lifetime > longest {
        let days = longest / DAY;
        return Err(IdentityError::Wrong(format!(
            "it may live {days} days at most; ask for less, or set auth.longest_lifetime to more"
        )));
    }
    Ok(now + lifetime)
}

/// Changes a row that a principal has; `unknown` says that there is none.
async fn change(
    registry: &Registry,
    change: principal::Change,
    unknown: impl FnOnce(&str) -> IdentityError,
) -> Result<()> {
    let name = change.name.clone();
    let done = registry.meta.write(change).await?;
    registry.access.forget(&name);
    match done {
        principal::Changed::Done => Ok(()),
        principal::Changed::Unknown => Err(unknown(&name)),
        principal::Changed::Differs => Err(IdentityError::Differs),
        principal::Changed::Last(path) => Err(ChangeError::Last(path).into()),
    }
}

/// Removes a principal, if it is the version that is meant, with all that it holds; `unknown` says that there is none.
async fn remove(
    registry: &Registry,
    kind: &str,
    name: &str,
    version: &Meant,
    unknown: impl FnOnce(&str) -> IdentityError,
) -> Result<()> {
    let now = registry.clock.now_ms();
    let gone = registry.access.remove_principal(kind, name, version, now);
    let gone = gone.await;
    registry.access.forget(name);
    match gone? {
        true => Ok(()),
        false => Err(unknown(name)),
    }
}

/// In ms.
const DAY: i64 = 24 * 60 * 60 * 1_000;
