//! The way out: a blob that was opened, and the stream of its bytes.
//!
//! A stream gives its bytes in one of two ways, as the caller asks each time: copied into a [`Bytes`], or as a
//! [`Window`], a stretch of the open file that a socket can be fed from (`sendfile`). Either is tried on the spot with
//! `RWF_NOWAIT`, which only takes what is in the page cache; what is not there is fetched on the I/O pool, and the kernel
//! is asked to read on ahead. The size comes from the row and was compared with the file when it was opened; a file that
//! turns out shorter gives an error, so that a short answer is never a complete one.

mod buffer;
mod window;

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use self::buffer::Buffers;
use self::buffer::{Buffer, Reader};
pub use self::window::{Piece, Window};
use crate::error::{Error, Result};
use crate::fault::{Fault, Step};
use crate::io::{Pool, Started};
use crate::key::Key;
use crate::object::{ObjectBlob, ObjectStream};

/// What the kernel is asked to read ahead of a cold read, in bytes.
const AHEAD: u64 = 4 << 20;

/// A blob that was opened. A clone reads the same open file.
#[derive(Clone)]
pub enum Blob {
    /// A file, opened; it stays readable when it is removed meanwhile.
    File(FileBlob),
    /// Bytes that are in memory anyway.
    Memory(Bytes),
    /// An object in an object store, of which nothing was asked yet.
    Object(ObjectBlob),
}

impl Blob {
    /// Its size in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::File(file) => file.size,
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Object(object) => object.size(),
        }
    }

    /// Whether it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of `range`, in order, in pieces of at most 256 KiB. A range that ends beyond the blob gives an error.
    pub fn stream(&self, range: Range<u64>) -> ByteStream {
        ByteStream(match self {
            Self::File(file) => Source::File(Box::new(FileStream {
                next: range.start,
                end: range.end.max(range.start),
                state: State::Ready,
                _reader: file.io.buffers.reader(),
                file: file.clone(),
            })),
            Self::Object(object) => Source::Object(Box::new(object.stream(range))),
            Self::Memory(bytes) => {
                let part = || {
                    let start = usize::try_from(range.start).ok()?;
                    let end = usize::try_from(range.end).ok()?.max(start);
                    (end <= bytes.len()).then(|| bytes.slice(start..end))
                };
                Source::Memory(Some(part().ok_or_else(|| Error::WrongSize {
                    key: "a blob in memory".into(),
                    expected: range.end,
                    actual: bytes.len() as u64,
                })))
            }
        })
    }
}

impl std::fmt::Debug for Blob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(file) => write!(f, "Blob({}, {} bytes)", file.key, file.size),
            Self::Object(object) => write!(f, "Blob({object:?})"),
            Self::Memory(bytes) => write!(f, "Blob(in memory, {} bytes)", bytes.len()),
        }
    }
}

/// An open blob file.
#[derive(Clone)]
pub struct FileBlob {
    file: Arc<File>,
    key: Arc<Key>,
    size: u64,
    io: Arc<ReadIo>,
}

/// What all readers of a store share.
#[derive(Debug)]
pub(crate) struct ReadIo {
    pub(crate) pool: Pool,
    pub(crate) buffers: Arc<Buffers>,
    pub(crate) fault: Option<Arc<dyn Fault>>,
}

impl FileBlob {
    pub(crate) fn new(file: File, key: Key, size: u64, io: Arc<ReadIo>) -> Self {
        Self {
            file: Arc::new(file),
            key: Arc::new(key),
            size,
            io,
        }
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Tests may make any look at a file fail.
    fn fault(&self) -> rustix::io::Result<()> {
        let Some(fault) = &self.io.fault else {
            return Ok(());
        };
        fault
            .before(Step::Read, self.key.as_str())
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    /// One read of at most `buffer`'s size. `wait` says whether it may block.
    fn read(
        &self,
        buffer: &mut Buffer,
        at: u64,
        end: u64,
        wait: bool,
    ) -> rustix::io::Result<usize> {
        self.fault()?;
        let want = usize::try_from(end - at).unwrap_or(usize::MAX);
        let buffer = buffer.as_mut();
        let want = want.min(buffer.len());
        let mut slices = [IoSliceMut::new(&mut buffer[..want])];
        let flags = if wait {
            ReadWriteFlags::empty()
        } else {
            ReadWriteFlags::NOWAIT
        };
        loop {
            match preadv2(&*self.file, &mut slices, at, flags) {
                Err(Errno::INTR) => {}
                outcome => return outcome,
            }
        }
    }

    /// Reads where blocking is allowed, and has the kernel fetch what comes next.
    fn read_cold(&self, buffer: &mut Buffer, at: u64, end: u64) -> rustix::io::Result<usize> {
        self.advise(at, (at + AHEAD).min(end));
        self.read(buffer, at, end, true)
    }
}

impl std::fmt::Debug for FileBlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileBlob({}, {} bytes)", self.key, self.size)
    }
}

/// The bytes of a range. Ends after the last one; after an error there is nothing more.
#[derive(Debug)]
pub struct ByteStream(Source);

enum Source {
    File(Box<FileStream>),
    Object(Box<ObjectStream>),
    Memory(Option<Result<Bytes>>),
}

struct FileStream {
    file: FileBlob,
    next: u64,
    end: u64,
    state: State,
    /// Counts this stream among those that share the buffers.
    _reader: Reader,
}

enum State {
    Ready,
    Reading(Started<(Buffer, rustix::io::Result<usize>)>),
    Warming(Started<rustix::io::Result<()>>),
}

impl ByteStream {
    /// A stream of bytes that are in memory.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Self(Source::Memory(Some(Ok(bytes))))
    }

    /// Waits until it is certain that there are bytes to come, where only a request can tell: an error here comes before
    /// anything was promised to a client.
    pub async fn begin(&mut self) -> Result<()> {
        match &mut self.0 {
            Source::Object(object) => std::future::poll_fn(|cx| object.poll_begin(cx)).await,
            Source::File(_) | Source::Memory(_) => Ok(()),
        }
    }

    /// The next bytes, as a window of the file where that can be; the two ways may be mixed.
    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece>>> {
        if let Source::File(file) = &mut self.0
            && let Some(window) = ready!(file.poll_window(cx))
        {
            return Poll::Ready(Some(window.map(Piece::Window)));
        }
        let bytes = ready!(Pin::new(self).poll_next(cx));
        Poll::Ready(bytes.map(|bytes| bytes.map(Piece::Bytes)))
    }

    /// The next piece; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for ByteStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.0 {
            Source::Memory(bytes) => Poll::Ready(match bytes.take() {
                Some(Ok(bytes)) if bytes.is_empty() => None,
                other => other,
            }),
            Source::File(file) => file.poll_next(cx),
            Source::Object(object) => object.poll_next(cx),
        }
    }
}

impl FileStream {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            let (buffer, outcome) = match &mut self.state {
                State::Ready => {
                    if self.next >= self.end {
                        return Poll::Ready(None);
                    }
                    if self.end > self.file.size {
                        return Poll::Ready(Some(self.short(self.file.size)));
                    }
                    let mut buffer = self.file.io.buffers.buffer(self.end - self.next);
                    match self.file.read(&mut buffer, self.next, self.end, false) {
                        // Not in memory, or a file system that can't say: let a thread wait for it. No place in the
                        // queue is awaited, since a stream that nobody polls on would keep it; a stream has one job at
                        // most, so their number is that of the clients.
                        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                            drop(buffer);
                            let (file, next, end) = (self.file.clone(), self.next, self.end);
                            let pool = &self.file.io.pool;
                            self.state = State::Reading(pool.start_now(move || {
                                let mut buffer = file.io.buffers.buffer(end - next);
                                let outcome = file.read_cold(&mut buffer, next, end);
                                (buffer, outcome)
                            }));
                            continue;
                        }
                        outcome => (buffer, outcome),
                    }
                }
                State::Reading(started) => {
                    let outcome = ready!(Pin::new(started).poll(cx));
                    self.state = State::Ready;
                    match outcome {
                        Ok(outcome) => outcome,
                        Err(error) => return Poll::Ready(Some(self.fail(error))),
                    }
                }
                State::Warming(started) => {
                    let _ = ready!(Pin::new(started).poll(cx));
                    self.state = State::Ready;
                    continue;
                }
            };
            return Poll::Ready(Some(match outcome {
                Ok(0) => self.short(self.next),
                Ok(count) => {
                    self.next += count as u64;
                    Ok(buffer.freeze(count))
                }
                Err(errno) => {
                    let key = self.file.key.clone();
                    self.fail(Error::io(
                        || format!("reading {key}"),
                        io::Error::from(errno),
                    ))
                }
            }));
        }
    }

    /// The file ends before the row says so.
    fn short<T>(&mut self, actual: u64) -> Result<T> {
        let error = Error::WrongSize {
            key: self.file.key.as_str().to_owned(),
            expected: self.end.max(self.file.size),
            actual,
        };
        self.fail(error)
    }

    fn fail<T>(&mut self, error: Error) -> Result<T> {
        self.next = self.end;
        Err(error)
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(file) => write!(f, "{:?} at {} of {}", file.file, file.next, file.end),
            Self::Object(object) => write!(f, "{object:?}"),
            Self::Memory(_) => f.write_str("in memory"),
        }
    }
}
