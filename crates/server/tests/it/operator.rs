//! What an operator does: back up, restore, verify; and what happens to damaged bytes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use wharf_testkit::{Content, Image, Process, TestOptions, Version};

use crate::support::{blob, holds, manifest};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");

/// On a file, whatever the run: what `postgres` asks of backups and damage, it asks of its own.
async fn start() -> Process {
    let options = TestOptions {
        on_file: true,
        ..TestOptions::default()
    };
    Process::start(Path::new(WHARF), options).await
}

/// One whose files the test damages.
async fn start_on_files() -> Process {
    Process::start(Path::new(WHARF), TestOptions::on_files()).await
}

/// Runs a command off the runtime, so that the server's answers go on being read.
async fn wharf(args: &[&str]) -> Output {
    let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
    tokio::task::spawn_blocking(move || Command::new(WHARF).args(args).output())
        .await
        .unwrap()
        .unwrap()
}

fn data(server: &Process) -> PathBuf {
    server.folder().join("data")
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

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The files of published blobs.
fn blob_files(folder: &Path) -> Vec<PathBuf> {
    let (mut folders, mut found) = (vec![folder.join("blobs")], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

/// Spec: BGET-1.
#[tokio::test]
async fn damaged_bytes_are_never_served_and_the_next_push_heals_them() {
    let server = start_on_files().await;
    let client = server.admin(Version::Http1);
    for damage in ["cut", "gone"] {
        let content = Content::random(100_000);
        client.push_blob("team/app", &content).await;
        let file = blob_files(&data(&server))
            .into_iter()
            .find(|file| path(file).contains(content.digest.encoded()))
            .unwrap();
        match damage {
            "cut" => std::fs::OpenOptions::new()
                .write(true)
                .open(&file)
                .unwrap()
                .set_len(99_999)
                .unwrap(),
            _ => std::fs::remove_file(&file).unwrap(),
        }
        let address = blob("team/app", &content.digest);
        client.head(&address).send().await.expect_status(404);
        client
            .get(&address)
            .send()
            .await
            .expect_error(404, "BLOB_UNKNOWN");
        let mount = format!(
            "/v2/team/other/blobs/uploads/?mount={}&from=team/app",
            content.digest
        );
        client.post(&mount).send().await.expect_status(202);

        client.push_blob("team/app", &content).await;
        assert!(holds(&client, "team/app", &content).await, "{damage}");
    }
    expect(
        &wharf(&[
            "storage",
            "verify",
            "--deep",
            "--data",
            path(&data(&server)),
        ])
        .await,
        0,
    );
}

#[tokio::test]
async fn flipped_bits_are_found_and_condemned_until_they_are_pushed_again() {
    let server = start_on_files().await;
    let client = server.admin(Version::Http1);
    let content = Content::random(300_000);
    client.push_blob("team/app", &content).await;
    let file = blob_files(&data(&server)).pop().unwrap();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[150_000] ^= 1;
    std::fs::write(&file, bytes).unwrap();

    let data = path(&data(&server)).to_owned();
    // Names and lengths are right, so only a deep look can tell.
    expect(&wharf(&["storage", "verify", "--data", &data]).await, 0);
    let found = wharf(&["storage", "verify", "--deep", "--data", &data]).await;
    let text = expect(&found, 4);
    assert!(text.contains(content.digest.as_str()), "{text}");
    let address = blob("team/app", &content.digest);
    client.head(&address).send().await.expect_status(404);
    client.get(&address).send().await.expect_status(404);

    client.push_blob("team/app", &content).await;
    assert!(holds(&client, "team/app", &content).await);
    expect(
        &wharf(&["storage", "verify", "--deep", "--data", &data]).await,
        0,
    );
}

#[tokio::test]
async fn a_backup_made_while_pushes_go_on_restores_what_was_acknowledged_before_it() {
    let mut server = start().await;
    let client = server.admin(Version::Http1);
    let folder = tempfile::tempdir().unwrap();
    let (backup, restored) = (folder.path().join("backup"), folder.path().join("restored"));
    let data = path(&data(&server)).to_owned();

    let first = Image::random();
    client.push_image("team/app", "1", &first).await;
    let large = Content::random(2_000_000);
    client.push_blob("team/app", &large).await;

    // Others push all the while.
    let pusher = {
        let client = server.admin(Version::Http2);
        tokio::spawn(async move {
            for round in 0..1_000 {
                let image = Image::random();
                client
                    .push_image("team/busy", &round.to_string(), &image)
                    .await;
            }
        })
    };
    for _ in 0..3 {
        let output = wharf(&["backup", "create", path(&backup), "--data", &data]).await;
        expect(&output, 0);
    }
    pusher.abort();
    let _ = pusher.await;
    expect(&wharf(&["backup", "verify", path(&backup)]).await, 0);

    // A second restore into the same place would mix two registries.
    let restore = [
        "backup",
        "restore",
        path(&backup),
        "--data",
        path(&restored),
    ];
    expect(&wharf(&restore).await, 0);
    let refused = wharf(&restore).await;
    assert_ne!(refused.status.code(), Some(0));
    server.kill();

    // The key that opens the secrets is in no backup; nothing is done with the database before it is there.
    let verify = ["storage", "verify", "--deep", "--data", path(&restored)];
    let key = Path::new(&data).join("secret.key");
    if key.exists() {
        let told = expect(&wharf(&verify).await, 3);
        assert!(
            told.contains("secrets in the database are sealed with the key"),
            "{told}"
        );
        std::fs::copy(&key, restored.join("secret.key")).unwrap();
    }
    expect(&wharf(&verify).await, 0);
    // The restored folder takes the place of the lost one.
    std::fs::rename(&data, server.folder().join("lost")).unwrap();
    std::fs::rename(&restored, &data).unwrap();
    server.again().await;
    let client = server.admin(Version::Http1);
    let got = client
        .get(&manifest("team/app", "1"))
        .send()
        .await
        .expect_status(200);
    assert_eq!(got.body, first.manifest.bytes);
    for content in first.blobs() {
        assert!(holds(&client, "team/app", content).await);
    }
    assert!(holds(&client, "team/app", &large).await);
}

#[tokio::test]
async fn a_backup_that_is_killed_leaves_the_one_before_whole() {
    let mut server = start().await;
    let client = server.admin(Version::Http1);
    let folder = tempfile::tempdir().unwrap();
    let backup = folder.path().join("backup");
    let data = path(&data(&server)).to_owned();
    let create = || vec!["backup", "create", path(&backup), "--data", &data];

    client.push_image("team/app", "1", &Image::random()).await;
    expect(&wharf(&create()).await, 0);
    for pause in [0, 2, 5, 10, 20] {
        let client = server.admin(Version::Http1);
        for number in 0..5 {
            let content = Content::random(50_000 + number);
            client.push_blob("team/app", &content).await;
        }
        let args: Vec<String> = create().iter().map(|&arg| arg.to_owned()).collect();
        let running = tokio::task::spawn_blocking(move || Command::new(WHARF).args(args).output());
        tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
        server.kill();
        let _ = running.await.unwrap();
        expect(&wharf(&["backup", "verify", path(&backup)]).await, 0);
        server.again().await;
    }
    expect(&wharf(&create()).await, 0);
    expect(&wharf(&["backup", "verify", path(&backup)]).await, 0);
}

#[tokio::test]
async fn a_folder_that_is_no_backup_is_left_alone() {
    let server = start().await;
    let folder = tempfile::tempdir().unwrap();
    let precious = folder.path().join("thesis.txt");
    std::fs::write(&precious, "years of work").unwrap();
    let data = path(&data(&server)).to_owned();
    for args in [
        ["backup", "create", path(folder.path()), "--data", &data],
        ["backup", "restore", path(folder.path()), "--data", &data],
    ] {
        let output = wharf(&args).await;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_ne!(output.status.code(), Some(0));
        assert!(text.contains("backup"), "{text}");
    }
    assert_eq!(std::fs::read(&precious).unwrap(), b"years of work");
}
