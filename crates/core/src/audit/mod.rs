//! The audit log: who did what, when, from where, allowed or refused by what; in a chain that shows when somebody tampered with it.
//!
//! Changes come in as events, which operations write in the very transaction that makes the change (`meta/ops/event.rs`). Sign-ins,
//! refusals and reads are gathered and counted in memory ([`Gatherer`]) and become events each second. [`seal()`] gives events their
//! places in the log: one row without gaps, each entry hashed over the one before, with a head that is signed by a key outside the
//! database. [`verify()`] checks all of it; [`page`] reads; [`Cut`] lets go what is old. Nothing here writes for a request.

mod chain;
mod cut;
mod gather;
#[cfg(test)]
mod gather_tests;
mod query;
mod seal;
#[cfg(test)]
mod tests;
mod verify;

use std::sync::OnceLock;

use wharf_meta::Origin;

pub use self::chain::LogKeys;
pub use self::cut::Cut;
pub use self::gather::{Gatherer, MOST_KNOWN, Sight, WINDOW_MS};
pub use self::query::{MOST_PAGE, MOST_SCANNED, Page, Query, page, read};
pub use self::seal::{seal, seal_if_possible};
pub use self::verify::{Finding, Report, verify};
pub use wharf_meta::audit::{EntryRow, Place};
pub use wharf_meta::event::{Happened, Kind};

use crate::access::Caller;
use crate::error::Result;
use crate::registry::Registry;

/// What is in the log, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// How long entries are kept, in milliseconds; 0: for good.
    pub keep: i64,
    /// Whether reading content is recorded.
    pub reads: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            keep: 400 * 86_400_000,
            reads: false,
        }
    }
}

impl Caller {
    /// Where what this caller does comes from.
    pub fn origin(&self, request: &str) -> Origin {
        let credential = match &self.credential {
            Some(id) => id.to_string(),
            None => self.circumstances.sign_in.as_str().to_owned(),
        };
        let address = self.circumstances.address;
        Origin {
            actor: self.principal.name().to_owned(),
            credential,
            address: address.map_or_else(String::new, |address| address.to_canonical().to_string()),
            request: request.to_owned(),
            rule: OnceLock::new(),
        }
    }
}

/// Records a command of whoever runs the registry, before it is done: whatever it acknowledges is in the log. Where nothing can be
/// written, as on a full disk that the command is to make room on, it is written as soon as something can.
pub async fn command(registry: &Registry, name: &str, with: serde_json::Value) {
    let origin = wharf_meta::origin::current();
    let origin = origin.map_or_else(Origin::default, |origin| Origin::clone(&origin));
    let mut payload = serde_json::json!({"command": name, "with": with});
    if !origin.rule().is_empty() {
        payload["rule"] = origin.rule().into();
    }
    let one = Happened {
        kind: Kind::OperatorCommand,
        at: registry.clock.now_ms(),
        repository: None,
        digest: None,
        tag: None,
        payload,
        origin,
    };
    record_or_keep(registry, one).await;
}

/// Records one now, or as soon as something can be written again.
async fn record_or_keep(registry: &Registry, one: Happened) {
    if let Err(error) = record(registry, vec![one.clone()]).await {
        tracing::warn!(%error, "an entry of the audit log cannot be written now; trying again");
        registry.audit.keep(one);
    }
}

/// Records what happened without changing anything; when this gives `Ok`, it is durable.
pub(crate) async fn record(registry: &Registry, happened: Vec<Happened>) -> Result<()> {
    let record = wharf_meta::event::Record { happened };
    Ok(registry.meta.write(record).await?)
}

/// A name that somebody gave, as it is noted when nobody was let in with it. A secret in the wrong field is not shown.
pub fn given(name: &str) -> String {
    match crate::access::is_secret(name) || name.chars().any(char::is_control) {
        true => "(no name)".to_owned(),
        false => name.to_owned(),
    }
}
