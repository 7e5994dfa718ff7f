//! Scrubbing: all bytes are read again over a long time, so that a disk's mistakes are found while a push or a backup can still
//! heal them.
//!
//! A budget of bytes spreads one pass over `scrub.period`. A blob is read past the page cache and, when it looks bad, once more;
//! then it goes into quarantine: unknown to HEAD and mounts, a clear error to GET, healed by the next push of its digest. When
//! most of what was read looks bad, it is the disk that is not there, and nothing is condemned.

use serde::{Deserialize, Serialize};
use std::time::Duration;
use wharf_blob::Key;
use wharf_meta::{Id, blob as rows, quarantine, repository::GetTotals};

use crate::error::{Error, Result};
use crate::job::{Job, Step};
use crate::registry::Registry;
use crate::verify;

/// Blobs looked at in one step at most...
const PAGE: u32 = 50;
/// ... and bytes, beyond which no further blob is begun.
const BYTES: u64 = 8 << 20;
/// Longest wait between two steps.
const LONGEST: Duration = Duration::from_secs(3_600);
/// So many bad blobs are believed without asking how many are good.
const BELIEVED: u64 = 10;

/// One pass over all blobs, and how far it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scrub {
    after: Option<[u8; 16]>,
    /// When the pass began, in milliseconds since 1970.
    pub begun: i64,
    /// Blobs that were read.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that were condemned.
    pub bad: u64,
}

impl Job for Scrub {
    const KIND: &'static str = "storage.scrub";

    async fn step(&mut self, registry: &Registry) -> Result<Step> {
        let period = registry.rules.load().scrub;
        if period == 0 {
            return Ok(Step::Done);
        }
        if self.begun == 0 {
            self.begun = registry.clock.now_ms();
        }
        let after = self.after.map(Id::from_bytes);
        let page = rows::ListLive { after, limit: PAGE };
        let page = registry.meta.scan(page).await?;
        if page.is_empty() {
            let (blobs, bytes, bad) = (self.blobs, self.bytes, self.bad);
            tracing::info!(blobs, bytes, bad, "every blob was read again");
            return Ok(Step::Done);
        }
        let (mut blobs, mut bytes) = (0, 0);
        for row in page {
            if bytes >= BYTES {
                break;
            }
            self.after = Some(*row.id.as_bytes());
            blobs += 1;
            bytes += row.size;
            self.look(registry, row).await?;
        }
        self.blobs += blobs;
        self.bytes += bytes;
        let totals = registry.meta.read(GetTotals).await?;
        let wait = share(blobs, totals.blobs, period).max(share(bytes, totals.blob_bytes, period));
        Ok(Step::Again(wait.min(LONGEST)))
    }
}

/// The part of the period that this part of the whole may take.
fn share(done: u64, all: u64, period: i64) -> Duration {
    let part = done as f64 / all.max(done).max(1) as f64;
    Duration::from_millis((period.max(0) as f64 * part * 0.9) as u64)
}

impl Scrub {
    async fn look(&mut self, registry: &Registry, row: rows::BlobRow) -> Result<()> {
        let key = match &row.place {
            rows::Place::Key(key) => Key::parse(key).ok(),
            rows::Place::Inline(_) => None,
        };
        if let Some(key) = &key {
            registry.blobs.uncache(key).await?;
        }
        let judged = verify::judge(&registry.meta, &*registry.blobs, row, true).await?;
        if let Some(key) = &key {
            registry.blobs.uncache(key).await?;
        }
        let Some((row, what, proof)) = judged else {
            return Ok(());
        };
        tracing::error!(digest = %row.digest, what, "a blob is damaged");
        if !proof {
            return Ok(());
        }
        if self.bad >= BELIEVED && self.bad.saturating_mul(2) > self.blobs {
            return Err(Error::Internal(
                "most of the blobs that were read look damaged, so no more are given up: is the disk mounted?".to_owned(),
            ));
        }
        let at = registry.clock.now_ms();
        self.bad += u64::from(verify::condemn(&registry.meta, row, what, at).await?);
        Ok(())
    }
}

/// Lets what is left of condemned blobs go, once they are healed or nobody holds them.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Settle {
    after: Option<[u8; 16]>,
}

impl Job for Settle {
    const KIND: &'static str = "storage.settle";

    async fn step(&mut self, registry: &Registry) -> Result<Step> {
        let after = self.after.map(Id::from_bytes);
        let page = quarantine::List { after, limit: PAGE };
        let page = registry.meta.scan(page).await?;
        let Some(last) = page.last() else {
            return Ok(Step::Done);
        };
        self.after = Some(*last.id.as_bytes());
        for row in page {
            let settle = quarantine::Settle {
                id: row.id,
                at: registry.clock.now_ms(),
            };
            if registry.meta.write(settle).await? {
                tracing::info!(digest = %row.digest, "a damaged blob is healed, or needed no more");
            }
        }
        Ok(Step::More)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::{House, LARGE, noise};

    async fn pass(house: &House) -> Scrub {
        let mut scrub = Scrub::default();
        while scrub.step(&house.registry).await.unwrap() != Step::Done {}
        scrub
    }

    #[tokio::test]
    async fn a_bit_that_turned_is_found_quarantined_and_healed_by_the_next_push() {
        let house = House::new().await;
        let (good, bad) = (noise(1, LARGE), noise(2, LARGE));
        let (kept, turned) = (house.push(&good).await, house.push(&bad).await);
        let file = house.file(&turned).await;
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[77] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        std::fs::File::open(&file).unwrap().sync_all().unwrap();
        let scrub = pass(&house).await;
        assert_eq!((scrub.blobs, scrub.bad), (2, 1));
        assert!(house.has(&kept).await && !house.has(&turned).await);
        let list = quarantine::List {
            after: None,
            limit: 9,
        };
        let listed = house.registry.meta.scan(list).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].digest, turned);
        assert!(listed[0].cause.contains("hash"), "{:?}", listed[0]);
        // What is left of it stays until it is healed.
        house.run::<Settle>().await;
        assert!(file.exists());
        house.push(&bad).await;
        assert!(house.has(&turned).await);
        house.run::<Settle>().await;
        assert!(house.registry.meta.scan(list).await.unwrap().is_empty());
        crate::blob::collect_replaced(&house.registry)
            .await
            .unwrap();
        assert!(!file.exists() && house.has(&turned).await);
    }

    #[test]
    fn a_pass_takes_its_period_and_no_longer() {
        let day = 86_400_000;
        assert!(share(1, 10, day) * 10 <= Duration::from_millis(day as u64));
        assert!(share(1, 10, day) * 10 > Duration::from_millis(day as u64 * 8 / 10));
        assert_eq!(share(0, 0, day), Duration::ZERO);
    }
}
