//! Migrations: numbered, embedded, forward only, each with a checksum in the database.
//!
//! Run by an engine when it opens a database, in one transaction. Each takes constant time, whatever the database holds:
//! backfills are jobs. They expand first and contract in a later version, so that the version before keeps working: the
//! first line of a file says the oldest schema that a binary must know to use the database afterwards.

use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// A migration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Migration {
    /// 1, 2, 3 …
    pub(crate) number: u32,
    /// The file's name without number.
    pub(crate) name: &'static str,
    /// PostgreSQL's dialect, with `/*sqlite … */` where SQLite needs more and `/*postgres … */` for what it lacks.
    pub(crate) sql: &'static str,
}

/// All of them in order.
pub(crate) const ALL: &[Migration] = &[
    Migration {
        number: 1,
        name: "start",
        sql: include_str!("migrations/0001_start.sql"),
    },
    Migration {
        number: 2,
        name: "replicas",
        sql: include_str!("migrations/0002_replicas.sql"),
    },
    Migration {
        number: 3,
        name: "upkeep",
        sql: include_str!("migrations/0003_upkeep.sql"),
    },
    Migration {
        number: 4,
        name: "replica",
        sql: include_str!("migrations/0004_replica.sql"),
    },
    Migration {
        number: 5,
        name: "parts",
        sql: include_str!("migrations/0005_parts.sql"),
    },
    Migration {
        number: 6,
        name: "usage",
        sql: include_str!("migrations/0006_usage.sql"),
    },
    Migration {
        number: 7,
        name: "phase",
        sql: include_str!("migrations/0007_phase.sql"),
    },
    Migration {
        number: 8,
        name: "rights",
        sql: include_str!("migrations/0008_rights.sql"),
    },
    Migration {
        number: 9,
        name: "credentials",
        sql: include_str!("migrations/0009_credentials.sql"),
    },
    Migration {
        number: 10,
        name: "audit",
        sql: include_str!("migrations/0010_audit.sql"),
    },
    Migration {
        number: 11,
        name: "invitations",
        sql: include_str!("migrations/0011_invitations.sql"),
    },
    Migration {
        number: 12,
        name: "rights_changes",
        sql: include_str!("migrations/0012_rights_changes.sql"),
    },
    Migration {
        number: 13,
        name: "workload",
        sql: include_str!("migrations/0013_workload.sql"),
    },
    Migration {
        number: 14,
        name: "accounts",
        sql: include_str!("migrations/0014_accounts.sql"),
    },
    Migration {
        number: 15,
        name: "account_check",
        sql: include_str!("migrations/0015_account_check.sql"),
    },
    Migration {
        number: 16,
        name: "sessions",
        sql: include_str!("migrations/0016_sessions.sql"),
    },
    Migration {
        number: 17,
        name: "terminals",
        sql: include_str!("migrations/0017_terminals.sql"),
    },
    Migration {
        number: 18,
        name: "logout",
        sql: include_str!("migrations/0018_logout.sql"),
    },
    Migration {
        number: 19,
        name: "refresh_tokens",
        sql: include_str!("migrations/0019_refresh_tokens.sql"),
    },
];

/// The schema that this binary knows: the number of the last migration.
pub const SCHEMA: u32 = ALL[ALL.len() - 1].number;

impl Migration {
    /// The checksum as stored: a file that was released never changes.
    pub(crate) fn checksum(&self) -> String {
        Sha256::digest(self.sql)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// The oldest schema that a binary must know once this has run.
    pub(crate) fn oldest(&self) -> Option<u32> {
        self.sql
            .lines()
            .next()?
            .strip_prefix("-- oldest: ")?
            .trim()
            .parse()
            .ok()
    }
}

/// What a database says about its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// The last migration that ran.
    pub(crate) schema: u32,
    /// The oldest schema that a binary must know.
    pub(crate) oldest: u32,
}

impl Version {
    /// Both in the 32 bits that SQLite keeps in a database's header, where they are read without opening it.
    pub(crate) const fn to_user_version(self) -> i32 {
        ((self.oldest << 16) | self.schema) as i32
    }

    /// The reverse of [`Version::to_user_version`].
    pub(crate) const fn from_user_version(value: i32) -> Version {
        Version {
            schema: value as u32 & 0xffff,
            oldest: value as u32 >> 16,
        }
    }
}

/// Refuses a database that only newer binaries may use.
pub(crate) fn usable(path: &Path, version: Version) -> Result<()> {
    if version.oldest > SCHEMA {
        let Version { schema, oldest } = version;
        return Err(Error::Newer {
            path: path.to_owned(),
            schema,
            oldest,
            known: SCHEMA,
        });
    }
    Ok(())
}

/// What must run on a database at `version`, given the checksums of what ran before (number and checksum).
pub(crate) fn pending<'a>(
    all: &'a [Migration],
    version: u32,
    ran: &[(u32, String)],
) -> Result<impl Iterator<Item = &'a Migration> + use<'a>> {
    for (number, checksum) in ran {
        if let Some(known) = all.iter().find(|m| m.number == *number)
            && known.checksum() != *checksum
        {
            return Err(Error::Corrupt(format!(
                "migration {number} ({}) of the database is not the one of this binary: it was made by an unreleased \
                 version",
                known.name
            )));
        }
    }
    Ok(all.iter().filter(move |m| m.number > version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_numbered_and_say_the_oldest() {
        for (at, migration) in ALL.iter().enumerate() {
            assert_eq!(migration.number as usize, at + 1);
            let oldest = migration
                .oldest()
                .unwrap_or_else(|| panic!("{} lacks its first line", migration.name));
            assert!(oldest >= 1 && oldest <= migration.number);
        }
    }

    #[test]
    fn versions_fit_the_header() {
        let version = Version {
            schema: 513,
            oldest: 40000,
        };
        assert_eq!(
            Version::from_user_version(version.to_user_version()),
            version
        );
    }

    #[test]
    fn changed_files_are_refused() {
        let ran = [(1, ALL[0].checksum())];
        assert_eq!(pending(ALL, 1, &ran).unwrap().count(), ALL.len() - 1);
        let other = [(1, "00".to_owned())];
        assert!(matches!(
            pending(ALL, 1, &other).map(Iterator::count),
            Err(Error::Corrupt(_))
        ));
        let of_a_newer_version = [(1, ALL[0].checksum()), (9999, "00".to_owned())];
        assert_eq!(pending(ALL, 9999, &of_a_newer_version).unwrap().count(), 0);
    }
}
