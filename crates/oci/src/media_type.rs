//! Media types of OCI and Docker content (specification §1.16, §3.6), and the few questions that we ask of them.
//!
//! Nothing else may depend on a type: an unknown one is stored and served like any other (MPUT-7, ART-1).

/// OCI index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// OCI image manifest, also that of artifacts.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI image configuration.
pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// OCI layer, uncompressed.
pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
/// OCI layer, gzip.
pub const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// OCI layer, zstd.
pub const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
/// The empty descriptor's type; its content is `{}` (§3.4).
pub const OCI_EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// Layers that a registry need not hold: this prefix and a suffix for the compression (deprecated, MPUT-14).
pub const OCI_LAYER_NONDISTRIBUTABLE: &str =
    "application/vnd.oci.image.layer.nondistributable.v1.tar";
/// The withdrawn artifact manifest, still produced by old tools (MPUT-8).
pub const OCI_ARTIFACT: &str = "application/vnd.oci.artifact.manifest.v1+json";

/// Docker image manifest, schema 2.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
/// Docker image configuration.
pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
/// Docker layer, uncompressed.
pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
/// Docker layer, gzip.
pub const DOCKER_LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
/// Docker layer, zstd.
pub const DOCKER_LAYER_ZSTD: &str = "application/vnd.docker.image.rootfs.diff.tar.zstd";
/// Docker layer that a registry need not hold, uncompressed.
pub const DOCKER_LAYER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
/// Docker layer that a registry need not hold, gzip.
pub const DOCKER_LAYER_FOREIGN_GZIP: &str =
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
/// Docker plugin configuration.
pub const DOCKER_PLUGIN: &str = "application/vnd.docker.plugin.v1+json";
/// Docker image manifest, schema 1: refused (MPUT-8).
pub const DOCKER_SCHEMA1: &str = "application/vnd.docker.distribution.manifest.v1+json";
/// Docker image manifest, schema 1 with signature: refused (MPUT-8).
pub const DOCKER_SCHEMA1_SIGNED: &str = "application/vnd.docker.distribution.manifest.v1+prettyjws";

/// Index children of this config type are blobs, not manifests (BuildKit's legacy cache, MPUT-11).
pub const BUILDKIT_CACHE_CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";

/// Without parameters and the space around: `a/b; charset=utf-8` gives `a/b` (MPUT-4).
pub fn bare(value: &str) -> &str {
    value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim_matches([' ', '\t'])
}

/// A list of manifests: OCI index or Docker manifest list.
pub fn is_index(media_type: &str) -> bool {
    matches!(media_type, OCI_INDEX | DOCKER_LIST)
}

/// A manifest with config and layers: OCI or Docker schema 2.
pub fn is_image(media_type: &str) -> bool {
    matches!(media_type, OCI_MANIFEST | DOCKER_MANIFEST)
}

/// A layer that the registry need not hold (MPUT-14).
pub fn is_nondistributable(media_type: &str) -> bool {
    matches!(media_type, DOCKER_LAYER_FOREIGN | DOCKER_LAYER_FOREIGN_GZIP)
        || media_type
            .strip_prefix(OCI_LAYER_NONDISTRIBUTABLE)
            .is_some_and(|rest| matches!(rest, "" | "+gzip" | "+zstd"))
}

/// Docker's first manifest schema, which this registry refuses (MPUT-8).
pub fn is_schema1(media_type: &str) -> bool {
    matches!(media_type, DOCKER_SCHEMA1 | DOCKER_SCHEMA1_SIGNED)
}

/// `type/subtype` in the characters of RFC 6838 §4.2, at most 127 each, so safe as a header value.
pub fn is_well_formed(media_type: &str) -> bool {
    let restricted = |name: &str| {
        (1..=127).contains(&name.len())
            && name.as_bytes()[0].is_ascii_alphanumeric()
            && name.bytes().all(|b| {
                b.is_ascii_alphanumeric()
                    || matches!(
                        b,
                        b'!' | b'#' | b'$' | b'&' | b'-' | b'^' | b'_' | b'.' | b'+'
                    )
            })
    };
    media_type
        .split_once('/')
        .is_some_and(|(top, sub)| restricted(top) && restricted(sub))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Spec: MPUT-4.
    #[test]
    fn parameters_and_space_are_cut() {
        for value in [
            OCI_MANIFEST.to_owned(),
            format!("{OCI_MANIFEST}; charset=utf-8"),
            format!(" {OCI_MANIFEST} ;a=b;c"),
        ] {
            assert_eq!(bare(&value), OCI_MANIFEST);
        }
        assert_eq!(bare(""), "");
    }

    /// Spec: MPUT-14.
    #[test]
    fn knows_what_need_not_be_here() {
        for suffix in ["", "+gzip", "+zstd"] {
            assert!(is_nondistributable(&format!(
                "{OCI_LAYER_NONDISTRIBUTABLE}{suffix}"
            )));
        }
        assert!(
            is_nondistributable(DOCKER_LAYER_FOREIGN)
                && is_nondistributable(DOCKER_LAYER_FOREIGN_GZIP)
        );
        for other in [
            OCI_LAYER,
            OCI_LAYER_GZIP,
            DOCKER_LAYER_GZIP,
            OCI_EMPTY,
            "",
            "application/wasm",
        ] {
            assert!(!is_nondistributable(other), "{other}");
        }
        assert!(!is_nondistributable(&format!(
            "{OCI_LAYER_NONDISTRIBUTABLE}x"
        )));
    }

    /// Spec: LEG-1, MPUT-8.
    #[test]
    fn sorts_manifests() {
        for (media_type, image, index, schema1) in [
            (OCI_MANIFEST, true, false, false),
            (DOCKER_MANIFEST, true, false, false),
            (OCI_INDEX, false, true, false),
            (DOCKER_LIST, false, true, false),
            (DOCKER_SCHEMA1, false, false, true),
            (DOCKER_SCHEMA1_SIGNED, false, false, true),
            (OCI_ARTIFACT, false, false, false),
            (OCI_CONFIG, false, false, false),
        ] {
            let found = (
                is_image(media_type),
                is_index(media_type),
                is_schema1(media_type),
            );
            assert_eq!(found, (image, index, schema1), "{media_type}");
            assert!(is_well_formed(media_type));
        }
    }

    #[test]
    fn header_values_are_well_formed() {
        for bad in [
            "", "a", "/", "a/", "/b", "a/b/c", "a/b;c", "a/b c", "a/b\r\nc", "a/ä", ".a/b",
        ] {
            assert!(!is_well_formed(bad), "{bad:?}");
        }
        assert!(
            is_well_formed(&format!("a/{}", "b".repeat(127)))
                && !is_well_formed(&format!("a/{}", "b".repeat(128)))
        );
    }

    proptest! {
        #[test]
        fn bare_never_has_parameters(value in ".{0,60}|[a-z/]{0,9} ?; ?[a-z=]{0,9}") {
            prop_assert!(!bare(&value).contains(';'));
            prop_assert!(!is_well_formed(&value) || bare(&value) == value);
        }
    }
}
