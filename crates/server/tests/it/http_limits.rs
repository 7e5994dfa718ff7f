//! What slow, stalled, greedy and idle clients may cost.

use std::io::{Read as _, Write as _};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wharf::http::Limits;
use wharf::http::limits::Progress;
use wharf::http::observer::ConnectionEnd;

use super::http_support::{MIB, Raw, Toybox, eventually};

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Limits so short that a test can wait for them.
fn hasty() -> Limits {
    Limits {
        header_time: millis(300),
        handshake_time: millis(300),
        keep_alive: millis(600),
        body_progress: Progress {
            bytes_per_second: 10_000,
            window: millis(500),
        },
        discard_time: millis(500),
        ..Limits::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_does_not_end_is_cut_off() {
    let toybox = Toybox::limited(hasty());
    let took = toybox
        .client(|mut raw| {
            let start = Instant::now();
            // One byte at a time, for ever: the slow loris.
            for byte in b"GET / HTTP/1.1\r\nHost: toy\r\nX: "
                .iter()
                .chain(std::iter::repeat(&b'a'))
            {
                if raw.socket.write_all(&[*byte]).is_err() {
                    break;
                }
                std::thread::sleep(millis(20));
            }
            start.elapsed()
        })
        .await;
    assert!(took > millis(250) && took < millis(2000), "{took:?}");
    assert_eq!(toybox.an_end().await, ConnectionEnd::HeaderTimeout);
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_cut_off() {
    let toybox = Toybox::limited(hasty());
    toybox.client(|mut raw| assert!(raw.is_closed())).await;
    assert_eq!(toybox.an_end().await, ConnectionEnd::HeaderTimeout);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_close_and_busy_ones_do_not() {
    let toybox = Toybox::limited(hasty());
    toybox
        .client(|mut raw| {
            // A handler may take longer than any pause between requests.
            assert_eq!(raw.get("/slow?1500").text(), "late");
            std::thread::sleep(millis(300));
            let start = Instant::now();
            assert_eq!(raw.get("/small").status, 200);
            assert!(raw.is_closed());
            assert!(start.elapsed() > millis(500), "{:?}", start.elapsed());
        })
        .await;
    assert_eq!(toybox.an_end().await, ConnectionEnd::Idle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_below_the_least_speed_is_told_so() {
    let toybox = Toybox::limited(hasty());
    let (took, answer) = toybox
        .client(|mut raw| {
            raw.send("PUT /echo HTTP/1.1\r\nHost: toy\r\nContent-Length: 1000000\r\n\r\n");
            let start = Instant::now();
            let mut trickle = raw.socket.try_clone().unwrap();
            let writing = std::thread::spawn(move || {
                while trickle.write_all(&[0; 50]).is_ok() && start.elapsed() < millis(5000) {
                    std::thread::sleep(millis(50));
                }
            });
            let answer = raw.answer();
            let took = start.elapsed();
            drop(raw);
            writing.join().unwrap();
            (took, answer)
        })
        .await;
    assert_eq!(answer.status, 408);
    assert!(answer.is_oci_error());
    assert_eq!(answer.header("connection"), Some("close"));
    assert!(took > millis(400) && took < millis(2000), "{took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_body_above_the_least_speed_may_take_its_time() {
    let toybox = Toybox::limited(hasty());
    let text = toybox
        .client(|mut raw| {
            raw.send("PUT /echo HTTP/1.1\r\nHost: toy\r\nContent-Length: 40000\r\n\r\n");
            for _ in 0..20 {
                raw.send(vec![0; 2000]);
                std::thread::sleep(millis(100));
            }
            raw.answer().text()
        })
        .await;
    assert_eq!(text, "40000");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_dropped() {
    let toybox = Toybox::limited(hasty());
    let raw = toybox
        .client(|mut raw| {
            raw.send("GET /big?1000 HTTP/1.1\r\nHost: toy\r\n\r\n");
            raw
        })
        .await;
    assert_eq!(toybox.an_end().await, ConnectionEnd::Stalled);
    let note = eventually(|| toybox.notes.finished.lock().unwrap().first().cloned()).await;
    assert_eq!((note.status, note.complete), (Some(200), false));
    assert!(note.bytes_out < 100 * MIB as u64, "{note:?}");
    assert_eq!(toybox.toy.running.load(Ordering::SeqCst), 0);
    drop(raw);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_above_the_least_speed_gets_everything() {
    let toybox = Toybox::limited(hasty());
    let got = toybox
        .client(|mut raw| {
            raw.send("GET /big?12 HTTP/1.1\r\nHost: toy\r\nConnection: close\r\n\r\n");
            let mut buffer = vec![0; MIB / 2];
            let mut got = 0;
            loop {
                match raw.socket.read(&mut buffer).unwrap() {
                    0 => return got,
                    some => got += some,
                }
                std::thread::sleep(millis(80));
            }
        })
        .await;
    assert!(got > 12 * MIB, "{got}");
}

/// Spec: ERR-4.
#[tokio::test(flavor = "multi_thread")]
async fn heads_have_a_size() {
    let toybox = Toybox::start();
    let answers = toybox
        .client(|raw| {
            let addr = raw.socket.peer_addr().unwrap();
            let long = "a".repeat(40 * 1024);
            let many = "a: b\r\n".repeat(200);
            [
                format!("GET / HTTP/1.1\r\nHost: toy\r\nCookie: {long}\r\n\r\n"),
                format!("GET /{long} HTTP/1.1\r\nHost: toy\r\n\r\n"),
                format!("GET / HTTP/1.1\r\nHost: toy\r\n{many}\r\n"),
            ]
            .map(|request| Raw::connect(addr).send(request).answer())
        })
        .await;
    for (answer, status) in answers.iter().zip([431, 414, 431]) {
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.is_oci_error());
        assert_eq!(answer.header("connection"), Some("close"));
    }
    // A token of a user in many groups is no attack.
    let token = "t".repeat(16 * 1024);
    let answer = toybox
        .client(move |mut raw| {
            raw.send(format!(
                "GET /small HTTP/1.1\r\nHost: toy\r\nAuthorization: Bearer {token}\r\n\r\n"
            ))
            .answer()
        })
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_end_after_their_requests() {
    let toybox = Toybox::limited(Limits {
        requests_per_connection: 3,
        ..Limits::default()
    });
    toybox
        .client(|mut raw| {
            assert_eq!(raw.get("/small").header("connection"), None);
            assert_eq!(raw.get("/small").header("connection"), None);
            assert_eq!(raw.get("/small").header("connection"), Some("close"));
            assert!(raw.is_closed());
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn further_connections_wait_for_a_place() {
    let toybox = Toybox::limited(Limits {
        connections: 2,
        ..Limits::default()
    });
    toybox
        .client(|mut one| {
            let addr = one.socket.peer_addr().unwrap();
            let mut two = Raw::connect(addr);
            assert_eq!(one.get("/small").status, 200);
            two.send("GET /slow?700 HTTP/1.1\r\nHost: toy\r\n\r\n");
            std::thread::sleep(millis(100));
            let mut three = Raw::connect(addr);
            let start = Instant::now();
            three.send("GET /small HTTP/1.1\r\nHost: toy\r\n\r\n");
            assert_eq!(two.answer().text(), "late");
            drop(two);
            assert_eq!(three.answer().status, 200);
            assert!(start.elapsed() > millis(500), "{:?}", start.elapsed());
        })
        .await;
    assert_eq!(toybox.notes.opened.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_make_room() {
    let toybox = Toybox::limited(Limits {
        connections: 3,
        ..Limits::default()
    });
    toybox
        .client(|mut one| {
            let addr = one.socket.peer_addr().unwrap();
            let mut idle: Vec<Raw> = (0..3).map(|_| Raw::connect(addr)).collect();
            assert_eq!(one.get("/small").status, 200);
            drop(one);
            for raw in &mut idle {
                assert_eq!(raw.get("/small").status, 200);
            }
            std::thread::sleep(millis(1500));
            // Each newcomer takes the place of somebody who only sits there.
            for _ in 0..6 {
                let mut new = Raw::connect(addr);
                assert_eq!(new.get("/small").status, 200);
                idle.push(new);
                std::thread::sleep(millis(1100));
            }
        })
        .await;
}

/// Connections that are idle for a while give up their buffers; nobody may notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_napped_serves_as_before() {
    let toybox = Toybox::start();
    toybox
        .client(|mut raw| {
            for _ in 0..2 {
                assert_eq!(raw.get("/small").body.len(), 1024);
                std::thread::sleep(millis(2500));
                // Half a head, a pause, the rest and another request behind it.
                raw.send("GET /small HT");
                std::thread::sleep(millis(2500));
                raw.send("TP/1.1\r\nHost: toy\r\n\r\nGET /v2/ HTTP/1.1\r\nHost: toy\r\n\r\n");
                assert_eq!(raw.answer().body.len(), 1024);
                assert_eq!(raw.answer().text(), "/v2/");
                std::thread::sleep(millis(2500));
                raw.send("PUT /echo HTTP/1.1\r\nHost: toy\r\nContent-Length: 5\r\n\r\n");
                std::thread::sleep(millis(2500));
                assert_eq!(raw.send("hello").answer().text(), "5");
            }
            std::thread::sleep(millis(2500));
            assert_eq!(
                raw.send("GET /small HTTP/1.1\nHost: toy\n\n")
                    .answer()
                    .status,
                400
            );
            assert!(raw.is_closed());
        })
        .await;
    assert_eq!(toybox.notes.opened.load(Ordering::SeqCst), 1);
    assert_eq!(*toybox.notes.malformed.lock().unwrap(), ["bare-line-feed"]);
}
