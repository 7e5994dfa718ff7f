//! The cache against the writer: nobody may ever see an older value than one that was acknowledged or seen before.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use wharf_meta::manifest as rows;
use wharf_oci::Algorithm;

use super::*;
use crate::Error;
use crate::house::House;
use crate::manifest::{self, Expect, Push};

const MEDIA_TYPE: &str = "application/vnd.oci.image.index.v1+json";

fn tag() -> Tag {
    Tag::parse("v1").unwrap()
}

fn by_tag() -> Reference {
    Reference::Tag(tag())
}

/// An index without children, of its own for each number.
fn content(number: usize) -> bytes::Bytes {
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MEDIA_TYPE}","manifests":[],"annotations":{{"number":"{number}"}}}}"#
    );
    text.into()
}

fn digest(number: usize) -> Digest {
    Digest::of(Algorithm::Sha256, &content(number))
}

async fn push(house: &House, reference: &Reference, bytes: bytes::Bytes) {
    let push = Push {
        repository: &House::repository(),
        reference,
        content_type: Some(MEDIA_TYPE),
        bytes,
        tags: Vec::new(),
        expect: Expect::Any,
        actor: "alice",
        caller: None,
    };
    manifest::push(&house.registry, push).await.unwrap();
}

async fn get(house: &House, reference: &Reference) -> Result<Arc<Stored>, Error> {
    manifest::get(&house.registry, &House::repository(), reference, true).await
}

/// The number of the manifest that the tag stands at; `None`: no such tag.
async fn number(house: &House) -> Option<usize> {
    match get(house, &by_tag()).await {
        Ok(stored) => {
            let bytes = stored.bytes.as_ref().unwrap();
            assert_eq!(stored.digest, Digest::of(Algorithm::Sha256, bytes));
            let json: serde_json::Value = serde_json::from_slice(bytes).unwrap();
            Some(
                json["annotations"]["number"]
                    .as_str()
                    .unwrap()
                    .parse()
                    .unwrap(),
            )
        }
        Err(Error::ManifestUnknown { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Reads until the answer comes from memory alone.
async fn warm(house: &House) {
    let meta = &house.registry.meta;
    for _ in 0..3 {
        number(house).await.unwrap();
    }
    let before = meta.stats().reads;
    number(house).await.unwrap();
    assert_eq!(meta.stats().reads, before, "not from memory");
}

#[tokio::test]
async fn a_warm_tag_is_answered_without_a_look_up_until_it_moves() {
    let house = House::new().await;
    push(&house, &by_tag(), content(1)).await;
    warm(&house).await;
    push(&house, &by_tag(), content(2)).await;
    assert_eq!(number(&house).await, Some(2));
    warm(&house).await;
    crate::tag::delete(&house.registry, &House::repository(), &tag(), "alice")
        .await
        .unwrap();
    assert_eq!(number(&house).await, None);
    // By digest it stays, and goes with the manifest.
    let by_digest = Reference::Digest(digest(2));
    assert!(get(&house, &by_digest).await.is_ok());
    assert!(get(&house, &by_digest).await.is_ok());
    manifest::delete(&house.registry, &House::repository(), &digest(2), "alice")
        .await
        .unwrap();
    assert!(get(&house, &by_digest).await.is_err());
}

#[tokio::test]
async fn deleting_a_manifest_takes_its_tags_from_memory_too() {
    let house = House::new().await;
    push(&house, &by_tag(), content(1)).await;
    warm(&house).await;
    manifest::delete(&house.registry, &House::repository(), &digest(1), "alice")
        .await
        .unwrap();
    assert_eq!(number(&house).await, None);
    push(&house, &by_tag(), content(1)).await;
    assert_eq!(number(&house).await, Some(1));
}

#[tokio::test]
async fn nothing_in_memory_is_visible_through_another_repository() {
    let house = House::new().await;
    push(&house, &by_tag(), content(1)).await;
    warm(&house).await;
    let other = RepositoryName::parse("team/other").unwrap();
    for reference in [by_tag(), Reference::Digest(digest(1))] {
        let found = manifest::get(&house.registry, &other, &reference, true).await;
        assert!(matches!(found, Err(Error::ManifestUnknown { .. })));
    }
}

/// HEAD leaves no bytes behind; the GET after it must have them.
#[tokio::test]
async fn what_was_read_without_bytes_does_not_answer_for_bytes() {
    let house = House::new().await;
    push(&house, &by_tag(), content(1)).await;
    for _ in 0..3 {
        let head = manifest::get(&house.registry, &House::repository(), &by_tag(), false).await;
        assert_eq!(head.unwrap().size, content(1).len() as u64);
    }
    assert_eq!(
        get(&house, &by_tag()).await.unwrap().bytes,
        Some(content(1))
    );
}

/// The race of a fill with a write, one step at a time.
#[tokio::test]
async fn a_fill_that_began_before_a_write_is_never_used() {
    let house = House::new().await;
    let (registry, repository) = (&house.registry, House::repository());
    push(&house, &by_tag(), content(1)).await;
    // A reader took its stamps and read …
    let of_tag = registry.meta.stamp(&repository, "v1");
    let of_digest = registry.meta.stamp(&repository, digest(1).as_str());
    let get_old = rows::Get {
        repository: repository.clone(),
        reference: rows::Ref::Digest(digest(1)),
        with_bytes: true,
    };
    let old = registry.meta.read(get_old).await.unwrap().unwrap();
    // … and is overtaken by a move of the tag and the end of the manifest …
    push(&house, &by_tag(), content(2)).await;
    manifest::delete(registry, &repository, &digest(1), "alice")
        .await
        .unwrap();
    // … before it stores what it has.
    let stored = Arc::new(Stored::from(old));
    registry
        .manifests
        .keep_tag(of_tag, &repository, &tag(), &digest(1));
    registry
        .manifests
        .keep_manifest(of_digest, &repository, &stored);
    assert_eq!(number(&house).await, Some(2));
    assert!(get(&house, &Reference::Digest(digest(1))).await.is_err());
}

#[tokio::test]
async fn memory_is_bounded_and_large_manifests_stay_out() {
    let house = House::new().await;
    let (manifests, repository) = (&house.registry.manifests, House::repository());
    let stamp = house.registry.meta.stamp(&repository, "x");
    let of = |number: usize, size: u64| {
        Arc::new(Stored {
            digest: digest(number),
            media_type: MEDIA_TYPE.into(),
            size,
            bytes: Some(vec![0; size as usize].into()),
        })
    };
    manifests.keep_manifest(stamp, &repository, &of(0, LARGEST + 1));
    assert_eq!(manifests.entries.len(), 0);
    for number in 0..1_000 {
        manifests.keep_manifest(stamp, &repository, &of(number, LARGEST));
    }
    assert!(manifests.entries.weight() <= CAPACITY);
    assert!(manifests.entries.len() > 50);
}

/// One writer moves a tag on and on, and now and then deletes it; readers must see time go forward only: never less than
/// what was acknowledged before they asked, and never less than anybody saw before.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_never_see_time_go_backwards() {
    const MOVES: usize = 400;
    let house = Arc::new(House::new().await);
    push(&house, &by_tag(), content(0)).await;
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(AtomicUsize::new(0));
    let hits = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let (house, acknowledged) = (house.clone(), acknowledged.clone());
            let (seen, hits, done) = (seen.clone(), hits.clone(), done.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::SeqCst) {
                    let least = acknowledged
                        .load(Ordering::SeqCst)
                        .max(seen.load(Ordering::SeqCst));
                    let reads = house.registry.meta.stats().reads;
                    if let Some(number) = number(&house).await {
                        assert!(number >= least, "saw {number} after {least}");
                        seen.fetch_max(number, Ordering::SeqCst);
                    }
                    if house.registry.meta.stats().reads == reads {
                        hits.fetch_add(1, Ordering::SeqCst);
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for move_to in 1..=MOVES {
        if move_to % 7 == 0 {
            crate::tag::delete(&house.registry, &House::repository(), &tag(), "alice")
                .await
                .unwrap();
        }
        push(&house, &by_tag(), content(move_to)).await;
        acknowledged.store(move_to, Ordering::SeqCst);
        // Some moves follow at once; before others, readers fill the memory.
        if move_to % 3 == 0 {
            let before = hits.load(Ordering::SeqCst);
            while hits.load(Ordering::SeqCst) == before && !readers.iter().any(|r| r.is_finished())
            {
                tokio::task::yield_now().await;
            }
        }
    }
    done.store(true, Ordering::SeqCst);
    for reader in readers {
        reader.await.unwrap();
    }
    assert_eq!(number(&house).await, Some(MOVES));
}
