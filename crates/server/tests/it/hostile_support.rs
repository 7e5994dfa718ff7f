//! Attacks on the real server, in a process of its own so that its memory and files can be counted, while a bystander
//! goes on pulling. `WHARF_LONG=1` makes the attacks full size, such as ten thousand connections; it needs 20,000 open files.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::{Mutex, MutexGuard};
use wharf_testkit::{Content, Image, Process, TestOptions, Version};

pub(crate) const MIB: usize = 1024 * 1024;
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(90);
/// So many requests make a round of the bystander, and so many rounds a measurement.
const REQUESTS: usize = 100;
const ROUNDS: usize = 5;
/// A p99 below this passes: on a machine that builds something else meanwhile the scheduler alone makes up to that.
const FLOOR: Duration = Duration::from_millis(250);
/// The same for the long form, which is run alone: attacker and server share two processors, and a turn is 4 ms long.
const LONG_FLOOR: Duration = Duration::from_millis(12);
/// Files that may be open after an attack that were not before it: the bystander's, and connections to the database that
/// its threads have opened since.
pub(crate) const SPARE: usize = 12;
/// Memory that may be held after an attack that was not before it.
pub(crate) const KEPT: usize = 24 * MIB;

/// The attacks' size: the first by default, the second with `WHARF_LONG=1`.
pub(crate) fn scaled<T>(short: T, long: T) -> T {
    if std::env::var("WHARF_LONG").is_ok_and(|value| value == "1") {
        long
    } else {
        short
    }
}

/// A server to be attacked: everybody may push and pull; `team/app:v1` and a blob of 8 MiB are there.
pub(crate) struct Target {
    pub(crate) process: Process,
    pub(crate) addr: SocketAddr,
    /// The path of the large blob.
    pub(crate) blob: String,
    _alone: MutexGuard<'static, ()>,
}

/// What an attack can see and say.
pub(crate) struct Stage<'a> {
    target: &'a Target,
    files: usize,
    began: AtomicBool,
    measured: AtomicBool,
    peak: AtomicUsize,
}

impl Target {
    /// With this configuration, TOML. One at a time: attacks would measure each other.
    pub(crate) async fn start(config: &str) -> Target {
        Target::new(config, false).await
    }

    /// One that is reached over TLS.
    pub(crate) async fn start_with_tls() -> Target {
        Target::new("", true).await
    }

    async fn new(config: &str, tls: bool) -> Target {
        static ALONE: Mutex<()> = Mutex::const_new(());
        let alone = ALONE.lock().await;
        raise_open_files();
        let options = TestOptions {
            // Their bounds are those of a registry that keeps files.
            files: true,
            anonymous: Some("writer"),
            // Rates would stop most of it: what is left without them is what many addresses together can do.
            config: format!("{config}\n[rate_limits]\nenabled = false\n"),
            tls,
            ..TestOptions::default()
        };
        let process = Process::start(Path::new(env!("CARGO_BIN_EXE_wharf")), options).await;
        let client = process.admin(Version::Http1);
        client.push_image("team/app", "v1", &Image::random()).await;
        let large = Content::random(8 * MIB);
        client.push_blob("team/app", &large).await;
        Target {
            addr: client.addr(),
            blob: format!("/v2/team/app/blobs/{}", large.digest),
            process,
            _alone: alone,
        }
    }

    /// Bytes of anonymous memory that are resident.
    pub(crate) fn memory(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        kib.and_then(|kib| kib.parse::<usize>().ok())
            .expect("a number")
            * 1024
    }

    /// Open files, sockets included.
    pub(crate) fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id()))
            .expect("it runs")
            .count()
    }

    /// Runs an attack on a thread of its own while the bystander pulls, and gives its result. Fails when the bystander's p99
    /// is more than three times that before the attack, when the attack costs the server more memory than `cost` (what it
    /// holds before depends on how much of the pushes' memory the allocator has given back by then), or when it holds files
    /// or memory afterwards.
    pub(crate) fn survives<T: Send>(
        &self,
        cost: usize,
        attack: impl FnOnce(&Stage<'_>) -> T + Send,
    ) -> T {
        let quiet = bystander(self.addr);
        let (files, memory) = (self.files(), self.memory());
        let stage = Stage {
            target: self,
            files,
            began: AtomicBool::new(false),
            measured: AtomicBool::new(false),
            peak: AtomicUsize::new(0),
        };
        let (result, during) = std::thread::scope(|scope| {
            let attacking = scope.spawn(|| attack(&stage));
            let watching = scope.spawn(|| {
                while !stage.measured() {
                    stage.peak.fetch_max(self.memory(), SeqCst);
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            let start = Instant::now();
            while !stage.began.load(SeqCst) && !attacking.is_finished() {
                assert!(start.elapsed() < PATIENCE, "the attack does not begin");
                std::thread::sleep(Duration::from_millis(5));
            }
            let during = bystander(self.addr);
            stage.measured.store(true, SeqCst);
            let result = attacking
                .join()
                .unwrap_or_else(|cause| std::panic::resume_unwind(cause));
            stage.peak.fetch_max(self.memory(), SeqCst);
            watching.join().expect("it only looks");
            (result, during)
        });
        let peak = stage.peak.load(SeqCst);
        println!(
            "p99 {quiet:?} before and {during:?} during; {} MiB before, {} MiB at most",
            memory / MIB,
            peak / MIB
        );
        assert!(
            during <= scaled(FLOOR, LONG_FLOOR).max(quiet * 3),
            "the bystander's p99 was {quiet:?} before and {during:?} during the attack"
        );
        assert!(
            peak <= memory + cost,
            "{} MiB, {} before it and {} for it are allowed",
            peak / MIB,
            memory / MIB,
            cost / MIB
        );
        until("files stay open", || self.files() <= files + SPARE);
        until("memory is kept", || self.memory() <= memory + KEPT);
        result
    }
}

impl Stage<'_> {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.target.addr
    }

    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.addr())
    }

    /// From here on the bystander measures.
    pub(crate) fn began(&self) {
        self.began.store(true, SeqCst);
    }

    /// Whether the bystander has seen enough; until then the attack goes on.
    pub(crate) fn measured(&self) -> bool {
        self.measured.load(SeqCst)
    }

    /// Holds on until the bystander has seen enough.
    pub(crate) fn hold(&self) {
        self.began();
        while !self.measured() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Whether the server has closed all connections of the attack.
    pub(crate) fn rid_of_us(&self) -> bool {
        self.target.files() <= self.files + SPARE
    }
}

/// Waits for the condition.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "after {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A connection whose reads and writes do not wait for ever.
pub(crate) fn connect(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(addr).expect("connect");
    socket.set_read_timeout(Some(PATIENCE)).expect("set it");
    socket.set_write_timeout(Some(PATIENCE)).expect("set it");
    socket
}

/// Sends a request and reads the answer's head and what came with it.
pub(crate) fn ask(
    socket: &mut (impl std::io::Read + std::io::Write),
    request: &str,
) -> std::io::Result<String> {
    socket.write_all(request.as_bytes())?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        match socket.read(&mut buffer)? {
            0 => break,
            read => answer.extend_from_slice(&buffer[..read]),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Reads until the server closes; whether it did so without a reset.
pub(crate) fn drain(socket: &mut TcpStream) -> bool {
    let mut buffer = [0; 64 * 1024];
    loop {
        match socket.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return false,
            Err(error) => panic!("the connection stays open: {error}"),
        }
    }
}

/// A pull of `team/app:v1` after another on one connection; gives the p99, the middle one of the rounds: one bad moment of
/// the machine spoils one round.
fn bystander(addr: SocketAddr) -> Duration {
    let mut socket = connect(addr);
    socket.set_nodelay(true).expect("set it");
    let request = "GET /v2/team/app/manifests/v1 HTTP/1.1\r\nHost: wharf\r\n\r\n";
    let mut p99s = Vec::new();
    while p99s.len() < ROUNDS {
        let mut times: Vec<Duration> = (0..REQUESTS)
            .map(|_| {
                let start = Instant::now();
                let answer = ask(&mut socket, request).expect("an answer");
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
                let length = answer.lines().find_map(|line| {
                    let (name, value) = line.split_once(':')?;
                    name.eq_ignore_ascii_case("content-length")
                        .then(|| value.trim().parse::<usize>().ok())?
                });
                let head = answer.find("\r\n\r\n").expect("a head") + 4;
                let rest = length.expect("a length") - (answer.len() - head);
                socket
                    .read_exact(&mut vec![0; rest])
                    .expect("the rest of the body");
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        p99s.push(times[REQUESTS * 99 / 100 - 1]);
    }
    p99s.sort_unstable();
    p99s[p99s.len() / 2]
}

/// Connections that this process may open beside what the other tests need.
pub(crate) fn connections(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let may = usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .saturating_sub(1000);
    // The server spends at most half of its files on connections.
    let count = wanted.min(may).min(may.saturating_add(1000) / 2 - 8);
    if count < wanted {
        println!("{count} connections instead of {wanted}: the limit of open files is {limit}");
    }
    count
}

fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // Where that is refused, `connections` makes do with less.
    let _ = setrlimit(Resource::Nofile, raised);
}
