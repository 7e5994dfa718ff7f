//! TLS by rustls: one certificate, exchanged while running.
//!
//! The files are compared by time and inode (Kubernetes swaps symbolic links, which file watchers miss) every
//! [`POLL`] and on demand. A pair that does not fit together, as in the middle of a renewal, is not taken: the old one
//! stays until the next look. Open connections keep what they shook hands with.

mod client;
mod self_signed;

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use self::client::Clients;
use super::listener::ListenAddr;

pub use client::{Ask, AskAt, ClientOptions, read_certificate, read_pem_certificate};
pub(super) use client::{Judge, Shown};
pub use self_signed::SelfSigned;

/// How often the files are looked at.
pub const POLL: Duration = Duration::from_secs(30);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("cannot {verb} {}: {source}", path.display())]
    File {
        /// What was tried.
        verb: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file holds something else.
    #[error("{} holds no {expected} in PEM form{hint}", path.display())]
    Content {
        /// Which file.
        path: PathBuf,
        /// What should be in it.
        expected: &'static str,
        /// What to do about it.
        hint: &'static str,
    },
    /// The key is not the certificate's, or of a kind that rustls does not speak.
    #[error("{} and {} do not make a pair: {source}", cert.display(), key.display())]
    Pair {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
    /// Certificates of authorities, or lists of what they revoked, that do not do.
    #[error("{}: {reason}", path.display())]
    Clients {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and the way out.
        reason: String,
    },
    /// rustls refuses the settings.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
    /// A certificate could not be made.
    #[error("cannot make a self-signed certificate: {0}")]
    SelfSigned(#[from] rcgen::Error),
}

/// A certificate with its key, in files that may change.
pub struct Tls {
    /// By [`Ask`]: tickets of one are nothing to the others.
    configs: [Arc<ServerConfig>; 3],
    clients: Option<Clients>,
    current: Arc<Current>,
    cert: PathBuf,
    key: PathBuf,
    seen: Mutex<[Stamp; 2]>,
}

/// A version of a file, without its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    size: u64,
}

#[derive(Debug)]
struct Current(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Tls {
    /// Reads certificate chain and key, both PEM, and offers TLS 1.2 and 1.3 with HTTP/2 and HTTP/1.1.
    pub fn load(cert: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        Self::load_asking(cert, key, None)
    }

    /// The same, and asks clients for certificates.
    pub fn load_asking(
        cert: &Path,
        key: &Path,
        clients: Option<ClientOptions>,
    ) -> Result<Arc<Self>, TlsError> {
        let seen = [stamp(cert)?, stamp(key)?];
        let current = Arc::new(Current(ArcSwap::from_pointee(read_pair(cert, key)?)));
        let clients = clients.map(Clients::load).transpose()?;
        let judge = clients.as_ref().map(Clients::judge);
        let config = |ask: Ask| {
            let provider = Arc::new(aws_lc_rs::default_provider());
            let builder = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()?;
            let builder = match &judge {
                Some(judge) => builder.with_client_cert_verifier(judge.verifier(ask)),
                None => builder.with_no_client_auth(),
            };
            let mut config = builder.with_cert_resolver(Arc::clone(&current) as _);
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            // Clients that come back skip the costly half of the handshake.
            config.ticketer = aws_lc_rs::Ticketer::new()?;
            Ok::<_, TlsError>(Arc::new(config))
        };
        let configs = [
            config(Ask::Never)?,
            config(Ask::Optional)?,
            config(Ask::Required)?,
        ];
        Ok(Arc::new(Self {
            configs,
            clients,
            current,
            cert: cert.to_owned(),
            key: key.to_owned(),
            seen: Mutex::new(seen),
        }))
    }

    /// Takes the files' new content if they changed. Whether the server's own certificate did. On an error the old certificate stays, and the
    /// next call tries again.
    ///
    /// Reads files: call it where blocking is allowed.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let clients = self.clients.as_ref().map_or(Ok(()), Clients::reload);
        let own = self.reload_own()?;
        clients.map(|()| own)
    }

    fn reload_own(&self) -> Result<bool, TlsError> {
        let now = [stamp(&self.cert)?, stamp(&self.key)?];
        let mut seen = match self.seen.lock() {
            Ok(seen) => seen,
            Err(poisoned) => poisoned.into_inner(),
        };
        if *seen == now {
            return Ok(false);
        }
        self.current
            .0
            .store(Arc::new(read_pair(&self.cert, &self.key)?));
        *seen = now;
        Ok(true)
    }

    /// SHA-256 of the certificate in use, as `openssl x509 -fingerprint -sha256` prints it.
    pub fn fingerprint(&self) -> String {
        let current = self.current.0.load();
        current
            .cert
            .first()
            .map(|cert| fingerprint(cert))
            .unwrap_or_default()
    }

    /// The file that holds the certificate.
    pub fn cert_path(&self) -> &Path {
        &self.cert
    }

    /// Whether clients are asked for a certificate at an address of the configuration.
    pub(super) fn ask(&self, at: &ListenAddr) -> Ask {
        let clients = self.clients.as_ref();
        clients.map_or(Ask::Never, |clients| clients.ask(at))
    }

    pub(super) fn acceptor(&self, ask: Ask) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.configs[ask as usize]))
    }

    /// What judges clients' certificates.
    pub(super) fn judge(&self) -> Option<Arc<Judge>> {
        self.clients.as_ref().map(Clients::judge)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("cert", &self.cert)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

fn stamp(path: &Path) -> Result<Stamp, TlsError> {
    let meta = std::fs::metadata(path).map_err(|source| TlsError::File {
        verb: "read",
        path: path.to_owned(),
        source,
    })?;
    Ok(Stamp {
        device: meta.dev(),
        inode: meta.ino(),
        modified: (meta.mtime(), meta.mtime_nsec()),
        size: meta.size(),
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File {
        verb: "read",
        path: path.to_owned(),
        source,
    })
}

fn read_pair(cert_path: &Path, key_path: &Path) -> Result<CertifiedKey, TlsError> {
    let chain = CertificateDer::pem_slice_iter(&read(cert_path)?)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or(TlsError::Content {
            path: cert_path.to_owned(),
            expected: "certificate",
            hint: "; it must begin with -----BEGIN CERTIFICATE-----, the server's own first",
        })?;
    let pem = read(key_path)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsError::Content {
        path: key_path.to_owned(),
        expected: "private key",
        hint: if pem.windows(9).any(|word| word == b"ENCRYPTED") {
            "; it is encrypted: decrypt it with 'openssl pkey'"
        } else {
            "; it must begin with -----BEGIN PRIVATE KEY-----"
        },
    })?;
    let pair = |source| TlsError::Pair {
        cert: cert_path.to_owned(),
        key: key_path.to_owned(),
        source,
    };
    let signer = aws_lc_rs::sign::any_supported_type(&key).map_err(pair)?;
    let certified = CertifiedKey::new(chain, signer);
    certified.keys_match().map_err(pair)?;
    Ok(certified)
}

/// SHA-256 of a certificate, as `openssl x509 -fingerprint -sha256` prints it.
pub fn fingerprint(der: &[u8]) -> String {
    use ::aws_lc_rs::digest::{SHA256, digest};
    digest(&SHA256, der)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect::<Vec<_>>()
        .join(":")
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn made(dir: &Path, host: &str) -> SelfSigned {
        SelfSigned::ensure(dir, &[host.to_owned()], SystemTime::now()).unwrap()
    }

    #[test]
    fn a_changed_pair_is_taken_and_half_a_change_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let (one, two) = (made(&one, "one.example"), made(&two, "two.example"));
        let tls = Tls::load(&one.cert, &one.key).unwrap();
        let before = tls.fingerprint();
        assert_eq!(before, one.fingerprint);
        assert!(!tls.reload().unwrap());

        // Half a renewal: the new certificate with the old key.
        std::fs::copy(&two.cert, &one.cert).unwrap();
        let error = tls.reload().unwrap_err();
        assert!(matches!(error, TlsError::Pair { .. }), "{error}");
        assert_eq!(tls.fingerprint(), before);

        std::fs::copy(&two.key, &one.key).unwrap();
        assert!(tls.reload().unwrap());
        assert_eq!(tls.fingerprint(), two.fingerprint);
        assert_ne!(before, two.fingerprint);
        assert!(!tls.reload().unwrap());
    }

    #[test]
    fn a_swapped_link_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let pair = made(&one, "one.example");
        let other = made(&two, "two.example");
        let link = dir.path().join("current");
        std::os::unix::fs::symlink(&one, &link).unwrap();
        let name = |path: &Path| link.join(path.file_name().unwrap());
        let tls = Tls::load(&name(&pair.cert), &name(&pair.key)).unwrap();
        let next = dir.path().join("next");
        std::os::unix::fs::symlink(&two, &next).unwrap();
        std::fs::rename(&next, &link).unwrap();
        assert!(tls.reload().unwrap());
        assert_eq!(tls.fingerprint(), other.fingerprint);
    }

    #[test]
    fn errors_name_the_file_and_the_cure() {
        let dir = tempfile::tempdir().unwrap();
        let pair = made(dir.path(), "a.example");
        let text = |cert: &Path, key: &Path| Tls::load(cert, key).unwrap_err().to_string();
        let missing = dir.path().join("missing.pem");
        assert!(text(&missing, &pair.key).contains("missing.pem"));
        assert!(text(&pair.key, &pair.key).contains("holds no certificate"));
        assert!(text(&pair.cert, &pair.cert).contains("holds no private key"));
        let locked = dir.path().join("locked.pem");
        std::fs::write(
            &locked,
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        )
        .unwrap();
        assert!(text(&pair.cert, &locked).contains("openssl pkey"));
    }
}
