//! Targets of the crate `wharf-oci`.

use wharf_oci::range::{MAX_RANGES, parse_range};
use wharf_oci::{
    Authorization, Challenge, ContentRange, Digest, Limits, Manifest, RangeRequest, Reference,
    ReferrerDescriptor, Tag, media_type,
};

/// Header values and path parts are text; other bytes are refused before any parser.
fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

pub(crate) fn authorization(input: &[u8]) {
    let Some(header) = text(input) else { return };
    match Authorization::parse(header) {
        Ok(Authorization::Basic { user, password }) => {
            let again = Authorization::parse(&Authorization::basic(&user, &password));
            assert_eq!(again, Ok(Authorization::Basic { user, password }));
        }
        Ok(Authorization::Bearer(token)) => {
            assert!(
                token.bytes().all(|b| b.is_ascii_graphic()),
                "a token with space in it"
            );
            assert_eq!(
                Authorization::parse(&format!("Bearer {token}")),
                Ok(Authorization::Bearer(token))
            );
        }
        Ok(Authorization::Other(scheme)) => assert!(scheme != "basic" && scheme != "bearer"),
        Err(_) => {}
    }
}

pub(crate) fn challenge(input: &[u8]) {
    let Some(header) = text(input) else { return };
    let Ok(challenge) = Challenge::parse(header) else {
        return;
    };
    let shown = challenge.to_string();
    assert!(
        shown.bytes().all(|b| (b' '..=b'~').contains(&b)),
        "not a header value: {shown:?}"
    );
    let again = Challenge::parse(&shown).expect("its own output is a challenge");
    assert_eq!(again.to_string(), shown);
}

pub(crate) fn content_range(input: &[u8]) {
    let Some(header) = text(input) else { return };
    if let Ok(range) = ContentRange::parse(header) {
        assert!(range.start <= range.end && range.end <= i64::MAX as u64);
        assert_eq!(ContentRange::parse(&range.to_string()), Ok(range));
    }
}

pub(crate) fn digest(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let Ok(digest) = Digest::parse(text) else {
        return;
    };
    assert_eq!(digest.as_str(), text);
    assert_eq!(
        format!("{}:{}", digest.algorithm_name(), digest.encoded()),
        text
    );
    assert!(Tag::parse(&digest.fallback_tag()).is_ok());
    if let Some(algorithm) = digest.algorithm() {
        assert_eq!(digest.encoded().len(), algorithm.hex_len());
    }
    // Digests become file names and keys.
    assert!(!text.contains(['/', '\\', '%', '\0']) && !text.contains(".."));
}

/// The first line is `Content-Type`, the rest the document.
pub(crate) fn manifest(input: &[u8]) {
    let (header, document) = input.split_at(
        input
            .iter()
            .position(|b| *b == b'\n')
            .map_or(0, |at| at + 1),
    );
    let header = text(header)
        .map(str::trim_end)
        .filter(|header| !header.is_empty());
    let limits = Limits {
        max_depth: 8,
        max_descriptors: 16,
    };
    let Ok(manifest) = Manifest::parse(header, document, &limits) else {
        return;
    };
    assert!(media_type::is_well_formed(&manifest.media_type));
    assert!(!media_type::is_schema1(&manifest.media_type));
    assert!(
        manifest.manifests.is_empty() || (manifest.layers.is_empty() && manifest.config.is_none())
    );
    assert!(
        manifest.layers.len() + manifest.manifests.len() + manifest.blobs.len()
            <= limits.max_descriptors
    );

    // A reader that takes any JSON must see the same references.
    let loose: serde_json::Value = serde_json::from_slice(document).expect("strict JSON is JSON");
    let digests = |field: &str| -> Vec<String> {
        let list = loose[field].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|item| item["digest"].as_str().unwrap_or_default().to_owned())
            .collect()
    };
    for (field, parsed) in [
        ("layers", &manifest.layers),
        ("manifests", &manifest.manifests),
        ("blobs", &manifest.blobs),
    ] {
        let parsed: Vec<_> = parsed
            .iter()
            .map(|descriptor| descriptor.digest.to_string())
            .collect();
        assert_eq!(digests(field), parsed);
    }
    let subject = manifest
        .subject
        .as_ref()
        .map(|subject| subject.digest.to_string());
    assert_eq!(loose["subject"]["digest"].as_str(), subject.as_deref());

    // What the referrers list would say of it is well-formed JSON, whatever its annotations hold.
    let digest = Digest::of(wharf_oci::Algorithm::Sha256, document);
    let entry = ReferrerDescriptor::of(&manifest, digest, document.len() as u64);
    assert_eq!(
        serde_json::from_str::<ReferrerDescriptor>(&entry.to_json()).expect("its own output"),
        entry
    );
}

/// The last line is the size of the content, the rest the header.
pub(crate) fn range(input: &[u8]) {
    let Some((header, size)) = text(input).and_then(|text| text.rsplit_once('\n')) else {
        return;
    };
    let size = size.parse().unwrap_or(1000);
    if let RangeRequest::Ranges(spans) = parse_range(header, size) {
        assert!(!spans.is_empty() && spans.len() <= MAX_RANGES);
        assert!(
            spans
                .iter()
                .all(|span| span.start <= span.end_inclusive && span.end_inclusive < size)
        );
        assert!(
            spans
                .iter()
                .map(|span| u128::from(span.len()))
                .sum::<u128>()
                <= u128::from(size)
        );
    }
}

pub(crate) fn reference(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let Ok(reference) = Reference::parse(text) else {
        return;
    };
    assert_eq!(reference.as_str(), text);
    assert_eq!(reference.digest().is_some(), text.contains(':'));
    assert!(text.is_ascii() && !text.contains(['/', '%', '\0', ' ']));
}
