//! The figures, one file each, named after what is done.

mod artifact_push;
mod behind;
mod blob_get;
mod blob_head;
mod layer_push;
mod manifest_during_push;
mod manifest_get;
mod memory;
mod ready;
mod tag_page;

use std::path::Path;

use anyhow::{Context as _, Result};

use super::figure::Figure;
use crate::grow;

/// All of them, in the order of the issue.
pub(crate) fn all() -> Vec<Figure> {
    vec![
        manifest_get::figure(),
        blob_get::figure(),
        layer_push::figure(),
        artifact_push::figure(),
        tag_page::figure(),
        memory::figure(),
        ready::figure(),
        blob_head::figure(),
        manifest_during_push::figure(),
        behind::figure(),
    ]
}

/// The repository with all manifests and tags in a store that `grow` has written.
const GROWN: &str = "grow/main";

/// The name of a tag there.
fn grown_tag(number: u64) -> String {
    format!("t{number:07}")
}

/// The name of one of its further repositories.
fn grown_repository(number: u64) -> String {
    format!("many/r{number:07}")
}

/// A store of so many manifests with five blobs each: the folder that `WHARF_BENCH_STORE` names, made before by
/// `cargo xtask grow`, or one made now, which takes minutes.
fn big_store(manifests: u64, data: &Path) -> Result<()> {
    if let Some(made) = std::env::var_os("WHARF_BENCH_STORE") {
        let made = Path::new(&made)
            .canonicalize()
            .context("WHARF_BENCH_STORE")?;
        return std::os::unix::fs::symlink(made, data).context("linking WHARF_BENCH_STORE");
    }
    grow::fill(&grow::Shape::of(manifests), data)
}
