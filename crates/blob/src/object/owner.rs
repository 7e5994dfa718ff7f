//! Whose bucket it is: an object that names the installation, and what is wrong when it can't be had.
//!
//! Called at a start and by `wharf config check --online`. Nothing is written into a bucket that is not empty and has
//! no mark, nor into one with another mark.

use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::Object;
use super::gate::{Call, told};
use crate::error::Error;

/// Name of the object, below the prefix.
const MARK: &str = "wharf-installation";

/// Longest mark that is looked at.
const LENGTH: u64 = 200;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owned {
    /// The bucket has this installation's mark.
    Ours,
    /// The bucket is empty.
    Free,
}

/// Why the bucket cannot be used: one sentence with the key to look at and the cure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OwnerError(pub String);

impl Object {
    /// Looks whether the bucket is there, readable, and free or this installation's.
    pub async fn owned_by(&self, installation: &str) -> Result<Owned, OwnerError> {
        match self.mark().await? {
            Some(mark) if mark == installation => Ok(Owned::Ours),
            Some(mark) => Err(self.foreign(&mark)),
            None if self.is_empty().await? => Ok(Owned::Free),
            None => Err(OwnerError(format!(
                "the bucket has objects {} and no mark of a Wharf installation: name an empty bucket in `{}`, or a \
                 `prefix` of its own",
                self.whereabouts(),
                self.key("bucket"),
            ))),
        }
    }

    /// Looks at the bucket on behalf of nobody: whose mark it has, `None` when it is empty.
    pub async fn owner(&self) -> Result<Option<String>, OwnerError> {
        match self.mark().await? {
            Some(mark) => Ok(Some(mark)),
            None => self.owned_by("").await.map(|_| None),
        }
    }

    /// Marks a free bucket as this installation's; of two that try at once, one gets it.
    pub async fn take(&self, installation: &str) -> Result<(), OwnerError> {
        let put = |mode| {
            let options = PutOptions {
                mode,
                ..PutOptions::default()
            };
            let payload = PutPayload::from(format!("{installation}\n").into_bytes());
            let path = self.mark_path();
            async move { self.engine.store.put_opts(&path, payload, options).await }
        };
        let what = || format!("writing {MARK}");
        let gate = &self.engine.gate;
        let created = match gate.pass(Call::Put, what, put(PutMode::Create)).await {
            // A service without conditional writes; whose mark it is shows below.
            Err(Error::Refused { source, .. })
                if !is_denied(&told(&*source)) && self.mark().await?.is_none() =>
            {
                gate.pass(Call::Put, what, put(PutMode::Overwrite)).await
            }
            outcome => outcome,
        };
        match self.mark().await? {
            Some(mark) if mark == installation => Ok(()),
            Some(mark) => Err(self.foreign(&mark)),
            None => match created {
                Err(error) => Err(self.explain(&error)),
                Ok(_) => Err(OwnerError(format!(
                    "the store took the object {MARK} and does not have it: `{}` is no store that can be relied on",
                    self.key("endpoint"),
                ))),
            },
        }
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
        let name = match (self.section, name) {
            ("storage.azure", "bucket") => "container",
            (_, name) => name,
        };
        format!("{}.{name}", self.section)
    }

    fn foreign(&self, mark: &str) -> OwnerError {
        OwnerError(format!(
            "the bucket belongs to another installation ({mark}), {}: name another bucket in `{}`, or another `prefix`; \
             after moving the metadata by hand, restore its backup instead of beginning anew",
            self.whereabouts(),
            self.key("bucket"),
        ))
    }

    /// The sentence for what a service said.
    pub fn explain(&self, error: &Error) -> OwnerError {
        let words = match error {
            Error::Refused { source, .. } | Error::Unreachable { source, .. } => told(&**source),
            other => other.to_string(),
        };
        let has = |any: &[&str]| any.iter().any(|word| words.contains(word));
        let (key, cure) = if has(&["InvalidAccessKeyId", "AuthenticationFailed"]) {
            (
                "access_key_id",
                "the store does not know these credentials; take those that its administrator made",
            )
        } else if has(&["SignatureDoesNotMatch"]) {
            (
                "secret_access_key",
                "it is not the secret of that access key; look for a cut or added character",
            )
        } else if has(&[
            "NoSuchBucket",
            "ContainerNotFound",
            "The specified bucket does not exist",
        ]) {
            (
                "bucket",
                "there is no bucket of this name; make it, Wharf does not",
            )
        } else if has(&["RequestTimeTooSkewed"]) {
            (
                "endpoint",
                "this machine's clock and the store's differ by more than 15 minutes; set the clock (NTP)",
            )
        } else if has(&[
            "AuthorizationHeaderMalformed",
            "PermanentRedirect",
            "IllegalLocationConstraint",
            "without LOCATION",
            "status code: 301",
            "status code: 307",
        ]) {
            ("region", "the bucket is in another region; name that one")
        } else if is_denied(&words) {
            (
                "bucket",
                "the credentials may not use it: they need to get, put, delete and list objects, and to make, list and abort multipart \
                 uploads",
            )
        } else if has(&["certificate", "UnknownIssuer"]) {
            (
                "endpoint",
                "its certificate is not trusted; name the authority in `storage.ca`",
            )
        } else {
            (
                "endpoint",
                "the store does not answer sensibly; see that this address can be reached from here",
            )
        };
        OwnerError(format!(
            "`{}`: {cure} (the store: {})",
            self.key(key),
            short(&words)
        ))
    }
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

/// What a service says in its XML, or else the beginning of the words.
fn short(words: &str) -> String {
    let tagged = |tag: &str| {
        let (_, rest) = words.split_once(&format!("<{tag}>"))?;
        Some(rest.split_once("</")?.0)
    };
    if let Some(code) = tagged("Code") {
        return match tagged("Message") {
            Some(message) => format!("{code}: {message}"),
            None => code.to_owned(),
        };
    }
    let flat = words.split_whitespace().collect::<Vec<_>>().join(" ");
    flat.chars().take(300).collect()
}
