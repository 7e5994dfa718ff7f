//! Extension discovery.

use crate::support::both;

/// Spec: EXT-1, API-2.
#[tokio::test]
async fn there_is_a_list_and_nothing_on_it() {
    both(async |client, name| {
        for path in [
            "/v2/_oci/ext/discover".to_owned(),
            format!("/v2/{name}/_oci/ext/discover"),
        ] {
            let list = client.get(&path).send().await.expect_status(200);
            assert_eq!(list.header("content-type"), Some("application/json"));
            assert_eq!(list.json(), serde_json::json!({"extensions": []}));
        }
    })
    .await;
}

/// Spec: EXT-2.
#[tokio::test]
async fn extensions_that_are_not_here_have_their_own_error() {
    both(async |client, name| {
        for path in [
            "/v2/_docker/x/y".to_owned(),
            "/v2/_oci/none/such".into(),
            format!("/v2/{name}/_chainguard/x/y"),
        ] {
            client
                .get(&path)
                .send()
                .await
                .expect_error(404, "EXTENSION_UNKNOWN");
        }
    })
    .await;
}
