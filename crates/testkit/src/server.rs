//! A server in this process: the parts of `wharf serve`, put together from the same configuration, on port 0.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use wharf::app::{App, Data};
use wharf::config::{self, FlagValue, Inputs};
use wharf::http::listener::{ListenAddr, Listeners};
use wharf::http::server::{Running, Server, ServerOptions};
use wharf::http::tls::Tls;
use wharf::telemetry::{Metrics, Telemetry};
use wharf_core::Clock;
use wharf_core::access::Password;
use wharf_core::clock::SystemClock;
use wharf_oci::Authorization;

use crate::ca::Ca;
use crate::client::{Client, Version};
use crate::options::{ADMIN, ADMIN_PASSWORD, TestOptions};

/// Longest wait for requests that still run when it stops.
const GRACE: Duration = Duration::from_secs(10);

/// A server in this process, with a folder of its own.
pub struct TestServer {
    options: TestOptions,
    ca: Ca,
    folder: TempDir,
    addr: SocketAddr,
    started: Option<Started>,
}

struct Started {
    app: Arc<App>,
    running: Running,
}

impl TestServer {
    /// Starts it in the current runtime.
    pub async fn start(options: TestOptions) -> TestServer {
        let folder = tempfile::tempdir().expect("a folder");
        let addr = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = TestServer {
            options: options.with_database().on_chosen_store().await,
            ca: Ca::new(),
            folder,
            addr,
            started: None,
        };
        server.again().await;
        server
    }

    /// Starts it again over the same data at the same address, after [`TestServer::stop`].
    pub async fn again(&mut self) {
        assert!(self.started.is_none(), "it still runs");
        let flags = self.options.write(self.folder.path(), &self.ca);
        let flag = |(path, flag, value): (&str, &str, String)| FlagValue {
            path: path.into(),
            flag: flag.into(),
            value,
        };
        let inputs = Inputs {
            file: Some(self.folder.path().join("wharf.toml")),
            env: self
                .options
                .environment(self.folder.path())
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            flags: flags.into_iter().map(flag).collect(),
        };
        let config = config::load(&inputs)
            .unwrap_or_else(|problems| panic!("{problems}"))
            .config;
        let metrics = Arc::new(Metrics::new(config.metrics.repository_label));
        let data = Data::open(&config.data_options(), |_| ())
            .await
            .expect("the data folder opens");
        let clock: Arc<dyn Clock> = match &self.options.clock {
            Some(clock) => clock.clone(),
            None => Arc::new(SystemClock),
        };
        let now = clock.now_ms();
        let options = config
            .app_options(clock, metrics.clone())
            .expect("valid grants");
        let app = App::open(data, options).await.expect("the registry opens");
        let password = Password::new(ADMIN_PASSWORD);
        app.registry
            .access
            .bootstrap_admin(Some(password), now)
            .await
            .expect("the administrator");
        let tls = config.tls.cert.as_ref().zip(config.tls.key.as_ref());
        let mut listen = vec![self.addr.to_string()];
        if self.options.unix {
            listen.push(format!("unix:{}", self.socket().display()));
        }
        let listen = listen.iter().map(|one| one.parse().expect("an address"));
        let listeners = Listeners::bind(&listen.collect::<Vec<ListenAddr>>()).expect("a port");
        let options = ServerOptions {
            tls: tls.map(|(cert, key)| {
                Tls::load_asking(cert, key, config.client_options()).expect("a certificate")
            }),
            limits: config.http_limits(),
            trusted_proxies: config.trusted_proxies(),
            observer: Arc::new(Telemetry { metrics }),
            id_key: u64::from(std::process::id()),
            ..ServerOptions::new(listeners)
        };
        let running = Server::start(options, app.clone());
        app.readiness.set(true);
        self.addr = running.addrs()[0].tcp().expect("a TCP address");
        self.started = Some(Started { app, running });
    }

    /// Stops it in order: running requests are finished.
    pub async fn stop(&mut self) {
        let started = self.started.take().expect("it runs");
        started.running.shutdown(GRACE).await;
        started.app.close().await;
    }

    /// As the administrator.
    pub fn admin(&self, version: Version) -> Client {
        let client = Client::new(self.addr, version).with_basic(ADMIN, ADMIN_PASSWORD);
        if self.options.tls {
            client.with_tls(&self.ca.client_config())
        } else {
            client
        }
    }

    /// Whoever signed its certificate.
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// The administrator's `Authorization`, for raw requests.
    pub fn admin_authorization(&self) -> String {
        Authorization::basic(ADMIN, ADMIN_PASSWORD)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The Unix socket on which it listens too, if the options say so.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("wharf.sock")
    }

    /// Files or objects of all blobs that are no rows.
    pub fn kept_blobs(&self) -> Vec<PathBuf> {
        self.options.kept_blobs(self.folder.path())
    }

    /// The folder in which configuration and `data` lie.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The parts, for tests that look inside.
    pub fn app(&self) -> &App {
        &self.started.as_ref().expect("it runs").app
    }
}
