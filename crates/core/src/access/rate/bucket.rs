//! Token buckets in a table that cannot grow.
//!
//! A bucket is one number: the moment at which it will be full again. Taking from it moves that moment on by what it takes to
//! refill as much; a bucket that would need longer than it takes to refill a whole one is empty. So nothing ticks, and
//! buckets of all rates lie side by side. Times are nanoseconds of the steady clock, which nobody can set.
//!
//! The table is made of small sets, each under a lock of its own that is held for a walk over [`WAYS`] entries. A set that is full
//! gives up the bucket that is full first: it forgets least, and whoever emptied theirs is remembered, however many addresses
//! an attacker makes up.

use std::sync::{Mutex, PoisonError};

/// Sets of buckets.
const SETS: usize = 4_096;
/// Buckets in each set.
const WAYS: usize = 16;
/// Buckets altogether.
pub const MOST_BUCKETS: usize = SETS * WAYS;
/// Refusals of one bucket that are known again.
const KNOWN: usize = 4;
/// How long they are, in ns. containerd repeats a refused request at once, five times (§8.1).
const RETRIES: i64 = 1_000_000_000;

#[derive(Debug, Default, Clone, Copy)]
struct Bucket {
    key: u64,
    full_at: i64,
    /// How slowly it refilled when it was taken from last.
    pace: i64,
    /// Which requests were refused since then.
    since: i64,
    refused: [u32; KNOWN],
}

/// How a bucket refills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refill {
    /// How long a whole one takes, in ns.
    pub(super) whole: i64,
    /// How long so many take that rates can be told apart by it, in ns.
    pub(super) pace: i64,
}

/// Why nothing was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    /// How long until there is something to take, in ns.
    pub(super) wait: i64,
    /// Whether the same request was refused a moment ago.
    pub(super) again: bool,
}

/// All buckets.
pub(super) struct Buckets {
    sets: Box<[Mutex<Vec<Bucket>>]>,
}

impl Buckets {
    pub(super) fn new() -> Self {
        Self {
            sets: (0..SETS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Takes one that needs `cost` to refill from a bucket that refills in `whole`. What is refused costs nothing, so that
    /// whoever repeats it is not punished for it.
    pub(super) fn take(
        &self,
        key: u64,
        now: i64,
        cost: i64,
        Refill { whole, pace }: Refill,
        request: impl FnOnce() -> u32,
    ) -> Result<(), Refused> {
        self.with(key, |bucket| {
            bucket.keep_pace(pace, now);
            let full_at = bucket.full_at.max(now).saturating_add(cost);
            let wait = full_at.saturating_sub(whole).saturating_sub(now);
            if wait <= 0 {
                bucket.full_at = full_at;
                return Ok(());
            }
            let again = bucket.know(request(), now);
            Err(Refused { wait, again })
        })
    }

    /// Takes what needs `cost` to refill, whether it is there or not: what has been sent cannot be refused any more.
    pub(super) fn charge(&self, key: u64, now: i64, cost: i64, pace: i64) {
        self.with(key, |bucket| {
            bucket.keep_pace(pace, now);
            bucket.full_at = bucket.full_at.max(now).saturating_add(cost);
        });
    }

    /// Whether anything is left in a bucket that refills in `whole`. Makes none.
    pub(super) fn look(
        &self,
        key: u64,
        now: i64,
        Refill { whole, pace }: Refill,
        request: impl FnOnce() -> u32,
    ) -> Result<(), Refused> {
        let mut set = self.set(key).lock().unwrap_or_else(PoisonError::into_inner);
        let Some(bucket) = set.iter_mut().find(|bucket| bucket.key == key) else {
            return Ok(());
        };
        bucket.keep_pace(pace, now);
        let wait = bucket.full_at.saturating_sub(whole).saturating_sub(now);
        if wait < 0 || bucket.full_at <= now {
            return Ok(());
        }
        let again = bucket.know(request(), now);
        Err(Refused {
            wait: wait.max(1),
            again,
        })
    }

    fn set(&self, key: u64) -> &Mutex<Vec<Bucket>> {
        // The keys are hashes: their lowest bits are as good as any.
        &self.sets[key as usize % SETS]
    }

    fn with<T>(&self, key: u64, act: impl FnOnce(&mut Bucket) -> T) -> T {
        let mut set = self.set(key).lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = set.iter_mut().find(|bucket| bucket.key == key) {
            return act(bucket);
        }
        let mut bucket = Bucket {
            key,
            full_at: i64::MIN,
            ..Bucket::default()
        };
        let answer = act(&mut bucket);
        if set.len() < WAYS {
            set.push(bucket);
        } else if let Some(least) = set.iter_mut().min_by_key(|bucket| bucket.full_at) {
            *least = bucket;
        }
        answer
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let sets = self.sets.iter();
        sets.map(|set| set.lock().unwrap().len()).sum()
    }
}

impl Bucket {
    /// What was taken at a slower pace comes back at the one that holds now: a rate that was raised counts at once for whoever
    /// owes, too. One that was lowered makes nobody's debt longer.
    fn keep_pace(&mut self, pace: i64, now: i64) {
        let owed = self.full_at.saturating_sub(now);
        if owed > 0 && (1..self.pace).contains(&pace) {
            let owed = i128::from(owed) * i128::from(pace) / i128::from(self.pace);
            self.full_at = now.saturating_add(i64::try_from(owed).unwrap_or(i64::MAX));
        }
        self.pace = pace;
    }

    /// Whether this request was refused a moment ago; from now on it was.
    fn know(&mut self, request: u32, now: i64) -> bool {
        // 0 stands for none.
        let request = request | 1;
        if now.saturating_sub(self.since) > RETRIES {
            self.refused = [0; KNOWN];
            self.since = now;
        }
        if self.refused.contains(&request) {
            return true;
        }
        self.refused.rotate_right(1);
        self.refused[0] = request;
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn refill(whole: i64) -> Refill {
        Refill { whole, pace: 0 }
    }

    fn take(buckets: &Buckets, key: u64, now: i64, cost: i64, burst: i64) -> bool {
        let refill = Refill {
            whole: cost * burst,
            pace: cost,
        };
        buckets.take(key, now, cost, refill, || 0).is_ok()
    }

    #[test]
    fn a_rate_that_is_raised_counts_for_whoever_owes_and_a_lower_one_adds_nothing() {
        let buckets = Buckets::new();
        let hour = 3_600 * SECOND;
        assert!(take(&buckets, 7, 0, hour, 1) && !take(&buckets, 7, 0, hour, 1));
        // One in an hour becomes one in a second: what was taken is one, and that comes back in a second.
        assert!(!take(&buckets, 7, 0, SECOND, 1));
        assert!(!take(&buckets, 7, SECOND - 1, SECOND, 1) && take(&buckets, 7, SECOND, SECOND, 1));
        // Lowered, it is back when it would have been.
        assert!(!take(&buckets, 7, SECOND, hour, 1));
        assert!(take(&buckets, 7, 2 * SECOND, hour, 1));
        // Bytes that have passed, too.
        let bytes = |pace| Refill { whole: pace, pace };
        buckets.charge(8, 0, 5 * hour, hour);
        assert!(buckets.look(8, 0, bytes(hour), || 0).is_err());
        assert!(buckets.look(8, 3 * SECOND, bytes(SECOND), || 0).is_err());
        assert!(buckets.look(8, 8 * SECOND, bytes(SECOND), || 0).is_ok());
    }

    #[test]
    fn a_burst_passes_and_then_one_at_a_time() {
        let buckets = Buckets::new();
        let taken = (0..100).filter(|_| take(&buckets, 7, 0, SECOND, 10));
        assert_eq!(taken.count(), 10);
        for second in 1..5 {
            let now = second * SECOND;
            assert!(!take(&buckets, 7, now - 1, SECOND, 10));
            assert!(take(&buckets, 7, now, SECOND, 10));
            assert!(!take(&buckets, 7, now, SECOND, 10));
        }
        // A long pause fills it, and no more than that.
        let later = (0..100).filter(|_| take(&buckets, 7, 1_000 * SECOND, SECOND, 10));
        assert_eq!(later.count(), 10);
    }

    #[test]
    fn what_is_refused_costs_nothing_and_says_exactly_how_long_to_wait() {
        let buckets = Buckets::new();
        assert!(take(&buckets, 7, 0, SECOND, 1));
        for now in [0, 1, SECOND / 2, SECOND - 1] {
            let refused = buckets
                .take(7, now, SECOND, refill(SECOND), || 0)
                .unwrap_err();
            assert_eq!(refused.wait, SECOND - now);
        }
        assert!(take(&buckets, 7, SECOND, SECOND, 1));
    }

    #[test]
    fn a_refused_request_and_its_retries_are_one() {
        let buckets = Buckets::new();
        let ask = |request, now| {
            let taken = buckets.take(7, now, 60 * SECOND, refill(60 * SECOND), || request);
            taken.map_err(|refused| refused.again)
        };
        assert_eq!(ask(2, 0), Ok(()));
        assert_eq!(ask(2, 1), Err(false));
        assert_eq!(ask(4, 2), Err(false));
        for now in 3..8 {
            assert_eq!((ask(2, now), ask(4, now)), (Err(true), Err(true)));
        }
        assert_eq!(ask(2, 2 * SECOND), Err(false));
    }

    #[test]
    fn what_was_sent_is_owed() {
        let buckets = Buckets::new();
        assert_eq!(buckets.look(7, 0, refill(SECOND), || 0), Ok(()));
        assert_eq!(buckets.len(), 0);
        buckets.charge(7, 0, 10 * SECOND, 0);
        let refused = buckets.look(7, 0, refill(SECOND), || 0).unwrap_err();
        assert_eq!(refused.wait, 9 * SECOND);
        assert!(buckets.look(7, 9 * SECOND, refill(SECOND), || 0).is_err());
        assert_eq!(
            buckets.look(7, 9 * SECOND + 1, refill(SECOND), || 0),
            Ok(())
        );
    }

    #[test]
    fn a_million_addresses_take_no_more_room_and_free_nobody() {
        let buckets = Buckets::new();
        let mut random = 1_u64;
        let mut next = move || {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            random ^ random >> 31
        };
        // Some clients have emptied theirs.
        let empty: Vec<u64> = (0..1_000).map(|_| next()).collect();
        for key in &empty {
            while take(&buckets, *key, 0, SECOND, 20) {}
        }
        for now in 0..1_000_000 {
            assert!(take(&buckets, next(), now, SECOND, 20));
        }
        assert_eq!(buckets.len(), MOST_BUCKETS);
        for key in &empty {
            assert!(!take(&buckets, *key, 1_000_000, SECOND, 20));
        }
        let room: usize = (buckets.sets.iter())
            .map(|set| set.lock().unwrap().capacity() * size_of::<Bucket>())
            .sum();
        assert!(room <= 4 << 20, "{room} bytes");
    }

    proptest! {
        #[test]
        fn never_more_than_the_burst_and_what_came_since(
            cost in 1_i64..5_000_000, burst in 1_i64..50,
            pauses in proptest::collection::vec(0_i64..20_000_000, 1..300),
        ) {
            let buckets = Buckets::new();
            let mut now = 1_000;
            let mut taken = Vec::new();
            for pause in pauses {
                now += pause;
                if take(&buckets, 7, now, cost, burst) {
                    taken.push(now);
                }
            }
            // In any window from one to another.
            for (at, from) in taken.iter().enumerate() {
                for (count, to) in (1..).zip(&taken[at..]) {
                    prop_assert!(count <= burst + (to - from) / cost, "{count} in {}", to - from);
                }
            }
        }

        #[test]
        fn who_keeps_to_the_rate_is_never_refused(
            cost in 1_i64..5_000_000, burst in 1_i64..50,
            late in proptest::collection::vec(0_i64..20_000_000, 1..300),
        ) {
            let buckets = Buckets::new();
            let mut now = 0;
            for late in late {
                now += cost + late;
                prop_assert!(take(&buckets, 7, now, cost, burst));
            }
        }

        #[test]
        fn whoever_waits_as_told_is_let_through(
            cost in 1_i64..5_000_000, burst in 1_i64..50,
            pauses in proptest::collection::vec(0_i64..2_000_000, 1..300),
        ) {
            let buckets = Buckets::new();
            let mut now = 0;
            for pause in pauses {
                now += pause;
                if let Err(refused) = buckets.take(7, now, cost, refill(cost * burst), || 0) {
                    prop_assert!(refused.wait > 0 && refused.wait <= cost);
                    now += refused.wait;
                    prop_assert!(take(&buckets, 7, now, cost, burst));
                }
            }
        }

        #[test]
        fn one_bucket_says_nothing_of_another(keys in proptest::collection::vec(any::<u64>(), 2..30)) {
            let buckets = Buckets::new();
            let mut keys = keys;
            keys.sort_unstable();
            keys.dedup();
            while take(&buckets, keys[0], 0, SECOND, 5) {}
            for key in &keys[1..] {
                prop_assert!(take(&buckets, *key, 0, SECOND, 5));
            }
        }
    }
}
