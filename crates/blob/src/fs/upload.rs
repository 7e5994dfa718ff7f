//! Writing one upload: while one buffer is hashed and written on the pool, the next one fills.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use wharf_oci::{Algorithm, Digest};

use super::{Disk, Point, private};
use crate::BUFFER;
use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::io::{Answer, Pool, died};
use crate::key::UploadId;
use crate::store::{BoxFuture, Checkpoint, UploadWriter};

/// From this size on a chunk is passed on as it is; smaller ones are gathered, so that a client that sends single
/// bytes cannot make us hold one allocation for each.
const PASS_ON: usize = 32 << 10;

/// The part of a writer that the pool works on. It moves there and back.
struct Inner {
    disk: Arc<Disk>,
    path: PathBuf,
    file: File,
    hasher: Hasher,
    written: u64,
    /// Durable up to here: where a failed write is cut back to.
    checkpoint: u64,
    /// The file's name is durable.
    named: bool,
}

type Outcome = (Box<Inner>, Result<()>);

enum State {
    Idle(Box<Inner>),
    Busy(Answer<Outcome>),
    /// Something failed, or a job died: the writer is of no more use.
    Poisoned,
}

pub(super) struct Writer {
    pool: Pool,
    state: State,
    chunks: Vec<Bytes>,
    tail: BytesMut,
    gathered: usize,
    offset: u64,
}

impl Writer {
    pub(super) async fn open(
        pool: Pool,
        disk: Arc<Disk>,
        id: UploadId,
        from: Checkpoint,
        algorithm: Algorithm,
    ) -> Result<Self> {
        let offset = from.offset;
        let inner = pool
            .run(move || Inner::open(disk, &id, &from, algorithm))
            .await?;
        Ok(Self {
            pool,
            state: State::Idle(Box::new(inner)),
            chunks: Vec::new(),
            tail: BytesMut::new(),
            gathered: 0,
            offset,
        })
    }

    /// Waits until the pool has given the inner part back. Safe to drop: the answer stays where it is.
    async fn idle(&mut self) -> Result<()> {
        if let State::Busy(answer) = &mut self.state {
            match answer.await {
                Ok((inner, Ok(()))) => self.state = State::Idle(inner),
                Ok((_, Err(error))) => {
                    self.state = State::Poisoned;
                    return Err(error);
                }
                Err(_) => {
                    self.state = State::Poisoned;
                    return Err(died());
                }
            }
        }
        Ok(())
    }

    /// Starts a job on the inner part as soon as the one before is done.
    async fn start(
        &mut self,
        job: impl FnOnce(&mut Inner) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        self.idle().await?;
        let State::Idle(mut inner) = std::mem::replace(&mut self.state, State::Poisoned) else {
            return Err(Error::Poisoned);
        };
        // If this future is dropped while the queue is full, the writer stays poisoned: its bytes are gone.
        let answer = self
            .pool
            .submit(move || {
                let outcome = job(&mut inner);
                if outcome.is_err() {
                    inner.cut();
                }
                (inner, outcome)
            })
            .await;
        self.state = State::Busy(answer);
        Ok(())
    }

    /// Hands what has gathered to the pool.
    async fn flush(&mut self) -> Result<()> {
        if self.gathered == 0 {
            return Ok(());
        }
        self.idle().await?;
        self.seal();
        let chunks = std::mem::take(&mut self.chunks);
        self.gathered = 0;
        self.start(move |inner| inner.write(&chunks)).await
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.chunks.push(self.tail.split().freeze());
        }
    }

    async fn write_chunk(&mut self, bytes: Bytes) -> Result<()> {
        if matches!(self.state, State::Poisoned) {
            return Err(Error::Poisoned);
        }
        self.offset += bytes.len() as u64;
        self.gathered += bytes.len();
        if bytes.len() >= PASS_ON {
            self.seal();
            self.chunks.push(bytes);
        } else {
            self.tail.extend_from_slice(&bytes);
        }
        if self.gathered >= BUFFER {
            self.flush().await?;
        }
        Ok(())
    }

    async fn checkpoint(&mut self) -> Result<Checkpoint> {
        self.flush().await?;
        self.start(|inner| inner.sync(true)).await?;
        self.idle().await?;
        match &self.state {
            State::Idle(inner) => Ok(Checkpoint {
                offset: inner.written,
                hash: inner.hasher.save(),
            }),
            _ => Err(Error::Poisoned),
        }
    }

    async fn close(&mut self, algorithm: Algorithm) -> Result<(Digest, u64)> {
        self.flush().await?;
        // The file's own name need not be durable: publishing makes that of the key so.
        self.start(move |inner| {
            inner.sync(false)?;
            inner.hash_as(algorithm)
        })
        .await?;
        self.idle().await?;
        match &self.state {
            State::Idle(inner) => Ok((inner.hasher.clone().finish(), inner.written)),
            _ => Err(Error::Poisoned),
        }
    }
}

impl UploadWriter for Writer {
    fn write(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.write_chunk(bytes))
    }

    fn offset(&self) -> u64 {
        self.offset
    }

    fn sync(&mut self) -> BoxFuture<'_, Result<Checkpoint>> {
        Box::pin(self.checkpoint())
    }

    fn finish(&mut self, algorithm: Algorithm) -> BoxFuture<'_, Result<(Digest, u64)>> {
        Box::pin(self.close(algorithm))
    }
}

impl Inner {
    fn open(
        disk: Arc<Disk>,
        id: &UploadId,
        from: &Checkpoint,
        algorithm: Algorithm,
    ) -> Result<Self> {
        let path = disk.upload_path(id);
        let what = || format!("opening {}", path.display());
        let mut file = match from.offset {
            0 => private().create(true).truncate(false).open(&path),
            _ => private().open(&path),
        }
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::UploadLost,
            _ => Error::io(what(), error),
        })?;
        let length = file
            .metadata()
            .map_err(|error| Error::io(what(), error))?
            .len();
        if length < from.offset {
            return Err(Error::UploadLost);
        }
        if length > from.offset {
            file.set_len(from.offset)
                .map_err(|error| Error::io(what(), error))?;
        }
        let hasher = match from.offset {
            0 => Hasher::new(algorithm),
            offset => match Hasher::restore(&from.hash) {
                Some(hasher) => hasher,
                None => hash_file(&file, offset, algorithm)?,
            },
        };
        file.seek(SeekFrom::Start(from.offset))
            .map_err(|error| Error::io(what(), error))?;
        Ok(Self {
            disk,
            path,
            file,
            hasher,
            written: from.offset,
            checkpoint: from.offset,
            named: from.offset > 0,
        })
    }

    fn write(&mut self, chunks: &[Bytes]) -> Result<()> {
        let disk = self.disk.clone();
        let _timed = disk.counts.time(Point::Write);
        for chunk in chunks {
            self.disk.fault.at(Point::Write, &self.path)?;
            self.hasher.update(chunk);
            self.file
                .write_all(chunk)
                .map_err(|error| Error::io(format!("writing {}", self.path.display()), error))?;
            self.written += chunk.len() as u64;
        }
        Ok(())
    }

    fn sync(&mut self, name: bool) -> Result<()> {
        self.disk.sync(&self.file, &self.path)?;
        if name && !self.named {
            self.disk.sync_parent(&self.path)?;
            self.named = true;
        }
        self.checkpoint = self.written;
        Ok(())
    }

    /// Gives back the space of bytes that will never count; failing at that costs only space.
    fn cut(&mut self) {
        if let Err(error) = self.file.set_len(self.checkpoint) {
            tracing::warn!(path = %self.path.display(), %error, "a failed upload could not be cut back");
        }
    }

    fn hash_as(&mut self, algorithm: Algorithm) -> Result<()> {
        if self.hasher.algorithm() != algorithm {
            self.hasher = hash_file(&self.file, self.written, algorithm)?;
        }
        Ok(())
    }
}

/// Hashes the first `length` bytes of a file.
fn hash_file(file: &File, length: u64, algorithm: Algorithm) -> Result<Hasher> {
    let mut hasher = Hasher::new(algorithm);
    let mut buffer = vec![0; BUFFER];
    let mut at = 0;
    while at < length {
        let want = usize::try_from(length - at).unwrap_or(BUFFER).min(BUFFER);
        let read = file
            .read_at(&mut buffer[..want], at)
            .map_err(|error| Error::io("reading an upload again", error))?;
        if read == 0 {
            return Err(Error::UploadLost);
        }
        hasher.update(&buffer[..read]);
        at += read as u64;
    }
    Ok(hasher)
}
