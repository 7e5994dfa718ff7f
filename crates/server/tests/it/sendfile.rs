//! Blobs over plain HTTP/1.1, where files go to the socket by themselves: the bytes must be the right ones whatever the
//! client asks for, in whatever order, however slowly, and whatever happens to the file meanwhile.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use wharf_testkit::content::{index, seeded_bytes, unique_name};
use wharf_testkit::raw::RawConnection;
use wharf_testkit::{Client, Content, TestOptions, TestServer, Version};

use crate::support::{blob, manifest};

const MIB: usize = 1 << 20;

/// A server whose blobs everybody may read, with one blob in it.
struct Scene {
    server: TestServer,
    admin: Client,
    name: String,
    content: Content,
}

impl Scene {
    async fn new(size: usize) -> Self {
        Self::with(size, "").await
    }

    async fn with(size: usize, config: &str) -> Self {
        let server = TestServer::start(TestOptions {
            anonymous: Some("reader"),
            config: config.into(),
            files: true,
            ..TestOptions::default()
        })
        .await;
        let admin = server.admin(Version::Http1);
        let (name, content) = (unique_name("team/app"), Content::random(size));
        admin.push_blob(&name, &content).await;
        Self {
            server,
            admin,
            name,
            content,
        }
    }

    fn path(&self) -> String {
        blob(&self.name, &self.content.digest)
    }

    /// The requests, as they stand on the wire.
    fn request(&self, method: &str, path: &str, headers: &str) -> String {
        format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n")
    }

    fn get(&self, headers: &str) -> String {
        self.request("GET", &self.path(), headers)
    }

    /// The blob's file.
    fn file(&self) -> PathBuf {
        files(self.server.folder())
            .into_iter()
            .find(|path| {
                path.to_str()
                    .is_some_and(|path| path.contains(self.content.digest.encoded()))
            })
            .expect("the blob's file")
    }

    /// Blob files of this server that the process holds open.
    fn open_files(&self) -> usize {
        let folder = self.server.folder().join("data").join("blobs");
        std::fs::read_dir("/proc/self/fd")
            .expect("the list of open files")
            .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
            .filter(|path| path.starts_with(&folder) && !path.is_dir())
            .count()
    }

    async fn all_files_are_closed(&self) {
        for _ in 0..1000 {
            if self.open_files() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} blob files are still open", self.open_files());
    }

    /// A connection that takes little at a time, with the request for the whole blob sent.
    async fn narrow(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .set_recv_buffer_size(64 << 10)
            .expect("a small buffer");
        let mut stream = socket.connect(self.server.addr()).await.expect("connect");
        stream
            .write_all(self.get("").as_bytes())
            .await
            .expect("ask");
        stream
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        match entry.file_type().expect("a type").is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }

    /// A range, as often short as long, and often at the limits of pages and windows.
    fn range(&mut self, size: usize) -> (usize, usize) {
        let start = match self.below(3) {
            0 => self.below(size),
            1 => self.below(size >> 12) << 12,
            _ => self.below(size >> 19) << 19,
        };
        let most = [100, 70_000, 600_000, size][self.below(4)];
        (start, (start + self.below(most)).min(size - 1))
    }
}

/// The head, and everything after it until the server closes; `all` is what was read before.
async fn rest_of(mut all: Vec<u8>, mut stream: TcpStream) -> (String, Vec<u8>) {
    // A reset ends it as well as a close.
    let read = async { while matches!(stream.read_buf(&mut all).await, Ok(count) if count > 0) {} };
    tokio::time::timeout(Duration::from_secs(60), read)
        .await
        .expect("the server closes");
    let end = all
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a head")
        + 4;
    (
        String::from_utf8_lossy(&all[..end]).into_owned(),
        all.split_off(end),
    )
}

/// Spec: BGET-6.
#[tokio::test]
async fn every_range_is_its_bytes_also_pipelined() {
    let scene = Scene::new(5 * MIB + 12_345).await;
    let bytes = &scene.content.bytes;
    let mut dice = Dice(7);
    let mut connection = RawConnection::open(scene.server.addr()).await;
    for round in 0..40 {
        // Some rounds ask for much before they read anything.
        let ranges: Vec<_> = (0..1 + dice.below(6))
            .map(|_| dice.range(bytes.len()))
            .collect();
        let requests: String = ranges
            .iter()
            .map(|(start, end)| scene.get(&format!("range: bytes={start}-{end}\r\n")))
            .collect();
        connection.write(requests).await.expect("written");
        for (start, end) in ranges {
            let answer = connection.read(false).await.expect("an answer");
            assert_eq!(answer.status, 206, "{}", answer.head);
            assert!(
                answer.body == bytes[start..=end],
                "round {round}: other bytes than {start}-{end}"
            );
        }
    }
    scene.all_files_are_closed().await;
}

/// Spec: BGET-6.
#[tokio::test]
async fn several_ranges_in_one_answer_are_their_bytes() {
    let scene = Scene::new(5 * MIB + 12_345).await;
    let bytes = &scene.content.bytes;
    let mut connection = RawConnection::open(scene.server.addr()).await;
    let ranges = [
        (0, 99),
        (200_000, 1_500_000),
        (2_000_000, 2_000_001),
        (3_000_000, 5_000_000),
    ];
    let list: Vec<_> = ranges
        .iter()
        .map(|(start, end)| format!("{start}-{end}"))
        .collect();
    for _ in 0..5 {
        let request = scene.get(&format!("range: bytes={}\r\n", list.join(",")));
        connection.write(request).await.expect("written");
        let answer = connection.read(false).await.expect("an answer");
        assert_eq!(answer.status, 206, "{}", answer.head);
        let boundary = answer
            .header("content-type")
            .expect("a type")
            .split_once("boundary=");
        let boundary = boundary.expect("a boundary").1.to_owned();
        let mut expected = Vec::new();
        for (start, end) in ranges {
            expected.extend(
                format!(
                    "\r\n--{boundary}\r\nContent-Type: application/octet-stream\r\n\
                     Content-Range: bytes {start}-{end}/{}\r\n\r\n",
                    bytes.len()
                )
                .bytes(),
            );
            expected.extend(&bytes[start..=end]);
        }
        expected.extend(format!("\r\n--{boundary}--\r\n").bytes());
        assert!(answer.body == expected, "other parts than were asked for");
    }
}

#[tokio::test]
async fn a_pipeline_of_everything_is_answered_in_order() {
    let scene = Scene::new(3 * MIB + 1).await;
    let small = Content::random(10_000);
    scene.admin.push_blob(&scene.name, &small).await;
    let list = index([]);
    scene.admin.push_manifest(&scene.name, "list", &list).await;
    let accept = format!("accept: {}\r\n", list.media_type);
    let about = scene.request("GET", &manifest(&scene.name, "list"), &accept);
    let little = scene.request("GET", &blob(&scene.name, &small.digest), "");
    let head = scene.request("HEAD", &scene.path(), "");
    let whole = scene.get("expect: 100-continue\r\n");
    let part = scene.get("range: bytes=1-200000\r\n");
    let pipeline = [
        &about, &whole, &head, &part, &little, &about, &head, &whole, &little,
    ];
    let bytes = &scene.content.bytes;
    let mut connection = RawConnection::open(scene.server.addr()).await;
    for _ in 0..3 {
        connection
            .write(pipeline.map(String::as_str).concat())
            .await
            .expect("written");
        for (place, request) in pipeline.into_iter().enumerate() {
            let answer = connection.read(request == &head).await.expect("an answer");
            let expected: &[u8] = match request {
                _ if request == &about => &list.bytes,
                _ if request == &whole => bytes,
                _ if request == &part => &bytes[1..=200_000],
                _ if request == &little => &small.bytes,
                _ => &[],
            };
            assert!(answer.status < 300, "{place}: {}", answer.head);
            assert!(
                answer.body == expected,
                "{place}: other bytes than asked for"
            );
        }
    }
}

#[tokio::test]
async fn a_slow_reader_gets_the_same_bytes() {
    let scene = Scene::new(9 * MIB + 77).await;
    let mut stream = scene.narrow().await;
    let (mut all, mut dice) = (Vec::new(), Dice(3));
    let size = scene.content.bytes.len();
    while all.len() < size {
        let mut buffer = vec![0; 1 + dice.below(300_000)];
        let count = stream.read(&mut buffer).await.expect("more bytes");
        assert!(count > 0, "closed after {} bytes", all.len());
        all.extend(&buffer[..count]);
        if dice.below(10) == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let end = all
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .expect("a head")
        + 4;
    while all.len() < end + size {
        assert!(stream.read_buf(&mut all).await.expect("more bytes") > 0);
    }
    assert!(
        all[end..] == scene.content.bytes,
        "other bytes than were pushed"
    );
}

#[tokio::test]
async fn sixty_four_at_once_get_the_same_bytes() {
    let scene = Scene::new(4 * MIB + 3).await;
    let clients = (0..64).map(|_| {
        let (addr, request) = (scene.server.addr(), scene.get("connection: close\r\n"));
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(addr).await.expect("connect");
            stream.write_all(request.as_bytes()).await.expect("ask");
            rest_of(Vec::new(), stream).await.1
        })
    });
    for client in clients.collect::<Vec<_>>() {
        let body = client.await.expect("no panic");
        assert!(body == scene.content.bytes, "other bytes than were pushed");
    }
    scene.all_files_are_closed().await;
}

#[tokio::test]
async fn clients_that_vanish_leave_no_file_open() {
    let scene = Scene::new(16 * MIB).await;
    let mut dice = Dice(5);
    for _ in 0..30 {
        let mut stream = scene.narrow().await;
        let mut some = vec![0; 1 + dice.below(MIB)];
        stream.read_exact(&mut some).await.expect("some bytes");
    }
    scene.all_files_are_closed().await;
    let whole = scene
        .admin
        .get(&scene.path())
        .send()
        .await
        .expect_status(200);
    assert!(
        whole.body == scene.content.bytes,
        "other bytes than were pushed"
    );
}

#[tokio::test]
async fn clients_that_stop_reading_are_let_go() {
    let config = "[limits]\nprogress_rate = \"1MiB\"\nprogress_window = \"1s\"\n";
    let scene = Scene::with(64 * MIB, config).await;
    let stuck = [scene.narrow().await, scene.narrow().await];
    for _ in 0..500 {
        if scene.open_files() == stuck.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    scene.all_files_are_closed().await;
    for stream in stuck {
        let (_, body) = rest_of(Vec::new(), stream).await;
        assert!(body.len() < 64 * MIB && scene.content.bytes.starts_with(&body));
    }
}

#[tokio::test]
async fn a_file_that_is_cut_meanwhile_breaks_the_answer() {
    let scene = Scene::new(64 * MIB).await;
    let mut stream = scene.narrow().await;
    let mut first = vec![0; MIB];
    stream
        .read_exact(&mut first)
        .await
        .expect("the first bytes");
    let kept = 32 * MIB;
    let file = scene.file();
    let mut rights = std::fs::metadata(&file).expect("its rights").permissions();
    #[expect(clippy::permissions_set_readonly_false, reason = "a file of this test")]
    rights.set_readonly(false);
    std::fs::set_permissions(&file, rights).expect("writable");
    let open = std::fs::OpenOptions::new()
        .write(true)
        .open(file)
        .expect("open");
    open.set_len(kept as u64).expect("cut");
    drop(open);
    let (head, body) = rest_of(first, stream).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(body.len() <= kept, "{} bytes of {kept} came", body.len());
    assert!(body.len() > MIB, "only {} bytes came", body.len());
    assert!(
        scene.content.bytes.starts_with(&body),
        "other bytes than were pushed"
    );
    scene.all_files_are_closed().await;
    // From now on it is known before anything is sent.
    let answer = scene.admin.get(&scene.path()).send().await;
    assert!(!answer.status.is_success(), "{answer}");
}

#[tokio::test]
async fn a_file_that_is_replaced_or_removed_meanwhile_is_sent_to_its_end() {
    for replaced in [true, false] {
        let scene = Scene::new(32 * MIB).await;
        let mut stream = scene.narrow().await;
        let mut first = vec![0; MIB];
        stream
            .read_exact(&mut first)
            .await
            .expect("the first bytes");
        let file = scene.file();
        if replaced {
            let other = file.with_extension("other");
            std::fs::write(&other, seeded_bytes(1, 32 * MIB)).expect("another file");
            std::fs::rename(other, file).expect("replace");
        } else {
            std::fs::remove_file(file).expect("remove");
        }
        let end = first
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .expect("a head")
            + 4;
        let mut rest = vec![0; 32 * MIB - (MIB - end)];
        stream.read_exact(&mut rest).await.expect("the rest");
        first.extend(rest);
        assert!(
            first[end..] == scene.content.bytes,
            "other bytes than were pushed"
        );
    }
}

#[tokio::test]
async fn a_blob_that_is_not_in_memory_gives_the_same_bytes() {
    let scene = Scene::new(24 * MIB + 9).await;
    let file = std::fs::File::open(scene.file()).expect("open");
    let mut dice = Dice(11);
    let mut connection = RawConnection::open(scene.server.addr()).await;
    for _ in 0..12 {
        // Where the file system keeps everything in memory, this does nothing and the test still holds.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("forget");
        let (start, end) = dice.range(scene.content.bytes.len());
        connection
            .write(scene.get(&format!("range: bytes={start}-{end}\r\n")) + &scene.get(""))
            .await
            .expect("written");
        let part = connection.read(false).await.expect("an answer");
        assert!(
            part.body == scene.content.bytes[start..=end],
            "other bytes in the part"
        );
        let whole = connection.read(false).await.expect("an answer");
        assert!(
            whole.body == scene.content.bytes,
            "other bytes in the whole"
        );
    }
}

/// Requests that run are finished; the files go out whole.
#[tokio::test]
async fn a_shutdown_lets_a_blob_reach_its_end() {
    let mut scene = Scene::new(32 * MIB).await;
    let mut stream = scene.narrow().await;
    let mut first = vec![0; MIB];
    stream
        .read_exact(&mut first)
        .await
        .expect("the first bytes");
    let expected = scene.content.bytes.clone();
    let reader = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(200)).await;
        rest_of(first, stream).await.1 == expected
    });
    scene.server.stop().await;
    assert!(
        reader.await.expect("no panic"),
        "other bytes than were pushed"
    );
}
