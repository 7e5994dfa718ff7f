//! Where one HTTP/1.1 request ends and the next begins, read strictly.
//!
//! hyper's parser forgives: bare line feeds, a length beside chunks, repeated lengths. A proxy in front that reads such
//! bytes another way would let one client smuggle a request into another's connection. So `io` shows every byte to this
//! scanner first, which passes on only what has one reading (RFC 9112 §2.2, §5, §6.3, §7.1), a head never before it is
//! complete. It also is where the size of a head is limited, so that the refusal can be a proper answer.
//!
//! Pure: bytes in, verdict out. It never changes bytes, and never allocates.

use http::StatusCode;
use wharf_oci::ErrorCode;

use super::error::ApiError;
use super::forwarded::is_authority;

/// Why bytes are no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    RequestLine,
    TargetTooLong,
    Target,
    Version,
    Connect,
    HeadTooLarge,
    TooManyHeaders,
    BareLineFeed,
    ControlCharacter,
    FoldedHeader,
    HeaderName,
    Host,
    Length,
    LengthAndChunks,
    TransferCoding,
    /// Found only in the body, when the head has been passed on.
    Chunks,
}

impl Refusal {
    /// The reason in one word, for a label.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::RequestLine => "request-line",
            Self::TargetTooLong => "target-too-long",
            Self::Target => "target",
            Self::Version => "version",
            Self::Connect => "connect",
            Self::HeadTooLarge => "head-too-large",
            Self::TooManyHeaders => "too-many-headers",
            Self::BareLineFeed => "bare-line-feed",
            Self::ControlCharacter => "control-character",
            Self::FoldedHeader => "folded-header",
            Self::HeaderName => "header-name",
            Self::Host => "host",
            Self::Length => "length",
            Self::LengthAndChunks => "length-and-chunks",
            Self::TransferCoding => "transfer-coding",
            Self::Chunks => "chunks",
        }
    }

    /// The answer to the client.
    pub(super) fn answer(self) -> ApiError {
        let message = match self {
            Self::RequestLine => {
                "the request does not begin with '<method> <path> HTTP/1.1'; \
                 does the client speak HTTPS to a port that speaks HTTP?"
            }
            Self::TargetTooLong => "the request line is too long (limits.header_size)",
            Self::Target => {
                "the request's target must be a path or an http:// URL, \
                 with what neither can hold percent-encoded"
            }
            Self::Version => "only HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here",
            Self::Connect => "this is no proxy: CONNECT is not served",
            Self::HeadTooLarge => "the request's headers are too large (limits.header_size)",
            Self::TooManyHeaders => "the request has more than 100 headers",
            Self::BareLineFeed => {
                "a line of the request ends without carriage return; \
                 proxies could read such a request in two ways"
            }
            Self::ControlCharacter => "the request's head holds a control character",
            Self::FoldedHeader => "a header goes on over several lines, which HTTP has given up",
            Self::HeaderName => "a header's name is malformed",
            Self::Host => "an HTTP/1.1 request must have exactly one Host header",
            Self::Length => {
                "Content-Length must stand in the request at most once, as a whole number"
            }
            Self::LengthAndChunks => {
                "the request has both Content-Length and Transfer-Encoding; \
                 proxies could read it in two ways"
            }
            Self::TransferCoding => "the only transfer coding that is understood is 'chunked'",
            Self::Chunks => "the chunks of the request's body are malformed (RFC 9112 §7.1)",
        };
        let (code, status) = match self {
            Self::TargetTooLong => (ErrorCode::SizeInvalid, StatusCode::URI_TOO_LONG),
            Self::HeadTooLarge | Self::TooManyHeaders => (
                ErrorCode::SizeInvalid,
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            ),
            Self::Version => (
                ErrorCode::Unsupported,
                StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            ),
            Self::TransferCoding => (ErrorCode::Unsupported, StatusCode::NOT_IMPLEMENTED),
            _ => (ErrorCode::Unsupported, StatusCode::BAD_REQUEST),
        };
        ApiError::new(code, message).with_status(status)
    }
}

/// Why passing on stops. `pass` bytes from the front are still good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The head that begins at `pass` is refused.
    Head { pass: usize, refusal: Refusal },
    /// The chunks of a body are malformed.
    Body { pass: usize },
}

/// The scanner of one connection.
#[derive(Debug)]
pub(super) struct Framing {
    state: State,
    max_head: usize,
    heads: u64,
}

#[derive(Debug)]
enum State {
    Head(Head),
    Body(u64),
    Chunked(Chunk),
    Raw,
}

/// What is known of a head that has not ended. Positions count from its first byte.
#[derive(Clone, Copy, Debug, Default)]
struct Head {
    /// Where the current line begins.
    line: usize,
    /// Up to where it has been looked through.
    seen: usize,
    lines: u16,
    hosts: u8,
    http_10: bool,
    length: Option<u64>,
    chunked: bool,
}

#[derive(Clone, Copy, Debug)]
enum Chunk {
    Size { digits: u8, value: u64 },
    Extension { len: u16, value: u64 },
    SizeEnd { value: u64 },
    Data(u64),
    DataCr,
    DataLf,
    TrailerStart { len: u16 },
    Trailer { len: u16 },
    TrailerLf { len: u16 },
    EndLf,
}

const MAX_HEADERS: u16 = 100;
const MAX_CHUNK_EXTENSION: u16 = 256;
const MAX_TRAILERS: u16 = 8 * 1024;

impl Framing {
    /// A scanner that refuses heads of more than `max_head` bytes.
    pub(super) fn new(max_head: usize) -> Self {
        Self {
            state: State::Head(Head::default()),
            max_head,
            heads: 0,
        }
    }

    /// From here on everything passes: HTTP/2 has frames of its own.
    pub(super) fn pass_all(&mut self) {
        self.state = State::Raw;
    }

    /// Whether what was passed on ends with a request.
    pub(super) fn is_at_head(&self) -> bool {
        matches!(self.state, State::Head(_))
    }

    /// How many heads were passed on so far.
    pub(super) fn heads(&self) -> u64 {
        self.heads
    }

    /// Looks at bytes and says how many of them, from the front, may be passed on. What is held back is the beginning
    /// of a head: it must come first in the next call, followed by what arrived since.
    pub(super) fn scan(&mut self, bytes: &[u8]) -> Result<usize, Stop> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match &mut self.state {
                State::Raw => return Ok(bytes.len()),
                State::Body(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(rest.len());
                    *left -= take as u64;
                    at += take;
                    if *left == 0 {
                        self.state = State::Head(Head::default());
                    }
                }
                State::Chunked(chunk) => match chunk.advance(rest) {
                    Ok((take, done)) => {
                        at += take;
                        if done {
                            self.state = State::Head(Head::default());
                        }
                    }
                    Err(take) => return Err(Stop::Body { pass: at + take }),
                },
                State::Head(head) => match head.advance(rest, self.max_head) {
                    Ok(Some(len)) => {
                        self.heads += 1;
                        self.state = if head.chunked {
                            State::Chunked(Chunk::Size {
                                digits: 0,
                                value: 0,
                            })
                        } else {
                            match head.length {
                                None | Some(0) => State::Head(Head::default()),
                                Some(length) => State::Body(length),
                            }
                        };
                        at += len;
                    }
                    Ok(None) => return Ok(at),
                    Err(refusal) => return Err(Stop::Head { pass: at, refusal }),
                },
            }
        }
        Ok(at)
    }
}

impl Head {
    /// Goes on through `bytes`, which begin with the head's first byte. The length of the head once it has ended.
    fn advance(&mut self, bytes: &[u8], max: usize) -> Result<Option<usize>, Refusal> {
        loop {
            let Some(end) = self.line_end(bytes)? else {
                return self.check_size(bytes.len(), max).map(|()| None);
            };
            self.check_size(end + 2, max)?;
            let line = &bytes[self.line..end];
            self.line = end + 2;
            self.seen = self.line;
            match (line.is_empty(), self.lines) {
                // RFC 9112 §2.2: an empty line or two before the request are an old client's bug.
                (true, 0) if self.line <= 4 => {}
                (true, 0) => return Err(Refusal::RequestLine),
                (true, _) => return self.finish().map(|()| Some(self.line)),
                (false, 0) => {
                    self.request_line(line)?;
                    self.lines = 1;
                }
                (false, _) => {
                    self.header(line)?;
                    self.lines += 1;
                    if self.lines > MAX_HEADERS + 1 {
                        return Err(Refusal::TooManyHeaders);
                    }
                }
            }
        }
    }

    fn check_size(&self, len: usize, max: usize) -> Result<(), Refusal> {
        match (len > max, self.lines) {
            (false, _) => Ok(()),
            (true, 0) => Err(Refusal::TargetTooLong),
            (true, _) => Err(Refusal::HeadTooLarge),
        }
    }

    /// Where the current line's CRLF begins, if it is there. All else below a space, but the tab, is refused.
    fn line_end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        for (at, byte) in bytes.iter().enumerate().skip(self.seen) {
            if *byte >= b' ' && *byte != 0x7f || *byte == b'\t' {
                continue;
            }
            match byte {
                b'\r' => match bytes.get(at + 1) {
                    Some(b'\n') => return Ok(Some(at)),
                    Some(_) => return Err(Refusal::ControlCharacter),
                    None => {
                        self.seen = at;
                        return Ok(None);
                    }
                },
                b'\n' => return Err(Refusal::BareLineFeed),
                _ if self.lines == 0 => return Err(Refusal::RequestLine),
                _ => return Err(Refusal::ControlCharacter),
            }
        }
        self.seen = bytes.len();
        Ok(None)
    }

    fn request_line(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let mut words = line.split(|byte| *byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Refusal::RequestLine);
        };
        if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
            return Err(Refusal::RequestLine);
        }
        match version {
            b"HTTP/1.1" => {}
            b"HTTP/1.0" => self.http_10 = true,
            _ if version.starts_with(b"HTTP/") => return Err(Refusal::Version),
            _ => return Err(Refusal::RequestLine),
        }
        if method == b"CONNECT" {
            return Err(Refusal::Connect);
        }
        let path = match target {
            [b'/', ..] => target,
            b"*" if method == b"OPTIONS" => target,
            _ => path_of_absolute(target).ok_or(Refusal::Target)?,
        };
        // hyper takes a quotation mark in the path alone.
        let query = path.iter().skip_while(|byte| **byte != b'?');
        if path.iter().all(|byte| is_target(*byte)) && !query.into_iter().any(|byte| *byte == b'"')
        {
            Ok(())
        } else {
            Err(Refusal::Target)
        }
    }

    fn header(&mut self, line: &[u8]) -> Result<(), Refusal> {
        if matches!(line, [b' ' | b'\t', ..]) {
            return Err(Refusal::FoldedHeader);
        }
        let colon = line
            .iter()
            .position(|byte| !is_token(*byte))
            .filter(|at| *at > 0 && line[*at] == b':')
            .ok_or(Refusal::HeaderName)?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => {
                self.hosts += 1;
                if self.hosts > 1 {
                    return Err(Refusal::Host);
                }
            }
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                if self.length.is_some() {
                    return Err(Refusal::Length);
                }
                self.length = Some(number(value).ok_or(Refusal::Length)?);
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                if self.chunked || self.http_10 || !value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal::TransferCoding);
                }
                self.chunked = true;
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&self) -> Result<(), Refusal> {
        if self.chunked && self.length.is_some() {
            return Err(Refusal::LengthAndChunks);
        }
        if self.hosts == 0 && !self.http_10 {
            return Err(Refusal::Host);
        }
        Ok(())
    }
}

/// Digits only, as RFC 9110 §8.6 wants it; 19 of them always fit.
fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(
        text.iter()
            .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')),
    )
}

/// What follows host and port in the absolute form (RFC 9112 §3.2.2), when the rest is sound.
fn path_of_absolute(target: &[u8]) -> Option<&[u8]> {
    let rest = [&b"http://"[..], b"https://"]
        .into_iter()
        .find_map(|scheme| {
            starts_with_ignoring_case(target, scheme).then(|| &target[scheme.len()..])
        })?;
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .unwrap_or(rest.len());
    let host = std::str::from_utf8(&rest[..end]).ok()?;
    is_authority(host).then(|| &rest[end..])
}

/// What may stand in paths and queries, and a few more that clients forget to encode; the rest is what hyper would
/// refuse without a word.
fn is_target(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'#' | b'<' | b'>' | b'`')
}

fn starts_with_ignoring_case(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// RFC 9110 §5.6.2, as a table since every byte of every header's name is looked up.
const fn is_token(byte: u8) -> bool {
    const TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = matches!(
                byte as u8,
                b'a'..=b'z'
                    | b'A'..=b'Z'
                    | b'0'..=b'9'
                    | b'!'
                    | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
            byte += 1;
        }
        table
    };
    TABLE[byte as usize]
}

impl Chunk {
    /// Goes on through a chunked body: how many bytes belong to it, and whether it has ended. `Err`: it is malformed at
    /// that byte.
    fn advance(&mut self, bytes: &[u8]) -> Result<(usize, bool), usize> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            *self = match (*self, byte) {
                (Self::Data(left), _) => {
                    let rest = bytes.len() - at;
                    let take = usize::try_from(left).unwrap_or(usize::MAX).min(rest);
                    at += take;
                    *self = match left - take as u64 {
                        0 => Self::DataCr,
                        left => Self::Data(left),
                    };
                    continue;
                }
                (Self::Size { digits, value }, byte) if byte.is_ascii_hexdigit() => {
                    // 15 digits are an exbibyte; more would overflow one day.
                    if digits == 15 {
                        return Err(at);
                    }
                    let digit = (byte as char).to_digit(16).unwrap_or(0);
                    Self::Size {
                        digits: digits + 1,
                        value: value << 4 | u64::from(digit),
                    }
                }
                (Self::Size { digits: 1.., value }, b'\r') => Self::SizeEnd { value },
                (Self::Size { digits: 1.., value }, b';' | b' ' | b'\t') => {
                    Self::Extension { len: 1, value }
                }
                (Self::Extension { value, .. }, b'\r') => Self::SizeEnd { value },
                (Self::Extension { len, value }, byte)
                    if (byte >= b' ' && byte != 0x7f || byte == b'\t')
                        && len < MAX_CHUNK_EXTENSION =>
                {
                    Self::Extension {
                        len: len + 1,
                        value,
                    }
                }
                (Self::SizeEnd { value: 0 }, b'\n') => Self::TrailerStart { len: 0 },
                (Self::SizeEnd { value }, b'\n') => Self::Data(value),
                (Self::DataCr, b'\r') => Self::DataLf,
                (Self::DataLf, b'\n') => Self::Size {
                    digits: 0,
                    value: 0,
                },
                (Self::TrailerStart { .. }, b'\r') => Self::EndLf,
                (Self::Trailer { len }, b'\r') => Self::TrailerLf { len },
                (Self::TrailerStart { len } | Self::Trailer { len }, byte)
                    if (byte >= b' ' && byte != 0x7f || byte == b'\t') && len < MAX_TRAILERS =>
                {
                    Self::Trailer { len: len + 1 }
                }
                (Self::TrailerLf { len }, b'\n') => Self::TrailerStart { len },
                (Self::EndLf, b'\n') => return Ok((at + 1, true)),
                _ => return Err(at),
            };
            at += 1;
        }
        Ok((at, false))
    }
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
