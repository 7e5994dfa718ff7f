//! The registry itself: what it means to push, pull, list and delete.
//!
//! Services over `meta` (rows) and `blob` (bytes), one module per noun. The server calls them with typed requests and
//! turns their [`Error`]s into answers. Nothing here knows HTTP or SQL; features meet through events and the server's
//! `app`, they never import each other.

pub mod access;
pub mod audit;
pub mod backup;
pub mod blob;
mod cache;
pub mod clock;
pub mod directory;
pub mod error;
pub mod event;
pub mod gc;
#[cfg(test)]
mod house;
pub mod identity;
pub mod job;
pub mod manifest;
pub mod mark;
pub mod oidc;
pub mod referrer;
pub mod registry;
pub mod reindex;
pub mod replica;
mod report;
pub mod repository;
pub mod restore;
pub mod scrub;
pub mod session;
pub mod tag;
pub mod terminal;
pub mod transfer;
pub mod upload;
pub mod usage;
pub mod verify;
mod walk;
pub mod workload;

pub use clock::Clock;
pub use error::{BodyError, Error, Result};
pub use registry::{ContentRule, ContentRules, Limits, Registry};
