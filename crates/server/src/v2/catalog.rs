//! The catalogue of repositories (CAT-1, CAT-2).

use serde_json::json;
use wharf_core::repository;
use wharf_oci::percent;

use super::{Answer, Call, reply};
use crate::http::Request;

/// GET: one page of the repositories that the caller may pull, and the link to the next.
pub(super) async fn list(call: &Call<'_>, request: &Request) -> Answer {
    let size = reply::page_size(request)?.unwrap_or(u32::MAX);
    let last = reply::query(request, "last").next();
    let page = repository::list(call.registry, call.caller, last.as_deref(), size).await?;
    let body = json!({"repositories": page.names});
    let mut response = reply::json(body.to_string().into_bytes());
    if let Some(last) = &page.next {
        let target = format!(
            "{}/v2/_catalog?last={}&n={}",
            call.base,
            percent::encode_query(last),
            page.names.len()
        );
        reply::link_next(&mut response, &target);
    }
    Ok(response)
}
