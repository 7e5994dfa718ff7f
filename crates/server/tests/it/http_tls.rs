//! TLS: versions, protocols, renewal without a break, and clients that get it wrong.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use wharf::http::Limits;
use wharf::http::observer::ConnectionEnd;
use wharf::http::tls::{SelfSigned, Tls};

use super::http_support::{Raw, Toybox};

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn certificate(dir: &Path, hosts: &[&str]) -> SelfSigned {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    SelfSigned::ensure(dir, &hosts, SystemTime::now()).unwrap()
}

pub(crate) fn client_config(
    authority: &Path,
    versions: &[&'static rustls::SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(authority).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

fn connect(addr: SocketAddr, config: &Arc<ClientConfig>, name: &'static str) -> Stream {
    let name = ServerName::try_from(name).unwrap();
    let client = ClientConnection::new(Arc::clone(config), name).unwrap();
    let socket = TcpStream::connect(addr).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    StreamOwned::new(client, socket)
}

fn who(stream: &mut Stream) -> std::io::Result<String> {
    stream.write_all(b"GET /who HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut text = String::new();
    let mut buffer = [0; 4096];
    while !text.contains("version=HTTP/1.1") {
        let got = stream.read(&mut buffer)?;
        if got == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..got]));
    }
    Ok(text)
}

fn secured(dir: &Path) -> (Toybox, SelfSigned) {
    let made = certificate(dir, &["localhost"]);
    let tls = Tls::load(&made.cert, &made.key).unwrap();
    let toybox = Toybox::with(|options| {
        options.tls = Some(tls);
        options.limits = Limits {
            handshake_time: Duration::from_millis(500),
            ..Limits::default()
        };
    });
    (toybox, made)
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_and_both_protocols_are_spoken() {
    let dir = tempfile::tempdir().unwrap();
    let (toybox, made) = secured(dir.path());
    let addr = toybox.addr();
    tokio::task::spawn_blocking(move || {
        for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
            let config = Arc::new(client_config(&made.authority, &[version], &[]));
            let mut stream = connect(addr, &config, "localhost");
            let text = who(&mut stream).unwrap();
            assert!(
                text.contains("secure=true") && text.contains("scheme=https"),
                "{text}"
            );
            assert!(
                text.contains("strict-transport-security: max-age="),
                "{text}"
            );
            assert_eq!(stream.conn.protocol_version(), Some(version.version));
        }
        for alpn in [&b"h2"[..], b"http/1.1"] {
            let config = client_config(&made.authority, rustls::ALL_VERSIONS, &[alpn]);
            let mut stream = connect(addr, &Arc::new(config), "localhost");
            stream.conn.complete_io(&mut stream.sock).unwrap();
            assert_eq!(stream.conn.alpn_protocol(), Some(alpn));
        }
        // Who is not called so is not it.
        let config = Arc::new(client_config(&made.authority, rustls::ALL_VERSIONS, &[]));
        assert!(who(&mut connect(addr, &config, "other.example")).is_err());
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_breaks_no_connection() {
    let dir = tempfile::tempdir().unwrap();
    let (toybox, made) = secured(dir.path());
    let addr = toybox.addr();
    let tls = Arc::clone(toybox.running.tls().unwrap());
    let folder = dir.path().to_owned();
    tokio::task::spawn_blocking(move || {
        let config = Arc::new(client_config(&made.authority, rustls::ALL_VERSIONS, &[]));
        let mut old = connect(addr, &config, "localhost");
        who(&mut old).unwrap();
        let certificate_of = |stream: &Stream| stream.conn.peer_certificates().unwrap()[0].to_vec();
        let before = certificate_of(&old);
        let renewed = certificate(&folder, &["localhost", "new.example"]);
        assert_ne!(renewed.fingerprint, made.fingerprint);
        assert!(tls.reload().unwrap());
        assert_eq!(tls.fingerprint(), renewed.fingerprint);
        who(&mut old).unwrap();
        let fresh = Arc::new(client_config(&renewed.authority, rustls::ALL_VERSIONS, &[]));
        let mut new = connect(addr, &fresh, "new.example");
        who(&mut new).unwrap();
        assert_ne!(certificate_of(&new), before);
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_on_a_tls_port_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let (toybox, _) = secured(dir.path());
    let answer = toybox.client(|mut raw| raw.get("/v2/")).await;
    assert_eq!(answer.status, 400);
    assert!(answer.is_oci_error(), "{}", answer.text());
    assert!(answer.text().contains("https://"), "{}", answer.text());
    assert_eq!(*toybox.notes.handshakes.lock().unwrap(), ["plain-http"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_fail_are_counted_and_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (toybox, _) = secured(dir.path());
    // The beginning of a handshake and then nothing.
    toybox
        .client(|mut raw: Raw| {
            raw.send(b"\x16\x03\x01");
            assert!(raw.is_closed());
        })
        .await;
    assert_eq!(toybox.an_end().await, ConnectionEnd::HeaderTimeout);
    toybox
        .client(|mut raw: Raw| {
            raw.send(b"\x16\x03\x01\x00\x05hello");
            let mut rest = Vec::new();
            let _ = raw.socket.read_to_end(&mut rest);
        })
        .await;
    let reasons = super::http_support::eventually(|| {
        let reasons = toybox.notes.handshakes.lock().unwrap().clone();
        (reasons.len() == 2).then_some(reasons)
    })
    .await;
    assert_eq!(reasons, ["timeout", "protocol"]);
}

/// Spec: ERR-4.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_arrives_through_tls_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let (toybox, made) = secured(dir.path());
    let addr = toybox.addr();
    let text = tokio::task::spawn_blocking(move || {
        let config = Arc::new(client_config(&made.authority, rustls::ALL_VERSIONS, &[]));
        let mut stream = connect(addr, &config, "localhost");
        stream
            .write_all(
                b"PUT /refuse HTTP/1.1\r\nHost: localhost\r\nContent-Length: 104857600\r\n\r\n",
            )
            .unwrap();
        let piece = vec![0; 64 * 1024];
        for _ in 0..1600 {
            if stream.write_all(&piece).is_err() {
                break;
            }
        }
        // Not by `stream.read`, which insists on sending first what the server will not take any more.
        let mut text = Vec::new();
        while let Ok(1..) = stream.conn.read_tls(&mut stream.sock) {
            stream.conn.process_new_packets().unwrap();
            let _ = stream.conn.reader().read_to_end(&mut text);
        }
        String::from_utf8_lossy(&text).into_owned()
    })
    .await
    .unwrap();
    assert!(text.starts_with("HTTP/1.1 401"), "{text:?}");
    assert!(text.contains("UNAUTHORIZED"), "{text:?}");
}
