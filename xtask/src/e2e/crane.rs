//! crane (go-containerregistry). It takes 127.0.0.1 for a place where HTTP is fine, and trusts `SSL_CERT_FILE`.

use anyhow::{Result, ensure};

use super::image::Image;
use super::matrix::{self, Recovery, Tool};
use super::site::{ALICE, Mode, Site, User};
use super::step::Step;
use super::suite::Suite;

/// The client.
pub(crate) struct Crane;

impl Tool for Crane {
    fn login(&self, step: &mut Step, site: &Site, (name, password): User) -> Result<()> {
        step.set("SSL_CERT_FILE", &site.ca_file());
        step.ok(
            "crane",
            ["auth", "login", &site.address, "-u", name, "-p", password],
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
        let mut args = vec![
            "push".to_owned(),
            image.path(),
            format!("{}/{repository}:{tag}", site.address),
        ];
        if image.index {
            // Without it crane pushes the layout's own index, of which the image would be a child.
            args.push("--index".to_owned());
        }
        let told = step.ok("crane", args)?;
        Ok(told
            .trim()
            .rsplit('@')
            .next()
            .unwrap_or_default()
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
        step.set("SSL_CERT_FILE", &site.ca_file());
        let join = if reference.contains(':') { '@' } else { ':' };
        let dir = step.path("pulled");
        let _ = std::fs::remove_dir_all(&dir);
        let args = [
            "pull",
            "--format=oci",
            &format!("{address}/{repository}{join}{reference}"),
            &step.file("pulled"),
        ];
        step.ok("crane", args)?;
        Ok(Image::read(&dir)?.digest)
    }

    fn recovery(&self) -> Recovery {
        Recovery::StartsAgain
    }
}

/// The tests.
pub(crate) fn run(suite: &mut Suite) {
    matrix::run(suite, "crane", &Crane);
    suite.step(
        "tags, catalogue, copy across repositories, delete",
        |suite, step| {
            let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
            Crane.login(step, &site, ALICE)?;
            Crane.push(step, &site, &image, "e2e/crane/first", "v1")?;
            let first = format!("{}/e2e/crane/first", site.address);
            let second = format!("{}/e2e/crane/second", site.address);
            step.ok("crane", ["tag", &format!("{first}:v1"), "v2"])?;
            let tags = step.ok("crane", ["ls", &first])?;
            ensure!(tags.lines().eq(["v1", "v2"]), "tags: {tags}");
            step.ok(
                "crane",
                ["copy", &format!("{first}:v2"), &format!("{second}:copy")],
            )?;
            ensure!(site.verify(step, "e2e/crane/second", "copy")? == image.digest);
            let told = step.ok("crane", ["catalog", &site.address])?;
            ensure!(
                told.lines().any(|line| line == "e2e/crane/second"),
                "catalogue: {told}"
            );
            // Not the image above: crane takes each layer for gzip here.
            let multi = suite.index_image()?;
            Crane.push(step, &site, &multi, "e2e/crane/second", "multi")?;
            step.ok(
                "crane",
                ["validate", "--remote", &format!("{second}:multi")],
            )?;
            step.ok("crane", ["delete", &format!("{second}@{}", image.digest)])?;
            let gone = step.any("crane", ["digest", &format!("{second}:copy")])?;
            ensure!(gone.code != Some(0), "it is still there after the delete");
            ensure!(site.verify(step, "e2e/crane/first", "v2")? == image.digest);
            Ok(())
        },
    );
}
