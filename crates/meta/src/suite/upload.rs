//! Upload sessions.

use wharf_oci::Algorithm;

use super::{NOW, publish, repo};
use crate::Meta;
use crate::upload::{
    Chunks, Claim, CountOpen, Create, Delete, Expired, Get, MAX_CHUNKS, Take, UploadRow,
};

fn create(id: &str) -> Create {
    Create {
        id: id.into(),
        repository: repo("a/b"),
        owner: "alice".into(),
        algorithm: Some(Algorithm::Sha512),
        at: NOW,
    }
}

fn claim(id: &str, from: u64, to: u64) -> Claim {
    Claim {
        id: id.into(),
        epoch: 0,
        from,
        to,
        hash: format!("state at {to}").into_bytes(),
        append: None,
        in_file: true,
        at: NOW + 1,
    }
}

async fn get(meta: &Meta, id: &str) -> Option<UploadRow> {
    meta.read(Get { id: id.into() }).await.unwrap()
}

/// Opening twice is opening once.
pub async fn create_is_idempotent(meta: Meta) {
    assert_eq!(get(&meta, "u").await, None);
    for _ in 0..2 {
        meta.write(create("u")).await.unwrap();
    }
    assert_eq!(meta.read(CountOpen).await.unwrap(), 1);
    let expected = UploadRow {
        id: "u".into(),
        repository: repo("a/b"),
        owner: "alice".into(),
        algorithm: Some(Algorithm::Sha512),
        offset: 0,
        hash: Vec::new(),
        in_file: false,
        chunks: 0,
        parts: None,
        epoch: 0,
        created_at: NOW,
        touched_at: NOW,
    };
    assert_eq!(get(&meta, "u").await, Some(expected));
}

/// A claim needs the offset and the epoch; the same one again is fine, another one is not.
pub async fn claims_compare_and_swap(meta: Meta) {
    meta.write(create("u")).await.unwrap();
    assert!(!meta.write(claim("none", 0, 5)).await.unwrap());
    assert!(
        !meta.write(claim("u", 1, 5)).await.unwrap(),
        "another offset"
    );
    assert!(
        !meta
            .write(Claim {
                epoch: 1,
                ..claim("u", 0, 5)
            })
            .await
            .unwrap(),
        "another epoch"
    );
    assert_eq!(get(&meta, "u").await.unwrap().offset, 0);

    assert!(meta.write(claim("u", 0, 5)).await.unwrap());
    assert!(
        meta.write(claim("u", 0, 5)).await.unwrap(),
        "the answer may have been lost"
    );
    let other = Claim {
        hash: b"of other bytes".to_vec(),
        ..claim("u", 0, 5)
    };
    assert!(
        !meta.write(other).await.unwrap(),
        "other bytes at the same place"
    );
    assert!(meta.write(claim("u", 5, 9)).await.unwrap());
    let row = get(&meta, "u").await.unwrap();
    assert_eq!(
        (row.offset, row.hash, row.in_file, row.touched_at),
        (9, b"state at 9".to_vec(), true, NOW + 1)
    );
    let back = Claim {
        in_file: false,
        append: Some(b"x".to_vec()),
        ..claim("u", 9, 10)
    };
    assert!(
        !meta.write(back).await.unwrap(),
        "a session in a file stays there"
    );
}

/// Inline bytes come back in order and go when the session moves to a file.
pub async fn inline_chunks_and_move_to_file(meta: Meta) {
    meta.write(create("u")).await.unwrap();
    meta.write(create("v")).await.unwrap();
    let inline = |id: &str, from: u64, bytes: &str| Claim {
        append: Some(bytes.as_bytes().to_vec()),
        in_file: false,
        ..claim(id, from, from + bytes.len() as u64)
    };
    assert!(meta.write(inline("u", 0, "hello ")).await.unwrap());
    assert!(meta.write(inline("v", 0, "other")).await.unwrap());
    assert!(meta.write(inline("u", 6, "world")).await.unwrap());
    assert!(meta.write(inline("u", 6, "world")).await.unwrap(), "again");
    assert!(
        meta.write(inline("u", 11, "")).await.unwrap(),
        "nothing more"
    );
    assert_eq!(
        meta.read(Chunks { id: "u".into() }).await.unwrap(),
        b"hello world"
    );
    let row = get(&meta, "u").await.unwrap();
    assert_eq!((row.offset, row.chunks, row.in_file), (11, 2, false));

    let wrong = Claim {
        to: 99,
        ..inline("u", 11, "abc")
    };
    assert!(meta.write(wrong).await.is_err(), "bytes of another length");

    assert!(meta.write(claim("u", 11, 20)).await.unwrap());
    assert_eq!(meta.read(Chunks { id: "u".into() }).await.unwrap(), b"");
    assert_eq!(get(&meta, "u").await.unwrap().chunks, 0);
    assert_eq!(
        meta.read(Chunks { id: "v".into() }).await.unwrap(),
        b"other"
    );
}

/// Whoever takes a session over is the only one that can claim.
pub async fn take_over_fences(meta: Meta) {
    meta.write(create("u")).await.unwrap();
    let take = |epoch| Take {
        id: "u".into(),
        epoch,
        at: NOW,
    };
    assert_eq!(meta.write(take(0)).await.unwrap(), Some(1));
    assert_eq!(
        meta.write(take(0)).await.unwrap(),
        None,
        "somebody was first"
    );
    assert!(
        !meta.write(claim("u", 0, 5)).await.unwrap(),
        "the old holder"
    );
    assert!(
        meta.write(Claim {
            epoch: 1,
            ..claim("u", 0, 5)
        })
        .await
        .unwrap()
    );
    assert_eq!(
        meta.write(Take {
            id: "none".into(),
            epoch: 0,
            at: NOW
        })
        .await
        .unwrap(),
        None
    );
}

/// The longest untouched come first.
pub async fn expired_are_listed(meta: Meta) {
    for (id, at) in [("c", 30), ("a", 10), ("b", 20)] {
        meta.write(Create { at, ..create(id) }).await.unwrap();
    }
    let expired = |touched_before, limit| {
        meta.scan(Expired {
            touched_before,
            limit,
        })
    };
    assert_eq!(expired(30, 10).await.unwrap(), ["a", "b"]);
    assert_eq!(expired(31, 2).await.unwrap(), ["a", "b"]);
    assert!(
        meta.write(Claim {
            at: 40,
            ..claim("a", 0, 1)
        })
        .await
        .unwrap()
    );
    assert_eq!(expired(31, 10).await.unwrap(), ["b", "c"]);
}

/// A deleted session leaves nothing.
pub async fn delete_forgets(meta: Meta) {
    meta.write(create("u")).await.unwrap();
    let op = Claim {
        append: Some(b"abc".to_vec()),
        in_file: false,
        ..claim("u", 0, 3)
    };
    assert!(meta.write(op).await.unwrap());
    assert!(meta.write(Delete { id: "u".into() }).await.unwrap());
    assert!(!meta.write(Delete { id: "u".into() }).await.unwrap());
    assert_eq!(get(&meta, "u").await, None);
    assert_eq!(meta.read(Chunks { id: "u".into() }).await.unwrap(), b"");
    assert_eq!(meta.read(CountOpen).await.unwrap(), 0);
    // A publish of a session that is gone still publishes.
    let mut op = publish("a/b", "abc");
    op.upload = Some("u".into());
    meta.write(op).await.unwrap();
    assert_eq!(meta.read(CountOpen).await.unwrap(), 0);
}

/// A request for each byte does not make a row for each byte.
pub async fn many_chunks_are_joined(meta: Meta) {
    meta.write(create("u")).await.unwrap();
    let bytes: Vec<u8> = (0..300_u32).map(|n| n as u8).collect();
    for (at, byte) in bytes.iter().enumerate() {
        let append = Some(vec![*byte]);
        let claim = Claim {
            append,
            in_file: false,
            ..claim("u", at as u64, at as u64 + 1)
        };
        assert!(meta.write(claim.clone()).await.unwrap());
        assert!(meta.write(claim).await.unwrap(), "again");
        assert!(get(&meta, "u").await.unwrap().chunks < MAX_CHUNKS);
    }
    assert_eq!(meta.read(Chunks { id: "u".into() }).await.unwrap(), bytes);
    assert_eq!(get(&meta, "u").await.unwrap().offset, 300);
}
