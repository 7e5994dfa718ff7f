//! Tags and their history.

use super::{NOW, digest, push, put, repo, tag};
use crate::Meta;
use crate::manifest::Put;
use crate::tag::{
    Between, Delete, DeleteAt, Deleted, GetStanding, History, List, Move, MovesBefore, MovesIn,
    Stand, StandBetween, Standing,
};

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

/// The first name is in, the last one is not, and neither need exist.
pub async fn between(meta: Meta) {
    let look = |repository: &str, from: &str, until: &str, limit| Between {
        repository: repo(repository),
        from: from.into(),
        until: until.into(),
        limit,
    };
    assert_eq!(meta.scan(look("a", "", "~", 9)).await.unwrap(), None);
    push(&meta, put("a", "m", &["v", "v1", "v1.0", "v2", "u", "w"])).await;
    push(&meta, put("b", "m", &["v3"])).await;
    for (from, until, limit, expected) in [
        ("", "~", 9, &["u", "v", "v1", "v1.0", "v2", "w"][..]),
        ("v", "v~", 9, &["v", "v1", "v1.0", "v2"]),
        ("v", "v\u{1}", 9, &["v"]),
        ("v\u{1}", "v~", 2, &["v1", "v1.0"]),
        ("v1.", "v1.~", 9, &["v1.0"]),
        ("x", "~", 9, &[]),
        ("", "", 0, &[]),
    ] {
        let found = meta.scan(look("a", from, until, limit)).await.unwrap();
        assert_eq!(found.unwrap(), expected, "{from} to {until}");
        let standing = meta.scan(StandBetween(look("a", from, until, limit)));
        let standing = standing.await.unwrap().unwrap();
        let names: Vec<_> = standing.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, expected, "{from} to {until}");
        assert!(standing.iter().all(|one| one.version == 1));
    }
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
    // Those of one moment, too, each on one page.
    let at = NOW + 9;
    push(
        &meta,
        Put {
            at,
            ..put("a", "many", &["p", "q", "r", "a"])
        },
    )
    .await;
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = MovesIn {
            repository: repo("a"),
            before,
            limit: 2,
        };
        let page = meta.scan(page).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some((last.at, last.tag.clone(), last.version));
        seen.extend(page);
    }
    let mut all = moves(&meta, None, 99).await;
    all.sort_by_key(|one| std::cmp::Reverse((one.at, one.tag.clone(), one.version)));
    assert_eq!((seen.len(), &seen), (7, &all));
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

/// What a push may make and not move, and the reverse; a tag that stands where it shall is neither.
pub async fn who_may_make_and_not_move(meta: Meta) {
    use crate::manifest::PutOutcome;
    let make = |bytes: &str, name: &str| Put {
        fixed: vec![tag(name)],
        ..put("a", bytes, &[name])
    };
    let denied = |name: &str, exists| PutOutcome::TagDenied {
        tag: tag(name),
        exists,
    };
    let stored = |created| PutOutcome::Stored { created };
    let write = async |op: Put| meta.write(op).await.unwrap();
    assert_eq!(write(make("one", "v1")).await, stored(true));
    assert_eq!(write(make("one", "v1")).await, stored(false));
    assert_eq!(write(make("two", "v1")).await, denied("v1", true));
    assert_eq!(write(put("a", "two", &["v1"])).await, stored(true));
    let moved = |bytes: &str, name: &str| Put {
        fixed: Vec::new(),
        unmade: vec![tag(name)],
        ..make(bytes, name)
    };
    assert_eq!(write(moved("one", "v1")).await, stored(false));
    assert_eq!(write(moved("one", "v2")).await, denied("v2", false));
    // All or nothing.
    let both = Put {
        fixed: vec![tag("v1"), tag("v3")],
        ..put("a", "three", &["v3", "v1"])
    };
    assert_eq!(write(both).await, denied("v1", true));
    let list = List {
        repository: repo("a"),
        after: None,
        limit: 9,
    };
    assert_eq!(meta.scan(list).await.unwrap().unwrap(), ["v1"]);
}

/// Many make the same tag at once, none of whom may move one: it stands where the first one put it, ever after.
pub async fn one_publisher_makes_a_tag(meta: Meta) {
    use crate::manifest::PutOutcome;
    for round in 0..8 {
        let name = format!("v{round}");
        let tasks = (0..16).map(|n| {
            let op = Put {
                fixed: vec![tag(&name)],
                ..put("a", format!("{round} {n}"), &[&name])
            };
            let meta = meta.clone();
            async move {
                loop {
                    match meta.write(op.clone()).await {
                        Ok(outcome) => return outcome,
                        Err(crate::Error::Busy(_)) => tokio::task::yield_now().await,
                        Err(error) => panic!("{error}"),
                    }
                }
            }
        });
        let outcomes = super::concurrent::all(tasks).await;
        let made = |outcome: &&PutOutcome| matches!(outcome, PutOutcome::Stored { .. });
        assert_eq!(outcomes.iter().filter(made).count(), 1, "{outcomes:?}");
        let history = History {
            repository: repo("a"),
            tag: Some(tag(&name)),
            limit: 9,
        };
        assert_eq!(meta.scan(history).await.unwrap().len(), 1);
    }
}

/// Tags are shown with where they stand, and deleted only as what they were shown as.
pub async fn standing(meta: Meta) {
    push(&meta, put("a", "one", &["t", "u"])).await;
    push(&meta, put("a", "two", &["t"])).await;
    let get = |name| GetStanding {
        repository: repo("a"),
        tag: tag(name),
    };
    let shown = meta.read(get("t")).await.unwrap().unwrap();
    assert_eq!((shown.digest.clone(), shown.version), (digest("two"), 2));
    assert_eq!(meta.read(get("none")).await.unwrap(), None);
    let page = |after: Option<&str>, limit| {
        Stand(List {
            repository: repo("a"),
            after: after.map(str::to_owned),
            limit,
        })
    };
    let names = |page: Option<Vec<Standing>>| -> Vec<String> {
        page.unwrap().into_iter().map(|one| one.name).collect()
    };
    assert_eq!(names(meta.scan(page(None, 9)).await.unwrap()), ["t", "u"]);
    assert_eq!(names(meta.scan(page(Some("t"), 9)).await.unwrap()), ["u"]);
    assert_eq!(meta.scan(page(None, 1)).await.unwrap().unwrap(), [shown]);

    let delete = |version: Option<i64>| DeleteAt {
        delete: Delete {
            repository: repo("a"),
            tag: tag("t"),
            actor: "bob".into(),
            at: NOW + 9,
        },
        version: version.into(),
    };
    assert_eq!(meta.write(delete(Some(1))).await.unwrap(), Deleted::Moved);
    assert_eq!(meta.write(delete(Some(2))).await.unwrap(), Deleted::Done);
    assert_eq!(meta.write(delete(None)).await.unwrap(), Deleted::Unknown);
    let moves = |version, limit| MovesBefore {
        repository: repo("a"),
        tag: tag("t"),
        version,
        limit,
    };
    let versions = |moves: Vec<Move>| -> Vec<i64> { moves.iter().map(|one| one.version).collect() };
    let all = meta.scan(moves(i64::MAX, 9)).await.unwrap();
    assert_eq!(versions(all), [3, 2, 1]);
    let some = meta.scan(moves(3, 1)).await.unwrap();
    assert_eq!(versions(some), [2]);
}
