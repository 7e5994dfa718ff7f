//! `cargo xtask tidy`: the project's rules that neither the compiler nor clippy checks.
//!
//! A check looks at a [`Tree`] in memory and gives [`Finding`]s, so that each has tests which show it finding
//! something. Rules about crates are in [`walls`], about source text in [`source`], about dependencies in
//! [`deps`], about pages in [`docs`], about SQL in [`queries`].

mod deps;
mod docs;
mod queries;
mod source;
mod walls;

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context as _, Result, bail};

use crate::workspace;

/// Text files of the project by path relative to its root.
pub(crate) struct Tree(BTreeMap<String, String>);

impl Tree {
    /// Reads what the checks look at.
    fn load() -> Result<Tree> {
        let root = workspace::root();
        let mut tree = BTreeMap::new();
        for ext in ["rs", "toml", "md", "lock"] {
            for path in workspace::files(&root, ext)? {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("reading {}", path.display()))?;
                tree.insert(workspace::shown(&path), text);
            }
        }
        if let Ok(text) = std::fs::read_to_string(root.join("LICENSE")) {
            tree.insert("LICENSE".to_owned(), text);
        }
        Ok(Tree(tree))
    }

    /// A tree for a test.
    #[cfg(test)]
    fn of(files: &[(&str, &str)]) -> Tree {
        Tree(
            files
                .iter()
                .map(|(path, text)| ((*path).to_owned(), (*text).to_owned()))
                .collect(),
        )
    }

    /// The text of one file.
    fn get(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }

    /// The files below `prefix` whose name ends with `suffix`.
    fn files<'a>(
        &'a self,
        prefix: &'a str,
        suffix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.0
            .iter()
            .filter(move |(path, _)| path.starts_with(prefix) && path.ends_with(suffix))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }
}

/// One breach of a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    file: String,
    line: usize,
    rule: &'static str,
    cure: String,
}

impl Finding {
    fn new(file: &str, line: usize, rule: &'static str, cure: impl Into<String>) -> Finding {
        Finding {
            file: file.to_owned(),
            line,
            rule,
            cure: cure.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}: {}",
            self.file, self.line, self.rule, self.cure
        )
    }
}

/// A check over the whole tree.
type Check = fn(&Tree) -> Vec<Finding>;

const CHECKS: &[Check] = &[
    walls::dependencies,
    walls::imports,
    walls::pure,
    walls::http,
    source::sql,
    source::length,
    source::safety,
    source::leftovers,
    deps::reasons,
    deps::members,
    deps::lock_file,
    deps::licence,
    docs::index,
    docs::links,
    queries::plans,
];

/// Runs the task.
pub(crate) fn main() -> Result<()> {
    let tree = Tree::load()?;
    let findings: Vec<Finding> = CHECKS.iter().flat_map(|check| check(&tree)).collect();
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("tidy: {} findings", findings.len());
    }
    println!(
        "tidy: {} checks over {} files, nothing found",
        CHECKS.len(),
        tree.0.len()
    );
    Ok(())
}

/// The lines of `text` with their numbers from 1.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(n, line)| (n + 1, line))
}

/// The rules that a check finds broken in a tree: what tests compare.
#[cfg(test)]
fn lines(findings: Vec<Finding>) -> Vec<(String, usize)> {
    findings.into_iter().map(|f| (f.file, f.line)).collect()
}
