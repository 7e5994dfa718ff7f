//! Every address with every method for every kind of caller, and that no refusal tells what exists.

use wharf::http::route::Route;
use wharf_core::access::{Permission, Role};
use wharf_testkit::client::Response;
use wharf_testkit::{Client, Image, TestServer, Version};

use crate::api_support::{Cards, USERS, lesser, robots, start, start_for};

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
    for (robot, secret, role) in robots(server).await {
        let who = role.map_or(Who::Refused, |role| {
            Who::Known(role.parse().expect("a role"))
        });
        all.push(Asking {
            client: admin.clone().with_basic(&robot, &secret),
            name: robot,
            who,
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

/// What an address asks for, and what it answers to whoever may, told apart from the code that knows it: [`furnish`] has made what is
/// there. Of a method that is not here the test fails.
#[rustfmt::skip]
const TABLE: &[(&str, &str, Needs, u16)] = &[
    ("/", "GET", Needs::Nothing, 200),
    ("/", "HEAD", Needs::Nothing, 200),
    ("/invitation", "GET", Needs::Nothing, 200),
    ("/invitation", "HEAD", Needs::Nothing, 200),
    ("/invitation", "POST", Needs::Nothing, 400),
    ("/livez", "GET", Needs::Nothing, 200),
    ("/livez", "HEAD", Needs::Nothing, 200),
    ("/readyz", "GET", Needs::Nothing, 200),
    ("/readyz", "HEAD", Needs::Nothing, 200),
    ("/startupz", "GET", Needs::Nothing, 200),
    ("/startupz", "HEAD", Needs::Nothing, 200),
    ("/metrics", "GET", Needs::Right(Permission::Admin), 200),
    ("/metrics", "HEAD", Needs::Right(Permission::Admin), 200),
    ("/auth/login", "GET", Needs::Nothing, 200),
    ("/auth/login", "HEAD", Needs::Nothing, 200),
    ("/auth/login", "POST", Needs::Nothing, 403),
    ("/auth/logout", "POST", Needs::Nothing, 200),
    ("/auth/oidc/{provider}/start", "GET", Needs::Nothing, 503),
    ("/auth/oidc/{provider}/callback", "GET", Needs::Nothing, 404),
    ("/auth/oidc/{provider}/signed-out", "GET", Needs::Nothing, 303),
    ("/auth/oidc/{provider}/backchannel-logout", "POST", Needs::Nothing, 400),
    ("/account/tokens", "GET", Needs::Nothing, 303),
    ("/account/tokens", "HEAD", Needs::Nothing, 303),
    ("/account/tokens", "POST", Needs::Nothing, 403),
    ("/account/sessions", "GET", Needs::Nothing, 303),
    ("/account/sessions", "HEAD", Needs::Nothing, 303),
    ("/account/sessions", "POST", Needs::Nothing, 403),
    ("/device", "GET", Needs::Nothing, 303),
    ("/device", "HEAD", Needs::Nothing, 303),
    ("/device", "POST", Needs::Nothing, 403),
    ("/auth/device/code", "POST", Needs::Nothing, 400),
    ("/auth/revoke", "POST", Needs::Nothing, 400),
    ("/.well-known/oauth-authorization-server", "GET", Needs::Nothing, 200),
    ("/.well-known/oauth-authorization-server", "HEAD", Needs::Nothing, 200),
    ("/token", "GET", Needs::Proof, 200),
    ("/token", "HEAD", Needs::Proof, 200),
    ("/token", "POST", Needs::Nothing, 400),
    ("/v2/", "GET", Needs::Credentials, 200),
    ("/v2/", "HEAD", Needs::Credentials, 200),
    ("/v2/_catalog", "GET", Needs::Right(Permission::Catalog), 200),
    ("/v2/_catalog", "HEAD", Needs::Right(Permission::Catalog), 200),
    ("/v2/_oci/ext/discover", "GET", Needs::Credentials, 200),
    ("/v2/_oci/ext/discover", "HEAD", Needs::Credentials, 200),
    ("/v2/{name}/_oci/ext/discover", "GET", Needs::Right(Permission::Pull), 200),
    ("/v2/{name}/_oci/ext/discover", "HEAD", Needs::Right(Permission::Pull), 200),
    ("/v2/{name}/blobs/{digest}", "GET", Needs::Right(Permission::Pull), 200),
    ("/v2/{name}/blobs/{digest}", "HEAD", Needs::Right(Permission::Pull), 200),
    ("/v2/{name}/blobs/{digest}", "DELETE", Needs::Right(Permission::Delete), 202),
    ("/v2/{name}/blobs/uploads/", "POST", Needs::Right(Permission::Push), 202),
    ("/v2/{name}/blobs/uploads/{id}", "GET", Needs::Right(Permission::Push), 404),
    ("/v2/{name}/blobs/uploads/{id}", "HEAD", Needs::Right(Permission::Push), 404),
    ("/v2/{name}/blobs/uploads/{id}", "PATCH", Needs::Right(Permission::Push), 404),
    ("/v2/{name}/blobs/uploads/{id}", "PUT", Needs::Right(Permission::Push), 404),
    ("/v2/{name}/blobs/uploads/{id}", "DELETE", Needs::Right(Permission::Push), 404),
    ("/v2/{name}/manifests/{reference}", "GET", Needs::Right(Permission::Pull), 200),
    ("/v2/{name}/manifests/{reference}", "HEAD", Needs::Right(Permission::Pull), 200),
    ("/v2/{name}/manifests/{reference}", "PUT", Needs::Right(Permission::Push), 400),
    ("/v2/{name}/manifests/{reference}", "DELETE", Needs::Right(Permission::Delete), 202),
    ("/v2/{name}/tags/list", "GET", Needs::Right(Permission::Pull), 200),
    ("/v2/{name}/tags/list", "HEAD", Needs::Right(Permission::Pull), 200),
    ("/v2/{name}/referrers/{digest}", "GET", Needs::Right(Permission::Pull), 200),
    ("/v2/{name}/referrers/{digest}", "HEAD", Needs::Right(Permission::Pull), 200),
];

/// What somebody must have.
#[derive(Clone, Copy, Debug)]
enum Needs {
    /// Nothing.
    Nothing,
    /// Good credentials (PING-2).
    Credentials,
    /// None, or good ones in Basic: it sells for what they show, and nothing for what is no good or shown otherwise.
    Proof,
    /// This right there.
    Right(Permission),
}

/// What is at the addresses of the examples.
async fn furnish(admin: &Client) {
    admin
        .push_image("team/app", "latest", &Image::random())
        .await;
    let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let path = format!("/v2/team/app/blobs/uploads/?digest={empty}");
    let pushed = admin
        .post(&path)
        .header("content-type", "application/octet-stream");
    pushed.body("").send().await.expect_status(201);
}

/// Spec: AUTH-7, AUTH-8, SCOPE-3, UP-41, CAT-2, REF-12.
#[tokio::test]
async fn the_endpoint_table_holds_for_every_caller() {
    let server = start().await;
    for version in Version::ALL {
        hold(&server.admin(version), callers(&server, version).await).await;
    }
    for (label, method, ..) in TABLE {
        let known = Route::EXAMPLES.iter().any(|example| {
            let route = example.route();
            let known = route.methods().iter().any(|one| one.as_str() == *method);
            example.label == *label && known
        });
        assert!(known, "{method} {label} is in the table, and nowhere else");
    }
}

/// Whose certificate is nobody's is asked to sign in like anybody.
#[tokio::test]
async fn the_endpoint_table_holds_for_certificates() {
    let cards = Cards::new();
    let server = start_for(&cards, "").await;
    for version in Version::ALL {
        let holders = cards.holders(&server, version).await;
        let holders = holders.into_iter().map(|(name, client, role)| Asking {
            who: match role {
                Some(role) => Who::Known(role.parse().expect("a role")),
                // It says who it is, and there is no such user.
                None if name.contains("absent") => Who::Refused,
                None => Who::Nobody,
            },
            name,
            client,
        });
        hold(&server.admin(version), holders.collect()).await;
    }
}

/// Asks for everything as everybody.
async fn hold(admin: &Client, callers: Vec<Asking>) {
    let mut wrong = Vec::new();
    for Asking { name, client, who } in callers {
        furnish(admin).await;
        for example in Route::EXAMPLES {
            let route = example.route();
            for method in route.methods() {
                let row = TABLE.iter().find(|(label, asked, ..)| {
                    *label == example.label && *asked == method.as_str()
                });
                let Some((.., needs, inside)) = row else {
                    panic!("{method} {} is missing from the table", example.label);
                };
                let refused = match needs {
                    Needs::Nothing => None,
                    Needs::Credentials => matches!(who, Who::Nobody | Who::Refused).then_some(401),
                    Needs::Proof => {
                        let bearer = name.ends_with("bearer");
                        (bearer || who == Who::Refused).then_some(401)
                    }
                    Needs::Right(permission) => refusal(who, *permission),
                };
                let expected = refused.unwrap_or(*inside);
                let answer = client.request(method.clone(), example.path).body("");
                let answer = answer.send().await;
                if answer.status.as_u16() != expected {
                    wrong.push(format!("{name}: {expected} expected: {answer}"));
                }
                // What refuses says what it wants, and nothing else does.
                let challenged = answer.header("www-authenticate").is_some();
                assert_eq!(challenged, answer.status == 401, "{name}: {answer}");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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
/// whether there is such a tag or blob in it; and after the same work, which is none: time that could tell would be a look.
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
    let looks = || {
        let stats = server.app().registry.meta.stats();
        stats.reads + stats.scans + stats.operations
    };
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
                        // Work in the background looks too, and so do credentials that are new; one quiet moment proves it.
                        let mut quiet = false;
                        for _ in 0..200 {
                            let before = looks();
                            let request = client.request(method.clone(), &path).body("");
                            let answer = told(&request.send().await, repository);
                            quiet = looks() == before;
                            if quiet {
                                answers.push(answer);
                                break;
                            }
                        }
                        assert!(quiet, "{name}: {method} {path}: it was looked for");
                    }
                    assert_eq!(answers[0].0, refused, "{name}: {:?}", answers[0]);
                    assert_eq!(answers[0], answers[1], "{name}: {method} {path}");
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 200, "{compared}");
    // Whoever may read it makes it look, so that the comparison above means something.
    let before = looks();
    let read = admin.get("/v2/team/there/tags/list").send().await;
    read.expect_status(200);
    assert!(looks() > before);
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
