//! PostgreSQL: the shared suite, and what is its own.

use wharf_meta::suite::Store;
use wharf_meta::test_server::{TestDatabase, shared};
use wharf_meta::{Meta, PostgresOptions};

/// Connects to a database.
async fn connect(database: &TestDatabase) -> Meta {
    Meta::connect(PostgresOptions::new(database.url()))
        .await
        .expect("a store")
        .0
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
        ..PostgresOptions::new(database.url())
    };
    Store {
        meta: now(Meta::connect(options)).expect("a store").0,
        keep: Box::new(database),
    }
}

wharf_meta::meta_suite!(postgres, make);
wharf_meta::meta_suite!(unnamed, make_unnamed);
