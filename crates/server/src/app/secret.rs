//! The key outside the database that seals the secrets in it: as the configuration gives it, or a file of the data folder that the
//! first start makes. It is in no backup.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use wharf_core::access::{Password, SecretKeys, forget_secrets};
use wharf_core::clock::{Clock as _, SystemClock};
use wharf_core::replica::{self, Replica};

use super::data::{Data, DataError, DataOptions};

/// The file's name in the data folder.
const FILE: &str = "secret.key";
/// Longest file that is read.
const LENGTH: u64 = 64 << 10;

/// The keys; the file is made when there is none and none were given.
pub(super) fn load(given: Option<&Password>, folder: &Path) -> Result<SecretKeys, DataError> {
    if let Some(text) = given {
        return SecretKeys::parse(text.reveal())
            .map_err(|error| DataError::SecretKey(format!("`access.secret_key`: {error}")));
    }
    let path = folder.join(FILE);
    let refused = |what: String| DataError::SecretKey(format!("{}: {what}", path.display()));
    let text = match File::open(&path) {
        Ok(file) => {
            let mut text = String::new();
            file.take(LENGTH)
                .read_to_string(&mut text)
                .map_err(|error| refused(error.to_string()))?;
            text
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make(folder, &path).map_err(|error| refused(error.to_string()))?
        }
        Err(error) => return Err(refused(error.to_string())),
    };
    SecretKeys::parse(&text).map_err(|error| {
        refused(format!(
            "{error}; restore the file, or remove it to begin with a new key"
        ))
    })
}

/// Why nothing was forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// A server uses them.
    #[error(
        "the replica {address} serves and was heard of {seconds} s ago; stop all replicas first. One that was killed is forgotten \
         after 30 s"
    )]
    Served {
        /// Where it listens.
        address: String,
        /// How long ago it was heard of.
        seconds: i64,
    },
    /// The stores cannot be opened.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The metadata store failed.
    #[error(transparent)]
    Core(#[from] wharf_core::Error),
}

/// Forgets the secrets in the database and which key they were sealed with. Nothing may serve from it.
pub async fn forget(options: &DataOptions) -> Result<(), ForgetError> {
    let data = Data::open(options, |holder| {
        eprintln!("waiting for the data folder, which {holder} has");
    })
    .await?;
    let forgotten = async {
        let others = match data.meta.is_shared() {
            true => replica::of_store(&data.meta, SystemClock.now_ms())
                .await
                .map_err(wharf_core::Error::from)?,
            false => Vec::new(),
        };
        if let Some(other) = others.into_iter().find(Replica::is_there) {
            return Err(ForgetError::Served {
                address: other.me.address,
                seconds: other.silent_for / 1_000,
            });
        }
        Ok(forget_secrets(&data.meta).await?)
    }
    .await;
    data.meta.close().await;
    forgotten
}

/// The file gets its name when it is whole: a start that is killed leaves none, or this one. The folder's lock is held.
fn make(folder: &Path, path: &Path) -> std::io::Result<String> {
    let text = format!(
        "# Seals the secrets in Wharf's database. Keep a copy where the backups are not.\n{}\n",
        SecretKeys::make()
    );
    let half = folder.join(format!("{FILE}.new"));
    match fs::remove_file(&half) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&half)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&half, path)?;
    File::open(folder)?.sync_all()?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_start_makes_a_key_for_the_owner_alone_and_the_next_ones_take_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        fs::write(folder.path().join("secret.key.new"), "half").unwrap();
        let made = load(None, folder.path()).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(load(None, folder.path()).unwrap().name(), made.name());
        let given = SecretKeys::make();
        let other = load(Some(&Password::new(given)), folder.path()).unwrap();
        assert_ne!(other.name(), made.name());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        fs::write(&path, "x").unwrap();
        let told = load(None, folder.path()).unwrap_err().to_string();
        assert!(
            told.contains(FILE) && told.contains("restore the file"),
            "{told}"
        );
        let told = load(Some(&Password::new("hunter2")), folder.path())
            .unwrap_err()
            .to_string();
        assert!(
            told.contains("`access.secret_key`") && !told.contains("hunter2"),
            "{told}"
        );
    }
}
