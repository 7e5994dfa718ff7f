//! What most tests begin with.

use bytes::Bytes;
use wharf_oci::{Algorithm, Digest};
use wharf_testkit::client::with_query;
use wharf_testkit::content::unique_name;
use wharf_testkit::options::on_bucket;
use wharf_testkit::{Client, Content, Request, TestOptions, TestServer, Version};

/// The algorithms that are computed.
pub(crate) const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// Starts a server and runs the test as its administrator over HTTP/1.1, then over HTTP/2, each time with a repository
/// name that nobody has used.
pub(crate) async fn both(test: impl AsyncFn(Client, String)) {
    both_on(&TestServer::start(TestOptions::default()).await, test).await;
}

/// The same on a server of the test's making.
pub(crate) async fn both_on(server: &TestServer, test: impl AsyncFn(Client, String)) {
    for version in Version::ALL {
        test(server.admin(version), unique_name("team/app")).await;
    }
}

/// sha512, where the blob store takes it. The service of `WHARF_TEST_STORE=s3` makes one file name of a whole key, and with
/// a sha512 in it that is too long for a file system; `cargo xtask e2e --store` pushes such blobs to real services.
pub(crate) fn sha512() -> Algorithm {
    match on_bucket() {
        true => Algorithm::Sha256,
        false => Algorithm::Sha512,
    }
}

/// [`ALGORITHMS`] for blobs that are no rows.
pub(crate) fn algorithms() -> [Algorithm; 2] {
    [Algorithm::Sha256, sha512()]
}

/// The path of a blob.
pub(crate) fn blob(name: &str, digest: impl std::fmt::Display) -> String {
    format!("/v2/{name}/blobs/{digest}")
}

/// The path of a manifest.
pub(crate) fn manifest(name: &str, reference: impl std::fmt::Display) -> String {
    format!("/v2/{name}/manifests/{reference}")
}

/// Texts of a JSON array.
#[track_caller]
pub(crate) fn texts(list: &serde_json::Value) -> Vec<String> {
    let list = list
        .as_array()
        .unwrap_or_else(|| panic!("not a list: {list}"));
    list.iter()
        .map(|item| item.as_str().expect("a text").to_owned())
        .collect()
}

/// Whether the repository holds the blob; other bytes than the right ones are a failure.
pub(crate) async fn holds(client: &Client, name: &str, content: &Content) -> bool {
    let answer = client.get(&blob(name, &content.digest)).send().await;
    match answer.status.as_u16() {
        200 => {
            assert!(answer.body == content.bytes, "other bytes than were pushed");
            true
        }
        404 => false,
        _ => panic!("{answer}"),
    }
}

/// A closing PUT with these bytes.
pub(crate) fn finish(
    client: &Client,
    location: &str,
    digest: &Digest,
    bytes: impl Into<Bytes>,
) -> Request {
    client
        .put(&with_query(location, &format!("digest={digest}")))
        .body(bytes)
}

/// A PATCH of the bytes from `start`.
pub(crate) fn chunk(client: &Client, location: &str, start: usize, bytes: &Bytes) -> Request {
    let range = format!("{start}-{}", start + bytes.len() - 1);
    client
        .patch(location)
        .header("content-range", &range)
        .body(bytes.clone())
}

/// Asks for the status and gives back `Range`.
pub(crate) async fn standing(client: &Client, location: &str) -> String {
    let status = client.get(location).send().await.expect_status(204);
    assert!(status.location().contains("/blobs/uploads/"), "{status}");
    status.expect_header("range").to_owned()
}
