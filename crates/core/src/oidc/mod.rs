//! People sign in with an account of an OpenID provider: the authorization code flow with PKCE (OIDC-5).
//!
//! [`start`] sends the browser to the provider with a secret that only that browser can bring back, sealed in a cookie; nothing is kept
//! here meanwhile. [`finish`] takes what came back, trades the code and believes the ID token: signature, `iss`, `aud`, `azp`, times and
//! nonce, in this order. Who that is here is [`crate::identity::arrive`]'s to say. [`check()`] asks providers from time to time whether
//! the accounts of sessions are still there; [`leave`] and [`heard`] are for signing out. Nothing here knows HTTP: providers are asked through [`Web`], with bounds on time and size.

mod check;
#[cfg(test)]
mod check_tests;
mod flow;
mod id_token;
mod logout;
#[cfg(test)]
mod logout_tests;
mod provider;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

pub use self::check::check;
pub use self::flow::{Answer, Arrived, FLOW_MS, Started, finish, start};
pub use self::logout::{Leaving, heard, leave, left};
pub use self::provider::{Checked, look};

use self::provider::Provider;
use crate::access::{Password, SecretKeys};
use crate::workload::{Fetch, Pattern};

/// So long may a provider take for one answer.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// Largest answer of a provider, in bytes.
pub const LARGEST_ANSWER: usize = 256 << 10;

/// A provider as the configuration has it.
#[derive(Debug, Clone)]
pub struct OidcSettings {
    /// Its name.
    pub name: String,
    /// What people see.
    pub title: String,
    /// `iss`, letter by letter.
    pub issuer: String,
    /// What we are called there.
    pub client_id: String,
    /// What we show there; `None`: nothing but the proof of PKCE.
    pub client_secret: Option<Password>,
    /// What is asked for; empty: what is usual, as far as the provider knows it.
    pub scopes: Vec<String>,
    /// What it is asked to do in any case.
    pub prompt: Option<String>,
    /// Where the name of a new user is.
    pub username_claim: String,
    /// Where groups are.
    pub groups_claim: String,
    /// Always taken notice of.
    pub admin_group: Option<String>,
    /// Groups that are taken notice of; empty: all.
    pub group_filter: Vec<Pattern>,
    /// Whether users are made for whoever comes.
    pub onboards: bool,
    /// Whether who signs out here is sent there to sign out as well.
    pub leaves: bool,
    /// Certificates (PEM) of who may vouch for its host; empty: whom this machine trusts.
    pub authority: String,
}

/// What a provider is asked.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The address.
    pub url: String,
    /// Certificates (PEM) of who may vouch for the host; empty: whom this machine trusts.
    pub authority: String,
    /// Fields to send by POST; `None`: a GET. They may be secrets.
    pub form: Option<Form>,
    /// Shown as user and password.
    pub basic: Option<(String, Password)>,
    /// Shown as a bearer token.
    pub bearer: Option<Password>,
}

/// Fields of a form, without `Debug` of what they hold.
#[derive(Clone)]
pub struct Form(pub Vec<(&'static str, String)>);

impl Debug for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.0.iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}

/// What [`Web::ask`] gives back: status and body, or what went wrong, without secrets.
pub type Asked<'a> = Pin<Box<dyn Future<Output = Result<(u16, Vec<u8>), String>> + Send + 'a>>;

/// Asks providers. Must not follow redirects, nor read more than [`LARGEST_ANSWER`].
pub trait Web: Send + Sync + Debug {
    /// One request.
    fn ask(&self, ask: Ask) -> Asked<'_>;
}

/// Asks nobody, for processes that serve nobody.
#[derive(Debug, Default, Clone, Copy)]
pub struct NoWeb;

impl Web for NoWeb {
    fn ask(&self, _: Ask) -> Asked<'_> {
        Box::pin(async { Err("this process asks no providers".to_owned()) })
    }
}

/// Why somebody does not get in. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// There is no such provider.
    #[error("there is no provider of that name here; go back to the sign-in page and choose one")]
    Unknown,
    /// The provider does not answer, or not as it should. The text is for whoever runs the registry.
    #[error(
        "the provider {provider} cannot be used now; try again in a moment, or tell whoever runs this registry"
    )]
    Provider {
        /// Its name.
        provider: String,
        /// What is wrong.
        reason: String,
    },
    /// What came back does not belong to what this browser began.
    #[error(
        "this sign-in was not begun in this browser, or too long ago; begin anew on the sign-in page"
    )]
    Flow(&'static str),
    /// The provider says no.
    #[error("the provider {provider} did not let you in: {reason}")]
    Refused {
        /// Its name.
        provider: String,
        /// In its words, in plain text.
        reason: String,
    },
    /// What the provider says proves nothing.
    #[error(
        "the provider {provider} sent a proof that is not good here; tell whoever runs this registry"
    )]
    Proof {
        /// Its name.
        provider: String,
        /// What is wrong.
        reason: String,
    },
    /// The account is nobody's here.
    #[error(transparent)]
    Arrive(#[from] crate::identity::ArriveError),
    /// The metadata store failed.
    #[error(transparent)]
    Store(#[from] crate::Error),
}

/// All providers of one registry.
#[derive(Debug)]
pub struct People {
    providers: Vec<Arc<Provider>>,
    sealing: Arc<SecretKeys>,
    web: Arc<dyn Web>,
    fetch: Arc<dyn Fetch>,
    fetches: Arc<AtomicU64>,
}

impl People {
    pub(crate) fn new(
        settings: Vec<OidcSettings>,
        sealing: Arc<SecretKeys>,
        web: Arc<dyn Web>,
        fetch: Arc<dyn Fetch>,
    ) -> Self {
        let providers = settings.into_iter().map(Provider::new).map(Arc::new);
        Self {
            providers: providers.collect(),
            sealing,
            web,
            fetch,
            fetches: Arc::default(),
        }
    }

    /// Names of the providers and what people see, in the order of the configuration.
    pub fn names(&self) -> Vec<(String, String)> {
        let all = self.providers.iter().map(|one| &one.settings);
        all.map(|one| (one.name.clone(), one.title.clone()))
            .collect()
    }

    fn provider(&self, name: &str) -> Result<&Arc<Provider>, OidcError> {
        let mut all = self.providers.iter();
        all.find(|one| one.settings.name == name)
            .ok_or(OidcError::Unknown)
    }

    /// Seals what a session can ask its provider with.
    pub(crate) fn seal_refresh(&self, session: &str, token: &Password) -> crate::Result<Vec<u8>> {
        let purpose = format!("session/{session}");
        self.sealing.seal(&purpose, token.reveal().as_bytes())
    }

    /// The same of one that an earlier key sealed, which may soon be away; `None`: it is sealed with the first.
    fn seal_anew(
        &self,
        session: &str,
        kept: Option<&[u8]>,
        token: &Password,
    ) -> crate::Result<Option<Vec<u8>>> {
        if kept.is_some_and(|kept| self.sealing.is_sealed_now(kept)) {
            return Ok(None);
        }
        self.seal_refresh(session, token).map(Some)
    }

    fn open_refresh(&self, session: &str, kept: &[u8]) -> Option<Password> {
        let purpose = format!("session/{session}");
        let text = self.sealing.open_sealed(&purpose, kept)?;
        String::from_utf8(text).ok().map(Password::new)
    }
}
