//! The servers that are compared: how each is started in a folder of its own, with the same durable settings.
//!
//! One runs at a time. What a figure needs beyond the plain server (TLS, passwords, a request log, a slow disk) is a
//! [`Setup`], so that the same filled folder can be served in several ways.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use wharf_meta::test_server::free_port;

use super::behind::{Behind, Services};
use super::client::Client;
use super::tls;
use super::usage::Meter;
use crate::e2e::process::Daemon;
use crate::e2e::site::certificates;
use crate::run;

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The program under test.
    Wharf,
    /// Static files: the limit for reading.
    Nginx,
    /// Receive, hash, write and nothing else: the limit for pushing.
    Reference,
    /// The reference registry.
    Distribution,
    /// angos, when its program is given.
    Angos,
    /// zot, when its program is given.
    Zot,
}

impl Kind {
    /// How tables call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Wharf => "Wharf",
            Kind::Nginx => "nginx",
            Kind::Reference => "pipeline",
            Kind::Distribution => "Distribution",
            Kind::Angos => "angos",
            Kind::Zot => "zot",
        }
    }

    /// Whether it is a registry.
    pub(crate) fn is_registry(self) -> bool {
        !matches!(self, Kind::Nginx | Kind::Reference)
    }
}

/// How a server is started, beyond the plain one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Setup {
    /// TLS on the port.
    pub(crate) tls: bool,
    /// Nothing without credentials.
    pub(crate) credentials: bool,
    /// With its log of requests.
    pub(crate) request_log: bool,
    /// Files are read by other threads than connections (nginx: `aio threads`).
    pub(crate) cold: bool,
    /// 2 ms more for each flush.
    pub(crate) slow_flush: bool,
    /// Counts flushes.
    pub(crate) count_flushes: bool,
    /// Where what it keeps lies.
    pub(crate) behind: Behind,
}

/// The programs that take part.
pub(crate) struct Programs(Vec<(Kind, PathBuf)>);

impl Programs {
    /// Of those found or given.
    pub(crate) fn new(all: Vec<(Kind, PathBuf)>) -> Programs {
        Programs(all)
    }

    /// Whether `kind` can be started.
    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.0.iter().any(|(k, _)| *k == kind)
    }

    /// Its program.
    pub(crate) fn path(&self, kind: Kind) -> Result<&Path> {
        self.0
            .iter()
            .find(|(k, _)| *k == kind)
            .map(|(_, path)| path.as_path())
            .with_context(|| format!("no program of {}", kind.name()))
    }
}

/// Name and password of the one user.
pub(crate) const USER: (&str, &str) = ("alice", "alice-password");
/// The same with bcrypt at its lowest cost: the figures are not about guessing passwords.
const HTPASSWD: &str = "alice:$2b$06$WoO.MK1uPkME4iY2NmkYvOOdbTF5skRAt6VmVNimC2N9vdnlxsnOq\n";

/// A running server.
pub(crate) struct Site {
    /// Who it is.
    pub(crate) kind: Kind,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its folder.
    pub(crate) dir: PathBuf,
    /// How it was started.
    pub(crate) setup: Setup,
    /// Time from its start to its first answer.
    pub(crate) ready_after: std::time::Duration,
    /// What stands behind it.
    pub(crate) services: Services,
    tls: Option<Arc<rustls::ClientConfig>>,
    program: PathBuf,
    daemon: Daemon,
}

impl Site {
    /// Starts `kind` on what lies in `dir`, and waits until it answers.
    pub(crate) fn start(programs: &Programs, kind: Kind, dir: &Path, setup: Setup) -> Result<Site> {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let services = Services::start(setup.behind, kind == Kind::Wharf, dir)?;
        Site::launch(programs.path(kind)?, kind, dir, setup, services)
    }

    fn launch(
        program: &Path,
        kind: Kind,
        dir: &Path,
        setup: Setup,
        services: Services,
    ) -> Result<Site> {
        let ca = dir.join("ca/ca.crt");
        if setup.tls && !ca.exists() {
            certificates(dir)?;
        }
        let listen = format!("127.0.0.1:{}", free_port());
        let command = match kind {
            Kind::Wharf => wharf(program, dir, &listen, setup, &services)?,
            Kind::Nginx => nginx(program, dir, &listen, setup)?,
            Kind::Distribution => distribution(program, dir, &listen, setup, &services)?,
            Kind::Reference => reference(program, dir, &listen),
            Kind::Angos => angos(program, dir, &listen)?,
            Kind::Zot => zot(program, dir, &listen)?,
        };
        let mut command = traced(command, dir, setup)?;
        let address: SocketAddr = listen.parse()?;
        let tls = if setup.tls {
            Some(tls::config(&ca, &[b"http/1.1"])?)
        } else {
            None
        };
        let start = std::time::Instant::now();
        let mut daemon = Daemon::start(kind.name(), &mut command, &dir.join("server.log"))?;
        let mut ready_after = start.elapsed();
        daemon.wait_until(|| {
            // Closer together than the daemon's own patience, so that the time to ready is seen.
            for _ in 0..20 {
                if answers(kind, address, tls.as_ref()) {
                    ready_after = start.elapsed();
                    return true;
                }
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            false
        })?;
        Ok(Site {
            kind,
            address,
            dir: dir.to_path_buf(),
            setup,
            ready_after,
            services,
            tls,
            program: program.to_path_buf(),
            daemon,
        })
    }

    /// A connection to it.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.address, self.tls.clone())
    }

    /// The authority that signed its certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        self.dir.join("ca/ca.crt")
    }

    /// Starts to measure it.
    pub(crate) fn meter(&self) -> Meter {
        Meter::start(self.daemon.pid())
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// The folder that holds its data.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Ends it by `kill -9` and starts it again on the same folder.
    pub(crate) fn kill_and_restart(mut self) -> Result<Site> {
        self.daemon.kill();
        Site::launch(
            &self.program,
            self.kind,
            &self.dir,
            self.setup,
            self.services,
        )
    }
}

fn answers(kind: Kind, address: SocketAddr, tls: Option<&Arc<rustls::ClientConfig>>) -> bool {
    if TcpStream::connect(address).is_err() {
        return false;
    }
    let path = if kind == Kind::Wharf {
        "/readyz"
    } else {
        "/v2/"
    };
    Client::new(address, tls.cloned())
        .get(path)
        .is_ok_and(|answer| answer.status < 500)
}

/// Puts `strace` in front when flushes are slowed down or counted. It detaches, so that the server stays our child.
fn traced(command: Command, dir: &Path, setup: Setup) -> Result<Command> {
    if !setup.slow_flush && !setup.count_flushes {
        return Ok(command);
    }
    let program = run::find("strace").context("no strace: cargo xtask clients strace")?;
    let mut traced = Command::new(program);
    traced.args(["-D", "-f", "-q", "--seccomp-bpf", "-e"]);
    traced.args(["trace=fsync,fdatasync,sync_file_range,syncfs,msync", "-o"]);
    traced.arg(dir.join("flushes.log"));
    if setup.slow_flush {
        traced.arg("--inject=fsync,fdatasync,syncfs,msync:delay_exit=2000");
    }
    traced
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            traced.env(name, value);
        }
    }
    if let Some(dir) = command.get_current_dir() {
        traced.current_dir(dir);
    }
    Ok(traced)
}

fn wharf(
    program: &Path,
    dir: &Path,
    listen: &str,
    setup: Setup,
    services: &Services,
) -> Result<Command> {
    let level = if setup.request_log { "info" } else { "warn" };
    // One client asks for more than any may, and rates have their cost all the same.
    let rates = "token = \"1000000/s\"\nreads = \"1000000/s\"\nwrites = \"1000000/s\"";
    let mut config = format!(
        "[log]\nlevel = \"{level}\"\n\n[limits]\nconnections = 20000\n\n[rate_limits]\n{rates}\n\n[access]\n"
    );
    if setup.credentials {
        std::fs::write(dir.join("htpasswd"), HTPASSWD)?;
        config += "anonymous = \"none\"\n\n[access.htpasswd]\nfile = \"htpasswd\"\nrole = \"maintainer\"\n";
    } else {
        config += "anonymous = \"maintainer\"\n";
    }
    if setup.tls {
        config += "\n[tls]\ncert = \"tls.crt\"\nkey = \"tls.key\"\n";
    }
    config += &services.wharf();
    std::fs::write(dir.join("wharf.toml"), config)?;
    let mut command = Command::new(program);
    command
        .arg("serve")
        .arg("--data")
        .arg(dir.join("data"))
        .args(["--listen", listen, "--config", "wharf.toml"])
        .env("WHARF_ADMIN_PASSWORD", "admin-password")
        .current_dir(dir);
    Ok(command)
}

fn distribution(
    program: &Path,
    dir: &Path,
    listen: &str,
    setup: Setup,
    services: &Services,
) -> Result<Command> {
    let shown = dir.display();
    let driver = services
        .distribution()
        .unwrap_or_else(|| format!("  filesystem:\n    rootdirectory: {shown}/data\n"));
    let mut config = format!(
        "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  delete:\n    enabled: true\n  cache:\n    blobdescriptor: inmemory\n{driver}http:\n  addr: {listen}\n"
    );
    if setup.tls {
        config += &format!("  tls:\n    certificate: {shown}/tls.crt\n    key: {shown}/tls.key\n");
    }
    if setup.credentials {
        std::fs::write(dir.join("htpasswd"), HTPASSWD)?;
        config += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {shown}/htpasswd\n");
    }
    std::fs::write(dir.join("config.yml"), config)?;
    let mut command = Command::new(program);
    command
        .arg("serve")
        .arg(dir.join("config.yml"))
        .env("OTEL_TRACES_EXPORTER", "none")
        .current_dir(dir);
    Ok(command)
}

fn nginx(program: &Path, dir: &Path, listen: &str, setup: Setup) -> Result<Command> {
    let shown = dir.display();
    std::fs::create_dir_all(dir.join("data"))?;
    let (ssl, certificate) = if setup.tls {
        (
            " ssl http2",
            format!("ssl_certificate {shown}/tls.crt; ssl_certificate_key {shown}/tls.key;"),
        )
    } else {
        ("", String::new())
    };
    let aio = if setup.cold { "aio threads;" } else { "" };
    let user = if rustix::process::geteuid().is_root() {
        "user root;"
    } else {
        ""
    };
    let config = format!(
        "daemon off; {user} worker_processes auto; pid {shown}/nginx.pid; error_log {shown}/nginx-error.log warn;
events {{ worker_connections 20000; }}
worker_rlimit_nofile 40000;
http {{
  access_log off; sendfile on; tcp_nopush on; open_file_cache max=2000; {aio}
  keepalive_requests 10000; keepalive_timeout 120s; default_type application/octet-stream;
  client_body_temp_path {shown}/nginx-body; proxy_temp_path {shown}/nginx-proxy; fastcgi_temp_path {shown}/nginx-f;
  uwsgi_temp_path {shown}/nginx-u; scgi_temp_path {shown}/nginx-s;
  server {{
    listen {listen}{ssl} backlog=4096; {certificate}
    root {shown}/data;
    location ~ /manifests/ {{ default_type application/vnd.oci.image.manifest.v1+json; }}
  }}
}}
"
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, config)?;
    let mut command = Command::new(program);
    command.arg("-p").arg(dir).arg("-c").arg(file);
    Ok(command)
}

fn reference(program: &Path, dir: &Path, listen: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(["bench-pipeline", "--listen", listen, "--data"])
        .arg(dir.join("data"));
    command
}

fn zot(program: &Path, dir: &Path, listen: &str) -> Result<Command> {
    let Some((host, port)) = listen.split_once(':') else {
        bail!("{listen} has no port")
    };
    let config = serde_json::json!({
        "storage": { "rootDirectory": dir.join("data"), "gc": false, "dedupe": true, "commit": true },
        "http": { "address": host, "port": port },
        "log": { "level": "error" },
    });
    std::fs::write(dir.join("zot.json"), config.to_string())?;
    let mut command = Command::new(program);
    command
        .arg("serve")
        .arg(dir.join("zot.json"))
        .current_dir(dir);
    Ok(command)
}

fn angos(program: &Path, dir: &Path, listen: &str) -> Result<Command> {
    let Some((host, port)) = listen.split_once(':') else {
        bail!("{listen} has no port")
    };
    let data = dir.join("data");
    std::fs::create_dir_all(&data)?;
    let shown = data.display();
    let config = format!(
        "[server]\nbind_address = \"{host}\"\nport = {port}\n\n[blob_store.fs]\nroot_dir = \"{shown}\"\nsync_to_disk = true\n\n[metadata_store.fs]\nroot_dir = \"{shown}\"\nsync_to_disk = true\n\n[global.access_policy]\ndefault = \"allow\"\n"
    );
    std::fs::write(dir.join("angos.toml"), config)?;
    let mut command = Command::new(program);
    command
        .arg("--config")
        .arg(dir.join("angos.toml"))
        .arg("server")
        .env("RUST_LOG", "error")
        .current_dir(dir);
    Ok(command)
}
