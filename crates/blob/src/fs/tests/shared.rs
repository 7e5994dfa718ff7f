//! Several processes over one folder: whatever one that was left behind still does, it does to files of its own.

use super::*;
use crate::store::UploadWriter;

/// Two stores over one folder, as two processes have them: they know nothing of each other's fences.
struct Two {
    dir: TempDir,
    one: Fs,
    other: Fs,
}

fn process(dir: &TempDir) -> Fs {
    let options = FsOptions {
        threads: 2,
        shared: true,
        ..FsOptions::new(dir.path())
    };
    Fs::open(options).unwrap()
}

impl Two {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (process(&dir), process(&dir));
        Self { dir, one, other }
    }

    /// Epochs that have files.
    fn files(&self, id: &UploadId) -> Vec<String> {
        let folder = self.dir.path().join(engine::upload_path(id));
        let entries = std::fs::read_dir(folder).into_iter().flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

async fn at(store: &Fs, id: &UploadId, from: &Checkpoint, epoch: i64) -> Box<dyn UploadWriter> {
    let from = Checkpoint {
        epoch,
        ..from.clone()
    };
    store.upload(id, &from, Algorithm::Sha256).await.unwrap()
}

async fn holds(store: &Fs, key: &Key, bytes: &[u8]) {
    let blob = store.open(key, bytes.len() as u64).await.unwrap();
    let mut stream = blob.stream(0..blob.len());
    let mut read = Vec::new();
    while let Some(piece) = stream.next().await {
        read.extend_from_slice(&piece.unwrap());
    }
    assert!(read == bytes, "other bytes under {key}");
}

fn noise(seed: u8, length: usize) -> Bytes {
    let mut state = u32::from(seed) + 1;
    let bytes = (0..length).map(|_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    bytes.collect()
}

/// The one is frozen while it writes, after it wrote and before it publishes; the other goes on from what is claimed, with other
/// bytes, and publishes. Then the one wakes up and does all it can.
#[tokio::test]
async fn a_process_that_was_left_behind_changes_nothing() {
    let two = Two::new();
    let id = UploadId::random();
    let claimed = noise(1, 3_000_000);
    let mut left = at(&two.one, &id, &Checkpoint::START, 0).await;
    left.write(claimed.clone()).await.unwrap();
    let checkpoint = left.sync().await.unwrap();
    // Beyond the claim, some of it on the disk.
    left.write(noise(2, 5_000_000)).await.unwrap();

    let mut right = at(&two.other, &id, &checkpoint, 1).await;
    assert_eq!(two.files(&id), ["0.0", "1.3000000"]);
    let rest = noise(3, 4_000_000);
    right.write(rest.slice(..1_000_000)).await.unwrap();
    left.write(noise(4, 2_000_000)).await.unwrap();
    left.sync().await.unwrap();
    right.write(rest.slice(1_000_000..)).await.unwrap();
    let whole = [&claimed[..], &rest[..]].concat();
    let (digest, size) = right.finish(Algorithm::Sha256).await.unwrap();
    assert_eq!(digest, Digest::of(Algorithm::Sha256, &whole));
    assert_eq!(size, whole.len() as u64);
    let key = right.publish(&digest).await.unwrap();
    holds(&two.one, &key, &whole).await;

    left.write(noise(5, 2_000_000)).await.unwrap();
    left.sync().await.unwrap();
    let (digest, _) = left.finish(Algorithm::Sha256).await.unwrap();
    // Its row refuses it; what it has published by then is what the digest says.
    let late = left.publish(&digest).await.unwrap();
    let sent = [
        &claimed[..],
        &noise(2, 5_000_000),
        &noise(4, 2_000_000),
        &noise(5, 2_000_000),
    ];
    holds(&two.other, &late, &sent.concat()).await;
    drop(left);
    drop(right);
    two.other.discard(&id).await.unwrap();
    holds(&two.one, &key, &whole).await;
    assert!(two.files(&id).is_empty());
    assert!(!two.dir.path().join(engine::upload_path(&id)).exists());
}

/// Chunks of one upload arrive at any process in turn, some of them in vain; in the end it is whole, by whichever digest.
#[tokio::test]
async fn chunks_arrive_at_any_process_in_turn() {
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let two = Two::new();
        let id = UploadId::random();
        let mut claimed = Checkpoint::START;
        let mut whole = Vec::new();
        let sizes = [1_200_000, 5, 4_096, 3_000_001, 0, 2_097_152, 77];
        for (turn, size) in (0..).zip(sizes) {
            let store = if turn % 2 == 0 { &two.one } else { &two.other };
            // One that nothing came of.
            let mut vain = at(store, &id, &claimed, 2 * i64::from(turn)).await;
            vain.write(noise(99, 700_000)).await.unwrap();
            drop(vain);
            let mut writer = at(store, &id, &claimed, 2 * i64::from(turn) + 1).await;
            let bytes = noise(turn, size);
            writer.write(bytes.clone()).await.unwrap();
            whole.extend_from_slice(&bytes);
            claimed = writer.sync().await.unwrap();
        }
        assert_eq!(claimed.offset, whole.len() as u64);
        // A digest that was not meant ends nothing: the bytes behind the claim go, and the rest is there.
        let mut wrong = at(&two.one, &id, &claimed, 99).await;
        wrong.write(noise(1, 1_500_000)).await.unwrap();
        wrong.finish(algorithm).await.unwrap();
        drop(wrong);
        let mut last = at(&two.one, &id, &claimed, 99).await;
        let end = noise(100, 1_000);
        last.write(end.clone()).await.unwrap();
        whole.extend_from_slice(&end);
        let (digest, size) = last.finish(algorithm).await.unwrap();
        assert_eq!(
            (&digest, size),
            (&Digest::of(algorithm, &whole), whole.len() as u64)
        );
        let key = last.publish(&digest).await.unwrap();
        drop(last);
        two.other.discard(&id).await.unwrap();
        holds(&two.other, &key, &whole).await;
        assert!(two.files(&id).is_empty());
    }
}

/// The one has finished, and is frozen before it publishes: what it publishes then is what it was sent.
#[tokio::test]
async fn what_is_published_late_is_what_its_digest_says() {
    let two = Two::new();
    let id = UploadId::random();
    let bytes = noise(1, 2_500_000);
    let mut left = at(&two.one, &id, &Checkpoint::START, 0).await;
    left.write(bytes.clone()).await.unwrap();
    let (digest, _) = left.finish(Algorithm::Sha256).await.unwrap();

    // Nothing is claimed, so the other begins anew.
    let mut right = at(&two.other, &id, &Checkpoint::START, 1).await;
    right.write(noise(2, 1_200_000)).await.unwrap();
    right.sync().await.unwrap();
    assert_eq!(two.files(&id), ["0.0", "1.0"]);
    let key = left.publish(&digest).await.unwrap();
    right.write(noise(3, 1_200_000)).await.unwrap();
    right.sync().await.unwrap();
    holds(&two.other, &key, &bytes).await;
}

/// A client that vanished leaves no file; one that another process writes for stays.
#[tokio::test]
async fn what_nobody_wants_goes_alone() {
    let two = Two::new();
    let id = UploadId::random();
    let folder = two.dir.path().join(engine::upload_path(&id));
    let mut left = at(&two.one, &id, &Checkpoint::START, 0).await;
    left.write(noise(1, 1_500_000)).await.unwrap();
    let mut right = at(&two.other, &id, &Checkpoint::START, 1).await;
    right.write(noise(2, 1_500_000)).await.unwrap();
    drop(left);
    let until = Instant::now() + Duration::from_secs(10);
    while two.files(&id) != ["1.0"] {
        assert!(Instant::now() < until, "{:?}", two.files(&id));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    right.write(noise(3, 1_500_000)).await.unwrap();
    let checkpoint = right.sync().await.unwrap();
    drop(right);
    // It goes on where it stood, also under the same epoch.
    let mut again = at(&two.other, &id, &checkpoint, 1).await;
    again.write(noise(4, 10)).await.unwrap();
    again.sync().await.unwrap();
    drop(again);
    two.one.discard(&id).await.unwrap();
    assert!(!folder.exists());
    // And a vanished client's folder goes with its file.
    let mut left = at(&two.one, &id, &Checkpoint::START, 2).await;
    left.write(noise(5, 1_500_000)).await.unwrap();
    drop(left);
    while folder.exists() {
        assert!(Instant::now() < until, "the folder stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A copy that broke off is no file of its epoch: the next one makes it of the same bytes.
#[tokio::test]
async fn a_join_that_broke_off_is_done_again() {
    let two = Two::new();
    let id = UploadId::random();
    let bytes = noise(1, 2_000_000);
    let mut left = at(&two.one, &id, &Checkpoint::START, 0).await;
    left.write(bytes.clone()).await.unwrap();
    let checkpoint = left.sync().await.unwrap();
    drop(left);
    let folder = two.dir.path().join(engine::upload_path(&id));
    std::fs::write(folder.join("1.0.copy"), b"half of it").unwrap();
    let mut right = at(&two.other, &id, &checkpoint, 2).await;
    let (digest, _) = right.finish(Algorithm::Sha256).await.unwrap();
    assert_eq!(digest, Digest::of(Algorithm::Sha256, &bytes));
    let key = right.publish(&digest).await.unwrap();
    holds(&two.one, &key, &bytes).await;
    two.other.discard(&id).await.unwrap();
    assert!(!folder.exists());
}

/// Bytes that are gone are told of, at the latest when the upload ends.
#[tokio::test]
async fn a_folder_without_the_claimed_bytes_is_an_upload_lost() {
    let two = Two::new();
    let id = UploadId::random();
    let from = Checkpoint {
        offset: 10,
        hash: crate::hash::Hasher::new(Algorithm::Sha256).save(),
        epoch: 3,
        ..Checkpoint::START
    };
    let lost = async || {
        let ended = match two.one.upload(&id, &from, Algorithm::Sha256).await {
            Ok(mut writer) => writer.finish(Algorithm::Sha256).await.map(drop),
            Err(error) => Err(error),
        };
        assert!(matches!(ended, Err(Error::UploadLost)), "{ended:?}");
    };
    lost().await;
    let folder = two.dir.path().join(engine::upload_path(&id));
    std::fs::create_dir_all(&folder).unwrap();
    lost().await;
    std::fs::write(folder.join("2.0"), b"short").unwrap();
    lost().await;
    std::fs::remove_file(folder.join("2.0")).unwrap();
    std::fs::write(folder.join("2.5"), b"without a beginning").unwrap();
    lost().await;
    std::fs::remove_dir_all(&folder).unwrap();
    // From a time when the folder was not shared.
    std::fs::write(&folder, vec![0; 100]).unwrap();
    lost().await;
    two.one.discard(&id).await.unwrap();
    assert!(!folder.exists());
}
