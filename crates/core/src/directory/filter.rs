//! Search filters (RFC 4515): read as people write them, sent as bytes.
//!
//! What somebody typed becomes a value inside a filter that is already a tree, so that no character of it can mean anything else.

use std::fmt;

use super::ber::{OCTETS, put, put_around};

/// Deepest nesting that is read.
const DEPTH: usize = 32;
/// Longest text that is read, in bytes.
const LONGEST: usize = 16 << 10;

/// What entries are searched by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// All of them hold.
    And(Vec<Filter>),
    /// One of them holds.
    Or(Vec<Filter>),
    /// It does not hold.
    Not(Box<Filter>),
    /// The attribute has the value.
    Equal(String, Vec<u8>),
    /// The attribute has a value of at least that.
    AtLeast(String, Vec<u8>),
    /// The attribute has a value of at most that.
    AtMost(String, Vec<u8>),
    /// The attribute has a value that sounds like that.
    Like(String, Vec<u8>),
    /// There is such an attribute.
    Present(String),
    /// The attribute has a value that begins, goes on and ends so.
    Parts(String, Option<Vec<u8>>, Vec<Vec<u8>>, Option<Vec<u8>>),
    /// By a rule of the server's.
    Rule {
        /// The rule, unless it is the attribute's own.
        rule: Option<String>,
        /// The attribute, unless all are meant.
        attribute: Option<String>,
        /// The value.
        value: Vec<u8>,
        /// Whether the parts of the name count as attributes.
        with_name: bool,
    },
}

/// A text that is no filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at character {at}; write for example (&(objectClass=person)(!(locked=TRUE)))")]
pub struct FilterError {
    what: &'static str,
    /// Counted from 1.
    at: usize,
}

/// Whether the text can be an attribute's name, with options (`;`), or a dotted number.
pub fn is_attribute(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b';' | b'.' | b'_');
    text.len() <= 128
        && text.bytes().all(fits)
        && text
            .bytes()
            .next()
            .is_some_and(|first| first.is_ascii_alphanumeric())
}

impl Filter {
    /// The attribute has the value, whatever stands in it.
    pub fn equal(attribute: &str, value: impl Into<Vec<u8>>) -> Self {
        Self::Equal(attribute.to_owned(), value.into())
    }

    /// This and that.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::And(vec![self, other])
    }

    /// Reads a filter. Outer parentheses may be left out.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let text = text.trim();
        if text.len() > LONGEST {
            return Err(FilterError {
                what: "the filter is too long",
                at: LONGEST,
            });
        }
        let mut parser = Parser {
            text: text.as_bytes(),
            at: 0,
        };
        let filter = match text.starts_with('(') {
            true => parser.filter(0)?,
            false => parser.item()?,
        };
        match parser.at == text.len() {
            true => Ok(filter),
            false => Err(parser.wrong("something stands behind the filter")),
        }
    }

    /// Writes it as it is sent (RFC 4511 §4.5.1.7).
    pub fn encode(&self, out: &mut Vec<u8>) {
        let pair = |out: &mut Vec<u8>, tag: u8, attribute: &str, value: &[u8]| {
            put_around(out, tag, |out| {
                put(out, OCTETS, attribute.as_bytes());
                put(out, OCTETS, value);
            });
        };
        match self {
            Self::And(all) => {
                put_around(out, 0xa0, |out| all.iter().for_each(|one| one.encode(out)))
            }
            Self::Or(all) => {
                put_around(out, 0xa1, |out| all.iter().for_each(|one| one.encode(out)))
            }
            Self::Not(one) => put_around(out, 0xa2, |out| one.encode(out)),
            Self::Equal(attribute, value) => pair(out, 0xa3, attribute, value),
            Self::Parts(attribute, first, middle, last) => put_around(out, 0xa4, |out| {
                put(out, OCTETS, attribute.as_bytes());
                put_around(out, 0x30, |out| {
                    if let Some(first) = first {
                        put(out, 0x80, first);
                    }
                    middle.iter().for_each(|part| put(out, 0x81, part));
                    if let Some(last) = last {
                        put(out, 0x82, last);
                    }
                });
            }),
            Self::AtLeast(attribute, value) => pair(out, 0xa5, attribute, value),
            Self::AtMost(attribute, value) => pair(out, 0xa6, attribute, value),
            Self::Present(attribute) => put(out, 0x87, attribute.as_bytes()),
            Self::Like(attribute, value) => pair(out, 0xa8, attribute, value),
            Self::Rule {
                rule,
                attribute,
                value,
                with_name,
            } => put_around(out, 0xa9, |out| {
                if let Some(rule) = rule {
                    put(out, 0x81, rule.as_bytes());
                }
                if let Some(attribute) = attribute {
                    put(out, 0x82, attribute.as_bytes());
                }
                put(out, 0x83, value);
                if *with_name {
                    put(out, 0x84, &[0xff]);
                }
            }),
        }
    }
}

/// A value as RFC 4515 §3 wants it in a filter: whatever could mean something is written as its bytes.
pub fn escape(value: &[u8]) -> String {
    let mut out = String::with_capacity(value.len());
    let plain = std::str::from_utf8(value);
    match plain {
        Ok(text) => {
            for character in text.chars() {
                match character {
                    '*' | '(' | ')' | '\\' => out.push_str(&format!("\\{:02x}", character as u32)),
                    other if other.is_control() => {
                        let mut bytes = [0; 4];
                        for byte in other.encode_utf8(&mut bytes).bytes() {
                            out.push_str(&format!("\\{byte:02x}"));
                        }
                    }
                    other => out.push(other),
                }
            }
        }
        Err(_) => value
            .iter()
            .for_each(|byte| out.push_str(&format!("\\{byte:02x}"))),
    }
    out
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = |f: &mut fmt::Formatter<'_>, sign: char, filters: &[Filter]| {
            write!(f, "({sign}")?;
            filters
                .iter()
                .try_for_each(|filter| write!(f, "{filter}"))?;
            f.write_str(")")
        };
        match self {
            Self::And(filters) => all(f, '&', filters),
            Self::Or(filters) => all(f, '|', filters),
            Self::Not(filter) => write!(f, "(!{filter})"),
            Self::Equal(attribute, value) => write!(f, "({attribute}={})", escape(value)),
            Self::AtLeast(attribute, value) => write!(f, "({attribute}>={})", escape(value)),
            Self::AtMost(attribute, value) => write!(f, "({attribute}<={})", escape(value)),
            Self::Like(attribute, value) => write!(f, "({attribute}~={})", escape(value)),
            Self::Present(attribute) => write!(f, "({attribute}=*)"),
            Self::Parts(attribute, first, middle, last) => {
                let part = |part: &Option<Vec<u8>>| part.as_deref().map(escape).unwrap_or_default();
                write!(f, "({attribute}={}*", part(first))?;
                middle
                    .iter()
                    .try_for_each(|part| write!(f, "{}*", escape(part)))?;
                write!(f, "{})", part(last))
            }
            Self::Rule {
                rule,
                attribute,
                value,
                with_name,
            } => {
                f.write_str("(")?;
                f.write_str(attribute.as_deref().unwrap_or_default())?;
                if *with_name {
                    f.write_str(":dn")?;
                }
                if let Some(rule) = rule {
                    write!(f, ":{rule}")?;
                }
                write!(f, ":={})", escape(value))
            }
        }
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn wrong(&self, what: &'static str) -> FilterError {
        FilterError {
            what,
            at: self.at + 1,
        }
    }

    fn next(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8, what: &'static str) -> Result<(), FilterError> {
        match self.next() {
            Some(found) if found == byte => {
                self.at += 1;
                Ok(())
            }
            _ => Err(self.wrong(what)),
        }
    }

    fn filter(&mut self, depth: usize) -> Result<Filter, FilterError> {
        if depth > DEPTH {
            return Err(self.wrong("the filter is nested too deeply"));
        }
        self.take(b'(', "an opening parenthesis is missing")?;
        let filter = match self.next() {
            Some(sign @ (b'&' | b'|')) => {
                self.at += 1;
                let mut all = Vec::new();
                while self.next() == Some(b'(') {
                    all.push(self.filter(depth + 1)?);
                }
                match sign {
                    b'&' => Filter::And(all),
                    _ => Filter::Or(all),
                }
            }
            Some(b'!') => {
                self.at += 1;
                Filter::Not(Box::new(self.filter(depth + 1)?))
            }
            _ => self.item()?,
        };
        self.take(b')', "a closing parenthesis is missing")?;
        Ok(filter)
    }

    fn word(&mut self) -> String {
        let start = self.at;
        let fits =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b';' | b'.' | b'_');
        while self.next().is_some_and(fits) {
            self.at += 1;
        }
        String::from_utf8_lossy(&self.text[start..self.at]).into_owned()
    }

    fn item(&mut self) -> Result<Filter, FilterError> {
        let attribute = self.word();
        let named = match attribute.as_str() {
            "" => None,
            name if is_attribute(name) => Some(attribute),
            _ => return Err(self.wrong("this is no attribute's name")),
        };
        let kind = self.next();
        self.at += usize::from(kind.is_some());
        if kind == Some(b':') {
            return self.rule(named);
        }
        let Some(attribute) = named else {
            self.at -= usize::from(kind.is_some());
            return Err(self.wrong("an attribute's name is missing"));
        };
        match kind {
            Some(b'=') => self.values(attribute),
            Some(sign @ (b'>' | b'<' | b'~')) => {
                self.take(b'=', "= is missing")?;
                let value = self.value()?;
                Ok(match sign {
                    b'>' => Filter::AtLeast(attribute, value),
                    b'<' => Filter::AtMost(attribute, value),
                    _ => Filter::Like(attribute, value),
                })
            }
            _ => {
                self.at -= usize::from(kind.is_some());
                Err(self.wrong("= is missing"))
            }
        }
    }

    /// Behind the first colon.
    fn rule(&mut self, attribute: Option<String>) -> Result<Filter, FilterError> {
        let (mut rule, mut with_name) = (None, false);
        loop {
            if self.next() == Some(b'=') {
                self.at += 1;
                break;
            }
            match self.word() {
                word if word.eq_ignore_ascii_case("dn") && !with_name && rule.is_none() => {
                    with_name = true
                }
                word if rule.is_none() && is_attribute(&word) => rule = Some(word),
                _ => return Err(self.wrong("this is no matching rule")),
            }
            self.take(b':', ":= is missing")?;
        }
        if attribute.is_none() && rule.is_none() {
            return Err(self.wrong("neither an attribute nor a rule is named"));
        }
        let value = self.value()?;
        Ok(Filter::Rule {
            rule,
            attribute,
            value,
            with_name,
        })
    }

    fn values(&mut self, attribute: String) -> Result<Filter, FilterError> {
        let mut parts = vec![self.value()?];
        while self.next() == Some(b'*') {
            self.at += 1;
            parts.push(self.value()?);
        }
        let some = |part: Vec<u8>| (!part.is_empty()).then_some(part);
        let last = match parts.len() {
            1 => return Ok(Filter::Equal(attribute, parts.remove(0))),
            _ => parts.pop().and_then(some),
        };
        let first = some(parts.remove(0));
        if first.is_none() && last.is_none() && parts.is_empty() {
            return Ok(Filter::Present(attribute));
        }
        if parts.iter().any(Vec::is_empty) {
            return Err(self.wrong("two * stand side by side"));
        }
        Ok(Filter::Parts(attribute, first, parts, last))
    }

    /// Up to the next character that means something.
    fn value(&mut self) -> Result<Vec<u8>, FilterError> {
        let mut value = Vec::new();
        while let Some(byte) = self.next() {
            match byte {
                b'*' | b')' => break,
                b'(' => return Err(self.wrong("( in a value is written \\28")),
                0 => return Err(self.wrong("a NUL in a value is written \\00")),
                b'\\' => {
                    let digits = self.text.get(self.at + 1..self.at + 3);
                    let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
                    let byte = digits
                        .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
                        .and_then(|digits| u8::from_str_radix(digits, 16).ok());
                    value.push(
                        byte.ok_or_else(|| self.wrong("behind \\ stand two hexadecimal digits"))?,
                    );
                    self.at += 2;
                }
                other => value.push(other),
            }
            self.at += 1;
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_filter() -> impl Strategy<Value = Filter> {
        let attribute = "[a-zA-Z][a-zA-Z0-9;-]{0,8}";
        let value = || proptest::collection::vec(any::<u8>(), 0..12);
        let part = || proptest::collection::vec(any::<u8>(), 1..6);
        let leaf = prop_oneof![
            (attribute, value()).prop_map(|(name, value)| Filter::Equal(name, value)),
            (attribute, value()).prop_map(|(name, value)| Filter::AtLeast(name, value)),
            (attribute, value()).prop_map(|(name, value)| Filter::AtMost(name, value)),
            (attribute, value()).prop_map(|(name, value)| Filter::Like(name, value)),
            attribute.prop_map(Filter::Present),
            (
                attribute,
                proptest::option::of(part()),
                proptest::collection::vec(part(), 0..3),
                part()
            )
                .prop_map(|(name, first, middle, last)| Filter::Parts(
                    name,
                    first,
                    middle,
                    Some(last)
                )),
            (
                proptest::option::of("[0-9]{1,3}(\\.[0-9]{1,3}){1,4}"),
                attribute,
                value(),
                any::<bool>()
            )
                .prop_map(|(rule, name, value, with_name)| Filter::Rule {
                    rule,
                    attribute: Some(name),
                    value,
                    with_name
                }),
        ];
        leaf.prop_recursive(4, 20, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Filter::And),
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Filter::Or),
                inner.prop_map(|one| Filter::Not(Box::new(one))),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_shown_is_what_was_meant(filter in any_filter()) {
            prop_assert_eq!(Filter::parse(&filter.to_string()), Ok(filter));
        }

        /// LDAP injection: whatever is typed as a name stays one value of one comparison.
        #[test]
        fn no_name_can_leave_its_place(name in any::<Vec<u8>>()) {
            let sent = Filter::parse("(objectClass=person)").unwrap().and(Filter::equal("uid", name.clone()));
            let Ok(Filter::And(parts)) = Filter::parse(&sent.to_string()) else { panic!("{sent}") };
            prop_assert_eq!(parts.len(), 2);
            prop_assert_eq!(&parts[1], &Filter::Equal("uid".into(), name));
        }

        #[test]
        fn any_text_is_a_filter_or_an_error(text in "[()&|!=*:a-z\\\\0-9<>~ ]{0,60}") {
            if let Ok(filter) = Filter::parse(&text) {
                prop_assert_eq!(Filter::parse(&filter.to_string()), Ok(filter));
            }
        }
    }

    #[test]
    fn filters_of_known_attacks_stay_names() {
        for name in [
            "*",
            "*)(uid=*",
            "admin)(|(uid=*",
            "a\0b",
            "\\2a",
            "x)(objectClass=*))(&(uid=x",
        ] {
            let text = Filter::equal("uid", name).to_string();
            assert_eq!(
                Filter::parse(&text),
                Ok(Filter::equal("uid", name)),
                "{text}"
            );
            let inner = &text[1..text.len() - 1];
            assert!(!inner.contains(['(', ')', '*', '\0']), "{text}");
        }
    }

    #[test]
    fn what_people_write_is_read() {
        let locked = "(!(userAccountControl:1.2.840.113556.1.4.803:=2))";
        for text in [
            "(uid=a)",
            "(&(objectClass=person)(|(a=b)(c=d*e*f)(g=*)))",
            locked,
            "(cn:dn:2.4.6.8.10:=Dino)",
            "(:caseExactMatch:=x)",
            "(cn=*a*)",
            "(x>=5)",
            "(cn=Lu\\c4\\8di\\c4\\87)",
            "(&)",
        ] {
            let filter = Filter::parse(text).unwrap();
            assert_eq!(Filter::parse(&filter.to_string()), Ok(filter), "{text}");
        }
        assert_eq!(Filter::parse(" uid=a "), Filter::parse("(uid=a)"));
    }

    #[test]
    fn what_is_no_filter_is_told_where_it_breaks() {
        let deep = format!("{}(a=b){}", "(!".repeat(100), ")".repeat(100));
        for (text, at) in [
            ("", 1),
            ("(uid=a", 7),
            ("(uid=a))", 8),
            ("(uid)", 5),
            ("(=a)", 2),
            ("(uid=a(b)", 7),
            ("(uid=\\zz)", 6),
            ("(a=b**c)", 8),
            (deep.as_str(), 67),
        ] {
            let error = Filter::parse(text).unwrap_err();
            assert_eq!(error.at, at, "{text}: {error}");
        }
    }

    #[test]
    fn filters_are_sent_as_the_standard_has_it() {
        let mut out = Vec::new();
        Filter::parse("(&(a=b)(!(c=*)))").unwrap().encode(&mut out);
        assert_eq!(out, b"\xa0\x0d\xa3\x06\x04\x01a\x04\x01b\xa2\x03\x87\x01c");
        let mut out = Vec::new();
        Filter::parse("(m:1.2:=x)").unwrap().encode(&mut out);
        assert_eq!(out, b"\xa9\x0b\x81\x031.2\x82\x01m\x83\x01x");
    }
}
