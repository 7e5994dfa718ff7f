//! The words of authentication: credentials, scopes and challenges (specification §4.1, §4.2).
//!
//! Only their grammar; who may do what is decided in `wharf-core`. Secrets never show in `Debug`.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// Clients disagree on padding; the meaning is the same.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The value of an `Authorization` header.
#[derive(Clone, PartialEq, Eq)]
pub enum Authorization {
    /// User and password (RFC 7617).
    Basic {
        /// The user, perhaps empty.
        user: String,
        /// The password, perhaps empty; it may hold colons.
        password: String,
    },
    /// A token (RFC 6750).
    Bearer(String),
    /// Another scheme; only its name is kept, in lower case.
    Other(String),
}

/// The header names a scheme that we know but breaks its grammar. Says nothing of the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizationError {
    /// No scheme.
    #[error("the Authorization header names no scheme")]
    NoScheme,
    /// Basic, but not base64 of UTF-8 `user:password` without control characters.
    #[error("Basic credentials must be base64 of user:password")]
    Basic,
    /// Bearer, but not one token.
    #[error("Bearer needs one token")]
    Bearer,
}

impl Authorization {
    /// Reads a header value. Schemes are case-insensitive.
    pub fn parse(header: &str) -> Result<Authorization, AuthorizationError> {
        let header = header.trim_matches([' ', '\t']);
        let (scheme, rest) = header.split_once(' ').unwrap_or((header, ""));
        let rest = rest.trim_start_matches(' ');
        if scheme.is_empty() || !scheme.bytes().all(is_token_byte) {
            return Err(AuthorizationError::NoScheme);
        }
        if scheme.eq_ignore_ascii_case("basic") {
            parse_basic(rest).ok_or(AuthorizationError::Basic)
        } else if scheme.eq_ignore_ascii_case("bearer") {
            parse_bearer(rest).ok_or(AuthorizationError::Bearer)
        } else {
            Ok(Authorization::Other(scheme.to_ascii_lowercase()))
        }
    }

    /// The header value that carries user and password.
    pub fn basic(user: &str, password: &str) -> String {
        format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
    }
}

fn parse_basic(credentials: &str) -> Option<Authorization> {
    let decoded = String::from_utf8(BASE64.decode(credentials).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    let clean = !decoded.contains(char::is_control);
    clean.then(|| Authorization::Basic {
        user: user.into(),
        password: password.into(),
    })
}

/// `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`
fn parse_bearer(token: &str) -> Option<Authorization> {
    let body = token.trim_end_matches('=');
    let allowed =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
    (!body.is_empty() && body.bytes().all(allowed)).then(|| Authorization::Bearer(token.into()))
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Authorization::Basic { user, .. } => f
                .debug_struct("Basic")
                .field("user", user)
                .finish_non_exhaustive(),
            Authorization::Bearer(_) => f.write_str("Bearer(..)"),
            Authorization::Other(scheme) => f.debug_tuple("Other").field(scheme).finish(),
        }
    }
}

/// What a token is asked for: actions on one resource (§4.2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// `repository`, `registry`, or something that we grant nothing on.
    pub kind: String,
    /// Old clients' class in brackets, such as `plugin`.
    pub class: Option<String>,
    /// The resource; may hold colons, since a host with port can stand in front.
    pub name: String,
    /// `pull`, `push`, `delete`, `*`, or others that we ignore.
    pub actions: Vec<String>,
}

impl Scope {
    /// Actions on a repository.
    pub fn repository(name: &str, actions: &[&str]) -> Scope {
        let actions = actions.iter().map(|&a| a.to_owned()).collect();
        Scope {
            kind: "repository".into(),
            class: None,
            name: name.into(),
            actions,
        }
    }

    /// The right to list repositories, `registry:catalog:*` (CAT-2).
    pub fn catalog() -> Scope {
        Scope {
            kind: "registry".into(),
            class: None,
            name: "catalog".into(),
            actions: vec!["*".into()],
        }
    }

    /// Reads one scope: the type ends at the first colon, the actions begin after the last (SCOPE-1).
    pub fn parse(text: &str) -> Option<Scope> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let (kind, class) = match kind.split_once('(') {
            Some((kind, class)) => (kind, Some(class.strip_suffix(')')?)),
            None => (kind, None),
        };
        let word = |s: &str| {
            !s.is_empty()
                && s.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
        };
        let plain = |s: &str| {
            !s.is_empty()
                && s.bytes()
                    .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
        };
        let known = word(kind) && class.is_none_or(word) && plain(name);
        let actions: Vec<String> = actions
            .split(',')
            .filter(|a| word(a) || *a == "*")
            .map(str::to_owned)
            .collect();
        (known && !actions.is_empty()).then(|| Scope {
            kind: kind.into(),
            class: class.map(str::to_owned),
            name: name.into(),
            actions,
        })
    }

    /// Reads scopes separated by spaces. What cannot be read is left out: asking for nonsense grants nothing, but is no
    /// error (SCOPE-2).
    pub fn parse_list(text: &str) -> Vec<Scope> {
        text.split_ascii_whitespace()
            .filter_map(Scope::parse)
            .collect()
    }

    /// Whether the action is among them; `*` stands for all (SCOPE-4).
    pub fn allows(&self, action: &str) -> bool {
        self.actions.iter().any(|a| a == action || a == "*")
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if let Some(class) = &self.class {
            write!(f, "({class})")?;
        }
        write!(f, ":{}:{}", self.name, self.actions.join(","))
    }
}

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

/// `tchar` of RFC 9110 §5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn basic(user: &str, password: &str) -> Result<Authorization, AuthorizationError> {
        Ok(Authorization::Basic {
            user: user.into(),
            password: password.into(),
        })
    }

    /// Spec: BASIC-1.
    #[test]
    fn reads_credentials() {
        assert_eq!(
            Authorization::parse("Basic YWxpY2U6cGE6c3M="),
            basic("alice", "pa:ss")
        );
        assert_eq!(
            Authorization::parse("bASIC  YWxpY2U6cGE6c3M"),
            basic("alice", "pa:ss")
        );
        assert_eq!(Authorization::parse("Basic Og=="), basic("", ""));
        assert_eq!(
            Authorization::parse("Bearer a.b-c_~+/=="),
            Ok(Authorization::Bearer("a.b-c_~+/==".into()))
        );
        assert_eq!(
            Authorization::parse("Negotiate secret"),
            Ok(Authorization::Other("negotiate".into()))
        );
    }

    #[test]
    fn refuses_broken_credentials() {
        for header in ["", " ", "(x) y", "ä b"] {
            assert_eq!(
                Authorization::parse(header),
                Err(AuthorizationError::NoScheme),
                "{header:?}"
            );
        }
        for rest in ["", "!!!", "YWxpY2U=", "/w==", "YTpiCg==", "YTpi YTpi"] {
            assert_eq!(
                Authorization::parse(&format!("Basic {rest}")),
                Err(AuthorizationError::Basic),
                "{rest:?}"
            );
        }
        for rest in ["", "==", "a b", "a=b", "a,b", "a\"b"] {
            assert_eq!(
                Authorization::parse(&format!("Bearer {rest}")),
                Err(AuthorizationError::Bearer),
                "{rest:?}"
            );
        }
    }

    #[test]
    fn debug_output_hides_secrets() {
        for secret in [
            basic("u", "hunter2").unwrap(),
            Authorization::Bearer("hunter2".into()),
        ] {
            assert!(!format!("{secret:?}").contains("hunter2"));
        }
        let other = Authorization::parse("Digest hunter2").unwrap();
        assert!(!format!("{other:?}").contains("hunter2"));
    }

    /// Spec: SCOPE-1, SCOPE-4.
    #[test]
    fn scopes_split_at_the_first_and_the_last_colon() {
        let scope = Scope::parse("repository(plugin):host:5000/a/b:pull,push").unwrap();
        assert_eq!(
            (scope.kind.as_str(), scope.class.as_deref()),
            ("repository", Some("plugin"))
        );
        assert_eq!(
            (scope.name.as_str(), scope.actions.len()),
            ("host:5000/a/b", 2)
        );
        assert!(scope.allows("push") && !scope.allows("delete") && !scope.allows("*"));
        assert_eq!(
            scope.to_string(),
            "repository(plugin):host:5000/a/b:pull,push"
        );
        assert_eq!(Scope::parse("registry:catalog:*"), Some(Scope::catalog()));
        assert!(Scope::catalog().allows("anything"));
    }

    /// Spec: SCOPE-2.
    #[test]
    fn nonsense_in_a_scope_list_is_left_out() {
        let list = "repository:a/b:pull  x y:z repository:: repository:a: repo(:a:pull :a:pull other:thing:fly repository:c:pull,$$";
        let kept: Vec<_> = Scope::parse_list(list)
            .iter()
            .map(Scope::to_string)
            .collect();
        assert_eq!(
            kept,
            [
                "repository:a/b:pull",
                "other:thing:fly",
                "repository:c:pull"
            ]
        );
        assert!(Scope::parse_list("").is_empty());
    }

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
        };
        let header = concat!(
            r#"Bearer realm="https://reg.example/token",service="reg.example","#,
            r#"scope="repository:a/b:pull repository:c/d:pull,push",error="insufficient_scope""#
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
        #[test]
        fn basic_round_trips(user in "[^:\\p{Cc}]{0,20}", password in "[^\\p{Cc}]{0,20}") {
            prop_assert_eq!(Authorization::parse(&Authorization::basic(&user, &password)), basic(&user, &password));
        }

        #[test]
        fn any_header_is_read_or_refused(header in ".{0,60}|(Basic|Bearer) [a-zA-Z0-9+/=:.]{0,40}") {
            match Authorization::parse(&header) {
                Ok(Authorization::Bearer(token)) => prop_assert!(header.ends_with(&token)),
                Ok(Authorization::Basic { user, .. }) => prop_assert!(!user.contains(':')),
                Ok(Authorization::Other(scheme)) => prop_assert!(!scheme.contains(' ')),
                Err(_) => {}
            }
        }

        /// Spec: SCOPE-1, SCOPE-2.
        #[test]
        fn scopes_round_trip(text in ".{0,60}|([a-z]{1,4}(\\([a-z]{0,3}\\))?:[a-z0-9/:]{0,9}:[a-z,*]{0,9} ?){0,4}") {
            let scopes = Scope::parse_list(&text);
            let shown = scopes.iter().map(Scope::to_string).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(Scope::parse_list(&shown), scopes);
        }

        /// Spec: AUTH-1.
        #[test]
        fn challenges_round_trip(
            scheme in "[A-Za-z]{1,8}",
            realm in "[ -~]{0,30}",
            service in prop::option::of("[ -~]{0,20}"),
            scope in prop::option::of("[ -~]{0,20}"),
            error in prop::option::of("[ -~]{0,20}"),
        ) {
            let challenge = Challenge { scheme, realm, service, scope, error };
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
