//! What tests of the management API begin with.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;
use wharf_core::access::{
    Changer, Circumstances, Conditions, Granting, Principal, Source, Subject,
};
use wharf_core::identity::{
    NewRobot, NewToken, RobotBinding, RobotChange, change_robot, create_robot, create_token,
    revoke_token,
};
use wharf_core::session;
use wharf_core::workload::{Bearer, Condition, IssuerSettings, KeySource, Kind, RuleSettings};
use wharf_meta::{Id, job};
use wharf_testkit::ca::Ca;
use wharf_testkit::client::Response;
use wharf_testkit::{Client, TestOptions, TestServer, TokenKey, Version};

/// Everybody whom the tests know: an htpasswd user with this role everywhere, whose password is `x`.
pub(crate) const USERS: [(&str, &str); 7] = [
    ("stranger", "none"),
    ("reader", "reader"),
    ("writer", "writer"),
    ("publisher", "publisher"),
    ("maintainer", "maintainer"),
    ("owner", "owner"),
    ("auditor", "auditor"),
];

/// Credentials that are less than their user, the maintainer: an API token for reading, one that has ended, and one that was
/// revoked; as the user's name, what to show in the place of the password, and the role that is left. `None`: nobody.
pub(crate) async fn lesser(
    server: &TestServer,
) -> Vec<(&'static str, String, Option<&'static str>)> {
    let registry = &server.app().registry;
    static MADE: AtomicU32 = AtomicU32::new(0);
    let mut all = Vec::new();
    for (name, left) in [
        ("narrow", Some("reader")),
        ("ended", None),
        ("revoked", None),
    ] {
        let new = NewToken {
            user: "maintainer".into(),
            name: format!("{name} {}", MADE.fetch_add(1, Ordering::Relaxed)),
            scopes: if left.is_some() {
                vec!["reader".into()]
            } else {
                Vec::new()
            },
            lifetime: (name == "ended").then_some(1),
        };
        let made = create_token(registry, Changer::Operator, &new)
            .await
            .expect("a token");
        if name == "revoked" {
            revoke_token(registry, &made.id).await.expect("it is there");
        }
        while name == "ended" && registry.clock.now_ms() < made.expires_at {
            tokio::task::yield_now().await;
        }
        all.push(("maintainer", made.secret.reveal().to_owned(), left));
    }
    all.extend(machines(server).await);
    all
}

/// Tokens of machines, with the role of the rule that each matches: `None` where none does, or nobody signed it for us.
async fn machines(server: &TestServer) -> Vec<(&'static str, String, Option<&'static str>)> {
    let (access, now) = (
        &server.app().registry.access,
        server.app().registry.clock.now_ms(),
    );
    let (key, stranger) = (TokenKey::new("one"), TokenKey::new("one"));
    let mut settings =
        IssuerSettings::new(Kind::Oidc, "https://machines.example", vec!["wharf".into()]);
    settings.keys = KeySource::Static(json!({"keys": [key.jwk]}).to_string());
    let (by, forget) = (Changer::Operator, Bearer::Forget);
    let made = access.put_issuer(by, "machines", &settings, &forget, None, now);
    made.await.expect("an issuer");
    for role in ["reader", "maintainer"] {
        let rule = RuleSettings {
            conditions: vec![Condition::equal("sub", role)],
        };
        let name = format!("machines-{role}");
        let made = access.put_rule(by, &name, "machines", &rule, None, now);
        made.await.expect("a rule");
        let granting = Granting {
            subject: Subject::Workload(name),
            role: role.into(),
            on: String::new(),
            conditions: Conditions::default(),
        };
        access.grant(by, &granting, now).await.expect("a grant");
    }
    let says = |subject: &str, audience: &str| {
        let now = now / 1_000;
        json!({"iss": "https://machines.example", "sub": subject, "aud": audience, "iat": now, "exp": now + 3_600})
    };
    vec![
        (
            "machine",
            key.sign(&says("reader", "wharf")),
            Some("reader"),
        ),
        (
            "machine",
            key.sign(&says("maintainer", "wharf")),
            Some("maintainer"),
        ),
        ("machine", key.sign(&says("nobody", "wharf")), None),
        ("machine", key.sign(&says("maintainer", "another")), None),
        ("machine", stranger.sign(&says("maintainer", "wharf")), None),
    ]
}

/// Robots of `team`, each with this role there: name, secret, role. `None`: one that is locked out, and one whose secret was revoked.
pub(crate) async fn robots(server: &TestServer) -> Vec<(String, String, Option<&'static str>)> {
    let registry = &server.app().registry;
    static MADE: AtomicU32 = AtomicU32::new(0);
    let mut all = Vec::new();
    for (name, role) in USERS
        .into_iter()
        .chain([("locked", "owner"), ("gone", "owner")])
    {
        let robot = format!("team+{name}{}", MADE.fetch_add(1, Ordering::Relaxed));
        let binding = RobotBinding {
            role: role.into(),
            on: "team".into(),
            conditions: Conditions::default(),
        };
        let new = NewRobot {
            name: robot.clone(),
            lifetime: None,
            networks: String::new(),
            reads: None,
            bindings: (role != "none").then_some(binding).into_iter().collect(),
        };
        let made = create_robot(registry, Changer::Operator, &new).await;
        let made = made.expect("a robot");
        let out = RobotChange {
            disabled: Some(true),
            ..RobotChange::default()
        };
        let left = match name {
            "locked" => {
                let done = change_robot(registry, Changer::Operator, &robot, out, None).await;
                done.expect("it is there");
                None
            }
            "gone" => {
                revoke_token(registry, &made.id).await.expect("it is there");
                None
            }
            _ => Some(role),
        };
        all.push((robot, made.secret.reveal().to_owned(), left));
    }
    all
}

/// A server that knows [`USERS`], and `guest`, who may pull below `team` alone.
pub(crate) async fn start() -> TestServer {
    start_with("").await
}

/// The same with further configuration.
pub(crate) async fn start_with(config: &str) -> TestServer {
    start_as(config, false).await
}

/// The same with TLS, for clients with certificates.
pub(crate) async fn start_for(cards: &Cards, config: &str) -> TestServer {
    start_as(&format!("{}{config}", cards.config()), true).await
}

async fn start_as(config: &str, tls: bool) -> TestServer {
    let passwords = USERS.iter().map(|(name, _)| (*name, "x"));
    let grants = USERS.iter().filter(|(name, _)| *name != "stranger");
    TestServer::start(TestOptions {
        htpasswd: passwords.chain([("guest", "x")]).collect(),
        htpasswd_role: Some("none"),
        grants: grants
            .map(|(name, role)| (*name, *role, ""))
            .chain([("guest", "reader", "team")])
            .collect(),
        config: config.into(),
        tls,
        ..TestOptions::default()
    })
    .await
}

/// Certificates of clients, and who signs them.
pub(crate) struct Cards {
    ca: Ca,
    folder: TempDir,
    made: AtomicU32,
}

impl Cards {
    pub(crate) fn new() -> Self {
        let (ca, folder) = (Ca::new(), tempfile::tempdir().expect("a folder"));
        std::fs::write(folder.path().join("clients.pem"), ca.pem()).expect("a file");
        let made = AtomicU32::default();
        Self { ca, folder, made }
    }

    /// Users are known by their mail at `example.com`.
    pub(crate) fn config(&self) -> String {
        let ca = self.folder.path().join("clients.pem");
        format!(
            "[tls.clients]\nca = {ca:?}\n[[tls.clients.user]]\nfrom = \"email\"\nmatches = \"*@example.com\"\n"
        )
    }

    /// Whoever shows a certificate with this name, and nothing else.
    pub(crate) fn show(&self, server: &TestServer, version: Version, name: &str) -> Client {
        let serial = 1 + self.made.fetch_add(1, Ordering::Relaxed);
        let card = self.ca.issue_client(&[name], serial.into(), (2020, 4000));
        let config = server.ca().client_config_as(&card);
        Client::new(server.addr(), version).with_tls(&config)
    }

    /// Everybody whom the tests know by a certificate, with their role: users, a host that a rule gives one everywhere, and some whom
    /// nothing says who they are.
    pub(crate) async fn holders(
        &self,
        server: &TestServer,
        version: Version,
    ) -> Vec<(String, Client, Option<&'static str>)> {
        let registry = &server.app().registry;
        let (access, now) = (&registry.access, registry.clock.now_ms());
        let by = Changer::Operator;
        let hosts = IssuerSettings::new(Kind::Certificate, "", Vec::new());
        let made = access.put_issuer(by, "hosts", &hosts, &Bearer::Forget, None, now);
        made.await.expect("an issuer");
        let rule = RuleSettings {
            conditions: vec![Condition::equal("dns", "build.example.com")],
        };
        let made = access.put_rule(by, "builders", "hosts", &rule, None, now);
        made.await.expect("a rule");
        let granting = Granting {
            subject: Subject::Workload("builders".into()),
            role: "maintainer".into(),
            on: String::new(),
            conditions: Conditions::default(),
        };
        access.grant(by, &granting, now).await.expect("a grant");
        let users = USERS.map(|(name, role)| (format!("email:{name}@example.com"), Some(role)));
        let others = [
            ("dns:build.example.com", Some("maintainer")),
            ("dns:other.example.com", None),
            ("email:absent@example.com", None),
            ("email:owner@evil.example", None),
        ];
        let others = others.map(|(name, role)| (name.to_owned(), role));
        let all = users.into_iter().chain(others);
        all.map(|(name, role)| {
            let client = self.show(server, version, &name);
            (format!("the certificate of {name}"), client, role)
        })
        .collect()
    }
}

/// Configuration of a provider `corp` that is never asked.
pub(crate) const A_PROVIDER: &str = "[server]\nexternal_url = \"http://127.0.0.1\"\n[[auth.oidc]]\nname = \"corp\"\nissuer = \
    \"https://login.example\"\nclient_id = \"wharf\"\nclient_secret = \"hush\"\n";

/// Begins a session in a browser for a local user.
pub(crate) async fn begin_session(server: &TestServer, user: &str) {
    let principal = Principal::User {
        name: user.into(),
        source: Source::Local,
    };
    let (by, came) = (session::By::Password, Circumstances::UNKNOWN);
    let begun = session::begin(&server.app().registry, &principal, by, came, "Browser/1");
    begun.await.expect("a session");
}

/// A job that waits for a time that the test does not see, of a kind that nobody does.
pub(crate) async fn add_job(server: &TestServer) -> Id {
    let registry = &server.app().registry;
    let at = registry.clock.now_ms();
    let add = job::Add {
        kind: "nothing".into(),
        unique_key: None,
        payload: "{}".into(),
        priority: 0,
        run_at: at + 1_000_000_000,
        max_attempts: 1,
        at,
    };
    let added = registry.meta.write(add).await;
    added.expect("a job").expect("a new one")
}

/// The body of a problem of this kind, checked.
#[track_caller]
pub(crate) fn problem(answer: Response, status: u16, kind: &str) -> Value {
    let answer = answer.expect_status(status);
    assert_eq!(
        answer.header("content-type"),
        Some("application/problem+json"),
        "{answer}"
    );
    let body = answer.json();
    assert_eq!(body["type"], format!("/api/v1#{kind}"), "{answer}");
    assert_eq!(body["status"], status, "{answer}");
    for field in ["title", "detail", "cure"] {
        let text = body[field].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "{field} of {answer}");
    }
    assert_eq!(
        body["request_id"].as_str(),
        answer.header("x-request-id"),
        "{answer}"
    );
    body
}

/// 200 with JSON.
pub(crate) async fn get(client: &Client, path: &str) -> Value {
    client.get(path).send().await.expect_status(200).json()
}

/// The names in a page.
#[track_caller]
pub(crate) fn names(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().expect("a page");
    let name = |item: &Value| item["name"].as_str().expect("a name").to_owned();
    items.iter().map(name).collect()
}
