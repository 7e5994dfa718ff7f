//! Where things lie: the workspace, its target folder, its source files.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The workspace's root folder.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask lies one folder below the workspace's root")
        .to_path_buf()
}

/// Cargo's target folder, `CARGO_TARGET_DIR` honoured.
pub(crate) fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// The folder that keeps the clients between runs: `$WHARF_CLIENTS`, else `wharf/clients` in the user's cache.
pub(crate) fn clients_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("WHARF_CLIENTS") {
        return Ok(PathBuf::from(dir));
    }
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => {
            let home = std::env::var_os("HOME")
                .context("neither WHARF_CLIENTS nor XDG_CACHE_HOME nor HOME is set: set WHARF_CLIENTS to a folder")?;
            Path::new(&home).join(".cache")
        }
    };
    Ok(cache.join("wharf/clients"))
}

/// Every file below `dir` whose extension is `ext`, sorted, hidden folders and `target` left out.
pub(crate) fn files(dir: &Path, ext: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    walk(dir, ext, &mut found)?;
    found.sort();
    Ok(found)
}

fn walk(dir: &Path, ext: &str, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .unwrap_or_default();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() {
            walk(&path, ext, found)?;
        } else if path.extension().is_some_and(|e| e == ext) {
            found.push(path);
        }
    }
    Ok(())
}

/// `path` as it is written in findings: relative to the workspace's root.
pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root())
        .unwrap_or(path)
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_holds_the_workspace() {
        assert!(root().join("Cargo.lock").is_file());
        assert!(
            files(&root().join("xtask"), "rs")
                .unwrap()
                .contains(&root().join("xtask/src/main.rs"))
        );
    }
}
