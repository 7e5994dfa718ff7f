//! Names in the blob store: keys of published blobs, ids of uploads.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;
use wharf_oci::Digest;

use crate::error::{Error, Result};

/// Where a published blob lies: `blobs/<algorithm>/<2 hex>/<hex>.<generation>`.
///
/// Each publish takes a key of its own, so that whoever removes or heals bytes touches only those it means.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// A key that nothing was ever stored under.
    pub fn fresh(digest: &Digest) -> Self {
        let hex = digest.encoded();
        let shard = hex.get(..2).unwrap_or(hex);
        let generation = Uuid::now_v7().simple();
        let algorithm = digest.algorithm_name();
        Self(format!("blobs/{algorithm}/{shard}/{hex}.{generation}").into())
    }

    /// A key that was stored in a row. Refuses whatever could leave the store's folder.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = text.split('/');
        let mut next = |fits: fn(&str) -> bool| parts.next().is_some_and(fits);
        let word = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let good = next(|part| part == "blobs")
            && next(word)
            && next(word)
            && next(|part| {
                part.split_once('.').is_some_and(|(hex, generation)| {
                    [hex, generation].iter().all(|part| {
                        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
                    })
                })
            })
            && parts.next().is_none();
        if good {
            Ok(Self(text.into()))
        } else {
            Err(Error::BadKey(text.chars().take(200).collect()))
        }
    }

    /// The key as rows hold it, which is also the path below the store's folder.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The digest under whose name the bytes lie; `None` if the name is none.
    pub fn digest(&self) -> Option<Digest> {
        let algorithm = self.0.split('/').nth(1)?;
        let (hex, _) = self.0.rsplit('/').next()?.split_once('.')?;
        Digest::parse(&format!("{algorithm}:{hex}")).ok()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of an upload session: 122 random bits, so nobody can guess another's (UP-5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UploadId(Uuid);

/// The text is not the name of an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the id of an upload")]
pub struct UploadIdError;

impl UploadId {
    /// A new id.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The id in a URL or a row; only the form that [`fmt::Display`] writes, so that one session has one name.
    pub fn parse(text: &str) -> Result<Self, UploadIdError> {
        let id = Uuid::try_parse(text).map_err(|_| UploadIdError)?;
        if id.hyphenated().to_string() == text {
            Ok(Self(id))
        } else {
            Err(UploadIdError)
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
    use wharf_oci::Algorithm;

    #[test]
    fn keys_are_fresh_and_read_back() {
        let digest = Digest::of(Algorithm::Sha512, b"x");
        let (a, b) = (Key::fresh(&digest), Key::fresh(&digest));
        assert_ne!(a, b);
        assert_eq!(Key::parse(a.as_str()).unwrap(), a);
        assert_eq!(a.digest(), Some(digest));
    }

    #[test]
    fn keys_that_could_leave_the_folder_are_refused() {
        for bad in [
            "",
            "blobs",
            "blobs/sha256/ab",
            "blobs/sha256/../ab.1",
            "/blobs/sha256/ab/ab.1",
            "blobs/sha256/ab/ab.1/x",
            "blobs/sha256/ab/../../etc.1",
            "blobs/sha256/ab/ab",
            "uploads/sha256/ab/ab.1",
            "blobs//ab/ab.1",
        ] {
            assert!(Key::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_upload_has_one_name() {
        let id = UploadId::random();
        assert_eq!(UploadId::parse(&id.to_string()), Ok(id));
        assert!(UploadId::parse(&id.to_string().to_uppercase()).is_err());
        assert!(UploadId::parse(&id.to_string().replace('-', "")).is_err());
        assert!(UploadId::parse("../../etc/passwd").is_err());
    }
}
