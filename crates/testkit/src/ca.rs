//! Certificates for tests: an authority, server certificates that it signs, a client configuration that trusts it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// An authority that lives as long as the test.
pub struct Ca {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A server certificate and its key, both PEM.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The certificate.
    pub cert: String,
    /// The private key.
    pub key: String,
}

impl Identity {
    /// Writes `cert.pem` and `key.pem` and gives back their paths.
    pub fn write(&self, folder: &Path) -> (PathBuf, PathBuf) {
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&cert, &self.cert).expect("write the certificate");
        std::fs::write(&key, &self.key).expect("write the key");
        (cert, key)
    }
}

impl Default for Ca {
    fn default() -> Self {
        Ca::new()
    }
}

impl Ca {
    /// A fresh authority.
    pub fn new() -> Ca {
        Self::named("Wharf test authority")
    }

    /// A fresh authority of that name.
    pub fn named(name: &str) -> Ca {
        let key = KeyPair::generate().expect("make a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names to be wrong");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params
            .self_signed(&key)
            .expect("sign the authority")
            .der()
            .clone();
        Ca {
            certificate,
            issuer: Issuer::new(params, key),
        }
    }

    /// A certificate for `localhost`, `127.0.0.1` and `::1`.
    pub fn issue(&self) -> Identity {
        self.issue_for(&["localhost", "127.0.0.1", "::1"])
    }

    /// A certificate for the given names and addresses.
    pub fn issue_for(&self, names: &[&str]) -> Identity {
        let names = names
            .iter()
            .map(|&name| name.to_owned())
            .collect::<Vec<_>>();
        let params = CertificateParams::new(names).expect("valid names");
        self.sign(&params)
    }

    /// A certificate for `localhost` and `127.0.0.1` that was good from the start of one year to that of another.
    pub fn issue_in(&self, years: (i32, i32)) -> Identity {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("valid names");
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        self.sign(&params)
    }

    /// A certificate for a client, with these names: `email:`, `uri:`, `dns:` or `cn:` and the name. From the start of
    /// one year to that of another.
    pub fn issue_client(&self, names: &[&str], serial: u64, years: (i32, i32)) -> Identity {
        let mut params = CertificateParams::new(Vec::new()).expect("no names to be wrong");
        for name in names {
            let (kind, name) = name.split_once(':').expect("a kind and a name");
            let text = || name.try_into().expect("a name in ASCII");
            params.subject_alt_names.push(match kind {
                "email" => SanType::Rfc822Name(text()),
                "uri" => SanType::URI(text()),
                "dns" => SanType::DnsName(text()),
                _ => {
                    params.distinguished_name.push(DnType::CommonName, name);
                    continue;
                }
            });
        }
        params.serial_number = Some(serial.into());
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        self.sign(&params)
    }

    fn sign(&self, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("make a key");
        let cert = params
            .signed_by(&key, &self.issuer)
            .expect("sign the certificate");
        Identity {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A list of what this authority revoked, PEM.
    pub fn revoke(&self, serials: &[u64]) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(4000, 1, 1),
            crl_number: SerialNumber::from(u64::try_from(serials.len()).expect("a few") + 1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("sign the list");
        list.pem().expect("write the list")
    }

    /// A client's configuration that trusts this authority, and shows a certificate.
    pub fn client_config_as(&self, identity: &Identity) -> rustls::ClientConfig {
        let chain = CertificateDer::pem_slice_iter(identity.cert.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
        let mut config = self.client_config();
        let provider = config.crypto_provider().clone();
        let signer = provider.key_provider.load_private_key(key).expect("a key");
        let shown = rustls::sign::CertifiedKey::new(chain, signer);
        config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(shown));
        config
    }

    /// A client's configuration that trusts this authority and nobody else, without ALPN.
    pub fn client_config(&self) -> rustls::ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(self.certificate.clone())
            .expect("a valid certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// The authority's certificate as PEM, for clients that read files.
    pub fn pem(&self) -> String {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(&self.certificate);
        let lines: Vec<_> = text
            .as_bytes()
            .chunks(64)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            lines.join("\n")
        )
    }
}
