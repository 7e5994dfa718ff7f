//! Addresses: a path is parsed once, from its right-hand end, into one [`Route`].
//!
//! A repository's name holds slashes and may look like anything (`foo/blobs`, `tags/list`), so only the last segments
//! decide and everything before them is the name (API-1). The enum then drives methods, permission and metric label.
//! Called by the transport for every request; pure, and it must never panic, whatever the path.

mod api;
mod people;

use std::borrow::Cow;

use http::Method;
use wharf_core::access::{Permission, Tags};
use wharf_oci::{
    Digest, DigestError, ErrorCode, NameError, Reference, ReferenceError, RepositoryName, TagError,
};

pub use self::api::{ApiRoute, RESOURCES, Resource};
pub use self::people::PeopleRoute;

/// Every address that Wharf serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/`: the page that says what this is.
    Root,
    /// `/invitation`: where an invited person chooses a password.
    Invitation,
    /// `/auth/…`, `/account/…` and `/device`: pages on which people sign in and look after what is theirs.
    People(PeopleRoute),
    /// `/livez`: the process runs (OPS-1).
    Livez,
    /// `/readyz`: requests are welcome.
    Readyz,
    /// `/startupz`: the stores are open.
    Startupz,
    /// `/metrics`: figures for Prometheus.
    Metrics,
    /// `/token`: bearer tokens (§4.3).
    Token,
    /// `/v2/` and `/v2` (PING-1, API-3).
    Ping,
    /// `/v2/_catalog` (CAT-1).
    Catalog,
    /// `/v2/_oci/ext/discover`, or the same below a repository (EXT-1).
    Extensions {
        /// The repository, when asked below one.
        name: Option<RepositoryName>,
    },
    /// `/v2/<name>/blobs/<digest>` (end-2, end-10).
    Blob {
        /// The repository.
        name: RepositoryName,
        /// The blob.
        digest: Digest,
    },
    /// `/v2/<name>/blobs/uploads/`, also without its last slash (end-4, end-11, API-3).
    Uploads {
        /// The repository.
        name: RepositoryName,
    },
    /// `/v2/<name>/blobs/uploads/<id>` (end-5, end-6, end-13, end-14).
    Upload {
        /// The repository.
        name: RepositoryName,
        /// The session's id as the client sent it; whether it is one is for the registry to say.
        id: String,
    },
    /// `/v2/<name>/manifests/<reference>` (end-3, end-7, end-9).
    Manifest {
        /// The repository.
        name: RepositoryName,
        /// Tag or digest.
        reference: Reference,
    },
    /// `/v2/<name>/tags/list` (end-8).
    Tags {
        /// The repository.
        name: RepositoryName,
    },
    /// `/v2/<name>/referrers/<digest>` (end-12).
    Referrers {
        /// The repository.
        name: RepositoryName,
        /// The subject.
        digest: Digest,
    },
    /// `/api/v1` and what lies below it: the management API.
    Api(ApiRoute),
}

/// Why a path is no [`Route`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// What stands before the last segments is no repository name (NAME-3).
    #[error("{0}")]
    NameInvalid(NameError),
    /// A digest is expected and this is none (DIG-3).
    #[error("{0}")]
    DigestInvalid(DigestError),
    /// A tag is expected and this is none (TAG-1).
    #[error("{0}")]
    ReferenceInvalid(TagError),
    /// The path hides what it means. Names, tags and digests never need any of this.
    #[error(
        "the path holds {0}, which no name, tag or digest needs; \
         send slashes as '/' and leave out dot segments (is a proxy rewriting the path?)"
    )]
    Encoding(&'static str),
    /// A part that begins with `_` belongs to an extension, and we have none (EXT-2).
    #[error("this registry has no such extension; /v2/_oci/ext/discover lists those that it has")]
    ExtensionUnknown,
    /// Nothing is served at this path.
    #[error("nothing is served at this path; the registry's API lies below /v2/")]
    NotFound,
}

impl RouteError {
    /// The code under which a client is told (ERR-2).
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::NameInvalid(_) | Self::Encoding(_) => ErrorCode::NameInvalid,
            Self::DigestInvalid(_) => ErrorCode::DigestInvalid,
            Self::ReferenceInvalid(_) => ErrorCode::TagInvalid,
            Self::ExtensionUnknown => ErrorCode::ExtensionUnknown,
            Self::NotFound => ErrorCode::NameUnknown,
        }
    }
}

impl From<ReferenceError> for RouteError {
    fn from(error: ReferenceError) -> Self {
        match error {
            ReferenceError::Tag(error) => Self::ReferenceInvalid(error),
            ReferenceError::Digest(error) => Self::DigestInvalid(error),
        }
    }
}

/// Parses the path of a request target, without its query, still percent-encoded.
pub fn parse(path: &str) -> Result<Route, RouteError> {
    if let Some(parsed) = api::parse(path) {
        return parsed;
    }
    if !path.contains('%') {
        return parse_plain(path).map_err(|error| name_dot_segments(path, error));
    }
    let decoded = decode(path)?;
    parse_plain(&decoded).map_err(|error| name_dot_segments(&decoded, error))
}

/// Decodes once. What would change the segments, or hide a second encoding, is refused instead.
fn decode(path: &str) -> Result<Cow<'_, str>, RouteError> {
    let decoded = wharf_oci::percent::decode(path)
        .map_err(|_| RouteError::Encoding("a '%' that encodes no character"))?;
    let slashes = |text: &str| text.bytes().filter(|byte| *byte == b'/').count();
    if slashes(&decoded) != slashes(path) {
        return Err(RouteError::Encoding("an encoded slash"));
    }
    if decoded.contains('\\') {
        return Err(RouteError::Encoding("a backslash"));
    }
    if decoded.contains('%') {
        return Err(RouteError::Encoding("a doubly encoded character"));
    }
    if decoded.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(RouteError::Encoding("an encoded control character"));
    }
    Ok(decoded)
}

/// A dot segment is refused by every grammar; this only says so more clearly.
fn name_dot_segments(path: &str, error: RouteError) -> RouteError {
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        RouteError::Encoding("a dot segment")
    } else {
        error
    }
}

fn parse_plain(path: &str) -> Result<Route, RouteError> {
    let Some(rest) = path.strip_prefix("/v2/") else {
        return match path {
            "/" => Ok(Route::Root),
            "/invitation" => Ok(Route::Invitation),
            "/v2" => Ok(Route::Ping),
            "/token" => Ok(Route::Token),
            "/livez" => Ok(Route::Livez),
            "/readyz" => Ok(Route::Readyz),
            "/startupz" => Ok(Route::Startupz),
            "/metrics" => Ok(Route::Metrics),
            _ => match PeopleRoute::parse(path) {
                Some(page) => Ok(Route::People(page)),
                None => Err(RouteError::NotFound),
            },
        };
    };
    match rest {
        "" => return Ok(Route::Ping),
        "_catalog" => return Ok(Route::Catalog),
        "_oci/ext/discover" => return Ok(Route::Extensions { name: None }),
        _ => {}
    }
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Ok(Route::Tags {
            name: repository(name)?,
        });
    }
    if let Some(name) = rest.strip_suffix("/_oci/ext/discover") {
        return Ok(Route::Extensions {
            name: Some(repository(name)?),
        });
    }
    if let Some(name) = rest
        .strip_suffix("/blobs/uploads/")
        .or_else(|| rest.strip_suffix("/blobs/uploads"))
    {
        return Ok(Route::Uploads {
            name: repository(name)?,
        });
    }
    let (head, last) = rest.rsplit_once('/').ok_or_else(|| unserved(rest))?;
    if last.is_empty() {
        return Err(unserved(rest));
    }
    if let Some(name) = head.strip_suffix("/blobs/uploads") {
        return Ok(Route::Upload {
            name: repository(name)?,
            id: last.to_owned(),
        });
    }
    let (name, noun) = head.rsplit_once('/').ok_or_else(|| unserved(rest))?;
    match noun {
        "manifests" => Ok(Route::Manifest {
            name: repository(name)?,
            reference: Reference::parse(last)?,
        }),
        "blobs" => Ok(Route::Blob {
            name: repository(name)?,
            digest: Digest::parse(last).map_err(RouteError::DigestInvalid)?,
        }),
        "referrers" => Ok(Route::Referrers {
            name: repository(name)?,
            digest: Digest::parse(last).map_err(RouteError::DigestInvalid)?,
        }),
        _ => Err(unserved(rest)),
    }
}

fn unserved(rest: &str) -> RouteError {
    if rest.split('/').any(|part| part.starts_with('_')) {
        RouteError::ExtensionUnknown
    } else {
        RouteError::NotFound
    }
}

fn repository(name: &str) -> Result<RepositoryName, RouteError> {
    RepositoryName::parse(name).map_err(RouteError::NameInvalid)
}

impl Route {
    /// The methods that this address knows; all others get 405 with these in `Allow` (API-4, PING-4).
    pub fn methods(&self) -> &'static [Method] {
        match self {
            Self::Token | Self::Invitation => &[Method::GET, Method::HEAD, Method::POST],
            Self::Blob { .. } => &[Method::GET, Method::HEAD, Method::DELETE],
            Self::Uploads { .. } => &[Method::POST],
            Self::Upload { .. } => &[
                Method::GET,
                Method::HEAD,
                Method::PATCH,
                Method::PUT,
                Method::DELETE,
            ],
            Self::Manifest { .. } => &[Method::GET, Method::HEAD, Method::PUT, Method::DELETE],
            Self::Api(route) => route.resource.methods,
            Self::People(page) => page.methods(),
            _ => &[Method::GET, Method::HEAD],
        }
    }

    /// The template of the address: the label of metrics, so there are few of them.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Root => "/",
            Self::Invitation => "/invitation",
            Self::People(page) => page.label(),
            Self::Livez => "/livez",
            Self::Readyz => "/readyz",
            Self::Startupz => "/startupz",
            Self::Metrics => "/metrics",
            Self::Token => "/token",
            Self::Ping => "/v2/",
            Self::Catalog => "/v2/_catalog",
            Self::Extensions { name: None } => "/v2/_oci/ext/discover",
            Self::Extensions { name: Some(_) } => "/v2/{name}/_oci/ext/discover",
            Self::Blob { .. } => "/v2/{name}/blobs/{digest}",
            Self::Uploads { .. } => "/v2/{name}/blobs/uploads/",
            Self::Upload { .. } => "/v2/{name}/blobs/uploads/{id}",
            Self::Manifest { .. } => "/v2/{name}/manifests/{reference}",
            Self::Tags { .. } => "/v2/{name}/tags/list",
            Self::Referrers { .. } => "/v2/{name}/referrers/{digest}",
            Self::Api(route) => route.resource.template,
        }
    }

    /// The right that a method needs here, on [`Route::repository`] or on the registry. `None`: no right at all, or (for
    /// the ping and the management API) a question of its own.
    pub fn permission(&self, method: &Method) -> Option<Permission> {
        match self {
            Self::Root
            | Self::Invitation
            | Self::People(_)
            | Self::Livez
            | Self::Readyz
            | Self::Startupz
            | Self::Token
            | Self::Ping
            | Self::Api(_)
            | Self::Extensions { name: None } => None,
            Self::Metrics => Some(Permission::Admin),
            Self::Catalog => Some(Permission::Catalog),
            Self::Uploads { .. } | Self::Upload { .. } => Some(Permission::Push),
            Self::Extensions { name: Some(_) } | Self::Tags { .. } | Self::Referrers { .. } => {
                Some(Permission::Pull)
            }
            Self::Blob { .. } | Self::Manifest { .. } => Some(match *method {
                Method::DELETE => Permission::Delete,
                Method::GET | Method::HEAD => Permission::Pull,
                _ => Permission::Push,
            }),
        }
    }

    /// Which tags a method is about here, for rights that hold for some only.
    pub fn tags(&self, method: &Method) -> Tags<'_> {
        match self {
            Self::Manifest {
                reference: Reference::Tag(tag),
                ..
            } => Tags::Named(tag.as_str()),
            // A manifest takes all its tags along, and a blob may be part of what any tag stands at.
            _ if *method == Method::DELETE
                && self.permission(method) == Some(Permission::Delete) =>
            {
                Tags::All
            }
            _ => Tags::None,
        }
    }

    /// The repository that the address lies in.
    pub fn repository(&self) -> Option<&RepositoryName> {
        match self {
            Self::Blob { name, .. }
            | Self::Uploads { name }
            | Self::Upload { name, .. }
            | Self::Manifest { name, .. }
            | Self::Tags { name }
            | Self::Referrers { name, .. } => Some(name),
            Self::Extensions { name } => name.as_ref(),
            _ => None,
        }
    }

    /// One path for each address, for tests that must not forget one. [`RESOURCES`] has those of the management API.
    pub const EXAMPLES: &'static [Example] = &[
        Example::new("/", "/"),
        Example::new("/invitation", "/invitation"),
        Example::new("/auth/login", "/auth/login"),
        Example::new("/auth/logout", "/auth/logout"),
        Example::new("/auth/oidc/corp/start", "/auth/oidc/{provider}/start"),
        Example::new("/auth/oidc/corp/callback", "/auth/oidc/{provider}/callback"),
        Example::new(
            "/auth/oidc/corp/signed-out",
            "/auth/oidc/{provider}/signed-out",
        ),
        Example::new(
            "/auth/oidc/corp/backchannel-logout",
            "/auth/oidc/{provider}/backchannel-logout",
        ),
        Example::new("/account/tokens", "/account/tokens"),
        Example::new("/account/sessions", "/account/sessions"),
        Example::new("/device", "/device"),
        Example::new("/auth/device/code", "/auth/device/code"),
        Example::new("/auth/revoke", "/auth/revoke"),
        Example::new(
            "/.well-known/oauth-authorization-server",
            "/.well-known/oauth-authorization-server",
        ),
        Example::new("/livez", "/livez"),
        Example::new("/readyz", "/readyz"),
        Example::new("/startupz", "/startupz"),
        Example::new("/metrics", "/metrics"),
        Example::new("/token", "/token"),
        Example::new("/v2/", "/v2/"),
        Example::new("/v2/_catalog", "/v2/_catalog"),
        Example::new("/v2/_oci/ext/discover", "/v2/_oci/ext/discover"),
        Example::new(
            "/v2/team/app/_oci/ext/discover",
            "/v2/{name}/_oci/ext/discover",
        ),
        Example::new(
            "/v2/team/app/blobs/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "/v2/{name}/blobs/{digest}",
        ),
        Example::new("/v2/team/app/blobs/uploads/", "/v2/{name}/blobs/uploads/"),
        Example::new(
            "/v2/team/app/blobs/uploads/3f2c8a1e-6f0b-4c52-9a57-0d9a5f0f6b11",
            "/v2/{name}/blobs/uploads/{id}",
        ),
        Example::new(
            "/v2/team/app/manifests/latest",
            "/v2/{name}/manifests/{reference}",
        ),
        Example::new("/v2/team/app/tags/list", "/v2/{name}/tags/list"),
        Example::new(
            "/v2/team/app/referrers/sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "/v2/{name}/referrers/{digest}",
        ),
    ];
}

/// A row of the endpoint table; the methods come from [`Route::methods`].
#[derive(Clone, Copy, Debug)]
pub struct Example {
    /// A path that parses.
    pub path: &'static str,
    /// The label that its route has.
    pub label: &'static str,
}

impl Example {
    const fn new(path: &'static str, label: &'static str) -> Self {
        Self { path, label }
    }

    /// The parsed path.
    ///
    /// # Panics
    /// When the table is wrong, which a test rules out.
    pub fn route(&self) -> Route {
        parse(self.path).expect("the endpoint table holds paths that parse")
    }
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
