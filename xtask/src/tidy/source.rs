//! Rules about source text.

use super::{Finding, Tree, numbered};
use crate::lex::{self, Kind};

/// The longest source file.
const LINES: usize = 800;

/// Starts of statements; upper case, as SQL is written here, so that prose is not taken for it.
const SQL: &[(&str, &str)] = &[
    ("SELECT ", ""),
    ("INSERT ", "INTO "),
    ("UPDATE ", "SET "),
    ("DELETE ", "FROM "),
    ("CREATE ", "TABLE "),
    ("CREATE ", "INDEX "),
    ("ALTER ", "TABLE "),
    ("DROP ", "TABLE "),
    ("WITH ", "SELECT "),
    ("PRAGMA ", ""),
    ("VACUUM ", "INTO "),
    ("BEGIN IMMEDIATE", ""),
];

/// SQL text and database drivers live in `crates/meta` only.
pub(super) fn sql(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (path, text) in tree
        .files("crates/", ".rs")
        .filter(|(path, _)| !path.starts_with("crates/meta/"))
    {
        for span in lex::spans(text)
            .into_iter()
            .filter(|span| span.kind == Kind::Text)
        {
            // Only at its start: an attack that a test makes holds SQL behind other text.
            let text = span
                .text
                .trim_start_matches(|c: char| "br#\"\\n \t\n".contains(c));
            let is_sql = SQL
                .iter()
                .any(|(start, then)| text.starts_with(start) && text.contains(then));
            if is_sql {
                let cure = "SQL text belongs into crates/meta: make it an operation there";
                found.push(Finding::new(path, span.line, "SQL only in meta", cure));
            }
        }
        let code = lex::code(text);
        for (line, code) in numbered(&code) {
            for driver in ["rusqlite", "tokio_postgres", "postgres_types", "sqlx"] {
                if lex::find_word(code, driver).is_some() {
                    let cure = format!(
                        "`{driver}` is used in crates/meta only: make it an operation there"
                    );
                    found.push(Finding::new(path, line, "SQL only in meta", cure));
                }
            }
        }
    }
    found
}

/// No source file over [`LINES`] lines.
pub(super) fn length(tree: &Tree) -> Vec<Finding> {
    tree.files("", ".rs")
        .filter_map(|(path, text)| {
            let lines = text.lines().count();
            (lines > LINES).then(|| {
                let cure = format!(
                    "{lines} lines, {LINES} are allowed: split it by what its parts are for"
                );
                Finding::new(path, LINES + 1, "file length", cure)
            })
        })
        .collect()
}

/// Each `unsafe` block, function or implementation has a comment that begins with `SAFETY:` (or a section
/// `# Safety`) just above it or on its line.
pub(super) fn safety(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (path, text) in tree.files("", ".rs") {
        let code = lex::code(text);
        let lines: Vec<&str> = text.lines().collect();
        let code_lines: Vec<&str> = code.lines().collect();
        for (line, code) in numbered(&code) {
            let Some(at) = lex::find_word(code, "unsafe") else {
                continue;
            };
            if code[at..].starts_with("unsafe_") || code.trim_start().starts_with("#") {
                continue;
            }
            // Up through the comment and the attributes above, and the start of a statement broken over lines.
            let mut first = line - 1;
            while first > 0 && line - first < 12 {
                let above = code_lines[first - 1].trim();
                let ends_statement = above.ends_with([';', '{', '}']);
                let blank = lines[first - 1].trim().is_empty();
                if ends_statement || blank {
                    break;
                }
                first -= 1;
            }
            let said = lines[first..line]
                .iter()
                .any(|l| l.contains("SAFETY:") || l.contains("# Safety"));
            if !said {
                let cure = "write `// SAFETY: …` above it: why nothing can go wrong here";
                found.push(Finding::new(path, line, "unsafe without a reason", cure));
            }
        }
    }
    found
}

/// What may not stay in the source: tests that do not run, holes, debugging.
pub(super) fn leftovers(tree: &Tree) -> Vec<Finding> {
    const WORDS: &[(&str, &str)] = &[
        (
            "#[ignore",
            "a test that does not run proves nothing: make it run or remove it",
        ),
        (
            "todo!",
            "write it, or return an error that says what is missing",
        ),
        (
            "unimplemented!",
            "write it, or return an error that says what is missing",
        ),
        ("dbg!", "remove it"),
        ("#[allow(dead_code", "remove the dead code"),
        ("#![allow(dead_code", "remove the dead code"),
    ];
    let mut found = Vec::new();
    for (path, text) in tree.files("", ".rs") {
        let code = lex::code(text);
        for (line, code) in numbered(&code) {
            for (word, cure) in WORDS {
                let hit = code.find(word).is_some_and(|at| {
                    !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
                });
                if hit {
                    found.push(Finding::new(path, line, "leftover", *cure));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::lines;
    use super::*;

    #[test]
    fn sql_outside_meta_is_found() {
        let tree = Tree::of(&[
            (
                "crates/core/src/a.rs",
                "// SELECT x FROM y\nlet q = \"SELECT x FROM y\";\nlet p = \"please select one from these\";let a = \"x'; DROP TABLE y\";",
            ),
            (
                "crates/server/src/a.rs",
                "use rusqlite::Connection;\nlet q = r#\"\nDELETE FROM tag\"#;",
            ),
            ("crates/meta/src/a.rs", "let q = \"SELECT x FROM y\";"),
        ]);
        assert_eq!(
            lines(sql(&tree)),
            [
                ("crates/core/src/a.rs".to_owned(), 2),
                ("crates/server/src/a.rs".to_owned(), 2),
                ("crates/server/src/a.rs".to_owned(), 1)
            ]
        );
    }

    #[test]
    fn long_files_are_found() {
        let (long, fits) = ("x\n".repeat(LINES + 1), "x\n".repeat(LINES));
        let tree = Tree::of(&[("a.rs", &long), ("b.rs", &fits), ("c.md", &long)]);
        assert_eq!(lines(length(&tree)), [("a.rs".to_owned(), 801)]);
    }

    #[test]
    fn unsafe_needs_its_reason() {
        let bad = "fn f() {\n    let x = unsafe { g() };\n}\n";
        let good = "#![deny(unsafe_code)]\nfn f() {\n    // SAFETY: g has no conditions.\n    let x =\n        unsafe { g() };\n    // not unsafe\n}\n";
        let far = "// SAFETY: of another one.\nf();\nunsafe { g() }\n";
        let tree = Tree::of(&[("a.rs", bad), ("b.rs", good), ("c.rs", far)]);
        assert_eq!(
            lines(safety(&tree)),
            [("a.rs".to_owned(), 2), ("c.rs".to_owned(), 3)]
        );
    }

    #[test]
    fn leftovers_are_found() {
        let source = "// todo!() in words\n#[ignore = \"slow\"]\nfn f() { todo!() }\nlet s = \"dbg!\";\nmy_todo!();\n";
        assert_eq!(
            lines(leftovers(&Tree::of(&[("a.rs", source)]))),
            [("a.rs".to_owned(), 2), ("a.rs".to_owned(), 3)]
        );
    }
}
