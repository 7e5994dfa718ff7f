//! Whose bucket it is: an object that names the installation, and what is wrong when it can't be had.
//!
//! Called at a start and by `wharf config check --online`. Nothing is written into a bucket that is not empty and has
//! no mark, nor into one with another mark.

use std::time::Duration;

use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::Object;
use super::gate::{Call, NO_BUCKET, said, told};
use crate::error::Error;
use crate::owner::{Ground, MARK, Owned, OwnerError, is_mark};

/// Longest mark that is looked at.
const LENGTH: u64 = 200;

/// The mark is tried so often while the service says that another one is being made, …
const CONFLICTS: u32 = 20;

/// … with such pauses.
const CONFLICT: Duration = Duration::from_millis(250);

/// Where writes have no conditions: time in which whoever saw an empty bucket has written its mark.
const SETTLE: Duration = Duration::from_secs(5);

/// A clock that is off by so many seconds is why a request was refused. Google allows for 5 minutes, others for 15.
const FAR: i64 = 280;

/// What services say of the time in a request.
const SKEWED: [&str; 4] = [
    "RequestTimeTooSkewed",
    "RequestExpired",
    "Request date header too old",
    "in a reasonable timeframe",
];

/// What services say of a bucket in another region.
const ELSEWHERE: [&str; 7] = [
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "TemporaryRedirect",
    "IllegalLocationConstraint",
    "without LOCATION",
    "status code: 301",
    "status code: 307",
];

type Saying = (&'static [&'static str], &'static str, &'static str);

/// What services refuse with, the key to look at, and the cure.
const SAYINGS: [Saying; 6] = [
    (
        &[
            "169.254.169.254",
            "169.254.170.2",
            "metadata.google.internal",
        ],
        "access_key_id",
        "no credentials are configured, and neither the environment nor an instance gives any; name those that the store's \
         administrator made",
    ),
    (
        &[
            "InvalidAccessKeyId",
            "NotSignedUp",
            "AuthenticationFailed",
            "failed to authenticate the request",
            "invalid_grant",
            "InvalidAuthenticationInfo",
        ],
        "access_key_id",
        "the store does not know these credentials; take those that its administrator made",
    ),
    (
        &["SignatureDoesNotMatch"],
        "secret_access_key",
        "it is not the secret of that access key; look for a cut or added character",
    ),
    (
        &["ExpiredToken", "InvalidToken", "TokenRefreshRequired"],
        "access_key_id",
        "the credentials are valid no more; have new ones made, or let the instance or the web identity give them",
    ),
    (
        &["InvalidBucketName", "InvalidResourceName"],
        "bucket",
        "this is no name that a bucket can have; correct it",
    ),
    (
        &NO_BUCKET,
        "bucket",
        "there is no bucket of this name; make it, Wharf does not",
    ),
];

const RIGHTS: &str = "the credentials may not use it; they need the rights to get, put, delete and list objects, and to make, list and \
                      abort multipart uploads";

/// The same where reading went well.
const READ_ONLY: &str = "the credentials may read it and not write to it, so nothing can be pushed; give them the rights to put and delete \
                         objects, and to make, list and abort multipart uploads";

/// What a proxy refuses with.
const AT_PROXY: [&str; 2] = ["proxy authorization required", "status code: 407"];

const AT_PROXY_CURE: &str = "the proxy wants a user and a password; write those that it knows into its URL (http://USER:PASSWORD@HOST:PORT)";

const NO_PROXY: &str = "nobody answers by way of the proxy; see that this is its address, that it may reach the store, and that the store runs";

const NO_ADDRESS: &[&str] = &["dns error", "failed to lookup"];
const NO_ANSWER: &[&str] = &["(Connect)", "onnection refused", "timed out"];

/// The cure where the host was not named, but follows from this key.
fn no_address(host: &str) -> &'static str {
    match host {
        "region" => {
            "no address is known for Amazon's service in this region; correct the region, name the `endpoint` of another service, \
             or see that this machine can look up names"
        }
        "account" => {
            "no address is known for this account; correct its name, or see that this machine can look up names"
        }
        _ => "no address is known for Google's service; see that this machine can look up names",
    }
}

/// What connections fail with.
const NETWORK: [Saying; 6] = [
    (
        &["InvalidContentType", "corrupt message"],
        "endpoint",
        "what answers there speaks no TLS; write http://, or name the port that does",
    ),
    (
        &["HTTP request to an HTTPS server", "sent to HTTPS port"],
        "endpoint",
        "what answers there speaks TLS only; write https://",
    ),
    (
        &["certificate expired", "certificate not valid yet"],
        "endpoint",
        "its certificate is not valid at the time of this machine's clock; set the clock (NTP), or renew the certificate",
    ),
    (
        &["certificate", "UnknownIssuer"],
        "endpoint",
        "its certificate is not trusted; name the authority in `storage.ca`, and the host as the certificate does",
    ),
    (
        NO_ADDRESS,
        "endpoint",
        "no address is known for its host; correct the name",
    ),
    (
        NO_ANSWER,
        "endpoint",
        "nobody answers there; start the store, or correct the address",
    ),
];

impl Ground for Object {
    async fn owned_by(&self, installation: &str) -> Result<Owned, OwnerError> {
        match self.mark().await? {
            Some(mark) if mark == installation => Ok(Owned::Ours),
            Some(mark) => Err(self.foreign(&mark)),
            None if self.is_empty().await? => Ok(Owned::Free),
            // What made it not empty may be a mark, written between the two looks.
            None => Err(match self.mark().await? {
                Some(mark) if mark == installation => return Ok(Owned::Ours),
                Some(mark) => self.foreign(&mark),
                None => self.unmarked(),
            }),
        }
    }

    async fn owner(&self) -> Result<Option<String>, OwnerError> {
        match self.mark().await? {
            Some(mark) if is_mark(&mark) => Ok(Some(mark)),
            _ => self.owned_by("").await.map(|_| None),
        }
    }

    async fn take(&self, installation: &str) -> Result<(), OwnerError> {
        let gate = &self.engine.gate;
        let what = || format!("writing {MARK}");
        let mut created = Ok(());
        for _ in 0..CONFLICTS {
            let request = self.put_mark(installation, PutMode::Create);
            created = gate.pass(Call::Put, what, request).await;
            match self.mark().await? {
                Some(mark) if mark == installation => break,
                Some(mark) => return Err(self.foreign(&mark)),
                // Another one is under way, or just went.
                None if created.as_ref().is_err_and(is_conflict) => {
                    tokio::time::sleep(CONFLICT).await;
                }
                None => break,
            }
        }
        let settled = match created {
            // A service that takes it twice does not know of conditions, and says nothing of that.
            Ok(()) => {
                let again = self.put_mark(installation, PutMode::Create);
                gate.pass(Call::Put, what, again).await.is_err()
            }
            Err(error) if is_conflict(&error) => true,
            Err(Error::Refused { source, .. }) if !is_denied(&told(&*source)) => {
                let request = self.put_mark(installation, PutMode::Overwrite);
                let written = gate.pass(Call::Put, what, request).await;
                written.map_err(|error| self.explain(&error))?;
                false
            }
            Err(error) => return Err(self.explain(&error)),
        };
        if !settled {
            tracing::warn!(
                "the store has no conditional writes; whether another installation takes the bucket at the same time is \
                 looked at once more"
            );
            // The last one to write has it, and by then all have written.
            tokio::time::sleep(SETTLE).await;
        }
        match self.mark().await? {
            Some(mark) if mark == installation => Ok(()),
            Some(mark) => Err(self.foreign(&mark)),
            None => Err(OwnerError(format!(
                "`{}`: the store took the object {MARK} and does not have it, so it is no store that can be relied on; take \
                 another one",
                self.key("endpoint"),
            ))),
        }
    }

    /// By making the mark where it is already. Who may write is told that it is there; who may not is refused before the store looks.
    ///
    /// A store that takes no notice of the condition puts the mark in the place of itself: every mark was written by
    /// [`take`](Ground::take) with these very bytes, and none is ever changed.
    async fn is_writable(&self, installation: &str) -> Result<bool, OwnerError> {
        let request = self.put_mark(installation, PutMode::Create);
        let what = || format!("asking whether {MARK} may be written");
        match self.engine.gate.pass(Call::Put, what, request).await {
            Ok(()) => Ok(true),
            Err(error) if is_conflict(&error) => Ok(true),
            Err(Error::Refused { source, .. }) => {
                let words = told(&*source);
                match is_denied(&words) {
                    true => Err(OwnerError(format!(
                        "`{}`: {READ_ONLY} (the store: {})",
                        self.key("bucket"),
                        said(&words)
                    ))),
                    false => Ok(false),
                }
            }
            Err(error) => Err(self.explain(&error)),
        }
    }

    fn place(&self) -> (&'static str, String) {
        ("bucket", self.key("bucket"))
    }
}

impl Object {
    fn unmarked(&self) -> OwnerError {
        OwnerError(format!(
            "`{}`: the bucket has objects {} and no mark of a Wharf installation; name an empty bucket, or a `prefix` of its own",
            self.key("bucket"),
            self.whereabouts(),
        ))
    }

    async fn put_mark(&self, installation: &str, mode: PutMode) -> object_store::Result<()> {
        let options = PutOptions {
            mode,
            ..PutOptions::default()
        };
        let payload = PutPayload::from(format!("{installation}\n").into_bytes());
        let path = self.mark_path();
        let done = self.engine.store.put_opts(&path, payload, options);
        done.await.map(drop)
    }

    /// Seconds by which this machine's clock was ahead of the store's when it last answered; negative: behind.
    pub fn skew(&self) -> Option<i64> {
        self.seen.skew()
    }

    /// The keys that name the bucket, and the address of the service.
    pub fn keys(&self) -> (String, String) {
        (self.key("bucket"), self.key("endpoint"))
    }

    pub(super) async fn read_note(&self, name: &'static str) -> Result<String, Error> {
        let path = self.beside(name);
        let request = async {
            let found = self.engine.store.get(&path).await?;
            match found.meta.size > LENGTH {
                true => Ok("something that is no note".into()),
                false => found.bytes().await,
            }
        };
        let what = || format!("reading {name}");
        let bytes = self.engine.gate.pass(Call::Get, what, request).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(super) async fn write_note(&self, name: &'static str, text: String) -> Result<(), Error> {
        let path = self.beside(name);
        let payload = PutPayload::from(text.into_bytes());
        let request = self.engine.store.put(&path, payload);
        let what = || format!("writing {name}");
        self.engine.gate.pass(Call::Put, what, request).await?;
        Ok(())
    }

    async fn mark(&self) -> Result<Option<String>, OwnerError> {
        let path = self.mark_path();
        let request = async {
            let found = self.engine.store.get(&path).await?;
            match found.meta.size > LENGTH {
                true => Ok("something that is no mark".into()),
                false => found.bytes().await,
            }
        };
        let what = || format!("reading {MARK}");
        match self.engine.gate.pass(Call::Get, what, request).await {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).trim().to_owned())),
            Err(Error::Missing { .. }) => Ok(None),
            Err(error) => Err(self.explain(&error)),
        }
    }

    async fn is_empty(&self) -> Result<bool, OwnerError> {
        let prefix = &self.engine.prefix;
        let below = (!prefix.as_ref().is_empty()).then_some(prefix);
        let mut listing = self.engine.store.list(below);
        let first = std::future::poll_fn(|cx| listing.as_mut().poll_next(cx)).await;
        match first.transpose() {
            Ok(first) => Ok(first.is_none()),
            Err(error) => {
                let error = self.engine.gate.sort("listing the bucket".into(), error);
                Err(self.explain(&error))
            }
        }
    }

    fn mark_path(&self) -> Path {
        self.beside(MARK)
    }

    fn beside(&self, name: &'static str) -> Path {
        self.engine.prefix.parts().chain([name.into()]).collect()
    }

    fn whereabouts(&self) -> String {
        match self.engine.prefix.as_ref() {
            "" => "in it".to_owned(),
            prefix => format!("below {prefix}/"),
        }
    }

    fn key(&self, name: &str) -> String {
        if name == "proxy" {
            return "storage.proxy".to_owned();
        }
        let name = match (self.section, name) {
            ("storage.azure", "bucket" | "region") => "container",
            ("storage.azure", "access_key_id" | "secret_access_key") => "access_key",
            ("storage.gcs", "access_key_id" | "secret_access_key") => "service_account",
            ("storage.gcs", "region") => "bucket",
            (_, name) => name,
        };
        format!("{}.{name}", self.section)
    }

    fn foreign(&self, mark: &str) -> OwnerError {
        if !is_mark(mark) {
            return OwnerError(format!(
                "`{}`: what answers there as the object {MARK} was not written by Wharf; name the address of the object store's \
                 API, not of its web pages, or another bucket or `prefix`",
                self.key("endpoint"),
            ));
        }
        OwnerError(format!(
            "`{}`: the bucket belongs to another installation ({mark}){}; name another bucket, or another `prefix`; after moving \
             the metadata by hand, restore its backup instead of beginning anew",
            self.key("bucket"),
            match self.engine.prefix.as_ref() {
                "" => String::new(),
                _ => format!(", {}", self.whereabouts()),
            },
        ))
    }

    /// The sentence for what a service said.
    pub fn explain(&self, error: &Error) -> OwnerError {
        let words = match error {
            Error::Refused { source, .. } | Error::Unreachable { source, .. } => told(&**source),
            Error::Full { said, .. } => {
                let cure = "the store is full or the bucket's quota is used up; free room there or raise the quota";
                return OwnerError(format!(
                    "`{}`: {cure} (the store: {said})",
                    self.key("bucket")
                ));
            }
            Error::Setup { .. } => return OwnerError(error.to_string()),
            other => other.to_string(),
        };
        let (key, cure) = self.diagnose(&words);
        let who = match words.contains("status code") || words.contains("<Code>") {
            true => "the store: ",
            false => "",
        };
        OwnerError(format!(
            "`{}`: {cure} ({who}{})",
            self.key(key),
            said(&words)
        ))
    }

    /// Key and cure.
    fn diagnose(&self, words: &str) -> (&'static str, String) {
        let has = |any: &[&str]| any.iter().any(|word| words.contains(word));
        let denied = is_denied(words) || has(&["status code: 400"]);
        let skew = self.seen.skew().unwrap_or(0);
        if has(&SKEWED) || (denied && skew.abs() > FAR) {
            let off = match skew {
                0 => "differs from the store's by more than it allows".to_owned(),
                off => format!("is {} the store's", apart(off)),
            };
            let cure = format!(
                "this machine's clock {off}, so that requests are refused; set the clocks (NTP), here or there"
            );
            return ("endpoint", cure);
        }
        if has(&ELSEWHERE) {
            let signed = self.region.as_deref().unwrap_or("us-east-1");
            let cure = match self.seen.region().or_else(|| region_of(words)) {
                Some(region) => format!(
                    "the bucket is in the region {region}, and requests are signed for {signed}; write region = \"{region}\""
                ),
                None => format!("the bucket is not in the region {signed}; name its own"),
            };
            return ("region", cure);
        }
        for (sayings, key, cure) in SAYINGS {
            if has(sayings) {
                return (key, cure.to_owned());
            }
        }
        if is_denied(words) {
            return ("bucket", RIGHTS.to_owned());
        }
        if self.way.proxied && has(&AT_PROXY) {
            return ("proxy", AT_PROXY_CURE.to_owned());
        }
        for (sayings, key, cure) in NETWORK {
            if !has(sayings) {
                continue;
            }
            return match self.way.host {
                Some(host) if sayings == NO_ADDRESS => (host, no_address(host).to_owned()),
                _ if self.way.proxied && sayings == NO_ANSWER => ("proxy", NO_PROXY.to_owned()),
                _ => (key, cure.to_owned()),
            };
        }
        let cure =
            "the store does not answer sensibly; see that this is its address, and that it is well";
        ("endpoint", cure.to_owned())
    }
}

/// How a time is off, in words that go before "the other's".
pub fn apart(seconds: i64) -> String {
    let by = match seconds.unsigned_abs() {
        much if much >= 2 * 86_400 => format!("{} days", much / 86_400),
        much if much >= 2 * 3_600 => format!("{} hours", much / 3_600),
        much if much >= 120 => format!("{} minutes", (much + 30) / 60),
        much => format!("{much} seconds"),
    };
    let way = if seconds < 0 { "behind" } else { "ahead of" };
    format!("{by} {way}")
}

/// Where a refusal says that the bucket is.
fn region_of(words: &str) -> Option<String> {
    let between = |before: &str, after: &str| {
        let (_, rest) = words.split_once(before)?;
        let (region, _) = rest.split_once(after)?;
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        (!region.is_empty() && region.chars().all(fits)).then(|| region.to_owned())
    };
    between("<Region>", "</Region>")
        .or_else(|| between("expecting '", "'"))
        .or_else(|| between("<BucketRegion>", "</BucketRegion>"))
}

/// Whether an object of that name was there, or was being made.
fn is_conflict(error: &Error) -> bool {
    let Error::Refused { source, .. } = error else {
        return false;
    };
    matches!(
        source.downcast_ref(),
        Some(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. })
    )
}

fn is_denied(words: &str) -> bool {
    [
        "AccessDenied",
        "status code: 403",
        "status code: 401",
        "Unauthorized",
        "lacked the required privileges",
    ]
    .iter()
    .any(|word| words.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_differ_in_words() {
        for (seconds, words) in [
            (90, "90 seconds ahead of"),
            (-1_200, "20 minutes behind"),
            (3 * 3_600, "3 hours ahead of"),
            (-10 * 86_400, "10 days behind"),
        ] {
            assert_eq!(apart(seconds), words);
        }
    }

    #[test]
    fn a_host_that_nobody_named_is_looked_for_in_the_key_that_it_follows_from() {
        use crate::object::{Azure, Client, ObjectOptions, PART_SIZE, S3, Service};
        let azure = |endpoint: Option<&str>| {
            Service::Azure(Azure {
                account: "someone".into(),
                container: "blobs".into(),
                access_key: Some("c2VjcmV0".into()),
                endpoint: endpoint.map(str::to_owned),
            })
        };
        let amazon = Service::S3(S3 {
            bucket: "blobs".into(),
            ..S3::default()
        });
        for (service, key) in [
            (azure(None), "`storage.azure.account`: no address"),
            (
                azure(Some("https://store.example")),
                "`storage.azure.endpoint`: no address",
            ),
            (amazon, "`storage.s3.region`: no address"),
        ] {
            let options = ObjectOptions {
                service,
                prefix: String::new(),
                part_size: PART_SIZE,
                client: Client::default(),
            };
            let error = Error::Unreachable {
                what: "asking".to_owned(),
                source: "client error (Connect): dns error".into(),
            };
            let told = Object::open(&options).unwrap().explain(&error).0;
            assert!(told.starts_with(key), "{told}");
        }
    }

    #[test]
    fn a_refusal_says_where_the_bucket_is_or_nothing() {
        for (words, region) in [
            ("<Region>eu-central-1</Region>", Some("eu-central-1")),
            (
                "the region 'us-east-1' is wrong; expecting 'eu-west-3'",
                Some("eu-west-3"),
            ),
            ("<Region>\"; rm</Region>", None),
            ("The unspecified location constraint is incompatible", None),
        ] {
            assert_eq!(region_of(words).as_deref(), region, "{words}");
        }
    }
}
