//! Tools that are crates, installed into the cache with their own lock file.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run;

/// Installs `krate` at `version`; nothing is done when it is there already.
pub(crate) fn install(krate: &str, wanted: &str, cache: &Path) -> Result<String> {
    if let Ok(there) = version(krate, wanted, cache) {
        return Ok(there);
    }
    let mut command = Command::new("nice");
    command
        .args([
            "cargo",
            "install",
            "--locked",
            "--quiet",
            krate,
            "--version",
            wanted,
            "--root",
        ])
        .arg(cache)
        .arg("--target-dir")
        .arg(cache.join("build"))
        // Built once and run for a second: the time goes into compiling, so little of it is spent on optimising.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
        .env_remove("CARGO_TARGET_DIR");
    run::read(&mut command)?;
    // The intermediate files are larger than everything else in the cache and never used again.
    let _ = std::fs::remove_dir_all(cache.join("build"));
    version(krate, wanted, cache)
}

/// The version that the program tells, which has to be the pinned one.
pub(crate) fn version(krate: &str, wanted: &str, cache: &Path) -> Result<String> {
    let program = cache.join("bin").join(krate);
    if !program.is_file() {
        bail!("not installed: cargo xtask clients {krate}");
    }
    let told = run::read(Command::new(program).arg("--version"))?;
    if told.split_whitespace().nth(1) != Some(wanted) {
        bail!(
            "{wanted} is wanted, {} is there: cargo xtask clients {krate}",
            told.trim()
        );
    }
    Ok(format!("{wanted} (crates.io)"))
}
