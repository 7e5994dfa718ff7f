//! Users, robots and API tokens through the management API: what is made works at once, who may make it, and that no secret is
//! shown twice.

use http::Method;
use serde_json::{Value, json};
use wharf_testkit::client::Response;
use wharf_testkit::{Client, Image, TestServer, Version};

use crate::api_support::{get, names, problem, start};

async fn send(client: &Client, method: Method, path: &str, body: Value) -> Response {
    let request = client.request(method, path);
    let request = request.header("content-type", "application/json");
    request.body(body.to_string()).send().await
}

async fn post(client: &Client, path: &str, body: Value) -> Response {
    send(client, Method::POST, path, body).await
}

async fn status(client: &Client, path: &str) -> u16 {
    client.get(path).send().await.status.as_u16()
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// A local user with a random password, who can sign in.
async fn user(server: &TestServer, name: &str) -> Client {
    let admin = server.admin(Version::Http1);
    let made = post(&admin, "/api/v1/users", json!({ "name": name })).await;
    let made = made.expect_status(201).json();
    admin.with_basic(name, &text(&made["password"]))
}

async fn grant(server: &TestServer, who: &str, role: &str, on: &str) {
    let body = json!({ "who": who, "role": role, "on": on });
    let admin = server.admin(Version::Http1);
    post(&admin, "/api/v1/bindings", body)
        .await
        .expect_status(200);
}

#[tokio::test]
async fn users_are_made_changed_and_removed() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    let alice = user(&server, "alice").await;
    assert_eq!(get(&alice, "/api/v1/me").await["source"], "local");
    assert_eq!(
        names(&get(&admin, "/api/v1/users").await),
        ["admin", "alice"]
    );
    let page = get(&admin, "/api/v1/users?n=1").await;
    let next = text(&page["next"]);
    let rest = get(&admin, &format!("/api/v1/users?n=1&after={next}")).await;
    assert_eq!(
        (names(&page), names(&rest)),
        (vec!["admin".into()], vec!["alice".into()])
    );
    let taken = post(&admin, "/api/v1/users", json!({"name": "alice"})).await;
    problem(taken, 409, "conflict");
    let weak = post(
        &admin,
        "/api/v1/users",
        json!({"name": "bob", "password": "Password1"}),
    )
    .await;
    assert_eq!(problem(weak, 400, "invalid")["field"], "password");
    let robot = post(&admin, "/api/v1/users", json!({"name": "team+ci"})).await;
    problem(robot, 400, "invalid");

    // Nobody changes what somebody else has changed meanwhile.
    let path = "/api/v1/users/alice";
    let shown = alice.get(path).send().await.expect_status(200);
    let etag = shown.expect_header("etag").to_owned();
    let same = admin.get(path).header("if-none-match", &etag).send().await;
    same.expect_status(304);
    let patch = async |etag: &str, disabled: bool| {
        let request = admin.request(Method::PATCH, path).header("if-match", etag);
        let request = request.header("content-type", "application/json");
        let body = json!({ "disabled": disabled }).to_string();
        request.body(body).send().await
    };
    patch(&etag, true).await.expect_status(204);
    assert_eq!(status(&alice, "/api/v1/me").await, 401);
    problem(patch(&etag, false).await, 412, "changed");
    let gone = admin.delete(path).header("if-match", &etag).send().await;
    problem(gone, 412, "changed");
    patch("*", false).await.expect_status(204);
    assert_eq!(status(&alice, "/api/v1/me").await, 200);

    // The last administrator stays.
    let last = send(
        &admin,
        Method::PATCH,
        "/api/v1/users/admin",
        json!({"disabled": true}),
    )
    .await;
    assert!(text(&problem(last, 409, "conflict")["detail"]).contains("last administrator"));
    admin.delete(path).send().await.expect_status(204);
    assert_eq!(status(&alice, "/api/v1/me").await, 401);
    problem(admin.delete(path).send().await, 404, "not-found");
}

#[tokio::test]
async fn one_sets_the_own_password_by_the_old_one_and_by_no_token() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    let alice = user(&server, "alice").await;
    let made = post(
        &alice,
        "/api/v1/users/alice/tokens",
        json!({"name": "laptop"}),
    )
    .await;
    let made = made.expect_status(201).json();
    let token = alice.clone().with_token(&text(&made["secret"]));
    let path = "/api/v1/users/alice/password";
    let new = json!({"password": "the looking glass"});
    let refused = send(&token, Method::PUT, path, new.clone()).await;
    assert!(text(&problem(refused, 403, "forbidden")["detail"]).contains("password itself"));
    let again = post(
        &token,
        "/api/v1/users/alice/tokens",
        json!({"name": "other"}),
    )
    .await;
    problem(again, 403, "forbidden");
    let others = send(
        &alice,
        Method::PUT,
        "/api/v1/users/admin/password",
        new.clone(),
    )
    .await;
    problem(others, 403, "forbidden");

    let set = send(&alice, Method::PUT, path, new)
        .await
        .expect_status(200);
    assert_eq!(
        set.json(),
        json!({"name": "alice"}),
        "a chosen password is not told"
    );
    assert_eq!(status(&alice, "/api/v1/me").await, 401);
    assert_eq!(status(&token, "/api/v1/me").await, 200, "tokens stay");
    let alice = alice.with_basic("alice", "the looking glass");
    assert_eq!(status(&alice, "/api/v1/me").await, 200);
    // An administrator may reset it.
    let reset = send(&admin, Method::PUT, path, json!({}))
        .await
        .expect_status(200);
    let alice = alice.with_basic("alice", &text(&reset.json()["password"]));
    assert_eq!(status(&alice, "/api/v1/me").await, 200);
}

#[tokio::test]
async fn tokens_are_ones_own_and_an_administrator_ends_others() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    let alice = user(&server, "alice").await;
    let bob = user(&server, "bob").await;
    grant(&server, "alice", "writer", "team").await;
    admin.push_image("team/app", "1", &Image::random()).await;
    let path = "/api/v1/users/alice/tokens";
    let body = json!({"name": "laptop", "scopes": ["reader:team"], "lifetime": 3600});
    for other in [&bob, &admin] {
        problem(post(other, path, body.clone()).await, 403, "forbidden");
    }
    let made = post(&alice, path, body).await.expect_status(201).json();
    let (id, secret) = (text(&made["id"]), text(&made["secret"]));
    assert!(secret.starts_with("wharf_token_"), "its form");
    let token = alice.clone().with_basic("alice", &secret);
    assert_eq!(status(&token, "/api/v1/repositories/team/app").await, 200);
    problem(
        token.delete("/api/v1/repositories/team/app").send().await,
        403,
        "forbidden",
    );
    for client in [&alice, &admin] {
        let listed = get(client, path).await;
        let first = &listed["items"][0];
        assert_eq!(
            (&first["id"], &first["name"]),
            (&made["id"], &json!("laptop"))
        );
        assert_eq!(first["scopes"], json!(["pull,catalog:team"]));
        assert!(!listed.to_string().contains(&secret), "shown once");
    }
    // A narrow token sees and ends nothing of its user's, and others are told that there is nothing.
    problem(token.get(path).send().await, 403, "forbidden");
    problem(bob.get(path).send().await, 403, "forbidden");
    let there = format!("/api/v1/credentials/{id}");
    let told = |answer: Response| {
        let mut body = problem(answer, 404, "not-found");
        body["request_id"] = Value::Null;
        body
    };
    for other in [&bob, &token] {
        let hidden = told(other.delete(&there).send().await);
        let absent = told(
            other
                .delete("/api/v1/credentials/0123456789abcdef")
                .send()
                .await,
        );
        assert_eq!(hidden, absent);
    }
    let nobody = admin.clone().anonymous();
    problem(nobody.delete(&there).send().await, 401, "unauthenticated");
    let gone = admin.delete(&there).send().await.expect_status(200);
    assert_eq!(gone.json(), json!({"principal": "alice"}));
    assert_eq!(status(&token, "/api/v1/me").await, 401);

    // Scopes and lives that cannot be.
    for (body, field) in [
        (json!({"name": "x", "scopes": ["flyer"]}), "scopes"),
        (json!({"name": "x", "lifetime": -1}), "lifetime"),
    ] {
        assert_eq!(
            problem(post(&alice, path, body).await, 400, "invalid")["field"],
            field
        );
    }
    let long = post(&alice, path, json!({"name": "x", "lifetime": 400 * 86_400})).await;
    assert!(text(&problem(long, 400, "invalid")["detail"]).contains("longest_lifetime"));
}

#[tokio::test]
async fn an_owner_manages_the_robots_of_its_namespace_and_no_other() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    let alice = user(&server, "alice").await;
    grant(&server, "alice", "owner", "team").await;
    admin.push_image("team/app", "1", &Image::random()).await;
    let body = json!({
        "name": "team+ci", "lifetime": 86_400, "networks": ["127.0.0.0/8", "::1"],
        "bindings": [{"role": "reader"}, {"role": "publisher", "on": "team/app", "tags": "v*"}],
    });
    let made = post(&alice, "/api/v1/robots", body.clone()).await;
    let made = made.expect_status(201).json();
    let first = admin.clone().with_basic("team+ci", &text(&made["secret"]));
    let target = "/api/v1/repositories/team/app";
    assert_eq!(status(&first, target).await, 200);
    problem(post(&alice, "/api/v1/robots", body).await, 409, "conflict");

    let path = "/api/v1/robots/team+ci";
    let shown = get(&alice, path).await;
    assert_eq!(shown["bindings"].as_array().unwrap().len(), 2, "{shown}");
    assert_eq!(shown["networks"], json!(["127.0.0.0/8", "::1/128"]));
    assert_eq!(shown["created_by"], "alice");
    let listed = get(&alice, "/api/v1/robots?namespace=team").await;
    assert_eq!(names(&listed), ["team+ci"]);
    assert!(!listed.to_string().contains("wharf_robot_"), "shown once");
    problem(alice.get("/api/v1/robots").send().await, 403, "forbidden");

    // Two secrets that overlap; a third ends the first.
    let rotate = async || {
        let path = format!("{path}/-/rotate");
        let made = post(&alice, &path, json!({"overlap": 3600})).await;
        let secret = text(&made.expect_status(201).json()["secret"]);
        admin.clone().with_basic("team+ci", &secret)
    };
    let second = rotate().await;
    for robot in [&first, &second] {
        assert_eq!(status(robot, target).await, 200);
    }
    let third = rotate().await;
    let three = [&first, &second, &third].map(|robot| robot.clone());
    let mut seen = Vec::new();
    for robot in &three {
        seen.push(status(robot, target).await);
    }
    assert_eq!(seen, [401, 200, 200]);

    // From elsewhere it is nobody.
    let change = async |body: Value| send(&alice, Method::PATCH, path, body).await;
    change(json!({"networks": ["192.0.2.0/24"]}))
        .await
        .expect_status(204);
    assert_eq!(status(&third, target).await, 401);
    change(json!({"networks": []})).await.expect_status(204);
    assert_eq!(status(&third, target).await, 200);
    change(json!({"disabled": true})).await.expect_status(204);
    assert_eq!(status(&third, target).await, 401);
    change(json!({"disabled": false})).await.expect_status(204);
    assert_eq!(
        problem(change(json!({"networks": ["x"]})).await, 400, "invalid")["field"],
        "networks"
    );

    // Not elsewhere, not beyond the namespace, and not with what the owner lacks; then nothing is left.
    let elsewhere = post(&alice, "/api/v1/robots", json!({"name": "other+ci"})).await;
    problem(elsewhere, 403, "forbidden");
    let beyond = json!({"name": "team+x", "bindings": [{"role": "reader", "on": "other"}]});
    problem(
        post(&alice, "/api/v1/robots", beyond).await,
        403,
        "forbidden",
    );
    let more = json!({"name": "team+x", "bindings": [{"role": "reader"}, {"role": "admin"}]});
    problem(post(&alice, "/api/v1/robots", more).await, 403, "forbidden");
    problem(
        alice.get("/api/v1/robots/team+x").send().await,
        404,
        "not-found",
    );
    let bob = user(&server, "bob").await;
    for robot in ["team+ci", "team+none"] {
        let path = format!("/api/v1/robots/{robot}");
        problem(bob.get(&path).send().await, 403, "forbidden");
        problem(bob.delete(&path).send().await, 403, "forbidden");
    }
    // A robot's secret is ended by whoever manages it.
    let ids = get(&alice, path).await;
    let newest = ids["secrets"].as_array().unwrap().last().unwrap()["id"].clone();
    let there = format!("/api/v1/credentials/{}", text(&newest));
    problem(bob.delete(&there).send().await, 404, "not-found");
    alice.delete(&there).send().await.expect_status(200);
    assert_eq!(status(&third, target).await, 401);
    alice.delete(path).send().await.expect_status(204);
    assert_eq!(status(&second, target).await, 401);
    let left = get(&admin, "/api/v1/bindings?on=team").await.to_string();
    assert!(!left.contains("team+ci"), "{left}");
}
