//! The services behind a registry that keeps nothing in its own folder: PostgreSQL and MinIO, each durable as it is by
//! default, started with the registry and ended with it.

use std::path::Path;

use anyhow::{Context as _, Result};
use wharf_meta::test_server::TestServer;

use crate::e2e::store::{self, Store};

/// What stands behind a registry. One that knows no database is given the bucket alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Its folder.
    #[default]
    Files,
    /// PostgreSQL, and its folder for blobs.
    Postgres,
    /// PostgreSQL, and a bucket.
    PostgresAndBucket,
}

/// The name of the database.
const DATABASE: &str = "postgres";

/// Those that run.
pub(crate) struct Services {
    /// PostgreSQL, when the registry uses it.
    pub(crate) postgres: Option<TestServer>,
    bucket: Option<Store>,
}

impl Services {
    /// Starts what `behind` names for a registry; `sql`: whether it knows PostgreSQL.
    pub(crate) fn start(behind: Behind, sql: bool, dir: &Path) -> Result<Services> {
        // Tests turn these off.
        let durable = ["fsync=on", "full_page_writes=on"];
        let postgres = (sql && behind != Behind::Files).then(|| TestServer::start(&durable));
        let bucket = (behind == Behind::PostgresAndBucket)
            .then(|| Store::start(store::Kind::Minio, false, &dir.join("bucket")))
            .transpose()?;
        Ok(Services { postgres, bucket })
    }

    /// Wharf's configuration of them.
    pub(crate) fn wharf(&self) -> String {
        let mut config = String::new();
        if let Some(postgres) = &self.postgres {
            config += &format!("\n[metadata]\nurl = {:?}\n", postgres.url(DATABASE));
        }
        if let Some(bucket) = &self.bucket {
            config += &bucket.config("");
        }
        config
    }

    /// Distribution's storage driver, when it is not its folder.
    pub(crate) fn distribution(&self) -> Option<String> {
        self.bucket.as_ref().map(Store::distribution)
    }

    /// The bucket, for a client that is no registry.
    pub(crate) fn bucket(&self) -> Result<wharf_blob::ObjectOptions> {
        let bucket = self.bucket.as_ref().context("a bucket")?;
        Ok(bucket.options())
    }

    /// How often per second tokio-postgres alone gets a manifest by its tag.
    pub(crate) fn bare_pulls(
        &self,
        repository: &str,
        tags: &[String],
        tasks: usize,
        seconds: f64,
    ) -> Result<f64> {
        let postgres = self.postgres.as_ref().context("PostgreSQL")?;
        let time = std::time::Duration::from_secs_f64(seconds);
        Ok(postgres.bare_pulls(DATABASE, repository, tags, tasks, time))
    }
}
