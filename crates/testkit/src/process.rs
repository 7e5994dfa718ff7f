//! The real binary as a child process, for what cannot be had in this one: `kill -9`, signals, exit codes, output.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wharf_meta::test_server::TestDatabase;

use crate::ca::Ca;
use crate::client::{Client, Version};
use crate::options::{ADMIN, ADMIN_PASSWORD, TestOptions};

/// Longest wait for a start or an end.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server in a process of its own. It is killed when this is dropped.
pub struct Process {
    binary: PathBuf,
    options: TestOptions,
    /// Whoever signed its certificate.
    pub ca: Ca,
    folder: TempDir,
    addr: SocketAddr,
    child: Option<Child>,
}

impl Process {
    /// Starts `wharf serve` and waits until it is ready. `binary` is `env!("CARGO_BIN_EXE_wharf")` in the server's tests.
    pub async fn start(binary: &Path, options: TestOptions) -> Process {
        Self::start_in(binary, options, |_| ()).await
    }

    /// The same after something was done in its folder, for example a place chosen for `data`.
    pub async fn start_in(
        binary: &Path,
        options: TestOptions,
        prepare: impl FnOnce(&Path),
    ) -> Process {
        let addr = TcpListener::bind("127.0.0.1:0")
            .and_then(|l| l.local_addr())
            .expect("a free port");
        let folder = tempfile::tempdir().expect("a folder");
        prepare(folder.path());
        let mut process = Process {
            binary: binary.into(),
            options: options.with_database().on_chosen_store().await,
            ca: Ca::new(),
            folder,
            addr,
            child: None,
        };
        process.again().await;
        process
    }

    /// Starts it again over the same data, after [`Process::kill`] or [`Process::terminate`].
    pub async fn again(&mut self) {
        self.try_again()
            .await
            .unwrap_or_else(|output| panic!("not ready:\n{output}"));
    }

    /// The same, or what it says on standard error when it ends instead of getting ready.
    pub async fn try_again(&mut self) -> Result<(), String> {
        assert!(self.child.is_none(), "it still runs");
        self.deserted().await;
        let errors = self.folder.path().join("stderr");
        let before = std::fs::read(&errors).map_or(0, |told| told.len());
        let mut command = Command::new(&self.binary);
        command
            .arg("serve")
            .arg("--config")
            .arg(self.folder.path().join("wharf.toml"));
        command.arg("--listen").arg(self.addr.to_string());
        for (_, flag, value) in self.options.write(self.folder.path(), &self.ca) {
            command.arg(format!("--{flag}")).arg(value);
        }
        command
            .envs(self.options.environment(self.folder.path()))
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        let output = |name: &str| {
            File::options()
                .create(true)
                .append(true)
                .open(self.folder.path().join(name))
        };
        command.stdout(output("stdout").expect("a file for its output"));
        command.stderr(output("stderr").expect("a file for its output"));
        self.child = Some(
            command
                .spawn()
                .unwrap_or_else(|error| panic!("{}: {error}", self.binary.display())),
        );
        let client = self.admin(Version::Http1).anonymous();
        let start = Instant::now();
        loop {
            if client
                .get("/readyz")
                .try_send()
                .await
                .is_ok_and(|answer| answer.status == 200)
            {
                return Ok(());
            }
            let ended = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().expect("ask for its state"));
            if let Some(status) = ended {
                self.child = None;
                let told = std::fs::read(&errors).unwrap_or_default();
                let told = String::from_utf8_lossy(&told[before..]).into_owned();
                return Err(format!("{status}\n{told}"));
            }
            assert!(start.elapsed() < PATIENCE, "not ready:\n{}", self.output());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Where the next start has its metadata; `None`: in a file.
    pub fn set_database(&mut self, database: Option<Arc<TestDatabase>>) {
        self.options.on_file = database.is_none();
        self.options.database = database;
    }

    /// The configuration file of the next start.
    pub fn set_config(&mut self, toml: &str) {
        self.options.config = toml.to_owned();
    }

    /// As the administrator.
    pub fn admin(&self, version: Version) -> Client {
        let client = Client::new(self.addr, version).with_basic(ADMIN, ADMIN_PASSWORD);
        if self.options.tls {
            client.with_tls(&self.ca.client_config())
        } else {
            client
        }
    }

    /// Files or objects of all blobs that are no rows.
    pub fn kept_blobs(&self) -> Vec<PathBuf> {
        self.options.kept_blobs(self.folder.path())
    }

    /// The folder in which configuration, output and `data` lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Whether it still runs, without waiting.
    pub fn is_running(&mut self) -> bool {
        let child = self.child.as_mut().expect("it was started");
        child.try_wait().expect("ask for its state").is_none()
    }

    /// All that it wrote to its output, from every start.
    pub fn output(&self) -> String {
        let read =
            |name: &str| std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        read("stdout") + &read("stderr")
    }

    /// Waits until PostgreSQL has seen that the process is gone, unless others share its database: what one that was
    /// killed asked for last is committed after its end, and would seem to change by itself under the next one.
    async fn deserted(&self) {
        let Some(database) = self.options.database.as_ref() else {
            return;
        };
        if self.options.replicated {
            return;
        }
        let start = Instant::now();
        while database.server().registries(database.name()) > 0 {
            assert!(
                start.elapsed() < PATIENCE,
                "connections of a process that has ended"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// `kill -9`: no goodbye, nothing flushed by us.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("kill it");
        child.wait().expect("wait for its end");
    }

    /// SIGSTOP: it knows nothing of the time that passes, and holds what it has.
    pub fn freeze(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    /// Sends SIGHUP: files are read again.
    pub fn hang_up(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    /// Sends SIGTERM.
    pub fn signal_term(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = i32::try_from(self.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .expect("a process id");
        rustix::process::kill_process(id, signal).expect("send the signal");
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("ask for its state") {
                return status;
            }
            if start.elapsed() > PATIENCE {
                child.kill().expect("kill it");
                panic!("it does not end:\n{}", self.output());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// SIGTERM, and the end that follows.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal_term();
        self.ended().await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
