//! Programs that wait for a person to let them sign in (RFC 8628).
//!
//! A row is found by the hash of what the program polls with, or of what the person types, and stays until it is too old, so that a
//! code which comes again is known. Whoever decides is locked first, then the session with which it is done, then the row.

use std::fmt;

use serde_json::{Value, json};

use super::event::{self, Fact, Kind};
use super::{session, setting, terminal};
use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::Row;

/// Most programs that wait at a time; as many as ask at the same moment may come on top.
pub const MOST_WAITING: u32 = 1_000;
/// Most of them from one address.
pub const MOST_OF_ADDRESS: u32 = 50;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody has decided.
    Waits,
    /// Somebody said yes.
    Approved,
    /// Somebody said no, or it was taken back.
    Denied,
    /// There is a terminal of it.
    Spent,
}

impl State {
    const fn number(self) -> i64 {
        match self {
            Self::Waits => 0,
            Self::Approved => 1,
            Self::Denied => 2,
            Self::Spent => 3,
        }
    }

    const fn of(number: i64) -> Self {
        match number {
            0 => Self::Waits,
            1 => Self::Approved,
            3 => Self::Spent,
            _ => Self::Denied,
        }
    }
}

/// A request as stored.
#[derive(Clone, PartialEq, Eq)]
pub struct DeviceRow {
    /// SHA-256 of what the program polls with.
    pub hash: Vec<u8>,
    /// A keyed hash of what a person types.
    pub user_code: Vec<u8>,
    /// What became of it.
    pub state: State,
    /// What the program calls its machine.
    pub device: String,
    /// From where it asked.
    pub address: String,
    /// Milliseconds since 1970.
    pub created_at: i64,
    /// Milliseconds since 1970.
    pub expires_at: i64,
    /// How long to wait between two polls, in ms.
    pub wait: i64,
    /// Milliseconds since 1970; 0: never.
    pub polled_at: i64,
    /// The user who decided; empty: nobody.
    pub principal: String,
    /// Where the user is kept.
    pub source: String,
    /// Names the password that the user signed in with; empty where there was none.
    pub credential: String,
    /// The provider that the user signed in with; empty: a password.
    pub provider: String,
    /// The account there.
    pub subject: String,
    /// When what is made of it ends at the latest, in milliseconds since 1970; `None`: as configured.
    pub lasts_until: Option<i64>,
    /// The terminal that was made of it; empty: none.
    pub terminal: String,
}

impl fmt::Debug for DeviceRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceRow")
            .field("state", &self.state)
            .field("device", &self.device)
            .field("principal", &self.principal)
            .finish_non_exhaustive()
    }
}

fn read(row: &mut Row) -> Result<DeviceRow> {
    Ok(DeviceRow {
        hash: row.bytes(0)?,
        user_code: row.bytes(1)?,
        state: State::of(row.int(2)?),
        device: row.text(3)?,
        address: row.text(4)?,
        created_at: row.int(5)?,
        expires_at: row.int(6)?,
        wait: row.int(7)?,
        polled_at: row.int(8)?,
        principal: row.text(9)?,
        source: row.text(10)?,
        credential: row.text(11)?,
        provider: row.text(12)?,
        subject: row.text(13)?,
        lasts_until: row.opt_int(14)?,
        terminal: row.text(15)?,
    })
}

/// Held by whoever counts what waits.
const LOCK: &str = "device.lock";

async fn locked<T: Tx>(tx: &mut T, hash: &[u8]) -> Result<Option<DeviceRow>> {
    let row = tx
        .row(
            "SELECT hash, user_code, state, device, address, created_at, expires_at, wait, polled_at, principal, source, credential, \
             provider, subject, lasts_until, terminal FROM device_grant WHERE hash = $1 FOR UPDATE",
            vals![hash],
        )
        .await?;
    row.map(|mut row| read(&mut row)).transpose()
}

/// What came of asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It waits.
    Waits,
    /// Another one has the same code for people.
    Taken,
    /// [`MOST_WAITING`] or [`MOST_OF_ADDRESS`] wait already.
    Full,
}

/// Waits for a person. One at a time. Cost: two rows, and as many index entries as may wait.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What waits; who decided is not looked at.
    pub row: DeviceRow,
}

impl Op for Ask {
    type Out = Asked;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Asked> {
        let row = &self.row;
        // Of two that are asked for at once the second sees the first, or more would wait than may.
        setting::lock(tx, LOCK).await?;
        let held = tx
            .query(
                "SELECT 1 FROM device_grant WHERE address = $1 AND state = 0 AND expires_at > $2 LIMIT $3",
                vals![&row.address, row.created_at, MOST_OF_ADDRESS],
            )
            .await?;
        if held.len() >= MOST_OF_ADDRESS as usize {
            return Ok(Asked::Full);
        }
        let last = tx
            .row(
                "SELECT 1 FROM device_grant WHERE state = 0 AND expires_at > $1 ORDER BY expires_at LIMIT 1 OFFSET $2",
                vals![row.created_at, MOST_WAITING - 1],
            )
            .await?;
        if last.is_some() {
            return Ok(Asked::Full);
        }
        let made = tx
            .exec(
                "INSERT INTO device_grant (hash, user_code, state, device, address, created_at, expires_at, wait, polled_at, principal, \
                 source, credential, provider, subject, lasts_until, terminal) \
                 VALUES ($1, $2, 0, $3, $4, $5, $6, $7, 0, '', '', '', '', '', NULL, '') ON CONFLICT DO NOTHING",
                vals![
                    &row.hash,
                    &row.user_code,
                    &row.device,
                    &row.address,
                    row.created_at,
                    row.expires_at,
                    row.wait
                ],
            )
            .await?;
        Ok(match made {
            0 => Asked::Taken,
            _ => Asked::Waits,
        })
    }
}

/// The request for which a person has a code. Cost: one row.
#[derive(Clone)]
pub struct ByUserCode {
    /// The keyed hash.
    pub user_code: Vec<u8>,
}

impl ReadOp for ByUserCode {}
impl Op for ByUserCode {
    type Out = Option<DeviceRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let row = tx
            .row(
                "SELECT hash, user_code, state, device, address, created_at, expires_at, wait, polled_at, principal, source, credential, \
                 provider, subject, lasts_until, terminal FROM device_grant WHERE user_code = $1",
                vals![&self.user_code],
            )
            .await?;
        row.map(|mut row| read(&mut row)).transpose()
    }
}

/// What came of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// It counts.
    Done,
    /// Nothing waits with that code, or no longer.
    Unknown,
    /// The session with which it was decided is over.
    SignedOut,
}

/// Says yes or no to what waits. Cost: three rows.
#[derive(Clone)]
pub struct Decide {
    /// The keyed hash of the code.
    pub user_code: Vec<u8>,
    /// Who decides.
    pub principal: String,
    /// The session with which it is done.
    pub session: String,
    /// Yes.
    pub approve: bool,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Decide {
    type Out = Decided;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Decided> {
        session::lock(tx, &self.principal).await?;
        let session = session::locked(tx, &self.session).await?;
        let session = session
            .filter(|row| row.principal == self.principal && !row.kept && row.expires_at > self.at);
        let Some(session) = session else {
            return Ok(Decided::SignedOut);
        };
        let by_code = ByUserCode {
            user_code: self.user_code.clone(),
        };
        let found = match by_code.run(tx).await? {
            Some(row) => locked(tx, &row.hash).await?,
            None => None,
        };
        let waits = |row: &DeviceRow| row.state == State::Waits && row.expires_at > self.at;
        let Some(row) = found.filter(waits) else {
            return Ok(Decided::Unknown);
        };
        let state = if self.approve {
            State::Approved
        } else {
            State::Denied
        };
        // Of an account nobody can be asked about, no more is known later than when its session ends.
        let asked = session.provider.is_empty() || session.refresh.is_some();
        let lasts_until = (!asked).then_some(session.expires_at);
        tx.exec(
            "UPDATE device_grant SET state = $2, principal = $3, source = $4, credential = $5, provider = $6, subject = $7, \
             lasts_until = $8 WHERE hash = $1",
            vals![
                &row.hash,
                state.number(),
                &session.principal,
                &session.source,
                &session.credential,
                &session.provider,
                &session.subject,
                lasts_until
            ],
        )
        .await?;
        let kind = if self.approve {
            Kind::DeviceApprove
        } else {
            Kind::DeviceDeny
        };
        let after = json!({"device": row.device, "address": row.address, "session": self.session});
        let fact = Fact {
            kind,
            repository: None,
            digest: None,
            tag: None,
            actor: &self.principal,
            at: self.at,
            payload: json!({"what": "device", "before": Value::Null, "after": after}),
        };
        event::record(tx, fact).await?;
        Ok(Decided::Done)
    }
}

/// What a poll finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// No such code, or one that was forgotten.
    Unknown,
    /// Nobody decided in time.
    Expired,
    /// Nobody has decided yet.
    Waits,
    /// The same, and the program asks more often than it was told to; how long it has to wait from now on, in ms.
    TooFast(i64),
    /// Somebody said no.
    Denied,
    /// Somebody said yes; the row stays as it is.
    Approved(Box<DeviceRow>),
    /// Whose it is, and the terminal that was made of it.
    Spent(String, String),
}

/// Looks what became of it, and counts the poll. Cost: one row.
#[derive(Clone)]
pub struct Poll {
    /// SHA-256 of what the program polls with.
    pub hash: Vec<u8>,
    /// Milliseconds since 1970.
    pub at: i64,
    /// How much longer to wait after a poll that came too soon, in ms.
    pub longer: i64,
}

impl Op for Poll {
    type Out = Polled;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Polled> {
        let Some(row) = locked(tx, &self.hash).await? else {
            return Ok(Polled::Unknown);
        };
        match row.state {
            State::Spent => return Ok(Polled::Spent(row.principal, row.terminal)),
            _ if row.expires_at <= self.at => return Ok(Polled::Expired),
            State::Denied => return Ok(Polled::Denied),
            State::Approved => return Ok(Polled::Approved(Box::new(row))),
            State::Waits => {}
        }
        // A clock that was set back makes no poll too soon.
        let soon = row.polled_at != 0
            && self.at.saturating_sub(row.polled_at).unsigned_abs() < row.wait.unsigned_abs();
        let wait = if soon {
            row.wait.saturating_add(self.longer)
        } else {
            row.wait
        };
        tx.exec(
            "UPDATE device_grant SET polled_at = $2, wait = $3 WHERE hash = $1",
            vals![&self.hash, self.at, wait],
        )
        .await?;
        Ok(if soon {
            Polled::TooFast(wait)
        } else {
            Polled::Waits
        })
    }
}

/// What came of redeeming.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Redeemed {
    /// There is a terminal.
    Done,
    /// It is not, or no longer, approved by that user.
    Not,
    /// Nothing asks the provider for the account any more.
    Unasked,
}

/// Makes a terminal of what was approved; of too many of one user the one goes that was made first. Cost: the user's terminals.
#[derive(Clone, Debug)]
pub struct Redeem {
    /// SHA-256 of what the program polls with.
    pub hash: Vec<u8>,
    /// The terminal.
    pub terminal: terminal::TerminalRow,
}

impl Op for Redeem {
    type Out = Redeemed;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Redeemed> {
        let (new, at) = (&self.terminal, self.terminal.created_at);
        session::lock(tx, &new.principal).await?;
        let asked = new.provider.is_empty()
            || session::asks(tx, &new.principal, &new.provider, &new.subject).await?;
        let good = |row: &DeviceRow| {
            row.state == State::Approved && row.expires_at > at && row.principal == new.principal
        };
        let Some(row) = locked(tx, &self.hash).await?.filter(good) else {
            return Ok(Redeemed::Not);
        };
        if !asked && row.lasts_until.is_none() {
            return Ok(Redeemed::Unasked);
        }
        terminal::add(tx, new).await?;
        tx.exec(
            "UPDATE device_grant SET state = 3, terminal = $2 WHERE hash = $1",
            vals![&self.hash, &new.id],
        )
        .await?;
        Ok(Redeemed::Done)
    }
}

/// Forgets requests that ended before a time, at most so many; gives how many. Cost: their rows.
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
        tx.exec(
            "DELETE FROM device_grant WHERE hash IN (SELECT hash FROM device_grant WHERE expires_at < $1 ORDER BY expires_at LIMIT $2)",
            vals![self.before, self.limit],
        )
        .await
    }
}

/// Takes back what a user has approved and nobody has fetched.
pub(super) async fn take_back<T: Tx>(tx: &mut T, principal: &str) -> Result<()> {
    tx.exec(
        "UPDATE device_grant SET state = 2 WHERE principal = $1 AND state = 1",
        vals![principal],
    )
    .await?;
    Ok(())
}
