//! One step of a test: a folder of its own, commands with a clean home, and a log of all they printed.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::process;
use crate::run;

/// How long one command may take; the slowest (a debootstrap over a slow mirror) takes minutes.
const PATIENCE: Duration = Duration::from_secs(600);

/// A running step.
pub(crate) struct Step {
    /// A folder for the step's files, empty at its start.
    pub(crate) dir: PathBuf,
    log: PathBuf,
    /// How long one command may take.
    patience: Duration,
    /// Added to the environment of every command.
    env: Vec<(String, String)>,
}

impl Step {
    /// A step that works in `dir` and writes to `log`.
    pub(crate) fn new(dir: PathBuf, log: PathBuf) -> Result<Step> {
        std::fs::create_dir_all(dir.join("home/.config"))
            .with_context(|| format!("creating {}", dir.display()))?;
        std::fs::create_dir_all(dir.join("run"))?;
        // podman fails when the file that the variable names is not there.
        std::fs::write(dir.join("home/auth.json"), "{}")?;
        let mut step = Step {
            dir,
            log,
            patience: PATIENCE,
            env: Vec::new(),
        };
        for (name, path) in [
            ("HOME", "home"),
            ("DOCKER_CONFIG", "home/.docker"),
            ("XDG_CONFIG_HOME", "home/.config"),
            ("XDG_CACHE_HOME", "home/.cache"),
            ("XDG_DATA_HOME", "home/.local"),
            ("XDG_RUNTIME_DIR", "run"),
            ("TMPDIR", "run"),
            ("REGISTRY_AUTH_FILE", "home/auth.json"),
        ] {
            let path = step.dir.join(path);
            step.set(name, &path.to_string_lossy());
        }
        Ok(step)
    }

    /// The same, with another limit for each command.
    pub(crate) fn with_patience(self, patience: Duration) -> Step {
        Step { patience, ..self }
    }

    /// Sets a variable for the commands to come.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.env.retain(|(n, _)| n != name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Takes a variable away again.
    pub(crate) fn unset(&mut self, name: &str) {
        self.env.retain(|(n, _)| n != name);
    }

    /// A variable that was set.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.env
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.clone())
    }

    /// A path in the step's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A path in the step's folder, as text for a command line.
    pub(crate) fn file(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    /// Writes a file into the step's folder and gives its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.dir.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// A command with the step's environment.
    pub(crate) fn command<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command =
            Command::new(run::find(program).unwrap_or_else(|| PathBuf::from(program)));
        command
            .args(args)
            .current_dir(&self.dir)
            .envs(self.env.iter().cloned());
        for name in [
            "http_proxy",
            "https_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "all_proxy",
            "ALL_PROXY",
            "RUST_BACKTRACE",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a program that has to succeed; gives its standard output.
    pub(crate) fn ok<S: AsRef<OsStr>>(
        &mut self,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<String> {
        let command = self.command(program, args);
        self.ok_command(command)
    }

    /// Runs a command that has to succeed; gives its standard output.
    pub(crate) fn ok_command(&mut self, command: Command) -> Result<String> {
        let ended = self.run(command)?;
        if ended.code != Some(0) {
            bail!(
                "{} ended with {}\n{}{}",
                ended.line,
                ended.shown_code(),
                ended.err,
                process::tail(&ended.out, 20)
            );
        }
        Ok(ended.out)
    }

    /// Runs a program whatever its outcome.
    pub(crate) fn any<S: AsRef<OsStr>>(
        &mut self,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Ended> {
        let command = self.command(program, args);
        self.run(command)
    }

    /// Runs a command to its end, or ends its whole process group when it takes too long.
    pub(crate) fn run(&mut self, mut command: Command) -> Result<Ended> {
        use std::os::unix::process::CommandExt as _;
        let line = run::line(&command);
        self.note(&format!("$ {line}"));
        let (out, err) = (self.path("run/.out"), self.path("run/.err"));
        let start = Instant::now();
        // Files, not pipes: a program that leaves a child behind must not hold the test up.
        let mut child = command
            .stdin(Stdio::null())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {line}"))?;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if start.elapsed() > self.patience {
                process::end_group(&mut child, Duration::from_secs(1));
                break None;
            }
            std::thread::sleep(Duration::from_millis(
                if start.elapsed().as_millis() < 500 {
                    5
                } else {
                    25
                },
            ));
        };
        let read =
            |path: &Path| std::fs::read(path).map(|b| String::from_utf8_lossy(&b).into_owned());
        let ended = Ended {
            line,
            code: status.and_then(|s| s.code()),
            out: read(&out)?,
            err: read(&err)?,
        };
        self.note(&ended.err);
        self.note(&ended.out);
        self.note(&format!(
            "= {} after {:.1} s",
            ended.shown_code(),
            start.elapsed().as_secs_f32()
        ));
        Ok(ended)
    }

    /// Removes its files, and what podman left mounted among them.
    pub(crate) fn clear(&self) -> Result<()> {
        let mounts = std::fs::read_to_string("/proc/mounts")?;
        let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let mut inside: Vec<&str> = places
            .filter(|place| Path::new(place).starts_with(&self.dir))
            .collect();
        // What lies deeper first.
        inside.sort_unstable();
        for place in inside.iter().rev() {
            run::read(Command::new("umount").args(["-l", place]))?;
        }
        std::fs::remove_dir_all(&self.dir)
            .with_context(|| format!("removing {}", self.dir.display()))
    }

    /// Adds a line to the step's log.
    pub(crate) fn note(&self, text: &str) {
        let text = text.trim_end();
        if text.is_empty() {
            return;
        }
        if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(&self.log) {
            let _ = writeln!(file, "{text}");
        }
    }
}

/// How a command ended.
pub(crate) struct Ended {
    line: String,
    /// Exit code; none when it was killed.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Ended {
    fn shown_code(&self) -> String {
        self.code.map_or_else(
            || "a signal or the time limit".to_owned(),
            |code| format!("exit code {code}"),
        )
    }
}

/// Checks that something was refused, and in words that tell a person why.
pub(crate) fn refused<T>(result: Result<T>, words: &[&str]) -> Result<()> {
    let Err(error) = result else {
        bail!("it succeeded, although it had to be refused")
    };
    let text = format!("{error:#}").to_lowercase();
    if !words.iter().any(|word| text.contains(word)) {
        bail!("refused as it should, but the message has none of {words:?}:\n{error:#}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step() -> (tempfile::TempDir, Step) {
        let dir = tempfile::tempdir().unwrap();
        let step = Step::new(dir.path().join("s"), dir.path().join("log")).unwrap();
        (dir, step)
    }

    #[test]
    fn output_and_failure_are_seen_and_logged() {
        let (dir, mut step) = step();
        assert_eq!(
            step.ok("sh", ["-c", "echo $HOME"]).unwrap().trim(),
            step.file("home")
        );
        let error = step
            .ok("sh", ["-c", "echo denied >&2; exit 1"])
            .unwrap_err();
        assert!(error.to_string().contains("denied"));
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
        assert!(
            log.contains("= exit code 1") && log.contains("denied"),
            "{log}"
        );
    }

    #[test]
    fn a_refusal_needs_the_right_words() {
        assert!(
            refused::<()>(
                Err(anyhow::anyhow!("got 401 Unauthorized")),
                &["unauthorized"]
            )
            .is_ok()
        );
        assert!(
            refused::<()>(
                Err(anyhow::anyhow!("connection refused")),
                &["unauthorized"]
            )
            .is_err()
        );
        assert!(refused(Ok(()), &["unauthorized"]).is_err());
    }
}
