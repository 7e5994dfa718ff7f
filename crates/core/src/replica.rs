//! Replicas: what the processes that serve from one store know of each other.
//!
//! Called by the server's start and upkeep, and by `wharf status`. Nothing is decided by it: a replica that nobody heard of
//! lately may still be at work, and what must not be done twice has a lease in its own row.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wharf_meta::{Meta, replica as rows};

use crate::error::Result;
use crate::registry::Registry;

/// Who has been silent for longer than this counts as gone, in milliseconds.
const GONE: i64 = 30_000;

/// This process, as it shows itself to the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    /// A name that no other process has or had.
    pub id: String,
    /// Where it listens.
    pub address: String,
    /// Its version.
    pub version: String,
    /// The settings that must be the same everywhere: key and value.
    pub settings: BTreeMap<String, String>,
}

/// How busy a process is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Operations on the metadata since its start.
    pub operations: u64,
    /// Those that wait.
    pub waiting: u64,
}

/// A process as the others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// What it is.
    pub me: Me,
    /// How busy it was when it was last heard of.
    pub load: Load,
    /// When it started, in milliseconds since 1970.
    pub started_at: i64,
    /// How long ago it was heard of, in milliseconds.
    pub silent_for: i64,
}

impl Replica {
    /// It was heard of a moment ago.
    pub fn is_there(&self) -> bool {
        self.silent_for <= GONE
    }
}

/// Tells the others that this process is there.
pub async fn beat(registry: &Registry, me: &Me) -> Result<()> {
    let stats = registry.meta.stats();
    let load = Load {
        operations: stats.operations + stats.reads + stats.scans,
        waiting: stats.waiting,
    };
    let said = rows::Said {
        id: me.id.clone(),
        address: me.address.clone(),
        version: me.version.clone(),
        settings: text(&me.settings),
        load: text(&load),
    };
    let at = registry.clock.now_ms();
    Ok(registry.meta.write(rows::Beat { said, at }).await?)
}

/// Tells the others that this process is going.
pub async fn leave(registry: &Registry, me: &Me) -> Result<()> {
    let id = me.id.clone();
    Ok(registry.meta.write(rows::Leave { id }).await?)
}

/// All processes that were heard of lately, by start.
pub async fn list(registry: &Registry) -> Result<Vec<Replica>> {
    Ok(of_store(&registry.meta, registry.clock.now_ms()).await?)
}

/// The same of a store that nothing here serves from.
pub async fn of_store(meta: &Meta, at: i64) -> wharf_meta::Result<Vec<Replica>> {
    let found = meta.scan(rows::List { at }).await?;
    Ok(found.into_iter().map(replica).collect())
}

/// What another process has that must be as it is here, one sentence each.
pub fn differences(me: &Me, others: &[Replica]) -> Vec<String> {
    let mut told = Vec::new();
    for other in others
        .iter()
        .filter(|other| other.is_there() && other.me.id != me.id)
    {
        for (key, here) in &me.settings {
            // An older version may not know of the key.
            if let Some(there) = other.me.settings.get(key).filter(|there| *there != here) {
                told.push(format!(
                    "{key} is {here} here and {there} at the replica {}: it must be the same for all",
                    other.me.address
                ));
            }
        }
    }
    told
}

fn replica(row: rows::ReplicaRow) -> Replica {
    Replica {
        me: Me {
            id: row.said.id,
            address: row.said.address,
            version: row.said.version,
            // Another version may say things that this one does not know.
            settings: serde_json::from_str(&row.said.settings).unwrap_or_default(),
        },
        load: serde_json::from_str(&row.said.load).unwrap_or_default(),
        started_at: row.started_at,
        silent_for: row.silent_for,
    }
}

fn text(value: &impl Serialize) -> String {
    // Plain structures of text and numbers always serialize.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::House;

    fn me(id: &str, url: &str) -> Me {
        Me {
            id: id.to_owned(),
            address: format!("{id}:5000"),
            version: "1".to_owned(),
            settings: BTreeMap::from([("server.external_url".to_owned(), url.to_owned())]),
        }
    }

    #[tokio::test]
    async fn replicas_see_each_other_and_what_differs() {
        let house = House::new().await;
        let (one, two) = (me("one", "https://a"), me("two", "https://b"));
        beat(&house.registry, &one).await.unwrap();
        let found = list(&house.registry).await.unwrap();
        assert_eq!(found[0].me, one);
        assert!(found[0].is_there() && differences(&one, &found).is_empty());
        assert_eq!(
            differences(&two, &found),
            [
                "server.external_url is https://b here and https://a at the replica one:5000: it must be the same for all"
            ]
        );
        leave(&house.registry, &one).await.unwrap();
        assert!(list(&house.registry).await.unwrap().is_empty());
    }
}
