//! What was deleted or moved away, and back again.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wharf_core::access::{Permission, TagView};
use wharf_core::restore::{self, RestoreError, Restored as Back};
use wharf_meta::tag as tags;
use wharf_oci::{Digest, Tag};

use super::Shared;
use super::arguments::{Body, Path, Query};
use super::condition::{Conditions, IfMatch, changed};
use super::page::{Wanted, cursor, foreign};
use super::problem::{Kind, Problem, Refusals};
use super::repository::Named;
use super::tag::{Move, NamedTag, parse};
use super::time::Time;
use super::visitor::Visitor;

/// Entries of each kind that are shown at most.
const MOST: usize = 1_000;
/// The name of the list in cursors.
const HISTORY: &str = "history";

/// What happened in a repository lately
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct History {
    /// Moves of tags, the latest first
    moves: Vec<Move>,
    /// Deleted manifests that can be restored, the latest first
    deleted: Vec<DeletedManifest>,
    /// What to send as `after` for what was before that; absent: nothing was
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Where a page of a history begins; `None`: there is no more of that kind.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Place {
    /// Behind which move: when it was, of which tag, and the version.
    moves: Option<(i64, String, i64)>,
    /// Behind which deleted manifest: when, and its digest.
    deleted: Option<(i64, String)>,
}

impl Place {
    /// The newest.
    fn first() -> Self {
        Self {
            moves: Some((i64::MAX, String::new(), 0)),
            deleted: Some((i64::MAX, String::new())),
        }
    }

    /// As a cursor's key: tags and digests hold no spaces and no commas.
    fn key(&self) -> String {
        let moves = self.moves.as_ref();
        let moves = moves.map(|(at, tag, version)| format!("{at} {version} {tag}"));
        let deleted = self.deleted.as_ref();
        let deleted = deleted.map(|(at, digest)| format!("{at} {digest}"));
        format!(
            "{},{}",
            moves.unwrap_or_default(),
            deleted.unwrap_or_default()
        )
    }

    fn read(key: &str) -> Option<Self> {
        let (moves, deleted) = key.split_once(',')?;
        let moves = match moves {
            "" => None,
            moves => {
                let (at, rest) = moves.split_once(' ')?;
                let (version, tag) = rest.split_once(' ')?;
                Some((at.parse().ok()?, tag.to_owned(), version.parse().ok()?))
            }
        };
        let deleted = match deleted {
            "" => None,
            deleted => {
                let (at, digest) = deleted.split_once(' ')?;
                Some((at.parse().ok()?, digest.to_owned()))
            }
        };
        Some(Self { moves, deleted })
    }
}

/// A manifest that was deleted and can be restored
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeletedManifest {
    /// Which
    #[schema(example = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")]
    digest: String,
    /// When it was deleted
    deleted_at: Time,
    /// Who deleted it
    #[schema(example = "alice")]
    actor: String,
    /// Until when it can be restored
    until: Time,
}

/// What came back
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Restored {
    /// The manifest
    digest: String,
    /// Whether it was deleted, and is there again
    manifest: bool,
    /// Tags that stand at it again
    tags: Vec<String>,
    /// So many other manifests came back, since they went with it or after it
    others: u64,
}

impl From<Back> for Restored {
    fn from(back: Back) -> Self {
        Self {
            digest: back.digest.to_string(),
            manifest: back.manifest,
            tags: back.tags,
            others: back.others,
        }
    }
}

fn refused(error: RestoreError) -> Problem {
    match error {
        RestoreError::Core(error) => error.into(),
        RestoreError::Meta(error) => error.into(),
        RestoreError::NoManifest { repository, digest } => Problem::new(
            Kind::NotFound,
            format!(
                "{repository} has no deleted manifest {digest} that can be restored: it was never there, is there, or its time \
                 is over"
            ),
        )
        .with_cure("the history of the repository lists those that can be restored"),
        RestoreError::NoMove { repository, tag } => Problem::new(
            Kind::NotFound,
            format!("{repository} never had a tag {tag}, or not with that version"),
        )
        .with_cure("the history of the tag lists its versions"),
        RestoreError::Exists { repository, tag } => Problem::new(
            Kind::Conflict,
            format!("tag {tag} of {repository} exists"),
        )
        .with_cure("name the version that it shall go back to"),
        RestoreError::Moved { .. } => changed(),
        RestoreError::Denied(permission) => Problem::new(
            Kind::Forbidden,
            format!("this takes the right {permission} too"),
        ),
    }
}

/// Show what happened in a repository
///
/// The moves of its tags, and the manifests that can be restored, the latest first; on each page at most `n` of either kind. Of whoever
/// may read some tags only it shows their moves; such a page may have none, and a `next` all the same.
#[utoipa::path(
    get, path = "/api/v1/repositories/{name}/-/history", operation_id = "show_history", tag = "repositories",
    params(Named, Wanted), responses((status = 200, description = "A page", body = History), Refusals)
)]
pub(super) async fn history(
    state: Shared,
    visitor: Visitor,
    Path(Named { name }): Path<Named>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<History>, Problem> {
    let registry = &state.registry;
    let repository = visitor.sees(&registry.access, &name)?;
    let limit = wanted.limit()? as usize;
    let from = match wanted.after(HISTORY)? {
        None => Place::first(),
        Some(key) => Place::read(&key).ok_or_else(foreign)?,
    };
    let view = visitor.tags(&registry.access, &repository);
    let mut next = Place::default();
    let mut moves = Vec::new();
    if from.moves.is_some() {
        // Whoever sees some tags only gets theirs from among so many of all.
        let among = if view == TagView::All { limit } else { MOST };
        let look = tags::MovesIn {
            repository: repository.clone(),
            before: from.moves,
            limit: among as u32 + 1,
        };
        let found = registry.meta.scan(look).await?;
        let all = found.len();
        for (looked, one) in found.into_iter().enumerate().take(among) {
            let place = (one.at, one.tag.clone(), one.version);
            if view.shows(&one.tag) {
                moves.push(Move::from(one));
            }
            if moves.len() == limit || looked + 1 == among {
                next.moves = (looked + 1 < all).then_some(place);
                break;
            }
        }
    }
    let mut deleted = Vec::new();
    if from.deleted.is_some() {
        let (rows, place) =
            restore::deleted(registry, &repository, from.deleted, limit as u32).await?;
        next.deleted = place;
        deleted = rows;
    }
    let deleted = deleted.into_iter().map(|(row, until)| DeletedManifest {
        digest: row.digest.to_string(),
        deleted_at: Time(row.deleted_at),
        actor: row.actor,
        until: Time(until),
    });
    let more = next != Place::default();
    Ok(Json(History {
        moves,
        deleted: deleted.collect(),
        next: more.then(|| cursor(HISTORY, &next.key())),
    }))
}

/// Where a tag shall go back to
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreTag {
    /// To where it stood from this version on; if not given, a deleted tag goes to its last place
    #[schema(example = 2)]
    version: Option<i64>,
}

/// Put a tag back
///
/// A manifest that was deleted comes back with it. With `If-Match` only if the tag has had no move since. Needs the right to
/// delete, and the one to make tags where the tag is gone, or to move tags where it stands elsewhere.
#[utoipa::path(
    post, path = "/api/v1/repositories/{name}/-/tags/{tag}/restore", operation_id = "restore_tag", tag = "tags",
    params(NamedTag, IfMatch),
    request_body(content = Option<RestoreTag>), responses((status = 200, description = "Done", body = Restored), Refusals)
)]
pub(super) async fn tag(
    state: Shared,
    visitor: Visitor,
    Path(NamedTag { name, tag }): Path<NamedTag>,
    conditions: Conditions,
    Body(RestoreTag { version }): Body<RestoreTag>,
) -> Result<Json<Restored>, Problem> {
    let registry = &state.registry;
    let repository = visitor.sees_and_may(&registry.access, &name, Permission::Delete)?;
    let tag = parse(&tag)?;
    let from = conditions.meant();
    let actor = visitor.actor();
    let mut refusal = None;
    let may = |permission| {
        let decided = visitor.sees_and_may_tag(&registry.access, &name, permission, &tag);
        decided.map_err(|problem| refusal = Some(problem)).is_ok()
    };
    let back = restore::tag_from(registry, &repository, &tag, from, version, actor, may).await;
    match refusal {
        Some(refusal) => Err(refusal),
        None => back.map(|back| Json(back.into())).map_err(refused),
    }
}

/// Which manifest
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct NamedManifest {
    /// The repository; slashes may stay as they are, or be written `%2F`
    #[param(example = "team/app")]
    name: String,
    /// Its digest
    digest: String,
}

/// Bring a deleted manifest back
///
/// With the tags that went with it, are not in use again and whoever asks may make, and with what else went after it. Needs the right
/// to delete.
#[utoipa::path(
    post, path = "/api/v1/repositories/{name}/-/manifests/{digest}/restore", operation_id = "restore_manifest",
    tag = "repositories", params(NamedManifest),
    responses((status = 200, description = "Done", body = Restored), Refusals)
)]
pub(super) async fn manifest(
    state: Shared,
    visitor: Visitor,
    Path(NamedManifest { name, digest }): Path<NamedManifest>,
) -> Result<Json<Restored>, Problem> {
    let registry = &state.registry;
    let repository = visitor.sees_and_may(&registry.access, &name, Permission::Delete)?;
    let digest =
        Digest::parse(&digest).map_err(|error| Problem::invalid("digest", error.to_string()))?;
    let view = visitor.tags(&registry.access, &repository);
    let may_make = |tag: &Tag| {
        let decided = visitor.sees_and_may_tag(&registry.access, &name, Permission::TagCreate, tag);
        decided.is_ok()
    };
    let actor = visitor.actor();
    let back = restore::manifest_with(registry, &repository, &digest, actor, may_make).await;
    let mut back = back.map_err(refused)?;
    back.tags.retain(|tag| view.shows(tag));
    Ok(Json(back.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Place;

    proptest! {
        #[test]
        fn a_place_comes_back_as_it_went(
            moves in prop::option::of((any::<i64>(), "[a-zA-Z0-9_.-]{0,9}", any::<i64>())),
            deleted in prop::option::of((any::<i64>(), "sha256:[0-9a-f]{0,9}|")),
        ) {
            let place = Place { moves, deleted };
            prop_assert_eq!(Place::read(&place.key()), Some(place));
        }

        #[test]
        fn no_text_is_taken_for_more_than_it_says(text in any::<String>()) {
            if let Some(place) = Place::read(&text) {
                let again = Place::read(&place.key());
                prop_assert_eq!(again, Some(place));
            }
        }
    }
}
