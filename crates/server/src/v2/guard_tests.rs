//! The door with the real registry behind it: every endpoint for every kind of caller, and what they learn.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Version};
use http_body_util::BodyExt as _;
use wharf_core::access::{AccessOptions, Grant, Password, Permission, Rights, Role, Who};
use wharf_core::clock::ManualClock;
use wharf_core::{ContentRules, Limits};
use wharf_oci::{Algorithm, Authorization, Digest};

use super::*;
use crate::app::{App, AppOptions, Data, DataOptions};
use crate::http::id::RequestIds;
use crate::http::{Handler as _, Peer, RequestBody, route};
use crate::telemetry::Metrics;

/// 2026-11-21, in ms.
const NOW: i64 = 1_795_219_200_000;
const HOUR: i64 = 3_600_000;
const ADMIN: &str = "correct-horse-battery";

struct House {
    app: Arc<App>,
    clock: Arc<ManualClock>,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    fn challenge(&self) -> Challenge {
        Challenge::parse(self.header("www-authenticate")).unwrap()
    }

    /// Status, challenge and body, without what differs from request to request.
    fn tells(&self, name: &str) -> String {
        let text = format!("{} {:?} {}", self.status, self.headers, self.body);
        text.replace(name, "NAME")
    }
}

/// Users of the htpasswd file, each with a grant on `team`, and a password that is the name twice.
const USERS: [(&str, Role); 7] = [
    ("stranger", Role::None),
    ("reader", Role::Reader),
    ("publisher", Role::Publisher),
    ("writer", Role::Writer),
    ("maintainer", Role::Maintainer),
    ("owner", Role::Owner),
    ("auditor", Role::Auditor),
];

impl House {
    async fn new(change: impl FnOnce(&mut AppOptions)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("htpasswd");
        let line =
            |(name, _): (&str, Role)| format!("{name}:{}\n", bcrypt_of(&[name, name].concat()));
        std::fs::write(&file, USERS.map(line).concat()).unwrap();
        let grant = |(name, role): (&str, Role)| Grant {
            who: Who::User(name.into()),
            role,
            on: Some("team".into()),
        };
        let clock = Arc::new(ManualClock::at(NOW));
        let mut options = AppOptions {
            access: AccessOptions {
                htpasswd: Some(file),
                rights: Rights {
                    grants: USERS.map(grant).to_vec(),
                    ..Rights::default()
                },
                service: "reg".into(),
                ..AccessOptions::default()
            },
            limits: Limits::default(),
            content: ContentRules::default(),
            rules: wharf_core::gc::Rules::default(),
            upkeep: None,
            external_url: None,
            basic_challenge: false,
            redirect: crate::v2::RedirectRule::default(),
            clock: clock.clone(),
            metrics: Arc::new(Metrics::new(false)),
            directories: Vec::new(),
        };
        change(&mut options);
        let data = Data::open(&DataOptions::new(folder.path().join("data")), |_| {})
            .await
            .unwrap();
        let app = App::open(data, options).await.unwrap();
        app.registry
            .access
            .bootstrap_admin(Some(Password::new(ADMIN)), NOW)
            .await
            .unwrap();
        Self {
            app,
            clock,
            _folder: folder,
        }
    }

    async fn send(
        &self,
        method: Method,
        target: &str,
        authorization: &[&str],
        body: &[u8],
    ) -> Answer {
        let uri: http::Uri = target.parse().unwrap();
        let headers = authorization
            .iter()
            .map(|value| (AUTHORIZATION, value.parse().unwrap()));
        let request = Request {
            id: RequestIds::new(1).make(),
            method,
            route: route::parse(uri.path()),
            query: uri.query().unwrap_or_default().into(),
            uri,
            headers: headers.collect(),
            body: RequestBody::from(Bytes::copy_from_slice(body)),
            peer: Peer {
                addr: None,
                unix: true,
                secure: true,
                proxied: false,
            },
            certificate: None,
            scheme: Scheme::Https,
            host: Some("reg.example:5000".into()),
            version: Version::HTTP_11,
        };
        let (parts, body) = self.app.handle(request).await.into_parts();
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        }
    }

    async fn get(&self, target: &str, authorization: &str) -> Answer {
        self.send(Method::GET, target, &[authorization], b"").await
    }

    async fn token(&self, user: &str, scopes: &[&str]) -> String {
        let query: String = scopes
            .iter()
            .map(|scope| format!("scope={scope}&"))
            .collect();
        let header = basic(user);
        let header: &[&str] = if user.is_empty() { &[] } else { &[&header] };
        let answer = self
            .send(Method::GET, &format!("/token?{query}"), header, b"")
            .await;
        let json: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        format!("Bearer {}", json["token"].as_str().unwrap())
    }

    async fn push_blob(&self, name: &str, bytes: &[u8]) -> Digest {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        let target = format!("/v2/{name}/blobs/uploads/?digest={digest}");
        let pushed = self
            .send(Method::POST, &target, &[&basic("admin")], bytes)
            .await;
        assert_eq!(pushed.status, 201, "{}", pushed.body);
        digest
    }
}

fn bcrypt_of(password: &str) -> String {
    // Made once with `htpasswd -nbB -C 4`, so that this crate needs no bcrypt.
    match password {
        "strangerstranger" => "$2y$04$2glh0LUjIrVmrLDoSjWu/eylHhlxaPohkAfcNDyGqAhyQi5CKlV5i",
        "readerreader" => "$2y$04$BL7PVdmqLxmTsnAwtg0dteROhxxN4rU476Z351kOv.evzZ/nYPrby",
        "writerwriter" => "$2y$04$/mcskDpb/hNguxgttHhC7.QUyfUheeQWgRYZDMLIk0jyGc4Gbxgiu",
        "maintainermaintainer" => "$2y$04$G8KGxdXTogHqIFKzF7gtGeK0UvjzNCHvGnn0U7z/WRZyCkTrcBdlW",
        "publisherpublisher" => "$2y$04$WharfTestsSaltForTesteloo/74pqA7nyAGrvIoJNH/wWofsDko2",
        "ownerowner" => "$2y$04$WharfTestsSaltForTestelNJkOhekKS7YRCKTbGHsjp9I2/KZ7Om",
        "auditorauditor" => "$2y$04$WharfTestsSaltForTeste0Ho5G0Aa9zQBhyCjpmKlcGpVQqUg3Y.",
        _ => panic!("no hash for {password}"),
    }
    .into()
}

fn basic(user: &str) -> String {
    match user {
        "admin" => Authorization::basic(user, ADMIN),
        user => Authorization::basic(user, &[user, user].concat()),
    }
}

/// Every endpoint × anonymous, stranger, reader, publisher, writer, maintainer, owner, auditor, admin, as passwords, as wide and as narrow tokens.
///
/// Spec: AUTH-7, AUTH-8, SCOPE-3.
#[tokio::test]
async fn every_endpoint_for_every_caller() {
    let house = House::new(|_| {}).await;
    let callers = [("", Role::None)]
        .into_iter()
        .chain(USERS)
        .chain([("admin", Role::Admin)]);
    let mut rows = 0;
    for (user, role) in callers {
        let wide = [
            "repository:team/app:*",
            "registry:catalog:*",
            "registry:admin:*",
        ];
        let (wide, narrow) = (house.token(user, &wide).await, house.token(user, &[]).await);
        let password = basic(user);
        for example in Route::EXAMPLES {
            let route = example.route();
            // Pages know sessions alone (`it/people.rs`), and nothing of what stands in headers.
            if matches!(route, Route::People(_)) {
                continue;
            }
            for method in route.methods() {
                // What each endpoint needs, told apart from the code that knows it.
                let needs = match (example.label, method.as_str()) {
                    ("/v2/_catalog", _) => Some(Permission::Catalog),
                    ("/metrics", _) => Some(Permission::Admin),
                    (label, "GET" | "HEAD") if !label.contains("/uploads/") => {
                        label.contains("{name}").then_some(Permission::Pull)
                    }
                    (label, "DELETE") if !label.contains("/uploads/") => {
                        assert!(label.contains("{name}"));
                        Some(Permission::Delete)
                    }
                    (label, _) => label.contains("{name}").then_some(Permission::Push),
                };
                let ping = matches!(example.label, "/v2/" | "/v2/_oci/ext/discover");
                let alone = if user.is_empty() {
                    ("none", vec![])
                } else {
                    ("password", vec![&*password])
                };
                for (kind, header) in [alone, ("wide", vec![&*wide]), ("narrow", vec![&*narrow])] {
                    let answer = house.send(method.clone(), example.path, &header, b"").await;
                    let refused = match (needs, ping) {
                        (_, true) => (kind == "none").then_some(401),
                        (None, _) => None,
                        (Some(needs), _) => {
                            match (role.permissions().contains(needs), user.is_empty(), kind) {
                                (true, _, "narrow") => Some(401),
                                (true, ..) => None,
                                (false, true, _) => Some(401),
                                (false, false, _) => Some(403),
                            }
                        }
                    };
                    let row = format!(
                        "{method} {} as {user:?} by {kind}: {}",
                        example.path,
                        answer.tells("")
                    );
                    match refused {
                        Some(status) => assert_eq!(answer.status, status, "{row}"),
                        // It takes no bearer token at all, whatever it is good for.
                        None if example.label == "/token" => {
                            assert_ne!(answer.status, 403, "{row}")
                        }
                        None => assert!(![401, 403].contains(&answer.status), "{row}"),
                    }
                    let challenged = !answer.header("www-authenticate").is_empty();
                    assert_eq!(challenged, answer.status == 401, "{row}");
                    rows += 1;
                }
            }
        }
    }
    assert!(rows > 400, "{rows}");
}

/// Spec: AUTH-1, AUTH-2, AUTH-3, AUTH-4, AUTH-5, AUTH-9.
#[tokio::test]
async fn a_challenge_is_bearer_alone_and_names_realm_service_and_scope() {
    let house = House::new(|_| {}).await;
    let realm = "Bearer realm=\"https://reg.example:5000/token\",service=\"reg\"";
    let digest = Digest::of(Algorithm::Sha256, b"x");
    for (method, target, scope) in [
        (Method::GET, "/v2/".to_owned(), ""),
        (
            Method::GET,
            "/v2/team/app/manifests/latest".into(),
            "repository:team/app:pull",
        ),
        (
            Method::HEAD,
            format!("/v2/team/app/blobs/{digest}"),
            "repository:team/app:pull",
        ),
        (
            Method::POST,
            "/v2/team/app/blobs/uploads/".into(),
            "repository:team/app:pull,push",
        ),
        (
            Method::POST,
            format!("/v2/team/app/blobs/uploads/?mount={digest}&from=other/app"),
            "repository:team/app:pull,push repository:other/app:pull",
        ),
        (
            Method::POST,
            format!("/v2/team/app/blobs/uploads/?mount={digest}&from=Not\"a,name"),
            "repository:team/app:pull,push",
        ),
        (
            Method::DELETE,
            "/v2/team/app/manifests/latest".into(),
            "repository:team/app:delete",
        ),
        (Method::GET, "/v2/_catalog".into(), "registry:catalog:*"),
    ] {
        let target = target.replace('"', "%22");
        let answer = house.send(method, &target, &[], b"").await;
        assert_eq!(answer.status, 401, "{target}");
        assert_eq!(answer.headers.get_all("www-authenticate").iter().count(), 1);
        let expected = if scope.is_empty() {
            realm.to_owned()
        } else {
            format!("{realm},scope=\"{scope}\"")
        };
        assert_eq!(answer.header("www-authenticate"), expected, "{target}");
        let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        let error = &body["errors"][0];
        assert_eq!(error["code"], "UNAUTHORIZED");
        assert_eq!(
            error["detail"].as_str().unwrap_or_default(),
            scope,
            "{target}"
        );
    }
}

#[tokio::test]
async fn the_realm_follows_the_external_url_and_basic_stands_alone() {
    let outside =
        House::new(|options| options.external_url = Some("https://registry.example/".into())).await;
    assert_eq!(
        outside.get("/v2/", "").await.challenge().realm,
        "https://registry.example/token"
    );
    let basic = House::new(|options| options.basic_challenge = true).await;
    let answer = basic
        .send(Method::GET, "/v2/team/app/tags/list", &[], b"")
        .await;
    assert_eq!(
        (answer.status, answer.header("www-authenticate")),
        (401, "Basic realm=\"reg\"")
    );
}

/// Spec: AUTH-6.
#[tokio::test]
async fn bad_credentials_get_a_fresh_challenge_and_only_tokens_an_error() {
    let house = House::new(|_| {}).await;
    let good = house.token("reader", &["repository:team/app:pull"]).await;
    let (message, signature) = good.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { "B" } else { "A" };
    let broken = format!("{message}.{first}{}", &signature[1..]);
    let twice = [basic("reader"), basic("reader")];
    for (headers, error) in [
        (vec![broken.as_str()], Some("invalid_token")),
        (vec!["Bearer abc"], Some("invalid_token")),
        (vec!["Basic cmVhZGVyOnMzY3IzdA=="], None),
        (vec!["Basic !"], None),
        (vec!["Digest x"], None),
        (vec![""], None),
        (twice.iter().map(String::as_str).collect(), None),
        (vec![good.as_str(), good.as_str()], None),
    ] {
        let answer = house
            .send(Method::GET, "/v2/team/app/tags/list", &headers, b"")
            .await;
        assert_eq!(answer.status, 401, "{headers:?}");
        let challenge = answer.challenge();
        assert_eq!(challenge.scope.as_deref(), Some("repository:team/app:pull"));
        assert_eq!(challenge.error.as_deref(), error, "{headers:?}");
        assert!(
            !answer.body.contains("s3cr3t") && !answer.body.contains("cmVhZ"),
            "{}",
            answer.body
        );
    }
}

/// Spec: AUTH-8.
#[tokio::test]
async fn what_one_may_not_see_looks_like_what_is_not_there() {
    let house = House::new(|_| {}).await;
    let digest = house.push_blob("secret/app", b"content").await;
    let narrow = house.token("reader", &["repository:team/app:pull"]).await;
    let wide = house
        .token(
            "reader",
            &["repository:secret/app:*", "repository:secret/none:*"],
        )
        .await;
    for header in [vec![], vec![basic("reader")], vec![narrow], vec![wide]] {
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        for (method, path) in [
            (Method::GET, format!("blobs/{digest}")),
            (Method::HEAD, format!("blobs/{digest}")),
            (Method::DELETE, format!("blobs/{digest}")),
            (Method::GET, "tags/list".into()),
            (Method::GET, "manifests/latest".into()),
            (Method::PUT, "manifests/latest".into()),
            (Method::GET, format!("referrers/{digest}")),
            (Method::POST, "blobs/uploads/".into()),
            (
                Method::PATCH,
                "blobs/uploads/3f2c8a1e-6f0b-4c52-9a57-0d9a5f0f6b11".into(),
            ),
        ] {
            let there = house
                .send(
                    method.clone(),
                    &format!("/v2/secret/app/{path}"),
                    &header,
                    b"",
                )
                .await;
            let absent = house
                .send(method, &format!("/v2/secret/none/{path}"), &header, b"")
                .await;
            assert_eq!(there.tells("secret/app"), absent.tells("secret/none"));
            assert!([401, 403].contains(&there.status));
        }
    }
    let list = house.get("/v2/_catalog", &basic("reader")).await;
    assert_eq!((list.status, list.body.contains("secret")), (200, false));
}

/// Spec: MNT-2, MNT-3.
#[tokio::test]
async fn a_mount_asks_what_its_subject_may_pull_and_not_what_the_token_names() {
    let house = House::new(|_| {}).await;
    let open = house.push_blob("team/base", b"base").await;
    let hidden = house.push_blob("secret/base", b"hidden").await;
    let token = house
        .token("writer", &["repository:team/app:pull,push"])
        .await;
    for (query, status) in [
        (format!("mount={hidden}&from=secret/base"), 202),
        (format!("mount={hidden}"), 202),
        (format!("mount={open}&from=team/none"), 202),
        (format!("mount={open}&from=team/base"), 201),
        (format!("mount={open}"), 201),
    ] {
        let answer = house
            .send(
                Method::POST,
                &format!("/v2/team/app/blobs/uploads/?{query}"),
                &[&token],
                b"",
            )
            .await;
        assert_eq!(answer.status, status, "{query}");
    }
    assert_eq!(
        house
            .get(&format!("/v2/team/app/blobs/{hidden}"), &token)
            .await
            .status,
        404
    );
}

/// Spec: AUTH-20.
#[tokio::test]
async fn an_ended_token_goes_on_with_its_own_upload_and_with_nothing_else() {
    let house = House::new(|_| {}).await;
    let writer = house
        .token("writer", &["repository:team/app:pull,push"])
        .await;
    let other = house
        .token("maintainer", &["repository:team/app:pull,push"])
        .await;
    let started = house
        .send(Method::POST, "/v2/team/app/blobs/uploads/", &[&writer], b"")
        .await;
    let session = started.header("location").to_owned();
    assert_eq!(started.status, 202);
    house.clock.advance(2 * HOUR);
    let invalid = |answer: Answer| {
        assert_eq!(
            (answer.status, answer.challenge().error.as_deref()),
            (401, Some("invalid_token"))
        );
    };
    invalid(
        house
            .send(Method::PATCH, &session, &[&other], b"chunk")
            .await,
    );
    invalid(
        house
            .send(Method::POST, "/v2/team/app/blobs/uploads/", &[&writer], b"")
            .await,
    );
    invalid(house.get("/v2/team/app/tags/list", &writer).await);
    invalid(house.get("/v2/", &writer).await);
    let made_up = "/v2/team/app/blobs/uploads/3f2c8a1e-6f0b-4c52-9a57-0d9a5f0f6b11";
    invalid(
        house
            .send(Method::PATCH, made_up, &[&writer], b"chunk")
            .await,
    );
    invalid(
        house
            .send(
                Method::PATCH,
                &session.replace("team/app", "team/other"),
                &[&writer],
                b"chunk",
            )
            .await,
    );
    let chunk = house
        .send(Method::PATCH, &session, &[&writer], b"chunk")
        .await;
    assert_eq!(
        (chunk.status, chunk.header("range")),
        (202, "0-4"),
        "{}",
        chunk.body
    );
    let digest = Digest::of(Algorithm::Sha256, b"chunk");
    let closed = house
        .send(
            Method::PUT,
            &format!("{session}?digest={digest}"),
            &[&writer],
            b"",
        )
        .await;
    assert_eq!(closed.status, 201, "{}", closed.body);
    house.clock.advance(6 * HOUR);
    invalid(
        house
            .send(Method::PATCH, &session, &[&writer], b"chunk")
            .await,
    );
}

/// Spec: TOK-3, PING-2.
#[tokio::test]
async fn anonymous_pull_and_sign_in_work_side_by_side() {
    let house = House::new(|options| options.access.rights.anonymous = Role::Reader).await;
    let digest = house.push_blob("team/app", b"public").await;
    let blob = format!("/v2/team/app/blobs/{digest}");
    assert_eq!(
        house.send(Method::GET, &blob, &[], b"").await.status,
        200,
        "without asking"
    );
    assert_eq!(
        house.send(Method::GET, "/v2/", &[], b"").await.status,
        401,
        "so that clients learn the challenge"
    );
    let anonymous = house.token("", &["repository:team/app:pull"]).await;
    for target in ["/v2/", blob.as_str()] {
        assert_eq!(
            house.get(target, &anonymous).await.status,
            200,
            "by an anonymous token"
        );
        assert_eq!(
            house.get(target, "Basic Og==").await.status,
            if target == "/v2/" { 401 } else { 200 },
            "by empty credentials"
        );
        assert_eq!(
            house.get(target, &basic("stranger")).await.status,
            200,
            "signing in costs nothing"
        );
    }
    let push = house
        .send(
            Method::POST,
            "/v2/team/app/blobs/uploads/",
            &[&anonymous],
            b"",
        )
        .await;
    assert_eq!(
        (push.status, push.challenge().error.as_deref()),
        (401, Some("insufficient_scope"))
    );
}

#[tokio::test]
async fn the_right_that_each_route_asks_for_is_in_the_scope_of_its_challenge() {
    for example in Route::EXAMPLES {
        let route = example.route();
        for method in route.methods() {
            if let Some(permission) = route.permission(method) {
                let scope =
                    scope_for(permission, route.repository()).map(|scope| scope.to_string());
                assert!(
                    scope.is_some(),
                    "{method} {}: a 401 would not say what to ask for",
                    example.path
                );
                assert_eq!(permission == Permission::Admin, example.label == "/metrics");
            }
        }
    }
}
