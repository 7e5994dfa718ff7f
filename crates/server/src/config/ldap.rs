//! Values of `[[auth.ldap]]`, what they must not be together, and the settings that they make.

use std::collections::HashSet;
use std::time::Duration;

use wharf_core::access::Password;
use wharf_core::directory::filter::is_attribute;
use wharf_core::directory::{
    DirectorySettings, Dn, Filter, GroupSettings, MemberIs, Nested, Scope, ServerUrl,
};

use super::sections::{Config, Ldap, LdapMember, LdapNested, LdapScope};
use super::value::{Value, quote};

/// Most directories, and most servers of one.
const MOST: usize = 16;
/// The longest timeout that is taken.
const LONGEST: Duration = Duration::from_secs(60);

/// Where a server of a directory listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LdapUrl(pub ServerUrl);

impl Value for LdapUrl {
    fn expects() -> String {
        "`ldaps://HOST` or `ldap://HOST`, with `:PORT` if it is not the usual one".to_owned()
    }
    fn example() -> String {
        quote("ldaps://ldap.example.com")
    }
    fn parse(text: &str) -> Result<Self, String> {
        ServerUrl::parse(text)
            .map(Self)
            .map_err(|error| format!("`{text}` is no address of an LDAP server: {error}"))
    }
    fn to_toml(&self) -> Option<String> {
        Some(quote(&self.0.to_string()))
    }
}

/// A search filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LdapFilter(pub Filter);

impl LdapFilter {
    /// What is a group on most servers.
    #[must_use]
    pub fn groups() -> Self {
        let kinds = ["groupOfNames", "groupOfUniqueNames", "posixGroup", "group"];
        let kinds = kinds.map(|kind| Filter::equal("objectClass", kind));
        Self(Filter::Or(kinds.to_vec()))
    }
}

impl Value for LdapFilter {
    fn expects() -> String {
        "an LDAP filter such as \"(objectClass=person)\"".to_owned()
    }
    fn example() -> String {
        quote("(objectClass=person)")
    }
    fn parse(text: &str) -> Result<Self, String> {
        Filter::parse(text)
            .map(Self)
            .map_err(|error| format!("`{text}` is no LDAP filter: {error}"))
    }
    fn to_toml(&self) -> Option<String> {
        Some(quote(&self.0.to_string()))
    }
}

/// What is wrong with the tables: which one, what, and the way out.
pub(super) fn problems(config: &Config) -> Vec<(usize, String, &'static str)> {
    let mut found = Vec::new();
    let mut names: HashSet<&str> = config
        .auth
        .oidc
        .iter()
        .map(|oidc| oidc.name.as_str())
        .collect();
    for (index, table) in config.auth.ldap.iter().enumerate() {
        let mut refuse = |what: String, cure| {
            found.push((
                index,
                format!("[[auth.ldap]] {:?}: {what}", table.name),
                cure,
            ));
        };
        if index >= MOST {
            refuse(
                format!("there are more than {MOST} directories"),
                "leave some out",
            );
            break;
        }
        if !is_name(&table.name) {
            refuse(
                "`name` is none".to_owned(),
                "take lower-case letters, digits and `-`, such as \"corp\"",
            );
        } else if matches!(table.name.as_str(), "local" | "htpasswd" | "robot") {
            refuse(
                "`name` means something else already".to_owned(),
                "take another name, such as \"corp\"",
            );
        } else if !names.insert(table.name.as_str()) {
            refuse(
                "`name` is another directory's or provider's, too".to_owned(),
                "give each its own name",
            );
        }
        if table.urls.is_empty() || table.urls.len() > MOST {
            refuse(
                format!("`urls` names {} servers", table.urls.len()),
                "name between 1 and 16",
            );
        }
        for LdapUrl(url) in &table.urls {
            if table.start_tls && url.tls {
                refuse(
                    format!("`start_tls` and {url} exclude each other"),
                    "write ldap:// for StartTLS, or leave `start_tls` out",
                );
            }
            if !table.start_tls && !table.allow_unencrypted && !url.tls && !url.is_loopback() {
                refuse(
                    format!("{url} would get passwords unencrypted"),
                    "write ldaps://, or `start_tls = true`; `allow_unencrypted = true` if the way there is safe by other means",
                );
            }
        }
        if table.search_dn.is_empty() != table.search_password.is_none() {
            refuse(
                "`search_dn` and `search_password` belong together".to_owned(),
                "give both, or neither to search without an account",
            );
        }
        for (key, dn, may_be_empty) in [
            ("base_dn", Some(&table.base_dn), false),
            ("search_dn", Some(&table.search_dn), true),
            ("group_base_dn", table.group_base_dn.as_ref(), false),
        ] {
            let Some(dn) = dn else { continue };
            // Active Directory takes `alice@example.com` for an account, too.
            let other =
                key == "search_dn" && (dn.contains('@') || dn.contains('\\')) && !dn.contains('=');
            match Dn::parse(dn) {
                Err(error) if !other => {
                    refuse(
                        format!("`{key}`: {error}"),
                        "write the distinguished name as the directory has it",
                    );
                }
                Ok(_) if dn.is_empty() && !may_be_empty => {
                    refuse(
                        format!("`{key}` is empty"),
                        "write the distinguished name as the directory has it",
                    );
                }
                _ => {}
            }
        }
        if table.admin_group.as_deref() == Some("") {
            refuse(
                "`admin_group` is empty".into(),
                "name a group of the directory, or leave the key out",
            );
        }
        if let Some(admin) = table
            .admin_group
            .as_deref()
            .filter(|admin| admin.contains('='))
            && let Err(error) = Dn::parse(admin)
        {
            refuse(
                format!("`admin_group`: {error}"),
                "write the group's name, or its distinguished name",
            );
        }
        for (key, attribute) in [
            ("user_attribute", Some(&table.user_attribute)),
            ("id_attribute", table.id_attribute.as_ref()),
            ("member_of", table.member_of.as_ref()),
            ("group_name_attribute", Some(&table.group_name_attribute)),
            (
                "group_member_attribute",
                table.group_member_attribute.as_ref(),
            ),
        ] {
            if attribute.is_some_and(|attribute| !is_attribute(attribute)) {
                refuse(
                    format!("`{key}` is no attribute's name"),
                    "take letters, digits and `-`",
                );
            }
        }
        let searched = table.group_member_attribute.is_some();
        if !searched && table.member_of.is_none() {
            for (key, set) in [
                ("admin_group", table.admin_group.is_some()),
                ("groups", !table.groups.is_empty()),
            ] {
                if set {
                    refuse(
                        format!("`{key}` is set, and groups are not asked for"),
                        "set `member_of = \"memberOf\"`, or `group_member_attribute = \"member\"`",
                    );
                }
            }
        }
        if table.nested == LdapNested::Chain
            && (!searched || table.group_member == LdapMember::Name)
        {
            refuse(
                "`nested` = \"chain\" needs groups that are searched by distinguished names"
                    .to_owned(),
                "set `group_member_attribute = \"member\"`, or take \"walk\"",
            );
        }
        for (key, time) in [
            ("connect_timeout", table.connect_timeout),
            ("read_timeout", table.read_timeout),
        ] {
            if time < Duration::from_millis(100) || time > LONGEST {
                refuse(
                    format!("`{key}` is not between 100ms and 60s"),
                    "take a few seconds",
                );
            }
        }
        if table.connections == 0 || table.connections > 1_000 {
            refuse(
                "`connections` is not between 1 and 1000".to_owned(),
                "8 are enough for most",
            );
        }
    }
    found
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&name.len())
        && name.bytes().all(fits)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

impl From<LdapScope> for Scope {
    fn from(scope: LdapScope) -> Self {
        match scope {
            LdapScope::Base => Self::Base,
            LdapScope::One => Self::One,
            LdapScope::Subtree => Self::Subtree,
        }
    }
}

impl Ldap {
    /// How the directory is asked.
    #[must_use]
    pub fn settings(&self) -> DirectorySettings {
        DirectorySettings {
            name: self.name.clone(),
            servers: self.urls.iter().map(|url| url.0.clone()).collect(),
            start_tls: self.start_tls,
            authority: self.ca_file.clone(),
            search_dn: self.search_dn.clone(),
            search_password: self
                .search_password
                .as_ref()
                .map(|secret| Password::new(secret.expose())),
            base: self.base_dn.clone(),
            scope: self.scope.into(),
            filter: self.filter.as_ref().map(|filter| filter.0.clone()),
            user_attribute: self.user_attribute.clone(),
            id_attribute: self.id_attribute.clone(),
            groups: GroupSettings {
                base: self
                    .group_base_dn
                    .clone()
                    .unwrap_or_else(|| self.base_dn.clone()),
                scope: self.group_scope.into(),
                filter: self.group_filter.0.clone(),
                name_attribute: self.group_name_attribute.clone(),
                member_attribute: self.group_member_attribute.clone(),
                member_is: match self.group_member {
                    LdapMember::Dn => MemberIs::Dn,
                    LdapMember::Name => MemberIs::Name,
                },
                member_of: self.member_of.clone(),
                nested: match self.nested {
                    LdapNested::Off => Nested::Off,
                    LdapNested::Walk => Nested::Walk,
                    LdapNested::Chain => Nested::Chain,
                },
                keep: self.groups.clone(),
                admin: self.admin_group.clone(),
            },
            connect_timeout: self.connect_timeout,
            read_timeout: self.read_timeout,
            connections: self.connections as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Inputs, load};

    const GOOD: &str = "[[auth.ldap]]\nname = \"corp\"\nurls = [\"ldaps://a\", \"ldaps://b:3269\"]\nbase_dn = \"dc=example,dc=com\"\n";

    fn told(text: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("wharf.toml");
        std::fs::write(&file, text).unwrap();
        let inputs = Inputs {
            file: Some(file),
            ..Inputs::default()
        };
        match load(&inputs) {
            Ok(loaded) => format!("good {:?}", loaded.config.auth.ldap),
            Err(problems) => problems.to_string(),
        }
    }

    /// Spec: LDAP-2.
    #[test]
    fn a_directory_needs_three_keys() {
        assert!(told(GOOD).starts_with("good"), "{}", told(GOOD));
        for key in ["name", "urls", "base_dn"] {
            let without: String = GOOD
                .lines()
                .filter(|line| !line.starts_with(key))
                .map(|line| format!("{line}\n"))
                .collect();
            assert!(
                told(&without).contains(&format!("lacks `{key}`")),
                "{}",
                told(&without)
            );
        }
    }

    /// Spec: LDAP-2.
    #[test]
    fn what_cannot_work_names_the_key_and_the_cure() {
        for (line, key, cure) in [
            (
                "urls = [\"ldap://a\"]",
                "would get passwords unencrypted",
                "start_tls = true",
            ),
            (
                "start_tls = true",
                "`start_tls` and ldaps://a:636",
                "leave `start_tls` out",
            ),
            ("urls = [\"http://a\"]", "`urls`", "ldaps://HOST"),
            ("urls = []", "`urls` names 0", "between 1 and 16"),
            ("name = \"local\"", "`name`", "another name"),
            ("name = \"a:b\"", "`name`", "lower-case"),
            (
                "base_dn = \"example.com\"",
                "`base_dn`",
                "distinguished name",
            ),
            ("base_dn = \"\"", "`base_dn` is empty", "distinguished name"),
            ("search_dn = \"cn=a\"", "belong together", "give both"),
            ("search_password = \"x\"", "belong together", "give both"),
            (
                "search_password_file = \"/nowhere/at/all\"",
                "`search_password_file`",
                "cannot read",
            ),
            ("filter = \"(uid=a\"", "`filter`", "closing parenthesis"),
            ("user_attribute = \"a b\"", "`user_attribute`", "letters"),
            (
                "admin_group = \"ops\"",
                "groups are not asked for",
                "member_of",
            ),
            ("admin_group = \"\"", "`admin_group` is empty", "leave"),
            ("nested = \"chain\"", "\"chain\"", "walk"),
            ("nested = \"deep\"", "`nested`", "walk"),
            (
                "connect_timeout = \"0s\"",
                "`connect_timeout`",
                "a few seconds",
            ),
            ("connections = 0", "`connections`", "8"),
            ("bind_dn = \"cn=a\"", "unknown key `bind_dn`", ""),
        ] {
            let (name, _) = line.split_once(" =").unwrap();
            let mut text: String = GOOD
                .lines()
                .filter(|old| !old.starts_with(name))
                .map(|old| format!("{old}\n"))
                .collect();
            text.push_str(line);
            let told = told(&text);
            assert!(
                told.contains(key) && told.contains(cure) && !told.starts_with("good"),
                "{line}: {told}"
            );
        }
        let twice = format!("{GOOD}{GOOD}");
        assert!(
            told(&twice).contains("is another directory's"),
            "{}",
            told(&twice)
        );
        let inside = GOOD.replace("ldaps://a", "ldap://127.0.0.1:3890");
        assert!(told(&inside).starts_with("good"), "{}", told(&inside));
    }

    #[test]
    fn a_password_comes_from_a_file_and_is_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "s3cret-in-file\n").unwrap();
        let with = |line: &str| format!("{GOOD}search_dn = \"cn=a\"\n{line}\n");
        let from_file = with(&format!(
            "search_password_file = {:?}",
            file.display().to_string()
        ));
        let loaded = told(&from_file);
        assert!(
            loaded.starts_with("good") && loaded.contains("Secret(hidden)"),
            "{loaded}"
        );
        assert!(!loaded.contains("s3cret"), "{loaded}");
        let both = with(&format!(
            "search_password = \"s3cret\"\nsearch_password_file = {:?}",
            file.display().to_string()
        ));
        assert!(told(&both).contains("keep one of them"), "{}", told(&both));
        std::fs::write(&file, "\n").unwrap();
        assert!(
            told(&from_file).contains("is empty"),
            "{}",
            told(&from_file)
        );
    }
}
