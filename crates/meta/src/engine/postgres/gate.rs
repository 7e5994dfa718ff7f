//! Holds an operation before each of its statements and before COMMIT, for tests that choose who goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

/// A gate that all transactions of a store pass one statement at a time.
#[derive(Debug)]
pub struct Gate {
    waiting: AtomicBool,
    steps: Semaphore,
}

impl Gate {
    /// One that lets nobody through.
    pub fn closed() -> Arc<Gate> {
        Arc::new(Gate {
            waiting: AtomicBool::new(false),
            steps: Semaphore::new(0),
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

    pub(super) async fn pass(&self) {
        if let Ok(step) = self.steps.try_acquire() {
            step.forget();
            return;
        }
        self.waiting.store(true, Ordering::SeqCst);
        if let Ok(step) = self.steps.acquire().await {
            step.forget();
        }
    }
}
