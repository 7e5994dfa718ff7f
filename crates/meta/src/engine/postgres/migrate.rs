//! Looking at a database before it is used, and bringing it up to date. What cannot be used is refused before anything in
//! it is touched.

use std::path::Path;

use super::connection::Connection;
use super::fault::Fault;
use super::options::PASSWORD_FILE;
use super::pool::Pool;
use crate::copy::UNFINISHED;
use crate::error::{Error, Result};
use crate::look::{INSTALLATION, SECRET_KEY};
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
        key: "metadata.url",
        problem: problem.into(),
        cure: cure.into(),
    }
}

/// What a server or the way to it fails with, and the cure.
const CURES: [(&[&str], &str); 11] = [
    (
        &["does not exist (SQLSTATE 28000)"],
        "make this user on the server (CREATE ROLE … LOGIN), or name another one",
    ),
    (
        &["pg_hba.conf"],
        "let the server's pg_hba.conf admit this user from this machine, or connect as it demands (sslmode, another user)",
    ),
    (
        &["(SQLSTATE 28"],
        "name a user who may log in, and connect as the server demands",
    ),
    (
        &["(SQLSTATE 3D"],
        "make the database (CREATE DATABASE … OWNER …), or correct its name",
    ),
    (
        &["(SQLSTATE 42501"],
        "GRANT CONNECT ON DATABASE … TO the user, or let it own the database",
    ),
    (
        &["(SQLSTATE 53300"],
        "raise the server's max_connections, or lower metadata.connections of the replicas",
    ),
    (
        &["certificate expired", "certificate not valid yet"],
        "renew the server's certificate, or set this machine's clock (NTP)",
    ),
    (
        &["invalid peer certificate"],
        "name the file of the authority that signed the server's certificate in sslrootcert, and the host as the certificate does",
    ),
    (
        &["server does not support TLS"],
        "turn ssl on in the server, or connect without it on a network that you trust (sslmode=disable)",
    ),
    (&["failed to lookup"], "correct the name of the host"),
    (
        &["database does not allow writes"],
        "all servers named are standbys: name the primary, too, or wait until one is promoted",
    ),
];

/// What a start says when there is no connection.
pub(super) fn unreachable(pool: &Pool, fault: &Fault) -> Error {
    let why = match fault.clone().into_error() {
        Error::Unreachable(why) => why,
        other => return other,
    };
    let connector = pool.connector();
    let setup = |key, problem, cure: &str| Error::Setup {
        key,
        problem,
        cure: cure.to_owned(),
    };
    if let Some(problem) = why.strip_prefix(PASSWORD_FILE) {
        let problem = problem.trim_start_matches([':', ' ']).to_owned();
        let cure = "name a file that the server may read, with the password of the database user alone on its first line";
        return setup(PASSWORD_FILE, problem, cure);
    }
    let place = connector.describe();
    if why.contains("password missing") {
        let problem = format!("{place} asks for the password of {}", connector.user());
        let cure = "name a file that holds it in metadata.password_file";
        return setup("metadata.url", problem, cure);
    }
    if why.contains("(SQLSTATE 28P01") {
        let problem = format!("{place}: {why}");
        let cure = "give the password that the server has for this user, or correct the user in metadata.url";
        return setup(connector.password_key(), problem, cure);
    }
    let has = |any: &[&str]| any.iter().any(|word| why.contains(word));
    if let Some((_, cure)) = CURES.iter().find(|(words, _)| has(words)) {
        return setup("metadata.url", format!("{place}: {why}"), cure);
    }
    setup(
        "metadata.url",
        format!("{place} cannot be reached: {why}"),
        "start the database, or correct the address, user, password or TLS settings",
    )
}

/// What the database is.
pub(super) struct Server {
    version: i64,
    version_name: String,
    user: String,
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
             COALESCE(has_schema_privilege(current_schema(), 'CREATE'), FALSE), current_setting('server_version'), \
             CAST(current_user AS TEXT)",
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
            version_name: row.text(8)?,
            user: row.text(9)?,
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

impl Server {
    /// What it is, for people.
    pub(super) fn describe(&self) -> String {
        let number = self.version_name.split(' ').next().unwrap_or_default();
        format!("PostgreSQL {number}, as the user {}", self.user)
    }

    /// What is no reason to refuse it.
    pub(super) fn warnings(&self) -> Vec<String> {
        match self.fsync.as_str() {
            "off" => vec![
                "metadata.url: PostgreSQL runs with fsync = off, so a crash of its machine can destroy the whole database; turn \
                 it on"
                    .to_owned(),
            ],
            _ => Vec::new(),
        }
    }
}

/// A database as it stands.
pub(super) struct Standing {
    pub(super) server: Server,
    /// Its schema; `None`: there is nothing in it.
    pub(super) schema: Option<u32>,
    /// How many migrations it lacks.
    pub(super) pending: usize,
}

/// Looks whether the database can be used, or made usable, or says why it cannot. Writes nothing.
pub(super) async fn examine(
    connection: &Connection,
    name: &str,
    all: &[Migration],
) -> Result<Standing, Fault> {
    let server = server(connection).await?;
    judge(&server).map_err(Fault::Final)?;
    let ran = ran(connection).await?;
    let name = format!("metadata.url {name}");
    let pending = pending(all, ran.as_deref().unwrap_or_default(), &name)
        .map_err(Fault::Final)?
        .len();
    if ran.is_some() {
        allowed(connection).await?;
    }
    if pending > 0 && !server.may_create {
        return Err(Fault::Final(refuse(
            format!(
                "the user {} may not make tables in the schema {}",
                server.user,
                server.schema.as_deref().unwrap_or_default()
            ),
            "GRANT CREATE ON SCHEMA … TO the user, or let it own the database",
        )));
    }
    if pending > 0 && ran.is_some() {
        owned(connection, &server.user).await?;
    }
    Ok(Standing {
        server,
        schema: ran.map(|ran| version(&ran).schema),
        pending,
    })
}

/// Refuses tables that have to be changed and are another user's.
async fn owned(connection: &Connection, user: &str) -> Result<(), Fault> {
    let rows = connection
        .once(
            "SELECT string_agg(CAST(c.relname AS TEXT), ', ' ORDER BY c.relname) \
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
             WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND NOT pg_has_role(c.relowner, 'USAGE')",
            &[],
        )
        .await?;
    match first(rows)?.opt_text(0).map_err(Fault::Final)? {
        None => Ok(()),
        Some(tables) => Err(Fault::Final(refuse(
            format!("the database has to be migrated, and the user {user} does not own {tables}"),
            "start once as the owner of the tables, or make this user the owner (REASSIGN OWNED)",
        ))),
    }
}

/// Makes the database usable, or says why it is not.
pub(super) async fn open(
    connection: &Connection,
    name: &str,
    all: &[Migration],
) -> Result<Opened, Fault> {
    let standing = examine(connection, name, all).await?;
    for warning in standing.server.warnings() {
        tracing::warn!("{warning}");
    }
    let opened = match (standing.schema, standing.pending) {
        (Some(_), 0) => Opened {
            fresh: false,
            migrated_from: None,
        },
        _ => {
            let name = format!("metadata.url {name}");
            alone(connection, migrate(connection, &name, all)).await?
        }
    };
    if is_from_elsewhere(connection).await? {
        alone(connection, settle(connection)).await?;
    }
    Ok(opened)
}

/// The facts that tell whose database it is, and its time. Writes nothing, and the server sees to that.
pub(super) async fn facts(
    connection: &Connection,
    schema: Option<u32>,
    now_ms: impl Fn() -> i64,
) -> Result<Facts, Fault> {
    connection.batch("BEGIN READ ONLY").await?;
    let before = now_ms();
    let rows = connection
        .once(
            "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT), \
             COALESCE((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), FALSE)",
            &[],
        )
        .await?;
    let after = now_ms();
    let mut row = first(rows)?;
    let theirs = row.int(0).map_err(Fault::Final)?;
    let mut facts = Facts {
        ahead_ms: before + (after - before) / 2 - theirs,
        tls: row.flag(1).map_err(Fault::Final)?,
        ..Facts::default()
    };
    if schema.is_some() {
        let rows = connection
            .once(
                "SELECT (SELECT value FROM setting WHERE key = $1), \
                 COALESCE((SELECT value FROM setting WHERE key = $2), '') <> '', \
                 EXISTS (SELECT 1 FROM blob WHERE state = 1), \
                 (SELECT value FROM setting WHERE key = $3)",
                vals![INSTALLATION, UNFINISHED, SECRET_KEY],
            )
            .await?;
        let mut row = first(rows)?;
        facts.installation = row.opt_text(0).map_err(Fault::Final)?;
        facts.half_copied = row.flag(1).map_err(Fault::Final)?;
        facts.has_blobs = row.flag(2).map_err(Fault::Final)?;
        facts.secret_key = row.opt_text(3).map_err(Fault::Final)?;
    }
    connection.batch("ROLLBACK").await?;
    Ok(facts)
}

/// See [`facts`].
#[derive(Debug, Default)]
pub(super) struct Facts {
    pub(super) ahead_ms: i64,
    pub(super) tls: bool,
    pub(super) installation: Option<String>,
    pub(super) secret_key: Option<String>,
    pub(super) half_copied: bool,
    pub(super) has_blobs: bool,
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
