//! How one directory is asked, as the configuration says it.

use std::path::PathBuf;
use std::time::Duration;

use super::dn::Dn;
use super::filter::Filter;
use super::message::Scope;
use crate::access::Password;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerUrl {
    /// Name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// `ldaps://`: TLS from the first byte.
    pub tls: bool,
}

impl ServerUrl {
    /// Reads `ldap://HOST[:PORT]` or `ldaps://HOST[:PORT]`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            "write ldaps://HOST or ldap://HOST, with :PORT if it is not 636 or 389, and nothing behind it".to_owned()
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let tls = match scheme {
            "ldaps" => true,
            "ldap" => false,
            _ => return Err(wrong()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => match host.parse::<std::net::Ipv6Addr>() {
                Ok(_) => (
                    host,
                    port.strip_prefix(':')
                        .map(Some)
                        .or(port.is_empty().then_some(None))
                        .ok_or_else(wrong)?,
                ),
                Err(_) => return Err(wrong()),
            },
            None => match rest.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = match port {
            None if tls => 636,
            None => 389,
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(wrong)?,
        };
        let fits =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':');
        if host.is_empty() || !host.bytes().all(fits) {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_ascii_lowercase(),
            port,
            tls,
        })
    }

    /// Whether what goes there stays on this machine.
    pub fn is_loopback(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        self.host == "localhost"
            || address.is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

impl std::fmt::Display for ServerUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "ldaps" } else { "ldap" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

/// How groups inside groups count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Nested {
    /// Not at all.
    #[default]
    Off,
    /// Each group's own groups are asked for, in a bounded number of steps.
    Walk,
    /// The server follows them: Active Directory's rule 1.2.840.113556.1.4.1941.
    Chain,
}

/// What the value that names a member of a group is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MemberIs {
    /// The member's distinguished name.
    #[default]
    Dn,
    /// The member's user name, as in `posixGroup`.
    Name,
}

/// How groups are found.
#[derive(Debug, Clone)]
pub struct GroupSettings {
    /// Groups below this one count, and no others.
    pub base: String,
    /// How far below.
    pub scope: Scope,
    /// What is a group.
    pub filter: Filter,
    /// The attribute that names one.
    pub name_attribute: String,
    /// The attribute that names members; `None`: groups are not searched.
    pub member_attribute: Option<String>,
    /// What stands there.
    pub member_is: MemberIs,
    /// The attribute of a user that names groups.
    pub member_of: Option<String>,
    /// Groups inside groups.
    pub nested: Nested,
    /// Names of those that count, with `*` for anything; empty: all.
    pub keep: Vec<String>,
    /// Whose members are administrators: a name, or a distinguished name.
    pub admin: Option<String>,
}

/// One directory.
#[derive(Debug, Clone)]
pub struct DirectorySettings {
    /// What it is called here.
    pub name: String,
    /// Its servers, the favourite first. All hold the same.
    pub servers: Vec<ServerUrl>,
    /// Whether TLS begins after a first message, for `ldap://`.
    pub start_tls: bool,
    /// PEM file of who vouches for the servers; `None`: whom this machine trusts.
    pub authority: Option<PathBuf>,
    /// The account that searches; empty: none.
    pub search_dn: String,
    /// Its password.
    pub search_password: Option<Password>,
    /// Where people are.
    pub base: String,
    /// How far below.
    pub scope: Scope,
    /// Who may sign in.
    pub filter: Option<Filter>,
    /// The attribute with the user name.
    pub user_attribute: String,
    /// The attribute that stays the same when all else changes; `None`: the first of [`IDS`](super::IDS) that an entry has.
    pub id_attribute: Option<String>,
    /// Groups.
    pub groups: GroupSettings,
    /// For connecting, TLS included.
    pub connect_timeout: Duration,
    /// For each answer.
    pub read_timeout: Duration,
    /// Most connections.
    pub connections: usize,
}

impl GroupSettings {
    /// Whether a group of that name counts.
    pub fn keeps(&self, name: &str) -> bool {
        self.keep.is_empty() || self.keep.iter().any(|pattern| matches(pattern, name))
    }

    /// Whether members of this group are administrators.
    pub fn makes_admin(&self, name: &str, dn: &Dn) -> bool {
        self.admin
            .as_deref()
            .is_some_and(|admin| match admin.contains('=') {
                true => Dn::parse(admin).is_ok_and(|admin| admin.normal() == dn.normal()),
                false => admin.to_lowercase() == name.to_lowercase(),
            })
    }
}

/// Whether a name is of a pattern with `*`, whatever the case. Takes no longer than both lengths multiplied.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.to_lowercase(), name.to_lowercase());
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut left) = name.strip_prefix(first) else {
        return false;
    };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = &left[at + part.len()..],
            None => return false,
        }
    }
    left.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_servers_are_read() {
        for (text, shown) in [
            ("ldap://dir", "ldap://dir:389"),
            ("ldaps://Dir.example.com", "ldaps://dir.example.com:636"),
            ("ldaps://dir:3269/", "ldaps://dir:3269"),
            ("ldap://[::1]", "ldap://[::1]:389"),
            ("ldap://[::1]:390", "ldap://[::1]:390"),
        ] {
            assert_eq!(ServerUrl::parse(text).unwrap().to_string(), shown);
        }
        for broken in [
            "dir",
            "http://dir",
            "ldap://",
            "ldap://dir:0",
            "ldap://dir:x",
            "ldap://dir/dc=a",
            "ldap://a@b",
            "ldap://::1",
            "ldap://[::1]x",
            "ldap://[dir]",
        ] {
            assert!(ServerUrl::parse(broken).is_err(), "{broken}");
        }
        for near in [
            "ldap://localhost",
            "ldap://127.1.2.3",
            "ldap://[::1]",
            "ldap://[::ffff:127.0.0.1]",
        ] {
            assert!(ServerUrl::parse(near).unwrap().is_loopback(), "{near}");
        }
        for far in [
            "ldap://10.0.0.1",
            "ldap://localhost.example.com",
            "ldap://127.0.0.1.example.com",
        ] {
            assert!(!ServerUrl::parse(far).unwrap().is_loopback(), "{far}");
        }
    }

    #[test]
    fn patterns_of_groups() {
        for (pattern, name, fits) in [
            ("dev", "Dev", true),
            ("dev", "devs", false),
            ("dev-*", "dev-a", true),
            ("*-ops", "x-ops", true),
            ("a*b*c", "a1b2c", true),
            ("a*b*c", "a1c2b", false),
            ("a*a", "a", false),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }
}
