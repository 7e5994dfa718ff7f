//! Signing in from a terminal (RFC 8628): where programs ask and say that they are done, and the page on which a person confirms a code.
//!
//! A link can bring the code, and never the decision: what is shown on the way is what warns somebody whom such a link was sent.

use askama::Template;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;
use wharf_core::access::Password;
use wharf_core::session::Session;
use wharf_core::terminal::{
    self, CODE_LIFE, CodeError, INTERVAL, TerminalError, Waiting, read_code,
};
use wharf_oci::percent::encode_query;

use super::Visit;
use super::account::{moment, own_form, somebody};
use super::page::{Form, field, go, is_own, page};
use crate::http::oauth::{self, DEVICE_CODE, EXCHANGE};
use crate::http::route::PeopleRoute;
use crate::http::{ApiError, Request, Response};
use crate::ui::is_loopback;

/// Largest form of a program, in bytes.
const LARGEST: u64 = 16 << 10;

/// What waits, in words.
struct Shown {
    code: String,
    device: String,
    address: String,
    asked: String,
    /// It asked from the address that this browser has.
    here: bool,
}

#[derive(Template)]
#[template(path = "device.html")]
struct Device<'a> {
    host: &'a str,
    here: &'static str,
    user: &'a str,
    form: &'a str,
    problem: Option<String>,
    /// The code that a link brought.
    code: String,
    waiting: Option<Shown>,
    done: Option<&'static str>,
}

/// What programs ask for.
pub(super) async fn program(
    visit: &Visit<'_>,
    request: &mut Request,
    route: &PeopleRoute,
) -> Response {
    let Some(base) = base(visit, request) else {
        return match route {
            PeopleRoute::Metadata => {
                let told = "nobody can sign in from a terminal here: the pages for it need an address that begins with https://";
                let body = json!({"error": "not_found", "error_description": told});
                oauth::answer(StatusCode::NOT_FOUND, &body)
            }
            _ => oauth::refused(&TerminalError::Request(
                "this needs an address that begins with https://; a proxy in front of the registry has to be named in \
                 server.trusted_proxies"
                    .to_owned(),
            )),
        };
    };
    if request.method == Method::POST && !is_own(request) {
        let text = "a page of another site sent this".to_owned();
        return oauth::refused(&TerminalError::Request(text));
    }
    let answer = match route {
        PeopleRoute::Metadata => return metadata(&base),
        PeopleRoute::Revoke => Box::pin(revoke(visit, request)).await,
        _ => Box::pin(begin(visit, request, &base)).await,
    };
    answer.unwrap_or_else(|error| match error {
        Refusal::Here(error) => {
            if let TerminalError::Store(error) = &error {
                tracing::error!(%error, id = request.id.as_str(), "a terminal could not be answered");
            }
            oauth::refused(&error)
        }
        Refusal::Body(error) => error.into_response(),
    })
}

/// Why a program gets nothing.
enum Refusal {
    Here(TerminalError),
    Body(ApiError),
}

impl From<TerminalError> for Refusal {
    fn from(error: TerminalError) -> Self {
        Self::Here(error)
    }
}

/// Where we are reached, if pages can be shown there: without a slash at its end.
fn base(visit: &Visit<'_>, request: &Request) -> Option<String> {
    let base = match visit.external {
        Some(external) => external.trim_end_matches('/').to_owned(),
        None => format!("{}://{}", request.scheme.as_str(), request.host.as_deref()?),
    };
    let (scheme, host) = base.split_once("://")?;
    (scheme == "https" || is_loopback(host)).then_some(base)
}

/// RFC 8414.
fn metadata(base: &str) -> Response {
    let body = json!({
        "issuer": base,
        "token_endpoint": format!("{base}/token"),
        "device_authorization_endpoint": format!("{base}/auth/device/code"),
        "revocation_endpoint": format!("{base}/auth/revoke"),
        "grant_types_supported": [DEVICE_CODE, "refresh_token", "password", EXCHANGE],
        "token_endpoint_auth_methods_supported": ["none"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "response_types_supported": [],
    });
    oauth::answer(StatusCode::OK, &body)
}

async fn form(request: &mut Request) -> Result<String, Refusal> {
    if !oauth::is_form(&request.headers) {
        let text = "send the form as application/x-www-form-urlencoded".to_owned();
        return Err(TerminalError::Request(text).into());
    }
    let form = request.body.collect(LARGEST).await;
    let form = form.map_err(|error| Refusal::Body(ApiError::from(error)))?;
    let form = String::from_utf8(form.to_vec());
    form.map_err(|_| TerminalError::Request("the form is not UTF-8".to_owned()).into())
}

async fn begin(visit: &Visit<'_>, request: &mut Request, base: &str) -> Result<Response, Refusal> {
    let form = form(request).await?;
    oauth::needed(&form, "client_id")?;
    let device = oauth::field(&form, "device")?.unwrap_or_default();
    let begun = terminal::begin(visit.registry, &device, visit.came(request)).await;
    let begun = begun.inspect_err(|error| {
        if let TerminalError::Limited(limited) = error {
            let came = visit.came(request);
            let id = request.id.as_str();
            visit.registry.audit.note(limited.sight(), came.at, id);
        }
    })?;
    let code = begun.user_code.reveal();
    let body = json!({
        "device_code": begun.device_code.reveal(),
        "user_code": code,
        "verification_uri": format!("{base}/device"),
        "verification_uri_complete": format!("{base}/device?user_code={code}"),
        "expires_in": CODE_LIFE.as_secs(),
        "interval": INTERVAL.as_secs(),
    });
    Ok(oauth::answer(StatusCode::OK, &body))
}

/// RFC 7009: whatever the token was, it is no good afterwards.
async fn revoke(visit: &Visit<'_>, request: &mut Request) -> Result<Response, Refusal> {
    let form = form(request).await?;
    let token = Password::new(oauth::needed(&form, "token")?);
    let revoked = terminal::revoke(visit.registry, &token).await;
    revoked.map_err(TerminalError::from)?;
    Ok(oauth::answer(StatusCode::OK, &json!({})))
}

/// GET: where one enters a code. POST: what waits with it, and then the decision.
pub(super) async fn confirm(visit: &Visit<'_>, request: &mut Request) -> Response {
    let brought = field(&request.query, "user_code").and_then(|code| read_code(&code));
    let brought = brought.map(|code| format!("{}-{}", &code[..4], &code[4..]));
    let back = match &brought {
        Some(code) => format!("/device?user_code={code}"),
        None => "/device".to_owned(),
    };
    let session = match somebody(visit, request, &back).await {
        Ok(session) => session,
        Err(answer) => return answer,
    };
    let mut shown = Device {
        host: &visit.host,
        here: "device",
        user: session.caller.principal.name(),
        form: &session.form,
        problem: None,
        code: brought.unwrap_or_default(),
        waiting: None,
        done: None,
    };
    if request.method != Method::POST {
        return page(StatusCode::OK, &shown);
    }
    let form = match own_form(visit, request, &session).await {
        Ok(form) => form,
        Err(answer) => return answer,
    };
    match step(visit, request, &session, &form).await {
        Ok(Step::Look(waiting)) => {
            let here = terminal::place(visit.came(request));
            shown.waiting = Some(Shown {
                here: !here.is_empty() && here == waiting.address,
                code: waiting.code,
                device: waiting.device,
                address: waiting.address,
                asked: moment(waiting.asked_at),
            });
            page(StatusCode::OK, &shown)
        }
        Ok(Step::Done(told)) => {
            shown.done = Some(told);
            page(StatusCode::OK, &shown)
        }
        Err(CodeError::Store(error)) => visit.failed(request, &error),
        Err(CodeError::SignedOut) => go(&format!("/auth/login?return={}", encode_query(&back))),
        Err(error) => {
            let wait = match &error {
                CodeError::Guessing(failure) => failure.retry_after(),
                _ => None,
            };
            let status = match (&error, wait) {
                (_, Some(_)) => StatusCode::TOO_MANY_REQUESTS,
                (CodeError::Unknown, None) => StatusCode::NOT_FOUND,
                _ => StatusCode::BAD_REQUEST,
            };
            shown.problem = Some(error.to_string());
            let mut answer = page(status, &shown);
            if let Some(wait) = wait {
                let seconds = HeaderValue::from(wait.as_secs().max(1));
                answer.headers_mut().insert(RETRY_AFTER, seconds);
            }
            answer
        }
    }
}

enum Step {
    Look(Waiting),
    Done(&'static str),
}

async fn step(
    visit: &Visit<'_>,
    request: &Request,
    session: &Session,
    form: &Form,
) -> Result<Step, CodeError> {
    let code = form.field("user_code").unwrap_or_default();
    let came = visit.came(request);
    let approve = match form.field("decision").as_deref() {
        Some("approve") => true,
        Some("deny") => false,
        _ => {
            let waiting = terminal::find(visit.registry, session, &code, came).await?;
            return Ok(Step::Look(waiting));
        }
    };
    let origin = session.caller.origin(request.id.as_str());
    let decided = terminal::decide(visit.registry, session, &code, approve, came);
    Box::pin(origin.scope(decided)).await?;
    let user = session.caller.principal.name();
    tracing::info!(user, approve, "somebody decided about a terminal");
    Ok(Step::Done(match approve {
        true => "Done: the terminal signs in by itself now. You can close this page",
        false => "Refused: the terminal was not signed in. You can close this page",
    }))
}
