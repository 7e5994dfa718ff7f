//! Many writers at once, and what refused ones leave behind.

use std::path::{Path, PathBuf};

use wharf_testkit::client::with_query;
use wharf_testkit::content::index;
use wharf_testkit::{Client, Content, Image, TestOptions, TestServer, Version};

use crate::support::{blob, finish, holds, manifest, texts};

/// How many at once.
const MANY: usize = 16;

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path))
        } else {
            found.push(path)
        }
    }
    found
}

/// Runs the same for every writer at once, over both versions.
async fn all_at_once<F, T>(server: &TestServer, write: impl Fn(Client, usize) -> F) -> Vec<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let writers: Vec<_> = (0..MANY)
        .map(|at| tokio::spawn(write(server.admin(Version::ALL[at % 2]), at)))
        .collect();
    let mut done = Vec::new();
    for writer in writers {
        done.push(writer.await.expect("a writer that does not panic"));
    }
    done
}

/// Whoever was told that it is there reads it, while others are still bringing the same bytes.
///
/// Spec: UP-10, BGET-1.
#[tokio::test]
async fn one_blob_pushed_by_many_is_there_once() {
    let server = TestServer::start(TestOptions::default()).await;
    let mut large = 0;
    for size in [100, 500_000, 100_000, 100_000, 100_000] {
        let content = Content::random(size);
        let same = content.clone();
        all_at_once(&server, move |client, at| {
            let content = same.clone();
            async move {
                let name = format!("team/app{}", at % 3);
                client.push_blob(&name, &content).await;
                let got = client.get(&blob(&name, &content.digest)).send().await;
                assert!(got.expect_status(200).body == content.bytes);
            }
        })
        .await;
        let kept = server.kept_blobs();
        large += usize::from(size > 80 * 1024);
        assert_eq!(kept.len(), large, "{kept:?}");
    }
}

/// Spec: MGET-10, MPUT-19.
#[tokio::test]
async fn of_many_who_want_a_new_tag_one_gets_it() {
    let server = TestServer::start(TestOptions::default()).await;
    let answers = all_at_once(&server, |client, _| async move {
        let content = index([]);
        let request = client
            .put_manifest("team/app", "v1", &content)
            .header("if-none-match", "*");
        (request.send().await.status.as_u16(), content)
    })
    .await;
    let won: Vec<_> = answers
        .iter()
        .filter(|(status, _)| *status == 201)
        .collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    assert!(
        answers
            .iter()
            .all(|(status, _)| matches!(status, 201 | 412))
    );
    let stored = server
        .admin(Version::Http1)
        .get(&manifest("team/app", "v1"))
        .send()
        .await;
    assert_eq!(stored.body, won[0].1.bytes);
}

/// Spec: TAGS-1, MPUT-1, REF-8.
#[tokio::test]
async fn everything_that_was_acknowledged_to_many_is_listed() {
    let server = TestServer::start(TestOptions::default()).await;
    all_at_once(&server, |client, at| async move {
        client
            .push_image("team/app", &format!("v{at:02}"), &Image::random())
            .await;
    })
    .await;
    let list = server
        .admin(Version::Http1)
        .get("/v2/team/app/tags/list")
        .send()
        .await
        .json();
    let expected: Vec<_> = (0..MANY).map(|at| format!("v{at:02}")).collect();
    assert_eq!(texts(&list["tags"]), expected);
}

/// Spec: DEL-3, DEL-5, MPUT-9.
#[tokio::test]
async fn a_manifest_never_stands_without_its_blobs() {
    let server = TestServer::start(TestOptions::default()).await;
    for _ in 0..5 {
        let image = Image::random();
        let client = server.admin(Version::Http1);
        for blob in image.blobs() {
            client.push_blob("team/app", blob).await;
        }
        let same = image.clone();
        let answers = all_at_once(&server, move |client, at| {
            let image = same.clone();
            async move {
                let config = blob("team/app", &image.config.digest);
                let request = if at % 2 == 0 {
                    client.delete(&config)
                } else {
                    client.put_manifest("team/app", "v1", &image.manifest)
                };
                (at, request.send().await.status.as_u16())
            }
        })
        .await;
        for (at, status) in answers {
            let possible: &[u16] = if at % 2 == 0 {
                &[202, 404, 405]
            } else {
                &[201, 400]
            };
            assert!(possible.contains(&status), "{at}: {status}");
        }
        let stands = client
            .head(&manifest("team/app", &image.manifest.digest))
            .send()
            .await
            .status
            == 200;
        assert!(
            !stands || holds(&client, "team/app", &image.config).await,
            "a manifest without its config"
        );
    }
}

/// Spec: UP-12, UP-13, UP-40, MPUT-3.
#[tokio::test]
async fn refused_pushes_leave_nothing_behind() {
    let server = TestServer::start(TestOptions {
        config: "[limits]\nblob_size = \"1 MiB\"\n".into(),
        ..Default::default()
    })
    .await;
    for version in Version::ALL {
        let client = server.admin(version);
        for size in [100, 200_000] {
            let (content, other) = (Content::random(size), Content::random(size));
            let post = |digest: &str| format!("/v2/team/app/blobs/uploads/?digest={digest}");
            client
                .post(&post(other.address()))
                .body(content.bytes.clone())
                .send()
                .await
                .expect_status(400);
            client
                .post(&post("sha256:00"))
                .body(content.bytes.clone())
                .send()
                .await
                .expect_status(400);
            client
                .post(&post(other.address()))
                .body(vec![0; (1 << 20) + 1])
                .send()
                .await
                .expect_status(413);
            let location = client.start_upload("team/app").await;
            finish(&client, &location, &other.digest, content.bytes.clone())
                .send()
                .await
                .expect_status(400);
            let location = client.start_upload("team/app").await;
            client
                .patch(&location)
                .body(content.bytes.clone())
                .send()
                .await
                .expect_status(202);
            client.delete(&location).send().await.expect_status(204);
            client
                .put_manifest("team/app", other.address(), &index([]))
                .send()
                .await
                .expect_status(400);
            client
                .put_manifest("team/app", "v1", &Image::random().manifest)
                .send()
                .await
                .expect_status(400);
            let unknown = with_query(&location, &format!("digest={}", content.digest));
            client
                .put(&unknown)
                .body(content.bytes)
                .send()
                .await
                .expect_status(404);
        }
        client
            .get("/v2/team/app/tags/list")
            .send()
            .await
            .expect_error(404, "NAME_UNKNOWN");
    }
    let mut left = server.kept_blobs();
    left.extend(files(&server.folder().join("data/uploads")));
    assert!(left.is_empty(), "{left:?}");
    let open = server
        .app()
        .registry
        .meta
        .scan(wharf_meta::upload::CountOpen)
        .await
        .unwrap();
    assert_eq!(open, 0);
}
