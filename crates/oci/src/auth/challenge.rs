//! Challenges, how a server asks for credentials (specification §4.1).

use std::fmt;

use super::is_token_byte;

/// One challenge of a `WWW-Authenticate` header (AUTH-1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Challenge {
    /// `Bearer` or `Basic`.
    pub scheme: String,
    /// Where to get a token, an absolute URL (AUTH-3); for Basic a name.
    pub realm: String,
    /// The audience of the token.
    pub service: Option<String>,
    /// What the token must allow; several scopes stand in one string with spaces (AUTH-4).
    pub scope: Option<String>,
    /// `invalid_token` or `insufficient_scope` (AUTH-6, AUTH-7).
    pub error: Option<String>,
    /// The error in words (RFC 6750 §3.1). Docker shows these and not the body's when it gives up after a token.
    pub description: Option<String>,
}

/// The header is not a challenge with a realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a challenge of the form <scheme> realm=\"…\"")]
pub struct ChallengeError;

impl fmt::Display for Challenge {
    /// All values quoted, no space around `=`, as the narrowest client parsers want it (AUTH-2).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} realm={}", self.scheme, Quoted(&self.realm))?;
        for (name, value) in [
            ("service", &self.service),
            ("scope", &self.scope),
            ("error", &self.error),
            ("error_description", &self.description),
        ] {
            if let Some(value) = value {
                write!(f, ",{name}={}", Quoted(value))?;
            }
        }
        Ok(())
    }
}

/// A quoted-string of RFC 9110 §5.6.4; characters that cannot stand in a header become `?`.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                ' '..='~' => write!(f, "{c}")?,
                _ => f.write_str("?")?,
            }
        }
        f.write_str("\"")
    }
}

impl Challenge {
    /// Reads the first challenge of a header line, as a client does. Parameters may be quoted or not; unknown ones are
    /// ignored.
    pub fn parse(header: &str) -> Result<Challenge, ChallengeError> {
        let (scheme, mut rest) = header.trim().split_once(' ').ok_or(ChallengeError)?;
        if scheme.is_empty() || !scheme.bytes().all(is_token_byte) {
            return Err(ChallengeError);
        }
        let mut challenge = Challenge {
            scheme: scheme.into(),
            ..Challenge::default()
        };
        let mut realm = None;
        while let Some((name, value, after)) = parameter(rest)? {
            let field = match name.to_ascii_lowercase().as_str() {
                "realm" => &mut realm,
                "service" => &mut challenge.service,
                "scope" => &mut challenge.scope,
                "error" => &mut challenge.error,
                "error_description" => &mut challenge.description,
                _ => &mut None,
            };
            field.get_or_insert(value);
            rest = after;
        }
        challenge.realm = realm.ok_or(ChallengeError)?;
        Ok(challenge)
    }
}

/// Takes one `name=value` off the front; none at the end, or where the next challenge begins.
fn parameter(text: &str) -> Result<Option<(&str, String, &str)>, ChallengeError> {
    let text = text.trim_start_matches([' ', '\t', ',']);
    let end = text
        .bytes()
        .position(|b| !is_token_byte(b))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let rest = rest.trim_start_matches([' ', '\t']);
    let Some(value) = rest.strip_prefix('=').filter(|_| !name.is_empty()) else {
        // A bare token is the scheme of a further challenge; anything else is nonsense.
        return if name.is_empty() && !text.is_empty() {
            Err(ChallengeError)
        } else {
            Ok(None)
        };
    };
    let value = value.trim_start_matches([' ', '\t']);
    let Some(quoted) = value.strip_prefix('"') else {
        let end = value
            .bytes()
            .position(|b| !is_token_byte(b))
            .unwrap_or(value.len());
        return Ok(Some((name, value[..end].into(), &value[end..])));
    };
    let mut unescaped = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok(Some((name, unescaped, &quoted[at + 1..]))),
            '\\' => unescaped.push(chars.next().ok_or(ChallengeError)?.1),
            _ => unescaped.push(c),
        }
    }
    Err(ChallengeError)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::auth::Scope;

    /// Spec: AUTH-1, AUTH-2, AUTH-4.
    #[test]
    fn challenges_quote_all_values() {
        let scopes = [
            Scope::repository("a/b", &["pull"]),
            Scope::repository("c/d", &["pull", "push"]),
        ];
        let challenge = Challenge {
            scheme: "Bearer".into(),
            realm: "https://reg.example/token".into(),
            service: Some("reg.example".into()),
            scope: Some(scopes.map(|s| s.to_string()).join(" ")),
            error: Some("insufficient_scope".into()),
            description: Some("ask for more".into()),
        };
        let header = concat!(
            r#"Bearer realm="https://reg.example/token",service="reg.example","#,
            r#"scope="repository:a/b:pull repository:c/d:pull,push",error="insufficient_scope","#,
            r#"error_description="ask for more""#
        );
        assert_eq!(challenge.to_string(), header);
        assert_eq!(Challenge::parse(header), Ok(challenge));
        let basic = Challenge {
            scheme: "Basic".into(),
            realm: "reg \"x\" \r\n".into(),
            ..Challenge::default()
        };
        assert_eq!(basic.to_string(), r#"Basic realm="reg \"x\" ??""#);
    }

    #[test]
    fn challenges_of_other_servers_are_understood() {
        let challenge =
            Challenge::parse("bearer Realm = x , foo=\"a,b=\\\"c\" ,SERVICE=y,Basic realm=z")
                .unwrap();
        assert_eq!(
            (challenge.realm.as_str(), challenge.service.as_deref()),
            ("x", Some("y"))
        );
        for bad in [
            "",
            "Bearer",
            "Bearer x",
            "Bearer service=x",
            "Bearer realm=\"x",
            "Bearer realm=\"x\\",
            "\"a\" realm=x",
            "Bearer realm=a;b",
        ] {
            assert_eq!(Challenge::parse(bad), Err(ChallengeError), "{bad}");
        }
    }

    proptest! {
        /// Spec: AUTH-1.
        #[test]
        fn challenges_round_trip(
            scheme in "[A-Za-z]{1,8}",
            realm in "[ -~]{0,30}",
            service in prop::option::of("[ -~]{0,20}"),
            scope in prop::option::of("[ -~]{0,20}"),
            error in prop::option::of("[ -~]{0,20}"),
            description in prop::option::of("[ -~]{0,20}"),
        ) {
            let challenge = Challenge { scheme, realm, service, scope, error, description };
            prop_assert_eq!(Challenge::parse(&challenge.to_string()), Ok(challenge));
        }

        #[test]
        fn any_challenge_is_read_or_refused(header in ".{0,60}|Bearer ([a-z]{0,5} ?= ?\"?[a-z\\\\\"]{0,5}\"?,? ?){0,5}") {
            if let Ok(challenge) = Challenge::parse(&header) {
                prop_assert!(challenge.to_string().is_ascii());
            }
        }
    }
}
