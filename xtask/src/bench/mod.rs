//! `cargo xtask bench`: Wharf against its rivals, on this machine, in one run.
//!
//! [`site`] starts the servers, [`figures`] says what is measured (one file each), [`run`] goes round A B C A B C,
//! [`table`] prints and judges. The load comes from [`client`] and [`load`] of our own, and from `wrk` for small reads.
//! Everything listens on the loopback interface, and everything that was started ends with the run.

mod behind;
mod client;
mod content;
mod figure;
mod figures;
mod fill;
mod h2;
mod load;
mod page;
mod pipeline;
mod profile;
mod record;
mod run;
mod site;
mod stats;
mod sys;
mod table;
mod tls;
mod usage;
mod wrk;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

pub(crate) use pipeline::{Args as PipelineArgs, main as pipeline};
pub(crate) use profile::{Args as ProfileArgs, main as profile};
pub(crate) use usage::anonymous;

use crate::e2e::process::Watchdog;
use crate::{run as program, workspace};
use figure::Scale;
use site::{Kind, Programs};

/// Arguments of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these figures (p1, p2, …); all when none is given
    figures: Vec<String>,
    /// Only cases whose name contains this
    #[arg(long)]
    only: Option<String>,
    /// The program under test; built as a release when it is not given
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Rounds; medians are taken over them
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of a measurement that has no natural end
    #[arg(long)]
    seconds: Option<f64>,
    /// Less data and less time: the form that CI runs
    #[arg(long)]
    short: bool,
    /// Record the ratios in xtask/bench.json
    #[arg(long)]
    record: bool,
    /// Fail when a ratio is below half of the recorded one, in two runs of its figure
    #[arg(long)]
    check: bool,
    /// Put the tables into docs/reference/performance.md
    #[arg(long)]
    write: bool,
    /// Leave the rivals out: for a quick look at Wharf alone
    #[arg(long)]
    alone: bool,
    /// angos' program, to take part
    #[arg(long)]
    angos: Option<PathBuf>,
    /// zot's program, to take part
    #[arg(long)]
    zot: Option<PathBuf>,
    /// List the figures and their cases
    #[arg(long)]
    list: bool,
}

/// Runs the task.
pub(crate) fn main(args: &Args) -> Result<()> {
    let all = figures::all();
    if args.list {
        for figure in &all {
            println!("{:<4} {}", figure.id, figure.title);
            for case in &figure.cases {
                println!("       {}", case.name());
            }
        }
        return Ok(());
    }
    for wanted in &args.figures {
        if !all.iter().any(|figure| figure.id == wanted.as_str()) {
            let known: Vec<_> = all.iter().map(|figure| figure.id).collect();
            bail!("no figure is called {wanted}; known: {}", known.join(", "));
        }
    }
    let programs = programs(args)?;
    let scale = Scale {
        short: args.short,
        seconds: args.seconds.unwrap_or(if args.short || args.rounds < 5 {
            1.0
        } else {
            3.0
        }),
    };
    let dir = std::env::temp_dir().join(format!("wharf-bench-{}", std::process::id()));
    std::fs::create_dir(&dir).with_context(|| format!("making {}", dir.display()))?;
    let watchdog = Watchdog::start(&dir, false)?;
    many_files();
    let plan = run::Plan {
        programs: &programs,
        scale,
        rounds: args.rounds.max(1),
        dir: &dir,
        only: args.only.as_deref(),
        sampler: None,
    };
    let mut lines = Vec::new();
    for figure in &all {
        if args.figures.is_empty() || args.figures.iter().any(|id| id == figure.id) {
            lines.extend(plan.figure(figure)?);
        }
    }
    println!("\n{}", table::render(&lines.iter().collect::<Vec<_>>()));
    let results = workspace::target_dir().join("bench.json");
    std::fs::write(&results, table::json(&lines)?)
        .with_context(|| format!("writing {}", results.display()))?;
    if args.record {
        record::write(&lines)?;
    }
    if args.write {
        page::write(&lines, &programs)?;
    }
    if args.check {
        check(&plan, &all, &lines)?;
    }
    drop(watchdog);
    Ok(())
}

/// Measures once more what has collapsed; an error when it still has.
fn check(plan: &run::Plan<'_>, all: &[figure::Figure], lines: &[table::Line]) -> Result<()> {
    let record = record::read()?;
    let first = record::collapsed(lines, &record);
    let mut still = Vec::new();
    for figure in all {
        let suspects: Vec<_> = first.iter().filter(|(id, _)| *id == figure.id).collect();
        if suspects.is_empty() {
            continue;
        }
        for (_, sentence) in &suspects {
            eprintln!("measured again: {sentence}");
        }
        still.extend(record::collapsed(&plan.figure(figure)?, &record));
    }
    if !still.is_empty() {
        let all: Vec<String> = still.into_iter().map(|(_, sentence)| sentence).collect();
        bail!("collapsed:\n{}", all.join("\n"));
    }
    Ok(())
}

/// As many open files as the system allows, for us and for the servers: the figures hold thousands of connections.
fn many_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // What is too few shows in the figure that needs them.
    let _ = setrlimit(Resource::Nofile, limit);
}

/// Finds or builds who takes part.
fn programs(args: &Args) -> Result<Programs> {
    let given = |path: &PathBuf| {
        path.canonicalize()
            .with_context(|| format!("no program at {}", path.display()))
    };
    let wharf = match &args.binary {
        Some(binary) => given(binary)?,
        None => {
            program::check(
                Command::new("cargo")
                    .args(["build", "--release", "--package", "wharf"])
                    .current_dir(workspace::root()),
            )?;
            workspace::target_dir().join("release/wharf")
        }
    };
    let mut found = vec![(Kind::Wharf, wharf)];
    if args.alone {
        return Ok(Programs::new(found));
    }
    found.push((Kind::Reference, std::env::current_exe()?));
    let missing = |name: &str| eprintln!("no {name}: cargo xtask clients {name}; it is left out");
    match program::find("nginx") {
        Some(nginx) => found.push((Kind::Nginx, nginx)),
        None => missing("nginx"),
    }
    // Where no Go compiler is, Debian's package of the same registry stands in.
    match program::find("distribution").or_else(|| program::find("docker-registry")) {
        Some(distribution) => found.push((Kind::Distribution, distribution)),
        None => missing("distribution"),
    }
    for (kind, path) in [(Kind::Angos, &args.angos), (Kind::Zot, &args.zot)] {
        if let Some(path) = path {
            found.push((kind, given(path)?));
        }
    }
    Ok(Programs::new(found))
}
