//! The `Range` of reads (BGET-4 to BGET-6) and the `Content-Range` of upload chunks (UP-21).

use std::fmt;
use std::str::FromStr;

/// Most ranges that one request gets. containers/image asks for up to 1024 chunks of a zstd:chunked layer at once, and
/// would read the whole layer if it got a 200.
pub const MAX_RANGES: usize = 1024;

/// Bytes from `start` to `end_inclusive`, never empty and never past the content's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end_inclusive: u64,
}

impl Span {
    /// Length in bytes, at least 1.
    #[allow(clippy::len_without_is_empty)] // a span is never empty
    pub fn len(&self) -> u64 {
        self.end_inclusive - self.start + 1
    }
}

/// What to do about a `Range` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RangeRequest {
    /// Send everything with 200: the header is not for us, malformed, or asks for too much.
    Full,
    /// Send these with 206, in this order, as multipart when they are several. Never empty.
    Ranges(Vec<Span>),
    /// Send 416 with `Content-Range: bytes */<size>`.
    Unsatisfiable,
}

/// Decides on a `Range` header for content of `size` bytes (RFC 9110 §14.1, §14.2).
///
/// A malformed header is ignored as the RFC allows, but a backwards range such as `bytes=500-0` counts as unsatisfiable,
/// as the conformance suite wants. Ranges that together exceed the content, or are too many, get everything once. Of
/// empty content there is no part, so that clients which always send a range get their 200.
pub fn parse_range(header: &str, size: u64) -> RangeRequest {
    let Some(set) = header
        .split_once('=')
        .filter(|(unit, _)| unit.trim().eq_ignore_ascii_case("bytes"))
    else {
        return RangeRequest::Full;
    };
    if size == 0 {
        return RangeRequest::Full;
    }
    let mut spans = Vec::new();
    let mut seen = 0;
    let mut total = 0u128;
    for item in set
        .1
        .split(',')
        .map(|item| item.trim_matches([' ', '\t']))
        .filter(|item| !item.is_empty())
    {
        seen += 1;
        let Some(span) = parse_item(item, size) else {
            return RangeRequest::Full;
        };
        if let Some(span) = span {
            total += u128::from(span.len());
            spans.push(span);
        }
        if seen > MAX_RANGES || total > u128::from(size) {
            return RangeRequest::Full;
        }
    }
    match (seen, spans.is_empty()) {
        (0, _) => RangeRequest::Full,
        (_, true) => RangeRequest::Unsatisfiable,
        (_, false) => RangeRequest::Ranges(spans),
    }
}

/// One of `a-b`, `a-`, `-n`. None when malformed, `Some(None)` when it selects nothing.
fn parse_item(item: &str, size: u64) -> Option<Option<Span>> {
    let (first, last) = item.split_once('-')?;
    let end = size - 1;
    if first.is_empty() {
        let length = number(last)?;
        return Some((length > 0).then(|| Span {
            start: size.saturating_sub(length),
            end_inclusive: end,
        }));
    }
    let start = number(first)?;
    let last = if last.is_empty() {
        end
    } else {
        number(last)?.min(end)
    };
    Some((start <= last).then_some(Span {
        start,
        end_inclusive: last,
    }))
}

/// Digits only; a number above 2⁶⁴ is as good as the end.
fn number(text: &str) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.bytes().try_fold(0u64, |value, byte| {
        byte.is_ascii_digit().then(|| {
            value
                .saturating_mul(10)
                .saturating_add(u64::from(byte - b'0'))
        })
    })
}

/// Where a chunk of an upload belongs; both ends are inclusive, so it has at least one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ContentRange {
    /// Offset of the first byte.
    pub start: u64,
    /// Offset of the last byte.
    pub end: u64,
}

/// The header is not `<start>-<end>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Content-Range of a chunk must be <start>-<end>, both inclusive, for example 0-1023")]
pub struct ContentRangeError;

impl ContentRange {
    /// Reads `a-b` (UP-21). `bytes a-b/total` is tolerated; the total is not looked at, the closing digest decides.
    pub fn parse(header: &str) -> Result<ContentRange, ContentRangeError> {
        let header = header.trim_matches([' ', '\t']);
        let spans = match header.split_at_checked(6) {
            Some((unit, rest))
                if unit.eq_ignore_ascii_case("bytes ") || unit.eq_ignore_ascii_case("bytes=") =>
            {
                rest
            }
            _ => header,
        };
        let spans = match spans.split_once('/') {
            Some((spans, total)) if total == "*" || exact(total).is_some() => spans,
            Some(_) => return Err(ContentRangeError),
            None => spans,
        };
        let (start, end) = spans.split_once('-').ok_or(ContentRangeError)?;
        match (exact(start), exact(end)) {
            (Some(start), Some(end)) if start <= end => Ok(ContentRange { start, end }),
            _ => Err(ContentRangeError),
        }
    }

    /// Length in bytes, at least 1.
    #[allow(clippy::len_without_is_empty)] // both ends are inclusive
    pub fn len(&self) -> u64 {
        self.end - self.start + 1
    }
}

/// Digits only, up to 2⁶³−1, the largest size that content can have.
fn exact(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse::<i64>()
        .ok()
        .filter(|_| digits)
        .and_then(|n| u64::try_from(n).ok())
}

impl fmt::Display for ContentRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

impl FromStr for ContentRange {
    type Err = ContentRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        ContentRange::parse(text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::RangeRequest::{Full, Ranges, Unsatisfiable};
    use super::*;

    fn one(start: u64, end_inclusive: u64) -> RangeRequest {
        Ranges(vec![Span {
            start,
            end_inclusive,
        }])
    }

    /// Spec: BGET-4, BGET-5.
    #[test]
    fn one_range() {
        for (header, expected) in [
            ("bytes=500-1499", one(500, 1499)),
            ("bytes=500-", one(500, 2047)),
            ("bytes=-500", one(1548, 2047)),
            ("bytes=2000-5000", one(2000, 2047)),
            ("bytes=500-0", Unsatisfiable),
            ("bytes=5000-10000", Unsatisfiable),
            ("bytes=0-", one(0, 2047)),
            ("bytes=0-0", one(0, 0)),
            ("bytes=2047-", one(2047, 2047)),
            ("bytes=2048-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=-9999", one(0, 2047)),
            ("Bytes=1-2", one(1, 2)),
            ("bytes= 1-2 ", one(1, 2)),
            ("bytes=0-99999999999999999999999999", one(0, 2047)),
            ("bytes=99999999999999999999999999-", Unsatisfiable),
        ] {
            assert_eq!(parse_range(header, 2048), expected, "{header}");
        }
    }

    /// Spec: BGET-4.
    #[test]
    fn what_is_malformed_is_ignored() {
        for header in [
            "",
            "bytes",
            "bytes=",
            "bytes=,",
            "bytes=-",
            "bytes=a-b",
            "bytes=1",
            "bytes=1-2-3",
            "bytes=+1-2",
            "bytes=0x1-2",
            "bytes=1 -2",
            "items=0-5",
            "bytes=1-2;3",
            "bytes=1-2,x",
            "0-5",
        ] {
            assert_eq!(parse_range(header, 2048), Full, "{header}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Full);
        assert_eq!(parse_range("bytes=-5", 0), Full);
    }

    /// Spec: BGET-6.
    #[test]
    fn several_ranges_come_all_or_not_at_all() {
        let spans = |list: &[(u64, u64)]| {
            Ranges(
                list.iter()
                    .map(|&(start, end_inclusive)| Span {
                        start,
                        end_inclusive,
                    })
                    .collect(),
            )
        };
        assert_eq!(
            parse_range("bytes=0-9, 20-29,-5", 100),
            spans(&[(0, 9), (20, 29), (95, 99)])
        );
        assert_eq!(parse_range("bytes=200-300,0-9", 100), one(0, 9));
        assert_eq!(parse_range("bytes=200-300,400-", 100), Unsatisfiable);
        assert_eq!(parse_range("bytes=0-,0-,0-", 100), Full);
        let many = |n: usize| {
            format!(
                "bytes={}",
                (0..n)
                    .map(|i| format!("{0}-{0}", i * 2))
                    .collect::<Vec<_>>()
                    .join(",")
            )
        };
        assert!(
            matches!(parse_range(&many(MAX_RANGES), 1 << 20), Ranges(spans) if spans.len() == MAX_RANGES)
        );
        assert_eq!(parse_range(&many(MAX_RANGES + 1), 1 << 20), Full);
    }

    /// Spec: UP-21.
    #[test]
    fn chunks_say_where_they_belong() {
        for (header, start, end) in [
            ("0-0", 0, 0),
            ("0-1023", 0, 1023),
            (" 5-9 ", 5, 9),
            ("bytes 5-9", 5, 9),
            ("bytes=5-9", 5, 9),
            ("bytes 5-9/10", 5, 9),
            ("5-9/*", 5, 9),
            ("0-9223372036854775807", 0, i64::MAX as u64),
        ] {
            assert_eq!(
                ContentRange::parse(header),
                Ok(ContentRange { start, end }),
                "{header}"
            );
        }
        for header in [
            "",
            "-",
            "5",
            "5-",
            "-5",
            "9-5",
            "a-b",
            "+1-2",
            "1-+2",
            "1 - 2",
            "bytes",
            "bytes */10",
            "bytes 5-9/",
            "5-9/x",
            "0-9223372036854775808",
            "0-99999999999999999999",
            "0-1-2",
            "items 0-1",
        ] {
            assert_eq!(
                ContentRange::parse(header),
                Err(ContentRangeError),
                "{header}"
            );
        }
        assert_eq!(ContentRange::parse("3-3").unwrap().len(), 1);
    }

    fn headers() -> impl Strategy<Value = String> {
        prop_oneof![
            ".{0,40}",
            "bytes=[0-9 ,-]{0,40}",
            "bytes=([0-9]{0,4}-[0-9]{0,4},?){0,6}",
            "(bytes )?[0-9]{1,20}-[0-9]{1,20}(/[0-9*]{1,3})?"
        ]
    }

    proptest! {
        /// Spec: BGET-4, BGET-6.
        #[test]
        fn spans_are_inside_and_not_more_than_the_content(header in headers(), size in 0u64..5000) {
            if let Ranges(spans) = parse_range(&header, size) {
                prop_assert!(!spans.is_empty() && spans.len() <= MAX_RANGES);
                prop_assert!(spans.iter().all(|s| s.start <= s.end_inclusive && s.end_inclusive < size));
                prop_assert!(spans.iter().map(Span::len).sum::<u64>() <= size);
            }
        }

        /// Spec: BGET-4.
        #[test]
        fn a_range_inside_is_that_range(a in 0u64..5000, b in 0u64..5000, beyond in 1u64..u64::MAX / 2) {
            let (start, end) = (a.min(b), a.max(b));
            prop_assert_eq!(parse_range(&format!("bytes={start}-{end}"), end + beyond), one(start, end));
        }

        /// Spec: UP-21.
        #[test]
        fn content_ranges_round_trip(header in headers(), a in 0..i64::MAX as u64, b in 0..i64::MAX as u64) {
            let range = ContentRange { start: a.min(b), end: a.max(b) };
            prop_assert_eq!(range.to_string().parse(), Ok(range));
            if let Ok(range) = ContentRange::parse(&header) {
                prop_assert!(range.start <= range.end && range.len() > 0);
                prop_assert_eq!(ContentRange::parse(&range.to_string()), Ok(range));
            }
        }
    }
}
