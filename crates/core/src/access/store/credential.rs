//! The rows of credentials, as a request needs them. Made and removed by [`crate::identity`], which uses the store itself.

use wharf_meta::{Meta, credential};

pub(crate) use wharf_meta::credential::CredentialRow;

use super::BoxFuture;
use crate::Result;

/// Where secrets of robots and API tokens are kept.
pub(crate) trait CredentialRows: Send + Sync {
    /// The credential whose secret has a hash.
    fn credential_by_hash(&self, hash: [u8; 32]) -> BoxFuture<'_, Result<Option<CredentialRow>>>;
    /// The credential with an id.
    fn credential_by_id<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<CredentialRow>>>;
    /// Notes that one was used.
    fn note_use(&self, id: String, at: i64, address: String) -> BoxFuture<'_, Result<()>>;
    /// Forgets some of those that ended before a time; gives how many.
    fn forget_credentials(&self, ended_before: i64) -> BoxFuture<'_, Result<u32>>;
}

impl CredentialRows for Meta {
    fn credential_by_hash(&self, hash: [u8; 32]) -> BoxFuture<'_, Result<Option<CredentialRow>>> {
        let hash = hash.to_vec();
        Box::pin(async move { Ok(self.read(credential::ByHash { hash }).await?) })
    }

    fn credential_by_id<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<Option<CredentialRow>>> {
        Box::pin(async move { Ok(self.read(credential::ById { id: id.into() }).await?) })
    }

    fn note_use(&self, id: String, at: i64, address: String) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move { Ok(self.write(credential::Use { id, at, address }).await?) })
    }

    fn forget_credentials(&self, ended_before: i64) -> BoxFuture<'_, Result<u32>> {
        let limit = 100;
        Box::pin(async move {
            Ok(self
                .write(credential::Forget {
                    ended_before,
                    limit,
                })
                .await?)
        })
    }
}
