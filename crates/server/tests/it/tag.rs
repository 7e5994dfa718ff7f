//! Tag lists (end-8).

use wharf_testkit::{Client, Image};

use crate::support::{both, manifest, texts};

/// One image under all these tags.
async fn tagged(client: &Client, name: &str, tags: &[&str]) -> Image {
    let image = Image::random();
    client.push_image(name, tags[0], &image).await;
    for tag in &tags[1..] {
        client.push_manifest(name, tag, &image.manifest).await;
    }
    image
}

async fn list(client: &Client, target: &str) -> (Vec<String>, Option<String>) {
    let page = client.get(target).send().await.expect_status(200);
    assert_eq!(page.header("content-type"), Some("application/json"));
    let link = page.header("link").map(|link| {
        let target = link
            .strip_prefix('<')
            .and_then(|rest| rest.strip_suffix(">; rel=\"next\""));
        target.unwrap_or_else(|| panic!("{link}")).to_owned()
    });
    (texts(&page.json()["tags"]), link)
}

/// Spec: TAGS-1, TAGS-2, TAGS-7, TAGS-8.
#[tokio::test]
async fn all_tags_in_byte_order() {
    both(async |client, name| {
        let fallback = format!("sha256-{}", "0".repeat(64));
        tagged(
            &client,
            &name,
            &["b", "B", "a", "10", "2", "_x", "a.b", "a-b", &fallback],
        )
        .await;
        let page = client
            .get(&format!("/v2/{name}/tags/list"))
            .send()
            .await
            .expect_status(200);
        assert_eq!(page.json()["name"], name.as_str());
        let expected = [
            "10",
            "2",
            "B",
            "_x",
            "a",
            "a-b",
            "a.b",
            "b",
            fallback.as_str(),
        ];
        assert_eq!(texts(&page.json()["tags"]), expected);
        assert_eq!(page.header("link"), None);
    })
    .await;
}

/// Spec: TAGS-3, TAGS-4, TAGS-5.
#[tokio::test]
async fn page_by_page() {
    both(async |client, name| {
        tagged(&client, &name, &["a", "b", "c", "d", "e"]).await;
        let path = format!("/v2/{name}/tags/list");
        let (tags, link) = list(&client, &format!("{path}?n=2")).await;
        assert_eq!(
            (tags, link.as_deref()),
            (
                vec!["a".into(), "b".into()],
                Some(format!("{path}?n=2&last=b").as_str())
            )
        );
        let mut walked = Vec::new();
        let mut next = Some(format!("{path}?n=2"));
        while let Some(target) = next {
            let (tags, link) = list(&client, &target).await;
            walked.extend(tags);
            next = link;
        }
        assert_eq!(walked, ["a", "b", "c", "d", "e"]);
        for (query, expected, more) in [
            ("n=5", "abcde", false),
            ("n=4", "abcd", true),
            ("n=1000000", "abcde", false),
            ("n=99999999999999999999", "abcde", false),
            ("n=0", "", false),
            ("last=b", "cde", false),
            ("last=bb", "cde", false),
            ("last=e", "", false),
            ("n=1&last=b", "c", true),
            ("n=2&last=c", "de", false),
            ("last=", "abcde", false),
        ] {
            let (tags, link) = list(&client, &format!("{path}?{query}")).await;
            assert_eq!(
                (tags.concat().as_str(), link.is_some()),
                (expected, more),
                "{query}"
            );
        }
        for bad in ["-1", "x", "", "1.5", "%31x"] {
            let refused = client.get(&format!("{path}?n={bad}")).send().await;
            refused.expect_error(400, "PAGINATION_NUMBER_INVALID");
        }
    })
    .await;
}

/// Spec: TAGS-1, TAGS-6.
#[tokio::test]
async fn no_tags_and_no_repository_are_not_the_same() {
    both(async |client, name| {
        let path = format!("/v2/{name}/tags/list");
        client
            .get(&path)
            .send()
            .await
            .expect_error(404, "NAME_UNKNOWN");
        tagged(&client, &name, &["only"]).await;
        client
            .delete(&manifest(&name, "only"))
            .send()
            .await
            .expect_status(202);
        let page = client.get(&path).send().await.expect_status(200);
        assert_eq!(page.json(), serde_json::json!({"name": name, "tags": []}));
    })
    .await;
}

/// Spec: TAG-1.
#[tokio::test]
async fn tags_are_case_sensitive_and_have_a_grammar() {
    both(async |client, name| {
        let lower = tagged(&client, &name, &["tag"]).await;
        let upper = tagged(&client, &name, &["Tag"]).await;
        for (tag, image) in [("tag", &lower), ("Tag", &upper)] {
            let answer = client
                .get(&manifest(&name, tag))
                .send()
                .await
                .expect_status(200);
            assert_eq!(answer.body, image.manifest.bytes);
        }
        let long = "a".repeat(129);
        for bad in [".hidden", "-dash", "a%20b", "%C3%A4", "a+b", &long] {
            let refused = client
                .put_manifest(&name, bad, &lower.manifest)
                .send()
                .await;
            refused.expect_error(400, "TAG_INVALID");
            let refused = client.get(&manifest(&name, bad)).send().await;
            assert!(matches!(refused.status.as_u16(), 400 | 404), "{refused}");
        }
        client
            .push_manifest(&name, &"a".repeat(128), &lower.manifest)
            .await;
    })
    .await;
}
