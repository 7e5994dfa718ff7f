//! Reading an object: one request for the range that is wanted, begun when the first byte is, and taken up again where it
//! broke when the store cuts the connection.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_core::Stream;
use object_store::{GetOptions, GetRange, GetResult};

use super::Engine;
use super::gate::Call;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::store::BoxFuture;

/// How often a stream is taken up again without a byte in between.
const AGAIN: u32 = 3;

/// Longest piece that is given out.
const PIECE: usize = 256 << 10;

/// A blob in an object store. Nothing was asked yet.
#[derive(Clone)]
pub struct ObjectBlob {
    pub(super) engine: Arc<Engine>,
    pub(super) key: Arc<Key>,
    pub(super) size: u64,
}

impl ObjectBlob {
    /// Its size in bytes according to the row.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    pub(crate) fn stream(&self, range: Range<u64>) -> ObjectStream {
        ObjectStream {
            next: range.start,
            end: range.end.max(range.start),
            state: State::Idle,
            left: Bytes::new(),
            failures: 0,
            blob: self.clone(),
        }
    }

    fn wrong_size(&self, actual: u64) -> Error {
        Error::WrongSize {
            key: self.key.to_string(),
            expected: self.size,
            actual,
        }
    }

    async fn request(self, range: Range<u64>) -> Result<GetResult> {
        let options = GetOptions {
            range: Some(GetRange::Bounded(range)),
            ..GetOptions::default()
        };
        let path = self.engine.path(&self.key);
        let request = self.engine.store.get_opts(&path, options);
        let what = || format!("reading {}", self.key);
        let result = self.engine.gate.pass(Call::Get, what, request).await;
        let result = result.map_err(|error| missing(error, &self.key))?;
        match result.meta.size == self.size {
            true => Ok(result),
            false => Err(self.wrong_size(result.meta.size)),
        }
    }
}

/// The key instead of the path in the bucket.
pub(super) fn missing(error: Error, key: &Key) -> Error {
    match error {
        Error::Missing { .. } => Error::Missing {
            key: key.to_string(),
        },
        other => other,
    }
}

impl std::fmt::Debug for ObjectBlob {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ObjectBlob({}, {} bytes)", self.key, self.size)
    }
}

type Body = Pin<Box<dyn Stream<Item = object_store::Result<Bytes>> + Send>>;

enum State {
    Idle,
    Asked(BoxFuture<'static, Result<GetResult>>),
    Open(Body),
}

/// The bytes of a range of an object.
pub(crate) struct ObjectStream {
    blob: ObjectBlob,
    next: u64,
    end: u64,
    state: State,
    /// What the store gave in one piece that is too long to be handed out so.
    left: Bytes,
    /// Failures since the last byte.
    failures: u32,
}

impl ObjectStream {
    /// Asks the store, if that was not done yet; ready when it has answered.
    pub(crate) fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            match &mut self.state {
                State::Open(_) => return Poll::Ready(Ok(())),
                _ if self.next >= self.end => return Poll::Ready(Ok(())),
                State::Idle => {
                    if self.end > self.blob.size {
                        let error = self.blob.wrong_size(self.blob.size);
                        return Poll::Ready(Err(self.fail(error)));
                    }
                    let request = self.blob.clone().request(self.next..self.end);
                    self.state = State::Asked(Box::pin(request));
                }
                State::Asked(answer) => match ready!(answer.as_mut().poll(cx)) {
                    Ok(result) => self.state = State::Open(Box::pin(result.into_stream())),
                    Err(error) => return Poll::Ready(Err(self.fail(error))),
                },
            }
        }
    }

    pub(crate) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes>>> {
        loop {
            if !self.left.is_empty() {
                return Poll::Ready(Some(Ok(self.give())));
            }
            if self.next >= self.end {
                return Poll::Ready(None);
            }
            if let Err(error) = ready!(self.poll_begin(cx)) {
                return Poll::Ready(Some(Err(error)));
            }
            let State::Open(body) = &mut self.state else {
                return Poll::Ready(None);
            };
            let broken = match ready!(body.as_mut().poll_next(cx)) {
                Some(Ok(bytes)) if bytes.is_empty() => continue,
                // More than was asked for is never passed on.
                Some(Ok(bytes)) if bytes.len() as u64 <= self.end - self.next => {
                    self.failures = 0;
                    self.left = bytes;
                    continue;
                }
                Some(Ok(_)) => None,
                Some(Err(error)) => Some(error),
                None => None,
            };
            // The connection broke in the middle, or the answer was too short or too long: the rest is asked for again.
            self.failures += 1;
            let gate = &self.blob.engine.gate;
            if self.failures > AGAIN {
                let error = match broken {
                    Some(error) => gate.sort(format!("reading {}", self.blob.key), error),
                    None => self.blob.wrong_size(self.next),
                };
                return Poll::Ready(Some(Err(self.fail(error))));
            }
            tracing::debug!(key = %self.blob.key, at = self.next, "a download from the object store broke; going on");
            self.state = State::Idle;
        }
    }

    fn give(&mut self) -> Bytes {
        let piece = self.left.split_to(self.left.len().min(PIECE));
        self.next += piece.len() as u64;
        piece
    }

    /// After an error there is nothing more.
    fn fail(&mut self, error: Error) -> Error {
        self.next = self.end;
        self.state = State::Idle;
        error
    }
}

impl std::fmt::Debug for ObjectStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} at {} of {}", self.blob, self.next, self.end)
    }
}
