//! The two stores under a server that is to be killed: SQLite or PostgreSQL, files or a bucket. They outlive every kill.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use wharf_meta::test_server::{TestDatabase, shared};

use super::cluster::bed;
use crate::e2e::below::deserted;
use crate::e2e::process::Daemon;

/// Which two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Everything in the data folder
    SqliteFiles,
    /// Metadata in the data folder, blobs in a bucket
    SqliteS3,
    /// Metadata in PostgreSQL, blobs in the data folder
    PostgresFiles,
    /// Nothing in the data folder
    PostgresS3,
}

/// Both stores of one life. They end when this is dropped.
pub(crate) struct Pair {
    database: Option<TestDatabase>,
    s3: Option<(Daemon, u16)>,
    folder: PathBuf,
}

impl Pair {
    /// Empty ones, below a folder.
    pub(crate) fn start(kind: Kind, folder: &Path) -> Result<Pair> {
        let postgres = matches!(kind, Kind::PostgresFiles | Kind::PostgresS3);
        let bucket = matches!(kind, Kind::SqliteS3 | Kind::PostgresS3);
        Ok(Pair {
            database: postgres.then(|| shared().empty("")),
            s3: match bucket {
                true => Some(bed::s3(folder)?),
                false => None,
            },
            folder: folder.to_owned(),
        })
    }

    /// Blobs are files in the data folder.
    pub(crate) fn on_files(&self) -> bool {
        self.s3.is_none()
    }

    /// Nothing is reached over a network, so that a process has as many connections as the one before.
    pub(crate) fn on_machine(&self) -> bool {
        self.s3.is_none() && self.database.is_none()
    }

    /// Waits until nothing that a killed process sent is still at work: PostgreSQL finishes what it was asked for, and commits it, after
    /// whoever asked is gone.
    pub(crate) fn settle(&self) -> Result<()> {
        match &self.database {
            Some(database) => deserted(database.server(), database.name()),
            None => Ok(()),
        }
    }

    /// The configuration that makes a server use them.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let url = |database: &TestDatabase| ("WHARF__METADATA__URL".to_owned(), database.url());
        let mut pairs: Vec<_> = self.database.iter().map(url).collect();
        if let Some((_, port)) = &self.s3 {
            pairs.extend(bed::s3_environment(*port));
        }
        pairs
    }

    /// The name of each blob's file or object: its digest in hexadecimal and its generation.
    pub(crate) fn stored(&self) -> Result<Vec<String>> {
        let blobs = match self.on_files() {
            true => self.folder.join("data/blobs"),
            false => self.folder.join("s3").join(bed::BUCKET).join("blobs"),
        };
        // MinIO makes a folder of each object, with a file of a fixed name in it.
        let mut find = Command::new("find");
        match self.on_files() {
            true => find.arg(&blobs).args(["-type", "f", "-printf", "%f\\n"]),
            false => find
                .arg(&blobs)
                .args(["-name", "xl.meta", "-printf", "%h\\n"]),
        };
        if !blobs.exists() {
            return Ok(Vec::new());
        }
        let told = crate::run::read(&mut find)?;
        let name = |line: &str| line.rsplit('/').next().unwrap_or(line).to_owned();
        Ok(told.lines().map(name).collect())
    }
}
