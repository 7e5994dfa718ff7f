//! Sign-ins by passwords that directories know. Asked after local users and those of the htpasswd file, whose names are never asked
//! for elsewhere.

use super::Access;
use super::authenticate::{AuthFailure, by_password};
use super::principal::{Caller, Circumstances};
use super::user::User;
use crate::Error;
use crate::directory::{Entered, Refusal};

/// What stands before the account where a token names one.
pub(super) const BY_ACCOUNT: &str = "account.";

impl Access {
    /// The name by which directories are asked, if they are: folded, as they do it, so that no other spelling is another name to what
    /// counts wrong passwords. `found` has that name here.
    pub(super) async fn asked_elsewhere(
        &self,
        name: &str,
        password: &str,
        found: Option<&User>,
    ) -> Result<Option<String>, Error> {
        let own = |user: &User| user.hash().is_some() || user.source().is_none();
        if found.is_some_and(own) || !self.directories.take(name, password) {
            return Ok(None);
        }
        let folded = name.to_lowercase();
        if folded != name
            && self
                .users
                .find(&folded)
                .await?
                .is_some_and(|user| own(&user))
        {
            return Ok(None);
        }
        Ok(Some(folded))
    }

    /// Who comes with a name and a password that directories are asked about.
    pub(super) async fn by_directory(
        &self,
        name: &str,
        password: &str,
        came: Circumstances,
    ) -> Result<(Caller, String), AuthFailure> {
        if let Some(entered) = self.directories.remembers(name, password, came.at)
            && let Some(caller) = self
                .by_account(&entered.user, &entered.credential, came)
                .await?
        {
            return Ok((caller, entered.credential.to_string()));
        }
        let guess = self
            .backoff
            .begin(name, came.address, password, came.at)
            .map_err(|retry_after| AuthFailure::Guessing { retry_after })?;
        if let Err(limited) = self.rates.sign_in(came.address) {
            self.backoff.withdraw(&guess);
            return Err(limited.into());
        }
        match self.directories.sign_in(name, password, came.at).await {
            Ok(Entered { user, credential }) => {
                self.backoff.right(&guess);
                let caller = self.by_account(&user, &credential, came).await?;
                let caller = caller.ok_or(AuthFailure::Password)?;
                Ok((caller, credential.to_string()))
            }
            Err(refusal) => match refusal.passing() {
                Some(error) => {
                    // Nobody looked at the password.
                    self.backoff.withdraw(&guess);
                    Err(match refusal {
                        Refusal::Store(_) => AuthFailure::Store(error),
                        _ => AuthFailure::Directory(error),
                    })
                }
                None => match refusal {
                    Refusal::Here(why) => {
                        self.backoff.right(&guess);
                        Err(AuthFailure::Elsewhere(why))
                    }
                    _ => {
                        // As long as for a name that has a password here (TOK-7).
                        let dummy = self.users.dummy(name);
                        let hashed = self.passwords.check(name, password, None, dummy, came.at);
                        let _ = hashed.await;
                        Err(AuthFailure::Password)
                    }
                },
            },
        }
    }

    /// The user of an account, as long as account and user stand.
    pub(super) async fn by_account(
        &self,
        user: &str,
        credential: &str,
        came: Circumstances,
    ) -> Result<Option<Caller>, Error> {
        let found = self.users.find(user).await?;
        let Some(user) = found.filter(|user| user.source().is_some() && user.stands(came)) else {
            return Ok(None);
        };
        let stands = self.directories.stands(user.name(), credential).await?;
        Ok(stands.then(|| by_password(&user, came)))
    }
}
