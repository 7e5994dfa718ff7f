//! An S3 service in this process, with a front that counts requests and does to them what networks and services do: no
//! answer, half an answer, an answer that never arrives, 503.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{DATE, HeaderValue, IF_NONE_MATCH};
use http::{Method, Request, Response, StatusCode};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;

/// The bucket that is there.
pub const BUCKET: &str = "wharf-bucket";
/// The credentials that it takes.
pub const ACCESS_KEY: &str = "test-access-key";
/// And their secret.
pub const SECRET_KEY: &str = "test-secret-key";

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An object's bytes.
    Get,
    /// Whether there is an object.
    Head,
    /// A whole object.
    Put,
    /// A multipart upload begins.
    Begin,
    /// One of its parts.
    Part,
    /// It becomes an object.
    Complete,
    /// It is given up.
    Abort,
    /// An object goes.
    Delete,
    /// What is there?
    List,
}

impl Kind {
    fn of<B>(request: &Request<B>) -> Self {
        let query = request.uri().query().unwrap_or_default();
        let upload = query.contains("uploadId=");
        match *request.method() {
            Method::HEAD => Self::Head,
            Method::PUT if upload => Self::Part,
            Method::PUT => Self::Put,
            Method::POST if upload => Self::Complete,
            Method::POST => Self::Begin,
            Method::DELETE if upload => Self::Abort,
            Method::DELETE => Self::Delete,
            _ if query.contains("list-type=") => Self::List,
            _ => Self::Get,
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// 503, as a service says that is asked too much.
    SlowDown,
    /// The connection ends before the service hears of it.
    Refuse,
    /// The service does it, and the connection ends before it can say so.
    LoseAnswer,
    /// Half of the answer's body, then the connection ends.
    Cut,
    /// The answer says that it is the whole, and is half of it.
    Truncate,
    /// It takes so much longer.
    Delay(Duration),
    /// The service does not know the multipart upload.
    NoSuchUpload,
    /// The service says this instead of doing it.
    Say(Saying),
}

/// An answer of a service.
#[derive(Clone, Copy, Debug)]
pub struct Saying {
    /// Its status.
    pub status: u16,
    /// A header of it.
    pub header: Option<(&'static str, &'static str)>,
    /// Its body.
    pub body: &'static str,
}

struct Rule {
    kind: Option<Kind>,
    skip: u32,
    times: u32,
    fault: Fault,
}

/// What the front is told, and what it saw.
#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    counts: HashMap<Kind, u64>,
    /// Seconds by which the service's clock is ahead of this machine's.
    ahead: i64,
    /// Set when the service takes no notice of `If-None-Match`: where its buckets are.
    unconditional: Option<PathBuf>,
    /// Headers of all requests, once they are wanted.
    heads: Option<Vec<(Kind, http::HeaderMap)>>,
}

/// The service, on a thread of its own: a test that waits for a child process does not keep it from answering. It ends when
/// this is dropped.
pub struct S3 {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    folder: TempDir,
    thread: Mutex<Option<Thread>>,
}

/// Its thread, and what ends it.
struct Thread {
    stop: tokio::sync::oneshot::Sender<()>,
    handle: std::thread::JoinHandle<()>,
}

impl S3 {
    /// Starts it with one empty bucket.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join(BUCKET)).expect("a bucket");
        let s3 = Self {
            addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            state: Arc::default(),
            folder,
            thread: Mutex::default(),
        };
        s3.listen(0)
    }

    fn listen(mut self, port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = std::net::TcpListener::bind(("127.0.0.1", port)).expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        self.addr = listener.local_addr().expect("an address");
        let files = s3s_fs::FileSystem::new(self.folder.path()).expect("a service");
        let mut builder = S3ServiceBuilder::new(files);
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let (service, state) = (builder.build(), self.state.clone());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let serve = move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
                tokio::select! {
                    () = accept(listener, service, state) => {}
                    _ = stopped => {}
                }
            });
            runtime.shutdown_background();
        };
        let handle = std::thread::spawn(serve);
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(Thread { stop, handle });
        self
    }

    /// Nobody listens any more; connections end. What was stored stays.
    pub fn go_away(&self) {
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(Thread { stop, handle }) = thread {
            let _ = stop.send(());
            let _ = handle.join();
        }
    }

    /// Listens again where it did.
    pub async fn come_back(self) -> Self {
        let port = self.addr.port();
        self.go_away();
        self.listen(port)
    }

    /// Where it listens.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The same as variables of a process's environment.
    pub fn environment(&self) -> [(&'static str, String); 6] {
        [
            ("WHARF__STORAGE__KIND", "s3".to_owned()),
            ("WHARF__STORAGE__S3__BUCKET", BUCKET.to_owned()),
            ("WHARF__STORAGE__S3__ENDPOINT", self.endpoint()),
            ("WHARF__STORAGE__S3__PATH_STYLE", "true".to_owned()),
            ("WHARF__STORAGE__S3__ACCESS_KEY_ID", ACCESS_KEY.to_owned()),
            (
                "WHARF__STORAGE__S3__SECRET_ACCESS_KEY",
                SECRET_KEY.to_owned(),
            ),
        ]
    }

    /// The configuration that makes a registry use it.
    pub fn config(&self) -> String {
        format!(
            "\n[storage]\nkind = \"s3\"\n[storage.s3]\nbucket = {BUCKET:?}\nendpoint = {:?}\npath_style = true\n\
             access_key_id = {ACCESS_KEY:?}\nsecret_access_key = {SECRET_KEY:?}\n",
            self.endpoint()
        )
    }

    /// Lets `skip` requests of this kind pass (of any, without one), then does this to `times` of them.
    pub fn fault(&self, kind: impl Into<Option<Kind>>, skip: u32, times: u32, fault: Fault) {
        self.state().rules.push(Rule {
            kind: kind.into(),
            skip,
            times,
            fault,
        });
    }

    /// No more faults.
    pub fn heal(&self) {
        self.state().rules.clear();
    }

    /// From now on its clock is so many seconds ahead of this machine's, as far as its answers say.
    pub fn set_clock(&self, ahead: i64) {
        self.state().ahead = ahead;
    }

    /// From now on it takes no notice of `If-None-Match`, as some services do.
    pub fn ignore_conditions(&self) {
        self.state().unconditional = Some(self.folder.path().to_owned());
    }

    /// Requests of a kind so far.
    pub fn count(&self, kind: Kind) -> u64 {
        self.state().counts.get(&kind).copied().unwrap_or(0)
    }

    /// Requests since this was last asked, by kind, in no order.
    pub fn take_counts(&self) -> HashMap<Kind, u64> {
        std::mem::take(&mut self.state().counts)
    }

    /// From now on the headers of all requests are kept.
    pub fn record(&self) {
        self.state().heads.get_or_insert_default();
    }

    /// Those of the requests of a kind.
    pub fn heads(&self, kind: Kind) -> Vec<http::HeaderMap> {
        let state = self.state();
        let heads = state.heads.iter().flatten().filter(|(of, _)| *of == kind);
        heads.map(|(_, head)| head.clone()).collect()
    }

    /// Paths of all objects below the bucket.
    pub fn objects(&self) -> Vec<PathBuf> {
        let bucket = self.folder.path().join(BUCKET);
        let mut found = Vec::new();
        let mut folders = vec![bucket.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
                match entry.path() {
                    path if path.is_dir() => folders.push(path),
                    path => found.push(path.strip_prefix(&bucket).expect("below").to_owned()),
                }
            }
        }
        found
    }

    /// Parts and marks of multipart uploads that are neither completed nor given up.
    pub fn loose_parts(&self) -> usize {
        let names = std::fs::read_dir(self.folder.path()).expect("a folder");
        let is_part = |name: &str| name.starts_with(".upload");
        names
            .flatten()
            .filter(|entry| is_part(&entry.file_name().to_string_lossy()))
            .count()
    }

    /// The folder with the bucket in it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.go_away();
    }
}

async fn accept(listener: tokio::net::TcpListener, service: S3Service, state: Arc<Mutex<State>>) {
    let mut connections = tokio::task::JoinSet::new();
    let turn = Arc::<tokio::sync::Mutex<()>>::default();
    loop {
        let Ok((socket, _)) = listener.accept().await else {
            return;
        };
        while connections.try_join_next().is_some() {}
        let (service, state) = (service.clone(), state.clone());
        let turn = turn.clone();
        let answer = service_fn(move |request| {
            let (service, state, turn) = (service.clone(), state.clone(), turn.clone());
            async move {
                let ahead = state.lock().unwrap_or_else(PoisonError::into_inner).ahead;
                let mut answer = answer(service, state, turn, request).await?;
                if ahead != 0 {
                    answer.headers_mut().insert(DATE, date(ahead));
                }
                Ok::<_, std::io::Error>(answer)
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(socket), answer);
        connections.spawn(async move {
            let _ = connection.await;
        });
    }
}

type Answer = Response<BoxBody<Bytes, std::io::Error>>;

fn broken() -> std::io::Error {
    std::io::Error::other("the connection ends here")
}

async fn answer(
    service: S3Service,
    state: Arc<Mutex<State>>,
    turn: Arc<tokio::sync::Mutex<()>>,
    request: Request<Incoming>,
) -> Result<Answer, std::io::Error> {
    let kind = Kind::of(&request);
    let upload = matches!(kind, Kind::Part | Kind::Complete | Kind::Abort);
    let fault = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        *state.counts.entry(kind).or_default() += 1;
        if let Some(heads) = &mut state.heads {
            heads.push((kind, request.headers().clone()));
        }
        state.next(kind)
    };
    match fault {
        Some(Fault::SlowDown) => {
            // All of the request is read, as a service does that keeps the connection.
            let _ = request.into_body().collect().await;
            return Ok(xml(StatusCode::SERVICE_UNAVAILABLE, "SlowDown"));
        }
        Some(Fault::NoSuchUpload) => {
            // Otherwise a client that still sends may see a broken connection, and asks again.
            let _ = request.into_body().collect().await;
            return Ok(xml(StatusCode::NOT_FOUND, "NoSuchUpload"));
        }
        Some(Fault::Say(saying)) => {
            let _ = request.into_body().collect().await;
            let mut response = Response::builder().status(saying.status);
            if let Some((name, value)) = saying.header {
                response = response.header(name, value);
            }
            let body = whole(saying.body);
            return response.body(body).map_err(std::io::Error::other);
        }
        Some(Fault::Refuse) => return Err(broken()),
        Some(Fault::Delay(by)) => tokio::time::sleep(by).await,
        _ => {}
    }
    // This service looks for the object and writes it in two steps; real ones do in one.
    let turn = if request.headers().contains_key(IF_NONE_MATCH) {
        Some(turn.lock().await)
    } else {
        None
    };
    let unconditional = {
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.unconditional.clone()
    };
    if let (Some(folder), Some(_)) = (unconditional, &turn) {
        // The header is signed and has to stay; where nothing is, it forbids nothing.
        let _ = std::fs::remove_file(folder.join(request.uri().path().trim_start_matches('/')));
    }
    let request = match kind {
        // All of it is read before it is refused: who still sends would see a broken connection and no answer.
        Kind::Part => {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|_| broken())?.to_bytes();
            Request::from_parts(head, s3s::Body::from(body))
        }
        _ => request.map(s3s::Body::from),
    };
    let response = service.call(request).await.map_err(|_| broken())?;
    drop(turn);
    if upload && response.status() == StatusCode::FORBIDDEN {
        // Services say this of an upload that they do not know.
        return Ok(xml(StatusCode::NOT_FOUND, "NoSuchUpload"));
    }
    match fault {
        Some(Fault::LoseAnswer) => {
            let _ = response.into_body().collect().await;
            Err(broken())
        }
        Some(cut @ (Fault::Cut | Fault::Truncate)) => {
            let (mut head, body) = response.into_parts();
            let all = body.collect().await.map_err(|_| broken())?.to_bytes();
            let half = all.slice(..all.len() / 2);
            if matches!(cut, Fault::Truncate) {
                head.headers.remove("content-length");
                return Ok(Response::from_parts(head, whole(half)));
            }
            let body = Half {
                half: Some(half),
                length: all.len() as u64,
            };
            Ok(Response::from_parts(head, BoxBody::new(body)))
        }
        _ => Ok(response.map(|body| body.map_err(std::io::Error::other).boxed())),
    }
}

impl State {
    fn next(&mut self, kind: Kind) -> Option<Fault> {
        let fits = |rule: &Rule| rule.kind.is_none_or(|wanted| wanted == kind);
        let at = self.rules.iter().position(fits)?;
        let rule = &mut self.rules[at];
        if rule.skip > 0 {
            rule.skip -= 1;
            return None;
        }
        let fault = rule.fault;
        rule.times = rule.times.saturating_sub(1);
        if rule.times == 0 {
            self.rules.remove(at);
        }
        Some(fault)
    }
}

/// The time of a clock that is so many seconds ahead.
fn date(ahead: i64) -> HeaderValue {
    let by = Duration::from_secs(ahead.unsigned_abs());
    let now = match ahead < 0 {
        true => SystemTime::now() - by,
        false => SystemTime::now() + by,
    };
    HeaderValue::from_str(&httpdate::fmt_http_date(now)).expect("a date")
}

fn whole(bytes: impl Into<Bytes>) -> BoxBody<Bytes, std::io::Error> {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

fn xml(status: StatusCode, code: &str) -> Answer {
    let text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>"
    );
    let mut response = Response::new(whole(text));
    *response.status_mut() = status;
    response
}

/// Half of a body that is announced whole.
struct Half {
    half: Option<Bytes>,
    length: u64,
}

impl http_body::Body for Half {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        Poll::Ready(Some(match self.half.take() {
            Some(half) => Ok(Frame::data(half)),
            None => Err(broken()),
        }))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length)
    }
}
