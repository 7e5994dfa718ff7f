//! Who an entry is.

use super::dn::Dn;
use super::filter::Filter;
use super::message::Entry;

/// Attributes that stay the same for the life of an entry, by server: OpenLDAP and most, Active Directory, 389, FreeIPA,
/// eDirectory.
pub const IDS: [&str; 5] = [
    "entryUUID",
    "objectGUID",
    "nsUniqueId",
    "ipaUniqueID",
    "GUID",
];
/// Attributes by which servers lock an account for good.
pub const LOCKS: [&str; 4] = [
    "userAccountControl",
    "nsAccountLock",
    "pwdAccountLockedTime",
    "loginDisabled",
];
/// Of Active Directory's `userAccountControl`: the account is disabled.
const DISABLED: i64 = 2;
/// Of the password policy's `pwdAccountLockedTime`: until an administrator unlocks it.
const FOR_GOOD: &str = "000001010000Z";

/// What stays the same about an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The attribute in lower case, or `dn`.
    pub kind: String,
    /// Text, or bytes in hexadecimal digits behind a `#`.
    pub value: String,
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.kind, self.value)
    }
}

impl Identity {
    /// The reverse of writing it.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, value) = text.split_once(':')?;
        let (kind, value) = (kind.to_owned(), value.to_owned());
        (!kind.is_empty() && !value.is_empty()).then_some(Self { kind, value })
    }

    /// The value as the directory has it.
    fn bytes(&self) -> Option<Vec<u8>> {
        let Some(digits) = self.value.strip_prefix('#') else {
            return Some(self.value.clone().into_bytes());
        };
        let pairs = digits.as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect()
    }
}

/// Bytes that are always bytes, and those that could be text.
fn written(attribute: &str, value: &[u8]) -> String {
    let binary =
        attribute.eq_ignore_ascii_case("objectGUID") || attribute.eq_ignore_ascii_case("GUID");
    let text = std::str::from_utf8(value).ok().filter(|text| {
        !binary
            && !text.starts_with('#')
            && !text.chars().any(char::is_control)
            && text.trim() == *text
    });
    match text {
        // Not told apart by any server in what is an identifier.
        Some(text) => text.to_lowercase(),
        None => value
            .iter()
            .fold("#".to_owned(), |text, byte| format!("{text}{byte:02x}")),
    }
}

/// What stays the same about an entry. By its name where it has nothing better: then whoever is renamed is somebody else.
pub fn identity(entry: &Entry, dn: &Dn, attribute: Option<&str>) -> Result<Identity, String> {
    let one = |attribute: &str| {
        let mut values = entry.values(attribute);
        let (first, second) = (values.next(), values.next());
        match (first, second) {
            (Some(value), None) if !value.is_empty() && value.len() <= 256 => Some(Identity {
                kind: attribute.to_ascii_lowercase(),
                value: written(attribute, value),
            }),
            _ => None,
        }
    };
    match attribute {
        Some(attribute) if attribute.eq_ignore_ascii_case("dn") => Ok(by_dn(dn)),
        Some(attribute) => one(attribute)
            .ok_or_else(|| format!("the entry has not exactly one value of {attribute}")),
        None => Ok(IDS.into_iter().find_map(one).unwrap_or_else(|| by_dn(dn))),
    }
}

fn by_dn(dn: &Dn) -> Identity {
    Identity {
        kind: "dn".to_owned(),
        value: dn.normal(),
    }
}

/// Who may sign in and has that name. What was typed is a value and nothing else.
pub fn by_name(filter: Option<&Filter>, attribute: &str, name: &str) -> Filter {
    let named = Filter::equal(attribute, name);
    match filter {
        Some(filter) => filter.clone().and(named),
        None => named,
    }
}

/// Who may sign in and is that one; `None` for an identity by name, which is its own base.
pub fn by_identity(filter: Option<&Filter>, identity: &Identity) -> Option<Filter> {
    if identity.kind == "dn" {
        return None;
    }
    let same = Filter::equal(&identity.kind, identity.bytes()?);
    Some(match filter {
        Some(filter) => filter.clone().and(same),
        None => same,
    })
}

/// Whether this can be a user's name here: no robot's, no machine's, nothing that looks like another.
pub fn is_user_name(name: &str) -> bool {
    let odd = |character: char| {
        character.is_control()
            || character.is_whitespace()
            || matches!(
                character,
                ':' | '+' | '/' | '\\' | ',' | '"' | '<' | '>' | '*' | '(' | ')' | '=' | ';' | '#'
            )
    };
    !name.is_empty()
        && name.len() <= 128
        && !name.contains(odd)
        && crate::access::check_user_name(name).is_ok()
}

/// Why an entry may not sign in, if its server says so in the entry.
pub fn locked(entry: &Entry) -> Option<&'static str> {
    let is = |attribute, word: &str| {
        entry
            .texts(attribute)
            .any(|value| value.eq_ignore_ascii_case(word))
    };
    let flags = entry
        .texts("userAccountControl")
        .filter_map(|flags| flags.parse::<i64>().ok());
    if flags.into_iter().any(|flags| flags & DISABLED != 0) {
        Some("the account is disabled (userAccountControl)")
    } else if is("nsAccountLock", "true") {
        Some("the account is locked (nsAccountLock)")
    } else if is("pwdAccountLockedTime", FOR_GOOD) {
        Some("the account is locked (pwdAccountLockedTime)")
    } else if is("loginDisabled", "true") {
        Some("the account is disabled (loginDisabled)")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(attributes: &[(&str, &[&[u8]])]) -> Entry {
        let values = |values: &[&[u8]]| values.iter().map(|value| value.to_vec()).collect();
        Entry {
            dn: "uid=Alice,dc=x".into(),
            attributes: attributes
                .iter()
                .map(|(name, all)| ((*name).to_owned(), values(all)))
                .collect(),
        }
    }

    fn told(attributes: &[(&str, &[&[u8]])], attribute: Option<&str>) -> Result<String, String> {
        let dn = Dn::parse("uid=Alice,dc=x").unwrap();
        identity(&entry(attributes), &dn, attribute).map(|identity| identity.to_string())
    }

    #[test]
    fn an_entry_is_known_by_what_does_not_change() {
        let uuid: (&str, &[&[u8]]) = ("entryUUID", &[b"AB-12"]);
        assert_eq!(told(&[uuid], None).unwrap(), "entryuuid:ab-12");
        assert_eq!(
            told(&[("objectGUID", &[b"ab\x00\xff"])], None).unwrap(),
            "objectguid:#616200ff"
        );
        // Bytes that happen to be letters stay bytes.
        assert_eq!(
            told(&[("objectGUID", &[b"abcd"])], None).unwrap(),
            "objectguid:#61626364"
        );
        assert_eq!(told(&[], None).unwrap(), "dn:uid=alice,dc=x");
        assert_eq!(told(&[uuid], Some("dn")).unwrap(), "dn:uid=alice,dc=x");
        assert_eq!(
            told(&[uuid, ("employeeNumber", &[b"7"])], Some("employeeNumber")).unwrap(),
            "employeenumber:7"
        );
        assert!(
            told(&[uuid], Some("employeeNumber"))
                .unwrap_err()
                .contains("employeeNumber")
        );
        assert!(told(&[("n", &[b"1", b"2"])], Some("n")).is_err());
    }

    #[test]
    fn an_identity_is_found_again() {
        let found = |text: &str| {
            by_identity(None, &Identity::parse(text).unwrap()).map(|filter| filter.to_string())
        };
        assert_eq!(found("entryuuid:ab-12").unwrap(), "(entryuuid=ab-12)");
        assert_eq!(found("objectguid:#28ff").unwrap(), "(objectguid=\\28\\ff)");
        assert_eq!(
            found("entryuuid:*)(a=b").unwrap(),
            "(entryuuid=\\2a\\29\\28a=b)"
        );
        assert_eq!(found("dn:uid=a"), None);
        assert_eq!(Identity::parse("nonsense"), None);
    }

    #[test]
    fn who_is_locked_in_the_directory_is_locked() {
        let locks: [(&str, &[u8]); 4] = [
            ("userAccountControl", b"514"),
            ("nsAccountLock", b"TRUE"),
            ("pwdAccountLockedTime", b"000001010000Z"),
            ("loginDisabled", b"true"),
        ];
        for (name, value) in locks {
            assert!(locked(&entry(&[(name, &[value])])).is_some(), "{name}");
        }
        // Locked for a while, after wrong passwords: anybody could do that to anybody.
        let open: [(&str, &[u8]); 3] = [
            ("userAccountControl", b"512"),
            ("pwdAccountLockedTime", b"20260101000000Z"),
            ("nsAccountLock", b"false"),
        ];
        for (name, value) in open {
            assert!(locked(&entry(&[(name, &[value])])).is_none(), "{name}");
        }
    }

    #[test]
    fn names_that_could_be_anything_else_are_none() {
        for good in ["alice", "a.b-c_d@example.com", "žofie"] {
            assert!(is_user_name(good), "{good}");
        }
        for bad in [
            "",
            "a b",
            "a:b",
            "team+ci",
            "a/b",
            "a*",
            "(a",
            "anonymous",
            "a\0",
            "a\u{a0}b",
            "ou=a,dc=b",
        ] {
            assert!(!is_user_name(bad), "{bad}");
        }
    }
}
