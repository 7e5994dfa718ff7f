//! SQLite: the shared suite, and what is its own.

use wharf_meta::suite::Store;
use wharf_meta::{Meta, SqliteOptions};

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

wharf_meta::meta_suite!(suite, make);
