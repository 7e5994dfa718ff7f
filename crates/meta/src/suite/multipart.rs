//! Multipart uploads: each ends as a blob or is given up, whoever holds it.

use super::{NOW, digest, publish, repo};
use crate::Meta;
use crate::blob::{Collected, Content, Publish, Published};
use crate::multipart::{
    Abandoned, Begin, Claim, ClaimedParts, DigestOf, Forget, GiveUp, List, Lose, MultipartRow,
    Over, PAGE, PartRow,
};
use crate::upload::{Chunks, Create, Delete, Get, Take};

const KEY: &str = "blobs/unnamed/ab/one";

fn row(key: &str) -> MultipartRow {
    MultipartRow {
        key: key.into(),
        session: format!("session of {key}"),
        part_size: 8,
    }
}

async fn begin(meta: &Meta, id: &str, key: &str) {
    let create = Create {
        id: id.into(),
        repository: repo("a/b"),
        owner: "alice".into(),
        algorithm: None,
        at: NOW,
    };
    meta.write(create).await.unwrap();
    let begin = Begin {
        multipart: row(key),
        upload: id.into(),
        at: NOW,
    };
    for _ in 0..2 {
        meta.write(begin.clone()).await.unwrap();
    }
}

fn parts(count: usize) -> Vec<PartRow> {
    let part = |n| PartRow {
        size: 8,
        tag: format!("tag {n}"),
    };
    (0..count).map(part).collect()
}

/// A claim of `count` parts, `fresh` of them new, and a tail.
fn claim(id: &str, from: u64, count: u64, fresh: Vec<PartRow>, tail: &str) -> Claim {
    Claim {
        id: id.into(),
        epoch: 0,
        from,
        to: count * 8 + tail.len() as u64,
        hash: vec![1],
        parts: (count > 0).then(|| ClaimedParts {
            multipart: row(KEY),
            count,
            bytes: count * 8,
        }),
        replace: !fresh.is_empty(),
        fresh,
        tail: tail.into(),
        at: NOW + 1,
    }
}

async fn tail(meta: &Meta, id: &str) -> Vec<u8> {
    meta.read(Chunks { id: id.into() }).await.unwrap()
}

async fn list(meta: &Meta, from: u64) -> Vec<PartRow> {
    let key = KEY.to_owned();
    meta.scan(List { key, from }).await.unwrap()
}

/// Tails are appended to, and go when a part has them; parts come back in order.
pub async fn claims_of_parts(meta: Meta) {
    begin(&meta, "u", KEY).await;
    let first = claim("u", 0, 0, Vec::new(), "abc");
    assert!(meta.write(first.clone()).await.unwrap());
    assert!(meta.write(first).await.unwrap(), "the answer was lost");
    let more = Claim {
        tail: b"de".to_vec(),
        to: 5,
        ..claim("u", 3, 0, Vec::new(), "")
    };
    assert!(meta.write(more).await.unwrap());
    assert_eq!(tail(&meta, "u").await, b"abcde");
    assert_eq!(list(&meta, 0).await, []);

    assert!(meta.write(claim("u", 5, 2, parts(2), "xy")).await.unwrap());
    assert_eq!(tail(&meta, "u").await, b"xy");
    let third = PartRow {
        size: 8,
        tag: "tag 2".into(),
    };
    let claimed = claim("u", 18, 3, vec![third], "");
    assert!(
        !meta
            .write(Claim {
                epoch: 7,
                ..claimed.clone()
            })
            .await
            .unwrap()
    );
    assert!(
        !meta
            .write(Claim {
                from: 17,
                ..claimed.clone()
            })
            .await
            .unwrap()
    );
    assert!(meta.write(claimed).await.unwrap());
    assert_eq!(tail(&meta, "u").await, b"");
    assert_eq!(list(&meta, 0).await, parts(3));
    assert_eq!(list(&meta, 2).await, parts(3)[2..]);
    let stands = meta.read(Get { id: "u".into() }).await.unwrap().unwrap();
    let expected = ClaimedParts {
        multipart: row(KEY),
        count: 3,
        bytes: 24,
    };
    assert_eq!((stands.offset, stands.in_file), (24, true));
    assert_eq!(stands.parts, Some(expected));
}

/// Whoever ends a session or gives up its parts wins over a publish that comes later, and the other way round.
pub async fn a_publish_needs_its_parts(meta: Meta) {
    let of = |id: &str, key: &str| Publish {
        upload: Some(id.into()),
        content: Content::Multipart(key.into()),
        ..publish("a/b", "bytes")
    };
    begin(&meta, "u", KEY).await;
    assert!(meta.write(Delete { id: "u".into() }).await.unwrap());
    let outcome = meta.write(of("u", KEY)).await.unwrap();
    assert_eq!(outcome, Published::GivenUp);
    let give_up = GiveUp {
        upload: "u".into(),
        but: None,
    };
    assert_eq!(meta.write(give_up.clone()).await.unwrap(), [row(KEY)]);
    assert!(!meta.write(Forget { key: KEY.into() }).await.unwrap());
    assert_eq!(meta.write(give_up).await.unwrap(), []);
    let outcome = meta.write(of("u", KEY)).await.unwrap();
    assert_eq!(outcome, Published::GivenUp, "nothing is known of it");

    let other = "blobs/unnamed/ab/two";
    begin(&meta, "v", other).await;
    let done = Published::Done {
        linked: true,
        surplus: None,
    };
    let digest_of = || meta.read(DigestOf { key: other.into() });
    assert_eq!(digest_of().await.unwrap(), None);
    assert_eq!(meta.write(of("v", other)).await.unwrap(), done);
    assert_eq!(digest_of().await.unwrap(), Some(digest("bytes")));
    let again = Published::Done {
        linked: false,
        surplus: None,
    };
    assert_eq!(meta.write(of("v", other)).await.unwrap(), again);
    let give_up = GiveUp {
        upload: "v".into(),
        but: None,
    };
    assert_eq!(meta.write(give_up).await.unwrap(), []);
    assert_eq!(meta.scan(Over { limit: 9 }).await.unwrap(), [other]);
    assert!(!meta.write(Forget { key: other.into() }).await.unwrap());
    assert_eq!(meta.scan(Over { limit: 9 }).await.unwrap(), [""; 0]);
    let key = other.to_owned();
    meta.write(Collected { keys: vec![key] }).await.unwrap();
    assert_eq!(digest_of().await.unwrap(), None);
}

/// What has no session is abandoned when it is old; what has one ends with it, unless somebody took it over.
pub async fn nothing_is_left_behind(meta: Meta) {
    begin(&meta, "u", KEY).await;
    let multipart = row("blobs/unnamed/ab/alone");
    let alone = Begin {
        multipart: multipart.clone(),
        upload: "w".into(),
        at: NOW,
    };
    meta.write(alone).await.unwrap();
    let abandoned = |begun_before| Abandoned {
        begun_before,
        limit: 9,
    };
    assert_eq!(meta.write(abandoned(NOW)).await.unwrap(), []);
    assert_eq!(meta.write(abandoned(NOW + 1)).await.unwrap(), [multipart]);

    let lose = |epoch| Lose {
        upload: "u".into(),
        epoch,
    };
    let take = Take {
        id: "u".into(),
        epoch: 0,
        at: NOW,
    };
    assert_eq!(meta.write(take).await.unwrap(), Some(1));
    assert!(!meta.write(lose(0)).await.unwrap());
    assert!(meta.write(lose(1)).await.unwrap());
    assert!(!meta.write(lose(1)).await.unwrap());
    assert_eq!(meta.read(Get { id: "u".into() }).await.unwrap(), None);
    assert_eq!(meta.write(abandoned(NOW)).await.unwrap().len(), 2);

    let many = PAGE as usize + 10;
    begin(&meta, "v", "blobs/unnamed/ab/long").await;
    let mut long = claim("v", 0, many as u64, parts(many), "");
    long.parts = long.parts.map(|mut claimed| {
        claimed.multipart.key = "blobs/unnamed/ab/long".into();
        claimed
    });
    assert!(meta.write(long).await.unwrap());
    let forget = Forget {
        key: "blobs/unnamed/ab/long".into(),
    };
    assert!(meta.write(forget.clone()).await.unwrap());
    assert!(!meta.write(forget).await.unwrap());
}
