//! Who may do what: principals, roles, grants, passwords and tokens.
//!
//! The server asks twice per request: [`Access::authenticate`] turns credentials into a [`Caller`], and
//! [`Access::decide`] turns caller, permission and repository into a [`Decision`], before anything is looked up. Both
//! answer from memory once warm. Nothing here knows HTTP, and no secret ever reaches a log, an error or `Debug`.
//! `docs/explanation/access.md` tells the whole model.

mod admin;
mod authenticate;
mod decide;
mod grant_token;
mod htpasswd;
mod keys;
mod password;
mod policy;
mod principal;
mod role;
mod secret;
mod store;
#[cfg(test)]
mod tests;
mod token;
mod user;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use wharf_meta::Meta;
use wharf_oci::RepositoryName;

pub use admin::{AdminError, Bootstrap, PasswordTooShort};
pub use authenticate::{AuthFailure, read_authorization};
pub use decide::{Decision, INSUFFICIENT_SCOPE, INVALID_TOKEN, scope_for};
pub use grant_token::{LONGEST_SCOPES, MOST_SCOPES, Proof, TokenGrant, TokenRefusal, TokenRequest};
pub use htpasswd::{Htpasswd, HtpasswdError, Problem};
pub use password::{PasswordCounts, REMEMBERED_MS};
pub use policy::{ADMIN, Grant, GrantError, Policy, Who};
pub use principal::{ANONYMOUS, Caller, Principal, Source};
pub use role::{Permission, Permissions, Role, RoleError};
pub use secret::{Password, SHORTEST_PASSWORD};
pub use token::{LEEWAY_SECONDS, LONGEST_TOKEN, TokenCounts, TokenFault, key_name};

use htpasswd::HtpasswdFile;
use keys::Keyring;
use password::Passwords;
use store::Secrets;
use token::Tokens;
use user::Users;

/// The rights that configuration gives; can be replaced while running.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// What requests without credentials may do everywhere.
    pub anonymous: Role,
    /// What each user of the htpasswd file may do everywhere.
    pub htpasswd: Role,
    /// Everything else.
    pub grants: Vec<Grant>,
}

/// How access works, apart from the rights.
#[derive(Debug, Clone)]
pub struct AccessOptions {
    /// The rights at the start.
    pub rights: Rights,
    /// The htpasswd file, if any.
    pub htpasswd: Option<PathBuf>,
    /// The name of this registry in tokens and challenges. A change ends all tokens.
    pub service: String,
    /// Whether `docker login` may trade the password for an identity token.
    pub identity_tokens: bool,
    /// Life of a token that only reads.
    pub token_lifetime: Duration,
    /// Life of a token that may push or delete; never less than that of one that only reads (TOK-6).
    pub push_token_lifetime: Duration,
    /// How long after its end a token may still go on with its subject's own uploads (AUTH-20).
    pub upload_grace: Duration,
    /// After what time another key signs.
    pub key_rotation: Duration,
    /// How many passwords are checked at once.
    pub password_threads: usize,
    /// How many password checks may be under way, waiting ones included; more are told to come back.
    pub password_attempts: usize,
}

impl Default for AccessOptions {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            rights: Rights {
                htpasswd: Role::Writer,
                ..Rights::default()
            },
            htpasswd: None,
            service: "wharf".into(),
            identity_tokens: false,
            token_lifetime: Duration::from_secs(15 * 60),
            push_token_lifetime: Duration::from_secs(60 * 60),
            upload_grace: Duration::from_secs(6 * 60 * 60),
            key_rotation: Duration::from_secs(30 * 24 * 60 * 60),
            // Pulls must not wait for a storm of sign-ins.
            password_threads: (cores / 2).max(1),
            password_attempts: 64,
        }
    }
}

/// Access cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A grant cannot be meant.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// The htpasswd file cannot be read.
    #[error(transparent)]
    Htpasswd(#[from] HtpasswdError),
    /// The metadata store failed.
    #[error(transparent)]
    Store(#[from] crate::Error),
}

/// Everything about who may do what, for one registry. Shared by all requests.
#[derive(Debug)]
pub struct Access {
    policy: ArcSwap<Policy>,
    secrets: Arc<dyn Secrets>,
    users: Users,
    passwords: Passwords,
    tokens: Tokens,
    identity_tokens: bool,
    token_seconds: i64,
    push_token_seconds: i64,
    /// In ms.
    upload_grace: i64,
}

impl Access {
    /// Opens access over the rows of `meta`. `now` in ms since 1970.
    pub async fn open(options: AccessOptions, meta: Meta, now: i64) -> Result<Self, AccessError> {
        Self::with_secrets(options, Arc::new(meta), now).await
    }

    async fn with_secrets(
        options: AccessOptions,
        secrets: Arc<dyn Secrets>,
        now: i64,
    ) -> Result<Self, AccessError> {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4);
        let policy = compile(&options.rights)?;
        let htpasswd = match options.htpasswd {
            None => None,
            Some(path) => Some(blocking(move || HtpasswdFile::open(&path)).await??),
        };
        let token_lifetime = options.token_lifetime.max(Duration::from_secs(60));
        let push_token_lifetime = options.push_token_lifetime.max(token_lifetime);
        let overlap =
            ms(push_token_lifetime) + ms(options.upload_grace) + 2 * LEEWAY_SECONDS * 1_000;
        let rotation = ms(options.key_rotation).max(60_000);
        let keys = Keyring::open(secrets.clone(), rotation, overlap, now).await?;
        Ok(Self {
            policy: ArcSwap::from_pointee(policy),
            users: Users::new(secrets.clone(), htpasswd.map(Arc::new)),
            secrets,
            passwords: Passwords::new(options.password_threads, options.password_attempts),
            tokens: Tokens::new(options.service, keys),
            identity_tokens: options.identity_tokens,
            token_seconds: ms(token_lifetime) / 1_000,
            push_token_seconds: ms(push_token_lifetime) / 1_000,
            upload_grace: ms(options.upload_grace),
        })
    }

    /// Puts other rights in force, from the next request on, for tokens already issued too.
    pub fn reload(&self, rights: &Rights) -> Result<(), GrantError> {
        self.policy.store(Arc::new(compile(rights)?));
        Ok(())
    }

    /// The name of this registry in tokens and challenges.
    pub fn service(&self) -> &str {
        self.tokens.service()
    }

    /// What the htpasswd file said when it was last in order, if there is one.
    pub fn htpasswd(&self) -> Option<Arc<Htpasswd>> {
        self.users.htpasswd().map(|file| file.content())
    }

    /// Whom grants name though no such user can sign in now; a typing error, or somebody still to come.
    pub async fn unknown_grantees(&self) -> crate::Result<Vec<String>> {
        let policy = self.policy();
        let mut unknown = Vec::new();
        for name in policy.grantees() {
            if self.users.find(name).await?.is_none() {
                unknown.push(name.to_owned());
            }
        }
        unknown.sort_unstable();
        Ok(unknown)
    }

    /// [`Policy::allow`] as of this moment.
    pub fn allow(
        &self,
        principal: &Principal,
        permission: Permission,
        repository: Option<&RepositoryName>,
    ) -> bool {
        self.policy.load().allow(principal, permission, repository)
    }

    /// [`Policy::prefixes_for`] as of this moment.
    pub fn prefixes_for(
        &self,
        principal: &Principal,
        permission: Permission,
    ) -> Option<Vec<String>> {
        self.policy.load().prefixes_for(principal, permission)
    }

    /// [`Policy::decide`] as of this moment.
    pub fn decide(
        &self,
        caller: &Caller,
        permission: Permission,
        repository: Option<&RepositoryName>,
    ) -> Decision {
        self.policy.load().decide(caller, permission, repository)
    }

    /// [`Policy::decide_ping`] as of this moment.
    pub fn decide_ping(&self, caller: &Caller) -> Decision {
        self.policy.load().decide_ping(caller)
    }

    /// [`Policy::decide_upload`] as of this moment.
    pub fn decide_upload(
        &self,
        caller: &Caller,
        owner: &str,
        repository: &RepositoryName,
    ) -> Decision {
        self.policy.load().decide_upload(caller, owner, repository)
    }

    /// Looks after the htpasswd file and the signing key. `app` calls it about once a second; it costs one `stat`.
    pub async fn upkeep(&self, now: i64) -> crate::Result<()> {
        if let Some(file) = self.users.htpasswd().cloned() {
            blocking(move || file.poll()).await?;
        }
        self.tokens.keys.upkeep(now).await
    }

    /// How checking passwords went, for metrics.
    pub fn password_counts(&self) -> PasswordCounts {
        self.passwords.counts()
    }

    /// How reading tokens went, for metrics.
    pub fn token_counts(&self) -> TokenCounts {
        self.tokens.counts()
    }
}

fn compile(rights: &Rights) -> Result<Policy, GrantError> {
    Policy::new(rights.anonymous, rights.htpasswd, &rights.grants)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> crate::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| crate::Error::Internal(format!("a background task ended early: {error}")))
}
