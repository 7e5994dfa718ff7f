//! `cargo xtask queries`: every statement of the metadata store with the plan that SQLite has for it.
//!
//! The statements are read from the source, so that none is missing; the plans are made on a store with some of
//! everything. SQLite never gathers statistics there, so plans depend on the schema alone. `tidy` calls [`check`]: a
//! statement that passes over a table or sorts, unless `wharf_meta::suite::ALLOWED` gives a reason, is a finding, and so is
//! a page that is out of date.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use wharf_meta::suite::{self, Plan};
use wharf_meta::{Meta, SqliteOptions};

use crate::lex::{self, Kind};
use crate::workspace;

/// The page.
pub(crate) const PAGE: &str = "docs/reference/queries.md";
/// Where statements stand: operations, and what the engine adds to a commit.
const SOURCES: &[&str] = &[
    "crates/meta/src/ops/",
    "crates/meta/src/engine/sqlite/writer.rs",
];
/// Starts of statements.
const STARTS: &[&str] = &["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "WITH "];
/// Longest line of a statement on the page.
const WIDTH: usize = 110;

/// Arguments of `cargo xtask queries`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fail when the page is out of date instead of writing it
    #[arg(long)]
    check: bool,
}

/// A statement in the source.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Statement {
    file: String,
    line: usize,
    sql: String,
}

/// What is wrong with a statement, or with the page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) what: String,
}

/// Runs the task.
pub(crate) fn main(args: &Args) -> Result<()> {
    let root = workspace::root();
    let mut sources = Vec::new();
    for path in workspace::files(&root.join("crates/meta/src"), "rs")? {
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        sources.push((workspace::shown(&path), text));
    }
    let statements = statements(
        sources
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str())),
    );
    let planned = plan(statements)?;
    let page = page(&planned);
    let path = root.join(PAGE);
    let scans: usize = planned.iter().map(|(_, plan)| plan.suspects.len()).sum();
    if args.check && std::fs::read_to_string(&path).unwrap_or_default() != page {
        bail!("{PAGE} is out of date: run `cargo xtask queries`");
    }
    if !args.check {
        std::fs::write(&path, page).with_context(|| format!("writing {PAGE}"))?;
    }
    println!("queries: {} statements", planned.len());
    if scans > 0 {
        bail!("{scans} statements read more than they give: see `cargo xtask tidy`");
    }
    Ok(())
}

/// What is wrong with the statements in these files, and with the page.
pub(crate) fn check<'a>(
    sources: impl Iterator<Item = (&'a str, &'a str)>,
    written: Option<&str>,
) -> Result<Vec<Problem>> {
    let planned = plan(statements(sources))?;
    let mut problems: Vec<Problem> = planned
        .iter()
        .flat_map(|(statement, plan)| {
            plan.suspects.iter().map(|step| Problem {
                file: statement.file.clone(),
                line: statement.line,
                what: format!(
                    "`{step}` reads more than it gives: add an index, or a reason to `suite::ALLOWED`"
                ),
            })
        })
        .collect();
    if written != Some(page(&planned).as_str()) {
        problems.push(Problem {
            file: PAGE.to_owned(),
            line: 1,
            what: "it is out of date: run `cargo xtask queries`".to_owned(),
        });
    }
    Ok(problems)
}

/// The statements of the sources, in their order.
fn statements<'a>(sources: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<Statement> {
    let mut found = Vec::new();
    for (path, text) in sources {
        if !SOURCES.iter().any(|source| path.starts_with(source)) {
            continue;
        }
        for span in lex::spans(text) {
            if span.kind != Kind::Text {
                continue;
            }
            let sql = unquoted(span.text);
            if STARTS.iter().any(|start| sql.starts_with(start)) {
                found.push(Statement {
                    file: path.to_owned(),
                    line: span.line,
                    sql,
                });
            }
        }
    }
    found
}

/// What the compiler makes of a string, as far as statements need it: joined lines, quotes.
fn unquoted(text: &str) -> String {
    let inner = text.trim_start_matches('"').trim_end_matches('"');
    let mut out = String::new();
    for (at, part) in inner.split("\\\n").enumerate() {
        out.push_str(if at == 0 { part } else { part.trim_start() });
    }
    out.replace("\\\"", "\"")
}

fn plan(statements: Vec<Statement>) -> Result<Vec<(Statement, Plan)>> {
    let folder = tempfile::tempdir()?;
    let shape = crate::grow::Shape {
        repositories: 3,
        referrers: 3,
        files: 1,
        ..crate::grow::Shape::of(10)
    };
    crate::grow::fill(&shape, folder.path())?;
    let options = SqliteOptions::new(folder.path().join(crate::grow::DATABASE));
    let (meta, _) = Meta::open(options)?;
    let planned = statements.into_iter().map(|statement| {
        let plan = suite::plan(&meta, &statement.sql)
            .with_context(|| format!("{}:{}", statement.file, statement.line))?;
        Ok((statement, plan))
    });
    planned.collect()
}

/// The page.
fn page(planned: &[(Statement, Plan)]) -> String {
    let mut out = String::from(
        "# Queries\n\nEvery statement of the metadata store with SQLite's plan for it (`EXPLAIN QUERY PLAN`), by noun. Made \
         by `cargo xtask queries`; `cargo xtask tidy` fails when it is out of date, or when a statement passes over a table \
         or sorts without a reason. `SEARCH` follows an index to the rows it gives; `SCAN` passes over all of them.\n",
    );
    let mut nouns: BTreeMap<&str, BTreeMap<&str, &Plan>> = BTreeMap::new();
    for (statement, plan) in planned {
        nouns
            .entry(noun(&statement.file))
            .or_default()
            .insert(&statement.sql, plan);
    }
    for (noun, statements) in nouns {
        let _ = write!(out, "\n## {noun}\n");
        for (sql, plan) in statements {
            let _ = write!(out, "\n```sql\n{}\n```\n\n", wrapped(sql));
            if plan.steps.is_empty() {
                out.push_str("- one row, by its key\n");
            }
            for step in &plan.steps {
                let _ = write!(out, "- {step}");
                match plan.allowed.iter().find(|(allowed, _)| allowed == step) {
                    Some((_, reason)) => {
                        let _ = writeln!(out, " — {reason}");
                    }
                    None => out.push('\n'),
                }
            }
        }
    }
    out
}

/// `crates/meta/src/ops/manifest/put.rs` → `manifest`.
fn noun(file: &str) -> &str {
    match file.strip_prefix(SOURCES[0]) {
        Some(rest) => rest.split(['/', '.']).next().unwrap_or(rest),
        None => "the engine",
    }
}

/// In lines of bounded width.
fn wrapped(sql: &str) -> String {
    let mut out = String::new();
    let mut width = 0;
    for word in sql.split_whitespace() {
        if width > 0 && width + 1 + word.len() > WIDTH {
            out.push_str("\n  ");
            width = 2;
        } else if width > 0 {
            out.push(' ');
            width += 1;
        }
        out.push_str(word);
        width += word.len();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "crates/meta/src/ops/blob.rs";

    fn problems(text: &str) -> Vec<(usize, String)> {
        let found = check([(FILE, text)].into_iter(), None).unwrap();
        found
            .into_iter()
            .filter(|problem| problem.file == FILE)
            .map(|problem| (problem.line, problem.what))
            .collect()
    }

    #[test]
    fn a_full_scan_and_a_sort_are_found() {
        let scan = "fn f() {\n    q(\"SELECT id FROM blob \\\n        WHERE size = $1\");\n}";
        let found = problems(scan);
        assert_eq!(found.len(), 1);
        assert!(
            found[0].0 == 2 && found[0].1.contains("SCAN blob"),
            "{found:?}"
        );
        let sort = problems("q(\"SELECT id FROM blob WHERE id > $1 ORDER BY size LIMIT 3\")");
        assert!(sort[0].1.contains("TEMP B-TREE"), "{sort:?}");
        assert_eq!(problems("q(\"SELECT size FROM blob WHERE id = $1\")"), []);
    }

    #[test]
    fn a_statement_that_is_none_is_an_error() {
        assert!(
            check(
                [(FILE, "q(\"SELECT nothing FROM nowhere\")")].into_iter(),
                None
            )
            .is_err()
        );
    }

    #[test]
    fn a_page_out_of_date_is_found() {
        let source = "q(\"SELECT size FROM blob WHERE id = $1\")";
        let of = |written| check([(FILE, source)].into_iter(), written).unwrap();
        assert_eq!(of(None)[0].file, PAGE);
        let right = page(&plan(statements([(FILE, source)].into_iter())).unwrap());
        assert_eq!(of(Some(&right)), []);
        assert_eq!(of(Some(&format!("{right}\n"))).len(), 1);
    }

    #[test]
    fn statements_are_found_in_operations_only() {
        let text =
            "// \"SELECT 1 FROM a\"\nlet a = \"SELECT b \\\n   FROM c\"; let d = \"UPDATE\";";
        let found = statements([(FILE, text), ("crates/meta/src/suite/x.rs", text)].into_iter());
        let expected = Statement {
            file: FILE.to_owned(),
            line: 2,
            sql: "SELECT b FROM c".to_owned(),
        };
        assert_eq!(found, [expected]);
    }
}
