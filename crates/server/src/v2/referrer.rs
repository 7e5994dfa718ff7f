//! Referrers (end-12).

use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use wharf_core::referrer;
use wharf_oci::{Digest, RepositoryName, media_type, percent, referrers};

use super::{Answer, Call, reply};
use crate::http::Request;

const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// GET: an index of what refers to `digest`, by type if asked for (REF-1 … REF-7).
pub(super) async fn list(
    call: &Call<'_>,
    request: &Request,
    name: &RepositoryName,
    digest: &Digest,
) -> Answer {
    // No media type has a space: it was a plus that the client did not encode.
    let types: Vec<String> = reply::query(request, "artifactType")
        .map(|kind| kind.replace(' ', "+"))
        .collect();
    let after = reply::query(request, "last").next();
    let page = referrer::list(call.registry, name, digest, types.clone(), after).await?;
    let mut response = reply::json(referrers::index_json(&page.descriptors));
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static(media_type::OCI_INDEX),
    );
    if !types.is_empty() {
        response.headers_mut().insert(
            OCI_FILTERS_APPLIED,
            HeaderValue::from_static("artifactType"),
        );
    }
    if let Some(next) = page.next {
        let mut target = format!(
            "{}/v2/{name}/referrers/{digest}?last={}",
            call.base,
            percent::encode_query(&next)
        );
        for kind in &types {
            target.push_str("&artifactType=");
            target.push_str(&percent::encode_query(kind));
        }
        reply::link_next(&mut response, &target);
    }
    Ok(response)
}
