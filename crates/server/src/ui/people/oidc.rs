//! To a provider and back.

use http::StatusCode;
use wharf_core::audit::{Kind, Sight};
use wharf_core::identity::ArriveError;
use wharf_core::oidc::{self, Answer, FLOW_MS, OidcError};
use wharf_core::session::By;

use super::Visit;
use super::page::{self, Cookie, cookie, field, go};
use super::sign_in::back;
use crate::http::{Request, Response};

/// Our address at which a provider sends people back, and where they begin.
pub(super) fn address(external: &str, provider: &str, step: &str) -> String {
    let external = external.trim_end_matches('/');
    format!("{external}/auth/oidc/{provider}/{step}")
}

/// Sends the browser to the provider.
pub(super) async fn start(visit: &Visit<'_>, request: &Request, provider: &str) -> Response {
    let Some(external) = visit.external else {
        let text =
            "the registry does not know its own address; whoever runs it sets server.external_url";
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return visit.told(status, "Not set up", text, request);
    };
    let wanted = back(field(&request.query, "return"));
    // The provider sends back to one address, which is where the cookie has to be.
    let own = format!(
        "{}://{}",
        request.scheme.as_str(),
        request.host.as_deref().unwrap_or("")
    );
    if !own.eq_ignore_ascii_case(external.trim_end_matches('/')) {
        if field(&request.query, "moved").is_some() {
            let text = "this page is reached by another address than server.external_url says; open that one";
            let status = StatusCode::BAD_REQUEST;
            return visit.told(status, "Another address", text, request);
        }
        let wanted = wharf_oci::percent::encode_query(&wanted);
        let there = address(external, provider, "start");
        return go(&format!("{there}?moved=1&return={wanted}"));
    }
    let redirect = address(external, provider, "callback");
    match oidc::start(visit.registry, provider, &redirect, &wanted).await {
        Ok(started) => {
            let mut answer = go(&started.location);
            let seconds = u64::try_from(FLOW_MS / 1_000).unwrap_or(600);
            let flow = started.flow.reveal();
            page::set(request, answer.headers_mut(), Cookie::Flow, flow, seconds);
            answer
        }
        Err(error) => refused(visit, request, provider, &error),
    }
}

/// Takes what the provider sent back.
pub(super) async fn callback(visit: &Visit<'_>, request: &Request, provider: &str) -> Response {
    let query = |name: &str| field(&request.query, name);
    let answer = Answer {
        code: query("code"),
        state: query("state"),
        iss: query("iss"),
        error: query("error"),
    };
    let flow = cookie(request, Cookie::Flow);
    let finished = oidc::finish(visit.registry, provider, flow.as_ref(), &answer);
    let arrived = match Box::pin(finished).await {
        Ok(arrived) => arrived,
        Err(error) => {
            let mut answer = refused(visit, request, provider, &error);
            // What was begun is over, whatever came of it.
            page::set(request, answer.headers_mut(), Cookie::Flow, "", 0);
            return answer;
        }
    };
    let name = arrived.principal.name().to_owned();
    note(visit, request, Kind::SignIn, name, provider, String::new());
    let by = By::Account {
        provider: provider.to_owned(),
        subject: arrived.subject,
        sid: arrived.sid,
        refresh: arrived.refresh,
    };
    let hint = arrived.hint.as_ref();
    visit
        .begin(request, &arrived.principal, by, hint, &arrived.back)
        .await
}

pub(super) fn note(
    visit: &Visit<'_>,
    request: &Request,
    kind: Kind,
    principal: String,
    provider: &str,
    reason: String,
) {
    let came = visit.came(request);
    let sight = Sight {
        kind,
        principal,
        credential: format!("provider {provider}"),
        address: came.address,
        repository: None,
        digest: None,
        tag: None,
        asked: "/auth/oidc".into(),
        reason,
    };
    visit
        .registry
        .audit
        .note(sight, came.at, request.id.as_str());
}

/// Why somebody does not get in, with the way out.
fn refused(visit: &Visit<'_>, request: &Request, provider: &str, error: &OidcError) -> Response {
    let (status, title) = match error {
        OidcError::Unknown => (StatusCode::NOT_FOUND, "No such provider"),
        OidcError::Provider { reason, .. } => {
            tracing::warn!(
                provider,
                reason,
                id = request.id.as_str(),
                "a sign-in could not go on"
            );
            (StatusCode::BAD_GATEWAY, "The provider does not answer")
        }
        OidcError::Flow(_) => (StatusCode::BAD_REQUEST, "Begin anew"),
        OidcError::Refused { .. } => (StatusCode::FORBIDDEN, "Not let in"),
        OidcError::Proof { reason, .. } => {
            tracing::warn!(
                provider,
                reason,
                id = request.id.as_str(),
                "a proof of a provider was refused"
            );
            (StatusCode::BAD_GATEWAY, "The provider's proof is not good")
        }
        OidcError::Arrive(ArriveError::Store(error)) | OidcError::Store(error) => {
            return visit.failed(request, error);
        }
        OidcError::Arrive(_) => (StatusCode::FORBIDDEN, "Not let in"),
    };
    let known = !matches!(error, OidcError::Unknown | OidcError::Provider { .. });
    if known {
        let reason = match error {
            OidcError::Flow(reason) => (*reason).to_owned(),
            OidcError::Proof { reason, .. } => reason.clone(),
            other => other.to_string(),
        };
        note(
            visit,
            request,
            Kind::Refuse,
            String::new(),
            provider,
            reason,
        );
    }
    visit.told(status, title, &error.to_string(), request)
}
