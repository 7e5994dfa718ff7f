//! Manifests in memory, as fresh as the rows: what makes a pull of a popular tag cost no look-up at all.
//!
//! Two kinds of entries, both under the repository's name so that nothing is visible through another one (invariant 8):
//! a tag leads to a digest, a digest to the manifest. Each carries the [`Stamp`] that was taken before it was read, and
//! counts only as long as `meta` calls the stamp fresh, so no write ever comes here to remove anything, and no reader
//! sees a value after a newer one. That something is absent is never remembered. Used by `manifest` alone.
//!
//! What it gains over look-ups in open views: `docs/reference/performance.md`, P1.

use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use wharf_meta::{Meta, Stamp};
use wharf_oci::{Digest, Reference, RepositoryName, Tag};

use crate::manifest::Stored;

/// Bytes that the cache takes at most.
const CAPACITY: u64 = 32 << 20;
/// Larger manifests are read each time, so that a few of them cannot drive out thousands.
const LARGEST: u64 = 256 << 10;
/// Few, since each has its share of the bytes alone.
const SHARDS: usize = 16;
/// Only where tables begin; they grow.
const EXPECTED: usize = 1024;
/// What an entry takes beside its texts and bytes, about.
const OVERHEAD: usize = 200;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    repository: RepositoryName,
    reference: Reference,
}

#[derive(Clone, Debug)]
enum Entry {
    Tag(Stamp, Digest),
    Manifest(Stamp, Arc<Stored>),
}

#[derive(Clone, Debug)]
struct Bytes;

impl Weighter<Key, Entry> for Bytes {
    fn weight(&self, key: &Key, entry: &Entry) -> u64 {
        let texts = key.repository.as_str().len() + key.reference.as_str().len();
        let value = match entry {
            Entry::Tag(_, digest) => digest.as_str().len(),
            Entry::Manifest(_, stored) => {
                stored.digest.as_str().len()
                    + stored.media_type.len()
                    + stored.bytes.as_ref().map_or(0, bytes::Bytes::len)
            }
        };
        (OVERHEAD + texts + value) as u64
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Manifests {
    entries: Cache<Key, Entry, Bytes>,
}

impl Default for Manifests {
    fn default() -> Self {
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .weight_capacity(CAPACITY)
            .estimated_items_capacity(EXPECTED)
            .build()
            .expect("both capacities are given");
        Self {
            entries: Cache::with_options(
                options,
                Bytes,
                DefaultHashBuilder::default(),
                Default::default(),
            ),
        }
    }
}

impl Manifests {
    /// Where the tag stands, with the stamp that must still be fresh when the manifest has been found.
    pub(crate) fn tag(
        &self,
        meta: &Meta,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Option<(Stamp, Digest)> {
        match self.get(repository, Reference::Tag(tag.clone()))? {
            Entry::Tag(stamp, digest) if meta.is_fresh(stamp) => Some((stamp, digest)),
            _ => None,
        }
    }

    /// The manifest, if all of it that is wanted is here.
    pub(crate) fn manifest(
        &self,
        meta: &Meta,
        repository: &RepositoryName,
        digest: &Digest,
        with_bytes: bool,
    ) -> Option<Arc<Stored>> {
        match self.get(repository, Reference::Digest(digest.clone()))? {
            Entry::Manifest(stamp, stored)
                if meta.is_fresh(stamp) && (stored.bytes.is_some() || !with_bytes) =>
            {
                Some(stored)
            }
            _ => None,
        }
    }

    /// Keeps where a tag stands. `stamp` was taken for the tag before it was read.
    pub(crate) fn keep_tag(
        &self,
        stamp: Stamp,
        repository: &RepositoryName,
        tag: &Tag,
        digest: &Digest,
    ) {
        let entry = Entry::Tag(stamp, digest.clone());
        self.insert(repository, Reference::Tag(tag.clone()), entry);
    }

    /// Keeps a manifest, unless it is large. `stamp` was taken for its digest before it was read.
    pub(crate) fn keep_manifest(
        &self,
        stamp: Stamp,
        repository: &RepositoryName,
        stored: &Arc<Stored>,
    ) {
        if stored.size <= LARGEST {
            let entry = Entry::Manifest(stamp, stored.clone());
            self.insert(repository, Reference::Digest(stored.digest.clone()), entry);
        }
    }

    fn get(&self, repository: &RepositoryName, reference: Reference) -> Option<Entry> {
        self.entries.get(&Key {
            repository: repository.clone(),
            reference,
        })
    }

    fn insert(&self, repository: &RepositoryName, reference: Reference, entry: Entry) {
        let key = Key {
            repository: repository.clone(),
            reference,
        };
        self.entries.insert(key, entry);
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
