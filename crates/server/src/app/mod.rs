//! The one place that knows all parts: it opens the stores, puts the registry together, and sends each request to the
//! part that answers it.

mod data;
mod upkeep;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio_util::sync::CancellationToken;
use wharf_core::access::{Access, AccessError, AccessOptions};
use wharf_core::{Clock, ContentRules, Limits, Registry};

pub use self::data::{Data, DataError, DataOptions};
use crate::v2::{Challenges, V2};

/// Everything that an [`App`] is made of. `config` builds one from the configuration, tests by hand.
#[derive(Debug)]
pub struct AppOptions {
    /// Who may do what.
    pub access: AccessOptions,
    /// What one client can ask for.
    pub limits: Limits,
    /// What manifests must satisfy.
    pub content: ContentRules,
    /// `server.external_url`: makes links absolute.
    pub external_url: Option<String>,
    /// `auth.challenge = "basic"`.
    pub basic_challenge: bool,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

/// The registry with everything around it, ready to answer requests.
#[derive(Debug)]
pub struct App {
    /// The registry itself, for commands on the admin socket.
    pub registry: Arc<Registry>,
    /// The stores, and with them the data folder's lock.
    pub data: Data,
    v2: V2,
    phase: AtomicU8,
    stop: CancellationToken,
}

/// How far along the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Requests are welcome.
    Ready = 0,
    /// Requests are still answered; load balancers should send new ones elsewhere.
    Leaving = 1,
}

/// Why there is no [`App`].
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Access cannot be set up.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// What a crash left behind cannot be cleared away.
    #[error(transparent)]
    Core(#[from] wharf_core::Error),
}

impl App {
    /// Puts the registry together over an open data folder and starts its upkeep.
    pub async fn open(data: Data, options: AppOptions) -> Result<Arc<Self>, AppError> {
        let now = options.clock.now_ms();
        let access = Access::open(options.access, data.meta.clone(), now).await?;
        let challenges = Challenges {
            service: access.service().to_owned(),
            basic: options.basic_challenge,
        };
        let registry = Arc::new(Registry::new(
            data.meta.clone(),
            data.blobs.clone(),
            Arc::new(access),
            options.clock,
            options.limits,
            options.content,
        ));
        upkeep::after_crash(&registry).await?;
        let stop = CancellationToken::new();
        tokio::spawn(upkeep::run(registry.clone(), stop.clone()));
        Ok(Arc::new(Self {
            v2: V2::new(
                registry.clone(),
                challenges,
                options.external_url.as_deref(),
            ),
            registry,
            data,
            phase: AtomicU8::new(Phase::Ready as u8),
            stop,
        }))
    }

    /// How far along the process is.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Relaxed) {
            0 => Phase::Ready,
            _ => Phase::Leaving,
        }
    }

    /// Turns readiness off, so that load balancers look elsewhere (OPS-4).
    pub fn leave(&self) {
        self.phase.store(Phase::Leaving as u8, Ordering::Relaxed);
    }

    /// Ends the upkeep and brings everything in the metadata store to the disk. Requests must have ended before.
    pub async fn close(&self) {
        self.stop.cancel();
        self.data.meta.close().await;
    }
}
