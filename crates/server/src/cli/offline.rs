//! A stopped registry, opened by a command: the same stores, without anything that serves.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use wharf_core::Registry;
use wharf_core::access::{Access, AccessOptions};
use wharf_core::clock::{Clock as _, SharedClock, SystemClock};

use super::exit::{Exit, Failure};
use crate::admin::{self, CallError, Command, Operator, Refusal, Reply, call};
use crate::api::Api;
use crate::app::Data;
use crate::config::Config;
use crate::memory;

/// Tasks that a runtime thread works off before it looks for new requests, while others still wait for it. tokio's own
/// 61 suit turns of microseconds; those of uploads copy up to megabytes, and a new request may wait behind many: beside
/// four pushes p50 of a manifest was 0.95 ms with 61 and 0.6 with 16. With 4, small requests alone lost a twentieth.
const TURNS: u32 = 16;

/// How long the answer of a command may take to leave.
const GRACE: Duration = Duration::from_secs(5);

/// The runtime of a command.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    let built = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .event_interval(TURNS)
        .on_thread_park(memory::when_idle)
        .build();
    built.map_err(|error| Failure::text(Exit::Failure, format!("cannot start threads: {error}")))
}

/// Has the registry of this data folder do something, whether it runs or not.
pub(super) fn perform(config: &Config, command: Command) -> Result<Reply, Failure> {
    let folder = &config.server.data;
    let database = config.data_options().database();
    // What runs there may know better where its metadata is.
    if !folder.exists() {
        return Err(absent(folder));
    }
    let folder = absolute(folder)?;
    match call(&folder, &command) {
        Ok(reply) => Ok(reply),
        Err(CallError::Stopped) if config.metadata.url.is_none() && !database.exists() => {
            Err(absent(&folder))
        }
        Err(CallError::Stopped) => runtime()?.block_on(alone(config, command)),
        Err(CallError::Refused(refusal)) => Err(refusal.into()),
        Err(error @ CallError::NotYours { .. }) => Err(Failure::new(Exit::Data, error)),
        Err(error @ CallError::Broken(_)) => Err(Failure::new(Exit::Failure, error)),
    }
}

/// Nobody ever served from there.
pub(super) fn absent(folder: &Path) -> Failure {
    let hint = "name the data folder with --data, or the configuration that does with --config";
    Failure::text(
        Exit::Data,
        format!("there is no registry in {}: {hint}", folder.display()),
    )
}

/// Opens the stopped registry of this data folder with its socket, and nothing else that serves, for as long as `work` takes.
pub(super) fn served<T>(
    config: &Config,
    work: impl FnOnce() -> std::io::Result<T>,
) -> Result<T, Failure> {
    if config.metadata.url.is_none() && !config.data_options().database().exists() {
        return Err(absent(&config.server.data));
    }
    runtime()?.block_on(async {
        let (data, operator) = open(config).await?;
        let api = Arc::new(Api::new(operator.registry.clone(), None));
        let outcome = match admin::start(operator, api) {
            Ok(server) => {
                let done = tokio::task::block_in_place(work);
                server.stop(GRACE).await;
                done.map_err(|error| Failure::new(Exit::Failure, error))
            }
            Err(error) => Err(Failure::new(Exit::Failure, error)),
        };
        data.meta.close().await;
        outcome
    })
}

/// A path that another process understands.
pub(super) fn absolute(path: &Path) -> Result<std::path::PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::text(Exit::Failure, format!("{}: {error}", path.display())))
}

async fn alone(config: &Config, command: Command) -> Result<Reply, Failure> {
    let (data, operator) = open(config).await?;
    let outcome = operator.execute(command).await;
    data.meta.close().await;
    Ok(outcome?)
}

/// The stores, and the registry over them.
async fn open(config: &Config) -> Result<(Data, Operator), Failure> {
    // Blocks, which is fine: nothing else runs.
    let options = config.data_options();
    let data = Data::open(&options, |holder| {
        eprintln!("waiting for the data folder, which {holder} has");
    })
    .await?;
    data.own().await?;
    // Files that the configuration names are of no interest here, and may be missing where this runs.
    let options = AccessOptions {
        rights: config
            .rights()
            .map_err(|error| Failure::new(Exit::Usage, error))?,
        htpasswd: None,
        longest_lifetime: config.auth.longest_lifetime,
        ..AccessOptions::default()
    };
    let clock = SharedClock::new(Arc::new(SystemClock), &data.meta).await;
    let clock = Arc::new(clock.map_err(|error| Failure::new(Exit::Failure, error))?);
    let access = Access::open(
        options,
        data.secret_keys()?,
        data.meta.clone(),
        clock.now_ms(),
    )
    .await;
    let access = access.map_err(|error| Failure::new(Exit::Failure, error))?;
    let registry = Registry::new(
        data.meta.clone(),
        data.blobs.clone(),
        Arc::new(access),
        clock,
        config.core_limits(),
        config.content_rules(),
    );
    registry.rules.store(Arc::new(config.rules()));
    let operator = Operator {
        registry: Arc::new(registry),
        folder: data.folder.clone(),
    };
    Ok((data, operator))
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let exit = match refusal {
            Refusal::Wrong(_) => Exit::Usage,
            Refusal::Failed(_) => Exit::Failure,
        };
        Self::new(exit, refusal)
    }
}
