//! A small client: says exactly what a test wants said, over HTTP/1.1 or HTTP/2, and shows everything that comes back.
//!
//! It follows no redirect, fetches no token and retries nothing. Each [`Request::send`] uses a connection of its own;
//! tests of kept-alive connections take a [`Connection`].

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use wharf_oci::{Authorization, Challenge, Digest};

use crate::content::{Content, Image};

/// Longest that any one request of a test may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which HTTP a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, by ALPN or with prior knowledge.
    Http2,
}

impl Version {
    /// Both, for tests of what must not depend on it.
    pub const ALL: [Version; 2] = [Version::Http1, Version::Http2];
}

/// Where and how to send requests. A clone is cheap.
#[derive(Clone)]
pub struct Client {
    addr: SocketAddr,
    /// `host:port` as clients would write it.
    authority: String,
    tls: Option<Arc<rustls::ClientConfig>>,
    version: Version,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// Plain HTTP to an address.
    pub fn new(addr: SocketAddr, version: Version) -> Client {
        Client {
            addr,
            authority: addr.to_string(),
            tls: None,
            version,
            authorization: None,
        }
    }

    /// TLS with the given trust. The server is called `localhost`.
    pub fn with_tls(mut self, config: &rustls::ClientConfig) -> Client {
        self.authority = format!("localhost:{}", self.addr.port());
        self.tls = Some(Arc::new(config.clone()));
        let version = self.version;
        self.with_version(version)
    }

    /// The same, speaking another version.
    pub fn with_version(mut self, version: Version) -> Client {
        self.version = version;
        if let Some(tls) = &mut self.tls {
            let protocol: &[u8] = if version == Version::Http2 {
                b"h2"
            } else {
                b"http/1.1"
            };
            Arc::make_mut(tls).alpn_protocols = vec![protocol.to_vec()];
        }
        self
    }

    /// The same, with user and password on every request.
    pub fn with_basic(self, user: &str, password: &str) -> Client {
        self.with_authorization(&Authorization::basic(user, password))
    }

    /// The same, with a token on every request.
    pub fn with_token(self, token: &str) -> Client {
        self.with_authorization(&format!("Bearer {token}"))
    }

    /// The same, with any `Authorization`.
    pub fn with_authorization(mut self, value: &str) -> Client {
        self.authorization = Some(HeaderValue::from_str(value).expect("a header value"));
        self
    }

    /// The same, without credentials.
    pub fn anonymous(mut self) -> Client {
        self.authorization = None;
        self
    }

    /// Which version it speaks.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Where it connects to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `host:port` as it stands in `Host`.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// A request to a path with query, or to an absolute URL whose host is then this server whatever it says.
    pub fn request(&self, method: Method, target: &str) -> Request {
        let path = match target.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => target,
        };
        let mut headers = HeaderMap::new();
        headers.insert(
            header::HOST,
            HeaderValue::from_str(&self.authority).expect("a header value"),
        );
        if let Some(authorization) = &self.authorization {
            headers.insert(header::AUTHORIZATION, authorization.clone());
        }
        Request {
            client: self.clone(),
            method,
            path: path.into(),
            headers,
            body: Script::default(),
        }
    }

    /// `GET`.
    pub fn get(&self, target: &str) -> Request {
        self.request(Method::GET, target)
    }

    /// `HEAD`.
    pub fn head(&self, target: &str) -> Request {
        self.request(Method::HEAD, target)
    }

    /// `POST`.
    pub fn post(&self, target: &str) -> Request {
        self.request(Method::POST, target)
    }

    /// `PUT`.
    pub fn put(&self, target: &str) -> Request {
        self.request(Method::PUT, target)
    }

    /// `PATCH`.
    pub fn patch(&self, target: &str) -> Request {
        self.request(Method::PATCH, target)
    }

    /// `DELETE`.
    pub fn delete(&self, target: &str) -> Request {
        self.request(Method::DELETE, target)
    }

    /// Opens a connection that carries several requests.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(self.addr).await.context("connect")?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => self.handshake(stream).await,
            Some(tls) => {
                let name =
                    rustls_pki_types::ServerName::try_from("localhost").expect("a valid name");
                let stream = tokio_rustls::TlsConnector::from(tls.clone())
                    .connect(name, stream)
                    .await
                    .context("TLS")?;
                self.handshake(stream).await
            }
        }
    }

    async fn handshake<S>(&self, stream: S) -> anyhow::Result<Connection>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        Ok(match self.version {
            Version::Http1 => {
                let (sender, connection) =
                    http1::handshake(io).await.context("HTTP/1.1 handshake")?;
                tokio::spawn(connection);
                Connection::Http1(sender)
            }
            Version::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io)
                    .await
                    .context("HTTP/2 handshake")?;
                tokio::spawn(connection);
                Connection::Http2(sender)
            }
        })
    }

    /// Opens an upload session and gives back its location.
    pub async fn start_upload(&self, name: &str) -> String {
        let response = self
            .post(&format!("/v2/{name}/blobs/uploads/"))
            .send()
            .await
            .expect_status(202);
        response.location().to_owned()
    }

    /// Pushes a blob by session and one PUT.
    pub async fn push_blob(&self, name: &str, blob: &Content) {
        let location = self.start_upload(name).await;
        let target = with_query(&location, &format!("digest={}", blob.digest));
        self.put(&target)
            .body(blob.bytes.clone())
            .send()
            .await
            .expect_status(201);
    }

    /// Pushes a manifest under a tag or digest.
    pub async fn push_manifest(&self, name: &str, reference: &str, manifest: &Content) -> Response {
        self.put_manifest(name, reference, manifest)
            .send()
            .await
            .expect_status(201)
    }

    /// The request that pushes a manifest, to be changed or sent.
    pub fn put_manifest(&self, name: &str, reference: &str, manifest: &Content) -> Request {
        self.put(&format!("/v2/{name}/manifests/{reference}"))
            .header("content-type", &manifest.media_type)
            .body(manifest.bytes.clone())
    }

    /// Pushes blobs, then the manifest.
    pub async fn push_image(&self, name: &str, reference: &str, image: &Image) {
        for blob in image.blobs() {
            self.push_blob(name, blob).await;
        }
        self.push_manifest(name, reference, &image.manifest).await;
    }

    /// Asks the token endpoint that the ping's challenge names for the given scopes, with this client's credentials.
    pub async fn fetch_token(&self, scopes: &[&str]) -> Response {
        let challenge = self
            .clone()
            .anonymous()
            .get("/v2/")
            .send()
            .await
            .expect_status(401)
            .challenge();
        let mut target = format!(
            "{}?service={}",
            challenge.realm,
            challenge.service.unwrap_or_default()
        );
        for scope in scopes {
            target.push_str(&format!(
                "&scope={}",
                wharf_oci::percent::encode_query(scope)
            ));
        }
        self.get(&target).send().await
    }
}

/// Adds to the query of a location that may have one already (UP-3).
pub fn with_query(location: &str, query: &str) -> String {
    let separator = if location.contains('?') { '&' } else { '?' };
    format!("{location}{separator}{query}")
}

/// A connection that is kept.
pub enum Connection {
    /// HTTP/1.1: one request after the other.
    Http1(http1::SendRequest<Script>),
    /// HTTP/2.
    Http2(http2::SendRequest<Script>),
}

/// A request in the making.
#[must_use = "a request is not sent before `send`"]
pub struct Request {
    client: Client,
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Script,
}

impl Request {
    /// Adds a header; a second one of that name stands beside the first.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header name");
        self.headers
            .append(name, HeaderValue::from_str(value).expect("a header value"));
        self
    }

    /// Takes a header out again, such as `host`.
    pub fn without_header(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    /// A body of known length.
    pub fn body(mut self, bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        self.body.exact = Some(bytes.len() as u64);
        self.body.steps = VecDeque::from([Step::Data(bytes)]);
        self
    }

    /// A body without announced length, in these pieces.
    pub fn chunked(self, pieces: impl IntoIterator<Item = Bytes>) -> Self {
        self.script(None, pieces.into_iter().map(Step::Data))
    }

    /// A body that does what it is told; `exact` becomes `Content-Length`.
    pub fn script(mut self, exact: Option<u64>, steps: impl IntoIterator<Item = Step>) -> Self {
        self.body = Script {
            steps: steps.into_iter().collect(),
            exact,
            pause: None,
        };
        if exact.is_none() {
            // An empty scripted body must still be sent as one of unknown length.
            self.body.steps.push_back(Step::Data(Bytes::new()));
        }
        self
    }

    /// Sends on a connection of its own and reads the whole answer. Panics when there is none.
    #[track_caller]
    pub fn send(self) -> impl Future<Output = Response> + Send {
        let what = format!("{} {}", self.method, self.path);
        let answer = self.try_send();
        let caller = std::panic::Location::caller();
        async move {
            answer
                .await
                .unwrap_or_else(|error| panic!("{caller}: {what}: {error:#}"))
        }
    }

    /// As [`Request::send`], for tests in which the connection may break.
    pub fn try_send(self) -> impl Future<Output = anyhow::Result<Response>> + Send {
        let client = self.client.clone();
        let request = self.build();
        async move {
            let work = async {
                let mut connection = client.connect().await?;
                connection.send_built(request).await
            };
            tokio::time::timeout(PATIENCE, work)
                .await
                .context("no answer in time")?
        }
    }

    /// Sends on a connection that is kept.
    pub async fn send_on(self, connection: &mut Connection) -> anyhow::Result<Response> {
        let request = self.build();
        tokio::time::timeout(PATIENCE, connection.send_built(request))
            .await
            .context("no answer in time")?
    }

    fn build(mut self) -> http::Request<Script> {
        let uri = match self.client.version {
            Version::Http1 => self.path,
            Version::Http2 => {
                self.headers.remove(header::HOST);
                format!(
                    "{}://{}{}",
                    self.client.scheme(),
                    self.client.authority,
                    self.path
                )
            }
        };
        let mut request = http::Request::new(self.body);
        *request.uri_mut() = uri.parse().unwrap_or_else(|error| panic!("{uri}: {error}"));
        *request.method_mut() = self.method;
        *request.headers_mut() = self.headers;
        request
    }
}

impl Connection {
    async fn send_built(&mut self, request: http::Request<Script>) -> anyhow::Result<Response> {
        let what = format!("{} {}", request.method(), request.uri());
        let response = match self {
            Connection::Http1(sender) => {
                sender.ready().await.context("connection")?;
                sender.send_request(request).await
            }
            Connection::Http2(sender) => {
                sender.ready().await.context("connection")?;
                sender.send_request(request).await
            }
        };
        let (parts, body) = response
            .with_context(|| format!("{what}: no response"))?
            .into_parts();
        let announced = body.size_hint().exact();
        let body = body
            .collect()
            .await
            .with_context(|| format!("{what}: body of the {} response", parts.status))?;
        Ok(Response {
            what,
            status: parts.status,
            version: parts.version,
            headers: parts.headers,
            announced,
            trailers: body.trailers().cloned(),
            body: body.to_bytes(),
        })
    }
}

/// What came back.
#[derive(Clone, Debug)]
pub struct Response {
    /// Method and target, for messages.
    pub what: String,
    /// The status.
    pub status: StatusCode,
    /// HTTP/1.1 or HTTP/2.
    pub version: http::Version,
    /// All headers.
    pub headers: HeaderMap,
    /// The length that was known before the body came.
    pub announced: Option<u64>,
    /// Trailers, if any.
    pub trailers: Option<HeaderMap>,
    /// The whole body.
    pub body: Bytes,
}

/// `request.send().await.expect_status(201)` reads better than an assertion around it.
impl Response {
    /// Panics with all that is known unless the status is this one.
    #[track_caller]
    pub fn expect_status(self, status: u16) -> Response {
        assert!(self.status == status, "expected {status}, got {self}");
        self
    }

    /// Panics unless status and first error code are these and the body is error JSON (ERR-1).
    #[track_caller]
    pub fn expect_error(self, status: u16, code: &str) -> Response {
        let response = self.expect_status(status);
        assert_eq!(
            response.header("content-type"),
            Some("application/json"),
            "{response}"
        );
        let codes = response.error_codes();
        assert_eq!(codes.first().map(String::as_str), Some(code), "{response}");
        let message = response.json()["errors"][0]["message"]
            .as_str()
            .map(str::len);
        assert!(
            message.is_some_and(|length| length > 0),
            "an error without a message: {response}"
        );
        response
    }

    /// A header's value as text, when it is there once.
    #[track_caller]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().expect("a header in ASCII");
        assert!(values.next().is_none(), "several {name} headers in {self}");
        Some(value)
    }

    /// A header that must be there.
    #[track_caller]
    pub fn expect_header(&self, name: &str) -> &str {
        match self.header(name) {
            Some(value) => value,
            None => panic!("no {name} header in {self}"),
        }
    }

    /// The `Location`.
    #[track_caller]
    pub fn location(&self) -> &str {
        self.expect_header("location")
    }

    /// `Docker-Content-Digest`, checked.
    #[track_caller]
    pub fn digest(&self) -> Digest {
        Digest::parse(self.expect_header("docker-content-digest")).expect("a digest in the header")
    }

    /// The challenge of a 401.
    #[track_caller]
    pub fn challenge(&self) -> Challenge {
        Challenge::parse(self.expect_header("www-authenticate")).expect("a challenge in the header")
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("{error} in the body of {self}"),
        }
    }

    /// All codes of an error body.
    #[track_caller]
    pub fn error_codes(&self) -> Vec<String> {
        let json = self.json();
        let errors = json["errors"].as_array().cloned().unwrap_or_default();
        errors
            .iter()
            .map(|error| error["code"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

impl std::fmt::Display for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = String::from_utf8_lossy(&self.body[..self.body.len().min(2000)]);
        write!(
            f,
            "{} -> {} {:#?} {body:?}",
            self.what, self.status, self.headers
        )
    }
}

/// What a request's body does next.
#[derive(Clone, Debug)]
pub enum Step {
    /// Sends bytes.
    Data(Bytes),
    /// Waits.
    Pause(Duration),
    /// Breaks the request off: the connection is cut, or the stream reset.
    Fail,
}

/// A request body that follows steps.
#[derive(Default)]
pub struct Script {
    steps: VecDeque<Step>,
    exact: Option<u64>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl http_body::Body for Script {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            return Poll::Ready(match self.steps.pop_front() {
                None => None,
                Some(Step::Data(bytes)) if bytes.is_empty() => continue,
                Some(Step::Data(bytes)) => Some(Ok(Frame::data(bytes))),
                Some(Step::Fail) => Some(Err(std::io::Error::other("the test breaks off here"))),
                Some(Step::Pause(duration)) => {
                    self.pause = Some(Box::pin(tokio::time::sleep(duration)));
                    continue;
                }
            });
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.pause.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (self.exact, self.is_end_stream()) {
            (Some(exact), _) => SizeHint::with_exact(exact),
            (None, true) => SizeHint::with_exact(0),
            (None, false) => SizeHint::default(),
        }
    }
}
