//! The bytes of one connection, between the socket and hyper.
//!
//! What comes in is shown to [`Framing`] first, which also means that hyper sees a head only when it is whole. What is
//! refused there reaches hyper as a small request that `service` answers with the refusal, so the answer takes its place
//! behind those of earlier requests. What goes out leaves marks for the [watch](super::watch).

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

use super::framing::{Framing, Refusal, Stop};
use super::sendfile::{self, Lane};
use super::watch::Watched;

/// What hyper reads in place of a refused head.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n";
/// The same when it began as a HEAD, whose client takes no content for an answer (RFC 9110 §9.3.2).
const STAND_IN_HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What stands in for a refused head that begins with these bytes.
fn stand_in(mut head: &[u8]) -> &'static [u8] {
    while let [b'\r', b'\n', rest @ ..] = head {
        head = rest;
    }
    if head.starts_with(b"HEAD ") {
        STAND_IN_HEAD
    } else {
        STAND_IN
    }
}

/// A socket, encrypted or not.
#[derive(Debug)]
pub(super) enum Wire {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The request that was refused, by its number on the connection, and why.
pub(super) type Refused = Arc<OnceLock<(u64, Refusal)>>;

/// A [`Wire`] as hyper sees it.
#[derive(Debug)]
pub(super) struct Io {
    wire: Wire,
    framing: Framing,
    /// Bytes that hyper has not got: the first `ready` ones it may have, the rest is an unfinished head.
    held: Vec<u8>,
    ready: usize,
    refused: Refused,
    stopped: Option<Stopped>,
    /// Whether hyper may close the socket; for HTTP/1 the connection does, after the discard.
    closes: bool,
    /// What hyper holds of files for this socket; none where bytes are encrypted.
    lane: Option<Arc<Lane>>,
    watched: Arc<Watched>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    /// The client will send no more.
    End,
    /// A head was refused: the rest is not for hyper.
    Refused,
    /// The chunks of a body are malformed.
    Malformed,
}

/// The protocol that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    H1,
    H2,
}

impl Io {
    pub(super) fn new(
        wire: Wire,
        max_head: usize,
        refused: Refused,
        watched: Arc<Watched>,
    ) -> Self {
        Self {
            lane: (!matches!(wire, Wire::Tls(_))).then(Arc::default),
            wire,
            framing: Framing::new(max_head),
            held: Vec::new(),
            ready: 0,
            refused,
            stopped: None,
            closes: false,
            watched,
        }
    }

    /// The lane for this connection's files. HTTP/2 cuts bodies into frames, which takes bytes.
    pub(super) fn lane(&self, protocol: Protocol) -> Option<Arc<Lane>> {
        self.lane.clone().filter(|_| protocol == Protocol::H1)
    }

    /// Leaves the connection to HTTP/2, closing included.
    pub(super) fn speak_h2(&mut self) {
        self.framing.pass_all();
        self.ready = self.held.len();
        self.closes = true;
    }

    /// Reads the first bytes and tells which protocol they are. `None`: the client went away without a word.
    pub(super) async fn detect(&mut self) -> io::Result<Option<Protocol>> {
        loop {
            let known = self.held.len().min(PREFACE.len());
            if self.held[..known] != PREFACE[..known] {
                self.look_at_held();
                return Ok(Some(Protocol::H1));
            }
            if known == PREFACE.len() {
                self.speak_h2();
                return Ok(Some(Protocol::H2));
            }
            self.held.reserve(2048);
            if self.wire.read_buf(&mut self.held).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Waits for the client's next bytes without a buffer for them.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ready > 0 {
            return Poll::Ready(());
        }
        self.wire.poll_readable(cx)
    }

    /// Puts bytes back that hyper had read and not used: whole requests, which the framing has seen.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        self.held.splice(..0, bytes.iter().copied());
        self.ready += bytes.len();
    }

    /// Whether what hyper has got so far are whole requests, so that another parser may go on from here.
    pub(super) fn is_between_requests(&self) -> bool {
        self.stopped.is_none() && self.framing.is_at_head()
    }

    /// Whether the client has closed its side.
    pub(super) fn is_ended(&self) -> bool {
        self.stopped == Some(Stopped::End)
    }

    /// Scans what is held and makes good bytes ready.
    fn look_at_held(&mut self) {
        match self.framing.scan(&self.held[self.ready..]) {
            Ok(pass) => self.ready += pass,
            Err(stop) => {
                let (Stop::Head { pass, .. } | Stop::Body { pass }) = stop;
                let stand_in = stand_in(&self.held[self.ready + pass..]);
                self.stop(stop, stand_in);
            }
        }
        if self.ready < self.held.len() && self.stopped.is_none() {
            self.watched.head_begins();
        }
    }

    fn stop(&mut self, stop: Stop, stand_in: &[u8]) {
        match stop {
            Stop::Head { pass, refusal } => {
                self.ready += pass;
                self.held.truncate(self.ready);
                self.held.extend_from_slice(stand_in);
                self.ready = self.held.len();
                let _ = self.refused.set((self.framing.heads() + 1, refusal));
                self.stopped = Some(Stopped::Refused);
            }
            Stop::Body { pass } => {
                self.ready += pass;
                self.held.truncate(self.ready);
                let _ = self.refused.set((self.framing.heads(), Refusal::Chunks));
                self.stopped = Some(Stopped::Malformed);
            }
        }
    }

    fn give_ready(&mut self, out: &mut ReadBuf<'_>) {
        let take = self.ready.min(out.remaining());
        out.put_slice(&self.held[..take]);
        self.ready -= take;
        if take == self.held.len() {
            // Idle connections must not keep the memory of their last large head.
            self.held = Vec::new();
        } else {
            self.held.drain(..take);
        }
    }

    /// Closes our side and, so that the client reads our answer rather than a reset, takes and forgets what it still
    /// sends: at most `bytes`, and not longer than `time`.
    pub(super) async fn discard_and_close(mut self, bytes: u64, time: Duration) {
        let discard = async {
            let _ = self.wire.shutdown().await;
            let mut left = bytes;
            let mut buffer = vec![0; 16 * 1024];
            while left > 0 {
                match self.wire.read_raw(&mut buffer).await {
                    Ok(got) if got > 0 => left = left.saturating_sub(got as u64),
                    _ => return,
                }
            }
            // Reading on would be free bandwidth for an attacker, closing now a reset for everybody else.
            std::future::pending::<()>().await;
        };
        let _ = tokio::time::timeout(time, discard).await;
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.ready > 0 {
                this.give_ready(out);
                return Poll::Ready(Ok(()));
            }
            match this.stopped {
                None => {}
                Some(Stopped::End) => return Poll::Ready(Ok(())),
                // The answer ends the connection; nothing more will wake hyper for reading.
                Some(Stopped::Refused) => return Poll::Pending,
                Some(Stopped::Malformed) => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "the chunks of the request's body are malformed",
                    )));
                }
            }
            if this.held.is_empty() {
                let before = out.filled().len();
                let read = Pin::new(&mut this.wire).poll_read(cx, out);
                this.watched.drained(read.is_pending());
                ready!(read)?;
                let new = &out.filled()[before..];
                if new.is_empty() {
                    this.stopped = Some(Stopped::End);
                    return Poll::Ready(Ok(()));
                }
                let pass = match this.framing.scan(new) {
                    Ok(pass) => pass,
                    Err(stop) => {
                        let (Stop::Head { pass, .. } | Stop::Body { pass }) = stop;
                        let stand_in = stand_in(&new[pass..]);
                        out.set_filled(before + pass);
                        // What was good has gone out already.
                        let stop = match stop {
                            Stop::Head { refusal, .. } => Stop::Head { pass: 0, refusal },
                            Stop::Body { .. } => Stop::Body { pass: 0 },
                        };
                        this.stop(stop, stand_in);
                        if pass > 0 {
                            return Poll::Ready(Ok(()));
                        }
                        continue;
                    }
                };
                if pass < new.len() {
                    this.held = new[pass..].to_vec();
                    this.watched.head_begins();
                    out.set_filled(before + pass);
                }
                if pass > 0 {
                    return Poll::Ready(Ok(()));
                }
            } else {
                let mut buffer = [0; 4096];
                let mut more = ReadBuf::new(&mut buffer);
                let read = Pin::new(&mut this.wire).poll_read(cx, &mut more);
                this.watched.drained(read.is_pending());
                ready!(read)?;
                if more.filled().is_empty() {
                    this.stopped = Some(Stopped::End);
                    return Poll::Ready(Ok(()));
                }
                this.held.extend_from_slice(more.filled());
                this.look_at_held();
            }
        }
    }
}

impl Io {
    fn note_write(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Ready(Ok(bytes)) => self.watched.wrote(*bytes),
            Poll::Pending => self.watched.blocks(),
            Poll::Ready(Err(_)) => {}
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let (bytes, window) = match &this.lane {
            Some(lane) => lane.taken(slices)?,
            None => (slices.len(), None),
        };
        let result = match (window, &this.lane) {
            // What stands before the file goes first, and hyper comes again for the file.
            (Some(window), Some(lane)) if bytes == 0 => {
                sendfile::poll_send(&mut this.wire, cx, &window, lane)
            }
            _ => Pin::new(&mut this.wire).poll_write_vectored(cx, &slices[..bytes]),
        };
        this.note_write(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.wire.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.wire).poll_flush(cx);
        match result {
            Poll::Pending => self.watched.blocks(),
            Poll::Ready(_) => self.watched.unblocks(),
        }
        result
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.closes {
            Pin::new(&mut self.wire).poll_shutdown(cx)
        } else {
            self.poll_flush(cx)
        }
    }
}

impl Wire {
    /// Whether the socket has something to read; what was decrypted already does not count.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        let readable = match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
            Self::Tls(stream) => stream.get_ref().0.poll_read_ready(cx),
        };
        // An error is readable too: whoever reads next gets it.
        readable.map(drop)
    }

    /// Reads what the socket holds, without decrypting it: it will be thrown away.
    async fn read_raw(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer).await,
            Self::Unix(stream) => stream.read(buffer).await,
            Self::Tls(stream) => stream.get_mut().0.read(buffer).await,
        }
    }
}

/// Calls the same method on whichever socket it is.
macro_rules! on_wire {
    ($self:ident, $method:ident ($($argument:expr),*)) => {
        match $self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).$method($($argument),*),
            Self::Unix(stream) => Pin::new(stream).$method($($argument),*),
            Self::Tls(stream) => Pin::new(&mut **stream).$method($($argument),*),
        }
    };
}

/// rustls copies what it encrypts to odd addresses, record by record. From 4 KiB on (with wider vectors from 8) glibc does that
/// with `rep movsb`, which for such addresses takes AMD processors several times as long as its copies of less: almost half
/// of all the time that TLS took. As many pieces as rustls takes at once, 64 KiB.
const CUT: usize = 2 << 10;
const CUTS: usize = 32;

/// Cuts slices into small ones, as many as there is room for, and tells how many that are.
fn cut_small<'a>(slices: &'a [IoSlice<'_>], cut: &mut [IoSlice<'a>; CUTS]) -> usize {
    let pieces = slices.iter().flat_map(|slice| slice.chunks(CUT));
    let mut count = 0;
    for (room, piece) in cut.iter_mut().zip(pieces) {
        *room = IoSlice::new(piece);
        count += 1;
    }
    count
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        on_wire!(self, poll_read(cx, out))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        on_wire!(self, poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bytes),
            Self::Tls(stream) => {
                let mut cut = [IoSlice::new(&[]); CUTS];
                let count = cut_small(bytes, &mut cut);
                Pin::new(&mut **stream).poll_write_vectored(cx, &cut[..count])
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        on_wire!(self, poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cutting_keeps_the_bytes_and_their_order() {
        let bytes: Vec<u8> = (0..100_000u32).map(|number| (number % 251) as u8).collect();
        for sizes in [
            &[10_usize, 0, 20_000, 1] as &[usize],
            &[],
            &[4096, 4097],
            &[99_000],
        ] {
            let mut rest = &bytes[..];
            let slices: Vec<_> = sizes
                .iter()
                .map(|size| IoSlice::new(rest.split_off(..*size).unwrap()))
                .collect();
            let mut cut = [IoSlice::new(&[]); CUTS];
            let count = cut_small(&slices, &mut cut);
            let joined: Vec<u8> = cut[..count]
                .iter()
                .flat_map(|piece| piece.to_vec())
                .collect();
            assert!(
                cut[..count]
                    .iter()
                    .all(|piece| (1..=CUT).contains(&piece.len()))
            );
            assert_eq!(joined.len(), sizes.iter().sum::<usize>().min(CUT * CUTS));
            assert!(bytes.starts_with(&joined));
        }
    }
}
