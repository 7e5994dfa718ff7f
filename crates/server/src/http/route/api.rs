//! Addresses of the management API, below `/api/v1`.
//!
//! A repository's name holds slashes, so a segment `-`, which no name has, ends it: `/repositories/team/app/-/tags/1.0`. Who
//! makes requests from the OpenAPI document writes them as `%2F`, which means the same here. [`RESOURCES`] is the one list
//! that methods, metric labels and tests go by; a test holds it to the document.

use http::Method;
use wharf_core::access::split_robot_name;
use wharf_oci::{RepositoryName, percent};

use super::{Route, RouteError};

/// One address of the management API.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// As in the OpenAPI document.
    pub template: &'static str,
    /// What can be done there.
    pub methods: &'static [Method],
    /// Whether it is there for everybody, without asking who they are.
    pub open: bool,
    /// A path that means it, for tests that must not forget one.
    pub example: &'static str,
}

/// A path below `/api/v1`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRoute {
    /// What it means.
    pub resource: &'static Resource,
    /// The path with each parameter in one encoded segment, which is what the router matches.
    pub path: String,
}

impl ApiRoute {
    /// The repository or namespace that the path names: for a robot, the namespace that it belongs to.
    pub fn place(&self) -> Option<RepositoryName> {
        let template = self.resource.template;
        let mut parts = template.split('/').zip(self.path.split('/'));
        let (_, part) = parts.find(|(wanted, _)| *wanted == "{name}")?;
        let part = percent::decode(part).ok()?;
        match template.starts_with("/api/v1/robots/") {
            true => RepositoryName::parse(split_robot_name(&part)?.0).ok(),
            false => RepositoryName::parse(&part).ok(),
        }
    }
}

const GET: &[Method] = &[Method::GET, Method::HEAD];

const GET_DELETE: &[Method] = &[Method::GET, Method::HEAD, Method::DELETE];
const GET_POST: &[Method] = &[Method::GET, Method::HEAD, Method::POST];
const GET_PUT_DELETE: &[Method] = &[Method::GET, Method::HEAD, Method::PUT, Method::DELETE];
const GET_PATCH_DELETE: &[Method] = &[Method::GET, Method::HEAD, Method::PATCH, Method::DELETE];
const PUT: &[Method] = &[Method::PUT];
const DELETE: &[Method] = &[Method::DELETE];
const POST: &[Method] = &[Method::POST];
const PUT_DELETE: &[Method] = &[Method::PUT, Method::DELETE];
const POST_DELETE: &[Method] = &[Method::POST, Method::DELETE];
const GET_POST_DELETE: &[Method] = &[Method::GET, Method::HEAD, Method::POST, Method::DELETE];

const fn resource(
    template: &'static str,
    methods: &'static [Method],
    example: &'static str,
) -> Resource {
    Resource {
        template,
        methods,
        open: false,
        example,
    }
}

const fn open(template: &'static str) -> Resource {
    Resource {
        template,
        methods: GET,
        open: true,
        example: template,
    }
}

/// All of them. `{name}` takes one segment or more, up to a `-`; every other parameter takes one.
pub const RESOURCES: &[Resource] = &[
    open("/api/v1"),
    open("/api/v1/openapi.json"),
    resource("/api/v1/me", GET, "/api/v1/me"),
    resource("/api/v1/repositories", GET, "/api/v1/repositories"),
    resource(
        "/api/v1/repositories/{name}",
        GET_DELETE,
        "/api/v1/repositories/team/app",
    ),
    resource(
        "/api/v1/repositories/{name}/-/history",
        GET,
        "/api/v1/repositories/team/app/-/history",
    ),
    resource(
        "/api/v1/repositories/{name}/-/tags",
        GET,
        "/api/v1/repositories/team/app/-/tags",
    ),
    resource(
        "/api/v1/repositories/{name}/-/tags/{tag}",
        GET_DELETE,
        "/api/v1/repositories/team/app/-/tags/latest",
    ),
    resource(
        "/api/v1/repositories/{name}/-/tags/{tag}/history",
        GET,
        "/api/v1/repositories/team/app/-/tags/latest/history",
    ),
    resource(
        "/api/v1/repositories/{name}/-/tags/{tag}/restore",
        POST,
        "/api/v1/repositories/team/app/-/tags/latest/restore",
    ),
    resource(
        "/api/v1/repositories/{name}/-/manifests/{digest}/restore",
        POST,
        "/api/v1/repositories/team/app/-/manifests/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855/restore",
    ),
    resource("/api/v1/bindings", GET_POST_DELETE, "/api/v1/bindings"),
    resource("/api/v1/apply", GET_POST, "/api/v1/apply"),
    resource("/api/v1/explain", GET, "/api/v1/explain"),
    resource("/api/v1/audit", GET, "/api/v1/audit"),
    resource("/api/v1/audit/export", GET, "/api/v1/audit/export"),
    resource("/api/v1/audit/verify", POST, "/api/v1/audit/verify"),
    resource("/api/v1/groups", GET, "/api/v1/groups"),
    resource(
        "/api/v1/groups/{group}",
        GET_PUT_DELETE,
        "/api/v1/groups/developers",
    ),
    resource(
        "/api/v1/groups/{group}/members/{member}",
        PUT_DELETE,
        "/api/v1/groups/developers/members/alice",
    ),
    resource(
        "/api/v1/groups/{group}/sources",
        POST_DELETE,
        "/api/v1/groups/developers/sources",
    ),
    resource("/api/v1/namespaces", GET, "/api/v1/namespaces"),
    resource(
        "/api/v1/namespaces/{name}",
        GET_PUT_DELETE,
        "/api/v1/namespaces/team/app",
    ),
    resource("/api/v1/roles", GET, "/api/v1/roles"),
    resource(
        "/api/v1/roles/{role}",
        GET_PUT_DELETE,
        "/api/v1/roles/signer",
    ),
    resource("/api/v1/workload/issuers", GET, "/api/v1/workload/issuers"),
    resource(
        "/api/v1/workload/issuers/{issuer}",
        GET_PUT_DELETE,
        "/api/v1/workload/issuers/prod",
    ),
    resource("/api/v1/workload/rules", GET, "/api/v1/workload/rules"),
    resource(
        "/api/v1/workload/rules/{rule}",
        GET_PUT_DELETE,
        "/api/v1/workload/rules/prod-default",
    ),
    resource("/api/v1/workload/test", POST, "/api/v1/workload/test"),
    resource("/api/v1/users", GET_POST, "/api/v1/users"),
    resource(
        "/api/v1/users/{user}",
        GET_PATCH_DELETE,
        "/api/v1/users/alice",
    ),
    resource(
        "/api/v1/users/{user}/password",
        PUT,
        "/api/v1/users/alice/password",
    ),
    resource(
        "/api/v1/users/{user}/tokens",
        GET_POST,
        "/api/v1/users/alice/tokens",
    ),
    resource(
        "/api/v1/users/{user}/accounts",
        GET_POST_DELETE,
        "/api/v1/users/alice/accounts",
    ),
    resource(
        "/api/v1/users/{user}/sessions",
        GET_DELETE,
        "/api/v1/users/alice/sessions",
    ),
    resource(
        "/api/v1/users/{user}/sessions/{id}",
        DELETE,
        "/api/v1/users/alice/sessions/0123456789abcdef",
    ),
    resource("/api/v1/robots", GET_POST, "/api/v1/robots"),
    resource(
        "/api/v1/robots/{name}",
        GET_PATCH_DELETE,
        "/api/v1/robots/team/app+ci",
    ),
    resource(
        "/api/v1/robots/{name}/-/rotate",
        POST,
        "/api/v1/robots/team/app+ci/-/rotate",
    ),
    resource(
        "/api/v1/credentials/{id}",
        DELETE,
        "/api/v1/credentials/0123456789abcdef",
    ),
    resource("/api/v1/invitations", GET_POST, "/api/v1/invitations"),
    Resource {
        template: "/api/v1/invitations/accept",
        methods: POST,
        // Whoever is invited has no credentials yet.
        open: true,
        example: "/api/v1/invitations/accept",
    },
    resource(
        "/api/v1/invitations/{id}",
        DELETE,
        "/api/v1/invitations/0123456789abcdef",
    ),
    resource("/api/v1/jobs", GET_POST, "/api/v1/jobs"),
    resource(
        "/api/v1/jobs/{id}",
        GET,
        "/api/v1/jobs/0199a0b0-0000-7000-8000-000000000000",
    ),
    resource(
        "/api/v1/jobs/{id}/cancel",
        POST,
        "/api/v1/jobs/0199a0b0-0000-7000-8000-000000000000/cancel",
    ),
    resource(
        "/api/v1/jobs/{id}/retry",
        POST,
        "/api/v1/jobs/0199a0b0-0000-7000-8000-000000000000/retry",
    ),
    resource("/api/v1/status", GET, "/api/v1/status"),
];

/// Parses a path, still percent-encoded; `None`: it is not below `/api`.
pub(super) fn parse(path: &str) -> Option<Result<Route, RouteError>> {
    let rest = path.strip_prefix("/api")?;
    if !rest.is_empty() && !rest.starts_with('/') {
        return None;
    }
    let path = match rest {
        "" | "/" | "/v1" | "/v1/" => "/api/v1",
        _ => path,
    };
    Some(find(path))
}

fn find(path: &str) -> Result<Route, RouteError> {
    let segments = path
        .split('/')
        .map(decode)
        .collect::<Result<Vec<String>, _>>()?;
    for resource in RESOURCES {
        if let Some(path) = fit(resource.template, &segments) {
            return Ok(Route::Api(ApiRoute { resource, path }));
        }
    }
    Err(RouteError::NotFound)
}

/// A segment decoded once. What hides a second encoding or breaks lines is refused, as below `/v2/`.
fn decode(segment: &str) -> Result<String, RouteError> {
    let decoded = percent::decode(segment)
        .map_err(|_| RouteError::Encoding("a '%' that encodes no character"))?;
    if decoded.contains('\\') {
        return Err(RouteError::Encoding("a backslash"));
    }
    if decoded.contains('%') {
        return Err(RouteError::Encoding("a doubly encoded character"));
    }
    if decoded.chars().any(char::is_control) {
        return Err(RouteError::Encoding("an encoded control character"));
    }
    if decoded.split('/').any(|part| matches!(part, "." | "..")) {
        return Err(RouteError::Encoding("a dot segment"));
    }
    Ok(decoded.into_owned())
}

/// The segments as one path of the template, if they are that.
fn fit(template: &str, segments: &[String]) -> Option<String> {
    let mut left = segments;
    let mut path = String::new();
    for (at, wanted) in template.split('/').enumerate() {
        if at > 0 {
            path.push('/');
        }
        let taken = match wanted {
            "{name}" => left.iter().take_while(|segment| *segment != "-").count(),
            _ => 1,
        };
        if taken == 0 || taken > left.len() {
            return None;
        }
        let (these, rest) = left.split_at(taken);
        left = rest;
        if !wanted.starts_with('{') {
            if these[0] != wanted {
                return None;
            }
            path.push_str(wanted);
        } else if these.iter().any(String::is_empty) {
            return None;
        } else {
            path.push_str(&percent::encode_query(&these.join("/")));
        }
    }
    left.is_empty().then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(path: &str) -> Option<(&'static str, String)> {
        match parse(path)? {
            Ok(Route::Api(route)) => Some((route.resource.template, route.path)),
            _ => None,
        }
    }

    #[test]
    fn every_example_means_its_own_address() {
        for resource in RESOURCES {
            let (template, _) = parsed(resource.example).unwrap();
            assert_eq!(template, resource.template);
            assert_eq!(
                resource.methods.contains(&Method::GET),
                resource.methods.contains(&Method::HEAD)
            );
        }
    }

    #[test]
    fn a_path_names_its_place() {
        for (path, wanted) in [
            ("repositories/team/app", Some("team/app")),
            (
                "repositories/team%2Fapp/-/tags/v1/restore",
                Some("team/app"),
            ),
            ("namespaces/team/a", Some("team/a")),
            ("robots/team%2Fa+ci", Some("team/a")),
            ("robots/none", None),
            ("repositories/NOT", None),
            ("repositories", None),
            ("users/alice", None),
        ] {
            let Some(Ok(Route::Api(route))) = parse(&format!("/api/v1/{path}")) else {
                panic!("{path}")
            };
            let place = route.place();
            assert_eq!(place.as_ref().map(RepositoryName::as_str), wanted, "{path}");
        }
    }

    #[test]
    fn names_with_plain_and_encoded_slashes_are_the_same() {
        for path in [
            "/api/v1/repositories/team/app",
            "/api/v1/repositories/team%2Fapp",
            "/api/v1/repositories/te%61m%2fapp",
        ] {
            assert_eq!(
                parsed(path),
                Some((
                    "/api/v1/repositories/{name}",
                    "/api/v1/repositories/team%2Fapp".to_owned()
                ))
            );
        }
    }

    #[test]
    fn what_hides_its_meaning_is_refused() {
        for path in [
            "/api/v1/repositories/a%252fb",
            "/api/v1/repositories/a%5cb",
            "/api/v1/repositories/a%0ab",
            "/api/v1/repositories/../me",
            "/api/v1/repositories/a%2f..%2fb",
            "/api/v1/repositories/a%zz",
        ] {
            let refused = parse(path).unwrap();
            assert!(matches!(refused, Err(RouteError::Encoding(_))), "{path}");
        }
        for path in [
            "/api/v2/me",
            "/api/v1/me/",
            "/api/v1//me",
            "/api/v1/nothing",
            "/api/v1/repositories//a",
            "/api/v1/repositories/a/-",
            "/api/v1/repositories/a/-/tags/-/",
            "/api/v1/repositories/-/tags",
        ] {
            assert_eq!(parse(path), Some(Err(RouteError::NotFound)), "{path}");
        }
        assert_eq!(parse("/apix"), None);
        assert_eq!(parse("/v2/api"), None);
    }
}
