//! TLS for the load generator: rustls on a blocking socket, trusting the run's own authority only.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// What trusts the authority in `ca`; `protocols` is offered by ALPN.
pub(crate) fn config(ca: &Path, protocols: &[&[u8]]) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).context("reading the authority")? {
        roots.add(certificate.context("reading the authority")?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Shakes hands on a socket.
pub(crate) fn connect(
    config: &Arc<ClientConfig>,
    mut socket: TcpStream,
) -> Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::from(socket.peer_addr()?.ip());
    let mut connection = ClientConnection::new(Arc::clone(config), name)?;
    while connection.is_handshaking() {
        connection
            .complete_io(&mut socket)
            .context("TLS handshake")?;
    }
    Ok(StreamOwned::new(connection, socket))
}
