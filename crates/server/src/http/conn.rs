//! One connection, from accept to close: handshake, protocol, hyper, discard.
//!
//! Called by `server` as a task for each accepted socket. hyper's own timers stay off; the [watch](super::watch) gives
//! its verdicts here.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::task::{Context, Poll};

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use tokio_util::task::TaskTracker;
use wharf_oci::{ErrorCode, ErrorEntry};

use super::Handler;
use super::forwarded::TrustedProxies;
use super::id::RequestIds;
use super::io::{Io, Protocol, Refused, Wire};
use super::limits::Limits;
use super::observer::{ConnectionEnd, Observer};
use super::sendfile::Lane;
use super::service;
use super::tls::{Ask, Shown, Tls};
use super::watch::{Registration, Verdict, Watch, Watched};

/// What all connections of a server have in common.
pub(super) struct Shared {
    pub(super) limits: Limits,
    pub(super) proxies: TrustedProxies,
    pub(super) observer: Arc<dyn Observer>,
    pub(super) ids: RequestIds,
    pub(super) watch: Arc<Watch>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) http1: http1::Builder,
    pub(super) tasks: TaskTracker,
    /// Whether somebody was told that their proxy is not trusted.
    pub(super) warned: AtomicBool,
}

/// What requests need to know of their connection.
pub(super) struct Conn {
    pub(super) shared: Arc<Shared>,
    pub(super) registration: Registration,
    pub(super) addr: Option<SocketAddr>,
    pub(super) trusted: bool,
    pub(super) tls: bool,
    /// The certificate that the client showed.
    pub(super) client: Option<Arc<Shown>>,
    pub(super) protocol: Protocol,
    pub(super) refused: Refused,
    /// How files go out by themselves, where they can.
    pub(super) lane: Option<Arc<Lane>>,
    pub(super) requests: AtomicU64,
    /// HTTP/2 streams that were answered, and that were reset before.
    pub(super) answered: AtomicU32,
    pub(super) reset: AtomicU32,
}

impl Conn {
    pub(super) fn watched(&self) -> &Watched {
        &self.registration.watched
    }
}

/// hyper's settings for HTTP/1.1, the same for all connections.
pub(super) fn http1(limits: &Limits) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        // The watch does it, for a fraction of a timer per request.
        .header_read_timeout(None)
        // A client that closes its side after asking still gets its answer, and no handler is torn by it.
        .half_close(true)
        // Uploads are read in pieces of up to this; it also bounds what waits to be written.
        .max_buf_size((128 * 1024).max(limits.header_size * 2));
    builder
}

fn http2(conn: &Arc<Conn>) -> http2::Builder<Streams> {
    let limits = &conn.shared.limits;
    let mut builder = http2::Builder::new(Streams(Arc::clone(conn)));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.h2_streams)
        // Reset before they were even accepted (CVE-2023-44487); those accepted are counted in `service`.
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(64)
        // Also bounds a flood of CONTINUATION frames.
        .max_header_list_size(u32::try_from(limits.header_size).unwrap_or(u32::MAX))
        // What a client may send before a handler takes it: per stream, and for all of them.
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(2 * 1024 * 1024)
        .max_send_buf_size(256 * 1024)
        // A vanished client must not hold its streams for ever.
        .keep_alive_interval(limits.body_progress.window)
        .keep_alive_timeout(limits.header_time);
    builder
}

/// Serves one accepted socket until it is closed.
pub(super) async fn serve<H: Handler>(
    shared: Arc<Shared>,
    handler: Arc<H>,
    wire: Wire,
    addr: Option<SocketAddr>,
    ask: Ask,
) {
    shared.observer.connection_opened();
    let end = serve_wire(&shared, handler, wire, addr, ask).await;
    shared.observer.connection_closed(end);
}

async fn serve_wire<H: Handler>(
    shared: &Arc<Shared>,
    handler: Arc<H>,
    wire: Wire,
    addr: Option<SocketAddr>,
    ask: Ask,
) -> ConnectionEnd {
    let registration = shared.watch.register();
    let watched = Arc::clone(&registration.watched);
    let refused = Refused::default();
    let deadline = Instant::now() + shared.limits.handshake_time;
    // Whoever connects and stays silent has cost nothing yet.
    let spoken = tokio::time::timeout_at(deadline, poll_fn(|cx| wire.poll_readable(cx)));
    match unless_judged(&watched, pin!(spoken)).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => {
            if shared.tls.is_some() && matches!(wire, Wire::Tcp(_)) {
                shared.observer.handshake_failed("timeout");
            }
            return ConnectionEnd::HeaderTimeout;
        }
        Err(end) => return end,
    }
    // On the heap for as long as it takes: the connection's task lives longer, and should be small.
    let opening = Box::pin(open(shared, wire, &refused, &watched, (deadline, ask)));
    let (io, tls, protocol, client) = match unless_judged(&watched, opening).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(end)) | Err(end) => return end,
    };
    let conn = Arc::new(Conn {
        shared: Arc::clone(shared),
        registration,
        addr,
        trusted: shared.proxies.trusts(addr.map(|addr| addr.ip())),
        tls,
        client,
        protocol,
        refused,
        lane: io.lane(protocol),
        requests: AtomicU64::new(0),
        answered: AtomicU32::new(0),
        reset: AtomicU32::new(0),
    });
    match protocol {
        Protocol::H1 => serve_h1(conn, handler, io).await,
        // Apart, so that the task of an HTTP/1 connection is not as large as HTTP/2 needs it.
        Protocol::H2 => Box::pin(serve_h2(conn, handler, io)).await,
    }
}

/// A connection that is ready for hyper: whether it is encrypted, its protocol, and the certificate that the client showed.
type Opened = (Io, bool, Protocol, Option<Arc<Shown>>);

/// Handshake and first bytes.
async fn open(
    shared: &Shared,
    wire: Wire,
    refused: &Refused,
    watched: &Arc<Watched>,
    (deadline, ask): (Instant, Ask),
) -> Result<Opened, ConnectionEnd> {
    let (wire, tls, alpn, client) = match (wire, &shared.tls) {
        (Wire::Tcp(stream), Some(tls)) => {
            let (stream, alpn) = handshake(shared, (tls, ask), stream, watched, deadline).await?;
            let client = match tls.judge() {
                Some(judge) => judge.shown(stream.get_ref().1, ask).map_err(|reason| {
                    tracing::debug!(reason, "the client's certificate is refused");
                    shared.observer.handshake_failed("certificate");
                    ConnectionEnd::Error
                })?,
                None => None,
            };
            (Wire::Tls(Box::new(stream)), true, alpn, client)
        }
        (wire, _) => (wire, false, None, None),
    };
    let max_head = shared.limits.header_size;
    let mut io = Io::new(wire, max_head, Arc::clone(refused), Arc::clone(watched));
    let protocol = match alpn {
        Some(Protocol::H2) => {
            io.speak_h2();
            Protocol::H2
        }
        Some(Protocol::H1) => Protocol::H1,
        None => match tokio::time::timeout_at(deadline, io.detect()).await {
            Ok(Ok(Some(protocol))) => protocol,
            Ok(Ok(None)) => return Err(ConnectionEnd::Done),
            Ok(Err(_)) => return Err(ConnectionEnd::Error),
            Err(_) => return Err(ConnectionEnd::HeaderTimeout),
        },
    };
    Ok((io, tls, protocol, client))
}

/// Runs a future as long as the watch has nothing against the connection.
async fn unless_judged<F: Future + Unpin>(
    watched: &Watched,
    mut future: F,
) -> Result<F::Output, ConnectionEnd> {
    poll_fn(move |cx| {
        watched.wake_with(cx.waker());
        match watched.verdict() {
            Verdict::Stay => Pin::new(&mut future).poll(cx).map(Ok),
            Verdict::Close(end) | Verdict::Kill(end) => Poll::Ready(Err(end)),
        }
    })
    .await
}

async fn handshake(
    shared: &Shared,
    (tls, ask): (&Tls, Ask),
    stream: TcpStream,
    watched: &Arc<Watched>,
    deadline: Instant,
) -> Result<(TlsStream<TcpStream>, Option<Protocol>), ConnectionEnd> {
    let failed = |reason| shared.observer.handshake_failed(reason);
    let work = async {
        let mut first = [0];
        // 22: the first byte of every TLS client.
        if stream.peek(&mut first).await? == 1 && first[0] != 22 {
            return Ok(Err(stream));
        }
        tls.acceptor(ask).accept(stream).await.map(Ok)
    };
    match tokio::time::timeout_at(deadline, work).await {
        Ok(Ok(Ok(stream))) => {
            let alpn = match stream.get_ref().1.alpn_protocol() {
                Some(b"h2") => Some(Protocol::H2),
                Some(_) => Some(Protocol::H1),
                None => None,
            };
            Ok((stream, alpn))
        }
        Ok(Ok(Err(stream))) => {
            failed("plain-http");
            speak_of_https(shared, stream, watched).await;
            Err(ConnectionEnd::Error)
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            failed(match error.kind() {
                std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => "closed",
                _ if is_about_certificate(&error) => "certificate",
                _ => "protocol",
            });
            Err(ConnectionEnd::Error)
        }
        Err(_) => {
            failed("timeout");
            Err(ConnectionEnd::HeaderTimeout)
        }
    }
}

/// Whether a handshake failed by the client's certificate, or for want of one.
fn is_about_certificate(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(
        inner,
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented)
    )
}

/// A client that speaks HTTP to a TLS port would otherwise see noise or a reset.
async fn speak_of_https(shared: &Shared, mut stream: TcpStream, watched: &Arc<Watched>) {
    let body = wharf_oci::error::body(&[ErrorEntry::new(
        ErrorCode::Unsupported,
        "this port speaks HTTPS; use an https:// address",
    )]);
    let mut answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend(body);
    let limits = &shared.limits;
    let _ = tokio::time::timeout(limits.discard_time, stream.write_all(&answer)).await;
    let io = Io::new(
        Wire::Tcp(stream),
        0,
        Refused::default(),
        Arc::clone(watched),
    );
    io.discard_and_close(limits.discard_bytes, limits.discard_time)
        .await;
}

/// How driving a connection came to an end.
enum Driven {
    /// hyper was done, without an error or with one, and perhaps because it was asked to.
    Done(bool, Option<ConnectionEnd>),
    /// It is to be dropped.
    Killed(ConnectionEnd),
    /// It is idle and may give up its buffers.
    Nap,
}

/// Drives hyper's connection of either kind until it ends by itself or by a verdict.
async fn drive<C>(conn: &mut C, close: impl Fn(&mut C), watched: &Watched, naps: bool) -> Driven
where
    C: Future<Output = hyper::Result<()>> + Unpin,
{
    let mut closing = None;
    poll_fn(|cx| {
        watched.wake_with(cx.waker());
        match watched.verdict() {
            Verdict::Stay => {}
            Verdict::Kill(end) => return Poll::Ready(Driven::Killed(end)),
            Verdict::Close(end) => {
                if closing.is_none() {
                    closing = Some(end);
                    close(conn);
                }
            }
        }
        match Pin::new(&mut *conn).poll(cx) {
            Poll::Ready(result) => {
                if let Err(error) = &result {
                    tracing::debug!(%error, "connection ended early");
                }
                Poll::Ready(Driven::Done(result.is_ok(), closing))
            }
            // After the poll: what there was to read has been read, and what was ready has been written.
            Poll::Pending if naps && closing.is_none() && watched.should_nap() => {
                Poll::Ready(Driven::Nap)
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn serve_h1<H: Handler>(conn: Arc<Conn>, handler: Arc<H>, mut io: Io) -> ConnectionEnd {
    let watched = Arc::clone(&conn.registration.watched);
    loop {
        let service = service_fn({
            let (conn, handler) = (Arc::clone(&conn), Arc::clone(&handler));
            move |request| service::answer(Arc::clone(&conn), Arc::clone(&handler), request)
        });
        let http1 = &conn.shared.http1;
        // On the heap, so that the task is small while nothing is going on.
        let mut h1 = Box::new(http1.serve_connection(TokioIo::new(io), service));
        watched.may_nap();
        let (sound, asked) = match drive(
            &mut h1,
            |h1| Pin::new(&mut **h1).graceful_shutdown(),
            &watched,
            true,
        )
        .await
        {
            Driven::Killed(end) => return end,
            Driven::Done(sound, asked) => (sound, asked),
            Driven::Nap => {
                // hyper keeps two buffers of 8 KiB and the space of the last request, which most connections of a
                // cluster would hold for nothing most of the time. So it is taken down until the next bytes come.
                let http1::Parts {
                    io: inner,
                    read_buf,
                    service,
                    ..
                } = h1.into_parts();
                io = inner.into_inner();
                // Never taken for a request: the rest of a body that nobody reads.
                if read_buf.is_empty() && !io.is_between_requests() {
                    return ConnectionEnd::Error;
                }
                io.put_back(&read_buf);
                drop((read_buf, service));
                match unless_judged(&watched, poll_fn(|cx| io.poll_readable(cx))).await {
                    Ok(()) => continue,
                    Err(end) => return end,
                }
            }
        };
        io = h1.into_parts().io.into_inner();
        let idle = matches!(asked, Some(ConnectionEnd::Idle | ConnectionEnd::Shutdown));
        if !io.is_ended() && !idle {
            let limits = &conn.shared.limits;
            Box::pin(io.discard_and_close(limits.discard_bytes, limits.discard_time)).await;
        }
        return asked.unwrap_or(if sound {
            ConnectionEnd::Done
        } else {
            ConnectionEnd::Error
        });
    }
}

async fn serve_h2<H: Handler>(conn: Arc<Conn>, handler: Arc<H>, io: Io) -> ConnectionEnd {
    let watched = Arc::clone(&conn.registration.watched);
    let service = service_fn({
        let conn = Arc::clone(&conn);
        move |request| service::answer(Arc::clone(&conn), Arc::clone(&handler), request)
    });
    let mut h2 = http2(&conn).serve_connection(TokioIo::new(io), service);
    match drive(
        &mut h2,
        |h2| Pin::new(h2).graceful_shutdown(),
        &watched,
        false,
    )
    .await
    {
        Driven::Killed(end) | Driven::Done(_, Some(end)) => end,
        Driven::Done(true, None) | Driven::Nap => ConnectionEnd::Done,
        Driven::Done(false, None) => ConnectionEnd::Error,
    }
}

/// Runs the streams of one HTTP/2 connection, each as a task that the watch can end without the others.
#[derive(Clone)]
pub(super) struct Streams(Arc<Conn>);

tokio::task_local! {
    /// The marks of the stream whose task is running.
    pub(super) static STREAM: Arc<Watched>;
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        let shared = &self.0.shared;
        let registration = shared.watch.register();
        shared.tasks.spawn(Stream {
            future,
            registration,
        });
    }
}

pin_project_lite::pin_project! {
    struct Stream<F> {
        #[pin]
        future: F,
        registration: Registration,
    }
}

impl<F: Future> Future for Stream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let watched = &this.registration.watched;
        watched.wake_with(cx.waker());
        if matches!(watched.verdict(), Verdict::Kill(_)) {
            // Dropping the stream resets it.
            return Poll::Ready(());
        }
        STREAM
            .sync_scope(Arc::clone(watched), || this.future.poll(cx))
            .map(drop)
    }
}
