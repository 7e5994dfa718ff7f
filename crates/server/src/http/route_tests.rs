//! Tests of [`super::parse`], with a second parser written another way to compare with.

use proptest::prelude::*;

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

fn tag(text: &str) -> Reference {
    Reference::parse(text).unwrap()
}

/// Spec: API-1, API-2, API-3, PING-1.
#[test]
fn the_table_parses() {
    for example in Route::EXAMPLES {
        let route = example.route();
        assert_eq!(route.label(), example.label, "{}", example.path);
        assert!(!route.methods().is_empty());
    }
    let labels: std::collections::HashSet<_> = Route::EXAMPLES
        .iter()
        .map(|example| example.label)
        .collect();
    assert_eq!(labels.len(), Route::EXAMPLES.len());
    assert_eq!(parse("/v2"), Ok(Route::Ping));
    assert_eq!(
        parse("/v2/a/blobs/uploads"),
        Ok(Route::Uploads { name: name("a") })
    );
}

/// Spec: API-1.
#[test]
fn names_may_look_like_anything() {
    let digest = Digest::parse(DIGEST).unwrap();
    for text in [
        "foo/blobs",
        "tags/list",
        "a/manifests/b",
        "blobs",
        "manifests",
        "tags",
        "referrers",
        "blobs/uploads",
        "a/blobs/uploads",
        "v2",
        "uploads",
        "a/tags/list/tags/list",
        "a/referrers/b",
    ] {
        let name = name(text);
        assert_eq!(
            parse(&format!("/v2/{text}/manifests/latest")),
            Ok(Route::Manifest {
                name: name.clone(),
                reference: tag("latest")
            })
        );
        assert_eq!(
            parse(&format!("/v2/{text}/tags/list")),
            Ok(Route::Tags { name: name.clone() })
        );
        assert_eq!(
            parse(&format!("/v2/{text}/blobs/{DIGEST}")),
            Ok(Route::Blob {
                name: name.clone(),
                digest: digest.clone()
            })
        );
        for end in ["", "/"] {
            assert_eq!(
                parse(&format!("/v2/{text}/blobs/uploads{end}")),
                Ok(Route::Uploads { name: name.clone() })
            );
        }
        assert_eq!(
            parse(&format!("/v2/{text}/blobs/uploads/list")),
            Ok(Route::Upload {
                name: name.clone(),
                id: "list".into()
            })
        );
        assert_eq!(
            parse(&format!("/v2/{text}/referrers/{DIGEST}")),
            Ok(Route::Referrers {
                name,
                digest: digest.clone()
            })
        );
    }
    // A tag called like a noun is still a tag.
    for reference in ["list", "uploads", "blobs", "latest"] {
        assert_eq!(
            parse(&format!("/v2/a/tags/manifests/{reference}")),
            Ok(Route::Manifest {
                name: name("a/tags"),
                reference: tag(reference)
            })
        );
    }
}

/// Spec: NAME-3, DIG-3, TAG-1, TAG-2.
#[test]
fn what_is_wrong_is_named() {
    let code = |path: &str| parse(path).unwrap_err().code().as_str();
    assert_eq!(code("/v2/Foo/tags/list"), "NAME_INVALID");
    assert_eq!(code("/v2//tags/list"), "NAME_INVALID");
    assert_eq!(code("/v2/a//b/manifests/x"), "NAME_INVALID");
    assert_eq!(code("/v2/a/blobs/sha256:00"), "DIGEST_INVALID");
    assert_eq!(code("/v2/a/blobs/latest"), "DIGEST_INVALID");
    assert_eq!(code("/v2/a/referrers/latest"), "DIGEST_INVALID");
    assert_eq!(code("/v2/a/manifests/sha256:00"), "DIGEST_INVALID");
    assert_eq!(code("/v2/a/manifests/.dot"), "TAG_INVALID");
    for path in [
        "/v2/a",
        "/v2/a/",
        "/v2/a/manifests",
        "/v2/a/manifests/",
        "/v2/a/b/c",
        "/v2/manifests/x",
        "/v2x/",
        "/v1/_ping",
        "",
        "*",
        "/metrics/",
    ] {
        assert_eq!(parse(path), Err(RouteError::NotFound), "{path}");
    }
    for path in [
        "/v2/_docker/x/y",
        "/v2/_oci/ext",
        "/v2/a/_x/y/z",
        "/v2/_catalog/",
    ] {
        assert_eq!(code(path), "EXTENSION_UNKNOWN", "{path}");
    }
    let long = format!("/v2/{}/tags/list", "a".repeat(256));
    assert_eq!(code(&long), "NAME_INVALID");
}

#[test]
fn encodings_that_hide_something_are_refused() {
    for (path, what) in [
        ("/v2/a%2Fb/tags/list", "encoded slash"),
        ("/v2/a/tags%2flist", "encoded slash"),
        ("/v2/a%5Cb/tags/list", "backslash"),
        ("/v2/a%00/tags/list", "control character"),
        ("/v2/a%0D%0Ab/tags/list", "control character"),
        ("/v2/a%252Fb/tags/list", "doubly encoded"),
        ("/v2/%2e%2e/tags/list", "dot segment"),
        ("/v2/../tags/list", "dot segment"),
        ("/v2/a/./tags/list", "dot segment"),
        ("/v2/a/../../etc/passwd", "dot segment"),
        ("/v2/a%/tags/list", "encodes no character"),
        ("/v2/a%zz/tags/list", "encodes no character"),
        ("/v2/a%ff/tags/list", "encodes no character"),
    ] {
        let error = parse(path).unwrap_err();
        assert!(error.to_string().contains(what), "{path}: {error}");
        assert_eq!(error.code(), ErrorCode::NameInvalid, "{path}");
    }
    // Harmless encodings are understood: some clients encode the colon.
    assert_eq!(
        parse(&format!("/v2/a/blobs/{}", DIGEST.replace(':', "%3A"))),
        parse(&format!("/v2/a/blobs/{DIGEST}"))
    );
    assert_eq!(parse("/v2/%61/tags/list"), parse("/v2/a/tags/list"));
}

/// Spec: API-4, PING-4.
#[test]
fn methods_and_permissions_fit() {
    for example in Route::EXAMPLES {
        let route = example.route();
        for method in route.methods() {
            let permission = route.permission(method);
            let writes = !matches!(*method, Method::GET | Method::HEAD);
            if writes && route.repository().is_some() {
                assert!(
                    matches!(permission, Some(Permission::Push | Permission::Delete)),
                    "{method} {}",
                    example.path
                );
            }
            // What leads to a provider and back is followed once, and not looked at before.
            if matches!(
                route,
                Route::People(
                    PeopleRoute::Start(_) | PeopleRoute::Callback(_) | PeopleRoute::SignedOut(_)
                )
            ) {
                continue;
            }
            assert_eq!(
                route.methods().contains(&Method::HEAD),
                route.methods().contains(&Method::GET),
                "{}",
                example.path
            );
        }
    }
}

/// The same grammar, read segment by segment from the left-hand end with everything allocated.
fn naive(path: &str) -> Option<Route> {
    if let Some(fixed) = [
        ("/", Route::Root),
        ("/livez", Route::Livez),
        ("/readyz", Route::Readyz),
        ("/startupz", Route::Startupz),
        ("/metrics", Route::Metrics),
        ("/token", Route::Token),
        ("/v2", Route::Ping),
        ("/v2/", Route::Ping),
        ("/v2/_catalog", Route::Catalog),
        ("/v2/_oci/ext/discover", Route::Extensions { name: None }),
    ]
    .into_iter()
    .find_map(|(text, route)| (text == path).then_some(route))
    {
        return Some(fixed);
    }
    let segments: Vec<String> = path.split('/').map(str::to_owned).collect();
    if segments.len() < 4 || !segments[0].is_empty() || segments[1] != "v2" {
        return None;
    }
    let named =
        |end: usize| RepositoryName::parse(&segments[2..segments.len() - end].join("/")).ok();
    let tail: Vec<&str> = segments[2..].iter().map(String::as_str).collect();
    match tail.as_slice() {
        [.., "tags", "list"] => Some(Route::Tags { name: named(2)? }),
        [.., "_oci", "ext", "discover"] => Some(Route::Extensions {
            name: Some(named(3)?),
        }),
        [.., "blobs", "uploads"] => Some(Route::Uploads { name: named(2)? }),
        [.., "blobs", "uploads", ""] => Some(Route::Uploads { name: named(3)? }),
        [.., "blobs", "uploads", id] => Some(Route::Upload {
            name: named(3)?,
            id: (*id).to_owned(),
        }),
        [.., "manifests", last] => Some(Route::Manifest {
            name: named(2)?,
            reference: last.parse().ok()?,
        }),
        [.., "blobs", last] => Some(Route::Blob {
            name: named(2)?,
            digest: last.parse().ok()?,
        }),
        [.., "referrers", last] => Some(Route::Referrers {
            name: named(2)?,
            digest: last.parse().ok()?,
        }),
        _ => None,
    }
}

fn segment() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec![
            "v2", "blobs", "uploads", "manifests", "tags", "list", "referrers", "_oci", "ext",
            "discover", "_catalog", "latest", "a", "b-c", "", ".", "..", DIGEST, "sha256:00",
        ]).prop_map(str::to_owned),
        1 => "[a-z0-9._-]{1,6}",
    ]
}

proptest! {
    #[test]
    fn parsing_never_panics(path in ".{0,80}") {
        let _ = parse(&path);
        let _ = parse(&format!("/v2/{path}"));
    }

    #[test]
    fn both_parsers_agree(segments in prop::collection::vec(segment(), 0..7), v2 in prop::bool::weighted(0.9)) {
        let path = format!("{}/{}", if v2 { "/v2" } else { "" }, segments.join("/"));
        prop_assert_eq!(parse(&path).ok(), naive(&path), "{}", path);
    }
}
