//! Writing an upload to an object store.
//!
//! Bytes gather in blocks until they are a part; then they go out and are hashed on the way. Two parts are in memory,
//! never more: while one is under way the next gathers and follows it, and the one after that waits for the first. What
//! is less than a part at a checkpoint is handed to the rows, and read back from there only when the part is to be
//! sent. A blob that never filled a part is one PUT.
//!
//! A part that was sent and not claimed harms nobody: completing names each part by its tag, and the store takes exactly
//! those bytes or refuses. So a writer that lost the upload to another one can at worst end the session, never mix two.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use object_store::PutPayload;
use object_store::multipart::PartId;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wharf_oci::{Algorithm, Digest};

use super::blocks::Blocks;
use super::gate::{Call, told};
use super::read::missing;
use super::{Engine, plan};
use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::key::Key;
use crate::store::{
    BoxFuture, Checkpoint, Fresh, Ledger, Multipart, Parts, StoredPart, UploadWriter,
};

/// The bytes of `pieces` from `skip` on.
fn after(pieces: &[Bytes], mut skip: u64) -> impl Iterator<Item = &[u8]> {
    pieces.iter().filter_map(move |piece| {
        let here = skip.min(piece.len() as u64);
        skip -= here;
        let rest = piece.get(usize::try_from(here).unwrap_or(usize::MAX)..)?;
        (!rest.is_empty()).then_some(rest)
    })
}

/// Parts that are sent at once: they and the one that gathers are never more than two.
const UNDER_WAY: usize = 2;

/// A task that ends with whoever waits for it.
struct Under<T>(JoinHandle<T>);

impl<T> Drop for Under<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The hash of all parts up to one, or `None` when it is of no use.
type Hashed = Result<Option<Hasher>>;

pub(super) struct ObjectWriter {
    engine: Arc<Engine>,
    ledger: Arc<dyn Ledger>,
    algorithm: Algorithm,
    /// `None` while a part is under way, or when the saved state was of no use: then the object is read at the end.
    hasher: Option<Hasher>,
    /// The hash of all parts that are under way.
    hashing: Option<oneshot::Receiver<Hashed>>,
    /// [`Checkpoint::epoch`].
    epoch: i64,
    /// Bytes accepted.
    offset: u64,
    expected: Option<u64>,
    multipart: Option<Multipart>,
    /// Parts that rows claimed when the writer was opened.
    claimed: u64,
    /// Parts acknowledged since.
    sent: Vec<StoredPart>,
    /// How many of these rows have been told of.
    told: usize,
    /// Parts acknowledged or under way, and their bytes.
    count: u64,
    bytes: u64,
    /// Bytes behind the parts that rows have and memory has not.
    owed: u64,
    /// Bytes behind the parts that rows have.
    in_rows: u64,
    buffer: Blocks,
    /// Parts under way, in their order; with the one that gathers two at most.
    flights: VecDeque<Under<Result<StoredPart>>>,
    fresh: Fresh,
    published: Option<Key>,
    /// Where an earlier request has completed the upload: no part is taken any more.
    completed: Option<Key>,
    poisoned: bool,
}

impl ObjectWriter {
    pub(super) fn open(
        engine: &Arc<Engine>,
        from: &Checkpoint,
        algorithm: Algorithm,
        ledger: &Arc<dyn Ledger>,
    ) -> Result<Self> {
        let (multipart, count, bytes) = match &from.parts {
            Some(parts) => (Some(parts.multipart.clone()), parts.count, parts.bytes),
            None => (None, 0, 0),
        };
        let tail = from.offset.checked_sub(bytes).ok_or(Error::UploadLost)?;
        let saved = Hasher::restore(&from.hash)
            .filter(|hasher| hasher.algorithm() == algorithm && hasher.length() == from.offset);
        // Without parts all bytes are at hand again before they go out.
        let afresh = || (count == 0).then(|| Hasher::new(algorithm));
        Ok(Self {
            engine: engine.clone(),
            ledger: ledger.clone(),
            algorithm,
            hasher: saved.or_else(afresh),
            hashing: None,
            epoch: from.epoch,
            offset: from.offset,
            expected: None,
            multipart,
            claimed: count,
            sent: Vec::new(),
            told: 0,
            count,
            bytes,
            owed: tail,
            in_rows: tail,
            buffer: Blocks::default(),
            flights: VecDeque::new(),
            fresh: Fresh::default(),
            published: None,
            completed: None,
            poisoned: false,
        })
    }

    /// Runs an operation, and remembers for good when it failed.
    async fn guarded<T>(&mut self, body: impl AsyncFnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.poisoned {
            return Err(Error::Poisoned);
        }
        // A future that is dropped in the middle leaves the writer poisoned, too.
        self.poisoned = true;
        let outcome = body(self).await;
        self.poisoned = outcome.is_err();
        outcome
    }

    /// Size of the part that gathers now.
    fn part_size(&self) -> u64 {
        let first = match &self.multipart {
            Some(multipart) => multipart.part_size,
            None => plan::first(self.engine.part_size, self.expected),
        };
        plan::size(first, self.count)
    }

    /// Appends. When the parts turn out to be an object already, made by a request that was cut off, the bytes are there if
    /// this request sends what that one did; [`Self::end`] compares.
    async fn append(&mut self, bytes: Bytes) -> Result<()> {
        if self.published.is_some() {
            return Err(Error::UploadLost);
        }
        let end = self.offset + bytes.len() as u64;
        if self.completed.is_none() {
            match self.gather(bytes).await {
                Err(Error::UploadLost) => self.completed = Some(self.completed_before().await?.0),
                outcome => return outcome,
            }
            self.forget();
        }
        self.offset = end;
        Ok(())
    }

    /// Nothing that was gathered is needed any more.
    fn forget(&mut self) {
        self.buffer = Blocks::default();
        self.owed = 0;
        self.flights.clear();
        self.hashing = None;
        self.hasher = None;
    }

    async fn gather(&mut self, mut bytes: Bytes) -> Result<()> {
        while !bytes.is_empty() {
            let room = self.part_size() - self.owed - self.buffer.length();
            // A part goes out when something follows it, so that the last one need not be a part of its own.
            if room == 0 {
                self.send().await?;
                continue;
            }
            if self.buffer.length() == 0 && self.flights.len() == UNDER_WAY {
                self.land_one().await?;
            }
            if self.owed > 0 && bytes.len() as u64 >= room {
                self.recall().await?;
            }
            let now = bytes.split_to(usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len()));
            self.buffer.push(&now);
            self.offset += now.len() as u64;
        }
        Ok(())
    }

    /// Brings the tail back from the rows.
    async fn recall(&mut self) -> Result<()> {
        if self.owed == 0 {
            return Ok(());
        }
        // What was claimed by this writer since stands there behind what it owes.
        let tail = self.ledger.tail().await?;
        let owed = usize::try_from(self.owed).unwrap_or(usize::MAX);
        let Some(owed) = tail
            .get(..owed)
            .filter(|_| tail.len() as u64 == self.in_rows)
        else {
            return Err(Error::UploadLost);
        };
        let gathered = self.buffer.take().pieces();
        self.buffer.push(owed);
        for piece in gathered {
            self.buffer.push(&piece);
        }
        self.owed = 0;
        Ok(())
    }

    /// Waits for the first part that is under way.
    async fn land_one(&mut self) -> Result<()> {
        if let Some(mut flight) = self.flights.pop_front() {
            let outcome = (&mut flight.0).await;
            self.sent.push(outcome.map_err(|_| Error::Poisoned)??);
        }
        Ok(())
    }

    /// Waits for all parts that are under way, and for their hash.
    async fn land(&mut self) -> Result<()> {
        while !self.flights.is_empty() {
            self.land_one().await?;
        }
        if let Some(hashing) = self.hashing.take() {
            self.hasher = hashing.await.map_err(|_| Error::Poisoned)??;
        }
        Ok(())
    }

    /// Sends what has gathered as the next part.
    async fn send(&mut self) -> Result<()> {
        self.recall().await?;
        if self.count >= plan::PARTS {
            let limit = plan::most(self.engine.part_size);
            return Err(Error::TooLarge { limit });
        }
        let multipart = self.session().await?;
        let size = self.buffer.length();
        let pieces = self.buffer.take().pieces();
        let (engine, before, hasher) =
            (self.engine.clone(), self.hashing.take(), self.hasher.take());
        let (number, start) = (self.count, self.bytes);
        let (hashed, hashing) = oneshot::channel();
        self.hashing = Some(hashing);
        self.flights.push_back(Under(tokio::spawn(async move {
            let hash = async {
                let hasher = match before {
                    Some(before) => before.await.map_err(|_| Error::Poisoned)??,
                    None => hasher,
                };
                hash(&engine, hasher, start, pieces.clone()).await
            };
            // Whoever gave the upload up does not ask.
            let hash = async { hashed.send(hash.await).ok() };
            let put = put_part(&engine, &multipart, number, size, pieces.clone());
            tokio::join!(hash, put).1
        })));
        self.count += 1;
        self.bytes += size;
        self.in_rows = 0;
        Ok(())
    }

    /// The multipart upload, begun and noted if there is none yet.
    async fn session(&mut self) -> Result<Multipart> {
        if let Some(multipart) = &self.multipart {
            return Ok(multipart.clone());
        }
        let part_size = self.part_size();
        let multipart = self.engine.begin(Key::unnamed(), part_size).await?;
        if let Err(error) = self.ledger.begun(&multipart).await {
            // Nobody will ever know of it.
            let _ = self.engine.abort(&multipart).await;
            return Err(error);
        }
        self.multipart = Some(multipart.clone());
        Ok(multipart)
    }

    /// Hashes all that was accepted, as far as that is possible before the end.
    async fn hash_all(&mut self) -> Result<()> {
        let Some(hasher) = &self.hasher else {
            return Ok(());
        };
        if hasher.length() < self.bytes + self.owed {
            self.recall().await?;
        }
        let start = self.bytes + self.owed;
        let pieces = self.buffer.pieces();
        self.hasher = hash(&self.engine, self.hasher.take(), start, pieces).await?;
        Ok(())
    }

    async fn checkpoint(&mut self) -> Result<Checkpoint> {
        if self.published.is_some() {
            return Err(Error::UploadLost);
        }
        match self.gathered().await {
            // Nothing can follow: what the row says stays, and whoever ends the upload finds the object.
            Err(Error::UploadLost) if self.completed_before().await.is_ok() => {
                return Err(Error::Completed);
            }
            outcome => outcome?,
        }
        self.hash_all().await?;
        let parts = self.sent.get(self.told..).unwrap_or_default().to_vec();
        self.told = self.sent.len();
        let skip = self.in_rows - self.owed;
        let pieces = self.buffer.pieces();
        let tail = after(&pieces, skip).collect::<Vec<_>>().concat();
        self.fresh = Fresh { parts, tail };
        self.in_rows = self.owed + self.buffer.length();
        Ok(Checkpoint {
            offset: self.offset,
            hash: self.hasher.as_ref().map(Hasher::save).unwrap_or_default(),
            parts: self.multipart.clone().map(|multipart| Parts {
                multipart,
                count: self.count,
                bytes: self.bytes,
            }),
            epoch: self.epoch,
        })
    }

    /// Sends what is a part, and waits for all that was sent.
    async fn gathered(&mut self) -> Result<()> {
        if self.completed.is_some() {
            return Err(Error::UploadLost);
        }
        // A whole part belongs into the store, not into rows.
        if self.owed + self.buffer.length() == self.part_size() {
            self.send().await?;
        }
        self.land().await
    }

    async fn end(&mut self, algorithm: Algorithm) -> Result<(Digest, u64)> {
        if self.published.is_none() {
            match self.send_last().await {
                Err(Error::UploadLost) => {
                    let (key, size) = self.completed_before().await?;
                    if size != self.offset {
                        return Err(Error::UploadLost);
                    }
                    self.published = Some(key);
                    return Ok((self.reread(algorithm).await?, self.offset));
                }
                outcome => outcome?,
            }
            if self.multipart.is_none() && self.algorithm != algorithm {
                self.hasher = Some(Hasher::new(algorithm));
                self.algorithm = algorithm;
            }
            self.hash_all().await?;
        }
        let known = self
            .hasher
            .as_ref()
            .filter(|hasher| hasher.algorithm() == algorithm);
        let digest = match known {
            Some(hasher) => hasher.clone().finish(),
            None => self.reread(algorithm).await?,
        };
        Ok((digest, self.offset))
    }

    async fn send_last(&mut self) -> Result<()> {
        if self.completed.is_some() {
            return Err(Error::UploadLost);
        }
        self.recall().await?;
        if self.multipart.is_some() && self.buffer.length() > 0 {
            self.send().await?;
        }
        self.land().await
    }

    /// The object and its size, if an earlier request completed it and could not write its row: then no part is taken any
    /// more, and all bytes are there. Whether they are those of this request its digest tells.
    async fn completed_before(&self) -> Result<(Key, u64)> {
        let multipart = self.multipart.as_ref().ok_or(Error::UploadLost)?;
        match self.engine.measure(&multipart.key).await {
            Ok(size) => Ok((multipart.key.clone(), size)),
            Err(Error::Missing { .. }) => Err(Error::UploadLost),
            Err(error) => Err(error),
        }
    }

    /// Parts cannot be read before they are an object. So that comes first, under a key that nobody knows.
    async fn reread(&mut self, algorithm: Algorithm) -> Result<Digest> {
        let key = match &self.published {
            Some(key) => key.clone(),
            None => self.complete().await?,
        };
        let blob = self.engine.blob(&key, self.offset);
        let mut stream = blob.stream(0..self.offset);
        let mut hasher = Some(Hasher::new(algorithm));
        while let Some(piece) = std::future::poll_fn(|cx| stream.poll_next(cx)).await {
            let start = hasher.as_ref().map_or(0, Hasher::length);
            hasher = hash(&self.engine, hasher, start, vec![piece?]).await?;
        }
        Ok(hasher.ok_or(Error::Poisoned)?.finish())
    }

    /// Completes the multipart upload of exactly the acknowledged parts.
    async fn complete(&mut self) -> Result<Key> {
        let multipart = self.multipart.clone().ok_or(Error::UploadLost)?;
        let mut parts = match self.claimed {
            0 => Vec::new(),
            _ => self.ledger.parts(&multipart).await?,
        };
        let claimed = usize::try_from(self.claimed).unwrap_or(usize::MAX);
        if parts.len() < claimed {
            return Err(Error::UploadLost);
        }
        parts.truncate(claimed);
        parts.extend(self.sent.iter().cloned());
        if parts.iter().map(|part| part.size).sum::<u64>() != self.offset {
            return Err(Error::UploadLost);
        }
        self.engine.complete(&multipart, parts, self.offset).await?;
        self.published = Some(multipart.key.clone());
        Ok(multipart.key)
    }
}

/// Hashes what `hasher` has not had yet of `pieces`, which begin at `start`, off this thread.
pub(super) async fn hash(
    engine: &Arc<Engine>,
    hasher: Option<Hasher>,
    start: u64,
    pieces: Vec<Bytes>,
) -> Result<Option<Hasher>> {
    let Some(mut hasher) = hasher else {
        return Ok(None);
    };
    let Some(skip) = hasher.length().checked_sub(start) else {
        return Err(Error::Poisoned);
    };
    let job = move || {
        for piece in after(&pieces, skip) {
            hasher.update(piece);
        }
        Ok(Some(hasher))
    };
    engine.pool.run(job).await
}

pub(super) async fn put_part(
    engine: &Arc<Engine>,
    multipart: &Multipart,
    number: u64,
    size: u64,
    pieces: Vec<Bytes>,
) -> Result<StoredPart> {
    let (shared, to) = (engine.clone(), multipart.clone());
    let payload = PutPayload::from_iter(pieces);
    let request = Box::pin(async move {
        let path = shared.path(&to.key);
        let number = usize::try_from(number).unwrap_or(usize::MAX);
        shared
            .parts
            .put_part(&path, &to.session, number, payload)
            .await
    });
    let what = || format!("sending part {} of {}", number + 1, multipart.key);
    let request = started(engine, request).await?;
    let part = engine.gate.pass(Call::Part, what, request).await;
    let part = part.map_err(|error| match error {
        Error::Missing { .. } => Error::UploadLost,
        Error::Refused { source, .. } if told(&*source).contains("NoSuchUpload") => {
            Error::UploadLost
        }
        other => other,
    })?;
    Ok(StoredPart {
        size,
        tag: part.content_id,
    })
}

/// A future whose first step was made on the pool: the client library hashes what it is going to sign there and then,
/// which takes milliseconds for a part, too long for a thread that answers requests.
pub(super) async fn started<F>(engine: &Arc<Engine>, mut future: Pin<Box<F>>) -> Result<Started<F>>
where
    F: Future<Output: Send> + Send + 'static,
{
    let runtime = tokio::runtime::Handle::current();
    let job = move || {
        let _within = runtime.enter();
        // Whatever wakes it meanwhile is seen by the next poll, which comes at once.
        Ok(
            match future
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
            {
                Poll::Ready(output) => Started::Done(Some(output)),
                Poll::Pending => Started::Going(future),
            },
        )
    };
    engine.pool.run(job).await
}

pub(super) enum Started<F: Future> {
    Done(Option<F::Output>),
    Going(Pin<Box<F>>),
}

impl<F: Future<Output: Unpin>> Future for Started<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match &mut *self {
            Self::Done(output) => output.take().map_or(Poll::Pending, Poll::Ready),
            Self::Going(future) => future.as_mut().poll(cx),
        }
    }
}

impl Engine {
    /// Begins a multipart upload.
    pub(super) async fn begin(&self, key: Key, part_size: u64) -> Result<Multipart> {
        let path = self.path(&key);
        let what = || format!("beginning {key}");
        let request = self.parts.create_multipart(&path);
        let session = self.gate.pass(Call::Begin, what, request).await?;
        Ok(Multipart {
            key,
            session,
            part_size,
        })
    }

    /// Completes, and asks for the object when the answer does not say whether that happened.
    pub(super) async fn complete(
        &self,
        multipart: &Multipart,
        parts: Vec<StoredPart>,
        size: u64,
    ) -> Result<()> {
        let path = self.path(&multipart.key);
        let parts = parts
            .into_iter()
            .map(|part| PartId {
                content_id: part.tag,
            })
            .collect();
        let request = self
            .parts
            .complete_multipart(&path, &multipart.session, parts);
        let what = || format!("completing {}", multipart.key);
        let error = match self.gate.pass(Call::Complete, what, request).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let gone = match &error {
            // A repeated request whose first answer was lost looks like this, too.
            Error::Missing { .. } => true,
            Error::Refused { source, .. } => {
                let words = told(&**source);
                ["NoSuchUpload", "InvalidPart", "EntityTooSmall"]
                    .iter()
                    .any(|word| words.contains(word))
            }
            _ => false,
        };
        match self.measure(&multipart.key).await {
            Ok(actual) if actual == size => Ok(()),
            Ok(_) => Err(Error::UploadLost),
            Err(Error::Missing { .. }) if gone => Err(Error::UploadLost),
            Err(_) => Err(error),
        }
    }

    pub(super) async fn abort(&self, multipart: &Multipart) -> Result<()> {
        let path = self.path(&multipart.key);
        let request = self.parts.abort_multipart(&path, &multipart.session);
        let what = || format!("giving up {}", multipart.key);
        match self.gate.pass(Call::Abort, what, request).await {
            Err(Error::Missing { .. }) => Ok(()),
            Err(Error::Refused { source, .. }) if told(&*source).contains("NoSuchUpload") => Ok(()),
            outcome => outcome,
        }
    }

    /// Frees the parts, and the object if there is one already.
    pub(super) async fn give_up(&self, multipart: &Multipart) -> Result<()> {
        self.abort(multipart).await?;
        self.remove(&multipart.key).await
    }

    /// Bytes of an object.
    pub(super) async fn measure(&self, key: &Key) -> Result<u64> {
        let path = self.path(key);
        let what = || format!("asking for {key}");
        let request = object_store::ObjectStoreExt::head(&*self.store, &path);
        let meta = self.gate.pass(Call::Head, what, request).await;
        Ok(meta.map_err(|error| missing(error, key))?.size)
    }
}

impl UploadWriter for ObjectWriter {
    fn expect(&mut self, total: u64) {
        self.expected = Some(total);
    }

    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.guarded(async move |writer| writer.append(bytes).await))
    }

    fn offset(&self) -> u64 {
        self.offset
    }

    fn sync(&mut self) -> BoxFuture<'_, Result<Checkpoint>> {
        Box::pin(self.guarded(async |writer| writer.checkpoint().await))
    }

    fn fresh(&mut self) -> Fresh {
        std::mem::take(&mut self.fresh)
    }

    fn finish(&mut self, algorithm: Algorithm) -> BoxFuture<'_, Result<(Digest, u64)>> {
        Box::pin(self.guarded(async move |writer| writer.end(algorithm).await))
    }

    fn publish<'a>(&'a mut self, digest: &'a Digest) -> BoxFuture<'a, Result<Key>> {
        Box::pin(self.guarded(async move |writer| {
            if let Some(key) = &writer.published {
                return Ok(key.clone());
            }
            if writer.multipart.is_some() {
                return writer.complete().await;
            }
            let key = Key::fresh(digest);
            writer.engine.put(&key, writer.buffer.pieces()).await?;
            writer.published = Some(key.clone());
            Ok(key)
        }))
    }

    fn multipart(&self) -> Option<&Multipart> {
        self.multipart.as_ref()
    }
}
