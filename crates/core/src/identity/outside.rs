//! People from outside: whose account at a provider is which user here.
//!
//! Called by whatever lets people in by OIDC or LDAP, once the provider has said who it is. An account is known by its provider and
//! the subject that stays, and by nothing that somebody could choose or get from another: a wished name decides only what a new user
//! is called, and only where it is free and nothing waits for it.

use std::collections::BTreeMap;

use wharf_meta::access::By;
use wharf_meta::access::account::{self, Arrived, Linked};
use wharf_meta::principal as meta_principal;

pub use wharf_meta::access::account::{AccountRow, MOST_ACCOUNTS, MOST_GROUPS};

use super::user::{administers, check_new_name, local};
use super::{IdentityError, Result};
use crate::access::{Change, ChangeError, Changer, OPERATOR, Principal, SIGNED_IN, Source};
use crate::error::Error;
use crate::registry::Registry;

/// Longest name of a provider's group, in bytes: nobody can name a longer one, so it gives nothing.
pub const LONGEST_GROUP: usize = 256;
/// Longest subject, in bytes.
pub const LONGEST_SUBJECT: usize = 255;
/// When an account was seen is noted so often, in ms.
const SEEN_EVERY: u64 = 60 * 60 * 1_000;
/// How often a change is tried again that others were in the way of.
const ATTEMPTS: u32 = 20;

/// What a provider says of somebody who signed in there.
#[derive(Debug, Clone, Default)]
pub struct Arrival {
    /// The name of the provider's section in the configuration.
    pub provider: String,
    /// Who vouches for the account: the `iss` of its tokens. Empty where the provider has only itself.
    pub issuer: String,
    /// What the provider calls the account for good.
    pub subject: String,
    /// What a new user is called; `None`: only accounts that an administrator linked are let in.
    pub wished: Option<String>,
    /// The groups that the account is in, in any order.
    pub groups: Vec<String>,
}

/// Why somebody from outside is not let in.
#[derive(Debug, thiserror::Error)]
pub enum ArriveError {
    /// The account is nobody's here, and no user is made for it.
    #[error("{0}")]
    NotLinked(String),
    /// The name is somebody's, or something waits for who gets it.
    #[error("{0}")]
    Taken(String),
    /// The user is locked out.
    #[error("{0}")]
    Locked(String),
    /// What the provider says cannot be.
    #[error("{0}")]
    Wrong(String),
    /// The metadata store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl From<wharf_meta::Error> for ArriveError {
    fn from(error: wharf_meta::Error) -> Self {
        Self::Store(error.into())
    }
}

/// The user as whom somebody from outside is here from now on. Notes what was told of groups; where nothing is new, nothing is
/// written.
pub async fn arrive(registry: &Registry, arrival: &Arrival) -> Result<Principal, ArriveError> {
    let Arrival {
        provider, subject, ..
    } = arrival;
    if let Err(reason) = check_subject(subject) {
        let text = format!("the provider {provider} tells a subject that cannot be: {reason}");
        return Err(ArriveError::Wrong(text));
    }
    let groups = told(arrival)?;
    let now = registry.clock.now_ms();
    let get = account::Get {
        provider: provider.clone(),
        subject: subject.clone(),
    };
    let known = registry.meta.read(get).await?;
    if let Some(account) = &known
        && account.issuer == arrival.issuer
        && account.groups == groups
        && now.abs_diff(account.seen_at) < SEEN_EVERY
        && is_good(registry, account).await?
    {
        return Ok(local(&account.user));
    }
    let wished = arrival.wished.as_deref().filter(|_| known.is_none());
    if let Some(name) = wished {
        is_free(registry, arrival, name).await?;
    }
    let providers = registry.access.providers();
    let own = providers.into_iter().filter(|one| one.name == *provider);
    let arrive = account::Arrive {
        provider: provider.clone(),
        subject: subject.clone(),
        issuer: arrival.issuer.clone(),
        wished: wished.map(str::to_owned),
        groups,
        telling: own.filter_map(|one| one.admin_group).collect(),
        at: now,
    };
    let name = match registry.meta.write(arrive).await? {
        Arrived::Known(name) => name,
        Arrived::New(name) => {
            tracing::info!(user = name, provider, "a user came from outside");
            name
        }
        refused => {
            registry.access.rights.refresh().await?;
            return Err(refusal(refused, arrival, wished));
        }
    };
    registry.access.forget(&name);
    registry.access.rights.refresh().await?;
    Ok(local(&name))
}

/// A provider says that it has no such account any more, or none that may come: it is in no group of it from now on.
pub async fn depart(registry: &Registry, provider: &str, subject: &str) -> Result<(), ArriveError> {
    let get = account::Get {
        provider: provider.to_owned(),
        subject: subject.to_owned(),
    };
    let Some(known) = registry.meta.read(get).await? else {
        return Ok(());
    };
    let gone = Arrival {
        provider: known.provider,
        issuer: known.issuer,
        subject: known.subject,
        ..Arrival::default()
    };
    match arrive(registry, &gone).await {
        Ok(_) | Err(ArriveError::NotLinked(_) | ArriveError::Locked(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether the account's user is there, the same as when it was linked, and not locked out.
async fn is_good(registry: &Registry, account: &AccountRow) -> Result<bool, ArriveError> {
    let get = meta_principal::Get {
        name: account.user.clone(),
    };
    let row = registry.meta.read(get).await?;
    Ok(row.is_some_and(|row| {
        row.kind == "user" && row.disabled_at.is_none() && row.created_at <= account.created_at
    }))
}

/// The groups as they are kept: sorted, each once. A name that is too long or cannot be written gives nothing, since no source can say
/// it.
fn told(arrival: &Arrival) -> Result<Vec<String>, ArriveError> {
    let fits = |name: &&String| {
        !name.is_empty() && name.len() <= LONGEST_GROUP && !name.chars().any(char::is_control)
    };
    let mut groups: Vec<String> = arrival.groups.iter().filter(fits).cloned().collect();
    groups.sort_unstable();
    groups.dedup();
    if groups.len() > MOST_GROUPS as usize {
        return Err(ArriveError::Wrong(format!(
            "the provider {} says that this account is in {} groups, and {MOST_GROUPS} is the most; an administrator can choose those \
             that count with group_filter in its section of the configuration",
            arrival.provider,
            groups.len()
        )));
    }
    Ok(groups)
}

fn check_subject(subject: &str) -> Result<(), &'static str> {
    match subject {
        "" => Err("it is empty"),
        text if text.len() > LONGEST_SUBJECT => Err("it is longer than 255 bytes"),
        text if text.chars().any(char::is_control) => Err("it holds a control character"),
        _ => Ok(()),
    }
}

/// How an administrator says that it is meant.
fn way_out(arrival: &Arrival) -> String {
    format!(
        "an administrator can say which user it is: wharf user link NAME --provider {} --subject '{}'",
        arrival.provider, arrival.subject
    )
}

/// Whether a new user may be called so, as far as that is known before it is made.
async fn is_free(registry: &Registry, arrival: &Arrival, name: &str) -> Result<(), ArriveError> {
    let reserved = name == OPERATOR || name == SIGNED_IN || name.chars().any(char::is_whitespace);
    if check_new_name(name).is_err() || reserved {
        let text = format!(
            "the provider {} says that the user is called {name:?}, which no user can be called here; {}",
            arrival.provider,
            way_out(arrival)
        );
        return Err(ArriveError::Taken(text));
    }
    if registry.access.source_of(name).await? == Some(Source::Htpasswd) {
        return Err(refusal(Arrived::Taken, arrival, Some(name)));
    }
    if registry.access.is_granted(name) {
        return Err(refusal(Arrived::Promised, arrival, Some(name)));
    }
    Ok(())
}

fn refusal(arrived: Arrived, arrival: &Arrival, wished: Option<&str>) -> ArriveError {
    let (provider, name) = (&arrival.provider, wished.unwrap_or_default());
    let way_out = way_out(arrival);
    match arrived {
        Arrived::Taken => ArriveError::Taken(format!(
            "the name {name:?} is another user's already, and a name alone proves nothing; {way_out}"
        )),
        Arrived::Promised => ArriveError::Taken(format!(
            "the name {name:?} was granted something before anybody had it, so it is not for whoever comes first; {way_out}"
        )),
        Arrived::Locked(user) => ArriveError::Locked(format!(
            "{user} is locked out; an administrator can change that: wharf user enable {user}"
        )),
        Arrived::Issuer(before) => ArriveError::Wrong(format!(
            "this account was vouched for by {before:?} before, and is by {:?} now; give the provider another name than {provider} in the \
             configuration, or take the account from its user first (wharf user unlink)",
            arrival.issuer
        )),
        Arrived::Unknown | Arrived::Known(_) | Arrived::New(_) => ArriveError::NotLinked(format!(
            "this account of {provider} is no user's here, and no user is made for it; {way_out}"
        )),
    }
}

/// Says which user an account is, and makes that user, without a password, if there is none of the name.
pub async fn link_account(
    registry: &Registry,
    changer: Changer<'_>,
    user: &str,
    provider: &str,
    subject: &str,
) -> Result<Change> {
    administers(registry, changer)?;
    check_new_name(user)?;
    check_subject(subject)
        .map_err(|reason| IdentityError::Wrong(format!("subject {subject:?}: {reason}")))?;
    let access = &registry.access;
    let issuer = access.knows_provider(provider)?.issuer;
    if access.source_of(user).await? == Some(Source::Htpasswd) {
        return Err(IdentityError::Taken(format!(
            "{user} is a user of the htpasswd file; take it out there first"
        )));
    }
    for _ in 0..ATTEMPTS {
        let policy = access.policy();
        administers(registry, changer)?;
        access.stands_above(changer, &local(user))?;
        let link = account::Link {
            provider: provider.to_owned(),
            subject: subject.to_owned(),
            issuer: issuer.clone(),
            user: user.to_owned(),
            by: By {
                actor: changer.name().to_owned(),
                epoch: matches!(changer, Changer::Caller(_)).then_some(policy.epoch()),
                at: registry.clock.now_ms(),
            },
        };
        let linked = registry.meta.write(link).await?;
        access.forget(user);
        access.rights.refresh().await?;
        let taken = |text: String| Err(IdentityError::Taken(text));
        return match linked {
            Linked::Stale => continue,
            Linked::Done => Ok(Change::Made),
            Linked::Same => Ok(Change::Same),
            Linked::Of(other) => taken(format!(
                "this account is {other}'s; take it from there first: wharf user unlink {other} --provider {provider} --subject '{subject}'"
            )),
            Linked::Full => taken(format!(
                "{user} has {MOST_ACCOUNTS} accounts, which is the most; take one away first"
            )),
            Linked::Invited => taken(format!(
                "somebody is invited to be {user}; take the invitation back first: wharf user withdraw ID"
            )),
            Linked::Robot => taken(format!("{user} is no user")),
        };
    }
    Err(ChangeError::Busy.into())
}

/// Takes an account from its user. Whoever has it is a stranger from then on.
pub async fn unlink_account(
    registry: &Registry,
    changer: Changer<'_>,
    user: &str,
    provider: &str,
    subject: &str,
) -> Result<()> {
    administers(registry, changer)?;
    let access = &registry.access;
    let now = registry.clock.now_ms();
    let unlinked = access.change(changer, now, |_, by| {
        Ok(account::Unlink {
            provider: provider.to_owned(),
            subject: subject.to_owned(),
            user: user.to_owned(),
            by,
        })
    });
    let unlinked = unlinked.await;
    access.forget(user);
    // Whoever has the account is nobody here, also where they are signed in.
    crate::session::end_of_account(registry, user, provider, subject).await?;
    unlinked.map_err(|failed| {
        failed.or(|| format!("{user} has no such account; `wharf user show {user}` shows all"))
    })?;
    Ok(())
}

/// The accounts of a user.
pub async fn accounts_of(registry: &Registry, user: &str) -> Result<Vec<AccountRow>> {
    let of = account::Of { user: user.into() };
    Ok(registry.meta.read(of).await?)
}

/// The providers of the accounts of users, from one name to another.
pub async fn providers_of(
    registry: &Registry,
    from: &str,
    to: &str,
    limit: u32,
) -> Result<BTreeMap<String, Vec<String>>> {
    let limit = limit.saturating_mul(MOST_ACCOUNTS);
    let (from, to) = (from.to_owned(), to.to_owned());
    let rows = registry
        .meta
        .scan(account::Providers { from, to, limit })
        .await?;
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (user, provider) in rows {
        let providers = all.entry(user).or_default();
        if !providers.contains(&provider) {
            providers.push(provider);
        }
    }
    Ok(all)
}
