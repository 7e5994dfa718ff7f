//! Clients that show certificates: who they are by them, what tokens bought with them are worth, and how they end.

use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use wharf::http::tls::{Ask, AskAt, ClientOptions, SelfSigned, Tls};
use wharf_testkit::ca::{Ca, Identity};
use wharf_testkit::{Client, Image, Process, TestOptions, Version};

use crate::http_support::Toybox;
use crate::support::manifest;

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");
const OWN: &str = "team/a/app";
const CONFIG: &str = r#"
[server]
trusted_proxies = ["127.0.0.1/32"]

[tls.clients]
ca = "clients.pem"
crl = ["revoked.pem"]

[[tls.clients.user]]
from = "email"
matches = "*@example.com"
"#;
/// Longest wait for something that comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);
/// The years in which certificates of these tests are good.
const GOOD: (i32, i32) = (2020, 4000);

/// A registry that asks clients for certificates of an authority, with an image that `alice` may push.
struct Stage {
    server: Process,
    clients: Ca,
}

impl Stage {
    async fn new() -> Self {
        let clients = Ca::new();
        let options = TestOptions {
            tls: true,
            htpasswd: vec![("alice", "x"), ("bob", "x")],
            htpasswd_role: Some("none"),
            grants: vec![("alice", "writer", "team/a")],
            config: CONFIG.into(),
            ..TestOptions::default()
        };
        let server = Process::start_in(Path::new(WHARF), options, |folder| {
            std::fs::write(folder.join("clients.pem"), clients.pem()).unwrap();
            std::fs::write(folder.join("revoked.pem"), clients.revoke(&[])).unwrap();
        });
        let server = server.await;
        let admin = server.admin(Version::Http1);
        admin.push_image(OWN, "v1", &Image::random()).await;
        Self { server, clients }
    }

    /// Whoever shows this certificate, and nothing else.
    fn with(&self, identity: &Identity, version: Version) -> Client {
        let config = self.server.ca.client_config_as(identity);
        let client = self.server.admin(version).anonymous();
        client.with_tls(&config)
    }

    fn named(&self, names: &[&str], serial: u64) -> Client {
        let identity = self.clients.issue_client(names, serial, GOOD);
        self.with(&identity, Version::Http1)
    }

    async fn wharf(&self, words: &str) -> Output {
        let mut command = std::process::Command::new(WHARF);
        command
            .args(words.split(' '))
            .args(["--data", "data"])
            .current_dir(self.server.folder())
            .env("XDG_CONFIG_HOME", self.server.folder())
            .stdin(std::process::Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output()).await;
        output.expect("a thread").expect("a program")
    }
}

#[track_caller]
fn good(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

/// The status of a pull, and of the begin of a push; 0 where there was no connection.
async fn may(client: &Client) -> (u16, u16) {
    let status = |answer: anyhow::Result<wharf_testkit::client::Response>| {
        answer.map_or(0, |answer| answer.status.as_u16())
    };
    let pulled = client.get(&manifest(OWN, "v1")).try_send().await;
    let begun = client.post(&format!("/v2/{OWN}/blobs/uploads/"));
    (status(pulled), status(begun.try_send().await))
}

fn text(response: &wharf_testkit::client::Response) -> String {
    String::from_utf8_lossy(&response.body).into_owned()
}

/// A token from the token endpoint, by what the client shows.
async fn buy(client: &Client, actions: &str) -> String {
    let target = format!("/token?service=wharf&scope=repository:{OWN}:{actions}");
    let bought = client.get(&target).send().await.expect_status(200);
    bought.json()["token"].as_str().expect("a token").to_owned()
}

async fn me(client: &Client) -> String {
    let told = client.get("/api/v1/me").send().await.expect_status(200);
    told.json()["name"].as_str().expect("a name").to_owned()
}

/// Users by a name of their certificate, hosts by rules; whose certificate is nobody's is asked to sign in.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_says_who_it_is() {
    let stage = Stage::new().await;
    for version in Version::ALL {
        let alice = stage
            .clients
            .issue_client(&["email:alice@example.com"], 10, GOOD);
        let alice = stage.with(&alice, version);
        assert_eq!(me(&alice).await, "alice");
        assert_eq!(may(&alice).await, (200, 202));
        alice.get("/v2/").send().await.expect_status(200);
    }
    let bob = stage.named(&["email:bob@example.com"], 11);
    assert_eq!(may(&bob).await, (403, 403), "known, and nothing granted");
    let alice = stage.named(&["email:alice@example.com"], 12);
    // What is said counts, not what is shown; and a wrong password is not made good by a certificate.
    assert_eq!(may(&alice.clone().with_basic("bob", "x")).await, (403, 403));
    assert_eq!(
        may(&alice.clone().with_basic("alice", "y")).await,
        (401, 401)
    );

    let host = stage.named(&["dns:build-7.example.com", "cn:build"], 13);
    assert_eq!(may(&host).await, (401, 401), "good, and nobody's");
    let told = stage.wharf("workload trust certificate --dns build-*.example.com reader on team/a");
    let told = good(&told.await);
    assert!(
        told.contains("Clients with certificates that match rule"),
        "{told}"
    );
    assert_eq!(me(&host).await, "dns:build-7.example.com");
    assert_eq!(may(&host).await, (200, 403));
    let other = stage.named(&["dns:build-7.example.com.evil.org"], 14);
    assert_eq!(may(&other).await, (401, 401));

    let unknown = stage.named(&["email:carol@example.com"], 15);
    let refused = unknown.get("/v2/").send().await.expect_status(401);
    assert!(
        text(&refused).contains("unknown here"),
        "{}",
        text(&refused)
    );

    // Who did what by which certificate is in the log, within a moment.
    let told = Instant::now();
    loop {
        let log = good(&stage.wharf("audit list --json --principal alice").await);
        if log.contains("certificate.0a") {
            break;
        }
        assert!(told.elapsed() < PATIENCE, "{log}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Attack: a certificate with two identities. Attack: a certificate of somebody else's authority, the server's own among them; one that
/// has expired, one that is not good yet. Attack: another site's page sends what the browser shows a certificate for.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_are_no_credential() {
    let stage = Stage::new().await;
    let told = stage.wharf("workload trust certificate --dns *.example.com reader on team/a");
    good(&told.await);
    for names in [
        &["email:alice@example.com", "email:bob@example.com"][..],
        &["email:alice@example.com", "dns:build-7.example.com"],
        &["dns:a.example.com", "dns:b.example.com"],
    ] {
        let client = stage.named(names, 20);
        let refused = client.get("/v2/").send().await.expect_status(401);
        let told = text(&refused);
        assert!(
            told.contains("identity") || told.contains("dns"),
            "{names:?}: {told}"
        );
        assert_eq!(may(&client).await, (401, 401), "{names:?}");
    }
    let alice = ["email:alice@example.com"];
    for (what, identity) in [
        ("a stranger's", Ca::new().issue_client(&alice, 21, GOOD)),
        (
            "the server's",
            stage.server.ca.issue_client(&alice, 22, GOOD),
        ),
        (
            "expired",
            stage.clients.issue_client(&alice, 23, (2019, 2020)),
        ),
        (
            "not yet",
            stage.clients.issue_client(&alice, 24, (3000, 4000)),
        ),
        // For servers alone, as hosts have it by their web server.
        ("a server's", stage.clients.issue_for(&["localhost"])),
    ] {
        for version in Version::ALL {
            let found = may(&stage.with(&identity, version)).await;
            let bare = what == "a server's";
            assert_eq!(found, if bare { (401, 401) } else { (0, 0) }, "{what}");
        }
    }
    let alice = stage.named(&alice, 25);
    for (site, wanted) in [
        ("cross-site", 401),
        ("same-site", 401),
        ("same-origin", 200),
        ("none", 200),
    ] {
        let asked = alice
            .get(&manifest(OWN, "v1"))
            .header("sec-fetch-site", site);
        assert_eq!(asked.send().await.status, wanted, "{site}");
    }
    // Attack: whoever comes through a proxy that shows a certificate of its own.
    let proxied = alice.get(&manifest(OWN, "v1"));
    let proxied = proxied.header("x-forwarded-for", "192.0.2.1").send().await;
    assert_eq!(proxied.status, 401);
}

/// A token that was bought with a certificate is good beside it alone (RFC 8705, 3).
#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_bound_to_its_certificate() {
    let stage = Stage::new().await;
    let alice = stage.named(&["email:alice@example.com"], 30);
    let token = buy(&alice, "pull,push").await;
    assert_eq!(may(&alice.clone().with_token(&token)).await, (200, 202));
    let bare = stage.server.admin(Version::Http1).with_token(&token);
    assert_eq!(may(&bare).await, (401, 401));
    // Hers as well, and another one.
    let second = stage.named(&["email:alice@example.com"], 31);
    assert_eq!(may(&second.with_token(&token)).await, (401, 401));
    let bob = stage.named(&["email:bob@example.com"], 32);
    assert_eq!(may(&bob.with_token(&token)).await, (401, 401));
    // One that nobody's certificate buys is nobody's.
    let nobody = stage.named(&["cn:nobody"], 33);
    let token = buy(&nobody, "pull").await;
    assert_eq!(may(&nobody.with_token(&token)).await, (401, 401));
}

/// A revoked certificate ends with the next request: on connections that are open, in sessions that are resumed, for tokens that were
/// bought with it; and others go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_certificate_ends_at_once() {
    let stage = Stage::new().await;
    let (lost, kept) = (
        stage.named(&["email:alice@example.com"], 40),
        stage.named(&["email:alice@example.com"], 41),
    );
    let token = buy(&lost, "pull").await;
    let mut open = lost.connect().await.unwrap();
    let ask = |client: &Client| client.get(&manifest(OWN, "v1"));
    ask(&lost)
        .send_on(&mut open)
        .await
        .unwrap()
        .expect_status(200);

    let list = stage.server.folder().join("revoked.pem");
    // A list that cannot be read changes nothing.
    std::fs::write(&list, "nonsense").unwrap();
    stage.server.hang_up();
    let told = Instant::now();
    while !stage
        .server
        .output()
        .contains("what was read before stays in force")
    {
        assert!(told.elapsed() < PATIENCE, "{}", stage.server.output());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    ask(&lost)
        .send_on(&mut open)
        .await
        .unwrap()
        .expect_status(200);

    std::fs::write(&list, stage.clients.revoke(&[40])).unwrap();
    stage.server.hang_up();
    let told = Instant::now();
    while may(&lost).await != (0, 0) {
        assert!(told.elapsed() < PATIENCE, "{}", stage.server.output());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let ended = ask(&lost)
        .send_on(&mut open)
        .await
        .unwrap()
        .expect_status(401);
    assert!(text(&ended).contains("revoked"), "{}", text(&ended));
    assert!(
        ask(&lost).send_on(&mut open).await.is_err(),
        "the connection is closed"
    );
    let bare = stage.server.admin(Version::Http1).with_token(&token);
    assert_eq!(may(&bare).await, (401, 401));
    assert_eq!(may(&kept).await, (200, 202));
}

/// `wharf workload test` says whose a certificate would be.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_can_be_looked_at() {
    let stage = Stage::new().await;
    good(
        &stage
            .wharf("workload trust certificate --uri spiffe://corp/ci/* reader on team/a")
            .await,
    );
    let put = |names: &[&str]| {
        let identity = stage.clients.issue_client(names, 50, GOOD);
        std::fs::write(stage.server.folder().join("one.pem"), identity.cert).unwrap();
    };
    let look = "workload test --certificate-file one.pem";
    put(&["uri:spiffe://corp/ci/build"]);
    let told = good(&stage.wharf(look).await);
    assert!(
        told.contains("signs in as uri:spiffe://corp/ci/build"),
        "{told}"
    );
    put(&["email:alice@example.com"]);
    let told = good(&stage.wharf(look).await);
    assert!(told.contains("signs in as alice"), "{told}");
    put(&["uri:spiffe://corp/dev/x"]);
    let refused = stage.wharf(look).await;
    assert_eq!(refused.status.code(), Some(1));
    let told = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(told.contains("the rule asks for a text like"), "{told}");
    std::fs::write(stage.server.folder().join("one.pem"), "nonsense").unwrap();
    let refused = stage.wharf(look).await;
    assert!(
        String::from_utf8_lossy(&refused.stderr).contains("PEM"),
        "{refused:?}"
    );
    let wrong = stage.wharf("workload trust certificate --dns a --jwks-url https://b reader");
    assert_eq!(wrong.await.status.code(), Some(2));
}

/// Required here, not asked there; and a session of the one place is nothing at the other.
#[tokio::test(flavor = "multi_thread")]
async fn each_address_asks_as_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, clients) = (Ca::new(), Ca::new());
    let (cert, key) = ours.issue().write(folder.path());
    let authorities = folder.path().join("clients.pem");
    std::fs::write(&authorities, clients.pem()).unwrap();
    let client = clients.issue_client(&["cn:x"], 60, GOOD);
    // The same authority and, since they share it, the same TLS state for all three.
    for ask in [Ask::Never, Ask::Optional, Ask::Required] {
        let options = ClientOptions {
            authorities: authorities.clone(),
            revoked: Vec::new(),
            ask: Ask::Required,
            at: vec![AskAt {
                address: "127.0.0.1:0".parse().unwrap(),
                ask,
            }],
        };
        let tls = Tls::load_asking(&cert, &key, Some(options)).unwrap();
        let toybox = Toybox::with(|options| options.tls = Some(tls));
        let bare = Client::new(toybox.addr(), Version::Http1).with_tls(&ours.client_config());
        let shows =
            Client::new(toybox.addr(), Version::Http1).with_tls(&ours.client_config_as(&client));
        // Twice each: the second time by a ticket.
        for _ in 0..2 {
            let reached = bare.get("/who").try_send().await.is_ok();
            assert_eq!(reached, ask != Ask::Required, "{ask:?}");
            assert!(shows.get("/who").try_send().await.is_ok(), "{ask:?}");
        }
    }
}

#[test]
fn what_is_wrong_with_the_files_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let made = SelfSigned::ensure(
        folder.path(),
        &["localhost".into()],
        std::time::SystemTime::now(),
    )
    .unwrap();
    let (one, two) = (Ca::new(), Ca::named("another authority"));
    let put = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let both = put("both.pem", one.pem() + &two.pem());
    let list = put("one.crl", one.revoke(&[]));
    let load = |authorities: &Path, revoked: &[&Path]| {
        let options = ClientOptions {
            authorities: authorities.to_owned(),
            revoked: revoked.iter().map(|path| (*path).to_owned()).collect(),
            ask: Ask::Optional,
            at: Vec::new(),
        };
        let checked = options.check().map_err(|error| error.to_string());
        let loaded = Tls::load_asking(&made.cert, &made.key, Some(options));
        let loaded = loaded.map(drop).map_err(|error| error.to_string());
        assert_eq!(loaded, checked, "`config check` says what the start says");
        loaded
    };
    assert_eq!(load(&both, &[]), Ok(()));
    let missing = load(&both, &[&list]).unwrap_err();
    assert!(
        missing.contains("one.crl") && missing.contains("another authority"),
        "{missing}"
    );
    let other = put("two.crl", two.revoke(&[]));
    assert_eq!(load(&both, &[&list, &other]), Ok(()));
    let swapped = load(&both, &[&both]).unwrap_err();
    assert!(swapped.contains("revocation list"), "{swapped}");
    let swapped = load(&list, &[]).unwrap_err();
    assert!(swapped.contains("certificate"), "{swapped}");
    let absent = load(&folder.path().join("none.pem"), &[]).unwrap_err();
    assert!(absent.contains("none.pem"), "{absent}");
}
