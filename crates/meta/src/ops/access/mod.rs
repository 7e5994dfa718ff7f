//! Rights as rows: bindings, groups, roles, namespaces, accounts; one file each.
//!
//! Every change begins with `begin`, which locks the epoch: changes are decided on one after the other, so none can take
//! away what another relies on, and ends with `end`, which counts the epoch up. `core` reads what changed when the epoch is another
//! than the one that it knows, and never for a request. What a role is made of is known to `core`; here only the names of the two that must not run out are.

pub mod account;
pub mod binding;
pub mod change;
pub mod group;
pub mod namespace;
pub mod role;
pub mod source;
pub mod standing;
pub mod workload;

use change::Part;
use serde_json::Value;
use wharf_oci::RepositoryName;

use super::event::{self, Fact, Kind};
use super::setting;
use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;

/// The role of which every namespace that has it keeps one.
pub const OWNER: &str = "owner";
/// The role of which one stays everywhere; also the name of the user that holds it from birth.
pub const ADMIN: &str = "admin";
/// The kind of subjects that are groups.
pub const GROUP: &str = "group";
/// Most rows that one step of a removal takes.
pub const STEP: i64 = 400;

/// The setting that holds the epoch.
const EPOCH: &str = "access.epoch";

/// Which state of the rights there is; 0 before the first change. Cost: one row.
#[derive(Clone, Copy, Debug)]
pub struct Epoch;

impl ReadOp for Epoch {}
impl Op for Epoch {
    type Out = i64;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<i64> {
        let row = tx
            .row("SELECT value FROM setting WHERE key = $1", vals![EPOCH])
            .await?;
        let value = row.map(|mut row| row.text(0)).transpose()?;
        Ok(value.and_then(|value| value.parse().ok()).unwrap_or(0))
    }
}

/// Who changes rights, and what that was decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct By {
    /// The principal.
    pub actor: String,
    /// The epoch of the rights by which the actor may do it; `None`: whoever has the machine may always.
    pub epoch: Option<i64>,
    /// Milliseconds since 1970.
    pub at: i64,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It is done.
    Done,
    /// A part of it is done: again.
    More,
    /// It was so before. Nothing was done.
    Same,
    /// The rights changed since the actor's were looked at: look again. Nothing was done.
    Stale,
    /// There is no such thing. Nothing was done.
    Unknown,
    /// The role is still bound somewhere, the issuer still has rules. Nothing was done.
    InUse,
    /// It is no longer the version that the change is meant for. Nothing was done.
    Differs,
    /// A namespace would be left without owner, or with `""` the registry without administrator. Nothing was done.
    Last(String),
}

/// Locks the epoch and gives it, or what keeps the change from being made.
pub(super) async fn begin<T: Tx>(tx: &mut T, by: &By) -> Result<std::result::Result<i64, Changed>> {
    let epoch = lock(tx).await?;
    Ok(match by.epoch {
        Some(seen) if seen != epoch => Err(Changed::Stale),
        _ => Ok(epoch),
    })
}

/// Locks the epoch and gives it.
pub(super) async fn lock<T: Tx>(tx: &mut T) -> Result<i64> {
    Ok(setting::lock(tx, EPOCH).await?.parse().unwrap_or(0))
}

/// Counts the epoch up, and records what changed, and on which path: `""` is everywhere.
async fn end<T: Tx>(
    tx: &mut T,
    epoch: i64,
    by: &By,
    on: &str,
    parts: &[Part],
    payload: Value,
) -> Result<()> {
    tx.exec(
        "UPDATE setting SET value = $2 WHERE key = $1",
        vals![EPOCH, &(epoch + 1).to_string()],
    )
    .await?;
    change::note(tx, epoch + 1, by, parts).await?;
    let on = RepositoryName::parse(on).ok();
    let fact = Fact {
        kind: Kind::AccessChange,
        repository: on.as_ref(),
        digest: None,
        tag: None,
        actor: &by.actor,
        at: by.at,
        payload,
    };
    event::record(tx, fact).await
}

/// A user or robot, or a group: kind and name.
type Whom<'a> = (&'a str, &'a str);

/// Whether somebody else than `whom` holds the role on exactly this path without any condition, when `leaving` is no longer
/// there. Who is locked out does not count; a group counts while somebody is in it who does, and a robot there for its home and
/// what lies below it (`rtrim` leaves of its name all up to the `+`).
async fn another_holds<T: Tx>(
    tx: &mut T,
    role: &str,
    namespace: &str,
    whom: Whom<'_>,
    leaving: Whom<'_>,
) -> Result<bool> {
    let held = tx
        .row(
            "SELECT 1 FROM access_binding b WHERE b.role = $1 AND b.namespace = $2 AND b.networks = '' AND b.tags = '' \
             AND b.sign_in = '' AND b.expires_at = 0 AND NOT (b.kind = $3 AND b.name = $4) AND NOT (b.kind = $5 AND b.name = \
             $6) AND (b.kind IN ('user', 'robot') AND NOT EXISTS (SELECT 1 FROM principal p WHERE p.name = b.name AND \
             p.disabled_at IS NOT NULL) OR b.kind = 'group' AND EXISTS (SELECT 1 FROM group_member m WHERE m.group_name = \
             b.name AND m.kind <> 'workload' AND NOT (m.kind = $5 AND m.name = $6) AND NOT EXISTS (SELECT 1 FROM principal p WHERE p.name = m.name \
             AND p.disabled_at IS NOT NULL) AND (m.kind <> 'robot' OR substr($2 || '/', 1, length(replace(rtrim(m.name, \
             replace(m.name, '+', '')), '+', '/'))) = replace(rtrim(m.name, replace(m.name, '+', '')), '+', '/')))) LIMIT 1",
            vals![role, namespace, whom.0, whom.1, leaving.0, leaving.1],
        )
        .await?;
    let born = ("user", ADMIN);
    if held.is_some() || role != ADMIN || !namespace.is_empty() || whom == born || leaving == born {
        return Ok(held.is_some());
    }
    // Who was made at the first start holds it without a binding.
    let born = tx
        .row(
            "SELECT 1 FROM principal WHERE name = $1 AND kind = 'user' AND disabled_at IS NULL",
            vals![ADMIN],
        )
        .await?;
    Ok(born.is_some())
}

/// The first path that would have nobody left in a role that must not run out, if `whom` held nothing any more and `leaving`
/// were gone. With `member`, `whom` is a group that keeps what others in it than this one look after. Looks at bindings without
/// conditions alone: what may end by itself keeps nothing.
async fn would_orphan<T: Tx>(
    tx: &mut T,
    whom: Whom<'_>,
    leaving: Whom<'_>,
    member: Option<Whom<'_>>,
) -> Result<Option<String>> {
    for role in [OWNER, ADMIN] {
        let rows = tx
            .query(
                "SELECT namespace FROM access_binding WHERE kind = $1 AND name = $2 AND role = $3 AND networks = '' \
                 AND tags = '' AND sign_in = '' AND expires_at = 0 ORDER BY namespace",
                vals![whom.0, whom.1, role],
            )
            .await?;
        for mut row in rows {
            let path = row.text(0)?;
            if !must_stay(role, &path) {
                continue;
            }
            let kept = match member {
                Some(member) => !group::is_last_member(tx, whom.1, member, &path).await?,
                None => false,
            };
            if !kept && !another_holds(tx, role, &path, whom, leaving).await? {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

/// The first path that would have nobody left if this user or robot were removed or locked out, by what it holds itself, by
/// what its groups hold, and by birth. To be called with the epoch locked, so that of two who go together the second
/// is seen to be the last.
async fn needed<T: Tx>(tx: &mut T, who: Whom<'_>) -> Result<Option<String>> {
    if who == ("user", ADMIN) && !another_holds(tx, ADMIN, "", who, who).await? {
        return Ok(Some(String::new()));
    }
    if let Some(path) = would_orphan(tx, who, who, None).await? {
        return Ok(Some(path));
    }
    let groups = tx
        .query(
            "SELECT m.group_name FROM group_member m WHERE m.kind = $1 AND m.name = $2 AND EXISTS (SELECT 1 FROM \
             access_binding b WHERE b.kind = 'group' AND b.name = m.group_name AND b.role IN ('owner', 'admin')) ORDER BY \
             m.group_name",
            vals![who.0, who.1],
        )
        .await?;
    for mut row in groups {
        let group = row.text(0)?;
        if let Some(path) = would_orphan(tx, (GROUP, &group), who, Some(who)).await? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

/// Locks the epoch for a change that is none of rights, and gives the first path that would have nobody left without this user
/// or robot.
pub(super) async fn last_of<T: Tx>(tx: &mut T, kind: &str, name: &str) -> Result<Option<String>> {
    lock(tx).await?;
    needed(tx, (kind, name)).await
}

/// Whether the last one in this role on this path stays.
fn must_stay(role: &str, namespace: &str) -> bool {
    match role {
        OWNER => !namespace.is_empty(),
        ADMIN => namespace.is_empty(),
        _ => false,
    }
}
