//! The load generator's HTTP/1.1 client: blocking, one connection, little work per request, so that the time
//! measured is the server's.
//!
//! Used by every figure but those that `wrk` drives. It speaks to servers that this run started and to nobody else:
//! it is strict about framing and simple about everything else.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::content::MANIFEST;

/// Bytes asked of the socket at once: few system calls per GiB.
const BUFFER: usize = 512 << 10;
/// A head larger than this is an error of the server.
const HEAD: usize = 64 << 10;

/// Bytes of a chunk in chunked transfer encoding.
const CHUNK: usize = 32 << 10;

/// A server that is silent for this long has hung.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a request carries.
pub(crate) enum Body<'a> {
    /// Nothing.
    None,
    /// These bytes, with their length.
    Bytes(&'a [u8]),
    /// Pieces with their total length.
    Sized(u64, Source<'a>),
    /// Pieces in chunked transfer encoding.
    Chunked(Source<'a>),
}

/// Hands its pieces to a taker, one after another.
pub(crate) type Source<'a> = &'a dyn Fn(Taker<'_>) -> std::io::Result<()>;
/// Takes a piece.
pub(crate) type Taker<'a> = &'a mut dyn FnMut(&[u8]) -> std::io::Result<()>;

/// An answer.
pub(crate) struct Response {
    /// The status.
    pub(crate) status: u16,
    /// The head as it came.
    pub(crate) head: Vec<u8>,
    /// The body, empty when it was thrown away.
    pub(crate) body: Vec<u8>,
    /// Bytes of the body.
    pub(crate) length: u64,
}

impl Response {
    /// The value of a header, its name in small letters.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }

    /// Fails unless the status is `wanted`.
    pub(crate) fn expect(self, wanted: u16, what: &str) -> Result<Response> {
        if self.status != wanted {
            bail!(
                "{what} answered {} instead of {wanted}: {}",
                self.status,
                String::from_utf8_lossy(&self.body)
            );
        }
        Ok(self)
    }
}

trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// A connection that is opened when it is needed, and again when the server closed it.
pub(crate) struct Client {
    address: SocketAddr,
    tls: Option<Arc<rustls::ClientConfig>>,
    authorization: Option<String>,
    stream: Option<Box<dyn Duplex>>,
    buffer: Vec<u8>,
    line: Vec<u8>,
}

impl Client {
    /// A client of `address`; nothing is connected yet.
    pub(crate) fn new(address: SocketAddr, tls: Option<Arc<rustls::ClientConfig>>) -> Client {
        Client {
            address,
            tls,
            authorization: None,
            stream: None,
            buffer: vec![0; BUFFER],
            line: Vec::with_capacity(1024),
        }
    }

    /// Sends `value` as `Authorization` with each request.
    pub(crate) fn authorize(&mut self, value: &str) {
        self.authorization = Some(value.to_owned());
    }

    /// Opens the connection now, so that the first request does not pay for it.
    pub(crate) fn connect(&mut self) -> Result<()> {
        if self.stream.is_none() {
            let socket = TcpStream::connect(self.address)
                .with_context(|| format!("connecting to {}", self.address))?;
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.set_write_timeout(Some(PATIENCE))?;
            self.stream = Some(match &self.tls {
                None => Box::new(socket),
                Some(config) => Box::new(super::tls::connect(config, socket)?),
            });
        }
        Ok(())
    }

    /// Asks for `path` and keeps the body.
    pub(crate) fn get(&mut self, path: &str) -> Result<Response> {
        self.send("GET", path, &[], Body::None, true)
    }

    /// Asks for `path` and throws the body away.
    pub(crate) fn drain(&mut self, path: &str) -> Result<Response> {
        self.send("GET", path, &[], Body::None, false)
    }

    /// Asks for the head of `path`.
    pub(crate) fn head(&mut self, path: &str) -> Result<Response> {
        self.send("HEAD", path, &[], Body::None, true)
    }

    /// Sends a request and reads the answer; `keep` says whether its body is wanted.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
        keep: bool,
    ) -> Result<Response> {
        self.connect()?;
        let done = self.exchange(method, path, headers, body, keep);
        match &done {
            Ok(response)
                if response
                    .header("connection")
                    .is_none_or(|value| !value.eq_ignore_ascii_case("close")) => {}
            _ => self.stream = None,
        }
        done.with_context(|| format!("{method} http://{}{path}", self.address))
    }

    fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
        keep: bool,
    ) -> Result<Response> {
        let stream = self.stream.as_mut().context("not connected")?;
        let line = &mut self.line;
        line.clear();
        write!(
            line,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: {MANIFEST}, */*\r\n",
            self.address
        )?;
        if let Some(value) = &self.authorization {
            write!(line, "Authorization: {value}\r\n")?;
        }
        for (name, value) in headers {
            write!(line, "{name}: {value}\r\n")?;
        }
        match body {
            Body::None => {
                if !matches!(method, "GET" | "HEAD") {
                    line.extend_from_slice(b"Content-Length: 0\r\n");
                }
                line.extend_from_slice(b"\r\n");
                stream.write_all(line)?;
            }
            Body::Bytes(bytes) => {
                write!(line, "Content-Length: {}\r\n\r\n", bytes.len())?;
                if bytes.len() <= 64 << 10 {
                    line.extend_from_slice(bytes);
                    stream.write_all(line)?;
                } else {
                    stream.write_all(line)?;
                    stream.write_all(bytes)?;
                }
            }
            Body::Sized(length, source) => {
                write!(line, "Content-Length: {length}\r\n\r\n")?;
                stream.write_all(line)?;
                source(&mut |piece| stream.write_all(piece))?;
            }
            Body::Chunked(source) => {
                line.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
                stream.write_all(line)?;
                // As Go's client does it: chunks of 32 KiB, each with its own line.
                source(&mut |piece| {
                    for chunk in piece.chunks(CHUNK) {
                        line.clear();
                        write!(line, "{:x}\r\n", chunk.len())?;
                        line.extend_from_slice(chunk);
                        line.extend_from_slice(b"\r\n");
                        stream.write_all(line)?;
                    }
                    Ok(())
                })?;
                stream.write_all(b"0\r\n\r\n")?;
            }
        }
        read_response(stream, &mut self.buffer, method == "HEAD", keep)
    }
}

/// Reads one answer; `buffer` is working space.
fn read_response(
    stream: &mut impl Read,
    buffer: &mut [u8],
    head_only: bool,
    keep: bool,
) -> Result<Response> {
    let mut filled = 0;
    let end = loop {
        let n = stream.read(&mut buffer[filled..])?;
        if n == 0 {
            bail!("the server closed the connection before its answer");
        }
        let from = filled.saturating_sub(3);
        filled += n;
        if let Some(at) = buffer[from..filled]
            .windows(4)
            .position(|w| w == b"\r\n\r\n")
        {
            break from + at + 4;
        }
        if filled > HEAD {
            bail!("a head of more than {HEAD} bytes");
        }
    };
    let head = buffer[..end].to_vec();
    let status = status(&head)?;
    let mut response = Response {
        status,
        head,
        body: Vec::new(),
        length: 0,
    };
    let rest = end..filled;
    if head_only || matches!(status, 204 | 304) {
        return Ok(response);
    }
    if let Some(length) = response.header("content-length") {
        let length: u64 = length.parse().context("Content-Length")?;
        let take = |bytes: &[u8], body: &mut Vec<u8>| {
            if keep {
                body.extend_from_slice(bytes);
            }
        };
        take(&buffer[rest.clone()], &mut response.body);
        let mut left = length
            .checked_sub(rest.len() as u64)
            .context("more bytes than Content-Length says")?;
        while left > 0 {
            let most = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let n = stream.read(&mut buffer[..most])?;
            if n == 0 {
                bail!("the body ended {left} bytes early");
            }
            take(&buffer[..n], &mut response.body);
            left -= n as u64;
        }
        response.length = length;
        return Ok(response);
    }
    if response
        .header("transfer-encoding")
        .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    {
        let mut chunks = Chunks {
            stream,
            buffer: buffer[rest].to_vec(),
        };
        while let Some(bytes) = chunks.next()? {
            response.length += bytes.len() as u64;
            if keep {
                response.body.extend_from_slice(&bytes);
            }
        }
        return Ok(response);
    }
    bail!("an answer of unknown length");
}

/// Chunked bodies are small here (lists, errors), so simplicity counts.
struct Chunks<'a, R> {
    stream: &'a mut R,
    buffer: Vec<u8>,
}

impl<R: Read> Chunks<'_, R> {
    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let end = loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                break at;
            }
            self.fill()?;
        };
        let line = std::str::from_utf8(&self.buffer[..end])?;
        let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
            .with_context(|| format!("chunk size {line:?}"))?;
        let whole = end + 2 + size + 2;
        while self.buffer.len() < whole {
            self.fill()?;
        }
        let bytes = self.buffer[end + 2..end + 2 + size].to_vec();
        self.buffer.drain(..whole);
        Ok((size > 0).then_some(bytes))
    }

    fn fill(&mut self) -> Result<()> {
        let mut more = [0; 16 << 10];
        let n = self.stream.read(&mut more)?;
        if n == 0 {
            bail!("the chunked body ended early");
        }
        self.buffer.extend_from_slice(&more[..n]);
        Ok(())
    }
}

fn status(head: &[u8]) -> Result<u16> {
    std::str::from_utf8(head)
        .ok()
        .and_then(|text| text.strip_prefix("HTTP/1.1 "))
        .and_then(|text| text.get(..3))
        .and_then(|digits| digits.parse().ok())
        .with_context(|| format!("no HTTP/1.1 answer: {:?}", String::from_utf8_lossy(head)))
}

fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(head).ok()?;
    text.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes in pieces of one, two, three… so that every border is met.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            self.1 += 1;
            let n = self.1.min(self.0.len()).min(to.len());
            to[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn read(text: &str, head_only: bool) -> Result<Response> {
        let mut buffer = vec![0; BUFFER];
        read_response(&mut Slow(text.as_bytes(), 0), &mut buffer, head_only, true)
    }

    #[test]
    fn a_body_with_a_length_is_read_across_borders() {
        let response = read(
            "HTTP/1.1 200 OK\r\nContent-Length: 11\r\nX-A:  b \r\n\r\nhello world",
            false,
        )
        .unwrap();
        assert_eq!(
            (response.status, response.length, &response.body[..]),
            (200, 11, &b"hello world"[..])
        );
        assert_eq!(response.header("x-a"), Some("b"));
        assert_eq!(response.header("x-c"), None);
    }

    #[test]
    fn a_chunked_body_is_put_together() {
        let response = read(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n",
            false,
        )
        .unwrap();
        assert_eq!(response.body, b"hello world");
    }

    #[test]
    fn the_answer_to_head_has_no_body() {
        let response = read("HTTP/1.1 404 Not Found\r\nContent-Length: 99\r\n\r\n", true).unwrap();
        assert_eq!((response.status, response.length), (404, 0));
        let error = response.expect(200, "it").err().unwrap().to_string();
        assert!(error.contains("404"), "{error}");
    }

    #[test]
    fn broken_answers_are_errors() {
        for text in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
            "HTTP/1.1 200 OK\r\n\r\n",
        ] {
            assert!(read(text, false).is_err(), "{text:?}");
        }
    }
}
