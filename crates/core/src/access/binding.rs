//! Bindings: one line of rights each. Who, which role, where, and under what conditions.
//!
//! All rights are bindings, wherever they come from: rows that people made, lines of the configuration, the visibility of a
//! namespace, the administrator of the first start. [`super::Policy`] compiles them; commands and the API show them.

use std::fmt;
use std::str::FromStr;

use wharf_meta::access::workload::WORKLOAD;

use super::network::Network;
use super::policy::{ADMIN, check_user_name, split_robot_name};
use super::principal::{ANONYMOUS, Circumstances, SignIn};
use super::role::Permissions;

/// The word for every principal that signed in.
pub const SIGNED_IN: &str = "signed-in";
/// Most networks of one binding.
pub const MOST_NETWORKS: usize = 32;

/// Whom a binding is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// Everybody, signed in or not.
    Anonymous,
    /// Everybody who signed in.
    SignedIn,
    /// Every user of the htpasswd file.
    HtpasswdUsers,
    /// The administrator of the first start.
    LocalAdmin,
    /// One user, wherever kept.
    User(String),
    /// One robot, `<namespace>+<name>`.
    Robot(String),
    /// Whoever is in a group.
    Group(String),
    /// Whoever has a token that a rule on workloads matches.
    Workload(String),
}

/// A word that names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{who:?}: {reason}; write a user's name, a robot's (team/a+ci), group:NAME, workload:RULE, anonymous or signed-in"
)]
pub struct SubjectError {
    who: String,
    reason: &'static str,
}

impl Subject {
    /// The kind in rows, and the name there. `None` for those that only configuration and birth make.
    pub(crate) fn row(&self) -> Option<(&'static str, &str)> {
        match self {
            Self::Anonymous => Some((ANONYMOUS, "")),
            Self::SignedIn => Some((SIGNED_IN, "")),
            Self::User(name) => Some(("user", name)),
            Self::Robot(name) => Some(("robot", name)),
            Self::Group(name) => Some(("group", name)),
            Self::Workload(rule) => Some((WORKLOAD, rule)),
            Self::HtpasswdUsers | Self::LocalAdmin => None,
        }
    }

    /// The reverse of [`Subject::row`]; `None` for kinds of a newer version.
    pub(crate) fn from_row(kind: &str, name: &str) -> Option<Self> {
        Some(match kind {
            ANONYMOUS => Self::Anonymous,
            SIGNED_IN => Self::SignedIn,
            "user" => Self::User(name.into()),
            "robot" => Self::Robot(name.into()),
            "group" => Self::Group(name.into()),
            WORKLOAD => Self::Workload(name.into()),
            _ => return None,
        })
    }
}

impl FromStr for Subject {
    type Err = SubjectError;

    fn from_str(text: &str) -> Result<Self, SubjectError> {
        let wrong = |reason| SubjectError {
            who: text.into(),
            reason,
        };
        match text.split_once(':') {
            Some(("group", name)) => {
                check_word(name).map_err(wrong)?;
                return Ok(Self::Group(name.into()));
            }
            Some((WORKLOAD, rule)) => {
                check_word(rule).map_err(wrong)?;
                return Ok(Self::Workload(rule.into()));
            }
            Some(("user", name)) => {
                check_user_name(name).map_err(wrong)?;
                return Ok(Self::User(name.into()));
            }
            _ => {}
        }
        if text == ANONYMOUS {
            return Ok(Self::Anonymous);
        }
        if text == SIGNED_IN {
            return Ok(Self::SignedIn);
        }
        if split_robot_name(text).is_some() {
            return Ok(Self::Robot(text.into()));
        }
        check_user_name(text).map_err(wrong)?;
        Ok(Self::User(text.into()))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str(ANONYMOUS),
            Self::SignedIn => f.write_str(SIGNED_IN),
            Self::HtpasswdUsers => f.write_str("every user of the htpasswd file"),
            Self::LocalAdmin => f.write_str(ADMIN),
            Self::User(name) if name == SIGNED_IN => write!(f, "user:{name}"),
            Self::User(name) | Self::Robot(name) => f.write_str(name),
            Self::Group(name) => write!(f, "group:{name}"),
            Self::Workload(rule) => write!(f, "{WORKLOAD}:{rule}"),
        }
    }
}

/// Why a string cannot be the name of a group or a role.
pub(crate) fn check_word(name: &str) -> Result<(), &'static str> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    match name {
        "" => Err("the name is empty"),
        name if name.len() > 100 => Err("the name is longer than 100 bytes"),
        name if !name.chars().all(plain) => {
            Err("the name holds something else than a-z, 0-9, `-`, `_` and `.`")
        }
        _ => Ok(()),
    }
}

/// Whether a string can be the name of a group, a role or a provider.
pub fn is_word(name: &str) -> bool {
    check_word(name).is_ok()
}

/// A pattern of tags: `*` stands for any text, `?` for one character, all else for itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagPattern(Box<str>);

/// A text that no tag could match.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no pattern of tags; write one like v*: letters, digits, `_`, `.`, `-`, with * for any text and ? for one character"
)]
pub struct PatternError(String);

impl TagPattern {
    /// Whether the tag is meant. Takes time by the product of both lengths, which are at most 128 each.
    pub fn matches(&self, tag: &str) -> bool {
        let (pattern, tag) = (self.0.as_bytes(), tag.as_bytes());
        let (mut at, mut seen) = (0, 0);
        // Where the last `*` was, and how much of the tag it stands for.
        let mut star: Option<(usize, usize)> = None;
        while seen < tag.len() {
            match pattern.get(at) {
                Some(b'*') => {
                    star = Some((at, seen));
                    at += 1;
                }
                Some(b'?') => (at, seen) = (at + 1, seen + 1),
                Some(&byte) if byte == tag[seen] => (at, seen) = (at + 1, seen + 1),
                _ => match star {
                    Some((from, upto)) => {
                        star = Some((from, upto + 1));
                        (at, seen) = (from + 1, upto + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern[at..].iter().all(|&byte| byte == b'*')
    }
}

impl TagPattern {
    /// Whether it matches every tag.
    pub(crate) fn is_everything(&self) -> bool {
        self.0.bytes().all(|byte| byte == b'*')
    }

    /// What every tag that it matches begins with, and whether that is all of it.
    pub(crate) fn beginning(&self) -> (&str, bool) {
        match self.0.find(['*', '?']) {
            Some(end) => (&self.0[..end], false),
            None => (&self.0, true),
        }
    }
}

impl FromStr for TagPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "_.-*?".contains(c);
        if text.is_empty() || text.len() > 128 || !text.chars().all(fits) {
            return Err(PatternError(text.into()));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for TagPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which tags a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tags<'a> {
    /// None by name: a digest, a blob, a list. What is limited to some tags counts, since no pull works without these.
    None,
    /// This one.
    Named(&'a str),
    /// Any number of them, as when a manifest goes. Only what is not limited counts.
    All,
}

/// When a binding counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Conditions {
    /// Until then, in ms since 1970.
    pub expires_at: Option<i64>,
    /// From one of these networks; from anywhere when there is none.
    pub networks: Vec<Network>,
    /// For these tags.
    pub tags: Option<TagPattern>,
    /// For who signed in that way.
    pub sign_in: Option<SignIn>,
}

/// Why a binding does not count now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmet {
    /// It has ended.
    Expired,
    /// The client is elsewhere, or nobody knows where.
    Network,
    /// It is for other tags.
    Tags,
    /// It asks for another way to sign in.
    SignIn,
}

impl Conditions {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What is not as it must be, first of all that which no other request could change.
    pub fn unmet(&self, now: &Circumstances, tags: Tags<'_>) -> Option<Unmet> {
        if self.expires_at.is_some_and(|end| end <= now.at) {
            return Some(Unmet::Expired);
        }
        let inside = |address| {
            self.networks
                .iter()
                .any(|network| network.contains(address))
        };
        if !self.networks.is_empty() && !now.address.is_some_and(inside) {
            return Some(Unmet::Network);
        }
        if self.sign_in.is_some_and(|wanted| wanted != now.sign_in) {
            return Some(Unmet::SignIn);
        }
        let tag = |pattern: &TagPattern| match tags {
            Tags::None => true,
            Tags::Named(tag) => pattern.matches(tag),
            Tags::All => false,
        };
        (!self.tags.as_ref().is_none_or(tag)).then_some(Unmet::Tags)
    }
}

impl fmt::Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(end) = self.expires_at {
            let end = jiff::Timestamp::from_millisecond(end);
            parts.push(match end {
                Ok(end) => format!("until {}", end.strftime("%Y-%m-%d %H:%M:%SZ")),
                Err(_) => "until the end of days".to_owned(),
            });
        }
        if !self.networks.is_empty() {
            let networks: Vec<_> = self.networks.iter().map(Network::to_string).collect();
            parts.push(format!("from {}", networks.join(" or ")));
        }
        if let Some(tags) = &self.tags {
            parts.push(format!("tags {tags}"));
        }
        if let Some(sign_in) = self.sign_in {
            parts.push(format!("signed in with {}", sign_in.as_str()));
        }
        f.write_str(&parts.join(", "))
    }
}

/// Where a binding comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Every registry has it.
    Birth,
    /// A key of the configuration; only there can it be changed.
    Configuration(&'static str),
    /// The visibility of its namespace.
    Visibility,
    /// A row: who made it, and when in ms since 1970.
    Granted {
        /// The principal.
        by: String,
        /// In ms since 1970.
        at: i64,
    },
}

impl Origin {
    /// Whether a command can take the binding away.
    pub const fn is_row(&self) -> bool {
        matches!(self, Self::Granted { .. })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Birth => f.write_str("built in"),
            Self::Configuration(key) => write!(f, "configuration: {key}"),
            Self::Visibility => f.write_str("visibility of the namespace"),
            Self::Granted { by, .. } => write!(f, "granted by {by}"),
        }
    }
}

/// One line of rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Whom it is for.
    pub subject: Subject,
    /// The role's name.
    pub role: String,
    /// What the role is made of.
    pub permissions: Permissions,
    /// A repository's name or a prefix of it on `/` borders; `""` is everywhere.
    pub on: String,
    /// When it counts.
    pub conditions: Conditions,
    /// Where it comes from.
    pub origin: Origin,
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = match &*self.on {
            "" => "everywhere".to_owned(),
            on => format!("on {on}"),
        };
        write!(f, "{} is {} {on}", self.subject, self.role)?;
        if !self.conditions.is_empty() {
            write!(f, " ({})", self.conditions)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn subjects_round_trip_and_nonsense_names_the_way_out() {
        for text in [
            "anonymous",
            "signed-in",
            "alice",
            "alice@example.com",
            "team/a+ci",
            "group:team",
            "user:signed-in",
        ] {
            let subject: Subject = text.parse().unwrap();
            assert_eq!(subject.to_string(), text);
            let (kind, name) = subject.row().unwrap();
            assert_eq!(Subject::from_row(kind, name), Some(subject));
        }
        assert_eq!("user:alice".parse(), Ok(Subject::User("alice".into())));
        for text in ["", "a:b", "group:", "group:A", "user:anonymous", "a\nb"] {
            let error = text.parse::<Subject>().unwrap_err().to_string();
            assert!(
                error.contains(&format!("{text:?}")) && error.contains("group:NAME"),
                "{error}"
            );
        }
    }

    #[test]
    fn conditions_name_what_is_unmet() {
        let now = Circumstances {
            address: Some("10.0.0.1".parse().unwrap()),
            at: 1_000,
            sign_in: SignIn::Password,
        };
        let none = Conditions::default();
        assert_eq!(none.unmet(&Circumstances::UNKNOWN, Tags::All), None);
        let until = Conditions {
            expires_at: Some(1_001),
            ..none.clone()
        };
        assert_eq!(until.unmet(&now, Tags::All), None);
        let late = Circumstances { at: 1_001, ..now };
        assert_eq!(until.unmet(&late, Tags::All), Some(Unmet::Expired));
        let unknown = Circumstances::UNKNOWN;
        assert_eq!(until.unmet(&unknown, Tags::All), Some(Unmet::Expired));
        let from = Conditions {
            networks: vec!["10.0.0.0/8".parse().unwrap()],
            ..none.clone()
        };
        assert_eq!(from.unmet(&now, Tags::All), None);
        let nowhere = Circumstances {
            address: None,
            ..now
        };
        assert_eq!(from.unmet(&nowhere, Tags::All), Some(Unmet::Network));
        let with = Conditions {
            sign_in: Some(SignIn::ApiToken),
            ..none.clone()
        };
        assert_eq!(with.unmet(&now, Tags::All), Some(Unmet::SignIn));
        let tags = Conditions {
            tags: Some("v*".parse().unwrap()),
            ..none
        };
        assert_eq!(tags.unmet(&now, Tags::Named("v1")), None);
        assert_eq!(tags.unmet(&now, Tags::None), None);
        assert_eq!(tags.unmet(&now, Tags::Named("w")), Some(Unmet::Tags));
        assert_eq!(tags.unmet(&now, Tags::All), Some(Unmet::Tags));
    }

    /// The same patterns, told without any cleverness.
    fn model(pattern: &[u8], tag: &[u8]) -> bool {
        match (pattern.split_first(), tag.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                model(rest, tag)
                    || tag
                        .split_first()
                        .is_some_and(|(_, tag)| model(pattern, tag))
            }
            (Some((b'?', rest)), Some((_, tag))) => model(rest, tag),
            (Some((one, rest)), Some((other, tag))) => one == other && model(rest, tag),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_are_those_of_the_model(pattern in "[ab*?]{1,8}", tag in "[ab]{0,8}") {
            let compiled: TagPattern = pattern.parse().unwrap();
            prop_assert_eq!(compiled.matches(&tag), model(pattern.as_bytes(), tag.as_bytes()));
        }
    }
}
