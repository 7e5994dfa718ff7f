//! Every address of the management API with every method for every kind of caller, and that no refusal tells what exists.

use http::Method;
use wharf::http::route::RESOURCES;
use wharf_core::access::{Changer, Permission, Role};
use wharf_core::identity::{NewToken, create_token};
use wharf_core::session;
use wharf_meta::job;
use wharf_testkit::client::Response;
use wharf_testkit::{Client, Image, TestServer, Version};

use crate::api_support::{
    A_PROVIDER, Cards, USERS, add_job, begin_session, get, lesser, robots, start, start_for,
    start_with,
};

/// What an address asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Needs {
    /// Nothing.
    Nothing,
    /// Good credentials.
    Credentials,
    /// The right to be shown the repository that it names, or to pull from it.
    Sight,
    /// The same, and this right on it.
    SightAnd(Permission),
    /// This right on the namespace or repository that it names.
    There(Permission),
    /// This right on everything.
    Everywhere(Permission),
    /// To be whom it names, which nobody here is.
    Own,
    /// The right to everything; whoever lacks it is told that it is not there, since whose it is is looked up.
    Theirs,
}

/// What an address asks for, what it answers to whoever may, and what a request must say besides to be understood: a query, or a
/// body. [`furnish`] has made what is there. Of a method that is not here the test fails.
#[rustfmt::skip]
const TABLE: &[(&str, &str, Needs, u16, &str)] = {
    use Needs::{Credentials, Everywhere, Nothing, Own, Sight, SightAnd, Theirs, There};
    use Permission::{Admin, Catalog, Delete, ManageBindings, ManageRobots, ManageSettings, ReadAudit, ReadSettings};
    &[
    ("/api/v1", "GET", Nothing, 200, ""),
    ("/api/v1/openapi.json", "GET", Nothing, 200, ""),
    ("/api/v1/me", "GET", Credentials, 200, ""),
    ("/api/v1/repositories", "GET", There(Catalog), 200, ""),
    ("/api/v1/repositories/{name}", "GET", Sight, 200, ""),
    ("/api/v1/repositories/{name}", "DELETE", SightAnd(Delete), 200, ""),
    ("/api/v1/repositories/{name}/-/history", "GET", Sight, 200, ""),
    ("/api/v1/repositories/{name}/-/tags", "GET", Sight, 200, ""),
    ("/api/v1/repositories/{name}/-/tags/{tag}", "GET", Sight, 200, ""),
    ("/api/v1/repositories/{name}/-/tags/{tag}", "DELETE", SightAnd(Delete), 204, ""),
    ("/api/v1/repositories/{name}/-/tags/{tag}/history", "GET", Sight, 200, ""),
    ("/api/v1/repositories/{name}/-/tags/{tag}/restore", "POST", SightAnd(Delete), 200, "{}"),
    ("/api/v1/repositories/{name}/-/manifests/{digest}/restore", "POST", SightAnd(Delete), 200, ""),
    ("/api/v1/bindings", "GET", Everywhere(ReadSettings), 200, ""),
    ("/api/v1/bindings", "GET", There(ReadSettings), 200, "?on=team/app"),
    ("/api/v1/bindings", "POST", There(ManageBindings), 200, r#"{"who":"bob","role":"reader","on":"team/app"}"#),
    ("/api/v1/bindings", "POST", Everywhere(ManageBindings), 200, r#"{"who":"bob","role":"reader","on":""}"#),
    ("/api/v1/bindings", "DELETE", There(ManageBindings), 200, "?who=alice&role=reader&on=team/app"),
    ("/api/v1/apply", "GET", Everywhere(Admin), 200, ""),
    ("/api/v1/apply", "POST", There(ManageBindings), 200, r#"{"bindings":[{"who":"bob","role":"reader","on":"team"}],"dry_run":true}"#),
    ("/api/v1/apply", "POST", Everywhere(Admin), 200, r#"{"groups":[{"name":"testers"}],"dry_run":true}"#),
    ("/api/v1/explain", "GET", There(ReadSettings), 200, "?who=bob&permission=pull&repository=team/app"),
    ("/api/v1/audit", "GET", There(ReadAudit), 200, ""),
    ("/api/v1/audit", "GET", There(ReadAudit), 200, "?repository=team/app"),
    ("/api/v1/audit/export", "GET", There(ReadAudit), 200, ""),
    ("/api/v1/audit/verify", "POST", Everywhere(ReadAudit), 200, ""),
    ("/api/v1/groups", "GET", Everywhere(Admin), 200, ""),
    ("/api/v1/groups/{group}", "GET", Everywhere(Admin), 200, ""),
    ("/api/v1/groups/{group}", "PUT", Everywhere(Admin), 200, ""),
    ("/api/v1/groups/{group}", "DELETE", Everywhere(Admin), 200, ""),
    ("/api/v1/groups/{group}/members/{member}", "PUT", Everywhere(Admin), 200, ""),
    ("/api/v1/groups/{group}/members/{member}", "DELETE", Everywhere(Admin), 200, ""),
    ("/api/v1/groups/{group}/sources", "POST", Everywhere(Admin), 200, r#"{"source":"corp:testers"}"#),
    ("/api/v1/groups/{group}/sources", "DELETE", Everywhere(Admin), 200, "?source=corp:devs"),
    ("/api/v1/namespaces", "GET", Credentials, 200, ""),
    ("/api/v1/namespaces/{name}", "GET", There(ReadSettings), 200, ""),
    ("/api/v1/namespaces/{name}", "PUT", There(ManageSettings), 200, r#"{"visibility":"private"}"#),
    ("/api/v1/namespaces/{name}", "DELETE", Everywhere(Admin), 200, ""),
    ("/api/v1/roles", "GET", Credentials, 200, ""),
    ("/api/v1/roles/{role}", "GET", Credentials, 200, ""),
    ("/api/v1/roles/{role}", "PUT", Everywhere(Admin), 200, r#"{"permissions":["pull"]}"#),
    ("/api/v1/roles/{role}", "DELETE", Everywhere(Admin), 200, ""),
    ("/api/v1/workload/issuers", "GET", Everywhere(Admin), 200, ""),
    ("/api/v1/workload/issuers/{issuer}", "GET", Everywhere(Admin), 200, ""),
    ("/api/v1/workload/issuers/{issuer}", "PUT", Everywhere(Admin), 200, r#"{"kind":"oidc","issuer":"https://ci.example"}"#),
    ("/api/v1/workload/issuers/{issuer}", "DELETE", Everywhere(Admin), 409, ""),
    ("/api/v1/workload/rules", "GET", Everywhere(Admin), 200, ""),
    ("/api/v1/workload/rules/{rule}", "GET", Everywhere(Admin), 200, ""),
    ("/api/v1/workload/rules/{rule}", "PUT", Everywhere(Admin), 200, r#"{"issuer":"prod","conditions":[{"claim":"sub","in":["a"]}]}"#),
    ("/api/v1/workload/rules/{rule}", "DELETE", Everywhere(Admin), 200, ""),
    ("/api/v1/workload/test", "POST", Everywhere(Admin), 200, r#"{"token":"x"}"#),
    ("/api/v1/users", "GET", Everywhere(Admin), 200, ""),
    ("/api/v1/users", "POST", Everywhere(Admin), 201, r#"{"name":"carol"}"#),
    ("/api/v1/users/{user}", "GET", Everywhere(Admin), 200, ""),
    ("/api/v1/users/{user}", "PATCH", Everywhere(Admin), 204, r#"{"disabled":false}"#),
    ("/api/v1/users/{user}", "DELETE", Everywhere(Admin), 204, ""),
    ("/api/v1/users/{user}/password", "PUT", Everywhere(Admin), 200, r#"{"password":"another looking glass"}"#),
    ("/api/v1/users/{user}/tokens", "GET", Everywhere(Admin), 200, ""),
    ("/api/v1/users/{user}/tokens", "POST", Own, 403, r#"{"name":"laptop"}"#),
    ("/api/v1/users/{user}/accounts", "GET", Everywhere(Admin), 200, ""),
    ("/api/v1/users/{user}/accounts", "POST", Everywhere(Admin), 200, r#"{"provider":"corp","subject":"2"}"#),
    ("/api/v1/users/{user}/accounts", "DELETE", Everywhere(Admin), 204, "?provider=corp&subject=1"),
    ("/api/v1/users/{user}/sessions", "GET", Everywhere(Admin), 200, ""),
    ("/api/v1/users/{user}/sessions", "DELETE", Everywhere(Admin), 200, ""),
    ("/api/v1/users/{user}/sessions/{id}", "DELETE", Everywhere(Admin), 204, ""),
    ("/api/v1/robots", "GET", Everywhere(ReadSettings), 200, ""),
    ("/api/v1/robots", "GET", There(ReadSettings), 200, "?namespace=team/app"),
    ("/api/v1/robots", "POST", There(ManageRobots), 201, r#"{"name":"team/app+cd"}"#),
    ("/api/v1/robots/{name}", "GET", There(ReadSettings), 200, ""),
    ("/api/v1/robots/{name}", "PATCH", There(ManageRobots), 204, r#"{"disabled":false}"#),
    ("/api/v1/robots/{name}", "DELETE", There(ManageRobots), 204, ""),
    ("/api/v1/robots/{name}/-/rotate", "POST", There(ManageRobots), 201, "{}"),
    ("/api/v1/credentials/{id}", "DELETE", Theirs, 200, ""),
    ("/api/v1/invitations", "GET", Everywhere(Admin), 200, ""),
    ("/api/v1/invitations", "POST", Everywhere(Admin), 201, r#"{"name":"emil"}"#),
    ("/api/v1/invitations/accept", "POST", Nothing, 404, r#"{"secret":"x","password":"a long enough one"}"#),
    ("/api/v1/invitations/{id}", "DELETE", Everywhere(Admin), 204, ""),
    ("/api/v1/jobs", "GET", Everywhere(Admin), 200, ""),
    ("/api/v1/jobs", "POST", Everywhere(Admin), 409, r#"{"kind":"nothing"}"#),
    ("/api/v1/jobs/{id}", "GET", Everywhere(Admin), 200, ""),
    ("/api/v1/jobs/{id}/cancel", "POST", Everywhere(Admin), 204, ""),
    ("/api/v1/jobs/{id}/retry", "POST", Everywhere(Admin), 204, ""),
    ("/api/v1/status", "GET", Everywhere(Admin), 200, ""),
    ]
};

/// Who asks.
struct Asking {
    name: String,
    client: Client,
    /// Their role; `None`: their credentials are none, or no longer good.
    role: Option<Role>,
    /// Whether it is theirs in `team` alone.
    in_team: bool,
}

impl Asking {
    /// How they are refused; `None` when they are let in.
    fn refusal(&self, needs: Needs) -> Option<u16> {
        let Some(role) = self.role else {
            return (needs != Needs::Nothing).then_some(401);
        };
        let has = |permission: Permission| role.permissions().contains(permission);
        let sees = has(Permission::Pull) || has(Permission::Catalog);
        match needs {
            Needs::Nothing | Needs::Credentials => None,
            Needs::Sight | Needs::SightAnd(_) if !sees => Some(404),
            Needs::Sight => None,
            Needs::SightAnd(permission) | Needs::There(permission) => {
                (!has(permission)).then_some(403)
            }
            Needs::Everywhere(permission) => (self.in_team || !has(permission)).then_some(403),
            Needs::Own => Some(403),
            Needs::Theirs => (self.in_team || role != Role::Admin).then_some(404),
        }
    }
}

/// Everybody whom the table has.
async fn callers(server: &TestServer) -> Vec<Asking> {
    let admin = server.admin(Version::Http1);
    let asking = |name: String, client: Client, role: Option<&str>| Asking {
        name,
        client,
        role: role.map(|role| role.parse().expect("a role")),
        in_team: false,
    };
    let mut all = vec![
        asking("nobody".into(), admin.clone().anonymous(), None),
        asking("admin".into(), admin.clone(), Some("admin")),
    ];
    for (user, role) in USERS {
        let client = admin.clone().with_basic(user, "x");
        all.push(asking(user.into(), client, Some(role)));
    }
    for (robot, secret, role) in robots(server).await {
        let client = admin.clone().with_basic(&robot, &secret);
        all.push(Asking {
            in_team: true,
            ..asking(robot, client, role)
        });
    }
    for (user, secret, left) in lesser(server).await {
        for (way, client) in [
            ("basic", admin.clone().with_basic(user, &secret)),
            ("bearer", admin.clone().with_token(&secret)),
        ] {
            let name = format!("a token of {user} with {left:?} by {way}");
            all.push(asking(name, client, left));
        }
    }
    all
}

/// What is at the addresses of the examples: their ids.
struct There {
    digest: String,
    token: String,
    session: String,
    invitation: String,
    waiting: String,
    cancelled: String,
}

/// Makes it, as much of it as is not there.
async fn furnish(server: &TestServer, admin: &Client) -> There {
    let registry = &server.app().registry;
    let send = async |method: &str, path: &str, body: &str| {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let request = admin.request(method.clone(), path).body(body.to_owned());
        let request = request.header("content-type", "application/json");
        let answer = request.send().await;
        // What is there already, or gone, is as it shall be.
        let status = answer.status.as_u16();
        let known = matches!((method.as_str(), status), ("POST", 409) | ("DELETE", 404));
        assert!(known || answer.status.is_success(), "{answer}");
        answer
    };
    send("DELETE", "/api/v1/users/alice", "").await;
    send("DELETE", "/api/v1/users/carol", "").await;
    send("DELETE", "/api/v1/robots/team/app+cd", "").await;
    send("POST", "/api/v1/users", r#"{"name":"alice"}"#).await;
    send("PUT", "/api/v1/groups/developers", "").await;
    send("PUT", "/api/v1/groups/developers/members/alice", "").await;
    for source in ["devs", "testers"] {
        send(
            "DELETE",
            &format!("/api/v1/groups/developers/sources?source=corp:{source}"),
            "",
        )
        .await;
    }
    send(
        "POST",
        "/api/v1/groups/developers/sources",
        r#"{"source":"corp:devs"}"#,
    )
    .await;
    send(
        "PUT",
        "/api/v1/namespaces/team/app",
        r#"{"visibility":"private"}"#,
    )
    .await;
    send("PUT", "/api/v1/roles/signer", r#"{"permissions":["pull"]}"#).await;
    send(
        "PUT",
        "/api/v1/workload/issuers/prod",
        r#"{"kind":"oidc","issuer":"https://ci.example"}"#,
    )
    .await;
    let rule = r#"{"issuer":"prod","conditions":[{"claim":"sub","in":["a"]}]}"#;
    send("PUT", "/api/v1/workload/rules/prod-default", rule).await;
    let account = r#"{"provider":"corp","subject":"1"}"#;
    send("POST", "/api/v1/users/alice/accounts", account).await;
    send("POST", "/api/v1/robots", r#"{"name":"team/app+ci"}"#).await;
    let grant = r#"{"who":"alice","role":"reader","on":"team/app"}"#;
    send("POST", "/api/v1/bindings", grant).await;
    // Two versions of the tag, the first of which is gone.
    let old = Image::random();
    admin.push_image("team/app", "latest", &old).await;
    let digest = old.manifest.digest.to_string();
    let gone = admin.delete(&format!("/v2/team/app/manifests/{digest}"));
    gone.send().await.expect_status(202);
    admin
        .push_image("team/app", "latest", &Image::random())
        .await;

    let new = NewToken {
        user: "alice".into(),
        name: "laptop".into(),
        scopes: Vec::new(),
        lifetime: None,
    };
    let operator = Changer::Operator;
    let token = create_token(registry, operator, &new).await;
    begin_session(server, "alice").await;
    let sessions = session::list(registry, "alice").await.expect("sessions");
    for one in get(admin, "/api/v1/invitations").await["items"]
        .as_array()
        .expect("a list")
    {
        let id = one["id"].as_str().expect("an id");
        send("DELETE", &format!("/api/v1/invitations/{id}"), "").await;
    }
    let invited = send("POST", "/api/v1/invitations", r#"{"name":"dora"}"#)
        .await
        .json();
    let at = registry.clock.now_ms();
    let (waiting, cancelled) = (add_job(server).await, add_job(server).await);
    let cancel = job::Cancel { id: cancelled, at };
    assert!(registry.meta.write(cancel).await.expect("cancelled"));
    There {
        digest,
        token: token.expect("a token").id,
        session: sessions[0].id.clone(),
        invitation: invited["id"].as_str().expect("an id").to_owned(),
        waiting: waiting.to_string(),
        cancelled: cancelled.to_string(),
    }
}

impl There {
    /// The address of an example with the id of what is there in the place of its own.
    fn path(&self, template: &str, example: &str) -> String {
        let (own, id) = match template {
            "/api/v1/users/{user}/sessions/{id}" => ("0123456789abcdef", &self.session),
            "/api/v1/credentials/{id}" => ("0123456789abcdef", &self.token),
            "/api/v1/invitations/{id}" => ("0123456789abcdef", &self.invitation),
            "/api/v1/jobs/{id}/retry" => (JOB, &self.cancelled),
            _ if template.starts_with("/api/v1/jobs/{id}") => (JOB, &self.waiting),
            _ if template.contains("{digest}") => (NO_MANIFEST, &self.digest),
            _ => return example.to_owned(),
        };
        assert!(example.contains(own), "{example}");
        example.replace(own, id)
    }
}

/// Ids in the examples.
const JOB: &str = "0199a0b0-0000-7000-8000-000000000000";
const NO_MANIFEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// No limit to wrong passwords, of which there are many here.
const CONFIG: &str = "[rate_limits]\nsign_in = \"100000/s burst 100000\"\n";

#[tokio::test]
async fn the_table_of_the_management_api_holds_for_every_caller() {
    let server = start_with(&format!("{CONFIG}{A_PROVIDER}")).await;
    let admin = server.admin(Version::Http1);
    // So that robots have a home.
    furnish(&server, &admin).await;
    let callers = callers(&server).await;
    hold(&server, callers).await;
}

#[tokio::test]
async fn the_table_of_the_management_api_holds_for_certificates() {
    let cards = Cards::new();
    let server = start_for(&cards, &format!("{CONFIG}{A_PROVIDER}")).await;
    let holders = cards.holders(&server, Version::Http1).await;
    let holders = holders.into_iter().map(|(name, client, role)| Asking {
        name,
        client,
        role: role.map(|role| role.parse().expect("a role")),
        in_team: false,
    });
    hold(&server, holders.collect()).await;
}

/// Asks for everything as everybody.
async fn hold(server: &TestServer, callers: Vec<Asking>) {
    let admin = server.admin(Version::Http1);
    let mut wrong = Vec::new();
    let mut let_in = 0;
    let (mut there, mut changed) = (furnish(server, &admin).await, false);
    for asking in callers {
        for resource in RESOURCES {
            for method in METHODS {
                let rows = TABLE.iter().filter(|(template, asked, ..)| {
                    let reads = *method == Method::HEAD && *asked == "GET";
                    *template == resource.template && (reads || *asked == method.as_str())
                });
                let rows: Vec<_> = rows.collect();
                let known = resource.methods.contains(method);
                assert_eq!(
                    !rows.is_empty(),
                    known,
                    "{method} {} is in one of the two tables",
                    resource.template
                );
                if !known {
                    let path = there.path(resource.template, resource.example);
                    let answer = asking.client.request(method.clone(), &path);
                    let answer = answer.send().await.expect_status(405);
                    assert!(answer.header("allow").is_some(), "{answer}");
                }
                for (template, _, needs, inside, more) in rows {
                    let refused = asking.refusal(*needs);
                    if refused.is_none() && changed {
                        there = furnish(server, &admin).await;
                        changed = false;
                    }
                    if refused.is_none() && template.ends_with("{tag}/restore") {
                        let tag = admin.delete("/v2/team/app/manifests/latest");
                        tag.send().await.expect_status(202);
                    }
                    let changes = !matches!(*method, Method::GET | Method::HEAD);
                    changed |= refused.is_none() && changes;
                    let path = there.path(template, resource.example);
                    let (query, body) = match more.starts_with('?') {
                        true => (*more, ""),
                        false => ("", *more),
                    };
                    let request = asking
                        .client
                        .request(method.clone(), &format!("{path}{query}"));
                    let request = request.header("content-type", "application/json");
                    let answer = request.body(body).send().await;
                    let expected = refused.unwrap_or(*inside);
                    if answer.status.as_u16() != expected {
                        wrong.push(format!("{}: {expected} expected: {answer}", asking.name));
                    }
                    let challenged = answer.header("www-authenticate").is_some();
                    assert_eq!(
                        challenged,
                        answer.status == 401,
                        "{}: {answer}",
                        asking.name
                    );
                    let_in += usize::from(refused.is_none());
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(let_in > 200, "{let_in}");
    for (template, ..) in TABLE {
        let known = RESOURCES.iter().any(|one| one.template == *template);
        assert!(known, "{template} is in the table, and nowhere else");
    }
}

const METHODS: &[Method] = &[
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
];

/// What a request there must say to be understood: query and body.
fn arguments(template: &str, method: &Method) -> (&'static str, &'static str) {
    let row = TABLE.iter().find(|(one, asked, ..)| {
        *one == template
            && (*asked == method.as_str() || *method == Method::HEAD && *asked == "GET")
    });
    let (.., more) = row.expect("it is in the table");
    match more.starts_with('?') {
        true => (more, ""),
        false => ("", more),
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
        let client = match user {
            "" => admin.clone().anonymous(),
            user => admin.clone().with_basic(user, "x"),
        };
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
    let reader = admin.clone().with_basic("reader", "x");
    let before = looks();
    let path = |name: &str| format!("/api/v1/repositories/{name}");
    reader.get(&path(secret)).send().await.expect_status(200);
    assert!(looks() > before);
    reader.get(&path(nothing)).send().await.expect_status(404);
}
