//! What a cluster is made of: PostgreSQL, an S3 server or a folder, replicas of Wharf that share nothing else, and nginx before
//! them without stickiness. The database and the bucket are reached through a [`Proxy`].

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use wharf_meta::test_server::{TestServer, free_port};

use super::Store;
use super::proxy::Proxy;
use crate::e2e::process::Daemon;
use crate::endure::http::{Body, Connection};
use crate::endure::registry::{Registry, Site};
use crate::run;

/// What seals the secrets in the database: 32 bytes in base64.
const SECRET_KEY: &str = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=";
/// The bucket.
pub(crate) const BUCKET: &str = "wharf";
/// Who may use it.
const KEY: &str = "wharf-cluster";
const SECRET: &str = "wharf-cluster-secret";

/// A replica, and whether it runs.
pub(crate) struct Replica {
    site: Site,
    running: Option<Registry>,
    frozen: bool,
}

impl Replica {
    /// Its own address, past nginx.
    pub(crate) fn port(&self) -> u16 {
        self.site.port
    }

    /// One that started while a store was away has ended by itself, as it should.
    fn notice(&mut self) {
        if self.running.as_mut().is_some_and(Registry::has_ended) {
            self.running = None;
            self.frozen = false;
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.notice();
        self.frozen = false;
        self.running.take().map_or(Ok(()), Registry::kill)
    }

    /// SIGTERM; running requests are finished first.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.thaw()?;
        match self.running.take() {
            // Still on its way up: SIGTERM is an end, too, but no orderly one.
            Some(running) if !running.is_ready() => running.kill(),
            Some(running) => running.stop(),
            None => Ok(()),
        }
    }

    /// SIGSTOP: it knows nothing of the time that passes.
    pub(crate) fn freeze(&mut self) -> Result<()> {
        self.notice();
        if let Some(running) = &self.running {
            running.signal(Signal::STOP)?;
            self.frozen = true;
        }
        Ok(())
    }

    /// SIGCONT.
    pub(crate) fn thaw(&mut self) -> Result<()> {
        self.notice();
        if let Some(running) = self.running.as_ref().filter(|_| self.frozen) {
            running.signal(Signal::CONT)?;
        }
        self.frozen = false;
        Ok(())
    }

    /// Its next start is of another program.
    pub(crate) fn becomes(&mut self, binary: &Path) {
        self.site.binary = binary.to_owned();
    }

    /// Starts it if it does not run, without waiting.
    pub(crate) fn start(&mut self) -> Result<()> {
        self.notice();
        if self.running.is_none() {
            self.running = Some(self.site.start(&[])?);
        }
        Ok(())
    }

    /// Waits until it serves. One that ended by itself, since a store was away when it started, is started again.
    pub(crate) fn ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            self.start()?;
            let Some(running) = &mut self.running else {
                continue;
            };
            match running.ready() {
                Ok(()) => return Ok(()),
                Err(error) if begun.elapsed() > Duration::from_secs(60) => return Err(error),
                Err(_) => {
                    self.kill()?;
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
        }
    }
}

/// All of it. Dropped, it ends everything.
pub(crate) struct Bed {
    pub(crate) replicas: Vec<Replica>,
    /// Where clients go.
    pub(crate) port: u16,
    pub(crate) postgres: TestServer,
    pub(crate) to_postgres: Proxy,
    /// None: the replicas keep their blobs in a folder.
    pub(crate) to_s3: Option<Proxy>,
    pub(crate) front: Front,
    _s3: Option<Daemon>,
}

impl Bed {
    /// A cluster of so many replicas in a folder.
    pub(crate) fn start(
        binary: &Path,
        folder: &Path,
        replicas: usize,
        store: Store,
    ) -> Result<Bed> {
        let postgres = TestServer::start(&[]);
        let to_postgres = Proxy::start(postgres.port())?;
        let mut environment = vec![(
            "WHARF__METADATA__URL".to_owned(),
            format!(
                "postgres://wharf@127.0.0.1:{}/postgres?sslmode=disable",
                to_postgres.port
            ),
        )];
        environment.push((
            "WHARF__ACCESS__SECRET_KEY".to_owned(),
            SECRET_KEY.to_owned(),
        ));
        let (s3, to_s3) = match store {
            Store::Folder => {
                let blobs = folder.join("blobs");
                std::fs::create_dir(&blobs)?;
                let blobs = blobs.display().to_string();
                environment.push(("WHARF__STORAGE__FOLDER".to_owned(), blobs));
                (None, None)
            }
            Store::S3 => {
                let (daemon, port) = s3(folder)?;
                let proxy = Proxy::start(port)?;
                environment.extend(s3_environment(proxy.port));
                (Some(daemon), Some(proxy))
            }
        };
        let mut sites = Vec::new();
        for number in 0..replicas {
            let folder = folder.join(format!("replica-{number}"));
            std::fs::create_dir(&folder)?;
            sites.push(Replica {
                site: Site::new(binary, &folder)?.with_environment(&environment),
                running: None,
                frozen: false,
            });
        }
        let port = free_port();
        let front = Front::start(folder, port, &sites)?;
        let mut bed = Bed {
            replicas: sites,
            port,
            postgres,
            to_postgres,
            to_s3,
            front,
            _s3: s3,
        };
        // All at once on an empty database: whoever comes first makes it.
        for replica in &mut bed.replicas {
            replica.start()?;
        }
        bed.ready()?;
        Ok(bed)
    }

    /// The schema of the database.
    pub(crate) fn schema(&self) -> Option<String> {
        let ask = "SELECT max(number)::text FROM migration";
        self.postgres.text("postgres", ask)
    }

    /// Starts what does not run and waits until every replica serves.
    pub(crate) fn ready(&mut self) -> Result<()> {
        for replica in &mut self.replicas {
            replica.ready()?;
        }
        Ok(())
    }
}

/// The configuration that makes a server use the bucket of [`s3`].
pub(crate) fn s3_environment(port: u16) -> Vec<(String, String)> {
    [
        ("KIND", "s3".to_owned()),
        ("S3__BUCKET", BUCKET.to_owned()),
        ("S3__REGION", "us-east-1".to_owned()),
        ("S3__PATH_STYLE", "true".to_owned()),
        ("S3__ENDPOINT", format!("http://127.0.0.1:{port}")),
        ("S3__ACCESS_KEY_ID", KEY.to_owned()),
        ("S3__SECRET_ACCESS_KEY", SECRET.to_owned()),
    ]
    .into_iter()
    .map(|(key, value)| (format!("WHARF__STORAGE__{key}"), value))
    .collect()
}

fn program(name: &str) -> Result<PathBuf> {
    run::find(name).with_context(|| format!("{name} is missing: cargo xtask clients {name}"))
}

/// MinIO with an empty bucket.
pub(crate) fn s3(folder: &Path) -> Result<(Daemon, u16)> {
    let (port, data) = (free_port(), folder.join("s3"));
    std::fs::create_dir_all(data.join(BUCKET))?;
    let mut command = Command::new(program("minio")?);
    command
        .args(["server", "--quiet", "--address"])
        .arg(format!("127.0.0.1:{port}"))
        .arg(&data)
        .env("MINIO_ROOT_USER", KEY)
        .env("MINIO_ROOT_PASSWORD", SECRET)
        .env("MINIO_BROWSER", "off");
    let mut daemon = Daemon::start("minio", &mut command, &folder.join("s3.log"))?;
    daemon.wait_until(|| answers(port, "/minio/health/ready"))?;
    Ok((daemon, port))
}

fn answers(port: u16, path: &str) -> bool {
    Connection::open(port)
        .and_then(|mut open| open.send("GET", path, &[], Body::None))
        .is_ok_and(|answer| answer.status == 200)
}

/// nginx: each request to the next replica. It asks nobody twice, so that a request has one outcome; a replica that does
/// not answer costs its client a 502 or 504.
pub(crate) struct Front {
    daemon: Daemon,
    place: PathBuf,
    port: u16,
    replicas: Vec<u16>,
}

impl Front {
    fn start(folder: &Path, port: u16, replicas: &[Replica]) -> Result<Front> {
        if replicas.is_empty() {
            bail!("a cluster needs a replica");
        }
        let place = folder.join("front");
        std::fs::create_dir(&place)?;
        let replicas: Vec<u16> = replicas.iter().map(Replica::port).collect();
        write(&place, port, &replicas, None)?;
        let mut command = Command::new(program("nginx")?);
        command.arg("-p").arg(&place).arg("-c").arg(file(&place));
        let mut daemon = Daemon::start("nginx", &mut command, &place.join("log"))?;
        daemon.wait_until(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(Front {
            daemon,
            place,
            port,
            replicas,
        })
    }

    /// Sends new requests to all replicas but this one, and waits until nginx does so.
    pub(crate) fn leave_out(&mut self, replica: Option<usize>) -> Result<()> {
        let before = self.workers()?;
        write(&self.place, self.port, &self.replicas, replica)?;
        let nginx = Pid::from_raw(i32::try_from(self.daemon.pid())?).context("nginx")?;
        kill_process(nginx, Signal::HUP)?;
        let begun = Instant::now();
        // The old worker ends when its last request is answered.
        while self.workers()?.iter().any(|worker| before.contains(worker)) {
            if begun.elapsed() > RELOAD {
                bail!("nginx did not take up its configuration");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Its workers' processes.
    fn workers(&self) -> Result<Vec<String>> {
        let id = self.daemon.pid();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"))?;
        Ok(children.split_whitespace().map(str::to_owned).collect())
    }
}

/// Longest wait for nginx to answer what the old configuration let in.
const RELOAD: Duration = Duration::from_secs(60);

fn file(place: &Path) -> PathBuf {
    place.join("nginx.conf")
}

fn write(place: &Path, port: u16, replicas: &[u16], without: Option<usize>) -> Result<()> {
    let shown = place.display();
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let server = |(at, replica): (usize, &u16)| {
        let down = if without == Some(at) { " down" } else { "" };
        format!("server 127.0.0.1:{replica} max_fails=0{down}; ")
    };
    let servers: String = replicas.iter().enumerate().map(server).collect();
    let config = format!(
        "daemon off; {user} worker_processes 1; pid {shown}/pid; error_log {shown}/error.log crit;
events {{ worker_connections 2000; }}
http {{
  access_log off; keepalive_requests 1000000; keepalive_timeout 600s; client_max_body_size 0; proxy_request_buffering off; proxy_buffering off; proxy_http_version 1.1;
  client_body_temp_path {shown}/b; proxy_temp_path {shown}/p; fastcgi_temp_path {shown}/f;
  uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s;
  upstream wharf {{ {servers} }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://wharf; proxy_set_header Host $http_host; proxy_next_upstream off;
      proxy_connect_timeout 2s; proxy_read_timeout 20s; proxy_send_timeout 20s;
    }}
  }}
}}
"
    );
    Ok(std::fs::write(file(place), config)?)
}
