//! Lists of tags for those who may read some of them.

use wharf_meta::{Op, Tx};

use super::*;
use crate::house::House;

/// A statement that fills the house's repository with tags of one manifest.
struct Fill {
    /// An expression of `n`, the number of a tag.
    name: &'static str,
    most: i64,
}

impl Op for Fill {
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> wharf_meta::Result<()> {
        let sql = format!(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {}) INSERT INTO tag \
             (repository_id, name, manifest_id, version, moved_at) SELECT m.repository_id, {}, m.id, 1, 0 FROM numbers, manifest m",
            self.most, self.name
        );
        // Statements live as long as the program.
        tx.exec(sql.leak(), &[]).await?;
        Ok(())
    }
}

async fn fill(house: &House, name: &'static str, most: i64) {
    let fill = Fill { name, most };
    house.registry.meta.write(fill).await.unwrap();
}

fn view(patterns: &[&str]) -> TagView {
    TagView::of(patterns.iter().map(|text| text.parse().unwrap()).collect())
}

/// All pages, as names and what follows.
async fn walk(house: &House, view: &TagView, limit: u32) -> Vec<(Vec<String>, Option<String>)> {
    let (mut pages, mut last) = (Vec::new(), None::<String>);
    loop {
        let repository = House::repository();
        let page = list(
            &house.registry,
            &repository,
            view,
            last.as_deref(),
            Some(limit),
        );
        let page = page.await.unwrap();
        // The same, with where each stands.
        let standing = stand(&house.registry, &repository, view, last.as_deref(), limit);
        let (standing, next) = standing.await.unwrap();
        let names: Vec<_> = standing.into_iter().map(|one| one.name).collect();
        assert_eq!(names, page.names);
        assert_eq!(next.is_some(), page.next.is_some());
        last.clone_from(&page.next);
        pages.push((page.names, page.next));
        if last.is_none() {
            return pages;
        }
    }
}

/// Spec: TAGS-3, TAGS-4, TAGS-5.
#[tokio::test]
async fn pages_of_some_tags_are_those_of_a_repository_that_has_no_others() {
    let house = House::new().await;
    house.push_image("v1", b"layer").await;
    let mut all = vec!["v1"];
    for tag in [
        "v", "v1.0", "v1.1", "v10", "v2", "dev", "latest", "a-rc", "v3-rc", "V1", "_v", "w",
    ] {
        house.push_image(tag, b"layer").await;
        all.push(tag);
    }
    all.sort_unstable();
    for patterns in [
        &["v*"][..],
        &["v?"],
        &["*-rc"],
        &["v1", "v1.*", "latest"],
        &["v", "*-rc", "d*"],
        &["none*"],
        &["*"],
        &["?"],
    ] {
        let view = view(patterns);
        let shown: Vec<_> = all.iter().filter(|tag| view.shows(tag)).copied().collect();
        for limit in 1..6 {
            let pages = walk(&house, &view, limit).await;
            let names: Vec<_> = pages.iter().flat_map(|(names, _)| names).collect();
            assert_eq!(names, shown.iter().collect::<Vec<_>>(), "{patterns:?}");
            for (names, next) in &pages[..pages.len() - 1] {
                assert_eq!(names.len(), limit as usize, "{patterns:?}");
                assert_eq!(names.last(), next.as_ref());
            }
        }
        // Behind a tag that is not shown, or is not there.
        for last in ["", "a", "dev", "v1", "v1.05", "w", "z", "~", "~AAAA"] {
            let repository = House::repository();
            let page = list(&house.registry, &repository, &view, Some(last), None);
            let expected: Vec<_> = shown.iter().filter(|tag| **tag > last).collect();
            let page = page.await.unwrap();
            assert_eq!(page.names.iter().collect::<Vec<_>>(), expected);
            assert_eq!(page.next, None);
        }
        let repository = House::repository();
        let none = list(&house.registry, &repository, &view, None, Some(0));
        assert_eq!(none.await.unwrap(), Page::default());
        let unknown = RepositoryName::parse("none").unwrap();
        for last in [None, Some("z"), Some("~")] {
            let unknown = list(&house.registry, &unknown, &view, last, None).await;
            assert!(matches!(unknown, Err(Error::NameUnknown(_))), "{last:?}");
        }
    }
}

/// A page among many tags that are not shown ends early, goes on, and names none of them.
///
/// Spec: TAGS-3, TAGS-5.
#[tokio::test]
async fn a_page_looks_at_so_many_hidden_tags_and_no_more() {
    let house = House::new().await;
    house.push_image("hidden-05000-rc", b"layer").await;
    house.push_image("z-rc", b"layer").await;
    fill(&house, "printf('hidden-%05d', n)", 25_000).await;
    let pages = walk(&house, &view(&["*-rc"]), 5).await;
    let names: Vec<_> = pages.iter().flat_map(|(names, _)| names).collect();
    assert_eq!(names, ["hidden-05000-rc", "z-rc"]);
    assert_eq!(pages.len(), 25_002_usize.div_ceil(MOST_LOOKED_AT));
    let lengths: Vec<_> = pages.iter().map(|(names, _)| names.len()).collect();
    assert_eq!(lengths, [1, 0, 1]);
    for next in pages.iter().filter_map(|(_, next)| next.as_ref()) {
        assert!(next.starts_with('~') && !next.contains("hidden"), "{next}");
    }
    // Whose place it is, counts nowhere else, and a wider right goes on from there.
    let next = pages[0].1.as_deref();
    let (all, repository) = (TagView::All, House::repository());
    let rest = list(&house.registry, &repository, &all, next, Some(1));
    let rest = rest.await.unwrap();
    assert_eq!(rest.names, [format!("hidden-{:05}", MOST_LOOKED_AT)]);

    // What a pattern begins with leaves no others to be looked at.
    for patterns in [&["z*"][..], &["z-rc"], &["hidden-05000-*", "z*"]] {
        let pages = walk(&house, &view(patterns), 5).await;
        assert_eq!(pages.len(), 1, "{patterns:?}");
        assert_eq!(pages[0].0.last().unwrap(), "z-rc");
    }
    // Many patterns are as many looks.
    let many: Vec<_> = (0..MOST_LOOKS + 1)
        .map(|n| format!("hidden-1{n:02}*-x"))
        .collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let pages = walk(&house, &view(&many), 5).await;
    assert!(pages.len() > 1 && pages.iter().all(|(names, _)| names.is_empty()));
}
