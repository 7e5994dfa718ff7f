//! Groups of users and robots.

use serde_json::{Value, json};

use super::change::Part;
use super::workload::{WORKLOAD, rule_stands};
use super::{By, Changed, GROUP, STEP, begin, binding, end, source, would_orphan};
use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;

/// A group as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    /// The name.
    pub name: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// The principal.
    pub created_by: String,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// The group.
    pub group: String,
    /// `user` or `robot`.
    pub kind: String,
    /// The name.
    pub name: String,
}

/// Groups by name. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct List {
    /// The last one of the page before; `""` at first.
    pub after: String,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for List {}
impl Op for List {
    type Out = Vec<GroupRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT name, created_at, created_by FROM access_group WHERE name > $1 ORDER BY name LIMIT $2",
                vals![&self.after, self.limit],
            )
            .await?;
        rows.into_iter()
            .map(|mut row| {
                Ok(GroupRow {
                    name: row.text(0)?,
                    created_at: row.int(1)?,
                    created_by: row.text(2)?,
                })
            })
            .collect()
    }
}

/// Members of all groups, by group. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct Members {
    /// The last one of the page before.
    pub after: Option<Member>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Members {}
impl Op for Members {
    type Out = Vec<Member>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let (group, kind, name) = match &self.after {
            Some(after) => (&*after.group, &*after.kind, &*after.name),
            None => ("", "", ""),
        };
        let rows = tx
            .query(
                "SELECT group_name, kind, name FROM group_member WHERE (group_name, kind, name) > ($1, $2, $3) \
                 ORDER BY group_name, kind, name LIMIT $4",
                vals![group, kind, name, self.limit],
            )
            .await?;
        rows.into_iter()
            .map(|mut row| {
                Ok(Member {
                    group: row.text(0)?,
                    kind: row.text(1)?,
                    name: row.text(2)?,
                })
            })
            .collect()
    }
}

/// Who is in one group; `None`: there is no such group. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct In {
    /// The group.
    pub group: String,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for In {}
impl Op for In {
    type Out = Option<Vec<Member>>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let there = tx
            .row(
                "SELECT 1 FROM access_group WHERE name = $1",
                vals![&self.group],
            )
            .await?;
        if there.is_none() {
            return Ok(None);
        }
        let rows = tx
            .query(
                "SELECT kind, name FROM group_member WHERE group_name = $1 ORDER BY kind, name LIMIT $2",
                vals![&self.group, self.limit],
            )
            .await?;
        let members: Result<_> = rows
            .into_iter()
            .map(|mut row| {
                Ok(Member {
                    group: self.group.clone(),
                    kind: row.text(0)?,
                    name: row.text(1)?,
                })
            })
            .collect();
        members.map(Some)
    }
}

/// The groups that a user or robot is in. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct Of {
    /// `user` or `robot`.
    pub kind: String,
    /// The name.
    pub name: String,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Of {}
impl Op for Of {
    type Out = Vec<String>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT group_name FROM group_member WHERE kind = $1 AND name = $2 LIMIT $3",
                vals![&self.kind, &self.name, self.limit],
            )
            .await?;
        rows.into_iter().map(|mut row| row.text(0)).collect()
    }
}

/// Whether somebody is in a group. Cost: one row.
#[derive(Clone, Debug)]
pub struct Has {
    /// Who, and where.
    pub member: Member,
}

impl ReadOp for Has {}
impl Op for Has {
    type Out = bool;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let Member { group, kind, name } = &self.member;
        let row = tx
            .row(
                "SELECT 1 FROM group_member WHERE group_name = $1 AND kind = $2 AND name = $3",
                vals![group, kind, name],
            )
            .await?;
        Ok(row.is_some())
    }
}

/// What a change of the group itself is about.
fn part(name: &str) -> Part {
    Part::Subject {
        kind: GROUP.to_owned(),
        name: name.to_owned(),
    }
}

/// Makes a group. Locks the epoch. Cost: three rows.
#[derive(Clone, Debug)]
pub struct Create {
    /// The name.
    pub name: String,
    /// Who makes it.
    pub by: By,
}

impl Op for Create {
    type Out = Changed;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Changed> {
        let epoch = match begin(tx, &self.by).await? {
            Ok(epoch) => epoch,
            Err(kept) => return Ok(kept),
        };
        let made = tx
            .exec(
                "INSERT INTO access_group (name, created_at, created_by) VALUES ($1, $2, $3) ON CONFLICT (name) DO NOTHING",
                vals![&self.name, self.by.at, &self.by.actor],
            )
            .await?;
        if made == 0 {
            return Ok(Changed::Same);
        }
        let payload = json!({"what": "group", "before": null, "after": {"name": self.name}});
        end(tx, epoch, &self.by, "", &[part(&self.name)], payload).await?;
        Ok(Changed::Done)
    }
}

/// Removes a group with its bindings, unless it is the last owner of a namespace or the last administrator. Again while it
/// gives [`Changed::More`]; its rights go with the first time. Locks the epoch. Cost: twice [`STEP`] rows.
#[derive(Clone, Debug)]
pub struct Delete {
    /// The name.
    pub name: String,
    /// Who removes it.
    pub by: By,
}

impl Op for Delete {
    type Out = Changed;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Changed> {
        let epoch = match begin(tx, &self.by).await? {
            Ok(epoch) => epoch,
            Err(kept) => return Ok(kept),
        };
        let there = tx
            .row(
                "SELECT 1 FROM access_group WHERE name = $1",
                vals![&self.name],
            )
            .await?;
        if there.is_none() {
            return Ok(Changed::Unknown);
        }
        if let Some(path) = would_orphan(tx, (GROUP, &self.name), ("", ""), None).await? {
            return Ok(Changed::Last(path));
        }
        let gone = binding::delete_some(tx, GROUP, &self.name).await?;
        let rows = tx
            .query(
                "DELETE FROM group_member WHERE (group_name, kind, name) IN (SELECT group_name, kind, name \
                 FROM group_member WHERE group_name = $1 LIMIT $2) RETURNING kind, name",
                vals![&self.name, STEP],
            )
            .await?;
        let mut left = Vec::with_capacity(rows.len());
        for mut row in rows {
            left.push(format!("{} {}", row.text(0)?, row.text(1)?));
        }
        let sources = source::delete_all(tx, &self.name).await?;
        let more = gone.len().max(left.len()) as i64 >= STEP;
        if !more {
            tx.exec(
                "DELETE FROM access_group WHERE name = $1",
                vals![&self.name],
            )
            .await?;
        }
        let before =
            json!({"name": self.name, "members": left, "bindings": gone, "sources": sources});
        let payload = json!({"what": "group", "before": before, "after": null});
        end(tx, epoch, &self.by, "", &[part(&self.name)], payload).await?;
        Ok(if more { Changed::More } else { Changed::Done })
    }
}

/// Puts somebody into a group. [`Changed::Unknown`]: there is no such group. Locks the epoch. Cost: four rows.
#[derive(Clone, Debug)]
pub struct Add {
    /// Who, and where.
    pub member: Member,
    /// Who does it.
    pub by: By,
}

impl Op for Add {
    type Out = Changed;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Changed> {
        let epoch = match begin(tx, &self.by).await? {
            Ok(epoch) => epoch,
            Err(kept) => return Ok(kept),
        };
        let Member { group, kind, name } = &self.member;
        let there = tx
            .row("SELECT 1 FROM access_group WHERE name = $1", vals![group])
            .await?;
        if there.is_none() {
            return Ok(Changed::Unknown);
        }
        if !rule_stands(tx, kind, name).await? {
            return Ok(Changed::Unknown);
        }
        let made = tx
            .exec(
                "INSERT INTO group_member (group_name, kind, name, added_at, added_by) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (group_name, kind, name) DO NOTHING",
                vals![group, kind, name, self.by.at, &self.by.actor],
            )
            .await?;
        if made == 0 {
            return Ok(Changed::Same);
        }
        let payload = json!({"what": "member", "before": null, "after": member(group, kind, name)});
        let part = Part::Member(self.member.clone());
        end(tx, epoch, &self.by, "", &[part], payload).await?;
        Ok(Changed::Done)
    }
}

/// Takes somebody out of a group, unless a namespace would be left without owner. Locks the epoch. Cost: four rows, and the
/// group's bindings as owner or administrator when it is the last member.
#[derive(Clone, Debug)]
pub struct Remove {
    /// Who, and where.
    pub member: Member,
    /// Who does it.
    pub by: By,
}

impl Op for Remove {
    type Out = Changed;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Changed> {
        let epoch = match begin(tx, &self.by).await? {
            Ok(epoch) => epoch,
            Err(kept) => return Ok(kept),
        };
        let Member { group, kind, name } = &self.member;
        let there = tx
            .row(
                "SELECT 1 FROM group_member WHERE group_name = $1 AND kind = $2 AND name = $3",
                vals![group, kind, name],
            )
            .await?;
        if there.is_none() {
            return Ok(Changed::Unknown);
        }
        // A rule is nobody who could look after anything, so it keeps nothing.
        if kind != WORKLOAD
            && let Some(path) =
                would_orphan(tx, (GROUP, group), ("", ""), Some((kind, name))).await?
        {
            return Ok(Changed::Last(path));
        }
        tx.exec(
            "DELETE FROM group_member WHERE group_name = $1 AND kind = $2 AND name = $3",
            vals![group, kind, name],
        )
        .await?;
        let payload = json!({"what": "member", "before": member(group, kind, name), "after": null});
        let part = Part::Member(self.member.clone());
        end(tx, epoch, &self.by, "", &[part], payload).await?;
        Ok(Changed::Done)
    }
}

fn member(group: &str, kind: &str, name: &str) -> Value {
    json!({"group": group, "kind": kind, "name": name})
}

/// Whether nobody else in the group counts for a path: who is locked out does not, and a robot for its home and what lies below it
/// alone (see `another_holds`).
pub(super) async fn is_last_member<T: Tx>(
    tx: &mut T,
    group: &str,
    who: super::Whom<'_>,
    path: &str,
) -> Result<bool> {
    let other = tx
        .row(
            "SELECT 1 FROM group_member m WHERE m.group_name = $1 AND m.kind <> 'workload' AND NOT (m.kind = $2 AND m.name = $3) AND NOT EXISTS (SELECT \
             1 FROM principal p WHERE p.name = m.name AND p.disabled_at IS NOT NULL) AND (m.kind <> 'robot' OR substr($4 || '/', 1, \
             length(replace(rtrim(m.name, replace(m.name, '+', '')), '+', '/'))) = replace(rtrim(m.name, replace(m.name, '+', '')), \
             '+', '/')) LIMIT 1",
            vals![group, who.0, who.1, path],
        )
        .await?;
    Ok(other.is_none())
}
