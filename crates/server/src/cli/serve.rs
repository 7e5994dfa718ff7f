//! `wharf serve`: from the configuration to running servers, and to an orderly end.

use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, anyhow};
use clap::ArgMatches;
use tokio::signal::unix::{SignalKind, signal};
use wharf_core::access::{Bootstrap, Password};
use wharf_core::clock::SystemClock;
use wharf_meta::repository::GetTotals;

use super::{Exit, flags};
use crate::admin;
use crate::app::{App, Data, Figures};
use crate::config::reload::Reloader;
use crate::config::{Config, Inputs, Loaded};
use crate::http::listener::BoundAddr;
use crate::http::shutdown::{Pace, Signals, Stopped, stop};
use crate::http::tls::{SelfSigned, Tls};
use crate::http::{ListenAddr, Listeners, Running, Server, ServerOptions};
use crate::telemetry::{Metrics, Telemetry, log};

/// Between two looks at the configuration file.
const LOOK: Duration = Duration::from_secs(2);

pub(super) fn run(matches: &ArgMatches) -> Exit {
    let inputs = flags::inputs(matches);
    let Some(loaded) = flags::read(&inputs) else {
        return Exit::Usage;
    };
    let config = &loaded.config;
    if let Err(error) = log::start(config.log.format.into(), &config.log.level) {
        eprintln!("error: {error}");
        return Exit::Usage;
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let options = config.data_options();
    let data = match Data::open(&options, |holder| {
        tracing::warn!(
            "the data folder is in use by {holder}; waiting up to {} s for it",
            options.lock_wait.as_secs()
        );
    }) {
        Ok(data) => data,
        Err(error) => {
            eprintln!("error: {error}");
            return Exit::Refused;
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(serve(inputs, &loaded, data)),
        Err(error) => Err(anyhow!("no runtime: {error}")),
    };
    match outcome {
        Ok(()) => Exit::Done,
        Err(error) => {
            eprintln!("error: {error:#}");
            Exit::Failed
        }
    }
}

/// Runs until a signal. Everything that can be refused is refused before the first listener accepts.
async fn serve(inputs: Inputs, loaded: &Loaded, data: Data) -> anyhow::Result<()> {
    let config = &loaded.config;
    let mut signals = Signals::listen().context("listening for signals")?;
    let mut hangup = signal(SignalKind::hangup()).context("listening for signals")?;
    let metrics = Arc::new(Metrics::new(config.metrics.repository_label));
    let folder = data.folder.clone();
    let fresh = data.opened.fresh;
    if let Some(schema) = data.opened.migrated_from {
        tracing::info!(
            "the metadata store was brought from schema {schema} to that of this version; the old state lies beside it"
        );
    }
    let external_url = config.server.external_url.as_ref().map(ToString::to_string);
    let app = App::open(
        data,
        config.app_options(Arc::new(SystemClock), metrics.clone())?,
    )
    .await?;
    let password = administrator(&app, config, &folder).await?;

    let tls = certificate(config, &folder)?;
    let telemetry = Arc::new(Telemetry {
        metrics: metrics.clone(),
    });
    let options = |addrs: &[ListenAddr]| -> anyhow::Result<ServerOptions> {
        Ok(ServerOptions {
            limits: config.http_limits(),
            trusted_proxies: config.trusted_proxies(),
            observer: telemetry.clone(),
            id_key: random()?,
            ..ServerOptions::new(Listeners::bind(addrs)?)
        })
    };
    let addrs = config
        .server
        .listen
        .iter()
        .map(|addr| addr.to_string().parse())
        .collect::<Result<Vec<ListenAddr>, _>>()?;
    let mut servers = Vec::new();
    let main = ServerOptions {
        tls: tls.clone(),
        ..options(&addrs)?
    };
    let figures = match &config.server.metrics_listen {
        Some(addr) => Some(options(&[addr.to_string().parse()?])?),
        None => None,
    };
    let socket = options(&[admin::address(&folder)])?;
    servers.push(Server::start(main, app.clone()));
    servers.push(Server::start(
        socket,
        Arc::new(admin::Socket(app.registry.clone())),
    ));
    if let Some(figures) = figures {
        servers.push(Server::start(figures, Arc::new(Figures(app.clone()))));
    }
    app.readiness.set(true);
    greet(
        &app,
        &servers,
        tls.is_some(),
        external_url.as_deref(),
        fresh,
        password.as_ref(),
    )
    .await;

    let reloader = Reloader::new(inputs, loaded);
    let mut look = tokio::time::interval(LOOK);
    let signal = loop {
        tokio::select! {
            signal = signals.next() => break signal,
            _ = hangup.recv() => reload(&reloader, &app, tls.as_deref()),
            _ = look.tick() => if reloader.changed() {
                reload(&reloader, &app, None);
            },
        }
    };
    let pace = Pace {
        delay: config.server.shutdown_delay,
        grace: config.server.shutdown_grace,
    };
    tracing::info!(
        "{signal}: stopping; requests have {} s to finish, a second signal stops at once",
        (pace.delay + pace.grace).as_secs()
    );
    let hurry = async {
        signals.next().await;
    };
    match stop(&servers, &app.readiness, pace, hurry).await {
        Stopped::Clean => {}
        Stopped::Cut(count) => {
            tracing::warn!("{count} connection(s) were cut off; their uploads can be resumed")
        }
        Stopped::Hurried => tracing::warn!("stopped at once"),
    }
    drop(servers);
    app.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Makes the administrator at the first start. Gives the password back only if nobody knows it yet.
async fn administrator(
    app: &App,
    config: &Config,
    folder: &Path,
) -> anyhow::Result<Option<Password>> {
    let chosen = config.access.admin_password.as_ref();
    let now = app.registry.clock.now_ms();
    let made = app
        .registry
        .access
        .bootstrap_admin(chosen.map(|secret| Password::new(secret.expose())), now)
        .await?;
    match made {
        Bootstrap::Created(_) if chosen.is_some() => Ok(None),
        Bootstrap::Created(password) if std::io::stdout().is_terminal() => Ok(Some(password)),
        Bootstrap::Created(password) => {
            let path = folder.join("admin-password");
            std::fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&path)
                .and_then(|mut file| {
                    file.write_all(password.reveal().as_bytes())?;
                    file.write_all(b"\n")?;
                    file.sync_all()
                })
                .with_context(|| format!("writing {}", path.display()))?;
            tracing::info!(
                "the password of the user admin lies in {}; change it with wharf admin reset-password, then delete the file",
                path.display()
            );
            Ok(None)
        }
        Bootstrap::Existed => {
            if chosen.is_some() {
                tracing::info!(
                    "the given admin password was not looked at: there is an administrator already; wharf admin reset-password changes it"
                );
            }
            Ok(None)
        }
    }
}

fn certificate(config: &Config, folder: &Path) -> anyhow::Result<Option<Arc<Tls>>> {
    if let (Some(cert), Some(key)) = (&config.tls.cert, &config.tls.key) {
        return Ok(Some(Tls::load(cert, key)?));
    }
    if !config.tls.self_signed {
        return Ok(None);
    }
    let made = SelfSigned::ensure(&folder.join("tls"), &hosts(config), SystemTime::now())?;
    tracing::info!(
        "self-signed certificate {}; clients must trust {} (SHA-256 {}): wharf trust docker HOST --authority {} says how",
        made.fingerprint,
        made.authority.display(),
        made.authority_fingerprint,
        made.authority.display()
    );
    Ok(Some(Tls::load(&made.cert, &made.key)?))
}

/// The names under which clients will call: those listened on, this machine's, and that of `external_url`.
fn hosts(config: &Config) -> Vec<String> {
    let mut hosts = vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
    ];
    let mut add = |host: &str| {
        let host = host.trim_matches(['[', ']']);
        let everywhere = matches!(host, "" | "0.0.0.0" | "::");
        if !everywhere && !hosts.iter().any(|known| known == host) {
            hosts.push(host.to_owned());
        }
    };
    for addr in &config.server.listen {
        if let Ok(ListenAddr::Tcp { host, .. }) = addr.to_string().parse() {
            add(&host);
        }
    }
    if let Some(url) = &config.server.external_url
        && let Ok(uri) = url.to_string().parse::<http::Uri>()
        && let Some(host) = uri.host()
    {
        add(host);
    }
    add(&rustix::system::uname().nodename().to_string_lossy());
    hosts
}

/// The first words: where the data lies and how much it is, where to reach it, and what to do next.
async fn greet(
    app: &App,
    servers: &[Running],
    tls: bool,
    external_url: Option<&str>,
    fresh: bool,
    password: Option<&Password>,
) {
    let totals = app.registry.meta.read(GetTotals).await.unwrap_or_default();
    let held = if fresh {
        "new".to_owned()
    } else {
        format!(
            "{} repositories, {} manifests, {} blobs of {}",
            totals.repositories,
            totals.manifests,
            totals.blobs,
            admin::size(totals.blob_bytes)
        )
    };
    let scheme = if tls { "https" } else { "http" };
    let addrs = servers.first().map(Running::addrs).unwrap_or_default();
    let shown: Vec<String> = addrs
        .iter()
        .map(|addr| match addr {
            BoundAddr::Tcp(addr) => format!("{scheme}://{addr}"),
            BoundAddr::Unix(path) => format!("unix:{}", path.display()),
        })
        .collect();
    let login = external_url
        .and_then(|url| url.parse::<http::Uri>().ok())
        .and_then(|uri| uri.authority().map(ToString::to_string))
        .or_else(|| addrs.iter().find_map(BoundAddr::tcp).map(reachable));
    println!("Wharf {}", env!("CARGO_PKG_VERSION"));
    println!("  data     {} ({held})", app.data.folder.display());
    println!("  address  {}", shown.join(", "));
    if let Some(login) = login {
        println!("  log in   docker login {login} -u admin");
    }
    if let Some(password) = password {
        println!(
            "  password {}   (shown this once; wharf admin reset-password makes another)",
            password.reveal()
        );
    }
    // Whoever reads this through a pipe waits for it.
    let _ = std::io::stdout().flush();
}

/// An address that a client on this machine can use.
fn reachable(addr: std::net::SocketAddr) -> String {
    match addr.ip() {
        ip if ip.is_unspecified() => format!("localhost:{}", addr.port()),
        _ => addr.to_string(),
    }
}

/// Puts a changed configuration in force, as far as it can be while running.
fn reload(reloader: &Reloader, app: &App, tls: Option<&Tls>) {
    match reloader.reload() {
        Err(problems) => tracing::error!("the changed configuration is not used: {problems}"),
        Ok(reloaded) => {
            for warning in &reloaded.warnings {
                tracing::warn!("{warning}");
            }
            let config = reloader.current();
            app.registry.content.store(Arc::new(config.content_rules()));
            let rights = config
                .rights()
                .and_then(|rights| app.registry.access.reload(&rights));
            if let Err(error) = rights {
                tracing::error!("the changed rights are not used: {error}");
            }
            for change in &reloaded.applied {
                tracing::info!(
                    "{} changed from {} to {}",
                    change.path,
                    change.from,
                    change.to
                );
            }
            for change in &reloaded.waiting {
                tracing::warn!(
                    "{} changed to {}; restart to use it",
                    change.path,
                    change.to
                );
            }
        }
    }
    if let Some(tls) = tls
        && let Err(error) = tls.reload()
    {
        tracing::error!(%error, "the changed certificate is not used");
    }
}

/// Eight bytes that nobody can guess.
fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| anyhow!("the system has no random bytes"))?;
    Ok(u64::from_ne_bytes(bytes))
}
