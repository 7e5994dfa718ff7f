use std::path::Path;

use wharf_blob::UploadId;
use wharf_blob::fault::Step;

use super::*;
use crate::house::{House, LARGE, noise};

const SHALLOW: Depth = Depth {
    deep: false,
    condemn: true,
};
const DEEP: Depth = Depth {
    deep: true,
    condemn: true,
};

async fn run(house: &House, depth: Depth) -> Report {
    let registry = &house.registry;
    let mut heard = None;
    let mut progress = |report: &Report| heard = Some(report.clone());
    let report = verify(&registry.meta, &*registry.blobs, depth, 5, &mut progress)
        .await
        .unwrap();
    assert_eq!(heard, Some(report.clone()), "the end was not told");
    report
}

fn bad(report: &Report) -> Vec<Digest> {
    let findings = report.findings.iter();
    findings.map(|finding| finding.digest.clone()).collect()
}

fn flip_a_bit(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[tokio::test]
async fn a_sound_store_is_found_sound() {
    let house = House::new().await;
    house.push_image("v1", &noise(1, LARGE)).await;
    for depth in [SHALLOW, DEEP] {
        let report = run(&house, depth).await;
        assert!(report.is_sound(), "{report:?}");
        assert_eq!((report.blobs, report.manifests), (2, 1));
        assert_eq!(report.bytes, LARGE as u64 + 2);
        assert_eq!((report.orphans, report.strays.len()), (0, 0));
    }
}

#[tokio::test]
async fn lost_and_short_files_are_condemned_and_the_next_push_heals_them() {
    let house = House::new().await;
    let (lost, short) = (noise(1, LARGE), noise(2, LARGE));
    let (lost_digest, short_digest) = (house.push(&lost).await, house.push(&short).await);
    let good = house.push(&noise(3, LARGE)).await;
    std::fs::remove_file(house.file(&lost_digest).await).unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(house.file(&short_digest).await);
    file.unwrap().set_len(LARGE as u64 - 1).unwrap();

    let look_only = Depth::default();
    let report = run(&house, look_only).await;
    let mut found = bad(&report);
    found.sort();
    let mut expected = [lost_digest.clone(), short_digest.clone()];
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(run(&house, SHALLOW).await.bad, 2, "looking condemned");
    assert_eq!(run(&house, SHALLOW).await.bad, 0, "not condemned");
    assert!(house.has(&good).await);
    for (digest, bytes) in [(lost_digest, lost), (short_digest, short)] {
        assert!(!house.has(&digest).await);
        house.push(&bytes).await;
        assert!(house.has(&digest).await);
        assert_eq!(house.content(&digest).await, bytes);
    }
    let report = run(&house, DEEP).await;
    assert!(report.is_sound(), "{report:?}");
}

#[tokio::test]
async fn a_flipped_bit_is_found_by_a_deep_look_alone() {
    let house = House::new().await;
    let bytes = noise(1, LARGE);
    let digest = house.push(&bytes).await;
    let good = house.push(&noise(2, LARGE)).await;
    flip_a_bit(&house.file(&digest).await);
    assert!(run(&house, SHALLOW).await.is_sound());
    assert!(house.has(&digest).await);
    let report = run(&house, DEEP).await;
    assert_eq!(bad(&report), std::slice::from_ref(&digest));
    assert!(report.findings[0].what.contains("hash to"), "{report:?}");
    assert!(!house.has(&digest).await);
    assert!(house.has(&good).await);
    house.push(&bytes).await;
    assert_eq!(house.content(&digest).await, bytes);
}

#[tokio::test]
async fn wrong_bytes_in_the_database_are_found_too() {
    let house = House::new().await;
    let digest = house.push(b"right").await;
    let wrong = rows::Publish {
        upload: None,
        repository: House::repository(),
        digest: digest.clone(),
        size: 5,
        content: rows::Content::Inline(b"wrong".to_vec()),
        instead_of: Some(rows::Place::Inline(None)),
        actor: "alice".into(),
        at: 1,
    };
    house.registry.meta.write(wrong).await.unwrap();
    assert!(run(&house, SHALLOW).await.is_sound());
    let found = bad(&run(&house, DEEP).await);
    assert_eq!(found, std::slice::from_ref(&digest));
    house.push(b"right").await;
    assert_eq!(house.content(&digest).await, b"right");
}

/// Too many open files, no memory: the blob may be perfect.
#[tokio::test]
async fn what_could_not_be_looked_at_is_reported_and_not_condemned() {
    const EMFILE: i32 = 24;
    let house = House::new().await;
    let digest = house.push(&noise(1, LARGE)).await;
    house.script.fail(Step::Read, 0, 2, EMFILE);
    let report = run(&house, DEEP).await;
    assert_eq!(bad(&report), std::slice::from_ref(&digest));
    assert!(house.has(&digest).await);
    assert!(run(&house, DEEP).await.is_sound());
}

#[tokio::test]
async fn an_unreadable_sector_is_proof_when_it_is_so_twice() {
    const EIO: i32 = 5;
    let house = House::new().await;
    let bytes = noise(1, LARGE);
    let digest = house.push(&bytes).await;
    house.script.fail(Step::Read, 0, 1, EIO);
    assert!(run(&house, DEEP).await.is_sound());
    house.script.fail(Step::Read, 0, 2, EIO);
    assert_eq!(run(&house, DEEP).await.bad, 1);
    assert!(!house.has(&digest).await);
    house.push(&bytes).await;
    assert!(house.has(&digest).await);
}

/// An unmounted disk must not cost every blob its row.
#[tokio::test]
async fn when_most_is_gone_nothing_is_condemned() {
    let house = House::new().await;
    let mut digests = Vec::new();
    for seed in 0..24 {
        digests.push(house.push(&noise(seed, LARGE)).await);
    }
    let (blobs, away) = (house.folder().join("blobs"), house.folder().join("away"));
    std::fs::rename(&blobs, &away).unwrap();
    let report = run(&house, SHALLOW).await;
    assert_eq!((report.bad, report.withheld), (24, 24));
    std::fs::rename(&away, &blobs).unwrap();
    assert!(run(&house, DEEP).await.is_sound());

    // A part of it, though, is a part of it.
    for digest in &digests[..11] {
        std::fs::remove_file(house.file(digest).await).unwrap();
    }
    let report = run(&house, SHALLOW).await;
    assert_eq!((report.bad, report.withheld), (11, 0));
    for (at, digest) in digests.iter().enumerate() {
        assert_eq!(house.has(digest).await, at >= 11);
    }
}

#[tokio::test]
async fn a_blob_that_was_healed_while_it_was_looked_at_is_sound() {
    let house = House::new().await;
    let bytes = noise(1, LARGE);
    let digest = house.push(&bytes).await;
    let stale = house.row(&digest).await;
    std::fs::remove_file(house.file(&digest).await).unwrap();
    house.push(&bytes).await;
    assert_ne!(house.row(&digest).await.place, stale.place);
    let registry = &house.registry;
    let judged = judge(&registry.meta, &*registry.blobs, stale, true).await;
    assert!(judged.unwrap().is_none());
}

#[tokio::test]
async fn files_without_a_row_are_named_and_sessions_are_left_alone() {
    let house = House::new().await;
    let blobs = &house.registry.blobs;
    let orphan = Key::fresh(&Digest::of(wharf_oci::Algorithm::Sha256, b"orphan"));
    blobs.put(&orphan, b"orphan"[..].into()).await.unwrap();
    let (stale, session) = (UploadId::random(), UploadId::random());
    for id in [stale, session] {
        let start = wharf_blob::Checkpoint::START;
        let algorithm = wharf_oci::Algorithm::Sha256;
        let ledger: std::sync::Arc<dyn wharf_blob::Ledger> =
            std::sync::Arc::new(wharf_blob::NoLedger);
        let writer = blobs.upload(&id, &start, algorithm, &ledger);
        let mut writer = writer.await.unwrap();
        writer.write(b"some"[..].into()).await.unwrap();
        writer.sync().await.unwrap();
    }
    let create = upload::Create {
        id: session.to_string(),
        repository: House::repository(),
        owner: "alice".into(),
        algorithm: None,
        at: 1,
    };
    house.registry.meta.write(create).await.unwrap();
    std::fs::write(house.folder().join("blobs/README"), "?").unwrap();

    let report = run(&house, SHALLOW).await;
    assert!(report.is_sound());
    assert_eq!((report.orphans, report.orphan_bytes), (2, 10));
    let mut names = report.orphan_names;
    names.sort();
    assert_eq!(names, [orphan.to_string(), format!("uploads/{stale}")]);
    assert_eq!(report.strays, ["blobs/README"]);
}

#[tokio::test]
async fn a_manifest_with_other_bytes_is_found() {
    let house = House::new().await;
    let digest = Digest::of(wharf_oci::Algorithm::Sha256, b"as it was");
    let put = manifest::Put {
        repository: House::repository(),
        digest: digest.clone(),
        media_type: "application/vnd.oci.image.manifest.v1+json".into(),
        bytes: b"as it is".to_vec(),
        edges: Vec::new(),
        pinned: 0,
        check_sizes: false,
        subject: None,
        artifact_type: None,
        referrer_json: None,
        tags: Vec::new(),
        fixed: Vec::new(),
        unmade: Vec::new(),
        expect: manifest::Expect::Any,
        actor: "alice".into(),
        at: 1,
    };
    house.registry.meta.write(put).await.unwrap();
    let report = run(&house, SHALLOW).await;
    assert_eq!(bad(&report), [digest]);
    assert!(report.findings[0].what.contains("team/app"), "{report:?}");
}
