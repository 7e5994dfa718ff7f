//! Where groups get members from outside: whoever's account is in a group of a provider is in the group here that names it.

use serde_json::{Value, json};

use super::change::Part;
use super::{By, Changed, GROUP, begin, end};
use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;

/// Most sources of one group.
pub const MOST_SOURCES: u32 = 20;

/// A source of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The group here.
    pub group: String,
    /// The provider.
    pub provider: String,
    /// The provider's group.
    pub name: String,
}

/// Sources of all groups, by group. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct List {
    /// The last one of the page before.
    pub after: Option<Source>,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for List {}
impl Op for List {
    type Out = Vec<Source>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let (group, provider, name) = match &self.after {
            Some(after) => (&*after.group, &*after.provider, &*after.name),
            None => ("", "", ""),
        };
        let rows = tx
            .query(
                "SELECT group_name, provider, name FROM group_source WHERE (group_name, provider, name) > ($1, $2, $3) \
                 ORDER BY group_name, provider, name LIMIT $4",
                vals![group, provider, name, self.limit],
            )
            .await?;
        let rows = rows.into_iter();
        rows.map(|mut row| {
            Ok(Source {
                group: row.text(0)?,
                provider: row.text(1)?,
                name: row.text(2)?,
            })
        })
        .collect()
    }
}

/// The sources of one group. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct Of {
    /// The group.
    pub group: String,
}

impl ReadOp for Of {}
impl Op for Of {
    type Out = Vec<Source>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT provider, name FROM group_source WHERE group_name = $1 ORDER BY provider, name LIMIT $2",
                vals![&self.group, MOST_SOURCES],
            )
            .await?;
        let rows = rows.into_iter();
        rows.map(|mut row| {
            Ok(Source {
                group: self.group.clone(),
                provider: row.text(0)?,
                name: row.text(1)?,
            })
        })
        .collect()
    }
}

fn told(source: &Source) -> Value {
    json!({"group": source.group, "provider": source.provider, "name": source.name})
}

fn part(source: &Source) -> Part {
    Part::Subject {
        kind: GROUP.to_owned(),
        name: source.group.clone(),
    }
}

/// Gives a group another source. [`Changed::Unknown`]: there is no such group; [`Changed::InUse`]: it has [`MOST_SOURCES`]. Locks the
/// epoch. Cost: the group's sources.
#[derive(Clone, Debug)]
pub struct Put {
    /// It.
    pub source: Source,
    /// Who does it.
    pub by: By,
}

impl Op for Put {
    type Out = Changed;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Changed> {
        let epoch = match begin(tx, &self.by).await? {
            Ok(epoch) => epoch,
            Err(kept) => return Ok(kept),
        };
        let Source {
            group,
            provider,
            name,
        } = &self.source;
        let there = tx
            .row("SELECT 1 FROM access_group WHERE name = $1", vals![group])
            .await?;
        if there.is_none() {
            return Ok(Changed::Unknown);
        }
        let group = group.clone();
        let had = Of { group }.run(tx).await?;
        if had.contains(&self.source) {
            return Ok(Changed::Same);
        }
        if had.len() >= MOST_SOURCES as usize {
            return Ok(Changed::InUse);
        }
        tx.exec(
            "INSERT INTO group_source (group_name, provider, name, added_at, added_by) VALUES ($1, $2, $3, $4, $5)",
            vals![&self.source.group, provider, name, self.by.at, &self.by.actor],
        )
        .await?;
        let payload = json!({"what": "source", "before": null, "after": told(&self.source)});
        end(tx, epoch, &self.by, "", &[part(&self.source)], payload).await?;
        Ok(Changed::Done)
    }
}

/// Takes a source from a group; whoever was in it by that alone leaves it. Locks the epoch. Cost: four rows.
#[derive(Clone, Debug)]
pub struct Delete {
    /// It.
    pub source: Source,
    /// Who does it.
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
        let Source {
            group,
            provider,
            name,
        } = &self.source;
        let gone = tx
            .exec(
                "DELETE FROM group_source WHERE group_name = $1 AND provider = $2 AND name = $3",
                vals![group, provider, name],
            )
            .await?;
        if gone == 0 {
            return Ok(Changed::Unknown);
        }
        let payload = json!({"what": "source", "before": told(&self.source), "after": null});
        end(tx, epoch, &self.by, "", &[part(&self.source)], payload).await?;
        Ok(Changed::Done)
    }
}

/// Takes all sources from a group that goes; gives them as text.
pub(super) async fn delete_all<T: Tx>(tx: &mut T, group: &str) -> Result<Vec<String>> {
    let rows = tx
        .query(
            "DELETE FROM group_source WHERE group_name = $1 RETURNING provider, name",
            vals![group],
        )
        .await?;
    let rows = rows.into_iter();
    rows.map(|mut row| Ok(format!("{}:{}", row.text(0)?, row.text(1)?)))
        .collect()
}
