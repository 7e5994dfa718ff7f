//! Everybody who signs in from outside, at three replicas behind a proxy that gives each connection to the next of them: people of
//! a directory, clients with certificates, machines with their own tokens.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use wharf_core::access::{Changer, Circumstances, Password, Principal, Source};
use wharf_core::clock::ManualClock;
use wharf_core::directory::{AGAIN, ENOUGH, EVERY};
use wharf_core::identity::{NewToken, create_token};
use wharf_core::{Clock as _, session};
use wharf_testkit::ca::Ca;
use wharf_testkit::issuer::TokenKey;
use wharf_testkit::options::{ADMIN, ADMIN_PASSWORD};
use wharf_testkit::test_server;
use wharf_testkit::{Client, FakeLdap, Image, TestOptions, TestServer, Version};

use crate::ldap_sign_in::{ADA, GROUPS, directory, recheck};
use crate::support::manifest;

/// How soon a change counts at the other replicas.
const PROMISED: Duration = Duration::from_secs(5);
/// As often something is asked for in a row, so that each replica is asked at least once.
const TURNS: usize = 6;
/// The years in which certificates of these tests are good.
const GOOD: (i32, i32) = (2020, 4000);

/// Three replicas with TLS, over one PostgreSQL and one folder, and a proxy that passes bytes on.
struct House {
    servers: Vec<TestServer>,
    clock: Arc<ManualClock>,
    /// Who signed the replicas' certificate, and clients'.
    ca: Ca,
    proxy: SocketAddr,
    _folder: TempDir,
}

impl House {
    async fn open(config: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("a clock").as_millis();
        let clock = Arc::new(ManualClock::at(i64::try_from(now).expect("a time")));
        let folder = tempfile::tempdir().expect("a folder");
        let ca = Ca::new();
        let (cert, key) = ca.issue().write(folder.path());
        let roots = folder.path().join("clients.pem");
        std::fs::write(&roots, ca.pem()).expect("a file");
        let config = format!(
            "[tls]\ncert = {cert:?}\nkey = {key:?}\n[tls.clients]\nca = {roots:?}\n[[tls.clients.user]]\nfrom = \"email\"\n\
             matches = \"*@example.com\"\n{config}"
        );
        let database = Arc::new(test_server::shared().database());
        let mut servers = Vec::new();
        for _ in 0..3 {
            let options = TestOptions {
                database: Some(database.clone()),
                shared: Some(folder.path().join("blobs")),
                replicated: true,
                clock: Some(clock.clone()),
                config: config.clone(),
                ..TestOptions::default()
            };
            servers.push(TestServer::start(options).await);
        }
        let proxy = proxy(servers.iter().map(TestServer::addr).collect()).await;
        Self {
            servers,
            clock,
            ca,
            proxy,
            _folder: folder,
        }
    }

    /// Nobody, at the proxy.
    fn nobody(&self) -> Client {
        Client::new(self.proxy, Version::Http1).with_tls(&self.ca.client_config())
    }

    fn admin(&self) -> Client {
        self.nobody().with_basic(ADMIN, ADMIN_PASSWORD)
    }

    /// Whoever shows a certificate with this name.
    fn shows(&self, name: &str, serial: u64) -> Client {
        let identity = self.ca.issue_client(&[name], serial, GOOD);
        Client::new(self.proxy, Version::Http1).with_tls(&self.ca.client_config_as(&identity))
    }
}

/// A proxy on the level of TCP: each connection goes to the next of these.
async fn proxy(to: Vec<SocketAddr>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = listener.local_addr().expect("an address");
    let turn = AtomicUsize::new(0);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let to = to[turn.fetch_add(1, Ordering::Relaxed) % to.len()];
            tokio::spawn(async move {
                if let Ok(mut far) = TcpStream::connect(to).await {
                    // One of the two goes away in the end.
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                }
            });
        }
    });
    addr
}

async fn act(client: &Client, method: Method, path: &str, body: Value) {
    let request = client.request(method, path);
    let request = request.header("content-type", "application/json");
    let answer = request.body(body.to_string()).send().await;
    assert!(answer.status.is_success(), "{path}: {answer}");
}

async fn status(client: &Client, path: &str) -> u16 {
    client.get(path).send().await.status.as_u16()
}

/// It is answered so at each replica, within the time that is promised for a change at one of them.
#[track_caller]
fn everywhere(what: &str, client: &Client, path: &str, expected: u16) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        let mut in_a_row = 0;
        while in_a_row < TURNS {
            let status = status(client, path).await;
            in_a_row = if status == expected { in_a_row + 1 } else { 0 };
            if status != expected {
                assert!(
                    begun.elapsed() < PROMISED,
                    "{caller}: {what}: {status} instead of {expected}"
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn buy(client: &Client, scope: &str) -> String {
    let target = format!("/token?service=wharf&scope={scope}");
    let bought = client.get(&target).send().await.expect_status(200);
    bought.json()["token"].as_str().expect("a token").to_owned()
}

/// At so many replicas is a session good.
async fn sessions(house: &House, cookie: &Password) -> usize {
    let mut good = 0;
    for server in &house.servers {
        let came = Circumstances::from(house.clock.now_ms());
        let found = session::find(&server.app().registry, cookie, came).await;
        good += usize::from(found.expect("read").is_some());
    }
    good
}

/// A person of a directory by password, certificate, API token and what was bought with them; until she is gone from the
/// directory, which one replica finds out.
///
/// Spec: LDAP-1.
#[tokio::test(flavor = "multi_thread")]
async fn people_of_a_directory_are_known_at_all_three_until_they_are_gone() {
    let fake: FakeLdap = directory().await;
    let house = House::open(&fake.config(&[fake.url()], GROUPS)).await;
    let ada = house.nobody().with_basic("ada", "ada-pw");
    let users = "/api/v1/users";
    everywhere("her password, and her group", &ada, users, 200).await;
    let bob = house.nobody().with_basic("bob", "bob-pw");
    everywhere("without the group", &bob, users, 403).await;
    let shown = house.shows("email:ada@example.com", 7);
    everywhere("her certificate", &shown, users, 200).await;
    let catalog = "registry:catalog:*";
    let bearer = house.nobody().with_token(&buy(&ada, catalog).await);
    everywhere("what one of them sold", &bearer, "/v2/_catalog", 200).await;
    let bound = buy(&shown, catalog).await;
    let stolen = house.nobody().with_token(&bound);
    let bound = shown.clone().with_token(&bound);
    everywhere("sold for a certificate", &bound, "/v2/_catalog", 200).await;
    everywhere("and shown without", &stolen, "/v2/_catalog", 401).await;
    let new = NewToken {
        user: "ada".into(),
        name: "laptop".into(),
        scopes: Vec::new(),
        lifetime: None,
    };
    let registry = &house.servers[0].app().registry;
    let made = create_token(registry, Changer::Operator, &new).await;
    let made = made.expect("a token").secret;
    let laptop = house.nobody().with_basic("ada", made.reveal());
    everywhere("her API token", &laptop, users, 200).await;
    let her = Principal::User {
        name: "ada".into(),
        source: Source::Local,
    };
    let came = Circumstances::from(house.clock.now_ms());
    let cookie = session::begin(registry, &her, session::By::Password, came, "").await;
    let cookie = cookie.expect("a session");
    assert_eq!(sessions(&house, &cookie).await, 3);

    fake.remove(ADA);
    // Each look is another replica's.
    for turn in 0..ENOUGH as usize {
        let pause = if turn == 0 { EVERY } else { AGAIN };
        house.clock.advance(pause + 1);
        if turn == 1 {
            everywhere("once is not enough", &laptop, users, 200).await;
        }
        recheck(&house.servers[turn % 3]).await;
    }
    for (what, client, path) in [
        ("her API token", &laptop, users),
        ("her password", &ada, users),
        ("her certificate", &shown, users),
        ("what it bought", &bound, "/v2/_catalog"),
    ] {
        everywhere(what, client, path, 401).await;
    }
    // An hour has passed since it was sold, too.
    everywhere("what was sold", &bearer, "/v2/_catalog", 401).await;
    assert_eq!(sessions(&house, &cookie).await, 0);
    everywhere("others stay", &bob, "/v2/", 200).await;
}

/// Hosts with certificates and pods with tokens: a rule that is made at one lets them in at all, and one that goes ends what was
/// bought by it.
///
/// Spec: K8SCRED-6, OIDC-3.
#[tokio::test(flavor = "multi_thread")]
async fn machines_are_let_in_at_all_three_by_a_rule_that_one_was_told() {
    let house = House::open("").await;
    let admin = house.admin();
    admin.push_image("team/app", "v1", &Image::random()).await;
    let image = manifest("team/app", "v1");
    let key = TokenKey::new("one");
    let now = house.clock.now_ms() / 1_000;
    let says = json!({"iss": "https://ci.example", "sub": "build", "aud": "wharf", "iat": now, "exp": now + 3_600});
    let token = key.sign(&says);
    let pod = house.nobody().with_basic("anything", &token);
    everywhere("nobody yet", &pod, &image, 401).await;
    let host = house.shows("dns:build-7.example.com", 8);
    everywhere("nobody yet", &host, &image, 401).await;

    let keys = json!({"keys": [key.jwk]});
    let issuer = json!({"kind": "oidc", "issuer": "https://ci.example", "audiences": ["wharf"], "jwks": keys});
    let put = Method::PUT;
    let issuers = "/api/v1/workload/issuers";
    act(&admin, put.clone(), &format!("{issuers}/ci"), issuer).await;
    let hosts = json!({"kind": "certificate"});
    act(&admin, put.clone(), &format!("{issuers}/hosts"), hosts).await;
    let rules = "/api/v1/workload/rules";
    for (rule, of, claim, value) in [
        ("builds", "ci", "sub", "build"),
        ("builders", "hosts", "dns", "build-7.example.com"),
    ] {
        let body = json!({"issuer": of, "conditions": [{"claim": claim, "in": [value]}]});
        act(&admin, put.clone(), &format!("{rules}/{rule}"), body).await;
        let grant = json!({"who": format!("workload:{rule}"), "role": "reader", "on": "team"});
        act(&admin, Method::POST, "/api/v1/bindings", grant).await;
    }
    everywhere("a pod's token", &pod, &image, 200).await;
    everywhere("a host's certificate", &host, &image, 200).await;
    let uploads = "/v2/team/app/blobs/uploads/";
    for client in [&pod, &host] {
        for _ in 0..TURNS {
            client.post(uploads).send().await.expect_status(403);
        }
    }
    let scope = "repository:team/app:pull";
    let exchange = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token={token}\
         &subject_token_type=urn:ietf:params:oauth:token-type:jwt&scope={scope}"
    );
    let request = house.nobody().post("/token").body(exchange);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let swapped = request.send().await.expect_status(200).json();
    let swapped = swapped["access_token"].as_str().expect("a token");
    let swapped = house.nobody().with_token(swapped);
    everywhere("what one gave for it", &swapped, &image, 200).await;
    let bound = host.clone().with_token(&buy(&host, scope).await);
    everywhere("what one gave for it", &bound, &image, 200).await;

    act(
        &admin,
        Method::DELETE,
        &format!("{rules}/builds"),
        Value::Null,
    )
    .await;
    act(
        &admin,
        Method::DELETE,
        &format!("{rules}/builders"),
        Value::Null,
    )
    .await;
    for client in [&pod, &host, &swapped, &bound] {
        everywhere("the rule is gone", client, &image, 401).await;
    }
}
