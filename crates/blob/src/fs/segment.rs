//! What an upload gathers before it is handed over: pieces as they came, or a block that the disk takes as it is.
//!
//! Segments end where the file's offset is a multiple of [`BUFFER`], so that blocks stay aligned whatever clients send.

use std::io::IoSlice;

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;

use crate::store::BUFFER;

/// From this offset on bytes go to the disk past the page cache. What is smaller will be pulled again soon and should be
/// found there; more would only drive out what others pull, and cost the processor more than hashing does.
pub(super) const DIRECT_FROM: u64 = 32 << 20;

/// What `O_DIRECT` wants of addresses, lengths and offsets; no file system in use asks for more.
pub(super) const ALIGN: usize = 4 << 10;

/// Chunks below this are copied together: a list of many tiny ones would cost more memory than their bytes.
const SMALL: usize = 4 << 10;

/// Where tiny chunks are collected.
const TAIL: usize = 64 << 10;

/// Bytes that follow each other, on their way to the hash and to the file.
pub(super) struct Segment {
    bytes: Held,
    /// For a segment beyond the one that every upload may have under way.
    #[expect(dead_code, reason = "held for its drop")]
    ahead: Option<OwnedSemaphorePermit>,
}

enum Held {
    Pieces(Vec<Bytes>),
    Block(Block),
}

impl Segment {
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let (pieces, block) = match &self.bytes {
            Held::Pieces(pieces) => (pieces.as_slice(), None),
            Held::Block(block) => (&[][..], Some(block.bytes())),
        };
        pieces.iter().map(|piece| &piece[..]).chain(block)
    }

    pub(super) fn slices(&self) -> Vec<IoSlice<'_>> {
        self.pieces().map(IoSlice::new).collect()
    }

    /// Whether memory and length allow a write past the page cache.
    pub(super) fn is_aligned(&self) -> bool {
        match &self.bytes {
            Held::Pieces(_) => false,
            Held::Block(block) => block.bytes().len().is_multiple_of(ALIGN),
        }
    }

    /// The block for the next segment, once nobody needs this one.
    pub(super) fn into_block(self) -> Option<Block> {
        match self.bytes {
            Held::Pieces(_) => None,
            Held::Block(block) => Some(block),
        }
    }
}

/// Memory for one segment, at an address that suits the disk.
pub(super) struct Block {
    memory: Vec<u8>,
    start: usize,
}

impl Block {
    fn new() -> Self {
        let mut memory: Vec<u8> = Vec::with_capacity(BUFFER + ALIGN);
        // Where no such address can be found, the kernel refuses the write and it goes through the cache.
        let start = memory.as_ptr().align_offset(ALIGN).min(ALIGN);
        memory.resize(start, 0);
        Self { memory, start }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..]
    }
}

/// The segment that grows.
#[derive(Default)]
pub(super) struct Gather {
    pieces: Vec<Bytes>,
    tail: BytesMut,
    block: Option<Block>,
    length: usize,
    spare: Option<Block>,
}

impl Gather {
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds bytes that belong at `offset` of the file. The caller sees to it that they end with the segment at the latest.
    pub(super) fn push(&mut self, bytes: Bytes, offset: u64) {
        let direct = offset >= DIRECT_FROM && offset.is_multiple_of(BUFFER as u64);
        if self.length == 0 && direct {
            self.block = Some(self.spare.take().unwrap_or_else(Block::new));
        }
        self.length += bytes.len();
        if let Some(block) = &mut self.block {
            // Within what was allocated, so the address stays.
            block.memory.extend_from_slice(&bytes);
        } else if bytes.len() < SMALL {
            if self.tail.len() + bytes.len() > TAIL {
                self.seal();
            }
            self.tail.reserve(bytes.len().max(SMALL));
            self.tail.extend_from_slice(&bytes);
        } else {
            self.seal();
            self.pieces.push(bytes);
        }
    }

    pub(super) fn take(&mut self, ahead: Option<OwnedSemaphorePermit>) -> Segment {
        self.seal();
        self.length = 0;
        let bytes = match self.block.take() {
            Some(block) => Held::Block(block),
            None => Held::Pieces(std::mem::take(&mut self.pieces)),
        };
        Segment { bytes, ahead }
    }

    /// Keeps a block that has been written for the next segment.
    pub(super) fn reuse(&mut self, mut block: Block) {
        block.memory.truncate(block.start);
        self.spare = Some(block);
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.pieces.push(self.tail.split().freeze());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(offset: u64, chunks: &[usize]) -> Segment {
        let mut gather = Gather::default();
        let mut at = offset;
        for &length in chunks {
            gather.push(Bytes::from(vec![7; length]), at);
            at += length as u64;
        }
        gather.take(None)
    }

    #[test]
    fn only_whole_blocks_of_large_uploads_pass_the_cache() {
        let half = BUFFER / 2;
        assert!(gathered(DIRECT_FROM, &[half - 1, 1, half]).is_aligned());
        assert!(gathered(DIRECT_FROM, &[ALIGN]).is_aligned());
        assert!(!gathered(DIRECT_FROM, &[half, half - 1]).is_aligned());
        assert!(!gathered(DIRECT_FROM + 1, &[BUFFER - 1]).is_aligned());
        assert!(!gathered(DIRECT_FROM - BUFFER as u64, &[BUFFER]).is_aligned());
    }

    #[test]
    fn a_block_stays_where_the_disk_wants_it() {
        let mut gather = Gather::default();
        for _ in 0..3 {
            for n in 0..BUFFER / ALIGN {
                gather.push(
                    Bytes::from(vec![n as u8; ALIGN]),
                    DIRECT_FROM + (n * ALIGN) as u64,
                );
            }
            let segment = gather.take(None);
            let bytes = segment.pieces().next().unwrap();
            assert_eq!(bytes.len(), BUFFER);
            assert_eq!(bytes.as_ptr().align_offset(ALIGN), 0);
            assert_eq!(bytes[BUFFER - 1], (BUFFER / ALIGN - 1) as u8);
            gather.reuse(segment.into_block().unwrap());
        }
    }
}
