//! Content addresses (DIG-1 to DIG-7).
//!
//! A digest is parsed on every request, so parsing is one pass over the bytes and a clone is a reference count.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use sha2::Digest as _;

use crate::text::text_impls;

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

text_impls!(Digest, DigestError, "a digest");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// Spec: DIG-1, DIG-2.
    #[test]
    fn takes_apart_what_the_grammar_allows() {
        for (text, name, algorithm) in [
            (EMPTY.to_owned(), "sha256", Some(Algorithm::Sha256)),
            (
                format!("sha512:{}", "0".repeat(128)),
                "sha512",
                Some(Algorithm::Sha512),
            ),
            (format!("blake3:{}", "f".repeat(64)), "blake3", None),
            (
                "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8".into(),
                "multihash+base58",
                None,
            ),
            (
                "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564=".into(),
                "sha256+b64u",
                None,
            ),
            ("a.b_c-d+e:x".into(), "a.b_c-d+e", None),
        ] {
            let digest = Digest::parse(&text).unwrap();
            assert_eq!(
                (digest.algorithm_name(), digest.algorithm()),
                (name, algorithm)
            );
            assert_eq!(
                format!("{}:{}", digest.algorithm_name(), digest.encoded()),
                text
            );
            assert_eq!(digest.to_string(), text);
        }
    }

    /// Spec: DIG-1.
    #[test]
    fn refuses_what_the_grammar_forbids() {
        for (text, error) in [
            ("", DigestError::NoColon),
            ("sha256", DigestError::NoColon),
            (":abc", DigestError::Algorithm),
            ("SHA256:abc", DigestError::Algorithm),
            ("sha256+:abc", DigestError::Algorithm),
            ("+sha256:abc", DigestError::Algorithm),
            ("a++b:abc", DigestError::Algorithm),
            ("a/b:abc", DigestError::Algorithm),
            ("other:", DigestError::Encoded),
            ("other:a b", DigestError::Encoded),
            ("other:a:b", DigestError::Encoded),
            ("other:../../etc", DigestError::Encoded),
            ("other:ä", DigestError::Encoded),
        ] {
            assert_eq!(Digest::parse(text), Err(error), "{text}");
        }
        assert_eq!(
            Digest::parse(&format!("a:{}", "b".repeat(MAX_LENGTH))),
            Err(DigestError::TooLong)
        );
    }

    /// Spec: DIG-3.
    #[test]
    fn demands_length_and_alphabet_of_registered_algorithms() {
        for text in [
            "sha256:totallywrong".to_owned(),
            EMPTY.to_uppercase().replace("SHA", "sha"),
            EMPTY[..70].to_owned(),
            format!("{EMPTY}0"),
            format!("sha512:{}", &EMPTY[7..]),
            format!("blake3:{}", "F".repeat(64)),
        ] {
            assert!(
                matches!(Digest::parse(&text), Err(DigestError::Hex { .. })),
                "{text}"
            );
        }
    }

    /// Spec: DIG-5, DIG-6.
    #[test]
    fn content_has_one_address_for_each_algorithm() {
        let sha256 = Digest::of(Algorithm::Sha256, b"");
        let sha512 = Digest::of(Algorithm::Sha512, b"abc");
        assert_eq!(sha256.as_str(), EMPTY);
        assert_eq!(sha512.encoded()[..16], *"ddaf35a193617aba");
        assert_eq!(sha512.algorithm(), Some(Algorithm::Sha512));
        assert_ne!(Digest::of(Algorithm::Sha256, b"abc"), sha512);
    }

    /// Spec: REF-10.
    #[test]
    fn fallback_tags_are_cut_and_cleaned() {
        assert_eq!(
            Digest::parse(EMPTY).unwrap().fallback_tag(),
            EMPTY.replace(':', "-")
        );
        let sha512 = Digest::of(Algorithm::Sha512, b"abc");
        assert_eq!(
            sha512.fallback_tag(),
            format!("sha512-{}", &sha512.encoded()[..64])
        );
        let odd = Digest::parse(&format!("a+b.{}:x=y{}", "c".repeat(40), "z".repeat(80))).unwrap();
        assert_eq!(
            odd.fallback_tag(),
            format!("a-b.{}-x-y{}", "c".repeat(28), "z".repeat(61))
        );
    }

    #[test]
    fn serialises_as_its_text_and_checks_when_it_comes_back() {
        let digest = Digest::parse(EMPTY).unwrap();
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        let error = serde_json::from_str::<Digest>("\"sha256:00\"")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("64 lower-case hexadecimal digits"),
            "{error}"
        );
    }

    proptest! {
        /// Spec: DIG-1.
        #[test]
        fn any_text_parses_to_itself_or_not_at_all(text in ".{0,80}|[a-z0-9+._:-]{0,20}(:[a-zA-Z0-9=_-]{0,90})?") {
            if let Ok(digest) = Digest::parse(&text) {
                prop_assert_eq!(digest.as_str(), &text);
                prop_assert!(crate::Tag::parse(&digest.fallback_tag()).is_ok());
            }
        }

        /// Spec: DIG-1, DIG-4.
        #[test]
        fn all_that_the_grammar_makes_is_accepted(text in "[a-z0-9]{1,8}([+._-][a-z0-9]{1,8}){1,3}:[a-zA-Z0-9=_-]{1,99}") {
            prop_assert_eq!(Digest::parse(&text).unwrap().algorithm(), None);
        }

        #[test]
        fn hashes_are_valid_addresses(content: Vec<u8>) {
            for algorithm in Algorithm::ALL {
                let digest = Digest::of(algorithm, &content);
                prop_assert_eq!(Digest::parse(digest.as_str()).unwrap().algorithm(), Some(algorithm));
            }
        }
    }
}
