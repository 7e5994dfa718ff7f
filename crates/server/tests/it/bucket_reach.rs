//! Ways to reach a bucket: a proxy, a private authority, and each place that credentials come from; and what is asked of the
//! service beside the bytes: encryption and checksums.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use wharf_testkit::s3::{Kind, S3};
use wharf_testkit::{Ca, Content, Identity, TestOptions, TestServer, Version};

const WHARF: &str = env!("CARGO_BIN_EXE_wharf");

/// A bucket with nothing in it.
const EMPTY: &str = "<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated><KeyCount>0</KeyCount></ListBucketResult>";
/// The same by Azure.
const NO_BLOBS: &str =
    "<?xml version=\"1.0\"?><EnumerationResults><Blobs/><NextMarker/></EnumerationResults>";
const NOTHING: &str = "<Error><Code>NoSuchKey</Code><Message>none</Message></Error>";

/// What all that give credentials for a while say.
const LENT: &str = r#"{"AccessKeyId":"lent-key","SecretAccessKey":"s","Token":"lent-token","Expiration":"2099-01-01T00:00:00Z"}"#;

/// An answer to each request that a store, a proxy or a giver of credentials gets here: all of them are one server.
fn answer(request: &str) -> (u16, &'static str) {
    let line = request.lines().next().unwrap_or_default();
    match line {
        _ if line.contains("AssumeRoleWithWebIdentity") => (
            200,
            "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>lent-key\
             </AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>lent-token</SessionToken>\
             <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
             </AssumeRoleWithWebIdentityResponse>",
        ),
        _ if line.contains("/latest/api/token") => (200, "instance-token"),
        _ if line.contains("/security-credentials/ ") => (200, "role"),
        _ if line.contains("/security-credentials/role") || line.contains("/given") => (200, LENT),
        _ if line.contains("wharf-installation") || line.contains("wharf%2Dinstallation") => {
            (404, NOTHING)
        }
        _ if line.contains("comp=list") => (200, NO_BLOBS),
        _ => (200, EMPTY),
    }
}

/// A server that answers each connection's one request and keeps what it was asked.
struct Service {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

fn serve(stream: &mut dyn Stream, asked: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        request.push(byte[0]);
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let (status, body) = answer(&request);
    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    asked.push(request);
    drop(asked);
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} Said\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    stream.flush()
}

impl Service {
    fn start(ca: Option<&Ca>) -> Self {
        Self::start_with(ca.map(Ca::issue))
    }

    fn start_with(identity: Option<Identity>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let tls = identity.map(|identity| {
            let chain = vec![CertificateDer::from_pem_slice(identity.cert.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).unwrap();
            let config = rustls::ServerConfig::builder().with_no_client_auth();
            Arc::new(config.with_single_cert(chain, key).unwrap())
        });
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let kept = asked.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (tls, asked) = (tls.clone(), kept.clone());
                // A peer that trusts nobody here ends its connection.
                std::thread::spawn(move || match tls {
                    None => serve(&mut { socket }, &asked).ok(),
                    Some(tls) => {
                        let tls = rustls::ServerConnection::new(tls).unwrap();
                        let mut stream = rustls::StreamOwned::new(tls, socket);
                        let served = serve(&mut stream, &asked).ok();
                        stream.conn.send_close_notify();
                        let _ = stream.conn.complete_io(&mut stream.sock);
                        served
                    }
                });
            }
        });
        Self { port, asked }
    }

    /// What it was asked since this was last called.
    fn take(&self) -> Vec<String> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *asked)
    }

    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://localhost:{}", self.port)
    }
}

/// A folder to run `wharf config check --online` in.
struct Check {
    folder: TempDir,
}

impl Check {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder }
    }

    fn put(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// With nothing in its environment but this.
    fn run(&self, storage: &str, environment: &[(&str, &str)]) -> (i32, String) {
        let kind = match storage.split_once("[storage.") {
            Some((_, section)) => section.split(']').next().unwrap(),
            None => "s3",
        };
        let config = format!("[storage]\nkind = {kind:?}\n{storage}");
        self.put("wharf.toml", &config);
        let mut command = Command::new(WHARF);
        command.args(["config", "check", "--online", "--config", "wharf.toml"]);
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_clear().envs(environment.iter().copied());
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.code().unwrap_or(-1),
            String::from_utf8(text).unwrap(),
        )
    }

    /// The bucket was asked, and found to be empty.
    fn finds(&self, storage: &str, environment: &[(&str, &str)]) {
        let (code, told) = self.run(storage, environment);
        assert_eq!(code, 0, "{told}");
        assert!(
            told.contains("The bucket can be used: it is empty"),
            "{told}"
        );
    }
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().find_map(|line| {
        let (found, value) = line.split_once(": ")?;
        found.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// All requests to the bucket among these are signed with the credentials that were lent.
fn signed_with_what_was_lent(asked: &[String]) {
    let to_bucket = |request: &&String| {
        request
            .split(' ')
            .nth(1)
            .is_some_and(|path| path.starts_with("/b"))
    };
    let asked: Vec<_> = asked.iter().filter(to_bucket).collect();
    assert!(!asked.is_empty());
    for request in asked {
        let signed = header(request, "authorization").unwrap_or_default();
        assert!(signed.contains("Credential=lent-key/"), "{request}");
        assert_eq!(header(request, "x-amz-security-token"), Some("lent-token"));
    }
}

/// A bucket of each kind at this address.
fn buckets(endpoint: &str) -> [String; 3] {
    let s3 =
        "bucket = \"b\"\npath_style = true\naccess_key_id = \"a\"\nsecret_access_key = \"s\"\n";
    let gcs = "bucket = \"b\"\nanonymous = true\n";
    let azure = "account = \"someone\"\ncontainer = \"b\"\naccess_key = \"c2VjcmV0\"\n";
    let kinds = [("s3", s3), ("gcs", gcs), ("azure", azure)];
    kinds.map(|(kind, keys)| format!("[storage.{kind}]\nendpoint = {endpoint:?}\n{keys}"))
}

/// The host has no address: only the proxy can have been asked, with what it wants to hear.
#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_behind_a_proxy_is_asked_through_it() {
    let (check, proxy) = (Check::new(), Service::start(None));
    for section in buckets("http://store.example.invalid:9000") {
        let storage = format!(
            "proxy = \"http://someone:pass@127.0.0.1:{}\"\n{section}",
            proxy.port
        );
        check.finds(&storage, &[]);
        let asked = proxy.take();
        assert!(!asked.is_empty(), "{section}");
        for request in asked {
            assert!(
                request.starts_with("GET http://store.example.invalid:9000/b"),
                "{request}"
            );
            // someone:pass
            assert_eq!(
                header(&request, "proxy-authorization"),
                Some("Basic c29tZW9uZTpwYXNz")
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_of_the_store_is_trusted_when_it_is_named() {
    let (check, ca) = (Check::new(), Ca::new());
    let service = Service::start(Some(&ca));
    let file = check.put("ca.pem", &ca.pem());
    let other = check.put("other.pem", &Ca::new().pem());
    for section in buckets(&service.url("https")) {
        let (code, told) = check.run(&section, &[]);
        assert_eq!(code, 3, "{told}");
        assert!(
            told.contains("its certificate is not trusted") && told.contains("`storage.ca`"),
            "{told}"
        );
        assert_eq!(service.take(), Vec::<String>::new(), "{section}");
        check.finds(&format!("ca = {file:?}\n{section}"), &[]);
        assert!(!service.take().is_empty());
        let (code, told) = check.run(&format!("ca = {other:?}\n{section}"), &[]);
        assert_eq!(code, 3, "{told}");
    }
}

/// To name an authority would not help: the time is why.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_time_is_told_from_one_of_a_stranger() {
    let (check, ca) = (Check::new(), Ca::new());
    let file = check.put("ca.pem", &ca.pem());
    for years in [(2001, 2002), (4000, 4001)] {
        let service = Service::start_with(Some(ca.issue_in(years)));
        let [section, ..] = buckets(&service.url("https"));
        let (code, told) = check.run(&format!("ca = {file:?}\n{section}"), &[]);
        assert_eq!(code, 3, "{told}");
        assert!(
            told.contains("`storage.s3.endpoint`: its certificate is not valid at the time of this machine's clock; set the"),
            "{told}"
        );
    }
}

/// The proxy is why, and not the store behind it.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_not_there_or_wants_a_password_is_named() {
    let check = Check::new();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = nobody.local_addr().unwrap();
    drop(nobody);
    let guarded = TcpListener::bind("127.0.0.1:0").unwrap();
    let guard = guarded.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut socket in guarded.incoming().flatten() {
            let mut request = [0; 4096];
            let _ = socket.read(&mut request);
            let _ = socket.write_all(
                b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            );
        }
    });
    for (proxy, sentence) in [
        (dead, "nobody answers by way of the proxy"),
        (guard, "the proxy wants a user and a password"),
    ] {
        for scheme in ["http", "https"] {
            let [section, ..] = buckets(&format!("{scheme}://store.example.invalid:9000"));
            let storage = format!("proxy = \"http://{proxy}\"\n{section}");
            let (code, told) = check.run(&storage, &[]);
            assert_eq!(code, 3, "{told}");
            assert!(
                told.contains(&format!("`storage.proxy`: {sentence}")),
                "{scheme}: {told}"
            );
        }
    }
}

/// Without keys in the configuration: variables, a web identity, a container, an instance, in this order.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_come_from_where_the_environment_says() {
    let (check, ca) = (Check::new(), Ca::new());
    let (service, sts) = (Service::start(None), Service::start(Some(&ca)));
    let (url, sts_url) = (service.url("http"), sts.url("https"));
    let file = check.put("ca.pem", &ca.pem());
    let token = check.put("token", "token of the container");
    let token = token.to_str().unwrap();
    let storage = format!(
        "ca = {file:?}\n[storage.s3]\nbucket = \"b\"\npath_style = true\nendpoint = {url:?}\n"
    );
    let given = format!("{url}/given");
    let instance = ("AWS_METADATA_ENDPOINT", url.as_str());
    let container = [
        instance,
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &given),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token),
    ];
    let web = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/wharf"),
        ("AWS_ENDPOINT_URL_STS", &sts_url),
    ];
    let variables = [
        ("AWS_ACCESS_KEY_ID", "plain"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
    ];

    check.finds(&storage, &[instance]);
    let asked = service.take();
    let with_token = asked
        .iter()
        .filter(|request| request.contains("/security-credentials/"));
    for request in with_token {
        assert_eq!(
            header(request, "x-aws-ec2-metadata-token"),
            Some("instance-token")
        );
    }
    signed_with_what_was_lent(&asked);

    check.finds(&storage, &container);
    let asked = service.take();
    let of_container = asked
        .iter()
        .find(|request| request.starts_with("GET /given "));
    let said = header(of_container.unwrap(), "authorization");
    assert_eq!(said, Some("token of the container"));
    assert!(!asked.iter().any(|request| request.contains("/latest/")));
    signed_with_what_was_lent(&asked);

    check.finds(&storage, &[&container[..], &web[..]].concat());
    let asked = service.take();
    assert!(!asked.iter().any(|request| request.contains("/given")));
    signed_with_what_was_lent(&asked);
    assert!(sts.take()[0].contains("WebIdentityToken=token"));

    check.finds(
        &storage,
        &[&container[..], &web[..], &variables[..]].concat(),
    );
    for request in service.take() {
        assert!(
            header(&request, "authorization")
                .unwrap()
                .contains("Credential=plain/")
        );
    }
    assert_eq!(sts.take(), Vec::<String>::new());
}

/// What the configuration says counts; what it leaves open, the environment says.
#[tokio::test(flavor = "multi_thread")]
async fn the_configuration_goes_before_the_environment() {
    let (check, service, other) = (Check::new(), Service::start(None), Service::start(None));
    let elsewhere = other.url("http");
    let keys = "access_key_id = \"a\"\nsecret_access_key = \"s\"\n";
    let s3 = format!(
        "[storage.s3]\nbucket = \"b\"\npath_style = true\nendpoint = {:?}\n",
        service.url("http")
    );
    let environment = [
        ("AWS_ACCESS_KEY_ID", "b"),
        ("AWS_SECRET_ACCESS_KEY", "t"),
        ("AWS_ENDPOINT", &elsewhere),
        ("AWS_ENDPOINT_URL", &elsewhere),
        ("AWS_ENDPOINT_URL_S3", &elsewhere),
        ("AWS_REGION", "eu-test-7"),
    ];
    let cases = [
        (format!("{s3}{keys}"), "Credential=a/", "/eu-test-7/"),
        (s3.clone(), "Credential=b/", "/eu-test-7/"),
        (
            format!("{s3}region = \"us-test-1\"\n"),
            "Credential=b/",
            "/us-test-1/",
        ),
        (
            format!("{s3}{keys}region = \"us-test-1\"\n"),
            "Credential=a/",
            "/us-test-1/",
        ),
    ];
    for (storage, key, region) in cases {
        check.finds(&storage, &environment);
        let asked = service.take();
        assert!(!asked.is_empty());
        for request in asked {
            let signed = header(&request, "authorization").unwrap();
            assert!(
                signed.contains(key) && signed.contains(region),
                "{storage}: {signed}"
            );
        }
        assert_eq!(other.take(), Vec::<String>::new(), "{storage}");
    }
}

/// A blob in parts and one in a piece, with what the section says besides: the headers of its requests.
async fn heads(section: &str) -> Arc<S3> {
    let s3 = Arc::new(S3::start().await);
    s3.record();
    let server = TestServer::start(TestOptions {
        s3: Some(s3.clone()),
        config: section.to_owned(),
        ..TestOptions::default()
    })
    .await;
    let client = server.admin(Version::Http1);
    for content in [Content::random(12_000_000), Content::random(500_000)] {
        client.push_blob("team/app", &content).await;
        let target = format!("/v2/team/app/blobs/{}", content.digest);
        let pulled = client.get(&target).send().await.expect_status(200);
        assert!(pulled.body == content.bytes);
    }
    for kind in [Kind::Put, Kind::Begin, Kind::Part, Kind::Complete] {
        assert!(!s3.heads(kind).is_empty(), "{kind:?}");
    }
    s3
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_is_told_to_encrypt_and_to_check() {
    const SSE: &str = "x-amz-server-side-encryption";
    const KEY: &str = "x-amz-server-side-encryption-aws-kms-key-id";
    const SUM: &str = "x-amz-checksum-crc64nvme";
    let all_say = |s3: &S3, kind: Kind, name: &str, value: Option<&str>| {
        for head in s3.heads(kind) {
            let found = head.get(name).map(|found| found.to_str().unwrap());
            assert_eq!(found, value, "{kind:?} {name}");
        }
    };
    let s3 = heads("").await;
    for kind in [Kind::Put, Kind::Begin, Kind::Part] {
        all_say(&s3, kind, SSE, None);
        all_say(&s3, kind, SUM, None);
    }
    let s3 = heads("[storage.s3]\nsse = true\n").await;
    for kind in [Kind::Put, Kind::Begin] {
        all_say(&s3, kind, SSE, Some("AES256"));
        all_say(&s3, kind, KEY, None);
    }
    let s3 = heads("[storage.s3]\nsse_kms_key = \"arn:aws:kms:k\"\n").await;
    for kind in [Kind::Put, Kind::Begin] {
        all_say(&s3, kind, SSE, Some("aws:kms"));
        all_say(&s3, kind, KEY, Some("arn:aws:kms:k"));
    }
    // A part says nothing of it, and services refuse one that does.
    all_say(&s3, Kind::Part, SSE, None);
    let s3 = heads("[storage.s3]\nchecksum = true\n").await;
    all_say(
        &s3,
        Kind::Begin,
        "x-amz-checksum-algorithm",
        Some("CRC64NVME"),
    );
    for kind in [Kind::Put, Kind::Part] {
        for head in s3.heads(kind) {
            assert!(head.contains_key(SUM), "{kind:?}");
        }
    }
}
