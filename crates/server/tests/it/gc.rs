//! Collection beside clients: nothing that is referred to ever goes, and after quiet nothing else is left.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use wharf_testkit::client::with_query;
use wharf_testkit::content::{ImageSpec, seeded_bytes};
use wharf_testkit::{Client, Content, Image, Process, TestOptions, TestServer, Version};

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

async fn is_whole(client: &Client, name: &str, tag: &str, image: &Image) {
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
    until("no files", async || server.kept_blobs().is_empty()).await;
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

/// Runs a command off the runtime, so that the server's answers go on being read.
async fn wharf(server: &Process, args: &[&str]) -> Output {
    let mut args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    args.push("--data".into());
    args.push(server.folder().join("data").to_str().unwrap().to_owned());
    tokio::task::spawn_blocking(move || Command::new(WHARF).args(args).output())
        .await
        .unwrap()
        .unwrap()
}

#[track_caller]
fn expect(output: &Output, code: i32) -> String {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

/// The way of docs/how-to/garbage-collection-and-undelete.md.
#[tokio::test]
async fn an_operator_undoes_a_deletion_and_frees_the_disk() {
    let server = Process::start(Path::new(WHARF), TestOptions::default()).await;
    let client = server.admin(Version::Http1);
    let image = Image::random();
    client.push_image("team/app", "v1", &image).await;
    client
        .delete(&manifest("team/app", &image.manifest.digest))
        .send()
        .await
        .expect_status(202);
    let told = expect(&wharf(&server, &["repo", "history", "team/app"]).await, 0);
    let digest = image.manifest.address().to_owned();
    assert!(
        told.contains(&format!("manifest {digest} deleted by admin")),
        "{told}"
    );
    let reference = format!("team/app@{digest}");
    let told = expect(
        &wharf(&server, &["manifest", "restore", &reference]).await,
        0,
    );
    assert!(told.contains("Tag v1 stands at"), "{told}");
    is_whole(&client, "team/app", "v1", &image).await;
    let told = expect(
        &wharf(&server, &["manifest", "restore", &reference]).await,
        2,
    );
    assert!(told.contains("wharf repo history"), "{told}");

    client
        .delete(&manifest("team/app", "v1"))
        .send()
        .await
        .expect_status(202);
    let told = expect(&wharf(&server, &["tag", "history", "team/app:v1"]).await, 0);
    assert!(
        told.contains("version 4") && told.contains("nowhere"),
        "{told}"
    );
    let told = expect(&wharf(&server, &["tag", "restore", "team/app:v1"]).await, 0);
    assert!(told.contains("Tag v1 stands at"), "{told}");
    is_whole(&client, "team/app", "v1", &image).await;

    let unused = Content::random(200_000);
    client.push_blob("team/app", &unused).await;
    client
        .delete(&manifest("team/app", &image.manifest.digest))
        .send()
        .await
        .expect_status(202);
    let told = expect(&wharf(&server, &["gc", "plan"]).await, 0);
    assert!(
        told.contains(unused.address()) && told.contains("no manifest refers to it"),
        "{told}"
    );
    assert!(told.contains("1 deleted manifest"), "{told}");
    let told = expect(&wharf(&server, &["gc", "run"]).await, 0);
    assert!(told.contains("0 blobs"), "{told}");
    let told = expect(&wharf(&server, &["gc", "run", "--now"]).await, 2);
    assert!(
        told.contains("cannot be undone") && told.contains("--yes"),
        "{told}"
    );
    let told = expect(&wharf(&server, &["gc", "run", "--now", "--yes"]).await, 0);
    assert!(told.contains("1 deleted manifest can no longer"), "{told}");
    assert!(server.kept_blobs().is_empty());
    assert!(!holds(&client, "team/app", &unused).await);

    let told = expect(&wharf(&server, &["job", "list"]).await, 0);
    for kind in ["gc.collect", "manifest.purge", "storage.scrub", "gc.audit"] {
        assert!(told.contains(kind), "{told}");
    }
    expect(&wharf(&server, &["job", "run", "storage.sweep"]).await, 0);
    let told = expect(&wharf(&server, &["job", "run", "no.such"]).await, 2);
    assert!(told.contains("wharf job list"), "{told}");
    let told = expect(&wharf(&server, &["repo", "list", "--size"]).await, 0);
    assert!(told.contains("team/app"), "{told}");
    let whole = Image::random();
    client.push_image("team/app", "v2", &whole).await;
    for list in ["--size", "--prefixes"] {
        let told = expect(&wharf(&server, &["repo", "list", list, "--json"]).await, 0);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let size: usize = whole.blobs().map(|blob| blob.bytes.len()).sum();
        let size = size + whole.manifest.bytes.len();
        assert_eq!(told[0]["size"], size, "{told}");
    }
    expect(&wharf(&server, &["storage", "verify", "--list"]).await, 0);
    expect(
        &wharf(&server, &["gc", "pause", "--reason", "a test"]).await,
        0,
    );
    let told = expect(&wharf(&server, &["gc", "run"]).await, 2);
    assert!(
        told.contains("a test") && told.contains("wharf gc resume"),
        "{told}"
    );
    expect(&wharf(&server, &["gc", "resume"]).await, 0);
    expect(&wharf(&server, &["gc", "run"]).await, 0);
}
