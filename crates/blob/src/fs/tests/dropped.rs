//! Work that is given up half-way: nothing of it is left behind, nothing is lost or doubled.

use super::*;

/// Polls a future at most `times`, then drops it; says whether it came to an end.
pub(super) fn poll_some<T>(future: impl Future<Output = T>, times: usize) -> Option<T> {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..times {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return Some(value);
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    None
}

#[tokio::test]
async fn a_writer_dropped_at_any_point_leaves_nothing_behind() {
    let house = House::new();
    for times in (0..12).chain([30, 100]) {
        for slow in [false, true] {
            if slow {
                house.script.delay(Step::Write, 2, Duration::from_millis(2));
                house.script.delay(Step::Sync, 2, Duration::from_millis(2));
            }
            let id = UploadId::random();
            let upload = async {
                let mut writer = house.writer(&id).await;
                for _ in 0..4 {
                    writer.write(noise(BUFFER / 2 + 77)).await.unwrap();
                }
                writer.sync().await.unwrap();
                writer.write(noise(BUFFER + 1)).await.unwrap();
                writer.finish(Algorithm::Sha512).await.unwrap();
            };
            poll_some(upload, times);
            house.script.clear();
            house.quiet().await;
            house.store.discard(&id).await.unwrap();
        }
    }
    assert_eq!(
        std::fs::read_dir(house.dir.path().join("uploads"))
            .unwrap()
            .count(),
        0
    );
}

#[tokio::test]
async fn an_upload_without_a_checkpoint_leaves_no_file_and_one_with_a_checkpoint_does() {
    let house = House::new();
    let (gone, stays) = (UploadId::random(), UploadId::random());
    let mut writer = house.writer(&gone).await;
    writer.write(noise(3 * BUFFER)).await.unwrap();
    drop(writer);
    let mut writer = house.writer(&stays).await;
    writer.sync().await.unwrap();
    drop(writer);
    house.quiet().await;
    assert_eq!(house.length(&gone), None);
    assert_eq!(house.length(&stays), Some(0));
    // Finished, but neither claimed nor published: its client vanished in between.
    let mut writer = house.writer(&gone).await;
    writer.write(noise(3 * BUFFER)).await.unwrap();
    writer.finish(Algorithm::Sha256).await.unwrap();
    assert_eq!(house.length(&gone), Some(3 * BUFFER as u64));
    drop(writer);
    house.quiet().await;
    assert_eq!(house.length(&gone), None);
}

/// A future that is given up keeps what it has taken: the writer goes on, and says where it is.
#[tokio::test]
async fn a_write_that_was_given_up_loses_and_doubles_nothing() {
    let house = House::new();
    for times in 0..6 {
        let id = UploadId::random();
        let bytes = noise(9 * BUFFER + 5);
        let mut writer = house.writer(&id).await;
        house.script.delay(Step::Write, 3, Duration::from_millis(3));
        while writer.offset() < bytes.len() as u64 {
            let at = usize::try_from(writer.offset()).unwrap();
            let piece = bytes.slice(at..bytes.len().min(at + 3 * BUFFER));
            if let Some(outcome) = poll_some(writer.write(piece), times) {
                outcome.unwrap();
            } else if times == 0 {
                writer
                    .write(bytes.slice(at..bytes.len().min(at + BUFFER)))
                    .await
                    .unwrap();
            }
        }
        let (digest, _) = writer.finish(Algorithm::Sha256).await.unwrap();
        assert_eq!(
            digest,
            Digest::of(Algorithm::Sha256, &bytes),
            "given up after {times} polls"
        );
        house.store.discard(&id).await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_dropped_at_any_point_leaves_nothing_behind() {
    let house = House::new();
    let (key, blob) = house.blob(&noise(2 * BUFFER)).await;
    drop(blob);
    for times in 0..8 {
        for cold in [false, true] {
            if cold {
                house.script.fail(Step::Read, 0, 1, 11);
                house.script.delay(Step::Read, 1, Duration::from_millis(2));
            }
            let read = async {
                let size = 2 * BUFFER as u64;
                let blob = house.store.open(&key, size).await.unwrap();
                collect(blob.stream(0..size)).await.unwrap();
            };
            poll_some(read, times);
            house.script.clear();
            house.quiet().await;
        }
    }
}
