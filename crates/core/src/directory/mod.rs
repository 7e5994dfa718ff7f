//! Directories (LDAP, Active Directory): people who sign in with the password that they have there.
//!
//! Here is what LDAP means, as bytes and as decisions, and what a directory is to the rest of core: a [`Directory`], which `app`
//! implements with connections. Nothing here opens one. Must never put a password into a [`Story`], a [`Fault`] or a log.

pub mod ber;
pub mod dn;
pub mod filter;
pub mod message;
mod person;
mod recheck;
mod settings;
mod sign_in;

use std::fmt::Debug;
use std::pin::Pin;

pub use self::dn::Dn;
pub use self::filter::Filter;
pub use self::message::Scope;
pub use self::person::{
    IDS, Identity, LOCKS, by_identity, by_name, identity, is_user_name, locked,
};
pub use self::recheck::{AGAIN, ENOUGH, EVERY, Recheck};
pub use self::settings::{DirectorySettings, GroupSettings, MemberIs, Nested, ServerUrl};
pub use self::sign_in::{Directories, Source};
pub(crate) use self::sign_in::{Entered, Refusal};
use crate::access::Password;

/// Most groups of one person that count; the nearest are first.
pub const GROUPS: usize = 200;
/// Groups inside groups are followed so far.
pub const NESTED: usize = 10;
/// Longest password that is sent to a directory, in bytes.
pub const LONGEST_PASSWORD: usize = 1_024;

/// Somebody whom a directory knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// What stays the same when all else changes: kind and value, as [`Identity`] writes it.
    pub subject: String,
    /// The user name as the directory has it, in lower case.
    pub name: String,
    /// The entry's name there, in its one form.
    pub dn: String,
    /// Names of groups, in order.
    pub groups: Vec<String>,
    /// Whether one of them makes administrators.
    pub admin: bool,
}

/// What a directory says to a name and a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is this one.
    Proved(Box<Person>),
    /// Nobody has that name.
    Unknown,
    /// Somebody has it, and another password.
    Wrong,
    /// Somebody has it who may not sign in.
    Locked(String),
    /// The name is not of one alone, or no name here.
    Unusable(String),
}

/// The directory could not be asked: nothing was said about anybody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {cure}")]
pub struct Fault {
    /// What went wrong, and where.
    pub what: String,
    /// The way out.
    pub cure: String,
}

/// One step of asking a directory, in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What was done and found.
    pub what: String,
    /// Whether it went on from there.
    pub good: bool,
    /// The way out where it did not.
    pub cure: Option<String>,
}

/// All steps, for `wharf ldap check`.
#[derive(Debug, Default)]
pub struct Story(pub Vec<Step>);

impl Story {
    /// A step that went well.
    pub fn good(&mut self, what: impl Into<String>) {
        self.add(what.into(), true, None);
    }

    /// A step at which it ended.
    pub fn bad(&mut self, what: impl Into<String>, cure: impl Into<String>) {
        self.add(what.into(), false, Some(cure.into()));
    }

    fn add(&mut self, what: String, good: bool, cure: Option<String>) {
        self.0.push(Step { what, good, cure });
    }
}

/// What asking gives.
pub type Asked<'a, T> = Pin<Box<dyn Future<Output = Result<T, Fault>> + Send + 'a>>;

/// One directory with all its servers. Every call ends in bounded time.
pub trait Directory: Send + Sync + Debug {
    /// What it is called here.
    fn name(&self) -> &str;
    /// Whether somebody of that name has that password. Both were looked at by [`acceptable`].
    fn sign_in<'a>(
        &'a self,
        name: &'a str,
        password: &'a Password,
        story: &'a mut Story,
    ) -> Asked<'a, Verdict>;
    /// Who has that name and may sign in, without a password.
    fn find<'a>(&'a self, name: &'a str, story: &'a mut Story) -> Asked<'a, Verdict>;
    /// Who has that [`Person::subject`] and may sign in; `None`: nobody any more.
    fn again<'a>(&'a self, subject: &'a str) -> Asked<'a, Option<Person>>;
}

/// Whether a directory is asked about this name and password at all. An empty password is no password: a server takes it for a
/// visitor without a name and says yes (RFC 4513 §5.1.2); some end it at a NUL.
pub fn acceptable(name: &str, password: &str) -> bool {
    is_user_name(name)
        && !password.is_empty()
        && password.len() <= LONGEST_PASSWORD
        && !password.contains('\0')
}
