//! The text form of inputs: one per line, so that seeds and corpora are files that a diff can show.
//!
//! Used by the stable run, which prints findings in it, and by `src/bin/corpus.rs`, which brings libFuzzer's folders into
//! it and back.

use std::fmt::Write as _;

/// One line as bytes: `\n`, `\\` and `\xHH` stand for those bytes.
///
/// # Panics
/// When `\x` is not followed by two hexadecimal digits.
pub fn unescape(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line.as_bytes();
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', b'n', tail @ ..] => (bytes.push(b'\n'), rest = tail),
            [b'\\', b'\\', tail @ ..] => (bytes.push(b'\\'), rest = tail),
            [b'\\', b'x', high, low, tail @ ..] => {
                let pair = [*high, *low];
                let hex = std::str::from_utf8(&pair)
                    .ok()
                    .and_then(|hex| u8::from_str_radix(hex, 16).ok());
                (
                    bytes.push(hex.expect("two hexadecimal digits after \\x")),
                    rest = tail,
                )
            }
            _ => (bytes.push(*first), rest = tail),
        };
    }
    bytes
}

/// Bytes as one line of ASCII.
pub fn escape(bytes: &[u8]) -> String {
    let mut line = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\n' => line.push_str("\\n"),
            b'\\' => line.push_str("\\\\"),
            b' '..=b'~' => line.push(char::from(*byte)),
            other => write!(line, "\\x{other:02x}").expect("writing to a string"),
        }
    }
    line
}
