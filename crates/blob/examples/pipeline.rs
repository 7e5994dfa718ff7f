//! How fast uploads get to the disk, against a plain loop in the same run.
//!
//! `cargo run --release -p wharf-blob --example pipeline [FOLDER [MIB [ROUNDS]]]`
//!
//! Prints the median of each way in GB/s of wall time and in seconds of processor time per GB. All ways end with bytes and
//! name on the disk. The machine's speed drifts, so only figures of one run compare.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;
use std::time::Instant;

use bytes::Bytes;
use wharf_blob::{BlobStore, Checkpoint, Fs, FsOptions, Hasher, Key, UploadId, suite};
use wharf_oci::Algorithm;

/// What a socket gives at a time.
const CHUNK: usize = 64 << 10;

type Way = (&'static str, fn(&Bench), usize);

struct Bench {
    folder: std::path::PathBuf,
    chunks: Vec<Bytes>,
    count: usize,
    runtime: tokio::runtime::Runtime,
    store: Fs,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let parent = args.next().unwrap_or_else(|| ".".into());
    let mib: usize = args.next().map_or(1024, |mib| mib.parse().expect("MIB"));
    let rounds: usize = args
        .next()
        .map_or(5, |rounds| rounds.parse().expect("ROUNDS"));
    let folder = tempfile::tempdir_in(parent).expect("a folder to write to");
    let noise = suite::noise(1, 4 << 20);
    let bench = Bench {
        chunks: noise
            .chunks(CHUNK)
            .map(|chunk| noise.slice_ref(chunk))
            .collect(),
        count: (mib << 20) / CHUNK,
        runtime: tokio::runtime::Runtime::new().expect("a runtime"),
        store: Fs::open(FsOptions::new(folder.path().join("store"))).expect("a store"),
        folder: folder.path().to_owned(),
    };
    let ways: [Way; 5] = [
        (
            "plain loop: sha256, write, fdatasync, rename, fsync",
            plain,
            1,
        ),
        ("two threads: hash beside write", side_by_side, 1),
        ("wharf, one upload", |bench| wharf(bench, 1), 1),
        (
            "four plain loops at once",
            |bench| four(bench, plain_named),
            4,
        ),
        ("wharf, four uploads at once", |bench| wharf(bench, 4), 4),
    ];
    let mut results = vec![Vec::new(); ways.len()];
    for _ in 0..rounds {
        for ((_, way, uploads), results) in ways.iter().zip(&mut results) {
            let (begun, cpu) = (Instant::now(), cpu_seconds());
            way(&bench);
            let gigabytes = (uploads * bench.count * CHUNK) as f64 / 1e9;
            let rate = gigabytes / begun.elapsed().as_secs_f64();
            results.push((rate, (cpu_seconds() - cpu) / gigabytes));
        }
    }
    println!("{mib} MiB each, medians of {rounds} rounds");
    for ((name, _, _), mut results) in ways.into_iter().zip(results) {
        results.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (rate, cpu) = results[rounds / 2];
        println!("{name:55} {rate:5.2} GB/s {cpu:5.2} CPU-s/GB");
    }
}

impl Bench {
    fn chunks(&self) -> impl Iterator<Item = &Bytes> {
        self.chunks.iter().cycle().take(self.count)
    }

    fn settle(&self, file: &File, name: &str) {
        file.sync_data().expect("fdatasync");
        let (from, to) = (
            self.folder.join(name),
            self.folder.join(format!("{name}.done")),
        );
        std::fs::rename(from, &to).expect("rename");
        sync_folder(&self.folder);
        std::fs::remove_file(to).expect("remove");
    }
}

fn sync_folder(folder: &Path) {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .expect("fsync of the folder");
}

fn plain(bench: &Bench) {
    plain_named(bench, "plain");
}

fn plain_named(bench: &Bench, name: &str) {
    let mut file = File::create(bench.folder.join(name)).expect("create");
    let mut hasher = Hasher::new(Algorithm::Sha256);
    for chunk in bench.chunks() {
        hasher.update(chunk);
        file.write_all(chunk).expect("write");
    }
    std::hint::black_box(hasher.finish());
    bench.settle(&file, name);
}

fn four(bench: &Bench, way: fn(&Bench, &str)) {
    std::thread::scope(|scope| {
        // Only the shared parts cross threads; the runtime is not used by the loops.
        for name in ["one", "two", "three", "four"] {
            scope.spawn(move || way(bench, name));
        }
    });
}

fn side_by_side(bench: &Bench) {
    let (send, receive) = mpsc::sync_channel::<Bytes>(16);
    let mut file = File::create(bench.folder.join("beside")).expect("create");
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let mut hasher = Hasher::new(Algorithm::Sha256);
            while let Ok(chunk) = receive.recv() {
                hasher.update(&chunk);
            }
            std::hint::black_box(hasher.finish());
        });
        for chunk in bench.chunks() {
            send.send(chunk.clone()).expect("the hashing thread");
            file.write_all(chunk).expect("write");
        }
        drop(send);
        file.sync_data().expect("fdatasync");
    });
    bench.settle(&file, "beside");
}

fn wharf(bench: &Bench, uploads: usize) {
    bench.runtime.block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..uploads {
            let store = bench.store.clone();
            let (chunks, count) = (bench.chunks.clone(), bench.count);
            tasks.spawn(async move {
                let id = UploadId::random();
                let mut writer = store
                    .upload(&id, &Checkpoint::START, Algorithm::Sha256)
                    .await
                    .expect("begin");
                for chunk in chunks.iter().cycle().take(count) {
                    writer.write(chunk.clone()).await.expect("write");
                }
                let (digest, _) = writer.finish(Algorithm::Sha256).await.expect("finish");
                let key = Key::fresh(&digest);
                store.publish(&id, &key).await.expect("publish");
                drop(writer);
                store.discard(&id).await.expect("discard");
                store.remove(&key).await.expect("remove");
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("an upload");
        }
    });
}

/// User and system time of this process so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("procfs");
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: f64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    ticks / 100.0
}
