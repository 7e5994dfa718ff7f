//! Whether the stores that the configuration names can be used: asked before they are, and without changing anything.
//!
//! Called by `wharf config check --online` for a report, and by [`Data::open`](super::Data::open) before a start makes or
//! migrates anything. Both say the same sentence for the same trouble. Must never write; whether a bucket may be written to is asked
//! by a write that the store must refuse.

use std::path::Path;

use rustix::fs::{Access, access};
use wharf_blob::object::{Object, ObjectOptions, apart};
use wharf_blob::{Ground, Owned};
use wharf_core::clock::{Clock, SystemClock};
use wharf_meta::{Known, Look, PostgresOptions, look};

use super::data::{Blobs, DATABASE, DataError, DataOptions};
use super::secret;

/// Clocks may differ by so many seconds before that is told.
pub(super) const APART: i64 = 60;

/// What was asked and found, in sentences.
#[derive(Debug, Default)]
pub struct Report {
    /// What can be used.
    pub found: Vec<String>,
    /// What deserves attention.
    pub warnings: Vec<String>,
    /// What cannot be used.
    pub problems: Vec<DataError>,
}

/// Asks both stores once, without patience.
pub async fn check(options: &DataOptions) -> Report {
    let mut report = Report::default();
    let looked = match &options.postgres {
        Some(postgres) => {
            let hasty = PostgresOptions {
                start_patience: std::time::Duration::ZERO,
                ..postgres.clone()
            };
            match folder(&options.folder) {
                Ok(_) => database(hasty).await,
                Err(error) => Err(error),
            }
        }
        None => file(&options.folder),
    };
    let known = match looked {
        Ok(look) => {
            report.found.push(describe(&look));
            report.warnings.extend(warnings(&look));
            if let Some(known) = &look.known {
                match secret(options, known) {
                    Ok(found) => report.found.extend(found),
                    Err(error) => report.problems.push(error),
                }
            }
            look.known
        }
        Err(error) => {
            report.problems.push(error);
            None
        }
    };
    let looked = match &options.blobs {
        Blobs::Data => {
            let found = "Blobs are files in the data folder: there is no bucket to ask.";
            Ok((found.to_owned(), None))
        }
        Blobs::Folder(folder) => ground(folder, known.as_ref())
            .await
            .map(|found| (found, None)),
        Blobs::Bucket(object) => bucket(object, known.as_ref()).await,
    };
    match looked {
        Ok((found, warning)) => {
            report.found.push(found);
            report.warnings.extend(warning);
        }
        Err(error) => report.problems.push(error),
    }
    report
}

/// What the secret key is for this database; nothing, where none was made yet.
fn secret(options: &DataOptions, known: &Known) -> Result<Option<String>, DataError> {
    let theirs = known.secret_key.as_deref();
    // Named as a start names it.
    let folder = options.folder.canonicalize();
    let folder = folder.unwrap_or_else(|_| options.folder.clone());
    let ours = secret::judge(options.secret_key.as_ref(), &folder, theirs)?;
    Ok(ours.map(|ours| match theirs {
        Some(theirs) if theirs == ours => {
            format!("The secret key {ours} opens the secrets in the database.")
        }
        Some(theirs) => format!(
            "The secret keys open the secrets in the database, which are sealed with {theirs}; the next start seals them with {ours}."
        ),
        None => format!("The next start seals the secrets in the database with the secret key {ours}."),
    }))
}

/// Looks at a database, and refuses one that a start must refuse.
pub(super) async fn database(options: PostgresOptions) -> Result<Look, DataError> {
    let look = look::server(options, || SystemClock.now_ms()).await?;
    expect_whole(&look)?;
    Ok(look)
}

fn expect_whole(look: &Look) -> Result<(), DataError> {
    match &look.known {
        Some(known) if known.half_copied => Err(DataError::HalfCopied),
        _ => Ok(()),
    }
}

/// The same for a file, or for a folder that is to get one.
fn file(path: &Path) -> Result<Look, DataError> {
    let look = match folder(path)? {
        true => look::file(&path.join(DATABASE))?,
        false => Look {
            place: path.join(DATABASE).display().to_string(),
            server: None,
            schema: None,
            pending: 0,
            known: Some(Known::default()),
            ahead_ms: None,
            warnings: Vec::new(),
        },
    };
    expect_whole(&look)?;
    Ok(look)
}

/// Whether the data folder is there; refuses one that cannot be used or made.
fn folder(path: &Path) -> Result<bool, DataError> {
    let refused = |source| DataError::Folder {
        folder: path.to_owned(),
        source,
    };
    let path = std::path::absolute(path).map_err(refused)?;
    if path.is_dir() {
        wharf_meta::inspect(&path.join(DATABASE))?;
        return Ok(true);
    }
    let first = path.ancestors().find(|parent| parent.exists());
    let above = first.unwrap_or(&path);
    if !above.is_dir() {
        return Err(refused(rustix::io::Errno::NOTDIR.into()));
    }
    let allowed = access(above, Access::WRITE_OK | Access::EXEC_OK);
    allowed.map_err(|errno| refused(errno.into()))?;
    Ok(false)
}

/// Refuses a place that is not for an installation of which this is known.
pub(super) async fn judge(ground: &impl Ground, known: &Known) -> Result<Owned, DataError> {
    // Any other name than that of the mark.
    let nobody = || uuid::Uuid::new_v4().to_string();
    let name = known.installation.clone().unwrap_or_else(nobody);
    let owned = ground.owned_by(&name).await?;
    if owned == Owned::Free && known.has_blobs {
        return Err(elsewhere(ground));
    }
    Ok(owned)
}

/// An empty place, and a registry with blobs.
fn elsewhere(ground: &impl Ground) -> DataError {
    let (place, key) = ground.place();
    let hint = match place {
        "bucket" => " and the `prefix`",
        _ => ", and see that its file system is mounted",
    };
    DataError::Elsewhere { place, key, hint }
}

async fn bucket(
    options: &ObjectOptions,
    known: Option<&Known>,
) -> Result<(String, Option<String>), DataError> {
    let mut options = options.clone();
    options.client.hasty = true;
    let bucket = Object::open(&options)?;
    let found = ground(&bucket, known).await?;
    Ok((found, store_clock(&bucket)))
}

async fn ground(ground: &impl Ground, known: Option<&Known>) -> Result<String, DataError> {
    let (place, _) = ground.place();
    Ok(match known {
        Some(known) => match judge(ground, known).await? {
            Owned::Ours => {
                let name = known.installation.as_deref().unwrap_or_default();
                let unsaid = match ground.is_writable(name).await? {
                    true => "",
                    false => " Whether it may be written to, the store does not say.",
                };
                format!(
                    "The {place} can be used by installation {name}, which this is; another one is refused at its start.{unsaid}"
                )
            }
            Owned::Free => format!(
                "The {place} can be used: it is empty, and a registry without blobs takes it at its start."
            ),
        },
        None => match ground.owner().await? {
            Some(name) => format!(
                "The {place} can be read and belongs to installation {name}; whether that is this one could not be seen."
            ),
            None => format!("The {place} can be read and is empty."),
        },
    })
}

/// A clock that is off from the store's.
pub(super) fn store_clock(bucket: &Object) -> Option<String> {
    let ahead = bucket.skew()?;
    let (_, key) = bucket.keys();
    (ahead.abs() > APART).then(|| {
        format!(
            "`{key}`: this machine's clock is {} the object store's, which refuses requests when they differ by some minutes \
             more (15 at most services); set the clocks (NTP)",
            apart(ahead)
        )
    })
}

/// What is no reason to refuse a database.
pub(super) fn warnings(look: &Look) -> Vec<String> {
    let mut warnings = look.warnings.clone();
    let ahead = look.ahead_ms.unwrap_or(0) / 1000;
    if ahead.abs() > APART {
        warnings.push(format!(
            "metadata.url: this machine's clock is {} the database's, by which all replicas go; certificates and requests to \
             an object store go by this machine's, so set the clocks (NTP)",
            apart(ahead)
        ));
    }
    warnings
}

fn describe(look: &Look) -> String {
    let place = &look.place;
    let server = look
        .server
        .as_ref()
        .map(|server| format!(" ({server})"))
        .unwrap_or_default();
    match (look.schema, &look.server) {
        (Some(schema), _) if look.pending > 0 => format!(
            "The database {place} can be used{server}; the next start brings its schema from {schema} to {}.",
            wharf_meta::SCHEMA
        ),
        (Some(schema), _) => {
            format!("The database {place} can be used{server}; its schema is {schema}.")
        }
        (None, Some(_)) => format!(
            "The database {place} can be used{server}; it is empty, and the first start makes its tables."
        ),
        (None, None) => format!("There is no database {place} yet; the first start makes it."),
    }
}
