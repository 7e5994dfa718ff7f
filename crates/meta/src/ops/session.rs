//! Sessions of people in the browser.
//!
//! A session is found by the hash of what its cookie says, and named by an id that says nothing. What ends one deletes its row, so
//! that it is over with the next request, wherever that comes. All that make or end several lock the user first.

use std::fmt;

use serde_json::{Value, json};

use super::event::{self, Fact, Kind};
use super::{device, terminal};
use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::Row;

/// Most sessions of one user; one more ends the oldest.
pub const MOST_SESSIONS: u32 = 20;

/// A session as stored.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionRow {
    /// Its name in lists.
    pub id: String,
    /// SHA-256 of what the cookie says.
    pub hash: Vec<u8>,
    /// The user.
    pub principal: String,
    /// Where the user is kept.
    pub source: String,
    /// Names the password it was begun with; empty where there was none.
    pub credential: String,
    /// The provider that was signed in with; empty: a password.
    pub provider: String,
    /// The account there.
    pub subject: String,
    /// What the provider calls its own session, of which this one is; empty where it says nothing.
    pub sid: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// When it was used last, in milliseconds since 1970, to the minute.
    pub seen_at: i64,
    /// From where it was used last.
    pub address: String,
    /// What the browser says it is.
    pub agent: String,
    /// Milliseconds since 1970.
    pub expires_at: i64,
    /// With what its provider is asked for the account, sealed.
    pub refresh: Option<Vec<u8>>,
    /// When that is done next, in milliseconds since 1970.
    pub check_at: Option<i64>,
    /// It is over in the browser, and stays since its provider is asked for the account of terminals.
    pub kept: bool,
}

impl fmt::Debug for SessionRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRow")
            .field("id", &self.id)
            .field("principal", &self.principal)
            .finish_non_exhaustive()
    }
}

fn read(row: &mut Row) -> Result<SessionRow> {
    Ok(SessionRow {
        id: row.text(0)?,
        hash: row.bytes(1)?,
        principal: row.text(2)?,
        source: row.text(3)?,
        credential: row.text(4)?,
        provider: row.text(5)?,
        subject: row.text(6)?,
        created_at: row.int(7)?,
        seen_at: row.int(8)?,
        address: row.text(9)?,
        agent: row.text(10)?,
        expires_at: row.int(11)?,
        refresh: row.opt_bytes(12)?,
        check_at: row.opt_int(13)?,
        kept: row.int(14)? != 0,
        sid: row.text(15)?,
    })
}

async fn told<T: Tx>(
    tx: &mut T,
    kind: Kind,
    principal: &str,
    at: i64,
    change: (Value, Value),
) -> Result<()> {
    let fact = Fact {
        kind,
        repository: None,
        digest: None,
        tag: None,
        actor: principal,
        at,
        payload: json!({"what": "session", "before": change.0, "after": change.1}),
    };
    event::record(tx, fact).await
}

/// What all users share who have no row, such as those of a htpasswd file.
const LOCK: &str = "session.lock";

/// Locks the user, or all that have no row.
pub(super) async fn lock<T: Tx>(tx: &mut T, principal: &str) -> Result<()> {
    let row = tx
        .row(
            "SELECT disabled_at FROM principal WHERE name = $1 FOR UPDATE",
            vals![principal],
        )
        .await?;
    if row.is_none() {
        tx.exec(
            "INSERT INTO setting (key, value) VALUES ($1, '') ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            vals![LOCK],
        )
        .await?;
    }
    Ok(())
}

/// A session, locked.
pub(super) async fn locked<T: Tx>(tx: &mut T, id: &str) -> Result<Option<SessionRow>> {
    let row = tx
        .row(
            "SELECT id, hash, principal, source, credential, provider, subject, created_at, seen_at, address, agent, expires_at, refresh, \
             check_at, kept, sid FROM session WHERE id = $1 FOR UPDATE",
            vals![id],
        )
        .await?;
    row.map(|mut row| read(&mut row)).transpose()
}

/// Whether some session of the account can ask its provider; it cannot go before the operation is over.
pub(super) async fn asks<T: Tx>(
    tx: &mut T,
    principal: &str,
    provider: &str,
    subject: &str,
) -> Result<bool> {
    let row = tx
        .row(
            "SELECT id FROM session WHERE provider = $1 AND subject = $2 AND principal = $3 AND refresh IS NOT NULL ORDER BY id LIMIT 1 \
             FOR UPDATE",
            vals![provider, subject, principal],
        )
        .await?;
    Ok(row.is_some())
}

/// Takes a session out of the browser, whose user or row is locked. What asks its provider stays as long as terminals live on the
/// account, unless another session asks.
async fn leave<T: Tx>(tx: &mut T, row: &SessionRow, at: i64) -> Result<()> {
    let account = (&*row.provider, &*row.subject);
    let needed = match row.refresh.is_some() && !row.kept {
        true => terminal::last_of(tx, &row.principal, account, at).await?,
        false => None,
    };
    if let Some(until) = needed {
        let other = tx
            .row(
                "SELECT id FROM session WHERE provider = $1 AND subject = $2 AND principal = $3 AND refresh IS NOT NULL AND kept = 0 AND \
                 expires_at > $4 AND id <> $5 LIMIT 1",
                vals![&row.provider, &row.subject, &row.principal, at, &row.id],
            )
            .await?;
        if other.is_none() {
            // It knows what the provider said last.
            tx.exec(
                "DELETE FROM session WHERE provider = $1 AND subject = $2 AND principal = $3 AND kept = 1",
                vals![&row.provider, &row.subject, &row.principal],
            )
            .await?;
            tx.exec(
                "UPDATE session SET kept = 1, hash = $2, expires_at = $3 WHERE id = $1",
                vals![&row.id, row.id.as_bytes(), until],
            )
            .await?;
            return Ok(());
        }
    }
    tx.exec("DELETE FROM session WHERE id = $1", vals![&row.id])
        .await?;
    Ok(())
}

/// Begins a session; of too many the oldest ends. Cost: the user's sessions.
#[derive(Clone, Debug)]
pub struct Begin {
    /// It.
    pub row: SessionRow,
}

impl Op for Begin {
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let row = &self.row;
        lock(tx, &row.principal).await?;
        let of = Of {
            principal: row.principal.clone(),
        };
        let held = of.run(tx).await?;
        let over = (held.len() + 1).saturating_sub(MOST_SESSIONS as usize);
        for old in held.into_iter().take(over) {
            leave(tx, &old, row.created_at).await?;
        }
        tx.exec(
            "INSERT INTO session (id, hash, principal, source, credential, provider, subject, created_at, seen_at, address, agent, \
             expires_at, refresh, check_at, sid) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
            vals![
                &row.id,
                &row.hash,
                &row.principal,
                &row.source,
                &row.credential,
                &row.provider,
                &row.subject,
                row.created_at,
                row.seen_at,
                &row.address,
                &row.agent,
                row.expires_at,
                row.refresh.as_deref(),
                row.check_at,
                &row.sid
            ],
        )
        .await?;
        let after = json!({"id": row.id, "user": row.principal, "provider": row.provider, "expires_at": row.expires_at});
        let change = (Value::Null, after);
        told(
            tx,
            Kind::CredentialCreate,
            &row.principal,
            row.created_at,
            change,
        )
        .await
    }
}

/// The session with a hash. Cost: one row.
#[derive(Clone)]
pub struct ByHash {
    /// SHA-256 of what the cookie says.
    pub hash: Vec<u8>,
}

impl ReadOp for ByHash {}
impl Op for ByHash {
    type Out = Option<SessionRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT id, hash, principal, source, credential, provider, subject, created_at, seen_at, address, agent, expires_at, \
                 refresh, check_at, kept, sid FROM session WHERE hash = $1 AND kept = 0",
                vals![&self.hash],
            )
            .await?;
        row.map(|mut row| read(&mut row)).transpose()
    }
}

/// The sessions of a user, the oldest first. Cost: these.
#[derive(Clone, Debug)]
pub struct Of {
    /// The user.
    pub principal: String,
}

impl ReadOp for Of {}
impl Op for Of {
    type Out = Vec<SessionRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT id, hash, principal, source, credential, provider, subject, created_at, seen_at, address, agent, expires_at, \
                 refresh, check_at, kept, sid FROM session WHERE principal = $1 AND kept = 0 ORDER BY created_at, id LIMIT $2",
                vals![&self.principal, MOST_SESSIONS],
            )
            .await?;
        rows.into_iter().map(|mut row| read(&mut row)).collect()
    }
}

/// Notes that a session was used. Cost: one row.
#[derive(Clone, Debug)]
pub struct Touch {
    /// Its name.
    pub id: String,
    /// From where.
    pub address: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Touch {
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.exec(
            "UPDATE session SET seen_at = $2, address = $3 WHERE id = $1",
            vals![&self.id, self.at, &self.address],
        )
        .await?;
        Ok(())
    }
}

/// Which sessions and terminals end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// This one of the user.
    One(String),
    /// All of the user but this one.
    Others(String),
    /// All of the user.
    All,
    /// All of the user with this account: provider and subject.
    Account(String, String),
    /// Those of the user that are of a provider, and of its session and account where these are given.
    Of {
        /// The provider.
        provider: String,
        /// What it calls its session.
        sid: Option<String>,
        /// The account there.
        subject: Option<String>,
    },
}

impl Which {
    /// `sid`: what the provider calls its session; `None`: a terminal, which goes on when its user signs out elsewhere.
    fn means(&self, id: &str, provider: &str, subject: &str, sid: Option<&str>) -> bool {
        match self {
            Self::One(one) => id == one,
            Self::Others(one) => id != one,
            Self::All => true,
            Self::Account(of, who) => provider == of && subject == who,
            Self::Of {
                provider: of,
                sid: session,
                subject: who,
            } => {
                let is = |wanted: &Option<String>, held: &str| {
                    wanted.as_deref().is_none_or(|wanted| wanted == held)
                };
                provider == of && is(who, subject) && sid.is_some_and(|sid| is(session, sid))
            }
        }
    }
}

/// Ends sessions and terminals of a user; gives how many. But for a single one, and for what a provider ends, what the user has approved and nobody has fetched is taken
/// back too. Cost: the user's sessions and terminals.
#[derive(Clone, Debug)]
pub struct End {
    /// The user.
    pub principal: String,
    /// Which.
    pub which: Which,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for End {
    type Out = usize;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<usize> {
        lock(tx, &self.principal).await?;
        let of = Of {
            principal: self.principal.clone(),
        };
        let sessions = of.run(tx).await?;
        if !matches!(self.which, Which::One(_) | Which::Of { .. }) {
            device::take_back(tx, &self.principal).await?;
        }
        let terminals = terminal::end(tx, &self.principal, self.at, |row| {
            self.which.means(&row.id, &row.provider, &row.subject, None)
        });
        let terminals = terminals.await?;
        // Without terminals nobody is to be asked about.
        match &self.which {
            Which::One(_) | Which::Of { .. } => {}
            Which::Others(_) | Which::All => {
                tx.exec(
                    "DELETE FROM session WHERE principal = $1 AND kept = 1",
                    vals![&self.principal],
                )
                .await?;
            }
            Which::Account(provider, subject) => {
                tx.exec(
                    "DELETE FROM session WHERE provider = $1 AND subject = $2 AND principal = $3 AND kept = 1",
                    vals![provider, subject, &self.principal],
                )
                .await?;
            }
        }
        let mut gone = Vec::new();
        for row in sessions {
            if self
                .which
                .means(&row.id, &row.provider, &row.subject, Some(&row.sid))
            {
                leave(tx, &row, self.at).await?;
                gone.push(row.id);
            }
        }
        if gone.is_empty() {
            return Ok(terminals);
        }
        let count = gone.len();
        let before = json!({"ids": gone, "user": self.principal});
        let change = (before, Value::Null);
        told(tx, Kind::CredentialRemove, &self.principal, self.at, change).await?;
        Ok(terminals + count)
    }
}

/// Most sessions that one word of a provider ends.
const MOST_AT_ONCE: u32 = 200;

/// Ends sessions because a provider says so; gives whose and how many, or `None` for a word that was heard before. Cost: these sessions.
#[derive(Clone, Debug)]
pub struct Logout {
    /// The provider.
    pub provider: String,
    /// What it calls this word.
    pub jti: String,
    /// Until when it is remembered, in milliseconds since 1970.
    pub expires_at: i64,
    /// The session there whose sessions end.
    pub sid: Option<String>,
    /// The account whose sessions end; with `sid`, those that are of both.
    pub subject: Option<String>,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Logout {
    type Out = Option<Vec<(String, usize)>>;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        // First of all, so that two with the same word wait for each other here, where neither holds a user.
        let heard = tx
            .exec(
                "INSERT INTO logout_token (provider, jti, expires_at) VALUES ($1, $2, $3) ON CONFLICT (provider, jti) DO NOTHING",
                vals![&self.provider, &self.jti, self.expires_at],
            )
            .await?;
        if heard == 0 {
            return Ok(None);
        }
        let rows = match (&self.sid, &self.subject) {
            (Some(sid), _) => {
                tx.query(
                    "SELECT principal FROM session WHERE provider = $1 AND sid = $2 ORDER BY id LIMIT $3",
                    vals![&self.provider, sid, MOST_AT_ONCE],
                )
                .await?
            }
            (None, Some(subject)) => {
                tx.query(
                    "SELECT principal FROM session WHERE provider = $1 AND subject = $2 ORDER BY id LIMIT $3",
                    vals![&self.provider, subject, MOST_AT_ONCE],
                )
                .await?
            }
            (None, None) => Vec::new(),
        };
        let users = rows.into_iter().map(|mut row| row.text(0));
        let users: std::collections::BTreeSet<_> = users.collect::<Result<_>>()?;
        let mut ended = Vec::new();
        for user in users {
            let end = End {
                principal: user.clone(),
                which: Which::Of {
                    provider: self.provider.clone(),
                    sid: self.sid.clone(),
                    subject: self.subject.clone(),
                },
                at: self.at,
            };
            let count = end.run(tx).await?;
            if count > 0 {
                ended.push((user, count));
            }
        }
        Ok(Some(ended))
    }
}

/// Forgets words of providers that would be too old by now, at most so many; gives how many. Cost: their rows.
#[derive(Clone, Copy, Debug)]
pub struct ForgetLogouts {
    /// Milliseconds since 1970.
    pub before: i64,
    /// At most so many.
    pub limit: u32,
}

impl Op for ForgetLogouts {
    type Out = u64;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        tx.exec(
            "DELETE FROM logout_token WHERE (provider, jti) IN (SELECT provider, jti FROM logout_token WHERE expires_at < $1 ORDER BY \
             expires_at LIMIT $2)",
            vals![self.before, self.limit],
        )
        .await
    }
}

/// Forgets sessions that ended before a time, at most so many; gives how many. Cost: their rows.
#[derive(Clone, Copy, Debug)]
pub struct Forget {
    /// Milliseconds since 1970.
    pub before: i64,
    /// At most so many.
    pub limit: u32,
}

impl Op for Forget {
    type Out = u64;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<u64> {
        let rows = tx
            .query(
                "SELECT principal, id, provider FROM session WHERE expires_at < $1 ORDER BY expires_at LIMIT $2",
                vals![self.before, self.limit],
            )
            .await?;
        let mut ended = Vec::with_capacity(rows.len());
        for mut row in rows {
            ended.push((row.text(0)?, row.text(1)?, row.text(2)?));
        }
        // The order in which everybody locks users, each before its sessions.
        ended.sort_unstable();
        let count = ended.len() as u64;
        for (principal, id, provider) in ended {
            if !provider.is_empty() {
                lock(tx, &principal).await?;
            }
            let row = locked(tx, &id).await?;
            if let Some(row) = row.filter(|row| row.expires_at < self.before) {
                leave(tx, &row, self.before).await?;
            }
        }
        Ok(count)
    }
}

/// Sessions whose providers are to be asked, the longest waiting first. Cost: their rows.
#[derive(Clone, Copy, Debug)]
pub struct Due {
    /// Milliseconds since 1970.
    pub at: i64,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Due {}
impl Op for Due {
    type Out = Vec<SessionRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT id, hash, principal, source, credential, provider, subject, created_at, seen_at, address, agent, expires_at, \
                 refresh, check_at, kept, sid FROM session WHERE check_at <= $1 ORDER BY check_at LIMIT $2",
                vals![self.at, self.limit],
            )
            .await?;
        rows.into_iter().map(|mut row| read(&mut row)).collect()
    }
}

/// Sessions whose providers would be asked later than anybody says: the clock was ahead when that was written. Cost: their rows.
#[derive(Clone, Copy, Debug)]
pub struct DueBeyond {
    /// Milliseconds since 1970.
    pub beyond: i64,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for DueBeyond {}
impl Op for DueBeyond {
    type Out = Vec<SessionRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT id, hash, principal, source, credential, provider, subject, created_at, seen_at, address, agent, expires_at, \
                 refresh, check_at, kept, sid FROM session WHERE check_at > $1 ORDER BY check_at DESC LIMIT $2",
                vals![self.beyond, self.limit],
            )
            .await?;
        rows.into_iter().map(|mut row| read(&mut row)).collect()
    }
}

/// Says when a session's provider is asked next, and with what; `false`: another replica did, or the session is over. Cost: one row.
#[derive(Clone)]
pub struct Schedule {
    /// Its name.
    pub id: String,
    /// When it was to be asked, as read.
    pub seen: Option<i64>,
    /// When it is asked next, in milliseconds since 1970.
    pub check_at: i64,
    /// With what, sealed; `None`: as before.
    pub refresh: Option<Vec<u8>>,
}

impl Op for Schedule {
    type Out = bool;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let changed = tx
            .exec(
                "UPDATE session SET check_at = $3, refresh = COALESCE($4, refresh) WHERE id = $1 AND check_at = $2",
                vals![&self.id, self.seen, self.check_at, self.refresh.as_deref()],
            )
            .await?;
        Ok(changed > 0)
    }
}

/// Takes away a session that is kept for terminals which are gone; `false`: it is needed. Cost: the user's terminals.
#[derive(Clone, Debug)]
pub struct Release {
    /// The session.
    pub row: SessionRow,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Release {
    type Out = bool;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let row = &self.row;
        lock(tx, &row.principal).await?;
        let account = (&*row.provider, &*row.subject);
        let last = terminal::last_of(tx, &row.principal, account, self.at).await?;
        if last.is_some() {
            return Ok(false);
        }
        tx.exec(
            "DELETE FROM session WHERE id = $1 AND kept = 1",
            vals![&row.id],
        )
        .await?;
        Ok(true)
    }
}

/// Ends a session of which its provider says that it grants nothing any more; gives whether no other session of the account can ask. Cost:
/// three rows.
#[derive(Clone, Debug)]
pub struct Refuse {
    /// The session.
    pub row: SessionRow,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Refuse {
    type Out = bool;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<bool> {
        let row = &self.row;
        lock(tx, &row.principal).await?;
        let ended = tx
            .exec("DELETE FROM session WHERE id = $1", vals![&row.id])
            .await?;
        if ended > 0 && !row.kept {
            let before =
                json!({"ids": [row.id], "user": row.principal, "why": "its provider refused it"});
            let change = (before, Value::Null);
            told(tx, Kind::CredentialRemove, &row.principal, self.at, change).await?;
        }
        Ok(!asks(tx, &row.principal, &row.provider, &row.subject).await?)
    }
}

/// Ends all sessions of a user that goes.
pub(super) async fn delete_of<T: Tx>(tx: &mut T, principal: &str) -> Result<()> {
    tx.exec("DELETE FROM session WHERE principal = $1", vals![principal])
        .await?;
    Ok(())
}
