//! The list of repositories.

use wharf_testkit::{Content, TestOptions, TestServer, Version};

use crate::support::texts;

async fn server() -> TestServer {
    let server = TestServer::start(TestOptions {
        htpasswd: vec![("alice", "a")],
        htpasswd_role: Some("none"),
        grants: vec![("alice", "reader", "team/a")],
        ..Default::default()
    })
    .await;
    let client = server.admin(Version::Http1);
    for name in ["team/b", "team/a/x", "zoo", "team/a", "team/ab", "alpha"] {
        client.push_blob(name, &Content::random(10)).await;
    }
    server
}

/// Spec: CAT-1, CAT-3.
#[tokio::test]
async fn sorted_and_in_pages() {
    let server = server().await;
    for version in Version::ALL {
        let client = server.admin(version);
        let page = client.get("/v2/_catalog").send().await.expect_status(200);
        assert_eq!(page.header("content-type"), Some("application/json"));
        assert_eq!(
            texts(&page.json()["repositories"]),
            ["alpha", "team/a", "team/a/x", "team/ab", "team/b", "zoo"]
        );
        assert_eq!(page.header("link"), None);
        let mut walked = Vec::new();
        let mut next = Some("/v2/_catalog?n=4".to_owned());
        while let Some(target) = next {
            let page = client.get(&target).send().await.expect_status(200);
            walked.push(texts(&page.json()["repositories"]));
            next = page.header("link").map(|link| {
                let target = link
                    .strip_prefix('<')
                    .and_then(|rest| rest.strip_suffix(">; rel=\"next\""));
                target.unwrap_or_else(|| panic!("{link}")).to_owned()
            });
        }
        assert_eq!(
            walked,
            [
                vec!["alpha", "team/a", "team/a/x", "team/ab"],
                vec!["team/b", "zoo"]
            ]
        );
        for (query, expected) in [
            ("last=team/a", 4),
            ("last=team%2Fa&n=1", 1),
            ("last=zzz", 0),
            ("n=0", 0),
            ("n=100000", 6),
        ] {
            let page = client
                .get(&format!("/v2/_catalog?{query}"))
                .send()
                .await
                .expect_status(200);
            assert_eq!(
                texts(&page.json()["repositories"]).len(),
                expected,
                "{query}"
            );
        }
        let refused = client.get("/v2/_catalog?n=x").send().await;
        refused.expect_error(400, "PAGINATION_NUMBER_INVALID");
    }
}

/// Spec: CAT-2.
#[tokio::test]
async fn shows_only_what_the_caller_may_pull() {
    let server = server().await;
    for version in Version::ALL {
        let alice = server.admin(version).with_basic("alice", "a");
        let token = alice
            .fetch_token(&["registry:catalog:*"])
            .await
            .expect_status(200)
            .json()["token"]
            .as_str()
            .unwrap()
            .to_owned();
        for client in [alice.clone(), alice.with_token(&token)] {
            let page = client.get("/v2/_catalog").send().await.expect_status(200);
            assert_eq!(texts(&page.json()["repositories"]), ["team/a", "team/a/x"]);
            let page = client
                .get("/v2/_catalog?n=1")
                .send()
                .await
                .expect_status(200);
            assert_eq!(texts(&page.json()["repositories"]), ["team/a"]);
        }
    }
    let refused = server
        .admin(Version::Http1)
        .anonymous()
        .get("/v2/_catalog")
        .send()
        .await
        .expect_error(401, "UNAUTHORIZED");
    assert_eq!(
        refused.challenge().scope.as_deref(),
        Some("registry:catalog:*")
    );
}
