//! All integration tests in one binary: one link, one module per noun. The protocol's modules run each test over
//! HTTP/1.1 and HTTP/2 unless it is about one of them; `http_*` test the transport with handlers of their own.

mod blob;
mod catalog;
mod chunk;
mod command;
mod corrupt;
mod delete;
mod disk;
mod disk_support;
mod endpoint;
mod error;
mod extension;
mod http_basic;
mod http_discard;
mod http_h2;
mod http_limits;
mod http_origin;
mod http_shutdown;
mod http_smuggling;
mod http_support;
mod http_tls;
mod legacy;
mod manifest;
mod manifest_push;
mod mount;
mod operator;
mod ping;
mod probes;
mod race;
mod referrer;
mod restart;
mod sendfile;
mod support;
mod tag;
mod upload;
mod wire;
