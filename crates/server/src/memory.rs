//! Gives memory that is not needed any more back to the system.
//!
//! mimalloc returns nothing by itself while nobody allocates: the 19 MiB of the first password's hash, or the buffers of
//! ten thousand connections, would stay with an idle process for ever. Returning at once (its `purge_delay=0`) costs a
//! system call per freed page under load. So each runtime thread that has nothing to do looks once in a while, which costs
//! requests nothing. `cli` hooks it into the runtime; nothing here may block for long.

use std::cell::Cell;
use std::time::{Duration, Instant};

// Linked for its function; it is the allocator where a binary makes it so.
use mimalloc as _;

/// Between two looks of one thread. Memory must also have been free for mimalloc's own second before it goes.
const PERIOD: Duration = Duration::from_millis(500);

#[allow(unsafe_code)]
// SAFETY: the signature is that of mimalloc.h; the function has no conditions and may be called from any thread, also
// when mimalloc never gave out any memory.
unsafe extern "C" {
    safe fn mi_collect(force: bool);
}

thread_local! {
    static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Called by each thread of the runtime before it waits for work.
pub(crate) fn when_idle() {
    let now = Instant::now();
    let looked = LOOKED.get();
    if looked.is_none_or(|looked| now.duration_since(looked) >= PERIOD) {
        LOOKED.set(Some(now));
        // Not forced: only what has been free for a while, so that a busy server keeps what it needs again at once.
        mi_collect(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_idle_thread_looks_and_not_again_at_once() {
        let looks = || {
            let fresh = LOOKED.get();
            when_idle();
            let first = LOOKED.get();
            LOOKED.set(first.map(|looked| looked - PERIOD));
            when_idle();
            let second = LOOKED.get();
            (fresh, first, second)
        };
        let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(looks)).collect();
        for thread in threads {
            let (fresh, first, second) = thread.join().unwrap();
            assert!(fresh.is_none() && first.is_some() && second >= first);
        }
        let soon = Instant::now() + PERIOD;
        LOOKED.set(Some(soon));
        when_idle();
        assert_eq!(LOOKED.get(), Some(soon), "it looked again before its time");
    }
}
