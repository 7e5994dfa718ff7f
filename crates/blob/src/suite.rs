//! What every backend must do, as tests: `blob_suite!(name, make)`.
//!
//! `make` is an expression that gives a [`Fixture`], evaluated anew for each case. Each case states a promise of
//! [`BlobStore`] that the layers above rely on. No case looks into the backend: what only files can show is tested there.

mod session;

use std::sync::Arc;

use bytes::Bytes;
use wharf_oci::{Algorithm, Digest};

pub use self::session::{Held, Rows, Session};
use crate::{BUFFER, Blob, BlobStore, ByteStream, Checkpoint, Error, Key, Part, Result, Stored};

/// A store of its own for one case.
pub trait Fixture: Send {
    /// The store as it is open now.
    fn store(&self) -> Arc<dyn BlobStore>;

    /// Closes the store without ceremony and opens it again, as after a crash of the process.
    fn restart(&mut self);

    /// Whether the store is reached over a network: it then keeps nothing of an upload by its id, a multipart upload ends
    /// when it is completed, and a blob that was removed is gone for its readers, too.
    fn is_remote(&self) -> bool {
        false
    }

    /// Digests that blobs are published under. Both kinds, unless a service for tests cannot take names of the longer one.
    fn algorithms(&self) -> [Algorithm; 2] {
        Algorithm::ALL
    }
}

/// Makes a module `name` with one test for each promise. Needs `tokio` with macros among the dev-dependencies.
#[macro_export]
macro_rules! blob_suite {
    ($name:ident, $make:expr) => {
        mod $name {
            #[allow(unused_imports, reason = "the expression names what it needs")]
            use super::*;

            $crate::blob_suite! { @cases ($make)
                bytes_come_back_in_any_range
                uploads_resume_after_a_restart_at_their_checkpoint
                bytes_after_the_checkpoint_are_void
                a_useless_hash_state_is_made_anew
                another_algorithm_may_close_an_upload
                missing_bytes_are_an_upload_lost
                a_published_upload_stays_and_may_change_without_the_blob
                a_writer_that_was_taken_over_writes_no_more
                two_publishes_of_one_digest_are_two_keys
                an_open_blob_survives_its_removal
                what_is_absent_or_of_another_size_is_said
                small_blobs_are_put_whole
                exports_are_copies
                blobs_of_another_store_are_taken_over
                a_scan_shows_everything
                many_writers_do_not_mix
                random_histories_give_the_digest_of_what_was_sent
            }
        }
    };
    (@cases ($make:expr) $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let mut fixture = $make;
                $crate::suite::$case(&mut fixture).await;
            }
        )*
    };
}

/// Bytes that look like nothing and are the same every time.
pub fn noise(seed: u64, length: usize) -> Bytes {
    let mut random = Random::new(seed);
    let mut out = Vec::with_capacity(length + 8);
    while out.len() < length {
        out.extend_from_slice(&random.next().to_le_bytes());
    }
    out.truncate(length);
    out.into()
}

/// Repeatable randomness (xorshift64*), so that a failing seed can be named.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap_or(0)
    }
}

/// All bytes of a stream.
pub async fn collect(mut stream: ByteStream) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    while let Some(piece) = stream.next().await {
        out.extend_from_slice(&piece?);
    }
    Ok(out)
}

async fn begin(store: &dyn BlobStore, session: &Session) -> Held {
    session
        .resume(store, &Checkpoint::START, Algorithm::Sha256)
        .await
        .unwrap()
}

async fn publish(store: &dyn BlobStore, bytes: &Bytes) -> Key {
    let session = Session::new();
    let mut writer = begin(store, &session).await;
    writer.write(bytes.clone()).await.unwrap();
    let (digest, size) = writer.finish(Algorithm::Sha256).await.unwrap();
    assert_eq!(size, bytes.len() as u64);
    assert_eq!(digest, Digest::of(Algorithm::Sha256, bytes));
    let key = writer.publish(&digest).await.unwrap();
    store.discard(&session.id).await.unwrap();
    key
}

/// Opens a blob and asks for its first byte: what is wrong with it shows in one of the two.
async fn found(store: &dyn BlobStore, key: &Key, size: u64) -> Result<Blob> {
    let blob = store.open(key, size).await?;
    blob.stream(0..size).begin().await?;
    Ok(blob)
}

async fn content(store: &dyn BlobStore, key: &Key, size: usize) -> Vec<u8> {
    let blob = store.open(key, size as u64).await.unwrap();
    collect(blob.stream(0..size as u64)).await.unwrap()
}

/// Whole and in part, at the sizes where buffers begin and end.
pub async fn bytes_come_back_in_any_range(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    for size in [0, 1, 4096, BUFFER - 1, BUFFER, BUFFER + 1, 3 * BUFFER + 17] {
        let bytes = noise(size as u64, size);
        let key = publish(&*store, &bytes).await;
        fixture.restart();
        let store = fixture.store();
        let blob = store.open(&key, size as u64).await.unwrap();
        assert_eq!(blob.len(), size as u64);
        assert_eq!(blob.is_empty(), size == 0);
        for (start, end) in [
            (0, size),
            (0, size.min(1)),
            (size / 2, size),
            (size / 3, size / 2),
            (size, size),
        ] {
            let got = collect(blob.stream(start as u64..end as u64))
                .await
                .unwrap();
            assert_eq!(got, bytes[start..end], "{start}..{end} of {size}");
        }
        let beyond = collect(blob.stream(0..size as u64 + 1)).await;
        assert!(matches!(beyond, Err(Error::WrongSize { .. })), "{beyond:?}");
    }
}

/// The checkpoint is all that the next process needs.
pub async fn uploads_resume_after_a_restart_at_their_checkpoint(fixture: &mut dyn Fixture) {
    let session = Session::new();
    let bytes = noise(1, 2 * BUFFER + 123_457);
    let mut from = Checkpoint::START;
    for piece in bytes.chunks(bytes.len() / 5) {
        let store = fixture.store();
        let mut writer = session
            .resume(&*store, &from, Algorithm::Sha256)
            .await
            .unwrap();
        assert_eq!(writer.offset(), from.offset);
        writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
        from = writer.sync().await.unwrap();
        assert_eq!(from.offset, writer.offset());
        drop((writer, store));
        fixture.restart();
    }
    let store = fixture.store();
    let mut writer = session
        .resume(&*store, &from, Algorithm::Sha256)
        .await
        .unwrap();
    let (digest, size) = writer.finish(Algorithm::Sha256).await.unwrap();
    assert_eq!(size, bytes.len() as u64);
    assert_eq!(digest, Digest::of(Algorithm::Sha256, &bytes));
}

/// What was written after the checkpoint, durable by chance or not, is cut off.
pub async fn bytes_after_the_checkpoint_are_void(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let session = Session::new();
    let mut writer = begin(&*store, &session).await;
    writer.write(noise(1, 5000)).await.unwrap();
    let early = writer.sync().await.unwrap();
    writer.write(noise(2, 3 * BUFFER)).await.unwrap();
    let late = writer.sync().await.unwrap();
    writer.write(noise(3, BUFFER)).await.unwrap();
    drop(writer);
    for (from, held) in [
        (late, [noise(1, 5000), noise(2, 3 * BUFFER)].concat()),
        (early, noise(1, 5000).to_vec()),
    ] {
        let mut writer = session
            .resume(&*store, &from, Algorithm::Sha256)
            .await
            .unwrap();
        writer.write(Bytes::from_static(b"end")).await.unwrap();
        let (digest, size) = writer.finish(Algorithm::Sha256).await.unwrap();
        let expected = [&held[..], b"end"].concat();
        assert_eq!(size, expected.len() as u64);
        assert_eq!(digest, Digest::of(Algorithm::Sha256, &expected));
        let key = writer.publish(&digest).await.unwrap();
        assert_eq!(content(&*store, &key, expected.len()).await, expected);
        if fixture.is_remote() {
            // Claims only grow, and a multipart upload that was completed is no more.
            return;
        }
    }
}

/// A state of another version, of another algorithm, or of another place: the bytes are hashed again.
pub async fn a_useless_hash_state_is_made_anew(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let bytes = noise(7, BUFFER + 99);
    for algorithm in fixture.algorithms() {
        for which in 0..4 {
            let session = Session::new();
            let mut writer = begin(&*store, &session).await;
            writer.write(bytes.slice(..70_000)).await.unwrap();
            let stale = writer.sync().await.unwrap();
            writer.write(bytes.slice(70_000..)).await.unwrap();
            let good = writer.sync().await.unwrap();
            drop(writer);
            let hash = match which {
                0 => Vec::new(),
                1 => b"nonsense".to_vec(),
                2 => stale.hash,
                _ => good.hash.clone(),
            };
            let from = Checkpoint { hash, ..good };
            let mut writer = session.resume(&*store, &from, algorithm).await.unwrap();
            let (digest, _) = writer.finish(algorithm).await.unwrap();
            assert_eq!(digest, Digest::of(algorithm, &bytes));
            let key = writer.publish(&digest).await.unwrap();
            assert_eq!(content(&*store, &key, bytes.len()).await, bytes);
        }
    }
}

/// The closing request names the algorithm, whatever was announced (UP-7).
pub async fn another_algorithm_may_close_an_upload(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    for length in [100, 2 * BUFFER + 5] {
        let bytes = noise(8, length);
        let session = Session::new();
        let mut writer = begin(&*store, &session).await;
        writer.write(bytes.clone()).await.unwrap();
        for algorithm in [Algorithm::Sha512, Algorithm::Sha256] {
            let (digest, size) = writer.finish(algorithm).await.unwrap();
            assert_eq!(digest, Digest::of(algorithm, &bytes));
            assert_eq!(size, bytes.len() as u64);
        }
        let digest = Digest::of(fixture.algorithms()[1], &bytes);
        let key = writer.publish(&digest).await.unwrap();
        assert_eq!(content(&*store, &key, length).await, bytes);
    }
}

/// A claim without bytes ends the session; it never gives zeros.
pub async fn missing_bytes_are_an_upload_lost(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let session = Session::new();
    let claim = Checkpoint {
        offset: 10,
        ..Checkpoint::START
    };
    let lost = async |from: &Checkpoint| {
        // A store that asks nothing at first says so when it needs the bytes.
        let outcome = match session.resume(&*store, from, Algorithm::Sha256).await {
            Ok(mut writer) => writer.finish(Algorithm::Sha256).await.map(|_| ()),
            Err(error) => Err(error),
        };
        assert!(matches!(outcome, Err(Error::UploadLost)), "{outcome:?}");
    };
    lost(&claim).await;
    let mut writer = begin(&*store, &session).await;
    writer
        .write(Bytes::from_static(b"123456789"))
        .await
        .unwrap();
    writer.sync().await.unwrap();
    lost(&claim).await;
    if fixture.is_remote() {
        return;
    }
    store.discard(&session.id).await.unwrap();
    store.discard(&session.id).await.unwrap();
    lost(&Checkpoint { offset: 9, ..claim }).await;
}

/// Publishing can be tried again when the row could not be written, and the session goes on from its checkpoint; the
/// blob that was published first never changes.
pub async fn a_published_upload_stays_and_may_change_without_the_blob(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let session = Session::new();
    let bytes = noise(9, BUFFER + 1000);
    let mut writer = begin(&*store, &session).await;
    writer.write(bytes.slice(..1000)).await.unwrap();
    let early = writer.sync().await.unwrap();
    writer.write(bytes.slice(1000..)).await.unwrap();
    let (digest, _) = writer.finish(Algorithm::Sha256).await.unwrap();
    // The writer is not even dropped: from now on it must not reach the blob.
    let one = writer.publish(&digest).await.unwrap();
    let two = writer.publish(&digest).await.unwrap();
    let _ = writer.write(noise(10, 2 * BUFFER)).await;
    let _ = writer.sync().await;
    let mut again = session
        .resume(&*store, &early, Algorithm::Sha256)
        .await
        .unwrap();
    again.write(noise(11, 3 * BUFFER)).await.unwrap();
    let (other, size) = again.finish(Algorithm::Sha256).await.unwrap();
    let expected = [&bytes[..1000], &noise(11, 3 * BUFFER)].concat();
    assert_eq!(other, Digest::of(Algorithm::Sha256, &expected));
    let three = again.publish(&other).await.unwrap();
    drop((writer, again));
    let mut afresh = begin(&*store, &session).await;
    afresh.write(noise(12, 10)).await.unwrap();
    afresh.sync().await.unwrap();
    store.discard(&session.id).await.unwrap();
    for key in [one, two] {
        assert_eq!(content(&*store, &key, bytes.len()).await, bytes);
    }
    assert_eq!(
        content(&*store, &three, usize::try_from(size).unwrap()).await,
        expected
    );
}

/// One upload, one writer: the last that took it.
pub async fn a_writer_that_was_taken_over_writes_no_more(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let session = Session::new();
    let mut first = begin(&*store, &session).await;
    first.write(noise(1, 100)).await.unwrap();
    let from = first.sync().await.unwrap();
    let mut second = session
        .resume(&*store, &from, Algorithm::Sha256)
        .await
        .unwrap();
    second.write(noise(2, 100)).await.unwrap();
    first.write(noise(3, 100)).await.unwrap();
    let outcome = first.sync().await;
    assert!(matches!(outcome, Err(Error::UploadLost)), "{outcome:?}");
    let outcome = first.write(noise(3, 1)).await;
    assert!(matches!(outcome, Err(Error::Poisoned)), "{outcome:?}");
    let (digest, _) = second.finish(Algorithm::Sha256).await.unwrap();
    drop(first);
    let expected = [noise(1, 100), noise(2, 100)].concat();
    assert_eq!(digest, Digest::of(Algorithm::Sha256, &expected));
    let key = second.publish(&digest).await.unwrap();
    assert_eq!(content(&*store, &key, 200).await, expected);
}

/// Whoever removes the one leaves the other alone.
pub async fn two_publishes_of_one_digest_are_two_keys(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let bytes = noise(20, 200_000);
    let (one, two) = tokio::join!(publish(&*store, &bytes), publish(&*store, &bytes));
    assert_ne!(one, two);
    store.remove(&one).await.unwrap();
    store.remove(&one).await.unwrap();
    assert_eq!(content(&*store, &two, bytes.len()).await, bytes);
    let gone = found(&*store, &one, bytes.len() as u64).await;
    assert!(matches!(gone, Err(Error::Missing { .. })), "{gone:?}");
}

/// A download that has begun ends well, where that is in the store's hands.
pub async fn an_open_blob_survives_its_removal(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let remote = fixture.is_remote();
    let bytes = noise(21, 2 * BUFFER);
    let key = publish(&*store, &bytes).await;
    let blob = store.open(&key, bytes.len() as u64).await.unwrap();
    let mut stream = blob.stream(0..bytes.len() as u64);
    let first = stream.next().await.unwrap().unwrap();
    store.remove(&key).await.unwrap();
    if remote {
        let rest = collect(stream).await;
        assert!(rest.is_err() || [&first[..], &rest.unwrap()].concat() == bytes);
        let gone = found(&*store, &key, bytes.len() as u64).await;
        assert!(matches!(gone, Err(Error::Missing { .. })), "{gone:?}");
        return;
    }
    let rest = collect(stream).await.unwrap();
    assert_eq!([&first[..], &rest].concat(), bytes);
    assert_eq!(collect(blob.stream(5..9)).await.unwrap(), bytes[5..9]);
}

/// Never a short blob, never an empty one in place of none.
pub async fn what_is_absent_or_of_another_size_is_said(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let key = publish(&*store, &noise(22, 1000)).await;
    for wrong in [0, 999, 1001] {
        let opened = match wrong {
            0 => store.inspect(&key, wrong).await,
            _ => found(&*store, &key, wrong).await.map(|_| ()),
        };
        for outcome in [opened, store.inspect(&key, wrong).await] {
            match outcome {
                Err(Error::WrongSize {
                    expected, actual, ..
                }) => assert_eq!((expected, actual), (wrong, 1000)),
                other => panic!("{other:?}"),
            }
        }
    }
    store.inspect(&key, 1000).await.unwrap();
    store.check(&key, 1000).await.unwrap();
    let never = Key::fresh(&Digest::of(Algorithm::Sha512, b"never stored"));
    for _ in 0..2 {
        let absent = found(&*store, &never, 1).await.map(|_| ());
        assert!(matches!(absent, Err(Error::Missing { .. })), "{absent:?}");
        let absent = store.inspect(&never, 0).await;
        assert!(matches!(absent, Err(Error::Missing { .. })), "{absent:?}");
    }
    store.remove(&never).await.unwrap();
    store.probe().await.unwrap();
}

/// Configs and the like, in one call.
pub async fn small_blobs_are_put_whole(fixture: &mut dyn Fixture) {
    for bytes in [noise(30, 0), noise(31, 700), noise(32, 100_000)] {
        let key = Key::fresh(&Digest::of(Algorithm::Sha256, &bytes));
        fixture.store().put(&key, bytes.clone()).await.unwrap();
        fixture.restart();
        assert_eq!(content(&*fixture.store(), &key, bytes.len()).await, bytes);
    }
    let mut uploads = 0;
    let visit = &mut |found: Vec<Stored>| {
        uploads += found.len();
        true
    };
    fixture.store().scan(Part::Uploads, visit).await.unwrap();
    assert_eq!(uploads, 0, "an upload was left behind");
}

/// For backups: the copy stands by itself, and never replaces a file.
pub async fn exports_are_copies(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let folder = tempfile::tempdir().unwrap();
    let bytes = noise(40, BUFFER + 3);
    let key = publish(&*store, &bytes).await;
    let to = folder.path().join("copy");
    let digest = Digest::of(Algorithm::Sha256, &bytes);
    let other = Digest::of(Algorithm::Sha512, b"other bytes");
    let bad = folder.path().join("bad");
    let wrong = store.export(&key, &other, &bad).await;
    assert!(matches!(wrong, Err(Error::WrongDigest { .. })), "{wrong:?}");
    assert!(!bad.exists());
    store.export(&key, &digest, &to).await.unwrap();
    store.remove(&key).await.unwrap();
    assert_eq!(std::fs::read(&to).unwrap(), bytes);
    let digest = Digest::of(Algorithm::Sha256, &noise(41, 10));
    let key = publish(&*store, &noise(41, 10)).await;
    assert!(store.export(&key, &digest, &to).await.is_err());
    assert_eq!(std::fs::read(&to).unwrap(), bytes);
    store.remove(&key).await.unwrap();
    let gone = folder.path().join("other");
    let absent = store.export(&key, &digest, &gone).await;
    assert!(matches!(absent, Err(Error::Missing { .. })), "{absent:?}");
    assert!(!folder.path().join("other").exists());
}

/// Under the same key, hashed on the way, in one part or many; other bytes than the digest's leave nothing.
pub async fn blobs_of_another_store_are_taken_over(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    for size in [0, 1000, 2 * BUFFER + 5] {
        let bytes = noise(50, size);
        let digest = Digest::of(Algorithm::Sha256, &bytes);
        for key in [Key::fresh(&digest), Key::unnamed()] {
            let wrong = Digest::of(Algorithm::Sha512, b"other bytes");
            let refused = store
                .copy_in(&key, &wrong, Blob::Memory(bytes.clone()))
                .await;
            assert!(
                matches!(refused, Err(Error::WrongDigest { .. })),
                "{refused:?}"
            );
            let absent = store.inspect(&key, size as u64).await;
            assert!(matches!(absent, Err(Error::Missing { .. })), "{absent:?}");
            for _ in 0..2 {
                let blob = Blob::Memory(bytes.clone());
                store.copy_in(&key, &digest, blob).await.unwrap();
            }
            fixture.restart();
            assert_eq!(content(&*fixture.store(), &key, size).await, bytes);
        }
    }
}

/// All blobs, those that came from a bucket too, and all uploads with their sizes; `false` ends it.
pub async fn a_scan_shows_everything(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let unnamed = Key::unnamed();
    store.put(&unnamed, noise(51, 1000)).await.unwrap();
    let mut keys = vec![Stored::Blob(unnamed, 1000)];
    for size in 0..40 {
        let bytes = noise(size, usize::try_from(size).unwrap());
        let key = Key::fresh(&Digest::of(Algorithm::Sha256, &bytes));
        store.put(&key, bytes).await.unwrap();
        keys.push(Stored::Blob(key, size));
    }
    let session = Session::new();
    let mut writer = begin(&*store, &session).await;
    writer.write(noise(1, 77)).await.unwrap();
    writer.sync().await.unwrap();

    let mut found = Vec::new();
    let mut visit = |some: Vec<Stored>| {
        found.extend(some);
        true
    };
    store.scan(Part::Blobs, &mut visit).await.unwrap();
    let order = |stored: &Stored| format!("{stored:?}");
    found.sort_by_key(order);
    keys.sort_by_key(order);
    assert_eq!(found, keys);

    let mut uploads = Vec::new();
    let mut visit = |some: Vec<Stored>| {
        uploads.extend(some);
        true
    };
    store.scan(Part::Uploads, &mut visit).await.unwrap();
    if fixture.is_remote() {
        assert_eq!(uploads, []);
    } else {
        let [
            Stored::Upload {
                id,
                size,
                written_at,
            },
        ] = uploads[..]
        else {
            panic!("not the one upload: {uploads:?}")
        };
        assert_eq!((id, size), (session.id, 77));
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let ago = now.as_millis() as i64 - written_at;
        assert!(written_at == 0 || ago.abs() < 600_000, "{ago} ms ago");
    }

    let mut calls = 0;
    let mut visit = |_: Vec<Stored>| {
        calls += 1;
        false
    };
    store.scan(Part::Blobs, &mut visit).await.unwrap();
    assert_eq!(calls, 1);
}

/// Twenty at once, with chunks of all sizes.
pub async fn many_writers_do_not_mix(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..20 {
        let store = store.clone();
        tasks.spawn(async move {
            let bytes = noise(seed, BUFFER / 2 + 100_003 * usize::try_from(seed).unwrap());
            let session = Session::new();
            let mut writer = begin(&*store, &session).await;
            let mut random = Random::new(seed);
            let mut left = bytes.clone();
            while !left.is_empty() {
                let piece = left.split_to(left.len().min(1 + random.below(300_000)));
                writer.write(piece).await.unwrap();
            }
            let (digest, size) = writer.finish(Algorithm::Sha256).await.unwrap();
            assert_eq!(digest, Digest::of(Algorithm::Sha256, &bytes));
            let key = writer.publish(&digest).await.unwrap();
            store.discard(&session.id).await.unwrap();
            let blob: Blob = store.open(&key, size).await.unwrap();
            assert_eq!(collect(blob.stream(0..size)).await.unwrap(), bytes);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// Chunks, checkpoints, losses, resumes and restarts in any order: in the end the digest is that of the bytes that count.
pub async fn random_histories_give_the_digest_of_what_was_sent(fixture: &mut dyn Fixture) {
    for seed in 0..30 {
        let mut random = Random::new(seed);
        let session = Session::new();
        let algorithm = fixture.algorithms()[random.below(2)];
        let mut kept: Vec<u8> = Vec::new();
        let mut from = Checkpoint::START;
        let store = fixture.store();
        let mut writer = session.resume(&*store, &from, algorithm).await.unwrap();
        let mut fresh: Vec<u8> = Vec::new();
        for _ in 0..random.below(25) {
            match random.below(8) {
                0 => {
                    from = writer.sync().await.unwrap();
                    kept.append(&mut fresh);
                    assert_eq!(from.offset, kept.len() as u64, "seed {seed}");
                }
                1 => {
                    drop(writer);
                    fresh.clear();
                    if random.below(2) == 0 {
                        fixture.restart();
                    }
                    let algorithm = fixture.algorithms()[random.below(2)];
                    let store = fixture.store();
                    writer = session.resume(&*store, &from, algorithm).await.unwrap();
                }
                small_or_large => {
                    let bound = if small_or_large < 5 {
                        5_000
                    } else {
                        BUFFER / 2
                    };
                    let piece = noise(random.next(), random.below(bound));
                    fresh.extend_from_slice(&piece);
                    writer.write(piece).await.unwrap();
                }
            }
        }
        kept.append(&mut fresh);
        let algorithm = fixture.algorithms()[random.below(2)];
        let (digest, size) = writer.finish(algorithm).await.unwrap();
        assert_eq!(size, kept.len() as u64, "seed {seed}");
        assert_eq!(digest, Digest::of(algorithm, &kept), "seed {seed}");
        let key = writer.publish(&digest).await.unwrap();
        drop(writer);
        fixture.store().discard(&session.id).await.unwrap();
        fixture.restart();
        assert_eq!(
            content(&*fixture.store(), &key, kept.len()).await,
            kept,
            "seed {seed}"
        );
    }
}
