//! Plain `curl`: the requests of the tutorial, and the simplest push there is.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::cutter::{Cutter, Direction};
use super::image::{self, Image};
use super::site::{ALICE, Mode, PAUL, RITA, Site, User};
use super::step::Step;
use super::suite::{BIG, BIG_REPOSITORY, Suite};

/// The tests.
pub(crate) fn run(suite: &mut Suite) {
    for mode in [Mode::Plain, Mode::Tls, Mode::Nginx] {
        suite.step(
            &format!("push, pull and compare over {}", mode.name()),
            |suite, step| {
                let (site, image) = (suite.site(mode)?, suite.small_image()?);
                push(step, &site, ALICE, &image, "e2e/curl/app", "v1")?;
                let stored = site.verify(step, "e2e/curl/app", "v1")?;
                ensure!(
                    stored == image.digest,
                    "stored {stored}, {} was pushed",
                    image.digest
                );
                Ok(())
            },
        );
    }
    suite.step(
        "statuses: wrong password, unknown tag, ping",
        |suite, step| {
            let site = suite.site(Mode::Plain)?;
            expect(step, &site, None, "/v2/", 401)?;
            expect(step, &site, Some(ALICE), "/v2/", 200)?;
            expect(step, &site, Some((ALICE.0, "wrong")), "/v2/", 401)?;
            expect(
                step,
                &site,
                Some(ALICE),
                "/v2/e2e/curl/app/manifests/no-such-tag",
                404,
            )
        },
    );
    suite.step(
        "an upload whose connection breaks goes on where the registry says",
        |suite, step| {
            let (site, image) = (suite.site(Mode::Plain)?, suite.big_image()?);
            resume_upload(step, &site, &image)
        },
    );
    suite.step(
        "a download whose connection breaks goes on with a range",
        |suite, step| {
            let (site, image) = suite.big_on_site(step)?;
            resume_download(step, &site, &image)
        },
    );
    if !suite.is_wharf() {
        return suite.skip("rights of single users", "the reference registry has none");
    }
    suite.step(
        "statuses: denied repositories and a public prefix",
        |suite, step| {
            let (site, public) = (suite.site(Mode::Plain)?, suite.site(Mode::Public)?);
            let image = suite.small_image()?;
            push(step, &site, ALICE, &image, "e2e/curl/app", "v1")?;
            push(step, &public, ALICE, &image, "public/curl", "v1")?;
            expect(
                step,
                &site,
                Some(RITA),
                "/v2/e2e/curl/app/manifests/v1",
                200,
            )?;
            expect(
                step,
                &site,
                Some(PAUL),
                "/v2/e2e/curl/app/manifests/v1",
                403,
            )?;
            // The same for what is not there: a refusal must not tell what exists.
            expect(
                step,
                &site,
                Some(PAUL),
                "/v2/e2e/curl/nothing/manifests/v1",
                403,
            )?;
            expect(step, &site, None, "/v2/e2e/curl/app/manifests/v1", 401)?;
            expect(step, &public, None, "/v2/public/curl/manifests/v1", 200)?;
            expect(step, &public, None, "/v2/e2e/curl/app/manifests/v1", 401)?;
            let upload = ["-X", "POST"];
            ensure!(
                site.ask(
                    step,
                    Some(RITA),
                    "/v2/e2e/curl/app/blobs/uploads/",
                    &upload,
                    None
                )? == 403
            );
            ensure!(
                public.ask(step, None, "/v2/public/curl/blobs/uploads/", &upload, None)? == 401
            );
            Ok(())
        },
    );
}

fn expect(step: &mut Step, site: &Site, user: Option<User>, path: &str, wanted: u16) -> Result<()> {
    let status = site.ask(step, user, path, &[], None)?;
    ensure!(
        status == wanted,
        "{path} as {:?} answered {status}, not {wanted}",
        user.map(|u| u.0)
    );
    Ok(())
}

/// Pushes a layout: each blob by POST and PUT, then the manifests, children first.
pub(crate) fn push(
    step: &mut Step,
    site: &Site,
    user: User,
    image: &Image,
    repository: &str,
    tag: &str,
) -> Result<()> {
    let bytes = std::fs::read(blob(image, &image.digest))?;
    push_manifest(step, site, user, image, repository, &bytes, tag)
}

fn push_manifest(
    step: &mut Step,
    site: &Site,
    user: User,
    image: &Image,
    repository: &str,
    bytes: &[u8],
    reference: &str,
) -> Result<()> {
    let manifest: Value = serde_json::from_slice(bytes)?;
    for child in image::references(&manifest) {
        let digest = image::text(child, "digest")?;
        if child["mediaType"] == image::MANIFEST || child["mediaType"] == image::INDEX {
            let bytes = std::fs::read(blob(image, &digest))?;
            push_manifest(step, site, user, image, repository, &bytes, &digest)?;
            continue;
        }
        let path = format!("/v2/{repository}/blobs/{digest}");
        if site.ask(step, Some(user), &path, &["-I"], None)? == 200 {
            continue;
        }
        let location = start_upload(step, site, user, repository)?;
        let join = if location.contains('?') { '&' } else { '?' };
        let file = blob(image, &digest);
        let upload = ["-T", &*file, "-H", "Content-Type: application/octet-stream"];
        let status = site.ask(
            step,
            Some(user),
            &format!("{location}{join}digest={digest}"),
            &upload,
            None,
        )?;
        ensure!(status == 201, "the upload of {digest} answered {status}");
    }
    let media_type = image::text(&manifest, "mediaType")?;
    let file = step.path("run/manifest");
    std::fs::write(&file, bytes)?;
    let data = format!("@{}", file.display());
    let header = format!("Content-Type: {media_type}");
    let path = format!("/v2/{repository}/manifests/{reference}");
    let status = site.ask(
        step,
        Some(user),
        &path,
        &["-X", "PUT", "--data-binary", &data, "-H", &header],
        None,
    )?;
    ensure!(status == 201, "PUT {path} answered {status}");
    Ok(())
}

fn blob(image: &Image, digest: &str) -> String {
    image
        .dir
        .join("blobs")
        .join(digest.replace(':', "/"))
        .to_string_lossy()
        .into_owned()
}

/// Opens an upload and gives its location, as a path.
pub(crate) fn start_upload(
    step: &mut Step,
    site: &Site,
    user: User,
    repository: &str,
) -> Result<String> {
    let headers = step.file("run/headers");
    let path = format!("/v2/{repository}/blobs/uploads/");
    let status = site.ask(
        step,
        Some(user),
        &path,
        &["-X", "POST", "-D", &headers],
        None,
    )?;
    ensure!(status == 202, "POST {path} answered {status}");
    let location = header(Path::new(&headers), "location")?;
    Ok(location
        .strip_prefix(&site.url())
        .unwrap_or(&location)
        .to_owned())
}

/// A header of the last response in a file that curl wrote with `-D`.
fn header(file: &Path, name: &str) -> Result<String> {
    let text = std::fs::read_to_string(file)?;
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .rfind(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
        .with_context(|| format!("no header {name} in\n{text}"))
}

/// Breaks a PATCH half-way, asks how far it came, sends the rest, closes, compares.
fn resume_upload(step: &mut Step, site: &Site, image: &Image) -> Result<()> {
    let manifest: Value = serde_json::from_slice(&std::fs::read(blob(image, &image.digest))?)?;
    let layer = &manifest["layers"][0];
    let (digest, size) = (
        image::text(layer, "digest")?,
        layer["size"].as_u64().context("the layer's size")?,
    );
    let cutter = Cutter::start(&site.address, Direction::Up, BIG / 2)?;
    let behind = site.seen_through(&cutter.address);
    let location = start_upload(step, &behind, ALICE, "e2e/curl/resumed")?;
    let (file, headers) = (blob(image, &digest), step.file("run/headers"));
    let range = format!("Content-Range: 0-{}", size - 1);
    let patch = [
        "-X",
        "PATCH",
        "-T",
        &*file,
        "-H",
        "Content-Type: application/octet-stream",
        "-H",
        &range,
    ];
    let broken = behind.ask(step, Some(ALICE), &location, &patch, None);
    ensure!(
        broken.is_err() && cutter.cuts() == 1,
        "the connection was not broken: {broken:?}"
    );

    let status = site.ask(step, Some(ALICE), &location, &["-D", &headers], None)?;
    ensure!(status == 204, "the upload's status answered {status}");
    let range = header(Path::new(&headers), "range")?;
    let last: u64 = range
        .strip_prefix("0-")
        .context("Range begins with 0-")?
        .parse()?;
    ensure!(
        last + 1 < size,
        "{range} of {size} bytes cannot be: the connection broke half-way"
    );
    let from = if last == 0 { 0 } else { last + 1 };
    step.note(&format!("the registry kept {from} of {size} bytes"));
    ensure!(from > 0, "nothing of {} bytes was kept", BIG / 2);

    let rest = step.path("rest");
    let mut command = step.command("tail", ["-c", &format!("+{}", from + 1), &*file]);
    command.stdout(std::fs::File::create(&rest)?);
    ensure!(command.status()?.success(), "cutting the file");
    let location = header(Path::new(&headers), "location")?;
    let location = location
        .strip_prefix(&site.url())
        .unwrap_or(&location)
        .to_owned();
    let (rest, range) = (
        rest.to_string_lossy().into_owned(),
        format!("Content-Range: {from}-{}", size - 1),
    );
    let patch = [
        "-X",
        "PATCH",
        "-T",
        &*rest,
        "-H",
        "Content-Type: application/octet-stream",
        "-H",
        &range,
        "-D",
        &headers,
    ];
    let status = site.ask(step, Some(ALICE), &location, &patch, None)?;
    ensure!(status == 202, "the rest answered {status}");
    let location = header(Path::new(&headers), "location")?;
    let location = location
        .strip_prefix(&site.url())
        .unwrap_or(&location)
        .to_owned();
    let join = if location.contains('?') { '&' } else { '?' };
    let close = format!("{location}{join}digest={digest}");
    let status = site.ask(
        step,
        Some(ALICE),
        &close,
        &["-X", "PUT", "-H", "Content-Length: 0"],
        None,
    )?;
    ensure!(status == 201, "closing answered {status}");
    let copy = step.path("copy");
    site.ask(
        step,
        Some(ALICE),
        &format!("/v2/e2e/curl/resumed/blobs/{digest}"),
        &["-L"],
        Some(&copy),
    )?;
    let (found, _) = image::hash_file(&copy)?;
    ensure!(found == digest, "the resumed upload reads back as {found}");
    Ok(())
}

/// Breaks a GET half-way and lets curl go on.
fn resume_download(step: &mut Step, site: &Site, image: &Image) -> Result<()> {
    let manifest: Value = serde_json::from_slice(&std::fs::read(blob(image, &image.digest))?)?;
    let digest = image::text(&manifest["layers"][0], "digest")?;
    let cutter = Cutter::start(&site.address, Direction::Down, BIG / 2)?;
    let behind = site.seen_through(&cutter.address);
    let (path, copy) = (
        format!("/v2/{BIG_REPOSITORY}/blobs/{digest}"),
        step.path("copy"),
    );
    let broken = behind.ask(step, Some(ALICE), &path, &[], Some(&copy));
    ensure!(
        broken.is_err() && cutter.cuts() == 1,
        "the connection was not broken: {broken:?}"
    );
    let status = behind.ask(step, Some(ALICE), &path, &["-C", "-"], Some(&copy))?;
    ensure!(status == 206, "the rest answered {status}");
    let (found, _) = image::hash_file(&copy)?;
    ensure!(found == digest, "the resumed download reads as {found}");
    Ok(())
}
