//! Adoption: bytes that are in the blob store and that no row names become a blob again.

use wharf_oci::{Digest, RepositoryName};

use super::blob::{Content, Place, Publish, Published};
use super::{garbage, multipart};
use crate::error::{Error, Result};
use crate::tx::{Op, Tx};
use crate::vals;
use crate::value::Row;

/// What became of [`Adopt`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Adopted {
    /// The repositories hold the blob, and its bytes are those under this key.
    Done,
    /// The bytes are about to be removed.
    Going,
    /// The blob has other bytes, which nobody has found wrong.
    Held,
}

/// Makes verified bytes under a key that no row names a blob of some repositories. Fenced against whoever makes the key
/// garbage by that row: of the two, the first to insert it decides. Doing it again changes nothing. Cost: five rows, and ten
/// for each repository.
#[derive(Clone, Debug)]
pub struct Adopt {
    /// Where the bytes are.
    pub key: String,
    /// The blob, verified by the caller.
    pub digest: Digest,
    /// Its size.
    pub size: u64,
    /// Where it shall be seen; made if absent.
    pub repositories: Vec<RepositoryName>,
    /// The key of the blob's row, if the caller found that its bytes are lost: they are replaced.
    pub instead_of: Option<String>,
    /// The principal.
    pub actor: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Adopt {
    type Out = Adopted;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Adopted> {
        // In the order of all others: what a publish locks, then the blob, then its key's row.
        let given_up = multipart::is_given_up(tx, &self.key).await?;
        self.live(tx).await?;
        if !garbage::add(tx, &self.key, self.at).await? {
            return Ok(Adopted::Going);
        }
        // Others that insert it wait for the end of this transaction all the same.
        garbage::remove(tx, &self.key).await?;
        if given_up {
            return Ok(Adopted::Going);
        }
        if let Some(mut row) = self.live(tx).await? {
            let named = row.opt_text(0)?;
            let lost = named.is_some() && named == self.instead_of;
            if named.as_ref() != Some(&self.key) && !lost {
                return Ok(Adopted::Held);
            }
        }
        multipart::adopt(tx, &self.key, &self.digest).await?;
        for repository in &self.repositories {
            let publish = Publish {
                upload: None,
                repository: repository.clone(),
                digest: self.digest.clone(),
                size: self.size,
                content: Content::Key(self.key.clone()),
                instead_of: self.instead_of.clone().map(Place::Key),
                actor: self.actor.clone(),
                at: self.at,
            };
            let published = publish.run(tx).await?;
            if matches!(&published, Published::Done { surplus: Some(key), .. } if *key == self.key)
            {
                // PostgreSQL only: a push has brought the blob meanwhile. All is undone, and the next look sees it.
                return Err(Error::Busy(
                    "a blob was pushed while its bytes were adopted".into(),
                ));
            }
        }
        Ok(Adopted::Done)
    }
}

impl Adopt {
    /// Locks the live blob, if there is one.
    async fn live<T: Tx>(&self, tx: &mut T) -> Result<Option<Row>> {
        tx.row(
            "SELECT key FROM blob WHERE digest = $1 AND state = 1 FOR UPDATE",
            vals![&self.digest],
        )
        .await
    }
}
