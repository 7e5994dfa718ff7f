//! The ping and what holds for every path (end-1).

use wharf_testkit::{TestOptions, TestServer, Version};

use crate::support::{both, both_on};

/// Spec: PING-1, BASIC-1, TOK-3.
#[tokio::test]
async fn answers_whoever_may_talk_to_us() {
    both(async |client, _| {
        let token = client.fetch_token(&[]).await.expect_status(200).json()["token"]
            .as_str()
            .unwrap()
            .to_owned();
        for client in [client.clone(), client.clone().with_token(&token)] {
            let ping = client.get("/v2/").send().await.expect_status(200);
            assert_eq!(ping.json(), serde_json::json!({}));
            assert_eq!(ping.header("content-type"), Some("application/json"));
        }
    })
    .await;
}

/// Spec: PING-2, AUTH-1, AUTH-2, AUTH-3, AUTH-5, CS-11.
#[tokio::test]
async fn asks_for_credentials_even_where_anonymous_may_pull() {
    for anonymous in ["none", "reader", "writer"] {
        let server = TestServer::start(TestOptions {
            anonymous: Some(anonymous),
            ..Default::default()
        })
        .await;
        both_on(&server, async |client, _| {
            let refusal = client
                .clone()
                .anonymous()
                .get("/v2/")
                .send()
                .await
                .expect_error(401, "UNAUTHORIZED");
            let header = refusal.expect_header("www-authenticate");
            let realm = format!("http://{}/token", client.authority());
            assert!(
                header.starts_with(&format!("Bearer realm=\"{realm}\",service=\"")),
                "{header}"
            );
            assert!(!header.contains("scope="), "{header}");
        })
        .await;
    }
}

/// Spec: PING-2.
#[tokio::test]
async fn asks_nobody_where_anonymous_may_do_everything() {
    let server = TestServer::start(TestOptions {
        anonymous: Some("maintainer"),
        ..Default::default()
    })
    .await;
    both_on(&server, async |client, _| {
        client
            .anonymous()
            .get("/v2/")
            .send()
            .await
            .expect_status(200);
    })
    .await;
}

/// Spec: PING-3.
#[tokio::test]
async fn every_answer_says_that_this_is_a_registry() {
    both(async |client, name| {
        for path in [
            "/v2/",
            "/v2",
            "/v2/_catalog",
            "/v2/UPPER/tags/list",
            "/v2/nothing/here",
            "/v2/a/b/c",
        ] {
            for client in [client.clone(), client.clone().anonymous()] {
                let answer = client.get(path).send().await;
                assert_eq!(
                    answer.header("docker-distribution-api-version"),
                    Some("registry/2.0"),
                    "{answer}"
                );
            }
        }
        for path in [
            format!("/v2/{name}/tags/list"),
            format!("/v2/{name}/manifests/none"),
        ] {
            let answer = client.get(&path).send().await.expect_status(404);
            assert_eq!(
                answer.header("docker-distribution-api-version"),
                Some("registry/2.0"),
                "{answer}"
            );
        }
    })
    .await;
}

/// Spec: PING-4, API-6, API-7.
#[tokio::test]
async fn head_is_a_get_without_body() {
    both(async |client, _| {
        let head = client.head("/v2/").send().await.expect_status(200);
        assert_eq!(
            (head.header("content-length"), head.body.len()),
            (Some("2"), 0)
        );
        let refusal = client
            .anonymous()
            .head("/v2/")
            .send()
            .await
            .expect_status(401);
        assert!(refusal.body.is_empty());
        assert!(refusal.challenge().scope.is_none());
    })
    .await;
}

/// Spec: API-3.
#[tokio::test]
async fn the_slash_at_the_end_is_optional() {
    both(async |client, _| {
        client.get("/v2").send().await.expect_status(200);
        client
            .anonymous()
            .get("/v2")
            .send()
            .await
            .expect_error(401, "UNAUTHORIZED");
    })
    .await;
}

/// Spec: API-4.
#[tokio::test]
async fn methods_that_a_path_lacks_are_named() {
    both(async |client, name| {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (method, path, allowed) in [
            (http::Method::DELETE, "/v2/".to_owned(), "GET"),
            (http::Method::POST, "/v2/_catalog".to_owned(), "GET"),
            (
                http::Method::PUT,
                format!("/v2/{name}/blobs/{digest}"),
                "DELETE",
            ),
            (
                http::Method::PATCH,
                format!("/v2/{name}/manifests/latest"),
                "PUT",
            ),
            (http::Method::POST, format!("/v2/{name}/tags/list"), "GET"),
            (
                http::Method::PUT,
                format!("/v2/{name}/referrers/{digest}"),
                "GET",
            ),
            (
                http::Method::GET,
                format!("/v2/{name}/blobs/uploads/"),
                "POST",
            ),
        ] {
            let refusal = client
                .request(method, &path)
                .send()
                .await
                .expect_error(405, "UNSUPPORTED");
            let allow = refusal.expect_header("allow");
            assert!(allow.split(", ").any(|method| method == allowed), "{allow}");
        }
    })
    .await;
}

/// Spec: NS-1.
#[tokio::test]
async fn the_namespace_parameter_of_mirrors_is_ignored() {
    both(async |client, name| {
        let image = wharf_testkit::Image::random();
        client.push_image(&name, "v1", &image).await;
        for path in [
            "/v2/?ns=docker.io".to_owned(),
            format!("/v2/{name}/manifests/v1?ns=docker.io"),
            format!("/v2/{name}/blobs/{}?ns=docker.io", image.config.digest),
            format!("/v2/{name}/tags/list?ns=docker.io&n=5"),
            format!(
                "/v2/{name}/referrers/{}?ns=docker.io",
                image.manifest.digest
            ),
        ] {
            let answer = client.get(&path).send().await.expect_status(200);
            assert_eq!(answer.header("oci-namespace"), None);
        }
    })
    .await;
}

/// Spec: PING-1.
#[tokio::test]
async fn http_1_and_2_share_the_port() {
    let server = TestServer::start(TestOptions {
        tls: true,
        ..Default::default()
    })
    .await;
    for (version, spoken) in [
        (Version::Http1, http::Version::HTTP_11),
        (Version::Http2, http::Version::HTTP_2),
    ] {
        let answer = server
            .admin(version)
            .get("/v2/")
            .send()
            .await
            .expect_status(200);
        assert_eq!(answer.version, spoken);
    }
    let refusal = server
        .admin(Version::Http2)
        .anonymous()
        .get("/v2/")
        .send()
        .await
        .expect_status(401);
    assert!(
        refusal.challenge().realm.starts_with("https://localhost:"),
        "{refusal}"
    );
}

/// Spec: ERR-3, TOK-7.
#[tokio::test]
async fn too_many_sign_ins_at_once_are_told_when_to_come_back() {
    let options = TestOptions {
        config: "[limits]\npassword_attempts = 1\n".into(),
        ..Default::default()
    };
    let server = TestServer::start(options).await;
    both_on(&server, async |client, _| {
        let attempts: Vec<_> = (0..20)
            .map(|at| {
                tokio::spawn(
                    client
                        .clone()
                        .with_basic("admin", &format!("wrong{at}"))
                        .get("/v2/")
                        .send(),
                )
            })
            .collect();
        let mut busy = 0;
        for attempt in attempts {
            let refused = attempt.await.unwrap();
            if refused.status == 429 {
                let refused = refused.expect_error(429, "TOOMANYREQUESTS");
                assert!(
                    refused
                        .expect_header("retry-after")
                        .parse::<u32>()
                        .is_ok_and(|seconds| seconds > 0)
                );
                busy += 1;
            } else {
                refused.expect_error(401, "UNAUTHORIZED");
            }
        }
        assert!(busy > 0);
        client.get("/v2/").send().await.expect_status(200);
    })
    .await;
}
