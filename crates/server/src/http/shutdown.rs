//! The end of a process: not ready, a pause, no new connections, a grace, the end (OPS-4).
//!
//! `app` waits for a [`Signals::next`] and then calls [`stop`] with all servers. Sessions of uploads that are cut off
//! stay resumable; that is the stores' part.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::server::Running;

/// Whether new requests are welcome: what `/readyz` answers. Clones are the same flag.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Not ready yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets it.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Relaxed);
    }

    /// Reads it.
    pub fn is_ready(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The signals that end a process: SIGTERM, SIGINT.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// From here on these signals no longer kill the process.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one and gives its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.int.recv() => "SIGINT",
        }
    }
}

/// How long an orderly stop may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From not being ready to accepting nothing more, for load balancers to notice.
    pub delay: Duration,
    /// For running requests to finish.
    pub grace: Duration,
}

/// How a stop went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// All requests were answered.
    Clean,
    /// So many connections or streams were cut off when the grace was over.
    Cut(usize),
    /// `hurry` came first: everything was cut off at once.
    Hurried,
}

/// Stops all servers in order. `hurry` resolves when somebody cannot wait: a second signal.
pub async fn stop(
    servers: &[Running],
    readiness: &Readiness,
    pace: Pace,
    hurry: impl Future<Output = ()>,
) -> Stopped {
    readiness.set(false);
    let orderly = async {
        tokio::time::sleep(pace.delay).await;
        let mut stops = tokio::task::JoinSet::new();
        for server in servers {
            stops.spawn(server.shutdown(pace.grace));
        }
        stops.join_all().await.into_iter().sum()
    };
    tokio::select! {
        cut = orderly => match cut {
            0 => Stopped::Clean,
            cut => Stopped::Cut(cut),
        },
        () = hurry => {
            for server in servers {
                server.shutdown(Duration::ZERO).await;
            }
            Stopped::Hurried
        }
    }
}
