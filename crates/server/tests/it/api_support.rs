//! What tests of the management API begin with.

use serde_json::Value;
use wharf_testkit::client::Response;
use wharf_testkit::{Client, TestOptions, TestServer};

/// Everybody whom the tests know: an htpasswd user with this role everywhere, whose password is `x`.
pub(crate) const USERS: [(&str, &str); 4] = [
    ("stranger", "none"),
    ("reader", "reader"),
    ("writer", "writer"),
    ("maintainer", "maintainer"),
];

/// A server that knows [`USERS`], and `guest`, who may pull below `team` alone.
pub(crate) async fn start() -> TestServer {
    let passwords = USERS.iter().map(|(name, _)| (*name, "x"));
    let grants = USERS.iter().filter(|(name, _)| *name != "stranger");
    TestServer::start(TestOptions {
        htpasswd: passwords.chain([("guest", "x")]).collect(),
        htpasswd_role: Some("none"),
        grants: grants
            .map(|(name, role)| (*name, *role, ""))
            .chain([("guest", "reader", "team")])
            .collect(),
        ..TestOptions::default()
    })
    .await
}

/// The body of a problem of this kind, checked.
#[track_caller]
pub(crate) fn problem(answer: Response, status: u16, kind: &str) -> Value {
    let answer = answer.expect_status(status);
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{answer}"
    );
    let body = answer.json();
    assert_eq!(body["type"], format!("/api/v1#{kind}"), "{answer}");
    assert_eq!(body["status"], status, "{answer}");
    for field in ["title", "detail"] {
        let text = body[field].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "{field} of {answer}");
    }
    assert_eq!(
        body["request_id"].as_str(),
        answer.header("x-request-id"),
        "{answer}"
    );
    body
}

/// 200 with JSON.
pub(crate) async fn get(client: &Client, path: &str) -> Value {
    client.get(path).send().await.expect_status(200).json()
}

/// The names in a page.
#[track_caller]
pub(crate) fn names(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().expect("a page");
    let name = |item: &Value| item["name"].as_str().expect("a name").to_owned();
    items.iter().map(name).collect()
}
