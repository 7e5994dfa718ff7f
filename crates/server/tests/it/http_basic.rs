//! What every answer has, on every kind of listener.

use std::io::{Read as _, Write as _};
use std::sync::atomic::Ordering;

use super::http_support::{Note, Raw, Toybox, eventually};

/// Spec: ERR-5, PING-3.
#[tokio::test(flavor = "multi_thread")]
async fn answers_carry_what_all_answers_carry() {
    let toybox = Toybox::start();
    let (plain, v2, again) = toybox
        .client(|mut raw| (raw.get("/small"), raw.get("/v2/"), raw.get("/v2/")))
        .await;
    assert_eq!((plain.status, plain.body.len()), (200, 1024));
    assert_eq!(plain.header("content-length"), Some("1024"));
    assert_eq!(plain.header("x-content-type-options"), Some("nosniff"));
    assert!(plain.header("date").is_some());
    assert_eq!(plain.header("docker-distribution-api-version"), None);
    assert_eq!(plain.header("strict-transport-security"), None);
    assert_eq!(
        v2.header("docker-distribution-api-version"),
        Some("registry/2.0")
    );
    let id = v2.header("x-request-id").unwrap();
    assert_eq!(id.len(), 16);
    assert_ne!(Some(id), again.header("x-request-id"));
}

/// Spec: ERR-1, ERR-4, ERR-5, API-4, NAME-3, PING-3.
#[tokio::test(flavor = "multi_thread")]
async fn errors_below_v2_are_oci_json() {
    let toybox = Toybox::start();
    let answers = toybox
        .client(|mut raw| {
            [
                "/v2/nothing",
                "/v2/A/tags/list",
                "/v2/a%2fb/tags/list",
                "/v2/a/blobs/sha256:0",
                "/v2/a/manifests/.x",
            ]
            .map(|path| raw.get(path))
        })
        .await;
    for (answer, status) in answers.iter().zip([404, 400, 400, 400, 400]) {
        assert_eq!(answer.status, status);
        assert!(answer.is_oci_error(), "{}", answer.text());
        assert!(
            answer
                .text()
                .contains(answer.header("x-request-id").unwrap())
        );
        assert_eq!(
            answer.header("docker-distribution-api-version"),
            Some("registry/2.0")
        );
    }
    let refused = toybox
        .client(|mut raw| {
            raw.send("PUT /v2/a/tags/list HTTP/1.1\r\nHost: toy\r\nContent-Length: 2\r\n\r\n{}")
                .answer()
        })
        .await;
    assert_eq!(refused.status, 405);
    assert_eq!(refused.header("allow"), Some("GET, HEAD"));
    assert!(refused.is_oci_error());
}

/// Spec: API-6, API-7, PING-4.
#[tokio::test(flavor = "multi_thread")]
async fn head_has_the_length_and_no_body() {
    let toybox = Toybox::start();
    toybox
        .client(|mut raw| {
            let mut head = |path: &str| {
                raw.send(format!("HEAD {path} HTTP/1.1\r\nHost: toy\r\n\r\n"))
                    .try_answer(true)
                    .unwrap()
                    .unwrap()
            };
            let small = head("/small");
            assert_eq!(small.header("content-length"), Some("1024"));
            let big = head("/big?3");
            assert_eq!(big.header("content-length"), Some("3145728"));
            assert_eq!(head("/v2/").status, 200);
            let error = head("/v2/A/tags/list");
            assert_eq!(error.status, 400);
            // The connection is in step: nothing of a body came.
            assert_eq!(raw.get("/small").body.len(), 1024);
            let empty = raw.get("/204");
            assert_eq!((empty.status, empty.header("content-length")), (204, None));
            assert_eq!(raw.get("/empty").header("content-length"), Some("0"));
        })
        .await;
}

/// Spec: UP-14.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_come_with_length_or_in_chunks() {
    let toybox = Toybox::start();
    toybox
        .client(|mut raw| {
            raw.send("PUT /echo HTTP/1.1\r\nHost: toy\r\nContent-Length: 5\r\n\r\nhello");
            assert_eq!(raw.answer().text(), "5");
            raw.send("PUT /echo HTTP/1.1\r\nHost: toy\r\nTransfer-Encoding: chunked\r\n\r\n");
            for _ in 0..100 {
                raw.send(format!("3e8\r\n{}\r\n", "y".repeat(1000)));
            }
            raw.send("0\r\n\r\n");
            assert_eq!(raw.answer().text(), "100000");
            raw.send("PUT /echo HTTP/1.1\r\nHost: toy\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(raw.answer().text(), "0");
        })
        .await;
    let finished = toybox.notes.finished.lock().unwrap().clone();
    assert_eq!(
        finished[1],
        Note {
            method: "PUT".into(),
            route: "unknown",
            status: Some(200),
            complete: true,
            bytes_in: 100_000,
            bytes_out: 6,
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let toybox = Toybox::start();
    toybox
        .client(|mut raw| {
            raw.send(
                "PUT /echo HTTP/1.1\r\nHost: toy\r\nContent-Length: 3\r\n\r\nabc\
                 GET /slow?50 HTTP/1.1\r\nHost: toy\r\n\r\n\
                 GET /empty HTTP/1.1\r\nHost: toy\r\n\r\n\
                 GET /v2/ HTTP/1.1\r\nHost: toy\r\n\r\n",
            );
            assert_eq!(raw.answer().text(), "3");
            assert_eq!(raw.answer().text(), "late");
            assert_eq!(raw.answer().text(), "");
            assert_eq!(raw.answer().text(), "/v2/");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_side_still_gets_its_answer() {
    let toybox = Toybox::start();
    toybox
        .client(|mut raw| {
            raw.send("GET /slow?100 HTTP/1.1\r\nHost: toy\r\n\r\n");
            raw.socket.shutdown(std::net::Shutdown::Write).unwrap();
            assert_eq!(raw.answer().text(), "late");
            assert!(raw.is_closed());
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_an_answer_and_not_an_end() {
    let toybox = Toybox::start();
    toybox
        .client(|mut raw| {
            let answer = raw.get("/panic");
            assert_eq!(answer.status, 500);
            assert!(answer.is_oci_error(), "{}", answer.text());
            assert!(!answer.text().contains("toy is broken"));
            assert_eq!(raw.get("/small").status, 200);
        })
        .await;
    assert_eq!(toybox.notes.panics.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_stream_breaks_the_connection() {
    let toybox = Toybox::start();
    let error = toybox
        .client(|mut raw| {
            raw.send("GET /broken HTTP/1.1\r\nHost: toy\r\n\r\n");
            raw.try_answer(false).unwrap_err()
        })
        .await;
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    let note = eventually(|| toybox.notes.finished.lock().unwrap().first().cloned()).await;
    assert_eq!(
        (note.status, note.complete, note.bytes_out),
        (Some(200), false, 4)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn http_1_0_is_answered_and_closed() {
    let toybox = Toybox::start();
    toybox
        .client(|mut raw| {
            let answer = raw.send("GET /small HTTP/1.0\r\n\r\n").answer();
            assert_eq!((answer.status, answer.body.len()), (200, 1024));
            assert!(raw.is_closed());
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unix_sockets_and_ipv6_serve_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wharf.sock");
    let addr = format!("unix:{}?mode=600", path.display());
    let toybox = Toybox::on(addr.parse().unwrap(), |_| {});
    let text = tokio::task::spawn_blocking(move || {
        let mut socket = std::os::unix::net::UnixStream::connect(path).unwrap();
        socket
            .write_all(b"GET /who HTTP/1.1\r\nHost: toy\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        text
    })
    .await
    .unwrap();
    assert!(text.contains("addr=- unix=true secure=true"), "{text}");
    drop(toybox);
    let toybox = Toybox::on("[::1]:0".parse().unwrap(), |_| {});
    let who = toybox.client(|mut raw: Raw| raw.get("/who").text()).await;
    assert!(who.starts_with("addr=::1 unix=false secure=false"), "{who}");
}
