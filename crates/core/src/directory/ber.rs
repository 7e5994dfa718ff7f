//! The encoding below LDAP (X.690, as RFC 4511 §5.1 narrows it): tag, definite length, content.
//!
//! Reads flat, one element at a time, so that nothing that is sent can nest deeper than the reader asks for.

/// Bytes that are no element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BerError {
    /// The content ends before the length says so.
    #[error("an element is cut")]
    Cut,
    /// A length that RFC 4511 does not allow, or that nobody can mean.
    #[error("an element has a length that LDAP does not allow")]
    Length,
    /// Something else than what has to stand there.
    #[error("an element of type 0x{found:02x} stands where one of type 0x{expected:02x} belongs")]
    Type {
        /// What belongs there.
        expected: u8,
        /// What stands there.
        found: u8,
    },
    /// Larger than is read.
    #[error("a message is larger than {0} bytes")]
    Large(usize),
}

/// SEQUENCE.
pub const SEQUENCE: u8 = 0x30;
/// SET.
pub const SET: u8 = 0x31;
/// BOOLEAN.
pub const BOOLEAN: u8 = 0x01;
/// INTEGER.
pub const INTEGER: u8 = 0x02;
/// OCTET STRING.
pub const OCTETS: u8 = 0x04;
/// ENUMERATED.
pub const ENUMERATED: u8 = 0x0a;

/// Header of an element: its type, where its content begins, and how long that is. `None`: more bytes are needed.
fn header(bytes: &[u8]) -> Result<Option<(u8, usize, usize)>, BerError> {
    let [tag, first, rest @ ..] = bytes else {
        return Ok(None);
    };
    // Types of several bytes do not exist in LDAP.
    if tag & 0x1f == 0x1f {
        return Err(BerError::Length);
    }
    if *first < 0x80 {
        return Ok(Some((*tag, 2, usize::from(*first))));
    }
    let count = usize::from(first & 0x7f);
    if count == 0 || count > 4 {
        return Err(BerError::Length);
    }
    let Some(digits) = rest.get(..count) else {
        return Ok(None);
    };
    let length = digits.iter().fold(0, |length: usize, digit| {
        (length << 8) | usize::from(*digit)
    });
    Ok(Some((*tag, 2 + count, length)))
}

/// How many bytes the first message takes, or `None` while its header is not there. Refuses one that is larger than that before
/// it was read.
pub fn message_length(bytes: &[u8], largest: usize) -> Result<Option<usize>, BerError> {
    match header(bytes)? {
        Some((SEQUENCE, start, length)) => match start.checked_add(length) {
            Some(whole) if whole <= largest => Ok(Some(whole)),
            _ => Err(BerError::Large(largest)),
        },
        Some((found, ..)) => Err(BerError::Type {
            expected: SEQUENCE,
            found,
        }),
        None => match bytes.first() {
            Some(found) if *found != SEQUENCE => Err(BerError::Type {
                expected: SEQUENCE,
                found: *found,
            }),
            _ => Ok(None),
        },
    }
}

/// Reads elements that stand side by side.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads these.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The type of the next element, if there is one.
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Type and content of the next element.
    pub fn element(&mut self) -> Result<(u8, &'a [u8]), BerError> {
        let (tag, start, length) = header(self.rest)?.ok_or(BerError::Cut)?;
        let end = start.checked_add(length).ok_or(BerError::Length)?;
        let content = self.rest.get(start..end).ok_or(BerError::Cut)?;
        self.rest = &self.rest[end..];
        Ok((tag, content))
    }

    /// Content of the next element, which must be of that type.
    pub fn expect(&mut self, expected: u8) -> Result<&'a [u8], BerError> {
        match self.element()? {
            (found, content) if found == expected => Ok(content),
            (found, _) => Err(BerError::Type { expected, found }),
        }
    }

    /// The elements inside the next one.
    pub fn inside(&mut self, expected: u8) -> Result<Reader<'a>, BerError> {
        Ok(Reader::new(self.expect(expected)?))
    }

    /// A number of at most four bytes.
    pub fn number(&mut self, expected: u8) -> Result<i32, BerError> {
        let content = self.expect(expected)?;
        if content.is_empty() || content.len() > 4 {
            return Err(BerError::Length);
        }
        let sign = if content[0] & 0x80 == 0 { 0 } else { -1 };
        Ok(content
            .iter()
            .fold(sign, |number: i32, byte| (number << 8) | i32::from(*byte)))
    }

    /// Text; bytes that are no UTF-8 are shown as such.
    pub fn text(&mut self, expected: u8) -> Result<String, BerError> {
        Ok(String::from_utf8_lossy(self.expect(expected)?).into_owned())
    }
}

/// Writes an element.
pub fn put(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    out.push(tag);
    match content.len() {
        length @ 0..0x80 => out.push(length as u8),
        length => {
            let digits = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
            let zeros = digits.iter().take_while(|digit| **digit == 0).count();
            out.push(0x80 | (4 - zeros) as u8);
            out.extend_from_slice(&digits[zeros..]);
        }
    }
    out.extend_from_slice(content);
}

/// Writes a number.
pub fn put_number(out: &mut Vec<u8>, tag: u8, number: i32) {
    let bytes = number.to_be_bytes();
    let spare = (0..3).take_while(|&at| {
        let next = bytes[at + 1] & 0x80 != 0;
        (bytes[at] == 0 && !next) || (bytes[at] == 0xff && next)
    });
    put(out, tag, &bytes[spare.count()..]);
}

/// Writes an element around what `inside` writes.
pub fn put_around(out: &mut Vec<u8>, tag: u8, inside: impl FnOnce(&mut Vec<u8>)) {
    let mut content = Vec::new();
    inside(&mut content);
    put(out, tag, &content);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(tag in 0u8..=255, content in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            prop_assume!(tag & 0x1f != 0x1f);
            let mut out = Vec::new();
            put(&mut out, tag, &content);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.element(), Ok((tag, &content[..])));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn numbers_come_back_and_are_as_short_as_can_be(number: i32) {
            let mut out = Vec::new();
            put_number(&mut out, INTEGER, number);
            prop_assert_eq!(Reader::new(&out).number(INTEGER), Ok(number));
            if out.len() > 3 {
                // Nine equal bits at the start say nothing (X.690 §8.3.2).
                prop_assert!(!(out[2] == 0 && out[3] & 0x80 == 0));
                prop_assert!(!(out[2] == 0xff && out[3] & 0x80 != 0));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&bytes);
            let mut read = 0;
            while let Ok((_, content)) = reader.element() {
                read += content.len() + 2;
                prop_assert!(read <= bytes.len());
            }
            if let Ok(Some(length)) = message_length(&bytes, 1000) {
                prop_assert!(length <= 1000);
            }
        }
    }

    #[test]
    fn a_length_that_nobody_can_mean_is_refused_before_it_is_waited_for() {
        let huge = [SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(message_length(&huge, 1000), Err(BerError::Large(1000)));
        assert_eq!(
            message_length(&[SEQUENCE, 0x80], 1000),
            Err(BerError::Length)
        );
        assert_eq!(
            message_length(&[SEQUENCE, 0x85, 0, 0, 0, 0, 1], 1000),
            Err(BerError::Length)
        );
        assert!(matches!(
            message_length(b"HTTP/1.1", 1000),
            Err(BerError::Type { .. })
        ));
        assert_eq!(message_length(&[SEQUENCE, 0x82, 1], 1000), Ok(None));
    }
}
