//! The keys of one issuer, fetched and kept.
//!
//! However many tokens name a key that is not there, an issuer is asked once in [`FETCH_EVERY`]. While it does not answer, its last
//! keys are good for [`STALE_AFTER`]; while it does, what it no longer publishes is good for [`REFRESH_AFTER`] and a moment.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;

use super::claim::Claims;
use super::issuer::{IssuerSettings, KeySource, origin};
use super::jwks::{JwksError, KeySet, LARGEST_KEYS};
use super::jwt::Jwt;
use super::review::{Cluster, Reviews};
use super::verify::Fault;
use crate::access::Password;

/// An issuer is asked for its keys once in this time at most, in ms.
pub const FETCH_EVERY: i64 = 15_000;
/// Keys that are older are fetched anew, beside the requests that use them, in ms.
pub const REFRESH_AFTER: i64 = 5 * 60_000;
/// Keys that are older are not used, in ms.
pub const STALE_AFTER: i64 = 24 * 60 * 60_000;
/// So long may one answer of an issuer take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Largest document that says where keys are, in bytes.
const LARGEST_DOCUMENT: usize = 64 << 10;
/// Most bytes of an error that are kept.
const LONGEST_ERROR: usize = 300;

/// What an issuer is asked for.
#[derive(Debug, Clone)]
pub struct FetchRequest {
    /// The address, of the form that [`origin`] accepts.
    pub url: String,
    /// Certificates (PEM) of who may vouch for the host; empty: whom this machine trusts.
    pub authority: String,
    /// What to show there.
    pub bearer: Option<Password>,
    /// JSON to send; without it the address is only read.
    pub post: Option<Password>,
    /// Largest answer, in bytes.
    pub largest: usize,
}

/// What [`Fetch::get`] gives back.
pub type Fetched<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send + 'a>>;

/// Gets documents of issuers. Must not follow redirects, nor read more than asked for.
pub trait Fetch: Send + Sync + Debug {
    /// The body of a good answer, or what went wrong, without secrets.
    fn get(&self, request: FetchRequest) -> Fetched<'_>;
}

/// Fetches nothing, for processes that serve nobody.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoFetch;

impl Fetch for NoFetch {
    fn get(&self, _: FetchRequest) -> Fetched<'_> {
        Box::pin(async { Err("this process fetches no keys".to_owned()) })
    }
}

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The issuer publishes none of that name.
    Unknown,
    /// There are no keys at all that are fresh enough; why.
    Unreachable(String),
}

#[derive(Debug, Default)]
struct State {
    keys: KeySet,
    /// Counts sets: what was checked with another one is checked again.
    generation: u64,
    fetched_at: Option<i64>,
    tried_at: Option<i64>,
    error: Option<String>,
}

/// Keys and how they came, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// How many there are.
    pub keys: usize,
    /// When they were fetched last, in ms since 1970.
    pub fetched_at: Option<i64>,
    /// Why the last attempt failed, if it did.
    pub error: Option<String>,
}

/// The keys of one issuer.
#[derive(Debug)]
pub(crate) struct Ring {
    settings: IssuerSettings,
    bearer: Option<Password>,
    /// Which settings these are the keys of.
    pub(crate) print: String,
    state: Mutex<State>,
    /// What its cluster said of tokens, where that is asked instead of keys.
    reviews: Option<Reviews>,
    /// Whoever fetches; the others wait for what comes.
    fetching: tokio::sync::Mutex<()>,
}

/// Whether so much time has passed; a clock that was set back says that it has.
pub(super) fn passed(since: i64, now: i64, span: i64) -> bool {
    now.abs_diff(since) >= span.unsigned_abs()
}

/// As much of a reason as is kept.
pub(super) fn shortened(mut error: String) -> String {
    let end = (0..=LONGEST_ERROR)
        .rev()
        .find(|at| error.is_char_boundary(*at));
    error.truncate(end.unwrap_or(0));
    error
}

impl Ring {
    pub(crate) fn new(settings: IssuerSettings, bearer: Option<Password>, print: String) -> Self {
        let mut state = State::default();
        if let KeySource::Static(jwks) = &settings.keys {
            match KeySet::parse(jwks.as_bytes()) {
                Ok(keys) => state.keys = keys,
                Err(error) => state.error = Some(error.to_string()),
            }
        }
        let asks = matches!(settings.keys, KeySource::Review(_));
        Self {
            reviews: asks.then(Reviews::new),
            settings,
            bearer,
            print,
            state: Mutex::new(state),
            fetching: tokio::sync::Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_static(&self) -> bool {
        matches!(self.settings.keys, KeySource::Static(_))
    }

    /// How it stands.
    pub(crate) fn standing(&self) -> Standing {
        if let Some(reviews) = &self.reviews {
            return reviews.standing();
        }
        let state = self.state();
        Standing {
            keys: state.keys.len(),
            fetched_at: state.fetched_at,
            error: state.error.clone(),
        }
    }

    /// Whether it has a key of that name in hand, so that nobody is asked.
    pub(crate) fn has(&self, kid: Option<&str>, now: i64) -> bool {
        let good = self.good(now).filter(|_| !self.is_overdue(now));
        good.is_some_and(|(keys, _)| keys.find(kid).is_some())
    }

    /// What the cluster says of the token, and until when that counts; `None`: it is for us to check.
    pub(crate) async fn review(
        &self,
        jwt: &Jwt<'_>,
        now: i64,
        fetch: &Arc<dyn Fetch>,
        count: &AtomicU64,
    ) -> Option<Result<(Arc<Claims>, i64), Fault>> {
        let (Some(reviews), KeySource::Review(server)) = (&self.reviews, &self.settings.keys)
        else {
            return None;
        };
        let cluster = Cluster {
            server,
            settings: &self.settings,
            bearer: self.bearer.as_ref(),
            fetch,
            count,
        };
        Some(reviews.of(&cluster, jwt, now).await)
    }

    /// The set whose keys are good now, and its number.
    fn good(&self, now: i64) -> Option<(KeySet, u64)> {
        let state = self.state();
        let fresh = |at: i64| !passed(at, now, STALE_AFTER);
        let good = self.is_static() || state.fetched_at.is_some_and(fresh);
        (good && !state.keys.is_empty()).then(|| (state.keys.clone(), state.generation))
    }

    /// Whether the set should have been fetched anew, and an issuer that answers would have told what it takes back: who
    /// comes after a silence waits for that. While the issuer is down nobody waits twice.
    fn is_overdue(&self, now: i64) -> bool {
        let overdue = |at: i64| passed(at, now, REFRESH_AFTER + FETCH_EVERY);
        let state = self.state();
        let due = state.error.is_none() && state.fetched_at.is_some_and(overdue);
        drop(state);
        due && !self.is_static() && self.may_try(now)
    }

    /// The number of the set that is good now. Lets it be fetched anew when it is old.
    pub(crate) fn generation(
        self: &Arc<Self>,
        now: i64,
        fetch: &Arc<dyn Fetch>,
        count: &Arc<AtomicU64>,
    ) -> Option<u64> {
        if self.reviews.is_some() {
            return Some(0);
        }
        let (_, generation) = self.good(now).filter(|_| !self.is_overdue(now))?;
        self.refresh(now, fetch, count);
        Some(generation)
    }

    /// Fetches in the background what is old.
    fn refresh(self: &Arc<Self>, now: i64, fetch: &Arc<dyn Fetch>, count: &Arc<AtomicU64>) {
        let old = |at: i64| passed(at, now, REFRESH_AFTER);
        let due =
            !self.is_static() && self.state().fetched_at.is_some_and(old) && self.may_try(now);
        if due {
            let (ring, fetch, count) = (self.clone(), fetch.clone(), count.clone());
            tokio::spawn(async move { ring.fetch(now, &fetch, &count).await });
        }
    }

    fn may_try(&self, now: i64) -> bool {
        let tried = self.state().tried_at;
        tried.is_none_or(|at| passed(at, now, FETCH_EVERY))
    }

    /// The set that has a key of that name, or could have, and its number.
    pub(crate) async fn find(
        self: &Arc<Self>,
        kid: Option<&str>,
        now: i64,
        fetch: &Arc<dyn Fetch>,
        count: &Arc<AtomicU64>,
    ) -> Result<(KeySet, u64), Missing> {
        let good = self.good(now).filter(|_| !self.is_overdue(now));
        if let Some(found) = good.filter(|(keys, _)| keys.find(kid).is_some()) {
            self.refresh(now, fetch, count);
            return Ok(found);
        }
        if !self.is_static() && self.may_try(now) {
            let (ring, fetch, count) = (self.clone(), fetch.clone(), count.clone());
            // A task of its own: who goes away leaves it to the others.
            let done = tokio::spawn(async move { ring.fetch(now, &fetch, &count).await });
            let _ = done.await;
        } else if !self.is_static() {
            // Somebody may be about to bring it; each fetch ends in bounded time.
            drop(self.fetching.lock().await);
        }
        match self.good(now) {
            Some(found) if found.0.find(kid).is_some() => Ok(found),
            Some(_) => Err(Missing::Unknown),
            None => {
                let error = self.state().error.clone();
                Err(Missing::Unreachable(
                    error.unwrap_or_else(|| "they were not fetched yet".into()),
                ))
            }
        }
    }

    async fn fetch(&self, now: i64, fetch: &Arc<dyn Fetch>, count: &AtomicU64) {
        let _one = self.fetching.lock().await;
        {
            let mut state = self.state();
            if state
                .tried_at
                .is_some_and(|at| !passed(at, now, FETCH_EVERY))
            {
                return;
            }
            state.tried_at = Some(now);
        }
        count.fetch_add(1, Ordering::Relaxed);
        let fetched = self.set(fetch).await;
        let mut state = self.state();
        match fetched {
            Ok(keys) => {
                // None at all is an answer, too: it takes back those that were.
                state.error = keys.is_empty().then(|| JwksError::None.to_string());
                state.keys = keys;
                state.generation += 1;
                state.fetched_at = Some(now);
            }
            Err(error) => {
                let error = shortened(error);
                tracing::warn!(
                    issuer = self.settings.issuer,
                    error,
                    "an issuer's keys could not be fetched"
                );
                state.error = Some(error);
            }
        }
    }

    async fn set(&self, fetch: &Arc<dyn Fetch>) -> Result<KeySet, String> {
        /// What is looked at of the document (OpenID Connect Discovery §4).
        #[derive(Deserialize)]
        struct Document {
            issuer: String,
            jwks_uri: String,
        }
        let url = match &self.settings.keys {
            KeySource::Url(url) => url.clone(),
            _ => {
                let issuer = self.settings.issuer.trim_end_matches('/');
                let url = format!("{issuer}/.well-known/openid-configuration");
                let found = self.get(fetch, url, LARGEST_DOCUMENT).await?;
                let found: Document = serde_json::from_slice(&found).map_err(|_| {
                    "the discovery document is no JSON with issuer and jwks_uri".to_owned()
                })?;
                if found.issuer != self.settings.issuer {
                    return Err("the discovery document is another issuer's".to_owned());
                }
                let (own, theirs) = (origin(&self.settings.issuer)?, origin(&found.jwks_uri)?);
                if own != theirs {
                    return Err(format!(
                        "the discovery document says that the keys are on {theirs}, which is not the issuer's host; if that is right, \
                         give the keys' address (jwks_url)"
                    ));
                }
                found.jwks_uri
            }
        };
        let keys = self.get(fetch, url, LARGEST_KEYS).await?;
        match KeySet::parse(&keys) {
            Err(JwksError::None) => Ok(KeySet::default()),
            parsed => parsed.map_err(|error| error.to_string()),
        }
    }

    async fn get(
        &self,
        fetch: &Arc<dyn Fetch>,
        url: String,
        largest: usize,
    ) -> Result<Vec<u8>, String> {
        origin(&url)?;
        let request = FetchRequest {
            url,
            authority: self.settings.authority.clone(),
            bearer: self.bearer.clone(),
            post: None,
            largest,
        };
        let body = tokio::time::timeout(PATIENCE, fetch.get(request)).await;
        let body = body.map_err(|_| format!("no answer within {} s", PATIENCE.as_secs()))??;
        match body.len() > largest {
            true => Err(format!("the answer is larger than {} KiB", largest >> 10)),
            false => Ok(body),
        }
    }
}
