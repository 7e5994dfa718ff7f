//! `cargo xtask endure`: the real binary put through what a machine does to it: killed at any moment, cut from its power.
//!
//! [`work`] are clients that write down what they asked and heard in a [`history`]; [`check`] compares a server with it;
//! [`crash`] kills, [`power`] records what reached the disk and replays the worst of it. A run that finds something
//! prints the seed, the round and the history of what is wrong, and keeps the data folder.

mod check;
pub(crate) mod cluster;
mod crash;
mod history;
mod http;
mod left;
mod pair;
mod power;
mod random;
mod registry;
mod work;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result};

use crate::e2e::process::Watchdog;
use crate::{run, workspace};

/// Arguments of `cargo xtask endure`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
    /// The program under test; built as a release when it is not given
    #[arg(long, global = true)]
    binary: Option<PathBuf>,
    /// Decides the schedule, as far as a machine lets it
    #[arg(long, global = true, default_value_t = 1)]
    seed: u64,
}

#[derive(clap::Subcommand)]
enum What {
    /// Kill the server under load, again and again
    Crash {
        /// How many times, over each pair of stores
        #[arg(long, default_value_t = 200)]
        kills: usize,
        /// The stores; several are put through it one after the other
        #[arg(long = "pair", value_enum, default_values_t = [pair::Kind::SqliteFiles])]
        pairs: Vec<pair::Kind>,
        /// A collector without any grace runs all the time, not in every second life
        #[arg(long)]
        greedy: bool,
    },
    /// Record what reaches the disk, and start the server on what a power cut may leave of it
    Power {
        /// How many states
        #[arg(long, default_value_t = 200)]
        states: usize,
    },
}

/// Runs the task.
pub(crate) fn main(args: &Args) -> Result<()> {
    let binary = binary(args.binary.as_deref())?;
    let start = Instant::now();
    match &args.what {
        What::Crash {
            kills,
            pairs,
            greedy,
        } => {
            let folder = crash::folder("crash")?;
            // Removes nothing: a folder that is left is one to look at.
            let _watchdog = Watchdog::start(&folder, true)?;
            let mut all = 0;
            for &pair in pairs {
                let begun = Instant::now();
                let way = crash::Way {
                    pair,
                    greedy: *greedy,
                };
                let done = crash::run(&binary, &folder, way, *kills, args.seed)
                    .with_context(|| format!("{pair:?}"))?;
                println!(
                    "crash, {pair:?}: {} kills, {} calls, {} acknowledged, {} objects looked at, {} uploads resumed, {} \
                     verifications, at most {} files without a row, {} blobs left after quiet and needed, {:.1} s",
                    done.kills,
                    done.calls,
                    done.acknowledged,
                    done.looked_at,
                    done.resumed,
                    done.verified,
                    done.orphans,
                    done.needed,
                    begun.elapsed().as_secs_f32()
                );
                all += done.kills;
            }
            std::fs::remove_dir_all(&folder)?;
            println!("{all} passed, 0 failed, 0 skipped");
        }
        What::Power { states } => {
            let folder = crash::folder("power")?;
            let _watchdog = Watchdog::start(&folder, true)?;
            let done = power::run(&binary, &folder, *states, args.seed)?;
            std::fs::remove_dir_all(&folder)?;
            println!(
                "power: {} states of recordings with {} calls, {} steps and {} MiB written; {} objects looked at, \
                 {} uploads resumed, {:.1} s",
                done.states,
                done.calls,
                done.steps,
                done.bytes >> 20,
                done.looked_at,
                done.resumed,
                start.elapsed().as_secs_f32()
            );
            println!("{} passed, 0 failed, 0 skipped", done.states);
        }
    }
    Ok(())
}

/// The program under test: the one that was given, or a release that is built now.
fn binary(given: Option<&Path>) -> Result<PathBuf> {
    if let Some(given) = given {
        return Ok(std::path::absolute(given)?);
    }
    run::check(Command::new("cargo").current_dir(workspace::root()).args([
        "build",
        "--locked",
        "--release",
        "--package",
        "wharf",
    ]))?;
    Ok(workspace::target_dir().join("release/wharf"))
}
