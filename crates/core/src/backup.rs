//! Backups: a copy of the registry in a folder, taken while it serves.
//!
//! A backup is a snapshot of the metadata, one consistent moment, and every blob that it names; blobs never change, so a
//! second run only adds what is new. The order makes each state on the disk a whole backup or the one before it: blobs
//! first, then the snapshot takes its name, then what only older snapshots named goes. Called by `wharf backup`, which
//! may be killed at any moment; the next run goes on. Must never write to the registry that it copies.
//!
//! A backup of the metadata alone leaves its blobs where they are. They stay there for as long as what is deleted can be
//! restored (`restore.window`), since until then a deleted manifest keeps what it refers to.

mod copy;
mod folder;
mod hold;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use wharf_blob::{BlobStore, Fs, FsOptions, Key, Part, Stored};
use wharf_meta::{Meta, SqliteOptions, upload};

use self::folder::{Scratch, blocking, io, lock, settled};
use self::hold::Hold;
pub(crate) use self::hold::is_held;
use crate::registry::Registry;
use crate::verify::{self, Depth, Report};
use crate::walk::Walk;

/// The snapshot's file, which has the name that it has in a data folder.
pub const DATABASE: &str = "wharf.db";
/// Where a restore keeps the database until it is whole.
const RESTORING: &str = "restoring";
/// Version of the layout.
const FORMAT: u64 = 1;
/// Rows looked at in one step.
const PAGE: u32 = 500;
/// Blobs of older snapshots that one run removes; more wait for the next one.
const REMOVED_AT_MOST: usize = 100_000;

/// Why there is no backup, or no restored registry.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The folder holds something else.
    #[error("{} is neither empty nor a backup of Wharf; choose another folder", folder.display())]
    NotABackup {
        /// Which.
        folder: PathBuf,
    },
    /// Made by a version with another layout.
    #[error("{} is a backup in format {found}; this version knows format {FORMAT}", folder.display())]
    Format {
        /// Which.
        folder: PathBuf,
        /// What the marker says.
        found: u64,
    },
    /// One folder, one kind of backup.
    #[error("{} holds {}; choose another folder", folder.display(), match content {
        Content::Everything => "a backup with blobs",
        Content::Metadata => "a backup of the metadata alone",
    })]
    Other {
        /// Which.
        folder: PathBuf,
        /// What it holds.
        content: Content,
    },
    /// A first backup broke off before it was whole.
    #[error(
        "{} holds a backup that was never finished; run `wharf backup create` on it again, or use another one",
        folder.display()
    )]
    Unfinished {
        /// Which.
        folder: PathBuf,
    },
    /// Restoring would mix two registries.
    #[error("{} is not empty; restore into a folder that does not exist yet", folder.display())]
    NotEmpty {
        /// Which.
        folder: PathBuf,
    },
    /// Somebody else works on the folder.
    #[error("{} is in use by {holder}; wait for it to end", folder.display())]
    InUse {
        /// Which.
        folder: PathBuf,
        /// Who, as far as it is known.
        holder: String,
    },
    /// The backup's database is damaged.
    #[error("the database in {} is damaged ({what}); use another backup", folder.display())]
    Damaged {
        /// Which backup.
        folder: PathBuf,
        /// The first thing that is wrong.
        what: String,
    },
    /// Other replicas removed bytes meanwhile.
    #[error(
        "the metadata database could not be reached for so long that bytes were removed which the backup needs; run it again"
    )]
    Lapsed,
    /// The metadata store failed.
    #[error(transparent)]
    Meta(#[from] wharf_meta::Error),
    /// The blob store failed.
    #[error(transparent)]
    Blob(#[from] wharf_blob::Error),
    /// The registry failed.
    #[error(transparent)]
    Core(#[from] crate::Error),
    /// The folder cannot be written or read.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The metadata, and every blob that it names.
    Everything,
    /// The metadata; blobs stay where they are, and a restored registry needs them there.
    Metadata,
}

type Result<T, E = BackupError> = std::result::Result<T, E>;

/// What a backup or a restore has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copied {
    /// Blobs that the snapshot names and that are files.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that were new to the backup.
    pub added: u64,
    /// Those that only older snapshots named, and that are gone now.
    pub removed: u64,
    /// Digests of blobs that were not copied, because the source has lost their bytes, or they have not that digest any
    /// more.
    pub missing: Vec<String>,
}

/// Backs a running registry up into `folder`, which is empty, absent or an earlier backup.
pub async fn create(
    registry: &Registry,
    folder: &Path,
    content: Content,
    progress: &mut (dyn FnMut(&Copied) + Send),
) -> Result<Copied> {
    // Before the snapshot: what it will name must not go.
    let hold = Hold::take(registry).await?;
    let copied = create_from(&registry.meta, &*registry.blobs, folder, content, progress).await?;
    // Bytes that went nonetheless are among those that are missing.
    if !hold.release().await? && !copied.missing.is_empty() {
        return Err(BackupError::Lapsed);
    }
    // What was replaced meanwhile has waited for this.
    crate::blob::collect_replaced(registry).await?;
    Ok(copied)
}

/// Backs up stores that nobody else has open.
pub async fn create_from(
    meta: &Meta,
    blobs: &dyn BlobStore,
    folder: &Path,
    content: Content,
    progress: &mut (dyn FnMut(&Copied) + Send),
) -> Result<Copied> {
    let at = folder.to_owned();
    let _lock = folder::off_thread(move || folder::prepare(&at, content)).await?;
    let scratch = Scratch::for_folder(folder)?;
    meta.snapshot_into(&scratch.database()).await?;
    let snapshot = open(&scratch.database())?;
    let outcome = async {
        // Sessions are not part of a backup: their bytes are still coming in.
        forget_uploads(&snapshot).await?;
        Ok::<_, BackupError>(match content {
            Content::Everything => {
                let copied = copy::named(&snapshot, blobs, folder, progress).await?;
                (copied, unnamed(&snapshot, folder).await?)
            }
            Content::Metadata => Default::default(),
        })
    }
    .await;
    snapshot.close().await;
    drop(snapshot);
    let (mut copied, old) = outcome?;
    let at = folder.to_owned();
    blocking("finishing the backup", move || {
        settled(&scratch.database())?;
        folder::place(&scratch.database(), &at.join(DATABASE))?;
        folder::mark(&at, content)?;
        File::open(&at)?.sync_all()
    })
    .await?;
    // The old snapshot is gone, so nothing names these any more.
    if !old.is_empty() {
        let kept = Fs::open(FsOptions::new(folder))?;
        for key in &old {
            kept.remove(key).await?;
        }
    }
    copied.removed = old.len() as u64;
    progress(&copied);
    Ok(copied)
}

/// Checks a backup: the database from inside, and every blob byte by byte. Writes nothing into the folder where that is
/// not allowed, and nothing that stays where it is.
pub async fn verify(folder: &Path, progress: &mut (dyn FnMut(&Report) + Send)) -> Result<Report> {
    let content = folder::check(folder)?;
    let _lock = folder::lock_if_possible(folder)?;
    // A copy of the database, so that looking at a backup changes nothing in it.
    let scratch = Scratch::for_folder(folder)?;
    let (from, to) = (folder.join(DATABASE), scratch.database());
    blocking("copying the backup's database", move || fs::copy(from, to)).await?;
    let meta = open(&scratch.database())?;
    if content == Content::Metadata {
        let report = verify::metadata(&meta, progress).await;
        meta.close().await;
        return Ok(report?);
    }
    let blobs = Fs::open(read_only(folder))?;
    let depth = Depth {
        deep: true,
        condemn: false,
    };
    let report = verify::verify(&meta, &blobs, depth, 0, progress).await;
    meta.close().await;
    Ok(report?)
}

/// What a backup holds.
pub fn content(folder: &Path) -> Result<Content> {
    folder::check(folder)
}

/// Makes a data folder out of a backup. `data` must be absent or empty, or hold a restore that broke off.
pub async fn restore(
    folder: &Path,
    data: &Path,
    progress: &mut (dyn FnMut(&Copied) + Send),
) -> Result<Copied> {
    let content = folder::check(folder)?;
    let half = data.join(RESTORING);
    let broken_off = half.is_dir() && !data.join(DATABASE).exists();
    if !broken_off && !folder::is_empty(data)? {
        return Err(BackupError::NotEmpty {
            folder: data.to_owned(),
        });
    }
    // The database comes last: a restore that breaks off leaves a folder without one, and can be gone on with.
    io("making the data folder", || folder::make_private(&half))?;
    let _lock = lock(data)?;
    let database = half.join(DATABASE);
    let (from, to) = (folder.join(DATABASE), database.clone());
    blocking("copying the database", move || {
        folder::remove_database(&to)?;
        fs::copy(from, &to)?;
        File::open(&to)?.sync_all()
    })
    .await?;
    let snapshot = open(&database)?;
    let outcome = async {
        if let Some(what) = snapshot.integrity().await?.into_iter().next() {
            return Err(BackupError::Damaged {
                folder: folder.to_owned(),
                what,
            });
        }
        let copied = match content {
            Content::Everything => {
                let blobs = Fs::open(read_only(folder))?;
                copy::named(&snapshot, &blobs, data, progress).await?
            }
            Content::Metadata => Copied::default(),
        };
        // What is old by these rows may be in use elsewhere: whoever restored looks first.
        crate::gc::pause(
            &snapshot,
            "a backup was restored; look whether all is as it should be",
        )
        .await?;
        Ok(copied)
    }
    .await;
    snapshot.close().await;
    drop(snapshot);
    let copied = outcome?;
    let data = data.to_owned();
    blocking("finishing the restore", move || {
        settled(&database)?;
        File::open(&database)?.sync_all()?;
        fs::rename(&database, data.join(DATABASE))?;
        fs::remove_dir_all(&half)?;
        File::open(&data)?.sync_all()
    })
    .await?;
    Ok(copied)
}

fn read_only(folder: &Path) -> FsOptions {
    FsOptions {
        read_only: true,
        ..FsOptions::new(folder)
    }
}

fn open(database: &Path) -> Result<Meta> {
    Ok(Meta::open(SqliteOptions::new(database))?.0)
}

/// Takes the sessions out of a snapshot.
async fn forget_uploads(snapshot: &Meta) -> Result<()> {
    loop {
        let sessions = snapshot
            .scan(upload::Expired {
                touched_before: i64::MAX,
                limit: PAGE,
            })
            .await?;
        if sessions.is_empty() {
            return Ok(());
        }
        // Together, so that they share their commits.
        let mut deletes = tokio::task::JoinSet::new();
        for id in sessions {
            let snapshot = snapshot.clone();
            deletes.spawn(async move { snapshot.write(upload::Delete { id }).await });
        }
        for deleted in deletes.join_all().await {
            deleted?;
        }
    }
}

/// Blob files of the backup that the snapshot does not name.
async fn unnamed(snapshot: &Meta, folder: &Path) -> Result<Vec<Key>> {
    let blobs = Fs::open(FsOptions::new(folder))?;
    let mut walk = Walk::new(&blobs, Part::Blobs);
    let mut old = Vec::new();
    while let Some(found) = walk.next().await? {
        for stored in found {
            let Stored::Blob(key, _) = stored else {
                continue;
            };
            if !verify::is_named(snapshot, &key).await? {
                old.push(key);
            }
            if old.len() >= REMOVED_AT_MOST {
                return Ok(old);
            }
        }
    }
    Ok(old)
}

#[cfg(test)]
mod tests;
