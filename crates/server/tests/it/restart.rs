//! What survives the end of the process: everything that was acknowledged, and nothing else is claimed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_testkit::client::Step;
use wharf_testkit::{Client, Content, Image, Process, TestOptions, TestServer, Version};

use crate::support::{blob, chunk, finish, holds, manifest, standing};

async fn start() -> Process {
    Process::start(
        Path::new(env!("CARGO_BIN_EXE_wharf")),
        TestOptions::default(),
    )
    .await
}

/// Bytes that a session holds, by its own account.
async fn offset(client: &Client, location: &str) -> usize {
    let range = standing(client, location).await;
    let last: usize = range
        .strip_prefix("0-")
        .and_then(|last| last.parse().ok())
        .expect(&range);
    // "0-0" is said of nothing and of one byte; no test here sends just one.
    if last == 0 { 0 } else { last + 1 }
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path))
        } else {
            found.push(path)
        }
    }
    found
}

/// Spec: UP-4, UP-26, UP-31.
#[tokio::test]
async fn a_session_goes_on_after_kill_9_where_it_was_durable() {
    let mut server = start().await;
    for size in [3_000, 3_000_000] {
        let content = Content::random(size * 3);
        let client = server.admin(Version::Http1);
        let location = client.start_upload("team/app").await;
        let first = content.bytes.slice(..size);
        chunk(&client, &location, 0, &first)
            .send()
            .await
            .expect_status(202);
        // Killed in the middle of the second chunk.
        let steps = [
            Step::Data(content.bytes.slice(size..size * 2 - 100)),
            Step::Pause(Duration::from_secs(30)),
        ];
        let range = format!("{size}-{}", size * 2 - 1);
        let request = client
            .patch(&location)
            .header("content-range", &range)
            .script(Some(size as u64), steps);
        let cut_off = tokio::spawn(request.try_send());
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.kill();
        cut_off.await.unwrap().expect_err("the server is gone");
        server.again().await;

        let client = server.admin(Version::Http2);
        let held = offset(&client, &location).await;
        assert!((size..size * 2).contains(&held), "{held} of {size}");
        // Neither before nor behind that place.
        for wrong in [held - 1, held + 1] {
            chunk(&client, &location, wrong, &content.bytes.slice(wrong..))
                .send()
                .await
                .expect_status(416);
        }
        chunk(&client, &location, held, &content.bytes.slice(held..))
            .send()
            .await
            .expect_status(202);
        finish(&client, &location, &content.digest, "")
            .send()
            .await
            .expect_status(201);
        assert!(holds(&client, "team/app", &content).await);
    }
}

/// Spec: UP-26, UP-31.
#[tokio::test]
async fn the_length_of_a_file_proves_nothing() {
    let mut server = Process::start(
        Path::new(env!("CARGO_BIN_EXE_wharf")),
        TestOptions::on_files(),
    )
    .await;
    let content = Content::random(2_000_000);
    let client = server.admin(Version::Http1);
    let location = client.start_upload("team/app").await;
    chunk(&client, &location, 0, &content.bytes.slice(..1_000_000))
        .send()
        .await
        .expect_status(202);
    server.kill();
    // As a crash can leave it: longer than what the row claims, with other bytes.
    let uploads = files(&server.folder().join("data"));
    let file = uploads
        .iter()
        .find(|path| path.metadata().is_ok_and(|file| file.len() == 1_000_000))
        .expect("the upload's file");
    use std::io::Write as _;
    let mut file = std::fs::File::options().append(true).open(file).unwrap();
    file.write_all(&[7; 500_000]).unwrap();
    drop(file);
    server.again().await;
    assert_eq!(offset(&client, &location).await, 1_000_000);
    finish(
        &client,
        &location,
        &content.digest,
        content.bytes.slice(1_000_000..),
    )
    .send()
    .await
    .expect_status(201);
    assert!(holds(&client, "team/app", &content).await);
}

/// Spec: UP-10, MPUT-1, DEL-4.
#[tokio::test]
async fn what_was_acknowledged_is_there_after_kill_9() {
    let mut server = start().await;
    for round in 0..5 {
        let client = server.admin(Version::ALL[round % 2]);
        let name = format!("team/app{round}");
        let (image, large, gone) = (
            Image::random(),
            Content::random(1_000_000),
            Content::random(100),
        );
        client.push_image(&name, "v1", &image).await;
        client.push_blob(&name, &gone).await;
        client
            .delete(&blob(&name, &gone.digest))
            .send()
            .await
            .expect_status(202);
        client.push_blob(&name, &large).await;
        server.kill();
        server.again().await;
        let got = client
            .get(&manifest(&name, "v1"))
            .send()
            .await
            .expect_status(200);
        assert_eq!(got.body, image.manifest.bytes);
        for content in image.blobs().chain([&large]) {
            assert!(holds(&client, &name, content).await);
        }
        assert!(!holds(&client, &name, &gone).await);
    }
}

/// Spec: UP-4, UP-40.
#[tokio::test]
async fn sessions_survive_an_orderly_end_and_cancelled_ones_do_not_return() {
    let mut server = start().await;
    let client = server.admin(Version::Http1);
    let (kept, cancelled) = (
        client.start_upload("team/app").await,
        client.start_upload("team/app").await,
    );
    let content = Content::random(40_000);
    for location in [&kept, &cancelled] {
        chunk(&client, location, 0, &content.bytes.slice(..30_000))
            .send()
            .await
            .expect_status(202);
    }
    client.delete(&cancelled).send().await.expect_status(204);
    let status = server.terminate().await;
    assert!(status.success(), "{status}:\n{}", server.output());
    server.again().await;
    client
        .get(&cancelled)
        .send()
        .await
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(offset(&client, &kept).await, 30_000);
    finish(
        &client,
        &kept,
        &content.digest,
        content.bytes.slice(30_000..),
    )
    .send()
    .await
    .expect_status(201);
}

/// Spec: UP-10.
#[tokio::test]
async fn requests_under_way_are_finished_before_an_orderly_end() {
    let mut server = start().await;
    let client = server.admin(Version::Http1);
    let content = Content::random(1_000_000);
    let path = format!("/v2/team/app/blobs/uploads/?digest={}", content.digest);
    let (first, last) = (
        content.bytes.slice(..500_000),
        content.bytes.slice(500_000..),
    );
    let steps = [
        Step::Data(first),
        Step::Pause(Duration::from_secs(1)),
        Step::Data(last),
    ];
    let push = tokio::spawn(client.post(&path).script(Some(1_000_000), steps).send());
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.signal_term();
    push.await.unwrap().expect_status(201);
    let status = server.ended().await;
    assert!(status.success(), "{status}:\n{}", server.output());
    server.again().await;
    assert!(holds(&client, "team/app", &content).await);
}

/// Its worker once asked for jobs as fast as it could from then on.
#[tokio::test]
async fn what_is_dropped_without_an_end_is_looked_after_no_more() {
    let server = TestServer::start(TestOptions::default()).await;
    let registry = Arc::downgrade(&server.app().registry);
    drop(server);
    let begun = Instant::now();
    while registry.strong_count() > 0 {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "somebody holds the registry"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
