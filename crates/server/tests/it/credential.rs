//! Robots and API tokens over the wire: every way to show one, what a narrow one is refused wherever it is asked, and how soon
//! one that was revoked or has ended is refused, here and on another replica.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use wharf_testkit::client::Response;
use wharf_testkit::content::ImageSpec;
use wharf_testkit::test_server;
use wharf_testkit::{Client, Content, Image, Process, TestOptions, Version};

use crate::support::{blob, manifest, texts};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");
/// Where the narrow ones may do what their scopes and grants say.
const OWN: &str = "team/a/app";
/// Where they may not, and alice herself may.
const OTHER: &str = "team/b/app";
/// What is asked for at the token endpoint: more than a narrow one gets.
const EVERYTHING: [&str; 3] = [
    "repository:team/a/app:pull,push,delete",
    "repository:team/b/app:pull,push,delete",
    "registry:catalog:*",
];

/// Longest wait for something that comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// Alice writes below `team`; bob may nothing.
fn options() -> TestOptions {
    TestOptions {
        htpasswd: vec![("alice", "a"), ("bob", "b")],
        htpasswd_role: Some("none"),
        grants: vec![("alice", "writer", "team")],
        ..TestOptions::default()
    }
}

/// Runs a command off the runtime, so that the server goes on answering, and gives back what it prints for scripts.
async fn wharf(server: &Process, words: &str) -> String {
    let mut command = Command::new(WHARF);
    command.args(words.split(' '));
    command.arg("--data").arg(server.folder().join("data"));
    let output = tokio::task::spawn_blocking(move || command.output()).await;
    let output = output.expect("a thread").expect("a program");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}: {errors}");
    let text = String::from_utf8(output.stdout).expect("text");
    text.trim_end().to_owned()
}

/// The id of the one secret that there is, in a list as JSON: of robots or of tokens.
async fn id(server: &Process, words: &str) -> String {
    let listed: serde_json::Value =
        serde_json::from_str(&wharf(server, words).await).expect("JSON");
    let first = &listed[0];
    let first = first.get("secrets").map_or(first, |secrets| &secrets[0]);
    first["id"].as_str().expect("an id").to_owned()
}

/// A credential and whose it is.
#[derive(Clone)]
struct Credential {
    name: &'static str,
    secret: String,
    /// The command that ends it, and nothing else.
    revoke: String,
}

/// A robot that writes below `team/a`.
async fn robot(server: &Process) -> Credential {
    let secret = wharf(server, "robot create team/a+ci --expires 90d").await;
    wharf(server, "grant team/a+ci writer on team/a").await;
    let id = id(server, "robot list --json").await;
    Credential {
        name: "team/a+ci",
        secret,
        revoke: format!("token revoke {id}"),
    }
}

/// A token of alice with this scope.
async fn token(server: &Process, scope: &str) -> Credential {
    let words = format!("token create alice --name laptop --scope {scope} --expires 30d");
    let secret = wharf(server, &words).await;
    let id = id(server, "token list alice --json").await;
    Credential {
        name: "alice",
        secret,
        revoke: format!("token revoke {id}"),
    }
}

/// What the token endpoint sells.
async fn buy(client: &Client) -> String {
    let bought = client.fetch_token(&EVERYTHING).await.expect_status(200);
    bought.json()["token"].as_str().expect("a token").to_owned()
}

/// Every way to show a credential: as a password, as a bearer token, and as what the token endpoint sells for it.
async fn ways(client: &Client, it: &Credential) -> [(&'static str, Client); 3] {
    let basic = client.clone().with_basic(it.name, &it.secret);
    let bearer = client.clone().with_token(&it.secret);
    let bought = buy(&basic).await;
    [
        ("password", basic),
        ("bearer", bearer),
        ("bought", client.clone().with_token(&bought)),
    ]
}

async fn status(client: &Client, path: &str) -> u16 {
    client.get(path).send().await.status.as_u16()
}

/// What lies in both namespaces: an image with something that refers to it.
struct Stock {
    image: Image,
    layer: Content,
}

async fn stock(server: &Process) -> Stock {
    let admin = server.admin(Version::Http1);
    let image = Image::random();
    let about = ImageSpec::artifact("application/x.test", &image.manifest).build();
    let layer = Content::random(100_000);
    for name in [OWN, OTHER] {
        admin.push_image(name, "v1", &image).await;
        let digest = about.manifest.digest.to_string();
        admin.push_image(name, &digest, &about).await;
    }
    admin.push_blob(OTHER, &layer).await;
    Stock { image, layer }
}

async fn catalogue(client: &Client) -> Vec<String> {
    let page = client.get("/v2/_catalog").send().await.expect_status(200);
    texts(&page.json()["repositories"])
}

/// 403, by whichever way: whoever it is lacks the right, and no other token would change that.
#[track_caller]
fn refused(way: &str, answer: Response) {
    assert_eq!(answer.status, 403, "{way}: {answer}");
    answer.expect_error(403, "DENIED");
}

/// The other namespace is as closed as if its owner had no right there, by every way and at every endpoint.
async fn keeps_to_its_own(way: &str, client: &Client, stock: &Stock) {
    let digest = &stock.image.manifest.digest;
    for path in [
        manifest(OTHER, "v1"),
        manifest(OTHER, digest),
        blob(OTHER, &stock.layer.digest),
        format!("/v2/{OTHER}/tags/list"),
        format!("/v2/{OTHER}/referrers/{digest}"),
    ] {
        refused(way, client.get(&path).send().await);
    }
    let upload = format!("/v2/{OTHER}/blobs/uploads/");
    refused(way, client.post(&upload).body("").send().await);
    let put = client.put_manifest(OTHER, "v2", &stock.image.manifest);
    refused(way, put.send().await);
    let delete = client.delete(&manifest(OTHER, "v1"));
    refused(way, delete.send().await);
    assert_eq!(catalogue(client).await, [OWN], "{way}");
    for path in [
        manifest(OWN, "v1"),
        format!("/v2/{OWN}/tags/list"),
        format!("/v2/{OWN}/referrers/{digest}"),
    ] {
        client.get(&path).send().await.expect_status(200);
    }
}

/// Both write below `team/a`: they push there, and mount nothing from elsewhere.
/// Spec: LOGIN-1.
#[tokio::test]
async fn a_robot_and_a_token_push_in_their_namespace_and_see_no_other() {
    let server = Process::start(Path::new(WHARF), options()).await;
    let stock = stock(&server).await;
    let client = server.admin(Version::Http1);
    let mount = format!(
        "/v2/{OWN}/blobs/uploads/?mount={}&from={OTHER}",
        stock.layer.digest
    );
    for it in [robot(&server).await, token(&server, "writer:team/a").await] {
        for (way, client) in ways(&client, &it).await {
            let name = it.name;
            eprintln!("{name} by {way}");
            client.push_image(OWN, way, &Image::random()).await;
            keeps_to_its_own(way, &client, &stock).await;
            let session = client.post(&mount).body("").send().await;
            session.expect_status(202);
            let there = blob(OWN, &stock.layer.digest);
            assert_eq!(status(&client, &there).await, 404, "{name} by {way}");
        }
    }
    // It is the token that is narrow, not its user.
    let alice = client.with_basic("alice", "a");
    assert_eq!(catalogue(&alice).await, [OWN, OTHER]);
    alice.post(&mount).body("").send().await.expect_status(201);
}

/// A token for reading reads, and pushes nothing although its user may.
#[tokio::test]
async fn a_token_for_reading_is_refused_every_push() {
    let server = Process::start(Path::new(WHARF), options()).await;
    let stock = stock(&server).await;
    let client = server.admin(Version::Http1);
    let it = token(&server, "reader:team/a").await;
    for (way, client) in ways(&client, &it).await {
        keeps_to_its_own(way, &client, &stock).await;
        let upload = client.post(&format!("/v2/{OWN}/blobs/uploads/"));
        refused(way, upload.body("").send().await);
        let put = client.put_manifest(OWN, "v2", &stock.image.manifest);
        refused(way, put.send().await);
        refused(way, client.delete(&manifest(OWN, "v1")).send().await);
    }
    let alice = client.clone().with_basic("alice", "a");
    alice.push_image(OWN, "v2", &Image::random()).await;
    // Nor is it anything under another name, or with another end.
    let mut cut = it.secret.clone();
    let last = cut.pop();
    cut.push(if last == Some('0') { '1' } else { '0' });
    for wrong in [
        client.clone().with_basic("bob", &it.secret),
        client.clone().with_basic("alice", &cut),
        client.clone().with_token(&cut),
    ] {
        assert_eq!(status(&wrong, "/v2/").await, 401);
        wrong.fetch_token(&EVERYTHING).await.expect_status(401);
    }
}

/// Waits until the answer is another one; gives how long that took.
async fn until(client: &Client, path: &str, from: u16, to: u16) -> Duration {
    let started = Instant::now();
    loop {
        let answer = status(client, path).await;
        if answer == to {
            return started.elapsed();
        }
        assert_eq!(answer, from, "neither before nor after");
        assert!(started.elapsed() < PATIENCE, "it stays {from}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Where it is done it counts with the next request; other credentials of the same name go on.
#[tokio::test]
async fn what_is_revoked_or_has_ended_is_refused_with_all_it_bought() {
    let server = Process::start(Path::new(WHARF), options()).await;
    stock(&server).await;
    let client = server.admin(Version::Http1);
    let target = manifest(OWN, "v1");
    for it in [robot(&server).await, token(&server, "reader:team/a").await] {
        let ways = ways(&client, &it).await;
        for (way, client) in &ways {
            assert_eq!(status(client, &target).await, 200, "{way}");
        }
        wharf(&server, &it.revoke).await;
        for (way, client) in &ways {
            assert_eq!(status(client, &target).await, 401, "{way}");
        }
        ways[0].1.fetch_token(&EVERYTHING).await.expect_status(401);
    }
    let alice = client.clone().with_basic("alice", "a");
    assert_eq!(status(&alice, &target).await, 200);

    // The end of a token, and of the older of two secrets.
    wharf(&server, "robot create team/a+old --expires 90d").await;
    wharf(&server, "grant team/a+old reader on team/a").await;
    let rotate = "robot rotate team/a+old --overlap 24h";
    let secret = wharf(&server, rotate).await;
    let short = Credential {
        name: "team/a+old",
        secret,
        revoke: String::new(),
    };
    let ways = ways(&client, &short).await;
    for (way, client) in &ways {
        assert_eq!(status(client, &target).await, 200, "{way}");
    }
    let new = wharf(&server, "robot rotate team/a+old --overlap 3s").await;
    for (way, client) in &ways {
        let took = until(client, &target, 200, 401).await;
        eprintln!("{way}: refused after {took:?}");
    }
    let new = client.clone().with_basic("team/a+old", &new);
    assert_eq!(status(&new, &target).await, 200);
    let words = "token create alice --name short --scope reader:team/a --expires 3s";
    let ended = wharf(&server, words).await;
    let ended = client.clone().with_token(&ended);
    until(&ended, &target, 200, 401).await;
    assert_eq!(status(&alice, &target).await, 200);
}

/// Revoked at one replica: there at once, at the other within seconds, also for what was bought at the one or at the other.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_revoked_at_one_replica_ends_at_the_other() {
    let options = TestOptions {
        database: Some(Arc::new(test_server::shared().database())),
        ..options()
    };
    let one = Process::start(Path::new(WHARF), options.clone()).await;
    let two = Process::start(Path::new(WHARF), options).await;
    stock(&one).await;
    let (here, there) = (one.admin(Version::Http1), two.admin(Version::Http1));
    let target = manifest(OWN, "v1");
    for it in [robot(&one).await, token(&one, "reader:team/a").await] {
        let heard = there.clone().with_basic(it.name, &it.secret);
        // The grant of the robot is as new as the robot.
        until(&heard, &target, 403, 200).await;
        let at_one = ways(&here, &it).await;
        let mut at_two = ways(&there, &it).await.to_vec();
        let bought = buy(&at_one[0].1).await;
        at_two.push(("bought at the first", there.clone().with_token(&bought)));
        for (way, client) in at_one.iter().chain(&at_two) {
            assert_eq!(status(client, &target).await, 200, "{way}");
        }
        wharf(&one, &it.revoke).await;
        let revoked = Instant::now();
        for (way, client) in &at_one {
            assert_eq!(status(client, &target).await, 401, "{way}, at once");
        }
        while let Some((way, client)) = at_two.pop() {
            until(&client, &target, 200, 401).await;
            let (name, took) = (it.name, revoked.elapsed());
            eprintln!("{name} by {way}: ended on the other replica after {took:?}");
        }
        heard.fetch_token(&EVERYTHING).await.expect_status(401);
    }
}

/// What docker does with identity tokens switched on: `docker login` trades the credential for a refresh token, and each pull
/// trades that for an access token by POST.
async fn refresh(client: &Client, refresh: &str, scope: &str) -> Response {
    let body = format!(
        "grant_type=refresh_token&service=wharf&client_id=docker&scope={}&refresh_token={}",
        wharf_oci::percent::encode_query(scope),
        wharf_oci::percent::encode_query(refresh)
    );
    let request = client.clone().anonymous().post("/token");
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    request.body(body).send().await
}

async fn logged_in(client: &Client) -> String {
    let answer = client.get("/token?service=wharf&offline_token=true&client_id=docker");
    let answer = answer.send().await.expect_status(200).json();
    answer["refresh_token"].as_str().expect("one").to_owned()
}

/// A refresh token is worth what the credential is worth with which it was bought, never rotates, and dies with it: replayed after
/// that, by itself or by what it bought, it is refused.
#[tokio::test]
async fn attack_a_refresh_token_outlives_or_outgrows_its_credential() {
    let options = TestOptions {
        config: "[auth]\nidentity_tokens = true\n".into(),
        ..options()
    };
    let server = Process::start(Path::new(WHARF), options).await;
    let stock = stock(&server).await;
    let client = server.admin(Version::Http1);
    let scopes = EVERYTHING.join(" ");
    for it in [robot(&server).await, token(&server, "writer:team/a").await] {
        let name = it.name;
        let basic = client.clone().with_basic(name, &it.secret);
        let kept = logged_in(&basic).await;
        let buy = async || {
            let answer = refresh(&client, &kept, &scopes)
                .await
                .expect_status(200)
                .json();
            // Docker stores no other one while it pulls.
            let other = answer["refresh_token"].as_str();
            assert!(
                other.is_none_or(|other| other == kept),
                "{name}: it rotated"
            );
            let bought = answer["access_token"].as_str().expect("a token");
            client.clone().with_token(bought)
        };
        let bought = buy().await;
        keeps_to_its_own(name, &bought, &stock).await;
        bought.push_image(OWN, "by-refresh", &Image::random()).await;
        let again = buy().await;
        let target = manifest(OWN, "v1");
        assert_eq!(status(&again, &target).await, 200, "{name}");

        wharf(&server, &it.revoke).await;
        for client in [&bought, &again] {
            assert_eq!(status(client, &target).await, 401, "{name}: replayed");
        }
        refresh(&client, &kept, &scopes).await.expect_status(401);
        // Nor is it anything else.
        assert_eq!(
            status(&client.clone().with_token(&kept), &target).await,
            401
        );
        assert_eq!(
            status(&client.clone().with_basic(name, &kept), &target).await,
            401
        );
    }
    // By password it goes on, until the password is another.
    let alice = client.clone().with_basic("alice", "a");
    let kept = logged_in(&alice).await;
    refresh(&client, &kept, &scopes).await.expect_status(200);
}
