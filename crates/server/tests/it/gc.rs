//! Collection and undelete as an operator sees them.

use std::path::Path;
use std::process::{Command, Output};

use wharf_testkit::{Content, Image, Process, TestOptions, Version};

use crate::greedy::is_whole;
use crate::support::{holds, manifest};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");
/// Runs a command off the runtime, so that the server's answers go on being read.
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

/// The way of docs/how-to/garbage-collection-and-undelete.md.
#[tokio::test]
async fn an_operator_undoes_a_deletion_and_frees_the_disk() {
    let server = Process::start(Path::new(WHARF), TestOptions::default()).await;
    let client = server.admin(Version::Http1);
    let image = Image::random();
    client.push_image("team/app", "v1", &image).await;
    client
        .delete(&manifest("team/app", &image.manifest.digest))
        .send()
        .await
        .expect_status(202);
    let told = expect(&wharf(&server, &["repo", "history", "team/app"]).await, 0);
    let digest = image.manifest.address().to_owned();
    assert!(
        told.contains(&format!("manifest {digest} deleted by admin")),
        "{told}"
    );
    let reference = format!("team/app@{digest}");
    let told = expect(
        &wharf(&server, &["manifest", "restore", &reference]).await,
        0,
    );
    assert!(told.contains("Tag v1 stands at"), "{told}");
    is_whole(&client, "team/app", "v1", &image).await;
    let told = expect(
        &wharf(&server, &["manifest", "restore", &reference]).await,
        2,
    );
    assert!(told.contains("wharf repo history"), "{told}");

    client
        .delete(&manifest("team/app", "v1"))
        .send()
        .await
        .expect_status(202);
    let told = expect(&wharf(&server, &["tag", "history", "team/app:v1"]).await, 0);
    assert!(
        told.contains("version 4") && told.contains("nowhere"),
        "{told}"
    );
    let told = expect(&wharf(&server, &["tag", "restore", "team/app:v1"]).await, 0);
    assert!(told.contains("Tag v1 stands at"), "{told}");
    is_whole(&client, "team/app", "v1", &image).await;

    let unused = Content::random(200_000);
    client.push_blob("team/app", &unused).await;
    client
        .delete(&manifest("team/app", &image.manifest.digest))
        .send()
        .await
        .expect_status(202);
    let told = expect(&wharf(&server, &["gc", "plan"]).await, 0);
    assert!(
        told.contains(unused.address()) && told.contains("no manifest refers to it"),
        "{told}"
    );
    assert!(told.contains("1 deleted manifest"), "{told}");
    let told = expect(&wharf(&server, &["gc", "run"]).await, 0);
    assert!(told.contains("0 blobs"), "{told}");
    let told = expect(&wharf(&server, &["gc", "run", "--now"]).await, 2);
    assert!(
        told.contains("cannot be undone") && told.contains("--yes"),
        "{told}"
    );
    let told = expect(&wharf(&server, &["gc", "run", "--now", "--yes"]).await, 0);
    assert!(told.contains("1 deleted manifest can no longer"), "{told}");
    assert!(server.kept_blobs().is_empty());
    assert!(!holds(&client, "team/app", &unused).await);
    // Nothing is left that could be undone, so nobody is asked.
    let told = expect(&wharf(&server, &["gc", "run", "--now"]).await, 0);
    assert!(told.contains("0 blobs"), "{told}");

    let told = expect(&wharf(&server, &["job", "list"]).await, 0);
    for kind in ["gc.collect", "manifest.purge", "storage.scrub", "gc.audit"] {
        assert!(told.contains(kind), "{told}");
    }
    expect(&wharf(&server, &["job", "run", "storage.sweep"]).await, 0);
    let told = expect(&wharf(&server, &["job", "run", "no.such"]).await, 2);
    assert!(told.contains("wharf job list"), "{told}");
    let told = expect(&wharf(&server, &["repo", "list", "--size"]).await, 0);
    assert!(told.contains("team/app"), "{told}");
    let whole = Image::random();
    client.push_image("team/app", "v2", &whole).await;
    for list in ["--size", "--prefixes"] {
        let told = expect(&wharf(&server, &["repo", "list", list, "--json"]).await, 0);
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let size: usize = whole.blobs().map(|blob| blob.bytes.len()).sum();
        let size = size + whole.manifest.bytes.len();
        assert_eq!(told[0]["size"], size, "{told}");
    }
    expect(&wharf(&server, &["storage", "verify", "--list"]).await, 0);
    expect(
        &wharf(&server, &["gc", "pause", "--reason", "a test"]).await,
        0,
    );
    let told = expect(&wharf(&server, &["gc", "run"]).await, 2);
    assert!(
        told.contains("a test") && told.contains("wharf gc resume"),
        "{told}"
    );
    expect(&wharf(&server, &["gc", "resume"]).await, 0);
    expect(&wharf(&server, &["gc", "run"]).await, 0);
}
