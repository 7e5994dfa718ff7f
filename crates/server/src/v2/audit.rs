//! What of `/v2/` and the token endpoint goes into the audit log beside changes, which operations write themselves.
//!
//! Nothing here waits or looks anything up. A request with a bearer token that is let through notes nothing, unless reads are to be
//! recorded; a client that is asked for credentials since it sent none was not refused.

use http::Method;
use wharf_core::Registry;
use wharf_core::access::{AuthFailure, Caller, Circumstances, Permission};
use wharf_core::audit::{Kind, Sight, given};
use wharf_meta::Origin;
use wharf_oci::Reference;

use super::terminal::WAITS;
use super::token::{Asked, Refused};
use crate::http::Request;
use crate::http::route::Route;

/// Where a change that this request may make comes from, and what allows it; `None`: it changes nothing.
pub(super) fn origin(
    registry: &Registry,
    caller: &Caller,
    request: &Request,
    route: &Route,
) -> Option<Origin> {
    if matches!(request.method, Method::GET | Method::HEAD) {
        return None;
    }
    let origin = caller.origin(request.id.as_str());
    // A PATCH records nothing by itself.
    if request.method != Method::PATCH
        && let Some(permission) = route.permission(&request.method)
    {
        let repository = route.repository();
        origin.rule.get_or_init(|| {
            let tags = route.tags(&request.method);
            registry.access.rule(caller, permission, repository, tags)
        });
    }
    Some(origin)
}

fn sight(kind: Kind, came: Circumstances, principal: String, credential: String) -> Sight {
    Sight {
        kind,
        principal,
        credential,
        address: came.address,
        repository: None,
        digest: None,
        tag: None,
        asked: String::new(),
        reason: String::new(),
    }
}

/// Credentials came with the request itself, or were refused.
pub(super) fn sign_in(
    registry: &Registry,
    request: &Request,
    came: Circumstances,
    name: String,
    caller: &Result<Caller, AuthFailure>,
) {
    let sight = match caller {
        // What was bought at the token endpoint was a sign-in there.
        Ok(caller) if caller.scopes.is_some() || caller.principal.is_anonymous() => return,
        Ok(caller) => {
            let origin = caller.origin("");
            Sight {
                asked: "/v2/".into(),
                ..sight(Kind::SignIn, came, origin.actor, origin.credential)
            }
        }
        Err(AuthFailure::Store(_)) => return,
        Err(AuthFailure::Limited(limited)) => limited.sight(),
        Err(failure) => Sight {
            asked: "sign-in".into(),
            reason: failure.told(),
            repository: request
                .route
                .as_ref()
                .ok()
                .and_then(|route| route.repository().map(ToString::to_string)),
            ..sight(Kind::Refuse, came, given(&name), String::new())
        },
    };
    registry.audit.note(sight, came.at, request.id.as_str());
}

/// The caller lacks a right.
pub(super) fn refused(
    registry: &Registry,
    caller: &Caller,
    request: &Request,
    route: &Route,
    permission: Option<Permission>,
    reason: &str,
) {
    let asked: &str = match permission {
        Some(permission) => permission.as_str(),
        None => request.path(),
    };
    let came = caller.circumstances;
    let origin = caller.origin("");
    let sight = Sight {
        asked: asked.to_owned(),
        reason: reason.to_owned(),
        ..about(
            route,
            sight(Kind::Refuse, came, origin.actor, origin.credential),
        )
    };
    registry.audit.note(sight, came.at, request.id.as_str());
}

/// Somebody got content.
pub(super) fn read(registry: &Registry, caller: &Caller, request: &Request, route: &Route) {
    let content = matches!(route, Route::Manifest { .. } | Route::Blob { .. });
    if request.method != Method::GET || !content {
        return;
    }
    let came = caller.circumstances;
    let origin = caller.origin("");
    let sight = Sight {
        asked: "pull".into(),
        ..about(
            route,
            sight(Kind::Read, came, origin.actor, origin.credential),
        )
    };
    registry.audit.note(sight, came.at, request.id.as_str());
}

fn about(route: &Route, sight: Sight) -> Sight {
    let (digest, tag) = match route {
        Route::Blob { digest, .. } | Route::Referrers { digest, .. } => {
            (Some(digest.to_string()), None)
        }
        Route::Manifest { reference, .. } => match reference {
            Reference::Digest(digest) => (Some(digest.to_string()), None),
            Reference::Tag(tag) => (None, Some(tag.to_string())),
        },
        _ => (None, None),
    };
    Sight {
        repository: route.repository().map(ToString::to_string),
        digest,
        tag,
        ..sight
    }
}

/// Somebody asked for a token.
pub(super) fn token(
    registry: &Registry,
    request: &Request,
    came: Circumstances,
    who: &Result<Asked, Refused>,
) {
    let sight = match who {
        Ok(asked) if asked.anonymous => return,
        Ok(asked) => Sight {
            asked: "/token".into(),
            ..sight(
                Kind::SignIn,
                came,
                asked.principal.clone(),
                asked.credential.clone(),
            )
        },
        // The request itself was none, or the store could not tell.
        Err(refused) if matches!(refused.word, "request" | "store" | WAITS) => return,
        Err(Refused {
            limited: Some(sight),
            ..
        }) => sight.clone(),
        Err(refused) => Sight {
            asked: "sign-in".into(),
            reason: refused.reason.clone(),
            ..sight(Kind::Refuse, came, given(&refused.name), String::new())
        },
    };
    registry.audit.note(sight, came.at, request.id.as_str());
}
