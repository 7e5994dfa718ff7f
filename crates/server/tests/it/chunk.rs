//! Uploads in parts: chunks, streams, resuming (end-5, end-6).

use std::time::Duration;

use bytes::Bytes;
use wharf_testkit::Content;
use wharf_testkit::client::{Step, with_query};
use wharf_testkit::content::random_bytes;

use crate::support::{algorithms, both, chunk, finish, holds, standing};

/// Spec: UP-21, UP-22, UP-26, UP-29, CS-4.
#[tokio::test]
async fn chunk_by_chunk() {
    both(async |client, name| {
        for (algorithm, size) in algorithms()
            .into_iter()
            .flat_map(|a| [1024, 60_000].map(|size| (a, size)))
        {
            let content = Content::random_of(algorithm, size * 3);
            let mut location = client.start_upload(&name).await;
            for at in 0..3 {
                let part = content.bytes.slice(at * size..(at + 1) * size);
                let accepted = chunk(&client, &location, at * size, &part)
                    .send()
                    .await
                    .expect_status(202);
                let range = format!("0-{}", (at + 1) * size - 1);
                assert_eq!(accepted.header("range"), Some(range.as_str()));
                assert_eq!(accepted.header("content-length"), Some("0"));
                accepted.expect_header("docker-upload-uuid");
                location = accepted.location().to_owned();
                assert_eq!(standing(&client, &location).await, range);
            }
            let empty = finish(&client, &location, &content.digest, "")
                .header("content-type", "application/octet-stream");
            empty.send().await.expect_status(201);
            assert!(holds(&client, &name, &content).await);
        }
    })
    .await;
}

/// Spec: UP-21.
#[tokio::test]
async fn content_range_is_read_with_tolerance_and_refused_with_reason() {
    both(async |client, name| {
        let location = client.start_upload(&name).await;
        let part = random_bytes(10);
        let tolerated = client
            .patch(&location)
            .header("content-range", "bytes 0-9/20")
            .body(part.clone());
        tolerated.send().await.expect_status(202);
        for range in ["10", "a-b", "19-10", "-5", "10-", "items 10-19", "10-19/x"] {
            let refused = client
                .patch(&location)
                .header("content-range", range)
                .body(part.clone())
                .send()
                .await;
            assert!(
                matches!(refused.status.as_u16(), 400 | 416),
                "{range}: {refused}"
            );
            assert!(!refused.error_codes().is_empty());
        }
        assert_eq!(standing(&client, &location).await, "0-9");
    })
    .await;
}

/// Spec: UP-24, UP-25, UP-26, UP-27, CS-5.
#[tokio::test]
async fn a_chunk_out_of_order_changes_nothing() {
    both(async |client, name| {
        for size in [1000, 50_000] {
            let content = Content::random(size * 3);
            let part = |at: usize| content.bytes.slice(at * size..(at + 1) * size);
            let location = client.start_upload(&name).await;
            let refused = chunk(&client, &location, size, &part(1))
                .send()
                .await
                .expect_error(416, "RANGE_INVALID");
            assert_eq!(refused.location(), location);
            assert_eq!(refused.header("range"), Some("0-0"));
            standing(&client, &location).await;
            for at in 0..2 {
                chunk(&client, &location, at * size, &part(at))
                    .send()
                    .await
                    .expect_status(202);
                // What was sent already, from the start, a piece further on: all out of order.
                for wrong in [
                    at * size,
                    0,
                    (at + 2) * size,
                    (at + 1) * size - 1,
                    (at + 1) * size + 1,
                ] {
                    let refused = chunk(&client, &location, wrong, &part(at))
                        .send()
                        .await
                        .expect_error(416, "RANGE_INVALID");
                    let range = format!("0-{}", (at + 1) * size - 1);
                    assert_eq!(refused.header("range"), Some(range.as_str()));
                    assert_eq!(refused.location(), location);
                    assert_eq!(standing(&client, &location).await, range);
                }
            }
            // The last chunk may come with the closing PUT, and be wrong there (UP-28, CS-6).
            let target = with_query(&location, &format!("digest={}", content.digest));
            let range = |start: usize| format!("{start}-{}", start + size - 1);
            let wrong = client
                .put(&target)
                .header("content-range", &range(size))
                .body(part(2));
            wrong.send().await.expect_error(416, "RANGE_INVALID");
            assert_eq!(
                standing(&client, &target).await,
                format!("0-{}", 2 * size - 1)
            );
            let right = client
                .put(&target)
                .header("content-range", &range(2 * size))
                .body(part(2));
            right.send().await.expect_status(201);
            assert!(holds(&client, &name, &content).await);
        }
    })
    .await;
}

/// Spec: UP-28, CS-6.
#[tokio::test]
async fn a_wrong_start_is_found_before_a_wrong_digest() {
    both(async |client, name| {
        let location = client.start_upload(&name).await;
        let target = with_query(&location, &format!("digest={}", Content::random(3).digest));
        let refused = client
            .put(&target)
            .header("content-range", "5-9")
            .body(random_bytes(5))
            .send()
            .await;
        refused.expect_error(416, "RANGE_INVALID");
        standing(&client, &location).await;
    })
    .await;
}

/// Spec: UP-24.
#[tokio::test]
async fn a_chunk_of_another_length_than_it_says_is_refused() {
    both(async |client, name| {
        let location = client.start_upload(&name).await;
        for (range, size) in [("0-9", 5), ("0-9", 15)] {
            let refused = client
                .patch(&location)
                .header("content-range", range)
                .body(random_bytes(size))
                .send()
                .await;
            refused.expect_error(400, "SIZE_INVALID");
        }
        let content = Content::random(20);
        finish(&client, &location, &content.digest, content.bytes.clone())
            .send()
            .await
            .expect_status(201);
        assert!(holds(&client, &name, &content).await);
    })
    .await;
}

/// Spec: UP-14, UP-23, UP-32.
#[tokio::test]
async fn streams_of_unknown_length() {
    both(async |client, name| {
        for size in [100, 700_000] {
            let content = Content::random(size);
            let pieces = || {
                content
                    .bytes
                    .chunks(size / 3)
                    .map(Bytes::copy_from_slice)
                    .collect::<Vec<_>>()
            };
            let location = client.start_upload(&name).await;
            let accepted = client
                .patch(&location)
                .chunked(pieces())
                .send()
                .await
                .expect_status(202);
            assert_eq!(
                accepted.header("range"),
                Some(format!("0-{}", size - 1).as_str())
            );
            finish(&client, accepted.location(), &content.digest, "")
                .send()
                .await
                .expect_status(201);
            assert!(holds(&client, &name, &content).await);

            let again = Content::random(size);
            let pieces: Vec<_> = again
                .bytes
                .chunks(size / 3)
                .map(Bytes::copy_from_slice)
                .collect();
            let target = with_query(
                &client.start_upload(&name).await,
                &format!("digest={}", again.digest),
            );
            client
                .put(&target)
                .chunked(pieces)
                .send()
                .await
                .expect_status(201);
            assert!(holds(&client, &name, &again).await);
        }
        let empty = Content::random(0);
        let location = client.start_upload(&name).await;
        client
            .patch(&location)
            .chunked([])
            .send()
            .await
            .expect_status(202);
        finish(&client, &location, &empty.digest, "")
            .send()
            .await
            .expect_status(201);
    })
    .await;
}

/// Spec: UP-23, UP-28.
#[tokio::test]
async fn without_content_range_bytes_are_appended() {
    both(async |client, name| {
        let content = Content::random(40_000);
        let location = client.start_upload(&name).await;
        client
            .patch(&location)
            .body(content.bytes.slice(..15_000))
            .send()
            .await
            .expect_status(202);
        client
            .patch(&location)
            .body(content.bytes.slice(15_000..30_000))
            .send()
            .await
            .expect_status(202);
        finish(
            &client,
            &location,
            &content.digest,
            content.bytes.slice(30_000..),
        )
        .send()
        .await
        .expect_status(201);
        assert!(holds(&client, &name, &content).await);
    })
    .await;
}

/// Spec: UP-31, BGET-9.
#[tokio::test]
async fn what_arrived_before_the_line_broke_is_kept_and_reported() {
    both(async |client, name| {
        let content = Content::random(3_000_000);
        let location = client.start_upload(&name).await;
        let half = content.bytes.slice(..1_500_000);
        let steps = [
            Step::Data(half),
            Step::Pause(Duration::from_millis(300)),
            Step::Fail,
        ];
        client
            .patch(&location)
            .script(None, steps)
            .try_send()
            .await
            .expect_err("the line breaks");
        // The server may still be bringing to the disk what arrived.
        let mut held = 0;
        for _ in 0..100 {
            let range = standing(&client, &location).await;
            held = range
                .strip_prefix("0-")
                .and_then(|last| last.parse::<usize>().ok())
                .expect(&range);
            if held > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let held = held + 1;
        assert!(
            held > 1 && held <= 1_500_000,
            "{held} over {:?}",
            client.version()
        );
        let rest = content.bytes.slice(held..);
        chunk(&client, &location, held, &rest)
            .send()
            .await
            .expect_status(202);
        finish(&client, &location, &content.digest, "")
            .send()
            .await
            .expect_status(201);
        assert!(holds(&client, &name, &content).await);
    })
    .await;
}

/// Spec: UP-10, UP-31.
#[tokio::test]
async fn a_closing_request_that_broke_may_be_sent_again_as_it_was() {
    both(async |client, name| {
        let content = Content::random(3_000_000);
        for before in [0, 1_000_000] {
            let location = client.start_upload(&name).await;
            if before > 0 {
                chunk(&client, &location, 0, &content.bytes.slice(..before))
                    .send()
                    .await
                    .expect_status(202);
            }
            let held = standing(&client, &location).await;
            let rest = content.bytes.slice(before..);
            let steps = [
                Step::Data(rest.slice(..rest.len() / 2)),
                Step::Pause(Duration::from_millis(300)),
                Step::Fail,
            ];
            client
                .put(&with_query(
                    &location,
                    &format!("digest={}", content.digest),
                ))
                .script(None, steps)
                .try_send()
                .await
                .expect_err("the line breaks");
            assert_eq!(standing(&client, &location).await, held);
            finish(&client, &location, &content.digest, rest)
                .send()
                .await
                .expect_status(201);
            assert!(holds(&client, &name, &content).await);
        }
    })
    .await;
}

/// Spec: UP-30.
#[tokio::test]
async fn two_requests_on_a_session_never_interleave() {
    both(async |client, name| {
        let content = Content::random(2_000_000);
        let location = client.start_upload(&name).await;
        let (first, last) = (
            content.bytes.slice(..1_000_000),
            content.bytes.slice(1_000_000..),
        );
        let slow = client.patch(&location).script(
            Some(2_000_000),
            [
                Step::Data(first),
                Step::Pause(Duration::from_millis(500)),
                Step::Data(last),
            ],
        );
        let second = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            chunk(&client, &location, 0, &random_bytes(1000))
                .send()
                .await
        };
        let (slow, second) = tokio::join!(slow.send(), second);
        slow.expect_status(202);
        assert!(
            matches!(second.status.as_u16(), 409 | 416 | 423),
            "{second}"
        );
        finish(&client, &location, &content.digest, "")
            .send()
            .await
            .expect_status(201);
        assert!(holds(&client, &name, &content).await);
    })
    .await;
}

/// Spec: UP-8.
#[tokio::test]
async fn chunks_may_be_as_small_as_the_client_likes() {
    both(async |client, name| {
        let content = Content::random(20_000);
        let session = client
            .post(&format!("/v2/{name}/blobs/uploads/"))
            .send()
            .await
            .expect_status(202);
        assert_eq!(session.header("oci-chunk-min-length"), None);
        let mut at = 0;
        // Across the size at which uploads move from rows to a file.
        for size in [1, 1, 2, 1024, 15_000, 500, 1, 3000, 471] {
            let part = content.bytes.slice(at..at + size);
            let accepted = chunk(&client, session.location(), at, &part)
                .send()
                .await
                .expect_status(202);
            at += size;
            assert_eq!(
                accepted.header("range"),
                Some(format!("0-{}", at - 1).as_str())
            );
        }
        assert_eq!(at, 20_000);
        finish(&client, session.location(), &content.digest, "")
            .send()
            .await
            .expect_status(201);
        assert!(holds(&client, &name, &content).await);
    })
    .await;
}
