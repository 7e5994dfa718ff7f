//! Reading the log, which is recorded in it.

use serde_json::json;
use wharf_meta::Origin;
use wharf_meta::audit::{About, EntryRow, Page as PageOp, Place};

use super::{Happened, Kind, record_or_keep, seal_if_possible};
use crate::error::Result;
use crate::registry::Registry;

/// Most entries of one page.
pub const MOST_PAGE: usize = 1_000;
/// Most entries that are looked at for one page; what is not found among them comes with the next.
pub const MOST_SCANNED: usize = 5_000;
/// So many bytes of entries are one page, but for the last that is put in: a thousand entries may be large.
const MOST_BYTES: usize = 4 << 20;
/// So many are read at once.
const CHUNK: usize = 500;

/// What is asked for. Times in milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// From this time on.
    pub since: Option<i64>,
    /// Before this time.
    pub until: Option<i64>,
    /// By this principal.
    pub principal: Option<String>,
    /// On exactly this repository.
    pub repository: Option<String>,
    /// On this namespace or below.
    pub namespace: Option<String>,
    /// An action, or the noun of several: `tag.move`, `tag`.
    pub action: Option<String>,
    /// Only on or below one of these; `None`: everywhere.
    pub within: Option<Vec<String>>,
    /// The latest first.
    pub latest_first: bool,
    /// Behind this place, as an earlier page gave it.
    pub after: Option<Place>,
    /// At most so many.
    pub limit: usize,
}

/// A part of the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<EntryRow>,
    /// Where to go on; `None`: that is all.
    pub next: Option<Place>,
}

fn is_within(path: &str, on: &str) -> bool {
    let below = path.strip_prefix(on);
    on.is_empty() || below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// About as much as it takes in an answer.
fn size(entry: &EntryRow) -> usize {
    let named = [&entry.repository, &entry.digest, &entry.tag];
    let named = named.into_iter().flatten().map(String::len);
    let texts = [
        &entry.action,
        &entry.principal,
        &entry.credential,
        &entry.address,
    ];
    let texts = texts.into_iter().map(String::len);
    entry.detail.len() + named.chain(texts).sum::<usize>()
}

impl Query {
    fn takes(&self, entry: &EntryRow) -> bool {
        let path = entry.repository.as_deref();
        let below = |on: &String| path.is_some_and(|path| is_within(path, on));
        let says = |action: &String| {
            let rest = entry.action.strip_prefix(action.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.principal
            .as_ref()
            .is_none_or(|name| *name == entry.principal)
            && self
                .repository
                .as_ref()
                .is_none_or(|name| path == Some(name))
            && self.namespace.as_ref().is_none_or(below)
            && self.action.as_ref().is_none_or(says)
            && self
                .within
                .as_ref()
                .is_none_or(|within| within.iter().any(|on| on.is_empty() || below(on)))
    }

    fn about(&self) -> About {
        match (&self.repository, &self.principal) {
            (Some(name), _) => About::Repository(name.clone()),
            (None, Some(name)) => About::Principal(name.clone()),
            (None, None) => About::Everything,
        }
    }

    /// For the entry about this reading.
    fn told(&self) -> serde_json::Value {
        json!({
            "since": self.since,
            "until": self.until,
            "principal": self.principal,
            "repository": self.repository,
            "namespace": self.namespace,
            "action": self.action,
        })
    }
}

/// A page of the log, with everything that was acknowledged before.
pub async fn page(registry: &Registry, query: &Query) -> Result<Page> {
    if query.after.is_none() {
        seal_if_possible(registry).await;
    }
    let limit = query.limit.clamp(1, MOST_PAGE);
    let mut from = (query.since.unwrap_or(i64::MIN), i64::MIN);
    let mut until = (query.until.unwrap_or(i64::MAX), i64::MIN);
    match (query.after, query.latest_first) {
        (Some(place), true) => until = until.min(place),
        (Some(place), false) => from = from.max(place),
        (None, _) => {}
    }
    let mut page = Page::default();
    let (mut scanned, mut bytes) = (0, 0);
    loop {
        let chunk = PageOp {
            about: query.about(),
            from,
            until,
            latest_first: query.latest_first,
            limit: CHUNK as u32,
        };
        let rows = registry.meta.scan(chunk).await?;
        let all = rows.len() < CHUNK;
        scanned += rows.len();
        for row in rows {
            let place = (row.at, row.seq);
            if query.takes(&row) {
                if page.entries.len() == limit || bytes >= MOST_BYTES {
                    let last = page.entries.last();
                    page.next = last.map(|entry| (entry.at, entry.seq));
                    return Ok(page);
                }
                bytes += size(&row);
                page.entries.push(row);
            }
            match query.latest_first {
                true => until = place,
                false => from = place,
            }
        }
        if all {
            return Ok(page);
        }
        if scanned >= MOST_SCANNED {
            page.next = Some(if query.latest_first { until } else { from });
            return Ok(page);
        }
    }
}

/// As [`page`]; that somebody reads is in the log first, once for all pages of an answer.
pub async fn read(registry: &Registry, query: &Query, origin: Origin) -> Result<Page> {
    if query.after.is_none() {
        let mut payload = query.told();
        if !origin.rule().is_empty() {
            payload["rule"] = json!(origin.rule());
        }
        let one = Happened {
            kind: Kind::AuditRead,
            at: registry.clock.now_ms(),
            repository: query.repository.clone().or_else(|| query.namespace.clone()),
            digest: None,
            tag: None,
            payload,
            origin,
        };
        record_or_keep(registry, one).await;
    }
    page(registry, query).await
}
