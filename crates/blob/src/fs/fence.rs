//! One writer per upload.
//!
//! A request that vanished may leave a write on the I/O pool. Were the upload taken up again meanwhile, that write would
//! land in the new writer's bytes, and after a publish in a blob. So whoever touches an upload's file holds its fence, and
//! taking an upload over takes the fence from whoever has it, waiting for a call that is under way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use crate::error::{Error, Result};
use crate::key::UploadId;

/// The fences of a store: one for each upload in use.
#[derive(Debug, Default)]
pub(super) struct Fences {
    map: Arc<Mutex<Map>>,
}

type Map = HashMap<UploadId, Weak<Fence>>;

/// The right to touch an upload's file.
#[derive(Debug)]
pub(super) struct Fence {
    id: UploadId,
    /// Whether the right still stands; locked while it is used.
    live: Mutex<bool>,
    map: Weak<Mutex<Map>>,
}

impl Fences {
    /// Takes the upload over and runs `body` with it. Whoever comes later waits for `body` to end.
    pub(super) fn take_over<T>(&self, id: &UploadId, body: impl FnOnce(&Arc<Fence>) -> T) -> T {
        let fence = Arc::new(Fence {
            id: *id,
            live: Mutex::new(true),
            map: Arc::downgrade(&self.map),
        });
        // Locked before anybody can find it, so that a third one waits until the first has let go of the file too.
        let guard = lock(&fence.live);
        let earlier = lock(&self.map).insert(*id, Arc::downgrade(&fence));
        if let Some(earlier) = earlier.and_then(|earlier| earlier.upgrade()) {
            *lock(&earlier.live) = false;
        }
        let outcome = body(&fence);
        drop(guard);
        outcome
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.map).len()
    }
}

impl Fence {
    /// Runs `body` when the right still stands. Blocks while another thread uses it, so only for I/O threads.
    pub(super) fn hold<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let live = lock(&self.live);
        if *live {
            body()
        } else {
            Err(Error::UploadLost)
        }
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        let Some(map) = self.map.upgrade() else {
            return;
        };
        let mut map = lock(&map);
        if map
            .get(&self.id)
            .is_some_and(|current| std::ptr::eq(current.as_ptr(), self))
        {
            map.remove(&self.id);
        }
    }
}

/// No state behind these locks can be left half changed by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_holds_the_upload_and_nothing_is_left_behind() {
        let fences = Fences::default();
        let id = UploadId::random();
        let first = fences.take_over(&id, Arc::clone);
        first.hold(|| Ok(())).unwrap();
        let second = fences.take_over(&id, Arc::clone);
        assert!(matches!(first.hold(|| Ok(())), Err(Error::UploadLost)));
        second.hold(|| Ok(())).unwrap();
        // The loser's end must not take the winner's entry along.
        drop(first);
        assert_eq!(fences.len(), 1);
        let third = fences.take_over(&id, Arc::clone);
        assert!(matches!(second.hold(|| Ok(())), Err(Error::UploadLost)));
        drop((second, third));
        assert_eq!(fences.len(), 0);
    }

    #[test]
    fn taking_over_waits_for_what_is_under_way() {
        let fences = Arc::new(Fences::default());
        let id = UploadId::random();
        let first = fences.take_over(&id, Arc::clone);
        let (started, wait) = std::sync::mpsc::channel();
        let done = Arc::new(Mutex::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                first
                    .hold(|| {
                        started.send(()).unwrap();
                        std::thread::sleep(std::time::Duration::from_millis(50));
                        *lock(&done) = true;
                        Ok(())
                    })
                    .unwrap();
            });
            wait.recv().unwrap();
            fences.take_over(&id, |_| assert!(*lock(&done), "did not wait"));
        });
    }
}
