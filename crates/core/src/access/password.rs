//! Checking passwords: slow on purpose, so kept off the runtime threads, bounded, and remembered for a moment.
//!
//! - A few threads check, a limited number of checks waits, and what comes on top is told to come back.
//! - Equal credentials that arrive together are checked once: 500 nodes that pull at the same second cost one hash.
//! - A success is remembered for at most [`REMEMBERED_MS`] under a keyed hash of name and password, and only as long as
//!   the password stays: the entry names the stored hash that it was checked against.
//! - An unknown user costs what a wrong password costs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use argon2::password_hash::{PasswordHasher as _, phc};
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::hmac;
use quick_cache::sync::Cache;
use tokio::sync::{Semaphore, watch};

use super::aside::Aside;
use super::secret::{Password, random_bytes};
use super::user::User;

/// How long a success is remembered, in ms.
pub const REMEMBERED_MS: i64 = 60_000;
/// Checks that a thread has before it, the one it works on among them: it goes on with the next one by itself, since each time it
/// had to be woken up it would be in the way of whoever does that.
const AHEAD: usize = 4;
/// How many successes are remembered.
const REMEMBERED: usize = 4_096;

/// A password hash as it is kept.
#[derive(Clone)]
pub(crate) enum StoredHash {
    /// PHC string of argon2id.
    Argon2(Box<str>),
    /// Modular crypt format, `$2b$…`.
    Bcrypt(Box<str>),
}

impl StoredHash {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Argon2(hash) | Self::Bcrypt(hash) => hash,
        }
    }

    /// Whether the password is the right one. Takes tens of milliseconds. A hash that cannot be read matches nothing.
    fn matches(&self, password: &str) -> bool {
        match self {
            Self::Argon2(hash) => argon2_matches(password, hash).unwrap_or(false),
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
        }
    }
}

impl std::fmt::Debug for StoredHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoredHash(..)")
    }
}

thread_local! {
    /// What a check of argon2 fills, kept for the thread's next one: to get and to give back 19 MiB each time would take a tenth
    /// of its time, and keep the processor from others meanwhile, since the system does not let go of it in the middle of that.
    static MEMORY: RefCell<Vec<argon2::Block>> = const { RefCell::new(Vec::new()) };
}

/// `None`: the stored hash cannot be read.
fn argon2_matches(password: &str, stored: &str) -> Option<bool> {
    let stored = phc::PasswordHash::new(stored).ok()?;
    let (salt, expected) = (stored.salt.as_ref()?, stored.hash.as_ref()?);
    let algorithm = Algorithm::try_from(stored.algorithm.as_str()).ok()?;
    let version = Version::try_from(stored.version?).ok()?;
    let params = Params::try_from(&stored).ok()?;
    let blocks = params.block_count();
    let mut output = vec![0; expected.len()];
    let hashed = MEMORY.with_borrow_mut(|memory| {
        if memory.len() < blocks {
            memory.resize(blocks, argon2::Block::new());
        }
        Argon2::new(algorithm, version, params).hash_password_into_with_memory(
            password.as_bytes(),
            salt.as_ref(),
            &mut output,
            memory,
        )
    });
    hashed.ok()?;
    // Compares in constant time.
    Some(phc::Output::new(&output).ok()? == *expected)
}

/// The work that is done for a user who does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dummy {
    /// As for a local user.
    Argon2,
    /// As for a user of the htpasswd file, with that cost.
    Bcrypt(u32),
}

impl Dummy {
    fn hash(self) -> StoredHash {
        match self {
            Self::Argon2 => {
                let costs = Params::DEFAULT;
                let (memory, passes, lanes) = (costs.m_cost(), costs.t_cost(), costs.p_cost());
                let (salt, output) = ("A".repeat(22), "A".repeat(43));
                StoredHash::Argon2(
                    format!("$argon2id$v=19$m={memory},t={passes},p={lanes}${salt}${output}")
                        .into(),
                )
            }
            Self::Bcrypt(cost) => {
                StoredHash::Bcrypt(format!("$2b${cost:02}${}", ".".repeat(53)).into())
            }
        }
    }
}

/// Hashes a new password for a local user; takes tens of milliseconds.
fn hash(password: &str) -> Result<String, argon2::password_hash::Error> {
    let salt: [u8; 16] = random_bytes();
    Ok(Argon2::default()
        .hash_password_with_salt(password.as_bytes(), &salt)?
        .to_string())
}

/// Too many checks are under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

/// How checking went since the start, for metrics.
#[derive(Debug, Default)]
struct Counters {
    checked: AtomicU64,
    remembered: AtomicU64,
    refused: AtomicU64,
}

/// How checking went since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PasswordCounts {
    /// Hashes that were computed.
    pub checked: u64,
    /// Checks that were answered from memory.
    pub remembered: u64,
    /// Checks that were refused because too many were under way.
    pub refused: u64,
}

type Key = [u8; 32];
/// What is being checked: name and password, and the stored hash that they are checked against.
type FlightKey = (Key, Arc<str>);

#[derive(Debug)]
struct Remembered {
    credential: Arc<str>,
    until: i64,
}

#[derive(Debug)]
struct Shared {
    counters: Counters,
    successes: Cache<Key, Arc<Remembered>>,
    flights: Mutex<HashMap<FlightKey, watch::Receiver<Option<bool>>>>,
    dummy: OnceLock<Arc<str>>,
}

/// The checker. One per process.
pub(crate) struct Passwords {
    key: hmac::Key,
    waiting: Arc<Semaphore>,
    handed_over: Arc<Semaphore>,
    aside: Arc<Aside>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Passwords {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passwords")
            .field("shared", &self.shared.counters)
            .finish_non_exhaustive()
    }
}

impl Passwords {
    /// `threads` check at once; `attempts` may be under way, waiting ones included.
    pub(crate) fn new(threads: usize, attempts: usize) -> crate::Result<Self> {
        Ok(Self {
            aside: Arc::new(Aside::new(threads)?),
            key: hmac::Key::new(hmac::HMAC_SHA256, &random_bytes::<32>()),
            waiting: Arc::new(Semaphore::new(attempts.max(1))),
            handed_over: Arc::new(Semaphore::new(threads.max(1).saturating_mul(AHEAD))),
            shared: Arc::new(Shared {
                counters: Counters::default(),
                successes: Cache::new(REMEMBERED),
                flights: Mutex::default(),
                dummy: OnceLock::new(),
            }),
        })
    }

    pub(crate) fn counts(&self) -> PasswordCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        PasswordCounts {
            checked: read(&counters.checked),
            remembered: read(&counters.remembered),
            refused: read(&counters.refused),
        }
    }

    /// Whether this is the user's password; `None` is a user who does not exist, for whom `dummy` is computed.
    pub(crate) async fn check(
        &self,
        name: &str,
        password: &str,
        user: Option<&Arc<User>>,
        dummy: Dummy,
        now: i64,
    ) -> Result<bool, Busy> {
        if user.is_some_and(|user| self.remembers(name, password, user, now)) {
            return Ok(true);
        }
        let key = self.key(name, password);
        let credential = match user {
            Some(user) => user.credential().clone(),
            None => self.shared.dummy.get_or_init(|| "nobody".into()).clone(),
        };
        let mut result = self.join((key, credential), password, user, dummy, now)?;
        // A sender that is gone without an answer died with its thread: nothing was proved.
        let answer = result.wait_for(Option::is_some).await.map(|answer| *answer);
        Ok(answer.ok().flatten().unwrap_or(false))
    }

    /// Whether this was the user's password a moment ago, and still is.
    pub(crate) fn remembers(&self, name: &str, password: &str, user: &User, now: i64) -> bool {
        let key = self.key(name, password);
        if let Some(known) = self.shared.successes.get(&key)
            && known.credential == *user.credential()
            // The second half matters when the clock was set back.
            && known.until > now
            && known.until <= now + REMEMBERED_MS
        {
            self.shared
                .counters
                .remembered
                .fetch_add(1, Ordering::Relaxed);
            return true;
        }
        false
    }

    /// Joins the check of the same credentials that is under way, or starts one. It goes on when the caller goes away,
    /// so that connections that are opened and dropped cannot have more than the limit under way.
    fn join(
        &self,
        flight: FlightKey,
        password: &str,
        user: Option<&Arc<User>>,
        dummy: Dummy,
        now: i64,
    ) -> Result<watch::Receiver<Option<bool>>, Busy> {
        let mut flights = self
            .shared
            .flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(result) = flights.get(&flight) {
            return Ok(result.clone());
        }
        let Ok(place) = self.waiting.clone().try_acquire_owned() else {
            self.shared.counters.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Busy);
        };
        let (sender, result) = watch::channel(None);
        flights.insert(flight.clone(), result.clone());
        let landing = Landing {
            shared: self.shared.clone(),
            flight,
        };
        let (known, stored) = (
            user.is_some(),
            user.and_then(|user| user.hash().cloned())
                .unwrap_or_else(|| dummy.hash()),
        );
        let password = Password::new(password);
        let (handed_over, aside) = (self.handed_over.clone(), self.aside.clone());
        tokio::spawn(async move {
            let _place = place;
            let _turn = handed_over.acquire_owned().await;
            landing
                .shared
                .counters
                .checked
                .fetch_add(1, Ordering::Relaxed);
            let matched = aside.run(move || stored.matches(password.reveal())).await;
            let good = matched.unwrap_or(false) && known;
            if good {
                let (key, credential) = landing.flight.clone();
                let remembered = Remembered {
                    credential,
                    until: now + REMEMBERED_MS,
                };
                landing.shared.successes.insert(key, Arc::new(remembered));
            }
            drop(landing);
            let _ = sender.send(Some(good));
        });
        Ok(result)
    }

    /// Hashes a new password off the runtime threads. Not limited: only administrators get here.
    pub(crate) async fn hash(&self, password: &Password) -> crate::Result<String> {
        let _turn = self.handed_over.clone().acquire_owned().await;
        let password = password.clone();
        let failed = |error: String| {
            crate::Error::Internal(format!("a password could not be hashed: {error}"))
        };
        let hashed = self.aside.run(move || hash(password.reveal())).await;
        let hashed = hashed.ok_or_else(|| failed("its thread ended early".to_owned()))?;
        hashed.map_err(|error| failed(error.to_string()))
    }

    /// Lets every check wait until the guard is dropped.
    #[cfg(test)]
    pub(crate) async fn stall(&self) -> tokio::sync::OwnedSemaphorePermit {
        let all = u32::try_from(self.handed_over.available_permits()).unwrap();
        self.handed_over
            .clone()
            .acquire_many_owned(all)
            .await
            .unwrap()
    }

    fn key(&self, name: &str, password: &str) -> Key {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&(name.len() as u64).to_le_bytes());
        context.update(name.as_bytes());
        context.update(password.as_bytes());
        let mut key = [0; 32];
        key.copy_from_slice(context.sign().as_ref());
        key
    }
}

/// Takes a check off the list when it ends, however it ends.
struct Landing {
    shared: Arc<Shared>,
    flight: FlightKey,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.shared
            .flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.flight);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use argon2::password_hash::PasswordVerifier as _;

    #[test]
    fn a_dummy_does_the_whole_work_and_matches_nothing() {
        for cost in [4, 5] {
            let StoredHash::Bcrypt(hash) = Dummy::Bcrypt(cost).hash() else {
                panic!()
            };
            assert!(
                matches!(bcrypt::verify("x", &hash), Ok(false)),
                "an error would come back at once"
            );
            assert_eq!(hash.parse::<bcrypt::HashParts>().unwrap().get_cost(), cost);
        }
        let StoredHash::Argon2(dummy) = Dummy::Argon2.hash() else {
            panic!()
        };
        let verdict =
            Argon2::default().verify_password(b"x", &phc::PasswordHash::new(&dummy).unwrap());
        assert!(
            matches!(verdict, Err(argon2::password_hash::Error::PasswordInvalid)),
            "{verdict:?}"
        );
        let real = hash("x").unwrap();
        let costs = |hash: &str| hash.split('$').take(4).collect::<Vec<_>>().join("$");
        assert_eq!(costs(&dummy), costs(&real));
    }

    /// As the library itself verifies, whatever an earlier check of other costs left in the thread's memory.
    #[test]
    fn memory_of_an_earlier_check_changes_nothing() {
        for (memory, passes, lanes) in [(64, 1, 1), (19_456, 2, 1), (32, 3, 4), (64, 1, 1)] {
            let params = Params::new(memory, passes, lanes, None).unwrap();
            let stored = Argon2::from(params).hash_password_with_salt(b"right", &[7; 16]);
            let stored = stored.unwrap().to_string();
            for password in ["right", "wrong"] {
                let read = phc::PasswordHash::new(&stored).unwrap();
                let verdict = Argon2::default().verify_password(password.as_bytes(), &read);
                assert_eq!(argon2_matches(password, &stored), Some(verdict.is_ok()));
            }
            assert_eq!(argon2_matches("right", &stored), Some(true));
        }
    }

    #[test]
    fn both_kinds_of_hash_match_their_password_only() {
        for stored in [
            StoredHash::Argon2(hash("right").unwrap().into()),
            StoredHash::Bcrypt(bcrypt::hash("right", 4).unwrap().into()),
        ] {
            assert!(stored.matches("right"));
            assert!(!stored.matches("wrong") && !stored.matches("") && !stored.matches("right "));
        }
        for broken in [
            StoredHash::Argon2("".into()),
            StoredHash::Bcrypt("$2b$".into()),
            StoredHash::Argon2("$argon2id$v=19$x".into()),
        ] {
            assert!(!broken.matches(""));
        }
    }

    #[test]
    fn the_forms_that_other_tools_write_are_understood() {
        // As `htpasswd -nbB -C 5 alice secret-word` printed it, and as older libraries would mark it.
        let hash = "$2y$05$LLBzIGJWJEhAYqMTqZE4VeTxcRSJE4W6uCwWd0kawPWTPwbmTvSX.";
        for prefix in ["$2a$", "$2b$", "$2y$"] {
            let stored = StoredHash::Bcrypt(hash.replacen("$2y$", prefix, 1).into());
            assert!(
                stored.matches("secret-word") && !stored.matches("secret-world"),
                "{prefix}"
            );
        }
    }

    #[test]
    fn names_and_passwords_do_not_run_together() {
        let passwords = Passwords::new(1, 1).unwrap();
        assert_ne!(passwords.key("ab", "c"), passwords.key("a", "bc"));
        assert_ne!(
            passwords.key("a", "b"),
            Passwords::new(1, 1).unwrap().key("a", "b"),
            "keyed by process"
        );
    }
}
