//! What one replica leaves to another: an upload that it takes up while the other clears old ones away, and a job that it had
//! when it died. Step by step, so that each time they meet where it matters.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use wharf_blob::UploadId;
use wharf_core::job::{self, Job as _, Kinds, Spec, Step};
use wharf_core::scrub::Scrub;
use wharf_core::{Registry, gc, upload};
use wharf_meta::job as rows;
use wharf_testkit::options::on_bucket;
use wharf_testkit::s3::{BUCKET, S3};
use wharf_testkit::{Content, TestOptions, TestServer, Version};

use crate::support::{blob, chunk, finish, holds, standing};

const NAME: &str = "team/app";

/// Longest wait for something that comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// As another process over the same stores has it: the rows and the bytes are shared, and nothing in memory is.
fn another(of: &Registry) -> Registry {
    Registry::new(
        of.meta.clone(),
        of.blobs.clone(),
        of.access.clone(),
        of.clock.clone(),
        of.limits.clone(),
        wharf_core::ContentRules::default(),
    )
}

/// A moment after whatever happened so far.
async fn later(registry: &Registry) -> i64 {
    let now = registry.clock.now_ms();
    while registry.clock.now_ms() <= now + 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    registry.clock.now_ms()
}

async fn idle(registry: &Registry, touched_before: i64) -> Vec<String> {
    let expired = wharf_meta::upload::Expired {
        touched_before,
        limit: 100,
    };
    registry.meta.scan(expired).await.expect("a list")
}

/// Both sessions are on the list of one replica; then the other replica is sent a chunk of one of them.
///
/// Spec: UP-6, UP-20.
#[tokio::test]
async fn an_upload_that_a_replica_takes_up_is_not_expired_by_another() {
    let server = TestServer::start(TestOptions::default()).await;
    let here = &server.app().registry;
    let there = another(here);
    // In rows, and in a file or parts.
    for (size, first) in [(3_000, 1_000), (19_000_000, 9_000_000)] {
        let client = server.admin(Version::Http1);
        let content = Content::random(size);
        let mut sessions = Vec::new();
        for _ in 0..2 {
            let location = client.start_upload(NAME).await;
            let piece = content.bytes.slice(..first);
            let sent = chunk(&client, &location, 0, &piece).send().await;
            sent.expect_status(202);
            sessions.push(location);
        }
        let before = later(here).await;
        let listed = idle(&there, before).await;
        let id = |location: &str| {
            let path = location.split('?').next().expect("a path");
            UploadId::parse(path.rsplit('/').next().expect("an id")).expect("an id")
        };
        for location in &sessions {
            assert!(listed.contains(&id(location).to_string()), "{listed:?}");
        }
        let (busy, left) = (&sessions[0], &sessions[1]);
        let middle = first + first / 2;
        let piece = content.bytes.slice(first..middle);
        let sent = chunk(&client, busy, first, &piece).send().await;
        sent.expect_status(202);

        let expire = async |location| upload::expire_one(&there, &id(location), before).await;
        assert!(!expire(busy).await.expect("a look"));
        assert!(expire(left).await.expect("a look"));
        assert!(!expire(left).await.expect("a look"), "only once");
        let gone = client.get(left).send().await;
        gone.expect_error(404, "BLOB_UPLOAD_UNKNOWN");
        assert_eq!(
            standing(&client, busy).await,
            format!("0-{}", middle - 1),
            "the session that was touched stands where it did"
        );
        let rest = content.bytes.slice(middle..);
        let done = finish(&client, busy, &content.digest, rest).send().await;
        done.expect_status(201);
        assert!(holds(&client, NAME, &content).await);
    }
}

/// A bucket where the tests run on one: its objects are to be damaged.
async fn damageable() -> TestOptions {
    TestOptions {
        s3: match on_bucket() {
            true => Some(Arc::new(S3::start().await)),
            false => None,
        },
        // Jobs are run by the test.
        config: "[server]\nrun = [\"web\"]\n".into(),
        ..TestOptions::default()
    }
}

fn damage(options: &TestOptions, server: &TestServer, key: &str) {
    let kept = server.kept_blobs();
    let found = kept.iter().find(|path| path.ends_with(key));
    let found = found.unwrap_or_else(|| panic!("{key} is not among {kept:?}"));
    let file = match &options.s3 {
        Some(s3) => s3.folder().join(BUCKET).join(found),
        None => Path::new(found).to_owned(),
    };
    let mut bytes = std::fs::read(&file).expect("its bytes");
    bytes[77] ^= 1;
    std::fs::write(&file, bytes).expect("other bytes");
    let file = std::fs::File::open(&file).expect("its file");
    file.sync_all().expect("on the disk");
}

fn take(worker: &str, lease: i64, at: i64) -> rows::Take {
    rows::Take {
        kinds: vec![rows::Wanted {
            kind: Scrub::KIND.to_owned(),
            limit: 1,
        }],
        worker: worker.to_owned(),
        lease,
        at,
    }
}

/// The first replica reads a part of all blobs, keeps in the row how far it came, and is heard of no more. A blob that it has read
/// turns bad, and one that it has not: the second replica finds the other, and does not look at the one again.
#[tokio::test]
async fn a_scrub_goes_on_where_the_replica_stood_that_died() {
    let options = damageable().await;
    let server = TestServer::start(options.clone()).await;
    let client = server.admin(Version::Http1);
    for _ in 0..60 {
        client.push_blob(NAME, &Content::random(100_000)).await;
    }
    let first = &server.app().registry;
    let hurried = gc::Rules {
        scrub: 1,
        ..gc::Rules::clone(&first.rules.load())
    };
    first.rules.store(Arc::new(hurried.clone()));
    let at = first.clock.now_ms();
    let add = rows::Add {
        kind: Scrub::KIND.to_owned(),
        unique_key: None,
        payload: serde_json::to_string(&Scrub::default()).expect("JSON"),
        priority: 0,
        run_at: at,
        max_attempts: 3,
        at,
    };
    let id = first.meta.write(add).await.expect("a job").expect("added");
    let get = async || {
        let row = first.meta.read(rows::Get { id }).await.expect("a read");
        row.expect("the job")
    };
    let row = first.meta.write(take("first", 3_600_000, at)).await;
    let row = row.expect("a look").expect("the job");
    assert_eq!(row.id, id);
    let mut scrub: Scrub = serde_json::from_str(&row.payload).expect("a scrub");
    assert_ne!(scrub.step(first).await.expect("a step"), Step::Done);
    let read = scrub.blobs;
    assert!(read > 0 && read < 60, "{read}");
    let beat = rows::Heartbeat {
        id,
        fence: row.fence,
        payload: serde_json::to_string(&scrub).expect("JSON"),
        lease: 3_600_000,
        at,
    };
    assert!(first.meta.write(beat.clone()).await.expect("a heartbeat"));
    // Nobody takes it while the first may still be alive.
    let now = first.clock.now_ms();
    let other = first.meta.write(take("second", 1, now)).await;
    assert_eq!(other.expect("a look"), None);

    let live = wharf_meta::blob::ListLive {
        after: None,
        limit: 100,
    };
    let live = first.meta.scan(live).await.expect("all blobs");
    assert_eq!(live.len(), 60);
    let key = |at: usize| match &live[at].place {
        wharf_meta::blob::Place::Key(key) => key.clone(),
        place @ wharf_meta::blob::Place::Inline(_) => panic!("{place:?}"),
    };
    let (seen, unseen) = (0, live.len() - 1);
    damage(&options, &server, &key(seen));
    damage(&options, &server, &key(unseen));

    // Its last word was long ago.
    let over = rows::Heartbeat {
        lease: 0,
        ..beat.clone()
    };
    assert!(first.meta.write(over).await.expect("a heartbeat"));
    later(first).await;
    let second = another(first);
    second.rules.store(Arc::new(hurried));
    let second = Arc::new(second);
    let kinds = Kinds::default().with::<Scrub>(Spec::every(Duration::from_secs(1)).off());
    let stop = CancellationToken::new();
    let worker = job::Options {
        worker: "second".into(),
        alone: false,
    };
    let running = tokio::spawn(job::run(second, Arc::new(kinds), worker, stop.clone()));
    let begun = Instant::now();
    let done = loop {
        let row = get().await;
        if row.state == rows::State::Done {
            break row;
        }
        assert!(begun.elapsed() < PATIENCE, "{row:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    stop.cancel();
    running.await.expect("it ends");
    assert_eq!(done.worker.as_deref(), Some("second"));
    let all: Scrub = serde_json::from_str(&done.payload).expect("a scrub");
    assert_eq!(
        (all.blobs, all.bad, all.begun),
        (60, 1, scrub.begun),
        "{read} of them were read by the first"
    );
    // Of what the second read only one was bad, and what the first had read was not read again.
    let asked = async |at: usize| {
        let address = blob(NAME, &live[at].digest);
        client.head(&address).send().await.status.as_u16()
    };
    assert_eq!((asked(seen).await, asked(unseen).await), (200, 404));
    // If the first comes back, it learns that the job is not its any more.
    assert!(!first.meta.write(beat).await.expect("a heartbeat"));
    let finish = rows::Finish {
        id,
        fence: row.fence,
        payload: row.payload,
        end: rows::End::Done,
        error: None,
        at,
    };
    assert!(!first.meta.write(finish).await.expect("an end"));
    assert_eq!(get().await, done);
}
