//! Percent coding of paths and queries (RFC 3986 §2.1; the form coding that clients use in queries).

use std::borrow::Cow;

/// The text holds a `%` that two hexadecimal digits do not follow, or its bytes are not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid percent-encoding")]
pub struct PercentError;

/// Encodes all but unreserved characters, for the value of a query parameter.
pub fn encode_query(text: &str) -> Cow<'_, str> {
    encode(text, |_| false)
}

/// Encodes for a path; `/` and what RFC 3986 allows in a segment besides (such as the `:` of digests) stay as they are.
pub fn encode_path(text: &str) -> Cow<'_, str> {
    encode(text, |b| {
        matches!(
            b,
            b'/' | b':'
                | b'@'
                | b'!'
                | b'$'
                | b'&'
                | b'\''
                | b'('
                | b')'
                | b'*'
                | b'+'
                | b','
                | b';'
                | b'='
        )
    })
}

fn encode(text: &str, keep: impl Fn(u8) -> bool) -> Cow<'_, str> {
    let keep =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~') || keep(b);
    if text.bytes().all(&keep) {
        return Cow::Borrowed(text);
    }
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if keep(byte) {
            encoded.push(byte as char);
        } else {
            encoded.extend([
                '%',
                HEX[usize::from(byte >> 4)] as char,
                HEX[usize::from(byte & 15)] as char,
            ]);
        }
    }
    Cow::Owned(encoded)
}

/// Decodes `%xx` once. A `+` stays a `+`.
pub fn decode(text: &str) -> Result<Cow<'_, str>, PercentError> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => match (bytes.next().and_then(hex), bytes.next().and_then(hex)) {
                (Some(high), Some(low)) => high << 4 | low,
                _ => return Err(PercentError),
            },
            other => other,
        });
    }
    String::from_utf8(decoded)
        .map(Cow::Owned)
        .map_err(|_| PercentError)
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

/// The pairs of a query string, decoded as forms are (`+` is a space).
///
/// Clients add parameters of their own, which must not disturb (UP-3), so a part that cannot be decoded is passed on as
/// it stands: whoever wants that parameter checks its value anyway.
pub fn query_pairs(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (form(key), form(value))
        })
}

fn form(text: &str) -> Cow<'_, str> {
    if !text.contains('+') {
        return decode(text).unwrap_or(Cow::Borrowed(text));
    }
    let spaced = text.replace('+', " ");
    match decode(&spaced) {
        Ok(decoded) => Cow::Owned(decoded.into_owned()),
        Err(PercentError) => Cow::Owned(spaced),
    }
}
