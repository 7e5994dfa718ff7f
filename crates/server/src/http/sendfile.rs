//! Files that go from the page cache to the socket by `sendfile`, through a hyper that knows nothing of it.
//!
//! hyper takes any [`Buf`] as a frame of a body, keeps it in a queue, and for each write asks all that it holds for their
//! bytes. A [`Piece`] that lies in a file has none: it gives a *marker*, one byte of a static, and notes its [`Window`] in
//! the connection's [`Lane`]. The connection's `Io` then finds markers among what it is to write, finds their windows in
//! the lane, and sends the file instead. hyper takes the bytes that were sent off the piece, so that the piece always
//! knows where it stands; the lane is empty between two writes.
//!
//! A marker must never reach a client. So every write compares all its markers with all that was noted, one to one and in
//! order, and ends the connection if they differ; and a piece that is asked for its bytes in any other way, as for copying
//! them, breaks the lane, which ends the connection at the next write. What is on its way is the page cache itself, so a
//! file that goes out must never be written to again; published blobs are not. Called by `body` (makes pieces) and `io` (sends).

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use rustix::io::Errno;
use tokio::io::{AsyncWrite as _, Interest};
use wharf_blob::Window;

use super::io::Wire;

/// Markers: the address is what counts. As many as hyper gives to one write.
static MARKERS: [u8; 64] = [0; 64];

/// So much for one unit of tokio's budget of 128, so that a task gives way to others after 4 MiB.
const UNIT: usize = 32 << 10;

/// A frame of an answer's body.
#[derive(Debug)]
pub enum Piece {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Bytes in a file.
    File(FilePiece),
}

/// What is left to send of a window, by one connection.
#[derive(Debug)]
pub struct FilePiece {
    window: Window,
    lane: Arc<Lane>,
}

/// Where one connection's pieces leave word for its next write.
#[derive(Debug, Default)]
pub(super) struct Lane {
    noted: Mutex<Vec<Window>>,
    state: AtomicU8,
}

/// Values of [`Lane::state`]: new pieces may lie in files; they may not; nothing may be written any more.
const OPEN: u8 = 0;
const CLOSED: u8 = 1;
const BROKEN: u8 = 2;

impl Piece {
    /// A piece that only `lane`'s connection can send.
    pub(super) fn in_file(window: Window, lane: &Arc<Lane>) -> Self {
        Self::File(FilePiece {
            window,
            lane: Arc::clone(lane),
        })
    }
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Self {
        Self::Bytes(bytes)
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::File(piece) => piece.window.len,
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::File(piece) if piece.window.len == 0 => &[],
            Self::File(piece) => {
                piece.lane.state.store(BROKEN, Relaxed);
                &MARKERS[..1]
            }
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        match (self, slices.first_mut()) {
            (_, None) => 0,
            (Self::Bytes(bytes), Some(slice)) if !bytes.is_empty() => {
                *slice = IoSlice::new(bytes);
                1
            }
            (Self::File(piece), Some(slice)) if piece.window.len > 0 => {
                *slice = IoSlice::new(piece.lane.note(&piece.window));
                1
            }
            _ => 0,
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Bytes(bytes) => bytes.advance(count),
            Self::File(FilePiece { window, .. }) => {
                assert!(
                    count <= window.len,
                    "a file's piece was sent beyond its end"
                );
                window.at += count as u64;
                window.len -= count;
            }
        }
    }
}

impl Lane {
    /// Whether new pieces may lie in files.
    pub(super) fn is_open(&self) -> bool {
        self.state.load(Relaxed) == OPEN
    }

    fn noted(&self) -> MutexGuard<'_, Vec<Window>> {
        self.noted
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    /// Notes a window for the write that comes, and gives its marker.
    fn note(&self, window: &Window) -> &'static [u8] {
        let mut noted = self.noted();
        let place = noted.len();
        if place >= MARKERS.len() {
            self.state.store(BROKEN, Relaxed);
            return &MARKERS[..1];
        }
        noted.push(window.clone());
        &MARKERS[place..=place]
    }

    /// Takes everything that was noted, and compares it with what is to be written. Gives the number of slices that are
    /// bytes before the first marker, and that marker's window.
    pub(super) fn taken(&self, slices: &[IoSlice<'_>]) -> io::Result<(usize, Option<Window>)> {
        let mut noted = self.noted();
        let mut places = 0..noted.len();
        let mut first = None;
        for (at, slice) in slices.iter().enumerate() {
            if let Some(place) = place_of(slice) {
                first.get_or_insert(at);
                if places.next() != Some(place) || slice.len() != 1 {
                    return Err(self.broken());
                }
            }
        }
        if !places.is_empty() || self.state.load(Relaxed) == BROKEN {
            return Err(self.broken());
        }
        // Keeps its space: the next write has as many.
        let window = noted.drain(..).next();
        Ok((first.unwrap_or(slices.len()), window))
    }

    fn broken(&self) -> io::Error {
        self.state.store(BROKEN, Relaxed);
        io::Error::other(
            "the files of an answer are not where they should be in it; the connection was ended, since wrong bytes \
             might have been sent; this is a bug, please report it",
        )
    }
}

/// Which marker a slice begins with, if any.
fn place_of(slice: &[u8]) -> Option<usize> {
    let place = slice.as_ptr().addr().checked_sub(MARKERS.as_ptr().addr())?;
    (place < MARKERS.len() && !slice.is_empty()).then_some(place)
}

/// Sends what the socket takes of a window.
pub(super) fn poll_send(
    wire: &mut Wire,
    cx: &mut Context<'_>,
    window: &Window,
    lane: &Lane,
) -> Poll<io::Result<usize>> {
    loop {
        let sent = match wire {
            Wire::Tcp(socket) => {
                ready!(socket.poll_write_ready(cx))?;
                socket.try_io(Interest::WRITABLE, || send(&socket, window))
            }
            Wire::Unix(socket) => {
                ready!(socket.poll_write_ready(cx))?;
                socket.try_io(Interest::WRITABLE, || send(&socket, window))
            }
            Wire::Tls(_) => return Poll::Ready(Err(lane.broken())),
        };
        match sent {
            Ok(0) => {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!(
                        "a blob's file became shorter than {} bytes while it was sent",
                        window.at + 1
                    ),
                )));
            }
            Ok(sent) => {
                charge(cx, sent);
                return Poll::Ready(Ok(sent));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => match Errno::from_io_error(&error) {
                // A file system or a socket that can't: what follows is copied, and so is this.
                Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => {
                    lane.state.fetch_max(CLOSED, Relaxed);
                    return poll_copy(wire, cx, window);
                }
                _ => return Poll::Ready(Err(error)),
            },
        }
    }
}

fn send(socket: impl AsFd, window: &Window) -> io::Result<usize> {
    let mut at = window.at;
    Ok(rustix::fs::sendfile(
        socket,
        &*window.file,
        Some(&mut at),
        window.len,
    )?)
}

/// The way of a window where `sendfile` does not work. Windows are in memory, so that reading one does not wait.
fn poll_copy(wire: &mut Wire, cx: &mut Context<'_>, window: &Window) -> Poll<io::Result<usize>> {
    let mut buffer = vec![0; window.len.min(64 << 10)];
    let count = rustix::io::pread(&*window.file, &mut buffer, window.at)?;
    Pin::new(wire).poll_write(cx, &buffer[..count])
}

/// Takes from the task's budget what `sent` bytes cost; without any left, the next look at the socket says `Pending`.
fn charge(cx: &mut Context<'_>, sent: usize) {
    for _ in 0..sent / UNIT {
        if !tokio::task::coop::has_budget_remaining() {
            return;
        }
        let _ = pin!(tokio::task::coop::consume_budget()).poll(cx);
    }
}

#[cfg(test)]
#[path = "sendfile_tests.rs"]
mod tests;
