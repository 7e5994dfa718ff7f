//! `cargo xtask grow`: stores of any size, made in minutes, and what each request costs as the store grows.

mod fill;
mod shape;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;

pub(crate) use fill::fill;
pub(crate) use shape::Shape;

/// Arguments of `cargo xtask grow`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    shape: Shape,
    /// The data folder to write; it must not hold a store
    folder: PathBuf,
}

/// Runs the task.
pub(crate) fn main(args: &Args) -> Result<()> {
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
        std::fs::metadata(args.folder.join(fill::DATABASE))?.len() >> 20,
    );
    Ok(())
}
