//! People of a directory at the registry's door: by every way in, beside local users, in a crowd, while the directory is gone, and when
//! they are.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;
use wharf_core::access::{
    Certificate, CertificateUser, Changer, Circumstances, NameKind, Password, Presented, Principal,
    Source,
};
use wharf_core::clock::ManualClock;
use wharf_core::directory::{AGAIN, ENOUGH, EVERY, Recheck};
use wharf_core::identity::{NewToken, create_token};
use wharf_core::job::{Job as _, Step};
use wharf_core::{Clock as _, session, terminal};
use wharf_testkit::client::Response;
use wharf_testkit::{Client, FakeLdap, Mood, TestOptions, TestServer, Version};

pub(crate) const ADA: &str = "uid=ada,ou=people,dc=example,dc=com";
pub(crate) const GROUPS: &str = "group_base_dn = \"ou=groups,dc=example,dc=com\"\ngroup_member_attribute = \"member\"\nadmin_group = \"keepers\"\n\
                      connect_timeout = \"500ms\"\nread_timeout = \"500ms\"\n";

/// `ada` may everything by her group, `bob` nothing.
pub(crate) async fn directory() -> FakeLdap {
    let fake = FakeLdap::start(false).await;
    fake.person("ada", "ada-pw");
    fake.person("bob", "bob-pw");
    fake.add("ou=groups,dc=example,dc=com", None, &[]);
    fake.group("keepers", &[ADA]);
    fake
}

async fn start(fake: &FakeLdap, more: &str) -> (TestServer, Arc<ManualClock>) {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock");
    let clock = Arc::new(ManualClock::at(
        i64::try_from(now.as_millis()).expect("a time"),
    ));
    let options = TestOptions {
        config: fake.config(&[fake.url()], &format!("{GROUPS}{more}")),
        htpasswd: vec![("carl", "carl-pw")],
        clock: Some(clock.clone()),
        ..TestOptions::default()
    };
    (TestServer::start(options).await, clock)
}

fn client(server: &TestServer, name: &str, password: &str) -> Client {
    Client::new(server.addr(), Version::Http1).with_basic(name, password)
}

async fn whoami(server: &TestServer, name: &str, password: &str) -> Response {
    client(server, name, password)
        .get("/api/v1/me")
        .send()
        .await
}

async fn status(server: &TestServer, name: &str, password: &str) -> u16 {
    client(server, name, password)
        .get("/v2/")
        .send()
        .await
        .status
        .as_u16()
}

/// Spec: LDAP-1.
#[tokio::test(flavor = "multi_thread")]
async fn a_person_of_a_directory_signs_in_by_every_way() {
    let fake = directory().await;
    let (server, _) = start(&fake, "").await;
    assert_eq!(status(&server, "ada", "ada-pw").await, 200);
    let who = whoami(&server, "ADA", "ada-pw")
        .await
        .expect_status(200)
        .json();
    assert_eq!(who["name"], "ada", "{who}");
    // Rights come with the group: she is one of the administrators.
    let ada = client(&server, "ada", "ada-pw");
    assert_eq!(ada.get("/api/v1/users").send().await.status, 200);
    let bob = client(&server, "bob", "bob-pw");
    assert_ne!(bob.get("/api/v1/users").send().await.status, 200);
    // The token endpoint, and what it gives.
    let token = ada
        .fetch_token(&["registry:catalog:*"])
        .await
        .expect_status(200)
        .json();
    let token = token["token"].as_str().expect("a token").to_owned();
    let bearer = ada.anonymous().with_token(&token);
    assert_eq!(bearer.get("/v2/_catalog").send().await.status, 200);
    for wrong in ["", "wrong", "ada-pw ", "bob-pw"] {
        assert_eq!(status(&server, "ada", wrong).await, 401, "{wrong}");
    }
    assert_eq!(status(&server, "nobody", "ada-pw").await, 401);
}

/// Name takeover: who is in a directory under a local user's name is nobody here, however the name is written.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_exists_here_is_never_asked_for_elsewhere() {
    let fake = directory().await;
    for name in ["admin", "carl"] {
        fake.person(name, "other-pw");
    }
    let (server, _) = start(&fake, "").await;
    for name in ["admin", "ADMIN", "Admin", "carl", "CARL"] {
        assert_eq!(status(&server, name, "other-pw").await, 401, "{name}");
    }
    for (dn, password) in fake.binds() {
        let is_other = !dn.contains("admin") && !dn.contains("carl") && password != "other-pw";
        assert!(is_other, "{dn}");
    }
    let asked = fake.binds().len();
    assert_eq!(status(&server, "carl", "carl-pw").await, 200);
    assert_eq!(fake.binds().len(), asked, "who has it here is let in here");
    // A user made here for whom the directory has the same name, later: the account stays whose it was.
    assert_eq!(whoami(&server, "bob", "bob-pw").await.json()["name"], "bob");
    fake.add(
        "uid=bob,ou=other,dc=example,dc=com",
        Some("new-pw"),
        &[("uid", &["bob"]), ("entryUUID", &["id-new"])],
    );
    fake.remove("uid=bob,ou=people,dc=example,dc=com");
    let refused = client(&server, "bob", "new-pw").get("/v2/").send().await;
    let refused = refused.expect_status(401);
    assert!(
        String::from_utf8_lossy(&refused.body).contains("wharf user link"),
        "{refused:?}"
    );
}

/// Whoever guesses learns from the time of a refusal neither who is here nor who is there: each takes a hash, a search and a bind.
///
/// Spec: TOK-7.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_costs_the_same_whoever_has_the_name() {
    let fake = directory().await;
    let (server, _) = start(&fake, "").await;
    // Connections that stand ready for the next ones.
    assert_eq!(status(&server, "bob", "bob-pw").await, 200);
    let access = &server.app().registry.access;
    let mut costs = Vec::new();
    for name in ["carl", "admin", "ada", "nobody-here"] {
        let before = (
            access.password_counts().checked,
            fake.searches().len(),
            fake.binds().len(),
        );
        assert_eq!(status(&server, name, "guess").await, 401, "{name}");
        costs.push((
            access.password_counts().checked - before.0,
            fake.searches().len() - before.1,
            fake.binds().len() - before.2,
        ));
    }
    assert_eq!(costs, [(1, 1, 1); 4]);
    let guesses = fake.binds().into_iter().filter(|bind| bind.1 == "guess");
    assert_eq!(guesses.count(), 2, "of ada and of nobody");
}

/// Spec: LDAP-3.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_with_one_password_is_asked_about_once() {
    let fake = directory().await;
    let (server, clock) = start(&fake, "").await;
    let crowd = (0..40).map(|_| {
        let client = client(&server, "ada", "ada-pw");
        tokio::spawn(async move { client.get("/v2/").send().await.status.as_u16() })
    });
    for one in crowd.collect::<Vec<_>>() {
        assert_eq!(one.await.expect("an answer"), 200);
    }
    let mine = |fake: &FakeLdap| fake.binds().iter().filter(|(dn, _)| dn == ADA).count();
    assert_eq!(mine(&fake), 1);
    // A minute later it is asked again, and another password counts at once.
    clock.advance(61_000);
    fake.add(
        ADA,
        Some("new-pw"),
        &[("uid", &["ada"]), ("entryUUID", &["id-ada"])],
    );
    assert_eq!(status(&server, "ada", "ada-pw").await, 401);
    assert_eq!(status(&server, "ada", "new-pw").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_gone_is_no_wrong_password() {
    let fake = directory().await;
    let (server, _) = start(&fake, "").await;
    fake.behave(Mood::Silent);
    // Many more than wrong passwords would be let through.
    for attempt in 0..20 {
        let answer = client(&server, "ada", &format!("guess-{attempt}"))
            .get("/v2/")
            .send()
            .await;
        let answer = answer.expect_status(503);
        assert!(answer.header("retry-after").is_some());
        assert!(
            String::from_utf8_lossy(&answer.body).contains("directory"),
            "{answer:?}"
        );
    }
    let answer = whoami(&server, "ada", "ada-pw").await.expect_status(503);
    assert!(answer.header("retry-after").is_some());
    // Everybody else is served.
    assert_eq!(status(&server, "carl", "carl-pw").await, 200);
    assert_eq!(
        server.admin(Version::Http1).get("/v2/").send().await.status,
        200
    );
    fake.behave(Mood::Good);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while status(&server, "ada", "ada-pw").await != 200 {
        assert!(std::time::Instant::now() < end);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn guesses_count_however_the_name_is_written() {
    let fake = directory().await;
    let (server, _) = start(&fake, "").await;
    let mut seen = Vec::new();
    for (at, name) in ["ada", "Ada", "aDa", "adA", "ADa", "AdA", "aDA", "ADA"]
        .into_iter()
        .enumerate()
    {
        seen.push(status(&server, name, &format!("guess-{at}")).await);
    }
    assert_eq!(
        seen.iter().filter(|&&one| one == 401).count(),
        5,
        "{seen:?}"
    );
    assert!(seen[5..].iter().all(|&one| one == 429), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_linked_accounts_come_in_nobody_else_does() {
    let fake = directory().await;
    let (server, _) = start(&fake, "onboarding = \"invited\"\n").await;
    let refused = client(&server, "ada", "ada-pw")
        .get("/v2/")
        .send()
        .await
        .expect_status(401);
    let told = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(
        told.contains("entryuuid:id-ada") && told.contains("--provider corp"),
        "{told}"
    );
}

/// Does what is due, as the job does.
pub(crate) async fn recheck(server: &TestServer) {
    let mut job = Recheck::default();
    while job.step(&server.app().registry).await.expect("a step") != Step::Done {}
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_gone_from_the_directory_is_out_and_an_outage_ends_nobody() {
    let fake = directory().await;
    let (server, clock) = start(&fake, "").await;
    let token = ada_with_token(&server).await;
    assert_eq!(status(&server, "bob", "bob-pw").await, 200);
    let registry = &server.app().registry;
    let own = CertificateUser::new(NameKind::CommonName, "*", "").expect("a rule");
    registry.access.know_certificates(vec![own]);
    let ada = Principal::User {
        name: "ada".into(),
        source: Source::Local,
    };
    let goes = async |ms: i64, times: u32| {
        for _ in 0..times {
            clock.advance(ms);
            recheck(&server).await;
        }
    };
    // An outage says nothing about anybody.
    fake.behave(Mood::Cut);
    goes(EVERY + 1, ENOUGH + 2).await;
    fake.behave(Mood::Good);
    assert_eq!(status(&server, "ada", token.reveal()).await, 200);
    // The servers that failed are left alone for a moment.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while status(&server, "bob", "another-pw").await == 503 {
        assert!(std::time::Instant::now() < end);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    // Only now: the server looks by itself, too, and would have counted her as gone once already.
    fake.remove(ADA);
    fake.group("keepers", &["uid=bob,ou=people,dc=example,dc=com"]);
    goes(EVERY + 1, 1).await;
    goes(AGAIN + 1, ENOUGH - 2).await;
    assert_eq!(status(&server, "ada", token.reveal()).await, 200);
    let came = Circumstances::from(clock.now_ms());
    let cookie = session::begin(registry, &ada, session::By::Password, came, "").await;
    let cookie = cookie.expect("a session");
    assert_eq!(others(&server, &cookie).await, (true, true));
    let found = session::find(registry, &cookie, came).await.expect("read");
    let found = found.expect("a session");
    let begun = terminal::begin(registry, "laptop", came)
        .await
        .expect("a code");
    let code = begun.user_code.reveal();
    let said = terminal::decide(registry, &found, code, true, came).await;
    said.expect("she says yes");
    let of_hers = terminal::poll(registry, &begun.device_code, came).await;
    let of_hers = of_hers.expect("a terminal").refresh_token;
    let renewed = async |token: &Password| {
        let came = Circumstances::from(clock.now_ms());
        let granted = terminal::refresh(registry, token, came).await.ok()?;
        Some(granted.refresh_token)
    };
    let of_hers = renewed(&of_hers).await.expect("another token");
    let bought = client(&server, "ada", token.reveal());
    let bearer = bought.fetch_token(&["registry:catalog:*"]).await.json();
    let bearer = bearer["token"].as_str().expect("a token").to_owned();
    let bearer = bought.anonymous().with_token(&bearer);
    assert_eq!(bearer.get("/v2/_catalog").send().await.status, 200);
    goes(AGAIN + 1, 1).await;
    assert_eq!(status(&server, "ada", token.reveal()).await, 401);
    assert_eq!(bearer.get("/v2/_catalog").send().await.status, 401);
    assert_eq!(status(&server, "ada", "ada-pw").await, 401);
    assert_eq!(others(&server, &cookie).await, (false, false));
    assert!(renewed(&of_hers).await.is_none());
    // Groups of those who stay follow.
    assert_eq!(
        client(&server, "bob", "bob-pw")
            .get("/api/v1/users")
            .send()
            .await
            .status,
        200
    );
    // Whoever comes back has all again but the group.
    fake.person("ada", "ada-pw");
    assert_eq!(status(&server, "ada", "ada-pw").await, 200);
    assert_eq!(status(&server, "ada", token.reveal()).await, 200);
    assert!(renewed(&of_hers).await.is_some());
    assert_ne!(
        client(&server, "ada", "ada-pw")
            .get("/api/v1/users")
            .send()
            .await
            .status,
        200
    );
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let audit = server.admin(Version::Http1).get("/api/v1/audit?n=100");
        let told: Value = audit.send().await.json();
        assert!(!told.to_string().contains("ada-pw"), "{told}");
        if told.to_string().contains("account.gone") {
            break;
        }
        assert!(std::time::Instant::now() < end, "{told}");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

/// Whether a session of hers is good, and a certificate that says who she is.
async fn others(server: &TestServer, cookie: &Password) -> (bool, bool) {
    let registry = &server.app().registry;
    let came = Circumstances::from(registry.clock.now_ms());
    let session = session::find(registry, cookie, came).await.expect("read");
    let certificate = Certificate {
        common_names: vec!["ada".into()],
        ..Certificate::default()
    };
    let shown = Presented {
        authorization: None,
        certificate: Some(&certificate),
    };
    let shown = registry.access.authenticate(shown, came).await;
    (session.is_some(), shown.is_ok())
}

async fn ada_with_token(server: &TestServer) -> Password {
    assert_eq!(status(server, "ada", "ada-pw").await, 200);
    let new = NewToken {
        user: "ada".into(),
        name: "ci".into(),
        scopes: Vec::new(),
        lifetime: None,
    };
    let made = create_token(&server.app().registry, Changer::Operator, &new).await;
    let made = made.expect("a token").secret;
    assert_eq!(status(server, "ada", made.reveal()).await, 200);
    made
}

/// A base or an account that searches which was changed by mistake must not throw everybody out.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_suddenly_knows_nobody_ends_nobody() {
    let fake = directory().await;
    let (server, clock) = start(&fake, "").await;
    let token = ada_with_token(&server).await;
    for name in ["p1", "p2", "p3", "p4", "p5"] {
        fake.person(name, "pw");
        assert_eq!(status(&server, name, "pw").await, 200, "{name}");
    }
    for name in ["ada", "p1", "p2", "p3", "p4", "p5"] {
        fake.remove(&format!("uid={name},ou=people,dc=example,dc=com"));
    }
    for _ in 0..ENOUGH + 2 {
        clock.advance(EVERY + 1);
        recheck(&server).await;
    }
    assert_eq!(status(&server, "ada", token.reveal()).await, 200);
}
