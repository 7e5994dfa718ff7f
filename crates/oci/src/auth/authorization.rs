//! The `Authorization` header.

use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::is_token_byte;

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
    }
}
