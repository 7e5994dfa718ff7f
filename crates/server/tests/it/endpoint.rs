//! Every address with every method for every kind of caller, and that no refusal tells what exists.

use http::Method;
use wharf::http::route::Route;
use wharf_core::access::{Permission, Role};
use wharf_testkit::client::Response;
use wharf_testkit::{Client, Image, TestServer, Version};

use crate::api_support::{USERS, lesser, start};

/// Who asks.
struct Asking {
    name: String,
    client: Client,
    who: Who,
}

/// What is known of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    /// No credentials.
    Nobody,
    /// Credentials that are no longer good.
    Refused,
    /// Good ones, with this role everywhere.
    Known(Role),
}

/// Everybody whom the table has.
async fn callers(server: &TestServer, version: Version) -> Vec<Asking> {
    let admin = server.admin(version);
    let mut all = vec![
        Asking {
            name: "nobody".into(),
            client: admin.clone().anonymous(),
            who: Who::Nobody,
        },
        Asking {
            name: "admin".into(),
            client: admin.clone(),
            who: Who::Known(Role::Admin),
        },
    ];
    for (name, role) in USERS {
        all.push(Asking {
            name: name.into(),
            client: admin.clone().with_basic(name, "x"),
            who: Who::Known(role.parse().expect("a role")),
        });
    }
    for (user, secret, left) in lesser(server).await {
        for (way, client) in [
            ("basic", admin.clone().with_basic(user, &secret)),
            ("bearer", admin.clone().with_token(&secret)),
        ] {
            let role = left.map(|role| role.parse().expect("a role"));
            all.push(Asking {
                name: format!("a token of {user} with {left:?} by {way}"),
                client,
                who: role.map_or(Who::Refused, Who::Known),
            });
        }
    }
    all
}

/// What a refusal must be; `None` when the caller is let in, whatever the answer then is.
fn refusal(who: Who, permission: Permission) -> Option<u16> {
    match who {
        Who::Nobody | Who::Refused => Some(401),
        Who::Known(role) if role.permissions().contains(permission) => None,
        Who::Known(_) => Some(403),
    }
}

/// Spec: AUTH-7, AUTH-8, SCOPE-3, UP-41, CAT-2, REF-12.
#[tokio::test]
async fn the_endpoint_table_holds_for_every_caller() {
    let server = start().await;
    for version in Version::ALL {
        for Asking { name, client, who } in callers(&server, version).await {
            for example in Route::EXAMPLES {
                let route = example.route();
                for method in route.methods() {
                    let expected = match (&route, route.permission(method)) {
                        (_, Some(permission)) => refusal(who, permission),
                        // Whoever signed in may talk to us; the rest asks first (PING-2).
                        (Route::Ping | Route::Extensions { name: None }, None) => {
                            matches!(who, Who::Nobody | Who::Refused).then_some(401)
                        }
                        // It sells for what Basic shows, and nothing for what is no good or shown otherwise.
                        (Route::Token, None) => {
                            let bearer = name.ends_with("bearer");
                            let refused = bearer || who == Who::Refused;
                            (refused && *method != Method::POST).then_some(401)
                        }
                        (_, None) => None,
                    };
                    let answer = client
                        .request(method.clone(), example.path)
                        .body("")
                        .send()
                        .await;
                    let status = answer.status.as_u16();
                    let refused = matches!(status, 401 | 403).then_some(status);
                    assert_eq!(refused, expected, "{name}: {answer}");
                    assert!(status < 500 || status == 503, "{name}: {answer}");
                }
            }
        }
    }
}

/// An answer without what belongs to the request: its id, its moment, and the name that was asked for.
fn told(answer: &Response, name: &str) -> (u16, Vec<(String, String)>, String) {
    let id = answer.header("x-request-id").unwrap_or("none").to_owned();
    let plain = |text: &str| text.replace(name, "NAME").replace(&id, "ID");
    let own = ["x-request-id", "date"];
    let headers = answer.headers.iter();
    let headers = headers.filter(|(key, _)| !own.contains(&key.as_str()));
    let text = |value: &http::HeaderValue| plain(value.to_str().unwrap_or_default());
    (
        answer.status.as_u16(),
        headers
            .map(|(key, value)| (key.to_string(), text(value)))
            .collect(),
        plain(&String::from_utf8_lossy(&answer.body)),
    )
}

/// Below `/v2/`, whoever lacks a right is answered the same, byte for byte, whether there is such a repository, and the same
/// whether there is such a tag or blob in it.
///
/// Spec: AUTH-8.
#[tokio::test]
async fn a_refusal_is_the_same_whether_the_repository_exists() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    // Of one length, so that lengths are compared too.
    let (there, absent) = ("team/there", "team/empty");
    let image = Image::random();
    admin.push_image(there, "latest", &image).await;
    let digest = image.manifest.digest.to_string();
    let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let mut compared = 0;
    for Asking { name, client, who } in callers(&server, Version::Http1).await {
        for example in Route::EXAMPLES {
            let route = example.route();
            if route.repository().is_none() {
                continue;
            }
            for method in route.methods() {
                let Some(refused) = route
                    .permission(method)
                    .and_then(|permission| refusal(who, permission))
                else {
                    continue;
                };
                for path in [
                    example.path.to_owned(),
                    example.path.replace(empty, &digest),
                    example.path.replace("manifests/latest", "manifests/none"),
                ] {
                    let mut answers = Vec::new();
                    for repository in [there, absent] {
                        let path = path.replace("team/app", repository);
                        let request = client.request(method.clone(), &path).body("");
                        answers.push(told(&request.send().await, repository));
                    }
                    assert_eq!(answers[0].0, refused, "{name}: {:?}", answers[0]);
                    assert_eq!(answers[0], answers[1], "{name}: {method} {path}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 200, "{compared}");
    let read = admin.get("/v2/team/there/tags/list").send().await;
    read.expect_status(200);
    admin
        .get("/v2/team/empty/tags/list")
        .send()
        .await
        .expect_status(404);
}

/// Each address that the router knows has a row in the table: who adds one without is told here.
#[test]
fn no_route_is_missing_from_the_table() {
    let source = include_str!("../../src/http/route.rs");
    let body = source.split("pub enum Route {").nth(1).expect("the routes");
    let body = body.split("\n}").next().expect("their end");
    let variants = body.lines().filter_map(|line| {
        let name = line.strip_prefix("    ")?;
        let first = name.chars().next()?;
        first.is_ascii_uppercase().then(|| {
            let end = name.find(|letter: char| !letter.is_ascii_alphanumeric());
            name[..end.unwrap_or(name.len())].to_owned()
        })
    });
    let shown: Vec<String> = Route::EXAMPLES
        .iter()
        .map(|example| format!("{:?}", example.route()))
        .collect();
    let mut count = 0;
    for variant in variants {
        count += 1;
        // Those of the management API have a table of their own.
        let has_row = |shown: &String| {
            let rest = shown.strip_prefix(&variant);
            rest.is_some_and(|rest| {
                !rest.starts_with(|letter: char| letter.is_ascii_alphanumeric())
            })
        };
        let known = variant == "Api" || shown.iter().any(has_row);
        assert!(known, "Route::{variant} has no row in Route::EXAMPLES");
    }
    assert!(count >= 16, "{count}");
}
