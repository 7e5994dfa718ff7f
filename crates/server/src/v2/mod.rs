//! `/v2/`: the distribution API. Translation only: what a request means is decided in `wharf_core`.
//!
//! [`V2::handle`] is called by `app` for every `/v2/` route, after the transport has parsed it. The order is always
//! the same: route, method, who, may they, then the noun; nothing is looked up before the right to know (AUTH-8).

mod audit;
mod blob;
mod catalog;
mod extension;
mod guard;
mod manifest;
mod ping;
mod redirect;
mod referrer;
mod reply;
mod tag;
mod terminal;
mod token;
mod upload;

use std::borrow::Cow;
use std::sync::Arc;

use http::Method;
use wharf_core::Registry;
use wharf_core::access::{Caller, Circumstances, Meter};
use wharf_oci::ErrorCode;

use crate::http::error::ApiError;
use crate::http::route::Route;
use crate::http::{Facts, Request, Response};
use crate::telemetry::Metrics;

pub use self::guard::Challenges;
pub use self::redirect::RedirectRule;

/// The distribution API over one registry.
#[derive(Debug)]
pub struct V2 {
    registry: Arc<Registry>,
    challenges: Challenges,
    metrics: Arc<Metrics>,
    /// `external_url` without a trailing slash; empty makes every `Location` relative (UP-2).
    base: String,
    redirect: RedirectRule,
}

/// What a noun gets: the registry, who asks, and where links point.
struct Call<'a> {
    registry: &'a Registry,
    caller: &'a Caller,
    base: &'a str,
    redirect: &'a RedirectRule,
}

impl Call<'_> {
    /// The name that rows and events record.
    fn actor(&self) -> &str {
        self.caller.principal.name()
    }
}

type Answer = Result<Response, ApiError>;

impl V2 {
    /// `external_url` makes links absolute; without it they are relative, which no proxy can break.
    pub fn new(
        registry: Arc<Registry>,
        challenges: Challenges,
        metrics: Arc<Metrics>,
        external_url: Option<&str>,
        redirect: RedirectRule,
    ) -> Self {
        Self {
            registry,
            challenges,
            metrics,
            base: external_url.unwrap_or("").trim_end_matches('/').to_owned(),
            redirect,
        }
    }

    /// Answers one request whose route is a `/v2/` one, or none at all.
    pub async fn handle(&self, mut request: Request) -> Response {
        let mut facts = Facts {
            repository: request
                .route
                .as_ref()
                .ok()
                .and_then(|route| route.repository().cloned()),
            ..Facts::default()
        };
        let mut meter = None;
        let answer = self.answer(&mut request, &mut facts, &mut meter).await;
        let mut response = answer.unwrap_or_else(ApiError::into_response);
        if let Some(meter) = meter {
            response.body_mut().set_meter(meter);
        }
        response.body_mut().set_facts(facts);
        response
    }

    /// Answers `/token`, which belongs to the distribution API though it lies beside it.
    pub async fn token(&self, mut request: Request) -> Response {
        let address = request.peer.addr.map(|peer| peer.ip());
        let came = Circumstances::new(address, self.registry.clock.now_ms());
        let (mut response, who) = match terminal::answer(&self.registry, came, &mut request).await {
            Some(answered) => answered,
            None => token::answer(&self.registry.access, came, &mut request).await,
        };
        audit::token(&self.registry, &request, came, &who);
        if let Err(refused) = &who
            && refused.word != terminal::WAITS
        {
            self.metrics.auth_failed(refused.word);
        }
        response.body_mut().set_facts(Facts {
            principal: who.ok().map(|asked| Cow::Owned(asked.principal)),
            ..Facts::default()
        });
        response
    }

    /// Lets only an administrator in, for what lies outside of `/v2/`.
    pub async fn admit_admin(&self, request: &Request) -> Result<(), ApiError> {
        let route = match &request.route {
            Ok(route) => route.clone(),
            Err(error) => return Err(ApiError::from(error.clone())),
        };
        if !route.methods().contains(&request.method) {
            return Err(ApiError::method_not_allowed(route.methods()));
        }
        self.admit(request, &route).await.map(|_| ())
    }

    async fn answer(
        &self,
        request: &mut Request,
        facts: &mut Facts,
        meter: &mut Option<Meter>,
    ) -> Answer {
        let route = match &request.route {
            Ok(route) => route.clone(),
            Err(error) => return Err(ApiError::from(error.clone())),
        };
        if !route.methods().contains(&request.method) {
            return Err(ApiError::method_not_allowed(route.methods()));
        }
        let caller = self.admit_noting(request, &route, facts).await?;
        *meter = self.registry.access.meter(&caller, route.repository());
        if let Some(meter) = meter {
            request.body.set_meter(meter.another());
        }
        let origin = audit::origin(&self.registry, &caller, request, &route);
        let work = self.act(&caller, request, &route);
        let answer = match origin {
            Some(origin) => Box::pin(origin.scope(work)).await,
            None => work.await,
        };
        if self.registry.rules.load().audit.reads && answer.is_ok() {
            audit::read(&self.registry, &caller, request, &route);
        }
        answer
    }

    /// Does what the caller may.
    async fn act(&self, caller: &Caller, request: &mut Request, route: &Route) -> Answer {
        let call = Call {
            registry: &self.registry,
            caller,
            base: &self.base,
            redirect: &self.redirect,
        };
        match (route, &request.method) {
            (Route::Ping, _) => Ok(ping::get()),
            (Route::Catalog, _) => catalog::list(&call, request).await,
            (Route::Extensions { .. }, _) => Ok(extension::discover()),
            (Route::Blob { name, digest }, &Method::DELETE) => {
                blob::delete(&call, name, digest).await
            }
            (Route::Blob { name, digest }, &Method::HEAD) => {
                blob::head(&call, request, name, digest).await
            }
            (Route::Blob { name, digest }, _) => blob::get(&call, request, name, digest).await,
            (Route::Uploads { name }, _) => upload::start(&call, request, name).await,
            (Route::Upload { name, id }, &Method::GET | &Method::HEAD) => {
                upload::status(&call, name, id).await
            }
            (Route::Upload { name, id }, &Method::PATCH) => {
                upload::append(&call, request, name, id).await
            }
            (Route::Upload { name, id }, &Method::PUT) => {
                upload::complete(&call, request, name, id).await
            }
            (Route::Upload { name, id }, _) => upload::cancel(&call, name, id).await,
            (Route::Manifest { name, reference }, &Method::PUT) => {
                manifest::put(&call, request, name, reference).await
            }
            (Route::Manifest { name, reference }, &Method::DELETE) => {
                manifest::delete(&call, name, reference).await
            }
            (Route::Manifest { name, reference }, _) => {
                manifest::get(&call, request, name, reference).await
            }
            (Route::Tags { name }, _) => tag::list(&call, request, name).await,
            (Route::Referrers { name, digest }, _) => {
                referrer::list(&call, request, name, digest).await
            }
            // `app` sends only `/v2/` routes here.
            _ => Err(ApiError::new(
                ErrorCode::Unsupported,
                "this address is not part of the distribution API",
            )),
        }
    }
}
