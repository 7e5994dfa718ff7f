//! The management API: who asks, what they see, how it refuses.

use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use wharf_testkit::{Image, Process, TestOptions, Version};

use crate::api_support::{get, names, problem, start};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");

#[tokio::test]
async fn one_is_told_who_one_is() {
    let server = start().await;
    for version in Version::ALL {
        let admin = server.admin(version);
        let me = get(&admin, "/api/v1/me").await;
        assert_eq!(me["name"], "admin");
        assert_eq!(me["kind"], "user");
        assert_eq!(me["source"], "local");
        assert!(me.get("may_pull_in").is_none(), "everywhere: {me}");

        let guest = admin.clone().with_basic("guest", "x");
        let me = get(&guest, "/api/v1/me").await;
        assert_eq!(
            (&me["name"], &me["source"]),
            (&"guest".into(), &"htpasswd".into())
        );
        assert_eq!(me["may_pull_in"], serde_json::json!(["team"]));

        let token = admin.fetch_token(&[]).await.expect_status(200).json();
        let bearer = admin.clone().with_token(token["token"].as_str().unwrap());
        assert_eq!(get(&bearer, "/api/v1/me").await["name"], "admin");
    }
}

#[tokio::test]
async fn repositories_come_in_pages_of_what_the_caller_may_pull() {
    let server = start().await;
    let admin = server.admin(Version::Http2);
    let all = ["other/x", "team", "team/a", "team/b/c", "teams"];
    for name in all {
        admin.push_image(name, "latest", &Image::random()).await;
    }
    let guest = admin.clone().with_basic("guest", "x");
    let list = "/api/v1/repositories";
    assert_eq!(names(&get(&admin, list).await), all);
    assert_eq!(
        names(&get(&guest, list).await),
        ["team", "team/a", "team/b/c"]
    );
    for (within, expected) in [
        ("team", &["team", "team/a", "team/b/c"][..]),
        ("team/b", &["team/b/c"]),
        ("other", &[]),
        ("", &["team", "team/a", "team/b/c"]),
    ] {
        let page = get(&guest, &format!("{list}?within={within}")).await;
        assert_eq!(names(&page), expected, "{within}");
    }

    for size in 1..=all.len() + 1 {
        let (mut seen, mut after) = (Vec::new(), String::new());
        loop {
            let page = get(&admin, &format!("{list}?n={size}{after}")).await;
            seen.extend(names(&page));
            let Some(next) = page["next"].as_str() else {
                break;
            };
            after = format!("&after={next}");
        }
        assert_eq!(seen, all, "pages of {size}");
    }

    let one = get(&admin, "/api/v1/repositories/team%2Fa").await;
    assert_eq!(one["name"], "team/a");
    assert!(
        one["size"].as_u64().unwrap() > 0 && one["created_at"].as_str().unwrap().ends_with('Z'),
        "{one}"
    );
}

#[tokio::test]
async fn refusals_are_problems_with_a_cause_and_a_cure() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    let ask = async |path: &str| admin.get(path).send().await;

    let body = problem(ask("/api/v1/nothing").await, 404, "not-found");
    assert!(body["cure"].as_str().unwrap().contains("/api/v1"));
    let body = problem(
        ask("/api/v1/repositories/team/none").await,
        404,
        "not-found",
    );
    assert!(body["detail"].as_str().unwrap().contains("team/none"));
    for (query, field) in [("n=0", "n"), ("n=x", "n"), ("after=!", "after")] {
        let path = format!("/api/v1/repositories?{query}");
        let body = problem(ask(&path).await, 400, "invalid");
        assert_eq!(body["field"], field, "{query}");
    }
    let body = problem(ask("/api/v1/repositories/Team").await, 400, "invalid");
    assert_eq!(body["field"], "name");
    let body = problem(ask("/api/v1/repositories/a%252fb").await, 400, "invalid");
    assert_eq!(body["field"], "path");

    let refused = admin.put("/api/v1/me").body("").send().await;
    assert_eq!(refused.header("allow"), Some("GET, HEAD"));
    problem(refused, 405, "method-not-allowed");

    let nobody = admin.clone().anonymous().get("/api/v1/me").send().await;
    assert_eq!(nobody.challenge().scheme, "Basic");
    problem(nobody, 401, "unauthenticated");
    let wrong = admin.clone().with_basic("admin", "wrong").get("/api/v1/me");
    problem(wrong.send().await, 401, "unauthenticated");
    let wrong = admin
        .clone()
        .with_token("a.b.c")
        .get("/api/v1/me")
        .send()
        .await;
    assert_eq!(wrong.challenge().scheme, "Bearer");
    problem(wrong, 401, "unauthenticated");
    let stranger = admin.clone().with_basic("stranger", "x");
    let refused = stranger.get("/api/v1/repositories").send().await;
    assert!(problem(refused, 403, "forbidden")["cure"].is_string());
}

#[tokio::test]
async fn the_admin_socket_asks_nobody_for_a_password() {
    let server = Process::start(Path::new(WHARF), TestOptions::default()).await;
    let admin = server.admin(Version::Http1);
    admin
        .push_image("team/app", "latest", &Image::random())
        .await;
    let socket = server.folder().join("data/admin.sock");
    let ask = async |path: &str| {
        let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
        let head = format!("GET {path} HTTP/1.1\r\nHost: wharf\r\nConnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let me = ask("/api/v1/me").await;
    assert!(
        me.starts_with("HTTP/1.1 200") && me.contains("\"operator\""),
        "{me}"
    );
    let list = ask("/api/v1/repositories").await;
    assert!(list.contains("\"team/app\""), "{list}");
    let unknown = ask("/api/v1/repositories/team/none").await;
    assert!(unknown.starts_with("HTTP/1.1 404"), "{unknown}");
}

#[tokio::test]
async fn the_description_is_for_everybody_and_needs_nobody_else() {
    let server = start().await;
    let nobody = server.admin(Version::Http1).anonymous();
    let document = get(&nobody, "/api/v1/openapi.json").await;
    assert!(document["paths"]["/api/v1/me"].is_object(), "{document}");
    for path in ["/api", "/api/", "/api/v1", "/api/v1/"] {
        let page = nobody.get(path).send().await.expect_status(200);
        assert_eq!(
            page.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        let policy = page.expect_header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
    }
}
