//! Docker: a `dockerd` started here, with its own data, socket and no network of its own.
//!
//! 127.0.0.0/8 counts as insecure for Docker: it tries TLS without looking at the certificate, then HTTP.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::cutter::{Cutter, Direction};
use super::image::Image;
use super::matrix::{self, Recovery, Tool};
use super::process::Daemon;
use super::site::{ALICE, Mode, Site, User};
use super::step::{Step, refused};
use super::suite::{BIG, HELLO, Suite};
use crate::run;

/// The running engine.
pub(crate) struct Docker {
    host: String,
    _daemon: Daemon,
}

impl Docker {
    /// Starts an engine in `dir`, with the containerd image store when asked for.
    pub(crate) fn start(dir: &Path, log: &Path, containerd_store: bool) -> Result<Docker> {
        std::fs::create_dir_all(dir)?;
        let at = |name: &str| dir.join(name).to_string_lossy().into_owned();
        let host = format!("unix://{}", at("d.sock"));
        let config = if containerd_store {
            r#"{"features": {"containerd-snapshotter": true}}"#
        } else {
            "{}"
        };
        std::fs::write(dir.join("daemon.json"), config)?;
        let mut command = Command::new(run::find("dockerd").context("no dockerd")?);
        command.args([
            "--config-file",
            &at("daemon.json"),
            "--data-root",
            &at("root"),
            "--exec-root",
            &at("exec"),
        ]);
        command.args([
            "-H",
            &host,
            "--pidfile",
            &at("pid"),
            "--iptables=false",
            "--ip6tables=false",
            "--bridge=none",
        ]);
        command.env("TMPDIR", dir);
        let mut daemon = Daemon::start("dockerd", &mut command, log)?;
        let client = run::find("docker").context("no docker")?;
        daemon.wait_until(|| {
            run::read(Command::new(&client).args(["-H", &host, "version"])).is_ok()
        })?;
        Ok(Docker {
            host,
            _daemon: daemon,
        })
    }

    /// Runs the client.
    pub(crate) fn docker(&self, step: &mut Step, args: &[&str]) -> Result<String> {
        step.set("DOCKER_HOST", &self.host);
        // The classic builder needs nothing that is not packaged.
        step.set("DOCKER_BUILDKIT", "0");
        step.ok("docker", args)
    }

    /// Takes a layout in under a name. Docker reads no layouts, so skopeo turns it into Docker's own format.
    pub(crate) fn load(&self, step: &mut Step, image: &Image, name: &str) -> Result<()> {
        let tar = step.file("load.tar");
        let _ = std::fs::remove_file(&tar);
        let source = format!("oci:{}:{}", image.path(), image.tag);
        step.ok(
            "skopeo",
            [
                "copy",
                "-q",
                &source,
                &format!("docker-archive:{tar}:{name}"),
            ],
        )?;
        self.docker(step, &["load", "-q", "-i", &tar])?;
        std::fs::remove_file(&tar)?;
        Ok(())
    }

    /// Pushes what has this name and gives the digest that the engine tells.
    pub(crate) fn push_name(&self, step: &mut Step, name: &str) -> Result<String> {
        let told = self.docker(step, &["push", name])?;
        let digest = told
            .split_whitespace()
            .find(|word| word.starts_with("sha256:"));
        Ok(digest
            .with_context(|| format!("docker push told no digest:\n{told}"))?
            .to_owned())
    }

    /// Forgets every image, so that the next pull fetches all of it. What a build left below them goes with them.
    fn forget(&self, step: &mut Step) -> Result<()> {
        let told = self.docker(step, &["images", "-q"])?;
        let mut ids: Vec<&str> = told.split_whitespace().collect();
        ids.sort_unstable();
        ids.dedup();
        if !ids.is_empty() {
            let mut args = vec!["rmi", "-f"];
            args.extend(ids);
            self.docker(step, &args)?;
        }
        Ok(())
    }
}

impl Tool for Docker {
    fn login(&self, step: &mut Step, site: &Site, (name, password): User) -> Result<()> {
        self.docker(step, &["login", "-u", name, "-p", password, &site.address])
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
        let name = format!("{}/{repository}:{tag}", site.address);
        self.load(step, image, &name)?;
        self.push_name(step, &name)
    }

    fn pull(
        &self,
        step: &mut Step,
        _: &Site,
        address: &str,
        repository: &str,
        reference: &str,
    ) -> Result<String> {
        self.forget(step)?;
        let join = if reference.contains(':') { '@' } else { ':' };
        let name = format!("{address}/{repository}{join}{reference}");
        self.docker(step, &["pull", "-q", &name])?;
        let told = self.docker(
            step,
            &[
                "image",
                "inspect",
                "--format",
                "{{range .RepoDigests}}{{println .}}{{end}}",
                &name,
            ],
        )?;
        let digest = told
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{address}/{repository}@")));
        // Running it reads what was unpacked: the engine has checked each layer against its digest before.
        let said = self.docker(step, &["run", "--rm", "--network=none", &name])?;
        ensure!(said.trim() == HELLO, "it printed {said:?}");
        Ok(digest
            .with_context(|| format!("no digest of {address}/{repository} in {told:?}"))?
            .to_owned())
    }

    fn recovery(&self) -> Recovery {
        Recovery::Resumes
    }

    fn pushes_indexes(&self) -> bool {
        false
    }
}

/// The tests.
pub(crate) fn run(suite: &mut Suite) {
    let version = with_store(suite, "legacy", false);
    // The store of containerd came with 24 as a feature.
    match version {
        Some(major) if major >= 24 => {
            with_store(suite, "containerd", true);
        }
        Some(major) => suite.skip(
            "containerd image store",
            &format!("the packaged engine ({major}) has none: it came with 24"),
        ),
        None => {}
    }
}

fn with_store(suite: &mut Suite, store: &'static str, containerd_store: bool) -> Option<u32> {
    let log = suite.log(&format!("dockerd-{store}.log"));
    let started = suite
        .folder("docker")
        .and_then(|dir| Docker::start(&dir.join(store), &log, containerd_store));
    let docker = match started {
        Ok(docker) => docker,
        Err(error) => {
            suite.step("starting the engine", |_, _| Err(error));
            return None;
        }
    };
    let mut major = None;
    suite.step(
        &format!("the engine runs ({store} image store)"),
        |_, step| {
            let version = docker.docker(step, &["version", "--format", "{{.Server.Version}}"])?;
            major = version
                .split('.')
                .next()
                .and_then(|n| n.trim().parse().ok());
            ensure!(major.is_some(), "no version in {version:?}");
            Ok(())
        },
    );
    matrix::run(
        suite,
        if containerd_store {
            "docker-containerd"
        } else {
            "docker"
        },
        &docker,
    );
    if suite.is_wharf() {
        suite.step("its messages say what to do", |suite, step| {
            messages(&docker, suite, step)
        });
    }
    // Spec: LEG-1, LEG-2, LEG-3, MNT-1.
    suite.step("build, push and run what others pushed", |suite, step| {
        build(&docker, suite, step)
    });
    suite.step(
        "a push whose connection breaks in a big layer ends whole",
        |suite, step| {
            let (site, image) = (suite.site(Mode::Plain)?, suite.big_image()?);
            let cutter = Cutter::start(&site.address, Direction::Up, BIG / 2)?;
            docker.login(step, &site.seen_through(&cutter.address), ALICE)?;
            let name = format!("{}/e2e/docker/big:v1", cutter.address);
            docker.load(step, &image, &name)?;
            let pushed = docker.push_name(step, &name)?;
            ensure!(
                cutter.cuts() == 1,
                "the connection was never broken: the test proves nothing"
            );
            let stored = site.verify(step, "e2e/docker/big", "v1")?;
            ensure!(
                stored == pushed,
                "the engine pushed {pushed}, the registry has {stored}"
            );
            Ok(())
        },
    );
    major
}

/// What a new user reads first.
fn messages(docker: &Docker, suite: &mut Suite, step: &mut Step) -> Result<()> {
    let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
    let name = |repository: &str| format!("{}/{repository}:v1", site.address);
    let (own, other) = (name("e2e/docker/messages"), name("elsewhere/app"));
    docker.load(step, &image, &own)?;
    docker.docker(step, &["tag", &own, &other])?;
    refused(docker.docker(step, &["push", &own]), &["docker login"])?;
    refused(
        docker.docker(step, &["pull", &own]),
        &["sign in first: this needs credentials (docker login)"],
    )?;
    refused(
        docker.login(step, &site, (ALICE.0, "wrong")),
        &["the user name or the password is wrong"],
    )?;
    docker.login(step, &site, ALICE)?;
    refused(
        docker.docker(step, &["push", &other]),
        &["alice may not push to repository elsewhere/app"],
    )?;
    refused(
        docker.docker(step, &["pull", &other]),
        &["alice may not pull from repository elsewhere/app"],
    )?;
    refused(
        docker.docker(step, &["pull", &own]),
        &["manifest v1 is not in repository e2e/docker/messages"],
    )
}

fn build(docker: &Docker, suite: &mut Suite, step: &mut Step) -> Result<()> {
    let site = suite.site(Mode::Plain)?;
    docker.login(step, &site, ALICE)?;
    super::image::hello(&step.path("context/hello"), HELLO)?;
    super::image::noise(&step.path("context/data/noise"), 2 << 20, 21)?;
    step.write(
        "context/Dockerfile",
        "FROM scratch\nCOPY hello /hello\nCOPY data /data\nENTRYPOINT [\"/hello\"]\n",
    )?;
    let name = format!("{}/e2e/docker/built:v1", site.address);
    docker.docker(step, &["build", "-q", "-t", &name, &step.file("context")])?;
    let pushed = docker.push_name(step, &name)?;
    ensure!(site.verify(step, "e2e/docker/built", "v1")? == pushed);
    // The same layers into another repository: the engine asks for a mount.
    let second = format!("{}/e2e/docker/mounted:v1", site.address);
    docker.docker(step, &["tag", &name, &second])?;
    let told = docker.docker(step, &["push", &second])?;
    if suite.is_wharf() && !told.contains("Mounted from") {
        bail!("no layer was mounted from the first repository:\n{told}");
    }
    ensure!(site.verify(step, "e2e/docker/mounted", "v1")? == pushed);
    let pulled = docker.pull(step, &site, &site.address, "e2e/docker/built", "v1")?;
    ensure!(pulled == pushed, "pulled {pulled}, {pushed} was pushed");
    Ok(())
}
