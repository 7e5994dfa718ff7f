//! Where a change comes from: who, with which credential, from which address, by which request, allowed by what.
//!
//! Set around the work of a request with [`Origin::scope`], and carried by [`crate::Meta::write`] to wherever its engine runs the
//! operation, so that no operation has to be told and none can forget: `event::record` alone reads it. A task that the work
//! starts on the side does not have it; what it changes is recorded as the registry's own doing.

use std::sync::{Arc, OnceLock};

use crate::error::Result;
use crate::tx::{Op, Tx};

/// The name under which the registry itself is recorded.
pub const ITSELF: &str = "wharf";

/// Where a change comes from. Empty: unknown, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The principal: for operations that are not told.
    pub actor: String,
    /// The id of the credential, or how the principal signed in without one.
    pub credential: String,
    /// The client's address.
    pub address: String,
    /// The request's id.
    pub request: String,
    /// The binding or rule that allowed it.
    pub rule: OnceLock<String>,
}

tokio::task_local! {
    static ORIGIN: Option<Arc<Origin>>;
}

impl Origin {
    /// The binding or rule that allowed it; empty: none was named.
    pub fn rule(&self) -> &str {
        self.rule.get().map_or("", String::as_str)
    }

    /// Names what allows the work under way, the first time that it is asked.
    pub fn allowed(rule: impl FnOnce() -> String) {
        if let Some(origin) = current() {
            origin.rule.get_or_init(rule);
        }
    }

    /// Does some work as coming from here.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        ORIGIN.scope(Some(Arc::new(self)), work).await
    }
}

/// Where the work under way comes from, if anybody said so.
pub fn current() -> Option<Arc<Origin>> {
    ORIGIN.try_with(Option::clone).ok().flatten()
}

/// An operation with where it comes from, on its way to another thread.
pub(crate) struct Carried<O> {
    op: O,
    origin: Option<Arc<Origin>>,
}

impl<O> Carried<O> {
    pub(crate) fn new(op: O) -> Self {
        let origin = current();
        Self { op, origin }
    }
}

impl<O: Op> Op for Carried<O> {
    type Out = O::Out;
    const SINGLE: bool = O::SINGLE;
    const FREES: bool = O::FREES;
    const RELAXED: bool = O::RELAXED;

    async fn run<T: Tx>(&self, tx: &mut T) -> Result<O::Out> {
        ORIGIN.scope(self.origin.clone(), self.op.run(tx)).await
    }

    fn name() -> &'static str {
        O::name()
    }
}
