//! Errors: their form and their place (specification §1.11).

use wharf_oci::ErrorCode;
use wharf_testkit::{Content, Image, TestOptions, TestServer};

use crate::support::{blob, both, both_on, manifest};

/// Spec: ERR-1, ERR-2, ERR-4, ERR-5, NAME-1, NAME-2, NAME-3.
#[tokio::test]
async fn every_error_is_json_that_says_what_to_do() {
    both(async |client, name| {
        let zero = format!("sha256:{}", "0".repeat(64));
        for (path, status, code) in [
            ("/v2/UPPER/manifests/v1".to_owned(), 400, "NAME_INVALID"),
            ("/v2/a//b/manifests/v1".to_owned(), 400, "NAME_INVALID"),
            (manifest("a/../b", "v1"), 400, "NAME_INVALID"),
            (manifest("a%2Fb", "v1"), 400, "NAME_INVALID"),
            (manifest("a%00", "v1"), 400, "NAME_INVALID"),
            (
                manifest("a/".repeat(200).trim_end_matches('/'), "v1"),
                400,
                "NAME_INVALID",
            ),
            (format!("/v2/{name}/tags/list"), 404, "NAME_UNKNOWN"),
            (blob(&name, &zero), 404, "BLOB_UNKNOWN"),
            (blob(&name, "nonsense"), 400, "DIGEST_INVALID"),
            (
                format!("/v2/{name}/blobs/uploads/none"),
                404,
                "BLOB_UPLOAD_UNKNOWN",
            ),
        ] {
            let refused = client.get(&path).send().await.expect_error(status, code);
            let id = refused.expect_header("x-request-id");
            assert!(!id.is_empty());
            for entry in refused.json()["errors"].as_array().unwrap() {
                let code = entry["code"].as_str().unwrap();
                assert!(
                    ErrorCode::ALL.iter().any(|known| known.as_str() == code),
                    "{code}"
                );
                assert!(
                    entry.get("detail").is_none_or(serde_json::Value::is_string),
                    "{entry}"
                );
            }
        }
    })
    .await;
}

/// Spec: ERR-4, API-1.
#[tokio::test]
async fn paths_that_mean_nothing_are_errors_too() {
    both(async |client, name| {
        for path in [
            "/v2/x",
            "/v2/a/b",
            "/v2//",
            "/v2/manifests/v1",
            &format!("/v2/{name}/blobs"),
            &format!("/v2/{name}/tags"),
        ] {
            let refused = client.get(path).send().await;
            assert!(matches!(refused.status.as_u16(), 400 | 404), "{refused}");
            assert_eq!(
                refused.header("content-type"),
                Some("application/json"),
                "{refused}"
            );
            assert!(!refused.error_codes().is_empty(), "{refused}");
        }
    })
    .await;
}

/// Spec: API-1, NAME-1.
#[tokio::test]
async fn repositories_may_be_called_like_the_parts_of_paths() {
    both(async |client, name| {
        for odd in [
            "foo/blobs",
            "tags/list",
            "a/manifests/b",
            "blobs/uploads",
            "x/referrers",
            "v2",
        ] {
            let odd = format!("{name}/{odd}");
            let image = Image::random();
            client.push_image(&odd, "list", &image).await;
            for reference in ["list", image.manifest.address()] {
                client
                    .get(&manifest(&odd, reference))
                    .send()
                    .await
                    .expect_status(200);
            }
            client
                .get(&blob(&odd, &image.config.digest))
                .send()
                .await
                .expect_status(200);
            let tags = client
                .get(&format!("/v2/{odd}/tags/list"))
                .send()
                .await
                .expect_status(200)
                .json();
            assert_eq!(tags["name"], odd.as_str());
            client
                .get(&format!("/v2/{odd}/referrers/{}", image.manifest.digest))
                .send()
                .await
                .expect_status(200);
        }
    })
    .await;
}

/// Spec: ERR-1, TAG-2.
#[tokio::test]
async fn the_legacy_suites_wrong_digest() {
    both(async |client, name| {
        client.push_image(&name, "v1", &Image::random()).await;
        client
            .get(&manifest(&name, "sha256:totallywrong"))
            .send()
            .await
            .expect_error(400, "DIGEST_INVALID");
    })
    .await;
}

/// Spec: ERR-4, UP-12.
#[tokio::test]
async fn blobs_above_the_limit_are_refused_and_forgotten() {
    let config = "[limits]\nblob_size = \"1 MiB\"\n";
    let server = TestServer::start(TestOptions {
        config: config.into(),
        ..Default::default()
    })
    .await;
    both_on(&server, async |client, name| {
        let fits = Content::random(1 << 20);
        client.push_blob(&name, &fits).await;
        let large = Content::random((1 << 20) + 1);
        let path = format!("/v2/{name}/blobs/uploads/?digest={}", large.digest);
        let refused = client
            .post(&path)
            .body(large.bytes.clone())
            .send()
            .await
            .expect_status(413);
        assert!(!refused.error_codes().is_empty());
        let location = client.start_upload(&name).await;
        client
            .patch(&location)
            .body(large.bytes.slice(..600_000))
            .send()
            .await
            .expect_status(202);
        client
            .patch(&location)
            .body(large.bytes.slice(600_000..))
            .send()
            .await
            .expect_status(413);
        client
            .get(&blob(&name, &large.digest))
            .send()
            .await
            .expect_status(404);
    })
    .await;
}

/// Spec: AUTH-7, AUTH-8, API-7.
#[tokio::test]
async fn nobody_learns_what_exists() {
    let server = TestServer::start(TestOptions {
        htpasswd: vec![("alice", "a")],
        htpasswd_role: Some("none"),
        ..Default::default()
    })
    .await;
    both_on(&server, async |admin, name| {
        let image = Image::random();
        admin.push_image(&name, "v1", &image).await;
        let never = format!("{name}-never");
        let alice = admin.clone().with_basic("alice", "a");
        for path in [
            "manifests/v1".to_owned(),
            format!("blobs/{}", image.config.digest),
            "tags/list".into(),
            format!("referrers/{}", image.manifest.digest),
        ] {
            let mut denials = Vec::new();
            for repository in [&name, &never] {
                let path = format!("/v2/{repository}/{path}");
                let denied = alice.get(&path).send().await.expect_error(403, "DENIED");
                let mut body = denied.json();
                // The request's id, which differs.
                body["errors"][0]["detail"].take();
                denials.push(body.to_string().replace(repository.as_str(), "NAME"));
                let asked = alice
                    .clone()
                    .anonymous()
                    .get(&path)
                    .send()
                    .await
                    .expect_error(401, "UNAUTHORIZED");
                assert_eq!(
                    asked.challenge().scope,
                    Some(format!("repository:{repository}:pull"))
                );
                alice.head(&path).send().await.expect_status(403);
            }
            assert_eq!(denials[0], denials[1]);
        }
        // A token that was asked for less than its subject has.
        let token = admin
            .fetch_token(&[&format!("repository:{name}:pull")])
            .await
            .expect_status(200);
        let puller = admin
            .clone()
            .with_token(token.json()["token"].as_str().unwrap());
        puller
            .get(&manifest(&name, "v1"))
            .send()
            .await
            .expect_status(200);
        let refused = puller
            .post(&format!("/v2/{name}/blobs/uploads/"))
            .send()
            .await
            .expect_error(401, "UNAUTHORIZED");
        let challenge = refused.challenge();
        assert_eq!(challenge.error.as_deref(), Some("insufficient_scope"));
        assert_eq!(
            challenge.scope,
            Some(format!("repository:{name}:pull,push"))
        );
    })
    .await;
}
