//! `/api/v1`: the management API, on the main listeners and on the admin socket.
//!
//! [`Api::handle`] is called by `app` for each request whose path lies below `/api`, and by `admin` for those that came through
//! its socket, where the caller is root and no password is asked for. The order is that of `/v2/`: address, method, who; then
//! the resource asks what they may (`visitor`) before it looks anything up. Resources translate only: what a request means
//! is decided in `wharf_core`. The router is axum's; connections, limits and request ids are those of `http`.
//!
//! What a caller may not see is answered exactly like what does not exist, and costs the same: see `visitor`.

// What utoipa makes of the parameters is qualified more than it needs to be.
#![allow(unused_qualifications)]

mod access;
mod account;
mod apply;
mod arguments;
mod audit;
mod binding;
mod condition;
mod document;
mod explain;
mod group;
mod identity;
mod invitation;
mod job;
mod me;
mod namespace;
mod page;
pub(crate) mod problem;
mod repository;
mod restore;
mod robot;
mod role;
mod session;
mod status;
mod tag;
mod time;
mod user;
mod visitor;
mod workload;

use std::borrow::Cow;
use std::sync::Arc;

use axum::Router;
use axum::body::Body as AxumBody;
use http::header::{ALLOW, CACHE_CONTROL, HeaderValue};
use http::{HeaderName, Method};
use tower_service::Service as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wharf_core::Registry;
use wharf_core::access::{AuthFailure, Caller, Circumstances};
use wharf_core::audit::{Kind, Sight, given};
use wharf_oci::RepositoryName;

use self::problem::Problem;
use self::visitor::Visitor;
pub(crate) use self::visitor::{file_origin, operator_origin};
use crate::http::route::{ApiRoute, Route, RouteError};
use crate::http::{Facts, Request, Response};
use crate::telemetry::Metrics;

/// Longest body of a request.
const LARGEST: u64 = 1 << 20;

/// Where browsers say which page made a request.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Which door a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// A listener: whoever asks says who they are.
    Network,
    /// The admin socket: whoever can open it may do everything.
    Socket,
}

/// What resources work with.
#[derive(Debug)]
struct State {
    registry: Arc<Registry>,
    /// Held while the audit log is checked: that reads all of it.
    verifying: tokio::sync::Mutex<()>,
}

/// The router's own view of [`State`].
type Shared = axum::extract::State<Arc<State>>;

/// The management API over one registry.
#[derive(Debug)]
pub struct Api {
    state: Arc<State>,
    router: Router,
    metrics: Option<Arc<Metrics>>,
}

impl Api {
    /// Over this registry; `metrics` counts refused sign-ins.
    pub fn new(registry: Arc<Registry>, metrics: Option<Arc<Metrics>>) -> Self {
        let state = Arc::new(State {
            registry,
            verifying: tokio::sync::Mutex::default(),
        });
        let (router, _) = resources().split_for_parts();
        Self {
            router: router.with_state(state.clone()),
            state,
            metrics,
        }
    }

    /// Answers one request whose path lies below `/api`.
    pub async fn handle(&self, request: Request, door: Door) -> Response {
        let id = request.id.as_str().to_owned();
        let mut facts = Facts::default();
        let came = (request.method.clone(), request.path().to_owned());
        let place = match &request.route {
            Ok(Route::Api(route)) => route.place(),
            _ => None,
        };
        let mut visitor = None;
        let answer = self.answer(request, door, &mut facts, &mut visitor).await;
        let refusal = match &answer {
            Ok(response) => Problem::within(response),
            Err(problem) => Some(problem),
        };
        if let (Some(problem), Some(visitor)) = (refusal, &visitor) {
            self.note_refusal(problem, visitor, &came, place.as_ref(), &id);
        }
        let mut response = match answer {
            Ok(response) => problem::settle(response, &id).await,
            Err(problem) => problem.answer(&id),
        };
        let headers = response.headers_mut();
        // What one caller may see is nobody else's.
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-store"));
        response.body_mut().set_facts(facts);
        response
    }

    async fn answer(
        &self,
        mut request: Request,
        door: Door,
        facts: &mut Facts,
        known: &mut Option<Visitor>,
    ) -> Result<axum::response::Response, Problem> {
        let route = match request.route.clone() {
            Ok(Route::Api(route)) => route,
            Err(error @ RouteError::Encoding(_)) => {
                return Err(Problem::invalid("path", error.to_string()));
            }
            _ => return Err(Problem::no_such_address()),
        };
        let methods = route.resource.methods;
        if !methods.contains(&request.method) {
            return Err(not_allowed(methods));
        }
        let visitor = match (door, route.resource.open) {
            (Door::Socket, _) => Visitor::root(),
            (Door::Network, true) => {
                self.count(&request, None)?;
                Visitor::nobody(self.came(&request))
            }
            (Door::Network, false) => {
                refuse_other_sites(&request)?;
                let found = self.authenticate(&request).await;
                self.count(&request, found.as_ref().ok())?;
                found?
            }
        };
        facts.principal = Some(Cow::Owned(visitor.actor().to_owned()));
        *known = Some(visitor.clone());
        if !visitor.is_nobody() {
            // What they did a moment ago, at another replica, is so here too.
            self.state.registry.access.follow().await?;
        }
        let body = request.body.collect(LARGEST).await?;
        let origin = visitor.origin(request.id.as_str());
        let request = self.translate(request, &route, visitor, body)?;
        let Ok(response) = origin.scope(self.router.clone().call(request)).await;
        Ok(response)
    }

    /// Notes for the audit log that somebody was refused, who is not merely asked to sign in.
    fn note_refusal(
        &self,
        problem: &Problem,
        visitor: &Visitor,
        (method, path): &(Method, String),
        place: Option<&RepositoryName>,
        id: &str,
    ) {
        let Visitor::Caller(caller) = visitor else {
            return;
        };
        if !problem.is_refusal() || caller.came_without_credentials() && !problem.is_forbidden() {
            return;
        }
        let came = caller.circumstances;
        let origin = caller.origin("");
        let sight = Sight {
            kind: Kind::Refuse,
            principal: origin.actor,
            credential: origin.credential,
            address: came.address,
            repository: place.map(ToString::to_string),
            digest: None,
            tag: None,
            asked: format!("{method} {path}"),
            reason: problem.detail().to_owned(),
        };
        self.state.registry.audit.note(sight, came.at, id);
    }

    /// Notes for the audit log that somebody signed in, or did not.
    fn note_sign_in(
        &self,
        came: Circumstances,
        id: &str,
        who: Result<&Visitor, &AuthFailure>,
        name: &str,
    ) {
        let (kind, principal, credential, reason) = match who {
            Ok(Visitor::Caller(caller))
                if caller.scopes.is_none() && !caller.principal.is_anonymous() =>
            {
                let origin = caller.origin("");
                (Kind::SignIn, origin.actor, origin.credential, String::new())
            }
            Ok(_) | Err(AuthFailure::Store(_)) => return,
            Err(AuthFailure::Limited(limited)) => {
                return self.state.registry.audit.note(limited.sight(), came.at, id);
            }
            Err(failure) => (Kind::Refuse, given(name), String::new(), failure.told()),
        };
        let sight = Sight {
            kind,
            principal,
            credential,
            address: came.address,
            repository: None,
            digest: None,
            tag: None,
            asked: if kind == Kind::SignIn {
                "/api/"
            } else {
                "sign-in"
            }
            .to_owned(),
            reason,
        };
        self.state.registry.audit.note(sight, came.at, id);
    }

    /// Counts a request for whoever sends it; `None`: it is not known who does.
    fn count(&self, request: &Request, visitor: Option<&Visitor>) -> Result<(), Problem> {
        let nobody = Caller::anonymous().under(self.came(request));
        let caller = match visitor {
            Some(Visitor::Root) => return Ok(()),
            Some(Visitor::Caller(caller)) => caller,
            None => &nobody,
        };
        Ok(request.count(&self.state.registry, caller, None)?)
    }

    /// From where and when.
    fn came(&self, request: &Request) -> Circumstances {
        let address = request.peer.addr.map(|peer| peer.ip());
        Circumstances::new(address, self.state.registry.clock.now_ms())
    }

    async fn authenticate(&self, request: &Request) -> Result<Visitor, Problem> {
        let access = &self.state.registry.access;
        let came = self.came(request);
        let (name, who) = visitor::authenticate(access, request, came).await;
        self.note_sign_in(came, request.id.as_str(), who.as_ref(), &name);
        who.map_err(|failure| {
            if let Some(metrics) = &self.metrics {
                metrics.auth_failed(failure.reason());
            }
            Problem::unauthenticated(failure, access.service())
        })
    }

    /// The request as axum takes it.
    fn translate(
        &self,
        request: Request,
        route: &ApiRoute,
        visitor: Visitor,
        body: bytes::Bytes,
    ) -> Result<http::Request<AxumBody>, Problem> {
        let target = match request.query.is_empty() {
            true => route.path.clone(),
            false => format!("{}?{}", route.path, request.query),
        };
        // hyper cuts the body of a HEAD off; axum would have to be told its length.
        let method = match request.method {
            Method::HEAD => Method::GET,
            other => other,
        };
        let mut made = http::Request::new(AxumBody::from(body));
        *made.uri_mut() = target.parse().map_err(|_| Problem::no_such_address())?;
        *made.method_mut() = method;
        *made.headers_mut() = request.headers;
        made.extensions_mut().insert(visitor);
        Ok(made)
    }
}

/// All resources with their documentation.
fn resources() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::with_openapi(document::frame())
        .routes(routes!(document::page))
        .routes(routes!(document::openapi))
        .routes(routes!(me::get))
        .routes(routes!(repository::list))
        .routes(routes!(repository::get, repository::delete))
        .routes(routes!(restore::history))
        .routes(routes!(tag::list))
        .routes(routes!(tag::get, tag::delete))
        .routes(routes!(tag::history))
        .routes(routes!(restore::tag))
        .routes(routes!(restore::manifest))
        .routes(routes!(binding::bindings, binding::grant, binding::revoke))
        .routes(routes!(apply::apply, apply::exported))
        .routes(routes!(explain::explain))
        .routes(routes!(audit::list))
        .routes(routes!(audit::export))
        .routes(routes!(audit::verify))
        .routes(routes!(group::groups))
        .routes(routes!(
            group::group,
            group::make_group,
            group::remove_group
        ))
        .routes(routes!(group::add_member, group::remove_member))
        .routes(routes!(group::add_source, group::remove_source))
        .routes(routes!(namespace::namespaces))
        .routes(routes!(
            namespace::namespace,
            namespace::set_namespace,
            namespace::remove_namespace
        ))
        .routes(routes!(role::roles))
        .routes(routes!(role::role, role::set_role, role::remove_role))
        .routes(routes!(user::list, user::create))
        .routes(routes!(user::get, user::change, user::remove))
        .routes(routes!(user::set_password))
        .routes(routes!(user::tokens, user::make_token))
        .routes(routes!(account::list, account::link, account::unlink))
        .routes(routes!(session::list, session::end_all))
        .routes(routes!(session::end))
        .routes(routes!(robot::list, robot::create))
        .routes(routes!(robot::get, robot::change, robot::remove))
        .routes(routes!(robot::rotate))
        .routes(routes!(identity::revoke))
        .routes(routes!(invitation::list, invitation::invite))
        .routes(routes!(invitation::accept))
        .routes(routes!(invitation::withdraw))
        .routes(routes!(workload::issuers))
        .routes(routes!(
            workload::issuer,
            workload::set_issuer,
            workload::remove_issuer
        ))
        .routes(routes!(workload::rules))
        .routes(routes!(
            workload::rule,
            workload::set_rule,
            workload::remove_rule
        ))
        .routes(routes!(workload::test))
        .routes(routes!(job::list, job::run))
        .routes(routes!(job::get))
        .routes(routes!(job::cancel))
        .routes(routes!(job::retry))
        .routes(routes!(status::get))
}

fn not_allowed(methods: &[Method]) -> Problem {
    let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
    let list = names.join(", ");
    let problem = Problem::method_not_allowed(&list);
    match HeaderValue::from_str(&list) {
        Ok(value) => problem.with_header(ALLOW, value),
        Err(_) => problem,
    }
}

/// A browser that knows the password sends it along with requests that another site's page makes it send.
fn refuse_other_sites(request: &Request) -> Result<(), Problem> {
    let reads = matches!(request.method, Method::GET | Method::HEAD);
    let from = request.headers.get(SEC_FETCH_SITE);
    match from.map(HeaderValue::as_bytes) {
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) if reads => Ok(()),
        Some(_) => Err(Problem::other_site()),
    }
}
