//! Whether the metadata is as new as the blobs: a number grows in the one and is then written beside the others.
//!
//! The number beside the blobs is always one that the metadata had before, durably. If it is ahead, the metadata was restored
//! from an older state, lost its last writes in a failover, or is another registry's: then collection would remove what only
//! the newer state names, so it is paused until somebody has looked. Called at the start, by the server's upkeep, and before
//! anything walks over files. Must never block a start: a store that cannot answer is asked again.

use wharf_meta::mark::{Advance, Advanced};

use crate::error::Result;
use crate::gc;
use crate::registry::Registry;

/// What it is called beside the blobs.
const NAME: &str = "metadata-mark";

/// Compares, pauses collection if need be, and advances both.
pub async fn tend(registry: &Registry) -> Result<()> {
    // Before the metadata is asked: other replicas advance both, the metadata first.
    let note = registry.blobs.note(NAME).await?;
    let beside = note
        .and_then(|note| note.trim().parse::<u64>().ok())
        .unwrap_or(0);
    let Advanced { before, now } = registry.meta.write(Advance { beyond: beside }).await?;
    if beside > before {
        let reason = match before {
            0 => "the blobs were those of another database than this one, which knows nothing of them".to_owned(),
            _ => format!(
                "the metadata is older than the blobs (state {before}, after {beside}): it was restored, or lost its last \
                 writes"
            ),
        };
        doubt(registry, &reason).await?;
    }
    registry.blobs.set_note(NAME, now.to_string()).await?;
    Ok(())
}

/// Pauses collection when the database was seen to have lost writes that it had acknowledged to this process.
pub async fn watch(registry: &Registry) -> Result<()> {
    let Some(loss) = registry.meta.loss() else {
        return Ok(());
    };
    doubt(registry, &loss).await?;
    registry.meta.forget_loss();
    Ok(())
}

async fn doubt(registry: &Registry, reason: &str) -> Result<()> {
    tracing::error!(
        reason,
        "nothing is collected until somebody has looked and says `wharf gc resume`"
    );
    gc::pause(&registry.meta, reason).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::House;

    /// An older copy of the database under newer blobs, and a database that never saw them.
    #[tokio::test]
    async fn an_older_database_than_the_blobs_pauses_collection() {
        let folder = tempfile::tempdir().unwrap();
        let (file, old) = (folder.path().join("wharf.db"), folder.path().join("old"));
        let close = async |house: House| {
            house.registry.meta.close().await;
            drop(house);
        };
        let house = House::open(folder.path()).await;
        tend(&house.registry).await.unwrap();
        close(house).await;
        std::fs::copy(&file, &old).unwrap();
        for _ in 0..2 {
            let house = House::open(folder.path()).await;
            tend(&house.registry).await.unwrap();
            assert_eq!(gc::paused(&house.registry).await.unwrap(), None);
            close(house).await;
        }
        std::fs::rename(&old, &file).unwrap();
        let house = House::open(folder.path()).await;
        tend(&house.registry).await.unwrap();
        let reason = gc::paused(&house.registry).await.unwrap().unwrap();
        assert!(reason.contains("older than the blobs"), "{reason}");
        // Once somebody has looked, that is that.
        gc::resume(&house.registry).await.unwrap();
        tend(&house.registry).await.unwrap();
        assert_eq!(gc::paused(&house.registry).await.unwrap(), None);
        close(house).await;

        std::fs::remove_file(&file).unwrap();
        let house = House::open(folder.path()).await;
        tend(&house.registry).await.unwrap();
        let reason = gc::paused(&house.registry).await.unwrap().unwrap();
        assert!(reason.contains("another database"), "{reason}");
    }
}
