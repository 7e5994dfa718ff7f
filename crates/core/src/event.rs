//! The outbox from its readers' side: each consumer has a cursor of its own and gets every event at least once, and those of one
//! tag in the order of its versions.
//!
//! Events are trimmed after `events.keep`. A consumer that has not seen one yet keeps it for as long again; then it goes all the
//! same, and the log says whose it was.

use serde::{Deserialize, Serialize};
use wharf_meta::event as rows;

use crate::error::Result;
use crate::job::{Job, Step};
use crate::registry::Registry;

/// The next events of a consumer, some at most. They come again until [`seen`].
pub async fn next(registry: &Registry, consumer: &str, limit: u32) -> Result<Vec<rows::EventRow>> {
    let consumer = consumer.to_owned();
    Ok(registry.meta.scan(rows::Next { consumer, limit }).await?)
}

/// A consumer is done with all events up to this one.
pub async fn seen(registry: &Registry, consumer: &str, last: &rows::EventRow) -> Result<()> {
    let seen = rows::Seen {
        consumer: consumer.to_owned(),
        transaction: last.transaction,
        id: last.id,
        at: registry.clock.now_ms(),
    };
    Ok(registry.meta.write(seen).await?)
}

/// Lets old events go.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Trim {}

impl Job for Trim {
    const KIND: &'static str = "event.trim";

    async fn step(&mut self, registry: &Registry) -> Result<Step> {
        let keep = registry.rules.load().events;
        let older = |age| registry.ages.older_than(&*registry.clock, age);
        let trimmed = registry
            .meta
            .write(rows::Trim {
                before: older(keep),
                unseen_before: older(keep.saturating_mul(2)),
            })
            .await?;
        if let Some(consumer) = &trimmed.unseen_by {
            tracing::error!(
                consumer,
                events = trimmed.events,
                "events were trimmed that this consumer had not seen for twice events.keep"
            );
        }
        Ok(if trimmed.events == 0 {
            Step::Done
        } else {
            Step::More
        })
    }
}
