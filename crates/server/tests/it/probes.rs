//! Probes and figures: who may ask, and where.

use std::path::Path;

use wharf_testkit::{Client, Content, Process, TestOptions, TestServer, Version};

use crate::support::both_on;

/// Spec: OPS-1.
#[tokio::test]
async fn probes_need_no_credentials_and_lie_outside_of_v2() {
    let server = TestServer::start(TestOptions::default()).await;
    both_on(&server, async |client, _| {
        let stranger = client.anonymous();
        for probe in ["/livez", "/startupz", "/readyz", "/readyz?verbose"] {
            let answer = stranger.get(probe).send().await.expect_status(200);
            assert!(answer.body.starts_with(b"ok"), "{answer}");
        }
        stranger.get("/v2/").send().await.expect_status(401);
        stranger.get("/metrics").send().await.expect_status(401);
    })
    .await;
}

/// Spec: OPS-2.
#[tokio::test]
async fn figures_have_a_listener_of_their_own() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap();
    drop(free);
    let server = Process::start(
        Path::new(env!("CARGO_BIN_EXE_wharf")),
        TestOptions {
            config: format!("[server]\nmetrics_listen = \"{addr}\"\n"),
            ..TestOptions::default()
        },
    )
    .await;
    let admin = server.admin(Version::Http1);
    admin.get("/v2/").send().await.expect_status(200);
    admin
        .get("/v2/team/app/manifests/none")
        .send()
        .await
        .expect_status(404);

    let figures = Client::new(addr, Version::Http1);
    let text = figures.get("/metrics").send().await.expect_status(200);
    let text = String::from_utf8(text.body.to_vec()).unwrap();
    assert!(
        text.contains("route=\"/v2/{name}/manifests/{reference}\",method=\"GET\",status=\"404\""),
        "{text}"
    );
    assert!(
        !text.contains("team/app"),
        "a repository's name is a label: {text}"
    );
    figures.get("/livez").send().await.expect_status(200);
    // Nothing else is served without credentials there.
    figures.get("/v2/").send().await.expect_status(404);
    figures.get("/token").send().await.expect_status(404);
    // An administrator gets the same on the main address.
    admin.get("/metrics").send().await.expect_status(200);
}

/// What repositories take up is shown by the first part of their names, which may be private.
#[tokio::test]
async fn names_of_repositories_are_shown_to_administrators_only() {
    for label in [false, true] {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = free.local_addr().unwrap();
        drop(free);
        let config = format!(
            "[server]\nmetrics_listen = \"{addr}\"\n[metrics]\nrepository_label = {label}\n"
        );
        let options = TestOptions {
            config,
            ..TestOptions::default()
        };
        let server = Process::start(Path::new(env!("CARGO_BIN_EXE_wharf")), options).await;
        let admin = server.admin(Version::Http1);
        let blob = Content::random(1000);
        admin.push_blob("secretive/app", &blob).await;
        let read = async |client: &Client| {
            let answer = client.get("/metrics").send().await.expect_status(200);
            String::from_utf8(answer.body.to_vec()).unwrap()
        };
        let started = std::time::Instant::now();
        while !read(&admin)
            .await
            .contains("wharf_prefix_bytes{prefix=\"secretive\"} 1000")
        {
            assert!(started.elapsed() < std::time::Duration::from_secs(60));
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        let shown = read(&Client::new(addr, Version::Http1)).await;
        assert_eq!(shown.contains("secretive"), label, "{shown}");
        if !label {
            assert!(
                shown.contains("wharf_prefix_bytes{prefix=\"*\"} 1000"),
                "{shown}"
            );
        }
    }
}
