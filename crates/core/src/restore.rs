//! Undelete: manifests and tags that were deleted come back while they can.
//!
//! Called by `wharf manifest restore`, `wharf tag restore` and the histories. A restored manifest has all it refers to, since a
//! deleted one goes on holding that until its end; what went after it since it was gone comes back too.

use bytes::Bytes;
use wharf_meta::{Meant, manifest as rows, restorable, tag as tags};
use wharf_oci::{Digest, Limits, Manifest, ReferrerDescriptor, RepositoryName, Tag};

use crate::access::Permission;
use crate::error::{Error, Result};
use crate::registry::Registry;

/// Tags that a restored manifest gets back at most.
const TAGS: u32 = 1_000;
/// Moves of a tag that are looked through for where it stood.
const MOVES: u32 = 1_000;

/// Why something does not come back.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Nothing to be restored.
    #[error(
        "{repository} has no deleted manifest {digest} that can be restored: it was never there, is there, or its time is over \
         (`wharf repo history {repository}` lists those that can)"
    )]
    NoManifest {
        /// Where.
        repository: RepositoryName,
        /// What.
        digest: Digest,
    },
    /// The tag has no past.
    #[error(
        "{repository} never had a tag {tag}, or not with that version; `wharf tag history {repository}:{tag}` lists its moves"
    )]
    NoMove {
        /// Where.
        repository: RepositoryName,
        /// Which.
        tag: Tag,
    },
    /// The tag is there.
    #[error(
        "tag {tag} of {repository} exists; name the version that it shall go back to with --version"
    )]
    Exists {
        /// Where.
        repository: RepositoryName,
        /// Which.
        tag: Tag,
    },
    /// The tag moved meanwhile.
    #[error("tag {tag} of {repository} was moved at the same moment; look at it and decide anew")]
    Moved {
        /// Where.
        repository: RepositoryName,
        /// Which.
        tag: Tag,
    },
    /// Whoever asks may not make, or not move, the tag.
    #[error("the right {0} is missing")]
    Denied(Permission),
    /// The registry failed.
    #[error(transparent)]
    Core(#[from] Error),
    /// The metadata store failed.
    #[error(transparent)]
    Meta(#[from] wharf_meta::Error),
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The manifest.
    pub digest: Digest,
    /// It was deleted, and is there again.
    pub manifest: bool,
    /// Tags that stand at it again.
    pub tags: Vec<String>,
    /// So many other manifests came back, since they went with it or after it.
    pub others: u64,
}

/// Brings a deleted manifest back, with the tags that went with it and are not in use again.
pub async fn manifest(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
    actor: &str,
) -> Result<Restored, RestoreError> {
    manifest_with(registry, repository, digest, actor, |_| true).await
}

/// As [`manifest`], with those tags only that whoever asks may make.
pub async fn manifest_with(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
    actor: &str,
    may_make: impl Fn(&Tag) -> bool,
) -> Result<Restored, RestoreError> {
    let Back { deleted_at, others } = with_followers(registry, repository, digest, actor).await?;
    let gone = registry
        .meta
        .scan(tags::GoneWith {
            repository: repository.clone(),
            digest: digest.clone(),
            at: deleted_at,
            limit: TAGS,
        })
        .await?;
    let mut restored = Vec::new();
    for name in gone {
        let Ok(tag) = Tag::parse(&name) else { continue };
        if !may_make(&tag) {
            continue;
        }
        // Whoever took the name meanwhile keeps it.
        if point(registry, repository, &tag, digest, None, actor).await? == tags::Restored::Done {
            restored.push(name);
        }
    }
    Ok(Restored {
        digest: digest.clone(),
        manifest: true,
        tags: restored,
        others,
    })
}

/// Puts a tag back to where it stood before it was deleted or, with `version`, to where it stood from that version on; the
/// manifest comes back too if it was deleted.
pub async fn tag(
    registry: &Registry,
    repository: &RepositoryName,
    tag: &Tag,
    version: Option<i64>,
    actor: &str,
) -> Result<Restored, RestoreError> {
    tag_from(
        registry,
        repository,
        tag,
        Meant::Any,
        version,
        actor,
        |_| true,
    )
    .await
}

/// As [`tag`], and only if the last thing that happened to the tag gave it the version `from`, and if `may` says so of what that takes
/// beside the right to delete: to make the tag, or to move it.
pub async fn tag_from(
    registry: &Registry,
    repository: &RepositoryName,
    tag: &Tag,
    from: Meant,
    version: Option<i64>,
    actor: &str,
    may: impl FnOnce(Permission) -> bool,
) -> Result<Restored, RestoreError> {
    let no_move = || RestoreError::NoMove {
        repository: repository.clone(),
        tag: tag.clone(),
    };
    let moves = registry
        .meta
        .scan(tags::History {
            repository: repository.clone(),
            tag: Some(tag.clone()),
            limit: MOVES,
        })
        .await?;
    let last = moves.first().ok_or_else(no_move)?;
    if !from.fits(Some(last.version)) {
        return Err(RestoreError::Moved {
            repository: repository.clone(),
            tag: tag.clone(),
        });
    }
    let stands = last.to.clone();
    let digest = match version {
        Some(version) => moves
            .iter()
            .find(|one| one.version == version)
            .and_then(|one| one.to.clone()),
        None if stands.is_some() => {
            return Err(RestoreError::Exists {
                repository: repository.clone(),
                tag: tag.clone(),
            });
        }
        None => last.from.clone(),
    };
    let digest = digest.ok_or_else(no_move)?;
    // Whoever changes the tag after this look is noticed below, which expects it to stand there.
    let needs = match stands {
        Some(_) => Permission::TagMove,
        None => Permission::TagCreate,
    };
    if !may(needs) {
        return Err(RestoreError::Denied(needs));
    }
    let mut pointed = point(registry, repository, tag, &digest, stands.as_ref(), actor).await?;
    let (mut came_back, mut others) = (false, 0);
    if pointed == tags::Restored::Unknown {
        let back = with_followers(registry, repository, &digest, actor).await?;
        (came_back, others) = (true, back.others);
        pointed = point(registry, repository, tag, &digest, stands.as_ref(), actor).await?;
    }
    match pointed {
        tags::Restored::Done => Ok(Restored {
            digest,
            manifest: came_back,
            tags: vec![tag.to_string()],
            others,
        }),
        tags::Restored::Unknown => Err(RestoreError::NoManifest {
            repository: repository.clone(),
            digest,
        }),
        tags::Restored::Moved => Err(RestoreError::Moved {
            repository: repository.clone(),
            tag: tag.clone(),
        }),
    }
}

/// What [`with_followers`] brought back.
struct Back {
    deleted_at: i64,
    others: u64,
}

/// Brings a manifest back and, as long as they can be restored, those that were there when it went: its children, and what is
/// about it. `gc.untagged` or a client deleted them after it.
async fn with_followers(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
    actor: &str,
) -> Result<Back, RestoreError> {
    let (deleted_at, children) = bring_back(registry, repository, digest, actor).await?;
    let mut others = 0;
    let mut back = vec![(digest.clone(), deleted_at, children)];
    while let Some((subject, since, mut followers)) = back.pop() {
        let about = rows::DeletedAbout {
            repository: repository.clone(),
            subject,
            since,
        };
        followers.extend(registry.meta.scan(about).await?);
        for follower in followers {
            let deleted = rows::GetDeleted {
                repository: repository.clone(),
                digest: follower.clone(),
            };
            let deleted = registry.meta.read(deleted).await?;
            if deleted.is_none_or(|deleted| deleted.deleted_at < since) {
                continue;
            }
            match bring_back(registry, repository, &follower, actor).await {
                Ok((deleted_at, children)) => {
                    others += 1;
                    back.push((follower, deleted_at, children));
                }
                // Its time ended in between, or somebody pushed it.
                Err(RestoreError::NoManifest { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Back { deleted_at, others })
}

/// Brings the manifest itself back; tells when it was deleted, and its children.
async fn bring_back(
    registry: &Registry,
    repository: &RepositoryName,
    digest: &Digest,
    actor: &str,
) -> Result<(i64, Vec<Digest>), RestoreError> {
    let none = || RestoreError::NoManifest {
        repository: repository.clone(),
        digest: digest.clone(),
    };
    let deleted = registry
        .meta
        .read(rows::GetDeleted {
            repository: repository.clone(),
            digest: digest.clone(),
        })
        .await?
        .ok_or_else(none)?;
    let bytes = Bytes::from(deleted.bytes);
    let parsed = Manifest::parse(Some(&deleted.media_type), &bytes, &Limits::default())
        .map_err(|error| Error::ManifestInvalid(error.to_string()))?;
    let referrer = parsed
        .subject
        .is_some()
        .then(|| ReferrerDescriptor::of(&parsed, digest.clone(), bytes.len() as u64).to_json());
    let children = parsed.manifests.iter();
    let children: Vec<Digest> = children.map(|child| child.digest.clone()).collect();
    let mut after = None;
    loop {
        let restored = registry
            .meta
            .write(rows::Restore {
                repository: repository.clone(),
                digest: digest.clone(),
                after: after.take(),
                referrer_json: referrer.clone(),
                actor: actor.to_owned(),
                at: registry.clock.now_ms(),
            })
            .await?;
        match restored {
            rows::Restored::Done => return Ok((deleted.deleted_at, children)),
            rows::Restored::More(last) => after = Some(last),
            rows::Restored::Unknown => return Err(none()),
        }
    }
}

async fn point(
    registry: &Registry,
    repository: &RepositoryName,
    tag: &Tag,
    digest: &Digest,
    expect: Option<&Digest>,
    actor: &str,
) -> Result<tags::Restored, RestoreError> {
    Ok(registry
        .meta
        .write(tags::Restore {
            repository: repository.clone(),
            tag: tag.clone(),
            digest: digest.clone(),
            expect: expect.cloned(),
            actor: actor.to_owned(),
            at: registry.clock.now_ms(),
        })
        .await?)
}

/// What happened in a repository lately: moves of tags, and manifests that can be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Moves of tags, the latest first.
    pub moves: Vec<tags::Move>,
    /// Deleted manifests that can be restored, the latest first, each with the end of its time in milliseconds since 1970.
    pub deleted: Vec<(restorable::Restorable, i64)>,
}

/// Where a page of deleted manifests ends: when the last one was deleted, and its digest.
pub type DeletedBefore = (i64, String);

/// A page of the deleted manifests that can be restored, as in [`History`], and where the next one begins, if there is more.
pub async fn deleted(
    registry: &Registry,
    repository: &RepositoryName,
    before: Option<DeletedBefore>,
    limit: u32,
) -> Result<(Vec<(restorable::Restorable, i64)>, Option<DeletedBefore>)> {
    let list = restorable::List {
        repository: repository.clone(),
        before,
        limit: limit + 1,
    };
    let mut rows = registry.meta.scan(list).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let last = rows.last().filter(|_| more);
    let next = last.map(|last| (last.deleted_at, last.digest.to_string()));
    let window = registry.rules.load().restore.of(repository);
    let open = rows.into_iter().filter(|row| !row.purging);
    let open = open.map(|row| {
        let until = row.deleted_at + window;
        (row, until)
    });
    Ok((open.collect(), next))
}

/// Looks that up; of one tag only with `tag`.
pub async fn history(
    registry: &Registry,
    repository: &RepositoryName,
    tag: Option<&Tag>,
    limit: u32,
) -> Result<History> {
    let moves = registry
        .meta
        .scan(tags::History {
            repository: repository.clone(),
            tag: tag.cloned(),
            limit,
        })
        .await?;
    let deleted = match tag {
        Some(_) => Vec::new(),
        None => {
            let list = restorable::List {
                repository: repository.clone(),
                before: None,
                limit,
            };
            let window = registry.rules.load().restore.of(repository);
            let rows = registry.meta.scan(list).await?;
            let open = rows.into_iter().filter(|row| !row.purging);
            open.map(|row| {
                let until = row.deleted_at + window;
                (row, until)
            })
            .collect()
        }
    };
    Ok(History { moves, deleted })
}
