//! What the store tells about itself, for metrics.

use std::time::Duration;

/// A snapshot of the store's figures; counts go up from the start of the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Operations that were committed.
    pub operations: u64,
    /// Operations answered with an error.
    pub failed: u64,
    /// Commits, each with one sync of the log when the store is durable, but for those that need none.
    pub commits: u64,
    /// Commits that failed, and batches that SQLite undid before.
    pub failed_commits: u64,
    /// Time spent in commits.
    pub commit_time: Duration,
    /// The most operations in one commit.
    pub largest_batch: u64,
    /// Operations waiting for the writer now.
    pub waiting: u64,
    /// Writes are refused since a commit failed.
    pub refusing: bool,
    /// Damage was met in the database: nothing is written until it is restored.
    pub damaged: bool,
    /// The disk is full: the last commit found no room, or only what gives room back is accepted.
    pub full: bool,
    /// Checkpoints that moved the log into the database.
    pub checkpoints: u64,
    /// Checkpoints that failed.
    pub failed_checkpoints: u64,
    /// Bytes of the log that are in use.
    pub wal_bytes: u64,
    /// Bytes of the log file.
    pub wal_file_bytes: u64,
    /// Bytes of the database file.
    pub database_bytes: u64,
    /// Inline reads.
    pub reads: u64,
    /// Reads that went to the reader threads.
    pub scans: u64,
    /// PostgreSQL: why it cannot be reached; none while it can.
    pub unreachable: Option<String>,
    /// PostgreSQL: connections that transactions use now.
    pub connections: u64,
    /// PostgreSQL: connections that were made.
    pub connected: u64,
    /// PostgreSQL: times that somebody waited for an answer of the server.
    pub round_trips: u64,
    /// PostgreSQL: operations that were tried again since others were in the way or the connection was lost.
    pub retries: u64,
    /// Operations that held the writer for longer than they may, by name.
    pub slow: Vec<Slow>,
}

/// An operation that held the writer for longer than it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slow {
    /// The operation.
    pub name: &'static str,
    /// How often.
    pub count: u64,
    /// The longest time.
    pub longest: Duration,
}
