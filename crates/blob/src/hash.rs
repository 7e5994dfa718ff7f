//! Hashing whose state can be put away and taken up again, by another process if need be.

use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest as _, Sha256, Sha512};
use wharf_oci::{Algorithm, Digest};

/// Stands for the layout of sha2 0.11. To be raised with that crate's next layout: older states are then re-hashed.
const FORMAT: u8 = 1;
/// Format, algorithm, and the number of bytes hashed.
const HEAD: usize = 1 + 1 + 8;

/// A running hash.
#[derive(Clone)]
pub struct Hasher {
    state: State,
    length: u64,
}

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// The hash of nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        let state = match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        };
        Self { state, length: 0 }
    }

    /// What it computes.
    pub fn algorithm(&self) -> Algorithm {
        match self.state {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Bytes hashed so far.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Hashes on. About 1 GB/s, so not for a runtime thread when there is much.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
        self.length += bytes.len() as u64;
    }

    /// The digest of everything.
    pub fn finish(self) -> Digest {
        match self.state {
            State::Sha256(state) => Digest::from_hash(Algorithm::Sha256, &state.finalize()),
            State::Sha512(state) => Digest::from_hash(Algorithm::Sha512, &state.finalize()),
        }
    }

    /// The state, for [`restore`](Self::restore): opaque, with its format and algorithm in front. It contains up to one
    /// block of the content, so it deserves the content's protection.
    pub fn save(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD + 224);
        out.push(FORMAT);
        out.push(mark(self.algorithm()));
        out.extend_from_slice(&self.length.to_le_bytes());
        match &self.state {
            State::Sha256(state) => out.extend_from_slice(&state.serialize()),
            State::Sha512(state) => out.extend_from_slice(&state.serialize()),
        }
        out
    }

    /// Takes a state up again; `None` when it is of another version or damaged, and the bytes must be hashed again.
    pub fn restore(saved: &[u8]) -> Option<Self> {
        let (head, body) = saved.split_at_checked(HEAD)?;
        let (mark_saved, length) = head.strip_prefix(&[FORMAT])?.split_first()?;
        let length = u64::from_le_bytes(length.try_into().ok()?);
        let state = match Algorithm::ALL
            .into_iter()
            .find(|a| mark(*a) == *mark_saved)?
        {
            Algorithm::Sha256 => State::Sha256(load(body)?),
            Algorithm::Sha512 => State::Sha512(load(body)?),
        };
        Some(Self { state, length })
    }
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Hasher({} after {} bytes)",
            self.algorithm(),
            self.length
        )
    }
}

fn mark(algorithm: Algorithm) -> u8 {
    match algorithm {
        Algorithm::Sha256 => 1,
        Algorithm::Sha512 => 2,
    }
}

fn load<H: SerializableState>(body: &[u8]) -> Option<H> {
    let state = SerializedState::<H>::try_from(body).ok()?;
    H::deserialize(&state).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Spec: DIG-2.
    #[test]
    fn known_answers() {
        let hash = |algorithm, bytes: &[u8]| {
            let mut hasher = Hasher::new(algorithm);
            hasher.update(bytes);
            hasher.finish().as_str().to_owned()
        };
        assert_eq!(
            hash(Algorithm::Sha256, b""),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            hash(Algorithm::Sha512, b"abc"),
            "sha512:ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
             2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
        );
    }

    /// When this fails after an upgrade of sha2, its layout has changed: raise `FORMAT`, and nobody's upload breaks.
    #[test]
    fn the_saved_layout_is_the_one_that_format_1_stands_for() {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(b"abc");
        let saved = hasher.save();
        assert_eq!(saved.len(), HEAD + 104);
        assert_eq!(&saved[..HEAD], &[1, 1, 3, 0, 0, 0, 0, 0, 0, 0]);
        // The initial chaining value of FIPS 180-4, little endian, then no block yet, then the three bytes.
        assert_eq!(&saved[HEAD..HEAD + 4], &0x6a09_e667_u32.to_le_bytes());
        assert!(saved[HEAD + 32..HEAD + 40].iter().all(|byte| *byte == 0));
        assert_eq!(
            saved[HEAD + 40..].iter().filter(|byte| **byte != 0).count(),
            4,
            "three bytes of content and their count"
        );
        assert_eq!(Hasher::new(Algorithm::Sha512).save().len(), HEAD + 208);
    }

    #[test]
    fn foreign_states_are_refused() {
        let good = Hasher::new(Algorithm::Sha256).save();
        assert!(Hasher::restore(&good).is_some());
        assert!(Hasher::restore(&[]).is_none());
        assert!(Hasher::restore(&good[..good.len() - 1]).is_none());
        let mut other = good.clone();
        other[0] = FORMAT + 1;
        assert!(Hasher::restore(&other).is_none());
        let mut other = good;
        other[1] = 9;
        assert!(Hasher::restore(&other).is_none());
    }

    proptest! {
        #[test]
        fn a_hash_that_was_put_away_at_any_place_gives_the_same_digest(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..12),
            wide: bool,
        ) {
            let algorithm = if wide { Algorithm::Sha512 } else { Algorithm::Sha256 };
            let mut hasher = Hasher::new(algorithm);
            for piece in &pieces {
                hasher.update(piece);
                hasher = Hasher::restore(&hasher.save()).expect("own state");
            }
            let whole = pieces.concat();
            prop_assert_eq!(hasher.length(), whole.len() as u64);
            prop_assert_eq!(hasher.finish(), Digest::of(algorithm, &whole));
        }

        #[test]
        fn restore_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..260)) {
            let _ = Hasher::restore(&bytes);
        }
    }
}
