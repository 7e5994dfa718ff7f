//! The outbox: what happened, written by the operations that made it so.
//!
//! Everything reactive starts here, the audit log included: `record` is the one place that an operation tells what it did, and
//! notes with it where that came from. Nobody else writes events, but through [`Record`] what changed nothing.

use serde_json::Value;
use wharf_oci::{Digest, RepositoryName};

use crate::error::Result;
use crate::origin::{self, ITSELF, Origin};
use crate::tx::{Op, ReadOp, Tx};
use crate::vals;
use crate::value::Row;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A repository came to hold a blob that was uploaded.
    BlobPush,
    /// A repository came to hold a blob of another one.
    BlobMount,
    /// A repository no longer holds a blob.
    BlobDelete,
    /// A blob's bytes were found to be lost or wrong.
    BlobCondemn,
    /// Collection took a blob out of a repository that did not need it, or its bytes out of the store.
    BlobCollect,
    /// A manifest came to be, or came back.
    ManifestPush,
    /// A manifest went; it can be restored for a while.
    ManifestDelete,
    /// A deleted manifest came back.
    ManifestRestore,
    /// A deleted manifest is gone for good.
    ManifestPurge,
    /// A tag was made or moved.
    TagMove,
    /// A tag went.
    TagDelete,
    /// An upload that nobody continued was forgotten, with what it held.
    UploadExpire,
    /// A binding, group, role or namespace came, changed or went.
    AccessChange,
    /// A user or robot was made.
    PrincipalCreate,
    /// A user or robot has another password or end, was locked out or let in again.
    PrincipalChange,
    /// A user or robot went.
    PrincipalRemove,
    /// A secret of a robot or an API token was made.
    CredentialCreate,
    /// A secret of a robot or an API token ends earlier than it would have.
    CredentialChange,
    /// A secret of a robot or an API token went.
    CredentialRemove,
    /// Somebody let a program on a machine sign in.
    DeviceApprove,
    /// Somebody did not.
    DeviceDeny,
    /// A terminal's refresh token came that was spent, so that the terminal ended.
    TerminalReuse,
    /// Somebody signed in.
    SignIn,
    /// Somebody was not let in, or may not do what was asked for.
    Refuse,
    /// Somebody read content.
    Read,
    /// Somebody read the audit log.
    AuditRead,
    /// Old entries of the audit log were cut off.
    AuditCut,
    /// Whoever runs the registry gave a command.
    OperatorCommand,
    /// More happened than could be noted one by one.
    Overflow,
}

impl Kind {
    /// The stored name: noun, dot, verb.
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::BlobPush => "blob.push",
            Kind::BlobMount => "blob.mount",
            Kind::BlobDelete => "blob.delete",
            Kind::BlobCondemn => "blob.condemn",
            Kind::BlobCollect => "blob.collect",
            Kind::ManifestPush => "manifest.push",
            Kind::ManifestDelete => "manifest.delete",
            Kind::ManifestRestore => "manifest.restore",
            Kind::ManifestPurge => "manifest.purge",
            Kind::TagMove => "tag.move",
            Kind::TagDelete => "tag.delete",
            Kind::UploadExpire => "upload.expire",
            Kind::AccessChange => "access.change",
            Kind::PrincipalCreate => "principal.create",
            Kind::PrincipalChange => "principal.change",
            Kind::PrincipalRemove => "principal.remove",
            Kind::CredentialCreate => "credential.create",
            Kind::CredentialChange => "credential.change",
            Kind::CredentialRemove => "credential.remove",
            Kind::DeviceApprove => "device.approve",
            Kind::DeviceDeny => "device.deny",
            Kind::TerminalReuse => "terminal.reuse",
            Kind::SignIn => "sign-in",
            Kind::Refuse => "refuse",
            Kind::Read => "read",
            Kind::AuditRead => "audit.read",
            Kind::AuditCut => "audit.cut",
            Kind::OperatorCommand => "operator.command",
            Kind::Overflow => "audit.overflow",
        }
    }
}

/// A fact to record.
pub(crate) struct Fact<'a> {
    pub(crate) kind: Kind,
    /// What it is about, or a namespace.
    pub(crate) repository: Option<&'a RepositoryName>,
    pub(crate) digest: Option<&'a Digest>,
    pub(crate) tag: Option<&'a str>,
    /// Counts where nobody said whom the work under way comes from; `""` is the registry itself.
    pub(crate) actor: &'a str,
    pub(crate) at: i64,
    /// An object. `before` and `after` in it are what the fact changed; no secret and no hash of one ever is.
    pub(crate) payload: Value,
}

/// Writes one event row, with where the work under way comes from.
pub(crate) async fn record<T: Tx>(tx: &mut T, mut fact: Fact<'_>) -> Result<()> {
    let origin = origin::current();
    let origin = origin.as_deref();
    if let (Some(origin), Some(payload)) = (origin, fact.payload.as_object_mut())
        && !origin.rule().is_empty()
    {
        payload.insert("rule".to_owned(), Value::from(origin.rule()));
    }
    // What the registry does on somebody's behalf, it does as theirs.
    let named = [origin.map_or("", |origin| &origin.actor), fact.actor];
    let actor = named.into_iter().find(|name| !name.is_empty());
    let came = |part: fn(&Origin) -> &str| origin.map_or("", part);
    let note = Note {
        kind: fact.kind,
        at: fact.at,
        repository: fact.repository.map(RepositoryName::as_str),
        digest: fact.digest.map(Digest::as_str),
        tag: fact.tag,
        actor: actor.unwrap_or(ITSELF),
        payload: &fact.payload.to_string(),
        credential: came(|origin| &origin.credential),
        address: came(|origin| &origin.address),
        request: came(|origin| &origin.request),
    };
    note.write(tx).await
}

/// The namespace that a robot belongs to, from its name.
pub(crate) fn namespace_of(kind: &str, name: &str) -> Option<RepositoryName> {
    let (namespace, _) = name.split_once('+').filter(|_| kind == "robot")?;
    RepositoryName::parse(namespace).ok()
}

/// A row to write.
struct Note<'a> {
    kind: Kind,
    at: i64,
    repository: Option<&'a str>,
    digest: Option<&'a str>,
    tag: Option<&'a str>,
    actor: &'a str,
    payload: &'a str,
    credential: &'a str,
    address: &'a str,
    request: &'a str,
}

impl Note<'_> {
    async fn write<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.exec(
            "INSERT INTO event (at, kind, repository, digest, tag, actor, payload, credential, address, request) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            vals![
                self.at,
                self.kind.as_str(),
                self.repository,
                self.digest,
                self.tag,
                self.actor,
                self.payload,
                self.credential,
                self.address,
                self.request
            ],
        )
        .await?;
        Ok(())
    }
}

/// Something that happened without changing anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happened {
    /// What.
    pub kind: Kind,
    /// Milliseconds since 1970.
    pub at: i64,
    /// The repository or namespace, if it is about one.
    pub repository: Option<String>,
    /// The blob or manifest, if it is about one.
    pub digest: Option<String>,
    /// The tag, if it is about one.
    pub tag: Option<String>,
    /// The JSON object with what else is known.
    pub payload: Value,
    /// Who, and where it came from; its rule is not looked at.
    pub origin: Origin,
}

/// Records what happened without changing anything: sign-ins, refusals, reads. Cost: a row for each of [`MOST_NOTES`].
#[derive(Clone, Debug)]
pub struct Record {
    /// What; the rest is not written.
    pub happened: Vec<Happened>,
}

/// So many rows [`Record`] writes at most.
pub const MOST_NOTES: usize = 300;

impl Op for Record {
    type Out = ();

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        for one in self.happened.iter().take(MOST_NOTES) {
            let note = Note {
                kind: one.kind,
                at: one.at,
                repository: one.repository.as_deref(),
                digest: one.digest.as_deref(),
                tag: one.tag.as_deref(),
                actor: &one.origin.actor,
                payload: &one.payload.to_string(),
                credential: &one.origin.credential,
                address: &one.origin.address,
                request: &one.origin.request,
            };
            note.write(tx).await?;
        }
        Ok(())
    }
}

/// An event as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRow {
    /// Grows with every event, never used twice.
    pub id: i64,
    /// Milliseconds since 1970.
    pub at: i64,
    /// [`Kind::as_str`].
    pub kind: String,
    /// The repository, if it is about one.
    pub repository: Option<String>,
    /// The blob or manifest, if it is about one.
    pub digest: Option<String>,
    /// The tag, if it is about one.
    pub tag: Option<String>,
    /// The principal's name.
    pub actor: String,
    /// JSON object with what else is known.
    pub payload: String,
    /// The id of the credential, or how the principal signed in without one; empty: unknown.
    pub credential: String,
    /// The client's address; empty: unknown.
    pub address: String,
    /// The request's id; empty: no request.
    pub request: String,
    /// Which transaction wrote it; 0 where one writer writes. Consumers go by this before they go by the id.
    pub transaction: i64,
}

fn event(mut row: Row) -> Result<EventRow> {
    Ok(EventRow {
        id: row.int(0)?,
        at: row.int(1)?,
        kind: row.text(2)?,
        repository: row.opt_text(3)?,
        digest: row.opt_text(4)?,
        tag: row.opt_text(5)?,
        actor: row.text(6)?,
        payload: row.text(7)?,
        transaction: row.int(8)?,
        credential: row.text(9)?,
        address: row.text(10)?,
        request: row.text(11)?,
    })
}

/// Events after an id, oldest first. Cost: the rows given.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// The last id already seen; 0 for all.
    pub after: i64,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for List {}
impl Op for List {
    type Out = Vec<EventRow>;
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let rows = tx
            .query(
                "SELECT id, at, kind, repository, digest, tag, actor, payload, transaction_id, credential, address, \
                 request FROM event WHERE id > $1 ORDER BY id LIMIT $2",
                vals![self.after, self.limit],
            )
            .await?;
        rows.into_iter().map(event).collect()
    }
}

/// Events that a consumer has not seen yet, oldest first; a consumer that is new begins with the oldest one there is. Gives none
/// that a transaction under way may still put another before. Cost: the rows given and one.
#[derive(Clone, Debug)]
pub struct Next {
    /// The consumer.
    pub consumer: String,
    /// At most so many.
    pub limit: u32,
}

impl ReadOp for Next {}
impl Op for Next {
    type Out = Vec<EventRow>;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Self::Out> {
        let before = tx.oldest_transaction().await?.unwrap_or(i64::MAX);
        let cursor = tx
            .row(
                "SELECT seen_transaction, seen FROM event_cursor WHERE consumer = $1",
                vals![&self.consumer],
            )
            .await?;
        let (transaction, id) = cursor.map_or(Ok((0, 0)), |mut row| {
            Ok::<_, crate::Error>((row.int(0)?, row.int(1)?))
        })?;
        let rows = tx
            .query(
                "SELECT id, at, kind, repository, digest, tag, actor, payload, transaction_id, credential, address, \
                 request FROM event WHERE (transaction_id, id) > ($1, $2) AND transaction_id < $3 ORDER BY transaction_id, id LIMIT $4",
                vals![transaction, id, before, self.limit],
            )
            .await?;
        rows.into_iter().map(event).collect()
    }
}

/// Moves a consumer's cursor forward, never back: to be called when it is done with all events up to this one. A crash before
/// that gives it the same events again. Cost: one row.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The consumer.
    pub consumer: String,
    /// The transaction of the last event that it is done with.
    pub transaction: i64,
    /// Its id.
    pub id: i64,
    /// Milliseconds since 1970.
    pub at: i64,
}

impl Op for Seen {
    type Out = ();
    const SINGLE: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.exec(
            "INSERT INTO event_cursor (consumer, seen_transaction, seen, moved_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (consumer) DO UPDATE SET seen_transaction = excluded.seen_transaction, seen = excluded.seen, \
             moved_at = excluded.moved_at WHERE (event_cursor.seen_transaction, event_cursor.seen) < \
             (excluded.seen_transaction, excluded.seen)",
            vals![&self.consumer, self.transaction, self.id, self.at],
        )
        .await?;
        Ok(())
    }
}

/// Forgets a consumer, so that nothing waits for it. Cost: one row.
#[derive(Clone, Debug)]
pub struct Leave {
    /// The consumer.
    pub consumer: String,
}

impl Op for Leave {
    type Out = ();
    const SINGLE: bool = true;
    const FREES: bool = true;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<()> {
        tx.exec(
            "DELETE FROM event_cursor WHERE consumer = $1",
            vals![&self.consumer],
        )
        .await?;
        Ok(())
    }
}

/// Lets events go that are older than a time.
#[derive(Clone, Copy, Debug)]
pub struct Trim {
    /// Milliseconds since 1970.
    pub before: i64,
    /// Older than this they go even if a consumer has not seen them.
    pub unseen_before: i64,
}

/// What became of [`Trim`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// Events that went; 0: none is left to go.
    pub events: u64,
    /// A consumer that had not seen all of them.
    pub unseen_by: Option<String>,
}

impl Op for Trim {
    type Out = Trimmed;
    const FREES: bool = true;

    /// Cost: 200 rows.
    async fn run<T: Tx>(&self, tx: &mut T) -> Result<Trimmed> {
        let slowest = tx
            .row(
                "SELECT consumer, seen_transaction, seen FROM event_cursor ORDER BY seen_transaction, seen LIMIT 1",
                vals![],
            )
            .await?;
        let slowest = slowest
            .map(|mut row| Ok::<_, crate::Error>((row.text(0)?, (row.int(1)?, row.int(2)?))))
            .transpose()?;
        let rows = tx
            .query(
                "SELECT id, at, transaction_id FROM event ORDER BY transaction_id, id LIMIT 200",
                vals![],
            )
            .await?;
        let mut trimmed = Trimmed::default();
        for mut row in rows {
            let (id, at, transaction) = (row.int(0)?, row.int(1)?, row.int(2)?);
            let unseen = slowest
                .as_ref()
                .filter(|(_, seen)| (transaction, id) > *seen);
            let bound = match unseen {
                Some(_) => self.unseen_before,
                None => self.before,
            };
            if at >= bound {
                break;
            }
            if let Some((consumer, _)) = unseen {
                trimmed.unseen_by = Some(consumer.clone());
            }
            trimmed.events += tx
                .exec("DELETE FROM event WHERE id = $1", vals![id])
                .await?;
        }
        Ok(trimmed)
    }
}
