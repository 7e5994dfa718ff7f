//! What a registry over an object store has to show beside its clients: uploads that another process goes on with, what is
//! cancelled or collected leaves nothing, redirects, moving, reindexing. Only with `--store`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::curl::{push, start_upload};
use super::image;
use super::site::{ALICE, Mode, Site};
use super::step::Step;
use super::store::Kind;
use super::suite::Suite;
use crate::run;

/// Bytes of a blob that goes out in several parts.
const LARGE: u64 = 25_000_000;
/// Where the steps push to.
const REPOSITORY: &str = "e2e/stored/app";

/// The tests.
pub(crate) fn run(suite: &mut Suite) {
    suite.step(
        "an upload goes on in another process after kill -9",
        taken_over,
    );
    suite.step("blobs by sha512, in one request and in parts", sha512);
    suite.step("a cancelled upload leaves nothing", cancelled);
    suite.step("ranges, and redirects where they are wanted", redirected);
    suite.step(
        "what is deleted and collected is gone from the store",
        collected,
    );
    suite.step("the check finds what is wrong before the start", checked);
    suite.step("moving to files, and serving from there", moved);
    suite.step(
        "after a restore of older metadata, nothing is uploaded again",
        reindexed,
    );
}

/// A registry of the step's own.
fn start(suite: &Suite, step: &Step) -> Result<Site> {
    suite.start(Mode::Plain, &step.path("own"))
}

fn wharf(suite: &Suite, step: &mut Step, args: &[&str]) -> Result<String> {
    let binary = suite.binary().to_string_lossy().into_owned();
    let config = step.file("own/wharf.toml");
    let data = step.file("own/data");
    let mut all = args.to_vec();
    all.extend(["--config", &config, "--data", &data]);
    step.ok(&binary, all)
}

/// Noise in a file, and its digest.
fn noise(step: &Step, name: &str, size: u64, seed: u64) -> Result<(String, String)> {
    let path = step.path(name);
    image::noise(&path, size, seed)?;
    let (digest, _) = image::hash_file(&path)?;
    Ok((path.to_string_lossy().into_owned(), digest))
}

/// Writes a part of a file to another one.
fn cut(from: &str, to: &Path, start: usize, end: usize) -> Result<String> {
    let bytes = std::fs::read(from)?;
    std::fs::write(to, bytes.get(start..end).context("a part of the file")?)?;
    Ok(to.to_string_lossy().into_owned())
}

fn patch(step: &mut Step, site: &Site, location: &str, file: &str, start: u64) -> Result<()> {
    let end = start + std::fs::metadata(file)?.len() - 1;
    let range = format!("Content-Range: {start}-{end}");
    let args = ["-X", "PATCH", "-T", file, "-H", &range];
    let status = site.ask(step, Some(ALICE), location, &args, None)?;
    ensure!(status == 202, "PATCH answered {status}");
    Ok(())
}

fn close(
    step: &mut Step,
    site: &Site,
    location: &str,
    file: Option<&str>,
    digest: &str,
) -> Result<()> {
    let args = match file {
        Some(file) => vec!["-T", file],
        None => vec!["-X", "PUT"],
    };
    let path = format!("{location}?digest={digest}");
    let status = site.ask(step, Some(ALICE), &path, &args, None)?;
    ensure!(status == 201, "PUT answered {status}");
    Ok(())
}

fn fetch(step: &mut Step, site: &Site, digest: &str, like: &str) -> Result<()> {
    let got = step.path("run/got");
    let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
    let status = site.ask(step, Some(ALICE), &path, &["-L"], Some(&got))?;
    ensure!(status == 200, "GET {path} answered {status}");
    ensure!(
        std::fs::read(got)? == std::fs::read(like)?,
        "{digest} has other bytes"
    );
    Ok(())
}

fn upload(step: &mut Step, site: &Site, file: &str, digest: &str) -> Result<()> {
    let location = start_upload(step, site, ALICE, REPOSITORY)?;
    close(step, site, &location, Some(file), digest)
}

/// Nothing is in the store that no row names.
fn no_orphans(suite: &Suite, step: &mut Step) -> Result<()> {
    let told = wharf(suite, step, &["storage", "reindex"])?;
    ensure!(told.starts_with("0 objects in 0 B"), "{told}");
    let loose = suite.store().map_or(0, |store| store.loose_parts());
    ensure!(loose == 0, "{loose} files of parts are left");
    Ok(())
}

fn taken_over(suite: &mut Suite, step: &mut Step) -> Result<()> {
    let (file, digest) = noise(step, "large", LARGE, 41)?;
    let first = cut(&file, &step.path("first"), 0, 9_000_000)?;
    let second = cut(&file, &step.path("second"), 9_000_000, LARGE as usize)?;
    let mut site = start(suite, step)?;
    let location = start_upload(step, &site, ALICE, REPOSITORY)?;
    patch(step, &site, &location, &first, 0)?;
    site.kill();
    let site = start(suite, step)?;
    patch(step, &site, &location, &second, 9_000_000)?;
    close(step, &site, &location, None, &digest)?;
    fetch(step, &site, &digest, &file)?;
    no_orphans(suite, step)
}

fn sha512(suite: &mut Suite, step: &mut Step) -> Result<()> {
    let site = start(suite, step)?;
    for (name, size) in [("medium", 3_000_000), ("large", LARGE)] {
        let (file, _) = noise(step, name, size, size)?;
        let sum = step.ok("sha512sum", [&file])?;
        let digest = format!(
            "sha512:{}",
            sum.split_whitespace().next().unwrap_or_default()
        );
        upload(step, &site, &file, &digest)?;
        fetch(step, &site, &digest, &file)?;
    }
    wharf(suite, step, &["storage", "verify", "--deep"])?;
    no_orphans(suite, step)
}

fn cancelled(suite: &mut Suite, step: &mut Step) -> Result<()> {
    let site = start(suite, step)?;
    let (file, _) = noise(step, "large", LARGE, 42)?;
    let location = start_upload(step, &site, ALICE, REPOSITORY)?;
    patch(step, &site, &location, &file, 0)?;
    let status = site.ask(step, Some(ALICE), &location, &["-X", "DELETE"], None)?;
    ensure!(status == 204, "DELETE answered {status}");
    no_orphans(suite, step)
}

fn redirected(suite: &mut Suite, step: &mut Step) -> Result<()> {
    let site = start(suite, step)?;
    let (file, digest) = noise(step, "large", LARGE, 43)?;
    upload(step, &site, &file, &digest)?;
    let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
    let redirects = suite.store().is_some_and(|store| store.redirects());
    let wanted = if redirects { 307 } else { 200 };
    let status = site.ask(step, Some(ALICE), &path, &[], None)?;
    ensure!(status == wanted, "GET answered {status}, not {wanted}");
    let status = site.ask(step, Some(ALICE), &path, &["-I"], None)?;
    ensure!(status == 200, "HEAD answered {status}");
    fetch(step, &site, &digest, &file)?;
    let got = step.path("run/got");
    let status = site.ask(
        step,
        Some(ALICE),
        &path,
        &["-L", "-r", "8388000-8389000"],
        Some(&got),
    )?;
    ensure!(status == 206, "a range answered {status}");
    let part = cut(&file, &step.path("part"), 8_388_000, 8_389_001)?;
    ensure!(
        std::fs::read(got)? == std::fs::read(part)?,
        "a range has other bytes"
    );
    Ok(())
}

fn collected(suite: &mut Suite, step: &mut Step) -> Result<()> {
    let (site, image) = (start(suite, step)?, suite.small_image()?);
    push(step, &site, ALICE, &image, REPOSITORY, "v1")?;
    ensure!(site.verify(step, REPOSITORY, "v1")? == image.digest);
    let path = format!("/v2/{REPOSITORY}/manifests/{}", image.digest);
    let status = site.ask(step, Some(ALICE), &path, &["-X", "DELETE"], None)?;
    ensure!(status == 202, "DELETE answered {status}");
    wharf(suite, step, &["gc", "run", "--now", "--yes"])?;
    let told = wharf(suite, step, &["storage", "verify"])?;
    ensure!(told.starts_with("Checked 0 blobs"), "{told}");
    no_orphans(suite, step)
}

fn checked(suite: &mut Suite, step: &mut Step) -> Result<()> {
    drop(start(suite, step)?);
    let binary = suite.binary().to_string_lossy().into_owned();
    let text = std::fs::read_to_string(step.path("own/wharf.toml"))?;
    let kind = suite.store().map(|store| store.kind());
    let mut cases = vec![("= \"wharf\"", "= \"absent\"")];
    match kind {
        Some(Kind::Minio) => cases.extend([
            ("= \"wharfaccount\"", "= \"nobody\""),
            ("= \"d2hh", "= \"e2hh"),
        ]),
        Some(Kind::Azure) => cases.push(("= \"d2hh", "= \"e2hh")),
        _ => {}
    }
    for (right, wrong) in cases {
        ensure!(text.contains(right), "{right} is not in the configuration");
        let file = step.write("wrong.toml", &text.replace(right, wrong))?;
        let told = step.any(&binary, ["config", "check", "--online", "--config", &file])?;
        let words = format!("{}{}", told.out, told.err);
        ensure!(told.code != Some(0), "{wrong} was taken: {words}");
        ensure!(words.contains("`storage."), "no key is named: {words}");
        step.note(&words);
    }
    // Another installation's bucket: the same place, other metadata.
    let metadata = |name: &str| suite.databases().config(Mode::Plain, &step.path(name));
    let text = text.replace(&metadata("own"), &metadata("other"));
    let file = step.write("other.toml", &text)?;
    let other = step.file("other");
    let told = step.any(
        &binary,
        [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--config",
            &file,
            "--data",
            &other,
        ],
    )?;
    ensure!(
        told.code != Some(0) && told.err.contains("another installation"),
        "it was taken: {}{}",
        told.out,
        told.err
    );
    Ok(())
}

fn moved(suite: &mut Suite, step: &mut Step) -> Result<()> {
    let (mut site, image) = (start(suite, step)?, suite.small_image()?);
    push(step, &site, ALICE, &image, REPOSITORY, "v1")?;
    let data = step.file("own/data");
    let to = step.write("files.toml", &format!("[server]\ndata = {data:?}\n"))?;
    let told = wharf(suite, step, &["storage", "copy", "--to", &to])?;
    ensure!(told.contains("copied now"), "{told}");
    site.kill();
    let site = suite.start_on_files(Mode::Plain, &step.path("own"))?;
    ensure!(site.verify(step, REPOSITORY, "v1")? == image.digest);
    Ok(())
}

fn copy(step: &Step, from: &str, to: &str) -> Result<()> {
    let _ = std::fs::remove_dir_all(step.path(to));
    let mut command = Command::new("cp");
    run::check(command.arg("-r").arg(step.path(from)).arg(step.path(to)))
}

fn reindexed(suite: &mut Suite, step: &mut Step) -> Result<()> {
    let mut site = start(suite, step)?;
    let (early, early_digest) = noise(step, "early", 300_000, 44)?;
    upload(step, &site, &early, &early_digest)?;
    site.kill();
    copy(step, "own/data", "older")?;
    suite.databases().keep(&step.path("own"))?;
    let (medium, medium_digest) = noise(step, "medium", 3_000_000, 45)?;
    let (large, large_digest) = noise(step, "large", LARGE, 46)?;
    let mut site = start(suite, step)?;
    upload(step, &site, &medium, &medium_digest)?;
    upload(step, &site, &large, &large_digest)?;
    site.kill();
    copy(step, "older", "own/data")?;
    suite.databases().bring_back(&step.path("own"))?;
    let told = wharf(suite, step, &["storage", "reindex"])?;
    for digest in [&medium_digest, &large_digest] {
        ensure!(
            told.contains(digest.as_str()),
            "{digest} is not listed: {told}"
        );
    }
    ensure!(!told.contains(&early_digest), "{told}");
    let site = start(suite, step)?;
    let path = format!("/v2/{REPOSITORY}/blobs/{large_digest}");
    ensure!(site.ask(step, Some(ALICE), &path, &["-I"], None)? == 404);
    let told = wharf(
        suite,
        step,
        &["storage", "reindex", "--repository", REPOSITORY],
    )?;
    ensure!(told.contains("2 adopted"), "{told}");
    ensure!(site.ask(step, Some(ALICE), &path, &["-I"], None)? == 200);
    fetch(step, &site, &large_digest, &large)?;
    fetch(step, &site, &medium_digest, &medium)?;
    // The manifest alone.
    let layer = |digest: &str, size: u64| serde_json::json!({"mediaType": "application/octet-stream", "digest": digest, "size": size});
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": image::MANIFEST, "artifactType": "application/vnd.example",
        "config": layer(&medium_digest, 3_000_000), "layers": [layer(&large_digest, LARGE)],
    });
    let file = step.write("manifest.json", &manifest.to_string())?;
    let (data, header) = (
        format!("@{file}"),
        format!("Content-Type: {}", image::MANIFEST),
    );
    let args = ["-X", "PUT", "--data-binary", &data, "-H", &header];
    let path = format!("/v2/{REPOSITORY}/manifests/v2");
    let status = site.ask(step, Some(ALICE), &path, &args, None)?;
    ensure!(status == 201, "the manifest answered {status}");
    site.verify(step, REPOSITORY, "v2")?;
    no_orphans(suite, step)
}
