//! A client on one connection that is kept open: enough HTTP/1.1 to ask a server that this run started.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// A server that is silent for this long has hung.
const PATIENCE: Duration = Duration::from_secs(120);

/// An answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// Fails unless the status is `wanted`.
    pub(super) fn expect(self, wanted: u16) -> Result<Answer> {
        if self.status != wanted {
            let body = String::from_utf8_lossy(&self.body);
            bail!("answered {} instead of {wanted}: {body}", self.status);
        }
        Ok(self)
    }
}

/// A connection.
pub(super) struct Client {
    address: SocketAddr,
    stream: BufReader<TcpStream>,
    /// Sent with each request, unless it is empty.
    pub(super) authorization: String,
    /// The server said that it ends this connection: it serves a bounded number of requests on one.
    ends: bool,
}

impl Client {
    pub(super) fn connect(address: SocketAddr) -> Result<Client> {
        Ok(Client {
            address,
            stream: open(address)?,
            authorization: String::new(),
            ends: false,
        })
    }

    pub(super) fn get(&mut self, path: &str) -> Result<Answer> {
        self.send("GET", path, "", &[])
    }

    /// Sends a request whole and reads its answer whole.
    pub(super) fn send(
        &mut self,
        method: &str,
        path: &str,
        kind: &str,
        body: &[u8],
    ) -> Result<Answer> {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: grow\r\n");
        if !self.authorization.is_empty() {
            request += &format!("Authorization: {}\r\n", self.authorization);
        }
        if !kind.is_empty() {
            request += &format!("Content-Type: {kind}\r\n");
        }
        if !matches!(method, "GET" | "HEAD") {
            request += &format!("Content-Length: {}\r\n", body.len());
        }
        request += "\r\n";
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(body);
        if self.ends {
            self.stream = open(self.address)?;
            self.ends = false;
        }
        self.stream.get_mut().write_all(&bytes)?;
        self.answer(method == "HEAD")
            .with_context(|| format!("{method} {path}"))
    }

    fn answer(&mut self, is_head: bool) -> Result<Answer> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .with_context(|| format!("no status: {line:?}"))?;
        let mut length = 0;
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.parse()?;
            } else if name.eq_ignore_ascii_case("connection") {
                self.ends = value.eq_ignore_ascii_case("close");
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                bail!("an answer without length");
            }
        }
        let mut body = vec![0; if is_head { 0 } else { length }];
        self.stream.read_exact(&mut body)?;
        Ok(Answer { status, body })
    }
}

fn open(address: SocketAddr) -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address).with_context(|| format!("connecting {address}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(BufReader::with_capacity(64 << 10, stream))
}
