//! The server's end of the admin socket: HTTP/1.1 with one address, one JSON command in, one answer out.

use std::path::Path;
use std::sync::Arc;

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, StatusCode};
use wharf_core::Registry;

use super::{Command, execute};
use crate::http::body::Body;
use crate::http::listener::ListenAddr;
use crate::http::{Handler, Request, Response};

/// The socket's name in the data folder.
const NAME: &str = "admin.sock";
/// A command is short.
const LONGEST: u64 = 64 << 10;

/// Where the socket of a data folder is. Only the folder's owner may open it; that is its whole protection.
pub fn address(folder: &Path) -> ListenAddr {
    ListenAddr::Unix {
        path: folder.join(NAME),
        mode: 0o600,
    }
}

/// Answers commands.
#[derive(Debug)]
pub struct Socket(pub Arc<Registry>);

impl Handler for Socket {
    async fn handle(&self, mut request: Request) -> Response {
        if request.path() != "/admin" || request.method != Method::POST {
            return text(StatusCode::NOT_FOUND, "post a command to /admin".to_owned());
        }
        let command = match request.body.collect(LONGEST).await {
            Ok(bytes) => {
                serde_json::from_slice::<Command>(&bytes).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        let command = match command {
            Ok(command) => command,
            Err(error) => return text(StatusCode::BAD_REQUEST, error),
        };
        match execute(&self.0, command).await {
            Ok(outcome) => match serde_json::to_vec(&outcome) {
                Ok(json) => {
                    let mut response = Response::new(Body::full(json));
                    response
                        .headers_mut()
                        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                    response
                }
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            },
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, error),
        }
    }
}

fn text(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    response
}
