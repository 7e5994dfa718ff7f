//! What can go wrong in the metadata store, said so that an operator knows the way out.
//!
//! Used by every caller of [`crate::Meta`]; `core` maps these to domain outcomes. Never carries a value of a row:
//! rows may hold secrets.

use std::path::PathBuf;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the metadata store. It is `Clone` because the failure of one commit answers every operation in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The store cannot take the operation now; the same call may succeed later.
    #[error("the metadata store is busy: {0}")]
    Busy(String),
    /// No space, no quota, or the configured page limit is reached.
    #[error(
        "the metadata store is full: {0}; free space on its file system and writes go on by themselves"
    )]
    Full(String),
    /// The database or its folder cannot be written.
    #[error("{what} cannot be written: {reason}")]
    ReadOnly {
        /// The file or folder.
        what: PathBuf,
        /// What the system said, and the way out.
        reason: String,
    },
    /// The database is damaged.
    #[error(
        "the metadata database is damaged: {0}; stop the server and restore the last backup (wharf backup restore)"
    )]
    Corrupt(String),
    /// The file is a database of something else, or no database.
    #[error(
        "{path} is not Wharf's: {reason}; choose another data folder (--data) or move the file away"
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// How that was seen.
        reason: String,
    },
    /// The database was changed by a newer version in a way that this one cannot use.
    #[error(
        "{path} has schema {schema} and may only be used by versions that know schema {oldest} or later; this binary \
         knows {known}. Start the newer version, or restore a backup that this one made"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema it has.
        schema: u32,
        /// The least schema that a binary must know to use it.
        oldest: u32,
        /// The schema that this binary knows.
        known: u32,
    },
    /// The folder lies on a file system over a network.
    #[error(
        "{path} lies on {kind}: SQLite's locks and syncs cannot be trusted over a network. Put the data folder on a \
         local disk"
    )]
    Network {
        /// The folder.
        path: PathBuf,
        /// The file system's name.
        kind: String,
    },
    /// A constraint of the schema refused the statement: a bug, since operations check first.
    #[error("the metadata schema refused an operation: {0}")]
    Constraint(String),
    /// The system failed to read or write.
    #[error("metadata input/output: {0}")]
    Io(String),
    /// An earlier commit failed: nothing is written until a checkpoint was synced.
    #[error(
        "metadata writes are refused since a commit failed ({0}); they resume once a checkpoint is synced to disk"
    )]
    Refusing(String),
    /// The database server cannot be reached, or does not answer.
    #[error("the metadata database (metadata.url) cannot be reached: {0}")]
    Unreachable(String),
    /// The database server or what it holds cannot be used as it is set up.
    #[error("{key}: {problem}; {cure}")]
    Setup {
        /// The key of the configuration to look at.
        key: &'static str,
        /// What is wrong.
        problem: String,
        /// The way out.
        cure: String,
    },
    /// The engine in use has no such thing.
    #[error("{what} is not for a PostgreSQL store: {instead}")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
        /// What serves the same purpose.
        instead: &'static str,
    },
    /// The store is closed or closing.
    #[error("the metadata store is closed")]
    Closed,
    /// An operation was given more than it may hold the writer for.
    #[error("{what}: {got} given, {limit} at most in one operation")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// How much was given.
        got: usize,
        /// The limit.
        limit: usize,
    },
    /// An operation panicked or broke the engine's rules. Nothing of it was kept.
    #[error("the metadata operation {op} failed: {reason}; this is a bug, please report it")]
    Bug {
        /// The operation.
        op: String,
        /// What happened.
        reason: String,
    },
}

impl Error {
    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Error::Busy(_) | Error::Full(_) | Error::Refusing(_) | Error::Unreachable(_)
        )
    }
}
