//! What lies below the registries: an object [`Store`] or files, and the [`Databases`] of PostgreSQL or SQLite.
//! `cargo xtask e2e --metadata postgres|both` has one server for the whole run, and a database for each registry.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use wharf_meta::test_server::{TestDatabase, TestServer, shared};

use super::site::Mode;
use super::store::Store;

/// Where the registries of a run keep their metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// In their data folders
    Sqlite,
    /// In PostgreSQL
    Postgres,
    /// Those with TLS in PostgreSQL, the others in their data folders
    Both,
}

impl Kind {
    /// Programs that it needs.
    pub(crate) fn programs(self) -> &'static [&'static str] {
        match self {
            Kind::Sqlite => &[],
            Kind::Postgres | Kind::Both => &["pg_ctlcluster"],
        }
    }

    fn is_postgres_for(self, mode: Mode) -> bool {
        match self {
            Kind::Sqlite => false,
            Kind::Postgres => true,
            Kind::Both => matches!(mode, Mode::Tls | Mode::Nginx),
        }
    }
}

/// Both stores of a registry.
#[derive(Clone, Copy)]
pub(crate) struct Below<'a> {
    /// Keeps the blobs; none: the data folder does.
    pub(crate) store: Option<&'a Store>,
    /// Keep the metadata.
    pub(crate) databases: &'a Databases,
}

/// The databases of the registries, each known by its registry's folder. They are dropped with this.
pub(crate) struct Databases {
    kind: Kind,
    made: RefCell<BTreeMap<PathBuf, TestDatabase>>,
}

impl Databases {
    /// None yet. The server is started with the first one.
    pub(crate) fn new(kind: Kind) -> Databases {
        Databases {
            kind,
            made: RefCell::default(),
        }
    }

    /// The configuration of the registry in this folder; its database is empty when it is asked for first.
    pub(crate) fn config(&self, mode: Mode, dir: &Path) -> String {
        if !self.kind.is_postgres_for(mode) {
            return String::new();
        }
        let mut made = self.made.borrow_mut();
        let database = made
            .entry(dir.to_owned())
            .or_insert_with(|| shared().empty(""));
        format!("\n[metadata]\nurl = {:?}\n", database.url())
    }

    /// Keeps the state of a stopped registry's database; does nothing where it has none.
    pub(crate) fn keep(&self, dir: &Path) -> Result<()> {
        self.copied(dir, |name, kept| (name, kept))
    }

    /// Brings the state back that was kept, with the registry stopped.
    pub(crate) fn bring_back(&self, dir: &Path) -> Result<()> {
        self.copied(dir, |name, kept| (kept, name))
    }

    fn copied(&self, dir: &Path, order: fn(String, String) -> (String, String)) -> Result<()> {
        let made = self.made.borrow();
        let Some(database) = made.get(dir) else {
            return Ok(());
        };
        let (server, name) = (database.server(), database.name().to_owned());
        let kept = format!("{name}_kept");
        let (from, to) = order(name, kept);
        deserted(server, &from)?;
        for sql in [
            format!("DROP DATABASE IF EXISTS {to} WITH (FORCE)"),
            format!("CREATE DATABASE {to} TEMPLATE {from}"),
        ] {
            let done = server.sql("postgres", &sql);
            done.map_err(|error| anyhow!("{sql}: {error}"))?;
        }
        Ok(())
    }
}

/// Waits until the server has seen that a database's last user went: before that, it copies nothing, and what a killed one asked for
/// last may still be committed.
pub(crate) fn deserted(server: &TestServer, name: &str) -> Result<()> {
    let ask = format!("SELECT count(*)::text FROM pg_stat_activity WHERE datname = '{name}'");
    let begun = Instant::now();
    loop {
        let users = server.text("postgres", &ask).context("a count")?;
        if users == "0" {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < Duration::from_secs(60),
            "{users} connections to {name} are left, although its registry has ended"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_has_one_database_and_its_state_comes_back() {
        let (databases, one) = (Databases::new(Kind::Both), Path::new("/one"));
        assert_eq!(databases.config(Mode::Plain, one), "");
        let config = databases.config(Mode::Tls, one);
        assert_eq!(databases.config(Mode::Nginx, one), config);
        assert_ne!(databases.config(Mode::Tls, Path::new("/two")), config);
        let sql = |text: &str| databases.made.borrow()[one].sql(text);
        sql("CREATE TABLE early (a INT)");
        databases.keep(one).unwrap();
        sql("CREATE TABLE late (a INT)");
        databases.bring_back(one).unwrap();
        assert_eq!(databases.made.borrow()[one].tables(), "early");
        // Of a registry without a database there is nothing to keep.
        databases.keep(Path::new("/three")).unwrap();
    }
}
