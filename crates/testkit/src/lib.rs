//! What tests of the whole registry need: a server in this process or as a child, a small client, images, certificates.
//!
//! Used by `crates/server/tests/it` and by `cargo xtask`; never by the registry itself. Helpers panic with a full
//! account of what they saw, since a test has no better use for an error.

pub mod ca;
pub mod client;
pub mod content;
pub mod directory;
pub mod issuer;
pub mod options;
pub mod process;
pub mod raw;
pub mod s3;
pub mod server;
pub mod terminals;

pub use ca::{Ca, Identity};
pub use client::{Client, Connection, Request, Response, Version};
pub use content::{Content, Image, ImageSpec};
pub use directory::{FakeLdap, Mood};
pub use issuer::{Manner, TokenIssuer, TokenKey};
pub use options::{TestOptions, on_postgres};
pub use process::Process;
pub use s3::S3;
pub use server::TestServer;
pub use terminals::{Asked, FakeTerminals, Fault};
pub use wharf_meta::test_server;
