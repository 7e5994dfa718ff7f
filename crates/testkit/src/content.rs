//! Content to push: blobs with random bytes, images, indexes, artifacts.
//!
//! Every call makes other bytes, so that tests which share a server never meet each other's blobs.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use serde_json::{Map, Value, json};
use wharf_oci::{Algorithm, Digest, media_type};

/// Bytes, their type and their address.
#[derive(Clone, Debug)]
pub struct Content {
    /// The bytes.
    pub bytes: Bytes,
    /// Their media type, for descriptors and, with manifests, for `Content-Type`.
    pub media_type: String,
    /// Their address.
    pub digest: Digest,
}

impl Content {
    /// Given bytes.
    pub fn new(algorithm: Algorithm, media_type: &str, bytes: impl Into<Bytes>) -> Content {
        let bytes = bytes.into();
        Content {
            digest: Digest::of(algorithm, &bytes),
            media_type: media_type.into(),
            bytes,
        }
    }

    /// A JSON document.
    pub fn json(algorithm: Algorithm, media_type: &str, document: &Value) -> Content {
        Content::new(algorithm, media_type, document.to_string())
    }

    /// A layer of so many bytes that nobody else has.
    pub fn random(length: usize) -> Content {
        Content::random_of(Algorithm::Sha256, length)
    }

    /// As [`Content::random`], addressed by the given algorithm.
    pub fn random_of(algorithm: Algorithm, length: usize) -> Content {
        Content::new(algorithm, media_type::OCI_LAYER, random_bytes(length))
    }

    /// The empty descriptor's content, `{}` (specification §3.4).
    pub fn empty() -> Content {
        Content::new(Algorithm::Sha256, media_type::OCI_EMPTY, "{}")
    }

    /// The descriptor that refers to it.
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }

    /// The whole address as text, which is what paths need.
    pub fn address(&self) -> &str {
        self.digest.as_str()
    }
}

/// So many bytes, other ones at each call: splitmix64 over a counter that the process id moves.
pub fn random_bytes(length: usize) -> Bytes {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let seed = NEXT.fetch_add(1, Ordering::Relaxed) ^ u64::from(std::process::id()) << 32;
    seeded_bytes(seed, length)
}

/// The same bytes for the same seed.
pub fn seeded_bytes(seed: u64, length: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x2545_f491_4f6c_dd1d);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

/// A manifest with the blobs that it refers to.
#[derive(Clone, Debug)]
pub struct Image {
    /// The configuration.
    pub config: Content,
    /// The layers, in order.
    pub layers: Vec<Content>,
    /// The manifest.
    pub manifest: Content,
}

impl Image {
    /// A small OCI image with two layers.
    pub fn random() -> Image {
        ImageSpec::default().build()
    }

    /// Config and layers, in the order in which clients push them; a repeated one comes repeatedly.
    pub fn blobs(&self) -> impl Iterator<Item = &Content> {
        self.layers.iter().chain(std::iter::once(&self.config))
    }
}

/// How an image is to be made.
#[derive(Clone, Debug)]
pub struct ImageSpec {
    /// Addresses config, layers and manifest.
    pub algorithm: Algorithm,
    /// Docker's media types instead of OCI's.
    pub docker: bool,
    /// Lengths of the layers; all have random bytes.
    pub layers: Vec<usize>,
    /// Layers of given content, after the random ones.
    pub more_layers: Vec<Content>,
    /// The configuration instead of a made one.
    pub config: Option<Content>,
    /// The manifest that this one is about.
    pub subject: Option<Content>,
    /// The artifact's type.
    pub artifact_type: Option<String>,
    /// Free text by key.
    pub annotations: Vec<(String, String)>,
    /// Other fields of the manifest, which replace those that would be made.
    pub fields: Map<String, Value>,
}

impl Default for ImageSpec {
    fn default() -> Self {
        ImageSpec {
            algorithm: Algorithm::Sha256,
            docker: false,
            layers: vec![3000, 20_000],
            more_layers: Vec::new(),
            config: None,
            subject: None,
            artifact_type: None,
            annotations: Vec::new(),
            fields: Map::new(),
        }
    }
}

impl ImageSpec {
    /// An artifact about `subject`: empty config, one small layer (specification §3.8).
    pub fn artifact(artifact_type: &str, subject: &Content) -> ImageSpec {
        ImageSpec {
            layers: vec![100],
            config: Some(Content::empty()),
            subject: Some(subject.clone()),
            artifact_type: Some(artifact_type.into()),
            ..ImageSpec::default()
        }
    }

    /// Makes it.
    pub fn build(self) -> Image {
        let (manifest_type, config_type, layer_type) = if self.docker {
            (
                media_type::DOCKER_MANIFEST,
                media_type::DOCKER_CONFIG,
                media_type::DOCKER_LAYER_GZIP,
            )
        } else {
            (
                media_type::OCI_MANIFEST,
                media_type::OCI_CONFIG,
                media_type::OCI_LAYER_GZIP,
            )
        };
        let random = |length| Content::new(self.algorithm, layer_type, random_bytes(length));
        let layers: Vec<_> = self
            .layers
            .into_iter()
            .map(random)
            .chain(self.more_layers)
            .collect();
        let config = self.config.unwrap_or_else(|| {
            let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.digest).collect();
            let rootfs = json!({"type": "layers", "diff_ids": diff_ids});
            let config = json!({"architecture": "amd64", "os": "linux", "rootfs": rootfs, "x": unique_name("x")});
            Content::json(self.algorithm, config_type, &config)
        });
        let mut document = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": config.descriptor(),
            "layers": layers.iter().map(Content::descriptor).collect::<Vec<_>>(),
        });
        about(
            &mut document,
            self.subject.as_ref(),
            self.artifact_type.as_deref(),
            &self.annotations,
        );
        let members = document.as_object_mut().expect("made as an object");
        members.extend(self.fields);
        let manifest = Content::json(self.algorithm, manifest_type, &document);
        Image {
            config,
            layers,
            manifest,
        }
    }
}

/// An OCI index of the given manifests, made unique by an annotation.
pub fn index<'a>(children: impl IntoIterator<Item = &'a Content>) -> Content {
    index_about(children, None, None)
}

/// An OCI index with a subject or an artifact type.
pub fn index_about<'a>(
    children: impl IntoIterator<Item = &'a Content>,
    subject: Option<&Content>,
    artifact_type: Option<&str>,
) -> Content {
    let mut document = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": children.into_iter().map(Content::descriptor).collect::<Vec<_>>(),
    });
    about(
        &mut document,
        subject,
        artifact_type,
        &[("unique".into(), unique_name("index"))],
    );
    Content::json(Algorithm::Sha256, media_type::OCI_INDEX, &document)
}

fn about(
    document: &mut Value,
    subject: Option<&Content>,
    artifact_type: Option<&str>,
    annotations: &[(String, String)],
) {
    if let Some(subject) = subject {
        document["subject"] = subject.descriptor();
    }
    if let Some(artifact_type) = artifact_type {
        document["artifactType"] = artifact_type.into();
    }
    if !annotations.is_empty() {
        document["annotations"] = annotations
            .iter()
            .cloned()
            .map(|(k, v)| (k, Value::from(v)))
            .collect::<Map<_, _>>()
            .into();
    }
}

/// A name that nothing else in this process has: `<prefix>-<number>`.
pub fn unique_name(prefix: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}
