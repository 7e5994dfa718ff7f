//! Rights through the management API: grants, groups, namespaces, roles, and why.

use http::Method;
use serde_json::{Value, json};
use wharf_testkit::client::Response;
use wharf_testkit::{Client, Image, Version};

use crate::api_support::{get, names, problem, start};

async fn send(client: &Client, method: Method, path: &str, body: Value) -> Response {
    let request = client.request(method, path);
    let request = request.header("content-type", "application/json");
    request.body(body.to_string()).send().await
}

async fn grant(client: &Client, who: &str, role: &str, on: &str) -> Response {
    let body = json!({"who": who, "role": role, "on": on});
    send(client, Method::POST, "/api/v1/bindings", body).await
}

async fn status(client: &Client, path: &str) -> u16 {
    client.get(path).send().await.status.as_u16()
}

#[tokio::test]
async fn a_grant_counts_at_the_next_request_and_so_does_its_end() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    let stranger = admin.clone().with_basic("stranger", "x");
    admin.push_image("other/app", "1", &Image::random()).await;
    let path = "/api/v1/repositories/other/app";
    assert_eq!(status(&stranger, path).await, 404);
    let done = grant(&admin, "stranger", "reader", "other")
        .await
        .expect_status(200);
    assert_eq!(done.json()["changed"], true);
    let again = grant(&admin, "stranger", "reader", "other")
        .await
        .expect_status(200);
    assert_eq!(again.json()["changed"], false);
    assert_eq!(status(&stranger, path).await, 200);

    let why = "/api/v1/explain?who=stranger&permission=pull&repository=other/app";
    for client in [&admin, &stranger] {
        let told = get(client, why).await;
        assert_eq!(
            (&told["allowed"], &told["by"]["role"]),
            (&json!(true), &json!("reader")),
            "{told}"
        );
    }
    let own = get(&stranger, "/api/v1/bindings?who=stranger").await;
    let on: Vec<_> = own["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["on"])
        .collect();
    assert!(on.contains(&&json!("other")), "{own}");

    let gone = admin.delete("/api/v1/bindings?who=stranger&role=reader&on=other");
    let gone = gone.send().await.expect_status(200).json();
    assert_eq!(gone[0]["who"], "stranger");
    assert_eq!(status(&stranger, path).await, 404);
    assert_eq!(get(&admin, why).await["allowed"], false);
}

#[tokio::test]
async fn an_owner_gives_what_it_has_and_where_it_has_it() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    grant(&admin, "guest", "owner", "team/a")
        .await
        .expect_status(200);
    let guest = admin.clone().with_basic("guest", "x");
    grant(&guest, "stranger", "writer", "team/a/b")
        .await
        .expect_status(200);
    problem(
        grant(&guest, "stranger", "reader", "team").await,
        403,
        "forbidden",
    );
    problem(
        grant(&guest, "stranger", "reader", "").await,
        403,
        "forbidden",
    );
    problem(
        grant(&guest, "stranger", "admin", "team/a").await,
        403,
        "forbidden",
    );
    let others = guest.get("/api/v1/bindings?on=other").send().await;
    problem(others, 403, "forbidden");
    let others = guest
        .get("/api/v1/explain?who=reader&permission=pull")
        .send()
        .await;
    problem(others, 403, "forbidden");

    // A token that was bought for pulling grants nothing, whoever has it.
    for scope in [
        "repository:team/a:pull",
        "repository:team/a:pull,push,delete",
    ] {
        let token = guest.fetch_token(&[scope]).await.expect_status(200).json();
        let bearer = guest.clone().with_token(token["token"].as_str().unwrap());
        let refused = grant(&bearer, "stranger", "reader", "team/a").await;
        problem(refused, 401, "unauthenticated");
    }
}

#[tokio::test]
async fn groups_roles_and_namespaces_are_made_and_removed() {
    let server = start().await;
    let admin = server.admin(Version::Http2);
    let stranger = admin.clone().with_basic("stranger", "x");
    admin.push_image("other/app", "1", &Image::random()).await;
    let path = "/api/v1/repositories/other/app";
    let put = async |path: &str, body: Value| {
        let path = format!("/api/v1/{path}");
        send(&admin, Method::PUT, &path, body)
            .await
            .expect_status(200)
            .json()["changed"]
            .clone()
    };
    let remove = async |path: &str| {
        let path = format!("/api/v1/{path}");
        admin.delete(&path).send().await.expect_status(200).json()["changed"].clone()
    };

    assert_eq!(put("groups/readers", json!({})).await, true);
    assert_eq!(
        put("groups/readers/members/stranger", json!({})).await,
        true
    );
    assert_eq!(
        put("roles/looker", json!({"permissions": ["pull", "catalog"]})).await,
        true
    );
    grant(&admin, "group:readers", "looker", "other")
        .await
        .expect_status(200);
    assert_eq!(status(&stranger, path).await, 200);
    let groups = get(&admin, "/api/v1/groups").await;
    assert_eq!(groups["items"][0]["members"], json!(["stranger"]));
    let roles = names(&get(&stranger, "/api/v1/roles").await);
    assert!(roles.contains(&"looker".to_owned()) && roles.contains(&"publisher".to_owned()));
    problem(
        admin.delete("/api/v1/roles/looker").send().await,
        409,
        "conflict",
    );
    assert_eq!(remove("groups/readers/members/stranger").await, true);
    assert_eq!(status(&stranger, path).await, 404);

    assert_eq!(
        put("namespaces/other", json!({"visibility": "internal"})).await,
        true
    );
    assert_eq!(status(&stranger, path).await, 200);
    assert_eq!(names(&get(&admin, "/api/v1/namespaces").await), ["other"]);
    assert!(names(&get(&stranger, "/api/v1/namespaces").await).is_empty());
    assert_eq!(remove("namespaces/other").await, true);
    assert_eq!(status(&stranger, path).await, 404);

    for (path, body, field) in [
        (
            "bindings",
            json!({"who": "group:", "role": "reader", "on": ""}),
            "who",
        ),
        (
            "bindings",
            json!({"who": "bob", "role": "reader", "on": "A"}),
            "on",
        ),
        (
            "bindings",
            json!({"who": "bob", "role": "reader", "on": "", "networks": ["x"]}),
            "networks",
        ),
        (
            "bindings",
            json!({"who": "bob", "role": "reader", "on": "", "expires_at": "soon"}),
            "expires_at",
        ),
        ("bindings", json!({"who": "bob", "role": "reader"}), "body"),
    ] {
        let wrong = send(
            &admin,
            Method::POST,
            &format!("/api/v1/{path}"),
            body.clone(),
        )
        .await;
        assert_eq!(problem(wrong, 400, "invalid")["field"], field, "{body}");
    }
}

/// Nobody is told "yes" whose requests get 401.
#[tokio::test]
async fn whoever_is_not_let_in_may_nothing() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    let create = async |path: &str, body: Value| {
        let made = send(&admin, Method::POST, path, body).await;
        made.expect_status(201);
    };
    let robot = json!({
        "name": "team+ci", "networks": ["127.0.0.0/8"], "bindings": [{"role": "reader"}]
    });
    create("/api/v1/robots", robot).await;
    create("/api/v1/users", json!({"name": "dora"})).await;
    for who in ["dora", "team+none", "nobody-at-all"] {
        grant(&admin, who, "reader", "team")
            .await
            .expect_status(200);
    }
    let ask = async |who: &str, from: &str| {
        let who = who.replace('+', "%2B");
        let why = format!("/api/v1/explain?who={who}&permission=pull&repository=team/app{from}");
        let told = get(&admin, &why).await;
        let kind = told["kind"].as_str().unwrap().to_owned();
        (told["allowed"].as_bool().unwrap(), kind)
    };
    let here = "&from=127.0.0.1";
    assert!(ask("team+ci", here).await.0 && ask("dora", "").await.0);
    for (who, from, words) in [
        ("team+ci", "&from=192.0.2.1", "from this address"),
        ("team+ci", "", "from this address"),
        ("team+none", here, "no such robot"),
        ("nobody-at-all", here, "nobody of this name"),
    ] {
        let (allowed, kind) = ask(who, from).await;
        assert!(!allowed && kind.contains(words), "{who}: {kind}");
    }
    for path in ["/api/v1/robots/team+ci", "/api/v1/users/dora"] {
        let out = send(&admin, Method::PATCH, path, json!({"disabled": true})).await;
        out.expect_status(204);
    }
    for who in ["team+ci", "dora"] {
        let (allowed, kind) = ask(who, here).await;
        assert!(!allowed && kind.contains("locked out"), "{who}: {kind}");
    }
    // Nor is somebody who is locked out named as one who could give something.
    grant(&admin, "dora", "owner", "team")
        .await
        .expect_status(200);
    let why = "/api/v1/explain?who=stranger&permission=pull&repository=team/app";
    assert_eq!(
        get(&admin, why).await["grantors"],
        json!(["admin", "owner"])
    );
}
