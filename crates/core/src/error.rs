//! What can come of asking the registry for something, in its own words.
//!
//! One enum for all services. It knows no HTTP: `server/src/http/error.rs` holds the one table that turns each
//! outcome into a status and an OCI error code.

use std::time::Duration;

use wharf_oci::{Digest, Reference, RepositoryName, Tag};

/// Shorthand for the services' results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An outcome that is not success.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was ever pushed to this repository.
    #[error("repository {0} is not known; the first push creates it")]
    NameUnknown(RepositoryName),
    /// The repository does not hold this blob (BGET-1).
    #[error("blob {digest} is not in repository {repository}")]
    BlobUnknown {
        /// Where it was looked for.
        repository: RepositoryName,
        /// What was looked for.
        digest: Digest,
    },
    /// The row is there and the bytes are not, or not all of them. Pushing the blob again heals it.
    #[error(
        "the bytes of blob {digest} are damaged or missing in the store; push the blob again to heal it"
    )]
    BlobDamaged {
        /// The blob in question.
        digest: Digest,
    },
    /// The repository does not hold this manifest.
    #[error("manifest {reference} is not in repository {repository}")]
    ManifestUnknown {
        /// Where it was looked for.
        repository: RepositoryName,
        /// The tag or digest that was looked for.
        reference: Reference,
    },
    /// No such session: unknown, expired, cancelled, finished, or somebody else's (UP-5, UP-9).
    #[error(
        "this upload is not known; it may have expired, been cancelled or been finished: start a new one"
    )]
    UploadUnknown,
    /// Another request is still writing to the session (UP-30).
    #[error(
        "another request is still writing to this upload; ask for its status, then go on from there"
    )]
    UploadBusy,
    /// The closing request named no digest (UP-17).
    #[error("the closing request must name the digest of the whole blob: ?digest=sha256:…")]
    DigestMissing,
    /// A digest of an algorithm that this registry does not compute (DIG-4).
    #[error("digest algorithm {0} is not supported for pushes; use sha256 or sha512")]
    DigestUnsupported(String),
    /// The bytes are not those that the digest names (UP-12, MPUT-3).
    #[error("the content has digest {actual}, not {expected}")]
    DigestMismatch {
        /// What the client said.
        expected: Digest,
        /// What the bytes hash to.
        actual: Digest,
    },
    /// Fewer or more bytes than were announced (UP-12, UP-24).
    #[error("the request announced {announced} bytes but {received} arrived")]
    SizeMismatch {
        /// From `Content-Range`.
        announced: u64,
        /// Counted.
        received: u64,
    },
    /// A chunk that does not begin where the session stands (UP-24). The session is unchanged.
    #[error("the upload stands at byte {offset}; a chunk must begin there")]
    OutOfOrder {
        /// The only offset at which the next chunk may begin.
        offset: u64,
    },
    /// Larger than `limits.blob_size`.
    #[error("the blob is larger than the limit of {limit} bytes (limits.blob_size)")]
    BlobTooLarge {
        /// In bytes.
        limit: u64,
    },
    /// The client stopped sending, or went away; what arrived is kept for a resume where it can be.
    #[error("{0}")]
    Body(#[from] BodyError),
    /// A manifest that breaks its format.
    #[error("{0}")]
    ManifestInvalid(String),
    /// Larger than `limits.manifest_size` (MPUT-15).
    #[error("the manifest is larger than the limit of {limit} bytes (limits.manifest_size)")]
    ManifestTooLarge {
        /// In bytes.
        limit: u64,
    },
    /// The manifest names content that the repository does not hold (MPUT-9); one entry per item.
    #[error("the manifest names {} item(s) that the repository does not hold; push them first", .0.len())]
    ReferencesMissing(Vec<Digest>),
    /// A descriptor lies about the length of what it names (MPUT-18).
    #[error("the manifest says {digest} has {announced} bytes, but it has {actual}")]
    ReferenceSize {
        /// What the descriptor names.
        digest: Digest,
        /// What the descriptor says.
        announced: u64,
        /// What the store knows.
        actual: u64,
    },
    /// Too many `tag` parameters in one push (MPUT-19).
    #[error("a push may set at most {limit} tags at once")]
    TooManyTags {
        /// How many are allowed.
        limit: usize,
    },
    /// `If-Match` or `If-None-Match` did not hold (MGET-10).
    #[error("the tag does not stand where the request expects it; fetch it again and decide anew")]
    PreconditionFailed,
    /// The caller may push, and not do this to the tag.
    #[error("{}", tag_denied(tag, *exists))]
    TagDenied {
        /// The tag.
        tag: Tag,
        /// It exists, and would have moved.
        exists: bool,
    },
    /// A blob that a manifest of its repository still needs (DEL-5).
    #[error(
        "blob {digest} is still referenced by manifest {manifest} of this repository; delete that manifest first"
    )]
    BlobReferenced {
        /// The blob that was to be deleted.
        digest: Digest,
        /// One manifest that needs it.
        manifest: Digest,
    },
    /// The disk, the object store or a quota is full. Reads go on; writes work again when there is room.
    #[error("the registry has no room left; reading and deleting still work")]
    NoSpace,
    /// An earlier request completed the object and was cut off before it could say so: what more is there to append?
    #[error(
        "all bytes of this upload were received by a closing PUT that was cut off; send that PUT again, with what followed \
         the upload's offset and the same digest"
    )]
    UploadComplete,
    /// A store cannot answer just now.
    #[error("{reason}")]
    Unavailable {
        /// One sentence for the client.
        reason: String,
        /// When to ask again.
        retry_after: Duration,
    },
    /// Our fault. The cause is logged with the request id, never sent.
    #[error("{0}")]
    Internal(String),
}

/// Why a request's body ended early. The transport says which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Fewer bytes per second than `limits.body_progress` asks for.
    #[error("the body came too slowly; ask for the upload's status and go on from there")]
    Idle,
    /// The connection ended before the announced length.
    #[error("the body ended before its announced length")]
    Truncated,
    /// The transport refused it as too large.
    #[error("the body is too large")]
    TooLarge,
}

impl From<wharf_blob::Error> for Error {
    fn from(error: wharf_blob::Error) -> Self {
        match error {
            wharf_blob::Error::UploadLost => Self::UploadUnknown,
            wharf_blob::Error::Completed => Self::UploadComplete,
            wharf_blob::Error::TooLarge { limit } => Self::BlobTooLarge { limit },
            wharf_blob::Error::Ledger(error) => match error.downcast::<wharf_meta::Error>() {
                Ok(error) => (*error).into(),
                Err(error) => Self::Internal(error.to_string()),
            },
            other => crate::report::blob(&other),
        }
    }
}

impl From<wharf_meta::Error> for Error {
    fn from(error: wharf_meta::Error) -> Self {
        match error {
            wharf_meta::Error::Busy(_) => Self::Unavailable {
                reason: "the metadata store is busy; try again".into(),
                retry_after: Duration::from_secs(1),
            },
            other => crate::report::meta(&other),
        }
    }
}

fn tag_denied(tag: &Tag, exists: bool) -> String {
    match exists {
        true => format!(
            "tag {tag} exists, and you may not move it; push under another tag, or ask an owner for the role writer"
        ),
        false => format!(
            "you may not make tag {tag} here; push by digest, under a tag that you may set, or ask an owner for the right"
        ),
    }
}
