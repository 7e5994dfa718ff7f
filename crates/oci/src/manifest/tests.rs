//! Tests of the manifest parser.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::digest::Algorithm;
use crate::media_type::*;

fn descriptor(media_type: &str, content: &str) -> Value {
    let digest = Digest::of(Algorithm::Sha256, content.as_bytes());
    json!({"mediaType": media_type, "digest": digest, "size": content.len()})
}

fn image() -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(OCI_CONFIG, "config"),
        "layers": [descriptor(OCI_LAYER_GZIP, "one"), descriptor(OCI_LAYER_GZIP, "one"), descriptor("x/y", "two")],
    })
}

fn index() -> Value {
    json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [descriptor(OCI_MANIFEST, "child")]})
}

fn with(mut document: Value, field: &str, value: Value) -> Value {
    document[field] = value;
    document
}

fn without(mut document: Value, field: &str) -> Value {
    document.as_object_mut().unwrap().remove(field);
    document
}

fn parse_as(content_type: &str, document: &Value) -> Result<Manifest, ManifestError> {
    let header = Some(content_type).filter(|t| !t.is_empty());
    Manifest::parse(header, document.to_string().as_bytes(), &Limits::default())
}

fn parse(document: &Value) -> Result<Manifest, ManifestError> {
    parse_as("", document)
}

/// Spec: MPUT-16, LEG-1.
#[test]
fn an_image_refers_to_config_and_layers() {
    for media_type in [OCI_MANIFEST, DOCKER_MANIFEST] {
        let manifest =
            parse_as(media_type, &with(image(), "mediaType", json!(media_type))).unwrap();
        assert_eq!(
            (manifest.kind, manifest.media_type.as_str()),
            (Kind::Image, media_type)
        );
        let kinds: Vec<_> = manifest
            .edges()
            .iter()
            .map(|e| (e.kind, e.descriptor.size))
            .collect();
        use EdgeKind::{Config, Layer};
        assert_eq!(kinds, [(Config, 6), (Layer, 3), (Layer, 3), (Layer, 3)]);
    }
    assert!(
        parse(&with(image(), "layers", json!([])))
            .unwrap()
            .layers
            .is_empty()
    );
    assert!(
        parse(&with(image(), "layers", Value::Null))
            .unwrap()
            .layers
            .is_empty()
    );
    let empty = json!({"mediaType": OCI_EMPTY, "digest": Digest::of(Algorithm::Sha256, b"{}"), "size": 2, "data": "e30="});
    let both = with(
        with(image(), "config", empty.clone()),
        "layers",
        json!([empty]),
    );
    assert_eq!(
        parse(&both).unwrap().layers[0].data.as_deref(),
        Some(&b"{}"[..])
    );
}

/// Spec: MPUT-16, LEG-1, ART-3.
#[test]
fn an_index_refers_to_children() {
    for media_type in [OCI_INDEX, DOCKER_LIST] {
        let manifest =
            parse_as(media_type, &with(index(), "mediaType", json!(media_type))).unwrap();
        assert_eq!(
            (manifest.kind, manifest.edges()[0].kind),
            (Kind::Index, EdgeKind::Child)
        );
    }
    assert!(
        parse(&with(index(), "manifests", json!([])))
            .unwrap()
            .edges()
            .is_empty()
    );
    let nested = with(
        descriptor(OCI_INDEX, "x"),
        "platform",
        json!({"os": "unknown", "architecture": "unknown", "os.features": null}),
    );
    let manifest = parse(&with(index(), "manifests", json!([nested]))).unwrap();
    assert_eq!(
        manifest.manifests[0].platform.as_ref().unwrap().os,
        "unknown"
    );
    let half = with(
        descriptor(OCI_MANIFEST, "x"),
        "platform",
        json!({"os": "linux"}),
    );
    assert!(parse(&with(index(), "manifests", json!([half]))).is_err());
}

/// Spec: MPUT-11.
#[test]
fn children_may_be_of_any_type() {
    let children = json!([
        descriptor(OCI_LAYER_GZIP, "layer"),
        descriptor(BUILDKIT_CACHE_CONFIG, "config")
    ]);
    assert_eq!(
        parse(&with(index(), "manifests", children))
            .unwrap()
            .edges()
            .len(),
        2
    );
}

/// Spec: MPUT-4, MPUT-5.
#[test]
fn header_and_document_must_agree() {
    assert_eq!(
        parse_as(&format!("{OCI_MANIFEST}; charset=utf-8"), &image())
            .unwrap()
            .media_type,
        OCI_MANIFEST
    );
    let error = parse_as("application/json", &image()).unwrap_err();
    assert!(
        matches!(error, ManifestError::TypeMismatch { .. }),
        "{error}"
    );
    assert!(matches!(
        parse_as(OCI_INDEX, &image()),
        Err(ManifestError::TypeMismatch { .. })
    ));
}

/// Spec: MPUT-5.
#[test]
fn one_of_header_document_and_fields_says_what_it_is() {
    let silent = without(image(), "mediaType");
    assert_eq!(parse(&image()).unwrap().media_type, OCI_MANIFEST);
    assert_eq!(parse(&silent).unwrap().media_type, OCI_MANIFEST);
    assert_eq!(
        parse_as(DOCKER_MANIFEST, &silent).unwrap().media_type,
        DOCKER_MANIFEST
    );
    assert_eq!(
        parse(&without(index(), "mediaType")).unwrap().media_type,
        OCI_INDEX
    );
    assert!(matches!(
        parse(&json!({"schemaVersion": 2})),
        Err(ManifestError::NoType)
    ));
    assert!(matches!(
        parse_as("nonsense", &silent),
        Err(ManifestError::BadType(_))
    ));
    assert!(matches!(
        parse(&with(image(), "mediaType", json!("a/b\r\nx: y"))),
        Err(ManifestError::BadType(_))
    ));
}

/// Spec: MPUT-6, IMG-1.
#[test]
fn unknown_fields_are_accepted() {
    let config = with(
        descriptor(OCI_CONFIG, "c"),
        "org.example.field",
        json!({"deep": [1, {"Digest": null}]}),
    );
    let document = with(
        with(image(), "config", config),
        "custom",
        json!([1.5, "x", {"a": {"b": []}}]),
    );
    assert!(parse(&document).is_ok());
}

/// Spec: MPUT-7, DIG-4.
#[test]
fn unknown_types_and_algorithms_are_accepted() {
    let blake3 =
        json!({"mediaType": "", "digest": format!("blake3:{}", "0".repeat(64)), "size": 0});
    let document = with(
        with(image(), "artifactType", json!("no type at all")),
        "layers",
        json!([blake3]),
    );
    let manifest = parse(&document).unwrap();
    assert_eq!(manifest.layers[0].digest.algorithm(), None);
    assert_eq!(manifest.referrer_type(), Some("no type at all"));
    assert!(
        parse(&with(
            image(),
            "config",
            descriptor("application/vnd.example+json", "x")
        ))
        .is_ok()
    );
}

/// Spec: MPUT-8.
#[test]
fn artifact_manifests_and_unknown_ones_are_accepted() {
    let artifact = json!({
        "mediaType": OCI_ARTIFACT,
        "artifactType": "a/b",
        "blobs": [descriptor("x/y", "blob")],
        "subject": descriptor(OCI_MANIFEST, "subject"),
    });
    let manifest = parse(&artifact).unwrap();
    assert_eq!(
        (manifest.kind, manifest.edges()[0].kind),
        (Kind::Artifact, EdgeKind::Blob)
    );
    assert!(manifest.subject.is_some());
    assert!(parse(&without(artifact, "blobs")).is_ok());
    let other = parse_as(
        "application/vnd.example.manifest.v9+json",
        &json!({"subject": descriptor("x/y", "s")}),
    )
    .unwrap();
    assert_eq!(
        (other.kind, other.edges().len(), other.referrer_type()),
        (Kind::Other, 0, None)
    );
    assert!(other.subject.is_some());
    assert_eq!(
        parse_as("x/y", &without(image(), "mediaType"))
            .unwrap()
            .edges()
            .len(),
        4
    );
}

/// Spec: MPUT-8.
#[test]
fn schema_1_is_refused() {
    let schema1 = json!({"schemaVersion": 1, "name": "a", "fsLayers": []});
    assert!(matches!(parse(&schema1), Err(ManifestError::Schema1)));
    assert!(matches!(
        parse_as(DOCKER_SCHEMA1_SIGNED, &schema1),
        Err(ManifestError::Schema1)
    ));
    assert!(matches!(
        parse(&with(schema1, "mediaType", json!(DOCKER_SCHEMA1))),
        Err(ManifestError::Schema1)
    ));
}

/// Spec: MPUT-17.
#[test]
fn what_could_be_read_as_two_things_is_refused() {
    let both = with(image(), "manifests", json!([descriptor(OCI_MANIFEST, "x")]));
    for document in [
        both.clone(),
        with(image(), "manifests", Value::Null),
        with(index(), "layers", json!([])),
        with(index(), "config", descriptor("x/y", "c")),
        with(without(both.clone(), "config"), "mediaType", json!("x/y")),
        with(image(), "blobs", json!([])),
        with(index(), "mediaType", json!(OCI_ARTIFACT)),
    ] {
        assert!(
            matches!(parse(&document), Err(ManifestError::Ambiguous { .. })),
            "{document}"
        );
    }
    assert!(matches!(
        parse_as(OCI_INDEX, &without(both, "mediaType")),
        Err(ManifestError::Ambiguous { .. })
    ));
}

/// Spec: LEG-1.
#[test]
fn what_the_type_demands_must_be_there() {
    for (document, field) in [
        (image(), "config"),
        (image(), "layers"),
        (index(), "manifests"),
    ] {
        let error = parse(&without(document, field)).unwrap_err().to_string();
        assert!(error.contains(&format!("needs `{field}`")), "{error}");
    }
    for version in [json!(1), json!(3), Value::Null] {
        assert!(matches!(
            parse(&with(image(), "schemaVersion", version)),
            Err(ManifestError::SchemaVersion)
        ));
    }
}

/// Spec: MPUT-17.
#[test]
fn sizes_are_non_negative_63_bit_integers() {
    let sized = |size: Value| {
        parse(&with(
            image(),
            "config",
            with(descriptor("x/y", "c"), "size", size),
        ))
    };
    assert!(sized(json!(0)).is_ok() && sized(json!(i64::MAX)).is_ok());
    for size in [
        json!(-1),
        json!(1.5),
        json!(2.0),
        json!("3"),
        json!(i64::MAX as u64 + 1),
        Value::Null,
    ] {
        assert!(
            matches!(sized(size.clone()), Err(ManifestError::Json(_))),
            "{size}"
        );
    }
}

/// Spec: MPUT-17.
#[test]
fn embedded_content_must_be_what_it_claims() {
    let embedded = |data: &str| {
        parse(&with(
            image(),
            "subject",
            with(descriptor("x/y", "abc"), "data", json!(data)),
        ))
    };
    assert_eq!(
        embedded("YWJj").unwrap().subject.unwrap().data.unwrap(),
        b"abc"
    );
    assert!(matches!(
        embedded("YWI="),
        Err(ManifestError::Data { what: "size", .. })
    ));
    assert!(matches!(
        embedded("eHl6"),
        Err(ManifestError::Data { what: "digest", .. })
    ));
    assert!(matches!(embedded("YWJj!"), Err(ManifestError::Json(_))));
    assert!(matches!(embedded("YWJ"), Err(ManifestError::Json(_))));
}

/// Spec: MPUT-17.
#[test]
fn the_number_of_descriptors_is_bounded() {
    let limits = Limits {
        max_descriptors: 2,
        ..Limits::default()
    };
    let error = Manifest::parse(None, image().to_string().as_bytes(), &limits).unwrap_err();
    assert!(
        matches!(error, ManifestError::TooManyDescriptors { limit: 2 }),
        "{error}"
    );
    assert!(Manifest::parse(None, index().to_string().as_bytes(), &limits).is_ok());
}

/// Spec: MPUT-17.
#[test]
fn duplicate_names_and_bad_fields_are_refused_with_their_place() {
    let text = image().to_string().replacen(
        "\"schemaVersion\":2",
        "\"schemaVersion\":2,\"schemaVersion\":2",
        1,
    );
    let error = Manifest::parse(None, text.as_bytes(), &Limits::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`schemaVersion` appears twice at line 1 column"),
        "{error}"
    );
    for document in [
        with(image(), "annotations", json!({"a": 1})),
        with(image(), "layers", json!({})),
        with(image(), "layers", json!([null])),
        with(image(), "config", json!({"mediaType": "x/y", "size": 1})),
        with(
            image(),
            "config",
            json!({"mediaType": "x/y", "size": 1, "digest": "sha256:00"}),
        ),
    ] {
        assert!(
            matches!(parse(&document), Err(ManifestError::Json(_))),
            "{document}"
        );
    }
}

/// Spec: REF-4.
#[test]
fn the_referrer_type_is_the_artifact_type_or_an_images_config_type() {
    assert_eq!(parse(&image()).unwrap().referrer_type(), Some(OCI_CONFIG));
    assert_eq!(parse(&index()).unwrap().referrer_type(), None);
    for document in [image(), index()] {
        assert_eq!(
            parse(&with(document, "artifactType", json!("a/b")))
                .unwrap()
                .referrer_type(),
            Some("a/b")
        );
    }
}

/// Any JSON whose names are often ours.
fn documents() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec![
        "schemaVersion",
        "mediaType",
        "config",
        "layers",
        "manifests",
        "blobs",
        "subject",
        "annotations",
        "digest",
        "size",
        "data",
        "platform",
        "Layers",
        "x",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        Just(json!(2)),
        any::<i64>().prop_map(|n| json!(n)),
        prop::sample::select(vec![
            OCI_MANIFEST,
            OCI_INDEX,
            DOCKER_SCHEMA1,
            "e30=",
            "sha256:00",
            ""
        ])
        .prop_map(|t| json!(t)),
        any::<u8>().prop_map(|n| descriptor("x/y", &n.to_string())),
    ];
    let value = leaf.prop_recursive(4, 40, 4, move |inside| {
        prop_oneof![
            prop::collection::vec(inside.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(name.clone(), inside, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().map(|(k, v)| (k.into(), v)).collect())),
        ]
    });
    (value, any::<bool>(), any::<bool>()).prop_map(|(value, merge, list)| match value {
        Value::Object(members) if merge => {
            let mut document = if list { index() } else { image() };
            document.as_object_mut().unwrap().extend(members);
            document
        }
        value => value,
    })
}

proptest! {
    /// Spec: MPUT-17.
    #[test]
    fn any_document_is_read_or_refused(document in documents(), header in prop::option::of(".{0,20}")) {
        if let Ok(manifest) = Manifest::parse(header.as_deref(), document.to_string().as_bytes(), &Limits::default()) {
            prop_assert!(is_well_formed(&manifest.media_type));
            prop_assert!(manifest.manifests.is_empty() || (manifest.layers.is_empty() && manifest.config.is_none()));
            prop_assert!(manifest.edges().iter().all(|e| e.descriptor.size <= i64::MAX as u64));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, cut in 0usize..400, flip in 0usize..400, with in any::<u8>()) {
        prop_assert!(Manifest::parse(None, &bytes, &Limits::default()).is_err());
        let mut text = image().to_string().into_bytes();
        let at = flip % text.len();
        text[at] = with;
        text.truncate(text.len() - cut % text.len());
        let _ = Manifest::parse(None, &text, &Limits::default());
    }
}
