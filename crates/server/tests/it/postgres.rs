//! Metadata in PostgreSQL: what only shows with a database of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_testkit::s3::S3;
use wharf_testkit::test_server::{self, TestServer as Database};
use wharf_testkit::{Client, Content, Image, ImageSpec, Process, TestOptions, TestServer, Version};

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

/// What one replica revokes is refused by the other within five seconds, whatever that one has seen and remembers.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_revokes_the_other_refuses() {
    let options = on(test_server::shared().database());
    let one = TestServer::start(options.clone()).await;
    let two = TestServer::start(options).await;
    let (first, second) = (one.admin(Version::Http1), two.admin(Version::Http1));
    first.push_image("team/app", "v1", &Image::random()).await;
    let token = second.fetch_token(&["repository:team/app:pull"]).await;
    let token = token.json()["token"].as_str().unwrap().to_owned();
    let bearer = second.clone().anonymous().with_token(&token);
    let list = "/v2/team/app/tags/list";
    for client in [&second, &bearer, &second, &bearer] {
        client.get(list).send().await.expect_status(200);
    }

    let access = &one.app().registry.access;
    let now = one.app().registry.clock.now_ms();
    access.reset_admin_password(None, now).await.unwrap();
    let begun = Instant::now();
    for client in [&second, &bearer] {
        while client.get(list).send().await.status != 401 {
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
    }
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

/// Two servers over one database, one of which makes a backup: no bytes go on the other one meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_hold_keeps_bytes_on_every_replica() {
    let options = on(test_server::shared().database());
    let server = TestServer::start(options).await;
    let client = server.admin(Version::Http1);
    let blob = Content::random(200_000);
    client.push_blob("team/app", &blob).await;
    let registry = &server.app().registry;
    let take = wharf_meta::hold::Take {
        id: "another replica".into(),
        first: true,
        lasts: 3_600_000,
        at: 0,
    };
    assert!(registry.meta.write(take).await.unwrap());
    // Its row goes, its bytes stay.
    let freed = wharf_core::gc::free_now(registry, true).await.unwrap();
    assert_eq!((freed.blobs, freed.keys), (1, 0));
    let release = wharf_meta::hold::Release {
        id: "another replica".into(),
        at: 0,
    };
    assert!(registry.meta.write(release).await.unwrap());
    let freed = wharf_core::gc::free_now(registry, true).await.unwrap();
    assert_eq!((freed.blobs, freed.keys), (0, 1));
}

/// An older state of the database is put back under a server that runs: it says so, and collects nothing until told to.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_lost_writes_is_found_out() {
    let postgres: &'static Database = Box::leak(Box::new(Database::start(&[])));
    let server = TestServer::start(on(postgres.database())).await;
    let client = server.admin(Version::Http1);
    client.push_image("team/app", "v1", &Image::random()).await;
    let before = tempfile::tempdir().unwrap();
    let copy = |from: &Path, to: &Path| {
        let done = std::process::Command::new("cp")
            .args(["-a", "-T"])
            .args([from, to])
            .status();
        assert!(done.unwrap().success());
    };
    let saved = before.path().join("data");
    tokio::task::block_in_place(|| {
        postgres.stop();
        copy(postgres.folder(), &saved);
        postgres.again();
    });
    let target = "/v2/team/app/manifests/v1";
    until_ok(&client, target).await;
    let registry = &server.app().registry;
    assert_eq!(wharf_core::gc::paused(registry).await.unwrap(), None);
    assert_eq!(registry.meta.loss(), None, "a start anew is no loss");
    client.push_image("team/app", "v2", &Image::random()).await;
    tokio::task::block_in_place(|| {
        postgres.stop();
        std::fs::remove_dir_all(postgres.folder()).unwrap();
        copy(&saved, postgres.folder());
        postgres.again();
    });
    until_ok(&client, target).await;
    client
        .get("/v2/team/app/manifests/v2")
        .send()
        .await
        .expect_status(404);
    let started = Instant::now();
    let reason = loop {
        if let Some(reason) = wharf_core::gc::paused(registry).await.unwrap() {
            break reason;
        }
        assert!(started.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(reason.contains("lost writes"), "{reason}");
}

/// What a backup holds comes back, in a new database and a new folder, whatever was deleted and collected since.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_into_another_database() {
    let options = TestOptions {
        files: true,
        ..on(test_server::shared().database())
    };
    let mut server = Process::start(Path::new(env!("CARGO_BIN_EXE_wharf")), options).await;
    let client = server.admin(Version::Http1);
    let image = Image::random();
    let large = Content::random(300_000);
    client.push_image("team/app", "v1", &image).await;
    client.push_blob("team/app", &large).await;
    let folder = server.folder().to_owned();
    let (data, backup) = (folder.join("data"), folder.join("backup"));
    let wharf = async |args: &[&str], url: String| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wharf"));
        command.args(args).env("WHARF_METADATA_URL", url);
        let out = tokio::task::spawn_blocking(move || command.output());
        let out = out.await.unwrap().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (out.status.success(), text(&out.stdout) + &text(&out.stderr))
    };
    let (data_text, backup_text) = (data.to_str().unwrap(), backup.to_str().unwrap());
    let none = String::new;
    let create = ["backup", "create", backup_text, "--data", data_text];
    let (done, told) = wharf(&create, none()).await;
    assert!(done, "{told}");

    let digest = &image.manifest.digest;
    client
        .delete(&format!("/v2/team/app/manifests/{digest}"))
        .send()
        .await
        .expect_status(202);
    let free = ["gc", "run", "--now", "--yes", "--data", data_text];
    let (done, told) = wharf(&free, none()).await;
    assert!(done, "{told}");
    assert!(server.terminate().await.success());

    // A database that holds something is refused before anything is done.
    let new = folder.join("new");
    let restore = [
        "backup",
        "restore",
        backup_text,
        "--data",
        new.to_str().unwrap(),
    ];
    let used = test_server::shared().database();
    let options = wharf_meta::PostgresOptions::new(used.url());
    let (meta, _) = wharf_meta::Meta::connect(options).await.unwrap();
    let (key, value) = ("a".to_owned(), "b".to_owned());
    let put = wharf_meta::setting::Put { key, value };
    meta.write(put).await.unwrap();
    meta.close().await;
    let (done, told) = wharf(&restore, used.url()).await;
    assert!(
        !done && told.contains("metadata.url: the target holds"),
        "{told}"
    );
    assert!(!new.exists());

    let database = Arc::new(test_server::shared().empty(""));
    let (done, told) = wharf(&restore, database.url()).await;
    assert!(done, "{told}");
    assert!(!new.join("wharf.db").exists());
    std::fs::rename(&data, folder.join("old")).unwrap();
    std::fs::rename(&new, &data).unwrap();
    server.set_database(Some(database));
    server.again().await;
    let got = client
        .get("/v2/team/app/manifests/v1")
        .send()
        .await
        .expect_status(200);
    assert_eq!(got.body, image.manifest.bytes);
    for blob in image.blobs().chain([&large]) {
        assert!(crate::support::holds(&client, "team/app", blob).await);
    }
    let (_, told) = wharf(&["gc", "plan", "--data", data_text], none()).await;
    assert!(told.contains("a backup was restored"), "{told}");
}

/// The pair of PostgreSQL and a bucket: a backup of the metadata is restored beside the bucket as it is by then. What was
/// deleted since has kept its bytes, although everything that can go has gone; what was pushed since is found again.
#[tokio::test(flavor = "multi_thread")]
async fn the_metadata_alone_is_restored_beside_the_bucket() {
    let s3 = Arc::new(S3::start().await);
    let options = TestOptions {
        s3: Some(s3.clone()),
        config: "[gc]\ngrace = \"0s\"\nevery = \"1h\"\n".into(),
        ..on(test_server::shared().database())
    };
    let mut server = Process::start(Path::new(env!("CARGO_BIN_EXE_wharf")), options).await;
    let client = server.admin(Version::Http1);
    let large = |length| {
        let layers = vec![length];
        ImageSpec {
            layers,
            ..ImageSpec::default()
        }
        .build()
    };
    let (image, later) = (large(9_000_000), large(300_000));
    let files = || {
        let objects = s3.objects();
        objects
            .iter()
            .filter(|path| path.starts_with("blobs"))
            .count()
    };
    client.push_image("team/app", "v1", &image).await;

    let folder = server.folder().to_owned();
    let (backup, config) = (folder.join("backup"), folder.join("wharf.toml"));
    let (backup, config) = (backup.to_str().unwrap(), config.to_str().unwrap());
    let (data, new) = (folder.join("data"), folder.join("new"));
    let wharf = async |args: &[&str], data: &Path, url: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_wharf"));
        command
            .args(args)
            .env("WHARF__SERVER__DATA", data)
            .env("WHARF_METADATA_URL", url)
            .envs(s3.environment());
        let out = tokio::task::spawn_blocking(move || command.output());
        let out = out.await.unwrap().unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        let told = text(&out.stdout) + &text(&out.stderr);
        assert!(out.status.success(), "{told}");
        told
    };
    let create = ["backup", "create", backup, "--metadata-only"];
    let told = wharf(&create, &data, "").await;
    assert!(told.contains("the metadata."), "{told}");
    assert!(!Path::new(backup).join("blobs").exists());
    wharf(&["backup", "verify", backup], &data, "").await;

    let path = format!("/v2/team/app/manifests/{}", image.manifest.digest);
    client.delete(&path).send().await.expect_status(202);
    client.push_image("team/app", "v2", &later).await;
    client
        .push_blob("team/app", &Content::random(200_000))
        .await;
    assert_eq!(files(), 3);
    // What no manifest names goes; what the deleted one names stays.
    wharf(&["gc", "run"], &data, "").await;
    assert_eq!(files(), 2);
    client.get(&path).send().await.expect_status(404);
    assert!(server.terminate().await.success());

    let database = Arc::new(test_server::shared().empty(""));
    let restore = ["backup", "restore", backup, "--config", config];
    let told = wharf(&restore, &new, &database.url()).await;
    assert!(told.contains("expected in the bucket"), "{told}");
    assert!(
        told.contains("sealed with the secret key") && told.contains("which no backup holds"),
        "{told}"
    );
    assert_eq!(files(), 2, "the bucket was changed");
    std::fs::rename(&data, folder.join("old")).unwrap();
    std::fs::rename(&new, &data).unwrap();
    server.set_database(Some(database));
    server.again().await;
    let got = client.get("/v2/team/app/manifests/v1").send().await;
    assert_eq!(got.expect_status(200).body, image.manifest.bytes);
    for blob in image.blobs() {
        assert!(crate::support::holds(&client, "team/app", blob).await);
    }
    let told = wharf(&["storage", "verify", "--deep"], &data, "").await;
    assert!(told.contains("all sound"), "{told}");
    let adopt = ["storage", "reindex", "--repository", "team/app"];
    wharf(&adopt, &data, "").await;
    assert!(crate::support::holds(&client, "team/app", &later.layers[0]).await);
}

/// The fewest round trips to the database that a request took of some; work in the background adds its own to others.
async fn fewest(server: &TestServer, request: impl AsyncFn(usize)) -> u64 {
    let mut fewest = u64::MAX;
    for n in 0..12 {
        let before = server.app().registry.meta.stats().round_trips;
        request(n).await;
        let after = server.app().registry.meta.stats().round_trips;
        fewest = fewest.min(after - before);
    }
    fewest
}

/// As `docs/reference/performance.md` lists them: each is a wait for the network, whatever else is fast.
#[tokio::test(flavor = "multi_thread")]
async fn requests_take_the_round_trips_that_are_documented() {
    let server = TestServer::start(on(test_server::shared().database())).await;
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/performance.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut rows = Vec::new();
    // On a busy machine, work in the background may fall into each of some requests.
    for name in ["team/one", "team/two", "team/three"] {
        rows = round_trips(&server, name).await;
        if rows.iter().all(|row| page.contains(row)) {
            return;
        }
    }
    panic!("not on the page:\n{}", rows.join("\n"));
}

/// Rows of the page, as measured in a repository.
async fn round_trips(server: &TestServer, name: &str) -> Vec<String> {
    let client = server.admin(Version::Http1);
    let image = Image::random();
    client.push_image(name, "v1", &image).await;
    let large = Content::random(300_000);
    client.push_blob(name, &large).await;
    let client = &client;
    let small = &image.config;
    let get = async |target: String, status: u16| {
        client.get(&target).send().await.expect_status(status);
    };
    let head = async |target: String| {
        client.head(&target).send().await.expect_status(200);
    };
    let blob = |content: &Content| crate::support::blob(name, &content.digest);
    let manifest = |reference: &str| crate::support::manifest(name, reference);
    let digest = image.manifest.digest.to_string();
    let mut told = Vec::new();
    let mut tell = |what: &'static str, count: u64| told.push((what, count));
    tell(
        "HEAD blob",
        fewest(server, async |_| head(blob(&large)).await).await,
    );
    tell(
        "GET blob in a file",
        fewest(server, async |_| get(blob(&large), 200).await).await,
    );
    tell(
        "GET blob in the database",
        fewest(server, async |_| get(blob(small), 200).await).await,
    );
    tell(
        "GET manifest by tag",
        fewest(server, async |_| get(manifest("v1"), 200).await).await,
    );
    tell(
        "HEAD manifest by tag",
        fewest(server, async |_| head(manifest("v1")).await).await,
    );
    tell(
        "GET manifest by digest",
        fewest(server, async |_| get(manifest(&digest), 200).await).await,
    );
    let tags = format!("/v2/{name}/tags/list");
    tell(
        "tags/list",
        fewest(server, async |_| get(tags.clone(), 200).await).await,
    );
    tell(
        "push of a small blob",
        fewest(server, async |_| {
            client.push_blob(name, &Content::random(500)).await
        })
        .await,
    );
    tell(
        "push of a blob in a file",
        fewest(server, async |_| {
            client.push_blob(name, &Content::random(200_000)).await
        })
        .await,
    );
    let fresh: Vec<Image> = (0..12).map(|_| Image::random()).collect();
    for image in &fresh {
        for blob in image.blobs() {
            client.push_blob(name, blob).await;
        }
    }
    let put = async |n: usize| {
        client
            .push_manifest(name, &format!("new{n}"), &fresh[n].manifest)
            .await;
    };
    tell("PUT manifest, two layers", fewest(server, put).await);
    let remove = async |n: usize| {
        let target = manifest(&format!("new{n}"));
        client.delete(&target).send().await.expect_status(202);
    };
    tell("DELETE tag", fewest(server, remove).await);
    told.iter()
        .map(|(what, count)| format!("| {what} | {count} |"))
        .collect()
}
