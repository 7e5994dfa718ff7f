//! What tokens say: claims by path, patterns on their values, names made of them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a token says.
pub type Claims = Map<String, Value>;

/// Longest value that a pattern is tried on, in bytes; a longer one matches nothing.
const LONGEST_VALUE: usize = 1 << 10;
/// Longest pattern or path, in bytes.
pub(crate) const LONGEST_PATTERN: usize = 512;
/// Longest name of a principal, in bytes.
const LONGEST_NAME: usize = 255;

/// The claim at a path of names between dots. Names hold dots themselves (`kubernetes.io.namespace`), so at each step the longest
/// name that is there counts.
pub fn find<'a>(claims: &'a Claims, path: &str) -> Option<&'a Value> {
    let (mut within, mut path) = (claims, path);
    loop {
        if let Some(found) = within.get(path) {
            return Some(found);
        }
        let ends = path.rmatch_indices('.').map(|(at, _)| at);
        let (inner, rest) = ends
            .filter_map(|at| Some((within.get(&path[..at])?.as_object()?, &path[at + 1..])))
            .next()?;
        (within, path) = (inner, rest);
    }
}

fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text.as_str())),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        Value::Bool(flag) => Some(Cow::Owned(flag.to_string())),
        _ => None,
    }
}

/// The value as text: of a list each one. Objects and nothing have none.
pub(crate) fn texts(value: &Value) -> Vec<Cow<'_, str>> {
    match value {
        Value::Array(values) => values.iter().filter_map(text).collect(),
        value => text(value).into_iter().collect(),
    }
}

/// A pattern of values: `*` stands for any text without `/`, `**` for any text, `?` for one character that is no `/`, all else for
/// itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Pattern(String);

/// A text that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a pattern has 1 to {LONGEST_PATTERN} bytes without control characters, and more than stars"
)]
pub struct PatternError;

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let fits = text.len() <= LONGEST_PATTERN
            && !text.chars().any(char::is_control)
            // What everything matches is no condition.
            && text.chars().any(|c| c != '*');
        fits.then(|| Self(text.to_owned())).ok_or(PatternError)
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A part of a pattern.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    Exactly(char),
    OneOfSegment,
    Segment,
    Anything,
}

impl Pattern {
    fn parts(&self) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut rest = self.0.chars().peekable();
        while let Some(c) = rest.next() {
            parts.push(match c {
                '*' if rest.peek() == Some(&'*') => {
                    while rest.next_if_eq(&'*').is_some() {}
                    Part::Anything
                }
                '*' => Part::Segment,
                '?' => Part::OneOfSegment,
                c => Part::Exactly(c),
            });
        }
        parts
    }

    /// Whether a value is meant. Takes time by the product of both lengths.
    pub fn matches(&self, value: &str) -> bool {
        if value.len() > LONGEST_VALUE {
            return false;
        }
        let parts = self.parts();
        // Which beginnings of the pattern match what of the value was seen.
        let mut reached = vec![false; parts.len() + 1];
        let skip = |reached: &mut [bool]| {
            for (at, part) in parts.iter().enumerate() {
                if reached[at] && matches!(part, Part::Segment | Part::Anything) {
                    reached[at + 1] = true;
                }
            }
        };
        reached[0] = true;
        skip(&mut reached);
        for c in value.chars() {
            let mut next = vec![false; parts.len() + 1];
            for (at, part) in parts.iter().enumerate().filter(|(at, _)| reached[*at]) {
                match part {
                    Part::Exactly(wanted) if *wanted == c => next[at + 1] = true,
                    Part::OneOfSegment if c != '/' => next[at + 1] = true,
                    Part::Segment if c != '/' => next[at] = true,
                    Part::Anything => next[at] = true,
                    _ => {}
                }
            }
            reached = next;
            skip(&mut reached);
        }
        reached[parts.len()]
    }
}

/// Why a template is none, or a token does not fill it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    #[error("{{ and }} come in pairs around the path of a claim, as in {{sub}}")]
    Braces,
    #[error("it names no claim, so all tokens would be one principal; write for example {{sub}}")]
    NoClaim,
    #[error("the claim {0} is missing, or no text")]
    Missing(String),
    #[error("the name would be longer than {LONGEST_NAME} bytes, or hold control characters")]
    Unfit,
}

/// The claims that a template names.
pub(crate) fn named(template: &str) -> Result<Vec<&str>, NameError> {
    let mut claims = Vec::new();
    let mut rest = template;
    while let Some(at) = rest.find(['{', '}']) {
        let inner = rest[at..].strip_prefix('{').ok_or(NameError::Braces)?;
        let end = inner.find(['{', '}']).ok_or(NameError::Braces)?;
        if end == 0 || !inner[end..].starts_with('}') {
            return Err(NameError::Braces);
        }
        claims.push(&inner[..end]);
        rest = &inner[end + 1..];
    }
    match claims.is_empty() {
        true => Err(NameError::NoClaim),
        false => Ok(claims),
    }
}

/// The name that a template makes of a token of that issuer. It holds a colon, so no user and no robot can have it.
pub(crate) fn name(issuer: &str, template: &str, claims: &Claims) -> Result<String, NameError> {
    let mut name = format!("{issuer}:");
    let mut rest = template;
    for path in named(template)? {
        let (before, after) = rest.split_once('{').ok_or(NameError::Braces)?;
        name.push_str(before);
        let value = find(claims, path).filter(|value| !value.is_array());
        let value = value.and_then(|value| texts(value).pop());
        let value = value.filter(|value| !value.is_empty());
        name.push_str(&value.ok_or_else(|| NameError::Missing(path.to_owned()))?);
        if name.len() > LONGEST_NAME {
            return Err(NameError::Unfit);
        }
        rest = &after[path.len() + 1..];
    }
    name.push_str(rest);
    match name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
        true => Err(NameError::Unfit),
        false => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn names_with_dots_are_found() {
        let token = claims(json!({
            "sub": "s",
            "kubernetes.io": {"namespace": "prod", "serviceaccount": {"name": "default"}},
            "https://example.com/groups": ["a", 7, true, null, {}],
        }));
        let text = |path: &str| find(&token, path).map(texts);
        assert_eq!(text("sub").unwrap(), ["s"]);
        assert_eq!(text("kubernetes.io.namespace").unwrap(), ["prod"]);
        assert_eq!(
            text("kubernetes.io.serviceaccount.name").unwrap(),
            ["default"]
        );
        assert_eq!(
            text("https://example.com/groups").unwrap(),
            ["a", "7", "true"]
        );
        for absent in [
            "",
            ".",
            "kubernetes",
            "kubernetes.io.",
            "sub.x",
            "kubernetes.io.pod.name",
        ] {
            assert_eq!(find(&token, absent), None, "{absent}");
        }
    }

    #[test]
    fn a_star_ends_at_a_slash() {
        for (pattern, value, matches) in [
            ("refs/heads/*", "refs/heads/main", true),
            ("refs/heads/*", "refs/heads/", true),
            ("refs/heads/*", "refs/heads/a/b", false),
            ("refs/heads/**", "refs/heads/a/b", true),
            ("acme/*", "acme/app", true),
            ("acme/*", "acme/app/../../evil", false),
            ("acme/*", "evil/acme/app", false),
            ("acme/?", "acme//", false),
            ("v?.*", "v1.2", true),
            ("**/app", "a/b/app", true),
            ("**/app", "app", false),
            ("a**b*c", "a/x/b1c", true),
            ("a**b*c", "a/x/b/c", false),
            ("ä*", "äß", true),
        ] {
            let parsed: Pattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(value), matches, "{pattern} {value}");
        }
        for none in ["", "*", "**", "***", "a\n"] {
            assert_eq!(none.parse::<Pattern>(), Err(PatternError), "{none:?}");
        }
    }

    #[test]
    fn a_name_is_made_of_what_is_there() {
        let token =
            claims(json!({"id": 7, "sub": "repo:a", "list": ["x"], "none": "", "bell": "\u{7}"}));
        assert_eq!(name("gh", "{id}/{sub}", &token).unwrap(), "gh:7/repo:a");
        assert_eq!(name("gh", "x{id}y", &token).unwrap(), "gh:x7y");
        for missing in ["{list}", "{none}", "{other}", "{id}{other}"] {
            assert!(
                matches!(name("gh", missing, &token), Err(NameError::Missing(_))),
                "{missing}"
            );
        }
        assert_eq!(name("gh", "{bell}", &token), Err(NameError::Unfit));
        for broken in ["{", "}", "{}", "{a", "a}", "{a{b}}", "{a}}"] {
            assert_eq!(named(broken), Err(NameError::Braces), "{broken}");
        }
        assert_eq!(named("all"), Err(NameError::NoClaim));
    }

    /// The same by trying everything.
    fn slow(parts: &[Part], value: &[char]) -> bool {
        match (parts.split_first(), value.split_first()) {
            (None, _) => value.is_empty(),
            (Some((Part::Exactly(wanted), rest)), Some((c, left))) => {
                wanted == c && slow(rest, left)
            }
            (Some((Part::OneOfSegment, rest)), Some((c, left))) => *c != '/' && slow(rest, left),
            (Some((star @ (Part::Segment | Part::Anything), rest)), left) => {
                slow(rest, value)
                    || left.is_some_and(|(c, left)| {
                        (*star == Part::Anything || *c != '/') && slow(parts, left)
                    })
            }
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn patterns_match_as_their_definition_says(pattern in "[ab/*?]{1,8}", value in "[ab/]{0,10}") {
            if let Ok(parsed) = pattern.parse::<Pattern>() {
                let chars: Vec<char> = value.chars().collect();
                prop_assert_eq!(parsed.matches(&value), slow(&parsed.parts(), &chars));
            }
        }

        #[test]
        fn no_text_is_too_much(pattern in ".{0,600}", value in ".{0,2000}", template in ".{0,300}") {
            if let Ok(parsed) = pattern.parse::<Pattern>() {
                parsed.matches(&value);
            }
            let token = claims(json!({"sub": value}));
            find(&token, &pattern);
            if let Ok(made) = name("i", &template, &token) {
                prop_assert!(made.starts_with("i:") && made.len() <= LONGEST_NAME);
            }
        }
    }
}
