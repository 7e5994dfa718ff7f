//! Rights that are rows: granted and revoked by commands, in force at once here and soon elsewhere, and publishers, who make
//! tags and never move one.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_core::access::{Binding, Change, Changer, Conditions, Granting, Subject};
use wharf_testkit::test_server;
use wharf_testkit::{Client, Content, Image, Process, TestOptions, TestServer, Version};

use crate::api_support::{get, names, problem};
use crate::support::texts;

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");

/// Longest wait for something that comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// Users without any right.
fn nobodies() -> TestOptions {
    TestOptions {
        htpasswd: vec![("alice", "a"), ("bob", "b")],
        htpasswd_role: Some("none"),
        ..TestOptions::default()
    }
}

async fn grant(server: &TestServer, who: &str, role: &str, on: &str, tags: Option<&str>) {
    let granting = Granting {
        subject: who.parse().expect("a subject"),
        role: role.into(),
        on: on.into(),
        conditions: Conditions {
            tags: tags.map(|text| text.parse().expect("a pattern")),
            ..Conditions::default()
        },
    };
    let now = server.app().registry.clock.now_ms();
    let access = &server.app().registry.access;
    let made = access.grant(Changer::Operator, &granting, now).await;
    assert_eq!(made.expect("a grant"), Change::Made);
}

fn alice(server: &TestServer) -> Client {
    server.admin(Version::Http1).with_basic("alice", "a")
}

/// Bytes of a manifest that names nothing which could be missing.
async fn manifest(client: &Client, name: &str) -> Content {
    let image = Image::random();
    client.push_image(name, "first", &image).await;
    image.manifest
}

/// A publisher fills a repository and leaves what is there as it is: by tag, by digest with tags, by delete.
#[tokio::test]
async fn a_publisher_makes_tags_and_never_moves_or_deletes_one() {
    let server = TestServer::start(nobodies()).await;
    let admin = server.admin(Version::Http1);
    let (one, two) = (manifest(&admin, "team/app").await, Image::random());
    grant(&server, "alice", "publisher", "team", None).await;
    let alice = alice(&server);
    alice.push_image("team/app", "v1", &two).await;
    let put = async |tag: &str, manifest: &Content| {
        alice.put_manifest("team/app", tag, manifest).send().await
    };
    put("v2", &one).await.expect_status(201);
    put("v2", &one).await.expect_status(201);
    let refused = put("v2", &two.manifest).await;
    let told = refused.expect_error(403, "DENIED");
    let told = String::from_utf8_lossy(&told.body).into_owned();
    assert!(
        told.contains("v2") && told.contains("may not move"),
        "{told}"
    );
    // Several tags at once: none is made where one would move.
    let target = format!("{}?tag=v3&tag=v2", two.manifest.digest);
    put(&target, &two.manifest)
        .await
        .expect_error(403, "DENIED");
    let list = alice.get("/v2/team/app/tags/list").send().await;
    let list = list.expect_status(200).json();
    assert_eq!(list["tags"], serde_json::json!(["first", "v1", "v2"]));
    for reference in ["v2", one.digest.to_string().as_str()] {
        let target = format!("/v2/team/app/manifests/{reference}");
        let refused = alice.delete(&target).send().await;
        refused.expect_error(403, "DENIED");
        alice.get(&target).send().await.expect_status(200);
    }
    // A writer may.
    grant(&server, "alice", "writer", "team/app", None).await;
    put("v2", &two.manifest).await.expect_status(201);
}

/// Of many who push different manifests under one new tag, none of whom may move it, one wins.
#[tokio::test(flavor = "multi_thread")]
async fn publishers_who_race_for_a_tag_leave_it_where_the_first_put_it() {
    let server = TestServer::start(nobodies()).await;
    let admin = server.admin(Version::Http1);
    let mut manifests = Vec::new();
    for _ in 0..8 {
        manifests.push(manifest(&admin, "team/app").await);
    }
    grant(&server, "alice", "publisher", "team", None).await;
    let mut tasks = tokio::task::JoinSet::new();
    for manifest in manifests {
        let client = alice(&server);
        tasks.spawn(async move {
            let put = client.put_manifest("team/app", "v1", &manifest);
            (put.send().await.status, manifest.digest)
        });
    }
    let answers = tasks.join_all().await;
    let made: Vec<_> = answers
        .iter()
        .filter(|(status, _)| *status == 201)
        .collect();
    assert_eq!(made.len(), 1, "{answers:?}");
    assert!(
        answers
            .iter()
            .all(|(status, _)| *status == 201 || *status == 403)
    );
    let stands = admin.get("/v2/team/app/manifests/v1").send().await;
    assert_eq!(stands.expect_status(200).digest(), made[0].1);
}

/// Who may read `v*` is shown those tags alone, in every list, and the others are answered like those that are not there.
///
/// Spec: TAGS-3, TAGS-4, TAGS-5, TAGS-6.
#[tokio::test]
async fn lists_show_the_tags_that_one_may_read_and_tell_nothing_of_others() {
    let server = TestServer::start(nobodies()).await;
    let admin = server.admin(Version::Http1);
    let image = Image::random();
    for tag in ["alpha", "v1", "v2", "v3", "wip"] {
        admin.push_image("team/app", tag, &image).await;
    }
    grant(&server, "alice", "reader", "team", Some("v*")).await;
    let alice = alice(&server);
    let list = async |query: &str| {
        let page = alice.get(&format!("/v2/team/app/tags/list{query}"));
        let page = page.send().await.expect_status(200);
        let link = page.header("link").map(str::to_owned);
        (texts(&page.json()["tags"]), link)
    };
    assert_eq!(
        list("").await,
        (vec!["v1".into(), "v2".into(), "v3".into()], None)
    );
    let (tags, link) = list("?n=2").await;
    assert_eq!(tags, ["v1", "v2"]);
    let next = "</v2/team/app/tags/list?n=2&last=v2>; rel=\"next\"";
    assert_eq!(link.as_deref(), Some(next));
    // Nothing follows, though a tag does that is not shown.
    assert_eq!(list("?n=2&last=v2").await, (vec!["v3".into()], None));
    assert_eq!(list("?n=3").await.1, None);
    assert_eq!(list("?n=0").await, (vec![], None));
    assert_eq!(list("?last=wip").await, (vec![], None));
    let unknown = alice.get("/v2/team/none/tags/list").send().await;
    unknown.expect_error(404, "NAME_UNKNOWN");

    // What is named by digest can be read, or no pull would work.
    let digest = image.manifest.digest.to_string();
    for path in [
        format!("/v2/team/app/manifests/{digest}"),
        format!("/v2/team/app/referrers/{digest}"),
    ] {
        alice.get(&path).send().await.expect_status(200);
    }
    let catalog = alice.get("/v2/_catalog").send().await.expect_status(200);
    assert_eq!(texts(&catalog.json()["repositories"]), ["team/app"]);
    for (tag, status) in [("v1", 200), ("wip", 403), ("none", 403)] {
        let head = alice.head(&format!("/v2/team/app/manifests/{tag}"));
        assert_eq!(head.send().await.status.as_u16(), status, "{tag}");
    }

    // The management API.
    let base = "/api/v1/repositories/team/app/-";
    let page = get(&alice, &format!("{base}/tags")).await;
    assert_eq!(names(&page), ["v1", "v2", "v3"]);
    assert!(page.get("next").is_none());
    let page = get(&alice, &format!("{base}/tags?n=2")).await;
    let next = page["next"].as_str().unwrap();
    let rest = get(&alice, &format!("{base}/tags?n=2&after={next}")).await;
    assert_eq!(names(&rest), ["v3"]);
    let moves = get(&alice, &format!("{base}/history")).await["moves"].clone();
    let moved: Vec<_> = moves
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["tag"].clone())
        .collect();
    assert_eq!(moved.len(), 3, "{moves}");
    get(&alice, &format!("{base}/tags/v1")).await;
    get(&alice, &format!("{base}/tags/v1/history")).await;
    for rest in ["", "/history"] {
        let ask = async |tag: &str| {
            let answer = alice.get(&format!("{base}/tags/{tag}{rest}")).send().await;
            let mut told = problem(answer, 404, "not-found");
            let told = told.as_object_mut().unwrap();
            told.remove("request_id");
            told["detail"] = told["detail"].as_str().unwrap().replace(tag, "").into();
            told.clone()
        };
        assert_eq!(ask("wip").await, ask("gone").await);
    }

    // An auditor is shown all names, and a second binding adds what it gives.
    grant(&server, "bob", "auditor", "team", None).await;
    let bob = admin.clone().with_basic("bob", "b");
    assert_eq!(names(&get(&bob, &format!("{base}/tags")).await).len(), 5);
    grant(&server, "alice", "reader", "team/app", Some("wip")).await;
    assert_eq!(list("").await.0, ["v1", "v2", "v3", "wip"]);
    grant(&server, "alice", "reader", "team/app", None).await;
    assert_eq!(list("").await.0.len(), 5);
}

/// Whoever may delete some tags does so in the management API too, and no others.
#[tokio::test]
async fn a_pattern_of_tags_limits_what_the_management_api_deletes() {
    let server = TestServer::start(nobodies()).await;
    let admin = server.admin(Version::Http1);
    for tag in ["v1", "wip"] {
        admin.push_image("team/app", tag, &Image::random()).await;
    }
    grant(&server, "alice", "maintainer", "team", Some("v*")).await;
    let alice = alice(&server);
    for (tag, status) in [("v1", 204), ("v1", 404), ("wip", 403), ("none", 403)] {
        let path = format!("/api/v1/repositories/team/app/-/tags/{tag}");
        let answer = alice.delete(&path).send().await;
        assert_eq!(answer.status.as_u16(), status, "{tag}: {answer}");
    }
}

/// Who may read `v*` reads that by tag, and what it is made of by digest; other tags are as if they were not there.
#[tokio::test]
async fn a_pattern_of_tags_limits_what_is_read_written_and_deleted_by_tag() {
    let server = TestServer::start(nobodies()).await;
    let admin = server.admin(Version::Http1);
    let image = Image::random();
    for tag in ["v1", "dev"] {
        admin.push_image("team/app", tag, &image).await;
    }
    grant(&server, "alice", "maintainer", "team", Some("v*")).await;
    let alice = alice(&server);
    let path = |reference: &str| format!("/v2/team/app/manifests/{reference}");
    let digest = image.manifest.digest.to_string();
    alice.get(&path("v1")).send().await.expect_status(200);
    alice.get(&path(&digest)).send().await.expect_status(200);
    for absent in ["dev", "nothing"] {
        let refused = alice.get(&path(absent)).send().await;
        refused.expect_error(403, "DENIED");
        let refused = alice.delete(&path(absent)).send().await;
        refused.expect_error(403, "DENIED");
        let put = alice.put_manifest("team/app", absent, &image.manifest);
        put.send().await.expect_error(403, "DENIED");
    }
    let put = alice.put_manifest("team/app", &format!("{digest}?tag=dev"), &image.manifest);
    put.send().await.expect_error(403, "DENIED");
    let put = alice.put_manifest("team/app", "v2", &image.manifest);
    put.send().await.expect_status(201);
    // The manifest would take `dev` along.
    let refused = alice.delete(&path(&digest)).send().await;
    refused.expect_error(403, "DENIED");
    alice.delete(&path("v2")).send().await.expect_status(202);
    admin.get(&path("dev")).send().await.expect_status(200);
}

/// Runs a command off the runtime, so that the server goes on answering.
async fn wharf(server: &Process, words: &str) -> Output {
    let mut command = Command::new(WHARF);
    command.args(words.split(' '));
    command.arg("--data").arg(server.folder().join("data"));
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    output.expect("a thread").expect("a program")
}

#[track_caller]
fn says(output: &Output, code: i32) -> String {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{text}");
    text
}

/// What the how-to does, word by word.
#[tokio::test]
async fn commands_grant_explain_list_and_revoke_on_a_registry_that_runs() {
    let server = Process::start(Path::new(WHARF), nobodies()).await;
    let admin = server.admin(Version::Http1);
    admin.push_image("team/a/app", "v1", &Image::random()).await;
    let alice = server.admin(Version::Http1).with_basic("alice", "a");
    let target = "/v2/team/a/app/manifests/v1";
    let run = async |words: &str, code| says(&wharf(&server, words).await, code);
    alice.get(target).send().await.expect_error(403, "DENIED");
    let no = run("access explain alice pull team/a/app", 1).await;
    assert!(
        no.contains("No: alice may not pull from team/a/app"),
        "{no}"
    );
    assert!(no.contains("could be granted by: admin"), "{no}");

    run(
        "grant alice reader on team/a --from 127.0.0.0/8 --expires 90d",
        0,
    )
    .await;
    alice.get(target).send().await.expect_status(200);
    let yes = run("access explain alice pull team/a/app --from 127.0.0.1", 0).await;
    assert!(yes.contains("Yes: alice may pull from team/a/app"), "{yes}");
    let far = run("access explain alice pull team/a/app --from 192.0.2.1", 1).await;
    assert!(far.contains("not from this address"), "{far}");
    let listed = run("access list --repo team/a/app", 0).await;
    for words in [
        "alice",
        "team/a",
        "127.0.0.0/8",
        "granted by operator",
        "built in",
    ] {
        assert!(listed.contains(words), "{words}: {listed}");
    }
    let gone = run("revoke alice reader on team/a", 0).await;
    assert!(gone.contains("Revoked"), "{gone}");
    alice.get(target).send().await.expect_error(403, "DENIED");

    run("group create dev", 0).await;
    run("group add-member dev alice", 0).await;
    run("role set puller pull", 0).await;
    run("grant group:dev puller on team", 0).await;
    alice.get(target).send().await.expect_status(200);
    let mine = run("access list --who alice --json", 0).await;
    let mine: serde_json::Value = serde_json::from_str(&mine).expect("JSON");
    assert_eq!(mine[0]["who"], "group:dev");
    assert!(run("group list", 0).await.contains("alice"));
    assert!(run("role list", 0).await.contains("puller"));
    run("group remove dev", 0).await;
    alice.get(target).send().await.expect_error(403, "DENIED");

    run("namespace set team/a internal", 0).await;
    alice.get(target).send().await.expect_status(200);
    let nobody = alice.clone().anonymous();
    nobody.get(target).send().await.expect_status(401);
    run("namespace set team/a public", 0).await;
    nobody.get(target).send().await.expect_status(200);
    assert!(run("namespace list", 0).await.contains("public"));
    run("namespace remove team/a", 0).await;
    nobody.get(target).send().await.expect_status(401);

    run("grant alice owner on team/a", 0).await;
    let last = run("revoke alice owner on team/a", 2).await;
    assert!(last.contains("last owner of team/a"), "{last}");
    for wrong in [
        "grant alice fly on team",
        "grant alice reader in team",
        "revoke bob all on team",
    ] {
        run(wrong, 2).await;
    }
}

/// A token that was issued before works on both replicas until the right is revoked on one: there it ends at once, and on the
/// other within seconds. The same for a grant.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_on_one_replica_counts_on_the_other_for_tokens_already_issued() {
    let options = TestOptions {
        database: Some(Arc::new(test_server::shared().database())),
        ..nobodies()
    };
    let one = Process::start(Path::new(WHARF), options.clone()).await;
    let two = Process::start(Path::new(WHARF), options).await;
    let first = one.admin(Version::Http1);
    first.push_image("team/app", "v1", &Image::random()).await;
    let target = "/v2/team/app/manifests/v1";
    // Of nobody in particular, whom both replicas know.
    let here = one.admin(Version::Http1).anonymous();
    let token = here.fetch_token(&["repository:team/app:pull"]).await;
    let token = token.expect_status(200).json();
    let token = token["token"].as_str().expect("a token");
    let (here, there) = (
        here.with_token(token),
        two.admin(Version::Http1).with_token(token),
    );
    for round in 0..4 {
        let (words, status, other) = match round % 2 {
            0 => ("grant anonymous reader on team", 200, 401),
            _ => ("revoke anonymous reader on team", 401, 200),
        };
        assert_eq!(there.get(target).send().await.status, other);
        says(&wharf(&one, words).await, 0);
        let changed = Instant::now();
        assert_eq!(
            here.get(target).send().await.status,
            status,
            "at once where it was made"
        );
        loop {
            let answer = there.get(target).send().await.status;
            if answer == status {
                break;
            }
            assert_eq!(answer, other);
            assert!(changed.elapsed() < PATIENCE, "{words} was never heard of");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        eprintln!(
            "{words}: on the other replica after {:?}",
            changed.elapsed()
        );
    }
}

/// What rows and configuration grant is one list, and says where each line is from.
#[tokio::test]
async fn grants_of_the_configuration_are_bindings_too() {
    let options = TestOptions {
        grants: vec![("bob", "reader", "team")],
        ..nobodies()
    };
    let server = TestServer::start(options).await;
    grant(&server, "bob", "writer", "team/app", None).await;
    let policy = server.app().registry.access.policy();
    let bob = Subject::User("bob".into());
    let told: Vec<String> = policy
        .bindings()
        .iter()
        .filter(|binding| binding.subject == bob)
        .map(|binding: &Binding| format!("{binding}: {}", binding.origin))
        .collect();
    assert_eq!(
        told,
        [
            "bob is reader on team: configuration: [[access.grant]]",
            "bob is writer on team/app: granted by operator",
        ]
    );
}
