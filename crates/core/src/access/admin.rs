//! The administrator: made once, at the first start, and given a new password by `wharf admin reset-password`.

use super::Access;
use super::password_rules::{PasswordRule, check_password};
use super::policy::ADMIN;
use super::secret::Password;
use crate::{Error, Result};

/// What the start found or did.
#[derive(Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// The administrator was made with this password, which nobody can be told again.
    Created(Password),
    /// There was one already; a chosen password was not looked at.
    Existed,
}

/// Why there is no new password.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The chosen one will not do.
    #[error("the administrator: {0}")]
    Password(#[from] PasswordRule),
    /// The metadata store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

impl Access {
    /// Makes the administrator if there is none, with the chosen password or a random one. Of two processes that start
    /// together exactly one gets [`Bootstrap::Created`].
    pub async fn bootstrap_admin(
        &self,
        chosen: Option<Password>,
        now: i64,
    ) -> Result<Bootstrap, AdminError> {
        if self.secrets.principal(ADMIN).await?.is_some() {
            return Ok(Bootstrap::Existed);
        }
        let password = good(chosen)?;
        let hash = self.passwords.hash(&password).await?;
        let created = self.secrets.create_principal(ADMIN, &hash, now).await?;
        self.users.forget(ADMIN);
        Ok(if created {
            Bootstrap::Created(password)
        } else {
            Bootstrap::Existed
        })
    }

    /// Gives the administrator another password, chosen or random, and returns it; who was locked out is let in again, since this
    /// is the last way into a registry. What was signed in with the old one is signed out by the next request.
    pub async fn reset_admin_password(
        &self,
        chosen: Option<Password>,
        now: i64,
    ) -> Result<Password, AdminError> {
        let password = good(chosen)?;
        let hash = self.passwords.hash(&password).await?;
        if !self.secrets.set_secret(ADMIN, &hash, now).await? {
            self.secrets.create_principal(ADMIN, &hash, now).await?;
        }
        self.secrets.let_in(ADMIN, now).await?;
        self.users.forget(ADMIN);
        Ok(password)
    }
}

fn good(chosen: Option<Password>) -> Result<Password, PasswordRule> {
    let Some(password) = chosen else {
        return Ok(Password::random());
    };
    check_password(ADMIN, &password)?;
    Ok(password)
}
