//! Robots' secrets and users' API tokens as a request sees them. From memory once warm; over a database that replicas share,
//! for moments only, so that one that was revoked is refused everywhere within five seconds.
//!
//! Tokens from the token endpoint name the credential that they were bought with by its id, and are asked for it at each
//! use, so they die with it; so do refresh tokens.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};
use wharf_oci::RepositoryName;

use super::narrow::Narrow;
use super::principal::{Circumstances, Source};
use super::role::{Permission, Permissions, Role};
use super::store::{CredentialRow, Secrets};
use crate::Result;

/// How long what was read counts while other processes may change it.
const FRESH: Duration = Duration::from_secs(2);
/// Most that are remembered, known or known to be absent, by hash and by id.
const REMEMBERED: usize = 10_000;
/// How often the last use of one is written at most, in ms.
const NOTE_EVERY: i64 = 60_000;
/// What stands before the id where a token names what it was bought with.
pub(crate) const BOUGHT_WITH: &str = "credential.";
/// Where a robot is kept, as rows say it.
pub(crate) const ROBOT: &str = "robot";

/// A secret without the secret.
#[derive(Debug)]
pub(crate) struct Credential {
    pub(crate) id: Arc<str>,
    pub(crate) principal: Arc<str>,
    /// The user's place; `None`: the principal is a robot.
    pub(crate) source: Option<Source>,
    pub(crate) expires_at: Option<i64>,
    pub(crate) narrow: Option<Arc<Narrow>>,
}

impl Credential {
    fn read(row: CredentialRow) -> Option<Self> {
        let source = match row.source.as_str() {
            ROBOT => None,
            word => Some(
                [Source::Local, Source::Htpasswd]
                    .into_iter()
                    .find(|source| source.as_str() == word)?,
            ),
        };
        let narrow = row.scopes.map(|scopes| Arc::new(read_scopes(&scopes)));
        Some(Self {
            id: row.id.into(),
            principal: row.principal.into(),
            source,
            expires_at: row.expires_at,
            narrow,
        })
    }

    /// Whether it is good at that time.
    pub(crate) fn stands(&self, now: i64) -> bool {
        self.expires_at.is_none_or(|end| now < end)
    }
}

#[derive(Clone, Debug)]
struct Known {
    credential: Option<Arc<Credential>>,
    asked: Instant,
}

/// All credentials of the registry.
#[derive(Debug)]
pub(crate) struct Credentials {
    secrets: Arc<dyn Secrets>,
    by_hash: Cache<[u8; 32], Known>,
    by_id: Cache<Arc<str>, Known>,
    noted: Cache<Arc<str>, i64>,
    /// Counts changes: what was read before a change is not remembered after it.
    changes: Mutex<u64>,
}

impl Credentials {
    pub(crate) fn new(secrets: Arc<dyn Secrets>) -> Self {
        Self {
            secrets,
            by_hash: Cache::new(REMEMBERED),
            by_id: Cache::new(REMEMBERED),
            noted: Cache::new(REMEMBERED),
            changes: Mutex::new(0),
        }
    }

    /// The credential with that secret, whose form the caller has looked at.
    pub(crate) async fn by_secret(&self, secret: &str) -> Result<Option<Arc<Credential>>> {
        let hash: [u8; 32] = Sha256::digest(secret).into();
        if let Some(known) = self.by_hash.get(&hash).filter(|known| self.is_fresh(known)) {
            return Ok(known.credential);
        }
        let (asked, before) = (Instant::now(), self.changes());
        let row = self.secrets.credential_by_hash(hash).await?;
        let credential = row.and_then(Credential::read).map(Arc::new);
        let known = Known { credential, asked };
        self.remember(before, |all| all.by_hash.insert(hash, known.clone()));
        Ok(known.credential)
    }

    /// The credential with that id.
    pub(crate) async fn by_id(&self, id: &str) -> Result<Option<Arc<Credential>>> {
        if let Some(known) = self.by_id.get(id).filter(|known| self.is_fresh(known)) {
            return Ok(known.credential);
        }
        let (asked, before) = (Instant::now(), self.changes());
        let row = self.secrets.credential_by_id(id).await?;
        let credential = row.and_then(Credential::read).map(Arc::new);
        let known = Known { credential, asked };
        self.remember(before, |all| all.by_id.insert(id.into(), known.clone()));
        Ok(known.credential)
    }

    /// To be called after any credential was made, changed or removed.
    pub(crate) fn forget(&self) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        *changes += 1;
        self.by_hash.clear();
        self.by_id.clear();
    }

    /// Notes a use, beside the request and not for each: whoever asks for the last use wants to know the day.
    pub(crate) fn note(&self, credential: &Credential, came: Circumstances) {
        let noted = self.noted.get(&credential.id);
        // The second half matters when the clock was set back.
        if noted.is_some_and(|at| came.at < at + NOTE_EVERY && at < came.at + NOTE_EVERY) {
            return;
        }
        self.noted.insert(credential.id.clone(), came.at);
        let address = came
            .address
            .map(|address| address.to_canonical().to_string());
        let (secrets, id) = (self.secrets.clone(), credential.id.to_string());
        tokio::spawn(async move {
            let noted = secrets.note_use(id, came.at, address.unwrap_or_default());
            if let Err(error) = noted.await {
                tracing::debug!(%error, "the use of a credential could not be noted");
            }
        });
    }

    fn is_fresh(&self, known: &Known) -> bool {
        !self.secrets.is_shared() || known.asked.elapsed() < FRESH
    }

    fn changes(&self) -> u64 {
        *self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, before: u64, insert: impl FnOnce(&Self)) {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if *changes == before {
            insert(self);
        }
    }
}

/// A scope as people write it: roles or permissions, and where. `reader`, `reader:team/a`, `pull,push:team/a`. To push is to make
/// and move tags, too; the role `publisher` makes them only.
pub fn parse_scope(text: &str) -> Result<(String, Permissions), ScopeError> {
    let (words, on) = text.split_once(':').unwrap_or((text, ""));
    let on = on.strip_suffix('/').unwrap_or(on);
    if !on.is_empty()
        && let Err(reason) = RepositoryName::parse(on)
    {
        return Err(ScopeError::On {
            scope: text.into(),
            reason: reason.to_string(),
        });
    }
    let mut permissions = Permissions::NONE;
    for word in words.split(',') {
        let named = match (word.parse::<Role>(), word.parse::<Permission>()) {
            (Ok(role), _) if role != Role::None => role.permissions(),
            // As every client means it: an image without its tag is no use.
            (_, Ok(Permission::Push)) => {
                [Permission::Push, Permission::TagCreate, Permission::TagMove]
                    .into_iter()
                    .collect()
            }
            (_, Ok(permission)) => Permissions::NONE.with(permission),
            _ => {
                return Err(ScopeError::Word {
                    scope: text.into(),
                    word: word.into(),
                });
            }
        };
        permissions = permissions | named;
    }
    Ok((on.to_owned(), permissions))
}

/// A scope that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// Neither a role nor a permission.
    #[error(
        "scope {scope:?}: {word:?} is neither a role nor a permission; write for example reader:team/a or pull,push:team/a"
    )]
    Word {
        /// As written.
        scope: String,
        /// What is not understood.
        word: String,
    },
    /// No path.
    #[error("scope {scope:?}: {reason}; write for example reader:team/a, or reader for everywhere")]
    On {
        /// As written.
        scope: String,
        /// What is wrong with the path.
        reason: String,
    },
}

/// Scopes as rows hold them: permissions, not roles, so that a role that grows later widens nothing.
pub(crate) fn write_scopes(parts: &[(String, Permissions)]) -> String {
    let part = |(on, held): &(String, Permissions)| {
        let words = Permission::ALL
            .into_iter()
            .filter(|one| held.contains(*one));
        let words: Vec<_> = words.map(Permission::as_str).collect();
        format!("{}:{on}", words.join(","))
    };
    parts.iter().map(part).collect::<Vec<_>>().join(" ")
}

/// The reverse of [`write_scopes`]. Words of a later version mean nothing, so what is left is never more than was meant.
pub(crate) fn read_scopes(text: &str) -> Narrow {
    let part = |part: &str| {
        let (words, on) = part.split_once(':')?;
        let held = words
            .split(',')
            .filter_map(|word| word.parse::<Permission>().ok());
        Some((on.to_owned(), held.collect::<Permissions>()))
    };
    Narrow::new(text.split(' ').filter_map(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_people_write_them() {
        let reader = Role::Reader.permissions();
        for (text, on, permissions) in [
            ("reader", "", reader),
            ("reader:team/a", "team/a", reader),
            ("reader:team/", "team", reader),
            (
                "pull,push:a",
                "a",
                [
                    Permission::Pull,
                    Permission::Push,
                    Permission::TagCreate,
                    Permission::TagMove,
                ]
                .into_iter()
                .collect(),
            ),
            (
                "tag-create:a",
                "a",
                [Permission::TagCreate].into_iter().collect(),
            ),
            ("reader,delete:a", "a", reader.with(Permission::Delete)),
        ] {
            assert_eq!(
                parse_scope(text),
                Ok((on.to_owned(), permissions)),
                "{text}"
            );
        }
        for broken in [
            "",
            ":",
            "none:a",
            "fly:a",
            "pull,:a",
            "Pull:a",
            "reader:A",
            "reader:a//b",
            "reader:*",
        ] {
            let error = parse_scope(broken).unwrap_err().to_string();
            assert!(error.contains("reader:team/a"), "{error}");
        }
    }

    #[test]
    fn rows_hold_scopes_and_what_they_cannot_mean_is_nothing() {
        let parts = vec![
            ("team/a".to_owned(), Role::Writer.permissions()),
            (String::new(), Role::Reader.permissions()),
        ];
        assert_eq!(read_scopes(&write_scopes(&parts)), Narrow::new(parts));
        for nothing in ["", "nonsense", "fly:", ":a", "pull"] {
            let narrow = read_scopes(nothing);
            let on = RepositoryName::parse("a").unwrap();
            for permission in Permission::ALL {
                assert!(!narrow.leaves(permission, Some(&on)), "{nothing}");
                assert!(!narrow.leaves(permission, None), "{nothing}");
            }
        }
    }
}
