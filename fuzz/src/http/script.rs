//! Inputs of the target `sequence`: a script of requests, one per line.
//!
//! `METHOD target^name: value^name: value|body`. So that mutations of a script still mean something, whatever depends on
//! the run stands in braces and is filled in when its line is sent:
//!
//! | | |
//! |---|---|
//! | `{d}`, `{D}` | SHA-256 and SHA-512 of this line's body |
//! | `{w}`, `{W}` | the same of all that the session in the target holds and this body |
//! | `{u3}` | the address of the fourth session that was opened, counted round |
//! | `{b3}`, `{s3}` | digest and size of the fourth blob that was acknowledged |
//! | `{m3}`, `{z3}` | digest and size of the fourth manifest that was acknowledged |
//! | `{x300}` | 300 bytes of filler |
//! | `{r}` | the first part of all names, which is other for each script |
//! | `{admin}` | the administrator's credentials |

use super::wire::Answer;

/// Lines that are carried out; the rest of a script is left.
pub(super) const MAX_LINES: usize = 24;
/// The most filler in one text: beyond what is kept inline, and enough to go by `sendfile`.
const MAX_FILLER: usize = 300 * 1024;

/// What stands for itself and what is filled in.
pub(super) trait Values {
    /// What `{key number}` means; `None` leaves the text as it is.
    fn value(&self, key: &str, number: usize) -> Option<String>;
}

/// A request as it is sent, and what the server makes of it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: Vec<(String, String)>,
    /// The body as far as it is sent.
    pub(super) body: Vec<u8>,
    /// Whether all of the announced body is sent.
    pub(super) whole: bool,
}

/// A line before anything is filled in.
pub(super) struct Line<'a> {
    pub(super) method: &'a str,
    pub(super) target: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    body: &'a str,
}

impl<'a> Line<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Line<'a>> {
        let (head, body) = text.split_once('|').unwrap_or((text, ""));
        let mut fields = head.split('^');
        let (method, target) = fields.next()?.split_once(' ')?;
        // At the first colon, as the server does: what follows belongs to the value.
        let headers = fields.filter_map(|field| field.split_once(':'));
        let headers = headers.map(|(name, value)| (name, value.trim_start()));
        Some(Line {
            method,
            target,
            headers: headers.collect(),
            body,
        })
    }

    pub(super) fn body(&self, values: &dyn Values) -> Vec<u8> {
        fill(self.body, values).into_bytes()
    }

    /// The request with a body that [`Line::body`] has made. `prefix` is put before the name in the path.
    pub(super) fn request(&self, prefix: &str, values: &dyn Values, mut body: Vec<u8>) -> Request {
        let target = fill(self.target, values);
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let own = format!("/v2/{prefix}/");
        let path = match path.strip_prefix("/v2/") {
            Some(rest) if !rest.is_empty() && !rest.starts_with('_') && !path.starts_with(&own) => {
                format!("{own}{rest}")
            }
            _ => path.to_owned(),
        };
        let mut headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), fill(value, values)))
            // Wrong passwords cost a hash each, and the target `authorization` has the parser.
            .filter(|(name, value)| {
                !name.eq_ignore_ascii_case("authorization")
                    || !value.trim_start().to_ascii_lowercase().starts_with("basic")
                    || Some(value) == values.value("admin", 0).as_ref()
            })
            .collect();
        let named = |name: &str| {
            headers
                .iter()
                .find(|(key, _)| key.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.as_str())
        };
        let mut whole = true;
        match (named("content-length"), named("transfer-encoding")) {
            (Some(length), _) => match length.parse::<usize>() {
                Ok(length) => {
                    whole = body.len() >= length;
                    body.truncate(length);
                }
                Err(_) => whole = false,
            },
            (None, Some(_)) => {}
            (None, None) if body.is_empty() && self.method != "PATCH" => {}
            (None, None) => headers.push(("Content-Length".into(), body.len().to_string())),
        }
        Request {
            method: self.method.to_owned(),
            path,
            query: query.to_owned(),
            headers,
            body,
            whole,
        }
    }
}

impl Request {
    pub(super) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// The only header of that name.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// As it goes on the wire.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {}", self.method, self.path);
        if !self.query.is_empty() {
            text.push('?');
            text.push_str(&self.query);
        }
        text.push_str(" HTTP/1.1\r\nHost: registry.test\r\n");
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        let coded = self.header("transfer-encoding").is_some();
        if coded && !self.body.is_empty() {
            bytes.extend(format!("{:x}\r\n", self.body.len()).into_bytes());
        }
        bytes.extend(&self.body);
        if coded {
            let end: &[u8] = match self.body.is_empty() {
                true => b"0\r\n\r\n",
                false => b"\r\n0\r\n\r\n",
            };
            bytes.extend(end);
        }
        bytes
    }

    /// Whether the answer is one of the few of the 5xx that are meant for what was asked.
    pub(super) fn explains(&self, answer: &Answer) -> bool {
        // A transfer coding that is not known.
        answer.status == 501 && self.header("transfer-encoding").is_some()
    }
}

/// Fills in what stands in braces.
fn fill(text: &str, values: &dyn Values) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut filler = 0;
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        let value = rest.find('}').and_then(|end| {
            let inside = &rest[1..end];
            let digits = inside
                .find(|c: char| c.is_ascii_digit())
                .unwrap_or(inside.len());
            let (key, number) = inside.split_at(digits);
            let number = match number {
                "" => 0,
                number => number.parse::<usize>().ok()?,
            };
            let value = match key {
                "x" => {
                    let length = number.min(MAX_FILLER - filler);
                    filler += length;
                    "0123456789abcdef".chars().cycle().take(length).collect()
                }
                _ => values.value(key, number)?,
            };
            Some((value, end + 1))
        });
        match value {
            Some((value, end)) => {
                filled.push_str(&value);
                rest = &rest[end..];
            }
            None => {
                filled.push('{');
                rest = &rest[1..];
            }
        }
    }
    filled.push_str(rest);
    filled
}
