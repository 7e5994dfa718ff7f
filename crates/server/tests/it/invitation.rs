//! Invitations over the wire: the page where a person chooses a password, and the same for programs. What was made up, used, taken
//! back or has ended is answered alike, and no secret is in an answer or a line of the log.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use wharf_core::access::Changer;
use wharf_core::audit::{self, EntryRow, Query};
use wharf_core::clock::ManualClock;
use wharf_core::identity::{self, NewInvitation};
use wharf_oci::percent::encode_query;
use wharf_testkit::client::Response;
use wharf_testkit::{Client, Process, TestOptions, TestServer, Version};

use crate::api_support::{get, names, problem, start};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");
const ACCEPT: &str = "/api/v1/invitations/accept";

async fn post(client: &Client, path: &str, body: Value) -> Response {
    let request = client.request(Method::POST, path);
    let request = request.header("content-type", "application/json");
    request.body(body.to_string()).send().await
}

async fn invite(admin: &Client, body: Value) -> Value {
    let made = post(admin, "/api/v1/invitations", body).await;
    made.expect_status(201).json()
}

/// The page's form as a browser sends it.
async fn form(client: &Client, fields: &[(&str, &str)]) -> Response {
    let pairs = fields
        .iter()
        .map(|(key, value)| format!("{key}={}", encode_query(value)));
    let body = pairs.collect::<Vec<_>>().join("&");
    let request = client.request(Method::POST, "/invitation");
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let request = request.header("sec-fetch-site", "same-origin");
    request.body(body).send().await
}

#[tokio::test]
async fn a_person_opens_the_link_and_chooses_a_password() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    let nobody = admin.clone().anonymous();
    admin
        .request(Method::PUT, "/api/v1/groups/dev")
        .send()
        .await
        .expect_status(200);
    let made = invite(
        &admin,
        json!({"name": "alice", "groups": ["dev"], "bindings": [{"role": "writer", "on": "team"}]}),
    )
    .await;
    let secret = made["secret"].as_str().unwrap();
    assert!(secret.starts_with("wharf_invitation_"));

    let page = nobody.get("/invitation").send().await.expect_status(200);
    assert_eq!(page.expect_header("cache-control"), "no-store");
    assert_eq!(page.expect_header("referrer-policy"), "no-referrer");
    let policy = page.expect_header("content-security-policy").to_owned();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'sha256-")
            && policy.contains("form-action 'self'")
            && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    let text = String::from_utf8(page.body.to_vec()).unwrap();
    assert!(
        text.contains("<form method=\"post\"") && !text.contains("http"),
        "{text}"
    );

    let good = "a looking glass";
    for (fields, status) in [
        (vec![("code", secret), ("password", good)], 400),
        (
            vec![
                ("code", secret),
                ("password", good),
                ("again", "another glass"),
            ],
            400,
        ),
        (
            vec![
                ("code", secret),
                ("password", "Password1"),
                ("again", "Password1"),
            ],
            400,
        ),
        (
            vec![
                ("code", secret),
                ("code", secret),
                ("password", good),
                ("again", good),
            ],
            400,
        ),
        (
            vec![("code", "guess"), ("password", good), ("again", good)],
            404,
        ),
    ] {
        let refused = form(&nobody, &fields).await.expect_status(status);
        let text = String::from_utf8_lossy(&refused.body).into_owned();
        assert!(
            text.contains("That did not work") && !text.contains(secret),
            "{text}"
        );
        assert!(!text.contains(good), "what was sent is not in the answer");
    }
    // A page of another site cannot send it.
    let request = nobody.request(Method::POST, "/invitation");
    let request = request
        .header("sec-fetch-site", "cross-site")
        .body("code=x");
    request.send().await.expect_status(403);

    let fields = [("code", secret), ("password", good), ("again", good)];
    let done = form(&nobody, &fields).await.expect_status(201);
    let text = String::from_utf8_lossy(&done.body).into_owned();
    assert!(text.contains("alice") && !text.contains(good), "{text}");
    let again = form(&nobody, &fields).await.expect_status(404);
    assert!(!String::from_utf8_lossy(&again.body).contains("alice"));
    let alice = admin.clone().with_basic("alice", good);
    assert_eq!(get(&alice, "/api/v1/me").await["name"], "alice");
    let why = "/api/v1/explain?who=alice&permission=push&repository=team/app";
    assert_eq!(get(&alice, why).await["allowed"], true);
    let groups = get(&admin, "/api/v1/groups").await;
    assert_eq!(groups["items"][0]["members"], json!(["alice"]));
    assert!(names(&get(&admin, "/api/v1/invitations").await).is_empty());
}

#[tokio::test]
async fn programs_accept_too_and_every_refusal_is_the_same() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    let nobody = admin.clone().anonymous();
    let accept = async |secret: &Value| {
        post(
            &nobody,
            ACCEPT,
            json!({"secret": secret, "password": "a looking glass"}),
        )
        .await
    };
    let gone = |answer: Response| {
        let mut told = problem(answer, 404, "not-found");
        told["request_id"] = Value::Null;
        told
    };
    let guess = gone(accept(&json!("guess")).await);
    let made = invite(&admin, json!({"name": "alice"})).await;
    let mut cut = made["secret"].as_str().unwrap().to_owned();
    cut.pop();
    assert_eq!(gone(accept(&json!(cut)).await), guess);
    let weak = json!({"secret": made["secret"], "password": "short"});
    let weak = problem(post(&nobody, ACCEPT, weak).await, 400, "invalid");
    assert_eq!(weak["field"], "password");
    // Two at once.
    let (one, two) = tokio::join!(accept(&made["secret"]), accept(&made["secret"]));
    let mut statuses = [one.status.as_u16(), two.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 404]);
    assert_eq!(gone(accept(&made["secret"]).await), guess);

    // Taken back; for who is there already; longer than may be.
    let made = invite(
        &admin,
        json!({"name": "bob", "bindings": [{"role": "reader", "on": "team"}]}),
    )
    .await;
    let listed = get(&admin, "/api/v1/invitations").await;
    assert_eq!(names(&listed), ["bob"]);
    assert!(
        !listed.to_string().contains("wharf_invitation_"),
        "shown once"
    );
    let path = format!("/api/v1/invitations/{}", made["id"].as_str().unwrap());
    admin.delete(&path).send().await.expect_status(204);
    assert_eq!(gone(accept(&made["secret"]).await), guess);
    let left = get(&admin, "/api/v1/bindings?on=team").await.to_string();
    assert!(!left.contains("\"bob\""), "{left}");
    let taken = post(&admin, "/api/v1/invitations", json!({"name": "alice"})).await;
    problem(taken, 409, "conflict");
    let long = json!({"name": "bob", "lifetime": 31 * 86_400});
    problem(
        post(&admin, "/api/v1/invitations", long).await,
        400,
        "invalid",
    );
    let alice = admin.clone().with_basic("alice", "a looking glass");
    let refused = post(&alice, "/api/v1/invitations", json!({"name": "bob"})).await;
    problem(refused, 403, "forbidden");
}

#[tokio::test]
async fn an_invitation_made_by_command_is_in_no_log() {
    let server = Process::start(Path::new(WHARF), TestOptions::default()).await;
    let admin = server.admin(Version::Http1);
    let data = server.folder().join("data");
    let wharf = async |words: &str| {
        let mut command = Command::new(WHARF);
        command.args(words.split(' ')).arg("--data").arg(&data);
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        let output = output.unwrap().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    let link =
        wharf("user invite alice --role writer:team --expires 2d --url https://reg.example/").await;
    let (page, secret) = link.trim_end().split_once('#').unwrap();
    assert_eq!(page, "https://reg.example/invitation");
    assert!(wharf("user invitations").await.contains("alice"));
    let good = "a looking glass";
    let fields = [("code", secret), ("password", good), ("again", good)];
    form(&admin.clone().anonymous(), &fields)
        .await
        .expect_status(201);
    admin
        .clone()
        .with_basic("alice", good)
        .get("/api/v1/me")
        .send()
        .await
        .expect_status(200);
    let log = server.output();
    assert!(
        log.contains("/invitation") && log.contains("an invitation was accepted"),
        "{log}"
    );
    assert!(!log.contains(secret) && !log.contains("looking"), "{log}");
    wharf("user invite bob --url https://reg.example").await;
    let listed: Value = serde_json::from_str(&wharf("user invitations --json").await).unwrap();
    let id = listed[0]["id"].as_str().unwrap();
    wharf(&format!("user withdraw {id}")).await;
    assert_eq!(wharf("user invitations --json").await, "[]\n");
}

/// Guesses count as passwords do, by address, on the page and at the API together, and are in the audit log.
#[tokio::test]
async fn guesses_at_invitations_are_limited_by_address_and_recorded() {
    let server = TestServer::start(TestOptions {
        clock: Some(Arc::new(ManualClock::at(1_795_000_000_000))),
        config: "[server]\ntrusted_proxies = [\"127.0.0.1\"]\n[rate_limits]\nsign_in = \"1/m burst 4\"\n".into(),
        ..TestOptions::default()
    })
    .await;
    let registry = server.app().registry.clone();
    let new = NewInvitation {
        name: "alice".into(),
        ..NewInvitation::default()
    };
    let made = identity::invite(&registry, Changer::Operator, &new)
        .await
        .unwrap();
    let nobody = server.admin(Version::Http1).anonymous();
    let password = "a looking glass";
    let page = async |code: &str| {
        let fields = [("code", code), ("password", password), ("again", password)];
        form(&nobody, &fields).await
    };
    let body = |secret: &str| json!({"secret": secret, "password": password});
    // One that is well made, and was never given.
    let other = "wharf_invitation_0123456789abcdefghijklmnopqrstuvwxyz_000000";
    page("guess").await.expect_status(404);
    page(other).await.expect_status(404);
    problem(post(&nobody, ACCEPT, body(other)).await, 404, "not-found");
    problem(post(&nobody, ACCEPT, body("guess")).await, 404, "not-found");
    let seconds = |answer: &Response| answer.expect_header("retry-after").parse::<u64>().unwrap();
    let told = page("guess").await.expect_status(429);
    let wait = seconds(&told);
    let text = String::from_utf8_lossy(&told.body).into_owned();
    assert!(
        (1..=63).contains(&wait) && text.contains(&format!("try again in {wait} s")),
        "{text}"
    );
    let answer = post(&nobody, ACCEPT, body("guess")).await;
    assert_eq!(seconds(&answer), wait);
    let told = problem(answer, 429, "too-many-requests");
    assert!(
        told["detail"]
            .as_str()
            .unwrap()
            .contains("rate_limits.sign_in"),
        "{told}"
    );
    // Not even the right one, and no password is tried from there; elsewhere it is still good.
    page(made.secret.reveal()).await.expect_status(429);
    let bob = nobody.clone().with_basic("bob", "a password");
    bob.get("/v2/").send().await.expect_status(429);
    let request = nobody.request(Method::POST, ACCEPT);
    let request = request.header("content-type", "application/json");
    let request = request.header("x-forwarded-for", "203.0.113.9");
    let accepted = request
        .body(body(made.secret.reveal()).to_string())
        .send()
        .await;
    accepted.expect_status(201);

    registry.audit.flush(&registry, true).await.unwrap();
    let query = Query {
        limit: 100,
        ..Query::default()
    };
    let log = audit::page(&registry, &query).await.unwrap().entries;
    let detail = |entry: &EntryRow| serde_json::from_str::<Value>(&entry.detail).unwrap();
    let mut counts = std::collections::BTreeMap::new();
    for entry in log.iter().filter(|entry| entry.action == "refuse") {
        let told = detail(entry);
        assert!(
            entry.principal == "anonymous" && entry.address == "127.0.0.1",
            "{entry:?}"
        );
        assert!(!entry.request.is_empty(), "{entry:?}");
        let key = format!(
            "{} {}",
            told["asked"].as_str().unwrap(),
            told["reason"].as_str().unwrap()
        );
        *counts.entry(key).or_insert(0) += told["count"].as_u64().unwrap();
    }
    let expected = [
        ("invitation there is no such invitation", 4),
        ("sign_in rate_limits.sign_in allows 1/m burst 4", 4),
    ];
    assert_eq!(
        counts,
        expected.map(|(key, count)| (key.to_owned(), count)).into()
    );
    let made =
        |entry: &&EntryRow| entry.action == "principal.create" && entry.detail.contains("alice");
    let made = log.iter().find(made).expect("alice");
    assert_eq!(made.address, "203.0.113.9", "{made:?}");
    assert!(
        log.iter()
            .all(|entry| !entry.detail.contains("wharf_invitation_"))
    );
}
