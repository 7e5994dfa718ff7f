//! Uploads: sessions, whole blobs, what is refused (end-4, end-6, end-13, end-14).

use http::Method;
use wharf_testkit::client::with_query;
use wharf_testkit::content::random_bytes;
use wharf_testkit::{Content, TestOptions, TestServer, Version};

use crate::support::{ALGORITHMS, algorithms, blob, both, both_on, finish, holds, standing};

/// Sizes on both sides of `storage.inline_below` and of the buffers.
const SIZES: [usize; 5] = [0, 1, 80 * 1024 - 1, 80 * 1024, 2_500_000];

/// Spec: UP-1, UP-2, UP-4, UP-20.
#[tokio::test]
async fn a_session_has_a_location_and_nothing_yet() {
    both(async |client, name| {
        for path in [
            format!("/v2/{name}/blobs/uploads/"),
            format!("/v2/{name}/blobs/uploads"),
        ] {
            let session = client.post(&path).body("").send().await.expect_status(202);
            let id = session.expect_header("docker-upload-uuid");
            assert_eq!(session.location(), format!("/v2/{name}/blobs/uploads/{id}"));
            assert_eq!(session.header("range"), Some("0-0"));
            assert_eq!(session.header("content-length"), Some("0"));
            assert!(session.body.is_empty());
        }
        let (one, two) = (
            client.start_upload(&name).await,
            client.start_upload(&name).await,
        );
        assert_ne!(one, two);
    })
    .await;
}

/// Spec: UP-10, UP-29, CS-4, CS-7, DIG-5.
#[tokio::test]
async fn post_then_put() {
    both(async |client, name| {
        for (algorithm, size) in algorithms()
            .into_iter()
            .flat_map(|a| SIZES.map(|size| (a, size)))
        {
            let content = Content::random_of(algorithm, size);
            let location = client.start_upload(&name).await;
            let request = finish(&client, &location, &content.digest, content.bytes.clone());
            let done = request
                .header("content-type", "application/octet-stream")
                .send()
                .await
                .expect_status(201);
            assert_eq!(done.location(), blob(&name, &content.digest));
            assert_eq!(done.digest(), content.digest);
            assert_eq!(
                client
                    .get(done.location())
                    .send()
                    .await
                    .expect_status(200)
                    .body,
                content.bytes
            );
        }
    })
    .await;
}

/// Spec: UP-11, UP-16, CS-4.
#[tokio::test]
async fn one_post() {
    both(async |client, name| {
        for (algorithm, size) in algorithms()
            .into_iter()
            .flat_map(|a| SIZES.map(|size| (a, size)))
        {
            let content = Content::random_of(algorithm, size);
            let path = format!("/v2/{name}/blobs/uploads/?digest={}", content.digest);
            let request = client
                .post(&path)
                .header("content-type", "application/json")
                .body(content.bytes.clone());
            let done = request.send().await.expect_status(201);
            assert_eq!(
                (done.location(), done.digest()),
                (
                    blob(&name, &content.digest).as_str(),
                    content.digest.clone()
                )
            );
            assert!(holds(&client, &name, &content).await);
        }
    })
    .await;
}

/// Spec: UP-3, UP-4.
#[tokio::test]
async fn unknown_parameters_are_ignored_and_old_locations_stay_good() {
    both(async |client, name| {
        let content = Content::random(3000);
        let first = client.start_upload(&name).await;
        client
            .patch(&with_query(&first, "_state=abc%zz&x"))
            .body(content.bytes.slice(..1000))
            .send()
            .await
            .expect_status(202);
        client
            .patch(&first)
            .body(content.bytes.slice(1000..))
            .send()
            .await
            .expect_status(202);
        let query = format!(
            "b=2&digest={}&_state=x",
            content.digest.as_str().replace(':', "%3A")
        );
        client
            .put(&with_query(&first, &query))
            .send()
            .await
            .expect_status(201);
        assert!(holds(&client, &name, &content).await);
    })
    .await;
}

/// Spec: UP-5, UP-9.
#[tokio::test]
async fn sessions_belong_to_a_repository_and_to_who_began_them() {
    let options = TestOptions {
        htpasswd: vec![("alice", "a"), ("bob", "b")],
        ..Default::default()
    };
    let server = TestServer::start(options).await;
    both_on(&server, async |admin, name| {
        let alice = admin.clone().with_basic("alice", "a");
        let location = alice.start_upload(&name).await;
        let elsewhere = location.replace(&name, &format!("{name}-other"));
        let digest = format!("sha256:{}", "0".repeat(64));
        for (client, location) in [
            (&alice, &elsewhere),
            (&admin.clone().with_basic("bob", "b"), &location),
        ] {
            for method in [Method::GET, Method::PATCH, Method::PUT, Method::DELETE] {
                let target = with_query(location, &format!("digest={digest}"));
                let answer = client.request(method, &target).body("x").send().await;
                answer.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
            }
        }
        // Tokens are refreshed in the middle of a push, so another token of the same subject goes on.
        for _ in 0..2 {
            let scope = format!("repository:{name}:pull,push");
            let token = alice.fetch_token(&[&scope]).await.expect_status(200).json()["token"]
                .as_str()
                .unwrap()
                .to_owned();
            alice
                .clone()
                .with_token(&token)
                .patch(&location)
                .body("abc")
                .send()
                .await
                .expect_status(202);
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
        client
            .patch(&location)
            .body(random_bytes(50_000))
            .send()
            .await
            .expect_status(202);
        let cancelled = client
            .delete(&location)
            .body("")
            .send()
            .await
            .expect_status(204);
        assert!(cancelled.body.is_empty());
        let digest = format!("sha256:{}", "0".repeat(64));
        let unknown = format!("/v2/{name}/blobs/uploads/00000000-0000-4000-8000-000000000000");
        for location in [
            location,
            unknown,
            format!("/v2/{name}/blobs/uploads/nonsense"),
        ] {
            for method in [Method::GET, Method::PATCH, Method::PUT, Method::DELETE] {
                let target = with_query(&location, &format!("digest={digest}"));
                client
                    .request(method, &target)
                    .send()
                    .await
                    .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
            }
        }
    })
    .await;
}

/// Spec: UP-41.
#[tokio::test]
async fn cancelling_needs_the_right_to_push() {
    let server = TestServer::start(TestOptions {
        htpasswd: vec![("alice", "a")],
        ..Default::default()
    })
    .await;
    both_on(&server, async |admin, name| {
        let alice = admin.with_basic("alice", "a");
        let location = alice.start_upload(&name).await;
        let scope = format!("repository:{name}:pull,push");
        let token = alice.fetch_token(&[&scope]).await.expect_status(200).json()["token"]
            .as_str()
            .unwrap()
            .to_owned();
        alice
            .with_token(&token)
            .delete(&location)
            .send()
            .await
            .expect_status(204);
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
            client
                .post(&path)
                .body(content.bytes.clone())
                .send()
                .await
                .expect_error(400, "DIGEST_INVALID");
            let location = client.start_upload(&name).await;
            let refused = finish(&client, &location, &other.digest, content.bytes.clone())
                .send()
                .await;
            refused.expect_error(400, "DIGEST_INVALID");
            assert!(!holds(&client, &name, &content).await && !holds(&client, &name, &other).await);
            client
                .get(&location)
                .send()
                .await
                .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        }
    })
    .await;
}

/// Spec: UP-12, UP-17, DIG-3, DIG-4.
#[tokio::test]
async fn digests_that_cannot_be_checked_are_refused() {
    both(async |client, name| {
        let bad = [
            "sha256:totallywrong",
            "sha256",
            "",
            &format!("blake3:{}", "0".repeat(64)),
            "md5:d41d8cd98f00b204e9800998ecf8427e",
        ];
        for digest in bad {
            let path = format!("/v2/{name}/blobs/uploads/?digest={digest}");
            client
                .post(&path)
                .body("abc")
                .send()
                .await
                .expect_error(400, "DIGEST_INVALID");
            let location = client.start_upload(&name).await;
            let target = with_query(&location, &format!("digest={digest}"));
            client
                .put(&target)
                .body("abc")
                .send()
                .await
                .expect_error(400, "DIGEST_INVALID");
        }
        let location = client.start_upload(&name).await;
        client
            .put(&location)
            .body("abc")
            .send()
            .await
            .expect_error(400, "DIGEST_INVALID");
    })
    .await;
}

/// Spec: UP-7, CS-4.
#[tokio::test]
async fn the_algorithm_may_be_announced_and_need_not_be_true() {
    both(async |client, name| {
        let path =
            |algorithm: &str| format!("/v2/{name}/blobs/uploads/?digest-algorithm={algorithm}");
        for announced in ["sha256", "sha512"] {
            for algorithm in ALGORITHMS {
                let content = Content::random_of(algorithm, 50_000);
                let session = client
                    .post(&path(announced))
                    .send()
                    .await
                    .expect_status(202);
                let (first, last) = (content.bytes.slice(..20_000), content.bytes.slice(20_000..));
                client
                    .patch(session.location())
                    .body(first)
                    .send()
                    .await
                    .expect_status(202);
                finish(&client, session.location(), &content.digest, last)
                    .send()
                    .await
                    .expect_status(201);
                assert!(holds(&client, &name, &content).await);
            }
        }
        for unknown in ["md5", "SHA256", "", "blake3"] {
            client
                .post(&path(unknown))
                .send()
                .await
                .expect_error(400, "DIGEST_INVALID");
        }
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
    let location = with_query(
        &client.start_upload("team/app").await,
        &format!("digest={}", content.digest),
    );
    let request = |target: &str, authorization: &str| {
        format!(
            "PUT {target} HTTP/1.1\r\nHost: x\r\n{authorization}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
    };
    let authorization = format!("Authorization: {}\r\n", server.admin_authorization());
    let unknown = format!(
        "/v2/team/app/blobs/uploads/00000000-0000-4000-8000-000000000000?digest={}",
        content.digest
    );
    for (target, authorization, status) in [
        (&location, "", 401),
        (&unknown, authorization.as_str(), 404),
    ] {
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

/// Spec: UP-2.
#[tokio::test]
async fn locations_are_absolute_under_an_external_url() {
    let options = TestOptions {
        config: "[server]\nexternal_url = \"https://reg.example:8443/\"\n".into(),
        ..Default::default()
    };
    let server = TestServer::start(options).await;
    both_on(&server, async |client, name| {
        let base = format!("https://reg.example:8443/v2/{name}");
        let content = Content::random(20);
        let location = client.start_upload(&name).await;
        assert!(
            location.starts_with(&format!("{base}/blobs/uploads/")),
            "{location}"
        );
        let done = finish(&client, &location, &content.digest, content.bytes.clone())
            .send()
            .await
            .expect_status(201);
        assert_eq!(done.location(), format!("{base}/blobs/{}", content.digest));
        let realm = client
            .anonymous()
            .get("/v2/")
            .send()
            .await
            .expect_status(401)
            .challenge()
            .realm;
        assert_eq!(realm, "https://reg.example:8443/token");
    })
    .await;
}

/// Spec: UP-6.
#[tokio::test]
async fn sessions_that_nobody_continues_expire() {
    let options = TestOptions {
        config: "[limits]\nupload_age = \"1s\"\n".into(),
        ..Default::default()
    };
    let server = TestServer::start(options).await;
    both_on(&server, async |client, name| {
        let (idle, busy) = (
            client.start_upload(&name).await,
            client.start_upload(&name).await,
        );
        client
            .patch(&idle)
            .body(random_bytes(100_000))
            .send()
            .await
            .expect_status(202);
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        client
            .patch(&busy)
            .body("abc")
            .send()
            .await
            .expect_status(202);
        wharf_core::upload::expire(&server.app().registry)
            .await
            .unwrap();
        client
            .get(&idle)
            .send()
            .await
            .expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        client.get(&busy).send().await.expect_status(204);
    })
    .await;
}
