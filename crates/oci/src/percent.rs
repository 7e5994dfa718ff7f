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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(query: &str) -> Vec<(String, String)> {
        query_pairs(query)
            .map(|(k, v)| (k.into_owned(), v.into_owned()))
            .collect()
    }

    /// Spec: UP-3, MNT-4.
    #[test]
    fn queries_come_encoded_or_not() {
        let expected = [
            ("mount".to_owned(), "sha256:ab".to_owned()),
            ("from".to_owned(), "library/alpine".to_owned()),
        ];
        assert_eq!(pairs("mount=sha256:ab&from=library/alpine"), expected);
        assert_eq!(pairs("mount=sha256%3Aab&&from=library%2falpine&"), expected);
        assert_eq!(
            pairs("a+b=c+%2B&d&=e&f=g=h"),
            [
                ("a b".to_owned(), "c +".to_owned()),
                ("d".to_owned(), String::new()),
                (String::new(), "e".to_owned()),
                ("f".to_owned(), "g=h".to_owned()),
            ]
        );
    }

    /// Spec: UP-3.
    #[test]
    fn what_cannot_be_decoded_does_not_disturb() {
        assert_eq!(
            pairs("x=%zz&y=%ff+&digest=a%3ab")[2],
            ("digest".to_owned(), "a:b".to_owned())
        );
        assert_eq!(pairs("x=%zz")[0].1, "%zz");
    }

    #[test]
    fn decodes_once_and_strictly() {
        assert_eq!(decode("a%2Fb%252f").unwrap(), "a/b%2f");
        assert_eq!(decode("a+b").unwrap(), "a+b");
        for bad in ["%", "%2", "%zz", "%2z", "%ff", "a%", "%+1"] {
            assert_eq!(decode(bad), Err(PercentError), "{bad}");
        }
    }

    #[test]
    fn encodes_what_must_be() {
        assert_eq!(encode_path("a/b:c d"), "a/b:c%20d");
        assert_eq!(encode_query("a/b:c d&é"), "a%2Fb%3Ac%20d%26%C3%A9");
        assert!(matches!(encode_query("plain-1._~"), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(text in ".*") {
            for encoded in [encode_query(&text), encode_path(&text)] {
                prop_assert!(encoded.is_ascii());
                let decoded = decode(&encoded).map(Cow::into_owned);
                prop_assert_eq!(decoded, Ok(text.clone()));
            }
        }

        #[test]
        fn pairs_round_trip(list in prop::collection::vec(("[^&=]{1,9}", ".{0,9}"), 0..5)) {
            let query: Vec<_> = list.iter().map(|(k, v)| format!("{}={}", encode_query(k), encode_query(v))).collect();
            prop_assert_eq!(pairs(&query.join("&")), list);
        }

        #[test]
        fn any_query_can_be_walked(query in ".{0,60}|[a%0-9f+=&]{0,30}") {
            prop_assert!(pairs(&query).len() <= query.len());
        }
    }
}
