//! An LDAP server in this process, with entries that can be changed and with all that a directory can do wrong.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use wharf_core::directory::Dn;
use wharf_core::directory::ber::{
    BOOLEAN, ENUMERATED, INTEGER, OCTETS, Reader, SEQUENCE, SET, message_length, put, put_around,
    put_number,
};

use crate::ca::Ca;

/// How the directory answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    #[default]
    Good,
    /// Not at all.
    Silent,
    /// By ending the connection at the first request.
    Cut,
    /// With these bytes.
    Says(Vec<u8>),
    /// Each message byte by byte, with a pause after each, in ms.
    Slow(u64),
    /// To a search with this result code.
    Searches(i32),
    /// To a bind with this result code.
    Binds(i32),
    /// To a search with entries that never end.
    Endless,
    /// To a search with entries of another request.
    Confused,
    /// To StartTLS with yes, and something in the open behind it.
    Injects,
}

/// Most entries of one answer, as Active Directory has it by default, only smaller: more come page by page, or not at all.
pub const PAGE: usize = 250;
/// The control by which pages are asked for (RFC 2696).
const PAGED: &[u8] = b"1.2.840.113556.1.4.319";

/// An entry.
#[derive(Clone, Debug)]
struct Entry {
    dn: String,
    password: Option<String>,
    attributes: Vec<(String, Vec<Vec<u8>>)>,
}

#[derive(Default)]
struct State {
    entries: Vec<Entry>,
    mood: Mood,
    binds: Vec<(String, String)>,
    searches: Vec<String>,
    connections: usize,
}

/// A directory, `dc=example,dc=com`, whose account `cn=search,dc=example,dc=com` searches with the password `search-pw`.
#[derive(Clone)]
pub struct FakeLdap {
    /// Who signed its certificate.
    pub ca: Arc<Ca>,
    /// Its port.
    pub port: u16,
    state: Arc<Mutex<State>>,
    stop: Arc<tokio::sync::Notify>,
}

impl FakeLdap {
    /// Starts it in the current runtime; `tls`: from the first byte.
    pub async fn start(tls: bool) -> FakeLdap {
        Self::on(0, tls, Arc::default(), Arc::new(Ca::new())).await
    }

    async fn on(port: u16, tls: bool, state: Arc<Mutex<State>>, ca: Arc<Ca>) -> FakeLdap {
        let identity = ca.issue();
        let certificate = CertificateDer::from_pem_slice(identity.cert.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.expect("a certificate")],
                key.expect("a key"),
            )
            .expect("a key that fits");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind(("127.0.0.1", port))
            .await
            .expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let stop = Arc::new(tokio::sync::Notify::new());
        let (of, stopped) = (state.clone(), stop.clone());
        tokio::spawn(async move {
            let mut sessions = tokio::task::JoinSet::new();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = stopped.notified() => return,
                };
                let Ok((stream, _)) = accepted else { return };
                let (acceptor, of) = (acceptor.clone(), of.clone());
                of.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .connections += 1;
                sessions.spawn(async move {
                    // Whoever goes away before the end is none of its business.
                    if tls {
                        let Ok(stream) = acceptor.accept(stream).await else {
                            return;
                        };
                        let _ = session(stream, &of).await;
                    } else if let Ok(Some(stream)) = session(stream, &of).await {
                        let Ok(stream) = acceptor.accept(stream).await else {
                            return;
                        };
                        let _ = session(stream, &of).await;
                    }
                });
            }
        });
        let fake = FakeLdap {
            ca,
            port,
            state,
            stop,
        };
        fake.add("cn=search,dc=example,dc=com", Some("search-pw"), &[]);
        fake.add("dc=example,dc=com", None, &[]);
        fake
    }

    /// Another server with the same entries and the same authority.
    pub async fn twin(&self, tls: bool) -> FakeLdap {
        let state = State {
            entries: self.state().entries.clone(),
            ..State::default()
        };
        Self::on(0, tls, Arc::new(Mutex::new(state)), self.ca.clone()).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an entry, in the place of one of that name.
    pub fn add(&self, dn: &str, password: Option<&str>, attributes: &[(&str, &[&str])]) {
        let values = |values: &[&str]| {
            values
                .iter()
                .map(|value| value.as_bytes().to_vec())
                .collect()
        };
        let mut attributes: Vec<_> = attributes
            .iter()
            .map(|(name, all)| ((*name).to_owned(), values(all)))
            .collect();
        attributes.push(("objectClass".to_owned(), vec![b"top".to_vec()]));
        let entry = Entry {
            dn: dn.to_owned(),
            password: password.map(str::to_owned),
            attributes,
        };
        self.remove(dn);
        self.state().entries.push(entry);
    }

    /// Adds a person of `ou=people`, known by an id made of the name.
    pub fn person(&self, name: &str, password: &str) {
        let (dn, id) = (
            format!("uid={name},ou=people,dc=example,dc=com"),
            format!("id-{name}"),
        );
        self.add(
            &dn,
            Some(password),
            &[("uid", &[name]), ("entryUUID", &[&id])],
        );
    }

    /// Adds a group of `ou=groups` with these members.
    pub fn group(&self, name: &str, members: &[&str]) {
        let dn = format!("cn={name},ou=groups,dc=example,dc=com");
        self.add(
            &dn,
            None,
            &[
                ("cn", &[name]),
                ("objectClass", &["groupOfNames"]),
                ("member", members),
            ],
        );
    }

    /// Takes an entry away.
    pub fn remove(&self, dn: &str) {
        self.state().entries.retain(|entry| entry.dn != dn);
    }

    /// Answers so from now on.
    pub fn behave(&self, mood: Mood) {
        self.state().mood = mood;
    }

    /// Ends it, with all connections.
    pub fn stop(&self) {
        self.stop.notify_one();
    }

    /// Names and passwords of all binds, in order.
    pub fn binds(&self) -> Vec<(String, String)> {
        self.state().binds.clone()
    }

    /// Bases of all searches, in order.
    pub fn searches(&self) -> Vec<String> {
        self.state().searches.clone()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.state().connections
    }

    /// The configuration of a directory `corp` that is asked at these addresses, with further lines.
    pub fn config(&self, urls: &[String], more: &str) -> String {
        format!(
            "[[auth.ldap]]\nname = \"corp\"\nurls = {urls:?}\nbase_dn = \"dc=example,dc=com\"\n\
             search_dn = \"cn=search,dc=example,dc=com\"\nsearch_password = \"search-pw\"\n{more}\n"
        )
    }

    /// Its address without TLS from the first byte.
    pub fn url(&self) -> String {
        format!("ldap://127.0.0.1:{}", self.port)
    }

    /// Its address with TLS from the first byte.
    pub fn tls_url(&self) -> String {
        format!("ldaps://localhost:{}", self.port)
    }
}

fn message(id: i32, operation: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put_around(&mut out, SEQUENCE, |out| {
        put_number(out, INTEGER, id);
        operation(out);
    });
    out
}

fn result(id: i32, tag: u8, code: i32) -> Vec<u8> {
    message(id, |out| {
        put_around(out, tag, |out| {
            put_number(out, ENUMERATED, code);
            put(out, OCTETS, b"");
            put(out, OCTETS, b"");
            if code == 10 {
                put_around(out, 0xa3, |out| {
                    put(out, OCTETS, b"ldap://127.0.0.1:1/dc=elsewhere")
                });
            }
        });
    })
}

fn found(id: i32, entry: &Entry, wanted: &[String]) -> Vec<u8> {
    message(id, |out| {
        put_around(out, 0x64, |out| {
            put(out, OCTETS, entry.dn.as_bytes());
            put_around(out, SEQUENCE, |out| {
                for (name, values) in &entry.attributes {
                    if wanted.iter().any(|one| one.eq_ignore_ascii_case(name)) {
                        put_around(out, SEQUENCE, |out| {
                            put(out, OCTETS, name.as_bytes());
                            put_around(out, SET, |out| {
                                values.iter().for_each(|value| put(out, OCTETS, value))
                            });
                        });
                    }
                }
            });
        });
    })
}

/// Compares as most attributes do: without case.
fn same(one: &[u8], other: &[u8]) -> bool {
    match (std::str::from_utf8(one), std::str::from_utf8(other)) {
        (Ok(one), Ok(other)) => match (Dn::parse(one), Dn::parse(other)) {
            (Ok(one), Ok(other)) if !one.normal().is_empty() => one.normal() == other.normal(),
            _ => one.to_lowercase() == other.to_lowercase(),
        },
        _ => one == other,
    }
}

/// Whether a filter, as it was sent, fits an entry.
fn fits(filter: &mut Reader<'_>, entry: &Entry, all: &[Entry]) -> bool {
    let Ok((tag, content)) = filter.element() else {
        return false;
    };
    let mut inside = Reader::new(content);
    let has = |attribute: &str, value: &[u8]| {
        let mut of = entry
            .attributes
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(attribute));
        of.any(|(_, values)| values.iter().any(|one| same(one, value)))
    };
    match tag {
        0xa0 | 0xa1 => {
            let mut each = Vec::new();
            while !inside.is_empty() {
                each.push(fits(&mut inside, entry, all));
            }
            if tag == 0xa0 {
                each.iter().all(|one| *one)
            } else {
                each.iter().any(|one| *one)
            }
        }
        0xa2 => !fits(&mut inside, entry, all),
        0xa3 => {
            let attribute = inside.text(OCTETS).expect("an attribute");
            has(&attribute, inside.expect(OCTETS).expect("a value"))
        }
        0x87 => {
            let attribute = String::from_utf8_lossy(content).into_owned();
            entry
                .attributes
                .iter()
                .any(|(name, _)| name.eq_ignore_ascii_case(&attribute))
        }
        // Members of members, as Active Directory finds them.
        0xa9 => {
            let rule = inside.text(0x81).expect("a rule");
            assert_eq!(rule, "1.2.840.113556.1.4.1941");
            let attribute = inside.text(0x82).expect("an attribute");
            let value = inside.expect(0x83).expect("a value").to_vec();
            let mut within = vec![value];
            let mut at = 0;
            while at < within.len() {
                let holders = all.iter().filter(|group| {
                    let mut of = group
                        .attributes
                        .iter()
                        .filter(|(name, _)| name.eq_ignore_ascii_case(&attribute));
                    of.any(|(_, values)| values.iter().any(|one| same(one, &within[at])))
                });
                let holders: Vec<_> = holders.map(|group| group.dn.clone().into_bytes()).collect();
                for holder in holders {
                    if !within.iter().any(|known| same(known, &holder)) {
                        within.push(holder);
                    }
                }
                at += 1;
            }
            within[1..]
                .iter()
                .any(|known| same(known, entry.dn.as_bytes()))
        }
        other => panic!("a filter of type {other:x}"),
    }
}

/// Whether an entry is where a search looks.
fn is_within(entry: &Entry, base: &Dn, scope: i32) -> bool {
    let dn = Dn::parse(&entry.dn).expect("a name");
    let depth = |dn: &Dn| dn.normal().matches(',').count();
    match scope {
        0 => dn.normal() == base.normal(),
        1 => dn.is_within(base) && depth(&dn) == depth(base) + 1,
        _ => dn.is_within(base),
    }
}

/// Answers until the client goes; gives the stream back when TLS is to begin.
async fn session<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    state: &Mutex<State>,
) -> std::io::Result<Option<S>> {
    let (mut buffer, mut who) = (Vec::new(), String::new());
    loop {
        let whole = message_length(&buffer, 1 << 20).expect("LDAP");
        let Some(length) = whole.filter(|length| *length <= buffer.len()) else {
            let mut piece = [0; 4096];
            match stream.read(&mut piece).await? {
                0 => return Ok(None),
                read => buffer.extend_from_slice(&piece[..read]),
            }
            continue;
        };
        let bytes: Vec<u8> = buffer.drain(..length).collect();
        let mood = state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .mood
            .clone();
        let mut request = Reader::new(&bytes).inside(SEQUENCE).expect("a message");
        let id = request.number(INTEGER).expect("a number");
        let (tag, content) = request.element().expect("an operation");
        let answers = match (&mood, tag) {
            (_, 0x42) => return Ok(None),
            (Mood::Silent, _) => {
                tokio::time::sleep(Duration::from_secs(120)).await;
                return Ok(None);
            }
            (Mood::Cut, _) => return Ok(None),
            (Mood::Says(bytes), _) => vec![bytes.clone()],
            (Mood::Injects, 0x77) => vec![result(id, 0x78, 0), result(id + 1, 0x61, 0)],
            (_, 0x77) => {
                stream.write_all(&result(id, 0x78, 0)).await?;
                stream.flush().await?;
                return Ok(Some(stream));
            }
            (Mood::Binds(code), 0x60) => vec![result(id, 0x61, *code)],
            (_, 0x60) => vec![result(id, 0x61, bind(content, state, &mut who))],
            (Mood::Searches(code), 0x63) => vec![result(id, 0x65, *code)],
            (Mood::Endless, 0x63) => {
                let name = "x".repeat(1_000);
                let entry = Entry {
                    dn: "cn=x,dc=example,dc=com".into(),
                    password: None,
                    attributes: vec![("uid".into(), vec![name.into_bytes()])],
                };
                let one = found(id, &entry, &["uid".into()]);
                loop {
                    stream.write_all(&one).await?;
                }
            }
            (_, 0x63) => {
                let id = if mood == Mood::Confused { id + 7 } else { id };
                search(id, content, page(&mut request), state, &who)
            }
            _ => vec![result(id, 0x78, 2)],
        };
        for answer in answers {
            match mood {
                Mood::Slow(pause) => {
                    for byte in answer {
                        stream.write_all(&[byte]).await?;
                        stream.flush().await?;
                        tokio::time::sleep(Duration::from_millis(pause)).await;
                    }
                }
                _ => stream.write_all(&answer).await?,
            }
        }
        stream.flush().await?;
    }
}

fn bind(content: &[u8], state: &Mutex<State>, who: &mut String) -> i32 {
    let mut inside = Reader::new(content);
    inside.number(INTEGER).expect("a version");
    let dn = inside.text(OCTETS).expect("a name");
    let password = inside.text(0x80).expect("a password");
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.binds.push((dn.clone(), password.clone()));
    let dn = Dn::parse(&dn).expect("a name").normal();
    let is = |entry: &&Entry| Dn::parse(&entry.dn).expect("a name").normal() == dn;
    let entry = state.entries.iter().find(is);
    let code = match entry {
        // A visitor without a name: what makes an empty password dangerous (RFC 4513 §5.1.2).
        _ if password.is_empty() => 0,
        Some(entry) if entry.password.as_deref() == Some(&password) => 0,
        _ => 49,
    };
    *who = if code == 0 { dn } else { String::new() };
    code
}

/// Which page is asked for behind an operation: how many entries, and after how many.
fn page(request: &mut Reader<'_>) -> Option<(usize, usize)> {
    request.peek().filter(|tag| *tag == 0xa0)?;
    let mut controls = request.inside(0xa0).expect("controls");
    let mut control = controls.inside(SEQUENCE).expect("a control");
    assert_eq!(control.expect(OCTETS).expect("a name"), PAGED);
    let mut value = control.inside(OCTETS).expect("a value");
    let mut value = value.inside(SEQUENCE).expect("size and cookie");
    let size = value.number(INTEGER).expect("a size");
    let cookie = value.text(OCTETS).expect("a cookie");
    let after = if cookie.is_empty() {
        0
    } else {
        cookie.parse().expect("a cookie of mine")
    };
    Some((usize::try_from(size).expect("a size"), after))
}

/// The end of a page, and where the next one begins; an empty cookie: nowhere.
fn end_of_page(id: i32, cookie: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_around(&mut out, SEQUENCE, |out| {
        put_number(out, INTEGER, id);
        put_around(out, 0x65, |out| {
            put_number(out, ENUMERATED, 0);
            put(out, OCTETS, b"");
            put(out, OCTETS, b"");
        });
        put_around(out, 0xa0, |out| {
            put_around(out, SEQUENCE, |out| {
                put(out, OCTETS, PAGED);
                let mut value = Vec::new();
                put_around(&mut value, SEQUENCE, |out| {
                    put_number(out, INTEGER, 0);
                    put(out, OCTETS, cookie.as_bytes());
                });
                put(out, OCTETS, &value);
            });
        });
    });
    out
}

fn search(
    id: i32,
    content: &[u8],
    page: Option<(usize, usize)>,
    state: &Mutex<State>,
    who: &str,
) -> Vec<Vec<u8>> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let mut inside = Reader::new(content);
    let base = inside.text(OCTETS).expect("a base");
    state.searches.push(base.clone());
    let scope = inside.number(ENUMERATED).expect("a scope");
    assert_eq!(
        inside.number(ENUMERATED).expect("aliases"),
        0,
        "aliases are never followed"
    );
    let most = inside.number(INTEGER).expect("a size");
    inside.number(INTEGER).expect("a time");
    inside.expect(BOOLEAN).expect("a switch");
    let filter = inside;
    inside.element().expect("a filter");
    let mut names = inside.inside(SEQUENCE).expect("attributes");
    let mut wanted = Vec::new();
    while !names.is_empty() {
        wanted.push(names.text(OCTETS).expect("an attribute"));
    }
    // Only the account that searches may: whoever signs in is bound on a connection of its own.
    if who != "cn=search,dc=example,dc=com" {
        return vec![result(id, 0x65, 50)];
    }
    let base = Dn::parse(&base).expect("a base");
    if !state.entries.iter().any(|entry| is_within(entry, &base, 2)) {
        return vec![result(id, 0x65, 32)];
    }
    let entries = state.entries.iter().filter(|entry| {
        let mut filter = filter;
        is_within(entry, &base, scope) && fits(&mut filter, entry, &state.entries)
    });
    let mut answers: Vec<_> = entries.map(|entry| found(id, entry, &wanted)).collect();
    let most = match usize::try_from(most).expect("a size") {
        0 => PAGE,
        most => most.min(PAGE),
    };
    if let Some((size, after)) = page {
        let (all, size) = (answers.len(), size.min(PAGE));
        let mut answers: Vec<_> = answers.into_iter().skip(after).take(size).collect();
        let seen = after + answers.len();
        let cookie = if seen < all {
            seen.to_string()
        } else {
            String::new()
        };
        answers.push(end_of_page(id, &cookie));
        return answers;
    }
    let cut = answers.len() > most;
    if cut {
        answers.truncate(most);
    }
    answers.push(result(id, 0x65, if cut { 4 } else { 0 }));
    answers
}
