//! Group commit, isolation of operations from each other, reads, checkpoints, snapshots, closing.

use std::path::Path;
use std::time::Duration;

use tokio::task::JoinSet;
use wharf_meta::suite::{events, push, put, repo};
use wharf_meta::{
    Counter, Error, Meta, Op, ReadOp, Result, SqliteOptions, Tx, repository, setting, upload, vals,
};

use crate::{make, open, runtime};

fn set(key: impl Into<String>, value: impl Into<String>) -> setting::Put {
    setting::Put {
        key: key.into(),
        value: value.into(),
    }
}

async fn get(meta: &Meta, key: &str) -> Option<String> {
    meta.read(setting::Get { key: key.into() }).await.unwrap()
}

/// Holds the writer, so that what comes meanwhile is committed together.
pub(crate) struct Hold(pub(crate) Duration);

impl Op for Hold {
    type Out = ();

    async fn run<T: Tx>(&self, _: &mut T) -> Result<()> {
        std::thread::sleep(self.0);
        Ok(())
    }
}

/// `$2` is the second parameter wherever it stands: SQLite alone would number `$` names by first appearance.
#[test]
fn parameters_are_bound_by_number() {
    struct Swapped;
    impl ReadOp for Swapped {}
    impl Op for Swapped {
        type Out = (i64, i64, i64);
        const SINGLE: bool = true;

        async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
            let mut row = tx
                .row("SELECT $2, $1, $2", vals![10_i64, 20_i64])
                .await?
                .expect("a row");
            Ok((row.int(0)?, row.int(1)?, row.int(2)?))
        }
    }
    let store = make();
    assert_eq!(
        runtime().block_on(store.meta.read(Swapped)),
        Ok((20, 10, 20))
    );
}

/// A statement gets as many parameters as it has.
#[test]
fn parameters_are_counted() {
    struct Few;
    impl Op for Few {
        type Out = ();

        async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
            tx.exec(
                "INSERT INTO setting (key, value) VALUES ($1, $2)",
                vals!["only one"],
            )
            .await
            .map(drop)
        }
    }
    let store = make();
    assert!(matches!(
        runtime().block_on(store.meta.write(Few)),
        Err(Error::Bug { .. })
    ));
}

/// 64 writers share their commits, each of which is one sync.
#[test]
fn commits_are_shared() {
    let store = make();
    runtime().block_on(async {
        let mut tasks = JoinSet::new();
        for writer in 0..64 {
            let meta = store.meta.clone();
            tasks.spawn(async move {
                for n in 0..20 {
                    meta.write(set(format!("{writer}"), format!("{n}")))
                        .await
                        .unwrap();
                }
            });
        }
        tasks.join_all().await;
    });
    let stats = store.meta.stats();
    assert_eq!(stats.operations, 64 * 20);
    assert!(
        stats.commits * 4 < stats.operations,
        "{} commits for {} operations",
        stats.commits,
        stats.operations
    );
    assert!(stats.largest_batch > 4);
}

/// Tells what a commit waits for: SQLite's level, 2 for a sync, 1 for none.
struct Level<const RELAXED: bool>;

impl<const RELAXED: bool> Op for Level<RELAXED> {
    type Out = i64;
    const RELAXED: bool = RELAXED;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<i64> {
        let mut rows = tx.query("PRAGMA synchronous", &[]).await?;
        rows[0].int(0)
    }
}

/// What need not be synced is not, and no more than one commit in a row does without: `log.rs` takes no more for torn.
#[test]
fn relaxed_commits_alternate_with_synced_ones() {
    let store = make();
    let meta = &store.meta;
    runtime().block_on(async {
        let mut levels = Vec::new();
        // The first one never: whoever had the store before may have ended with one that was not synced.
        for relaxed in [true, false, true, true, true, false, true, false, false] {
            levels.push(match relaxed {
                true => meta.write(Level::<true>).await.unwrap(),
                false => meta.write(Level::<false>).await.unwrap(),
            });
        }
        assert_eq!(levels, [2, 2, 1, 2, 1, 2, 1, 2, 2]);
        // Together: those that wait for the disk never ride in a commit that does not.
        let hold = meta.write(Hold(Duration::from_millis(50)));
        let (_, synced, relaxed) =
            tokio::join!(hold, meta.write(Level::<false>), meta.write(Level::<true>));
        relaxed.unwrap();
        assert_eq!(synced.unwrap(), 2);
    });
    let create = upload::Create {
        id: "u".into(),
        repository: repo("a"),
        owner: "o".into(),
        algorithm: None,
        at: 1,
    };
    assert!(is_relaxed(&create));
}

fn is_relaxed<O: Op>(_: &O) -> bool {
    O::RELAXED
}

/// Writes twice, counts, and then fails in some way.
struct Fails(fn() -> Result<()>);

impl Op for Fails {
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        for key in ["undone 1", "undone 2"] {
            tx.exec(
                "INSERT INTO setting (key, value) VALUES ($1, 'x')",
                vals![key],
            )
            .await?;
        }
        tx.count(Counter::Blobs, 1000).await?;
        (self.0)()
    }
}

fn constraint() -> Result<()> {
    Err(Error::Constraint("on purpose".into()))
}

fn panics() -> Result<()> {
    panic!("on purpose")
}

/// An operation that fails or panics undoes itself, and nothing of those committed with it.
#[test]
fn failures_undo_only_themselves() {
    let store = make();
    let meta = &store.meta;
    runtime().block_on(async {
        let (_, before, after, failed, panicked) = tokio::join!(
            meta.write(Hold(Duration::from_millis(100))),
            meta.write(set("before", "1")),
            meta.write(set("after", "1")),
            meta.write(Fails(constraint)),
            meta.write(Fails(panics)),
        );
        assert_eq!((before, after), (Ok(()), Ok(())));
        assert_eq!(failed, constraint());
        let Err(Error::Bug { op, reason }) = panicked else {
            panic!("{panicked:?}")
        };
        assert_eq!(
            (op.as_str(), reason.as_str()),
            ("engine::Fails", "on purpose")
        );
        for (key, expected) in [
            ("before", Some("1")),
            ("after", Some("1")),
            ("undone 1", None),
            ("undone 2", None),
        ] {
            assert_eq!(get(meta, key).await.as_deref(), expected, "{key}");
        }
        assert_eq!(meta.read(repository::GetTotals).await.unwrap().blobs, 0);
        assert_eq!(meta.write(set("later", "1")).await, Ok(()));
    });
    assert!(
        store.meta.stats().largest_batch >= 2,
        "they were committed together"
    );
}

/// The engine holds operations to what they declare.
#[test]
fn broken_promises_are_bugs() {
    struct Twice;
    impl Op for Twice {
        type Out = ();
        const SINGLE: bool = true;

        async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
            for key in ["one", "two"] {
                tx.exec(
                    "INSERT INTO setting (key, value) VALUES ($1, 'x')",
                    vals![key],
                )
                .await?;
            }
            Ok(())
        }
    }
    struct WritingRead;
    impl ReadOp for WritingRead {}
    impl Op for WritingRead {
        type Out = ();

        async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
            tx.exec("DELETE FROM setting WHERE key = $1", vals!["one"])
                .await
                .map(drop)
        }
    }
    struct Waits;
    impl Op for Waits {
        type Out = ();

        async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
            tx.exec(
                "INSERT INTO setting (key, value) VALUES ('waits', 'x')",
                &[],
            )
            .await?;
            tokio::task::yield_now().await;
            Ok(())
        }
    }
    let store = make();
    runtime().block_on(async {
        let meta = &store.meta;
        assert!(matches!(meta.write(Twice).await, Err(Error::Bug { .. })));
        assert!(matches!(
            meta.read(WritingRead).await,
            Err(Error::Bug { .. })
        ));
        assert!(matches!(
            meta.scan(WritingRead).await,
            Err(Error::Bug { .. })
        ));
        assert!(matches!(meta.write(Waits).await, Err(Error::Bug { .. })));
        assert_eq!(get(meta, "waits").await, None);
        assert_eq!(meta.write(set("fine", "1")).await, Ok(()));
    });
}

/// What was acknowledged is seen by every read after it, on every thread.
#[test]
fn reads_see_what_was_acknowledged() {
    let store = make();
    runtime().block_on(async {
        let mut tasks = JoinSet::new();
        for writer in 0..8 {
            let meta = store.meta.clone();
            tasks.spawn(async move {
                for n in 0..50 {
                    let (key, value) = (writer.to_string(), n.to_string());
                    meta.write(set(&key, &value)).await.unwrap();
                    assert_eq!(get(&meta, &key).await.as_ref(), Some(&value));
                    let scanned = meta.scan(setting::Get { key }).await.unwrap();
                    assert_eq!(scanned, Some(value));
                }
            });
        }
        tasks.join_all().await;
    });
}

/// The reads of one operation see one state, whatever is written meanwhile.
#[test]
fn an_operation_sees_one_state() {
    struct Pair;
    impl ReadOp for Pair {}
    impl Op for Pair {
        type Out = (String, String);

        async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
            let mut out = Vec::new();
            for key in ["left", "right"] {
                let mut row = tx
                    .row("SELECT value FROM setting WHERE key = $1", vals![key])
                    .await?
                    .expect("a row");
                out.push(row.text(0)?);
            }
            Ok((out.remove(0), out.remove(0)))
        }
    }
    struct Both(u32);
    impl Op for Both {
        type Out = ();

        async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
            for key in ["left", "right"] {
                tx.exec(
                    "INSERT INTO setting (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = $2",
                    vals![key, &self.0.to_string()],
                )
                .await?;
            }
            Ok(())
        }
    }
    let store = make();
    runtime().block_on(async {
        store.meta.write(Both(0)).await.unwrap();
        let meta = store.meta.clone();
        let writes = tokio::spawn(async move {
            for n in 0..300 {
                meta.write(Both(n)).await.unwrap();
            }
        });
        while !writes.is_finished() {
            let (left, right) = store.meta.read(Pair).await.unwrap();
            assert_eq!(left, right);
            let (left, right) = store.meta.scan(Pair).await.unwrap();
            assert_eq!(left, right);
            tokio::task::yield_now().await;
        }
        writes.await.unwrap();
    });
}

/// The log is moved into the database beside the writer, and its file stays bounded.
#[test]
fn the_log_stays_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        checkpoint_bytes: 256 << 10,
        wal_keep_bytes: 1 << 20,
        ..SqliteOptions::new(folder.path().join("meta.db"))
    };
    let (meta, _) = Meta::open(options).unwrap();
    runtime().block_on(async {
        let mut tasks = JoinSet::new();
        for writer in 0..8 {
            let meta = meta.clone();
            tasks.spawn(async move {
                for n in 0..100 {
                    meta.write(set(format!("{writer}"), format!("{n}").repeat(5000)))
                        .await
                        .unwrap();
                }
            });
        }
        tasks.join_all().await;
    });
    let stats = meta.stats();
    assert!(stats.checkpoints > 1, "{stats:?}");
    assert_eq!(stats.failed_checkpoints, 0);
    assert!(
        stats.wal_file_bytes < 8 << 20,
        "{} bytes of log",
        stats.wal_file_bytes
    );
    assert!(stats.wal_bytes <= stats.wal_file_bytes);
    assert!(stats.database_bytes > 0);
}

/// A reader's view stays open from read to read. It must hide no commit, and not keep the log from starting anew.
#[test]
fn open_views_hide_nothing_and_hold_no_log() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        checkpoint_bytes: 256 << 10,
        wal_keep_bytes: 1 << 20,
        ..SqliteOptions::new(folder.path().join("meta.db"))
    };
    let (meta, _) = Meta::open(options).unwrap();
    runtime().block_on(async {
        for n in 0..500 {
            let value = format!("{n} ").repeat(5000);
            meta.write(set("k", value.clone())).await.unwrap();
            assert_eq!(get(&meta, "k").await, Some(value));
            // In the view that is open now.
            assert!(get(&meta, "k").await.is_some());
        }
    });
    let stats = meta.stats();
    assert!(stats.checkpoints > 1, "{stats:?}");
    // All together they are more than ten.
    assert!(stats.wal_file_bytes < 6 << 20, "{stats:?}");
}

/// Beyond its limit the log takes nothing more, which a caller can tell from a failure.
#[test]
fn a_log_beyond_its_limit_refuses_writes() {
    struct Stuck;
    impl ReadOp for Stuck {}
    impl Op for Stuck {
        type Out = ();

        async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
            tx.query("SELECT value FROM setting WHERE key = 'x'", &[])
                .await?;
            std::thread::sleep(Duration::from_millis(1500));
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        checkpoint_bytes: 64 << 10,
        max_wal_bytes: 512 << 10,
        ..SqliteOptions::new(folder.path().join("meta.db"))
    };
    let (meta, _) = Meta::open(options).unwrap();
    runtime().block_on(async {
        meta.write(set("x", "0")).await.unwrap();
        let reader = tokio::spawn({
            let meta = meta.clone();
            async move { meta.scan(Stuck).await }
        });
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut refused = None;
        for n in 0..200 {
            if let Err(error) = meta.write(set("x", format!("{n}").repeat(5000))).await {
                refused = Some(error);
                break;
            }
        }
        assert!(matches!(refused, Some(Error::Busy(_))), "{refused:?}");
        reader.await.unwrap().unwrap();
        for _ in 0..100 {
            if meta.write(set("x", "after")).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("it did not recover");
    });
}

/// A snapshot is a whole store as it was at one moment, made while others write.
#[test]
fn snapshots_are_whole_stores() {
    let store = make();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("meta.db");
    runtime().block_on(async {
        for n in 0..50 {
            push(&store.meta, put("a", format!("m{n}"), &[&format!("t{n}")])).await;
        }
        let meta = store.meta.clone();
        let writes = tokio::spawn(async move {
            for n in 50..150 {
                push(&meta, put("a", format!("m{n}"), &[&format!("t{n}")])).await;
            }
        });
        store.meta.snapshot_into(&copy).await.unwrap();
        assert!(
            store.meta.snapshot_into(&copy).await.is_err(),
            "never over a file"
        );
        writes.await.unwrap();
    });
    crate::check(folder.path());
    let copied = open(folder.path());
    runtime().block_on(async {
        let totals = copied.read(repository::GetTotals).await.unwrap();
        assert!(
            (50..=150).contains(&totals.manifests) && totals.tags == totals.manifests,
            "{totals:?}"
        );
        assert_eq!(events(&copied).await.len() as u64, totals.manifests * 2);
        copied.write(set("k", "v")).await.unwrap();
    });
    // What is opened keeps a log, whatever it was copied from: readers go on beside the writer.
    assert!(folder.path().join("meta.db-wal").exists());
    runtime().block_on(copied.close());
    assert_eq!(copied.stats().failed_checkpoints, 0);
}

/// A closed store says so, has moved its log, and opens again as it was.
#[test]
fn closing_is_final_and_clean() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("meta.db-wal");
    let meta = open(folder.path());
    runtime().block_on(async {
        let clone = meta.clone();
        let mut tasks = JoinSet::new();
        for n in 0..32 {
            let meta = meta.clone();
            tasks.spawn(async move { meta.write(set(format!("{n}"), "x")).await });
        }
        meta.close().await;
        clone.close().await;
        assert_eq!(clone.write(set("late", "x")).await, Err(Error::Closed));
        assert_eq!(
            clone.read(setting::Get { key: "0".into() }).await,
            Err(Error::Closed)
        );
        assert_eq!(
            clone.scan(setting::Get { key: "0".into() }).await,
            Err(Error::Closed)
        );
        let accepted: Vec<bool> = tasks
            .join_all()
            .await
            .into_iter()
            .map(|result| result.is_ok())
            .collect();
        assert!(
            std::fs::metadata(&log).map_or(0, |file| file.len()) == 0,
            "the log was moved"
        );
        let again = open(folder.path());
        let mut found = 0;
        for n in 0..32 {
            found += usize::from(get(&again, &n.to_string()).await.is_some());
        }
        assert_eq!(
            found,
            accepted.iter().filter(|ok| **ok).count(),
            "what was acknowledged, and no more"
        );
    });
    crate::check(folder.path());
}

/// Dropping the last handle closes too.
#[test]
fn dropping_closes() {
    let folder = tempfile::tempdir().unwrap();
    let meta = open(folder.path());
    runtime().block_on(meta.write(set("k", "v"))).unwrap();
    drop(meta);
    let open_files = || {
        let files = std::fs::read_dir("/proc/self/fd").unwrap();
        let is_ours = |link: &Path| link.starts_with(folder.path());
        files
            .filter_map(|file| std::fs::read_link(file.unwrap().path()).ok())
            .filter(|link| is_ours(link))
            .count()
    };
    assert_eq!(open_files(), 0);
    assert_eq!(
        runtime()
            .block_on(get(&open(folder.path()), "k"))
            .as_deref(),
        Some("v")
    );
}

/// Operations that hold the writer for too long are named.
#[test]
fn slow_operations_are_named() {
    let store = make();
    runtime()
        .block_on(store.meta.write(Hold(Duration::from_millis(20))))
        .unwrap();
    let slow = store.meta.stats().slow;
    assert_eq!(slow.len(), 1);
    assert_eq!((slow[0].name, slow[0].count), ("engine::Hold", 1));
    assert!(slow[0].longest >= Duration::from_millis(20));
}

/// More callers than the queue has room for wait; none is lost.
#[test]
fn a_full_queue_makes_callers_wait() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions {
        queue: 2,
        max_batch: 3,
        ..SqliteOptions::new(folder.path().join("meta.db"))
    };
    let (meta, _) = Meta::open(options).unwrap();
    runtime().block_on(async {
        let mut tasks = JoinSet::new();
        for n in 0..100 {
            let meta = meta.clone();
            tasks.spawn(async move { meta.write(set(format!("{n}"), "x")).await.unwrap() });
        }
        tasks.join_all().await;
    });
    let stats = meta.stats();
    assert_eq!((stats.operations, stats.failed), (100, 0));
    assert!(stats.largest_batch <= 3);
}

/// Reads go on while writes are stuck.
#[test]
fn reads_do_not_wait_for_the_writer() {
    let store = make();
    runtime().block_on(async {
        push(&store.meta, put("a", "m", &["t"])).await;
        let meta = store.meta.clone();
        let held = tokio::spawn(async move { meta.write(Hold(Duration::from_secs(2))).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        for _ in 0..100 {
            let found = store
                .meta
                .read(repository::Get { name: repo("a") })
                .await
                .unwrap();
            assert!(found.is_some());
        }
        assert!(
            !held.is_finished(),
            "a hundred reads took less than the writer"
        );
        held.await.unwrap().unwrap();
    });
}

/// The check that every test of the suite ends with finds what it is there for.
#[test]
fn full_scans_and_sorts_are_found() {
    struct Scans;
    impl ReadOp for Scans {}
    impl Op for Scans {
        type Out = ();

        async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
            tx.query(
                "SELECT key FROM setting WHERE value = $1 LIMIT 9",
                vals!["x"],
            )
            .await?;
            tx.query(
                "SELECT name FROM tag WHERE repository_id = $1 ORDER BY moved_at",
                vals![&[0_u8][..]],
            )
            .await?;
            tx.query(
                "SELECT value FROM setting WHERE key = $1 ORDER BY key",
                vals!["x"],
            )
            .await
            .map(drop)
        }
    }
    let store = make();
    runtime().block_on(store.meta.read(Scans)).unwrap();
    let bad = wharf_meta::suite::full_scans(&store.meta);
    let (unlisted, bad): (Vec<_>, Vec<_>) = bad
        .into_iter()
        .partition(|found| found.starts_with("not in docs"));
    assert_eq!((unlisted.len(), bad.len()), (3, 2), "{unlisted:?} {bad:?}");
    assert!(
        bad.iter().any(|found| found.starts_with("SCAN setting")),
        "{bad:?}"
    );
    assert!(
        bad.iter().any(|found| found.starts_with("USE TEMP B-TREE")),
        "{bad:?}"
    );
}

/// What deletions free goes back to the file system, some pages at a time, and nothing else changes.
#[test]
fn freed_pages_are_given_back_in_steps() {
    let folder = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let meta = open(folder.path());
        let large = "x".repeat(100_000);
        for n in 0..40 {
            meta.write(set(format!("k{n}"), large.clone()))
                .await
                .unwrap();
        }
        for n in 0..39 {
            // Shorter values free the pages of the longer ones.
            meta.write(set(format!("k{n}"), "short")).await.unwrap();
        }
        let unused = meta.reclaim(0).await.unwrap();
        assert!(unused > 39 * 20, "{unused} pages");
        assert_eq!(meta.reclaim(100).await.unwrap(), unused - 100);
        while meta.reclaim(64).await.unwrap() > 10 {}
        assert_eq!(get(&meta, "k39").await.as_deref(), Some(large.as_str()));
        assert_eq!(get(&meta, "k7").await.as_deref(), Some("short"));
        meta.close().await;
    });
    let size = std::fs::metadata(folder.path().join("meta.db"))
        .unwrap()
        .len();
    assert!(
        size < 2_000_000,
        "{size} bytes, of which 4 million were freed"
    );
    crate::check(folder.path());
}
