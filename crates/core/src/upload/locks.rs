//! One writer per upload within this process (UP-30).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use wharf_blob::UploadId;

use crate::error::{Error, Result};

/// How long a request waits for the one before it: a client that lost its connection comes back while the old
/// request is still being torn down.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a question about an upload waits for the request that writes to it: long enough for a broken one to put
/// what it received onto the disk, short enough for whoever only wants to watch.
const GLANCE: Duration = Duration::from_secs(5);

type Slots = Arc<Mutex<HashMap<UploadId, Slot>>>;

#[derive(Debug)]
struct Slot {
    lock: Arc<tokio::sync::Mutex<()>>,
    /// Holders and waiters; the slot goes when it reaches zero, so idle sessions cost nothing.
    users: usize,
}

/// Sessions of which this process remembers that it is their last writer. Forgetting one costs a copy and never the truth.
const REMEMBERED: usize = 10_000;

/// Locks by upload, present only while somebody holds or awaits them.
#[derive(Debug, Default)]
pub struct Locks(Slots, Mutex<HashMap<UploadId, i64>>);

impl Locks {
    /// Remembers under which epoch this process writes to a session.
    pub(super) fn take(&self, id: &UploadId, epoch: i64) {
        let mut mine = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        if mine.len() >= REMEMBERED {
            mine.clear();
        }
        mine.insert(*id, epoch);
    }

    /// Whether nobody else has taken a session over since, if its row still says this epoch.
    pub(super) fn has(&self, id: &UploadId, epoch: i64) -> bool {
        let mine = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        mine.get(id) == Some(&epoch)
    }

    /// The session has ended.
    pub(super) fn forget(&self, id: &UploadId) {
        let mut mine = self.1.lock().unwrap_or_else(PoisonError::into_inner);
        mine.remove(id);
    }

    /// Waits up to ten seconds for the upload's other request; then [`Error::UploadBusy`].
    pub(super) async fn lock(&self, id: &UploadId) -> Result<Guard> {
        let ticket = self.ticket(id);
        let lock = ticket.lock.clone();
        match tokio::time::timeout(PATIENCE, lock.lock_owned()).await {
            Ok(held) => Ok(Guard {
                _held: held,
                _ticket: ticket,
            }),
            Err(_) => Err(Error::UploadBusy),
        }
    }

    /// Waits up to five seconds until no request writes to the upload; holds nothing afterwards.
    pub(super) async fn settled(&self, id: &UploadId) {
        let ticket = self.ticket(id);
        let _ = tokio::time::timeout(GLANCE, ticket.lock.lock()).await;
    }

    /// Takes the lock only if it is free.
    pub(super) fn try_lock(&self, id: &UploadId) -> Result<Guard> {
        let ticket = self.ticket(id);
        match ticket.lock.clone().try_lock_owned() {
            Ok(held) => Ok(Guard {
                _held: held,
                _ticket: ticket,
            }),
            Err(_) => Err(Error::UploadBusy),
        }
    }

    fn ticket(&self, id: &UploadId) -> Ticket {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(*id).or_insert_with(|| Slot {
            lock: Arc::default(),
            users: 0,
        });
        slot.users += 1;
        Ticket {
            lock: slot.lock.clone(),
            id: *id,
            slots: self.0.clone(),
        }
    }
}

/// Holds an upload until dropped. Fields drop in order: the lock is free before the ticket is handed back.
#[derive(Debug)]
pub(super) struct Guard {
    _held: tokio::sync::OwnedMutexGuard<()>,
    _ticket: Ticket,
}

/// Counts one holder or waiter, also of a request that is dropped while it waits.
#[derive(Debug)]
struct Ticket {
    lock: Arc<tokio::sync::Mutex<()>>,
    id: UploadId,
    slots: Slots,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get_mut(&self.id) {
            slot.users -= 1;
            if slot.users == 0 {
                slots.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spec: UP-30.
    #[tokio::test(start_paused = true)]
    async fn the_second_writer_waits_and_then_gives_up() {
        let locks = Locks::default();
        let id = UploadId::random();
        let first = locks.lock(&id).await.unwrap();
        assert!(matches!(locks.lock(&id).await, Err(Error::UploadBusy)));
        assert!(locks.try_lock(&id).is_err());
        assert!(locks.try_lock(&UploadId::random()).is_ok());
        drop(first);
        assert!(locks.lock(&id).await.is_ok());
    }

    /// Spec: UP-26.
    #[tokio::test(start_paused = true)]
    async fn a_question_waits_for_the_writer_but_not_for_ever() {
        let locks = Locks::default();
        let id = UploadId::random();
        let start = tokio::time::Instant::now();
        locks.settled(&id).await;
        assert_eq!(start.elapsed(), Duration::ZERO);

        let writer = locks.lock(&id).await.unwrap();
        let ended = async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            drop(writer);
        };
        tokio::join!(locks.settled(&id), ended);
        assert_eq!(start.elapsed(), Duration::from_secs(2));

        let _writer = locks.lock(&id).await.unwrap();
        locks.settled(&id).await;
        assert_eq!(start.elapsed(), Duration::from_secs(2) + GLANCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiter_that_goes_away_leaves_nothing_behind() {
        let locks = Locks::default();
        let id = UploadId::random();
        let first = locks.lock(&id).await.unwrap();
        let waiting = locks.lock(&id);
        assert!(
            tokio::time::timeout(Duration::from_secs(1), waiting)
                .await
                .is_err()
        );
        drop(first);
        assert!(locks.0.lock().unwrap().is_empty());
    }
}
