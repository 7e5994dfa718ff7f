//! An HTTP/2 client for one stream after another: as much of RFC 9113 as pulling a blob needs.
//!
//! Its windows are those of Go's client, which docker and containerd use: 4 MiB per stream, 1 GiB per connection, given
//! back as they are read. Header blocks are not decoded but for the status, which servers send from the static table.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};

use super::site::Site;
use super::tls;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// Bytes that a stream may send before it waits for us.
const STREAM_WINDOW: u32 = 4 << 20;
/// The same for the connection.
const CONNECTION_WINDOW: u32 = 1 << 30;
/// Bytes read before the stream's window is given back.
const REFRESH: u32 = STREAM_WINDOW / 2;

/// A connection.
pub(crate) struct Connection<S> {
    stream: S,
    authority: String,
    next: u32,
    /// Read from the connection, not given back yet.
    taken: u32,
    buffer: Vec<u8>,
    from: usize,
    to: usize,
}

/// A connection with TLS to a server of this run.
pub(crate) fn connect(
    site: &Site,
) -> Result<Connection<rustls::StreamOwned<rustls::ClientConnection, TcpStream>>> {
    let config = tls::config(&site.ca(), &[b"h2"])?;
    let socket = TcpStream::connect(site.address)?;
    socket.set_nodelay(true)?;
    let stream = tls::connect(&Arc::clone(&config), socket)?;
    ensure!(
        stream.conn.alpn_protocol() == Some(b"h2".as_slice()),
        "{} does not speak HTTP/2",
        site.kind.name()
    );
    Connection::open(stream, &site.address.to_string())
}

impl<S: Read + Write> Connection<S> {
    fn open(stream: S, authority: &str) -> Result<Connection<S>> {
        let mut connection = Connection {
            stream,
            authority: authority.to_owned(),
            next: 1,
            taken: 0,
            buffer: vec![0; 256 << 10],
            from: 0,
            to: 0,
        };
        let mut hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let mut settings = Vec::new();
        // No push, and the stream's window.
        for (name, value) in [(2_u16, 0_u32), (4, STREAM_WINDOW)] {
            settings.extend_from_slice(&name.to_be_bytes());
            settings.extend_from_slice(&value.to_be_bytes());
        }
        frame(&mut hello, SETTINGS, 0, 0, &settings);
        frame(
            &mut hello,
            WINDOW_UPDATE,
            0,
            0,
            &CONNECTION_WINDOW.to_be_bytes(),
        );
        connection.stream.write_all(&hello)?;
        Ok(connection)
    }

    /// Pulls `path` and throws it away; gives its length. Anything but 200 is an error.
    pub(crate) fn get(&mut self, path: &str) -> Result<u64> {
        let id = self.next;
        self.next += 2;
        // :method GET and :scheme https from the static table, the others written out.
        let mut block = vec![0x82, 0x87];
        for (index, value) in [(4_u8, path), (1, self.authority.as_str())] {
            block.push(index);
            length(&mut block, value.len());
            block.extend_from_slice(value.as_bytes());
        }
        let mut request = Vec::new();
        frame(&mut request, HEADERS, END_STREAM | END_HEADERS, id, &block);
        self.stream.write_all(&request)?;
        let (mut body, mut unread, mut answered) = (0, 0, false);
        loop {
            self.need(9)?;
            let head = &self.buffer[self.from..self.from + 9];
            let size = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let (kind, flags) = (head[3], head[4]);
            let of = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            self.from += 9;
            if kind == DATA {
                self.skip(size)?;
                body += u64::from(size);
                unread += size;
                self.taken += size;
                if flags & END_STREAM != 0 {
                    ensure!(answered, "data before the head");
                    return Ok(body);
                }
                if unread >= REFRESH {
                    let mut update = Vec::new();
                    frame(&mut update, WINDOW_UPDATE, 0, of, &unread.to_be_bytes());
                    if self.taken >= CONNECTION_WINDOW / 2 {
                        frame(&mut update, WINDOW_UPDATE, 0, 0, &self.taken.to_be_bytes());
                        self.taken = 0;
                    }
                    self.stream.write_all(&update)?;
                    unread = 0;
                }
                continue;
            }
            self.need(size as usize)?;
            let payload = self.buffer[self.from..self.from + size as usize].to_vec();
            self.from += size as usize;
            match kind {
                HEADERS if !answered => {
                    ensure!(status(&payload) == Some(200), "not 200: {payload:02x?}");
                    answered = true;
                    if flags & END_STREAM != 0 {
                        return Ok(body);
                    }
                }
                SETTINGS if flags & ACK == 0 => self.reply(SETTINGS, &[])?,
                PING if flags & ACK == 0 => self.reply(PING, &payload)?,
                RST_STREAM => bail!("the stream was reset: {payload:02x?}"),
                GOAWAY => bail!("the connection ends: {payload:02x?}"),
                _ => {}
            }
        }
    }

    fn reply(&mut self, kind: u8, payload: &[u8]) -> Result<()> {
        let mut text = Vec::new();
        frame(&mut text, kind, ACK, 0, payload);
        Ok(self.stream.write_all(&text)?)
    }

    /// Reads until so many bytes are held.
    fn need(&mut self, bytes: usize) -> Result<()> {
        while self.to - self.from < bytes {
            if self.from > 0 {
                self.buffer.copy_within(self.from..self.to, 0);
                (self.from, self.to) = (0, self.to - self.from);
            }
            let n = self.stream.read(&mut self.buffer[self.to..])?;
            ensure!(n > 0, "the server closed the connection");
            self.to += n;
        }
        Ok(())
    }

    fn skip(&mut self, bytes: u32) -> Result<()> {
        let mut left = bytes as usize;
        loop {
            let held = left.min(self.to - self.from);
            self.from += held;
            left -= held;
            if left == 0 {
                return Ok(());
            }
            (self.from, self.to) = (0, self.stream.read(&mut self.buffer)?);
            ensure!(self.to > 0, "the body ended early");
        }
    }
}

fn frame(to: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    to.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    to.extend_from_slice(&[kind, flags]);
    to.extend_from_slice(&stream.to_be_bytes());
    to.extend_from_slice(payload);
}

/// The length of a string as HPACK writes it: seven bits, then seven at a time.
fn length(to: &mut Vec<u8>, length: usize) {
    if length < 127 {
        to.push(length as u8);
        return;
    }
    to.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        to.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    to.push(rest as u8);
}

/// The status, when it is one of those in the static table; a change of the table's size may stand in front.
fn status(block: &[u8]) -> Option<u16> {
    let mut at = 0;
    while block.get(at)? & 0xe0 == 0x20 {
        if block[at] & 0x1f == 0x1f {
            while block.get(at + 1)? & 0x80 != 0 {
                at += 1;
            }
            at += 1;
        }
        at += 1;
    }
    [200, 204, 206, 304, 400, 404, 500]
        .get(usize::from(block.get(at)?.checked_sub(0x88)?))
        .copied()
}

/// A blob by HTTP/2, as a figure's step.
pub(crate) fn pull<S: Read + Write>(
    connection: &mut Connection<S>,
    path: &str,
    size: u64,
) -> Result<()> {
    let got = connection.get(path).with_context(|| path.to_owned())?;
    ensure!(got == size, "{path}: {got} bytes instead of {size}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server said, and what it was told.
    struct Script(std::io::Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Script {
        fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
            let n = to.len().min(7);
            self.0.read(&mut to[..n])
        }
    }

    impl Write for Script {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.1.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn get(frames: &[(u8, u8, u32, &[u8])]) -> (Result<u64>, Vec<u8>) {
        let mut said = Vec::new();
        for (kind, flags, stream, payload) in frames {
            frame(&mut said, *kind, *flags, *stream, payload);
        }
        let script = Script(std::io::Cursor::new(said), Vec::new());
        let mut connection = Connection::open(script, "h").unwrap();
        let got = connection.get("/x");
        (got, connection.stream.1)
    }

    #[test]
    fn a_body_is_counted_and_a_ping_answered() {
        let (got, told) = get(&[
            (SETTINGS, 0, 0, &[]),
            (HEADERS, END_HEADERS, 1, &[0x20, 0x88, 1, 2, 3]),
            (PING, 0, 0, b"12345678"),
            (DATA, 0, 1, &[0; 1000]),
            (DATA, END_STREAM, 1, &[0; 24]),
        ]);
        assert_eq!(got.unwrap(), 1024);
        let mut pong = Vec::new();
        frame(&mut pong, PING, ACK, 0, b"12345678");
        assert!(told.windows(pong.len()).any(|w| w == pong));
    }

    #[test]
    fn the_window_is_given_back() {
        let piece = vec![0; 16 << 10];
        let mut frames = vec![(HEADERS, END_HEADERS, 1, &[0x88][..])];
        frames.extend((0..REFRESH >> 14).map(|_| (DATA, 0, 1, &piece[..])));
        frames.push((DATA, END_STREAM, 1, &[]));
        let (got, told) = get(&frames);
        assert_eq!(got.unwrap(), u64::from(REFRESH));
        let mut update = Vec::new();
        frame(&mut update, WINDOW_UPDATE, 0, 1, &REFRESH.to_be_bytes());
        assert!(told.ends_with(&update));
    }

    #[test]
    fn other_endings_are_errors() {
        assert!(get(&[(HEADERS, END_HEADERS, 1, &[0x8d])]).0.is_err());
        assert!(get(&[(RST_STREAM, 0, 1, &[0, 0, 0, 2])]).0.is_err());
        assert!(
            get(&[(HEADERS, END_HEADERS, 1, &[0x88]), (DATA, 0, 1, b"x")])
                .0
                .is_err()
        );
    }

    #[test]
    fn lengths_and_statuses() {
        let mut text = Vec::new();
        length(&mut text, 126);
        length(&mut text, 127 + 300);
        assert_eq!(text, [126, 127, 0xac, 0x02]);
        assert_eq!(status(&[0x3f, 0xe1, 0x1f, 0x88]), Some(200));
        assert_eq!(status(&[0x8d]), Some(404));
        assert_eq!(status(&[0x40]), None);
        assert_eq!(status(&[]), None);
    }
}
