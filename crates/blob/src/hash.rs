//! Hashing with a state that can be stored and taken up again, by another process as well.

use sha2::digest::Digest as _;
use sha2::digest::common::hazmat::SerializableState;
use sha2::{Sha256, Sha512};
use wharf_oci::{Algorithm, Digest};

/// Format of [`Hasher::save`]: the version of the layout of sha2 0.11. A state of another version is hashed anew.
const VERSION: u8 = 1;

/// A running hash.
#[derive(Clone)]
pub struct Hasher(State);

#[derive(Clone)]
enum State {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hasher({})", self.algorithm().as_str())
    }
}

impl Hasher {
    /// A hash of nothing yet.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => State::Sha256(Sha256::new()),
            Algorithm::Sha512 => State::Sha512(Sha512::new()),
        })
    }

    /// What it computes.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            State::Sha256(_) => Algorithm::Sha256,
            State::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Takes more bytes in.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            State::Sha256(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of all bytes taken in.
    pub fn finish(self) -> Digest {
        match self.0 {
            State::Sha256(state) => Digest::from_hash(Algorithm::Sha256, &state.finalize()),
            State::Sha512(state) => Digest::from_hash(Algorithm::Sha512, &state.finalize()),
        }
    }

    /// The state, opaque to everybody but [`Hasher::restore`]: 2 bytes of format, then at most 208 of state.
    pub fn save(&self) -> Vec<u8> {
        let (algorithm, state) = match &self.0 {
            State::Sha256(state) => (0, state.serialize().to_vec()),
            State::Sha512(state) => (1, state.serialize().to_vec()),
        };
        [vec![VERSION, algorithm], state].concat()
    }

    /// The hash as it was saved; `None` if it cannot be read, and then the bytes must be hashed again.
    pub fn restore(saved: &[u8]) -> Option<Self> {
        let (head, state) = saved.split_at_checked(2)?;
        match head {
            [VERSION, 0] => Some(Self(State::Sha256(
                Sha256::deserialize(state.try_into().ok()?).ok()?,
            ))),
            [VERSION, 1] => Some(Self(State::Sha512(
                Sha512::deserialize(state.try_into().ok()?).ok()?,
            ))),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_state_goes_on_where_it_was() {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            for cut in [0, 1, 63, 64, 127, 128, 1000] {
                let bytes: Vec<u8> = (0..1000u32).map(|n| n as u8).collect();
                let mut first = Hasher::new(algorithm);
                first.update(&bytes[..cut]);
                let mut second = Hasher::restore(&first.save()).unwrap();
                second.update(&bytes[cut..]);
                assert_eq!(second.algorithm(), algorithm);
                assert_eq!(
                    second.finish(),
                    Digest::of(algorithm, &bytes),
                    "cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn a_state_that_cannot_be_read_is_no_state() {
        let good = Hasher::new(Algorithm::Sha256).save();
        assert!(Hasher::restore(&[]).is_none());
        assert!(Hasher::restore(&good[..good.len() - 1]).is_none());
        assert!(Hasher::restore(&[&[9], &good[1..]].concat()).is_none());
    }
}
