//! The bytes of a part while they gather and while they are sent: blocks of [`BUFFER`] that are used again and again.
//!
//! A block comes back when its last reader drops it, wherever that is. So an upload holds as many as its two parts need,
//! instead of what an allocator keeps of memory that one thread asks for and another one gives back.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use crate::store::BUFFER;

/// Bytes in blocks: no piece of a client's is kept alive, and nothing is ever moved to a larger place once there is much.
#[derive(Default)]
pub(super) struct Blocks {
    full: Vec<Bytes>,
    last: Vec<u8>,
    length: u64,
    spare: Arc<Spare>,
}

/// Whole blocks that nobody reads any more.
#[derive(Default)]
struct Spare(Mutex<Vec<Vec<u8>>>);

/// A block that comes back.
struct Block {
    bytes: Vec<u8>,
    home: Arc<Spare>,
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.bytes));
    }
}

impl Spare {
    fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn give(&self, mut block: Vec<u8>) {
        if block.capacity() == BUFFER {
            block.clear();
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(block);
        }
    }
}

impl Blocks {
    /// How many bytes there are.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Copies bytes behind the others.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.last.len() == BUFFER {
                self.close();
            }
            // Most uploads are small: only what follows a whole block gets a whole one.
            if self.last.capacity() == 0 {
                self.last = match self.spare.take() {
                    Some(block) => block,
                    None if self.length < BUFFER as u64 => Vec::new(),
                    None => Vec::with_capacity(BUFFER),
                };
            }
            let room = BUFFER - self.last.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.last.extend_from_slice(now);
            self.length += now.len() as u64;
            bytes = later;
        }
    }

    /// All bytes, shared and not copied.
    pub(super) fn pieces(&mut self) -> Vec<Bytes> {
        self.close();
        self.full.clone()
    }

    /// These bytes; what follows begins anew, in the blocks that come back from them.
    pub(super) fn take(&mut self) -> Blocks {
        let empty = Blocks {
            spare: self.spare.clone(),
            ..Blocks::default()
        };
        std::mem::replace(self, empty)
    }

    fn close(&mut self) {
        if self.last.is_empty() {
            return;
        }
        let bytes = std::mem::take(&mut self.last);
        // A block that is mostly empty would be held for little.
        if bytes.len() < bytes.capacity() / 2 {
            self.full.push(Bytes::copy_from_slice(&bytes));
            self.spare.give(bytes);
            return;
        }
        let home = self.spare.clone();
        self.full.push(Bytes::from_owner(Block { bytes, home }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spare(blocks: &Blocks) -> usize {
        blocks.spare.0.lock().unwrap().len()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let mut blocks = Blocks::default();
        let mut expected = Vec::new();
        for (number, length) in [1, 0, 70_000, BUFFER - 1, 1, 3 * BUFFER + 5, 9]
            .into_iter()
            .enumerate()
        {
            let bytes = vec![number as u8; length];
            blocks.push(&bytes);
            expected.extend_from_slice(&bytes);
            assert_eq!(blocks.length(), expected.len() as u64);
            // Also when somebody has looked at them in between.
            assert!(blocks.pieces().concat() == expected);
        }
        assert!(blocks.take().pieces().concat() == expected);
        assert_eq!((blocks.length(), blocks.pieces().len()), (0, 0));
    }

    #[test]
    fn blocks_come_back_when_nobody_reads_them() {
        let mut blocks = Blocks::default();
        let part = vec![7; 8 * BUFFER];
        for _ in 0..20 {
            blocks.push(&part);
            let pieces = blocks.take().pieces();
            assert!(pieces.iter().all(|piece| piece.iter().all(|b| *b == 7)));
            let reader = pieces.clone();
            drop(pieces);
            let before = spare(&blocks);
            std::thread::spawn(move || drop(reader)).join().unwrap();
            assert!(spare(&blocks) > before, "they did not come back");
            assert!(spare(&blocks) <= 8, "{} are kept", spare(&blocks));
        }
    }

    #[test]
    fn small_uploads_take_little() {
        let mut blocks = Blocks::default();
        blocks.push(&[1; 100]);
        assert!(blocks.last.capacity() < 1024);
    }
}
