//! Time as a handle, so that tests can hold it, jump it, and run it backwards.
//!
//! Everything in the registry asks a [`Clock`]; nothing calls `SystemTime::now` itself.

use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use wharf_meta::Meta;
use wharf_meta::setting::Now;

/// Tells the time.
pub trait Clock: Send + Sync + Debug {
    /// The present time, in milliseconds since 1970-01-01 UTC. Somebody may set it, to any other time.
    fn now_ms(&self) -> i64;

    /// Milliseconds since some moment. Nobody can set it; while the machine is suspended it may stand still.
    fn steady_ms(&self) -> i64;
}

/// The machine's own clock.
#[derive(Debug, Default, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        // A clock set before 1970 is a broken machine, not a reason to fall over.
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |elapsed| {
                i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX)
            })
    }

    fn steady_ms(&self) -> i64 {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        i64::try_from(START.elapsed().as_millis()).unwrap_or(i64::MAX)
    }
}

/// The clock of a database that several processes share, so that graces, windows and leases mean the same to all of them, whatever
/// the clocks of their machines say. Goes on by the steady clock between two looks at it; when the database's clock is set, the next
/// look leaps, as with any other clock.
#[derive(Debug)]
pub struct SharedClock {
    own: Arc<dyn Clock>,
    /// What the database's clock shows more than the steady one, in milliseconds.
    ahead: AtomicI64,
}

impl SharedClock {
    /// An answer that took longer says little of the time, in milliseconds.
    const SLOW: i64 = 2_000;

    /// A clock that shows the database's time.
    pub async fn new(own: Arc<dyn Clock>, meta: &Meta) -> wharf_meta::Result<Self> {
        let ahead = AtomicI64::new(own.now_ms() - own.steady_ms());
        let clock = Self { own, ahead };
        let (seen, _) = clock.look(meta).await?;
        clock.ahead.store(seen, Ordering::SeqCst);
        Ok(clock)
    }

    /// Looks at the database's clock again.
    pub async fn follow(&self, meta: &Meta) -> wharf_meta::Result<()> {
        let (seen, took) = self.look(meta).await?;
        let off = (seen - self.ahead.load(Ordering::SeqCst)).abs();
        if took <= Self::SLOW && off > took {
            self.ahead.store(seen, Ordering::SeqCst);
        }
        Ok(())
    }

    /// How far ahead it is, and how long that took to find out.
    async fn look(&self, meta: &Meta) -> wharf_meta::Result<(i64, i64)> {
        let begun = self.own.steady_ms();
        let at = self.own.now_ms();
        let now = meta.read(Now { at }).await?;
        let took = self.own.steady_ms() - begun;
        Ok((now - (begun + took / 2), took))
    }
}

impl Clock for SharedClock {
    fn now_ms(&self) -> i64 {
        self.own.steady_ms() + self.ahead.load(Ordering::SeqCst)
    }

    fn steady_ms(&self) -> i64 {
        self.own.steady_ms()
    }
}

/// A clock that stands still until it is told to move.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: AtomicI64,
    steady: AtomicI64,
}

impl ManualClock {
    /// A clock that shows `ms`.
    pub fn at(ms: i64) -> Self {
        Self {
            now: AtomicI64::new(ms),
            steady: AtomicI64::new(0),
        }
    }

    /// Is set: shows `ms` from now on, which may lie in the past, though no time has passed.
    pub fn set(&self, ms: i64) {
        self.now.store(ms, Ordering::SeqCst);
    }

    /// Lets so many milliseconds pass.
    pub fn advance(&self, ms: i64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
        self.steady.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.now.load(Ordering::SeqCst)
    }

    fn steady_ms(&self) -> i64 {
        self.steady.load(Ordering::SeqCst)
    }
}

/// Tells what is old by a clock that somebody may set.
///
/// A clock that is set forward makes everything look older at once. Whatever is removed for its age would then be
/// removed too early, so the leap counts on top of that age until the age has really passed.
#[derive(Debug)]
pub(crate) struct Ages(Mutex<Seen>);

#[derive(Debug)]
struct Seen {
    now: i64,
    steady: i64,
    /// By how much the clock was set forward, in ms, and when by the steady clock.
    leap: i64,
    leapt: i64,
}

impl Ages {
    /// More than this between two looks is no correction of a drift, in ms.
    const LEAP: i64 = 60_000;

    /// From this moment on leaps are seen.
    pub(crate) fn new(clock: &dyn Clock) -> Self {
        Self(Mutex::new(Seen {
            now: clock.now_ms(),
            steady: clock.steady_ms(),
            leap: 0,
            leapt: 0,
        }))
    }

    /// What was last touched before this time, in ms since 1970, is older than `age` ms.
    pub(crate) fn older_than(&self, clock: &dyn Clock, age: i64) -> i64 {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, steady) = (clock.now_ms(), clock.steady_ms());
        let ahead = (now - seen.now) - (steady - seen.steady);
        (seen.now, seen.steady) = (now, steady);
        if ahead > Self::LEAP {
            tracing::warn!(
                seconds = ahead / 1_000,
                "the clock was set forward; nothing is removed for its age before that age has passed"
            );
            seen.leap(ahead, steady);
        }
        // Each age has to pass for itself.
        let leap = match steady - seen.leapt < age {
            true => seen.leap,
            false => 0,
        };
        now - age - leap
    }

    /// Time of which nobody knows whether it passed: the process did not run, or the clock was set meanwhile.
    pub(crate) fn leapt(&self, clock: &dyn Clock, by: i64) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.leap(by, clock.steady_ms());
    }

    /// For how long ages do not count yet, by the clock that nobody can set; `None`: they do.
    pub(crate) fn doubt(&self, clock: &dyn Clock, age: i64) -> Option<i64> {
        self.older_than(clock, age);
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = age - (clock.steady_ms() - seen.leapt);
        (seen.leap > 0 && left > 0).then_some(left)
    }
}

impl Seen {
    /// Longer than any age that is asked for, in ms.
    const LONG: i64 = 400 * 86_400_000;

    fn leap(&mut self, by: i64, steady: i64) {
        let before = match steady - self.leapt < Self::LONG {
            true => self.leap,
            false => 0,
        };
        (self.leap, self.leapt) = (before + by, steady);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_goes_where_it_is_told() {
        let clock = ManualClock::at(1_000);
        clock.advance(400);
        assert_eq!((clock.now_ms(), clock.steady_ms()), (1_400, 400));
        clock.set(5);
        assert_eq!((clock.now_ms(), clock.steady_ms()), (5, 400));
    }

    #[test]
    fn a_leap_makes_nothing_older() {
        const HOUR: i64 = 3_600_000;
        let clock = ManualClock::at(1_000 * HOUR);
        let ages = Ages::new(&clock);
        let age = |ages: &Ages| clock.now_ms() - ages.older_than(&clock, 10 * HOUR);
        clock.advance(HOUR);
        assert_eq!(age(&ages), 10 * HOUR);
        clock.set(clock.now_ms() + 500 * HOUR);
        assert_eq!(age(&ages), 510 * HOUR);
        clock.advance(9 * HOUR);
        assert_eq!(age(&ages), 510 * HOUR);
        // Whatever looks that old now has really been left alone for ten hours.
        clock.advance(HOUR);
        assert_eq!(age(&ages), 10 * HOUR);
        clock.set(1_000 * HOUR);
        assert_eq!(age(&ages), 10 * HOUR);
    }

    #[test]
    fn a_short_age_that_has_passed_ends_no_doubt_about_a_longer_one() {
        const HOUR: i64 = 3_600_000;
        let clock = ManualClock::at(1_000 * HOUR);
        let ages = Ages::new(&clock);
        ages.leapt(&clock, 500 * HOUR);
        clock.advance(2 * HOUR);
        let age = |hours: i64| clock.now_ms() - ages.older_than(&clock, hours * HOUR);
        assert_eq!((age(1), age(10)), (HOUR, 510 * HOUR));
        assert_eq!(ages.doubt(&clock, HOUR), None);
        assert_eq!(ages.doubt(&clock, 10 * HOUR), Some(8 * HOUR));
    }

    /// SQLite answers with the caller's own time: what is asked of is the manual clock itself.
    #[tokio::test]
    async fn a_shared_clock_goes_by_what_it_follows_and_a_leap_there_makes_nothing_older() {
        const HOUR: i64 = 3_600_000;
        let folder = tempfile::tempdir().unwrap();
        let options = wharf_meta::SqliteOptions::new(folder.path().join("meta.db"));
        let (meta, _) = Meta::open(options).unwrap();
        let own = Arc::new(ManualClock::at(1_000 * HOUR));
        let clock = SharedClock::new(own.clone(), &meta).await.unwrap();
        let ages = Ages::new(&clock);
        own.advance(HOUR);
        assert_eq!(clock.now_ms(), 1_001 * HOUR);
        // Nobody sees that a clock was set before looking at it.
        own.set(2_000 * HOUR);
        assert_eq!(clock.now_ms(), 1_001 * HOUR);
        clock.follow(&meta).await.unwrap();
        assert_eq!(clock.now_ms(), 2_000 * HOUR);
        let age = clock.now_ms() - ages.older_than(&clock, 10 * HOUR);
        assert_eq!(age, 1_009 * HOUR);
        assert!(ages.doubt(&clock, 10 * HOUR).is_some());
        meta.close().await;
    }

    #[test]
    fn the_steady_clock_of_the_system_goes_on() {
        let before = SystemClock.steady_ms();
        std::thread::sleep(std::time::Duration::from_millis(20));
        assert!(SystemClock.steady_ms() >= before + 20);
    }

    #[test]
    fn the_system_clock_is_past_2020() {
        assert!(SystemClock.now_ms() > 1_577_836_800_000);
    }
}
