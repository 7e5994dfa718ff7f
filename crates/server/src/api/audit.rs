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
use wharf_core::audit::{self, EntryRow, Place, Query as Asked, Report};
use wharf_oci::RepositoryName;

use super::Shared;
use super::arguments::{Body, Query};
use super::page::{Page, Wanted, cursor, foreign};
use super::problem::{Kind, Problem, Refusals};
use super::time::Time;
use super::visitor::Visitor;

/// The media type of an export.
const JSON_LINES: &str = "application/jsonl";

/// An entry of the audit log
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Entry {
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

impl From<EntryRow> for Entry {
    fn from(row: EntryRow) -> Self {
        let mut detail: Map<String, Value> = serde_json::from_str(&row.detail).unwrap_or_default();
        let text = |value: Option<Value>| match value {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        // A tag's move has words of its own, which readers of events know.
        let moved = row.action.starts_with("tag.");
        let (before, after) = match moved {
            true => (detail.remove("from"), detail.remove("to")),
            false => (detail.remove("before"), detail.remove("after")),
        };
        let count = detail.remove("count").and_then(|count| count.as_u64());
        Self {
            seq: row.seq,
            time: Time(row.at),
            principal: row.principal,
            credential: row.credential,
            address: row.address,
            request: row.request,
            action: row.action,
            repository: row.repository,
            digest: row.digest,
            tag: row.tag,
            decision: text(detail.remove("decision")).unwrap_or_else(|| "allowed".to_owned()),
            rule: text(detail.remove("rule")),
            before: before.unwrap_or_default(),
            after: after.unwrap_or_default(),
            count: count.unwrap_or(1),
            detail,
            hash: row.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
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
    let after = match wanted.after("audit")? {
        None => None,
        Some(key) => Some(position(&key).ok_or_else(foreign)?),
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
    let next = page
        .next
        .map(|(at, seq)| cursor("audit", &format!("{at} {seq}")));
    Ok((page.entries.into_iter().map(Entry::from).collect(), next))
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

/// What the check is to find besides
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Verify {
    /// The end of the log as an earlier check told it: place and hash. It shows whether the log was put back to an older state
    #[schema(example = "1234:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")]
    expect: Option<String>,
}

/// What a check of the audit log has found
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Verified {
    /// Nothing is wrong
    whole: bool,
    /// Entries looked at
    entries: u64,
    /// The place of the first one that should be there; 0: none ever was
    first: i64,
    /// The place of the last one
    last: i64,
    /// The last one's place and hash, to be kept elsewhere and given as `expect` later; absent of an empty log
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<String>,
    /// What is wrong, by place: the first hundred
    findings: Vec<Finding>,
    /// How much is wrong
    bad: u64,
    /// Entries that were signed with an earlier secret key; the chain up to the signed end vouches for them
    by_other_key: u64,
}

/// Something that is wrong with the audit log
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Finding {
    /// The place of the entry
    seq: i64,
    /// What is wrong with it
    #[schema(example = "was changed")]
    what: String,
}

impl From<Report> for Verified {
    fn from(report: Report) -> Self {
        let findings = report.findings.into_iter();
        let end = (report.last > 0).then(|| format!("{}:{}", report.last, report.head));
        Self {
            whole: report.bad == 0,
            entries: report.entries,
            first: report.first,
            last: report.last,
            end,
            findings: findings
                .map(|audit::Finding { seq, what }| Finding { seq, what })
                .collect(),
            bad: report.bad,
            by_other_key: report.by_other_key,
        }
    }
}

/// A place and its hash, as a check tells them.
fn noted(text: &str) -> Option<(i64, String)> {
    let (place, hash) = text.split_once(':')?;
    let hex = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some((place.parse().ok()?, hash.to_ascii_lowercase())).filter(|(place, _)| hex && *place > 0)
}

/// Check that nobody altered, removed, moved or cut off an entry of the audit log
///
/// Looks at all of it, so it is for those with the right `read-audit` everywhere. One check at a time.
#[utoipa::path(
    post, path = "/api/v1/audit/verify", operation_id = "verify_audit", tag = "registry", request_body = Verify,
    responses((status = 200, description = "What was found", body = Verified), Refusals)
)]
pub(super) async fn verify(
    state: Shared,
    visitor: Visitor,
    Body(Verify { expect }): Body<Verify>,
) -> Result<Json<Verified>, Problem> {
    let access = &state.registry.access;
    if let Err(problem) = visitor.may(access, Permission::ReadAudit) {
        let of_some = visitor.prefixes(access, Permission::ReadAudit);
        let of_some = of_some.is_none_or(|prefixes| !prefixes.is_empty());
        return Err(match problem.is_forbidden() && of_some {
            true => Problem::new(
                Kind::Forbidden,
                "the check looks at every entry of the registry, and you may read those of some namespaces",
            )
            .with_cure("list and export show what you may read; whoever is auditor everywhere can check all of it (wharf grant NAME auditor)"),
            false => problem,
        });
    }
    let expect = expect.map(|text| {
        noted(&text).ok_or_else(|| {
            let text = "write it as an earlier check told it: 1234:<64 hex digits>";
            Problem::invalid("expect", text)
        })
    });
    let expect = expect.transpose()?;
    let Ok(_alone) = state.verifying.try_lock() else {
        let told = "another check of the audit log is under way";
        return Err(Problem::new(Kind::Conflict, told).with_cure("try again when it is over"));
    };
    audit::command(&state.registry, "audit.verify", serde_json::json!({})).await;
    audit::seal_if_possible(&state.registry).await;
    let report = audit::verify(&state.registry, expect.as_ref()).await?;
    Ok(Json(report.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_noted_end_is_a_place_and_a_hash() {
        let hash = "ab".repeat(32);
        assert_eq!(noted(&format!("12:{hash}")), Some((12, hash.clone())));
        let upper = format!("12:{}", hash.to_uppercase());
        assert_eq!(noted(&upper), Some((12, hash.clone())));
        for wrong in [
            "",
            "12",
            "12:ab",
            &format!("x:{hash}"),
            &format!("0:{hash}"),
            &format!("-1:{hash}"),
            &format!("12:{}", "zz".repeat(32)),
        ] {
            assert_eq!(noted(wrong), None, "{wrong}");
        }
    }
}
