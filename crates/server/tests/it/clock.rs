//! Clocks that are set: by hours in both directions, while the registry runs and while it does not.

use std::sync::Arc;

use wharf_core::clock::ManualClock;
use wharf_core::{Clock as _, upload};
use wharf_testkit::{Client, Content, Image, TestOptions, TestServer, Version};

use crate::support::{blob, chunk, finish, holds, manifest, standing};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
/// Some day in 2026.
const TODAY: i64 = 1_795_000_000_000;

async fn start() -> (TestServer, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(TODAY));
    let options = TestOptions {
        clock: Some(clock.clone()),
        ..Default::default()
    };
    (TestServer::start(options).await, clock)
}

async fn token(server: &TestServer) -> Client {
    let admin = server.admin(Version::Http1);
    let answer = admin
        .fetch_token(&["repository:team/app:pull,push,delete"])
        .await
        .expect_status(200);
    let token = answer.json()["token"].as_str().expect("a token").to_owned();
    admin.anonymous().with_token(&token)
}

/// Everything that was pushed is there, and all that clients do still works with a token of this moment.
async fn works(server: &TestServer, image: &Image, reference: &str) {
    let client = token(server).await;
    let stored = client.get(&manifest("team/app", "v1")).send().await;
    assert_eq!(stored.expect_status(200).body, image.manifest.bytes);
    for content in image.blobs() {
        assert!(holds(&client, "team/app", content).await);
    }
    client
        .push_image("team/app", reference, &Image::random())
        .await;
    client
        .delete(&manifest("team/app", reference))
        .send()
        .await
        .expect_status(202);
}

/// Spec: TOK-6, AUTH-20, UP-6.
#[tokio::test]
async fn the_clock_is_set_forward_and_back_while_it_runs() {
    let (server, clock) = start().await;
    let image = Image::random();
    let old = token(&server).await;
    old.push_image("team/app", "v1", &image).await;
    let (content, start) = (Content::random(50_000), old.start_upload("team/app").await);
    let half = content.bytes.slice(..20_000);
    let halfway = chunk(&old, &start, 0, &half)
        .send()
        .await
        .expect_status(202);
    let location = halfway.location().to_owned();

    for (at, leap) in [5 * HOUR, -10 * HOUR, 40 * DAY, -80 * DAY, 1_000]
        .into_iter()
        .enumerate()
    {
        clock.set(clock.now_ms() + leap);
        // What upkeep does every few minutes.
        let removed = upload::expire(&server.app().registry).await.unwrap();
        assert_eq!(removed, 0, "after a leap of {leap} ms");
        let answer = old.get(&manifest("team/app", "v1")).send().await;
        assert!(matches!(answer.status.as_u16(), 200 | 401), "{answer}");
        works(&server, &image, &format!("leap{at}")).await;
    }

    let client = token(&server).await;
    assert_eq!(standing(&client, &location).await, "0-19999");
    let rest = content.bytes.slice(20_000..);
    finish(&client, &location, &content.digest, rest)
        .send()
        .await
        .expect_status(201);
    assert!(holds(&client, "team/app", &content).await);
}

/// Spec: TOK-6.
#[tokio::test]
async fn a_token_ends_when_its_time_has_passed_and_not_before() {
    let (server, clock) = start().await;
    token(&server)
        .await
        .push_image("team/app", "v1", &Image::random())
        .await;
    let client = token(&server).await;
    let path = manifest("team/app", "v1");
    client.head(&path).send().await.expect_status(200);
    clock.set(TODAY + 5 * HOUR);
    client.head(&path).send().await.expect_status(401);
    // From where the server is now, it has not been issued yet by more than clocks may differ.
    clock.set(TODAY - 5 * HOUR);
    client.head(&path).send().await.expect_status(401);
    clock.set(TODAY);
    client.head(&path).send().await.expect_status(200);
}

/// Spec: UP-6, TOK-6.
#[tokio::test]
async fn the_clock_is_earlier_after_a_restart() {
    let (mut server, clock) = start().await;
    let image = Image::random();
    let client = token(&server).await;
    client.push_image("team/app", "v1", &image).await;
    let location = client.start_upload("team/app").await;
    server.stop().await;
    clock.set(TODAY - 30 * DAY);
    server.again().await;
    works(&server, &image, "earlier").await;
    assert_eq!(upload::expire(&server.app().registry).await.unwrap(), 0);
    let client = token(&server).await;
    client.get(&location).send().await.expect_status(204);
    // What has been there all along is still found first by its address.
    let path = blob("team/app", &image.config.digest);
    client.head(&path).send().await.expect_status(200);
}

/// An upload is forgotten once its age has really passed, leap or not.
///
/// Spec: UP-6.
#[tokio::test]
async fn uploads_grow_old_by_time_that_passes() {
    let (server, clock) = start().await;
    let client = token(&server).await;
    let location = client.start_upload("team/app").await;
    let registry = server.app().registry.clone();
    clock.set(TODAY + 30 * DAY);
    assert_eq!(upload::expire(&registry).await.unwrap(), 0);
    clock.advance(6 * DAY);
    assert_eq!(upload::expire(&registry).await.unwrap(), 0);
    clock.advance(DAY + HOUR);
    assert_eq!(upload::expire(&registry).await.unwrap(), 1);
    token(&server)
        .await
        .get(&location)
        .send()
        .await
        .expect_status(404);
}

/// What is about to be collected counts as absent for whoever would rely on it, and a manifest that names it keeps it.
///
/// Spec: MNT-1, BGET-1, MPUT-9.
#[tokio::test]
async fn in_the_last_hour_of_its_grace_a_blob_is_mounted_by_nobody_and_kept_by_a_manifest() {
    let (server, clock) = start().await;
    let client = server.admin(Version::Http1);
    let image = Image::random();
    for content in image.blobs() {
        client.push_blob("team/app", content).await;
    }
    let layer = &image.layers[0];
    let address = blob("team/app", &layer.digest);
    let mount = |into: &str| {
        let digest = &layer.digest;
        client.post(&format!(
            "/v2/{into}/blobs/uploads/?mount={digest}&from=team/app"
        ))
    };
    clock.advance(DAY - HOUR - 1);
    client.head(&address).send().await.expect_status(200);
    mount("team/before").send().await.expect_status(201);
    clock.advance(2);
    client.head(&address).send().await.expect_status(404);
    mount("team/after").send().await.expect_status(202);
    assert!(holds(&client, "team/app", layer).await);
    client
        .push_manifest("team/app", "v1", &image.manifest)
        .await;
    client.head(&address).send().await.expect_status(200);
    mount("team/after").send().await.expect_status(201);
    clock.advance(DAY);
    wharf_core::gc::free_now(&server.app().registry, false)
        .await
        .expect("a collection");
    for content in image.blobs() {
        assert!(holds(&client, "team/app", content).await);
    }
    let before = blob("team/before", &layer.digest);
    client.head(&before).send().await.expect_status(404);
}
