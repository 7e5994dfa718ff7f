//! Principals, keys, tokens, settings, events.

use super::{NOW, push, put};
use crate::{Meta, event, principal, refresh_token, setting, signing_key};

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
