//! `kill -9` at random moments: what was acknowledged over a pipe is there, what was not is whole or absent.
//!
//! The test starts itself as a child that uploads without end, kills it, and looks at the folder.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use wharf_blob::suite::{collect, noise};
use wharf_blob::{
    BUFFER, BlobStore, Checkpoint, Fs, FsOptions, Key, Part, Stored, UploadId, UploadWriter,
};
use wharf_oci::{Algorithm, Digest};

const FOLDER: &str = "WHARF_TEST_CRASH_FOLDER";
/// Set: several processes use the folder, and uploads go from one to the next.
const SHARED: &str = "WHARF_TEST_CRASH_SHARED";
const SEED: &str = "WHARF_TEST_CRASH_SEED";
const ROUNDS: u64 = 25;

/// The work of the child, which is this test again with a folder in its environment.
async fn child(folder: String) {
    let seed: u64 = std::env::var(SEED).unwrap().parse().unwrap();
    let store = open(Path::new(&folder), std::env::var_os(SHARED).is_some());
    let mut lanes = tokio::task::JoinSet::new();
    for lane in 0..4 {
        let store = store.clone();
        lanes.spawn(async move {
            for turn in 0.. {
                upload(&store, seed * 1_000_000 + lane * 10_000 + turn).await;
            }
        });
    }
    lanes.join_next().await.unwrap().unwrap();
}

fn open(folder: &Path, shared: bool) -> Fs {
    let options = FsOptions {
        shared,
        ..FsOptions::new(folder)
    };
    Fs::open(options).unwrap()
}

/// One upload: chunks and checkpoints, published at the end unless it is left lying.
async fn upload(store: &Fs, seed: u64) {
    let bytes = noise(seed, BUFFER / 3 + (seed as usize * 7919) % (2 * BUFFER));
    if seed.is_multiple_of(3) {
        return put(store, seed, bytes).await;
    }
    let id = UploadId::random();
    let mut writer = store
        .upload(&id, &Checkpoint::START, Algorithm::Sha256)
        .await
        .unwrap();
    for piece in bytes.chunks(1 + (seed as usize * 104_729) % (BUFFER / 2)) {
        writer.write(bytes.slice_ref(piece)).await.unwrap();
        let claimed = writer.sync().await.unwrap();
        let Checkpoint {
            offset,
            hash,
            epoch,
            ..
        } = &claimed;
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        say(&format!("upload {id} {seed} {offset} {hash} {epoch}"));
        if store.is_shared() && offset % 5 < 3 {
            // As another process that takes it over: in a folder that is one's own, this is another request.
            drop(writer);
            writer = take_over(store, &id, &claimed).await;
        }
    }
    if seed.is_multiple_of(4) {
        return;
    }
    let (digest, size) = writer.finish(Algorithm::Sha256).await.unwrap();
    let key = writer.publish(&digest).await.unwrap();
    drop(writer);
    say(&format!("blob {key} {seed} {size}"));
    store.discard(&id).await.unwrap();
    say(&format!("gone {id}"));
}

async fn take_over(store: &Fs, id: &UploadId, claimed: &Checkpoint) -> Box<dyn UploadWriter> {
    let from = Checkpoint {
        epoch: claimed.epoch + 1,
        ..claimed.clone()
    };
    store.upload(id, &from, Algorithm::Sha256).await.unwrap()
}

/// A blob that comes in one piece.
async fn put(store: &Fs, seed: u64, bytes: Bytes) {
    let key = Key::fresh(&Digest::of(Algorithm::Sha256, &bytes));
    let size = bytes.len();
    store.put(&key, bytes).await.unwrap();
    say(&format!("blob {key} {seed} {size}"));
}

/// One write, so that lines of several lanes do not mix.
fn say(line: &str) {
    std::io::stderr()
        .lock()
        .write_all(format!("{line}\n").as_bytes())
        .unwrap();
}

#[derive(Default)]
struct Acknowledged {
    uploads: HashMap<UploadId, (u64, Checkpoint)>,
    blobs: HashMap<Key, (u64, u64)>,
    lines: u64,
}

impl Acknowledged {
    fn hear(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["upload", id, seed, offset, hash, epoch] => {
                let hash = (0..hash.len() / 2)
                    .map(|at| u8::from_str_radix(&hash[2 * at..2 * at + 2], 16).unwrap())
                    .collect();
                let offset = offset.parse().unwrap();
                let upload = (
                    seed.parse().unwrap(),
                    Checkpoint {
                        offset,
                        hash,
                        epoch: epoch.parse().unwrap(),
                        ..Checkpoint::START
                    },
                );
                self.uploads.insert(UploadId::parse(id).unwrap(), upload);
            }
            ["blob", key, seed, size] => {
                let blob = (seed.parse().unwrap(), size.parse().unwrap());
                self.blobs.insert(Key::parse(key).unwrap(), blob);
            }
            ["gone", id] => {
                self.uploads.remove(&UploadId::parse(id).unwrap());
            }
            _ => panic!("the child said {line:?}"),
        }
        self.lines += 1;
    }
}

/// Spec: UP-31.
#[tokio::test]
async fn acknowledged_bytes_survive_kill_9() {
    if let Ok(folder) = std::env::var(FOLDER) {
        return child(folder).await;
    }
    for shared in [false, true] {
        killed(shared).await;
    }
}

async fn killed(shared: bool) {
    let folder = tempfile::tempdir().unwrap();
    let mut heard = Acknowledged::default();
    for round in 0..ROUNDS {
        run_and_kill(folder.path(), shared, round, &mut heard);
        let store = open(folder.path(), shared);
        uploads_go_on(&store, &mut heard).await;
        no_half_blob(&store, &heard).await;
    }
    assert!(
        heard.lines > 10 * ROUNDS,
        "only {} lines: killed too early",
        heard.lines
    );
    assert!(
        heard.blobs.len() as u64 > ROUNDS,
        "only {} blobs",
        heard.blobs.len()
    );
}

fn run_and_kill(folder: &Path, shared: bool, round: u64, heard: &mut Acknowledged) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    if shared {
        command.env(SHARED, "1");
    }
    let mut child = command
        .args([
            "acknowledged_bytes_survive_kill_9",
            "--exact",
            "--nocapture",
        ])
        .env(FOLDER, folder)
        .env(SEED, round.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    // Counted in what it did, so that slow machines kill as many at work as fast ones do.
    let until = heard.lines + 1 + round * 37 % 80;
    pipe.read_line(&mut line).unwrap();
    let mut alive = true;
    while line.ends_with('\n') {
        heard.hear(line.trim_end());
        if alive && heard.lines >= until {
            alive = false;
            std::thread::sleep(Duration::from_micros(round * 7_919 % 3_000));
            child.kill().unwrap();
        }
        line.clear();
        pipe.read_line(&mut line).unwrap();
    }
    let status = child.wait().unwrap();
    assert!(
        !status.success() && status.code().is_none(),
        "the child ended by itself: {status}"
    );
}

/// Every session goes on where the last acknowledgement was, and ends with the digest of the whole.
async fn uploads_go_on(store: &Fs, heard: &mut Acknowledged) {
    for (id, (seed, mut from)) in std::mem::take(&mut heard.uploads) {
        from.epoch += 2;
        let bytes = noise(seed, BUFFER / 3 + (seed as usize * 7919) % (2 * BUFFER));
        let at = usize::try_from(from.offset).unwrap();
        match goes_on(store, &id, &from, &bytes).await {
            // Published, but killed before it could say that it has discarded all or some of its files.
            Err(wharf_blob::Error::UploadLost) if at == bytes.len() => {}
            outcome => outcome.unwrap(),
        }
        store.discard(&id).await.unwrap();
    }
}

async fn goes_on(
    store: &Fs,
    id: &UploadId,
    from: &Checkpoint,
    bytes: &Bytes,
) -> Result<(), wharf_blob::Error> {
    let at = usize::try_from(from.offset).unwrap();
    let mut writer = store.upload(id, from, Algorithm::Sha256).await?;
    // Trusts the saved hash state; below, the file itself is read.
    writer.write(bytes.slice(at..)).await?;
    let (digest, _) = writer.finish(Algorithm::Sha256).await?;
    assert_eq!(digest, Digest::of(Algorithm::Sha256, bytes));
    let (digest, _) = writer.finish(Algorithm::Sha512).await?;
    assert_eq!(digest, Digest::of(Algorithm::Sha512, bytes));
    Ok(())
}

/// Whatever has a key has the content that its name says; all that was acknowledged has a key; nothing else lies around.
async fn no_half_blob(store: &Fs, heard: &Acknowledged) {
    let mut found = Vec::new();
    let mut visit = |some: Vec<Stored>| {
        found.extend(some);
        true
    };
    store.scan(Part::Blobs, &mut visit).await.unwrap();
    let mut keys = HashMap::new();
    for stored in found {
        let Stored::Blob(key, size) = stored else {
            panic!("a stray file: {stored:?}")
        };
        let blob = store.open(&key, size).await.unwrap();
        let bytes = collect(blob.stream(0..size)).await.unwrap();
        assert_eq!(Some(Digest::of(Algorithm::Sha256, &bytes)), key.digest());
        keys.insert(key, size);
    }
    for (key, (_, size)) in &heard.blobs {
        assert_eq!(keys.get(key), Some(size), "an acknowledged blob is gone");
    }

    let mut left = Vec::new();
    let mut visit = |some: Vec<Stored>| {
        left.extend(some);
        true
    };
    store.scan(Part::Uploads, &mut visit).await.unwrap();
    for stored in left {
        let Stored::Upload { id, .. } = stored else {
            panic!("a stray file: {stored:?}")
        };
        // Begun, or published but not discarded yet, when the child was killed: core clears these by their rows.
        store.discard(&id).await.unwrap();
    }
}
