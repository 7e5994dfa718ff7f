//! Pages for people: sign in with a password or with a provider of our own, make a token, look after sessions; and what other sites
//! and other doors get out of a session's cookie, which is nothing.

use serde_json::json;
use wharf_oci::percent::encode_query;
use wharf_testkit::options::ADMIN_PASSWORD;
use wharf_testkit::{Image, TestOptions, TestServer, Version};

use crate::browser::{Browser, HOST, Provider, by_provider, form, start, text};

/// Spec: OIDC-5, LOGIN-1.
#[tokio::test]
async fn a_person_signs_in_makes_a_token_and_pulls_with_it() {
    let server = start(String::new()).await;
    let admin = server.admin(Version::Http1);
    admin
        .push_image("team/app", "latest", &Image::random())
        .await;
    let mut browser = Browser::new(&server);
    let away = browser.get("/account/tokens").await.expect_status(303);
    assert_eq!(away.location(), "/auth/login?return=%2Faccount%2Ftokens");
    let page = browser.get("/auth/login").await.expect_status(200);
    let policy = page.expect_header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src") && !policy.contains("script"));
    assert!(!text(&page).contains("<script"));
    let wrong = browser.sign_in("admin", "wrong").await.expect_status(401);
    assert!(text(&wrong).contains("the user name or the password is wrong"));
    assert!(!browser.cookies.contains_key("wharf_session"));
    let done = browser.sign_in("admin", ADMIN_PASSWORD).await;
    assert_eq!(done.expect_status(303).location(), "/account/sessions");

    let form = browser.form("/account/tokens").await;
    let fields = [
        ("form", &*form),
        ("name", "laptop"),
        ("scopes", "reader:team"),
        ("days", "30"),
    ];
    let made = browser
        .post("/account/tokens", &fields)
        .await
        .expect_status(201);
    let made = text(&made);
    let (_, secret) = made.split_once("<code id=\"secret\">").unwrap();
    let secret = secret.split('<').next().unwrap().to_owned();
    let program = admin.clone().with_basic("admin", &secret);
    let pulled = program.get("/v2/team/app/manifests/latest").send().await;
    pulled.expect_status(200);
    let page = text(&browser.get("/account/tokens").await.expect_status(200));
    assert!(
        page.contains("laptop") && !page.contains(&secret),
        "it is shown once"
    );
    let id = page.split_once("name=\"revoke\" value=\"").unwrap().1;
    let id = id.split('"').next().unwrap().to_owned();
    let gone = browser
        .post("/account/tokens", &[("form", &form), ("revoke", &id)])
        .await;
    gone.expect_status(303);
    let pulled = program.get("/v2/team/app/manifests/latest").send().await;
    pulled.expect_status(401);
    for (fields, told) in [
        (vec![("name", "a"), ("days", "9999")], "choose when it ends"),
        (
            vec![("name", ""), ("days", "30")],
            "name has 1 to 100 bytes",
        ),
        (
            vec![("name", "a"), ("days", "30"), ("scopes", "king")],
            "king",
        ),
        (
            vec![("revoke", "0000000000000000")],
            "you have no such token",
        ),
    ] {
        let fields = [vec![("form", &*form)], fields].concat();
        let page = text(&browser.post("/account/tokens", &fields).await);
        assert!(page.contains(told), "{told}: {page}");
    }
}

/// Neither door of programs opens to a cookie, for reading or for writing.
/// Spec: OIDC-7.
#[tokio::test]
async fn a_session_is_good_for_the_pages_alone() {
    let server = start(String::new()).await;
    let admin = server.admin(Version::Http1);
    admin
        .push_image("team/app", "latest", &Image::random())
        .await;
    let mut browser = Browser::new(&server);
    browser
        .sign_in("admin", ADMIN_PASSWORD)
        .await
        .expect_status(303);
    let secret = browser.cookies["wharf_session"].clone();
    for path in [
        "/v2/",
        "/v2/team/app/manifests/latest",
        "/v2/_catalog",
        "/api/v1/me",
        "/api/v1/users",
        "/metrics",
    ] {
        browser.get(path).await.expect_status(401);
        for client in [
            admin.clone().with_basic("admin", &secret),
            admin.clone().with_token(&secret),
        ] {
            client.get(path).send().await.expect_status(401);
        }
    }
    let upload = browser.post("/v2/team/app/blobs/uploads/", &[]).await;
    upload.expect_status(401);
    let made = browser.post("/api/v1/robots", &[]).await;
    assert!(made.status.is_client_error(), "{made}");
}

/// Spec: OIDC-7.
#[tokio::test]
async fn csrf_a_form_of_another_site_or_without_our_word_does_nothing() {
    let server = start(String::new()).await;
    let mut browser = Browser::new(&server);
    browser
        .sign_in("admin", ADMIN_PASSWORD)
        .await
        .expect_status(303);
    let form = browser.form("/account/tokens").await;
    let own = format!("http://{HOST}");
    for (form, origin, site) in [
        ("", &*own, "same-origin"),
        ("0123456789abcdef0123456789abcdef", &own, "same-origin"),
        (&form, "https://evil.example", "cross-site"),
        (&form, &own, "cross-site"),
        (&form, &own, "same-site"),
        (&form, "null", "same-origin"),
    ] {
        let fields = [
            ("form", form),
            ("name", "evil"),
            ("days", "30"),
            ("scopes", ""),
        ];
        for path in ["/account/tokens", "/account/sessions", "/auth/logout"] {
            let answer = browser.post_from(path, &fields, origin, site).await;
            answer.expect_status(403);
        }
    }
    let page = text(&browser.get("/account/tokens").await.expect_status(200));
    assert!(page.contains("You have none yet"), "{page}");
    // Nobody is signed in by a page of another site as somebody else.
    let mut other = Browser::new(&server);
    let fields = [
        ("user", "admin"),
        ("password", ADMIN_PASSWORD),
        ("form", "x"),
    ];
    other.post("/auth/login", &fields).await.expect_status(403);
    assert!(!other.cookies.contains_key("wharf_session"));
}

#[tokio::test]
async fn session_fixation_each_sign_in_is_another_session() {
    let server = start(String::new()).await;
    let mut browser = Browser::new(&server);
    let planted = "wharf_session_00000000000000000000000000000000_000000";
    let planted = ("wharf_session".to_owned(), planted.to_owned());
    browser.cookies.extend([planted.clone()]);
    browser
        .sign_in("admin", ADMIN_PASSWORD)
        .await
        .expect_status(303);
    let first = browser.cookies["wharf_session"].clone();
    assert_ne!(first, planted.1);
    // The sign-in form leads on who is signed in; a form that was opened before makes another session.
    let mut thief = Browser::new(&server);
    let form = thief.form("/auth/login").await;
    thief.cookies.insert("wharf_session".into(), first.clone());
    let fields = [
        ("user", "admin"),
        ("password", ADMIN_PASSWORD),
        ("form", &form),
    ];
    thief.post("/auth/login", &fields).await.expect_status(303);
    assert_ne!(thief.cookies["wharf_session"], first);
    browser.get("/account/tokens").await.expect_status(303);
}

#[tokio::test]
async fn sessions_are_listed_and_ended_here_and_by_an_administrator() {
    let server = start(String::new()).await;
    let admin = server.admin(Version::Http1);
    let (mut one, mut two, mut three) = (
        Browser::new(&server),
        Browser::new(&server),
        Browser::new(&server),
    );
    for browser in [&mut one, &mut two, &mut three] {
        browser
            .sign_in("admin", ADMIN_PASSWORD)
            .await
            .expect_status(303);
    }
    let page = text(&one.get("/account/sessions").await.expect_status(200));
    assert_eq!(page.matches("name=\"end\"").count(), 3);
    assert!(page.contains("Browser/1") && page.contains("this browser"));
    let form = form(&page);
    let ended = one
        .post("/account/sessions", &[("form", &form), ("others", "1")])
        .await;
    ended.expect_status(303);
    two.get("/account/sessions").await.expect_status(303);
    three.get("/account/sessions").await.expect_status(303);
    two.sign_in("admin", ADMIN_PASSWORD)
        .await
        .expect_status(303);
    let all = admin.get("/api/v1/users/admin/sessions").send().await;
    let all = all.expect_status(200).json();
    assert_eq!(all["items"].as_array().map(Vec::len), Some(2), "{all}");
    let id = all["items"][0]["id"].as_str().unwrap();
    let path = format!("/api/v1/users/admin/sessions/{id}");
    admin.delete(&path).send().await.expect_status(204);
    admin.delete(&path).send().await.expect_status(404);
    let gone = admin.delete("/api/v1/users/admin/sessions").send().await;
    assert_eq!(gone.expect_status(200).json()["ended"], 1);
    one.get("/account/sessions").await.expect_status(303);
    two.sign_in("admin", ADMIN_PASSWORD)
        .await
        .expect_status(303);
    let form = two.form("/account/tokens").await;
    let out = two.post("/auth/logout", &[("form", &form)]).await;
    assert!(text(&out.expect_status(200)).contains("You are signed out"));
    assert!(!two.cookies.contains_key("wharf_session"));
}

#[tokio::test]
async fn in_the_clear_there_are_no_pages_but_for_this_machine() {
    let server = start(String::new()).await;
    let client = server.admin(Version::Http1).anonymous();
    let request = client.get("/auth/login").without_header("host");
    let answer = request.header("host", "registry.example").send().await;
    let answer = answer.expect_status(403);
    assert!(answer.header("set-cookie").is_none());
    assert!(text(&answer).contains("not encrypted"));
    let tls = TestOptions {
        tls: true,
        ..TestOptions::default()
    };
    let server = TestServer::start(tls).await;
    let client = server.admin(Version::Http1).anonymous();
    let answer = client.get("/auth/login").send().await.expect_status(200);
    let set = answer.expect_header("set-cookie");
    assert!(set.starts_with("__Host-wharf_form="), "{set}");
    assert!(
        set.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure"),
        "{set}"
    );
}

#[tokio::test]
async fn an_account_of_a_provider_becomes_a_user_whose_groups_follow_it() {
    let provider = Provider::start().await;
    let server = start(provider.config("onboarding = \"auto\"")).await;
    let admin = server.admin(Version::Http1);
    let json = "application/json";
    admin
        .put("/api/v1/groups/devs")
        .send()
        .await
        .expect_status(200);
    let source = admin
        .post("/api/v1/groups/devs/sources")
        .header("content-type", json);
    let source = source.body(r#"{"source":"corp:engineers"}"#).send().await;
    source.expect_status(200);
    let unknown = admin
        .post("/api/v1/groups/devs/sources")
        .header("content-type", json);
    let unknown = unknown.body(r#"{"source":"cork:engineers"}"#).send().await;
    assert!(text(&unknown.expect_status(404)).contains("the configuration names corp"));
    let grant = admin.post("/api/v1/bindings").header("content-type", json);
    let grant = grant.body(r#"{"who":"group:devs","role":"writer","on":"team"}"#);
    grant.send().await.expect_status(200);
    provider.person(json!({"sub": "248", "preferred_username": "ann", "groups": ["engineers"]}));
    let mut browser = Browser::new(&server);
    let page = text(&browser.get("/auth/login").await.expect_status(200));
    assert!(
        page.contains("href=\"/auth/oidc/corp/start\">The Company</a>"),
        "{page}"
    );
    let done = by_provider(&mut browser, &provider)
        .await
        .expect_status(303);
    assert_eq!(done.location(), "/account/sessions");
    let form = browser.form("/account/tokens").await;
    let fields = [
        ("form", &*form),
        ("name", "laptop"),
        ("scopes", ""),
        ("days", "30"),
    ];
    let made = browser
        .post("/account/tokens", &fields)
        .await
        .expect_status(201);
    let made = text(&made);
    let secret = made
        .split_once("<code id=\"secret\">")
        .unwrap()
        .1
        .split('<')
        .next()
        .unwrap();
    let program = admin.clone().with_basic("ann", secret);
    program.push_image("team/app", "1", &Image::random()).await;
    let groups = admin
        .get("/api/v1/groups")
        .send()
        .await
        .expect_status(200)
        .json();
    assert_eq!(groups["items"][0]["outside"], json!(["ann"]), "{groups}");
    let user = admin
        .get("/api/v1/users/ann")
        .send()
        .await
        .expect_status(200)
        .json();
    assert_eq!(user["providers"], json!(["corp"]));
    assert!(user["password_set_at"].is_null(), "{user}");
    let accounts = admin.get("/api/v1/users/ann/accounts").send().await.json();
    assert_eq!(accounts["items"][0]["subject"], "248");
    let why = admin
        .get("/api/v1/explain?who=ann&permission=push&repository=team/app")
        .send()
        .await;
    assert!(text(&why.expect_status(200)).contains("group:devs"));

    // The same account again, by another name: the same user, who is administrator by the configuration now.
    provider.person(json!({"sub": "248", "preferred_username": "other", "groups": ["admins"]}));
    let mut again = Browser::new(&server);
    by_provider(&mut again, &provider).await.expect_status(303);
    program.get("/api/v1/users").send().await.expect_status(200);
    let why = admin
        .get("/api/v1/explain?who=ann&permission=admin")
        .send()
        .await;
    let why = text(&why.expect_status(200));
    assert!(why.contains("[[auth.oidc]] admin_group"), "{why}");

    // Another account of the same name is told so, and nothing is made.
    provider.person(json!({"sub": "666", "preferred_username": "admin", "groups": ["admins"]}));
    let mut thief = Browser::new(&server);
    let refused = by_provider(&mut thief, &provider).await.expect_status(403);
    let told = text(&refused);
    assert!(
        told.contains("another user&#39;s already") && told.contains("wharf user link"),
        "{told}"
    );
    assert!(!thief.cookies.contains_key("wharf_session"));

    // Taken from its user, the account is a stranger's, and its sessions are over.
    let path = "/api/v1/users/ann/accounts?provider=corp&subject=248";
    admin.delete(path).send().await.expect_status(204);
    browser.get("/account/tokens").await.expect_status(303);
    program.get("/api/v1/users").send().await.expect_status(403);
    assert!(server.app().registry.access.groups()[0].outside.is_empty());
}

#[tokio::test]
async fn only_linked_accounts_are_let_in_where_that_is_said() {
    let provider = Provider::start().await;
    let server = start(provider.config("")).await;
    let admin = server.admin(Version::Http1);
    provider.person(json!({"sub": "9", "preferred_username": "ann"}));
    let mut browser = Browser::new(&server);
    let refused = by_provider(&mut browser, &provider)
        .await
        .expect_status(403);
    assert!(text(&refused).contains("--provider corp --subject &#39;9&#39;"));
    let link = admin
        .post("/api/v1/users/ann/accounts")
        .header("content-type", "application/json");
    let link = link
        .body(r#"{"provider":"corp","subject":"9"}"#)
        .send()
        .await;
    assert_eq!(link.expect_status(200).json()["changed"], true);
    by_provider(&mut browser, &provider)
        .await
        .expect_status(303);
    browser.get("/account/tokens").await.expect_status(200);
}

#[tokio::test]
async fn open_redirect_and_answers_that_nobody_asked_for() {
    let provider = Provider::start().await;
    let server = start(provider.config("")).await;
    let mut browser = Browser::new(&server);
    for path in [
        "/auth/oidc/corp/callback?code=a&state=b",
        "/auth/oidc/corp/callback?error=access_denied&state=b",
        "/auth/oidc/corp/callback",
    ] {
        let page = text(&browser.get(path).await.expect_status(400));
        assert!(page.contains("not begun in this browser"), "{page}");
    }
    browser
        .get("/auth/oidc/none/start")
        .await
        .expect_status(404);
    browser
        .get("/auth/oidc/Bad%2fname/start")
        .await
        .expect_status(400);
    for back in [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/%5Cevil.example",
    ] {
        let path = format!("/auth/login?return={}", encode_query(back));
        let page = text(&browser.get(&path).await.expect_status(200));
        assert!(
            page.contains("name=\"return\" value=\"/account/tokens\""),
            "{page}"
        );
    }
    // By another of our names the sign-in begins at the one that the provider knows.
    let client = server.admin(Version::Http1).anonymous();
    let request = client.get("/auth/oidc/corp/start").without_header("host");
    let moved = request.header("host", "127.0.0.1:5000").send().await;
    let to = moved.expect_status(303).location().to_owned();
    assert!(
        to.starts_with("http://localhost:5000/auth/oidc/corp/start?moved=1&return="),
        "{to}"
    );
}
