//! Rates: how often a client may ask, and what it is told when it asks more often.

use std::path::Path;
use std::sync::Arc;

use wharf_core::Clock as _;
use wharf_core::clock::ManualClock;
use wharf_testkit::client::Response;
use wharf_testkit::{Client, Content, Image, Process, TestOptions, TestServer, Version};

use crate::api_support::problem;
use crate::support::{both_on, manifest};

/// Some day in 2026.
const TODAY: i64 = 1_795_000_000_000;

/// A server with these rates, whose time stands still. Whom `X-Forwarded-For` names is where a request comes from. `alice` and
/// `bob` may pull everywhere, their passwords are `x`.
async fn start(rates: &str) -> (TestServer, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(TODAY));
    let server = TestServer::start(TestOptions {
        clock: Some(clock.clone()),
        htpasswd: vec![("alice", "x"), ("bob", "x"), ("carol", "x")],
        htpasswd_role: Some("none"),
        grants: vec![("alice", "reader", ""), ("bob", "reader", "")],
        config: format!("[server]\ntrusted_proxies = [\"127.0.0.1\"]\n{rates}"),
        ..TestOptions::default()
    })
    .await;
    (server, clock)
}

fn client(server: &TestServer, name: &str) -> Client {
    let client = server.admin(Version::Http1);
    match name {
        "" => client.anonymous(),
        "admin" => client,
        name => client.with_basic(name, "x"),
    }
}

/// The status of a read.
async fn read(client: &Client, path: &str) -> u16 {
    client.get(path).send().await.status.as_u16()
}

/// A refusal by the rate of that key; gives the seconds of `Retry-After`.
#[track_caller]
fn limited(answer: Response, key: &str) -> i64 {
    let answer = answer.expect_error(429, "TOOMANYREQUESTS");
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    assert!(text.contains(key), "{key} is not named: {text}");
    let seconds = answer.expect_header("retry-after").parse();
    let seconds = seconds.unwrap_or_else(|_| panic!("no number of seconds: {answer}"));
    assert!(seconds > 0 && text.contains(&format!("try again in {seconds} s")));
    seconds
}

const NONE: &str = "/v2/team/app/manifests/none";

/// Spec: ERR-3.
#[tokio::test]
async fn reads_are_limited_by_principal_and_address() {
    let (server, clock) = start("[rate_limits]\nreads = \"1/m burst 3\"\n").await;
    let alice = client(&server, "alice");
    for _ in 0..3 {
        assert_eq!(read(&alice, NONE).await, 404);
    }
    let seconds = limited(alice.get(NONE).send().await, "rate_limits.reads");
    // A client that is limited slows down nobody else.
    assert_eq!(read(&client(&server, "bob"), NONE).await, 404);
    assert_eq!(read(&client(&server, ""), NONE).await, 401);
    let elsewhere = alice.get(NONE).header("x-forwarded-for", "203.0.113.9");
    elsewhere.send().await.expect_status(404);
    // Nor does it write less.
    let upload = alice.post("/v2/team/app/blobs/uploads/").send().await;
    upload.expect_status(403);
    // Without credentials it is the address alone, and version 6 has a network for each.
    for (host, status) in [("1", 401), ("2", 401), ("3", 401), ("4", 429)] {
        let from = format!("2001:db8:1:1::{host}");
        let stranger = client(&server, "").get(NONE);
        let answer = stranger.header("x-forwarded-for", &from).send().await;
        assert_eq!(answer.status, status, "{host}");
    }
    clock.advance(seconds * 1_000);
    assert_eq!(read(&alice, NONE).await, 404);
    let head = alice.head(NONE).send().await.expect_status(429);
    head.expect_header("retry-after");
}

#[tokio::test]
async fn writes_are_limited_and_reads_go_on() {
    let (server, clock) = start("[rate_limits]\nwrites = \"1/m burst 4\"\n").await;
    both_on(&server, async |admin, name| {
        clock.advance(600_000);
        let blob = Content::random(1_000);
        admin.push_blob(&name, &blob).await;
        admin.push_blob(&name, &blob).await;
        let uploads = format!("/v2/{name}/blobs/uploads/");
        let seconds = limited(admin.post(&uploads).send().await, "rate_limits.writes");
        let path = format!("/v2/{name}/blobs/{}", blob.digest);
        assert_eq!(read(&admin, &path).await, 200);
        clock.advance(seconds * 1_000);
        admin.post(&uploads).send().await.expect_status(202);
    })
    .await;
}

#[tokio::test]
async fn the_management_api_answers_with_a_problem() {
    let (server, _) =
        start("[rate_limits]\nreads = \"1/m burst 2\"\nwrites = \"1/m burst 1\"\n").await;
    let alice = client(&server, "alice");
    // Both count together.
    assert_eq!(read(&alice, NONE).await, 404);
    alice.get("/api/v1/me").send().await.expect_status(200);
    let answer = alice.get("/api/v1/me").send().await;
    answer.expect_header("retry-after");
    let body = problem(answer, 429, "too-many-requests");
    assert!(
        body["detail"]
            .as_str()
            .unwrap()
            .contains("rate_limits.reads")
    );
    assert!(body["cure"].is_string());
    let path = "/api/v1/repositories/team/none";
    alice.delete(path).send().await.expect_status(403);
    let again = alice.delete(path).send().await;
    let body = problem(again, 429, "too-many-requests");
    assert!(
        body["detail"]
            .as_str()
            .unwrap()
            .contains("rate_limits.writes")
    );
    // What everybody may read is counted, too, and so are wrong credentials.
    let nobody = client(&server, "");
    for status in [200, 200, 429] {
        assert_eq!(read(&nobody, "/api/v1/openapi.json").await, status);
    }
    let unknown = nobody.with_token("nonsense");
    assert_eq!(read(&unknown, "/api/v1/me").await, 429);
    assert_eq!(read(&unknown, NONE).await, 429);
}

#[tokio::test]
async fn tokens_are_limited_and_what_was_given_goes_on() {
    let (server, clock) = start("[rate_limits]\ntoken = \"1/m burst 2\"\n").await;
    let alice = client(&server, "alice");
    let scope = ["repository:team/app:pull"];
    let first = alice.fetch_token(&scope).await.expect_status(200);
    alice.fetch_token(&scope).await.expect_status(200);
    let seconds = limited(alice.fetch_token(&scope).await, "rate_limits.token");
    let form = "grant_type=password&username=alice&password=x";
    let posted = alice
        .clone()
        .anonymous()
        .post("/token")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(form);
    limited(posted.send().await, "rate_limits.token");
    let token = first.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(read(&alice.clone().with_token(&token), NONE).await, 404);
    let bob = client(&server, "bob");
    bob.fetch_token(&scope).await.expect_status(200);
    // Wrong credentials count for the address, whatever name is in them, as those who bring none do.
    let wrong = client(&server, "").with_basic("alice", "wrong");
    wrong.fetch_token(&scope).await.expect_status(401);
    client(&server, "")
        .fetch_token(&scope)
        .await
        .expect_status(200);
    limited(wrong.fetch_token(&scope).await, "rate_limits.token");
    bob.fetch_token(&scope).await.expect_status(200);
    clock.advance(seconds * 1_000);
    alice.fetch_token(&scope).await.expect_status(200);
}

#[tokio::test]
async fn sign_ins_are_limited_by_address_before_a_password_is_computed() {
    let (server, clock) = start("[rate_limits]\nsign_in = \"1/m burst 4\"\n").await;
    let access = &server.app().registry.access;
    let (admin, alice) = (client(&server, "admin"), client(&server, "alice"));
    assert_eq!(read(&admin, NONE).await, 404);
    // One password for many names, so that no account is guessed at twice.
    let guess = async |name: &str| {
        let guess = client(&server, "").with_basic(name, "Winter2026");
        guess.get(NONE).send().await
    };
    for name in ["dave", "erin", "frank"] {
        guess(name).await.expect_status(401);
    }
    let computed = access.password_counts().checked;
    let seconds = limited(guess("grace").await, "rate_limits.sign_in");
    limited(alice.get(NONE).send().await, "rate_limits.sign_in");
    assert_eq!(access.password_counts().checked, computed);
    // Who was right a moment ago goes on, and so does everybody elsewhere.
    assert_eq!(read(&admin, NONE).await, 404);
    let elsewhere = alice.get(NONE).header("x-forwarded-for", "203.0.113.9");
    elsewhere.send().await.expect_status(404);
    clock.advance(seconds * 1_000);
    guess("grace").await.expect_status(401);
}

#[tokio::test]
async fn bytes_stop_the_next_request_and_nothing_that_is_under_way() {
    let (server, clock) = start("[rate_limits]\nbytes = \"1MiB/s burst 1MiB\"\n").await;
    let admin = client(&server, "admin");
    let blob = Content::random(6 << 20);
    admin.push_blob("team/app", &blob).await;
    let path = format!("/v2/team/app/blobs/{}", blob.digest);
    let seconds = limited(admin.get(&path).send().await, "rate_limits.bytes");
    assert!((5..=8).contains(&seconds), "{seconds} s for 5 MiB too many");
    let me = admin.get("/api/v1/me").send().await;
    problem(me, 429, "too-many-requests");
    // A token may be fetched meanwhile, and others pull.
    admin.fetch_token(&[]).await.expect_status(200);
    for version in Version::ALL {
        let alice = client(&server, "alice").with_version(version);
        let pulled = alice.get(&path).send().await.expect_status(200);
        assert!(pulled.body == blob.bytes);
        // When the last bytes are counted nobody tells the client.
        while alice.get(NONE).send().await.status != 429 {
            tokio::task::yield_now().await;
        }
        clock.advance(10_000);
    }
    assert_eq!(read(&admin, NONE).await, 404);
}

/// All entries of the log about refusals, with what is still being counted.
async fn refusals(server: &TestServer) -> Vec<serde_json::Value> {
    let registry = &server.app().registry;
    registry.audit.flush(registry, true).await.unwrap();
    let query = wharf_core::audit::Query {
        action: Some("refuse".into()),
        limit: 1_000,
        ..Default::default()
    };
    let page = wharf_core::audit::page(registry, &query).await.unwrap();
    let told = page.entries.into_iter().map(|entry| {
        let mut told: serde_json::Value = serde_json::from_str(&entry.detail).unwrap();
        told["who"] = entry.principal.into();
        told["credential"] = entry.credential.into();
        told["from"] = entry.address.into();
        told["on"] = entry.repository.into();
        assert!(!entry.request.is_empty(), "{told}");
        told
    });
    told.collect()
}

/// What was refused, and how often in all, by who, from where, what and why.
fn counted(refusals: &[serde_json::Value]) -> std::collections::BTreeMap<String, (usize, u64)> {
    let mut counted = std::collections::BTreeMap::new();
    for one in refusals {
        let text = |key: &str| one[key].as_str().unwrap_or_default();
        let key = ["who", "from", "asked", "reason"].map(text).join(" ");
        let count: &mut (usize, u64) = counted.entry(key).or_default();
        count.0 += 1;
        count.1 += one["count"].as_u64().unwrap();
    }
    counted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refusals_is_a_handful_of_entries_that_name_who_from_where_and_which_key() {
    let (server, _) = start(
        "[rate_limits]\nreads = \"1/m burst 1\"\nwrites = \"1/m burst 1\"\n\
         [[rate_limits.override]]\non = \"team/busy\"\nreads = \"2/m burst 1\"\n",
    )
    .await;
    let tasks = (0..4).map(|task| {
        let (alice, bob) = (client(&server, "alice"), client(&server, "bob"));
        tokio::spawn(async move {
            let mut connection = alice.connect().await.unwrap();
            let mut refused = 0;
            for n in 0..2_500 {
                // Ever other addresses of the API, so that nothing but the client is the same.
                let path = format!("/v2/team/app{task}/manifests/t{n}");
                let answer = alice.get(&path).send_on(&mut connection).await.unwrap();
                refused += u64::from(answer.status == 429);
            }
            for n in 0..50 {
                let path = format!("/api/v1/repositories/team/app{task}x{n}");
                refused += u64::from(alice.get(&path).send().await.status == 429);
                bob.get("/v2/team/busy/x/tags/list").send().await;
                bob.post("/v2/team/app/blobs/uploads/").send().await;
            }
            refused
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut refused = 0;
    for task in tasks {
        refused += task.await.unwrap();
    }
    let stranger = client(&server, "");
    for host in 0..40 {
        let from = format!("2001:db8:1:1::{host:x}");
        stranger
            .get(NONE)
            .header("x-forwarded-for", &from)
            .send()
            .await;
    }
    assert_eq!(refused, 4 * 2_550 - 1);
    let log = refusals(&server).await;
    let counted = counted(&log);
    let (rows, times) = counted["alice 127.0.0.1 reads rate_limits.reads allows 1/m"];
    assert!(
        rows <= 5 && times == refused,
        "{rows} {times} of {refused}: {counted:?}"
    );
    let busy = log.iter().find(|one| one["on"] == "team/busy").unwrap();
    let reason = busy["reason"].as_str().unwrap();
    assert!(
        reason.contains("on = \"team/busy\"") && reason.ends_with("allows 2/m burst 1"),
        "{busy}"
    );
    assert_eq!(
        (&busy["who"], &busy["credential"]),
        (&"bob".into(), &"password".into())
    );
    let writes = "bob 127.0.0.1 writes rate_limits.writes allows 1/m";
    assert_eq!(counted[writes].1, 199, "{counted:?}");
    let network = "anonymous 2001:db8:1:1:: reads rate_limits.reads allows 1/m";
    assert_eq!(counted[network], (2, 39), "{counted:?}");
    assert!(log.len() < 20, "{log:?}");
}

#[tokio::test]
async fn refused_sign_ins_and_tokens_are_in_the_log_without_the_names_that_were_tried() {
    let (server, _) =
        start("[rate_limits]\nsign_in = \"1/m burst 2\"\ntoken = \"1/m burst 3\"\n").await;
    let guess = async |name: &str, path: &str| {
        let guess = client(&server, "").with_basic(name, "Winter2026");
        guess.get(path).send().await.status.as_u16()
    };
    let mut statuses = Vec::new();
    for n in 0..30 {
        let path = [NONE, "/api/v1/me", "/token"][n % 3];
        statuses.push(guess(&format!("user{n}"), path).await);
    }
    let limited = statuses.iter().filter(|status| **status == 429).count() as u64;
    assert_eq!(limited, 28, "{statuses:?}");
    let counted = counted(&refusals(&server).await);
    let of = |key: &str| counted[&format!("anonymous 127.0.0.1 {key}")].1;
    let sign_in = of("sign_in rate_limits.sign_in allows 1/m burst 2");
    let token = of("token rate_limits.token allows 1/m burst 3");
    assert_eq!(sign_in + token, limited, "{counted:?}");
    assert!(token == 7 && counted.len() <= 5, "{counted:?}");
}

/// Spec: ERR-3. containerd repeats a 429 five times at once, without a look at `Retry-After` (§8.1).
#[tokio::test]
async fn a_storm_of_retries_counts_once() {
    let (server, clock) = start("[rate_limits]\nreads = \"1/m burst 1\"\n").await;
    let alice = client(&server, "alice");
    let refused = || {
        let counts = server.app().registry.access.limited_counts();
        counts.iter().map(|(_, count)| count).sum::<u64>()
    };
    assert_eq!(read(&alice, NONE).await, 404);
    let mut seconds = Vec::new();
    for _ in 0..6 {
        seconds.push(limited(alice.get(NONE).send().await, "rate_limits.reads"));
    }
    assert_eq!(refused(), 1);
    let range = || alice.get(NONE).header("range", "bytes=5-");
    for _ in 0..6 {
        limited(range().send().await, "rate_limits.reads");
    }
    assert_eq!(refused(), 2);
    // None of them made it later: whoever waits as told the first time is let through.
    assert!(seconds.iter().all(|all| *all == seconds[0]));
    clock.advance(seconds[0] * 1_000);
    assert_eq!(read(&alice, NONE).await, 404);
    let figures = client(&server, "admin").get("/metrics").send().await;
    let figures = String::from_utf8(figures.expect_status(200).body.to_vec()).unwrap();
    assert!(figures.contains("wharf_rate_limited_total{kind=\"reads\"} 2"));
}

#[tokio::test]
async fn overrides_hold_for_a_role_and_a_namespace_and_show_nothing_to_strangers() {
    let (server, _) = start(
        "[rate_limits]\nreads = \"1/m burst 6\"\n\
         [[rate_limits.override]]\non = \"team/busy\"\nreads = \"1/m burst 2\"\n\
         [[rate_limits.override]]\nrole = \"owner\"\nreads = \"off\"\n",
    )
    .await;
    let (busy, other) = ("/v2/team/busy/x/manifests/none", NONE);
    let alice = client(&server, "alice");
    for status in [404, 404, 429] {
        assert_eq!(read(&alice, busy).await, status);
    }
    limited(alice.get(busy).send().await, "on = \\\"team/busy\\\"");
    // Counted apart.
    for status in [404, 404, 404, 404, 404, 404, 429] {
        assert_eq!(read(&alice, other).await, status);
    }
    // The longest prefix decides before the role does.
    let admin = client(&server, "admin");
    for _ in 0..20 {
        assert_eq!(read(&admin, other).await, 404);
    }
    for status in [404, 404, 429] {
        assert_eq!(read(&admin, busy).await, status);
    }
    // Whoever may not see the namespace is limited there as anywhere.
    let carol = client(&server, "carol");
    for path in [busy, other] {
        for status in [403, 403, 403] {
            assert_eq!(read(&carol, path).await, status);
        }
    }
    let text = |answer: Response| {
        let entry = &answer.expect_status(429).json()["errors"][0];
        (entry["code"].clone(), entry["message"].clone())
    };
    let there = text(carol.get(busy).send().await);
    assert_eq!(there, text(carol.get(other).send().await));
}

#[tokio::test]
async fn probes_and_the_admin_socket_are_never_limited() {
    let server = Process::start(
        Path::new(env!("CARGO_BIN_EXE_wharf")),
        TestOptions {
            config: "[rate_limits]\nreads = \"1/h\"\nwrites = \"1/h\"\nsign_in = \"1/h\"\n".into(),
            ..TestOptions::default()
        },
    )
    .await;
    let admin = server.admin(Version::Http1);
    assert_eq!(read(&admin, NONE).await, 404);
    assert_eq!(read(&admin, NONE).await, 429);
    let nobody = admin.clone().anonymous();
    for _ in 0..20 {
        for probe in ["/livez", "/readyz", "/startupz"] {
            assert_eq!(read(&nobody, probe).await, 200);
        }
    }
    let data = server.folder().join("data");
    for _ in 0..3 {
        let mut list = std::process::Command::new(env!("CARGO_BIN_EXE_wharf"));
        list.args(["namespace", "list", "--data"]).arg(&data);
        let listed = tokio::task::spawn_blocking(move || list.output()).await;
        let listed = listed.unwrap().unwrap();
        assert!(listed.status.success(), "{listed:?}");
    }
}

#[tokio::test]
async fn switched_off_nothing_is_limited() {
    let (server, _) = start("[rate_limits]\nenabled = false\nreads = \"1/h\"\n").await;
    let alice = client(&server, "alice");
    for _ in 0..50 {
        assert_eq!(read(&alice, NONE).await, 404);
    }
}

/// A rollout: five hundred nodes with one robot's credentials behind one address, each with all that a pull takes.
/// Spec: K8SCRED-8.
#[tokio::test(flavor = "multi_thread")]
async fn five_hundred_nodes_at_once_pass_the_defaults() {
    let (server, clock) = start("").await;
    let admin = client(&server, "admin");
    let image = Image::random();
    admin.push_image("team/app", "v1", &image).await;
    let nodes = (0..500).map(|_| {
        let (alice, image) = (client(&server, "alice"), image.clone());
        tokio::spawn(async move {
            let mut connection = alice.connect().await.unwrap();
            let mut ask = async |request: wharf_testkit::Request| {
                request
                    .send_on(&mut connection)
                    .await
                    .unwrap()
                    .status
                    .as_u16()
            };
            let mut seen = vec![ask(alice.clone().anonymous().get("/v2/")).await];
            let scope = "/token?service=wharf&scope=repository:team/app:pull";
            seen.push(ask(alice.get(scope)).await);
            seen.push(ask(alice.head(&manifest("team/app", "v1"))).await);
            seen.push(ask(alice.get(&manifest("team/app", &image.manifest.digest))).await);
            for blob in image.blobs() {
                let path = format!("/v2/team/app/blobs/{}", blob.digest);
                seen.push(ask(alice.get(&path)).await);
            }
            seen
        })
    });
    let nodes: Vec<_> = nodes.collect();
    for node in nodes {
        let seen = node.await.unwrap();
        assert_eq!(seen, [401, 200, 200, 200, 200, 200, 200]);
    }
    // Nothing was refilled meanwhile.
    assert_eq!(clock.now_ms(), TODAY);
}
