//! Who asks the management API, and what they may.
//!
//! [`Visitor::sees`] decides on the name alone, before anything is looked up. Whoever may not see a repository gets the answer
//! that a repository which does not exist gets: the same status and body, after the same work, since neither is looked for.
//! Whoever sees it and lacks another right is told so.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::header::{AUTHORIZATION, HeaderValue};
use http::request::Parts;
use wharf_core::access::{
    Access, AuthFailure, Caller, Circumstances, Decision, INVALID_TOKEN, Permission, TagView, Tags,
    read_authorization, usual_tags,
};
use wharf_meta::Origin;
use wharf_oci::{Authorization, RepositoryName, Tag};

use super::problem::{Kind, Problem};
use crate::http::Request;

/// The name under which acts of the admin socket are recorded, as those of its commands are.
pub(super) const OPERATOR: &str = "operator";

/// Who asks.
#[derive(Clone, Debug)]
pub(super) enum Visitor {
    /// Somebody on the admin socket.
    Root,
    /// Somebody with these credentials, or none.
    Caller(Arc<Caller>),
}

/// Reads who asks from the `Authorization` header, and the name that was given where nobody was let in.
pub(super) async fn authenticate(
    access: &Access,
    request: &Request,
    came: Circumstances,
) -> (String, Result<Visitor, AuthFailure>) {
    let values = request.headers.get_all(AUTHORIZATION);
    let authorization = match read_authorization(values.iter().map(HeaderValue::as_bytes)) {
        Ok(authorization) => authorization,
        Err(failure) => return (String::new(), Err(failure)),
    };
    let presented = request.presented(authorization.as_ref());
    let caller = access.authenticate(presented, came).await;
    let name = match (authorization, &caller) {
        (Some(Authorization::Basic { user, .. }), Err(_)) => user,
        _ => String::new(),
    };
    (name, caller.map(|caller| Visitor::Caller(Arc::new(caller))))
}

/// Where what comes through the admin socket comes from.
pub(crate) fn operator_origin(request: &str) -> Origin {
    Origin {
        actor: OPERATOR.to_owned(),
        credential: "admin socket".to_owned(),
        request: request.to_owned(),
        rule: "whoever can open the admin socket may do everything"
            .to_owned()
            .into(),
        ..Origin::default()
    }
}

/// Where a changed configuration or htpasswd file comes from.
pub(crate) fn file_origin() -> Origin {
    Origin {
        actor: OPERATOR.to_owned(),
        rule: "whoever can write the registry's files may do everything"
            .to_owned()
            .into(),
        ..Origin::default()
    }
}

impl Visitor {
    /// Whoever opened the admin socket.
    pub(super) fn root() -> Self {
        Self::Root
    }

    /// Nobody was asked who they are.
    pub(super) fn nobody(came: Circumstances) -> Self {
        Self::Caller(Arc::new(Caller::anonymous().under(came)))
    }

    /// The name that rows, events and log lines record.
    pub(super) fn actor(&self) -> &str {
        match self {
            Self::Root => OPERATOR,
            Self::Caller(caller) => caller.principal.name(),
        }
    }

    /// Whether nothing says who they are.
    pub(super) fn is_nobody(&self) -> bool {
        matches!(self, Self::Caller(caller) if caller.principal.is_anonymous())
    }

    /// From where they come, and when; `None`: through the admin socket.
    pub(super) fn came(&self) -> Option<Circumstances> {
        match self {
            Self::Root => None,
            Self::Caller(caller) => Some(caller.circumstances),
        }
    }

    /// Where what they do comes from.
    pub(super) fn origin(&self, request: &str) -> Origin {
        match self {
            Self::Root => operator_origin(request),
            Self::Caller(caller) => caller.origin(request),
        }
    }

    fn decide(
        &self,
        access: &Access,
        permission: Permission,
        repository: Option<&RepositoryName>,
    ) -> Decision {
        self.decide_tags(access, permission, repository, usual_tags(permission))
    }

    fn decide_tags(
        &self,
        access: &Access,
        permission: Permission,
        repository: Option<&RepositoryName>,
        tags: Tags<'_>,
    ) -> Decision {
        match self {
            Self::Root => Decision::Allow,
            Self::Caller(caller) => {
                let decision = access.decide_tags(caller, permission, repository, tags);
                if decision == Decision::Allow {
                    Origin::allowed(|| access.rule(caller, permission, repository, tags));
                }
                decision
            }
        }
    }

    /// Whether they may do something with the registry as a whole.
    pub(super) fn may(&self, access: &Access, permission: Permission) -> Result<(), Problem> {
        self.may_on(access, permission, None)
    }

    /// Whether they may do something on a namespace or repository, or everywhere. Of a place that they may not even pull from
    /// the refusal says no more than of one that does not exist: it is decided on the name.
    pub(super) fn may_on(
        &self,
        access: &Access,
        permission: Permission,
        place: Option<&RepositoryName>,
    ) -> Result<(), Problem> {
        match self.decide(access, permission, place) {
            Decision::Allow => Ok(()),
            Decision::Challenge { error, .. } => Err(challenge(access, error)),
            Decision::Denied => Err(self.lacks(permission, place)),
        }
    }

    /// Whether it is known who they are.
    pub(super) fn is_somebody(&self, access: &Access) -> Result<(), Problem> {
        match self {
            Self::Caller(caller) if caller.principal.is_anonymous() => Err(challenge(access, None)),
            Self::Caller(caller) if caller.expired_since.is_some() => {
                Err(challenge(access, Some(INVALID_TOKEN)))
            }
            _ => Ok(()),
        }
    }

    /// The repository of that name, as far as they may see what it is made of: by the right to pull from it, or to be shown it
    /// in lists, which is all that an auditor has. Nothing is looked up.
    pub(super) fn sees(&self, access: &Access, name: &str) -> Result<RepositoryName, Problem> {
        let repository = RepositoryName::parse(name)
            .map_err(|error| Problem::invalid("name", error.to_string()))?;
        let pull = self.decide(access, Permission::Pull, Some(&repository));
        let catalog = self.decide(access, Permission::Catalog, Some(&repository));
        match pull {
            Decision::Allow => Ok(repository),
            _ if catalog == Decision::Allow => Ok(repository),
            Decision::Challenge { error, .. } => Err(challenge(access, error)),
            Decision::Denied => Err(unseen(&repository).refused()),
        }
    }

    /// As [`Visitor::sees`], and they may do this there too.
    pub(super) fn sees_and_may(
        &self,
        access: &Access,
        name: &str,
        permission: Permission,
    ) -> Result<RepositoryName, Problem> {
        let repository = self.sees(access, name)?;
        match self.decide(access, permission, Some(&repository)) {
            Decision::Allow => Ok(repository),
            Decision::Challenge { error, .. } => Err(challenge(access, error)),
            Decision::Denied => Err(self.lacks(permission, Some(&repository))),
        }
    }

    /// As [`Visitor::sees`] and [`Visitor::may_on`], of what is about one tag only.
    pub(super) fn sees_and_may_tag(
        &self,
        access: &Access,
        name: &str,
        permission: Permission,
        tag: &Tag,
    ) -> Result<RepositoryName, Problem> {
        let repository = self.sees(access, name)?;
        let tags = Tags::Named(tag.as_str());
        match self.decide_tags(access, permission, Some(&repository), tags) {
            Decision::Allow => Ok(repository),
            Decision::Challenge { error, .. } => Err(challenge(access, error)),
            Decision::Denied => Err(self.lacks(permission, Some(&repository))),
        }
    }

    /// The tags that they see in a repository that they see: those of both rights that [`Visitor::sees`] goes by.
    pub(super) fn tags(&self, access: &Access, repository: &RepositoryName) -> TagView {
        let Self::Caller(caller) = self else {
            return TagView::All;
        };
        let view = |permission| match access.decide(caller, permission, Some(repository)) {
            Decision::Allow => Some(access.tag_view(caller, permission, repository)),
            _ => None,
        };
        match (view(Permission::Pull), view(Permission::Catalog)) {
            (Some(one), Some(other)) => one.or(other),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => TagView::Matching(Vec::new()),
        }
    }

    /// The prefixes below which they have a right; `None` is everywhere.
    pub(super) fn prefixes(&self, access: &Access, permission: Permission) -> Option<Vec<String>> {
        match self {
            Self::Root => None,
            Self::Caller(caller) => access.prefixes_for(caller, permission),
        }
    }

    fn lacks(&self, permission: Permission, repository: Option<&RepositoryName>) -> Problem {
        let place = match repository {
            Some(name) => name.as_str(),
            None => "the registry",
        };
        Problem::new(
            Kind::Forbidden,
            format!("{} may not {} {place}", self.actor(), permission.doing()),
        )
        .with_cure("an administrator can grant it (wharf grant)")
    }
}

/// The answer for a repository that is not there, or is nothing for this caller.
pub(super) fn unseen(repository: &RepositoryName) -> Problem {
    Problem::unseen(format_args!("repository {repository}"))
}

fn challenge(access: &Access, error: Option<&'static str>) -> Problem {
    match error {
        Some(error) => Problem::narrow_token(access.service(), error),
        None => Problem::sign_in(access.service()),
    }
}

/// [`super::Api`] puts it into every request.
impl<S: Sync> FromRequestParts<S> for Visitor {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let known = parts.extensions.get::<Self>().cloned();
        Ok(known.unwrap_or_else(|| Self::nobody(Circumstances::UNKNOWN)))
    }
}
