//! Telling a disk that cannot be read from a database that is damaged.
//!
//! SQLite calls both `SQLITE_CORRUPT`: a read that the system fails with EIO becomes `SQLITE_IOERR_CORRUPTFS`, and that
//! becomes damage before anybody hears of it. Damage ends all writing until a backup is restored; a disk may come back.

use rusqlite::ffi;
use rustix::io::Errno;

/// What SQLite takes for a damaged file system (`unixRead`).
const UNREADABLE: [Errno; 3] = [Errno::IO, Errno::NXIO, Errno::RANGE];

/// Whether the system has failed to read the database or its log on this connection, now or before: SQLite keeps the
/// number for as long as the file is open, so such a connection is to be renewed.
#[allow(unsafe_code, reason = "rusqlite does not hand the numbers out")]
pub(super) fn failed_read(connection: &rusqlite::Connection) -> bool {
    let mut database: std::ffi::c_int = 0;
    let mut log: std::ffi::c_int = 0;
    let mut log_file: *mut ffi::sqlite3_file = std::ptr::null_mut();
    // SAFETY: the handle is that of an open connection, which outlives the calls and is used by this thread alone. Each call
    // writes what its code says, to a place of that type: LAST_ERRNO an int, JOURNAL_POINTER a pointer to a file that lives
    // as long as the connection, or null. Its methods are null or those of an open file.
    unsafe {
        let handle = connection.handle();
        let main = c"main".as_ptr();
        let to = (&raw mut database).cast();
        ffi::sqlite3_file_control(handle, main, ffi::SQLITE_FCNTL_LAST_ERRNO, to);
        let to = (&raw mut log_file).cast();
        ffi::sqlite3_file_control(handle, main, ffi::SQLITE_FCNTL_JOURNAL_POINTER, to);
        if let Some(methods) = log_file.as_ref().and_then(|file| file.pMethods.as_ref())
            && let Some(control) = methods.xFileControl
        {
            let to = (&raw mut log).cast();
            control(log_file, ffi::SQLITE_FCNTL_LAST_ERRNO, to);
        }
    }
    [database, log].into_iter().any(|number| {
        UNREADABLE
            .iter()
            .any(|errno| errno.raw_os_error() == number)
    })
}
