//! The version before goes on with a database that this one has migrated: each of its statements still means something.

use std::path::Path;

use crate::{open, runtime};

#[test]
fn statements_of_older_versions_run_on_this_schema() {
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(async { open(folder.path()).close().await });
    let database = rusqlite::Connection::open(folder.path().join("meta.db")).unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let (mut seen, mut newest) = (0, 0);
    for entry in std::fs::read_dir(fixtures).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let Some(schema) = name.strip_prefix("statements-") else {
            continue;
        };
        newest = newest.max(schema.parse::<i64>().unwrap());
        for statement in std::fs::read_to_string(&path).unwrap().lines() {
            // As the engine translates them.
            let end = [" FOR UPDATE", " FOR SHARE"]
                .iter()
                .filter_map(|lock| statement.find(lock))
                .min()
                .unwrap_or(statement.len());
            let sql = statement[..end].replace('$', "?");
            if let Err(error) = database.prepare(&sql) {
                panic!("{}: {statement}: {error}", path.display());
            }
            seen += 1;
        }
    }
    assert!(seen > 200, "{seen}");
    assert!(
        newest >= i64::from(wharf_meta::SCHEMA) - 1,
        "the statements of schema {} are not frozen: they stand in docs/reference/queries.md of the version before; put them, one a line, \
         into tests/fixtures/statements-{:04}.sql",
        wharf_meta::SCHEMA - 1,
        wharf_meta::SCHEMA - 1,
    );
}
