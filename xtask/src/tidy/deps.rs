//! Rules about dependencies and the licence.

use super::walls::manifest_keys;
use super::{Finding, Tree, numbered};

/// Packages that the lock file may hold, ours counted.
const PACKAGES: usize = 440;

/// Crates that must not come in, not even behind another one, and why.
///
/// `ring` is left to `deny.toml`: the lock file names it as an optional part of rustls-webpki that is never built.
const FORBIDDEN: &[(&str, &str)] = &[
    ("figment", "unmaintained; configuration is read with `toml`"),
    ("serde_yaml", "unmaintained"),
    ("serde_yml", "unsound"),
    ("rustls-pemfile", "unmaintained; rustls-pki-types reads PEM"),
    (
        "rsa",
        "timing side channel without a fix; aws-lc-rs does RSA",
    ),
    ("openssl", "one cryptographic provider only: aws-lc-rs"),
    ("openssl-sys", "one cryptographic provider only: aws-lc-rs"),
    ("native-tls", "TLS is rustls"),
    ("tokio-uring", "unmaintained"),
    ("cel-interpreter", "unmaintained"),
];

/// Each entry of the workspace's dependencies tells on its line why it is there.
pub(super) fn reasons(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.get("Cargo.toml") else {
        return Vec::new();
    };
    let lines: Vec<&str> = text.lines().collect();
    manifest_keys(text)
        .into_iter()
        .filter(|(line, section, key)| {
            let content = lines[line - 1];
            let ours = content.contains("path = ");
            *section == "dependencies" && !key.is_empty() && !ours && !content.contains(" # ")
        })
        .map(|(line, _, key)| {
            let cure = format!("say at the end of the line why `{key}` is needed: `# reason`");
            Finding::new("Cargo.toml", line, "dependency without a reason", cure)
        })
        .collect()
}

/// Members take every dependency and their lints from the workspace.
pub(super) fn members(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (path, text) in tree.files("", "Cargo.toml") {
        // The root, and workspaces of their own such as the one that cargo-fuzz needs.
        if text.contains("[workspace]") {
            continue;
        }
        let lines: Vec<&str> = text.lines().collect();
        for (line, _, key) in manifest_keys(text) {
            let content = lines[line - 1];
            // A crate that tests itself with a feature names itself by path.
            let itself = content.contains("path = \".\"");
            if !content.starts_with('[') && !content.contains("workspace = true") && !itself {
                let cure = format!(
                    "write `{key}.workspace = true` and its version and reason in the root Cargo.toml"
                );
                found.push(Finding::new(
                    path,
                    line,
                    "dependency outside the workspace",
                    cure,
                ));
            }
        }
        if !text.contains("[lints]\nworkspace = true") {
            let cure = "add `[lints]` with `workspace = true`";
            found.push(Finding::new(path, 1, "lints", cure));
        }
    }
    found
}

/// The lock file stays below [`PACKAGES`] packages and holds none of the forbidden.
pub(super) fn lock_file(tree: &Tree) -> Vec<Finding> {
    let Some(text) = tree.get("Cargo.lock") else {
        return vec![Finding::new(
            "Cargo.lock",
            1,
            "lock file",
            "commit it: builds must be repeatable",
        )];
    };
    let mut found = Vec::new();
    let mut count = 0;
    for (line, content) in numbered(text) {
        let Some(name) = content.strip_prefix("name = ") else {
            continue;
        };
        count += 1;
        let name = name.trim_matches('"');
        if let Some((_, why)) = FORBIDDEN.iter().find(|(forbidden, _)| *forbidden == name) {
            let cure = format!(
                "`{name}` must not come in ({why}): see who brings it with `cargo tree -i {name}`"
            );
            found.push(Finding::new("Cargo.lock", line, "forbidden crate", cure));
        }
    }
    if count >= PACKAGES {
        let cure = format!(
            "{count} packages, fewer than {PACKAGES} are allowed: `cargo tree --duplicates`, then features"
        );
        found.push(Finding::new("Cargo.lock", 1, "lock file size", cure));
    }
    found
}

/// The licence's text is there and the manifest names it.
pub(super) fn licence(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    let text = tree.get("LICENSE").unwrap_or_default();
    if !(text.contains("Apache License") && text.contains("Version 2.0")) {
        found.push(Finding::new(
            "LICENSE",
            1,
            "licence",
            "put the text of the Apache License 2.0 there",
        ));
    }
    if !tree
        .get("Cargo.toml")
        .is_some_and(|t| t.contains("license = \"Apache-2.0\""))
    {
        found.push(Finding::new(
            "Cargo.toml",
            1,
            "licence",
            "`[workspace.package] license = \"Apache-2.0\"`",
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::lines;
    use super::*;

    #[test]
    fn a_dependency_without_a_reason_is_found() {
        let text = "[workspace.package]\nedition = \"2024\"\n[workspace.dependencies]\nwharf-oci = { path = \"crates/oci\" }\na = \"1\" # needed\nb = \"2\"\n# c\n[profile.release]\nlto = \"thin\"\n";
        assert_eq!(
            lines(reasons(&Tree::of(&[("Cargo.toml", text)]))),
            [("Cargo.toml".to_owned(), 6)]
        );
    }

    #[test]
    fn a_member_with_its_own_version_is_found() {
        let bad = "[dependencies]\na.workspace = true\nb = \"1\"\n[lints]\nworkspace = true\n";
        let tree = Tree::of(&[
            ("crates/x/Cargo.toml", bad),
            ("crates/y/Cargo.toml", "[package]\n"),
        ]);
        assert_eq!(
            lines(members(&tree)),
            [
                ("crates/x/Cargo.toml".to_owned(), 3),
                ("crates/y/Cargo.toml".to_owned(), 1)
            ]
        );
    }

    #[test]
    fn a_forbidden_crate_and_too_many_are_found() {
        let mut text = "[[package]]\nname = \"rsactor\"\n[[package]]\nname = \"rsa\"\n".to_owned();
        assert_eq!(
            lines(lock_file(&Tree::of(&[("Cargo.lock", &text)]))),
            [("Cargo.lock".to_owned(), 4)]
        );
        for n in 0..PACKAGES {
            text.push_str(&format!("name = \"p{n}\"\n"));
        }
        assert_eq!(lock_file(&Tree::of(&[("Cargo.lock", &text)])).len(), 2);
        assert_eq!(lock_file(&Tree::of(&[])).len(), 1);
    }

    #[test]
    fn a_missing_licence_is_found() {
        assert_eq!(licence(&Tree::of(&[])).len(), 2);
        let manifest = ("Cargo.toml", "license = \"Apache-2.0\"");
        assert!(
            licence(&Tree::of(&[
                ("LICENSE", "Apache License\nVersion 2.0"),
                manifest
            ]))
            .is_empty()
        );
    }
}
