//! Content addresses (DIG-1 to DIG-7).
//!
//! A digest is parsed on every request, so parsing is one pass over the bytes and a clone is a reference count.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use sha2::Digest as _;

/// Longest digest that we accept, in bytes. The grammar has no limit, but digests are keys of tables and caches;
/// the longest registered one (sha512) has 135.
pub const MAX_LENGTH: usize = 255;

/// A hash algorithm that this registry can compute (DIG-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256, required by the specification.
    Sha256,
    /// SHA-512, optional, tested by the conformance suite.
    Sha512,
}

impl Algorithm {
    /// All of them, in the order of preference.
    pub const ALL: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

    /// The registered name, as it stands before the colon.
    pub const fn as_str(self) -> &'static str {
        match self {
            Algorithm::Sha256 => "sha256",
            Algorithm::Sha512 => "sha512",
        }
    }

    /// Length of the encoded part in hexadecimal digits.
    pub const fn hex_len(self) -> usize {
        match self {
            Algorithm::Sha256 => 64,
            Algorithm::Sha512 => 128,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Algorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Algorithm::ALL
            .into_iter()
            .find(|a| a.as_str() == text)
            .ok_or(UnknownAlgorithm)
    }
}

/// The name is not that of an algorithm which this registry computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown digest algorithm; this registry computes sha256 and sha512")]
pub struct UnknownAlgorithm;

/// Why a string is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No colon between algorithm and encoded part.
    #[error("a digest has the form <algorithm>:<encoded>, for example sha256:<64 hex digits>")]
    NoColon,
    /// The algorithm breaks the grammar of DIG-1.
    #[error(
        "the digest's algorithm must be lower-case letters and digits, parts joined by one of + . _ -"
    )]
    Algorithm,
    /// The encoded part is empty or has a character outside of `[a-zA-Z0-9=_-]`.
    #[error("the digest's encoded part must be letters, digits and = _ -")]
    Encoded,
    /// A registered algorithm demands another length or alphabet (DIG-3).
    #[error("{algorithm} needs {hex_len} lower-case hexadecimal digits")]
    Hex {
        /// The registered algorithm.
        algorithm: &'static str,
        /// Digits that it needs.
        hex_len: usize,
    },
    /// Longer than [`MAX_LENGTH`].
    #[error("the digest is longer than {MAX_LENGTH} characters")]
    TooLong,
}

/// A checked content address `<algorithm>:<encoded>`; a clone is a reference count.
///
/// Equality, order and hash are those of the text: content under two algorithms is two addresses (DIG-6).
#[derive(Clone)]
pub struct Digest {
    text: Arc<str>,
    /// Position of the colon; fits since the text has at most 255 bytes.
    colon: u8,
    algorithm: Option<Algorithm>,
}

impl Digest {
    /// Checks the grammar, and length and alphabet of registered algorithms (DIG-1, DIG-3).
    pub fn parse(text: &str) -> Result<Digest, DigestError> {
        let (colon, algorithm) = check(text)?;
        Ok(Digest {
            text: text.into(),
            colon,
            algorithm,
        })
    }

    /// The address of content whose hash was computed already.
    ///
    /// # Panics
    /// When `hash` has not the length that the algorithm produces.
    pub fn from_hash(algorithm: Algorithm, hash: &[u8]) -> Digest {
        assert_eq!(
            hash.len() * 2,
            algorithm.hex_len(),
            "a {algorithm} hash of another length"
        );
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(algorithm.as_str().len() + 1 + hash.len() * 2);
        text.push_str(algorithm.as_str());
        text.push(':');
        for byte in hash {
            text.push(HEX[usize::from(byte >> 4)] as char);
            text.push(HEX[usize::from(byte & 15)] as char);
        }
        Digest {
            text: text.into(),
            colon: algorithm.as_str().len() as u8,
            algorithm: Some(algorithm),
        }
    }

    /// Hashes content that is in memory. For streams see the hasher of `wharf-blob`.
    pub fn of(algorithm: Algorithm, content: &[u8]) -> Digest {
        match algorithm {
            Algorithm::Sha256 => Digest::from_hash(algorithm, &sha2::Sha256::digest(content)),
            Algorithm::Sha512 => Digest::from_hash(algorithm, &sha2::Sha512::digest(content)),
        }
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part before the colon.
    pub fn algorithm_name(&self) -> &str {
        &self.text[..usize::from(self.colon)]
    }

    /// The part after the colon.
    pub fn encoded(&self) -> &str {
        &self.text[usize::from(self.colon) + 1..]
    }

    /// The algorithm, or none when it is well formed but not one that we compute, such as blake3 (DIG-4).
    pub fn algorithm(&self) -> Option<Algorithm> {
        self.algorithm
    }

    /// The tag under which clients keep the referrers of this digest when a registry has no referrers API (REF-10).
    ///
    /// Always a valid tag: algorithm cut at 32 characters, `-`, encoded part cut at 64, other characters become `-`.
    pub fn fallback_tag(&self) -> String {
        let algorithm = self.algorithm_name().chars().take(32);
        let encoded = self.encoded().chars().take(64);
        let allowed = |c: char| {
            if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') {
                c
            } else {
                '-'
            }
        };
        algorithm
            .chain(std::iter::once('-'))
            .chain(encoded)
            .map(allowed)
            .collect()
    }
}

/// Position of the colon and the algorithm when we compute it.
fn check(text: &str) -> Result<(u8, Option<Algorithm>), DigestError> {
    if text.len() > MAX_LENGTH {
        return Err(DigestError::TooLong);
    }
    let (algorithm, encoded) = text.split_once(':').ok_or(DigestError::NoColon)?;
    if !is_algorithm(algorithm) {
        return Err(DigestError::Algorithm);
    }
    if encoded.is_empty()
        || !encoded
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'=' | b'_' | b'-'))
    {
        return Err(DigestError::Encoded);
    }
    let known = algorithm.parse::<Algorithm>().ok();
    let registered = match (known, algorithm) {
        (Some(known), _) => Some((known.as_str(), known.hex_len())),
        (None, "blake3") => Some(("blake3", 64)),
        (None, _) => None,
    };
    if let Some((algorithm, hex_len)) = registered
        && (encoded.len() != hex_len
            || !encoded
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
    {
        return Err(DigestError::Hex { algorithm, hex_len });
    }
    Ok((algorithm.len() as u8, known))
}

/// `component *( [+._-] component )` with `component = [a-z0-9]+`.
fn is_algorithm(text: &str) -> bool {
    let mut component = false;
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => component = true,
            b'+' | b'.' | b'_' | b'-' if component => component = false,
            _ => return false,
        }
    }
    component
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Digest {}

impl PartialOrd for Digest {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Digest {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for Digest {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl AsRef<str> for Digest {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Digest::parse(text)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Digest;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a digest")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Digest, E> {
                Digest::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Text)
    }
}
