//! What the transport tells the outside: telemetry implements [`Observer`] and turns it into metrics and log lines.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, StatusCode, Version};

use super::body::Facts;
use super::id::RequestId;

/// Hears of everything that is worth counting. Calls come from request tasks: they must return at once.
pub trait Observer: Send + Sync + 'static {
    /// A connection was accepted.
    fn connection_opened(&self) {}
    /// A connection ended, for the given reason.
    fn connection_closed(&self, _end: ConnectionEnd) {}
    /// A TLS handshake did not come about. `reason` is one of few words, fit for a label.
    fn handshake_failed(&self, _reason: &'static str) {}
    /// Accepting failed: file descriptors or memory are short.
    fn accept_failed(&self, _error: &std::io::Error) {}
    /// Bytes that were no request were refused. `reason` is one of few words, fit for a label.
    fn request_malformed(&self, _reason: &'static str) {}
    /// A request was answered, or its client went away before.
    fn request_finished(&self, _finished: &Finished<'_>) {}
    /// A handler panicked; the client got 500.
    fn handler_panicked(&self, _route: &'static str) {}
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionEnd {
    /// Both sides were done.
    Done,
    /// Idle for longer than the keep-alive time.
    Idle,
    /// A head, the first byte or a handshake took too long.
    HeaderTimeout,
    /// The client took an answer too slowly.
    Stalled,
    /// More streams were reset than a sane client resets.
    Resets,
    /// The server is shutting down.
    Shutdown,
    /// The connection broke, or what came was no HTTP.
    Error,
}

impl ConnectionEnd {
    /// The reason in one word, for a label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Idle => "idle",
            Self::HeaderTimeout => "header-timeout",
            Self::Stalled => "stalled",
            Self::Resets => "resets",
            Self::Shutdown => "shutdown",
            Self::Error => "error",
        }
    }
}

/// One request, after it ended.
#[derive(Debug)]
pub struct Finished<'a> {
    /// Its id.
    pub id: &'a RequestId,
    /// Its method.
    pub method: &'a Method,
    /// [`super::Route::label`], or `"unknown"`.
    pub route: &'static str,
    /// The status that was sent; `None` when the client went away before the answer began.
    pub status: Option<StatusCode>,
    /// Whether all of the answer was handed to the connection.
    pub complete: bool,
    /// Bytes of the request's body that arrived.
    pub bytes_in: u64,
    /// Bytes of the answer's body that were handed to the connection.
    pub bytes_out: u64,
    /// From the end of the request's head to the end of the answer.
    pub duration: Duration,
    /// HTTP version.
    pub version: Version,
    /// The client, as far as it is known.
    pub peer: Option<SocketAddr>,
    /// What the handler told.
    pub facts: Option<&'a Facts>,
}

/// Hears nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {}
