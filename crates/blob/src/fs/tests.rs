//! What only files can show: faults, folders, clients that vanish.

mod dropped;
mod shared;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wharf_oci::Digest;

use dropped::poll_some;

use super::*;
use crate::BUFFER;
use crate::fault::{Fault, Script, Step};
use crate::store::AHEAD_OF_ALL;

const ENOSPC: i32 = 28;
const EIO: i32 = 5;
const EPERM: i32 = 1;

pub(super) struct House {
    pub(super) dir: TempDir,
    pub(super) store: Fs,
    pub(super) script: Arc<Script>,
}

impl House {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let script = Arc::new(Script::new());
        let store = Fs::open(FsOptions {
            threads: 2,
            fault: Some(script.clone()),
            ..FsOptions::new(dir.path())
        });
        Self {
            store: store.unwrap(),
            dir,
            script,
        }
    }

    async fn writer(&self, id: &UploadId) -> Box<dyn UploadWriter> {
        self.resume(id, &Checkpoint::START).await.unwrap()
    }

    async fn resume(&self, id: &UploadId, from: &Checkpoint) -> Result<Box<dyn UploadWriter>> {
        self.store.upload(id, from, Algorithm::Sha256).await
    }

    /// A finished upload that somebody may come back for, and the key it shall get.
    async fn finished(&self, bytes: &Bytes) -> (UploadId, Key) {
        let id = UploadId::random();
        let mut writer = self.writer(&id).await;
        writer.write(bytes.clone()).await.unwrap();
        writer.sync().await.unwrap();
        let (digest, _) = writer.finish(Algorithm::Sha256).await.unwrap();
        (id, Key::fresh(&digest))
    }

    pub(super) async fn blob(&self, bytes: &Bytes) -> (Key, Blob) {
        let (id, key) = self.finished(bytes).await;
        self.store.publish(&id, &key).await.unwrap();
        self.store.discard(&id).await.unwrap();
        let blob = self.store.open(&key, bytes.len() as u64).await.unwrap();
        (key, blob)
    }

    fn path(&self, id: &UploadId) -> PathBuf {
        self.dir.path().join(engine::upload_path(id))
    }

    fn length(&self, id: &UploadId) -> Option<u64> {
        Some(std::fs::metadata(self.path(id)).ok()?.len())
    }

    /// Waits until no file of this store is open, no place on a pool taken and no fence held.
    pub(super) async fn quiet(&self) {
        let until = Instant::now() + Duration::from_secs(10);
        loop {
            let (write, read) = self.store.stats();
            let busy = write.busy + write.queued + read.busy + read.queued;
            let taken = self.store.engine.pool.taken() + self.store.engine.read.pool.taken();
            let open = open_below(self.dir.path());
            let fences = self.store.engine.fences.len();
            if busy + taken + open.len() + fences == 0 {
                return;
            }
            assert!(
                Instant::now() < until,
                "left behind: {busy} jobs, {taken} places, {fences} fences, files {open:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Files below a folder that this process has open. The store's own descriptor is the folder itself.
fn open_below(folder: &Path) -> Vec<PathBuf> {
    let folder = folder.canonicalize().unwrap();
    let all = std::fs::read_dir("/proc/self/fd").unwrap();
    all.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.starts_with(&folder) && *target != folder)
        .collect()
}

pub(super) fn noise(length: usize) -> Bytes {
    (0..length).map(|n| (n * 31 + n / 251) as u8).collect()
}

async fn collect(mut stream: crate::ByteStream) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    while let Some(piece) = stream.next().await {
        out.extend_from_slice(&piece?);
    }
    Ok(out)
}

fn is_io(error: &Error, errno: i32) -> bool {
    matches!(error, Error::Io { source, .. } if source.raw_os_error() == Some(errno))
}

#[tokio::test]
async fn a_full_disk_is_said_and_costs_only_what_was_not_acknowledged() {
    let house = House::new();
    let id = UploadId::random();
    let bytes = noise(3 * BUFFER);
    let mut writer = house.writer(&id).await;
    writer.write(bytes.slice(..1000)).await.unwrap();
    let kept = writer.sync().await.unwrap();
    house.script.fail(Step::Write, 1, 1, ENOSPC);
    // The first to hear of it says so: the bytes are written while more come.
    let error = match writer.write(bytes.slice(1000..)).await {
        Ok(()) => writer.sync().await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(error, Error::NoSpace), "{error}");
    assert_eq!(
        house.length(&id),
        Some(1000),
        "the space was not given back"
    );
    for _ in 0..2 {
        assert!(matches!(writer.write(noise(1)).await, Err(Error::Poisoned)));
        assert!(matches!(writer.sync().await, Err(Error::Poisoned)));
        let finished = writer.finish(Algorithm::Sha256).await;
        assert!(matches!(finished, Err(Error::Poisoned)));
    }
    drop(writer);
    // Space is back: the session goes on as if nothing had been.
    let mut writer = house.resume(&id, &kept).await.unwrap();
    writer.write(bytes.slice(1000..)).await.unwrap();
    let (digest, _) = writer.finish(Algorithm::Sha256).await.unwrap();
    assert_eq!(digest, Digest::of(Algorithm::Sha256, &bytes));
}

#[tokio::test]
async fn an_upload_that_never_had_a_checkpoint_frees_its_file_when_the_disk_is_full() {
    let house = House::new();
    let id = UploadId::random();
    let mut writer = house.writer(&id).await;
    house.script.fail(Step::Write, 2, 1, ENOSPC);
    let mut outcome = Ok(());
    for _ in 0..6 {
        outcome = outcome.and(writer.write(noise(BUFFER)).await);
    }
    assert!(matches!(outcome, Err(Error::NoSpace)), "{outcome:?}");
    drop(writer);
    house.quiet().await;
    assert_eq!(house.length(&id), None);
}

#[tokio::test]
async fn a_failed_sync_is_not_tried_again() {
    let house = House::new();
    let id = UploadId::random();
    let mut writer = house.writer(&id).await;
    writer.write(noise(5000)).await.unwrap();
    let kept = writer.sync().await.unwrap();
    writer.write(noise(7000)).await.unwrap();
    house.script.fail(Step::Sync, 0, 1, EIO);
    let error = writer.sync().await.unwrap_err();
    assert!(is_io(&error, EIO), "{error}");
    let syncs = |house: &House| house.store.counts().read()[1].1;
    let before = syncs(&house);
    assert!(matches!(writer.sync().await, Err(Error::Poisoned)));
    let finished = writer.finish(Algorithm::Sha256).await;
    assert!(matches!(finished, Err(Error::Poisoned)));
    assert_eq!(syncs(&house), before);
    assert_eq!(house.length(&id), Some(5000), "void bytes were left");
    let mut writer = house.resume(&id, &kept).await.unwrap();
    writer.write(noise(7000)).await.unwrap();
    let (digest, _) = writer.finish(Algorithm::Sha256).await.unwrap();
    let expected = [noise(5000), noise(7000)].concat();
    assert_eq!(digest, Digest::of(Algorithm::Sha256, &expected));
}

#[tokio::test]
async fn the_first_checkpoint_needs_the_name_to_be_durable_and_later_ones_do_not() {
    let house = House::new();
    let folder_syncs = |house: &House| house.store.counts().read()[2].1;
    let id = UploadId::random();
    let mut writer = house.writer(&id).await;
    let before = folder_syncs(&house);
    for _ in 0..3 {
        writer.write(noise(10)).await.unwrap();
        writer.sync().await.unwrap();
    }
    assert_eq!(folder_syncs(&house) - before, 1);

    let mut writer = house.writer(&UploadId::random()).await;
    writer.write(noise(10)).await.unwrap();
    house.script.fail(Step::SyncDir, 0, 1, EIO);
    let error = writer.sync().await.unwrap_err();
    assert!(is_io(&error, EIO), "{error}");
    assert!(matches!(writer.sync().await, Err(Error::Poisoned)));
}

#[tokio::test]
async fn a_publish_that_fails_leaves_no_key_and_can_be_tried_again() {
    let house = House::new();
    let bytes = noise(5000);
    // Its folder is there already, so that the faults hit the publish itself.
    house.blob(&bytes).await;
    for step in [Step::Link, Step::SyncDir] {
        let (id, key) = house.finished(&bytes).await;
        house.script.fail(step, 0, 1, EIO);
        let error = house.store.publish(&id, &key).await.unwrap_err();
        assert!(is_io(&error, EIO), "{step:?}: {error}");
        let absent = house.store.open(&key, 5000).await;
        assert!(
            matches!(absent, Err(Error::Missing { .. })),
            "{step:?}: {absent:?}"
        );
        let other = Key::fresh(&key.digest().unwrap());
        house.store.publish(&id, &other).await.unwrap();
        let blob = house.store.open(&other, 5000).await.unwrap();
        assert_eq!(collect(blob.stream(0..5000)).await.unwrap(), bytes);
    }
}

#[tokio::test]
async fn a_folder_whose_name_could_not_be_made_durable_is_made_anew() {
    let house = House::new();
    let (id, key) = house.finished(&noise(10)).await;
    let folder = house.dir.path().join(key.folder());
    house.script.fail(Step::SyncDir, 1, 1, EIO);
    house.store.publish(&id, &key).await.unwrap_err();
    assert!(!folder.exists(), "an entry that may be lost was kept");
    let before = house.store.counts().read()[2].1;
    house.store.publish(&id, &key).await.unwrap();
    // The folder's entry once more, and the key's.
    assert_eq!(house.store.counts().read()[2].1 - before, 2);
    house.store.open(&key, 10).await.unwrap();
}

#[tokio::test]
async fn without_hard_links_publishing_renames() {
    let house = House::new();
    let bytes = noise(5000);
    let (id, key) = house.finished(&bytes).await;
    // The hook stands in for the file system's refusal.
    house.script.fail(Step::Link, 0, 1, EPERM);
    house.store.publish(&id, &key).await.unwrap();
    assert_eq!(house.length(&id), None);
    let blob = house.store.open(&key, 5000).await.unwrap();
    assert_eq!(collect(blob.stream(0..5000)).await.unwrap(), bytes);
    house.store.discard(&id).await.unwrap();
}

#[tokio::test]
async fn folders_that_somebody_removed_come_back() {
    let house = House::new();
    let (key, _) = house.blob(&noise(10)).await;
    std::fs::remove_dir_all(house.dir.path().join("blobs")).unwrap();
    let again = house.store.open(&key, 10).await;
    assert!(matches!(again, Err(Error::Missing { .. })), "{again:?}");
    house.blob(&noise(10)).await;
}

#[tokio::test]
async fn an_export_shares_no_bytes_and_is_verified_on_the_way() {
    let house = House::new();
    let bytes = noise(BUFFER + 5);
    let (key, _) = house.blob(&bytes).await;
    let other = tempfile::tempdir().unwrap();
    let to = other.path().join("copy");
    house
        .store
        .export(&key, &key.digest().unwrap(), &to)
        .await
        .unwrap();
    let original = house.dir.path().join(key.as_str());
    let mut damaged = bytes.to_vec();
    damaged[BUFFER] ^= 1;
    std::fs::write(&original, damaged).unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), bytes, "damaged together");
    let bad = other.path().join("bad");
    let error = house
        .store
        .export(&key, &key.digest().unwrap(), &bad)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::WrongDigest { .. }), "{error}");
    assert!(!bad.exists());
    std::fs::write(&original, &bytes[..BUFFER]).unwrap();
    let error = house
        .store
        .export(&key, &key.digest().unwrap(), &bad)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::WrongDigest { .. }), "{error}");

    std::fs::write(&original, &bytes).unwrap();
    house.script.fail(Step::Write, 0, 1, ENOSPC);
    let half = other.path().join("half");
    let error = house
        .store
        .export(&key, &key.digest().unwrap(), &half)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NoSpace), "{error}");
    assert!(!half.exists());
}

#[tokio::test]
async fn a_read_error_ends_the_stream_with_an_error() {
    let house = House::new();
    let (_, blob) = house.blob(&noise(BUFFER)).await;
    house.script.fail(Step::Read, 1, 1, EIO);
    let mut stream = blob.stream(0..BUFFER as u64);
    stream.next().await.unwrap().unwrap();
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(is_io(&error, EIO), "{error}");
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn what_is_not_in_memory_is_read_by_the_pool() {
    const EAGAIN: i32 = 11;
    let house = House::new();
    let bytes = noise(BUFFER);
    let (_, blob) = house.blob(&bytes).await;
    // Every other call is the one on the spot, which finds nothing.
    let mut stream = blob.stream(3..BUFFER as u64);
    let mut got = Vec::new();
    loop {
        house.script.fail(Step::Read, 0, 1, EAGAIN);
        let Some(piece) = stream.next().await else {
            break;
        };
        got.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(got, bytes[3..]);
    assert!(house.store.stats().1.jobs >= 4, "{:?}", house.store.stats());
}

#[tokio::test]
async fn a_file_that_shrinks_under_a_reader_is_an_error_and_never_a_short_answer() {
    let house = House::new();
    let (key, blob) = house.blob(&noise(BUFFER)).await;
    let mut stream = blob.stream(0..BUFFER as u64);
    stream.next().await.unwrap().unwrap();
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(house.dir.path().join(key.as_str()));
    file.unwrap().set_len(300_000).unwrap();
    match collect(stream).await {
        Err(Error::WrongSize {
            expected, actual, ..
        }) => assert_eq!((expected, actual), (BUFFER as u64, 300_000)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_folder_in_the_place_of_a_blob_is_no_blob() {
    let house = House::new();
    let key = Key::fresh(&Digest::of(Algorithm::Sha256, b"x"));
    std::fs::create_dir_all(house.dir.path().join(key.as_str())).unwrap();
    let opened = house.store.open(&key, 4096).await;
    assert!(matches!(opened, Err(Error::Missing { .. })), "{opened:?}");
}

#[tokio::test]
async fn a_scan_names_strays() {
    let house = House::new();
    let put = |path: &str| {
        let path = house.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, b"?").unwrap();
    };
    put("uploads/README");
    put("blobs/lost+found");
    put("blobs/sha256/ab/short.1");
    std::os::unix::fs::symlink("/etc/passwd", house.dir.path().join("blobs/sha256/link")).unwrap();
    let mut strays = Vec::new();
    for part in [Part::Blobs, Part::Uploads] {
        let mut visit = |found: Vec<Stored>| {
            strays.extend(found);
            true
        };
        house.store.scan(part, &mut visit).await.unwrap();
    }
    strays.sort_by_key(|stray| format!("{stray:?}"));
    let expected = [
        "blobs/lost+found",
        "blobs/sha256/ab/short.1",
        "blobs/sha256/link",
        "uploads/README",
    ];
    assert_eq!(strays, expected.map(|path| Stored::Stray(path.into())));
}

#[tokio::test]
async fn a_read_only_store_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let look = |folder: &Path| {
        Fs::open(FsOptions {
            read_only: true,
            ..FsOptions::new(folder)
        })
    };
    let store = look(dir.path()).unwrap();
    let key = Key::fresh(&Digest::of(Algorithm::Sha256, b"x"));
    let opened = store.open(&key, 1).await;
    assert!(matches!(opened, Err(Error::Missing { .. })), "{opened:?}");
    let mut visit = |found: Vec<Stored>| panic!("{found:?}");
    store.scan(Part::Blobs, &mut visit).await.unwrap();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    look(&dir.path().join("absent")).unwrap_err();
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_store_that_takes_no_bytes_says_so() {
    let house = House::new();
    assert!(house.store.probe().await.unwrap() > Some(0));
    house.script.fail(Step::Write, 0, 1, ENOSPC);
    let full = house.store.probe().await;
    assert!(matches!(full, Err(Error::NoSpace)), "{full:?}");
    house.script.fail(Step::Create, 0, 1, 30);
    let read_only = house.store.probe().await.unwrap_err();
    assert!(is_io(&read_only, 30), "{read_only}");
}

/// Seconds for an fsync: reading goes on, and so does everything else on this single-threaded runtime.
#[tokio::test]
async fn a_slow_disk_holds_up_neither_readers_nor_the_runtime() {
    let house = House::new();
    let (_, blob) = house.blob(&noise(BUFFER)).await;
    house
        .script
        .delay(Step::Sync, 8, Duration::from_millis(300));
    let mut writers = Vec::new();
    for _ in 0..8 {
        let mut writer = house.writer(&UploadId::random()).await;
        writer.write(noise(10)).await.unwrap();
        writers.push(writer);
    }
    let syncing = tokio::spawn(async move {
        for outcome in futures_join(writers.iter_mut().map(|writer| writer.sync()).collect()).await
        {
            outcome.unwrap();
        }
    });
    tokio::task::yield_now().await;
    let begun = Instant::now();
    let mut turns = 0;
    while !syncing.is_finished() {
        let turn = Instant::now();
        // Cold reads, too, go to threads of their own.
        house.script.fail(Step::Read, 0, 1, 11);
        collect(blob.stream(0..BUFFER as u64)).await.unwrap();
        assert!(
            turn.elapsed() < Duration::from_millis(250),
            "{:?}",
            turn.elapsed()
        );
        turns += 1;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    syncing.await.unwrap();
    assert!(
        begun.elapsed() > Duration::from_millis(900),
        "the disk was not slow"
    );
    assert!(turns > 20, "only {turns} reads meanwhile");
}

async fn futures_join<T>(mut futures: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        for (future, place) in futures.iter_mut().zip(&mut done) {
            if place.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *place = Some(value);
            }
        }
        match done.iter().all(Option::is_some) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

/// More uploads than places in the queue, each of which needs two: nobody waits for ever, and memory stays bounded.
#[tokio::test]
async fn more_writers_than_places_all_come_to_an_end() {
    let house = House::new();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..150 {
        let store = house.store.clone();
        tasks.spawn(async move {
            let id = UploadId::random();
            let start = Checkpoint::START;
            let mut writer = store.upload(&id, &start, Algorithm::Sha256).await?;
            writer.write(noise(100_000)).await?;
            tokio::task::yield_now().await;
            writer.finish(Algorithm::Sha256).await
        });
    }
    let all = tokio::time::timeout(Duration::from_secs(60), tasks.join_all()).await;
    let digest = Digest::of(Algorithm::Sha256, &noise(100_000));
    for finished in all.expect("the writers wait for each other") {
        assert_eq!(finished.unwrap(), (digest.clone(), 100_000));
    }
    house.quiet().await;
}

/// The request vanished while its bytes were on the way to the disk. They must land neither in what the next request
/// writes at their place nor in the blob that comes of it.
#[tokio::test]
async fn a_late_write_of_a_vanished_request_lands_nowhere() {
    for publish_first in [false, true] {
        let house = House::new();
        let id = UploadId::random();
        let mut writer = house.writer(&id).await;
        writer.write(noise(1000)).await.unwrap();
        let kept = writer.sync().await.unwrap();
        house
            .script
            .delay(Step::Write, 1, Duration::from_millis(150));
        writer.write(Bytes::from(vec![0xee; BUFFER])).await.unwrap();
        drop(writer);
        let expected = if publish_first {
            // Whoever publishes now has decided that the checkpoint is all there is.
            noise(1000)
        } else {
            let mut writer = house.resume(&id, &kept).await.unwrap();
            writer.write(noise(2 * BUFFER)).await.unwrap();
            writer.finish(Algorithm::Sha256).await.unwrap();
            [noise(1000), noise(2 * BUFFER)].concat().into()
        };
        let key = Key::fresh(&Digest::of(Algorithm::Sha256, &expected));
        if publish_first {
            let mut writer = house.resume(&id, &kept).await.unwrap();
            writer.finish(Algorithm::Sha256).await.unwrap();
        }
        house.store.publish(&id, &key).await.unwrap();
        tokio::time::sleep(Duration::from_millis(250)).await;
        let size = expected.len() as u64;
        let blob = house.store.open(&key, size).await.unwrap();
        assert_eq!(collect(blob.stream(0..size)).await.unwrap(), expected);
    }
}

/// Beyond 32 MiB bytes pass the page cache in aligned blocks, whatever pieces they come in; what a resume or the end
/// leaves unaligned does not. None of that may show in the bytes.
#[tokio::test]
async fn a_large_upload_is_the_same_bytes_with_and_without_the_page_cache() {
    const EINVAL: i32 = 22;
    const PIECE: usize = 300_001;
    let large = segment::DIRECT_FROM as usize;
    let bytes = noise(large + 5 * BUFFER + 77);
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    for refused in [false, true] {
        let house = House::new();
        let id = UploadId::random();
        let mut writer = house.writer(&id).await;
        let stop = large + BUFFER + 4_000;
        for piece in bytes[..stop].chunks(200_000) {
            writer.write(bytes.slice_ref(piece)).await.unwrap();
        }
        let kept = writer.sync().await.unwrap();
        assert_eq!(kept.offset, stop as u64);
        drop(writer);
        let mut writer = house.resume(&id, &kept).await.unwrap();
        if refused {
            // One write for each piece up to the next block; the one after them goes past the cache.
            let cached = (BUFFER - 4_000).div_ceil(PIECE) as u32;
            house.script.fail(Step::Write, cached, 1, EINVAL);
        }
        for piece in bytes[stop..].chunks(PIECE) {
            writer.write(bytes.slice_ref(piece)).await.unwrap();
        }
        let (hashed, size) = writer.finish(Algorithm::Sha256).await.unwrap();
        assert_eq!((hashed, size), (digest.clone(), bytes.len() as u64));
        let key = Key::fresh(&digest);
        house.store.publish(&id, &key).await.unwrap();
        let blob = house.store.open(&key, size).await.unwrap();
        let read = collect(blob.stream(0..size)).await.unwrap();
        assert!(read == bytes, "refused: {refused}");
    }
}

/// A disk that takes nothing until it is told to.
#[derive(Debug, Default)]
struct Gate {
    open: Mutex<bool>,
    bell: Condvar,
}

impl Fault for Gate {
    fn before(&self, step: Step, _path: &str) -> io::Result<()> {
        if step == Step::Write {
            let open = self.open.lock().unwrap();
            drop(self.bell.wait_while(open, |open| !*open).unwrap());
        }
        Ok(())
    }
}

/// The segments that may wait beyond one for each upload are shared: a slow disk must not cost memory without end.
#[tokio::test]
async fn what_waits_for_a_slow_disk_is_bounded_for_all_uploads_together() {
    const UPLOADS: usize = 12;
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Gate::default());
    let store = Fs::open(FsOptions {
        threads: 2,
        fault: Some(gate.clone()),
        ..FsOptions::new(dir.path())
    })
    .unwrap();
    let mut writers = Vec::new();
    for _ in 0..UPLOADS {
        let start = Checkpoint::START;
        let id = UploadId::random();
        let writer = store.upload(&id, &start, Algorithm::Sha256);
        writers.push(writer.await.unwrap());
    }
    let mut accepted = 0;
    for writer in &mut writers {
        while poll_some(writer.write(noise(BUFFER)), 1).is_some() {
            accepted += 1;
        }
    }
    assert_eq!(accepted, UPLOADS + AHEAD_OF_ALL);
    *gate.open.lock().unwrap() = true;
    gate.bell.notify_all();
    for writer in &mut writers {
        writer.finish(Algorithm::Sha256).await.unwrap();
    }
    assert_eq!(store.engine.ahead.available_permits(), AHEAD_OF_ALL);
}

#[tokio::test]
async fn a_small_blob_that_cannot_be_stored_leaves_nothing_behind() {
    let house = House::new();
    let bytes = noise(70_000);
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    house
        .store
        .put(&Key::fresh(&digest), bytes.clone())
        .await
        .unwrap();
    for step in [
        Step::Create,
        Step::Write,
        Step::Link,
        Step::Sync,
        Step::SyncDir,
    ] {
        let key = Key::fresh(&digest);
        house.script.fail(step, 0, 1, EIO);
        let error = house.store.put(&key, bytes.clone()).await.unwrap_err();
        assert!(is_io(&error, EIO), "{step:?}: {error}");
        let absent = house.store.open(&key, 70_000).await;
        assert!(
            matches!(absent, Err(Error::Missing { .. })),
            "{step:?}: {absent:?}"
        );
        let uploads = std::fs::read_dir(house.dir.path().join("uploads")).unwrap();
        assert_eq!(uploads.count(), 0, "{step:?}");
    }
    house.quiet().await;
}

/// Chunks of single bytes must not cost an allocation each, nor keep the buffers alive that they were cut from.
#[tokio::test]
async fn tiny_chunks_are_gathered() {
    let house = House::new();
    let id = UploadId::random();
    let mut writer = house.writer(&id).await;
    let bytes = noise(300_000);
    let mut left = bytes.clone();
    while !left.is_empty() {
        writer.write(left.split_to(1)).await.unwrap();
    }
    let (digest, _) = writer.finish(Algorithm::Sha256).await.unwrap();
    assert_eq!(digest, Digest::of(Algorithm::Sha256, &bytes));
    let calls = house.store.counts().read()[0].1;
    assert!(calls <= 3, "{calls} writes");
}

/// Pages of a file that are in memory, as util-linux' fincore sees them.
fn pages(file: &Path) -> Option<u64> {
    let mut fincore = std::process::Command::new("fincore");
    let told = fincore.args(["-n", "-r", "-o", "PAGES"]).arg(file).output();
    String::from_utf8(told.ok()?.stdout)
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// What a scrub reads comes from the disk, not from memory that held it since the push.
#[tokio::test]
async fn what_was_uncached_is_in_no_memory() {
    let house = House::new();
    const TMPFS: i64 = 0x0102_1994;
    let bytes = Bytes::from(vec![7; 1 << 20]);
    let key = Key::fresh(&Digest::of(Algorithm::Sha256, &bytes));
    house.store.put(&key, bytes).await.unwrap();
    let file = house.dir.path().join(key.as_str());
    std::fs::read(&file).unwrap();
    let on_memory = rustix::fs::statfs(&file).unwrap().f_type == TMPFS;
    match pages(&file) {
        Some(before) if !on_memory => {
            assert!(before > 0);
            house.store.uncache(&key).await.unwrap();
            assert_eq!(pages(&file), Some(0));
        }
        _ => println!("skipped: it needs fincore, and temporary files on a disk"),
    }
}
