//! A server over a filled store, for as long as it is measured.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use wharf_meta::test_server::free_port;

use super::client::Client;
use super::shape::{self, Shape};

/// A start that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// So many repositories are seen by whoever may not see all.
pub(super) const SEEN: u64 = 10;

/// Who may see what.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rights {
    /// Everybody everything.
    All,
    /// [`SEEN`] of the further repositories, and nothing else.
    Few,
    /// What the store says, and nothing else.
    None,
}

/// A store, and the server over it while there is one.
pub(super) struct Site {
    pub(super) shape: Shape,
    /// Holds `data` and everything else of this store.
    pub(super) folder: PathBuf,
    program: PathBuf,
    /// How often the store was measured before: what is pushed and deleted follows from it.
    pub(super) run: u64,
    pub(super) address: SocketAddr,
    /// What its configuration has besides.
    pub(super) more: String,
    server: Option<Child>,
}

impl Site {
    pub(super) fn new(shape: Shape, folder: &Path, program: &Path) -> Result<Site> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let runs = folder.join("runs");
        let run = std::fs::read_to_string(&runs)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);
        std::fs::write(&runs, (run + 1).to_string())?;
        Ok(Site {
            run,
            shape,
            // The server runs in it.
            folder: folder.canonicalize()?,
            program: program.canonicalize().with_context(|| {
                format!("{}: build it with cargo build --release", program.display())
            })?,
            address,
            more: String::new(),
            server: None,
        })
    }

    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Starts the server; gives the time until it is ready.
    pub(super) fn start(&mut self, rights: Rights) -> Result<Duration> {
        let mut config = "[log]\nlevel = \"warn\"\n\n[access]\n".to_owned();
        match rights {
            Rights::All => config += "anonymous = \"maintainer\"\n",
            Rights::None => {}
            Rights::Few => {
                let step = (self.shape.repositories / SEEN).max(1);
                for number in (0..self.shape.repositories)
                    .step_by(step as usize)
                    .take(SEEN as usize)
                {
                    let name = shape::repository(number);
                    config += &format!(
                        "\n[[access.grant]]\nwho = \"anonymous\"\nrole = \"reader\"\non = \"{name}\"\n"
                    );
                }
            }
        }
        config += &self.more;
        std::fs::write(self.folder.join("wharf.toml"), config)?;
        let log = File::create(self.folder.join("log"))?;
        let begun = Instant::now();
        let child = Command::new(&self.program)
            .arg("serve")
            .arg("--data")
            .arg(self.data())
            .args([
                "--listen",
                &self.address.to_string(),
                "--config",
                "wharf.toml",
            ])
            .env("WHARF_ADMIN_PASSWORD", "admin-password")
            // All that is asked comes from one client.
            .env("WHARF__RATE_LIMITS__ENABLED", "false")
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting the server")?;
        let child = self.server.insert(child);
        loop {
            let ready = Client::connect(self.address).and_then(|mut client| client.get("/readyz"));
            if ready.is_ok_and(|answer| answer.status == 200) {
                return Ok(begun.elapsed());
            }
            if child.try_wait()?.is_some() || begun.elapsed() > PATIENCE {
                bail!(
                    "the server did not start: see {}",
                    self.folder.join("log").display()
                );
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(super) fn client(&self) -> Result<Client> {
        Client::connect(self.address)
    }

    /// Ends the server, at once or as an operator does.
    pub(super) fn stop(&mut self, at_once: bool) -> Result<()> {
        let Some(mut child) = self.server.take() else {
            return Ok(());
        };
        if at_once {
            child.kill()?;
        } else if let Some(id) = i32::try_from(child.id())
            .ok()
            .and_then(rustix::process::Pid::from_raw)
        {
            rustix::process::kill_process(id, rustix::process::Signal::TERM)?;
        }
        child.wait()?;
        Ok(())
    }

    /// Runs a command of an operator's.
    pub(super) fn wharf(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(args).arg("--data").arg(self.data());
        crate::run::read(&mut command)
    }

    /// What the running server has used of processors so far, by threads that have ended, too; to ten milliseconds or so.
    pub(super) fn processor_time(&self) -> Result<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.id()?))?;
        // Behind the name, which may hold anything, come the third field and those that follow: 14 and 15 are ticks.
        let fields = text.rsplit(')').next().unwrap_or_default();
        let mut ticks = fields.split_whitespace().skip(11).take(2);
        let mut tick = || ticks.next().and_then(|word| word.parse::<u64>().ok());
        let both = tick().zip(tick()).context("no times in /proc/PID/stat")?;
        let each = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_millis((both.0 + both.1) * 1_000 / each))
    }

    /// Memory of the running server that no file stands behind, in MiB.
    pub(super) fn anonymous_memory(&self) -> Result<f64> {
        Ok(crate::bench::anonymous(self.id()?) as f64 / 1024.0 / 1024.0)
    }

    fn id(&self) -> Result<u32> {
        Ok(self.server.as_ref().context("no server runs")?.id())
    }

    /// Backs the running server's store up; gives the time.
    pub(super) fn back_up(&self) -> Result<Duration> {
        let begun = Instant::now();
        let mut command = Command::new(&self.program);
        command
            .args(["backup", "create"])
            .arg(self.folder.join("backup"))
            .arg("--data")
            .arg(self.data());
        crate::run::read(&mut command)?;
        Ok(begun.elapsed())
    }

    /// Bytes of the database.
    pub(super) fn database_bytes(&self) -> Result<u64> {
        Ok(std::fs::metadata(self.data().join(super::fill::DATABASE))?.len())
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // It holds nothing that is needed; an error has been told already.
        let _ = self.stop(true);
    }
}
