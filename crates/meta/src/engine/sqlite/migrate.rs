//! Making a database, and bringing an old one up to date.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rusqlite::OpenFlags;

use super::connection::{error, open};
use super::dialect;
use crate::error::{Error, Result};
use crate::folder::{APPLICATION_ID, beside, folder_of};
use crate::migration::{self, ALL, Migration, Version};

/// Makes a database aside and puts it in place when it is complete and durable, so that a crash leaves none or all.
pub(super) fn create(path: &Path) -> Result<()> {
    make(path, ALL)
}

fn make(path: &Path, all: &[Migration]) -> Result<()> {
    let new = beside(path, ".new");
    for leftover in ["", "-journal"] {
        match std::fs::remove_file(beside(&new, leftover)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(&new, &e)),
            _ => {}
        }
    }
    // It will hold password hashes and signing keys. SQLite gives its log the same mode.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .map_err(|e| io(&new, &e))?;
    {
        let connection = open(&new, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let fail = |e: rusqlite::Error| error(&e, "create");
        connection
            .execute_batch(&format!(
                "PRAGMA page_size = {}; PRAGMA auto_vacuum = INCREMENTAL; PRAGMA application_id = {APPLICATION_ID}; \
                 PRAGMA foreign_keys = OFF;",
                super::shared::PAGE
            ))
            .map_err(fail)?;
        apply(&connection, all, 0)?;
        keep_log(&connection, path)?;
        connection.close().map_err(|(_, e)| fail(e))?;
    }
    file.sync_all().map_err(|e| io(&new, &e))?;
    std::fs::rename(&new, path).map_err(|e| io(path, &e))?;
    sync_folder(path)
}

/// Turns the write-ahead log on; a snapshot, and so a restored backup, comes without one.
fn keep_log(connection: &rusqlite::Connection, path: &Path) -> Result<()> {
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(|e| error(&e, "journal_mode"))?;
    if mode == "wal" {
        return Ok(());
    }
    Err(Error::Io(format!(
        "SQLite cannot keep a write-ahead log in {}",
        folder_of(path).display()
    )))
}

/// Brings the database at `path` up to date; gives its schema before, if it was older. A snapshot of the old state is
/// left beside it.
pub(super) fn upgrade(path: &Path, all: &[Migration]) -> Result<Option<u32>> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let fail = |e: rusqlite::Error| error(&e, "upgrade");
    let value = connection
        .pragma_query_value(None, "user_version", |row| row.get(0))
        .map_err(fail)?;
    // Seen before in the header, but a log that was not yet moved may say more.
    let version = Version::from_user_version(value);
    migration::usable(path, version)?;
    let ran = {
        let mut statement = connection
            .prepare("SELECT number, checksum FROM migration ORDER BY number")
            .map_err(fail)?;
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(fail)?;
        rows.collect::<rusqlite::Result<Vec<(u32, String)>>>()
            .map_err(fail)?
    };
    let mut pending = migration::pending(all, version.schema, &ran)?;
    keep_log(&connection, path)?;
    // Closing this connection, the only one, moves the log into the database and removes it: what a crash has torn at its
    // end never stands behind later commits, where `log` would take it for damage.
    if pending.next().is_none() {
        return Ok(None);
    }
    let snapshot = beside(path, &format!(".schema-{:04}", version.schema));
    match std::fs::remove_file(&snapshot) {
        // Of a migration that failed; the database still has that state.
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(io(&snapshot, &e)),
    }
    copy_into(&connection, &snapshot)?;
    tracing::info!(from = version.schema, snapshot = %snapshot.display(), "migrating the metadata");
    apply(&connection, all, version.schema)?;
    // From here on the header alone tells the schema.
    connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .map_err(fail)?;
    Ok(Some(version.schema))
}

/// Runs what is newer than `version`, all or nothing.
fn apply(connection: &rusqlite::Connection, all: &[Migration], version: u32) -> Result<()> {
    let fail = |e: rusqlite::Error| error(&e, "migrate");
    connection
        .execute_batch("PRAGMA synchronous = FULL; BEGIN IMMEDIATE")
        .map_err(fail)?;
    let run = || -> Result<()> {
        if version == 0 {
            let sql = "CREATE TABLE migration (number BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT \
                       NULL) /*sqlite STRICT */";
            connection
                .execute_batch(&dialect::migration(sql))
                .map_err(fail)?;
        }
        let mut now = Version {
            schema: version,
            oldest: 0,
        };
        for migration in all.iter().filter(|m| m.number > version) {
            connection
                .execute_batch(&dialect::migration(migration.sql))
                .map_err(fail)?;
            connection
                .execute(
                    "INSERT INTO migration (number, name, checksum) VALUES (?1, ?2, ?3)",
                    (migration.number, migration.name, migration.checksum()),
                )
                .map_err(fail)?;
            let oldest = migration.oldest().ok_or_else(|| Error::Bug {
                op: "migrate".to_owned(),
                reason: format!(
                    "migration {} does not say the oldest schema",
                    migration.number
                ),
            })?;
            now = Version {
                schema: migration.number,
                oldest: now.oldest.max(oldest),
            };
        }
        connection
            .pragma_update(None, "user_version", now.to_user_version())
            .map_err(fail)?;
        connection.execute_batch("COMMIT").map_err(fail)
    };
    run().inspect_err(|_| {
        if !connection.is_autocommit() {
            // The error that counts is the one before.
            let _ = connection.execute_batch("ROLLBACK");
        }
    })
}

/// Copies the database as it is now into a file that does not exist, and syncs it.
pub(super) fn copy_into(connection: &rusqlite::Connection, to: &Path) -> Result<()> {
    let name = to
        .to_str()
        .ok_or_else(|| Error::Io(format!("{} is no UTF-8", to.display())))?;
    // SQLite would use an empty file that is there; this one is made here, so that its mode is right and it is ours.
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(|e| io(to, &e))?;
    let copied = connection
        .execute("VACUUM INTO ?1", [name])
        .map_err(|e| error(&e, "VACUUM INTO"));
    let synced = copied
        .and_then(|_| file.sync_all().map_err(|e| io(to, &e)))
        .and_then(|()| sync_folder(to));
    synced.inspect_err(|_| {
        // Half a copy helps nobody; the error that counts is the one before.
        let _ = std::fs::remove_file(to);
    })
}

fn sync_folder(path: &Path) -> Result<()> {
    let folder = folder_of(path);
    File::open(&folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|e| io(&folder, &e))
}

fn io(path: &Path, error: &std::io::Error) -> Error {
    Error::Io(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MORE: Migration = Migration {
        number: 2,
        name: "more",
        sql: "-- oldest: 1\nCREATE TABLE more (a BIGINT) /*sqlite STRICT */;",
    };
    const BROKEN: Migration = Migration {
        number: 3,
        name: "broken",
        sql: "-- oldest: 3\nCREATE TABLE more (a BIGINT);",
    };

    fn with(more: &[Migration]) -> Vec<Migration> {
        ALL[..1].iter().chain(more).copied().collect()
    }

    /// A database with schema 1 and a row in it.
    fn old() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meta.db");
        make(&path, &ALL[..1]).unwrap();
        let connection = rusqlite::Connection::open(&path).unwrap();
        connection
            .execute_batch("INSERT INTO setting (key, value) VALUES ('k', 'v')")
            .unwrap();
        (folder, path)
    }

    fn version(path: &Path) -> Version {
        let connection = rusqlite::Connection::open(path).unwrap();
        Version::from_user_version(
            connection
                .pragma_query_value(None, "user_version", |row| row.get(0))
                .unwrap(),
        )
    }

    fn setting(path: &Path) -> String {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection
            .query_row("SELECT value FROM setting", [], |row| row.get(0))
            .unwrap()
    }

    #[test]
    fn upgrades_once_and_leaves_a_snapshot() {
        let (_folder, path) = old();
        assert_eq!(upgrade(&path, &with(&[])).unwrap(), None);
        assert_eq!(upgrade(&path, &with(&[MORE])).unwrap(), Some(1));
        assert_eq!(upgrade(&path, &with(&[MORE])).unwrap(), None);
        assert_eq!(
            version(&path),
            Version {
                schema: 2,
                oldest: 1
            }
        );
        assert_eq!(setting(&path), "v");
        let snapshot = beside(&path, ".schema-0001");
        assert_eq!(
            version(&snapshot),
            Version {
                schema: 1,
                oldest: 1
            }
        );
        assert_eq!(setting(&snapshot), "v");
        // The version before goes on with it.
        assert_eq!(upgrade(&path, &with(&[])).unwrap(), None);
    }

    /// All of an upgrade or nothing; a snapshot of a failed one does not hinder the next.
    #[test]
    fn failures_change_nothing() {
        let (_folder, path) = old();
        for _ in 0..2 {
            upgrade(&path, &with(&[MORE, BROKEN])).unwrap_err();
            assert_eq!(
                version(&path),
                Version {
                    schema: 1,
                    oldest: 1
                }
            );
            assert_eq!(setting(&path), "v");
        }
        assert_eq!(upgrade(&path, &with(&[MORE])).unwrap(), Some(1));
    }

    /// A migration that was changed after it ran is noticed.
    #[test]
    fn changed_migrations_are_refused() {
        let (_folder, path) = old();
        upgrade(&path, &with(&[MORE])).unwrap();
        let changed = Migration {
            sql: "-- oldest: 1\nCREATE TABLE more (b BIGINT);",
            ..MORE
        };
        let error = upgrade(&path, &with(&[changed])).unwrap_err();
        assert!(matches!(error, Error::Corrupt(_)), "{error}");
    }

    /// The log may know of a newer schema than the header of the file.
    #[test]
    fn newer_schemas_in_the_log_are_refused() {
        let (_folder, path) = old();
        let connection = rusqlite::Connection::open(&path).unwrap();
        let newer = Version {
            schema: 60000,
            oldest: 60000,
        };
        connection
            .pragma_update(None, "user_version", newer.to_user_version())
            .unwrap();
        let header = std::fs::read(&path).unwrap();
        let in_header = i32::from_be_bytes(header[60..64].try_into().unwrap());
        assert_ne!(in_header, newer.to_user_version(), "it is in the log only");
        let error = upgrade(&path, &with(&[])).unwrap_err();
        assert!(
            matches!(error, Error::Newer { schema: 60000, .. }),
            "{error}"
        );
    }
}
