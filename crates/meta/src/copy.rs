//! Moving a store to another engine: every row, read in one consistent state, and compared after it was written.
//!
//! Called by `wharf metadata copy`, and for the snapshot of a PostgreSQL store. A target that is not whole yet says so in a
//! setting, and nothing may serve from it.

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::meta::{Meta, Snapshot};
use crate::ops::copy::{Insert, Rows, SeenById, TABLES, Table};
use crate::ops::counter::{Fold, MAX_FOLD};
use crate::ops::setting;
use crate::value::Cell;

/// The setting of a store that a copy into it was begun and not ended.
pub(crate) const UNFINISHED: &str = "copy.unfinished";
const SETTING: &str = "setting";

/// What was copied of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The table.
    pub table: &'static str,
    /// How many rows.
    pub rows: u64,
    /// SHA-256 over them in the order of their keys, the same in source and target.
    pub digest: String,
}

/// Adds a row to a sum, so that no two different rows look alike.
fn add(sum: &mut Sha256, row: &[Cell]) {
    for cell in row {
        let number;
        let (kind, bytes): (u8, &[u8]) = match cell {
            Cell::Null => (0, &[]),
            Cell::Int(value) => {
                number = value.to_be_bytes();
                (1, &number)
            }
            Cell::Text(text) => (2, text.as_bytes()),
            Cell::Bytes(bytes) => (3, bytes),
        };
        sum.update([kind]);
        sum.update((bytes.len() as u64).to_be_bytes());
        sum.update(bytes);
    }
}

/// Passes over a table, page by page.
struct Walk {
    table: &'static Table,
    rows: u64,
    sum: Sha256,
    after: Option<Vec<Cell>>,
}

impl Walk {
    fn new(table: &'static Table) -> Self {
        let sum = Sha256::new();
        Self {
            table,
            rows: 0,
            sum,
            after: None,
        }
    }

    /// The next page, as it is to be in the target; `None`: there are no more.
    async fn next(&mut self, from: &Snapshot) -> Result<Option<Vec<Vec<Cell>>>> {
        let (table, after) = (self.table, self.after.take());
        let mut page = from.read(Rows { table, after }).await?;
        let Some(last) = page.last() else {
            return Ok(None);
        };
        self.after = Some(last.clone());
        if table.name == SETTING {
            page.retain(|row| !matches!(row.first(), Some(Cell::Text(key)) if key == UNFINISHED));
        }
        if table.name == "event_cursor" {
            for row in &mut page {
                by_id(from, row).await?;
            }
        }
        self.rows += page.len() as u64;
        for row in &page {
            add(&mut self.sum, row);
        }
        Ok(Some(page))
    }

    fn end(self) -> Copied {
        let digest = self.sum.finalize();
        Copied {
            table: self.table.name,
            rows: self.rows,
            digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

/// A cursor names a transaction of its server: in the copy it goes by ids alone.
async fn by_id(from: &Snapshot, cursor: &mut [Cell]) -> Result<()> {
    if let [Cell::Text(consumer), seen, ..] = cursor {
        let consumer = consumer.clone();
        *seen = Cell::Int(from.read(SeenById { consumer }).await?);
    }
    Ok(())
}

/// Whether a copy into this store was begun and not ended.
pub(crate) async fn is_unfinished(meta: &Meta) -> Result<bool> {
    let key = UNFINISHED.to_owned();
    let value = meta.read(setting::Get { key }).await?;
    Ok(value.is_some_and(|value| !value.is_empty()))
}

/// Refuses a target that holds something.
pub(crate) async fn check_empty(to: &Meta) -> Result<()> {
    let refuse = |problem: String| Error::Setup {
        key: "metadata.url",
        problem,
        cure: "copy into a database that is new, or drop this one first".to_owned(),
    };
    if is_unfinished(to).await? {
        return Err(refuse("the target holds a copy that broke off".to_owned()));
    }
    let target = to.snapshot().await?;
    for table in TABLES {
        let there = target.read(Rows { table, after: None }).await?;
        if !there.is_empty() {
            return Err(refuse(format!(
                "the target holds something already (rows in {})",
                table.name
            )));
        }
    }
    Ok(())
}

/// Copies everything of `from` into `to`, which must hold nothing, and compares. `progress` hears of each page: the table,
/// and how many of its rows there are in the target, or were compared.
pub(crate) async fn copy(
    from: &Meta,
    to: &Meta,
    progress: &mut (dyn FnMut(&'static str, u64, bool) + Send),
) -> Result<Vec<Copied>> {
    check_empty(to).await?;
    if is_unfinished(from).await? {
        return Err(Error::Setup {
            key: "metadata.url",
            problem: "the source is itself a copy that broke off".to_owned(),
            cure: "copy from the store that it was made of".to_owned(),
        });
    }
    let mark = |value: &str| setting::Put {
        key: UNFINISHED.to_owned(),
        value: value.to_owned(),
    };
    to.write(mark("yes")).await?;
    let source = from.snapshot().await?;
    let mut copied = Vec::new();
    for table in TABLES {
        let mut walk = Walk::new(table);
        while let Some(rows) = walk.next(&source).await? {
            to.write(Insert { table, rows }).await?;
            progress(table.name, walk.rows, false);
        }
        copied.push(walk.end());
    }
    drop(source);
    let target = to.snapshot().await?;
    for (table, copied) in TABLES.iter().zip(&copied) {
        let mut walk = Walk::new(table);
        while walk.next(&target).await?.is_some() {
            progress(table.name, walk.rows, true);
        }
        if walk.end() != *copied {
            return Err(Error::Corrupt(format!(
                "{} is not what was copied: somebody else writes to the target, or its disk is bad",
                table.name
            )));
        }
    }
    drop(target);
    to.finish_copy().await?;
    while to.write(Fold { limit: MAX_FOLD }).await? >= MAX_FOLD {}
    to.write(mark("")).await?;
    Ok(copied)
}
