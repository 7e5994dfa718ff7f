//! Manifests: what a push must satisfy, and what is served (specification §1.4, §1.7, §1.10).
//!
//! Bytes are stored exactly as they came (MPUT-2). Everything that the registry knows about a manifest (references,
//! subject, artifact type) is derived once, when it is stored.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use wharf_meta::manifest as rows;
use wharf_oci::{
    Algorithm, Digest, Edge, EdgeKind, Kind, Limits, Manifest, ManifestError, Reference,
    ReferrerDescriptor, RepositoryName, Tag, media_type,
};

use crate::access::{Caller, Permission, Tags};
use crate::error::{Error, Result};
use crate::job::{Job, Step};
use crate::registry::{ContentRule, Registry};

/// Most references that one write may carry; a manifest with more is prepared in steps of this many.
const EDGES_PER_WRITE: usize = rows::MAX_EDGES;

/// How often a manifest whose pins ran out is tried again before the client is asked to.
const ATTEMPTS: u32 = 3;

/// What the tag of a push must stand at for the push to happen (MGET-10).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Expect {
    /// Anywhere, or nowhere.
    #[default]
    Any,
    /// `If-None-Match: *`: the tag must not exist.
    Absent,
    /// `If-Match: *`: the tag must exist.
    Present,
    /// `If-Match`: the tag must stand at this digest.
    Digest(Digest),
}

/// A manifest on its way in.
#[derive(Debug)]
pub struct Push<'a> {
    /// Where to.
    pub repository: &'a RepositoryName,
    /// The tag or digest in the path.
    pub reference: &'a Reference,
    /// `Content-Type`, as sent.
    pub content_type: Option<&'a str>,
    /// The manifest, at most `limits.manifest_size`.
    pub bytes: Bytes,
    /// Tags from `?tag=`, only when the path names a digest (MPUT-19).
    pub tags: Vec<Tag>,
    /// Condition on the tag.
    pub expect: Expect,
    /// Who pushes.
    pub actor: &'a str,
    /// Whose rights decide which tags may be made and moved; `None`: the registry's own, which may do both.
    pub caller: Option<&'a Caller>,
}

/// What a push has done.
#[derive(Debug)]
pub struct Pushed {
    /// The digest of the bytes: the client's own, or sha256 for a push by tag (DIG-7).
    pub digest: Digest,
    /// The subject that the manifest now refers to (MPUT-13).
    pub subject: Option<Digest>,
    /// The tags that stand at it now.
    pub tags: Vec<Tag>,
    /// What the person behind the client should know, one sentence each (WARN-1).
    pub warnings: Vec<&'static str>,
}

/// A stored manifest.
#[derive(Debug, Clone)]
pub struct Stored {
    /// In the algorithm it was pushed with (DIG-5).
    pub digest: Digest,
    /// What `Content-Type` was, without parameters.
    pub media_type: String,
    /// In bytes.
    pub size: u64,
    /// The bytes, when asked for.
    pub bytes: Option<Bytes>,
}

impl From<rows::ManifestRow> for Stored {
    fn from(row: rows::ManifestRow) -> Self {
        Self {
            digest: row.digest,
            media_type: row.media_type,
            size: row.size,
            bytes: row.bytes.map(Bytes::from),
        }
    }
}

/// Finds a manifest by tag or digest; `with_bytes` is false for HEAD. From memory when it was asked for lately, which is
/// then as exact as a look-up.
pub async fn get(
    registry: &Registry,
    repository: &RepositoryName,
    reference: &Reference,
    with_bytes: bool,
) -> Result<Arc<Stored>> {
    let found = match reference {
        Reference::Tag(tag) => by_tag(registry, repository, tag, with_bytes).await?,
        Reference::Digest(digest) => by_digest(registry, repository, digest, with_bytes).await?,
    };
    found.ok_or_else(|| Error::ManifestUnknown {
        repository: repository.clone(),
        reference: reference.clone(),
    })
}

async fn by_tag(
    registry: &Registry,
    repository: &RepositoryName,
    tag: &Tag,
    with_bytes: bool,
) -> Result<Option<Arc<Stored>>> {
    let meta = &registry.meta;
    if let Some((stamp, digest)) = registry.manifests.tag(meta, repository, tag) {
        let found = by_digest(registry, repository, &digest, with_bytes).await?;
        // The tag must stand there still, or manifest and tag were never so at the same time.
        if found.is_some() && meta.is_fresh(stamp) {
            return Ok(found);
        }
    }
    let stamp = meta.stamp(repository, tag.as_str());
    let reference = rows::Ref::Tag(tag.clone());
    let found = read(registry, repository, reference, with_bytes).await?;
    // Where others write too, nothing that is kept would ever be fresh.
    if let Some(stored) = &found
        && !meta.is_shared()
    {
        registry
            .manifests
            .keep_tag(stamp, repository, tag, &stored.digest);
    }
    Ok(found)
}

async fn by_digest(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
    with_bytes: bool,
) -> Result<Option<Arc<Stored>>> {
    let (meta, manifests) = (&registry.meta, &registry.manifests);
    if let Some(stored) = manifests.manifest(meta, repository, digest, with_bytes) {
        return Ok(Some(stored));
    }
    let stamp = meta.stamp(repository, digest.as_str());
    let reference = rows::Ref::Digest(digest.clone());
    let found = read(registry, repository, reference, with_bytes).await?;
    if let Some(stored) = &found
        && !meta.is_shared()
    {
        manifests.keep_manifest(stamp, repository, stored);
    }
    Ok(found)
}

async fn read(
    registry: &Registry,
    repository: &RepositoryName,
    reference: rows::Ref,
    with_bytes: bool,
) -> Result<Option<Arc<Stored>>> {
    let row = registry
        .meta
        .read(rows::Get {
            repository: repository.clone(),
            reference,
            with_bytes,
        })
        .await?;
    // Once for as long as it is kept in memory.
    if let Some(row) = &row
        && let Some(bytes) = &row.bytes
        && !crate::blob::is_of(&row.digest, bytes)
    {
        let what = format!("the bytes of manifest {}", row.digest);
        return Err(crate::blob::damaged_row(registry, &what));
    }
    Ok(row.map(|row| Arc::new(row.into())))
}

/// Checks and stores a manifest with all its tags in one step (MPUT-1 … MPUT-19).
pub async fn push(registry: &Registry, push: Push<'_>) -> Result<Pushed> {
    let limit = registry.limits.manifest_size;
    if push.bytes.len() as u64 > limit {
        return Err(Error::ManifestTooLarge { limit });
    }
    if push.tags.len() > registry.limits.tags_per_push {
        return Err(Error::TooManyTags {
            limit: registry.limits.tags_per_push,
        });
    }
    // The digest first: a client that sends other bytes than it names should hear that, whatever they look like.
    let digest = digest_of(push.reference, &push.bytes)?;
    let manifest = Manifest::parse(push.content_type, &push.bytes, &Limits::default())
        .map_err(|error: ManifestError| Error::ManifestInvalid(error.to_string()))?;
    let rule = registry.content.load().of(push.repository);
    let edges: Vec<rows::EdgeRow> = manifest
        .edges()
        .iter()
        .map(|edge| edge_row(edge, rule))
        .collect();
    let tags = match push.reference {
        Reference::Tag(tag) => vec![tag.clone()],
        Reference::Digest(_) => push.tags,
    };
    let subject = manifest
        .subject
        .as_ref()
        .map(|subject| subject.digest.clone());
    let referrer = subject.is_some().then(|| {
        ReferrerDescriptor::of(&manifest, digest.clone(), push.bytes.len() as u64).to_json()
    });

    let (fixed, unmade) = match push.caller {
        Some(caller) => limits_on_tags(registry, caller, push.repository, &tags)?,
        None => Default::default(),
    };
    let put = rows::Put {
        repository: push.repository.clone(),
        digest: digest.clone(),
        media_type: manifest.media_type.clone(),
        bytes: push.bytes.to_vec(),
        edges,
        pinned: 0,
        check_sizes: rule.check_sizes,
        subject: subject.clone(),
        artifact_type: manifest.referrer_type().map(str::to_owned),
        referrer_json: referrer,
        tags: tags.clone(),
        fixed,
        unmade,
        expect: match push.expect {
            Expect::Any => rows::Expect::Any,
            Expect::Absent => rows::Expect::Absent,
            Expect::Present => rows::Expect::Present,
            Expect::Digest(digest) => rows::Expect::Digest(digest),
        },
        actor: push.actor.to_owned(),
        at: registry.clock.now_ms(),
    };
    store(registry, put).await?;
    Ok(Pushed {
        digest,
        subject,
        tags,
        warnings: warnings(&manifest),
    })
}

/// Which of the tags the caller may make and not move, and which it may move and not make. Whether they exist is seen by the
/// transaction that would do it.
fn limits_on_tags(
    registry: &Registry,
    caller: &Caller,
    repository: &RepositoryName,
    tags: &[Tag],
) -> Result<(Vec<Tag>, Vec<Tag>)> {
    let (mut fixed, mut unmade) = (Vec::new(), Vec::new());
    let policy = registry.access.policy();
    for tag in tags {
        let may = |permission| {
            let named = Tags::Named(tag.as_str());
            policy.allow_tags(caller, permission, Some(repository), named)
        };
        match (may(Permission::TagCreate), may(Permission::TagMove)) {
            (true, true) => {}
            (true, false) => fixed.push(tag.clone()),
            (false, true) => unmade.push(tag.clone()),
            // Before it is looked at: the answer does not tell whether there is such a tag.
            (false, false) => {
                let (tag, exists) = (tag.clone(), false);
                return Err(Error::TagDenied { tag, exists });
            }
        }
    }
    Ok((fixed, unmade))
}

/// Deletes a manifest with all tags that stand at it (DEL-2). What it references stays for as long as it can be restored.
pub async fn delete(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
    actor: &str,
) -> Result<()> {
    // One moment for all steps, by which a restore knows the tags that went with the manifest.
    let at = registry.clock.now_ms();
    loop {
        let deleted = registry
            .meta
            .write(rows::Delete {
                repository: repository.clone(),
                digest: digest.clone(),
                actor: actor.to_owned(),
                at,
            })
            .await?;
        match deleted {
            rows::Deleted::Done => return Ok(()),
            rows::Deleted::More => {}
            rows::Deleted::Unknown => {
                return Err(Error::ManifestUnknown {
                    repository: repository.clone(),
                    reference: Reference::Digest(digest.clone()),
                });
            }
        }
    }
}

/// Formats that still work and should not be used any more.
fn warnings(manifest: &Manifest) -> Vec<&'static str> {
    let mut warnings = Vec::new();
    if manifest.kind == Kind::Artifact {
        warnings.push(
            "the media type application/vnd.oci.artifact.manifest.v1+json was withdrawn; use an image manifest with artifactType",
        );
    }
    if manifest
        .layers
        .iter()
        .any(|layer| media_type::is_nondistributable(&layer.media_type))
    {
        warnings.push(
            "non-distributable layers are deprecated; those that were not pushed cannot be pulled from here",
        );
    }
    warnings
}

/// Does what deletions of very large manifests, and pushes of them that broke off, left undone; small steps, until nothing is
/// left.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Sweep {
    #[serde(skip)]
    after: Option<rows::Unfinished>,
}

impl Job for Sweep {
    const KIND: &'static str = "manifest.sweep";

    async fn step(&mut self, registry: &Registry) -> Result<Step> {
        let swept = registry
            .meta
            .write(rows::SweepEdges {
                after: self.after.take(),
                limit: EDGES_PER_WRITE as u32,
                pending_before: registry.clock.now_ms() - rows::PIN_MS,
            })
            .await?;
        self.after = swept.at;
        Ok(if swept.done == 0 {
            Step::Done
        } else {
            Step::More
        })
    }
}

/// The digest under which the bytes are stored: the one in the path when they match it, otherwise sha256.
fn digest_of(reference: &Reference, bytes: &[u8]) -> Result<Digest> {
    match reference {
        Reference::Tag(_) => Ok(Digest::of(Algorithm::Sha256, bytes)),
        Reference::Digest(expected) => {
            let algorithm = expected
                .algorithm()
                .ok_or_else(|| Error::DigestUnsupported(expected.algorithm_name().to_owned()))?;
            let actual = Digest::of(algorithm, bytes);
            if actual == *expected {
                Ok(actual)
            } else {
                Err(Error::DigestMismatch {
                    expected: expected.clone(),
                    actual,
                })
            }
        }
    }
}

/// What the store must know about one reference, and whether it must be there (MPUT-9, MPUT-10, MPUT-14).
fn edge_row(edge: &Edge<'_>, rule: ContentRule) -> rows::EdgeRow {
    let descriptor = edge.descriptor;
    let absent_is_fine = media_type::is_nondistributable(&descriptor.media_type);
    rows::EdgeRow {
        kind: edge.kind,
        // An index's child may be a blob: BuildKit's cache indexes (MPUT-11).
        any_store: edge.kind == EdgeKind::Child,
        target: descriptor.digest.clone(),
        size: descriptor.size,
        must_exist: !absent_is_fine
            && match edge.kind {
                EdgeKind::Child => rule.require_children,
                EdgeKind::Config | EdgeKind::Layer | EdgeKind::Blob => rule.require_blobs,
            },
    }
}

/// Writes the manifest. The references of a very large one go first, in small steps, so that no write holds the writer
/// for long; each step pins what it names until the manifest itself is there.
async fn store(registry: &Registry, mut put: rows::Put) -> Result<()> {
    // A target named twice is one reference: pins are counted by target.
    let mut seen = HashSet::new();
    put.edges
        .retain(|edge| seen.insert((edge.target.clone(), edge.size, edge.must_exist)));
    let last = put
        .edges
        .split_off(put.edges.len().saturating_sub(EDGES_PER_WRITE));
    let before = std::mem::replace(&mut put.edges, last);
    put.pinned = before
        .iter()
        .map(|edge| &edge.target)
        .collect::<HashSet<_>>()
        .len() as u32;
    for _ in 0..ATTEMPTS {
        for step in before.chunks(EDGES_PER_WRITE) {
            let outcome = registry
                .meta
                .write(rows::PutEdges {
                    repository: put.repository.clone(),
                    digest: put.digest.clone(),
                    edges: step.to_vec(),
                    check_sizes: put.check_sizes,
                    at: put.at,
                })
                .await?;
            match outcome {
                rows::Pinned::Done => {}
                rows::Pinned::Missing(missing) => return Err(Error::ReferencesMissing(missing)),
                rows::Pinned::SizeMismatch {
                    digest,
                    expected,
                    actual,
                } => {
                    return Err(Error::ReferenceSize {
                        digest,
                        announced: expected,
                        actual,
                    });
                }
            }
        }
        match registry.meta.write(put.clone()).await? {
            rows::PutOutcome::Stored { .. } => return Ok(()),
            rows::PutOutcome::Missing(missing) => return Err(Error::ReferencesMissing(missing)),
            rows::PutOutcome::SizeMismatch {
                digest,
                expected,
                actual,
            } => {
                return Err(Error::ReferenceSize {
                    digest,
                    announced: expected,
                    actual,
                });
            }
            rows::PutOutcome::ExpectationFailed => return Err(Error::PreconditionFailed),
            rows::PutOutcome::TagDenied { tag, exists } => {
                return Err(Error::TagDenied { tag, exists });
            }
            // The pins ran out while other writes had the floor; set them again.
            rows::PutOutcome::PinsLost => {}
        }
    }
    Err(Error::Unavailable {
        reason: "the manifest's references could not be held long enough; push it again".into(),
        retry_after: std::time::Duration::from_secs(1),
    })
}
