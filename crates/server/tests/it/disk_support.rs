//! Real faults for the real binary: small file systems, and system calls that fail because strace says so.
//!
//! Both need rights or programs that a machine may lack. Then the test says so where no test runner hides it, and ends.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wharf_testkit::{Client, Process, Response, TestOptions};

/// Longest wait for something to become so.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn start() -> Process {
    Process::start(
        Path::new(env!("CARGO_BIN_EXE_wharf")),
        TestOptions::on_files(),
    )
    .await
}

/// Says that a test did not run, past the runner's capture.
fn skipped(why: &str) {
    let test = std::thread::current();
    let name = test.name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {why}");
}

/// Whether a test that breaks the disk under the metadata's file has nothing to break: then it says so and ends.
pub(crate) fn no_file() -> bool {
    let elsewhere = wharf_testkit::on_postgres();
    if elsewhere {
        skipped(
            "it breaks the metadata's file, and this run has none (WHARF_TEST_METADATA=postgres)",
        );
    }
    elsewhere
}

/// A file system of its own, gone when dropped. Declare it before the server that uses it.
pub(crate) struct Disk {
    folder: TempDir,
}

impl Disk {
    /// In memory, of this size.
    pub(crate) fn tmpfs(size: &str) -> Option<Disk> {
        let folder = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let arguments = ["-t", "tmpfs", "-o", &options, "tmpfs"];
        mount(&arguments, folder.path()).then_some(Disk { folder })
    }

    /// ext4 in a file, which turns read-only at the first error.
    pub(crate) fn ext4(size: u64) -> Option<Disk> {
        let folder = tempfile::tempdir().unwrap();
        let (image, at) = (folder.path().join("image"), folder.path().join("disk"));
        std::fs::create_dir(&at).unwrap();
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(size))
            .unwrap();
        let made = Command::new("mkfs.ext4").arg("-q").arg(&image).status();
        if !made.is_ok_and(|status| status.success()) {
            skipped("mkfs.ext4 is not here");
            return None;
        }
        let image = image.to_str().unwrap();
        mount(&["-o", "loop,errors=remount-ro", image], &at).then_some(Disk { folder })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        let at = self.folder.path().join("disk");
        if at.exists() {
            at
        } else {
            self.folder.path().to_owned()
        }
    }

    /// Starts a server whose data lie here.
    pub(crate) async fn server(&self) -> Process {
        let data = self.path().join("data");
        let link = |folder: &Path| {
            std::fs::create_dir(&data).unwrap();
            std::os::unix::fs::symlink(&data, folder.join("data")).unwrap();
        };
        let binary = Path::new(env!("CARGO_BIN_EXE_wharf"));
        Process::start_in(binary, TestOptions::on_files(), link).await
    }

    /// Takes all the room that is left; removing the file gives it back.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.path().join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        for piece in [1 << 20, 4096, 1] {
            let bytes = vec![7; piece];
            while file.write_all(&bytes).is_ok() {}
        }
        path
    }

    /// Has the kernel find an error in it, after which it is read-only until it is mounted again.
    pub(crate) fn trip(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let at = self.path();
        let device = mounts
            .lines()
            .find_map(|line| {
                let (device, rest) = line.split_once(' ')?;
                (rest.split(' ').next()? == at.to_str()?).then(|| device.to_owned())
            })
            .unwrap();
        let name = Path::new(&device).file_name().unwrap().to_owned();
        let trigger = Path::new("/sys/fs/ext4")
            .join(name)
            .join("trigger_fs_error");
        let tripped = std::fs::write(trigger, "1").is_ok();
        if !tripped {
            skipped("this kernel lets nobody trip ext4");
        }
        tripped
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    let done = Command::new("mount")
        .args(arguments)
        .arg(at)
        .stderr(Stdio::null())
        .status();
    let done = done.is_ok_and(|status| status.success());
    if !done {
        skipped("mounting is not allowed here");
    }
    done
}

/// Makes system calls of a running server fail or wait, until dropped.
pub(crate) struct Inject {
    strace: Child,
    process: u32,
}

impl Inject {
    /// `calls` are names, `how` is what strace's `inject=` takes after them; only calls on `paths`, if any are given.
    pub(crate) fn new(
        server: &Process,
        calls: &str,
        how: &str,
        paths: &[PathBuf],
    ) -> Option<Inject> {
        let process = server.id();
        let mut command = Command::new("strace");
        command
            .args(["-f", "-q", "-o", "/dev/null", "-p", &process.to_string()])
            .args(["-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={calls}:{how}")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        for path in paths {
            // strace compares with what the kernel calls the file.
            let folder = path.parent().unwrap().canonicalize().unwrap();
            command
                .arg("-P")
                .arg(folder.join(path.file_name().unwrap()));
        }
        let Ok(strace) = command.spawn() else {
            skipped("strace is not here");
            return None;
        };
        let mut inject = Inject { strace, process };
        let begun = Instant::now();
        while !inject.everywhere(true) {
            let ended = inject.strace.try_wait().unwrap();
            if ended.is_some() || begun.elapsed() > PATIENCE {
                skipped("strace may not attach here");
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(inject)
    }

    /// Whether all threads of the server are traced, or none is.
    fn everywhere(&self, traced: bool) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.process));
        threads.into_iter().flatten().flatten().all(|thread| {
            let status = std::fs::read_to_string(thread.path().join("status"));
            let tracer = status.ok().and_then(|status| {
                let line = status.lines().find(|line| line.starts_with("TracerPid:"))?;
                Some(line.trim_end().ends_with("\t0"))
            });
            tracer != Some(traced)
        })
    }
}

impl Drop for Inject {
    fn drop(&mut self) {
        let id = i32::try_from(self.strace.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        if let Some(id) = id {
            // It detaches, and the server goes on.
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        let _ = self.strace.wait();
        let begun = Instant::now();
        while !self.everywhere(false) && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Sends what `request` makes until the answer has this status.
pub(crate) async fn until(status: u16, mut request: impl AsyncFnMut() -> Response) -> Response {
    let begun = Instant::now();
    loop {
        let answer = request().await;
        if answer.status == status {
            return answer;
        }
        assert!(begun.elapsed() < PATIENCE, "not {status}: {answer}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What `/readyz?verbose` says.
pub(crate) async fn health(client: &Client) -> String {
    let answer = client.get("/readyz?verbose").send().await;
    String::from_utf8_lossy(&answer.body).into_owned()
}

/// A figure of `/metrics`.
pub(crate) async fn figure(client: &Client, name: &str) -> String {
    let answer = client.get("/metrics").send().await.expect_status(200);
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name}"))
        .trim()
        .to_owned()
}
