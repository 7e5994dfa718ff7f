//! Prints how many durable writes and inline reads a second the metadata store does on this machine.
//!
//! `cargo run --release -p wharf-meta --example load --features suite -- [FOLDER] [SECONDS]`
//!
//! Each figure is an operation of the registry, from a task to its acknowledged answer. The values change with every
//! write, since SQLite skips writing what is there already.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wharf_meta::manifest::{Get, Put, Ref};
use wharf_meta::suite::{NOW, edge, publish, put, repo, tag};
use wharf_meta::{Meta, SqliteOptions, setting, tag as tags};
use wharf_oci::EdgeKind;

const WRITERS: [usize; 4] = [1, 16, 64, 256];

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let base = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = arguments
        .next()
        .and_then(|text| text.to_str()?.parse().ok())
        .unwrap_or(3);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let folder = tempfile::tempdir_in(base).expect("a folder");
    let path = folder.path().join("meta.db");
    let (meta, _) = Meta::open(SqliteOptions::new(path)).expect("a store");
    let time = Duration::from_secs(seconds);

    println!(
        "{:<44}{:>9}{:>12}{:>12}{:>10}",
        "operation", "tasks", "per second", "commits/s", "mean ms"
    );
    println!(
        "(a bare write and sync of 4 KiB: {:.0} a second)",
        syncs(folder.path(), time / 2)
    );
    for tasks in WRITERS {
        runtime.block_on(writes(
            &meta,
            "upsert of one row (setting::Put)",
            tasks,
            time,
            move |meta, task, n| async move {
                let put = setting::Put {
                    key: format!("{task}-{}", n % 1000),
                    value: n.to_string(),
                };
                meta.write(put).await.expect("a write");
            },
        ));
    }
    println!(
        "(a bare write and sync of 4 KiB: {:.0} a second)",
        syncs(folder.path(), time / 2)
    );
    for tasks in WRITERS {
        runtime.block_on(writes(
            &meta,
            "1 KiB blob (blob::Publish)",
            tasks,
            time,
            move |meta, task, n| async move {
                let bytes = format!("{tasks} {task} {n} {}", "x".repeat(1000));
                meta.write(publish("bench/blob", bytes))
                    .await
                    .expect("a write");
            },
        ));
    }
    for tasks in WRITERS {
        runtime.block_on(writes(
            &meta,
            "tag move (manifest::Put, known manifest)",
            tasks,
            time,
            move |meta, task, n| async move {
                meta.write(put(
                    "bench/tag",
                    format!("m{}", n % 2),
                    &[&format!("t{task}")],
                ))
                .await
                .expect("a write");
            },
        ));
    }
    for tasks in WRITERS {
        let name = "artifact: 2 blobs of 1 KiB, manifest, tag";
        runtime.block_on(writes(
            &meta,
            name,
            tasks,
            time,
            move |meta, task, n| async move {
                let unique = format!("{tasks} {task} {n} {}", "x".repeat(1000));
                let (config, layer) = (
                    publish("bench/artifact", format!("c{unique}")),
                    publish("bench/artifact", format!("l{unique}")),
                );
                let edges = vec![
                    edge(EdgeKind::Config, &config.digest, config.size),
                    edge(EdgeKind::Layer, &layer.digest, layer.size),
                ];
                let (one, two) = tokio::join!(meta.write(config), meta.write(layer));
                one.and(two).expect("a write");
                let push = Put {
                    edges,
                    ..put(
                        "bench/artifact",
                        format!("m{unique}"),
                        &[&format!("t{}", unique.len() + n as usize)],
                    )
                };
                meta.write(push).await.expect("a write");
            },
        ));
    }

    let many = 100_000;
    runtime.block_on(async {
        let start = Instant::now();
        let tasks: Vec<_> = (0..64)
            .map(|task| {
                let meta = meta.clone();
                tokio::spawn(async move {
                    for n in (task..many).step_by(64) {
                        let body = format!("{{\"manifest\":{n},\"pad\":\"{}\"}}", "x".repeat(500));
                        meta.write(put("bench/read", body, &[&format!("v{n:06}")]))
                            .await
                            .expect("a write");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("a task");
        }
        println!(
            "\n{many} manifests with a tag each written in {:.1} s",
            start.elapsed().as_secs_f64()
        );
    });
    println!(
        "{:<44}{:>9}{:>12}{:>22}",
        "read", "tasks", "per second", "mean µs"
    );
    for tasks in [1, 64] {
        runtime.block_on(reads(
            &meta,
            "setting::Get",
            tasks,
            time,
            |meta, n| async move {
                meta.read(setting::Get {
                    key: format!("0-{}", n % 100),
                })
                .await
                .expect("a read")
                .expect("a row");
            },
        ));
        runtime.block_on(reads(
            &meta,
            "manifest::Get by tag, with bytes, of 100,000",
            tasks,
            time,
            move |meta, n| async move {
                let reference = Ref::Tag(tag(&format!("v{:06}", n.wrapping_mul(7919) % many)));
                let get = Get {
                    repository: repo("bench/read"),
                    reference,
                    with_bytes: true,
                };
                meta.read(get).await.expect("a read").expect("a row");
            },
        ));
        runtime.block_on(reads(
            &meta,
            "page of 100 tags (tag::List, inline)",
            tasks,
            time,
            |meta, n| async move {
                let after = Some(format!("v{:06}", n.wrapping_mul(7919) % 99_000));
                let list = tags::List {
                    repository: repo("bench/read"),
                    after,
                    limit: 100,
                };
                assert_eq!(
                    meta.read(list).await.expect("a read").expect("tags").len(),
                    100
                );
            },
        ));
        runtime.block_on(reads(
            &meta,
            "page of 100 tags (tag::List, scan)",
            tasks,
            time,
            |meta, n| async move {
                let after = Some(format!("v{:06}", n.wrapping_mul(7919) % 99_000));
                let list = tags::List {
                    repository: repo("bench/read"),
                    after,
                    limit: 100,
                };
                assert_eq!(
                    meta.scan(list).await.expect("a read").expect("tags").len(),
                    100
                );
            },
        ));
    }
    // Reads of manifests while another task writes as fast as it can: every commit empties the readers' caches.
    let stop = Arc::new(AtomicBool::new(false));
    let writer = runtime.spawn({
        let (meta, stop) = (meta.clone(), Arc::clone(&stop));
        async move {
            let mut n = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                meta.write(setting::Put {
                    key: "w".into(),
                    value: n.to_string(),
                })
                .await
                .expect("a write");
            }
            n
        }
    });
    runtime.block_on(reads(
        &meta,
        "manifest::Get by tag beside a writer",
        16,
        time,
        move |meta, n| async move {
            let reference = Ref::Tag(tag(&format!("v{:06}", n.wrapping_mul(7919) % many)));
            let get = Get {
                repository: repo("bench/read"),
                reference,
                with_bytes: true,
            };
            meta.read(get).await.expect("a read").expect("a row");
        },
    ));
    stop.store(true, Ordering::Relaxed);
    let written = runtime.block_on(writer).expect("the writer");
    println!("  (it wrote {} a second)", written / seconds);
    let stats = meta.stats();
    println!(
        "\n{} bytes of database, {} bytes of log file, at {NOW}",
        stats.database_bytes, stats.wal_file_bytes
    );
    println!("{stats:#?}");
    let start = Instant::now();
    runtime.block_on(meta.close());
    println!("closed in {:?}", start.elapsed());
}

/// What the disk does without a database: the measure for one writer.
fn syncs(folder: &std::path::Path, time: Duration) -> f64 {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create(folder.join("sync")).expect("a file");
    file.set_len(1 << 20)
        .and_then(|()| file.sync_all())
        .expect("a sync");
    let (start, mut n) = (Instant::now(), 0_u64);
    while start.elapsed() < time {
        file.write_all_at(&n.to_be_bytes().repeat(512), n % 256 * 4096)
            .expect("a write");
        file.sync_data().expect("a sync");
        n += 1;
    }
    n as f64 / start.elapsed().as_secs_f64()
}

/// Runs an operation over and over in so many tasks; prints the rate and how many commits it took.
async fn writes<F, Fut>(meta: &Meta, name: &str, tasks: usize, time: Duration, op: F)
where
    F: Fn(Meta, usize, u64) -> Fut + Copy + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let before = meta.stats();
    let (start, done) = run(meta, tasks, time, op).await;
    let seconds = start.elapsed().as_secs_f64();
    let commits = (meta.stats().commits - before.commits) as f64 / seconds;
    let rate = done as f64 / seconds;
    println!(
        "{name:<44}{tasks:>9}{rate:>12.0}{commits:>12.0}{:>10.2}",
        tasks as f64 * 1000.0 / rate
    );
}

/// Runs a read over and over in so many tasks; prints the rate.
async fn reads<F, Fut>(meta: &Meta, name: &str, tasks: usize, time: Duration, op: F)
where
    F: Fn(Meta, u64) -> Fut + Copy + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let (start, done) = run(meta, tasks, time, move |meta, task, n| {
        op(meta, n + task as u64 * 1_000_003)
    })
    .await;
    let rate = done as f64 / start.elapsed().as_secs_f64();
    println!(
        "{name:<44}{tasks:>9}{rate:>12.0}{:>22.1}",
        2.0 * 1_000_000.0 / rate
    );
}

async fn run<F, Fut>(meta: &Meta, tasks: usize, time: Duration, op: F) -> (Instant, u64)
where
    F: Fn(Meta, usize, u64) -> Fut + Copy + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    let (stop, done) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let start = Instant::now();
    let handles: Vec<_> = (0..tasks)
        .map(|task| {
            let (meta, stop, done) = (meta.clone(), Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(async move {
                let mut n = 0;
                while !stop.load(Ordering::Relaxed) {
                    op(meta.clone(), task, n).await;
                    n += 1;
                    if n % 64 == 0 {
                        // Reads are always ready: others want the thread too.
                        tokio::task::yield_now().await;
                    }
                }
                done.fetch_add(n, Ordering::Relaxed);
            })
        })
        .collect();
    tokio::time::sleep(time).await;
    stop.store(true, Ordering::Relaxed);
    for handle in handles {
        handle.await.expect("a task");
    }
    (start, done.load(Ordering::Relaxed))
}
