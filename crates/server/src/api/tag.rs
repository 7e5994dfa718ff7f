//! Tags: where they stand, where they stood, and away with them.

use axum::Json;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wharf_core::access::Permission;
use wharf_core::{Error, tag};
use wharf_meta::tag as rows;
use wharf_oci::{RepositoryName, Tag};

use super::Shared;
use super::arguments::{Path, Query};
use super::condition::{Conditions, IfMatch, changed, versioned};
use super::page::{Page, Wanted, cursor, foreign};
use super::problem::{Kind, Problem, Refusals};
use super::repository::Named;
use super::time::Time;
use super::visitor::{Visitor, unseen};

/// A tag, and the manifest that it stands at
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tag)]
pub(super) struct Shown {
    /// Its name
    #[schema(example = "1.0")]
    name: String,
    /// The manifest
    #[schema(example = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")]
    digest: String,
    /// The manifest's media type
    #[schema(example = "application/vnd.oci.image.manifest.v1+json")]
    media_type: String,
    /// What kind of artifact it is, if it says so
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<String>,
    /// The manifest's own bytes, without what it refers to
    size: i64,
    /// One more with each move; the `ETag` is this in quotes
    #[schema(example = 3)]
    version: i64,
    /// When it came to stand there
    moved_at: Time,
}

impl From<rows::Standing> for Shown {
    fn from(row: rows::Standing) -> Self {
        Self {
            name: row.name,
            digest: row.digest.to_string(),
            media_type: row.media_type,
            artifact_type: row.artifact_type,
            size: row.size,
            version: row.version,
            moved_at: Time(row.moved_at),
        }
    }
}

/// A move of a tag
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Move {
    /// The tag
    #[schema(example = "1.0")]
    tag: String,
    /// The version that it had from then on
    version: i64,
    /// Where it stood before; absent: it was made
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// Where it stood after; absent: it was deleted
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    /// Who moved it
    #[schema(example = "alice")]
    actor: String,
    /// When
    at: Time,
}

impl From<rows::Move> for Move {
    fn from(row: rows::Move) -> Self {
        Self {
            tag: row.tag,
            version: row.version,
            from: row.from.map(|digest| digest.to_string()),
            to: row.to.map(|digest| digest.to_string()),
            actor: row.actor,
            at: Time(row.at),
        }
    }
}

/// Which tag
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct NamedTag {
    /// The repository; slashes may stay as they are, or be written `%2F`
    #[param(example = "team/app")]
    pub(super) name: String,
    /// The tag
    #[param(example = "1.0")]
    pub(super) tag: String,
}

/// A tag of that name, whether it is there or not.
pub(super) fn parse(tag: &str) -> Result<Tag, Problem> {
    Tag::parse(tag).map_err(|error| Problem::invalid("tag", error.to_string()))
}

fn refused(error: Error, repository: &RepositoryName, tag: &Tag) -> Problem {
    match error {
        Error::NameUnknown(_) => unseen(repository),
        Error::ManifestUnknown { .. } => no_tag(repository, tag),
        Error::PreconditionFailed => changed(),
        other => other.into(),
    }
}

/// The answer for a tag that is not there, or is nothing for this caller.
fn no_tag(repository: &RepositoryName, tag: &Tag) -> Problem {
    Problem::new(Kind::NotFound, format!("{repository} has no tag {tag}"))
        .with_cure("its history shows where it stood, and a deleted tag can be restored from there")
}

/// The answer for the history of such a tag.
fn no_history(repository: &RepositoryName, tag: &Tag) -> Problem {
    let text = format!("{repository} never had a tag {tag}");
    Problem::new(Kind::NotFound, text)
}

/// List tags
///
/// Those of a repository that the caller may read, bytewise by name, with where each stands. A page may have fewer entries than
/// were asked for, or none, and a `next` all the same: go on until there is none.
#[utoipa::path(
    get, path = "/api/v1/repositories/{name}/-/tags", operation_id = "list_tags", tag = "tags",
    params(Named, Wanted), responses((status = 200, description = "A page", body = Page<Shown>), Refusals)
)]
pub(super) async fn list(
    state: Shared,
    visitor: Visitor,
    Path(Named { name }): Path<Named>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<Shown>>, Problem> {
    let repository = visitor.sees(&state.registry.access, &name)?;
    let (limit, after) = (wanted.limit()?, wanted.after("tags")?);
    let registry = &state.registry;
    let view = visitor.tags(&registry.access, &repository);
    let (found, next) = tag::stand(registry, &repository, &view, after.as_deref(), limit)
        .await
        .map_err(|error| match error {
            Error::NameUnknown(_) => unseen(&repository),
            other => other.into(),
        })?;
    let items = found.into_iter().map(Shown::from).collect();
    Ok(Json(Page::new(
        items,
        next.as_deref().map(|next| cursor("tags", next)),
    )))
}

/// Show where a tag stands
///
/// With an `ETag`, to be sent as `If-Match` with a change.
#[utoipa::path(
    get, path = "/api/v1/repositories/{name}/-/tags/{tag}", operation_id = "show_tag", tag = "tags",
    params(NamedTag), responses((status = 200, description = "It", body = Shown), Refusals)
)]
pub(super) async fn get(
    state: Shared,
    visitor: Visitor,
    Path(NamedTag { name, tag }): Path<NamedTag>,
    conditions: Conditions,
) -> Result<Response, Problem> {
    let repository = visitor.sees(&state.registry.access, &name)?;
    let tag = parse(&tag)?;
    if !visitor
        .tags(&state.registry.access, &repository)
        .shows(tag.as_str())
    {
        return Err(no_tag(&repository, &tag));
    }
    let found = tag::show(&state.registry, &repository, &tag)
        .await
        .map_err(|error| refused(error, &repository, &tag))?;
    let version = found.version;
    Ok(versioned(version, &conditions, Shown::from(found)))
}

/// Delete a tag
///
/// The manifest stays, and can be pulled by digest. With `If-Match` only if nobody moved it meanwhile. Needs the right to
/// delete. A deleted tag can be restored.
#[utoipa::path(
    delete, path = "/api/v1/repositories/{name}/-/tags/{tag}", operation_id = "delete_tag", tag = "tags",
    params(NamedTag, IfMatch),
    responses((status = 204, description = "Done"), Refusals)
)]
pub(super) async fn delete(
    state: Shared,
    visitor: Visitor,
    Path(NamedTag { name, tag }): Path<NamedTag>,
    conditions: Conditions,
) -> Result<StatusCode, Problem> {
    let registry = &state.registry;
    let tag = parse(&tag)?;
    let may = visitor.sees_and_may_tag(&registry.access, &name, Permission::Delete, &tag);
    let repository = may?;
    let version = conditions.meant();
    tag::delete_at(registry, &repository, &tag, version, visitor.actor())
        .await
        .map_err(|error| refused(error, &repository, &tag))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Show where a tag stood
///
/// Its moves, the latest first; a deleted tag keeps its history.
#[utoipa::path(
    get, path = "/api/v1/repositories/{name}/-/tags/{tag}/history", operation_id = "list_moves", tag = "tags",
    params(NamedTag, Wanted), responses((status = 200, description = "A page", body = Page<Move>), Refusals)
)]
pub(super) async fn history(
    state: Shared,
    visitor: Visitor,
    Path(NamedTag { name, tag }): Path<NamedTag>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<Move>>, Problem> {
    let repository = visitor.sees(&state.registry.access, &name)?;
    let tag = parse(&tag)?;
    let limit = wanted.limit()?;
    if !visitor
        .tags(&state.registry.access, &repository)
        .shows(tag.as_str())
    {
        return Err(no_history(&repository, &tag));
    }
    let after = wanted.after("moves")?.map(|key| key.parse());
    let before = after.transpose().map_err(|_| foreign())?;
    let look = rows::MovesBefore {
        repository: repository.clone(),
        tag: tag.clone(),
        version: before.unwrap_or(i64::MAX),
        limit: limit + 1,
    };
    let found = state.registry.meta.scan(look).await?;
    if found.is_empty() && before.is_none() {
        return Err(no_history(&repository, &tag));
    }
    let items = found.into_iter().map(Move::from).collect();
    Ok(Json(Page::cut("moves", items, limit, |one: &Move| {
        one.version.to_string()
    })))
}
