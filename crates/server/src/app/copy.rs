//! Moving the metadata from one database to another while nothing serves from either.
//!
//! Called by `wharf metadata copy`. Must never write to a source, apart from bringing its schema up to date.

use std::path::{Path, PathBuf};
use std::time::Duration;

use wharf_core::clock::{Clock as _, SystemClock};
use wharf_core::replica;
use wharf_meta::lock::{self, FolderLock};
use wharf_meta::{Copied, Found, Meta, PostgresOptions, SqliteOptions, inspect};

use super::data::{DATABASE, DataError, make};

/// How long a database that does not answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A place for metadata, as `--from` and `--to` name it.
#[derive(Debug, Clone)]
pub enum Place {
    /// A file.
    Sqlite(PathBuf),
    /// A database.
    Postgres(Box<PostgresOptions>),
}

/// A place that is open; nothing else may use it.
struct Opened {
    meta: Meta,
    fresh: bool,
    _lock: Option<FolderLock>,
}

impl Place {
    /// Reads `sqlite://FOLDER`, `sqlite://FILE` or `postgres://…`.
    ///
    /// # Errors
    /// What is wrong with it, and how to write it.
    pub fn parse(text: &str, password_file: Option<PathBuf>) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite://") {
            if path.is_empty() {
                return Err("it names no folder; write sqlite:///var/lib/wharf".to_owned());
            }
            if password_file.is_some() {
                return Err("a file needs no password".to_owned());
            }
            let path = PathBuf::from(path);
            let is_file = path.is_file() || path.extension().is_some_and(|end| end == "db");
            return Ok(Self::Sqlite(match is_file {
                true => path,
                false => path.join(DATABASE),
            }));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Postgres(Box::new(PostgresOptions {
                password_file,
                start_patience: PATIENCE,
                ..PostgresOptions::new(text)
            })));
        }
        Err(
            "it is neither sqlite://FOLDER nor postgres://USER@HOST:PORT/DATABASE; the URL of a database may hold no spaces"
                .to_owned(),
        )
    }

    /// Refuses a place that holds something, before anything else is done for its sake.
    ///
    /// # Errors
    /// Why nothing can be copied there.
    pub async fn expect_empty(&self) -> Result<(), CopyError> {
        let opened = self.open(false).await?;
        let empty = opened.meta.expect_empty().await;
        opened.meta.close().await;
        Ok(empty?)
    }

    async fn open(&self, is_source: bool) -> Result<Opened, CopyError> {
        match self {
            Self::Sqlite(file) => {
                let folder = match file.parent() {
                    Some(parent) if !parent.as_os_str().is_empty() => parent,
                    _ => Path::new("."),
                };
                if is_source && !file.is_file() {
                    return Err(CopyError::Absent(file.clone()));
                }
                let folder = make(folder)?;
                let found = inspect(file)?;
                let lock = lock::acquire(&folder, Duration::ZERO, |_| ())?;
                let (meta, _) = Meta::open(SqliteOptions::new(file))?;
                Ok(Opened {
                    meta,
                    fresh: found == Found::Nothing,
                    _lock: Some(lock),
                })
            }
            Self::Postgres(options) => {
                let (meta, opened) = Meta::connect(PostgresOptions::clone(options)).await?;
                Ok(Opened {
                    meta,
                    fresh: opened.fresh,
                    _lock: None,
                })
            }
        }
    }
}

/// Why nothing, or not all, was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The source is not there.
    #[error("there is no database {}; name the data folder, or the file in it", .0.display())]
    Absent(PathBuf),
    /// The source was empty.
    #[error("the database is empty: nothing is there to copy; is its name right?")]
    Empty,
    /// A server uses it.
    #[error(
        "the replica {address} serves from it and was heard of {seconds} s ago; stop all replicas first: what they write \
         meanwhile would be missing from the copy. One that was killed is forgotten after 30 s"
    )]
    Served {
        /// Where it listens.
        address: String,
        /// How long ago it was heard of.
        seconds: i64,
    },
    /// A database was refused, for what it is.
    #[error("{problem}; {cure}")]
    Refused {
        /// What is wrong.
        problem: String,
        /// The way out.
        cure: String,
    },
    /// A store was refused.
    #[error(transparent)]
    Data(DataError),
}

impl<E: Into<DataError>> From<E> for CopyError {
    /// What is said of `metadata.url` elsewhere is said of a flag here.
    fn from(error: E) -> Self {
        match error.into() {
            DataError::Meta(wharf_meta::Error::Setup { problem, cure, .. }) => {
                Self::Refused { problem, cure }
            }
            other => Self::Data(other),
        }
    }
}

/// Copies everything and compares; the first of an error names the flag at fault, if one is.
///
/// # Errors
/// As [`CopyError`] says, with `--from` or `--to`.
pub async fn copy(
    from: &Place,
    to: &Place,
    progress: &mut (dyn FnMut(&'static str, u64, bool) + Send),
) -> Result<Vec<Copied>, (&'static str, CopyError)> {
    let source = from.open(true).await.map_err(|e| ("--from", e))?;
    if source.fresh {
        source.meta.close().await;
        return Err(("--from", CopyError::Empty));
    }
    let target = unserved(&source.meta).await.map_err(|e| ("--from", e));
    let target = match target {
        Ok(()) => to.open(false).await.map_err(|e| ("--to", e)),
        Err(error) => Err(error),
    };
    let target = match target {
        Ok(target) => target,
        Err(error) => {
            source.meta.close().await;
            return Err(error);
        }
    };
    let copied = async {
        unserved(&target.meta).await?;
        let copied = source.meta.copy_to(&target.meta, progress).await;
        Ok(copied?)
    }
    .await;
    source.meta.close().await;
    target.meta.close().await;
    copied.map_err(|error| ("--to", error))
}

/// Refuses a store that a process serves from. Those over a file hold its lock, and never come here.
async fn unserved(meta: &Meta) -> Result<(), CopyError> {
    if !meta.is_shared() {
        return Ok(());
    }
    let listed = replica::of_store(meta, SystemClock.now_ms()).await?;
    match listed.into_iter().find(replica::Replica::is_there) {
        None => Ok(()),
        Some(replica) => Err(CopyError::Served {
            address: replica.me.address,
            seconds: replica.silent_for / 1000,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_or_refused_with_the_way_out() {
        let sqlite = |text: &str| match Place::parse(text, None).unwrap() {
            Place::Sqlite(file) => file,
            Place::Postgres(_) => panic!("{text} is a file"),
        };
        assert_eq!(sqlite("sqlite:///a/b"), Path::new("/a/b/wharf.db"));
        assert_eq!(sqlite("sqlite:///a/x.db"), Path::new("/a/x.db"));
        assert_eq!(sqlite("sqlite://b"), Path::new("b/wharf.db"));
        let options = Place::parse("postgres://a@h/d", Some("p".into())).unwrap();
        assert!(
            matches!(options, Place::Postgres(options) if options.password_file == Some("p".into()))
        );
        for wrong in ["", "/a/b", "mysql://a", "sqlite://"] {
            let told = Place::parse(wrong, None).unwrap_err();
            assert!(told.contains("sqlite://"), "{told}");
        }
        assert!(Place::parse("sqlite:///a", Some("p".into())).is_err());
    }
}
