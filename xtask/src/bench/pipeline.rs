//! The reference pipeline: what a push must cost at least. Receive, hash, write, fdatasync, rename, fsync of the folder.
//!
//! It speaks just enough HTTP/1.1 for the load generator to push blobs with the very same bytes on the wire, and keeps
//! nothing else: no names, no rights, no metadata, no limits. It is a process of its own (`cargo xtask bench-pipeline`),
//! so that its processor time can be read. Each connection has three threads: one receives, one hashes, one writes.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

/// Arguments of the hidden task.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    data: PathBuf,
}

/// Bytes of a buffer.
const BUFFER: usize = 1 << 20;
/// Buffers of a connection: enough that nobody waits, few enough to stay in the cache.
const BUFFERS: usize = 6;
/// Bytes after which the kernel is told to begin writing, so that little is left for the flush.
const EARLY: u64 = 8 << 20;

/// Runs the server until it is killed.
pub(crate) fn main(args: &Args) -> Result<()> {
    std::fs::create_dir_all(&args.data)?;
    let listener = TcpListener::bind(args.listen)?;
    let shared = Arc::new(Shared {
        dir: args.data.clone(),
        next: AtomicU64::new(0),
        received: Mutex::new(HashMap::new()),
    });
    loop {
        let (socket, _) = listener.accept()?;
        let shared = Arc::clone(&shared);
        std::thread::spawn(move || {
            // A client that goes away ends its own thread and nothing else.
            if let Err(error) = serve(socket, &shared) {
                eprintln!("{error:#}");
            }
        });
    }
}

struct Shared {
    dir: PathBuf,
    next: AtomicU64,
    /// Digests of uploads that came by PATCH and wait for their PUT.
    received: Mutex<HashMap<String, String>>,
}

fn serve(socket: TcpStream, shared: &Shared) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut answers = socket.try_clone()?;
    let mut input = Input {
        socket,
        buffer: vec![0; 64 << 10],
        from: 0,
        to: 0,
    };
    while let Some(head) = input.head()? {
        let mut words = head.split([' ', '\r']);
        let (method, target) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let length = field(&head, "content-length").and_then(|v| v.parse().ok());
        let chunked = field(&head, "transfer-encoding").is_some();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let answer = match method {
            "GET" => "200 OK\r\n".to_owned(),
            "POST" => {
                let id = shared.next.fetch_add(1, Ordering::Relaxed);
                format!("202 Accepted\r\nLocation: /v2/upload/{id}\r\n")
            }
            "PATCH" | "PUT" => {
                let id = path.rsplit('/').next().unwrap_or_default().to_owned();
                let file = shared.dir.join(format!("upload-{id}"));
                if chunked || length.is_some_and(|n: u64| n > 0) {
                    let digest = receive(&mut input, if chunked { None } else { length }, &file)?;
                    shared
                        .received
                        .lock()
                        .expect("uploads")
                        .insert(id.clone(), digest);
                }
                if method == "PUT" {
                    let found = shared.received.lock().expect("uploads").remove(&id);
                    let wanted = query.strip_prefix("digest=").unwrap_or_default();
                    if found.as_deref() == Some(wanted) {
                        publish(&shared.dir, &file, wanted)?;
                        "201 Created\r\n".to_owned()
                    } else {
                        "400 Bad Request\r\n".to_owned()
                    }
                } else {
                    format!("202 Accepted\r\nLocation: {path}\r\n")
                }
            }
            _ => bail!("no such method: {method}"),
        };
        answers.write_all(format!("HTTP/1.1 {answer}Content-Length: 0\r\n\r\n").as_bytes())?;
    }
    Ok(())
}

/// Makes a received file durable under its digest.
fn publish(dir: &Path, file: &Path, digest: &str) -> Result<()> {
    std::fs::rename(file, dir.join(digest.replace(':', "-")))?;
    File::open(dir)?.sync_all()?;
    Ok(())
}

/// A filled buffer on its way through hashing and writing; the last one to drop it gives it back.
struct Filled {
    bytes: Vec<u8>,
    length: usize,
    back: SyncSender<Vec<u8>>,
}

impl Drop for Filled {
    fn drop(&mut self) {
        let _ = self.back.try_send(std::mem::take(&mut self.bytes));
    }
}

/// Takes a body into a file that is durable when this returns; gives its digest.
fn receive(input: &mut Input, length: Option<u64>, file: &Path) -> Result<String> {
    let (back, free) = sync_channel(BUFFERS);
    for _ in 0..BUFFERS {
        let _ = back.try_send(vec![0; BUFFER]);
    }
    let (to_hash, hashing) = sync_channel::<Arc<Filled>>(BUFFERS);
    let (to_write, writing) = sync_channel::<Arc<Filled>>(BUFFERS);
    let output = File::create(file)?;
    std::thread::scope(|scope| {
        let hasher = scope.spawn(move || hash(&hashing));
        let writer = scope.spawn(move || write(output, &writing));
        let mut body = Framed::new(input, length);
        let received = (|| -> Result<()> {
            loop {
                let mut bytes = free.recv().context("both helpers are gone")?;
                let n = body.fill(&mut bytes)?;
                if n == 0 {
                    return Ok(());
                }
                let filled = Arc::new(Filled {
                    bytes,
                    length: n,
                    back: back.clone(),
                });
                let _ = to_hash.send(Arc::clone(&filled));
                let _ = to_write.send(filled);
            }
        })();
        drop((to_hash, to_write));
        let digest = hasher.join().expect("the hashing thread");
        writer.join().expect("the writing thread")?;
        received?;
        Ok(digest)
    })
}

fn hash(pieces: &Receiver<Arc<Filled>>) -> String {
    use std::fmt::Write as _;
    let mut hash = Sha256::new();
    while let Ok(piece) = pieces.recv() {
        hash.update(&piece.bytes[..piece.length]);
    }
    hash.finalize()
        .iter()
        .fold("sha256:".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn write(mut file: File, pieces: &Receiver<Arc<Filled>>) -> Result<()> {
    let (mut written, mut begun) = (0, 0);
    while let Ok(piece) = pieces.recv() {
        file.write_all(&piece.bytes[..piece.length])?;
        written += piece.length as u64;
        if written - begun >= EARLY {
            super::sys::begin_writing(file.as_fd(), begun, written - begun)?;
            begun = written;
        }
    }
    file.sync_data()?;
    Ok(())
}

/// A connection with what was read ahead.
struct Input {
    socket: TcpStream,
    buffer: Vec<u8>,
    from: usize,
    to: usize,
}

impl Input {
    /// The next request's head; nothing when the client is done.
    fn head(&mut self) -> Result<Option<String>> {
        loop {
            let held = &self.buffer[self.from..self.to];
            if let Some(at) = held.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = String::from_utf8(held[..at + 4].to_vec())?;
                self.from += at + 4;
                return Ok(Some(head));
            }
            if !self.more()? {
                return Ok(None);
            }
        }
    }

    /// The next line, without its end.
    fn line(&mut self) -> Result<String> {
        loop {
            let held = &self.buffer[self.from..self.to];
            if let Some(at) = held.windows(2).position(|w| w == b"\r\n") {
                let line = String::from_utf8(held[..at].to_vec())?;
                self.from += at + 2;
                return Ok(line);
            }
            if !self.more()? {
                bail!("the body ended early");
            }
        }
    }

    fn more(&mut self) -> Result<bool> {
        self.buffer.copy_within(self.from..self.to, 0);
        (self.from, self.to) = (0, self.to - self.from);
        if self.to == self.buffer.len() {
            bail!("a head or line that is too long");
        }
        let n = self.socket.read(&mut self.buffer[self.to..])?;
        self.to += n;
        Ok(n > 0)
    }
}

impl Read for Input {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        if self.from < self.to {
            let n = to.len().min(self.to - self.from);
            to[..n].copy_from_slice(&self.buffer[self.from..self.from + n]);
            self.from += n;
            return Ok(n);
        }
        // Large reads go past the buffer: no copy.
        if to.len() >= self.buffer.len() {
            return self.socket.read(to);
        }
        (self.from, self.to) = (0, self.socket.read(&mut self.buffer)?);
        if self.to == 0 {
            return Ok(0);
        }
        self.read(to)
    }
}

/// A body, with its length known or in chunks.
struct Framed<'a> {
    input: &'a mut Input,
    left: u64,
    chunked: bool,
    ended: bool,
}

impl<'a> Framed<'a> {
    fn new(input: &'a mut Input, length: Option<u64>) -> Framed<'a> {
        Framed {
            input,
            left: length.unwrap_or(0),
            chunked: length.is_none(),
            ended: false,
        }
    }

    /// Fills the whole buffer, unless the body ends.
    fn fill(&mut self, to: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < to.len() {
            if self.left == 0 {
                if !self.chunked || self.ended {
                    break;
                }
                let line = self.input.line()?;
                self.left = u64::from_str_radix(line.trim(), 16).context("chunk size")?;
                if self.left == 0 {
                    self.input.line()?;
                    self.ended = true;
                    break;
                }
            }
            let most = usize::try_from(self.left)
                .unwrap_or(usize::MAX)
                .min(to.len() - filled);
            let n = self.input.read(&mut to[filled..filled + most])?;
            if n == 0 {
                bail!("the body ended early");
            }
            filled += n;
            self.left -= n as u64;
            if self.chunked && self.left == 0 {
                self.input.line()?;
            }
        }
        Ok(filled)
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
