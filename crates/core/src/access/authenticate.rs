//! From credentials to a [`Caller`]. Called once per request, before anything else; from memory once warm.

use std::time::Duration;

use wharf_oci::Authorization;
use wharf_oci::auth::AuthorizationError;

use super::Access;
use super::principal::{Caller, Principal};
use super::token::TokenFault;
use crate::Error;

/// When to come back after too many sign-ins at once.
const COME_BACK: Duration = Duration::from_secs(2);

/// Why credentials are not accepted. 401 but for the last two. Never says which half of a name and password is wrong.
#[derive(Debug, thiserror::Error)]
pub enum AuthFailure {
    /// Unknown user or wrong password.
    #[error("the user name or the password is wrong")]
    Password,
    /// A bearer token that is not, or no longer, good.
    #[error("{0}")]
    Token(#[from] TokenFault),
    /// A refresh token that is not, or no longer, good.
    #[error("the identity token is not, or no longer, good; log out and in again")]
    RefreshToken,
    /// A header that breaks the grammar of its scheme.
    #[error("{0}")]
    Malformed(#[from] AuthorizationError),
    /// More than one header, of which a proxy may have looked at another than we would.
    #[error("the request has more than one Authorization header; send one")]
    Several,
    /// A scheme that is neither Basic nor Bearer.
    #[error("the Authorization scheme {0:?} is not supported; use Basic or Bearer")]
    Scheme(String),
    /// 429: too many passwords are being checked just now.
    #[error("too many sign-ins at once; try again in {} s", retry_after.as_secs())]
    Busy {
        /// When to ask again.
        retry_after: Duration,
    },
    /// 503, or what else the error says: users cannot be looked up.
    #[error("{0}")]
    Store(#[from] Error),
}

impl AuthFailure {
    /// A word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Token(fault) => fault.as_str(),
            Self::RefreshToken => "refresh_token",
            Self::Malformed(_) | Self::Several => "header",
            Self::Scheme(_) => "scheme",
            Self::Busy { .. } => "busy",
            Self::Store(_) => "store",
        }
    }

    /// The `error` of the challenge: only a token can be invalid. A refused password gets a plain challenge (AUTH-6).
    pub fn challenge_error(&self) -> Option<&'static str> {
        matches!(self, Self::Token(_)).then_some(super::INVALID_TOKEN)
    }
}

/// The credentials in the values of a request's `Authorization` headers, of which there may be one.
pub fn read_authorization<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Option<Authorization>, AuthFailure> {
    let mut values = values.into_iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(AuthFailure::Several);
    }
    let text = std::str::from_utf8(value).map_err(|_| AuthorizationError::NoScheme)?;
    Ok(Some(Authorization::parse(text)?))
}

impl Access {
    /// Who asks. `now` in ms since 1970.
    ///
    /// Basic credentials are accepted though no challenge offers them (BASIC-1); empty ones are anonymous. A token
    /// that ended less than the upload grace ago gives a caller with [`Caller::expired_since`], whom every decision but
    /// [`Access::decide_upload`] refuses.
    pub async fn authenticate(
        &self,
        authorization: Option<&Authorization>,
        now: i64,
    ) -> Result<Caller, AuthFailure> {
        match authorization {
            None => Ok(Caller::anonymous()),
            Some(Authorization::Basic { user, password }) => {
                Ok(Caller::direct(self.sign_in(user, password, now).await?.0))
            }
            Some(Authorization::Bearer(token)) => self.bearer(token, now).await,
            Some(Authorization::Other(scheme)) => Err(AuthFailure::Scheme(scheme.clone())),
        }
    }

    /// The principal behind a name and a password, and the credential that was proved (empty for anonymous).
    pub(super) async fn sign_in(
        &self,
        name: &str,
        password: &str,
        now: i64,
    ) -> Result<(Principal, String), AuthFailure> {
        if name.is_empty() && password.is_empty() {
            return Ok((Principal::Anonymous, String::new()));
        }
        let user = self.users.find(name).await?;
        let good = self
            .passwords
            .check(name, password, user.as_ref(), self.users.dummy(), now)
            .await;
        match (good, user) {
            (Ok(true), Some(user)) => Ok((user.principal(), user.credential().to_string())),
            (Ok(_), _) => Err(AuthFailure::Password),
            (Err(_), _) => Err(AuthFailure::Busy {
                retry_after: COME_BACK,
            }),
        }
    }

    async fn bearer(&self, token: &str, now: i64) -> Result<Caller, AuthFailure> {
        let token = self.tokens.verify(token, now).await?;
        let expired_since = token.standing(now)?;
        if expired_since.is_some_and(|since| now.saturating_sub(since) >= self.upload_grace) {
            return Err(TokenFault::Expired.into());
        }
        let principal = match &*token.subject {
            "" => Principal::Anonymous,
            name => self
                .with_credential(name, &token.credential)
                .await?
                .ok_or(TokenFault::Revoked)?,
        };
        Ok(Caller {
            principal,
            scopes: Some(token.scopes.clone()),
            expired_since,
        })
    }

    /// The user of that name, as long as the password is the one that the credential names.
    pub(super) async fn with_credential(
        &self,
        name: &str,
        credential: &str,
    ) -> Result<Option<Principal>, Error> {
        let user = self.users.find(name).await?;
        Ok(user
            .filter(|user| **user.credential() == *credential)
            .map(|user| user.principal()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_one_authorization_or_none() {
        let read = |values: &[&[u8]]| read_authorization(values.iter().copied());
        assert!(matches!(read(&[]), Ok(None)));
        assert!(matches!(
            read(&[b"Bearer abc"]),
            Ok(Some(Authorization::Bearer(_)))
        ));
        assert!(matches!(
            read(&[b"Bearer abc", b"Bearer abc"]),
            Err(AuthFailure::Several)
        ));
        for broken in [&b"Basic !"[..], b"", b"Bearer", b"Bearer a b", b"\xff\xfe"] {
            assert!(
                matches!(read(&[broken]), Err(AuthFailure::Malformed(_))),
                "{broken:?}"
            );
        }
    }

    #[test]
    fn no_failure_shows_the_secret() {
        let failures = [
            AuthFailure::Password,
            AuthFailure::RefreshToken,
            read_authorization([&b"Basic c2VjcmV0"[..]]).unwrap_err(),
            read_authorization([&b"Secret-in-the-scheme c2VjcmV0"[..], b"Basic c2VjcmV0"])
                .unwrap_err(),
        ];
        for failure in failures {
            assert!(
                !format!("{failure} {failure:?}")
                    .to_lowercase()
                    .contains("secret"),
                "{failure:?}"
            );
        }
    }
}
