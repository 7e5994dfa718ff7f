//! A PostgreSQL server for tests: the system's own (Debian: package `postgresql`), in a folder of its own.
//!
//! One for each test binary, with a database for each test. A shell stands between: it reads commands from a pipe, and when
//! the pipe ends, since the test binary did in whatever way, it ends the server and removes the folder. So nothing is left
//! running, and nothing on the disk.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::ops::manifest::BY_TAG;
use crate::{Meta, PostgresOptions};

/// Longest wait for a server that starts, on a machine that does much else.
const START: Duration = Duration::from_secs(120);

/// What the shell does; `$0` is the folder of the programs, `$1` the data, all else goes to the server.
const SHELL: &str = r#"
bin=$0; data=$1; shift
start() { "$bin/postgres" -D "$data" "$@" >>"$data/server.log" 2>&1 </dev/null & pid=$!; }
start "$@"
while read -r command; do
  case $command in
    kill) kill -STOP $pid; children=$(pgrep -P $pid); kill -9 $pid $children; wait $pid 2>/dev/null
      # A new server is refused while one of the old processes still has the shared memory.
      tries=0
      for child in $children; do
        while kill -0 $child 2>/dev/null && [ $tries -lt 500 ]; do sleep 0.02; tries=$((tries + 1)); done
      done
      rm -f "$data/postmaster.pid"; echo done ;;
    stop) kill -INT $pid; wait $pid; echo done ;;
    start) start "$@"; echo done ;;
  esac
done
kill -QUIT $pid 2>/dev/null; wait $pid 2>/dev/null
rm -rf "$data"
"#;

/// A running server.
pub struct TestServer {
    port: u16,
    shell: Mutex<(Child, ChildStdin, BufReader<ChildStdout>)>,
    template: OnceLock<()>,
    next: AtomicU32,
    folder: PathBuf,
}

impl std::fmt::Debug for TestServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TestServer({})", self.port)
    }
}

/// An empty database of a server, with Wharf's tables; dropped with this.
#[derive(Debug)]
pub struct TestDatabase {
    server: &'static TestServer,
    name: String,
}

impl TestDatabase {
    /// Its URL.
    pub fn url(&self) -> String {
        self.server.url(&self.name)
    }

    /// The server that it is on.
    pub fn server(&self) -> &'static TestServer {
        self.server
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes a table that is none of Wharf's.
    pub fn make_foreign(&self) {
        self.sql("CREATE TABLE somebody_elses (a INT)");
    }

    /// The names of its tables.
    pub fn tables(&self) -> String {
        let ask = "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class \
                   WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'";
        self.server.text(&self.name, ask).unwrap_or_default()
    }

    /// Runs statements as the superuser.
    pub fn sql(&self, sql: &str) {
        self.server.sql(&self.name, sql).expect("statements");
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // When the server was killed by its test, there is nothing to drop.
        let _ = self.server.sql(
            "postgres",
            &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name),
        );
    }
}

/// The server of this process.
pub fn shared() -> &'static TestServer {
    static SERVER: OnceLock<TestServer> = OnceLock::new();
    SERVER.get_or_init(|| TestServer::start(&[]))
}

/// The folder of the newest PostgreSQL's programs.
fn programs() -> PathBuf {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            bin.join("postgres").exists().then_some((version, bin))
        })
        .collect();
    found.sort();
    let (_, bin) = found
        .pop()
        .expect("PostgreSQL is needed for this test: apt-get install postgresql");
    bin
}

/// User and group to run as: the server refuses to run as root.
fn user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("the list of users");
    ["postgres", "nobody"].into_iter().find_map(|name| {
        let line = users
            .lines()
            .find(|line| line.strip_prefix(name).is_some_and(|r| r.starts_with(':')))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    })
}

/// The first port of those below.
const FIRST: u16 = 20_000;
/// So many ports, all below those that the system gives to outgoing connections.
const SPAN: u16 = 12_000;

/// A port of 127.0.0.1 that nothing listens on, for a program that is told its port: never the same twice, and none that an
/// outgoing connection may take before the program does.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() as u16).wrapping_mul(97);
    (0..SPAN)
        .map(|_| FIRST + first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % SPAN)
        .find(|&port| TcpListener::bind(("127.0.0.1", port)).is_ok())
        .expect("a free port")
}

impl TestServer {
    /// Starts one, with further settings (`name=value`).
    pub fn start(settings: &[&str]) -> TestServer {
        let bin = programs();
        let user = user();
        let folder = TempDir::new().expect("a folder").keep();
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid)).expect("chown");
        }
        let command = |program: &Path| {
            let mut command = Command::new(program);
            command.current_dir("/");
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command
        };
        let made = command(&bin.join("initdb"))
            .args([
                "-N",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "-U",
                "wharf",
                "-D",
            ])
            .arg(&folder)
            .output()
            .expect("initdb");
        assert!(
            made.status.success(),
            "initdb: {}",
            String::from_utf8_lossy(&made.stderr)
        );
        let port = free_port();
        let port_text = port.to_string();
        let socket = folder.to_str().expect("a path in UTF-8");
        let mut shell = command(Path::new("/bin/sh"));
        shell.args(["-c", SHELL]).arg(&bin).arg(&folder).args([
            "-p",
            &port_text,
            "-k",
            socket,
            "-h",
            "127.0.0.1",
        ]);
        // What a power cut takes matters to no test; a kill of the server takes nothing.
        for setting in [
            "fsync=off",
            "full_page_writes=off",
            "max_connections=150",
            "shared_buffers=64MB",
        ]
        .iter()
        .chain(settings)
        {
            shell.args(["-c", setting]);
        }
        let mut child = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let pipes = (
            child.stdin.take().expect("a pipe"),
            BufReader::new(child.stdout.take().expect("a pipe")),
        );
        let server = TestServer {
            port,
            shell: Mutex::new((child, pipes.0, pipes.1)),
            template: OnceLock::new(),
            next: AtomicU32::new(1),
            folder,
        };
        server.wait();
        server
    }

    /// The URL of a database as the superuser.
    pub fn url(&self, database: &str) -> String {
        format!(
            "postgres://wharf@127.0.0.1:{}/{database}?sslmode=disable",
            self.port
        )
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it keeps its data.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A database with Wharf's tables and nothing in them.
    pub fn database(&'static self) -> TestDatabase {
        self.template.get_or_init(|| {
            self.sql("postgres", "CREATE DATABASE template_wharf")
                .expect("a template");
            let url = self.url("template_wharf");
            apart(async move {
                let (meta, opened) = Meta::connect(PostgresOptions::new(url))
                    .await
                    .expect("a store");
                assert!(opened.fresh);
                meta.close().await;
            });
        });
        let name = format!("test_{}", self.next.fetch_add(1, Ordering::Relaxed));
        let make = format!("CREATE DATABASE {name} TEMPLATE template_wharf STRATEGY FILE_COPY");
        let started = Instant::now();
        // Until the server has seen that the template's last user went.
        while let Err(error) = self.sql("postgres", &make) {
            assert!(started.elapsed() < START, "{error}");
            std::thread::sleep(Duration::from_millis(20));
        }
        TestDatabase { server: self, name }
    }

    /// A database with nothing at all in it.
    pub fn empty(&'static self, options: &str) -> TestDatabase {
        let name = format!("test_{}", self.next.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name} {options}"))
            .expect("a database");
        TestDatabase { server: self, name }
    }

    /// Runs statements in a database as the superuser, each message by itself.
    pub fn sql(&self, database: &str, sql: &str) -> Result<(), String> {
        let (url, sql) = (self.url(database), sql.to_owned());
        apart(async move {
            let (client, driver) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
                .await
                .map_err(|e| crate::engine::postgres::source(&e))?;
            let driver = tokio::spawn(driver);
            let done = client
                .batch_execute(&sql)
                .await
                .map_err(|e| crate::engine::postgres::source(&e));
            drop(client);
            let _ = driver.await;
            done
        })
    }

    /// The first column of the first row, as text; `None`: there is no row, or the server is down.
    pub fn text(&self, database: &str, sql: &str) -> Option<String> {
        let (url, sql) = (self.url(database), sql.to_owned());
        apart(async move {
            let (client, driver) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
                .await
                .ok()?;
            let driver = tokio::spawn(driver);
            let rows = client.simple_query(&sql).await.ok()?;
            drop(client);
            let _ = driver.await;
            rows.into_iter().find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
                _ => None,
            })
        })
    }

    /// How many connections of registries a database has: what one that was killed asked for last may be committed until it is none.
    pub fn registries(&self, database: &str) -> u32 {
        let ask = format!(
            "SELECT count(*)::text FROM pg_stat_activity WHERE datname = '{database}' AND application_name = 'wharf'"
        );
        let count = self.text("postgres", &ask);
        count.map_or(0, |count| count.parse().expect("a number"))
    }

    /// How often per second tokio-postgres alone gets a manifest by its tag: the statement of every pull, asked for these
    /// tags in turn by so many tasks over as many connections as [`Meta`] reads by. For benchmarks.
    pub fn bare_pulls(
        &self,
        database: &str,
        repository: &str,
        tags: &[String],
        tasks: usize,
        time: Duration,
    ) -> f64 {
        let options = PostgresOptions::new(self.url(database));
        let (readers, url) = (options.readers as usize, self.url(database));
        let (repository, tags) = (Arc::new(repository.to_owned()), Arc::new(tags.to_vec()));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let work = async move {
            let mut clients = Vec::new();
            for _ in 0..readers {
                let (client, driver) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
                    .await
                    .expect("a connection");
                tokio::spawn(driver);
                let statement = client.prepare(BY_TAG).await.expect("a statement");
                clients.push((Arc::new(client), statement));
            }
            let begun = Instant::now();
            let all: Vec<_> = (0..tasks)
                .map(|task| {
                    let (client, statement) = clients[task % readers].clone();
                    let (repository, tags) = (repository.clone(), tags.clone());
                    tokio::spawn(async move {
                        let mut done = 0_usize;
                        while begun.elapsed() < time {
                            let tag = &tags[(done * tasks + task) % tags.len()];
                            let row = client
                                .query_one(&statement, &[&*repository, tag])
                                .await
                                .expect("the manifest");
                            assert!(!row.get::<_, &[u8]>(3).is_empty());
                            done += 1;
                        }
                        done
                    })
                })
                .collect();
            let mut done = 0;
            for task in all {
                done += task.await.expect("no panic");
            }
            done as f64 / begun.elapsed().as_secs_f64()
        };
        std::thread::spawn(move || runtime.block_on(work))
            .join()
            .expect("no panic")
    }

    fn tell(&self, command: &str) {
        let mut shell = self.shell.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(shell.1, "{command}").expect("the shell");
        let mut line = String::new();
        shell.2.read_line(&mut line).expect("the shell");
        assert_eq!(line, "done\n");
    }

    /// Kills all its processes with SIGKILL.
    pub fn kill(&self) {
        self.tell("kill");
    }

    /// Ends it in order, cutting all connections.
    pub fn stop(&self) {
        self.tell("stop");
    }

    /// Starts it again, at the same port over the same data, and waits until it answers.
    pub fn again(&self) {
        self.tell("start");
        self.wait();
    }

    fn wait(&self) {
        let started = Instant::now();
        while let Err(error) = self.sql("postgres", "SELECT 1") {
            assert!(
                started.elapsed() < START,
                "{error}\n{}",
                std::fs::read_to_string(self.folder.join("server.log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Runs something on a runtime of its own, whatever runtime the caller is on.
fn apart<F>(work: F) -> F::Output
where
    F: Future<Output: Send> + Send + 'static,
{
    std::thread::spawn(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
            .block_on(work)
    })
    .join()
    .expect("no panic")
}
