//! The audit log. Whoever may read the audit everywhere sees all of it; an auditor of namespaces sees what happened on
//! repositories below these, and on the namespaces themselves. That somebody read it is in it.

use axum::Json;
use axum::body::Body as AxumBody;
use axum::response::Response as AxumResponse;
use http::header::{CONTENT_TYPE, HeaderValue, LINK};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use wharf_core::access::Permission;
use wharf_core::audit::{self, Place, Query as Asked};
use wharf_oci::RepositoryName;

use super::Shared;
use super::arguments::Query;
use super::page::{Page, Wanted, cursor};
use super::problem::{Kind, Problem, Refusals};
use super::time::Time;
use super::visitor::Visitor;
use crate::admin::EntryView;

/// The media type of an export.
const JSON_LINES: &str = "application/jsonl";

/// An entry of the audit log
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Entry {
    /// Its place in the log: one more than the one's before
    seq: i64,
    /// When it happened
    time: Time,
    /// Who did it; of a refused sign-in, the name that was given
    principal: String,
    /// The id of the token or secret, or how the principal signed in
    credential: String,
    /// The client's address
    address: String,
    /// The request's id, as in the log of requests and in `X-Request-Id`
    request: String,
    /// What happened
    #[schema(example = "tag.move")]
    action: String,
    /// The repository or namespace
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
    /// The blob or manifest
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// The tag
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
    /// `allowed` or `refused`; `found` of what the log found wrong with itself
    decision: String,
    /// The binding or rule behind it, where it is known
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// What was before a change
    #[serde(skip_serializing_if = "Value::is_null")]
    before: Value,
    /// What was after it
    #[serde(skip_serializing_if = "Value::is_null")]
    after: Value,
    /// How many equal ones it stands for
    count: u64,
    /// What else is known
    #[schema(value_type = Object)]
    detail: Map<String, Value>,
    /// Its hash, over that of the entry before and all of its own
    hash: String,
}

impl From<EntryView> for Entry {
    fn from(view: EntryView) -> Self {
        Self {
            seq: view.seq,
            time: Time(view.at),
            principal: view.principal,
            credential: view.credential,
            address: view.address,
            request: view.request,
            action: view.action,
            repository: view.repository,
            digest: view.digest,
            tag: view.tag,
            decision: view.decision,
            rule: view.rule,
            before: view.before,
            after: view.after,
            count: view.count,
            detail: view.detail,
            hash: view.hash,
        }
    }
}

/// Which entries
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(super) struct Filter {
    /// From this moment on
    #[param(example = "2026-01-31T00:00:00Z")]
    since: Option<String>,
    /// Before this moment
    until: Option<String>,
    /// By this user or robot
    principal: Option<String>,
    /// On exactly this repository
    repository: Option<String>,
    /// On this namespace and below
    namespace: Option<String>,
    /// This action, or all of a noun
    #[param(example = "tag")]
    action: Option<String>,
    /// `latest` (not given: too) or `oldest` first
    order: Option<String>,
}

fn moment(field: &'static str, text: Option<&String>) -> Result<Option<i64>, Problem> {
    let parse = |text: &String| {
        let at = text.parse::<jiff::Timestamp>();
        at.map(|at| at.as_millisecond())
            .map_err(|_| Problem::invalid(field, "write a moment as in 2026-01-31T12:00:00Z"))
    };
    text.map(parse).transpose()
}

fn position(key: &str) -> Option<Place> {
    let (at, seq) = key.split_once(' ')?;
    Some((at.parse().ok()?, seq.parse().ok()?))
}

/// What is asked for, as far as this visitor may see it.
fn query(
    state: &Shared,
    visitor: &Visitor,
    filter: Filter,
    wanted: &Wanted,
) -> Result<Asked, Problem> {
    let access = &state.registry.access;
    visitor.is_somebody(access)?;
    let within = visitor.prefixes(access, Permission::ReadAudit);
    // What the token was bought for is asked on a place where the right is held, if there is one.
    let place = within.as_ref().and_then(|within| within.first());
    let place = place.and_then(|on| RepositoryName::parse(on).ok());
    visitor.may_on(access, Permission::ReadAudit, place.as_ref())?;
    let latest_first = match filter.order.as_deref() {
        None | Some("latest") => true,
        Some("oldest") => false,
        Some(_) => return Err(Problem::invalid("order", "write latest or oldest")),
    };
    let after = match wanted.after()? {
        None => None,
        Some(key) => Some(position(&key).ok_or_else(|| {
            Problem::invalid(
                "after",
                "this cursor is of another list; take the `next` of this one",
            )
        })?),
    };
    for text in [
        &filter.principal,
        &filter.repository,
        &filter.namespace,
        &filter.action,
    ] {
        if text.as_ref().is_some_and(|text| text.contains('\0')) {
            return Err(Problem::new(Kind::Invalid, "no name holds a zero byte"));
        }
    }
    Ok(Asked {
        since: moment("since", filter.since.as_ref())?,
        until: moment("until", filter.until.as_ref())?,
        principal: filter.principal,
        repository: filter.repository,
        namespace: filter.namespace,
        action: filter.action,
        within,
        latest_first,
        after,
        limit: wanted.limit()? as usize,
    })
}

async fn found(state: &Shared, asked: &Asked) -> Result<(Vec<Entry>, Option<String>), Problem> {
    let origin = wharf_meta::origin::current().map(|origin| (*origin).clone());
    let page = audit::read(&state.registry, asked, origin.unwrap_or_default()).await?;
    let entries = page.entries.into_iter().map(EntryView::from);
    let next = page.next.map(|(at, seq)| cursor(&format!("{at} {seq}")));
    Ok((entries.map(Entry::from).collect(), next))
}

/// List entries of the audit log
///
/// For those with the right `read-audit`, everywhere or on namespaces. A page may hold fewer entries than asked for and still have a
/// `next`: go on until there is none.
#[utoipa::path(
    get, path = "/api/v1/audit", operation_id = "list_audit", tag = "registry", params(Filter, Wanted),
    responses((status = 200, description = "A page", body = Page<Entry>), Refusals)
)]
pub(super) async fn list(
    state: Shared,
    visitor: Visitor,
    Query(filter): Query<Filter>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<Entry>>, Problem> {
    let asked = query(&state, &visitor, filter, &wanted)?;
    let (items, next) = found(&state, &asked).await?;
    Ok(Json(Page::new(items, next)))
}

/// Export entries of the audit log
///
/// The same as JSON lines, one entry each; where to go on is in the `Link` header. The order is `oldest` where none is given.
#[utoipa::path(
    get, path = "/api/v1/audit/export", operation_id = "export_audit", tag = "registry", params(Filter, Wanted),
    responses((status = 200, description = "Entries", body = String, content_type = "application/jsonl"), Refusals)
)]
pub(super) async fn export(
    state: Shared,
    visitor: Visitor,
    Query(mut filter): Query<Filter>,
    Query(wanted): Query<Wanted>,
) -> Result<AxumResponse, Problem> {
    filter.order.get_or_insert_with(|| "oldest".to_owned());
    let asked = query(&state, &visitor, filter, &wanted)?;
    let (entries, next) = found(&state, &asked).await?;
    let mut text = String::new();
    for entry in &entries {
        // Plain structures of text and numbers always serialize.
        text.push_str(&serde_json::to_string(entry).unwrap_or_default());
        text.push('\n');
    }
    let mut response = AxumResponse::new(AxumBody::from(text));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON_LINES));
    if let Some(next) = next
        && let Ok(link) = HeaderValue::from_str(&format!("<?after={next}>; rel=\"next\""))
    {
        headers.insert(LINK, link);
    }
    Ok(response)
}
