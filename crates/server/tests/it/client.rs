//! Commands that talk to a registry elsewhere, or to the one on this machine: contexts, repositories, tags.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use wharf_testkit::{Image, Process, TestOptions, Version};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");

/// A user with a home folder of their own.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self) -> PathBuf {
        self.0.path().join("wharf/contexts.toml")
    }

    /// Runs a command off the runtime, so that a server in this process goes on answering.
    async fn says(&self, args: &[&str], input: &str) -> Output {
        let mut command = Command::new(WHARF);
        command
            .args(args)
            .current_dir(self.0.path())
            .env("XDG_CONFIG_HOME", self.0.path())
            .env("DOCKER_CONFIG", self.0.path())
            .env_remove("WHARF_CONTEXT")
            .env_remove("WHARF_CONTEXTS")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let input = input.to_owned();
        let run = move || {
            let mut child = command.spawn().unwrap();
            // A command that refuses may not read it.
            let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
            child.wait_with_output().unwrap()
        };
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    async fn run(&self, args: &[&str]) -> String {
        expect(&self.says(args, "").await, 0)
    }

    async fn fails(&self, args: &[&str]) -> String {
        let output = self.says(args, "").await;
        assert_ne!(output.status.code(), Some(0), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

#[track_caller]
fn expect(output: &Output, code: i32) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}{errors}");
    text
}

async fn start(options: TestOptions) -> Process {
    Process::start(Path::new(WHARF), options).await
}

#[tokio::test]
async fn one_signs_in_once_and_commands_talk_to_that_registry() {
    let server = start(TestOptions::default()).await;
    let admin = server.admin(Version::Http1);
    let image = Image::random();
    admin.push_image("team/app", "1.0", &image).await;
    admin.push_image("team/app", "1.1", &image).await;
    let host = admin.authority().to_owned();
    let desk = Desk::new();

    let login = [
        "login",
        &host,
        "-u",
        "admin",
        "--password-stdin",
        "--context",
        "here",
    ];
    let wrong = desk.says(&login, "wrong password\n").await;
    assert_ne!(wrong.status.code(), Some(0));
    assert!(!desk.file().exists(), "a wrong password is not kept");
    let told = expect(&desk.says(&login, "correct-horse-battery\n").await, 0);
    assert!(told.contains("as admin") && told.contains("here"), "{told}");
    let mode = std::fs::metadata(desk.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    assert_eq!(desk.run(&["whoami"]).await, "admin (user)\n");
    assert_eq!(desk.run(&["repo", "list"]).await, "team/app\n");
    let tags = desk.run(&["tag", "list", "team/app"]).await;
    assert!(
        tags.contains("1.0") && tags.contains(image.manifest.digest.as_str()),
        "{tags}"
    );
    let json: serde_json::Value =
        serde_json::from_str(&desk.run(&["tag", "list", "team/app", "--json"]).await).unwrap();
    assert_eq!(json[1]["name"], "1.1");

    desk.run(&["tag", "rm", "team/app:1.0", "team/app:1.1"])
        .await;
    assert!(!desk.run(&["tag", "list", "team/app"]).await.contains("1.0"));
    let history = desk.run(&["tag", "history", "team/app:1.0"]).await;
    assert!(
        history.contains("version 2") && history.contains("nowhere"),
        "{history}"
    );
    let back = desk.run(&["tag", "restore", "team/app:1.0"]).await;
    assert!(back.contains("Tag 1.0 stands at"), "{back}");
    let refused = desk.fails(&["tag", "rm", "team/app:none"]).await;
    assert!(
        refused.contains("no tag none") && refused.contains("help:"),
        "{refused}"
    );
    let refused = desk.fails(&["repo", "rm", "team/app"]).await;
    assert!(refused.contains("--yes"), "{refused}");
    desk.run(&["repo", "rm", "team/app", "--yes"]).await;
    let digest = image.manifest.digest.to_string();
    let history = desk.run(&["repo", "history", "team/app"]).await;
    assert!(history.contains("can be restored until"), "{history}");
    let back = desk
        .run(&["manifest", "restore", &format!("team/app@{digest}")])
        .await;
    assert!(back.contains("Restored manifest"), "{back}");

    let list = desk.run(&["context", "list"]).await;
    assert!(list.starts_with("* here"), "{list}");
    let list = desk.run(&["context", "list", "--json"]).await;
    assert!(
        list.contains("\"in_use\": true") && !list.contains("horse"),
        "{list}"
    );
    assert!(
        desk.fails(&["context", "use", "nowhere"])
            .await
            .contains("nowhere")
    );
    desk.run(&["context", "use", "-"]).await;
    assert!(
        desk.fails(&["tag", "list", "team/app"])
            .await
            .contains("wharf-data")
    );
    assert_eq!(
        desk.run(&["whoami", "--context", "here"]).await,
        "admin (user)\n"
    );
    desk.run(&["logout", "here"]).await;
    assert!(
        desk.fails(&["whoami", "--context", "here"])
            .await
            .contains("no context")
    );
    let kept = std::fs::read_to_string(desk.file()).unwrap();
    assert!(!kept.contains("horse"), "{kept}");
}

/// The script asks the program, which knows the contexts of whoever types.
#[tokio::test]
async fn names_of_contexts_are_completed() {
    let desk = Desk::new();
    let script = desk.run(&["completions", "bash"]).await;
    let folder = desk.file().parent().unwrap().to_owned();
    std::fs::create_dir_all(folder).unwrap();
    let context = |name: &str| {
        format!(
            "[context.{name}]\nurl = \"https://reg.example\"\nuser = \"alice\"\npassword = \"hidden away\"\n"
        )
    };
    std::fs::write(desk.file(), context("here") + &context("there")).unwrap();
    let path = Path::new(WHARF).parent().unwrap();
    let path = format!("{}:{}", path.display(), std::env::var("PATH").unwrap());
    // As bash does when TAB is hit behind these words.
    let ask = format!(
        "{script}\nCOMP_WORDS=(wharf user list --context \"$1\"); COMP_CWORD=4; _wharf wharf \"$1\" --context; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    for (typed, expected) in [("", "here\nthere\n"), ("th", "there\n")] {
        // Larger than one argument may be.
        let file = desk.0.path().join("ask");
        std::fs::write(&file, &ask).unwrap();
        let mut command = Command::new("bash");
        command
            .arg(&file)
            .arg(typed)
            .env("PATH", &path)
            .env("XDG_CONFIG_HOME", desk.0.path())
            .env_remove("WHARF_CONTEXTS");
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            told,
            expected,
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[tokio::test]
async fn a_certificate_is_trusted_only_by_its_authority() {
    let server = start(TestOptions {
        tls: true,
        ..TestOptions::default()
    })
    .await;
    let host = server.admin(Version::Http1).authority().to_owned();
    let desk = Desk::new();
    let url = format!("https://{host}");
    let login = ["login", &url, "-u", "admin", "--password-stdin"];
    let refused = desk.says(&login, "correct-horse-battery\n").await;
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("--authority"), "{text}");
    assert!(!desk.file().exists());
}

#[tokio::test]
async fn on_the_machine_itself_no_password_is_asked_for() {
    let mut server = start(TestOptions {
        on_file: true,
        ..TestOptions::default()
    })
    .await;
    let admin = server.admin(Version::Http1);
    admin.push_image("team/app", "1.0", &Image::random()).await;
    admin.push_image("team/app", "1.1", &Image::random()).await;
    let data = server.folder().join("data");
    let data = data.to_str().unwrap();
    let desk = Desk::new();
    assert_eq!(
        desk.run(&["whoami", "--data", data]).await,
        "operator (operator)\n"
    );
    desk.run(&["tag", "rm", "team/app:1.0", "--data", data])
        .await;

    // And on a stopped one, which the command opens for itself.
    server.terminate().await;
    let tags = desk.run(&["tag", "list", "team/app", "--data", data]).await;
    assert!(tags.contains("1.1") && !tags.contains("1.0"), "{tags}");
    desk.run(&["tag", "rm", "team/app:1.1", "--data", data])
        .await;
    let history = desk
        .run(&["tag", "history", "team/app:1.1", "--data", data])
        .await;
    assert!(history.contains("by operator"), "{history}");
}

/// Everything about who can sign in and who may do what, from elsewhere with a context, and on the machine itself: the same
/// words, and the same output but for who did it.
#[tokio::test]
async fn people_and_rights_are_managed_from_elsewhere_as_on_the_machine() {
    let server = start(TestOptions::default()).await;
    let admin = server.admin(Version::Http1);
    admin.push_image("team/app", "1.0", &Image::random()).await;
    let host = admin.authority().to_owned();
    let data = server.folder().join("data");
    let data = data.to_str().unwrap();
    let desk = Desk::new();
    let login = [
        "login",
        &host,
        "-u",
        "admin",
        "--password-stdin",
        "--context",
        "here",
    ];
    expect(&desk.says(&login, "correct-horse-battery\n").await, 0);
    let mut told = Vec::new();
    for (at, who) in [
        (["--context", "here"], "admin"),
        (["--data", data], "operator"),
    ] {
        let says = async |words: &str| {
            let mut args: Vec<&str> = words.split(' ').collect();
            args.extend(at);
            desk.run(&args).await
        };
        let password = says("user create alice").await;
        let alice = admin.clone().with_basic("alice", password.trim_end());
        alice.get("/api/v1/me").send().await.expect_status(200);
        assert_eq!(says("grant alice maintainer on team").await, "Done.\n");
        assert_eq!(
            says("grant alice maintainer on team").await,
            "It was so already.\n"
        );
        says("group create dev").await;
        says("group add-member dev alice").await;
        says("role set scanner pull,catalog").await;
        says("namespace set library public").await;
        let secret = says("robot create team/app+ci --role writer --expires 1d").await;
        let robot = admin.clone().with_basic("team/app+ci", secret.trim_end());
        robot.push_image("team/app", "2.0", &Image::random()).await;
        let secret = says("robot rotate team/app+ci --overlap 0s").await;
        robot
            .get("/v2/team/app/tags/list")
            .send()
            .await
            .expect_status(401);
        let robot = admin.clone().with_basic("team/app+ci", secret.trim_end());
        robot
            .get("/v2/team/app/tags/list")
            .send()
            .await
            .expect_status(200);
        let manifest = says("pull-secret create --namespace team --host reg.example").await;
        assert!(
            manifest.contains("kubernetes.io/dockerconfigjson"),
            "{manifest}"
        );

        let list = says("pull-secret list").await;
        assert!(
            list.contains("team+pull-cluster") && list.contains("good"),
            "{list}"
        );
        let robots: serde_json::Value =
            serde_json::from_str(&says("robot list --json").await).unwrap();
        let names: Vec<_> = robots
            .as_array()
            .unwrap()
            .iter()
            .map(|one| &one["name"])
            .collect();
        assert_eq!(names, ["team+pull-cluster", "team/app+ci"]);
        assert_eq!(robots[1]["created_by"], who);
        let tokens = says("token list alice --json").await;
        assert_eq!(tokens, "[]\n");
        let jobs: serde_json::Value = serde_json::from_str(&says("job list --json").await).unwrap();
        let collects = jobs
            .as_array()
            .unwrap()
            .iter()
            .find(|job| job["kind"] == "storage.sweep");
        let id = collects.expect("a schedule")["id"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(says(&format!("job show {id}")).await.contains("payload:"));
        let why = says("access explain team/app+ci push team/app").await;
        assert!(
            why.starts_with("Yes: team/app+ci may push to team/app."),
            "{why}"
        );
        let lists = [
            says("access list --repo team/app").await,
            says("group list").await,
            says("role list").await,
            says("namespace list").await,
            says("group list --json").await,
        ];
        told.push(lists.map(|text| text.replace(&format!("granted by {who}"), "granted by WHO")));

        let mut args = vec!["robot", "create", "team+ci", "--expires", "400d"];
        args.extend(at);
        let refused = desk.fails(&args).await;
        assert!(refused.contains("auth.longest_lifetime"), "{refused}");
        says("revoke alice all on team").await;
        for words in [
            "user disable alice",
            "user enable alice",
            "user remove alice",
            "robot disable team/app+ci",
            "robot enable team/app+ci",
            "robot remove team/app+ci",
            "robot remove team+pull-cluster",
            "group remove dev",
            "role remove scanner",
            "namespace remove library",
        ] {
            assert_eq!(says(words).await, "Done.\n", "{words}");
        }
        let users = says("user list").await;
        assert!(
            users.contains("admin") && !users.contains("alice"),
            "{users}"
        );
    }
    assert_eq!(told[0], told[1]);
    assert!(told[0][0].contains("granted by WHO"), "{told:?}");
    // Whose the context is decides what is done.
    let make = ["user", "create", "bob", "--password-file", "-"];
    expect(&desk.says(&make, "a password of bob\n").await, 0);
    let login = [
        "login",
        &host,
        "-u",
        "bob",
        "--password-stdin",
        "--context",
        "bob",
    ];
    expect(&desk.says(&login, "a password of bob\n").await, 0);
    let refused = desk.fails(&["user", "list"]).await;
    assert!(refused.contains("bob may not administer"), "{refused}");
    let own = desk
        .run(&["token", "create", "bob", "--name", "laptop"])
        .await;
    let own = admin.with_basic("bob", own.trim_end());
    own.get("/api/v1/me").send().await.expect_status(200);
}

/// The way of docs/how-to/audit.md: an auditor elsewhere, by a token, gets what the machine itself gets.
#[tokio::test]
async fn the_audit_log_is_read_and_checked_from_elsewhere_as_on_the_machine() {
    let mut server = start(TestOptions {
        on_file: true,
        files: true,
        ..TestOptions::default()
    })
    .await;
    let admin = server.admin(Version::Http1);
    admin.push_image("team/app", "1.0", &Image::random()).await;
    admin.push_image("other", "1.0", &Image::random()).await;
    let host = admin.authority().to_owned();
    let data = server.folder().join("data");
    let data = data.to_str().unwrap();
    let desk = Desk::new();
    // Of everything, and of one namespace; each signs in with an API token.
    for (name, place) in [("alice", None), ("bob", Some("team"))] {
        let make = [
            "user",
            "create",
            name,
            "--password-file",
            "-",
            "--data",
            data,
        ];
        expect(&desk.says(&make, "a looking glass\n").await, 0);
        let mut grant = vec!["grant", name, "auditor"];
        grant.extend(place.iter().flat_map(|place| ["on", place]));
        grant.extend(["--data", data]);
        desk.run(&grant).await;
        let own = format!("own-{name}");
        let login = [
            "login",
            &host,
            "-u",
            name,
            "--password-stdin",
            "--context",
            &own,
        ];
        expect(&desk.says(&login, "a looking glass\n").await, 0);
        let token = [
            "token",
            "create",
            name,
            "--name",
            "audit",
            "--context",
            &own,
        ];
        let token = desk.run(&token).await;
        let login = [
            "login",
            &host,
            "-u",
            name,
            "--password-stdin",
            "--context",
            name,
        ];
        expect(&desk.says(&login, &token).await, 0);
    }
    let (here, there) = (["--data", data], ["--context", "alice"]);
    let run = async |words: &[&str], at: &[&str]| desk.run(&[words, at].concat()).await;
    let tags = ["audit", "export", "--action", "tag"];
    let lines = run(&tags, &here).await;
    assert_eq!(lines.lines().count(), 2, "{lines}");
    assert_eq!(run(&tags, &there).await, lines);
    let listed = run(&["audit", "list", "--namespace", "team"], &there).await;
    assert!(listed.contains("admin tag.move team/app:1.0"), "{listed}");
    assert_eq!(
        run(&["audit", "list", "-n", "1"], &there)
            .await
            .lines()
            .count(),
        1
    );
    let none = run(&["audit", "list", "--action", "nothing"], &there).await;
    assert_eq!(none, "Nothing of that kind is in the audit log.\n");
    let file = desk.0.path().join("audit.jsonl");
    let to_file = [
        "audit",
        "export",
        "--action",
        "tag",
        "--output",
        file.to_str().unwrap(),
    ];
    assert!(
        run(&to_file, &there)
            .await
            .starts_with("Wrote 2 entries to ")
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), lines);
    // Who read, by which credential, is in it.
    let reads = run(
        &["audit", "list", "--json", "--action", "audit.read"],
        &here,
    )
    .await;
    let reads = reads
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let by = |entry: &serde_json::Value| entry["principal"].as_str().unwrap().to_owned();
    let alice: Vec<_> = reads.filter(|entry| by(entry) == "alice").collect();
    assert_eq!(alice.len(), 5, "{alice:?}");
    assert!(
        alice
            .iter()
            .all(|entry| entry["credential"].as_str().unwrap().len() == 16),
        "{alice:?}"
    );

    // Whole from both sides; an end that was noted is found, another one is not.
    let told = run(&["audit", "verify"], &there).await;
    let end = told
        .lines()
        .find_map(|line| line.strip_prefix("Its end, to be kept elsewhere: "));
    let end = end.expect(&told).to_owned();
    for at in [&here, &there] {
        let told = run(&["audit", "verify", "--expect", &end], at).await;
        assert!(told.contains("The audit log is whole."), "{told}");
        let place = end.split(':').next().unwrap();
        let other = format!("{place}:{}", "ab".repeat(32));
        let args = [&["audit", "verify", "--expect", &other][..], at].concat();
        let told = expect(&desk.says(&args, "").await, 4);
        assert!(
            told.contains(&format!("Entry {place} is not the entry that was noted")),
            "{told}"
        );
        let wrong = desk
            .fails(&[&["audit", "verify", "--expect", "12:ab"][..], at].concat())
            .await;
        assert!(
            wrong.contains("expect: write it as an earlier check told it"),
            "{wrong}"
        );
    }

    // The auditor of a namespace sees what is below it, and is told what they may not do and who may.
    let bob = ["--context", "bob"];
    let lines = run(&["audit", "export"], &bob).await;
    let mut places = lines.lines().map(|line| {
        let entry: serde_json::Value = serde_json::from_str(line).unwrap();
        entry["repository"].as_str().unwrap().to_owned()
    });
    assert!(!lines.is_empty() && places.all(|on| on == "team" || on.starts_with("team/")));
    let refused = desk.fails(&["audit", "verify", "--context", "bob"]).await;
    assert!(
        refused.contains("you may read those of some namespaces")
            && refused.contains("wharf grant NAME auditor"),
        "{refused}"
    );

    // And on a stopped one, which the command opens for itself.
    server.terminate().await;
    let lines = run(&tags, &here).await;
    assert_eq!(lines.lines().count(), 2);
    let told = run(&["audit", "verify", "--expect", &end], &here).await;
    assert!(told.contains("The audit log is whole."), "{told}");
}

/// A server that gives one page and no more.
#[tokio::test]
async fn an_export_that_breaks_off_leaves_no_file() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let pages = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for head in [
            "HTTP/1.1 200 OK\r\nContent-Type: application/jsonl\r\nLink: <?after=YQ>; rel=\"next\"",
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json",
        ] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4_096];
            let read = std::io::Read::read(&mut stream, &mut request).unwrap();
            asked.push(String::from_utf8_lossy(&request[..read]).into_owned());
            let answer = format!("{head}\r\nContent-Length: 10\r\n\r\n{{\"seq\": 1}}");
            stream.write_all(answer.as_bytes()).unwrap();
        }
        asked
    });
    let desk = Desk::new();
    std::fs::create_dir_all(desk.file().parent().unwrap()).unwrap();
    let context = format!("[context.here]\nurl = \"{url}\"\nuser = \"alice\"\npassword = \"x\"\n");
    std::fs::write(desk.file(), context).unwrap();
    let file = desk.0.path().join("audit.jsonl");
    let export = [
        "audit",
        "export",
        "--output",
        file.to_str().unwrap(),
        "--context",
        "here",
    ];
    let told = desk.fails(&export).await;
    assert!(told.contains("status 503"), "{told}");
    assert!(!file.exists());
    let asked = pages.join().unwrap();
    assert!(
        asked[0].contains("n=1000 ") && asked[1].contains("&after=YQ "),
        "{asked:?}"
    );
}

/// Lists and histories go on by themselves over as many pages as there are; a page has 1,000 entries at most.
#[tokio::test]
async fn what_is_longer_than_a_page_is_shown_whole() {
    const TAGS: usize = 1_120;
    let server = start(TestOptions::default()).await;
    let admin = server.admin(Version::Http1);
    let image = Image::random();
    admin.push_image("team/app", "t0", &image).await;
    for block in (1..TAGS).collect::<Vec<_>>().chunks(40) {
        let tags = block.iter().map(|at| format!("tag=t{at}"));
        let query = tags.collect::<Vec<_>>().join("&");
        let reference = format!("{}?{query}", image.manifest.digest);
        admin
            .push_manifest("team/app", &reference, &image.manifest)
            .await;
    }
    let other = Image::random();
    admin.push_image("team/app", "t0", &other).await;
    let gone = format!("/v2/team/app/manifests/{}", image.manifest.digest);
    admin.delete(&gone).send().await.expect_status(202);

    let desk = Desk::new();
    let host = admin.authority().to_owned();
    let login = ["login", &host, "--username", "admin", "--password-stdin"];
    expect(&desk.says(&login, "correct-horse-battery\n").await, 0);
    let history = async |limit: &str| {
        desk.run(&["repo", "history", "team/app", "--limit", limit])
            .await
    };
    let moves = |shown: &str| shown.matches("version ").count();
    let whole = history("100000").await;
    // Each was made, and left by the first move or by the deletion.
    assert_eq!(moves(&whole), 2 * TAGS);
    for at in 0..TAGS {
        let line = format!(" t{at} ");
        assert_eq!(whole.matches(&line).count(), 2, "t{at}");
    }
    assert_eq!(whole.matches("can be restored until").count(), 1);
    assert_eq!(moves(&history("1500").await), 1_500);
    let tags = desk.run(&["tag", "list", "team/app"]).await;
    assert_eq!(tags.lines().count(), 2);
}

/// A robot's life and networks change without another secret, and what commands tell is there for programs too.
#[tokio::test]
async fn robots_are_changed_and_programs_read_what_commands_tell() {
    let server = start(TestOptions::default()).await;
    let admin = server.admin(Version::Http1);
    let data = server.folder().join("data");
    let desk = Desk::new();
    let at = ["--data", data.to_str().unwrap()];
    let says = async |words: &str| {
        let mut args: Vec<&str> = words.split(' ').collect();
        args.extend(at);
        desk.run(&args).await
    };
    let json = async |words: &str| -> serde_json::Value {
        serde_json::from_str(&says(&format!("{words} --json")).await).unwrap()
    };
    let made = json("robot create team/a+ci --role writer").await;
    assert_eq!(made["principal"], "team/a+ci");
    let secret = made["secret"].as_str().unwrap();
    let robot = admin.clone().with_basic("team/a+ci", secret);
    let tags = "/v2/team/a/tags/list";
    robot.get(tags).send().await.expect_status(404);

    says("robot set team/a+ci --from 192.0.2.0/24 --expires 2d").await;
    robot.get(tags).send().await.expect_status(401);
    let shown = json("robot list").await;
    assert_eq!(shown[0]["networks"], serde_json::json!(["192.0.2.0/24"]));
    // What is not said stays.
    says("robot set team/a+ci --from-everywhere").await;
    robot.get(tags).send().await.expect_status(404);
    let later = json("robot list").await;
    assert_eq!(later[0]["networks"], serde_json::json!([]));
    assert_eq!(later[0]["expires_at"], shown[0]["expires_at"]);
    let set = ["robot", "set", "team/a+ci"];
    assert!(desk.fails(&set).await.contains("--expires"));
    let both = ["--from", "192.0.2.0/24", "--from-everywhere"];
    let both = desk.fails(&[&set[..], &both].concat()).await;
    assert!(both.contains("--from-everywhere"), "{both}");

    let other = json("robot rotate team/a+ci").await;
    assert!(other["id"] != made["id"] && other["secret"].is_string());
    says("user create alice").await;
    let token = json("token create alice --name t").await;
    assert_eq!(token["principal"], "alice");
    admin.push_image("team/a", "v1", &Image::random()).await;
    for command in ["repo history team/a", "tag history team/a:v1"] {
        let told = json(command).await;
        assert_eq!(told["moves"][0]["tag"], "v1", "{told}");
    }
    let whole = json("audit verify").await;
    assert_eq!(whole["whole"], true, "{whole}");
}
