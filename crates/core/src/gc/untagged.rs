//! Manifests without a tag that go by themselves, where the configuration says so: `gc.untagged`.
//!
//! A consumer of events: whatever took a tag, an index or a subject away from a manifest left an event, and so did a push without a
//! tag. Once such an event is as old as the setting, the manifest is looked at in one transaction, and deleted as a client would: it
//! can be restored. Nothing is walked over, and while the setting is off there is no cursor that would hold events.

use serde::{Deserialize, Serialize};
use wharf_meta::{event as events, manifest as rows};
use wharf_oci::{Digest, RepositoryName};

use super::paused;
use crate::error::Result;
use crate::event;
use crate::job::{Job, Step};
use crate::registry::Registry;

/// Its name as a consumer.
const CONSUMER: &str = "gc.untagged";
/// Events looked at in one step.
const PAGE: u32 = 20;
/// Who deletes, in events and histories.
const ACTOR: &str = "gc.untagged";

/// Deletes manifests that have had no tag for long.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Untagged {
    deleted: u64,
}

impl Job for Untagged {
    const KIND: &'static str = "gc.untagged";

    async fn step(&mut self, registry: &Registry) -> Result<Step> {
        let Some(age) = registry.rules.load().untagged else {
            let consumer = CONSUMER.to_owned();
            registry.meta.write(events::Leave { consumer }).await?;
            return Ok(Step::Done);
        };
        if paused(registry).await?.is_some() {
            return Ok(Step::Done);
        }
        let old = registry.ages.older_than(&*registry.clock, age);
        let page = event::next(registry, CONSUMER, PAGE).await?;
        let mut last = None;
        for event in page.into_iter().take_while(|event| event.at <= old) {
            if let Some(name) = &event.repository
                && let Ok(repository) = RepositoryName::parse(name)
            {
                for digest in self.touched(registry, &repository, &event).await? {
                    self.deleted += u64::from(look(registry, &repository, digest).await?);
                }
            }
            last = Some(event);
        }
        match last {
            Some(last) => {
                event::seen(registry, CONSUMER, &last).await?;
                Ok(Step::More)
            }
            None => {
                if self.deleted > 0 {
                    tracing::info!(
                        manifests = self.deleted,
                        "manifests without a tag were deleted"
                    );
                }
                Ok(Step::Done)
            }
        }
    }
}

impl Untagged {
    /// Manifests that may have lost the last thing that kept them.
    async fn touched(
        &self,
        registry: &Registry,
        repository: &RepositoryName,
        event: &events::EventRow,
    ) -> Result<Vec<Digest>> {
        let parse = |text: Option<&str>| text.and_then(|text| Digest::parse(text).ok());
        let own = parse(event.digest.as_deref());
        Ok(match event.kind.as_str() {
            "manifest.push" | "manifest.restore" => own.into_iter().collect(),
            "tag.move" | "tag.delete" => {
                let payload: serde_json::Value =
                    serde_json::from_str(&event.payload).unwrap_or_default();
                parse(payload["from"].as_str()).into_iter().collect()
            }
            // Its children, and those that are about it.
            "manifest.delete" => match own {
                Some(digest) => {
                    let of = rows::DependentsOf {
                        repository: repository.clone(),
                        digest,
                    };
                    registry.meta.scan(of).await?
                }
                None => Vec::new(),
            },
            _ => Vec::new(),
        })
    }
}

/// Deletes a manifest if nothing keeps it.
async fn look(registry: &Registry, repository: &RepositoryName, digest: Digest) -> Result<bool> {
    let delete = rows::DeleteUntagged(rows::Delete {
        repository: repository.clone(),
        digest,
        actor: ACTOR.to_owned(),
        at: registry.clock.now_ms(),
    });
    Ok(registry.meta.write(delete).await? == rows::Deleted::Done)
}
