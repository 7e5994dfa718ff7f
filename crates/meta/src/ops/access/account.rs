//! Accounts of people elsewhere, and the users that they are here.
//!
//! An account is found by provider and subject, never by a name or an address, which others may get later. What its provider says of
//! its groups is kept as it was told; whom that puts into which group here follows from the sources of groups (`source.rs`), so only
//! a change that touches one of those counts the epoch up. All that change an account lock the epoch first, then the user.

use serde_json::json;

use super::change::Part;
use super::{By, begin, end, lock};
use crate::error::Result;
use crate::ops::event::{self, Fact, Kind};
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::Row;

/// Most accounts of one user.
pub const MOST_ACCOUNTS: u32 = 5;
/// Most groups that an account is told to be in.
pub const MOST_GROUPS: u32 = 200;

/// An account as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRow {
    /// The name of the provider's section in the configuration.
    pub provider: String,
    /// Whom the provider calls so, for good.
    pub subject: String,
    /// Who vouched for it; empty where the provider has only itself.
    pub issuer: String,
    /// The user here.
    pub user: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Who linked it; empty: whoever signed in with it first.
    pub created_by: String,
    /// When somebody came with it last, in milliseconds since 1970, to the hour.
    pub seen_at: i64,
    /// Its groups as told last, sorted.
    pub groups: Vec<String>,
}

fn read(row: &mut Row) -> Result<AccountRow> {
    Ok(AccountRow {
        provider: row.text(0)?,
        subject: row.text(1)?,
        issuer: row.text(2)?,
        user: row.text(3)?,
        created_at: row.int(4)?,
        created_by: row.text(5)?,
        seen_at: row.int(6)?,
        groups: Vec::new(),
    })
}

async fn groups<T: Tx>(tx: &mut T, provider: &str, subject: &str) -> Result<Vec<String>> {
    let rows = tx
        .query(
            "SELECT name FROM account_group WHERE provider = $1 AND subject = $2 ORDER BY name LIMIT $3",
            vals![provider, subject, MOST_GROUPS],
        )
        .await?;
    rows.into_iter().map(|mut row| row.text(0)).collect()
}

/// An account with its groups, and whether its user may sign in. Cost: its groups.
#[derive(Clone, Debug)]
pub struct Get {
    /// The provider.
    pub provider: String,
    /// The subject.
    pub subject: String,
}

impl ReadOp for Get {}
impl Op for Get {
    type Out = Option<AccountRow>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT provider, subject, issuer, principal, created_at, created_by, seen_at FROM account WHERE provider = $1 AND \
                 subject = $2",
                vals![&self.provider, &self.subject],
            )
            .await?;
        let Some(mut row) = row else {
            return Ok(None);
        };
        let mut account = read(&mut row)?;
        account.groups = groups(tx, &self.provider, &self.subject).await?;
        Ok(Some(account))
    }
}

/// The accounts of a user, with their groups. Cost: these.
#[derive(Clone, Debug)]
pub struct Of {
    /// The user.
    pub user: String,
}

impl ReadOp for Of {}
impl Op for Of {
    type Out = Vec<AccountRow>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT provider, subject, issuer, principal, created_at, created_by, seen_at FROM account WHERE principal = $1 \
                 ORDER BY provider, subject LIMIT $2",
                vals![&self.user, MOST_ACCOUNTS],
            )
            .await?;
        let mut all = Vec::with_capacity(rows.len());
        for mut row in rows {
            let mut account = read(&mut row)?;
            account.groups = groups(tx, &account.provider, &account.subject).await?;
            all.push(account);
        }
        Ok(all)
    }
}

/// Users with the providers of their accounts, by user, from one user to another. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct Providers {
    /// The first user.
    pub from: String,
    /// The last one.
    pub to: String,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Providers {}
impl Op for Providers {
    type Out = Vec<(String, String)>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT principal, provider FROM account WHERE principal >= $1 AND principal <= $2 ORDER BY principal, provider, \
                 subject LIMIT $3",
                vals![&self.from, &self.to, self.limit],
            )
            .await?;
        let rows = rows.into_iter();
        rows.map(|mut row| Ok((row.text(0)?, row.text(1)?)))
            .collect()
    }
}

/// Accounts in a provider's group, by subject, with their users. Cost: the rows given.
#[derive(Clone, Debug)]
pub struct InGroup {
    /// The provider.
    pub provider: String,
    /// Its group.
    pub name: String,
    /// The last subject of the page before; `""` at first.
    pub after: String,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for InGroup {}
impl Op for InGroup {
    type Out = Vec<(String, String)>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT g.subject, a.principal FROM account_group g JOIN account a ON a.provider = g.provider AND a.subject = \
                 g.subject WHERE g.provider = $1 AND g.name = $2 AND g.subject > $3 ORDER BY g.subject LIMIT $4",
                vals![&self.provider, &self.name, &self.after, self.limit],
            )
            .await?;
        let rows = rows.into_iter();
        rows.map(|mut row| Ok((row.text(0)?, row.text(1)?)))
            .collect()
    }
}

/// The groups here that a user is in by accounts; a group that several of them lead to comes several times. Cost: the groups of
/// the user's accounts.
#[derive(Clone, Debug)]
pub struct GroupsOf {
    /// The user.
    pub user: String,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for GroupsOf {}
impl Op for GroupsOf {
    type Out = Vec<String>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                // In this order: SQLite would look through all sources of the provider.
                "SELECT s.group_name FROM account a CROSS JOIN account_group g CROSS JOIN group_source s WHERE a.principal = $1 AND \
                 g.provider = a.provider AND g.subject = a.subject AND s.provider = g.provider AND s.name = g.name LIMIT $2",
                vals![&self.user, self.limit],
            )
            .await?;
        rows.into_iter().map(|mut row| row.text(0)).collect()
    }
}

/// Whether an account of a user is in a provider's group. Cost: one row for each account.
#[derive(Clone, Debug)]
pub struct IsIn {
    /// The user.
    pub user: String,
    /// The provider.
    pub provider: String,
    /// Its group.
    pub name: String,
}

impl ReadOp for IsIn {}
impl Op for IsIn {
    type Out = bool;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let row = tx
            .row(
                "SELECT 1 FROM account a JOIN account_group g ON g.provider = a.provider AND g.subject = a.subject WHERE a.principal \
                 = $1 AND a.provider = $2 AND g.name = $3 LIMIT 1",
                vals![&self.user, &self.provider, &self.name],
            )
            .await?;
        Ok(row.is_some())
    }
}

/// What became of somebody who came with an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// It is this user's, and what was told is noted.
    Known(String),
    /// A user was made for it.
    New(String),
    /// It is nobody's, and no user is made.
    Unknown,
    /// The wished name is somebody's.
    Taken,
    /// The wished name was granted something, or somebody was invited to it: it is not for whoever comes first.
    Promised,
    /// Somebody else vouched for it before: this one.
    Issuer(String),
    /// Its user is locked out.
    Locked(String),
}

/// Notes what a provider says of an account, and makes a user for one that is new, if that is wished. Locks the epoch. Cost: the
/// groups that changed.
#[derive(Clone, Debug)]
pub struct Arrive {
    /// The provider.
    pub provider: String,
    /// The subject.
    pub subject: String,
    /// Who vouches for it.
    pub issuer: String,
    /// What a new user is called; `None`: none is made.
    pub wished: Option<String>,
    /// All its groups, sorted, each once.
    pub groups: Vec<String>,
    /// Groups of the provider that give rights by the configuration.
    pub telling: Vec<String>,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Arrive {
    /// Puts the groups that are told in the place of those that were; gives whether rights change by that.
    async fn regroup<T: Tx>(&self, tx: &mut T, had: &[String]) -> Result<bool> {
        let mut rights = false;
        let gone = had.iter().filter(|name| !self.groups.contains(name));
        for name in gone {
            tx.exec(
                "DELETE FROM account_group WHERE provider = $1 AND subject = $2 AND name = $3",
                vals![&self.provider, &self.subject, name],
            )
            .await?;
            rights = rights || self.counts(tx, name).await?;
        }
        let new = self.groups.iter().filter(|name| !had.contains(name));
        for name in new {
            tx.exec(
                "INSERT INTO account_group (provider, subject, name) VALUES ($1, $2, $3)",
                vals![&self.provider, &self.subject, name],
            )
            .await?;
            rights = rights || self.counts(tx, name).await?;
        }
        Ok(rights)
    }

    /// Whether who is in it has rights by that.
    async fn counts<T: Tx>(&self, tx: &mut T, name: &String) -> Result<bool> {
        if self.telling.contains(name) {
            return Ok(true);
        }
        let source = tx
            .row(
                "SELECT 1 FROM group_source WHERE provider = $1 AND name = $2 LIMIT 1",
                vals![&self.provider, name],
            )
            .await?;
        Ok(source.is_some())
    }

    async fn end<T: Tx>(&self, tx: &mut T, epoch: i64, user: &str, had: &[String]) -> Result<()> {
        let by = By {
            actor: user.to_owned(),
            epoch: None,
            at: self.at,
        };
        let told =
            |groups: &[String]| json!({"user": user, "provider": self.provider, "groups": groups});
        let payload = json!({"what": "account", "before": told(had), "after": told(&self.groups)});
        end(tx, epoch, &by, "", &[part(user)], payload).await
    }
}

fn part(user: &str) -> Part {
    Part::Subject {
        kind: "user".to_owned(),
        name: user.to_owned(),
    }
}

/// Whether something waits for whoever gets a name: a grant, a place in a group, an invitation.
async fn is_promised<T: Tx>(tx: &mut T, name: &str) -> Result<bool> {
    let promised = tx
        .row(
            "SELECT 1 FROM access_binding WHERE kind = 'user' AND name = $1 LIMIT 1",
            vals![name],
        )
        .await?;
    if promised.is_some() {
        return Ok(true);
    }
    let promised = tx
        .row(
            "SELECT 1 FROM group_member WHERE kind = 'user' AND name = $1 LIMIT 1",
            vals![name],
        )
        .await?;
    Ok(promised.is_some() || is_invited(tx, name).await?)
}

async fn is_invited<T: Tx>(tx: &mut T, name: &str) -> Result<bool> {
    let invited = tx
        .row("SELECT 1 FROM invitation WHERE name = $1", vals![name])
        .await?;
    Ok(invited.is_some())
}

/// Makes a user without a password, unless the name is taken.
async fn make_user<T: Tx>(
    tx: &mut T,
    name: &str,
    by: &str,
    at: i64,
    account: serde_json::Value,
) -> Result<bool> {
    let made = tx
        .exec(
            "INSERT INTO principal (name, kind, secret_hash, created_at, changed_at, created_by) VALUES ($1, 'user', NULL, $2, $2, $3) \
             ON CONFLICT (name) DO NOTHING",
            vals![name, at, by],
        )
        .await?;
    if made == 0 {
        return Ok(false);
    }
    let after = json!({"name": name, "kind": "user", "account": account});
    let fact = Fact {
        kind: Kind::PrincipalCreate,
        repository: None,
        digest: None,
        tag: None,
        actor: if by.is_empty() { name } else { by },
        at,
        payload: json!({"what": "user", "before": null, "after": after}),
    };
    event::record(tx, fact).await?;
    Ok(true)
}

/// When a user was made, and whether it is locked out; locks the row.
async fn user<T: Tx>(tx: &mut T, name: &str) -> Result<Option<(i64, bool)>> {
    let row = tx
        .row(
            "SELECT created_at, disabled_at FROM principal WHERE name = $1 AND kind = 'user' FOR UPDATE",
            vals![name],
        )
        .await?;
    row.map(|mut row| Ok((row.int(0)?, row.opt_int(1)?.is_some())))
        .transpose()
}

async fn insert<T: Tx>(tx: &mut T, account: &AccountRow) -> Result<()> {
    tx.exec(
        "INSERT INTO account (provider, subject, issuer, principal, created_at, created_by, seen_at) VALUES ($1, $2, $3, $4, $5, $6, \
         $7)",
        vals![
            &account.provider,
            &account.subject,
            &account.issuer,
            &account.user,
            account.created_at,
            &account.created_by,
            account.seen_at
        ],
    )
    .await?;
    Ok(())
}

async fn delete<T: Tx>(tx: &mut T, provider: &str, subject: &str) -> Result<()> {
    tx.exec(
        "DELETE FROM account_group WHERE provider = $1 AND subject = $2",
        vals![provider, subject],
    )
    .await?;
    tx.exec(
        "DELETE FROM account WHERE provider = $1 AND subject = $2",
        vals![provider, subject],
    )
    .await?;
    Ok(())
}

impl Op for Arrive {
    type Out = Arrived;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Arrived> {
        let epoch = lock(tx).await?;
        let get = Get {
            provider: self.provider.clone(),
            subject: self.subject.clone(),
        };
        let mut rights = false;
        let mut known = get.run(tx).await?;
        if let Some(account) = &known {
            match user(tx, &account.user).await? {
                // An older version removed the user and left the account; the name may be somebody else's by now.
                None => rights = true,
                Some((made, _)) if made > account.created_at => rights = true,
                Some((_, true)) => return Ok(Arrived::Locked(account.user.clone())),
                Some(_) if account.issuer != self.issuer => {
                    return Ok(Arrived::Issuer(account.issuer.clone()));
                }
                Some(_) => {}
            }
        }
        if rights && let Some(left) = known.take() {
            delete(tx, &self.provider, &self.subject).await?;
            self.end(tx, epoch, &left.user, &left.groups).await?;
            return Ok(Arrived::Unknown);
        }
        if let Some(account) = known {
            tx.exec(
                "UPDATE account SET seen_at = $3 WHERE provider = $1 AND subject = $2",
                vals![&self.provider, &self.subject, self.at],
            )
            .await?;
            if self.regroup(tx, &account.groups).await? {
                self.end(tx, epoch, &account.user, &account.groups).await?;
            }
            return Ok(Arrived::Known(account.user));
        }
        let Some(name) = &self.wished else {
            return Ok(Arrived::Unknown);
        };
        if user(tx, name).await?.is_some() {
            return Ok(Arrived::Taken);
        }
        if is_promised(tx, name).await? {
            return Ok(Arrived::Promised);
        }
        let account = AccountRow {
            provider: self.provider.clone(),
            subject: self.subject.clone(),
            issuer: self.issuer.clone(),
            user: name.clone(),
            created_at: self.at,
            created_by: String::new(),
            seen_at: self.at,
            groups: Vec::new(),
        };
        let told = json!({"provider": self.provider, "subject": self.subject});
        if !make_user(tx, name, "", self.at, told).await? {
            return Ok(Arrived::Taken);
        }
        insert(tx, &account).await?;
        if self.regroup(tx, &[]).await? {
            self.end(tx, epoch, name, &[]).await?;
        }
        Ok(Arrived::New(name.clone()))
    }
}

/// What became of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Linked {
    /// It is made.
    Done,
    /// It was so before.
    Same,
    /// The rights changed since the actor's were looked at: look again. Nothing was done.
    Stale,
    /// The account is this user's already. Nothing was done.
    Of(String),
    /// The user has [`MOST_ACCOUNTS`]. Nothing was done.
    Full,
    /// Somebody is invited to that name, and it is no user yet. Nothing was done.
    Invited,
    /// The name is a robot's. Nothing was done.
    Robot,
}

/// Says whose an account is, and makes that user, without a password, if there is none of the name. Locks the epoch. Cost: the user's
/// accounts.
#[derive(Clone, Debug)]
pub struct Link {
    /// The provider.
    pub provider: String,
    /// The subject.
    pub subject: String,
    /// Who vouches for it.
    pub issuer: String,
    /// The user.
    pub user: String,
    /// Who does it.
    pub by: By,
}

impl Op for Link {
    type Out = Linked;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Linked> {
        let Ok(epoch) = begin(tx, &self.by).await? else {
            return Ok(Linked::Stale);
        };
        let get = Get {
            provider: self.provider.clone(),
            subject: self.subject.clone(),
        };
        if let Some(known) = get.run(tx).await? {
            return Ok(match known.user == self.user {
                true => Linked::Same,
                false => Linked::Of(known.user),
            });
        }
        let told = json!({"provider": self.provider, "subject": self.subject, "user": self.user});
        if user(tx, &self.user).await?.is_none() {
            if is_invited(tx, &self.user).await? {
                return Ok(Linked::Invited);
            }
            let (name, by) = (&self.user, &self.by);
            if !make_user(tx, name, &by.actor, by.at, told.clone()).await?
                // On PostgreSQL another one may have made the user meanwhile.
                && user(tx, name).await?.is_none()
            {
                return Ok(Linked::Robot);
            }
        }
        let of = Of {
            user: self.user.clone(),
        };
        if of.run(tx).await?.len() >= MOST_ACCOUNTS as usize {
            return Ok(Linked::Full);
        }
        let account = AccountRow {
            provider: self.provider.clone(),
            subject: self.subject.clone(),
            issuer: self.issuer.clone(),
            user: self.user.clone(),
            created_at: self.by.at,
            created_by: self.by.actor.clone(),
            seen_at: 0,
            groups: Vec::new(),
        };
        insert(tx, &account).await?;
        let payload = json!({"what": "account", "before": null, "after": told});
        end(tx, epoch, &self.by, "", &[part(&self.user)], payload).await?;
        Ok(Linked::Done)
    }
}

/// Takes an account from its user, who is in no group by it any more; gives whose it was, `None` where there is none. `Err`: the rights
/// changed since the actor's were looked at. Locks the epoch. Cost: the account's groups.
#[derive(Clone, Debug)]
pub struct Unlink {
    /// The provider.
    pub provider: String,
    /// The subject.
    pub subject: String,
    /// Whose it must be.
    pub user: String,
    /// Who does it.
    pub by: By,
}

impl Op for Unlink {
    type Out = super::Changed;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let epoch = match begin(tx, &self.by).await? {
            Ok(epoch) => epoch,
            Err(kept) => return Ok(kept),
        };
        let get = Get {
            provider: self.provider.clone(),
            subject: self.subject.clone(),
        };
        let known = get.run(tx).await?.filter(|known| known.user == self.user);
        let Some(known) = known else {
            return Ok(super::Changed::Unknown);
        };
        delete(tx, &self.provider, &self.subject).await?;
        let before = json!({"provider": known.provider, "subject": known.subject, "user": known.user, "groups": known.groups});
        let payload = json!({"what": "account", "before": before, "after": null});
        end(tx, epoch, &self.by, "", &[part(&known.user)], payload).await?;
        Ok(super::Changed::Done)
    }
}

/// Takes all accounts from a user that goes; gives their providers and subjects.
pub(super) async fn delete_of<T: Tx>(tx: &mut T, user: &str) -> Result<Vec<String>> {
    let of = Of { user: user.into() };
    let mut gone = Vec::new();
    for account in of.run(tx).await? {
        delete(tx, &account.provider, &account.subject).await?;
        gone.push(format!("{}:{}", account.provider, account.subject));
    }
    Ok(gone)
}
