//! The wall between operations and engines: an operation is written once and runs on each.
//!
//! SQLite runs operations on its writer thread, many in one commit; PostgreSQL awaits them in a transaction of their own
//! (READ COMMITTED), and runs them anew when others are in the way. An operation may therefore await nothing but its
//! [`Tx`] and must not keep state outside it. One that is [`Op::SINGLE`] and writes must give the same result when it is
//! run again, since the answer to it can be lost; of the others the engine finds out.

use std::future::Future;

use wharf_oci::RepositoryName;

use crate::error::Result;
use crate::value::{Id, Row, Val};

/// What is counted as it changes, so that totals need no scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Repositories.
    Repositories,
    /// Live manifests.
    Manifests,
    /// Tags.
    Tags,
    /// Live blobs.
    Blobs,
    /// Bytes of live blobs.
    BlobBytes,
    /// Open uploads.
    Uploads,
}

impl Counter {
    /// All of them, in the order of [`Counter::index`].
    pub const ALL: [Counter; 6] = [
        Counter::Repositories,
        Counter::Manifests,
        Counter::Tags,
        Counter::Blobs,
        Counter::BlobBytes,
        Counter::Uploads,
    ];

    /// Its place in [`Counter::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The name in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Counter::Repositories => "repositories",
            Counter::Manifests => "manifests",
            Counter::Tags => "tags",
            Counter::Blobs => "blobs",
            Counter::BlobBytes => "blob_bytes",
            Counter::Uploads => "uploads",
        }
    }
}

/// A transaction, as an operation sees it.
///
/// Statements are PostgreSQL's dialect as far as SQLite has it too: `$1` parameters, `ON CONFLICT`, `RETURNING`, CTEs,
/// and `FOR UPDATE` or `FOR SHARE` at the very end, which SQLite drops since its writer is alone.
pub trait Tx: Send {
    /// Runs a statement and gives all its rows: bound every one by a key or a `LIMIT`.
    fn query(
        &mut self,
        sql: &'static str,
        parameters: &[Val<'_>],
    ) -> impl Future<Output = Result<Vec<Row>>> + Send;

    /// Runs a statement that gives no rows; tells how many it changed.
    fn exec(
        &mut self,
        sql: &'static str,
        parameters: &[Val<'_>],
    ) -> impl Future<Output = Result<u64>> + Send;

    /// Adds to a counter at commit. Engines gather these, since a counter's row is hot.
    fn count(&mut self, counter: Counter, delta: i64) -> impl Future<Output = Result<()>> + Send;

    /// Adds to what a repository takes up, at commit; [`crate::usage`] adds such changes up.
    fn usage(&mut self, repository: &Id, bytes: i64) -> impl Future<Output = Result<()>> + Send;

    /// Says that what is served under this tag or digest of the repository changes with the commit, so that nobody goes on
    /// serving it from memory. To be called by whatever writes to `tag` or `manifest`; an operation that writes there and
    /// names nothing makes all memory stale.
    fn touch(&mut self, repository: &RepositoryName, reference: &str);

    /// A fresh id that sorts by `at` (milliseconds since 1970). Randomness comes from the engine, not from operations.
    fn id(&mut self, at: i64) -> Id;

    /// The time by which leases are decided, in milliseconds since 1970: the caller's, or that of an engine which several
    /// processes share.
    fn now(&mut self, caller: i64) -> impl Future<Output = Result<i64>> + Send {
        async move { Ok(caller) }
    }

    /// The oldest transaction that is under way: events of it and of later ones may still be joined by others of its own, so
    /// whoever reads them in order stops before it. `None`: there are none such, since one writer writes.
    fn oldest_transaction(&mut self) -> impl Future<Output = Result<Option<i64>>> + Send {
        async { Ok(None) }
    }

    /// The first row of a statement that gives one at most.
    fn row(
        &mut self,
        sql: &'static str,
        parameters: &[Val<'_>],
    ) -> impl Future<Output = Result<Option<Row>>> + Send {
        let rows = self.query(sql, parameters);
        async move { Ok(rows.await?.into_iter().next()) }
    }
}

/// A unit of work: one transaction, or nothing.
///
/// Bound: no more than 5 ms or 500 rows; larger work is cut into several operations by the caller. An `Err` undoes all
/// that the operation did; outcomes that a caller expects are variants of `Out`, and must come before the first write.
pub trait Op: Send + Sync + 'static {
    /// What it gives.
    type Out: Send + 'static;

    /// At most one statement that writes, so that the engine needs no savepoint; of a [`ReadOp`]: one statement at all, so
    /// that it needs no transaction. The engine holds operations to it. PostgreSQL runs it outside of a transaction: it
    /// must be one statement at all that counts nothing, unless it is [`Op::RELAXED`], and its outcome the same when it is
    /// repeated.
    const SINGLE: bool = false;

    /// It gives room back, so it is let through on a full disk, on room that was set aside for that.
    const FREES: bool = false;

    /// Its commit need not wait for the disk: a crash of the process takes nothing, but a power cut may take the operation
    /// as long as none that does wait has followed. For what a client loses nothing by beginning again.
    const RELAXED: bool = false;

    /// Does the work.
    fn run<T: Tx>(&self, tx: &mut T) -> impl Future<Output = Result<Self::Out>> + Send;

    /// The name in logs and metrics: where it stands below `ops`, for example `tag::Delete`.
    fn name() -> &'static str {
        short(std::any::type_name::<Self>())
    }
}

/// What follows `ops`; of operations elsewhere, the last two parts.
fn short(full: &'static str) -> &'static str {
    if let Some(at) = full.find("::ops::") {
        return &full[at + "::ops::".len()..];
    }
    let last = full.rfind("::").unwrap_or(0);
    full[..last]
        .rfind("::")
        .map_or(full, |before| &full[before + 2..])
}

/// An operation that writes nothing, so that [`crate::Meta::read`] and [`crate::Meta::scan`] take it.
pub trait ReadOp: Op {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short() {
        assert_eq!(crate::ops::tag::Delete::name(), "tag::Delete");
        assert_eq!(crate::ops::manifest::Put::name(), "manifest::put::Put");
        assert_eq!(short("other::folder::file::Op"), "file::Op");
        assert_eq!(short("Op"), "Op");
    }
}
