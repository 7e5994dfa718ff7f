//! Rules about pages: each can be found, and no link leads nowhere.

use super::{Finding, Tree, numbered};

/// The page that leads to all others.
const INDEX: &str = "docs/README.md";

/// Every page below `docs/` is linked from its index.
pub(super) fn index(tree: &Tree) -> Vec<Finding> {
    let pages: Vec<&str> = tree
        .files("docs/", ".md")
        .map(|(path, _)| path)
        .filter(|path| *path != INDEX)
        .collect();
    let Some(text) = tree.get(INDEX) else {
        return pages
            .first()
            .map(|_| Finding::new(INDEX, 1, "docs index", "write it: it links every page"))
            .into_iter()
            .collect();
    };
    let linked: Vec<String> = targets(text)
        .into_iter()
        .map(|(_, target)| resolve(INDEX, &target))
        .collect();
    pages
        .into_iter()
        .filter(|page| !linked.iter().any(|l| l == page))
        .map(|page| {
            Finding::new(
                page,
                1,
                "docs index",
                format!("link it from {INDEX}, or nobody finds it"),
            )
        })
        .collect()
}

/// Relative links between pages lead to a file that is there.
pub(super) fn links(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for (path, text) in tree.files("", ".md") {
        for (line, target) in targets(text) {
            // Only what the tree holds can be judged.
            let known = [".md", ".rs", ".toml"]
                .iter()
                .any(|ext| target.ends_with(ext));
            if known && tree.get(&resolve(path, &target)).is_none() {
                found.push(Finding::new(
                    path,
                    line,
                    "dead link",
                    format!("{target} is not there"),
                ));
            }
        }
    }
    found
}

/// Targets of the relative links `[…](target)` outside code blocks, without their anchors.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut fenced = false;
    for (line, content) in numbered(text) {
        if content.trim_start().starts_with("```") {
            fenced = !fenced;
        }
        if fenced {
            continue;
        }
        for (at, _) in content.match_indices("](") {
            let rest = &content[at + 2..];
            let Some(end) = rest.find(')') else { continue };
            let target = rest[..end].split(['#', ' ']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                found.push((line, target.to_owned()));
            }
        }
    }
    found
}

/// `target` as seen from `page`, relative to the root.
fn resolve(page: &str, target: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." | "" => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::super::lines;
    use super::*;

    #[test]
    fn a_page_that_nobody_links_is_found() {
        let tree = Tree::of(&[
            (INDEX, "[a](how-to/a.md#x) and [o](https://o.test/b.md)"),
            ("docs/how-to/a.md", ""),
            ("docs/how-to/b.md", ""),
        ]);
        assert_eq!(lines(index(&tree)), [("docs/how-to/b.md".to_owned(), 1)]);
        assert_eq!(index(&Tree::of(&[("docs/a.md", "")])).len(), 1);
    }

    #[test]
    fn a_dead_link_is_found() {
        let tree = Tree::of(&[
            (
                "docs/a.md",
                "[x](../README.md) [y](b.md)\n```\n[z](c.md)\n```\n[w](https://e.test/d.md)",
            ),
            ("README.md", ""),
        ]);
        assert_eq!(lines(links(&tree)), [("docs/a.md".to_owned(), 1)]);
    }
}
