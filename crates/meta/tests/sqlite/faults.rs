//! Full disks and failed commits.

use std::collections::HashSet;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wharf_meta::suite::{publish, push, put};
use wharf_meta::{Error, Meta, Op, Result, Tx, setting, tag};

use crate::engine::Hold;
use crate::{check, make, open, runtime};

fn set(key: impl Into<String>, value: impl Into<String>) -> setting::Put {
    setting::Put {
        key: key.into(),
        value: value.into(),
    }
}

async fn get(meta: &Meta, key: &str) -> Option<String> {
    meta.read(setting::Get { key: key.into() }).await.unwrap()
}

/// Lets the database grow by so many pages and no more.
struct Limit(Option<i64>);

impl Op for Limit {
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.query("PRAGMA max_page_count = 1", &[]).await?;
        match self.0 {
            // SQLite does not set less than there is: this leaves no page to grow into.
            Some(_) => {}
            None => drop(tx.query("PRAGMA max_page_count = 1000000", &[]).await?),
        }
        Ok(())
    }
}

/// One operation finds the database full, SQLite undoes the batch, and all who were in it hear of it. Then it recovers.
#[test]
fn a_full_database_fails_the_batch_and_recovers() {
    let store = make();
    let meta = &store.meta;
    runtime().block_on(async {
        meta.write(set("kept", "1")).await.unwrap();
        meta.write(Limit(Some(0))).await.unwrap();
        let large = "x".repeat(1 << 20);
        let before = meta.stats();
        let (_, first, second, failed) = tokio::join!(
            meta.write(Hold(Duration::from_millis(200))),
            meta.write(set("first", "1")),
            meta.write(set("second", "1")),
            meta.write(set("large", large.clone())),
        );
        for (name, result) in [("first", first), ("second", second), ("large", failed)] {
            assert!(matches!(result, Err(Error::Full(_))), "{name}: {result:?}");
            assert_eq!(get(meta, name).await, None, "{name}");
        }
        let stats = meta.stats();
        assert_eq!(stats.failed - before.failed, 3);
        assert!(!stats.refusing, "no commit failed: nothing was synced");
        assert_eq!(get(meta, "kept").await.as_deref(), Some("1"), "reads go on");
        meta.write(set("kept", "2"))
            .await
            .expect("what needs no room goes on");

        meta.write(Limit(None)).await.unwrap();
        meta.write(set("large", large)).await.unwrap();
        meta.write(set("first", "1")).await.unwrap();
        assert_eq!(get(meta, "first").await.as_deref(), Some("1"));
    });
}

/// The same inside an operation of several statements, which are undone with it.
#[test]
fn a_full_database_undoes_whole_operations() {
    let store = make();
    let meta = &store.meta;
    runtime().block_on(async {
        meta.write(Limit(Some(0))).await.unwrap();
        let result = meta.write(publish("a", "x".repeat(1 << 20))).await;
        assert!(matches!(result, Err(Error::Full(_))), "{result:?}");
        meta.write(Limit(None)).await.unwrap();
        push(meta, put("a", "m", &["t"])).await;
        let list = tag::List {
            repository: wharf_meta::suite::repo("a"),
            after: None,
            limit: 9,
        };
        assert_eq!(meta.scan(list).await.unwrap().unwrap(), ["t"]);
    });
}

/// A commit that fails on its way to the disk fails all who were in it; writes are refused until a checkpoint was synced,
/// then go on by themselves. Reads go on meanwhile.
///
/// The fault is real: a limit on file sizes, which holds for a whole process, hence the child. The shell ignores the
/// signal that comes with it.
#[test]
fn a_failed_commit_refuses_writes_until_a_checkpoint() {
    in_a_child(
        "a_failed_commit_refuses_writes_until_a_checkpoint",
        failing_commits,
    );
}

/// The same when the threads of the store panic as they tell of it: the refusal holds, and it ends.
#[test]
fn a_panic_where_a_failure_is_told_changes_nothing_of_it() {
    in_a_child(
        "a_panic_where_a_failure_is_told_changes_nothing_of_it",
        || {
            tracing::subscriber::set_global_default(Panics::default()).unwrap();
            failing_commits();
        },
    );
}

fn in_a_child(test: &str, work: impl FnOnce()) {
    if std::env::var("WHARF_META_FSIZE").is_ok() {
        return work();
    }
    let exe = std::env::current_exe().unwrap();
    let exact = format!("trap '' XFSZ; exec \"$0\" --exact faults::{test}");
    let output = Command::new("sh")
        .arg0("sh")
        .args(["-c", &exact])
        .arg(exe)
        .env("WHARF_META_FSIZE", "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Panics at the first error that each thread of the store tells, and drops the rest.
#[derive(Default)]
struct Panics(Mutex<HashSet<String>>);

impl tracing::Subscriber for Panics {
    fn enabled(&self, what: &tracing::Metadata<'_>) -> bool {
        *what.level() == tracing::Level::ERROR
    }

    fn event(&self, _: &tracing::Event<'_>) {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or_default();
        let first = name.starts_with("meta-") && self.0.lock().unwrap().insert(name.to_owned());
        assert!(!first, "on purpose");
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

fn failing_commits() {
    let folder = tempfile::tempdir().unwrap();
    let meta = open(folder.path());
    let usual = getrlimit(Resource::Fsize);
    let limit = |bytes: u64| {
        setrlimit(
            Resource::Fsize,
            Rlimit {
                current: Some(bytes),
                maximum: usual.maximum,
            },
        )
        .unwrap()
    };
    runtime().block_on(async {
        meta.write(set("kept", "0")).await.unwrap();
        // The look at the log that a start begins with may have moved that; the log is to hold something.
        tokio::time::sleep(Duration::from_millis(500)).await;
        meta.write(set("kept", "1")).await.unwrap();
        let database = meta.stats().database_bytes;
        let log = meta.stats().wal_file_bytes;
        // The log cannot take the large row, and the database not what the log has already.
        limit(log.max(4096));
        assert!(log < database, "{log} of log, {database} of database");
        let (_, first, second) = tokio::join!(
            meta.write(Hold(Duration::from_millis(200))),
            meta.write(set("first", "1")),
            meta.write(set("second", "x".repeat(200_000))),
        );
        for (name, result) in [("first", first), ("second", second)] {
            assert!(
                matches!(result, Err(Error::Full(_) | Error::Io(_))),
                "{name}: {result:?}"
            );
            assert_eq!(get(&meta, name).await, None, "{name}");
        }
        assert!(meta.stats().refusing);
        assert_eq!(meta.stats().failed_commits, 1);
        tokio::time::sleep(Duration::from_millis(600)).await;
        let refused = meta.write(set("third", "1")).await;
        assert!(matches!(refused, Err(Error::Refusing(_))), "{refused:?}");
        assert!(meta.stats().failed_checkpoints > 0);
        assert_eq!(
            get(&meta, "kept").await.as_deref(),
            Some("1"),
            "reads go on"
        );

        setrlimit(Resource::Fsize, usual).unwrap();
        for _ in 0..100 {
            if !meta.stats().refusing {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        meta.write(set("third", "1")).await.unwrap();
        assert_eq!(get(&meta, "third").await.as_deref(), Some("1"));
        meta.close().await;
    });
    check(folder.path());
    let again = open(folder.path());
    assert_eq!(
        runtime().block_on(get(&again, "kept")).as_deref(),
        Some("1")
    );
    assert_eq!(runtime().block_on(get(&again, "first")), None);
}

/// Writes, and makes the writer panic before the commit: nothing asks for a name inside of an operation.
struct Nameless;

impl Op for Nameless {
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        set("nameless", "1").run(tx).await
    }

    fn name() -> &'static str {
        if std::thread::current().name() == Some("meta-writer") {
            panic!("on purpose");
        }
        "Nameless"
    }
}

/// Makes the writer panic after the commit, when nobody waits for this any more.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if std::thread::current().name() == Some("meta-writer") {
            panic!("on purpose");
        }
    }
}

struct Leaves;

impl Op for Leaves {
    type Out = Bomb;

    async fn run<T: Tx>(&self, _: &mut T) -> Result<Bomb> {
        Ok(Bomb)
    }
}

/// The writer's own panic fails the batch as a whole, with an error for each caller, and the next one is written.
#[test]
fn a_panic_of_the_writer_fails_its_batch_alone() {
    let folder = tempfile::tempdir().unwrap();
    let meta = open(folder.path());
    runtime().block_on(async {
        let mut together = 0;
        for round in 0..3 {
            let key = format!("first {round}");
            let (held, first, broken) = tokio::join!(
                meta.write(Hold(Duration::from_millis(100))),
                meta.write(set(&key, "1")),
                meta.write(Nameless),
            );
            held.expect("it was committed before");
            assert!(matches!(broken, Err(Error::Bug { .. })), "{broken:?}");
            assert_eq!(get(&meta, "nameless").await, None);
            assert_eq!(get(&meta, &key).await.is_some(), first.is_ok());
            if let Err(error) = first {
                assert!(matches!(error, Error::Bug { .. }), "{error}");
                together += 1;
            }

            // After a commit: what it holds is there, whoever heard of it.
            let left = tokio::time::timeout(Duration::from_millis(20), async {
                tokio::join!(
                    meta.write(Hold(Duration::from_millis(100))),
                    meta.write(Leaves)
                )
            });
            assert!(left.await.is_err(), "it held the writer for longer");
            let key = format!("same {round}");
            let same = meta.write(set(&key, "1")).await;
            assert!(matches!(same, Ok(()) | Err(Error::Bug { .. })), "{same:?}");
            assert!(get(&meta, &key).await.is_some());

            meta.write(set("next", round.to_string())).await.unwrap();
            assert_eq!(get(&meta, "next").await, Some(round.to_string()));
            meta.write(tag::Delete {
                repository: wharf_meta::suite::repo("a"),
                tag: wharf_meta::suite::tag("t"),
                actor: "alice".into(),
                at: 0,
            })
            .await
            .unwrap();
            push(&meta, put("a", "m", &["t"])).await;
        }
        assert!(together > 0, "each batch had one operation");
        assert!(!meta.stats().refusing);
        meta.close().await;
    });
    check(folder.path());
}
