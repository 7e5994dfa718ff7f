//! What terminals send to `/token`: the code that they poll with, and refresh tokens that are spent by use. The registry's other refresh
//! tokens, which Docker keeps and which stay, are told apart by their form and are none of this.

use http::{Method, StatusCode};
use serde_json::json;
use wharf_core::Registry;
use wharf_core::access::{Circumstances, Password};
use wharf_core::terminal::{self, Granted, TerminalError};

use super::token::{Asked, LARGEST_FORM, Refused};
use crate::http::error::ApiError;
use crate::http::oauth::{self, DEVICE_CODE};
use crate::http::{Request, RequestBody, Response};

/// What all of a terminal's refresh tokens begin with.
const TERMINAL: &str = "wharf_terminal_";
/// The word for who was neither let in nor refused, and comes again.
pub(super) const WAITS: &str = "waits";

/// Answers a request that comes from a terminal; `None`: it does not, and is as it came.
pub(super) async fn answer(
    registry: &Registry,
    came: Circumstances,
    request: &mut Request,
) -> Option<(Response, Result<Asked, Refused>)> {
    if request.method != Method::POST || !oauth::is_form(&request.headers) {
        return None;
    }
    let form = match request.body.collect(LARGEST_FORM).await {
        Ok(form) => form,
        Err(error) => {
            let error = ApiError::from(error).into_response();
            return Some((error, Err(refused("request", String::new()))));
        }
    };
    let granted = match std::str::from_utf8(&form) {
        Ok(form) => Box::pin(grant(registry, came, form)).await,
        Err(_) => None,
    };
    let Some(granted) = granted else {
        request.body = RequestBody::from(form);
        return None;
    };
    Some(match granted {
        Ok(granted) => {
            let body = json!({
                "access_token": granted.access_token.reveal(),
                "token_type": "Bearer",
                "expires_in": granted.expires_in,
                "refresh_token": granted.refresh_token.reveal(),
                "username": granted.username,
            });
            let asked = Asked {
                principal: granted.username,
                anonymous: false,
                credential: granted.terminal,
            };
            (oauth::answer(StatusCode::OK, &body), Ok(asked))
        }
        Err(error) => {
            let (word, reason) = match &error {
                TerminalError::Grant(_) | TerminalError::Denied | TerminalError::Expired => {
                    ("terminal", error.to_string())
                }
                TerminalError::Store(error) => {
                    tracing::error!(%error, id = request.id.as_str(), "a terminal could not be answered");
                    ("store", String::new())
                }
                TerminalError::Pending | TerminalError::SlowDown { .. } => (WAITS, String::new()),
                _ => ("request", String::new()),
            };
            let limited = match &error {
                TerminalError::Limited(limited) => Some(limited.sight()),
                _ => None,
            };
            let word = if limited.is_some() { "limited" } else { word };
            let refused = Refused {
                limited,
                ..refused(word, reason)
            };
            (oauth::refused(&error), Err(refused))
        }
    })
}

fn refused(word: &'static str, reason: String) -> Refused {
    Refused {
        word,
        name: String::new(),
        reason,
        limited: None,
    }
}

async fn grant(
    registry: &Registry,
    came: Circumstances,
    form: &str,
) -> Option<Result<Granted, TerminalError>> {
    let kind = oauth::field(form, "grant_type").ok()??;
    let token = oauth::field(form, "refresh_token").ok()?;
    match (&*kind, token) {
        (DEVICE_CODE, _) => Some(match oauth::needed(form, "device_code") {
            Ok(code) => terminal::poll(registry, &Password::new(code), came).await,
            Err(error) => Err(error),
        }),
        ("refresh_token", Some(token)) if token.starts_with(TERMINAL) => {
            Some(terminal::refresh(registry, &Password::new(token), came).await)
        }
        _ => None,
    }
}
