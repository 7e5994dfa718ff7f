//! The data folder: everything that Wharf keeps, on one machine.
//!
//! `serve` opens it for as long as it runs; commands open it when nothing is running. Whoever has it open holds its lock.
//! What cannot be used is refused before anything in it is touched.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wharf_blob::fs::Folder;
use wharf_blob::object::{Object, ObjectOptions};
use wharf_blob::{BlobStore, Fs, FsOptions, Ground, Owned, OwnerError};
use wharf_meta::lock::{self, FolderLock, LockError};
use wharf_meta::{
    INSTALLATION, Known, Look, Meta, Opened, PostgresOptions, SECRET_KEY, SqliteOptions,
    Synchronous, blob, setting,
};

use wharf_core::access::{Password, SecretKeys};

use super::{check, secret};

/// The metadata store's file.
pub(super) const DATABASE: &str = "wharf.db";
/// Set aside for deletes on a full disk: a full log between two checkpoints.
const RESERVE: u64 = 16 << 20;

/// How to open a data folder.
#[derive(Debug, Clone)]
pub struct DataOptions {
    /// The folder; made if absent.
    pub folder: PathBuf,
    /// How long to wait for another process to let go of it.
    pub lock_wait: Duration,
    /// Whether each commit is synced to the disk.
    pub synchronous: Synchronous,
    /// The database for the metadata, instead of a file in the folder.
    pub postgres: Option<PostgresOptions>,
    /// Threads for blob input and output at most; 0: the store chooses.
    pub io_threads: usize,
    /// What has the blobs.
    pub blobs: Blobs,
    /// The keys that seal secrets in the metadata; `None`: those of a file in the folder.
    pub secret_key: Option<Password>,
}

impl DataOptions {
    /// The folder with everything else as it is by default.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            lock_wait: Duration::from_secs(30),
            synchronous: Synchronous::Full,
            postgres: None,
            io_threads: 0,
            blobs: Blobs::Data,
            secret_key: None,
        }
    }

    /// The metadata store's file, when it is one.
    pub fn database(&self) -> PathBuf {
        self.folder.join(DATABASE)
    }
}

/// What has the blobs.
#[derive(Debug, Clone)]
pub enum Blobs {
    /// The data folder itself.
    Data,
    /// A folder elsewhere; with a database, all replicas have it.
    Folder(Folder),
    /// A bucket.
    Bucket(Box<ObjectOptions>),
}

impl Blobs {
    fn folder(&self) -> Option<&Folder> {
        match self {
            Self::Folder(folder) => Some(folder),
            _ => None,
        }
    }

    fn bucket(&self) -> Result<Option<Object>, wharf_blob::Error> {
        match self {
            Self::Bucket(options) => Object::open(options).map(Some),
            _ => Ok(None),
        }
    }
}

/// Why a data folder was refused.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// Another process has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The metadata store refuses it.
    #[error(transparent)]
    Meta(#[from] wharf_meta::Error),
    /// The blob store refuses it.
    #[error(transparent)]
    Blob(#[from] wharf_blob::Error),
    /// A copy was made into its database, and broke off.
    #[error(
        "the metadata is a copy that broke off, not all of it is there; drop the database and run `wharf metadata copy` again"
    )]
    HalfCopied,
    /// The place for blobs is not this installation's, or cannot be used.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// The place for blobs is empty, and the metadata knows of some.
    #[error(
        "`{key}`: the {place} is empty, and this registry has blobs elsewhere; name the {place} that has them{hint}, or copy them \
         there first (`wharf storage copy --to`)"
    )]
    Elsewhere {
        /// What it is.
        place: &'static str,
        /// The key that names it.
        key: String,
        /// What may have been forgotten.
        hint: &'static str,
    },
    /// The keys that seal secrets cannot be had.
    #[error("{0}")]
    SecretKey(String),
    /// The folder cannot be made or entered.
    #[error("the data folder {} cannot be used: {source}; choose another one with --data", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// An open data folder.
#[derive(Debug)]
pub struct Data {
    /// Where it lies, absolute.
    pub folder: PathBuf,
    /// Whether it was new, and what was migrated.
    pub opened: Opened,
    /// Rows.
    pub meta: Meta,
    /// Bytes.
    pub blobs: Arc<dyn BlobStore>,
    /// The same, when it is a bucket.
    bucket: Option<Object>,
    secret_key: Option<Password>,
    /// Freed when everything else has been dropped.
    _lock: FolderLock,
}

impl Data {
    /// Opens the folder and, if there is one, the database. Blocks while another process holds it; `waiting` hears once who that is.
    pub async fn open(options: &DataOptions, waiting: impl FnMut(&str)) -> Result<Self, DataError> {
        Self::open_with(options, waiting, true).await
    }

    /// The same for whoever does without the secrets in it.
    pub(super) async fn open_to_forget(
        options: &DataOptions,
        waiting: impl FnMut(&str),
    ) -> Result<Self, DataError> {
        Self::open_with(options, waiting, false).await
    }

    async fn open_with(
        options: &DataOptions,
        waiting: impl FnMut(&str),
        opens_secrets: bool,
    ) -> Result<Self, DataError> {
        let folder = make(&options.folder)?;
        // Before even the lock file is made: a folder that is refused stays as it was found.
        wharf_meta::inspect(&folder.join(DATABASE))?;
        let lock = lock::acquire(&folder, options.lock_wait, waiting)?;
        let bucket = options.blobs.bucket()?;
        let elsewhere = options.blobs.folder();
        let judge = |theirs: Option<&str>| match opens_secrets {
            true => secret::judge(options.secret_key.as_ref(), &folder, theirs).map(|_| ()),
            false => Ok(()),
        };
        let (meta, opened) = match &options.postgres {
            Some(postgres) => {
                // Before anything is made or migrated, in either store: both may be somebody else's.
                let look = match look(postgres, bucket.as_ref(), elsewhere).await? {
                    Looked::Usable(look) => look,
                    // Another replica that starts in the same moment names the installation first, and marks its place then.
                    Looked::Unnamed(refused) => {
                        match look(postgres, bucket.as_ref(), elsewhere).await? {
                            Looked::Usable(look) => look,
                            Looked::Unnamed(_) => return Err(refused),
                        }
                    }
                };
                for warning in check::warnings(&look) {
                    tracing::warn!("{warning}");
                }
                if let Some(known) = &look.known {
                    judge(known.secret_key.as_deref())?;
                }
                if folder.join(DATABASE).exists() {
                    tracing::warn!(
                        folder = %folder.display(),
                        "metadata.url is set, so {DATABASE} in the data folder is not used; `wharf metadata copy` moves what it holds"
                    );
                }
                Meta::connect(postgres.clone()).await?
            }
            None => {
                let file = folder.join(DATABASE);
                // What cannot be looked at, or is damaged, is judged when it is open.
                let look = wharf_meta::look::file(&file).ok();
                if let Some(known) = look.and_then(|look| look.known) {
                    judge(known.secret_key.as_deref())?;
                }
                Meta::open(SqliteOptions {
                    synchronous: options.synchronous,
                    reserve_bytes: RESERVE,
                    ..SqliteOptions::new(file)
                })?
            }
        };
        if meta.is_half_copied().await? {
            meta.close().await;
            return Err(DataError::HalfCopied);
        }
        // Before a key is made for a database that needs another one, also where it could not be looked at.
        let key = SECRET_KEY.to_owned();
        let theirs = meta.read(setting::Get { key }).await?;
        if let Err(refused) = judge(theirs.as_deref()) {
            meta.close().await;
            return Err(refused);
        }
        // Whoever opens a folder makes others in it: it is ours before.
        if let Some(elsewhere) = elsewhere {
            own(&meta, elsewhere, false).await?;
        }
        let blobs: Arc<dyn BlobStore> = match &bucket {
            Some(bucket) => Arc::new(bucket.clone()),
            None => Arc::new(Fs::open(FsOptions {
                threads: options.io_threads,
                // The lock of the data folder keeps others from a database in it, and from what it names.
                shared: elsewhere.is_some() && meta.is_shared(),
                ..FsOptions::new(elsewhere.map_or(&*folder, Folder::path))
            })?),
        };
        Ok(Self {
            folder,
            opened,
            meta,
            blobs,
            bucket,
            secret_key: options.secret_key.clone(),
            _lock: lock,
        })
    }
}

/// What a look at both stores of a server came to.
enum Looked {
    Usable(Look),
    /// The place for blobs has a mark, and the database had no name when it was asked before that.
    Unnamed(DataError),
}

async fn look(
    postgres: &PostgresOptions,
    bucket: Option<&Object>,
    elsewhere: Option<&Folder>,
) -> Result<Looked, DataError> {
    let look = check::database(postgres.clone()).await?;
    let Some(known) = &look.known else {
        return Ok(Looked::Usable(look));
    };
    let judged = async {
        if let Some(bucket) = bucket {
            check::judge(bucket, known).await?;
        }
        if let Some(folder) = elsewhere {
            check::judge(folder, known).await?;
        }
        Ok(())
    };
    match judged.await {
        Ok(()) => Ok(Looked::Usable(look)),
        Err(refused) if known.installation.is_none() => Ok(Looked::Unnamed(refused)),
        Err(refused) => Err(refused),
    }
}

/// The blob store that `options` name, as a place to copy blobs of this registry to. Nothing else of the options counts.
pub async fn target(meta: &Meta, options: &DataOptions) -> Result<Arc<dyn BlobStore>, DataError> {
    match &options.blobs {
        Blobs::Bucket(object) => {
            let bucket = Object::open(object)?;
            own(meta, &bucket, true).await?;
            Ok(Arc::new(bucket))
        }
        Blobs::Folder(folder) => {
            own(meta, folder, true).await?;
            Ok(Arc::new(Fs::open(FsOptions::new(folder.path()))?))
        }
        Blobs::Data => {
            let folder = make(&options.folder)?;
            Ok(Arc::new(Fs::open(FsOptions::new(folder))?))
        }
    }
}

/// Takes a free place; one in which blobs should be, unless they are about to come, only if there are none yet.
async fn own(meta: &Meta, ground: &impl Ground, to_fill: bool) -> Result<(), DataError> {
    let key = INSTALLATION.to_owned();
    let any = blob::ListLive {
        after: None,
        limit: 1,
    };
    let mut known = Known {
        has_blobs: !to_fill && !meta.scan(any).await?.is_empty(),
        installation: meta.read(setting::Get { key: key.clone() }).await?,
        ..Known::default()
    };
    let mut judged = check::judge(ground, &known).await;
    if judged.is_err() && known.installation.is_none() {
        // As above: another replica may have named it since.
        known.installation = meta.read(setting::Get { key: key.clone() }).await?;
        if known.installation.is_some() {
            judged = check::judge(ground, &known).await;
        }
    }
    if judged? == Owned::Ours {
        let name = known.installation.as_deref().unwrap_or_default();
        return match ground.is_writable(name).await {
            // What is to be filled and cannot be is of no use.
            Err(error) if to_fill => Err(error.into()),
            // What is there can be read and is served.
            Err(error) => {
                tracing::error!("{error}");
                Ok(())
            }
            Ok(_) => Ok(()),
        };
    }
    let name = uuid::Uuid::new_v4().to_string();
    let name = known.installation.unwrap_or(name);
    // Another replica may have named the installation meanwhile.
    let ensure = setting::Ensure { key, value: name };
    let name = meta.write(ensure).await?;
    Ok(ground.take(&name).await?)
}

impl Data {
    /// The keys that seal secrets in the metadata. The first call makes them, unless they are given.
    pub fn secret_keys(&self) -> Result<SecretKeys, DataError> {
        secret::load(self.secret_key.as_ref(), &self.folder)
    }

    /// Makes sure that the bucket is this installation's: an empty one is taken, one with another mark or none is refused
    /// and left as it is, and so is an empty one when there are blobs already. A folder elsewhere was asked before it was opened. Files
    /// in the data folder need no mark: the folder's lock and the database beside them are one.
    pub async fn own(&self) -> Result<(), DataError> {
        match &self.bucket {
            Some(bucket) => {
                own(&self.meta, bucket, false).await?;
                if let Some(warning) = check::store_clock(bucket) {
                    tracing::warn!("{warning}");
                }
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Makes the folder for its owner only, and names it absolutely.
pub(super) fn make(folder: &Path) -> Result<PathBuf, DataError> {
    let refused = |source| DataError::Folder {
        folder: folder.to_owned(),
        source,
    };
    if !folder.is_dir() {
        if folder.exists() {
            return Err(refused(rustix::io::Errno::NOTDIR.into()));
        }
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(refused)?;
    }
    folder.canonicalize().map_err(refused)
}
