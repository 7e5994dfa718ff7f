//! Terminals: programs on people's machines that sign in without a password (RFC 8628).
//!
//! A program asks, and shows a code; a person types the code on a page, where they are signed in, and says yes; the program, which polled
//! meanwhile, gets an access token and a refresh token. Whoever uses a refresh token gets the next one, and one that comes twice ends the
//! terminal, since two have it. Called by `server/src/ui` for the page and by `server/src/v2` for the token endpoint; codes and tokens are
//! kept as hashes, and no error tells one.

mod code;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::time::Duration;

use wharf_meta::device::{self, Asked, Decided, DeviceRow, Polled, Redeemed, State};
use wharf_meta::session::{End, Which};
use wharf_meta::terminal::{self, Rotated, TerminalRow};

pub use self::code::{LONGEST_DEVICE, read_code, read_device};
pub use wharf_meta::device::{MOST_OF_ADDRESS, MOST_WAITING};
pub use wharf_meta::terminal::MOST_TERMINALS;

use crate::access::{
    AuthFailure, Caller, Circumstances, Limited, Password, RateKind, SecretKind, family_of,
    hash_secret, new_secret, next_secret, one_client, random_id,
};
use crate::registry::Registry;
use crate::session::Session;
use crate::{Error, Result};

/// How long a person has time to decide.
pub const CODE_LIFE: Duration = Duration::from_secs(600);
/// How long a program waits between two polls.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// So much longer it waits after each poll that came too soon (RFC 8628, 3.5).
const LONGER: i64 = 5_000;
/// So long after its use a refresh token is good for another one, as long as that one was not used: it was lost on its way.
pub const GRACE: Duration = Duration::from_secs(30);
/// A code for people that is taken already is made anew so often.
const TRIES: usize = 5;
/// Rows of one step of forgetting.
const STEP: u32 = 200;

/// How long terminals are good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalRules {
    /// At most.
    pub lifetime: Duration,
    /// Without being used.
    pub idle: Duration,
}

impl Default for TerminalRules {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_secs(90 * 86_400),
            idle: Duration::from_secs(30 * 86_400),
        }
    }
}

fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4)
}

fn address(came: Circumstances) -> String {
    let address = came.address.map(|address| address.to_canonical());
    address.map_or_else(String::new, |address| address.to_string())
}

/// From where a program asks, as it counts and is shown.
pub fn place(came: Circumstances) -> String {
    match came.address.map(one_client) {
        Some(IpAddr::V6(network)) => format!("{network}/64"),
        _ => address(came),
    }
}

/// Why a terminal gets nothing (RFC 6749, 5.2, and RFC 8628, 3.5).
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// What was sent cannot be meant.
    #[error("{0}")]
    Request(String),
    /// Nobody has decided yet.
    #[error("nobody has confirmed the code yet")]
    Pending,
    /// It asks too often.
    #[error("wait {} s between two requests", wait.as_secs())]
    SlowDown {
        /// How long to wait from now on.
        wait: Duration,
    },
    /// Too many wait for somebody to decide.
    #[error(
        "too many programs wait to be confirmed, here or from your address; try again in a few minutes"
    )]
    Full,
    /// Somebody said no.
    #[error("the sign-in was refused on the page, or taken back")]
    Denied,
    /// Nobody decided in time.
    #[error("nobody confirmed the code in time; begin again")]
    Expired,
    /// A code or token that is not, or no longer, good.
    #[error("{0}")]
    Grant(&'static str),
    /// Asked for too often by this client.
    #[error(transparent)]
    Limited(#[from] Limited),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl TerminalError {
    /// The word for programs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Request(_) => "invalid_request",
            Self::Pending => "authorization_pending",
            Self::SlowDown { .. } | Self::Full | Self::Limited(_) => "slow_down",
            Self::Denied => "access_denied",
            Self::Expired => "expired_token",
            Self::Grant(_) => "invalid_grant",
            Self::Store(_) => "server_error",
        }
    }
}

const BAD_CODE: &str =
    "the device code is unknown, was used already, or is not from here; begin again";
const BAD_TOKEN: &str = "the refresh token is not, or no longer, good; sign in again";
const BAD_USER: &str = "whoever confirmed this cannot sign in any more; begin again";

/// What a program is given that asks.
#[derive(Debug)]
pub struct Begun {
    /// What it polls with.
    pub device_code: Password,
    /// What a person types, `ABCD-EFGH`.
    pub user_code: Password,
}

/// Begins to wait for a person. `device` is what the program calls its machine.
pub async fn begin(
    registry: &Registry,
    device: &str,
    came: Circumstances,
) -> Result<Begun, TerminalError> {
    let device = read_device(device).map_err(TerminalError::Request)?;
    let nobody = Caller::anonymous().under(came);
    registry.access.admit(RateKind::Token, &nobody, None, &[])?;
    let now = registry.clock.now_ms();
    for _ in 0..TRIES {
        let (device_code, user_code) = (new_secret(SecretKind::Device), code::new());
        let row = DeviceRow {
            hash: hash_secret(&device_code),
            user_code: registry.access.hide_code(&user_code),
            state: State::Waits,
            device: device.clone(),
            address: place(came),
            created_at: now,
            expires_at: now.saturating_add(ms(CODE_LIFE)),
            wait: ms(INTERVAL),
            polled_at: 0,
            principal: String::new(),
            source: String::new(),
            credential: String::new(),
            provider: String::new(),
            subject: String::new(),
            lasts_until: None,
            terminal: String::new(),
        };
        let asked = registry.meta.write(device::Ask { row }).await;
        match asked.map_err(Error::from)? {
            Asked::Waits => {
                return Ok(Begun {
                    device_code,
                    user_code: Password::new(code::shown(&user_code)),
                });
            }
            Asked::Taken => {}
            Asked::Full => return Err(TerminalError::Full),
        }
    }
    Err(Error::Internal("no free code was found".to_owned()).into())
}

/// What waits, as the page shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The code, `ABCD-EFGH`.
    pub code: String,
    /// What the program calls its machine; empty: nothing.
    pub device: String,
    /// [`place`] from where it asked.
    pub address: String,
    /// When it asked, in ms since 1970.
    pub asked_at: i64,
}

/// Why somebody's code leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// It is none.
    #[error("a code has eight letters, as in BCDF-GHJK")]
    Form,
    /// Nothing waits with it.
    #[error(
        "nothing waits with this code, or not any more; look at it again, or let the program begin anew"
    )]
    Unknown,
    /// The session with which it was decided is over.
    #[error("your session is over; sign in again")]
    SignedOut,
    /// 429: too many wrong ones.
    #[error(transparent)]
    Guessing(AuthFailure),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

/// What waits with a code that a person who is signed in typed. Wrong ones are counted.
pub async fn find(
    registry: &Registry,
    session: &Session,
    typed: &str,
    came: Circumstances,
) -> Result<Waiting, CodeError> {
    let code = read_code(typed).ok_or(CodeError::Form)?;
    let access = &registry.access;
    let user = session.caller.principal.name();
    let guess = access
        .begin_code(user, &code, came)
        .map_err(CodeError::Guessing)?;
    let user_code = access.hide_code(&code);
    let found = registry.meta.read(device::ByUserCode { user_code }).await;
    let found = found
        .map_err(Error::from)
        .inspect_err(|_| access.end_code(&guess))?;
    let now = registry.clock.now_ms();
    let waits = |row: &DeviceRow| row.state == State::Waits && row.expires_at > now;
    let row = found.filter(waits).ok_or(CodeError::Unknown)?;
    access.end_code(&guess);
    Ok(Waiting {
        code: code::shown(&code),
        device: row.device,
        address: row.address,
        asked_at: row.created_at,
    })
}

/// A person who is signed in says yes or no. Wrong codes are counted here, too.
pub async fn decide(
    registry: &Registry,
    session: &Session,
    typed: &str,
    approve: bool,
    came: Circumstances,
) -> Result<(), CodeError> {
    let waiting = find(registry, session, typed, came).await?;
    let code = read_code(&waiting.code).ok_or(CodeError::Form)?;
    let decide = device::Decide {
        user_code: registry.access.hide_code(&code),
        principal: session.caller.principal.name().to_owned(),
        session: session.id.clone(),
        approve,
        at: registry.clock.now_ms(),
    };
    match registry.meta.write(decide).await.map_err(Error::from)? {
        Decided::Done => Ok(()),
        Decided::Unknown => Err(CodeError::Unknown),
        Decided::SignedOut => Err(CodeError::SignedOut),
    }
}

/// What a terminal gets.
#[derive(Debug)]
pub struct Granted {
    /// Good for all that its user may.
    pub access_token: Password,
    /// In seconds.
    pub expires_in: u64,
    /// Good for one use.
    pub refresh_token: Password,
    /// The user.
    pub username: String,
    /// The terminal's id.
    pub terminal: String,
}

/// Looks whether somebody has decided; if they said yes, makes the terminal.
pub async fn poll(
    registry: &Registry,
    device_code: &Password,
    came: Circumstances,
) -> Result<Granted, TerminalError> {
    if !code::is_device_code(device_code) {
        return Err(TerminalError::Grant(BAD_CODE));
    }
    let nobody = Caller::anonymous().under(came);
    registry.access.admit(RateKind::Token, &nobody, None, &[])?;
    let now = registry.clock.now_ms();
    let hash = hash_secret(device_code);
    let poll = device::Poll {
        hash: hash.clone(),
        at: now,
        longer: LONGER,
    };
    let row = match registry.meta.write(poll).await.map_err(Error::from)? {
        Polled::Approved(row) => row,
        Polled::Unknown => return Err(TerminalError::Grant(BAD_CODE)),
        Polled::Expired => return Err(TerminalError::Expired),
        Polled::Waits => return Err(TerminalError::Pending),
        Polled::TooFast(wait) => {
            let wait = Duration::from_millis(wait.unsigned_abs());
            return Err(TerminalError::SlowDown { wait });
        }
        Polled::Denied => return Err(TerminalError::Denied),
        Polled::Spent(user, terminal) => {
            // Two have the code, or the answer was lost: either way nobody needs what was made of it.
            end_one(registry, &user, &terminal).await?;
            return Err(TerminalError::Grant(BAD_CODE));
        }
    };
    if !stands(registry, &row.principal, &row.source, &row.credential).await? {
        return Err(TerminalError::Grant(BAD_USER));
    }
    let (refresh_token, rules) = (
        new_secret(SecretKind::Terminal),
        registry.access.terminal_rules(),
    );
    let longest = now.saturating_add(ms(rules.lifetime));
    let ends_at = row.lasts_until.map_or(longest, |until| until.min(longest));
    let terminal = TerminalRow {
        id: random_id(),
        principal: row.principal,
        source: row.source,
        credential: row.credential,
        provider: row.provider,
        subject: row.subject,
        device: row.device,
        created_at: now,
        seen_at: now,
        address: address(came),
        family: family(&refresh_token),
        hash: hash_secret(&refresh_token),
        previous: None,
        rotated_at: now,
        generation: 1,
        expires_at: now.saturating_add(ms(rules.idle)).min(ends_at),
        ends_at,
    };
    let (id, user) = (terminal.id.clone(), terminal.principal.clone());
    let redeem = device::Redeem { hash, terminal };
    match registry.meta.write(redeem).await.map_err(Error::from)? {
        // Of too many the oldest has ended.
        Redeemed::Done => registry.access.forget_terminal(None),
        Redeemed::Not => return Err(TerminalError::Grant(BAD_CODE)),
        Redeemed::Unasked => return Err(TerminalError::Denied),
    }
    tracing::info!(user, id, "a terminal signed in");
    granted(registry, user, id, refresh_token, now)
}

/// Spends a refresh token for an access token and the next refresh token.
pub async fn refresh(
    registry: &Registry,
    token: &Password,
    came: Circumstances,
) -> Result<Granted, TerminalError> {
    let bad = || TerminalError::Grant(BAD_TOKEN);
    if family_of(token.reveal()).is_none() {
        return Err(bad());
    }
    let nobody = Caller::anonymous().under(came);
    registry.access.admit(RateKind::Token, &nobody, None, &[])?;
    let family = family(token);
    let by_family = terminal::ByFamily {
        family: family.clone(),
    };
    let found = registry.meta.read(by_family).await.map_err(Error::from)?;
    let found = found.ok_or_else(bad)?;
    let now = registry.clock.now_ms();
    // A token that was spent ends its terminal, whatever became of the user; one that was not stays.
    let shown = hash_secret(token);
    if shown == found.hash
        && !stands(registry, &found.principal, &found.source, &found.credential).await?
    {
        return Err(bad());
    }
    let next = next_secret(token);
    let rotate = terminal::Rotate {
        family,
        shown,
        next: hash_secret(&next),
        at: now,
        grace: ms(GRACE),
        idle: ms(registry.access.terminal_rules().idle),
        address: address(came),
    };
    let rotated = registry.meta.write(rotate).await.map_err(Error::from)?;
    registry.access.forget_terminal(Some(&found.id));
    let row = match rotated {
        Rotated::Done(row) => row,
        Rotated::Unknown | Rotated::Over => return Err(bad()),
        Rotated::Reused(row) => {
            let (user, id) = (&row.principal, &row.id);
            tracing::warn!(
                user,
                id,
                "a refresh token came that was spent: its terminal has ended"
            );
            return Err(bad());
        }
    };
    if !stands(registry, &row.principal, &row.source, &row.credential).await? {
        return Err(bad());
    }
    granted(registry, row.principal, row.id, next, now)
}

/// Ends the terminal of a refresh token, whether it was spent or not; what is none ends nothing.
pub async fn revoke(registry: &Registry, token: &Password) -> Result<()> {
    if family_of(token.reveal()).is_none() {
        return Ok(());
    }
    let family = family(token);
    let found = registry.meta.read(terminal::ByFamily { family }).await?;
    match found {
        Some(row) => end_one(registry, &row.principal, &row.id).await,
        None => Ok(()),
    }
}

async fn end_one(registry: &Registry, user: &str, id: &str) -> Result<()> {
    let end = End {
        principal: user.to_owned(),
        which: Which::One(id.to_owned()),
        at: registry.clock.now_ms(),
    };
    registry.meta.write(end).await?;
    registry.access.forget_terminal(None);
    Ok(())
}

/// Whether whoever approved it may still sign in, with the password of then.
async fn stands(registry: &Registry, user: &str, source: &str, credential: &str) -> Result<bool> {
    let standing = registry.access.user_standing(user).await?;
    Ok(standing.is_some_and(|(found, password)| {
        found.as_str() == source && (credential.is_empty() || credential == &*password)
    }))
}

fn granted(
    registry: &Registry,
    user: String,
    id: String,
    refresh_token: Password,
    now: i64,
) -> Result<Granted, TerminalError> {
    let (access_token, expires_in) = registry.access.terminal_token(&user, &id, now)?;
    Ok(Granted {
        access_token,
        expires_in,
        refresh_token,
        username: user,
        terminal: id,
    })
}

fn family(token: &Password) -> Vec<u8> {
    let family = family_of(token.reveal()).unwrap_or_default();
    hash_secret(&Password::new(family))
}

/// Forgets what waited and terminals that are over.
pub async fn forget(registry: &Registry) -> Result<()> {
    let limit = STEP;
    // A code that comes late is known for as long again.
    let before = registry.ages.older_than(&*registry.clock, ms(CODE_LIFE));
    let codes = device::Forget { before, limit };
    while registry.meta.write(codes).await? >= u64::from(STEP) {}
    let before = registry.long_over();
    let terminals = terminal::Forget { before, limit };
    while registry.meta.write(terminals).await? >= u64::from(STEP) {}
    Ok(())
}
