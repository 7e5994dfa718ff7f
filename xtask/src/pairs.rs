//! Which of the server's tests (`crates/server/tests/it`) run over which pair of stores.
//!
//! SQLite and files are what everybody begins with: `cargo test` runs everything over them. The other three pairs run what
//! goes through both stores, and leave out what never asks one, or brings its own. A test here holds that each module of
//! `it` stands in one of the two lists.

/// Over all four pairs: what clients push, read, move and delete, and what restarts, kills and collection leave of it.
pub(crate) const EVERY_PAIR: &[&str] = &[
    "acknowledged",
    "apply",
    "blob",
    "catalog",
    "certificate",
    "chunk",
    "delete",
    "error",
    "gc",
    "greedy",
    "invitation",
    "ldap_sign_in",
    "legacy",
    "manifest",
    "manifest_push",
    "model",
    "mount",
    "oidc",
    "operator",
    "people",
    "race",
    "referrer",
    "replica",
    "restart",
    "scrub",
    "tag",
    "terminal",
    "upload",
    "workload",
    "wire",
];

/// Over SQLite and files only: connections and what is refused before a store is asked; damage to disks, files and SQLite's
/// database; clocks that a test sets; and `bucket_reach`, `doors`, `metadata`, `postgres`, `replicas`, `s3`, `setup`, `shared`, which bring stores of their own.
#[cfg(test)]
pub(crate) const FIRST_PAIR: &[&str] = &[
    "api",
    "api_identity",
    "api_rights",
    "api_support",
    "api_table",
    "api_tag",
    "audit",
    "browser",
    "bucket_reach",
    "client",
    "clock",
    "command",
    "corrupt",
    "credential",
    "credential_provider",
    "cve",
    "disk",
    "disk_support",
    "doors",
    "endpoint",
    "extension",
    "hostile",
    "hostile_h2",
    "hostile_registry",
    "hostile_support",
    "http_basic",
    "http_discard",
    "http_h2",
    "http_limits",
    "http_origin",
    "http_shutdown",
    "http_smuggling",
    "http_support",
    "http_tls",
    "if_match",
    "keeper",
    "ldap",
    "linear",
    "metadata",
    "paging",
    "ping",
    "postgres",
    "postgres_reach",
    "probes",
    "pull_secret",
    "rate",
    "replicas",
    "rights",
    "rights_model",
    "s3",
    "secret",
    "sendfile",
    "setup",
    "shared",
    "support",
];

/// The command that runs [`EVERY_PAIR`]; which pair, the environment says.
pub(crate) fn command() -> Vec<String> {
    let cargo = ["cargo", "test", "--locked", "--package", "wharf", "--test"];
    let mut words: Vec<String> = cargo.iter().map(|&word| word.to_owned()).collect();
    words.extend(["it", "--"].map(str::to_owned));
    words.extend(EVERY_PAIR.iter().map(|module| format!("{module}::")));
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::workspace;

    #[test]
    fn each_module_of_the_servers_tests_runs_over_every_pair_or_over_the_first() {
        let main = workspace::root().join("crates/server/tests/it/main.rs");
        let text = std::fs::read_to_string(main).expect("the tests' main file");
        let there: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'))
            .collect();
        let (every, first): (BTreeSet<&str>, BTreeSet<&str>) = (
            EVERY_PAIR.iter().copied().collect(),
            FIRST_PAIR.iter().copied().collect(),
        );
        assert!(there.len() > 40, "{there:?}");
        assert_eq!(every.intersection(&first).count(), 0);
        let listed: BTreeSet<&str> = every.union(&first).copied().collect();
        assert_eq!(
            there, listed,
            "a module of `it` says in xtask/src/pairs.rs over which pairs it runs"
        );
    }
}
