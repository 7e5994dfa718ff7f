//! A look at a database before it is used, that changes nothing: whether it can be used, and whose it is.
//!
//! Called by `wharf config check --online`, and by a start before anything is made or migrated. Must never write, and never
//! wait for whoever uses the database.

use std::path::Path;

use crate::engine::{postgres, sqlite};
use crate::error::Result;
use crate::folder::{Found, inspect};
use crate::{PostgresOptions, SCHEMA};

/// The setting that names the installation.
pub const INSTALLATION: &str = "installation";

/// The setting that names the key with which the secrets in the database are sealed.
pub const SECRET_KEY: &str = "secret_key";

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Where, without secrets.
    pub place: String,
    /// What serves it and as whom, if a server does.
    pub server: Option<String>,
    /// The schema of what is there; `None`: nothing is.
    pub schema: Option<u32>,
    /// How many migrations a start would run.
    pub pending: usize,
    /// What stands in it; `None` when that cannot be read without touching it.
    pub known: Option<Known>,
    /// Milliseconds by which this machine's clock is ahead of the server's.
    pub ahead_ms: Option<i64>,
    /// What is no reason to refuse it.
    pub warnings: Vec<String>,
}

/// What stands in a database, as far as it tells whose it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The name of the installation, once a bucket was taken.
    pub installation: Option<String>,
    /// Whether it knows of blobs.
    pub has_blobs: bool,
    /// A copy into it broke off.
    pub half_copied: bool,
    /// The name of the key with which its secrets are sealed, once one was.
    pub secret_key: Option<String>,
}

/// Looks at a PostgreSQL database. `now_ms` tells this machine's time.
pub async fn server(options: PostgresOptions, now_ms: impl Fn() -> i64) -> Result<Look> {
    postgres::look(options, now_ms).await
}

/// Looks at an SQLite database, which another process may be using, in a folder that exists.
pub fn file(path: &Path) -> Result<Look> {
    let schema = match inspect(path)? {
        Found::Nothing => None,
        Found::Usable { schema } => Some(schema),
    };
    let known = match schema {
        None => Some(Known::default()),
        Some(_) => sqlite::known(path)?,
    };
    let pending = SCHEMA.saturating_sub(schema.unwrap_or(0));
    Ok(Look {
        place: path.display().to_string(),
        server: None,
        schema,
        pending: pending as usize,
        known,
        ahead_ms: None,
        warnings: Vec::new(),
    })
}
