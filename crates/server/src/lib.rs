//! The binary `wharf` as a library, so that tests and tools start the same server.

pub mod app;
pub mod http;
pub mod telemetry;
pub mod ui;
pub mod v2;
