//! Sign-ins, refusals and reads on their way into the log, off the path of requests.
//!
//! The first of its kind is written at the next [`Gatherer::flush`], within a second; those that follow and are equal but for time
//! and request are counted, and told in one entry at the end of each window. What is more than the bounds hold is counted, too.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};
use wharf_meta::Origin;
use wharf_meta::event::{Happened, Kind, MOST_NOTES};
use wharf_meta::origin::ITSELF;

use super::record;
use crate::error::Result;
use crate::registry::Registry;

/// How long equal ones are counted before they are told, in ms.
pub const WINDOW_MS: i64 = 60_000;
/// So many different ones are told apart at once.
pub const MOST_KNOWN: usize = 10_000;
/// So many different ones wait to be written.
const MOST_FRESH: usize = MOST_NOTES;
/// Longest name, address or path of one that is kept.
const LONGEST: usize = 300;

/// Something to note. Two that are equal are one that was repeated.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sight {
    /// What happened.
    pub kind: Kind,
    /// Who, or the name that was given.
    pub principal: String,
    /// The id of the credential, or how the principal signed in.
    pub credential: String,
    /// From where.
    pub address: Option<IpAddr>,
    /// The repository or namespace, if it is about one.
    pub repository: Option<String>,
    /// The blob or manifest, if it is about one.
    pub digest: Option<String>,
    /// The tag, if it is about one.
    pub tag: Option<String>,
    /// What was asked for: a permission, or an address.
    pub asked: String,
    /// Why it was refused, or what allowed it.
    pub reason: String,
}

/// How often one was seen since it was told last.
#[derive(Debug)]
struct Count {
    /// When it was told last.
    since: i64,
    times: u64,
    first: i64,
    last: i64,
    request: String,
}

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<Sight, Count>,
    fresh: Vec<Happened>,
    /// What was not noted since it was told last, and since when.
    lost: u64,
    told_lost: i64,
}

/// What is on its way.
#[derive(Debug, Default)]
pub struct Gatherer {
    inner: Mutex<Inner>,
    /// Held while some of it is being written: whoever comes then finds it written.
    writing: tokio::sync::Mutex<()>,
    noted: AtomicU64,
    overflowed: AtomicU64,
}

fn cut(text: &mut String) {
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
}

impl Sight {
    fn bounded(mut self) -> Self {
        for text in [
            &mut self.principal,
            &mut self.credential,
            &mut self.asked,
            &mut self.reason,
        ] {
            cut(text);
        }
        for text in [&mut self.repository, &mut self.digest, &mut self.tag]
            .into_iter()
            .flatten()
        {
            cut(text);
        }
        self
    }

    fn happened(&self, at: i64, request: &str, times: Value) -> Happened {
        let mut payload = json!({
            "decision": if self.kind == Kind::Refuse { "refused" } else { "allowed" },
            "asked": self.asked,
            if self.kind == Kind::Refuse { "reason" } else { "rule" }: self.reason,
        });
        if let (Some(payload), Value::Object(times)) = (payload.as_object_mut(), times) {
            payload.extend(times);
        }
        let address = self.address;
        Happened {
            kind: self.kind,
            at,
            repository: self.repository.clone(),
            digest: self.digest.clone(),
            tag: self.tag.clone(),
            payload,
            origin: Origin {
                actor: self.principal.clone(),
                credential: self.credential.clone(),
                address: address
                    .map_or_else(String::new, |address| address.to_canonical().to_string()),
                request: request.to_owned(),
                ..Origin::default()
            },
        }
    }
}

impl Gatherer {
    /// Notes one, at a time in ms since 1970. Takes microseconds, and memory within bounds.
    pub fn note(&self, sight: Sight, at: i64, request: &str) {
        self.noted.fetch_add(1, Ordering::Relaxed);
        let sight = sight.bounded();
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = inner.known.get_mut(&sight) {
            if count.times == 0 {
                count.first = at;
            }
            count.times += 1;
            count.last = at;
            request.clone_into(&mut count.request);
            return;
        }
        if inner.known.len() >= MOST_KNOWN || inner.fresh.len() >= MOST_FRESH {
            inner.lost += 1;
            self.overflowed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        inner
            .fresh
            .push(sight.happened(at, request, json!({"count": 1})));
        let count = Count {
            since: at,
            times: 0,
            first: at,
            last: at,
            request: String::new(),
        };
        inner.known.insert(sight, count);
    }

    /// How many were noted, and how many of them were more than the bounds hold; since the start.
    pub fn counts(&self) -> (u64, u64) {
        (
            self.noted.load(Ordering::Relaxed),
            self.overflowed.load(Ordering::Relaxed),
        )
    }

    /// What is to be written now; with `all`, also what is still being counted.
    fn due(&self, now: i64, all: bool) -> Vec<Happened> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = &mut *inner;
        let mut due = std::mem::take(&mut inner.fresh);
        inner.known.retain(|sight, count| {
            // The second half matters when the clock was set back.
            let over = now.abs_diff(count.since) >= WINDOW_MS.unsigned_abs();
            if !over && !all {
                return true;
            }
            if count.times == 0 {
                return !over;
            }
            let times = json!({"count": count.times, "first": count.first, "last": count.last});
            due.push(sight.happened(count.last, &count.request, times));
            count.since = now;
            count.times = 0;
            true
        });
        let told = now.abs_diff(inner.told_lost) >= WINDOW_MS.unsigned_abs();
        if inner.lost > 0 && (told || all) {
            due.push(Happened {
                kind: Kind::Overflow,
                at: now,
                repository: None,
                digest: None,
                tag: None,
                payload: json!({"count": inner.lost, "reason": "more different sign-ins, refusals and reads than are told apart"}),
                origin: Origin {
                    actor: ITSELF.to_owned(),
                    ..Origin::default()
                },
            });
            inner.lost = 0;
            inner.told_lost = now;
        }
        due
    }

    /// Writes what is due; with `all`, also what is still being counted, for an orderly end. What is dropped before it has
    /// ended loses what it had taken.
    pub async fn flush(&self, registry: &Registry, all: bool) -> Result<()> {
        let _writing = self.writing.lock().await;
        let mut due = self.due(registry.clock.now_ms(), all);
        while !due.is_empty() {
            let rest = due.split_off(due.len().min(MOST_NOTES));
            if let Err(error) = record(registry, due.clone()).await {
                due.extend(rest);
                self.take_back(due);
                return Err(error);
            }
            due = rest;
        }
        Ok(())
    }

    /// Keeps one until it can be written.
    pub(super) fn keep(&self, one: Happened) {
        self.take_back(vec![one]);
    }

    /// Keeps what could not be written, as far as there is room; the rest is counted.
    fn take_back(&self, due: Vec<Happened>) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for one in due {
            if inner.fresh.len() < MOST_FRESH {
                inner.fresh.push(one);
            } else {
                let times = one.payload["count"].as_u64().unwrap_or(1);
                inner.lost += times;
                self.overflowed.fetch_add(times, Ordering::Relaxed);
            }
        }
    }
}
