//! The OpenAPI document, and the page that shows it to people.
//!
//! Both are made of the definitions of the resources and say nothing about this registry, so everybody may read them. The page
//! works without JavaScript and without any other host.

use std::sync::OnceLock;

use askama::Template;
use axum::response::{IntoResponse as _, Response};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use utoipa::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{Components, OpenApi as Document, SecurityRequirement};

use super::problem::{Kind, Problem, ProblemDetails};
use crate::http::ApiError;

/// What stands around the resources.
pub(super) fn frame() -> Document {
    #[derive(OpenApi)]
    #[openapi(
        info(
            title = "Wharf management API",
            description = "Everything that can be managed in a Wharf registry. Images themselves are pushed and pulled below `/v2/`, by the OCI distribution specification.",
            license(name = "Apache-2.0", identifier = "Apache-2.0")
        ),
        components(schemas(ProblemDetails)),
        tags(
            (name = "me", description = "Who is asking"),
            (name = "repositories", description = "What is kept"),
            (name = "tags", description = "Names that move, and where they stood"),
            (name = "identities", description = "Who can sign in: users, robots, API tokens"),
            (name = "rights", description = "Who may do what, and why"),
            (name = "workloads", description = "Machines that sign in with tokens of their cluster or CI service"),
            (name = "registry", description = "How it is, and its work in the background"),
            (name = "description", description = "The API's own description"),
        )
    )]
    struct Frame;
    let mut document = Frame::openapi();
    let components = document.components.get_or_insert_with(Components::new);
    for (name, scheme) in [
        ("basic", HttpAuthScheme::Basic),
        ("bearer", HttpAuthScheme::Bearer),
    ] {
        components.add_security_scheme(name, SecurityScheme::Http(Http::new(scheme)));
    }
    document.security = Some(vec![
        SecurityRequirement::new::<_, [&str; 0], _>("basic", []),
        SecurityRequirement::new::<_, [&str; 0], _>("bearer", []),
    ]);
    document
}

/// The whole document as it is served and committed.
fn text() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let document = super::resources().into_openapi();
        let mut text = document.to_pretty_json().unwrap_or_default();
        text.push('\n');
        text
    })
}

/// Get this API's description
///
/// OpenAPI, for programs.
#[utoipa::path(
    get, path = "/api/v1/openapi.json", operation_id = "show_openapi", tag = "description", security(()),
    responses((status = 200, description = "The document", content_type = "application/json"))
)]
pub(super) async fn openapi() -> Response {
    let kind = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (kind, text()).into_response()
}

/// Get this page
///
/// The same for people.
#[utoipa::path(
    get, path = "/api/v1", operation_id = "show_reference", tag = "description", security(()),
    responses((status = 200, description = "The page", content_type = "text/html"))
)]
pub(super) async fn page() -> Result<Response, Problem> {
    static PAGE: OnceLock<Option<String>> = OnceLock::new();
    let page = PAGE.get_or_init(|| reference().render().ok());
    let page = page
        .as_deref()
        .ok_or_else(|| Problem::from(ApiError::internal()))?;
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-cache"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ];
    Ok((headers, page.to_owned()).into_response())
}

#[derive(Template)]
#[template(path = "api.html")]
struct Reference {
    version: &'static str,
    groups: Vec<Group>,
    schemas: Vec<Shape>,
    problems: &'static [Kind],
}

/// Addresses under one heading.
struct Group {
    name: String,
    about: String,
    operations: Vec<Operation>,
}

struct Operation {
    method: String,
    path: String,
    summary: String,
    about: String,
    parameters: Vec<Field>,
    body: Option<String>,
    answers: Vec<Answer>,
}

struct Answer {
    status: String,
    about: String,
    shape: Option<String>,
}

/// A schema.
struct Shape {
    name: String,
    about: String,
    fields: Vec<Field>,
}

/// A parameter or a field.
struct Field {
    name: String,
    kind: String,
    needed: bool,
    about: String,
}

/// What the page shows, out of the document as anybody else reads it.
fn reference() -> Reference {
    let document: serde_json::Value = serde_json::from_str(text()).unwrap_or_default();
    let operations = operations(&document);
    let mut groups = Vec::new();
    for tag in list(&document["tags"]) {
        let name = words(&tag["name"]);
        let (own, about) = (name.clone(), words(&tag["description"]));
        let operations = operations.iter().filter(|(tag, _)| *tag == own);
        groups.push(Group {
            name,
            about,
            operations: operations.map(|(_, make)| make()).collect(),
        });
    }
    let schemas = entries(&document["components"]["schemas"]);
    Reference {
        version: env!("CARGO_PKG_VERSION"),
        groups,
        schemas: schemas.map(|(name, schema)| shape(name, schema)).collect(),
        problems: Kind::ALL,
    }
}

type Made<'a> = (String, Box<dyn Fn() -> Operation + 'a>);

fn operations(document: &serde_json::Value) -> Vec<Made<'_>> {
    let mut found: Vec<Made<'_>> = Vec::new();
    for (path, item) in entries(&document["paths"]) {
        for (method, operation) in entries(item) {
            let tag = words(&operation["tags"][0]);
            found.push((tag, Box::new(move || described(path, method, operation))));
        }
    }
    // Addresses come sorted; of one address reading comes first.
    let rank = |method: &str| {
        ["GET", "POST", "PUT", "PATCH", "DELETE"]
            .iter()
            .position(|one| *one == method)
    };
    found.sort_by_cached_key(|(_, make)| {
        let made = make();
        (made.path, rank(&made.method))
    });
    found
}

fn described(path: &str, method: &str, operation: &serde_json::Value) -> Operation {
    let parameter = |one: &serde_json::Value| Field {
        name: words(&one["name"]),
        kind: kind(&one["schema"]),
        needed: one["required"].as_bool().unwrap_or(false),
        about: words(&one["description"]),
    };
    let content = |of: &serde_json::Value| {
        let (_, content) = entries(&of["content"]).next()?;
        Some(kind(&content["schema"])).filter(|kind| !kind.is_empty())
    };
    Operation {
        method: method.to_uppercase(),
        path: path.to_owned(),
        summary: words(&operation["summary"]),
        about: words(&operation["description"]),
        parameters: list(&operation["parameters"]).map(parameter).collect(),
        body: content(&operation["requestBody"]),
        answers: entries(&operation["responses"])
            .filter(|(status, _)| status.starts_with('2'))
            .map(|(status, answer)| Answer {
                status: status.to_owned(),
                about: words(&answer["description"]),
                shape: content(answer),
            })
            .collect(),
    }
}

fn shape(name: &str, schema: &serde_json::Value) -> Shape {
    let needed: Vec<String> = list(&schema["required"]).map(words).collect();
    let field = |(name, field): (&str, &serde_json::Value)| Field {
        name: name.to_owned(),
        kind: kind(field),
        needed: needed.iter().any(|one| one == name),
        about: words(&field["description"]),
    };
    Shape {
        name: name.to_owned(),
        about: words(&schema["description"]),
        fields: entries(&schema["properties"]).map(field).collect(),
    }
}

/// What a schema is, in a few words; the name of another one where it is that.
fn kind(schema: &serde_json::Value) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        return name.rsplit('/').next().unwrap_or_default().to_owned();
    }
    if let Some(one) = list(&schema["oneOf"]).find(|one| one["type"] != "null") {
        return kind(one);
    }
    let word = match &schema["type"] {
        serde_json::Value::Array(several) => several.first().map(words).unwrap_or_default(),
        one => words(one),
    };
    match (word.as_str(), schema["format"].as_str()) {
        ("array", _) => format!("list of {}", kind(&schema["items"])),
        ("string", Some("date-time")) => "time".to_owned(),
        ("string", _) => "text".to_owned(),
        ("integer", _) => "number".to_owned(),
        ("boolean", _) => "true or false".to_owned(),
        _ => word,
    }
}

fn words(value: &serde_json::Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    value.as_array().into_iter().flatten()
}

fn entries(value: &serde_json::Value) -> impl Iterator<Item = (&str, &serde_json::Value)> {
    let object = value.as_object().into_iter().flatten();
    object.map(|(name, value)| (name.as_str(), value))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::http::route::RESOURCES;

    #[test]
    fn the_openapi_reference_is_current() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../docs/reference/openapi.json");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, text()).unwrap();
        }
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            stored == text(),
            "docs/reference/openapi.json is stale: run `UPDATE_DOCS=1 cargo test -p wharf --lib reference`"
        );
    }

    #[test]
    fn addresses_and_methods_are_those_of_the_document() {
        let document: serde_json::Value = serde_json::from_str(text()).unwrap();
        let (mut documented, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for (path, item) in entries(&document["paths"]) {
            for (method, operation) in entries(item) {
                documented.insert(format!("{} {path}", method.to_uppercase()));
                assert!(!words(&operation["summary"]).is_empty(), "{method} {path}");
                assert!(
                    ids.insert(words(&operation["operationId"])),
                    "{method} {path}"
                );
                for (status, answer) in entries(&operation["responses"]) {
                    // The format demands it.
                    assert!(
                        !words(&answer["description"]).is_empty(),
                        "{method} {path} {status}"
                    );
                }
            }
        }
        let mut served = BTreeSet::new();
        for resource in RESOURCES {
            for method in resource.methods.iter().filter(|method| *method != "HEAD") {
                served.insert(format!("{method} {}", resource.template));
            }
        }
        assert_eq!(documented, served);
    }

    #[test]
    fn the_page_shows_every_address_and_every_field() {
        let page = reference().render().unwrap();
        for resource in RESOURCES {
            assert!(page.contains(resource.template), "{}", resource.template);
        }
        for kind in Kind::ALL {
            assert!(page.contains(&format!("id=\"{}\"", kind.name())));
        }
        assert!(page.contains("created_at") && page.contains("request_id"));
        assert!(
            !page.contains("<script") && !page.contains("http://") && !page.contains("https://")
        );
    }
}
