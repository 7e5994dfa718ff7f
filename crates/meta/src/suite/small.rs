//! Principals, keys, tokens, settings, events.

use super::{NOW, push, put};
use crate::{Meta, event, hold, mark, principal, refresh_token, setting, signing_key};

/// A hold stands until it is released, or ends by itself; one that has ended is not made to last.
pub async fn holds(meta: Meta) {
    let standing = async |at: i64| meta.scan(hold::Standing { at }).await.unwrap();
    let take = async |id: &str, first: bool, at: i64| {
        let (id, lasts) = (id.to_owned(), 100);
        let op = hold::Take {
            id,
            first,
            lasts,
            at,
        };
        meta.write(op).await.unwrap()
    };
    let release = async |id: &str, at: i64| {
        let id = id.to_owned();
        meta.write(hold::Release { id, at }).await.unwrap()
    };
    assert_eq!(standing(NOW).await, None);
    assert!(take("a", true, NOW).await);
    assert!(take("b", true, NOW + 50).await);
    assert_eq!(standing(NOW + 60).await, Some(90));
    assert!(take("a", false, NOW + 90).await);
    assert_eq!(standing(NOW + 160).await, Some(30), "b has ended");
    assert!(!take("b", false, NOW + 160).await);
    assert!(release("a", NOW + 160).await);
    assert_eq!(standing(NOW + 160).await, None);
    assert!(!release("a", NOW + 160).await);
    assert!(take("c", true, NOW).await);
    assert!(!release("c", NOW + 100).await, "it had ended");
}

/// Marks only grow, and beyond what is beside the blobs.
pub async fn marks(meta: Meta) {
    let advance = async |beyond: u64| {
        let done = meta.write(mark::Advance { beyond }).await.unwrap();
        (done.before, done.now)
    };
    assert_eq!(advance(0).await, (0, 1));
    assert_eq!(advance(1).await, (1, 2));
    assert_eq!(advance(9).await, (2, 10));
    assert_eq!(advance(3).await, (10, 11));
}

/// The first one to make a name has it; secrets change; nothing secret is shown.
pub async fn principals(meta: Meta) {
    assert!(!meta.read(principal::Any).await.unwrap());
    let create = |hash: &str| principal::Create {
        name: "admin".into(),
        kind: "user".into(),
        secret_hash: Some(hash.into()),
        at: NOW,
    };
    assert!(meta.write(create("hash-1")).await.unwrap());
    assert!(!meta.write(create("hash-2")).await.unwrap());
    assert!(meta.read(principal::Any).await.unwrap());
    let get = || {
        meta.read(principal::Get {
            name: "admin".into(),
        })
    };
    let row = get().await.unwrap().unwrap();
    assert_eq!(
        (
            row.kind.as_str(),
            row.secret_hash.as_deref(),
            row.changed_at
        ),
        ("user", Some("hash-1"), NOW)
    );
    assert!(
        !format!("{row:?}").contains("hash-1"),
        "secrets are not shown"
    );
    let set = |name: &str| principal::SetSecret {
        name: name.into(),
        hash: "hash-3".into(),
        at: NOW + 1,
    };
    assert!(meta.write(set("admin")).await.unwrap());
    assert!(!meta.write(set("none")).await.unwrap());
    let row = get().await.unwrap().unwrap();
    assert_eq!(
        (row.secret_hash.as_deref(), row.created_at, row.changed_at),
        (Some("hash-3"), NOW, NOW + 1)
    );
    let keyless = principal::Create {
        name: "robot".into(),
        kind: "robot".into(),
        secret_hash: None,
        at: NOW,
    };
    assert!(meta.write(keyless).await.unwrap());
    let robot = meta
        .read(principal::Get {
            name: "robot".into(),
        })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(robot.secret_hash, None);
}

/// Newest first; a retired key stays.
pub async fn signing_keys(meta: Meta) {
    assert!(meta.read(signing_key::List).await.unwrap().is_empty());
    let add = |kid: &str, at| signing_key::Add {
        kid: kid.into(),
        algorithm: "ES256".into(),
        private_der: vec![77; 9],
        at,
    };
    assert!(meta.write(add("one", NOW)).await.unwrap());
    assert!(!meta.write(add("one", NOW + 5)).await.unwrap());
    assert!(meta.write(add("two", NOW + 1)).await.unwrap());
    let retire = |kid: &str| signing_key::Retire {
        kid: kid.into(),
        at: NOW + 2,
    };
    assert!(meta.write(retire("one")).await.unwrap());
    assert!(!meta.write(retire("one")).await.unwrap());
    assert!(!meta.write(retire("none")).await.unwrap());
    let keys = meta.read(signing_key::List).await.unwrap();
    let found: Vec<_> = keys
        .iter()
        .map(|key| (key.kid.as_str(), key.created_at, key.retired_at))
        .collect();
    assert_eq!(found, [("two", NOW + 1, None), ("one", NOW, Some(NOW + 2))]);
    assert_eq!(keys[0].private_der, [77; 9]);
    assert!(!format!("{keys:?}").contains("77"), "keys are not shown");
}

/// Kept by hash, forgotten on demand.
pub async fn refresh_tokens(meta: Meta) {
    let hash = vec![7; 32];
    let create = refresh_token::Create {
        hash: hash.clone(),
        subject: "alice".into(),
        credential: "password".into(),
        created_at: NOW,
    };
    meta.write(create.clone()).await.unwrap();
    meta.write(create).await.unwrap();
    let row = meta
        .read(refresh_token::Get { hash: hash.clone() })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (
            row.subject.as_str(),
            row.credential.as_str(),
            row.created_at
        ),
        ("alice", "password", NOW)
    );
    assert!(
        meta.write(refresh_token::Delete { hash: hash.clone() })
            .await
            .unwrap()
    );
    assert!(
        !meta
            .write(refresh_token::Delete { hash: hash.clone() })
            .await
            .unwrap()
    );
    assert_eq!(meta.read(refresh_token::Get { hash }).await.unwrap(), None);
}

/// The last value wins.
pub async fn settings(meta: Meta) {
    let get = || meta.read(setting::Get { key: "k".into() });
    assert_eq!(get().await.unwrap(), None);
    for value in ["one", "two"] {
        meta.write(setting::Put {
            key: "k".into(),
            value: value.into(),
        })
        .await
        .unwrap();
        assert_eq!(get().await.unwrap().as_deref(), Some(value));
    }
    for (key, value, stands) in [
        ("k", "three", "two"),
        ("l", "one", "one"),
        ("l", "two", "one"),
    ] {
        let (key, value) = (key.to_owned(), value.to_owned());
        let ensured = meta.write(setting::Ensure { key, value }).await.unwrap();
        assert_eq!(ensured, stands);
    }
}

/// Consumers go on after the last id they saw.
pub async fn events_are_in_order(meta: Meta) {
    push(&meta, put("a", "m", &["t"])).await;
    push(&meta, put("a", "n", &["t"])).await;
    let list = |after, limit| meta.scan(event::List { after, limit });
    let all = list(0, 100).await.unwrap();
    let kinds: Vec<_> = all.iter().map(|row| row.kind.as_str()).collect();
    assert_eq!(
        kinds,
        ["manifest.push", "tag.move", "manifest.push", "tag.move"]
    );
    assert!(all.windows(2).all(|pair| pair[0].id < pair[1].id));
    assert_eq!(list(all[1].id, 1).await.unwrap(), all[2..3]);
    assert_eq!(list(all[3].id, 9).await.unwrap(), []);
    let moved = &all[3];
    assert_eq!(
        (moved.repository.as_deref(), moved.tag.as_deref()),
        (Some("a"), Some("t"))
    );
    assert_eq!((moved.actor.as_str(), moved.at), ("alice", NOW));
    assert!(moved.payload.contains("\"version\":2"), "{}", moved.payload);
}

/// Each consumer gets every event until it says that it is done with it, and trimming waits for the slowest, but not for ever.
pub async fn consumers_see_every_event(meta: Meta) {
    use crate::event::{Next, Seen, Trim};
    for n in 0..5 {
        super::push_blob(&meta, "a", format!("x{n}")).await;
    }
    let next = |consumer: &str| Next {
        consumer: consumer.into(),
        limit: 3,
    };
    // Transactions of anybody on the same server may be under way, below which nothing is given.
    let mut first = meta.scan(next("one")).await.unwrap();
    while first.len() < 3 {
        tokio::task::yield_now().await;
        first = meta.scan(next("one")).await.unwrap();
    }
    assert_eq!(first.len(), 3);
    assert_eq!(
        meta.scan(next("one")).await.unwrap(),
        first,
        "at least once"
    );
    let seen = |consumer: &str, event: &event::EventRow| Seen {
        consumer: consumer.into(),
        transaction: event.transaction,
        id: event.id,
        at: NOW,
    };
    meta.write(seen("one", &first[2])).await.unwrap();
    meta.write(seen("one", &first[0])).await.unwrap();
    let mut rest = meta.scan(next("one")).await.unwrap();
    while rest.len() < 2 {
        tokio::task::yield_now().await;
        rest = meta.scan(next("one")).await.unwrap();
    }
    assert_eq!(rest.len(), 2, "never back");
    meta.write(seen("one", &rest[1])).await.unwrap();
    meta.write(seen("two", &first[0])).await.unwrap();
    let trim = |before, unseen_before| Trim {
        before,
        unseen_before,
    };
    assert_eq!(meta.write(trim(NOW, NOW)).await.unwrap().events, 0);
    let trimmed = meta.write(trim(NOW + 1, NOW)).await.unwrap();
    assert_eq!((trimmed.events, trimmed.unseen_by), (1, None));
    assert_eq!(meta.scan(next("two")).await.unwrap()[0].id, first[1].id);
    let trimmed = meta.write(trim(NOW + 1, NOW + 1)).await.unwrap();
    assert_eq!((trimmed.events, trimmed.unseen_by), (4, Some("two".into())));
    super::push_blob(&meta, "a", "later").await;
    let mut later = meta.scan(next("two")).await.unwrap();
    while later.is_empty() {
        tokio::task::yield_now().await;
        later = meta.scan(next("two")).await.unwrap();
    }
    assert!(later.len() == 1 && later[0].id > rest[1].id, "{later:?}");
}

/// What processes say of themselves is there for the others, until they go.
pub async fn replicas(meta: Meta) {
    use crate::replica::{Beat, Leave, List, Said};
    let said = |id: &str, load: &str| Said {
        id: id.into(),
        address: "127.0.0.1:5000".into(),
        version: "1".into(),
        settings: "{}".into(),
        load: load.into(),
    };
    for (id, load) in [("a", "1"), ("b", "2"), ("a", "3")] {
        let said = said(id, load);
        meta.write(Beat { said, at: NOW }).await.unwrap();
    }
    let list = || async { meta.scan(List { at: NOW }).await.unwrap() };
    let rows = list().await;
    assert_eq!(
        rows.iter().map(|row| row.said.clone()).collect::<Vec<_>>(),
        [said("a", "3"), said("b", "2")]
    );
    assert!(rows.iter().all(|row| row.silent_for < 60_000), "{rows:?}");
    meta.write(Leave { id: "a".into() }).await.unwrap();
    assert_eq!(list().await.len(), 1);
}
