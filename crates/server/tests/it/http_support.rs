//! A toy handler on the real transport, and clients that are as blunt as the worst ones: plain blocking sockets.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use wharf::http::observer::{ConnectionEnd, Finished};
use wharf::http::{
    ApiError, Body, Handler, Limits, ListenAddr, Listeners, Observer, Request, Response, Running,
    Server, ServerOptions,
};
use wharf_oci::ErrorCode;

pub(crate) const MIB: usize = 1024 * 1024;

/// Answers by path:
/// `/small` 1 KiB; `/echo` counts the body; `/keep` notes how much came; `/refuse` 401 unread; `/limit` 413 after a MiB; `/first` 400 after the first
/// piece; `/big?<MiB>` a stream; `/broken` a stream that breaks; `/panic`; `/panic-late`; `/slow?<ms>`; `/who` what is known
/// of the client; below `/v2/` the route.
#[derive(Default)]
pub(crate) struct Toy {
    /// Requests that are being handled now, and the most there were at once.
    pub(crate) running: AtomicUsize,
    pub(crate) started: AtomicUsize,
    /// Bytes of the last body on `/keep` that broke off.
    pub(crate) kept: AtomicUsize,
}

struct Zeros(u64);

impl futures_core::Stream for Zeros {
    type Item = Result<Bytes, io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        let take = self.0.min(ZEROS.len() as u64);
        self.0 -= take;
        Poll::Ready(Some(Ok(Bytes::from_static(&ZEROS[..take as usize]))))
    }
}

/// Ready items, with a wait after each so that what came before is sent.
struct Items(VecDeque<Result<Bytes, io::Error>>, bool);

impl futures_core::Stream for Items {
    type Item = Result<Bytes, io::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.1 = !self.1;
        if self.1 {
            return Poll::Ready(self.0.pop_front());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Counts handlers also when they are dropped in the middle.
struct Count<'a>(&'a AtomicUsize);

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Handler for Toy {
    async fn handle(&self, mut request: Request) -> Response {
        self.started.fetch_add(1, Ordering::SeqCst);
        self.running.fetch_add(1, Ordering::SeqCst);
        let _count = Count(&self.running);
        let number = request.query.parse().unwrap_or(0);
        match request.path() {
            "/small" => Response::new(Body::full(vec![b'x'; 1024])),
            "/empty" => Response::new(Body::empty()),
            "/echo" => {
                let mut count = 0;
                loop {
                    match request.body.chunk().await {
                        None => return Response::new(Body::full(count.to_string())),
                        Some(Ok(piece)) => count += piece.len(),
                        Some(Err(error)) => return ApiError::from(error).into_response(),
                    }
                }
            }
            "/keep" => {
                let mut count = 0;
                while let Some(Ok(piece)) = request.body.chunk().await {
                    count += piece.len();
                }
                // A store would take its time to make them durable.
                tokio::time::sleep(Duration::from_millis(50)).await;
                self.kept.store(count, Ordering::SeqCst);
                Response::new(Body::empty())
            }
            "/refuse" => ApiError::new(ErrorCode::Unauthorized, "who are you?").into_response(),
            "/limit" => match request.body.collect(MIB as u64).await {
                Ok(_) => Response::new(Body::empty()),
                Err(error) => ApiError::from(error).into_response(),
            },
            "/first" => {
                let _ = request.body.chunk().await;
                ApiError::new(ErrorCode::RangeInvalid, "not there").into_response()
            }
            "/big" => {
                let len = number * MIB as u64;
                Response::new(Body::stream(Zeros(len), len))
            }
            "/broken" => {
                let items = [
                    Ok(Bytes::from_static(b"half")),
                    Err(io::Error::other("disk")),
                ];
                Response::new(Body::stream(Items(items.into(), false), 1000))
            }
            "/panic" => panic!("the toy is broken"),
            "/slow" => {
                tokio::time::sleep(Duration::from_millis(number)).await;
                Response::new(Body::full("late"))
            }
            "/who" => {
                let peer = &request.peer;
                Response::new(Body::full(format!(
                    "addr={} unix={} secure={} proxied={} scheme={} host={} id={} version={:?}",
                    peer.addr
                        .map_or_else(|| "-".into(), |addr| addr.ip().to_string()),
                    peer.unix,
                    peer.secure,
                    peer.proxied,
                    request.scheme.as_str(),
                    request.host.as_deref().unwrap_or("-"),
                    request.id,
                    request.version,
                )))
            }
            "/204" => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            _ => match &request.route {
                Ok(route) if !route.methods().contains(&request.method) => {
                    ApiError::method_not_allowed(route.methods()).into_response()
                }
                Ok(route) => Response::new(Body::full(route.label())),
                Err(error) => ApiError::from(error.clone()).into_response(),
            },
        }
    }
}

/// Remembers what the transport tells.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) ends: Mutex<Vec<ConnectionEnd>>,
    pub(crate) malformed: Mutex<Vec<&'static str>>,
    pub(crate) handshakes: Mutex<Vec<&'static str>>,
    pub(crate) finished: Mutex<Vec<Note>>,
    pub(crate) panics: AtomicUsize,
    pub(crate) opened: AtomicUsize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) method: String,
    pub(crate) route: &'static str,
    pub(crate) status: Option<u16>,
    pub(crate) complete: bool,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl Observer for Notes {
    fn connection_opened(&self) {
        self.opened.fetch_add(1, Ordering::SeqCst);
    }

    fn connection_closed(&self, end: ConnectionEnd) {
        self.ends.lock().unwrap().push(end);
    }

    fn handshake_failed(&self, reason: &'static str) {
        self.handshakes.lock().unwrap().push(reason);
    }

    fn request_malformed(&self, reason: &'static str) {
        self.malformed.lock().unwrap().push(reason);
    }

    fn handler_panicked(&self, _: &'static str) {
        self.panics.fetch_add(1, Ordering::SeqCst);
    }

    fn request_finished(&self, finished: &Finished<'_>) {
        self.finished.lock().unwrap().push(Note {
            method: finished.method.to_string(),
            route: finished.route,
            status: finished.status.map(|status| status.as_u16()),
            complete: finished.complete,
            bytes_in: finished.bytes_in,
            bytes_out: finished.bytes_out,
        });
    }
}

pub(crate) struct Toybox {
    pub(crate) running: Running,
    pub(crate) toy: Arc<Toy>,
    pub(crate) notes: Arc<Notes>,
}

impl Toybox {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn limited(limits: Limits) -> Self {
        Self::with(|options| options.limits = limits)
    }

    pub(crate) fn with(change: impl FnOnce(&mut ServerOptions)) -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), change)
    }

    pub(crate) fn on(addr: ListenAddr, change: impl FnOnce(&mut ServerOptions)) -> Self {
        let notes = Arc::new(Notes::default());
        let mut options = ServerOptions::new(Listeners::bind(&[addr]).unwrap());
        options.observer = notes.clone();
        change(&mut options);
        let toy = Arc::new(Toy::default());
        let running = Server::start(options, toy.clone());
        Self {
            running,
            toy,
            notes,
        }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.running.addrs()[0].tcp().unwrap()
    }

    /// Runs a blocking client while the server goes on.
    pub(crate) async fn client<T: Send + 'static>(
        &self,
        work: impl FnOnce(Raw) -> T + Send + 'static,
    ) -> T {
        let addr = self.addr();
        tokio::task::spawn_blocking(move || work(Raw::connect(addr)))
            .await
            .unwrap()
    }

    /// Waits until a connection ended, and tells how.
    pub(crate) async fn an_end(&self) -> ConnectionEnd {
        eventually(|| self.notes.ends.lock().unwrap().first().copied()).await
    }
}

/// Polls until there is something; fails the test after ten seconds.
pub(crate) async fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it did not happen within ten seconds");
}

/// An HTTP/1.1 client that sends exactly what it is told.
pub(crate) struct Raw {
    pub(crate) socket: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether it is an error as ERR-1 wants it.
    pub(crate) fn is_oci_error(&self) -> bool {
        self.header("content-type") == Some("application/json")
            && self.text().starts_with("{\"errors\":[{\"code\":\"")
    }
}

impl Raw {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        let socket = TcpStream::connect(addr).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        Self {
            socket,
            buffer: Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        self.socket.write_all(text.as_ref()).unwrap();
        self
    }

    pub(crate) fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: toy\r\n\r\n"))
            .answer()
    }

    /// More bytes into the buffer; false at the end.
    fn more(&mut self) -> io::Result<bool> {
        let mut piece = [0; 64 * 1024];
        let got = self.socket.read(&mut piece)?;
        self.buffer.extend_from_slice(&piece[..got]);
        Ok(got > 0)
    }

    /// The next head, with status lines like `100 Continue` too. `None`: the server closed.
    pub(crate) fn head(&mut self) -> io::Result<Option<(u16, String)>> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = String::from_utf8(self.buffer.drain(..end + 4).collect()).unwrap();
                let status = head[9..12].parse().unwrap();
                return Ok(Some((status, head)));
            }
            if !self.more()? {
                assert!(self.buffer.is_empty(), "half a head: {:?}", self.buffer);
                return Ok(None);
            }
        }
    }

    pub(crate) fn try_answer(&mut self, to_head: bool) -> io::Result<Option<Answer>> {
        let Some((status, head)) = self.head()? else {
            return Ok(None);
        };
        let mut answer = Answer {
            status,
            head,
            body: Vec::new(),
        };
        let len: usize = match answer.header("content-length") {
            _ if to_head || status == 204 || status == 304 || status < 200 => 0,
            Some(len) => len.parse().unwrap(),
            None => panic!("no length: {}", answer.head),
        };
        while self.buffer.len() < len {
            if !self.more()? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        answer.body = self.buffer.drain(..len).collect();
        Ok(Some(answer))
    }

    pub(crate) fn answer(&mut self) -> Answer {
        self.try_answer(false).unwrap().expect("the server closed")
    }

    /// Whether the server has closed in an orderly way, with nothing more to read.
    pub(crate) fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && matches!(self.more(), Ok(false))
    }
}
