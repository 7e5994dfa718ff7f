//! What goes wrong on the way to the server, and in it: nothing acknowledged is lost, nothing happens twice, and every
//! answer is an outcome or an honest error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wharf_meta::manifest::{Expect, Get, Put, PutOutcome, Ref};
use wharf_meta::repository::GetTotals;
use wharf_meta::suite::{NOW, events, put, repo, tag};
use wharf_meta::test_server::{TestServer, shared};
use wharf_meta::{Error, Meta, PostgresOptions, principal, tag as tags};

use crate::connect;

/// Longest wait for something that comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime")
}

async fn stands_at(meta: &Meta, repository: &str, name: &str) -> Option<String> {
    let get = Get {
        repository: repo(repository),
        reference: Ref::Tag(tag(name)),
        with_bytes: true,
    };
    let started = Instant::now();
    loop {
        match meta.read(get.clone()).await {
            Ok(row) => {
                return row.map(|row| String::from_utf8(row.bytes.unwrap()).unwrap());
            }
            Err(error) => assert!(
                error.is_transient() && started.elapsed() < PATIENCE,
                "{error}"
            ),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Pushes manifests one after the other, each with a tag of its own, until told to end. An error means that nobody knows;
/// gives what was acknowledged.
async fn pusher(meta: Meta, name: String, stop: Arc<AtomicBool>) -> (Vec<u32>, u32) {
    let (mut acknowledged, mut failed) = (Vec::new(), 0);
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let op = put(&name, format!("{name} {n}"), &[&format!("t{n}"), "latest"]);
        match meta.write(op).await {
            Ok(PutOutcome::Stored { created }) => {
                assert!(created, "nothing happens twice");
                acknowledged.push(n);
            }
            Ok(other) => panic!("{other:?}"),
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                failed += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
    (acknowledged, failed)
}

/// What was acknowledged is there, each exactly once, and the history of the tag that all moved has no gap.
async fn nothing_is_lost(meta: &Meta, name: &str, acknowledged: &[u32]) {
    for n in acknowledged {
        assert_eq!(
            stands_at(meta, name, &format!("t{n}")).await,
            Some(format!("{name} {n}")),
            "acknowledged and lost"
        );
    }
    let history = meta
        .scan(tags::History {
            repository: repo(name),
            tag: Some(tag("latest")),
            limit: 100_000,
        })
        .await
        .unwrap();
    let versions: Vec<i64> = history.iter().rev().map(|m| m.version).collect();
    assert_eq!(versions, (1..=versions.len() as i64).collect::<Vec<_>>());
    assert!(history.len() >= acknowledged.len());
}

/// While four push, something is done to the server; they end well, and go on by themselves.
fn pushes_while(server: &'static TestServer, database: &str, harm: impl Fn()) {
    let runtime = runtime();
    runtime.block_on(async {
        let (meta, _) = Meta::connect(PostgresOptions::new(server.url(database)))
            .await
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let pushers: Vec<_> = (0..4)
            .map(|n| tokio::spawn(pusher(meta.clone(), format!("r{n}"), stop.clone())))
            .collect();
        tokio::task::block_in_place(&harm);
        // It recovers without a restart.
        let before = meta.stats().operations;
        let started = Instant::now();
        while meta.stats().operations < before + 20 {
            assert!(started.elapsed() < PATIENCE, "{:?}", meta.stats());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        stop.store(true, Ordering::Relaxed);
        for (n, pusher) in pushers.into_iter().enumerate() {
            let (acknowledged, _) = pusher.await.unwrap();
            assert!(!acknowledged.is_empty());
            nothing_is_lost(&meta, &format!("r{n}"), &acknowledged).await;
        }
        assert_eq!(meta.stats().unreachable, None);
        meta.close().await;
    });
}

#[test]
fn a_server_that_is_killed_and_comes_back_loses_nothing() {
    // Others have their databases on the shared one.
    let server: &'static TestServer = Box::leak(Box::new(TestServer::start(&[])));
    server.sql("postgres", "CREATE DATABASE broken").unwrap();
    pushes_while(server, "broken", || {
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(400));
            server.kill();
            std::thread::sleep(Duration::from_millis(100));
            server.again();
        }
    });
}

#[test]
fn a_server_that_loses_a_process_and_begins_anew_loses_nothing() {
    let server: &'static TestServer = Box::leak(Box::new(TestServer::start(&[])));
    server.sql("postgres", "CREATE DATABASE torn").unwrap();
    let kill = "COPY (SELECT pid FROM pg_stat_activity WHERE datname = 'torn' LIMIT 1) \
                TO PROGRAM 'xargs -r kill -KILL'";
    pushes_while(server, "torn", || {
        let mut killed = 0;
        while killed < 5 {
            std::thread::sleep(Duration::from_millis(200));
            // It refuses everybody while it begins anew, and ends this connection, too.
            killed += u32::from(server.sql("postgres", kill).is_err());
        }
    });
}

#[test]
fn connections_that_are_ended_again_and_again_lose_nothing() {
    let database = shared().database();
    let name = database
        .url()
        .rsplit_once('/')
        .unwrap()
        .1
        .split('?')
        .next()
        .unwrap()
        .to_owned();
    pushes_while(shared(), &name, || {
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(50));
            database.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                 WHERE datname = current_database() AND pid <> pg_backend_pid()",
            );
        }
    });
}

/// Passes bytes on between clients and the server, and cuts a connection in the moment its COMMIT was passed on, before the
/// answer comes back, as often as `cuts` says.
async fn cutting_proxy(to: u16, cuts: Arc<AtomicU32>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let cuts = Arc::clone(&cuts);
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let back =
                    tokio::spawn(
                        async move { tokio::io::copy(&mut from_server, &mut to_client).await },
                    );
                let mut buffer = vec![0; 65536];
                while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                    let piece = &buffer[..length];
                    let commits = piece.windows(7).any(|part| part == b"COMMIT\0");
                    let cut = commits
                        && cuts
                            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
                            .is_ok();
                    if cut {
                        // Before the answer can pass.
                        back.abort();
                    }
                    if to_server.write_all(piece).await.is_err() {
                        break;
                    }
                    if cut {
                        // Until the server has made it so.
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        break;
                    }
                }
                back.abort();
            });
        }
    });
    port
}

/// The answer to COMMIT is lost: the outcome is still the one that the operation had, and nothing happens twice.
#[test]
fn a_lost_answer_to_commit_is_found_out() {
    let database = shared().database();
    runtime().block_on(async {
        let cuts = Arc::new(AtomicU32::new(0));
        let port = cutting_proxy(shared().port(), Arc::clone(&cuts)).await;
        let url = database
            .url()
            .replace(&format!(":{}/", shared().port()), &format!(":{port}/"));
        let (meta, _) = Meta::connect(PostgresOptions::new(url)).await.unwrap();
        for round in 0..5 {
            cuts.store(1, Ordering::SeqCst);
            let create = principal::Create {
                name: format!("admin{round}"),
                kind: "user".into(),
                secret_hash: None,
                at: NOW,
            };
            assert!(
                meta.write(create).await.unwrap(),
                "it was made, and by this call"
            );
            assert_eq!(cuts.load(Ordering::SeqCst), 0, "the cut was made");

            cuts.store(1, Ordering::SeqCst);
            let name = format!("t{round}");
            let op = Put {
                expect: Expect::Absent,
                ..put("a", format!("m{round}"), &[&name])
            };
            assert_eq!(
                meta.write(op).await.unwrap(),
                PutOutcome::Stored { created: true }
            );
            assert_eq!(cuts.load(Ordering::SeqCst), 0, "the cut was made");

            cuts.store(1, Ordering::SeqCst);
            let delete = tags::Delete {
                repository: repo("a"),
                tag: tag(&name),
                actor: "alice".into(),
                at: NOW,
            };
            assert!(meta.write(delete).await.unwrap(), "it was there");
        }
        let kinds = events(&meta).await;
        for kind in ["manifest.push", "tag.move", "tag.delete"] {
            assert_eq!(kinds.iter().filter(|k| *k == kind).count(), 5, "{kind}");
        }
        let totals = meta.read(GetTotals).await.unwrap();
        assert_eq!(
            (totals.manifests, totals.tags, totals.repositories),
            (5, 0, 1)
        );
        meta.close().await;
    });
}

/// A statement that waits for a row which somebody else keeps ends with an honest answer, and the store goes on.
#[test]
fn a_lock_that_is_never_released_holds_nobody_up_for_ever() {
    let database = shared().database();
    runtime().block_on(async {
        let options = PostgresOptions {
            lock_timeout: Duration::from_millis(300),
            ..PostgresOptions::new(database.url())
        };
        let (meta, _) = Meta::connect(options).await.unwrap();
        let other = connect(&database).await;
        meta.write(put("a", "m1", &["t"])).await.unwrap();
        let (client, driver) = tokio_postgres::connect(&database.url(), tokio_postgres::NoTls)
            .await
            .unwrap();
        let driver = tokio::spawn(driver);
        client
            .batch_execute("BEGIN; SELECT * FROM tag FOR UPDATE")
            .await
            .unwrap();
        let error = meta.write(put("a", "m2", &["t"])).await.unwrap_err();
        assert!(matches!(error, Error::Busy(_)), "{error}");
        // Nothing of it happened, reads go on, and so do others.
        assert_eq!(stands_at(&meta, "a", "t").await.as_deref(), Some("m1"));
        meta.write(put("a", "m3", &["other"])).await.unwrap();
        drop(client);
        driver.await.unwrap().unwrap();
        meta.write(put("a", "m2", &["t"])).await.unwrap();
        assert_eq!(stands_at(&other, "a", "t").await.as_deref(), Some("m2"));
        meta.close().await;
        other.close().await;
    });
}

/// All connections of the server are taken: an honest answer within the store's patience, and all is well when there is
/// room again.
#[test]
fn a_server_without_free_connections_is_told_and_waited_for() {
    let server: &'static TestServer = Box::leak(Box::new(TestServer::start(&[
        "max_connections=8",
        "superuser_reserved_connections=0",
    ])));
    server.sql("postgres", "CREATE DATABASE crowded").unwrap();
    runtime().block_on(async {
        let options = PostgresOptions {
            patience: Duration::from_millis(500),
            ..PostgresOptions::new(server.url("crowded"))
        };
        let (meta, _) = Meta::connect(options).await.unwrap();
        let mut taken = Vec::new();
        while let Ok((client, driver)) =
            tokio_postgres::connect(&server.url("crowded"), tokio_postgres::NoTls).await
        {
            tokio::spawn(driver);
            taken.push(client);
        }
        // One connection is there from the start; more cannot be had, and a reader has none.
        let error = meta.read(GetTotals).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable(_)), "{error}");
        assert!(meta.stats().unreachable.is_some());
        taken.clear();
        let started = Instant::now();
        while meta.read(GetTotals).await.is_err() {
            assert!(started.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(meta.stats().unreachable, None);
        meta.close().await;
    });
}

/// Two stores, as two replicas: what one acknowledged, the other serves at once.
#[test]
fn a_write_is_read_by_every_replica() {
    let database = shared().database();
    runtime().block_on(async {
        let (one, two) = (connect(&database).await, connect(&database).await);
        for round in 0..50 {
            let (from, to) = if round % 2 == 0 {
                (&one, &two)
            } else {
                (&two, &one)
            };
            let bytes = format!("m{round}");
            from.write(put("a", &bytes, &["t"])).await.unwrap();
            assert_eq!(stands_at(to, "a", "t").await, Some(bytes));
        }
        one.close().await;
        two.close().await;
    });
}
