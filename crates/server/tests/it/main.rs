//! The protocol, item by item, against a listening server: one module per noun, each test over HTTP/1.1 and HTTP/2
//! unless it is about one of them.

mod blob_push;
mod blob_read;
mod catalog;
mod delete;
mod error;
mod extension;
mod legacy;
mod manifest;
mod manifest_push;
mod ping;
mod referrer;
mod support;
mod tag;
mod wire;
