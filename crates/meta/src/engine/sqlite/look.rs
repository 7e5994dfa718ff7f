//! Reading a few rows of a database that another process may be using, without making or changing any file beside it.

use std::path::Path;

use rusqlite::OpenFlags;

use super::connection::{error, open};
use crate::copy::UNFINISHED;
use crate::error::Result;
use crate::folder::beside;
use crate::look::{INSTALLATION, Known, SECRET_KEY};

/// What stands in it; `None` when its log cannot be read without writing: that of a process that was killed and has left
/// none of the index that the log needs.
pub(crate) fn known(path: &Path) -> Result<Option<Known>> {
    let log = std::fs::metadata(beside(path, "-wal")).map_or(0, |log| log.len());
    // Without a log nobody writes at this moment, and SQLite needs no lock. With one, its index is mapped for reading.
    let how = match log {
        0 => "immutable=1",
        _ => "mode=ro&readonly_shm=1",
    };
    let uri = format!("file:{}?{how}", escaped(path));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let connection = open(Path::new(&uri), flags)?;
    let read = connection.query_row(
        "SELECT (SELECT value FROM setting WHERE key = ?1), \
         COALESCE((SELECT value FROM setting WHERE key = ?2), '') <> '', \
         EXISTS (SELECT 1 FROM blob WHERE state = 1), \
         (SELECT value FROM setting WHERE key = ?3)",
        [INSTALLATION, UNFINISHED, SECRET_KEY],
        |row| {
            Ok(Known {
                installation: row.get(0)?,
                half_copied: row.get(1)?,
                has_blobs: row.get(2)?,
                secret_key: row.get(3)?,
            })
        },
    );
    match read {
        Ok(known) => Ok(Some(known)),
        Err(rusqlite::Error::SqliteFailure(failure, _))
            if matches!(
                failure.code,
                rusqlite::ErrorCode::CannotOpen
                    | rusqlite::ErrorCode::ReadOnly
                    | rusqlite::ErrorCode::DatabaseBusy
                    | rusqlite::ErrorCode::DatabaseLocked
            ) =>
        {
            Ok(None)
        }
        Err(failed) => Err(error(&failed, "look")),
    }
}

/// A path as it stands in a URI.
fn escaped(path: &Path) -> String {
    use std::fmt::Write as _;
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().fold(String::new(), |mut text, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => {
                text.push(char::from(*byte));
            }
            _ => {
                let _ = write!(text, "%{byte:02x}");
            }
        }
        text
    })
}
