//! A real image of some hundred MiB: a Debian tree made by debootstrap, pushed by Docker, pulled and run by
//! podman and containerd, pulled by skopeo.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context as _, Result, ensure};

use super::containerd::Containerd;
use super::docker::Docker;
use super::image::Image;
use super::matrix::Tool as _;
use super::podman::Podman;
use super::site::{ALICE, Mode, Site};
use super::step::Step;
use super::suite::Suite;
use crate::{run, workspace};

const REPOSITORY: &str = "e2e/debian/bookworm";
/// What the image is asked when it runs.
const QUESTION: [&str; 2] = ["/bin/cat", "/etc/debian_version"];

/// The tests.
pub(crate) fn run(suite: &mut Suite) {
    let mut tree = None;
    suite.step(
        "debootstrap makes a tree, or it lies in the cache",
        |_, step| {
            tree = Some(tarball(step)?);
            Ok(())
        },
    );
    let Some(tree) = tree else { return };
    let mut pushed = None;
    suite.step("docker imports and pushes it", |suite, step| {
        let (site, docker) = start_docker(suite)?;
        docker.login(step, &site, ALICE)?;
        let name = format!("{}/{REPOSITORY}:v1", site.address);
        docker.docker(
            step,
            &[
                "import",
                "-c",
                "CMD [\"/bin/cat\", \"/etc/debian_version\"]",
                &text(&tree),
                &name,
            ],
        )?;
        let digest = docker.push_name(step, &name)?;
        ensure!(site.verify(step, REPOSITORY, "v1")? == digest);
        let said = docker.docker(step, &["run", "--rm", "--network=none", &name])?;
        check_answer(&said)?;
        pushed = Some(digest);
        Ok(())
    });
    let Some(pushed) = pushed else { return };
    suite.step("podman pulls and runs it", |suite, step| {
        let site = suite.site(Mode::Plain)?;
        Podman::PODMAN.login(step, &site, ALICE)?;
        let name = format!("{}/{REPOSITORY}@{pushed}", site.address);
        Podman::PODMAN.pull_into(step, "store", &site, &name)?;
        check_answer(&Podman::PODMAN.run_image(step, "store", &name, &QUESTION)?)
    });
    suite.step("containerd pulls and runs it", |suite, step| {
        let site = suite.site(Mode::Plain)?;
        let dir = suite.folder("debian-containerd")?;
        let containerd = Containerd::start(&dir, &suite.log("debian-containerd.log"))?;
        containerd.login(step, &site, ALICE)?;
        let name = format!("{}/{REPOSITORY}@{pushed}", site.address);
        containerd.pull_into(step, &site, "debian", &name)?;
        check_answer(&containerd.run_image(step, "debian", &name)?)
    });
    suite.step(
        "skopeo copies it to a layout, byte for byte",
        |suite, step| {
            let site = suite.site(Mode::Plain)?;
            step.ok(
                "skopeo",
                [
                    "login",
                    "--tls-verify=false",
                    "-u",
                    ALICE.0,
                    "-p",
                    ALICE.1,
                    &site.address,
                ],
            )?;
            let source = format!("docker://{}/{REPOSITORY}:v1", site.address);
            // `dir:` keeps Docker's manifest as it is; a layout would need it converted.
            step.ok(
                "skopeo",
                [
                    "copy",
                    "--src-tls-verify=false",
                    &source,
                    &format!("dir:{}", step.file("copy")),
                ],
            )?;
            let manifest = std::fs::read(step.path("copy/manifest.json"))?;
            ensure!(
                super::image::digest(&manifest) == pushed,
                "the manifest differs"
            );
            let layout = format!("oci:{}:v1", step.file("layout"));
            step.ok(
                "skopeo",
                ["copy", "--src-tls-verify=false", &source, &layout],
            )?;
            Image::read(&step.path("layout"))?;
            if run::find("umoci").is_some() {
                step.ok(
                    "umoci",
                    [
                        "unpack",
                        "--image",
                        &format!("{}:v1", step.file("layout")),
                        &step.file("bundle"),
                    ],
                )?;
                check_answer(&std::fs::read_to_string(
                    step.path("bundle/rootfs/etc/debian_version"),
                )?)?;
            }
            Ok(())
        },
    );
}

fn check_answer(said: &str) -> Result<()> {
    ensure!(
        said.trim().starts_with("12"),
        "it printed {said:?}, not a version of bookworm"
    );
    Ok(())
}

fn start_docker(suite: &mut Suite) -> Result<(Rc<Site>, Docker)> {
    let site = suite.site(Mode::Plain)?;
    let dir = suite.folder("debian-docker")?;
    Ok((
        site,
        Docker::start(&dir, &suite.log("debian-dockerd.log"), false)?,
    ))
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The tree as a tarball in the clients' cache, made when it is not there.
fn tarball(step: &mut Step) -> Result<PathBuf> {
    let file = workspace::clients_dir()?.join("debian-bookworm.tar");
    if file.is_file() {
        return Ok(file);
    }
    let mut args = vec![
        "--variant=minbase".to_owned(),
        "bookworm".into(),
        step.file("tree"),
    ];
    // The mirror that this machine's apt uses, so that no other has to be reachable.
    let told = run::read(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(CODENAME) $(REPO_URI)",
    ]));
    let mirror = told.ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("bookworm "))?;
        Some(line.split_once(' ')?.1.to_owned())
    });
    args.extend(mirror);
    step.ok("debootstrap", args)?;
    // Downloaded packages are no part of an image.
    let fresh = file.with_extension("new");
    let exclude = [
        "--exclude=./var/cache/apt/archives/*.deb",
        "--exclude=./dev/*",
        "--exclude=./proc/*",
        "--exclude=./sys/*",
    ];
    let mut all: Vec<String> = vec![
        "--sort=name".into(),
        "-cf".into(),
        text(&fresh),
        "-C".into(),
        step.file("tree"),
    ];
    all.extend(exclude.map(str::to_owned));
    all.push(".".into());
    step.ok("tar", all)?;
    std::fs::rename(&fresh, &file).with_context(|| format!("keeping {}", file.display()))?;
    Ok(file)
}
