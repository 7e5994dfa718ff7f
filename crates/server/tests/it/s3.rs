//! The whole registry over a bucket: what requests cost there, what faults of the store do, and that nothing of an upload
//! is kept in this process.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wharf_blob::Key;
use wharf_core::blob as blob_of;
use wharf_meta::blob as rows;
use wharf_oci::RepositoryName;
use wharf_testkit::client::Step;
use wharf_testkit::s3::{Fault, Kind, S3, Saying};
use wharf_testkit::{Client, Content, Image, Process, TestOptions, TestServer, Version};

use crate::support::{blob, chunk, finish, holds, manifest, standing};

const NAME: &str = "team/app";

/// More than two parts.
const LARGE: usize = 20_000_000;

async fn start(s3: &Arc<S3>, config: &str) -> TestServer {
    TestServer::start(TestOptions {
        s3: Some(s3.clone()),
        config: config.to_owned(),
        ..TestOptions::default()
    })
    .await
}

async fn bucket() -> Arc<S3> {
    Arc::new(S3::start().await)
}

/// What a request cost at the store.
fn cost(s3: &S3) -> HashMap<Kind, u64> {
    s3.take_counts()
}

/// A POST and a PUT with all of it.
async fn push(client: &Client, content: &Content) {
    client.push_blob(NAME, content).await;
}

/// A POST, one PATCH of unknown length, and an empty PUT, as Docker does.
async fn stream(client: &Client, content: &Content) {
    let location = client.start_upload(NAME).await;
    let pieces = content.bytes.chunks(1_000_000);
    let pieces: Vec<_> = pieces.map(|piece| content.bytes.slice_ref(piece)).collect();
    let patched = client.patch(&location).chunked(pieces).send().await;
    let patched = patched.expect_status(202);
    let done = finish(client, patched.location(), &content.digest, "");
    done.send().await.expect_status(201);
}

#[tokio::test]
async fn requests_to_the_store_are_as_few_as_documented() {
    let s3 = bucket().await;
    let server = start(&s3, "").await;
    let client = server.admin(Version::Http1);
    cost(&s3);

    let image = Image::random();
    client.push_image(NAME, "v1", &image).await;
    let small = Content::random(1000);
    push(&client, &small).await;
    assert!(cost(&s3).is_empty(), "a small push");
    for path in [manifest(NAME, "v1"), blob(NAME, &small.digest)] {
        client.get(&path).send().await.expect_status(200);
        client.head(&path).send().await.expect_status(200);
    }
    assert!(cost(&s3).is_empty(), "what lies beside the metadata");

    let medium = Content::random(3_000_000);
    push(&client, &medium).await;
    assert_eq!(cost(&s3), HashMap::from([(Kind::Put, 1)]));
    stream(&client, &Content::random(3_000_000)).await;
    assert_eq!(cost(&s3), HashMap::from([(Kind::Put, 1)]));
    let large = Content::random(LARGE);
    stream(&client, &large).await;
    let expected = [(Kind::Begin, 1), (Kind::Part, 3), (Kind::Complete, 1)];
    assert_eq!(cost(&s3), HashMap::from(expected));

    for content in [&medium, &large] {
        let path = blob(NAME, &content.digest);
        client.head(&path).send().await.expect_status(200);
        let mount = format!(
            "/v2/other/app/blobs/uploads/?mount={}&from={NAME}",
            content.digest
        );
        client.post(&mount).body("").send().await.expect_status(201);
        assert!(cost(&s3).is_empty(), "HEAD and mount");
        let got = client.get(&path).send().await.expect_status(200);
        assert!(got.body == content.bytes);
        let part = client
            .get(&path)
            .header("range", "bytes=1000-1999")
            .send()
            .await;
        assert!(part.expect_status(206).body == content.bytes[1000..2000]);
        assert_eq!(cost(&s3), HashMap::from([(Kind::Get, 2)]));
    }
    assert_eq!(s3.loose_parts(), 0);

    // Every object belongs to a row, whatever its key says.
    let app = server.app();
    let (meta, blobs) = (&app.registry.meta, &*app.registry.blobs);
    let depth = wharf_core::verify::Depth {
        deep: true,
        condemn: false,
    };
    let report = wharf_core::verify::verify(meta, blobs, depth, 0, &mut |_| ())
        .await
        .unwrap();
    assert!(report.is_sound() && report.orphans == 0, "{report:?}");
}

/// Each chunk is shorter than a part: parts go out when they are full, the rest waits in rows.
#[tokio::test]
async fn chunks_of_any_size_become_uniform_parts() {
    let s3 = bucket().await;
    let server = start(&s3, "").await;
    for (version, size) in [(Version::Http1, 700_001), (Version::Http2, 9_000_000)] {
        let client = server.admin(version);
        let content = Content::random(LARGE);
        let location = client.start_upload(NAME).await;
        cost(&s3);
        for start in (0..LARGE).step_by(size) {
            let piece = content.bytes.slice(start..LARGE.min(start + size));
            let patched = chunk(&client, &location, start, &piece).send().await;
            patched.expect_status(202);
            let end = start + piece.len() - 1;
            assert_eq!(standing(&client, &location).await, format!("0-{end}"));
        }
        let done = finish(&client, &location, &content.digest, "").send().await;
        done.expect_status(201);
        let expected = [(Kind::Begin, 1), (Kind::Part, 3), (Kind::Complete, 1)];
        assert_eq!(cost(&s3), HashMap::from(expected), "chunks of {size}");
        assert!(holds(&client, NAME, &content).await);
    }
    assert_eq!(s3.loose_parts(), 0);
}

#[tokio::test]
async fn a_wrong_digest_and_a_cancelled_upload_leave_nothing_in_the_bucket() {
    let s3 = bucket().await;
    let server = start(&s3, "").await;
    let client = server.admin(Version::Http1);
    let before = s3.objects().len();
    let (content, other) = (Content::random(LARGE), Content::random(10));
    let location = client.start_upload(NAME).await;
    let wrong = finish(&client, &location, &other.digest, content.bytes.clone());
    wrong.send().await.expect_error(400, "DIGEST_INVALID");
    let location = client.start_upload(NAME).await;
    let patched = client.patch(&location).body(content.bytes.clone());
    patched.send().await.expect_status(202);
    assert!(s3.loose_parts() > 0);
    client.delete(&location).send().await.expect_status(204);
    assert_eq!((s3.objects().len(), s3.loose_parts()), (before, 0));
}

/// A blob that is there already is linked, and what was sent of it again is given up.
/// Between the row and the bytes of a read, others may have brought the bytes again under another key.
///
/// Spec: BGET-1.
#[tokio::test]
async fn a_reader_follows_a_blob_to_its_new_place() {
    let s3 = bucket().await;
    let server = start(&s3, "").await;
    let client = server.admin(Version::Http1);
    let content = Content::random(300_000);
    push(&client, &content).await;
    let registry = &server.app().registry;
    let name = RepositoryName::parse(NAME).unwrap();
    let find = async || {
        blob_of::open(registry, &name, &content.digest)
            .await
            .unwrap()
    };
    let (mut whole, mut part, mut gone) = (find().await, find().await, find().await);
    let old = whole.key.clone().expect("an object");
    let new = Key::fresh(&content.digest);
    let bytes = content.bytes.clone();
    registry.blobs.put(&new, bytes).await.unwrap();
    let moved = rows::Publish {
        upload: None,
        repository: name.clone(),
        digest: content.digest.clone(),
        size: content.bytes.len() as u64,
        content: rows::Content::Key(new.to_string()),
        instead_of: Some(rows::Place::Key(old.to_string())),
        actor: "alice".into(),
        at: 1,
    };
    registry.meta.write(moved).await.unwrap();
    registry.blobs.remove(&old).await.unwrap();
    for (found, range) in [(&mut whole, 0..300_000), (&mut part, 1_000..2_000)] {
        let mut stream = found.begin(registry, range.clone()).await.unwrap();
        let mut read = Vec::new();
        while let Some(piece) = stream.next().await {
            read.extend_from_slice(&piece.unwrap());
        }
        assert!(read == content.bytes[range.start as usize..range.end as usize]);
    }
    registry.blobs.remove(&new).await.unwrap();
    let damaged = gone.begin(registry, 0..10).await;
    assert!(
        matches!(damaged, Err(wharf_core::Error::BlobDamaged { .. })),
        "{:?}",
        damaged.err()
    );
}

#[tokio::test]
async fn a_blob_that_is_there_already_is_not_kept_twice() {
    let s3 = bucket().await;
    let server = start(&s3, "").await;
    let client = server.admin(Version::Http1);
    let content = Content::random(LARGE);
    push(&client, &content).await;
    let before = s3.objects().len();
    stream(&client, &content).await;
    assert_eq!((s3.objects().len(), s3.loose_parts()), (before, 0));
    assert!(holds(&client, NAME, &content).await);
}

#[tokio::test]
async fn faults_of_the_store_lose_nothing_and_are_clear_in_the_end() {
    let s3 = bucket().await;
    let server = start(&s3, "").await;
    let client = server.admin(Version::Http1);
    for fault in [Fault::SlowDown, Fault::Refuse, Fault::LoseAnswer] {
        for kind in [Kind::Begin, Kind::Part, Kind::Complete] {
            // An upload that was begun without anybody hearing of it is for the bucket's own rule to abort.
            if !matches!((kind, fault), (Kind::Begin, Fault::LoseAnswer)) {
                s3.fault(kind, 0, 1, fault);
            }
        }
        let content = Content::random(LARGE);
        stream(&client, &content).await;
        s3.fault(Kind::Get, 0, 1, Fault::Cut);
        assert!(holds(&client, NAME, &content).await);
        s3.heal();
    }
    assert_eq!(s3.loose_parts(), 0);
    // More than anybody's patience: a clear answer, and afterwards everything works again.
    let content = Content::random(1_000_000);
    push(&client, &content).await;
    s3.fault(Kind::Get, 0, u32::MAX, Fault::SlowDown);
    let refused = client.get(&blob(NAME, &content.digest)).send().await;
    let refused = refused.expect_status(503);
    refused.expect_header("retry-after");
    assert!(
        String::from_utf8_lossy(&refused.body).contains("object store"),
        "{refused}"
    );
    s3.heal();
    assert!(holds(&client, NAME, &content).await);
}

#[tokio::test]
async fn an_upload_whose_parts_are_gone_begins_anew() {
    let s3 = bucket().await;
    let server = start(&s3, "").await;
    let client = server.admin(Version::Http1);
    let content = Content::random(LARGE);
    let location = client.start_upload(NAME).await;
    let patched = client.patch(&location).body(content.bytes.clone());
    patched.send().await.expect_status(202);
    s3.fault(Kind::Part, 0, 1, Fault::NoSuchUpload);
    s3.fault(Kind::Complete, 0, 1, Fault::NoSuchUpload);
    let lost = finish(&client, &location, &content.digest, "").send().await;
    lost.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    client
        .get(&location)
        .send()
        .await
        .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    s3.heal();
    push(&client, &content).await;
    assert!(holds(&client, NAME, &content).await);
    assert_eq!(s3.loose_parts(), 0);
}

/// Two clients send the same upload at once: one of them may lose, but what is published is what its digest says.
#[tokio::test]
async fn two_clients_on_one_upload_never_mix() {
    let s3 = bucket().await;
    let server = start(&s3, "").await;
    let client = server.admin(Version::Http1);
    let content = Content::random(LARGE);
    for _ in 0..3 {
        let location = client.start_upload(NAME).await;
        let piece = content.bytes.slice(..9_000_000);
        let one = chunk(&client, &location, 0, &piece).send();
        let two = chunk(&client, &location, 0, &piece).send();
        let (one, two) = tokio::join!(one, two);
        let won = [&one, &two]
            .iter()
            .filter(|answer| answer.status == 202)
            .count();
        assert!(won >= 1, "{one} {two}");
        let rest = content.bytes.slice(9_000_000..);
        let done = finish(&client, &location, &content.digest, rest)
            .send()
            .await;
        done.expect_status(201);
        assert!(holds(&client, NAME, &content).await);
    }
}

async fn process(s3: &Arc<S3>) -> Process {
    let options = TestOptions {
        s3: Some(s3.clone()),
        ..TestOptions::default()
    };
    Process::start(Path::new(env!("CARGO_BIN_EXE_wharf")), options).await
}

#[tokio::test]
async fn an_upload_goes_on_after_kill_9_from_its_rows_alone() {
    let s3 = bucket().await;
    let mut server = process(&s3).await;
    let content = Content::random(LARGE);
    let client = server.admin(Version::Http1);
    let location = client.start_upload(NAME).await;
    let first = content.bytes.slice(..9_500_000);
    chunk(&client, &location, 0, &first)
        .send()
        .await
        .expect_status(202);
    cost(&s3);
    // Killed when a part of the second chunk is at the store and nobody has claimed it.
    let steps = [
        Step::Data(content.bytes.slice(9_500_000..19_000_000)),
        Step::Pause(Duration::from_secs(60)),
    ];
    let request = client.patch(&location).script(None, steps);
    let sending = tokio::spawn(request.try_send());
    while s3.count(Kind::Part) == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.kill();
    assert!(sending.await.unwrap().is_err());
    server.again().await;
    let client = server.admin(Version::Http1);
    assert_eq!(standing(&client, &location).await, "0-9499999");
    let rest = content.bytes.slice(9_500_000..);
    let done = finish(&client, &location, &content.digest, rest)
        .send()
        .await;
    done.expect_status(201);
    assert!(holds(&client, NAME, &content).await);
    assert_eq!(s3.loose_parts(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_of_another_installation_is_refused_at_the_start() {
    let s3 = bucket().await;
    let _first = process(&s3).await;
    let objects = s3.objects().len();
    let folder = tempfile::tempdir().unwrap();
    let server = std::process::Command::new(env!("CARGO_BIN_EXE_wharf"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder.path().join("data"))
        .envs(storage_environment(&s3))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&server.stderr).into_owned();
    assert!(!server.status.success(), "{told}");
    assert!(
        told.contains("another installation") && told.contains("storage.s3.bucket"),
        "{told}"
    );
    assert_eq!(s3.objects().len(), objects);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_bucket_is_refused_when_the_blobs_are_elsewhere() {
    let full = bucket().await;
    let mut server = process(&full).await;
    let client = server.admin(Version::Http1);
    push(&client, &Content::random(300_000)).await;
    server.terminate().await;
    let empty = bucket().await;
    let config = std::process::Command::new(env!("CARGO_BIN_EXE_wharf"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(server.folder().join("data"))
        .envs(storage_environment(&empty))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&config.stderr).into_owned();
    assert_eq!(config.status.code(), Some(3), "{told}");
    assert!(
        told.contains("blobs elsewhere") && told.contains("wharf storage copy"),
        "{told}"
    );
    assert_eq!(empty.objects().len(), 0);
    // It still serves from where they are.
    server.again().await;
}

fn storage_environment(s3: &S3) -> [(&'static str, String); 6] {
    use wharf_testkit::s3::{ACCESS_KEY, BUCKET, SECRET_KEY};
    [
        ("WHARF__STORAGE__KIND", "s3".into()),
        ("WHARF__STORAGE__S3__BUCKET", BUCKET.into()),
        ("WHARF__STORAGE__S3__ENDPOINT", s3.endpoint()),
        ("WHARF__STORAGE__S3__PATH_STYLE", "true".into()),
        ("WHARF__STORAGE__S3__ACCESS_KEY_ID", ACCESS_KEY.into()),
        ("WHARF__STORAGE__S3__SECRET_ACCESS_KEY", SECRET_KEY.into()),
    ]
}

/// Spec: API-5, BGET-10.
#[tokio::test(flavor = "multi_thread")]
async fn large_blobs_are_redirected_and_nothing_else() {
    let s3 = bucket().await;
    let server = start(
        &s3,
        "[storage.redirect]\nwhen = \"large\"\nmin_size = \"2MiB\"\n",
    )
    .await;
    let client = server.admin(Version::Http1);
    let (large, medium, small) = (
        Content::random(3_000_000),
        Content::random(1_000_000),
        Content::random(1000),
    );
    for content in [&large, &medium, &small] {
        push(&client, content).await;
    }
    let image = Image::random();
    client.push_image(NAME, "v1", &image).await;
    let path = blob(NAME, &large.digest);
    let sent = client.get(&path).send().await.expect_status(307);
    let location = sent.location().to_owned();
    assert!(location.starts_with(&s3.endpoint()) && location.contains("X-Amz-Signature="));
    assert_eq!(sent.header("cache-control"), Some("no-store"));
    client.head(&path).send().await.expect_status(200);
    for content in [&medium, &small] {
        let got = client.get(&blob(NAME, &content.digest)).send().await;
        assert!(got.expect_status(200).body == content.bytes);
    }
    client
        .get(&manifest(NAME, "v1"))
        .send()
        .await
        .expect_status(200);

    // What the URL gives, to somebody without any credentials and to a real client that follows.
    let followed = std::process::Command::new("curl")
        .args([
            "-sSfL",
            "-u",
            &format!("{}:{}", "admin", "correct-horse-battery"),
        ])
        .arg(format!("http://{}{path}", server.addr()))
        .output();
    if let Ok(followed) = followed {
        assert!(
            followed.status.success(),
            "{}",
            String::from_utf8_lossy(&followed.stderr)
        );
        assert!(followed.stdout == large.bytes);
    }
}

#[tokio::test]
async fn clients_of_a_denied_network_get_the_bytes_here() {
    let s3 = bucket().await;
    let config = "[storage.redirect]\nwhen = \"always\"\ndenied_networks = [\"127.0.0.0/8\"]\n";
    let server = start(&s3, config).await;
    let client = server.admin(Version::Http1);
    let content = Content::random(1_000_000);
    push(&client, &content).await;
    assert!(holds(&client, NAME, &content).await);
}

/// The address that counts is the one that a trusted proxy forwards, and nobody else's word.
#[tokio::test]
async fn networks_of_clients_behind_a_proxy_are_those_that_it_forwards() {
    let s3 = bucket().await;
    let rule = "[storage.redirect]\nwhen = \"always\"\ndenied_networks = [\"10.0.0.0/8\"]\n";
    let content = Content::random(1_000_000);
    for (trusted, forwarded, status) in [
        (true, Some("10.1.2.3"), 200),
        (true, Some("192.0.2.1"), 307),
        (true, Some("10.1.2.3, 192.0.2.1"), 307),
        // The proxy itself, since it forwards nothing.
        (true, None, 307),
        (false, Some("10.1.2.3"), 307),
    ] {
        let proxies = match trusted {
            true => "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n",
            false => "",
        };
        let server = start(&s3, &format!("{proxies}{rule}")).await;
        let client = server.admin(Version::Http1);
        push(&client, &content).await;
        let mut request = client.get(&blob(NAME, &content.digest));
        if let Some(forwarded) = forwarded {
            request = request.header("x-forwarded-for", forwarded);
        }
        request.send().await.expect_status(status);
        // The bucket is this one's: the next has another.
        drop(server);
        empty(&s3);
    }
}

/// What a GET over a Unix socket is answered with: status, and everything.
async fn over_unix(server: &TestServer, path: &str, forwarded: Option<&str>) -> (u16, Vec<u8>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut request = format!(
        "GET {path} HTTP/1.1\r\nHost: registry.example\r\nAuthorization: {}\r\nConnection: close\r\n",
        server.admin_authorization()
    );
    if let Some(forwarded) = forwarded {
        request.push_str(&format!("X-Forwarded-For: {forwarded}\r\n"));
    }
    request.push_str("\r\n");
    let mut socket = tokio::net::UnixStream::connect(server.socket())
        .await
        .unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    let status = String::from_utf8_lossy(answer.get(9..12).unwrap_or_default()).parse();
    (status.expect("a status"), answer)
}

/// A client whose address nobody knows may be in any network: a list of those that cannot reach the bucket keeps it here, as does
/// a list of those that can, unless that names Unix sockets. What somebody there forwards counts if Unix sockets are trusted.
#[tokio::test]
async fn clients_on_a_unix_socket_are_redirected_by_what_is_known_of_them() {
    let s3 = bucket().await;
    let content = Content::random(1_000_000);
    let path = blob(NAME, &content.digest);
    let (none, inside) = ("", "[\"10.0.0.0/8\"]");
    let with_unix = "[\"10.0.0.0/8\", \"unix\"]";
    for (trusted, allowed, denied, forwarded, status) in [
        (false, none, none, None, 307),
        (false, none, inside, None, 200),
        (false, inside, none, None, 200),
        (false, with_unix, none, None, 307),
        (false, with_unix, inside, None, 307),
        (false, with_unix, with_unix, None, 200),
        // The proxy is known to speak for others, and does or does not.
        (true, none, inside, Some("192.0.2.1"), 307),
        (true, none, inside, Some("10.1.2.3"), 200),
        (true, none, inside, None, 200),
        (true, inside, none, Some("10.1.2.3"), 307),
        (true, with_unix, none, Some("192.0.2.1"), 200),
        // Anybody can write the header.
        (false, none, inside, Some("192.0.2.1"), 200),
        (false, inside, none, Some("10.1.2.3"), 200),
    ] {
        let mut config = String::new();
        if trusted {
            config.push_str("[server]\ntrusted_proxies = [\"unix\"]\n");
        }
        config.push_str("[storage.redirect]\nwhen = \"always\"\n");
        for (key, list) in [("allowed_networks", allowed), ("denied_networks", denied)] {
            if !list.is_empty() {
                config.push_str(&format!("{key} = {list}\n"));
            }
        }
        let server = TestServer::start(TestOptions {
            s3: Some(s3.clone()),
            unix: true,
            config: config.clone(),
            ..TestOptions::default()
        })
        .await;
        push(&server.admin(Version::Http1), &content).await;
        let (told, answer) = over_unix(&server, &path, forwarded).await;
        assert_eq!(told, status, "{config}forwarded: {forwarded:?}");
        match status {
            307 => {
                let head = String::from_utf8_lossy(&answer).to_lowercase();
                let to = format!("\r\nlocation: {}", s3.endpoint());
                assert!(head.contains(&to), "{head}");
            }
            _ => assert!(answer.ends_with(&content.bytes), "{config}"),
        }
        // The bucket is this one's: the next has another.
        drop(server);
        empty(&s3);
    }
}

fn empty(s3: &S3) {
    for object in s3.objects() {
        std::fs::remove_file(s3.folder().join(wharf_testkit::s3::BUCKET).join(object)).unwrap();
    }
}

#[tokio::test]
async fn a_full_bucket_is_said_to_and_uploads_go_on_when_there_is_room() {
    let s3 = bucket().await;
    let server = start(&s3, "").await;
    let client = server.admin(Version::Http1);
    let before = Content::random(300_000);
    push(&client, &before).await;
    let full = Fault::Say(Saying {
        status: 507,
        header: None,
        body: "<Error><Code>XMinioStorageFull</Code></Error>",
    });
    s3.fault(Kind::Put, 0, u32::MAX, full);
    s3.fault(Kind::Part, 0, u32::MAX, full);
    let medium = Content::random(300_000);
    let location = client.start_upload(NAME).await;
    let refused = finish(&client, &location, &medium.digest, medium.bytes.clone());
    let refused = refused.send().await;
    let told = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(told.contains("no room left"), "{told}");
    let refused = refused.expect_error(507, "UNAVAILABLE");
    refused.expect_header("retry-after");

    let large = Content::random(LARGE);
    let location = client.start_upload(NAME).await;
    let first = large.bytes.slice(..1_000_000);
    let patched = chunk(&client, &location, 0, &first).send().await;
    patched.expect_status(202);
    let rest = large.bytes.slice(1_000_000..);
    let refused = chunk(&client, &location, 1_000_000, &rest).send().await;
    refused.expect_error(507, "UNAVAILABLE");
    assert_eq!(standing(&client, &location).await, "0-999999");
    // What is there can be read and deleted.
    assert!(holds(&client, NAME, &before).await);
    let path = blob(NAME, &before.digest);
    client.delete(&path).send().await.expect_status(202);
    s3.heal();
    let done = finish(&client, &location, &large.digest, rest).send().await;
    done.expect_status(201);
    assert!(holds(&client, NAME, &large).await);
}

/// As after a kill between Complete and the row: the object is whole, and the row says what was acknowledged before.
#[tokio::test]
async fn a_client_that_appends_to_a_completed_upload_hears_how_to_end_it() {
    let s3 = bucket().await;
    let server = start(&s3, "").await;
    let client = server.admin(Version::Http1);
    let content = Content::random(LARGE);
    let location = client.start_upload(NAME).await;
    let first = content.bytes.slice(..11_000_000);
    let patched = chunk(&client, &location, 0, &first).send().await;
    patched.expect_status(202);
    let rest = content.bytes.slice(11_000_000..);
    s3.fault(Kind::Complete, 0, 1, Fault::LoseAnswer);
    let denied = Saying {
        status: 403,
        header: None,
        body: "",
    };
    s3.fault(Kind::Head, 0, 1, Fault::Say(denied));
    let cut = finish(&client, &location, &content.digest, rest.clone());
    cut.send().await.expect_status(503);
    s3.heal();

    assert_eq!(standing(&client, &location).await, "0-10999999");
    let refused = chunk(&client, &location, 11_000_000, &rest).send().await;
    let told = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(told.contains("send that PUT again"), "{told}");
    refused.expect_error(409, "BLOB_UPLOAD_INVALID");
    assert_eq!(standing(&client, &location).await, "0-10999999");
    let done = finish(&client, &location, &content.digest, rest)
        .send()
        .await;
    done.expect_status(201);
    assert!(holds(&client, NAME, &content).await);
    assert_eq!(s3.loose_parts(), 0);
}
