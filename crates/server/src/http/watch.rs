//! Ends what stalls: one task looks at all connections and HTTP/2 streams now and then.
//!
//! A timer per request would cost more than the request. So connections only leave marks (plain stores into their
//! [`Watched`]), and one task compares the marks with the [`Limits`]; what is over gets a [`Verdict`] and is woken to
//! read it. Times are therefore exact only to the task's period, a quarter of the smallest limit and at most a second.

use std::collections::HashMap;
use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use super::limits::Limits;
use super::observer::ConnectionEnd;

/// So many locks that accepting and looking hardly ever meet.
const SHARDS: usize = 16;
/// How long a connection that was asked to close may take.
const CLOSING: Duration = Duration::from_secs(10);
/// During a shutdown, a connection that is not older than this and has not asked anything yet may still do so: a proxy connects for
/// each request and sends it at once, and one that was closed under it would be a 502 for whoever is behind. One that stays
/// silent holds up the end for so long. Times are as of the last look, at most a second old.
const FRESH: Duration = Duration::from_secs(2);

/// What is to become of a connection or stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Stay,
    /// Finish what runs, then close.
    Close(ConnectionEnd),
    /// Drop it.
    Kill(ConnectionEnd),
}

impl Verdict {
    const ALL: [Self; 8] = [
        Self::Stay,
        Self::Close(ConnectionEnd::Idle),
        Self::Close(ConnectionEnd::Done),
        Self::Close(ConnectionEnd::Shutdown),
        Self::Kill(ConnectionEnd::HeaderTimeout),
        Self::Kill(ConnectionEnd::Stalled),
        Self::Kill(ConnectionEnd::Resets),
        Self::Kill(ConnectionEnd::Shutdown),
    ];

    fn code(self) -> u8 {
        Self::ALL
            .iter()
            .position(|other| *other == self)
            .unwrap_or(0) as u8
    }
}

/// The marks of one connection, or of one HTTP/2 stream. All times are the watch's milliseconds.
#[derive(Debug)]
pub(super) struct Watched {
    clock: Arc<Clock>,
    /// Requests being answered.
    active: AtomicU32,
    /// There was a request.
    asked: AtomicBool,
    /// When the connection became idle, or the unfinished head began.
    since: AtomicU64,
    /// A head has begun and not ended.
    in_head: AtomicBool,
    /// Bytes written so far, and whether we could write more if the client took it.
    written: AtomicU64,
    blocked: AtomicBool,
    /// The watch's own: where `written` stood when it was first seen blocked. `u64::MAX`: not seen blocked.
    mark: AtomicU64,
    mark_at: AtomicU64,
    /// The largest piece that was handed over at once, which a slow client may take its time for.
    piece: AtomicU64,
    verdict: AtomicU8,
    verdict_at: AtomicU64,
    waker: OnceLock<Waker>,
    nap: AtomicU8,
    /// The socket had nothing more to read when it was last asked.
    drained: AtomicBool,
}

/// Values of [`Watched::nap`].
const WIDE_AWAKE: u8 = 0;
const MAY_NAP: u8 = 1;
const SHOULD_NAP: u8 = 2;
/// How long a connection must have been idle before it gives up its buffers.
const NAP: Duration = Duration::from_secs(1);
/// With more connections than this, they give up their buffers whenever they have nothing to do: ten thousand that each
/// ask once a second would hold theirs all the time. Getting them anew costs a request about a microsecond.
const CROWD: usize = 256;

impl Watched {
    fn new(clock: Arc<Clock>) -> Self {
        Self {
            active: AtomicU32::new(0),
            asked: AtomicBool::new(false),
            since: AtomicU64::new(clock.now()),
            clock,
            in_head: AtomicBool::new(false),
            written: AtomicU64::new(0),
            blocked: AtomicBool::new(false),
            mark: AtomicU64::new(u64::MAX),
            mark_at: AtomicU64::new(0),
            piece: AtomicU64::new(0),
            verdict: AtomicU8::new(0),
            verdict_at: AtomicU64::new(0),
            waker: OnceLock::new(),
            nap: AtomicU8::new(WIDE_AWAKE),
            drained: AtomicBool::new(false),
        }
    }

    /// The task to wake for a verdict. Only the first call counts: a task keeps its waker.
    pub(super) fn wake_with(&self, waker: &Waker) {
        if self.waker.get().is_none() {
            let _ = self.waker.set(waker.clone());
        }
    }

    pub(super) fn verdict(&self) -> Verdict {
        Verdict::ALL[usize::from(self.verdict.load(Relaxed))]
    }

    /// Sets a verdict, unless it stands already or a kill does, and wakes the task.
    pub(super) fn judge(&self, verdict: Verdict) {
        let standing = self.verdict();
        if standing == verdict || matches!(standing, Verdict::Kill(_)) {
            return;
        }
        self.verdict_at.store(self.clock.now(), Relaxed);
        self.verdict.store(verdict.code(), Relaxed);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    /// From here on the connection would like to know when it is idle for longer.
    pub(super) fn may_nap(&self) {
        self.nap.store(MAY_NAP, Relaxed);
    }

    /// Whether it is, or need not be so for long among so many. Never with a request or an answer under way, nor with
    /// bytes that were not read: those of an encrypted socket would announce themselves to nobody.
    pub(super) fn should_nap(&self) -> bool {
        self.is_idle()
            && !self.blocked.load(Relaxed)
            && self.drained.load(Relaxed)
            && (self.nap.load(Relaxed) == SHOULD_NAP || self.clock.registered.load(Relaxed) > CROWD)
    }

    /// Whether the socket, when it was read last, had nothing more.
    pub(super) fn drained(&self, drained: bool) {
        self.drained.store(drained, Relaxed);
    }

    /// The first bytes of a head came, but not all.
    pub(super) fn head_begins(&self) {
        if !self.in_head.load(Relaxed) {
            self.since.store(self.clock.now(), Relaxed);
            self.in_head.store(true, Relaxed);
        }
    }

    pub(super) fn request_begins(&self) {
        self.in_head.store(false, Relaxed);
        self.active.fetch_add(1, Relaxed);
        self.asked.store(true, Relaxed);
        // Those that had not asked anything were spared: this one is answered, and told that it is the last.
        if self.clock.closing.load(Relaxed) {
            self.judge(Verdict::Close(ConnectionEnd::Shutdown));
        }
    }

    pub(super) fn request_ends(&self) {
        // The time first: the watch must not see an idle connection with an old time.
        if !self.in_head.load(Relaxed) {
            self.since.store(self.clock.now(), Relaxed);
        }
        self.active.fetch_sub(1, Relaxed);
    }

    /// The client took `bytes`.
    pub(super) fn wrote(&self, bytes: usize) {
        let written = self.written.load(Relaxed);
        self.written.store(written + bytes as u64, Relaxed);
        self.blocked.store(false, Relaxed);
    }

    /// There is more to write, and the client does not take it.
    pub(super) fn blocks(&self) {
        self.blocked.store(true, Relaxed);
    }

    /// A piece of an answer was handed over; the next one is asked for when the client took it.
    pub(super) fn handed_over(&self, bytes: usize) {
        self.piece.fetch_max(bytes as u64, Relaxed);
        self.wrote(bytes);
        self.blocks();
    }

    /// Nothing is owed to the client just now.
    pub(super) fn unblocks(&self) {
        self.blocked.store(false, Relaxed);
    }

    fn is_idle(&self) -> bool {
        self.active.load(Relaxed) == 0
    }

    /// Whether it may yet send a request that was on its way before anybody could know of the shutdown.
    fn is_fresh(&self, now: u64) -> bool {
        let age = now.saturating_sub(self.since.load(Relaxed));
        !self.asked.load(Relaxed) && age <= millis(FRESH)
    }

    fn look(&self, now: u64, rules: &Rules) {
        let age = now.saturating_sub(self.since.load(Relaxed));
        match self.verdict() {
            Verdict::Stay if self.clock.closing.load(Relaxed) => {
                if !self.is_fresh(now) {
                    self.judge(Verdict::Close(ConnectionEnd::Shutdown));
                }
            }
            Verdict::Kill(_) => return,
            Verdict::Close(end) => {
                let asked = now.saturating_sub(self.verdict_at.load(Relaxed));
                if self.is_idle() && asked > millis(CLOSING) && end != ConnectionEnd::Shutdown {
                    self.judge(Verdict::Kill(ConnectionEnd::Stalled));
                }
            }
            Verdict::Stay if !self.is_idle() => {}
            Verdict::Stay if self.in_head.load(Relaxed) => {
                if age > rules.header_time {
                    self.judge(Verdict::Kill(ConnectionEnd::HeaderTimeout));
                }
            }
            Verdict::Stay => {
                if age > rules.keep_alive {
                    self.judge(Verdict::Close(ConnectionEnd::Idle));
                } else if age > millis(NAP) && self.nap.load(Relaxed) == MAY_NAP {
                    self.nap.store(SHOULD_NAP, Relaxed);
                    self.wake();
                }
            }
        }
        self.look_at_writing(now, rules);
    }

    fn look_at_writing(&self, now: u64, rules: &Rules) {
        let written = self.written.load(Relaxed);
        let mark = self.mark.load(Relaxed);
        if !self.blocked.load(Relaxed) {
            self.mark.store(u64::MAX, Relaxed);
        } else if mark == u64::MAX {
            self.mark.store(written, Relaxed);
            self.mark_at.store(now, Relaxed);
        } else {
            let took = now.saturating_sub(self.mark_at.load(Relaxed));
            let piece = self.piece.load(Relaxed);
            let window = rules.write_window.max(piece / rules.bytes_per_milli);
            if took < window {
                return;
            }
            if written - mark < rules.write_bytes {
                self.judge(Verdict::Kill(ConnectionEnd::Stalled));
            } else {
                self.mark.store(written, Relaxed);
                self.mark_at.store(now, Relaxed);
            }
        }
    }
}

/// The limits in the watch's own units.
#[derive(Debug)]
struct Rules {
    header_time: u64,
    keep_alive: u64,
    write_window: u64,
    write_bytes: u64,
    bytes_per_milli: u64,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Time as of the last look, how many there are to look at, and whether this is the end; reading it costs nothing.
#[derive(Debug)]
struct Clock {
    start: Instant,
    now: AtomicU64,
    registered: AtomicUsize,
    closing: AtomicBool,
}

impl Clock {
    fn now(&self) -> u64 {
        self.now.load(Relaxed)
    }

    fn advance(&self) -> u64 {
        let now = millis(self.start.elapsed());
        self.now.store(now, Relaxed);
        now
    }
}

/// All connections and streams of a server.
#[derive(Debug)]
pub(super) struct Watch {
    clock: Arc<Clock>,
    rules: Rules,
    period: Duration,
    next: AtomicU64,
    shards: [Mutex<HashMap<u64, Arc<Watched>>>; SHARDS],
}

/// Keeps something in the watch until dropped.
#[derive(Debug)]
pub(super) struct Registration {
    watch: Arc<Watch>,
    id: u64,
    pub(super) watched: Arc<Watched>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.watch.shard(self.id).remove(&self.id);
        self.watch.clock.registered.fetch_sub(1, Relaxed);
    }
}

impl Watch {
    pub(super) fn new(limits: &Limits) -> Self {
        let progress = limits.body_progress;
        let smallest = limits
            .header_time
            .min(limits.keep_alive)
            .min(progress.window);
        Self {
            clock: Arc::new(Clock {
                start: Instant::now(),
                now: AtomicU64::new(0),
                registered: AtomicUsize::new(0),
                closing: AtomicBool::new(false),
            }),
            rules: Rules {
                header_time: millis(limits.header_time),
                keep_alive: millis(limits.keep_alive),
                write_window: millis(progress.window),
                write_bytes: progress.bytes_per_window(),
                bytes_per_milli: (progress.bytes_per_second / 1000).max(1),
            },
            period: (smallest / 4).clamp(Duration::from_millis(5), Duration::from_secs(1)),
            next: AtomicU64::new(0),
            shards: Default::default(),
        }
    }

    fn shard(&self, id: u64) -> MutexGuard<'_, HashMap<u64, Arc<Watched>>> {
        let shard = &self.shards[(id % SHARDS as u64) as usize];
        match shard.lock() {
            Ok(shard) => shard,
            Err(poisoned) => poisoned.into_inner(),
        }
    }

    pub(super) fn register(self: &Arc<Self>) -> Registration {
        let id = self.next.fetch_add(1, Relaxed);
        if self.clock.closing.load(Relaxed) {
            // From now on, and not from the last look on, it is fresh.
            self.clock.advance();
        }
        let watched = Arc::new(Watched::new(Arc::clone(&self.clock)));
        self.clock.registered.fetch_add(1, Relaxed);
        self.shard(id).insert(id, Arc::clone(&watched));
        Registration {
            watch: Arc::clone(self),
            id,
            watched,
        }
    }

    /// Looks at everything, for ever. Dropping the future ends it.
    pub(super) async fn run(&self) {
        let mut ticks = tokio::time::interval(self.period);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = self.clock.advance();
            for shard in 0..SHARDS as u64 {
                for watched in self.shard(shard).values() {
                    watched.look(now, &self.rules);
                }
                // Ten thousand connections take longer than a task may hold its thread.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Asks everything to end: what runs may finish, and what is fresh may ask once. The next looks see to the rest.
    pub(super) fn close_all(&self) {
        let now = self.clock.advance();
        self.clock.closing.store(true, Relaxed);
        for shard in 0..SHARDS as u64 {
            for watched in self.shard(shard).values() {
                if !watched.is_fresh(now) {
                    watched.judge(Verdict::Close(ConnectionEnd::Shutdown));
                }
            }
        }
    }

    /// Ends everything at once; tells how much there was.
    pub(super) fn kill_all(&self) -> usize {
        self.clock.closing.store(true, Relaxed);
        let mut count = 0;
        for shard in 0..SHARDS as u64 {
            for watched in self.shard(shard).values() {
                watched.judge(Verdict::Kill(ConnectionEnd::Shutdown));
                count += 1;
            }
        }
        count
    }

    /// Asks connections that have been idle for `age` to close, as many as `count`: others are waiting for their place.
    pub(super) fn shed(&self, age: Duration, mut count: usize) {
        let now = self.clock.advance();
        for shard in 0..SHARDS as u64 {
            for watched in self.shard(shard).values() {
                let idle = now.saturating_sub(watched.since.load(Relaxed));
                if count > 0
                    && watched.is_idle()
                    && idle >= millis(age)
                    && watched.verdict() == Verdict::Stay
                {
                    watched.judge(Verdict::Close(ConnectionEnd::Idle));
                    count -= 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::limits::Progress;

    fn watch() -> Arc<Watch> {
        Arc::new(Watch::new(&Limits {
            header_time: Duration::from_secs(30),
            keep_alive: Duration::from_secs(120),
            body_progress: Progress {
                bytes_per_second: 1000,
                window: Duration::from_secs(60),
            },
            ..Limits::default()
        }))
    }

    fn at(watch: &Watch, watched: &Watched, seconds: u64) -> Verdict {
        watch.clock.now.store(seconds * 1000, Relaxed);
        watched.look(seconds * 1000, &watch.rules);
        watched.verdict()
    }

    #[test]
    fn heads_and_pauses_have_their_own_limits() {
        let watch = watch();
        let one = watch.register();
        let it = &one.watched;
        assert_eq!(at(&watch, it, 119), Verdict::Stay);
        it.head_begins();
        assert_eq!(at(&watch, it, 149), Verdict::Stay);
        // Further bytes of the same head do not begin anew.
        it.head_begins();
        assert_eq!(
            at(&watch, it, 150),
            Verdict::Kill(ConnectionEnd::HeaderTimeout)
        );
        let two = watch.register();
        let it = &two.watched;
        it.request_begins();
        assert_eq!(at(&watch, it, 1000), Verdict::Stay);
        it.request_ends();
        assert_eq!(at(&watch, it, 1120), Verdict::Stay);
        assert_eq!(at(&watch, it, 1121), Verdict::Close(ConnectionEnd::Idle));
        assert_eq!(at(&watch, it, 1140), Verdict::Kill(ConnectionEnd::Stalled));
    }

    #[test]
    fn only_those_that_may_and_idle_should_nap() {
        let watch = watch();
        let one = watch.register();
        let it = &one.watched;
        it.drained(true);
        assert_eq!(at(&watch, it, 5), Verdict::Stay);
        assert!(!it.should_nap());
        it.may_nap();
        it.request_begins();
        assert_eq!(at(&watch, it, 10), Verdict::Stay);
        assert!(!it.should_nap());
        it.request_ends();
        assert_eq!(at(&watch, it, 11), Verdict::Stay);
        assert!(!it.should_nap());
        assert_eq!(at(&watch, it, 12), Verdict::Stay);
        assert!(it.should_nap());
        it.blocks();
        assert!(!it.should_nap());
        it.unblocks();
        it.drained(false);
        assert!(!it.should_nap());
    }

    #[test]
    fn in_a_crowd_idle_connections_need_not_wait() {
        let watch = watch();
        let one = watch.register();
        let it = &one.watched;
        it.drained(true);
        let crowd: Vec<Registration> = (0..CROWD).map(|_| watch.register()).collect();
        assert!(it.should_nap());
        it.request_begins();
        assert!(!it.should_nap());
        it.request_ends();
        assert!(it.should_nap());
        it.drained(false);
        assert!(!it.should_nap());
        it.drained(true);
        drop(crowd);
        assert!(!it.should_nap());
    }

    #[test]
    fn slow_takers_stay_and_stalled_ones_go() {
        let watch = watch();
        let one = watch.register();
        let it = &one.watched;
        it.request_begins();
        let mut now = 0;
        for _ in 0..10 {
            it.wrote(60_000);
            it.blocks();
            assert_eq!(at(&watch, it, now), Verdict::Stay);
            now += 60;
        }
        it.wrote(59_000);
        it.blocks();
        assert_eq!(at(&watch, it, now), Verdict::Kill(ConnectionEnd::Stalled));
    }

    #[test]
    fn a_large_piece_gives_more_time() {
        let watch = watch();
        let one = watch.register();
        let it = &one.watched;
        it.request_begins();
        it.handed_over(256 * 1024);
        assert_eq!(at(&watch, it, 1), Verdict::Stay);
        assert_eq!(at(&watch, it, 262), Verdict::Stay);
        assert_eq!(at(&watch, it, 264), Verdict::Kill(ConnectionEnd::Stalled));
    }

    #[test]
    fn waiting_for_our_own_disk_is_not_their_fault() {
        let watch = watch();
        let one = watch.register();
        let it = &one.watched;
        it.request_begins();
        it.handed_over(10);
        assert_eq!(at(&watch, it, 1), Verdict::Stay);
        it.unblocks();
        assert_eq!(at(&watch, it, 59), Verdict::Stay);
        assert_eq!(at(&watch, it, 1000), Verdict::Stay);
    }

    #[test]
    fn a_shutdown_ends_all_but_those_who_only_just_came() {
        let watch = watch();
        let close = Verdict::Close(ConnectionEnd::Shutdown);
        let (idle, busy) = (watch.register(), watch.register());
        idle.watched.request_begins();
        idle.watched.request_ends();
        busy.watched.request_begins();
        let fresh = watch.register();
        watch.close_all();
        let late = watch.register();
        for one in [&idle, &busy] {
            assert_eq!(one.watched.verdict(), close);
        }
        for one in [&fresh, &late] {
            assert_eq!(at(&watch, &one.watched, 2), Verdict::Stay);
        }
        // One asks, and hears that this was the last; the other has nothing to say.
        late.watched.request_begins();
        assert_eq!(late.watched.verdict(), close);
        assert_eq!(at(&watch, &fresh.watched, 3), close);
        drop(idle);
        assert_eq!(watch.kill_all(), 3);
        assert_eq!(
            busy.watched.verdict(),
            Verdict::Kill(ConnectionEnd::Shutdown)
        );
    }

    #[test]
    fn only_idle_ones_make_room() {
        let watch = watch();
        let (idle, busy) = (watch.register(), watch.register());
        busy.watched.request_begins();
        watch.shed(Duration::ZERO, 10);
        assert_eq!(idle.watched.verdict(), Verdict::Close(ConnectionEnd::Idle));
        assert_eq!(busy.watched.verdict(), Verdict::Stay);
    }
}
