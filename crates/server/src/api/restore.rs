//! What was deleted or moved away, and back again.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wharf_core::access::{Permission, TagView};
use wharf_core::restore::{self, RestoreError, Restored as Back};
use wharf_oci::{Digest, Tag};

use super::Shared;
use super::arguments::{Body, Path, Query};
use super::condition::{Conditions, IfMatch, changed};
use super::problem::{Kind, Problem, Refusals};
use super::repository::Named;
use super::tag::{Move, NamedTag, parse};
use super::time::Time;
use super::visitor::Visitor;

/// Entries of each kind that are shown at most.
const MOST: u32 = 1_000;
/// Entries of each kind that are shown if no number is asked for.
const USUAL: u32 = 50;

/// What happened in a repository lately
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct History {
    /// Moves of tags, the latest first
    moves: Vec<Move>,
    /// Deleted manifests that can be restored, the latest first
    deleted: Vec<DeletedManifest>,
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

/// How much of it
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Latest {
    /// At most so many of each kind, 50 if not given, and never more than 1000
    #[param(minimum = 1, maximum = 1000)]
    n: Option<u32>,
}

/// Show what happened in a repository
///
/// The latest moves of its tags, and the manifests that can be restored. Whoever may read some tags only is shown their moves, as far as
/// they are among the latest 1000 of all.
#[utoipa::path(
    get, path = "/api/v1/repositories/{name}/-/history", operation_id = "show_history", tag = "repositories",
    params(Named, Latest), responses((status = 200, description = "It", body = History), Refusals)
)]
pub(super) async fn history(
    state: Shared,
    visitor: Visitor,
    Path(Named { name }): Path<Named>,
    Query(Latest { n }): Query<Latest>,
) -> Result<Json<History>, Problem> {
    let repository = visitor.sees(&state.registry.access, &name)?;
    let limit = n.unwrap_or(USUAL).min(MOST);
    let view = visitor.tags(&state.registry.access, &repository);
    // Whoever sees some tags only gets their moves from among the latest ones of all.
    let among = if view == TagView::All { limit } else { MOST };
    let mut found = restore::history(&state.registry, &repository, None, among).await?;
    found.moves.retain(|one| view.shows(&one.tag));
    found.moves.truncate(limit as usize);
    found.deleted.truncate(limit as usize);
    let deleted = found
        .deleted
        .into_iter()
        .map(|(row, until)| DeletedManifest {
            digest: row.digest.to_string(),
            deleted_at: Time(row.deleted_at),
            actor: row.actor,
            until: Time(until),
        });
    Ok(Json(History {
        moves: found.moves.into_iter().map(Move::from).collect(),
        deleted: deleted.collect(),
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
