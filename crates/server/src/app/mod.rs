//! The one place that knows all parts: it opens the stores, puts the registry together, and sends each request to the
//! part that answers it.

mod check;
mod copy;
mod data;
mod fetch;
pub(crate) mod health;
pub mod ldap;
pub(crate) mod oidc;
mod secret;
mod upkeep;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wharf_core::access::{Access, AccessError, AccessOptions};
use wharf_core::clock::SharedClock;
use wharf_core::gc::{self, Rules};
use wharf_core::job::{self, Kinds};
use wharf_core::replica::{self, Me};
use wharf_core::{Clock, ContentRules, Limits, Registry, audit, mark};

pub use self::check::{Report, check};
pub use self::copy::{CopyError, Place, copy};
pub use self::data::{Blobs, Data, DataError, DataOptions, target};
use self::ldap::LdapOptions;
pub use self::secret::{ForgetError, forget};
pub use self::upkeep::Upkeep;
use crate::api::{Api, Door};
use crate::http::body::Body;
use crate::http::shutdown::Readiness;
use crate::http::{ApiError, Handler, Request, Response, Route};
use crate::telemetry::metrics::Sample;
use crate::telemetry::{self, Metrics};
use crate::ui;
use crate::v2::{Challenges, RedirectRule, V2};

/// How long a process that ends tries to tell the others so.
const LEAVE: Duration = Duration::from_secs(1);
/// How long running jobs get to come to the end of their step at a shutdown.
const JOBS_GRACE: Duration = Duration::from_secs(5);

/// Everything that an [`App`] is made of. `config` builds one from the configuration, tests by hand.
#[derive(Debug)]
pub struct AppOptions {
    /// Who may do what.
    pub access: AccessOptions,
    /// What one client can ask for.
    pub limits: Limits,
    /// What manifests must satisfy.
    pub content: ContentRules,
    /// Whom people sign in with whose passwords are elsewhere.
    pub directories: Vec<LdapOptions>,
    /// How long what nobody needs stays.
    pub rules: Rules,
    /// How to clean up and repair; `None`: another process does.
    pub upkeep: Option<Upkeep>,
    /// `server.external_url`: makes links absolute.
    pub external_url: Option<String>,
    /// `auth.challenge = "basic"`.
    pub basic_challenge: bool,
    /// Who reads blobs from the object store itself.
    pub redirect: RedirectRule,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Where figures are counted.
    pub metrics: Arc<Metrics>,
}

/// The registry with everything around it, ready to answer requests.
#[derive(Debug)]
pub struct App {
    /// The registry itself, for commands on the admin socket.
    pub registry: Arc<Registry>,
    /// The stores, and with them the data folder's lock.
    pub data: Data,
    v2: V2,
    /// The management API, for the admin socket too.
    pub api: Arc<Api>,
    metrics: Arc<Metrics>,
    /// Host and port of `external_url`.
    authority: Option<String>,
    /// `server.external_url`.
    external: Option<String>,
    /// Whether new requests are welcome.
    pub readiness: Readiness,
    stop: CancellationToken,
    /// How this process shows itself to others over the same store, once it serves.
    me: OnceLock<Me>,
    /// All kinds of jobs.
    kinds: Arc<Kinds>,
    jobs: Mutex<Option<JoinHandle<()>>>,
}

/// Why there is no [`App`].
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Access cannot be set up.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// A directory cannot be asked as the configuration says.
    #[error("{0}")]
    Directory(String),
    /// The stores cannot answer.
    #[error(transparent)]
    Core(#[from] wharf_core::Error),
    /// The bucket is not this installation's, or cannot be used.
    #[error(transparent)]
    Storage(#[from] DataError),
}

impl App {
    /// Puts the registry together over an open data folder and starts its upkeep.
    pub async fn open(data: Data, options: AppOptions) -> Result<Arc<Self>, AppError> {
        data.own().await?;
        let shared = match data.meta.is_shared() {
            true => Some(Arc::new(shared_clock(options.clock.clone(), &data).await?)),
            false => None,
        };
        let clock: Arc<dyn Clock> = match &shared {
            Some(shared) => shared.clone(),
            None => options.clock,
        };
        let now = clock.now_ms();
        let access = AccessOptions {
            clock: clock.clone(),
            fetch: Arc::new(fetch::Web::default()),
            web: Arc::new(oidc::Providers::default()),
            ..options.access
        };
        let access = Access::open(access, data.secret_keys()?, data.meta.clone(), now).await?;
        let challenges = Challenges {
            service: access.service().to_owned(),
            basic: options.basic_challenge,
        };
        let registry = Arc::new(Registry::new(
            data.meta.clone(),
            data.blobs.clone(),
            Arc::new(access),
            clock,
            options.limits,
            options.content,
        ));
        let sources = options.directories.into_iter().map(LdapOptions::open);
        let sources = sources
            .collect::<Result<Vec<_>, _>>()
            .map_err(AppError::Directory)?;
        registry.access.directories().open(&registry, sources);
        registry.rules.store(Arc::new(options.rules));
        gc::awake(&registry).await?;
        // Before any job: an older state must not collect what only a newer one names.
        if let Err(error) = mark::tend(&registry).await {
            tracing::warn!(%error, "whether the metadata is as new as the blobs could not be seen; trying again");
        }
        let stop = CancellationToken::new();
        let kinds = Arc::new(upkeep::kinds(options.upkeep));
        let jobs = options.upkeep.map(|_| {
            // On a store of its own a process is known by the same name at every start, and can take up what it had.
            let alone = !data.meta.is_shared();
            let jobs = job::Options {
                worker: match alone {
                    true => "local".to_owned(),
                    false => format!("{}-{}", std::process::id(), uuid::Uuid::new_v4().simple()),
                },
                alone,
            };
            tokio::spawn(job::run(
                registry.clone(),
                kinds.clone(),
                jobs,
                stop.clone(),
            ))
        });
        tokio::spawn(upkeep::run(registry.clone(), shared, stop.clone()));
        Ok(Arc::new(Self {
            v2: V2::new(
                registry.clone(),
                challenges,
                options.metrics.clone(),
                options.external_url.as_deref(),
                options.redirect,
            ),
            api: Arc::new(Api::new(registry.clone(), Some(options.metrics.clone()))),
            authority: options.external_url.as_deref().and_then(authority),
            external: options.external_url,
            metrics: options.metrics,
            registry,
            data,
            readiness: Readiness::new(),
            stop,
            me: OnceLock::new(),
            kinds,
            jobs: Mutex::new(jobs),
        }))
    }

    /// Shows this process to the others over the same store, until it ends; says what they have set up otherwise.
    pub async fn join(&self, me: Me) {
        if !self.registry.meta.is_shared() {
            return;
        }
        match replica::list(&self.registry).await {
            Ok(others) => {
                for difference in replica::differences(&me, &others) {
                    tracing::error!("{difference}");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the other replicas could not be asked for their settings")
            }
        }
        let me = self.me.get_or_init(|| me).clone();
        // Whoever finds this process ready finds it in the list, too.
        if let Err(error) = replica::beat(&self.registry, &me).await {
            tracing::debug!(%error, "the other replicas could not be told of this one yet");
        }
        tokio::spawn(upkeep::beats(self.registry.clone(), me, self.stop.clone()));
    }

    /// Ends the upkeep and brings everything in the metadata store to the disk. Requests must have ended before.
    pub async fn close(&self) {
        self.stop.cancel();
        let jobs = self
            .jobs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut jobs) = jobs
            && tokio::time::timeout(JOBS_GRACE, &mut jobs).await.is_err()
        {
            // What a job had not kept is done again.
            jobs.abort();
        }
        // What is still being counted is told now.
        let flushed = self.registry.audit.flush(&self.registry, true).await;
        if let Err(error) = flushed.and(audit::seal(&self.registry).await) {
            tracing::warn!(%error, "the last sign-ins and refusals could not be written to the audit log");
        }
        if let Some(me) = self.me.get() {
            // Else the others forget it by themselves.
            let _ = tokio::time::timeout(LEAVE, replica::leave(&self.registry, me)).await;
        }
        self.data.meta.close().await;
    }
}

/// Whoever drops it without [`App::close`] wants nothing more done.
impl Drop for App {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// All replicas go by the time of the database.
async fn shared_clock(own: Arc<dyn Clock>, data: &Data) -> Result<SharedClock, wharf_core::Error> {
    let clock = SharedClock::new(own, &data.meta).await;
    clock.map_err(wharf_core::Error::from)
}

impl Handler for App {
    async fn handle(&self, request: Request) -> Response {
        match &request.route {
            Ok(Route::Root) => get_only(&request, |request| {
                ui::welcome(request, self.authority.as_deref())
            }),
            Ok(Route::Invitation) => match refuse_method(&request) {
                Some(refusal) => refusal,
                None => ui::invitation(request, &self.registry, self.authority.as_deref()).await,
            },
            Ok(Route::People(page)) => match refuse_method(&request) {
                Some(refusal) => refusal,
                None => {
                    let page = page.clone();
                    let (external, authority) =
                        (self.external.as_deref(), self.authority.as_deref());
                    ui::people(request, page, &self.registry, external, authority).await
                }
            },
            Ok(Route::Livez) => get_only(&request, |_| health::live()),
            Ok(Route::Startupz) => get_only(&request, |_| health::started()),
            Ok(Route::Readyz) => match refuse_method(&request) {
                Some(refusal) => refusal,
                None => health::ready(self, &request).await,
            },
            Ok(Route::Metrics) => match self.v2.admit_admin(&request).await {
                Ok(()) => self.metrics(true).await,
                Err(refusal) => refusal.into_response(),
            },
            Ok(Route::Token) => self.v2.token(request).await,
            Ok(Route::Api(_)) => self.api.handle(request, Door::Network).await,
            Err(_) if request.is_api() => self.api.handle(request, Door::Network).await,
            _ => self.v2.handle(request).await,
        }
    }
}

/// Answers on `server.metrics_listen`: figures and health, without credentials, and nothing else. Names of repositories may be
/// private: none is shown there, unless `metrics.repository_label` says that all may see them.
#[derive(Debug)]
pub struct Figures(pub Arc<App>);

impl Handler for Figures {
    async fn handle(&self, request: Request) -> Response {
        match &request.route {
            Ok(Route::Metrics) => match refuse_method(&request) {
                Some(refusal) => refusal,
                None => self.0.metrics(self.0.metrics.shows_names()).await,
            },
            Ok(Route::Livez | Route::Readyz | Route::Startupz) => self.0.handle(request).await,
            _ => ApiError::new(
                wharf_oci::ErrorCode::Unsupported,
                "only /metrics, /livez, /readyz and /startupz are served here",
            )
            .with_status(http::StatusCode::NOT_FOUND)
            .into_response(),
        }
    }
}

impl App {
    /// All figures, sampled now; by prefixes of repositories only for those who may see their names.
    async fn metrics(&self, names: bool) -> Response {
        let totals = self
            .registry
            .meta
            .read(wharf_meta::repository::GetTotals)
            .await;
        let quarantined = self.registry.meta.read(wharf_meta::quarantine::Count).await;
        let largest = wharf_meta::usage::Largest {
            limit: telemetry::PREFIXES + 1,
        };
        let mut prefixes = self.registry.meta.read(largest).await.unwrap_or_default();
        if !names {
            // The whole store stays, as one.
            prefixes.retain(|row| row.name.is_empty());
        }
        let access = &self.registry.access;
        let (passwords, tokens) = (access.password_counts(), access.token_counts());
        let text = self.metrics.render(Sample {
            // A store that cannot answer shows in its own figures; the others are still worth having.
            totals: totals.unwrap_or_default(),
            meta: self.registry.meta.stats(),
            blob: self.data.blobs.figures(),
            jobs: self.kinds.figures(),
            freed: self.registry.freed.read(),
            quarantined: quarantined.unwrap_or_default(),
            prefixes,
            audit: self.registry.audit.counts(),
            caches: vec![
                ("password", passwords.remembered, passwords.checked),
                ("token", tokens.remembered, tokens.checked),
            ],
            limited: access.limited_counts(),
        });
        let mut response = Response::new(Body::full(text));
        response.headers_mut().insert(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static(
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            ),
        );
        response
    }
}

fn get_only(request: &Request, answer: impl FnOnce(&Request) -> Response) -> Response {
    refuse_method(request).unwrap_or_else(|| answer(request))
}

fn refuse_method(request: &Request) -> Option<Response> {
    let methods = request.route.as_ref().ok()?.methods();
    (!methods.contains(&request.method))
        .then(|| ApiError::method_not_allowed(methods).into_response())
}

/// Host and port of a URL.
fn authority(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    uri.authority().map(ToString::to_string)
}
