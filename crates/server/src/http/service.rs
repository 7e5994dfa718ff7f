//! One request: from hyper's to ours, through the handler, and back.
//!
//! What every answer must have is added here and nowhere else. What a request must have is checked here as far as
//! `framing` could not. Called by `conn` for each request; HTTP/1.1 and HTTP/2 alike.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Buf as _;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, STRICT_TRANSPORT_SECURITY,
    TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Method, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use rustls_pki_types::UnixTime;
use wharf_core::access::{Certificate, Meter};
use wharf_oci::ErrorCode;

use super::body::{Body, Facts, SendError};
use super::conn::{Conn, STREAM};
use super::error::ApiError;
use super::id::RequestId;
use super::io::Protocol;
use super::observer::{ConnectionEnd, Finished};
use super::request::{self, Peer, Request, RequestBody, Scheme};
use super::sendfile::{Lane, Piece};
use super::watch::{Verdict, Watched};
use super::{Handler, Response, forwarded, route};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");

/// An unread body up to this size is read after the answer is known, so that the connection can stay open.
const SMALL_REST: u64 = 64 * 1024;
/// How long that may take.
const SMALL_REST_TIME: Duration = Duration::from_millis(100);

/// Answers one request.
pub(super) async fn answer<H: Handler>(
    conn: Arc<Conn>,
    handler: Arc<H>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<OutBody>, Infallible> {
    let number = conn.requests.fetch_add(1, Relaxed) + 1;
    let (head, incoming) = request.into_parts();
    let progress = conn.shared.limits.body_progress;
    let expects = head.headers.contains_key(EXPECT);
    let (body, left) = RequestBody::wire(incoming, progress);
    let head_only = head.method == Method::HEAD;
    let v2 = request::is_v2(head.uri.path());
    let mut ticket = Ticket::new(conn, number, &head, left);

    let (response, https) = match ticket.refusal() {
        Some(answer) => (answer, ticket.conn.tls),
        None => ask(&mut ticket, handler, head, body).await,
    };
    Ok(finish(ticket, response, expects, head_only, v2, https).await)
}

/// Makes the request and hands it to the handler. Also tells whether the client came by HTTPS.
async fn ask<H: Handler>(
    ticket: &mut Ticket,
    handler: Arc<H>,
    head: http::request::Parts,
    body: RequestBody,
) -> (Response, bool) {
    let conn = Arc::clone(&ticket.conn);
    let host = match check_head(&head, conn.protocol) {
        Ok(host) => host,
        Err(error) => return (error.into_response(), conn.tls),
    };
    let (peer, scheme, host) = origin(&conn, &head.headers, host);
    ticket.peer = peer.addr;
    let certificate = match certificate(&conn, &head.headers) {
        Ok(certificate) => certificate,
        Err(error) => return (error.into_response(), conn.tls),
    };
    let route = route::parse(head.uri.path());
    ticket.route = route.as_ref().map_or("unknown", |route| route.label());
    let request = Request {
        id: ticket.id,
        method: head.method,
        route,
        query: head.uri.query().unwrap_or_default().to_owned(),
        uri: head.uri,
        headers: head.headers,
        body,
        peer,
        certificate,
        scheme,
        host,
        version: head.version,
    };
    // What writes goes on when the client is gone and this future with it: bytes that arrived are claimed, so that a
    // resume goes on from there (UP-31), and nothing is left half done. The body ends in an error then.
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    let answer = async move { handler.handle(request).await };
    let answered = if reads {
        CatchUnwind(pin!(answer)).await
    } else {
        let task = conn.shared.tasks.spawn(answer);
        task.await.map_err(|error| match error.try_into_panic() {
            Ok(cause) => cause,
            Err(error) => Box::new(error.to_string()),
        })
    };
    let response = match answered {
        Ok(response) => response,
        Err(cause) => {
            let cause = cause
                .downcast_ref::<&str>()
                .copied()
                .or_else(|| cause.downcast_ref::<String>().map(String::as_str))
                .unwrap_or("no message");
            tracing::error!(request_id = %ticket.id, route = ticket.route, cause, "handler panicked");
            conn.shared.observer.handler_panicked(ticket.route);
            ApiError::internal().into_response()
        }
    };
    (response, scheme == Scheme::Https)
}

/// What the framing leaves open: the host that is meant, and expectations. Gives the host.
fn check_head(head: &http::request::Parts, protocol: Protocol) -> Result<Option<String>, ApiError> {
    let bad = |message: &str| {
        ApiError::new(ErrorCode::Unsupported, message).with_status(StatusCode::BAD_REQUEST)
    };
    if let Some(expect) = head.headers.get(EXPECT)
        && !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(ApiError::new(
            ErrorCode::Unsupported,
            "the only expectation that is understood is 100-continue",
        )
        .with_status(StatusCode::EXPECTATION_FAILED));
    }
    if head.method == Method::CONNECT {
        return Err(bad("this is no proxy: CONNECT is not served"));
    }
    if protocol == Protocol::H2 && head.headers.contains_key(TRANSFER_ENCODING) {
        return Err(bad("HTTP/2 has no Transfer-Encoding"));
    }
    let named = head.headers.get(HOST);
    let named = match named.map(|value| value.to_str()) {
        Some(Ok(text)) if text.is_empty() || forwarded::is_authority(text) => Some(text),
        Some(_) => return Err(bad("the Host header is no host")),
        None => None,
    };
    match (head.uri.authority(), named) {
        (Some(authority), named) => {
            let authority = authority.as_str();
            if named.is_some_and(|named| !named.eq_ignore_ascii_case(authority)) {
                return Err(bad("the request names two different hosts"));
            }
            Ok(Some(authority.to_owned()))
        }
        (None, named) => Ok(named.filter(|text| !text.is_empty()).map(str::to_owned)),
    }
}

/// The client's certificate, if the request may count as its holder's. One that is good no longer ends the connection.
fn certificate(conn: &Conn, headers: &HeaderMap) -> Result<Option<Arc<Certificate>>, ApiError> {
    let (Some(shown), Some(tls)) = (&conn.client, &conn.shared.tls) else {
        return Ok(None);
    };
    if let Some(judge) = tls.judge() {
        judge.still(shown, UnixTime::now()).map_err(|reason| {
            tracing::debug!(reason, "a client certificate is good no longer");
            conn.watched().judge(Verdict::Close(ConnectionEnd::Done));
            let text =
                "the client certificate was revoked, or has expired; connect with another one";
            ApiError::new(ErrorCode::Unauthorized, text)
        })?;
    }
    let site = headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes);
    let ours = matches!(site, None | Some(b"same-origin" | b"none"));
    // A proxy's certificate says who the proxy is, and nothing of those behind it.
    let proxied = conn.trusted && forwarded::present(headers);
    Ok((ours && !proxied).then(|| Arc::clone(&shown.certificate)))
}

/// Where the request comes from, through trusted proxies.
fn origin(
    conn: &Conn,
    headers: &HeaderMap,
    host: Option<String>,
) -> (Peer, Scheme, Option<String>) {
    let mut scheme = if conn.tls {
        Scheme::Https
    } else {
        Scheme::Http
    };
    let mut host = host;
    let mut peer = Peer {
        addr: conn.addr,
        unix: conn.addr.is_none(),
        secure: conn.tls || conn.addr.is_none(),
        proxied: false,
    };
    if !forwarded::present(headers) {
        return (peer, scheme, host);
    }
    if !conn.trusted {
        if !conn.shared.warned.swap(true, Relaxed) {
            let from = conn
                .addr
                .map_or_else(|| "unix".to_owned(), |addr| addr.ip().to_string());
            tracing::warn!(
                from,
                "ignored X-Forwarded headers from an address that is not trusted; \
                 if a proxy runs there, add it to server.trusted_proxies"
            );
        }
        return (peer, scheme, host);
    }
    let said = forwarded::read(headers, &conn.shared.proxies);
    if let Some(ip) = said.client {
        peer.addr = Some(SocketAddr::new(ip, 0));
        peer.proxied = true;
    }
    if let Some(told) = said.scheme {
        scheme = told;
        peer.secure = told == Scheme::Https;
    }
    if said.host.is_some() {
        host = said.host;
    }
    (peer, scheme, host)
}

/// Completes an answer: what is left of the request, the headers that all have, the length.
async fn finish(
    mut ticket: Ticket,
    mut response: Response,
    expects: bool,
    head_only: bool,
    v2: bool,
    https: bool,
) -> hyper::Response<OutBody> {
    let conn = Arc::clone(&ticket.conn);
    let mut close = ticket.refused;
    if let Some(left) = &ticket.left {
        if let Some(rest) = left.take_rest() {
            // A client that waits for 100 Continue may send the body or not; only closing is unambiguous.
            let untouched = expects && !left.asked();
            // On HTTP/2 the stream would be reset behind the answer, which some clients take for a failure of the whole.
            let all = !untouched && read_small_rest(rest).await;
            close |= conn.protocol == Protocol::H1 && !all;
        }
        close |= left.is_broken();
    }
    if let Some(refusal) = ticket.refusal() {
        response = refusal;
        close = true;
    }
    if ticket.number >= conn.shared.limits.requests_per_connection {
        close = true;
        if conn.protocol == Protocol::H2 {
            conn.watched().judge(Verdict::Close(ConnectionEnd::Done));
        }
    }
    // hyper hears of it only when this answer is on its way.
    close |= conn.watched().verdict() != Verdict::Stay;

    let status = response.status();
    ticket.status = Some(status);
    response.body_mut().render(ticket.id.as_str());
    ticket.facts = response.body_mut().take_facts();
    ticket.meter = response.body_mut().take_meter();
    let len = response.body().remaining();
    let h2 = conn.protocol == Protocol::H2;
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, ticket.id.header());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if v2 {
        headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    }
    if https {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(STRICT_TRANSPORT_SECURITY, year);
    }
    if close && !h2 {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let bare = status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || status.is_informational();
    if head_only || bare {
        // What a HEAD's handler announces stays; it is the length of a body that is not sent (API-6).
        if status == StatusCode::NO_CONTENT {
            headers.remove(CONTENT_LENGTH);
        } else if head_only && len > 0 && !headers.contains_key(CONTENT_LENGTH) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
        }
        *response.body_mut() = Body::empty();
    } else if h2 {
        // hyper does it for HTTP/1, and would leave out a zero here.
        headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
    } else {
        headers.remove(CONTENT_LENGTH);
    }

    let stream = STREAM.try_with(Arc::clone).ok();
    if let Some(stream) = &stream {
        stream.handed_over(
            usize::try_from(response.body().remaining())
                .unwrap_or(0)
                .min(64 * 1024),
        );
    }
    let streamed = response.body().is_streamed();
    ticket.sent = if streamed {
        0
    } else {
        response.body().remaining()
    };
    ticket.complete = !streamed;
    if let Some(meter) = &mut ticket.meter {
        meter.pass(ticket.sent);
    }
    response.map(|body| OutBody {
        body,
        lane: conn.lane.clone(),
        stream,
        ticket: streamed.then(|| Box::new(ticket)),
    })
}

/// Whether the rest of a body was small, and could be read away.
async fn read_small_rest(mut rest: Incoming) -> bool {
    if rest.size_hint().lower() > SMALL_REST {
        return false;
    }
    let read = async {
        let mut left = SMALL_REST;
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut rest).poll_frame(cx)).await {
            let came = frame.ok()?.data_ref().map_or(0, |bytes| bytes.len() as u64);
            left = left.checked_sub(came)?;
        }
        Some(())
    };
    matches!(
        tokio::time::timeout(SMALL_REST_TIME, read).await,
        Ok(Some(()))
    )
}

/// Turns a panic of the inner future into its payload.
struct CatchUnwind<F>(F);

impl<F: Future + Unpin> Future for CatchUnwind<F> {
    type Output = std::thread::Result<F::Output>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // The future is not polled again after a panic, so what it left behind is never seen.
        match catch_unwind(AssertUnwindSafe(|| Pin::new(&mut self.0).poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(cause) => Poll::Ready(Err(cause)),
        }
    }
}

/// A request between its head and the end of its answer. Dropping it tells the observer.
struct Ticket {
    conn: Arc<Conn>,
    number: u64,
    id: RequestId,
    method: Method,
    version: Version,
    route: &'static str,
    peer: Option<SocketAddr>,
    start: Instant,
    left: Option<Arc<request::Shared>>,
    status: Option<StatusCode>,
    facts: Option<Box<Facts>>,
    meter: Option<Box<Meter>>,
    sent: u64,
    complete: bool,
    refused: bool,
}

impl Ticket {
    fn new(
        conn: Arc<Conn>,
        number: u64,
        head: &http::request::Parts,
        left: Option<Arc<request::Shared>>,
    ) -> Self {
        conn.watched().request_begins();
        let told = head.headers.get(&X_REQUEST_ID).filter(|_| conn.trusted);
        let id = told
            .and_then(|value| RequestId::accept(value.as_bytes()))
            .unwrap_or_else(|| conn.shared.ids.make());
        Self {
            number,
            id,
            method: head.method.clone(),
            version: head.version,
            route: "unknown",
            peer: conn.addr,
            start: Instant::now(),
            left,
            status: None,
            facts: None,
            meter: None,
            sent: 0,
            complete: false,
            refused: false,
            conn,
        }
    }

    /// The answer to this request if the framing refused it, before or meanwhile. Given once.
    fn refusal(&mut self) -> Option<Response> {
        let (at, refusal) = self.conn.refused.get()?;
        if *at != self.number || std::mem::replace(&mut self.refused, true) {
            return None;
        }
        self.conn.shared.observer.request_malformed(refusal.label());
        Some(refusal.answer().into_response())
    }

    /// HTTP/2 lets a client open and reset streams without end, each of them work for us.
    fn count_stream(&self) {
        let conn = &self.conn;
        if self.status.is_some() {
            conn.answered.fetch_add(1, Relaxed);
            return;
        }
        let reset = conn.reset.fetch_add(1, Relaxed) + 1;
        if reset > conn.shared.limits.h2_resets && reset > conn.answered.load(Relaxed) {
            conn.watched().judge(Verdict::Kill(ConnectionEnd::Resets));
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let conn = &self.conn;
        if conn.protocol == Protocol::H2 {
            self.count_stream();
        }
        conn.watched().request_ends();
        conn.shared.observer.request_finished(&Finished {
            id: &self.id,
            method: &self.method,
            route: self.route,
            status: self.status,
            complete: self.complete,
            bytes_in: self.left.as_ref().map_or(0, |left| left.received()),
            bytes_out: self.sent,
            duration: self.start.elapsed(),
            version: self.version,
            peer: self.peer,
            facts: self.facts.as_deref(),
        });
    }
}

/// A [`Body`] on its way out, with its ticket as long as it takes.
pub(super) struct OutBody {
    body: Body,
    lane: Option<Arc<Lane>>,
    stream: Option<Arc<Watched>>,
    ticket: Option<Box<Ticket>>,
}

impl http_body::Body for OutBody {
    type Data = Piece;
    type Error = SendError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, SendError>>> {
        let this = &mut *self;
        if let Some(stream) = &this.stream {
            stream.unblocks();
        }
        let piece = std::task::ready!(this.body.poll_data(cx, this.lane.as_ref()));
        match &piece {
            Some(Ok(piece)) => {
                let bytes = piece.remaining();
                if let Some(stream) = &this.stream {
                    stream.handed_over(bytes);
                }
                if let Some(ticket) = &mut this.ticket {
                    ticket.sent += bytes as u64;
                    if let Some(meter) = &mut ticket.meter {
                        meter.pass(bytes as u64);
                    }
                    ticket.complete = this.body.is_end_stream();
                }
            }
            Some(Err(error)) => {
                if let Some(ticket) = &this.ticket {
                    tracing::error!(request_id = %ticket.id, %error, "answer broke off");
                }
            }
            None => {}
        }
        if this.body.is_end_stream() {
            this.ticket = None;
        }
        Poll::Ready(piece.map(|piece| piece.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
