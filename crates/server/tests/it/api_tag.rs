//! Tags, what was deleted, jobs and status through the management API.

use http::Method;
use serde_json::json;
use wharf_testkit::{Client, Image, Version};

use crate::api_support::{get, names, problem, start};
use crate::support::manifest;

const TAGS: &str = "/api/v1/repositories/team/app/-/tags";

async fn delete(client: &Client, path: &str, if_match: Option<&str>) -> u16 {
    let request = client.delete(path);
    let request = match if_match {
        Some(etag) => request.header("if-match", etag),
        None => request,
    };
    request.send().await.status.as_u16()
}

#[tokio::test]
async fn tags_are_shown_with_where_they_stand() {
    let server = start().await;
    for version in Version::ALL {
        let admin = server.admin(version);
        let (one, two) = (Image::random(), Image::random());
        admin.push_image("team/app", "b", &one).await;
        admin.push_image("team/app", "a", &two).await;
        let page = get(&admin, TAGS).await;
        assert_eq!(names(&page), ["a", "b"]);
        assert_eq!(page["items"][0]["digest"], two.manifest.digest.to_string());
        let first = get(&admin, &format!("{TAGS}?n=1")).await;
        let next = first["next"].as_str().unwrap();
        let second = get(&admin, &format!("{TAGS}?n=1&after={next}")).await;
        assert_eq!(names(&second), ["b"]);
        assert!(second.get("next").is_none());

        let shown = admin
            .get(&format!("{TAGS}/b"))
            .send()
            .await
            .expect_status(200);
        let etag = shown.expect_header("etag").to_owned();
        assert_eq!(etag, format!("\"{}\"", shown.json()["version"]));
        let again = admin
            .get(&format!("{TAGS}/b"))
            .header("if-none-match", &etag);
        assert!(again.send().await.expect_status(304).body.is_empty());
    }
    let admin = server.admin(Version::Http1);
    problem(
        admin.get(&format!("{TAGS}/none")).send().await,
        404,
        "not-found",
    );
    let wrong = admin.get(&format!("{TAGS}/-x")).send().await;
    assert_eq!(problem(wrong, 400, "invalid")["field"], "tag");
}

#[tokio::test]
async fn a_tag_that_moved_meanwhile_is_not_deleted() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    let path = format!("{TAGS}/latest");
    admin
        .push_image("team/app", "latest", &Image::random())
        .await;
    let seen = admin
        .get(&path)
        .send()
        .await
        .expect_header("etag")
        .to_owned();
    let second = Image::random();
    admin.push_image("team/app", "latest", &second).await;

    assert_eq!(delete(&admin, &path, Some(&seen)).await, 412);
    let refused = admin.delete(&path).header("if-match", "\"x\"").send().await;
    assert!(problem(refused, 412, "changed")["cure"].is_string());
    let now = admin
        .get(&path)
        .send()
        .await
        .expect_header("etag")
        .to_owned();
    assert_ne!(now, seen);
    assert_eq!(delete(&admin, &path, Some(&now)).await, 204);
    assert_eq!(delete(&admin, &path, None).await, 404);
    let by_digest = manifest("team/app", &second.manifest.digest);
    admin.get(&by_digest).send().await.expect_status(200);
}

#[tokio::test]
async fn what_was_deleted_is_shown_and_comes_back() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    let maintainer = admin.clone().with_basic("maintainer", "x");
    let images = [Image::random(), Image::random(), Image::random()];
    for image in &images {
        admin.push_image("team/app", "latest", image).await;
    }
    let path = format!("{TAGS}/latest");
    assert_eq!(delete(&maintainer, &path, None).await, 204);

    // Versions go on through a deletion, one page after another.
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(&admin, &format!("{path}/history?n=2{after}")).await;
        for one in page["items"].as_array().unwrap() {
            seen.push((
                one["version"].as_i64().unwrap(),
                one["actor"].as_str().unwrap().to_owned(),
            ));
        }
        let Some(next) = page["next"].as_str() else {
            break;
        };
        after = format!("&after={next}");
    }
    let by = |version, actor: &str| (version, actor.to_owned());
    assert_eq!(
        seen,
        [
            by(4, "maintainer"),
            by(3, "admin"),
            by(2, "admin"),
            by(1, "admin")
        ]
    );

    let restore = format!("{path}/restore");
    let stale = maintainer
        .post(&restore)
        .header("if-match", "\"3\"")
        .body("");
    problem(stale.send().await, 412, "changed");
    let back = maintainer
        .post(&restore)
        .header("if-match", "\"4\"")
        .body("");
    let back = back.send().await.expect_status(200).json();
    assert_eq!(back["digest"], images[2].manifest.digest.to_string());
    problem(
        maintainer.post(&restore).body("").send().await,
        409,
        "conflict",
    );
    let older = maintainer
        .post(&restore)
        .header("content-type", "application/json");
    let older = older
        .body(json!({"version": 1}).to_string())
        .send()
        .await
        .expect_status(200);
    assert_eq!(
        older.json()["digest"],
        images[0].manifest.digest.to_string()
    );

    for (body, kind, field) in [
        ("{\"version\":\"x\"}", "application/json", "version"),
        ("{\"versoin\":1}", "application/json", "versoin"),
        ("{", "application/json", "body"),
        (
            "version=1",
            "application/x-www-form-urlencoded",
            "Content-Type",
        ),
    ] {
        let wrong = maintainer
            .post(&restore)
            .header("content-type", kind)
            .body(body);
        assert_eq!(
            problem(wrong.send().await, 400, "invalid")["field"],
            field,
            "{body}"
        );
    }
    let huge = maintainer
        .post(&restore)
        .header("content-type", "application/json");
    let huge = huge.body(vec![b' '; (1 << 20) + 1]).send().await;
    problem(huge, 413, "too-large");
}

#[tokio::test]
async fn a_repository_is_emptied_and_its_manifests_come_back() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    let images = [Image::random(), Image::random()];
    admin.push_image("team/app", "one", &images[0]).await;
    admin.push_image("team/app", "two", &images[1]).await;
    let path = "/api/v1/repositories/team/app";
    let done = admin.delete(path).send().await.expect_status(200).json();
    assert_eq!(done["manifests"], 2);
    assert!(names(&get(&admin, TAGS).await).is_empty());
    let history = get(&admin, &format!("{path}/-/history")).await;
    assert_eq!(history["deleted"].as_array().unwrap().len(), 2, "{history}");
    let back = format!("{path}/-/manifests/{}/restore", images[0].manifest.digest);
    let back = admin
        .post(&back)
        .body("")
        .send()
        .await
        .expect_status(200)
        .json();
    assert_eq!(back["tags"], json!(["one"]));
    assert_eq!(names(&get(&admin, TAGS).await), ["one"]);
    problem(
        admin.delete("/api/v1/repositories/team/none").send().await,
        404,
        "not-found",
    );
}

/// A browser adds `Sec-Fetch-Site` by itself, and a page cannot change it.
#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    admin
        .push_image("team/app", "latest", &Image::random())
        .await;
    let path = format!("{TAGS}/latest");
    for site in ["cross-site", "same-site"] {
        let forged = admin.delete(&path).header("sec-fetch-site", site);
        problem(forged.send().await, 403, "forbidden");
        let read = admin.get(&path).header("sec-fetch-site", site);
        read.send().await.expect_status(200);
    }
    let own = admin.delete(&path).header("sec-fetch-site", "same-origin");
    own.send().await.expect_status(204);
}

#[tokio::test]
async fn administrators_see_jobs_and_how_the_registry_is() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    admin
        .push_image("team/app", "latest", &Image::random())
        .await;
    let status = get(&admin, "/api/v1/status").await;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(
        (&status["totals"]["repositories"], &status["totals"]["tags"]),
        (&json!(1), &json!(1))
    );
    assert!(
        !status
            .to_string()
            .contains(server.folder().to_str().unwrap()),
        "{status}"
    );

    let mut all = Vec::new();
    let mut after = String::new();
    loop {
        let page = get(&admin, &format!("/api/v1/jobs?n=2{after}")).await;
        all.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else {
            break;
        };
        after = format!("&after={next}");
    }
    assert!(all.iter().any(|job| job["kind"] == "gc.collect"), "{all:?}");
    let schedule = all.iter().find(|job| job["every"].is_i64()).unwrap();
    let id = schedule["id"].as_str().unwrap();
    assert_eq!(
        get(&admin, &format!("/api/v1/jobs/{id}")).await["kind"],
        schedule["kind"]
    );
    let retry = admin
        .post(&format!("/api/v1/jobs/{id}/retry"))
        .body("")
        .send()
        .await;
    problem(retry, 409, "conflict");
    let cancel = admin
        .post(&format!("/api/v1/jobs/{id}/cancel"))
        .body("")
        .send()
        .await;
    cancel.expect_status(204);
    for (id, status, kind) in [
        ("0199a0b0-0000-7000-8000-000000000000", 404, "not-found"),
        ("nonsense", 400, "invalid"),
    ] {
        for (method, act) in [
            (Method::GET, ""),
            (Method::POST, "/cancel"),
            (Method::POST, "/retry"),
        ] {
            let answer = admin
                .request(method, &format!("/api/v1/jobs/{id}{act}"))
                .body("");
            problem(answer.send().await, status, kind);
        }
    }
}

/// To put a tag back is to make or to move it.
#[tokio::test]
async fn whoever_may_delete_only_puts_no_tag_back() {
    let server = start().await;
    let admin = server.admin(Version::Http1);
    let (one, two) = (Image::random(), Image::random());
    for (role, permissions) in [
        ("deleter", vec!["pull", "delete"]),
        ("maker", vec!["pull", "delete", "tag-create"]),
    ] {
        let path = format!("/api/v1/roles/{role}");
        let request = admin.request(Method::PUT, &path);
        let request = request.header("content-type", "application/json");
        let body = json!({ "permissions": permissions }).to_string();
        let made = request.body(body).send().await;
        assert!(made.status.is_success(), "{made}");
    }
    let give = async |who: &str, role: &str| {
        let body = json!({"who": who, "role": role, "on": "team"}).to_string();
        let request = admin.post("/api/v1/bindings");
        let request = request.header("content-type", "application/json");
        request.body(body).send().await.expect_status(200);
    };
    give("stranger", "deleter").await;
    give("guest", "maker").await;
    let deleter = admin.clone().with_basic("stranger", "x");
    let maker = admin.clone().with_basic("guest", "x");
    let restore = async |client: &Client, version: Option<i64>| {
        let request = client.post(&format!("{TAGS}/v1/restore"));
        let request = request.header("content-type", "application/json");
        let body = version.map_or_else(|| json!({}), |version| json!({"version": version}));
        request.body(body.to_string()).send().await
    };
    admin.push_image("team/app", "v1", &one).await;
    admin.push_image("team/app", "v1", &two).await;
    // It stands elsewhere: that would move it.
    for client in [&deleter, &maker] {
        let refused = problem(restore(client, Some(1)).await, 403, "forbidden");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("move"), "{detail}");
    }
    let shown = get(&admin, &format!("{TAGS}/v1")).await;
    assert_eq!(shown["digest"], two.manifest.digest.to_string());
    // It is gone: that would make it.
    assert_eq!(delete(&deleter, &format!("{TAGS}/v1"), None).await, 204);
    problem(restore(&deleter, None).await, 403, "forbidden");
    assert!(names(&get(&admin, TAGS).await).is_empty());
    restore(&maker, None).await.expect_status(200);
    assert_eq!(names(&get(&admin, TAGS).await), ["v1"]);

    // A token for pulling and deleting is no more, whoever has it.
    let maintainer = admin.clone().with_basic("maintainer", "x");
    let token = maintainer.fetch_token(&["repository:team/app:pull,delete"]);
    let token = token.await.expect_status(200).json();
    let narrow = maintainer
        .clone()
        .with_token(token["token"].as_str().unwrap());
    problem(restore(&narrow, Some(1)).await, 401, "unauthenticated");
    restore(&maintainer, Some(1)).await.expect_status(200);

    // With a manifest come those tags only that one may make.
    let path = "/api/v1/repositories/team/app";
    admin.delete(path).send().await.expect_status(200);
    let back = format!("{path}/-/manifests/{}/restore", one.manifest.digest);
    let back = deleter.post(&back).body("").send().await;
    assert_eq!(back.expect_status(200).json()["tags"], json!([]));
    assert!(names(&get(&admin, TAGS).await).is_empty());
}
