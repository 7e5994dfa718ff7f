//! Blobs and their links.

use wharf_oci::EdgeKind;

use super::{
    NOW, digest, edge, events, heal_key, publish, publish_key, push, push_blob, put, repo,
};
use crate::blob::{
    BlobRow, Collected, Condemn, Content, Find, Garbage, Holders, InlineBytes, ListLive, Lookup,
    Mount, Place, Publish, Published, Unlink, Unlinked,
};
use crate::candidate::Collect;
use crate::manifest::{Delete, PutOutcome};
use crate::repository::GetTotals;
use crate::{Meta, upload};

async fn find(meta: &Meta, repository: &str, bytes: &str) -> Option<BlobRow> {
    meta.read(Find {
        repository: repo(repository),
        digest: digest(bytes),
        with_bytes: true,
    })
    .await
    .unwrap()
}

fn done(linked: bool, surplus: Option<&str>) -> Published {
    Published::Done {
        linked,
        surplus: surplus.map(str::to_owned),
    }
}

fn unlink(repository: &str, bytes: &str) -> Unlink {
    Unlink {
        repository: repo(repository),
        digest: digest(bytes),
        actor: "alice".into(),
        at: NOW,
    }
}

fn mount(repository: &str, from: &str, bytes: &str) -> Mount {
    let (repository, from) = (repo(repository), repo(from));
    Mount {
        repository,
        from,
        digest: digest(bytes),
        actor: "alice".into(),
        at: NOW,
    }
}

/// Both kinds of places are found again.
pub async fn inline_and_key(meta: Meta) {
    assert_eq!(
        meta.write(publish("a", "small")).await.unwrap(),
        done(true, None)
    );
    assert_eq!(
        meta.write(publish_key("a", "large", "blobs/1"))
            .await
            .unwrap(),
        done(true, None)
    );
    let small = find(&meta, "a", "small").await.unwrap();
    assert_eq!(
        (small.size, small.place),
        (5, Place::Inline(Some(b"small".to_vec())))
    );
    let large = find(&meta, "a", "large").await.unwrap();
    assert_eq!(
        (large.size, large.digest, large.place),
        (5, digest("large"), Place::Key("blobs/1".into()))
    );
    let head = Find {
        repository: repo("a"),
        digest: digest("small"),
        with_bytes: false,
    };
    assert_eq!(
        meta.read(head).await.unwrap().unwrap().place,
        Place::Inline(None)
    );
    let empty = push_blob(&meta, "a", "").await;
    assert_eq!(empty, digest(""));
    assert_eq!(
        find(&meta, "a", "").await.unwrap().place,
        Place::Inline(Some(Vec::new()))
    );
}

/// A digest known elsewhere is unknown here.
pub async fn visible_only_through_links(meta: Meta) {
    push_blob(&meta, "a", "x").await;
    push_blob(&meta, "b", "y").await;
    assert!(find(&meta, "a", "x").await.is_some());
    assert!(find(&meta, "b", "x").await.is_none());
    assert!(find(&meta, "none", "x").await.is_none());
    assert!(
        meta.read(Lookup {
            digest: digest("x")
        })
        .await
        .unwrap()
        .is_some()
    );
    assert!(
        meta.read(Lookup {
            digest: digest("z")
        })
        .await
        .unwrap()
        .is_none()
    );
}

/// Publishing removes the session, counts once and records one event, however often it is done.
pub async fn publish_ends_the_upload(meta: Meta) {
    let create = upload::Create {
        id: "u".into(),
        repository: repo("a"),
        owner: "alice".into(),
        algorithm: None,
        at: NOW,
    };
    meta.write(create).await.unwrap();
    let op = Publish {
        upload: Some("u".into()),
        ..publish_key("a", "x", "blobs/1")
    };
    assert_eq!(meta.write(op.clone()).await.unwrap(), done(true, None));
    assert_eq!(meta.write(op).await.unwrap(), done(false, None));
    assert_eq!(
        meta.read(upload::Get { id: "u".into() }).await.unwrap(),
        None
    );
    let totals = meta.read(GetTotals).await.unwrap();
    assert_eq!(
        (
            totals.repositories,
            totals.blobs,
            totals.blob_bytes,
            totals.uploads
        ),
        (1, 1, 1, 0)
    );
    assert_eq!(events(&meta).await, ["blob.push"]);
}

/// Bytes that are there stay when the same come again: somebody may read them already.
pub async fn the_first_of_two_publishes_stays(meta: Meta) {
    let place = async |expected: Place| {
        let row = find(&meta, "a", "x").await.unwrap();
        assert_eq!(row.place, expected);
    };
    let keyed = |key: &str| publish_key("a", "x", key);
    assert_eq!(meta.write(keyed("k1")).await.unwrap(), done(true, None));
    for (key, surplus) in [("k2", Some("k2")), ("k2", None), ("k1", None)] {
        assert_eq!(meta.write(keyed(key)).await.unwrap(), done(false, surplus));
        place(Place::Key("k1".into())).await;
    }
    let inline = publish("b", "x");
    assert_eq!(meta.write(inline).await.unwrap(), done(true, None));
    place(Place::Key("k1".into())).await;
    // Bad bytes that others have replaced since are no reason either.
    let late = heal_key("a", "x", "k0", "k3");
    assert_eq!(meta.write(late).await.unwrap(), done(false, Some("k3")));
    place(Place::Key("k1".into())).await;
}

/// Bytes that were collected do not come back with the repetition of their publish.
pub async fn a_late_repetition_brings_nothing_back(meta: Meta) {
    let op = publish_key("a", "x", "k1");
    meta.write(op.clone()).await.unwrap();
    let collect = Collect {
        due: i64::MAX,
        limit: 9,
        at: NOW,
    };
    assert_eq!(meta.write(collect).await.unwrap().blobs, 1);
    assert_eq!(meta.write(op).await.unwrap(), Published::GivenUp);
    assert!(find(&meta, "a", "x").await.is_none());
    assert_eq!(
        meta.write(publish_key("a", "x", "k2")).await.unwrap(),
        done(true, None)
    );
}

/// New bytes take the place of bad ones, whichever way both are kept.
pub async fn publish_replaces_what_is_bad(meta: Meta) {
    let heal = |bad: &str, key: &str| heal_key("a", "x", bad, key);
    meta.write(publish_key("a", "x", "k1")).await.unwrap();
    for surplus in [Some("k1"), None] {
        let healed = meta.write(heal("k1", "k2")).await.unwrap();
        assert_eq!(healed, done(false, surplus));
        let row = find(&meta, "a", "x").await.unwrap();
        assert_eq!(row.place, Place::Key("k2".into()));
    }
    let repeated = meta.write(publish_key("a", "x", "k1")).await.unwrap();
    assert_eq!(repeated, done(false, None), "k1 is going away");
    let row = find(&meta, "a", "x").await.unwrap();
    assert_eq!(row.place, Place::Key("k2".into()));
    let inline = Publish {
        instead_of: Some(Place::Key("k2".into())),
        ..publish("b", "x")
    };
    assert_eq!(
        meta.write(inline.clone()).await.unwrap(),
        done(true, Some("k2"))
    );
    assert_eq!(
        find(&meta, "a", "x").await.unwrap().place,
        Place::Inline(Some(b"x".to_vec()))
    );
    assert_eq!(meta.write(inline).await.unwrap(), done(false, None));
    let keyed = Publish {
        instead_of: Some(Place::Inline(None)),
        ..publish_key("a", "x", "k3")
    };
    assert_eq!(meta.write(keyed).await.unwrap(), done(false, None));
    let row = find(&meta, "b", "x").await.unwrap();
    assert_eq!(row.place, Place::Key("k3".into()));
    assert_eq!(
        meta.read(InlineBytes { id: row.id }).await.unwrap(),
        None,
        "the inline bytes went"
    );
    assert_eq!(meta.read(GetTotals).await.unwrap().blobs, 1);
    // A size that was wrong is put right, also in the totals.
    let fixed = Publish {
        size: 7,
        ..heal("k3", "k4")
    };
    assert_eq!(meta.write(fixed).await.unwrap(), done(false, Some("k3")));
    assert_eq!(meta.read(GetTotals).await.unwrap().blob_bytes, 7);
}

/// Relying on bytes that are not there is refused.
pub async fn existing_needs_a_row(meta: Meta) {
    let existing = |repository: &str| Publish {
        content: Content::Existing,
        ..publish(repository, "x")
    };
    assert_eq!(
        meta.write(existing("a")).await.unwrap(),
        Published::NoSuchBlob
    );
    assert_eq!(
        meta.read(GetTotals).await.unwrap().repositories,
        0,
        "nothing was made"
    );
    push_blob(&meta, "a", "x").await;
    assert_eq!(meta.write(existing("b")).await.unwrap(), done(true, None));
    assert!(find(&meta, "b", "x").await.is_some());
}

/// A blob with bad bytes is unknown to all, until one push makes it known to all again.
pub async fn condemned_is_healed_by_a_push(meta: Meta) {
    meta.write(publish_key("a", "x", "k1")).await.unwrap();
    meta.write(mount("b", "a", "x")).await.unwrap();
    let id = find(&meta, "a", "x").await.unwrap().id;
    let condemn = |key: &str| Condemn {
        id,
        key: Some(key.into()),
        cause: "a test".into(),
        actor: "verify".into(),
        at: NOW,
    };
    assert!(
        !meta.write(condemn("k0")).await.unwrap(),
        "its bytes were replaced since"
    );
    assert!(meta.write(condemn("k1")).await.unwrap());
    assert!(!meta.write(condemn("k1")).await.unwrap());
    for repository in ["a", "b"] {
        assert!(find(&meta, repository, "x").await.is_none());
    }
    assert!(!meta.write(mount("c", "a", "x")).await.unwrap());
    let op = crate::manifest::Put {
        edges: vec![edge(EdgeKind::Layer, &digest("x"), 1)],
        ..put("a", "m", &[])
    };
    assert_eq!(
        meta.write(op).await.unwrap(),
        PutOutcome::Missing(vec![digest("x")])
    );
    let totals = meta.read(GetTotals).await.unwrap();
    assert_eq!((totals.blobs, totals.blob_bytes), (0, 0));

    assert_eq!(
        meta.write(publish_key("a", "x", "k2")).await.unwrap(),
        done(false, None)
    );
    for repository in ["a", "b"] {
        assert_eq!(
            find(&meta, repository, "x").await.unwrap().place,
            Place::Key("k2".into())
        );
    }
    assert_eq!(
        events(&meta).await,
        ["blob.push", "blob.mount", "blob.condemn"]
    );
}

/// Mounting links what the source holds, and nothing else.
pub async fn mount_and_holders(meta: Meta) {
    push_blob(&meta, "a", "x").await;
    assert!(!meta.write(mount("b", "none", "x")).await.unwrap());
    assert!(!meta.write(mount("b", "a", "y")).await.unwrap());
    assert_eq!(
        meta.read(GetTotals).await.unwrap().repositories,
        1,
        "nothing was made"
    );
    assert!(meta.write(mount("b", "a", "x")).await.unwrap());
    assert!(meta.write(mount("b", "a", "x")).await.unwrap());
    assert!(find(&meta, "b", "x").await.is_some());
    let mut holders = meta
        .read(Holders {
            digest: digest("x"),
            limit: 10,
        })
        .await
        .unwrap();
    holders.sort();
    assert_eq!(holders, [repo("a"), repo("b")]);
    assert_eq!(
        meta.read(Holders {
            digest: digest("x"),
            limit: 1
        })
        .await
        .unwrap()
        .len(),
        1
    );
    assert!(
        meta.read(Holders {
            digest: digest("y"),
            limit: 10
        })
        .await
        .unwrap()
        .is_empty()
    );
    assert_eq!(events(&meta).await, ["blob.push", "blob.mount"]);
}

/// A blob that a manifest of its repository needs stays.
pub async fn unlink_respects_manifests(meta: Meta) {
    let layer = push_blob(&meta, "a", "x").await;
    push_blob(&meta, "b", "x").await;
    let op = crate::manifest::Put {
        edges: vec![edge(EdgeKind::Layer, &layer, 1)],
        ..put("a", "m", &["t"])
    };
    let manifest = push(&meta, op).await;
    assert_eq!(
        meta.write(unlink("a", "x")).await.unwrap(),
        Unlinked::ReferencedBy(manifest.clone())
    );
    assert_eq!(
        meta.write(unlink("b", "x")).await.unwrap(),
        Unlinked::Done,
        "nothing in b needs it"
    );
    assert_eq!(
        meta.write(unlink("b", "x")).await.unwrap(),
        Unlinked::Unknown
    );
    assert_eq!(
        meta.write(unlink("none", "x")).await.unwrap(),
        Unlinked::Unknown
    );
    let delete = Delete {
        repository: repo("a"),
        digest: manifest,
        actor: "alice".into(),
        at: NOW,
    };
    while meta.write(delete.clone()).await.unwrap() == crate::manifest::Deleted::More {}
    assert_eq!(meta.write(unlink("a", "x")).await.unwrap(), Unlinked::Done);
    assert!(find(&meta, "a", "x").await.is_none());
    assert!(
        meta.read(Lookup { digest: layer }).await.unwrap().is_some(),
        "the bytes are left to collection"
    );
}

/// Backup sees every live blob once, in pages.
pub async fn listed_for_backup(meta: Meta) {
    for n in 0..10 {
        meta.write(publish_key("a", format!("blob {n}"), &format!("k{n}")))
            .await
            .unwrap();
    }
    let dead = find(&meta, "a", "blob 4").await.unwrap();
    let Place::Key(key) = dead.place else {
        panic!("no key")
    };
    meta.write(Condemn {
        id: dead.id,
        key: Some(key),
        cause: "a test".into(),
        actor: "verify".into(),
        at: NOW,
    })
    .await
    .unwrap();
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = meta.scan(ListLive { after, limit: 4 }).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        all.extend(page.into_iter().map(|row| row.digest));
    }
    all.sort();
    let mut expected: Vec<_> = (0..10)
        .filter(|n| *n != 4)
        .map(|n| digest(format!("blob {n}")))
        .collect();
    expected.sort();
    assert_eq!(all, expected);
}

/// A key that nothing needs is known as garbage until somebody says that its bytes are gone.
pub async fn garbage_is_kept_until_collected(meta: Meta) {
    for key in ["k3", "k1", "k2"] {
        meta.write(publish_key("a", "x", key)).await.unwrap();
    }
    let garbage = |after: Option<&str>| {
        meta.scan(Garbage {
            after: after.map(str::to_owned),
            limit: 10,
        })
    };
    assert_eq!(garbage(None).await.unwrap(), ["k1", "k2"]);
    assert_eq!(garbage(Some("k1")).await.unwrap(), ["k2"]);
    for _ in 0..2 {
        meta.write(Collected {
            keys: vec!["k1".into()],
        })
        .await
        .unwrap();
    }
    assert_eq!(garbage(None).await.unwrap(), ["k2"]);
}
