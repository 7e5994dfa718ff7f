//! Windows: stretches of an open blob file that can be sent without a copy and without waiting for a disk.
//!
//! `sendfile` waits for pages that are not in memory, and a runtime thread must not. So a window is looked at before it
//! is given out, and made resident on the I/O pool if it was not. Between the look and the sending the kernel may still
//! drop a page; that costs one wait, never a wrong byte.

use std::fs::File;
use std::io::IoSliceMut;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::fs::{Advice, fadvise};
use rustix::io::{Errno, ReadWriteFlags, preadv2};

use super::{AHEAD, FileBlob, FileStream, State};
use crate::error::Result;

/// The largest window: large enough that looking at it costs little beside sending it, small enough that sending it
/// takes a runtime thread well below a millisecond.
const WINDOW: u64 = 512 << 10;

/// Below this, copying is as cheap as the system calls around a `sendfile` (measured).
const LEAST: u64 = 128 << 10;

/// A window is looked at in steps of this; the kernel reads and drops larger folios than that when it streams.
const STEP: u64 = 128 << 10;

/// One advice covers no more than this, since the kernel cuts longer ones to the size of one request to the disk.
const ADVICE: u64 = 1 << 20;

/// Part of a blob's content.
#[derive(Debug)]
pub enum Piece {
    /// Copied.
    Bytes(Bytes),
    /// Still in the file, and in memory a moment ago.
    Window(Window),
}

/// A stretch of an open file. Reads must give its offset: the file's own position is shared.
#[derive(Clone, Debug)]
pub struct Window {
    /// The open file.
    pub file: Arc<File>,
    /// Where the stretch begins.
    pub at: u64,
    /// Its length in bytes; not zero.
    pub len: usize,
}

/// Where the last bytes of a window's steps lie.
fn points(at: u64, end: u64) -> impl Iterator<Item = u64> {
    (at + STEP..end)
        .step_by(STEP as usize)
        .map(|point| point - 1)
        .chain([end - 1])
}

impl FileStream {
    /// The next window; `None` if the bytes should be copied, or there are none, or no window can be had.
    pub(super) fn poll_window(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Window>>> {
        let end = self.end.min(self.next + WINDOW);
        match &mut self.state {
            State::Ready => {
                if self.end.saturating_sub(self.next) < LEAST || self.end > self.file.size {
                    return Poll::Ready(None);
                }
                match self.file.touch(self.next, end, ReadWriteFlags::NOWAIT) {
                    Ok(()) => self.keep_ahead(),
                    Err(Errno::AGAIN) => {
                        let (file, next, last) = (self.file.clone(), self.next, self.end);
                        self.advised = last.min(next + AHEAD);
                        let advised = self.advised;
                        self.state = State::Warming(self.file.io.pool.start_now(move || {
                            file.advise(next, advised);
                            file.touch(next, end, ReadWriteFlags::empty())
                        }));
                        return self.poll_window(cx);
                    }
                    // A file system that can't say, or a failure: the way of copying deals with either.
                    Err(_) => return Poll::Ready(None),
                }
            }
            State::Reading(_) => return Poll::Ready(None),
            State::Warming(started) => {
                let outcome = ready!(std::pin::Pin::new(started).poll(cx));
                self.state = State::Ready;
                match outcome {
                    // Not looked at again, so that a memory that is short of pages can't keep it waiting for ever.
                    Ok(Ok(())) => {}
                    // The way of copying tells which byte it is that can't be read.
                    Ok(Err(_)) => return Poll::Ready(None),
                    Err(error) => return Poll::Ready(Some(self.fail(error))),
                }
            }
        }
        let window = Window {
            file: self.file.file.clone(),
            at: self.next,
            len: (end - self.next) as usize,
        };
        self.next = end;
        Poll::Ready(Some(Ok(window)))
    }

    /// Lets the disk work on what comes next while this window is sent, if it had work with the ones before.
    fn keep_ahead(&mut self) {
        if self.advised == 0 || self.advised >= self.end || self.next + AHEAD / 2 < self.advised {
            return;
        }
        let (file, from) = (self.file.clone(), self.advised);
        let to = self.end.min(self.next + AHEAD);
        self.advised = to;
        // At most one per half of what is ahead.
        self.file.io.pool.detach(move || file.advise(from, to));
    }
}

impl FileBlob {
    /// Reads a byte of each step of a window. Says [`Errno::AGAIN`] if one is not in memory and `flags` forbid to wait
    /// for it, and [`Errno::NODATA`] if the file is shorter than that.
    fn touch(&self, at: u64, end: u64, flags: ReadWriteFlags) -> rustix::io::Result<()> {
        self.fault()?;
        for point in points(at, end) {
            let mut byte = [0];
            loop {
                match preadv2(&*self.file, &mut [IoSliceMut::new(&mut byte)], point, flags) {
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                    Ok(0) => return Err(Errno::NODATA),
                    Ok(_) => break,
                }
            }
        }
        Ok(())
    }

    /// Asks the kernel to read ahead. It may block, and a kernel that takes no advice is one that reads later.
    pub(super) fn advise(&self, from: u64, to: u64) {
        for at in (from..to).step_by(ADVICE as usize) {
            let len = NonZeroU64::new(ADVICE.min(to - at));
            let _ = fadvise(&*self.file, at, len, Advice::WillNeed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_of_a_window_is_looked_at_and_its_last_byte() {
        let of = |at, end| points(at, end).collect::<Vec<_>>();
        assert_eq!(of(7, 8), [7]);
        assert_eq!(of(5, 5 + STEP), [4 + STEP]);
        assert_eq!(of(0, STEP + 1), [STEP - 1, STEP]);
        assert_eq!(of(0, 2 * STEP), [STEP - 1, 2 * STEP - 1]);
    }
}
