//! Puts events into the log.

use std::time::Duration;

use serde_json::json;
use wharf_meta::audit::{Append, BATCH, CONSUMER, Ends, EntryRow, Head, HeadRow};
use wharf_meta::event::{EventRow, Next};
use wharf_meta::origin::ITSELF;

use super::chain::LogKeys;
use crate::error::Result;
use crate::registry::Registry;

/// Between two batches, for those who write meanwhile.
const BREATH: Duration = Duration::from_millis(2);
/// What an entry says where the log was not as it had been left.
pub(super) const BREAK: &str = "audit.break";

/// Gives all events that are there their places in the log; tells how many. Where another process does so meanwhile, it leaves
/// them to that one.
pub async fn seal(registry: &Registry) -> Result<u64> {
    let mut sealed = 0;
    loop {
        // The head comes first: the events behind it are no others as long as it is the same at the end.
        let ends = registry.meta.read(Head).await?;
        let next = Next {
            consumer: CONSUMER.to_owned(),
            limit: BATCH as u32 - 1,
        };
        let events = registry.meta.scan(next).await?;
        let Some(last) = events.last() else {
            return Ok(sealed);
        };
        let now = registry.clock.now_ms();
        let count = events.len();
        let seen = Some((last.transaction, last.id, now));
        let append = prepare(&registry.access.log_keys, ends, events, now);
        let done = registry.meta.write(Append { seen, ..append }).await?;
        if !done {
            return Ok(sealed);
        }
        sealed += count as u64;
        if count < BATCH - 1 {
            return Ok(sealed);
        }
        // After an update there are all events of the last weeks.
        tokio::time::sleep(BREATH).await;
    }
}

/// As [`seal`], for those who read: what is in the log can be read, and checked, where nothing can be written.
pub async fn seal_if_possible(registry: &Registry) {
    if let Err(error) = seal(registry).await {
        tracing::warn!(%error, "the audit log could not be brought up to date");
    }
}

/// Whether the log ends where its head says, and the head is one that was written; else what is wrong.
pub(super) fn standing(keys: &LogKeys, ends: &Ends) -> std::result::Result<(), &'static str> {
    match (&ends.head, &ends.last) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err("the head of the log is gone"),
        (Some(head), _) if !keys.knows_head(head) => {
            Err("the head of the log was not written with a key that is given")
        }
        (Some(head), Some((seq, hash))) if (head.seq, &head.hash) == (*seq, hash) => Ok(()),
        // All that there was is so old that it was cut off.
        (Some(head), None) if head.seq == head.cut_seq => Ok(()),
        (Some(head), Some((seq, _))) if *seq > head.seq => {
            Err("entries stand behind the head of the log")
        }
        (Some(_), _) => Err("the last entries of the log are gone or changed"),
    }
}

fn prepare(keys: &LogKeys, ends: Ends, events: Vec<EventRow>, now: i64) -> Append {
    let wrong = standing(keys, &ends).err();
    let last = ends.last.as_ref().map_or(0, |(seq, _)| *seq);
    let expected = ends.head.as_ref().map(|head| head.mac.clone());
    let mut head = ends.head.unwrap_or_default();
    let mut entries = Vec::with_capacity(events.len() + 1);
    if let Some(wrong) = wrong {
        tracing::error!(
            head = head.seq,
            last,
            "audit log: {wrong}; it goes on behind an entry that says so, and `wharf audit verify` tells more"
        );
        let detail = json!({"decision": "found", "reason": wrong, "head": head.seq, "last": last});
        entries.push(EntryRow {
            seq: head.seq.max(last) + 1,
            at: now,
            action: BREAK.to_owned(),
            principal: ITSELF.to_owned(),
            credential: String::new(),
            address: String::new(),
            request: String::new(),
            repository: None,
            digest: None,
            tag: None,
            detail: detail.to_string(),
            hash: Vec::new(),
            mac: Vec::new(),
        });
        // What was before is not vouched for.
        head.hash.clear();
        head.seq = head.seq.max(last);
    }
    let mut seq = head.seq + entries.len() as i64;
    entries.extend(events.into_iter().map(|event| {
        seq += 1;
        entry(seq, event)
    }));
    let mut before = std::mem::take(&mut head.hash);
    for entry in &mut entries {
        keys.close(entry, &before);
        before.clone_from(&entry.hash);
    }
    head.seq = seq;
    head.hash = before;
    keys.close_head(&mut head);
    Append {
        expected,
        entries,
        head,
        seen: None,
    }
}

fn entry(seq: i64, event: EventRow) -> EntryRow {
    EntryRow {
        seq,
        at: event.at,
        action: event.kind,
        principal: event.actor,
        credential: event.credential,
        address: event.address,
        request: event.request,
        repository: event.repository,
        digest: event.digest,
        tag: event.tag,
        detail: event.payload,
        hash: Vec::new(),
        mac: Vec::new(),
    }
}

/// A head after the oldest entries went.
pub(super) fn cut_head(keys: &LogKeys, head: &HeadRow, last: &EntryRow) -> HeadRow {
    let mut cut = HeadRow {
        cut_seq: last.seq,
        cut_hash: last.hash.clone(),
        ..head.clone()
    };
    keys.close_head(&mut cut);
    cut
}
