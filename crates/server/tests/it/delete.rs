//! Deleting (end-9, end-10).

use wharf_testkit::content::index;
use wharf_testkit::{Client, Content, Image, ImageSpec, TestOptions, TestServer};

use crate::support::{blob, both, both_on, manifest, texts};

async fn deleted(client: &Client, path: &str) {
    let answer = client.delete(path).send().await.expect_status(202);
    assert_eq!(
        (answer.header("content-length"), answer.body.len()),
        (Some("0"), 0)
    );
    for again in [client.head(path), client.get(path), client.delete(path)] {
        again.send().await.expect_status(404);
    }
}

/// Spec: DEL-1, DEL-4, DEL-8.
#[tokio::test]
async fn a_tag_goes_and_the_manifest_stays() {
    both(async |client, name| {
        let image = Image::random();
        client.push_image(&name, "v1", &image).await;
        client.push_manifest(&name, "v2", &image.manifest).await;
        deleted(&client, &manifest(&name, "v1")).await;
        for reference in ["v2", image.manifest.address()] {
            client
                .get(&manifest(&name, reference))
                .send()
                .await
                .expect_status(200);
        }
        client.push_manifest(&name, "v1", &image.manifest).await;
        client
            .get(&manifest(&name, "v1"))
            .send()
            .await
            .expect_status(200);
    })
    .await;
}

/// Spec: DEL-2, DEL-4, DEL-8.
#[tokio::test]
async fn a_manifest_goes_with_all_its_tags() {
    both(async |client, name| {
        let (image, other) = (Image::random(), Image::random());
        client.push_image(&name, "other", &other).await;
        client.push_image(&name, "t0", &image).await;
        // More tags than one operation deletes at once.
        for at in 1..=210 {
            client
                .push_manifest(&name, &format!("t{at}"), &image.manifest)
                .await;
        }
        deleted(&client, &manifest(&name, &image.manifest.digest)).await;
        for tag in ["t0", "t1", "t210"] {
            client
                .head(&manifest(&name, tag))
                .send()
                .await
                .expect_status(404);
        }
        let list = client
            .get(&format!("/v2/{name}/tags/list"))
            .send()
            .await
            .expect_status(200)
            .json();
        assert_eq!(texts(&list["tags"]), ["other"]);
        client.push_manifest(&name, "t0", &image.manifest).await;
        client
            .get(&manifest(&name, "t0"))
            .send()
            .await
            .expect_status(200);
    })
    .await;
}

/// Spec: DEL-3, DEL-4, DEL-8, CS-9.
#[tokio::test]
async fn a_blob_goes_from_this_repository_only() {
    both(async |client, name| {
        let other = format!("{name}-other");
        for size in [0, 100, 100_000] {
            let content = Content::random(size);
            client.push_blob(&name, &content).await;
            client.push_blob(&other, &content).await;
            deleted(&client, &blob(&name, &content.digest)).await;
            let kept = client
                .get(&blob(&other, &content.digest))
                .send()
                .await
                .expect_status(200);
            assert_eq!(kept.body, content.bytes);
            client.push_blob(&name, &content).await;
            let back = client
                .get(&blob(&name, &content.digest))
                .send()
                .await
                .expect_status(200);
            assert_eq!(back.body, content.bytes);
        }
    })
    .await;
}

/// Spec: DEL-5, CS-9.
#[tokio::test]
async fn a_blob_that_a_manifest_needs_is_kept() {
    both(async |client, name| {
        let image = Image::random();
        client.push_image(&name, "v1", &image).await;
        for content in image.blobs() {
            let refused = client
                .delete(&blob(&name, &content.digest))
                .send()
                .await
                .expect_error(405, "UNSUPPORTED");
            assert!(
                refused
                    .json()
                    .to_string()
                    .contains(image.manifest.address()),
                "{refused}"
            );
        }
        deleted(&client, &manifest(&name, &image.manifest.digest)).await;
        for content in image.blobs() {
            deleted(&client, &blob(&name, &content.digest)).await;
        }
    })
    .await;
}

/// Spec: DEL-7.
#[tokio::test]
async fn an_index_and_its_children_go_one_by_one() {
    both(async |client, name| {
        let (one, two) = (Image::random(), Image::random());
        for image in [&one, &two] {
            client
                .push_image(&name, image.manifest.address(), image)
                .await;
        }
        let index = index([&one.manifest, &two.manifest]);
        client.push_manifest(&name, "multi", &index).await;
        deleted(&client, &manifest(&name, &one.manifest.digest)).await;
        client
            .get(&manifest(&name, "multi"))
            .send()
            .await
            .expect_status(200);
        deleted(&client, &manifest(&name, &index.digest)).await;
        client
            .get(&manifest(&name, &two.manifest.digest))
            .send()
            .await
            .expect_status(200);
    })
    .await;
}

/// Spec: DEL-1, DEL-2, DEL-3.
#[tokio::test]
async fn what_is_not_there_cannot_be_deleted() {
    both(async |client, name| {
        let zero = format!("sha256:{}", "0".repeat(64));
        for repository in [name.clone(), format!("{name}-other")] {
            for (path, codes) in [
                (
                    manifest(&repository, "v1"),
                    ["MANIFEST_UNKNOWN", "NAME_UNKNOWN"],
                ),
                (
                    manifest(&repository, &zero),
                    ["MANIFEST_UNKNOWN", "NAME_UNKNOWN"],
                ),
                (blob(&repository, &zero), ["BLOB_UNKNOWN", "NAME_UNKNOWN"]),
            ] {
                let unknown = client.delete(&path).send().await.expect_status(404);
                assert!(
                    codes.contains(&unknown.error_codes()[0].as_str()),
                    "{unknown}"
                );
            }
            client.push_image(&name, "other", &Image::random()).await;
        }
    })
    .await;
}

/// Spec: DEL-5, DEL-7.
#[tokio::test]
async fn everything_in_the_order_of_the_conformance_suite() {
    both(async |client, name| {
        let image = Image::random();
        client.push_image(&name, "v1", &image).await;
        let referrer = ImageSpec::artifact("a/b", &image.manifest).build();
        client
            .push_image(&name, referrer.manifest.address(), &referrer)
            .await;
        deleted(&client, &manifest(&name, "v1")).await;
        for image in [&referrer, &image] {
            deleted(&client, &manifest(&name, &image.manifest.digest)).await;
        }
        for content in image.blobs().chain(referrer.blobs()) {
            deleted(&client, &blob(&name, &content.digest)).await;
        }
    })
    .await;
}

/// Spec: DEL-6, SCOPE-3.
#[tokio::test]
async fn deleting_is_a_right_of_its_own() {
    let server = TestServer::start(TestOptions {
        htpasswd: vec![("alice", "a")],
        ..Default::default()
    })
    .await;
    both_on(&server, async |admin, name| {
        let alice = admin.clone().with_basic("alice", "a");
        let image = Image::random();
        alice.push_image(&name, "v1", &image).await;
        for path in [
            manifest(&name, "v1"),
            manifest(&name, &image.manifest.digest),
            blob(&name, &image.config.digest),
        ] {
            alice.delete(&path).send().await.expect_error(403, "DENIED");
            let refused = alice
                .clone()
                .anonymous()
                .delete(&path)
                .send()
                .await
                .expect_error(401, "UNAUTHORIZED");
            assert_eq!(
                refused.challenge().scope,
                Some(format!("repository:{name}:delete"))
            );
        }
    })
    .await;
}
