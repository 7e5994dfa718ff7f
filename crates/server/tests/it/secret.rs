//! The key outside the database that seals the secrets in it (`access.secret_key`): what a stolen database is worth, and which
//! replicas may use it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use wharf_core::access::SecretKeys;
use wharf_meta::{Meta, SqliteOptions, signing_key};
use wharf_testkit::test_server;
use wharf_testkit::{Client, Process, TestOptions, Version};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");

fn with_key(text: &str) -> TestOptions {
    TestOptions {
        config: format!("[access]\nsecret_key = '''\n{text}\n'''\n"),
        on_file: true,
        files: true,
        ..TestOptions::default()
    }
}

async fn token(client: &Client) -> String {
    let answer = client.fetch_token(&[]).await.expect_status(200);
    answer.json()["token"].as_str().expect("a token").to_owned()
}

/// Whether a bearer token is good.
async fn is_good(client: &Client, token: &str) -> bool {
    let answer = client.clone().with_token(token).get("/v2/").send().await;
    match answer.status.as_u16() {
        200 => true,
        401 => false,
        _ => panic!("{answer}"),
    }
}

async fn sealed_keys(database: &Path) -> Vec<Vec<u8>> {
    let (meta, _) = Meta::open(SqliteOptions::new(database)).expect("the database");
    let keys = meta.read(signing_key::List).await.expect("keys");
    meta.close().await;
    keys.into_iter().map(|key| key.private_der).collect()
}

/// A copy of the database alone, and a backup: the keys that sign are in neither.
#[tokio::test(flavor = "multi_thread")]
async fn a_stolen_database_signs_no_token() {
    let options = TestOptions {
        on_file: true,
        files: true,
        ..TestOptions::default()
    };
    let mut server = Process::start(Path::new(WHARF), options.clone()).await;
    let client = server.admin(Version::Http1);
    let first = token(&client).await;
    assert!(is_good(&client, &first).await);
    server.terminate().await;
    let data = server.folder().join("data");
    for kept in sealed_keys(&data.join("wharf.db")).await {
        // Neither PKCS#8 itself nor anything in it: the object identifier of the curve.
        let curve = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        assert!(!kept.windows(curve.len()).any(|part| part == curve));
    }
    // With its own key it goes on; the thief's registry begins anew, and says so.
    server.again().await;
    assert!(is_good(&client, &first).await);
    server.terminate().await;
    let stolen = Process::start_in(Path::new(WHARF), options, |folder| {
        std::fs::create_dir(folder.join("data")).expect("a folder");
        std::fs::copy(data.join("wharf.db"), folder.join("data/wharf.db")).expect("a copy");
    })
    .await;
    let theirs = stolen.admin(Version::Http1);
    assert!(!is_good(&theirs, &first).await);
    let second = token(&theirs).await;
    assert!(is_good(&theirs, &second).await);
    assert!(
        stolen.output().contains("are forgotten"),
        "{}",
        stolen.output()
    );
    server.again().await;
    assert!(is_good(&client, &first).await && !is_good(&client, &second).await);
}

/// First the new key opens beside the old one, then it seals, then the old one goes: tokens stay good all the time.
#[tokio::test]
async fn a_key_is_replaced_without_ending_a_token() {
    let (old, new) = (SecretKeys::make(), SecretKeys::make());
    let mut server = Process::start(Path::new(WHARF), with_key(&old)).await;
    let client = server.admin(Version::Http1);
    let issued = token(&client).await;
    let mut kept = Vec::new();
    for keys in [format!("{old}\n{new}"), format!("{new}\n{old}"), new] {
        server.terminate().await;
        kept.push(sealed_keys(&server.folder().join("data/wharf.db")).await);
        server.set_config(&with_key(&keys).config);
        server.again().await;
        assert!(
            is_good(&client, &issued).await,
            "with {} keys",
            keys.lines().count()
        );
    }
    assert_eq!(kept[0], kept[1], "a key that only opens seals nothing");
    assert_ne!(kept[1], kept[2]);
    assert!(!server.folder().join("data/secret.key").exists());
}

/// Replicas need the same key; one with another is refused before it makes the others' tokens void.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_another_key_is_refused_until_the_secrets_are_forgotten() {
    let database = Arc::new(test_server::shared().database());
    let shared = tempfile::tempdir().expect("a folder");
    let options = |key: &str| TestOptions {
        config: format!("[access]\nsecret_key = \"{key}\"\n"),
        database: Some(database.clone()),
        shared: Some(shared.path().into()),
        ..TestOptions::default()
    };
    let (key, other) = (SecretKeys::make(), SecretKeys::make());
    let mut one = Process::start(Path::new(WHARF), options(&key)).await;
    let mut two = Process::start(Path::new(WHARF), options(&key)).await;
    let issued = token(&one.admin(Version::Http1)).await;
    assert!(is_good(&two.admin(Version::Http1), &issued).await);
    two.terminate().await;
    one.terminate().await;
    one.set_config(&options(&other).config);
    let told = one.try_again().await.expect_err("another key");
    assert!(
        told.contains("`access.secret_key_file`") && told.contains("wharf admin forget-secrets"),
        "{told}"
    );
    one.set_config(&options(&key).config);
    one.again().await;
    assert!(is_good(&one.admin(Version::Http1), &issued).await);

    let lost = tempfile::tempdir().expect("a folder");
    let forget = || {
        let mut command = Command::new(WHARF);
        command
            .args(["admin", "forget-secrets", "--data"])
            .arg(lost.path())
            .env("WHARF_METADATA_URL", database.url())
            .env("WHARF__STORAGE__FOLDER", shared.path());
        let output = command.output().expect("it runs");
        (
            output.status.code(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    let (code, told) = tokio::task::block_in_place(forget);
    assert_eq!(code, Some(3), "{told}");
    assert!(told.contains("stop all replicas first"), "{told}");
    one.terminate().await;
    let (code, told) = tokio::task::block_in_place(forget);
    assert_eq!(code, Some(0), "{told}");
    one.set_config(&options(&other).config);
    one.again().await;
    assert!(!is_good(&one.admin(Version::Http1), &issued).await);
}
