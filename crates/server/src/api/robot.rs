//! Robots: principals of a namespace, for programs.

use axum::Json;
use axum::response::Response;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use wharf_core::Registry;
use wharf_core::access::{Permission, Principal, Subject, split_robot_name};
use wharf_core::identity::{self, NewRobot, PrincipalRow, RobotBinding, RobotChange};
use wharf_oci::RepositoryName;

use super::Shared;
use super::access::place;
use super::arguments::{Body, Path, Query};
use super::binding::{self, When};
use super::condition::{Conditions, IfMatch, versioned};
use super::identity::{Credential, NewSecret, created, refused, span};
use super::page::{Page, Wanted};
use super::problem::{Problem, Refusals};
use super::time::Time;
use super::visitor::Visitor;

/// A robot
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Robot {
    /// Its name
    #[schema(example = "team/a+ci")]
    name: String,
    /// The namespace to which it belongs
    #[schema(example = "team/a")]
    namespace: String,
    /// When it was made
    created_at: Time,
    /// Who made it
    created_by: String,
    /// When it ends
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Time>,
    /// Since when it is locked out; absent: not at all
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled_at: Option<Time>,
    /// From where it may come; empty: from everywhere
    #[schema(example = json!(["10.0.0.0/8"]))]
    networks: Vec<String>,
    /// Its secrets, the oldest first
    secrets: Vec<Credential>,
    /// What it was granted itself; not in lists
    #[serde(skip_serializing_if = "Option::is_none")]
    bindings: Option<Vec<binding::Shown>>,
}

impl From<(PrincipalRow, Vec<identity::Shown>)> for Robot {
    fn from((row, secrets): (PrincipalRow, Vec<identity::Shown>)) -> Self {
        let namespace = split_robot_name(&row.name).map_or("", |(namespace, _)| namespace);
        let networks = row.networks.split(',').filter(|text| !text.is_empty());
        Self {
            namespace: namespace.to_owned(),
            networks: networks.map(|text| text.trim().to_owned()).collect(),
            created_at: Time(row.created_at),
            created_by: row.created_by,
            expires_at: row.expires_at.map(Time),
            disabled_at: row.disabled_at.map(Time),
            name: row.name,
            secrets: secrets.into_iter().map(Credential::from).collect(),
            bindings: None,
        }
    }
}

/// Whether they may manage the robot; decided on its name.
pub(super) fn manages(visitor: &Visitor, registry: &Registry, name: &str) -> Result<(), Problem> {
    let place = home(name)?;
    visitor.may_on(&registry.access, Permission::ManageRobots, Some(&place))
}

/// The namespace in a robot's name.
fn home(name: &str) -> Result<RepositoryName, Problem> {
    let parsed = split_robot_name(name).and_then(|(home, _)| RepositoryName::parse(home).ok());
    parsed.ok_or_else(|| {
        Problem::invalid(
            "name",
            format!("robot {name:?}: write <namespace>+<name> in lower case, such as team/a+ci"),
        )
    })
}

/// Which robots
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Looked {
    /// Those of exactly this namespace; without it, all
    #[param(example = "team/a")]
    namespace: Option<String>,
}

/// List robots
///
/// Needs the right to see settings on the namespace that is named, or everywhere when none is.
#[utoipa::path(
    get, path = "/api/v1/robots", operation_id = "list_robots", tag = "identities", params(Looked, Wanted),
    responses((status = 200, description = "A page", body = Page<Robot>), Refusals)
)]
pub(super) async fn list(
    state: Shared,
    visitor: Visitor,
    Query(Looked { namespace }): Query<Looked>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Page<Robot>>, Problem> {
    let registry = &state.registry;
    let on = place(namespace.as_deref().unwrap_or_default())?;
    visitor.may_on(&registry.access, Permission::ReadSettings, on.as_ref())?;
    let (limit, after) = (wanted.limit()?, wanted.after("robots")?.unwrap_or_default());
    let on = on.as_ref().map(RepositoryName::as_str);
    let rows = identity::list_robots(registry, on, &after, limit + 1).await;
    let robots = rows.map_err(refused)?.into_iter().map(Robot::from);
    Ok(Json(Page::cut(
        "robots",
        robots.collect(),
        limit,
        |one: &Robot| one.name.clone(),
    )))
}

/// A role that a robot has from the start
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRobotBinding {
    /// The role
    #[schema(example = "writer")]
    role: String,
    /// The robot's namespace, or something below it; the namespace if not given
    #[schema(example = "team/a")]
    on: Option<String>,
    /// It ends then
    #[schema(value_type = Option<Time>)]
    expires_at: Option<String>,
    /// Only from one of these networks
    #[serde(default)]
    networks: Vec<String>,
    /// Only for tags of this pattern
    #[schema(example = "v*")]
    tags: Option<String>,
}

/// A robot to be made
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MakeRobot {
    /// `<namespace>+<name>`
    #[schema(example = "team/a+ci")]
    name: String,
    /// How long it lives, in seconds; 90 days if not given
    #[schema(example = 7_776_000, minimum = 1)]
    lifetime: Option<i64>,
    /// From where it may come; empty: from everywhere
    #[serde(default)]
    #[schema(example = json!(["10.0.0.0/8"]))]
    networks: Vec<String>,
    /// What it may do; nothing if not given, until granted
    #[serde(default)]
    bindings: Vec<NewRobotBinding>,
}

/// Make a robot with its first secret
///
/// Needs the right to manage robots in its namespace, and for its bindings the right to grant them. It always ends.
#[utoipa::path(
    post, path = "/api/v1/robots", operation_id = "make_robot", tag = "identities", request_body = MakeRobot,
    responses((status = 201, description = "Made", body = NewSecret), Refusals)
)]
pub(super) async fn create(
    state: Shared,
    visitor: Visitor,
    Body(body): Body<MakeRobot>,
) -> Result<Response, Problem> {
    let registry = &state.registry;
    visitor.is_somebody(&registry.access)?;
    manages(&visitor, registry, &body.name)?;
    let namespace = home(&body.name)?;
    let mut bindings = Vec::new();
    for one in body.bindings {
        let on = one.on.unwrap_or_else(|| namespace.to_string());
        visitor.may_on(
            &registry.access,
            Permission::ManageBindings,
            place(&on)?.as_ref(),
        )?;
        let when = When {
            expires_at: one.expires_at,
            networks: one.networks,
            tags: one.tags,
            sign_in: None,
        };
        bindings.push(RobotBinding {
            role: one.role,
            on: on.trim_end_matches('/').to_owned(),
            conditions: when.read()?,
        });
    }
    let new = NewRobot {
        name: body.name,
        lifetime: span("lifetime", body.lifetime)?,
        networks: body.networks.join(","),
        reads: None,
        bindings,
    };
    let made = identity::create_robot(registry, visitor.changer(), &new).await;
    let made = made.map_err(refused)?;
    tracing::info!(
        robot = new.name,
        id = made.id,
        actor = visitor.actor(),
        "a robot was made"
    );
    Ok(created(NewSecret::from(made)))
}

/// Which robot
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
pub(super) struct NamedRobot {
    /// Its name; slashes may stay as they are, or be written `%2F`
    #[param(example = "team/a+ci")]
    name: String,
}

/// Show a robot
///
/// Needs the right to see settings in its namespace.
#[utoipa::path(
    get, path = "/api/v1/robots/{name}", operation_id = "show_robot", tag = "identities", params(NamedRobot),
    responses((status = 200, description = "The robot, with an ETag", body = Robot), Refusals)
)]
pub(super) async fn get(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedRobot { name }): Path<NamedRobot>,
) -> Result<Response, Problem> {
    let registry = &state.registry;
    let place = home(&name)?;
    visitor.may_on(&registry.access, Permission::ReadSettings, Some(&place))?;
    let (row, secrets) = identity::get_robot(registry, &name)
        .await
        .map_err(refused)?;
    let now = registry.clock.now_ms();
    let own = Subject::Robot(name.clone());
    let principal = Principal::Robot { name: name.into() };
    let policy = registry.access.policy();
    let bindings = policy.bindings_of(&principal).into_iter();
    let bindings = bindings
        .filter(|one| one.subject == own)
        .map(|one| binding::Shown::new(one, now));
    let bindings = Some(bindings.collect());
    let robot = Robot {
        bindings,
        ..Robot::from((row.clone(), secrets))
    };
    Ok(versioned(row.version(), &conditions, robot))
}

/// What of a robot shall be otherwise; what is not given stays
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeRobot {
    /// Whether it is locked out
    disabled: Option<bool>,
    /// How long it lives from now on, in seconds; its secrets end when they would have ended
    #[schema(minimum = 1)]
    lifetime: Option<i64>,
    /// From where it may come; empty: from everywhere
    networks: Option<Vec<String>>,
}

/// Change a robot
///
/// Needs the right to manage robots in its namespace. With `If-Match`, only the version that was read.
#[utoipa::path(
    patch, path = "/api/v1/robots/{name}", operation_id = "change_robot", tag = "identities", params(NamedRobot, IfMatch),
    request_body = ChangeRobot, responses((status = 204, description = "Done"), Refusals)
)]
pub(super) async fn change(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedRobot { name }): Path<NamedRobot>,
    Body(body): Body<ChangeRobot>,
) -> Result<StatusCode, Problem> {
    let registry = &state.registry;
    manages(&visitor, registry, &name)?;
    let version = conditions.meant();
    let to = RobotChange {
        disabled: body.disabled,
        lifetime: span("lifetime", body.lifetime)?,
        networks: body.networks.map(|all| all.join(",")),
    };
    let done = identity::change_robot(registry, visitor.changer(), &name, to, version).await;
    done.map_err(refused)?;
    tracing::info!(robot = name, actor = visitor.actor(), "a robot was changed");
    Ok(StatusCode::NO_CONTENT)
}

/// Remove a robot with its secrets and grants
///
/// Needs the right to manage robots in its namespace. With `If-Match`, only the version that was read.
#[utoipa::path(
    delete, path = "/api/v1/robots/{name}", operation_id = "remove_robot", tag = "identities", params(NamedRobot, IfMatch),
    responses((status = 204, description = "Done"), Refusals)
)]
pub(super) async fn remove(
    state: Shared,
    visitor: Visitor,
    conditions: Conditions,
    Path(NamedRobot { name }): Path<NamedRobot>,
) -> Result<StatusCode, Problem> {
    let registry = &state.registry;
    manages(&visitor, registry, &name)?;
    let version = conditions.meant();
    let done = identity::remove_robot(registry, visitor.changer(), &name, version).await;
    done.map_err(refused)?;
    tracing::info!(robot = name, actor = visitor.actor(), "a robot was removed");
    Ok(StatusCode::NO_CONTENT)
}

/// How a secret shall be replaced
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rotate {
    /// How long the old secret goes on, in seconds; a day if not given, 30 days at most
    #[serde(default = "a_day")]
    #[schema(example = 86_400, minimum = 0)]
    overlap: i64,
    /// How long the robot lives from now on, in seconds; 90 days if not given
    #[schema(minimum = 1)]
    lifetime: Option<i64>,
}

/// In seconds.
fn a_day() -> i64 {
    24 * 60 * 60
}

/// Give a robot another secret
///
/// The one that it had stays good for the overlap; older ones end at once, so that there are two at most. Needs the right to manage
/// robots in its namespace, and all that the robot holds.
#[utoipa::path(
    post, path = "/api/v1/robots/{name}/-/rotate", operation_id = "rotate_robot", tag = "identities", params(NamedRobot),
    request_body = Rotate, responses((status = 201, description = "Made", body = NewSecret), Refusals)
)]
pub(super) async fn rotate(
    state: Shared,
    visitor: Visitor,
    Path(NamedRobot { name }): Path<NamedRobot>,
    Body(Rotate { overlap, lifetime }): Body<Rotate>,
) -> Result<Response, Problem> {
    let registry = &state.registry;
    manages(&visitor, registry, &name)?;
    let overlap = span("overlap", Some(overlap))?.unwrap_or_default();
    let lifetime = span("lifetime", lifetime)?;
    let changer = visitor.changer();
    let made = identity::rotate_robot(registry, changer, &name, overlap, lifetime).await;
    let made = made.map_err(refused)?;
    tracing::info!(
        robot = name,
        id = made.id,
        actor = visitor.actor(),
        "a robot has a new secret"
    );
    Ok(created(NewSecret::from(made)))
}
