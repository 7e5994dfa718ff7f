//! People of directories as a request sees them: a name and a password, and who that is here.
//!
//! - Equal credentials that arrive together are asked about once, and a success is remembered for [`REMEMBERED_MS`] under a keyed hash
//!   of name and password: 500 nodes that pull at the same second cost a directory one bind.
//! - A directory that does not answer says nothing about anybody: nobody is refused for it, nobody is asked for in the next one, and
//!   no guess is counted.
//! - Who came is decided by the account (provider and subject), never by the name that was typed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use quick_cache::sync::Cache;
use tokio::sync::{Semaphore, watch};
use wharf_meta::access::standing;

use super::{Directory, Fault, Person, Story, Verdict, acceptable};
use crate::access::{Password, REMEMBERED_MS, random_bytes, random_id};
use crate::error::{Error, Result};
use crate::identity::{Arrival, ArriveError, arrive};
use crate::registry::Registry;

/// How many successes are remembered.
const REMEMBERED: usize = 4_096;
/// How many users' standing is remembered.
const STANDINGS: usize = 10_000;
/// How long what was read of one counts: whoever is gone is out everywhere within five seconds.
const FRESH: Duration = Duration::from_secs(2);
/// When to come back while a directory cannot be asked.
const COME_BACK: Duration = Duration::from_secs(5);
/// Sign-ins under way with directories, waiting ones included; more are told to come back.
const ATTEMPTS: usize = 256;
/// Questions about nobody under way, among those: others wait, so that they take no person's place.
const PRETENDED: usize = 8;
/// So long is somebody kept waiting for such a question.
const PRETENDS: Duration = Duration::from_secs(8);

/// A directory, and for whom it makes users.
#[derive(Debug, Clone)]
pub struct Source {
    /// Who is asked.
    pub directory: Arc<dyn Directory>,
    /// Whether a user is made for whoever comes from there first.
    pub onboards: bool,
}

/// Somebody who proved a password to a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entered {
    /// The user here.
    pub(crate) user: Arc<str>,
    /// Names the account, for tokens that are bought with it.
    pub(crate) credential: Arc<str>,
}

/// Why nobody is let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No directory knows them by this password.
    Password,
    /// The password is right, and here they may not be: why, and the way out.
    Here(String),
    /// A directory cannot be asked just now.
    Later(&'static str),
    /// The metadata store failed.
    Store(String),
}

type Key = [u8; 32];
type Flight = watch::Receiver<Option<Result<Entered, Refusal>>>;

#[derive(Debug)]
struct Known {
    entered: Entered,
    until: i64,
}

/// Whether the accounts of a user stand, as of a moment.
#[derive(Debug, Clone)]
struct Standing {
    asked: Instant,
    /// Credentials of accounts that are not gone.
    good: Arc<[String]>,
    /// There are accounts, and all are gone.
    gone: bool,
}

#[derive(Debug)]
struct Shared {
    successes: Cache<Key, Arc<Known>>,
    standings: Cache<Arc<str>, Standing>,
    flights: Mutex<HashMap<Key, Flight>>,
}

/// All directories of a registry, in the order in which they are asked.
#[derive(Default)]
pub struct Directories {
    inner: OnceLock<Inner>,
}

struct Inner {
    sources: Vec<Source>,
    registry: Weak<Registry>,
    key: hmac::Key,
    places: Arc<Semaphore>,
    pretended: Semaphore,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Directories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sources = self.inner.get().map_or(0, |inner| inner.sources.len());
        f.debug_struct("Directories")
            .field("sources", &sources)
            .finish()
    }
}

/// Names an account without telling it.
pub(crate) fn credential_of(provider: &str, subject: &str) -> String {
    crate::access::fingerprint("account", provider, subject)
}

impl Directories {
    /// Begins to ask these, for this registry. Called once, at the start.
    pub fn open(&self, registry: &Arc<Registry>, sources: Vec<Source>) {
        if sources.is_empty() {
            return;
        }
        let inner = Inner {
            sources,
            registry: Arc::downgrade(registry),
            key: hmac::Key::new(hmac::HMAC_SHA256, &random_bytes::<32>()),
            places: Arc::new(Semaphore::new(ATTEMPTS)),
            pretended: Semaphore::new(PRETENDED),
            shared: Arc::new(Shared {
                successes: Cache::new(REMEMBERED),
                standings: Cache::new(STANDINGS),
                flights: Mutex::default(),
            }),
        };
        let _ = self.inner.set(inner);
    }

    /// All of them.
    pub fn sources(&self) -> &[Source] {
        self.inner.get().map_or(&[], |inner| &inner.sources)
    }

    /// Whether any is asked about this name and password.
    pub(crate) fn take(&self, name: &str, password: &str) -> bool {
        self.inner.get().is_some() && acceptable(name, password)
    }

    fn key(inner: &Inner, name: &str, password: &str) -> Key {
        let mut context = hmac::Context::with_key(&inner.key);
        for part in [name, password] {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part.as_bytes());
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.sign().as_ref());
        key
    }

    /// Who proved this a moment ago.
    pub(crate) fn remembers(&self, name: &str, password: &str, now: i64) -> Option<Entered> {
        let inner = self.inner.get()?;
        let known = inner
            .shared
            .successes
            .get(&Self::key(inner, name, password))?;
        // The second half matters when the clock was set back.
        let stands = known.until > now && known.until <= now + REMEMBERED_MS;
        stands.then(|| known.entered.clone())
    }

    /// Asks; joins whoever asks the same already. It goes on when the caller goes away.
    pub(crate) async fn sign_in(
        &self,
        name: &str,
        password: &str,
        now: i64,
    ) -> Result<Entered, Refusal> {
        const BUSY: Refusal = Refusal::Later("too many sign-ins wait for directories");
        let Some(inner) = self.inner.get() else {
            return Err(Refusal::Password);
        };
        let key = Self::key(inner, name, password);
        let mut flight = {
            let mut flights = inner
                .shared
                .flights
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            match flights.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    let Ok(place) = inner.places.clone().try_acquire_owned() else {
                        return Err(BUSY);
                    };
                    let (sender, flight) = watch::channel(None);
                    flights.insert(key, flight.clone());
                    let landing = Landing {
                        shared: inner.shared.clone(),
                        key,
                    };
                    let (sources, registry) = (inner.sources.clone(), inner.registry.clone());
                    let (name, password) = (name.to_owned(), Password::new(password));
                    tokio::spawn(async move {
                        let _place = place;
                        let entered = match registry.upgrade() {
                            Some(registry) => ask(&registry, &sources, &name, &password).await,
                            None => Err(Refusal::Later("the registry ends")),
                        };
                        if let Ok(entered) = &entered {
                            let until = now + REMEMBERED_MS;
                            let entered = entered.clone();
                            landing.shared.standings.remove(&entered.user);
                            landing
                                .shared
                                .successes
                                .insert(landing.key, Arc::new(Known { entered, until }));
                        }
                        drop(landing);
                        let _ = sender.send(Some(entered));
                    });
                    flight
                }
            }
        };
        let landed = flight.wait_for(Option::is_some).await;
        let landed = landed.ok().and_then(|landed| landed.clone());
        // A sender that is gone without a word died with its task: nothing was proved.
        landed.unwrap_or(Err(Refusal::Later("the question ended early")))
    }

    /// Asks about somebody whom nobody knows, so that a wrong password for a name that is known here takes as long as for any other.
    /// Neither the name nor the password that was typed leaves this process.
    pub(crate) async fn pretend(&self, now: i64) {
        let Some(inner) = self.inner.get() else {
            return;
        };
        let asked = async {
            let _turn = inner.pretended.acquire().await;
            let (name, password) = (format!("nobody-{}", random_id()), random_id());
            self.sign_in(&name, &password, now).await
        };
        // Whatever comes of it.
        let _ = tokio::time::timeout(PRETENDS, asked).await;
    }

    async fn standing(&self, user: &str) -> Result<Option<Standing>> {
        let Some(inner) = self.inner.get() else {
            return Ok(None);
        };
        if let Some(known) = inner.shared.standings.get(user)
            && known.asked.elapsed() < FRESH
        {
            return Ok(Some(known));
        }
        let Some(registry) = inner.registry.upgrade() else {
            return Ok(None);
        };
        let asked = Instant::now();
        let rows = registry
            .meta
            .read(standing::Of {
                user: user.to_owned(),
            })
            .await?;
        let gone = !rows.is_empty() && rows.iter().all(|row| row.gone_at.is_some());
        let good = rows.iter().filter(|row| row.gone_at.is_none());
        let good = good
            .map(|row| credential_of(&row.provider, &row.subject))
            .collect();
        let standing = Standing { asked, good, gone };
        inner.shared.standings.insert(user.into(), standing.clone());
        Ok(Some(standing))
    }

    /// Whether what was bought with an account is still good.
    pub(crate) async fn stands(&self, user: &str, credential: &str) -> Result<bool> {
        let standing = self.standing(user).await?;
        Ok(standing.is_some_and(|standing| standing.good.iter().any(|good| good == credential)))
    }

    /// Whether all accounts of a user are gone, who has nothing else.
    pub(crate) async fn has_lost(&self, user: &str) -> Result<bool> {
        let standing = self.standing(user).await?;
        Ok(standing.is_some_and(|standing| standing.gone))
    }

    /// To be called after the standing of a user's account changed.
    pub(crate) fn forget(&self, user: &str) {
        if let Some(inner) = self.inner.get() {
            inner.shared.standings.remove(user);
            // By user nothing is kept, and who is gone must not come in by memory.
            inner.shared.successes.clear();
        }
    }
}

/// Takes a flight off the list, however it ends.
struct Landing {
    shared: Arc<Shared>,
    key: Key,
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut flights = self
            .shared
            .flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        flights.remove(&self.key);
    }
}

/// Asks directories in their order until one knows the name.
async fn ask(
    registry: &Registry,
    sources: &[Source],
    name: &str,
    password: &Password,
) -> Result<Entered, Refusal> {
    for source in sources {
        let verdict = source
            .directory
            .sign_in(name, password, &mut Story::default())
            .await;
        match verdict {
            Ok(Verdict::Proved(person)) => return enter(registry, source, *person).await,
            Ok(Verdict::Unknown) => {}
            Ok(Verdict::Wrong) => return Err(Refusal::Password),
            Ok(Verdict::Locked(why) | Verdict::Unusable(why)) => {
                tracing::info!(
                    directory = source.directory.name(),
                    user = name,
                    why,
                    "a directory's entry cannot sign in"
                );
                return Err(Refusal::Password);
            }
            // Another directory might have somebody else of that name.
            Err(Fault { .. }) => {
                return Err(Refusal::Later(
                    "the directory that knows users does not answer",
                ));
            }
        }
    }
    Err(Refusal::Password)
}

/// What a person's account says of itself.
pub(super) fn arrival(source: &Source, person: &Person) -> Arrival {
    Arrival {
        provider: source.directory.name().to_owned(),
        issuer: String::new(),
        subject: person.subject.clone(),
        wished: source.onboards.then(|| person.name.clone()),
        groups: person.groups.clone(),
    }
}

async fn enter(registry: &Registry, source: &Source, person: Person) -> Result<Entered, Refusal> {
    let arrival = arrival(source, &person);
    let user = match arrive(registry, &arrival).await {
        Ok(user) => user,
        Err(ArriveError::Store(error)) => return Err(Refusal::Store(error.to_string())),
        Err(error) => return Err(Refusal::Here(error.to_string())),
    };
    let seen = standing::Check {
        provider: arrival.provider.clone(),
        subject: arrival.subject.clone(),
        at: registry.clock.now_ms(),
        found: true,
        enough: super::recheck::ENOUGH,
    };
    let store = |error: wharf_meta::Error| Refusal::Store(Error::from(error).to_string());
    let of = standing::Of {
        user: user.name().to_owned(),
    };
    let rows = registry.meta.read(of).await.map_err(store)?;
    let own = rows
        .iter()
        .find(|row| row.provider == arrival.provider && row.subject == arrival.subject);
    if own.is_some_and(|row| row.gone_at.is_some() || row.misses > 0) {
        registry.meta.write(seen).await.map_err(store)?;
    }
    Ok(Entered {
        user: user.name().into(),
        credential: credential_of(&arrival.provider, &arrival.subject).into(),
    })
}

impl Refusal {
    /// As an error of the registry, if it is no answer about anybody.
    pub(crate) fn passing(&self) -> Option<Error> {
        match self {
            Self::Later(reason) => Some(Error::Unavailable {
                reason: format!("{reason}; try again in {} s", COME_BACK.as_secs()),
                retry_after: COME_BACK,
            }),
            Self::Store(text) => Some(Error::Internal(text.clone())),
            Self::Password | Self::Here(_) => None,
        }
    }
}
