//! Pushing a manifest.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::json;
use wharf_oci::{Digest, EdgeKind, RepositoryName, Tag};

use super::{EdgeRow, MAX_EDGES, MAX_TAGS, PIN_MS, kind_name, state};
use crate::error::{Error, Result};
use crate::ops::event::{self, Fact, Kind};
use crate::ops::tag::Change;
use crate::ops::{blob, repository, restorable};
use crate::tx::{Counter, Op, Tx};
use crate::vals;
use crate::value::Id;

/// What the first tag must be for the push to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Anything.
    Any,
    /// Absent (`If-None-Match: *`).
    Absent,
    /// It must point somewhere.
    Present,
    /// Pointing to this manifest (`If-Match`).
    Digest(Digest),
}

/// What became of [`Put`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PutOutcome {
    /// The manifest is there and all tags point to it.
    Stored {
        /// It was not there before.
        created: bool,
    },
    /// The repository lacks these targets. Nothing was done.
    Missing(Vec<Digest>),
    /// A target has another size than the manifest states. Nothing was done.
    SizeMismatch {
        /// The target.
        digest: Digest,
        /// The size that the manifest states.
        expected: u64,
        /// The size that it has.
        actual: u64,
    },
    /// The first tag is not as expected. Nothing was done.
    ExpectationFailed,
    /// Whoever pushes may not do this to a tag. Nothing was done.
    TagDenied {
        /// The tag.
        tag: Tag,
        /// It exists, and would move; otherwise it would be made.
        exists: bool,
    },
    /// The references sent before by [`PutEdges`] are not there (any more): send them again.
    PinsLost,
}

/// Stores a manifest with its references and points tags to it. Doing it again changes nothing.
///
/// Locks the manifest's row, each manifest, blob and link that it relies on, and the tags; so a blob cannot be unlinked
/// between the check and the commit. Targets are looked up among manifests (for children) and then blobs (MPUT-11). Cost: two
/// rows for each reference, four for each tag, five more.
#[derive(Clone, Debug)]
pub struct Put {
    /// The repository; made if absent.
    pub repository: RepositoryName,
    /// The manifest, verified by the caller.
    pub digest: Digest,
    /// The bare media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What it refers to, [`MAX_EDGES`] at most, each target once or more; the subject is none of them.
    pub edges: Vec<EdgeRow>,
    /// How many different targets came before through [`PutEdges`]; 0 for a manifest that needs none.
    pub pinned: u32,
    /// Whether the stated sizes of targets that exist must be right.
    pub check_sizes: bool,
    /// The manifest's subject.
    pub subject: Option<Digest>,
    /// The artifact type by which it is found as a referrer (REF-4).
    pub artifact_type: Option<String>,
    /// Its descriptor in the list of referrers; needed when there is a subject.
    pub referrer_json: Option<String>,
    /// The tags to point to it, [`MAX_TAGS`] at most.
    pub tags: Vec<Tag>,
    /// Those of the tags that this push may make and not move.
    pub fixed: Vec<Tag>,
    /// Those of the tags that this push may move and not make.
    pub unmade: Vec<Tag>,
    /// What the first tag must be.
    pub expect: Expect,
    /// The principal.
    pub actor: String,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Put {
    type Out = PutOutcome;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<PutOutcome> {
        within("references of a manifest", self.edges.len(), MAX_EDGES)?;
        within("tags of a push", self.tags.len(), MAX_TAGS)?;
        let repository = repository::find(tx, &self.repository).await?;
        let known = match &repository {
            Some(repository) => find(tx, repository, &self.digest).await?,
            None => None,
        };
        match check(tx, repository.as_ref(), &self.edges, self.check_sizes).await? {
            Checked::Fine => {}
            Checked::Missing(digests) => return Ok(PutOutcome::Missing(digests)),
            Checked::Size {
                digest,
                expected,
                actual,
            } => {
                return Ok(PutOutcome::SizeMismatch {
                    digest,
                    expected,
                    actual,
                });
            }
        }
        if self.pinned > 0 && !self.pins_hold(tx, known.as_ref()).await? {
            return Ok(PutOutcome::PinsLost);
        }
        let tags: BTreeSet<&Tag> = self.tags.iter().collect();
        let mut currents = BTreeMap::new();
        if let Some(id) = &repository {
            for &tag in &tags {
                if let Some(current) = self.change(id).current(tx, tag.as_str()).await? {
                    currents.insert(tag, current);
                }
            }
        }
        let first = self.tags.first().and_then(|tag| currents.get(tag));
        let as_expected = match &self.expect {
            Expect::Any => true,
            Expect::Absent => first.is_none(),
            Expect::Present => first.is_some(),
            Expect::Digest(digest) => first.is_some_and(|current| current.digest == *digest),
        };
        if !as_expected {
            return Ok(PutOutcome::ExpectationFailed);
        }
        // Under the tags' locks: what is made meanwhile by another push is seen, or this one runs anew.
        for &tag in &tags {
            let stands = currents.get(tag).map(|current| &current.digest);
            let denied = match stands {
                Some(digest) => *digest != self.digest && self.fixed.contains(tag),
                None => self.unmade.contains(tag),
            };
            if denied {
                let (tag, exists) = (tag.clone(), stands.is_some());
                return Ok(PutOutcome::TagDenied { tag, exists });
            }
        }

        let repository = match repository {
            Some(id) => id,
            None => repository::ensure(tx, &self.repository, self.at).await?,
        };
        let created = known
            .as_ref()
            .is_none_or(|known| known.state != state::LIVE);
        tx.touch(&self.repository, self.digest.as_str());
        let id = match known {
            Some(known) => {
                if created || known.media_type != self.media_type {
                    self.update(tx, &known.id).await?;
                    let size = i64::try_from(self.bytes.len()).unwrap_or(i64::MAX);
                    tx.usage(&repository, size - known.counted).await?;
                }
                if created {
                    restorable::forget(tx, &known.id).await?;
                }
                known.id
            }
            None => self.insert(tx, &repository).await?,
        };
        if created {
            insert_edges(tx, &repository, &id, &self.edges).await?;
            tx.count(Counter::Manifests, 1).await?;
            self.record(tx).await?;
        }
        self.refer(tx, &repository).await?;
        let change = self.change(&repository);
        for tag in tags {
            let current = currents.get(tag);
            change.point(tx, tag, current, &id, &self.digest).await?;
        }
        Ok(PutOutcome::Stored { created })
    }
}

impl Put {
    fn change<'a>(&'a self, repository: &'a Id) -> Change<'a> {
        Change {
            repository,
            name: &self.repository,
            actor: &self.actor,
            cause: "pushed",
            at: self.at,
        }
    }

    async fn pins_hold<T: Tx>(&self, tx: &mut T, known: Option<&Known>) -> Result<bool> {
        let Some(known) = known else { return Ok(false) };
        let fresh = known.state == state::LIVE
            || (known.state == state::PENDING && known.changed_at > self.at - PIN_MS);
        if !fresh {
            return Ok(false);
        }
        let row = tx
            .row(
                "SELECT COUNT(*) FROM manifest_reference WHERE manifest_id = $1 AND live = 1",
                vals![&known.id],
            )
            .await?;
        let count = row.map_or(Ok(0), |mut row| row.int(0))?;
        Ok(count >= i64::from(self.pinned))
    }

    async fn insert<T: Tx>(&self, tx: &mut T, repository: &Id) -> Result<Id> {
        let id = tx.id(self.at);
        let made = tx
            .exec(
                "INSERT INTO manifest (id, repository_id, digest, media_type, artifact_type, subject, size, state, swept, \
                 created_at, changed_at, counted) VALUES ($1, $2, $3, $4, $5, $6, $7, 1, 0, $8, $8, $7) \
                 ON CONFLICT (repository_id, digest) DO NOTHING",
                vals![
                    &id,
                    repository,
                    &self.digest,
                    &self.media_type,
                    self.artifact_type.as_deref(),
                    self.subject.as_ref(),
                    self.bytes.len() as u64,
                    self.at
                ],
            )
            .await?;
        if made == 0 {
            // PostgreSQL only: made by another transaction since it was looked for. All is undone and tried anew.
            return Err(Error::Busy(
                "a manifest was made by two pushes at once".into(),
            ));
        }
        self.put_bytes(tx, &id).await?;
        let size = i64::try_from(self.bytes.len()).unwrap_or(i64::MAX);
        tx.usage(repository, size).await?;
        Ok(id)
    }

    async fn update<T: Tx>(&self, tx: &mut T, id: &Id) -> Result<()> {
        tx.exec(
            "UPDATE manifest SET media_type = $2, artifact_type = $3, subject = $4, size = $5, state = 1, swept = 0, \
             changed_at = $6, counted = $5 WHERE id = $1",
            vals![
                id,
                &self.media_type,
                self.artifact_type.as_deref(),
                self.subject.as_ref(),
                self.bytes.len() as u64,
                self.at
            ],
        )
        .await?;
        self.put_bytes(tx, id).await
    }

    async fn put_bytes<T: Tx>(&self, tx: &mut T, id: &Id) -> Result<()> {
        tx.exec(
            "INSERT INTO manifest_inline (manifest_id, bytes) VALUES ($1, $2) \
             ON CONFLICT (manifest_id) DO UPDATE SET bytes = excluded.bytes",
            vals![id, &self.bytes],
        )
        .await?;
        Ok(())
    }

    async fn refer<T: Tx>(&self, tx: &mut T, repository: &Id) -> Result<()> {
        let (Some(subject), Some(descriptor)) = (&self.subject, &self.referrer_json) else {
            return Ok(());
        };
        let artifact_type = self.artifact_type.as_deref().unwrap_or("");
        tx.exec(
            "INSERT INTO referrer (repository_id, subject, digest, artifact_type, descriptor) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (repository_id, subject, digest) DO UPDATE SET artifact_type = excluded.artifact_type, \
             descriptor = excluded.descriptor",
            vals![repository, subject, &self.digest, artifact_type, descriptor],
        )
        .await?;
        Ok(())
    }

    async fn record<T: Tx>(&self, tx: &mut T) -> Result<()> {
        let fact = Fact {
            kind: Kind::ManifestPush,
            repository: Some(&self.repository),
            digest: Some(&self.digest),
            tag: None,
            actor: &self.actor,
            at: self.at,
            payload: json!({
                "media_type": self.media_type,
                "artifact_type": self.artifact_type,
                "size": self.bytes.len(),
                "subject": self.subject.as_ref().map(Digest::as_str),
            }),
        };
        event::record(tx, fact).await
    }
}

/// What became of [`PutEdges`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pinned {
    /// The targets are held for [`PIN_MS`].
    Done,
    /// The repository lacks these targets. Nothing was done.
    Missing(Vec<Digest>),
    /// As [`PutOutcome::SizeMismatch`]. Nothing was done.
    SizeMismatch {
        /// The target.
        digest: Digest,
        /// The size that the manifest states.
        expected: u64,
        /// The size that it has.
        actual: u64,
    },
}

/// Brings a part of the references of a large manifest, before its [`Put`]. They hold their targets for [`PIN_MS`], so
/// that the checks made here still stand when the manifest comes. Doing it again changes nothing. Locks as [`Put`] does.
/// Cost: two rows for each reference.
#[derive(Clone, Debug)]
pub struct PutEdges {
    /// The repository; made if absent.
    pub repository: RepositoryName,
    /// The manifest to come.
    pub digest: Digest,
    /// A part of its references, [`MAX_EDGES`] at most.
    pub edges: Vec<EdgeRow>,
    /// As in [`Put`].
    pub check_sizes: bool,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for PutEdges {
    type Out = Pinned;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Pinned> {
        within("references in one part", self.edges.len(), MAX_EDGES)?;
        let repository = repository::find(tx, &self.repository).await?;
        let known = match &repository {
            Some(repository) => find(tx, repository, &self.digest).await?,
            None => None,
        };
        match check(tx, repository.as_ref(), &self.edges, self.check_sizes).await? {
            Checked::Fine => {}
            Checked::Missing(digests) => return Ok(Pinned::Missing(digests)),
            Checked::Size {
                digest,
                expected,
                actual,
            } => {
                return Ok(Pinned::SizeMismatch {
                    digest,
                    expected,
                    actual,
                });
            }
        }
        let repository = match repository {
            Some(id) => id,
            None => repository::ensure(tx, &self.repository, self.at).await?,
        };
        tx.touch(&self.repository, self.digest.as_str());
        let id = match known {
            // Its references are those of its digest: all are there.
            Some(known) if known.state == state::LIVE => return Ok(Pinned::Done),
            Some(known) => {
                tx.exec(
                    "UPDATE manifest SET state = 0, changed_at = $2 WHERE id = $1",
                    vals![&known.id, self.at],
                )
                .await?;
                known.id
            }
            None => self.pend(tx, &repository).await?,
        };
        insert_edges(tx, &repository, &id, &self.edges).await?;
        Ok(Pinned::Done)
    }
}

impl PutEdges {
    async fn pend<T: Tx>(&self, tx: &mut T, repository: &Id) -> Result<Id> {
        let id = tx.id(self.at);
        let made = tx
            .exec(
                "INSERT INTO manifest (id, repository_id, digest, media_type, size, state, swept, created_at, changed_at) \
                 VALUES ($1, $2, $3, '', 0, 0, 0, $4, $4) ON CONFLICT (repository_id, digest) DO NOTHING",
                vals![&id, repository, &self.digest, self.at],
            )
            .await?;
        if made == 0 {
            return Err(Error::Busy(
                "a manifest was made by two pushes at once".into(),
            ));
        }
        Ok(id)
    }
}

fn within(what: &'static str, got: usize, limit: usize) -> Result<()> {
    if got > limit {
        Err(Error::TooMuch { what, got, limit })
    } else {
        Ok(())
    }
}

struct Known {
    id: Id,
    state: i64,
    media_type: String,
    changed_at: i64,
    counted: i64,
}

/// Locks a manifest's row, whatever its state.
async fn find<T: Tx>(tx: &mut T, repository: &Id, digest: &Digest) -> Result<Option<Known>> {
    let row = tx
        .row(
            "SELECT id, state, media_type, changed_at, counted FROM manifest WHERE repository_id = $1 AND digest = $2 FOR UPDATE",
            vals![repository, digest],
        )
        .await?;
    row.map(|mut row| {
        Ok(Known {
            id: row.id(0)?,
            state: row.int(1)?,
            media_type: row.text(2)?,
            changed_at: row.int(3)?,
            counted: row.int(4)?,
        })
    })
    .transpose()
}

enum Checked {
    Fine,
    Missing(Vec<Digest>),
    Size {
        digest: Digest,
        expected: u64,
        actual: u64,
    },
}

/// Looks for every target that must exist, and at the sizes of those that do. Names all that are missing, each once.
async fn check<T: Tx>(
    tx: &mut T,
    repository: Option<&Id>,
    edges: &[EdgeRow],
    check_sizes: bool,
) -> Result<Checked> {
    let asked: Vec<&EdgeRow> = edges
        .iter()
        .filter(|edge| edge.must_exist || check_sizes)
        .collect();
    let sizes = match repository {
        Some(repository) => sizes_of(tx, repository, &asked).await?,
        None => HashMap::new(),
    };
    let mut missing: Vec<Digest> = Vec::new();
    let mut wrong = None;
    for edge in asked {
        match sizes.get(&sought(edge)) {
            Some(&actual) if check_sizes && actual != edge.size && wrong.is_none() => {
                wrong = Some(Checked::Size {
                    digest: edge.target.clone(),
                    expected: edge.size,
                    actual,
                });
            }
            None if edge.must_exist && !missing.contains(&edge.target) => {
                missing.push(edge.target.clone())
            }
            _ => {}
        }
    }
    if missing.is_empty() {
        Ok(wrong.unwrap_or(Checked::Fine))
    } else {
        Ok(Checked::Missing(missing))
    }
}

/// A target and where it is looked for: among manifests, among blobs.
type Sought<'a> = (&'a Digest, bool, bool);

fn sought(edge: &EdgeRow) -> Sought<'_> {
    let child = matches!(edge.kind, EdgeKind::Child);
    (
        &edge.target,
        child || edge.any_store,
        !child || edge.any_store,
    )
}

/// The sizes of targets, where each edge may find its own; locked against removal: manifests first, then blobs, each in the
/// order of their digests.
async fn sizes_of<'a, T: Tx>(
    tx: &mut T,
    repository: &Id,
    edges: &[&'a EdgeRow],
) -> Result<HashMap<Sought<'a>, u64>> {
    let ordered: BTreeSet<Sought<'a>> = edges.iter().map(|edge| sought(edge)).collect();
    let mut sizes = HashMap::with_capacity(ordered.len());
    for &target in &ordered {
        let (digest, among_manifests, _) = target;
        if among_manifests {
            let row = tx
                .row(
                    "SELECT size FROM manifest WHERE repository_id = $1 AND digest = $2 AND state = 1 FOR SHARE",
                    vals![repository, digest],
                )
                .await?;
            if let Some(mut row) = row {
                sizes.insert(target, row.size(0)?);
            }
        }
    }
    for &target in &ordered {
        let (digest, _, among_blobs) = target;
        if among_blobs
            && !sizes.contains_key(&target)
            && let Some(size) = blob::held(tx, repository, digest).await?
        {
            sizes.insert(target, size);
        }
    }
    Ok(sizes)
}

async fn insert_edges<T: Tx>(
    tx: &mut T,
    repository: &Id,
    manifest: &Id,
    edges: &[EdgeRow],
) -> Result<()> {
    for edge in edges {
        tx.exec(
            "INSERT INTO manifest_reference (manifest_id, target, repository_id, kind, size, live) \
             VALUES ($1, $2, $3, $4, $5, 1) ON CONFLICT (manifest_id, target) DO UPDATE SET live = 1",
            vals![manifest, &edge.target, repository, kind_name(edge.kind), edge.size],
        )
        .await?;
    }
    Ok(())
}
