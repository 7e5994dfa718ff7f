//! The policy in force, and how it comes to be another one.
//!
//! The configuration is replaced by a reload, the rows by whoever changed them; each is compiled with the other as it stands.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use wharf_meta::Meta;
use wharf_meta::access::Epoch;

use super::load::{Changes, Rows};
use super::policy::{GrantError, Policy};
use super::{Provider, Rights, blocking};
use crate::error::{Error, Result};
use crate::workload::Workloads;

/// Both sources of rights, and what they make together.
#[derive(Debug)]
pub(crate) struct Compiled {
    policy: Arc<Inner>,
    /// `None`: rights are in the configuration alone.
    meta: Option<Meta>,
    /// Whose tokens are trusted; read with the rows.
    workloads: Option<Arc<Workloads>>,
    /// One at a time reads the rows, so that older ones never take the place of newer ones.
    reading: tokio::sync::Mutex<()>,
    /// Whether the rows were read at all.
    began: AtomicBool,
}

#[derive(Debug)]
struct Inner {
    policy: ArcSwap<Policy>,
    /// The configuration, and the right to replace the policy.
    rights: Mutex<Rights>,
}

impl Inner {
    fn providers(&self) -> Vec<Provider> {
        let rights = self.rights.lock().unwrap_or_else(PoisonError::into_inner);
        rights.providers.clone()
    }

    /// Puts another policy in force, made of the one that is and of the configuration.
    fn replace(
        &self,
        make: impl FnOnce(&Policy, &mut Rights) -> Result<Policy, GrantError>,
    ) -> Result<(), GrantError> {
        let mut rights = self.rights.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = rights.clone();
        let policy = make(&self.policy.load(), &mut next)?;
        self.policy.store(Arc::new(policy));
        *rights = next;
        Ok(())
    }
}

impl Compiled {
    /// Of the configuration alone.
    pub(crate) fn new(rights: &Rights) -> Result<Self, GrantError> {
        let policy = Policy::compile(rights, &Rows::default())?;
        Ok(Self {
            policy: Arc::new(Inner {
                policy: ArcSwap::from_pointee(policy),
                rights: Mutex::new(rights.clone()),
            }),
            meta: None,
            workloads: None,
            reading: tokio::sync::Mutex::default(),
            began: AtomicBool::new(false),
        })
    }

    /// Rights are rows there, too; they come with the first [`Compiled::refresh`].
    pub(crate) fn keep_in(&mut self, meta: Meta) {
        self.meta = Some(meta);
    }

    /// Who tells of people from outside.
    pub(crate) fn providers(&self) -> Vec<Provider> {
        self.policy.providers()
    }

    /// Whose tokens are trusted is read there, too.
    pub(crate) fn read_with(&mut self, workloads: Arc<Workloads>) {
        self.workloads = Some(workloads);
    }

    /// The policy as of this moment, for one question.
    pub(crate) fn load(&self) -> Guard<Arc<Policy>> {
        self.policy.policy.load()
    }

    /// The policy as of this moment, to keep.
    pub(crate) fn load_full(&self) -> Arc<Policy> {
        self.policy.policy.load_full()
    }

    /// The metadata store, where rights can be changed.
    pub(crate) fn meta(&self) -> Result<&Meta> {
        let absent = || Error::Internal("this registry keeps no rights in rows".into());
        self.meta.as_ref().ok_or_else(absent)
    }

    /// Puts another configuration in force.
    pub(crate) fn configure(&self, rights: &Rights) -> Result<(), GrantError> {
        self.policy.replace(|policy, now| {
            let rights = Rights {
                providers: now.providers.clone(),
                ..rights.clone()
            };
            let mut next = policy.clone();
            next.configure(&rights)?;
            *now = rights;
            Ok(next)
        })
    }

    /// Reads what changed of the rows and puts it in force: whatever was acknowledged before this was called is in them.
    pub(crate) async fn refresh(&self) -> Result<()> {
        let Some(meta) = &self.meta else {
            return Ok(());
        };
        let _one = self.reading.lock().await;
        // Whoever was before this caller may have read its change, too.
        let epoch = meta.read(Epoch).await?;
        // Without any change of rights there may be administrators from outside.
        let first = epoch == 0 && !self.began.swap(true, Ordering::Relaxed);
        if epoch == self.load().epoch() && !first {
            return Ok(());
        }
        let inner = self.policy.clone();
        let known = self.load_full();
        let providers = inner.providers();
        let changes = Changes::load(meta, &known, &providers).await?;
        let rows = match &changes {
            Some(_) => None,
            None => Some(Rows::load(meta, &providers).await?),
        };
        // After the epoch was read, so that whom to trust is never older than it: nobody would look again.
        if let Some(workloads) = &self.workloads {
            workloads.refresh(meta).await?;
        }
        let replaced = match (changes, rows) {
            (Some(changes), _) => inner.replace(|policy, _| {
                let mut next = policy.clone();
                next.update(changes);
                Ok(next)
            }),
            (None, Some(rows)) => {
                // Many rows take some hundredths of a second.
                blocking(move || inner.replace(|_, rights| Policy::compile(rights, &rows))).await?
            }
            (None, None) => Ok(()),
        };
        replaced.map_err(|error| Error::Internal(error.to_string()))
    }

    /// Looks whether others changed the rows, and takes theirs. Costs one row where others can, and nothing elsewhere.
    pub(crate) async fn follow(&self) -> Result<()> {
        let Some(meta) = self.meta.as_ref().filter(|meta| meta.is_shared()) else {
            return Ok(());
        };
        // A database that was restored is behind, and meant all the same.
        if meta.read(Epoch).await? == self.load().epoch() {
            return Ok(());
        }
        self.refresh().await
    }
}
