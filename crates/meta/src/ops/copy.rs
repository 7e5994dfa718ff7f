//! All rows of all tables, for moving a store from one engine to another.
//!
//! Called by [`crate::Meta::copy_to`] alone. It knows columns and no meaning; a test walks the schema and holds that every
//! table and every column is either listed here or named as left out.

use std::sync::LazyLock;

use crate::error::Result;
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::{Cell, Row, Val};

/// So many rows a page of short rows holds.
const PAGE: usize = 200;
/// The same where rows hold up to some hundred kilobytes.
const PAGE_WIDE: usize = 50;
/// The same where rows hold up to some megabytes.
const PAGE_LARGE: usize = 4;
/// So many rows one statement inserts, where a page has them: each statement waits for an answer.
const BULK: usize = 50;

/// Tables that stay where they are: the schema's own, and what processes say of themselves while they run.
#[cfg(test)]
const LEFT: &[&str] = &["migration", "replica"];

/// What statements that are made here begin with: the page of queries has only such as stand in the text.
const GET: &str = "SELECT";
const PUT: &str = "INSERT";

/// A table to copy.
#[derive(Debug)]
pub(crate) struct Table {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its columns, the key's first.
    pub(crate) columns: &'static [&'static str],
    /// How many of the columns are the key.
    key: usize,
    /// Rows in a page.
    page: usize,
    /// A column that is not copied, and what all rows get there.
    pub(crate) fixed: Option<(&'static str, &'static str)>,
}

/// Its statements. They are no operations' and not on the page of queries: each follows a primary key.
#[derive(Debug)]
struct Statements {
    first: String,
    next: String,
    one: String,
    bulk: String,
}

const fn table(
    name: &'static str,
    key: usize,
    page: usize,
    columns: &'static [&'static str],
) -> Table {
    Table {
        name,
        columns,
        key,
        page,
        fixed: None,
    }
}

/// Every table that holds what the registry knows.
#[rustfmt::skip]
pub(crate) static TABLES: &[Table] = &[
    table("repository", 1, PAGE, &["id", "name", "created_at"]),
    table("blob", 1, PAGE, &["id", "digest", "size", "key", "state", "created_at", "changed_at"]),
    table("blob_inline", 1, PAGE_WIDE, &["blob_id", "bytes"]),
    table("repository_blob", 2, PAGE, &["digest", "repository_id", "linked_at", "candidate_since", "hidden", "counted"]),
    table("candidate", 3, PAGE, &["since", "digest", "repository_id"]),
    table("quarantine", 1, PAGE, &["blob_id", "digest", "size", "key", "since", "cause"]),
    table("garbage", 1, PAGE, &["key", "since"]),
    table("manifest", 1, PAGE, &["id", "repository_id", "digest", "media_type", "artifact_type", "subject", "size", "state",
        "swept", "created_at", "changed_at", "counted"]),
    table("manifest_inline", 1, PAGE_LARGE, &["manifest_id", "bytes"]),
    table("manifest_reference", 2, PAGE, &["manifest_id", "target", "repository_id", "kind", "size", "live"]),
    table("restorable", 1, PAGE, &["manifest_id", "repository_id", "digest", "deleted_at", "actor", "look_at", "purging"]),
    table("kept_reference", 3, PAGE, &["repository_id", "target", "manifest_id"]),
    table("tag", 2, PAGE, &["repository_id", "name", "manifest_id", "version", "moved_at"]),
    table("tag_history", 3, PAGE, &["repository_id", "name", "version", "from_digest", "to_digest", "actor", "moved_at"]),
    table("referrer", 3, PAGE_WIDE, &["repository_id", "subject", "digest", "artifact_type", "descriptor"]),
    table("repository_usage", 1, PAGE, &["repository_id", "logical", "own", "blobs", "counted_at"]),
    table("usage_delta", 1, PAGE, &["id", "repository_id", "bytes"]),
    table("repository_bytes", 1, PAGE, &["repository_id", "bytes", "changes"]),
    table("prefix_usage", 1, PAGE, &["prefix", "bytes", "own", "blobs", "counted_at"]),
    table("upload", 1, PAGE, &["id", "repository", "owner", "algorithm", "bytes_held", "hash_state", "in_file", "chunks",
        "epoch", "created_at", "touched_at", "multipart", "parts", "part_bytes"]),
    table("upload_chunk", 2, PAGE_WIDE, &["upload_id", "start", "bytes"]),
    table("multipart", 1, PAGE, &["key", "upload_id", "session", "part_size", "state", "began_at"]),
    table("upload_part", 2, PAGE, &["key", "number", "size", "tag"]),
    table("unnamed", 1, PAGE, &["key", "digest"]),
    table("principal", 1, PAGE, &["name", "kind", "secret_hash", "created_at", "changed_at", "disabled_at", "kept_hash",
        "expires_at", "networks", "created_by"]),
    table("credential", 1, PAGE, &["id", "kind", "principal", "source", "name", "hash", "scopes", "expires_at", "created_at",
        "created_by"]),
    table("invitation", 1, PAGE, &["name", "id", "hash", "expires_at", "created_at", "created_by"]),
    table("credential_use", 1, PAGE, &["id", "used_at", "address"]),
    table("session", 1, PAGE, &["id", "hash", "principal", "source", "credential", "provider", "subject", "created_at", "seen_at",
        "address", "agent", "expires_at", "refresh", "check_at", "kept", "sid"]),
    table("logout_token", 2, PAGE, &["provider", "jti", "expires_at"]),
    table("device_grant", 1, PAGE, &["hash", "user_code", "state", "device", "address", "created_at", "expires_at", "wait", "polled_at",
        "principal", "source", "credential", "provider", "subject", "lasts_until", "terminal"]),
    table("terminal", 1, PAGE, &["id", "principal", "source", "credential", "provider", "subject", "device", "created_at", "seen_at",
        "address", "family", "hash", "previous", "rotated_at", "generation", "expires_at", "ends_at"]),
    table("signing_key", 1, PAGE, &["kid", "algorithm", "private_der", "created_at", "retired_at"]),
    table("refresh_token", 1, PAGE, &["hash", "subject", "credential", "created_at"]),
    table("setting", 1, PAGE, &["key", "value"]),
    table("namespace", 1, PAGE, &["path", "visibility", "created_at", "created_by"]),
    table("access_change", 5, PAGE, &["epoch", "part", "place", "kind", "name", "at"]),
    table("access_group", 1, PAGE, &["name", "created_at", "created_by"]),
    table("group_member", 3, PAGE, &["group_name", "kind", "name", "added_at", "added_by"]),
    table("account", 2, PAGE, &["provider", "subject", "issuer", "principal", "created_at", "created_by", "seen_at", "checked_at", "misses",
        "missing", "gone_at"]),
    table("account_group", 3, PAGE, &["provider", "subject", "name"]),
    table("group_source", 3, PAGE, &["group_name", "provider", "name", "added_at", "added_by"]),
    table("access_role", 1, PAGE, &["name", "permissions", "created_at", "created_by"]),
    table("access_binding", 8, PAGE, &["namespace", "kind", "name", "role", "networks", "tags", "sign_in", "expires_at",
        "created_at", "created_by"]),
    table("workload_issuer", 1, PAGE, &["name", "settings", "secret", "version", "created_at", "created_by"]),
    table("workload_rule", 1, PAGE, &["name", "issuer", "conditions", "version", "created_at", "created_by"]),
    table("job", 1, PAGE_WIDE, &["id", "kind", "unique_key", "payload", "state", "priority", "run_at", "every", "attempts",
        "max_attempts", "fence", "lease_until", "worker", "last_error", "created_at", "changed_at", "phase"]),
    table("job_kind", 1, PAGE, &["kind"]),
    // A transaction of one server says nothing to another: what came with a copy is older than all that is written there.
    Table { fixed: Some(("transaction_id", "0")), ..table("event", 1, PAGE,
        &["id", "at", "kind", "repository", "digest", "tag", "actor", "payload", "credential", "address", "request"]) },
    Table { fixed: Some(("seen_transaction", "0")), ..table("event_cursor", 1, PAGE, &["consumer", "seen", "moved_at"]) },
    table("audit_entry", 1, PAGE, &["seq", "at", "action", "principal", "credential", "address", "request", "repository", "digest",
        "tag", "detail", "hash", "mac"]),
    table("audit_head", 1, PAGE, &["id", "seq", "hash", "cut_seq", "cut_hash", "mac"]),
    table("counter", 1, PAGE, &["name", "value"]),
    table("counter_delta", 1, PAGE, &["id", "name", "delta"]),
];

/// `$1, $2 …`, from `from` on.
fn marks(from: usize, count: usize) -> String {
    let marks: Vec<String> = (from..from + count).map(|n| format!("${n}")).collect();
    marks.join(", ")
}

impl Table {
    fn make(&self) -> Statements {
        let (name, columns, key) = (self.name, self.columns.join(", "), self.key);
        let order = self.columns[..key].join(", ");
        let (into, last) = match self.fixed {
            Some((column, value)) => (format!("{columns}, {column}"), format!(", {value}")),
            None => (columns.clone(), String::new()),
        };
        let rows = |count: usize| {
            let width = self.columns.len();
            let rows: Vec<String> = (0..count)
                .map(|row| format!("({}{last})", marks(row * width + 1, width)))
                .collect();
            format!("{PUT} INTO {name} ({into}) VALUES {}", rows.join(", "))
        };
        let limit = self.page;
        Statements {
            first: format!("{GET} {columns} FROM {name} ORDER BY {order} LIMIT {limit}"),
            next: format!(
                "{GET} {columns} FROM {name} WHERE ({order}) > ({}) ORDER BY {order} LIMIT {limit}",
                marks(1, key)
            ),
            one: rows(1),
            bulk: rows(BULK),
        }
    }

    fn statements(&'static self) -> &'static Statements {
        static MADE: LazyLock<Vec<Statements>> =
            LazyLock::new(|| TABLES.iter().map(Table::make).collect());
        let at = TABLES.iter().position(|table| table.name == self.name);
        &MADE[at.unwrap_or_default()]
    }
}

/// A page of a table in the order of its key. Cost: the rows given.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    /// The table.
    pub(crate) table: &'static Table,
    /// The last row of the page before.
    pub(crate) after: Option<Vec<Cell>>,
}

fn value(cell: &Cell) -> Val<'_> {
    match cell {
        Cell::Null => Val::Null,
        Cell::Int(value) => Val::Int(*value),
        Cell::Text(text) => Val::Text(text),
        Cell::Bytes(bytes) => Val::Bytes(bytes),
    }
}

impl ReadOp for Rows {}
impl Op for Rows {
    type Out = Vec<Vec<Cell>>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let statements = self.table.statements();
        let rows = match &self.after {
            None => tx.query(&statements.first, &[]).await?,
            Some(after) => {
                let key: Vec<Val<'_>> = after.iter().take(self.table.key).map(value).collect();
                tx.query(&statements.next, &key).await?
            }
        };
        Ok(rows.into_iter().map(Row::into_cells).collect())
    }
}

/// Up to which event a consumer has certainly seen all, by ids alone: what it has seen beyond comes once more. Cost: the
/// events that it has not seen.
#[derive(Clone, Debug)]
pub(crate) struct SeenById {
    /// Who.
    pub(crate) consumer: String,
}

impl ReadOp for SeenById {}
impl Op for SeenById {
    type Out = i64;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<i64> {
        let row = tx
            .row(
                "SELECT COALESCE((SELECT MIN(e.id) - 1 FROM event e, event_cursor c WHERE c.consumer = $1 \
                 AND (e.transaction_id, e.id) > (c.seen_transaction, c.seen)), (SELECT MAX(id) FROM event), 0)",
                vals![&self.consumer],
            )
            .await?;
        row.map_or(Ok(0), |mut row| row.int(0))
    }
}

/// Puts a page of rows into a table that lacks them. Cost: the rows given.
#[derive(Clone, Debug)]
pub(crate) struct Insert {
    /// The table.
    pub(crate) table: &'static Table,
    /// The rows.
    pub(crate) rows: Vec<Vec<Cell>>,
}

impl Op for Insert {
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let statements = self.table.statements();
        let (bulks, rest) = self.rows.as_chunks::<BULK>();
        for rows in bulks {
            let values: Vec<Val<'_>> = rows.iter().flatten().map(value).collect();
            tx.exec(&statements.bulk, &values).await?;
        }
        for row in rest {
            let values: Vec<Val<'_>> = row.iter().map(value).collect();
            tx.exec(&statements.one, &values).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Meta, SqliteOptions};

    /// Every column of every table is copied, has a value of its own, or belongs to a table that is left out.
    #[tokio::test]
    async fn the_schema_holds_nothing_that_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wharf.db");
        let (meta, _) = Meta::open(SqliteOptions::new(&path)).unwrap();
        meta.close().await;
        let connection = rusqlite::Connection::open(&path).unwrap();
        let ask = format!(
            "{GET} t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c \
             WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite_%'"
        );
        let mut statement = connection.prepare(&ask).unwrap();
        let mut schema: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
        for row in rows.unwrap() {
            let (table, column): (String, String) = row.unwrap();
            schema.entry(table).or_default().push(column);
        }
        for left in LEFT {
            assert!(schema.remove(*left).is_some(), "{left} is no table");
        }
        let mut listed: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for table in TABLES {
            let fixed = table.fixed.iter().map(|(column, _)| *column);
            let mut columns: Vec<String> = table.columns.iter().map(|c| c.to_string()).collect();
            columns.extend(fixed.map(str::to_owned));
            columns.sort();
            listed.insert(table.name.to_owned(), columns);
        }
        schema.values_mut().for_each(|columns| columns.sort());
        assert_eq!(listed, schema);
    }

    #[test]
    fn statements_are_made_of_the_columns() {
        let table = Table {
            fixed: Some(("c", "0")),
            ..table("t", 1, 7, &["a", "b"])
        };
        let made = table.make();
        assert!(made.first.ends_with(" a, b FROM t ORDER BY a LIMIT 7"));
        assert!(
            made.next
                .ends_with(" a, b FROM t WHERE (a) > ($1) ORDER BY a LIMIT 7")
        );
        assert!(made.one.ends_with(" INTO t (a, b, c) VALUES ($1, $2, 0)"));
        assert!(made.bulk.ends_with("($99, $100, 0)"), "{}", made.bulk);
    }
}
