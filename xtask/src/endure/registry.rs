//! The real binary over one data folder: started, killed, looked at from outside.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use wharf_meta::test_server::free_port;

use super::http::{Body, Connection};
use crate::e2e::process::tail;
use crate::run;

/// A start that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is started, and where.
#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) binary: PathBuf,
    pub(crate) data: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) port: u16,
    /// Its configuration beyond what all have.
    environment: Vec<(String, String)>,
}

/// A server that runs. It is killed when this is dropped.
pub(crate) struct Registry {
    child: Child,
    site: Site,
    /// The child is a tracer and the server its child.
    traced: bool,
}

impl Site {
    /// A site in a folder, at a port that is free now.
    pub(crate) fn new(binary: &Path, folder: &Path) -> Result<Site> {
        let port = free_port();
        Ok(Site {
            binary: binary.to_owned(),
            data: folder.join("data"),
            log: folder.join("server.log"),
            port,
            environment: Vec::new(),
        })
    }

    /// The same, with its output elsewhere.
    pub(crate) fn logging_to(self, log: PathBuf) -> Site {
        Site { log, ..self }
    }

    /// The same, with these variables.
    pub(crate) fn with_environment(self, environment: &[(String, String)]) -> Site {
        Site {
            environment: environment.to_vec(),
            ..self
        }
    }

    /// Starts the server and does not wait for it. `tracer` is put before its command line.
    pub(crate) fn start(&self, tracer: &[String]) -> Result<Registry> {
        let mut words = tracer.iter();
        let mut command = match words.next() {
            None => Command::new(&self.binary),
            Some(program) => {
                let mut command = Command::new(program);
                command.args(words).arg(&self.binary);
                command
            }
        };
        let log = File::options().create(true).append(true).open(&self.log)?;
        command
            .args(["serve", "--anonymous", "maintainer", "--data"])
            .arg(&self.data)
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            // Requests keep the ids that the clients give them.
            .env("WHARF__SERVER__TRUSTED_PROXIES", "127.0.0.1")
            .env("WHARF__LOG__LEVEL", "warn")
            // All that is asked comes from one client.
            .env("WHARF__RATE_LIMITS__ENABLED", "false")
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", run::line(&command)))?;
        Ok(Registry {
            child,
            site: self.clone(),
            traced: !tracer.is_empty(),
        })
    }

    /// Starts it and waits until it is ready.
    pub(crate) fn run(&self, tracer: &[String]) -> Result<Registry> {
        let mut registry = self.start(tracer)?;
        registry.ready()?;
        Ok(registry)
    }

    /// What `wharf gc plan` prints.
    pub(crate) fn plan(&self) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.args(["gc", "plan", "--data"]).arg(&self.data);
        command.envs(self.environment.iter().map(|(key, value)| (key, value)));
        let output = command
            .output()
            .with_context(|| format!("running {}", run::line(&command)))?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `wharf storage verify` and gives what it printed; damage is an error.
    pub(crate) fn verify(&self, deep: bool) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command
            .args(["storage", "verify", "--data"])
            .arg(&self.data)
            .envs(self.environment.iter().map(|(key, value)| (key, value)));
        if deep {
            command.arg("--deep");
        }
        run::read(&mut command)
    }

    /// The end of the server's output.
    pub(crate) fn log_end(&self) -> String {
        tail(&std::fs::read_to_string(&self.log).unwrap_or_default(), 20)
    }
}

impl Registry {
    /// Whether it answers that it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        Connection::open(self.site.port)
            .and_then(|mut open| open.send("GET", "/readyz", &[], Body::None))
            .is_ok_and(|answer| answer.status == 200)
    }

    /// Waits until it answers that it is ready.
    pub(crate) fn ready(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            if self.is_ready() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "the server ended with {status} before it was ready\n{}",
                    self.site.log_end()
                );
            }
            if start.elapsed() > PATIENCE {
                bail!("the server was not ready in time\n{}", self.site.log_end());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The server's own process.
    pub(crate) fn process(&self) -> Result<Pid> {
        let number = if self.traced {
            // Its number stands in the folder's lock.
            let text = std::fs::read_to_string(self.site.data.join("lock"))?;
            text.trim()
                .parse()
                .context("the process in the lock file")?
        } else {
            i32::try_from(self.child.id())?
        };
        Pid::from_raw(number).context("a process number")
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.process()?, signal)?)
    }

    /// How many file descriptors it has open.
    pub(crate) fn descriptors(&self) -> Result<usize> {
        let folder = format!("/proc/{}/fd", self.process()?.as_raw_nonzero());
        Ok(std::fs::read_dir(folder)?.count())
    }

    /// `kill -9`.
    pub(crate) fn kill(mut self) -> Result<()> {
        kill_process(self.process()?, Signal::KILL)?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and the orderly end.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(self.process()?, Signal::TERM)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the server ended with {status}\n{}", self.site.log_end());
        }
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            if let Ok(process) = self.process() {
                let _ = kill_process(process, Signal::KILL);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
