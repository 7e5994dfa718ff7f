//! Each pair of operations that can be in each other's way, statement by statement on two connections: whatever the order
//! of the statements, what came of them is what one of the two orders of the operations gives, and neither has waited for
//! the other while that one waited for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_postgres::Client;
use wharf_meta::suite::pairs::{Pair, all, neutral, orders, seen};
use wharf_meta::test_server::shared;
use wharf_meta::{Gate, Meta, PostgresOptions};

use crate::connect;

const PATIENCE: Duration = Duration::from_secs(60);
/// More statements than any of the operations has before the other goes on.
const LONGEST: usize = 16;

/// One side: its gate, and what runs behind it.
struct Side {
    gate: Arc<Gate>,
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
    fn stands(&self) -> bool {
        self.gate.is_waiting() || self.task.is_finished()
    }

    /// Until it stands before its next statement, is done, or waits for the other. Whether it can go on.
    async fn settle(&self, watcher: &Client) -> bool {
        let started = Instant::now();
        while !self.stands() {
            if somebody_waits(watcher).await && !self.stands() {
                return false;
            }
            assert!(started.elapsed() < PATIENCE, "it hangs");
            tokio::time::sleep(Duration::from_micros(300)).await;
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
}

async fn gated(url: &str) -> (Meta, Arc<Gate>) {
    let gate = Gate::closed();
    // It lets the opening through by itself: that is no transaction of an operation.
    let options = PostgresOptions {
        gate: Some(Arc::clone(&gate)),
        ..PostgresOptions::new(url)
    };
    (Meta::connect(options).await.expect("a store").0, gate)
}

/// Lets the first run `before` statements, then the second all it can, then both to their end.
async fn interleaved(
    url: &str,
    plain: &Meta,
    watcher: &Client,
    pair: &Pair,
    first_is_one: bool,
    before: usize,
    label: &str,
) -> String {
    (pair.prepare)(plain.clone(), label.to_owned()).await;
    let side = async |work: fn(Meta, String) -> wharf_meta::suite::pairs::Doing| {
        let (meta, gate) = gated(url).await;
        let task = tokio::spawn(work(meta, label.to_owned()));
        Side { gate, task }
    };
    let (one, other) = (side(pair.one).await, side(pair.other).await);
    {
        let (first, second) = if first_is_one {
            (&one, &other)
        } else {
            (&other, &one)
        };
        first.run(before, watcher).await;
        second.run(LONGEST, watcher).await;
    }
    one.gate.open();
    other.gate.open();
    let (one, other) = (one.task.await.unwrap(), other.task.await.unwrap());
    neutral(&format!("{one}\n{other}\n"), label) + &seen(plain, label).await
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
        let mut met = BTreeMap::new();
        for first_is_one in [true, false] {
            for before in 1..LONGEST {
                let label = format!("p{at}x{first_is_one}x{before}n");
                let got =
                    interleaved(&url, &plain, &watcher, pair, first_is_one, before, &label).await;
                let order = serial.iter().position(|serial| *serial == got);
                if order.is_none() {
                    let first = if first_is_one { "the one" } else { "the other" };
                    wrong.entry(pair.name).or_insert(format!(
                        "{}: after {before} statements of {first}, no order gives\n{got}\nbut\n{}\nor\n{}",
                        pair.name, serial[0], serial[1],
                    ));
                }
                *met.entry(order).or_insert(0) += 1;
            }
        }
        // Both came first in some of them, or the gates did nothing; unless the order cannot be seen.
        if met.len() < 2 && serial[0] != serial[1] {
            wrong
                .entry(pair.name)
                .or_insert(format!("{}: {met:?}", pair.name));
        }
        plain.close().await;
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
