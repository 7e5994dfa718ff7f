//! Gets the keys of issuers whose tokens machines sign in with, for `wharf_core::workload`.

use std::sync::OnceLock;
use std::time::Duration;

use reqwest::{Certificate, Client, redirect};
use wharf_core::workload::{Fetch, FetchRequest, Fetched};

/// For connecting; the whole takes no longer than who asks waits.
const CONNECT: Duration = Duration::from_secs(3);

/// Over HTTPS, to whom this machine trusts or the issuer's own authority vouches for. Follows nothing.
#[derive(Debug, Default)]
pub(super) struct Web {
    usual: OnceLock<Client>,
    /// For this machine itself: what is not encrypted must not go through a proxy.
    here: OnceLock<Client>,
}

impl Web {
    fn client(&self, url: &str, authority: &str) -> Result<Client, String> {
        let told = |error: &dyn std::fmt::Display| format!("no client can be made: {error}");
        let builder = Client::builder()
            .connect_timeout(CONNECT)
            .redirect(redirect::Policy::none())
            .user_agent(concat!("wharf/", env!("CARGO_PKG_VERSION")));
        let encrypted = url.starts_with("https://");
        if !encrypted || authority.is_empty() {
            let (kept, builder) = match encrypted {
                true => (&self.usual, builder),
                false => (&self.here, builder.no_proxy()),
            };
            if let Some(client) = kept.get() {
                return Ok(client.clone());
            }
            let client = builder.build().map_err(|error| told(&error))?;
            return Ok(kept.get_or_init(|| client).clone());
        }
        let certificates = Certificate::from_pem_bundle(authority.as_bytes());
        let certificates =
            certificates.map_err(|_| "the issuer's authority is no certificate in PEM form")?;
        let builder = builder.tls_certs_only(certificates);
        builder.build().map_err(|error| told(&error))
    }
}

/// The innermost reason: what lies around it names the address again.
fn reason(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

impl Fetch for Web {
    fn get(&self, request: FetchRequest) -> Fetched<'_> {
        Box::pin(async move {
            let FetchRequest {
                url,
                authority,
                bearer,
                post,
                largest,
            } = request;
            let told = |error: reqwest::Error| format!("{url}: {}", reason(&error));
            let client = self.client(&url, &authority)?;
            let is_post = post.is_some();
            let mut asked = match post {
                None => client.get(&url),
                Some(body) => client
                    .post(&url)
                    .header("content-type", "application/json")
                    .header("accept", "application/json")
                    .body(body.reveal().to_owned()),
            };
            if let Some(bearer) = &bearer {
                asked = asked.bearer_auth(bearer.reveal());
            }
            let mut answer = asked.send().await.map_err(told)?;
            let status = answer.status();
            if status.is_redirection() {
                return Err(format!(
                    "{url}: the answer is a redirect ({status}), which is not followed"
                ));
            }
            let good = status == reqwest::StatusCode::OK
                || is_post && status == reqwest::StatusCode::CREATED;
            if !good {
                let hint = match status.as_u16() {
                    401 if bearer.is_none() => "; it wants to know who asks: give a bearer token",
                    401 => "; the bearer token is not, or no longer, good there",
                    403 if is_post => "; who asks needs the ClusterRole system:auth-delegator",
                    403 => {
                        "; who asks needs the ClusterRole system:service-account-issuer-discovery, if this is a cluster"
                    }
                    _ => "",
                };
                return Err(format!("{url}: the answer is {status}{hint}"));
            }
            let mut body = Vec::new();
            while let Some(piece) = answer.chunk().await.map_err(told)? {
                if body.len() + piece.len() > largest {
                    return Err(format!(
                        "{url}: the answer is larger than {} KiB",
                        largest >> 10
                    ));
                }
                body.extend_from_slice(&piece);
            }
            Ok(body)
        })
    }
}
