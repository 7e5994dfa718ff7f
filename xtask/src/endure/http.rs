//! A client of one connection: blocking, keep-alive, and honest about what it has not heard.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// A server that says nothing for so long hangs; a killed one closes the connection at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is sent after the headers.
#[derive(Clone, Copy)]
pub(crate) enum Body<'a> {
    /// Nothing.
    None,
    /// With its length announced.
    Whole(&'a [u8]),
    /// In pieces of this many bytes, the length unknown to the server.
    Streamed(&'a [u8], usize),
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// The first header of this name, which is in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// An open connection.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Opens one to this machine.
    pub(crate) fn open(port: u16) -> io::Result<Connection> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Connection {
            stream: BufReader::with_capacity(64 << 10, stream),
        })
    }

    /// Sends a request and waits for the whole answer. After an error nobody knows what was done.
    pub(crate) fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Body<'_>,
    ) -> io::Result<Answer> {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match body {
            Body::None if method == "GET" || method == "HEAD" => {}
            Body::None => head.push_str("Content-Length: 0\r\n"),
            Body::Whole(bytes) => head.push_str(&format!("Content-Length: {}\r\n", bytes.len())),
            Body::Streamed(..) => head.push_str("Transfer-Encoding: chunked\r\n"),
        }
        head.push_str("\r\n");
        let mut first = head.into_bytes();
        let stream = self.stream.get_mut();
        match body {
            Body::None => stream.write_all(&first)?,
            Body::Whole(bytes) if bytes.len() <= 64 << 10 => {
                first.extend_from_slice(bytes);
                stream.write_all(&first)?;
            }
            Body::Whole(bytes) => {
                stream.write_all(&first)?;
                stream.write_all(bytes)?;
            }
            Body::Streamed(bytes, piece) => {
                stream.write_all(&first)?;
                for piece in bytes.chunks(piece.max(1)) {
                    let mut framed = format!("{:x}\r\n", piece.len()).into_bytes();
                    framed.extend_from_slice(piece);
                    framed.extend_from_slice(b"\r\n");
                    stream.write_all(&framed)?;
                }
                stream.write_all(b"0\r\n\r\n")?;
            }
        }
        self.receive(method == "HEAD")
    }

    fn receive(&mut self, bodiless: bool) -> io::Result<Answer> {
        let status = self.line()?;
        let status: u16 = status
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| io::Error::other(format!("not a status line: {status:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':') {
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        let mut answer = Answer {
            status,
            headers,
            body: Vec::new(),
        };
        if bodiless || matches!(status, 204 | 304) {
            return Ok(answer);
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = self.line()?;
                let size = usize::from_str_radix(size.trim(), 16)
                    .map_err(|_| io::Error::other(format!("not a chunk size: {size:?}")))?;
                self.exact(size, &mut answer.body)?;
                self.line()?;
                if size == 0 {
                    return Ok(answer);
                }
            }
        }
        let length = answer
            .header("content-length")
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| io::Error::other("an answer without a length"))?;
        self.exact(length, &mut answer.body)?;
        Ok(answer)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    fn exact(&mut self, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
        let before = body.len();
        body.reserve(length);
        (&mut self.stream).take(length as u64).read_to_end(body)?;
        if body.len() - before < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}

/// Whether nothing came for too long, which a killed server is no excuse for.
pub(crate) fn is_hang(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

/// Whether the other side ended the connection.
pub(crate) fn is_over(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that reads a request's head and says this.
    fn saying(text: &'static str) -> u16 {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
        });
        port
    }

    #[test]
    fn an_answer_that_was_cut_is_no_answer() {
        let get = |text| {
            let mut connection = Connection::open(saying(text)).unwrap();
            connection.send("GET", "/", &[], Body::None)
        };
        let whole = get("HTTP/1.1 200 OK\r\nX-A: b\r\nContent-Length: 3\r\n\r\nabc").unwrap();
        assert_eq!(
            (whole.status, whole.header("x-a"), &whole.body[..]),
            (200, Some("b"), &b"abc"[..])
        );
        let chunked =
            get("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
        assert_eq!(chunked.unwrap().body, b"abc");
        for cut in [
            "",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ] {
            assert!(get(cut).is_err(), "{cut:?}");
        }
    }
}
