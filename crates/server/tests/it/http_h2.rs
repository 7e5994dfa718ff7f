//! HTTP/2: the same answers, and clients that abuse what it allows.

use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use tokio::net::TcpStream;
use wharf::http::Limits;
use wharf::http::limits::Progress;
use wharf::http::observer::ConnectionEnd;

use super::http_support::{MIB, Raw, Toybox, eventually};

async fn connect(toybox: &Toybox) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(toybox.addr()).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn request(method: &str, path: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("http://toy{path}"))
        .body(())
        .unwrap()
}

async fn read(response: http::Response<h2::RecvStream>) -> (u16, http::HeaderMap, Vec<u8>) {
    let (head, mut body) = response.into_parts();
    let mut all = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.unwrap();
        all.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len()).unwrap();
    }
    (head.status.as_u16(), head.headers, all)
}

async fn get(
    client: &SendRequest<Bytes>,
    method: &str,
    path: &str,
) -> (u16, http::HeaderMap, Vec<u8>) {
    let mut client = client.clone().ready().await.unwrap();
    let (response, _) = client.send_request(request(method, path), true).unwrap();
    read(response.await.unwrap()).await
}

/// Spec: API-6, ERR-1, PING-3.
#[tokio::test(flavor = "multi_thread")]
async fn prior_knowledge_gets_the_same_answers() {
    let toybox = Toybox::start();
    let client = connect(&toybox).await;
    let (status, headers, body) = get(&client, "GET", "/small").await;
    assert_eq!((status, body.len()), (200, 1024));
    assert_eq!(headers["content-length"], "1024");
    let (status, headers, body) = get(&client, "HEAD", "/big?2").await;
    assert_eq!((status, body.len()), (200, 0));
    assert_eq!(headers["content-length"], "2097152");
    let (status, headers, body) = get(&client, "GET", "/big?2").await;
    assert_eq!((status, body.len()), (200, 2 * MIB));
    assert_eq!(headers["content-length"], "2097152");
    let (status, headers, body) = get(&client, "GET", "/empty").await;
    assert_eq!((status, body.len()), (200, 0));
    assert_eq!(headers["content-length"], "0");
    let (status, headers, _) = get(&client, "GET", "/204").await;
    assert_eq!((status, headers.get("content-length")), (204, None));
    let (status, headers, body) = get(&client, "GET", "/v2/A/tags/list").await;
    assert_eq!(status, 400);
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["docker-distribution-api-version"], "registry/2.0");
    assert!(body.starts_with(b"{\"errors\":[{\"code\":\"NAME_INVALID\""));
    let (status, _, _) = get(&client, "GET", "/panic").await;
    assert_eq!(status, 500);
    let (_, _, body) = get(&client, "GET", "/who").await;
    let who = String::from_utf8(body).unwrap();
    assert!(
        who.contains("host=toy ") && who.contains("version=HTTP/2.0"),
        "{who}"
    );
}

/// Spec: UP-14.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_without_length_work() {
    let toybox = Toybox::start();
    let mut client = connect(&toybox).await;
    let (response, mut body) = client.send_request(request("PUT", "/echo"), false).unwrap();
    let sent = send(&mut body, 5 * MIB).await;
    assert_eq!(sent, 5 * MIB);
    let (status, _, count) = read(response.await.unwrap()).await;
    assert_eq!((status, count), (200, (5 * MIB).to_string().into_bytes()));
}

/// curl 7 takes a stream that is reset behind a whole answer for a failure, and shows no answer at all.
///
/// Spec: ERR-4.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_body_that_nobody_reads_resets_no_stream() {
    let toybox = Toybox::start();
    let client = connect(&toybox).await;
    for _ in 0..5 {
        let mut client = client.clone().ready().await.unwrap();
        let mut asked = request("POST", "/refuse");
        asked.headers_mut().insert("content-length", 5.into());
        let (response, mut body) = client.send_request(asked, false).unwrap();
        // As a client does that sends head and body apart.
        tokio::time::sleep(Duration::from_millis(20)).await;
        body.send_data(Bytes::from_static(b"hello"), true).unwrap();
        let (status, ..) = read(response.await.unwrap()).await;
        assert_eq!(status, 401);
        let reset = poll_fn(|cx| body.poll_reset(cx));
        let reset = tokio::time::timeout(Duration::from_millis(100), reset).await;
        assert!(!matches!(reset, Ok(Ok(_))), "{reset:?}");
    }
}

/// Sends zeros as the windows allow, until all is sent or the stream is reset.
async fn send(body: &mut h2::SendStream<Bytes>, len: usize) -> usize {
    let sent = send_some(body, len).await;
    let _ = body.send_data(Bytes::new(), true);
    sent
}

async fn send_some(body: &mut h2::SendStream<Bytes>, len: usize) -> usize {
    let mut sent = 0;
    while sent < len {
        body.reserve_capacity((len - sent).min(MIB));
        match poll_fn(|cx| body.poll_capacity(cx)).await {
            Some(Ok(capacity)) => {
                let piece = capacity.min(len - sent);
                if body.send_data(vec![0; piece].into(), false).is_err() {
                    return sent;
                }
                sent += piece;
            }
            _ => return sent,
        }
    }
    sent
}

/// Spec: ERR-4.
#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_large_bodies_are_seen_and_spare_the_connection() {
    let toybox = Toybox::start();
    let client = connect(&toybox).await;
    for (path, expected) in [("/refuse", 401), ("/limit", 413), ("/first", 416)] {
        // All that can be sent is sent before anybody looks for an answer, as a blocking client would.
        let mut one = client.clone().ready().await.unwrap();
        let (response, mut body) = one.send_request(request("PUT", path), false).unwrap();
        let sent = tokio::time::timeout(Duration::from_secs(5), send(&mut body, 100 * MIB))
            .await
            .expect("a refused stream must not stall its sender");
        assert!(sent < 100 * MIB, "{sent}");
        let (status, _, json) = read(response.await.unwrap()).await;
        assert_eq!(status, expected);
        assert!(json.starts_with(b"{\"errors\":["));
        // Reading and writing at once.
        let mut two = client.clone().ready().await.unwrap();
        let (response, mut body) = two.send_request(request("PUT", path), false).unwrap();
        let (_, response) = tokio::join!(send(&mut body, 100 * MIB), response);
        assert_eq!(response.unwrap().status().as_u16(), expected);
    }
    assert_eq!(get(&client, "GET", "/small").await.0, 200);
    assert_eq!(toybox.notes.opened.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_stream_is_reset_and_the_others_live() {
    let toybox = Toybox::limited(Limits {
        body_progress: Progress {
            bytes_per_second: 1_000_000,
            window: Duration::from_millis(500),
        },
        ..Limits::default()
    });
    let client = connect(&toybox).await;
    let mut one = client.clone().ready().await.unwrap();
    let (response, _) = one.send_request(request("GET", "/big?50"), true).unwrap();
    // Never gives back what it took, so the window stays shut.
    let mut stalled = response.await.unwrap().into_body();
    let mut taken = 0;
    let error = loop {
        match tokio::time::timeout(Duration::from_secs(10), stalled.data()).await {
            Ok(Some(Ok(piece))) => taken += piece.len(),
            Ok(Some(Err(error))) => break error,
            other => panic!("{other:?} after {taken}"),
        }
    };
    assert!(error.is_reset(), "{error}");
    assert!(taken < MIB, "{taken}");
    // The connection's own window is shut by the same bytes; give them back.
    let _ = stalled.flow_control().release_capacity(taken);
    assert_eq!(get(&client, "GET", "/small").await.0, 200);
    let notes = toybox.notes.finished.lock().unwrap().clone();
    assert!(
        notes
            .iter()
            .any(|note| note.status == Some(200) && !note.complete),
        "{notes:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_end_after_their_requests() {
    let toybox = Toybox::limited(Limits {
        requests_per_connection: 3,
        ..Limits::default()
    });
    let client = connect(&toybox).await;
    for _ in 0..3 {
        assert_eq!(get(&client, "GET", "/small").await.0, 200);
    }
    toybox.an_end().await;
    assert!(client.ready().await.is_err());
}

/// The frames of RFC 9113, by hand.
struct Frames {
    socket: std::net::TcpStream,
    next: u32,
}

impl Frames {
    fn connect(raw: Raw) -> Self {
        let mut frames = Self {
            socket: raw.socket,
            next: 1,
        };
        frames
            .socket
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            .unwrap();
        assert!(frames.send(4, 0, 0, &[]));
        frames
    }

    /// False once the server does not listen any more.
    fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        self.socket.write_all(&frame).is_ok()
    }

    /// HEADERS of `GET <path>` on a new stream; gives its number.
    fn get(&mut self, path: &str, flags: u8) -> Option<u32> {
        let stream = self.next;
        self.next += 2;
        // Static table: 2 is GET, 6 is http; 4 and 1 are the names :path and :authority.
        let mut block = vec![0x82, 0x86, 0x04, path.len() as u8];
        block.extend(path.as_bytes());
        block.extend([0x01, 3]);
        block.extend(b"toy");
        self.send(1, flags, stream, &block).then_some(stream)
    }

    /// Whether the server closes within some seconds.
    fn is_closed(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            match self.socket.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
            }
        }
        false
    }
}

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// CVE-2023-44487.
#[tokio::test(flavor = "multi_thread")]
async fn rapid_resets_end_the_connection() {
    let toybox = Toybox::start();
    let sent = toybox
        .client(|raw| {
            let mut frames = Frames::connect(raw);
            for count in 0..100_000 {
                let Some(stream) = frames.get("/slow?10000", END_STREAM | END_HEADERS) else {
                    return count;
                };
                // A pause lets some streams be accepted before they are reset, the harder case.
                if count % 50 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
                if !frames.send(3, 0, stream, &8u32.to_be_bytes()) {
                    return count;
                }
            }
            100_000
        })
        .await;
    assert!(sent < 50_000, "{sent}");
    toybox.an_end().await;
    let started = toybox.toy.started.load(Ordering::SeqCst);
    assert!(started < 2000, "{started} handlers were started");
    eventually(|| (toybox.toy.running.load(Ordering::SeqCst) == 0).then_some(())).await;
}

/// The same, slow enough that each stream reaches its handler first.
#[tokio::test(flavor = "multi_thread")]
async fn resets_of_accepted_streams_are_counted() {
    let toybox = Toybox::limited(Limits {
        h2_resets: 20,
        ..Limits::default()
    });
    toybox
        .client(|raw| {
            let mut frames = Frames::connect(raw);
            for _ in 0..200 {
                let Some(stream) = frames.get("/slow?10000", END_STREAM | END_HEADERS) else {
                    break;
                };
                std::thread::sleep(Duration::from_millis(5));
                if !frames.send(3, 0, stream, &8u32.to_be_bytes()) {
                    break;
                }
            }
            assert!(frames.is_closed());
        })
        .await;
    assert_eq!(toybox.an_end().await, ConnectionEnd::Resets);
    let started = toybox.toy.started.load(Ordering::SeqCst);
    assert!((20..60).contains(&started), "{started}");
}

/// CVE-2024-27316 and its kin.
#[tokio::test(flavor = "multi_thread")]
async fn endless_continuations_end_the_connection() {
    let toybox = Toybox::start();
    let sent = toybox
        .client(|raw| {
            let mut frames = Frames::connect(raw);
            frames.get("/small", END_STREAM).unwrap();
            // A literal header without indexing, for ever.
            let mut block = vec![0x00, 1, b'a', 100];
            block.extend([b'b'; 100]);
            let block = block.repeat(100);
            (0..20_000)
                .find(|_| !frames.send(9, 0, 1, &block))
                .unwrap_or(20_000)
        })
        .await;
    assert!(sent < 2000, "{sent} frames of 10 KiB were taken");
    toybox.an_end().await;
    assert_eq!(toybox.toy.started.load(Ordering::SeqCst), 0);
}

/// SETTINGS and PING must be answered, so a client that does not read could make answers pile up.
#[tokio::test(flavor = "multi_thread")]
async fn floods_of_settings_and_pings_do_not_pile_up() {
    let toybox = Toybox::start();
    let before = resident();
    let flood = |kind: u8, payload: &'static [u8]| {
        toybox.client(move |raw| {
            let mut frames = Frames::connect(raw);
            frames.socket.set_nonblocking(true).unwrap();
            let start = Instant::now();
            let mut sent = 0;
            while start.elapsed() < Duration::from_secs(2) {
                if frames.send(kind, 0, 0, payload) {
                    sent += 1;
                } else {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            sent
        })
    };
    let asking = async {
        let client = connect(&toybox).await;
        let mut worst = Duration::ZERO;
        for _ in 0..100 {
            let start = Instant::now();
            assert_eq!(get(&client, "GET", "/small").await.0, 200);
            worst = worst.max(start.elapsed());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        worst
    };
    let (settings, pings, worst) = tokio::join!(flood(4, &[]), flood(6, &[0; 8]), asking);
    assert!(settings > 100 && pings > 100, "{settings} {pings}");
    // How long others wait is compared in `hostile_h2`; here it is enough that they are answered at all.
    println!("the longest wait was {worst:?}");
    let grown = resident().saturating_sub(before);
    assert!(grown < 64 * MIB, "{grown} bytes more");
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_have_a_size() {
    let toybox = Toybox::start();
    let mut client = connect(&toybox).await;
    let mut large = request("GET", "/small");
    large
        .headers_mut()
        .insert("cookie", "a".repeat(40 * 1024).parse().unwrap());
    let (response, _) = client.send_request(large, true).unwrap();
    match response.await {
        Ok(response) => assert_eq!(response.status(), 431),
        Err(error) => assert!(error.is_reset() || error.is_go_away(), "{error}"),
    }
    assert_eq!(toybox.toy.started.load(Ordering::SeqCst), 0);
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Spec: UP-31.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_sees_the_reset_of_its_stream() {
    let toybox = Toybox::start();
    let mut client = connect(&toybox).await;
    let (response, mut body) = client.send_request(request("PUT", "/keep"), false).unwrap();
    assert_eq!(send_some(&mut body, MIB / 2).await, MIB / 2);
    eventually(|| (toybox.toy.started.load(Ordering::SeqCst) == 1).then_some(())).await;
    body.send_reset(h2::Reason::CANCEL);
    assert!(response.await.is_err());
    let kept = eventually(|| match toybox.toy.kept.load(Ordering::SeqCst) {
        0 => None,
        kept => Some(kept),
    })
    .await;
    assert!(kept <= MIB / 2, "{kept}");
}
