//! What is opened, what is refused, and that a refused folder is left as it was.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use wharf_meta::{Error, Found, Meta, Opened, SCHEMA, SqliteOptions, inspect, setting};

use crate::{open, runtime};

/// Everything in a folder: name, content, time of the last change.
fn picture(folder: &Path) -> BTreeMap<String, (Vec<u8>, SystemTime)> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let changed = std::fs::metadata(&path).unwrap().modified().unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        files.insert(name, (std::fs::read(&path).unwrap(), changed));
    }
    files
}

/// Opening fails, and nothing in the folder is touched.
fn refused(folder: &Path) -> Error {
    let before = picture(folder);
    let error = Meta::open(SqliteOptions::new(folder.join("meta.db"))).unwrap_err();
    assert_eq!(inspect(&folder.join("meta.db")), Err(error.clone()));
    assert!(picture(folder) == before, "the folder was touched");
    error
}

/// Edits bytes of the database file.
fn edit(folder: &Path, at: usize, bytes: &[u8]) {
    let path = folder.join("meta.db");
    let mut content = std::fs::read(&path).unwrap();
    content[at..at + bytes.len()].copy_from_slice(bytes);
    std::fs::write(path, content).unwrap();
}

/// A folder with a closed store.
fn closed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(open(folder.path()).close());
    folder
}

#[test]
fn fresh_then_known() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("meta.db");
    assert_eq!(inspect(&path), Ok(Found::Nothing));
    let (meta, opened) = Meta::open(SqliteOptions::new(&path)).unwrap();
    assert_eq!(
        opened,
        Opened {
            fresh: true,
            migrated_from: None
        }
    );
    assert_eq!(
        inspect(&path),
        Ok(Found::Usable { schema: SCHEMA }),
        "while it is open, too"
    );
    drop(meta);
    let (_, opened) = Meta::open(SqliteOptions::new(&path)).unwrap();
    assert_eq!(
        opened,
        Opened {
            fresh: false,
            migrated_from: None
        }
    );
}

/// Password hashes and signing keys are nobody else's business.
#[test]
fn files_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let meta = open(folder.path());
    runtime()
        .block_on(meta.write(setting::Put {
            key: "k".into(),
            value: "v".into(),
        }))
        .unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(
            entry.metadata().unwrap().mode() & 0o077,
            0,
            "{:?}",
            entry.path()
        );
    }
}

/// A crash while the database was made leaves nothing that hinders the next start.
#[test]
fn half_made_databases_are_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("meta.db.new"), b"half").unwrap();
    std::fs::write(folder.path().join("meta.db.new-journal"), b"half").unwrap();
    runtime().block_on(open(folder.path()).close());
    let left: Vec<_> = picture(folder.path()).into_keys().collect();
    assert_eq!(
        left.iter().filter(|name| name.contains("new")).count(),
        0,
        "{left:?}"
    );
}

#[test]
fn foreign_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("meta.db"), "certainly no database").unwrap();
    assert!(matches!(refused(folder.path()), Error::Foreign { .. }));

    let folder = tempfile::tempdir().unwrap();
    let other = rusqlite::Connection::open(folder.path().join("meta.db")).unwrap();
    other
        .execute_batch("PRAGMA application_id = 77; CREATE TABLE x (y)")
        .unwrap();
    drop(other);
    let error = refused(folder.path());
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("0x4d"), "{error}");
}

#[test]
fn newer_schemas_are_refused_only_below_their_oldest() {
    let newer = |oldest: u32, schema: u32| {
        let folder = closed();
        edit(folder.path(), 60, &((oldest << 16) | schema).to_be_bytes());
        folder
    };
    let folder = newer(SCHEMA + 1, SCHEMA + 3);
    let error = refused(folder.path());
    let expected = Error::Newer {
        path: folder.path().join("meta.db"),
        schema: SCHEMA + 3,
        oldest: SCHEMA + 1,
        known: SCHEMA,
    };
    assert_eq!(error, expected);
    let folder = newer(SCHEMA, SCHEMA + 3);
    assert_eq!(
        inspect(&folder.path().join("meta.db")),
        Ok(Found::Usable { schema: SCHEMA + 3 })
    );
    let meta = open(folder.path());
    runtime()
        .block_on(meta.write(setting::Put {
            key: "k".into(),
            value: "v".into(),
        }))
        .unwrap();
}

#[test]
fn damaged_files_are_refused() {
    let folder = closed();
    let path = folder.path().join("meta.db");
    let content = std::fs::read(&path).unwrap();
    std::fs::write(&path, &content[..content.len() - 4096]).unwrap();
    let error = refused(folder.path());
    assert!(
        matches!(&error, Error::Corrupt(reason) if reason.contains("was cut")),
        "{error}"
    );
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(refused(folder.path()), Error::Corrupt(_)));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(
        folder.path().join("meta.db-wal"),
        b"a log without its database",
    )
    .unwrap();
    assert!(matches!(refused(folder.path()), Error::Corrupt(_)));

    // A header that is right over pages that are not.
    let folder = closed();
    edit(folder.path(), 100, &[0xee; 400]);
    let error = Meta::open(SqliteOptions::new(folder.path().join("meta.db"))).unwrap_err();
    assert!(matches!(error, Error::Corrupt(_)), "{error}");
}

/// Runs as another user when the tests run as root, whom no permission holds.
#[test]
fn read_only_folders_are_refused() {
    if let Ok(folder) = std::env::var("WHARF_META_READ_ONLY") {
        let error = Meta::open(SqliteOptions::new(Path::new(&folder).join("meta.db"))).unwrap_err();
        assert!(matches!(error, Error::ReadOnly { .. }), "{error}");
        assert!(error.to_string().contains("--data"), "{error}");
        return;
    }
    let folder = closed();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    let before = picture(folder.path());
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args(["--exact", "open::read_only_folders_are_refused"])
        .env("WHARF_META_READ_ONLY", folder.path());
    if rustix::process::geteuid().is_root() {
        child.uid(65534).gid(65534);
    }
    let output = child.output().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(picture(folder.path()) == before, "the folder was touched");
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = Meta::open(SqliteOptions::new(folder.path().join("none/meta.db"))).unwrap_err();
    assert!(matches!(error, Error::Io(_)), "{error}");
}

/// Opening does not depend on what is stored, also with a log that a crash left behind.
#[test]
fn opening_is_quick() {
    let folder = closed();
    {
        let connection = rusqlite::Connection::open(folder.path().join("meta.db")).unwrap();
        connection
            .execute_batch(
                "PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 0; BEGIN;
                 INSERT INTO event (at, kind, actor, payload) WITH RECURSIVE n (i) AS
                 (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)
                 SELECT i, 'tag.move', 'somebody', '{\"a\":\"some payload of a usual length, more or less\"}' FROM n;
                 COMMIT;",
            )
            .unwrap();
        // As a crash would: the log stays.
        connection
            .set_db_config(
                rusqlite::config::DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE,
                true,
            )
            .unwrap();
    }
    let log = std::fs::metadata(folder.path().join("meta.db-wal"))
        .unwrap()
        .len();
    assert!(log > 10 << 20, "{log} bytes of log");
    // What SQLite alone takes to recover the same files.
    let copy = tempfile::tempdir().unwrap();
    for name in ["meta.db", "meta.db-wal"] {
        std::fs::copy(folder.path().join(name), copy.path().join(name)).unwrap();
    }
    let start = Instant::now();
    let _: i64 = rusqlite::Connection::open(copy.path().join("meta.db"))
        .unwrap()
        .query_row("SELECT max(id) FROM event", [], |row| row.get(0))
        .unwrap();
    let alone = start.elapsed();
    let start = Instant::now();
    let meta = open(folder.path());
    runtime()
        .block_on(meta.read(setting::Get { key: "k".into() }))
        .unwrap();
    let took = start.elapsed();
    assert!(
        took <= alone * 5 + Duration::from_millis(500),
        "{took:?}, SQLite alone {alone:?}"
    );
}
