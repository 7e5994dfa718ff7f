//! Read buffers: reused, so that none is zeroed twice, and smaller when many clients read, so that their sum is bounded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

/// Sizes of buffers, smallest first.
const SIZES: [usize; 4] = [32 << 10, 64 << 10, 128 << 10, 256 << 10];

/// Bytes that all readers together shall hold in buffers: with more readers, each one's buffer is smaller.
const BUDGET: usize = 16 << 20;

/// Bytes in buffers that wait to be used again.
const KEPT: usize = 4 << 20;

/// The buffers of one store.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    free: [Mutex<Vec<Box<[u8]>>>; SIZES.len()],
    readers: AtomicUsize,
}

impl Buffers {
    /// Counts a reader in; it is counted out when dropped.
    pub(super) fn reader(self: &Arc<Self>) -> Reader {
        self.readers.fetch_add(1, Ordering::Relaxed);
        Reader(self.clone())
    }

    /// A buffer for the next piece of `left` bytes.
    pub(super) fn buffer(self: &Arc<Self>, left: u64) -> Buffer {
        let share = BUDGET / self.readers.load(Ordering::Relaxed).max(1);
        // The largest that its share allows, but none larger than what is left needs.
        let allowed = SIZES.iter().rposition(|size| *size <= share).unwrap_or(0);
        let needed = SIZES.iter().position(|size| *size as u64 >= left);
        self.take(needed.map_or(allowed, |needed| needed.min(allowed)))
    }

    fn take(self: &Arc<Self>, class: usize) -> Buffer {
        let reused = self.lock(class).pop();
        Buffer {
            bytes: reused.unwrap_or_else(|| vec![0; SIZES[class]].into_boxed_slice()),
            class,
            home: self.clone(),
        }
    }

    fn lock(&self, class: usize) -> std::sync::MutexGuard<'_, Vec<Box<[u8]>>> {
        self.free[class]
            .lock()
            .unwrap_or_else(|poison| poison.into_inner())
    }
}

/// One stream that reads.
pub(super) struct Reader(Arc<Buffers>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A buffer, all of it initialised; goes home when dropped.
pub(super) struct Buffer {
    bytes: Box<[u8]>,
    class: usize,
    home: Arc<Buffers>,
}

impl Buffer {
    /// The first `count` bytes. The buffer goes home when the last handle on them is gone.
    pub(super) fn freeze(self, count: usize) -> Bytes {
        Bytes::from_owner(self).slice(..count)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut free = self.home.lock(self.class);
        if free.len() < KEPT / SIZES.len() / SIZES[self.class] {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_shrink_with_readers_and_with_what_is_left() {
        let buffers = Arc::new(Buffers::default());
        let _first = buffers.reader();
        assert_eq!(buffers.buffer(u64::MAX).as_ref().len(), 256 << 10);
        assert_eq!(buffers.buffer(1).as_ref().len(), 32 << 10);
        assert_eq!(buffers.buffer(40 << 10).as_ref().len(), 64 << 10);
        let crowd: Vec<_> = (0..499).map(|_| buffers.reader()).collect();
        assert_eq!(buffers.buffer(u64::MAX).as_ref().len(), 32 << 10);
        drop(crowd);
        assert_eq!(buffers.buffer(u64::MAX).as_ref().len(), 256 << 10);
    }

    #[test]
    fn a_buffer_comes_back_when_the_last_slice_is_gone_and_only_so_many_are_kept() {
        let buffers = Arc::new(Buffers::default());
        let bytes = buffers.buffer(u64::MAX).freeze(10);
        let slice = bytes.slice(2..4);
        drop(bytes);
        assert_eq!(buffers.lock(3).len(), 0);
        drop(slice);
        assert_eq!(buffers.lock(3).len(), 1);
        let many: Vec<_> = (0..100).map(|_| buffers.buffer(u64::MAX)).collect();
        drop(many);
        assert_eq!(buffers.lock(3).len(), 4);
    }
}
