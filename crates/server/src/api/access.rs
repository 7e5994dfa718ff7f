//! What all resources about rights share: who changes, what a change did, and how refusals are told.
//!
//! Changes are judged by `wharf_core::access`, which lets nobody give what they do not have. The credentials' own limits are asked
//! first ([`Visitor::may_on`]): a token that was bought for pulling grants nothing.

use serde::Serialize;
use utoipa::ToSchema;
use wharf_core::access::{Change, ChangeError, Changer};
use wharf_oci::RepositoryName;

use super::problem::{Kind, Problem};
use super::visitor::Visitor;
use crate::http::ApiError;

/// Whether anything changed
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Changed {
    /// False: it was so before
    changed: bool,
}

impl From<Change> for Changed {
    fn from(change: Change) -> Self {
        Self {
            changed: change == Change::Made,
        }
    }
}

pub(super) fn refused(error: ChangeError) -> Problem {
    let kind = match &error {
        ChangeError::Field(field, reason) => return Problem::invalid(*field, reason.clone()),
        ChangeError::Differs => return super::condition::changed(),
        ChangeError::Wrong(_) => Kind::Invalid,
        ChangeError::Denied { .. } | ChangeError::NotHeld { .. } | ChangeError::Passing(_) => {
            Kind::Forbidden
        }
        ChangeError::Unknown(_) => Kind::NotFound,
        ChangeError::ReadOnly(_)
        | ChangeError::InUse(_)
        | ChangeError::Conflict(_)
        | ChangeError::Last(_) => Kind::Conflict,
        ChangeError::Busy => Kind::Unavailable,
        ChangeError::Store(_) => {
            let ChangeError::Store(error) = error else {
                return ApiError::internal().into();
            };
            return error.into();
        }
    };
    Problem::new(kind, error.to_string())
}

pub(super) fn wrong(field: &'static str) -> impl Fn(&dyn std::fmt::Display) -> Problem {
    move |error| Problem::invalid(field, error.to_string())
}

/// A namespace as it is written: a path, or nothing for everywhere.
pub(super) fn place(on: &str) -> Result<Option<RepositoryName>, Problem> {
    match on.trim_end_matches('/') {
        "" => Ok(None),
        path => RepositoryName::parse(path)
            .map(Some)
            .map_err(|error| wrong("on")(&error)),
    }
}

impl Visitor {
    /// As whom changes are judged.
    pub(super) fn changer(&self) -> Changer<'_> {
        match self {
            Self::Root => Changer::Operator,
            Self::Caller(caller) => Changer::Caller(caller),
        }
    }

    /// Whether this is the one that is named, by credentials that are good now.
    pub(super) fn is(&self, who: Option<&str>) -> bool {
        let Self::Caller(caller) = self else {
            return false;
        };
        let known = !caller.principal.is_anonymous() && caller.expired_since.is_none();
        known && who == Some(caller.principal.name())
    }
}
