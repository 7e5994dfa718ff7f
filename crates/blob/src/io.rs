//! The I/O pool: a fixed number of threads that do what would block the runtime.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use tokio::sync::{Semaphore, oneshot};

use crate::error::{Error, Result};

type Job = Box<dyn FnOnce() + Send>;

/// A job's answer, or that it panicked.
pub type Answer<T> = oneshot::Receiver<T>;

/// Threads for blocking I/O. Clones share them; the last one to go ends them.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    shared: Arc<Shared>,
    /// Bounds the jobs that wait: two for each thread.
    room: Arc<Semaphore>,
}

struct Shared {
    queue: Mutex<Queue>,
    ready: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

impl Pool {
    /// Starts `threads` of them, at least one.
    pub fn new(threads: usize) -> Result<Self> {
        let threads = threads.max(1);
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            ready: Condvar::new(),
        });
        for number in 0..threads {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("wharf-io-{number}"))
                .spawn(move || shared.work())
                .map_err(|error| Error::io("starting an I/O thread", error))?;
        }
        Ok(Self(Arc::new(Handle {
            shared,
            room: Arc::new(Semaphore::new(threads * 2)),
        })))
    }

    /// Hands a job over, waiting for room in the queue. The job runs even if nobody waits for its answer.
    pub async fn submit<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Answer<T> {
        // The semaphore is never closed, so there is always a permit in the end.
        let permit = self.0.room.clone().acquire_owned().await.ok();
        let (answer, receiver) = oneshot::channel();
        self.0.shared.push(Box::new(move || {
            drop(permit);
            // Nobody left to hear it is fine: the client went away.
            let _ = answer.send(job());
        }));
        receiver
    }

    /// Runs a job and waits for its answer.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.submit(job).await.await.unwrap_or_else(|_| Err(died()))
    }
}

/// The answer of a job that panicked.
pub(crate) fn died() -> Error {
    Error::io(
        "a job of the I/O pool died",
        std::io::Error::other("it panicked"),
    )
}

impl Shared {
    fn push(&self, job: Job) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.jobs.push_back(job);
        drop(queue);
        self.ready.notify_one();
    }

    fn work(&self) {
        loop {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            let job = loop {
                if let Some(job) = queue.jobs.pop_front() {
                    break job;
                }
                if queue.closed {
                    return;
                }
                queue = self
                    .ready
                    .wait(queue)
                    .unwrap_or_else(PoisonError::into_inner);
            };
            drop(queue);
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                tracing::error!("a job of the I/O pool panicked");
            }
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut queue = self
            .shared
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        queue.closed = true;
        drop(queue);
        self.shared.ready.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_answer_and_a_panic_is_an_error() {
        let pool = Pool::new(2).unwrap();
        assert_eq!(pool.run(|| Ok(7)).await.unwrap(), 7);
        let panicked = pool.run(|| -> Result<()> { panic!("on purpose") }).await;
        assert!(panicked.is_err());
        // The thread is still there.
        for _ in 0..10 {
            assert_eq!(pool.run(|| Ok(1)).await.unwrap(), 1);
        }
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_takes_no_place_with_it() {
        let pool = Pool::new(1).unwrap();
        for _ in 0..100 {
            let answer = pool.submit(|| ()).await;
            drop(answer);
        }
        assert_eq!(pool.run(|| Ok(1)).await.unwrap(), 1);
        assert_eq!(pool.0.room.available_permits(), 2);
    }
}
