//! PostgreSQL: the shared suite, and what is its own.

mod broken;
mod copy;
mod interleave;
mod statements;

use wharf_meta::suite::Store;
use wharf_meta::test_server::{TestDatabase, shared};
use wharf_meta::{Meta, PostgresOptions};

/// Connects to a database.
async fn connect(database: &TestDatabase) -> Meta {
    let options = PostgresOptions {
        caller_clock: true,
        ..PostgresOptions::new(database.url())
    };
    Meta::connect(options).await.expect("a store").0
}

/// Runs a future from within a test that is already on a runtime.
fn now<F: Future>(future: F) -> F::Output {
    tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(future))
}

/// An empty store in a database of its own.
fn make() -> Store {
    let database = shared().database();
    Store {
        meta: now(connect(&database)),
        keep: Box::new(database),
    }
}

/// The same without statements that are prepared by name, as behind PgBouncer.
fn make_unnamed() -> Store {
    let database = shared().database();
    let options = PostgresOptions {
        prepared: false,
        caller_clock: true,
        ..PostgresOptions::new(database.url())
    };
    Store {
        meta: now(Meta::connect(options)).expect("a store").0,
        keep: Box::new(database),
    }
}

wharf_meta::meta_suite!(postgres, make);
wharf_meta::meta_suite!(unnamed, make_unnamed);

/// A lease is decided by the server's clock, whatever the worker's says.
#[test]
fn leases_go_by_the_clock_of_the_database() {
    use wharf_meta::job::{Add, Take, Wanted};
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let database = shared().database();
        let options = PostgresOptions::new(database.url());
        let meta = Meta::connect(options).await.expect("a store").0;
        let add = Add {
            kind: "a".into(),
            unique_key: None,
            payload: "{}".into(),
            priority: 0,
            run_at: 0,
            max_attempts: 9,
            at: 0,
        };
        meta.write(add).await.expect("a job");
        let take = |at| Take {
            kinds: vec![Wanted {
                kind: "a".into(),
                limit: 1,
            }],
            worker: "w".into(),
            lease: 3_600_000,
            at,
        };
        let taken = meta
            .write(take(1))
            .await
            .expect("an answer")
            .expect("the job");
        assert!(taken.lease_until > Some(1_600_000_000_000), "{taken:?}");
        // A worker whose clock is a century ahead.
        let ahead = meta
            .write(take(5_000_000_000_000))
            .await
            .expect("an answer");
        assert_eq!(ahead, None);
        meta.close().await;
    });
}
