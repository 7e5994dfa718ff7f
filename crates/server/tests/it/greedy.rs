//! A collector that grants no grace, beside clients, restarts and kills: nothing that is referred to ever goes, and after
//! quiet nothing else is left, no row and no bytes.
//!
//! `cargo xtask ci` runs it over all four pairs of stores; `WHARF_LONG=1` has it go on for longer. `cargo xtask endure crash`
//! does the same to the real binary with `kill -9` at any moment.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use wharf_core::gc;
use wharf_core::job::Job as _;
use wharf_meta::{blob as rows, candidate, recheck, restorable};
use wharf_testkit::client::with_query;
use wharf_testkit::content::{ImageSpec, seeded_bytes};
use wharf_testkit::{Client, Content, Image, Process, TestOptions, TestServer, Version};

use crate::model::{explain, history, number};
use crate::support::{blob, holds, manifest};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");
/// Longest wait for a job.
const PATIENCE: Duration = Duration::from_secs(60);

/// No grace, no window, and a collector that never rests.
fn greedy() -> TestOptions {
    TestOptions {
        config: "[gc]\ngrace = \"0s\"\nevery = \"1ms\"\n[restore]\nwindow = \"0s\"\n".into(),
        ..TestOptions::default()
    }
}

/// Pushes a blob, again when it was collected while it came.
async fn send_blob(client: &Client, name: &str, content: &Content) {
    let location = client.start_upload(name).await;
    let target = with_query(&location, &format!("digest={}", content.digest));
    let put = client.put(&target).body(content.bytes.clone());
    put.send().await.expect_status(201);
}

/// Pushes an image as clients do that are told that something is missing: again, until it is there.
async fn push(client: &Client, name: &str, tag: &str, image: &Image) {
    let begun = Instant::now();
    loop {
        for content in image.blobs() {
            send_blob(client, name, content).await;
        }
        let answer = client.put_manifest(name, tag, &image.manifest).send().await;
        match answer.status.as_u16() {
            201 => return,
            // Collected before the manifest came: with no grace at all that is fair.
            400 | 404 => assert!(begun.elapsed() < PATIENCE, "{answer}"),
            _ => panic!("{answer}"),
        }
    }
}

/// An image by its tag, with the right bytes in everything that it refers to.
pub(crate) async fn is_whole(client: &Client, name: &str, tag: &str, image: &Image) {
    let got = client
        .get(&manifest(name, tag))
        .send()
        .await
        .expect_status(200);
    assert_eq!(got.body, image.manifest.bytes);
    for content in image.blobs() {
        assert!(holds(client, name, content).await, "{}", content.digest);
        client
            .head(&blob(name, &content.digest))
            .send()
            .await
            .expect_status(200);
    }
}

/// Images that share a layer, so that what one deletes the other needs.
fn images() -> Vec<Image> {
    let shared = Content::new(
        wharf_oci::Algorithm::Sha256,
        "application/vnd.oci.image.layer.v1.tar",
        seeded_bytes(1, 100_000),
    );
    (0..4_u64)
        .map(|n| {
            let own = seeded_bytes(100 + n, if n % 2 == 0 { 90_000 } else { 300 });
            let layer = Content::new(
                wharf_oci::Algorithm::Sha256,
                "application/vnd.oci.image.layer.v1.tar",
                own,
            );
            ImageSpec {
                layers: Vec::new(),
                more_layers: vec![shared.clone(), layer],
                ..ImageSpec::default()
            }
            .build()
        })
        .collect()
}

/// A page that holds all there is in any of these tests.
const ALL: u32 = 100_000;

/// What is there and not needed, or needed and not there: by rows, by the blob store, and by what a client reads.
async fn differences(server: &TestServer, needed: &[(String, Content)]) -> Vec<String> {
    let meta = &server.app().registry.meta;
    let mut wrong = Vec::new();
    let mut compare = |what: &str, there: BTreeSet<String>, wanted: BTreeSet<String>| {
        let more = there.difference(&wanted);
        wrong.extend(more.map(|one| format!("{what} {one} is left, and nothing needs it")));
        let less = wanted.difference(&there);
        wrong.extend(less.map(|one| format!("{what} {one} is needed, and it is not there")));
    };
    let digests = || needed.iter().map(|(_, one)| one.address().to_owned());
    let page = rows::ListLive {
        after: None,
        limit: ALL,
    };
    let live = meta.scan(page).await.unwrap();
    let there = live.iter().map(|row| row.digest.to_string()).collect();
    compare("the row of the blob", there, digests().collect());
    let page = recheck::Links {
        after: None,
        limit: ALL,
    };
    let links = meta.scan(page).await.unwrap();
    let there = links.iter().map(|link| link.digest.to_string()).collect();
    compare("a link to", there, digests().collect());
    let keys = live.iter().filter_map(|row| match &row.place {
        rows::Place::Key(key) => Some(key.clone()),
        rows::Place::Inline(_) => None,
    });
    let stored = server.kept_blobs();
    let stored = stored.iter().map(|path| {
        let path = path.to_str().expect("a path in UTF-8");
        path[path.rfind("blobs/").expect("a key")..].to_owned()
    });
    compare("the file or object", stored.collect(), keys.collect());
    let page = rows::Garbage {
        after: None,
        limit: ALL,
    };
    let marked = meta.scan(page).await.unwrap().into_iter().collect();
    compare("marked bytes", marked, BTreeSet::new());
    let page = candidate::List {
        after: None,
        limit: ALL,
    };
    let candidates = meta.scan(page).await.unwrap();
    let candidates = candidates.iter().map(|one| format!("{one:?}")).collect();
    compare("the candidate", candidates, BTreeSet::new());
    let page = restorable::Page {
        after: None,
        limit: ALL,
    };
    let deleted = meta.scan(page).await.unwrap();
    let deleted = deleted.iter().map(|one| one.digest.to_string()).collect();
    compare("the deleted manifest", deleted, BTreeSet::new());
    let client = server.admin(Version::Http1);
    for (name, content) in needed {
        let got = client.get(&blob(name, &content.digest)).send().await;
        if got.status != 200 || got.body != content.bytes {
            let (status, digest) = (got.status, &content.digest);
            wrong.push(format!(
                "{digest} of {name} is answered {status}, or with other bytes"
            ));
        }
    }
    wrong
}

/// Waits until the collector has come to its end, and nothing but this is left.
async fn settled(server: &TestServer, needed: &[(String, Content)]) {
    let begun = Instant::now();
    loop {
        let wrong = differences(server, needed).await;
        if wrong.is_empty() {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{wrong:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every answer is one that a small registry could have given whose collector takes what no manifest needs at any moment;
/// in the end, what manifests need is there, and nothing else. `WHARF_HISTORIES` and `WHARF_SEED` as for the model without it.
///
/// Spec: DEL-2, DEL-3, MNT-1, MPUT-9.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_clients_see_one_registry_beside_a_greedy_collector() {
    let histories = if number("WHARF_LONG", 0) == 1 {
        600
    } else {
        20
    };
    let first = number("WHARF_SEED", 1);
    let mut server = TestServer::start(greedy()).await;
    let mut worlds = Vec::new();
    for seed in first..first + number("WHARF_HISTORIES", histories) {
        let (events, world) = history(&server, seed, true).await;
        explain(seed, &events, true);
        worlds.push(world);
        // A store of many worlds takes longer to compare and tells no more.
        if worlds.len() == 10 {
            let client = server.admin(Version::Http1);
            let mut needed = Vec::new();
            for world in &worlds {
                needed.extend(world.needed(&client).await);
            }
            settled(&server, &needed).await;
            server.stop().await;
            server.again().await;
            settled(&server, &needed).await;
            let client = server.admin(Version::Http1);
            for world in worlds.drain(..) {
                world.clear(&client).await;
            }
            settled(&server, &[]).await;
        }
    }
}

/// The check above is no good unless it notices: bytes that nothing names, a blob that nothing needs, one that is gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_or_lost_is_noticed() {
    let server = TestServer::start(TestOptions::default()).await;
    let client = server.admin(Version::Http1);
    let (kept, other) = (Content::random(200_000), Content::random(200_000));
    for content in [&kept, &other] {
        client.push_blob("team/app", content).await;
    }
    let all = |contents: &[&Content]| -> Vec<(String, Content)> {
        let of = |content: &&Content| ("team/app".to_owned(), (*content).clone());
        contents.iter().map(of).collect()
    };
    let wrong = differences(&server, &all(&[&kept, &other])).await;
    // Both are candidates since their push.
    assert!(
        wrong.len() == 2 && wrong.iter().all(|one| one.contains("candidate")),
        "{wrong:?}"
    );
    let wrong = differences(&server, &all(&[&kept])).await;
    let about = |wrong: &[String], what: &str, content: &Content| {
        let about = |one: &&String| one.contains(what) && one.contains(content.digest.encoded());
        wrong.iter().filter(about).count()
    };
    for what in ["the row of the blob", "a link to", "is left"] {
        assert!(about(&wrong, what, &other) > 0, "{what}: {wrong:?}");
        assert_eq!(
            about(&wrong, what, &kept),
            usize::from(what == "is left"),
            "{wrong:?}"
        );
    }
    // Bytes that a collector forgot: the row goes, they stay.
    let registry = &server.app().registry;
    gc::pause(&registry.meta, "a test").await.unwrap();
    let due = i64::MAX;
    let mark = candidate::Collect {
        due,
        limit: 25,
        at: 1,
    };
    assert_eq!(registry.meta.write(mark).await.unwrap().blobs, 2);
    let page = rows::Garbage {
        after: None,
        limit: ALL,
    };
    let keys = registry.meta.scan(page).await.unwrap();
    registry.meta.write(rows::Collected { keys }).await.unwrap();
    let wrong = differences(&server, &[]).await;
    assert!(
        wrong.len() == 2 && wrong.iter().all(|one| one.contains("the file or object")),
        "{wrong:?}"
    );
    let wrong = differences(&server, &all(&[&kept])).await;
    assert!(
        about(&wrong, "is needed, and it is not there", &kept) == 2,
        "{wrong:?}"
    );
    assert!(about(&wrong, "is answered 404", &kept) == 1, "{wrong:?}");
}

/// The process ends between the mark and the removal; the same blobs and the manifest come again before the bytes go.
///
/// Spec: MNT-1, MPUT-9.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_again_between_mark_and_removal_has_bytes_of_its_own() {
    let mut options = greedy();
    // Jobs are run by the test alone.
    options.config += "[server]\nrun = [\"web\"]\n";
    let mut server = TestServer::start(options).await;
    let images = images();
    let image = &images[0];
    for end in [false, true, true] {
        let client = server.admin(Version::Http1);
        client.push_image("team/app", "v1", image).await;
        let before = server.kept_blobs();
        let path = manifest("team/app", &image.manifest.digest);
        client.delete(&path).send().await.expect_status(202);
        let registry = &server.app().registry;
        let mut purge = gc::Purge::default();
        while purge.step(registry).await.unwrap() != wharf_core::job::Step::Done {}
        // One step marks; the next ones would look for more, and then remove.
        gc::Collect::default().step(registry).await.unwrap();
        let page = rows::Garbage {
            after: None,
            limit: ALL,
        };
        let marked = registry.meta.scan(page).await.unwrap();
        assert_eq!((marked.len(), before.len()), (2, 2), "{marked:?}");
        assert_eq!(server.kept_blobs(), before);
        if end {
            server.stop().await;
            server.again().await;
        }
        let client = server.admin(Version::Http2);
        let layer = &image.layers[0];
        assert!(!holds(&client, "team/app", layer).await);
        let mount = format!(
            "/v2/team/side/blobs/uploads/?mount={}&from=team/app",
            layer.digest
        );
        client.post(&mount).send().await.expect_status(202);
        client
            .put_manifest("team/app", "v1", &image.manifest)
            .send()
            .await
            .expect_status(400);
        client.push_image("team/app", "v1", image).await;
        client.post(&mount).send().await.expect_status(201);
        gc::free_now(&server.app().registry, false).await.unwrap();
        is_whole(&client, "team/app", "v1", image).await;
        let after = server.kept_blobs();
        assert!(
            after.len() == 2 && after.iter().all(|one| !before.contains(one)),
            "{after:?}"
        );
        client.delete(&path).send().await.expect_status(202);
        gc::free_now(&server.app().registry, false).await.unwrap();
        settled(&server, &[]).await;
    }
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !done().await {
        assert!(begun.elapsed() < PATIENCE, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Spec: DEL-2, DEL-3, MNT-1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_greedy_collector_takes_nothing_that_is_referred_to_and_leaves_nothing_else() {
    let server = TestServer::start(greedy()).await;
    let images = images();
    let mut clients = Vec::new();
    for at in 0..4_usize {
        let client = server.admin(Version::ALL[at % 2]);
        let images = images.clone();
        clients.push(tokio::spawn(async move {
            let name = format!("team/r{at}");
            for round in 0..12_usize {
                let image = &images[(at + round) % images.len()];
                let tag = format!("t{at}");
                push(&client, &name, &tag, image).await;
                is_whole(&client, &name, &tag, image).await;
                // A mount that may or may not find its source: never an error, never half.
                let layer = &image.layers[0].digest;
                let from = format!("team/r{}", (at + 1) % 4);
                let query = format!("/v2/{name}/blobs/uploads/?mount={layer}&from={from}");
                let mounted = client.post(&query).send().await;
                assert!(matches!(mounted.status.as_u16(), 201 | 202), "{mounted}");
                is_whole(&client, &name, &tag, image).await;
                if round % 3 == 2 {
                    let digest = &image.manifest.digest;
                    client
                        .delete(&manifest(&name, digest))
                        .send()
                        .await
                        .expect_status(202);
                }
            }
        }));
    }
    for client in clients {
        client.await.expect("a client that does not panic");
    }
    let client = server.admin(Version::Http1);
    for at in 0..4 {
        let name = format!("team/r{at}");
        for image in &images {
            let answer = client
                .delete(&manifest(&name, &image.manifest.digest))
                .send()
                .await;
            assert!(matches!(answer.status.as_u16(), 202 | 404), "{answer}");
        }
    }
    settled(&server, &[]).await;
    let totals = server
        .app()
        .registry
        .meta
        .read(wharf_meta::repository::GetTotals)
        .await
        .unwrap();
    assert_eq!(
        (
            totals.blobs,
            totals.blob_bytes,
            totals.manifests,
            totals.tags
        ),
        (0, 0, 0, 0)
    );
}

#[tokio::test]
async fn kills_between_mark_and_removal_lose_nothing_and_leave_nothing() {
    let mut server = Process::start(Path::new(WHARF), greedy()).await;
    let images = images();
    for round in 0..6 {
        let client = server.admin(Version::Http1);
        let kept = &images[round % images.len()];
        push(&client, "team/app", "kept", kept).await;
        for image in &images {
            push(&client, "team/app", "other", image).await;
        }
        let gone = &images[(round + 1) % images.len()].manifest;
        client
            .delete(&manifest("team/app", &gone.digest))
            .send()
            .await
            .expect_status(202);
        // At another moment of the collector's work each time.
        tokio::time::sleep(Duration::from_millis(37 * round as u64)).await;
        server.kill();
        server.again().await;
        is_whole(&server.admin(Version::Http1), "team/app", "kept", kept).await;
    }
    let client = server.admin(Version::Http1);
    for image in &images {
        let answer = client
            .delete(&manifest("team/app", &image.manifest.digest))
            .send()
            .await;
        assert!(matches!(answer.status.as_u16(), 202 | 404), "{answer}");
    }
    // A file whose row a kill prevented is for the sweep, a day later: none of these pushes was cut.
    until("no files", async || server.kept_blobs().is_empty()).await;
}
