//! The rows that access needs: local users, signing keys, refresh tokens.
//!
//! A trait, so that tests can count look-ups (a warm request must make none) and let the store fail.

use std::fmt::Debug;
use std::pin::Pin;

use crate::Result;

/// What a trait object's asynchronous method gives back.
pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A key that signs tokens.
#[derive(Clone)]
pub(crate) struct SigningKey {
    /// RFC 7638 thumbprint.
    pub(crate) kid: String,
    /// Name of the JWS algorithm.
    pub(crate) algorithm: String,
    /// PKCS#8.
    pub(crate) private_der: Vec<u8>,
    /// In ms since 1970.
    pub(crate) created_at: i64,
    /// When it stopped signing, in ms since 1970.
    pub(crate) retired_at: Option<i64>,
}

/// What a refresh token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefreshToken {
    /// The user.
    pub(crate) subject: String,
    /// The password with which it was made.
    pub(crate) credential: String,
}

/// Where secrets are kept.
pub(crate) trait Secrets: Send + Sync + Debug {
    /// The password hash of a local user.
    fn principal<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<String>>>;
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
    /// All keys, retired ones too.
    fn signing_keys(&self) -> BoxFuture<'_, Result<Vec<SigningKey>>>;
    /// Keeps a new key.
    fn add_signing_key(&self, key: SigningKey) -> BoxFuture<'_, Result<()>>;
    /// Marks a key as no longer signing.
    fn retire_signing_key<'a>(&'a self, kid: &'a str, at: i64) -> BoxFuture<'a, Result<()>>;
    /// Keeps a refresh token under its hash.
    fn create_refresh_token(
        &self,
        hash: Vec<u8>,
        token: RefreshToken,
        at: i64,
    ) -> BoxFuture<'_, Result<()>>;
    /// What a refresh token stands for.
    fn refresh_token(&self, hash: Vec<u8>) -> BoxFuture<'_, Result<Option<RefreshToken>>>;
    /// Forgets a refresh token.
    fn delete_refresh_token(&self, hash: Vec<u8>) -> BoxFuture<'_, Result<()>>;
}
