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

use super::{FileBlob, FileStream, State};
use crate::error::Result;
use crate::io::Started;

/// The largest window: large enough that looking at it costs little beside sending it, small enough that sending it
/// takes a runtime thread well below a millisecond.
const WINDOW: u64 = 512 << 10;

/// Below this, copying is as cheap as the system calls around a `sendfile` (measured).
const LEAST: u64 = 128 << 10;

/// A window is looked at in steps of this; the kernel reads and drops larger folios than that when it streams.
const STEP: u64 = 128 << 10;

/// So many bytes are read at once for nothing but their presence: what a processor's own cache holds.
const SCRATCH: usize = 64 << 10;

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
    ///
    /// Once one window was not in memory, each further one is fetched while the one before it is sent: a look at some of
    /// its pages would not tell that others are still under way.
    pub(super) fn poll_window(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Window>>> {
        let end = self.end.min(self.next + WINDOW);
        match &mut self.state {
            State::Ready => {
                if self.end.saturating_sub(self.next) < LEAST || self.end > self.file.size {
                    return Poll::Ready(None);
                }
                match self.file.touch(self.next, end) {
                    Ok(()) => {}
                    Err(Errno::AGAIN) => {
                        self.state = State::Warming(self.fetch(self.next, end));
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
                if self.end - end >= LEAST {
                    let next = self.end.min(end + WINDOW);
                    self.state = State::Warming(self.fetch(end, next));
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

    /// Brings a stretch into memory. It takes no place in the queue, as for copying; a stream has one such job at most.
    fn fetch(&self, from: u64, to: u64) -> Started<rustix::io::Result<()>> {
        let file = self.file.clone();
        self.file.io.pool.start_now(move || file.fetch(from, to))
    }
}

impl FileBlob {
    /// Reads a byte of each step of a window. Says [`Errno::AGAIN`] if one is not in memory, and [`Errno::NODATA`] if
    /// the file is shorter than that.
    fn touch(&self, at: u64, end: u64) -> rustix::io::Result<()> {
        self.fault()?;
        for point in points(at, end) {
            self.read_some(&mut [0], point, ReadWriteFlags::NOWAIT)?;
        }
        Ok(())
    }

    /// Reads a stretch and throws the bytes away. That is cheaper than an advice to the kernel: what it reads on demand lies
    /// in large folios, what it is advised to read in single pages (`docs/reference/performance.md`, P2).
    fn fetch(&self, from: u64, to: u64) -> rustix::io::Result<()> {
        self.fault()?;
        let mut scratch = [0; SCRATCH];
        let mut at = from;
        while at < to {
            let want = (to - at).min(SCRATCH as u64) as usize;
            at += self.read_some(&mut scratch[..want], at, ReadWriteFlags::empty())? as u64;
        }
        Ok(())
    }

    fn read_some(
        &self,
        buffer: &mut [u8],
        at: u64,
        flags: ReadWriteFlags,
    ) -> rustix::io::Result<usize> {
        loop {
            match preadv2(&*self.file, &mut [IoSliceMut::new(buffer)], at, flags) {
                Err(Errno::INTR) => {}
                Ok(0) => return Err(Errno::NODATA),
                outcome => return outcome,
            }
        }
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
