//! Whether a blob's bytes are those of the blob: whole, one range, or several.

use wharf_oci::Digest;

use super::model::assert_digest;
use super::script::Request;
use super::wire::Answer;

/// `known` are the blob's bytes; without them a whole answer still has to have the digest.
pub(super) fn check(request: &Request, answer: &Answer, digest: &Digest, known: Option<&[u8]>) {
    let header = |name| answer.header(name).unwrap_or_default();
    match (answer.status, known) {
        (200, Some(known)) if request.is_head() => {
            assert_eq!(header("content-length"), known.len().to_string());
        }
        (200, _) if !request.is_head() => {
            assert_digest(digest, &answer.body, "a blob has changed");
        }
        (206, Some(known)) => {
            assert!(!request.is_head() && request.header("range").is_some());
            match header("content-type").strip_prefix("multipart/byteranges; boundary=") {
                None => check_part(header("content-range"), &answer.body, known),
                Some(boundary) => check_parts(boundary, &answer.body, known),
            }
        }
        (416, Some(known)) => {
            assert_eq!(header("content-range"), format!("bytes */{}", known.len()));
        }
        _ => {}
    }
}

/// `range` is `bytes <first>-<last>/<size>`.
fn check_part(range: &str, bytes: &[u8], known: &[u8]) {
    let numbers = || -> Option<(usize, usize, usize)> {
        let (span, size) = range.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = span.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?, size.parse().ok()?))
    };
    let (first, last, size) = numbers().unwrap_or_else(|| panic!("no range: {range:?}"));
    assert_eq!(size, known.len());
    assert_eq!(
        known.get(first..=last),
        Some(bytes),
        "not the bytes of {range}"
    );
}

fn check_parts(boundary: &str, body: &[u8], known: &[u8]) {
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = body;
    let mut count = 0;
    loop {
        rest = rest
            .strip_prefix(delimiter.as_bytes())
            .expect("a delimiter");
        if rest == b"--\r\n" {
            break;
        }
        rest = rest.strip_prefix(b"\r\n").expect("a part");
        let end = rest
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a part's head");
        let head = std::str::from_utf8(&rest[..end]).expect("text");
        let range = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Range: "))
            .expect("a part has its range");
        rest = &rest[end + 4..];
        let mark = delimiter.as_bytes();
        let length = rest.windows(mark.len()).position(|bytes| bytes == mark);
        let length = length.expect("a part ends");
        check_part(range, &rest[..length], known);
        rest = &rest[length..];
        count += 1;
    }
    assert!(count > 1, "one range needs no parts");
}
