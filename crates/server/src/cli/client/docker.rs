//! Docker's `config.json` of this user, in which clients read who keeps a registry's credentials.
//!
//! Podman, helm, oras and crane read it too, where their own files say nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::file;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::credential_helper::{
    Changed, ConfigError, HELPER, LARGEST_CONFIG, PROGRAM, Server, forget_helper, name_helper,
};

/// Where it is.
fn path() -> Option<PathBuf> {
    let folder = file::set("DOCKER_CONFIG").map(PathBuf::from);
    let home = || file::set("HOME").map(|home| PathBuf::from(home).join(".docker"));
    Some(folder.or_else(home)?.join("config.json"))
}

/// Whether clients would find the program.
pub(super) fn is_installed() -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| {
        let found = std::fs::metadata(folder.join(PROGRAM));
        found.is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

/// How the program comes to be.
pub(super) fn advice() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| "/usr/local/bin/wharf".into());
    let folder = program.parent().unwrap_or(Path::new("/usr/local/bin"));
    format!(
        "docker, podman, helm and oras use this sign-in once {PROGRAM} is in PATH: ln -s {} {}, then the same login again\n",
        program.display(),
        folder.join(PROGRAM).display()
    )
}

fn edit(
    path: &Path,
    edit: impl FnOnce(&str) -> Result<Changed, ConfigError>,
) -> Result<Changed, Failure> {
    let text = file::read(path, LARGEST_CONFIG)?;
    edit(text.as_deref().unwrap_or_default()).map_err(|error| {
        let text = format!(
            "{}: {error}; correct it, or leave it alone with --no-docker",
            path.display()
        );
        Failure::text(Exit::Usage, text)
    })
}

/// Whether the configuration can be changed, before anything else is.
pub(super) fn check(host: &str) -> Outcome {
    match path() {
        Some(path) => edit(&path, |text| name_helper(text, host)).map(drop),
        None => Ok(()),
    }
}

/// Names this program for a registry. What to tell.
pub(super) fn name(host: &str) -> Result<String, Failure> {
    let Some(path) = path() else {
        return Ok(String::new());
    };
    let shown = path.display();
    Ok(match edit(&path, |text| name_helper(text, host))? {
        Changed::Nothing => format!("docker, podman, helm and oras use it too, as {shown} says.\n"),
        Changed::Text { text, before } => {
            file::write(&path, &text)?;
            let before = before.map_or(String::new(), |before| format!(" in place of {before:?}"));
            format!(
                "docker, podman, helm and oras use it too: {shown} names {HELPER:?} under credHelpers for {host}{before}.\n"
            )
        }
    })
}

/// Takes this program away from a registry. What to tell.
pub(super) fn forget(server: &Server) -> Result<String, Failure> {
    let Some(path) = path() else {
        return Ok(String::new());
    };
    Ok(match edit(&path, |text| forget_helper(text, server))? {
        Changed::Nothing => String::new(),
        Changed::Text { text, .. } => {
            file::write(&path, &text)?;
            format!(
                "{} names no credential helper for it any more.\n",
                path.display()
            )
        }
    })
}
