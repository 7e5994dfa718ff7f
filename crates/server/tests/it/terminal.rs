//! Signing in from a terminal (RFC 8628, RFC 6749, RFC 7009): the whole way, what a terminal may and for how long, and attacks by name.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::Method;
use serde_json::{Value, json};
use wharf_core::clock::ManualClock;
use wharf_oci::percent::encode_query;
use wharf_testkit::client::Response;
use wharf_testkit::options::ADMIN_PASSWORD;
use wharf_testkit::{Client, Image, TestOptions, TestServer, Version};

use crate::browser::{Browser, HOST, form, start, text};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// Sends a form as a program does, with our address as its host.
pub(crate) async fn send(client: &Client, path: &str, fields: &[(&str, &str)]) -> Response {
    let pairs = fields.iter();
    let pairs = pairs.map(|(key, value)| format!("{key}={}", encode_query(value)));
    let body = pairs.collect::<Vec<_>>().join("&");
    let request = client.request(Method::POST, path);
    let request = request.without_header("host").header("host", HOST);
    let request = request.header("content-type", "application/x-www-form-urlencoded");
    request.body(body).send().await
}

pub(crate) async fn begin(client: &Client) -> Value {
    let fields = [("client_id", "wharf"), ("device", "anna's laptop")];
    let begun = send(client, "/auth/device/code", &fields).await;
    begun.expect_status(200).json()
}

pub(crate) async fn poll(client: &Client, code: &str) -> Response {
    let fields = [
        ("grant_type", GRANT),
        ("device_code", code),
        ("client_id", "wharf"),
    ];
    send(client, "/token", &fields).await
}

pub(crate) async fn refresh(client: &Client, token: &str) -> Response {
    let fields = [
        ("grant_type", "refresh_token"),
        ("refresh_token", token),
        ("client_id", "wharf"),
    ];
    send(client, "/token", &fields).await
}

pub(crate) async fn decide(browser: &mut Browser, code: &str, decision: &str) -> Response {
    let form = browser.form("/device").await;
    let fields = [
        ("form", &*form),
        ("user_code", code),
        ("decision", decision),
    ];
    browser.post("/device", &fields).await
}

fn word(answer: &Response) -> String {
    let json = answer.json();
    assert_eq!(answer.expect_header("cache-control"), "no-store");
    assert!(
        !json["error_description"].as_str().unwrap().is_empty(),
        "{json}"
    );
    json["error"].as_str().unwrap().to_owned()
}

/// The status of an access token's answers as bearer, as password, and at the token endpoint.
async fn doors(client: &Client, user: &str, token: &str) -> [u16; 4] {
    let bearer = client.clone().with_token(token);
    let basic = client.clone().with_basic(user, token);
    let of = |answer: Response| answer.status.as_u16();
    [
        of(bearer.get("/v2/_catalog").send().await),
        of(bearer.get("/api/v1/me").send().await),
        of(basic.get("/v2/_catalog").send().await),
        of(basic
            .get("/token?scope=repository:team/app:pull")
            .send()
            .await),
    ]
}

/// Somebody who may read, with a password.
pub(crate) async fn reader(server: &TestServer, name: &str) {
    let admin = server.admin(Version::Http1);
    let body = json!({"name": name, "password": "wonderland looks"}).to_string();
    let made = admin
        .post("/api/v1/users")
        .header("content-type", "application/json");
    made.body(body).send().await.expect_status(201);
    let body = json!({"who": name, "role": "reader", "on": "team"}).to_string();
    let grant = admin.post("/api/v1/bindings");
    let grant = grant.header("content-type", "application/json").body(body);
    grant.send().await.expect_status(200);
}

/// A terminal of whoever is signed in with the browser: access token and refresh token.
async fn terminal(browser: &mut Browser) -> (String, String) {
    let client = browser.client.clone();
    let begun = begin(&client).await;
    let code = begun["user_code"].as_str().unwrap();
    let page = decide(browser, code, "approve").await.expect_status(200);
    assert!(text(&page).contains("Done"), "{}", text(&page));
    let granted = poll(&client, begun["device_code"].as_str().unwrap()).await;
    tokens(&granted)
}

fn tokens(granted: &Response) -> (String, String) {
    let json = granted.clone().expect_status(200).json();
    let field = |name: &str| json[name].as_str().unwrap().to_owned();
    (field("access_token"), field("refresh_token"))
}

async fn signed_in(server: &TestServer, user: &str, password: &str) -> Browser {
    let mut browser = Browser::new(server);
    browser.sign_in(user, password).await.expect_status(303);
    browser
}

/// Spec: OIDC-6.
#[tokio::test]
async fn a_terminal_signs_in_pulls_renews_and_signs_out() {
    let server = start(String::new()).await;
    let admin = server.admin(Version::Http1);
    admin.push_image("team/app", "1", &Image::random()).await;
    let client = admin.clone().anonymous();
    let known = client.get("/.well-known/oauth-authorization-server");
    let known = known
        .without_header("host")
        .header("host", HOST)
        .send()
        .await;
    let known = known.expect_status(200).json();
    let base = format!("http://{HOST}");
    assert_eq!(known["issuer"], *base);
    assert_eq!(known["token_endpoint"], format!("{base}/token"));
    assert_eq!(
        known["device_authorization_endpoint"],
        format!("{base}/auth/device/code")
    );
    assert_eq!(known["revocation_endpoint"], format!("{base}/auth/revoke"));
    assert_eq!(known["response_types_supported"], json!([]));
    assert!(
        known["grant_types_supported"]
            .as_array()
            .unwrap()
            .contains(&GRANT.into())
    );

    let begun = begin(&client).await;
    let (device_code, code) = (
        begun["device_code"].as_str().unwrap(),
        begun["user_code"].as_str().unwrap(),
    );
    assert_eq!(begun["verification_uri"], format!("{base}/device"));
    assert_eq!(
        begun["verification_uri_complete"],
        format!("{base}/device?user_code={code}")
    );
    assert_eq!(
        (&begun["expires_in"], &begun["interval"]),
        (&json!(600), &json!(5))
    );
    let letters = |part: &str| {
        part.len() == 4
            && part
                .bytes()
                .all(|byte| b"BCDFGHJKLMNPQRSTVWXZ".contains(&byte))
    };
    let (left, right) = code.split_once('-').unwrap();
    assert!(letters(left) && letters(right), "{code}");
    let early = poll(&client, device_code).await.expect_status(400);
    assert_eq!(word(&early), "authorization_pending");

    // Who is not signed in goes that way first, and comes back to the code.
    let mut browser = Browser::new(&server);
    let path = format!("/device?user_code={}", code.to_lowercase());
    let away = browser
        .get(&path)
        .await
        .expect_status(303)
        .location()
        .to_owned();
    assert_eq!(
        away,
        format!(
            "/auth/login?return={}",
            encode_query(&format!("/device?user_code={code}"))
        )
    );
    browser
        .sign_in("admin", ADMIN_PASSWORD)
        .await
        .expect_status(303);
    let page = text(&browser.get(&path).await.expect_status(200));
    assert!(
        page.contains(&format!("value=\"{code}\"")) && !page.contains("approve"),
        "{page}"
    );
    let fields = [
        ("form", &*form(&page)),
        ("user_code", &code.to_lowercase().replace('-', " ")),
    ];
    let page = text(&browser.post("/device", &fields).await.expect_status(200));
    assert!(
        page.contains("anna&#39;s laptop") && page.contains("127.0.0.1"),
        "{page}"
    );
    assert!(
        page.contains("Did someone send you this code") && page.contains("Do not go on"),
        "{page}"
    );
    let fields = [
        ("form", &*form(&page)),
        ("user_code", code),
        ("decision", "approve"),
    ];
    let page = text(&browser.post("/device", &fields).await.expect_status(200));
    assert!(page.contains("signs in by itself now"), "{page}");

    let granted = poll(&client, device_code).await.expect_status(200);
    let json = granted.json();
    assert_eq!(
        (&json["token_type"], &json["username"]),
        (&json!("Bearer"), &json!("admin"))
    );
    assert_eq!(json["expires_in"], 900);
    assert_eq!(granted.expect_header("cache-control"), "no-store");
    let (access, first) = tokens(&granted);
    assert!(
        first.starts_with("wharf_terminal_"),
        "the form by which clients tell it"
    );
    assert_eq!(doors(&client, "admin", &access).await, [200; 4]);
    let narrow = client.clone().with_basic("admin", &access);
    let narrow = narrow
        .get("/token?scope=repository:team/app:pull&offline_token=true")
        .send()
        .await;
    let narrow = narrow.expect_status(200).json();
    assert!(
        narrow.get("refresh_token").is_none(),
        "none that is not spent by use: {narrow}"
    );
    let docker = client.clone().with_token(narrow["token"].as_str().unwrap());
    docker
        .get("/v2/team/app/manifests/1")
        .send()
        .await
        .expect_status(200);
    docker.get("/v2/_catalog").send().await.expect_status(401);

    let (access, second) = tokens(&refresh(&client, &first).await);
    assert_ne!(first, second);
    assert_eq!(doors(&client, "admin", &access).await, [200; 4]);
    let all = admin
        .get("/api/v1/users/admin/sessions")
        .send()
        .await
        .json();
    let mine = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["kind"] == "terminal")
        .unwrap();
    assert_eq!(
        (&mine["device"], &mine["address"]),
        (&json!("anna's laptop"), &json!("127.0.0.1"))
    );
    let page = text(&browser.get("/account/sessions").await.expect_status(200));
    assert!(
        page.contains("anna&#39;s laptop") && page.contains("a terminal"),
        "{page}"
    );

    send(
        &client,
        "/auth/revoke",
        &[("token", &second), ("client_id", "wharf")],
    )
    .await
    .expect_status(200);
    assert_eq!(doors(&client, "admin", &access).await, [401; 4]);
    docker
        .get("/v2/team/app/manifests/1")
        .send()
        .await
        .expect_status(401);
    assert_eq!(
        word(&refresh(&client, &second).await.expect_status(400)),
        "invalid_grant"
    );
    send(&client, "/auth/revoke", &[("token", "whatever")])
        .await
        .expect_status(200);
    let log = admin.get("/api/v1/audit?limit=100").send().await;
    let log = text(&log);
    assert!(log.contains("device.approve"), "{log}");
    for secret in [&*access, &first, &second, device_code, code] {
        assert!(!log.contains(secret));
    }
}

#[tokio::test]
async fn polling_too_fast_is_told_to_slow_down() {
    let server = start(String::new()).await;
    let client = server.admin(Version::Http1).anonymous();
    let begun = begin(&client).await;
    let code = begun["device_code"].as_str().unwrap();
    assert_eq!(
        word(&poll(&client, code).await.expect_status(400)),
        "authorization_pending"
    );
    for wait in ["wait 10 s", "wait 15 s"] {
        let answer = poll(&client, code).await.expect_status(400);
        assert_eq!(word(&answer), "slow_down");
        assert!(text(&answer).contains(wait), "{answer}");
    }
    let figures = server.admin(Version::Http1).get("/metrics").send().await;
    let figures = text(&figures.expect_status(200));
    assert!(
        !figures.contains("wharf_auth_failures_total{"),
        "who waits was not refused: {figures}"
    );
    assert_eq!(
        word(&poll(&client, "wharf_device_x").await.expect_status(400)),
        "invalid_grant"
    );
    assert_eq!(
        word(&poll(&client, "").await.expect_status(400)),
        "invalid_request"
    );
}

#[tokio::test]
async fn phishing_a_link_decides_nothing_and_a_code_is_good_once() {
    let server = start(String::new()).await;
    reader(&server, "ann").await;
    let client = server.admin(Version::Http1).anonymous();
    let mut browser = signed_in(&server, "ann", "wonderland looks").await;
    let begun = begin(&client).await;
    let (device_code, code) = (
        begun["device_code"].as_str().unwrap(),
        begun["user_code"].as_str().unwrap(),
    );
    for more in ["", "&decision=approve", "&decision=approve&form=x"] {
        let page = browser
            .get(&format!("/device?user_code={code}{more}"))
            .await
            .expect_status(200);
        assert_eq!(
            page.expect_header("x-frame-options"),
            "DENY",
            "clickjacking"
        );
        assert!(
            page.expect_header("content-security-policy")
                .contains("frame-ancestors 'none'")
        );
    }
    assert_eq!(
        word(&poll(&client, device_code).await),
        "authorization_pending"
    );
    // CSRF: a form of another site, one without our word, one of another session.
    let mut other = signed_in(&server, "admin", ADMIN_PASSWORD).await;
    let (own, others) = (browser.form("/device").await, other.form("/device").await);
    let here = format!("http://{HOST}");
    for (form, origin, site) in [
        ("", &*here, "same-origin"),
        (&others, &here, "same-origin"),
        (&own, "https://evil.example", "cross-site"),
        (&own, &here, "cross-site"),
        (&own, "null", "same-origin"),
    ] {
        let fields = [("form", form), ("user_code", code), ("decision", "approve")];
        browser
            .post_from("/device", &fields, origin, site)
            .await
            .expect_status(403);
    }
    let mut nobody = Browser::new(&server);
    let fields = [
        ("form", &*own),
        ("user_code", code),
        ("decision", "approve"),
    ];
    nobody.post("/device", &fields).await.expect_status(403);
    assert_eq!(word(&poll(&client, device_code).await), "slow_down");
    // Whoever decides first decides.
    decide(&mut browser, code, "deny").await.expect_status(200);
    decide(&mut other, code, "approve").await.expect_status(404);
    assert_eq!(
        word(&poll(&client, device_code).await.expect_status(400)),
        "access_denied"
    );
    // A code that is used twice is known to two: what was made of it ends.
    let begun = begin(&client).await;
    let device_code = begun["device_code"].as_str().unwrap();
    decide(
        &mut browser,
        begun["user_code"].as_str().unwrap(),
        "approve",
    )
    .await
    .expect_status(200);
    let (access, token) = tokens(&poll(&client, device_code).await);
    let bearer = client.clone().with_token(&access);
    bearer.get("/api/v1/me").send().await.expect_status(200);
    assert_eq!(
        word(&poll(&client, device_code).await.expect_status(400)),
        "invalid_grant"
    );
    bearer.get("/api/v1/me").send().await.expect_status(401);
    assert_eq!(word(&refresh(&client, &token).await), "invalid_grant");
}

#[tokio::test]
async fn guessing_codes_is_slowed_down_by_account_and_by_address() {
    // Time stands still, so that a slow machine waits for nothing to be over.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock");
    let now = i64::try_from(now.as_millis()).expect("a time");
    let options = TestOptions {
        config: format!("[server]\nexternal_url = \"http://{HOST}\"\n"),
        clock: Some(Arc::new(ManualClock::at(now))),
        ..TestOptions::default()
    };
    let server = TestServer::start(options).await;
    reader(&server, "ann").await;
    reader(&server, "ben").await;
    let client = server.admin(Version::Http1).anonymous();
    let mut ann = signed_in(&server, "ann", "wonderland looks").await;
    let begun = begin(&client).await;
    let code = begun["user_code"].as_str().unwrap().to_owned();
    for (n, letter) in ["B", "C", "D", "F", "G"].iter().enumerate() {
        let wrong = format!("BBBBBBB{letter}");
        assert_ne!(wrong, code.replace('-', ""), "so much luck");
        let answer = decide(&mut ann, &wrong, "approve").await;
        answer.expect_status(if n < 5 { 404 } else { 429 });
    }
    let limited = decide(&mut ann, &code, "approve").await.expect_status(429);
    assert!(
        limited.header("retry-after").is_some(),
        "even the right one has to wait"
    );
    // From the same address another account fares no better: the right one was not looked at.
    let mut ben = signed_in(&server, "ben", "wonderland looks").await;
    decide(&mut ben, &code, "approve").await.expect_status(429);
    for none in ["", "AEIO-UYAE", "BCDF", "BCDF-GHJKL"] {
        let page = decide(&mut ann, none, "approve").await.expect_status(400);
        assert!(text(&page).contains("eight letters"));
    }
    assert_eq!(
        word(&poll(&client, begun["device_code"].as_str().unwrap()).await),
        "authorization_pending"
    );
}

#[tokio::test]
async fn a_flood_of_requests_to_sign_in_is_bounded() {
    let server = start(String::new()).await;
    let client = server.admin(Version::Http1).anonymous();
    let most = wharf_core::terminal::MOST_OF_ADDRESS;
    for _ in 0..most {
        begin(&client).await;
    }
    let full = send(&client, "/auth/device/code", &[("client_id", "wharf")]).await;
    let full = full.expect_status(429);
    assert_eq!(word(&full), "slow_down");
    assert!(full.header("retry-after").is_some() && text(&full).contains("too many programs wait"));
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_with_the_field() {
    let server = start(String::new()).await;
    let client = server.admin(Version::Http1).anonymous();
    let long = "x".repeat(65);
    for (path, fields, told) in [
        (
            "/auth/device/code",
            vec![("device", "x")],
            "client_id is missing",
        ),
        (
            "/auth/device/code",
            vec![("client_id", "a"), ("client_id", "b")],
            "client_id more than once",
        ),
        (
            "/auth/device/code",
            vec![("client_id", "a"), ("device", &*long)],
            "device: ",
        ),
        (
            "/auth/device/code",
            vec![("client_id", "a"), ("device", "x\u{202e}y")],
            "device: ",
        ),
        ("/auth/revoke", vec![("client_id", "a")], "token is missing"),
        (
            "/token",
            vec![("grant_type", GRANT)],
            "device_code is missing",
        ),
        (
            "/token",
            vec![
                ("grant_type", GRANT),
                ("device_code", "a"),
                ("device_code", "b"),
            ],
            "device_code more than once",
        ),
    ] {
        let answer = send(&client, path, &fields).await.expect_status(400);
        assert_eq!(word(&answer), "invalid_request");
        assert!(text(&answer).contains(told), "{told}: {answer}");
    }
    let garbage = "wharf_terminal_00000000000000000000000000000000_000000";
    assert_eq!(
        word(&refresh(&client, garbage).await.expect_status(400)),
        "invalid_grant"
    );
    let json = client
        .post("/auth/device/code")
        .without_header("host")
        .header("host", HOST);
    let json = json
        .header("content-type", "application/json")
        .body("{}")
        .send()
        .await;
    assert_eq!(word(&json.expect_status(400)), "invalid_request");
    let large = "x".repeat(70_000);
    let large = send(&client, "/auth/device/code", &[("client_id", &large)]).await;
    assert_eq!(large.status, 413);
    // The registry's other refresh tokens go their own way.
    let other = refresh(&client, "wharf_refresh_x").await;
    assert_eq!(other.status, 401);
}

#[tokio::test]
async fn refresh_replay_a_token_that_comes_late_ends_the_terminal() {
    let server = start(String::new()).await;
    let client = server.admin(Version::Http1).anonymous();
    let mut browser = signed_in(&server, "admin", ADMIN_PASSWORD).await;
    let (_, first) = terminal(&mut browser).await;
    // The answer was lost: the one before is good for another one, and voids what was lost.
    let (_, lost) = tokens(&refresh(&client, &first).await);
    let (access, second) = tokens(&refresh(&client, &first).await);
    assert_ne!(lost, second);
    let (_, third) = tokens(&refresh(&client, &second).await);
    assert_eq!(doors(&client, "admin", &access).await, [200; 4]);
    // Two steps back is a thief, or the owner whose thief was faster.
    assert_eq!(
        word(&refresh(&client, &first).await.expect_status(400)),
        "invalid_grant"
    );
    assert_eq!(
        word(&refresh(&client, &third).await.expect_status(400)),
        "invalid_grant"
    );
    assert_eq!(doors(&client, "admin", &access).await, [401; 4]);
    let (_, first) = terminal(&mut browser).await;
    let (_, lost) = tokens(&refresh(&client, &first).await);
    let (_, second) = tokens(&refresh(&client, &first).await);
    assert_eq!(
        word(&refresh(&client, &lost).await.expect_status(400)),
        "invalid_grant",
        "it was voided"
    );
    assert_eq!(
        word(&refresh(&client, &second).await.expect_status(400)),
        "invalid_grant"
    );
    let log = server
        .admin(Version::Http1)
        .get("/api/v1/audit?limit=200")
        .send()
        .await;
    assert!(text(&log).matches("terminal.reuse").count() >= 2);
}

#[tokio::test]
async fn token_widening_a_terminal_is_its_user_and_no_more() {
    let server = start(String::new()).await;
    reader(&server, "ann").await;
    let admin = server.admin(Version::Http1);
    admin.push_image("team/app", "1", &Image::random()).await;
    admin.push_image("other/app", "1", &Image::random()).await;
    let client = admin.clone().anonymous();
    let mut browser = signed_in(&server, "ann", "wonderland looks").await;
    let (access, token) = terminal(&mut browser).await;
    let bearer = client.clone().with_token(&access);
    let basic = client.clone().with_basic("ann", &access);
    for client in [&bearer, &basic] {
        client
            .get("/v2/team/app/manifests/1")
            .send()
            .await
            .expect_status(200);
        let upload = client.post("/v2/team/app/blobs/uploads/").send().await;
        assert!(matches!(upload.status.as_u16(), 401 | 403), "{upload}");
        let other = client.get("/v2/other/app/manifests/1").send().await;
        assert!(matches!(other.status.as_u16(), 401 | 403 | 404), "{other}");
        client.get("/api/v1/users").send().await.expect_status(403);
        let make = client
            .post("/api/v1/users/ann/tokens")
            .header("content-type", "application/json");
        let make = make.body(r#"{"name":"more"}"#).send().await;
        assert!(
            make.status.is_client_error(),
            "no token makes another one: {make}"
        );
    }
    assert_eq!(bearer.get("/api/v1/me").send().await.json()["name"], "ann");
    let wide = basic
        .get("/token?scope=repository:team/app:pull,push,delete")
        .send()
        .await;
    let wide = wide.expect_status(200).json();
    let wide = client.clone().with_token(wide["token"].as_str().unwrap());
    let upload = wide.post("/v2/team/app/blobs/uploads/").send().await;
    assert!(matches!(upload.status.as_u16(), 401 | 403), "{upload}");
    // Only the user's name goes with it, only the access token is a password, and no token with a list of what it is for.
    let narrow = basic
        .get("/token?scope=repository:team/app:pull")
        .send()
        .await
        .json();
    let narrow = narrow["token"].as_str().unwrap().to_owned();
    for (user, password) in [
        ("admin", &*access),
        ("", &access),
        ("ann", &token),
        ("ann", &narrow),
    ] {
        let wrong = client.clone().with_basic(user, password);
        wrong.get("/v2/").send().await.expect_status(401);
        let answer = wrong.get("/token").send().await;
        assert_eq!(answer.status, 401, "{user}");
    }
    client
        .clone()
        .with_token(&token)
        .get("/v2/")
        .send()
        .await
        .expect_status(401);
    // Rights that go are gone for the terminal at once.
    let bindings = admin.get("/api/v1/bindings?who=ann").send().await.json();
    let path = "/api/v1/bindings?who=ann&role=reader&on=team";
    let gone = admin.delete(path).send().await;
    assert!(gone.status.is_success(), "{gone} {bindings}");
    let pulled = bearer.get("/v2/team/app/manifests/1").send().await;
    assert!(!pulled.status.is_success(), "{pulled}");
}

#[tokio::test]
async fn a_terminal_ends_with_sessions_password_and_user() {
    let server = start(String::new()).await;
    reader(&server, "ann").await;
    let admin = server.admin(Version::Http1);
    let client = admin.clone().anonymous();
    let me = |token: &str| client.clone().with_token(token).get("/api/v1/me").send();
    let json = "application/json";
    // One by one, from the list.
    let mut browser = signed_in(&server, "ann", "wonderland looks").await;
    let (access, token) = terminal(&mut browser).await;
    let page = text(&browser.get("/account/sessions").await);
    let (_, row) = page.split_once("a terminal").unwrap();
    let id = row
        .split_once("name=\"end\" value=\"")
        .unwrap()
        .1
        .split('"')
        .next()
        .unwrap();
    let fields = [("form", &*form(&page)), ("end", id)];
    browser
        .post("/account/sessions", &fields)
        .await
        .expect_status(303);
    me(&access).await.expect_status(401);
    assert_eq!(word(&refresh(&client, &token).await), "invalid_grant");
    // The session that approved it ends, and the terminal stays; all of them end, and it goes.
    let (access, _) = terminal(&mut browser).await;
    let form = browser.form("/account/tokens").await;
    browser
        .post("/auth/logout", &[("form", &form)])
        .await
        .expect_status(200);
    me(&access).await.expect_status(200);
    let ended = admin.delete("/api/v1/users/ann/sessions").send().await;
    assert_eq!(ended.expect_status(200).json()["ended"], 1);
    me(&access).await.expect_status(401);
    // What was approved and not fetched is taken back.
    let mut browser = signed_in(&server, "ann", "wonderland looks").await;
    let begun = begin(&client).await;
    decide(
        &mut browser,
        begun["user_code"].as_str().unwrap(),
        "approve",
    )
    .await
    .expect_status(200);
    admin
        .delete("/api/v1/users/ann/sessions")
        .send()
        .await
        .expect_status(200);
    let answer = poll(&client, begun["device_code"].as_str().unwrap()).await;
    assert_eq!(word(&answer.expect_status(400)), "access_denied");
    // Locked out and let in again, as with sessions; then another password.
    let mut browser = signed_in(&server, "ann", "wonderland looks").await;
    let (access, token) = terminal(&mut browser).await;
    let change = |body: Value| {
        let request = admin.request(Method::PATCH, "/api/v1/users/ann");
        request
            .header("content-type", json)
            .body(body.to_string())
            .send()
    };
    change(json!({"disabled": true})).await.expect_status(204);
    me(&access).await.expect_status(401);
    assert_eq!(word(&refresh(&client, &token).await), "invalid_grant");
    change(json!({"disabled": false})).await.expect_status(204);
    me(&access).await.expect_status(200);
    let (access, token) = tokens(&refresh(&client, &token).await);
    let other = admin
        .put("/api/v1/users/ann/password")
        .header("content-type", json);
    let other = other
        .body(r#"{"password":"another wonderland"}"#)
        .send()
        .await;
    assert!(other.status.is_success(), "{other}");
    me(&access).await.expect_status(401);
    assert_eq!(word(&refresh(&client, &token).await), "invalid_grant");
    let mut browser = signed_in(&server, "ann", "another wonderland").await;
    let (access, token) = terminal(&mut browser).await;
    admin
        .delete("/api/v1/users/ann")
        .send()
        .await
        .expect_status(204);
    me(&access).await.expect_status(401);
    assert_eq!(word(&refresh(&client, &token).await), "invalid_grant");
}

#[tokio::test]
async fn in_the_clear_nobody_signs_in_from_a_terminal() {
    let server = TestServer::start(TestOptions::default()).await;
    let client = server.admin(Version::Http1).anonymous();
    let known = client.get("/.well-known/oauth-authorization-server");
    let known = known
        .without_header("host")
        .header("host", "registry.example")
        .send()
        .await;
    known.expect_status(404);
    let asked = client.post("/auth/device/code").without_header("host");
    let asked = asked
        .header("host", "registry.example")
        .header("content-type", "application/x-www-form-urlencoded");
    let asked = asked
        .body("client_id=wharf")
        .send()
        .await
        .expect_status(400);
    assert!(text(&asked).contains("https://"));
}
