//! The key outside the database that seals the secrets in it (`access.secret_key`): what a stolen database is worth, and which
//! replicas may use it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use wharf_core::access::SecretKeys;
use wharf_meta::{Meta, SqliteOptions, signing_key};
use wharf_testkit::test_server;
use wharf_testkit::{Client, Process, TestOptions, Version};

use crate::setup::Setup;

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
    // With its own key it goes on; the thief's registry begins anew when it is told to.
    server.again().await;
    assert!(is_good(&client, &first).await);
    server.terminate().await;
    let stolen = Process::start_in(Path::new(WHARF), options, |folder| {
        std::fs::create_dir(folder.join("data")).expect("a folder");
        std::fs::copy(data.join("wharf.db"), folder.join("data/wharf.db")).expect("a copy");
        let mut forget = Command::new(WHARF);
        forget
            .args(["admin", "forget-secrets", "--data"])
            .arg(folder.join("data"));
        let output = forget.output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
    })
    .await;
    let theirs = stolen.admin(Version::Http1);
    assert!(!is_good(&theirs, &first).await);
    let second = token(&theirs).await;
    assert!(is_good(&theirs, &second).await);
    server.again().await;
    assert!(is_good(&client, &first).await && !is_good(&client, &second).await);
}

/// All files below, but for what locks and maps.
fn kept(folder: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut kept = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let passing = ["lock", "-shm", ".sock"]
            .iter()
            .any(|end| path.to_string_lossy().ends_with(end));
        match path.is_dir() {
            true => kept.extend(self::kept(&path)),
            false if passing => {}
            false => kept.push((path.clone(), std::fs::read(&path).expect("its bytes"))),
        }
    }
    kept.sort();
    kept
}

fn named(text: &str) -> String {
    SecretKeys::parse(text).expect("a key").name()
}

/// Another key, one from elsewhere, none: said alike by the check and by the start, before anything is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_key_is_told_by_start_and_check_and_changes_nothing_in_a_file() {
    let options = TestOptions {
        on_file: true,
        files: true,
        ..TestOptions::default()
    };
    let mut server = Process::start(Path::new(WHARF), options).await;
    let client = server.admin(Version::Http1);
    let issued = token(&client).await;
    server.terminate().await;
    let data = server.folder().join("data");
    let file = data.join("secret.key");
    let own = std::fs::read_to_string(&file).expect("the key");
    let sealed_with = format!("are sealed with the key {}", named(&own));
    let other = SecretKeys::make();
    let ours = format!("this process has the key {}", named(&other));
    let cure = "begin anew with `wharf admin forget-secrets`";
    let given = server.folder().join("other.key");
    std::fs::write(&given, &other).expect("a file");
    let by_file = format!("[access]\nsecret_key_file = {given:?}\n");
    for (at_home, config, place) in [
        (Some(&other), "", file.to_str().expect("a path")),
        (Some(&own), &*by_file, "`access.secret_key_file`: "),
        (None, &*by_file, "`access.secret_key_file`: "),
        (None, "", "there is neither `access.secret_key_file` nor "),
    ] {
        match at_home {
            Some(key) => std::fs::write(&file, key).expect("a key"),
            None => std::fs::remove_file(&file).unwrap_or_default(),
        }
        let before = kept(&data);
        let setup = Setup::over(config, data.clone());
        let has = if place.starts_with("there") {
            ""
        } else {
            &*ours
        };
        setup.both_say(&[place, &sealed_with, has, cure]).await;
        assert!(kept(&data) == before, "something was written");
    }
    // The right one beside another that seals from now on.
    std::fs::write(&file, &own).expect("the key");
    let (code, told) = Setup::over("", data.clone()).check().await;
    let opens = format!(
        "The secret key {} opens the secrets in the database.",
        named(&own)
    );
    assert!(code == 0 && told.contains(&opens), "{told}");
    server.again().await;
    assert!(is_good(&client, &issued).await);
    // What a killed process left cannot be looked at from outside, and is refused all the same.
    server.kill();
    std::fs::write(&file, &other).expect("another key");
    let told = server.try_again().await.expect_err("another key");
    assert!(told.contains(&sealed_with) && told.contains(cure), "{told}");
    std::fs::remove_file(&file).expect("no key");
    server.try_again().await.expect_err("no key");
    assert!(!file.exists(), "none is made for what another one sealed");
    std::fs::write(&file, &own).expect("the key");
    server.again().await;
    assert!(is_good(&client, &issued).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_key_is_told_by_start_and_check_and_changes_nothing_in_postgresql() {
    let database = Arc::new(test_server::shared().database());
    let shared = tempfile::tempdir().expect("a folder");
    let stores = format!(
        "[metadata]\nurl = {:?}\n[storage]\nfolder = {:?}\n",
        database.url(),
        shared.path()
    );
    let (key, other) = (SecretKeys::make(), SecretKeys::make());
    let options = TestOptions {
        config: format!("[access]\nsecret_key = \"{key}\"\n"),
        database: Some(database.clone()),
        shared: Some(shared.path().into()),
        ..TestOptions::default()
    };
    let mut server = Process::start(Path::new(WHARF), options).await;
    let client = server.admin(Version::Http1);
    let issued = token(&client).await;
    let rows = async || {
        let options = wharf_meta::PostgresOptions::new(database.url());
        let (meta, _) = Meta::connect(options).await.expect("the database");
        let setting = wharf_meta::setting::Get {
            key: wharf_meta::SECRET_KEY.to_owned(),
        };
        let rows = (meta.read(setting).await, meta.read(signing_key::List).await);
        meta.close().await;
        (rows.0.expect("a name"), rows.1.expect("keys"))
    };
    let before = rows().await;
    let sealed_with = format!("are sealed with the key {}", named(&key));
    // While another replica serves, and after it.
    for _ in 0..2 {
        let with = format!("[access]\nsecret_key = \"{other}\"\n{stores}");
        let setup = Setup::new(&with);
        let ours = format!("this process has the key {}", named(&other));
        setup
            .both_say(&["`access.secret_key_file`: ", &sealed_with, &ours])
            .await;
        let setup = Setup::new(&stores);
        setup
            .both_say(&["there is neither", &sealed_with, "forget-secrets"])
            .await;
        assert_eq!(rows().await, before);
        server.terminate().await;
        server.again().await;
    }
    assert!(is_good(&client, &issued).await);
    let (code, told) = Setup::new(&format!(
        "[access]\nsecret_key = \"{other}\\n{key}\"\n{stores}"
    ))
    .check()
    .await;
    let turns = format!(
        "which are sealed with {}; the next start seals them with {}.",
        named(&key),
        named(&other)
    );
    assert!(code == 0 && told.contains(&turns), "{told}");
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
