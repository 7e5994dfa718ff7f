//! A request that is refused before its body was read: the client sees the answer, not a reset (§2, limits).

use std::io::{ErrorKind, Write as _};
use std::time::{Duration, Instant};

use super::http_support::{Answer, MIB, Raw, Toybox};

const BODY: usize = 100 * MIB;

fn head(path: &str, headers: &str) -> String {
    format!("PUT {path} HTTP/1.1\r\nHost: toy\r\n{headers}\r\n\r\n")
}

/// Sends all it can, and only then looks for an answer. Whether all was sent, and the answer.
fn write_then_read(mut raw: Raw, path: &str) -> (bool, Answer) {
    raw.send(head(path, &format!("Content-Length: {BODY}")));
    let piece = vec![0; MIB];
    let mut sent = 0;
    while sent < BODY {
        match raw.socket.write_all(&piece) {
            Ok(()) => sent += piece.len(),
            Err(error) => {
                assert!(
                    matches!(
                        error.kind(),
                        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
                    ),
                    "{error}"
                );
                break;
            }
        }
    }
    (sent == BODY, raw.answer())
}

/// Sends from one thread while another waits for the answer, as Go's and curl's clients do.
fn write_and_read(mut raw: Raw, path: &str) -> Answer {
    raw.send(head(path, &format!("Content-Length: {BODY}")));
    let mut writer = raw.socket.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        let piece = vec![0; MIB];
        for _ in 0..BODY / MIB {
            if writer.write_all(&piece).is_err() {
                return;
            }
        }
    });
    let answer = raw.answer();
    let _ = raw.socket.shutdown(std::net::Shutdown::Both);
    writing.join().unwrap();
    answer
}

/// Spec: ERR-4.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_while_it_writes_sees_the_refusal() {
    let toybox = Toybox::start();
    for (path, status) in [("/refuse", 401), ("/limit", 413), ("/first", 416)] {
        let start = Instant::now();
        let answer = toybox.client(move |raw| write_and_read(raw, path)).await;
        assert_eq!(answer.status, status);
        assert!(answer.is_oci_error());
        assert_eq!(answer.header("connection"), Some("close"));
        // The answer does not wait for the body.
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "{:?}",
            start.elapsed()
        );
    }
}

/// Spec: ERR-4.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_writes_everything_first_sees_the_refusal() {
    let toybox = Toybox::start();
    for (path, status) in [("/refuse", 401), ("/limit", 413), ("/first", 416)] {
        let start = Instant::now();
        let (all, answer) = toybox.client(move |raw| write_then_read(raw, path)).await;
        assert_eq!(answer.status, status);
        assert!(answer.is_oci_error());
        // Not all of it is taken, and the connection is given up in bounded time.
        assert!(!all);
        assert!(
            start.elapsed() < Duration::from_secs(8),
            "{:?}",
            start.elapsed()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_below_the_limit_of_discarding_is_taken_whole() {
    let toybox = Toybox::start();
    let start = Instant::now();
    toybox
        .client(|mut raw| {
            raw.send(head("/refuse", &format!("Content-Length: {}", 900 * 1024)))
                .send(vec![0; 900 * 1024]);
            assert_eq!(raw.answer().status, 401);
            assert!(raw.is_closed());
        })
        .await;
    toybox.an_end().await;
    assert!(
        start.elapsed() < Duration::from_secs(1),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_unread_body_does_not_cost_the_connection() {
    let toybox = Toybox::start();
    toybox
        .client(|mut raw| {
            for _ in 0..3 {
                raw.send(head("/refuse", "Content-Length: 2000"))
                    .send(vec![0; 2000]);
                let answer = raw.answer();
                assert_eq!((answer.status, answer.header("connection")), (401, None));
            }
            // Announced but never sent: the answer comes all the same, and then the end.
            raw.send(head("/refuse", "Content-Length: 2000"));
            let answer = raw.answer();
            assert_eq!(
                (answer.status, answer.header("connection")),
                (401, Some("close"))
            );
        })
        .await;
}

/// Spec: UP-15.
#[tokio::test(flavor = "multi_thread")]
async fn expect_continue_waits_for_the_handler() {
    let toybox = Toybox::start();
    toybox
        .client(|mut raw| {
            let expect = "Content-Length: 5\r\nExpect: 100-continue";
            raw.send(head("/echo", expect));
            let (status, _) = raw.head().unwrap().unwrap();
            assert_eq!(status, 100);
            raw.send("hello");
            assert_eq!(raw.answer().text(), "5");
            // Refused without a look at the body: no 100 before, and no guessing whether the body comes.
            raw.send(head("/refuse", expect));
            let answer = raw.answer();
            assert_eq!(
                (answer.status, answer.header("connection")),
                (401, Some("close"))
            );
            assert!(raw.is_closed());
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_is_told() {
    let toybox = Toybox::start();
    toybox
        .client(|mut raw| {
            raw.send(head("/echo", "Content-Length: 1000"))
                .send("short");
            raw.socket.shutdown(std::net::Shutdown::Write).unwrap();
            let answer = raw.answer();
            assert_eq!(answer.status, 400);
            assert!(answer.text().contains("SIZE_INVALID"), "{}", answer.text());
            assert!(raw.is_closed());
        })
        .await;
}
