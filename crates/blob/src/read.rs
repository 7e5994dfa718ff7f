//! Reading blobs: from memory, or from a file through the page cache.

use std::fs::File;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use rustix::io::ReadWriteFlags;

use crate::error::{Error, Result};
use crate::io::{Pool, died};

/// Read at once when the page cache has it.
const INLINE: usize = 256 << 10;
/// Read at once when the disk has to be asked.
const BLOCKING: usize = 1 << 20;

/// A published blob, open for reading. Its length is known to be right.
#[derive(Debug, Clone)]
pub enum Blob {
    /// A file.
    File(FileBlob),
    /// Bytes at hand.
    Memory(Bytes),
}

impl Blob {
    /// In bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::File(file) => file.size,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    /// Whether it has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes of `range`, clamped to the blob.
    pub fn stream(&self, range: Range<u64>) -> ByteStream {
        let end = range.end.min(self.len());
        let start = range.start.min(end);
        ByteStream(match self {
            Self::Memory(bytes) => {
                // In range, so it fits: the bytes are in memory.
                Reader::Memory(Some(bytes.slice(start as usize..end as usize)))
            }
            Self::File(file) => Reader::File {
                file: file.clone(),
                at: start,
                end,
                waiting: None,
            },
        })
    }
}

/// An open file of known length.
#[derive(Debug, Clone)]
pub struct FileBlob {
    pub(crate) file: Arc<File>,
    pub(crate) size: u64,
    pub(crate) pool: Pool,
}

/// Bytes in order. A file that turns out short ends in an error, never early.
pub struct ByteStream(Reader);

enum Reader {
    Memory(Option<Bytes>),
    File {
        file: FileBlob,
        at: u64,
        end: u64,
        /// A read that has to wait for the disk.
        waiting: Option<Pin<Box<dyn Future<Output = Result<Bytes>> + Send + Sync>>>,
    },
}

impl std::fmt::Debug for ByteStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Reader::Memory(bytes) => {
                write!(f, "ByteStream({:?} bytes)", bytes.as_ref().map(Bytes::len))
            }
            Reader::File { at, end, .. } => write!(f, "ByteStream({at}..{end})"),
        }
    }
}

impl Stream for ByteStream {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match &mut self.0 {
            Reader::Memory(bytes) => {
                Poll::Ready(bytes.take().filter(|bytes| !bytes.is_empty()).map(Ok))
            }
            Reader::File {
                file,
                at,
                end,
                waiting,
            } => {
                if waiting.is_none() {
                    if at == end {
                        return Poll::Ready(None);
                    }
                    match cached(&file.file, *at, *end) {
                        Ok(bytes) => {
                            *at += bytes.len() as u64;
                            return Poll::Ready(Some(Ok(bytes)));
                        }
                        Err(Miss::Failed(error)) => {
                            *at = *end;
                            return Poll::Ready(Some(Err(error)));
                        }
                        Err(Miss::NotCached) => {}
                    }
                    let (file, from, to) = (file.clone(), *at, *end);
                    *waiting = Some(Box::pin(async move {
                        let inner = file.file.clone();
                        let answer = file.pool.submit(move || blocking(&inner, from, to)).await;
                        answer.await.unwrap_or_else(|_| Err(died()))
                    }));
                }
                let Some(read) = waiting else {
                    return Poll::Ready(None);
                };
                let outcome = std::task::ready!(read.as_mut().poll(context));
                *waiting = None;
                match &outcome {
                    Ok(bytes) => *at += bytes.len() as u64,
                    Err(_) => *at = *end,
                }
                Poll::Ready(Some(outcome))
            }
        }
    }
}

enum Miss {
    /// The disk would have to be asked, or the file system cannot say.
    NotCached,
    Failed(Error),
}

/// What the page cache has, without waiting for a disk.
fn cached(file: &File, at: u64, end: u64) -> Result<Bytes, Miss> {
    let length = usize::try_from(end - at).unwrap_or(INLINE).min(INLINE);
    let mut buffer = BytesMut::zeroed(length);
    let read = rustix::io::preadv2(
        file,
        &mut [IoSliceMut::new(&mut buffer)],
        at,
        ReadWriteFlags::NOWAIT,
    );
    match read {
        Ok(0) => Err(Miss::Failed(short(at))),
        Ok(read) => {
            buffer.truncate(read);
            Ok(buffer.freeze())
        }
        // EAGAIN: not in the cache. The others: a kernel or file system without RWF_NOWAIT.
        Err(_) => Err(Miss::NotCached),
    }
}

fn blocking(file: &File, at: u64, end: u64) -> Result<Bytes> {
    let length = usize::try_from(end - at).unwrap_or(BLOCKING).min(BLOCKING);
    let mut buffer = BytesMut::zeroed(length);
    match file.read_at(&mut buffer, at) {
        Ok(0) => Err(short(at)),
        Ok(read) => {
            buffer.truncate(read);
            Ok(buffer.freeze())
        }
        Err(error) => Err(Error::io("reading a blob", error)),
    }
}

fn short(at: u64) -> Error {
    Error::io(
        format!("a blob's file ends at byte {at}, before its length"),
        io::Error::from(io::ErrorKind::UnexpectedEof),
    )
}
