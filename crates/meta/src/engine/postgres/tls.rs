//! TLS towards PostgreSQL, as much of it verified as `sslmode` asks for.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{Error, Result};

/// Where systems keep the authorities that they trust.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// What is verified of the server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verify {
    /// Nothing: the connection is only encrypted.
    Nothing,
    /// That an authority signed it.
    Authority,
    /// That, and that it is for the host of the URL.
    Host,
}

/// What speaks TLS for the driver. `root` is a file, or `system`; `own` are the files of certificate and key that the
/// client shows.
pub(super) fn connector(
    verify: Verify,
    root: Option<&str>,
    own: Option<(&str, &str)>,
) -> Result<MakeRustlsConnect> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match verify {
        Verify::Nothing => Arc::new(Lenient {
            inner: None,
            provider: Arc::clone(&provider),
        }),
        Verify::Authority | Verify::Host => {
            let roots = Arc::new(roots(root)?);
            let inner = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .build()
                .map_err(|e| bad("sslrootcert", root.unwrap_or("system"), &e))?;
            if verify == Verify::Host {
                inner
            } else {
                Arc::new(Lenient {
                    inner: Some(inner),
                    provider: Arc::clone(&provider),
                })
            }
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::Bug {
            op: "TLS".to_owned(),
            reason: e.to_string(),
        })?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates(certificate, "sslcert")?;
            let private = PrivateKeyDer::from_pem_slice(&read(key, "sslkey")?)
                .map_err(|e| bad("sslkey", key, &e))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|e| bad("sslcert", certificate, &e))?
        }
    };
    Ok(MakeRustlsConnect::new(config))
}

fn bad(what: &str, file: &str, why: &dyn std::fmt::Display) -> Error {
    Error::Setup {
        key: "metadata.url",
        problem: format!("{what}={file} cannot be used: {why}"),
        cure: "give the path of a file in PEM format that this user may read".to_owned(),
    }
}

fn read(file: &str, what: &str) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    File::open(file)
        .and_then(|file| BufReader::new(file).read_to_end(&mut text))
        .map_err(|e| bad(what, file, &e))?;
    Ok(text)
}

fn certificates(file: &str, what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let text = read(file, what)?;
    let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<_, _>>()
        .map_err(|e| bad(what, file, &e))?;
    if found.is_empty() {
        return Err(bad(what, file, &"it holds no certificate"));
    }
    Ok(found)
}

fn roots(root: Option<&str>) -> Result<RootCertStore> {
    let file = match root {
        Some(file) if file != "system" => file,
        _ => SYSTEM
            .into_iter()
            .find(|path| Path::new(path).exists())
            .ok_or_else(|| {
                bad(
                    "sslrootcert",
                    "system",
                    &"this system has no list of authorities",
                )
            })?,
    };
    let mut store = RootCertStore::empty();
    let (added, _) = store.add_parsable_certificates(certificates(file, "sslrootcert")?);
    if added == 0 {
        return Err(bad(
            "sslrootcert",
            file,
            &"it holds no certificate of an authority",
        ));
    }
    Ok(store)
}

/// Takes any name (`verify-ca`), or without an inner verifier any certificate (`require`). Signatures always count, so
/// that whoever answers has the certificate's key.
#[derive(Debug)]
struct Lenient {
    inner: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(inner) = &self.inner else {
            return Ok(ServerCertVerified::assertion());
        };
        match inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
