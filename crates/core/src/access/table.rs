//! A hash table that is cheap to copy and to change a little: copies share all that is the same in both.
//!
//! Policies are made of these. A request looks into the one in force without a lock, while whoever changes rights makes the next
//! one out of it: that costs what is changed, and not what is there.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::Arc;

/// Entries of one bucket, on average at most: so many are compared in a look-up, by their hashes, and copied in a change.
const LOAD: usize = 8;

/// Buckets that lie together: so that a change copies neither all of them nor the way to each.
const TOGETHER: usize = 64;

type Bucket<K, V> = Arc<Vec<(u64, K, V)>>;
type Chunk<K, V> = Arc<Vec<Bucket<K, V>>>;

/// Keys with values. A clone costs no more than one of an `Arc`.
pub(crate) struct Table<K, V> {
    /// All of them as long as the first one.
    chunks: Arc<Vec<Chunk<K, V>>>,
    /// So many are in all chunks: none, or a power of two.
    buckets: usize,
    length: usize,
    hasher: RandomState,
}

impl<K, V> Clone for Table<K, V> {
    fn clone(&self) -> Self {
        Self {
            chunks: self.chunks.clone(),
            buckets: self.buckets,
            length: self.length,
            hasher: self.hasher.clone(),
        }
    }
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self {
            chunks: Arc::default(),
            buckets: 0,
            length: 0,
            hasher: RandomState::new(),
        }
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Table<K, V> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_map().entries(self.iter()).finish()
    }
}

impl<K, V> Table<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn entries(&self) -> impl Iterator<Item = &(u64, K, V)> {
        let buckets = self.chunks.iter().flat_map(|chunk| chunk.iter());
        buckets.flat_map(|bucket| bucket.iter())
    }

    /// All of it, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries().map(|(_, key, value)| (key, value))
    }

    /// The bucket of a hash: its chunk, and where it lies in that. Only where there are buckets.
    fn place(&self, hash: u64) -> (usize, usize) {
        let at = hash as usize & (self.buckets - 1);
        (at / TOGETHER, at % TOGETHER)
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Table<K, V> {
    pub(crate) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        if self.length == 0 {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let (chunk, at) = self.place(hash);
        let mut bucket = self.chunks[chunk][at].iter();
        bucket
            .find(|(known, one, _)| *known == hash && one.borrow() == key)
            .map(|(_, _, value)| value)
    }

    pub(crate) fn contains<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The value of a key, made if there is none.
    pub(crate) fn entry(&mut self, key: K, make: impl FnOnce() -> V) -> &mut V {
        if self.length >= LOAD * self.buckets {
            self.grow();
        }
        let hash = self.hasher.hash_one(&key);
        let bucket = self.bucket(hash);
        let found = bucket
            .iter()
            .position(|(known, one, _)| *known == hash && *one == key);
        let at = match found {
            Some(at) => at,
            None => {
                bucket.push((hash, key, make()));
                self.length += 1;
                usize::MAX
            }
        };
        // Borrowed anew, since counting it needed the whole.
        let bucket = self.bucket(hash);
        let at = at.min(bucket.len() - 1);
        &mut bucket[at].2
    }

    /// The bucket of a hash, this table's own.
    fn bucket(&mut self, hash: u64) -> &mut Vec<(u64, K, V)> {
        let (chunk, at) = self.place(hash);
        let chunk = &mut own(&mut self.chunks)[chunk];
        own(&mut own(chunk)[at])
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        let mut value = Some(value);
        let mut new = false;
        let place = self.entry(key, || {
            new = true;
            value.take().expect("made once")
        });
        if let (false, Some(value)) = (new, value) {
            *place = value;
        }
    }

    pub(crate) fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        if !self.contains(key) {
            return None;
        }
        let hash = self.hasher.hash_one(key);
        let bucket = self.bucket(hash);
        let mut entries = bucket.iter();
        let at = entries.position(|(known, one, _)| *known == hash && one.borrow() == key)?;
        let (_, _, value) = bucket.swap_remove(at);
        self.length -= 1;
        Some(value)
    }

    fn grow(&mut self) {
        let wanted = (self.buckets * 2).max(1);
        let mut buckets: Vec<Vec<(u64, K, V)>> = Vec::new();
        buckets.resize_with(wanted, Vec::new);
        for (hash, key, value) in self.entries() {
            let entry = (*hash, key.clone(), value.clone());
            buckets[*hash as usize & (wanted - 1)].push(entry);
        }
        let mut buckets = buckets.into_iter().map(Arc::new).peekable();
        let mut chunks = Vec::new();
        while buckets.peek().is_some() {
            chunks.push(Arc::new(buckets.by_ref().take(TOGETHER).collect()));
        }
        self.chunks = Arc::new(chunks);
        self.buckets = wanted;
    }
}

/// What is behind the `Arc`, copied if others have it, too.
fn own<T: Clone>(shared: &mut Arc<Vec<T>>) -> &mut Vec<T> {
    #[cfg(test)]
    if Arc::strong_count(shared) > 1 {
        copies::COPIED.with(|all| all.set(all.get() + shared.len()));
    }
    Arc::make_mut(shared)
}

/// Counts what is copied, for the test of what changes cost.
#[cfg(test)]
pub(super) mod copies {
    use std::cell::Cell;

    thread_local! {
        pub(in super::super) static COPIED: Cell<usize> = const { Cell::new(0) };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        /// Like a map, and whoever has an older copy sees nothing of what came after it.
        #[test]
        fn a_table_is_a_map_and_its_copies_stay_as_they_were(
            steps in proptest::collection::vec((0..3_000_u32, prop::option::weighted(0.8, any::<u8>())), 0..4_000),
        ) {
            let (mut table, mut map) = (Table::default(), BTreeMap::new());
            let mut copies: Vec<(Table<u32, u8>, BTreeMap<u32, u8>)> = Vec::new();
            for (at, (key, value)) in steps.into_iter().enumerate() {
                match value {
                    Some(value) if at % 2 == 0 => {
                        table.insert(key, value);
                        map.insert(key, value);
                    }
                    Some(value) => {
                        let one: &mut u8 = table.entry(key, || value);
                        *one ^= 1;
                        *map.entry(key).or_insert(value) ^= 1;
                    }
                    None => prop_assert_eq!(table.remove(&key), map.remove(&key)),
                }
                if at % 500 == 0 {
                    copies.push((table.clone(), map.clone()));
                }
            }
            copies.push((table, map));
            for (table, map) in &copies {
                let all: BTreeMap<u32, u8> = table.iter().map(|(key, value)| (*key, *value)).collect();
                prop_assert_eq!(&all, map);
                prop_assert_eq!((table.len(), table.is_empty()), (map.len(), map.is_empty()));
                for key in 0..3_000 {
                    prop_assert_eq!(table.get(&key), map.get(&key));
                }
            }
        }
    }
}
