//! `cargo xtask grow`: stores of any size, made in minutes, and what each request costs as the store grows.

mod client;
mod collect;
mod fill;
mod measure;
mod report;
mod requests;
mod rights;
mod shape;
mod site;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

use crate::workspace;

pub(crate) use fill::{DATABASE, fill};
pub(crate) use shape::Shape;

/// Arguments of `cargo xtask grow`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    shape: Shape,
    /// Measures what requests cost in stores of these many manifests, below the folder, instead of writing one
    #[arg(long, value_delimiter = ',', num_args = 0.., default_missing_value = "10000,100000,1000000")]
    measure: Option<Vec<u64>>,
    /// Measures pushes while so many dead blobs are collected, in a store below the folder
    #[arg(long, value_delimiter = ',', num_args = 1..)]
    collect: Option<Vec<u64>>,
    /// Measures pulls beside many users, groups and bindings, in stores below the folder
    #[arg(long, conflicts_with_all = ["collect", "measure"])]
    rights: bool,
    /// Collections of each of these numbers, with pushes between them; or rounds over both stores of --rights
    #[arg(long, default_value_t = 1)]
    rounds: u64,
    /// Where the server shows its metrics meanwhile
    #[arg(long, default_value = "127.0.0.1:34900")]
    metrics: String,
    /// The server that is measured
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Leaves out backups and the mass deletion; of --rights all but pulls, whose bar is wider then
    #[arg(long)]
    light: bool,
    /// Writes what was measured to docs/reference/growth.md
    #[arg(long)]
    write: bool,
    /// The data folder to write, which must not hold a store; or where the measured stores are kept
    folder: PathBuf,
}

/// Runs the task.
pub(crate) fn main(args: &Args) -> Result<()> {
    let program = args
        .binary
        .clone()
        .unwrap_or_else(|| workspace::target_dir().join("release/wharf"));
    if let Some(dead) = &args.collect {
        let table = collect::all(
            &args.shape,
            dead,
            args.rounds,
            &args.folder,
            &program,
            &args.metrics,
        )?;
        println!("{table}");
        return Ok(());
    }
    if args.rights {
        println!(
            "{}",
            rights::all(&args.folder, &program, args.rounds, args.light)?
        );
        return Ok(());
    }
    if let Some(sizes) = &args.measure {
        let figures = measure::all(sizes, &args.folder, &program, !args.light)?;
        let table = report::table(sizes, &figures);
        println!("{table}");
        if args.write {
            report::write(&table, sizes)?;
        }
        return report::judge(&figures);
    }
    let start = Instant::now();
    fill(&args.shape, &args.folder)?;
    let totals = fill::totals(&args.folder)?;
    println!(
        "{}: {} manifests, {} tags, {} blobs, {} repositories in {:.0} s, {} MiB of metadata",
        args.folder.display(),
        totals.manifests,
        totals.tags,
        totals.blobs,
        totals.repositories,
        start.elapsed().as_secs_f32(),
        std::fs::metadata(args.folder.join(DATABASE))?.len() >> 20,
    );
    Ok(())
}
