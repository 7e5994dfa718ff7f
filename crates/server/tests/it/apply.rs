//! `wharf apply`: rights in a file, over the admin socket and over the network.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};
use wharf_testkit::{Client, Process, TestOptions, TestServer, Version};

use crate::api_support::{get, problem, start};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");

const TEAM: &str = r#"
[[namespace]]
path = "team/a"
visibility = "internal"

[[group]]
name = "developers"
members = ["alice", "team/a+ci"]

[[robot]]
name = "team/a+ci"
lifetime = "30d"

[[binding]]
who = "group:developers"
role = "writer"
on = "team/a"
expires = "2099-12-31"
tags = "v*"
"#;

/// Runs a command in the server's folder, with no context and nobody at the terminal.
async fn wharf(server: &Process, arguments: &[&str]) -> Output {
    let mut command = std::process::Command::new(WHARF);
    command
        .args(arguments)
        .current_dir(server.folder())
        .env("XDG_CONFIG_HOME", server.folder())
        .stdin(std::process::Stdio::null());
    tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap()
}

#[track_caller]
fn good(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn bad(output: &Output, code: i32) -> String {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn a_file_is_shown_applied_once_and_pruned_on_demand() {
    let server = Process::start(Path::new(WHARF), TestOptions::default()).await;
    let file = server.folder().join("access.toml");
    std::fs::write(&file, TEAM).unwrap();
    let data = ["--data", "data"];
    let apply = async |more: &[&str]| {
        let arguments = [&["apply", "-f", "access.toml"], more, &data].concat();
        wharf(&server, &arguments).await
    };
    let shown = good(&apply(&["--dry-run"]).await);
    assert_eq!(
        shown,
        "+ namespace team/a: internal\n+ group developers\n+ robot team/a+ci\n+ alice in group developers\n\
         + team/a+ci in group developers\n\
         + group:developers is writer on team/a (until 2100-01-01 00:00:00Z, tags v*)\n\n6 would be added.\n"
    );
    // Nothing was done.
    assert_eq!(good(&apply(&["--dry-run"]).await), shown);
    let groups = good(&wharf(&server, &[&["group", "list"][..], &data].concat()).await);
    assert!(!groups.contains("developers"), "{groups}");

    let done = good(&apply(&[]).await);
    assert!(done.contains("Done: 6 added.\n"), "{done}");
    let line = done
        .lines()
        .find(|line| line.starts_with("  team/a+ci"))
        .unwrap();
    let secret = line.split_whitespace().nth(1).unwrap();
    assert!(secret.starts_with("wharf_"), "{line}");
    let robot = server.admin(Version::Http1).with_basic("team/a+ci", secret);
    let me = get(&robot, "/api/v1/me").await;
    assert_eq!(me["name"], "team/a+ci", "{me}");
    let list = robot.get("/v2/team/a/app/manifests/v1").send().await;
    list.expect_status(404);

    for more in [
        &[][..],
        &["--dry-run"],
        &["--prune"],
        &["--prune", "--dry-run"],
    ] {
        assert_eq!(good(&apply(more).await), "Nothing to do.\n", "{more:?}");
    }
    get(&robot, "/api/v1/me").await;

    // What is exported says the same.
    let exported = good(&wharf(&server, &[&["access", "export"][..], &data].concat()).await);
    std::fs::write(server.folder().join("exported.toml"), &exported).unwrap();
    let again = ["apply", "-f", "exported.toml", "--prune"];
    let again = wharf(&server, &[&again[..], &data].concat()).await;
    assert_eq!(good(&again), "Nothing to do.\n", "{exported}");

    // A shorter file takes nothing away unless that is asked for, listed and agreed to.
    let shorter = TEAM
        .replace("\"alice\", ", "")
        .replace("internal", "public");
    std::fs::write(&file, shorter).unwrap();
    let plan = "- alice in group developers\n~ namespace team/a: internal → public\n";
    let shown = good(&apply(&["--dry-run", "--prune"]).await);
    assert_eq!(
        shown,
        format!("{plan}\n1 would be removed, 1 would be changed.\n")
    );
    let asked = bad(&apply(&["--prune"]).await, 2);
    assert!(
        asked.starts_with(plan) && asked.contains("--yes"),
        "{asked}"
    );
    let done = good(&apply(&[]).await);
    assert_eq!(
        done,
        "~ namespace team/a: internal → public\nDone: 1 changed.\n"
    );
    let done = good(&apply(&["--prune", "--yes", "--json"]).await);
    let done: Value = serde_json::from_str(&done).unwrap();
    assert_eq!(
        done["steps"],
        json!([{ "act": "remove", "sort": "member", "text": "alice in group developers", "done": true }])
    );
    assert_eq!(good(&apply(&["--prune"]).await), "Nothing to do.\n");
}

#[tokio::test]
async fn secrets_are_written_where_they_are_wanted_and_mistakes_name_their_line() {
    let server = Process::start(Path::new(WHARF), TestOptions::default()).await;
    let write = |name: &str, text: &str| std::fs::write(server.folder().join(name), text).unwrap();
    write(
        "robots.toml",
        "[[robot]]\nname = \"team/a+ci\"\n[[robot]]\nname = \"team/b+ci\"\n",
    );
    let apply = async |more: &[&str]| {
        let arguments = [&["apply", "--data", "data"], more].concat();
        wharf(&server, &arguments).await
    };
    let done = good(&apply(&["-f", "robots.toml", "--secrets", "new.txt"]).await);
    assert!(
        done.contains("The secrets of 2 robots are in new.txt."),
        "{done}"
    );
    assert!(!done.contains("wharf_"), "{done}");
    let path = server.folder().join("new.txt");
    let written = std::fs::read_to_string(&path).unwrap();
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    for line in written.lines() {
        let (name, secret) = line.split_once(' ').unwrap();
        let robot = server.admin(Version::Http1).with_basic(name, secret);
        assert_eq!(get(&robot, "/api/v1/me").await["name"], name);
    }
    assert_eq!(written.lines().count(), 2);
    // A file that is there is not written over, and nothing is done.
    write("more.toml", "[[robot]]\nname = \"team/c+ci\"\n");
    let refused = bad(
        &apply(&["-f", "more.toml", "--secrets", "new.txt"]).await,
        2,
    );
    assert!(
        refused.contains("name a file that is not there"),
        "{refused}"
    );
    let plan = good(&apply(&["-f", "more.toml", "--dry-run"]).await);
    assert!(plan.starts_with("+ robot team/c+ci\n"), "{plan}");

    write(
        "wrong.toml",
        "[[binding]]\nwho = \"alice\"\nroll = \"reader\"\n",
    );
    let wrong = bad(&apply(&["-f", "wrong.toml"]).await, 2);
    assert_eq!(
        wrong,
        "error: wrong.toml:1: this `[[binding]]` lacks `role`\n\
         error: wrong.toml:3: `roll` in `[[binding]]` is unknown\n  help: did you mean `role`?\n"
    );
    write(
        "wrong.toml",
        "[[binding]]\nwho = \"alice\"\nrole = \"raeder\"\n",
    );
    let wrong = bad(&apply(&["-f", "wrong.toml"]).await, 2);
    assert!(wrong.contains("there is no role \"raeder\""), "{wrong}");
    let nothing = bad(&apply(&["-f", "none.toml"]).await, 2);
    assert!(nothing.contains("none.toml: "), "{nothing}");
}

#[tokio::test]
async fn with_a_context_the_file_is_applied_elsewhere() {
    let server = Process::start(Path::new(WHARF), TestOptions::default()).await;
    let home = tempfile::tempdir().unwrap();
    let says = async |arguments: &[&str], input: &'static str| {
        let mut command = std::process::Command::new(WHARF);
        command
            .args(arguments)
            .current_dir(home.path())
            .env("XDG_CONFIG_HOME", home.path())
            .env_remove("WHARF_CONTEXT")
            .env_remove("WHARF_CONTEXTS")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let run = move || {
            use std::io::Write as _;
            let mut child = command.spawn().unwrap();
            let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
            child.wait_with_output().unwrap()
        };
        good(&tokio::task::spawn_blocking(run).await.unwrap())
    };
    let host = server.admin(Version::Http1).authority().to_owned();
    let login = ["login", &host, "-u", "admin", "--password-stdin"];
    says(
        &[&login[..], &["--context", "there"]].concat(),
        "correct-horse-battery\n",
    )
    .await;
    // From standard input.
    let apply = ["apply", "-f", "-", "--context", "there"];
    let done = says(&apply, TEAM).await;
    assert!(done.contains("Done: 6 added.\n"), "{done}");
    assert_eq!(says(&apply, TEAM).await, "Nothing to do.\n");
    let groups = get(&server.admin(Version::Http1), "/api/v1/groups").await;
    assert!(groups.to_string().contains("developers"), "{groups}");
}

/// What is wanted, with more.
async fn ask(client: &Client, body: Value) -> wharf_testkit::client::Response {
    let request = client.post("/api/v1/apply");
    let request = request.header("content-type", "application/json");
    request.body(body.to_string()).send().await
}

fn binding(who: &str, role: &str, on: &str) -> Value {
    json!({ "who": who, "role": role, "on": on })
}

#[tokio::test]
async fn over_the_network_nobody_applies_more_than_they_may() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    let user = |name: &str| admin.clone().with_basic(name, "x");
    let setup = json!({ "bindings": [binding("guest", "owner", "team/a"), binding("guest", "reader", "other")] });
    let done = ask(&admin, setup).await.expect_status(200).json();
    assert_eq!(done["steps"].as_array().unwrap().len(), 2, "{done}");

    // An owner, in what they own.
    let guest = user("guest");
    let wish = json!({ "bindings": [binding("reader", "writer", "team/a")], "dry_run": true });
    let plan = ask(&guest, wish.clone()).await.expect_status(200).json();
    assert_eq!(plan["steps"][0]["text"], "reader is writer on team/a");
    assert_eq!(plan["steps"][0]["done"], false);
    for (name, wish) in [
        (
            "guest",
            json!({ "bindings": [binding("reader", "writer", "other")] }),
        ),
        (
            "guest",
            json!({ "bindings": [binding("reader", "admin", "team/a")] }),
        ),
        ("guest", json!({ "groups": [{ "name": "g" }] })),
        ("guest", json!({ "robots": [{ "name": "other+ci" }] })),
        (
            "guest",
            json!({ "namespaces": [{ "path": "other", "visibility": "public" }] }),
        ),
        ("maintainer", wish.clone()),
    ] {
        problem(ask(&user(name), wish).await, 403, "forbidden");
    }
    problem(
        ask(&admin.clone().anonymous(), wish.clone()).await,
        401,
        "unauthenticated",
    );
    problem(guest.get("/api/v1/apply").send().await, 403, "forbidden");
    let all = get(&admin, "/api/v1/apply").await;
    assert_eq!(all["bindings"].as_array().unwrap().len(), 2, "{all}");

    // Somebody changes rights after a look at the plan.
    let grant = admin
        .post("/api/v1/bindings")
        .header("content-type", "application/json");
    let grant = grant.body(binding("reader", "reader", "else").to_string());
    grant.send().await.expect_status(200);
    let mut late = wish.clone();
    late["dry_run"] = false.into();
    late["epoch"] = plan["epoch"].clone();
    let refused = problem(ask(&guest, late.clone()).await, 412, "changed");
    assert!(refused["detail"].as_str().unwrap().contains("run it again"));
    late.as_object_mut().unwrap().remove("epoch");
    let done = ask(&guest, late).await.expect_status(200).json();
    assert_eq!(done["steps"][0]["done"], true);

    // Stopped in the middle: what is done is told, with the secrets that nobody is told again.
    let wish = json!({
        "robots": [{ "name": "team/a+ci" }],
        "bindings": [binding("reader", "reader", "team/a")],
        "prune": true,
    });
    let stopped = ask(&guest, wish).await.expect_status(200).json();
    assert!(
        stopped["stopped"]
            .as_str()
            .unwrap()
            .contains("the last owner of team/a"),
        "{stopped}"
    );
    assert_eq!(stopped["robots"][0]["name"], "team/a+ci");
    for (field, wish) in [
        (
            "visibility",
            json!({ "namespaces": [{ "path": "a", "visibility": "open" }] }),
        ),
        (
            "members",
            json!({ "groups": [{ "name": "g", "members": ["a:b"] }] }),
        ),
        ("namespace", json!({ "namespace": [] })),
        (
            "networks",
            json!({ "bindings": [{ "who": "a", "role": "reader", "on": "", "networks": ["x"] }] }),
        ),
    ] {
        let body = problem(ask(&admin, wish).await, 400, "invalid");
        assert_eq!(body["field"], field, "{body}");
    }
}

#[tokio::test]
async fn what_the_configuration_grants_is_never_touched() {
    let server = TestServer::start(TestOptions {
        grants: vec![("alice", "reader", "team"), ("bob", "owner", "team")],
        ..TestOptions::default()
    })
    .await;
    let admin = server.admin(Version::Http1);
    let nothing = json!({ "prune": true });
    let done = ask(&admin, nothing).await.expect_status(200).json();
    assert_eq!(done["steps"], json!([]));
    let all = get(&admin, "/api/v1/apply").await;
    assert_eq!(all["bindings"], json!([]));
    let listed = get(&admin, "/api/v1/bindings?on=team").await;
    assert!(listed.to_string().contains("alice"), "{listed}");
}

/// Killed in the middle: what was done is there, all of it counts, and the same file once more ends at exactly that file.
#[tokio::test]
async fn a_file_that_a_kill_cut_off_is_finished_by_applying_it_again() {
    let mut server = Process::start(Path::new(WHARF), TestOptions::default()).await;
    let mut text = TEAM.to_owned();
    for n in 0..1_500 {
        text.push_str(&format!(
            "\n[[binding]]\nwho = \"u{n}\"\nrole = \"reader\"\non = \"team/a{}\"\n",
            n % 9
        ));
    }
    std::fs::write(server.folder().join("access.toml"), text).unwrap();
    let apply = ["apply", "-f", "access.toml", "--data", "data"];
    let mut command = std::process::Command::new(WHARF);
    command
        .args(apply)
        .current_dir(server.folder())
        .env("XDG_CONFIG_HOME", server.folder())
        .stdin(std::process::Stdio::null());
    let cut = tokio::task::spawn_blocking(move || command.output().unwrap());
    let begun = async || {
        let all = get(&server.admin(Version::Http1), "/api/v1/apply").await;
        all["bindings"].as_array().unwrap().len()
    };
    while begun().await < 20 {
        tokio::task::yield_now().await;
    }
    server.kill();
    let told = bad(&cut.await.unwrap(), 3);
    assert!(told.contains("run it again"), "{told}");

    server.again().await;
    let admin = server.admin(Version::Http1);
    let made = get(&admin, "/api/v1/apply").await["bindings"]
        .as_array()
        .unwrap()
        .len();
    assert!((20..1_501).contains(&made), "{made} of 1501 are there");
    let again = good(&wharf(&server, &apply).await);
    let rest = 1_501 - made;
    assert!(again.contains(&format!("Done: {rest} added.\n")), "{again}");
    let prune = [&apply[..], &["--prune"]].concat();
    assert_eq!(good(&wharf(&server, &prune).await), "Nothing to do.\n");
    // The robot was made, and nobody was told its secret.
    let rotate = ["robot", "rotate", "team/a+ci", "--data", "data"];
    let rotated = good(&wharf(&server, &rotate).await);
    assert!(rotated.contains("wharf_robot_"), "{rotated}");
}
