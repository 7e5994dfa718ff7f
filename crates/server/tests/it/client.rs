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
