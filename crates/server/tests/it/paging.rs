//! Lists of the management API, page by page: each entry once, and no cursor but the list's own.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Value, json};
use wharf_oci::percent::encode_query;
use wharf_testkit::{Client, Image, TestOptions, TestServer, Version};

use crate::api_support::{A_PROVIDER, add_job, begin_session, get, problem};

/// A list, and the fields in which its entries differ.
const LISTS: &[(&str, &[&str])] = &[
    ("/api/v1/bindings", &["who", "role", "on"]),
    ("/api/v1/bindings?on=team", &["who", "role", "on"]),
    ("/api/v1/robots", &["name"]),
    ("/api/v1/robots?namespace=team", &["name"]),
    ("/api/v1/invitations", &["id"]),
    ("/api/v1/groups", &["name"]),
    ("/api/v1/namespaces", &["name"]),
    ("/api/v1/roles", &["name"]),
    ("/api/v1/users", &["name"]),
    ("/api/v1/users/u1/tokens", &["id"]),
    ("/api/v1/users/u1/accounts", &["provider", "subject"]),
    ("/api/v1/users/u1/sessions", &["id"]),
    ("/api/v1/jobs", &["id"]),
    ("/api/v1/workload/issuers", &["name"]),
    ("/api/v1/workload/rules", &["name"]),
    ("/api/v1/repositories", &["name"]),
    ("/api/v1/repositories/team/app/-/tags", &["name"]),
    (
        "/api/v1/repositories/team/app/-/tags/t1/history",
        &["version"],
    ),
    ("/api/v1/audit?order=oldest", &["seq"]),
];

/// So many of everything.
const EACH: usize = 5;

async fn send(client: &Client, method: Method, path: &str, body: Value) {
    let mut request = client.request(method, path);
    if !body.is_null() {
        request = request.header("content-type", "application/json");
        request = request.body(body.to_string());
    }
    let answer = request.send().await;
    assert!(answer.status.is_success(), "{path}: {answer}");
}

async fn furnish(server: &TestServer, admin: &Client) {
    let image = Image::random();
    let password = "a looking glass";
    for n in 0..EACH {
        let (post, put) = (Method::POST, Method::PUT);
        let user = json!({"name": format!("u{n}"), "password": password});
        send(admin, post.clone(), "/api/v1/users", user).await;
        let robot = json!({"name": format!("team+r{n}")});
        send(admin, post.clone(), "/api/v1/robots", robot).await;
        let invitation = json!({"name": format!("i{n}")});
        send(admin, post.clone(), "/api/v1/invitations", invitation).await;
        send(
            admin,
            put.clone(),
            &format!("/api/v1/groups/g{n}"),
            Value::Null,
        )
        .await;
        let role = json!({"permissions": ["pull"]});
        send(admin, put.clone(), &format!("/api/v1/roles/r{n}"), role).await;
        let open = json!({"visibility": "private"});
        send(
            admin,
            put.clone(),
            &format!("/api/v1/namespaces/n{n}"),
            open,
        )
        .await;
        let grant = json!({"who": format!("u{n}"), "role": "reader", "on": "team"});
        send(admin, post.clone(), "/api/v1/bindings", grant).await;
        let issuer = json!({"kind": "oidc", "issuer": format!("https://ci{n}.example")});
        send(
            admin,
            put.clone(),
            &format!("/api/v1/workload/issuers/i{n}"),
            issuer,
        )
        .await;
        let rule = json!({"issuer": "i0", "conditions": [{"claim": "sub", "in": ["a"]}]});
        send(admin, put, &format!("/api/v1/workload/rules/r{n}"), rule).await;
        admin
            .push_image(&format!("other/app{n}"), "t", &image)
            .await;
        admin.push_image("team/app", &format!("t{n}"), &image).await;
        admin.push_image("team/app", "t1", &Image::random()).await;
        let user = admin.clone().with_basic("u1", password);
        if n > 0 {
            let token = json!({"name": format!("token {n}")});
            send(&user, post, "/api/v1/users/u1/tokens", token).await;
        } else {
            continue;
        }
    }
    for n in 0..EACH {
        let account = json!({"provider": "corp", "subject": format!("subject {n}")});
        let path = "/api/v1/users/u1/accounts";
        send(admin, Method::POST, path, account).await;
        begin_session(server, "u1").await;
        add_job(server).await;
    }
    let user = admin.clone().with_basic("u1", password);
    let token = json!({"name": "the last"});
    send(&user, Method::POST, "/api/v1/users/u1/tokens", token).await;
}

fn with(path: &str, more: &str) -> String {
    match path.contains('?') {
        true => format!("{path}&{more}"),
        false => format!("{path}?{more}"),
    }
}

#[tokio::test]
async fn every_list_shows_each_entry_once_page_by_page_and_takes_no_cursor_but_its_own() {
    let server = TestServer::start(TestOptions {
        config: A_PROVIDER.into(),
        ..TestOptions::default()
    })
    .await;
    let admin = server.admin(Version::Http1);
    furnish(&server, &admin).await;
    wharf_core::audit::seal(&server.app().registry)
        .await
        .expect("sealed");
    let mut foreign: Vec<(&str, String)> = Vec::new();
    for (path, fields) in LISTS {
        let key = |one: &Value| -> String {
            let parts = fields.iter().map(|field| one[field].to_string());
            parts.collect::<Vec<_>>().join(" ")
        };
        let whole = get(&admin, &with(path, "n=1000")).await;
        let whole: Vec<String> = whole["items"]
            .as_array()
            .expect(path)
            .iter()
            .map(key)
            .collect();
        assert!(whole.len() >= EACH, "{path}: {whole:?}");
        let (mut seen, mut after, mut pages) = (Vec::new(), String::new(), 0);
        let mut last = String::new();
        while pages < 200 {
            let page = get(&admin, &with(path, &format!("n=2{after}"))).await;
            let items = page["items"].as_array().expect(path);
            assert!(items.len() <= 2, "{path}: {page}");
            seen.extend(items.iter().map(key));
            pages += 1;
            let Some(next) = page["next"].as_str() else {
                break;
            };
            after = format!("&after={}", encode_query(next));
            last = next.to_owned();
        }
        assert!(pages >= 3, "{path}");
        // The record goes on while it is read, and is in the order of time: what took a moment to be noted comes in between.
        seen.retain(|one| whole.contains(one));
        assert_eq!(seen, whole, "{path}");
        let once: BTreeSet<&String> = seen.iter().collect();
        assert_eq!(once.len(), seen.len(), "{path}: {seen:?}");
        for bad in ["no cursor!", "AA", "", &last[..last.len() / 2]] {
            let path = with(path, &format!("n=2&after={}", encode_query(bad)));
            let told = problem(admin.get(&path).send().await, 400, "invalid");
            assert_eq!(told["field"], "after", "{path}: {told}");
            assert!(
                told["detail"].as_str().unwrap().contains("`next`"),
                "{told}"
            );
        }
        problem(admin.get(&with(path, "n=0")).send().await, 400, "invalid");
        problem(
            admin.get(&with(path, "n=many")).send().await,
            400,
            "invalid",
        );
        let name = path.split('?').next().unwrap();
        for (other, cursor) in &foreign {
            if *other == name {
                continue;
            }
            let path = with(path, &format!("after={}", encode_query(cursor)));
            let told = problem(admin.get(&path).send().await, 400, "invalid");
            assert!(
                told["detail"].as_str().unwrap().contains("of another list"),
                "{told}"
            );
        }
        foreign.push((name, last));
    }
}

/// Both kinds of entries of a repository's history, over pages, each once; and by the commands, which go on by themselves.
#[tokio::test]
async fn a_history_is_read_to_its_end_page_by_page() {
    let server = TestServer::start(TestOptions {
        htpasswd: vec![("vera", "v")],
        htpasswd_role: Some("none"),
        ..TestOptions::default()
    })
    .await;
    let admin = server.admin(Version::Http1);
    let path = "/api/v1/repositories/team/app/-/history";
    for n in 0..6 {
        let image = Image::random();
        admin.push_image("team/app", &format!("v{n}"), &image).await;
        let manifest = format!("/v2/team/app/manifests/{}", image.manifest.digest);
        if n % 2 == 0 {
            admin.delete(&manifest).send().await.expect_status(202);
        }
    }
    let read = async |client: &Client| {
        let (mut moves, mut deleted, mut after, mut pages) =
            (Vec::new(), Vec::new(), String::new(), 0);
        loop {
            let page = get(client, &format!("{path}?n=2{after}")).await;
            for (all, field) in [(&mut moves, "moves"), (&mut deleted, "deleted")] {
                let items = page[field].as_array().expect(field);
                assert!(items.len() <= 2, "{page}");
                all.extend(items.iter().cloned());
            }
            pages += 1;
            match page["next"].as_str() {
                Some(next) => after = format!("&after={}", encode_query(next)),
                None => return (moves, deleted, pages),
            }
        }
    };
    let (moves, deleted, pages) = read(&admin).await;
    // Six made, three gone.
    assert_eq!((moves.len(), deleted.len()), (9, 3));
    assert!(pages >= 5, "{pages}");
    let whole = get(&admin, path).await;
    assert_eq!(
        (&whole["moves"], &whole["deleted"]),
        (&json!(moves), &json!(deleted))
    );
    assert!(whole.get("next").is_none(), "{whole}");
    for bad in [
        "no cursor!",
        "aGlzdG9yeQp4LHk",
        "aGlzdG9yeQp4LHkKMDAwMDAwMDA",
    ] {
        let path = format!("{path}?after={}", encode_query(bad));
        let told = problem(admin.get(&path).send().await, 400, "invalid");
        assert_eq!(told["field"], "after", "{told}");
    }
    // Whoever reads some tags sees theirs.
    let grant = json!({"who": "vera", "role": "reader", "on": "team", "tags": "v0"});
    send(&admin, Method::POST, "/api/v1/bindings", grant).await;
    let vera = admin.clone().with_basic("vera", "v");
    let (own, _, _) = read(&vera).await;
    assert_eq!(own.len(), 2, "{own:?}");
    assert!(own.iter().all(|one| one["tag"] == "v0"), "{own:?}");
}
