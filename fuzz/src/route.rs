//! The target of the server's addresses.

use wharf::http::route::{self, Route};

pub(crate) fn path(input: &[u8]) {
    let Ok(path) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(route) = route::parse(path) else {
        return;
    };
    assert!(!route.methods().is_empty());
    for method in route.methods() {
        // Nothing below /v2/ but its doors may be open to all.
        let open = route.permission(method).is_none();
        assert!(
            !open || route.repository().is_none(),
            "{method} {path} needs no right"
        );
    }
    let decoded = wharf_oci::percent::decode(path).expect("a path that parsed");
    assert_eq!(
        decoded.matches('/').count(),
        path.matches('/').count(),
        "a slash came out of {path}"
    );
    // A session's id is checked where it is looked up, everything else here.
    if !matches!(route, Route::Upload { .. }) {
        assert!(
            !decoded.split('/').any(|segment| segment == "..")
                && !decoded.contains(['\\', '\0', '%'])
        );
    }
    // The name and what follows it are the path: no byte is lost or read twice.
    let tail = match &route {
        Route::Blob { digest, .. } => format!("/blobs/{digest}"),
        Route::Uploads { .. } => "/blobs/uploads".into(),
        Route::Upload { id, .. } => format!("/blobs/uploads/{id}"),
        Route::Manifest { reference, .. } => format!("/manifests/{reference}"),
        Route::Tags { .. } => "/tags/list".into(),
        Route::Referrers { digest, .. } => format!("/referrers/{digest}"),
        Route::Extensions { name: Some(_) } => "/_oci/ext/discover".into(),
        _ => return,
    };
    let name = route.repository().expect("a route with a tail has a name");
    let whole = format!("/v2/{name}{tail}");
    assert!(
        *decoded == whole || *decoded == format!("{whole}/"),
        "{path} was read as {whole}"
    );
}
