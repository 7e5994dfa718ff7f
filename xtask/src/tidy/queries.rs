//! The statements of the metadata store: see [`crate::queries`].

use super::{Finding, Tree};
use crate::queries;

/// No statement reads more than it gives, and the page with their plans is up to date.
pub(super) fn plans(tree: &Tree) -> Vec<Finding> {
    const RULE: &str = "query plan";
    let sources = tree.files("crates/meta/src/", ".rs");
    match queries::check(sources, tree.get(queries::PAGE)) {
        Ok(problems) => problems
            .into_iter()
            .map(|problem| Finding::new(&problem.file, problem.line, RULE, problem.what))
            .collect(),
        Err(error) => vec![Finding::new(queries::PAGE, 1, RULE, format!("{error:#}"))],
    }
}

#[cfg(test)]
mod tests {
    use super::super::lines;
    use super::*;

    #[test]
    fn a_full_scan_and_a_missing_page_are_found() {
        let source = "let a = 1;\nq(\"SELECT id FROM blob WHERE size = $1\");";
        let tree = Tree::of(&[("crates/meta/src/ops/a.rs", source)]);
        assert_eq!(
            lines(plans(&tree)),
            [
                ("crates/meta/src/ops/a.rs".to_owned(), 2),
                (queries::PAGE.to_owned(), 1)
            ]
        );
    }
}
