//! Reading blobs (end-2).

use wharf_oci::Algorithm;
use wharf_testkit::{Client, Content, TestOptions, TestServer, Version};

use crate::support::{blob, both, both_on, sha512};

/// A size on each side of `storage.inline_below`, so that rows and files both serve.
const SIZES: [usize; 3] = [1, 2048, 300_000];

async fn pushed(client: &Client, name: &str, size: usize) -> Content {
    let content = Content::random(size);
    client.push_blob(name, &content).await;
    content
}

/// Spec: BGET-1, BGET-2, BGET-3, BGET-10, DIG-5, CQ-3, API-5, CS-12.
#[tokio::test]
async fn exact_bytes_with_their_headers() {
    both(async |client, name| {
        for (algorithm, size) in [(Algorithm::Sha256, 10), (sha512(), 10), (sha512(), 300_000)] {
            let content = Content::random_of(algorithm, size);
            client.push_blob(&name, &content).await;
            let answer = client
                .get(&blob(&name, &content.digest))
                .send()
                .await
                .expect_status(200);
            assert_eq!(answer.body, content.bytes);
            assert_eq!(answer.digest(), content.digest);
            for (header, value) in [
                ("content-type", "application/octet-stream"),
                ("content-length", size.to_string().as_str()),
                ("accept-ranges", "bytes"),
                ("etag", &format!("\"{}\"", content.digest)),
                ("x-content-type-options", "nosniff"),
            ] {
                assert_eq!(answer.header(header), Some(value), "{header}");
            }
        }
    })
    .await;
}

/// Spec: BGET-3, BGET-11, API-6, CS-3, UP-10.
#[tokio::test]
async fn head_says_what_get_would() {
    both(async |client, name| {
        for size in [0, 1, 300_000] {
            let content = pushed(&client, &name, size).await;
            let path = blob(&name, &content.digest);
            let (head, get) = (
                client.head(&path).send().await,
                client.get(&path).send().await,
            );
            assert_eq!(
                (head.status, get.status),
                (http::StatusCode::OK, http::StatusCode::OK)
            );
            assert!(head.body.is_empty());
            assert_eq!(
                head.header("content-length"),
                Some(size.to_string().as_str())
            );
            for header in [
                "content-length",
                "content-type",
                "docker-content-digest",
                "etag",
                "accept-ranges",
                "cache-control",
            ] {
                assert_eq!(head.header(header), get.header(header), "{header}");
            }
        }
    })
    .await;
}

/// Spec: BGET-1, API-7.
#[tokio::test]
async fn only_through_a_repository_that_holds_it() {
    both(async |client, name| {
        let content = pushed(&client, &name, 500).await;
        let other = format!("{name}-other");
        let nowhere = Content::random(500);
        client
            .get(&blob(&other, &content.digest))
            .send()
            .await
            .expect_error(404, "BLOB_UNKNOWN");
        client.push_blob(&other, &Content::random(10)).await;
        for digest in [&content.digest, &nowhere.digest] {
            client
                .get(&blob(&other, digest))
                .send()
                .await
                .expect_error(404, "BLOB_UNKNOWN");
            assert!(
                client
                    .head(&blob(&other, digest))
                    .send()
                    .await
                    .expect_status(404)
                    .body
                    .is_empty()
            );
        }
    })
    .await;
}

/// Spec: BGET-4, BGET-5.
#[tokio::test]
async fn one_range() {
    both(async |client, name| {
        let content = pushed(&client, &name, 2048).await;
        for (range, first, last) in [
            ("bytes=500-1499", 500, 1499),
            ("bytes=500-", 500, 2047),
            ("bytes=-500", 1548, 2047),
            ("bytes=2000-5000", 2000, 2047),
            ("bytes=0-", 0, 2047),
            ("bytes=0-0", 0, 0),
        ] {
            let answer = client
                .get(&blob(&name, &content.digest))
                .header("range", range)
                .send()
                .await
                .expect_status(206);
            assert_eq!(answer.body, content.bytes.slice(first..=last), "{range}");
            assert_eq!(
                answer.header("content-range"),
                Some(format!("bytes {first}-{last}/2048").as_str())
            );
            assert_eq!(
                answer.header("content-length"),
                Some((last - first + 1).to_string().as_str())
            );
            assert_eq!(answer.digest(), content.digest);
        }
        for range in ["bytes=500-0", "bytes=5000-10000", "bytes=-0"] {
            let answer = client
                .get(&blob(&name, &content.digest))
                .header("range", range)
                .send()
                .await;
            let answer = answer.expect_error(416, "RANGE_INVALID");
            assert_eq!(
                answer.header("content-range"),
                Some("bytes */2048"),
                "{range}"
            );
        }
        for range in ["items=0-5", "bytes=x-y", "bytes", "bytes=1-2-3"] {
            let answer = client
                .get(&blob(&name, &content.digest))
                .header("range", range)
                .send()
                .await;
            assert_eq!(answer.expect_status(200).body, content.bytes, "{range}");
        }
    })
    .await;
}

/// Spec: BGET-4.
#[tokio::test]
async fn ranges_of_every_storage() {
    both(async |client, name| {
        for size in SIZES {
            let content = pushed(&client, &name, size).await;
            for (first, last) in [
                (0, 0),
                (size / 2, size - 1),
                (size / 3, size / 2),
                (size - 1, size - 1),
            ] {
                let range = format!("bytes={first}-{last}");
                let answer = client
                    .get(&blob(&name, &content.digest))
                    .header("range", &range)
                    .send()
                    .await;
                assert_eq!(
                    answer.expect_status(206).body,
                    content.bytes.slice(first..=last),
                    "{range} of {size}"
                );
            }
        }
    })
    .await;
}

/// The parts of a `multipart/byteranges` body: `Content-Range` and bytes of each.
fn parts(boundary: &str, body: &[u8]) -> Vec<(String, Vec<u8>)> {
    let find =
        |text: &[u8], what: &[u8]| text.windows(what.len()).position(|window| window == what);
    let delimiter = format!("--{boundary}");
    let mut rest =
        &body[find(body, delimiter.as_bytes()).expect("a first delimiter") + delimiter.len()..];
    let mut found = Vec::new();
    while !rest.starts_with(b"--") {
        let head = find(rest, b"\r\n\r\n").expect("headers of a part");
        let next = find(rest, format!("\r\n{delimiter}").as_bytes()).expect("a next delimiter");
        let headers = std::str::from_utf8(&rest[..head])
            .expect("headers in ASCII")
            .to_lowercase();
        let range = headers
            .lines()
            .find_map(|line| line.strip_prefix("content-range: "))
            .expect("Content-Range");
        found.push((range.to_owned(), rest[head + 4..next].to_vec()));
        rest = &rest[next + 2 + delimiter.len()..];
    }
    found
}

/// Spec: BGET-6.
#[tokio::test]
async fn several_ranges_come_all() {
    both(async |client, name| {
        for (algorithm, size) in [(Algorithm::Sha256, 4096), (sha512(), 300_000)] {
            let content = Content::random_of(algorithm, size);
            client.push_blob(&name, &content).await;
            let request = client
                .get(&blob(&name, &content.digest))
                .header("range", "bytes=0-9,100-299, -5");
            let answer = request.send().await.expect_status(206);
            let kind = answer.expect_header("content-type");
            let boundary = kind
                .strip_prefix("multipart/byteranges; boundary=")
                .expect(kind);
            // RFC 2046 §5.1.1.
            assert!(boundary.len() <= 70, "{boundary}");
            assert_eq!(answer.header("content-range"), None);
            assert_eq!(
                answer.header("content-length"),
                Some(answer.body.len().to_string().as_str())
            );
            let expected: Vec<_> = [(0, 9), (100, 299), (size - 5, size - 1)]
                .map(|(a, b)| {
                    (
                        format!("bytes {a}-{b}/{size}"),
                        content.bytes.slice(a..=b).to_vec(),
                    )
                })
                .into();
            assert_eq!(parts(boundary, &answer.body), expected);
        }
    })
    .await;
}

/// Spec: BGET-6.
#[tokio::test]
async fn as_many_ranges_as_zstd_chunked_layers_need() {
    both(async |client, name| {
        let content = pushed(&client, &name, 300_000).await;
        let spans: Vec<_> = (0..200).map(|i| (i * 1000, i * 1000 + 10)).collect();
        let ranges: Vec<_> = spans.iter().map(|(a, b)| format!("{a}-{b}")).collect();
        let range = format!("bytes={}", ranges.join(","));
        let answer = client
            .get(&blob(&name, &content.digest))
            .header("range", &range)
            .send()
            .await
            .expect_status(206);
        let boundary = answer
            .expect_header("content-type")
            .rsplit('=')
            .next()
            .unwrap()
            .to_owned();
        for ((a, b), (range, bytes)) in spans.iter().zip(parts(&boundary, &answer.body)) {
            assert_eq!(
                (range, &bytes[..]),
                (format!("bytes {a}-{b}/300000"), &content.bytes[*a..=*b])
            );
        }
        let overlapping = client
            .get(&blob(&name, &content.digest))
            .header("range", "bytes=0-,0-,0-");
        assert_eq!(
            overlapping.send().await.expect_status(200).body,
            content.bytes
        );
    })
    .await;
}

/// Spec: BGET-7.
#[tokio::test]
async fn if_range_guards_a_resume() {
    both(async |client, name| {
        let content = pushed(&client, &name, 2048).await;
        let other = format!("\"sha256:{}\"", "0".repeat(64));
        for (condition, status) in [
            (format!("\"{}\"", content.digest), 206),
            (other, 200),
            ("Wed, 21 Oct 2015 07:28:00 GMT".into(), 200),
        ] {
            let request = client
                .get(&blob(&name, &content.digest))
                .header("range", "bytes=0-9");
            request
                .header("if-range", &condition)
                .send()
                .await
                .expect_status(status);
        }
    })
    .await;
}

/// Spec: BGET-8, MGET-12.
#[tokio::test]
async fn content_is_never_encoded() {
    both(async |client, name| {
        let content = Content::new(Algorithm::Sha256, "text/plain", vec![b'a'; 100_000]);
        client.push_blob(&name, &content).await;
        let request = client
            .get(&blob(&name, &content.digest))
            .header("accept-encoding", "zstd,gzip,deflate");
        let answer = request.send().await.expect_status(200);
        assert_eq!(answer.header("content-encoding"), None);
        assert_eq!(answer.body, content.bytes);
    })
    .await;
}

/// Spec: MGET-9, MGET-11.
#[tokio::test]
async fn who_has_it_need_not_fetch_it() {
    both(async |client, name| {
        let content = pushed(&client, &name, 100).await;
        let path = blob(&name, &content.digest);
        for condition in [
            format!("\"{}\"", content.digest),
            content.digest.to_string(),
            "*".into(),
        ] {
            let answer = client
                .get(&path)
                .header("if-none-match", &condition)
                .send()
                .await
                .expect_status(304);
            assert!(answer.body.is_empty());
            assert_eq!(
                answer.header("etag"),
                Some(format!("\"{}\"", content.digest).as_str())
            );
        }
        let answer = client
            .get(&path)
            .header("if-none-match", "\"x\"")
            .send()
            .await
            .expect_status(200);
        let cache = answer.expect_header("cache-control");
        assert!(
            cache.contains("max-age=31536000") && cache.contains("private"),
            "{cache}"
        );
    })
    .await;
}

/// Spec: BGET-9.
#[tokio::test]
async fn clients_that_leave_in_the_middle_disturb_nobody() {
    let server = TestServer::start(TestOptions::default()).await;
    both_on(&server, async |client, name| {
        let content = pushed(&client, &name, 20 << 20).await;
        let path = blob(&name, &content.digest);
        for _ in 0..20 {
            let mut connection = wharf_testkit::raw::RawConnection::open(client.addr()).await;
            let authorization = server.admin_authorization();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nRange: bytes=5-\r\n\r\n");
            connection.write(request).await.unwrap();
            drop(connection);
        }
        assert_eq!(client.get(&path).send().await.expect_status(200).body, content.bytes);
    })
    .await;
}

/// Spec: BGET-1, UP-14.
#[tokio::test]
async fn many_readers_at_once_get_the_same() {
    let server = TestServer::start(TestOptions::default()).await;
    let client = server.admin(Version::Http1);
    let content = pushed(&client, "team/app", 3 << 20).await;
    let readers: Vec<_> = (0..32)
        .map(|i| {
            let (client, content) = (
                client.clone().with_version(Version::ALL[i % 2]),
                content.clone(),
            );
            tokio::spawn(async move {
                let answer = client
                    .get(&blob("team/app", &content.digest))
                    .send()
                    .await
                    .expect_status(200);
                assert!(answer.body == content.bytes);
            })
        })
        .collect();
    for reader in readers {
        reader.await.unwrap();
    }
}

/// Spec: NAME-3, DIG-1, DIG-2, DIG-3, DIG-4.
#[tokio::test]
async fn broken_addresses_have_their_errors() {
    both(async |client, name| {
        for (path, status, code) in [
            (
                blob("UPPER", format!("sha256:{}", "0".repeat(64))),
                400,
                "NAME_INVALID",
            ),
            (blob(&name, "sha256:totallywrong"), 400, "DIGEST_INVALID"),
            (
                blob(&name, format!("sha256:{}", "A".repeat(64))),
                400,
                "DIGEST_INVALID",
            ),
            (
                blob(&name, format!("sha512:{}", "0".repeat(64))),
                400,
                "DIGEST_INVALID",
            ),
            (blob(&name, "latest"), 400, "DIGEST_INVALID"),
            (
                blob(&name, format!("blake3:{}", "0".repeat(64))),
                404,
                "BLOB_UNKNOWN",
            ),
            (blob(&name, "other+x:abc"), 404, "BLOB_UNKNOWN"),
        ] {
            client.get(&path).send().await.expect_error(status, code);
            client.head(&path).send().await.expect_status(status);
        }
    })
    .await;
}

/// Spec: BGET-1, BGET-4, BGET-6, UP-14.
#[tokio::test]
async fn the_same_through_tls() {
    let server = TestServer::start(TestOptions {
        tls: true,
        ..Default::default()
    })
    .await;
    both_on(&server, async |client, name| {
        for size in [0, 1, 80 * 1024, 3_000_000] {
            let content = pushed(&client, &name, size).await;
            let path = blob(&name, &content.digest);
            let whole = client.get(&path).send().await.expect_status(200);
            assert!(whole.body == content.bytes);
            if size > 100 {
                let range = client.get(&path).header("range", "bytes=50-,0-9");
                let answer = range.send().await.expect_status(206);
                let boundary = answer
                    .expect_header("content-type")
                    .rsplit('=')
                    .next()
                    .unwrap()
                    .to_owned();
                let found = parts(&boundary, &answer.body);
                assert!(found[0].1 == content.bytes[50..] && found[1].1 == content.bytes[..10]);
            }
        }
    })
    .await;
}
