//! The rows of terminals, as a request needs them. Made, rotated and ended by [`crate::terminal`], which uses the store itself.

use wharf_meta::{Meta, terminal};

pub(crate) use wharf_meta::terminal::TerminalRow;

use super::BoxFuture;
use crate::Result;

/// Where terminals are kept.
pub(crate) trait TerminalRows: Send + Sync {
    /// The terminal with an id.
    fn terminal<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<TerminalRow>>>;
    /// Notes that one was used.
    fn note_terminal(&self, id: String, at: i64, address: String) -> BoxFuture<'_, Result<()>>;
}

impl TerminalRows for Meta {
    fn terminal<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<TerminalRow>>> {
        Box::pin(async move { Ok(self.read(terminal::ById { id: id.into() }).await?) })
    }

    fn note_terminal(&self, id: String, at: i64, address: String) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { Ok(self.write(terminal::Touch { id, address, at }).await?) })
    }
}
