//! Programs that run beside the tests, and the promise that none of them outlives the run.
//!
//! Two nets: each [`Daemon`] is stopped when it is dropped, also in a panic; and a [`Watchdog`], a shell in a
//! session of its own, ends whatever still names the run's folder and removes that folder as soon as this
//! process is gone, also when it was killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::run;

/// A server started for the tests.
pub(crate) struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts it in a process group of its own; its output goes to `log`.
    pub(crate) fn start(name: &str, command: &mut Command, log: &Path) -> Result<Daemon> {
        use std::os::unix::process::CommandExt as _;
        let out = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", run::line(command)))?;
        Ok(Daemon {
            name: name.to_owned(),
            child,
            log: log.to_path_buf(),
        })
    }

    /// Waits until `ready` says so; an early end or a silent minute is an error that holds the log's end.
    pub(crate) fn wait_until(&mut self, mut ready: impl FnMut() -> bool) -> Result<()> {
        let start = Instant::now();
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended with {status} before it was ready\n{}",
                    self.name,
                    self.log_end()
                );
            }
            if start.elapsed() > Duration::from_secs(60) {
                bail!(
                    "{} was not ready within 60 s\n{}",
                    self.name,
                    self.log_end()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, without a word.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn log_end(&self) -> String {
        tail(&std::fs::read_to_string(&self.log).unwrap_or_default(), 40)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        end_group(&mut self.child, Duration::from_secs(15));
    }
}

/// Asks a process group to end, then makes it.
pub(crate) fn end_group(child: &mut Child, patience: Duration) {
    let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else {
        return;
    };
    let _ = kill_process_group(group, Signal::TERM);
    let start = Instant::now();
    while start.elapsed() < patience {
        if let Ok(Some(_)) = child.try_wait() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = kill_process_group(group, Signal::KILL);
    let _ = child.wait();
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Sweeps up after this process, however it ends.
pub(crate) struct Watchdog(Child);

/// Reads until its input closes, then ends every process that names the folder, takes its mounts down and
/// removes it. The folder comes in a variable, so that the script does not find itself.
const SWEEP: &str = r#"
trap '' INT TERM HUP QUIT
read -r _
sweep() {
    for p in /proc/[0-9]*; do
        case "$p" in "/proc/$$") continue ;; esac
        if tr '\0' ' ' 2>/dev/null <"$p/cmdline" | grep -qF "$SWEEP_DIR"; then kill "-$1" "${p#/proc/}" 2>/dev/null; found=1; fi
    done
}
found=; sweep TERM
[ -n "$found" ] && sleep 2
found=; sweep KILL
awk -v d="$SWEEP_DIR" 'index($2, d) == 1 { print $2 }' /proc/mounts | sort -r | while read -r m; do umount -l "$m"; done 2>/dev/null
[ -n "$SWEEP_KEEP" ] || rm -rf --one-file-system "$SWEEP_DIR"
"#;

impl Watchdog {
    /// Guards `dir`; with `keep` its processes are ended but its files stay.
    pub(crate) fn start(dir: &Path, keep: bool) -> Result<Watchdog> {
        use std::os::unix::process::CommandExt as _;
        let child = Command::new("sh")
            .args(["-c", SWEEP])
            .env("SWEEP_DIR", dir)
            .env("SWEEP_KEEP", if keep { "1" } else { "" })
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("starting the watchdog")?;
        Ok(Watchdog(child))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_behind() {
        let dir = tempfile::Builder::new()
            .prefix("wharf-e2e-test-")
            .tempdir()
            .unwrap()
            .keep();
        let watchdog = Watchdog::start(&dir, false).unwrap();
        let mut orphan = Command::new("sh")
            .args(["-c", "sleep 100; : \"$1\"", "sh"])
            .arg(&dir)
            .spawn()
            .unwrap();
        let mut command = Command::new("sleep");
        let daemon = Daemon::start("sleep", command.arg("100"), &dir.join("log")).unwrap();
        let group = daemon.child.id();
        drop(daemon);
        assert!(!Path::new(&format!("/proc/{group}")).exists());
        drop(watchdog);
        assert!(!dir.exists());
        assert!(!orphan.wait().unwrap().success());
    }

    #[test]
    fn a_server_that_ends_early_is_reported_with_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        let mut daemon = Daemon::start(
            "it",
            command.args(["-c", "echo cannot listen; exit 1"]),
            &dir.path().join("log"),
        )
        .unwrap();
        let error = daemon.wait_until(|| false).unwrap_err().to_string();
        assert!(error.contains("cannot listen"), "{error}");
    }
}
