//! All integration tests in one binary: one link, one module per noun.

mod http_basic;
mod http_discard;
mod http_h2;
mod http_limits;
mod http_origin;
mod http_shutdown;
mod http_smuggling;
mod http_support;
mod http_tls;
