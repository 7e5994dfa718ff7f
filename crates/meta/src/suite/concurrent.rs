//! Many at once: what one writer makes look easy, and PostgreSQL will not.

use std::future::Future;

use tokio::task::JoinSet;
use wharf_oci::EdgeKind;

use super::{NOW, digest, edge, events, publish_key, push, push_blob, put, repo, tag};
use crate::blob::{Find, Garbage, Mount, Place, Published, Unlink, Unlinked};
use crate::manifest::{Delete, Deleted, Get, Put, PutOutcome, Ref};
use crate::repository::GetTotals;
use crate::upload::{Chunks, Claim, Create};
use crate::{Error, Meta, tag as tags};

/// Runs all tasks at once and gives their results in the order of the tasks.
pub(super) async fn all<F: Future<Output: Send> + Send + 'static>(
    tasks: impl IntoIterator<Item = F>,
) -> Vec<F::Output> {
    let mut set = JoinSet::new();
    for (n, task) in tasks.into_iter().enumerate() {
        set.spawn(async move { (n, task.await) });
    }
    let mut results = set.join_all().await;
    results.sort_by_key(|(n, _)| *n);
    results.into_iter().map(|(_, result)| result).collect()
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

/// Every move of a tag has a version of its own, and starts where the one before ended.
pub async fn one_tag(meta: Meta) {
    let tasks = (0..64).map(|n| write(meta.clone(), put("a", format!("m{}", n % 16), &["t"])));
    let outcomes = all(tasks).await;
    let created = outcomes
        .iter()
        .filter(|o| **o == PutOutcome::Stored { created: true })
        .count();
    assert_eq!(created, 16);
    let history = tags::History {
        repository: repo("a"),
        tag: Some(tag("t")),
        limit: 1000,
    };
    let mut moves = meta.scan(history).await.unwrap();
    moves.reverse();
    let versions: Vec<i64> = moves.iter().map(|m| m.version).collect();
    assert_eq!(versions, (1..=moves.len() as i64).collect::<Vec<_>>());
    assert!(
        moves
            .windows(2)
            .all(|pair| pair[0].to == pair[1].from && pair[1].from != pair[1].to)
    );
    let get = Get {
        repository: repo("a"),
        reference: Ref::Tag(tag("t")),
        with_bytes: false,
    };
    let now = meta.read(get).await.unwrap().unwrap();
    assert_eq!(Some(now.digest), moves.last().unwrap().to);
    let recorded = events(&meta)
        .await
        .into_iter()
        .filter(|kind| kind == "tag.move")
        .count();
    assert_eq!(recorded, moves.len(), "one event for each move");
}

/// One blob published by many: one live row, one key in use, all others garbage.
pub async fn one_blob(meta: Meta) {
    let tasks = (0..64).map(|n| {
        write(
            meta.clone(),
            publish_key(&format!("r{}", n % 8), "x", &format!("k{n:02}")),
        )
    });
    let outcomes = all(tasks).await;
    let linked = outcomes
        .iter()
        .filter(|o| matches!(o, Published::Done { linked: true, .. }))
        .count();
    assert_eq!(linked, 8);
    let totals = meta.read(GetTotals).await.unwrap();
    assert_eq!(
        (totals.blobs, totals.blob_bytes, totals.repositories),
        (1, 1, 8)
    );
    let find = Find {
        repository: repo("r3"),
        digest: digest("x"),
        with_bytes: false,
    };
    let Place::Key(used) = meta.read(find).await.unwrap().unwrap().place else {
        panic!("no key")
    };
    let mut keys = meta
        .scan(Garbage {
            after: None,
            limit: 100,
        })
        .await
        .unwrap();
    assert!(!keys.contains(&used));
    keys.push(used);
    keys.sort();
    assert_eq!(
        keys,
        (0..64).map(|n| format!("k{n:02}")).collect::<Vec<_>>()
    );
    let mut surplus: Vec<String> = outcomes
        .into_iter()
        .filter_map(|o| match o {
            Published::Done { surplus, .. } => surplus,
            Published::NoSuchBlob | Published::GivenUp => None,
        })
        .collect();
    surplus.sort();
    surplus.dedup();
    assert_eq!(surplus.len(), 63, "each is told to one caller");
}

/// Either the manifest is stored and the blob stays, or the blob goes and the manifest is refused.
pub async fn unlink_against_put(meta: Meta) {
    for round in 0..32 {
        let bytes = format!("x{round}");
        let blob = push_blob(&meta, "a", &bytes).await;
        let op = Put {
            edges: vec![edge(EdgeKind::Layer, &blob, bytes.len() as u64)],
            ..put("a", format!("m{round}"), &["t"])
        };
        let unlink = Unlink {
            repository: repo("a"),
            digest: blob.clone(),
            actor: "bob".into(),
            at: NOW,
        };
        let (stored, unlinked) = tokio::join!(
            tokio::spawn(write(meta.clone(), op)),
            tokio::spawn(write(meta.clone(), unlink))
        );
        let find = Find {
            repository: repo("a"),
            digest: blob.clone(),
            with_bytes: false,
        };
        let there = meta.read(find).await.unwrap().is_some();
        match (stored.unwrap(), unlinked.unwrap()) {
            (PutOutcome::Stored { created: true }, Unlinked::ReferencedBy(_)) => assert!(there),
            (PutOutcome::Missing(missing), Unlinked::Done) => {
                assert_eq!(missing, [blob]);
                assert!(!there);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A mount happened before the unlink of its source, or not at all.
pub async fn mount_against_unlink(meta: Meta) {
    for round in 0..32 {
        let blob = push_blob(&meta, "a", format!("x{round}")).await;
        let (actor, at) = ("bob".to_owned(), NOW);
        let mount = Mount {
            repository: repo("b"),
            from: repo("a"),
            digest: blob.clone(),
            actor: actor.clone(),
            at,
        };
        let unlink = Unlink {
            repository: repo("a"),
            digest: blob.clone(),
            actor,
            at,
        };
        let (mounted, unlinked) = tokio::join!(
            tokio::spawn(write(meta.clone(), mount)),
            tokio::spawn(write(meta.clone(), unlink))
        );
        assert_eq!(unlinked.unwrap(), Unlinked::Done);
        let find = Find {
            repository: repo("b"),
            digest: blob,
            with_bytes: false,
        };
        assert_eq!(meta.read(find).await.unwrap().is_some(), mounted.unwrap());
    }
}

/// No tag ever points to a deleted manifest.
pub async fn tags_against_delete(meta: Meta) {
    for round in 0..16 {
        let bytes = format!("m{round}");
        let manifest = push(&meta, put("a", &bytes, &["old"])).await;
        let delete = Delete {
            repository: repo("a"),
            digest: manifest,
            actor: "bob".into(),
            at: NOW,
        };
        let deletes = {
            let meta = meta.clone();
            async move { while write(meta.clone(), delete.clone()).await == Deleted::More {} }
        };
        let pushes = all((0..4).map(|n| {
            let op = put("a", &bytes, &[&format!("t{n}")]);
            write(meta.clone(), op)
        }));
        tokio::join!(tokio::spawn(deletes), pushes).0.unwrap();
        let list = tags::List {
            repository: repo("a"),
            after: None,
            limit: 100,
        };
        for name in meta.scan(list).await.unwrap().unwrap() {
            let get = Get {
                repository: repo("a"),
                reference: Ref::Tag(tag(&name)),
                with_bytes: true,
            };
            assert!(
                meta.read(get).await.unwrap().is_some(),
                "{name} points to nothing"
            );
        }
    }
}

/// Of all that claim the same place, one succeeds, and its bytes are those kept.
pub async fn claims_of_one_upload(meta: Meta) {
    let create = Create {
        id: "u".into(),
        repository: repo("a"),
        owner: "alice".into(),
        algorithm: None,
        at: NOW,
    };
    meta.write(create).await.unwrap();
    let mut expected = Vec::new();
    for round in 0..16_u64 {
        let claims = (0..8_u8).map(|n| Claim {
            id: "u".into(),
            epoch: 0,
            from: round,
            to: round + 1,
            hash: vec![n],
            append: Some(vec![n]),
            in_file: false,
            at: NOW,
        });
        let results = all(claims.map(|claim| write(meta.clone(), claim))).await;
        let winners: Vec<u8> = (0..8_u8).filter(|n| results[usize::from(*n)]).collect();
        assert_eq!(winners.len(), 1, "round {round}");
        expected.push(winners[0]);
    }
    assert_eq!(
        meta.read(Chunks { id: "u".into() }).await.unwrap(),
        expected
    );
}
