//! What Wharf tells about itself: log lines and figures.
//!
//! The transport reports each request to [`Telemetry`]; `app` renders the figures for `/metrics`. Secrets have no way
//! in: only labels of few values, names of principals and repositories, and numbers are taken.

mod gather;
pub mod log;
pub mod metrics;
mod process;
mod sample;

use std::sync::Arc;

use crate::http::observer::{ConnectionEnd, Finished, Observer};

pub use self::metrics::Metrics;
pub use self::sample::PREFIXES;

/// Hears of everything and writes it down.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// The figures.
    pub metrics: Arc<Metrics>,
}

impl Observer for Telemetry {
    fn connection_opened(&self) {
        self.metrics.connections.inc();
    }

    fn connection_closed(&self, end: ConnectionEnd) {
        self.metrics.connections.dec();
        self.metrics.closed(end.as_str());
    }

    fn handshake_failed(&self, reason: &'static str) {
        self.metrics.malformed(reason);
        tracing::debug!(reason, "a TLS handshake failed");
    }

    fn accept_failed(&self, error: &std::io::Error) {
        tracing::error!(%error, "connections cannot be accepted; is the limit of open files too low?");
    }

    fn request_malformed(&self, reason: &'static str) {
        self.metrics.malformed(reason);
        tracing::debug!(reason, "something that is no request was refused");
    }

    fn request_finished(&self, finished: &Finished<'_>) {
        self.metrics.request(finished);
        log::request(finished);
    }

    fn handler_panicked(&self, route: &'static str) {
        tracing::error!(route, "a request handler panicked; please report this");
    }
}
