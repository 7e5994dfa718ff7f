//! Lets entries go that are older than `audit.keep`. What stays can still be checked: the head names the last one that went.

use serde::{Deserialize, Serialize};
use wharf_meta::audit::{BATCH, Cut as CutOp, Head, Walk};
use wharf_meta::origin::{ITSELF, Origin};

use super::seal::{cut_head, standing};
use super::{Happened, Kind, record};
use crate::error::Result;
use crate::job::{Job, Step};
use crate::registry::Registry;

/// The job.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Cut {
    /// Entries that went so far.
    #[serde(default)]
    count: u64,
    /// The last of them.
    #[serde(default)]
    through: i64,
}

impl Job for Cut {
    const KIND: &'static str = "audit.cut";

    async fn step(&mut self, registry: &Registry) -> Result<Step> {
        let keep = registry.rules.load().audit.keep;
        if keep > 0 && self.some(registry, keep).await? {
            return Ok(Step::More);
        }
        if self.count > 0 {
            let payload = serde_json::json!({"entries": self.count, "through": self.through, "older_than_ms": keep});
            let done = Happened {
                kind: Kind::AuditCut,
                at: registry.clock.now_ms(),
                repository: None,
                digest: None,
                tag: None,
                payload,
                origin: Origin {
                    actor: ITSELF.to_owned(),
                    ..Origin::default()
                },
            };
            record(registry, vec![done]).await?;
            self.count = 0;
        }
        Ok(Step::Done)
    }
}

impl Cut {
    /// Cuts a batch off; false: none is left to go.
    async fn some(&mut self, registry: &Registry, keep: i64) -> Result<bool> {
        let ends = registry.meta.read(Head).await?;
        let keys = &registry.access.log_keys;
        let wrong = standing(keys, &ends).err();
        let Some(head) = ends.head else {
            return Ok(false);
        };
        if let Some(wrong) = wrong {
            // What shows that somebody tampered with it stays until somebody has looked.
            tracing::error!("audit log: {wrong}; nothing is cut off before that is settled");
            return Ok(false);
        }
        let before = registry.ages.older_than(&*registry.clock, keep);
        let walk = Walk {
            after: head.cut_seq,
            limit: BATCH as u32,
        };
        let oldest = registry.meta.scan(walk).await?;
        let old = oldest.iter().take_while(|entry| entry.at < before);
        let (count, last) = (old.clone().count(), old.last());
        let Some(last) = last else {
            return Ok(false);
        };
        let cut = CutOp {
            head: cut_head(keys, &head, last),
            expected: head.mac,
        };
        if registry.meta.write(cut).await? {
            self.count += count as u64;
            self.through = last.seq;
        }
        Ok(true)
    }
}
