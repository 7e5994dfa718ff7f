//! Terminals as a request sees them: a token names the one that it was given to, which is looked up at each use, so that it dies with
//! it. From memory once warm; over a database that replicas share, for moments only.
//!
//! A terminal's access token is one of ours without a list of what it is for: it may what its user may at that moment. As a password it
//! buys narrower ones at the token endpoint, as any password does.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;

use super::Access;
use super::authenticate::AuthFailure;
use super::principal::{Caller, Circumstances, SignIn, Source};
use super::secret::Password;
use super::store::{Secrets, TerminalRow};
use super::token::TokenFault;
use crate::workload::{Jwt, is_jwt};
use crate::{Error, Result};

/// What stands before the id where a token names the terminal that it was given to.
pub(crate) const BY_TERMINAL: &str = "terminal.";
/// How long what was read counts while other processes may change it.
const FRESH: Duration = Duration::from_secs(2);
/// Most that are remembered, known or known to be absent.
const REMEMBERED: usize = 10_000;
/// How often the last use of one is written at most, in ms.
const NOTE_EVERY: i64 = 60_000;

#[derive(Debug)]
struct Terminal {
    id: Arc<str>,
    principal: Arc<str>,
    source: Option<Source>,
    /// Names the password it was approved with; empty where there was none.
    credential: String,
    expires_at: i64,
}

impl Terminal {
    fn read(row: TerminalRow) -> Self {
        Self {
            id: row.id.into(),
            principal: row.principal.into(),
            source: source(&row.source),
            credential: row.credential,
            expires_at: row.expires_at,
        }
    }
}

fn source(word: &str) -> Option<Source> {
    let all = [Source::Local, Source::Htpasswd];
    all.into_iter().find(|source| source.as_str() == word)
}

#[derive(Clone, Debug)]
struct Known {
    terminal: Option<Arc<Terminal>>,
    asked: Instant,
}

/// All terminals of the registry.
#[derive(Debug)]
pub(super) struct Terminals {
    secrets: Arc<dyn Secrets>,
    by_id: Cache<Arc<str>, Known>,
    noted: Cache<Arc<str>, i64>,
    /// Counts changes: what was read before a change is not remembered after it.
    changes: Mutex<u64>,
}

impl Terminals {
    pub(super) fn new(secrets: Arc<dyn Secrets>) -> Self {
        Self {
            secrets,
            by_id: Cache::new(REMEMBERED),
            noted: Cache::new(REMEMBERED),
            changes: Mutex::new(0),
        }
    }

    async fn find(&self, id: &str) -> Result<Option<Arc<Terminal>>> {
        let is_fresh = |known: &Known| !self.secrets.is_shared() || known.asked.elapsed() < FRESH;
        if let Some(known) = self.by_id.get(id).filter(is_fresh) {
            return Ok(known.terminal);
        }
        let asked = Instant::now();
        let before = *self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let row = self.secrets.terminal(id).await?;
        let terminal = row.map(|row| Arc::new(Terminal::read(row)));
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if *changes == before {
            let terminal = terminal.clone();
            self.by_id.insert(id.into(), Known { terminal, asked });
        }
        Ok(terminal)
    }

    /// To be called after one was made or rotated, or, without an id, after some have ended.
    fn forget(&self, id: Option<&str>) {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        *changes += 1;
        match id {
            Some(id) => drop(self.by_id.remove(id)),
            None => self.by_id.clear(),
        }
    }

    /// Notes a use, beside the request and not for each.
    fn note(&self, id: &Arc<str>, came: Circumstances) {
        let noted = self.noted.get(id);
        // The second half matters when the clock was set back.
        if noted.is_some_and(|at| came.at < at + NOTE_EVERY && at < came.at + NOTE_EVERY) {
            return;
        }
        self.noted.insert(id.clone(), came.at);
        let address = came
            .address
            .map(|address| address.to_canonical().to_string());
        let (secrets, id) = (self.secrets.clone(), id.to_string());
        tokio::spawn(async move {
            let noted = secrets.note_terminal(id, came.at, address.unwrap_or_default());
            if let Err(error) = noted.await {
                tracing::debug!(%error, "the use of a terminal could not be noted");
            }
        });
    }
}

impl Access {
    /// The user of a terminal, as long as both stand.
    pub(super) async fn by_terminal(
        &self,
        name: &str,
        credential: &str,
        came: Circumstances,
    ) -> Result<Option<Caller>, Error> {
        let id = credential.strip_prefix(BY_TERMINAL).unwrap_or_default();
        let found = self.terminals.find(id).await?;
        let good = |found: &Arc<Terminal>| *found.principal == *name && came.at < found.expires_at;
        let Some(terminal) = found.filter(good) else {
            return Ok(None);
        };
        let user = self.users.find(name).await?;
        // Another password, or somebody else of the same name.
        let Some(user) = user.filter(|user| {
            user.stands(came)
                && user.source().is_some()
                && user.source() == terminal.source
                && (terminal.credential.is_empty() || terminal.credential == **user.credential())
        }) else {
            return Ok(None);
        };
        if self.is_lost(&user).await? {
            return Ok(None);
        }
        self.terminals.note(&terminal.id, came);
        let sign_in = SignIn::Terminal;
        Ok(Some(Caller {
            credential: Some(terminal.id.clone()),
            ..Caller::direct(user.principal()).under(Circumstances { sign_in, ..came })
        }))
    }

    /// Whether a password is a token that says it is ours.
    pub(super) fn is_own_token(&self, password: &str) -> bool {
        is_jwt(password)
            && Jwt::read(password).is_ok_and(|jwt| jwt.issuer() == Some(self.service()))
    }

    /// Who comes with a terminal's access token as a password, and the credential that was proved. No other token of ours is one.
    pub(super) async fn by_access_token(
        &self,
        name: &str,
        token: &str,
        came: Circumstances,
    ) -> Result<(Caller, String), AuthFailure> {
        let token = self.tokens.verify(token, came.at).await?;
        if !token.whole || *token.subject != *name {
            return Err(AuthFailure::Secret);
        }
        if token.standing(came.at)?.is_some() {
            return Err(TokenFault::Expired.into());
        }
        let credential = token.credential.to_string();
        let caller = self.with_credential(name, &credential, came).await?;
        Ok((caller.ok_or(TokenFault::Revoked)?, credential))
    }

    /// A terminal's access token, and its life in seconds.
    pub(crate) fn terminal_token(&self, user: &str, id: &str, now: i64) -> Result<(Password, u64)> {
        let credential = format!("{BY_TERMINAL}{id}");
        let seconds = self.token_seconds;
        let token = self.tokens.issue_whole(user, &credential, now, seconds)?;
        Ok((token, seconds.unsigned_abs()))
    }

    /// To be called after a terminal was made or rotated by this process, or, without an id, after some have ended.
    pub(crate) fn forget_terminal(&self, id: Option<&str>) {
        self.terminals.forget(id);
    }

    /// Counts a guess at a code that lets a program sign in: by who guesses, and by where. Its end is for the caller to tell.
    pub(crate) fn begin_code(
        &self,
        user: &str,
        code: &str,
        came: Circumstances,
    ) -> Result<CodeGuess, AuthFailure> {
        let limit = |retry_after| AuthFailure::Codes { retry_after };
        // No user's name has a space, so neither is a user's own watch over passwords.
        let account = format!("codes of {user}");
        let own = self.backoff.begin(&account, None, code, came.at);
        let own = own.map_err(limit)?;
        let place = self.backoff.begin("all codes", came.address, code, came.at);
        let place = place.map_err(|wait| {
            self.backoff.withdraw(&own);
            limit(wait)
        })?;
        if let Err(limited) = self.rates.sign_in(came.address) {
            self.backoff.withdraw(&own);
            self.backoff.withdraw(&place);
            return Err(limited.into());
        }
        Ok(CodeGuess(own, place))
    }

    /// The code was right. What was guessed before goes on to count: whoever guesses has a right code at any time, of a program of their
    /// own.
    pub(crate) fn end_code(&self, guess: &CodeGuess) {
        self.backoff.withdraw(&guess.0);
        self.backoff.withdraw(&guess.1);
    }

    /// The form in which a code that people type is kept: hidden, since there are not so many that nobody could try them all.
    pub(crate) fn hide_code(&self, code: &str) -> Vec<u8> {
        aws_lc_rs::hmac::sign(&self.codes, code.as_bytes())
            .as_ref()
            .to_vec()
    }
}

/// A guess at a code, by account and by address.
#[derive(Debug)]
pub(crate) struct CodeGuess(super::backoff::Guess, super::backoff::Guess);
