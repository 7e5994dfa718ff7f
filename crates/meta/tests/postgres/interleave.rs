//! Each pair of operations that can be in each other's way, statement by statement on two connections: whatever the order
//! of the statements, what came of them is what one of the two orders of the operations gives, and neither has waited for
//! the other while that one waited for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_postgres::Client;
use wharf_meta::suite::pairs::record::{HOLD, bytes_are_lost, let_go};
use wharf_meta::suite::pairs::{Doing, Pair, all, neutral, orders, seen};
use wharf_meta::test_server::shared;
use wharf_meta::{Gate, Meta, PostgresOptions};

use crate::connect;

const PATIENCE: Duration = Duration::from_secs(60);
/// More statements than any of the operations has.
const LONGEST: usize = 40;
/// Longer than most statements take; whoever takes longer may wait for a lock.
const SHORT: Duration = Duration::from_millis(1);

/// One side: a store of its own whose transactions pass a gate. It lives as long as its pair: opening it takes longer than an
/// operation, and as each run has names of its own, nothing that a run left is found by the next one.
struct Side {
    meta: Meta,
    gate: Arc<Gate>,
}

/// What runs behind a side's gate.
struct Work<'s> {
    gate: &'s Gate,
    is_done: Arc<AtomicBool>,
    task: JoinHandle<String>,
}

/// Whether a transaction of the database waits for another one.
async fn somebody_waits(watcher: &Client) -> bool {
    let row = watcher
        .query_one(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
            &[],
        )
        .await
        .expect("activity");
    row.get::<_, i64>(0) > 0
}

impl Side {
    async fn new(url: &str) -> Side {
        let gate = Gate::closed();
        // It lets the opening through by itself: that is no transaction of an operation.
        let options = PostgresOptions {
            gate: Some(Arc::clone(&gate)),
            ..PostgresOptions::new(url)
        };
        let (meta, _) = Meta::connect(options).await.expect("a store");
        Side { meta, gate }
    }

    fn begin(&self, doing: fn(Meta, String) -> Doing, label: &str) -> Work<'_> {
        let is_done = Arc::new(AtomicBool::new(false));
        let (doing, done) = (doing(self.meta.clone(), label.to_owned()), is_done.clone());
        let gate = Arc::clone(&self.gate);
        let task = tokio::spawn(async move {
            let said = doing.await;
            done.store(true, Ordering::SeqCst);
            gate.tell();
            said
        });
        Work {
            gate: &self.gate,
            is_done,
            task,
        }
    }
}

impl Work<'_> {
    /// Whether there is nothing more to let through; what panicked is done, too.
    fn is_done(&self) -> bool {
        self.is_done.load(Ordering::SeqCst) || self.task.is_finished()
    }

    fn stands(&self) -> bool {
        self.gate.is_waiting() || self.is_done()
    }

    /// Until it stands before its next statement, is done, or waits for the other. Whether it can go on.
    async fn settle(&self, watcher: &Client) -> bool {
        let started = Instant::now();
        while !self.stands() {
            let news = tokio::time::timeout(SHORT, self.gate.news()).await;
            if news.is_err() && somebody_waits(watcher).await && !self.stands() {
                return false;
            }
            assert!(started.elapsed() < PATIENCE, "it hangs");
        }
        self.gate.is_waiting()
    }

    /// Runs so many statements, or fewer when it is done or must wait.
    async fn run(&self, statements: usize, watcher: &Client) {
        for _ in 0..statements {
            if !self.settle(watcher).await {
                return;
            }
            self.gate.step();
        }
        self.settle(watcher).await;
    }

    /// Runs what is left of it.
    async fn finish(self) -> String {
        let said = self.task.await.expect("no panic");
        self.gate.close();
        said
    }
}

/// Lets the first run `before` statements, then the second all it can, then both to their end. Also tells whether the first
/// was over before the second began: then it is over after one more statement, too, and all is the same.
async fn interleaved(
    (one, other): (&Side, &Side),
    plain: &Meta,
    watcher: &Client,
    pair: &Pair,
    first_is_one: bool,
    before: usize,
    label: &str,
) -> (String, bool) {
    (pair.prepare)(plain.clone(), label.to_owned()).await;
    let (one, other) = (one.begin(pair.one, label), other.begin(pair.other, label));
    let (first, second) = if first_is_one {
        (&one, &other)
    } else {
        (&other, &one)
    };
    first.run(before, watcher).await;
    let was_over = first.is_done();
    second.run(LONGEST, watcher).await;
    one.gate.open();
    other.gate.open();
    // Both at once: what waits for the other may wait for its end.
    let (one, other) = tokio::join!(one.finish(), other.finish());
    let got = neutral(&format!("{one}\n{other}\n"), label) + &seen(plain, pair, label).await;
    (got, was_over)
}

async fn every_way(share: usize, shares: usize) {
    let database = shared().database();
    let url = database.url();
    let (watcher, driver) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(driver);
    let (mut wrong, mut waited) = (BTreeMap::new(), 0);
    for (at, pair) in all().enumerate().filter(|(at, _)| at % shares == share) {
        let plain = connect(&database).await;
        let serial = orders(&plain, pair, &format!("s{at}n")).await;
        let (one, other) = (Side::new(&url).await, Side::new(&url).await);
        let mut met = BTreeMap::new();
        for first_is_one in [true, false] {
            for before in 1.. {
                assert!(before < LONGEST, "{}: it never ends", pair.name);
                let label = format!("p{at}x{first_is_one}x{before}n");
                let sides = (&one, &other);
                let (got, was_over) =
                    interleaved(sides, &plain, &watcher, pair, first_is_one, before, &label).await;
                let order = serial.iter().position(|serial| *serial == got);
                if order.is_none() {
                    let first = if first_is_one { "the one" } else { "the other" };
                    wrong.entry(pair.name).or_insert(format!(
                        "{}: after {before} statements of {first}, no order gives\n{got}\nbut\n{}\nor\n{}",
                        pair.name, serial[0], serial[1],
                    ));
                }
                *met.entry(order).or_insert(0) += 1;
                if was_over {
                    break;
                }
            }
        }
        // Both came first in some of them, or the gates did nothing; unless the order cannot be seen.
        if met.len() < 2 && serial[0] != serial[1] {
            wrong
                .entry(pair.name)
                .or_insert(format!("{}: {met:?}", pair.name));
        }
        for meta in [plain, one.meta, other.meta] {
            meta.close().await;
        }
        let more = deadlocks(&watcher).await;
        if more > waited {
            let times = more - waited;
            wrong.insert(
                pair.name,
                format!("{}: each waited for the other, {times} times", pair.name),
            );
            waited = more;
        }
    }
    let wrong: Vec<String> = wrong.into_values().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// A backup's hold and the removal of bytes: whatever the order of their statements, no bytes go that the backup has seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_a_backup_has_seen_stay() {
    let database = shared().database();
    let url = database.url();
    let (watcher, driver) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(driver);
    let plain = connect(&database).await;
    let (one, other) = (Side::new(&url).await, Side::new(&url).await);
    let mut met = BTreeSet::new();
    for first_is_one in [true, false] {
        for before in 1..LONGEST {
            let label = format!("h{first_is_one}x{before}n");
            let sides = (&one, &other);
            let (got, was_over) =
                interleaved(sides, &plain, &watcher, &HOLD, first_is_one, before, &label).await;
            assert!(!bytes_are_lost(&got), "after {before} statements: {got}");
            met.extend(got.lines().take(2).map(str::to_owned));
            let_go(&plain, &label).await;
            if was_over {
                break;
            }
        }
    }
    // Each of them came first in some.
    for word in ["seen true", "seen false", "taken true", "taken false"] {
        assert!(met.contains(word), "{word}: {met:?}");
    }
    for meta in [plain, one.meta, other.meta] {
        meta.close().await;
    }
}

/// How often two transactions of the database waited for each other, once everybody else has left it.
async fn deadlocks(watcher: &Client) -> i64 {
    let started = Instant::now();
    loop {
        let row = watcher
            .query_one(
                "SELECT d.deadlocks, (SELECT count(*) FROM pg_stat_activity a WHERE a.datid = d.datid) \
                 FROM pg_stat_database d WHERE d.datname = current_database()",
                &[],
            )
            .await
            .expect("statistics");
        if row.get::<_, i64>(1) == 1 {
            return row.get(0);
        }
        assert!(started.elapsed() < PATIENCE, "somebody stays");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

macro_rules! shares {
    ($($name:ident: $share:literal),*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            every_way($share, 4).await;
        }
    )*};
}

// In parts, so that they run beside each other.
shares!(every_pair_first_part: 0, every_pair_second_part: 1, every_pair_third_part: 2, every_pair_fourth_part: 3);
