//! Windows of blob files: what a socket is fed from.

use crate::fault::Step;
use crate::fs::tests::{House, noise};
use crate::{Error, Piece, Result};

const EIO: i32 = 5;

const EAGAIN: i32 = 11;

/// What a stream of pieces gives: the bytes, and how many of them came as windows.
async fn pieces(mut stream: crate::ByteStream) -> Result<(Vec<u8>, usize)> {
    let (mut all, mut windows) = (Vec::new(), 0);
    while let Some(piece) = std::future::poll_fn(|cx| stream.poll_piece(cx)).await {
        match piece? {
            Piece::Bytes(bytes) => all.extend(bytes),
            Piece::Window(window) => {
                let mut bytes = vec![0; window.len];
                std::os::unix::fs::FileExt::read_exact_at(&*window.file, &mut bytes, window.at)
                    .unwrap();
                windows += bytes.len();
                all.extend(bytes);
            }
        }
    }
    Ok((all, windows))
}

#[tokio::test]
async fn large_parts_come_as_windows_and_small_ones_as_bytes() {
    let house = House::new();
    let bytes = noise(3 << 20);
    let (_, blob) = house.blob(&bytes).await;
    for (range, most) in [
        (0..3u64 << 20, 3 << 20),
        (1..2_000_000, 1_999_999),
        (77..1000, 0),
        (5..5, 0),
    ] {
        let (got, windows) = pieces(blob.stream(range.clone())).await.unwrap();
        assert!(
            got == bytes[range.start as usize..range.end as usize],
            "{range:?}"
        );
        // A rest below the least size is copied.
        assert!(
            windows <= most && most - windows < 128 << 10,
            "{range:?}: {windows}"
        );
    }
    drop(blob);
    house.quiet().await;
}

#[tokio::test]
async fn what_is_not_in_memory_is_fetched_and_then_a_window() {
    let house = House::new();
    let bytes = noise(3 << 20);
    let (_, blob) = house.blob(&bytes).await;
    let before = house.store.stats().1.jobs;
    house.script.fail(Step::Read, 0, 1, EAGAIN);
    let (got, windows) = pieces(blob.stream(0..3 << 20)).await.unwrap();
    assert!(got == bytes);
    assert_eq!(windows, bytes.len());
    // After the first window that was not in memory all are fetched, each while the one before it is sent.
    assert_eq!(house.store.stats().1.jobs, before + 6);
    // A disk that fails fails the stream, whichever way is tried first.
    house.script.fail(Step::Read, 2, 100, EIO);
    let error = pieces(blob.stream(0..3 << 20)).await.unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
    house.script.clear();
    drop(blob);
    house.quiet().await;
}

#[tokio::test]
async fn a_file_cut_after_it_was_opened_is_an_error_in_time() {
    let house = House::new();
    let bytes = noise(3 << 20);
    let (key, blob) = house.blob(&bytes).await;
    let path = house.dir.path().join(key.as_str());
    assert!(path.exists(), "{}", path.display());
    for left in [2_000_000, 524_288, 1, 0] {
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(left).unwrap();
        let error = pieces(blob.stream(0..3 << 20)).await.unwrap_err();
        assert!(matches!(error, Error::WrongSize { .. }), "{left}: {error}");
    }
}
