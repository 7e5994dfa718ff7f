//! Signing in with a password, and choosing a provider.

use askama::Template;
use http::header::RETRY_AFTER;
use http::{HeaderValue, Method, StatusCode};
use wharf_core::access::{AuthFailure, Principal, SignIn};
use wharf_core::audit::{Kind, Sight, given};
use wharf_core::session::{self, By, form_of, is_local_path};
use wharf_oci::Authorization;
use wharf_oci::percent::encode_query;

use super::Visit;
use super::page::{self, Cookie, Form, cookie, field, go, page};
use crate::http::{Request, Response};

/// Where to go after signing in.
const HOME: &str = "/account/tokens";
/// How long a sign-in form is good, in seconds.
const FORM_SECONDS: u64 = 3_600;

#[derive(Template)]
#[template(path = "login.html")]
struct Login<'a> {
    host: &'a str,
    providers: Vec<(String, String)>,
    /// What a provider's link takes along.
    query: String,
    back: &'a str,
    form: &'a str,
    problem: Option<&'a str>,
}

/// Where somebody wanted to go: a path here, or the page of tokens.
pub(super) fn back(wanted: Option<String>) -> String {
    let local = wanted.filter(|path| is_local_path(path));
    local.unwrap_or_else(|| HOME.to_owned())
}

/// The form, with a problem or without.
fn shown(
    visit: &Visit<'_>,
    request: &Request,
    status: StatusCode,
    back: &str,
    problem: Option<&str>,
) -> Response {
    let known = cookie(request, Cookie::Form);
    let secret = known.unwrap_or_else(session::form_secret);
    let query = match back == HOME {
        true => String::new(),
        false => format!("?return={}", encode_query(back)),
    };
    let login = Login {
        host: &visit.host,
        providers: visit.registry.access.people().names(),
        query,
        back,
        form: &form_of(&secret),
        problem: problem.map(|text| text.trim_end_matches('.')),
    };
    let mut answer = page(status, &login);
    let headers = answer.headers_mut();
    page::set(
        request,
        headers,
        Cookie::Form,
        secret.reveal(),
        FORM_SECONDS,
    );
    answer
}

/// GET: the form. POST: name and password.
pub(super) async fn login(visit: &Visit<'_>, request: &mut Request) -> Response {
    if request.method != Method::POST {
        let wanted = back(field(&request.query, "return"));
        return match visit.session(request).await {
            Ok(Some(_)) => go(&wanted),
            Ok(None) => shown(visit, request, StatusCode::OK, &wanted, None),
            Err(error) => visit.failed(request, &error),
        };
    }
    let Some(form) = Form::read(request).await else {
        return visit.foreign(request);
    };
    let wanted = back(form.field("return"));
    // Nobody is signed in as somebody else by a page of another site.
    let expected = cookie(request, Cookie::Form).map(|secret| form_of(&secret));
    if expected.is_none() || form.field("form") != expected {
        let text = "the page was too old; try again";
        return shown(visit, request, StatusCode::FORBIDDEN, &wanted, Some(text));
    }
    let (Some(user), Some(password)) = (form.field("user"), form.field("password")) else {
        let text = "a name and a password are needed";
        return shown(visit, request, StatusCode::BAD_REQUEST, &wanted, Some(text));
    };
    let came = visit.came(request);
    let credentials = Authorization::Basic {
        user: user.clone(),
        password,
    };
    let access = &visit.registry.access;
    let known = access.authenticate(Some(&credentials), came).await;
    let (kind, reason) = match &known {
        Ok(_) => (Kind::SignIn, String::new()),
        Err(failure) => (Kind::Refuse, failure.told()),
    };
    let sight = Sight {
        kind,
        principal: given(&user),
        credential: match kind {
            Kind::SignIn => SignIn::Password.as_str().to_owned(),
            _ => String::new(),
        },
        address: came.address,
        repository: None,
        digest: None,
        tag: None,
        asked: "/auth/login".into(),
        reason,
    };
    let noted = match &known {
        Err(failure) => failure.limited().unwrap_or(sight),
        Ok(_) => sight,
    };
    visit
        .registry
        .audit
        .note(noted, came.at, request.id.as_str());
    match known {
        Ok(caller)
            if caller.circumstances.sign_in == SignIn::Password
                && matches!(caller.principal, Principal::User { .. }) =>
        {
            let by = By::Password;
            visit
                .begin(request, &caller.principal, by, None, &wanted)
                .await
        }
        Ok(_) => {
            let text = "this page takes the password of a person; tokens are for programs";
            shown(visit, request, StatusCode::FORBIDDEN, &wanted, Some(text))
        }
        Err(AuthFailure::Store(error)) => visit.failed(request, &error),
        Err(failure) => {
            let wait = failure.retry_after();
            let status = match wait {
                Some(_) => StatusCode::TOO_MANY_REQUESTS,
                None => StatusCode::UNAUTHORIZED,
            };
            let text = match failure {
                AuthFailure::Secret | AuthFailure::Workload(_) => {
                    "this page takes the password of a person; tokens are for programs".to_owned()
                }
                failure => failure.to_string(),
            };
            let mut answer = shown(visit, request, status, &wanted, Some(&text));
            if let Some(wait) = wait {
                let seconds = HeaderValue::from(wait.as_secs().max(1));
                answer.headers_mut().insert(RETRY_AFTER, seconds);
            }
            answer
        }
    }
}
