//! Disks that are full, read-only, broken or slow: clear errors, reads go on, nothing acknowledged is lost, and the process
//! goes on by itself when the disk does.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use wharf_core::clock::{Clock as _, SystemClock};
use wharf_meta::{Meta, SqliteOptions, session};
use wharf_testkit::{Client, Content, Image, Process, Response, TestOptions, Version};

use crate::browser::Browser;
use crate::disk_support::{Disk, Inject, figure, health, no_file, start, until};
use crate::support::{blob, chunk, finish, holds, manifest, standing};

/// Everything with which SQLite and the blob store write into files.
const WRITES: &str = "pwrite64,pwritev,pwritev2,fallocate,ftruncate";
const SYNCS: &str = "fsync,fdatasync";

/// A blob in one request.
async fn post(client: &Client, name: &str, content: &Content) -> Response {
    let target = format!("/v2/{name}/blobs/uploads/?digest={}", content.digest);
    let request = client.post(&target).body(content.bytes.clone());
    request.send().await
}

/// A blob in one request, until it is taken.
async fn post_until_taken(client: &Client, name: &str, content: &Content) {
    until(201, async || post(client, name, content).await).await;
}

/// What a broken disk must not stop: manifests, blobs, listings, signing in.
async fn reads_go_on(client: &Client, name: &str, image: &Image) {
    let got = client.get(&manifest(name, "v1")).send().await;
    assert_eq!(got.expect_status(200).body, image.manifest.bytes);
    for content in image.blobs() {
        assert!(holds(client, name, content).await);
        let head = client.head(&blob(name, &content.digest)).send().await;
        head.expect_status(200);
    }
    let tags = client.get(&format!("/v2/{name}/tags/list")).send().await;
    tags.expect_status(200);
    let scope = format!("repository:{name}:pull");
    client.fetch_token(&[&scope]).await.expect_status(200);
}

fn data(server: &Process, file: &str) -> PathBuf {
    server.folder().join("data").join(file)
}

/// Checks everything that is stored.
fn verify(server: &Process) {
    let data = data(server, "");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_wharf"))
        .args(["storage", "verify", "--deep", "--data"])
        .arg(data)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_reads_and_deletes_and_takes_pushes_again_when_there_is_room() {
    if no_file() {
        return;
    }
    let Some(disk) = Disk::tmpfs("64m") else {
        return;
    };
    let mut server = disk.server().await;
    let client = server.admin(Version::Http1);
    let name = "team/app";
    let (image, gone) = (Image::random(), Image::random());
    client.push_image(name, "v1", &image).await;
    client.push_image(name, "gone", &gone).await;
    let mut spare = Vec::new();
    for _ in 0..40 {
        let content = Content::random(20_000);
        client.push_blob(name, &content).await;
        spare.push(content);
    }

    let filler = disk.fill();
    let refused = post(&client, name, &Content::random(3_000_000)).await;
    let refused = refused.expect_error(507, "UNAVAILABLE");
    refused.expect_header("retry-after");
    assert!(refused.to_string().contains("no room left"), "{refused}");
    // Small ones fit into what the log has left, until they do not.
    until(507, async || {
        post(&client, name, &Content::random(9_000)).await
    })
    .await;
    reads_go_on(&client, name, &image).await;

    let tag = client.delete(&manifest(name, "gone")).send().await;
    tag.expect_status(202);
    let deleted = client.delete(&manifest(name, &gone.manifest.digest));
    deleted.send().await.expect_status(202);
    for content in gone.blobs().chain(&spare[..20]) {
        let deleted = client.delete(&blob(name, &content.digest)).send().await;
        deleted.expect_status(202);
        assert!(!holds(&client, name, content).await);
    }
    // Deletes had the room that was set aside, and pushes do not get at it.
    for _ in 0..200 {
        let refused = post(&client, name, &Content::random(9_000)).await;
        refused.expect_error(507, "UNAVAILABLE");
    }
    let told = health(&client).await;
    assert!(told.contains("the disk is full"), "{told}");
    assert_eq!(figure(&client, "wharf_meta_full").await, "1");

    // Also when it is started like this, and after that.
    server.kill();
    server.again().await;
    let client = server.admin(Version::Http1);
    reads_go_on(&client, name, &image).await;
    for content in &spare[20..] {
        let deleted = client.delete(&blob(name, &content.digest)).send().await;
        deleted.expect_status(202);
    }
    // More than the log had, whose room a start gives back.
    let refused = post(&client, name, &Content::random(12_000_000)).await;
    refused.expect_error(507, "UNAVAILABLE");

    std::fs::remove_file(filler).unwrap();
    let content = Content::random(3_000_000);
    post_until_taken(&client, name, &content).await;
    assert!(holds(&client, name, &content).await);
    client.push_image(name, "again", &gone).await;
    assert_eq!(figure(&client, "wharf_meta_full").await, "0");
    assert!(server.is_running());
    let lines = server
        .output()
        .lines()
        .filter(|line| line.contains("ERROR"))
        .count();
    assert!(lines < 20, "{lines} lines for hundreds of refusals");
    verify(&server);
}

/// Whoever is to be kept out is so on a full disk too, across a kill; and whoever is signed in stays so, and sees it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_full_disk_people_are_locked_out_and_what_they_hold_is_taken_back() {
    if no_file() {
        return;
    }
    let Some(disk) = Disk::tmpfs("64m") else {
        return;
    };
    let mut server = disk.server().await;
    let admin = server.admin(Version::Http1);
    let ask = async |client: &Client, method: Method, path: &str, body: Value| {
        let request = client.request(method, path);
        let request = request.header("content-type", "application/json");
        request.body(body.to_string()).send().await
    };
    let own = |client: &Client, name: &str| client.clone().with_basic(name, "wonderland looks");
    let is_in = async |client: &Client| client.get("/api/v1/me").send().await.status == 200;
    for name in ["anna", "bert", "cleo"] {
        let user = json!({"name": name, "password": "wonderland looks"});
        let made = ask(&admin, Method::POST, "/api/v1/users", user).await;
        made.expect_status(201);
        let grant = json!({"who": name, "role": "reader", "on": "team"});
        let granted = ask(&admin, Method::POST, "/api/v1/bindings", grant).await;
        granted.expect_status(200);
    }
    let laptop = json!({"name": "laptop"});
    let anna = own(&admin, "anna");
    let token = ask(&anna, Method::POST, "/api/v1/users/anna/tokens", laptop).await;
    let token = token.expect_status(201).json();
    let secret = token["secret"].as_str().unwrap().to_owned();
    assert!(is_in(&admin.clone().with_token(&secret)).await);
    let mut browser = Browser::at(&admin);
    browser
        .sign_in("anna", "wonderland looks")
        .await
        .expect_status(303);
    let sessions = admin.get("/api/v1/users/anna/sessions").send().await;
    let sessions = sessions.expect_status(200).json();
    // So long ago that its use is noted with the next page.
    server.terminate().await;
    let long_ago = session::Touch {
        id: sessions["items"][0]["id"].as_str().unwrap().to_owned(),
        address: "127.0.0.1".into(),
        at: SystemClock.now_ms() - 600_000,
    };
    let rows = SqliteOptions::new(data(&server, "wharf.db"));
    let (rows, _) = Meta::open(rows).unwrap();
    rows.write(long_ago.clone()).await.unwrap();
    rows.close().await;
    server.again().await;

    let admin = server.admin(Version::Http1);
    let filler = disk.fill();
    until(507, async || {
        post(&admin, "team/app", &Content::random(9_000)).await
    })
    .await;
    let dora = json!({"name": "dora", "password": "wonderland looks"});
    let refused = ask(&admin, Method::POST, "/api/v1/users", dora.clone()).await;
    let refused = refused.expect_status(507).to_string();
    assert!(refused.contains("the disk is full"), "{refused}");

    browser.client = admin.clone().anonymous();
    browser.get("/account/sessions").await.expect_status(200);
    let locked = json!({"disabled": true});
    let locked = ask(&admin, Method::PATCH, "/api/v1/users/bert", locked).await;
    locked.expect_status(204);
    let new = json!({"password": "the looking glass"});
    let set = ask(&admin, Method::PUT, "/api/v1/users/cleo/password", new).await;
    set.expect_status(200);
    for path in [
        format!("/api/v1/credentials/{}", token["id"].as_str().unwrap()),
        "/api/v1/bindings?who=anna&role=reader&on=team".to_owned(),
        "/api/v1/users/anna/sessions".to_owned(),
    ] {
        let gone = admin.delete(&path).send().await;
        assert!(gone.status.is_success(), "{path}: {gone}");
    }
    for killed in [false, true] {
        if killed {
            server.kill();
            server.again().await;
        }
        let admin = server.admin(Version::Http1);
        assert!(is_in(&own(&admin, "anna")).await, "{killed}");
        assert!(!is_in(&own(&admin, "bert")).await, "{killed}");
        assert!(!is_in(&own(&admin, "cleo")).await, "{killed}");
        let cleo = admin.clone().with_basic("cleo", "the looking glass");
        assert!(is_in(&cleo).await, "{killed}");
        let by_token = admin.clone().with_token(&secret);
        assert!(!is_in(&by_token).await, "{killed}");
        let held = admin.get("/api/v1/bindings?who=anna").send().await;
        assert!(!held.to_string().contains("reader"), "{held}");
        browser.client = admin.anonymous();
        browser.get("/account/sessions").await.expect_status(303);
    }

    // Each of these is in the log as soon as there is room for it.
    std::fs::remove_file(filler).unwrap();
    let admin = server.admin(Version::Http1);
    until(201, async || {
        ask(&admin, Method::POST, "/api/v1/users", dora.clone()).await
    })
    .await;
    let log = admin.get("/api/v1/audit?n=200").send().await;
    let log = log.expect_status(200).json();
    let entries = log["items"].as_array().unwrap();
    for (action, about) in [
        ("principal.change", "bert"),
        ("principal.change", "cleo"),
        ("credential.remove", token["id"].as_str().unwrap()),
        ("credential.remove", &long_ago.id),
    ] {
        let is = |entry: &Value| entry["action"] == action && entry.to_string().contains(about);
        assert!(entries.iter().any(is), "{about}: {log}");
    }
}

/// Nothing else is written meanwhile, so the session's claim stands and its client goes on from there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_met_a_full_disk_goes_on_from_its_claim() {
    if no_file() {
        return;
    }
    let Some(disk) = Disk::tmpfs("64m") else {
        return;
    };
    let server = disk.server().await;
    let client = server.admin(Version::Http1);
    let content = Content::random(6_000_000);
    let location = client.start_upload("team/app").await;
    let first = content.bytes.slice(..2_000_000);
    let begun = chunk(&client, &location, 0, &first).send().await;
    begun.expect_status(202);
    let filler = disk.fill();
    let rest = content.bytes.slice(2_000_000..);
    let refused = chunk(&client, &location, 2_000_000, &rest).send().await;
    refused.expect_error(507, "UNAVAILABLE");
    assert_eq!(standing(&client, &location).await, "0-1999999");
    std::fs::remove_file(filler).unwrap();
    until(202, async || {
        chunk(&client, &location, 2_000_000, &rest).send().await
    })
    .await;
    let done = finish(&client, &location, &content.digest, "").send().await;
    done.expect_status(201);
    assert!(holds(&client, "team/app", &content).await);
}

/// A quota, a file system that became read-only, and a disk that fails: each write says which it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_writes_are_told_apart_and_end_by_themselves() {
    if no_file() {
        return;
    }
    for (errno, status, words) in [
        ("EDQUOT", 507, "no room left"),
        ("EROFS", 503, "read-only"),
        ("EIO", 503, "disk"),
    ] {
        let mut server = start().await;
        let client = server.admin(Version::Http1);
        let name = "team/app";
        let image = Image::random();
        client.push_image(name, "v1", &image).await;
        let how = format!("error={errno}");
        let Some(fault) = Inject::new(&server, WRITES, &how, &[]) else {
            return;
        };
        for size in [3_000_000, 100] {
            for _ in 0..30 {
                let refused = post(&client, name, &Content::random(size)).await;
                let refused = refused.expect_error(status, "UNAVAILABLE");
                refused.expect_header("retry-after");
                let text = String::from_utf8_lossy(&refused.body).into_owned();
                assert!(text.contains(words), "{errno}, {size}: {text}");
                // Where it lies is nobody's business.
                assert!(!text.contains("uploads/"), "{text}");
            }
        }
        reads_go_on(&client, name, &image).await;
        let told = health(&client).await;
        assert!(told.contains("refus") || told.contains("full"), "{told}");
        assert!(server.is_running());
        drop(fault);
        for size in [3_000_000, 100] {
            let content = Content::random(size);
            post_until_taken(&client, name, &content).await;
            assert!(holds(&client, name, &content).await);
        }
        let lines = server.output().matches("ERROR").count();
        assert!(lines < 60, "{errno}: {lines} errors for 60 refusals");
        server.kill();
        server.again().await;
        reads_go_on(&server.admin(Version::Http1), name, &image).await;
        verify(&server);
    }
}

/// The kernel finds an error and turns the file system read-only, as `errors=remount-ro` says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_system_that_turns_read_only_is_still_served() {
    if no_file() {
        return;
    }
    let Some(disk) = Disk::ext4(96 << 20) else {
        return;
    };
    let mut server = disk.server().await;
    let client = server.admin(Version::Http1);
    let image = Image::random();
    client.push_image("team/app", "v1", &image).await;
    if !disk.trip() {
        return;
    }
    for size in [3_000_000, 100] {
        let refused = post(&client, "team/app", &Content::random(size)).await;
        refused.expect_error(503, "UNAVAILABLE");
    }
    reads_go_on(&client, "team/app", &image).await;
    assert!(server.is_running());
    let told = health(&client).await;
    assert!(told.contains("read-only"), "{told}");
}

/// An upload whose sync failed is void back to its claim: the system may have dropped what it could not write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_whose_sync_failed_goes_back_to_its_claim() {
    if no_file() {
        return;
    }
    let server = start().await;
    let client = server.admin(Version::Http1);
    let content = Content::random(3_000_000);
    let location = client.start_upload("team/app").await;
    let (first, rest) = (
        content.bytes.slice(..1_000_000),
        content.bytes.slice(1_000_000..),
    );
    let begun = chunk(&client, &location, 0, &first).send().await;
    begun.expect_status(202);
    let id = location.rsplit('/').next().unwrap();
    let id = id.split('?').next().unwrap();
    let file = data(&server, &format!("uploads/{id}"));
    assert_eq!(file.metadata().unwrap().len(), 1_000_000);
    let Some(fault) = Inject::new(
        &server,
        SYNCS,
        "error=EIO:when=1",
        std::slice::from_ref(&file),
    ) else {
        return;
    };
    let refused = chunk(&client, &location, 1_000_000, &rest).send().await;
    refused.expect_error(503, "UNAVAILABLE");
    // The second sync would succeed; what it would vouch for is gone already.
    assert_eq!(standing(&client, &location).await, "0-999999");
    assert_eq!(file.metadata().unwrap().len(), 1_000_000);
    drop(fault);
    let sent = chunk(&client, &location, 1_000_000, &rest).send().await;
    sent.expect_status(202);
    let done = finish(&client, &location, &content.digest, "").send().await;
    done.expect_status(201);
    assert!(holds(&client, "team/app", &content).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_sync_failed_takes_no_write_until_a_checkpoint_reached_the_disk() {
    if no_file() {
        return;
    }
    let mut server = start().await;
    let client = server.admin(Version::Http1);
    let (name, image) = ("team/app", Image::random());
    client.push_image(name, "v1", &image).await;
    let log = data(&server, "wharf.db-wal");
    let Some(fault) = Inject::new(&server, SYNCS, "error=EIO", &[log]) else {
        return;
    };
    let lost = Content::random(100);
    post(&client, name, &lost)
        .await
        .expect_error(503, "UNAVAILABLE");
    assert_eq!(figure(&client, "wharf_meta_refusing").await, "1");
    let until_then = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until_then {
        // Longer than four tries at a checkpoint.
        let refused = post(&client, name, &Content::random(100)).await;
        let refused = refused.expect_error(503, "UNAVAILABLE").to_string();
        assert!(refused.contains("none is accepted until"), "{refused}");
    }
    reads_go_on(&client, name, &image).await;
    assert!(!holds(&client, name, &lost).await, "it was refused");
    drop(fault);
    let kept = Content::random(100);
    post_until_taken(&client, name, &kept).await;
    assert_eq!(figure(&client, "wharf_meta_refusing").await, "0");
    server.kill();
    server.again().await;
    let client = server.admin(Version::Http1);
    reads_go_on(&client, name, &image).await;
    assert!(holds(&client, name, &kept).await);
    assert!(!holds(&client, name, &lost).await);
    verify(&server);
}

/// The database's own sync, at the end of a checkpoint: what it was to keep stays in the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_checkpoint_whose_sync_failed_loses_nothing_and_stops_writes() {
    if no_file() {
        return;
    }
    let mut server = start().await;
    let client = server.admin(Version::Http1);
    let (name, image) = ("team/app", Image::random());
    client.push_image(name, "v1", &image).await;
    let database = data(&server, "wharf.db");
    let Some(fault) = Inject::new(&server, SYNCS, "error=EIO", &[database]) else {
        return;
    };
    // Until the log is long enough for a checkpoint: 16 MiB.
    let mut pushes = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let client = client.clone();
        pushes.spawn(async move {
            let mut taken = Vec::new();
            loop {
                let content = Content::random(15_000);
                match post(&client, "team/app", &content).await {
                    answer if answer.status == 201 => taken.push(content),
                    refused => {
                        refused.expect_error(503, "UNAVAILABLE");
                        return taken;
                    }
                }
                assert!(taken.len() < 2_000, "no checkpoint was tried");
            }
        });
    }
    let taken: Vec<Content> = pushes.join_all().await.into_iter().flatten().collect();
    assert_eq!(figure(&client, "wharf_meta_refusing").await, "1");
    reads_go_on(&client, name, &image).await;
    drop(fault);
    post_until_taken(&client, name, &Content::random(100)).await;
    server.kill();
    server.again().await;
    let client = server.admin(Version::Http1);
    for content in &taken {
        assert!(holds(&client, name, content).await, "{}", taken.len());
    }
    verify(&server);
}

/// A disk that cannot read: an error or a broken connection, never a short answer that looks whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_cannot_be_read_is_never_cut_short() {
    if no_file() {
        return;
    }
    let server = start().await;
    let client = server.admin(Version::Http1);
    let (name, content) = ("team/app", Content::random(3_000_000));
    client.push_blob(name, &content).await;
    let file = {
        let (algorithm, hex) = ("sha256", content.digest.encoded());
        let folder = data(&server, &format!("blobs/{algorithm}/{}", &hex[..2]));
        let mut files = std::fs::read_dir(folder).unwrap();
        files.next().unwrap().unwrap().path()
    };
    let reads = "pread64,preadv,preadv2,sendfile,splice,read";
    let Some(fault) = Inject::new(&server, reads, "error=EIO:when=3+", &[file]) else {
        return;
    };
    for version in Version::ALL {
        let client = server.admin(version);
        for _ in 0..3 {
            let address = blob(name, &content.digest);
            match client.get(&address).try_send().await {
                Ok(answer) => assert_ne!(answer.status, 200, "{answer}"),
                Err(broken) => drop(broken),
            }
        }
    }
    drop(fault);
    assert!(holds(&client, name, &content).await);
}

/// The database's file alone: whoever needs a page of it that is not in memory is told so. Nothing that exists is denied,
/// nobody is taken for a stranger, and nothing is taken for damaged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_cannot_be_read_is_told_and_never_guessed() {
    if no_file() {
        return;
    }
    let mut server = start().await;
    let client = server.admin(Version::Http1);
    let (name, image) = ("team/app", Image::random());
    client.push_image(name, "v1", &image).await;
    for number in 0..40 {
        let name = format!("team/other{number}");
        client.push_image(&name, "v1", &Image::random()).await;
    }
    // What it has in memory, and its log, are gone.
    server.terminate().await;
    server.again().await;
    let mut refused = Vec::new();
    for calls in ["pread64", "pread64,pwrite64"] {
        let database = data(&server, "wharf.db");
        let Some(fault) = Inject::new(&server, calls, "error=EIO", &[database]) else {
            return;
        };
        for version in Version::ALL {
            let client = server.admin(version);
            let config = image.blobs().next().unwrap();
            let mount = format!(
                "/v2/team/new/blobs/uploads/?mount={}&from={name}",
                config.digest
            );
            let subject = &image.manifest.digest;
            for (request, right) in [
                (client.get(&manifest(name, "v1")), 200),
                (client.head(&manifest(name, "v1")), 200),
                (client.get(&manifest(name, subject)), 200),
                (client.head(&manifest(name, subject)), 200),
                (client.get(&blob(name, &config.digest)), 200),
                (client.head(&blob(name, &config.digest)), 200),
                (client.get(&format!("/v2/{name}/tags/list")), 200),
                (client.get(&format!("/v2/{name}/referrers/{subject}")), 200),
                (client.get("/v2/_catalog"), 200),
                (client.post(&mount), 201),
                (client.post(&format!("/v2/{name}/blobs/uploads/")), 202),
                (client.delete(&manifest(name, "absent")), 404),
                (client.head(&manifest("team/other7", "v1")), 200),
                (client.head(&blob(name, &Content::random(9).digest)), 404),
            ] {
                let answer = request.send().await;
                if answer.status == 503 {
                    refused.push(answer);
                } else {
                    assert_eq!(answer.status, right, "{calls}: {answer}");
                }
            }
        }
        assert!(server.is_running());
        drop(fault);
        for version in Version::ALL {
            reads_go_on(&server.admin(version), name, &image).await;
        }
        post_until_taken(&client, name, &Content::random(100)).await;
        assert_eq!(figure(&client, "wharf_meta_damaged").await, "0");
        server.terminate().await;
        server.again().await;
    }
    assert!(refused.len() > 10, "{} were refused", refused.len());
    for answer in refused {
        answer.expect_header("retry-after");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let told = text.contains("fails to read") || text.contains("none is accepted");
        // A HEAD has no body.
        assert!(text.is_empty() || told, "{answer}");
    }
    assert!(!server.output().contains("damaged"), "{}", server.output());
    verify(&server);
}

/// Syncs that take seconds hold up those who wait for them, and nobody else; nobody is thrown out for waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_holds_up_no_reader_and_throws_no_writer_out() {
    if no_file() {
        return;
    }
    const DELAY: Duration = Duration::from_secs(3);
    // Shorter than one sync: whoever counted our waiting as the client's would end the connection.
    let options = TestOptions {
        config: "[limits]\nprogress_window = \"2s\"\n".to_owned(),
        ..TestOptions::default()
    };
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_wharf"));
    let server = Process::start(binary, options).await;
    let client = server.admin(Version::Http1);
    let (name, image) = ("team/app", Image::random());
    client.push_image(name, "v1", &image).await;
    let how = format!("delay_enter={}", DELAY.as_micros());
    let calls = format!("{SYNCS},pwritev");
    let Some(_fault) = Inject::new(&server, &calls, &how, &[]) else {
        return;
    };
    let mut pushes = tokio::task::JoinSet::new();
    // A file of a few writes, each of which takes that long.
    for (version, size) in [
        (Version::Http1, 500_000),
        (Version::Http2, 500_000),
        (Version::Http1, 100),
        (Version::Http2, 100),
    ] {
        let client = server.admin(version);
        pushes.spawn(async move {
            let content = Content::random(size);
            post(&client, "team/app", &content).await.expect_status(201);
            content
        });
    }
    let mut times = Vec::new();
    let (address, small) = (manifest(name, "v1"), image.blobs().next().unwrap());
    let small = blob(name, &small.digest);
    while !pushes.is_empty() && times.len() < 20_000 {
        for address in [&address, &small] {
            let begun = Instant::now();
            client.get(address).send().await.expect_status(200);
            times.push(begun.elapsed());
        }
        while let Some(pushed) = pushes.try_join_next() {
            assert!(holds(&client, name, &pushed.unwrap()).await);
        }
    }
    times.sort_unstable();
    let p99 = times[times.len() * 99 / 100];
    assert!(p99 < DELAY / 4, "{p99:?} of {} reads", times.len());
    for pushed in pushes.join_all().await {
        assert!(holds(&client, name, &pushed).await);
    }
}
