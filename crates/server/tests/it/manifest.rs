//! Reading manifests (end-3).

use serde_json::json;
use wharf_oci::{Algorithm, Digest, media_type};
use wharf_testkit::content::index;
use wharf_testkit::{Content, Image, ImageSpec};

use crate::support::{both, manifest};

/// Spec: MGET-1, MGET-2, MGET-3, MGET-4, MGET-5, DIG-5, DIG-7, CS-2, LEG-1, LEG-2.
#[tokio::test]
async fn exact_bytes_with_their_headers() {
    both(async |client, name| {
        let oci = Image::random();
        let docker = ImageSpec {
            docker: true,
            ..ImageSpec::default()
        }
        .build();
        let sha512 = ImageSpec {
            algorithm: Algorithm::Sha512,
            ..ImageSpec::default()
        }
        .build();
        client.push_image(&name, "oci", &oci).await;
        client.push_image(&name, "docker", &docker).await;
        client
            .push_image(&name, sha512.manifest.address(), &sha512)
            .await;
        let index = index([&oci.manifest, &docker.manifest]);
        client.push_manifest(&name, "index", &index).await;
        for (reference, content) in [
            ("oci", &oci.manifest),
            (oci.manifest.address(), &oci.manifest),
            ("docker", &docker.manifest),
            (sha512.manifest.address(), &sha512.manifest),
            ("index", &index),
        ] {
            let path = manifest(&name, reference);
            let (get, head) = (
                client.get(&path).send().await,
                client.head(&path).send().await,
            );
            assert_eq!((&get.body, head.body.len()), (&content.bytes, 0));
            for answer in [get, head] {
                let answer = answer.expect_status(200);
                assert_eq!(answer.digest(), content.digest);
                assert_eq!(
                    answer.header("content-type"),
                    Some(content.media_type.as_str())
                );
                assert_eq!(
                    answer.header("content-length"),
                    Some(content.bytes.len().to_string().as_str())
                );
                assert_eq!(
                    answer.header("etag"),
                    Some(format!("\"{}\"", content.digest).as_str())
                );
                assert_eq!(answer.header("content-encoding"), None);
            }
        }
    })
    .await;
}

/// Spec: MGET-6, MGET-5, API-7, TAG-2.
#[tokio::test]
async fn what_is_not_there_is_unknown() {
    both(async |client, name| {
        let zero = format!("sha256:{}", "0".repeat(64));
        for reference in ["latest", &zero] {
            let path = manifest(&format!("{name}/never"), reference);
            let unknown = client.get(&path).send().await.expect_status(404);
            assert!(
                matches!(
                    unknown.error_codes()[0].as_str(),
                    "NAME_UNKNOWN" | "MANIFEST_UNKNOWN"
                ),
                "{unknown}"
            );
        }
        client.push_image(&name, "v1", &Image::random()).await;
        for reference in [
            "latest",
            &zero,
            "blake9:abc",
            &format!("sha512:{}", "0".repeat(128)),
        ] {
            client
                .get(&manifest(&name, reference))
                .send()
                .await
                .expect_error(404, "MANIFEST_UNKNOWN");
            assert!(
                client
                    .head(&manifest(&name, reference))
                    .send()
                    .await
                    .expect_status(404)
                    .body
                    .is_empty()
            );
        }
        for (reference, code) in [
            ("sha256:totallywrong", "DIGEST_INVALID"),
            ("a:b:c", "DIGEST_INVALID"),
        ] {
            client
                .get(&manifest(&name, reference))
                .send()
                .await
                .expect_error(400, code);
        }
    })
    .await;
}

/// Spec: MGET-7, MGET-8.
#[tokio::test]
async fn accept_changes_nothing() {
    both(async |client, name| {
        let image = Image::random();
        client.push_image(&name, "v1", &image).await;
        let index = index([&image.manifest]);
        client.push_manifest(&name, "multi", &index).await;
        for (tag, content) in [("v1", &image.manifest), ("multi", &index)] {
            for accept in [
                vec![],
                vec!["*/*"],
                vec!["text/html"],
                vec![media_type::DOCKER_MANIFEST],
                vec!["application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json;q=0.5, */*"],
                vec![media_type::OCI_MANIFEST, media_type::DOCKER_LIST],
            ] {
                let request = client.get(&manifest(&name, tag));
                let request = accept.iter().fold(request, |request, value| request.header("accept", value));
                let answer = request.send().await.expect_status(200);
                assert_eq!((&answer.body, answer.digest()), (&content.bytes, content.digest.clone()), "{accept:?}");
            }
        }
    })
    .await;
}

/// Spec: MGET-9, MGET-11.
#[tokio::test]
async fn tags_are_revalidated_and_digests_kept() {
    both(async |client, name| {
        let (one, two) = (Image::random(), Image::random());
        client.push_image(&name, "v1", &one).await;
        let path = manifest(&name, "v1");
        let etag = client
            .get(&path)
            .send()
            .await
            .expect_header("etag")
            .to_owned();
        for condition in [etag.as_str(), etag.trim_matches('"')] {
            for request in [client.get(&path), client.head(&path)] {
                let answer = request
                    .header("if-none-match", condition)
                    .send()
                    .await
                    .expect_status(304);
                assert!(answer.body.is_empty());
                assert_eq!(answer.header("etag"), Some(etag.as_str()));
            }
        }
        client.push_image(&name, "v1", &two).await;
        let answer = client
            .get(&path)
            .header("if-none-match", &etag)
            .send()
            .await
            .expect_status(200);
        assert_eq!(answer.body, two.manifest.bytes);
        assert!(answer.expect_header("cache-control").contains("no-cache"));
        let fixed = client
            .get(&manifest(&name, &one.manifest.digest))
            .send()
            .await
            .expect_status(200);
        let cache = fixed.expect_header("cache-control");
        assert!(
            cache.contains("max-age=31536000") && cache.contains("private"),
            "{cache}"
        );
    })
    .await;
}

/// Spec: DIG-6, DIG-7, MPUT-19.
#[tokio::test]
async fn a_tag_may_stand_for_a_sha512_manifest() {
    both(async |client, name| {
        let image = ImageSpec {
            algorithm: Algorithm::Sha512,
            ..ImageSpec::default()
        }
        .build();
        let reference = format!("{}?tag=v1", image.manifest.digest);
        client.push_image(&name, &reference, &image).await;
        let by_tag = client
            .get(&manifest(&name, "v1"))
            .send()
            .await
            .expect_status(200);
        assert_eq!(
            (by_tag.digest(), &by_tag.body),
            (image.manifest.digest.clone(), &image.manifest.bytes)
        );
        // The same bytes under the other algorithm are another address, which nobody pushed.
        let alias = Digest::of(Algorithm::Sha256, &image.manifest.bytes);
        client
            .get(&manifest(&name, &alias))
            .send()
            .await
            .expect_error(404, "MANIFEST_UNKNOWN");
        client.push_manifest(&name, "v1", &image.manifest).await;
        assert_eq!(
            client.head(&manifest(&name, "v1")).send().await.digest(),
            alias
        );
    })
    .await;
}

/// Spec: ART-1, MPUT-7, IMG-3.
#[tokio::test]
async fn artifacts_of_all_kinds_are_stored_alike() {
    let fixtures: [(Option<&str>, &str, &[&str]); 12] = [
        (
            None,
            "application/vnd.cncf.helm.config.v1+json",
            &[
                "application/vnd.cncf.helm.chart.content.v1.tar+gzip",
                "application/vnd.cncf.helm.chart.provenance.v1.prov",
            ],
        ),
        (
            None,
            "application/vnd.wasm.config.v0+json",
            &["application/wasm"],
        ),
        (
            None,
            media_type::OCI_CONFIG,
            &["application/vnd.dev.cosign.simplesigning.v1+json"],
        ),
        (
            Some("application/vnd.dev.sigstore.bundle.v0.3+json"),
            media_type::OCI_EMPTY,
            &["application/vnd.dev.sigstore.bundle.v0.3+json"],
        ),
        (
            Some("application/vnd.cncf.notary.signature"),
            media_type::OCI_EMPTY,
            &["application/jose+json"],
        ),
        (
            Some("application/spdx+json"),
            media_type::OCI_EMPTY,
            &["application/spdx+json"],
        ),
        (
            Some("application/vnd.docker.attestation.manifest.v1+json"),
            media_type::OCI_EMPTY,
            &["application/vnd.in-toto+json"],
        ),
        (
            None,
            "application/vnd.buildkit.cacheconfig.v0",
            &[media_type::OCI_LAYER_GZIP],
        ),
        (
            None,
            "application/vnd.cncf.flux.config.v1+json",
            &["application/vnd.cncf.flux.content.v1.tar+gzip"],
        ),
        (
            Some("application/vnd.cncf.model.manifest.v1+json"),
            "application/vnd.cncf.model.config.v1+json",
            &["application/vnd.cncf.model.weight.v1.raw"],
        ),
        (
            None,
            "application/vnd.sylabs.sif.config.v1+json",
            &["application/vnd.sylabs.sif.layer.v1.sif"],
        ),
        (
            Some("application/vnd.unknown.artifact.v1"),
            media_type::OCI_EMPTY,
            &[media_type::OCI_EMPTY],
        ),
    ];
    both(async |client, name| {
        for (at, (artifact_type, config_type, layer_types)) in fixtures.iter().enumerate() {
            let of = |kind: &str| match kind {
                media_type::OCI_EMPTY => Content::empty(),
                kind => Content {
                    media_type: kind.into(),
                    ..Content::random(200)
                },
            };
            let image = ImageSpec {
                layers: vec![],
                more_layers: layer_types.iter().map(|kind| of(kind)).collect(),
                config: Some(of(config_type)),
                artifact_type: artifact_type.map(str::to_owned),
                ..ImageSpec::default()
            }
            .build();
            let tag = format!("v{at}");
            client.push_image(&name, &tag, &image).await;
            let answer = client
                .get(&manifest(&name, &tag))
                .send()
                .await
                .expect_status(200);
            assert_eq!(answer.body, image.manifest.bytes);
            client
                .delete(&manifest(&name, &image.manifest.digest))
                .send()
                .await
                .expect_status(202);
            client
                .get(&manifest(&name, &tag))
                .send()
                .await
                .expect_error(404, "MANIFEST_UNKNOWN");
        }
        let models = ImageSpec {
            docker: true,
            more_layers: vec![Content {
                media_type: "application/vnd.ollama.image.model".into(),
                ..Content::random(90_000)
            }],
            fields: json!({"custom": [1, {"x": null}]})
                .as_object()
                .unwrap()
                .clone(),
            ..ImageSpec::default()
        }
        .build();
        client.push_image(&name, "ollama", &models).await;
    })
    .await;
}
