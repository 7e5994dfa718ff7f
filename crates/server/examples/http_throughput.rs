//! A server that answers 1 KiB from memory, to measure what the transport itself costs.
//!
//! `http_throughput wharf 127.0.0.1:7001` is the transport with a handler that does nothing;
//! `http_throughput bare 127.0.0.1:7002` is hyper alone with the same headers. Drive either with
//! `wrk -t1 -c16 -d5 http://…/v2/team/app/manifests/latest` and compare with nginx serving a file of 1 KiB.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_TYPE, ETAG, HeaderMap, HeaderName};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use wharf::http::{Body, Handler, Listeners, Request, Response, Server, ServerOptions};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn describe(headers: &mut HeaderMap) {
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/vnd.oci.image.manifest.v1+json"),
    );
    headers.insert(
        HeaderName::from_static("docker-content-digest"),
        HeaderValue::from_static(DIGEST),
    );
    headers.insert(ETAG, HeaderValue::from_static(DIGEST));
}

struct Memory(Bytes);

impl Handler for Memory {
    async fn handle(&self, _: Request) -> Response {
        let mut response = Response::new(Body::full(self.0.clone()));
        describe(response.headers_mut());
        response
    }
}

async fn bare(addr: &str, body: Bytes) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::bind(addr).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let body = body.clone();
        let service = service_fn(move |_| {
            let mut response = http::Response::new(Full::new(body.clone()));
            let headers = response.headers_mut();
            describe(headers);
            headers.insert("x-request-id", HeaderValue::from_static("0123456789abcdef"));
            headers.insert(
                "x-content-type-options",
                HeaderValue::from_static("nosniff"),
            );
            headers.insert(
                "docker-distribution-api-version",
                HeaderValue::from_static("registry/2.0"),
            );
            async move { Ok::<_, Infallible>(response) }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(kind), Some(addr)) = (args.next(), args.next()) else {
        anyhow::bail!("usage: http_throughput wharf|bare <address>");
    };
    let body = Bytes::from(vec![b'x'; 1024]);
    if kind == "bare" {
        return Ok(bare(&addr, body).await?);
    }
    let listeners = Listeners::bind(&[addr.parse()?])?;
    let _running = Server::start(ServerOptions::new(listeners), Arc::new(Memory(body)));
    std::future::pending().await
}
