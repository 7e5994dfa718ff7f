//! What a failure of the driver or the server means for the operation that met it.

use tokio_postgres::error::SqlState;

use crate::error::Error;

/// A failure, by what may be done about it.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// Others were in the way; nothing of the operation happened, and it may be tried at once.
    Conflict(Error),
    /// The connection is of no use any more; before COMMIT was sent this means that nothing happened.
    Lost(Error),
    /// A statement that was prepared on this connection is no longer known to the server, or no longer fits.
    Stale(Error),
    /// Trying again would not help, or not soon enough.
    Final(Error),
}

impl Fault {
    /// What the caller hears.
    pub(super) fn into_error(self) -> Error {
        match self {
            Fault::Conflict(error)
            | Fault::Lost(error)
            | Fault::Stale(error)
            | Fault::Final(error) => error,
        }
    }

    /// Whether the connection can be used again.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Fault::Lost(_))
    }

    /// Whether waiting makes no sense: the server answered, and will not have this user or has no such database, or the
    /// connection cannot be made as it is set up.
    pub(super) fn refuses(&self) -> bool {
        const REFUSALS: [&str; 8] = [
            "(SQLSTATE 28",
            "(SQLSTATE 3D",
            "(SQLSTATE 42501",
            "password missing",
            super::options::PASSWORD_FILE,
            "invalid peer certificate",
            "server does not support TLS",
            "invalid configuration",
        ];
        matches!(self, Fault::Lost(Error::Unreachable(why))
            if REFUSALS.iter().any(|refusal| why.contains(refusal)))
    }

    /// No answer within the time that the server was given.
    pub(super) fn silent() -> Fault {
        Fault::Lost(Error::Unreachable("it does not answer in time".to_owned()))
    }
}

impl From<tokio_postgres::Error> for Fault {
    fn from(error: tokio_postgres::Error) -> Fault {
        let Some(db) = error.as_db_error() else {
            // Encoding a parameter or decoding a row: ours. All else is the socket.
            let text = source(&error);
            return if error.is_closed() || std::error::Error::source(&error).is_some_and(is_io) {
                Fault::Lost(Error::Unreachable(text))
            } else {
                Fault::Final(Error::Bug {
                    op: "statement".to_owned(),
                    reason: text,
                })
            };
        };
        let code = db.code();
        // The detail of a message may show a row's values, and so may messages about bad input.
        let said = if code.code().starts_with("22") {
            format!("SQLSTATE {}", code.code())
        } else {
            format!("{} (SQLSTATE {})", db.message(), code.code())
        };
        match *code {
            SqlState::T_R_SERIALIZATION_FAILURE | SqlState::T_R_DEADLOCK_DETECTED => {
                Fault::Conflict(Error::Busy(said))
            }
            // Operations look before they insert: somebody else was faster.
            SqlState::UNIQUE_VIOLATION | SqlState::EXCLUSION_VIOLATION => {
                Fault::Conflict(Error::Constraint(said))
            }
            SqlState::LOCK_NOT_AVAILABLE => Fault::Final(Error::Busy(format!(
                "another transaction holds a row for too long: {said}"
            ))),
            SqlState::QUERY_CANCELED | SqlState::OUT_OF_MEMORY => Fault::Final(Error::Busy(said)),
            SqlState::DISK_FULL => Fault::Final(Error::Full(format!("PostgreSQL says: {said}"))),
            SqlState::DATA_CORRUPTED | SqlState::INDEX_CORRUPTED => {
                Fault::Final(Error::Corrupt(format!("PostgreSQL says: {said}")))
            }
            // After a failover the old primary may still answer, as a standby.
            SqlState::READ_ONLY_SQL_TRANSACTION => Fault::Lost(Error::Unreachable(format!(
                "the server takes no writes: {said}; several hosts in metadata.url with \
                 target_session_attrs=read-write find the one that does"
            ))),
            SqlState::INVALID_SQL_STATEMENT_NAME
            | SqlState::DUPLICATE_PSTATEMENT
            | SqlState::FEATURE_NOT_SUPPORTED => Fault::Stale(Error::Busy(said)),
            SqlState::IN_FAILED_SQL_TRANSACTION => Fault::Lost(Error::Unreachable(said)),
            _ => {
                let class = &code.code()[..2];
                match class {
                    // Connection exceptions, too few resources, operator intervention, invalid authorisation.
                    "08" | "53" | "57" | "28" => Fault::Lost(Error::Unreachable(said)),
                    "3D" => Fault::Lost(Error::Unreachable(said)),
                    "23" => Fault::Final(Error::Constraint(said)),
                    _ => Fault::Final(Error::Io(format!("PostgreSQL says: {said}"))),
                }
            }
        }
    }
}

fn is_io(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<std::io::Error>()
        || error.is::<tokio::time::error::Elapsed>()
        || error.source().is_some_and(is_io)
}

/// The error with its causes: the driver's own text is "error connecting to server".
pub(crate) fn source(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = inner.source();
    }
    text
}
