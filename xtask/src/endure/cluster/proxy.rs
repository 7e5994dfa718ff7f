//! A connection's middleman, which can be told to misbehave: before the S3 server and before PostgreSQL.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Result;

/// What it does to connections, also to those that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Passes everything on.
    Honest = 0,
    /// Passes everything on, some milliseconds late.
    Slow = 1,
    /// Answers each request by itself: 503 Slow Down.
    Busy = 2,
    /// Ends connections in the middle of what either side says.
    Cut = 3,
    /// Passes a `COMMIT` on and ends the connection before its answer.
    Forget = 4,
    /// Lets nobody in.
    Closed = 5,
}

const MODES: [Mode; 6] = [
    Mode::Honest,
    Mode::Slow,
    Mode::Busy,
    Mode::Cut,
    Mode::Forget,
    Mode::Closed,
];

/// What an S3 server says when it has enough.
const BUSY: &str = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>";

struct Shared {
    mode: AtomicU8,
    over: AtomicBool,
    /// Connections that were ended on purpose.
    cut: AtomicUsize,
    target: u16,
}

impl Shared {
    fn mode(&self) -> Mode {
        MODES[usize::from(self.mode.load(Ordering::Relaxed))]
    }
}

/// A middleman that runs until it is dropped.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// One before a port of this machine.
    pub(crate) fn start(target: u16) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            mode: AtomicU8::new(Mode::Honest as u8),
            over: AtomicBool::new(false),
            cut: AtomicUsize::new(0),
            target,
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(client) = stream else { continue };
                let shared = Arc::clone(&accepting);
                // One that fails is a connection that was refused.
                std::thread::spawn(move || {
                    let _ = serve(client, &shared);
                });
            }
        });
        Ok(Proxy { port, shared })
    }

    /// What it does from now on.
    pub(crate) fn set(&self, mode: Mode) {
        self.shared.mode.store(mode as u8, Ordering::Relaxed);
    }

    /// How many connections it has ended on purpose.
    pub(crate) fn cut(&self) -> usize {
        self.shared.cut.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(client: TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    if shared.mode() == Mode::Closed {
        shared.cut.fetch_add(1, Ordering::Relaxed);
        return Ok(());
    }
    let server = TcpStream::connect(("127.0.0.1", shared.target))?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let back = {
        let (from, to) = (server.try_clone()?, client.try_clone()?);
        let shared = Arc::clone(shared);
        std::thread::spawn(move || pass(from, to, &shared, false))
    };
    pass(client, server, shared, true);
    let _ = back.join();
    Ok(())
}

/// Passes bytes on in one direction until either side ends.
fn pass(mut from: TcpStream, mut to: TcpStream, shared: &Shared, asks: bool) {
    let mut buffer = vec![0; 64 << 10];
    let mut seen = 0_usize;
    loop {
        let read = match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        seen += read;
        let bytes = &buffer[..read];
        match shared.mode() {
            Mode::Honest => {}
            Mode::Slow => std::thread::sleep(Duration::from_millis(20)),
            Mode::Busy if asks => {
                let answer = format!(
                    "HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{BUSY}",
                    BUSY.len()
                );
                let _ = from.write_all(answer.as_bytes());
                shared.cut.fetch_add(1, Ordering::Relaxed);
                break;
            }
            Mode::Busy => {}
            // Half of it, so that the other side holds a part of a message.
            Mode::Cut if seen.is_multiple_of(3) => {
                let _ = to.write_all(&bytes[..read / 2]);
                shared.cut.fetch_add(1, Ordering::Relaxed);
                break;
            }
            Mode::Cut => {}
            Mode::Forget if asks && bytes.windows(6).any(|word| word == b"COMMIT") => {
                let _ = to.write_all(bytes);
                // The server has it; what it says to it nobody hears.
                std::thread::sleep(Duration::from_millis(5));
                shared.cut.fetch_add(1, Ordering::Relaxed);
                let _ = from.shutdown(Shutdown::Both);
                break;
            }
            Mode::Forget => {}
            Mode::Closed => {
                shared.cut.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says back what it hears.
    fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let (mut from, mut to) = (stream.try_clone().unwrap(), stream);
                    let _ = std::io::copy(&mut from, &mut to);
                });
            }
        });
        port
    }

    fn ask(port: u16, text: &str) -> Option<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(text.as_bytes()).ok()?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).ok()?;
        String::from_utf8(answer).ok()
    }

    #[test]
    fn each_mode_does_what_it_says() {
        let proxy = Proxy::start(echo()).unwrap();
        for mode in [Mode::Honest, Mode::Slow] {
            proxy.set(mode);
            assert_eq!(ask(proxy.port, "abc").as_deref(), Some("abc"), "{mode:?}");
        }
        proxy.set(Mode::Forget);
        assert_eq!(ask(proxy.port, "abc").as_deref(), Some("abc"));
        assert_eq!(ask(proxy.port, "COMMIT"), None);
        proxy.set(Mode::Busy);
        assert_eq!(
            ask(proxy.port, "GET / HTTP/1").as_deref(),
            Some("HTTP/1.1 503")
        );
        proxy.set(Mode::Cut);
        assert_eq!(ask(proxy.port, "abc"), None);
        proxy.set(Mode::Closed);
        assert_eq!(ask(proxy.port, "abc"), None);
        assert_eq!(proxy.cut(), 4);
        proxy.set(Mode::Honest);
        assert_eq!(ask(proxy.port, "abc").as_deref(), Some("abc"));
    }
}
