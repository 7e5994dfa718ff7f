//! Every address of the management API with every method for every kind of caller, and that no refusal tells what exists.

use http::Method;
use wharf::http::route::RESOURCES;
use wharf_core::access::{Permission, Role};
use wharf_testkit::client::Response;
use wharf_testkit::{Client, Image, Version};

use crate::api_support::{USERS, lesser, start};

/// What an address asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// Nothing.
    Nothing,
    /// Good credentials.
    Credentials,
    /// The right to list.
    Catalog,
    /// The right to pull from the repository that it names, or to be shown it in lists.
    Pull,
    /// The right to delete from it.
    Delete,
    /// This right on the namespace that it names, or everywhere.
    Right(Permission),
    /// To be whom it names, which nobody here is.
    Own,
}

/// Told apart from the code that knows it; what is missing here fails the test.
fn needs(template: &str, method: &Method) -> Needs {
    use Permission::{
        Admin, ManageBindings, ManageRobots, ManageSettings, ReadAudit, ReadSettings,
    };
    let reads = matches!(*method, Method::GET | Method::HEAD);
    match (template, method.as_str()) {
        ("/api/v1" | "/api/v1/openapi.json" | "/api/v1/invitations/accept", _) => Needs::Nothing,
        ("/api/v1/me", _) => Needs::Credentials,
        ("/api/v1/repositories", _) => Needs::Catalog,
        ("/api/v1/namespaces" | "/api/v1/roles", _) => Needs::Credentials,
        ("/api/v1/roles/{role}", _) if reads => Needs::Credentials,
        ("/api/v1/namespaces/{name}", _) if reads => Needs::Right(ReadSettings),
        ("/api/v1/namespaces/{name}", "PUT") => Needs::Right(ManageSettings),
        ("/api/v1/apply", _) if !reads => Needs::Right(ManageBindings),
        ("/api/v1/apply", _) => Needs::Right(Admin),
        ("/api/v1/bindings", _) if !reads => Needs::Right(ManageBindings),
        ("/api/v1/bindings" | "/api/v1/explain", _) => Needs::Right(ReadSettings),
        ("/api/v1/audit" | "/api/v1/audit/export" | "/api/v1/audit/verify", _) => {
            Needs::Right(ReadAudit)
        }
        (
            "/api/v1/groups"
            | "/api/v1/groups/{group}"
            | "/api/v1/groups/{group}/members/{member}"
            | "/api/v1/groups/{group}/sources"
            | "/api/v1/namespaces/{name}"
            | "/api/v1/roles/{role}",
            _,
        ) => Needs::Right(Admin),
        ("/api/v1/invitations" | "/api/v1/invitations/{id}", _) => Needs::Right(Admin),
        ("/api/v1/users/{user}/tokens", "POST") => Needs::Own,
        ("/api/v1/users" | "/api/v1/users/{user}", _)
        | (
            "/api/v1/users/{user}/password"
            | "/api/v1/users/{user}/tokens"
            | "/api/v1/users/{user}/accounts"
            | "/api/v1/users/{user}/sessions"
            | "/api/v1/users/{user}/sessions/{id}",
            _,
        ) => Needs::Right(Admin),
        ("/api/v1/robots" | "/api/v1/robots/{name}", _) if reads => Needs::Right(ReadSettings),
        ("/api/v1/robots" | "/api/v1/robots/{name}" | "/api/v1/robots/{name}/-/rotate", _) => {
            Needs::Right(ManageRobots)
        }
        // Whose it is is looked up, so whoever it is not for is told that it is not there.
        ("/api/v1/credentials/{id}", _) => Needs::Credentials,
        (
            "/api/v1/repositories/{name}"
            | "/api/v1/repositories/{name}/-/history"
            | "/api/v1/repositories/{name}/-/tags"
            | "/api/v1/repositories/{name}/-/tags/{tag}"
            | "/api/v1/repositories/{name}/-/tags/{tag}/history",
            "GET" | "HEAD",
        ) => Needs::Pull,
        (
            "/api/v1/repositories/{name}"
            | "/api/v1/repositories/{name}/-/tags/{tag}"
            | "/api/v1/repositories/{name}/-/tags/{tag}/restore"
            | "/api/v1/repositories/{name}/-/manifests/{digest}/restore",
            "DELETE" | "POST",
        ) => Needs::Delete,
        ("/api/v1/status", _) => Needs::Right(Admin),
        (path, _) if path.starts_with("/api/v1/workload") => Needs::Right(Admin),
        (path, _) if path.starts_with("/api/v1/jobs") => Needs::Right(Admin),
        _ => panic!("{method} {template} is missing from the table"),
    }
}

/// What a request there must say to be understood: query and body.
fn arguments(template: &str, method: &Method) -> (&'static str, &'static str) {
    match (template, method.as_str()) {
        ("/api/v1/bindings", "POST") => ("", r#"{"who":"bob","role":"reader","on":"team"}"#),
        ("/api/v1/apply", "POST") => (
            "",
            r#"{"bindings":[{"who":"bob","role":"reader","on":"team"}],"dry_run":true}"#,
        ),
        ("/api/v1/bindings", "DELETE") => ("?who=bob&role=reader&on=team", ""),
        ("/api/v1/explain", _) => ("?who=bob&permission=pull&repository=team/app", ""),
        ("/api/v1/namespaces/{name}", "PUT") => ("", r#"{"visibility":"private"}"#),
        ("/api/v1/roles/{role}", "PUT") => ("", r#"{"permissions":["pull"]}"#),
        ("/api/v1/users", "POST") => ("", r#"{"name":"carol"}"#),
        ("/api/v1/invitations", "POST") => ("", r#"{"name":"dora"}"#),
        ("/api/v1/invitations/accept", _) => {
            ("", r#"{"secret":"x","password":"a long enough one"}"#)
        }
        ("/api/v1/users/{user}", "PATCH") => ("", r#"{"disabled":false}"#),
        ("/api/v1/users/{user}/tokens", "POST") => ("", r#"{"name":"laptop"}"#),
        ("/api/v1/users/{user}/accounts", "POST") => ("", r#"{"provider":"corp","subject":"1"}"#),
        ("/api/v1/users/{user}/accounts", "DELETE") => ("?provider=corp&subject=1", ""),
        ("/api/v1/groups/{group}/sources", "POST") => ("", r#"{"source":"corp:devs"}"#),
        ("/api/v1/groups/{group}/sources", "DELETE") => ("?source=corp:devs", ""),
        ("/api/v1/robots", "POST") => ("", r#"{"name":"team/app+ci"}"#),
        ("/api/v1/robots/{name}", "PATCH") => ("", r#"{"disabled":false}"#),
        ("/api/v1/workload/issuers/{issuer}", "PUT") => {
            ("", r#"{"kind":"oidc","issuer":"https://ci.example"}"#)
        }
        ("/api/v1/workload/rules/{rule}", "PUT") => (
            "",
            r#"{"issuer":"prod","conditions":[{"claim":"sub","in":["a"]}]}"#,
        ),
        ("/api/v1/workload/test", "POST") => ("", r#"{"token":"x"}"#),
        ("/api/v1/jobs", "POST") => ("", r#"{"kind":"nothing"}"#),
        _ => ("", ""),
    }
}

/// How the caller is refused; `None` when they are let in, whatever the answer then is.
fn refusal(role: Option<Role>, needs: Needs) -> Option<u16> {
    let Some(role) = role else {
        return (needs != Needs::Nothing).then_some(401);
    };
    let has = |permission: Permission| role.permissions().contains(permission);
    let sees = has(Permission::Pull) || has(Permission::Catalog);
    match needs {
        Needs::Nothing | Needs::Credentials => None,
        Needs::Catalog => (!has(Permission::Catalog)).then_some(403),
        Needs::Pull | Needs::Delete if !sees => Some(404),
        Needs::Pull => None,
        Needs::Delete => (!has(Permission::Delete)).then_some(403),
        Needs::Right(permission) => (!has(permission)).then_some(403),
        Needs::Own => Some(403),
    }
}

fn as_user(admin: &Client, user: &str) -> Client {
    match user {
        "" => admin.clone().anonymous(),
        "admin" => admin.clone(),
        user => admin.clone().with_basic(user, "x"),
    }
}

#[tokio::test]
async fn the_table_of_the_management_api_holds_for_every_caller() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    admin
        .push_image("team/app", "latest", &Image::random())
        .await;
    let mut callers = vec![
        (String::new(), as_user(&admin, ""), None),
        ("admin".into(), admin.clone(), Some(Role::Admin)),
    ];
    for (user, role) in USERS {
        callers.push((user.into(), as_user(&admin, user), role.parse().ok()));
    }
    for (user, secret, left) in lesser(&server).await {
        let role = left.map(|role| role.parse().expect("a role"));
        let name = format!("a token of {user} with {left:?}");
        callers.push((name.clone(), admin.clone().with_basic(user, &secret), role));
        callers.push((name, admin.clone().with_token(&secret), role));
    }
    for (user, client, role) in callers {
        for resource in RESOURCES {
            for method in [
                Method::GET,
                Method::HEAD,
                Method::POST,
                Method::PUT,
                Method::PATCH,
                Method::DELETE,
            ] {
                let (query, body) = arguments(resource.template, &method);
                let path = format!("{}{query}", resource.example);
                let answer = client.request(method.clone(), &path).body(body);
                let answer = answer
                    .header("content-type", "application/json")
                    .send()
                    .await;
                let status = answer.status.as_u16();
                if !resource.methods.contains(&method) {
                    assert_eq!(status, 405, "{user:?}: {answer}");
                    continue;
                }
                match refusal(role, needs(resource.template, &method)) {
                    Some(refused) => assert_eq!(status, refused, "{user:?}: {answer}"),
                    // What the examples name need not be there, or be as the request wants it.
                    None => assert!(
                        status < 400 || matches!(status, 404 | 409),
                        "{user:?}: {answer}"
                    ),
                }
            }
        }
    }
}

/// An answer as far as it may differ: without the request's own id and moment, and with the name in the path taken out.
fn told(answer: &Response, name: &str) -> (u16, Vec<(String, String)>, String) {
    let own = ["x-request-id", "date", "content-length"];
    let headers = answer.headers.iter();
    let headers = headers.filter(|(key, _)| !own.contains(&key.as_str()));
    let mut body = String::from_utf8_lossy(&answer.body).replace(name, "NAME");
    if let Some(id) = answer.header("x-request-id") {
        body = body.replace(id, "ID");
    }
    let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    (
        answer.status.as_u16(),
        headers
            .map(|(key, value)| (key.to_string(), text(value)))
            .collect(),
        body,
    )
}

/// Status, body and work are the same, so time is; a look into the metadata would be the only thing to take longer.
#[tokio::test]
async fn what_one_may_not_see_cannot_be_told_from_what_does_not_exist() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    // Of one length, so that lengths can be compared too.
    let (secret, nothing) = ("other/secret", "other/nowhere");
    let nothing = &nothing[..secret.len()];
    admin.push_image(secret, "latest", &Image::random()).await;
    let looks = || {
        let stats = server.app().registry.meta.stats();
        stats.reads + stats.scans + stats.operations
    };
    for user in ["", "stranger", "guest"] {
        let client = as_user(&admin, user);
        for resource in RESOURCES
            .iter()
            .filter(|one| one.template.contains("{name}"))
        {
            for method in resource.methods {
                let mut answers = Vec::new();
                for name in [secret, nothing] {
                    let path = resource.example.replace("team/app", name);
                    // Work in the background looks too, so one quiet moment proves it.
                    let mut quiet = false;
                    for _ in 0..200 {
                        let before = looks();
                        let (query, body) = arguments(resource.template, method);
                        let request = client.request(method.clone(), &format!("{path}{query}"));
                        let request = request.header("content-type", "application/json");
                        let answer = request.body(body).send().await;
                        let after = looks();
                        answers.push(told(&answer, name));
                        if after == before {
                            quiet = true;
                            break;
                        }
                    }
                    assert!(quiet, "{user:?} {method} {path}: it was looked for");
                }
                for answer in &answers {
                    // That a namespace is not theirs to manage may be said: it is, of every name.
                    let managed = resource.template.starts_with("/api/v1/namespaces")
                        || resource.template.starts_with("/api/v1/robots");
                    let refused = matches!(answer.0, 401 | 404) || managed && answer.0 == 403;
                    assert!(refused, "{answer:?}");
                    assert_eq!(
                        answer, &answers[0],
                        "{user:?} {method} {}",
                        resource.template
                    );
                }
            }
        }
    }
    // Whoever may see it is answered otherwise, so that the comparison above means something.
    let reader = as_user(&admin, "reader");
    let before = looks();
    let path = |name: &str| format!("/api/v1/repositories/{name}");
    reader.get(&path(secret)).send().await.expect_status(200);
    assert!(looks() > before);
    reader.get(&path(nothing)).send().await.expect_status(404);
}
