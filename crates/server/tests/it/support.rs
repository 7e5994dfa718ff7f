//! What most tests begin with.

use wharf_testkit::content::unique_name;
use wharf_testkit::{Client, TestOptions, TestServer, Version};

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
    let list = list.as_array().unwrap_or_else(|| panic!("not a list: {list}"));
    list.iter().map(|item| item.as_str().expect("a text").to_owned()).collect()
}
