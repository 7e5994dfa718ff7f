//! Tag lists (end-8).

use serde_json::json;
use wharf_core::access::Permission;
use wharf_core::tag;
use wharf_oci::{RepositoryName, percent};

use super::{Answer, Call, reply};
use crate::http::Request;

/// GET: one page of tags and the link to the next (TAGS-1 … TAGS-7).
pub(super) async fn list(call: &Call<'_>, request: &Request, name: &RepositoryName) -> Answer {
    let size = reply::page_size(request)?;
    let last = reply::query(request, "last").next();
    let view = call
        .registry
        .access
        .tag_view(call.caller, Permission::Pull, name);
    let page = tag::list(call.registry, name, &view, last.as_deref(), size).await?;
    let body = json!({"name": name.as_str(), "tags": page.names});
    let mut response = reply::json(body.to_string().into_bytes());
    if let Some(last) = &page.next {
        let target = format!(
            "{}/v2/{name}/tags/list?n={}&last={}",
            call.base,
            page.limit,
            percent::encode_query(last)
        );
        reply::link_next(&mut response, &target);
    }
    Ok(response)
}
