//! Who may do what: principals, roles, grants, passwords and tokens.
//!
//! The server asks twice per request: [`Access::authenticate`] turns credentials into a [`Caller`], and
//! [`Access::decide`] turns caller, permission and repository into a [`Decision`], before anything is looked up. Both
//! answer from memory once warm. Nothing here knows HTTP, and no secret ever reaches a log, an error or `Debug`.
//! `docs/explanation/access.md` tells the whole model.

mod admin;
mod apply;
mod aside;
mod authenticate;
mod backoff;
mod binding;
mod certificate;
mod change;
mod compile;
mod compiled;
mod credential;
mod decide;
mod elsewhere;
mod explain;
mod grant_token;
mod htpasswd;
mod keys;
mod load;
mod machine_secret;
mod named;
mod narrow;
mod network;
mod password;
mod password_rules;
mod policy;
mod principal;
mod rate;
mod role;
mod seal;
mod secret;
mod store;
mod table;
mod tag_view;
mod terminal;
#[cfg(test)]
mod tests;
mod token;
mod user;
mod version;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use wharf_meta::Meta;
use wharf_oci::RepositoryName;

use crate::clock::{Clock, SystemClock};
use crate::directory::Directories;
use crate::oidc::{NoWeb, OidcSettings, People, Web};
use crate::session::SessionRules;
use crate::terminal::TerminalRules;
use crate::workload::{Fetch, NoFetch, Workloads};

pub use admin::{AdminError, Bootstrap};
pub use apply::{
    Act, Applied, ApplyError, MOST_STEPS, Plan, Step, Wanted, WantedIssuer, WantedRule, carry_out,
    export, plan,
};
pub use authenticate::{AuthFailure, Presented, read_authorization};
pub use binding::{
    Binding, Conditions, MOST_NETWORKS, Origin, PatternError, SIGNED_IN, Subject, SubjectError,
    TagPattern, Tags, Unmet, is_word,
};
pub use certificate::{Certificate, CertificateFault, CertificateUser, MOST_NAMES, NameKind};
pub use change::{Change, ChangeError, Changer, Granting, OPERATOR};
pub use credential::{ScopeError, parse_scope};
pub use decide::{Decision, INSUFFICIENT_SCOPE, INVALID_TOKEN, scope_for};
pub use explain::{Barred, Explanation};
pub use grant_token::{LONGEST_SCOPES, MOST_SCOPES, Proof, TokenGrant, TokenRefusal, TokenRequest};
pub use htpasswd::{Htpasswd, HtpasswdError, Problem};
pub use load::{Visibility, VisibilityError};
pub use narrow::Narrow;
pub(crate) use network::one_client;
pub use network::{Network, NetworkError, Networks};
pub use password::{PasswordCounts, REMEMBERED_MS};
pub use password_rules::{LONGEST_PASSWORD, PasswordRule, check_password};
pub use policy::{ADMIN, Grant, GrantError, Policy, Who, split_robot_name, usual_tags};
pub use principal::{ANONYMOUS, Caller, Circumstances, Principal, SignIn, Source};
pub use rate::{Limited, MOST_BUCKETS, Meter, Per, Rate, RateKind, RateOverride, RateRules};
pub use role::{Permission, PermissionError, Permissions, Role, RoleError};
pub use seal::{KEY_CURE, OtherKey, SecretKeys, SecretKeysError, forget as forget_secrets};
pub use secret::{Password, SHORTEST_PASSWORD};
pub(crate) use secret::{fingerprint, random_bytes};
pub use tag_view::TagView;
pub use token::{LEEWAY_SECONDS, LONGEST_TOKEN, TokenCounts, TokenFault, key_name};
pub use version::{Holder, Set, Shown, namespace_version, role_version};

use backoff::Backoff;
pub(crate) use binding::check_word;
use compiled::Compiled;
use credential::Credentials;
pub(crate) use credential::{ROBOT, write_scopes};
use htpasswd::HtpasswdFile;
use keys::Keyring;
pub(crate) use machine_secret::{
    Form, SecretKind, family_of, form, is_secret, new_secret, next_secret,
};
pub(crate) use policy::check_user_name;
pub(crate) use secret::{hash_secret, random_id};

use password::Passwords;
use rate::Rates;
use store::Secrets;
use tag_view::Places;
pub(crate) use tag_view::after;
use terminal::Terminals;
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
    /// Who tells of people from outside. A reload leaves these as they are.
    pub providers: Vec<Provider>,
}

/// A group, and who is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupView {
    /// Its name.
    pub name: String,
    /// Whom somebody put into it.
    pub members: Vec<String>,
    /// The groups of providers that lead to it, `<provider>:<group>`.
    pub sources: Vec<String>,
    /// Whom these lead to it.
    pub outside: Vec<String>,
}

/// Who tells of people from outside, as far as rights are concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Provider {
    /// The name of its section in the configuration.
    pub name: String,
    /// Who vouches for its accounts; empty where it has only itself.
    pub issuer: String,
    /// Who is in this group of it is administrator.
    pub admin_group: Option<String>,
    /// Where the configuration says so.
    pub section: &'static str,
}

impl Provider {
    /// The group that stands for the administrators it names. No group that somebody makes can have a colon.
    fn admins(&self) -> Option<String> {
        let group = self.admin_group.as_ref()?;
        Some(format!("{}:{group}", self.name))
    }
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
    /// Longest life of robots, their secrets and API tokens.
    pub longest_lifetime: Duration,
    /// After what time another key signs.
    pub key_rotation: Duration,
    /// How many passwords are checked at once.
    pub password_threads: usize,
    /// How many password checks may be under way, waiting ones included; more are told to come back.
    pub password_attempts: usize,
    /// Whose certificates are users'.
    pub certificates: Vec<CertificateUser>,
    /// How often clients may ask.
    pub rates: RateRules,
    /// Whose steady time rates go by.
    pub clock: Arc<dyn Clock>,
    /// What gets the keys of issuers whose tokens machines sign in with.
    pub fetch: Arc<dyn Fetch>,
    /// Providers with which people sign in.
    pub oidc: Vec<OidcSettings>,
    /// What asks them.
    pub web: Arc<dyn Web>,
    /// How long sessions are good.
    pub sessions: SessionRules,
    /// How long terminals are good.
    pub terminals: TerminalRules,
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
            longest_lifetime: Duration::from_secs(365 * 24 * 60 * 60),
            key_rotation: Duration::from_secs(30 * 24 * 60 * 60),
            // Pulls must not wait for a storm of sign-ins.
            password_threads: (cores / 2).max(1),
            password_attempts: 64,
            certificates: Vec::new(),
            rates: RateRules::default(),
            clock: Arc::new(SystemClock),
            fetch: Arc::new(NoFetch),
            oidc: Vec::new(),
            web: Arc::new(NoWeb),
            sessions: SessionRules::default(),
            terminals: TerminalRules::default(),
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
    /// The secrets in the database need another key.
    #[error(transparent)]
    Key(#[from] OtherKey),
    /// The metadata store failed.
    #[error(transparent)]
    Store(#[from] crate::Error),
}

/// Everything about who may do what, for one registry. Shared by all requests.
#[derive(Debug)]
pub struct Access {
    pub(crate) rights: Compiled,
    secrets: Arc<dyn Secrets>,
    users: Users,
    passwords: Passwords,
    backoff: Backoff,
    credentials: Credentials,
    terminals: Terminals,
    codes: aws_lc_rs::hmac::Key,
    rates: Arc<Rates>,
    tokens: Tokens,
    pub(crate) workloads: Arc<Workloads>,
    directories: Directories,
    certificates: ArcSwap<Vec<CertificateUser>>,
    pub(crate) people: People,
    sessions: SessionRules,
    terminal_rules: TerminalRules,
    pub(crate) log_keys: crate::audit::LogKeys,
    pub(crate) places: Places,
    identity_tokens: bool,
    token_seconds: i64,
    push_token_seconds: i64,
    /// In ms.
    upload_grace: i64,
    /// In ms.
    longest_lifetime: i64,
    /// The htpasswd file was read again, and nobody has asked since.
    file_read: AtomicBool,
}

impl Access {
    /// Opens access over the rows of `meta`, whose secrets the keys open. `now` in ms since 1970.
    pub async fn open(
        options: AccessOptions,
        keys: SecretKeys,
        meta: Meta,
        now: i64,
    ) -> Result<Self, AccessError> {
        seal::settle(&meta, &keys).await?;
        let mut access = Self::with_secrets(options, keys, Arc::new(meta.clone()), now).await?;
        access.rights.keep_in(meta);
        access.rights.read_with(access.workloads.clone());
        access.rights.refresh().await?;
        Ok(access)
    }

    async fn with_secrets(
        options: AccessOptions,
        sealing: SecretKeys,
        secrets: Arc<dyn Secrets>,
        now: i64,
    ) -> Result<Self, AccessError> {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4);
        let rights = Compiled::new(&options.rights)?;
        let htpasswd = match options.htpasswd {
            None => None,
            Some(path) => Some(blocking(move || HtpasswdFile::open(&path)).await??),
        };
        let token_lifetime = options.token_lifetime.max(Duration::from_secs(60));
        let push_token_lifetime = options.push_token_lifetime.max(token_lifetime);
        let overlap =
            ms(push_token_lifetime) + ms(options.upload_grace) + 2 * LEEWAY_SECONDS * 1_000;
        let rotation = ms(options.key_rotation).max(60_000);
        let log_keys = crate::audit::LogKeys::new(sealing.of_log());
        let places = sealing.of_places();
        let unknown = sealing.of_unknown();
        let codes = sealing.of_codes();
        let sealing = Arc::new(sealing);
        let workloads = Workloads::new(sealing.clone(), options.fetch.clone());
        let people = People::new(options.oidc, sealing.clone(), options.web, options.fetch);
        let keys = Keyring::open(secrets.clone(), sealing, rotation, overlap, now).await?;
        Ok(Self {
            rights,
            users: Users::new(secrets.clone(), htpasswd.map(Arc::new), unknown),
            credentials: Credentials::new(secrets.clone()),
            terminals: Terminals::new(secrets.clone()),
            codes,
            backoff: Backoff::new(),
            rates: Arc::new(Rates::new(options.rates, options.clock)),
            secrets,
            passwords: Passwords::new(options.password_threads, options.password_attempts)?,
            tokens: Tokens::new(options.service, keys),
            workloads: Arc::new(workloads),
            people,
            sessions: options.sessions,
            terminal_rules: options.terminals,
            directories: Directories::default(),
            certificates: ArcSwap::from_pointee(options.certificates),
            log_keys,
            places,
            identity_tokens: options.identity_tokens,
            token_seconds: ms(token_lifetime) / 1_000,
            push_token_seconds: ms(push_token_lifetime) / 1_000,
            upload_grace: ms(options.upload_grace),
            longest_lifetime: ms(options.longest_lifetime),
            file_read: AtomicBool::new(false),
        })
    }

    /// Puts other rights in force, from the next request on, for tokens already issued too.
    pub fn reload(&self, rights: &Rights) -> Result<(), GrantError> {
        self.rights.configure(rights)
    }

    /// Puts other rates in force, from the next request on.
    pub fn limit(&self, rules: RateRules) {
        self.rates.configure(rules);
    }

    /// Counts one request of a client, or refuses it; `request` are parts that tell it from others. To be called before anything
    /// is looked up, and with the repository only if the caller may do there what it asks for: whether some rule is about a
    /// repository is nothing to those who may not see it.
    pub fn admit(
        &self,
        kind: RateKind,
        caller: &Caller,
        repository: Option<&RepositoryName>,
        request: &[&[u8]],
    ) -> Result<(), Limited> {
        let policy = self.rights.load();
        self.rates.take(kind, &policy, caller, repository, request)
    }

    /// Counts one guess at a secret that is no user's, as one password from that address.
    pub fn admit_guess(&self, address: Option<std::net::IpAddr>) -> Result<(), Limited> {
        self.rates.sign_in(address)
    }

    /// What counts the bytes of a request that was let in; `None` if nobody asked for that.
    pub fn meter(&self, caller: &Caller, repository: Option<&RepositoryName>) -> Option<Meter> {
        let policy = self.rights.load();
        self.rates.meter(&policy, caller, repository)
    }

    /// How many requests were refused by rates, by kind, for metrics.
    pub fn limited_counts(&self) -> Vec<(&'static str, u64)> {
        self.rates.refused()
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

    /// All groups, by name.
    pub fn groups(&self) -> Vec<GroupView> {
        let policy = self.policy();
        let groups = policy.groups.iter();
        let groups = groups.filter_map(|(name, _)| policy.group_view(name));
        let mut groups: Vec<GroupView> = groups.collect();
        groups.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        groups
    }

    /// Who tells of people from outside.
    pub fn providers(&self) -> Vec<Provider> {
        self.rights.providers()
    }

    /// All namespaces that have settings, by path.
    pub fn namespaces(&self) -> Vec<(String, Visibility)> {
        self.rights.load().namespaces()
    }

    /// All roles beside those that are built in, by name.
    pub fn roles(&self) -> Vec<(String, Permissions)> {
        self.rights.load().roles.to_vec()
    }

    /// Where a user of that name is kept, if there is one.
    pub async fn source_of(&self, name: &str) -> crate::Result<Option<Source>> {
        let user = self.users.find(name).await?;
        Ok(user.and_then(|user| match user.principal() {
            Principal::User { source, .. } => Some(source),
            _ => None,
        }))
    }

    /// Whether the htpasswd file was read again since this was asked last, for the audit log.
    pub fn took_file(&self) -> bool {
        self.file_read.swap(false, Ordering::Relaxed)
    }

    /// [`Policy::allow`] as of this moment.
    pub fn allow(
        &self,
        caller: &Caller,
        permission: Permission,
        repository: Option<&RepositoryName>,
    ) -> bool {
        self.rights.load().allow(caller, permission, repository)
    }

    /// [`Policy::prefixes_for`] as of this moment.
    pub fn prefixes_for(&self, caller: &Caller, permission: Permission) -> Option<Vec<String>> {
        self.rights.load().prefixes_for(caller, permission)
    }

    /// [`Policy::decide`] as of this moment.
    pub fn decide(
        &self,
        caller: &Caller,
        permission: Permission,
        repository: Option<&RepositoryName>,
    ) -> Decision {
        self.rights.load().decide(caller, permission, repository)
    }

    /// [`Policy::decide_tags`] as of this moment.
    pub fn decide_tags(
        &self,
        caller: &Caller,
        permission: Permission,
        repository: Option<&RepositoryName>,
        tags: Tags<'_>,
    ) -> Decision {
        let policy = self.rights.load();
        policy.decide_tags(caller, permission, repository, tags)
    }

    /// [`Policy::tag_view`] as of this moment.
    pub fn tag_view(
        &self,
        caller: &Caller,
        permission: Permission,
        repository: &RepositoryName,
    ) -> TagView {
        self.rights.load().tag_view(caller, permission, repository)
    }

    /// [`Policy::decide_ping`] as of this moment.
    pub fn decide_ping(&self, caller: &Caller) -> Decision {
        self.rights.load().decide_ping(caller)
    }

    /// [`Policy::decide_upload`] as of this moment.
    pub fn decide_upload(
        &self,
        caller: &Caller,
        owner: &str,
        repository: &RepositoryName,
    ) -> Decision {
        self.rights.load().decide_upload(caller, owner, repository)
    }

    /// Looks after the rights that others change, the htpasswd file and the signing key. `app` calls it about once a second; it costs
    /// one `stat`, and one row where replicas share the metadata.
    pub async fn upkeep(&self, now: i64) -> crate::Result<()> {
        if let Some(file) = self.users.htpasswd().cloned()
            && blocking(move || file.poll()).await?
        {
            self.file_read.store(true, Ordering::Relaxed);
        }
        self.rights.follow().await?;
        self.tokens.keys.upkeep(now).await?;
        Ok(())
    }

    /// Forgets credentials that ended before a time.
    pub(crate) async fn forget_credentials(&self, before: i64) -> crate::Result<()> {
        while self.secrets.forget_credentials(before).await? > 0 {}
        Ok(())
    }

    /// Takes what others changed until now, so that whoever changes rights at one replica finds them so at the next. Costs one row
    /// where replicas share the metadata, and nothing elsewhere.
    pub async fn follow(&self) -> crate::Result<()> {
        self.rights.follow().await
    }

    /// To be called after a principal or a credential was made, changed or removed by this process: it counts from the next
    /// request on. Others find out by themselves, within a few seconds.
    pub(crate) fn forget(&self, name: &str) {
        self.users.forget(name);
        self.credentials.forget();
        self.forget_terminal(None);
    }

    /// The longest life of robots, their secrets and API tokens, in ms.
    pub fn longest_lifetime(&self) -> i64 {
        self.longest_lifetime
    }

    /// A password as it is kept.
    pub(crate) async fn hash_password(&self, password: &Password) -> crate::Result<String> {
        self.passwords.hash(password).await
    }

    /// Where the user of that name is kept, who is no robot and not locked out.
    pub(crate) async fn user_source(&self, name: &str) -> crate::Result<Option<Source>> {
        let user = self.users.find(name).await?;
        Ok(user
            .filter(|user| !user.is_locked_out())
            .and_then(|user| user.source()))
    }

    /// Where the user of that name is kept, who is neither locked out nor gone, and what names the password.
    pub(crate) async fn user_standing(
        &self,
        name: &str,
    ) -> crate::Result<Option<(Source, Arc<str>)>> {
        let user = self.users.find(name).await?;
        let Some(user) = user.filter(|user| !user.is_locked_out()) else {
            return Ok(None);
        };
        if self.is_lost(&user).await? {
            return Ok(None);
        }
        let source = user.source();
        Ok(source.map(|source| (source, user.credential().clone())))
    }

    /// Providers with which people sign in.
    pub fn people(&self) -> &People {
        &self.people
    }

    /// How long sessions are good.
    pub fn session_rules(&self) -> SessionRules {
        self.sessions
    }

    /// How long terminals are good.
    pub fn terminal_rules(&self) -> TerminalRules {
        self.terminal_rules
    }

    /// Seals what a session can ask its provider with.
    pub(crate) fn seal_refresh(&self, session: &str, token: &Password) -> crate::Result<Vec<u8>> {
        self.people.seal_refresh(session, token)
    }

    /// Whether something waits for whoever is called so.
    pub(crate) fn is_granted(&self, name: &str) -> bool {
        let (policy, user) = (self.policy(), Subject::User(name.to_owned()));
        policy.bindings_to(&user).next().is_some() || !policy.groups_of(&user).is_empty()
    }

    /// How checking passwords went, for metrics.
    pub fn password_counts(&self) -> PasswordCounts {
        self.passwords.counts()
    }

    /// The directories that people sign in with.
    pub fn directories(&self) -> &Directories {
        &self.directories
    }

    /// Whose tokens machines sign in with, and how.
    pub fn workloads(&self) -> &Workloads {
        &self.workloads
    }

    /// How reading tokens went, for metrics.
    pub fn token_counts(&self) -> TokenCounts {
        self.tokens.counts()
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> crate::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| crate::Error::Internal(format!("a background task ended early: {error}")))
}
