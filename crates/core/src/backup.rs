//! Backups: a copy of the registry in a folder, taken while it serves.
//!
//! A backup is a snapshot of the metadata, one consistent moment, and every blob that it names; blobs never change, so a
//! second run only adds what is new. The order makes each state on the disk a whole backup or the one before it: blobs
//! first, then the snapshot takes its name, then what only older snapshots named goes. Called by `wharf backup`.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use wharf_blob::{BlobStore, Fs, FsOptions, Key, Part, Stored};
use wharf_meta::{Meta, SqliteOptions, blob as rows, upload};

use crate::registry::Registry;
use crate::verify::{self, Depth, Report};

/// The snapshot's file, which has the name that it has in a data folder.
pub const DATABASE: &str = "wharf.db";
/// Says what the folder is, and in which format.
const MARKER: &str = "wharf-backup.json";
/// Version of the layout.
const FORMAT: u64 = 1;
/// Rows looked at in one step.
const PAGE: u32 = 500;

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
    /// Restoring would mix two registries.
    #[error("{} is not empty; restore into a folder that does not exist yet", folder.display())]
    NotEmpty {
        /// Which.
        folder: PathBuf,
    },
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
    /// Those that only older backups named, and that are gone now.
    pub removed: u64,
    /// Blobs whose bytes could not be copied, because the registry itself has lost them.
    pub missing: Vec<String>,
}

/// Keeps replaced bytes where they are for as long as it lives.
struct Hold<'a>(&'a AtomicUsize);

impl<'a> Hold<'a> {
    fn new(holds: &'a AtomicUsize) -> Self {
        holds.fetch_add(1, Ordering::SeqCst);
        Self(holds)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Backs a running registry up into `folder`.
pub async fn create(
    registry: &Registry,
    folder: &Path,
    progress: &mut (dyn FnMut(&Copied) + Send),
) -> Result<Copied> {
    // Before the snapshot: what it will name must not go.
    let _hold = Hold::new(&registry.holds);
    create_from(&registry.meta, &*registry.blobs, folder, progress).await
}

/// Backs up stores that nobody else has open.
pub async fn create_from(
    meta: &Meta,
    blobs: &dyn BlobStore,
    folder: &Path,
    progress: &mut (dyn FnMut(&Copied) + Send),
) -> Result<Copied> {
    prepare(folder)?;
    let half = folder.join("wharf.db.new");
    remove_database(&half)?;
    meta.snapshot_into(&half).await?;
    let snapshot = open(&half)?;
    let outcome = copy_named(&snapshot, blobs, folder, progress).await;
    // Sessions are not part of a backup: their bytes are still coming in.
    let outcome = match outcome {
        Ok(copied) => forget_uploads(&snapshot).await.map(|()| copied),
        Err(error) => Err(error),
    };
    snapshot.close().await;
    drop(snapshot);
    let (mut copied, named) = outcome?;
    io("syncing the backup", || {
        File::open(&half)?.sync_all()?;
        fs::rename(&half, folder.join(DATABASE))?;
        mark(folder)?;
        File::open(folder)?.sync_all()
    })?;
    copied.removed = remove_unnamed(folder, &named).await?;
    progress(&copied);
    Ok(copied)
}

/// Checks a backup: the database from inside, and every blob byte by byte.
pub async fn verify(folder: &Path, progress: &mut (dyn FnMut(&Report) + Send)) -> Result<Report> {
    check_marker(folder)?;
    // A copy of the database, so that looking at a backup changes nothing in it.
    let scratch = folder.join("wharf.db.verify");
    remove_database(&scratch)?;
    io("copying the backup's database", || {
        fs::copy(folder.join(DATABASE), &scratch)
    })?;
    let outcome = async {
        let meta = open(&scratch)?;
        let blobs = Fs::open(FsOptions::new(folder))?;
        let depth = Depth {
            deep: true,
            condemn: false,
        };
        let report = verify::verify(&meta, &blobs, depth, 0, progress).await;
        meta.close().await;
        Ok(report?)
    }
    .await;
    remove_database(&scratch)?;
    outcome
}

/// Makes a data folder out of a backup. `data` must be absent or empty.
pub async fn restore(
    folder: &Path,
    data: &Path,
    progress: &mut (dyn FnMut(&Copied) + Send),
) -> Result<Copied> {
    check_marker(folder)?;
    if !is_empty(data)? {
        return Err(BackupError::NotEmpty {
            folder: data.to_owned(),
        });
    }
    make_private(data)?;
    // The database comes last: a restore that breaks off leaves a folder without one, which no start takes for whole.
    let half = data.join("wharf.db.restoring");
    io("copying the database", || {
        fs::copy(folder.join(DATABASE), &half)?;
        File::open(&half)?.sync_all()
    })?;
    let snapshot = open(&half)?;
    let blobs = Fs::open(FsOptions::new(folder))?;
    let outcome = copy_named(&snapshot, &blobs, data, progress).await;
    snapshot.close().await;
    drop(snapshot);
    let (copied, _) = outcome?;
    io("finishing the restore", || {
        fs::rename(&half, data.join(DATABASE))?;
        File::open(data)?.sync_all()
    })?;
    Ok(copied)
}

fn open(database: &Path) -> Result<Meta> {
    Ok(Meta::open(SqliteOptions::new(database))?.0)
}

/// Copies every blob file that the snapshot names; gives the keys too.
async fn copy_named(
    snapshot: &Meta,
    blobs: &dyn BlobStore,
    to: &Path,
    progress: &mut (dyn FnMut(&Copied) + Send),
) -> Result<(Copied, HashSet<Key>)> {
    let (mut copied, mut named) = (Copied::default(), HashSet::new());
    let mut folders = HashSet::new();
    let mut after = None;
    loop {
        let page = snapshot.scan(rows::ListLive { after, limit: PAGE }).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        for row in page {
            let rows::Place::Key(key) = &row.place else {
                continue;
            };
            let key = Key::parse(key)?;
            let target = to.join(key.as_str());
            if fs::metadata(&target).is_ok_and(|file| file.len() == row.size) {
                copied.blobs += 1;
                copied.bytes += row.size;
                named.insert(key);
                continue;
            }
            if let Some(parent) = target.parent()
                && folders.insert(parent.to_owned())
            {
                make_private(parent)?;
            }
            match blobs.export(&key, &target).await {
                Ok(()) => {
                    copied.blobs += 1;
                    copied.bytes += row.size;
                    copied.added += 1;
                }
                Err(wharf_blob::Error::Missing { .. }) => {
                    copied.missing.push(row.digest.to_string())
                }
                Err(error) => return Err(error.into()),
            }
            named.insert(key);
        }
        progress(&copied);
    }
    io("syncing the copied blobs", || {
        folders
            .iter()
            .flat_map(|folder| folder.ancestors().take_while(|above| above.starts_with(to)))
            .collect::<HashSet<_>>()
            .into_iter()
            .try_for_each(|folder| File::open(folder)?.sync_all())
    })?;
    Ok((copied, named))
}

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
        for id in sessions {
            snapshot.write(upload::Delete { id }).await?;
        }
    }
}

/// Removes blob files that the present snapshot does not name.
async fn remove_unnamed(folder: &Path, named: &HashSet<Key>) -> Result<u64> {
    let blobs = Fs::open(FsOptions::new(folder))?;
    let mut old = Vec::new();
    blobs
        .scan(Part::Blobs, &mut |stored| {
            old.extend(stored.into_iter().filter_map(|stored| match stored {
                Stored::Blob(key, _) if !named.contains(&key) => Some(key),
                _ => None,
            }));
            true
        })
        .await?;
    for key in &old {
        blobs.remove(key).await?;
    }
    Ok(old.len() as u64)
}

/// Makes the folder, or finds that it is a backup already.
fn prepare(folder: &Path) -> Result<()> {
    make_private(folder)?;
    if is_empty(folder)? {
        // Marked at once, so that a backup that breaks off can be gone on with.
        return io("marking the backup", || mark(folder));
    }
    check_marker(folder)
}

fn mark(folder: &Path) -> io::Result<()> {
    let text = serde_json::json!({
        "format": FORMAT,
        "version": env!("CARGO_PKG_VERSION"),
    });
    let half = folder.join("wharf-backup.json.new");
    fs::write(&half, format!("{text}\n"))?;
    File::open(&half)?.sync_all()?;
    fs::rename(half, folder.join(MARKER))
}

fn check_marker(folder: &Path) -> Result<()> {
    let not = || BackupError::NotABackup {
        folder: folder.to_owned(),
    };
    let text = fs::read(folder.join(MARKER)).map_err(|_| not())?;
    let marker: serde_json::Value = serde_json::from_slice(&text).map_err(|_| not())?;
    match marker.get("format").and_then(serde_json::Value::as_u64) {
        Some(FORMAT) => Ok(()),
        Some(found) => Err(BackupError::Format {
            folder: folder.to_owned(),
            found,
        }),
        None => Err(not()),
    }
}

fn is_empty(folder: &Path) -> Result<bool> {
    match fs::read_dir(folder) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(source) => Err(BackupError::Io {
            what: format!("reading {}", folder.display()),
            source,
        }),
    }
}

fn make_private(folder: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    io(&format!("making {}", folder.display()), || {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
    })
}

/// Removes a database with the files that SQLite keeps beside it.
fn remove_database(path: &Path) -> Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match fs::remove_file(&name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(BackupError::Io {
                    what: format!("removing {}", Path::new(&name).display()),
                    source: error,
                });
            }
            _ => {}
        }
    }
    Ok(())
}

fn io<T>(what: &str, work: impl FnOnce() -> io::Result<T>) -> Result<T> {
    work().map_err(|source| BackupError::Io {
        what: what.to_owned(),
        source,
    })
}
