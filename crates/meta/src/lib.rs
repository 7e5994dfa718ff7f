//! METADATA: everything the registry knows but bytes, in SQL.
//!
//! `core` calls [`Meta`] with operations ([`blob`], [`manifest`], [`tag`] …). Each is written once ([`Op`] over [`Tx`])
//! and runs on every engine; all engines pass the same suite (`meta_suite!`). SQL text lives in this crate alone, and
//! nothing of one engine outside `engine/`. This crate decides no rights, knows no HTTP, and holds no lock that a reader
//! waits for.
//!
//! To start reading: `tx.rs` (the wall), `ops/tag.rs` (the model operation), `engine/sqlite/writer.rs` (group commit).

mod copy;
mod engine;
mod error;
mod folder;
mod fresh;
pub mod lock;
pub mod look;
mod meant;
mod meta;
mod migration;
mod ops;
pub mod origin;
mod stats;
mod tx;
mod value;

#[cfg(feature = "suite")]
pub mod suite;
#[cfg(feature = "test-server")]
pub mod test_server;

pub use copy::Copied;
#[cfg(feature = "suite")]
pub use engine::postgres::Gate;
pub use engine::postgres::PostgresOptions;
#[cfg(feature = "suite")]
pub use engine::sqlite::{Bulk, Steps};
pub use engine::sqlite::{SqliteOptions, Synchronous};
pub use error::{Error, Result};
pub use folder::{Found, inspect};
pub use fresh::Stamp;
pub use look::{INSTALLATION, Known, Look, SECRET_KEY};
pub use meant::Meant;
pub use meta::{Meta, Opened};
pub use migration::SCHEMA;
pub use ops::{
    access, adopt, audit, blob, candidate, counter, credential, device, event, hold, invitation,
    job, manifest, mark, multipart, principal, quarantine, recheck, referrer, refresh_token,
    replica, repository, restorable, session, setting, signing_key, tag, terminal, upload, usage,
};
pub use origin::Origin;
pub use stats::{Slow, Stats};
pub use tx::{Counter, Op, ReadOp, Tx};
pub use value::{Cell, Id, Row, Val};
