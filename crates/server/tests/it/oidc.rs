//! Providers that are slow, down, confused or hostile, and signing out: at the provider, and by it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use wharf_testkit::client::Response;
use wharf_testkit::issuer::TokenKey;
use wharf_testkit::{Client, Image, TestServer, Version};

use crate::browser::{Browser, HOST, Manner, Provider, by_named, by_provider, form, start, text};

/// A sign-in asks a provider twice at most, and for its keys; each has its own bound.
const BOUND: Duration = Duration::from_secs(25);
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs()
}

fn says(status: u16, body: impl Into<String>) -> Manner {
    Manner::Says(status, body.into())
}

/// What is wrong with a provider, where, and what the page says then.
fn faults() -> Vec<(&'static str, Manner, u16, &'static str)> {
    const FOUND: &str = "/.well-known/openid-configuration";
    const DOWN: &str = "cannot be used now; try again in a moment";
    const PROOF: &str = "sent a proof that is not good here";
    let other = json!({
        "issuer": "https://other.example", "authorization_endpoint": "https://other.example/a",
        "token_endpoint": "https://other.example/t", "jwks_uri": "https://other.example/k",
    });
    let huge = format!("{{\"issuer\": \"{}\"}}", "x".repeat(300 << 10));
    let keys: Vec<_> = (0..1_000)
        .map(|n| json!({"kty": "OKP", "crv": "Ed25519", "kid": n.to_string(), "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}))
        .collect();
    let keys = json!({"keys": keys}).to_string();
    let plain = TokenKey::new("one");
    let early = json!({"id_token": plain.sign(&json!({"sub": "1"})), "access_token": "a"});
    vec![
        (FOUND, Manner::Silent, 502, DOWN),
        (FOUND, Manner::Slow, 502, DOWN),
        (FOUND, says(500, ""), 502, DOWN),
        (FOUND, says(200, "<html>"), 502, DOWN),
        (FOUND, says(200, "{}"), 502, DOWN),
        (FOUND, says(200, huge), 502, DOWN),
        (FOUND, says(200, other.to_string()), 502, DOWN),
        (FOUND, Manner::Circle, 502, DOWN),
        ("/keys", Manner::Silent, 502, PROOF),
        ("/keys", Manner::Slow, 502, PROOF),
        ("/keys", says(503, ""), 502, PROOF),
        ("/keys", says(200, "[]"), 502, PROOF),
        ("/keys", says(200, r#"{"keys":[]}"#), 502, PROOF),
        ("/keys", says(200, keys), 502, PROOF),
        ("/keys", Manner::Circle, 502, PROOF),
        ("/token", Manner::Silent, 502, DOWN),
        ("/token", Manner::Slow, 502, DOWN),
        ("/token", Manner::Circle, 502, DOWN),
        ("/token", says(500, "oops"), 502, DOWN),
        ("/token", says(200, "oops"), 502, DOWN),
        ("/token", says(200, r#"{"access_token":"a"}"#), 502, PROOF),
        ("/token", says(200, r#"{"id_token":"a.b.c"}"#), 502, PROOF),
        ("/token", says(200, early.to_string()), 502, PROOF),
        (
            "/token",
            says(400, r#"{"error":"invalid_grant"}"#),
            403,
            "did not let you in: invalid_grant",
        ),
        (
            "/token",
            says(401, r#"{"error":"invalid_client"}"#),
            502,
            DOWN,
        ),
        ("/token", says(400, "not JSON"), 502, DOWN),
    ]
}

/// A browser with a session by `corp`, and a program with a token that was made in it.
async fn settled(server: &TestServer, provider: &Provider) -> (Browser, Client) {
    let admin = server.admin(Version::Http1);
    admin
        .push_image("team/app", "latest", &Image::random())
        .await;
    provider.person(
        json!({"sub": "1", "preferred_username": "ann", "groups": ["admins"], "sid": "s1"}),
    );
    let mut browser = Browser::new(server);
    by_provider(&mut browser, provider).await.expect_status(303);
    let form = browser.form("/account/tokens").await;
    let fields = [
        ("form", &*form),
        ("name", "ci"),
        ("scopes", "reader:team"),
        ("days", "30"),
    ];
    let made = text(&browser.post("/account/tokens", &fields).await);
    let secret = made.split_once("<code id=\"secret\">").unwrap().1;
    let secret = secret.split('<').next().unwrap().to_owned();
    let program = admin.with_basic("ann", &secret);
    (browser, program)
}

async fn go_on(browser: &mut Browser, program: &Client) {
    browser.get("/account/tokens").await.expect_status(200);
    let pulled = program.get("/v2/team/app/manifests/latest").send().await;
    pulled.expect_status(200);
}

#[tokio::test]
async fn providers_that_misbehave_let_nobody_in_and_harm_no_session_and_no_pull() {
    let good = Provider::start().await;
    let mut config = good.config("onboarding = \"auto\"");
    let mut bad = Vec::new();
    for (at, fault) in faults().into_iter().enumerate() {
        let provider = Provider::start().await;
        provider.person(json!({"sub": "1", "preferred_username": "eve"}));
        provider.manner(fault.0, fault.1.clone());
        let name = format!("bad{at}");
        config += &provider.table(&name, "onboarding = \"auto\"");
        bad.push((name, provider, fault));
    }
    // One is not there at all.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    config += &format!(
        "[[auth.oidc]]\nname = \"gone\"\nissuer = \"http://{}\"\nclient_id = \"wharf\"\n",
        gone.local_addr().unwrap()
    );
    drop(gone);
    let server = start(config).await;
    let (mut browser, program) = settled(&server, &good).await;
    let mut tried = JoinSet::new();
    for (name, provider, (path, manner, status, told)) in bad {
        let mut other = Browser::new(&server);
        tried.spawn(async move {
            let began = Instant::now();
            let page = by_named(&mut other, &provider, &name).await;
            let took = began.elapsed();
            let manner: String = format!("{manner:?}").chars().take(60).collect();
            let what = format!("{path} {manner}: {page}");
            assert!(took < BOUND, "{took:?}: {what}");
            assert_eq!(page.status, status, "{what}");
            let page = text(&page);
            assert!(
                page.contains(told) && page.contains("Request "),
                "{what}: {page}"
            );
            assert!(!other.cookies.contains_key("wharf_session"), "{what}");
            // The sign-in page is as before.
            other.get("/auth/login").await.expect_status(200);
            assert!(
                provider.asked(path) <= 2,
                "{what}: {} times",
                provider.asked(path)
            );
        });
    }
    // Beside them, nothing waits for them.
    let mut rounds = 0;
    while !tried.is_empty() {
        go_on(&mut browser, &program).await;
        rounds += 1;
        while let Some(done) = tried.try_join_next() {
            done.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(
        rounds >= 3,
        "only {rounds} while providers kept others waiting"
    );
    let mut other = Browser::new(&server);
    let page = other.get("/auth/oidc/gone/start").await.expect_status(502);
    assert!(text(&page).contains("The provider does not answer"));
    go_on(&mut browser, &program).await;
    // And the good one lets people in as before.
    by_provider(&mut other, &good).await.expect_status(303);
}

#[tokio::test]
async fn clocks_that_differ_are_told_of_and_a_minute_is_borne() {
    let provider = Provider::start().await;
    let server = start(provider.config("onboarding = \"auto\"")).await;
    let mut browser = Browser::new(&server);
    for (iat, exp, status) in [
        (300, 600, 502),
        (0, -120, 502),
        (45, 600, 303),
        (-600, -45, 303),
    ] {
        let at = |by: i64| now().checked_add_signed(by).unwrap();
        provider.person(
            json!({"sub": "1", "preferred_username": "ann", "iat": at(iat), "exp": at(exp)}),
        );
        let answer = by_provider(&mut browser, &provider).await;
        assert_eq!(answer.status, status, "{iat} {exp}: {answer}");
    }
    // The log is written beside requests.
    let admin = server.admin(Version::Http1);
    let began = Instant::now();
    loop {
        let log = admin.get("/api/v1/audit?limit=100").send().await;
        let log = text(&log.expect_status(200));
        if log.contains("is the clock of a machine wrong?") {
            break;
        }
        assert!(began.elapsed() < BOUND, "{log}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn unknown_kid_floods_ask_a_provider_for_its_keys_now_and_then() {
    let provider = Provider::start().await;
    let server = start(provider.config("onboarding = \"auto\"")).await;
    let (mut browser, program) = settled(&server, &provider).await;
    assert_eq!(provider.asked("/keys"), 1);
    provider.signs_with_another_key();
    let began = Instant::now();
    let mut other = Browser::new(&server);
    for _ in 0..10 {
        by_provider(&mut other, &provider).await.expect_status(502);
    }
    let strange = TokenKey::new("three");
    let client = server.admin(Version::Http1).anonymous();
    for n in 0..50 {
        let word = strange.sign(&word(&provider, &n.to_string()));
        hears(&client, &word).await.expect_status(400);
    }
    // Once for what was there, and once in each 15 s.
    let most = 2 + began.elapsed().as_secs() / 15;
    let asked = provider.asked("/keys");
    assert!(asked as u64 <= most, "{asked} times, and {most} would be");
    assert_eq!(provider.asked("/.well-known/openid-configuration"), 1);
    go_on(&mut browser, &program).await;
}

/// What a logout token of Ann's account says.
fn word(provider: &Provider, jti: &str) -> Value {
    let now = now();
    json!({"iss": provider.url, "aud": "wharf", "iat": now, "exp": now + 120, "jti": jti, "sub": "1", "events": {EVENT: {}}})
}

async fn hears(client: &Client, token: &str) -> Response {
    let request = client.post("/auth/oidc/corp/backchannel-logout");
    let request = request.without_header("host").header("host", HOST);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    let answer = request.body(format!("logout_token={token}")).send().await;
    assert_eq!(answer.expect_header("cache-control"), "no-store");
    answer
}

#[tokio::test]
async fn a_provider_ends_the_session_that_it_names_and_nothing_else() {
    let provider = Provider::start().await;
    let server = start(provider.config("onboarding = \"auto\"")).await;
    let (mut one, program) = settled(&server, &provider).await;
    provider.person(
        json!({"sub": "1", "preferred_username": "ann", "groups": ["admins"], "sid": "s2"}),
    );
    let mut two = Browser::new(&server);
    by_provider(&mut two, &provider).await.expect_status(303);
    let client = server.admin(Version::Http1).anonymous();
    let mut by_session = word(&provider, "a");
    by_session["sid"] = "s1".into();
    // What is no logout token for us ends nothing, and says why.
    let forged = TokenKey::new("one").sign(&by_session);
    let mut with_nonce = by_session.clone();
    with_nonce["nonce"] = "n".into();
    let mut other_client = by_session.clone();
    other_client["aud"] = "other".into();
    let mut id_token = by_session.clone();
    id_token.as_object_mut().unwrap().remove("events");
    for (token, told) in [
        (forged, "its signature is wrong"),
        (provider.sign(&with_nonce), "it has a nonce"),
        (
            provider.sign(&other_client),
            "it is for another client (aud)",
        ),
        (provider.sign(&id_token), "it is no logout token (events)"),
        ("garbage".to_owned(), "three parts"),
        (String::new(), "one logout_token is needed"),
        (
            format!("{}&logout_token=x", provider.sign(&by_session)),
            "one logout_token is needed",
        ),
        ("x".repeat(20 << 10), "one logout_token is needed"),
    ] {
        let answer = hears(&client, &token).await.expect_status(400).json();
        assert_eq!(answer["error"], "invalid_request");
        let said = answer["error_description"].as_str().unwrap();
        assert!(said.contains(told), "{said}");
    }
    go_on(&mut one, &program).await;
    let token = provider.sign(&by_session);
    let answer = hears(&client, &token).await.expect_status(200);
    assert!(answer.body.is_empty());
    one.get("/account/tokens").await.expect_status(303);
    go_on(&mut two, &program).await;
    let again = hears(&client, &token).await.expect_status(400);
    assert!(
        text(&again).contains("it was heard before (jti)"),
        "{again}"
    );
    // All of the account.
    by_provider(&mut one, &provider).await.expect_status(303);
    let token = provider.sign(&word(&provider, "b"));
    hears(&client, &token).await.expect_status(200);
    for browser in [&mut one, &mut two] {
        browser.get("/account/tokens").await.expect_status(303);
    }
    // API tokens are no sessions.
    let pulled = program.get("/v2/team/app/manifests/latest").send().await;
    pulled.expect_status(200);
    let answer = client
        .post("/auth/oidc/none/backchannel-logout")
        .without_header("host")
        .header("host", HOST);
    let answer = answer
        .body("logout_token=a")
        .send()
        .await
        .expect_status(400);
    assert!(text(&answer).contains("no provider of that name"));
    let admin = server.admin(Version::Http1);
    let log = text(&admin.get("/api/v1/audit?limit=100").send().await);
    assert!(
        log.contains("provider corp") && !log.contains(&token),
        "{log}"
    );
}

#[tokio::test]
async fn who_signs_out_goes_on_at_the_provider_and_comes_back() {
    let provider = Provider::start().await;
    let server = start(provider.config("onboarding = \"auto\"\nlogout = \"provider\"")).await;
    let (mut browser, _) = settled(&server, &provider).await;
    let own = format!("http://{HOST}");
    let page = text(&browser.get("/account/tokens").await.expect_status(200));
    let form = form(&page);
    // CSRF: no other site signs anybody out, neither here nor there.
    for (form, origin, site) in [
        (&*form, "https://evil.example", "cross-site"),
        ("", &*own, "same-origin"),
    ] {
        let answer = browser
            .post_from("/auth/logout", &[("form", form)], origin, site)
            .await;
        assert!(!text(&answer.expect_status(403)).contains("/out?"));
    }
    browser.get("/auth/logout").await.expect_status(405);
    browser
        .get("/auth/oidc/corp/signed-out?state=a")
        .await
        .expect_status(303);
    browser.get("/account/tokens").await.expect_status(200);

    let fields = [
        ("form", &*form),
        ("return", "https://evil.example"),
        ("post_logout_redirect_uri", "https://evil.example"),
    ];
    let page = browser
        .post("/auth/logout", &fields)
        .await
        .expect_status(200);
    assert!(!browser.cookies.contains_key("wharf_session"));
    let page = text(&page);
    let there = page
        .split_once("<meta http-equiv=\"refresh\" content=\"0; url=")
        .unwrap()
        .1;
    let there = there
        .split('"')
        .next()
        .unwrap()
        .replace("&#38;", "&")
        .replace("&amp;", "&");
    let back = "http%3A%2F%2Flocalhost%3A5000%2Fauth%2Foidc%2Fcorp%2Fsigned-out";
    let begin = format!(
        "{}/out?client_id=wharf&post_logout_redirect_uri={back}&state=",
        provider.url
    );
    let rest = there
        .strip_prefix(&begin)
        .unwrap_or_else(|| panic!("{there}"));
    let (state, hint) = rest
        .split_once("&id_token_hint=eyJ")
        .unwrap_or_else(|| panic!("{there}"));
    let state = state.to_owned();
    assert_eq!(hint.matches('.').count(), 2, "{hint}");
    assert!(!browser.cookies.contains_key("wharf_hint"), "it is spent");
    assert!(!page.contains("evil"), "{page}");
    browser.get("/account/tokens").await.expect_status(303);
    // Open redirect: an answer that is none leads to the sign-in page, and one that is stays here.
    for answer in [
        "",
        "?state=",
        "?state=x",
        "?state=x&state=x",
        "?return=//evil.example",
    ] {
        let path = format!("/auth/oidc/corp/signed-out{answer}");
        let moved = browser.get(&path).await.expect_status(303);
        assert_eq!(moved.location(), "/auth/login");
    }
    let path = format!(
        "/auth/oidc/corp/signed-out?state={state}&post_logout_redirect_uri=https%3A%2F%2Fevil.example"
    );
    let done = text(&browser.get(&path).await.expect_status(200));
    assert!(
        done.contains("comes back from signing out at The Company") && !done.contains("evil"),
        "{done}"
    );
    assert!(!browser.cookies.contains_key("wharf_leaving"));
    browser.get(&path).await.expect_status(303);
    // Somebody else's browser is told nothing.
    Browser::new(&server).get(&path).await.expect_status(303);
    // A password's session ends here alone.
    browser
        .sign_in("admin", wharf_testkit::options::ADMIN_PASSWORD)
        .await
        .expect_status(303);
    let form = browser.form("/account/tokens").await;
    let page = browser.post("/auth/logout", &[("form", &form)]).await;
    assert!(!text(&page.expect_status(200)).contains("http-equiv"));
}

#[tokio::test]
async fn who_signs_out_while_the_provider_is_down_is_signed_out_here() {
    let provider = Provider::start().await;
    let server = start(provider.config("onboarding = \"auto\"")).await;
    let (mut browser, _) = settled(&server, &provider).await;
    let form = browser.form("/account/tokens").await;
    let page = browser.post("/auth/logout", &[("form", &form)]).await;
    let page = text(&page.expect_status(200));
    assert!(
        !page.contains("http-equiv") && page.contains("API tokens go on"),
        "not unless that is set: {page}"
    );
    browser.get("/account/tokens").await.expect_status(303);
}
