//! Clients that are Go programs: each is the `tool` of a module of its own, pinned by `go.mod` and `go.sum`.
//!
//! A module each, since their dependencies contradict one another, and so that updating one leaves the others alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::run;

/// What a `go.mod` pins.
pub(crate) struct Pin {
    dir: PathBuf,
    /// Import path of the program.
    package: String,
    /// Version of the module that holds it.
    version: String,
}

impl Pin {
    /// Reads `tests/clients/<name>/go.mod`.
    pub(crate) fn read(name: &str) -> Result<Pin> {
        let dir = crate::workspace::root().join("tests/clients").join(name);
        let file = dir.join("go.mod");
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("reading {}", file.display()))?;
        let (package, version) = parse(&text).with_context(|| {
            format!("{} names no `tool` with a required module", file.display())
        })?;
        Ok(Pin {
            dir,
            package,
            version,
        })
    }

    /// What the built program depends on: the pins, the compiler, and how it is called.
    fn stamp(&self, compiler: &str) -> Result<String> {
        let mut hash = Sha256::new();
        for file in ["go.mod", "go.sum"] {
            let path = self.dir.join(file);
            hash.update(
                std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?,
            );
        }
        hash.update(compiler);
        hash.update(BUILD.join(" "));
        Ok(hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect())
    }
}

/// `-s -w`: without symbols the programs are a third smaller. Not from a repository, so no version control stamp.
const BUILD: &[&str] = &[
    "build",
    "-buildvcs=false",
    "-mod=readonly",
    "-ldflags=-s -w",
];

/// The tool's package and the version of the required module with the longest matching path.
fn parse(text: &str) -> Option<(String, String)> {
    let package = text
        .lines()
        .find_map(|l| l.trim().strip_prefix("tool "))?
        .trim()
        .to_owned();
    let version = text
        .lines()
        .filter_map(|l| {
            let mut words = l.trim().trim_start_matches("require ").split_whitespace();
            Some((words.next()?, words.next()?))
        })
        .filter(|(path, version)| {
            version.starts_with('v')
                && package
                    .strip_prefix(path)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
        .max_by_key(|(path, _)| path.len())
        .map(|(_, version)| version.to_owned())?;
    Some((package, version))
}

/// Builds the program unless the stamp says that it is up to date.
pub(crate) fn install(name: &str, cache: &Path) -> Result<String> {
    let pin = Pin::read(name)?;
    if run::find("go").is_none() {
        bail!("no Go compiler: install Go (see https://go.dev/doc/install), then run this again");
    }
    let compiler = run::read(go(&pin.dir).arg("version"))?;
    let stamp = pin.stamp(&compiler)?;
    let stamp_file = cache.join("stamps").join(name);
    let program = cache.join("bin").join(name);
    if !program.is_file() || std::fs::read_to_string(&stamp_file).ok().as_deref() != Some(&stamp) {
        // Built beside and renamed, so that an interrupted link leaves no broken program.
        let fresh = cache.join("bin").join(format!(".{name}.new"));
        run::read(
            go(&pin.dir)
                .args(BUILD)
                .arg("-o")
                .arg(&fresh)
                .arg(&pin.package),
        )?;
        std::fs::rename(&fresh, &program)
            .with_context(|| format!("publishing {}", program.display()))?;
        std::fs::create_dir_all(cache.join("stamps"))?;
        std::fs::write(&stamp_file, &stamp)?;
    }
    Ok(format!("{} (Go module)", pin.version))
}

/// The pinned version of a program that is there.
pub(crate) fn version(name: &str, cache: &Path) -> Result<String> {
    let pin = Pin::read(name)?;
    let program = cache.join("bin").join(name);
    if !program.is_file() {
        bail!("not built: cargo xtask clients {name}");
    }
    Ok(format!("{} (Go module)", pin.version))
}

/// The Go tool in `dir`, with the compiler that is installed: fetching another one is nothing that a test may do.
fn go(dir: &Path) -> Command {
    let mut command = Command::new("nice");
    command
        .arg("go")
        .current_dir(dir)
        .env("GOTOOLCHAIN", "local")
        .env("GOWORK", "off");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tool_and_its_module_are_read() {
        let text = "module m\n\ngo 1.26\n\ntool a.test/x/v3/cmd/y\n\nrequire (\n\ta.test/x v0.1.0 // indirect\n\ta.test/x/v3 v3.2.1 // indirect\n)\n";
        assert_eq!(
            parse(text),
            Some(("a.test/x/v3/cmd/y".to_owned(), "v3.2.1".to_owned()))
        );
        let one = "tool b.test/z\n\nrequire b.test/z v1.0.0\n";
        assert_eq!(
            parse(one),
            Some(("b.test/z".to_owned(), "v1.0.0".to_owned()))
        );
        assert_eq!(parse("module m\n"), None);
        assert_eq!(parse("tool a.test/xy\nrequire a.test/x v1.0.0\n"), None);
    }
}
