//! `/livez`, `/readyz`, `/startupz` (OPS-1): one word each, unless `?verbose` asks for more.

use http::StatusCode;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};

use wharf_core::Registry;

use super::App;
use crate::http::body::Body;
use crate::http::{Request, Response};

/// The process runs. Says nothing about stores, so that a broken disk is no reason to restart it.
pub(super) fn live() -> Response {
    text(StatusCode::OK, "ok\n".to_owned())
}

/// The stores are open: requests are only taken once they are.
pub(super) fn started() -> Response {
    text(StatusCode::OK, "ok\n".to_owned())
}

/// New requests are welcome. `?verbose` tells how the stores are.
pub(super) async fn ready(app: &App, request: &Request) -> Response {
    let ready = app.readiness.is_ready();
    let (status, word) = if ready {
        (StatusCode::OK, "ok")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: the process is starting or shutting down",
        )
    };
    if !request
        .query
        .split('&')
        .any(|pair| pair == "verbose" || pair.starts_with("verbose="))
    {
        return text(status, format!("{word}\n"));
    }
    let (metadata, blobs) = stores(&app.registry).await;
    text(
        status,
        format!("{word}\nmetadata: {metadata}\nblobs: {blobs}\n"),
    )
}

/// How the stores are: metadata, then blobs.
pub(crate) async fn stores(registry: &Registry) -> (String, String) {
    let stats = registry.meta.stats();
    let metadata = if stats.damaged {
        "damaged: nothing is written; restore the last backup".to_owned()
    } else if stats.refusing {
        "refusing writes: a commit could not be brought to the disk".to_owned()
    } else if stats.full {
        "the disk is full; deletes are accepted".to_owned()
    } else if registry.meta.is_shared() {
        database(registry).await
    } else {
        format!("ok, {} operation(s) waiting", stats.waiting)
    };
    let blobs = match registry.blobs.probe().await {
        Ok(Some(free)) => format!("ok, {} MiB free", free >> 20),
        Ok(None) => "ok".to_owned(),
        // The cause names paths; the log has it.
        Err(error) => format!("cannot be written: {}", wharf_core::Error::from(error)),
    };
    (metadata, blobs)
}

/// How the database server is. Does not touch readiness: all replicas would leave at once, and clients would only see
/// refused connections instead of what is wrong.
async fn database(registry: &Registry) -> String {
    match registry.meta.read(wharf_meta::repository::GetTotals).await {
        Ok(_) => {
            let stats = registry.meta.stats();
            format!(
                "ok, {} operation(s) waiting, {} connection(s) in use",
                stats.waiting, stats.connections
            )
        }
        // The cause names addresses; the log has it.
        Err(error) => wharf_core::Error::from(error).to_string(),
    }
}

fn text(status: StatusCode, text: String) -> Response {
    let mut response = Response::new(Body::full(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
