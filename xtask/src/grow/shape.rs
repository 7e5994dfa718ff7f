//! What a filled store holds: every name, byte and digest follows from a number, so that a client knows them without
//! asking.

use serde_json::json;
use wharf_oci::{Algorithm, Digest, Manifest, ReferrerDescriptor, RepositoryName, Tag};

/// The repository with all manifests and tags.
pub(crate) const MAIN: &str = "grow/main";
/// The artifact type of all referrers but the last.
pub(crate) const COMMON: &str = "application/vnd.wharf.grow.common";
/// That of the last one.
pub(crate) const RARE: &str = "application/vnd.wharf.grow.rare";
/// The media type of everything that is pushed.
pub(crate) const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
/// The content of configs and layers that say nothing.
pub(crate) const EMPTY: &[u8] = b"{}";
/// Bytes of a layer that is a file.
pub(crate) const FILE: usize = 64 << 10;

/// How much a filled store holds.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Shape {
    /// Images in the repository `grow/main`
    #[arg(long, default_value_t = 10_000)]
    pub(crate) manifests: u64,
    /// Tags there, `t0000000` and so on; tag N stands at image N, or N modulo the images
    #[arg(long)]
    pub(crate) tags: Option<u64>,
    /// Further repositories, `many/r0000000` and so on, each with one blob
    #[arg(long, default_value_t = 0)]
    pub(crate) repositories: u64,
    /// Referrers of image 0; the last one has a type of its own
    #[arg(long, default_value_t = 0)]
    pub(crate) referrers: u64,
    /// Blobs of an image, its config among them
    #[arg(long, default_value_t = 5)]
    pub(crate) blobs: u64,
    /// Images whose first layer is a file of 64 KiB; all other blobs are small, and so rows
    #[arg(long, default_value_t = 1_000)]
    pub(crate) files: u64,
}

impl Shape {
    /// So many images and as many tags, five blobs each.
    pub(crate) fn of(manifests: u64) -> Shape {
        Shape {
            manifests,
            tags: None,
            repositories: 0,
            referrers: 0,
            blobs: 5,
            files: 1_000,
        }
    }

    /// How many tags.
    pub(crate) fn tags(&self) -> u64 {
        self.tags.unwrap_or(self.manifests)
    }

    /// The blobs of an image, config first.
    pub(crate) fn blobs_of(&self, image: u64) -> Vec<Vec<u8>> {
        (0..self.blobs.max(1))
            .map(|part| match part {
                0 => format!("{{\"image\":{image}}}").into_bytes(),
                1 if image < self.files => file_layer(image),
                _ => format!("layer {part} of image {image}\n").into_bytes(),
            })
            .collect()
    }

    /// An image over its blobs' digests and sizes.
    pub(crate) fn image(&self, blobs: &[(Digest, usize)]) -> Vec<u8> {
        let layers: Vec<_> = blobs[1..]
            .iter()
            .map(|(digest, size)| {
                json!({
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": digest.as_str(),
                    "size": size,
                })
            })
            .collect();
        let (config, size) = &blobs[0];
        json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config.as_str(),
                "size": size,
            },
            "layers": layers,
        })
        .to_string()
        .into_bytes()
    }

    /// The bytes of an image, made anew.
    pub(crate) fn image_bytes(&self, image: u64) -> Vec<u8> {
        let blobs: Vec<_> = self
            .blobs_of(image)
            .iter()
            .map(|bytes| (sha256(bytes), bytes.len()))
            .collect();
        self.image(&blobs)
    }

    /// The digest of an image.
    pub(crate) fn image_digest(&self, image: u64) -> Digest {
        sha256(&self.image_bytes(image))
    }

    /// A referrer of image 0: its bytes, artifact type, and descriptor as it is listed.
    pub(crate) fn referrer(
        &self,
        number: u64,
        subject: &(Digest, usize),
    ) -> (Vec<u8>, &'static str, String) {
        let kind = if number + 1 == self.referrers {
            RARE
        } else {
            COMMON
        };
        let empty = json!({
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": sha256(EMPTY).as_str(),
            "size": EMPTY.len(),
        });
        let bytes = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "artifactType": kind,
            "config": empty,
            "layers": [empty],
            "subject": { "mediaType": IMAGE, "digest": subject.0.as_str(), "size": subject.1 },
            "annotations": { "org.example.number": number.to_string() },
        })
        .to_string()
        .into_bytes();
        let manifest = Manifest::parse(Some(IMAGE), &bytes, &wharf_oci::Limits::default())
            .expect("the manifest was just made");
        let descriptor =
            ReferrerDescriptor::of(&manifest, sha256(&bytes), bytes.len() as u64).to_json();
        (bytes, kind, descriptor)
    }
}

/// Bytes of a layer that is a file.
fn file_layer(image: u64) -> Vec<u8> {
    let mut bytes = format!("file of image {image}\n").into_bytes();
    bytes.resize(FILE, b'.');
    bytes
}

/// The digest of some bytes.
pub(crate) fn sha256(bytes: &[u8]) -> Digest {
    Digest::of(Algorithm::Sha256, bytes)
}

/// The repository with all manifests and tags.
pub(crate) fn main_repository() -> RepositoryName {
    RepositoryName::parse(MAIN).expect("a name")
}

/// A further repository.
pub(crate) fn repository(number: u64) -> RepositoryName {
    RepositoryName::parse(&format!("many/r{number:07}")).expect("a name")
}

/// A tag of the main repository.
pub(crate) fn tag(number: u64) -> Tag {
    Tag::parse(&format!("t{number:07}")).expect("a tag")
}
