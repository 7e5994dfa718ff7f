//! skopeo (containers/image): copy, sync, inspect, list-tags, delete.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::image::{self, Image};
use super::matrix::{self, Recovery, Tool};
use super::site::{ALICE, Mode, Site, User};
use super::step::Step;
use super::suite::Suite;

/// The client.
pub(crate) struct Skopeo;

/// How containers/image is told of the site's security, with the prefix of `skopeo copy`'s two ends.
pub(crate) fn tls(site: &Site, prefix: &str) -> Vec<String> {
    if site.tls() {
        vec![
            format!("--{prefix}tls-verify=true"),
            format!("--{prefix}cert-dir={}", site.ca_dir()),
        ]
    } else {
        vec![format!("--{prefix}tls-verify=false")]
    }
}

impl Tool for Skopeo {
    fn login(&self, step: &mut Step, site: &Site, (name, password): User) -> Result<()> {
        let mut args = vec![
            "login".to_owned(),
            "-u".into(),
            name.into(),
            "-p".into(),
            password.into(),
        ];
        args.extend(tls(site, ""));
        args.push(site.address.clone());
        step.ok("skopeo", args).map(drop)
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
            "copy".to_owned(),
            "--all".into(),
            "--preserve-digests".into(),
        ];
        args.extend(tls(site, "dest-"));
        args.extend(["--digestfile".to_owned(), step.file("digest")]);
        args.push(format!("oci:{}:{}", image.path(), image.tag));
        args.push(format!("docker://{}/{repository}:{tag}", site.address));
        step.ok("skopeo", args)?;
        Ok(std::fs::read_to_string(step.path("digest"))?
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
        let join = if reference.contains(':') { '@' } else { ':' };
        let dir = step.path("pulled");
        let _ = std::fs::remove_dir_all(&dir);
        let mut args = vec![
            "copy".to_owned(),
            "--all".into(),
            "--preserve-digests".into(),
        ];
        args.extend(tls(site, "src-"));
        args.push(format!("docker://{address}/{repository}{join}{reference}"));
        args.push(format!("oci:{}:pulled", step.file("pulled")));
        step.ok("skopeo", args)?;
        Ok(Image::read(&dir)?.digest)
    }

    fn recovery(&self) -> Recovery {
        Recovery::StartsAgain
    }
}

/// The tests.
pub(crate) fn run(suite: &mut Suite) {
    matrix::run(suite, "skopeo", &Skopeo);
    suite.step(
        "inspect, list-tags, copy between repositories, delete",
        |suite, step| {
            let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
            Skopeo.login(step, &site, ALICE)?;
            for tag in ["v1", "v2"] {
                Skopeo.push(step, &site, &image, "e2e/skopeo/first", tag)?;
            }
            let first = format!("docker://{}/e2e/skopeo/first", site.address);
            let told: Value = serde_json::from_str(&step.ok(
                "skopeo",
                ["inspect", "--tls-verify=false", &format!("{first}:v1")],
            )?)?;
            ensure!(told["Digest"] == image.digest.as_str(), "inspect: {told}");
            ensure!(
                told["RepoTags"] == serde_json::json!(["v1", "v2"]),
                "inspect: {told}"
            );
            let told: Value = serde_json::from_str(
                &step.ok("skopeo", ["list-tags", "--tls-verify=false", &first])?,
            )?;
            ensure!(
                told["Tags"] == serde_json::json!(["v1", "v2"]),
                "list-tags: {told}"
            );
            let second = format!("docker://{}/e2e/skopeo/second:v1", site.address);
            let both = ["--src-tls-verify=false", "--dest-tls-verify=false"];
            step.ok(
                "skopeo",
                [
                    "copy",
                    "--all",
                    both[0],
                    both[1],
                    &format!("{first}:v1"),
                    &second,
                ],
            )?;
            ensure!(site.verify(step, "e2e/skopeo/second", "v1")? == image.digest);
            step.ok("skopeo", ["delete", "--tls-verify=false", &second])?;
            let gone = step.any("skopeo", ["inspect", "--tls-verify=false", &second])?;
            ensure!(gone.code != Some(0), "it is still there after the delete");
            Ok(())
        },
    );
    suite.step(
        "sync a repository to a folder and back into another",
        |suite, step| {
            let (site, image) = (suite.site(Mode::Plain)?, suite.index_image()?);
            Skopeo.login(step, &site, ALICE)?;
            for tag in ["a", "b"] {
                Skopeo.push(step, &site, &image, "e2e/skopeo/synced", tag)?;
            }
            let source = format!("{}/e2e/skopeo/synced", site.address);
            std::fs::create_dir_all(step.path("out"))?;
            step.ok(
                "skopeo",
                [
                    "sync",
                    "--all",
                    "--preserve-digests",
                    "--src-tls-verify=false",
                    "--src",
                    "docker",
                    "--dest",
                    "dir",
                    &source,
                    &step.file("out"),
                ],
            )?;
            for tag in ["a", "b"] {
                let manifest =
                    std::fs::read(step.path("out").join(format!("synced:{tag}/manifest.json")))?;
                ensure!(
                    image::digest(&manifest) == image.digest,
                    "{tag} differs in the folder"
                );
            }
            let target = format!("{}/e2e/skopeo/back", site.address);
            step.ok(
                "skopeo",
                [
                    "sync",
                    "--all",
                    "--preserve-digests",
                    "--dest-tls-verify=false",
                    "--src",
                    "dir",
                    "--dest",
                    "docker",
                    &step.file("out"),
                    &target,
                ],
            )?;
            ensure!(site.verify(step, "e2e/skopeo/back/synced", "a")? == image.digest);
            Ok(())
        },
    );
}
