//! Manifests.

use wharf_oci::{Digest, EdgeKind};

use super::{NOW, digest, edge, events, push, push_blob, put, repo, tag};
use crate::blob::{Unlink, Unlinked};
use crate::manifest::{
    Delete, Deleted, EdgeRow, Expect, Get, ListLive, MAX_EDGES, MAX_TAGS, ManifestRow, PIN_MS,
    Pinned, Put, PutEdges, PutOutcome, Ref, SweepEdges,
};
use crate::repository::GetTotals;
use crate::{Error, Meta, tag as tags};

async fn by_tag(meta: &Meta, repository: &str, name: &str) -> Option<ManifestRow> {
    let reference = Ref::Tag(tag(name));
    meta.read(Get {
        repository: repo(repository),
        reference,
        with_bytes: true,
    })
    .await
    .unwrap()
}

async fn by_digest(meta: &Meta, repository: &str, digest: &Digest) -> Option<ManifestRow> {
    let reference = Ref::Digest(digest.clone());
    meta.read(Get {
        repository: repo(repository),
        reference,
        with_bytes: true,
    })
    .await
    .unwrap()
}

fn delete(repository: &str, digest: &Digest) -> Delete {
    Delete {
        repository: repo(repository),
        digest: digest.clone(),
        actor: "alice".into(),
        at: NOW,
    }
}

async fn delete_all(meta: &Meta, repository: &str, digest: &Digest) -> u32 {
    let mut calls = 1;
    loop {
        match meta.write(delete(repository, digest)).await.unwrap() {
            Deleted::Done => return calls,
            Deleted::More => calls += 1,
            Deleted::Unknown => panic!("unknown"),
        }
    }
}

/// Exact bytes and type come back, with and without the bytes, from this repository only.
pub async fn get_by_tag_and_digest(meta: Meta) {
    let digest = push(&meta, put("a", "{ \"exact\": 1 }", &["t"])).await;
    let expected = ManifestRow {
        digest: digest.clone(),
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        size: 14,
        bytes: Some(b"{ \"exact\": 1 }".to_vec()),
    };
    assert_eq!(by_tag(&meta, "a", "t").await, Some(expected.clone()));
    assert_eq!(by_digest(&meta, "a", &digest).await, Some(expected.clone()));
    let bare = ManifestRow {
        bytes: None,
        ..expected
    };
    for reference in [Ref::Tag(tag("t")), Ref::Digest(digest.clone())] {
        let op = Get {
            repository: repo("a"),
            reference,
            with_bytes: false,
        };
        assert_eq!(meta.read(op).await.unwrap(), Some(bare.clone()));
    }
    assert_eq!(by_tag(&meta, "a", "other").await, None);
    assert_eq!(by_tag(&meta, "b", "t").await, None);
    push(&meta, put("b", "m", &["u"])).await;
    assert_eq!(by_digest(&meta, "b", &digest).await, None);
    let listed = meta
        .scan(ListLive {
            after: None,
            limit: 10,
        })
        .await
        .unwrap();
    assert_eq!(listed.len(), 2);
    assert!(
        listed
            .iter()
            .all(|row| super::digest(&row.bytes) == row.digest)
    );
}

/// All that is missing is named once; sizes must agree; what need not exist may be absent.
pub async fn missing_and_sizes(meta: Meta) {
    let config = push_blob(&meta, "a", "config").await;
    push_blob(&meta, "b", "layer").await;
    let layer = digest("layer");
    let absent = digest("absent");
    let edges = vec![
        edge(EdgeKind::Config, &config, 6),
        edge(EdgeKind::Layer, &layer, 5),
        edge(EdgeKind::Layer, &absent, 6),
        edge(EdgeKind::Layer, &absent, 6),
    ];
    let op = Put {
        edges,
        ..put("a", "m", &["t"])
    };
    let missing = PutOutcome::Missing(vec![layer.clone(), absent.clone()]);
    assert_eq!(
        meta.write(op.clone()).await.unwrap(),
        missing,
        "held by b is not held by a"
    );
    assert_eq!(
        meta.write(Put {
            repository: repo("new"),
            ..op.clone()
        })
        .await
        .unwrap(),
        { PutOutcome::Missing(vec![config.clone(), layer.clone(), absent.clone()]) }
    );
    assert_eq!(by_tag(&meta, "a", "t").await, None);

    push_blob(&meta, "a", "layer").await;
    let foreign = EdgeRow {
        must_exist: false,
        ..edge(EdgeKind::Layer, &absent, 99)
    };
    let wrong = vec![
        edge(EdgeKind::Config, &config, 6),
        edge(EdgeKind::Layer, &layer, 50),
        foreign.clone(),
    ];
    let mismatch = PutOutcome::SizeMismatch {
        digest: layer.clone(),
        expected: 50,
        actual: 5,
    };
    assert_eq!(
        meta.write(Put {
            edges: wrong.clone(),
            ..op.clone()
        })
        .await
        .unwrap(),
        mismatch
    );
    let huge = vec![edge(EdgeKind::Layer, &layer, u64::MAX)];
    let outcome = meta
        .write(Put {
            edges: huge,
            ..op.clone()
        })
        .await
        .unwrap();
    assert!(matches!(outcome, PutOutcome::SizeMismatch { .. }));
    let lenient = Put {
        edges: wrong,
        check_sizes: false,
        ..op.clone()
    };
    assert_eq!(
        meta.write(lenient).await.unwrap(),
        PutOutcome::Stored { created: true }
    );
    let right = vec![
        edge(EdgeKind::Config, &config, 6),
        edge(EdgeKind::Layer, &layer, 5),
        foreign,
    ];
    let again = Put { edges: right, ..op };
    assert_eq!(
        meta.write(again).await.unwrap(),
        PutOutcome::Stored { created: false }
    );
}

/// Children are manifests, then blobs where the caller says so (MPUT-11).
pub async fn children_and_blobs(meta: Meta) {
    let blob = push_blob(&meta, "a", "cache layer").await;
    let child = push(&meta, put("a", "child", &[])).await;
    let strict = |target: &Digest, size| Put {
        edges: vec![edge(EdgeKind::Child, target, size)],
        ..put("a", "index", &[])
    };
    assert_eq!(
        meta.write(strict(&blob, 11)).await.unwrap(),
        PutOutcome::Missing(vec![blob.clone()])
    );
    let any = EdgeRow {
        any_store: true,
        ..edge(EdgeKind::Child, &blob, 11)
    };
    let op = Put {
        edges: vec![any],
        ..put("a", "index", &[])
    };
    assert_eq!(
        meta.write(op).await.unwrap(),
        PutOutcome::Stored { created: true }
    );
    assert_eq!(meta.write(strict(&child, 6)).await.unwrap(), {
        PutOutcome::SizeMismatch {
            digest: child.clone(),
            expected: 6,
            actual: 5,
        }
    });
    let as_layer = Put {
        edges: vec![edge(EdgeKind::Layer, &child, 5)],
        ..put("a", "odd", &[])
    };
    assert_eq!(
        meta.write(as_layer).await.unwrap(),
        PutOutcome::Missing(vec![child.clone()])
    );
    // A child may be deleted, and is then missing to the next push.
    delete_all(&meta, "a", &child).await;
    assert_eq!(
        meta.write(strict(&child, 5)).await.unwrap(),
        PutOutcome::Missing(vec![child])
    );
}

/// `If-Match` and `If-None-Match` on the first tag.
pub async fn expectations(meta: Meta) {
    let first = Put {
        expect: Expect::Absent,
        ..put("a", "one", &["t"])
    };
    assert_eq!(
        meta.write(first.clone()).await.unwrap(),
        PutOutcome::Stored { created: true }
    );
    assert_eq!(
        meta.write(first).await.unwrap(),
        PutOutcome::ExpectationFailed
    );
    let two = |expect| Put {
        expect,
        ..put("a", "two", &["t"])
    };
    assert_eq!(
        meta.write(two(Expect::Digest(digest("two"))))
            .await
            .unwrap(),
        PutOutcome::ExpectationFailed
    );
    assert_eq!(by_tag(&meta, "a", "t").await.unwrap().digest, digest("one"));
    assert_eq!(
        by_digest(&meta, "a", &digest("two")).await,
        None,
        "the manifest was not stored either"
    );
    let outcome = meta
        .write(two(Expect::Digest(digest("one"))))
        .await
        .unwrap();
    assert_eq!(outcome, PutOutcome::Stored { created: true });
    assert_eq!(by_tag(&meta, "a", "t").await.unwrap().digest, digest("two"));
    let absent = Put {
        expect: Expect::Digest(digest("two")),
        ..put("a", "three", &["absent"])
    };
    assert_eq!(
        meta.write(absent).await.unwrap(),
        PutOutcome::ExpectationFailed
    );
    let present = |name: &str| Put {
        expect: Expect::Present,
        ..put("a", "four", &[name])
    };
    assert_eq!(
        meta.write(present("absent")).await.unwrap(),
        PutOutcome::ExpectationFailed
    );
    assert_eq!(
        meta.write(present("t")).await.unwrap(),
        PutOutcome::Stored { created: true }
    );
}

/// A deleted manifest is gone with its tags, and back with a push.
pub async fn delete_and_revive(meta: Meta) {
    let layer = push_blob(&meta, "a", "x").await;
    let op = Put {
        edges: vec![edge(EdgeKind::Layer, &layer, 1)],
        ..put("a", "m", &["t", "u"])
    };
    let digest = push(&meta, op.clone()).await;
    push(&meta, put("b", "m", &["t"])).await;
    assert_eq!(
        meta.write(delete("none", &digest)).await.unwrap(),
        Deleted::Unknown
    );
    assert_eq!(delete_all(&meta, "a", &digest).await, 1);
    assert_eq!(
        meta.write(delete("a", &digest)).await.unwrap(),
        Deleted::Unknown
    );
    assert_eq!(by_digest(&meta, "a", &digest).await, None);
    assert_eq!(by_tag(&meta, "a", "t").await, None);
    assert!(by_tag(&meta, "b", "t").await.is_some());
    let totals = meta.read(GetTotals).await.unwrap();
    assert_eq!((totals.manifests, totals.tags), (1, 1));

    let op = Put {
        tags: vec![tag("u")],
        ..op
    };
    assert_eq!(
        meta.write(op).await.unwrap(),
        PutOutcome::Stored { created: true }
    );
    assert_eq!(by_tag(&meta, "a", "u").await.unwrap().digest, digest);
    let unlink = Unlink {
        repository: repo("a"),
        digest: layer,
        actor: "alice".into(),
        at: NOW,
    };
    assert_eq!(
        meta.write(unlink).await.unwrap(),
        Unlinked::ReferencedBy(digest)
    );
    let expected = [
        "blob.push",
        "manifest.push",
        "tag.move",
        "tag.move",
        "manifest.push",
        "tag.move",
        "tag.delete",
        "tag.delete",
        "manifest.delete",
        "manifest.push",
        "tag.move",
    ];
    assert_eq!(events(&meta).await, expected);
}

/// Many tags go in several calls; other manifests keep theirs.
pub async fn delete_with_many_tags(meta: Meta) {
    let digest = push(&meta, put("a", "m", &[])).await;
    for n in 0..8 {
        let names: Vec<String> = (0..MAX_TAGS).map(|i| format!("t{n}-{i}")).collect();
        push(
            &meta,
            put(
                "a",
                "m",
                &names.iter().map(String::as_str).collect::<Vec<_>>(),
            ),
        )
        .await;
    }
    push(&meta, put("a", "other", &["kept"])).await;
    assert_eq!(
        meta.read(GetTotals).await.unwrap().tags,
        8 * MAX_TAGS as u64 + 1
    );
    assert!(delete_all(&meta, "a", &digest).await > 2);
    let left = meta
        .scan(tags::List {
            repository: repo("a"),
            after: None,
            limit: 100,
        })
        .await
        .unwrap();
    assert_eq!(left, Some(vec!["kept".to_owned()]));
    assert_eq!(meta.read(GetTotals).await.unwrap().tags, 1);
}

fn part(edges: Vec<EdgeRow>, at: i64) -> PutEdges {
    PutEdges {
        repository: repo("a"),
        digest: digest("index"),
        edges,
        check_sizes: true,
        at,
    }
}

/// An index of 1,000 children comes in parts, is deleted, swept and revived.
pub async fn large_index_in_parts(meta: Meta) {
    let mut edges = Vec::new();
    for n in 0..1000 {
        let bytes = format!("blob {n}");
        let target = push_blob(&meta, "a", &bytes).await;
        edges.push(edge(EdgeKind::Blob, &target, bytes.len() as u64));
    }
    let op = |pinned| Put {
        edges: edges[800..].to_vec(),
        pinned,
        ..put("a", "index", &["t"])
    };
    assert_eq!(meta.write(op(800)).await.unwrap(), PutOutcome::PinsLost);
    for _ in 0..2 {
        for chunk in edges[..800].chunks(MAX_EDGES) {
            assert_eq!(
                meta.write(part(chunk.to_vec(), NOW)).await.unwrap(),
                Pinned::Done
            );
        }
        assert_eq!(
            by_digest(&meta, "a", &digest("index")).await,
            None,
            "not there before its last part"
        );
    }
    assert_eq!(
        meta.write(op(801)).await.unwrap(),
        PutOutcome::PinsLost,
        "a part is lacking"
    );
    assert_eq!(
        meta.write(op(800)).await.unwrap(),
        PutOutcome::Stored { created: true }
    );
    assert_eq!(
        meta.write(op(800)).await.unwrap(),
        PutOutcome::Stored { created: false }
    );
    assert!(by_tag(&meta, "a", "t").await.is_some());

    let unlink = |n: usize| Unlink {
        repository: repo("a"),
        digest: edges[n].target.clone(),
        actor: "x".into(),
        at: NOW,
    };
    for n in [0, 500, 999] {
        assert_eq!(
            meta.write(unlink(n)).await.unwrap(),
            Unlinked::ReferencedBy(digest("index"))
        );
    }
    delete_all(&meta, "a", &digest("index")).await;
    assert_eq!(
        meta.write(unlink(0)).await.unwrap(),
        Unlinked::Done,
        "references of a deleted one hold nothing"
    );
    let (mut steps, mut after) = (Vec::new(), None);
    loop {
        let swept = meta
            .write(SweepEdges {
                after,
                limit: 200,
                pending_before: NOW - PIN_MS,
            })
            .await
            .unwrap();
        if swept.done == 0 {
            break;
        }
        steps.push(swept.done);
        after = swept.at;
    }
    // 200 that the deletion marked itself are passed over once more. Each step counts its manifest as three.
    assert_eq!(
        steps,
        [203, 203, 203, 203, 203, 3],
        "each goes on where the last ended"
    );

    let outcome = meta.write(part(edges[..200].to_vec(), NOW)).await.unwrap();
    assert_eq!(outcome, Pinned::Missing(vec![edges[0].target.clone()]));
    for chunk in edges[1..800].chunks(MAX_EDGES) {
        assert_eq!(
            meta.write(part(chunk.to_vec(), NOW)).await.unwrap(),
            Pinned::Done
        );
    }
    assert_eq!(
        meta.write(op(799)).await.unwrap(),
        PutOutcome::Stored { created: true }
    );
    assert_eq!(
        meta.write(unlink(700)).await.unwrap(),
        Unlinked::ReferencedBy(digest("index"))
    );
}

/// Parts of an unfinished push hold their targets for a while, and leave nothing when they are dropped.
pub async fn pins_hold_and_expire(meta: Meta) {
    let target = push_blob(&meta, "a", "x").await;
    let pin = || part(vec![edge(EdgeKind::Blob, &target, 1)], NOW);
    let unlink = |at| Unlink {
        repository: repo("a"),
        digest: target.clone(),
        actor: "x".into(),
        at,
    };
    let wrong = part(vec![edge(EdgeKind::Blob, &target, 2)], NOW);
    let outcome = meta.write(wrong).await.unwrap();
    assert_eq!(
        outcome,
        Pinned::SizeMismatch {
            digest: target.clone(),
            expected: 2,
            actual: 1
        }
    );
    assert_eq!(meta.write(pin()).await.unwrap(), Pinned::Done);
    assert_eq!(
        meta.write(unlink(NOW + PIN_MS - 1)).await.unwrap(),
        Unlinked::ReferencedBy(digest("index"))
    );
    let late = Put {
        pinned: 1,
        at: NOW + PIN_MS,
        ..put("a", "index", &[])
    };
    assert_eq!(meta.write(late).await.unwrap(), PutOutcome::PinsLost);
    let sweep = |pending_before| SweepEdges {
        after: None,
        limit: 200,
        pending_before,
    };
    assert_eq!(
        meta.write(sweep(NOW)).await.unwrap().done,
        0,
        "still young enough"
    );
    assert!(meta.write(sweep(NOW + 1)).await.unwrap().done > 0);
    assert_eq!(meta.write(sweep(NOW + 1)).await.unwrap().done, 0);
    assert_eq!(meta.write(unlink(NOW)).await.unwrap(), Unlinked::Done);

    // A manifest that was there once and is half pushed again goes back to being deleted.
    let target = push_blob(&meta, "a", "x").await;
    push(&meta, put("a", "index", &[])).await;
    delete_all(&meta, "a", &digest("index")).await;
    assert_eq!(
        meta.write(part(vec![edge(EdgeKind::Blob, &target, 1)], NOW))
            .await
            .unwrap(),
        Pinned::Done
    );
    while meta.write(sweep(NOW + 1)).await.unwrap().done > 0 {}
    assert_eq!(by_digest(&meta, "a", &digest("index")).await, None);
    assert_eq!(meta.write(unlink(NOW)).await.unwrap(), Unlinked::Done);
}

/// Nothing may hold the writer for long.
pub async fn limits_are_refused(meta: Meta) {
    let edges: Vec<EdgeRow> = (0..=MAX_EDGES)
        .map(|n| edge(EdgeKind::Layer, &digest(n.to_string()), 1))
        .collect();
    let op = Put {
        edges: edges.clone(),
        ..put("a", "m", &[])
    };
    assert!(matches!(
        meta.write(op).await,
        Err(Error::TooMuch {
            got: 201,
            limit: 200,
            ..
        })
    ));
    assert!(matches!(
        meta.write(part(edges, NOW)).await,
        Err(Error::TooMuch { .. })
    ));
    let names: Vec<String> = (0..=MAX_TAGS).map(|n| format!("t{n}")).collect();
    let op = put(
        "a",
        "m",
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    assert!(matches!(meta.write(op).await, Err(Error::TooMuch { .. })));
}

/// A push that is refused makes no repository, event or count.
pub async fn outcomes_leave_nothing(meta: Meta) {
    let op = Put {
        edges: vec![edge(EdgeKind::Layer, &digest("absent"), 1)],
        ..put("a", "m", &["t"])
    };
    assert!(matches!(
        meta.write(op).await.unwrap(),
        PutOutcome::Missing(_)
    ));
    let op = Put {
        expect: Expect::Digest(digest("x")),
        ..put("a", "m", &["t"])
    };
    assert_eq!(meta.write(op).await.unwrap(), PutOutcome::ExpectationFailed);
    assert_eq!(
        meta.read(GetTotals).await.unwrap(),
        crate::repository::Totals::default()
    );
    assert!(events(&meta).await.is_empty());
}

/// The same bytes under another type take that type.
pub async fn media_type_follows_the_last_push(meta: Meta) {
    push(&meta, put("a", "m", &["t"])).await;
    let op = Put {
        media_type: "application/other".into(),
        ..put("a", "m", &["t"])
    };
    assert_eq!(
        meta.write(op).await.unwrap(),
        PutOutcome::Stored { created: false }
    );
    assert_eq!(
        by_tag(&meta, "a", "t").await.unwrap().media_type,
        "application/other"
    );
}
