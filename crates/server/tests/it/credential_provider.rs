//! The plugin that kubelets run, as they run it: a program by its file's name, a request on standard input, an answer or an error.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use wharf_testkit::{Image, Process, TestOptions, TokenIssuer, TokenKey, Version};

use crate::support::manifest;

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");
const OWN: &str = "team/a/app";

/// Runs it as a kubelet does; what a plugin does not read is its own matter.
fn plugin(program: &Path, args: &[&str], request: &[u8]) -> Output {
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("a program");
    let mut input = child.stdin.take().expect("its input");
    let request = request.to_vec();
    let writer = std::thread::spawn(move || {
        let _ = input.write_all(&request);
    });
    let output = child.wait_with_output().expect("its end");
    writer.join().expect("a thread");
    output
}

fn request(image: &str, token: &str) -> Vec<u8> {
    let request = json!({
        "kind": "CredentialProviderRequest", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "image": image,
        "serviceAccountToken": token, "serviceAccountAnnotations": {},
    });
    request.to_string().into_bytes()
}

/// What a node is told to do, done: the program under its name with the arguments of the configuration, its answer as the pull secret
/// that a kubelet makes of it.
///
/// Spec: K8SCRED-1, K8SCRED-2, K8SCRED-3, K8SCRED-5.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_pulls_with_what_the_plugin_answers() {
    let key = TokenKey::new("one");
    let server = Process::start(Path::new(WHARF), TestOptions::default()).await;
    let issuer = TokenIssuer::start(&[&key]).await;
    let folder = server.folder();
    std::fs::write(folder.join("keys.json"), issuer.jwks().to_string()).expect("a file");
    server
        .admin(Version::Http1)
        .push_image(OWN, "v1", &Image::random())
        .await;
    let trust = format!(
        "workload trust kubernetes --issuer {} --jwks-file keys.json --namespace prod reader on team/a --data data",
        issuer.url
    );
    let wharf = |words: &str| {
        let mut command = Command::new(WHARF);
        command.args(words.split(' ')).current_dir(folder);
        command.env("XDG_CONFIG_HOME", folder).stdin(Stdio::null());
        let output = command.output().expect("a program");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    };
    tokio::task::block_in_place(|| wharf(&trust));
    let host = "127.0.0.1:5000";
    let config = wharf(&format!(
        "credential-provider node-config --registry {host}"
    ));
    let args: Vec<String> = config
        .lines()
        .skip_while(|line| *line != "  args:")
        .skip(1)
        .map_while(|line| line.strip_prefix("  - "))
        .map(|text| serde_json::from_str(text).expect("a text"))
        .collect();
    assert_eq!(args, ["--audience", "wharf", "--registry", host]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let named = folder.join("wharf-credential-provider");
    std::os::unix::fs::symlink(WHARF, &named).expect("a link");

    let pod = key.sign(&issuer.pod("wharf", "prod", "default"));
    let output = plugin(&named, &args, &request(&format!("{host}/{OWN}:v1"), &pod));
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let answer: Value = serde_json::from_slice(&output.stdout).expect("an answer");
    assert_eq!(answer["kind"], "CredentialProviderResponse");
    let auth = &answer["auth"][host];
    let (user, password) = (
        auth["username"].as_str().unwrap(),
        auth["password"].as_str().unwrap(),
    );
    let node = server
        .admin(Version::Http1)
        .anonymous()
        .with_basic(user, password);
    assert_eq!(node.get(&manifest(OWN, "v1")).send().await.status, 200);
    let push = node.post(&format!("/v2/{OWN}/blobs/uploads/")).send().await;
    assert_eq!(push.status, 403);

    let elsewhere = plugin(&named, &args, &request("other.example/app", &pod));
    let elsewhere: Value = serde_json::from_slice(&elsewhere.stdout).expect("an answer");
    assert_eq!(elsewhere["auth"], json!({}));
    let wrong = key.sign(&issuer.pod("vault", "prod", "default"));
    for (input, why) in [
        (
            request(&format!("{host}/{OWN}"), &wrong),
            "serviceAccountTokenAudience",
        ),
        (b"not json".to_vec(), "no JSON at line 1"),
        (Vec::new(), "it is empty"),
        (vec![b' '; 3 << 20], "larger than"),
    ] {
        let output = plugin(&named, &args, &input);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(1) && output.stdout.is_empty(),
            "{output:?}"
        );
        assert!(told.starts_with("error: ") && told.contains(why), "{told}");
        assert!(!told.contains(&wrong), "{told}");
    }
    let usage = plugin(&named, &["--registry", "https://x.example"], b"");
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
    assert!(String::from_utf8_lossy(&usage.stderr).contains("leave out the scheme"));
}
