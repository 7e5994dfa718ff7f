//! SQLite: the shared suite, and what is its own.

mod crash;
mod engine;
mod faults;
mod fixture;
mod growth;
mod growth_people;
mod open;
mod pairs;
mod statements;

use std::path::Path;

use wharf_meta::suite::Store;
use wharf_meta::{Meta, SqliteOptions};

/// Opens the store in a folder.
fn open(folder: &Path) -> Meta {
    Meta::open(SqliteOptions::new(folder.join("meta.db")))
        .expect("a store")
        .0
}

/// An empty store in a folder of its own.
fn make() -> Store {
    let folder = tempfile::tempdir().expect("a folder");
    let (meta, opened) =
        Meta::open(SqliteOptions::new(folder.path().join("meta.db"))).expect("a store");
    assert!(opened.fresh);
    Store {
        meta,
        keep: Box::new(folder),
    }
}

/// A runtime with four threads.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// Fails unless the database of a closed or crashed store is sound, and its counters are right.
fn check(folder: &Path) {
    let connection = rusqlite::Connection::open(folder.join("meta.db")).expect("the database");
    let text = |sql: &str| {
        connection
            .query_row(sql, [], |row| row.get::<_, String>(0))
            .expect(sql)
    };
    let number = |sql: &str| {
        connection
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .expect(sql)
    };
    assert_eq!(text("PRAGMA integrity_check"), "ok");
    assert_eq!(number("PRAGMA auto_vacuum"), 2, "incremental");
    let counts = [
        ("repositories", "SELECT COUNT(*) FROM repository"),
        ("manifests", "SELECT COUNT(*) FROM manifest WHERE state = 1"),
        ("tags", "SELECT COUNT(*) FROM tag"),
        ("blobs", "SELECT COUNT(*) FROM blob WHERE state = 1"),
        (
            "blob_bytes",
            "SELECT COALESCE(SUM(size), 0) FROM blob WHERE state = 1",
        ),
        ("uploads", "SELECT COUNT(*) FROM upload"),
    ];
    for (name, sql) in counts {
        let counted = number(&format!(
            "SELECT COALESCE(SUM(value), 0) FROM counter WHERE name = '{name}'"
        ));
        assert_eq!(counted, number(sql), "{name}");
    }
    let wrong = "SELECT COUNT(*) FROM repository r WHERE \
         COALESCE((SELECT bytes FROM repository_bytes s WHERE s.repository_id = r.id), 0) \
         + COALESCE((SELECT SUM(bytes) FROM usage_delta d WHERE d.repository_id = r.id), 0) \
         <> COALESCE((SELECT SUM(counted) FROM repository_blob l WHERE l.repository_id = r.id), 0) \
         + COALESCE((SELECT SUM(counted) FROM manifest m WHERE m.repository_id = r.id), 0)";
    assert_eq!(number(wrong), 0, "sums of repositories");
    // No half of any operation.
    let halves = [
        "SELECT COUNT(*) FROM tag t LEFT JOIN manifest m ON m.id = t.manifest_id WHERE m.state IS NOT 1",
        "SELECT COUNT(*) FROM manifest m LEFT JOIN manifest_inline i ON i.manifest_id = m.id \
         WHERE m.state = 1 AND i.bytes IS NULL",
        "SELECT COUNT(*) FROM blob b LEFT JOIN blob_inline i ON i.blob_id = b.id \
         WHERE b.state = 1 AND b.key IS NULL AND i.bytes IS NULL",
        "SELECT COUNT(*) FROM upload_chunk c LEFT JOIN upload u ON u.id = c.upload_id WHERE u.id IS NULL",
        "SELECT COUNT(*) FROM tag t LEFT JOIN tag_history h ON h.repository_id = t.repository_id AND h.name = t.name \
         AND h.version = t.version WHERE h.version IS NULL",
    ];
    for sql in halves {
        assert_eq!(number(sql), 0, "{sql}");
    }
}

wharf_meta::meta_suite!(suite, make);
