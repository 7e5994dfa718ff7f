//! A server in this process: the parts of `wharf serve`, put together from the same configuration, on port 0.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use wharf::app::{App, AppOptions, Data, DataOptions};
use wharf::config::{self, Config, FlagValue, Inputs};
use wharf::http::listener::{ListenAddr, Listeners};
use wharf::http::server::{Running, Server, ServerOptions};
use wharf::http::tls::Tls;
use wharf::telemetry::Metrics;
use wharf_core::access::{AccessOptions, Grant, Password, Rights, Who};
use wharf_core::clock::SystemClock;
use wharf_core::{Clock as _, ContentRule, ContentRules};
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
            options,
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
                .environment()
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            flags: flags.into_iter().map(flag).collect(),
        };
        let config = config::load(&inputs)
            .unwrap_or_else(|problems| panic!("{problems}"))
            .config;
        let data = DataOptions {
            io_threads: 2,
            ..DataOptions::new(&config.server.data)
        };
        let data = Data::open(&data, |_| ()).expect("the data folder opens");
        let app = App::open(data, app_options(&config))
            .await
            .expect("the registry opens");
        let password = Password::new(ADMIN_PASSWORD);
        app.registry
            .access
            .bootstrap_admin(Some(password), SystemClock.now_ms())
            .await
            .expect("the administrator");
        let tls = config.tls.cert.as_ref().zip(config.tls.key.as_ref());
        let listeners = Listeners::bind(&[self
            .addr
            .to_string()
            .parse::<ListenAddr>()
            .expect("an address")])
        .expect("a port");
        let options = ServerOptions {
            tls: tls.map(|(cert, key)| Tls::load(cert, key).expect("a certificate")),
            id_key: u64::from(std::process::id()),
            ..ServerOptions::new(listeners)
        };
        let running = Server::start(options, app.clone());
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

    /// The administrator's `Authorization`, for raw requests.
    pub fn admin_authorization(&self) -> String {
        Authorization::basic(ADMIN, ADMIN_PASSWORD)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
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

fn app_options(config: &Config) -> AppOptions {
    let grants = config.access.grants.iter().map(|grant| Grant {
        who: Who::parse(&grant.who).expect("a name"),
        role: grant.role,
        on: grant.on.clone(),
    });
    let rights = Rights {
        anonymous: config.access.anonymous.to_string().parse().expect("a role"),
        htpasswd: config.access.htpasswd.role,
        grants: grants.collect(),
    };
    let default = ContentRule {
        require_blobs: config.content.require_blobs,
        require_children: config.content.require_children,
        check_sizes: config.content.check_sizes,
    };
    let overrides = config.content.overrides.iter().map(|rule| {
        let rule_here = ContentRule {
            require_blobs: rule.require_blobs.unwrap_or(default.require_blobs),
            require_children: rule.require_children.unwrap_or(default.require_children),
            check_sizes: rule.check_sizes.unwrap_or(default.check_sizes),
        };
        (rule.on.clone(), rule_here)
    });
    AppOptions {
        access: AccessOptions {
            rights,
            htpasswd: config.access.htpasswd.file.clone(),
            ..AccessOptions::default()
        },
        limits: wharf_core::Limits {
            manifest_size: config.limits.manifest_size.0,
            blob_size: config.limits.blob_size.0,
            inline_below: config.storage.inline_below.0,
            ..wharf_core::Limits::default()
        },
        content: ContentRules {
            default,
            overrides: overrides.collect(),
        },
        external_url: config.server.external_url.as_ref().map(ToString::to_string),
        basic_challenge: false,
        clock: Arc::new(SystemClock),
        metrics: Arc::new(Metrics::new(false)),
    }
}
