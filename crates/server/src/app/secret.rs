//! The key outside the database that seals the secrets in it: as the configuration gives it, or a file of the data folder that the
//! first start makes. It is in no backup.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use wharf_core::access::{KEY_CURE, Password, SecretKeys, forget_secrets};
use wharf_core::clock::{Clock as _, SystemClock};
use wharf_core::replica::{self, Replica};

use super::data::{Data, DataError, DataOptions};

/// The file's name in the data folder.
const FILE: &str = "secret.key";
/// Longest file that is read.
const LENGTH: u64 = 64 << 10;

/// The keys; the file is made when there is none and none were given.
pub(super) fn load(given: Option<&Password>, folder: &Path) -> Result<SecretKeys, DataError> {
    if let Some(keys) = find(given, folder)? {
        return Ok(keys);
    }
    let made = make(folder, &folder.join(FILE));
    let text = made.map_err(|error| refused(folder, &error))?;
    parse(folder, &text)
}

/// The keys, if there are any. Makes nothing.
fn find(given: Option<&Password>, folder: &Path) -> Result<Option<SecretKeys>, DataError> {
    if let Some(text) = given {
        let keys = SecretKeys::parse(text.reveal());
        return keys
            .map(Some)
            .map_err(|error| DataError::SecretKey(format!("`access.secret_key`: {error}")));
    }
    match File::open(folder.join(FILE)) {
        Ok(file) => {
            let mut text = String::new();
            file.take(LENGTH)
                .read_to_string(&mut text)
                .map_err(|error| refused(folder, &error))?;
            parse(folder, &text).map(Some)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refused(folder, &error)),
    }
}

fn parse(folder: &Path, text: &str) -> Result<SecretKeys, DataError> {
    SecretKeys::parse(text).map_err(|error| {
        let cure = "restore the file, or remove it to begin with a new key";
        refused(folder, &format!("{error}; {cure}"))
    })
}

fn refused(folder: &Path, what: &dyn std::fmt::Display) -> DataError {
    DataError::SecretKey(format!("{}: {what}", folder.join(FILE).display()))
}

/// Refuses keys that do not open what is sealed in a database which names that key; gives the name of the one that seals from now on, if
/// there is one. Makes nothing.
pub(super) fn judge(
    given: Option<&Password>,
    folder: &Path,
    theirs: Option<&str>,
) -> Result<Option<String>, DataError> {
    let keys = find(given, folder)?;
    let Some(theirs) = theirs else {
        return Ok(keys.map(|keys| keys.name()));
    };
    let file = folder.join(FILE);
    match keys {
        Some(keys) => match (keys.expect(theirs), given) {
            (Ok(()), _) => Ok(Some(keys.name())),
            (Err(other), Some(_)) => Err(DataError::SecretKey(format!(
                "`access.secret_key_file`: {other}"
            ))),
            (Err(other), None) => Err(refused(folder, &other)),
        },
        None => Err(DataError::SecretKey(format!(
            "the secrets in the database are sealed with the key {theirs}, and there is neither `access.secret_key_file` nor {}; \
             {KEY_CURE}",
            file.display()
        ))),
    }
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
    let data = Data::open_to_forget(options, |holder| {
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
