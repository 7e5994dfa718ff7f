//! oras (oras-go): images as layouts, artifacts, what is attached to them.

use anyhow::{Result, ensure};
use serde_json::Value;

use super::image::{self, Image};
use super::matrix::{self, Recovery, Tool};
use super::site::{ALICE, Mode, Site, User};
use super::step::Step;
use super::suite::Suite;

/// The client.
pub(crate) struct Oras;

/// `--plain-http`, with the prefix that `oras cp` wants for its two ends.
fn plain(site: &Site, prefix: &str) -> Vec<String> {
    if site.tls() {
        Vec::new()
    } else {
        vec![format!("--{prefix}plain-http")]
    }
}

impl Tool for Oras {
    fn login(&self, step: &mut Step, site: &Site, (name, password): User) -> Result<()> {
        step.set("SSL_CERT_FILE", &site.ca_file());
        let mut args = vec![
            "login".to_owned(),
            "-u".into(),
            name.into(),
            "-p".into(),
            password.into(),
        ];
        args.extend(plain(site, ""));
        args.push(site.address.clone());
        step.ok("oras", args).map(drop)
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
            "cp".to_owned(),
            "--from-oci-layout".into(),
            format!("{}:{}", image.path(), image.tag),
        ];
        args.push(format!("{}/{repository}:{tag}", site.address));
        args.extend(plain(site, "to-"));
        let told = step.ok("oras", args)?;
        digest_line(&told)
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
        let mut args = vec![
            "cp".to_owned(),
            format!("{address}/{repository}{join}{reference}"),
        ];
        args.extend([
            "--to-oci-layout".to_owned(),
            format!("{}:pulled", step.file("pulled")),
        ]);
        args.extend(plain(site, "from-"));
        step.ok("oras", args)?;
        Ok(Image::read(&dir)?.digest)
    }

    fn recovery(&self) -> Recovery {
        Recovery::StartsAgain
    }
}

fn digest_line(told: &str) -> Result<String> {
    let digest = told
        .lines()
        .find_map(|line| line.trim().strip_prefix("Digest:"));
    Ok(digest
        .ok_or_else(|| anyhow::anyhow!("oras told no digest:\n{told}"))?
        .trim()
        .to_owned())
}

/// The tests.
pub(crate) fn run(suite: &mut Suite) {
    matrix::run(suite, "oras", &Oras);
    suite.step("push and pull files as an artifact", |suite, step| {
        let site = suite.site(Mode::Plain)?;
        Oras.login(step, &site, ALICE)?;
        image::noise(&step.path("model.bin"), 3 << 20, 11)?;
        step.write("readme.txt", "what it is\n")?;
        let target = format!("{}/e2e/oras/files:v1", site.address);
        let told = step.ok(
            "oras",
            [
                "push",
                "--plain-http",
                "--artifact-type",
                "application/vnd.example.model",
                &target,
                "model.bin:application/octet-stream",
                "readme.txt:text/plain",
            ],
        )?;
        let digest = digest_line(&told)?;
        ensure!(site.verify(step, "e2e/oras/files", "v1")? == digest);
        step.ok(
            "oras",
            ["pull", "--plain-http", "-o", &step.file("out"), &target],
        )?;
        for name in ["model.bin", "readme.txt"] {
            let (sent, got) = (
                image::hash_file(&step.path(name))?,
                image::hash_file(&step.path("out").join(name))?,
            );
            ensure!(sent == got, "{name} differs");
        }
        Ok(())
    });
    suite.step(
        "attach, discover and delete what is attached",
        |suite, step| {
            let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
            Oras.login(step, &site, ALICE)?;
            Oras.push(step, &site, &image, "e2e/oras/subject", "v1")?;
            step.write("sbom.json", "{\"spdxVersion\": \"SPDX-2.3\"}\n")?;
            step.write("notes.txt", "notes\n")?;
            let subject = format!("{}/e2e/oras/subject:v1", site.address);
            for (kind, file) in [
                ("application/spdx+json", "sbom.json"),
                ("text/plain", "notes.txt"),
            ] {
                step.ok(
                    "oras",
                    [
                        "attach",
                        "--plain-http",
                        "--artifact-type",
                        kind,
                        &subject,
                        file,
                    ],
                )?;
            }
            let discover = |step: &mut Step, extra: &[&str]| -> Result<Vec<(String, String)>> {
                let mut args = vec![
                    "discover",
                    "--plain-http",
                    "--format",
                    "json",
                    "--depth",
                    "1",
                    &subject,
                ];
                args.extend(extra);
                let found: Value = serde_json::from_str(&step.ok("oras", args)?)?;
                let list = found["referrers"]
                    .as_array()
                    .or(found["manifests"].as_array())
                    .cloned()
                    .unwrap_or_default();
                list.iter()
                    .map(|r| Ok((image::text(r, "artifactType")?, image::text(r, "digest")?)))
                    .collect()
            };
            ensure!(discover(step, &[])?.len() == 2);
            let sboms = discover(step, &["--artifact-type", "application/spdx+json"])?;
            ensure!(
                sboms.len() == 1 && sboms[0].0 == "application/spdx+json",
                "filtered: {sboms:?}"
            );
            if site.has_referrers {
                let tags = step.ok(
                    "oras",
                    [
                        "repo",
                        "tags",
                        "--plain-http",
                        &format!("{}/e2e/oras/subject", site.address),
                    ],
                )?;
                ensure!(
                    tags.trim() == "v1",
                    "oras maintained a fallback tag itself: {tags}"
                );
            }
            let attached = format!("{}/e2e/oras/subject@{}", site.address, sboms[0].1);
            step.ok(
                "oras",
                ["manifest", "delete", "--plain-http", "--force", &attached],
            )?;
            ensure!(
                discover(step, &[])?.len() == 1,
                "still attached after the delete"
            );
            Ok(())
        },
    );
}
