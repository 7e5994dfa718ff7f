use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use tempfile::TempDir;
use wharf_blob::fault::Step;
use wharf_meta::blob as rows;
use wharf_oci::{Digest, Reference};

use super::verify as check;
use super::*;
use crate::house::{House, LARGE, noise};
use crate::{blob, manifest};

const EIO: i32 = 5;

async fn back_up(house: &House, to: &TempDir) -> Result<Copied> {
    create(&house.registry, to.path(), Content::Everything, &mut |_| ()).await
}

async fn sound(folder: &TempDir) -> Report {
    let report = check(folder.path(), &mut |_| ()).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.orphans, 0, "{report:?}");
    report
}

async fn restored(folder: &TempDir) -> (TempDir, House) {
    let data = tempfile::tempdir().unwrap();
    let copied = restore(folder.path(), data.path(), &mut |_| ())
        .await
        .unwrap();
    assert!(copied.missing.is_empty(), "{copied:?}");
    let house = House::open(data.path()).await;
    (data, house)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_was_backed_up_comes_back() {
    let house = House::new().await;
    let (layer, small) = (noise(1, 3 * LARGE), noise(2, 100));
    let (digest, bytes) = house.push_image("v1", &layer).await;
    let (layer_digest, small_digest) = (house.push(&layer).await, house.push(&small).await);
    let backup = tempfile::tempdir().unwrap();
    let copied = back_up(&house, &backup).await.unwrap();
    let expected = Copied {
        blobs: 1,
        bytes: layer.len() as u64,
        added: 1,
        ..Copied::default()
    };
    assert_eq!(copied, expected);
    let links = fs::metadata(house.file(&layer_digest).await)
        .unwrap()
        .nlink();
    assert_eq!(links, 1, "a backup shares no file with the registry");
    let report = sound(&backup).await;
    assert_eq!((report.blobs, report.manifests), (3, 1));
    drop(house);

    let (_data, house) = restored(&backup).await;
    assert_eq!(house.content(&layer_digest).await, layer);
    assert_eq!(house.content(&small_digest).await, small);
    let tag = Reference::parse("v1").unwrap();
    let found = manifest::get(&house.registry, &House::repository(), &tag, true).await;
    let found = found.unwrap();
    assert_eq!((&found.digest, &found.bytes), (&digest, &Some(bytes)));
    house.push(&noise(3, LARGE)).await;
    sound(&backup).await;
}

#[tokio::test]
async fn a_second_run_adds_what_is_new_and_removes_what_is_gone() {
    let house = House::new().await;
    let (stays, goes) = (
        house.push(&noise(1, LARGE)).await,
        house.push(&noise(2, LARGE)).await,
    );
    let backup = tempfile::tempdir().unwrap();
    assert_eq!(back_up(&house, &backup).await.unwrap().added, 2);
    let kept = backup.path().join(house.key(&stays).await.as_str());
    let before = fs::metadata(&kept).unwrap().ino();

    let new = house.push(&noise(3, LARGE)).await;
    let (row, key) = (house.row(&goes).await, house.key(&goes).await);
    let condemn = rows::Condemn {
        id: row.id,
        key: Some(key.to_string()),
        cause: "a test".into(),
        actor: "test".into(),
        at: 1,
    };
    assert!(house.registry.meta.write(condemn).await.unwrap());
    let copied = back_up(&house, &backup).await.unwrap();
    assert_eq!((copied.blobs, copied.added, copied.removed), (2, 1, 1));
    assert_eq!(fs::metadata(&kept).unwrap().ino(), before);
    assert!(!backup.path().join(key.as_str()).exists());
    sound(&backup).await;
    let nothing_new = back_up(&house, &backup).await.unwrap();
    assert_eq!((nothing_new.added, nothing_new.removed), (0, 0));

    let (_data, house) = restored(&backup).await;
    assert_eq!(house.content(&new).await, noise(3, LARGE));
    assert!(!house.has(&goes).await);
}

/// A push replaces a blob's file while the backup that named it has not come to it yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_the_backup_needs_goes_while_it_runs() {
    let house = House::new().await;
    let mut digests = Vec::new();
    for seed in 0..6 {
        digests.push(house.push(&noise(seed, LARGE)).await);
    }
    // What a push that heals does first: the same content under another key.
    let mut keys = Vec::new();
    for (seed, digest) in (0..).zip(&digests) {
        let key = Key::fresh(digest);
        let bytes = noise(seed, LARGE).into();
        house.registry.blobs.put(&key, bytes).await.unwrap();
        keys.push(key);
    }
    let backup = tempfile::tempdir().unwrap();
    // Longer than six pushes take on a busy machine.
    house
        .script
        .delay(Step::Write, 6, Duration::from_millis(500));
    let (copied, old) = tokio::join!(back_up(&house, &backup), async {
        while !backup.path().join("blob.half").exists() && names(backup.path()).len() < 4 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut old = Vec::new();
        for (digest, key) in digests.iter().zip(&keys) {
            old.push(house.file(digest).await);
            replace(&house, digest, key).await;
        }
        assert!(
            old.iter().all(|file| file.exists()),
            "removed under the backup"
        );
        old
    });
    let copied = copied.unwrap();
    assert_eq!((copied.blobs, copied.missing.len()), (6, 0));
    assert!(old.iter().all(|file| !file.exists()), "never removed");
    sound(&backup).await;
    let registry = &house.registry;
    let depth = Depth::default();
    let report = verify::verify(&registry.meta, &*registry.blobs, depth, 0, &mut |_| ()).await;
    assert_eq!(report.unwrap().orphans, 0);
}

/// And what it does then.
async fn replace(house: &House, digest: &Digest, key: &Key) {
    let registry = &house.registry;
    let bad = house.key(digest).await;
    let publish = rows::Publish {
        upload: None,
        repository: House::repository(),
        digest: digest.clone(),
        size: LARGE as u64,
        content: rows::Content::Key(key.to_string()),
        instead_of: Some(rows::Place::Key(bad.to_string())),
        actor: "alice".into(),
        at: 2,
    };
    match registry.meta.write(publish).await.unwrap() {
        rows::Published::Done {
            surplus: Some(old), ..
        } => blob::collect(registry, old).await,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_backup_that_breaks_off_is_gone_on_with() {
    let house = House::new().await;
    for seed in 0..4 {
        house.push(&noise(seed, LARGE)).await;
    }
    let backup = tempfile::tempdir().unwrap();
    house.script.fail(Step::Write, 2, 1, EIO);
    back_up(&house, &backup).await.unwrap_err();
    let unfinished = check(backup.path(), &mut |_| ()).await;
    assert!(
        matches!(unfinished, Err(BackupError::Unfinished { .. })),
        "{unfinished:?}"
    );
    let data = tempfile::tempdir().unwrap();
    let unfinished = restore(backup.path(), data.path(), &mut |_| ()).await;
    assert!(
        matches!(unfinished, Err(BackupError::Unfinished { .. })),
        "{unfinished:?}"
    );
    // What a kill leaves, at each of its moments.
    fs::write(backup.path().join("blob.half"), "half").unwrap();
    fs::create_dir(backup.path().join("scratch")).unwrap();
    fs::write(backup.path().join("scratch/wharf.db"), "half").unwrap();
    let copied = back_up(&house, &backup).await.unwrap();
    assert_eq!((copied.blobs, copied.added), (4, 2));
    sound(&backup).await;
    let left = ["blobs", "lock", "uploads", "wharf-backup.json", "wharf.db"];
    assert_eq!(names(backup.path()), left);
}

#[tokio::test]
async fn damage_in_a_backup_is_found_and_mended_by_the_next_run() {
    let house = House::new().await;
    let (cut, gone, flipped) = (
        house.push(&noise(1, LARGE)).await,
        house.push(&noise(2, LARGE)).await,
        house.push(&noise(3, LARGE)).await,
    );
    let backup = tempfile::tempdir().unwrap();
    back_up(&house, &backup).await.unwrap();
    let mut files = Vec::new();
    for digest in [&cut, &gone, &flipped] {
        files.push(backup.path().join(house.key(digest).await.as_str()));
    }
    fs::write(&files[0], "short").unwrap();
    fs::remove_file(&files[1]).unwrap();
    let mut bytes = noise(3, LARGE);
    bytes[77] ^= 4;
    fs::write(&files[2], bytes).unwrap();
    let report = check(backup.path(), &mut |_| ()).await.unwrap();
    assert_eq!(report.bad, 3, "{report:?}");
    // Of a flipped bit the next run knows nothing; whoever reads the report removes the file.
    fs::remove_file(&files[2]).unwrap();
    assert_eq!(back_up(&house, &backup).await.unwrap().added, 3);
    sound(&backup).await;
}

#[tokio::test]
async fn blobs_that_the_registry_has_lost_are_named() {
    let house = House::new().await;
    let (lost, short) = (
        house.push(&noise(1, LARGE)).await,
        house.push(&noise(2, LARGE)).await,
    );
    let good = house.push(&noise(3, LARGE)).await;
    fs::remove_file(house.file(&lost).await).unwrap();
    fs::write(house.file(&short).await, "short").unwrap();
    let backup = tempfile::tempdir().unwrap();
    let copied = back_up(&house, &backup).await.unwrap();
    let mut expected = [lost.to_string(), short.to_string()];
    expected.sort();
    let mut missing = copied.missing;
    missing.sort();
    assert_eq!(missing, expected);
    assert_eq!((copied.blobs, copied.added), (1, 1));
    assert!(backup.path().join(house.key(&good).await.as_str()).exists());
    assert!(
        !backup
            .path()
            .join(house.key(&short).await.as_str())
            .exists()
    );
}

#[tokio::test]
async fn sessions_and_their_bytes_are_not_backed_up() {
    let house = House::new().await;
    for _ in 0..3 {
        let create = upload::Create {
            id: wharf_blob::UploadId::random().to_string(),
            repository: House::repository(),
            owner: "alice".into(),
            algorithm: None,
            at: 1,
        };
        house.registry.meta.write(create).await.unwrap();
    }
    let backup = tempfile::tempdir().unwrap();
    back_up(&house, &backup).await.unwrap();
    let open = |house: &House| {
        let expired = upload::Expired {
            touched_before: i64::MAX,
            limit: 10,
        };
        let meta = house.registry.meta.clone();
        async move { meta.scan(expired).await.unwrap().len() }
    };
    assert_eq!(open(&house).await, 3);
    let (_data, again) = restored(&backup).await;
    assert_eq!(open(&again).await, 0);
}

#[tokio::test]
async fn folders_that_hold_something_else_are_left_alone() {
    let house = House::new().await;
    house.push(&noise(1, LARGE)).await;
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("letter"), "dear").unwrap();
    let refused = back_up(&house, &other).await;
    assert!(
        matches!(refused, Err(BackupError::NotABackup { .. })),
        "{refused:?}"
    );
    assert_eq!(names(other.path()), ["letter"]);
    let refused = create(
        &house.registry,
        house.folder(),
        Content::Everything,
        &mut |_| (),
    )
    .await;
    assert!(
        matches!(refused, Err(BackupError::NotABackup { .. })),
        "{refused:?}"
    );

    let backup = tempfile::tempdir().unwrap();
    back_up(&house, &backup).await.unwrap();
    let refused = restore(backup.path(), other.path(), &mut |_| ()).await;
    assert!(
        matches!(refused, Err(BackupError::NotEmpty { .. })),
        "{refused:?}"
    );
    assert_eq!(names(other.path()), ["letter"]);
    let refused = restore(backup.path(), house.folder(), &mut |_| ()).await;
    assert!(
        matches!(refused, Err(BackupError::NotEmpty { .. })),
        "{refused:?}"
    );
    let refused = restore(other.path(), &other.path().join("new"), &mut |_| ()).await;
    assert!(
        matches!(refused, Err(BackupError::NotABackup { .. })),
        "{refused:?}"
    );
    assert!(!other.path().join("new").exists());

    let marker = backup.path().join("wharf-backup.json");
    fs::write(marker, r#"{"format": 99}"#).unwrap();
    let refused = check(backup.path(), &mut |_| ()).await;
    assert!(
        matches!(refused, Err(BackupError::Format { found: 99, .. })),
        "{refused:?}"
    );
}

#[tokio::test]
async fn two_backups_into_one_folder_do_not_mix() {
    let house = House::new().await;
    house.push(&noise(1, LARGE)).await;
    let backup = tempfile::tempdir().unwrap();
    house
        .script
        .delay(Step::Write, 1, Duration::from_millis(200));
    let second = async {
        while !backup.path().join("scratch").exists() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        back_up(&house, &backup).await
    };
    let (first, second) = tokio::join!(back_up(&house, &backup), second);
    first.unwrap();
    assert!(
        matches!(second, Err(BackupError::InUse { .. })),
        "{second:?}"
    );
    sound(&backup).await;
}

#[tokio::test]
async fn a_restore_that_breaks_off_is_gone_on_with_and_a_damaged_database_is_refused() {
    let house = House::new().await;
    let digest = house.push(&noise(1, LARGE)).await;
    let backup = tempfile::tempdir().unwrap();
    back_up(&house, &backup).await.unwrap();
    let database = backup.path().join(DATABASE);
    let whole = fs::read(&database).unwrap();
    let mut broken = whole.clone();
    for byte in broken.iter_mut().skip(4096).step_by(7).take(9_000) {
        *byte ^= 0x55;
    }
    fs::write(&database, broken).unwrap();
    let data = tempfile::tempdir().unwrap();
    let refused = restore(backup.path(), data.path(), &mut |_| ()).await;
    assert!(
        matches!(
            refused,
            Err(BackupError::Damaged { .. } | BackupError::Meta(_))
        ),
        "{refused:?}"
    );
    assert!(!data.path().join(DATABASE).exists());
    fs::write(&database, whole).unwrap();
    restore(backup.path(), data.path(), &mut |_| ())
        .await
        .unwrap();
    let house = House::open(data.path()).await;
    assert_eq!(house.content(&digest).await, noise(1, LARGE));
    assert!(!data.path().join(RESTORING).exists());
}

#[test]
fn databases_are_worked_on_elsewhere_where_the_backup_cannot_be_written() {
    let scratch = Scratch::for_folder(Path::new("/proc")).unwrap();
    let database = scratch.database();
    assert!(
        database.starts_with(std::env::temp_dir()),
        "{}",
        database.display()
    );
    fs::write(&database, "x").unwrap();
    drop(scratch);
    assert!(!database.parent().unwrap().exists());
}

#[tokio::test]
async fn a_restore_verifies_what_it_copies_and_names_what_is_damaged() {
    let house = House::new().await;
    let (good, flipped) = (
        house.push(&noise(1, LARGE)).await,
        house.push(&noise(2, LARGE)).await,
    );
    let backup = tempfile::tempdir().unwrap();
    back_up(&house, &backup).await.unwrap();
    let file = backup.path().join(house.key(&flipped).await.as_str());
    let mut bytes = noise(2, LARGE);
    bytes[1_234] ^= 1;
    fs::write(&file, bytes).unwrap();
    let data = tempfile::tempdir().unwrap();
    let copied = restore(backup.path(), data.path(), &mut |_| ())
        .await
        .unwrap();
    assert_eq!(copied.missing, [flipped.to_string()]);
    let house = House::open(data.path()).await;
    assert_eq!(house.content(&good).await, noise(1, LARGE));
    assert!(!house.has(&flipped).await, "never wrong bytes");
    house.push(&noise(2, LARGE)).await;
    assert_eq!(house.content(&flipped).await, noise(2, LARGE), "healed");
}

#[tokio::test]
async fn a_backup_takes_no_damaged_bytes() {
    let house = House::new().await;
    let flipped = house.push(&noise(2, LARGE)).await;
    let mut bytes = noise(2, LARGE);
    bytes[1_234] ^= 1;
    fs::write(house.file(&flipped).await, bytes).unwrap();
    let backup = tempfile::tempdir().unwrap();
    let copied = back_up(&house, &backup).await.unwrap();
    assert_eq!(copied.missing, [flipped.to_string()]);
    assert_eq!((copied.blobs, copied.added), (0, 0));
}

/// Of the metadata alone: small blobs are part of it, files are not, and the folder takes nothing else from then on.
#[tokio::test]
async fn the_metadata_alone_leaves_blobs_where_they_are() {
    let house = House::new().await;
    house.push_image("v1", &noise(1, 3 * LARGE)).await;
    let backup = tempfile::tempdir().unwrap();
    let only = Content::Metadata;
    let copied = create(&house.registry, backup.path(), only, &mut |_| ()).await;
    assert_eq!(copied.unwrap(), Copied::default());
    assert!(!backup.path().join("blobs").exists());
    assert_eq!(content(backup.path()).unwrap(), only);
    let report = check(backup.path(), &mut |_| ()).await.unwrap();
    assert!(report.is_sound() && report.manifests == 1, "{report:?}");

    let refused = back_up(&house, &backup).await.unwrap_err();
    assert!(
        refused
            .to_string()
            .ends_with("holds a backup of the metadata alone; choose another folder"),
        "{refused}"
    );
    let whole = tempfile::tempdir().unwrap();
    back_up(&house, &whole).await.unwrap();
    assert_eq!(content(whole.path()).unwrap(), Content::Everything);
    let refused = create(&house.registry, whole.path(), only, &mut |_| ()).await;
    assert!(
        matches!(refused, Err(BackupError::Other { .. })),
        "{refused:?}"
    );

    let data = tempfile::tempdir().unwrap();
    let copied = restore(backup.path(), data.path(), &mut |_| ()).await;
    assert_eq!(copied.unwrap(), Copied::default());
    assert!(data.path().join(DATABASE).is_file() && !data.path().join("blobs").exists());

    // Bytes of the database that are not what they were are found without a blob.
    let file = backup.path().join(DATABASE);
    let mut bytes = fs::read(&file).unwrap();
    let end = bytes.len();
    bytes[end / 2..end / 2 + 4096].fill(0x55);
    fs::write(&file, bytes).unwrap();
    match check(backup.path(), &mut |_| ()).await {
        Ok(report) => assert!(!report.is_sound(), "{report:?}"),
        Err(error) => assert!(error.to_string().contains("damaged"), "{error}"),
    }
}
