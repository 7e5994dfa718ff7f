//! What a handler gets: a [`Request`] with its [`RequestBody`].
//!
//! The body is pulled piece by piece, so a slow disk slows the client down and not the other way round: a client that
//! sends less than the least speed while it is waited for gets [`BodyError::Idle`]. Nothing is read, and no
//! `100 Continue` sent, before the handler asks for the first piece (UP-15).

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderValue, RANGE};
use http::{HeaderMap, Method, Uri, Version};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, Sleep};
use wharf_core::BodyError;
use wharf_core::Registry;
use wharf_core::access::{Caller, Certificate, Limited, Meter, Presented, RateKind};
use wharf_oci::{Authorization, RepositoryName};

use super::id::RequestId;
use super::limits::Progress;
use super::route::{Route, RouteError};

/// One request, its head parsed and its body still on the wire.
#[derive(Debug)]
pub struct Request {
    /// Names it in logs, errors and `X-Request-Id`.
    pub id: RequestId,
    /// The method.
    pub method: Method,
    /// What the path means.
    pub route: Result<Route, RouteError>,
    /// Path and query as they came.
    pub uri: Uri,
    /// The query without its `?`, still encoded; empty when there is none.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: RequestBody,
    /// Who is at the other end.
    pub peer: Peer,
    /// The certificate that it showed on its own connection. `None` too where another site's page sent the request, since browsers
    /// show certificates unasked, and where it came through a trusted proxy, whose certificate it is.
    pub certificate: Option<Arc<Certificate>>,
    /// The scheme that the client used, as far as it is known.
    pub scheme: Scheme,
    /// Host and port that the client asked for, from a trusted proxy when one says so.
    pub host: Option<String>,
    /// The protocol's version.
    pub version: Version,
}

impl Request {
    /// The path as it came, percent-encoded.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// What it shows of who it comes from.
    pub fn presented<'a>(&'a self, authorization: Option<&'a Authorization>) -> Presented<'a> {
        Presented {
            authorization,
            certificate: self.certificate.as_deref(),
        }
    }

    /// Counts this request for whoever sends it, or refuses it, which goes into the audit log. The repository is named only to those who may do there what they
    /// ask for.
    pub fn count(
        &self,
        registry: &Registry,
        caller: &Caller,
        repository: Option<&RepositoryName>,
    ) -> Result<(), Limited> {
        let kind = match self.method {
            Method::GET | Method::HEAD => RateKind::Reads,
            _ => RateKind::Writes,
        };
        let range = self.headers.get(RANGE).map(HeaderValue::as_bytes);
        let parts = [
            self.method.as_str().as_bytes(),
            self.path().as_bytes(),
            self.query.as_bytes(),
            range.unwrap_or_default(),
        ];
        let admitted = registry.access.admit(kind, caller, repository, &parts);
        if let Err(limited) = &admitted {
            let at = caller.circumstances.at;
            registry.audit.note(limited.sight(), at, self.id.as_str());
        }
        admitted
    }

    /// Whether the path lies below `/v2/`, where every error is OCI JSON.
    pub fn is_v2(&self) -> bool {
        is_v2(self.path())
    }

    /// Whether the path lies below `/api`, where every error is a problem of the management API.
    pub fn is_api(&self) -> bool {
        self.path() == "/api" || self.path().starts_with("/api/")
    }
}

pub(super) fn is_v2(path: &str) -> bool {
    path == "/v2" || path.starts_with("/v2/")
}

/// The other end of a connection, seen through trusted proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The client. Behind a trusted proxy its port is 0; `None` on a Unix socket without such a proxy.
    pub addr: Option<SocketAddr>,
    /// Whether it came through a Unix socket.
    pub unix: bool,
    /// Whether nobody on the way can read along: TLS, or a trusted proxy says so, or a Unix socket.
    pub secure: bool,
    /// Whether the address was told by a trusted proxy.
    pub proxied: bool,
}

impl Peer {
    /// Whether the client is on this machine.
    pub fn is_local(&self) -> bool {
        match self.addr {
            Some(addr) => addr.ip().to_canonical().is_loopback(),
            None => self.unix,
        }
    }
}

/// The scheme of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As it stands in URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A request's body, pulled by the handler.
#[derive(Debug)]
pub struct RequestBody {
    source: Source,
    len: Option<u64>,
    meter: Option<Box<Meter>>,
}

#[derive(Debug)]
enum Source {
    /// No body, or nothing left of it.
    Empty,
    /// In memory: unit tests of handlers.
    Memory(Bytes),
    /// On the wire.
    Wire(Box<Wire>),
}

#[derive(Debug)]
struct Wire {
    incoming: Incoming,
    announced: Option<u64>,
    progress: Progress,
    /// Of the current window: time waited for the client, bytes that came.
    waited: Duration,
    came: u64,
    sleep: Option<Pin<Box<Sleep>>>,
    shared: Arc<Shared>,
}

/// What the transport wants to know of a body after the handler let go of it.
#[derive(Debug, Default)]
pub(super) struct Shared {
    received: AtomicU64,
    /// The rest of a body that was not read to its end, and whether any of it was asked for.
    rest: Mutex<Option<Incoming>>,
    asked: AtomicBool,
    broken: AtomicBool,
}

impl Shared {
    /// Bytes that came.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whether the handler asked for the body, so that `100 Continue` may have been sent.
    pub(super) fn asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether the body ended early, so that nobody knows where the next request begins.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// What the handler left unread.
    pub(super) fn take_rest(&self) -> Option<Incoming> {
        match self.rest.lock() {
            Ok(mut rest) => rest.take(),
            Err(_) => None,
        }
    }
}

impl RequestBody {
    /// No body.
    pub fn empty() -> Self {
        Self {
            source: Source::Empty,
            len: Some(0),
            meter: None,
        }
    }

    pub(super) fn wire(incoming: Incoming, progress: Progress) -> (Self, Option<Arc<Shared>>) {
        if incoming.is_end_stream() {
            return (Self::empty(), None);
        }
        let shared = Arc::new(Shared::default());
        let len = incoming.size_hint().exact();
        let wire = Wire {
            incoming,
            announced: len,
            progress,
            waited: Duration::ZERO,
            came: 0,
            sleep: None,
            shared: Arc::clone(&shared),
        };
        let body = Self {
            source: Source::Wire(Box::new(wire)),
            len,
            meter: None,
        };
        (body, Some(shared))
    }

    /// The announced length in bytes; `None` when it comes in chunks of unknown number (UP-14).
    pub fn len(&self) -> Option<u64> {
        self.len
    }

    /// Has the bytes counted that come in.
    pub fn set_meter(&mut self, meter: Meter) {
        self.meter = Some(Box::new(meter));
    }

    /// Whether the body is known to have no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == Some(0)
    }

    /// The next bytes; `None` at the end. After an error there is nothing more.
    pub async fn chunk(&mut self) -> Option<Result<Bytes, BodyError>> {
        let item = match &mut self.source {
            Source::Empty => return None,
            Source::Memory(bytes) => {
                let bytes = std::mem::take(bytes);
                self.source = Source::Empty;
                return (!bytes.is_empty()).then_some(Ok(bytes));
            }
            Source::Wire(wire) => std::future::poll_fn(|cx| wire.poll_chunk(cx)).await,
        };
        if let (Some(meter), Some(Ok(bytes))) = (&mut self.meter, &item) {
            meter.pass(bytes.len() as u64);
        }
        if !matches!(item, Some(Ok(_))) {
            if let (Source::Wire(wire), Some(Err(_))) = (&self.source, &item) {
                wire.shared.broken.store(true, Ordering::Relaxed);
            }
            self.source = Source::Empty;
        }
        item
    }

    /// All of the body, or [`BodyError::TooLarge`] as soon as it is known to exceed `limit` bytes.
    pub async fn collect(&mut self, limit: u64) -> Result<Bytes, BodyError> {
        if self.len.is_some_and(|len| len > limit) {
            return Err(BodyError::TooLarge);
        }
        let Some(first) = self.chunk().await.transpose()? else {
            return Ok(Bytes::new());
        };
        let fits = |bytes: usize| bytes as u64 <= limit;
        if !fits(first.len()) {
            return Err(BodyError::TooLarge);
        }
        if self.len == Some(first.len() as u64) {
            return Ok(first);
        }
        let mut all = BytesMut::from(first);
        while let Some(more) = self.chunk().await.transpose()? {
            if !fits(all.len() + more.len()) {
                return Err(BodyError::TooLarge);
            }
            all.extend_from_slice(&more);
        }
        Ok(all.freeze())
    }
}

impl From<Bytes> for RequestBody {
    fn from(bytes: Bytes) -> Self {
        Self {
            len: Some(bytes.len() as u64),
            source: Source::Memory(bytes),
            meter: None,
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Source::Wire(wire) = std::mem::replace(&mut self.source, Source::Empty) {
            let Wire {
                incoming, shared, ..
            } = *wire;
            if !incoming.is_end_stream()
                && let Ok(mut rest) = shared.rest.lock()
            {
                *rest = Some(incoming);
            }
        }
    }
}

impl Wire {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        self.shared.asked.store(true, Ordering::Relaxed);
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers carry nothing that the protocol uses.
                    let Ok(bytes) = frame.into_data() else {
                        continue;
                    };
                    if bytes.is_empty() {
                        continue;
                    }
                    self.note(bytes.len() as u64);
                    return Poll::Ready(Some(Ok(bytes)));
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(%error, "request body broke off");
                    return Poll::Ready(Some(Err(BodyError::Truncated)));
                }
                // HTTP/2 lets a client end a stream without an error and before its announced length.
                Poll::Ready(None)
                    if self
                        .announced
                        .is_some_and(|len| self.shared.received() < len) =>
                {
                    return Poll::Ready(Some(Err(BodyError::Truncated)));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return self.poll_patience(cx),
            }
        }
    }

    fn note(&mut self, bytes: u64) {
        self.shared.received.fetch_add(bytes, Ordering::Relaxed);
        self.came += bytes;
        if let Some(sleep) = &self.sleep {
            // Only time spent waiting for the client counts, not time that the handler took between two pieces.
            let left = sleep.deadline().saturating_duration_since(Instant::now());
            self.waited = self.progress.window.saturating_sub(left);
            self.sleep = None;
        }
    }

    /// Nothing has come: waits on, unless the window is over and too little came within it.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            let left = self.progress.window.saturating_sub(self.waited);
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
            std::task::ready!(sleep.as_mut().poll(cx));
            if self.came < self.progress.bytes_per_window() {
                return Poll::Ready(Some(Err(BodyError::Idle)));
            }
            self.sleep = None;
            self.waited = Duration::ZERO;
            self.came = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn collecting_knows_its_limit() {
        let body = |text: &'static str| RequestBody::from(Bytes::from_static(text.as_bytes()));
        assert_eq!(body("abcd").collect(4).await, Ok("abcd".into()));
        assert_eq!(body("abcde").collect(4).await, Err(BodyError::TooLarge));
        assert_eq!(RequestBody::empty().collect(0).await, Ok(Bytes::new()));
        let mut unknown = body("abcde");
        unknown.len = None;
        assert_eq!(unknown.collect(4).await, Err(BodyError::TooLarge));
    }

    #[tokio::test]
    async fn pieces_end() {
        let mut body = RequestBody::from(Bytes::from_static(b"ab"));
        assert_eq!(body.len(), Some(2));
        assert_eq!(body.chunk().await, Some(Ok("ab".into())));
        assert_eq!(body.chunk().await, None);
    }
}
