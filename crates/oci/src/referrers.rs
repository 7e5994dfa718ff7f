//! The answer of the referrers API (REF-1, REF-4).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::manifest::Manifest;

/// One entry of the list. Made once, when the referrer is pushed, and stored as JSON beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferrerDescriptor {
    /// The referrer's media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// See [`Manifest::referrer_type`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// All annotations of the referrer.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl ReferrerDescriptor {
    /// The entry for a manifest that is stored under `digest` with `size` bytes.
    pub fn of(manifest: &Manifest, digest: Digest, size: u64) -> ReferrerDescriptor {
        ReferrerDescriptor {
            media_type: manifest.media_type.clone(),
            digest,
            size,
            artifact_type: manifest.referrer_type().map(str::to_owned),
            annotations: manifest.annotations.clone(),
        }
    }

    /// As it stands in the list.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers serialise")
    }
}

/// An index of entries that are JSON already, to be sent as [`crate::media_type::OCI_INDEX`] without parameters (REF-1).
pub fn index_json<T: AsRef<str>>(descriptors: &[T]) -> Vec<u8> {
    const HEAD: &str =
        r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":["#;
    let length: usize = descriptors.iter().map(|d| d.as_ref().len() + 1).sum();
    let mut json = Vec::with_capacity(HEAD.len() + length + 2);
    json.extend_from_slice(HEAD.as_bytes());
    for (at, descriptor) in descriptors.iter().enumerate() {
        if at > 0 {
            json.push(b',');
        }
        json.extend_from_slice(descriptor.as_ref().as_bytes());
    }
    json.extend_from_slice(b"]}");
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Limits;
    use crate::media_type;

    /// Spec: REF-1, REF-2.
    #[test]
    fn the_list_is_an_index() {
        assert_eq!(
            String::from_utf8(index_json::<&str>(&[])).unwrap(),
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#
        );
        let manifest = Manifest::parse(
            None,
            br#"{"schemaVersion":2,"manifests":[],"annotations":{"k":"\"v"}}"#,
            &Limits::default(),
        );
        let digest = Digest::of(crate::Algorithm::Sha256, b"x");
        let entry = ReferrerDescriptor::of(&manifest.unwrap(), digest.clone(), 7);
        let index = index_json(&[entry.to_json(), entry.to_json()]);
        let parsed =
            Manifest::parse(Some(media_type::OCI_INDEX), &index, &Limits::default()).unwrap();
        assert_eq!(parsed.manifests.len(), 2);
        assert_eq!(
            (&parsed.manifests[1].digest, parsed.manifests[1].size),
            (&digest, 7)
        );
        assert_eq!(parsed.manifests[1].annotations["k"], "\"v");
    }

    /// Spec: REF-4, REF-13.
    #[test]
    fn entries_carry_type_and_annotations() {
        let config = format!(
            r#"{{"mediaType":"a/config","digest":"sha256:{}","size":2}}"#,
            "0".repeat(64)
        );
        for (text, artifact_type) in [
            (
                format!(
                    r#"{{"schemaVersion":2,"artifactType":"a/own","config":{config},"layers":[]}}"#
                ),
                Some("a/own"),
            ),
            (
                format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#),
                Some("a/config"),
            ),
            (
                format!(r#"{{"schemaVersion":2,"artifactType":"","config":{config},"layers":[]}}"#),
                Some("a/config"),
            ),
            (
                r#"{"schemaVersion":2,"artifactType":"a/own","manifests":[]}"#.into(),
                Some("a/own"),
            ),
            (r#"{"schemaVersion":2,"manifests":[]}"#.into(), None),
        ] {
            let manifest = Manifest::parse(None, text.as_bytes(), &Limits::default()).unwrap();
            let entry =
                ReferrerDescriptor::of(&manifest, Digest::of(crate::Algorithm::Sha512, b""), 3);
            assert_eq!(entry.artifact_type.as_deref(), artifact_type, "{text}");
            assert_eq!(
                serde_json::from_str::<ReferrerDescriptor>(&entry.to_json()).unwrap(),
                entry
            );
            assert_eq!(
                entry.to_json().contains("artifactType"),
                artifact_type.is_some()
            );
            assert!(!entry.to_json().contains("annotations"));
        }
    }
}
