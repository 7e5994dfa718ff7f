//! Names inside a store: keys of blobs and ids of uploads.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;
use wharf_oci::Digest;

use crate::error::{Error, Result};

/// Longest key in bytes: a sha512 digest with its folders and generation has 183.
const MAX_KEY: usize = 512;

/// Where a blob lies: `blobs/<algorithm>/<2 hex>/<hex>.<generation>`.
///
/// Every publish takes a fresh generation, so whoever marked a key for removal or healing touches that file only, never
/// the one that a push has made since.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(Arc<str>);

impl Key {
    /// A key for this digest that nobody has used before.
    pub fn fresh(digest: &Digest) -> Self {
        let hex = digest.encoded();
        let shard = hex.get(..2).unwrap_or("00");
        let algorithm = digest.algorithm_name();
        let generation = Uuid::now_v7().simple();
        Self(format!("blobs/{algorithm}/{shard}/{hex}.{generation}").into())
    }

    /// A key that nobody has used before, for bytes whose digest is not known yet:
    /// `blobs/unnamed/<2 hex>/<32 hex>`. The first digits are random, so that object stores spread the load.
    pub fn unnamed() -> Self {
        let name = Uuid::new_v4().simple().to_string();
        let shard = name.get(..2).unwrap_or("00");
        Self(format!("blobs/unnamed/{shard}/{name}").into())
    }

    /// Takes a key from a row. Refuses whatever could name a file outside of `blobs/`.
    pub fn parse(text: &str) -> Result<Self> {
        let segment = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"._+-=".contains(&byte))
        };
        let sound = text.len() <= MAX_KEY
            && text
                .strip_prefix("blobs/")
                .is_some_and(|rest| rest.split('/').all(segment));
        if sound {
            Ok(Self(text.into()))
        } else {
            Err(Error::BadKey(text.chars().take(64).collect()))
        }
    }

    /// The text that rows keep.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digest in the name, where the name has one. A hint for `reindex` and messages, not a proof of content.
    pub fn digest(&self) -> Option<Digest> {
        let mut parts = self.0.split('/').skip(1);
        let (algorithm, _shard, file) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() {
            return None;
        }
        let (hex, _generation) = file.split_once('.')?;
        Digest::parse(&format!("{algorithm}:{hex}")).ok()
    }

    /// Whether it was chosen here before the digest was known.
    pub fn is_unnamed(&self) -> bool {
        let hex = |text: &str, length| {
            text.len() == length
                && text
                    .bytes()
                    .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let (shard, name) = match self.0.strip_prefix("blobs/unnamed/") {
            Some(rest) => rest.split_once('/').unwrap_or_default(),
            None => return false,
        };
        hex(shard, 2) && hex(name, 32)
    }

    /// When it was made, in milliseconds since 1970, by the clock of whoever made it; `None` for a key of another form.
    pub fn made_at(&self) -> Option<u64> {
        let (_, generation) = self.0.rsplit_once('.')?;
        let (seconds, nanos) = Uuid::try_parse(generation).ok()?.get_timestamp()?.to_unix();
        Some(seconds * 1_000 + u64::from(nanos / 1_000_000))
    }

    /// The folder, for its `fsync`.
    pub(crate) fn folder(&self) -> &str {
        self.0.rsplit_once('/').map_or("", |(folder, _)| folder)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an upload, which nobody can guess (UP-5): whoever knows it may write to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId(Uuid);

/// The text is not the name of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of an upload")]
pub struct UploadIdError;

impl UploadId {
    /// A new id from the operating system's randomness.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Takes an id from a URL or a row. Only the form that [`fmt::Display`] writes is one, so an upload has one name.
    pub fn parse(text: &str) -> Result<Self, UploadIdError> {
        match Uuid::try_parse(text) {
            Ok(uuid) if uuid.hyphenated().to_string() == text => Ok(Self(uuid)),
            _ => Err(UploadIdError),
        }
    }
}

impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_key_says_when_it_was_made() {
        let now = || {
            let since = std::time::UNIX_EPOCH.elapsed().unwrap();
            u64::try_from(since.as_millis()).unwrap()
        };
        let digest = Digest::of(Algorithm::Sha256, b"x");
        let before = now();
        let made = Key::fresh(&digest).made_at().unwrap();
        assert!((before..=now()).contains(&made), "{made}");
        assert_eq!(
            Key::parse("blobs/sha256/ab/abcd.1").unwrap().made_at(),
            None
        );
    }
    use proptest::prelude::*;
    use wharf_oci::Algorithm;

    #[test]
    fn a_fresh_key_parses_names_its_digest_and_is_never_the_same_twice() {
        for algorithm in Algorithm::ALL {
            let digest = Digest::of(algorithm, b"hello");
            let (one, two) = (Key::fresh(&digest), Key::fresh(&digest));
            assert_ne!(one, two);
            assert_eq!(Key::parse(one.as_str()).unwrap(), one);
            assert_eq!(one.digest(), Some(digest.clone()));
            assert_eq!(
                one.folder(),
                format!("blobs/{algorithm}/{}", &digest.encoded()[..2])
            );
        }
    }

    #[test]
    fn a_key_without_a_digest_parses_and_names_none() {
        let (one, two) = (Key::unnamed(), Key::unnamed());
        assert_ne!(one, two);
        assert_eq!(Key::parse(one.as_str()).unwrap(), one);
        assert_eq!(one.digest(), None);
        assert!(one.is_unnamed());
        for other in [
            "blobs/unnamed/ab",
            "blobs/unnamed/ab/cd",
            "blobs/ab/unnamed/cd",
        ] {
            assert!(!Key::parse(other).unwrap().is_unnamed(), "{other}");
        }
    }

    #[test]
    fn a_key_never_leaves_the_folder() {
        for text in [
            "",
            "blobs",
            "blobs/",
            "/blobs/a",
            "blobs//a",
            "blobs/../uploads/a",
            "blobs/a/..",
            "blobs/./a",
            "blobs/.hidden",
            "uploads/a",
            "blobs/a\0b",
            "blobs/a b",
            "blobs/a\\b",
        ] {
            assert!(Key::parse(text).is_err(), "{text:?} was taken for a key");
        }
        assert!(Key::parse(&format!("blobs/{}", "a".repeat(MAX_KEY))).is_err());
    }

    #[test]
    fn an_upload_id_has_one_spelling() {
        let id = UploadId::parse("0b9a3f6e-3c1d-4a55-8f0e-1f2a3b4c5d6e").unwrap();
        assert_eq!(UploadId::parse(&id.to_string()), Ok(id));
        assert!(UploadId::parse(&id.to_string().to_uppercase()).is_err());
        assert!(UploadId::parse(&id.to_string().replace('-', "")).is_err());
        assert!(UploadId::parse("../../etc/passwd").is_err());
    }

    proptest! {
        #[test]
        fn whatever_parses_stays_inside(text in "\\PC*|blobs/[a-z0-9./]{0,80}") {
            if let Ok(key) = Key::parse(&text) {
                prop_assert_eq!(key.as_str(), &text);
                prop_assert!(!text.split('/').any(|part| part.is_empty() || part == ".." || part == "."));
                prop_assert!(text.starts_with("blobs/"));
            }
        }
    }
}
