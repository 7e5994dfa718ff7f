//! The registries under test: one per mode, started when a client first asks for it, shared by all clients.
//!
//! The command line used here is the contract of `wharf serve`. With `--against distribution` the same sites are
//! made of the reference registry, which shows whether a failure is the test's fault or ours.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use wharf_meta::test_server::free_port;

use super::below::Below;
use super::image;
use super::process::Daemon;
use super::step::Step;
use crate::run;

/// A user of the test registries: name and password.
pub(crate) type User<'a> = (&'a str, &'a str);
/// May pull, push and delete below `e2e` and `public`.
pub(crate) const ALICE: User<'static> = ("alice", "alice-password");
/// May only pull below `e2e`.
pub(crate) const RITA: User<'static> = ("rita", "rita-password");
/// Has an account and no right at all.
pub(crate) const PAUL: User<'static> = ("paul", "paul-password");

/// The three above, with the lowest cost of bcrypt: the tests are not about guessing passwords.
const HTPASSWD: &str = "alice:$2b$06$WoO.MK1uPkME4iY2NmkYvOOdbTF5skRAt6VmVNimC2N9vdnlxsnOq
rita:$2b$06$lS46VsS48upxPVdaobMh6OOskA/w8brYz8FELz96hDRrIOOu2emSe
paul:$2b$06$9XGB0ymy22QriMWlkYg8huSz63u8OMdXm0PRcqifoYNlcuNQQJfN6
";

/// Who may do what. Anonymous is added for the public site only: it changes what the ping answers.
const GRANTS: &str = r#"
[access.htpasswd]
role = "none"

[[access.grant]]
who = "alice"
role = "maintainer"
on = "e2e"

[[access.grant]]
who = "alice"
role = "maintainer"
on = "public"

[[access.grant]]
who = "rita"
role = "reader"
on = "e2e"
"#;

/// What a registry behind a proxy is told, so that nginx's word on addresses counts.
const BEHIND_PROXY: &str = "
[server]
trusted_proxies = [\"127.0.0.1\"]
";

const REFRESH_TOKENS: &str = "
[auth]
identity_tokens = true
";

const PUBLIC_GRANT: &str = r#"
[[access.grant]]
who = "anonymous"
role = "reader"
on = "public"
"#;

/// How a registry is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// HTTP with passwords.
    Plain,
    /// TLS with passwords.
    Tls,
    /// HTTP with passwords, and a prefix that everybody may pull from.
    Public,
    /// nginx with TLS in front of HTTP.
    Nginx,
    /// HTTP with passwords, and refresh tokens for clients that ask for one.
    RefreshTokens,
}

impl Mode {
    /// How step names call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mode::Plain => "plain HTTP",
            Mode::Tls => "TLS",
            Mode::Public => "public prefix",
            Mode::Nginx => "nginx with TLS",
            Mode::RefreshTokens => "refresh tokens",
        }
    }
}

/// What is under test.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    /// The release binary.
    Wharf(PathBuf),
    /// The reference registry.
    Distribution(PathBuf),
}

/// A running registry.
pub(crate) struct Site {
    /// How it is reached.
    pub(crate) mode: Mode,
    /// `host:port` for references.
    pub(crate) address: String,
    /// The authority that signed its certificate, when it has TLS.
    pub(crate) ca: Option<PathBuf>,
    /// Whether it knows users with fewer rights (the reference registry does not).
    pub(crate) has_roles: bool,
    /// Whether it answers the referrers endpoint (the reference registry does not).
    pub(crate) has_referrers: bool,
    dir: PathBuf,
    /// Stopped in this order: the proxy first.
    daemons: Vec<Daemon>,
}

impl Site {
    /// Starts a registry in a folder of its own, over these stores.
    pub(crate) fn start(
        subject: &Subject,
        mode: Mode,
        dir: &Path,
        below: Below<'_>,
    ) -> Result<Site> {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        std::fs::write(dir.join("htpasswd"), HTPASSWD)?;
        let tls = matches!(mode, Mode::Tls | Mode::Nginx);
        let ca = if tls { Some(certificates(dir)?) } else { None };
        let (port, front) = (free_port(), free_port());
        let listen = format!("127.0.0.1:{port}");
        let address = if mode == Mode::Nginx {
            format!("127.0.0.1:{front}")
        } else {
            listen.clone()
        };
        let external = (mode == Mode::Nginx).then(|| format!("https://{address}"));
        let (mut command, name) = match subject {
            Subject::Wharf(binary) => (
                wharf(binary, mode, dir, &listen, external.as_deref(), below)?,
                "wharf",
            ),
            Subject::Distribution(binary) => (
                distribution(binary, mode, dir, &listen, external.as_deref())?,
                "distribution",
            ),
        };
        let mut server = Daemon::start(name, &mut command, &dir.join("server.log"))?;
        let scheme = if mode == Mode::Tls { "https" } else { "http" };
        let path = if matches!(subject, Subject::Wharf(_)) {
            "/readyz"
        } else {
            "/"
        };
        server.wait_until(|| answers(&format!("{scheme}://{listen}{path}"), ca.as_deref()))?;
        let mut daemons = vec![server];
        if mode == Mode::Nginx {
            let mut nginx = Daemon::start(
                "nginx",
                &mut nginx(dir, &address, &listen)?,
                &dir.join("nginx.log"),
            )?;
            nginx.wait_until(|| answers(&format!("https://{address}{path}"), ca.as_deref()))?;
            daemons.insert(0, nginx);
        }
        let ours = matches!(subject, Subject::Wharf(_));
        Ok(Site {
            mode,
            address,
            ca,
            has_roles: ours,
            has_referrers: ours,
            dir: dir.to_path_buf(),
            daemons,
        })
    }

    /// The same registry under another address: what a client sees behind a proxy.
    pub(crate) fn seen_through(&self, address: &str) -> Site {
        Site {
            mode: self.mode,
            address: address.to_owned(),
            ca: self.ca.clone(),
            has_roles: self.has_roles,
            has_referrers: self.has_referrers,
            dir: self.dir.clone(),
            daemons: Vec::new(),
        }
    }

    /// A registry that somebody else runs, in plain HTTP.
    pub(crate) fn elsewhere(address: &str) -> Site {
        Site {
            mode: Mode::Plain,
            address: address.to_owned(),
            ca: None,
            has_roles: true,
            has_referrers: true,
            dir: PathBuf::new(),
            daemons: Vec::new(),
        }
    }

    /// The registry's data folder.
    pub(crate) fn data(&self) -> String {
        self.dir.join("data").to_string_lossy().into_owned()
    }

    /// The registry's configuration.
    pub(crate) fn config(&self) -> String {
        self.dir.join("wharf.toml").to_string_lossy().into_owned()
    }

    /// What the registry has logged so far.
    pub(crate) fn server_log(&self) -> Result<String> {
        let file = self.dir.join("server.log");
        std::fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))
    }

    /// Ends it as a power cut would, as far as a process can feel one.
    pub(crate) fn kill(&mut self) {
        for daemon in &mut self.daemons {
            daemon.kill();
        }
    }

    /// Whether clients reach it by TLS.
    pub(crate) fn tls(&self) -> bool {
        self.ca.is_some()
    }

    /// The base of its URLs.
    pub(crate) fn url(&self) -> String {
        format!(
            "{}://{}",
            if self.tls() { "https" } else { "http" },
            self.address
        )
    }

    /// The authority's file as text.
    pub(crate) fn ca_file(&self) -> String {
        self.ca
            .as_ref()
            .map(|p| p.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// A folder that holds just the authority, as containers/image and docker want it.
    pub(crate) fn ca_dir(&self) -> String {
        self.ca
            .as_ref()
            .and_then(|p| p.parent())
            .map(|p| p.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// Asks by curl; gives the status. The body goes to `to` when it is named.
    pub(crate) fn ask(
        &self,
        step: &mut Step,
        user: Option<User>,
        path: &str,
        extra: &[&str],
        to: Option<&Path>,
    ) -> Result<u16> {
        let mut args = vec!["-sS".to_owned(), "--max-time".to_owned(), "120".to_owned()];
        args.extend(["-w", "%{http_code}", "-o"].map(str::to_owned));
        args.push(to.map_or_else(
            || "/dev/null".to_owned(),
            |p| p.to_string_lossy().into_owned(),
        ));
        if let Some((name, password)) = user {
            args.extend(["-u".to_owned(), format!("{name}:{password}")]);
        }
        if self.tls() {
            args.extend(["--cacert".to_owned(), self.ca_file()]);
        }
        args.extend(extra.iter().map(|s| (*s).to_owned()));
        args.push(format!("{}{path}", self.url()));
        let status = step.ok("curl", args)?;
        status
            .trim()
            .parse()
            .with_context(|| format!("curl printed {status:?} instead of a status"))
    }

    /// Fetches a manifest and all that it references, hashes every byte, and gives the digest that the
    /// reference leads to. This is the test's own view of the registry, with no client between.
    pub(crate) fn verify(
        &self,
        step: &mut Step,
        repository: &str,
        reference: &str,
    ) -> Result<String> {
        let file = step.path("run/manifest");
        let path = format!("/v2/{repository}/manifests/{reference}");
        let accept = [
            image::MANIFEST,
            image::INDEX,
            "application/vnd.docker.distribution.manifest.v2+json",
            "application/vnd.docker.distribution.manifest.list.v2+json",
        ]
        .join(", ");
        let status = self.ask(
            step,
            Some(ALICE),
            &path,
            &["-H", &format!("Accept: {accept}")],
            Some(&file),
        )?;
        ensure!(status == 200, "{path} answered {status}");
        let bytes = std::fs::read(&file)?;
        let digest = image::digest(&bytes);
        if reference.contains(':') {
            ensure!(reference == digest, "{path} holds {digest}");
        }
        let manifest: Value = serde_json::from_slice(&bytes)?;
        for child in image::references(&manifest) {
            let wanted = image::text(child, "digest")?;
            let media_type = child["mediaType"].as_str().unwrap_or_default();
            if media_type.contains("manifest.") || media_type.contains("image.index") {
                self.verify(step, repository, &wanted)?;
                continue;
            }
            let blob = format!("/v2/{repository}/blobs/{wanted}");
            let file = step.path("run/blob");
            let status = self.ask(step, Some(ALICE), &blob, &["-L"], Some(&file))?;
            ensure!(status == 200, "{blob} answered {status}");
            let (found, size) = image::hash_file(&file)?;
            ensure!(
                found == wanted && child["size"] == size,
                "{blob} holds {found} of {size} bytes: {child}"
            );
        }
        Ok(digest)
    }
}

/// Whether a URL answers with a success.
pub(crate) fn answers(url: &str, ca: Option<&Path>) -> bool {
    let mut command = Command::new("curl");
    command.args([
        "-sf",
        "--noproxy",
        "*",
        "--max-time",
        "2",
        "-o",
        "/dev/null",
    ]);
    if let Some(ca) = ca {
        command.arg("--cacert").arg(ca);
    }
    command
        .arg(url)
        .status()
        .is_ok_and(|status| status.success())
}

fn wharf(
    binary: &Path,
    mode: Mode,
    dir: &Path,
    listen: &str,
    external: Option<&str>,
    below: Below<'_>,
) -> Result<Command> {
    let mut config = GRANTS.to_owned();
    config.push_str(&below.databases.config(mode, dir));
    if let Some(store) = below.store {
        // The end of the folder's path is nobody else's in this run.
        let mut parts = dir
            .components()
            .rev()
            .map(|part| part.as_os_str().to_string_lossy());
        let (last, before) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        config.push_str(&store.config(&format!("{before}/{last}")));
    }
    if mode == Mode::Public {
        config.push_str(PUBLIC_GRANT);
    }
    if mode == Mode::Nginx {
        config.push_str(BEHIND_PROXY);
    }
    if mode == Mode::RefreshTokens {
        config.push_str(REFRESH_TOKENS);
    }
    std::fs::write(dir.join("wharf.toml"), config)?;
    let mut command = Command::new(binary);
    command
        .arg("serve")
        .arg("--data")
        .arg(dir.join("data"))
        .args(["--listen", listen]);
    command
        .arg("--config")
        .arg(dir.join("wharf.toml"))
        .arg("--htpasswd")
        .arg(dir.join("htpasswd"));
    if mode == Mode::Tls {
        command
            .arg("--tls-cert")
            .arg(dir.join("tls.crt"))
            .arg("--tls-key")
            .arg(dir.join("tls.key"));
    }
    if let Some(url) = external {
        command.args(["--external-url", url]);
    }
    command
        .env("WHARF_ADMIN_PASSWORD", "admin-password")
        .current_dir(dir);
    Ok(command)
}

fn distribution(
    binary: &Path,
    mode: Mode,
    dir: &Path,
    listen: &str,
    external: Option<&str>,
) -> Result<Command> {
    let shown = dir.display();
    let mut config = format!(
        "version: 0.1\nlog:\n  level: info\nstorage:\n  delete:\n    enabled: true\n  filesystem:\n    rootdirectory: {shown}/data\nhttp:\n  addr: {listen}\n"
    );
    if mode == Mode::Tls {
        config += &format!("  tls:\n    certificate: {shown}/tls.crt\n    key: {shown}/tls.key\n");
    }
    if let Some(url) = external {
        config += &format!("  host: {url}\n");
    }
    if mode != Mode::Public {
        config += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {shown}/htpasswd\n");
    }
    std::fs::write(dir.join("config.yml"), config)?;
    let mut command = Command::new(binary);
    command
        .arg("serve")
        .arg(dir.join("config.yml"))
        .env("OTEL_TRACES_EXPORTER", "none");
    Ok(command)
}

fn nginx(dir: &Path, address: &str, upstream: &str) -> Result<Command> {
    let program = run::find("nginx").context("no nginx: cargo xtask clients nginx")?;
    let shown = dir.display();
    // What a registry needs from a proxy: no limit on bodies, no buffering, HTTP/1.1 for chunked uploads.
    let config = format!(
        r#"daemon off; worker_processes 1; pid {shown}/nginx.pid; error_log {shown}/nginx-error.log warn;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {shown}/nginx-body; proxy_temp_path {shown}/nginx-proxy; fastcgi_temp_path {shown}/nginx-f;
  uwsgi_temp_path {shown}/nginx-u; scgi_temp_path {shown}/nginx-s;
  client_max_body_size 0; chunked_transfer_encoding on;
  server {{
    listen {address} ssl http2;
    ssl_certificate {shown}/tls.crt; ssl_certificate_key {shown}/tls.key;
    location / {{
      proxy_pass http://{upstream};
      proxy_http_version 1.1; proxy_request_buffering off; proxy_buffering off; proxy_read_timeout 900s;
      proxy_set_header Host $http_host; proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto https;
    }}
  }}
}}
"#
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, config)?;
    let mut command = Command::new(program);
    command.arg("-p").arg(dir).arg("-c").arg(file);
    Ok(command)
}

/// Makes an authority and a certificate for 127.0.0.1 and localhost; gives the authority's file.
pub(crate) fn certificates(dir: &Path) -> Result<PathBuf> {
    let Some(program) = run::find("openssl") else {
        bail!("no openssl: cargo xtask clients openssl")
    };
    let ca_dir = dir.join("ca");
    std::fs::create_dir_all(&ca_dir)?;
    let openssl =
        |args: &[&str]| run::read(Command::new(&program).args(args).current_dir(dir)).map(drop);
    let key = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-keyout",
    ];
    let mut args = vec![
        "req",
        "-x509",
        "-days",
        "2",
        "-subj",
        "/CN=Wharf test authority",
    ];
    args.extend(key);
    args.extend([
        "ca.key",
        "-out",
        "ca/ca.crt",
        "-addext",
        "keyUsage=critical,keyCertSign,cRLSign",
    ]);
    openssl(&args)?;
    let mut args = vec!["req", "-subj", "/CN=wharf test"];
    args.extend(key);
    args.extend(["tls.key", "-out", "tls.csr"]);
    openssl(&args)?;
    std::fs::write(
        dir.join("tls.ext"),
        "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n",
    )?;
    openssl(&[
        "x509",
        "-req",
        "-days",
        "2",
        "-in",
        "tls.csr",
        "-CA",
        "ca/ca.crt",
        "-CAkey",
        "ca.key",
        "-CAcreateserial",
        "-extfile",
        "tls.ext",
        "-out",
        "tls.crt",
    ])?;
    Ok(ca_dir.join("ca.crt"))
}
