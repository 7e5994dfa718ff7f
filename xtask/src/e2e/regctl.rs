//! regctl (regclient): mounts anonymously first, sends `digest-algorithm`, resumes uploads.

use anyhow::{Result, ensure};

use super::cutter::{Cutter, Direction};
use super::image::Image;
use super::matrix::{self, Recovery, Tool};
use super::site::{ALICE, Mode, Site, User};
use super::step::Step;
use super::suite::{BIG, Suite};

struct Regctl;

impl Regctl {
    /// Tells regctl how to reach the host: it assumes TLS for everything but `localhost`.
    fn reach(step: &mut Step, site: &Site, address: &str) -> Result<()> {
        step.set("SSL_CERT_FILE", &site.ca_file());
        let tls = if site.tls() { "enabled" } else { "disabled" };
        step.ok(
            "regctl",
            ["registry", "set", "--skip-check", "--tls", tls, address],
        )
        .map(drop)
    }
}

impl Tool for Regctl {
    fn login(&self, step: &mut Step, site: &Site, (name, password): User) -> Result<()> {
        Regctl::reach(step, site, &site.address)?;
        step.ok(
            "regctl",
            [
                "registry",
                "login",
                "-u",
                name,
                "-p",
                password,
                &site.address,
            ],
        )
        .map(drop)
    }

    fn push(
        &self,
        step: &mut Step,
        site: &Site,
        image: &Image,
        repository: &str,
        tag: &str,
    ) -> Result<String> {
        let target = format!("{}/{repository}:{tag}", site.address);
        step.ok(
            "regctl",
            [
                "image",
                "copy",
                &format!("ocidir://{}:{}", image.path(), image.tag),
                &target,
            ],
        )?;
        Ok(step
            .ok("regctl", ["manifest", "digest", &target])?
            .trim()
            .to_owned())
    }

    fn pull(
        &self,
        step: &mut Step,
        site: &Site,
        address: &str,
        repository: &str,
        reference: &str,
    ) -> Result<String> {
        Regctl::reach(step, site, address)?;
        let join = if reference.contains(':') { '@' } else { ':' };
        let dir = step.path("pulled");
        let _ = std::fs::remove_dir_all(&dir);
        let source = format!("{address}/{repository}{join}{reference}");
        step.ok(
            "regctl",
            [
                "image",
                "copy",
                &source,
                &format!("ocidir://{}:pulled", step.file("pulled")),
            ],
        )?;
        Ok(Image::read(&dir)?.digest)
    }

    fn recovery(&self) -> Recovery {
        Recovery::Resumes
    }
}

/// The tests.
pub(crate) fn run(suite: &mut Suite) {
    matrix::run(suite, "regctl", &Regctl);
    suite.step("tags, delete of one tag, blob by blob", |suite, step| {
        let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
        Regctl.login(step, &site, ALICE)?;
        Regctl.push(step, &site, &image, "e2e/regctl/tags", "v1")?;
        Regctl.push(step, &site, &image, "e2e/regctl/tags", "v2")?;
        let repository = format!("{}/e2e/regctl/tags", site.address);
        let tags = step.ok("regctl", ["tag", "ls", &repository])?;
        ensure!(tags.lines().eq(["v1", "v2"]), "tags: {tags}");
        step.ok("regctl", ["tag", "delete", &format!("{repository}:v1")])?;
        let tags = step.ok("regctl", ["tag", "ls", &repository])?;
        ensure!(tags.lines().eq(["v2"]), "tags after the delete: {tags}");
        ensure!(site.verify(step, "e2e/regctl/tags", "v2")? == image.digest);
        Ok(())
    });
    suite.step(
        "a push whose connection breaks in a big layer ends whole",
        |suite, step| {
            let (site, image) = (suite.site(Mode::Plain)?, suite.big_image_of_its_own()?);
            // Late: after a break regctl sends what is left in requests of 32 KiB.
            let cutter = Cutter::start(&site.address, Direction::Up, BIG / 20 * 19)?;
            let behind = site.seen_through(&cutter.address);
            Regctl.login(step, &behind, ALICE)?;
            let pushed = Regctl.push(step, &behind, &image, "e2e/regctl/big", "v1")?;
            ensure!(
                cutter.cuts() == 1,
                "the connection was never broken: the test proves nothing"
            );
            step.note(&format!("ranges {:?}", cutter.ranges()));
            ensure!(
                pushed == image.digest,
                "pushed {pushed}, not {}",
                image.digest
            );
            ensure!(site.verify(step, "e2e/regctl/big", "v1")? == image.digest);
            Ok(())
        },
    );
}
