//! What this user signed in to registries with: one file, `credentials.toml` beside `contexts.toml`, mode 0600.
//!
//! Used by every command that talks to a registry elsewhere, and by `docker-credential-wharf`. Tokens of a terminal are others after
//! each use, and this is the one place where they are used:
//!
//! ```text
//! good          the access token is in the first half of its life → it, without a lock
//! renew         turn of this registry (a lock that one process holds) → read again: somebody else has renewed it? → it
//!               room for the file made beside it, so that nothing is asked for that could not be kept
//!               → the registry: the refresh token for new ones → lock of the file → read again, changed, synced, renamed
//! ```
//!
//! A process that is killed before the rename leaves the old refresh token, which the registry takes once more for half a minute as
//! long as nobody used its successor. The file's lock is held for as long as a write takes, never while a registry is asked: one that
//! does not answer holds up nobody but its own users.

mod device;
mod kept;
mod oauth;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub(in crate::cli) use self::device::Event;
pub(in crate::cli) use self::kept::{Credential, Good, How, Kept};
use self::kept::{Terminal, hash};
pub(in crate::cli) use self::oauth::Code;
use self::oauth::{Answered, Found, Grant};
use super::file::{self, Beside, Lock};
use super::wire::Target;
use crate::cli::exit::{Exit, Failure, Outcome};

const NAME: &str = "credentials.toml";
/// Largest file, in bytes.
const LARGEST: usize = 8 << 20;
/// More than the file can grow by one renewal, in bytes.
const ROOM: usize = 64 << 10;
/// For the file: writes are short.
const PATIENCE: Duration = Duration::from_secs(20);
/// For the turn at a registry: longer than a renewal with all of its tries takes.
const TURN: Duration = Duration::from_secs(60);
/// Before the second try, and before the third: together with what they take at most within the half minute in which an answer
/// that was lost can be asked for again.
const AGAIN: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(1)];

/// The file of one user.
pub(in crate::cli) struct Keeper {
    path: PathBuf,
    /// Seconds since 1970.
    now: fn() -> i64,
}

impl Keeper {
    /// Of whoever runs this.
    pub(in crate::cli) fn of_user() -> Result<Self, Failure> {
        Ok(Self {
            path: file::contexts()?.with_file_name(NAME),
            now: || jiff::Timestamp::now().as_second(),
        })
    }

    /// All that is kept.
    pub(in crate::cli) fn load(&self) -> Result<Kept, Failure> {
        let Some(text) = file::read(&self.path, LARGEST)? else {
            return Ok(Kept::default());
        };
        // Not the parser's own words: they quote the line, and so a secret.
        Kept::read(&text).ok_or_else(|| {
            let text = format!(
                "{} is damaged, or from a newer version: correct it, or remove it and sign in again",
                self.path.display()
            );
            Failure::text(Exit::Usage, text)
        })
    }

    /// Whether something could be kept here, before anybody takes the trouble to sign in.
    pub(in crate::cli) fn check(&self) -> Outcome {
        self.change(|_| Ok(())).map(drop)
    }

    fn lock(&self) -> Result<Lock, Failure> {
        Lock::take(&self.path.with_file_name("credentials.lock"), PATIENCE)
    }

    fn room(&self, name: &str, kept: &Kept) -> Result<Beside, Failure> {
        let text = kept
            .render()
            .map_err(|error| Failure::new(Exit::Failure, error))?;
        Beside::make(&self.path, name, text.len() + ROOM)
            .map_err(|error| file::failed(&self.path, &error))
    }

    fn put(&self, room: Beside, kept: &Kept) -> Outcome {
        let text = kept
            .render()
            .map_err(|error| Failure::new(Exit::Failure, error))?;
        room.put(&text)
            .map_err(|error| file::failed(&self.path, &error))
    }

    /// Changes the file; what it says afterwards is on the disk when this returns.
    fn change<T>(&self, edit: impl FnOnce(&mut Kept) -> Result<T, String>) -> Result<T, Failure> {
        let _lock = self.lock()?;
        let mut kept = self.load()?;
        let room = self.room("credentials.new", &kept)?;
        let made = edit(&mut kept).map_err(|text| {
            Failure::text(Exit::Usage, format!("{}: {text}", self.path.display()))
        })?;
        self.put(room, &kept)?;
        Ok(made)
    }

    /// Keeps a password or a token that stays as it is.
    pub(in crate::cli) fn put_password(&self, key: &str, user: &str, secret: String) -> Outcome {
        let before = self.change(|kept| kept.put(key, user, Credential::Password { secret }))?;
        self.end(before);
        Ok(())
    }

    /// Keeps what a client has signed in with.
    pub(in crate::cli) fn store(
        &self,
        server: &crate::credential_helper::Server,
        named: &str,
        user: &str,
        secret: String,
    ) -> Outcome {
        let before = self.change(|kept| kept.store(server, named, user, secret))?;
        self.end(before);
        Ok(())
    }

    /// Forgets somebody. What the registry could not be told is in the failure inside.
    pub(in crate::cli) fn erase(&self, key: &str, user: &str) -> Result<Outcome, Failure> {
        let gone = self.change(|kept| Ok(kept.erase(key, user)))?;
        Ok(gone.map_or(Ok(()), |gone| revoke(&gone)))
    }

    /// What was replaced is good for nothing any more; a registry that cannot be told ends it when its time is over.
    fn end(&self, before: Option<Credential>) {
        if let Some(Err(failure)) = before.as_ref().map(revoke) {
            eprintln!(
                "warning: the sign-in before this one could not be ended: {}",
                failure.error
            );
        }
    }

    /// A secret of somebody who is signed in. `worn` is an access token that the registry has just refused.
    pub(in crate::cli) fn good(
        &self,
        key: &str,
        user: &str,
        worn: Option<&str>,
    ) -> Result<Option<Good>, Failure> {
        match self.load()?.get(key, user) {
            None => Ok(None),
            Some(Credential::Password { secret }) => Ok(Some(Good::Password(secret.clone()))),
            Some(Credential::Terminal(terminal)) => match usable(terminal, (self.now)(), worn) {
                Some(good) => Ok(Some(good)),
                None => self.renew(key, user, worn),
            },
        }
    }

    fn renew(&self, key: &str, user: &str, worn: Option<&str>) -> Result<Option<Good>, Failure> {
        let mark = &hash(key)[..16];
        // Whoever cannot write goes on for as long as the access token lasts.
        let turn = Lock::take(
            &self.path.with_file_name(format!("renew-{mark}.lock")),
            TURN,
        );
        let mut kept = self.load()?;
        let Some(terminal) = kept.terminal(key, user).cloned() else {
            return self.good(key, user, worn);
        };
        if let Some(good) = usable(&terminal, (self.now)(), worn) {
            return Ok(Some(good));
        }
        let Some(sent) = terminal.refresh.clone() else {
            return Err(signed_out(&terminal, user));
        };
        let last = |failure: Failure| {
            let lasting = terminal.lasting((self.now)()).filter(|_| worn.is_none());
            lasting.map(Some).ok_or(failure)
        };
        let room =
            turn.and_then(|turn| Ok((turn, self.room(&format!("renew-{mark}.new"), &kept)?)));
        let (_turn, room) = match room {
            Ok(room) => room,
            Err(failure) => return last(failure),
        };
        let asked = (self.now)();
        let answered = refresh(&terminal, &sent);
        let _lock = self.lock()?;
        let mut kept = self.load()?;
        let held = kept
            .terminal(key, user)
            .filter(|held| held.refresh.as_deref() == Some(&sent));
        let Some(held) = held else {
            // Somebody signed out, or in anew, meanwhile; that ended what was asked for.
            return match kept.get(key, user) {
                Some(Credential::Password { secret }) => Ok(Some(Good::Password(secret.clone()))),
                Some(Credential::Terminal(terminal)) => match terminal.lasting((self.now)()) {
                    Some(good) => Ok(Some(good)),
                    None => Err(signed_out(terminal, user)),
                },
                None => Ok(None),
            };
        };
        match answered {
            Answered::Granted(grant) => {
                held.renewed(grant, asked);
                let good = Good::Access(held.access.clone());
                self.put(room, &kept)?;
                Ok(Some(good))
            }
            Answered::Refused { error, .. } if error == "invalid_grant" => {
                held.refresh = None;
                held.access.clear();
                let failure = signed_out(held, user);
                self.put(room, &kept)?;
                Err(failure)
            }
            Answered::Refused { told, .. } => last(Failure::text(
                Exit::Failure,
                format!("{} gives no new token: {told}", terminal.url),
            )),
            Answered::Unclear(failure) => last(failure),
        }
    }

    /// Signs in by device, if the registry knows how, and keeps what comes of it. Nothing when it asks for name and password.
    pub(in crate::cli) fn sign_in(
        &self,
        key: &str,
        url: &str,
        authority: Option<&Path>,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<SignedIn, Failure> {
        let target = Target { url, authority };
        let endpoints = match oauth::discover(target)? {
            Found::Password => return Ok(SignedIn::Not),
            Found::Elsewhere(issuer) => return Ok(SignedIn::Elsewhere(issuer)),
            Found::Device(endpoints) => endpoints,
        };
        let pace = device::Real::new();
        let grant = device::sign_in(target, &endpoints, &machine(), &pace, tell)?;
        let user = grant.user.clone();
        let mut terminal = Terminal {
            url: url.to_owned(),
            authority: authority.map(Path::to_owned),
            token: endpoints.token,
            revoke: endpoints.revoke,
            refresh: None,
            access: String::new(),
            from: 0,
            ends: 0,
            before: None,
        };
        terminal.renewed(grant, (self.now)());
        let terminal = Box::new(terminal);
        let before = self.change(|kept| kept.put(key, &user, Credential::Terminal(terminal)))?;
        self.end(before);
        Ok(SignedIn::As(user))
    }
}

/// What came of it.
pub(in crate::cli) enum SignedIn {
    As(String),
    /// Nothing: the registry asks for name and password.
    Not,
    /// Nothing: the registry has another name, which is this.
    Elsewhere(String),
}

impl Terminal {
    fn target(&self) -> Target<'_> {
        Target {
            url: &self.url,
            authority: self.authority.as_deref(),
        }
    }

    fn renewed(&mut self, grant: Grant, asked: i64) {
        self.before = (!self.access.is_empty()).then(|| hash(&self.access));
        self.access = grant.access;
        self.refresh = Some(grant.refresh);
        self.from = asked;
        self.ends = asked + grant.lasts;
    }
}

/// The access token, unless it is old or refused.
fn usable(terminal: &Terminal, now: i64, worn: Option<&str>) -> Option<Good> {
    let is_worn = worn.is_some_and(|worn| worn == terminal.access);
    terminal.fresh(now).filter(|_| !is_worn)
}

/// Asks for new tokens, again when it is unclear what became of it: the one before is good for a while yet.
fn refresh(terminal: &Terminal, sent: &str) -> Answered {
    let form = [("grant_type", "refresh_token"), ("refresh_token", sent)];
    let mut answered = oauth::tokens(terminal.target(), &terminal.token, &form);
    for pause in AGAIN {
        if !matches!(answered, Answered::Unclear(_)) {
            break;
        }
        std::thread::sleep(pause);
        answered = oauth::tokens(terminal.target(), &terminal.token, &form);
    }
    answered
}

fn revoke(credential: &Credential) -> Outcome {
    let Credential::Terminal(terminal) = credential else {
        return Ok(());
    };
    match (&terminal.revoke, &terminal.refresh) {
        (Some(path), Some(refresh)) => oauth::revoke(terminal.target(), path, refresh),
        _ => Ok(()),
    }
}

fn signed_out(terminal: &Terminal, user: &str) -> Failure {
    let text = format!(
        "{user} was signed out by {}: run `{}`",
        terminal.url,
        oauth::login(&terminal.url)
    );
    Failure::text(Exit::Failure, text)
}

/// Nobody is signed in as this user.
pub(in crate::cli) fn nobody(url: &str, user: &str) -> Failure {
    let text = format!(
        "{user} is not signed in to {url}: run `{}`",
        oauth::login(url)
    );
    Failure::text(Exit::Failure, text)
}

/// A registry as `wharf login` wants it.
fn hosts(url: &str) -> &str {
    url.strip_prefix("https://").unwrap_or(url)
}

/// This machine's name, as far as it is plain.
fn machine() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy();
    let plain = |c: &char| c.is_ascii_alphanumeric() || "-._".contains(*c);
    name.chars().filter(plain).take(64).collect()
}

#[cfg(test)]
mod tests;
