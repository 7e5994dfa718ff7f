//! Operations: one file per noun, one struct per operation, all SQL of the registry.
//!
//! Called by `core` through [`crate::Meta`]. An operation decides on rows that it has locked (`FOR UPDATE`, `FOR
//! SHARE`; SQLite's writer is alone anyway), since what looks safe on one writer can race on PostgreSQL. Rights are
//! decided above; but content is only ever found through the repository that holds it.
//!
//! Locks are taken in one order, so that no two operations wait for each other: the session of an upload, then its multipart
//! uploads; the manifest that changes; manifests that it refers to; then blobs, each with
//! its links and then its keys in the list of garbage, by digest; then tags by name. Who needs several manifests in another order
//! passes over those that others have (`SKIP LOCKED`). Of identities: the epoch of rights, an invitation, the principal, then its
//! sessions, what it approved, its terminals and credentials. PostgreSQL sees a deadlock only after a second,
//! and of many that wait in a row the last ones give up.

pub mod access;
pub mod adopt;
pub mod audit;
pub mod blob;
pub mod candidate;
pub(crate) mod copy;
pub mod counter;
pub mod credential;
pub mod device;
pub mod event;
mod garbage;
pub mod hold;
pub mod invitation;
pub mod job;
pub mod manifest;
pub mod mark;
pub mod multipart;
pub mod principal;
pub mod quarantine;
pub mod recheck;
pub mod referrer;
pub mod refresh_token;
pub mod replica;
pub mod repository;
pub mod restorable;
pub mod session;
pub mod setting;
pub mod signing_key;
pub mod tag;
pub mod terminal;
pub mod upload;
pub mod usage;
