//! How to reach a database: the URL as other programs of PostgreSQL read it, and TLS by its five modes.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::{Client, Config, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::fault::{Fault, source};
use super::tls::{self, Verify};
use crate::error::{Error, Result};

/// How to reach a database, and how much of it to use.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://USER@HOST:PORT,HOST:PORT/DATABASE?KEY=VALUE`.
    pub url: String,
    /// A file that holds the password, alone on its first line.
    pub password_file: Option<PathBuf>,
    /// At most so many connections for transactions.
    pub connections: u32,
    /// So many more, shared by all point reads.
    pub readers: u32,
    /// Whether statements are prepared by name. Not behind a PgBouncer in transaction mode before its version 1.21, where
    /// the next statement may meet another server process.
    pub prepared: bool,
    /// How long the server may work on one statement.
    pub statement_timeout: Duration,
    /// How long a statement may wait for a row that another transaction holds.
    pub lock_timeout: Duration,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long opening waits for a database that does not answer yet.
    pub start_patience: Duration,
    /// How long an operation goes on trying while the database cannot be reached.
    pub patience: Duration,
    /// The caller's time decides about leases instead of the server's: for tests, which let it stand or pass.
    pub caller_clock: bool,
    /// Holds transactions before each statement.
    #[cfg(feature = "suite")]
    pub gate: Option<std::sync::Arc<super::gate::Gate>>,
}

impl PostgresOptions {
    /// The defaults for a URL.
    pub fn new(url: impl Into<String>) -> PostgresOptions {
        PostgresOptions {
            url: url.into(),
            password_file: None,
            connections: 16,
            readers: 2,
            prepared: true,
            statement_timeout: Duration::from_secs(15),
            lock_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            start_patience: Duration::from_secs(30),
            patience: Duration::from_secs(3),
            caller_clock: false,
            #[cfg(feature = "suite")]
            gate: None,
        }
    }
}

impl PostgresOptions {
    /// Whether the URL is understood, and the files that it names can be read. Asks no server.
    pub fn check(&self) -> Result<()> {
        Connector::new(self).map(drop)
    }
}

impl fmt::Debug for PostgresOptions {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("connections", &self.connections)
            .field("prepared", &self.prepared)
            .finish_non_exhaustive()
    }
}

/// The URL, understood: what makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    password_file: Option<PathBuf>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.describe())
    }
}

/// A connection's driver, whatever it speaks through.
pub(super) type Driver =
    std::pin::Pin<Box<dyn Future<Output = Result<(), tokio_postgres::Error>> + Send>>;

fn wrong(problem: impl fmt::Display, cure: &str) -> Error {
    Error::Setup {
        key: "metadata.url",
        problem: problem.to_string(),
        cure: cure.to_owned(),
    }
}

impl Connector {
    /// Reads the URL and the files that it names, but for the password's, which may change.
    pub(super) fn new(options: &PostgresOptions) -> Result<Connector> {
        let (url, parameters) = split(&options.url)?;
        let mut config = Config::from_str(&url).map_err(|e| {
            // Its own words name the parameter and no value.
            wrong(source(&e), "write postgres://USER@HOST:PORT/DATABASE")
        })?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(wrong(
                "it names no host",
                "write postgres://USER@HOST:PORT/DATABASE",
            ));
        }
        if config.get_user().is_none() {
            return Err(wrong(
                "it names no user",
                "write postgres://USER@HOST:PORT/DATABASE",
            ));
        }
        if config.get_application_name().is_none() {
            config.application_name("wharf");
        }
        config.connect_timeout(options.connect_timeout);
        config.tcp_user_timeout(options.statement_timeout);
        config.keepalives_idle(Duration::from_secs(30));
        if options.prepared {
            // A PgBouncer refuses parameters that it does not know; there each transaction sets its own.
            let mut session = format!(
                "-c statement_timeout={} -c lock_timeout={} -c idle_in_transaction_session_timeout={}",
                options.statement_timeout.as_millis(),
                options.lock_timeout.as_millis(),
                (options.statement_timeout * 2).as_millis(),
            );
            if let Some(own) = config.get_options() {
                session.push(' ');
                session.push_str(own);
            }
            config.options(session);
        }
        let local = config
            .get_hosts()
            .iter()
            .all(|h| matches!(h, Host::Unix(_)));
        let mode = parameters.mode.as_deref().unwrap_or("prefer");
        let verify = match mode {
            "disable" => None,
            "prefer" | "require" if parameters.root.is_none() => Some(Verify::Nothing),
            "prefer" | "require" | "verify-ca" => Some(Verify::Authority),
            "verify-full" => Some(Verify::Host),
            other => {
                return Err(wrong(
                    format!("sslmode={other} is not known"),
                    "choose disable, prefer, require, verify-ca or verify-full",
                ));
            }
        };
        config.ssl_mode(match mode {
            "disable" => SslMode::Disable,
            "prefer" => SslMode::Prefer,
            _ => SslMode::Require,
        });
        let tls = match verify {
            Some(verify) if !local => Some(tls::connector(
                verify,
                parameters.root.as_deref(),
                parameters
                    .certificate
                    .as_deref()
                    .zip(parameters.key.as_deref()),
            )?),
            _ => None,
        };
        Ok(Connector {
            config,
            tls,
            password_file: options.password_file.clone(),
        })
    }

    /// Where it leads, without secrets.
    pub(super) fn describe(&self) -> String {
        let hosts: Vec<String> = self
            .config
            .get_hosts()
            .iter()
            .enumerate()
            .map(|(at, host)| {
                let ports = self.config.get_ports();
                let port = ports.get(at).or(ports.first()).copied().unwrap_or(5432);
                match host {
                    Host::Tcp(name) => format!("{name}:{port}"),
                    Host::Unix(path) => format!("{}:{port}", path.display()),
                }
            })
            .collect();
        format!(
            "postgres://{}/{}",
            hosts.join(","),
            self.config
                .get_dbname()
                .or(self.config.get_user())
                .unwrap_or_default()
        )
    }

    /// Who logs in.
    pub(super) fn user(&self) -> &str {
        self.config.get_user().unwrap_or_default()
    }

    /// The key that names the password.
    pub(super) fn password_key(&self) -> &'static str {
        match self.password_file {
            Some(_) => PASSWORD_FILE,
            None => "metadata.url",
        }
    }

    /// Connects to the first host that fits.
    pub(super) async fn connect(&self) -> Result<(Client, Driver), Fault> {
        let with_password;
        let config = match &self.password_file {
            None => &self.config,
            Some(path) => {
                let mut config = self.config.clone();
                config.password(first_line(path)?);
                with_password = config;
                &with_password
            }
        };
        match &self.tls {
            Some(tls) => {
                let (client, driver) = config.connect(tls.clone()).await.map_err(lost)?;
                Ok((client, Box::pin(driver)))
            }
            None => {
                let (client, driver): (Client, tokio_postgres::Connection<Socket, NoTlsStream>) =
                    config.connect(NoTls).await.map_err(lost)?;
                Ok((client, Box::pin(driver)))
            }
        }
    }
}

/// The key that names the password's file.
pub(super) const PASSWORD_FILE: &str = "metadata.password_file";

/// The password. A file that is about to be replaced may be gone for a moment: that is as if the server were.
fn first_line(path: &std::path::Path) -> Result<String, Fault> {
    let refused = |why: String| {
        let why = format!("{PASSWORD_FILE}: {} {why}", path.display());
        Fault::Lost(Error::Unreachable(why))
    };
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| refused(format!("cannot be read: {error}")))?;
    match text.lines().next() {
        None | Some("") => Err(refused("has no password on its first line".to_owned())),
        Some(line) => Ok(line.to_owned()),
    }
}

/// No connection was made.
fn lost(error: tokio_postgres::Error) -> Fault {
    Fault::Lost(Error::Unreachable(match error.as_db_error() {
        Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        None => source(&error),
    }))
}

/// What TLS needs and the driver does not read itself.
#[derive(Debug, Default, PartialEq, Eq)]
struct Parameters {
    mode: Option<String>,
    root: Option<String>,
    certificate: Option<String>,
    key: Option<String>,
}

/// Takes the parameters about TLS out of the URL.
fn split(url: &str) -> Result<(String, Parameters)> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    if !(base.starts_with("postgres://") || base.starts_with("postgresql://")) {
        return Err(wrong(
            "it is no URL of a PostgreSQL database",
            "write postgres://USER@HOST:PORT/DATABASE",
        ));
    }
    let mut parameters = Parameters::default();
    let mut rest = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let slot = match key {
            "sslmode" => &mut parameters.mode,
            "sslrootcert" => &mut parameters.root,
            "sslcert" => &mut parameters.certificate,
            "sslkey" => &mut parameters.key,
            "passfile" => {
                return Err(wrong(
                    "passfile is not read",
                    "name a file that holds the password alone in metadata.password_file",
                ));
            }
            _ => {
                rest.push(pair);
                continue;
            }
        };
        *slot = Some(decode(value).ok_or_else(|| {
            wrong(
                format!("the value of {key} is not percent-encoded text"),
                "write % as %25",
            )
        })?);
    }
    if parameters.certificate.is_some() != parameters.key.is_some() {
        return Err(wrong(
            "sslcert and sslkey belong together",
            "give both or neither",
        ));
    }
    let mut url = base.to_owned();
    if !rest.is_empty() {
        url.push('?');
        url.push_str(&rest.join("&"));
    }
    Ok((url, parameters))
}

fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let pair = [bytes.next()?, bytes.next()?];
            out.push(u8::from_str_radix(std::str::from_utf8(&pair).ok()?, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(url: &str) -> String {
        Connector::new(&PostgresOptions::new(url))
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn parameters_about_tls_are_taken_out() {
        let (url, parameters) = split(
            "postgres://u@h1:1,h2:2/d?sslmode=verify-full&target_session_attrs=read-write&sslrootcert=%2Fa%20b",
        )
        .unwrap();
        assert_eq!(
            url,
            "postgres://u@h1:1,h2:2/d?target_session_attrs=read-write"
        );
        assert_eq!(parameters.mode.as_deref(), Some("verify-full"));
        assert_eq!(parameters.root.as_deref(), Some("/a b"));
    }

    #[test]
    fn hosts_are_described_without_secrets() {
        let url = "postgres://u:secret@h1:1,h2:2/d?sslmode=disable";
        let connector = Connector::new(&PostgresOptions::new(url)).unwrap();
        assert_eq!(connector.describe(), "postgres://h1:1,h2:2/d");
        assert!(!format!("{connector:?} {:?}", PostgresOptions::new(url)).contains("secret"));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_the_key_and_the_cure() {
        for (url, words) in [
            ("mysql://h/d", "no URL of a PostgreSQL database"),
            ("postgres:///d", "no host"),
            ("postgres://h/d", "no user"),
            ("postgres://u@h/d?sslmode=maybe", "sslmode=maybe"),
            ("postgres://u@h/d?sslcert=/a", "belong together"),
            ("postgres://u@h/d?nonsense=1", "nonsense"),
            ("postgres://u@h/d?passfile=/a", "metadata.password_file"),
            (
                "postgres://u:secret@h/d?sslmode=verify-ca&sslrootcert=/absent",
                "/absent",
            ),
        ] {
            let error = refused(url);
            assert!(
                error.starts_with("metadata.url: ") && error.contains(words),
                "{error}"
            );
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
