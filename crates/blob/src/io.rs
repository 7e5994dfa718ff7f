//! The I/O pool: a bounded number of threads for the calls that may block.
//!
//! Used by the file store only. Reads and writes have a pool each, so that disks that take seconds for an `fsync` do not
//! hold up reading. A job never waits for another job, so the pool can't lock up.

use std::any::Any;
use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::error::{Error, Result};

/// Jobs that may wait per thread before callers have to: enough to keep the threads busy, few enough to bound memory.
const QUEUE_PER_THREAD: usize = 16;

/// Jobs hold a few hundred bytes of stack; the standard 2 MiB would be reserved for nothing.
const STACK: usize = 256 * 1024;

type Work = Box<dyn FnOnce() + Send>;

/// Threads for blocking calls. A clone is another handle; the threads end with the last one, after the jobs that were
/// accepted.
#[derive(Clone)]
pub struct Pool {
    handle: Arc<Handle>,
}

/// How busy a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStats {
    /// Threads there are.
    pub threads: usize,
    /// Threads that work on a job.
    pub busy: usize,
    /// Jobs that wait for a thread.
    pub queued: usize,
    /// Jobs begun since the start.
    pub jobs: u64,
}

struct Handle {
    shared: Arc<Shared>,
    name: String,
    threads: usize,
    /// How far its threads step back for others, as in nice(2).
    nice: i32,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    slots: Arc<Semaphore>,
    busy: AtomicUsize,
    jobs: AtomicU64,
}

struct Queue {
    jobs: VecDeque<Work>,
    closed: bool,
    /// Threads that were started, and those of them that wait for a job.
    started: usize,
    idle: usize,
}

impl Pool {
    /// A pool of up to `threads` threads (at least one) that are called `name`. They start when they are needed: most of
    /// them wait for a disk that is slow, and a thread that never ran costs nothing.
    pub fn new(name: &str, threads: usize) -> io::Result<Self> {
        Self::nice(name, threads, 0)
    }

    /// The same, for work that must not take the processor from threads that answer requests.
    pub(crate) fn nice(name: &str, threads: usize, nice: i32) -> io::Result<Self> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue {
                jobs: VecDeque::new(),
                closed: false,
                started: 1,
                idle: 0,
            }),
            wake: Condvar::new(),
            slots: Arc::new(Semaphore::new(threads * (1 + QUEUE_PER_THREAD))),
            busy: AtomicUsize::new(0),
            jobs: AtomicU64::new(0),
        });
        let handle = Handle {
            shared,
            name: name.to_owned(),
            threads,
            nice,
        };
        // One for certain: from then on every job has a thread that gets to it.
        handle.start_thread()?;
        Ok(Self {
            handle: Arc::new(handle),
        })
    }

    /// Runs a job on a thread, waiting for a place in the queue. A future that is dropped before it had a place never
    /// runs its job; after that the job runs to its end and its result is dropped there.
    pub async fn run<T, F>(&self, job: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        let slot = self.slot().await;
        self.start(slot, job).await?
    }

    /// Waits for a place in the queue.
    pub(crate) async fn slot(&self) -> Slot {
        let slots = self.handle.shared.slots.clone();
        // The semaphore is never closed.
        Slot(slots.acquire_owned().await.ok())
    }

    /// Puts a job into its place, at once. The result waits in what is returned; dropping that drops the result on the
    /// I/O thread.
    pub(crate) fn start<T, F>(&self, slot: Slot, job: F) -> Started<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let (send, receive) = oneshot::channel();
        self.push(Box::new(move || {
            let outcome = catch_unwind(AssertUnwindSafe(job));
            drop(slot);
            if let Err(unwanted) = send.send(outcome) {
                drop(unwanted);
            }
        }));
        Started(receive)
    }

    /// Puts a job into the queue whether there is a place or not; for callers that bound their jobs themselves.
    pub(crate) fn start_now<T, F>(&self, job: F) -> Started<T>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        self.start(Slot(None), job)
    }

    /// Runs a small piece of tidying that nobody waits for. Takes no place in the queue, since a `drop` can't wait;
    /// callers see to it that there is at most one per upload.
    pub(crate) fn detach(&self, job: impl FnOnce() + Send + 'static) {
        self.push(Box::new(move || {
            let _ = catch_unwind(AssertUnwindSafe(job));
        }));
    }

    /// How busy it is, for metrics.
    pub fn stats(&self) -> PoolStats {
        PoolStats {
            threads: self.handle.threads,
            busy: self.handle.shared.busy.load(Ordering::Relaxed),
            queued: self.handle.shared.lock().jobs.len(),
            jobs: self.handle.shared.jobs.load(Ordering::Relaxed),
        }
    }

    /// Places in the queue that are taken.
    #[cfg(test)]
    pub(crate) fn taken(&self) -> usize {
        self.handle.threads * (1 + QUEUE_PER_THREAD) - self.handle.shared.slots.available_permits()
    }

    fn push(&self, work: Work) {
        let mut queue = self.handle.shared.lock();
        queue.jobs.push_back(work);
        let more = queue.jobs.len() > queue.idle && queue.started < self.handle.threads;
        queue.started += usize::from(more);
        drop(queue);
        if more && let Err(error) = self.handle.start_thread() {
            self.handle.shared.lock().started -= 1;
            tracing::warn!(%error, pool = self.handle.name, "no further I/O thread could be started");
        }
        self.handle.shared.wake.notify_one();
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stats().fmt(f)
    }
}

impl Handle {
    fn start_thread(&self) -> io::Result<()> {
        let (shared, nice) = (self.shared.clone(), self.nice);
        std::thread::Builder::new()
            .name(self.name.clone())
            .stack_size(STACK)
            .spawn(move || {
                // On Linux this means the calling thread alone. Where it may not be, the thread is as eager as others.
                if nice != 0 {
                    let _ = rustix::process::setpriority_process(None, nice);
                }
                shared.work();
            })
            .map(drop)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

impl Shared {
    /// The lock only ever guards a queue operation, so a panic can't leave the queue half changed.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }

    fn work(&self) {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                drop(queue);
                self.busy.fetch_add(1, Ordering::Relaxed);
                self.jobs.fetch_add(1, Ordering::Relaxed);
                job();
                self.busy.fetch_sub(1, Ordering::Relaxed);
                queue = self.lock();
            } else if queue.closed {
                return;
            } else {
                queue.idle += 1;
                queue = self
                    .wake
                    .wait(queue)
                    .unwrap_or_else(|poison| poison.into_inner());
                queue.idle -= 1;
            }
        }
    }
}

/// A place in the queue; given back when the job ends or the place is dropped.
pub(crate) struct Slot(
    #[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>,
);

/// The result of a job that was started.
pub(crate) struct Started<T>(oneshot::Receiver<Result<T, Box<dyn Any + Send>>>);

impl<T> Started<T> {
    /// The result, if it is there.
    pub(crate) fn take(&mut self) -> Option<Result<T>> {
        match self.0.try_recv() {
            Ok(outcome) => Some(outcome.map_err(|_| panicked())),
            Err(oneshot::error::TryRecvError::Closed) => Some(Err(panicked())),
            Err(oneshot::error::TryRecvError::Empty) => None,
        }
    }

    /// Takes the result if it is there, and turns it away from now on.
    pub(crate) fn abandon(mut self) -> Option<T> {
        self.0.close();
        self.0.try_recv().ok()?.ok()
    }
}

impl<T> Future for Started<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|outcome| match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(_)) | Err(_) => Err(panicked()),
        })
    }
}

fn panicked() -> Error {
    Error::io(
        || "an I/O job panicked; this is a bug, the log has the message".into(),
        io::Error::from(io::ErrorKind::Other),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test]
    async fn results_and_panics_come_back() {
        let pool = Pool::new("test", 2).unwrap();
        assert_eq!(pool.run(|| Ok(7)).await.unwrap(), 7);
        let broken = pool.run(|| -> Result<()> { panic!("on purpose") }).await;
        assert!(matches!(broken, Err(Error::Io { .. })), "{broken:?}");
        assert_eq!(pool.run(|| Ok(8)).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn the_queue_is_bounded_and_a_dropped_future_gives_its_place_back() {
        let pool = Pool::new("test", 1).unwrap();
        let (release, gate) = mpsc::channel::<()>();
        let slot = pool.slot().await;
        let blocker = pool.start(slot, move || gate.recv().ok());
        let mut waiting = Vec::new();
        for _ in 0..QUEUE_PER_THREAD {
            let slot = pool.slot().await;
            waiting.push(pool.start(slot, || ()));
        }
        let full = tokio::time::timeout(Duration::from_millis(50), pool.run(|| Ok(())));
        assert!(full.await.is_err(), "the queue took more than its bound");
        // Nobody wants these any more; they still end and free their places.
        drop(waiting);
        release.send(()).unwrap();
        blocker.await.unwrap();
        for _ in 0..3 * QUEUE_PER_THREAD {
            pool.run(|| Ok(())).await.unwrap();
        }
        assert_eq!(
            pool.handle.shared.slots.available_permits(),
            1 + QUEUE_PER_THREAD
        );
    }

    #[test]
    fn threads_end_with_the_last_handle_and_after_the_last_job() {
        let pool = Pool::new("test", 3).unwrap();
        let shared = Arc::downgrade(&pool.handle.shared);
        let (done, wait) = mpsc::channel();
        pool.clone().detach(move || {
            std::thread::sleep(Duration::from_millis(20));
            done.send(()).unwrap();
        });
        drop(pool);
        wait.recv_timeout(Duration::from_secs(5)).unwrap();
        for _ in 0..500 {
            if shared.strong_count() == 0 {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("threads are still there");
    }
}
