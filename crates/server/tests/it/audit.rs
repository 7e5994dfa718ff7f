//! The audit log as it is written by requests, read over the network and by commands, and what it shows after somebody tampered with
//! it. What only the database can show is in `core/src/audit/tests.rs`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use serde_json::Value;
use wharf_core::audit;
use wharf_meta::{Meta, Op, SqliteOptions, Tx};
use wharf_testkit::test_server;
use wharf_testkit::{Client, Content, Image, Process, TestOptions, TestServer, Version};

use crate::api_support::{get, problem};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");

async fn wharf(server: &Process, args: &[&str]) -> Output {
    let mut args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    args.push("--data".into());
    args.push(server.folder().join("data").to_str().unwrap().to_owned());
    tokio::task::spawn_blocking(move || Command::new(WHARF).args(args).output())
        .await
        .unwrap()
        .unwrap()
}

#[track_caller]
fn expect(output: &Output, code: i32) -> String {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

/// A server with an auditor of everything, one of `team`, and people who are none.
async fn start() -> TestServer {
    let users = ["auditor", "team-auditor", "owner", "writer", "stranger"];
    TestServer::start(TestOptions {
        htpasswd: users.map(|name| (name, "x")).to_vec(),
        htpasswd_role: Some("none"),
        grants: vec![
            ("auditor", "auditor", ""),
            ("team-auditor", "auditor", "team"),
            ("writer", "writer", "team"),
        ],
        ..TestOptions::default()
    })
    .await
}

fn as_user(server: &TestServer, name: &str) -> Client {
    server.admin(Version::Http1).with_basic(name, "x")
}

/// What came in until now is in the log.
async fn settle(server: &TestServer) {
    let registry = &server.app().registry;
    registry.audit.flush(registry, true).await.unwrap();
}

async fn entries(client: &Client, filter: &str) -> Vec<Value> {
    let page = get(
        client,
        &format!("/api/v1/audit?order=oldest&n=1000{filter}"),
    )
    .await;
    page["items"].as_array().unwrap().clone()
}

fn actions(entries: &[Value]) -> Vec<&str> {
    entries
        .iter()
        .map(|one| one["action"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn changes_say_who_with_what_from_where_by_which_request_and_rule() {
    let server = start().await;
    let writer = as_user(&server, "writer");
    writer.push_image("team/app", "v1", &Image::random()).await;
    let auditor = as_user(&server, "auditor");
    let log = entries(&auditor, "&principal=writer&namespace=team").await;
    for action in ["blob.push", "manifest.push", "tag.move"] {
        let entry = log.iter().find(|entry| entry["action"] == action);
        let entry = entry.unwrap_or_else(|| panic!("{action}: {log:?}"));
        assert_eq!(
            (&entry["repository"], &entry["decision"]),
            (&"team/app".into(), &"allowed".into())
        );
        assert_eq!(
            (&entry["credential"], &entry["address"]),
            (&"password".into(), &"127.0.0.1".into())
        );
        assert!(entry["request"].as_str().unwrap().len() > 8, "{entry}");
        let rule = entry["rule"].as_str().unwrap_or_default();
        assert!(
            rule.contains("writer is writer on team") && rule.contains("configuration"),
            "{entry}"
        );
    }
    let moved = log
        .iter()
        .find(|entry| entry["action"] == "tag.move")
        .unwrap();
    assert!(
        moved["tag"] == "v1" && moved["before"].is_null() && moved["after"].is_string(),
        "{moved}"
    );
    // Another way in: the management API.
    let admin = server.admin(Version::Http1);
    admin
        .delete("/api/v1/repositories/team/app/-/tags/v1")
        .send()
        .await
        .expect_status(204);
    let gone = entries(&auditor, "&action=tag.delete").await;
    assert_eq!((gone.len(), &gone[0]["principal"]), (1, &"admin".into()));
    assert!(
        gone[0]["before"] == moved["after"] && gone[0]["rule"].is_string(),
        "{gone:?}"
    );
}

#[tokio::test]
async fn sign_ins_and_refusals_are_in_the_log_and_floods_are_counted() {
    let server = start().await;
    let writer = as_user(&server, "writer");
    for _ in 0..40 {
        writer.get("/v2/").send().await.expect_status(200);
    }
    let wrong = server
        .admin(Version::Http1)
        .with_basic("writer", "hunter2-hunter2");
    for _ in 0..30 {
        let status = wrong.get("/v2/").send().await.status.as_u16();
        assert!(matches!(status, 401 | 429), "{status}");
    }
    let denied = as_user(&server, "stranger");
    for _ in 0..20 {
        denied
            .get("/v2/team/app/manifests/v1")
            .send()
            .await
            .expect_status(403);
        denied
            .get("/api/v1/repositories/team/app")
            .send()
            .await
            .expect_status(404);
    }
    // Asked for credentials, not refused.
    server
        .admin(Version::Http1)
        .anonymous()
        .get("/v2/")
        .send()
        .await
        .expect_status(401);
    settle(&server).await;
    let auditor = as_user(&server, "auditor");
    let log = entries(&auditor, "").await;
    let count = |wanted: &dyn Fn(&Value) -> bool| {
        let found: Vec<_> = log.iter().filter(|entry| wanted(entry)).collect();
        let times: u64 = found
            .iter()
            .map(|entry| entry["count"].as_u64().unwrap())
            .sum();
        (found.len(), times)
    };
    let by = |name: &'static str, action: &'static str| {
        move |entry: &Value| entry["principal"] == name && entry["action"] == action
    };
    assert_eq!(count(&by("writer", "sign-in")), (2, 40), "{log:?}");
    let (rows, times) = count(&by("writer", "refuse"));
    assert!(rows <= 4 && times == 30, "{rows} {times}: {log:?}");
    let (rows, times) = count(&by("stranger", "refuse"));
    assert!(rows == 4 && times == 40, "{rows} {times}: {log:?}");
    assert_eq!(
        count(&|entry| entry["principal"] == "anonymous"),
        (0, 0),
        "{log:?}"
    );
    let refused = log
        .iter()
        .find(|entry| by("stranger", "refuse")(entry))
        .unwrap();
    assert_eq!(refused["decision"], "refused");
    let places: Vec<_> = log
        .iter()
        .filter(|entry| by("stranger", "refuse")(entry))
        .map(|entry| &entry["repository"])
        .collect();
    assert!(
        places.iter().all(|place| **place == "team/app"),
        "{places:?}"
    );
    assert!(
        refused["detail"]["reason"].is_string() && refused["address"] == "127.0.0.1",
        "{refused}"
    );
    // No password is in it.
    let text = serde_json::to_string(&log).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn the_token_endpoint_signs_in_and_a_bearer_token_does_not() {
    let server = start().await;
    let writer = as_user(&server, "writer");
    let answer = writer.fetch_token(&["repository:team/app:pull"]).await;
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    let bearer = server.admin(Version::Http1).with_token(&token);
    for _ in 0..10 {
        bearer.get("/v2/team/app/tags/list").send().await;
    }
    // Its scope does not go so far.
    bearer
        .delete("/v2/team/app/manifests/v1")
        .send()
        .await
        .expect_status(403);
    let wrong = server.admin(Version::Http1).with_basic("writer", "wrong");
    wrong
        .get("/token?service=wharf")
        .send()
        .await
        .expect_status(401);
    let secret = "wharf_token_0123456789abcdefghijklmnopqrstuvwxyz_000000";
    let swapped = server.admin(Version::Http1).with_basic(secret, "x");
    swapped.get("/v2/").send().await.expect_status(401);
    settle(&server).await;
    let auditor = as_user(&server, "auditor");
    let log = entries(&auditor, "&principal=writer").await;
    let signed: Vec<_> = log
        .iter()
        .filter(|entry| entry["action"] == "sign-in")
        .collect();
    assert_eq!(signed.len(), 1, "{log:?}");
    assert_eq!(
        (&signed[0]["detail"]["asked"], &signed[0]["credential"]),
        (&"/token".into(), &"password".into())
    );
    assert_eq!(
        actions(&log)
            .iter()
            .filter(|action| **action == "refuse")
            .count(),
        2,
        "{log:?}"
    );
    let all = serde_json::to_string(&entries(&auditor, "").await).unwrap();
    assert!(!all.contains(secret) && all.contains("(no name)"), "{all}");
}

#[tokio::test]
async fn reads_are_recorded_when_that_is_wanted() {
    let server = start().await;
    let writer = as_user(&server, "writer");
    let image = Image::random();
    writer.push_image("team/app", "v1", &image).await;
    writer
        .get("/v2/team/app/manifests/v1")
        .send()
        .await
        .expect_status(200);
    settle(&server).await;
    let auditor = as_user(&server, "auditor");
    assert!(entries(&auditor, "&action=read").await.is_empty());
    let rules = &server.app().registry.rules;
    let mut wanted = wharf_core::gc::Rules::clone(&rules.load());
    wanted.audit.reads = true;
    rules.store(Arc::new(wanted));
    for _ in 0..5 {
        writer
            .get("/v2/team/app/manifests/v1")
            .send()
            .await
            .expect_status(200);
    }
    writer
        .head("/v2/team/app/manifests/v1")
        .send()
        .await
        .expect_status(200);
    settle(&server).await;
    let log = entries(&auditor, "&action=read").await;
    let times: u64 = log
        .iter()
        .map(|entry| entry["count"].as_u64().unwrap())
        .sum();
    assert_eq!((log.len(), times), (2, 5), "{log:?}");
    assert!(
        log[0]["tag"] == "v1" && log[0]["repository"] == "team/app",
        "{log:?}"
    );
}

#[tokio::test]
async fn an_auditor_of_a_namespace_sees_what_is_below_it_alone() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    for name in ["team/app", "teams/app", "other"] {
        admin.push_image(name, "v1", &Image::random()).await;
    }
    let below = as_user(&server, "team-auditor");
    let log = entries(&below, "").await;
    let seen: BTreeSet<_> = log
        .iter()
        .map(|entry| entry["repository"].as_str().unwrap())
        .collect();
    assert_eq!(seen, BTreeSet::from(["team/app"]));
    for filter in [
        "&repository=other",
        "&namespace=teams",
        "&principal=auditor",
    ] {
        assert!(entries(&below, filter).await.is_empty(), "{filter}");
    }
    let all = entries(&as_user(&server, "auditor"), "").await;
    let seen: BTreeSet<_> = all
        .iter()
        .filter_map(|entry| entry["repository"].as_str())
        .collect();
    assert!(
        seen.is_superset(&BTreeSet::from(["team/app", "teams/app", "other"])),
        "{seen:?}"
    );
    for path in ["/api/v1/audit", "/api/v1/audit/export"] {
        for name in ["writer", "stranger"] {
            problem(
                as_user(&server, name).get(path).send().await,
                403,
                "forbidden",
            );
        }
        problem(
            admin.clone().anonymous().get(path).send().await,
            401,
            "unauthenticated",
        );
    }
    problem(
        below.get("/api/v1/audit?since=yesterday").send().await,
        400,
        "invalid",
    );
    problem(
        below.get("/api/v1/audit?order=odd").send().await,
        400,
        "invalid",
    );
    // A token that was bought for something else reads nothing, whoever has it.
    for name in ["auditor", "team-auditor"] {
        let answer = as_user(&server, name)
            .fetch_token(&["repository:team/app:pull"])
            .await;
        let token = answer.json()["token"].as_str().unwrap().to_owned();
        let bearer = server.admin(Version::Http1).with_token(&token);
        problem(
            bearer.get("/api/v1/audit").send().await,
            401,
            "unauthenticated",
        );
    }
    // Reading is in the log, and what was asked for.
    let reads = entries(
        &as_user(&server, "auditor"),
        "&action=audit.read&principal=team-auditor",
    )
    .await;
    assert_eq!(reads.len(), 4, "{reads:?}");
    assert_eq!(reads[1]["detail"]["repository"], "other");
}

#[tokio::test]
async fn the_log_is_paged_and_exported_as_json_lines() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    for _ in 0..7 {
        admin.push_blob("team/app", &Content::random(20)).await;
    }
    let whole = entries(&admin, "&action=blob.push").await;
    assert_eq!(whole.len(), 7);
    let (mut after, mut seen) = (String::new(), Vec::new());
    loop {
        let path = format!("/api/v1/audit/export?action=blob.push&n=3{after}");
        let answer = admin.get(&path).send().await.expect_status(200);
        assert_eq!(answer.expect_header("content-type"), "application/jsonl");
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        seen.extend(
            text.lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap()),
        );
        match answer.header("link") {
            Some(link) => {
                after = format!(
                    "&after={}",
                    link.trim_start_matches("<?after=")
                        .split('>')
                        .next()
                        .unwrap()
                )
            }
            None => break,
        }
    }
    assert_eq!(seen, whole);
    let latest = get(&admin, "/api/v1/audit?action=blob.push&n=1").await;
    assert_eq!(latest["items"][0], whole[6]);
    assert!(latest["next"].is_string());
}

/// Entries that are worth more than an answer may be, and more of them than fit on a page.
#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_many_and_large_entries_comes_in_pages_of_a_bounded_size() {
    let server = start().await;
    let registry = &server.app().registry;
    let record = async |count: usize, size: usize, name: &str| {
        for _ in 0..count.div_ceil(100) {
            let one = audit::Happened {
                kind: audit::Kind::OperatorCommand,
                at: registry.clock.now_ms(),
                repository: Some(name.into()),
                digest: None,
                tag: None,
                payload: serde_json::json!({"command": "x".repeat(size)}),
                origin: wharf_meta::Origin::default(),
            };
            let happened = vec![one; count.min(100)];
            let record = wharf_meta::event::Record { happened };
            registry.meta.write(record).await.unwrap();
        }
    };
    record(100, 200_000, "large").await;
    record(2_500, 10, "many").await;
    let admin = server.admin(Version::Http1);
    for name in ["large", "many"] {
        let path = format!("/api/v1/audit/export?n=1000&repository={name}");
        let page = admin.get(&path).send().await.expect_status(200);
        assert!(page.header("link").is_some());
        assert!(page.body.len() < 5 << 20, "{}", page.body.len());
    }
    let folder = tempfile::tempdir().unwrap();
    let contexts = folder.path().join("contexts.toml");
    let text = format!(
        "[context.here]\nurl = \"http://{}\"\nuser = \"auditor\"\npassword = \"x\"\n",
        admin.authority()
    );
    std::fs::write(&contexts, text).unwrap();
    for (name, count) in [("large", 100), ("many", 2_500)] {
        let mut export = Command::new(WHARF);
        export.args(["audit", "export", "--context", "here", "--repository", name]);
        export.env("WHARF_CONTEXTS", &contexts);
        let output = tokio::task::spawn_blocking(move || export.output()).await;
        let told = expect(&output.unwrap().unwrap(), 0);
        // The reading itself is about that repository, too.
        let read = |line: &&str| line.contains("\"operator.command\"");
        assert_eq!(told.lines().filter(read).count(), count);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_the_log_is_checked_for_those_who_may_read_all_of_it() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    for _ in 0..20 {
        admin.push_blob("team/app", &Content::random(20)).await;
    }
    let check = async |client: &Client, body: &str| {
        let request = client.post("/api/v1/audit/verify");
        let request = request.header("content-type", "application/json");
        request.body(body.to_owned()).send().await
    };
    let auditor = as_user(&server, "auditor");
    let found = check(&auditor, "").await.expect_status(200).json();
    assert_eq!((&found["whole"], &found["bad"]), (&true.into(), &0.into()));
    let end = found["end"].as_str().unwrap();
    let same = check(&auditor, &format!("{{\"expect\":\"{end}\"}}")).await;
    assert_eq!(same.expect_status(200).json()["whole"], true);
    let wrong = check(&auditor, "{\"expect\":\"1:2\"}").await;
    assert_eq!(problem(wrong, 400, "invalid")["field"], "expect");
    // The check is in the log, and what a narrower right gives is told.
    let log = entries(&auditor, "&action=operator.command").await;
    assert!(
        log.len() == 2 && log[0]["detail"]["command"] == "audit.verify",
        "{log:?}"
    );
    let below = problem(
        check(&as_user(&server, "team-auditor"), "").await,
        403,
        "forbidden",
    );
    assert!(
        below["detail"]
            .as_str()
            .unwrap()
            .contains("those of some namespaces")
    );
    assert!(
        below["cure"]
            .as_str()
            .unwrap()
            .contains("wharf grant NAME auditor")
    );
    let writer = problem(
        check(&as_user(&server, "writer"), "").await,
        403,
        "forbidden",
    );
    assert!(!writer.to_string().contains("some namespaces"), "{writer}");
    problem(
        check(&admin.clone().anonymous(), "").await,
        401,
        "unauthenticated",
    );
    // It reads everything, so one at a time.
    let many = (0..8).map(|_| {
        let auditor = auditor.clone();
        tokio::spawn(async move { auditor.post("/api/v1/audit/verify").send().await })
    });
    let many: Vec<_> = many.collect();
    let mut statuses = Vec::new();
    for one in many {
        statuses.push(one.await.unwrap().status.as_u16());
    }
    assert!(
        statuses.contains(&200) && statuses.contains(&409),
        "{statuses:?}"
    );
    check(&auditor, "").await.expect_status(200);
}

/// A statement, as somebody who has the database would run it.
struct Sql(&'static str);

impl Op for Sql {
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> wharf_meta::Result<()> {
        tx.exec(self.0, &[]).await?;
        Ok(())
    }
}

/// The way of docs/how-to/audit.md.
#[tokio::test]
async fn commands_read_export_and_check_the_log_of_a_running_and_a_stopped_registry() {
    let options = TestOptions {
        on_file: true,
        files: true,
        ..TestOptions::default()
    };
    let mut server = Process::start(Path::new(WHARF), options).await;
    server
        .admin(Version::Http1)
        .push_image("team/app", "v1", &Image::random())
        .await;
    expect(&wharf(&server, &["robot", "create", "team+ci"]).await, 0);
    expect(
        &wharf(&server, &["grant", "team+ci", "reader", "on", "team"]).await,
        0,
    );
    expect(
        &wharf(&server, &["gc", "pause", "--reason", "a drill"]).await,
        0,
    );
    let told = expect(&wharf(&server, &["audit", "list"]).await, 0);
    for line in [
        "admin tag.move team/app:v1",
        "operator principal.create team robot",
        "operator credential.create team robot",
        "operator access.change team binding",
        "operator operator.command gc.pause",
    ] {
        assert!(told.contains(line), "{line}:\n{told}");
    }
    let told = expect(
        &wharf(
            &server,
            &[
                "audit",
                "list",
                "--principal",
                "operator",
                "--action",
                "credential",
                "--json",
            ],
        )
        .await,
        0,
    );
    let entry: Value = serde_json::from_str(told.trim()).unwrap();
    assert_eq!(
        (&entry["credential"], &entry["after"]["principal"]),
        (&"admin socket".into(), &"team+ci".into())
    );
    let file = server.folder().join("audit.jsonl");
    let file = file.to_str().unwrap();
    expect(
        &wharf(
            &server,
            &["audit", "export", "--since", "1h", "--output", file],
        )
        .await,
        0,
    );
    let lines = std::fs::read_to_string(file).unwrap();
    assert!(
        lines.lines().count() > 8
            && lines
                .lines()
                .all(|line| serde_json::from_str::<Value>(line).is_ok())
    );
    expect(
        &wharf(&server, &["audit", "export", "--output", file]).await,
        1,
    );

    let told = expect(&wharf(&server, &["audit", "verify"]).await, 0);
    let end = told
        .lines()
        .find_map(|line| line.strip_prefix("Its end, to be kept elsewhere: "));
    let end = end.expect(&told).to_owned();
    let told = expect(
        &wharf(&server, &["audit", "verify", "--expect", &end]).await,
        0,
    );
    assert!(told.contains("The audit log is whole."), "{told}");
    server.terminate().await;
    let database = server.folder().join("data").join("wharf.db");
    let (meta, _) = Meta::open(SqliteOptions::new(database)).unwrap();
    meta.write(Sql("/* tampering */ DELETE FROM audit_entry WHERE seq = 3"))
        .await
        .unwrap();
    meta.write(Sql(
        "/* tampering */ UPDATE audit_entry SET principal = 'mallory' WHERE seq = 5",
    ))
    .await
    .unwrap();
    meta.close().await;
    let told = expect(&wharf(&server, &["audit", "verify"]).await, 4);
    assert!(
        told.contains("Entry 3 is missing.") && told.contains("Entry 5 was changed."),
        "{told}"
    );
    server.again().await;
    let told = expect(&wharf(&server, &["audit", "verify"]).await, 4);
    assert!(told.contains("Entry 3 is missing."), "{told}");
}

/// The server is killed while it acknowledges changes: each of them is in the log afterwards, which is whole.
#[tokio::test(flavor = "multi_thread")]
async fn every_change_that_was_acknowledged_is_in_the_log_after_a_kill() {
    let mut server = Process::start(Path::new(WHARF), TestOptions::default()).await;
    let mut acknowledged = BTreeSet::new();
    for round in 0..3 {
        let client = server.admin(Version::Http1);
        let image = Image::random();
        client.push_image("team/app", "base", &image).await;
        let push = |n: usize| {
            let (client, manifest) = (client.clone(), image.manifest.clone());
            tokio::spawn(async move {
                let mut done = Vec::new();
                for m in 0.. {
                    let tag = format!("t{round}-{n}-{m}");
                    let answer = client
                        .put_manifest("team/app", &tag, &manifest)
                        .try_send()
                        .await;
                    match answer {
                        Ok(answer) if answer.status == 201 => done.push(tag),
                        _ => break,
                    }
                }
                done
            })
        };
        let pushes: Vec<_> = (0..4).map(push).collect();
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        server.kill();
        for push in pushes {
            acknowledged.extend(push.await.unwrap());
        }
        server.again().await;
    }
    assert!(acknowledged.len() > 20, "{}", acknowledged.len());
    let told = expect(
        &wharf(&server, &["audit", "export", "--action", "tag.move"]).await,
        0,
    );
    let logged: BTreeSet<String> = told
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["tag"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    let missing: Vec<_> = acknowledged.difference(&logged).collect();
    assert!(missing.is_empty(), "{missing:?}");
    expect(&wharf(&server, &["audit", "verify"]).await, 0);
}

/// Two replicas over one PostgreSQL, many writers at each, both sealing as fast as they can.
#[tokio::test(flavor = "multi_thread")]
async fn two_replicas_make_one_chain_without_gaps() {
    let options = TestOptions {
        database: Some(Arc::new(test_server::shared().database())),
        replicated: true,
        ..TestOptions::default()
    };
    let servers = [
        Arc::new(TestServer::start(options.clone()).await),
        Arc::new(TestServer::start(options).await),
    ];
    let mut tasks = Vec::new();
    for server in &servers {
        for n in 0..3 {
            let client = server.admin(Version::Http1);
            tasks.push(tokio::spawn(async move {
                for _ in 0..15 {
                    let blob = Content::random(20);
                    client.push_blob(&format!("team/app{n}"), &blob).await;
                }
            }));
        }
        let server = server.clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0..50 {
                audit::seal(&server.app().registry).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let registry = &servers[0].app().registry;
    let log = entries(&servers[1].admin(Version::Http1), "").await;
    assert_eq!(
        actions(&log)
            .iter()
            .filter(|action| **action == "blob.push")
            .count(),
        90
    );
    let mut places: Vec<_> = log
        .iter()
        .map(|entry| entry["seq"].as_i64().unwrap())
        .collect();
    places.sort_unstable();
    assert!(
        places.iter().zip(1..).all(|(place, seq)| *place == seq),
        "{places:?}"
    );
    let report = audit::verify(registry, None).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
}
