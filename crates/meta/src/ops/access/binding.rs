//! Bindings: who has which role on which namespace, under what conditions.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use wharf_oci::RepositoryName;

use super::change::Part;
use super::workload::rule_stands;
use super::{By, Changed, GROUP, STEP, account, another_holds, begin, end, must_stay, needed};
use crate::error::Result;
use crate::ops::event;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::Row;

/// A binding. All of it is its key: one with a condition stands beside one without.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Binding {
    /// A repository's name or a prefix of it on `/` borders; `""` is everywhere.
    pub namespace: String,
    /// `user`, `robot`, `group`, `anonymous` or `signed-in`.
    pub kind: String,
    /// Whose; `""` for the last two kinds.
    pub name: String,
    /// The role's name.
    pub role: String,
    /// Networks in CIDR form, separated by commas; `""`: from anywhere.
    pub networks: String,
    /// A pattern of tags; `""`: all.
    pub tags: String,
    /// A way to sign in; `""`: any.
    pub sign_in: String,
    /// Milliseconds since 1970; 0: never.
    pub expires_at: i64,
}

impl Binding {
    fn unconditional(&self) -> bool {
        self.networks.is_empty()
            && self.tags.is_empty()
            && self.sign_in.is_empty()
            && self.expires_at == 0
    }

    /// What a change of it is about.
    fn part(&self) -> Part {
        Part::Bindings {
            namespace: self.namespace.clone(),
            kind: self.kind.clone(),
            name: self.name.clone(),
        }
    }

    fn told(&self) -> Value {
        json!({
            "namespace": self.namespace,
            "kind": self.kind,
            "name": self.name,
            "role": self.role,
            "networks": self.networks,
            "tags": self.tags,
            "sign_in": self.sign_in,
            "expires_at": self.expires_at,
        })
    }
}

/// A binding as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingRow {
    /// What it says.
    pub binding: Binding,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// The principal.
    pub created_by: String,
}

fn binding(row: &mut Row) -> Result<Binding> {
    Ok(Binding {
        namespace: row.text(0)?,
        kind: row.text(1)?,
        name: row.text(2)?,
        role: row.text(3)?,
        networks: row.text(4)?,
        tags: row.text(5)?,
        sign_in: row.text(6)?,
        expires_at: row.int(7)?,
    })
}

/// Bindings in the order of their parts. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct List {
    /// The last one of the page before.
    pub after: Option<Binding>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for List {}
impl Op for List {
    type Out = Vec<BindingRow>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        // No kind is empty: all are greater than nothing.
        let first = Binding::default();
        let at = self.after.as_ref().unwrap_or(&first);
        let rows = tx
            .query(
                "SELECT namespace, kind, name, role, networks, tags, sign_in, expires_at, created_at, created_by \
                 FROM access_binding \
                 WHERE (namespace, kind, name, role, networks, tags, sign_in, expires_at) > ($1, $2, $3, $4, $5, $6, $7, $8) \
                 ORDER BY namespace, kind, name, role, networks, tags, sign_in, expires_at LIMIT $9",
                vals![
                    &at.namespace, &at.kind, &at.name, &at.role, &at.networks, &at.tags, &at.sign_in, at.expires_at, self.limit
                ],
            )
            .await?;
        rows.into_iter().map(stored).collect()
    }
}

fn stored(mut row: Row) -> Result<BindingRow> {
    Ok(BindingRow {
        binding: binding(&mut row)?,
        created_at: row.int(8)?,
        created_by: row.text(9)?,
    })
}

/// Bindings on exactly one path, of one subject if one is named. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct On {
    /// The path.
    pub namespace: String,
    /// Kind and name; `None`: all subjects.
    pub subject: Option<(String, String)>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for On {}
impl Op for On {
    type Out = Vec<BindingRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = match &self.subject {
            Some((kind, name)) => {
                tx.query(
                    "SELECT namespace, kind, name, role, networks, tags, sign_in, expires_at, created_at, created_by \
                     FROM access_binding WHERE namespace = $1 AND kind = $2 AND name = $3 \
                     ORDER BY role, networks, tags, sign_in, expires_at LIMIT $4",
                    vals![&self.namespace, kind, name, self.limit],
                )
                .await?
            }
            None => {
                tx.query(
                    "SELECT namespace, kind, name, role, networks, tags, sign_in, expires_at, created_at, created_by \
                     FROM access_binding WHERE namespace = $1 \
                     ORDER BY kind, name, role, networks, tags, sign_in, expires_at LIMIT $2",
                    vals![&self.namespace, self.limit],
                )
                .await?
            }
        };
        rows.into_iter().map(stored).collect()
    }
}

/// Bindings of one subject, wherever, in no order. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct Of {
    /// The kind.
    pub kind: String,
    /// The name.
    pub name: String,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Of {}
impl Op for Of {
    type Out = Vec<BindingRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT namespace, kind, name, role, networks, tags, sign_in, expires_at, created_at, created_by \
                 FROM access_binding WHERE kind = $1 AND name = $2 LIMIT $3",
                vals![&self.kind, &self.name, self.limit],
            )
            .await?;
        rows.into_iter().map(stored).collect()
    }
}

/// Makes a binding. [`Changed::Unknown`]: there is no such group, rule on workloads, or role. Locks the epoch. Cost: five rows.
#[derive(Clone, Debug)]
pub struct Put {
    /// The binding.
    pub binding: Binding,
    /// Whether its role is one of those in rows, and must be there.
    pub custom_role: bool,
    /// Who makes it.
    pub by: By,
}

impl Op for Put {
    type Out = Changed;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Changed> {
        let epoch = match begin(tx, &self.by).await? {
            Ok(epoch) => epoch,
            Err(kept) => return Ok(kept),
        };
        let it = &self.binding;
        if it.kind == GROUP {
            let group = tx
                .row(
                    "SELECT 1 FROM access_group WHERE name = $1",
                    vals![&it.name],
                )
                .await?;
            if group.is_none() {
                return Ok(Changed::Unknown);
            }
        }
        if !rule_stands(tx, &it.kind, &it.name).await? {
            return Ok(Changed::Unknown);
        }
        if self.custom_role {
            let role = tx
                .row("SELECT 1 FROM access_role WHERE name = $1", vals![&it.role])
                .await?;
            if role.is_none() {
                return Ok(Changed::Unknown);
            }
        }
        let made = tx
            .exec(
                "INSERT INTO access_binding (namespace, kind, name, role, networks, tags, sign_in, expires_at, created_at, \
                 created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
                 ON CONFLICT (namespace, kind, name, role, networks, tags, sign_in, expires_at) DO NOTHING",
                vals![
                    &it.namespace, &it.kind, &it.name, &it.role, &it.networks, &it.tags, &it.sign_in, it.expires_at,
                    self.by.at, &self.by.actor
                ],
            )
            .await?;
        if made == 0 {
            return Ok(Changed::Same);
        }
        let payload = json!({"what": "binding", "before": null, "after": it.told()});
        end(tx, epoch, &self.by, &it.namespace, &[it.part()], payload).await?;
        Ok(Changed::Done)
    }
}

/// Removes a binding, unless it is the last of its kind. Locks the epoch. Cost: five rows.
#[derive(Clone, Debug)]
pub struct Delete {
    /// The binding.
    pub binding: Binding,
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
        let it = &self.binding;
        let key = vals![
            &it.namespace,
            &it.kind,
            &it.name,
            &it.role,
            &it.networks,
            &it.tags,
            &it.sign_in,
            it.expires_at
        ];
        let there = tx
            .row(
                "SELECT 1 FROM access_binding WHERE namespace = $1 AND kind = $2 AND name = $3 AND role = $4 \
                 AND networks = $5 AND tags = $6 AND sign_in = $7 AND expires_at = $8",
                key,
            )
            .await?;
        if there.is_none() {
            return Ok(Changed::Unknown);
        }
        if must_stay(&it.role, &it.namespace)
            && it.unconditional()
            && !another_holds(tx, &it.role, &it.namespace, (&it.kind, &it.name), ("", "")).await?
        {
            return Ok(Changed::Last(it.namespace.clone()));
        }
        tx.exec(
            "DELETE FROM access_binding WHERE namespace = $1 AND kind = $2 AND name = $3 AND role = $4 \
             AND networks = $5 AND tags = $6 AND sign_in = $7 AND expires_at = $8",
            key,
        )
        .await?;
        let payload = json!({"what": "binding", "before": it.told(), "after": null});
        end(tx, epoch, &self.by, &it.namespace, &[it.part()], payload).await?;
        Ok(Changed::Done)
    }
}

/// Removes all that a user or robot holds, and its memberships, before the principal itself goes: whoever gets the name later
/// begins with nothing. Refused where nobody would be left. Again while it gives [`Changed::More`]. Locks the epoch. Cost:
/// [`STEP`] rows.
#[derive(Clone, Debug)]
pub struct DeleteOf {
    /// `user` or `robot`.
    pub kind: String,
    /// The name.
    pub name: String,
    /// Who removes it.
    pub by: By,
}

impl Op for DeleteOf {
    type Out = Changed;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Changed> {
        let epoch = match begin(tx, &self.by).await? {
            Ok(epoch) => epoch,
            Err(kept) => return Ok(kept),
        };
        let (kind, name) = (&*self.kind, &*self.name);
        Going { kind, name }.take(tx, epoch, &self.by).await
    }
}

/// A user or robot that is about to go.
pub(in crate::ops) struct Going<'a> {
    pub(in crate::ops) kind: &'a str,
    pub(in crate::ops) name: &'a str,
}

impl Going<'_> {
    /// Takes what it holds, with the epoch locked.
    pub(in crate::ops) async fn take<T: Tx>(
        &self,
        tx: &mut T,
        epoch: i64,
        by: &By,
    ) -> Result<Changed> {
        let (kind, name) = (self.kind, self.name);
        if let Some(path) = needed(tx, (kind, name)).await? {
            return Ok(Changed::Last(path));
        }
        let groups = tx
            .query(
                "SELECT group_name FROM group_member WHERE kind = $1 AND name = $2 ORDER BY group_name LIMIT $3",
                vals![kind, name, STEP],
            )
            .await?;
        let mut left = Vec::new();
        for mut row in groups {
            left.push(row.text(0)?);
        }
        for group in &left {
            tx.exec(
                "DELETE FROM group_member WHERE group_name = $1 AND kind = $2 AND name = $3",
                vals![group, kind, name],
            )
            .await?;
        }
        let gone = delete_some(tx, kind, name).await?;
        let accounts = match kind {
            "user" => account::delete_of(tx, name).await?,
            _ => Vec::new(),
        };
        if left.is_empty() && gone.is_empty() && accounts.is_empty() {
            return Ok(Changed::Same);
        }
        let all = left.len() + gone.len();
        let before = json!({"kind": kind, "name": name, "groups": left, "bindings": gone, "accounts": accounts});
        let payload = json!({"what": "all of a principal", "before": before, "after": null});
        let namespace = event::namespace_of(kind, name);
        let on = namespace.as_ref().map_or("", RepositoryName::as_str);
        let part = Part::Subject {
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        end(tx, epoch, by, on, &[part], payload).await?;
        Ok(match all as i64 >= STEP {
            true => Changed::More,
            false => Changed::Done,
        })
    }
}

/// Removes bindings that ended before a time, [`STEP`] at most: they give nothing. Again while it gives [`Changed::More`]. Locks the
/// epoch. Cost: their rows.
#[derive(Clone, Debug)]
pub struct DeleteEnded {
    /// Milliseconds since 1970.
    pub before: i64,
    /// Who removes them.
    pub by: By,
}

impl Op for DeleteEnded {
    type Out = Changed;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Changed> {
        let epoch = match begin(tx, &self.by).await? {
            Ok(epoch) => epoch,
            Err(kept) => return Ok(kept),
        };
        let rows = tx
            .query(
                "DELETE FROM access_binding WHERE (namespace, kind, name, role, networks, tags, sign_in, expires_at) IN (SELECT \
                 namespace, kind, name, role, networks, tags, sign_in, expires_at FROM access_binding WHERE expires_at > 0 \
                 AND expires_at < $1 ORDER BY expires_at LIMIT $2) RETURNING namespace, kind, name, role, networks, tags, sign_in, \
                 expires_at",
                vals![self.before, STEP],
            )
            .await?;
        if rows.is_empty() {
            return Ok(Changed::Same);
        }
        let more = rows.len() as i64 >= STEP;
        let rows = rows.into_iter().map(|mut row| binding(&mut row));
        let gone = rows.collect::<Result<Vec<_>>>()?;
        let parts: BTreeSet<Part> = gone.iter().map(Binding::part).collect();
        let parts: Vec<Part> = parts.into_iter().collect();
        let before: Vec<Value> = gone.iter().map(Binding::told).collect();
        let payload = json!({"what": "bindings that have ended", "before": before, "after": null});
        end(tx, epoch, &self.by, "", &parts, payload).await?;
        Ok(match more {
            true => Changed::More,
            false => Changed::Done,
        })
    }
}

/// Removes bindings of a subject, [`STEP`] at most; tells of each the role and where.
pub(super) async fn delete_some<T: Tx>(tx: &mut T, kind: &str, name: &str) -> Result<Vec<Value>> {
    let rows = tx
        .query(
            "DELETE FROM access_binding WHERE (namespace, kind, name, role, networks, tags, sign_in, expires_at) IN (SELECT \
             namespace, kind, name, role, networks, tags, sign_in, expires_at FROM access_binding WHERE kind = $1 \
             AND name = $2 LIMIT $3) RETURNING namespace, kind, name, role, networks, tags, sign_in, expires_at",
            vals![kind, name, STEP],
        )
        .await?;
    told(rows)
}

/// Rows of bindings, as the audit log shows them.
pub(super) fn told(rows: Vec<Row>) -> Result<Vec<Value>> {
    let rows = rows.into_iter();
    rows.map(|mut row| Ok(binding(&mut row)?.told())).collect()
}
