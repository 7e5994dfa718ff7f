//! Stopping: what runs may finish, what idles goes, what takes too long is cut off.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use wharf::http::shutdown::{Pace, Readiness, Stopped, stop};

use super::http_support::{Raw, Toybox, eventually};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Spec: OPS-4.
#[tokio::test(flavor = "multi_thread")]
async fn running_requests_finish_and_idle_connections_go() {
    let toybox = Toybox::start();
    let addr = toybox.addr();
    let idle = tokio::task::spawn_blocking(move || {
        let mut raw = Raw::connect(addr);
        assert_eq!(raw.get("/small").status, 200);
        assert!(raw.is_closed());
    });
    let busy = tokio::task::spawn_blocking(move || {
        let mut raw = Raw::connect(addr);
        let answer = raw.get("/slow?700");
        assert!(raw.is_closed());
        answer
    });
    let silent = tokio::task::spawn_blocking(move || Raw::connect(addr).is_closed());
    eventually(|| (toybox.toy.running.load(Ordering::SeqCst) == 1).then_some(())).await;
    eventually(|| (toybox.notes.opened.load(Ordering::SeqCst) == 3).then_some(())).await;
    let readiness = Readiness::new();
    readiness.set(true);
    let pace = Pace {
        delay: Duration::ZERO,
        grace: seconds(10),
    };
    let start = Instant::now();
    let servers = [toybox.running];
    let stopped = stop(&servers, &readiness, pace, std::future::pending()).await;
    assert_eq!(stopped, Stopped::Clean);
    assert!(start.elapsed() < seconds(9), "{:?}", start.elapsed());
    assert!(!readiness.is_ready());
    let answer = busy.await.unwrap();
    assert_eq!(answer.text(), "late");
    assert_eq!(answer.header("connection"), Some("close"));
    idle.await.unwrap();
    assert!(silent.await.unwrap());
    assert!(std::net::TcpStream::connect(addr).is_err());
}

/// A proxy that has connected before it could know sends its request all the same. On one thread, so that the server has heard of
/// none of these connections when it is told to stop.
///
/// Spec: OPS-4.
#[tokio::test]
async fn connections_that_only_just_came_are_answered_and_told_that_it_was_the_last() {
    let toybox = Toybox::start();
    let addr = toybox.addr();
    let mut waiting: Vec<Raw> = (0..50).map(|_| Raw::connect(addr)).collect();
    for raw in &mut waiting {
        raw.send("GET /small HTTP/1.1\r\nHost: toy\r\n\r\n");
    }
    assert_eq!(toybox.notes.opened.load(Ordering::SeqCst), 0);
    let last = |mut raw: Raw| {
        let answer = raw.answer();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(raw.is_closed());
    };
    let asking = tokio::task::spawn_blocking(move || {
        waiting.into_iter().for_each(last);
        // Nobody new gets in.
        assert!(std::net::TcpStream::connect(addr).is_err());
    });
    assert_eq!(toybox.running.shutdown(seconds(30)).await, 0);
    asking.await.unwrap();
    assert_eq!(toybox.notes.opened.load(Ordering::SeqCst), 50);
}

/// Spec: OPS-4.
#[tokio::test(flavor = "multi_thread")]
async fn during_the_delay_everything_is_served() {
    let toybox = Toybox::start();
    let addr = toybox.addr();
    let readiness = Readiness::new();
    readiness.set(true);
    let servers = [toybox.running];
    let pace = Pace {
        delay: Duration::from_millis(800),
        grace: seconds(5),
    };
    let stopping = stop(&servers, &readiness, pace, std::future::pending());
    let asking = async {
        let ready = readiness.clone();
        eventually(|| (!ready.is_ready()).then_some(())).await;
        tokio::task::spawn_blocking(move || Raw::connect(addr).get("/small").status)
            .await
            .unwrap()
    };
    let (stopped, status) = tokio::join!(stopping, asking);
    assert_eq!((stopped, status), (Stopped::Clean, 200));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlasts_the_grace_is_cut_off() {
    let toybox = Toybox::start();
    let addr = toybox.addr();
    let client = tokio::task::spawn_blocking(move || {
        let mut raw = Raw::connect(addr);
        raw.send("GET /slow?60000 HTTP/1.1\r\nHost: toy\r\n\r\n");
        raw.is_closed()
    });
    eventually(|| (toybox.toy.running.load(Ordering::SeqCst) == 1).then_some(())).await;
    let start = Instant::now();
    let cut = toybox.running.shutdown(Duration::from_millis(300)).await;
    assert_eq!(cut, 1);
    assert!(start.elapsed() < seconds(2), "{:?}", start.elapsed());
    assert_eq!(toybox.toy.running.load(Ordering::SeqCst), 0);
    assert!(client.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_does_not_wait() {
    let toybox = Toybox::start();
    let addr = toybox.addr();
    let client = tokio::task::spawn_blocking(move || {
        let mut raw = Raw::connect(addr);
        raw.send("GET /slow?60000 HTTP/1.1\r\nHost: toy\r\n\r\n");
        raw.is_closed()
    });
    eventually(|| (toybox.toy.running.load(Ordering::SeqCst) == 1).then_some(())).await;
    let servers = [toybox.running];
    let pace = Pace {
        delay: seconds(30),
        grace: seconds(30),
    };
    let start = Instant::now();
    let hurry = tokio::time::sleep(Duration::from_millis(200));
    let stopped = stop(&servers, &Readiness::new(), pace, hurry).await;
    assert_eq!(stopped, Stopped::Hurried);
    assert!(start.elapsed() < seconds(2), "{:?}", start.elapsed());
    assert!(client.await.unwrap());
}
