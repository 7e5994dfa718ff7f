//! Everything that a blob store holds, some hundred entries at a time, for callers that must ask rows in between.
//!
//! Used by backup and verify. Holds no more than what one step of the store's scan shows.

use tokio::sync::mpsc;
use wharf_blob::{BlobStore, BoxFuture, Part, Stored};

/// A scan that is pulled.
pub(crate) struct Walk<'a> {
    scan: Option<BoxFuture<'a, wharf_blob::Result<()>>>,
    found: mpsc::UnboundedReceiver<Vec<Stored>>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(blobs: &'a dyn BlobStore, part: Part) -> Self {
        let (send, found) = mpsc::unbounded_channel();
        let scan = async move {
            let mut visit = |stored| send.send(stored).is_ok();
            blobs.scan(part, &mut visit).await
        };
        Self {
            scan: Some(Box::pin(scan)),
            found,
        }
    }

    /// The next entries; `None` at the end. The scan only moves on while somebody waits here.
    pub(crate) async fn next(&mut self) -> wharf_blob::Result<Option<Vec<Stored>>> {
        loop {
            if let Ok(stored) = self.found.try_recv() {
                return Ok(Some(stored));
            }
            let Some(scan) = &mut self.scan else {
                return Ok(None);
            };
            tokio::select! {
                biased;
                Some(stored) = self.found.recv() => return Ok(Some(stored)),
                outcome = scan => {
                    self.scan = None;
                    outcome?;
                }
            }
        }
    }
}
