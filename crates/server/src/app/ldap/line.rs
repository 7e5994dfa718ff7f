//! One connection to a directory server: TLS, messages and their limits. Every call ends in bounded time and reads a bounded number
//! of bytes, whatever is at the other end.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use wharf_core::directory::ServerUrl;
use wharf_core::directory::ber::message_length;
use wharf_core::directory::message::{self, Answer, Entry, Message, Outcome, Search};

/// Largest message that is read, in bytes.
const LARGEST_MESSAGE: usize = 4 << 20;
/// Most bytes that one operation may bring.
const LARGEST_ANSWER: usize = 16 << 20;
/// Most entries that one operation may bring.
const ENTRIES: usize = 5_000;
/// Entries on a page.
const PAGE: i32 = 500;

/// What went wrong on a connection, and the way out. It is not used again.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) what: String,
    pub(super) cure: &'static str,
}

const REACH: &str =
    "see that the server runs, and that its address (`urls`) is right and can be reached from here";
const SPEAK: &str = "see that an LDAP server listens there, and that `urls` says ldaps:// for TLS from the first byte and ldap:// for none";

fn trouble(what: impl Into<String>, cure: &'static str) -> Trouble {
    let what = what.into();
    Trouble { what, cure }
}

/// What a search brought.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) entries: Vec<Entry>,
    /// The server has more than it gives or we take.
    pub(super) cut: bool,
}

/// How a search went wrong: the connection is in order, or it is not.
#[derive(Debug)]
pub(super) enum SearchError {
    /// The server said no.
    Refused(Outcome),
    /// Nothing can be said to it any more.
    Line(Trouble),
}

trait Both: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Both for T {}

/// A connection.
pub(super) struct Line {
    stream: Box<dyn Both>,
    buffer: Vec<u8>,
    id: i32,
    read_timeout: Duration,
    /// Of what kind it is, in words.
    pub(super) security: &'static str,
}

/// How TLS is done with a directory.
pub(super) fn tls(authority: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match authority {
        Some(file) => {
            let bad = |error: &dyn std::fmt::Display| {
                format!(
                    "{} holds no certificates in PEM form: {error}",
                    file.display()
                )
            };
            for certificate in CertificateDer::pem_file_iter(file).map_err(|error| bad(&error))? {
                let certificate = certificate.map_err(|error| bad(&error))?;
                roots.add(certificate).map_err(|error| bad(&error))?;
            }
            if roots.is_empty() {
                return Err(bad(&"there is none in it"));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(Arc::new(
        builder.with_root_certificates(roots).with_no_client_auth(),
    ))
}

/// How a connection is made.
#[derive(Debug, Clone)]
pub(super) struct Manner {
    pub(super) tls: Arc<ClientConfig>,
    pub(super) start_tls: bool,
    pub(super) connect_timeout: Duration,
    pub(super) read_timeout: Duration,
}

fn tls_trouble(url: &ServerUrl, error: &std::io::Error) -> Trouble {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(reason)) => {
            let text = format!("{reason:?}");
            let cure = match () {
                () if text.starts_with("UnknownIssuer") => {
                    "name the PEM file of the authority that signed its certificate in `ca_file`"
                }
                () if text.starts_with("NotValidForName") => {
                    "write the host into `urls` as the server's certificate has it"
                }
                () if text.starts_with("Expired") => {
                    "renew the server's certificate, or set this machine's clock"
                }
                () => {
                    "see that the server's certificate is in order and its authority is in `ca_file`"
                }
            };
            trouble(format!("TLS with {url} failed: {error}"), cure)
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            trouble(format!("{url} does not answer with TLS"), SPEAK)
        }
        _ => trouble(
            format!("TLS with {url} failed: {error}"),
            "see in the server's log why it ended the connection",
        ),
    }
}

impl Line {
    /// Connects, TLS included.
    pub(super) async fn open(url: &ServerUrl, manner: &Manner) -> Result<Self, Trouble> {
        let within = manner.connect_timeout;
        let opened = timeout(within, Self::connect(url, manner)).await;
        opened.unwrap_or_else(|_| {
            Err(trouble(
                format!(
                    "{url} was not reached within {} ms (`connect_timeout`)",
                    within.as_millis()
                ),
                REACH,
            ))
        })
    }

    async fn connect(url: &ServerUrl, manner: &Manner) -> Result<Self, Trouble> {
        let stream = TcpStream::connect((url.host.as_str(), url.port)).await;
        let stream =
            stream.map_err(|error| trouble(format!("{url} was not reached: {error}"), REACH))?;
        // Small questions, each waited for.
        let _ = stream.set_nodelay(true);
        let mut plain = Self {
            stream: Box::new(stream),
            buffer: Vec::new(),
            id: 0,
            read_timeout: manner.read_timeout,
            security: "without TLS",
        };
        if manner.start_tls && !url.tls {
            let id = plain.next_id();
            let end = Instant::now() + manner.read_timeout;
            plain.send(url, &message::start_tls(id), end).await?;
            match plain.receive(url, id, end, &mut 0).await? {
                Answer::Extended(outcome) if outcome.is_good() => {}
                Answer::Extended(outcome) => {
                    return Err(trouble(
                        format!("{url} refuses StartTLS: {outcome}"),
                        "give the server a certificate, or write ldaps:// into `urls` and leave `start_tls` out",
                    ));
                }
                _ => {
                    return Err(trouble(
                        format!("{url} answers StartTLS with something else"),
                        SPEAK,
                    ));
                }
            }
            if !plain.buffer.is_empty() {
                // What was sent before TLS began could be anybody's (the injection of CVE-2011-0411 and its like).
                return Err(trouble(
                    format!("{url} sends something between StartTLS and TLS"),
                    "see who answers there",
                ));
            }
        }
        if !url.tls && !manner.start_tls {
            return Ok(plain);
        }
        let name = ServerName::try_from(url.host.clone()).map_err(|error| {
            trouble(
                format!("{url}: {error}"),
                "write a host name or an address into `urls`",
            )
        })?;
        let connector = TlsConnector::from(manner.tls.clone());
        let stream = connector.connect(name, plain.stream).await;
        let stream = stream.map_err(|error| tls_trouble(url, &error))?;
        let security = if url.tls { "with TLS" } else { "with StartTLS" };
        Ok(Self {
            stream: Box::new(stream),
            buffer: Vec::new(),
            id: plain.id,
            read_timeout: manner.read_timeout,
            security,
        })
    }

    fn next_id(&mut self) -> i32 {
        self.id = self.id.checked_add(1).unwrap_or(1);
        self.id
    }

    async fn send(&mut self, url: &ServerUrl, bytes: &[u8], end: Instant) -> Result<(), Trouble> {
        let sent = timeout_at(end, async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        });
        match sent.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(trouble(
                format!("{url} ended the connection: {error}"),
                REACH,
            )),
            Err(_) => Err(self.late(url)),
        }
    }

    fn late(&self, url: &ServerUrl) -> Trouble {
        trouble(
            format!(
                "{url} did not answer within {} ms (`read_timeout`)",
                self.read_timeout.as_millis()
            ),
            "see what keeps the server busy",
        )
    }

    /// The next answer to that request. `taken` counts bytes of the whole operation.
    async fn receive(
        &mut self,
        url: &ServerUrl,
        id: i32,
        end: Instant,
        taken: &mut usize,
    ) -> Result<Answer, Trouble> {
        loop {
            let length = message_length(&self.buffer, LARGEST_MESSAGE).map_err(|error| {
                trouble(format!("what {url} sends is not LDAP: {error}"), SPEAK)
            })?;
            if let Some(length) = length.filter(|length| *length <= self.buffer.len()) {
                let read = Message::read(&self.buffer[..length]).map_err(|error| {
                    trouble(format!("what {url} sends is not LDAP: {error}"), SPEAK)
                })?;
                self.buffer.drain(..length);
                *taken += length;
                if *taken > LARGEST_ANSWER {
                    return Err(trouble(
                        format!("{url} answers with more than {} MiB", LARGEST_ANSWER >> 20),
                        "narrow `base_dn` and `filter`, or `group_base_dn` and `group_filter`",
                    ));
                }
                match (read.id, read.answer) {
                    (found, answer) if found == id => return Ok(answer),
                    (0, _) => return Err(trouble(format!("{url} ends the connection"), REACH)),
                    _ => return Err(trouble(format!("{url} answers what was not asked"), SPEAK)),
                }
            }
            let mut piece = [0; 16 << 10];
            match timeout_at(end, self.stream.read(&mut piece)).await {
                Ok(Ok(0)) => return Err(trouble(format!("{url} ended the connection"), REACH)),
                Ok(Ok(read)) => self.buffer.extend_from_slice(&piece[..read]),
                Ok(Err(error)) => {
                    return Err(trouble(
                        format!("{url} ended the connection: {error}"),
                        REACH,
                    ));
                }
                Err(_) => return Err(self.late(url)),
            }
        }
    }

    /// Asks to be that entry.
    pub(super) async fn bind(
        &mut self,
        url: &ServerUrl,
        dn: &str,
        password: &str,
    ) -> Result<Outcome, Trouble> {
        let (id, end) = (self.next_id(), Instant::now() + self.read_timeout);
        self.send(url, &message::bind(id, dn, password), end)
            .await?;
        match self.receive(url, id, end, &mut 0).await? {
            Answer::Bind(outcome) => Ok(outcome),
            _ => Err(trouble(
                format!("{url} answers a bind with something else"),
                SPEAK,
            )),
        }
    }

    /// Searches; by pages where no number of entries is given.
    pub(super) async fn search(
        &mut self,
        url: &ServerUrl,
        asked: &Search<'_>,
    ) -> Result<Found, SearchError> {
        let (mut found, mut taken, mut cookie) = (Found::default(), 0, Vec::new());
        // For all pages together: a server that is slow with each is slow.
        let end = Instant::now() + self.read_timeout;
        loop {
            let id = self.next_id();
            let page = (asked.entries == 0).then_some((PAGE, cookie.as_slice()));
            let sent = message::search(
                id,
                &Search {
                    page,
                    ..asked.clone()
                },
            );
            self.send(url, &sent, end)
                .await
                .map_err(SearchError::Line)?;
            let outcome = loop {
                let answer = self
                    .receive(url, id, end, &mut taken)
                    .await
                    .map_err(SearchError::Line)?;
                match answer {
                    Answer::Entry(entry) if found.entries.len() < ENTRIES => {
                        found.entries.push(entry)
                    }
                    Answer::Entry(_) => found.cut = true,
                    // Other servers are not asked because one of them says so.
                    Answer::Elsewhere => {}
                    Answer::Done(outcome, next) => {
                        cookie = next;
                        break outcome;
                    }
                    _ => {
                        let what = format!("{url} answers a search with something else");
                        return Err(SearchError::Line(trouble(what, SPEAK)));
                    }
                }
            };
            match outcome.code {
                0 if cookie.is_empty() || asked.entries != 0 => return Ok(found),
                0 if found.entries.len() >= ENTRIES => {
                    found.cut = true;
                    return Ok(found);
                }
                0 => {}
                // More than it gives: what there is counts.
                4 | 11 => {
                    found.cut = true;
                    return Ok(found);
                }
                _ => return Err(SearchError::Refused(outcome)),
            }
        }
    }

    /// Says goodbye, if that can be said at once.
    pub(super) async fn close(mut self) {
        let id = self.next_id();
        let _ = timeout(Duration::from_millis(200), async {
            self.stream.write_all(&message::unbind(id)).await?;
            self.stream.shutdown().await
        })
        .await;
    }
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line")
            .field("security", &self.security)
            .finish_non_exhaustive()
    }
}
