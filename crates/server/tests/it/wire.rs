//! What no well-behaved client sends: two lengths, two requests in one, bodies that end early, heads without end.

use std::time::Duration;

use bytes::Bytes;
use wharf_testkit::client::{Step, with_query};
use wharf_testkit::content::random_bytes;
use wharf_testkit::raw::RawConnection;
use wharf_testkit::{Client, Content, TestOptions, TestServer, Version};

use crate::support::{blob, both, both_on};

/// A server, its administrator's client and the lines that every raw request of theirs begins with.
async fn server() -> (TestServer, Client, String) {
    let server = TestServer::start(TestOptions::default()).await;
    let client = server.admin(Version::Http1);
    let lines = format!(
        "Host: {}\r\nAuthorization: {}\r\n",
        client.authority(),
        server.admin_authorization()
    );
    (server, client, lines)
}

/// A whole request that would start an upload session, to be smuggled behind another.
fn smuggled(lines: &str) -> String {
    format!("POST /v2/smuggled/blobs/uploads/ HTTP/1.1\r\n{lines}Content-Length: 0\r\n\r\n")
}

/// Spec: API-4.
#[tokio::test]
async fn a_request_with_two_meanings_is_refused_and_the_connection_closed() {
    let (_server, client, lines) = server().await;
    let hidden = smuggled(&lines);
    let chunked = format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    let length = hidden.len();
    for (what, head, body) in [
        (
            "both lengths",
            "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n".into(),
            format!("0\r\n\r\n{hidden}"),
        ),
        (
            "both, the other way",
            format!(
                "Transfer-Encoding: chunked\r\nContent-Length: {}\r\n",
                chunked.len()
            ),
            chunked.clone(),
        ),
        (
            "two lengths",
            format!("Content-Length: 0\r\nContent-Length: {length}\r\n"),
            hidden.clone(),
        ),
        (
            "a list of lengths",
            format!("Content-Length: 0, {length}\r\n"),
            hidden.clone(),
        ),
        (
            "a signed length",
            format!("Content-Length: +{length}\r\n"),
            hidden.clone(),
        ),
        (
            "a hexadecimal length",
            "Content-Length: 0x10\r\n".into(),
            hidden.clone(),
        ),
        (
            "a negative length",
            "Content-Length: -1\r\n".into(),
            hidden.clone(),
        ),
        (
            "a length beyond numbers",
            "Content-Length: 99999999999999999999\r\n".into(),
            hidden.clone(),
        ),
        (
            "chunked twice",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n".into(),
            chunked.clone(),
        ),
        (
            "chunked and then not",
            "Transfer-Encoding: chunked, identity\r\n".into(),
            chunked.clone(),
        ),
        (
            "another coding",
            "Transfer-Encoding: xchunked\r\n".into(),
            chunked.clone(),
        ),
        (
            "gzip",
            "Transfer-Encoding: gzip, chunked\r\n".into(),
            chunked.clone(),
        ),
        (
            "a space before the colon",
            format!("Content-Length : {length}\r\n"),
            hidden.clone(),
        ),
        (
            "a folded header",
            "X: a\r\n Content-Length: 3\r\n".into(),
            hidden.clone(),
        ),
        ("a header without a name", ": x\r\n".into(), hidden.clone()),
        ("a zero byte", "X: a\0b\r\n".into(), hidden.clone()),
        (
            "a carriage return",
            "X: a\rContent-Length: 3\r\n".into(),
            hidden.clone(),
        ),
        (
            "two hosts",
            "Host: other.example\r\n".into(),
            hidden.clone(),
        ),
        (
            "chunks of odd size",
            "Transfer-Encoding: chunked\r\n".into(),
            format!("-1\r\n{hidden}\r\n0\r\n\r\n"),
        ),
        (
            "chunks beyond numbers",
            "Transfer-Encoding: chunked\r\n".into(),
            format!("FFFFFFFFFFFFFFFFF\r\n{hidden}"),
        ),
    ] {
        let mut raw = RawConnection::open(client.addr()).await;
        raw.write(format!(
            "POST /v2/team/app/blobs/uploads/ HTTP/1.1\r\n{lines}{head}\r\n{body}"
        ))
        .await
        .unwrap();
        let answer = String::from_utf8_lossy(&raw.read_to_end().await).into_owned();
        assert_eq!(
            answer
                .lines()
                .filter(|line| line.starts_with("HTTP/1.1 "))
                .count(),
            1,
            "{what}: {answer}"
        );
        let status: u16 = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .expect("a status");
        // Chunks are looked at when the body is, and this request needs none.
        let in_time = status == 202 && what.starts_with("chunks");
        assert!(matches!(status, 400 | 501) || in_time, "{what}: {answer}");
        assert!(!answer.contains("smuggled"), "{what}: {answer}");
    }
}

/// Spec: API-4.
#[tokio::test]
async fn broken_heads_are_refused() {
    let (_server, client, lines) = server().await;
    for (request, statuses) in [
        ("\r\n\r\n\0\0".to_owned(), &[400][..]),
        ("hello\r\n\r\n".into(), &[400]),
        (format!("GET /v2/\r\n{lines}\r\n"), &[400]),
        (format!("GET  /v2/ HTTP/1.1\r\n{lines}\r\n"), &[400]),
        (format!("GET /v2/ HTTP/1.1 x\r\n{lines}\r\n"), &[400]),
        (format!("GET /v2/ HTTP/3.0\r\n{lines}\r\n"), &[400, 505]),
        (format!("GET v2 HTTP/1.1\r\n{lines}\r\n"), &[400, 404]),
        ("GET /v2/ HTTP/1.1\r\n\r\n".into(), &[400]),
        (format!("G(T /v2/ HTTP/1.1\r\n{lines}\r\n"), &[400, 405]),
        (
            format!("GET /{} HTTP/1.1\r\n{lines}\r\n", "a".repeat(100_000)),
            &[414, 431],
        ),
        (
            format!(
                "GET /v2/ HTTP/1.1\r\n{lines}X: {}\r\n\r\n",
                "a".repeat(100_000)
            ),
            &[431],
        ),
        (
            format!(
                "GET /v2/ HTTP/1.1\r\n{lines}{}\r\n",
                "X: y\r\n".repeat(5000)
            ),
            &[431],
        ),
    ] {
        let mut raw = RawConnection::open(client.addr()).await;
        // The server may close before all of it is written.
        let _ = raw.write(&request).await;
        let answer = raw.read(false).await;
        let status = answer.as_ref().map(|answer| answer.status);
        assert!(
            status.is_some_and(|status| statuses.contains(&status)),
            "{request:.60}: {answer:?}"
        );
    }
    client.get("/v2/").send().await.expect_status(200);
}

/// Spec: API-4.
#[tokio::test]
async fn methods_that_nobody_knows_are_errors_of_the_protocol() {
    both(async |client, name| {
        for method in ["TRACE", "OPTIONS", "PROPFIND", "get"] {
            let method = http::Method::from_bytes(method.as_bytes()).unwrap();
            let refused = client
                .request(method, &format!("/v2/{name}/tags/list"))
                .send()
                .await;
            refused
                .expect_error(405, "UNSUPPORTED")
                .expect_header("allow");
        }
    })
    .await;
}

/// Spec: API-4.
#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let (_server, client, lines) = server().await;
    let content = Content::random(100_000);
    client.push_blob("team/app", &content).await;
    let path = blob("team/app", &content.digest);
    let mut raw = RawConnection::open(client.addr()).await;
    let requests: String = [
        format!("GET /v2/ HTTP/1.1\r\n{lines}\r\n"),
        format!("GET {path} HTTP/1.1\r\n{lines}Content-Length: 5\r\n\r\nhello"),
        format!("HEAD {path} HTTP/1.1\r\n{lines}\r\n"),
        format!("POST /v2/team/app/blobs/uploads/ HTTP/1.1\r\n{lines}Content-Length: 0\r\n\r\n"),
        format!("GET /v2/none HTTP/1.1\r\n{lines}\r\n"),
        "nonsense\r\n\r\n".into(),
    ]
    .concat();
    raw.write(requests).await.unwrap();
    for (to_head, status) in [
        (false, 200),
        (false, 200),
        (true, 200),
        (false, 202),
        (false, 404),
        (false, 400),
    ] {
        let answer = raw.read(to_head).await.expect("an answer");
        assert_eq!(answer.status, status, "{}", answer.head);
    }
    assert!(raw.read_to_end().await.is_empty());
}

/// Spec: UP-12, UP-31.
#[tokio::test]
async fn a_body_that_ends_early_stores_nothing() {
    let (_server, client, lines) = server().await;
    for size in [100, 200_000] {
        let content = Content::random(size);
        let half = content.bytes.slice(..size / 2);
        for framing in ["length", "chunks"] {
            let location = client.start_upload("team/app").await;
            let target = with_query(&location, &format!("digest={}", content.digest));
            let post = format!("/v2/team/app/blobs/uploads/?digest={}", content.digest);
            for (method, target) in [("PUT", &target), ("POST", &post)] {
                let mut raw = RawConnection::open(client.addr()).await;
                let (head, body) = match framing {
                    "length" => (format!("Content-Length: {size}"), half.to_vec()),
                    _ => {
                        let mut body = format!("{:x}\r\n", half.len()).into_bytes();
                        body.extend_from_slice(&half);
                        (String::from("Transfer-Encoding: chunked"), body)
                    }
                };
                raw.write(format!(
                    "{method} {target} HTTP/1.1\r\n{lines}{head}\r\n\r\n"
                ))
                .await
                .unwrap();
                raw.write(body).await.unwrap();
                raw.finish().await;
                let answer = raw.read(false).await;
                assert!(
                    answer.as_ref().is_none_or(|answer| answer.status == 400),
                    "{answer:?}"
                );
            }
            client
                .get(&blob("team/app", &content.digest))
                .send()
                .await
                .expect_status(404);
            client.get(&location).send().await.expect_status(204);
        }
    }
}

/// Spec: UP-12.
#[tokio::test]
async fn bytes_beyond_the_announced_length_are_not_part_of_the_blob() {
    let (_server, client, lines) = server().await;
    let content = Content::random(1000);
    let mut raw = RawConnection::open(client.addr()).await;
    let target = format!("/v2/team/app/blobs/uploads/?digest={}", content.digest);
    raw.write(format!(
        "POST {target} HTTP/1.1\r\n{lines}Content-Length: 1000\r\n\r\n"
    ))
    .await
    .unwrap();
    raw.write(&content.bytes).await.unwrap();
    raw.write("and more\r\n\r\n").await.unwrap();
    assert_eq!(raw.read(false).await.expect("an answer").status, 201);
    assert_eq!(raw.read(false).await.expect("an answer").status, 400);
    let stored = client
        .get(&blob("team/app", &content.digest))
        .send()
        .await
        .expect_status(200);
    assert_eq!(stored.body, content.bytes);
}

/// Spec: UP-12.
#[tokio::test]
async fn a_stream_shorter_than_its_length_stores_nothing() {
    let (server, _, _) = server().await;
    let client = server.admin(Version::Http2);
    let content = Content::random(1000);
    let target = format!("/v2/team/app/blobs/uploads/?digest={}", content.digest);
    for bytes in [
        content.bytes.slice(..500),
        Bytes::from([&content.bytes[..], b"more"].concat()),
    ] {
        let answer = client
            .post(&target)
            .script(Some(1000), [Step::Data(bytes)])
            .try_send()
            .await;
        assert!(
            answer.as_ref().is_ok_and(|answer| answer.status == 400) || answer.is_err(),
            "{answer:?}"
        );
        client
            .get(&blob("team/app", &content.digest))
            .send()
            .await
            .expect_status(404);
    }
}

/// Spec: AUTH-1, UP-24, MPUT-15.
#[tokio::test]
async fn refusals_are_seen_by_clients_that_are_still_sending_100_mib() {
    let server = TestServer::start(TestOptions {
        config: "[limits]\nblob_size = \"1 MiB\"\n".into(),
        ..Default::default()
    })
    .await;
    let body = random_bytes(100 << 20);
    both_on(&server, async |client, name| {
        let location = client.start_upload(&name).await;
        let manifest = format!("/v2/{name}/manifests/v1");
        for (request, status) in [
            (client.clone().anonymous().patch(&location), 401),
            (
                client
                    .patch(&location)
                    .header("content-range", &format!("5-{}", 4 + body.len())),
                416,
            ),
            (client.patch(&location), 413),
            (
                client
                    .put(&manifest)
                    .header("content-type", wharf_oci::media_type::OCI_MANIFEST),
                413,
            ),
            (client.patch("/v2/nothing/here"), 404),
        ] {
            let answer = request.body(body.clone()).send().await;
            let answer = answer.expect_status(status);
            assert!(!answer.error_codes().is_empty());
        }
    })
    .await;
}

/// Spec: AUTH-1.
#[tokio::test]
async fn a_refused_body_is_discarded_up_to_a_limit() {
    let (_server, client, lines) = server().await;
    // Small enough to be read away: the connection goes on.
    let mut raw = RawConnection::open(client.addr()).await;
    for _ in 0..2 {
        raw.write("PATCH /v2/team/app/blobs/uploads/x HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n").await.unwrap();
        raw.write(random_bytes(50_000)).await.unwrap();
        assert_eq!(raw.read(false).await.expect("an answer").status, 401);
    }
    raw.write(format!("GET /v2/ HTTP/1.1\r\n{lines}\r\n"))
        .await
        .unwrap();
    assert_eq!(raw.read(false).await.expect("an answer").status, 200);
    // Announced and never sent: the connection ends soon.
    let mut raw = RawConnection::open(client.addr()).await;
    raw.write("PATCH /v2/team/app/blobs/uploads/x HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n").await.unwrap();
    assert_eq!(raw.read(false).await.expect("an answer").status, 401);
    assert!(raw.closes_within(Duration::from_secs(10)).await);
}

/// Spec: API-1.
#[tokio::test]
async fn traversal_reaches_nothing() {
    let (server, client, lines) = server().await;
    std::fs::write(server.folder().join("outside"), "secret").unwrap();
    for target in [
        "/../../outside",
        "/v2/../../outside",
        "/v2/team/app/blobs/../../../outside",
        "/v2/team/app/blobs/sha256:..%2f..%2f..%2foutside",
        "/v2/team/app/blobs/uploads/..%2f..%2foutside",
        "/v2/team/app/blobs/uploads/..",
        "/v2/team/app/blobs/uploads/../../outside",
        "/v2/team%2fapp/tags/list",
        "/v2/team/app/manifests/..",
        "/v2/team/app/manifests/%2e%2e%2f",
        "/v2/%2e%2e/tags/list",
        "/v2/team\\app/tags/list",
        "/v2/team/app%00/tags/list",
        "/v2/team/app/manifests/%ff",
        "/v2/team/app/manifests/%",
        "//v2/",
        "/v2//tags/list",
    ] {
        let mut raw = RawConnection::open(client.addr()).await;
        raw.write(format!("GET {target} HTTP/1.1\r\n{lines}\r\n"))
            .await
            .unwrap();
        let answer = raw.read(false).await.expect("an answer");
        assert!(
            matches!(answer.status, 400 | 404),
            "{target}: {}",
            answer.head
        );
        assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
    }
}
