//! Clients that are Debian packages.

use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::run;

/// How long apt may wait for another apt, in seconds.
const LOCK_WAIT: &str = "DPkg::Lock::Timeout=600";

/// Installs packages; as root, or through `sudo` when it asks no password.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    if run::find("apt-get").is_none() {
        bail!(
            "no apt-get on this machine: install by hand what provides {}",
            packages.join(", ")
        );
    }
    println!("apt-get install {}", packages.join(" "));
    let log = std::env::temp_dir().join("wharf-clients-apt.log");
    let apt = |args: &[&str]| -> Result<()> {
        let mut command = as_root("apt-get");
        command
            .args(["-q", "-y", "-o", LOCK_WAIT])
            .args(args)
            .env("DEBIAN_FRONTEND", "noninteractive");
        let text = run::read(&mut command)?;
        std::fs::write(&log, text).with_context(|| format!("writing {}", log.display()))
    };
    // The lists may be missing or old; a failed update still leaves what was there before.
    if let Err(error) = apt(&["update"]) {
        eprintln!("{error:#}");
    }
    let mut args = vec!["install", "--no-install-recommends"];
    args.extend(packages);
    apt(&args)
}

fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        Command::new(program)
    } else {
        let mut command = Command::new("sudo");
        command.args(["-n", program]);
        command
    }
}

/// The installed version of a package, as `dpkg` tells it.
pub(crate) fn version(package: &str, program: &str) -> Result<String> {
    let Some(path) = run::find(program) else {
        bail!("no program {program}: apt-get install {package}");
    };
    let asked = run::read(Command::new("dpkg-query").args(["-W", "-f", "${Version}", package]));
    Ok(match asked {
        Ok(version) if !version.is_empty() => format!("{package} {version} (Debian)"),
        _ => format!("{} (not from {package})", path.display()),
    })
}
