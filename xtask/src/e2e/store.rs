//! Object stores below the registries: `cargo xtask e2e --store minio|gcs|azure`. One service for the whole run, a prefix
//! in its bucket for each registry.
//!
//! `gcs` is the client of Google's XML interface on MinIO, which answers the same requests; nginx between them drops the
//! token, as the bucket is open to all. (fake-gcs-server takes no uploads by that interface.) `azure` is Azurite.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use wharf_meta::test_server::free_port;

use super::process::Daemon;
use crate::run;

/// The bucket or container.
const BUCKET: &str = "wharf";
/// Who may use it.
const KEY: &str = "wharfaccount";
/// In base64, as Azure wants it.
const SECRET: &str = "d2hhcmYtdGVzdC1rZXktb2YtYS1zdG9yYWdlLWFjY3Q=";

/// Which service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// S3.
    Minio,
    /// Google's interface.
    Gcs,
    /// Azurite.
    Azure,
}

impl Kind {
    /// Programs that it needs.
    pub(crate) fn programs(self) -> &'static [&'static str] {
        match self {
            Kind::Minio => &["minio"],
            Kind::Gcs => &["minio", "nginx", "openssl"],
            Kind::Azure => &["azurite", "openssl"],
        }
    }
}

/// A running service with an empty bucket.
pub(crate) struct Store {
    kind: Kind,
    redirect: bool,
    port: u16,
    folder: PathBuf,
    /// The front first.
    _daemons: Vec<Daemon>,
}

impl Store {
    /// Starts it with its data in `folder`; with `redirect`, clients are sent there.
    pub(crate) fn start(kind: Kind, redirect: bool, folder: &Path) -> Result<Store> {
        std::fs::create_dir_all(folder)?;
        let (port, daemons) = match kind {
            Kind::Minio => {
                let (daemon, port) = minio(folder)?;
                (port, vec![daemon])
            }
            Kind::Gcs => {
                let (daemon, port) = minio(folder)?;
                open_bucket(folder, port)?;
                let (front, open) = tokenless(folder, port)?;
                service_account(folder)?;
                (open, vec![front, daemon])
            }
            Kind::Azure => {
                let (daemon, port) = azurite(folder)?;
                make_container(port)?;
                (port, vec![daemon])
            }
        };
        Ok(Store {
            kind,
            redirect,
            port,
            folder: folder.to_owned(),
            _daemons: daemons,
        })
    }

    /// Which it is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether clients are sent there.
    pub(crate) fn redirects(&self) -> bool {
        self.redirect
    }

    /// The configuration of a registry that keeps its blobs there.
    pub(crate) fn config(&self, prefix: &str) -> String {
        let (port, shown) = (self.port, self.folder.display());
        let (kind, section) = match self.kind {
            // Clients know the service by another name than the registry's: one that sends its credentials to both would
            // be refused there.
            Kind::Minio => (
                "s3",
                format!(
                    "[storage.s3]\nbucket = {BUCKET:?}\nendpoint = \"http://127.0.0.1:{port}\"\npath_style = true\n\
                     public_endpoint = \"http://localhost:{port}\"\naccess_key_id = {KEY:?}\nsecret_access_key = {SECRET:?}\n"
                ),
            ),
            Kind::Gcs => (
                "gcs",
                format!(
                    "[storage.gcs]\nbucket = {BUCKET:?}\nendpoint = \"http://localhost:{port}\"\n\
                     service_account = \"{shown}/account.json\"\n"
                ),
            ),
            Kind::Azure => (
                "azure",
                format!(
                    "[storage.azure]\naccount = {KEY:?}\ncontainer = {BUCKET:?}\naccess_key = {SECRET:?}\n\
                     endpoint = \"http://localhost:{port}/{KEY}\"\n"
                ),
            ),
        };
        let redirect = match self.redirect {
            true => "[storage.redirect]\nwhen = \"always\"\n",
            false => "",
        };
        format!("\n[storage]\nkind = {kind:?}\nprefix = {prefix:?}\n{section}{redirect}")
    }

    /// The storage driver of Distribution for it, where it is MinIO.
    pub(crate) fn distribution(&self) -> String {
        format!(
            "  s3:\n    bucket: {BUCKET}\n    region: us-east-1\n    regionendpoint: http://127.0.0.1:{}\n    \
             forcepathstyle: true\n    secure: false\n    accesskey: {KEY}\n    secretkey: {SECRET}\n",
            self.port
        )
    }

    /// The bucket for a client of its own, where it is MinIO.
    pub(crate) fn options(&self) -> wharf_blob::ObjectOptions {
        use wharf_blob::object::{Credentials, S3, Service};
        wharf_blob::ObjectOptions {
            service: Service::S3(S3 {
                bucket: BUCKET.to_owned(),
                endpoint: Some(format!("http://127.0.0.1:{}", self.port)),
                path_style: true,
                credentials: Credentials::Static {
                    access_key_id: KEY.to_owned(),
                    secret_access_key: SECRET.to_owned(),
                },
                ..S3::default()
            }),
            prefix: String::new(),
            part_size: wharf_blob::object::PART_SIZE,
            client: Default::default(),
        }
    }

    /// Files of multipart uploads that nobody has ended, where the service lets them be seen.
    pub(crate) fn loose_parts(&self) -> usize {
        files(&self.folder.join("data/.minio.sys/multipart"))
    }
}

fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.path() {
            path if path.is_dir() => files(&path),
            _ => 1,
        })
        .sum()
}

fn program(name: &str) -> Result<PathBuf> {
    run::find(name).with_context(|| format!("no {name}: cargo xtask clients {name}"))
}

/// MinIO with an empty bucket, and its port.
fn minio(folder: &Path) -> Result<(Daemon, u16)> {
    let (port, data) = (free_port(), folder.join("data"));
    std::fs::create_dir_all(data.join(BUCKET))?;
    let mut command = Command::new(program("minio")?);
    command
        .args(["server", "--quiet", "--address"])
        .arg(format!("127.0.0.1:{port}"))
        .arg(&data)
        .env("MINIO_ROOT_USER", KEY)
        .env("MINIO_ROOT_PASSWORD", SECRET)
        .env("MINIO_BROWSER", "off");
    let mut daemon = Daemon::start("minio", &mut command, &folder.join("minio.log"))?;
    let ready = format!("http://127.0.0.1:{port}/minio/health/ready");
    daemon.wait_until(|| super::site::answers(&ready, None))?;
    Ok((daemon, port))
}

/// Lets everybody read and write the bucket.
fn open_bucket(folder: &Path, port: u16) -> Result<()> {
    let statement = |actions: &str, resource: &str| {
        let actions: Vec<_> = actions
            .split(' ')
            .map(|name| format!("s3:{name}"))
            .collect();
        serde_json::json!({
            "Effect": "Allow", "Principal": {"AWS": ["*"]}, "Action": actions, "Resource": [resource],
        })
    };
    let bucket = format!("arn:aws:s3:::{BUCKET}");
    let policy = serde_json::json!({"Version": "2012-10-17", "Statement": [
        statement("GetBucketLocation ListBucket ListBucketMultipartUploads", &bucket),
        statement(
            "GetObject PutObject DeleteObject AbortMultipartUpload ListMultipartUploadParts",
            &format!("{bucket}/*"),
        ),
    ]})
    .to_string();
    let file = folder.join("policy.json");
    std::fs::write(&file, &policy)?;
    let sum = super::image::digest(policy.as_bytes()).replace("sha256:", "");
    let mut curl = Command::new(program("curl")?);
    curl.args([
        "-sSf",
        "--aws-sigv4",
        "aws:amz:us-east-1:s3",
        "-X",
        "PUT",
        "-u",
    ])
    .arg(format!("{KEY}:{SECRET}"))
    .args([
        "-H",
        &format!("x-amz-content-sha256: {sum}"),
        "--data-binary",
    ])
    .arg(format!("@{}", file.display()))
    .arg(format!("http://127.0.0.1:{port}/{BUCKET}?policy="));
    run::read(&mut curl).map(drop)
}

/// nginx that drops `Authorization`, and its port.
fn tokenless(folder: &Path, upstream: u16) -> Result<(Daemon, u16)> {
    let (port, shown) = (free_port(), folder.display());
    let config = format!(
        "daemon off; worker_processes 1; pid {shown}/nginx.pid; error_log {shown}/nginx-error.log warn;
events {{ worker_connections 512; }}
http {{
  access_log off; client_max_body_size 0; proxy_request_buffering off; proxy_buffering off; proxy_http_version 1.1;
  client_body_temp_path {shown}/b; proxy_temp_path {shown}/p; fastcgi_temp_path {shown}/f;
  uwsgi_temp_path {shown}/u; scgi_temp_path {shown}/s;
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://127.0.0.1:{upstream}; proxy_set_header Host $http_host; proxy_set_header Authorization \"\";
      proxy_set_header Connection \"\";
    }}
  }}
}}
"
    );
    let file = folder.join("nginx.conf");
    std::fs::write(&file, config)?;
    let mut command = Command::new(program("nginx")?);
    command.arg("-p").arg(folder).arg("-c").arg(&file);
    let mut daemon = Daemon::start("nginx", &mut command, &folder.join("nginx.log"))?;
    let ready = format!("http://127.0.0.1:{port}/minio/health/ready");
    daemon.wait_until(|| super::site::answers(&ready, None))?;
    Ok((daemon, port))
}

/// The key of an account: it makes its tokens itself, and signs URLs.
fn service_account(folder: &Path) -> Result<()> {
    let generate = [
        "genpkey",
        "-algorithm",
        "RSA",
        "-pkeyopt",
        "rsa_keygen_bits:2048",
    ];
    let key = run::read(Command::new(program("openssl")?).args(generate))?;
    let account = serde_json::json!({
        "type": "service_account", "client_email": "wharf@test.example", "private_key_id": "1",
        "private_key": key,
    });
    std::fs::write(folder.join("account.json"), account.to_string())?;
    Ok(())
}

/// Azurite, and its port.
fn azurite(folder: &Path) -> Result<(Daemon, u16)> {
    let port = free_port();
    let mut command = Command::new(program("azurite")?);
    command
        .args([
            "--silent",
            "--skipApiVersionCheck",
            "--disableTelemetry",
            "--blobHost",
            "127.0.0.1",
            "--blobPort",
        ])
        .arg(port.to_string())
        .arg("-l")
        .arg(folder.join("data"))
        .env("AZURITE_ACCOUNTS", format!("{KEY}:{SECRET}"));
    let mut daemon = Daemon::start("azurite", &mut command, &folder.join("azurite.log"))?;
    daemon.wait_until(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    Ok((daemon, port))
}

/// What Azure's tools do for `az storage container create`, signed by the account's key.
const MAKE: &str = r#"set -e
date=$(LC_ALL=C date -u '+%a, %d %b %Y %H:%M:%S GMT'); version=2021-08-06
hex=$(printf %s "$SECRET" | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
sign=$(printf 'PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:%s\nx-ms-version:%s\n/%s/%s/%s\nrestype:container' \
  "$date" "$version" "$KEY" "$KEY" "$BUCKET" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$hex" -binary | openssl base64 -A)
curl -sSf -o /dev/null -X PUT -H "Content-Length: 0" -H "x-ms-date: $date" -H "x-ms-version: $version" \
  -H "Authorization: SharedKey $KEY:$sign" "http://127.0.0.1:$PORT/$KEY/$BUCKET?restype=container"
"#;

fn make_container(port: u16) -> Result<()> {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", MAKE])
        .env("KEY", KEY)
        .env("SECRET", SECRET)
        .env("BUCKET", BUCKET)
        .env("PORT", port.to_string());
    let told = run::read(&mut shell)?;
    ensure!(told.is_empty(), "making the container: {told}");
    Ok(())
}
