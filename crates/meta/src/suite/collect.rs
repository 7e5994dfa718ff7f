//! Collection, step by step: whoever comes between its steps finds something consistent, and what it needs stays.

use wharf_oci::{Digest, EdgeKind};

use super::{NOW, digest, edge, publish, publish_key, push, push_blob, put, repo};
use crate::blob::{Content, Find, Garbage, Mount, Publish, Published, Stat, Unlink, Unlinked};
use crate::candidate::{Collect, Collected, List};
use crate::manifest::{
    Delete, Deleted, GetDeleted, PIN_MS, Put, PutEdges, PutOutcome, Restore, Restored, SweepEdges,
};
use crate::repository::GetTotals;
use crate::restorable::{Due, Purge, Purged};
use crate::{Error, Meta};

/// Collects all that was a candidate at `due`.
async fn collect(meta: &Meta, due: i64) -> Collected {
    let mut all = Collected::default();
    loop {
        let step = Collect {
            due,
            limit: 25,
            at: due,
        };
        let collected = meta.write(step).await.unwrap();
        if collected.looked_at == 0 {
            return all;
        }
        all += collected;
    }
}

async fn has(meta: &Meta, repository: &str, digest: &Digest) -> bool {
    let find = Find {
        repository: repo(repository),
        digest: digest.clone(),
        with_bytes: false,
    };
    meta.read(find).await.unwrap().is_some()
}

fn image(repository: &str, name: &str, blob: &Digest, size: usize) -> Put {
    Put {
        edges: vec![edge(EdgeKind::Layer, blob, size as u64)],
        ..put(repository, name, &["t"])
    }
}

async fn delete(meta: &Meta, repository: &str, digest: &Digest) {
    let delete = Delete {
        repository: repo(repository),
        digest: digest.clone(),
        actor: "bob".into(),
        at: NOW,
    };
    assert_eq!(meta.write(delete).await.unwrap(), Deleted::Done);
}

async fn purge(meta: &Meta) {
    let due = Due {
        look_before: i64::MAX,
        limit: 100,
    };
    for row in meta.scan(due).await.unwrap() {
        let purge = Purge {
            manifest: row.manifest,
            deleted_at: row.deleted_at,
            cause: "a test",
            at: NOW,
        };
        while meta.write(purge.clone()).await.unwrap() == Purged::More {}
    }
}

/// What is never referred to is a candidate from birth; what is, is looked at once and then left alone.
pub async fn births(meta: Meta) {
    let used = push_blob(&meta, "a", "used").await;
    let unused = push_blob(&meta, "a", "unused").await;
    meta.write(publish_key("a", "file", "k1")).await.unwrap();
    push(&meta, image("a", "m", &used, 4)).await;
    assert_eq!(collect(&meta, NOW - 1).await, Collected::default());
    let collected = collect(&meta, NOW).await;
    let expected = Collected {
        looked_at: 3,
        links: 2,
        blobs: 2,
        bytes: 10,
    };
    assert_eq!(collected, expected);
    assert!(has(&meta, "a", &used).await && !has(&meta, "a", &unused).await);
    let garbage = Garbage {
        after: None,
        limit: 9,
    };
    assert_eq!(meta.scan(garbage).await.unwrap(), ["k1"]);
    assert_eq!(collect(&meta, i64::MAX).await, Collected::default());
    let totals = meta.read(GetTotals).await.unwrap();
    assert_eq!((totals.blobs, totals.blob_bytes), (1, 4));
    // A push of what went is as new.
    meta.write(publish("a", "unused")).await.unwrap();
    assert!(has(&meta, "a", &unused).await);
}

/// A deletion keeps what it needs until it is purged; then all is a candidate again, once.
pub async fn deaths(meta: Meta) {
    let shared = push_blob(&meta, "a", "shared").await;
    let one = push(&meta, image("a", "one", &shared, 6)).await;
    let two = push(&meta, image("a", "two", &shared, 6)).await;
    collect(&meta, NOW).await;
    delete(&meta, "a", &one).await;
    delete(&meta, "a", &two).await;
    assert_eq!(collect(&meta, i64::MAX).await.links, 0);
    assert!(has(&meta, "a", &shared).await);
    let candidates = List {
        after: None,
        limit: 9,
    };
    assert!(meta.scan(candidates.clone()).await.unwrap().is_empty());
    purge(&meta).await;
    let listed = meta.scan(candidates).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert!(!listed[0].held && listed[0].size == Some(6));
    assert_eq!(collect(&meta, NOW).await.blobs, 1);
    assert!(!has(&meta, "a", &shared).await);
}

/// A blob that a client took out is out of sight at once, and comes back with the manifest that needs it.
pub async fn undelete(meta: Meta) {
    let blob = push_blob(&meta, "a", "layer").await;
    let manifest = push(&meta, image("a", "m", &blob, 5)).await;
    delete(&meta, "a", &manifest).await;
    let unlink = Unlink {
        repository: repo("a"),
        digest: blob.clone(),
        actor: "bob".into(),
        at: NOW,
    };
    assert_eq!(meta.write(unlink.clone()).await.unwrap(), Unlinked::Done);
    assert_eq!(meta.write(unlink).await.unwrap(), Unlinked::Unknown);
    assert!(!has(&meta, "a", &blob).await);
    let mount = Mount {
        repository: repo("b"),
        from: repo("a"),
        digest: blob.clone(),
        actor: "bob".into(),
        at: NOW,
    };
    assert!(!meta.write(mount).await.unwrap());
    let refused = meta.write(image("a", "other", &blob, 5)).await.unwrap();
    assert_eq!(refused, PutOutcome::Missing(vec![blob.clone()]));
    assert_eq!(collect(&meta, i64::MAX).await.links, 0);
    let get = GetDeleted {
        repository: repo("a"),
        digest: manifest.clone(),
    };
    assert_eq!(meta.read(get.clone()).await.unwrap().unwrap().bytes, b"m");
    let restore = Restore {
        repository: repo("a"),
        digest: manifest,
        after: None,
        referrer_json: None,
        actor: "carol".into(),
        at: NOW,
    };
    assert_eq!(meta.write(restore.clone()).await.unwrap(), Restored::Done);
    assert_eq!(meta.write(restore).await.unwrap(), Restored::Unknown);
    assert_eq!(meta.read(get).await.unwrap(), None);
    assert!(has(&meta, "a", &blob).await);
    assert_eq!(collect(&meta, i64::MAX).await.links, 0);
    purge(&meta).await;
    assert!(has(&meta, "a", &blob).await);
}

/// Manifests of many parts go and come back in steps, and hold what they need at every one.
pub async fn large(meta: Meta) {
    let mut edges = Vec::new();
    for n in 0..500 {
        let bytes = format!("part {n}");
        let blob = push_blob(&meta, "a", &bytes).await;
        edges.push(edge(EdgeKind::Layer, &blob, bytes.len() as u64));
    }
    let part = |edges: &[crate::manifest::EdgeRow]| PutEdges {
        repository: repo("a"),
        digest: digest("large"),
        edges: edges.to_vec(),
        check_sizes: true,
        at: NOW,
    };
    for edges in edges[..400].chunks(200) {
        meta.write(part(edges)).await.unwrap();
    }
    assert_eq!(
        collect(&meta, NOW).await.links,
        100,
        "the rest was not announced"
    );
    for edge in &edges[400..] {
        let n: usize = 400 + edges[400..].iter().position(|other| other == edge).unwrap();
        push_blob(&meta, "a", format!("part {n}")).await;
    }
    let whole = Put {
        edges: edges[400..].to_vec(),
        pinned: 400,
        ..put("a", "large", &["t"])
    };
    assert_eq!(
        meta.write(whole).await.unwrap(),
        PutOutcome::Stored { created: true }
    );
    assert_eq!(collect(&meta, i64::MAX).await.links, 0);
    delete(&meta, "a", &digest("large")).await;
    // Before and after the rest of its references is marked.
    assert_eq!(collect(&meta, i64::MAX).await.links, 0);
    let mut after = None;
    loop {
        let sweep = SweepEdges {
            after: after.take(),
            limit: 200,
            pending_before: NOW - PIN_MS,
        };
        let swept = meta.write(sweep).await.unwrap();
        if swept.done == 0 {
            break;
        }
        after = swept.at;
    }
    assert_eq!(collect(&meta, i64::MAX).await.links, 0);
    let mut after = None;
    loop {
        let restore = Restore {
            repository: repo("a"),
            digest: digest("large"),
            after: after.take(),
            referrer_json: None,
            actor: "carol".into(),
            at: NOW,
        };
        match meta.write(restore).await.unwrap() {
            Restored::More(last) => after = Some(last),
            Restored::Done => break,
            Restored::Unknown => panic!("it is there"),
        }
        assert_eq!(collect(&meta, i64::MAX).await.links, 0);
    }
    purge(&meta).await;
    assert_eq!(collect(&meta, i64::MAX).await.links, 0);
    delete(&meta, "a", &digest("large")).await;
    purge(&meta).await;
    assert_eq!(collect(&meta, i64::MAX).await.blobs, 500);
}

/// A push that breaks off holds what it announced for as long as it may, and then lets go of it.
pub async fn broken_push(meta: Meta) {
    let blob = push_blob(&meta, "a", "x").await;
    let part = PutEdges {
        repository: repo("a"),
        digest: digest("never"),
        edges: vec![edge(EdgeKind::Layer, &blob, 1)],
        check_sizes: true,
        at: NOW,
    };
    meta.write(part).await.unwrap();
    assert_eq!(collect(&meta, i64::MAX).await.links, 0);
    let sweep = SweepEdges {
        after: None,
        limit: 200,
        pending_before: NOW + 1,
    };
    while meta.write(sweep.clone()).await.unwrap().done > 0 {}
    assert_eq!(collect(&meta, i64::MAX).await.blobs, 1);
    assert!(!has(&meta, "a", &blob).await);
}

/// Near its end a candidate is absent for who asks, but not for a manifest.
pub async fn fading(meta: Meta) {
    let blob = push_blob(&meta, "a", "x").await;
    let stat = |fading_before| Stat {
        repository: repo("a"),
        digest: blob.clone(),
        fading_before,
    };
    assert!(meta.read(stat(NOW)).await.unwrap().is_some());
    assert!(meta.read(stat(NOW + 1)).await.unwrap().is_none());
    push(&meta, image("a", "m", &blob, 1)).await;
    assert!(meta.read(stat(NOW + 1)).await.unwrap().is_some());
    delete(&meta, "a", &digest("m")).await;
    assert!(meta.read(stat(NOW + 1)).await.unwrap().is_some());
    collect(&meta, NOW).await;
    assert!(
        meta.read(stat(i64::MAX)).await.unwrap().is_some(),
        "it is no candidate"
    );
}

/// Busy is an honest answer; callers come again.
async fn write<O: crate::Op + Clone>(meta: Meta, op: O) -> O::Out {
    loop {
        match meta.write(op.clone()).await {
            Ok(out) => return out,
            Err(Error::Busy(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A collector against each of those who come to need a blob: either it stays for them, or they are told.
pub async fn races(meta: Meta) {
    for round in 0..24 {
        let bytes = format!("x{round}");
        let size = bytes.len();
        let blob = push_blob(&meta, "a", &bytes).await;
        let take = Collect {
            due: NOW,
            limit: 25,
            at: NOW,
        };
        let collecting = tokio::spawn(write(meta.clone(), take));
        match round % 3 {
            0 => {
                let op = image("a", &format!("m{round}"), &blob, size);
                let stored = tokio::spawn(write(meta.clone(), op)).await.unwrap();
                collecting.await.unwrap();
                let held = matches!(stored, PutOutcome::Stored { .. });
                assert_eq!(held, has(&meta, "a", &blob).await, "{stored:?}");
            }
            1 => {
                let op = Mount {
                    repository: repo("b"),
                    from: repo("a"),
                    digest: blob.clone(),
                    actor: "bob".into(),
                    at: NOW + 1,
                };
                let mounted = tokio::spawn(write(meta.clone(), op)).await.unwrap();
                collecting.await.unwrap();
                assert_eq!(mounted, has(&meta, "b", &blob).await);
            }
            _ => {
                let op = Publish {
                    content: Content::Existing,
                    at: NOW + 1,
                    ..publish("c", &bytes)
                };
                let published = tokio::spawn(write(meta.clone(), op)).await.unwrap();
                collecting.await.unwrap();
                let held = matches!(published, Published::Done { .. });
                assert_eq!(held, has(&meta, "c", &blob).await, "{published:?}");
            }
        }
    }
}

/// Two that end the last two references at once leave a candidate between them.
pub async fn last_references(meta: Meta) {
    for round in 0..8 {
        let bytes = format!("y{round}");
        let blob = push_blob(&meta, "a", &bytes).await;
        for name in ["one", "two"] {
            let name = format!("{name}{round}");
            let manifest = push(&meta, image("a", &name, &blob, bytes.len())).await;
            delete(&meta, "a", &manifest).await;
        }
        collect(&meta, NOW).await;
        let due = Due {
            look_before: i64::MAX,
            limit: 9,
        };
        let purges = meta.scan(due).await.unwrap().into_iter().map(|row| Purge {
            manifest: row.manifest,
            deleted_at: row.deleted_at,
            cause: "a test",
            at: NOW,
        });
        let purges: Vec<_> = purges
            .map(|purge| tokio::spawn(write(meta.clone(), purge)))
            .collect();
        assert_eq!(purges.len(), 2);
        for purge in purges {
            assert_eq!(purge.await.unwrap(), Purged::Done);
        }
        assert_eq!(collect(&meta, NOW).await.blobs, 1, "round {round}");
    }
}
