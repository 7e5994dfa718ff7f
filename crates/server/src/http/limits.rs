//! How much a client may cost, and for how long. Every field is a configuration key under `[limits]`.

use std::time::Duration;

/// The least speed at which a body must move, averaged over a window; there is no limit on its total time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes per second.
    pub bytes_per_second: u64,
    /// How long a client may stay below that.
    pub window: Duration,
}

impl Progress {
    /// Bytes that must move within one window; at least one, or a stalled client would pass.
    pub(super) fn bytes_per_window(&self) -> u64 {
        let bytes = u128::from(self.bytes_per_second) * self.window.as_millis() / 1000;
        u64::try_from(bytes).unwrap_or(u64::MAX).max(1)
    }
}

/// Limits of one listener group. The defaults suit a registry on the open net.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at the same time, per listener. Further ones wait in the kernel's queue.
    pub connections: usize,
    /// Requests on one connection, after which the client is asked to open another.
    pub requests_per_connection: u64,
    /// Bytes of a request's head: request line and headers.
    pub header_size: usize,
    /// Time to send a head, from its first byte.
    pub header_time: Duration,
    /// Time for the TLS handshake, or for the first byte on a plain connection.
    pub handshake_time: Duration,
    /// Time that a connection may stay open between requests.
    pub keep_alive: Duration,
    /// Least speed of bodies, both ways.
    pub body_progress: Progress,
    /// Requests at the same time on one HTTP/2 connection.
    pub h2_streams: u32,
    /// Streams that a client may reset beyond those that were answered, before its connection is ended.
    pub h2_resets: u32,
    /// Bytes of an unread body that are read and thrown away so that the client sees the answer.
    pub discard_bytes: u64,
    /// How long a connection with an unread body is held for the same reason.
    pub discard_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            requests_per_connection: 10_000,
            // Bearer tokens of many scopes run to 16 KiB (NET-4).
            header_size: 32 * 1024,
            header_time: Duration::from_secs(30),
            handshake_time: Duration::from_secs(15),
            // Above the 90 s of Go's clients, so that they and not we end idle connections: no lost race.
            keep_alive: Duration::from_secs(120),
            body_progress: Progress {
                bytes_per_second: 1024,
                window: Duration::from_secs(60),
            },
            h2_streams: 128,
            h2_resets: 200,
            discard_bytes: 1024 * 1024,
            discard_time: Duration::from_secs(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_asks_for_something() {
        let progress = |bytes_per_second, millis| Progress {
            bytes_per_second,
            window: Duration::from_millis(millis),
        };
        assert_eq!(progress(1024, 60_000).bytes_per_window(), 61_440);
        assert_eq!(progress(1000, 500).bytes_per_window(), 500);
        assert_eq!(progress(0, 60_000).bytes_per_window(), 1);
    }
}
