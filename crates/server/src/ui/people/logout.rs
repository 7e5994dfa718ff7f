//! Signing out: here, at the provider, and by the provider.

use http::StatusCode;
use serde_json::json;
use wharf_core::audit::Kind;
use wharf_core::oidc::{self, FLOW_MS, OidcError};
use wharf_core::session;
use wharf_meta::Origin;

use super::Visit;
use super::oidc::{address, note};
use super::page::{self, Cookie, Form, cookie, field, go, plain};
use crate::http::{Request, Response};

/// Ends the session; whoever signed in with a provider goes on there, if that is how it is set up.
pub(super) async fn logout(visit: &Visit<'_>, request: &mut Request) -> Response {
    let known = match visit.session(request).await {
        Ok(known) => known,
        Err(error) => return visit.failed(request, &error),
    };
    let mut provider = String::new();
    if let Some(known) = known {
        let form = Form::read(request).await;
        if form.and_then(|form| form.field("form")) != Some(known.form) {
            return visit.foreign(request);
        }
        let user = known.caller.principal.name();
        let origin = known.caller.origin(request.id.as_str());
        let ended = session::end(visit.registry, user, &known.id);
        if let Err(error) = Box::pin(origin.scope(ended)).await {
            return visit.failed(request, &error);
        }
        provider = known.provider;
    }
    let leaving = match visit.external.filter(|_| !provider.is_empty()) {
        Some(external) => {
            let back = address(external, &provider, "signed-out");
            let hint = cookie(request, Cookie::Hint);
            Box::pin(oidc::leave(visit.registry, &provider, &back, hint.as_ref())).await
        }
        None => None,
    };
    let title = "You are signed out";
    let mut answer = match &leaving {
        Some(leaving) => {
            let name = &leaving.title;
            let text =
                format!("your session in this browser is over; next, {name} signs you out, too");
            visit.onward(title, &text, &leaving.location, name)
        }
        None => {
            let text = "your session in this browser is over; API tokens go on";
            visit.told(StatusCode::OK, title, text, request)
        }
    };
    let headers = answer.headers_mut();
    page::set(request, headers, Cookie::Session, "", 0);
    page::set(request, headers, Cookie::Hint, "", 0);
    if let Some(leaving) = &leaving {
        let seconds = u64::try_from(FLOW_MS / 1_000).unwrap_or(600);
        page::set(
            request,
            headers,
            Cookie::Leaving,
            leaving.state.reveal(),
            seconds,
        );
    }
    answer
}

/// Back from signing out at the provider. It ends nothing, and tells of an end only the browser that went there.
pub(super) fn signed_out(visit: &Visit<'_>, request: &Request, provider: &str) -> Response {
    let kept = cookie(request, Cookie::Leaving);
    let state = field(&request.query, "state").unwrap_or_default();
    let people = visit.registry.access.people();
    let title = kept.and_then(|kept| oidc::left(people, provider, &kept, &state));
    let Some(title) = title else {
        return go("/auth/login");
    };
    let text = format!(
        "this browser comes back from signing out at {title}, and its session here is over; API tokens go on"
    );
    let mut answer = visit.told(StatusCode::OK, "You are signed out", &text, request);
    page::set(request, answer.headers_mut(), Cookie::Leaving, "", 0);
    answer
}

/// A provider says that somebody signed out there (OpenID Connect Back-Channel Logout §2.5, §2.8).
pub(super) async fn backchannel(
    visit: &Visit<'_>,
    request: &mut Request,
    provider: &str,
) -> Response {
    let refused = |text: String| {
        let json = json!({"error": "invalid_request", "error_description": text});
        plain(StatusCode::BAD_REQUEST, Some(json))
    };
    let form = Form::read(request).await;
    let token = form.and_then(|form| form.field("logout_token"));
    let Some(token) = token.filter(|token| !token.is_empty()) else {
        return refused("a form with one logout_token is needed".to_owned());
    };
    let address = visit.came(request).address;
    let origin = Origin {
        credential: format!("provider {provider}"),
        address: address.map_or_else(String::new, |address| address.to_string()),
        request: request.id.as_str().to_owned(),
        ..Origin::default()
    };
    let heard = oidc::heard(visit.registry, provider, &token);
    let (text, reason) = match Box::pin(origin.scope(heard)).await {
        Ok(_) => return plain(StatusCode::OK, None),
        Err(OidcError::Unknown) => return refused(OidcError::Unknown.to_string()),
        Err(OidcError::Proof { reason, .. }) => (
            format!("the logout token is not good here: {reason}"),
            reason,
        ),
        Err(OidcError::Provider { reason, .. }) => (
            "the provider's keys cannot be had now; say it again in a moment".to_owned(),
            reason,
        ),
        Err(error) => {
            tracing::error!(%error, provider, id = request.id.as_str(), "a provider's word could not be followed");
            return refused("the registry cannot do this now; say it again in a moment".to_owned());
        }
    };
    tracing::warn!(
        provider,
        reason,
        id = request.id.as_str(),
        "a logout token was refused"
    );
    note(
        visit,
        request,
        Kind::Refuse,
        String::new(),
        provider,
        reason,
    );
    refused(text)
}
