//! Holds an operation before each of its statements and before COMMIT, for tests that choose who goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, Semaphore};

/// A gate that all transactions of a store pass one statement at a time.
#[derive(Debug)]
pub struct Gate {
    waiting: AtomicBool,
    steps: Semaphore,
    news: Notify,
}

impl Gate {
    /// One that lets nobody through.
    pub fn closed() -> Arc<Gate> {
        Arc::new(Gate {
            waiting: AtomicBool::new(false),
            steps: Semaphore::new(0),
            news: Notify::new(),
        })
    }

    /// Whether somebody stands before it.
    pub fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Lets one statement through.
    pub fn step(&self) {
        self.waiting.store(false, Ordering::SeqCst);
        self.steps.add_permits(1);
    }

    /// Lets everybody through from now on.
    pub fn open(&self) {
        self.steps.add_permits(1 << 24);
    }

    /// Lets nobody through any more. Whoever was let through is done with what it does.
    pub fn close(&self) {
        self.steps.forget_permits(usize::MAX);
        self.waiting.store(false, Ordering::SeqCst);
    }

    /// Until somebody came to stand before it, or [`Gate::tell`] was called, since the last time. For one who asks.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Whoever asks for news has one.
    pub fn tell(&self) {
        self.news.notify_one();
    }

    pub(super) async fn pass(&self) {
        if let Ok(step) = self.steps.try_acquire() {
            step.forget();
            return;
        }
        self.waiting.store(true, Ordering::SeqCst);
        self.tell();
        if let Ok(step) = self.steps.acquire().await {
            step.forget();
        }
    }
}
