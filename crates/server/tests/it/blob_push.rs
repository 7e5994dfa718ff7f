//! Uploading blobs (end-4 to end-6, end-11, end-13, end-14).

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use wharf_oci::{Algorithm, Digest};
use wharf_testkit::client::{Step, with_query};
use wharf_testkit::content::random_bytes;
use wharf_testkit::{Client, Content, Request, TestOptions, TestServer, Version};

use crate::support::{blob, both, both_on};

const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// Sizes on both sides of `storage.inline_below` and of the buffers.
const SIZES: [usize; 5] = [0, 1, 16 * 1024, 16 * 1024 + 1, 2_500_000];

async fn holds(client: &Client, name: &str, content: &Content) -> bool {
    let answer = client.get(&blob(name, &content.digest)).send().await;
    match answer.status.as_u16() {
        200 => {
            assert!(answer.body == content.bytes, "other bytes than were pushed");
            true
        }
        404 => false,
        _ => panic!("{answer}"),
    }
}

/// A closing PUT with these bytes.
fn finish<'c>(client: &'c Client, location: &str, digest: &Digest, bytes: impl Into<Bytes>) -> Request<'c> {
    client.put(&with_query(location, &format!("digest={digest}"))).body(bytes)
}

/// A PATCH of the bytes from `start`.
fn chunk<'c>(client: &'c Client, location: &str, start: usize, bytes: &Bytes) -> Request<'c> {
    let range = format!("{start}-{}", start + bytes.len() - 1);
    client.patch(location).header("content-range", &range).body(bytes.clone())
}

/// Asks for the status and gives back `Range`.
async fn standing(client: &Client, location: &str) -> String {
    let status = client.get(location).send().await.expect_status(204);
    assert!(status.location().contains("/blobs/uploads/"), "{status}");
    status.expect_header("range").to_owned()
}

/// Spec: UP-1, UP-2, UP-4, UP-20.
#[tokio::test]
async fn a_session_has_a_location_and_nothing_yet() {
    both(async |client, name| {
        for path in [format!("/v2/{name}/blobs/uploads/"), format!("/v2/{name}/blobs/uploads")] {
            let session = client.post(&path).body("").send().await.expect_status(202);
            let id = session.expect_header("docker-upload-uuid");
            assert_eq!(session.location(), format!("/v2/{name}/blobs/uploads/{id}"));
            assert_eq!(session.header("range"), Some("0-0"));
            assert_eq!(session.header("content-length"), Some("0"));
            assert!(session.body.is_empty());
        }
        let (one, two) = (client.start_upload(&name).await, client.start_upload(&name).await);
        assert_ne!(one, two);
    })
    .await;
}

/// Spec: UP-10, UP-29, CS-4, CS-7, DIG-5.
#[tokio::test]
async fn post_then_put() {
    both(async |client, name| {
        for (algorithm, size) in ALGORITHMS.into_iter().flat_map(|a| SIZES.map(|size| (a, size))) {
            let content = Content::random_of(algorithm, size);
            let location = client.start_upload(&name).await;
            let request = finish(&client, &location, &content.digest, content.bytes.clone());
            let done = request.header("content-type", "application/octet-stream").send().await.expect_status(201);
            assert_eq!(done.location(), blob(&name, &content.digest));
            assert_eq!(done.digest(), content.digest);
            assert_eq!(client.get(done.location()).send().await.expect_status(200).body, content.bytes);
        }
    })
    .await;
}

/// Spec: UP-11, UP-16, CS-4.
#[tokio::test]
async fn one_post() {
    both(async |client, name| {
        for (algorithm, size) in ALGORITHMS.into_iter().flat_map(|a| SIZES.map(|size| (a, size))) {
            let content = Content::random_of(algorithm, size);
            let path = format!("/v2/{name}/blobs/uploads/?digest={}", content.digest);
            let request = client.post(&path).header("content-type", "application/json").body(content.bytes.clone());
            let done = request.send().await.expect_status(201);
            assert_eq!((done.location(), done.digest()), (blob(&name, &content.digest).as_str(), content.digest.clone()));
            assert!(holds(&client, &name, &content).await);
        }
    })
    .await;
}

/// Spec: UP-21, UP-22, UP-26, UP-29, CS-4.
#[tokio::test]
async fn chunk_by_chunk() {
    both(async |client, name| {
        for (algorithm, size) in ALGORITHMS.into_iter().flat_map(|a| [1024, 60_000].map(|size| (a, size))) {
            let content = Content::random_of(algorithm, size * 3);
            let mut location = client.start_upload(&name).await;
            for at in 0..3 {
                let part = content.bytes.slice(at * size..(at + 1) * size);
                let accepted = chunk(&client, &location, at * size, &part).send().await.expect_status(202);
                let range = format!("0-{}", (at + 1) * size - 1);
                assert_eq!(accepted.header("range"), Some(range.as_str()));
                assert_eq!(accepted.header("content-length"), Some("0"));
                accepted.expect_header("docker-upload-uuid");
                location = accepted.location().to_owned();
                assert_eq!(standing(&client, &location).await, range);
            }
            let empty = finish(&client, &location, &content.digest, "").header("content-type", "application/octet-stream");
            empty.send().await.expect_status(201);
            assert!(holds(&client, &name, &content).await);
        }
    })
    .await;
}

/// Spec: UP-21.
#[tokio::test]
async fn content_range_is_read_with_tolerance_and_refused_with_reason() {
    both(async |client, name| {
        let location = client.start_upload(&name).await;
        let part = random_bytes(10);
        let tolerated = client.patch(&location).header("content-range", "bytes 0-9/20").body(part.clone());
        tolerated.send().await.expect_status(202);
        for range in ["10", "a-b", "19-10", "-5", "10-", "items 10-19", "10-19/x"] {
            let refused = client.patch(&location).header("content-range", range).body(part.clone()).send().await;
            assert!(matches!(refused.status.as_u16(), 400 | 416), "{range}: {refused}");
            assert!(!refused.error_codes().is_empty());
        }
        assert_eq!(standing(&client, &location).await, "0-9");
    })
    .await;
}

/// Spec: UP-24, UP-25, UP-26, UP-27, CS-5.
#[tokio::test]
async fn a_chunk_out_of_order_changes_nothing() {
    both(async |client, name| {
        for size in [1000, 50_000] {
            let content = Content::random(size * 3);
            let part = |at: usize| content.bytes.slice(at * size..(at + 1) * size);
            let location = client.start_upload(&name).await;
            let refused = chunk(&client, &location, size, &part(1)).send().await.expect_error(416, "RANGE_INVALID");
            assert_eq!(refused.location(), location);
            assert_eq!(refused.header("range"), Some("0-0"));
            standing(&client, &location).await;
            for at in 0..2 {
                chunk(&client, &location, at * size, &part(at)).send().await.expect_status(202);
                // What was sent already, from the start, a piece further on: all out of order.
                for wrong in [at * size, 0, (at + 2) * size, (at + 1) * size - 1, (at + 1) * size + 1] {
                    let refused = chunk(&client, &location, wrong, &part(at)).send().await.expect_error(416, "RANGE_INVALID");
                    let range = format!("0-{}", (at + 1) * size - 1);
                    assert_eq!(refused.header("range"), Some(range.as_str()));
                    assert_eq!(refused.location(), location);
                    assert_eq!(standing(&client, &location).await, range);
                }
            }
            // The last chunk may come with the closing PUT, and be wrong there (UP-28, CS-6).
            let target = with_query(&location, &format!("digest={}", content.digest));
            let range = |start: usize| format!("{start}-{}", start + size - 1);
            let wrong = client.put(&target).header("content-range", &range(size)).body(part(2));
            wrong.send().await.expect_error(416, "RANGE_INVALID");
            assert_eq!(standing(&client, &target).await, format!("0-{}", 2 * size - 1));
            let right = client.put(&target).header("content-range", &range(2 * size)).body(part(2));
            right.send().await.expect_status(201);
            assert!(holds(&client, &name, &content).await);
        }
    })
    .await;
}

/// Spec: UP-28, CS-6.
#[tokio::test]
async fn a_wrong_start_is_found_before_a_wrong_digest() {
    both(async |client, name| {
        let location = client.start_upload(&name).await;
        let target = with_query(&location, &format!("digest={}", Content::random(3).digest));
        let refused = client.put(&target).header("content-range", "5-9").body(random_bytes(5)).send().await;
        refused.expect_error(416, "RANGE_INVALID");
        standing(&client, &location).await;
    })
    .await;
}

/// Spec: UP-24.
#[tokio::test]
async fn a_chunk_of_another_length_than_it_says_is_refused() {
    both(async |client, name| {
        let location = client.start_upload(&name).await;
        for (range, size) in [("0-9", 5), ("0-9", 15)] {
            let refused = client.patch(&location).header("content-range", range).body(random_bytes(size)).send().await;
            refused.expect_error(400, "SIZE_INVALID");
        }
        let content = Content::random(20);
        finish(&client, &location, &content.digest, content.bytes.clone()).send().await.expect_status(201);
        assert!(holds(&client, &name, &content).await);
    })
    .await;
}

/// Spec: UP-14, UP-23, UP-32.
#[tokio::test]
async fn streams_of_unknown_length() {
    both(async |client, name| {
        for size in [100, 700_000] {
            let content = Content::random(size);
            let pieces = || content.bytes.chunks(size / 3).map(Bytes::copy_from_slice).collect::<Vec<_>>();
            let location = client.start_upload(&name).await;
            let accepted = client.patch(&location).chunked(pieces()).send().await.expect_status(202);
            assert_eq!(accepted.header("range"), Some(format!("0-{}", size - 1).as_str()));
            finish(&client, accepted.location(), &content.digest, "").send().await.expect_status(201);
            assert!(holds(&client, &name, &content).await);

            let again = Content::random(size);
            let pieces: Vec<_> = again.bytes.chunks(size / 3).map(Bytes::copy_from_slice).collect();
            let target = with_query(&client.start_upload(&name).await, &format!("digest={}", again.digest));
            client.put(&target).chunked(pieces).send().await.expect_status(201);
            assert!(holds(&client, &name, &again).await);
        }
        let empty = Content::random(0);
        let location = client.start_upload(&name).await;
        client.patch(&location).chunked([]).send().await.expect_status(202);
        finish(&client, &location, &empty.digest, "").send().await.expect_status(201);
    })
    .await;
}

/// Spec: UP-23, UP-28.
#[tokio::test]
async fn without_content_range_bytes_are_appended() {
    both(async |client, name| {
        let content = Content::random(40_000);
        let location = client.start_upload(&name).await;
        client.patch(&location).body(content.bytes.slice(..15_000)).send().await.expect_status(202);
        client.patch(&location).body(content.bytes.slice(15_000..30_000)).send().await.expect_status(202);
        finish(&client, &location, &content.digest, content.bytes.slice(30_000..)).send().await.expect_status(201);
        assert!(holds(&client, &name, &content).await);
    })
    .await;
}

/// Spec: UP-3, UP-4.
#[tokio::test]
async fn unknown_parameters_are_ignored_and_old_locations_stay_good() {
    both(async |client, name| {
        let content = Content::random(3000);
        let first = client.start_upload(&name).await;
        client.patch(&with_query(&first, "_state=abc%zz&x")).body(content.bytes.slice(..1000)).send().await.expect_status(202);
        client.patch(&first).body(content.bytes.slice(1000..)).send().await.expect_status(202);
        let query = format!("b=2&digest={}&_state=x", content.digest.as_str().replace(':', "%3A"));
        client.put(&with_query(&first, &query)).send().await.expect_status(201);
        assert!(holds(&client, &name, &content).await);
    })
    .await;
}

/// Spec: UP-5, UP-9.
#[tokio::test]
async fn sessions_belong_to_a_repository_and_to_who_began_them() {
    let options = TestOptions { htpasswd: vec![("alice", "a"), ("bob", "b")], ..Default::default() };
    let server = TestServer::start(options).await;
    both_on(&server, async |admin, name| {
        let alice = admin.clone().with_basic("alice", "a");
        let location = alice.start_upload(&name).await;
        let elsewhere = location.replace(&name, &format!("{name}-other"));
        let digest = format!("sha256:{}", "0".repeat(64));
        for (client, location) in [(&alice, &elsewhere), (&admin.clone().with_basic("bob", "b"), &location)] {
            for method in [Method::GET, Method::PATCH, Method::PUT, Method::DELETE] {
                let target = with_query(location, &format!("digest={digest}"));
                let answer = client.request(method, &target).body("x").send().await;
                answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
            }
        }
        // Tokens are refreshed in the middle of a push, so another token of the same subject goes on.
        for _ in 0..2 {
            let scope = format!("repository:{name}:pull,push");
            let token = alice.fetch_token(&[&scope]).await.expect_status(200).json()["token"].as_str().unwrap().to_owned();
            alice.clone().with_token(&token).patch(&location).body("abc").send().await.expect_status(202);
        }
        assert_eq!(standing(&alice, &location).await, "0-5");
    })
    .await;
}

/// Spec: UP-9, UP-40, CS-10.
#[tokio::test]
async fn cancelled_sessions_are_gone() {
    both(async |client, name| {
        let location = client.start_upload(&name).await;
        client.patch(&location).body(random_bytes(50_000)).send().await.expect_status(202);
        let cancelled = client.delete(&location).body("").send().await.expect_status(204);
        assert!(cancelled.body.is_empty());
        let digest = format!("sha256:{}", "0".repeat(64));
        let unknown = format!("/v2/{name}/blobs/uploads/00000000-0000-4000-8000-000000000000");
        for location in [location, unknown, format!("/v2/{name}/blobs/uploads/nonsense")] {
            for method in [Method::GET, Method::PATCH, Method::PUT, Method::DELETE] {
                let target = with_query(&location, &format!("digest={digest}"));
                client.request(method, &target).send().await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
            }
        }
    })
    .await;
}

/// Spec: UP-41.
#[tokio::test]
async fn cancelling_needs_the_right_to_push() {
    let server = TestServer::start(TestOptions { htpasswd: vec![("alice", "a")], ..Default::default() }).await;
    both_on(&server, async |admin, name| {
        let alice = admin.with_basic("alice", "a");
        let location = alice.start_upload(&name).await;
        let scope = format!("repository:{name}:pull,push");
        let token = alice.fetch_token(&[&scope]).await.expect_status(200).json()["token"].as_str().unwrap().to_owned();
        alice.with_token(&token).delete(&location).send().await.expect_status(204);
    })
    .await;
}

/// Spec: UP-12, UP-13.
#[tokio::test]
async fn a_wrong_digest_stores_nothing() {
    both(async |client, name| {
        for size in [100, 100_000] {
            let (content, other) = (Content::random(size), Content::random(size));
            let path = format!("/v2/{name}/blobs/uploads/?digest={}", other.digest);
            client.post(&path).body(content.bytes.clone()).send().await.expect_error(400, "DIGEST_INVALID");
            let location = client.start_upload(&name).await;
            let refused = finish(&client, &location, &other.digest, content.bytes.clone()).send().await;
            refused.expect_error(400, "DIGEST_INVALID");
            assert!(!holds(&client, &name, &content).await && !holds(&client, &name, &other).await);
            client.get(&location).send().await.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        }
    })
    .await;
}

/// Spec: UP-12, UP-17, DIG-3, DIG-4.
#[tokio::test]
async fn digests_that_cannot_be_checked_are_refused() {
    both(async |client, name| {
        let bad = ["sha256:totallywrong", "sha256", "", &format!("blake3:{}", "0".repeat(64)), "md5:d41d8cd98f00b204e9800998ecf8427e"];
        for digest in bad {
            let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
            client.post(&path).body("abc").send().await.expect_error(400, "DIGEST_INVALID");
            let location = client.start_upload(&name).await;
            let target = with_query(&location, &format!("digest={digest}"));
            client.put(&target).body("abc").send().await.expect_error(400, "DIGEST_INVALID");
        }
        let location = client.start_upload(&name).await;
        client.put(&location).body("abc").send().await.expect_error(400, "DIGEST_INVALID");
    })
    .await;
}

/// Spec: UP-7, CS-4.
#[tokio::test]
async fn the_algorithm_may_be_announced_and_need_not_be_true() {
    both(async |client, name| {
        let path = |algorithm: &str| format!("/v2/{name}/blobs/uploads/?digest-algorithm={algorithm}");
        for announced in ["sha256", "sha512"] {
            for algorithm in ALGORITHMS {
                let content = Content::random_of(algorithm, 50_000);
                let session = client.post(&path(announced)).send().await.expect_status(202);
                let (first, last) = (content.bytes.slice(..20_000), content.bytes.slice(20_000..));
                client.patch(session.location()).body(first).send().await.expect_status(202);
                finish(&client, session.location(), &content.digest, last).send().await.expect_status(201);
                assert!(holds(&client, &name, &content).await);
            }
        }
        for unknown in ["md5", "SHA256", "", "blake3"] {
            client.post(&path(unknown)).send().await.expect_error(400, "DIGEST_INVALID");
        }
    })
    .await;
}

/// Spec: UP-31, BGET-9.
#[tokio::test]
async fn what_arrived_before_the_line_broke_is_kept_and_reported() {
    both(async |client, name| {
        let content = Content::random(3_000_000);
        let location = client.start_upload(&name).await;
        let half = content.bytes.slice(..1_500_000);
        let steps = [Step::Data(half), Step::Pause(Duration::from_millis(300)), Step::Fail];
        client.patch(&location).script(None, steps).try_send().await.expect_err("the line breaks");
        let range = standing(&client, &location).await;
        let held = range.strip_prefix("0-").and_then(|last| last.parse::<usize>().ok()).expect(&range) + 1;
        assert!(held > 1 && held <= 1_500_000, "{range}");
        let rest = content.bytes.slice(held..);
        chunk(&client, &location, held, &rest).send().await.expect_status(202);
        finish(&client, &location, &content.digest, "").send().await.expect_status(201);
        assert!(holds(&client, &name, &content).await);
    })
    .await;
}

/// Spec: UP-30.
#[tokio::test]
async fn two_requests_on_a_session_never_interleave() {
    both(async |client, name| {
        let content = Content::random(2_000_000);
        let location = client.start_upload(&name).await;
        let (first, last) = (content.bytes.slice(..1_000_000), content.bytes.slice(1_000_000..));
        let slow = client.patch(&location).script(
            Some(2_000_000),
            [Step::Data(first), Step::Pause(Duration::from_millis(500)), Step::Data(last)],
        );
        let second = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            chunk(&client, &location, 0, &random_bytes(1000)).send().await
        };
        let (slow, second) = tokio::join!(slow.send(), second);
        slow.expect_status(202);
        assert!(matches!(second.status.as_u16(), 409 | 416 | 423), "{second}");
        finish(&client, &location, &content.digest, "").send().await.expect_status(201);
        assert!(holds(&client, &name, &content).await);
    })
    .await;
}

/// Spec: UP-12.
#[tokio::test]
async fn pushing_again_is_fine() {
    both(async |client, name| {
        for size in [10, 100_000] {
            let content = Content::random(size);
            for _ in 0..3 {
                client.push_blob(&name, &content).await;
            }
            client.push_blob(&format!("{name}-other"), &content).await;
            assert!(holds(&client, &name, &content).await);
        }
    })
    .await;
}

/// Spec: UP-15.
#[tokio::test]
async fn continue_is_said_only_to_those_who_may() {
    let server = TestServer::start(TestOptions::default()).await;
    let client = server.admin(Version::Http1);
    let content = Content::random(5);
    let location = with_query(&client.start_upload("team/app").await, &format!("digest={}", content.digest));
    let request = |target: &str, authorization: &str| {
        format!("PUT {target} HTTP/1.1\r\nHost: x\r\n{authorization}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    };
    let authorization = format!("Authorization: {}\r\n", server.admin_authorization());
    let unknown = format!("/v2/team/app/blobs/uploads/00000000-0000-4000-8000-000000000000?digest={}", content.digest);
    for (target, authorization, status) in [(&location, "", 401), (&unknown, authorization.as_str(), 404)] {
        let mut raw = wharf_testkit::raw::RawConnection::open(client.addr()).await;
        raw.write(request(target, authorization)).await.unwrap();
        assert_eq!(raw.read(false).await.expect("an answer").status, status);
    }
    let mut raw = wharf_testkit::raw::RawConnection::open(client.addr()).await;
    raw.write(request(&location, &authorization)).await.unwrap();
    assert_eq!(raw.read(false).await.expect("an answer").status, 100);
    raw.write(&content.bytes).await.unwrap();
    assert_eq!(raw.read(false).await.expect("an answer").status, 201);
}

/// Spec: MNT-1, MNT-4, MNT-5, CS-4, CS-7.
#[tokio::test]
async fn blobs_are_mounted_from_another_repository() {
    both(async |client, name| {
        for (algorithm, size) in ALGORITHMS.into_iter().flat_map(|a| [5, 100_000].map(|size| (a, size))) {
            let content = Content::random_of(algorithm, size);
            client.push_blob(&name, &content).await;
            let (raw, encoded) = (content.digest.to_string(), content.digest.as_str().replace(':', "%3A"));
            for (at, query) in [
                format!("mount={raw}&from={name}"),
                format!("from={}&mount={encoded}", name.replace('/', "%2F")),
                format!("mount={raw}&from={name}&origin=other.example"),
            ]
            .iter()
            .enumerate()
            {
                let target = format!("{name}-mount-{size}-{at}");
                let mounted = client.post(&format!("/v2/{target}/blobs/uploads/?{query}")).body("").send().await;
                let mounted = mounted.expect_status(201);
                assert_eq!(mounted.location(), blob(&target, &content.digest));
                assert_eq!(mounted.digest(), content.digest);
                assert!(holds(&client, &target, &content).await);
            }
        }
    })
    .await;
}

/// Spec: MNT-2.
#[tokio::test]
async fn a_mount_that_cannot_be_is_a_session() {
    both(async |client, name| {
        let (content, missing) = (Content::random(100), Content::random(100));
        client.push_blob(&name, &content).await;
        for query in [
            format!("mount={}&from={name}", missing.digest),
            format!("mount={}&from={name}-never", content.digest),
            format!("mount={}&from=BAD//NAME", content.digest),
            format!("mount={}&from=", missing.digest),
            format!("mount={}", missing.digest),
        ] {
            let target = format!("{name}-target");
            let session = client.post(&format!("/v2/{target}/blobs/uploads/?{query}")).send().await.expect_status(202);
            assert!(!holds(&client, &target, &missing).await);
            let other = Content::random(10);
            finish(&client, session.location(), &other.digest, other.bytes.clone()).send().await.expect_status(201);
        }
    })
    .await;
}

/// Spec: MNT-3.
#[tokio::test]
async fn without_a_source_any_repository_that_the_caller_may_pull_will_do() {
    let server = TestServer::start(TestOptions {
        htpasswd: vec![("alice", "a")],
        htpasswd_role: Some("none"),
        grants: vec![("alice", "writer", "shared"), ("alice", "writer", "mine")],
        ..Default::default()
    })
    .await;
    both_on(&server, async |admin, name| {
        let alice = admin.clone().with_basic("alice", "a");
        let (visible, hidden) = (Content::random(100), Content::random(100));
        admin.push_blob(&format!("shared/{name}"), &visible).await;
        admin.push_blob(&format!("secret/{name}"), &hidden).await;
        let post = |digest: &Digest, more: &str| alice.post(&format!("/v2/mine/{name}/blobs/uploads/?mount={digest}{more}"));
        post(&visible.digest, "").send().await.expect_status(201);
        // Neither unnamed nor named does a source that alice cannot pull tell her anything (MNT-2).
        post(&hidden.digest, "").send().await.expect_status(202);
        post(&hidden.digest, &format!("&from=secret/{name}")).send().await.expect_status(202);
        assert!(!holds(&alice, &format!("mine/{name}"), &hidden).await);
        // A token for the target alone is enough, since its subject may pull the source.
        let scope = format!("repository:mine/{name}:pull,push");
        let token = alice.fetch_token(&[&scope]).await.expect_status(200).json()["token"].as_str().unwrap().to_owned();
        let another = Content::random(100);
        admin.push_blob(&format!("shared/{name}"), &another).await;
        let path = format!("/v2/mine/{name}/blobs/uploads/?mount={}&from=shared/{name}", another.digest);
        alice.clone().with_token(&token).post(&path).send().await.expect_status(201);
    })
    .await;
}

/// Spec: UP-2.
#[tokio::test]
async fn locations_are_absolute_under_an_external_url() {
    let options = TestOptions { config: "[server]\nexternal_url = \"https://reg.example:8443/\"\n".into(), ..Default::default() };
    let server = TestServer::start(options).await;
    both_on(&server, async |client, name| {
        let base = format!("https://reg.example:8443/v2/{name}");
        let content = Content::random(20);
        let location = client.start_upload(&name).await;
        assert!(location.starts_with(&format!("{base}/blobs/uploads/")), "{location}");
        let done = finish(&client, &location, &content.digest, content.bytes.clone()).send().await.expect_status(201);
        assert_eq!(done.location(), format!("{base}/blobs/{}", content.digest));
        let realm = client.anonymous().get("/v2/").send().await.expect_status(401).challenge().realm;
        assert_eq!(realm, "https://reg.example:8443/token");
    })
    .await;
}
