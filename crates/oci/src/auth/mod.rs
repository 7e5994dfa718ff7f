//! The words of authentication: credentials, scopes and challenges (specification §4.1, §4.2).
//!
//! Only their grammar; who may do what is decided in `wharf-core`. Secrets never show in `Debug`.

mod authorization;
mod challenge;
mod scope;

pub use authorization::{Authorization, AuthorizationError};
pub use challenge::{Challenge, ChallengeError};
pub use scope::Scope;

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
