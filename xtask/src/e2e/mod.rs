//! `cargo xtask e2e`: drives each real client against the release binary.
//!
//! The harness is in [`suite`] (what steps share), [`step`] (commands and logs), [`site`] (registries in four modes),
//! [`below`] (databases below them), [`store`] (buckets), [`process`] (nothing outlives the run), [`cutter`] (connections that break), [`image`] (images made here) and
//! [`matrix`] (what all clients have to show). Each other module is one client. Clients come from
//! `cargo xtask clients`; one that is missing is a failure, since it could be installed.
//!
//! Every address is on the loopback interface, and every command's output goes to a log that is shown on failure.

pub(crate) mod below;
mod buildkit;
mod containerd;
mod crane;
mod credential;
mod curl;
mod cutter;
mod debian;
mod docker;
mod helm;
mod image;
mod matrix;
mod operator;
mod oras;
mod podman;
pub(crate) mod process;
mod regctl;
mod signing;
pub(crate) mod site;
mod skopeo;
mod step;
pub(crate) mod store;
mod stored;
mod suite;
mod terminal;

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::{run, workspace};
pub(crate) use docker::Docker;
pub(crate) use image::{Image, Layer, noise};
pub(crate) use matrix::Tool;
pub(crate) use site::Site;
use site::Subject;
pub(crate) use step::{Step, refused};
use store::Store;
use suite::Suite;

/// Arguments of `cargo xtask e2e`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these clients; all when none is given
    names: Vec<String>,
    /// The program under test; built as a release when it is not given
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Only steps whose name contains this
    #[arg(long)]
    filter: Option<String>,
    /// Where the registries keep their metadata
    #[arg(long, default_value = "sqlite", conflicts_with = "against")]
    metadata: below::Kind,
    /// Keep the blobs of all registries in this object store instead of files
    #[arg(long)]
    store: Option<store::Kind>,
    /// Send clients to that store
    #[arg(long, requires = "store")]
    redirect: bool,
    /// Only what moves bytes: clients of each family, and of their steps those over plain HTTP
    #[arg(long, conflicts_with = "filter")]
    short: bool,
    /// Leave the run's folder for a look at it
    #[arg(long)]
    keep: bool,
    /// Run the same tests against another registry, to judge the tests
    #[arg(long, hide = true, value_parser = ["distribution"])]
    against: Option<String>,
}

/// One client: its name, the programs that it needs, its tests.
type Client = (&'static str, &'static [&'static str], fn(&mut Suite));

const CLIENTS: &[Client] = &[
    // First: it counts what is left in the store, and clients leave uploads behind.
    ("stored", &["sha512sum"], stored::run),
    ("curl", &["curl"], curl::run),
    ("crane", &["crane"], crane::run),
    ("regctl", &["regctl"], regctl::run),
    ("oras", &["oras"], oras::run),
    ("skopeo", &["skopeo"], skopeo::run),
    (
        "docker",
        &["dockerd", "docker", "runc", "iptables", "skopeo"],
        docker::run,
    ),
    ("podman", &["podman", "conmon", "runc"], podman::run),
    ("buildah", &["buildah"], podman::run_buildah),
    (
        "containerd",
        &["containerd", "ctr", "runc"],
        containerd::run,
    ),
    ("helm3", &["helm3"], helm::run_3),
    ("helm4", &["helm4"], helm::run_4),
    ("cosign2", &["cosign2"], signing::run_cosign_2),
    ("cosign3", &["cosign3"], signing::run_cosign_3),
    ("notation", &["notation"], signing::run_notation),
    (
        "buildkit",
        &["buildkitd", "buildctl", "runc", "crane"],
        buildkit::run,
    ),
    (
        "debian",
        &[
            "debootstrap",
            "dockerd",
            "docker",
            "podman",
            "conmon",
            "containerd",
            "ctr",
            "runc",
            "skopeo",
        ],
        debian::run,
    ),
    (
        "credential",
        &[
            "crane", "oras", "skopeo", "podman", "conmon", "runc", "dockerd", "docker", "helm3",
            "helm4",
        ],
        credential::run,
    ),
    (
        "terminal",
        &[
            "crane", "oras", "skopeo", "podman", "conmon", "runc", "dockerd", "docker", "helm3",
            "helm4",
        ],
        terminal::run,
    ),
    ("operator", &[], operator::run),
];

/// The clients of a short run: one for each way to send and fetch bytes.
const SHORT: &[&str] = &["crane", "oras", "skopeo", "docker", "helm4", "stored"];

/// What the names of the steps of a short run contain: one of these.
const BYTES: &[&str] = &[
    "over plain HTTP",
    "index of several",
    "big layer ends whole",
];

/// Programs that work for root only, as they are used here.
const DAEMONS: &[&str] = &["dockerd", "containerd", "buildkitd", "podman", "buildah"];

/// Needed by the harness itself.
const HARNESS: &[&str] = &[
    "curl", "openssl", "nginx", "tar", "gzip", "cc", "awk", "grep",
];

/// Those that [`tool`] knows: each a program that needs no daemon, so that it can be driven from elsewhere, too.
const TOOLS: [(&str, &(dyn Tool + Sync)); 4] = [
    ("crane", &crane::Crane),
    ("oras", &oras::Oras),
    ("skopeo", &skopeo::Skopeo),
    ("podman", &podman::Podman::PODMAN),
];

/// A client that is installed, with its name.
pub(crate) fn tool(name: &str) -> Result<(&'static str, &'static (dyn Tool + Sync))> {
    let Some(&found) = TOOLS.iter().find(|(tool, _)| *tool == name) else {
        let known = TOOLS.map(|(tool, _)| tool).join(", ");
        bail!("no client is called {name}; known: {known}, docker");
    };
    installed(name)?;
    Ok(found)
}

/// Fails if a client's programs are not here, or may not be run.
pub(crate) fn installed(name: &str) -> Result<()> {
    let mut programs = CLIENTS.iter().filter(|(client, ..)| *client == name);
    let programs = programs.next().map_or(&[][..], |(_, programs, _)| programs);
    if programs.iter().any(|program| DAEMONS.contains(program))
        && !rustix::process::geteuid().is_root()
    {
        bail!("{name} mounts, and only root may: run it as root, or leave it out");
    }
    match programs.iter().find(|program| run::find(program).is_none()) {
        Some(missing) => bail!("no {missing}: cargo xtask clients {missing}"),
        None => Ok(()),
    }
}

/// Makes the program that images of these tests run; clients that run what they pulled expect its line.
pub(crate) fn hello(path: &std::path::Path) -> Result<()> {
    image::hello(path, suite::HELLO)
}

/// Runs the task.
pub(crate) fn main(args: &Args) -> Result<()> {
    for name in &args.names {
        if !CLIENTS.iter().any(|(client, ..)| client == name) {
            let known: Vec<_> = CLIENTS.iter().map(|(client, ..)| *client).collect();
            bail!("no client is called {name}; known: {}", known.join(", "));
        }
    }
    let missing: Vec<_> = HARNESS
        .iter()
        .filter(|program| run::find(program).is_none())
        .collect();
    if !missing.is_empty() {
        bail!(
            "missing programs {missing:?}: cargo xtask clients, and apt-get install build-essential"
        );
    }
    let subject = subject(args)?;
    // No capital letters in its name: podman takes the path of a layout for the name of an image.
    let dir = std::env::temp_dir().join(format!("wharf-e2e-{}", std::process::id()));
    std::fs::create_dir(&dir)
        .with_context(|| format!("making the run's folder {}", dir.display()))?;
    let logs = workspace::target_dir().join("e2e");
    let _ = std::fs::remove_dir_all(&logs);
    std::fs::create_dir_all(&logs)?;
    let watchdog = process::Watchdog::start(&dir, args.keep)?;
    println!(
        "e2e: {subject:?}, metadata in {:?}, blobs in {}\nfiles in {}, logs in {}",
        args.metadata,
        args.store
            .map_or("files".to_owned(), |kind| format!("{kind:?}")),
        dir.display(),
        logs.display()
    );

    let mut suite = Suite::new(&dir, &logs, subject, args.metadata, args.filter.clone());
    let programs = args.store.map_or(&[][..], store::Kind::programs);
    let missing: Vec<_> = programs
        .iter()
        .chain(args.metadata.programs())
        .filter(|name| run::find(name).is_none())
        .collect();
    if !missing.is_empty() {
        bail!("missing {missing:?}: cargo xtask clients");
    }
    if let Some(kind) = args.store {
        suite.keep_blobs_in(Store::start(kind, args.redirect, &dir.join("store"))?);
    }
    let mut times = Vec::new();
    for (name, programs, test) in CLIENTS {
        let unnamed = match args.names.is_empty() {
            true => args.short && !SHORT.contains(name),
            false => !args.names.iter().any(|n| n == name),
        };
        if unnamed || (*name == "stored" && args.store.is_none()) {
            continue;
        }
        let start = Instant::now();
        suite.begin(name);
        // It has no steps that could be left out.
        suite.only((args.short && *name != "stored").then_some(BYTES));
        if programs.iter().any(|program| DAEMONS.contains(program))
            && !rustix::process::geteuid().is_root()
        {
            suite.step("root", |_, _| {
                bail!("mounts and namespaces need it: run `cargo xtask e2e` as root")
            });
            continue;
        }
        let missing: Vec<_> = programs
            .iter()
            .filter(|program| run::find(program).is_none())
            .collect();
        if missing.is_empty() {
            test(&mut suite);
        } else {
            suite.step("installed", |_, _| {
                bail!("missing {missing:?}: cargo xtask clients")
            });
        }
        times.push((name, start.elapsed().as_secs_f32()));
    }
    suite.close();
    drop(watchdog);

    println!();
    for (name, seconds) in times {
        println!("{name:<12} {seconds:7.1} s");
    }
    for (name, reason) in &suite.skipped {
        println!("skipped {name}: {reason}");
    }
    for name in &suite.failed {
        println!("failed {name}");
    }
    println!(
        "{} passed, {} failed, {} skipped",
        suite.passed,
        suite.failed.len(),
        suite.skipped.len()
    );
    if !suite.failed.is_empty() {
        bail!(
            "e2e: {} steps failed; their logs are in {}",
            suite.failed.len(),
            logs.display()
        );
    }
    if suite.passed == 0 {
        bail!("e2e: no step was run");
    }
    Ok(())
}

fn subject(args: &Args) -> Result<Subject> {
    if args.against.is_some() {
        let program = run::find("distribution")
            .context("no distribution: cargo xtask clients distribution")?;
        return Ok(Subject::Distribution(program));
    }
    if let Some(binary) = &args.binary {
        let binary = binary
            .canonicalize()
            .with_context(|| format!("--binary {}", binary.display()))?;
        return Ok(Subject::Wharf(binary));
    }
    println!("building the release binary");
    run::check(
        Command::new("cargo")
            .args(["build", "--release", "--package", "wharf"])
            .current_dir(workspace::root()),
    )?;
    Ok(Subject::Wharf(
        workspace::target_dir().join("release/wharf"),
    ))
}
