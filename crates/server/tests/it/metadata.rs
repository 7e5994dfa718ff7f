//! `wharf metadata copy`: from a file to PostgreSQL and back, and what it refuses.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use wharf_testkit::{Client, Content, Image, Process, TestOptions, Version, test_server};

use crate::support::{holds, manifest};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");

async fn copy(from: &str, to: &str) -> Output {
    let (from, to) = (from.to_owned(), to.to_owned());
    tokio::task::spawn_blocking(move || {
        Command::new(WHARF)
            .args(["metadata", "copy", "--from", &from, "--to", &to])
            .output()
    })
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

async fn pulls(client: &Client, reference: &str, image: &Image) {
    let got = client
        .get(&manifest("team/app", reference))
        .send()
        .await
        .expect_status(200);
    assert_eq!(got.body, image.manifest.bytes);
    for blob in image.blobs() {
        assert!(holds(client, "team/app", blob).await);
    }
}

fn sqlite(folder: &Path) -> String {
    format!("sqlite://{}", folder.display())
}

async fn on_file() -> Process {
    let options = TestOptions {
        on_file: true,
        ..TestOptions::default()
    };
    Process::start(Path::new(WHARF), options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_moves_to_postgresql_and_back() {
    let mut server = on_file().await;
    let data = server.folder().join("data");
    let (first, second) = (Image::random(), Image::random());
    let large = Content::random(200_000);
    let client = server.admin(Version::Http1);
    client.push_image("team/app", "v1", &first).await;
    client.push_blob("team/app", &large).await;

    let database = test_server::shared().empty("");
    // A server that runs holds the folder.
    let told = expect(&copy(&sqlite(&data), &database.url()).await, 1);
    assert!(told.contains("--from: the data folder"), "{told}");
    assert!(told.contains("is in use by process"), "{told}");

    assert!(server.terminate().await.success());
    let told = expect(&copy(&sqlite(&data), &database.url()).await, 0);
    let line = |table: &str| told.lines().find(|line| line.starts_with(table)).unwrap();
    let words: Vec<&str> = line("tag ").split_whitespace().collect();
    assert_eq!((words[1], words[2].len()), ("1", 64), "{told}");
    assert!(told.contains("are the same"), "{told}");
    // It holds something now.
    let told = expect(&copy(&sqlite(&data), &database.url()).await, 1);
    assert!(
        told.contains("--to: the target holds something already"),
        "{told}"
    );

    // From PostgreSQL, without the file that it came from: blobs are in their folder, and users where they were.
    std::fs::rename(data.join("wharf.db"), data.join("old.db")).unwrap();
    let database = Arc::new(database);
    server.set_database(Some(database.clone()));
    server.again().await;
    pulls(&client, "v1", &first).await;
    assert!(holds(&client, "team/app", &large).await);
    client.push_image("team/app", "v2", &second).await;
    assert!(!data.join("wharf.db").exists());

    // And back, once it no longer serves.
    let told = expect(&copy(&database.url(), &sqlite(&data)).await, 3);
    assert!(told.contains("--from: the replica"), "{told}");
    assert!(server.terminate().await.success());
    expect(&copy(&database.url(), &sqlite(&data)).await, 0);
    server.set_database(None);
    server.again().await;
    pulls(&client, "v1", &first).await;
    pulls(&client, "v2", &second).await;
    assert!(holds(&client, "team/app", &large).await);
    client.push_image("team/app", "v3", &Image::random()).await;
}

/// Half a copy is not served from, and says so.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_serves_from_a_copy_that_broke_off() {
    let mut server = on_file().await;
    assert!(server.terminate().await.success());
    let database = server.folder().join("data/wharf.db");
    let (meta, _) = wharf_meta::Meta::open(wharf_meta::SqliteOptions::new(&database)).unwrap();
    let (key, value) = ("copy.unfinished".to_owned(), "yes".to_owned());
    meta.write(wharf_meta::setting::Put { key, value })
        .await
        .unwrap();
    meta.close().await;
    let told = server.try_again().await.unwrap_err();
    assert!(told.contains("a copy that broke off"), "{told}");
}

/// Each mistake is told in one sentence that begins with the flag.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_cannot_be_made_names_the_flag() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| sqlite(&folder.path().join(name));
    let foreign = test_server::shared().empty("");
    foreign.make_foreign();
    let empty = test_server::shared().empty("");
    let mut server = on_file().await;
    assert!(server.terminate().await.success());
    let data = sqlite(&server.folder().join("data"));
    let nobody = "postgres://wharf@127.0.0.1:1/wharf?sslmode=disable";
    for (from, to, code, told) in [
        (
            "/var/lib/wharf",
            "x",
            2,
            "--from: it is neither sqlite://FOLDER nor",
        ),
        (&data, "x", 2, "--to: it is neither"),
        (
            &path("none"),
            &path("to"),
            3,
            "--from: there is no database",
        ),
        (
            &empty.url(),
            &path("to"),
            3,
            "--from: the database is empty",
        ),
        (
            &data,
            nobody,
            1,
            "--to: postgres://127.0.0.1:1/wharf cannot be reached",
        ),
        (
            &data,
            &foreign.url(),
            1,
            "--to: the database holds tables of something else",
        ),
        (
            &foreign.url(),
            &path("to"),
            1,
            "--from: the database holds tables of something else",
        ),
    ] {
        let said = expect(&copy(from, to).await, code);
        assert!(said.contains(told), "{told}\n{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert_eq!(foreign.tables(), "somebody_elses", "nothing was written");
    assert!(!folder.path().join("to").exists());
}
