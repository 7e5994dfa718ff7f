//! Servers that are Node.js programs: each is the dependency of a package of its own in `tests/clients/<name>`, pinned with
//! all that it needs by `package-lock.json`, whose hashes npm verifies. A library becomes a program by scripts that lie beside that.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::run;

/// The pinned version of the package that a client is named after.
pub(crate) fn pinned(name: &str) -> Result<String> {
    let file = folder(name).join("package.json");
    let text = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
    let json: Value = serde_json::from_slice(&text)?;
    let version = json["dependencies"][name].as_str();
    version
        .map(str::to_owned)
        .with_context(|| format!("{} pins no {name}", file.display()))
}

fn folder(name: &str) -> PathBuf {
    crate::workspace::root().join("tests/clients").join(name)
}

/// Our own scripts of a package, in one order.
fn scripts(name: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder(name))? {
        let path = entry?.path();
        if path.extension().is_some_and(|ending| ending == "mjs") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Installs the package unless the stamp says that it is there, and a program `<name>` that starts `script`: one of ours, or of the package.
pub(crate) fn install(name: &str, script: &str, cache: &Path) -> Result<String> {
    let version = pinned(name)?;
    let lock = folder(name).join("package-lock.json");
    let mut bytes = std::fs::read(&lock).with_context(|| format!("reading {}", lock.display()))?;
    let scripts = scripts(name)?;
    for script in &scripts {
        bytes.extend(std::fs::read(script)?);
    }
    let stamp: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let stamp_file = cache.join("stamps").join(name);
    let program = cache.join("bin").join(name);
    if !program.is_file() || std::fs::read_to_string(&stamp_file).ok().as_deref() != Some(&stamp) {
        if run::find("npm").is_none() {
            bail!("no npm: install Node.js (see https://nodejs.org), then run this again");
        }
        let place = cache.join("npm").join(name);
        std::fs::create_dir_all(&place)?;
        let files = ["package.json", "package-lock.json"].map(|file| folder(name).join(file));
        for file in files.iter().chain(&scripts) {
            let to = file.file_name().context("a file's name")?;
            std::fs::copy(file, place.join(to))?;
        }
        // No scripts of packages are run: none of them needs to build anything.
        run::read(
            Command::new("nice")
                .args(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"])
                .current_dir(&place),
        )?;
        let own = place.join(script);
        let script = match own.is_file() {
            true => own,
            false => place.join("node_modules").join(name).join(script),
        };
        if !script.is_file() {
            bail!("{} is not in the package", script.display());
        }
        let text = format!("#!/bin/sh\nexec node '{}' \"$@\"\n", script.display());
        std::fs::write(&program, text)?;
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        std::fs::create_dir_all(cache.join("stamps"))?;
        std::fs::write(&stamp_file, &stamp)?;
    }
    Ok(format!("{version} (npm)"))
}

/// The pinned version of a program that is there.
pub(crate) fn version(name: &str, cache: &Path) -> Result<String> {
    if !cache.join("bin").join(name).is_file() {
        bail!("not installed: cargo xtask clients {name}");
    }
    Ok(format!("{} (npm)", pinned(name)?))
}
