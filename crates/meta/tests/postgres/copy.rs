//! From one engine to the other and back: nothing is missing, and both go on from there. And events of another server.

use std::path::Path;
use std::time::{Duration, Instant};

use wharf_meta::event::{EventRow, Next, Seen};
use wharf_meta::manifest::Put;
use wharf_meta::repository::GetTotals;
use wharf_meta::suite::{edge, events, publish_key, push, push_blob, put};
use wharf_meta::test_server::shared;
use wharf_meta::{Copied, Error, Meta, Result, SqliteOptions};
use wharf_oci::EdgeKind;

use crate::connect;

/// Longest wait for transactions that others have open.
const PATIENCE: Duration = Duration::from_secs(60);

async fn copy(from: &Meta, to: &Meta) -> Result<Vec<Copied>> {
    from.copy_to(to, &mut |_, _, _| {}).await
}

fn sqlite(path: &Path) -> Meta {
    Meta::open(SqliteOptions::new(path)).unwrap().0
}

async fn next(meta: &Meta, consumer: &str) -> Vec<EventRow> {
    let consumer = consumer.to_owned();
    meta.scan(Next {
        consumer,
        limit: 1000,
    })
    .await
    .unwrap()
}

/// What a consumer is given as soon as all transactions of the server that were open are over.
async fn until(meta: &Meta, consumer: &str, count: usize) -> Vec<EventRow> {
    let started = Instant::now();
    loop {
        let seen = next(meta, consumer).await;
        if seen.len() >= count {
            return seen;
        }
        assert!(started.elapsed() < PATIENCE, "{} of {count}", seen.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn seen(meta: &Meta, consumer: &str, event: &EventRow) {
    let op = Seen {
        consumer: consumer.to_owned(),
        transaction: event.transaction,
        id: event.id,
        at: 1,
    };
    meta.write(op).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_goes_to_sqlite_and_back_whole() {
    let database = shared().database();
    let from = connect(&database).await;
    for n in 0..60 {
        let text = format!("blob {n}");
        let blob = push_blob(&from, "a", &text).await;
        let op = Put {
            edges: vec![edge(EdgeKind::Layer, &blob, text.len() as u64)],
            ..put("a", format!("m{n}"), &[&format!("t{n}"), "latest"])
        };
        push(&from, op).await;
    }
    from.write(publish_key("b", "x", "key")).await.unwrap();
    let all = until(&from, "half", 1).await;
    seen(&from, "half", &all[all.len() / 2]).await;
    let unseen = all.len() - all.len() / 2 - 1;
    let (totals, kinds) = (from.read(GetTotals).await.unwrap(), events(&from).await);

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wharf.db");
    from.snapshot_into(&path).await.unwrap();
    let file = sqlite(&path);
    assert_eq!(file.read(GetTotals).await.unwrap(), totals);
    assert_eq!(events(&file).await, kinds);
    assert!(file.integrity().await.unwrap().is_empty());
    assert!(next(&file, "half").await.len() >= unseen);

    let second = shared().database();
    let back = connect(&second).await;
    copy(&file, &back).await.unwrap();
    assert_eq!(back.read(GetTotals).await.unwrap(), totals);
    assert_eq!(events(&back).await, kinds);
    // Old events are there at once, and nothing that was not seen is taken for seen.
    assert!(next(&back, "half").await.len() >= unseen);
    assert_eq!(next(&back, "new").await.len(), kinds.len());
    // Ids go on behind those that came.
    push(&back, put("a", "after", &["latest"])).await;
    push(&file, put("a", "after", &["latest"])).await;
    until(&back, "new", kinds.len() + 1).await;
    // A store that holds something is no target.
    let error = copy(&from, &back).await.unwrap_err();
    assert!(matches!(error, Error::Setup { .. }), "{error}");
    for meta in [from, file, back] {
        meta.close().await;
    }
}

/// Fills every table of an SQLite store with rows of its own, whatever its columns mean.
fn fill(path: &Path, rows: usize) -> Vec<String> {
    let connection = rusqlite::Connection::open(path).unwrap();
    let names = |sql: &str| -> Vec<(String, String, bool)> {
        let mut statement = connection.prepare(sql).unwrap();
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .unwrap();
        rows.map(|row| row.unwrap()).collect()
    };
    let tables = names(
        "SELECT name, '', 0 FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'migration'",
    );
    for (table, ..) in &tables {
        let columns = names(&format!(
            "SELECT name, type, \"notnull\" OR pk > 0 FROM pragma_table_info('{table}')"
        ));
        for row in 0..rows {
            let values: Vec<String> = columns
                .iter()
                .map(|(name, kind, needed)| match kind.as_str() {
                    _ if !needed && row % 3 == 0 => "NULL".to_owned(),
                    "INTEGER" => (row + 1).to_string(),
                    "BLOB" => format!("CAST('{:016}' AS BLOB)", row * 7919 % 1000),
                    _ => format!("'{name} {}'", row * 7919 % 1000),
                })
                .collect();
            let sql = format!("INSERT INTO {table} VALUES ({})", values.join(", "));
            connection.execute(&sql, []).unwrap();
        }
    }
    tables.into_iter().map(|(table, ..)| table).collect()
}

/// Rows in every table, of more than one page, come over; but for what processes say of themselves.
#[tokio::test(flavor = "multi_thread")]
async fn no_table_is_left_behind() {
    const ROWS: usize = 270;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wharf.db");
    sqlite(&path).close().await;
    let tables = fill(&path, ROWS);
    let from = sqlite(&path);
    let database = shared().database();
    let to = connect(&database).await;
    let mut compared = 0;
    let there = from
        .copy_to(&to, &mut |_, _, comparing| compared += u32::from(comparing))
        .await
        .unwrap();
    assert!(compared > there.len() as u32);
    assert!(!to.is_half_copied().await.unwrap());
    for table in &tables {
        let count = database
            .server()
            .text(database.name(), &format!("SELECT COUNT(*) FROM {table}"));
        let count: usize = count.unwrap().parse().unwrap();
        let copied = there.iter().find(|copied| copied.table == table);
        match table.as_str() {
            "replica" => assert_eq!((count, copied), (0, None)),
            // They were added to their counters.
            "counter_delta" => assert_eq!((count, copied.unwrap().rows), (0, ROWS as u64)),
            // One says that the copy is whole.
            "setting" => assert_eq!((count, copied.unwrap().rows), (ROWS + 1, ROWS as u64)),
            _ => assert_eq!(
                (count, copied.unwrap().rows),
                (ROWS, ROWS as u64),
                "{table}"
            ),
        }
    }
    let second = folder.path().join("back.db");
    let back = sqlite(&second);
    let again = copy(&to, &back).await.unwrap();
    let same = |copied: &&Copied| !copied.table.starts_with("counter");
    assert_eq!(
        there.iter().filter(same).collect::<Vec<_>>(),
        again.iter().filter(same).collect::<Vec<_>>()
    );
    for meta in [from, to, back] {
        meta.close().await;
    }
}

/// What a killed copy leaves says so, is no target and no source, and nothing serves from it.
#[tokio::test(flavor = "multi_thread")]
async fn half_a_copy_is_known_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let from = sqlite(&folder.path().join("from.db"));
    for n in 0..30 {
        push_blob(&from, "a", &format!("blob {n}")).await;
    }
    let path = folder.path().join("to.db");
    let to = sqlite(&path);
    let broken = {
        let (from, to) = (from.clone(), to.clone());
        tokio::spawn(async move {
            from.copy_to(&to, &mut |table, _, _| assert!(table != "blob_inline"))
                .await
        })
    };
    assert!(broken.await.is_err(), "it broke off in the middle");
    assert!(to.is_half_copied().await.unwrap());
    let error = copy(&from, &to).await.unwrap_err().to_string();
    assert!(error.contains("broke off"), "{error}");
    let third = sqlite(&folder.path().join("third.db"));
    let error = copy(&to, &third).await.unwrap_err().to_string();
    assert!(error.contains("source"), "{error}");
    for meta in [from, to, third] {
        meta.close().await;
    }
}

/// A dump of a server that had come far, restored on a young one: its events are given at once, and new ones after them.
#[tokio::test(flavor = "multi_thread")]
async fn events_of_another_server_go_first() {
    let database = shared().database();
    let meta = connect(&database).await;
    for n in 0..4 {
        push(&meta, put("a", format!("m{n}"), &[])).await;
    }
    let all = until(&meta, "c", 1).await;
    seen(&meta, "c", &all[0]).await;
    let count = events(&meta).await.len();
    meta.close().await;
    database.sql(
        "UPDATE event SET transaction_id = transaction_id + 4000000000; \
         UPDATE event_cursor SET seen_transaction = seen_transaction + 4000000000",
    );
    let meta = connect(&database).await;
    assert_eq!(until(&meta, "c", count - 1).await.len(), count - 1);
    push(&meta, put("a", "new", &["t"])).await;
    let after = until(&meta, "c", count).await;
    assert_eq!(after.last().unwrap().kind, "tag.move");
    assert!(after.windows(2).all(|two| two[0].id < two[1].id));
    meta.close().await;
}
