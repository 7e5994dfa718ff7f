//! The command line against the real binary: starts, passwords, reloads, exit codes, and what the log never says.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use wharf_testkit::{Client, Content, TestOptions, TestServer, Version};

use crate::support::manifest;

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");
/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// `wharf serve` with an environment of the test's making.
struct Serve {
    folder: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

impl Serve {
    fn new() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        Self {
            folder: tempfile::tempdir().unwrap(),
            port: free.local_addr().unwrap().port(),
            child: None,
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(WHARF);
        command
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .stdin(Stdio::null());
        command
    }

    /// Starts it and waits until it is ready.
    async fn start(&mut self, args: &[&str], env: &[(&str, &str)]) {
        let listen = format!("127.0.0.1:{}", self.port);
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let child = self
            .command(&["serve", "--listen", &listen])
            .args(args)
            .envs(env.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let plain = !args.contains(&"--tls-self-signed");
        let stranger = self.client().anonymous();
        self.wait("it is ready", async |serve| {
            if plain {
                let answer = stranger.get("/readyz").try_send().await;
                answer.is_ok_and(|answer| answer.status == 200)
            } else {
                serve.log().contains("how to log in")
            }
        })
        .await;
    }

    async fn wait(&mut self, what: &str, condition: impl AsyncFn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self).await {
            let ended = self
                .child
                .as_mut()
                .and_then(|child| child.try_wait().unwrap());
            assert!(
                ended.is_none() && start.elapsed() < PATIENCE,
                "not so: {what}; {ended:?}\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn wait_for_log(&mut self, text: &str) {
        self.wait(text, async |serve| serve.log().contains(text))
            .await;
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let id = self.child.as_ref().unwrap().id();
        let id = rustix::process::Pid::from_raw(i32::try_from(id).unwrap()).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    async fn ended(&mut self) -> i32 {
        let mut child = self.child.take().unwrap();
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(
                start.elapsed() < PATIENCE,
                "it does not end:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn stop(&mut self) -> i32 {
        self.signal(rustix::process::Signal::TERM);
        self.ended().await
    }

    fn client(&self) -> Client {
        Client::new(([127, 0, 0, 1], self.port).into(), Version::Http1)
    }

    async fn password_works(&self, password: &str) -> bool {
        let client = self.client().with_basic("admin", password);
        client.get("/v2/").send().await.status == 200
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("wharf-data")
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Runs another command in the same folder.
    async fn run(&self, args: &[&str]) -> Output {
        output(self.command(args)).await
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

async fn output(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output())
        .await
        .unwrap()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn the_first_start_without_a_terminal_writes_the_password_to_a_file_of_its_owner() {
    let mut serve = Serve::new();
    serve.start(&[], &[]).await;
    let file = serve.data().join("admin-password");
    let password = std::fs::read_to_string(&file).unwrap().trim().to_owned();
    assert!(password.len() >= 20, "{password}");
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(serve.password_works(&password).await);
    let log = serve.log();
    assert!(log.contains(file.to_str().unwrap()), "{log}");
    assert!(!log.contains(&password), "{log}");
    assert!(log.contains("\"content\":\"new\""), "{log}");
    let login = format!("docker login 127.0.0.1:{} -u admin", serve.port);
    assert!(log.contains(&login), "{log}");

    // A password that comes too late is ignored, with a notice, and the next start says how much there is.
    assert_eq!(serve.stop().await, 0);
    let late = ("WHARF_ADMIN_PASSWORD", "another-password");
    serve.start(&[], &[late]).await;
    assert!(serve.password_works(&password).await);
    assert!(!serve.password_works(late.1).await);
    let log = serve.log();
    assert!(
        log.contains("the password from WHARF_ADMIN_PASSWORD is ignored"),
        "{log}"
    );
    assert!(log.contains("0 repositories"), "{log}");
    assert!(!log.contains(late.1), "{log}");
}

#[tokio::test]
async fn a_password_can_be_chosen_by_a_file_and_only_its_hash_is_kept() {
    let mut serve = Serve::new();
    let secret = serve.folder.path().join("secret");
    std::fs::write(&secret, "chosen-by-file\n").unwrap();
    let file = ("WHARF_ADMIN_PASSWORD_FILE", secret.to_str().unwrap());
    serve.start(&[], &[file]).await;
    assert!(serve.password_works("chosen-by-file").await);
    assert!(!serve.data().join("admin-password").exists());
    assert_eq!(serve.stop().await, 0);
    for entry in std::fs::read_dir(serve.data()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            let found = bytes.windows(14).any(|window| window == b"chosen-by-file");
            assert!(!found, "{}", path.display());
        }
    }
}

#[tokio::test]
async fn a_password_that_is_too_short_is_refused_before_anything_is_served() {
    let serve = Serve::new();
    let mut command = serve.command(&["serve", "--listen", "127.0.0.1:0"]);
    command.env("WHARF_ADMIN_PASSWORD", "short");
    let output = output(command).await;
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert!(error.contains("at least 8 characters"), "{error}");
}

/// A terminal's two ends: ours, and the path of the other.
fn terminal() -> (File, PathBuf) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let name = name.into_string().unwrap();
    (File::from(ours), PathBuf::from(name))
}

#[tokio::test]
async fn on_a_terminal_the_password_is_shown_once_and_written_nowhere() {
    use std::io::Read as _;
    let serve = Serve::new();
    let mut shown = Vec::new();
    for _ in 0..2 {
        let (mut ours, theirs) = terminal();
        let screen = File::options().read(true).write(true).open(theirs).unwrap();
        let mut child = serve
            .command(&["serve", "--listen", &format!("127.0.0.1:{}", serve.port)])
            .stdout(screen.try_clone().unwrap())
            .stderr(screen)
            .spawn()
            .unwrap();
        let reader = tokio::task::spawn_blocking(move || {
            let (mut seen, mut buffer) = (String::new(), [0; 4096]);
            while !seen.contains("Ctrl-C") {
                let count = ours.read(&mut buffer).unwrap_or(0);
                assert_ne!(count, 0, "it ended:\n{seen}");
                seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
            (seen, ours)
        });
        let (seen, _ours) = reader.await.unwrap();
        shown.push(seen);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let line = shown[0]
        .lines()
        .find(|line| line.contains("password"))
        .unwrap();
    let password = line.split_whitespace().nth(1).unwrap();
    assert!(password.len() >= 20 && password.contains('-'), "{line}");
    assert!(shown[0].contains("docker login"), "{}", shown[0]);
    assert!(!shown[1].contains(password), "{}", shown[1]);
    assert!(
        shown[1].contains("wharf admin reset-password"),
        "{}",
        shown[1]
    );
    assert!(!serve.data().join("admin-password").exists());
}

#[tokio::test]
async fn a_lost_password_is_replaced_on_a_running_registry_and_on_a_stopped_one() {
    let mut serve = Serve::new();
    serve.start(&[], &[]).await;
    let file = serve.data().join("admin-password");
    let first = std::fs::read_to_string(&file).unwrap().trim().to_owned();

    let told = serve.run(&["admin", "reset-password"]).await;
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    let second = text(&told.stdout).trim().to_owned();
    assert!(!serve.password_works(&first).await);
    assert!(serve.password_works(&second).await);
    assert!(!file.exists(), "it holds a password that is none");
    assert!(!serve.log().contains(&second));
    let socket = serve.data().join("admin.sock");
    assert_eq!(
        std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o600
    );

    assert_eq!(serve.stop().await, 0);
    assert!(!socket.exists());
    let chosen = serve.folder.path().join("chosen");
    std::fs::write(&chosen, "chosen-later\n").unwrap();
    let chosen = chosen.to_str().unwrap();
    let told = serve
        .run(&["admin", "reset-password", "--password-file", chosen])
        .await;
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    assert!(!text(&told.stdout).contains("chosen-later"));
    std::fs::write(chosen, "short").unwrap();
    let told = serve
        .run(&["admin", "reset-password", "--password-file", chosen])
        .await;
    assert_eq!(told.status.code(), Some(2), "{}", text(&told.stderr));
    serve.start(&[], &[]).await;
    assert!(serve.password_works("chosen-later").await);
}

#[tokio::test]
async fn exit_codes_tell_what_is_wrong() {
    let mut serve = Serve::new();
    let nothing = serve.run(&["storage", "verify"]).await;
    assert_eq!(nothing.status.code(), Some(3));
    assert!(!serve.data().exists(), "a command made a data folder");
    assert!(text(&nothing.stderr).contains("--data"));

    let usage = serve.run(&["serve", "--frobnicate"]).await;
    assert_eq!(usage.status.code(), Some(2));
    let missing = serve.run(&["serve", "--htpasswd", "/nonexistent"]).await;
    assert_eq!(missing.status.code(), Some(2));
    assert!(
        text(&missing.stderr).contains("--htpasswd"),
        "{}",
        text(&missing.stderr)
    );
    assert!(
        !serve.data().exists(),
        "a wrong configuration made a data folder"
    );

    serve.start(&[], &[]).await;
    let mut second = serve.command(&["serve", "--listen", "127.0.0.1:0"]);
    second.env("WHARF__DATA__LOCK_WAIT", "100ms");
    let second = output(second).await;
    assert_eq!(second.status.code(), Some(3));
    let error = text(&second.stderr);
    assert!(error.contains("is in use by process"), "{error}");
    assert!(
        error.contains(&serve.child.as_ref().unwrap().id().to_string()),
        "{error}"
    );

    let address = format!("127.0.0.1:{}", serve.port);
    let taken = serve
        .run(&["serve", "--data", "other", "--listen", &address])
        .await;
    assert_eq!(taken.status.code(), Some(5));
    assert!(text(&taken.stderr).contains(&address));
    // Nobody saw a password of that start, so the next one must still be able to show it.
    assert!(!serve.folder.path().join("other/admin-password").exists());
}

#[tokio::test]
async fn each_value_is_shown_with_its_source() {
    let serve = Serve::new();
    let file = "[limits]\nmanifest_size = \"8MiB\"\n[server]\ndata = \"a\"\n";
    std::fs::write(serve.folder.path().join("w.toml"), file).unwrap();
    let mut show = serve.command(&["config", "show", "--data", "b"]);
    show.env("WHARF_CONFIG", "w.toml")
        .env("WHARF__LOG__LEVEL", "debug")
        .env("WHARF_ADMIN_PASSWORD", "never-shown");
    let shown = output(show).await;
    assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
    let shown = text(&shown.stdout);
    let source = |key: &str| {
        let line = shown.lines().find(|line| line.starts_with(key)).unwrap();
        let (value, source) = line.split_once("  # ").unwrap();
        format!("{} # {source}", value.trim_end())
    };
    assert_eq!(source("data"), "data = \"b\" # --data");
    assert_eq!(
        source("manifest_size"),
        "manifest_size = \"8MiB\" # w.toml:2"
    );
    assert_eq!(source("level"), "level = \"debug\" # WHARF__LOG__LEVEL");
    assert_eq!(source("blob_size"), "blob_size = \"1TiB\" # default");
    assert_eq!(
        source("admin_password"),
        "admin_password = \"(hidden)\" # WHARF_ADMIN_PASSWORD"
    );
    assert!(!shown.contains("never-shown"));

    let mut check = serve.command(&["config", "check", "--listen", ":5000"]);
    check.env("WHARF__SERVER__DTA", "x");
    let checked = output(check).await;
    assert_eq!(checked.status.code(), Some(2));
    let error = text(&checked.stderr);
    assert!(
        error.contains("did you mean WHARF__SERVER__DATA?"),
        "{error}"
    );
    let checked = serve.run(&["config", "check", "--listen", ":5000"]).await;
    assert_eq!(checked.status.code(), Some(0));
    assert!(text(&checked.stderr).contains("warning: --listen: passwords"));
}

#[tokio::test]
async fn changes_of_the_configuration_are_noticed_and_broken_ones_change_nothing() {
    let mut serve = Serve::new();
    let file = serve.folder.path().join("wharf.toml");
    std::fs::write(&file, "").unwrap();
    serve
        .start(
            &["--config", "wharf.toml"],
            &[("WHARF_ADMIN_PASSWORD", "long-enough")],
        )
        .await;
    let admin = serve.client().with_basic("admin", "long-enough");
    admin.push_blob("team/app", &Content::random(100)).await;
    let list = "/v2/team/app/tags/list";
    let stranger = serve.client().anonymous();
    stranger.get(list).send().await.expect_status(401);

    // By signal.
    std::fs::write(
        &file,
        "[access]\nanonymous = \"reader\"\n[log]\nlevel = \"info\"\n",
    )
    .unwrap();
    serve.signal(rustix::process::Signal::HUP);
    serve.wait_for_log("access.anonymous is now").await;
    stranger.get(list).send().await.expect_status(200);
    let noted = async || {
        let path = "/api/v1/audit?action=operator.command&n=100";
        let log = admin.get(path).send().await.expect_status(200).json();
        let mut entries = log["items"].as_array().unwrap().clone();
        entries.retain(|one| one["detail"]["command"] == "configuration.reload");
        entries
    };
    let recorded = async |_: &Serve| !noted().await.is_empty();
    serve.wait("the change is in the audit log", recorded).await;
    let noted = noted().await;
    let keys = noted[0]["detail"]["with"]["keys"].to_string();
    assert!(
        keys.contains("access.anonymous") && noted.len() == 1,
        "{noted:?}"
    );
    assert!(
        !format!("{noted:?}").contains("reader"),
        "no values: {noted:?}"
    );

    // Without one; what needs a restart is said.
    let text = "[access]\nanonymous = \"none\"\n[server]\nshutdown_grace = \"1m\"\n[log]\nlevel = \"warn\"\n";
    std::fs::write(&file, text).unwrap();
    serve
        .wait_for_log("server.shutdown_grace stays \\\"30s\\\" until a restart")
        .await;
    stranger.get(list).send().await.expect_status(401);

    std::fs::write(&file, "[access]\nanonymous = \"raeder\"\n").unwrap();
    serve.wait_for_log("did you mean \\\"reader\\\"?").await;
    assert!(serve.log().contains("wharf.toml:2"), "{}", serve.log());
    stranger.get(list).send().await.expect_status(401);

    std::fs::write(&file, "[rate_limits]\nreads = \"1/h\"\n").unwrap();
    serve.wait_for_log("rate_limits.reads is now").await;
    stranger.get(list).send().await.expect_status(401);
    stranger.get(list).send().await.expect_status(429);
}

/// Spec: UP-10.
#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let mut serve = Serve::new();
    serve
        .start(&[], &[("WHARF__SERVER__SHUTDOWN_DELAY", "10m")])
        .await;
    serve.signal(rustix::process::Signal::TERM);
    serve.wait_for_log("SIGTERM: stopping").await;
    // The delay: still served, but no longer ready.
    let stranger = serve.client().anonymous();
    stranger.get("/readyz").send().await.expect_status(503);
    stranger.get("/livez").send().await.expect_status(200);
    serve.signal(rustix::process::Signal::INT);
    assert_eq!(serve.ended().await, 1);
}

#[tokio::test]
async fn the_log_has_one_line_per_request_and_never_a_secret() {
    let mut serve = Serve::new();
    let (admin, alice) = ("admin-Secret-1", "alice-Secret-2");
    let hash = bcrypt::hash(alice, 4).unwrap();
    std::fs::write(serve.folder.path().join("users"), format!("alice:{hash}\n")).unwrap();
    serve
        .start(
            &["--htpasswd", "users"],
            &[
                ("WHARF_ADMIN_PASSWORD", admin),
                ("WHARF__LOG__LEVEL", "trace"),
                ("WHARF__AUTH__IDENTITY_TOKENS", "true"),
            ],
        )
        .await;
    let client = serve.client();
    let user = client.clone().with_basic("alice", alice);
    let content = Content::random(100);
    user.push_blob("team/app", &content).await;
    let wrong = client.clone().with_basic("alice", "wrong-Secret-3");
    wrong.get("/v2/").send().await.expect_status(401);
    let scope = "scope=repository:team/app:pull&service=wharf";
    let answer = user.get(&format!("/token?{scope}&offline_token=true"));
    let tokens = answer.send().await.expect_status(200).json();
    let token = tokens["token"].as_str().unwrap();
    let refresh = tokens["refresh_token"].as_str().unwrap();
    let form =
        format!("grant_type=password&username=alice&password={alice}&{scope}&client_id=test");
    client
        .anonymous()
        .post("/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form)
        .send()
        .await
        .expect_status(200);
    let bearer = serve.client().with_token(token);
    bearer
        .get(&manifest("team/app", "none"))
        .send()
        .await
        .expect_status(404);
    // Where it does not belong, as people do it.
    let odd = format!("/v2/?password={alice}&token={token}");
    serve.client().anonymous().get(&odd).send().await;
    serve.run(&["admin", "reset-password"]).await;
    assert_eq!(serve.stop().await, 0);

    let log = serve.log();
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("alice:{alice}"));
    let signature = token.rsplit('.').next().unwrap();
    for secret in [
        admin,
        alice,
        "wrong-Secret-3",
        &basic,
        token,
        signature,
        refresh,
        &hash,
    ] {
        assert!(!log.contains(secret), "{secret}:\n{log}");
    }
    let line = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect(line))
        .find(|line| line["route"] == "/v2/{name}/manifests/{reference}")
        .expect("a line for the request");
    assert_eq!(line["principal"], "alice");
    assert_eq!(line["repository"], "team/app");
    assert_eq!(line["status"], 404);
    assert!(
        line["request_id"].as_str().is_some_and(|id| !id.is_empty()),
        "{line}"
    );
    for number in ["bytes_in", "bytes_out", "duration_ms"] {
        assert!(line[number].is_number(), "{number}: {line}");
    }
}

#[tokio::test]
async fn a_client_learns_the_authority_of_a_self_signed_registry() {
    let mut serve = Serve::new();
    serve
        .start(
            &["--tls-self-signed"],
            &[("WHARF_ADMIN_PASSWORD", "long-enough")],
        )
        .await;
    let host = format!("127.0.0.1:{}", serve.port);
    for client in ["docker", "containerd", "podman"] {
        let told = serve.run(&["trust", client, &host]).await;
        assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
        let script = text(&told.stdout);
        let authority = std::fs::read_to_string(serve.data().join("tls/authority.pem")).unwrap();
        let body = |pem: &str| pem.split("-----").nth(2).unwrap().replace(['\n', '\r'], "");
        assert_eq!(body(&script), body(&authority));
        let fingerprint = script
            .lines()
            .find_map(|line| line.strip_prefix("# SHA-256 "))
            .unwrap();
        assert!(serve.log().contains(fingerprint), "{}", serve.log());
        // A shell takes it.
        let path = serve.folder.path().join("script");
        std::fs::write(&path, &script).unwrap();
        let mut shell = Command::new("sh");
        shell.arg("-n").arg(&path);
        assert!(output(shell).await.status.success(), "{script}");
    }
}

#[tokio::test]
async fn commands_find_the_registry_behind_a_long_path() {
    let mut serve = Serve::new();
    let long = "x".repeat(120);
    let data = serve.folder.path().join(&long);
    let data = data.to_str().unwrap();
    serve.start(&["--data", data], &[]).await;
    let told = serve
        .run(&["admin", "reset-password", "--data", data])
        .await;
    assert_eq!(told.status.code(), Some(0), "{}", text(&told.stderr));
    assert!(serve.password_works(text(&told.stdout).trim()).await);
}

/// Spec: OPS-1.
#[tokio::test]
async fn the_welcome_page_escapes_hostile_hosts_and_needs_nothing_from_elsewhere() {
    let server = TestServer::start(TestOptions::default()).await;
    let client = server.admin(Version::Http1).anonymous();
    let page = client
        .get("/")
        .header("accept", "text/html,*/*;q=0.1")
        .send()
        .await
        .expect_status(200);
    let policy = page.expect_header("content-security-policy");
    assert!(policy.contains("default-src 'none'"), "{policy}");
    let html = text(&page.body);
    assert!(html.contains("docker login 127.0.0.1:"), "{html}");
    for elsewhere in ["src=", "<script", "http://", "https://", "@import", "url("] {
        assert!(!html.contains(elsewhere), "{elsewhere}: {html}");
    }
    let plain = client.get("/").send().await.expect_status(200);
    assert!(
        plain
            .expect_header("content-type")
            .starts_with("text/plain")
    );
    for host in [
        "<script>alert(1)</script>",
        "a\"onload=x",
        "a'b",
        "x;rm -rf",
    ] {
        let answer = client
            .get("/")
            .without_header("host")
            .header("host", host)
            .header("accept", "text/html")
            .send()
            .await;
        let html = text(&answer.body);
        assert!(!html.contains(host), "{host}: {html}");
    }
}

#[test]
fn completions_are_scripts() {
    for shell in ["bash", "zsh", "fish"] {
        let out = Command::new(WHARF)
            .args(["completions", shell])
            .output()
            .unwrap();
        assert!(out.status.success());
        assert!(text(&out.stdout).contains("reset-password"), "{shell}");
    }
}
