//! Distinguished names (RFC 4514): compared and shown in one form, whatever a server or a person writes.

use std::fmt::Write as _;

use super::filter::is_attribute;

/// Most parts of a name.
const PARTS: usize = 64;
/// Longest name, in bytes.
const LONGEST: usize = 4 << 10;

/// A name in its one form: types and values in lower case, without blanks that mean nothing, parts of one step in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dn {
    /// The entry's own step first.
    steps: Vec<Vec<(String, String)>>,
    /// The first value as it was written.
    first: String,
}

/// A text that is no distinguished name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at character {at}; write for example ou=people,dc=example,dc=com")]
pub struct DnError {
    what: &'static str,
    at: usize,
}

impl Dn {
    /// Reads a name; the empty one is the root's.
    pub fn parse(text: &str) -> Result<Self, DnError> {
        let mut parser = Parser { text, at: 0 };
        let (mut steps, mut first) = (Vec::new(), String::new());
        if text.len() > LONGEST {
            return Err(parser.wrong("the name is too long"));
        }
        parser.blanks();
        while parser.at < text.len() {
            let mut step = Vec::new();
            loop {
                let (kind, value) = parser.pair()?;
                if first.is_empty() && steps.is_empty() && step.is_empty() {
                    first.clone_from(&value);
                }
                step.push((kind, fold(&value)));
                if step.len() > PARTS {
                    return Err(parser.wrong("the name has too many parts"));
                }
                if !parser.took('+') {
                    break;
                }
            }
            step.sort_unstable();
            steps.push(step);
            if steps.len() > PARTS {
                return Err(parser.wrong("the name has too many parts"));
            }
            if parser.at == text.len() {
                break;
            }
            if !parser.took(',') && !parser.took(';') {
                return Err(parser.wrong("a comma is missing"));
            }
            parser.blanks();
            if parser.at == text.len() {
                return Err(parser.wrong("something is missing behind the comma"));
            }
        }
        Ok(Self { steps, first })
    }

    /// The one form as text.
    pub fn normal(&self) -> String {
        let step = |step: &Vec<(String, String)>| {
            let pairs = step
                .iter()
                .map(|(kind, value)| format!("{kind}={}", escape(value)));
            pairs.collect::<Vec<_>>().join("+")
        };
        self.steps.iter().map(step).collect::<Vec<_>>().join(",")
    }

    /// Whether this is the other one or below it.
    pub fn is_within(&self, other: &Self) -> bool {
        self.steps.ends_with(&other.steps)
    }

    /// The value of the entry's own step as it was written, if it has one of that attribute only.
    pub fn own(&self, attribute: &str) -> Option<&str> {
        match self.steps.first()?.as_slice() {
            [(kind, _)] if kind.eq_ignore_ascii_case(attribute) => Some(&self.first),
            _ => None,
        }
    }
}

/// As most attributes of names are compared: without case and needless blanks.
fn fold(value: &str) -> String {
    value
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
        .to_lowercase()
}

/// A value as RFC 4514 §2.4 wants it in a name.
pub fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let last = value.chars().count().saturating_sub(1);
    for (at, character) in value.chars().enumerate() {
        match character {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' | '=' => {
                out.push('\\');
                out.push(character);
            }
            '#' if at == 0 => out.push_str("\\#"),
            ' ' if at == 0 || at == last => out.push_str("\\ "),
            other if other.is_control() => {
                let mut bytes = [0; 4];
                for byte in other.encode_utf8(&mut bytes).bytes() {
                    let _ = write!(out, "\\{byte:02x}");
                }
            }
            other => out.push(other),
        }
    }
    out
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn wrong(&self, what: &'static str) -> DnError {
        let at = self.text[..self.at].chars().count() + 1;
        DnError { what, at }
    }

    fn next(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn took(&mut self, wanted: char) -> bool {
        let found = self.next() == Some(wanted);
        if found {
            self.at += wanted.len_utf8();
        }
        found
    }

    fn blanks(&mut self) {
        while self.took(' ') {}
    }

    fn pair(&mut self) -> Result<(String, String), DnError> {
        self.blanks();
        let rest = &self.text[self.at..];
        let end = rest.find('=').ok_or_else(|| self.wrong("= is missing"))?;
        let kind = rest[..end].trim_end_matches(' ');
        if !is_attribute(kind) {
            return Err(self.wrong("this is no attribute's name"));
        }
        let kind = kind.to_ascii_lowercase();
        self.at += end + 1;
        self.blanks();
        if self.next() == Some('#') {
            let start = self.at;
            self.at += 1;
            while self.next().is_some_and(|digit| digit.is_ascii_hexdigit()) {
                self.at += 1;
            }
            let value = self.text[start..self.at].to_ascii_lowercase();
            self.blanks();
            return Ok((kind, value));
        }
        Ok((kind, self.value()?))
    }

    fn value(&mut self) -> Result<String, DnError> {
        let (mut bytes, mut kept) = (Vec::new(), 0);
        while let Some(character) = self.next() {
            match character {
                ',' | ';' | '+' => break,
                '"' | '<' | '>' | '\0' => {
                    return Err(self.wrong("this character is written with \\ before it"));
                }
                '\\' => {
                    self.at += 1;
                    let pair = self.text.as_bytes().get(self.at..self.at + 2);
                    let hex = pair.filter(|pair| pair.iter().all(u8::is_ascii_hexdigit));
                    let hex = hex.and_then(|pair| std::str::from_utf8(pair).ok());
                    match (
                        hex.and_then(|pair| u8::from_str_radix(pair, 16).ok()),
                        self.next(),
                    ) {
                        (Some(byte), _) => {
                            bytes.push(byte);
                            self.at += 2;
                        }
                        (None, Some(escaped))
                            if !escaped.is_alphanumeric() && !escaped.is_control() =>
                        {
                            bytes.extend_from_slice(escaped.encode_utf8(&mut [0; 4]).as_bytes());
                            self.at += escaped.len_utf8();
                        }
                        _ => return Err(self.wrong("behind \\ stands nothing that is written so")),
                    }
                    // What is escaped is no blank at the end.
                    kept = bytes.len();
                }
                other => {
                    bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                    self.at += other.len_utf8();
                    if other != ' ' {
                        kept = bytes.len();
                    }
                }
            }
        }
        bytes.truncate(kept);
        String::from_utf8(bytes).map_err(|_| self.wrong("the value is no UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_value_stays_in_its_step(value in "\\PC{1,30}", more in any::<String>()) {
            for value in [value, more] {
                let text = format!("cn={},ou=people,dc=example", escape(&value));
                let dn = Dn::parse(&text).unwrap();
                prop_assert_eq!(dn.own("cn"), Some(value.as_str()));
                prop_assert!(dn.is_within(&Dn::parse("OU=People, DC=example").unwrap()));
            }
        }

        #[test]
        fn the_one_form_is_stable(text in "[a-z]{1,4}=[A-Za-z ,+=\\\\#\"<>é]{0,20}(,[a-z]{1,3}=[a-z]{1,3}){0,3}") {
            if let Ok(dn) = Dn::parse(&text) {
                let again = Dn::parse(&dn.normal()).unwrap();
                prop_assert_eq!(again.normal(), dn.normal());
            }
        }

        #[test]
        fn any_text_is_a_name_or_an_error(text in any::<String>()) {
            let _ = Dn::parse(&text);
        }
    }

    #[test]
    fn one_entry_has_one_form() {
        let one = Dn::parse("UID=Alice , OU=People,DC=Example").unwrap();
        for other in [
            "uid=alice,ou=people,dc=example",
            "uid=\\41lice;ou=PEOPLE;dc=example",
            "uid = ALICE,ou=people,dc=example",
        ] {
            assert_eq!(Dn::parse(other).unwrap().normal(), one.normal(), "{other}");
        }
        assert_eq!(Dn::parse("b=2+a=1,c=3").unwrap().normal(), "a=1+b=2,c=3");
        assert_eq!(Dn::parse("").unwrap().normal(), "");
        assert_eq!(one.own("uid"), Some("Alice"));
        assert_eq!(one.own("ou"), None);
    }

    /// DN tricks: what looks like a step is a value, and the other way round.
    #[test]
    fn a_value_that_looks_like_a_step_is_none() {
        let people = Dn::parse("ou=people,dc=example").unwrap();
        let tricky = Dn::parse("cn=x\\,ou=people\\,dc=example,dc=elsewhere").unwrap();
        assert!(!tricky.is_within(&people));
        assert!(
            !Dn::parse("cn=x,zou=people,dc=example")
                .unwrap()
                .is_within(&people)
        );
        assert!(
            Dn::parse("cn=x\\2cou=a,ou=people,dc=example")
                .unwrap()
                .is_within(&people)
        );
        assert_eq!(escape(" #a,b "), "\\ #a\\,b\\ ");
        assert_eq!(escape("#a\0"), "\\#a\\00");
    }

    #[test]
    fn what_is_no_name_is_told() {
        for broken in [
            "people",
            "ou=a,",
            "ou=a,,dc=b",
            "=a",
            "ou=a\"b",
            "ou=a\\",
            "ou=a\\zz",
            "o u=a",
        ] {
            assert!(Dn::parse(broken).is_err(), "{broken}");
        }
    }
}
