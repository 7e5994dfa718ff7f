//! Users, wherever kept, as the rest of this module sees them. From memory once warm; over a database that replicas share, for
//! moments only.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use quick_cache::sync::Cache;

use super::credential::ROBOT;
use super::explain::Barred;
use super::htpasswd::HtpasswdFile;
use super::network::Networks;
use super::password::{Dummy, StoredHash};
use super::policy::check_user_name;
use super::principal::{Circumstances, Principal, Source};
use super::secret::fingerprint;
use super::store::{PrincipalRow, Secrets};
use crate::Result;

/// Most local names, known or known to be absent, that are remembered.
const REMEMBERED: usize = 10_000;
/// How long what was read counts while other processes may change it: a new password holds everywhere within five
/// seconds, and so does a lock-out.
const FRESH: Duration = Duration::from_secs(2);

/// A user or a robot.
#[derive(Debug)]
pub(crate) struct User {
    name: Arc<str>,
    /// `None`: a robot, which has no password.
    source: Option<Source>,
    hash: Option<StoredHash>,
    credential: Arc<str>,
    disabled: bool,
    expires_at: Option<i64>,
    networks: Networks,
}

impl User {
    pub(crate) fn new(name: &str, source: Source, hash: StoredHash) -> Self {
        let credential = fingerprint(source.as_str(), name, hash.as_str()).into();
        Self {
            name: name.into(),
            source: Some(source),
            hash: Some(hash),
            credential,
            disabled: false,
            expires_at: None,
            networks: Networks::default(),
        }
    }

    /// A principal of the metadata store. What cannot be read lets nobody in.
    fn read(row: PrincipalRow) -> Self {
        let robot = row.kind == ROBOT;
        let hash = row.secret_hash.map(|hash| StoredHash::Argon2(hash.into()));
        let source = (!robot).then_some(Source::Local);
        let word = source.map_or(ROBOT, Source::as_str);
        let hashed = hash.as_ref().map_or("", StoredHash::as_str);
        let networks = row.networks.parse();
        Self {
            credential: fingerprint(word, &row.name, hashed).into(),
            name: row.name.into(),
            source,
            hash,
            disabled: row.disabled_at.is_some() || networks.is_err(),
            expires_at: row.expires_at,
            networks: networks.unwrap_or_default(),
        }
    }

    /// Whether there is a password with which this one may sign in.
    pub(crate) fn signs_in(&self) -> bool {
        self.hash.is_some() && !self.disabled
    }

    /// Whether nothing of this one is good at present.
    pub(crate) fn is_locked_out(&self) -> bool {
        self.disabled
    }

    /// Where the user is kept; `None`: a robot.
    pub(crate) fn source(&self) -> Option<Source> {
        self.source
    }

    /// Whether what was given to this one is good for a request at that time, from there.
    pub(crate) fn stands(&self, came: Circumstances) -> bool {
        self.barred(came).is_none()
    }

    /// Why it is not.
    pub(crate) fn barred(&self, came: Circumstances) -> Option<Barred> {
        if self.disabled {
            Some(Barred::LockedOut)
        } else if self.expires_at.is_some_and(|end| came.at >= end) {
            Some(Barred::Ended)
        } else if !self.networks.admit(came.address) {
            Some(Barred::Network)
        } else {
            None
        }
    }

    /// The user's name.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    pub(crate) fn hash(&self) -> Option<&StoredHash> {
        self.hash.as_ref()
    }

    /// Names the password without telling it: another password, another credential. Tokens carry it, so that they die
    /// with the password.
    pub(crate) fn credential(&self) -> &Arc<str> {
        &self.credential
    }

    pub(crate) fn principal(&self) -> Principal {
        let name = self.name.clone();
        match self.source {
            Some(source) => Principal::User { name, source },
            None => Principal::Robot { name },
        }
    }
}

/// What was read of a name, and when that began.
#[derive(Clone, Debug)]
struct Known {
    user: Option<Arc<User>>,
    asked: Instant,
}

/// All users of the registry.
#[derive(Debug)]
pub(crate) struct Users {
    secrets: Arc<dyn Secrets>,
    htpasswd: Option<Arc<HtpasswdFile>>,
    local: Cache<Arc<str>, Known>,
    /// Chooses the work for unknown names; nobody else can tell how.
    unknown: hmac::Key,
    /// Counts changes to local users: what was read before a change is not remembered after it.
    changes: Mutex<u64>,
}

impl Users {
    pub(crate) fn new(
        secrets: Arc<dyn Secrets>,
        htpasswd: Option<Arc<HtpasswdFile>>,
        unknown: hmac::Key,
    ) -> Self {
        Self {
            secrets,
            htpasswd,
            local: Cache::new(REMEMBERED),
            unknown,
            changes: Mutex::new(0),
        }
    }

    pub(crate) fn htpasswd(&self) -> Option<&Arc<HtpasswdFile>> {
        self.htpasswd.as_ref()
    }

    /// The user or robot of that name; local ones hide those of the file, even while they are locked out.
    pub(crate) async fn find(&self, name: &str) -> Result<Option<Arc<User>>> {
        if check_user_name(name).is_err() {
            return Ok(None);
        }
        if let Some(user) = self.find_local(name).await? {
            return Ok(Some(user));
        }
        Ok(self
            .htpasswd
            .as_ref()
            .and_then(|file| file.content().get(name).cloned()))
    }

    async fn find_local(&self, name: &str) -> Result<Option<Arc<User>>> {
        let is_fresh = |known: &Known| !self.secrets.is_shared() || known.asked.elapsed() < FRESH;
        if let Some(known) = self.local.get(name).filter(is_fresh) {
            return Ok(known.user);
        }
        let asked = Instant::now();
        let before = *self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let row = self.secrets.principal(name).await?;
        let user = row.map(|row| Arc::new(User::read(row)));
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if *changes == before {
            let user = user.clone();
            self.local.insert(name.into(), Known { user, asked });
        }
        Ok(user)
    }

    /// To be called after a local user was made or changed.
    pub(crate) fn forget(&self, name: &str) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        *changes += 1;
        self.local.remove(name);
    }

    /// What a check costs where nobody has the name: the same each time, and as for a user of the file with half of the names, as
    /// for a local user (`admin` always is one) with the others. One kind for all would tell every user of the other kind.
    pub(crate) fn dummy(&self, name: &str) -> Dummy {
        let cost = self
            .htpasswd
            .as_ref()
            .and_then(|file| file.content().usual_cost());
        let as_local = hmac::sign(&self.unknown, name.as_bytes()).as_ref()[0] & 1 == 0;
        match cost {
            Some(cost) if !as_local => Dummy::Bcrypt(cost),
            _ => Dummy::Argon2,
        }
    }
}
