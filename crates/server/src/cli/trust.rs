//! `wharf trust`: what a client needs to trust a certificate that no public authority signed.
//!
//! Prints a shell script and changes nothing. Without `--authority` it takes what the server shows, which anybody on the way
//! could have exchanged, so the fingerprint is printed to be compared.

use std::fmt::Write as _;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::exit::{Exit, Failure, Outcome};
use super::{TrustClient, print};
use crate::http::tls::fingerprint;

/// For connecting and for each read or write.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prints the script.
pub(super) fn run(client: TrustClient, host: &str, authority: Option<&Path>) -> Outcome {
    let target = Target::parse(host).map_err(|error| Failure::text(Exit::Usage, error))?;
    let (certificate, origin) = match authority {
        Some(file) => {
            let certificate = CertificateDer::from_pem_file(file).map_err(|error| {
                Failure::text(
                    Exit::Usage,
                    format!(
                        "{} holds no certificate in PEM form: {error}",
                        file.display()
                    ),
                )
            })?;
            (certificate, format!("from {}", file.display()))
        }
        None => {
            let certificate = fetch(&target).map_err(|error| {
                let help =
                    "is it running, with TLS? Or name the certificate's file: --authority FILE";
                Failure::text(
                    Exit::Failure,
                    format!("cannot get the certificate of {host}: {error}\n  help: {help}"),
                )
            })?;
            (
                certificate,
                format!("as {host} showed it just now: compare it with what `wharf serve` printed"),
            )
        }
    };
    print(&script(client, host, &certificate, &origin))
}

/// A host as clients name it. It becomes part of paths and shell commands, so nothing else may be in it.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    name: String,
    port: u16,
}

impl Target {
    fn parse(text: &str) -> Result<Self, String> {
        let bad = |why: &str| {
            format!("{text:?} is no host: {why}; write it like registry.example.com:5000")
        };
        if text.contains("://") {
            return Err(bad("leave the scheme out"));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) if !name.contains(':') || name.ends_with(']') => (
                name,
                port.parse()
                    .map_err(|_| bad("the port is no number up to 65535"))?,
            ),
            _ => (text, 443),
        };
        let inner = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        if let Some(inner) = inner {
            inner
                .parse::<std::net::Ipv6Addr>()
                .map_err(|_| bad("what stands in brackets is no IPv6 address"))?;
        } else if name.is_empty()
            || !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
            || name.starts_with('-')
        {
            return Err(bad("names consist of letters, digits, `.` and `-`"));
        }
        Ok(Self {
            name: inner.unwrap_or(name).to_owned(),
            port,
        })
    }
}

/// The last certificate that the server shows: the authority's, if it shows it.
fn fetch(target: &Target) -> Result<CertificateDer<'static>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(TakeAny(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from(target.name.clone()).map_err(|error| error.to_string())?;
    let mut tls =
        ClientConnection::new(Arc::new(config), name).map_err(|error| error.to_string())?;
    let addresses = (target.name.as_str(), target.port)
        .to_socket_addrs()
        .map_err(|error| error.to_string())?;
    let mut last = "the name has no address".to_owned();
    for address in addresses {
        let mut stream = match TcpStream::connect_timeout(&address, PATIENCE) {
            Ok(stream) => stream,
            Err(error) => {
                last = error.to_string();
                continue;
            }
        };
        let bounded = stream
            .set_read_timeout(Some(PATIENCE))
            .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
        bounded.map_err(|error| error.to_string())?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)
                .map_err(|error| error.to_string())?;
        }
        let shown = tls.peer_certificates().and_then(<[_]>::last);
        return shown
            .map(|certificate| certificate.clone().into_owned())
            .ok_or_else(|| "it showed none".to_owned());
    }
    Err(last)
}

/// Takes any certificate: this connection asks for nothing but the certificate itself.
#[derive(Debug)]
struct TakeAny(Arc<CryptoProvider>);

impl ServerCertVerifier for TakeAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

fn script(
    client: TrustClient,
    host: &str,
    certificate: &CertificateDer<'_>,
    origin: &str,
) -> String {
    let (who, root) = match client {
        TrustClient::Docker => ("Docker", "/etc/docker/certs.d"),
        TrustClient::Containerd => ("containerd", "/etc/containerd/certs.d"),
        TrustClient::Podman => (
            "Podman, Buildah, Skopeo and CRI-O",
            "/etc/containers/certs.d",
        ),
    };
    let folder = format!("{root}/{host}");
    let mut out = format!(
        "#!/bin/sh\n# {who} on this machine: trust the registry {host}.\n# Certificate {origin}.\n# SHA-256 {}\nset -eu\n\
         sudo mkdir -p '{folder}'\nsudo tee '{folder}/ca.crt' > /dev/null <<'PEM'\n{}PEM\n",
        fingerprint(certificate),
        pem(certificate),
    );
    let _ = match client {
        TrustClient::Docker => writeln!(out, "# No restart is needed. Then: docker login {host}"),
        TrustClient::Podman => writeln!(
            out,
            "# Without root, ~/.config/containers/certs.d/{host} serves the same purpose. Then: podman login {host}"
        ),
        TrustClient::Containerd => write!(
            out,
            "sudo tee '{folder}/hosts.toml' > /dev/null <<'TOML'\nserver = \"https://{host}\"\n\n[host.\"https://{host}\"]\n\
             capabilities = [\"pull\", \"resolve\", \"push\"]\nca = \"{folder}/ca.crt\"\nTOML\n\
             # No restart is needed if the configuration of containerd names this folder:\n\
             #   containerd 2: [plugins.'io.containerd.cri.v1.images'.registry] config_path = '{root}'\n\
             #   containerd 1: [plugins.'io.containerd.grpc.v1.cri'.registry] config_path = '{root}'\n\
             # ctr takes it by --hosts-dir {root}; nerdctl finds it by itself.\n"
        ),
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_and_nothing_else() {
        let parse = |text: &str| Target::parse(text).map(|target| (target.name, target.port));
        assert_eq!(
            parse("reg.example.com"),
            Ok(("reg.example.com".into(), 443))
        );
        assert_eq!(parse("localhost:5000"), Ok(("localhost".into(), 5000)));
        assert_eq!(parse("[::1]:5000"), Ok(("::1".into(), 5000)));
        for bad in [
            "",
            "https://h",
            "h:port",
            "a b",
            "a'b",
            "$(reboot)",
            "../x",
            "a/b",
            "h:70000",
            "[x]:1",
            "::1",
            "-h",
        ] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn scripts_hold_the_certificate_and_the_folder_of_the_client() {
        let certificate = CertificateDer::from(vec![7; 100]);
        for (client, folder) in [
            (TrustClient::Docker, "/etc/docker/certs.d/h:5000"),
            (TrustClient::Containerd, "/etc/containerd/certs.d/h:5000"),
            (TrustClient::Podman, "/etc/containers/certs.d/h:5000"),
        ] {
            let script = script(client, "h:5000", &certificate, "from x");
            assert!(
                script.contains(&format!("sudo tee '{folder}/ca.crt'")),
                "{script}"
            );
            assert!(
                script.contains(&pem(&certificate)) && script.contains(&fingerprint(&certificate)),
                "{script}"
            );
            assert_eq!(
                script.contains("hosts.toml"),
                client == TrustClient::Containerd
            );
        }
    }

    #[test]
    fn certificates_survive_as_pem() {
        let folder = tempfile::tempdir().unwrap();
        let made = crate::http::tls::SelfSigned::ensure(
            folder.path(),
            &["h".into()],
            std::time::SystemTime::now(),
        )
        .unwrap();
        let certificate = CertificateDer::from_pem_file(&made.authority).unwrap();
        assert_eq!(
            CertificateDer::from_pem_slice(pem(&certificate).as_bytes()).unwrap(),
            certificate
        );
    }
}
