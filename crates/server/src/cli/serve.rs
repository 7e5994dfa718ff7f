//! `wharf serve`: from the configuration to running servers, and to an orderly end.
//!
//! Everything that can be refused is refused before the first address answers: configuration, data folder, certificate,
//! addresses. What runs afterwards is a loop over signals and looks at the configuration file.

use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use wharf_core::Registry;
use wharf_core::access::{ADMIN, AdminError, Bootstrap, Password};
use wharf_core::audit;
use wharf_core::clock::SystemClock;
use wharf_core::replica::Me;
use wharf_meta::principal;
use wharf_meta::repository::GetTotals;

use super::banner::{AdminPassword, Banner, login_host};
use super::exit::{Exit, Failure, Outcome};
use super::offline::runtime;
use super::print;
use crate::admin::{self, AdminServer, Operator, PASSWORD_FILE};
use crate::api::file_origin;
use crate::app::{App, Data, Figures};
use crate::config::reload::{Change, Reloader};
use crate::config::sections::Part;
use crate::config::validate::check_files;
use crate::config::{Config, Inputs, Loaded, Problems, Source, load};
use crate::http::shutdown::{Pace, Signals, Stopped, stop};
use crate::http::tls::{SelfSigned, Tls};
use crate::http::{Limits, ListenAddr, Listeners, Running, Server, ServerOptions};
use crate::telemetry::{Metrics, Telemetry, log};

/// Between two looks at the configuration file.
const LOOK: Duration = Duration::from_secs(2);
/// For commands on the admin socket that run when the process stops.
const ADMIN_GRACE: Duration = Duration::from_secs(1);

/// Runs the registry until a signal.
pub(super) fn run(inputs: &Inputs) -> Outcome {
    let loaded = load(inputs)?;
    let config = &loaded.config;
    let missing = check_files(config, &loaded.sources);
    if !missing.is_empty() {
        return Err(Problems(missing).into());
    }
    log::start(config.log.format.into(), &config.log.level)
        .map_err(|error| Failure::text(Exit::Usage, error))?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let files = raise_open_files();
    let options = config.data_options();
    let runtime = runtime()?;
    // Blocks, which is fine: nothing else runs.
    let data = runtime.block_on(Data::open(&options, |holder| {
        let seconds = options.lock_wait.as_secs();
        tracing::warn!("the data folder is in use by {holder}; waiting up to {seconds} s for it");
    }))?;
    let outcome = runtime.block_on(serve(inputs, &loaded, data, files));
    log::flush();
    outcome
}

/// All that runs.
struct Parts {
    app: Arc<App>,
    servers: Vec<Running>,
    admin: Option<AdminServer>,
    tls: Option<Arc<Tls>>,
}

async fn serve(inputs: &Inputs, loaded: &Loaded, data: Data, files: usize) -> Outcome {
    let config = &loaded.config;
    let no_signals = |error: std::io::Error| {
        Failure::text(Exit::Failure, format!("cannot listen for signals: {error}"))
    };
    let mut signals = Signals::listen().map_err(no_signals)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(no_signals)?;

    let parts = start(loaded, data, files).await?;
    let reloader = Arc::new(Reloader::new(inputs.clone(), loaded));
    let mut look = tokio::time::interval(LOOK);
    let name = loop {
        tokio::select! {
            name = signals.next() => break name,
            _ = hangup.recv() => reload(&reloader, &parts).await,
            _ = look.tick() => if reloader.changed() {
                reload(&reloader, &parts).await;
            },
        }
    };

    let pace = Pace {
        delay: config.server.shutdown_delay,
        grace: config.server.shutdown_grace,
    };
    let seconds = (pace.delay + pace.grace).as_secs();
    tracing::info!(
        "{name}: stopping; running requests have {seconds} s to finish, a second signal stops at once"
    );
    let hurry = async {
        signals.next().await;
    };
    let stopped = stop(&parts.servers, &parts.app.readiness, pace, hurry).await;
    if let Some(admin) = &parts.admin {
        admin.stop(ADMIN_GRACE).await;
    }
    parts.app.close().await;
    match stopped {
        Stopped::Clean => tracing::info!("stopped; every request was finished"),
        Stopped::Cut(count) => tracing::warn!(
            "stopped; {count} connections were cut off, their uploads can be resumed"
        ),
        Stopped::Hurried => {
            return Err(Failure::text(
                Exit::Failure,
                "stopped at once by a second signal; uploads can be resumed",
            ));
        }
    }
    Ok(())
}

async fn start(loaded: &Loaded, data: Data, files: usize) -> Result<Parts, Failure> {
    let config = &loaded.config;
    let metrics = Arc::new(Metrics::new(config.metrics.repository_label));
    let folder = data.folder.clone();
    let opened = data.opened;
    let options = config.app_options(Arc::new(SystemClock), metrics.clone());
    let options = options.map_err(|error| Failure::new(Exit::Usage, error))?;
    let app = App::open(data, options).await?;

    let (tls, authority) = certificate(config, &folder)?;
    let telemetry = Arc::new(Telemetry { metrics });
    let bind = |addresses: &[ListenAddr]| -> Result<ServerOptions, Failure> {
        let listeners =
            Listeners::bind(addresses).map_err(|error| Failure::new(Exit::Listen, error))?;
        Ok(ServerOptions {
            limits: http_limits(config, files),
            trusted_proxies: config.trusted_proxies(),
            observer: telemetry.clone(),
            id_key: uuid::Uuid::new_v4().as_u64_pair().0,
            ..ServerOptions::new(listeners)
        })
    };
    let main = ServerOptions {
        tls: tls.clone(),
        ..bind(match config.server.run.contains(&Part::Web) {
            true => &config.server.listen,
            false => &[],
        })?
    };
    let figures = config
        .server
        .metrics_listen
        .as_ref()
        .map(|address| bind(std::slice::from_ref(address)))
        .transpose()?;
    // After everything that can be refused: whoever made a password must also get to see it.
    let password = administrator(&app, loaded, &folder).await?;

    let mut servers = vec![Server::start(main, app.clone())];
    if let Some(figures) = figures {
        servers.push(Server::start(figures, Arc::new(Figures(app.clone()))));
    }
    let operator = Operator {
        registry: app.registry.clone(),
        folder: folder.clone(),
    };
    let admin = match admin::start(operator, app.api.clone()) {
        Ok(admin) => Some(admin),
        // Images are served all the same; only commands have to wait for a stop.
        Err(error) => {
            tracing::error!(%error, "commands like `wharf backup` will not reach this process");
            None
        }
    };

    let addresses = servers[0].addrs().to_vec();
    let listens: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    app.join(Me {
        id: uuid::Uuid::now_v7().simple().to_string(),
        address: match machine_name() {
            Some(machine) => format!("{machine} {}", listens.join(" ")),
            None => listens.join(" "),
        },
        version: env!("CARGO_PKG_VERSION").to_owned(),
        settings: config.shared_settings(),
    })
    .await;
    app.readiness.set(true);
    let figures = servers
        .get(1)
        .map(|server| server.addrs().to_vec())
        .unwrap_or_default();
    let machine = machine_name();
    let banner = Banner {
        folder: &folder,
        opened: &opened,
        totals: app.registry.meta.read(GetTotals).await.unwrap_or_default(),
        addresses: &addresses,
        metrics: &figures,
        tls: tls.is_some(),
        authority,
        host: login_host(config, &addresses, tls.is_some(), machine.as_deref()),
        password,
    };
    if std::io::stdout().is_terminal() {
        print(&banner.text())?;
    } else {
        banner.log();
    }
    Ok(Parts {
        app,
        servers,
        admin,
        tls,
    })
}

/// Allows this process as many open files as the system lets it have, and tells how many that are. The usual soft limit
/// of 1,024 is there for programs that use `select`.
fn raise_open_files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit {
            current: limit.maximum,
            ..limit
        };
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit = raised,
            Err(error) => tracing::warn!(%error, "the limit of open files stays as it was"),
        }
    }
    limit.current.map_or(usize::MAX, |files| {
        usize::try_from(files).unwrap_or(usize::MAX)
    })
}

/// What clients may cost. Connections leave half of the open files to what is read and written for them: with none left
/// for blobs and the database, a connection is worth nothing.
fn http_limits(config: &Config, files: usize) -> Limits {
    let limits = config.http_limits();
    let connections = limits.connections.min(files / 2);
    if connections < limits.connections {
        tracing::warn!(
            "limits.connections is {}, but with {files} open files allowed there are {connections}; \
             raise the limit of open files (LimitNOFILE= for systemd, ulimit -Hn)",
            limits.connections
        );
    }
    Limits {
        connections,
        ..limits
    }
}

/// Makes the administrator at the first start.
async fn administrator(
    app: &App,
    loaded: &Loaded,
    folder: &Path,
) -> Result<AdminPassword, Failure> {
    let access = &app.registry.access;
    let now = app.registry.clock.now_ms();
    let file = folder.join(PASSWORD_FILE);
    let refused = |error: AdminError| {
        let exit = if matches!(error, AdminError::Password(_)) {
            Exit::Usage
        } else {
            Exit::Failure
        };
        Failure::new(exit, error)
    };
    if let Some(secret) = &loaded.config.access.admin_password {
        let made = access
            .bootstrap_admin(Some(Password::new(secret.expose())), now)
            .await
            .map_err(refused)?;
        if let Bootstrap::Created(_) = made {
            return Ok(AdminPassword::Chosen);
        }
        let source = loaded
            .sources
            .get("access.admin_password")
            .unwrap_or(&Source::Default);
        tracing::info!(
            "the password from {source} is ignored: the administrator was made at an earlier start; \
             `wharf admin reset-password` gives another"
        );
    } else if std::io::stdout().is_terminal() {
        if let Bootstrap::Created(password) =
            access.bootstrap_admin(None, now).await.map_err(refused)?
        {
            return Ok(AdminPassword::Shown(password));
        }
    } else if !has_admin(app).await? {
        // The file first: a crash in between leaves a file that the next start replaces, not an unknown password.
        let password = Password::random();
        write_password(&file, &password).map_err(|error| {
            Failure::text(
                Exit::Data,
                format!(
                    "cannot write the administrator's password to {}: {error}",
                    file.display()
                ),
            )
        })?;
        let made = access
            .bootstrap_admin(Some(password), now)
            .await
            .map_err(refused)?;
        if !matches!(made, Bootstrap::Created(_)) {
            // Another replica was faster: the password that counts is in its folder.
            let _ = std::fs::remove_file(&file);
        }
    }
    Ok(if file.exists() {
        AdminPassword::Written(file)
    } else {
        AdminPassword::Known
    })
}

async fn has_admin(app: &App) -> Result<bool, Failure> {
    let row = app
        .registry
        .meta
        .read(principal::Get {
            name: ADMIN.to_owned(),
        })
        .await;
    Ok(row
        .map_err(|error| Failure::new(Exit::Failure, error))?
        .is_some())
}

fn write_password(path: &Path, password: &Password) -> std::io::Result<()> {
    // A file that is there already may have another mode.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{}", password.reveal())?;
    file.sync_all()?;
    // Its name as well: after a power cut the administrator would be there, and nobody would know the password.
    match path.parent() {
        Some(folder) => std::fs::File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

type Authority = Option<(std::path::PathBuf, String)>;

/// The certificate, and the authority that clients must be told to trust.
fn certificate(config: &Config, folder: &Path) -> Result<(Option<Arc<Tls>>, Authority), Failure> {
    let wrong = |error| Failure::new(Exit::Usage, error);
    if let (Some(cert), Some(key)) = (&config.tls.cert, &config.tls.key) {
        let tls = Tls::load_asking(cert, key, config.client_options());
        return Ok((Some(tls.map_err(wrong)?), None));
    }
    if !config.tls.self_signed {
        return Ok((None, None));
    }
    let made = SelfSigned::ensure(&folder.join("tls"), &hosts(config), SystemTime::now())
        .map_err(wrong)?;
    let tls = Tls::load_asking(&made.cert, &made.key, config.client_options()).map_err(wrong)?;
    Ok((
        Some(tls),
        Some((made.authority, made.authority_fingerprint)),
    ))
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
    let mut open = Vec::new();
    for address in &config.server.listen {
        if let ListenAddr::Tcp { host, .. } = address {
            add(host);
            open.push(host.clone());
        }
    }
    if let Some(uri) = config
        .server
        .external_url
        .as_ref()
        .and_then(|url| url.to_string().parse::<http::Uri>().ok())
    {
        add(uri.host().unwrap_or_default());
    }
    if let Some(name) = machine_name() {
        add(&name);
    }
    if open
        .iter()
        .any(|host| matches!(host.as_str(), "" | "0.0.0.0" | "::"))
    {
        for address in own_addresses() {
            add(&address.to_string());
        }
    }
    hosts
}

fn machine_name() -> Option<String> {
    let name = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    Some(name).filter(|name| !name.is_empty())
}

/// The addresses from which this machine would talk to others. Connecting a datagram socket sends nothing.
fn own_addresses() -> Vec<std::net::IpAddr> {
    [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")]
        .into_iter()
        .filter_map(|(own, other)| {
            let socket = std::net::UdpSocket::bind(own).ok()?;
            socket.connect(other).ok()?;
            socket.local_addr().ok()
        })
        .map(|address| address.ip())
        .collect()
}

/// Puts a changed configuration in force, as far as it can be while running.
async fn reload(reloader: &Arc<Reloader>, parts: &Parts) {
    let (reading, certificate) = (Arc::clone(reloader), parts.tls.clone());
    let done = tokio::task::spawn_blocking(move || {
        let renewed = certificate.map(|tls| tls.reload().map(|new| new.then(|| tls.fingerprint())));
        (reading.reload(), renewed)
    });
    let Ok((reloaded, renewed)) = done.await else {
        return;
    };
    match renewed {
        Some(Ok(Some(fingerprint))) => tracing::info!(fingerprint, "new TLS certificate in use"),
        Some(Err(error)) => {
            tracing::error!(%error, "new TLS files cannot be used; what was read before stays in force")
        }
        _ => {}
    }
    let reloaded = match reloaded {
        Ok(reloaded) => reloaded,
        Err(problems) => {
            tracing::error!("the configuration is not used, the old one stays: {problems}");
            return;
        }
    };
    for warning in &reloaded.warnings {
        tracing::warn!("{warning}");
    }
    if !reloaded.applied.is_empty() {
        record(&parts.app.registry, &reloaded.applied).await;
    }
    let config = reloader.current();
    parts
        .app
        .registry
        .content
        .store(Arc::new(config.content_rules()));
    parts.app.registry.rules.store(Arc::new(config.rules()));
    parts.app.registry.access.limit(config.rate_rules());
    if let Err(error) = config
        .rights()
        .and_then(|rights| parts.app.registry.access.reload(&rights))
    {
        tracing::error!(%error, "the changed rights are not used, the old ones stay");
    }
    if let Ok(rules) = config.certificate_users() {
        parts.app.registry.access.know_certificates(rules);
    }
    if let Err(error) = log::set_level(&config.log.level) {
        tracing::error!(%error, "the level of the log stays as it was");
    }
    for change in &reloaded.applied {
        tracing::info!(
            "{} is now {} (it was {})",
            change.path,
            change.to,
            change.from
        );
    }
    for change in &reloaded.waiting {
        tracing::warn!(
            "{} stays {} until a restart; the configuration says {}",
            change.path,
            change.from,
            change.to
        );
    }
    if reloaded.applied.is_empty() && reloaded.waiting.is_empty() {
        tracing::info!("the configuration was read again; nothing has changed");
    }
}

/// Notes in the audit log which keys changed; their values may be secrets.
async fn record(registry: &Registry, applied: &[Change]) {
    let mut keys: Vec<&str> = applied.iter().map(|change| change.path.as_str()).collect();
    keys.dedup();
    let with = serde_json::json!({ "keys": keys });
    let noted = audit::command(registry, "configuration.reload", with);
    file_origin().scope(noted).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_file_is_for_its_owner_only_even_over_an_older_one() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(PASSWORD_FILE);
        std::fs::write(&path, "open to all").unwrap();
        write_password(&path, &Password::new("secret")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "secret\n");
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn connections_leave_files_for_what_they_ask_for() {
        let config = Config::default();
        let wanted = config.http_limits().connections;
        assert_eq!(http_limits(&config, usize::MAX).connections, wanted);
        assert_eq!(http_limits(&config, 2 * wanted).connections, wanted);
        assert_eq!(http_limits(&config, 1024).connections, 512);
        assert!(raise_open_files() >= 1024);
    }

    #[test]
    fn certificates_are_made_out_to_every_name_that_clients_use() {
        let mut config = Config::default();
        let own = hosts(&config);
        assert!(own.contains(&"localhost".to_owned()) && own.contains(&"127.0.0.1".to_owned()));
        config.server.listen = vec![
            "10.1.2.3:5000".parse().unwrap(),
            "[fe80::7]:1".parse().unwrap(),
        ];
        config.server.external_url = Some(crate::config::ExternalUrl {
            secure: true,
            authority: "reg.example.com:8443".into(),
        });
        let hosts = hosts(&config);
        for host in ["10.1.2.3", "fe80::7", "reg.example.com"] {
            assert!(hosts.contains(&host.to_owned()), "{host}: {hosts:?}");
        }
        assert!(!hosts.contains(&String::new()));
    }
}
