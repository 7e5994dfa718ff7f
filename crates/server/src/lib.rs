//! The binary `wharf` as a library, so that tests and tools start the same server.

pub mod http;
