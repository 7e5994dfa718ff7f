//! Descriptors: how manifests refer to content (specification §3.1).

use std::collections::BTreeMap;

use serde::de::{self, Deserialize, Deserializer};

use crate::digest::Digest;
use crate::json::{base64_bytes, null_as_default, size};

/// A reference to content. Unknown fields are ignored here and preserved, since stored bytes are never rewritten (IMG-1).
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is. Any string: a registry does not judge types (MPUT-7).
    pub media_type: String,
    /// Its address; well formed, but perhaps of an algorithm that we do not compute (DIG-4).
    pub digest: Digest,
    /// Its length in bytes, at most 2⁶³−1 (MPUT-17).
    #[serde(deserialize_with = "size")]
    pub size: u64,
    /// The type of the artifact that the content is.
    #[serde(default, deserialize_with = "null_as_default")]
    pub artifact_type: Option<String>,
    /// Free text by key.
    #[serde(default, deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
    /// Other places where clients may find the content.
    #[serde(default, deserialize_with = "null_as_default")]
    pub urls: Vec<String>,
    /// The content itself, decoded. [`crate::Manifest::parse`] has compared it with size and digest.
    #[serde(default, deserialize_with = "base64_bytes")]
    pub data: Option<Vec<u8>>,
    /// What an index child runs on.
    #[serde(default)]
    pub platform: Option<Platform>,
}

/// What an image runs on. BuildKit's attestations say `unknown/unknown` (ART-3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Platform {
    /// Go's name of the processor, such as `arm64`.
    pub architecture: String,
    /// Go's name of the operating system, such as `linux`.
    pub os: String,
    /// Version of the operating system.
    pub os_version: Option<String>,
    /// Features of the operating system that the image needs.
    pub os_features: Vec<String>,
    /// Variant of the processor, such as `v8`.
    pub variant: Option<String>,
}

impl<'de> Deserialize<'de> for Platform {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(serde::Deserialize)]
        struct Wire {
            #[serde(default)]
            architecture: Option<String>,
            #[serde(default)]
            os: Option<String>,
            #[serde(default, rename = "os.version")]
            os_version: Option<String>,
            #[serde(default, rename = "os.features", deserialize_with = "null_as_default")]
            os_features: Vec<String>,
            #[serde(default)]
            variant: Option<String>,
        }
        let wire = Wire::deserialize(deserializer)?;
        match (wire.architecture, wire.os) {
            (Some(architecture), Some(os)) => Ok(Platform {
                architecture,
                os,
                os_version: wire.os_version,
                os_features: wire.os_features,
                variant: wire.variant,
            }),
            _ => Err(de::Error::custom(
                "a platform needs `architecture` and `os`",
            )),
        }
    }
}
