//! Repositories.

use super::{NOW, push, push_blob, put, repo};
use crate::Meta;
use crate::repository::{Get, GetTotals, List, Totals};

/// Bytewise pages; a principal that may see some prefixes sees exactly those.
pub async fn pages_within_prefixes(meta: Meta) {
    let mut names = vec![
        "a", "a-b", "a/b", "a/b/c", "a0", "ab", "b", "b/a", "team/x", "team/y/z", "teams",
    ];
    for name in names.iter().rev() {
        push_blob(&meta, name, "x").await;
    }
    names.sort_unstable();
    let sets: [Option<&[&str]>; 9] = [
        None,
        Some(&[]),
        Some(&[""]),
        Some(&["a"]),
        Some(&["a/b", "a"]),
        Some(&["team", "a-b", "none"]),
        Some(&["b", "a/b/c", "team/y"]),
        Some(&["a/"]),
        Some(&["te"]),
    ];
    for within in sets {
        let expected: Vec<&str> = names
            .iter()
            .copied()
            .filter(|name| {
                within.is_none_or(|prefixes| {
                    prefixes
                        .iter()
                        .any(|p| repo(name).is_within(p.trim_end_matches('/')) || p.is_empty())
                })
            })
            .collect();
        for limit in [1, 2, 100] {
            let (mut paged, mut after) = (Vec::new(), None);
            loop {
                let within = within.map(|set| set.iter().map(|p| (*p).to_owned()).collect());
                let page = meta
                    .scan(List {
                        after: after.clone(),
                        limit,
                        within,
                    })
                    .await
                    .unwrap();
                assert!(page.len() <= limit as usize);
                let Some(last) = page.last() else { break };
                after = Some(last.clone());
                paged.extend(page);
            }
            assert_eq!(paged, expected, "{within:?}, {limit}");
        }
    }
    let got = meta.read(Get { name: repo("a/b") }).await.unwrap().unwrap();
    assert_eq!((got.name, got.created_at), (repo("a/b"), NOW));
    assert_eq!(meta.read(Get { name: repo("none") }).await.unwrap(), None);
}

/// Totals follow what is done.
pub async fn totals(meta: Meta) {
    assert_eq!(meta.read(GetTotals).await.unwrap(), Totals::default());
    push_blob(&meta, "a", "12345").await;
    push_blob(&meta, "b", "12345").await;
    push_blob(&meta, "b", "678").await;
    push(&meta, put("a", "m", &["t", "u"])).await;
    push(&meta, put("b", "m", &["t"])).await;
    let expected = Totals {
        repositories: 2,
        manifests: 2,
        tags: 3,
        blobs: 2,
        blob_bytes: 8,
        uploads: 0,
    };
    assert_eq!(meta.read(GetTotals).await.unwrap(), expected);
}
