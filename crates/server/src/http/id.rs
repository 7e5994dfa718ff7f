//! Request ids: short, unlikely to repeat, and cheap enough for every request (ERR-5).

use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;

/// The name of one request: in `X-Request-Id`, in error details and in the log. Visible ASCII, at most 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RequestId {
    /// In place, since every request has one. Zeros beyond the end.
    text: [u8; LONGEST],
    len: u8,
}

const LONGEST: usize = 64;

impl RequestId {
    /// Takes an id that a trusted proxy made, if it is harmless in logs and headers.
    pub fn accept(value: &[u8]) -> Option<Self> {
        let harmless = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:+/=@".contains(byte);
        ((1..=LONGEST).contains(&value.len()) && value.iter().all(harmless))
            .then(|| Self::of(value))
    }

    /// At most [`LONGEST`] bytes of ASCII.
    fn of(value: &[u8]) -> Self {
        let mut text = [0; LONGEST];
        text[..value.len()].copy_from_slice(value);
        Self {
            text,
            len: value.len() as u8,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.text[..usize::from(self.len)]
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        // Both ways of making one give ASCII only.
        std::str::from_utf8(self.bytes()).unwrap_or_default()
    }

    pub(super) fn header(&self) -> HeaderValue {
        HeaderValue::from_bytes(self.bytes()).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Debug for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Makes request ids: a counter, scrambled by a key that differs from start to start.
///
/// The scrambling is a bijection, so ids repeat only after 2^64 requests; they are names, not secrets.
#[derive(Debug)]
pub struct RequestIds {
    key: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// Ids under a key, which should be random.
    pub fn new(key: u64) -> Self {
        Self {
            key,
            next: AtomicU64::new(0),
        }
    }

    /// The next id: 16 hexadecimal digits.
    pub fn make(&self) -> RequestId {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // The finaliser of SplitMix64.
        let mut word = number
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(self.key);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^= word >> 31;
        let mut text = [0; 16];
        for (place, digit) in text.iter_mut().enumerate() {
            *digit = HEX[(word >> (60 - 4 * place)) as usize & 15];
        }
        RequestId::of(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec: ERR-5.
    #[test]
    fn ids_differ_and_are_plain() {
        let ids = RequestIds::new(7);
        let made: std::collections::HashSet<_> =
            (0..1000).map(|_| ids.make().to_string()).collect();
        assert_eq!(made.len(), 1000);
        assert!(
            made.iter()
                .all(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
        );
        assert_ne!(RequestIds::new(8).make(), RequestIds::new(7).make());
    }

    #[test]
    fn foreign_ids_must_be_harmless() {
        assert_eq!(RequestId::accept(b"a-1").unwrap().as_str(), "a-1");
        for bad in [
            &b""[..],
            b"a b",
            b"a\nb",
            b"\"x\"",
            &[b'a'; 65],
            "\u{e9}".as_bytes(),
        ] {
            assert!(RequestId::accept(bad).is_none(), "{bad:?}");
        }
    }
}
