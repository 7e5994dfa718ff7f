//! Certificates of clients: whose are good, and what they say.
//!
//! The authorities and their revocation lists are files that may change; what was read last is in force for handshakes, for sessions
//! that are resumed, and for connections that have been open for long ([`Judge::still`]), so that a revoked certificate ends with
//! the next request and not with the connection. Who somebody is by a certificate is decided in `core::access`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    DigitallySignedStruct, DistinguishedName, RootCertStore, ServerConnection, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use wharf_core::access::{Certificate, MOST_NAMES};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use x509_parser::revocation_list::CertificateRevocationList;
use x509_parser::x509::AttributeTypeAndValue;

use super::{Stamp, TlsError, read, stamp};
use crate::http::listener::ListenAddr;

/// How long a certificate counts on an open connection before its times are looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Whether clients are asked for a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// They are not.
    Never = 0,
    /// They may show one.
    Optional = 1,
    /// Without one there is no connection.
    Required = 2,
}

/// Whether they are at one address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskAt {
    /// The address as it is listened on.
    pub address: ListenAddr,
    /// Whether they are.
    pub ask: Ask,
}

/// Whose certificates are good, and where they are asked for.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// PEM file with the authorities of clients.
    pub authorities: PathBuf,
    /// PEM files with what those revoked.
    pub revoked: Vec<PathBuf>,
    /// Whether clients are asked at all addresses that are not named.
    pub ask: Ask,
    /// And at others.
    pub at: Vec<AskAt>,
}

impl ClientOptions {
    /// Whether the files can be used.
    pub fn check(&self) -> Result<(), TlsError> {
        verdicts(self, 0).map(drop)
    }
}

/// The files, and what they said.
pub(super) struct Clients {
    options: ClientOptions,
    judge: Arc<Judge>,
    seen: Mutex<Vec<Stamp>>,
}

impl Clients {
    pub(super) fn load(options: ClientOptions) -> Result<Self, TlsError> {
        let seen = stamps(&options)?;
        let judge = Judge(ArcSwap::from_pointee(verdicts(&options, 0)?));
        Ok(Self {
            options,
            judge: Arc::new(judge),
            seen: Mutex::new(seen),
        })
    }

    pub(super) fn judge(&self) -> Arc<Judge> {
        Arc::clone(&self.judge)
    }

    pub(super) fn ask(&self, at: &ListenAddr) -> Ask {
        let own = self.options.at.iter().find(|one| one.address == *at);
        own.map_or(self.options.ask, |own| own.ask)
    }

    /// Takes the files' new content, if there is any. What cannot be used leaves the old one in force.
    pub(super) fn reload(&self) -> Result<(), TlsError> {
        let now = stamps(&self.options)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen != now {
            let next = self.judge.0.load().number + 1;
            self.judge.0.store(Arc::new(verdicts(&self.options, next)?));
            *seen = now;
            tracing::info!("new authorities or revocation lists for clients' certificates in use");
        }
        Ok(())
    }
}

fn stamps(options: &ClientOptions) -> Result<Vec<Stamp>, TlsError> {
    let files = std::iter::once(&options.authorities).chain(&options.revoked);
    files.map(|path| stamp(path)).collect()
}

/// The files as of one moment.
struct Verdicts {
    /// Counts them.
    number: u64,
    webpki: Arc<dyn ClientCertVerifier>,
}

/// All certificates or lists of a PEM file.
fn pem<T: PemObject>(path: &Path, expected: &'static str) -> Result<Vec<T>, TlsError> {
    let all = T::pem_slice_iter(&read(path)?).collect::<Result<Vec<_>, _>>();
    all.ok()
        .filter(|all| !all.is_empty())
        .ok_or(TlsError::Content {
            path: path.to_owned(),
            expected,
            hint: "",
        })
}

fn verdicts(options: &ClientOptions, number: u64) -> Result<Verdicts, TlsError> {
    let wrong = |path: &Path, reason: String| TlsError::Clients {
        path: path.to_owned(),
        reason,
    };
    let authorities = &options.authorities;
    let mut roots = RootCertStore::empty();
    let certificates: Vec<CertificateDer<'static>> = pem(authorities, "certificate")?;
    for certificate in &certificates {
        let added = roots.add(certificate.clone());
        added
            .map_err(|error| wrong(authorities, format!("an authority cannot be used: {error}")))?;
    }
    let mut lists = Vec::new();
    for path in &options.revoked {
        let found: Vec<CertificateRevocationListDer<'static>> =
            pem(path, "revocation list (X509 CRL)")?;
        for list in &found {
            if let Some(since) = overdue(list) {
                tracing::warn!(
                    "{}: the revocation list should have been renewed {since}; what it names stays revoked, later ones are not known",
                    path.display()
                );
            }
        }
        lists.extend(found);
    }
    if let Some(first) = options.revoked.first()
        && let Some(name) = without_list(&certificates, &lists)
    {
        let reason = format!(
            "there is no revocation list of {name}, which {} trusts: all its certificates would be refused; add its list, or take it out",
            authorities.display()
        );
        return Err(wrong(first, reason));
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let webpki = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .with_crls(lists)
        .build()
        .map_err(|error| wrong(authorities, format!("cannot be used for clients: {error}")))?;
    Ok(Verdicts { number, webpki })
}

/// When a list was to be renewed, if that is over.
fn overdue(list: &CertificateRevocationListDer<'_>) -> Option<String> {
    let (_, parsed) = CertificateRevocationList::from_der(list).ok()?;
    let next = parsed.next_update()?;
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .ok()?;
    (next.timestamp() < i64::try_from(now.as_secs()).ok()?).then(|| next.to_string())
}

/// An authority that no list is of.
fn without_list(
    authorities: &[CertificateDer<'_>],
    lists: &[CertificateRevocationListDer<'_>],
) -> Option<String> {
    let issuers: Vec<Vec<u8>> = lists
        .iter()
        .filter_map(|list| CertificateRevocationList::from_der(list).ok())
        .map(|(_, list)| list.issuer().as_raw().to_vec())
        .collect();
    authorities
        .iter()
        .filter_map(|der| X509Certificate::from_der(der).ok())
        .map(|(_, authority)| authority)
        .find(|authority| {
            !issuers
                .iter()
                .any(|issuer| issuer == authority.subject().as_raw())
        })
        .map(|authority| authority.subject().to_string())
}

/// Says which certificates are good, by the files as they were read last.
pub(in crate::http) struct Judge(ArcSwap<Verdicts>);

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge")
            .field("number", &self.0.load().number)
            .finish()
    }
}

/// The certificate that a connection's client showed.
#[derive(Debug)]
pub(in crate::http) struct Shown {
    pub(in crate::http) certificate: Arc<Certificate>,
    chain: Vec<CertificateDer<'static>>,
    /// By which files it was found good last, and when, in seconds.
    number: AtomicU64,
    looked: AtomicU64,
}

impl Judge {
    pub(super) fn verifier(self: &Arc<Self>, ask: Ask) -> Arc<dyn ClientCertVerifier> {
        match ask {
            Ask::Never => WebPkiClientVerifier::no_client_auth(),
            _ => Arc::new(Live {
                judge: Arc::clone(self),
                required: ask == Ask::Required,
            }),
        }
    }

    /// What a client showed in its handshake, or in the one that it goes on from; `Err`: it may not come in like this.
    pub(in crate::http) fn shown(
        &self,
        connection: &ServerConnection,
        ask: Ask,
    ) -> Result<Option<Arc<Shown>>, String> {
        let chain = connection.peer_certificates().unwrap_or_default();
        let Some(own) = chain.first() else {
            // A ticket of a listener that asks nobody is none of this one's; this is for what nobody thought of.
            return match ask {
                Ask::Required => Err("no client certificate".into()),
                _ => Ok(None),
            };
        };
        let certificate = read_certificate(own)?;
        let shown = Shown {
            certificate: Arc::new(certificate),
            chain: chain.iter().map(|one| one.clone().into_owned()).collect(),
            number: AtomicU64::new(u64::MAX),
            looked: AtomicU64::new(0),
        };
        // A resumed session shows what was good when it began.
        self.still(&shown, UnixTime::now())?;
        Ok(Some(Arc::new(shown)))
    }

    /// Whether a certificate is as good as when the connection began. Costs something after a change of the files, and once a minute.
    pub(in crate::http) fn still(&self, shown: &Shown, now: UnixTime) -> Result<(), String> {
        let verdicts = self.0.load();
        let seconds = now.as_secs();
        let looked = shown.looked.load(Ordering::Relaxed);
        let fresh = (looked..looked + LOOK_AGAIN.as_secs()).contains(&seconds);
        if fresh && shown.number.load(Ordering::Relaxed) == verdicts.number {
            return Ok(());
        }
        let (own, others) = shown.chain.split_first().ok_or("no client certificate")?;
        let good = verdicts.webpki.verify_client_cert(own, others, now);
        good.map_err(|error| error.to_string())?;
        shown.number.store(verdicts.number, Ordering::Relaxed);
        shown.looked.store(seconds, Ordering::Relaxed);
        Ok(())
    }
}

/// rustls' own verifier, exchanged while running.
#[derive(Debug)]
struct Live {
    judge: Arc<Judge>,
    required: bool,
}

impl ClientCertVerifier for Live {
    fn client_auth_mandatory(&self) -> bool {
        self.required
    }

    /// None: clients choose by themselves, and the names may change.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verdicts = self.judge.0.load();
        verdicts
            .webpki
            .verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verdicts = self.judge.0.load();
        verdicts.webpki.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let verdicts = self.judge.0.load();
        verdicts.webpki.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.0.load().webpki.supported_verify_schemes()
    }
}

/// The first certificate of a PEM text.
pub fn read_pem_certificate(pem: &str) -> Result<Certificate, String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes());
    read_certificate(&der.map_err(|_| "this is no certificate in PEM form")?)
}

/// What a certificate (DER) says of whom it is for. What is no text says nothing.
pub fn read_certificate(der: &[u8]) -> Result<Certificate, String> {
    let (_, parsed) =
        X509Certificate::from_der(der).map_err(|_| "this is no certificate that can be read")?;
    let subject = parsed.subject();
    let mut read = Certificate {
        common_names: all(subject.iter_common_name()),
        organizations: all(subject.iter_organization()),
        units: all(subject.iter_organizational_unit()),
        serial: parsed.raw_serial_as_string().replace(':', ""),
        fingerprint: super::fingerprint(der)
            .replace(':', "")
            .to_ascii_lowercase(),
        ..Certificate::default()
    };
    let names = parsed.subject_alternative_name();
    let names = names.map_err(|_| "its alternative names cannot be read")?;
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::URI(text) => read.uris.push((*text).to_owned()),
            GeneralName::DNSName(text) => read.dns.push((*text).to_owned()),
            GeneralName::RFC822Name(text) => read.emails.push((*text).to_owned()),
            _ => {}
        }
    }
    for (what, names) in [
        ("URIs", &read.uris),
        ("host names", &read.dns),
        ("e-mail addresses", &read.emails),
        ("common names", &read.common_names),
        ("organizations", &read.organizations),
        ("organizational units", &read.units),
    ] {
        if names.len() > MOST_NAMES {
            return Err(format!("it has more than {MOST_NAMES} {what}"));
        }
    }
    Ok(read)
}

fn all<'a, 'b: 'a>(names: impl Iterator<Item = &'a AttributeTypeAndValue<'b>>) -> Vec<String> {
    names
        .filter_map(|name| name.as_str().ok())
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    use wharf_core::access::NameKind;

    use super::*;

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn names_are_read_from_where_they_stand() {
        let der = made(|params| {
            params.serial_number = Some(0x0102_u64.into());
            let names = &mut params.subject_alt_names;
            names.push(SanType::URI("spiffe://corp/ci".try_into().unwrap()));
            names.push(SanType::DnsName("a.example".try_into().unwrap()));
            names.push(SanType::Rfc822Name("alice@a.example".try_into().unwrap()));
            names.push(SanType::IpAddress([127, 0, 0, 1].into()));
            params.distinguished_name.push(DnType::CommonName, "Alice");
            params
                .distinguished_name
                .push(DnType::OrganizationName, "Corp");
            params
                .distinguished_name
                .push(DnType::OrganizationalUnitName, "ci");
        });
        let read = read_certificate(&der).unwrap();
        let wanted = Certificate {
            uris: vec!["spiffe://corp/ci".into()],
            dns: vec!["a.example".into()],
            emails: vec!["alice@a.example".into()],
            common_names: vec!["Alice".into()],
            organizations: vec!["Corp".into()],
            units: vec!["ci".into()],
            serial: read.serial.clone(),
            fingerprint: read.fingerprint.clone(),
        };
        assert_eq!(read, wanted);
        assert!(read.serial.ends_with("0102"), "{}", read.serial);
        let printed = super::super::fingerprint(&der).replace(':', "");
        assert_eq!(read.fingerprint, printed.to_lowercase());
    }

    #[test]
    fn too_many_names_are_refused() {
        let der = made(|params| {
            for at in 0..=MOST_NAMES {
                let name = format!("h{at}.example");
                params
                    .subject_alt_names
                    .push(SanType::DnsName(name.try_into().unwrap()));
            }
        });
        let refused = read_certificate(&der).unwrap_err();
        assert!(refused.contains("host names"), "{refused}");
        assert!(read_pem_certificate("-----BEGIN CERTIFICATE-----\n!\n").is_err());
    }

    proptest! {
        /// Whatever bytes come: an answer, and none that says more than it has room for.
        #[test]
        fn no_bytes_are_too_much(at in any::<prop::sample::Index>(), byte in any::<u8>(), noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_certificate(&noise);
            let mut der = made(|params| {
                params.subject_alt_names.push(SanType::Rfc822Name("a@b".try_into().unwrap()));
            });
            let at = at.index(der.len());
            der[at] = byte;
            if let Ok(read) = read_certificate(&der) {
                prop_assert!(NameKind::ALL.iter().all(|kind| read.names(*kind).len() <= MOST_NAMES));
            }
        }
    }
}
