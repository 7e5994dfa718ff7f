//! The rows that access needs: local users, signing keys, refresh tokens.
//!
//! A trait, so that tests can count look-ups (a warm request must make none) and let the store fail.

mod credential;
mod terminal;

use std::fmt::Debug;
use std::pin::Pin;

pub(crate) use self::credential::{CredentialRow, CredentialRows};
pub(crate) use self::terminal::{TerminalRow, TerminalRows};
pub(crate) use wharf_meta::principal::PrincipalRow;
pub(crate) use wharf_meta::refresh_token::RefreshTokenRow;
pub(crate) use wharf_meta::signing_key::SigningKeyRow;
use wharf_meta::{Meta, principal, refresh_token, signing_key};

use crate::Result;

/// What a trait object's asynchronous method gives back.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Where secrets are kept.
pub(crate) trait Secrets: CredentialRows + TerminalRows + Send + Sync + Debug {
    /// Whether other processes change the rows, too.
    fn is_shared(&self) -> bool;
    /// A local user or a robot.
    fn principal<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<PrincipalRow>>>;
    /// Makes a local user; false when there is one of that name.
    fn create_principal<'a>(
        &'a self,
        name: &'a str,
        hash: &'a str,
        at: i64,
    ) -> BoxFuture<'a, Result<bool>>;
    /// Gives a local user another password; false when there is none of that name.
    fn set_secret<'a>(
        &'a self,
        name: &'a str,
        hash: &'a str,
        at: i64,
    ) -> BoxFuture<'a, Result<bool>>;
    /// Lets a local user in again who was locked out.
    fn let_in<'a>(&'a self, name: &'a str, at: i64) -> BoxFuture<'a, Result<()>>;
    /// All keys, retired ones too.
    fn signing_keys(&self) -> BoxFuture<'_, Result<Vec<SigningKeyRow>>>;
    /// Keeps a new key.
    fn add_signing_key(&self, key: SigningKeyRow) -> BoxFuture<'_, Result<()>>;
    /// Marks a key as no longer signing.
    fn retire_signing_key<'a>(&'a self, kid: &'a str, at: i64) -> BoxFuture<'a, Result<()>>;
    /// Forgets the keys that were retired before a time.
    fn forget_signing_keys(&self, retired_before: i64) -> BoxFuture<'_, Result<()>>;
    /// Keeps a refresh token under its hash.
    fn create_refresh_token(
        &self,
        hash: Vec<u8>,
        token: RefreshTokenRow,
    ) -> BoxFuture<'_, Result<()>>;
    /// What a refresh token stands for.
    fn refresh_token(&self, hash: Vec<u8>) -> BoxFuture<'_, Result<Option<RefreshTokenRow>>>;
    /// Forgets a refresh token.
    fn delete_refresh_token(&self, hash: Vec<u8>) -> BoxFuture<'_, Result<()>>;
}

impl Secrets for Meta {
    fn is_shared(&self) -> bool {
        Meta::is_shared(self)
    }

    fn principal<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<PrincipalRow>>> {
        Box::pin(async move { Ok(self.read(principal::Get { name: name.into() }).await?) })
    }

    fn create_principal<'a>(
        &'a self,
        name: &'a str,
        hash: &'a str,
        at: i64,
    ) -> BoxFuture<'a, Result<bool>> {
        let (name, kind, secret_hash) = (name.into(), "user".into(), Some(hash.into()));
        Box::pin(async move {
            Ok(self
                .write(principal::Create {
                    name,
                    kind,
                    secret_hash,
                    at,
                })
                .await?)
        })
    }

    fn set_secret<'a>(
        &'a self,
        name: &'a str,
        hash: &'a str,
        at: i64,
    ) -> BoxFuture<'a, Result<bool>> {
        let (name, hash) = (name.into(), hash.into());
        Box::pin(async move { Ok(self.write(principal::SetSecret { name, hash, at }).await?) })
    }

    fn let_in<'a>(&'a self, name: &'a str, at: i64) -> BoxFuture<'a, Result<()>> {
        let change = principal::Change {
            name: name.into(),
            kind: "user".into(),
            version: wharf_meta::Meant::Any,
            disabled: Some(false),
            expires_at: None,
            networks: None,
            at,
        };
        Box::pin(async move {
            self.write(change).await?;
            Ok(())
        })
    }

    fn signing_keys(&self) -> BoxFuture<'_, Result<Vec<SigningKeyRow>>> {
        Box::pin(async move { Ok(self.read(signing_key::List).await?) })
    }

    fn add_signing_key(&self, key: SigningKeyRow) -> BoxFuture<'_, Result<()>> {
        let SigningKeyRow {
            kid,
            algorithm,
            private_der,
            created_at: at,
            ..
        } = key;
        Box::pin(async move {
            self.write(signing_key::Add {
                kid,
                algorithm,
                private_der,
                at,
            })
            .await?;
            Ok(())
        })
    }

    fn retire_signing_key<'a>(&'a self, kid: &'a str, at: i64) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.write(signing_key::Retire {
                kid: kid.into(),
                at,
            })
            .await?;
            Ok(())
        })
    }

    fn forget_signing_keys(&self, retired_before: i64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            while self.write(signing_key::Forget { retired_before }).await? {}
            Ok(())
        })
    }

    fn create_refresh_token(
        &self,
        hash: Vec<u8>,
        token: RefreshTokenRow,
    ) -> BoxFuture<'_, Result<()>> {
        let RefreshTokenRow {
            subject,
            credential,
            created_at,
        } = token;
        Box::pin(async move {
            Ok(self
                .write(refresh_token::Create {
                    hash,
                    subject,
                    credential,
                    created_at,
                })
                .await?)
        })
    }

    fn refresh_token(&self, hash: Vec<u8>) -> BoxFuture<'_, Result<Option<RefreshTokenRow>>> {
        Box::pin(async move { Ok(self.read(refresh_token::Get { hash }).await?) })
    }

    fn delete_refresh_token(&self, hash: Vec<u8>) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.write(refresh_token::Delete { hash }).await?;
            Ok(())
        })
    }
}
