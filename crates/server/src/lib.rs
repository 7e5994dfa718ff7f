//! The binary `wharf` as a library, so that tests and tools start the same server.

pub mod admin;
pub mod api;
pub mod app;
pub mod cli;
pub mod config;
pub mod credential_helper;
pub mod credential_provider;
pub mod http;
mod memory;
pub mod telemetry;
pub mod ui;
pub mod v2;
