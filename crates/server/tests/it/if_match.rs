//! `ETag` and `If-Match` of the management API: whoever changes what somebody else changed meanwhile is told, on both engines.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};
use wharf_testkit::client::Response;
use wharf_testkit::test_server;
use wharf_testkit::{Client, Image, TestOptions, TestServer, Version};

use crate::api_support::{A_PROVIDER, get, problem};

/// A tag that nothing has.
const OTHER: &str = "\"1234567\"";
/// How many come at once.
const CROWD: usize = 8;

async fn send(
    client: &Client,
    method: Method,
    path: &str,
    etag: Option<&str>,
    body: &Value,
) -> Response {
    let mut request = client.request(method, path);
    if let Some(etag) = etag {
        request = request.header("if-match", etag);
    }
    if !body.is_null() {
        request = request.header("content-type", "application/json");
        request = request.body(body.to_string());
    }
    request.send().await
}

/// Makes what the tests are about.
async fn furnish(admin: &Client) {
    let act = async |method: Method, path: &str, body: Value| {
        let answer = send(admin, method, path, None, &body).await;
        assert!(answer.status.is_success(), "{path}: {answer}");
    };
    let put = Method::PUT;
    act(put.clone(), "/api/v1/groups/dev", Value::Null).await;
    act(put.clone(), "/api/v1/groups/dev/members/zoe", Value::Null).await;
    let source = json!({"source": "corp:devs"});
    act(Method::POST, "/api/v1/groups/dev/sources", source).await;
    act(
        put.clone(),
        "/api/v1/roles/signer",
        json!({"permissions": ["pull"]}),
    )
    .await;
    act(
        put.clone(),
        "/api/v1/namespaces/team/a",
        json!({"visibility": "private"}),
    )
    .await;
    let user = json!({"name": "alice", "password": "a looking glass"});
    act(Method::POST, "/api/v1/users", user).await;
    act(Method::POST, "/api/v1/robots", json!({"name": "team/a+ci"})).await;
    let grant = json!({"who": "alice", "role": "reader", "on": "team/a"});
    act(Method::POST, "/api/v1/bindings", grant).await;
    let issuer = json!({"kind": "oidc", "issuer": "https://ci.example"});
    act(put.clone(), "/api/v1/workload/issuers/ci", issuer).await;
    let rule = json!({"issuer": "ci", "conditions": [{"claim": "sub", "in": ["a"]}]});
    act(put, "/api/v1/workload/rules/main", rule).await;
    let image = Image::random();
    admin.push_image("team/a/app", "v1", &image).await;
}

/// One thing: where it is read, and a change of it that takes something, so that it is made once.
struct Thing {
    shown: &'static str,
    /// The `n`th of those who come at once.
    change: fn(usize) -> (Method, String, Value),
    /// Whether a change answers with the tag that the thing has from then on.
    tells: bool,
}

fn bare(method: Method, path: impl Into<String>) -> (Method, String, Value) {
    (method, path.into(), Value::Null)
}

/// What can be changed and read, each with a way to change it that gives each of a crowd something else.
const THINGS: &[Thing] = &[
    Thing {
        shown: "/api/v1/roles/signer",
        change: |n| {
            let more = [
                "push",
                "delete",
                "catalog",
                "tag-create",
                "tag-move",
                "read-audit",
                "read-settings",
                "manage-robots",
            ];
            let body = json!({"permissions": ["pull", (more[n])]});
            (Method::PUT, "/api/v1/roles/signer".into(), body)
        },
        tells: true,
    },
    Thing {
        shown: "/api/v1/groups/dev",
        change: |n| bare(Method::PUT, format!("/api/v1/groups/dev/members/m{n}")),
        tells: true,
    },
    Thing {
        shown: "/api/v1/groups/dev",
        change: |n| {
            let body = json!({"source": format!("corp:s{n}")});
            (Method::POST, "/api/v1/groups/dev/sources".into(), body)
        },
        // Who comes by it is known when it is there.
        tells: false,
    },
    Thing {
        shown: "/api/v1/namespaces/team/a",
        change: |n| {
            let visibility = ["internal", "public"][n % 2];
            let body = json!({"visibility": visibility});
            (Method::PUT, "/api/v1/namespaces/team/a".into(), body)
        },
        tells: true,
    },
    Thing {
        shown: "/api/v1/bindings?on=team/a",
        change: |n| {
            let body = json!({"who": format!("u{n}"), "role": "reader", "on": "team/a"});
            (Method::POST, "/api/v1/bindings".into(), body)
        },
        tells: false,
    },
    Thing {
        shown: "/api/v1/robots/team/a+ci",
        change: |n| {
            let body = json!({"networks": [format!("10.{n}.0.0/16")]});
            (Method::PATCH, "/api/v1/robots/team/a+ci".into(), body)
        },
        tells: false,
    },
    Thing {
        shown: "/api/v1/workload/issuers/ci",
        change: |n| {
            let body = json!({"kind": "oidc", "issuer": format!("https://ci{n}.example")});
            (Method::PUT, "/api/v1/workload/issuers/ci".into(), body)
        },
        tells: false,
    },
    Thing {
        shown: "/api/v1/workload/rules/main",
        change: |n| {
            let conditions = json!([{"claim": "sub", "in": [format!("b{n}")]}]);
            let body = json!({"issuer": "ci", "conditions": conditions});
            (Method::PUT, "/api/v1/workload/rules/main".into(), body)
        },
        tells: false,
    },
];

/// What goes, in an order in which it can, each with where it is read.
const GOING: &[(&str, &str)] = &[
    (
        "/api/v1/bindings?who=alice&on=team/a",
        "/api/v1/bindings?who=alice&on=team/a",
    ),
    ("/api/v1/groups/dev/members/zoe", "/api/v1/groups/dev"),
    (
        "/api/v1/groups/dev/sources?source=corp:devs",
        "/api/v1/groups/dev",
    ),
    ("/api/v1/groups/dev", "/api/v1/groups/dev"),
    ("/api/v1/roles/signer", "/api/v1/roles/signer"),
    ("/api/v1/workload/rules/main", "/api/v1/workload/rules/main"),
    ("/api/v1/workload/issuers/ci", "/api/v1/workload/issuers/ci"),
    ("/api/v1/robots/team/a+ci", "/api/v1/robots/team/a+ci"),
    ("/api/v1/users/alice", "/api/v1/users/alice"),
    ("/api/v1/namespaces/team/a", "/api/v1/namespaces/team/a"),
    (
        "/api/v1/repositories/team/a/app/-/tags/v1",
        "/api/v1/repositories/team/a/app/-/tags/v1",
    ),
];

async fn etag(client: &Client, path: &str) -> String {
    let shown = client.get(path).send().await.expect_status(200);
    let etag = shown.expect_header("etag").to_owned();
    assert!(
        etag.starts_with('"') && etag.ends_with('"'),
        "{path}: {etag}"
    );
    etag
}

async fn both_engines(test: impl AsyncFn(TestServer)) {
    test(
        TestServer::start(TestOptions {
            on_file: true,
            config: A_PROVIDER.into(),
            ..TestOptions::default()
        })
        .await,
    )
    .await;
    let options = TestOptions {
        database: Some(Arc::new(test_server::shared().database())),
        config: A_PROVIDER.into(),
        ..TestOptions::default()
    };
    test(TestServer::start(options).await).await;
}

#[tokio::test]
async fn a_change_that_is_meant_for_another_state_is_not_made() {
    both_engines(async |server| {
        let admin = server.admin(Version::Http1);
        furnish(&admin).await;
        for Thing {
            shown,
            change,
            tells,
        } in THINGS
        {
            let old = etag(&admin, shown).await;
            let same = admin.get(shown).header("if-none-match", &old);
            // A list says what it is in any case.
            if !shown.contains('?') {
                let same = same.send().await.expect_status(304);
                assert_eq!(same.expect_header("etag"), old, "{shown}");
            }
            let before = get(&admin, shown).await;
            let (method, path, body) = change(0);
            for wrong in [OTHER, "W/\"1\"", "\"x\"", "\"0\"", &format!("W/{old}")] {
                let answer = send(&admin, method.clone(), &path, Some(wrong), &body).await;
                let told = problem(answer, 412, "changed");
                assert!(
                    told["detail"].as_str().unwrap().contains("If-Match"),
                    "{told}"
                );
                assert!(
                    told["cure"].as_str().unwrap().contains("read it again"),
                    "{told}"
                );
            }
            assert_eq!(get(&admin, shown).await, before, "{shown}");
            let list = format!("{OTHER}, {old}");
            let made = send(&admin, method.clone(), &path, Some(&list), &body).await;
            assert!(made.status.is_success(), "{shown}: {made}");
            let new = etag(&admin, shown).await;
            assert_ne!(new, old, "{shown}");
            if *tells {
                assert_eq!(made.expect_header("etag"), new, "{shown}");
            }
            let (method, path, body) = change(1);
            let late = send(&admin, method.clone(), &path, Some(&old), &body).await;
            problem(late, 412, "changed");
            let any = send(&admin, method, &path, Some("*"), &body).await;
            assert!(any.status.is_success(), "{shown}: {any}");
            assert_ne!(etag(&admin, shown).await, new, "{shown}");
        }
        // `*` is whatever is there, and makes nothing.
        for (path, body) in [
            ("/api/v1/groups/absent", Value::Null),
            ("/api/v1/roles/absent", json!({"permissions": ["pull"]})),
            ("/api/v1/namespaces/absent", json!({"visibility": "public"})),
            (
                "/api/v1/workload/issuers/absent",
                json!({"kind": "oidc", "issuer": "https://no.example"}),
            ),
        ] {
            let answer = send(&admin, Method::PUT, path, Some("*"), &body).await;
            problem(answer, 412, "changed");
            problem(admin.get(path).send().await, 404, "not-found");
        }
        // A list of bindings is the same whatever page of it is read, and another one where another thing is asked for.
        let of = async |query: &str| etag(&admin, &format!("/api/v1/bindings{query}")).await;
        assert_eq!(of("?on=team/a").await, of("?on=team/a&n=1").await);
        assert_ne!(of("?on=team/a").await, of("?on=team/a&who=alice").await);
        for (path, shown) in GOING {
            let old = etag(&admin, shown).await;
            let kept = send(&admin, Method::DELETE, path, Some(OTHER), &Value::Null).await;
            problem(kept, 412, "changed");
            assert_eq!(etag(&admin, shown).await, old, "{shown}");
            let gone = send(&admin, Method::DELETE, path, Some(&old), &Value::Null).await;
            assert!(gone.status.is_success(), "{path}: {gone}");
            let again = send(&admin, Method::DELETE, path, Some(&old), &Value::Null).await;
            // Of a member or a source the group is compared, which is there.
            match path.contains("members") || path.contains("sources") {
                true => problem(again, 412, "changed"),
                false => problem(again, 404, "not-found"),
            };
        }
    })
    .await;
}

/// All of a crowd have read the same; one of them changes it.
async fn one_wins(
    clients: &[Client],
    shown: &str,
    change: impl Fn(usize) -> (Method, String, Value),
) {
    let old = etag(&clients[0], shown).await;
    let mut crowd = tokio::task::JoinSet::new();
    for n in 0..CROWD {
        let (method, path, body) = change(n);
        let (client, old) = (clients[n % clients.len()].clone(), old.clone());
        crowd.spawn(async move { send(&client, method, &path, Some(&old), &body).await });
    }
    let answers = crowd.join_all().await;
    let won = answers.iter().filter(|answer| answer.status.is_success());
    assert_eq!(won.count(), 1, "{shown}: {answers:?}");
    for lost in answers.iter().filter(|answer| !answer.status.is_success()) {
        // Whoever comes when it is gone is told so.
        assert!(matches!(lost.status.as_u16(), 412 | 404), "{shown}: {lost}");
    }
}

/// Changes and removals at once, all meant for the same state.
async fn race(clients: &[Client]) {
    let admin = &clients[0];
    furnish(admin).await;
    for Thing { shown, change, .. } in THINGS {
        one_wins(clients, shown, change).await;
    }
    // A change and a removal.
    one_wins(clients, "/api/v1/robots/team/a+ci", |n| match n % 2 {
        0 => bare(Method::DELETE, "/api/v1/robots/team/a+ci"),
        _ => {
            let body = json!({"networks": [format!("10.9.{n}.0/24")]});
            (Method::PATCH, "/api/v1/robots/team/a+ci".into(), body)
        }
    })
    .await;
    one_wins(clients, "/api/v1/users/alice", |n| match n % 2 {
        0 => bare(Method::DELETE, "/api/v1/users/alice"),
        _ => (
            Method::PATCH,
            "/api/v1/users/alice".into(),
            json!({"disabled": true}),
        ),
    })
    .await;
    one_wins(clients, "/api/v1/groups/dev", |n| match n % 2 {
        0 => bare(Method::DELETE, "/api/v1/groups/dev"),
        _ => bare(Method::PUT, format!("/api/v1/groups/dev/members/x{n}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_mean_the_same_state_one_wins() {
    both_engines(async |server| race(&[server.admin(Version::Http1)]).await).await;
}

/// Whichever replica they ask.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_two_replicas_who_mean_the_same_state_one_wins() {
    let database = Arc::new(test_server::shared().database());
    let folder = tempfile::tempdir().expect("a folder");
    let one = async || {
        TestServer::start(TestOptions {
            database: Some(database.clone()),
            shared: Some(folder.path().into()),
            replicated: true,
            config: A_PROVIDER.into(),
            ..TestOptions::default()
        })
        .await
    };
    let (first, second) = (one().await, one().await);
    let known = first.admin_authorization();
    let other = Client::new(second.addr(), Version::Http1).with_authorization(&known);
    race(&[first.admin(Version::Http1), other]).await;
}

/// Operations that compare nothing, and why.
const NO_STATE: &[(&str, &str)] = &[
    (
        "link_account",
        "an account is somebody's or not; nothing else of it changes",
    ),
    (
        "unlink_account",
        "an account is somebody's or not; nothing else of it changes",
    ),
    ("make_user", "makes one, and refuses a name that is taken"),
    (
        "set_password",
        "a password is shown to nobody, so nobody can mean one",
    ),
    ("make_token", "makes one, and refuses a name that is taken"),
    ("make_robot", "makes one, and refuses a name that is taken"),
    (
        "rotate_robot",
        "makes a secret, which is shown to nobody else; whoever does it twice has two",
    ),
    (
        "revoke_credential",
        "it ends or is gone; nothing else of it changes",
    ),
    ("invite", "makes one"),
    ("accept_invitation", "is good once"),
    (
        "withdraw_invitation",
        "it ends or is gone; nothing else of it changes",
    ),
    ("apply", "has the epoch of its plan in its body"),
    ("verify_audit", "changes nothing"),
    ("test_workload_token", "changes nothing"),
    (
        "delete_repository",
        "what is in it changes with each push, and can be restored",
    ),
    (
        "restore_manifest",
        "by digest: it is what it was, or is not there",
    ),
    ("end_sessions", "each ends, or is not there"),
    ("end_session", "it ends, or is not there"),
    ("run_job", "starts one"),
    ("cancel_job", "a job changes by itself"),
    ("retry_job", "a job changes by itself"),
];

/// Whoever adds an operation that changes something says here what it compares.
#[tokio::test]
async fn every_operation_that_changes_something_obeys_if_match_or_has_nothing_to_compare() {
    let server = TestServer::start(TestOptions {
        config: A_PROVIDER.into(),
        ..TestOptions::default()
    })
    .await;
    let admin = server.admin(Version::Http1);
    furnish(&admin).await;
    let document = get(&admin, "/api/v1/openapi.json").await;
    let mut left: Vec<&str> = NO_STATE.iter().map(|(name, _)| *name).collect();
    let mut obeying = 0;
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let Ok(method) = Method::from_bytes(method.to_uppercase().as_bytes()) else {
                continue;
            };
            if !matches!(method.as_str(), "PUT" | "POST" | "PATCH" | "DELETE") {
                continue;
            }
            let name = operation["operationId"].as_str().expect("a name");
            let parameters = operation["parameters"].as_array();
            let declared = parameters.into_iter().flatten();
            let obeys = declared.filter(|one| one["in"] == "header" && one["name"] == "If-Match");
            if obeys.count() == 0 {
                let at = left.iter().position(|known| *known == name);
                let at =
                    at.unwrap_or_else(|| panic!("{name} neither obeys If-Match nor is listed"));
                left.swap_remove(at);
                continue;
            }
            obeying += 1;
            let path = path
                .replace("repositories/{name}", "repositories/team/a/app")
                .replace("robots/{name}", "robots/team/a+ci")
                .replace("{name}", "team/a")
                .replace("{group}", "dev")
                .replace("{member}", "zoe")
                .replace("{role}", "signer")
                .replace("{user}", "alice")
                .replace("{issuer}", "ci")
                .replace("{rule}", "main")
                .replace("{tag}", "v1");
            assert!(!path.contains('{'), "{path} is not filled in here");
            let (path, body) = match name {
                "remove_source" => (format!("{path}?source=corp:devs"), Value::Null),
                "add_source" => (path, json!({"source": "corp:devs"})),
                "revoke" => (format!("{path}?who=alice&on=team/a"), Value::Null),
                "grant" => (
                    path,
                    json!({"who": "zoe", "role": "reader", "on": "team/a"}),
                ),
                "set_role" => (path, json!({"permissions": ["push"]})),
                "set_namespace" => (path, json!({"visibility": "public"})),
                "change_user" | "change_robot" => (path, json!({"disabled": true})),
                "set_workload_issuer" => {
                    (path, json!({"kind": "oidc", "issuer": "https://b.example"}))
                }
                "set_workload_rule" => {
                    let conditions = json!([{"claim": "sub", "in": ["b"]}]);
                    (path, json!({"issuer": "ci", "conditions": conditions}))
                }
                "restore_tag" => (path, json!({"version": 1})),
                _ => (path, Value::Null),
            };
            let answer = send(&admin, method, &path, Some(OTHER), &body).await;
            problem(answer, 412, "changed");
        }
    }
    assert_eq!(
        left,
        Vec::<&str>::new(),
        "listed, and there is no such operation"
    );
    assert!(obeying >= 17, "{obeying}");
}
