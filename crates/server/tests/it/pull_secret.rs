//! Pull secrets as a cluster uses them, and what is said of those that have ended.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use wharf_core::access::Changer;
use wharf_core::clock::ManualClock;
use wharf_core::identity::{NewRobot, create_robot};
use wharf_testkit::{Client, Image, Process, TestOptions, TestServer, Version};

use crate::api_support::get;

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");
/// Longest wait for something that comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// How images name the registry.
const HOST: &str = "reg.example:5000";

/// What a command says, without a context and with nobody at the terminal.
async fn wharf(server: &Process, line: &str) -> String {
    let folder = server.folder().to_owned();
    let mut command = std::process::Command::new(WHARF);
    command
        .args(line.split(' '))
        .arg("--data")
        .arg(folder.join("data"))
        .current_dir(&folder)
        .env("XDG_CONFIG_HOME", &folder)
        .stdin(std::process::Stdio::null());
    let output: Output = tokio::task::spawn_blocking(move || command.output())
        .await
        .expect("a thread")
        .expect("a command");
    assert!(output.status.success(), "{line}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// What a kubelet takes from a manifest: of the type that it knows the one data field, in it the entry of the image's host, and of
/// that the user and password in `auth`.
fn kubelet(manifest: &str, image: &str) -> (String, String) {
    assert!(
        manifest.contains("\ntype: kubernetes.io/dockerconfigjson\n"),
        "{manifest}"
    );
    let data = manifest.lines().skip_while(|line| *line != "data:");
    let field = data
        .skip(1)
        .find_map(|line| line.trim().strip_prefix(".dockerconfigjson: "));
    let config = STANDARD.decode(field.expect("the field")).expect("base64");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    let (host, _) = image.split_once('/').expect("a host");
    let auth = config["auths"][host]["auth"]
        .as_str()
        .expect("an entry for the host");
    let auth = String::from_utf8(STANDARD.decode(auth).expect("base64")).expect("text");
    let (user, password) = auth.split_once(':').expect("both");
    (user.to_owned(), password.to_owned())
}

/// As a kubelet pulls: a token for the image, with it the manifest.
async fn pulls(base: &Client, (user, password): &(String, String), name: &str) -> u16 {
    let buyer = base.clone().with_basic(user, password);
    let scope = format!("/token?service=wharf&scope=repository:{name}:pull");
    let answer = buyer.get(&scope).send().await;
    if answer.status != 200 {
        return answer.status.as_u16();
    }
    let token = answer.json()["token"].as_str().expect("a token").to_owned();
    let puller = base.clone().with_token(&token);
    let manifest = format!("/v2/{name}/manifests/v1");
    puller.get(&manifest).send().await.status.as_u16()
}

/// Nothing stands still while a cluster takes the new secret, and nothing is left of the old one when its time is over.
#[tokio::test]
async fn a_pull_secret_is_replaced_while_pods_pull() {
    let server = Process::start(Path::new(WHARF), TestOptions::default()).await;
    let admin = server.admin(Version::Http1);
    for name in ["team/a/app", "team/a/other"] {
        admin.push_image(name, "v1", &Image::random()).await;
    }
    let base = admin.clone().anonymous();
    let image = format!("{HOST}/team/a/app:v1");
    let line = format!(
        "pull-secret create --namespace team/a --repository team/a/app --host {HOST} --expires 30d"
    );
    let first = kubelet(&wharf(&server, &line).await, &image);
    assert_eq!(first.0, "team/a+pull-cluster");
    assert_eq!(pulls(&base, &first, "team/a/app").await, 200);
    // Of its namespace it reads what it was made for, and writes nothing.
    assert_eq!(pulls(&base, &first, "team/a/other").await, 403);
    let writer = base.clone().with_basic(&first.0, &first.1);
    let push = writer.post("/v2/team/a/app/blobs/uploads/").body("").send();
    push.await.expect_error(403, "DENIED");

    let rotate = format!("pull-secret rotate --namespace team/a --host {HOST} --overlap 1h");
    let second = kubelet(&wharf(&server, &rotate).await, &image);
    assert_eq!(second.0, first.0);
    assert_ne!(second.1, first.1);
    for secret in [&first, &second] {
        assert_eq!(pulls(&base, secret, "team/a/app").await, 200);
        assert_eq!(pulls(&base, secret, "team/a/other").await, 403);
    }
    let rotate = format!("pull-secret rotate --namespace team/a --host {HOST} --overlap 0s");
    let third = kubelet(&wharf(&server, &rotate).await, &image);
    for (secret, status) in [(&first, 401), (&second, 401), (&third, 200)] {
        assert_eq!(pulls(&base, secret, "team/a/app").await, status);
    }

    let list = wharf(&server, "pull-secret list --namespace team/a").await;
    assert!(
        list.contains("team/a+pull-cluster") && list.contains("good"),
        "{list}"
    );
    let why = wharf(
        &server,
        "access explain team/a+pull-cluster pull team/a/app",
    )
    .await;
    assert!(
        why.contains("reader") && why.contains("team/a/app"),
        "{why}"
    );
    let told = |permission: &str, name: &str| {
        format!(
            "/api/v1/explain?who=team/a%2Bpull-cluster&permission={permission}&repository={name}"
        )
    };
    for (permission, name, allowed) in [
        ("pull", "team/a/app", true),
        ("push", "team/a/app", false),
        ("pull", "team/a/other", false),
    ] {
        let answer = get(&admin, &told(permission, name)).await;
        assert_eq!(answer["allowed"], json!(allowed), "{answer}");
        assert_eq!(answer["by"]["on"] == "team/a/app", allowed, "{answer}");
    }
}

#[tokio::test]
async fn a_robot_that_has_ended_is_explained_as_that() {
    let now = 1_795_219_200_000;
    let clock = Arc::new(ManualClock::at(now));
    let server = TestServer::start(TestOptions {
        clock: Some(clock.clone()),
        ..TestOptions::default()
    })
    .await;
    let admin = server.admin(Version::Http1);
    let registry = &server.app().registry;
    let new = NewRobot {
        name: "team+ci".into(),
        lifetime: Some(3_600_000),
        reads: Some("team".into()),
        ..NewRobot::default()
    };
    let made = create_robot(registry, Changer::Operator, &new)
        .await
        .expect("a robot");
    let robot = admin.clone().with_basic("team+ci", made.secret.reveal());
    let path = "/api/v1/explain?who=team%2Bci&permission=pull&repository=team/app";
    let before = get(&admin, path).await;
    assert_eq!(
        (&before["allowed"], &before["kind"]),
        (&json!(true), &json!("robot")),
        "{before}"
    );
    assert_eq!(robot.get("/v2/").send().await.status, 200);
    clock.advance(3_600_000);
    let after = get(&admin, path).await;
    assert!(after.to_string().contains("robot, has ended"), "{after}");
    assert_eq!(robot.get("/v2/").send().await.status, 401);
}

/// The audit log says that other people can sign in now, and who could have done that.
#[tokio::test]
async fn a_changed_htpasswd_file_is_in_the_audit_log() {
    let server = TestServer::start(TestOptions {
        htpasswd: vec![("vera", "v")],
        ..TestOptions::default()
    })
    .await;
    let admin = server.admin(Version::Http1);
    let entries = async || {
        let page = get(&admin, "/api/v1/audit?principal=operator").await;
        let all = page["items"].as_array().expect("entries").iter();
        let reloads = all.filter(|one| one.to_string().contains("htpasswd.reload"));
        reloads.cloned().collect::<Vec<_>>()
    };
    assert_eq!(entries().await, Vec::<Value>::new());
    let file = server.folder().join("htpasswd");
    let text = std::fs::read_to_string(&file).expect("the file");
    std::fs::write(&file, text.replace("vera:", "viola:")).expect("another one");
    let begun = Instant::now();
    let found = loop {
        let found = entries().await;
        if !found.is_empty() {
            break found;
        }
        assert!(begun.elapsed() < PATIENCE, "nothing is noted");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0]["principal"], "operator", "{found:?}");
    assert!(
        found[0].to_string().contains("registry's files"),
        "{found:?}"
    );
    let viola = admin.clone().with_basic("viola", "v");
    assert_eq!(viola.get("/v2/").send().await.status, 200);
}
