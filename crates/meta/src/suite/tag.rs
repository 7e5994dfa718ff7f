//! Tags and their history.

use super::{NOW, digest, push, put, repo, tag};
use crate::Meta;
use crate::manifest::Put;
use crate::tag::{Delete, History, List, Move};

async fn list(
    meta: &Meta,
    repository: &str,
    after: Option<&str>,
    limit: u32,
) -> Option<Vec<String>> {
    let op = List {
        repository: repo(repository),
        after: after.map(str::to_owned),
        limit,
    };
    meta.scan(op).await.unwrap()
}

async fn delete(meta: &Meta, repository: &str, name: &str) -> bool {
    let op = Delete {
        repository: repo(repository),
        tag: tag(name),
        actor: "bob".into(),
        at: NOW + 9,
    };
    meta.write(op).await.unwrap()
}

async fn moves(meta: &Meta, name: Option<&str>, limit: u32) -> Vec<Move> {
    meta.scan(History {
        repository: repo("a"),
        tag: name.map(tag),
        limit,
    })
    .await
    .unwrap()
}

/// Bytewise order, upper case before lower case; a page may start after a name that is not there.
pub async fn pages(meta: Meta) {
    assert_eq!(list(&meta, "a", None, 10).await, None, "no such repository");
    push(
        &meta,
        put("a", "m", &["b", "B", "a.1", "a-1", "_x", "10", "9"]),
    )
    .await;
    push(&meta, put("b", "m", &["other"])).await;
    let all = ["10", "9", "B", "_x", "a-1", "a.1", "b"];
    assert_eq!(list(&meta, "a", None, 10).await.unwrap(), all);
    assert_eq!(list(&meta, "a", None, 3).await.unwrap(), all[..3]);
    assert_eq!(list(&meta, "a", Some("B"), 3).await.unwrap(), all[3..6]);
    assert_eq!(list(&meta, "a", Some("C"), 2).await.unwrap(), all[3..5]);
    assert!(list(&meta, "a", Some("z"), 2).await.unwrap().is_empty());
    assert!(list(&meta, "a", None, 0).await.unwrap().is_empty());
    for name in all {
        assert!(delete(&meta, "a", name).await);
    }
    assert_eq!(
        list(&meta, "a", None, 10).await,
        Some(Vec::new()),
        "the repository is still known"
    );
}

/// Versions only go up, through deletion too; a push that moves nothing is no move.
pub async fn versions_survive_deletion(meta: Meta) {
    push(&meta, put("a", "one", &["t"])).await;
    push(&meta, put("a", "one", &["t"])).await;
    push(&meta, put("a", "two", &["t"])).await;
    assert!(delete(&meta, "a", "t").await);
    assert!(!delete(&meta, "a", "t").await);
    assert!(!delete(&meta, "none", "t").await);
    push(&meta, put("a", "one", &["t"])).await;
    let (one, two) = (Some(digest("one")), Some(digest("two")));
    let expected = [
        (4, None, one.clone(), "alice"),
        (3, two.clone(), None, "bob"),
        (2, one.clone(), two, "alice"),
        (1, None, one, "alice"),
    ];
    let found: Vec<_> = moves(&meta, Some("t"), 10).await;
    let found: Vec<_> = found
        .iter()
        .map(|m| (m.version, m.from.clone(), m.to.clone(), m.actor.as_str()))
        .collect();
    assert_eq!(found, expected);
}

/// Of one tag by version, of all by time.
pub async fn history(meta: Meta) {
    for (n, name) in ["a", "b", "a"].into_iter().enumerate() {
        let at = NOW + n as i64;
        push(
            &meta,
            Put {
                at,
                ..put("a", format!("m{n}"), &[name])
            },
        )
        .await;
    }
    let of = |moves: Vec<Move>| {
        moves
            .into_iter()
            .map(|m| (m.tag, m.version, m.at - NOW))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        of(moves(&meta, None, 2).await),
        [("a".into(), 2, 2), ("b".into(), 1, 1)]
    );
    assert_eq!(
        of(moves(&meta, Some("a"), 9).await),
        [("a".into(), 2, 2), ("a".into(), 1, 0)]
    );
    assert!(moves(&meta, Some("none"), 9).await.is_empty());
    let elsewhere = History {
        repository: repo("none"),
        tag: None,
        limit: 9,
    };
    assert!(meta.scan(elsewhere).await.unwrap().is_empty());
}

/// All tags of a push move together, each once even when it is named twice.
pub async fn several_tags_at_once(meta: Meta) {
    push(&meta, put("a", "one", &["x", "y", "x"])).await;
    assert_eq!(moves(&meta, None, 9).await.len(), 2);
    push(&meta, put("a", "two", &["y", "z", "x", "y"])).await;
    for name in ["x", "y", "z"] {
        assert_eq!(
            moves(&meta, Some(name), 1).await[0].to,
            Some(digest("two")),
            "{name}"
        );
    }
    assert_eq!(moves(&meta, None, 9).await.len(), 5);
}
