//! Damage in the data folder: what is met is an error with the way out, never an answer that looks right.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use wharf_testkit::{Client, Content, Image, Process, Version};

use crate::disk_support::{figure, health, no_file, start};
use crate::support::{blob, holds, manifest};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");
const PAGE: usize = 4096;
const NAME: &str = "team/app";

fn data(server: &Process) -> PathBuf {
    server.folder().join("data")
}

fn blob_file(server: &Process, content: &Content) -> PathBuf {
    let hex = content.digest.encoded();
    let folder = data(server).join(format!("blobs/sha256/{}", &hex[..2]));
    let mut files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .find(|path| path.to_str().unwrap().contains(hex))
        .unwrap()
}

fn flip(path: &Path, at: u64) {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// Whoever pushes a digest whose file has other bytes under the right length brings the right ones back, without a check
/// in between: a verified upload is not thrown away for a row's word.
#[tokio::test]
async fn a_push_replaces_a_file_with_flipped_bits() {
    let server = start().await;
    let client = server.admin(Version::Http1);
    let content = Content::random(300_000);
    client.push_blob(NAME, &content).await;
    let damaged = blob_file(&server, &content);
    flip(&damaged, 123_456);
    client.push_blob("team/other", &content).await;
    for name in [NAME, "team/other"] {
        assert!(holds(&client, name, &content).await);
    }
    assert!(!damaged.exists(), "the damaged file stayed");
    // A sound one stays where it is.
    let sound = blob_file(&server, &content);
    client.push_blob("team/third", &content).await;
    assert_eq!(blob_file(&server, &content), sound);
}

/// The file loses its end while it is being sent: the client sees a broken answer.
#[tokio::test]
async fn a_file_cut_while_it_is_sent_breaks_the_connection() {
    let server = start().await;
    for version in Version::ALL {
        let client = server.admin(version);
        let content = Content::random(64 << 20);
        client.push_blob(NAME, &content).await;
        let file = blob_file(&server, &content);
        let address = blob(NAME, &content.digest);
        // Most of it cannot have been sent yet: nobody reads, and sockets hold a few megabytes.
        let cut = tokio::task::spawn_blocking(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            let file = std::fs::File::options().write(true).open(file).unwrap();
            file.set_len(1 << 20).unwrap();
        });
        let got = client.get(&address).try_send().await;
        cut.await.unwrap();
        match got {
            Ok(answer) if answer.status == 200 => {
                assert_eq!(answer.body, content.bytes, "sent before it was cut");
            }
            Ok(answer) => assert_eq!(answer.status, 404, "{answer}"),
            Err(broken) => drop(broken),
        }
        client.head(&address).send().await.expect_status(404);
        client.push_blob(NAME, &content).await;
        assert!(holds(&client, NAME, &content).await);
    }
}

/// What a registry holds, and what must come back of it.
struct Held {
    images: Vec<Image>,
    small: Vec<Content>,
}

impl Held {
    async fn push(client: &Client) -> Held {
        let (mut images, mut small) = (Vec::new(), Vec::new());
        for number in 0..60 {
            let image = Image::random();
            client.push_image(NAME, &format!("v{number}"), &image).await;
            images.push(image);
            let content = Content::random(5_000);
            client.push_blob(NAME, &content).await;
            small.push(content);
        }
        Held { images, small }
    }

    /// Reads everything; any bytes but the right ones fail. Tells how many answers were errors.
    async fn read(&self, client: &Client) -> usize {
        let mut errors = 0;
        for (number, image) in self.images.iter().enumerate() {
            let reference = image.manifest.digest.to_string();
            for reference in [format!("v{number}"), reference] {
                let answer = client.get(&manifest(NAME, reference)).send().await;
                if answer.status == 200 {
                    assert_eq!(answer.body, image.manifest.bytes, "wrong bytes");
                } else {
                    assert!(answer.status == 503 || answer.status == 404, "{answer}");
                    errors += 1;
                }
            }
        }
        for content in &self.small {
            let answer = client.get(&blob(NAME, &content.digest)).send().await;
            if answer.status == 200 {
                assert_eq!(answer.body, content.bytes, "wrong bytes");
            } else {
                assert!(answer.status == 503 || answer.status == 404, "{answer}");
                errors += 1;
            }
        }
        errors
    }
}

/// A child that ends at once or serves, with what it says.
///
/// That something answers at its address is not enough: while it does not listen, another test may have got its port.
async fn begun(server: &mut Process) -> Result<(), String> {
    let starts = |server: &Process| server.output().matches("Wharf is running").count();
    let before = starts(server);
    let again = tokio::time::timeout(std::time::Duration::from_secs(60), server.try_again()).await;
    again.expect("it neither serves nor ends")?;
    while starts(server) == before {
        if !server.is_running() {
            server.kill();
            let told = server.output();
            let last: Vec<&str> = told.lines().rev().take(4).collect();
            return Err(last.join("\n"));
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Pages of the database by the kind that their first byte states (SQLite file format, section 1.6).
fn pages(database: &[u8], kind: u8) -> Vec<usize> {
    let first = |page: &[u8]| page[0];
    database
        .chunks_exact(PAGE)
        .enumerate()
        .skip(1)
        .filter(|(_, page)| first(page) == kind)
        .map(|(number, _)| number)
        .collect()
}

/// Destroys pages of every kind, one after another: the server refuses to start, or says 503 where it meets the page; it
/// never says wrong bytes, and once it has met damage it writes nothing more and says how to go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destroyed_database_page_is_reported_and_refused() {
    if no_file() {
        return;
    }
    let mut server = start().await;
    let client = server.admin(Version::Http1);
    let held = Held::push(&client).await;
    assert!(server.terminate().await.success());
    let path = data(&server).join("wharf.db");
    let whole = std::fs::read(&path).unwrap();
    let (mut met, mut refused) = (0, 0);
    let mut victims = vec![("header", 0)];
    for (kind, byte) in [
        ("interior page of a table", 5),
        ("interior page of an index", 2),
        ("leaf of a table", 13),
        ("leaf of an index", 10),
    ] {
        let all = pages(&whole, byte);
        assert!(!all.is_empty() || byte == 2, "no {kind}");
        // The first, one from the middle and the last.
        let chosen = [0, all.len() / 2, all.len().saturating_sub(1)];
        let mut chosen: Vec<_> = chosen.iter().filter_map(|at| all.get(*at)).collect();
        chosen.dedup();
        victims.extend(chosen.into_iter().map(|page| (kind, *page)));
    }
    for (kind, page) in victims {
        let mut bad = whole.clone();
        let at = page * PAGE;
        // Of the first page the part after the file's own header, which is looked at elsewhere.
        let from = if page == 0 { 100 } else { 0 };
        bad[at + from..at + PAGE].fill(0xa5);
        std::fs::write(&path, &bad).unwrap();
        if let Err(text) = begun(&mut server).await {
            refused += 1;
            assert!(
                text.contains("damaged") && text.contains("restore"),
                "{kind}, page {page}: {text}"
            );
            std::fs::write(&path, &whole).unwrap();
            continue;
        }
        let client = server.admin(Version::Http1);
        let errors = held.read(&client).await;
        let damaged = figure(&client, "wharf_meta_damaged").await == "1";
        if damaged {
            met += 1;
            let target = format!("/v2/{NAME}/blobs/uploads/");
            let refused = client.post(&target).send().await;
            let text = refused.expect_error(503, "UNAVAILABLE").to_string();
            assert!(text.contains("restore a backup"), "{text}");
            let told = health(&client).await;
            assert!(told.contains("damaged"), "{told}");
            assert!(server.output().contains("wharf backup restore"));
        } else {
            assert_eq!(errors, 0, "{kind}, page {page}: errors without a report");
        }
        // Whether a request met it or not, a check finds it.
        let output = Command::new(WHARF)
            .args(["storage", "verify", "--deep", "--data"])
            .arg(data(&server))
            .output()
            .unwrap();
        assert!(!output.status.success(), "{kind}, page {page}: {output:?}");
        assert!(server.is_running());
        server.kill();
        std::fs::write(&path, &whole).unwrap();
        let _ = std::fs::remove_file(path.with_extension("db-wal"));
        let _ = std::fs::remove_file(path.with_extension("db-shm"));
    }
    assert!(met > 0 && refused > 0, "{met} met, {refused} refused");
    server.again().await;
    assert_eq!(held.read(&server.admin(Version::Http1)).await, 0);
}

/// A flipped bit inside of a manifest or of a small blob, which SQLite cannot see.
#[tokio::test]
async fn a_flipped_bit_in_content_that_lies_in_the_database_is_not_served() {
    if no_file() {
        return;
    }
    let mut server = start().await;
    let client = server.admin(Version::Http1);
    let (image, content) = (Image::random(), Content::random(9_000));
    client.push_image(NAME, "v1", &image).await;
    client.push_blob(NAME, &content).await;
    for (bytes, address) in [
        (&image.manifest.bytes, manifest(NAME, "v1")),
        (&content.bytes, blob(NAME, &content.digest)),
    ] {
        assert!(server.terminate().await.success());
        let path = data(&server).join("wharf.db");
        let whole = std::fs::read(&path).unwrap();
        let piece = &bytes[20..60];
        let places = whole.windows(piece.len()).enumerate();
        // Where SQLite has moved a row, an old copy may be left in space that is free now.
        let found: Vec<_> = places.filter(|(_, part)| *part == piece).collect();
        assert!(!found.is_empty(), "not in the database");
        for (at, _) in found {
            flip(&path, at as u64 + 7);
        }
        server.again().await;
        let client = server.admin(Version::Http1);
        client
            .get(&address)
            .send()
            .await
            .expect_error(503, "UNAVAILABLE");
        assert_eq!(figure(&client, "wharf_meta_damaged").await, "1");
        server.kill();
        std::fs::write(&path, &whole).unwrap();
        server.again().await;
        client.get(&address).send().await.expect_status(200);
    }
}

/// Commits that were synced and cannot be read back are missed before anything is served without them.
#[tokio::test]
async fn a_broken_log_is_refused_instead_of_shortened() {
    if no_file() {
        return;
    }
    let mut server = start().await;
    let client = server.admin(Version::Http1);
    let held = Held::push(&client).await;
    server.kill();
    let log = data(&server).join("wharf.db-wal");
    let whole = std::fs::read(&log).unwrap();
    assert!(whole.len() > 100 * PAGE, "{}", whole.len());
    let database = std::fs::read(data(&server).join("wharf.db")).unwrap();
    for part in [1, 10, 50] {
        std::fs::write(&log, &whole).unwrap();
        std::fs::write(data(&server).join("wharf.db"), &database).unwrap();
        // Behind the log's own header; the file ends long before it is used up again.
        flip(&log, 32 + (part * (PAGE as u64 + 24)) + 24 + 100);
        let text = begun(&mut server).await.expect_err("it served");
        assert!(
            text.contains("is broken") && text.contains("wharf backup restore"),
            "{text}"
        );
    }
    std::fs::write(&log, &whole).unwrap();
    std::fs::write(data(&server).join("wharf.db"), &database).unwrap();
    server.again().await;
    assert_eq!(held.read(&server.admin(Version::Http1)).await, 0);
}

/// The file's own header: magic, page size, and a length that does not fit.
#[tokio::test]
async fn a_broken_header_is_refused_at_the_start() {
    if no_file() {
        return;
    }
    let mut server = start().await;
    server
        .admin(Version::Http1)
        .push_image(NAME, "v1", &Image::random())
        .await;
    assert!(server.terminate().await.success());
    let path = data(&server).join("wharf.db");
    let whole = std::fs::read(&path).unwrap();
    for at in [0, 17, 18, 21, 44, 68] {
        let mut bad = whole.clone();
        bad[at] ^= 0x55;
        std::fs::write(&path, &bad).unwrap();
        let text = begun(&mut server).await;
        let text = text.expect_err(&format!("it served with byte {at} changed"));
        assert!(text.contains("error:"), "byte {at}: {text}");
        assert_eq!(
            std::fs::read(&path).unwrap(),
            bad,
            "byte {at}: it was written to"
        );
    }
    std::fs::write(&path, &whole[..whole.len() - PAGE]).unwrap();
    let text = begun(&mut server).await.expect_err("it served");
    assert!(text.contains("damaged"), "{text}");
}
