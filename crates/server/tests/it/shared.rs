//! Blobs in a folder that several processes use (`storage.folder`): uploads that go from one to the other, a process that dies with
//! one, and whose folder it is. The pair `postgres` runs everything else over such a folder.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tempfile::TempDir;
use wharf_core::gc::Sweep;
use wharf_core::job::Job as _;
use wharf_testkit::client::Step;
use wharf_testkit::options::SECRET_KEY;
use wharf_testkit::test_server::{self, TestDatabase};
use wharf_testkit::{Content, Image, Process, TestOptions, TestServer, Version};

use crate::setup::Setup;
use crate::support::{chunk, finish, holds, standing};

const NAME: &str = "team/app";

/// A database and a folder, for as many replicas as there are.
struct Bed {
    folder: TempDir,
    database: Arc<TestDatabase>,
}

impl Bed {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            database: Arc::new(test_server::shared().database()),
        }
    }

    fn replica(&self) -> TestOptions {
        TestOptions {
            database: Some(self.database.clone()),
            shared: Some(self.folder.path().into()),
            // Blobs that would be rows elsewhere, too.
            config: "[storage]\ninline_below = \"0B\"\n".into(),
            ..TestOptions::default()
        }
    }

    async fn process(&self) -> Process {
        Process::start(Path::new(env!("CARGO_BIN_EXE_wharf")), self.replica()).await
    }

    fn uploads(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.folder.path().join("uploads"));
        entries
            .expect("a folder of uploads")
            .map(|entry| entry.expect("an entry").path())
            .collect()
    }
}

/// Chunks in turn at two replicas; each one's blobs are the other's, and nothing is left of the uploads.
///
/// Spec: UP-20, UP-24.
#[tokio::test]
async fn an_upload_goes_from_replica_to_replica() {
    let bed = Bed::new();
    let one = TestServer::start(bed.replica()).await;
    let other = TestServer::start(bed.replica()).await;
    let clients = [one.admin(Version::Http1), other.admin(Version::Http2)];
    let content = Content::random(7_500_001);
    let location = clients[0].start_upload(NAME).await;
    let mut at = 0;
    for (turn, end) in [700_000, 700_001, 3_000_000, 3_900_000, 6_000_000]
        .into_iter()
        .enumerate()
    {
        let client = &clients[turn % 2];
        let piece = content.bytes.slice(at..end);
        let sent = chunk(client, &location, at, &piece).send().await;
        sent.expect_status(202);
        at = end;
        let standing = standing(&clients[(turn + 1) % 2], &location).await;
        assert_eq!(standing, format!("0-{}", end - 1));
    }
    let rest = content.bytes.slice(at..);
    let done = finish(&clients[1], &location, &content.digest, rest);
    done.send().await.expect_status(201);
    for client in &clients {
        assert!(holds(client, NAME, &content).await);
    }
    assert!(bed.uploads().is_empty(), "{:?}", bed.uploads());
    let image = Image::random();
    clients[0].push_image("team/other", "v1", &image).await;
    let pulled = clients[1].get("/v2/team/other/manifests/v1").send().await;
    pulled.expect_status(200);
}

/// These bytes, and then nothing.
fn stalling(bytes: Bytes) -> [Step; 2] {
    [Step::Data(bytes), Step::Pause(Duration::from_secs(600))]
}

/// The one dies in the middle of a chunk: what it had claimed is there at the other, at once, and what it had not is gone in the end.
///
/// Spec: UP-20.
#[tokio::test]
async fn a_replica_that_dies_leaves_its_uploads_to_the_others() {
    let bed = Bed::new();
    let mut one = bed.process().await;
    let other = TestServer::start(bed.replica()).await;
    let (here, there) = (one.admin(Version::Http1), other.admin(Version::Http1));
    let content = Content::random(6_000_000);
    let location = here.start_upload(NAME).await;
    let first = content.bytes.slice(..2_500_000);
    let sent = chunk(&here, &location, 0, &first).send().await;
    sent.expect_status(202);
    // A client that sends half a chunk, and another one that pushes in one request, when the process is killed.
    let half = content.bytes.slice(2_500_000..5_000_000);
    let (mid, mono) = (location.clone(), Content::random(3_000_000));
    let sending = [
        here.patch(&mid)
            .header("content-range", "2500000-4999999")
            .script(Some(2_500_000), stalling(half.slice(..2_000_000))),
        here.post(&format!("/v2/{NAME}/blobs/uploads/?digest={}", mono.digest))
            .script(Some(3_000_000), stalling(mono.bytes.slice(..2_900_000))),
    ];
    let sending = sending.map(|request| tokio::spawn(request.try_send()));
    let started = Instant::now();
    while bed.uploads().len() < 2 {
        assert!(
            started.elapsed().as_secs() < 60,
            "no file: {:?}",
            bed.uploads()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    one.kill();
    for sent in sending {
        assert!(sent.await.expect("a client").is_err());
    }

    assert_eq!(standing(&there, &location).await, "0-2499999");
    let rest = content.bytes.slice(2_500_000..);
    let done = finish(&there, &location, &content.digest, rest)
        .send()
        .await;
    done.expect_status(201);
    assert!(holds(&there, NAME, &content).await);

    // Nobody can tell that the other one's file is left: it stays until it is old, also when a process starts.
    assert_eq!(bed.uploads().len(), 1);
    one.again().await;
    let sweep = async || {
        let registry = &other.app().registry;
        Sweep::default().step(registry).await.expect("a walk");
    };
    sweep().await;
    let left = bed.uploads();
    assert_eq!(left.len(), 1, "young files were removed: {left:?}");
    let old = SystemTime::now() - Duration::from_secs(90_000);
    let files = std::fs::read_dir(&left[0]).expect("files");
    let files = files.map(|file| file.expect("a file").path());
    for path in files.chain([left[0].clone()]) {
        let file = std::fs::File::open(&path).expect("it opens");
        file.set_modified(old).expect("it becomes old");
    }
    sweep().await;
    assert!(bed.uploads().is_empty(), "{:?}", bed.uploads());
    assert!(holds(&one.admin(Version::Http1), NAME, &content).await);
}

/// Spec: none; whose folder it is, in the words of start and check.
#[tokio::test]
async fn a_folder_that_cannot_be_used_is_told_alike_by_start_and_check() {
    let bed = Bed::new();
    let folder = bed.folder.path();
    let on = |folder: &Path, url: &str| {
        Setup::new(&format!(
            "[access]\nsecret_key = {SECRET_KEY:?}\n[metadata]\nurl = {url:?}\n[storage]\nfolder = {folder:?}\ninline_below = \"0B\"\n"
        ))
    };
    let url = bed.database.url();
    let absent = folder.join("absent");
    let words = ["`storage.folder`", "is not there", "mount"];
    on(&absent, &url).both_say(&words).await;
    std::fs::write(folder.join("letter"), "to somebody").expect("a file");
    let words = ["`storage.folder`", "no mark of a Wharf installation"];
    on(folder, &url).both_say(&words).await;
    assert_eq!(std::fs::read_dir(folder).expect("a folder").count(), 1);
    std::fs::remove_file(folder.join("letter")).expect("it goes");

    let (code, told) = on(folder, &url).check().await;
    assert_eq!(code, 0, "{told}");
    assert!(
        told.contains("The folder can be used: it is empty"),
        "{told}"
    );
    assert_eq!(std::fs::read_dir(folder).expect("a folder").count(), 0);
    let server = TestServer::start(bed.replica()).await;
    let client = server.admin(Version::Http1);
    client.push_blob(NAME, &Content::random(100_000)).await;
    let (code, told) = on(folder, &url).check().await;
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("which this is"), "{told}");

    // Another installation, and this one with an empty folder: a file system that is not mounted looks like that.
    let another = Arc::new(test_server::shared().database());
    let words = ["`storage.folder`", "belongs to another installation"];
    on(folder, &another.url()).both_say(&words).await;
    let empty = tempfile::tempdir().expect("a folder");
    let words = ["`storage.folder`: the folder is empty", "is mounted"];
    on(empty.path(), &url).both_say(&words).await;
    assert_eq!(
        std::fs::read_dir(empty.path()).expect("a folder").count(),
        0
    );
}
