//! Three replicas over one PostgreSQL and one folder of blobs: rights, revocation and the audit log, whichever of them is asked,
//! killed or frozen.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use wharf_core::access::SecretKeys;
use wharf_meta::{Meta, PostgresOptions, SECRET_KEY, setting};
use wharf_oci::percent::encode_query;
use wharf_testkit::options::{ADMIN, ADMIN_PASSWORD};
use wharf_testkit::test_server::{self, TestDatabase};
use wharf_testkit::{Client, Image, Process, TestOptions, Version};

use crate::api_support::get;
use crate::browser::{Browser, HOST, Provider, by_provider, form, text, to_provider};
use crate::support::manifest;
use crate::terminal;

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");
/// How soon a change counts at the other replicas.
const PROMISED: Duration = Duration::from_secs(5);
/// Longest wait for something that comes by itself: a frozen process may hold a lock until the database ends its transaction.
const PATIENCE: Duration = Duration::from_secs(120);
/// What is asked for at the token endpoint.
const SCOPE: &str = "repository:team/app:pull,push";
/// Alice's, and the one that robots are read with.
const PASSWORD: &str = "a looking glass";

/// A database and a folder.
struct Bed {
    folder: TempDir,
    database: Arc<TestDatabase>,
    config: String,
}

impl Bed {
    fn new(database: TestDatabase, config: &str) -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            database: Arc::new(database),
            config: config.to_owned(),
        }
    }

    /// Three, started at the same moment.
    async fn start(&self) -> [Process; 3] {
        let one = || {
            let options = TestOptions {
                database: Some(self.database.clone()),
                shared: Some(self.folder.path().into()),
                config: self.config.clone(),
                ..TestOptions::default()
            };
            Process::start(Path::new(WHARF), options)
        };
        tokio::join!(one(), one(), one()).into()
    }
}

/// The administrator at each.
fn admins(replicas: &[Process; 3]) -> [Client; 3] {
    [0, 1, 2].map(|at| replicas[at].admin(Version::Http1))
}

async fn act(client: &Client, method: Method, path: &str, body: Value) -> Value {
    let request = client.request(method, path);
    let request = request.header("content-type", "application/json");
    let answer = request.body(body.to_string()).send().await;
    assert!(answer.status.is_success(), "{path}: {answer}");
    match answer.body.is_empty() {
        true => Value::Null,
        false => answer.json(),
    }
}

async fn pulls(client: &Client) -> u16 {
    client
        .get(&manifest("team/app", "v1"))
        .send()
        .await
        .status
        .as_u16()
}

/// What the token endpoint gives to whoever asks by this client.
async fn buy(client: &Client) -> String {
    let bought = client.fetch_token(&[SCOPE]).await.expect_status(200).json();
    bought["token"].as_str().expect("a token").to_owned()
}

async fn by_what_each_sells(at: &[Client; 3]) -> [Client; 3] {
    let [one, two, three] = at;
    let sold = [buy(one).await, buy(two).await, buy(three).await];
    [0, 1, 2].map(|n| at[n].clone().with_token(&sold[n]))
}

/// It has just been changed at one, where it counts at once; at the others it counts within seconds.
async fn counts_everywhere(
    what: &str,
    at: &[Client; 3],
    changed_at: usize,
    (from, to): (u16, u16),
    ask: impl AsyncFn(&Client) -> u16,
) {
    let changed = Instant::now();
    assert_eq!(
        ask(&at[changed_at]).await,
        to,
        "{what}: at once where it was changed"
    );
    for other in (0..3).filter(|other| *other != changed_at) {
        loop {
            let asked = changed.elapsed();
            let status = ask(&at[other]).await;
            if status == to {
                break;
            }
            assert_eq!(status, from, "{what} at {other}");
            assert!(asked < PROMISED, "{what}: not heard of at {other}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Until all three answer so.
async fn settled(what: &str, at: &[Client; 3], status: u16) {
    let begun = Instant::now();
    for client in at {
        while pulls(client).await != status {
            assert!(begun.elapsed() < PROMISED, "{what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A provider tells one replica that somebody signed out; the session is over at each, and the same word counts at none again.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_ends_at_one_of_three_is_over_at_all() {
    let provider = Provider::start().await;
    let config = format!(
        "[server]\nexternal_url = \"http://{HOST}\"\n{}",
        provider.config("onboarding = \"auto\"")
    );
    let bed = Bed::new(test_server::shared().database(), &config);
    let replicas = bed.start().await;
    let admin = admins(&replicas);
    provider.person(json!({"sub": "1", "preferred_username": "ann", "sid": "s1"}));
    let mut browsers = [0, 1, 2].map(|at| Browser::at(&admin[at]));
    by_provider(&mut browsers[0], &provider)
        .await
        .expect_status(303);
    let cookies = browsers[0].cookies.clone();
    for browser in &mut browsers {
        browser.cookies = cookies.clone();
        browser.get("/account/tokens").await.expect_status(200);
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap().as_secs();
    let event = "http://schemas.openid.net/event/backchannel-logout";
    let token = provider.sign(&json!({
        "iss": provider.url, "aud": "wharf", "iat": now, "exp": now + 60, "jti": "a", "sid": "s1", "events": {event: {}},
    }));
    let told = async |client: &Client| {
        let request = client.clone().anonymous();
        let request = request.post("/auth/oidc/corp/backchannel-logout");
        let request = request.without_header("host").header("host", HOST);
        request.body(format!("logout_token={token}")).send().await
    };
    told(&admin[1]).await.expect_status(200);
    for browser in &mut browsers {
        browser.get("/account/tokens").await.expect_status(303);
    }
    for client in &admin {
        told(client).await.expect_status(400);
    }
}

/// Each step of a sign-in is another replica's: none keeps anything of it for itself.
///
/// Spec: OIDC-5.
#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_that_begins_at_one_of_three_ends_at_another() {
    let provider = Provider::start().await;
    let config = format!(
        "[server]\nexternal_url = \"http://{HOST}\"\n{}",
        provider.config("onboarding = \"auto\"\nlogout = \"provider\"")
    );
    let bed = Bed::new(test_server::shared().database(), &config);
    let replicas = bed.start().await;
    let admin = admins(&replicas);
    let clients = [0, 1, 2].map(|at| Browser::at(&admin[at]).client);
    provider.person(json!({"sub": "1", "preferred_username": "ann", "groups": ["admins"]}));
    let mut browser = Browser::at(&admin[0]);
    let path = to_provider(&mut browser, &provider, "corp").await;
    let path = path.unwrap_or_else(|answer| panic!("{answer}"));
    browser.client = clients[1].clone();
    browser.get(&path).await.expect_status(303);
    // What came back is good once, whoever is asked.
    let mut again = Browser::of(clients[2].clone());
    again.get(&path).await.expect_status(400);
    browser.client = clients[2].clone();
    let page = text(&browser.get("/account/tokens").await.expect_status(200));
    let fields = [
        ("form", &*form(&page)),
        ("name", "laptop"),
        ("scopes", ""),
        ("days", "30"),
    ];
    browser.client = clients[0].clone();
    let made = text(&browser.post("/account/tokens", &fields).await);
    let (_, secret) = made.split_once("<code id=\"secret\">").expect("a token");
    let secret = secret.split('<').next().expect("a token");
    for (at, client) in admin.iter().enumerate() {
        let ann = client.clone().with_basic("ann", secret);
        let users = ann.get("/api/v1/users").send().await;
        assert_eq!(users.status, 200, "her group, at {at}: {users}");
    }
    browser.client = clients[1].clone();
    let fields = [("form", &*form(&page))];
    let left = text(&browser.post("/auth/logout", &fields).await);
    assert!(left.contains("id_token_hint="), "{left}");
    for client in clients {
        browser.client = client;
        browser.get("/account/tokens").await.expect_status(303);
    }
}

/// Grants, what `wharf apply` sends, robots' secrets, lock-outs and identity tokens: changed at one after the other, for tokens
/// that were issued before.
#[tokio::test(flavor = "multi_thread")]
async fn what_changes_at_one_of_three_counts_at_the_two_others() {
    let config = "[auth]\nidentity_tokens = true\n";
    let bed = Bed::new(test_server::shared().database(), config);
    let replicas = bed.start().await;
    let admin = admins(&replicas);
    admin[0]
        .push_image("team/app", "v1", &Image::random())
        .await;
    let new = json!({"name": "alice", "password": PASSWORD});
    act(&admin[0], Method::POST, "/api/v1/users", new).await;
    let alice = admin
        .clone()
        .map(|admin| admin.with_basic("alice", PASSWORD));
    // One token for all of them, bought before there is any right.
    let bought = buy(&alice[0]).await;
    let bearer = admin.clone().map(|admin| admin.with_token(&bought));
    for client in &bearer {
        let answer = client.get(&manifest("team/app", "v1")).send().await;
        answer.expect_status(403);
    }
    let binding = json!({"who": "alice", "role": "reader", "on": "team"});
    act(&admin[0], Method::POST, "/api/v1/bindings", binding).await;
    counts_everywhere("a grant", &bearer, 0, (403, 200), pulls).await;

    // As `wharf apply` sends it.
    let pushes = async |client: &Client| {
        let answer = client.post("/v2/team/app/blobs/uploads/").send().await;
        answer.status.as_u16()
    };
    let wish = json!({"bindings": [{"who": "alice", "role": "writer", "on": "team"}]});
    let applied = act(&admin[1], Method::POST, "/api/v1/apply", wish).await;
    assert_eq!(applied["steps"][0]["done"], true, "{applied}");
    counts_everywhere("wharf apply", &bearer, 1, (403, 202), pushes).await;
    let path = "/api/v1/bindings?who=alice&role=writer&on=team";
    act(&admin[2], Method::DELETE, path, Value::Null).await;
    counts_everywhere("a grant that goes", &bearer, 2, (202, 403), pushes).await;

    // A robot, whose secret is replaced without overlap at one, and whose last one is revoked at another.
    let new = json!({"name": "team+ci", "bindings": [{"role": "reader"}]});
    let made = act(&admin[0], Method::POST, "/api/v1/robots", new).await;
    let as_robot = |made: &Value| {
        let secret = made["secret"].as_str().expect("a secret");
        admin
            .clone()
            .map(|admin| admin.with_basic("team+ci", secret))
    };
    let first = as_robot(&made);
    settled("a new robot", &first, 200).await;
    let sold = by_what_each_sells(&first).await;
    let rotate = "/api/v1/robots/team+ci/-/rotate";
    let made = act(&admin[1], Method::POST, rotate, json!({"overlap": 0})).await;
    counts_everywhere("a rotation", &first, 1, (200, 401), pulls).await;
    counts_everywhere("what the old secret bought", &sold, 1, (200, 401), pulls).await;
    let second = as_robot(&made);
    settled("the new secret", &second, 200).await;
    let sold = by_what_each_sells(&second).await;
    let path = format!(
        "/api/v1/credentials/{}",
        made["id"].as_str().expect("an id")
    );
    act(&admin[2], Method::DELETE, &path, Value::Null).await;
    counts_everywhere("a revocation", &second, 2, (200, 401), pulls).await;
    counts_everywhere("what was bought with it", &sold, 2, (200, 401), pulls).await;

    // Alice is locked out, and her identity token dies with that; let in again, she has to sign in again.
    let login = "/token?service=wharf&offline_token=true&client_id=docker";
    let kept = alice[0].get(login).send().await.expect_status(200).json();
    let kept = encode_query(kept["refresh_token"].as_str().expect("one")).to_string();
    let refreshes = async |client: &Client| {
        let body =
            format!("grant_type=refresh_token&service=wharf&client_id=docker&refresh_token={kept}");
        let request = client.clone().anonymous().post("/token");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request.body(body).send().await.status.as_u16()
    };
    for client in &alice {
        assert_eq!((refreshes(client).await, pulls(client).await), (200, 200));
    }
    let path = "/api/v1/users/alice";
    act(&admin[1], Method::PATCH, path, json!({"disabled": true})).await;
    counts_everywhere("a lock-out", &bearer, 1, (200, 401), pulls).await;
    counts_everywhere("her password", &alice, 1, (200, 401), pulls).await;
    counts_everywhere("her identity token", &alice, 1, (200, 401), refreshes).await;
    act(&admin[2], Method::PATCH, path, json!({"disabled": false})).await;
    counts_everywhere("let in again", &alice, 2, (401, 200), pulls).await;
    for client in &alice {
        assert_eq!(refreshes(client).await, 401, "it died");
    }
}

/// Migrations, the administrator, the key that seals and the keys that sign: made once, whoever comes first.
#[tokio::test(flavor = "multi_thread")]
async fn three_that_start_at_once_on_an_empty_database_are_one_registry() {
    for _ in 0..3 {
        let key = SecretKeys::make();
        let config = format!("[access]\nsecret_key = \"{key}\"\n");
        let bed = Bed::new(test_server::shared().empty(""), &config);
        let replicas = bed.start().await;
        let admin = admins(&replicas);
        for client in &admin {
            let users = get(client, "/api/v1/users").await;
            let names: Vec<_> = users["items"]
                .as_array()
                .expect("users")
                .iter()
                .map(|user| &user["name"])
                .collect();
            assert_eq!(names, ["admin"]);
            // Entries come when no older transaction of the server is open, of whatever test.
            let begun = Instant::now();
            let made = loop {
                let log = get(client, "/api/v1/audit?action=principal.create&n=100").await;
                match log["items"].as_array().map_or(0, Vec::len) {
                    0 => assert!(begun.elapsed() < PATIENCE, "{log}"),
                    made => break made,
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            assert_eq!(made, 1);
            // What one issues the others take.
            let bought = buy(client).await;
            for other in &admin {
                let answer = other.clone().with_token(&bought).get("/v2/").send().await;
                answer.expect_status(200);
            }
        }
        let options = PostgresOptions::new(bed.database.url());
        let (meta, _) = Meta::connect(options).await.expect("the database");
        let name = setting::Get {
            key: SECRET_KEY.to_owned(),
        };
        let name = meta.read(name).await.expect("a read");
        meta.close().await;
        let own = SecretKeys::parse(&key).expect("a key").name();
        assert_eq!(name, Some(own));
    }
}

/// As docs/reference/limits.md says: each counts for itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_signs_in_at_three_replicas_and_ends_at_all() {
    let bed = Bed::new(test_server::shared().database(), "");
    let replicas = bed.start().await;
    let at = admins(&replicas);
    let nobody = [0, 1, 2].map(|n| at[n].clone().anonymous());
    let begun = terminal::begin(&nobody[0]).await;
    let field = |value: &Value, name: &str| value[name].as_str().expect("a text").to_owned();
    let (device_code, code) = (field(&begun, "device_code"), field(&begun, "user_code"));
    let early = terminal::poll(&nobody[1], &device_code).await;
    assert_eq!(
        early.expect_status(400).json()["error"],
        "authorization_pending"
    );
    // How often it was asked is known at the others, too.
    let soon = terminal::poll(&nobody[2], &device_code).await;
    assert_eq!(soon.expect_status(400).json()["error"], "slow_down");
    let mut browser = Browser::at(&nobody[1]);
    browser
        .sign_in(ADMIN, ADMIN_PASSWORD)
        .await
        .expect_status(303);
    browser.client = nobody[2].clone();
    let confirmed = terminal::decide(&mut browser, &code, "approve").await;
    confirmed.expect_status(200);
    let granted = terminal::poll(&nobody[0], &device_code).await;
    let granted = granted.expect_status(200).json();
    let knocks = async |token: &str| {
        let mut all = Vec::new();
        for client in &nobody {
            let client = client.clone().with_token(token);
            all.push(client.get("/api/v1/me").send().await.status.as_u16());
        }
        all
    };
    assert_eq!(knocks(&field(&granted, "access_token")).await, [200; 3]);
    // Two replicas rotate one token at once: one after the other, and what the first gave is void.
    let first = field(&granted, "refresh_token");
    let next = terminal::refresh(&nobody[1], &first).await;
    let next = field(&next.expect_status(200).json(), "refresh_token");
    let (one, other) = tokio::join!(
        terminal::refresh(&nobody[0], &next),
        terminal::refresh(&nobody[2], &next)
    );
    let (one, other) = (
        one.expect_status(200).json(),
        other.expect_status(200).json(),
    );
    assert_ne!(one["refresh_token"], other["refresh_token"]);
    assert_eq!(knocks(&field(&one, "access_token")).await, [200; 3]);
    let ends = [
        terminal::refresh(&nobody[1], &field(&one, "refresh_token")).await,
        terminal::refresh(&nobody[1], &field(&other, "refresh_token")).await,
    ];
    assert!(
        ends.iter().filter(|end| end.status == 200).count() <= 1,
        "{ends:?}"
    );
    let dead = Instant::now();
    while knocks(&field(&other, "access_token")).await != [401; 3] {
        assert!(
            dead.elapsed() < PROMISED,
            "it counts everywhere within five seconds"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Another one, ended by an administrator at one of them.
    let begun = terminal::begin(&nobody[2]).await;
    let code = field(&begun, "user_code");
    terminal::decide(&mut browser, &code, "approve")
        .await
        .expect_status(200);
    let granted = terminal::poll(&nobody[1], &field(&begun, "device_code")).await;
    let token = field(&granted.expect_status(200).json(), "access_token");
    assert_eq!(knocks(&token).await, [200; 3]);
    let all = format!("/api/v1/users/{ADMIN}/sessions");
    at[0].delete(&all).send().await.expect_status(200);
    let ended = Instant::now();
    while knocks(&token).await != [401; 3] {
        assert!(
            ended.elapsed() < PROMISED,
            "it counts everywhere within five seconds"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_three_replicas_counts_rates_for_itself() {
    let config = "[rate_limits]\nreads = \"1/h burst 5\"\n";
    let bed = Bed::new(test_server::shared().database(), config);
    let replicas = bed.start().await;
    for client in admins(&replicas) {
        let mut statuses = Vec::new();
        for _ in 0..6 {
            let answer = client.get("/v2/team/app/tags/list").send().await;
            statuses.push(answer.status.as_u16());
        }
        assert_eq!(statuses, [404, 404, 404, 404, 404, 429]);
    }
}

/// Those that moved a tag at a replica, as long as it answers: each name once.
async fn write(
    (replica, writer): (usize, usize),
    client: Client,
    image: Image,
    stop: Arc<AtomicBool>,
    moved: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut done = Vec::new();
    for n in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let tag = format!("t{replica}-{writer}-{n}");
        let put = client.put_manifest("team/app", &tag, &image.manifest);
        // Frozen, it answers when it goes on; killed, it refuses connections until it is there again.
        match put.try_send().await {
            Ok(answer) if answer.status == 201 => {
                done.push(tag);
                moved.fetch_add(1, Ordering::SeqCst);
            }
            _ => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    done
}

async fn whole_log(client: &Client) -> Vec<Value> {
    let mut entries = Vec::new();
    let mut after = String::new();
    loop {
        let page = get(client, &format!("/api/v1/audit?order=oldest&n=1000{after}")).await;
        entries.extend(page["items"].as_array().expect("entries").iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return entries,
        }
    }
}

/// All three write and seal at once, while one after the other is frozen or killed: at any moment, also with a transaction open. What
/// was acknowledged is in the log once, which has no gap, and each of them finds it whole.
#[tokio::test(flavor = "multi_thread")]
async fn one_chain_is_made_by_three_of_which_some_are_killed_or_frozen() {
    // The database ends the transaction of a frozen process after twice the time of a statement.
    let config = "[metadata]\nstatement_timeout = \"3s\"\nlock_timeout = \"2s\"\n";
    let bed = Bed::new(test_server::shared().database(), config);
    let mut replicas = bed.start().await;
    let admin = admins(&replicas);
    let image = Image::random();
    admin[0].push_image("team/app", "base", &image).await;
    let stop = Arc::new(AtomicBool::new(false));
    let moved: [Arc<AtomicUsize>; 3] = Default::default();
    let mut writers = Vec::new();
    for at in 0..3 {
        for writer in 0..2 {
            let (client, stop, moved) = (admin[at].clone(), stop.clone(), moved[at].clone());
            writers.push(tokio::spawn(write(
                (at, writer),
                client,
                image.clone(),
                stop,
                moved,
            )));
        }
    }
    // The last place of the log, and how much has been written beside one of them.
    let sealed = async |at: usize| {
        let latest = get(&admin[at], "/api/v1/audit?action=tag.move&n=1").await;
        latest["items"][0]["seq"].as_i64().unwrap_or(0)
    };
    let goes_on = async |without: usize| {
        let other = (without + 1) % 3;
        let before = (sealed(other).await, moved[other].load(Ordering::SeqCst));
        let begun = Instant::now();
        loop {
            let now = (sealed(other).await, moved[other].load(Ordering::SeqCst));
            if now.0 > before.0 + 20 && now.1 > before.1 + 10 {
                break;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "the log stands at {now:?} without {without}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    goes_on(0).await;
    for round in 0..6 {
        let victim = round % 3;
        match round % 2 {
            0 => {
                replicas[victim].freeze();
                goes_on(victim).await;
                replicas[victim].thaw();
            }
            _ => {
                replicas[victim].kill();
                goes_on(victim).await;
                replicas[victim].again().await;
            }
        }
    }
    // So long that every lease of its jobs has ended and the others take it for gone.
    replicas[2].freeze();
    let begun = Instant::now();
    loop {
        let status = get(&admin[0], "/api/v1/status").await;
        let all = status["replicas"].as_array().expect("replicas");
        let address = admin[2].authority();
        let gone = |one: &Value| {
            one["address"]
                .as_str()
                .is_some_and(|at| at.contains(address))
        };
        let mut latest: Vec<_> = all.iter().filter(|one| gone(one)).collect();
        latest.sort_by_key(|one| one["started_at"].as_str().map(str::to_owned));
        if latest.last().is_none_or(|one| one["there"] == false) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{status}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    replicas[2].thaw();
    let before = moved[2].load(Ordering::SeqCst);
    while moved[2].load(Ordering::SeqCst) < before + 10 {
        assert!(begun.elapsed() < 2 * PATIENCE, "it does not go on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.expect("a writer"));
    }
    assert!(acknowledged.len() > 200, "{}", acknowledged.len());

    let begun = Instant::now();
    let entries = loop {
        let entries = whole_log(&admin[1]).await;
        let moves = entries.iter().filter(|entry| entry["action"] == "tag.move");
        if moves.count() > acknowledged.len() {
            break entries;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{} of {}",
            entries.len(),
            acknowledged.len()
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let mut places: Vec<_> = entries
        .iter()
        .filter_map(|entry| entry["seq"].as_i64())
        .collect();
    places.sort_unstable();
    assert!(
        places.iter().zip(1..).all(|(place, seq)| *place == seq),
        "a gap"
    );
    let mut logged = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry["action"] == "tag.move") {
        *logged
            .entry(entry["tag"].as_str().unwrap_or_default())
            .or_insert(0) += 1;
    }
    let wrong: Vec<_> = acknowledged
        .iter()
        .filter(|tag| logged.get(tag.as_str()) != Some(&1))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(logged.values().all(|count| *count == 1), "{logged:?}");
    assert!(entries.iter().all(|entry| entry["action"] != "audit.break"));
    for client in &admin {
        let found = act(client, Method::POST, "/api/v1/audit/verify", json!({})).await;
        assert_eq!(found["whole"], true, "{found}");
        assert!(
            found["entries"].as_u64() >= Some(entries.len() as u64),
            "{found}"
        );
    }
}
