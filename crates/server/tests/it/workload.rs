//! Machines that sign in with tokens of their cluster or CI service: from one command to a pull, by every way, and what is refused.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wharf_testkit::client::Response;
use wharf_testkit::options::on_bucket;
use wharf_testkit::s3::S3;
use wharf_testkit::{
    Client, Image, Manner, Process, TestOptions, TestServer, TokenIssuer, TokenKey, Version,
    test_server,
};

use crate::api_support::{get, problem, start};
use crate::support::manifest;

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");
/// What tokens have to be for, unless a test says otherwise: the registry's name.
const AUDIENCE: &str = "wharf";
const OWN: &str = "team/a/app";
/// Longest wait for something that comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a command in the server's folder, with no context and nobody at the terminal.
async fn wharf(server: &Process, words: &str) -> Output {
    let mut command = std::process::Command::new(WHARF);
    command
        .args(words.split(' '))
        .args(["--data", "data"])
        .current_dir(server.folder())
        .env("XDG_CONFIG_HOME", server.folder())
        .stdin(std::process::Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    output.expect("a thread").expect("a program")
}

#[track_caller]
fn good(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[track_caller]
fn bad(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    let told = [&output.stdout[..], &output.stderr].concat();
    String::from_utf8(told).expect("text")
}

async fn status(client: &Client, target: &str) -> u16 {
    client.get(target).send().await.status.as_u16()
}

/// Asks for an exchange (RFC 8693).
async fn exchange(client: &Client, token: &str, scope: &str) -> Response {
    exchange_as(
        client,
        token,
        scope,
        "urn:ietf:params:oauth:token-type:jwt",
        "",
    )
    .await
}

async fn exchange_as(
    client: &Client,
    token: &str,
    scope: &str,
    kind: &str,
    more: &str,
) -> Response {
    let body = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token={token}&subject_token_type={kind}\
         &scope={scope}&access_type=offline{more}"
    );
    let request = client.clone().anonymous().post("/token");
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    request.body(body).send().await
}

/// Whether the client pulls and pushes.
async fn may(client: &Client) -> (bool, bool) {
    let pulled = status(client, &manifest(OWN, "v1")).await;
    assert!([200, 401, 403].contains(&pulled), "{pulled}");
    let begun = client
        .post(&format!("/v2/{OWN}/blobs/uploads/"))
        .send()
        .await;
    (pulled == 200, begun.status == 202)
}

/// A registry with an image, and an issuer of our own; `keys` is left in its folder, and the authority.
async fn stocked(options: TestOptions, key: &TokenKey) -> (Process, TokenIssuer) {
    let server = Process::start(Path::new(WHARF), options).await;
    let issuer = TokenIssuer::start(&[key]).await;
    std::fs::write(server.folder().join("ca.pem"), issuer.ca.pem()).expect("a file");
    std::fs::write(server.folder().join("keys.json"), issuer.jwks().to_string()).expect("a file");
    let admin = server.admin(Version::Http1);
    admin.push_image(OWN, "v1", &Image::random()).await;
    (server, issuer)
}

/// What an issue asks for in these words: a pod's service-account token pulls, and cannot push, after one trust command. By
/// every way in which a token can be shown.
///
/// Spec: K8SCRED-5, K8SCRED-6, K8SCRED-7, OIDC-3.
#[tokio::test(flavor = "multi_thread")]
async fn a_pods_token_pulls_and_cannot_push_after_one_command() {
    let key = TokenKey::new("one");
    let (server, issuer) = stocked(TestOptions::default(), &key).await;
    let anonymous = server.admin(Version::Http1).anonymous();
    let pod = key.sign(&issuer.pod(AUDIENCE, "prod", "default"));
    assert_eq!(
        status(&anonymous.clone().with_basic("x", &pod), "/v2/").await,
        401
    );
    let trust = format!(
        "workload trust kubernetes --issuer {} --authority ca.pem --namespace prod --service-account default reader on team/a",
        issuer.url
    );
    let told = good(&wharf(&server, &trust).await);
    assert!(
        told.contains("They have the role reader on team/a."),
        "{told}"
    );
    let basic = anonymous.clone().with_basic("kubernetes", &pod);
    let bought = basic
        .fetch_token(&["repository:team/a/app:pull,push"])
        .await;
    let bought = bought.expect_status(200).json();
    // As `curl --data-urlencode subject_token@FILE` sends what ends with a line.
    let swapped = exchange(
        &anonymous,
        &format!("{pod}%0A"),
        "repository:team/a/app:pull,push",
    )
    .await;
    let swapped = swapped.expect_status(200).json();
    assert_eq!(
        swapped["issued_token_type"],
        "urn:ietf:params:oauth:token-type:access_token"
    );
    assert_eq!(swapped["token_type"], "Bearer");
    assert_eq!(swapped["scope"], "repository:team/a/app:pull");
    for answer in [&bought, &swapped] {
        assert_eq!(answer.get("refresh_token"), None);
    }
    let token = |answer: &Value| answer["access_token"].as_str().expect("a token").to_owned();
    for (way, client) in [
        ("basic", basic.clone()),
        (
            "basic, another name",
            anonymous.clone().with_basic("nobody", &pod),
        ),
        ("bearer", anonymous.clone().with_token(&pod)),
        ("bought", anonymous.clone().with_token(&token(&bought))),
        ("exchanged", anonymous.clone().with_token(&token(&swapped))),
    ] {
        assert_eq!(may(&client).await, (true, false), "{way}");
        assert_eq!(status(&client, "/v2/").await, 200, "{way}");
        let elsewhere = status(&client, &manifest("team/b/app", "v1")).await;
        assert!([401, 403].contains(&elsewhere), "{way}: {elsewhere}");
    }
    // The second command adds to what is there, and the one before it changes nothing.
    let builder = trust.replace("default reader", "builder writer");
    good(&wharf(&server, &builder).await);
    good(&wharf(&server, &trust).await);
    assert_eq!(may(&basic).await, (true, false));
    let builder = key.sign(&issuer.pod(AUDIENCE, "prod", "builder"));
    let builder = exchange(&anonymous, &builder, "repository:team/a/app:pull,push").await;
    let builder = token(&builder.expect_status(200).json());
    let builder = anonymous.clone().with_token(&builder);
    assert_eq!(may(&builder).await, (true, true));
    // Nobody else.
    for other in [
        issuer.pod(AUDIENCE, "dev", "default"),
        issuer.pod(AUDIENCE, "prod", "other"),
        issuer.pod("another", "prod", "default"),
    ] {
        let other = anonymous.clone().with_basic("x", &key.sign(&other));
        other
            .get("/v2/")
            .send()
            .await
            .expect_error(401, "UNAUTHORIZED");
        assert_eq!(may(&other).await, (false, false));
    }
    // One discovery and one set of keys for all of it.
    assert_eq!(issuer.asked().len(), 2, "{:?}", issuer.asked());
    // The log says who, by which rule, and who was refused why.
    let seen = wharf_audit(&server, "kubernetes:prod/default").await;
    assert!(
        seen.iter()
            .any(|one| one["credential"] == "workload.kubernetes-prod-default"),
        "{seen:?}"
    );
    let begun = Instant::now();
    let told = loop {
        let told = json!(wharf_audit(&server, "").await).to_string();
        if told.contains("no rule matches it") && told.contains("kubernetes:dev/default") {
            break told;
        }
        // What is gathered is sealed each second.
        assert!(begun.elapsed() < PATIENCE, "{told}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(!told.contains(&pod[..60]), "no token stands in the log");
    // What dies with the rule.
    good(&wharf(&server, "workload rm kubernetes-prod-builder").await);
    assert_eq!(may(&builder).await, (false, false));
    assert_eq!(status(&builder, "/v2/").await, 401);
    assert_eq!(may(&basic).await, (true, false));
}

/// Entries of the audit log of a principal, or all.
async fn wharf_audit(server: &Process, who: &str) -> Vec<Value> {
    let admin = server.admin(Version::Http1);
    let wanted = match who {
        "" => String::new(),
        who => format!("&principal={}", wharf_oci::percent::encode_query(who)),
    };
    let begun = Instant::now();
    loop {
        let page = admin
            .get(&format!("/api/v1/audit?n=1000{wanted}"))
            .send()
            .await;
        let page = page.expect_status(200).json();
        let all = page["items"].as_array().cloned().unwrap_or_default();
        let signed = |one: &Value| one["action"] == "sign-in";
        if all.iter().any(signed) {
            return all;
        }
        assert!(begun.elapsed() < PATIENCE, "nothing in the log: {all:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What the presets write lets in what they say, and nothing of strangers.
///
/// Spec: OIDC-1, OIDC-2.
#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_github_and_gitlab_and_no_pull_request() {
    let key = TokenKey::new("one");
    let (server, issuer) = stocked(TestOptions::default(), &key).await;
    let anonymous = server.admin(Version::Http1).anonymous();
    let at = format!("--issuer {} --jwks-file keys.json", issuer.url);
    let github = format!(
        "workload trust github {at} --repository-id 74 --repository acme/app writer on team/a"
    );
    good(&wharf(&server, &github).await);
    let gitlab = format!("workload trust gitlab {at} --project-id 42 reader on team/a");
    good(&wharf(&server, &gitlab).await);
    let of = |claims: &Value| anonymous.clone().with_basic("ci", &key.sign(claims));
    assert_eq!(
        may(&of(&issuer.job(AUDIENCE, "74", "push"))).await,
        (true, true)
    );
    for (id, event) in [
        ("74", "pull_request"),
        ("74", "pull_request_target"),
        ("75", "push"),
    ] {
        let client = of(&issuer.job(AUDIENCE, id, event));
        assert_eq!(may(&client).await, (false, false), "{id} {event}");
    }
    assert_eq!(
        may(&of(&issuer.pipeline(AUDIENCE, "42", true))).await,
        (true, false)
    );
    assert_eq!(
        may(&of(&issuer.pipeline(AUDIENCE, "42", false))).await,
        (false, false)
    );
    assert_eq!(
        may(&of(&issuer.pipeline(AUDIENCE, "43", true))).await,
        (false, false)
    );
    assert!(issuer.asked().is_empty(), "its keys were uploaded");
    let no_id = wharf(
        &server,
        &format!("workload trust github {at} --name x --claim repository=acme/app writer"),
    )
    .await;
    assert!(bad(&no_id, 2).contains("--repository-id"));
    // What is refused has changed nothing.
    let same = github.replace("writer on", "--audience other --claim actor_id=7 writer on");
    assert!(bad(&wharf(&server, &same).await, 2).contains("--name"));
    assert_eq!(
        may(&of(&issuer.job(AUDIENCE, "74", "push"))).await,
        (true, true)
    );
    let other = wharf(&server, "workload trust github --issuer https://ghes.example/_services/token --repository-id 1 reader").await;
    assert!(bad(&other, 2).contains("--as"));
    // Whoever may grant may grant to a rule; only what is there.
    good(&wharf(&server, "grant workload:gitlab-42 writer on team/a").await);
    assert_eq!(
        may(&of(&issuer.pipeline(AUDIENCE, "42", true))).await,
        (true, true)
    );
    assert!(
        bad(
            &wharf(&server, "grant workload:nobody writer on team/a").await,
            2
        )
        .contains("workload list")
    );
    good(&wharf(&server, "revoke workload:gitlab-42 all on team/a").await);
    assert_eq!(
        may(&of(&issuer.pipeline(AUDIENCE, "42", true))).await,
        (false, false)
    );
    let explained = wharf(
        &server,
        "access explain workload:github-acme-app-74 push team/a/app",
    )
    .await;
    assert!(good(&explained).contains("writer"), "{explained:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_tested_and_never_printed() {
    let key = TokenKey::new("one");
    let (server, issuer) = stocked(TestOptions::default(), &key).await;
    let empty = good(&wharf(&server, "workload list").await);
    assert!(empty.contains("workload trust"), "{empty}");
    let trust = format!(
        "workload trust kubernetes --issuer {} --jwks-file keys.json --as prod --namespace prod reader on team/a",
        issuer.url
    );
    good(&wharf(&server, &trust).await);
    good(
        &wharf(
            &server,
            &trust.replace("--namespace prod", "--namespace dev"),
        )
        .await,
    );
    let listed = good(&wharf(&server, "workload list").await);
    for part in [
        "prod-prod",
        "prod-dev",
        "kubernetes.io.namespace=dev",
        "reader on team/a",
        &issuer.url,
    ] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    let json: Value =
        serde_json::from_str(&good(&wharf(&server, "workload list --json").await)).expect("JSON");
    assert_eq!(json["issuers"][0]["keys"], 1);
    let test = async |token: &str| {
        std::fs::write(server.folder().join("token"), format!("{token}\n")).expect("a file");
        wharf(&server, "workload test --token-file token").await
    };
    let pod = key.sign(&issuer.pod(AUDIENCE, "prod", "default"));
    let output = test(&pod).await;
    let told = good(&output);
    let wanted = "good   form\ngood   issuer prod\ngood   signature\ngood   audience\ngood   times\n\
                  good   bound to a service account\ngood   name\n\
                  rule prod-dev: does not match\n  kubernetes.io.namespace is \"prod\", and the rule asks for \"dev\"\n\
                  rule prod-prod: matches\nThe token signs in as prod:prod/default.\n";
    assert_eq!(told, wanted);
    let stranger = TokenKey::new("one").sign(&issuer.pod("another", "x", "default"));
    let told = bad(&test(&stranger).await, 1);
    for part in [
        "wrong  signature",
        "wrong  audience",
        "prod-prod: does not match",
        "would sign in nobody",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    for (told, token) in [(told, stranger), (format!("{output:?}"), pod)] {
        assert!(!told.contains(&token[..40]), "{told}");
    }
    assert!(bad(&test("hunter2").await, 1).contains("wrong  form"));
    assert!(bad(&test("").await, 2).contains("it is empty"));
    assert!(bad(&wharf(&server, "workload test --token-file none").await, 2).contains("none"));
    assert!(bad(&wharf(&server, "workload rm prod --issuer").await, 2).contains("rules"));
    let shown = good(&wharf(&server, "workload show prod-dev").await);
    assert!(shown.contains("kubernetes.io.namespace"), "{shown}");
    for rule in ["prod-dev", "prod-prod"] {
        good(&wharf(&server, &format!("workload remove {rule}")).await);
    }
    good(&wharf(&server, "workload rm prod --issuer").await);
    assert!(bad(&wharf(&server, "workload show prod --issuer").await, 2).contains("no issuer"));
}

async fn put(client: &Client, path: &str, body: Value) -> Response {
    let request = client.put(path).header("content-type", "application/json");
    request.body(body.to_string()).send().await
}

#[tokio::test]
async fn issuers_and_rules_have_versions_and_clear_refusals() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    let key = TokenKey::new("one");
    let keys = json!({"keys": [key.jwk]});
    let (issuers, rules) = ("/api/v1/workload/issuers", "/api/v1/workload/rules");
    let body =
        json!({"kind": "oidc", "issuer": "https://ci.example", "jwks": keys, "bearer": "hunter2"});
    let path = &format!("{issuers}/ci");
    assert_eq!(
        put(&admin, path, body.clone())
            .await
            .expect_status(200)
            .json()["changed"],
        true
    );
    let shown = admin.get(path).send().await.expect_status(200);
    assert_eq!(shown.expect_header("etag"), "\"1\"");
    let text = String::from_utf8_lossy(&shown.body).into_owned();
    assert!(
        !text.contains("hunter2") && shown.json()["has_bearer"] == true,
        "{text}"
    );
    assert_eq!(shown.json()["audiences"], json!(["wharf"]));
    assert_eq!(shown.json()["jwks"], keys);
    let same = admin
        .get(path)
        .header("if-none-match", "\"1\"")
        .send()
        .await;
    same.expect_status(304);
    let listed = get(&admin, issuers).await;
    assert!(!listed.to_string().contains("hunter2"));
    let old = admin
        .put(path)
        .header("if-match", "\"7\"")
        .header("content-type", "application/json");
    problem(old.body(body.to_string()).send().await, 412, "changed");
    let with = |field: &str, value: Value| {
        let mut body = body.clone();
        body[field] = value;
        body
    };
    for (field, value) in [
        ("kind", json!("jenkins")),
        ("issuer", json!("")),
        ("audiences", json!([])),
        ("algorithms", json!(["HS256"])),
        ("algorithms", json!(["none"])),
        ("jwks", json!({"keys": []})),
        ("jwks_url", json!("http://ci.example/keys")),
        ("authority", json!("nonsense")),
        ("bearer", json!("two words")),
        ("leeway", json!(61)),
        ("longest_life", json!(1)),
        ("session", json!(90_000)),
        ("principal", json!("all")),
    ] {
        let mut body = with(field, value.clone());
        if field == "jwks_url" {
            body.as_object_mut().expect("an object").remove("jwks");
        }
        let told = problem(put(&admin, path, body).await, 400, "invalid");
        assert_eq!(told["field"], field, "{value}");
        assert!(!told.to_string().contains("two words"));
    }
    let secret = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "d": "AA"}]});
    let told = problem(
        put(&admin, path, with("jwks", secret)).await,
        400,
        "invalid",
    );
    assert!(
        told["detail"].as_str().expect("text").contains("private"),
        "{told}"
    );
    let rule = &format!("{rules}/deploy");
    let asks = json!({"issuer": "ci", "conditions": [{"claim": "sub", "glob": ["job:*"]}]});
    put(&admin, rule, asks.clone()).await.expect_status(200);
    let shown = admin.get(rule).send().await.expect_status(200);
    assert_eq!(
        (shown.expect_header("etag"), &shown.json()["conditions"]),
        ("\"1\"", &asks["conditions"])
    );
    for bad in [
        json!({"issuer": "ci", "conditions": []}),
        json!({"issuer": "ci", "conditions": [{"claim": "sub"}]}),
        json!({"issuer": "ci", "conditions": [{"claim": "sub", "glob": ["**"]}]}),
    ] {
        let told = problem(put(&admin, rule, bad).await, 400, "invalid");
        assert_eq!(told["field"], "conditions");
    }
    problem(
        put(
            &admin,
            rule,
            json!({"issuer": "none", "conditions": [{"claim": "a", "in": ["b"]}]}),
        )
        .await,
        404,
        "not-found",
    );
    problem(admin.delete(path).send().await, 409, "conflict");
    problem(
        admin.delete(rule).header("if-match", "\"2\"").send().await,
        412,
        "changed",
    );
    admin
        .delete(rule)
        .header("if-match", "\"1\"")
        .send()
        .await
        .expect_status(200);
    problem(admin.get(rule).send().await, 404, "not-found");
    problem(admin.delete(rule).send().await, 404, "not-found");
    admin.delete(path).send().await.expect_status(200);
    // The form of the exchange.
    let jwt = "urn:ietf:params:oauth:token-type:jwt";
    for (kind, more, part) in [
        (
            "urn:ietf:params:oauth:token-type:saml2",
            "",
            "subject_token_type",
        ),
        (jwt, "&actor_token=x", "actor_token"),
        (
            jwt,
            "&requested_token_type=urn:ietf:params:oauth:token-type:refresh_token",
            "requested_token_type",
        ),
        (jwt, "&subject_token=y", "more than once"),
    ] {
        let answer = exchange_as(&admin, "x", "", kind, more).await;
        let told = answer.expect_status(400).json().to_string();
        assert!(told.contains(part), "{part}: {told}");
    }
    let answer = exchange(&admin, "%0A", "").await.expect_status(400);
    assert!(
        answer
            .json()
            .to_string()
            .contains("subject_token is missing")
    );
    exchange(&admin, "hunter2", "")
        .await
        .expect_error(401, "UNAUTHORIZED");
}

/// An issuer that is slow, broken, an impostor, or publishes nonsense: sign-in fails clearly and soon, and whoever has a token of
/// ours notices nothing.
#[tokio::test(flavor = "multi_thread")]
async fn issuers_that_misbehave_are_refused_in_time() {
    let key = TokenKey::new("one");
    let server = TestServer::start(TestOptions::default()).await;
    let admin = server.admin(Version::Http1);
    admin.push_image(OWN, "v1", &Image::random()).await;
    let anonymous = admin.clone().anonymous();
    let many: Vec<Value> = (0..1_000).map(|n| key.jwk_named(n)).collect();
    let elsewhere = TokenIssuer::start(&[&key]).await;
    for (at, (manner, part)) in [
        (Manner::Good, ""),
        (Manner::Silent, "no answer within 5 s"),
        (Manner::Endless, "no answer within 5 s"),
        (Manner::Broken, "500"),
        (Manner::Garbage("<html>".into()), "no key set"),
        (
            Manner::Garbage(json!({"keys": many}).to_string()),
            "more than 100 keys",
        ),
        (Manner::Garbage("x".repeat(1 << 20)), "larger than 256 KiB"),
        (
            Manner::Redirect(format!("{}/keys", elsewhere.url)),
            "redirect",
        ),
        (Manner::Impostor, "another issuer's"),
    ]
    .into_iter()
    .enumerate()
    {
        let issuer = TokenIssuer::start(&[&key]).await;
        issuer.behave(manner.clone());
        issuer.ask_for("let-me-in");
        let body = json!({
            "kind": "kubernetes", "issuer": issuer.url, "authority": issuer.ca.pem(), "bearer": "let-me-in",
        });
        let name = format!("c{at}");
        put(&admin, &format!("/api/v1/workload/issuers/{name}"), body)
            .await
            .expect_status(200);
        let asks = json!({"issuer": name, "conditions": [{"claim": "kubernetes.io.namespace", "in": ["prod"]}]});
        put(&admin, &format!("/api/v1/workload/rules/{name}"), asks)
            .await
            .expect_status(200);
        let grant = json!({"who": format!("workload:{name}"), "role": "reader", "on": "team"});
        let grant = admin
            .post("/api/v1/bindings")
            .header("content-type", "application/json")
            .body(grant.to_string());
        grant.send().await.expect_status(200);
        let pod = key.sign(&issuer.pod(AUDIENCE, "prod", "default"));
        let client = anonymous.clone().with_basic("x", &pod);
        let begun = Instant::now();
        let answered = client.get("/v2/").send().await;
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{manner:?} took {:?}",
            begun.elapsed()
        );
        let shown = get(&admin, &format!("/api/v1/workload/issuers/{name}")).await;
        if part.is_empty() {
            answered.expect_status(200);
            assert_eq!(
                (&shown["keys"], &shown["keys_error"]),
                (&json!(1), &Value::Null)
            );
            // It goes down after that, and who came in stays in.
            let bought = exchange(&anonymous, &pod, "repository:team/a/app:pull").await;
            let bought = bought.expect_status(200).json();
            let token = anonymous
                .clone()
                .with_token(bought["token"].as_str().expect("a token"));
            issuer.behave(Manner::Broken);
            for client in [&client, &token] {
                assert_eq!(status(client, &manifest(OWN, "v1")).await, 200);
            }
            continue;
        }
        let told = answered.expect_status(401).json().to_string();
        assert!(
            told.contains("not trusted here or cannot be asked now"),
            "{told}"
        );
        let error = shown["keys_error"].as_str().expect("an error");
        assert!(error.contains(part), "{part}: {error}");
        // Nobody asks it again for a while, nor waits for it.
        let (asked, begun) = (issuer.asked().len(), Instant::now());
        for _ in 0..20 {
            assert_eq!(status(&client, "/v2/").await, 401);
        }
        assert!(issuer.asked().len() <= asked + 2, "{:?}", issuer.asked());
        assert!(begun.elapsed() < PATIENCE);
        assert!(elsewhere.asked().is_empty(), "nobody follows a redirect");
    }
    // An authority that vouches for nobody there.
    let issuer = TokenIssuer::start(&[&key]).await;
    let body = json!({"kind": "kubernetes", "issuer": issuer.url, "authority": elsewhere.ca.pem()});
    put(&admin, "/api/v1/workload/issuers/forged", body)
        .await
        .expect_status(200);
    let client = anonymous.with_basic("x", &key.sign(&issuer.pod(AUDIENCE, "prod", "default")));
    assert_eq!(status(&client, "/v2/").await, 401);
    assert!(issuer.asked().is_empty(), "it is not believed to be itself");
}

/// A cluster that publishes no keys: one command, and it is asked about its tokens, over HTTPS and with a secret that is kept sealed.
///
/// Spec: K8SCRED-7.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_publishes_no_keys_is_asked() {
    let key = TokenKey::new("one");
    let (server, cluster) = stocked(TestOptions::default(), &key).await;
    cluster.publish(&[]);
    cluster.ask_for("the-reviewers-token");
    std::fs::write(server.folder().join("reviewer"), "the-reviewers-token\n").expect("a file");
    let trust = format!(
        "workload trust kubernetes --issuer {0} --token-review {0} --ca-file ca.pem --bearer-file reviewer --as closed --namespace prod \
         reader on team/a",
        cluster.url
    );
    good(&wharf(&server, &trust).await);
    let pod = key.sign(&cluster.pod(AUDIENCE, "prod", "default"));
    let node = server.admin(Version::Http1).anonymous();
    let node = node.with_basic("kubernetes", &pod);
    cluster.review(json!({"authenticated": true, "audiences": [AUDIENCE], "user": {
        "username": "system:serviceaccount:prod:default", "uid": "0f4d", "groups": ["system:serviceaccounts"],
    }}));
    assert_eq!(may(&node).await, (true, false));
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    assert_eq!(cluster.asked(), [reviews], "once for all that came");
    let listed = good(&wharf(&server, "workload list").await);
    assert!(
        listed.contains(&format!("asks {}", cluster.url)),
        "{listed}"
    );
    let shown = good(&wharf(&server, "workload show closed --issuer").await);
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["token_review"], cluster.url);
    assert_eq!(shown["has_bearer"], true);
    assert!(!shown.to_string().contains("the-reviewers-token"));

    cluster.review(json!({"authenticated": false, "error": "pods \"app-0\" not found"}));
    let gone = key.sign(&cluster.pod(AUDIENCE, "prod", "builder"));
    std::fs::write(server.folder().join("gone"), gone).expect("a file");
    let told = bad(&wharf(&server, "workload test --token-file gone").await, 1);
    assert!(
        told.contains(
            "wrong  the cluster's review: its cluster does not accept it: pods \"app-0\" not found"
        ),
        "{told}"
    );
    // A reviewer whose own token is over.
    cluster.ask_for("another");
    let late = key.sign(&cluster.pod(AUDIENCE, "prod", "late"));
    std::fs::write(server.folder().join("late"), late).expect("a file");
    let told = bad(&wharf(&server, "workload test --token-file late").await, 1);
    assert!(told.contains("not, or no longer, good there"), "{told}");
}

/// Trusted at one replica: at the other within five seconds, and out again.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_trusts_the_other_trusts_within_seconds() {
    let options = TestOptions {
        database: Some(Arc::new(test_server::shared().database())),
        // Both are one registry, with one bucket where the tests run on one.
        s3: match on_bucket() {
            true => Some(Arc::new(S3::start().await)),
            false => None,
        },
        ..TestOptions::default()
    };
    let key = TokenKey::new("one");
    let (one, issuer) = stocked(options.clone(), &key).await;
    let two = Process::start(Path::new(WHARF), options).await;
    let pod = key.sign(&issuer.pod(AUDIENCE, "prod", "default"));
    let there = two.admin(Version::Http1).anonymous();
    let until = async |client: &Client, wanted: u16| {
        let begun = Instant::now();
        while status(client, "/v2/").await != wanted {
            assert!(begun.elapsed() < PATIENCE, "still not {wanted}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        begun.elapsed()
    };
    let trust = format!(
        "workload trust kubernetes --issuer {} --authority ca.pem --namespace prod reader on team/a",
        issuer.url
    );
    good(&wharf(&one, &trust).await);
    let basic = there.clone().with_basic("x", &pod);
    let took = until(&basic, 200).await;
    let bought = exchange(&there, &pod, "repository:team/a/app:pull").await;
    let bought = bought.expect_status(200).json();
    let token = there
        .clone()
        .with_token(bought["token"].as_str().expect("a token"));
    assert_eq!(status(&token, "/v2/").await, 200);
    good(&wharf(&one, "workload rm kubernetes-prod").await);
    let gone = until(&token, 401).await;
    assert_eq!(status(&basic, "/v2/").await, 401);
    eprintln!("trusted on the other replica after {took:?}, and no longer after {gone:?}");
}
