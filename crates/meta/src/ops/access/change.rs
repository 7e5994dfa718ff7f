//! What each change of rights was about, so that who knows the rights before it reads that alone, and not all of them.
//!
//! Written by every change, in its transaction; read by whoever finds another epoch. An entry names a part of the rights, and the
//! reader takes that part as it is now: whether something came, went or became another thing, and in how many steps, is no
//! matter. Where entries are missing, since they are older than the last [`KEPT`] changes, or since a version that writes none
//! changed something, everything is read.

use super::By;
use super::group::Member;
use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::Row;

/// So many changes are kept.
pub const KEPT: i64 = 1_000;
/// A change that is about more parts than this is about all.
pub const MOST_PARTS: usize = 50;

/// A part of the rights.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// A role, by name.
    Role(String),
    /// Everything.
    All,
    /// Whether a group is there and who is in it, or the groups that a user or robot is in; and all its bindings.
    Subject {
        /// `user`, `robot` or `group`.
        kind: String,
        /// The name.
        name: String,
    },
    /// Whether somebody is in a group.
    Member(Member),
    /// The settings of a namespace, by path.
    Visibility(String),
    /// The settings of a namespace, and the bindings on exactly its path.
    Namespace(String),
    /// The bindings of one subject on exactly one path.
    Bindings {
        /// The path.
        namespace: String,
        /// The subject's kind.
        kind: String,
        /// Its name.
        name: String,
    },
}

impl Part {
    fn row(&self) -> (&'static str, &str, &str, &str) {
        match self {
            Self::Role(name) => ("role", "", "", name),
            Self::All => ("all", "", "", ""),
            Self::Subject { kind, name } => ("subject", "", kind, name),
            Self::Member(member) => ("member", &member.group, &member.kind, &member.name),
            Self::Visibility(path) => ("visibility", path, "", ""),
            Self::Namespace(path) => ("namespace", path, "", ""),
            Self::Bindings {
                namespace,
                kind,
                name,
            } => ("bindings", namespace, kind, name),
        }
    }

    fn read(row: &mut Row) -> Result<Self> {
        let part = row.text(2)?;
        let (place, kind, name) = (row.text(3)?, row.text(4)?, row.text(5)?);
        Ok(match &*part {
            "role" => Self::Role(name),
            "subject" => Self::Subject { kind, name },
            "member" => Self::Member(Member {
                group: place,
                kind,
                name,
            }),
            "visibility" => Self::Visibility(place),
            "namespace" => Self::Namespace(place),
            "bindings" => Self::Bindings {
                namespace: place,
                kind,
                name,
            },
            // What a newer version says may be about anything.
            _ => Self::All,
        })
    }
}

/// What a change was about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The epoch that the change made.
    pub epoch: i64,
    /// When, in milliseconds since 1970. The same epoch with another time is of another past: a backup was restored.
    pub at: i64,
    /// What it was about; a change may have several entries.
    pub part: Part,
}

/// Entries of an epoch and those after it, in order. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct Since {
    /// The epoch.
    pub epoch: i64,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Since {}
impl Op for Since {
    type Out = Vec<Entry>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT epoch, at, part, place, kind, name FROM access_change WHERE epoch >= $1 \
                 ORDER BY epoch, part, place, kind, name LIMIT $2",
                vals![self.epoch, self.limit],
            )
            .await?;
        let rows = rows.into_iter();
        rows.map(|mut row| {
            Ok(Entry {
                epoch: row.int(0)?,
                at: row.int(1)?,
                part: Part::read(&mut row)?,
            })
        })
        .collect()
    }
}

/// Notes what the change that makes this epoch is about, and forgets what is older than the last [`KEPT`].
pub(super) async fn note<T: Tx>(tx: &mut T, epoch: i64, by: &By, parts: &[Part]) -> Result<()> {
    let parts = match parts.len() {
        1..=MOST_PARTS => parts,
        _ => &[Part::All],
    };
    for part in parts {
        let (part, place, kind, name) = part.row();
        tx.exec(
            "INSERT INTO access_change (epoch, part, place, kind, name, at) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (epoch, part, place, kind, name) DO UPDATE SET at = excluded.at",
            vals![epoch, part, place, kind, name, by.at],
        )
        .await?;
    }
    tx.exec(
        "DELETE FROM access_change WHERE epoch <= $1",
        vals![epoch - KEPT],
    )
    .await?;
    Ok(())
}
