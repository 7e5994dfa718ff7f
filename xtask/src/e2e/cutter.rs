//! A TCP proxy that breaks one connection in the middle of a transfer: what a bad network does to a big layer.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::Result;

/// Which bytes are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// What the server sends: a pull.
    Down,
    /// What the client sends: a push.
    Up,
}

/// The running proxy; it ends when dropped.
pub(crate) struct Cutter {
    /// Where clients connect to, `host:port`.
    pub(crate) address: String,
    shared: Arc<Shared>,
}

struct Shared {
    target: String,
    direction: Direction,
    after: u64,
    cut: AtomicUsize,
    stop: AtomicBool,
    /// `Range` and `Content-Range` headers of requests, as they were seen.
    ranges: Mutex<Vec<String>>,
}

impl Cutter {
    /// Proxies to `target`; the first connection that carries more than `after` bytes in `direction` is broken.
    pub(crate) fn start(target: &str, direction: Direction, after: u64) -> Result<Cutter> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            direction,
            after,
            cut: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            ranges: Mutex::new(Vec::new()),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.stop.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(server) = TcpStream::connect(&accepting.target) else {
                    continue;
                };
                let (Ok(client_2), Ok(server_2)) = (client.try_clone(), server.try_clone()) else {
                    continue;
                };
                let (up, down) = (Arc::clone(&accepting), Arc::clone(&accepting));
                std::thread::spawn(move || up.pump(client, server, Direction::Up));
                std::thread::spawn(move || down.pump(server_2, client_2, Direction::Down));
            }
        });
        Ok(Cutter { address, shared })
    }

    /// How many connections were broken: 0 or 1.
    pub(crate) fn cuts(&self) -> usize {
        self.shared.cut.load(Ordering::Relaxed)
    }

    /// The ranges that clients asked for or announced.
    pub(crate) fn ranges(&self) -> Vec<String> {
        self.shared
            .ranges
            .lock()
            .map(|r| r.clone())
            .unwrap_or_default()
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the accepting thread up.
        let _ = TcpStream::connect(&self.address);
    }
}

impl Shared {
    fn pump(&self, mut from: TcpStream, mut to: TcpStream, direction: Direction) {
        let mut buffer = vec![0; 64 << 10];
        let mut carried = 0;
        while let Ok(n) = from.read(&mut buffer) {
            if n == 0 {
                break;
            }
            if direction == Direction::Up {
                self.look(&buffer[..n]);
            }
            carried += n as u64;
            let cuts = direction == self.direction
                && carried > self.after
                && self
                    .cut
                    .compare_exchange(0, 1, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok();
            if cuts || to.write_all(&buffer[..n]).is_err() {
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
                return;
            }
        }
        let _ = to.shutdown(Shutdown::Write);
    }

    /// Notes range headers; only the start of a request can hold them, so a split header is a rare miss.
    fn look(&self, bytes: &[u8]) {
        let starts = [&b"GET "[..], b"PUT ", b"PATCH ", b"HEAD "]
            .iter()
            .any(|method| bytes.starts_with(method));
        if !starts {
            return;
        }
        let head = String::from_utf8_lossy(&bytes[..bytes.len().min(8 << 10)]).to_lowercase();
        for line in head.split("\r\n").take_while(|line| !line.is_empty()) {
            if (line.starts_with("range:") || line.starts_with("content-range:"))
                && let Ok(mut ranges) = self.ranges.lock()
            {
                ranges.push(line.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_connection_is_cut_and_the_next_is_not() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in server.incoming().flatten() {
                let mut stream = stream;
                let mut request = [0; 64];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(&vec![7; 1 << 20]);
            }
        });
        let cutter = Cutter::start(&target, Direction::Down, 100_000).unwrap();
        let fetch = || {
            let mut stream = TcpStream::connect(&cutter.address).unwrap();
            stream
                .write_all(b"GET / HTTP/1.1\r\nRange: bytes=5-\r\n\r\n")
                .unwrap();
            let mut body = Vec::new();
            let _ = stream.read_to_end(&mut body);
            body.len()
        };
        assert!(fetch() < 1 << 20);
        assert_eq!(cutter.cuts(), 1);
        assert_eq!(fetch(), 1 << 20);
        assert_eq!(cutter.ranges(), ["range: bytes=5-", "range: bytes=5-"]);
    }
}
