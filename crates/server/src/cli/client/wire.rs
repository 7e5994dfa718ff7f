//! HTTP/1.1 on one connection for one request, in the clear, over TLS or over a Unix socket.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};

use super::place::place;
use crate::cli::exit::{Exit, Failure};

/// Longest answer: a page of a thousand entries is far below.
const LARGEST: u64 = 16 << 20;
/// For connecting.
const CONNECT: Duration = Duration::from_secs(10);
/// For each read: a deletion of a large repository takes its time before it answers.
const PATIENCE: Duration = Duration::from_secs(600);

/// A request.
pub(super) struct Ask<'a> {
    pub(super) method: &'a str,
    /// With its query, encoded.
    pub(super) path: &'a str,
    pub(super) body: Option<Body>,
}

/// What a request carries.
pub(super) enum Body {
    Json(String),
    Form(String),
}

impl Body {
    fn text(&self) -> (&str, &'static str) {
        match self {
            Self::Json(text) => (text, "application/json"),
            Self::Form(text) => (text, "application/x-www-form-urlencoded"),
        }
    }
}

/// A registry elsewhere.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    /// As people name it.
    pub(super) url: &'a str,
    /// Certificate of the authority, if it is none that this machine trusts.
    pub(super) authority: Option<&'a Path>,
}

/// How much, and how long.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Longest answer, in bytes, with its head.
    pub(super) largest: u64,
    /// From the first byte sent to the last one read; without it, each read may take [`PATIENCE`].
    pub(super) whole: Option<Duration>,
}

impl Bounds {
    /// Of the management API.
    pub(super) const MANAGEMENT: Self = Self {
        largest: LARGEST,
        whole: None,
    };
}

/// An answer, as far as commands look at it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Headers,
    pub(super) body: Vec<u8>,
}

/// The lines of an answer's head.
#[derive(Debug, Default)]
pub(super) struct Headers(String);

impl Headers {
    /// The first of this name.
    pub(super) fn get(&self, wanted: &str) -> Option<&str> {
        self.0.split("\r\n").skip(1).find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    }
}

/// Asks a registry. Redirects are answers like others: nobody follows them, since a secret may be in the request.
pub(super) fn remote(
    target: Target<'_>,
    authorization: Option<&str>,
    ask: &Ask<'_>,
    bounds: Bounds,
) -> Result<Answer, Failure> {
    let url = target.url;
    let place = place(url).map_err(|text| Failure::text(Exit::Usage, text))?;
    let told =
        |error: Error| Failure::text(Exit::Failure, format!("{url} does not answer: {error}"));
    let stream = connect(&place.host, place.port, bounds.whole).map_err(told)?;
    let headers: Vec<_> = authorization
        .map(|value| ("Authorization", value))
        .into_iter()
        .collect();
    let answer = match place.tls {
        false => exchange(stream, &place.authority, ask, &headers, bounds.largest),
        true => {
            let config = tls(target.authority)?;
            let name = ServerName::try_from(place.host.clone())
                .map_err(|error| Failure::text(Exit::Usage, format!("{url}: {error}")))?;
            let session = ClientConnection::new(Arc::new(config), name)
                .map_err(|error| told(Error::other(error)))?;
            let stream = StreamOwned::new(session, stream);
            exchange(stream, &place.authority, ask, &headers, bounds.largest)
        }
    };
    answer.map_err(|error| {
        let help = match error.kind() {
            ErrorKind::InvalidData if place.tls => {
                "\n  help: for a certificate of its own name the authority's file: wharf login --authority FILE"
            }
            _ => "",
        };
        let text = format!("{url} does not answer: {error}{help}");
        Failure::new(Exit::Failure, Unanswered(text))
    })
}

/// No answer came: what was asked for may be done, or not, or in part.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::cli) struct Unanswered(String);

/// A connection that ends in time.
struct Timed {
    stream: TcpStream,
    until: Option<Instant>,
}

impl Timed {
    /// For the next read or write.
    fn left(&self) -> Result<Duration, Error> {
        let Some(until) = self.until else {
            return Ok(PATIENCE);
        };
        let left = until.saturating_duration_since(Instant::now());
        match left.is_zero() {
            true => Err(late()),
            false => Ok(left),
        }
    }
}

fn late() -> Error {
    Error::new(ErrorKind::TimedOut, "it took too long")
}

/// A socket's time limit is told as "would block".
fn in_time<T>(done: Result<T, Error>) -> Result<T, Error> {
    done.map_err(|error| match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => late(),
        _ => error,
    })
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        in_time(self.stream.read(buffer))
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        in_time(self.stream.write(bytes))
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.stream.flush()
    }
}

fn connect(host: &str, port: u16, whole: Option<Duration>) -> Result<Timed, Error> {
    let until = whole.map(|whole| Instant::now() + whole);
    let mut last = Error::new(ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.unwrap_or(CONNECT).min(CONNECT);
        if left.is_zero() {
            return Err(late());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(Timed { stream, until }),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Trusts the authority of the context, or else those that this machine trusts.
fn tls(authority: Option<&Path>) -> Result<ClientConfig, Failure> {
    let mut roots = RootCertStore::empty();
    match authority {
        Some(file) => {
            let bad = |error: &dyn std::fmt::Display| {
                let text = format!(
                    "{} holds no certificate in PEM form: {error}",
                    file.display()
                );
                Failure::text(Exit::Usage, text)
            };
            let certificates = CertificateDer::pem_file_iter(file).map_err(|error| bad(&error))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| bad(&error))?;
                roots.add(certificate).map_err(|error| bad(&error))?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(Exit::Failure, error))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Sends a request and reads its answer to the end.
pub(super) fn exchange(
    mut stream: impl Read + Write,
    host: &str,
    ask: &Ask<'_>,
    headers: &[(&str, &str)],
    largest: u64,
) -> Result<Answer, Error> {
    let mut head = format!(
        "{} {} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\nUser-Agent: wharf/{}\r\nConnection: close\r\n",
        ask.method,
        ask.path,
        env!("CARGO_PKG_VERSION")
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = ask.body.as_ref().map(Body::text);
    if body.is_some() || ask.method != "GET" {
        let length = body.map_or(0, |(text, _)| text.len());
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    if let Some((_, kind)) = body {
        head.push_str(&format!("Content-Type: {kind}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.map_or("", |(text, _)| text).as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.take(largest).read_to_end(&mut answer) {
        // Some proxies end TLS without a word; whether all came is seen below.
        Err(error) if error.kind() != ErrorKind::UnexpectedEof => return Err(error),
        _ => {}
    }
    if answer.len() as u64 == largest {
        let text = format!("the answer is larger than {} KiB", largest >> 10);
        return Err(Error::other(text));
    }
    read(&answer)
}

/// Reads a whole answer. Proxies may send it in chunks.
fn read(answer: &[u8]) -> Result<Answer, Error> {
    let torn = || Error::new(ErrorKind::UnexpectedEof, "the answer broke off");
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or_else(torn)?;
    let (head, body) = (&answer[..end], &answer[end + 4..]);
    let head = std::str::from_utf8(head).map_err(|_| torn())?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status
        .and_then(|status| status.parse().ok())
        .ok_or_else(torn)?;
    let headers = Headers(head.to_owned());
    let chunked = headers
        .get("transfer-encoding")
        .is_some_and(|how| how.eq_ignore_ascii_case("chunked"));
    let body = match (chunked, headers.get("content-length")) {
        (true, _) => unchunk(body).ok_or_else(torn)?,
        (false, Some(length)) => {
            let length: usize = length.parse().map_err(|_| torn())?;
            body.get(..length).ok_or_else(torn)?.to_vec()
        }
        (false, None) => body.to_vec(),
    };
    Ok(Answer {
        status,
        headers,
        body,
    })
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let line = std::str::from_utf8(&rest[..end]).ok()?;
        let size = line.split(';').next()?.trim();
        let size = usize::from_str_radix(size, 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_in_every_framing_and_torn_ones_refused() {
        let body = |text: &str| read(text.as_bytes()).map(|answer| (answer.status, answer.body));
        let good = Some((200, b"hello".to_vec()));
        assert_eq!(
            body("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").ok(),
            good
        );
        assert_eq!(body("HTTP/1.1 200 OK\r\n\r\nhello").ok(), good);
        assert_eq!(
            body("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=1\r\nllo\r\n0\r\n\r\n").ok(),
            good
        );
        for torn in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
            "nonsense\r\n\r\n",
        ] {
            assert!(body(torn).is_err(), "{torn}");
        }
    }
}
