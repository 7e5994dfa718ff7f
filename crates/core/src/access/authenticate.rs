//! From credentials to a [`Caller`]. Called once per request, before anything else; from memory once warm.

use std::sync::Arc;
use std::time::Duration;

use wharf_oci::Authorization;
use wharf_oci::auth::AuthorizationError;

use super::Access;
use super::certificate::{Certificate, CertificateFault};
use super::credential::{BOUGHT_WITH, Credential};
use super::elsewhere::BY_ACCOUNT;
use super::machine_secret::{Form, form};
use super::principal::{Caller, Circumstances, Principal, SignIn};
use super::rate::Limited;
use super::terminal::BY_TERMINAL;
use super::token::TokenFault;
use super::user::User;
use crate::Error;
use crate::audit::Sight;
use crate::workload::{Jwt, Workload, WorkloadFault, is_jwt};

/// What stands before the rules where a token names a workload.
pub(super) const BY_WORKLOAD: &str = "workload.";
/// What stands before a certificate's fingerprint where a token was bought with one, and before its serial number in the log.
pub(super) const BY_CERTIFICATE: &str = "certificate.";
/// When to come back after too many sign-ins at once.
const COME_BACK: Duration = Duration::from_secs(2);

/// Why credentials are not accepted. 401 but for those that say otherwise. Never says which half of a name and password is wrong.
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
    /// A robot's secret or an API token that is not, or no longer, good, or not from there.
    #[error(
        "this API token or robot secret is cut, unknown, revoked or expired, belongs to another name, or may not be used from this address"
    )]
    Secret,
    /// A token of an issuer, trusted here or not.
    #[error("{0}")]
    Workload(#[from] WorkloadFault),
    /// A certificate that is good, and nobody's.
    #[error("{0}")]
    Certificate(#[from] CertificateFault),
    /// 429: too many different wrong passwords for this user came from this address.
    #[error("too many wrong passwords for this user from your address; try again in {} s", retry_after.as_secs().max(1))]
    Guessing {
        /// When to ask again.
        retry_after: Duration,
    },
    /// 429: too many different wrong codes from this user, or from this address.
    #[error("too many wrong codes; try again in {} s", retry_after.as_secs().max(1))]
    Codes {
        /// When to ask again.
        retry_after: Duration,
    },
    /// 429: too many passwords, or requests for tokens, from this client.
    #[error("{0}")]
    Limited(#[from] Limited),
    /// A directory knows the password, and who has it may not be here: why.
    #[error("{0}")]
    Elsewhere(String),
    /// 503: the directory that knows users does not answer.
    #[error("{0}")]
    Directory(Error),
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
            Self::Secret => "secret",
            Self::Workload(_) => "workload",
            Self::Certificate(_) => "certificate",
            Self::Guessing { .. } | Self::Codes { .. } => "guessing",
            Self::Limited(_) => "limited",
            Self::Elsewhere(_) => "account",
            Self::Directory(_) => "directory",
            Self::Store(_) => "store",
        }
    }

    /// Why, in words that are the same each time, for the audit log.
    pub fn told(&self) -> String {
        match self {
            Self::Busy { .. } => "too many sign-ins at once".to_owned(),
            Self::Guessing { .. } => {
                "too many wrong passwords for this user from this address".to_owned()
            }
            Self::Codes { .. } => "too many wrong codes".to_owned(),
            Self::Workload(fault) => fault.told(),
            // What stands there is not ours.
            Self::Scheme(_) => "the Authorization scheme is not supported".to_owned(),
            other => other.to_string(),
        }
    }

    /// What is noted when it is too much for a rate, whatever name was given.
    pub fn limited(&self) -> Option<Sight> {
        match self {
            Self::Limited(limited) => Some(limited.sight()),
            _ => None,
        }
    }

    /// When to ask again, if it is too much and not wrong: 429.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after }
            | Self::Guessing { retry_after }
            | Self::Codes { retry_after } => Some(*retry_after),
            Self::Limited(limited) => Some(limited.retry_after),
            _ => None,
        }
    }

    /// The `error` of the challenge: only a token can be invalid. A refused password gets a plain challenge (AUTH-6).
    pub fn challenge_error(&self) -> Option<&'static str> {
        matches!(self, Self::Token(_) | Self::Workload(_)).then_some(super::INVALID_TOKEN)
    }
}

/// What a request shows of who it comes from.
#[derive(Debug, Clone, Copy, Default)]
pub struct Presented<'a> {
    /// The `Authorization` header, which counts where there is one.
    pub authorization: Option<&'a Authorization>,
    /// The client's certificate, whose authority is trusted.
    pub certificate: Option<&'a Certificate>,
}

impl<'a> From<Option<&'a Authorization>> for Presented<'a> {
    fn from(authorization: Option<&'a Authorization>) -> Self {
        Self {
            authorization,
            certificate: None,
        }
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
    /// Who asks, from where and when.
    ///
    /// A client certificate counts where there is no header. Basic credentials are accepted though no challenge offers them (BASIC-1); empty ones are anonymous. A token
    /// that ended less than the upload grace ago gives a caller with [`Caller::expired_since`], whom every decision but
    /// [`Access::decide_upload`] refuses.
    pub async fn authenticate(
        &self,
        presented: impl Into<Presented<'_>>,
        came: impl Into<Circumstances>,
    ) -> Result<Caller, AuthFailure> {
        let came = came.into();
        let Presented {
            authorization,
            certificate,
        } = presented.into();
        match authorization {
            None => Ok(self.nobody(certificate, came).await?.0),
            Some(Authorization::Basic { user, password }) => {
                Ok(self.sign_in(user, password, came).await?.0)
            }
            Some(Authorization::Bearer(token)) => self.bearer(token, certificate, came).await,
            Some(Authorization::Other(scheme)) => Err(AuthFailure::Scheme(scheme.clone())),
        }
    }

    /// Who comes without a header, and the credential that was proved: whose certificate it is, or nobody in particular.
    pub(super) async fn nobody(
        &self,
        certificate: Option<&Certificate>,
        came: Circumstances,
    ) -> Result<(Caller, String), AuthFailure> {
        let found = match certificate {
            Some(certificate) => self.by_certificate(certificate, came).await?,
            None => None,
        };
        Ok(found.unwrap_or_else(|| (Caller::anonymous().under(came), String::new())))
    }

    /// Who comes with a name and a password, and the credential that was proved (empty for anonymous).
    pub(super) async fn sign_in(
        &self,
        name: &str,
        password: &str,
        came: Circumstances,
    ) -> Result<(Caller, String), AuthFailure> {
        if name.is_empty() && password.is_empty() {
            return Ok((Caller::anonymous().under(came), String::new()));
        }
        match form(password) {
            Form::Whole => {
                let found = self.by_secret(password, came).await?;
                return found
                    .filter(|(caller, _)| caller.principal.name() == name)
                    .ok_or(AuthFailure::Secret);
            }
            Form::Broken => return Err(AuthFailure::Secret),
            Form::Other => {}
        }
        if self.is_own_token(password) {
            return self.by_access_token(name, password, came).await;
        }
        // Whatever name stands before it: who it is, the token says (K8SCRED-5, OIDC-3).
        if is_jwt(password) && self.workloads.any() {
            return self.by_workload(password, came).await;
        }
        let found = self.users.find(name).await?;
        if let Some(name) = self
            .asked_elsewhere(name, password, found.as_deref())
            .await?
        {
            return self.by_directory(&name, password, came).await;
        }
        let user = found.filter(|user| user.signs_in() && user.stands(came));
        if let Some(user) = &user
            && self.passwords.remembers(name, password, user, came.at)
        {
            return Ok((by_password(user, came), user.credential().to_string()));
        }
        let guess = self
            .backoff
            .begin(name, came.address, password, came.at)
            .map_err(|retry_after| AuthFailure::Guessing { retry_after })?;
        if let Err(limited) = self.rates.sign_in(came.address) {
            self.backoff.withdraw(&guess);
            return Err(limited.into());
        }
        let good = self
            .passwords
            .check(
                name,
                password,
                user.as_ref(),
                self.users.dummy(name),
                came.at,
            )
            .await;
        match (good, user) {
            (Ok(true), Some(user)) => {
                self.backoff.right(&guess);
                Ok((by_password(&user, came), user.credential().to_string()))
            }
            (Ok(_), _) => {
                // As long as for a name that directories are asked about (TOK-7).
                if self.directories.take(name, password) {
                    self.directories.pretend(came.at).await;
                }
                Err(AuthFailure::Password)
            }
            (Err(_), _) => {
                self.backoff.withdraw(&guess);
                Err(AuthFailure::Busy {
                    retry_after: COME_BACK,
                })
            }
        }
    }

    /// Who has this secret of a robot or this API token, whose form the caller has looked at.
    pub(super) async fn by_secret(
        &self,
        secret: &str,
        came: Circumstances,
    ) -> Result<Option<(Caller, String)>, AuthFailure> {
        let Some(credential) = self.credentials.by_secret(secret).await? else {
            return Ok(None);
        };
        let caller = self.holder(&credential, came).await?;
        Ok(caller.map(|caller| (caller, format!("{BOUGHT_WITH}{}", credential.id))))
    }

    /// Whether a user is gone from wherever they came from and has no password here: whatever they show is worth nothing then.
    pub(super) async fn is_lost(&self, user: &User) -> Result<bool, Error> {
        Ok(user.hash().is_none() && self.directories.has_lost(user.name()).await?)
    }

    /// Who acts with a credential, if it is good for a request at that time from there.
    async fn holder(
        &self,
        credential: &Credential,
        came: Circumstances,
    ) -> Result<Option<Caller>, Error> {
        if !credential.stands(came.at) {
            return Ok(None);
        }
        let found = self.users.find(&credential.principal).await?;
        // Another source: somebody else has the name now.
        let stands = |user: &Arc<User>| user.source() == credential.source && user.stands(came);
        let Some(user) = found.filter(stands) else {
            return Ok(None);
        };
        if self.is_lost(&user).await? {
            return Ok(None);
        }
        self.credentials.note(credential, came);
        let sign_in = match credential.source {
            Some(_) => SignIn::ApiToken,
            None => SignIn::RobotSecret,
        };
        Ok(Some(Caller {
            narrow: credential.narrow.clone(),
            credential: Some(credential.id.clone()),
            ..Caller::direct(user.principal()).under(Circumstances { sign_in, ..came })
        }))
    }

    async fn bearer(
        &self,
        token: &str,
        certificate: Option<&Certificate>,
        came: Circumstances,
    ) -> Result<Caller, AuthFailure> {
        match form(token) {
            Form::Whole => {
                let found = self.by_secret(token, came).await?;
                return Ok(found.ok_or(TokenFault::Revoked)?.0);
            }
            Form::Broken => return Err(TokenFault::Malformed.into()),
            Form::Other => {}
        }
        let now = came.at;
        let token = match self.tokens.verify(token, now).await {
            Err(AuthFailure::Token(_)) if self.is_foreign(token) => {
                return Ok(self.by_workload(token, came).await?.0);
            }
            verified => verified?,
        };
        let expired_since = token.standing(now)?;
        if expired_since.is_some_and(|since| now.saturating_sub(since) >= self.upload_grace) {
            return Err(TokenFault::Expired.into());
        }
        let caller = match &*token.subject {
            "" => Caller::anonymous().under(came),
            name if token.credential.starts_with(BY_CERTIFICATE) => {
                self.beside(name, &token.credential, certificate, came)
                    .await?
            }
            name => self
                .with_credential(name, &token.credential, came)
                .await?
                .ok_or(TokenFault::Revoked)?,
        };
        if token.whole {
            // What goes on after its end is an upload, which no client sends with this one.
            return match expired_since {
                None => Ok(caller),
                Some(_) => Err(TokenFault::Expired.into()),
            };
        }
        Ok(Caller {
            scopes: Some(token.scopes.clone()),
            expired_since,
            ..caller
        })
    }

    /// Who bought a token with a certificate, which is shown beside it (RFC 8705, 3): a token that was copied is worth nothing, and
    /// one whose certificate was revoked neither.
    async fn beside(
        &self,
        name: &str,
        credential: &str,
        certificate: Option<&Certificate>,
        came: Circumstances,
    ) -> Result<Caller, AuthFailure> {
        let found = self.nobody(certificate, came).await?;
        let (caller, _) = Some(found)
            .filter(|(caller, shown)| shown == credential && caller.principal.name() == name)
            .ok_or(CertificateFault::Other)?;
        Ok(caller)
    }

    /// Whether a bearer token that is not ours says so itself.
    fn is_foreign(&self, token: &str) -> bool {
        self.workloads.any()
            && is_jwt(token)
            && Jwt::read(token).is_ok_and(|jwt| jwt.issuer() != Some(self.service()))
    }

    /// Who has this token of another issuer, and the credential that was proved.
    pub(super) async fn by_workload(
        &self,
        token: &str,
        came: Circumstances,
    ) -> Result<(Caller, String), AuthFailure> {
        let admitted = match self.workloads.remembered(token, came.at) {
            Some(admitted) => admitted,
            None => {
                // What has to be computed for strangers is counted.
                self.rates.sign_in(came.address)?;
                self.workloads.verify(token, came.at).await?
            }
        };
        let credential = format!("{BY_WORKLOAD}{}", admitted.credential);
        let caller = by_token(admitted.workload, came);
        Ok((caller, credential))
    }

    /// Whoever has that name as a caller, as long as the credential is good: a password, a robot's secret or an API token.
    pub(super) async fn with_credential(
        &self,
        name: &str,
        credential: &str,
        came: Circumstances,
    ) -> Result<Option<Caller>, Error> {
        if let Some(credential) = credential.strip_prefix(BY_WORKLOAD) {
            let workload = self.workloads.by_credential(name, credential);
            return Ok(workload.map(|workload| by_token(workload, came)));
        }
        if let Some(id) = credential.strip_prefix(BOUGHT_WITH) {
            let found = self.credentials.by_id(id).await?;
            return match found.filter(|found| *found.principal == *name) {
                Some(found) => self.holder(&found, came).await,
                None => Ok(None),
            };
        }
        if credential.starts_with(BY_TERMINAL) {
            return self.by_terminal(name, credential, came).await;
        }
        if credential.starts_with(BY_ACCOUNT) {
            return self.by_account(name, credential, came).await;
        }
        let user = self.users.find(name).await?;
        Ok(user
            .filter(|user| user.signs_in() && user.stands(came))
            .filter(|user| **user.credential() == *credential)
            .map(|user| by_password(&user, came)))
    }
}

/// A user who proved a password, now or for a token.
pub(super) fn by_password(user: &User, came: Circumstances) -> Caller {
    let sign_in = SignIn::Password;
    Caller::direct(user.principal()).under(Circumstances { sign_in, ..came })
}

/// A machine that showed a token of its issuer, now or for a token of ours. The log names the rules by which it was let in.
fn by_token(Workload { name, rules }: Workload, came: Circumstances) -> Caller {
    let sign_in = SignIn::Workload;
    let credential = format!("{BY_WORKLOAD}{}", rules.join(","));
    Caller {
        credential: Some(credential.into()),
        ..Caller::direct(Principal::Workload { name, rules })
            .under(Circumstances { sign_in, ..came })
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
