//! Accepting: from bound [`Listeners`] to running connections, and the handle that stops them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Handler;
use super::conn::{self, Shared};
use super::forwarded::TrustedProxies;
use super::id::RequestIds;
use super::io::Wire;
use super::limits::Limits;
use super::listener::{BoundAddr, Listener, Listeners};
use super::observer::{Observer, Silent};
use super::tls::{self, Ask, Tls};
use super::watch::Watch;

/// How long to pause when the system has no file descriptor or memory for another connection.
const OUT_OF_MEANS: Duration = Duration::from_millis(100);
/// Idle connections that are asked to make room when a listener is full.
const SHED: usize = 64;
/// How long they must have been idle, and how often they are asked.
const SHED_AGE: Duration = Duration::from_secs(1);

/// What a server is made of.
pub struct ServerOptions {
    /// Where to accept.
    pub listeners: Listeners,
    /// Encrypts all TCP listeners. Unix sockets stay plain.
    pub tls: Option<Arc<Tls>>,
    /// How much clients may cost.
    pub limits: Limits,
    /// Whom to believe about where requests come from.
    pub trusted_proxies: TrustedProxies,
    /// Who is told what happens.
    pub observer: Arc<dyn Observer>,
    /// Makes request ids differ from start to start; random.
    pub id_key: u64,
}

impl ServerOptions {
    /// Plain, with default limits, trusting nobody, telling nobody.
    pub fn new(listeners: Listeners) -> Self {
        Self {
            listeners,
            tls: None,
            limits: Limits::default(),
            trusted_proxies: TrustedProxies::default(),
            observer: Arc::new(Silent),
            id_key: 0,
        }
    }
}

/// Starts servers.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Accepts on all listeners, in tasks of the current runtime, until [`Running`] is told to stop or dropped.
    pub fn start<H: Handler>(options: ServerOptions, handler: Arc<H>) -> Running {
        let addrs = options.listeners.addrs();
        let watch = Arc::new(Watch::new(&options.limits));
        let shared = Arc::new(Shared {
            http1: conn::http1(&options.limits),
            limits: options.limits,
            proxies: options.trusted_proxies,
            observer: options.observer,
            ids: RequestIds::new(options.id_key),
            watch: Arc::clone(&watch),
            tls: options.tls,
            tasks: TaskTracker::new(),
            warned: AtomicBool::new(false),
        });
        let accepting = CancellationToken::new();
        let ended = CancellationToken::new();
        for (given, listener) in options.listeners.list {
            let (ours, handler) = (Arc::clone(&shared), Arc::clone(&handler));
            let ask = shared
                .tls
                .as_ref()
                .map_or(Ask::Never, |tls| tls.ask(&given));
            let accepting = accepting.clone();
            shared.tasks.spawn(async move {
                let gate = Gate::new(ours, handler, ask);
                accepting.run_until_cancelled(gate.accept(&listener)).await;
                gate.close(listener);
            });
        }
        let looking = {
            let watch = Arc::clone(&watch);
            async move { watch.run().await }
        };
        tokio::spawn(ended.clone().run_until_cancelled_owned(looking));
        if let Some(tls) = &shared.tls {
            let renewing = renew(Arc::clone(tls));
            tokio::spawn(ended.clone().run_until_cancelled_owned(renewing));
        }
        Running {
            addrs,
            shared,
            accepting,
            _ended: ended.drop_guard(),
        }
    }
}

/// Where connections come in, by one listener.
struct Gate<H> {
    shared: Arc<Shared>,
    handler: Arc<H>,
    places: Arc<Semaphore>,
    /// Whether clients are asked for certificates here.
    ask: Ask,
}

impl<H: Handler> Gate<H> {
    fn new(shared: Arc<Shared>, handler: Arc<H>, ask: Ask) -> Self {
        Self {
            ask,
            places: Arc::new(Semaphore::new(shared.limits.connections.max(1))),
            shared,
            handler,
        }
    }

    async fn accept(&self, listener: &Listener) {
        loop {
            match listener.accept().await {
                Ok((wire, addr)) => {
                    let Some(place) = place(&self.places, &self.shared).await else {
                        return;
                    };
                    self.serve(place, wire, addr);
                }
                Err(error) if concerns_one_connection(&error) => {}
                Err(error) => {
                    self.shared.observer.accept_failed(&error);
                    tracing::error!(%error, "cannot accept connections; is the limit of open files too low?");
                    tokio::time::sleep(OUT_OF_MEANS).await;
                }
            }
        }
    }

    /// Takes in what the kernel has accepted already, then closes: to the other side these are connections, and they would be reset
    /// with their requests.
    fn close(&self, listener: Listener) {
        for (wire, addr) in listener.rest() {
            match Arc::clone(&self.places).try_acquire_owned() {
                Ok(place) => self.serve(place, wire, addr),
                Err(_) => return,
            }
        }
    }

    fn serve(&self, place: OwnedSemaphorePermit, wire: Wire, addr: Option<SocketAddr>) {
        let serving = conn::serve(
            Arc::clone(&self.shared),
            Arc::clone(&self.handler),
            wire,
            addr,
            self.ask,
        );
        self.shared.tasks.spawn(async move {
            serving.await;
            drop(place);
        });
    }
}

/// A place for one more connection. While there is none, connections that only sit there are asked to make room.
async fn place(places: &Arc<Semaphore>, shared: &Shared) -> Option<OwnedSemaphorePermit> {
    loop {
        let free = Arc::clone(places).acquire_owned();
        if places.available_permits() == 0 {
            shared.watch.shed(SHED_AGE, SHED);
        }
        if let Ok(place) = tokio::time::timeout(SHED_AGE, free).await {
            return place.ok();
        }
    }
}

/// Clients that went away while they waited (accept(2)).
fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

async fn renew(certificate: Arc<Tls>) {
    let mut complained = false;
    loop {
        tokio::time::sleep(tls::POLL).await;
        let tls = Arc::clone(&certificate);
        match tokio::task::spawn_blocking(move || tls.reload()).await {
            Ok(Ok(false)) | Err(_) => {}
            Ok(Ok(true)) => {
                complained = false;
                tracing::info!(
                    fingerprint = certificate.fingerprint(),
                    "new TLS certificate in use"
                );
            }
            // In the middle of a renewal this is normal, so it is said once.
            Ok(Err(error)) if !complained => {
                complained = true;
                tracing::warn!(%error, "new TLS files cannot be used; what was read before stays in force");
            }
            Ok(Err(_)) => {}
        }
    }
}

/// A server that runs. Dropping it stops accepting; connections go on until [`Running::shutdown`].
pub struct Running {
    addrs: Vec<BoundAddr>,
    shared: Arc<Shared>,
    accepting: CancellationToken,
    _ended: tokio_util::sync::DropGuard,
}

impl Running {
    /// Where it listens, with the ports that the kernel chose.
    pub fn addrs(&self) -> &[BoundAddr] {
        &self.addrs
    }

    /// Stops accepting, lets idle connections go and running requests finish, those of connections that only just came as well. After
    /// `grace` the rest is cut off; gives the number of those connections and streams.
    pub fn shutdown(&self, grace: Duration) -> impl Future<Output = usize> + Send + use<> {
        let (shared, accepting) = (Arc::clone(&self.shared), self.accepting.clone());
        async move {
            accepting.cancel();
            shared.tasks.close();
            shared.watch.close_all();
            if tokio::time::timeout(grace, shared.tasks.wait())
                .await
                .is_ok()
            {
                return 0;
            }
            let cut = shared.watch.kill_all();
            // Killed ones go at once; a handler that does not yield must not hold up the exit.
            let _ = tokio::time::timeout(Duration::from_secs(1), shared.tasks.wait()).await;
            cut
        }
    }

    /// Whether a stop has begun.
    pub fn is_stopping(&self) -> bool {
        self.accepting.is_cancelled()
    }

    /// The certificate, to reload it on demand.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.shared.tls.as_ref()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.accepting.cancel();
    }
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("addrs", &self.addrs)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Body, Request, Response};
    use super::*;

    struct Nothing;

    impl Handler for Nothing {
        async fn handle(&self, _: Request) -> Response {
            Response::new(Body::empty())
        }
    }

    /// Ten thousand idle connections cost ten thousand times this, and hyper's buffers.
    #[tokio::test]
    async fn a_connection_is_a_small_task() {
        let options = ServerOptions::new(Listeners::bind(&[]).unwrap());
        let running = Server::start(options, Arc::new(Nothing));
        let (ours, _theirs) = tokio::net::UnixStream::pair().unwrap();
        let shared = Arc::clone(&running.shared);
        let serving = conn::serve(
            shared,
            Arc::new(Nothing),
            Wire::Unix(ours),
            None,
            Ask::Never,
        );
        let size = size_of_val(&serving);
        assert!(size < 3 * 1024, "{size} bytes");
    }
}
