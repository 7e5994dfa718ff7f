//! Pages for people: sign in and out, one's API tokens, one's sessions.
//!
//! Small, rendered here, without script. A session is good for these pages alone: `/v2` and the management API take none, so a page of
//! another site that makes a browser send its cookie reaches nothing there. Each form brings what only our page knows (`form`), and
//! a browser that says where it comes from must come from here.

mod account;
mod agent;
mod device;
mod logout;
mod oidc;
mod page;
mod sign_in;

use askama::Template;
use http::header::{RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, StatusCode};
use wharf_core::Registry;
use wharf_core::access::{Circumstances, Password};
use wharf_core::session::{self, Session};

use self::page::{Cookie, cookie, go, is_own, is_safe, page};
use crate::http::route::PeopleRoute;
use crate::http::{Request, Response};

/// Something that is told on a page of its own.
#[derive(Template)]
#[template(path = "told.html")]
struct Told<'a> {
    host: &'a str,
    title: &'a str,
    text: &'a str,
    bad: bool,
    request: Option<&'a str>,
    /// Where the browser goes on by itself: address, and what people call it.
    onward: Option<(&'a str, &'a str)>,
}

/// What the pages go by.
pub(super) struct Visit<'a> {
    registry: &'a Registry,
    /// `server.external_url`, if set.
    external: Option<&'a str>,
    /// What people call this registry.
    host: String,
}

impl Visit<'_> {
    fn came(&self, request: &Request) -> Circumstances {
        let address = request.peer.addr.map(|peer| peer.ip());
        Circumstances::new(address, self.registry.clock.now_ms())
    }

    /// Something went wrong, or is over.
    fn told(&self, status: StatusCode, title: &str, text: &str, request: &Request) -> Response {
        let bad = status != StatusCode::OK;
        let text = sentence(text);
        let told = Told {
            host: &self.host,
            title,
            text: &text,
            bad,
            request: bad.then(|| request.id.as_str()),
            onward: None,
        };
        page(status, &told)
    }

    /// Tells something, and goes on elsewhere. No redirect: a browser follows none from a form to another host (`form-action`).
    fn onward(&self, title: &str, text: &str, to: &str, name: &str) -> Response {
        let text = sentence(text);
        let told = Told {
            host: &self.host,
            title,
            text: &text,
            bad: false,
            request: None,
            onward: Some((to, name)),
        };
        page(StatusCode::OK, &told)
    }

    /// The stores cannot answer.
    fn failed(&self, request: &Request, error: &dyn std::fmt::Display) -> Response {
        tracing::error!(%error, id = request.id.as_str(), "a page could not be made");
        let text = "the registry cannot do this now; try again in a moment";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let mut answer = self.told(status, "Not now", text, request);
        answer
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("5"));
        answer
    }

    /// Another site's page sent this, or one of ours that is old.
    fn foreign(&self, request: &Request) -> Response {
        let text = "this form was not sent by a page of this registry, or by one that is too old; open the page again";
        self.told(StatusCode::FORBIDDEN, "Not sent from here", text, request)
    }

    /// The session that the request brings.
    async fn session(&self, request: &Request) -> Result<Option<Session>, wharf_core::Error> {
        let Some(secret) = cookie(request, Cookie::Session) else {
            return Ok(None);
        };
        session::find(self.registry, &secret, self.came(request)).await
    }

    /// Begins a session, in the place of one that the browser may have. `hint` is for the end of one that a provider began.
    async fn begin(
        &self,
        request: &Request,
        principal: &wharf_core::access::Principal,
        by: session::By,
        hint: Option<&Password>,
        back: &str,
    ) -> Response {
        let agent = request.headers.get(USER_AGENT);
        let agent = agent.and_then(|agent| agent.to_str().ok()).unwrap_or("");
        let came = self.came(request);
        // Whoever shared this browser is not signed in behind the back of who signs in now.
        let before = match self.session(request).await {
            Ok(before) => before,
            Err(error) => return self.failed(request, &error),
        };
        let origin = wharf_core::access::Caller::direct(principal.clone()).under(came);
        let origin = origin.origin(request.id.as_str());
        let begun = async {
            if let Some(before) = before {
                let user = before.caller.principal.name();
                session::end(self.registry, user, &before.id).await?;
            }
            session::begin(self.registry, principal, by, came, agent).await
        };
        let secret: Password = match Box::pin(origin.scope(begun)).await {
            Ok(secret) => secret,
            Err(error) => return self.failed(request, &error),
        };
        tracing::info!(user = principal.name(), "somebody signed in on the pages");
        let seconds = self.registry.access.session_rules().lifetime.as_secs();
        let mut answer = go(back);
        let headers = answer.headers_mut();
        page::set(request, headers, Cookie::Session, secret.reveal(), seconds);
        page::set(request, headers, Cookie::Form, "", 0);
        page::set(request, headers, Cookie::Flow, "", 0);
        match hint {
            Some(hint) => page::set(request, headers, Cookie::Hint, hint.reveal(), seconds),
            None => page::set(request, headers, Cookie::Hint, "", 0),
        }
        answer
    }
}

/// An error's text as a sentence: with a capital, and without the full stop, which the page has.
fn sentence(text: &str) -> String {
    let mut rest = text.trim_end_matches('.').chars();
    let first = rest.next().into_iter().flat_map(char::to_uppercase);
    first.chain(rest).collect()
}

/// Answers a request for a page.
pub async fn people(
    mut request: Request,
    route: PeopleRoute,
    registry: &Registry,
    external: Option<&str>,
    authority: Option<&str>,
) -> Response {
    let host = authority.or(request.host.as_deref()).unwrap_or("localhost");
    let visit = Visit {
        registry,
        external,
        host: host.to_owned(),
    };
    if matches!(
        route,
        PeopleRoute::Metadata | PeopleRoute::DeviceCode | PeopleRoute::Revoke
    ) {
        return Box::pin(device::program(&visit, &mut request, &route)).await;
    }
    if !is_safe(&request) {
        let text = "pages that one signs in on need an address that begins with https://, since others could read along; \
                    a proxy in front of the registry has to be named in server.trusted_proxies";
        let status = StatusCode::FORBIDDEN;
        return visit.told(status, "This address is not encrypted", text, &request);
    }
    // No browser sends this, and what it brings proves itself.
    let is_provider = matches!(route, PeopleRoute::Backchannel(_));
    if request.method == Method::POST && !is_provider && !is_own(&request) {
        return visit.foreign(&request);
    }
    match &route {
        PeopleRoute::Login => sign_in::login(&visit, &mut request).await,
        PeopleRoute::Logout => logout::logout(&visit, &mut request).await,
        PeopleRoute::Start(provider) => oidc::start(&visit, &request, provider).await,
        PeopleRoute::Callback(provider) => oidc::callback(&visit, &request, provider).await,
        PeopleRoute::SignedOut(provider) => logout::signed_out(&visit, &request, provider),
        PeopleRoute::Backchannel(provider) => {
            logout::backchannel(&visit, &mut request, provider).await
        }
        PeopleRoute::Tokens => account::tokens(&visit, &mut request).await,
        PeopleRoute::Sessions => account::sessions(&visit, &mut request).await,
        PeopleRoute::Device => Box::pin(device::confirm(&visit, &mut request)).await,
        // Answered above.
        PeopleRoute::Metadata | PeopleRoute::DeviceCode | PeopleRoute::Revoke => {
            visit.foreign(&request)
        }
    }
}
