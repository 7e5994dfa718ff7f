//! podman and buildah (containers/image, containers/storage), each step with a store of its own.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::image::Image;
use super::matrix::{self, Recovery, Tool};
use super::site::{ALICE, Mode, Site, User};
use super::skopeo::tls;
use super::step::Step;
use super::suite::{HELLO, Suite};

/// Either program: their commands for images are the same.
pub(crate) struct Podman(&'static str);

impl Podman {
    /// podman itself.
    pub(crate) const PODMAN: Podman = Podman("podman");
    const BUILDAH: Podman = Podman("buildah");

    /// Runs it on the store `store` of this step.
    pub(crate) fn call(&self, step: &mut Step, store: &str, args: &[String]) -> Result<String> {
        let mut all: Vec<String> = vec![
            "--root".into(),
            step.file(store),
            "--runroot".into(),
            step.file("run/c"),
        ];
        if self.0 == "podman" {
            // No systemd, no journal, no network helpers are asked for.
            all.extend([
                "--tmpdir".into(),
                step.file("run/t"),
                "--events-backend=none".into(),
            ]);
            all.extend([
                "--cgroup-manager=cgroupfs".into(),
                // crun takes no cgroups of both versions at once, which containers often have.
                "--runtime=runc".into(),
                "--log-level=error".into(),
            ]);
        }
        all.extend_from_slice(args);
        step.ok(self.0, all)
    }

    /// Pulls into a store.
    pub(crate) fn pull_into(
        &self,
        step: &mut Step,
        store: &str,
        site: &Site,
        reference: &str,
    ) -> Result<()> {
        let mut args = vec!["pull".to_owned(), "-q".into()];
        args.extend(tls(site, ""));
        args.push(reference.to_owned());
        self.call(step, store, &args).map(drop)
    }

    /// Runs an image of a store and gives what it printed.
    pub(crate) fn run_image(
        &self,
        step: &mut Step,
        store: &str,
        reference: &str,
        command: &[&str],
    ) -> Result<String> {
        let mut args: Vec<String> = [
            "run",
            "--rm",
            "--network=none",
            // Its own defaults are more than a machine that is a container itself may set.
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1024:1024",
            reference,
        ]
        .map(str::to_owned)
        .into();
        args.extend(command.iter().map(|word| (*word).to_owned()));
        self.call(step, store, &args)
    }

    /// The digest under which a store knows an image.
    fn digest(&self, step: &mut Step, store: &str, reference: &str) -> Result<String> {
        let args = ["images", "--no-trunc", "--json"].map(str::to_owned);
        let podman = ["image", "inspect", reference].map(str::to_owned);
        let is_podman = self.0 == "podman";
        let told: Value = serde_json::from_str(&self.call(
            step,
            store,
            if is_podman { &podman } else { &args },
        )?)?;
        let digest = told[0]["Digest"]
            .as_str()
            .or_else(|| told[0]["digest"].as_str());
        Ok(digest
            .with_context(|| format!("no digest in {told}"))?
            .to_owned())
    }
}

impl Tool for Podman {
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
        self.call(step, "login-store", &args).map(drop)
    }

    fn push(
        &self,
        step: &mut Step,
        site: &Site,
        image: &Image,
        repository: &str,
        tag: &str,
    ) -> Result<String> {
        let source = format!("oci:{}:{}", image.path(), image.tag);
        let id = self
            .call(step, "pushed", &["pull".to_owned(), "-q".into(), source])?
            .trim()
            .to_owned();
        let mut args = vec![
            "push".to_owned(),
            "-q".into(),
            "--digestfile".into(),
            step.file("digest"),
        ];
        args.extend(tls(site, ""));
        args.extend([id, format!("docker://{}/{repository}:{tag}", site.address)]);
        self.call(step, "pushed", &args)?;
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
        // A fresh store for each pull, so that every byte is fetched.
        let store = format!("pulled-{}", std::fs::read_dir(&step.dir)?.count());
        let join = if reference.contains(':') { '@' } else { ':' };
        let name = format!("{address}/{repository}{join}{reference}");
        self.pull_into(step, &store, site, &name)?;
        if self.0 == "podman" {
            let told = self.run_image(step, &store, &name, &[])?;
            ensure!(told.trim() == HELLO, "it printed {told:?}");
        }
        self.digest(step, &store, &name)
    }

    fn recovery(&self) -> Recovery {
        Recovery::StartsAgain
    }

    fn pushes_indexes(&self) -> bool {
        false
    }
}

/// podman's tests.
pub(crate) fn run(suite: &mut Suite) {
    let podman = Podman::PODMAN;
    matrix::run(suite, "podman", &podman);
    suite.step(
        "an index made of platforms that lie in the registry",
        |suite, step| {
            let (site, image) = (suite.site(Mode::Plain)?, suite.index_image()?);
            super::curl::push(step, &site, ALICE, &image, "e2e/podman/multi", "v1")?;
            podman.login(step, &site, ALICE)?;
            let source = format!("docker://{}/e2e/podman/multi:v1", site.address);
            let target = format!("docker://{}/e2e/podman/multi:v2", site.address);
            let call = |step: &mut Step, args: &[&str]| {
                podman.call(
                    step,
                    "lists",
                    &args
                        .iter()
                        .map(|word| (*word).to_owned())
                        .collect::<Vec<_>>(),
                )
            };
            call(step, &["manifest", "create", "list"])?;
            call(
                step,
                &[
                    "manifest",
                    "add",
                    "--all",
                    "--tls-verify=false",
                    "list",
                    &source,
                ],
            )?;
            call(
                step,
                &[
                    "manifest",
                    "push",
                    "--all",
                    "--tls-verify=false",
                    "list",
                    &target,
                ],
            )?;
            let stored = site.verify(step, "e2e/podman/multi", "v2")?;
            step.note(&format!("the list is {stored}"));
            Ok(())
        },
    );
    suite.step("search lists repositories", |suite, step| {
        let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
        super::curl::push(step, &site, ALICE, &image, "e2e/podman/found", "v1")?;
        podman.login(step, &site, ALICE)?;
        let target = format!("{}/e2e/podman/found", site.address);
        let args = ["search", "--tls-verify=false", "--list-tags", &target].map(str::to_owned);
        let told = podman.call(step, "login-store", &args)?;
        ensure!(told.contains("v1"), "search: {told}");
        Ok(())
    });
}

/// buildah's tests.
pub(crate) fn run_buildah(suite: &mut Suite) {
    let buildah = Podman::BUILDAH;
    matrix::run(suite, "buildah", &buildah);
    suite.step("build from scratch, push in both formats", |suite, step| {
        let site = suite.site(Mode::Plain)?;
        buildah.login(step, &site, ALICE)?;
        super::image::hello(&step.path("context/hello"), HELLO)?;
        super::image::noise(&step.path("context/data/noise"), 2 << 20, 31)?;
        let file = "FROM scratch\nCOPY hello /hello\nCOPY data /data\nENTRYPOINT [\"/hello\"]\n";
        step.write("context/Containerfile", file)?;
        for format in ["oci", "docker"] {
            let context = step.file("context");
            let build = [
                "build",
                "-q",
                "--isolation=chroot",
                "--format",
                format,
                "-t",
                format,
                &context,
            ];
            buildah.call(step, "built", &build.map(str::to_owned))?;
            let target = format!("docker://{}/e2e/buildah/built:{format}", site.address);
            let digest = step.file("digest");
            let push = [
                "push",
                "-q",
                "--tls-verify=false",
                "--digestfile",
                &digest,
                format,
                &target,
            ];
            buildah.call(step, "built", &push.map(str::to_owned))?;
            let pushed = std::fs::read_to_string(step.path("digest"))?;
            ensure!(site.verify(step, "e2e/buildah/built", format)? == pushed.trim());
        }
        Ok(())
    });
}
