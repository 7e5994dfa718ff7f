//! Copying what a snapshot names, from one blob store to a folder.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use wharf_blob::{BlobStore, Key};
use wharf_meta::{Meta, blob as rows};

use super::folder::{blocking, make_private};
use super::{Copied, PAGE, Result};

/// Where a blob lies until it is whole: a file under a key is always a whole one.
const HALF: &str = "blob.half";

/// Copies every blob file that the snapshot names and that is not there yet; each is verified while it is copied.
pub(super) async fn named(
    snapshot: &Meta,
    blobs: &dyn BlobStore,
    to: &Path,
    progress: &mut (dyn FnMut(&Copied) + Send),
) -> Result<Copied> {
    let mut copied = Copied::default();
    let mut folders = HashSet::new();
    let mut after = None;
    loop {
        let page = snapshot.scan(rows::ListLive { after, limit: PAGE }).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        let mut wanted = Vec::new();
        for row in page {
            if let rows::Place::Key(key) = &row.place {
                let key = Key::parse(key)?;
                let target = to.join(key.as_str());
                wanted.push(Wanted { row, key, target });
            }
        }
        // Also those of blobs that are there: the run that put them there may not have come to syncing them.
        let new: Vec<PathBuf> = wanted
            .iter()
            .filter_map(|wanted| wanted.target.parent())
            .filter(|folder| folders.insert(folder.to_path_buf()))
            .map(Path::to_path_buf)
            .collect();
        let wanted = blocking("making folders for blobs", move || {
            new.iter().try_for_each(|folder| make_private(folder))?;
            Ok(wanted
                .into_iter()
                .map(|wanted| (is_there(&wanted), wanted))
                .collect::<Vec<_>>())
        })
        .await?;
        for (is_there, wanted) in wanted {
            let size = wanted.row.size;
            let whole = is_there || {
                let digest = wanted.row.digest.to_string();
                let done = one(blobs, wanted, &to.join(HALF)).await?;
                match done {
                    true => copied.added += 1,
                    false => copied.missing.push(digest),
                }
                done
            };
            if whole {
                copied.blobs += 1;
                copied.bytes += size;
            }
        }
        progress(&copied);
    }
    let above: HashSet<PathBuf> = folders
        .iter()
        .flat_map(|folder| folder.ancestors())
        .filter(|above| above.starts_with(to))
        .map(Path::to_path_buf)
        .collect();
    blocking("syncing the copied blobs", move || {
        above
            .into_iter()
            .try_for_each(|folder| File::open(folder)?.sync_all())
    })
    .await?;
    Ok(copied)
}

/// A blob that the snapshot names.
struct Wanted {
    row: rows::BlobRow,
    key: Key,
    target: PathBuf,
}

fn is_there(wanted: &Wanted) -> bool {
    fs::metadata(&wanted.target).is_ok_and(|file| file.len() == wanted.row.size)
}

/// Copies one blob; `false`: the source has lost it, or some of its bytes are not what they were.
async fn one(blobs: &dyn BlobStore, wanted: Wanted, half: &Path) -> Result<bool> {
    let Wanted { row, key, target } = wanted;
    let stale = half.to_owned();
    blocking("removing half a copy", move || remove(&stale)).await?;
    match blobs.export(&key, &row.digest, half).await {
        Ok(()) => {}
        Err(
            error @ (wharf_blob::Error::Missing { .. } | wharf_blob::Error::WrongDigest { .. }),
        ) => {
            tracing::error!(%error, "a blob is not copied");
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    }
    let half = half.to_owned();
    blocking("naming a copied blob", move || {
        if fs::metadata(&half)?.len() != row.size {
            remove(&half)?;
            return Ok(false);
        }
        fs::rename(half, target)?;
        Ok(true)
    })
    .await
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
