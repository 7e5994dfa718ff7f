//! Looking at a database before it is used, and bringing it up to date. What cannot be used is refused before anything in
//! it is touched.

use std::path::Path;

use super::connection::Connection;
use super::fault::Fault;
use super::pool::Pool;
use crate::error::{Error, Result};
use crate::meta::Opened;
use crate::migration::{self, Migration, Version};
use crate::vals;
use crate::value::Row;

/// The oldest PostgreSQL whose functions and statements are used.
const OLDEST_SERVER: i64 = 130_000;

/// Held while a schema is changed: the first eight bytes of the SHA-256 of "wharf migrations".
const LOCK: &str = "SELECT pg_advisory_xact_lock(7305790119563071079)";

/// What runs while nobody else may change the schema. Waiting for tables in use must not hold up those who use them.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout TO '20s'; SET LOCAL statement_timeout TO 0";

fn refuse(problem: impl Into<String>, cure: impl Into<String>) -> Error {
    Error::Setup {
        problem: problem.into(),
        cure: cure.into(),
    }
}

/// What a start says when there is no connection.
pub(super) fn unreachable(pool: &Pool, fault: &Fault) -> Error {
    match fault.clone().into_error() {
        Error::Unreachable(why) => refuse(
            format!("{} cannot be reached: {why}", pool.connector().describe()),
            "start the database, or correct the address, user, password or TLS settings",
        ),
        other => other,
    }
}

/// What the database is.
struct Server {
    version: i64,
    encoding: String,
    standby: bool,
    read_only: bool,
    synchronous_commit: String,
    fsync: String,
    schema: Option<String>,
    may_create: bool,
}

async fn server(connection: &Connection) -> Result<Server, Fault> {
    let rows = connection
        .once(
            "SELECT CAST(current_setting('server_version_num') AS BIGINT), current_setting('server_encoding'), \
             pg_is_in_recovery(), current_setting('transaction_read_only') = 'on', \
             current_setting('synchronous_commit'), current_setting('fsync'), CAST(current_schema() AS TEXT), \
             COALESCE(has_schema_privilege(current_schema(), 'CREATE'), FALSE)",
            &[],
        )
        .await?;
    let mut row = first(rows)?;
    let read = |row: &mut Row| -> Result<Server> {
        Ok(Server {
            version: row.int(0)?,
            encoding: row.text(1)?,
            standby: row.flag(2)?,
            read_only: row.flag(3)?,
            synchronous_commit: row.text(4)?,
            fsync: row.text(5)?,
            schema: row.opt_text(6)?,
            may_create: row.flag(7)?,
        })
    };
    read(&mut row).map_err(Fault::Final)
}

fn first(rows: Vec<Row>) -> Result<Row, Fault> {
    rows.into_iter().next().ok_or_else(|| {
        Fault::Final(Error::Bug {
            op: "open".to_owned(),
            reason: "a statement gave no row".to_owned(),
        })
    })
}

/// Refuses a server that cannot keep what Wharf promises.
fn judge(server: &Server) -> Result<()> {
    if server.version < OLDEST_SERVER {
        return Err(refuse(
            format!("the server is PostgreSQL {}", server.version / 10_000),
            "use PostgreSQL 13 or newer",
        ));
    }
    if server.encoding != "UTF8" {
        return Err(refuse(
            format!("the database's encoding is {}", server.encoding),
            "make it with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0",
        ));
    }
    if server.standby || server.read_only {
        return Err(refuse(
            if server.standby {
                "the server is a standby, which takes no writes"
            } else {
                "transactions are read-only here (default_transaction_read_only)"
            },
            "name the primary, or all servers and target_session_attrs=read-write",
        ));
    }
    if server.synchronous_commit == "off" {
        return Err(refuse(
            "synchronous_commit is off, so a crash of the server takes back what was acknowledged",
            "ALTER DATABASE … SET synchronous_commit TO on",
        ));
    }
    if server.fsync == "off" {
        tracing::warn!(
            "PostgreSQL runs with fsync = off: a crash of its machine can destroy the whole database"
        );
    }
    if server.schema.is_none() {
        return Err(refuse(
            "no schema of the search_path exists or may be used",
            "GRANT USAGE, CREATE ON SCHEMA public TO the user, or ALTER ROLE … SET search_path",
        ));
    }
    Ok(())
}

/// What stands in the schema: the migrations that ran, or none if it is empty.
async fn ran(connection: &Connection) -> Result<Option<Vec<(u32, String, u32)>>, Fault> {
    let rows = connection
        .once(
            "SELECT CAST(c.relname AS TEXT), (SELECT COUNT(*) FROM pg_attribute a WHERE a.attrelid = c.oid \
             AND a.attname IN ('number', 'name', 'checksum', 'oldest') AND NOT a.attisdropped) = 4, \
             has_table_privilege(c.oid, 'SELECT') \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p', 'v', 'm', 'f') \
             ORDER BY c.relname = 'migration' DESC, c.relname LIMIT 1",
            &[],
        )
        .await?;
    let Some(mut row) = rows.into_iter().next() else {
        return Ok(None);
    };
    let (name, ours, readable) = (
        row.text(0).map_err(Fault::Final)?,
        row.flag(1).map_err(Fault::Final)?,
        row.flag(2).map_err(Fault::Final)?,
    );
    if name != "migration" || !ours {
        return Err(Fault::Final(refuse(
            format!("the database holds tables of something else, such as {name}"),
            "give Wharf a database of its own",
        )));
    }
    if !readable {
        return Err(Fault::Final(rights("migration")));
    }
    let rows = connection
        .once(
            "SELECT number, checksum, oldest FROM migration ORDER BY number",
            &[],
        )
        .await?;
    rows.into_iter()
        .map(|mut row| {
            let small = |value: i64| u32::try_from(value).unwrap_or(u32::MAX);
            Ok((small(row.int(0)?), row.text(1)?, small(row.int(2)?)))
        })
        .collect::<Result<_>>()
        .map(Some)
        .map_err(Fault::Final)
}

fn rights(tables: &str) -> Error {
    refuse(
        format!("the user lacks rights on {tables}"),
        "let the user own the database's tables, or GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA",
    )
}

/// Refuses tables that the user may not use.
async fn allowed(connection: &Connection) -> Result<(), Fault> {
    let rows = connection
        .once(
            "SELECT string_agg(CAST(c.relname AS TEXT), ', ' ORDER BY c.relname) \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND NOT (\
             has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT') AND \
             has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))",
            &[],
        )
        .await?;
    match first(rows)?.opt_text(0).map_err(Fault::Final)? {
        None => Ok(()),
        Some(tables) => Err(Fault::Final(rights(&tables))),
    }
}

fn version(ran: &[(u32, String, u32)]) -> Version {
    Version {
        schema: ran.iter().map(|(number, ..)| *number).max().unwrap_or(0),
        oldest: ran.iter().map(|(.., oldest)| *oldest).max().unwrap_or(0),
    }
}

/// What must still run; refuses a database that only newer binaries may use.
fn pending<'a>(
    all: &'a [Migration],
    ran: &[(u32, String, u32)],
    name: &str,
) -> Result<Vec<&'a Migration>> {
    let version = version(ran);
    migration::usable(Path::new(name), version)?;
    let checksums: Vec<(u32, String)> = ran.iter().map(|(n, sum, _)| (*n, sum.clone())).collect();
    Ok(migration::pending(all, version.schema, &checksums)?.collect())
}

/// Makes the database usable, or says why it is not.
pub(super) async fn open(
    connection: &Connection,
    name: &str,
    all: &[Migration],
) -> Result<Opened, Fault> {
    let server = server(connection).await?;
    judge(&server).map_err(Fault::Final)?;
    let name = format!("metadata.url {name}");
    let opened = if let Some(ran) = ran(connection).await?
        && pending(all, &ran, &name).map_err(Fault::Final)?.is_empty()
    {
        allowed(connection).await?;
        Opened {
            fresh: false,
            migrated_from: None,
        }
    } else if !server.may_create {
        return Err(Fault::Final(refuse(
            format!(
                "the user may not make tables in the schema {}",
                server.schema.unwrap_or_default()
            ),
            "GRANT CREATE ON SCHEMA … TO the user, or let it own the database",
        )));
    } else {
        alone(connection, migrate(connection, &name, all)).await?
    };
    if is_from_elsewhere(connection).await? {
        alone(connection, settle(connection)).await?;
    }
    Ok(opened)
}

/// Runs work in a transaction, whose locks keep others out.
async fn alone<T>(
    connection: &Connection,
    work: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    connection.batch(BEGIN).await?;
    match work.await {
        Ok(done) => {
            connection.batch("COMMIT").await?;
            Ok(done)
        }
        Err(fault) => {
            if !fault.is_lost() {
                connection.batch("ROLLBACK").await?;
            }
            Err(fault)
        }
    }
}

/// Whether events or cursors name transactions that this server has not come to: the rows were restored from a dump of another
/// one. Its new events would come before them, and be taken for seen.
async fn is_from_elsewhere(connection: &Connection) -> Result<bool, Fault> {
    let rows = connection
        .once(
            "SELECT GREATEST((SELECT COALESCE(MAX(transaction_id), 0) FROM event), \
             (SELECT COALESCE(MAX(seen_transaction), 0) FROM event_cursor)) >= \
             CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS TEXT) AS BIGINT)",
            &[],
        )
        .await?;
    first(rows)?.flag(0).map_err(Fault::Final)
}

/// Lets the events that are there go by their ids alone, before all that will be written here. A consumer may get some anew.
async fn settle(connection: &Connection) -> Result<(), Fault> {
    connection.text(LOCK).await?;
    if !is_from_elsewhere(connection).await? {
        return Ok(());
    }
    tracing::warn!(
        "the metadata was restored from a dump of another server: its events are numbered anew"
    );
    connection
        .batch(
            "UPDATE event_cursor SET seen = COALESCE((SELECT MIN(e.id) - 1 FROM event e \
             WHERE (e.transaction_id, e.id) > (event_cursor.seen_transaction, event_cursor.seen)), \
             (SELECT MAX(id) FROM event), 0), seen_transaction = 0; \
             UPDATE event SET transaction_id = 0 WHERE transaction_id <> 0",
        )
        .await
}

/// In a transaction: waits for whoever else does the same, and then looks again.
async fn migrate(connection: &Connection, name: &str, all: &[Migration]) -> Result<Opened, Fault> {
    connection.text(LOCK).await?;
    let before = ran(connection).await?;
    if before.is_none() {
        connection
            .batch(
                "CREATE TABLE migration (number BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL, \
                 checksum TEXT NOT NULL, oldest BIGINT NOT NULL)",
            )
            .await?;
    }
    let known = before.as_deref().unwrap_or_default();
    let from = version(known).schema;
    let pending = pending(all, known, name).map_err(Fault::Final)?;
    if from > 0 && !pending.is_empty() {
        tracing::info!(from, "migrating the metadata");
    }
    let mut migrated = false;
    for migration in pending {
        let oldest = migration.oldest().ok_or_else(|| {
            Fault::Final(Error::Bug {
                op: "migrate".to_owned(),
                reason: format!(
                    "migration {} does not say the oldest schema",
                    migration.number
                ),
            })
        })?;
        connection.batch(&dialect(migration.sql)).await?;
        let checksum = migration.checksum();
        connection
            .once(
                "INSERT INTO migration (number, name, checksum, oldest) VALUES ($1, $2, $3, $4)",
                vals![migration.number, migration.name, &checksum, oldest],
            )
            .await?;
        migrated = true;
    }
    Ok(Opened {
        fresh: before.is_none(),
        migrated_from: (before.is_some() && migrated).then_some(from),
    })
}

/// A migration as PostgreSQL runs it: what stands in `/*postgres … */` counts.
fn dialect(sql: &str) -> String {
    let mut out = sql.to_owned();
    while let Some(start) = out.find("/*postgres ") {
        let Some(length) = out[start..].find("*/") else {
            break;
        };
        out.replace_range(start + length..start + length + 2, "");
        out.replace_range(start..start + "/*postgres ".len(), "");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_postgres_counts() {
        assert_eq!(
            dialect("CREATE TABLE t (a BIGINT) /*sqlite STRICT */;\n/*postgres SELECT 1; */"),
            "CREATE TABLE t (a BIGINT) /*sqlite STRICT */;\nSELECT 1; "
        );
    }
}
