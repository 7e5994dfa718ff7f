//! What a collector without grace may have left when all is quiet: what manifests need, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

/// What is wrong. `needed`: digests of all blobs that a manifest refers to; each of them was read before. `rows`: blobs that
/// the metadata knows. `stored`: names of files or objects, each with its digest. `interrupted`: pushes of a digest that
/// nobody knows the outcome of; a kill between a blob's name and its row leaves one file, and nothing else does.
pub(crate) fn left(
    needed: &BTreeSet<String>,
    rows: usize,
    stored: &[String],
    interrupted: impl Fn(&str) -> usize,
) -> Vec<String> {
    let mut wrong = Vec::new();
    if rows != needed.len() {
        let needed = needed.len();
        wrong.push(format!(
            "manifests need {needed} blobs, and there are rows of {rows}"
        ));
    }
    let mut files: BTreeMap<String, usize> = BTreeMap::new();
    for name in stored {
        let hex = name.split('.').next().unwrap_or(name);
        *files.entry(format!("sha256:{hex}")).or_default() += 1;
    }
    for (digest, count) in files {
        let named = usize::from(needed.contains(&digest));
        let excused = interrupted(&digest);
        if count > named + excused {
            wrong.push(format!(
                "{digest} has {count} files, {named} of them needed, after {excused} interrupted pushes"
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_over_is_noticed() {
        let needed: BTreeSet<String> = ["sha256:aa", "sha256:bb"].map(str::to_owned).into();
        let stored = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        let none = |_: &str| 0;
        // The other one lives among the rows.
        assert!(left(&needed, 2, &stored(&["aa.1"]), none).is_empty());
        for rows in [1, 3] {
            assert_eq!(left(&needed, rows, &stored(&["aa.1"]), none).len(), 1);
        }
        let twice = stored(&["aa.1", "aa.2"]);
        assert_eq!(left(&needed, 2, &twice, none).len(), 1);
        let cut = |digest: &str| usize::from(digest == "sha256:aa");
        assert!(left(&needed, 2, &twice, cut).is_empty());
        let more = stored(&["aa.1", "aa.2", "cc.1"]);
        assert_eq!(left(&needed, 2, &more, cut).len(), 1);
    }
}
