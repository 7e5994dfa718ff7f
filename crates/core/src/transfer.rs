//! Moving: all blobs of one blob store into another, under the same keys, so that no row changes.
//!
//! Called by `wharf storage copy`, on a running registry or a stopped one. What is there already is not copied again, so
//! a copy that broke off goes on, and a second pass takes what was pushed during the first. Each blob is hashed on the way;
//! what has not its digest is named and left out.

use wharf_blob::{BlobStore, Key};
use wharf_meta::{Meta, blob as rows};
use wharf_oci::Digest;

use crate::error::Result;

/// Rows looked at in one step.
const PAGE: u32 = 200;

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Blobs outside of the metadata store.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that were not there before.
    pub added: u64,
    /// Those whose bytes the source has lost, or that have not their digest.
    pub missing: Vec<Digest>,
}

/// Copies everything that rows name. `progress` hears of it after each blob.
pub async fn transfer(
    meta: &Meta,
    from: &dyn BlobStore,
    to: &dyn BlobStore,
    progress: &mut (dyn FnMut(&Transferred) + Send),
) -> Result<Transferred> {
    let mut done = Transferred::default();
    let mut after = None;
    loop {
        let page = meta.scan(rows::ListLive { after, limit: PAGE }).await?;
        let Some(last) = page.last() else {
            return Ok(done);
        };
        after = Some(last.id);
        for row in page {
            let rows::Place::Key(key) = &row.place else {
                continue;
            };
            let key = Key::parse(key)?;
            match one(from, to, &key, &row).await {
                Ok(added) => {
                    done.blobs += 1;
                    done.bytes += row.size;
                    done.added += u64::from(added);
                }
                Err(
                    error @ (wharf_blob::Error::Missing { .. }
                    | wharf_blob::Error::WrongSize { .. }
                    | wharf_blob::Error::WrongDigest { .. }),
                ) => {
                    // A push may have put other bytes in its place meanwhile; the next pass sees them.
                    tracing::error!(digest = %row.digest, %error, "a blob is not copied");
                    done.missing.push(row.digest);
                }
                Err(error) => return Err(error.into()),
            }
            progress(&done);
        }
    }
}

/// Copies one blob unless it is there with its size; tells whether it did.
async fn one(
    from: &dyn BlobStore,
    to: &dyn BlobStore,
    key: &Key,
    row: &rows::BlobRow,
) -> wharf_blob::Result<bool> {
    match to.inspect(key, row.size).await {
        Ok(()) => return Ok(false),
        Err(wharf_blob::Error::Missing { .. } | wharf_blob::Error::WrongSize { .. }) => {}
        Err(error) => return Err(error),
    }
    let blob = from.open(key, row.size).await?;
    to.copy_in(key, &row.digest, blob).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use wharf_blob::{BlobStore, Mem};

    use super::*;
    use crate::house::{House, LARGE};

    #[tokio::test]
    async fn a_copy_has_everything_under_the_same_keys_and_goes_on() {
        let house = House::new().await;
        let registry = &house.registry;
        let layers: Vec<Vec<u8>> = (0..3u8)
            .map(|n| vec![n; LARGE + 1_500_000 * usize::from(n)])
            .collect();
        for layer in &layers[..2] {
            house.push(layer).await;
        }
        let target: Arc<dyn BlobStore> = Arc::new(Mem::new());
        let copy = async || {
            let mut steps = 0;
            let mut progress = |_: &Transferred| steps += 1;
            let done = transfer(&registry.meta, &*registry.blobs, &*target, &mut progress);
            let done = done.await.unwrap();
            assert_eq!(steps, done.blobs + done.missing.len() as u64);
            done
        };
        let first = copy().await;
        assert_eq!((first.blobs, first.added), (2, 2));
        // The second pass takes what came since, and says what is lost.
        let lost = house.push(&layers[2]).await;
        let second = copy().await;
        assert_eq!(
            (second.blobs, second.added, second.missing.len()),
            (3, 1, 0)
        );
        let row = registry
            .meta
            .read(rows::Lookup {
                digest: lost.clone(),
            })
            .await
            .unwrap()
            .unwrap();
        let rows::Place::Key(key) = row.place else {
            panic!("a large blob is beside the metadata")
        };
        let key = Key::parse(&key).unwrap();
        target.inspect(&key, row.size).await.unwrap();
        for store in [&registry.blobs, &target] {
            store.remove(&key).await.unwrap();
        }
        assert_eq!(copy().await.missing, [lost]);
    }
}
