use wharf_meta::{blob as rows, event, manifest as manifests, repository::GetTotals};
use wharf_oci::{Digest, Reference, Tag};

use super::*;
use crate::access::Permission;
use crate::clock::Clock as _;
use crate::error::Error;
use crate::house::{House, LARGE, noise};
use crate::{blob, manifest, restore, upload};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

async fn collect(house: &House) {
    house.run::<Purge>().await;
    house.run::<Collect>().await;
}

/// All files of blobs.
fn files(house: &House) -> usize {
    let mut folders = vec![house.folder().join("blobs")];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => count += 1,
            }
        }
    }
    count
}

async fn delete(house: &House, digest: &Digest) {
    manifest::delete(&house.registry, &House::repository(), digest, "bob")
        .await
        .unwrap();
}

async fn delete_blob(house: &House, digest: &Digest) {
    blob::delete(&house.registry, &House::repository(), digest, "bob")
        .await
        .unwrap();
}

async fn resolves(house: &House, reference: &str) -> bool {
    let reference = Reference::parse(reference).unwrap();
    manifest::get(&house.registry, &House::repository(), &reference, true)
        .await
        .is_ok()
}

/// Kinds and causes of the events so far.
async fn causes(house: &House) -> Vec<(String, Option<String>)> {
    let list = event::List {
        after: 0,
        limit: 1_000,
    };
    let events = house.registry.meta.scan(list).await.unwrap();
    let cause = |payload: &str| {
        let payload: serde_json::Value = serde_json::from_str(payload).unwrap();
        payload["cause"].as_str().map(str::to_owned)
    };
    events
        .into_iter()
        .map(|event| {
            let cause = cause(&event.payload);
            (event.kind, cause)
        })
        .collect()
}

#[tokio::test]
async fn what_no_manifest_uses_goes_after_its_grace_and_what_one_uses_stays() {
    let house = House::new().await;
    let (image, _) = house.push_image("v1", &noise(1, LARGE)).await;
    let (small, large) = (
        house.push(b"small").await,
        house.push(&noise(2, LARGE)).await,
    );
    house.clock.advance(DAY - 1);
    collect(&house).await;
    assert_eq!(files(&house), 2);
    house.clock.advance(1);
    collect(&house).await;
    assert!(!house.has(&small).await && !house.has(&large).await);
    assert_eq!(files(&house), 1);
    let totals = house.registry.meta.read(GetTotals).await.unwrap();
    assert_eq!((totals.blobs, totals.blob_bytes), (2, 2 + LARGE as u64));
    assert!(resolves(&house, "v1").await && resolves(&house, image.as_str()).await);
    // Nothing is looked at twice.
    house.clock.advance(30 * DAY);
    collect(&house).await;
    assert!(resolves(&house, "v1").await);
    assert_eq!(files(&house), 1);
    let collected = causes(&house).await;
    let unused = ("blob.collect".to_owned(), Some("unreferenced".to_owned()));
    assert_eq!(
        collected.iter().filter(|event| **event == unused).count(),
        2
    );
}

#[tokio::test]
async fn in_its_last_hour_a_candidate_is_absent_but_a_manifest_revives_it() {
    let house = House::new().await;
    let layer = noise(3, LARGE);
    let digest = house.push(&layer).await;
    house.clock.advance(DAY - HOUR - 1);
    assert!(house.has(&digest).await);
    house.clock.advance(2);
    assert!(!house.has(&digest).await);
    // GET still answers, and so does whoever names it.
    assert_eq!(house.content(&digest).await, layer);
    house.push(b"{}").await;
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": house.push(b"{}").await, "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": layer.len()}],
    });
    house.put(manifest.to_string(), "v1").await.unwrap();
    assert!(house.has(&digest).await);
    house.clock.advance(3 * DAY);
    collect(&house).await;
    assert!(house.has(&digest).await && resolves(&house, "v1").await);
}

#[tokio::test]
async fn a_push_of_what_fades_begins_its_grace_anew() {
    let house = House::new().await;
    let layer = noise(4, LARGE);
    let digest = house.push(&layer).await;
    house.clock.advance(DAY - 1);
    assert!(!house.has(&digest).await);
    house.push(&layer).await;
    assert!(house.has(&digest).await);
    house.clock.advance(DAY - 2 * HOUR);
    collect(&house).await;
    assert!(house.has(&digest).await);
    house.clock.advance(2 * HOUR);
    collect(&house).await;
    assert!(!house.has(&digest).await);
    assert_eq!(files(&house), 0);
}

#[tokio::test]
async fn a_deleted_manifest_keeps_its_layers_until_its_window_ends_and_then_all_goes() {
    let house = House::new().await;
    let layer = noise(5, LARGE);
    let (digest, bytes) = house.push_image("v1", &layer).await;
    let layer_digest = Digest::of(wharf_oci::Algorithm::Sha256, &layer);
    house.clock.advance(2 * DAY);
    collect(&house).await;
    delete(&house, &digest).await;
    // As conformance asks, blobs can be deleted after their manifest; a restore brings them back all the same.
    delete_blob(&house, &layer_digest).await;
    assert!(!house.has(&layer_digest).await && !resolves(&house, "v1").await);
    house.clock.advance(7 * DAY - 1);
    collect(&house).await;
    let restored = restore::manifest(&house.registry, &House::repository(), &digest, "carol")
        .await
        .unwrap();
    assert_eq!(restored.tags, ["v1"]);
    assert!(resolves(&house, "v1").await && house.has(&layer_digest).await);
    assert_eq!(house.content(&layer_digest).await, layer);
    house.clock.advance(30 * DAY);
    collect(&house).await;
    assert!(resolves(&house, "v1").await && house.has(&layer_digest).await);

    delete(&house, &digest).await;
    house.clock.advance(7 * DAY);
    collect(&house).await;
    let gone = restore::manifest(&house.registry, &House::repository(), &digest, "carol").await;
    assert!(
        matches!(gone, Err(restore::RestoreError::NoManifest { .. })),
        "{gone:?}"
    );
    // Its layers have their own grace from then on.
    assert!(house.has(&layer_digest).await);
    house.clock.advance(DAY);
    collect(&house).await;
    assert!(!house.has(&layer_digest).await);
    assert_eq!(files(&house), 0);
    let totals = house.registry.meta.read(GetTotals).await.unwrap();
    assert_eq!(
        (
            totals.blobs,
            totals.blob_bytes,
            totals.manifests,
            totals.tags
        ),
        (0, 0, 0, 0)
    );
    // And all can be pushed again.
    let (again, _) = house.push_image("v1", &layer).await;
    assert_eq!(again, digest);
    assert_eq!(house.content(&layer_digest).await, layer);
    drop(bytes);
}

#[tokio::test]
async fn a_push_brings_a_deleted_manifest_back_for_good() {
    let house = House::new().await;
    let (digest, bytes) = house.push_image("v1", &noise(6, LARGE)).await;
    delete(&house, &digest).await;
    house.clock.advance(DAY);
    house
        .put(String::from_utf8(bytes.to_vec()).unwrap(), "v2")
        .await
        .unwrap();
    house.clock.advance(30 * DAY);
    collect(&house).await;
    assert!(resolves(&house, "v2").await);
    assert_eq!(files(&house), 1);
}

#[tokio::test]
async fn windows_go_by_the_longest_prefix() {
    let house = House::new().await;
    house.rule(|rules| {
        rules.restore.overrides = vec![("team".into(), DAY), ("team/app".into(), 2 * DAY)];
    });
    let (digest, _) = house.push_image("v1", &noise(7, LARGE)).await;
    delete(&house, &digest).await;
    house.clock.advance(2 * DAY - 1);
    collect(&house).await;
    let plan = plan(&house.registry).await.unwrap();
    assert_eq!((plan.manifest_count, plan.blob_count), (1, 0));
    house.clock.advance(DAY);
    collect(&house).await;
    let plan = super::plan(&house.registry).await.unwrap();
    assert_eq!(
        (plan.manifest_count, plan.blob_count, plan.blob_bytes),
        (0, 2, 2 + LARGE as u64)
    );
}

#[tokio::test]
async fn a_tag_goes_back_to_where_it_stood() {
    let house = House::new().await;
    let (one, _) = house.push_image("v1", &noise(8, LARGE)).await;
    let (two, _) = house.push_image("v1", &noise(9, LARGE)).await;
    let (repository, tag) = (House::repository(), Tag::parse("v1").unwrap());
    let refused = restore::tag(&house.registry, &repository, &tag, None, "carol").await;
    assert!(matches!(refused, Err(restore::RestoreError::Exists { .. })));
    // What it takes beside the right to delete is asked first.
    let without = async |needed: Permission, version| {
        let registry = &house.registry;
        let may = |permission| permission != needed;
        let back = restore::tag_from(
            registry,
            &repository,
            &tag,
            wharf_meta::Meant::Any,
            version,
            "eve",
            may,
        )
        .await;
        assert!(
            matches!(back, Err(restore::RestoreError::Denied(missing)) if missing == needed),
            "{needed}: {back:?}"
        );
    };
    without(Permission::TagMove, Some(1)).await;
    let back = restore::tag(&house.registry, &repository, &tag, Some(1), "carol").await;
    assert_eq!(back.unwrap().digest, one);
    crate::tag::delete(&house.registry, &repository, &tag, "bob")
        .await
        .unwrap();
    without(Permission::TagCreate, None).await;
    assert!(!resolves(&house, "v1").await);
    delete(&house, &one).await;
    // The manifest comes back with its tag.
    let back = restore::tag(&house.registry, &repository, &tag, None, "carol")
        .await
        .unwrap();
    assert_eq!((back.digest, back.manifest), (one.clone(), true));
    assert!(resolves(&house, "v1").await);
    let history = restore::history(&house.registry, &repository, Some(&tag), 100)
        .await
        .unwrap();
    let moves: Vec<_> = history.moves.iter().map(|one| one.to.clone()).collect();
    assert_eq!(
        moves,
        [
            Some(one.clone()),
            None,
            Some(one.clone()),
            Some(two),
            Some(one)
        ]
    );
}

#[tokio::test]
async fn without_any_grace_a_crash_between_mark_and_removal_leaves_nothing() {
    let house = House::new().await;
    house.rule(|rules| rules.grace = 0);
    let layer = noise(10, LARGE);
    let digest = house.push(&layer).await;
    let old = house.file(&digest).await;
    // The mark alone: the process dies before it comes to the bytes.
    let collected = house
        .registry
        .meta
        .write(wharf_meta::candidate::Collect {
            due: house.registry.clock.now_ms(),
            limit: 25,
            at: house.registry.clock.now_ms(),
        })
        .await
        .unwrap();
    assert_eq!((collected.links, collected.blobs), (1, 1));
    assert!(old.exists() && !house.has(&digest).await);
    // The same bytes come again, under a key of their own.
    house.push(&layer).await;
    let new = house.file(&digest).await;
    assert_ne!(old, new);
    let mut after = None;
    while remove(&house.registry, &mut after).await.unwrap().0 != crate::job::Step::Done {}
    assert!(!old.exists() && new.exists());
    assert_eq!(house.content(&digest).await, layer);
    collect(&house).await;
    assert_eq!(files(&house), 0);
}

#[tokio::test]
async fn a_clock_that_leaps_or_a_long_absence_begins_every_grace_anew() {
    let house = House::new().await;
    let digest = house.push(&noise(11, LARGE)).await;
    awake(&house.registry).await.unwrap();
    house.clock.set(1_000 + 400 * DAY);
    collect(&house).await;
    assert!(house.has(&digest).await);
    let told = plan(&house.registry).await.unwrap().paused.unwrap();
    assert!(told.contains("clock"), "{told}");
    house.clock.advance(DAY);
    collect(&house).await;
    assert!(!house.has(&digest).await);

    let digest = house.push(&noise(12, LARGE)).await;
    awake(&house.registry).await.unwrap();
    // A process that begins after ten days.
    let folder = house.folder().to_owned();
    house.registry.meta.close().await;
    let again = House::open(&folder).await;
    again.clock.set(house.clock.now_ms() + 10 * DAY);
    let registry = &again.registry;
    // As if it had been opened at that time.
    registry.ages.older_than(&*registry.clock, DAY);
    awake(registry).await.unwrap();
    collect(&again).await;
    assert!(again.has(&digest).await);
}

#[tokio::test]
async fn nothing_goes_while_paused() {
    let house = House::new().await;
    let digest = house.push(&noise(13, LARGE)).await;
    pause(&house.registry.meta, "a backup was restored")
        .await
        .unwrap();
    house.clock.advance(2 * DAY);
    collect(&house).await;
    house.run::<Sweep>().await;
    house.run::<Recheck>().await;
    assert_eq!(files(&house), 1);
    resume(&house.registry).await.unwrap();
    collect(&house).await;
    assert!(!house.has(&digest).await);
    assert_eq!(files(&house), 0);
}

#[tokio::test]
async fn freeing_now_takes_all_that_nothing_needs_and_nothing_else() {
    let house = House::new().await;
    let (kept, _) = house.push_image("v1", &noise(14, LARGE)).await;
    let (gone, _) = house.push_image("v2", &noise(15, LARGE)).await;
    house.push(&noise(16, LARGE)).await;
    delete(&house, &gone).await;
    let freed = free_now(&house.registry, false).await.unwrap();
    assert_eq!(freed, Freed::default());
    let freed = free_now(&house.registry, true).await.unwrap();
    assert_eq!((freed.manifests, freed.blobs, freed.keys), (1, 2, 2));
    assert_eq!(freed.bytes, 2 * LARGE as u64);
    assert!(resolves(&house, kept.as_str()).await);
    assert_eq!(files(&house), 1);
}

#[tokio::test]
async fn the_recheck_leaves_what_is_needed() {
    let house = House::new().await;
    house.push_image("v1", &noise(17, LARGE)).await;
    house.clock.advance(2 * DAY);
    collect(&house).await;
    house.run::<Recheck>().await;
    assert!(resolves(&house, "v1").await);
}

#[tokio::test]
async fn the_recount_tells_what_is_shared() {
    let house = House::new().await;
    house.push_image("v1", &noise(17, LARGE)).await;
    house.clock.advance(2 * DAY);
    house.run::<crate::usage::Recount>().await;
    let sizes = wharf_meta::usage::Sizes {
        after: None,
        limit: 9,
    };
    let sizes = house.registry.meta.scan(sizes).await.unwrap();
    let usage = sizes[0].usage;
    assert_eq!(usage.blobs, 2);
    assert!(usage.logical > LARGE as u64 + 2 && usage.own == usage.logical);
    assert_eq!(sizes[0].at, Some(house.clock.now_ms()));

    // Another repository of the prefix, and one outside.
    let layer = Digest::of(wharf_oci::Algorithm::Sha256, &noise(17, LARGE));
    let sizes = async |mounted: &str| {
        let mount = rows::Mount {
            repository: wharf_oci::RepositoryName::parse(mounted).unwrap(),
            from: House::repository(),
            digest: layer.clone(),
            actor: "alice".into(),
            at: house.clock.now_ms(),
        };
        assert!(house.registry.meta.write(mount).await.unwrap());
        house.run::<crate::usage::Recount>().await;
        let limit = 9;
        let sizes = wharf_meta::usage::Sizes { after: None, limit };
        let sizes = house.registry.meta.scan(sizes).await.unwrap();
        let prefixes = house
            .registry
            .meta
            .scan(wharf_meta::usage::Largest { limit });
        (sizes, prefixes.await.unwrap())
    };
    let (sized, prefixes) = sizes("team/other").await;
    assert_eq!(sized[0].usage.own, usage.logical - LARGE as u64);
    assert_eq!(
        (sized[1].usage.logical, sized[1].usage.own),
        (LARGE as u64, 0)
    );
    let team = prefixes
        .iter()
        .find(|row| row.name == "team")
        .unwrap()
        .usage;
    assert_eq!(
        (team.logical, team.own),
        (usage.logical + LARGE as u64, usage.logical)
    );
    assert_eq!(team.blobs, 2);
    let (_, prefixes) = sizes("outside").await;
    let team = prefixes
        .iter()
        .find(|row| row.name == "team")
        .unwrap()
        .usage;
    assert_eq!(team.own, usage.logical - LARGE as u64);
}

#[tokio::test]
async fn the_sweep_takes_files_without_a_row_and_none_that_are_young() {
    let house = House::new().await;
    let kept = house.push(&noise(18, LARGE)).await;
    let stray = noise(19, LARGE);
    let digest = Digest::of(wharf_oci::Algorithm::Sha256, &stray);
    let key = wharf_blob::Key::fresh(&digest);
    house.registry.blobs.put(&key, stray.into()).await.unwrap();
    let made = i64::try_from(key.made_at().unwrap()).unwrap();
    house.clock.set(made + DAY - 1);
    house.run::<Sweep>().await;
    house.run::<Collect>().await;
    assert_eq!(files(&house), 2);
    // The clock was set, so a day has to pass for real.
    house.clock.set(made + 2 * DAY);
    house.run::<Sweep>().await;
    assert_eq!(files(&house), 2);
    house.rule(|rules| rules.grace = 400 * DAY);
    house.clock.advance(DAY);
    house.run::<Sweep>().await;
    house.run::<Collect>().await;
    assert_eq!(files(&house), 1);
    assert!(house.has(&kept).await);
}

#[tokio::test]
async fn a_blob_of_two_repositories_goes_with_the_last_one() {
    let house = House::new().await;
    let layer = noise(20, LARGE);
    let (digest, _) = house.push_image("v1", &layer).await;
    let other = wharf_oci::RepositoryName::parse("team/other").unwrap();
    let mount = rows::Mount {
        repository: other.clone(),
        from: House::repository(),
        digest: Digest::of(wharf_oci::Algorithm::Sha256, &layer),
        actor: "alice".into(),
        at: house.clock.now_ms(),
    };
    let layer_digest = mount.digest.clone();
    assert!(house.registry.meta.write(mount).await.unwrap());
    house.clock.advance(DAY);
    collect(&house).await;
    // Nobody used the mount.
    let unknown = blob::stat(&house.registry, &other, &layer_digest).await;
    assert!(
        matches!(unknown, Err(Error::BlobUnknown { .. })),
        "{unknown:?}"
    );
    assert!(house.has(&layer_digest).await);
    delete(&house, &digest).await;
    house.clock.advance(9 * DAY);
    collect(&house).await;
    house.clock.advance(9 * DAY);
    collect(&house).await;
    assert_eq!(files(&house), 0);
    let get = manifests::GetDeleted {
        repository: House::repository(),
        digest,
    };
    assert_eq!(house.registry.meta.read(get).await.unwrap(), None);
}

#[tokio::test]
async fn manifests_without_a_tag_go_only_where_that_is_wanted_and_can_come_back() {
    let house = House::new().await;
    let (old, _) = house.push_image("v1", &noise(30, LARGE)).await;
    let (new, _) = house.push_image("v1", &noise(31, LARGE)).await;
    house.clock.advance(30 * DAY);
    house.run::<Untagged>().await;
    assert!(resolves(&house, old.as_str()).await, "it is off");
    house.rule(|rules| rules.untagged = Some(2 * DAY));
    // Where something is about a manifest, that is no reason to keep the manifest; but it keeps what is about it.
    let about = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/x-signature",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": house.push(b"{}").await, "size": 2},
        "layers": [],
        "subject": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": new, "size": 1},
    });
    let signature = house.put(about.to_string(), "signature").await.unwrap();
    let tag = Tag::parse("signature").unwrap();
    crate::tag::delete(&house.registry, &House::repository(), &tag, "bob")
        .await
        .unwrap();
    house.clock.advance(2 * DAY - 1);
    house.run::<Untagged>().await;
    assert!(resolves(&house, signature.as_str()).await);
    assert!(!resolves(&house, old.as_str()).await && resolves(&house, new.as_str()).await);
    house.clock.advance(1);
    house.run::<Untagged>().await;
    assert!(
        resolves(&house, signature.as_str()).await,
        "its subject is there"
    );
    delete(&house, &new).await;
    house.clock.advance(2 * DAY);
    house.run::<Untagged>().await;
    assert!(!resolves(&house, signature.as_str()).await);
    restore::manifest(&house.registry, &House::repository(), &signature, "carol")
        .await
        .unwrap();
    assert!(resolves(&house, signature.as_str()).await);
}

/// An index of one child under a tag, with something about the child; all but the index have no tag.
async fn family(house: &House) -> (Digest, Digest, Digest) {
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let (child, bytes) = house.push_image("child", &noise(40, LARGE)).await;
    let tag = Tag::parse("child").unwrap();
    crate::tag::delete(&house.registry, &House::repository(), &tag, "bob")
        .await
        .unwrap();
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [{"mediaType": MANIFEST, "digest": child, "size": bytes.len()}],
    });
    let index = house.put_as(INDEX, index.to_string(), "v1").await.unwrap();
    let about = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": "application/x-signature",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": house.push(b"{}").await, "size": 2},
        "layers": [],
        "subject": {"mediaType": MANIFEST, "digest": child, "size": bytes.len()},
    });
    let about = about.to_string();
    let digest = Digest::of(wharf_oci::Algorithm::Sha256, about.as_bytes());
    let about = house.put(about, digest.as_str()).await.unwrap();
    (index, child, about)
}

/// Spec: REF-11.
#[tokio::test]
async fn children_and_what_is_about_them_stay_with_a_tagged_index_and_follow_it() {
    let house = House::new().await;
    house.rule(|rules| rules.untagged = Some(2 * DAY));
    let (index, child, about) = family(&house).await;
    let there = async |house: &House| {
        let mut there = Vec::new();
        for digest in [&index, &child, &about] {
            there.push(resolves(house, digest.as_str()).await);
        }
        there
    };
    let pass = async |house: &House, time| {
        house.clock.advance(time);
        house.run::<Untagged>().await;
        collect(house).await;
    };
    pass(&house, 3 * DAY).await;
    pass(&house, 3 * DAY).await;
    assert_eq!(there(&house).await, [true, true, true]);
    // Its tag goes, then it, then what it kept, then what that kept; each after its time.
    let tag = Tag::parse("v1").unwrap();
    crate::tag::delete(&house.registry, &House::repository(), &tag, "bob")
        .await
        .unwrap();
    for expected in [
        [false, true, true],
        [false, false, true],
        [false, false, false],
    ] {
        pass(&house, 2 * DAY).await;
        assert_eq!(there(&house).await, expected);
    }
    // All of them come back together, with their bytes.
    let restored = restore::manifest(&house.registry, &House::repository(), &index, "carol")
        .await
        .unwrap();
    assert_eq!(restored.others, 2);
    assert_eq!(there(&house).await, [true, true, true]);
    assert_eq!(files(&house), 1);
    let gone = Tag::parse("v1").unwrap();
    let back = restore::tag(&house.registry, &House::repository(), &gone, None, "carol").await;
    assert_eq!(back.unwrap().others, 0);
    // For good this time.
    crate::tag::delete(&house.registry, &House::repository(), &gone, "bob")
        .await
        .unwrap();
    for _ in 0..9 {
        pass(&house, 2 * DAY).await;
    }
    assert_eq!(there(&house).await, [false, false, false]);
    assert_eq!(files(&house), 0);
    let bytes = house.registry.meta.read(GetTotals).await.unwrap();
    assert_eq!((bytes.blobs, bytes.manifests), (0, 0));
}

/// What a client deleted before it deleted the index was not in the index any more, for those who pulled it.
#[tokio::test]
async fn a_restored_index_brings_nothing_back_that_went_before_it() {
    let house = House::new().await;
    let (index, child, about) = family(&house).await;
    delete(&house, &child).await;
    house.clock.advance(1);
    delete(&house, &about).await;
    delete(&house, &index).await;
    let restored = restore::manifest(&house.registry, &House::repository(), &index, "carol").await;
    assert_eq!(restored.unwrap().others, 0);
    assert!(!resolves(&house, child.as_str()).await);
}

/// Issue 5, section 5: nothing goes silently.
#[tokio::test]
async fn each_deletion_leaves_an_event_with_its_cause() {
    let house = House::new().await;
    let name = House::repository();
    let (old, _) = house.push_image("v1", &noise(40, LARGE)).await;
    let (new, _) = house.push_image("v1", &noise(41, LARGE)).await;
    let expected = |kind: &str, cause: &str| (kind.to_owned(), Some(cause.to_owned()));
    let last = async || causes(&house).await.pop().unwrap();
    // The overwrite is the last but one of what the push wrote, or the last.
    let overwritten = expected("tag.move", "pushed");
    assert_eq!(
        causes(&house)
            .await
            .iter()
            .filter(|one| **one == overwritten)
            .count(),
        2
    );
    house.rule(|rules| rules.untagged = Some(0));
    house.run::<Untagged>().await;
    assert_eq!(
        last().await,
        expected("manifest.delete", "nothing names it")
    );
    house.rule(|rules| rules.untagged = None);
    let (same, _) = house.push_image("v2", &noise(41, LARGE)).await;
    assert_eq!(same, new);
    crate::tag::delete(&house.registry, &name, &Tag::parse("v2").unwrap(), "bob")
        .await
        .unwrap();
    assert_eq!(last().await, expected("tag.delete", "deleted"));
    delete(&house, &new).await;
    let mut told = causes(&house).await;
    assert_eq!(told.pop().unwrap(), expected("manifest.delete", "deleted"));
    assert_eq!(
        told.pop().unwrap(),
        expected("tag.delete", "its manifest was deleted")
    );
    let layer = Digest::of(wharf_oci::Algorithm::Sha256, &noise(41, LARGE));
    delete_blob(&house, &layer).await;
    assert_eq!(last().await, expected("blob.delete", "deleted"));
    upload::create(&house.registry, &name, "alice", None)
        .await
        .unwrap();
    house.clock.advance(house.registry.limits.upload_age_ms + 1);
    house.run::<upload::Expire>().await;
    assert_eq!(
        last().await,
        expected("upload.expire", "nobody continued it")
    );
    house.clock.advance(7 * DAY);
    collect(&house).await;
    let over = expected("manifest.purge", "its time to be restored is over");
    assert_eq!(
        causes(&house)
            .await
            .iter()
            .filter(|one| **one == over)
            .count(),
        2
    );
    house.clock.advance(DAY);
    collect(&house).await;
    let told = causes(&house).await;
    for cause in ["deleted", "unreferenced"] {
        assert!(told.contains(&expected("blob.collect", cause)), "{told:?}");
    }
    assert!(!resolves(&house, old.as_str()).await && files(&house) == 0);

    let stray = noise(42, LARGE);
    let key = wharf_blob::Key::fresh(&Digest::of(wharf_oci::Algorithm::Sha256, &stray));
    house.registry.blobs.put(&key, stray.into()).await.unwrap();
    house
        .clock
        .set(i64::try_from(key.made_at().unwrap()).unwrap());
    // The leap is seen, and then two days pass.
    house.run::<Sweep>().await;
    house.clock.advance(2 * DAY);
    house.run::<Sweep>().await;
    assert_eq!(
        last().await,
        expected("blob.collect", "no row names these bytes")
    );

    let bad = noise(43, LARGE);
    let digest = house.push(&bad).await;
    std::fs::write(house.file(&digest).await, b"other").unwrap();
    house.run::<crate::scrub::Scrub>().await;
    let (kind, cause) = last().await;
    assert!(
        kind == "blob.condemn" && cause.is_some(),
        "{kind} {cause:?}"
    );
}
