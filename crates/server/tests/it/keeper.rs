//! What somebody signed in with, as the programs that need it see it: `wharf login` by device, and `docker-credential-wharf` as
//! docker, podman, helm and oras run it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wharf_testkit::options::ADMIN_PASSWORD;
use wharf_testkit::{FakeTerminals, Fault, Image, TestOptions, TestServer, Version};

use crate::browser::Browser;

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");
const NOT_FOUND: &str = "credentials not found in native keychain\n";

/// A user with a home folder and a program folder of their own.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().expect("a folder"));
        std::fs::create_dir(desk.path("bin")).expect("a folder");
        symlink(WHARF, desk.path("bin/docker-credential-wharf")).expect("a link");
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("a file")
    }

    fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir(self.0.path())
            .env_clear()
            .env("HOME", self.0.path())
            .env("PATH", self.path("bin"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn wharf(&self, args: &[&str]) -> Output {
        ended(self.command(Path::new(WHARF), args), "")
    }

    /// As a client runs it.
    fn helper(&self, action: &str, input: &str) -> Output {
        let program = self.path("bin/docker-credential-wharf");
        ended(self.command(&program, &[action]), input)
    }

    fn start_helper(&self, input: &str) -> Child {
        let program = self.path("bin/docker-credential-wharf");
        started(self.command(&program, &["get"]), input)
    }

    fn get(&self, server: &str) -> (String, String) {
        let got: Value = serde_json::from_str(&good(&self.helper("get", server))).expect("JSON");
        assert_eq!(got["ServerURL"], server.trim());
        let text = |name: &str| got[name].as_str().expect("a text").to_owned();
        (text("Username"), text("Secret"))
    }

    /// Makes the access token older than it is.
    fn age(&self, seconds: i64) {
        let path = self.path(".config/wharf/credentials.toml");
        let lines = self.text(".config/wharf/credentials.toml");
        let lines = lines.lines().map(|line| match line.split_once(" = ") {
            Some((name @ ("from" | "ends"), value)) => {
                format!(
                    "{name} = {}\n",
                    value.parse::<i64>().expect("a number") - seconds
                )
            }
            _ => format!("{line}\n"),
        });
        std::fs::write(path, lines.collect::<String>()).expect("a file");
    }
}

fn started(mut command: Command, input: &str) -> Child {
    let mut child = command.spawn().expect("a program");
    // A program that refuses may not read it.
    let _ = child
        .stdin
        .take()
        .expect("its input")
        .write_all(input.as_bytes());
    child
}

fn ended(command: Command, input: &str) -> Output {
    started(command, input).wait_with_output().expect("its end")
}

#[track_caller]
fn good(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// The words of a client's error: on standard output, with 1.
#[track_caller]
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// Spec: OIDC-6.
#[test]
fn one_login_is_enough_for_the_commands_and_for_docker() {
    let (desk, server) = (Desk::new(), FakeTerminals::start());
    let host = server.host();
    std::fs::create_dir(desk.path(".docker")).unwrap();
    let before = "{\n\t\"psFormat\": \"x\",\n\t\"auths\": {}\n}";
    std::fs::write(desk.path(".docker/config.json"), before).unwrap();
    server.reply(&["authorization_pending"]);
    let output = desk.wharf(&["login", &host]);
    let told = good(&output);
    let shown = String::from_utf8_lossy(&output.stderr);
    assert!(
        shown.contains(&format!("{}/device?user_code=BCDF-GHJK", server.url)),
        "{shown}"
    );
    assert!(
        shown.contains("BCDF-GHJK") && shown.contains("10 min"),
        "{shown}"
    );
    assert!(
        told.contains(&format!("as alice; commands use context {host}")),
        "{told}"
    );
    assert!(
        told.contains("config.json names \"wharf\" under credHelpers"),
        "{told}"
    );
    assert!(
        !format!("{told}{shown}").contains("access-1")
            && !format!("{told}{shown}").contains("device-1")
    );
    let docker: Value = serde_json::from_str(&desk.text(".docker/config.json")).unwrap();
    assert_eq!(
        docker,
        json!({"psFormat": "x", "auths": {}, "credHelpers": {&host: "wharf"}})
    );
    for (file, mode) in [
        ("wharf/credentials.toml", 0o600),
        ("wharf/contexts.toml", 0o600),
        ("wharf", 0o700),
    ] {
        let found = std::fs::metadata(desk.path(".config").join(file)).unwrap();
        assert_eq!(found.permissions().mode() & 0o777, mode, "{file}");
    }
    assert!(
        !desk.text(".config/wharf/contexts.toml").contains("access"),
        "contexts hold no secrets"
    );

    assert_eq!(good(&desk.wharf(&["whoami"])), "alice (user)\n");
    assert_eq!(
        server.asked().last().unwrap().authorization.as_deref(),
        Some("Bearer access-1")
    );
    assert_eq!(desk.get(&host), ("alice".into(), "access-1".into()));
    let list = good(&desk.wharf(&["context", "list"]));
    assert!(
        list.starts_with(&format!("* {host}")) && list.contains(" terminal "),
        "{list}"
    );

    // A command whose token is not taken buys another one, and asks again.
    server.forget_access();
    assert_eq!(good(&desk.wharf(&["whoami"])), "alice (user)\n");
    assert_eq!(
        desk.get(&format!("https://{host}/v2/\n")),
        ("alice".into(), "access-2".into())
    );

    let told = good(&desk.wharf(&["logout"]));
    assert!(
        told.contains("is forgotten") && told.contains("no credential helper"),
        "{told}"
    );
    assert_eq!(server.ended(), 1);
    assert_eq!(refused(&desk.helper("get", &host)), NOT_FOUND);
    assert_eq!(desk.text(".docker/config.json"), format!("{before}\n"));
    assert!(
        !desk
            .text(".config/wharf/credentials.toml")
            .contains("alice")
    );
}

#[test]
fn a_login_says_what_stands_in_its_way_before_anybody_takes_trouble() {
    let (desk, server) = (Desk::new(), FakeTerminals::start());
    let host = server.host();
    let codes = || {
        server
            .asked()
            .iter()
            .filter(|asked| asked.what.ends_with("device/code"))
            .count()
    };
    let fails = |args: &[&str]| {
        let output = desk.wharf(args);
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    std::fs::create_dir(desk.path(".docker")).unwrap();
    let damaged = "{\n\"auths\": {";
    std::fs::write(desk.path(".docker/config.json"), damaged).unwrap();
    let told = fails(&["login", &host]);
    assert!(
        told.contains("config.json: it is no JSON object (line 2)") && told.contains("--no-docker"),
        "{told}"
    );
    assert_eq!(
        (codes(), desk.text(".docker/config.json").as_str()),
        (0, damaged)
    );
    good(&desk.wharf(&["login", &host, "--no-docker"]));
    assert_eq!(
        (codes(), desk.text(".docker/config.json").as_str()),
        (1, damaged)
    );

    std::fs::write(
        desk.path(".config/wharf/credentials.toml"),
        "damaged = 'hidden",
    )
    .unwrap();
    let told = fails(&["login", &host, "--no-docker"]);
    assert!(
        told.contains("credentials.toml is damaged") && !told.contains("hidden"),
        "{told}"
    );
    std::fs::remove_dir_all(desk.path(".config")).unwrap();
    // A home that cannot be written: root may write anywhere, but not into a file.
    std::fs::write(desk.path(".config"), "").unwrap();
    let told = fails(&["login", &host, "--no-docker"]);
    assert!(told.contains(".config/wharf"), "{told}");
    assert_eq!(codes(), 1);
    std::fs::remove_file(desk.path(".config")).unwrap();

    // Without the program, docker's configuration is left alone, and the way to it is told.
    std::fs::remove_file(desk.path("bin/docker-credential-wharf")).unwrap();
    let told = good(&desk.wharf(&["login", &host]));
    assert!(
        told.contains("ln -s ") && told.contains("docker-credential-wharf"),
        "{told}"
    );
    assert_eq!(desk.text(".docker/config.json"), damaged);

    // Nobody can be asked for a password here.
    server.set_metadata("device_authorization_endpoint", Value::Null);
    let told = fails(&["login", &host]);
    assert!(told.contains("--username and --password-stdin"), "{told}");
    server.set_metadata(
        "device_authorization_endpoint",
        json!("http://127.0.0.1:1/x"),
    );
    server.set_metadata("issuer", json!("https://reg.example"));
    let told = fails(&["login", &host]);
    assert!(told.contains("calls itself https://reg.example"), "{told}");
}

/// As docker, podman and helm send it: with an end of line or without, with a scheme or without.
#[test]
fn the_helper_speaks_as_clients_expect() {
    let desk = Desk::new();
    let version = good(&desk.helper("version", ""));
    assert!(
        version.starts_with("docker-credential-wharf (wharf) "),
        "{version}"
    );
    assert_eq!(good(&desk.helper("list", "")), "{}\n");
    for nowhere in [
        "reg.example",
        "https://index.docker.io/v1/",
        "reg.example\n",
    ] {
        assert_eq!(refused(&desk.helper("get", nowhere)), NOT_FOUND);
        assert_eq!(good(&desk.helper("erase", nowhere)), "");
    }
    assert_eq!(
        refused(&desk.helper("get", "\n")),
        "no credentials server URL\n"
    );
    let store = |server: &str, user: &str, secret: &str| {
        let input = json!({"ServerURL": server, "Username": user, "Secret": secret});
        desk.helper("store", &input.to_string())
    };
    assert_eq!(
        good(&store("https://reg.example:5000", "alice", "p\"ä ")),
        ""
    );
    good(&store("https://index.docker.io/v1/", "hub", "of hub"));
    good(&store(
        "https://index.docker.io/v1/access-token",
        "hub",
        "another",
    ));
    good(&store("other.example", "<token>", "identity"));
    assert_eq!(
        desk.get("reg.example:5000\n"),
        ("alice".into(), "p\"ä ".into())
    );
    assert_eq!(
        desk.get("http://REG.example:5000/v2/"),
        ("alice".into(), "p\"ä ".into())
    );
    assert_eq!(desk.get("https://index.docker.io/v1/").1, "of hub");
    assert_eq!(
        refused(&desk.helper("get", "index.docker.io/v1/refresh-token")),
        NOT_FOUND
    );
    assert_eq!(desk.get("other.example").0, "<token>");
    let list: Value = serde_json::from_str(&good(&desk.helper("list", ""))).unwrap();
    let wanted = json!({
        "https://reg.example:5000": "alice", "https://index.docker.io/v1/": "hub",
        "https://index.docker.io/v1/access-token": "hub", "other.example": "<token>",
    });
    assert_eq!(list, wanted);
    // docker logout sends all three.
    for spelling in [
        "reg.example:5000",
        "http://reg.example:5000",
        "https://reg.example:5000",
    ] {
        assert_eq!(good(&desk.helper("erase", spelling)), "");
    }
    assert_eq!(refused(&desk.helper("get", "reg.example:5000")), NOT_FOUND);

    for (input, words) in [
        ("{\"Secret\": \"hidden\"", "no JSON at line 1"),
        ("{\"Secret\": \"hidden\"}", "no credentials server URL"),
        (
            "{\"ServerURL\": \"x\", \"Secret\": \"hidden\"}",
            "no credentials username",
        ),
        (
            "{\"ServerURL\": \"ftp://x\", \"Username\": \"a\", \"Secret\": \"hidden\"}",
            "the scheme is https or http",
        ),
    ] {
        let told = refused(&desk.helper("store", input));
        assert!(told.contains(words) && !told.contains("hidden"), "{told}");
    }
    let told = refused(&desk.helper("store", &" ".repeat(1 << 20)));
    assert!(told.contains("larger than 64 KiB"), "{told}");
    assert!(!desk.helper("steal", "").status.success());
    // Without the link, too.
    let output = ended(
        desk.command(Path::new(WHARF), &["credential-helper", "get"]),
        "other.example",
    );
    assert!(good(&output).contains("identity"));
}

#[test]
fn ten_clients_at_once_buy_one_token() {
    let (desk, server) = (Desk::new(), FakeTerminals::start());
    good(&desk.wharf(&["login", &server.host()]));
    desk.age(600);
    // Slow enough that all of them are there.
    server.fail("/token", Fault::Slow(2));
    let host = server.host();
    let children: Vec<Child> = (0..10).map(|_| desk.start_helper(&host)).collect();
    for child in children {
        let got = good(&child.wait_with_output().unwrap());
        assert!(got.contains("\"Secret\":\"access-2\""), "{got}");
    }
    assert_eq!((server.rotations(), server.ended()), ((1, 0), 0));
    desk.age(600);
    assert_eq!(
        desk.get(&host).1,
        "access-3",
        "what was kept is the last one"
    );
}

#[test]
fn a_client_that_is_killed_before_it_wrote_signs_nobody_out() {
    let (desk, server) = (Desk::new(), FakeTerminals::start());
    let host = server.host();
    good(&desk.wharf(&["login", &host]));
    // The registry has given another token, and the answer is not read to its end.
    desk.age(600);
    server.fail("/token", Fault::Held);
    let mut child = desk.start_helper(&host);
    server.wait_held();
    child.kill().unwrap();
    child.wait().unwrap();
    server.let_go();
    assert_eq!(desk.get(&host).1, "access-3");
    assert_eq!((server.rotations(), server.ended()), ((2, 1), 0));

    // The answer is read, and the file is waited for.
    desk.age(600);
    let lock = std::fs::File::create(desk.path(".config/wharf/credentials.lock")).unwrap();
    lock.lock().unwrap();
    let mut child = desk.start_helper(&host);
    let until = Instant::now() + Duration::from_secs(20);
    while server.rotations().0 < 3 {
        assert!(Instant::now() < until, "nothing was asked for");
        std::thread::sleep(Duration::from_millis(5));
    }
    let kept = desk.text(".config/wharf/credentials.toml");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(
        desk.text(".config/wharf/credentials.toml"),
        kept,
        "nothing was written"
    );
    drop(lock);
    assert_eq!(desk.get(&host).1, "access-5");
    assert_eq!((server.rotations(), server.ended()), ((4, 2), 0));
    // And what was kept then is good without the help of the registry.
    desk.age(600);
    assert_eq!(desk.get(&host).1, "access-6");
    assert_eq!((server.rotations(), server.ended()), ((5, 2), 0));
    let mut left: Vec<_> = std::fs::read_dir(desk.path(".config/wharf"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.retain(|name| name.to_string_lossy().ends_with(".new"));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_registry_that_does_not_answer_holds_up_no_other() {
    let (desk, away, here) = (Desk::new(), FakeTerminals::start(), FakeTerminals::start());
    for server in [&away, &here] {
        good(&desk.wharf(&["login", &server.host()]));
    }
    here.confirm_as(Some("bob"));
    good(&desk.wharf(&["login", &here.host(), "--context", "bob"]));
    desk.age(600);
    away.fail("/token", Fault::Held);
    let mut child = desk.start_helper(&away.host());
    away.wait_held();
    assert_eq!(desk.get(&here.host()), ("bob".into(), "access-3".into()));
    good(&desk.helper(
        "store",
        r#"{"ServerURL": "other.example", "Username": "a", "Secret": "b"}"#,
    ));
    assert!(child.try_wait().unwrap().is_none(), "it waits yet");
    away.let_go();
    let got = good(&child.wait_with_output().unwrap());
    assert!(got.contains("access-2"), "{got}");
    // Nobody's change is lost.
    assert_eq!(desk.get("other.example").0, "a");
    // Commands go on as whom their context says, docker as who signed in last.
    desk.age(600);
    let whoami = ["whoami", "--context", &here.host()];
    let output = desk.wharf(&whoami);
    assert_eq!(
        here.asked().last().unwrap().what,
        "GET /api/v1/me",
        "{output:?}"
    );
    let list = good(&desk.wharf(&["context", "list", "--json"]));
    let list: Value = serde_json::from_str(&list).unwrap();
    let rows: Vec<_> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            (
                row["user"].as_str().unwrap(),
                row["signed_in"].as_str().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        rows.iter().filter(|row| row.1 == "terminal").count(),
        3,
        "{rows:?}"
    );
    let told = good(&desk.wharf(&["logout", "bob"]));
    assert!(told.contains("no credential helper"), "{told}");
    assert_eq!(
        refused(&desk.helper("get", &here.host())),
        NOT_FOUND,
        "docker does not become alice"
    );
}

#[test]
fn whoever_was_signed_out_is_told_so_by_every_program() {
    let (desk, server) = (Desk::new(), FakeTerminals::start());
    let host = server.host();
    good(&desk.wharf(&["login", &host]));
    server.end();
    let wanted = format!(
        "alice was signed out by {0}: run `wharf login {0}`",
        server.url
    );
    let output = desk.wharf(&["whoami"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        (output.status.code(), told),
        (Some(1), format!("error: {wanted}\n"))
    );
    assert_eq!(refused(&desk.helper("get", &host)), format!("{wanted}\n"));
    assert_eq!(
        good(&desk.helper("list", "")),
        "{}\n",
        "docker build asks for all that is listed"
    );
    assert!(good(&desk.wharf(&["context", "list"])).contains(" signed out "));
    good(&desk.wharf(&["login", &host]));
    assert_eq!(good(&desk.wharf(&["whoami"])), "alice (user)\n");
    // docker logout ends it there, too; a server that is away keeps nobody here.
    good(&desk.helper("erase", &host));
    assert_eq!(server.ended(), 2);
    let output = desk.wharf(&["whoami"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("alice is not signed in to"), "{told}");
    good(&desk.wharf(&["login", &host]));
    server.fail("/auth/revoke", Fault::status(500));
    let output = desk.wharf(&["logout"]);
    good(&output);
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("could not be told")
    );
    assert_eq!(refused(&desk.helper("get", &host)), NOT_FOUND);
}

#[test]
fn a_login_that_is_given_up_leaves_nothing() {
    let (desk, server) = (Desk::new(), FakeTerminals::start());
    server.confirm_as(None);
    let host = server.host();
    let mut child = started(desk.command(Path::new(WHARF), &["login", &host]), "");
    let until = Instant::now() + Duration::from_secs(20);
    while !server
        .asked()
        .iter()
        .any(|asked| asked.what == "POST /token")
    {
        assert!(Instant::now() < until, "nothing was asked for");
        std::thread::sleep(Duration::from_millis(5));
    }
    let id = rustix::process::Pid::from_child(&child);
    // Not INT, which is ignored by all that a shell started in the background.
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert!(!child.wait().unwrap().success());
    assert!(!desk.path(".config/wharf/contexts.toml").exists() && !desk.path(".docker").exists());
    assert_eq!(refused(&desk.helper("get", &host)), NOT_FOUND);
    assert_eq!(good(&desk.helper("list", "")), "{}\n");
}

#[test]
fn a_browser_is_opened_only_for_whoever_wants_it() {
    let (desk, server) = (Desk::new(), FakeTerminals::start());
    let host = server.host();
    let script = desk.path("browser");
    std::fs::write(
        &script,
        "#!/bin/sh\necho \"$1\" > opening && mv opening opened\n",
    )
    .unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let login = |browser: &str, args: &[&str]| {
        let args = [&["login", &*host][..], args].concat();
        let mut command = desk.command(Path::new(WHARF), &args);
        command.env("BROWSER", browser).env("PATH", "/usr/bin:/bin");
        ended(command, "")
    };
    let script = script.to_str().unwrap();
    good(&login(script, &[]));
    assert!(!desk.path("opened").exists());
    good(&login(script, &["--browser"]));
    let until = Instant::now() + Duration::from_secs(20);
    while !desk.path("opened").exists() {
        assert!(Instant::now() < until, "no browser was started");
        std::thread::sleep(Duration::from_millis(5));
    }
    let wanted = format!("{}/device?user_code=BCDF-GHJK\n", server.url);
    assert_eq!(desk.text("opened"), wanted);
    // Where there is none, the address is shown all the same.
    let output = login("/nowhere/browser", &["--browser"]);
    good(&output);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("No browser") && told.contains(wanted.trim()),
        "{told}"
    );
}

/// The command until it shows its code, the browser of admin that confirms it, and the command's end.
async fn sign_in(desk: &Desk, server: &TestServer) -> Output {
    let host = server.admin(Version::Http1).authority().to_owned();
    let mut child = started(desk.command(Path::new(WHARF), &["login", &host]), "");
    let mut shown = BufReader::new(child.stderr.take().expect("its words")).lines();
    let code = tokio::task::block_in_place(|| {
        let mut codes = shown.by_ref().map_while(Result::ok);
        codes.find_map(|line| Some(line.split_once("/device?user_code=")?.1.to_owned()))
    });
    let mut browser = Browser::new(server);
    let signed_in = browser.sign_in("admin", ADMIN_PASSWORD).await;
    signed_in.expect_status(303);
    let form = browser.form("/device").await;
    let code = code.expect("a code");
    let fields = [
        ("form", &*form),
        ("user_code", &*code),
        ("decision", "approve"),
    ];
    let page = browser.post("/device", &fields).await;
    page.expect_status(200);
    tokio::task::block_in_place(|| child.wait_with_output().expect("its end"))
}

/// With the registry itself: what `wharf login` keeps pushes and pulls, is another one after each use, survives a write that was lost,
/// and ends when a copy is used or somebody signs out.
///
/// Spec: OIDC-6.
#[tokio::test(flavor = "multi_thread")]
async fn the_registry_itself_signs_in_a_terminal_and_ends_it() {
    let (desk, server) = (Desk::new(), TestServer::start(TestOptions::default()).await);
    let admin = server.admin(Version::Http1);
    let host = admin.authority().to_owned();
    let told = good(&sign_in(&desk, &server).await);
    assert!(told.contains("as admin; commands use context"), "{told}");
    let here = |work: &mut dyn FnMut()| tokio::task::block_in_place(work);
    let mut got = Vec::new();
    here(&mut || {
        assert_eq!(good(&desk.wharf(&["whoami"])), "admin (user)\n");
        got.push(desk.get(&host));
        desk.age(600);
        let children: Vec<Child> = (0..4).map(|_| desk.start_helper(&host)).collect();
        for child in children {
            good(&child.wait_with_output().unwrap());
        }
        got.push(desk.get(&host));
    });
    assert_ne!(got[0].1, got[1].1);
    for (at, (user, secret)) in got.iter().enumerate() {
        let client = admin.clone().anonymous().with_basic(user, secret);
        let tag = format!("v{at}");
        client.push_image("team/app", &tag, &Image::random()).await;
        let token = client.fetch_token(&["repository:team/app:pull,push"]).await;
        token.expect_status(200);
    }
    let file = desk.path(".config/wharf/credentials.toml");
    here(&mut || {
        let tags = good(&desk.wharf(&["tag", "list", "team/app"]));
        assert!(tags.contains("v0") && tags.contains("v1"), "{tags}");
        // The write was lost, and the token before is there yet.
        desk.age(600);
        let before = std::fs::read(&file).unwrap();
        desk.get(&host);
        std::fs::write(&file, &before).unwrap();
        let (_, secret) = desk.get(&host);
        assert_ne!(secret, got[1].1);
        assert_eq!(good(&desk.wharf(&["whoami"])), "admin (user)\n");
        // Somebody has a copy: when it is used, nobody is signed in.
        desk.age(600);
        desk.get(&host);
        desk.age(600);
        desk.get(&host);
        let real = std::fs::read(&file).unwrap();
        std::fs::write(&file, &before).unwrap();
        let told = refused(&desk.helper("get", &host));
        assert!(
            told.contains("admin was signed out by http://127.0.0.1"),
            "{told}"
        );
        std::fs::write(&file, real).unwrap();
        desk.age(600);
        let told = refused(&desk.helper("get", &host));
        assert!(told.contains("run `wharf login http://127.0.0.1"), "{told}");
    });
    good(&sign_in(&desk, &server).await);
    here(&mut || {
        desk.age(600);
        let before = std::fs::read(&file).unwrap();
        let output = desk.wharf(&["logout"]);
        assert!(
            good(&output).contains("is forgotten") && output.stderr.is_empty(),
            "{output:?}"
        );
        assert_eq!(refused(&desk.helper("get", &host)), NOT_FOUND);
        std::fs::write(&file, before).unwrap();
        assert!(refused(&desk.helper("get", &host)).contains("was signed out"));
    });
}
