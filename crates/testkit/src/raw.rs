//! Bytes on a socket, for what no well-behaved client says: smuggling forms, pipelines, wrong lengths.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest wait for a response.
const PATIENCE: Duration = Duration::from_secs(30);

/// A plain connection with what was read from it and not yet used.
pub struct RawConnection {
    stream: TcpStream,
    unread: Vec<u8>,
}

/// A response as it stood on the wire.
#[derive(Clone, Debug)]
pub struct RawResponse {
    /// The status line and all headers, with line ends.
    pub head: String,
    /// The status.
    pub status: u16,
    /// The body by `Content-Length`; chunked bodies are decoded.
    pub body: Vec<u8>,
}

impl RawResponse {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

impl RawConnection {
    /// Connects.
    pub async fn open(addr: SocketAddr) -> RawConnection {
        let stream = TcpStream::connect(addr).await.expect("connect");
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        RawConnection {
            stream,
            unread: Vec::new(),
        }
    }

    /// Writes all of it; an error means that the server closed, which reading will tell.
    pub async fn write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// Says that nothing more will come.
    pub async fn finish(&mut self) {
        // The server may have closed already, then there is nobody to tell.
        let _ = self.stream.shutdown().await;
    }

    /// Reads one response, none when the server closed without one. `to_head` says that it answers a HEAD.
    pub async fn read(&mut self, to_head: bool) -> Option<RawResponse> {
        tokio::time::timeout(PATIENCE, self.read_one(to_head))
            .await
            .expect("no response in time")
    }

    /// Everything until the server closes.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        while tokio::time::timeout(PATIENCE, self.fill())
            .await
            .expect("the connection stays open")
        {}
        std::mem::take(&mut self.unread)
    }

    /// Whether the server closes within that time without saying anything more.
    pub async fn closes_within(&mut self, time: Duration) -> bool {
        self.unread.is_empty() && matches!(tokio::time::timeout(time, self.fill()).await, Ok(false))
    }

    /// Reads more; false at the end, a reset included.
    async fn fill(&mut self) -> bool {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer).await {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.unread.extend_from_slice(&buffer[..n]);
                true
            }
        }
    }

    /// Takes up to and with `end` off the front.
    async fn take_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self
                .unread
                .windows(end.len())
                .position(|window| window == end)
            {
                return Some(self.unread.drain(..at + end.len()).collect());
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    async fn take_exact(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.unread.len() < length {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.unread.drain(..length).collect())
    }

    async fn read_one(&mut self, to_head: bool) -> Option<RawResponse> {
        let head = String::from_utf8_lossy(&self.take_until(b"\r\n\r\n").await?).into_owned();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut response = RawResponse {
            head,
            status,
            body: Vec::new(),
        };
        if to_head || status == 204 || status == 304 || status < 200 {
            return Some(response);
        }
        if response
            .header("transfer-encoding")
            .is_some_and(|v| v.eq_ignore_ascii_case("chunked"))
        {
            loop {
                let line = self.take_until(b"\r\n").await?;
                let size =
                    usize::from_str_radix(std::str::from_utf8(&line).ok()?.trim(), 16).ok()?;
                let chunk = self.take_exact(size + 2).await?;
                if size == 0 {
                    return Some(response);
                }
                response.body.extend_from_slice(&chunk[..size]);
            }
        }
        let length = response.header("content-length")?.parse().ok()?;
        response.body = self.take_exact(length).await?;
        Some(response)
    }
}
