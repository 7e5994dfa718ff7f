//! What a store's failure means: for the client one sentence with the way out, for the operator one line in the log.
//!
//! A broken disk fails every request, so each kind is logged once in a while, with how many others went the same way.

use std::io;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::error::Error;

/// Between two lines of one kind.
const QUIET: Duration = Duration::from_secs(60);
/// When a client may ask again.
const RETRY: Duration = Duration::from_secs(5);

/// What is wrong with a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Full,
    StoreFull,
    ReadOnly,
    Unreadable,
    Refusing,
    Damaged,
    Unreachable,
    Away,
    Forbidden,
    Other,
}

impl Trouble {
    const COUNT: usize = 10;

    fn sentence(self) -> &'static str {
        match self {
            Self::Full => "the disk is full; reading and deleting still work",
            Self::StoreFull => {
                "the registry's object store is full or its quota is used up; reading and deleting still work"
            }
            Self::ReadOnly => {
                "the registry's disk is read-only; reading still works, pushes do when it is mounted for writing again"
            }
            Self::Unreadable => "the registry's disk fails to read or write; its log says where",
            Self::Refusing => {
                "the registry's disk failed to keep a write, so none is accepted until it takes data again; reading \
                 still works"
            }
            Self::Damaged => {
                "the registry's metadata is damaged, so nothing is written; its operator has to restore a backup"
            }
            Self::Unreachable => {
                "the registry's metadata database cannot be reached; nothing is lost, try again in a moment"
            }
            Self::Away => {
                "the registry's object store does not answer; what it was asked for works again when it does"
            }
            Self::Forbidden => {
                "the registry's object store refuses it; its operator has to look at credentials and rights"
            }
            Self::Other => "a store of the registry failed; its log says why",
        }
    }

    fn of_system(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ if error.raw_os_error() == Some(5) => Self::Unreadable,
            _ => Self::Other,
        }
    }
}

/// When each kind was last told, and how many were not since.
#[derive(Debug)]
struct Told([Option<(Instant, u64)>; Trouble::COUNT]);

impl Told {
    /// How many were kept quiet before this one, if it is to be told.
    fn tell(&mut self, trouble: Trouble, now: Instant) -> Option<u64> {
        let slot = &mut self.0[trouble as usize];
        match slot {
            Some((last, missed)) if now.duration_since(*last) < QUIET => {
                *missed += 1;
                None
            }
            _ => {
                let missed = slot.map_or(0, |(_, missed)| missed);
                *slot = Some((now, 0));
                Some(missed)
            }
        }
    }
}

static TOLD: Mutex<Told> = Mutex::new(Told([None; Trouble::COUNT]));

fn outcome(store: &'static str, trouble: Trouble, error: &dyn std::fmt::Display) -> Error {
    let told = TOLD
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .tell(trouble, Instant::now());
    if let Some(unlogged) = told {
        tracing::error!(store, %error, unlogged, "{}", trouble.sentence());
    }
    match trouble {
        Trouble::Full | Trouble::StoreFull => Error::NoSpace,
        _ => Error::Unavailable {
            reason: trouble.sentence().to_owned(),
            retry_after: RETRY,
        },
    }
}

/// Of the blob store.
pub(crate) fn blob(error: &wharf_blob::Error) -> Error {
    let trouble = match error {
        wharf_blob::Error::NoSpace => Trouble::Full,
        wharf_blob::Error::Full { .. } => Trouble::StoreFull,
        wharf_blob::Error::Io { source, .. } => Trouble::of_system(source),
        wharf_blob::Error::Unreachable { .. } | wharf_blob::Error::Resting => Trouble::Away,
        wharf_blob::Error::Refused { .. } => Trouble::Forbidden,
        _ => Trouble::Other,
    };
    outcome("blobs", trouble, error)
}

/// Of the metadata store.
pub(crate) fn meta(error: &wharf_meta::Error) -> Error {
    let trouble = match error {
        wharf_meta::Error::Full(_) => Trouble::Full,
        wharf_meta::Error::ReadOnly { .. } => Trouble::ReadOnly,
        wharf_meta::Error::Io(_) => Trouble::Unreadable,
        wharf_meta::Error::Refusing(_) => Trouble::Refusing,
        wharf_meta::Error::Corrupt(_) => Trouble::Damaged,
        wharf_meta::Error::Unreachable(_) => Trouble::Unreachable,
        _ => Trouble::Other,
    };
    outcome("metadata", trouble, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_told_once_in_a_while_with_what_was_kept_quiet() {
        let mut told = Told([None; Trouble::COUNT]);
        let start = Instant::now();
        assert_eq!(told.tell(Trouble::Full, start), Some(0));
        for _ in 0..1_000 {
            assert_eq!(told.tell(Trouble::Full, start), None);
        }
        assert_eq!(told.tell(Trouble::Damaged, start), Some(0), "another kind");
        assert_eq!(told.tell(Trouble::Full, start + QUIET), Some(1_000));
    }

    #[test]
    fn clients_hear_what_is_wrong_and_never_where() {
        for (errno, words) in [(30, "read-only"), (5, "fails"), (24, "log says why")] {
            let source = io::Error::from_raw_os_error(errno);
            let what = "syncing uploads/secret".to_owned();
            let told = blob(&wharf_blob::Error::Io { what, source }).to_string();
            assert!(told.contains(words) && !told.contains("secret"), "{told}");
        }
        assert!(matches!(blob(&wharf_blob::Error::NoSpace), Error::NoSpace));
        let damaged = meta(&wharf_meta::Error::Corrupt("page 7".into())).to_string();
        assert!(damaged.contains("restore a backup"), "{damaged}");
        let refusing = meta(&wharf_meta::Error::Refusing("fsync".into())).to_string();
        assert!(refusing.contains("until it takes data again"), "{refusing}");
    }
}
