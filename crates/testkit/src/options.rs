//! How a server under test is set up, in this process or as a child: flags, environment and a configuration file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wharf_core::clock::ManualClock;
use wharf_meta::test_server::{self, TestDatabase};

use crate::ca::Ca;
use crate::s3::S3;

/// The administrator of every server under test.
pub const ADMIN: &str = "admin";
/// Its password.
pub const ADMIN_PASSWORD: &str = "correct-horse-battery";

/// What seals the secrets of servers that share a database: 32 bytes that everybody can read here.
pub const SECRET_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";

/// Set to `postgres`, this variable has every server under test keep its metadata there, in a database of its own.
pub const METADATA: &str = "WHARF_TEST_METADATA";

/// Whether servers under test keep their metadata in PostgreSQL unless a test says otherwise.
pub fn on_postgres() -> bool {
    std::env::var_os(METADATA).is_some_and(|engine| engine == "postgres")
}

/// Set to `s3`, this variable has every server under test keep its blobs in a bucket, except those whose test is about files.
pub const STORE: &str = "WHARF_TEST_STORE";

/// Whether servers under test keep their blobs in a bucket unless a test says otherwise.
pub fn on_bucket() -> bool {
    std::env::var_os(STORE).is_some_and(|store| store == "s3")
}

/// What differs from a server that was started without any configuration.
#[derive(Clone, Default)]
pub struct TestOptions {
    /// Serves TLS with a certificate of the test's own authority.
    pub tls: bool,
    /// What people without credentials may do.
    pub anonymous: Option<&'static str>,
    /// Names and passwords of an htpasswd file.
    pub htpasswd: Vec<(&'static str, &'static str)>,
    /// What the users of that file may do everywhere.
    pub htpasswd_role: Option<&'static str>,
    /// Name, role and prefix of repositories, or an empty prefix for all of them.
    pub grants: Vec<(&'static str, &'static str, &'static str)>,
    /// Further configuration, TOML.
    pub config: String,
    /// Blobs are files whatever [`STORE`] says: the test looks at them, damages them, or is about what files cost.
    pub files: bool,
    /// A folder that keeps the blobs, below the server's own or anywhere, for as many servers as there are.
    pub shared: Option<PathBuf>,
    /// A bucket that keeps the blobs instead of files.
    pub s3: Option<Arc<S3>>,
    /// Listens on a Unix socket too, `wharf.sock` in its folder. Only for servers in this process.
    pub unix: bool,
    /// Time as the test wants it. Only for servers in this process.
    pub clock: Option<Arc<ManualClock>>,
    /// Where the metadata is kept; none: as [`METADATA`] says.
    pub database: Option<Arc<TestDatabase>>,
    /// Several servers share the database, and so the key that seals its secrets.
    pub replicated: bool,
    /// The metadata is kept in a file, whatever [`METADATA`] says: for tests that are about this file.
    pub on_file: bool,
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found
}

/// One flag of `wharf serve`: its configuration key, its name, its value.
pub(crate) type Flag = (&'static str, &'static str, String);

impl TestOptions {
    /// What a test about files needs.
    pub fn on_files() -> Self {
        Self {
            files: true,
            ..Self::default()
        }
    }

    /// With a bucket of its own, when [`STORE`] asks all tests to run on one.
    pub(crate) async fn on_chosen_store(mut self) -> Self {
        if on_bucket() && !self.files && self.s3.is_none() {
            self.s3 = Some(Arc::new(S3::start().await));
        }
        self
    }

    /// Where the blobs are that are no rows: in the bucket, or below `folder`.
    pub(crate) fn kept_blobs(&self, folder: &Path) -> Vec<PathBuf> {
        match &self.s3 {
            Some(s3) => {
                let mut objects = s3.objects();
                objects.retain(|object| object.starts_with("blobs"));
                objects
            }
            None => match &self.shared {
                Some(shared) => files(&folder.join(shared).join("blobs")),
                None => files(&folder.join("data/blobs")),
            },
        }
    }

    /// Writes the files that the server reads and gives back its flags, without `--listen`.
    pub(crate) fn write(&self, folder: &Path, ca: &Ca) -> Vec<Flag> {
        let text = |path: PathBuf| path.to_str().expect("a path in UTF-8").to_owned();
        let put = |name: &str, content: String| {
            let path = folder.join(name);
            std::fs::write(&path, content).unwrap_or_else(|error| panic!("write {name}: {error}"));
            text(path)
        };
        let mut flags = vec![("server.data", "data", text(folder.join("data")))];
        let mut config = self.config.clone();
        for (who, role, on) in &self.grants {
            write!(
                config,
                "\n[[access.grant]]\nwho = {who:?}\nrole = {role:?}\n"
            )
            .expect("writing to a string");
            if !on.is_empty() {
                writeln!(config, "on = {on:?}").expect("writing to a string");
            }
        }
        put("wharf.toml", config);
        if let Some(role) = self.anonymous {
            flags.push(("access.anonymous", "anonymous", role.into()));
        }
        if !self.htpasswd.is_empty() {
            let line = |(name, password): &(&str, &str)| {
                // The lowest cost: these passwords are public. One salt, so that replicas have the same file.
                let hash = bcrypt::hash_with_salt(password, 4, [7; 16]);
                let hash = hash.expect("a password that bcrypt takes").to_string();
                format!("{name}:{hash}\n")
            };
            flags.push((
                "access.htpasswd.file",
                "htpasswd",
                put("htpasswd", self.htpasswd.iter().map(line).collect()),
            ));
        }
        if self.tls {
            let (cert, key) = ca.issue().write(folder);
            flags.extend([
                ("tls.cert", "tls-cert", text(cert)),
                ("tls.key", "tls-key", text(key)),
            ]);
        }
        flags
    }

    /// The same with a database, if this run of the tests wants one.
    pub(crate) fn with_database(mut self) -> TestOptions {
        self.replicated = self.database.is_some();
        // Where several processes share a database its clock counts, which no test can set.
        if self.database.is_none() && self.clock.is_none() && on_postgres() && !self.on_file {
            self.database = Some(Arc::new(test_server::shared().database()));
            // Whatever is no test about files is one of a folder that others might use, too.
            if !self.files && !on_bucket() && self.s3.is_none() {
                self.shared.get_or_insert_with(|| "shared".into());
            }
        }
        self
    }

    /// Variables of the environment.
    pub(crate) fn environment(&self, folder: &Path) -> Vec<(&'static str, String)> {
        let mut variables = vec![("WHARF_ADMIN_PASSWORD", ADMIN_PASSWORD.to_owned())];
        if let Some(database) = &self.database {
            variables.push(("WHARF_METADATA_URL", database.url()));
        }
        if self.replicated && !self.config.contains("secret_key") {
            variables.push(("WHARF__ACCESS__SECRET_KEY", SECRET_KEY.to_owned()));
        }
        if let Some(role) = self.htpasswd_role {
            variables.push(("WHARF__ACCESS__HTPASSWD__ROLE", role.into()));
        }
        if let Some(shared) = &self.shared {
            let shared = folder.join(shared);
            std::fs::create_dir_all(&shared).expect("a folder for blobs");
            let path = shared.to_str().expect("a path in UTF-8");
            variables.push(("WHARF__STORAGE__FOLDER", path.to_owned()));
        }
        if let Some(s3) = &self.s3 {
            variables.extend(s3.environment());
        }
        variables
    }
}
