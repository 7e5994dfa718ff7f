//! Rights as a whole: what shall be there is sent at once, and what is missing is made.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use wharf_core::access::{
    Act, ApplyError, Permission, PermissionError, Permissions, Plan, Step, Visibility, Wanted,
    WantedIssuer, WantedRule, carry_out, export, plan, split_robot_name,
};
use wharf_core::identity::{IdentityError, Made, NewRobot};
use wharf_core::workload::RuleSettings;

use super::Shared;
use super::access::{place, refused, wrong};
use super::arguments::Body;
use super::binding::Grant;
use super::problem::{Kind, Problem, Refusals};
use super::time::Time;
use super::visitor::Visitor;
use super::workload::{Condition, SetIssuer};

/// What is there, as it can be applied
#[derive(Serialize, ToSchema)]
pub(super) struct Wish {
    /// Namespaces with settings
    namespaces: Vec<WishedNamespace>,
    /// Own roles
    roles: Vec<WishedRole>,
    /// Whose tokens are trusted; one that is there keeps its bearer token, which is no part of this
    issuers: Vec<WishedIssuer>,
    /// Rules on their tokens
    rules: Vec<WishedRule>,
    /// Groups
    groups: Vec<WishedGroup>,
    /// Robots; one that is there stays as it is
    robots: Vec<WishedRobot>,
    /// Bindings
    bindings: Vec<Grant>,
}

/// An issuer that shall be there
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WishedIssuer {
    /// Its name
    #[schema(example = "prod")]
    name: String,
    /// What it shall be
    settings: SetIssuer,
}

/// A rule that shall be there
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WishedRule {
    /// Its name
    #[schema(example = "prod-default")]
    name: String,
    /// Whose tokens
    #[schema(example = "prod")]
    issuer: String,
    /// What they must say: all of it
    conditions: Vec<Condition>,
}

/// A namespace that shall be there
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WishedNamespace {
    /// Its path
    #[schema(example = "team/a")]
    path: String,
    /// `private`, `internal` or `public`
    #[schema(example = "private")]
    visibility: String,
}

/// An own role that shall be there
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WishedRole {
    /// Its name
    #[schema(example = "scanner")]
    name: String,
    /// What it is made of
    #[schema(example = json!(["pull", "catalog"]))]
    permissions: Vec<String>,
}

/// A group that shall be there
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WishedGroup {
    /// Its name
    #[schema(example = "developers")]
    name: String,
    /// Users and robots that shall be in it
    #[serde(default)]
    #[schema(example = json!(["alice"]))]
    members: Vec<String>,
    /// Groups of providers whose members shall be in it
    #[serde(default)]
    #[schema(example = json!(["corp:developers"]))]
    from: Vec<String>,
}

/// A robot that shall be there
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WishedRobot {
    /// `<namespace>+<name>`
    #[schema(example = "team/a+ci")]
    name: String,
    /// How long it lives from the moment it is made, in seconds; 90 days, or the longest that is allowed, if not given
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 2_592_000)]
    lifetime: Option<i64>,
    /// Only from one of these networks
    #[serde(default)]
    #[schema(example = json!(["10.0.0.0/8"]))]
    networks: Vec<String>,
}

/// What shall be there, and how
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Asked {
    /// Namespaces with settings
    namespaces: Vec<WishedNamespace>,
    /// Own roles
    roles: Vec<WishedRole>,
    /// Whose tokens are trusted; one that is there keeps its bearer token, which is no part of this
    issuers: Vec<WishedIssuer>,
    /// Rules on their tokens
    rules: Vec<WishedRule>,
    /// Groups
    groups: Vec<WishedGroup>,
    /// Robots; one that is there stays as it is
    robots: Vec<WishedRobot>,
    /// Bindings
    bindings: Vec<Grant>,
    /// Removes what is not named, as far as the caller manages it
    prune: bool,
    /// Changes nothing
    dry_run: bool,
    /// Does something only while the rights are those of this `epoch`, which a dry run told
    epoch: Option<i64>,
}

/// A change
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApplyStep)]
pub(super) struct Shown {
    /// `remove`, `change` or `add`
    #[schema(example = "add")]
    act: &'static str,
    /// `namespace`, `role`, `issuer`, `rule`, `group`, `member`, `source`, `robot` or `binding`
    #[schema(example = "binding")]
    sort: &'static str,
    /// What it is about
    #[schema(example = "alice is writer on team/a")]
    text: String,
    /// Whether it is made
    done: bool,
}

/// A robot that was made
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MadeRobot {
    /// Its name
    #[schema(example = "team/a+ci")]
    name: String,
    /// Its secret, which nobody is told again
    secret: String,
    /// When it ends
    expires_at: Time,
}

/// What was done, or would be
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Outcome {
    /// The state of the rights for which this was planned
    epoch: i64,
    /// Changes, removals first; none: all of it is there
    steps: Vec<Shown>,
    /// Robots that were made
    robots: Vec<MadeRobot>,
    /// Why not all of it is done; what is done stays, and asking again goes on from there
    stopped: Option<String>,
}

impl Outcome {
    fn new(plan: &Plan, done: usize, made: Vec<Made>, stopped: Option<String>) -> Self {
        let mut steps: Vec<(Act, Shown)> = (plan.steps.iter().enumerate())
            .map(|(at, step)| {
                let shown = Shown {
                    act: step.act().as_str(),
                    sort: step.sort(),
                    text: step.to_string(),
                    done: at < done,
                };
                (step.act(), shown)
            })
            .collect();
        steps.sort_by_key(|(act, _)| *act);
        let robots = made.into_iter().map(|made| MadeRobot {
            name: made.principal,
            secret: made.secret.reveal().to_owned(),
            expires_at: Time(made.expires_at),
        });
        Self {
            epoch: plan.epoch,
            steps: steps.into_iter().map(|(_, shown)| shown).collect(),
            robots: robots.collect(),
            stopped,
        }
    }
}

fn refuse(error: ApplyError) -> Problem {
    match error {
        ApplyError::Change(error) => refused(error),
        ApplyError::Identity(IdentityError::Rights(error)) => refused(error),
        ApplyError::Identity(IdentityError::Store(error)) => error.into(),
        ApplyError::Identity(error) => Problem::new(Kind::Invalid, error.to_string()),
        ApplyError::Changed => Problem::new(Kind::Changed, error.to_string()),
    }
}

impl Asked {
    fn wanted(self, service: &str) -> Result<Wanted, Problem> {
        let namespace = |one: WishedNamespace| {
            let visibility = one.visibility.parse::<Visibility>();
            let visibility = visibility.map_err(|error| wrong("visibility")(&error))?;
            Ok::<_, Problem>((one.path, visibility))
        };
        let role = |one: WishedRole| {
            let permissions = one.permissions.iter().map(|word| word.parse());
            let permissions = permissions.collect::<Result<Permissions, PermissionError>>();
            let permissions = permissions.map_err(|error| wrong("permissions")(&error))?;
            Ok::<_, Problem>((one.name, permissions))
        };
        let group = |one: WishedGroup| {
            let members = one.members.iter().map(|who| who.parse());
            let members = members.collect::<Result<_, _>>();
            Ok::<_, Problem>((one.name, members.map_err(|error| wrong("members")(&error))?))
        };
        let issuer = |one: WishedIssuer| {
            let settings = one.settings.settings(service)?;
            Ok::<_, Problem>(WantedIssuer {
                name: one.name,
                settings,
            })
        };
        let rule = |one: WishedRule| {
            let conditions = one.conditions.into_iter().map(Condition::read);
            Ok::<_, Problem>(WantedRule {
                name: one.name,
                issuer: one.issuer,
                settings: RuleSettings {
                    conditions: conditions.collect::<Result<_, _>>()?,
                },
            })
        };
        let robot = |one: WishedRobot| NewRobot {
            name: one.name,
            lifetime: one.lifetime.map(|seconds| seconds.saturating_mul(1_000)),
            networks: one.networks.join(","),
            ..NewRobot::default()
        };
        let sources = self.groups.iter();
        let sources = sources.flat_map(|one| {
            let from = one.from.iter();
            from.map(|source| (one.name.clone(), source.clone()))
        });
        Ok(Wanted {
            sources: sources.collect(),
            namespaces: (self.namespaces.into_iter().map(namespace)).collect::<Result<_, _>>()?,
            roles: (self.roles.into_iter().map(role)).collect::<Result<_, _>>()?,
            issuers: (self.issuers.into_iter().map(issuer)).collect::<Result<_, _>>()?,
            rules: (self.rules.into_iter().map(rule)).collect::<Result<_, _>>()?,
            groups: self
                .groups
                .into_iter()
                .map(group)
                .collect::<Result<_, _>>()?,
            robots: self.robots.into_iter().map(robot).collect(),
            bindings: (self.bindings.into_iter().map(Grant::granting)).collect::<Result<_, _>>()?,
        })
    }
}

impl Wish {
    fn of(wanted: Wanted) -> Self {
        let words = |networks: &str| -> Vec<String> {
            let parts = networks.split(',').filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect()
        };
        Self {
            namespaces: (wanted.namespaces.into_iter())
                .map(|(path, visibility)| WishedNamespace {
                    path,
                    visibility: visibility.as_str().to_owned(),
                })
                .collect(),
            roles: (wanted.roles.into_iter())
                .map(|(name, permissions)| WishedRole {
                    name,
                    permissions: permissions.iter().map(|one| one.to_string()).collect(),
                })
                .collect(),
            issuers: (wanted.issuers.into_iter())
                .map(|one| WishedIssuer {
                    name: one.name,
                    settings: SetIssuer::of(&one.settings),
                })
                .collect(),
            rules: (wanted.rules.into_iter())
                .map(|one| WishedRule {
                    name: one.name,
                    issuer: one.issuer,
                    conditions: one.settings.conditions.iter().map(Condition::of).collect(),
                })
                .collect(),
            groups: (wanted.groups.into_iter())
                .map(|(name, members)| WishedGroup {
                    from: (wanted.sources.iter())
                        .filter(|(group, _)| *group == name)
                        .map(|(_, source)| source.clone())
                        .collect(),
                    name,
                    members: members.iter().map(ToString::to_string).collect(),
                })
                .collect(),
            robots: (wanted.robots.into_iter())
                .map(|robot| WishedRobot {
                    networks: words(&robot.networks),
                    name: robot.name,
                    lifetime: None,
                })
                .collect(),
            bindings: wanted.bindings.into_iter().map(Grant::from).collect(),
        }
    }
}

/// Whether the credentials go so far; whether their principal's rights do is judged with the plan.
fn credentials(visitor: &Visitor, state: &Shared, wanted: &Wanted) -> Result<(), Problem> {
    let access = &state.registry.access;
    visitor.is_somebody(access)?;
    let may = |permission, on: &str| visitor.may_on(access, permission, place(on)?.as_ref());
    for (path, _) in &wanted.namespaces {
        may(Permission::ManageSettings, path)?;
    }
    let everywhere = [
        wanted.roles.is_empty(),
        wanted.groups.is_empty(),
        wanted.issuers.is_empty(),
        wanted.rules.is_empty(),
    ];
    if everywhere.contains(&false) {
        may(Permission::Admin, "")?;
    }
    for robot in &wanted.robots {
        let home = split_robot_name(&robot.name).map_or("", |(namespace, _)| namespace);
        may(Permission::ManageRobots, home)?;
    }
    for binding in &wanted.bindings {
        may(Permission::ManageBindings, &binding.on)?;
    }
    Ok(())
}

/// Apply rights
///
/// Makes what is missing, and with `prune` removes what is not named. Everything is judged before anything is done; then one
/// change follows the other, and when one is refused, or somebody else changes rights, what is done stays and the answer says so.
/// Bindings of the configuration are not touched, and neither are the secrets of robots that are there.
#[utoipa::path(
    post, path = "/api/v1/apply", operation_id = "apply", tag = "rights", request_body = Asked,
    responses((status = 200, description = "Done, or what would be done", body = Outcome), Refusals)
)]
pub(super) async fn apply(
    state: Shared,
    visitor: Visitor,
    Body(asked): Body<Asked>,
) -> Result<Json<Outcome>, Problem> {
    let registry = &state.registry;
    let (prune, dry_run, epoch) = (asked.prune, asked.dry_run, asked.epoch);
    let wanted = asked.wanted(registry.access.service())?;
    credentials(&visitor, &state, &wanted)?;
    let plan = plan(registry, visitor.changer(), &wanted, prune)
        .await
        .map_err(refuse)?;
    if epoch.is_some_and(|epoch| epoch != plan.epoch) {
        return Err(refuse(ApplyError::Changed));
    }
    if dry_run {
        return Ok(Json(Outcome::new(&plan, 0, Vec::new(), None)));
    }
    let applied = carry_out(registry, visitor.changer(), &plan).await;
    let stopped = match applied.stopped {
        // Nothing is lost by an answer that says no more than that.
        Some(error) if applied.done == 0 => return Err(refuse(error)),
        Some(error) => {
            let at = plan.steps.get(applied.done).map(Step::to_string);
            tracing::warn!(%error, done = applied.done, "applying rights stopped");
            Some(format!("{}: {error}", at.unwrap_or_default()))
        }
        None => None,
    };
    Ok(Json(Outcome::new(
        &plan,
        applied.done,
        applied.made,
        stopped,
    )))
}

/// Export rights
///
/// Everything that is there, in the form in which it can be applied; what the configuration grants is no part of it. For
/// administrators.
#[utoipa::path(
    get, path = "/api/v1/apply", operation_id = "export", tag = "rights",
    responses((status = 200, description = "All of it", body = Wish), Refusals)
)]
pub(super) async fn exported(state: Shared, visitor: Visitor) -> Result<Json<Wish>, Problem> {
    visitor.may(&state.registry.access, Permission::Admin)?;
    let wanted = export(&state.registry).await.map_err(refuse)?;
    Ok(Json(Wish::of(wanted)))
}
