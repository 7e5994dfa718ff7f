//! BuildKit: `buildkitd` with a root and socket of its own; images, caches in both formats, attestations.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::image;
use super::process::Daemon;
use super::site::{ALICE, Mode, Site, User};
use super::step::{Step, refused};
use super::suite::{HELLO, Suite};
use super::{curl, matrix};
use crate::run;

struct Buildkit {
    address: String,
    _daemon: Daemon,
}

impl Buildkit {
    fn start(dir: &Path, log: &Path, sites: &[&Site]) -> Result<Buildkit> {
        let shown = dir.display();
        let address = format!("unix://{shown}/b.sock");
        let mut config = format!(
            "root = \"{shown}/root\"\n[grpc]\n  address = [\"{address}\"]\n[worker.containerd]\n  enabled = false\n[worker.oci]\n  enabled = true\n  networkMode = \"host\"\n"
        );
        for site in sites {
            config += &format!("[registry.\"{}\"]\n", site.address);
            if site.tls() {
                // Without `http = false` it speaks HTTP to 127.0.0.1, whatever authority it is given.
                config += &format!("  http = false\n  ca = [\"{}\"]\n", site.ca_file());
            } else {
                config += "  http = true\n";
            }
        }
        std::fs::write(dir.join("buildkitd.toml"), config)?;
        let mut command = Command::new(run::find("buildkitd").context("no buildkitd")?);
        command
            .arg("--config")
            .arg(dir.join("buildkitd.toml"))
            .env("TMPDIR", dir);
        let mut daemon = Daemon::start("buildkitd", &mut command, log)?;
        let client = run::find("buildctl").context("no buildctl")?;
        daemon.wait_until(|| {
            run::read(Command::new(&client).args(["--addr", &address, "debug", "workers"])).is_ok()
        })?;
        Ok(Buildkit {
            address,
            _daemon: daemon,
        })
    }

    /// Credentials come from the client's Docker configuration, by session.
    fn login(step: &mut Step, site: &Site, (name, password): User) -> Result<()> {
        step.set("SSL_CERT_FILE", &site.ca_file());
        step.ok(
            "crane",
            ["auth", "login", &site.address, "-u", name, "-p", password],
        )
        .map(drop)
    }

    /// Builds the step's context with more arguments.
    fn build(&self, step: &mut Step, args: &[&str]) -> Result<String> {
        let context = format!("context={}", step.file("context"));
        let dockerfile = format!("dockerfile={}", step.file("context"));
        let mut all = vec![
            "--addr",
            &self.address,
            "build",
            "--progress=plain",
            "--frontend",
            "dockerfile.v0",
        ];
        all.extend(["--local", &context, "--local", &dockerfile]);
        all.extend(args);
        step.ok("buildctl", all)?;
        Ok(std::fs::read_to_string(step.path("run/.err"))?)
    }

    /// Throws the local cache away.
    fn prune(&self, step: &mut Step) -> Result<()> {
        step.ok("buildctl", ["--addr", &self.address, "prune", "--all"])
            .map(drop)
    }
}

/// A context whose build has a step worth caching: it runs the static program.
fn context(step: &Step) -> Result<()> {
    image::hello(&step.path("context/hello"), HELLO)?;
    image::noise(&step.path("context/data/noise"), 3 << 20, 41)?;
    let file = "FROM scratch AS base\nCOPY hello /hello\nRUN [\"/hello\"]\nFROM scratch\nCOPY --from=base /hello /hello\nCOPY data /data\nENTRYPOINT [\"/hello\"]\n";
    step.write("context/Dockerfile", file).map(drop)
}

/// The tests.
pub(crate) fn run(suite: &mut Suite) {
    let log = suite.log("buildkitd.log");
    let started = (|| {
        let sites = [
            suite.site(Mode::Plain)?,
            suite.site(Mode::Tls)?,
            suite.site(Mode::Nginx)?,
            suite.site(Mode::Public)?,
        ];
        let dir = suite.folder("buildkit")?;
        Buildkit::start(&dir, &log, &sites.each_ref().map(|site| &**site))
    })();
    let buildkit = match started {
        Ok(buildkit) => buildkit,
        Err(error) => return suite.step("starting the daemon", |_, _| Err(error)),
    };
    for mode in [Mode::Plain, Mode::Tls, Mode::Nginx] {
        suite.step(
            &format!("build and push with provenance over {}", mode.name()),
            |suite, step| {
                let site = suite.site(mode)?;
                Buildkit::login(step, &site, ALICE)?;
                context(step)?;
                let name = format!("{}/e2e/buildkit/app:v1", site.address);
                buildkit.build(
                    step,
                    &[
                        "--output",
                        &format!("type=image,name={name},push=true"),
                        "--opt",
                        "attest:provenance=mode=max",
                    ],
                )?;
                site.verify(step, "e2e/buildkit/app", "v1")?;
                let kinds = predicates(step, &site, "e2e/buildkit/app", "v1")?;
                ensure!(
                    kinds
                        .iter()
                        .any(|kind| kind.contains("slsa.dev/provenance")),
                    "attestations: {kinds:?}"
                );
                Ok(())
            },
        );
    }
    suite.step(
        "an SBOM made by a scanner that lies in the registry",
        |suite, step| sbom(&buildkit, suite, step),
    );
    for manifest in [true, false] {
        if !manifest && !suite.is_wharf() {
            suite.skip(
                "cache as an index of blobs",
                "the reference registry refuses it",
            );
            continue;
        }
        let name = if manifest {
            "as an image manifest"
        } else {
            "as an index of blobs"
        };
        // Spec: MPUT-11.
        suite.step(&format!("cache in the registry, {name}"), |suite, step| {
            cache(&buildkit, suite, step, manifest)
        });
    }
    suite.step(
        "build on an image of a public prefix without signing in",
        |suite, step| {
            let (site, image) = (suite.site(Mode::Public)?, suite.small_image()?);
            curl::push(step, &site, ALICE, &image, "public/buildkit", "v1")?;
            let file = format!("FROM {}/public/buildkit:v1\nLABEL a=b\n", site.address);
            step.write("context/Dockerfile", &file)?;
            let out = step.file("out.tar");
            buildkit.build(step, &["--output", &format!("type=oci,dest={out}")])?;
            step.ok("tar", ["-tf", &out])?;
            Ok(())
        },
    );
    suite.step("a wrong password is refused", |suite, step| {
        let site = suite.site(Mode::Plain)?;
        Buildkit::login(step, &site, (ALICE.0, "wrong"))?;
        context(step)?;
        let output = format!(
            "type=image,name={}/e2e/buildkit/wrong:v1,push=true",
            site.address
        );
        refused(
            buildkit.build(step, &["--output", &output]),
            matrix::NO_ACCESS,
        )
    });
    suite.step("an unknown base image is not found", |suite, step| {
        let site = suite.site(Mode::Plain)?;
        Buildkit::login(step, &site, ALICE)?;
        step.write(
            "context/Dockerfile",
            &format!("FROM {}/e2e/buildkit/app:no-such-tag\n", site.address),
        )?;
        refused(buildkit.build(step, &[]), matrix::NOT_THERE)
    });
    if !suite.is_wharf() {
        return suite.skip("rights of single users", "the reference registry has none");
    }
    suite.step(
        "a reader builds on an image and may not push",
        |suite, step| {
            let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
            curl::push(step, &site, ALICE, &image, "e2e/buildkit/base", "v1")?;
            Buildkit::login(step, &site, super::site::RITA)?;
            step.write(
                "context/Dockerfile",
                &format!("FROM {}/e2e/buildkit/base:v1\nLABEL a=b\n", site.address),
            )?;
            buildkit.build(step, &[])?;
            let output = format!(
                "type=image,name={}/e2e/buildkit/base:v2,push=true",
                site.address
            );
            refused(
                buildkit.build(step, &["--output", &output]),
                matrix::NO_ACCESS,
            )
        },
    );
}

/// Fetches a manifest as JSON.
fn manifest(step: &mut Step, site: &Site, repository: &str, reference: &str) -> Result<Value> {
    let file = step.path("run/manifest");
    let path = format!("/v2/{repository}/manifests/{reference}");
    let accept = format!("Accept: {}, {}", image::INDEX, image::MANIFEST);
    let status = site.ask(step, Some(ALICE), &path, &["-H", &accept], Some(&file))?;
    ensure!(status == 200, "{path} answered {status}");
    Ok(serde_json::from_slice(&std::fs::read(&file)?)?)
}

/// The predicate types of the attestations in an index.
fn predicates(
    step: &mut Step,
    site: &Site,
    repository: &str,
    reference: &str,
) -> Result<Vec<String>> {
    let index = manifest(step, site, repository, reference)?;
    let mut found = Vec::new();
    for child in index["manifests"].as_array().context("an index")? {
        if child["annotations"]["vnd.docker.reference.type"] != "attestation-manifest" {
            continue;
        }
        let attestation = manifest(step, site, repository, &image::text(child, "digest")?)?;
        for layer in attestation["layers"].as_array().context("layers")? {
            found.push(image::text(
                &layer["annotations"],
                "in-toto.io/predicate-type",
            )?);
        }
    }
    Ok(found)
}

/// The cache must bring the result back after the local one was thrown away.
fn cache(buildkit: &Buildkit, suite: &mut Suite, step: &mut Step, as_manifest: bool) -> Result<()> {
    let site = suite.site(Mode::Plain)?;
    Buildkit::login(step, &site, ALICE)?;
    context(step)?;
    let tag = if as_manifest { "manifest" } else { "index" };
    let name = format!("{}/e2e/buildkit/cache:{tag}", site.address);
    let export = format!(
        "type=registry,ref={name},mode=max,oci-mediatypes=true,image-manifest={as_manifest}"
    );
    let import = format!("type=registry,ref={name}");
    buildkit.prune(step)?;
    buildkit.build(step, &["--export-cache", &export])?;
    let stored = manifest(step, &site, "e2e/buildkit/cache", tag)?;
    let expected = if as_manifest {
        image::MANIFEST
    } else {
        image::INDEX
    };
    ensure!(
        stored["mediaType"] == expected,
        "the cache is stored as {}",
        stored["mediaType"]
    );
    buildkit.prune(step)?;
    let told = buildkit.build(step, &["--import-cache", &import])?;
    let run_was_cached = told.lines().any(|line| line.contains("CACHED"));
    ensure!(run_was_cached, "nothing came from the cache:\n{told}");
    Ok(())
}

/// BuildKit runs a scanner image on the result and attaches what it writes; ours writes the smallest statement.
fn sbom(buildkit: &Buildkit, suite: &mut Suite, step: &mut Step) -> Result<()> {
    let site = suite.site(Mode::Plain)?;
    Buildkit::login(step, &site, ALICE)?;
    let source = r#"#include <stdio.h>
#include <stdlib.h>
int main(void) {
    char path[4096];
    const char *dir = getenv("BUILDKIT_SCAN_DESTINATION");
    if (!dir) return 2;
    snprintf(path, sizeof path, "%s/sbom.spdx.json", dir);
    FILE *f = fopen(path, "w");
    if (!f) return 3;
    fputs("{\"_type\": \"https://in-toto.io/Statement/v0.1\", \"predicateType\": \"https://spdx.dev/Document\","
          " \"predicate\": {\"spdxVersion\": \"SPDX-2.3\", \"name\": \"tests\"}}", f);
    return fclose(f);
}
"#;
    step.write("scanner/scan.c", source)?;
    std::fs::create_dir_all(step.path("scanner/tree"))?;
    step.ok(
        "cc",
        [
            "-static",
            "-Os",
            "-s",
            "-o",
            &step.file("scanner/tree/scan"),
            &step.file("scanner/scan.c"),
        ],
    )?;
    let tree = step.path("scanner/tree");
    let layers = [image::Layer {
        tree: &tree,
        gzip: true,
    }];
    let scanner = image::Image::build(&step.path("scanner/layout"), "v1", &layers, &["/scan"])?;
    curl::push(step, &site, ALICE, &scanner, "e2e/buildkit/scanner", "v1")?;
    context(step)?;
    let name = format!("{}/e2e/buildkit/sbom:v1", site.address);
    let generator = format!(
        "attest:sbom=generator={}/e2e/buildkit/scanner:v1",
        site.address
    );
    let output = format!("type=image,name={name},push=true");
    buildkit.build(
        step,
        &[
            "--output",
            &output,
            "--opt",
            &generator,
            "--opt",
            "attest:provenance=mode=min",
        ],
    )?;
    site.verify(step, "e2e/buildkit/sbom", "v1")?;
    let kinds = predicates(step, &site, "e2e/buildkit/sbom", "v1")?;
    ensure!(
        kinds.iter().any(|kind| kind.contains("spdx.dev/Document")),
        "attestations: {kinds:?}"
    );
    Ok(())
}
