//! What is asked of each store. Everything is made before the clock starts.

use serde_json::json;

use super::shape::{self, IMAGE, MAIN, RARE, Shape, sha256};

/// A request, and the status that it must be answered with.
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) content_type: &'static str,
    pub(super) body: Vec<u8>,
    pub(super) status: u16,
}

/// One kind of request: its name, and the calls for a number that is new each time. Their time counts as one.
pub(super) type Kind = (&'static str, fn(&Shape, u64) -> Vec<Call>);

/// In the order of the table. What is read lies in the first quarter, where nothing is deleted.
pub(super) const KINDS: &[Kind] = &[
    ("HEAD of a manifest by tag", |shape, n| {
        let tag = shape::tag(spread(n, shape.tags() / 4));
        vec![read("HEAD", format!("/v2/{MAIN}/manifests/{tag}"), 200)]
    }),
    ("GET of a manifest by tag", |shape, n| {
        let tag = shape::tag(spread(n + 7, shape.tags() / 4));
        vec![read("GET", format!("/v2/{MAIN}/manifests/{tag}"), 200)]
    }),
    ("GET of a manifest by digest", |shape, n| {
        let digest = shape.image_digest(spread(n + 13, shape.manifests / 4));
        vec![read("GET", format!("/v2/{MAIN}/manifests/{digest}"), 200)]
    }),
    ("HEAD of a blob", |shape, n| {
        let config = &shape.blobs_of(spread(n, shape.manifests / 4))[0];
        vec![read("HEAD", blob(config), 200)]
    }),
    ("HEAD of an absent blob", |_, n| {
        vec![read("HEAD", blob(format!("absent {n}").as_bytes()), 404)]
    }),
    ("GET of a small blob", |shape, n| {
        let layer = &shape.blobs_of(spread(n + 3, shape.manifests / 4))[2];
        vec![read("GET", blob(layer), 200)]
    }),
    ("pull of an image (manifest, 5 blobs)", |shape, n| {
        let image = spread(n, shape.files.min(shape.manifests / 4));
        let tag = shape::tag(image);
        let mut calls = vec![read("GET", format!("/v2/{MAIN}/manifests/{tag}"), 200)];
        calls.extend(
            shape
                .blobs_of(image)
                .iter()
                .map(|bytes| read("GET", blob(bytes), 200)),
        );
        calls
    }),
    ("page of 100 tags in the middle", |shape, n| {
        let last = shape::tag(shape.tags() / 4 + spread(n, shape.tags() / 4));
        vec![read(
            "GET",
            format!("/v2/{MAIN}/tags/list?n=100&last={last}"),
            200,
        )]
    }),
    ("page of 100 repositories in the middle", |shape, n| {
        let last = shape::repository(shape.repositories / 4 + spread(n, shape.repositories / 4));
        vec![read("GET", format!("/v2/_catalog?n=100&last={last}"), 200)]
    }),
    ("page of 1,000 referrers", |shape, _| {
        let subject = shape.image_digest(0);
        vec![read("GET", format!("/v2/{MAIN}/referrers/{subject}"), 200)]
    }),
    ("the one referrer of a rare type", |shape, _| {
        let (subject, kind) = (shape.image_digest(0), RARE.replace('/', "%2F"));
        let path = format!("/v2/{MAIN}/referrers/{subject}?artifactType={kind}");
        vec![read("GET", path, 200)]
    }),
    (
        "push of an artifact (2 small blobs, manifest, tag)",
        |_, n| artifact(n),
    ),
    ("move of a tag", |shape, n| {
        let bytes = shape.image_bytes(spread(n, shape.manifests / 4));
        vec![put("moved", IMAGE, bytes)]
    }),
    ("push of a referrer", |shape, n| {
        let image = shape.image_bytes(0);
        let subject = (sha256(&image), image.len());
        let (bytes, ..) = shape.referrer(shape.referrers + n, &subject);
        vec![put(sha256(&bytes).as_str(), IMAGE, bytes)]
    }),
    ("DELETE of a tag", |shape, n| {
        let tag = shape::tag(shape.tags() - 1 - n);
        vec![read("DELETE", format!("/v2/{MAIN}/manifests/{tag}"), 202)]
    }),
    ("DELETE of a manifest", |shape, n| {
        vec![delete(shape, shape.manifests / 2 + n)]
    }),
];

/// Deletes an image.
pub(super) fn delete(shape: &Shape, image: u64) -> Call {
    let digest = shape.image_digest(image);
    read("DELETE", format!("/v2/{MAIN}/manifests/{digest}"), 202)
}

/// The pushes of a small artifact that no store has.
pub(super) fn artifact(number: u64) -> Vec<Call> {
    let config = format!("{{\"artifact\":{number}}}").into_bytes();
    let layer = format!("layer of artifact {number}\n").into_bytes();
    let descriptor = |kind: &str, bytes: &[u8]| json!({ "mediaType": kind, "digest": sha256(bytes).as_str(), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": IMAGE,
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let upload = |bytes: Vec<u8>| Call {
        method: "POST",
        path: format!("/v2/{MAIN}/blobs/uploads/?digest={}", sha256(&bytes)),
        content_type: "application/octet-stream",
        body: bytes,
        status: 201,
    };
    vec![
        upload(config),
        upload(layer),
        put(
            &format!("a{number:07}"),
            IMAGE,
            manifest.to_string().into_bytes(),
        ),
    ]
}

/// An index of the first `children` images.
pub(super) fn index(shape: &Shape, children: u64) -> Vec<u8> {
    let manifests: Vec<_> = (0..children)
        .map(|image| {
            let bytes = shape.image_bytes(image);
            json!({ "mediaType": IMAGE, "digest": sha256(&bytes).as_str(), "size": bytes.len() })
        })
        .collect();
    json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    })
    .to_string()
    .into_bytes()
}

/// Pushes a manifest.
pub(super) fn put(reference: &str, content_type: &'static str, body: Vec<u8>) -> Call {
    Call {
        method: "PUT",
        path: format!("/v2/{MAIN}/manifests/{reference}"),
        content_type,
        body,
        status: 201,
    }
}

/// A request without a body.
pub(super) fn read(method: &'static str, path: String, status: u16) -> Call {
    Call {
        method,
        path,
        content_type: "",
        body: Vec::new(),
        status,
    }
}

fn blob(bytes: &[u8]) -> String {
    format!("/v2/{MAIN}/blobs/{}", sha256(bytes))
}

/// A number below `limit` that follows from `number` and lies far from those of its neighbours.
fn spread(number: u64, limit: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32) % limit.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_spread_over_all() {
        let quarters: std::collections::BTreeSet<u64> =
            (0..50).map(|n| spread(n, 1000) / 250).collect();
        assert_eq!(quarters.len(), 4);
        assert!((0..50).all(|n| spread(n, 7) < 7));
    }
}
