//! Referrers (end-12).

use serde_json::{Value, json};
use wharf_oci::{Algorithm, media_type};
use wharf_testkit::content::index_about;
use wharf_testkit::{Client, Content, Image, ImageSpec};

use crate::support::{both, manifest};

const SBOM: &str = "application/spdx+json";
const SIGNATURE: &str = "application/vnd.example.signature";

async fn referrers(client: &Client, name: &str, digest: &str) -> Vec<Value> {
    let list = client
        .get(&format!("/v2/{name}/referrers/{digest}"))
        .send()
        .await
        .expect_status(200);
    assert_eq!(list.header("content-type"), Some(media_type::OCI_INDEX));
    let index = list.json();
    assert_eq!(
        (&index["schemaVersion"], &index["mediaType"]),
        (&json!(2), &json!(media_type::OCI_INDEX))
    );
    index["manifests"].as_array().expect("a list").clone()
}

fn digests(list: &[Value]) -> Vec<String> {
    let mut digests: Vec<_> = list
        .iter()
        .map(|entry| entry["digest"].as_str().expect("a digest").to_owned())
        .collect();
    digests.sort();
    digests
}

fn sorted(contents: &[&Content]) -> Vec<String> {
    let mut digests: Vec<_> = contents
        .iter()
        .map(|content| content.digest.to_string())
        .collect();
    digests.sort();
    digests
}

async fn push(client: &Client, name: &str, image: &Image) {
    client
        .push_image(name, image.manifest.address(), image)
        .await;
}

/// Spec: REF-1, REF-2, REF-12, CS-1.
#[tokio::test]
async fn nothing_is_an_empty_list() {
    both(async |client, name| {
        let zero = format!("sha256:{}", "0".repeat(64));
        assert!(
            referrers(&client, &format!("{name}/never/pushed"), &zero)
                .await
                .is_empty()
        );
        let image = Image::random();
        client.push_image(&name, "v1", &image).await;
        for digest in [zero.as_str(), image.manifest.address(), "blake9:abc"] {
            assert!(referrers(&client, &name, digest).await.is_empty());
        }
    })
    .await;
}

/// Spec: REF-3.
#[tokio::test]
async fn a_malformed_digest_is_refused() {
    both(async |client, name| {
        for bad in ["latest", "sha256:00", "sha256:"] {
            let refused = client
                .get(&format!("/v2/{name}/referrers/{bad}"))
                .send()
                .await;
            refused.expect_error(400, "DIGEST_INVALID");
        }
    })
    .await;
}

/// Spec: REF-4, REF-8, REF-13, MPUT-13, CS-8.
#[tokio::test]
async fn entries_describe_the_referrer() {
    both(async |client, name| {
        let subject = Image::random();
        client.push_image(&name, "v1", &subject).await;
        let annotations = vec![
            ("org.example.a".to_owned(), "ä \"b\"".to_owned()),
            ("empty".into(), String::new()),
        ];
        let artifact = ImageSpec {
            annotations,
            ..ImageSpec::artifact(SBOM, &subject.manifest)
        }
        .build();
        let plain = ImageSpec {
            subject: Some(subject.manifest.clone()),
            ..ImageSpec::default()
        }
        .build();
        let index = index_about([], Some(&subject.manifest), None);
        let typed = index_about([], Some(&subject.manifest), Some(SIGNATURE));
        for image in [&artifact, &plain] {
            for blob in image.blobs() {
                client.push_blob(&name, blob).await;
            }
        }
        for (content, artifact_type) in [
            (&artifact.manifest, Some(SBOM)),
            (&plain.manifest, Some(media_type::OCI_CONFIG)),
            (&index, None),
            (&typed, Some(SIGNATURE)),
        ] {
            let pushed = client
                .push_manifest(&name, content.address(), content)
                .await;
            assert_eq!(
                pushed.header("oci-subject"),
                Some(subject.manifest.address())
            );
            let list = referrers(&client, &name, subject.manifest.address()).await;
            let entry = list
                .iter()
                .find(|entry| entry["digest"] == content.address())
                .expect("the new referrer");
            let document: Value = serde_json::from_slice(&content.bytes).unwrap();
            assert_eq!(entry["mediaType"], content.media_type.as_str());
            assert_eq!(entry["size"], content.bytes.len());
            assert_eq!(
                entry.get("artifactType").and_then(Value::as_str),
                artifact_type
            );
            assert_eq!(entry.get("annotations"), document.get("annotations"));
        }
        let unrelated = client.push_manifest(&name, "v2", &subject.manifest).await;
        assert_eq!(unrelated.header("oci-subject"), None);
    })
    .await;
}

/// Spec: REF-6.
#[tokio::test]
async fn filtered_by_type() {
    both(async |client, name| {
        let subject = Image::random();
        client.push_image(&name, "v1", &subject).await;
        let made: Vec<_> = [SBOM, SBOM, SIGNATURE]
            .map(|kind| ImageSpec::artifact(kind, &subject.manifest).build())
            .into();
        for image in &made {
            push(&client, &name, image).await;
        }
        let encoded = wharf_oci::percent::encode_query(SBOM);
        for (query, expected) in [
            (
                format!("artifactType={encoded}"),
                vec![&made[0].manifest, &made[1].manifest],
            ),
            (format!("artifactType={SIGNATURE}"), vec![&made[2].manifest]),
            (
                format!("artifactType={encoded}&artifactType={SIGNATURE}"),
                made.iter().map(|i| &i.manifest).collect(),
            ),
            ("artifactType=none/such".into(), vec![]),
            // Clients that forget to encode the plus.
            (
                format!("artifactType={SBOM}"),
                vec![&made[0].manifest, &made[1].manifest],
            ),
        ] {
            let target = format!("/v2/{name}/referrers/{}?{query}", subject.manifest.digest);
            let list = client.get(&target).send().await.expect_status(200);
            assert_eq!(
                list.header("oci-filters-applied"),
                Some("artifactType"),
                "{query}"
            );
            assert_eq!(
                digests(list.json()["manifests"].as_array().unwrap()),
                sorted(&expected),
                "{query}"
            );
        }
        let all = client
            .get(&format!("/v2/{name}/referrers/{}", subject.manifest.digest))
            .send()
            .await;
        assert_eq!(all.header("oci-filters-applied"), None);
    })
    .await;
}

/// Spec: REF-5, REF-8, REF-11, MPUT-12.
#[tokio::test]
async fn of_this_repository_tagged_or_not_with_or_without_the_subject() {
    both(async |client, name| {
        let subject = Image::random();
        let (one, two) = (
            ImageSpec::artifact(SBOM, &subject.manifest).build(),
            ImageSpec::artifact(SBOM, &subject.manifest).build(),
        );
        push(&client, &name, &one).await;
        client.push_image(&name, "tagged", &two).await;
        let other = format!("{name}-other");
        push(&client, &other, &one).await;
        let list =
            async |name: &str| digests(&referrers(&client, name, subject.manifest.address()).await);
        assert_eq!(list(&name).await, sorted(&[&one.manifest, &two.manifest]));
        assert_eq!(list(&other).await, sorted(&[&one.manifest]));

        client.push_image(&name, "v1", &subject).await;
        assert_eq!(list(&name).await.len(), 2);
        client
            .delete(&manifest(&name, "tagged"))
            .send()
            .await
            .expect_status(202);
        assert_eq!(list(&name).await.len(), 2);
        client
            .delete(&manifest(&name, &subject.manifest.digest))
            .send()
            .await
            .expect_status(202);
        assert_eq!(list(&name).await.len(), 2);
        client
            .delete(&manifest(&name, &two.manifest.digest))
            .send()
            .await
            .expect_status(202);
        assert_eq!(list(&name).await, sorted(&[&one.manifest]));
        push(&client, &name, &two).await;
        assert_eq!(list(&name).await.len(), 2);
    })
    .await;
}

/// Spec: DIG-6, REF-4.
#[tokio::test]
async fn keyed_by_the_exact_digest_also_of_sha512() {
    both(async |client, name| {
        let subject = ImageSpec {
            algorithm: Algorithm::Sha512,
            ..ImageSpec::default()
        }
        .build();
        client
            .push_image(&name, subject.manifest.address(), &subject)
            .await;
        let artifact = ImageSpec {
            algorithm: Algorithm::Sha512,
            ..ImageSpec::artifact(SBOM, &subject.manifest)
        }
        .build();
        push(&client, &name, &artifact).await;
        let list = referrers(&client, &name, subject.manifest.address()).await;
        assert_eq!(digests(&list), sorted(&[&artifact.manifest]));
        let alias = wharf_oci::Digest::of(Algorithm::Sha256, &subject.manifest.bytes);
        assert!(referrers(&client, &name, alias.as_str()).await.is_empty());
    })
    .await;
}

/// Spec: REF-7.
#[tokio::test]
async fn long_lists_come_in_pages_under_4_mib() {
    both(async |client, name| {
        let subject = Image::random();
        let big = "x".repeat(1 << 20);
        let mut expected = Vec::new();
        for _ in 0..6 {
            let annotations = vec![("big".to_owned(), big.clone())];
            let artifact = ImageSpec {
                annotations,
                ..ImageSpec::artifact(SBOM, &subject.manifest)
            }
            .build();
            push(&client, &name, &artifact).await;
            expected.push(artifact.manifest.digest.to_string());
        }
        expected.sort();
        let (mut seen, mut pages) = (Vec::new(), 0);
        let encoded = wharf_oci::percent::encode_query(SBOM).into_owned();
        let mut next = Some(format!(
            "/v2/{name}/referrers/{}?artifactType={encoded}",
            subject.manifest.digest
        ));
        while let Some(target) = next {
            let page = client.get(&target).send().await.expect_status(200);
            assert!(
                page.body.len() <= 4 << 20,
                "a page of {} bytes",
                page.body.len()
            );
            assert_eq!(page.header("oci-filters-applied"), Some("artifactType"));
            seen.extend(digests(page.json()["manifests"].as_array().unwrap()));
            pages += 1;
            next = page.header("link").map(|link| {
                let target = link
                    .strip_prefix('<')
                    .and_then(|rest| rest.strip_suffix(">; rel=\"next\""));
                target.unwrap_or_else(|| panic!("{link}")).to_owned()
            });
        }
        assert_eq!(seen, expected);
        assert!(pages > 1);
    })
    .await;
}

/// Spec: REF-12.
#[tokio::test]
async fn a_push_token_is_enough() {
    both(async |client, name| {
        let scope = format!("repository:{name}:pull,push");
        let token = client
            .fetch_token(&[&scope])
            .await
            .expect_status(200)
            .json()["token"]
            .as_str()
            .unwrap()
            .to_owned();
        let pusher = client.with_token(&token);
        let subject = Image::random();
        pusher.push_image(&name, "v1", &subject).await;
        assert!(
            referrers(&pusher, &name, subject.manifest.address())
                .await
                .is_empty()
        );
    })
    .await;
}

/// Spec: REF-9, REF-10, TAGS-8.
#[tokio::test]
async fn clients_that_keep_a_fallback_tag_are_in_the_list_too() {
    both(async |client, name| {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let subject = ImageSpec {
                algorithm,
                ..ImageSpec::default()
            }
            .build();
            client
                .push_image(&name, subject.manifest.address(), &subject)
                .await;
            let artifact = ImageSpec::artifact(SBOM, &subject.manifest).build();
            push(&client, &name, &artifact).await;
            let tag = subject.manifest.digest.fallback_tag();
            client
                .push_manifest(&name, &tag, &index_about([&artifact.manifest], None, None))
                .await;
            let list = referrers(&client, &name, subject.manifest.address()).await;
            assert_eq!(digests(&list), sorted(&[&artifact.manifest]));
            let tags = client
                .get(&format!("/v2/{name}/tags/list"))
                .send()
                .await
                .json();
            assert!(tags["tags"].as_array().unwrap().contains(&tag.into()));
        }
    })
    .await;
}
