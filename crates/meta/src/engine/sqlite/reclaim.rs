//! Giving freed pages back to the file system, a few at a time.
//!
//! Runs among the operations of the writer, since moving a page is a write like any other; the file itself becomes shorter
//! at the next checkpoint. Never more pages at once than it is told: each is a row's worth of work.

use tokio::sync::oneshot;

use super::connection::error;
use super::tx::{SqliteTx, Writes};
use super::writer::Work;
use crate::error::Result;

/// A step of it, with its caller.
pub(super) struct Reclaim {
    pages: u32,
    left: u64,
    reply: oneshot::Sender<Result<u64>>,
}

impl Reclaim {
    pub(super) fn new(pages: u32, reply: oneshot::Sender<Result<u64>>) -> Reclaim {
        Reclaim {
            pages,
            left: 0,
            reply,
        }
    }
}

impl Work for Reclaim {
    fn name(&self) -> &'static str {
        "engine::Reclaim"
    }

    fn writes(&self) -> Writes {
        Writes::One
    }

    fn frees(&self) -> bool {
        true
    }

    fn relaxed(&self) -> bool {
        false
    }

    fn run(&mut self, tx: &mut SqliteTx<'_>) -> Result<()> {
        let raw = tx.connection.raw();
        let work = || -> rusqlite::Result<u64> {
            if self.pages > 0 {
                // Pragmas take no parameters. Each step frees a page: it must be stepped to its end.
                let mut pragma =
                    raw.prepare(&format!("PRAGMA incremental_vacuum({})", self.pages))?;
                let mut rows = pragma.raw_query();
                while rows.next()?.is_some() {}
            }
            let unused: i64 = raw.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
            Ok(u64::try_from(unused).unwrap_or(0))
        };
        self.left = work().map_err(|e| error(&e, "incremental_vacuum"))?;
        Ok(())
    }

    fn answer(self: Box<Self>, result: Result<()>) {
        // A caller that went away does not want it.
        let _ = self.reply.send(result.map(|()| self.left));
    }
}
