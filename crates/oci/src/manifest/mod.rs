//! Manifests: images, indexes, artifacts, and documents of types that we do not know (MPUT-4 to MPUT-17).
//!
//! Parsing serves to check a push and to learn what it refers to. The bytes themselves are stored as they came
//! (MPUT-2): nothing here may ever be serialised back.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::descriptor::Descriptor;
use crate::digest::Digest;
use crate::json::{self, null_as_default, present};
use crate::media_type;

/// How much a manifest may hold (MPUT-17). The caller bounds the length in bytes (MPUT-15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Levels of nested objects and arrays.
    pub max_depth: usize,
    /// Entries of `layers`, `manifests` and `blobs` together.
    pub max_descriptors: usize,
}

impl Default for Limits {
    /// Far above what tools write: 32 levels, 16384 descriptors (a model with one layer per file has thousands).
    fn default() -> Self {
        Limits {
            max_depth: 32,
            max_descriptors: 16_384,
        }
    }
}

/// What a manifest is, by its media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Config and layers: OCI image manifest or Docker schema 2.
    Image,
    /// A list of manifests: OCI index or Docker list.
    Index,
    /// The withdrawn OCI artifact manifest.
    Artifact,
    /// Any other type. What it refers to in the usual fields is known, but nothing is demanded of it (MPUT-8).
    Other,
}

/// What a manifest's reference is to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EdgeKind {
    /// The configuration of an image.
    Config,
    /// A layer of an image.
    Layer,
    /// An entry of an index: a manifest, or a blob in BuildKit's caches (MPUT-11).
    Child,
    /// A blob of an artifact manifest.
    Blob,
}

/// One reference of a manifest; the subject is none, since it need not exist (MPUT-12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge<'a> {
    /// What the target is to the manifest.
    pub kind: EdgeKind,
    /// The target.
    pub descriptor: &'a Descriptor,
}

/// A checked manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// What it is.
    pub kind: Kind,
    /// The bare media type under which it is stored and served (MGET-2).
    pub media_type: String,
    /// The artifact's type; never empty.
    pub artifact_type: Option<String>,
    /// The configuration.
    pub config: Option<Descriptor>,
    /// The layers, in order, perhaps one several times (MPUT-16).
    pub layers: Vec<Descriptor>,
    /// The entries of an index.
    pub manifests: Vec<Descriptor>,
    /// The blobs of an artifact manifest.
    pub blobs: Vec<Descriptor>,
    /// The manifest that this one is about.
    pub subject: Option<Descriptor>,
    /// Free text by key.
    pub annotations: BTreeMap<String, String>,
}

/// Why a manifest is refused; all of them are `MANIFEST_INVALID`.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, nested too deeply, a name that is there twice or in the wrong letter case, or a field of the wrong
    /// form; the text says which and where.
    #[error("the manifest is not acceptable JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Schema 1 (MPUT-8).
    #[error(
        "Docker image manifest schema 1 is not supported; push the image again with a current client"
    )]
    Schema1,
    /// Neither `Content-Type` nor `mediaType` nor the fields say what it is (MPUT-5).
    #[error(
        "the manifest's type is unknown: send it as Content-Type, or put `mediaType` into the manifest"
    )]
    NoType,
    /// The type is not `type/subtype`.
    #[error("`{0}` is not a media type")]
    BadType(String),
    /// Header and document disagree (MPUT-5).
    #[error(
        "the manifest says `mediaType` {document}, but was sent with Content-Type {header}; send the same in both"
    )]
    TypeMismatch {
        /// From `Content-Type`.
        header: String,
        /// From the document.
        document: String,
    },
    /// A field that the type demands is missing.
    #[error("a manifest of type {media_type} needs `{field}`")]
    MissingField {
        /// The manifest's type.
        media_type: String,
        /// The field.
        field: &'static str,
    },
    /// A field that belongs to another kind of manifest (MPUT-17).
    #[error(
        "a manifest of type {media_type} cannot have `{field}`: it could be read as two different things"
    )]
    Ambiguous {
        /// The manifest's type.
        media_type: String,
        /// The field.
        field: &'static str,
    },
    /// `schemaVersion` is not 2.
    #[error("`schemaVersion` must be 2")]
    SchemaVersion,
    /// More descriptors than [`Limits::max_descriptors`].
    #[error(
        "the manifest refers to more than {limit} items; split it into several manifests under an index"
    )]
    TooManyDescriptors {
        /// The limit.
        limit: usize,
    },
    /// Embedded content is not what size and digest say.
    #[error("`data` of {digest} does not match its {what}")]
    Data {
        /// The descriptor's digest.
        digest: Digest,
        /// `size` or `digest`.
        what: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    schema_version: Option<u64>,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default, deserialize_with = "present")]
    layers: Option<Vec<Descriptor>>,
    #[serde(default, deserialize_with = "present")]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default, deserialize_with = "present")]
    blobs: Option<Vec<Descriptor>>,
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default, deserialize_with = "null_as_default")]
    annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Checks a manifest as it was pushed. `content_type` is the header's value, parameters and all.
    pub fn parse(
        content_type: Option<&str>,
        bytes: &[u8],
        limits: &Limits,
    ) -> Result<Manifest, ManifestError> {
        let header = content_type.map(media_type::bare).filter(|t| !t.is_empty());
        if header.is_some_and(media_type::is_schema1) {
            return Err(ManifestError::Schema1);
        }
        json::check(bytes, limits.max_depth)?;
        let wire: Wire = serde_json::from_slice(bytes)?;
        let media_type = wire.decide_type(header)?;
        let kind = match media_type.as_str() {
            t if media_type::is_image(t) => Kind::Image,
            t if media_type::is_index(t) => Kind::Index,
            media_type::OCI_ARTIFACT => Kind::Artifact,
            _ => Kind::Other,
        };
        wire.check_shape(kind, &media_type)?;
        let manifest = Manifest {
            kind,
            media_type,
            artifact_type: wire.artifact_type.filter(|t| !t.is_empty()),
            config: wire.config,
            layers: wire.layers.unwrap_or_default(),
            manifests: wire.manifests.unwrap_or_default(),
            blobs: wire.blobs.unwrap_or_default(),
            subject: wire.subject,
            annotations: wire.annotations,
        };
        manifest.check_descriptors(limits)?;
        Ok(manifest)
    }

    /// Everything that the manifest refers to, in document order and with repetitions; not the subject.
    pub fn edges(&self) -> Vec<Edge<'_>> {
        let of = |kind| move |descriptor| Edge { kind, descriptor };
        let config = self.config.iter().map(of(EdgeKind::Config));
        let layers = self.layers.iter().map(of(EdgeKind::Layer));
        let children = self.manifests.iter().map(of(EdgeKind::Child));
        config
            .chain(layers)
            .chain(children)
            .chain(self.blobs.iter().map(of(EdgeKind::Blob)))
            .collect()
    }

    /// The type under which a subject's referrers list this manifest (REF-4): its own artifact type, else an image's
    /// config type, else none.
    pub fn referrer_type(&self) -> Option<&str> {
        let config = || match self.kind {
            Kind::Image => self
                .config
                .as_ref()
                .map(|c| c.media_type.as_str())
                .filter(|t| !t.is_empty()),
            _ => None,
        };
        self.artifact_type.as_deref().or_else(config)
    }

    fn check_descriptors(&self, limits: &Limits) -> Result<(), ManifestError> {
        if self.layers.len() + self.manifests.len() + self.blobs.len() > limits.max_descriptors {
            return Err(ManifestError::TooManyDescriptors {
                limit: limits.max_descriptors,
            });
        }
        self.edges()
            .into_iter()
            .map(|e| e.descriptor)
            .chain(&self.subject)
            .try_for_each(check_data)
    }
}

impl Wire {
    /// MPUT-5: the header and the document must agree; where one is silent the other speaks, and at last the fields.
    fn decide_type(&self, header: Option<&str>) -> Result<String, ManifestError> {
        let document = self.media_type.as_deref().filter(|t| !t.is_empty());
        let decided = match (header, document) {
            (Some(header), Some(document)) if header != document => {
                return Err(ManifestError::TypeMismatch {
                    header: header.into(),
                    document: document.into(),
                });
            }
            (Some(decided), _) | (None, Some(decided)) => decided,
            (None, None) if self.schema_version == Some(1) => return Err(ManifestError::Schema1),
            (None, None) if self.config.is_some() && self.layers.is_some() => {
                media_type::OCI_MANIFEST
            }
            (None, None) if self.manifests.is_some() => media_type::OCI_INDEX,
            (None, None) => return Err(ManifestError::NoType),
        };
        if media_type::is_schema1(decided) {
            return Err(ManifestError::Schema1);
        }
        if !media_type::is_well_formed(decided) {
            return Err(ManifestError::BadType(decided.into()));
        }
        Ok(decided.into())
    }

    /// Demands the fields of the kind and refuses those of other kinds.
    fn check_shape(&self, kind: Kind, media_type: &str) -> Result<(), ManifestError> {
        let fields = [
            ("config", self.config.is_some()),
            ("layers", self.layers.is_some()),
            ("manifests", self.manifests.is_some()),
            ("blobs", self.blobs.is_some()),
        ];
        let (needed, allowed): (&[&str], &[&str]) = match kind {
            Kind::Image => (&["config", "layers"], &["config", "layers"]),
            Kind::Index => (&["manifests"], &["manifests"]),
            Kind::Artifact => (&[], &["blobs"]),
            Kind::Other if self.manifests.is_some() => (&[], &["manifests", "blobs"]),
            Kind::Other => (&[], &["config", "layers", "blobs"]),
        };
        for (field, there) in fields {
            if there && !allowed.contains(&field) {
                return Err(ManifestError::Ambiguous {
                    media_type: media_type.into(),
                    field,
                });
            }
            if !there && needed.contains(&field) {
                return Err(ManifestError::MissingField {
                    media_type: media_type.into(),
                    field,
                });
            }
        }
        if matches!(kind, Kind::Image | Kind::Index) && self.schema_version != Some(2) {
            return Err(ManifestError::SchemaVersion);
        }
        Ok(())
    }
}

/// Embedded content must be what the descriptor says (MPUT-17). An algorithm that we do not compute passes by its size.
fn check_data(descriptor: &Descriptor) -> Result<(), ManifestError> {
    let Some(data) = &descriptor.data else {
        return Ok(());
    };
    let fail = |what| ManifestError::Data {
        digest: descriptor.digest.clone(),
        what,
    };
    if data.len() as u64 != descriptor.size {
        return Err(fail("size"));
    }
    match descriptor.digest.algorithm() {
        Some(algorithm) if Digest::of(algorithm, data) != descriptor.digest => Err(fail("digest")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
