//! The messages of LDAP (RFC 4511) that a sign-in needs: bind, search by pages, StartTLS.

use super::ber::{
    BOOLEAN, BerError, ENUMERATED, INTEGER, OCTETS, Reader, SEQUENCE, SET, put, put_around,
    put_number,
};
use super::filter::Filter;

/// The control of RFC 2696.
const PAGED: &str = "1.2.840.113556.1.4.319";
/// The operation of RFC 4511 §4.14.
pub const START_TLS: &str = "1.3.6.1.4.1.1466.20037";
/// Most attributes of one entry, and most values of one attribute, that are read.
const VALUES: usize = 20_000;

/// How far below its base a search looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// At the base alone.
    Base,
    /// Right below it.
    One,
    /// At it and below it.
    #[default]
    Subtree,
}

/// What is searched.
#[derive(Debug, Clone)]
pub struct Search<'a> {
    /// Where.
    pub base: &'a str,
    /// How far below.
    pub scope: Scope,
    /// What for.
    pub filter: &'a Filter,
    /// What is wanted of each entry.
    pub attributes: &'a [&'a str],
    /// Most entries; 0: as many as the server gives.
    pub entries: i32,
    /// In s.
    pub time: i32,
    /// Entries for each page and where the last one ended; `None`: in one piece.
    pub page: Option<(i32, &'a [u8])>,
}

fn message(id: i32, controls: Option<&[u8]>, operation: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put_around(&mut out, SEQUENCE, |out| {
        put_number(out, INTEGER, id);
        operation(out);
        if let Some(controls) = controls {
            put(out, 0xa0, controls);
        }
    });
    out
}

/// Asks to be the entry of that name, by its password.
pub fn bind(id: i32, dn: &str, password: &str) -> Vec<u8> {
    message(id, None, |out| {
        put_around(out, 0x60, |out| {
            put_number(out, INTEGER, 3);
            put(out, OCTETS, dn.as_bytes());
            put(out, 0x80, password.as_bytes());
        });
    })
}

/// Says goodbye.
pub fn unbind(id: i32) -> Vec<u8> {
    message(id, None, |out| put(out, 0x42, &[]))
}

/// Asks for TLS on this connection.
pub fn start_tls(id: i32) -> Vec<u8> {
    message(id, None, |out| {
        put_around(out, 0x77, |out| put(out, 0x80, START_TLS.as_bytes()));
    })
}

/// Asks for entries.
pub fn search(id: i32, search: &Search<'_>) -> Vec<u8> {
    let controls = search.page.map(|(size, cookie)| {
        let mut controls = Vec::new();
        put_around(&mut controls, SEQUENCE, |out| {
            put(out, OCTETS, PAGED.as_bytes());
            let mut value = Vec::new();
            put_around(&mut value, SEQUENCE, |out| {
                put_number(out, INTEGER, size);
                put(out, OCTETS, cookie);
            });
            put(out, OCTETS, &value);
        });
        controls
    });
    message(id, controls.as_deref(), |out| {
        put_around(out, 0x63, |out| {
            put(out, OCTETS, search.base.as_bytes());
            let scope = match search.scope {
                Scope::Base => 0,
                Scope::One => 1,
                Scope::Subtree => 2,
            };
            put_number(out, ENUMERATED, scope);
            // Aliases lead elsewhere, too: never followed.
            put_number(out, ENUMERATED, 0);
            put_number(out, INTEGER, search.entries);
            put_number(out, INTEGER, search.time);
            put(out, BOOLEAN, &[0]);
            search.filter.encode(out);
            put_around(out, SEQUENCE, |out| {
                search
                    .attributes
                    .iter()
                    .for_each(|name| put(out, OCTETS, name.as_bytes()));
            });
        });
    })
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The result code.
    pub code: i32,
    /// What the server says to it.
    pub text: String,
}

impl Outcome {
    /// Whether it succeeded.
    pub const fn is_good(&self) -> bool {
        self.code == 0
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.code {
            0 => "success",
            1 => "operationsError",
            2 => "protocolError",
            3 => "timeLimitExceeded",
            4 => "sizeLimitExceeded",
            7 => "authMethodNotSupported",
            8 => "strongerAuthRequired",
            10 => "referral",
            11 => "adminLimitExceeded",
            13 => "confidentialityRequired",
            16 => "noSuchAttribute",
            17 => "undefinedAttributeType",
            18 => "inappropriateMatching",
            19 => "constraintViolation",
            32 => "noSuchObject",
            34 => "invalidDNSyntax",
            48 => "inappropriateAuthentication",
            49 => "invalidCredentials",
            50 => "insufficientAccessRights",
            51 => "busy",
            52 => "unavailable",
            53 => "unwillingToPerform",
            _ => "",
        };
        match name {
            "" => write!(f, "result code {}", self.code)?,
            name => write!(f, "{name} ({})", self.code)?,
        }
        match self.text.as_str() {
            "" => Ok(()),
            text => write!(f, ": {text:?}"),
        }
    }
}

/// An entry as far as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// Its name as the server writes it.
    pub dn: String,
    /// Attributes with their values.
    pub attributes: Vec<(String, Vec<Vec<u8>>)>,
}

impl Entry {
    /// All values of an attribute, with whatever options.
    pub fn values<'a>(&'a self, attribute: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let is = move |name: &str| {
            let name = name.split_once(';').map_or(name, |(name, _)| name);
            name.eq_ignore_ascii_case(attribute)
        };
        let all = self.attributes.iter().filter(move |(name, _)| is(name));
        all.flat_map(|(_, values)| values.iter().map(Vec::as_slice))
    }

    /// The values that are text.
    pub fn texts<'a>(&'a self, attribute: &'a str) -> impl Iterator<Item = &'a str> {
        self.values(attribute)
            .filter_map(|value| std::str::from_utf8(value).ok())
    }

    /// Whether the server keeps values back: some give no more than 1,500 at once (`memberOf;range=0-1499`).
    pub fn is_partial(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|(name, _)| {
            let (name, option) = name.split_once(';').unwrap_or((name, ""));
            name.eq_ignore_ascii_case(attribute)
                && option.starts_with("range=")
                && !option.ends_with('*')
        })
    }
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To a bind.
    Bind(Outcome),
    /// One of what was searched.
    Entry(Entry),
    /// Something to be searched elsewhere.
    Elsewhere,
    /// The search's end, and where the next page begins.
    Done(Outcome, Vec<u8>),
    /// To an extended operation.
    Extended(Outcome),
    /// Something else.
    Other(u8),
}

/// A message of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Of which request; 0: of none.
    pub id: i32,
    /// What it says.
    pub answer: Answer,
}

/// Longest text of a server that is kept, in characters.
const LONGEST_TEXT: usize = 300;

fn outcome(inside: &mut Reader<'_>) -> Result<Outcome, BerError> {
    let code = inside.number(ENUMERATED)?;
    inside.expect(OCTETS)?;
    let text = inside.text(OCTETS)?;
    let shown = |character: &char| !character.is_control();
    let text = text.chars().filter(shown).take(LONGEST_TEXT).collect();
    Ok(Outcome { code, text })
}

fn entry(inside: &mut Reader<'_>) -> Result<Entry, BerError> {
    let dn = inside.text(OCTETS)?;
    let mut all = inside.inside(SEQUENCE)?;
    let mut attributes = Vec::new();
    while !all.is_empty() && attributes.len() < VALUES {
        let mut one = all.inside(SEQUENCE)?;
        let name = one.text(OCTETS)?;
        let mut set = one.inside(SET)?;
        let mut values = Vec::new();
        while !set.is_empty() && values.len() < VALUES {
            values.push(set.expect(OCTETS)?.to_vec());
        }
        attributes.push((name, values));
    }
    Ok(Entry { dn, attributes })
}

/// Where the next page begins, according to the controls of a message.
fn cookie(mut controls: Reader<'_>) -> Result<Vec<u8>, BerError> {
    while !controls.is_empty() {
        let mut control = controls.inside(SEQUENCE)?;
        let name = control.expect(OCTETS)?;
        if control.peek() == Some(BOOLEAN) {
            control.expect(BOOLEAN)?;
        }
        if name == PAGED.as_bytes() && !control.is_empty() {
            let mut value = control.inside(OCTETS)?.inside(SEQUENCE)?;
            value.number(INTEGER)?;
            return Ok(value.expect(OCTETS)?.to_vec());
        }
    }
    Ok(Vec::new())
}

impl Message {
    /// Reads a whole message.
    pub fn read(bytes: &[u8]) -> Result<Self, BerError> {
        let mut message = Reader::new(bytes).inside(SEQUENCE)?;
        let id = message.number(INTEGER)?;
        let (tag, content) = message.element()?;
        let mut inside = Reader::new(content);
        let answer = match tag {
            0x61 => Answer::Bind(outcome(&mut inside)?),
            0x64 => Answer::Entry(entry(&mut inside)?),
            0x73 => Answer::Elsewhere,
            0x65 => {
                let outcome = outcome(&mut inside)?;
                let cookie = match message.peek() {
                    Some(0xa0) => cookie(message.inside(0xa0)?)?,
                    _ => Vec::new(),
                };
                Answer::Done(outcome, cookie)
            }
            0x78 => Answer::Extended(outcome(&mut inside)?),
            other => Answer::Other(other),
        };
        Ok(Self { id, answer })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Message::read(&bytes);
        }

        #[test]
        fn bytes_inside_a_message_are_one_or_an_error(tag: u8, inside in proptest::collection::vec(any::<u8>(), 0..100), cut in 0usize..120) {
            let mut bytes = message(7, None, |out| put(out, tag, &inside));
            if let Ok(read) = Message::read(&bytes) {
                prop_assert_eq!(read.id, 7);
            }
            bytes.truncate(cut);
            let _ = Message::read(&bytes);
        }
    }

    fn ended(tag: u8, code: i32, text: &str) -> Vec<u8> {
        message(3, None, |out| {
            put_around(out, tag, |out| {
                put_number(out, ENUMERATED, code);
                put(out, OCTETS, b"");
                put(out, OCTETS, text.as_bytes());
            });
        })
    }

    #[test]
    fn requests_are_as_other_clients_send_them() {
        assert_eq!(
            bind(1, "cn=a", "b"),
            b"\x30\x11\x02\x01\x01\x60\x0c\x02\x01\x03\x04\x04cn=a\x80\x01b"
        );
        assert_eq!(unbind(2), b"\x30\x05\x02\x01\x02\x42\x00");
        assert_eq!(start_tls(1)[..9], *b"\x30\x1d\x02\x01\x01\x77\x18\x80\x16");
        let filter = Filter::parse("(uid=a)").unwrap();
        let sent = search(
            2,
            &Search {
                base: "dc=x",
                scope: Scope::Subtree,
                filter: &filter,
                attributes: &["cn"],
                entries: 2,
                time: 5,
                page: None,
            },
        );
        assert_eq!(
            sent,
            b"\x30\x2a\x02\x01\x02\x63\x25\x04\x04dc=x\x0a\x01\x02\x0a\x01\x00\x02\x01\x02\x02\x01\x05\x01\x01\x00\xa3\x08\x04\x03uid\x04\x01a\x30\x04\x04\x02cn"
        );
    }

    #[test]
    fn answers_are_told_apart() {
        let read = |bytes: &[u8]| Message::read(bytes).unwrap().answer;
        let Answer::Bind(outcome) = read(&ended(0x61, 49, "no\x07pe")) else {
            panic!()
        };
        assert_eq!(outcome.to_string(), "invalidCredentials (49): \"nope\"");
        assert!(
            matches!(read(&ended(0x65, 0, "")), Answer::Done(outcome, cookie) if outcome.is_good() && cookie.is_empty())
        );
        assert!(
            matches!(read(&ended(0x78, 2, "")), Answer::Extended(outcome) if outcome.code == 2)
        );
        assert_eq!(
            read(&message(1, None, |out| put(out, 0x73, &[]))),
            Answer::Elsewhere
        );
    }

    #[test]
    fn options_of_attributes_hide_no_value() {
        let entry = Entry {
            dn: "cn=a".into(),
            attributes: vec![
                (
                    "memberOf;range=0-1".into(),
                    vec![b"cn=b".to_vec(), vec![0xff]],
                ),
                ("MEMBEROF".into(), vec![b"cn=c".to_vec()]),
            ],
        };
        assert_eq!(
            entry.texts("memberof").collect::<Vec<_>>(),
            ["cn=b", "cn=c"]
        );
        assert!(entry.is_partial("memberOf"));
        assert!(!entry.is_partial("cn"));
    }
}
