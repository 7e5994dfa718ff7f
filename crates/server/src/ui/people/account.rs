//! One's API tokens and sessions.

use askama::Template;
use http::{Method, StatusCode};
use wharf_core::identity::{self, IdentityError, NewToken, Owner};
use wharf_core::session::{self, Session, ShownKind};
use wharf_oci::percent::encode_query;

use super::page::{Form, go, page};
use super::{Visit, agent};
use crate::http::{Request, Response};

/// Lives of tokens that can be chosen, in days.
const SPANS: [i64; 5] = [7, 30, 90, 180, 365];
/// The one that is chosen at first.
const USUAL: i64 = 90;
/// In ms.
const DAY: i64 = 24 * 60 * 60 * 1_000;

struct Token {
    id: String,
    name: String,
    scopes: Option<String>,
    ends: String,
    used: Option<String>,
}

#[derive(Template)]
#[template(path = "tokens.html")]
struct Tokens<'a> {
    host: &'a str,
    here: &'static str,
    user: &'a str,
    form: &'a str,
    problem: Option<String>,
    made: Option<&'a str>,
    tokens: Vec<Token>,
    spans: Vec<i64>,
    usual: i64,
}

struct Row {
    id: String,
    /// The browser, or the machine.
    name: String,
    terminal: bool,
    own: bool,
    address: String,
    way: String,
    since: String,
    used: String,
}

#[derive(Template)]
#[template(path = "sessions.html")]
struct Sessions<'a> {
    host: &'a str,
    here: &'static str,
    user: &'a str,
    form: &'a str,
    problem: Option<String>,
    sessions: Vec<Row>,
}

/// A day and a time, for people.
pub(super) fn moment(ms: i64) -> String {
    let moment = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
    moment.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn day(ms: i64) -> String {
    let moment = jiff::Timestamp::from_millisecond(ms).unwrap_or_default();
    moment.strftime("%Y-%m-%d").to_string()
}

/// Who is signed in, or the answer for who is not, which leads back afterwards.
pub(super) async fn somebody(
    visit: &Visit<'_>,
    request: &Request,
    back: &str,
) -> Result<Session, Response> {
    match visit.session(request).await {
        Ok(Some(session)) => Ok(session),
        Ok(None) if request.method == Method::POST => {
            let text = "your session is over; sign in again";
            Err(visit.told(StatusCode::FORBIDDEN, "Signed out", text, request))
        }
        Ok(None) => Err(go(&format!("/auth/login?return={}", encode_query(back)))),
        Err(error) => Err(visit.failed(request, &error)),
    }
}

/// The form of a request by a page of this session.
pub(super) async fn own_form(
    visit: &Visit<'_>,
    request: &mut Request,
    session: &Session,
) -> Result<Form, Response> {
    let form = Form::read(request).await;
    let form = form.filter(|form| form.field("form").as_deref() == Some(&*session.form));
    form.ok_or_else(|| visit.foreign(request))
}

/// GET: one's tokens. POST: another one, or one less.
pub(super) async fn tokens(visit: &Visit<'_>, request: &mut Request) -> Response {
    let session = match somebody(visit, request, request.path()).await {
        Ok(session) => session,
        Err(answer) => return answer,
    };
    if request.method != Method::POST {
        return token_page(visit, request, &session, StatusCode::OK, None, None).await;
    }
    let form = match own_form(visit, request, &session).await {
        Ok(form) => form,
        Err(answer) => return answer,
    };
    let origin = session.caller.origin(request.id.as_str());
    let changed = Box::pin(origin.scope(change(visit, &session, &form))).await;
    match changed {
        Ok(None) => go("/account/tokens"),
        Ok(Some(made)) => {
            let status = StatusCode::CREATED;
            token_page(visit, request, &session, status, Some(&made), None).await
        }
        Err(IdentityError::Store(error)) => visit.failed(request, &error),
        Err(error) => {
            let status = match error {
                IdentityError::Unknown(_) => StatusCode::NOT_FOUND,
                IdentityError::Taken(_) => StatusCode::CONFLICT,
                _ => StatusCode::BAD_REQUEST,
            };
            let problem = Some(error.to_string());
            token_page(visit, request, &session, status, None, problem).await
        }
    }
}

/// Makes a token, and gives it, or revokes one.
async fn change(
    visit: &Visit<'_>,
    session: &Session,
    form: &Form,
) -> Result<Option<String>, IdentityError> {
    let registry = visit.registry;
    let user = session.caller.principal.name();
    if let Some(id) = form.field("revoke") {
        // Whose it is decides; of others' nothing is said.
        if identity::owner_of(registry, &id).await? != Some(Owner::User(user.to_owned())) {
            let text = "you have no such token; it may have been revoked already";
            return Err(IdentityError::Unknown(text.to_owned()));
        }
        identity::revoke_token(registry, &id).await?;
        return Ok(None);
    }
    let days = form.field("days").and_then(|days| days.parse::<i64>().ok());
    let days = days.filter(|days| SPANS.contains(days));
    let days = days.ok_or_else(|| IdentityError::Wrong("choose when it ends".to_owned()))?;
    let scopes = form.field("scopes").unwrap_or_default();
    let new = NewToken {
        user: user.to_owned(),
        name: form.field("name").unwrap_or_default().trim().to_owned(),
        scopes: scopes.split_whitespace().map(str::to_owned).collect(),
        lifetime: Some(days * DAY),
    };
    let made = identity::create_own_token(registry, &session.caller, &new).await?;
    tracing::info!(user, id = made.id, "an API token was made on the pages");
    Ok(Some(made.secret.reveal().to_owned()))
}

async fn token_page(
    visit: &Visit<'_>,
    request: &Request,
    session: &Session,
    status: StatusCode,
    made: Option<&str>,
    problem: Option<String>,
) -> Response {
    let user = session.caller.principal.name();
    let tokens = match identity::list_tokens(visit.registry, user).await {
        Ok(tokens) => tokens,
        Err(error) => return visit.failed(request, &error),
    };
    let tokens = tokens.into_iter().rev().map(|one| Token {
        id: one.id,
        name: one.name,
        scopes: one.scopes,
        ends: one.expires_at.map_or_else(|| "never".to_owned(), day),
        used: one.used.map(|(at, from)| match from.is_empty() {
            true => moment(at),
            false => format!("{} from {from}", moment(at)),
        }),
    });
    let longest = visit.registry.access.longest_lifetime() / DAY;
    let spans: Vec<i64> = SPANS.into_iter().filter(|days| *days <= longest).collect();
    let shown = Tokens {
        host: &visit.host,
        here: "tokens",
        user,
        form: &session.form,
        problem: problem.map(|text| text.trim_end_matches('.').to_owned()),
        made,
        tokens: tokens.collect(),
        usual: match spans.contains(&USUAL) {
            true => USUAL,
            false => spans.last().copied().unwrap_or(USUAL),
        },
        spans,
    };
    page(status, &shown)
}

/// GET: one's sessions. POST: one less, or all others.
pub(super) async fn sessions(visit: &Visit<'_>, request: &mut Request) -> Response {
    let session = match somebody(visit, request, request.path()).await {
        Ok(session) => session,
        Err(answer) => return answer,
    };
    if request.method != Method::POST {
        return session_page(visit, request, &session, StatusCode::OK, None).await;
    }
    let form = match own_form(visit, request, &session).await {
        Ok(form) => form,
        Err(answer) => return answer,
    };
    let user = session.caller.principal.name();
    let origin = session.caller.origin(request.id.as_str());
    let ended = async {
        match form.field("end") {
            Some(id) => session::end(visit.registry, user, &id).await,
            None if form.field("others").is_some() => {
                session::end_others(visit.registry, user, &session.id).await?;
                Ok(true)
            }
            None => Ok(false),
        }
    };
    match Box::pin(origin.scope(ended)).await {
        Ok(true) => go("/account/sessions"),
        Ok(false) => {
            let problem = "you have no such session; it may be over already".to_owned();
            let status = StatusCode::NOT_FOUND;
            session_page(visit, request, &session, status, Some(problem)).await
        }
        Err(error) => visit.failed(request, &error),
    }
}

async fn session_page(
    visit: &Visit<'_>,
    request: &Request,
    session: &Session,
    status: StatusCode,
    problem: Option<String>,
) -> Response {
    let user = session.caller.principal.name();
    let sessions = match session::list(visit.registry, user).await {
        Ok(sessions) => sessions,
        Err(error) => return visit.failed(request, &error),
    };
    let or = |text: String, other: &str| match text.is_empty() {
        true => other.to_owned(),
        false => text,
    };
    let sessions = sessions.into_iter().map(|one| Row {
        own: one.id == session.id,
        id: one.id,
        terminal: one.kind == ShownKind::Terminal,
        name: match one.kind {
            ShownKind::Browser => or(
                agent::shown(&one.agent),
                "A browser that does not say what it is",
            ),
            ShownKind::Terminal => or(one.device, "A machine that does not say its name"),
        },
        address: or(one.address, "an unknown address"),
        way: or(one.provider, "password"),
        since: moment(one.created_at),
        used: moment(one.seen_at),
    });
    let shown = Sessions {
        host: &visit.host,
        here: "sessions",
        user,
        form: &session.form,
        problem,
        sessions: sessions.collect(),
    };
    page(status, &shown)
}
