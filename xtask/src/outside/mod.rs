//! `cargo xtask outside`: the release binary beside the real programs that it takes identities from.
//!
//! Each part is a module: it starts its counterpart and a registry on the loopback interface, and uses both as an operator would.
//! Programs come from `cargo xtask clients`; one that is missing is a failure, since it could be installed. [`Outside`] holds what
//! parts share: named steps with logs of their own, and registries.

mod kube;
mod ldap;
mod oidc;
mod templates;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use wharf_meta::test_server::free_port;

use crate::e2e::Step;
use crate::e2e::process::{Daemon, Watchdog, tail};
use crate::e2e::site::answers;
use crate::{run, workspace};

/// Arguments of `cargo xtask outside`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these parts; all when none is given
    parts: Vec<String>,
    /// The program under test; built as a release when it is not given
    #[arg(long)]
    wharf: Option<PathBuf>,
    /// Leave the run's folder for a look at it
    #[arg(long)]
    keep: bool,
}

/// One counterpart: its name, the programs that it needs, its tests.
type Part = (
    &'static str,
    &'static [&'static str],
    fn(&mut Outside) -> Result<()>,
);

const PARTS: &[Part] = &[
    (
        "kube",
        &[
            "etcd",
            "kube-apiserver",
            "curl",
            "openssl",
            "crane",
            "skopeo",
        ],
        kube::run,
    ),
    (
        "ldap",
        &["slapd", "ldapadd", "openssl", "crane", "skopeo"],
        ldap::run,
    ),
    (
        "oidc",
        &["oidc-provider", "node", "chromium", "openssl", "curl"],
        oidc::run,
    ),
    (
        "templates",
        &["buildah", "cosign3", "curl", "openssl", "bash"],
        templates::run,
    ),
];

/// A run.
pub(crate) struct Outside {
    /// Where its files lie.
    pub(crate) dir: PathBuf,
    /// The program under test, as text for command lines.
    pub(crate) wharf: String,
    logs: PathBuf,
    part: &'static str,
    steps: usize,
    passed: usize,
    failed: Vec<String>,
}

/// A registry of a run, in plain HTTP.
pub(crate) struct Registry {
    /// Host and port.
    pub(crate) address: String,
    /// Its data folder.
    pub(crate) data: String,
    _server: Daemon,
}

impl Outside {
    /// Starts a registry in a folder of this name; `config` is its configuration file. The password of `admin` is `admin-password`.
    pub(crate) fn registry(&self, name: &str, config: &str) -> Result<Registry> {
        let dir = self.dir.join(name);
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join("wharf.toml"), config)?;
        std::fs::write(dir.join("password"), "admin-password")?;
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(&self.wharf);
        command
            .args(["serve", "--data"])
            .arg(dir.join("data"))
            .arg("--config")
            .arg(dir.join("wharf.toml"))
            .args(["--listen", &address]);
        let mut server = Daemon::start("wharf", &mut command, &dir.join("server.log"))?;
        server.wait_until(|| answers(&format!("http://{address}/readyz"), None))?;
        let registry = Registry {
            address,
            data: dir.join("data").to_string_lossy().into_owned(),
            _server: server,
        };
        run::read(
            Command::new(&self.wharf)
                .args([
                    "admin",
                    "reset-password",
                    "--data",
                    &registry.data,
                    "--password-file",
                ])
                .arg(dir.join("password")),
        )?;
        Ok(registry)
    }

    /// Runs one named step; a panic in it is a failure like another.
    pub(crate) fn step(&mut self, name: &str, body: impl FnOnce(&mut Step) -> Result<()>) {
        let name = format!("{}: {name}", self.part);
        self.steps += 1;
        let slug: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let log = self.logs.join(format!("{:03}-{slug}.log", self.steps));
        let dir = self.dir.join(format!("step-{:03}", self.steps));
        let start = Instant::now();
        let result = Step::new(dir, log.clone()).and_then(|mut step| {
            catch_unwind(AssertUnwindSafe(|| body(&mut step)))
                .unwrap_or_else(|_| Err(anyhow!("a panic; its words are above")))
                .inspect_err(|error| step.note(&format!("FAILED: {error:#}")))
        });
        let took = start.elapsed().as_secs_f32();
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("ok    {name}  ({took:.1} s)");
            }
            Err(error) => {
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                println!(
                    "FAIL  {name}  ({took:.1} s)\n      {error:#}\n      --- the end of {} ---\n{}\n      ---",
                    log.display(),
                    tail(&text, 40)
                );
                self.failed.push(name);
            }
        }
    }
}

/// Runs the task.
pub(crate) fn main(args: &Args) -> Result<()> {
    if let Some(unknown) = args
        .parts
        .iter()
        .find(|name| !PARTS.iter().any(|part| part.0 == **name))
    {
        let known: Vec<_> = PARTS.iter().map(|part| part.0).collect();
        bail!("there is no part {unknown}; known: {}", known.join(", "));
    }
    let wharf = program(args.wharf.as_deref())?;
    let dir = std::env::temp_dir().join(format!("wharf-outside-{}", std::process::id()));
    std::fs::create_dir(&dir)
        .with_context(|| format!("making the run's folder {}", dir.display()))?;
    let logs = workspace::target_dir().join("outside");
    let _ = std::fs::remove_dir_all(&logs);
    std::fs::create_dir_all(&logs)?;
    let watchdog = Watchdog::start(&dir, args.keep)?;
    println!(
        "outside: files in {}, logs in {}",
        dir.display(),
        logs.display()
    );
    let mut outside = Outside {
        dir,
        wharf: wharf.to_string_lossy().into_owned(),
        logs,
        part: "",
        steps: 0,
        passed: 0,
        failed: Vec::new(),
    };
    for (name, programs, test) in PARTS {
        if !args.parts.is_empty() && !args.parts.iter().any(|part| part == name) {
            continue;
        }
        outside.part = name;
        let missing: Vec<_> = programs
            .iter()
            .filter(|program| run::find(program).is_none())
            .collect();
        let done = match missing.is_empty() {
            true => test(&mut outside),
            false => Err(anyhow!("missing {missing:?}: cargo xtask clients")),
        };
        if let Err(error) = done {
            println!("FAIL  {name}: {error:#}");
            outside.failed.push((*name).to_owned());
        }
    }
    drop(watchdog);
    println!();
    for name in &outside.failed {
        println!("failed {name}");
    }
    println!(
        "{} passed, {} failed, 0 skipped",
        outside.passed,
        outside.failed.len()
    );
    if !outside.failed.is_empty() {
        bail!("outside: logs are in {}", outside.logs.display());
    }
    if outside.passed == 0 {
        bail!("outside: no step was run");
    }
    Ok(())
}

fn program(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        return given
            .canonicalize()
            .with_context(|| format!("--wharf {}", given.display()));
    }
    println!("building the release binary");
    run::check(
        Command::new("cargo")
            .args(["build", "--release", "--package", "wharf"])
            .current_dir(workspace::root()),
    )?;
    Ok(workspace::target_dir().join("release/wharf"))
}
