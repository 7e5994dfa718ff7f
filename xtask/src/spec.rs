//! `cargo xtask spec`: which test proves which item of the specification.
//!
//! The items are in `xtask/spec/items.toml`. A test names what it proves in a comment just above it,
//! `/// Spec: UP-24, UP-25.`, or in its own name (`up_24_…`). The task writes `docs/reference/conformance.md`;
//! with `--check` it writes nothing and fails when an item has neither a test nor a reason, when a test names an
//! item that does not exist, or when the page is stale.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::lex::{self, Kind};
use crate::workspace;

/// Arguments of `cargo xtask spec`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fail when an item is not proved or the page is stale, and write nothing
    #[arg(long)]
    check: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Items {
    section: Vec<Section>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    id: String,
    name: String,
    items: Vec<Item>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    id: String,
    tags: String,
    title: String,
    /// Why no test proves it, or what of it is left when one does.
    reason: Option<String>,
    /// The later issue to which it belongs.
    issue: Option<String>,
}

/// Tests by the id that they prove, each as `file::test`.
type Proofs = BTreeMap<String, BTreeSet<String>>;

const PAGE: &str = "docs/reference/conformance.md";

/// Runs the task.
pub(crate) fn main(args: &Args) -> Result<()> {
    let root = workspace::root();
    let file = root.join("xtask/spec/items.toml");
    let text =
        std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let items: Items =
        toml::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
    let mut proofs = Proofs::new();
    for dir in ["crates", "fuzz", "xtask/src/e2e", "xtask/src/outside"] {
        for path in workspace::files(&root.join(dir), "rs")? {
            let source = std::fs::read_to_string(&path)?;
            scan(&workspace::shown(&path), &source, &mut proofs);
        }
    }
    let faults = faults(&items, &proofs);
    let page = page(&items, &proofs);
    let path = root.join(PAGE);
    for section in items.section.iter().filter(|_| !args.check) {
        for item in &section.items {
            let state = match (proofs.get(&item.id), &item.reason) {
                (Some(tests), _) => format!("{} tests", tests.len()),
                (None, Some(reason)) => format!("no test: {reason}"),
                (None, None) => "NOT PROVED".to_owned(),
            };
            println!("{:<10} {state}", item.id);
        }
    }
    if !args.check {
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        std::fs::write(&path, &page).with_context(|| format!("writing {}", path.display()))?;
        println!(
            "wrote {PAGE}; {} faults (see `cargo xtask spec --check`)",
            faults.len()
        );
        return Ok(());
    }
    for fault in &faults {
        println!("{fault}");
    }
    ensure!(
        faults.is_empty(),
        "spec: {} faults, listed above",
        faults.len()
    );
    if std::fs::read_to_string(&path).ok().as_deref() != Some(&page) {
        bail!("{PAGE} is stale: run `cargo xtask spec` and commit it");
    }
    Ok(())
}

/// What is wrong between items and tests.
fn faults(items: &Items, proofs: &Proofs) -> Vec<String> {
    let mut found = Vec::new();
    let mut known = BTreeSet::new();
    for item in items.section.iter().flat_map(|section| &section.items) {
        if !known.insert(item.id.as_str()) {
            found.push(format!(
                "{}: listed twice in xtask/spec/items.toml",
                item.id
            ));
        }
        if !proofs.contains_key(&item.id) && item.reason.is_none() {
            found.push(format!(
                "{} ({}): name a test with `/// Spec: {}.` or give a reason in xtask/spec/items.toml",
                item.id, item.title, item.id
            ));
        }
        if item.issue.is_some() && item.reason.is_none() {
            found.push(format!(
                "{}: an item of a later issue needs a reason",
                item.id
            ));
        }
    }
    for (id, tests) in proofs {
        if !known.contains(id.as_str()) {
            let tests: Vec<_> = tests.iter().map(String::as_str).collect();
            found.push(format!(
                "{id}: named by {}, but there is no such item",
                tests.join(", ")
            ));
        }
    }
    found
}

/// The page, complete.
fn page(items: &Items, proofs: &Proofs) -> String {
    let all: Vec<&Item> = items
        .section
        .iter()
        .flat_map(|section| &section.items)
        .collect();
    let proved = all
        .iter()
        .filter(|item| proofs.contains_key(&item.id))
        .count();
    let mut out = format!(
        "# Conformance\n\nEvery item of the checklist behind this project, with the tests that prove it. \
         Written by `cargo xtask spec`; do not edit.\n\n\
         {} items, {proved} with tests, {} with a reason instead.\n\n\
         Tags: **M** required, **S** recommended, **O** optional, **N** newer than release 1.1.1, \
         **C** checked by the OCI conformance suite, **X** expected by clients, **R** our reading where the \
         specification is silent.\n",
        all.len(),
        all.iter()
            .filter(|item| !proofs.contains_key(&item.id) && item.reason.is_some())
            .count(),
    );
    for section in &items.section {
        let _ = write!(
            out,
            "\n## {} {}\n\n| Item | Tags | What | Proof |\n|---|---|---|---|\n",
            section.id, section.name
        );
        for item in &section.items {
            let mut proof: Vec<String> = Vec::new();
            if let Some(tests) = proofs.get(&item.id) {
                proof.extend(tests.iter().map(|test| format!("`{test}`")));
            }
            match (&item.reason, &item.issue) {
                (Some(reason), Some(issue)) => proof.push(format!("{reason} (issue: {issue})")),
                (Some(reason), None) => proof.push(reason.clone()),
                (None, _) if proof.is_empty() => proof.push("none yet".to_owned()),
                (None, _) => {}
            }
            let proof = proof.join("<br>");
            let _ = writeln!(
                out,
                "| {} | {} | {} | {proof} |",
                item.id,
                item.tags.replace(',', ", "),
                item.title
            );
        }
    }
    out
}

/// Finds the tests of a file that name items.
fn scan(path: &str, source: &str, proofs: &mut Proofs) {
    let lines: Vec<&str> = source.lines().collect();
    // Lines that begin inside a string are not what they seem.
    let mut in_text = BTreeSet::new();
    for span in lex::spans(source)
        .into_iter()
        .filter(|span| span.kind == Kind::Text)
    {
        in_text.extend(span.line + 1..=span.line + span.text.matches('\n').count());
    }
    let is_e2e = ["xtask/src/e2e/", "xtask/src/outside/"]
        .iter()
        .any(|folder| path.starts_with(folder));
    for (n, line) in lines.iter().enumerate() {
        if in_text.contains(&(n + 1)) {
            continue;
        }
        let Some(name) = test_name(line, lines.get(n + 1).copied().unwrap_or_default(), is_e2e)
        else {
            continue;
        };
        // Everything above up to the first line that is neither a comment nor an attribute.
        let above: Vec<&str> = lines[..n]
            .iter()
            .rev()
            .map(|line| line.trim())
            .take_while(|line| {
                line.starts_with("//")
                    || line.starts_with('#')
                    || line.ends_with("]") && line.starts_with('"')
            })
            .collect();
        let marked = above
            .iter()
            .any(|line| line.starts_with("#[") && line.contains("test"));
        if !(marked || is_e2e || path.contains("/tests/") || path.contains("/suite")) {
            continue;
        }
        let mut ids = BTreeSet::new();
        let mut after_spec = false;
        for comment in above.iter().rev().filter(|line| line.starts_with("//")) {
            let words = comment.trim_start_matches(['/', '!']).trim();
            if words.is_empty() {
                after_spec = false;
            } else if let Some((_, rest)) = words.split_once("Spec:") {
                after_spec = true;
                ids.extend(ids_in(rest));
            } else if after_spec {
                ids.extend(ids_in(words));
            }
        }
        ids.extend(id_in_name(&name));
        for id in ids {
            proofs
                .entry(id)
                .or_default()
                .insert(format!("{path}::{name}"));
        }
    }
}

/// The name of the test that a line begins: a function, or a step of an end-to-end test.
fn test_name(line: &str, next: &str, is_e2e: bool) -> Option<String> {
    let line = line.trim();
    let after = |word: &str| line.find(word).map(|at| &line[at + word.len()..]);
    let step = after("suite.step(").or_else(|| after("outside.step("));
    if is_e2e && let Some(rest) = step {
        // The formatter moves long names to the next line.
        let rest = if rest.is_empty() { next.trim() } else { rest };
        let name = rest.trim_start_matches("&format!(").strip_prefix('"')?;
        return Some(name.split('"').next().unwrap_or_default().to_owned());
    }
    let rest = [
        "fn ",
        "async fn ",
        "pub fn ",
        "pub async fn ",
        "pub(crate) fn ",
        "pub(crate) async fn ",
    ]
    .iter()
    .find_map(|start| line.strip_prefix(start))?;
    let name: String = rest
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    (!name.is_empty()).then_some(name)
}

/// Words of the form `UP-24` in a text.
fn ids_in(text: &str) -> Vec<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| {
            word.split_once('-').is_some_and(|(prefix, number)| {
                prefix.len() > 1
                    && prefix.starts_with(|c: char| c.is_ascii_uppercase())
                    && prefix
                        .chars()
                        .all(|c| c.is_ascii_uppercase() || c.is_ascii_digit())
                    && !number.is_empty()
                    && number.chars().all(|c| c.is_ascii_digit())
            })
        })
        .map(str::to_owned)
        .collect()
}

/// `up_24_…`: an id at the start of a test's name; of known families only, names have numbers for other reasons too.
fn id_in_name(name: &str) -> Option<String> {
    const FAMILIES: &[&str] = &[
        "api", "name", "tag", "dig", "ping", "mget", "bget", "up", "mnt", "mput", "tags", "ref",
        "del", "err", "warn", "ns", "cat", "ext", "leg", "cs", "img", "art", "auth", "scope",
        "tok", "basic", "login", "cq",
    ];
    let mut parts = name.split('_');
    let (family, number) = (parts.next()?, parts.next()?);
    let is_id = FAMILIES.contains(&family)
        && !number.is_empty()
        && number.chars().all(|c| c.is_ascii_digit());
    is_id.then(|| format!("{}-{number}", family.to_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proofs(path: &str, source: &str) -> Vec<(String, String)> {
        let mut found = Proofs::new();
        scan(path, source, &mut found);
        found
            .into_iter()
            .flat_map(|(id, tests)| tests.into_iter().map(move |test| (id.clone(), test)))
            .collect()
    }

    fn items(text: &str) -> Items {
        toml::from_str(&format!(
            "[[section]]\nid = \"1\"\nname = \"n\"\nitems = [{text}]"
        ))
        .unwrap()
    }

    #[test]
    fn tests_are_found_by_comment_and_by_name() {
        let source = "/// What it is.\n/// Spec: UP-24,\n/// UP-25 (and sha256).\n///\n/// Not AB-1.\n#[tokio::test]\nasync fn wrong_offset() {}\n\n/// Spec: UP-1.\nfn helper() {}\n\n#[test]\nfn up_26_status() {}\n#[test]\nfn up_is_fine() {}\n";
        assert_eq!(
            proofs("crates/x/src/a.rs", source),
            [
                (
                    "UP-24".to_owned(),
                    "crates/x/src/a.rs::wrong_offset".to_owned()
                ),
                (
                    "UP-25".to_owned(),
                    "crates/x/src/a.rs::wrong_offset".to_owned()
                ),
                (
                    "UP-26".to_owned(),
                    "crates/x/src/a.rs::up_26_status".to_owned()
                ),
            ]
        );
    }

    #[test]
    fn steps_of_clients_count_and_text_does_not() {
        let source = "    // Spec: LEG-3.\n    suite.step(\n        \"push and pull\",\n        |s| {});\n    let s = \"\n/// Spec: UP-1.\n#[test]\nfn no() {}\n\";\n";
        assert_eq!(
            proofs("xtask/src/e2e/docker.rs", source),
            [(
                "LEG-3".to_owned(),
                "xtask/src/e2e/docker.rs::push and pull".to_owned()
            )]
        );
    }

    #[test]
    fn what_is_not_proved_unknown_or_out_of_date_is_a_fault() {
        let items = items(
            r#"{id="A-1", tags="M", title="a"}, {id="A-2", tags="M", title="b", reason="no"},
               {id="A-3", tags="M", title="c", reason="no"}, {id="A-4", tags="M", title="d"}, {id="A-4", tags="", title=""}"#,
        );
        let proof = |id: &str| (id.to_owned(), BTreeSet::from(["f::t".to_owned()]));
        let proofs = Proofs::from([proof("A-3"), proof("A-4"), proof("A-9")]);
        let found = faults(&items, &proofs);
        assert_eq!(found.len(), 3, "{found:?}");
        for (fault, start) in found
            .iter()
            .zip(["A-1 ", "A-4: listed twice", "A-9: named by"])
        {
            assert!(fault.starts_with(start), "{fault}");
        }
    }

    #[test]
    fn the_page_shows_proofs_and_reasons() {
        let items = items(
            r#"{id="A-1", tags="M,C", title="a"}, {id="A-2", tags="R", title="b", reason="no", issue="later"}"#,
        );
        let page = page(
            &items,
            &Proofs::from([("A-1".to_owned(), BTreeSet::from(["f::t".to_owned()]))]),
        );
        assert!(page.contains("| A-1 | M, C | a | `f::t` |"), "{page}");
        assert!(
            page.contains("| A-2 | R | b | no (issue: later) |"),
            "{page}"
        );
    }

    #[test]
    fn the_list_of_items_can_be_read() {
        let text =
            std::fs::read_to_string(workspace::root().join("xtask/spec/items.toml")).unwrap();
        let items: Items = toml::from_str(&text).unwrap();
        assert!(items.section.iter().map(|s| s.items.len()).sum::<usize>() > 200);
    }
}
