//! Answers of HTTP/1.1 as they stand on the wire, read without forgiving anything.
//!
//! Strict on purpose: a length that is off by one, a second `Content-Length` or a stray byte is a finding.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest wait for an answer. The server itself waits less for anything that a target does; a long run may be halted for
/// minutes.
const PATIENCE: Duration = Duration::from_secs(600);

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The only header of that name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.all(name);
        let first = all.next();
        assert!(all.next().is_none(), "{name} is there twice: {self:?}");
        first
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers
            .iter()
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn closes(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Takes one answer off the front and tells its length; `None` when it has not ended. `bare` says that its body is not
/// sent, as after HEAD.
pub(super) fn parse(bytes: &[u8], bare: bool) -> Result<Option<(Answer, usize)>, String> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| "a head that is no text")?;
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let status = line
        .strip_prefix("HTTP/1.1 ")
        .or_else(|| line.strip_prefix("HTTP/1.0 "))
        .and_then(|rest| rest.split(' ').next())
        .filter(|code| code.len() == 3)
        .and_then(|code| code.parse::<u16>().ok())
        .filter(|code| (100..600).contains(code))
        .ok_or_else(|| format!("no status line: {line:?}"))?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line
            .split_once(": ")
            .ok_or_else(|| format!("no header: {line:?}"))?;
        let token = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if name.is_empty()
            || !name.bytes().all(token)
            || value.bytes().any(|b| b < b' ' || b == 0x7f)
        {
            return Err(format!("a malformed header: {line:?}"));
        }
        headers.push((name.to_owned(), value.to_owned()));
    }
    let mut answer = Answer {
        status,
        headers,
        body: Vec::new(),
    };
    let from = end + 4;
    if answer.all("transfer-encoding").next().is_some() {
        return Err(format!(
            "every answer has a known length, but not this one: {head}"
        ));
    }
    let mut lengths = answer.all("content-length");
    let length = lengths.next().map(str::parse::<usize>);
    if lengths.next().is_some() {
        return Err(format!("two lengths: {head}"));
    }
    drop(lengths);
    let empty = bare || status < 200 || status == 204 || status == 304;
    let length = match length {
        _ if empty => 0,
        Some(Ok(length)) => length,
        Some(Err(_)) | None => return Err(format!("no length: {head}")),
    };
    match bytes.get(from..from + length) {
        Some(body) => answer.body = body.to_vec(),
        None => return Ok(None),
    }
    Ok(Some((answer, from + length)))
}

/// A connection as a client holds it.
pub(super) struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(addr: SocketAddr) -> Connection {
        let stream = TcpStream::connect(addr).await.expect("connect");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Connection {
            stream,
            unread: Vec::new(),
        }
    }

    /// Sends bytes, and with `last` that no more will come. That the server has closed shows when reading.
    pub(super) async fn send(&mut self, bytes: &[u8], last: bool) {
        let sent = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        let _: io::Result<()> = sent.expect("the server takes the bytes or closes");
        if last {
            let _: io::Result<()> = self.stream.shutdown().await;
        }
    }

    /// The next answer that is final, `None` when the server closes without one.
    pub(super) async fn answer(&mut self, bare: bool) -> Option<Answer> {
        loop {
            match parse(&self.unread, bare).unwrap_or_else(|wrong| panic!("{wrong}")) {
                Some((answer, length)) => {
                    self.unread.drain(..length);
                    if answer.status >= 200 {
                        return Some(answer);
                    }
                }
                None => {
                    if !self.fill().await {
                        assert!(
                            self.unread.is_empty(),
                            "an answer breaks off: {}",
                            String::from_utf8_lossy(&self.unread)
                        );
                        return None;
                    }
                }
            }
        }
    }

    /// All that comes until the server closes.
    pub(super) async fn rest(mut self) -> Vec<u8> {
        while self.fill().await {}
        self.unread
    }

    async fn fill(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.unread)).await;
        read.expect("an answer, or the end of the connection")
            .is_ok_and(|n| n > 0)
    }
}
