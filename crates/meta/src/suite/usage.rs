//! What repositories take up: after whatever happened, the folded sums are what a walk over all rows finds.

use std::collections::BTreeMap;

use wharf_oci::{Digest, EdgeKind};

use super::{NOW, digest, edge, publish, publish_key, put, repo};
use crate::blob::{Condemn, Lookup, Mount, Place, Unlink};
use crate::candidate::Collect;
use crate::manifest::{Delete, Deleted, EdgeRow, Put, PutEdges, Restore, Restored, SweepEdges};
use crate::restorable::{Due, Purge, Purged};
use crate::usage::{
    Correct, CountLinks, CountManifests, Fold, IsPending, IsWrong, Largest, Links, MAX_FOLD,
    Manifests, Sizes, Sums, prefix,
};
use crate::{Error, Meta, Op};

/// Repositories that share blobs, some of them a prefix.
const REPOSITORIES: [&str; 4] = ["team/one", "team/two", "other/x", "alone"];
/// Blobs and manifests that there can be.
const THINGS: u32 = 6;

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }

    fn repository(&mut self) -> &'static str {
        REPOSITORIES[self.below(REPOSITORIES.len() as u32) as usize]
    }
}

/// Busy is an honest answer; callers come again.
async fn write<O: Op + Clone>(meta: &Meta, op: O) -> O::Out {
    loop {
        match meta.write(op.clone()).await {
            Ok(out) => return out,
            Err(Error::Busy(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

fn bytes(blob: u32) -> String {
    format!("blob {blob} {}", "x".repeat(1 << blob))
}

fn manifest(number: u32) -> String {
    format!("manifest {number} {}", "y".repeat(number as usize))
}

/// Does something, whatever comes of it.
async fn something(meta: &Meta, random: &mut Random, at: i64) {
    let (name, thing) = (random.repository(), random.below(THINGS));
    let blob = digest(bytes(thing));
    let actor = || "alice".to_owned();
    match random.below(11) {
        0 | 1 => {
            write(meta, publish(name, bytes(thing))).await;
        }
        2 => {
            let key = format!("key {at} {}", random.below(1 << 30));
            write(meta, publish_key(name, bytes(thing), &key)).await;
        }
        3 => {
            let from = repo(random.repository());
            let mount = Mount {
                repository: repo(name),
                from,
                digest: blob,
                actor: actor(),
                at,
            };
            write(meta, mount).await;
        }
        4 | 5 => {
            let targets = [thing, (thing + 1) % THINGS];
            let edges =
                targets.map(|of| edge(EdgeKind::Layer, &digest(bytes(of)), bytes(of).len() as u64));
            let media_type = format!("type {}", random.below(2));
            let op = Put {
                edges: edges.to_vec(),
                media_type,
                at,
                ..put(name, manifest(thing), &["t"])
            };
            write(meta, op).await;
        }
        6 => {
            let op = Delete {
                repository: repo(name),
                digest: digest(manifest(thing)),
                actor: actor(),
                at,
            };
            while write(meta, op.clone()).await == Deleted::More {}
        }
        7 => {
            let op = Unlink {
                repository: repo(name),
                digest: blob,
                actor: actor(),
                at,
            };
            write(meta, op).await;
        }
        8 => restore(meta, name, &digest(manifest(thing)), at).await,
        9 => {
            if random.below(4) == 0 {
                condemn(meta, blob, at).await;
            } else {
                begin(meta, name, thing, at).await;
            }
        }
        _ => clean(meta, at).await,
    }
}

async fn restore(meta: &Meta, name: &str, manifest: &Digest, at: i64) {
    let mut after = None;
    loop {
        let op = Restore {
            repository: repo(name),
            digest: manifest.clone(),
            after: after.take(),
            referrer_json: None,
            actor: "carol".into(),
            at,
        };
        match write(meta, op).await {
            Restored::More(last) => after = Some(last),
            Restored::Done | Restored::Unknown => return,
        }
    }
}

/// A push of many references that breaks off.
async fn begin(meta: &Meta, name: &str, thing: u32, at: i64) {
    let target = EdgeRow {
        must_exist: false,
        ..edge(EdgeKind::Layer, &digest(bytes(thing)), 1)
    };
    let op = PutEdges {
        repository: repo(name),
        digest: digest(manifest(thing)),
        edges: vec![target],
        check_sizes: false,
        at,
    };
    write(meta, op).await;
}

async fn condemn(meta: &Meta, digest: Digest, at: i64) {
    let Some(row) = meta.read(Lookup { digest }).await.expect("an answer") else {
        return;
    };
    let key = match row.place {
        Place::Key(key) => Some(key),
        Place::Inline(_) => None,
    };
    let op = Condemn {
        id: row.id,
        key,
        cause: "a test".into(),
        actor: "a test".into(),
        at,
    };
    write(meta, op).await;
}

/// Ends some of what was deleted, and collects.
async fn clean(meta: &Meta, at: i64) {
    let due = Due {
        look_before: i64::MAX,
        limit: 2,
    };
    for row in meta.scan(due).await.expect("what is due") {
        let op = Purge {
            manifest: row.manifest,
            deleted_at: row.deleted_at,
            cause: "a test",
            at,
        };
        while write(meta, op.clone()).await == Purged::More {}
    }
    let sweep = SweepEdges {
        after: None,
        limit: 200,
        pending_before: at,
    };
    write(meta, sweep).await;
    let collect = Collect {
        due: at,
        limit: 25,
        at,
    };
    write(meta, collect).await;
}

async fn fold(meta: &Meta) {
    while write(meta, Fold { limit: MAX_FOLD }).await >= MAX_FOLD {}
}

/// What a walk finds, by repository.
async fn walk(meta: &Meta) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    let mut names = BTreeMap::new();
    let limit = 100;
    let sums = Sums { after: None, limit };
    for row in meta.scan(sums).await.expect("repositories") {
        found.insert(row.name.to_string(), 0);
        names.insert(row.id, row.name.to_string());
    }
    let links = Links { after: None, limit };
    for link in meta.scan(links).await.expect("links") {
        assert_eq!(link.counted, link.bytes(), "{link:?}");
        *found.entry(names[&link.repository].clone()).or_default() += link.bytes();
    }
    let manifests = Manifests { after: None, limit };
    for row in meta.scan(manifests).await.expect("manifests") {
        assert_eq!(row.counted, row.bytes, "{row:?}");
        *found.entry(names[&row.repository].clone()).or_default() += row.bytes;
    }
    found
}

/// The sums, by repository and by prefix, are what a walk finds.
async fn compare(meta: &Meta) {
    fold(meta).await;
    assert!(!meta.read(IsPending).await.expect("an answer"));
    let walked = walk(meta).await;
    let sizes = Sizes {
        after: None,
        limit: 100,
    };
    let sizes = meta.scan(sizes).await.expect("sizes").into_iter();
    let sums: BTreeMap<_, _> = sizes.map(|row| (row.name, row.usage.logical)).collect();
    assert_eq!(sums, walked);
    let mut by_prefix = BTreeMap::new();
    for (name, bytes) in &walked {
        *by_prefix.entry(prefix(name).to_owned()).or_default() += bytes;
        *by_prefix.entry(String::new()).or_default() += bytes;
    }
    by_prefix.retain(|_, bytes| *bytes > 0);
    let largest = meta
        .scan(Largest { limit: 100 })
        .await
        .expect("the largest");
    assert!(largest.is_sorted_by(|a, b| a.usage.logical >= b.usage.logical));
    let largest = largest.into_iter();
    let largest: BTreeMap<_, _> = largest.map(|row| (row.name, row.usage.logical)).collect();
    assert_eq!(largest, by_prefix);
}

/// Random pushes, mounts, deletions, restorations, damage and collections, one after another.
pub async fn sums_are_what_a_walk_finds(meta: Meta) {
    let mut random = Random(7);
    let mut most = 0;
    for round in 0..400 {
        something(&meta, &mut random, NOW + round).await;
        if round % 20 == 19 {
            compare(&meta).await;
            most = walk(&meta).await.values().sum::<u64>().max(most);
        }
    }
    assert!(most > 100, "something was there: {most}");
}

/// The same by several at once, while the sums are folded by two.
pub async fn many_at_once(meta: Meta) {
    for round in 0..4 {
        let mut tasks = Vec::new();
        for task in 0..4_u64 {
            let meta = meta.clone();
            tasks.push(tokio::spawn(async move {
                let mut random = Random(round * 100 + task);
                for step in 0..25 {
                    let at = NOW + (round * 1_000 + task * 100) as i64 + step;
                    something(&meta, &mut random, at).await;
                    if task < 2 && step % 5 == 0 {
                        fold(&meta).await;
                    }
                }
            }));
        }
        for task in tasks {
            task.await.expect("a task");
        }
        compare(&meta).await;
    }
}

/// Counting what is counted changes nothing.
pub async fn counting_again(meta: Meta) {
    let mut random = Random(3);
    for round in 0..60 {
        something(&meta, &mut random, NOW + round).await;
    }
    let limit = 100;
    for _ in 0..2 {
        let links = meta
            .scan(Links { after: None, limit })
            .await
            .expect("links");
        let links = links.into_iter().map(|link| (link.repository, link.digest));
        let links: Vec<_> = links.collect();
        write(&meta, CountLinks { links }).await;
        let manifests = meta.scan(Manifests { after: None, limit }).await;
        let manifests = manifests.expect("manifests").into_iter();
        let manifests: Vec<_> = manifests.map(|row| row.id).collect();
        write(&meta, CountManifests { manifests }).await;
        compare(&meta).await;
    }
}

/// A sum is put right by a walk only if nothing changed it since the walk began.
pub async fn corrections(meta: Meta) {
    super::push_blob(&meta, "team/one", "12345").await;
    fold(&meta).await;
    let sums = Sums {
        after: None,
        limit: 9,
    };
    let known = meta.scan(sums).await.expect("sums").remove(0);
    assert_eq!((known.bytes, known.changes), (5, 1));
    let correct = |bytes| Correct {
        repository: known.id,
        name: known.name.clone(),
        bytes,
        changes: known.changes,
    };
    let wrong = |bytes| IsWrong(correct(bytes));
    assert!(!meta.read(wrong(5)).await.expect("an answer"));
    assert!(meta.read(wrong(7)).await.expect("an answer"));
    assert!(!write(&meta, correct(5)).await);
    assert!(write(&meta, correct(7)).await);
    let largest = meta.scan(Largest { limit: 9 }).await.expect("the largest");
    assert!(largest.len() == 2 && largest.iter().all(|row| row.usage.logical == 7));
    assert!(write(&meta, correct(5)).await);
    super::push_blob(&meta, "team/one", "1").await;
    // What is not folded yet comes on top.
    assert!(write(&meta, correct(4)).await && write(&meta, correct(5)).await);
    fold(&meta).await;
    assert!(!write(&meta, correct(4)).await);
    assert!(!meta.read(wrong(4)).await.expect("an answer"));
    compare(&meta).await;
}
