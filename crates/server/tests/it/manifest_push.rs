//! Pushing manifests (end-7).

use bytes::Bytes;
use serde_json::{Value, json};
use wharf_oci::{Algorithm, Digest, media_type};
use wharf_testkit::content::{index, index_about};
use wharf_testkit::{Client, Content, Image, ImageSpec, TestOptions, TestServer};

use crate::support::{both, both_on, manifest, texts};

/// An image whose blobs are in the repository, but not its manifest.
async fn prepared(client: &Client, name: &str) -> Image {
    let image = Image::random();
    for blob in image.blobs() {
        client.push_blob(name, blob).await;
    }
    image
}

/// The image's manifest with some fields replaced; `null` takes one out.
fn changed(content: &Content, fields: Value) -> Content {
    let mut document: Value = serde_json::from_slice(&content.bytes).unwrap();
    for (field, value) in fields.as_object().unwrap() {
        match value {
            Value::Null => drop(document.as_object_mut().unwrap().remove(field)),
            value => document[field] = value.clone(),
        }
    }
    Content::json(Algorithm::Sha256, &content.media_type, &document)
}

/// Spec: MPUT-1, MPUT-2, CS-2, CS-7.
#[tokio::test]
async fn by_tag_and_by_digest() {
    both(async |client, name| {
        let image = prepared(&client, &name).await;
        // Bytes that no serialiser would write.
        let mut odd = b" \n\t".to_vec();
        odd.extend_from_slice(&image.manifest.bytes);
        odd.extend_from_slice(b"\n\n");
        let odd = Content::new(Algorithm::Sha256, media_type::OCI_MANIFEST, odd);
        for (reference, content) in [
            ("v1", &image.manifest),
            (image.manifest.address(), &image.manifest),
            ("odd", &odd),
        ] {
            let pushed = client.push_manifest(&name, reference, content).await;
            assert_eq!(pushed.digest(), content.digest);
            let got = client
                .get(pushed.location())
                .send()
                .await
                .expect_status(200);
            assert_eq!(
                (&got.body, got.header("content-type")),
                (&content.bytes, Some(content.media_type.as_str()))
            );
        }
    })
    .await;
}

/// Spec: MPUT-3.
#[tokio::test]
async fn bytes_must_match_the_digest() {
    both(async |client, name| {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let image = ImageSpec {
                algorithm,
                ..ImageSpec::default()
            }
            .build();
            for blob in image.blobs() {
                client.push_blob(&name, blob).await;
            }
            let mut longer = image.manifest.bytes.to_vec();
            longer.extend_from_slice(b"  ");
            let request = client
                .put_manifest(&name, image.manifest.address(), &image.manifest)
                .body(longer);
            request.send().await.expect_error(400, "DIGEST_INVALID");
            client
                .get(&manifest(&name, &image.manifest.digest))
                .send()
                .await
                .expect_status(404);
        }
        for unknown in [format!("blake3:{}", "0".repeat(64)), "other:abc".into()] {
            let refused = client
                .put_manifest(&name, &unknown, &Image::random().manifest)
                .send()
                .await;
            assert!(
                matches!(
                    refused.error_codes()[0].as_str(),
                    "DIGEST_INVALID" | "UNSUPPORTED"
                ),
                "{refused}"
            );
            refused.expect_status(400);
        }
    })
    .await;
}

/// Spec: MPUT-4, MPUT-5, CS-2.
#[tokio::test]
async fn the_type_is_in_the_header_or_in_the_document() {
    both(async |client, name| {
        let image = prepared(&client, &name).await;
        let silent = changed(&image.manifest, json!({"mediaType": null}));
        let put = |tag: &str, content: &Content| {
            client
                .put(&manifest(&name, tag))
                .body(content.bytes.clone())
        };
        let typed = |tag: &str, content: &Content, kind: &str| {
            put(tag, content).header("content-type", kind)
        };
        for request in [
            typed(
                "a",
                &image.manifest,
                &format!("{}; charset=utf-8", media_type::OCI_MANIFEST),
            ),
            put("b", &image.manifest),
            typed("c", &silent, media_type::OCI_MANIFEST),
            put("d", &silent),
        ] {
            request.send().await.expect_status(201);
        }
        for tag in ["a", "b", "c", "d"] {
            let answer = client.get(&manifest(&name, tag)).send().await;
            assert_eq!(
                answer.header("content-type"),
                Some(media_type::OCI_MANIFEST),
                "{tag}"
            );
        }
        for (content, kind) in [
            (&image.manifest, media_type::OCI_INDEX),
            (&image.manifest, media_type::DOCKER_MANIFEST),
            (&image.manifest, "application/json"),
            (&silent, "nonsense"),
        ] {
            typed("x", content, kind)
                .send()
                .await
                .expect_error(400, "MANIFEST_INVALID");
        }
        put(
            "x",
            &Content::json(Algorithm::Sha256, "", &json!({"schemaVersion": 2})),
        )
        .send()
        .await
        .expect_error(400, "MANIFEST_INVALID");
        client
            .get(&manifest(&name, "x"))
            .send()
            .await
            .expect_status(404);
    })
    .await;
}

/// Spec: MPUT-6, MPUT-7, MPUT-16, IMG-1, IMG-3.
#[tokio::test]
async fn unusual_but_valid_images_are_accepted() {
    both(async |client, name| {
        let image = prepared(&client, &name).await;
        let empty = Content::empty();
        client.push_blob(&name, &empty).await;
        let layer = image.layers[0].descriptor();
        let mut with_data = empty.descriptor();
        with_data["data"] = json!("e30=");
        let mut custom = layer.clone();
        custom["org.example.custom"] = json!({"a": [null]});
        for (tag, fields) in [
            ("custom", json!({"org.example": {"deep": [1, 2, {"x": "y"}]}, "layers": [custom]})),
            ("no-layers", json!({"layers": []})),
            ("empty", json!({"config": empty.descriptor(), "layers": [empty.descriptor()], "artifactType": "a/b"})),
            ("data", json!({"config": with_data, "layers": [with_data], "artifactType": "a/b"})),
            ("repeated", json!({"layers": [layer, layer, layer]})),
            ("types", json!({"artifactType": "made-up", "config": Content { media_type: "x/y".into(), ..image.config.clone() }.descriptor()})),
        ] {
            let content = changed(&image.manifest, fields);
            client.push_manifest(&name, tag, &content).await;
            assert_eq!(client.get(&manifest(&name, tag)).send().await.expect_status(200).body, content.bytes);
        }
    })
    .await;
}

/// Spec: MPUT-10, MPUT-16.
#[tokio::test]
async fn indexes_may_be_empty_nested_and_sparse() {
    both(async |client, name| {
        let image = prepared(&client, &name).await;
        client
            .push_manifest(&name, image.manifest.address(), &image.manifest)
            .await;
        let empty = index([]);
        let inner = index([&image.manifest]);
        let outer = index([&inner, &empty]);
        let sparse = index([&image.manifest, &Image::random().manifest]);
        for (tag, content) in [
            ("empty", &empty),
            ("inner", &inner),
            ("outer", &outer),
            ("sparse", &sparse),
        ] {
            client.push_manifest(&name, tag, content).await;
        }
        let mut unknown_child = image.manifest.descriptor();
        unknown_child["mediaType"] = json!("application/vnd.example.thing");
        client
            .push_manifest(
                &name,
                "child",
                &changed(&empty, json!({"manifests": [unknown_child]})),
            )
            .await;
    })
    .await;
}

/// Spec: MPUT-9, MPUT-10.
#[tokio::test]
async fn children_are_required_where_a_rule_says_so() {
    let config = "[content]\nrequire_children = true\n[[content.override]]\non = \"sparse\"\nrequire_children = false\n\
                  [[content.override]]\non = \"loose\"\nrequire_blobs = false\n";
    let server = TestServer::start(TestOptions {
        config: config.into(),
        ..Default::default()
    })
    .await;
    both_on(&server, async |client, name| {
        let absent = index([&Image::random().manifest]);
        let refused = client.put_manifest(&name, "v1", &absent).send().await;
        refused.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
        client
            .push_manifest(&format!("sparse/{name}"), "v1", &absent)
            .await;
        client
            .push_manifest(&format!("loose/{name}"), "v1", &Image::random().manifest)
            .await;
        client
            .put_manifest(&name, "v1", &Image::random().manifest)
            .send()
            .await
            .expect_error(400, "MANIFEST_BLOB_UNKNOWN");
    })
    .await;
}

/// Spec: MPUT-9, MPUT-10.
#[tokio::test]
async fn every_missing_blob_is_named_once() {
    both(async |client, name| {
        let image = ImageSpec {
            layers: vec![10, 20, 30],
            ..ImageSpec::default()
        }
        .build();
        client.push_blob(&name, &image.layers[1]).await;
        // What another repository holds does not count.
        client
            .push_blob(&format!("{name}-other"), &image.layers[2])
            .await;
        let refused = client
            .put_manifest(&name, "v1", &image.manifest)
            .send()
            .await;
        let refused = refused.expect_error(400, "MANIFEST_BLOB_UNKNOWN");
        assert_eq!(refused.error_codes(), vec!["MANIFEST_BLOB_UNKNOWN"; 3]);
        let text = refused.json()["errors"].to_string();
        for missing in [&image.config, &image.layers[0], &image.layers[2]] {
            assert!(text.contains(missing.address()), "{text}");
        }
        assert!(!text.contains(image.layers[1].address()), "{text}");
        client
            .get(&manifest(&name, "v1"))
            .send()
            .await
            .expect_status(404);
        client.push_image(&name, "v1", &image).await;
    })
    .await;
}

/// Spec: MPUT-16.
///
/// More references than one write may carry, some of them twice: stored in steps, and deleted again.
#[tokio::test]
async fn an_index_of_thousands_of_children() {
    both(async |client, name| {
        let children: Vec<Content> = (0..1_000)
            .map(|number| {
                Content::json(
                    Algorithm::Sha256,
                    media_type::OCI_MANIFEST,
                    &json!({"number": number}),
                )
            })
            .collect();
        let large = index(children.iter().chain(children.iter().take(700)));
        for round in 0..2 {
            client.push_manifest(&name, "large", &large).await;
            let got = client
                .get(&manifest(&name, "large"))
                .send()
                .await
                .expect_status(200);
            assert!(got.body == large.bytes, "round {round}");
            client
                .delete(&manifest(&name, &large.digest))
                .send()
                .await
                .expect_status(202);
            client
                .get(&manifest(&name, &large.digest))
                .send()
                .await
                .expect_status(404);
        }
    })
    .await;
}

/// Spec: MPUT-11, MPUT-16.
#[tokio::test]
async fn the_children_of_a_buildkit_cache_are_blobs() {
    let server = TestServer::start(TestOptions {
        config: "[content]\nrequire_children = true\n".into(),
        ..Default::default()
    })
    .await;
    both_on(&server, async |client, name| {
        let layers = [Content::random(500), Content::random(50_000)];
        let config = Content {
            media_type: media_type::BUILDKIT_CACHE_CONFIG.into(),
            ..Content::random(300)
        };
        let cache = index([&layers[0], &layers[1], &config]);
        client
            .put_manifest(&name, "cache", &cache)
            .send()
            .await
            .expect_error(400, "MANIFEST_BLOB_UNKNOWN");
        for blob in layers.iter().chain([&config]) {
            client.push_blob(&name, blob).await;
        }
        client.push_manifest(&name, "cache", &cache).await;
        let refused = client
            .delete(&format!("/v2/{name}/blobs/{}", layers[1].digest))
            .send()
            .await;
        refused.expect_error(405, "UNSUPPORTED");
    })
    .await;
}

/// Spec: MPUT-12, MPUT-13.
#[tokio::test]
async fn a_subject_need_not_exist() {
    both(async |client, name| {
        let absent = Image::random().manifest;
        let artifact = ImageSpec::artifact("a/b", &absent).build();
        for blob in artifact.blobs() {
            client.push_blob(&name, blob).await;
        }
        for (reference, content) in [
            ("v1", &artifact.manifest),
            ("index", &index_about([], Some(&absent), None)),
        ] {
            let pushed = client.push_manifest(&name, reference, content).await;
            assert_eq!(pushed.header("oci-subject"), Some(absent.address()));
        }
    })
    .await;
}

/// Spec: MPUT-8.
#[tokio::test]
async fn old_and_unknown_manifests() {
    both(async |client, name| {
        let blob = Content::random(30);
        client.push_blob(&name, &blob).await;
        let artifact = json!({"mediaType": media_type::OCI_ARTIFACT, "artifactType": "a/b", "blobs": [blob.descriptor()]});
        let other = json!({"custom": "format", "version": 9});
        for (tag, content) in [
            ("artifact", Content::json(Algorithm::Sha256, media_type::OCI_ARTIFACT, &artifact)),
            ("other", Content::json(Algorithm::Sha256, "application/vnd.example.manifest.v9+json", &other)),
        ] {
            client.push_manifest(&name, tag, &content).await;
            let got = client.get(&manifest(&name, tag)).send().await.expect_status(200);
            assert_eq!((&got.body, got.header("content-type")), (&content.bytes, Some(content.media_type.as_str())));
        }
        let schema1 = json!({"schemaVersion": 1, "name": name, "tag": "x", "fsLayers": [], "history": []});
        for kind in [media_type::DOCKER_SCHEMA1, media_type::DOCKER_SCHEMA1_SIGNED, ""] {
            let content = Content::json(Algorithm::Sha256, kind, &schema1);
            let request = client.put(&manifest(&name, "old")).body(content.bytes.clone());
            let request = if kind.is_empty() { request } else { request.header("content-type", kind) };
            let refused = request.send().await.expect_error(400, "MANIFEST_INVALID");
            assert!(refused.json().to_string().contains("schema 1"), "{refused}");
        }
    })
    .await;
}

/// Spec: MPUT-14.
#[tokio::test]
async fn foreign_layers_may_be_absent() {
    both(async |client, name| {
        for kind in [
            format!("{}+gzip", media_type::OCI_LAYER_NONDISTRIBUTABLE),
            media_type::OCI_LAYER_NONDISTRIBUTABLE.into(),
            media_type::DOCKER_LAYER_FOREIGN_GZIP.into(),
        ] {
            let image = prepared(&client, &name).await;
            let mut foreign = Content {
                media_type: kind,
                ..Content::random(100)
            }
            .descriptor();
            foreign["urls"] = json!(["https://vendor.example/layer"]);
            let content = changed(
                &image.manifest,
                json!({"layers": [foreign, image.layers[0].descriptor()]}),
            );
            client.push_manifest(&name, "windows", &content).await;
        }
    })
    .await;
}

/// Spec: MPUT-15.
#[tokio::test]
async fn four_mib_is_the_limit() {
    both(async |client, name| {
        let image = prepared(&client, &name).await;
        let padded = |size: usize| {
            let mut bytes = image.manifest.bytes.to_vec();
            bytes.resize(size, b' ');
            Content::new(Algorithm::Sha256, media_type::OCI_MANIFEST, bytes)
        };
        client.push_manifest(&name, "large", &padded(4 << 20)).await;
        let too_large = padded((4 << 20) + 1);
        client
            .put_manifest(&name, "v1", &too_large)
            .send()
            .await
            .expect_error(413, "MANIFEST_INVALID");
        let pieces: Vec<_> = too_large
            .bytes
            .chunks(1 << 20)
            .map(Bytes::copy_from_slice)
            .collect();
        let request = client
            .put(&manifest(&name, "v1"))
            .header("content-type", &too_large.media_type)
            .chunked(pieces);
        request.send().await.expect_error(413, "MANIFEST_INVALID");
        client
            .get(&manifest(&name, "v1"))
            .send()
            .await
            .expect_status(404);
    })
    .await;
}

/// Every registry, CVE-2021-41190: an image to one client and an index to another.
///
/// Spec: MPUT-17, IMG-2.
#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused() {
    both(async |client, name| {
        let image = prepared(&client, &name).await;
        let text = String::from_utf8(image.manifest.bytes.to_vec()).unwrap();
        let (config, layer) = (image.config.descriptor(), image.layers[0].descriptor());
        let mut lying = config.clone();
        lying["data"] = json!("e30=");
        let mut negative = layer.clone();
        negative["size"] = json!(-1);
        let of = |fields: Value| changed(&image.manifest, fields).bytes;
        for (what, bytes) in [
            ("no JSON", Bytes::from_static(b"{")),
            ("empty", Bytes::new()),
            ("an array", Bytes::from_static(b"[]")),
            (
                "a key twice",
                text.replacen('{', "{\"schemaVersion\":2,", 1).into(),
            ),
            (
                "a key in other letters",
                text.replacen('{', "{\"Layers\":[],", 1).into(),
            ),
            (
                "layers and manifests",
                of(json!({"manifests": [image.manifest.descriptor()]})),
            ),
            ("a lying data field", of(json!({"config": lying}))),
            ("a negative size", of(json!({"layers": [negative]}))),
            ("no config", of(json!({"config": null}))),
            ("no layers", of(json!({"layers": null}))),
            (
                "deep nesting",
                format!("{{\"x\":{}{}}}", "[".repeat(1000), "]".repeat(1000)).into(),
            ),
            (
                "a JSON bomb",
                format!("{{\"x\":{}", "[".repeat(1 << 20)).into(),
            ),
            ("trailing text", format!("{text}x").into()),
            ("a wrong version", of(json!({"schemaVersion": 3}))),
        ] {
            let request = client
                .put(&manifest(&name, "v1"))
                .header("content-type", media_type::OCI_MANIFEST)
                .body(bytes);
            let refused = request.send().await;
            assert_eq!(refused.status, 400, "{what}: {refused}");
            refused.expect_error(400, "MANIFEST_INVALID");
        }
        client
            .get(&manifest(&name, "v1"))
            .send()
            .await
            .expect_status(404);
    })
    .await;
}

/// Spec: MPUT-18.
#[tokio::test]
async fn sizes_must_be_true() {
    both(async |client, name| {
        let image = prepared(&client, &name).await;
        client.push_manifest(&name, "v1", &image.manifest).await;
        for (content, field) in [(&image.config, "config"), (&image.layers[0], "layers")] {
            let mut lying = content.descriptor();
            lying["size"] = json!(content.bytes.len() + 1);
            let fields = if field == "config" {
                json!({"config": lying})
            } else {
                json!({"layers": [lying]})
            };
            let refused = client
                .put_manifest(&name, "v2", &changed(&image.manifest, fields))
                .send()
                .await;
            let refused = refused.expect_status(400);
            assert!(
                matches!(
                    refused.error_codes()[0].as_str(),
                    "SIZE_INVALID" | "MANIFEST_INVALID"
                ),
                "{refused}"
            );
        }
        let mut lying = image.manifest.descriptor();
        lying["size"] = json!(1);
        let refused = client
            .put_manifest(
                &name,
                "v2",
                &changed(&index([]), json!({"manifests": [lying]})),
            )
            .send()
            .await;
        refused.expect_status(400);
    })
    .await;
}

/// Spec: MPUT-19.
#[tokio::test]
async fn several_tags_in_one_push() {
    both(async |client, name| {
        let image = prepared(&client, &name).await;
        let tags: Vec<_> = (10..30).map(|at| format!("t{at}")).collect();
        let query: Vec<_> = tags.iter().map(|tag| format!("tag={tag}")).collect();
        let reference = format!("{}?{}", image.manifest.digest, query.join("&"));
        let pushed = client
            .push_manifest(&name, &reference, &image.manifest)
            .await;
        let mut answered: Vec<_> = pushed
            .headers
            .get_all("oci-tag")
            .iter()
            .flat_map(|value| {
                value
                    .to_str()
                    .unwrap()
                    .split(',')
                    .map(|tag| tag.trim().to_owned())
            })
            .collect();
        answered.sort();
        assert_eq!(answered, tags);
        let list = client
            .get(&format!("/v2/{name}/tags/list"))
            .send()
            .await
            .json();
        assert_eq!(texts(&list["tags"]), tags);

        // One bad tag, and nothing is stored.
        let other = changed(&image.manifest, json!({"annotations": {"x": "y"}}));
        let reference = format!("{}?tag=good&tag=.bad", other.digest);
        client
            .put_manifest(&name, &reference, &other)
            .send()
            .await
            .expect_error(400, "TAG_INVALID");
        client
            .get(&manifest(&name, &other.digest))
            .send()
            .await
            .expect_status(404);
        client
            .get(&manifest(&name, "good"))
            .send()
            .await
            .expect_status(404);

        // With a tag in the path, the parameter means nothing.
        let pushed = client
            .push_manifest(&name, "path?tag=ignored", &other)
            .await;
        assert!(pushed.headers.get("oci-tag").is_none());
        client
            .get(&manifest(&name, "path"))
            .send()
            .await
            .expect_status(200);
        client
            .get(&manifest(&name, "ignored"))
            .send()
            .await
            .expect_status(404);

        let many: Vec<_> = (0..1000).map(|at| format!("tag=t{at}")).collect();
        let reference = format!("{}?{}", other.digest, many.join("&"));
        let refused = client.put_manifest(&name, &reference, &other).send().await;
        assert!(matches!(refused.status.as_u16(), 414 | 431), "{refused}");
    })
    .await;
}

/// Spec: MGET-10.
#[tokio::test]
async fn writes_can_be_conditional() {
    both(async |client, name| {
        let (one, two) = (
            prepared(&client, &name).await,
            prepared(&client, &name).await,
        );
        let put = |image: &Image, header: &str, value: &str| {
            let request = client
                .put_manifest(&name, "v1", &image.manifest)
                .header(header, value);
            request.send()
        };
        put(&one, "if-match", &format!("\"{}\"", one.manifest.digest))
            .await
            .expect_status(412);
        put(&one, "if-none-match", "*").await.expect_status(201);
        put(&two, "if-none-match", "*").await.expect_status(412);
        put(&two, "if-match", &format!("\"{}\"", two.manifest.digest))
            .await
            .expect_status(412);
        assert_eq!(
            client.get(&manifest(&name, "v1")).send().await.body,
            one.manifest.bytes
        );
        put(&two, "if-match", &format!("\"{}\"", one.manifest.digest))
            .await
            .expect_status(201);
        assert_eq!(
            client.get(&manifest(&name, "v1")).send().await.body,
            two.manifest.bytes
        );
    })
    .await;
}

/// Spec: MPUT-21, MPUT-1.
#[tokio::test]
async fn the_first_push_makes_the_repository() {
    both(async |client, name| {
        let path = format!("/v2/{name}/tags/list");
        client
            .get(&path)
            .send()
            .await
            .expect_error(404, "NAME_UNKNOWN");
        client.push_manifest(&name, "v1", &index([])).await;
        assert_eq!(
            texts(&client.get(&path).send().await.expect_status(200).json()["tags"]),
            ["v1"]
        );
    })
    .await;
}

/// Spec: MPUT-20.
#[tokio::test]
async fn a_tag_moves_and_the_old_manifest_stays() {
    both(async |client, name| {
        let (one, two) = (
            prepared(&client, &name).await,
            prepared(&client, &name).await,
        );
        for image in [&one, &one, &two, &one, &two] {
            client.push_manifest(&name, "v1", &image.manifest).await;
            assert_eq!(
                client.head(&manifest(&name, "v1")).send().await.digest(),
                image.manifest.digest
            );
        }
        let old = client
            .get(&manifest(&name, &one.manifest.digest))
            .send()
            .await
            .expect_status(200);
        assert_eq!(old.body, one.manifest.bytes);
    })
    .await;
}

/// Spec: MPUT-1, DIG-6.
#[tokio::test]
async fn a_manifest_is_pushed_to_two_repositories() {
    both(async |client, name| {
        let image = prepared(&client, &name).await;
        client.push_manifest(&name, "v1", &image.manifest).await;
        let other = format!("{name}/other");
        client
            .get(&manifest(&other, &image.manifest.digest))
            .send()
            .await
            .expect_status(404);
        client
            .put_manifest(&other, "v1", &image.manifest)
            .send()
            .await
            .expect_error(400, "MANIFEST_BLOB_UNKNOWN");
        client.push_image(&other, "v1", &image).await;
        client
            .delete(&manifest(&name, &image.manifest.digest))
            .send()
            .await
            .expect_status(202);
        client
            .get(&manifest(&other, "v1"))
            .send()
            .await
            .expect_status(200);
        assert_eq!(
            Digest::of(Algorithm::Sha256, &image.manifest.bytes),
            image.manifest.digest
        );
    })
    .await;
}

/// Spec: WARN-1.
#[tokio::test]
async fn formats_of_yesterday_are_accepted_with_a_warning() {
    both(async |client, name| {
        let old =
            json!({"mediaType": media_type::OCI_ARTIFACT, "artifactType": "a/b", "blobs": []});
        let old = Content::json(Algorithm::Sha256, media_type::OCI_ARTIFACT, &old);
        let pushed = client.push_manifest(&name, "old", &old).await;
        let warning = pushed.expect_header("warning");
        assert!(
            warning.starts_with("299 - \"") && warning.ends_with('"') && warning.is_ascii(),
            "{warning}"
        );
        assert!(warning.len() <= 4096);
        let image = prepared(&client, &name).await;
        assert_eq!(
            client
                .push_manifest(&name, "new", &image.manifest)
                .await
                .header("warning"),
            None
        );
    })
    .await;
}
