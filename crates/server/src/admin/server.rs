//! The socket's end in the running registry.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use serde::Serialize;

use super::{Command, Operator, Refusal};
use crate::api::{Api, Door};
use crate::http::body::Body;
use crate::http::listener::BindError;
use crate::http::{
    Handler, ListenAddr, Listeners, Request, Response, Running, Server, ServerOptions,
};

/// Commands are short.
const LARGEST: u64 = 64 << 10;

/// Listens as long as it lives.
#[derive(Debug)]
pub struct AdminServer {
    running: Running,
    /// Keeps the socket's path valid, see [`super::socket`].
    _folder: Option<std::fs::File>,
}

impl AdminServer {
    /// Ends it; commands under way get this long.
    pub async fn stop(&self, grace: Duration) {
        self.running.shutdown(grace).await;
    }
}

/// Why nobody can be asked.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder cannot be opened.
    #[error("the admin socket cannot be made: {0}")]
    Folder(#[from] std::io::Error),
    /// The socket cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
}

/// Starts listening in the operator's data folder, within the current runtime.
pub fn start(operator: Operator, api: Arc<Api>) -> Result<AdminServer, StartError> {
    let (path, folder) = super::socket(&operator.folder)?;
    let listeners = Listeners::bind(&[ListenAddr::Unix { path, mode: 0o600 }])?;
    let running = Server::start(
        ServerOptions::new(listeners),
        Arc::new(Admin { operator, api }),
    );
    Ok(AdminServer {
        running,
        _folder: folder,
    })
}

struct Admin {
    operator: Operator,
    /// The management API, for a caller who may do everything.
    api: Arc<Api>,
}

impl Handler for Admin {
    async fn handle(&self, mut request: Request) -> Response {
        if request.is_api() {
            return self.api.handle(request, Door::Socket).await;
        }
        if request.method != Method::POST {
            let mut response = refuse(
                StatusCode::METHOD_NOT_ALLOWED,
                "commands are sent with POST",
            );
            response
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("POST"));
            return response;
        }
        let Some(name) = request.path().strip_prefix("/admin/").map(str::to_owned) else {
            return refuse(
                StatusCode::NOT_FOUND,
                "commands have paths such as /admin/status",
            );
        };
        let Ok(body) = request.body.collect(LARGEST).await else {
            return refuse(
                StatusCode::BAD_REQUEST,
                "the command did not arrive, or is too long",
            );
        };
        let command = match serde_json::from_slice::<Command>(&body) {
            Ok(command) if command.name() == name => command,
            // Never the parser's own words: they may quote a password.
            _ => {
                return refuse(
                    StatusCode::BAD_REQUEST,
                    "this is no command that this version of Wharf knows",
                );
            }
        };
        let id = request.id.as_str();
        match self.operator.execute_for(command, id).await {
            Ok(reply) => json(StatusCode::OK, &reply),
            Err(refusal @ Refusal::Wrong(_)) => {
                refuse(StatusCode::BAD_REQUEST, &refusal.to_string())
            }
            Err(refusal @ Refusal::Failed(_)) => {
                refuse(StatusCode::INTERNAL_SERVER_ERROR, &refusal.to_string())
            }
        }
    }
}

fn refuse(status: StatusCode, text: &str) -> Response {
    json(status, &serde_json::json!({ "error": text }))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    // Plain structures of text and numbers always serialize.
    let text = serde_json::to_vec(value).unwrap_or_default();
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
