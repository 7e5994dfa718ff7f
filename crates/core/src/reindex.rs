//! Reindexing: bytes that no row names, after the metadata was restored from a backup that is older than the blob store.
//!
//! Called by `wharf storage reindex`, on a running registry or a stopped one. Each object or file is hashed; then it is
//! listed, or made a blob of the repositories that were named. What was made so has the whole grace of a fresh push, so that
//! clients push the manifests that need it. Must never take what is about to be removed, which the op decides together with
//! the sweep; a look at the bytes afterwards catches what went before that.

use wharf_blob::{Hasher, Key, Part, Stored};
use wharf_meta::adopt::{Adopt, Adopted};
use wharf_meta::blob as rows;
use wharf_oci::{Algorithm, Digest, RepositoryName};

use crate::error::Result;
use crate::registry::Registry;
use crate::verify::{condemn, is_named};
use crate::walk::Walk;

/// So many are named; all are counted.
const LISTED: usize = 10_000;

/// Bytes that no row names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unnamed {
    /// What they hash to.
    pub digest: Digest,
    /// How many.
    pub size: u64,
    /// Where they are.
    pub key: String,
}

/// What was found, and what was done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reindexed {
    /// Objects or files that no row names, apart from what is about to be removed.
    pub found: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first of them that are whole, and no second copies of what is there.
    pub listed: Vec<Unnamed>,
    /// Those that are blobs now.
    pub adopted: u64,
    /// Those whose blob has sound bytes under another key.
    pub surplus: u64,
    /// Those that were cut or changed: their keys.
    pub damaged: Vec<String>,
}

/// Looks at all bytes in the blob store. Without repositories, nothing is changed.
pub async fn reindex(
    registry: &Registry,
    repositories: &[RepositoryName],
    progress: &mut (dyn FnMut(&Reindexed) + Send),
) -> Result<Reindexed> {
    let mut done = Reindexed::default();
    let mut walk = Walk::new(&*registry.blobs, Part::Blobs);
    while let Some(found) = walk.next().await? {
        for stored in found {
            let Stored::Blob(key, size) = stored else {
                continue;
            };
            let marked = rows::IsGarbage {
                key: key.to_string(),
            };
            if is_named(&registry.meta, &key).await? || registry.meta.read(marked).await? {
                continue;
            }
            one(registry, repositories, &key, size, &mut done).await?;
            progress(&done);
        }
    }
    Ok(done)
}

async fn one(
    registry: &Registry,
    repositories: &[RepositoryName],
    key: &Key,
    size: u64,
    done: &mut Reindexed,
) -> Result<()> {
    let digest = match hash(registry, key, size).await {
        Ok(digest) => digest,
        // It went meanwhile.
        Err(wharf_blob::Error::Missing { .. }) => return Ok(()),
        Err(error @ wharf_blob::Error::WrongSize { .. }) => {
            tracing::warn!(%key, %error, "bytes that no row names are damaged");
            done.damage(key, size);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    if key.digest().is_some_and(|named| named != digest) {
        tracing::warn!(%key, actual = %digest, "bytes that no row names are not what their key says");
        done.damage(key, size);
        return Ok(());
    }
    let instead_of = match live(registry, &digest).await? {
        // A push had its bytes before its row.
        Some(Live::Here(named)) if named == key.as_str() => return Ok(()),
        Some(Live::Here(_) | Live::Inline) => {
            done.count(size);
            done.surplus += 1;
            return Ok(());
        }
        Some(Live::Lost(named)) => Some(named),
        None => None,
    };
    if repositories.is_empty() {
        done.list(key, size, digest);
        return Ok(());
    }
    let adopt = Adopt {
        key: key.to_string(),
        digest: digest.clone(),
        size,
        repositories: repositories.to_vec(),
        instead_of,
        actor: "reindex".to_owned(),
        at: registry.clock.now_ms(),
    };
    match registry.meta.write(adopt).await? {
        Adopted::Going => return Ok(()),
        Adopted::Held => {
            done.count(size);
            done.surplus += 1;
            return Ok(());
        }
        Adopted::Done => {}
    }
    // Nobody makes it garbage from here on. Whoever did before, and was done with it, has removed the bytes.
    match registry.blobs.inspect(key, size).await {
        Ok(()) => {
            done.adopted += 1;
            done.list(key, size, digest);
            Ok(())
        }
        Err(error @ (wharf_blob::Error::Missing { .. } | wharf_blob::Error::WrongSize { .. })) => {
            if let Some(row) = registry.meta.read(rows::Lookup { digest }).await? {
                let at = registry.clock.now_ms();
                condemn(&registry.meta, row, error.to_string(), at).await?;
            }
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

impl Reindexed {
    fn count(&mut self, size: u64) {
        self.found += 1;
        self.bytes += size;
    }

    fn damage(&mut self, key: &Key, size: u64) {
        self.count(size);
        if self.damaged.len() < LISTED {
            self.damaged.push(key.to_string());
        }
    }

    fn list(&mut self, key: &Key, size: u64, digest: Digest) {
        self.count(size);
        if self.listed.len() < LISTED {
            self.listed.push(Unnamed {
                digest,
                size,
                key: key.to_string(),
            });
        }
    }
}

/// The live blob of a digest.
enum Live {
    /// Its bytes are under this key.
    Here(String),
    /// Its bytes should be under this key.
    Lost(String),
    /// Its bytes are in the row.
    Inline,
}

async fn live(registry: &Registry, digest: &Digest) -> Result<Option<Live>> {
    let digest = digest.clone();
    let Some(row) = registry.meta.read(rows::Lookup { digest }).await? else {
        return Ok(None);
    };
    let rows::Place::Key(named) = row.place else {
        return Ok(Some(Live::Inline));
    };
    Ok(Some(
        match registry.blobs.inspect(&Key::parse(&named)?, row.size).await {
            Ok(()) => Live::Here(named),
            Err(wharf_blob::Error::Missing { .. } | wharf_blob::Error::WrongSize { .. }) => {
                Live::Lost(named)
            }
            Err(error) => return Err(error.into()),
        },
    ))
}

/// What the bytes are, by the algorithm in the key; where it has none, that is sha256.
async fn hash(registry: &Registry, key: &Key, size: u64) -> wharf_blob::Result<Digest> {
    let named = key.digest().and_then(|digest| digest.algorithm());
    let mut hasher = Hasher::new(named.unwrap_or(Algorithm::Sha256));
    let blob = registry.blobs.open(key, size).await?;
    let mut stream = blob.stream(0..size);
    while let Some(piece) = stream.next().await {
        let piece = piece?;
        // Hashing is work for its own thread: requests go on meanwhile.
        let job = move || {
            hasher.update(&piece);
            hasher
        };
        hasher = tokio::task::spawn_blocking(job)
            .await
            .map_err(|_| wharf_blob::Error::Poisoned)?;
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gc::Sweep;
    use crate::house::{House, LARGE};

    async fn found(house: &House, into: &[RepositoryName]) -> Reindexed {
        let mut steps = 0;
        let done = reindex(&house.registry, into, &mut |_| steps += 1).await;
        let done = done.unwrap();
        assert!(steps >= done.found);
        done
    }

    /// Bytes under a fresh key, as a push leaves them whose row is in no backup.
    async fn leave(house: &House, bytes: &[u8]) -> (Key, Digest) {
        let digest = Digest::of(Algorithm::Sha256, bytes);
        let key = Key::fresh(&digest);
        let bytes = bytes::Bytes::copy_from_slice(bytes);
        house.registry.blobs.put(&key, bytes).await.unwrap();
        (key, digest)
    }

    #[tokio::test]
    async fn what_no_row_names_is_listed_and_becomes_a_blob_where_that_is_wanted() {
        let house = House::new().await;
        house.push(&[1; LARGE]).await;
        let layer = vec![2; LARGE + 1];
        let (key, digest) = leave(&house, &layer).await;
        // A second copy of what is there, and bytes that were cut.
        leave(&house, &[1; LARGE]).await;
        let cut = Key::fresh(&Digest::of(Algorithm::Sha256, b"whole"));
        let bytes = bytes::Bytes::from_static(b"who");
        house.registry.blobs.put(&cut, bytes).await.unwrap();

        let listed = found(&house, &[]).await;
        assert_eq!((listed.found, listed.adopted, listed.surplus), (3, 0, 1));
        assert_eq!(listed.damaged, [cut.to_string()]);
        let unnamed = Unnamed {
            digest: digest.clone(),
            size: layer.len() as u64,
            key: key.to_string(),
        };
        assert_eq!(listed.listed, [unnamed]);
        assert!(!house.has(&digest).await);

        let into = [House::repository(), RepositoryName::parse("other").unwrap()];
        let adopted = found(&house, &into).await;
        assert_eq!(adopted.adopted, 1);
        assert!(house.has(&digest).await);
        assert_eq!(house.content(&digest).await, layer);
        let again = found(&house, &into).await;
        assert_eq!((again.found, again.adopted, again.surplus), (2, 0, 1));
    }

    #[tokio::test]
    async fn what_is_about_to_go_is_left_to_go() {
        let house = House::new().await;
        let (key, digest) = leave(&house, &[3; LARGE]).await;
        let discard = wharf_meta::recheck::Discard {
            keys: vec![(key.to_string(), digest.clone())],
            at: 2,
        };
        assert_eq!(house.registry.meta.write(discard.clone()).await.unwrap(), 1);
        let done = found(&house, &[House::repository()]).await;
        assert_eq!((done.found, done.adopted), (0, 0));
        let adopt = Adopt {
            key: key.to_string(),
            digest: digest.clone(),
            size: LARGE as u64,
            repositories: vec![House::repository()],
            instead_of: None,
            actor: "x".into(),
            at: 3,
        };
        let meta = &house.registry.meta;
        assert_eq!(meta.write(adopt.clone()).await.unwrap(), Adopted::Going);
        assert!(!house.has(&digest).await);
        // The other way round: what was adopted is no garbage.
        let keys = vec![key.to_string()];
        meta.write(rows::Collected { keys }).await.unwrap();
        assert_eq!(meta.write(adopt).await.unwrap(), Adopted::Done);
        assert_eq!(meta.write(discard).await.unwrap(), 0);
        let marked = rows::IsGarbage {
            key: key.to_string(),
        };
        assert!(!meta.read(marked).await.unwrap());
        house.run::<Sweep>().await;
        assert_eq!(house.content(&digest).await, vec![3; LARGE]);
    }

    #[tokio::test]
    async fn a_blob_whose_bytes_are_lost_gets_those_of_another_key() {
        let house = House::new().await;
        let bytes = vec![4; LARGE];
        let digest = house.push(&bytes).await;
        let before = house.key(&digest).await;
        let (key, _) = leave(&house, &bytes).await;
        house.registry.blobs.remove(&before).await.unwrap();
        assert_eq!(found(&house, &[House::repository()]).await.adopted, 1);
        assert_eq!(house.key(&digest).await, key);
        assert_eq!(house.content(&digest).await, bytes);
    }
}
