//! Walls between crates: who may use whom, and what has no business where.

use super::{Finding, Tree, numbered};
use crate::lex;

/// Crates in the order in which they may use each other: only a lower rank, never the same.
const RANKS: &[(&str, &str, u8)] = &[
    ("oci", "wharf-oci", 0),
    ("blob", "wharf-blob", 1),
    ("meta", "wharf-meta", 1),
    ("scan", "wharf-scan", 1),
    ("core", "wharf-core", 2),
    ("server", "wharf", 3),
    ("testkit", "wharf-testkit", 4),
];

/// Words that mean IO, time or a runtime: nothing for a pure crate.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "SystemTime",
    "Instant",
    "tokio",
    "async",
    "println",
    "eprintln",
];

/// Dependencies in manifests point downwards; `testkit` is for tests only.
pub(super) fn dependencies(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for &(folder, name, rank) in RANKS {
        let path = format!("crates/{folder}/Cargo.toml");
        let Some(text) = tree.get(&path) else {
            continue;
        };
        for (line, section, key) in manifest_keys(text) {
            let Some(&(_, used, used_rank)) = RANKS.iter().find(|(_, package, _)| *package == key)
            else {
                continue;
            };
            let for_tests = section == "dev-dependencies" && used == "wharf-testkit";
            if used_rank >= rank && !for_tests && used != name {
                found.push(Finding::new(
                    &path,
                    line,
                    "import direction",
                    format!("{name} may not depend on {used}: move the shared part down, or pass it in as a trait"),
                ));
            }
        }
    }
    found
}

/// The same for paths in source text, which also catches a dependency renamed in the manifest.
pub(super) fn imports(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for &(folder, name, rank) in RANKS {
        let prefix = format!("crates/{folder}/src/");
        for (path, text) in tree.files(&prefix, ".rs") {
            let code = lex::code(text);
            for (line, code) in numbered(&code) {
                for &(_, used, used_rank) in RANKS {
                    let word = format!("{}::", used.replace('-', "_"));
                    let uses = code.match_indices(&word).any(|(at, _)| {
                        !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
                    });
                    let in_test = used == "wharf-testkit"
                        && (text.contains("#[cfg(test)]") || path.contains("/tests"));
                    if uses && used != name && used_rank >= rank && !in_test {
                        found.push(Finding::new(
                            path,
                            line,
                            "import direction",
                            format!("{name} may not use {used}"),
                        ));
                    }
                }
            }
        }
    }
    found
}

/// `oci` and `scan` do no IO, know no clock and no runtime.
pub(super) fn pure(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for prefix in ["crates/oci/src/", "crates/scan/src/"] {
        for (path, text) in tree.files(prefix, ".rs") {
            let code = lex::code(text);
            for (line, code) in numbered(&code) {
                for word in IMPURE {
                    if lex::find_word(code, word).is_some() {
                        found.push(Finding::new(
                            path,
                            line,
                            "pure crate",
                            format!("`{word}` does not belong into a pure crate: take bytes or a value as an argument"),
                        ));
                    }
                }
            }
        }
    }
    found
}

/// `core` knows no HTTP: neither in its manifest nor in its source.
pub(super) fn http(tree: &Tree) -> Vec<Finding> {
    const CRATES: &[&str] = &[
        "http",
        "http-body",
        "http-body-util",
        "hyper",
        "hyper-util",
        "axum",
        "axum-core",
        "tower-http",
        "headers",
    ];
    let mut found = Vec::new();
    if let Some(text) = tree.get("crates/core/Cargo.toml") {
        for (line, _, key) in manifest_keys(text) {
            if CRATES.contains(&key) {
                let cure = format!("drop `{key}`: HTTP is translated in crates/server only");
                found.push(Finding::new(
                    "crates/core/Cargo.toml",
                    line,
                    "no HTTP in core",
                    cure,
                ));
            }
        }
    }
    for (path, text) in tree.files("crates/core/", ".rs") {
        let code = lex::code(text);
        for (line, code) in numbered(&code) {
            for krate in CRATES {
                let word = krate.replace('-', "_");
                let used = lex::find_word(code, &word).is_some_and(|at| {
                    code[at + word.len()..].starts_with("::") && !code[..at].ends_with("::")
                });
                if used {
                    let cure =
                        format!("`{word}::` is for crates/server: give core a type of its own");
                    found.push(Finding::new(path, line, "no HTTP in core", cure));
                }
            }
        }
    }
    found
}

/// Keys of the dependency tables of a manifest: line, table (`dependencies`, `dev-dependencies` …), key.
pub(super) fn manifest_keys(text: &str) -> Vec<(usize, &str, &str)> {
    let mut found = Vec::new();
    let mut section = "";
    for (line, content) in numbered(text) {
        let content = content.trim();
        if let Some(name) = content.strip_prefix('[') {
            section = name.trim_end_matches(']');
            // `[dependencies.name]` and `[target.'cfg(…)'.dependencies]` are dependency tables too.
            if let Some((table, key)) = section.rsplit_once('.')
                && table.ends_with("dependencies")
            {
                found.push((line, table, key));
                section = "";
            }
            section = section.rsplit('.').next().unwrap_or(section);
        } else if section.ends_with("dependencies")
            && let Some((key, _)) = content.split_once(['=', '.'])
            && !content.starts_with('#')
        {
            found.push((line, section, key.trim().trim_matches('"')));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::lines;
    use super::*;

    #[test]
    fn a_dependency_upwards_or_sideways_is_found() {
        let tree = Tree::of(&[
            (
                "crates/oci/Cargo.toml",
                "[dependencies]\nwharf-core.workspace = true\n",
            ),
            (
                "crates/blob/Cargo.toml",
                "[dependencies]\nwharf-oci = { workspace = true }\nwharf-meta.workspace = true\n",
            ),
            (
                "crates/core/Cargo.toml",
                "[dependencies]\nwharf-testkit.workspace = true\n[dev-dependencies]\nwharf-testkit.workspace = true\n",
            ),
            (
                "crates/server/Cargo.toml",
                "[dependencies]\nwharf-core.workspace = true\n[dependencies.wharf-testkit]\nworkspace = true\n",
            ),
        ]);
        assert_eq!(
            lines(dependencies(&tree)),
            [
                ("crates/oci/Cargo.toml".to_owned(), 2),
                ("crates/blob/Cargo.toml".to_owned(), 3),
                ("crates/core/Cargo.toml".to_owned(), 2),
                ("crates/server/Cargo.toml".to_owned(), 3)
            ]
        );
    }

    #[test]
    fn an_import_upwards_is_found_and_one_in_a_comment_is_not() {
        let tree = Tree::of(&[
            (
                "crates/meta/src/a.rs",
                "// wharf_core::X\nuse wharf_oci::D;\nuse wharf_core::X;\nuse wharf_blob::Y;",
            ),
            (
                "crates/server/src/b.rs",
                "use wharf_core::X;\nuse wharf::Y;\nuse wharf_oci::Z;",
            ),
            ("crates/core/src/c.rs", "fn f() { let _ = wharf::app(); }"),
        ]);
        assert_eq!(
            lines(imports(&tree)),
            [
                ("crates/meta/src/a.rs".to_owned(), 3),
                ("crates/meta/src/a.rs".to_owned(), 4),
                ("crates/core/src/c.rs".to_owned(), 1)
            ]
        );
    }

    #[test]
    fn io_in_a_pure_crate_is_found() {
        let tree = Tree::of(&[
            (
                "crates/oci/src/a.rs",
                "//! async is not for us\nuse std::fs::File;\nuse std::fmt;\nlet t = SystemTime::now();",
            ),
            ("crates/blob/src/a.rs", "use std::fs::File;"),
        ]);
        assert_eq!(
            lines(pure(&tree)),
            [
                ("crates/oci/src/a.rs".to_owned(), 2),
                ("crates/oci/src/a.rs".to_owned(), 4)
            ]
        );
    }

    #[test]
    fn http_in_core_is_found() {
        let tree = Tree::of(&[
            (
                "crates/core/Cargo.toml",
                "[dependencies]\nbytes.workspace = true\nhttp.workspace = true\n",
            ),
            (
                "crates/core/src/a.rs",
                "use http::StatusCode;\nlet url = \"http://x\";\nuse hyper::body::Incoming;\nmod http_like {}",
            ),
            ("crates/server/src/a.rs", "use http::StatusCode;"),
        ]);
        assert_eq!(
            lines(http(&tree)),
            [
                ("crates/core/Cargo.toml".to_owned(), 3),
                ("crates/core/src/a.rs".to_owned(), 1),
                ("crates/core/src/a.rs".to_owned(), 3)
            ]
        );
    }
}
