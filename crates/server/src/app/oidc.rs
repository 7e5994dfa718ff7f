//! Asks OpenID providers, for `wharf_core::oidc`.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Certificate, Client, redirect};
use wharf_core::oidc::{Ask, Asked, LARGEST_ANSWER, Web};
use wharf_oci::percent::encode_query;

/// For connecting; the whole takes no longer than who asks waits.
const CONNECT: Duration = Duration::from_secs(3);

/// Most clients that are kept: one for each set of authorities, and one for this machine. More are made anew each time.
const MOST_CLIENTS: usize = 32;

/// Over HTTPS, to whom this machine trusts or the provider's own authority vouches for. Follows nothing: an answer of a provider is
/// its own, or none.
#[derive(Debug, Default)]
pub(crate) struct Providers {
    /// Whether it encrypts, with whose authority. To make one reads all authorities of the machine, which takes long.
    clients: Mutex<Vec<(bool, String, Client)>>,
}

impl Providers {
    fn client(&self, url: &str, authority: &str) -> Result<Client, String> {
        let encrypted = url.starts_with("https://");
        let authority = if encrypted { authority } else { "" };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let mut known = clients.iter();
        let known = known.find(|(kind, of, _)| *kind == encrypted && of == authority);
        if let Some((_, _, client)) = known {
            return Ok(client.clone());
        }
        let client = client(encrypted, authority)?;
        if clients.len() < MOST_CLIENTS {
            clients.push((encrypted, authority.to_owned(), client.clone()));
        }
        Ok(client)
    }
}

fn client(encrypted: bool, authority: &str) -> Result<Client, String> {
    let builder = Client::builder()
        .connect_timeout(CONNECT)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("wharf/", env!("CARGO_PKG_VERSION")));
    let builder = match (encrypted, authority) {
        // What is not encrypted must not go through a proxy.
        (false, _) => builder.no_proxy(),
        (true, "") => builder,
        (true, authority) => {
            let certificates = Certificate::from_pem_bundle(authority.as_bytes());
            let certificates =
                certificates.map_err(|_| "ca_file holds no certificate in PEM form".to_owned())?;
            builder.tls_certs_only(certificates)
        }
    };
    let built = builder.build();
    built.map_err(|error| format!("no client can be made: {error}"))
}

/// The innermost reason: what lies around it names the address again, with what was sent there.
fn reason(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

impl Web for Providers {
    fn ask(&self, ask: Ask) -> Asked<'_> {
        Box::pin(async move {
            let url = ask.url;
            let told = |error: reqwest::Error| format!("{url}: {}", reason(&error));
            let client = self.client(&url, &ask.authority)?;
            let mut asked = match &ask.form {
                Some(form) => {
                    let fields = form.0.iter();
                    let fields =
                        fields.map(|(name, value)| format!("{name}={}", encode_query(value)));
                    let body = fields.collect::<Vec<_>>().join("&");
                    let kind = "application/x-www-form-urlencoded";
                    client.post(&url).header(CONTENT_TYPE, kind).body(body)
                }
                None => client.get(&url),
            };
            asked = asked.header(ACCEPT, "application/json");
            if let Some((user, password)) = &ask.basic {
                asked = asked.basic_auth(user, Some(password.reveal()));
            }
            if let Some(bearer) = &ask.bearer {
                asked = asked.bearer_auth(bearer.reveal());
            }
            let mut answer = asked.send().await.map_err(told)?;
            let status = answer.status().as_u16();
            let mut body = Vec::new();
            while let Some(piece) = answer.chunk().await.map_err(told)? {
                if body.len() + piece.len() > LARGEST_ANSWER {
                    let most = LARGEST_ANSWER >> 10;
                    return Err(format!("{url}: the answer is larger than {most} KiB"));
                }
                body.extend_from_slice(&piece);
            }
            Ok((status, body))
        })
    }
}
