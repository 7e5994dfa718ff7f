//! The policy in force, and how it comes to be another one.
//!
//! The configuration is replaced by a reload, the rows by whoever changed them; each is compiled with the other as it stands.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};
use wharf_meta::Meta;
use wharf_meta::access::Epoch;

use super::load::Rows;
use super::policy::{GrantError, Policy};
use super::{Rights, blocking};
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
}

#[derive(Debug)]
struct Inner {
    policy: ArcSwap<Policy>,
    sources: Mutex<(Rights, Arc<Rows>)>,
}

impl Inner {
    fn replace(&self, change: impl FnOnce(&mut (Rights, Arc<Rows>))) -> Result<(), GrantError> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = sources.clone();
        change(&mut next);
        self.policy
            .store(Arc::new(Policy::compile(&next.0, &next.1)?));
        *sources = next;
        Ok(())
    }
}

impl Compiled {
    /// Of the configuration alone.
    pub(crate) fn new(rights: &Rights) -> Result<Self, GrantError> {
        let rows = Arc::new(Rows::default());
        let policy = Policy::compile(rights, &rows)?;
        Ok(Self {
            policy: Arc::new(Inner {
                policy: ArcSwap::from_pointee(policy),
                sources: Mutex::new((rights.clone(), rows)),
            }),
            meta: None,
            workloads: None,
            reading: tokio::sync::Mutex::default(),
        })
    }

    /// Rights are rows there, too; they come with the first [`Compiled::refresh`].
    pub(crate) fn keep_in(&mut self, meta: Meta, workloads: Arc<Workloads>) {
        self.meta = Some(meta);
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

    /// The policy with the rows that it was compiled from.
    pub(crate) fn both(&self) -> (Arc<Policy>, Arc<Rows>) {
        let sources = self.policy.sources.lock();
        let sources = sources.unwrap_or_else(PoisonError::into_inner);
        (self.policy.policy.load_full(), sources.1.clone())
    }

    /// The rows as of this moment.
    pub(crate) fn rows(&self) -> Arc<Rows> {
        let sources = self.policy.sources.lock();
        sources.unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// The metadata store, where rights can be changed.
    pub(crate) fn meta(&self) -> Result<&Meta> {
        let absent = || Error::Internal("this registry keeps no rights in rows".into());
        self.meta.as_ref().ok_or_else(absent)
    }

    /// Puts another configuration in force.
    pub(crate) fn configure(&self, rights: &Rights) -> Result<(), GrantError> {
        self.policy.replace(|sources| sources.0 = rights.clone())
    }

    /// Reads the rows and puts them in force: whatever was acknowledged before this was called is in them.
    pub(crate) async fn refresh(&self) -> Result<()> {
        let Some(meta) = &self.meta else {
            return Ok(());
        };
        let _one = self.reading.lock().await;
        // Whoever was before this caller may have read its change, too.
        if meta.read(Epoch).await? == self.load().epoch() {
            return Ok(());
        }
        if let Some(workloads) = &self.workloads {
            workloads.refresh(meta).await?;
        }
        let rows = Arc::new(Rows::load(meta).await?);
        let inner = self.policy.clone();
        // Many rows take some hundredths of a second.
        let replaced = blocking(move || inner.replace(|sources| sources.1 = rows)).await?;
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
