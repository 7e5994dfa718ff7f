//! Ways to reach a PostgreSQL server: TLS with a private authority and client certificates, a password from a file, several
//! hosts with a standby that takes over, PgBouncer.

use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use wharf_meta::{Meta, PostgresOptions};
use wharf_testkit::test_server::{self, TestServer as Database, free_port};
use wharf_testkit::{Ca, Image, TestOptions, TestServer, Version};

/// Longest wait for something that comes by itself.
const PATIENCE: Duration = Duration::from_secs(60);

/// User and group of PostgreSQL, when this runs as root, as which it does not.
fn user() -> Option<(u32, u32)> {
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:"))?;
    let mut fields = line.split(':').skip(2).map(|field| field.parse().ok());
    let user = (fields.next()??, fields.next()??);
    let id = Command::new("id").arg("-u").output().ok()?;
    (id.stdout == b"0\n").then_some(user)
}

/// A folder that PostgreSQL may use.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    give(folder.path());
    folder
}

pub(crate) fn give(path: &Path) {
    if let Some((uid, gid)) = user() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

fn put(path: PathBuf, content: &str) -> PathBuf {
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    give(&path);
    path
}

fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir("/").stdin(Stdio::null());
    if let Some((uid, gid)) = user() {
        command.uid(uid).gid(gid);
    }
    command
}

/// A question to the server, which is none of the registry's.
fn look(at: &str) -> String {
    ["SELECT", at].join(" ")
}

/// A process that ends with this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn connects(url: &str, password_file: Option<&Path>) -> Result<(), String> {
    let options = PostgresOptions {
        password_file: password_file.map(Path::to_owned),
        start_patience: Duration::ZERO,
        ..PostgresOptions::new(url)
    };
    let (meta, _) = Meta::connect(options).await.map_err(|e| e.to_string())?;
    meta.close().await;
    Ok(())
}

/// What is asked for is what is checked: the server's name and authority, the client's certificate, the password.
#[tokio::test(flavor = "multi_thread")]
async fn tls_certificates_and_passwords_are_those_that_were_named() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let (ca, stranger) = (Ca::new(), Ca::new());
    let named = ca.issue();
    let (cert, key) = (
        put(path("s.pem"), &named.cert),
        put(path("s.key"), &named.key),
    );
    let root = put(path("ca.pem"), &ca.pem());
    let other_root = put(path("other.pem"), &stranger.pem());
    let client = ca.issue_for(&["client"]);
    let client = (
        put(path("c.pem"), &client.cert),
        put(path("c.key"), &client.key),
    );
    let foreign = stranger.issue_for(&["client"]);
    let foreign = (
        put(path("f.pem"), &foreign.cert),
        put(path("f.key"), &foreign.key),
    );
    let rules = "local all all trust\nhost all wharf 127.0.0.1/32 trust\n\
                 hostssl all certain 127.0.0.1/32 trust clientcert=verify-ca\n\
                 host all secret 127.0.0.1/32 scram-sha-256\n";
    let settings = [
        "ssl=on".to_owned(),
        format!("ssl_cert_file={}", cert.display()),
        format!("ssl_key_file={}", key.display()),
        format!("ssl_ca_file={}", root.display()),
        format!("hba_file={}", put(path("hba"), rules).display()),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let server: &'static Database =
        tokio::task::block_in_place(|| Box::leak(Box::new(Database::start(&settings))));
    let database = server.database();
    database.sql(
        "CREATE ROLE certain LOGIN; CREATE ROLE secret LOGIN PASSWORD 'pass word'; \
         GRANT ALL ON ALL TABLES IN SCHEMA public TO certain, secret; \
         GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO certain, secret",
    );
    let url = |user: &str, host: &str, more: &str| {
        let (port, name) = (server.port(), database.name());
        format!("postgres://{user}@{host}:{port}/{name}?{more}")
    };
    let rooted = |mode: &str, root: &Path| format!("sslmode={mode}&sslrootcert={}", root.display());
    let with = |(cert, key): &(PathBuf, PathBuf)| {
        let verified = rooted("verify-full", &root);
        format!(
            "{verified}&sslcert={}&sslkey={}",
            cert.display(),
            key.display()
        )
    };
    let password = put(path("password"), "pass word\n");
    let wrong = put(path("wrong"), "something else\n");
    let ok = Ok(());
    let verified = rooted("verify-full", &root);
    assert_eq!(
        connects(&url("wharf", "127.0.0.1", &verified), None).await,
        ok
    );
    assert_eq!(
        connects(&url("wharf", "localhost", &verified), None).await,
        ok
    );
    assert_eq!(
        connects(&url("wharf", "127.0.0.1", "sslmode=require"), None).await,
        ok
    );
    let told = connects(
        &url("wharf", "127.0.0.1", &rooted("verify-full", &other_root)),
        None,
    )
    .await;
    assert!(
        told.unwrap_err().contains("certificate"),
        "another authority"
    );

    assert_eq!(
        connects(&url("certain", "127.0.0.1", &with(&client)), None).await,
        ok
    );
    for (who, more) in [
        ("nobody's", verified.clone()),
        ("a stranger's", with(&foreign)),
    ] {
        let told = connects(&url("certain", "127.0.0.1", &more), None).await;
        assert!(told.is_err(), "{who} certificate was taken");
    }

    let secret = url("secret", "127.0.0.1", &verified);
    assert_eq!(connects(&secret, Some(&password)).await, ok);
    let told = connects(&secret, Some(&wrong)).await.unwrap_err();
    assert!(told.contains("password authentication failed"), "{told}");
    assert!(!told.contains("something else"), "{told}");
    let told = connects(&secret, Some(&path("absent"))).await.unwrap_err();
    assert!(
        told.contains("metadata.password_file: ")
            && told.contains("absent cannot be read: No such file"),
        "{told}"
    );
}

/// A standby that lagged behind takes over: the server finds the new primary by itself, and says what that means.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_takes_over_is_found_and_what_it_lacks_is_told() {
    let primary: &'static Database =
        tokio::task::block_in_place(|| Box::leak(Box::new(Database::start(&[]))));
    let database = primary.database();
    let (home, port) = (folder(), free_port());
    let bin = std::fs::read_dir("/usr/lib/postgresql").unwrap();
    let newest = bin
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok())
        .max()
        .unwrap();
    let bin = PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin"));
    let data = home.path().join("standby");
    let made = command(bin.join("pg_basebackup"))
        .args([
            "-h",
            "127.0.0.1",
            "-U",
            "wharf",
            "-X",
            "stream",
            "-R",
            "-c",
            "fast",
            "-p",
        ])
        .arg(primary.port().to_string())
        .arg("-D")
        .arg(&data)
        .output()
        .unwrap();
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
    let standby = command(bin.join("postgres"))
        .args([
            "-h",
            "127.0.0.1",
            "-p",
            &port.to_string(),
            "-c",
            "fsync=off",
            "-c",
            "max_connections=150",
            "-k",
        ])
        .arg(home.path())
        .arg("-D")
        .arg(&data)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _standby = Running(standby);
    let ask = async |sql: &str| {
        let url = format!(
            "host=127.0.0.1 port={port} user=wharf dbname={}",
            database.name()
        );
        let out = command(bin.join("psql"))
            .args(["-XAtc", sql, &url])
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };
    let until = async |sql: &str, wanted: &str| {
        let started = Instant::now();
        while ask(sql).await != wanted {
            assert!(started.elapsed() < PATIENCE, "{sql} is not {wanted}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    // The standby comes first: it must be passed over.
    let config = format!(
        "[metadata]\nurl = \"postgres://wharf@127.0.0.1:{port},127.0.0.1:{}/{}?target_session_attrs=read-write&sslmode=disable\"\n",
        primary.port(),
        database.name()
    );
    let server = TestServer::start(TestOptions {
        config,
        on_file: true,
        ..TestOptions::default()
    })
    .await;
    let client = server.admin(Version::Http1);
    client.push_image("team/app", "v1", &Image::random()).await;
    until(&look("COUNT(*) FROM tag"), "1").await;
    // It no longer hears of the primary.
    ask("ALTER SYSTEM SET primary_conninfo TO ''").await;
    ask(&look("pg_reload_conf()")).await;
    until(&look("COUNT(*) FROM pg_stat_wal_receiver"), "0").await;
    client.push_image("team/app", "v2", &Image::random()).await;
    tokio::task::block_in_place(|| primary.kill());
    ask(&look("pg_promote()")).await;

    let started = Instant::now();
    loop {
        let answer = client.get("/v2/team/app/manifests/v1").send().await;
        if answer.status == 200 {
            break;
        }
        answer.expect_error(503, "UNAVAILABLE");
        assert!(started.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    client
        .get("/v2/team/app/manifests/v2")
        .send()
        .await
        .expect_status(404);
    let reason = loop {
        let paused = wharf_core::gc::paused(&server.app().registry).await;
        if let Some(reason) = paused.unwrap() {
            break reason;
        }
        assert!(started.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(reason.contains("lost writes"), "{reason}");
    client.push_image("team/app", "v3", &Image::random()).await;
}

/// Behind a PgBouncer in transaction mode each transaction may meet another server process: with the key for it, all works.
#[tokio::test(flavor = "multi_thread")]
async fn pgbouncer_in_transaction_mode_is_enough() {
    let program = Path::new("/usr/sbin/pgbouncer");
    if !program.exists() {
        let told = "skipped: pgbouncer_in_transaction_mode_is_enough: apt-get install pgbouncer";
        let _ = writeln!(std::io::stderr(), "{told}");
        return;
    }
    let database = test_server::shared().database();
    let (home, port) = (folder(), free_port());
    let users = put(home.path().join("users"), "\"wharf\" \"\"\n");
    let config = format!(
        "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = trust\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = 3\n\
         server_reset_query_always = 0\nignore_startup_parameters = extra_float_digits,options\n",
        database.server().port(),
        users.display()
    );
    let config = put(home.path().join("pgbouncer.ini"), &config);
    let log = std::fs::File::create(home.path().join("log")).unwrap();
    let bouncer = command(program)
        .arg(&config)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn();
    let _bouncer = Running(bouncer.unwrap());
    let config = format!(
        "[metadata]\nurl = \"postgres://wharf@127.0.0.1:{port}/{}?sslmode=disable\"\nprepared_statements = false\n",
        database.name()
    );
    let server = TestServer::start(TestOptions {
        config,
        on_file: true,
        ..TestOptions::default()
    })
    .await;
    let pushes = (0..8).map(|n| {
        let client = server.admin(Version::ALL[n % 2]);
        async move {
            for round in 0..4 {
                let image = Image::random();
                let tag = format!("v{n}-{round}");
                client.push_image("team/app", &tag, &image).await;
                let got = client
                    .get(&crate::support::manifest("team/app", &tag))
                    .send()
                    .await
                    .expect_status(200);
                assert_eq!(got.body, image.manifest.bytes);
            }
        }
    });
    let mut tasks = tokio::task::JoinSet::new();
    for push in pushes {
        tasks.spawn(push);
    }
    tasks.join_all().await;
}
