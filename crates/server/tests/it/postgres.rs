//! Metadata in PostgreSQL: what only shows with a database of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_testkit::test_server::{self, TestServer as Database};
use wharf_testkit::{Client, Content, Image, Process, TestOptions, TestServer, Version};

/// Longest wait for something that comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

fn on(database: test_server::TestDatabase) -> TestOptions {
    TestOptions {
        database: Some(Arc::new(database)),
        ..TestOptions::default()
    }
}

async fn until_ok(client: &Client, target: &str) {
    let started = Instant::now();
    loop {
        let answer = client.get(target).send().await;
        if answer.status == 200 {
            return;
        }
        answer.expect_error(503, "UNAVAILABLE");
        assert!(started.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Requests say so and when to come back, the probe stays, and all is well by itself when the database is back.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_gone_is_told_and_waited_for() {
    let postgres: &'static Database = Box::leak(Box::new(Database::start(&[])));
    let server = TestServer::start(on(postgres.database())).await;
    let client = server.admin(Version::Http1);
    let image = Image::random();
    client.push_image("team/app", "v1", &image).await;
    for round in 0..2 {
        tokio::task::block_in_place(|| postgres.kill());
        let target = "/v2/team/app/manifests/v1";
        let answer = client.get(target).send().await;
        let told = String::from_utf8_lossy(&answer.body).into_owned();
        let answer = answer.expect_error(503, "UNAVAILABLE");
        answer.expect_header("retry-after");
        assert!(told.contains("database cannot be reached"), "{told}");
        client
            .put_manifest("team/app", "v2", &image.manifest)
            .send()
            .await
            .expect_error(503, "UNAVAILABLE");
        client.get("/readyz").send().await.expect_status(200);
        let verbose = client
            .get("/readyz?verbose")
            .send()
            .await
            .expect_status(200);
        let verbose = String::from_utf8(verbose.body.to_vec()).unwrap();
        assert!(verbose.contains("database cannot be reached"), "{verbose}");
        assert!(server.app().registry.meta.stats().unreachable.is_some());

        tokio::task::block_in_place(|| postgres.again());
        until_ok(&client, target).await;
        client
            .push_image("team/app", &format!("after{round}"), &Image::random())
            .await;
        let verbose = client
            .get("/readyz?verbose")
            .send()
            .await
            .expect_status(200);
        assert!(
            String::from_utf8_lossy(&verbose.body).contains("metadata: ok"),
            "{verbose}"
        );
    }
}

/// Two servers over one database: users, tokens, tags and deletions of one are those of the other, at once.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_acknowledged_the_other_serves() {
    let options = on(test_server::shared().database());
    let one = TestServer::start(options.clone()).await;
    let two = TestServer::start(options).await;
    let (first, second) = (one.admin(Version::Http1), two.admin(Version::Http2));
    for round in 0..10 {
        let (to, from) = if round % 2 == 0 {
            (&first, &second)
        } else {
            (&second, &first)
        };
        // Small blobs lie in the metadata: both have them.
        let blob = Content::random(1000);
        to.push_blob("team/app", &blob).await;
        let target = format!("/v2/team/app/blobs/{}", blob.digest);
        let got = from.get(&target).send().await.expect_status(200);
        assert_eq!(got.body, blob.bytes);

        let image = Image::random();
        to.push_image("team/app", "moving", &image).await;
        let got = from
            .get("/v2/team/app/manifests/moving")
            .send()
            .await
            .expect_status(200);
        assert_eq!(got.body, image.manifest.bytes);
        to.delete("/v2/team/app/manifests/moving")
            .send()
            .await
            .expect_status(202);
        from.get("/v2/team/app/manifests/moving")
            .send()
            .await
            .expect_status(404);
    }
    // A token of one is good at the other: they share the keys.
    let token = first.fetch_token(&["repository:team/app:pull"]).await;
    let token = token.json()["token"].as_str().unwrap().to_owned();
    let stranger = second.anonymous().with_token(&token);
    stranger
        .get("/v2/team/app/tags/list")
        .send()
        .await
        .expect_status(200);
}

/// Killed in the middle of pushes and started again: what was acknowledged is there, and the database is as it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_comes_back_to_the_same_database() {
    let options = on(test_server::shared().database());
    let mut server = Process::start(Path::new(env!("CARGO_BIN_EXE_wharf")), options).await;
    let image = Image::random();
    server
        .admin(Version::Http1)
        .push_image("team/app", "v1", &image)
        .await;
    server.kill();
    server.again().await;
    let got = server
        .admin(Version::Http1)
        .get("/v2/team/app/manifests/v1")
        .send()
        .await
        .expect_status(200);
    assert_eq!(got.body, image.manifest.bytes);
}

/// A URL that leads nowhere good ends the start with one sentence that names the key and the cure.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_holds_something_else_is_refused_at_the_start() {
    let database = test_server::shared().empty("");
    database.make_foreign();
    let folder = tempfile::tempdir().unwrap();
    let told = {
        let out = std::process::Command::new(env!("CARGO_BIN_EXE_wharf"))
            .args(["serve", "--data"])
            .arg(folder.path().join("data"))
            .env("WHARF_METADATA_URL", database.url())
            .output()
            .unwrap();
        assert!(!out.status.success());
        String::from_utf8(out.stderr).unwrap()
    };
    assert!(
        told.contains(
            "metadata.url: the database holds tables of something else, such as somebody_elses"
        ),
        "{told}"
    );
    assert_eq!(database.tables(), "somebody_elses", "nothing was written");
}
