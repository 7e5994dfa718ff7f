//! One connection: how it is set up, how statements run on it, and what its errors mean.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, ErrorCode, OpenFlags};
use rustix::io::Errno;

use super::unread::failed_read;
use super::{SqliteOptions, Synchronous, dialect};
use crate::error::{Error, Result};
use crate::value::{Cell, Row, Val};

/// More than the operations have, so that none is ever prepared twice on a connection.
const STATEMENTS: usize = 256;

/// What a connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Read and write.
    Write,
    /// Read.
    Read,
}

/// Every statement that was prepared, as operations wrote it.
#[derive(Debug, Default)]
pub(super) struct Registry(Mutex<HashMap<String, ()>>);

impl Registry {
    fn add(&self, sql: &str) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(sql.to_owned(), ());
    }

    /// All of them, sorted.
    pub(super) fn list(&self) -> Vec<String> {
        let mut all: Vec<String> = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .cloned()
            .collect();
        all.sort_unstable();
        all
    }
}

/// A connection with its prepared statements.
#[derive(Debug)]
pub(super) struct Connection {
    raw: rusqlite::Connection,
    // By address and length: statements are static, and hashing an address is cheaper than hashing a text.
    translated: HashMap<(usize, usize), Statement>,
    registry: Arc<Registry>,
    options: SqliteOptions,
    mode: Mode,
    #[cfg(feature = "suite")]
    pub(super) steps: Steps,
}

/// How much work statements were: the same on every machine, unlike time.
#[cfg(feature = "suite")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    /// Instructions of SQLite's virtual machine.
    pub instructions: u64,
    /// Rows passed over without an index.
    pub scanned: u64,
    /// Sorts.
    pub sorts: u64,
}

#[cfg(feature = "suite")]
impl Steps {
    /// Those of a statement that has run. It begins anew at zero.
    fn of(statement: CachedStatement<'_>) -> Steps {
        use rusqlite::StatementStatus::{FullscanStep, Sort, VmStep};
        let take = |status| u64::try_from(statement.reset_status(status)).unwrap_or(0);
        Steps {
            instructions: take(VmStep),
            scanned: take(FullscanStep),
            sorts: take(Sort),
        }
    }
}

#[cfg(feature = "suite")]
impl std::ops::AddAssign for Steps {
    fn add_assign(&mut self, other: Steps) {
        self.instructions += other.instructions;
        self.scanned += other.scanned;
        self.sorts += other.sorts;
    }
}

/// A statement as SQLite runs it.
#[derive(Debug)]
struct Statement {
    text: Box<str>,
    /// See [`dialect::changes_served`].
    served: bool,
}

/// Whether a statement may write; asked before it does.
pub(super) trait Guard {
    /// Called before a statement runs, with whether it writes, and whether to what manifests are served from.
    fn before(
        &mut self,
        connection: &rusqlite::Connection,
        writes: bool,
        served: bool,
    ) -> Result<()>;
}

impl Connection {
    /// Opens a database that exists.
    pub(super) fn open(
        options: &SqliteOptions,
        mode: Mode,
        registry: Arc<Registry>,
    ) -> Result<Connection> {
        let flags = match mode {
            Mode::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
            Mode::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
        };
        let raw = open(&options.path, flags)?;
        configure(&raw, options, mode).map_err(|e| failure(&raw, &e, "open"))?;
        Ok(Connection {
            raw,
            translated: HashMap::new(),
            registry,
            options: options.clone(),
            mode,
            #[cfg(feature = "suite")]
            steps: Steps::default(),
        })
    }

    /// Opens it anew if the system has failed to read on it: what is damaged could not be told from that any more. Tells
    /// whether it did, and so whether its hooks are gone; if it cannot, the old one stays.
    pub(super) fn renew(&mut self) -> bool {
        if !failed_read(&self.raw) || !self.raw.is_autocommit() {
            return false;
        }
        let new = Connection::open(&self.options, self.mode, Arc::clone(&self.registry));
        new.map(|new| *self = new).is_ok()
    }

    /// SQLite's own connection, for what is not an operation.
    pub(super) fn raw(&self) -> &rusqlite::Connection {
        &self.raw
    }

    /// SQLite's own connection, to set hooks.
    pub(super) fn raw_mut(&mut self) -> &mut rusqlite::Connection {
        &mut self.raw
    }

    /// Runs a statement for its rows.
    pub(super) fn query(
        &mut self,
        guard: &mut impl Guard,
        sql: &'static str,
        values: &[Val<'_>],
    ) -> Result<Vec<Row>> {
        self.rows(guard, sql, values)
            .map_err(|fault| fault.told(&self.raw, sql))
    }

    fn rows(
        &mut self,
        guard: &mut impl Guard,
        sql: &'static str,
        values: &[Val<'_>],
    ) -> Result<Vec<Row>, Fault> {
        let mut statement = self.prepare(guard, sql, values)?;
        let columns = statement.column_count();
        let mut rows = statement.raw_query();
        let mut out = Vec::new();
        while let Some(row) = rows.next()? {
            let mut cells = Vec::with_capacity(columns);
            for column in 0..columns {
                cells.push(cell(row.get_ref(column)?, sql)?);
            }
            out.push(Row::new(cells));
        }
        drop(rows);
        #[cfg(feature = "suite")]
        {
            let steps = Steps::of(statement);
            self.steps += steps;
        }
        Ok(out)
    }

    /// Runs a statement for its effect.
    pub(super) fn exec(
        &mut self,
        guard: &mut impl Guard,
        sql: &'static str,
        values: &[Val<'_>],
    ) -> Result<u64> {
        self.change(guard, sql, values)
            .map_err(|fault| fault.told(&self.raw, sql))
    }

    fn change(
        &mut self,
        guard: &mut impl Guard,
        sql: &'static str,
        values: &[Val<'_>],
    ) -> Result<u64, Fault> {
        let mut statement = self.prepare(guard, sql, values)?;
        let changed = statement.raw_execute()?;
        #[cfg(feature = "suite")]
        {
            let steps = Steps::of(statement);
            self.steps += steps;
        }
        Ok(changed as u64)
    }

    fn prepare(
        &mut self,
        guard: &mut impl Guard,
        sql: &'static str,
        values: &[Val<'_>],
    ) -> Result<CachedStatement<'_>, Fault> {
        let registry = &self.registry;
        let Statement { text, served } = self
            .translated
            .entry((sql.as_ptr() as usize, sql.len()))
            .or_insert_with(|| {
                let text = dialect::statement(sql);
                registry.add(sql);
                Statement {
                    served: dialect::changes_served(&text),
                    text: text.into(),
                }
            });
        let mut statement = self.raw.prepare_cached(text)?;
        if statement.parameter_count() != values.len() {
            let reason = format!(
                "{} parameters for {}",
                values.len(),
                statement.parameter_count()
            );
            return Err(Fault::Ours(Error::Bug {
                op: sql.to_owned(),
                reason,
            }));
        }
        guard.before(&self.raw, !statement.readonly(), *served)?;
        for (at, value) in values.iter().enumerate() {
            let number = at + 1;
            match *value {
                Val::Null => statement.raw_bind_parameter(number, rusqlite::types::Null),
                Val::Int(value) => statement.raw_bind_parameter(number, value),
                Val::Text(value) => statement.raw_bind_parameter(number, value),
                Val::Bytes(value) => statement.raw_bind_parameter(number, value),
            }?;
        }
        Ok(statement)
    }
}

/// Opens a file; the caller configures it.
pub(super) fn open(path: &Path, flags: OpenFlags) -> Result<rusqlite::Connection> {
    // Each connection is used by one thread at a time, so SQLite's own locks are left out.
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    rusqlite::Connection::open_with_flags(path, flags).map_err(|e| error(&e, "open"))
}

fn configure(
    raw: &rusqlite::Connection,
    options: &SqliteOptions,
    mode: Mode,
) -> rusqlite::Result<()> {
    raw.busy_timeout(options.busy_timeout)?;
    raw.set_prepared_statement_cache_capacity(STATEMENTS);
    raw.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    raw.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // Plans do not depend on values: otherwise SQLite prepares a statement anew whenever its LIMIT is bound.
    raw.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // The engine checkpoints itself, with its errors seen.
    raw.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // A failing disk must give an error, not SIGBUS.
    raw.pragma_update(None, "mmap_size", 0)?;
    raw.pragma_update(None, "temp_store", "MEMORY")?;
    // A page whose inside does not add up is refused when it is read, not when something trips over it.
    raw.pragma_update(None, "cell_size_check", true)?;
    match mode {
        Mode::Write => {
            raw.pragma_update(None, "cache_size", -i64::from(options.writer_cache_kib))?;
            let synchronous = match options.synchronous {
                Synchronous::Full => "FULL",
                Synchronous::Normal => "NORMAL",
            };
            raw.pragma_update(None, "synchronous", synchronous)?;
            raw.pragma_update(None, "journal_size_limit", options.wal_keep_bytes as i64)?;
            // Sets the hook that the writer replaces: it must come first.
            raw.pragma_update(None, "wal_autocheckpoint", 0)?;
        }
        Mode::Read => {
            raw.pragma_update(None, "cache_size", -i64::from(options.reader_cache_kib))?;
            raw.pragma_update(None, "query_only", true)?;
        }
    }
    Ok(())
}

fn cell(value: ValueRef<'_>, sql: &str) -> Result<Cell> {
    Ok(match value {
        ValueRef::Null => Cell::Null,
        ValueRef::Integer(value) => Cell::Int(value),
        ValueRef::Text(value) => {
            let text = std::str::from_utf8(value)
                .map_err(|_| Error::Corrupt(format!("no UTF-8 in a row of: {sql}")))?;
            Cell::Text(text.to_owned())
        }
        ValueRef::Blob(value) => Cell::Bytes(value.to_owned()),
        ValueRef::Real(_) => {
            return Err(Error::Corrupt(format!(
                "a number with fraction in a row of: {sql}"
            )));
        }
    })
}

/// Whether a sync failed: the system then forgets what it could not write, and the next sync vouches for nothing.
pub(super) fn is_failed_sync(error: &rusqlite::Error) -> bool {
    let code = error
        .sqlite_error()
        .map_or(0, |failure| failure.extended_code);
    code == rusqlite::ffi::SQLITE_IOERR_FSYNC || code == rusqlite::ffi::SQLITE_IOERR_DIR_FSYNC
}

/// What went wrong with a statement, before it is known what that means.
enum Fault {
    Sqlite(rusqlite::Error),
    Ours(Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sqlite(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Ours(error)
    }
}

impl Fault {
    fn told(&self, raw: &rusqlite::Connection, what: &str) -> Error {
        match self {
            Fault::Sqlite(failed) => failure(raw, failed, what),
            Fault::Ours(error) => error.clone(),
        }
    }
}

/// What the last error on this connection means, with the system's own number: SQLite knows ENOSPC, but neither a quota
/// nor a file system that became read-only under its feet.
pub(super) fn failure(raw: &rusqlite::Connection, failed: &rusqlite::Error, what: &str) -> Error {
    let text = match error(failed, what) {
        Error::Corrupt(_) if failed_read(raw) => {
            return Error::Io(format!(
                "{}: the database or its log cannot be read ({what})",
                std::io::Error::from(Errno::IO)
            ));
        }
        Error::Io(text) => text,
        told => return told,
    };
    if is_failed_sync(failed) {
        // Even for want of space: what was written before may be lost, and that is what counts.
        return Error::Io(text);
    }
    match system_errno(raw) {
        Some(Errno::NOSPC | Errno::DQUOT) => Error::Full(text),
        Some(Errno::ROFS) => Error::ReadOnly {
            what: "the metadata database".into(),
            reason: format!("{text}; its file system is read-only: mount it for writing again"),
        },
        Some(errno) => Error::Io(format!("{}: {text}", std::io::Error::from(errno))),
        None => Error::Io(text),
    }
}

#[allow(unsafe_code, reason = "rusqlite does not hand the number out")]
fn system_errno(raw: &rusqlite::Connection) -> Option<Errno> {
    // SAFETY: the handle is that of an open connection, which outlives the call; the call only reads a field of it. No
    // other thread is in it, since a connection is used by one thread at a time.
    let number = unsafe { rusqlite::ffi::sqlite3_system_errno(raw.handle()) };
    // 0 when SQLite itself found the fault; no error number goes beyond 4095.
    (1..4096)
        .contains(&number)
        .then(|| Errno::from_raw_os_error(number))
}

/// What an error of SQLite means. `what` is a statement or a step, never with values.
pub(super) fn error(error: &rusqlite::Error, what: &str) -> Error {
    let rusqlite::Error::SqliteFailure(failure, message) = error else {
        return Error::Bug {
            op: what.to_owned(),
            reason: error.to_string(),
        };
    };
    let code = failure.extended_code;
    let text = message.clone().unwrap_or_else(|| failure.to_string());
    match failure.code {
        ErrorCode::DiskFull => Error::Full(text),
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            Error::Busy(format!("{text} ({what})"))
        }
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            Error::Corrupt(format!("{text} ({what})"))
        }
        ErrorCode::ReadOnly | ErrorCode::PermissionDenied => Error::ReadOnly {
            what: "the metadata database".into(),
            reason: format!("{text}; was its file system mounted read-only, or its owner changed?"),
        },
        ErrorCode::ConstraintViolation => Error::Constraint(format!("{text} ({what})")),
        ErrorCode::SystemIoFailure
        | ErrorCode::CannotOpen
        | ErrorCode::OutOfMemory
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::NoLargeFileSupport => {
            Error::Io(format!("{text} (SQLite code {code}; {what})"))
        }
        _ => Error::Bug {
            op: what.to_owned(),
            reason: format!("{text} (SQLite code {code})"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_own_number_is_asked_for() {
        let raw = rusqlite::Connection::open_in_memory().unwrap();
        assert_eq!(system_errno(&raw), None);
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing/x.db");
        let failed = raw
            .execute("ATTACH ?1 AS other", [missing.to_str().unwrap()])
            .unwrap_err();
        assert_eq!(system_errno(&raw), Some(Errno::NOENT));
        let told = failure(&raw, &failed, "ATTACH");
        assert!(
            matches!(&told, Error::Io(text) if text.contains("No such file")),
            "{told}"
        );
    }
}
