//! `wharf admin`, `wharf backup` and `wharf storage`: they work on a data folder, in use or not.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;

use wharf_core::backup;

use super::exit::{Exit, Failure, Outcome};
use super::human::{bytes, count};
use super::offline::{absolute, perform, runtime};
use super::print;
use crate::admin::{Command, Copied, Hidden, Reindexed, Reply, Verified};
use crate::app::{ForgetError, Place, copy as copy_metadata, forget};
use crate::config::{Inputs, StorageKind, load};

/// Longer passwords are no passwords.
const LONGEST_PASSWORD: u64 = 4096;

/// Gives the administrator a new password and prints it, unless it was chosen.
pub(super) fn reset_password(inputs: &Inputs, file: Option<&Path>) -> Outcome {
    let config = load(inputs)?.config;
    let password = file.map(read_password).transpose()?;
    let chosen = password.is_some();
    match perform(&config, Command::ResetPassword { password })? {
        Reply::Password { .. } if chosen => print("The user admin has the new password.\n"),
        // Only the password goes to standard output, so that a script can take it.
        Reply::Password {
            password: Hidden(password),
        } => {
            eprintln!("The user admin has a new password, shown only now:");
            print(&format!("{password}\n"))
        }
        other => Err(unexpected(&other)),
    }
}

/// Forgets what only a lost key opens.
pub(super) fn forget_secrets(inputs: &Inputs) -> Outcome {
    let config = load(inputs)?.config;
    match runtime()?.block_on(forget(&config.data_options())) {
        Ok(()) => print(
            "The secrets are forgotten. The next start seals new ones with its own key; whoever holds a token signs in again.\n",
        ),
        Err(ForgetError::Data(error)) => Err(error.into()),
        Err(error @ ForgetError::Served { .. }) => Err(Failure::new(Exit::Data, error)),
        Err(error) => Err(Failure::new(Exit::Failure, error)),
    }
}

pub(super) fn read_password(file: &Path) -> Result<Hidden, Failure> {
    let read = |source: &mut dyn std::io::Read| {
        let mut text = String::new();
        source
            .take(LONGEST_PASSWORD)
            .read_to_string(&mut text)
            .map(|_| text)
    };
    let text = if file == Path::new("-") {
        read(&mut std::io::stdin().lock())
    } else {
        std::fs::File::open(file).and_then(|mut file| read(&mut file))
    };
    match text {
        Ok(text) => Ok(Hidden(text.trim_end_matches(['\n', '\r']).to_owned())),
        Err(error) => Err(Failure::text(
            Exit::Usage,
            format!("cannot read the password from {}: {error}", file.display()),
        )),
    }
}

/// Backs up.
pub(super) fn backup(inputs: &Inputs, folder: &Path, metadata_only: bool) -> Outcome {
    let config = load(inputs)?.config;
    let folder = absolute(folder)?;
    if metadata_only && config.storage.kind == StorageKind::Fs {
        return Err(Failure::text(
            Exit::Usage,
            "--metadata-only is for blobs in a bucket; these are files in the data folder, and a backup needs them",
        ));
    }
    match perform(
        &config,
        Command::BackupCreate {
            folder: folder.clone(),
            metadata_only,
        },
    )? {
        Reply::Copied(_) if metadata_only => print(&format!(
            "Backed up to {}: the metadata. What is deleted from now on keeps its blobs for `restore.window`, so that long this backup \
             is whole.\n",
            folder.display()
        )),
        Reply::Copied(copied) => {
            let told = format!(
                "Backed up to {}: {}.",
                folder.display(),
                copied_text(&copied)
            );
            let cure = "run `wharf storage verify --deep`, then push them again";
            finish_copy(&told, &copied, cure)
        }
        other => Err(unexpected(&other)),
    }
}

/// Copies the blobs into another store.
pub(super) fn copy(inputs: &Inputs, to: &Path) -> Outcome {
    let config = load(inputs)?.config;
    let to = absolute(to)?;
    match perform(&config, Command::StorageCopy { to: to.clone() })? {
        Reply::Copied(copied) => {
            let told = format!(
                "{} in {} are in the store of {}; {} of them were copied now.",
                count(copied.blobs, "blob"),
                bytes(copied.bytes),
                to.display(),
                copied.added
            );
            let cure = "run `wharf storage verify --deep`, push them again, then copy once more";
            finish_copy(&told, &copied, cure)
        }
        other => Err(unexpected(&other)),
    }
}

/// Lists or adopts what no row names.
pub(super) fn reindex(inputs: &Inputs, repositories: Vec<String>) -> Outcome {
    let config = load(inputs)?.config;
    let adopts = !repositories.is_empty();
    match perform(&config, Command::StorageReindex { repositories })? {
        Reply::Reindexed(done) => print(&reindexed(&done, adopts)),
        other => Err(unexpected(&other)),
    }
}

fn reindexed(done: &Reindexed, adopts: bool) -> String {
    let mut text = String::new();
    for (digest, size, key) in &done.listed {
        let _ = writeln!(text, "{digest}  {}  {key}", bytes(*size));
    }
    for key in &done.damaged {
        let _ = writeln!(text, "damaged, left alone: {key}");
    }
    let _ = writeln!(
        text,
        "{} in {} that no row names; {} adopted, {} damaged, {} there already.",
        count(done.found, "object"),
        bytes(done.bytes),
        done.adopted,
        done.damaged.len(),
        done.surplus
    );
    if !adopts && !done.listed.is_empty() {
        text.push_str("Nothing was changed; --repository NAME lets that repository hold them.\n");
    }
    text
}

/// Makes a data folder out of a backup.
pub(super) fn restore(inputs: &Inputs, folder: &Path) -> Outcome {
    let config = load(inputs)?.config;
    let data = absolute(&config.server.data)?;
    let runtime = runtime()?;
    let target = config
        .postgres_options()
        .map(|options| Place::Postgres(Box::new(options)));
    let refused = |error| Failure::text(Exit::Failure, format!("metadata.url: {error}"));
    if let Some(target) = &target {
        runtime.block_on(target.expect_empty()).map_err(refused)?;
    }
    let content = backup::content(folder).map_err(|error| Failure::new(Exit::Failure, error))?;
    let kind = config.storage.kind;
    if content == backup::Content::Metadata && kind == StorageKind::Fs {
        return Err(Failure::text(
            Exit::Usage,
            format!(
                "{} holds the metadata alone, and its blobs are in a bucket: name that in `[storage]`",
                folder.display()
            ),
        ));
    }
    let done = runtime.block_on(backup::restore(folder, &data, &mut |_| ()));
    let copied = done.map_err(|error| {
        let exit = match error {
            backup::BackupError::NotEmpty { .. } => Exit::Data,
            _ => Exit::Failure,
        };
        Failure::new(exit, error)
    })?;
    let file = data.join(backup::DATABASE);
    let look = wharf_meta::look::file(&file).map_err(|error| Failure::new(Exit::Failure, error))?;
    let sealed = look.known.and_then(|known| known.secret_key);
    if let Some(target) = &target {
        let moved = runtime.block_on(copy_metadata(
            &Place::Sqlite(file.clone()),
            target,
            &mut |_, _, _| (),
        ));
        moved.map_err(|(_, error)| refused(error))?;
        // It is in the other database now, and compared.
        remove_database(&file)?;
    }
    let copied = Copied::from(copied);
    let text = format!(
        "{} in {}, and the metadata",
        count(copied.blobs, "blob file"),
        bytes(copied.bytes)
    );
    let text = match content {
        backup::Content::Everything => text,
        backup::Content::Metadata => "the metadata".to_owned(),
    };
    let bucket = match kind {
        StorageKind::Fs => String::new(),
        _ if content == backup::Content::Metadata => format!(
            "\nThe blobs are expected in the bucket of `[storage.{kind}]`; `wharf storage verify` asks for each."
        ),
        _ => format!(
            "\nThe blobs are files there, and storage.kind is \"{kind}\": if the bucket has lost them, copy them into it with \
             `wharf storage copy --to` and a configuration of kind \"fs\"."
        ),
    };
    let secrets = sealed.map_or_else(String::new, |key| {
        format!(
            "\nIts secrets are sealed with the secret key {key}, which no backup holds: put that file back before the start \
             (`secret.key` in the data folder, or the one that `access.secret_key_file` names)."
        )
    });
    let told = format!(
        "Restored to {}: {text}.{bucket}{secrets}\nNothing is collected there until `wharf gc resume`: look first whether all is as it should be.",
        data.display()
    );
    let cure = "everything else is restored; push them again, or restore another backup";
    finish_copy(&told, &copied, cure)
}

fn remove_database(file: &Path) -> Outcome {
    for suffix in ["", "-wal", "-shm"] {
        let mut path = file.as_os_str().to_owned();
        path.push(suffix);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let path = Path::new(&path).display();
                return Err(Failure::text(Exit::Failure, format!("{path}: {error}")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks a backup.
pub(super) fn verify_backup(folder: &Path) -> Outcome {
    let done = runtime()?.block_on(backup::verify(folder, &mut |_| ()));
    let report = done.map_err(|error| Failure::new(Exit::Failure, error))?;
    finish_check(
        &Verified::from(report),
        "this backup cannot restore it: make another one",
    )
}

/// Checks the store.
pub(super) fn verify(inputs: &Inputs, deep: bool) -> Outcome {
    let config = load(inputs)?.config;
    match perform(&config, Command::StorageVerify { deep })? {
        Reply::Verified(report) => finish_check(
            &report,
            "it is answered as unknown now: push it again to heal it, or restore a backup",
        ),
        other => Err(unexpected(&other)),
    }
}

pub(super) fn unexpected(reply: &Reply) -> Failure {
    let text = format!(
        "the running registry answered something else ({reply:?}); are both of one version?"
    );
    Failure::text(Exit::Failure, text)
}

fn copied_text(copied: &Copied) -> String {
    let mut text = format!(
        "{} in {}",
        count(copied.blobs, "blob file"),
        bytes(copied.bytes)
    );
    let _ = write!(
        text,
        " ({} new, {} removed), and the metadata",
        copied.added, copied.removed
    );
    text
}

fn finish_copy(told: &str, copied: &Copied, cure: &str) -> Outcome {
    print(&format!("{told}\n"))?;
    if copied.missing.is_empty() {
        return Ok(());
    }
    let mut text = format!(
        "{} not copied, since the bytes are lost or damaged:",
        count(copied.missing.len() as u64, "blob")
    );
    for digest in &copied.missing {
        let _ = write!(text, "\n  {digest}");
    }
    let _ = write!(text, "\n  help: {cure}");
    Err(Failure::text(Exit::Damage, text))
}

fn finish_check(report: &Verified, cure: &str) -> Outcome {
    let looked = format!(
        "Checked {} in {}, {}",
        count(report.blobs, "blob"),
        bytes(report.bytes),
        count(report.manifests, "manifest")
    );
    if report.is_sound() {
        let mut text = format!("{looked}: all sound.\n");
        notes(report, &mut text);
        return print(&text);
    }
    let mut text = format!("{looked}: {} damaged.\n", report.bad);
    for (digest, what) in &report.findings {
        let _ = writeln!(text, "  {digest}: {what}");
    }
    let unlisted = report.bad.saturating_sub(report.findings.len() as u64);
    if unlisted > 0 {
        let _ = writeln!(text, "  and {unlisted} more");
    }
    for line in &report.database {
        let _ = writeln!(text, "  database: {line}");
    }
    notes(report, &mut text);
    print(&text)?;
    let help = if !report.database.is_empty() {
        "the metadata is damaged: restore a backup"
    } else if report.withheld > 0 {
        "most of the store looks damaged, so nothing was given up: is its disk mounted? Look, then check again"
    } else {
        cure
    };
    Err(Failure::text(
        Exit::Damage,
        format!("the check found damage\n  help: {help}"),
    ))
}

fn notes(report: &Verified, text: &mut String) {
    if report.orphans > 0 {
        let files = count(report.orphans, "file");
        let _ = writeln!(
            text,
            "  {files} in {} that nothing names: harmless",
            bytes(report.orphan_bytes)
        );
    }
    for stray in &report.strays {
        let _ = writeln!(text, "  not part of the store: {stray}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_is_told_and_ends_with_its_own_code() {
        let sound = Verified {
            blobs: 2,
            bytes: 2048,
            manifests: 1,
            ..Verified::default()
        };
        assert!(finish_check(&sound, "cure").is_ok());
        let bad = Verified {
            bad: 1,
            findings: vec![("sha256:00".into(), "its bytes are gone".into())],
            ..sound.clone()
        };
        assert_eq!(finish_check(&bad, "cure").unwrap_err().exit, Exit::Damage);
        let database = Verified {
            database: vec!["row 7 missing".into()],
            ..sound
        };
        let failure = finish_check(&database, "cure").unwrap_err();
        assert_eq!(failure.exit, Exit::Damage);
        assert!(failure.error.to_string().contains("restore a backup"));
    }

    #[test]
    fn a_backup_that_lacks_bytes_is_no_success() {
        let copied = Copied {
            missing: vec!["sha256:00".into()],
            ..Copied::default()
        };
        let failure = finish_copy("Backed up.", &copied, "push").unwrap_err();
        assert_eq!(failure.exit, Exit::Damage);
        assert!(failure.error.to_string().contains("sha256:00"));
    }
}
