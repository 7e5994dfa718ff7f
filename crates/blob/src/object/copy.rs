//! A blob of another store, under its key: for moving a registry.

use std::sync::Arc;

use bytes::Bytes;
use wharf_oci::{Algorithm, Digest};

use super::writer::{hash, put_part};
use super::{Engine, plan};
use crate::error::{Error, Result};
use crate::hash::Hasher;
use crate::key::Key;
use crate::read::{Blob, ByteStream};
use crate::store::Multipart;

/// Reads `stream` until so many bytes are there, or its end.
async fn gather(stream: &mut ByteStream, left: &mut Bytes, size: u64) -> Result<(Vec<Bytes>, u64)> {
    let (mut pieces, mut length) = (Vec::new(), 0);
    while length < size {
        if left.is_empty() {
            match stream.next().await {
                Some(piece) => *left = piece?,
                None => break,
            }
        }
        let room = usize::try_from(size - length).unwrap_or(usize::MAX);
        let piece = left.split_to(left.len().min(room));
        length += piece.len() as u64;
        pieces.push(piece);
    }
    Ok((pieces, length))
}

impl Engine {
    /// Copies all of `blob` to `key`. It becomes visible at the end, when its bytes were seen to have `digest`.
    pub(super) async fn copy_in(
        self: &Arc<Self>,
        key: &Key,
        digest: &Digest,
        blob: Blob,
    ) -> Result<()> {
        let algorithm = digest.algorithm().unwrap_or(Algorithm::Sha256);
        let first = plan::first(self.part_size, Some(blob.len()));
        let mut stream = blob.stream(0..blob.len());
        let mut left = Bytes::new();
        let (pieces, length) = gather(&mut stream, &mut left, first).await?;
        let mut hasher = hash(self, Some(Hasher::new(algorithm)), 0, pieces.clone()).await?;
        if length == blob.len() {
            proven(key, digest, hasher)?;
            return self.put(key, pieces).await;
        }
        let multipart = self.begin(key.clone(), first).await?;
        let sent = async {
            let mut parts = vec![put_part(self, &multipart, 0, length, pieces).await?];
            let mut at = length;
            loop {
                let size = plan::size(first, parts.len() as u64);
                let (pieces, length) = gather(&mut stream, &mut left, size).await?;
                if length == 0 {
                    break;
                }
                hasher = hash(self, hasher, at, pieces.clone()).await?;
                let number = parts.len() as u64;
                parts.push(put_part(self, &multipart, number, length, pieces).await?);
                at += length;
            }
            proven(key, digest, hasher)?;
            self.complete(&multipart, parts, blob.len()).await
        };
        let outcome = sent.await;
        if outcome.is_err() {
            self.tidy(&multipart).await;
        }
        outcome
    }

    /// Frees parts that nobody will complete; the caller has an error to tell already.
    async fn tidy(&self, multipart: &Multipart) {
        if let Err(error) = self.abort(multipart).await {
            tracing::warn!(key = %multipart.key, %error, "parts of a copy are left in the bucket");
        }
    }
}

fn proven(key: &Key, digest: &Digest, hasher: Option<Hasher>) -> Result<()> {
    let actual = hasher.ok_or(Error::Poisoned)?.finish();
    match digest.algorithm().is_none() || actual == *digest {
        true => Ok(()),
        false => Err(Error::WrongDigest {
            key: key.to_string(),
            actual: Box::new(actual),
        }),
    }
}
