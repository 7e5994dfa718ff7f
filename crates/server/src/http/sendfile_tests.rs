//! hyper is pinned here: whatever it does with its queue, a marker must not reach a client. The bodies of these tests
//! hold no bytes at all but in files, so that right bytes prove the way.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fs::File;
use std::io::Write as _;

use http_body::Frame;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::super::io::{Io, Protocol, Refused};
use super::super::limits::Limits;
use super::super::watch::Watch;
use super::*;

fn content(size: usize) -> Vec<u8> {
    (0..size as u32)
        .flat_map(|number| (number.wrapping_mul(2_654_435_761)).to_le_bytes())
        .take(size)
        .collect()
}

fn file(bytes: &[u8]) -> Arc<File> {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    Arc::new(file)
}

fn window(file: &Arc<File>, at: u64, len: usize) -> Window {
    Window {
        file: Arc::clone(file),
        at,
        len,
    }
}

fn io(socket: UnixStream) -> Io {
    let watch = Arc::new(Watch::new(&Limits::default()));
    let watched = Arc::clone(&watch.register().watched);
    Io::new(Wire::Unix(socket), 8192, Refused::default(), watched)
}

/// Pieces, ready or after a pause.
struct Pieces(VecDeque<Piece>, u64, bool);

impl Pieces {
    fn new(pieces: impl IntoIterator<Item = Piece>, pauses: bool) -> Self {
        let pieces: VecDeque<_> = pieces.into_iter().collect();
        let size = pieces.iter().map(|piece| piece.remaining() as u64).sum();
        Self(pieces, size, pauses)
    }
}

impl http_body::Body for Pieces {
    type Data = Piece;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, Infallible>>> {
        self.2 = !self.2;
        if self.2 && self.0.len() % 3 == 1 {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.1)
    }
}

/// Serves pieces of these lengths, every second one in the file, to `requests` pipelined requests; what the client got.
async fn served(file: &Arc<File>, bytes: &[u8], lengths: &[usize], requests: usize) -> Vec<u8> {
    let (server, mut client) = UnixStream::pair().unwrap();
    let io = io(server);
    let lane = io.lane(Protocol::H1).unwrap();
    let service = service_fn(|_| {
        let (mut at, mut places) = (0, 0..);
        let pieces = lengths.iter().map(|&len| {
            let from = at;
            at += len;
            if places.next().unwrap_or(0) % 2 == 0 {
                Piece::in_file(window(file, from as u64, len), &lane)
            } else {
                Piece::Bytes(Bytes::copy_from_slice(&bytes[from..at]))
            }
        });
        let body = Pieces::new(pieces.collect::<Vec<_>>(), lengths.len().is_multiple_of(2));
        async { Ok::<_, Infallible>(hyper::Response::new(body)) }
    });
    let mut request = "GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(requests - 1);
    request += "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let talk = async {
        client.write_all(request.as_bytes()).await.unwrap();
        let mut all = Vec::new();
        client.read_to_end(&mut all).await.unwrap();
        all
    };
    let connection = async {
        let served = http1::Builder::new()
            .serve_connection(TokioIo::new(io), service)
            .without_shutdown();
        // Dropping it closes the socket.
        drop(served.await.unwrap());
    };
    tokio::join!(talk, connection).0
}

#[tokio::test]
async fn files_and_bytes_arrive_in_order_in_every_mixture() {
    let bytes = content(3 << 20);
    let file = file(&bytes);
    let mixtures: [&[usize]; 7] = [
        &[1],
        &[1 << 20],
        &[100, 5, 100, 5, 100_000, 1, 1],
        &[300_000, 70_000, 300_000, 300_000],
        &[1; 40],
        &[4096; 100],
        &[1 << 20, 1, 1 << 20, 1000, 4097],
    ];
    for lengths in mixtures {
        for requests in [1, 3] {
            let mut all = served(&file, &bytes, lengths, requests).await;
            let size: usize = lengths.iter().sum();
            for _ in 0..requests {
                let head = all.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
                let rest = all.split_off(head);
                assert!(rest[..size] == bytes[..size], "{lengths:?} × {requests}");
                all = rest[size..].to_vec();
            }
            assert_eq!(all, b"");
        }
    }
}

/// `/proc/self/auxv` can be read at an offset, and has no way for `sendfile`.
#[tokio::test]
async fn a_file_that_sendfile_refuses_is_copied() {
    let bytes = std::fs::read("/proc/self/auxv").unwrap();
    assert!(bytes.len() > 100);
    let (server, mut client) = UnixStream::pair().unwrap();
    let mut io = io(server);
    let lane = io.lane(Protocol::H1).unwrap();
    let file = Arc::new(File::open("/proc/self/auxv").unwrap());
    let mut piece = Piece::in_file(window(&file, 1, bytes.len() - 1), &lane);
    let send = async {
        while piece.has_remaining() {
            let sent = std::future::poll_fn(|cx| {
                let mut slices = [IoSlice::new(&[])];
                assert_eq!(piece.chunks_vectored(&mut slices), 1);
                Pin::new(&mut io).poll_write_vectored(cx, &slices)
            });
            let sent = sent.await.unwrap();
            piece.advance(sent);
        }
        assert!(!lane.is_open(), "further pieces would be refused as well");
        drop(io);
    };
    let mut got = Vec::new();
    let (_, read) = tokio::join!(send, client.read_to_end(&mut got));
    read.unwrap();
    assert_eq!(got, bytes[1..]);
}

#[tokio::test]
async fn a_file_that_became_shorter_is_an_error() {
    let file = file(b"abc");
    let (server, _client) = UnixStream::pair().unwrap();
    let mut wire = Wire::Unix(server);
    let lane = Lane::default();
    let error =
        std::future::poll_fn(|cx| poll_send(&mut wire, cx, &window(&file, 3, 9), &lane)).await;
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn markers_and_windows_must_agree() {
    let file = file(b"abcdef");
    let lane = Arc::new(Lane::default());
    let pieces = [2, 3].map(|len| Piece::in_file(window(&file, 0, len), &lane));
    let marker = |piece: &Piece| match piece {
        Piece::File(piece) => lane.note(&piece.window),
        Piece::Bytes(_) => unreachable!(),
    };
    let head = b"head";
    let taken = |slices: &[&[u8]]| {
        let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        lane.taken(&slices)
            .map(|(bytes, window)| (bytes, window.map(|window| window.len)))
    };
    let mended = || {
        lane.noted().clear();
        lane.state.store(OPEN, Relaxed);
    };

    let (one, two) = (marker(&pieces[0]), marker(&pieces[1]));
    assert_eq!(taken(&[head, one, head, two]).unwrap(), (1, Some(2)));
    assert_eq!(taken(&[head]).unwrap(), (1, None));
    // A marker without a window, a window without a marker, the wrong order, twice the same, and none the less for
    // being broken before.
    for slices in [&[one] as &[&[u8]], &[head, two]] {
        assert!(taken(slices).is_err());
        assert!(
            taken(&[head]).is_err(),
            "a broken lane carries nothing more"
        );
        mended();
    }
    for order in [[1, 0], [0, 0]] {
        let markers = [marker(&pieces[0]), marker(&pieces[1])];
        assert!(taken(&order.map(|place: usize| markers[place])).is_err());
        mended();
    }
    marker(&pieces[0]);
    assert!(taken(&[head]).is_err());
    mended();
    // Whoever wants bytes gets none that could be sent.
    assert_eq!(pieces[0].chunk().len(), 1);
    assert!(taken(&[head]).is_err());
    mended();
    for _ in 0..MARKERS.len() + 1 {
        marker(&pieces[0]);
    }
    assert!(taken(&[head]).is_err());
}
