//! The order in which Docker's legacy image store pushes and pulls.

use bytes::Bytes;
use wharf_testkit::client::with_query;
use wharf_testkit::{ImageSpec, Version};

use crate::support::{blob, both, manifest};

/// Spec: LEG-1, LEG-2, LEG-3, MNT-2.
#[tokio::test]
async fn docker_pushes_and_pulls() {
    both(async |client, name| {
        let challenge = client
            .clone()
            .anonymous()
            .get("/v2/")
            .send()
            .await
            .expect_status(401)
            .challenge();
        assert_eq!(challenge.scheme, "Bearer");
        let scope = format!("repository:{name}:pull,push");
        let target = format!(
            "{}?account=admin&scope={scope}&service={}",
            challenge.realm,
            challenge.service.unwrap()
        );
        let token = client.get(&target).send().await.expect_status(200).json()["token"]
            .as_str()
            .unwrap()
            .to_owned();
        let docker = client.with_token(&token).with_version(Version::Http1);

        let image = ImageSpec {
            docker: true,
            ..ImageSpec::default()
        }
        .build();
        for content in image.blobs() {
            docker
                .head(&blob(&name, &content.digest))
                .send()
                .await
                .expect_status(404);
            for source in ["library/busybox", "library/alpine"] {
                let query = format!(
                    "from={source}&mount={}",
                    content.digest.as_str().replace(':', "%3A")
                );
                docker
                    .post(&format!("/v2/{name}/blobs/uploads/?{query}"))
                    .send()
                    .await
                    .expect_status(202);
            }
            let session = docker
                .post(&format!("/v2/{name}/blobs/uploads/"))
                .send()
                .await
                .expect_status(202);
            session.expect_header("docker-upload-uuid");
            let pieces: Vec<_> = content
                .bytes
                .chunks(1000)
                .map(Bytes::copy_from_slice)
                .collect();
            let sent = docker
                .patch(session.location())
                .chunked(pieces)
                .send()
                .await
                .expect_status(202);
            let range = format!("0-{}", content.bytes.len() - 1);
            assert_eq!(sent.header("range"), Some(range.as_str()));
            let close = with_query(
                sent.location(),
                &format!("digest={}", content.digest.as_str().replace(':', "%3A")),
            );
            docker.put(&close).send().await.expect_status(201);
            let head = docker
                .head(&blob(&name, &content.digest))
                .send()
                .await
                .expect_status(200);
            assert_eq!(
                head.header("content-length"),
                Some(content.bytes.len().to_string().as_str())
            );
        }
        let pushed = docker.push_manifest(&name, "latest", &image.manifest).await;
        assert_eq!(pushed.digest(), image.manifest.digest);

        let pulled = docker
            .get(&manifest(&name, "latest"))
            .send()
            .await
            .expect_status(200);
        assert_eq!(
            pulled.header("content-type"),
            Some(wharf_oci::media_type::DOCKER_MANIFEST)
        );
        assert_eq!(pulled.body, image.manifest.bytes);
        for content in image.blobs() {
            let pulled = docker
                .get(&blob(&name, &content.digest))
                .send()
                .await
                .expect_status(200);
            assert_eq!(pulled.body, content.bytes);
        }
    })
    .await;
}

/// The legacy conformance workflow of chunks: a retry on the first Location is refused and that Location stays good.
///
/// Spec: UP-4, UP-24, UP-26.
#[tokio::test]
async fn the_first_location_stays_good() {
    both(async |client, name| {
        let content = wharf_testkit::Content::random(2048);
        let first = client.start_upload(&name).await;
        let part = |at: usize| content.bytes.slice(at * 1024..(at + 1) * 1024);
        let chunk = |location: &str, range: &str, at: usize| {
            client
                .patch(location)
                .header("content-range", range)
                .body(part(at))
                .send()
        };
        chunk(&first, "1024-2047", 1).await.expect_status(416);
        let next = chunk(&first, "0-1023", 0).await.expect_status(202);
        assert_eq!(next.header("range"), Some("0-1023"));
        chunk(&first, "0-1023", 0).await.expect_status(416);
        let status = client.get(&first).send().await.expect_status(204);
        assert_eq!(status.header("range"), Some("0-1023"));
        chunk(status.location(), "1024-2047", 1)
            .await
            .expect_status(202);
        let close = with_query(next.location(), &format!("digest={}", content.digest));
        client.put(&close).send().await.expect_status(201);
    })
    .await;
}
