//! From options to a service: addresses, credentials, certificates, patience.
//!
//! Nothing is asked of the service here. Secrets stay in their fields: no `Debug` shows them.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::{GcpCredential, GoogleCloudStorageBuilder};
use object_store::signer::Signer;
use object_store::{
    BackoffConfig, Certificate, ClientOptions, RetryConfig, StaticCredentialProvider,
};

use super::gate::told;
use super::watch::{Seen, Watcher};
use super::{Backend, Object, Way};
use crate::error::{Error, Result};

/// Time for a connection to be made.
const CONNECT: Duration = Duration::from_secs(5);

/// Time in which something must arrive. There is no limit on a whole request: blobs take what they take.
const SILENCE: Duration = Duration::from_secs(30);

/// A request is repeated so often at most, with growing and random pauses between, …
const RETRIES: usize = 7;

/// … and for so long. Clients wait meanwhile; more patience than theirs would be lost on them.
const BUDGET: Duration = Duration::from_secs(25);

/// The same for a look at the store, which tells how it is and waits for nothing.
const HASTY: (usize, Duration) = (2, Duration::from_secs(3));

/// Where instances and containers get their credentials: each asks its own machine. A proxy would answer with what its own machine
/// is given, or not at all.
const METADATA: [&str; 4] = [
    "169.254.0.0/16",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "metadata.google.internal",
];

/// Which bucket, and how to reach it.
#[derive(Debug, Clone)]
pub struct ObjectOptions {
    /// The service.
    pub service: Service,
    /// Path in the bucket below which everything lies; may be empty.
    pub prefix: String,
    /// Bytes of a part, 5 MiB at least.
    pub part_size: u64,
    /// How connections are made.
    pub client: Client,
}

/// How connections to the service are made.
#[derive(Clone, Default)]
pub struct Client {
    /// PEM file with certificates to trust beside the system's.
    pub ca: Option<PathBuf>,
    /// URL of a proxy; it may hold a password.
    pub proxy: Option<String>,
    /// Whether a store that does not answer is soon given up.
    pub hasty: bool,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = match self.proxy {
            Some(_) => "through a proxy",
            None => "directly",
        };
        write!(f, "Client({how}, trusting {:?} too)", self.ca)
    }
}

/// The kinds of object stores.
#[derive(Debug, Clone)]
pub enum Service {
    /// Amazon's, and the many that speak its protocol.
    S3(S3),
    /// Google Cloud Storage.
    Gcs(Gcs),
    /// Azure Blob Storage.
    Azure(Azure),
}

impl Service {
    /// The section of the configuration that it comes from.
    pub fn section(&self) -> &'static str {
        match self {
            Self::S3(_) => "storage.s3",
            Self::Gcs(_) => "storage.gcs",
            Self::Azure(_) => "storage.azure",
        }
    }

    /// The key that its host follows from, if no endpoint is named.
    fn host(&self) -> Option<&'static str> {
        let (endpoint, key) = match self {
            Self::S3(s3) => (&s3.endpoint, "region"),
            Self::Gcs(gcs) => (&gcs.endpoint, "endpoint"),
            Self::Azure(azure) => (&azure.endpoint, "account"),
        };
        endpoint.is_none().then_some(key)
    }
}

/// A bucket behind the S3 protocol.
#[derive(Debug, Clone, Default)]
pub struct S3 {
    /// Its name.
    pub bucket: String,
    /// The service's URL; unset: Amazon's for the region.
    pub endpoint: Option<String>,
    /// The URL under which clients reach the service, for redirects; unset: `endpoint`.
    pub public_endpoint: Option<String>,
    /// Unset: us-east-1, which most other services take for their own.
    pub region: Option<String>,
    /// The bucket is in the path, not in the host name.
    pub path_style: bool,
    /// Who we are.
    pub credentials: Credentials,
    /// What the service encrypts with.
    pub encryption: Encryption,
    /// Checksum of CRC-64/NVME in each request with bytes, which the service verifies and keeps.
    pub checksum: bool,
}

/// Who we are to an S3 service.
#[derive(Clone, Default)]
pub enum Credentials {
    /// As the environment says: keys in variables, a web identity (`AWS_WEB_IDENTITY_TOKEN_FILE`), a container's
    /// credentials, at last those of the instance.
    #[default]
    Chain,
    /// A fixed pair.
    Static {
        /// Not secret.
        access_key_id: String,
        /// Secret.
        secret_access_key: String,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain => f.write_str("Chain"),
            Self::Static { access_key_id, .. } => write!(f, "Static({access_key_id})"),
        }
    }
}

/// What the service encrypts objects with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Encryption {
    /// What the bucket is set to.
    #[default]
    Bucket,
    /// Keys that the service manages (SSE-S3).
    S3,
    /// A key of its key service (SSE-KMS).
    Kms(String),
}

/// A bucket of Google Cloud Storage.
#[derive(Debug, Clone, Default)]
pub struct Gcs {
    /// Its name.
    pub bucket: String,
    /// The service's URL; unset: Google's.
    pub endpoint: Option<String>,
    /// JSON file of a service account; unset: the application's default credentials, at last the instance's.
    pub service_account: Option<PathBuf>,
    /// No credentials at all: for emulators.
    pub anonymous: bool,
}

/// A container of Azure Blob Storage.
#[derive(Clone, Default)]
pub struct Azure {
    /// The storage account.
    pub account: String,
    /// The container.
    pub container: String,
    /// The account's key; unset: a workload's or the instance's identity.
    pub access_key: Option<String>,
    /// The service's URL; unset: Azure's for the account.
    pub endpoint: Option<String>,
}

impl fmt::Debug for Azure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Azure({}/{} at {:?})",
            self.account, self.container, self.endpoint
        )
    }
}

impl Backend {
    /// The service that the options name. Nothing is asked of it yet.
    pub fn open(options: &ObjectOptions) -> Result<Self> {
        Self::watched(options, &Arc::default())
    }

    fn watched(options: &ObjectOptions, seen: &Arc<Seen>) -> Result<Self> {
        let client = &options.client;
        match &options.service {
            Service::S3(s3) => s3.connect(client, seen),
            Service::Gcs(gcs) => gcs.connect(client, seen),
            Service::Azure(azure) => azure.connect(client, seen),
        }
    }
}

impl Object {
    /// A store in the bucket that the options name. Nothing is asked of the service yet.
    pub fn open(options: &ObjectOptions) -> Result<Self> {
        let seen = Arc::<Seen>::default();
        let backend = Backend::watched(options, &seen)?;
        let mut store = Self::over(backend, &options.prefix, options.part_size)?;
        store.section = options.service.section();
        store.region = match &options.service {
            Service::S3(s3) => s3.region.clone(),
            Service::Gcs(_) | Service::Azure(_) => None,
        };
        store.way = Way {
            host: options.service.host(),
            proxied: options.client.proxy.is_some(),
        };
        store.seen = seen;
        Ok(store)
    }
}

/// What was written under this key is of no use.
fn refused(key: &str) -> impl Fn(object_store::Error) -> Error {
    let key = key.to_owned();
    move |error| Error::Setup {
        key: key.clone(),
        problem: format!("it cannot be used: {}", said(&error)),
    }
}

/// Without what the client library puts before everything.
fn said(error: &object_store::Error) -> String {
    match error {
        object_store::Error::Generic { source, .. } => told(source.as_ref()),
        other => told(other),
    }
}

fn retry(client: &Client) -> RetryConfig {
    let (max_retries, retry_timeout) = match client.hasty {
        true => HASTY,
        false => (RETRIES, BUDGET),
    };
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries,
        retry_timeout,
    }
}

impl Client {
    fn options(&self, endpoint: Option<&str>) -> Result<ClientOptions> {
        let mut options = ClientOptions::new()
            .with_allow_http(is_plain(endpoint))
            .with_timeout_disabled()
            .with_connect_timeout(CONNECT)
            .with_read_timeout(SILENCE);
        if let Some(path) = &self.ca {
            let setup = |problem: String| Error::Setup {
                key: "storage.ca".to_owned(),
                problem: format!("{} {problem}", path.display()),
            };
            let pem = std::fs::read(path);
            let pem = pem.map_err(|error| setup(format!("cannot be read: {error}")))?;
            let found = Certificate::from_pem_bundle(&pem)
                .map_err(|error| setup(format!("is no file in PEM format: {}", told(&error))))?;
            if found.is_empty() {
                return Err(setup("holds no certificate in PEM format".to_owned()));
            }
            for certificate in found {
                options = options.with_root_certificate(certificate);
            }
        }
        if let Some(proxy) = &self.proxy {
            options = options
                .with_proxy_url(proxy)
                .with_proxy_excludes(METADATA.join(","));
        }
        Ok(options)
    }
}

fn region_of_environment() -> Option<String> {
    let said = |name| {
        std::env::var(name)
            .ok()
            .filter(|said: &String| !said.is_empty())
    };
    said("AWS_REGION").or_else(|| said("AWS_DEFAULT_REGION"))
}

fn is_plain(endpoint: Option<&str>) -> bool {
    let scheme = endpoint.and_then(|url| url.split_once("://"));
    scheme.is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case("http"))
}

/// A part of a host name: the client library expects that what it makes of it is a URL.
fn is_label(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    !text.is_empty() && text.bytes().all(fits)
}

impl S3 {
    fn builder(
        &self,
        client: &Client,
        seen: &Arc<Seen>,
        endpoint: Option<&str>,
    ) -> Result<AmazonS3> {
        let unfit = |key: &str, problem: String| {
            let key = format!("storage.s3.{key}");
            Err(Error::Setup { key, problem })
        };
        if !is_label(&self.bucket) {
            let problem = "this is no name that a bucket can have; correct it";
            return unfit("bucket", problem.to_owned());
        }
        if self.region.as_ref().is_some_and(|region| !is_label(region)) {
            let problem = "this is no name that a region can have; correct it";
            return unfit("region", problem.to_owned());
        }
        let address = endpoint.and_then(address).filter(|_| !self.path_style);
        if let Some(address) = address {
            return unfit(
                "path_style",
                format!(
                    "the bucket cannot stand before the address {address} in a host name; set it to true"
                ),
            );
        }
        let mut builder = match &self.credentials {
            Credentials::Chain => AmazonS3Builder::from_env(),
            Credentials::Static {
                access_key_id,
                secret_access_key,
            } => AmazonS3Builder::new()
                .with_access_key_id(access_key_id)
                .with_secret_access_key(secret_access_key),
        };
        if let Some(endpoint) = endpoint {
            // The client library wants the bucket in the host of an endpoint, if it shall be there.
            let endpoint = match self.path_style {
                true => endpoint.trim_end_matches('/').to_owned(),
                false => hosted(endpoint, &self.bucket),
            };
            // Both, or a variable of the environment would go before what is configured.
            let key: AmazonS3ConfigKey = "aws_endpoint_url_s3"
                .parse()
                .map_err(refused("storage.s3.endpoint"))?;
            builder = builder.with_endpoint(&endpoint).with_config(key, &endpoint);
        }
        if let Some(region) = &self.region {
            builder = builder.with_region(region);
        } else if let Some(region) = region_of_environment() {
            // With fixed credentials nothing else is taken from there.
            builder = builder.with_region(region);
        }
        match &self.encryption {
            Encryption::Bucket => {}
            Encryption::S3 => {
                let key: AmazonS3ConfigKey = "aws_server_side_encryption"
                    .parse()
                    .map_err(refused("storage.s3.sse"))?;
                builder = builder.with_config(key, "AES256");
            }
            Encryption::Kms(key) => builder = builder.with_sse_kms_encryption(key),
        }
        if self.checksum {
            builder = builder.with_checksum_algorithm(Checksum::CRC64NVME);
        }
        builder
            .with_bucket_name(&self.bucket)
            .with_virtual_hosted_style_request(!self.path_style)
            // Within TLS nobody changes bytes on the way; without it the signature covers them.
            .with_unsigned_payload(!is_plain(endpoint))
            // Keys are fresh, so nothing is overwritten; deletes of one object are enough.
            .with_disable_bulk_delete(true)
            .with_http_connector(Watcher(seen.clone()))
            .with_retry(retry(client))
            .with_client_options(client.options(endpoint)?)
            .build()
            .map_err(refused("storage.s3"))
    }

    fn connect(&self, client: &Client, seen: &Arc<Seen>) -> Result<Backend> {
        let store = Arc::new(self.builder(client, seen, self.endpoint.as_deref())?);
        let signer: Arc<dyn Signer> = match &self.public_endpoint {
            Some(public) => Arc::new(self.builder(client, seen, Some(public))?),
            None => store.clone(),
        };
        Ok(Backend {
            store: store.clone(),
            parts: store,
            signer: Some(signer),
        })
    }
}

/// The host of a URL, if it is an address and no name.
fn address(endpoint: &str) -> Option<IpAddr> {
    let uri = endpoint.parse::<http::Uri>().ok()?;
    let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
    host.parse().ok()
}

/// `https://host` becomes `https://bucket.host`.
fn hosted(endpoint: &str, bucket: &str) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    match endpoint.split_once("://") {
        Some((scheme, host)) if !host.starts_with(&format!("{bucket}.")) => {
            format!("{scheme}://{bucket}.{host}")
        }
        _ => endpoint.to_owned(),
    }
}

impl Gcs {
    fn connect(&self, client: &Client, seen: &Arc<Seen>) -> Result<Backend> {
        let mut builder = match (&self.service_account, self.anonymous) {
            (Some(path), _) => {
                GoogleCloudStorageBuilder::new().with_service_account_path(path.to_string_lossy())
            }
            // The client library asks for a token all the same where it writes: an empty one.
            (None, true) => GoogleCloudStorageBuilder::new()
                .with_skip_signature(true)
                .with_credentials(Arc::new(StaticCredentialProvider::new(GcpCredential {
                    bearer: String::new(),
                }))),
            (None, false) => GoogleCloudStorageBuilder::from_env(),
        };
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_base_url(endpoint);
        }
        let store = builder
            .with_bucket_name(&self.bucket)
            .with_http_connector(Watcher(seen.clone()))
            .with_retry(retry(client))
            .with_client_options(client.options(self.endpoint.as_deref())?)
            .build();
        let key = match self.service_account {
            Some(_) => "storage.gcs.service_account",
            None => "storage.gcs",
        };
        let store = Arc::new(store.map_err(refused(key))?);
        let signer = (!self.anonymous).then(|| store.clone() as Arc<dyn Signer>);
        Ok(Backend {
            store: store.clone(),
            parts: store,
            signer,
        })
    }
}

impl Azure {
    fn connect(&self, client: &Client, seen: &Arc<Seen>) -> Result<Backend> {
        let mut builder = match &self.access_key {
            Some(key) => MicrosoftAzureBuilder::new().with_access_key(key),
            None => MicrosoftAzureBuilder::from_env(),
        };
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let store = builder
            .with_account(&self.account)
            .with_container_name(&self.container)
            .with_allow_http(is_plain(self.endpoint.as_deref()))
            .with_http_connector(Watcher(seen.clone()))
            .with_retry(retry(client))
            .with_client_options(client.options(self.endpoint.as_deref())?)
            .build();
        let key = match self.access_key {
            Some(_) => "storage.azure.access_key",
            None => "storage.azure",
        };
        let store = Arc::new(store.map_err(refused(key))?);
        Ok(Backend {
            store: store.clone(),
            parts: store.clone(),
            signer: Some(store),
        })
    }
}

#[cfg(test)]
mod tests {
    use object_store::ClientConfigKey;

    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let s3 = S3 {
            credentials: Credentials::Static {
                access_key_id: "visible".into(),
                secret_access_key: "hidden".into(),
            },
            ..S3::default()
        };
        let azure = Azure {
            access_key: Some("hidden".into()),
            ..Azure::default()
        };
        let client = Client {
            proxy: Some("http://user:hidden@proxy.example".into()),
            ..Client::default()
        };
        let shown = format!("{s3:?} {azure:?} {client:?}");
        assert!(
            shown.contains("visible") && !shown.contains("hidden"),
            "{shown}"
        );
    }

    /// Nobody but this machine knows what it is given.
    #[test]
    fn credentials_of_the_instance_are_asked_for_without_the_proxy() {
        let client = Client {
            proxy: Some("http://proxy.example".into()),
            ..Client::default()
        };
        let options = client.options(None).unwrap();
        let excluded = options.get_config_value(&ClientConfigKey::ProxyExcludes);
        let excluded = excluded.unwrap();
        for host in ["169.254.0.0/16", "metadata.google.internal"] {
            assert!(excluded.split(',').any(|found| found == host), "{excluded}");
        }
    }

    /// Else the client library panics at the first request.
    #[test]
    fn what_makes_no_host_name_is_told_with_its_key() {
        let good = S3 {
            bucket: "b".into(),
            endpoint: Some("HTTP://s3.example:9000".into()),
            credentials: Credentials::Static {
                access_key_id: "a".into(),
                secret_access_key: "s".into(),
            },
            ..S3::default()
        };
        let open = |s3: &S3| {
            let opened = s3.connect(&Client::default(), &Arc::default());
            opened.map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(open(&good), Ok(()));
        let at = |endpoint: &str| S3 {
            endpoint: Some(endpoint.into()),
            ..good.clone()
        };
        for endpoint in ["http://127.0.0.1:9000", "https://[::1]"] {
            let told = open(&at(endpoint)).unwrap_err();
            assert!(
                told.starts_with("`storage.s3.path_style`: ") && told.contains("set it to true"),
                "{told}"
            );
            let path_style = true;
            assert_eq!(
                open(&S3 {
                    path_style,
                    ..at(endpoint)
                }),
                Ok(())
            );
        }
        let bucket = "my bucket".into();
        let told = open(&S3 {
            bucket,
            ..good.clone()
        })
        .unwrap_err();
        assert!(told.starts_with("`storage.s3.bucket`: "), "{told}");
        let region = Some("eu/1".into());
        let told = open(&S3 {
            region,
            ..good.clone()
        })
        .unwrap_err();
        assert!(told.starts_with("`storage.s3.region`: "), "{told}");
    }

    #[test]
    fn the_bucket_goes_into_the_host_once() {
        assert_eq!(hosted("https://s3.example/", "b"), "https://b.s3.example");
        assert_eq!(hosted("https://b.s3.example", "b"), "https://b.s3.example");
    }
}
