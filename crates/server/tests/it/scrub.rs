//! Scrubbing as clients and operators see it, over whichever stores: what turned bad is found, told, and healed by a push.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_core::job::{Job as _, Step};
use wharf_core::scrub::Scrub;
use wharf_meta::event;
use wharf_testkit::options::on_bucket;
use wharf_testkit::s3::{BUCKET, Fault, Kind};
use wharf_testkit::{Client, Content, Process, S3, TestOptions, TestServer, Version};

use crate::support::{blob, holds};

const NAME: &str = "team/app";

/// A bucket where the tests run on one: its files are to be damaged.
async fn options() -> TestOptions {
    TestOptions {
        s3: match on_bucket() {
            true => Some(Arc::new(S3::start().await)),
            false => None,
        },
        ..TestOptions::default()
    }
}

/// Flips a bit of a blob's file or object.
fn damage(options: &TestOptions, kept: &[PathBuf], content: &Content) {
    let name = |path: &&PathBuf| path.to_string_lossy().contains(content.digest.encoded());
    let found = kept.iter().find(name).expect("its file or object");
    let file = match &options.s3 {
        Some(s3) => s3.folder().join(BUCKET).join(found),
        None => found.clone(),
    };
    let mut bytes = std::fs::read(&file).expect("its bytes");
    bytes[77] ^= 1;
    std::fs::write(&file, bytes).expect("other bytes");
    let file = std::fs::File::open(&file).expect("its file");
    file.sync_all().expect("on the disk");
}

/// One pass over everything.
async fn pass(server: &TestServer) -> Scrub {
    let mut scrub = Scrub::default();
    while scrub.step(&server.app().registry).await.expect("a step") != Step::Done {}
    scrub
}

/// What the figures say about quarantine.
async fn quarantined(client: &Client) -> String {
    let figures = client.get("/metrics").send().await.expect_status(200);
    let text = String::from_utf8_lossy(&figures.body).into_owned();
    let line = text
        .lines()
        .find(|line| line.starts_with("wharf_blobs_quarantined"));
    line.expect("a figure").to_owned()
}

/// 404 to HEAD and to a mount; a GET is told what to do.
async fn is_condemned(client: &Client, content: &Content) {
    let address = blob(NAME, &content.digest);
    client.head(&address).send().await.expect_status(404);
    let refused = client.get(&address).send().await;
    let refused = refused.expect_error(404, "BLOB_UNKNOWN");
    let told = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(told.contains("damaged") && told.contains("push"), "{told}");
    let digest = &content.digest;
    let mount = format!("/v2/team/other/blobs/uploads/?mount={digest}&from={NAME}");
    client.post(&mount).send().await.expect_status(202);
}

/// Spec: BGET-1, MNT-1.
#[tokio::test]
async fn a_bit_that_turned_is_condemned_and_healed_by_the_next_push() {
    let options = options().await;
    let server = TestServer::start(options.clone()).await;
    let client = server.admin(Version::Http1);
    let (good, bad) = (Content::random(200_000), Content::random(200_000));
    for content in [&good, &bad] {
        client.push_blob(NAME, content).await;
    }
    assert_eq!(pass(&server).await.bad, 0);
    assert_eq!(quarantined(&client).await, "wharf_blobs_quarantined 0");
    damage(&options, &server.kept_blobs(), &bad);
    let scrub = pass(&server).await;
    assert_eq!((scrub.blobs, scrub.bad), (2, 1));
    is_condemned(&client, &bad).await;
    assert!(holds(&client, NAME, &good).await);
    assert_eq!(quarantined(&client).await, "wharf_blobs_quarantined 1");
    let list = event::List {
        after: 0,
        limit: 100,
    };
    let events = server.app().registry.meta.scan(list).await.unwrap();
    let condemned = events.iter().filter(|event| event.kind == "blob.condemn");
    let condemned: Vec<_> = condemned.map(|event| event.digest.as_deref()).collect();
    assert_eq!(condemned, [Some(bad.address())]);

    client.push_blob(NAME, &bad).await;
    assert!(holds(&client, NAME, &bad).await);
    assert_eq!(pass(&server).await.bad, 0);
}

/// What is bad once and good the next time was no damage: a cable, a cache, a service that has a bad moment.
#[tokio::test]
async fn bytes_that_come_wrong_once_condemn_nothing() {
    let s3 = Arc::new(S3::start().await);
    let options = TestOptions {
        s3: Some(s3.clone()),
        ..TestOptions::default()
    };
    let server = TestServer::start(options).await;
    let client = server.admin(Version::Http1);
    let content = Content::random(200_000);
    client.push_blob(NAME, &content).await;
    for fault in [Fault::Truncate, Fault::Cut, Fault::SlowDown] {
        s3.fault(Kind::Get, 0, 1, fault);
        assert_eq!(pass(&server).await.bad, 0, "{fault:?}");
        s3.heal();
        assert!(holds(&client, NAME, &content).await, "{fault:?}");
    }
}

/// The way of docs/how-to/garbage-collection-and-undelete.md: the job, and the list.
#[tokio::test]
async fn an_operator_has_everything_read_and_sees_what_is_bad() {
    let options = options().await;
    let binary = Path::new(env!("CARGO_BIN_EXE_wharf"));
    let server = Process::start(binary, options.clone()).await;
    let client = server.admin(Version::Http1);
    let content = Content::random(200_000);
    client.push_blob(NAME, &content).await;
    damage(&options, &server.kept_blobs(), &content);
    let data = server.folder().join("data");
    let wharf = async |words: &'static [&'static str]| {
        let data = data.clone();
        let run = move || {
            Command::new(binary)
                .args(words)
                .arg("--data")
                .arg(data)
                .output()
        };
        let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    wharf(&["job", "run", "storage.scrub"]).await;
    let begun = Instant::now();
    loop {
        let told = wharf(&["storage", "verify", "--list"]).await;
        if told.contains(content.address()) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{told}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    is_condemned(&client, &content).await;
    client.push_blob(NAME, &content).await;
    assert!(holds(&client, NAME, &content).await);
}
