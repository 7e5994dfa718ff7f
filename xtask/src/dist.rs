//! `cargo xtask dist`: a release as one archive with its checksum.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

use crate::{run, workspace};

/// Runs the task.
pub(crate) fn main() -> Result<()> {
    let root = workspace::root();
    run::check(
        Command::new("cargo")
            .args(["build", "--release", "--locked", "--package", "wharf"])
            .current_dir(&root),
    )?;
    let target = host()?;
    let name = format!("wharf-{}-{target}", env!("CARGO_PKG_VERSION"));
    let dist = workspace::target_dir().join("dist");
    let stage = dist.join(&name);
    let _ = std::fs::remove_dir_all(&stage);
    std::fs::create_dir_all(&stage)?;
    std::fs::copy(
        workspace::target_dir().join("release/wharf"),
        stage.join("wharf"),
    )
    .context("copying the binary")?;
    run::check(Command::new("strip").arg(stage.join("wharf")))?;
    for file in ["LICENSE", "README.md"] {
        std::fs::copy(root.join(file), stage.join(file))
            .with_context(|| format!("{file} belongs to a release"))?;
    }
    let archive = dist.join(format!("{name}.tar.gz"));
    pack(&dist, &name, &archive)?;
    std::fs::remove_dir_all(&stage)?;
    let sum = sha256(&archive)?;
    std::fs::write(
        dist.join(format!("{name}.tar.gz.sha256")),
        format!("{sum}  {name}.tar.gz\n"),
    )?;
    println!(
        "{} ({} bytes)\nsha256 {sum}",
        archive.display(),
        archive.metadata()?.len()
    );
    Ok(())
}

/// Packs so that the same content gives the same archive: sorted, without owners and times.
fn pack(dist: &Path, name: &str, archive: &Path) -> Result<()> {
    let tar = archive.with_extension("");
    let options = [
        "--sort=name",
        "--mtime=@0",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mode=u=rwX,go=rX",
    ];
    run::read(
        Command::new("tar")
            .args(options)
            .arg("-cf")
            .arg(&tar)
            .arg("-C")
            .arg(dist)
            .arg(name),
    )?;
    run::read(Command::new("gzip").args(["-n", "-9", "-f"]).arg(&tar))?;
    ensure!(archive.is_file(), "gzip wrote no {}", archive.display());
    Ok(())
}

/// The target for which cargo builds when it is told none.
fn host() -> Result<String> {
    let told = run::read(Command::new("rustc").arg("-vV"))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

fn sha256(file: &Path) -> Result<String> {
    let bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    Ok(Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_makes_the_same_archive() {
        let sums: Vec<String> = (0..2)
            .map(|n| {
                let dir = tempfile::tempdir().unwrap();
                std::fs::create_dir(dir.path().join("w")).unwrap();
                std::fs::write(dir.path().join("w/b"), "b").unwrap();
                std::fs::write(dir.path().join("w/a"), "a").unwrap();
                std::thread::sleep(std::time::Duration::from_millis(n * 20));
                let archive = dir.path().join("w.tar.gz");
                pack(dir.path(), "w", &archive).unwrap();
                sha256(&archive).unwrap()
            })
            .collect();
        assert_eq!(sums[0], sums[1]);
    }
}
