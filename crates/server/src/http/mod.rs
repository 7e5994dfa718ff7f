//! The transport: from a socket to a typed [`Request`], and from a [`Response`] back to the socket.
//!
//! `app` builds [`ServerOptions`], implements [`Handler`] and calls [`Server::start`]. The way of a request:
//! [`listener`] accepts, [`tls`] decrypts, `conn` drives HTTP/1.1 or 2 by hyper, `io` and `framing` refuse what two
//! parsers could read in two ways, `service` makes the [`Request`] and finishes the [`Response`], `sendfile` carries files
//! past hyper, `watch` ends what stalls. Nothing here knows what a registry is beyond its [`route`]s and its [`error`] format, and nothing here may
//! hold a whole body, wait without a limit, or look at credentials.

pub mod body;
mod conn;
pub mod error;
pub mod forwarded;
mod framing;
pub mod id;
mod io;
pub mod limits;
pub mod listener;
pub mod oauth;
pub mod observer;
pub mod request;
pub mod route;
mod sendfile;
pub mod server;
mod service;
pub mod shutdown;
pub mod tls;
mod watch;

pub use body::{Body, Facts};
pub use error::ApiError;
pub use forwarded::TrustedProxies;
pub use limits::Limits;
pub use listener::{ListenAddr, Listeners};
pub use observer::Observer;
pub use request::{Peer, Request, RequestBody, Scheme};
pub use route::{Route, RouteError};
pub use server::{Running, Server, ServerOptions};

/// What a [`Handler`] gives back. The transport adds what every answer has: date, request id, lengths, HSTS.
pub type Response = http::Response<Body>;

/// Answers requests. One instance serves all connections.
///
/// When the client resets its HTTP/2 stream or stalls beyond the limits, the future of a GET or HEAD is dropped at
/// whatever it awaits; that of any other method goes on to its end, with a body that breaks off. A panic is caught and
/// answered with 500.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request. Errors are answers too: see [`ApiError::into_response`].
    fn handle(&self, request: Request) -> impl Future<Output = Response> + Send;
}
