//! containerd through `ctr`, on a socket, root and state of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::image::Image;
use super::matrix::{self, Recovery, Tool};
use super::process::Daemon;
use super::site::{ALICE, Mode, Site, User};
use super::step::Step;
use super::suite::{HELLO, Suite};
use crate::run;

/// The running daemon.
pub(crate) struct Containerd {
    socket: String,
    _daemon: Daemon,
}

/// Where a step keeps who it acts as: ctr knows no login, it takes the user with each command.
const USER: &str = "E2E_CTR_USER";

impl Containerd {
    /// Starts containerd in `dir`. Content is isolated between namespaces, so that a pull into a fresh
    /// namespace fetches every byte.
    pub(crate) fn start(dir: &Path, log: &Path) -> Result<Containerd> {
        let shown = dir.display();
        let socket = format!("{shown}/c.sock");
        let config = format!(
            r#"version = 2
root = "{shown}/root"
state = "{shown}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{shown}/ttrpc.sock"
[plugins."io.containerd.metadata.v1.bolt"]
  content_sharing_policy = "isolated"
"#
        );
        std::fs::write(dir.join("config.toml"), config)?;
        let program = run::find("containerd").context("no containerd")?;
        let mut command = std::process::Command::new(program);
        command.arg("--config").arg(dir.join("config.toml"));
        let mut daemon = Daemon::start("containerd", &mut command, log)?;
        let ctr = run::find("ctr").context("no ctr")?;
        daemon.wait_until(|| {
            let mut ask = std::process::Command::new(&ctr);
            run::read(ask.args(["-a", &socket, "version"])).is_ok()
        })?;
        Ok(Containerd {
            socket,
            _daemon: daemon,
        })
    }

    fn ctr(&self, step: &mut Step, namespace: &str, args: &[String]) -> Result<String> {
        let mut all = vec![
            "-a".to_owned(),
            self.socket.clone(),
            "-n".into(),
            namespace.into(),
        ];
        all.extend_from_slice(args);
        step.ok("ctr", all)
    }

    /// Pulls into a namespace and leaves the image there.
    pub(crate) fn pull_into(
        &self,
        step: &mut Step,
        site: &Site,
        namespace: &str,
        reference: &str,
    ) -> Result<()> {
        let mut args = words(&["images", "pull", "--all-platforms"]);
        args.extend(security(step, site)?);
        args.push(reference.to_owned());
        self.ctr(step, namespace, &args).map(drop)
    }

    /// Runs an image that was pulled into a namespace and gives what it printed.
    pub(crate) fn run_image(
        &self,
        step: &mut Step,
        namespace: &str,
        reference: &str,
    ) -> Result<String> {
        self.ctr(
            step,
            namespace,
            &words(&["run", "--rm", reference, "e2e-run"]),
        )
    }

    /// Exports an image of a namespace and checks the whole of it.
    fn export(&self, step: &mut Step, namespace: &str, reference: &str) -> Result<String> {
        let (tar, dir) = (step.file("export.tar"), step.path("exported"));
        self.ctr(
            step,
            namespace,
            &words(&["images", "export", "--all-platforms", &tar, reference]),
        )?;
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir)?;
        step.ok("tar", ["-xf", &tar, "-C", &step.file("exported")])?;
        Ok(Image::read(&dir)?.digest)
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// How ctr is told of the site's security and of the user.
fn security(step: &Step, site: &Site) -> Result<Vec<String>> {
    let mut args = if site.tls() {
        // By flags alone containerd speaks HTTP to 127.0.0.1, whatever authority it is given.
        let url = site.url();
        let text = format!(
            "[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\", \"push\"]\n  ca = \"{}\"\n",
            site.ca_file()
        );
        step.write(&format!("certs.d/{}/hosts.toml", site.address), &text)?;
        words(&["--hosts-dir", &step.file("certs.d")])
    } else {
        words(&["--plain-http"])
    };
    if let Some(user) = step.get(USER) {
        args.extend(words(&["--user", &user]));
    }
    Ok(args)
}

/// The namespace of a repository and reference in a step: the same again when a pull is tried again.
fn namespace(step: &Step, repository: &str, reference: &str) -> String {
    let step = step
        .dir
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let text = format!(
        "{step}-{repository}-{}",
        &reference[..reference.len().min(20)]
    );
    text.chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect::<String>()
        .trim_matches('-')
        .to_owned()
}

impl Tool for Containerd {
    fn login(&self, step: &mut Step, _: &Site, (name, password): User) -> Result<()> {
        step.set(USER, &format!("{name}:{password}"));
        Ok(())
    }

    fn push(
        &self,
        step: &mut Step,
        site: &Site,
        image: &Image,
        repository: &str,
        tag: &str,
    ) -> Result<String> {
        let tar = step.file("import.tar");
        step.ok("tar", ["-cf", &tar, "-C", &image.path(), "."])?;
        let base = format!("{}/{repository}", site.address);
        let space = namespace(step, repository, "push");
        self.ctr(
            step,
            &space,
            &words(&[
                "images",
                "import",
                "--all-platforms",
                "--no-unpack",
                "--base-name",
                &base,
                &tar,
            ]),
        )?;
        let (imported, target) = (format!("{base}:{}", image.tag), format!("{base}:{tag}"));
        if imported != target {
            self.ctr(step, &space, &words(&["images", "tag", &imported, &target]))?;
        }
        let mut args = words(&["images", "push"]);
        args.extend(security(step, site)?);
        args.push(target.clone());
        self.ctr(step, &space, &args)?;
        let listed = self.ctr(
            step,
            &space,
            &words(&["images", "ls", &format!("name=={target}")]),
        )?;
        let digest = listed
            .split_whitespace()
            .find(|word| word.starts_with("sha256:"));
        Ok(digest
            .with_context(|| format!("no digest in {listed}"))?
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
        let name = format!("{address}/{repository}{join}{reference}");
        let space = namespace(step, repository, reference);
        self.pull_into(step, site, &space, &name)?;
        self.export(step, &space, &name)
    }

    fn recovery(&self) -> Recovery {
        Recovery::Resumes
    }
}

/// The tests.
pub(crate) fn run(suite: &mut Suite) {
    let started = suite
        .folder("containerd")
        .and_then(|dir| start(suite, &dir));
    let containerd = match started {
        Ok(containerd) => containerd,
        Err(error) => return suite.step("starting the daemon", |_, _| Err(error)),
    };
    matrix::run(suite, "containerd", &containerd);
    // Spec: NS-1, NS-3, NS-6.
    suite.step(
        "a hosts.toml mirror, which is asked with ns=",
        |suite, step| mirror(&containerd, suite, step),
    );
    suite.step(
        "an image that was pulled runs and prints its line",
        |suite, step| {
            let (site, image) = (suite.site(Mode::Plain)?, suite.small_image()?);
            super::curl::push(step, &site, ALICE, &image, "e2e/containerd/run", "v1")?;
            containerd.login(step, &site, ALICE)?;
            let reference = format!("{}/e2e/containerd/run:v1", site.address);
            containerd.pull_into(step, &site, "run", &reference)?;
            let told = containerd.run_image(step, "run", &reference)?;
            ensure!(told.trim() == HELLO, "it printed {told:?}");
            Ok(())
        },
    );
}

fn start(suite: &Suite, dir: &Path) -> Result<Containerd> {
    Containerd::start(dir, &suite.log("containerd.log"))
}

fn mirror(containerd: &Containerd, suite: &mut Suite, step: &mut Step) -> Result<()> {
    let (site, image) = (suite.site(Mode::Plain)?, suite.index_image()?);
    super::curl::push(step, &site, ALICE, &image, "e2e/containerd/mirrored", "v1")?;
    let hosts: PathBuf = step.path("hosts");
    let text = format!(
        "server = \"https://registry.example.test\"\n[host.\"{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
        site.url()
    );
    step.write("hosts/registry.example.test/hosts.toml", &text)?;
    let name = "registry.example.test/e2e/containerd/mirrored:v1";
    let user = format!("{}:{}", ALICE.0, ALICE.1);
    let hosts = hosts.to_string_lossy().into_owned();
    containerd.ctr(
        step,
        "mirror",
        &words(&[
            "images",
            "pull",
            "--all-platforms",
            "--hosts-dir",
            &hosts,
            "--user",
            &user,
            name,
        ]),
    )?;
    let pulled = containerd.export(step, "mirror", name)?;
    ensure!(
        pulled == image.digest,
        "pulled {pulled}, {} was pushed",
        image.digest
    );
    Ok(())
}
