//! Full disks and failed commits.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use wharf_meta::suite::{publish, push, put};
use wharf_meta::{Error, Meta, Op, Result, Tx, setting, tag};

use crate::engine::Hold;
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
    if std::env::var("WHARF_META_FSIZE").is_ok() {
        return failing_commits();
    }
    let exe = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .arg0("sh")
        .args(["-c", "trap '' XFSZ; exec \"$0\" --exact faults::a_failed_commit_refuses_writes_until_a_checkpoint"])
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
    crate::check(folder.path());
    let again = open(folder.path());
    assert_eq!(
        runtime().block_on(get(&again, "kept")).as_deref(),
        Some("1")
    );
    assert_eq!(runtime().block_on(get(&again, "first")), None);
}
