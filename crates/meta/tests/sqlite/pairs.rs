//! That each operation that writes stands in a pair of those that are interleaved (`suite/pairs`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use wharf_meta::suite::{pairs, run};

use crate::make;

/// Those that nothing can be in the way of, and why.
const ALONE: &[(&str, &str)] = &[
    (
        "copy::Insert",
        "fills a database that nobody else has opened: it is locked, and marked as half copied until the end",
    ),
    (
        "event::Record",
        "puts rows behind all others, under numbers that the database gives; nothing is read, and nobody else writes them",
    ),
];

/// What `impl TRAIT for NAME {` names in a file.
fn implementations<'s>(source: &'s str, of: &str) -> BTreeSet<&'s str> {
    let begin = format!("impl {of} for ");
    let named = |line: &'s str| line.strip_prefix(&begin)?.split([' ', '<', '{']).next();
    source.lines().filter_map(named).collect()
}

/// The operations of a folder that write, by the names that [`wharf_meta::Op::name`] gives.
fn writing(folder: &Path, below: &str, found: &mut BTreeMap<String, PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    entries.sort();
    for path in entries {
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let stem = stem.expect("a name in UTF-8");
        if path.is_dir() {
            writing(&path, &format!("{below}{stem}::"), found);
            continue;
        }
        let source = fs::read_to_string(&path).expect("a file");
        let reading = implementations(&source, "ReadOp");
        for name in implementations(&source, "Op").difference(&reading) {
            let name = match stem {
                "mod" => format!("{below}{name}"),
                _ => format!("{below}{stem}::{name}"),
            };
            found.insert(name, path.clone());
        }
    }
}

#[test]
fn each_operation_that_writes_stands_in_a_pair() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops");
    let mut found = BTreeMap::new();
    writing(&folder, "", &mut found);
    assert!(found.contains_key("manifest::put::Put") && !found.contains_key("tag::List"));
    let kept = Arc::new(Mutex::new(BTreeSet::new()));
    let written = Arc::clone(&kept);
    run(make, |meta| async move {
        *written.lock().unwrap() = pairs::written(meta).await;
    });
    let written = kept.lock().unwrap();
    let alone: BTreeMap<&str, &str> = ALONE.iter().copied().collect();
    let mut wrong = Vec::new();
    for (name, path) in &found {
        if !written.contains(&**name) && !alone.contains_key(&**name) {
            let path = path.strip_prefix(&folder).expect("below it").display();
            wrong.push(format!(
                "{name} ({path}) writes and stands in no pair: add one with each operation that touches the same rows to \
                 src/suite/pairs, or say in ALONE why there is none"
            ));
        }
    }
    for name in alone.keys() {
        if !found.contains_key(*name) || written.contains(name) {
            wrong.push(format!("{name} need not stand in ALONE"));
        }
    }
    // The names of both must be the same ones, or nothing would be missing.
    for name in written.iter() {
        if !found.contains_key(*name) {
            wrong.push(format!(
                "{name} is run by a pair and was not found below src/ops"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
