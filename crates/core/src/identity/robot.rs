//! Robots: principals of a namespace, for programs. They end, and have two secrets at most, so that one can be replaced
//! while the other still works.

use wharf_meta::principal::PrincipalRow;
use wharf_meta::{Meant, credential, principal};
use wharf_oci::RepositoryName;

use super::{DAY, IdentityError, Made, Result, Shown, change, end, make};
use crate::access::{
    ChangeError, Changer, Conditions, Granting, Networks, Permission, Principal, ROBOT, Role,
    SecretKind, Subject, split_robot_name,
};
use crate::registry::Registry;

/// How long an old secret may go on beside a new one at most, in ms.
pub const LONGEST_OVERLAP_MS: i64 = 30 * DAY;
/// So many bindings a robot may be made with.
pub const MOST_BINDINGS: usize = 20;
/// How long a robot lives that nobody said more of, in ms.
const USUAL: i64 = 90 * DAY;
/// So many secrets of one robot are listed; it has two at most, and those that have ended for a while.
const MOST_SECRETS: u32 = 10;

/// A robot to be made.
#[derive(Debug, Clone, Default)]
pub struct NewRobot {
    /// `<namespace>+<name>`.
    pub name: String,
    /// How long it lives, in ms; `None`: ninety days.
    pub lifetime: Option<i64>,
    /// From where it may come, in CIDR form, with commas; empty: from everywhere.
    pub networks: String,
    /// What it may pull from the start, its namespace or something below; `None`: nothing.
    pub reads: Option<String>,
    /// What else it holds from the start.
    pub bindings: Vec<RobotBinding>,
}

/// A role that a robot has from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RobotBinding {
    /// The role's name.
    pub role: String,
    /// Its namespace or something below.
    pub on: String,
    /// When it counts.
    pub conditions: Conditions,
}

/// Makes a robot with its first secret. Apart from what it is given here, it may do nothing until it is granted something.
pub async fn create_robot(
    registry: &Registry,
    changer: Changer<'_>,
    new: &NewRobot,
) -> Result<Made> {
    let (name, namespace) = check(&new.name)?;
    manages(registry, changer, namespace)?;
    lasts(changer)?;
    // Grants may be older than whom they are for.
    registry.access.stands_above(changer, &robot(name))?;
    let networks: Networks = new.networks.parse()?;
    let now = registry.clock.now_ms();
    let expires_at = end(registry, new.lifetime, USUAL, now)?;
    let reads = new.reads.as_ref().map(|on| RobotBinding {
        role: Role::Reader.as_str().to_owned(),
        on: on.clone(),
        conditions: Conditions::default(),
    });
    if new.bindings.len() > MOST_BINDINGS {
        return Err(IdentityError::Wrong(format!(
            "a robot can be made with {MOST_BINDINGS} bindings at most; grant the others"
        )));
    }
    let bindings: Vec<&RobotBinding> = reads.iter().chain(&new.bindings).collect();
    for RobotBinding { on, .. } in &bindings {
        let within = RepositoryName::parse(on).is_ok_and(|on| on.is_within(namespace));
        if !within {
            return Err(IdentityError::Wrong(format!(
                "{on:?} does not lie in {namespace}, to which the robot belongs"
            )));
        }
    }
    let by = changer.name();
    let (made, secret) = make(SecretKind::Robot, name, ROBOT, by, expires_at, now);
    let create = credential::CreateRobot {
        secret,
        expires_at,
        networks: networks.to_string(),
    };
    let done = registry.meta.write(create).await?;
    registry.access.forget(name);
    if !done {
        return Err(IdentityError::Taken(format!(
            "there is a robot {name} already; `wharf robot rotate {name}` gives it another secret"
        )));
    }
    for binding in bindings {
        let granting = Granting {
            subject: Subject::Robot(name.to_owned()),
            role: binding.role.clone(),
            on: binding.on.clone(),
            conditions: binding.conditions.clone(),
        };
        if let Err(error) = registry.access.grant(changer, &granting, now).await {
            // Half of what was asked for is nothing that anybody asked for; nobody has its secret.
            super::remove(registry, ROBOT, name, &Meant::Any, unknown).await?;
            return Err(error.into());
        }
    }
    Ok(made)
}

/// Whether such a robot could be made, if its name is free.
pub fn check_robot(registry: &Registry, new: &NewRobot) -> Result<()> {
    check(&new.name)?;
    new.networks.parse::<Networks>()?;
    end(registry, new.lifetime, USUAL, registry.clock.now_ms())?;
    Ok(())
}

/// Gives a robot another secret, and a new life as long as asked for. The secret that it had stays good for `overlap` ms, but
/// no longer than it would have been; older ones end at once.
pub async fn rotate_robot(
    registry: &Registry,
    changer: Changer<'_>,
    name: &str,
    overlap: i64,
    lifetime: Option<i64>,
) -> Result<Made> {
    let (name, namespace) = check(name)?;
    manages(registry, changer, namespace)?;
    lasts(changer)?;
    registry.access.stands_above(changer, &robot(name))?;
    let by = changer.name();
    if !(0..=LONGEST_OVERLAP_MS).contains(&overlap) {
        let days = LONGEST_OVERLAP_MS / DAY;
        return Err(IdentityError::Wrong(format!(
            "the old secret may go on for {days} days at most"
        )));
    }
    let now = registry.clock.now_ms();
    let expires_at = end(registry, lifetime, USUAL, now)?;
    let (made, row) = make(SecretKind::Robot, name, ROBOT, by, expires_at, now);
    let until = now + overlap;
    // First the robot: a secret that outlives it would look good and be refused.
    let extend = credential::Extend {
        name: name.into(),
        expires_at,
        at: now,
    };
    let done = registry.meta.write(extend).await?
        && registry
            .meta
            .write(credential::Rotate { row, until })
            .await?;
    registry.access.forget(name);
    if done { Ok(made) } else { Err(unknown(name)) }
}

/// What of a robot shall be otherwise; what is `None` stays.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RobotChange {
    /// Whether it is locked out.
    pub disabled: Option<bool>,
    /// How long it lives from now on, in ms. Its secrets end when they would have ended.
    pub lifetime: Option<i64>,
    /// From where it may come, in CIDR form, with commas; empty: from everywhere.
    pub networks: Option<String>,
}

/// Changes a robot, if it is still the version that is named.
pub async fn change_robot(
    registry: &Registry,
    changer: Changer<'_>,
    name: &str,
    to: RobotChange,
    version: impl Into<Meant>,
) -> Result<()> {
    let (name, namespace) = check(name)?;
    manages(registry, changer, namespace)?;
    if to.disabled != Some(true) || to.lifetime.is_some() || to.networks.is_some() {
        // Whoever lets it do more could as well do it themselves.
        registry.access.stands_above(changer, &robot(name))?;
    }
    let now = registry.clock.now_ms();
    let ends = |lifetime| end(registry, Some(lifetime), USUAL, now);
    let networks = to.networks.map(|text| text.parse::<Networks>());
    let to = principal::Change {
        name: name.into(),
        kind: ROBOT.into(),
        version: version.into(),
        disabled: to.disabled,
        expires_at: to.lifetime.map(ends).transpose()?,
        networks: networks.transpose()?.map(|all| all.to_string()),
        at: now,
    };
    change(registry, to, unknown).await
}

/// Removes a robot with its secrets and all that was granted.
pub async fn remove_robot(
    registry: &Registry,
    changer: Changer<'_>,
    name: &str,
    version: impl Into<Meant>,
) -> Result<()> {
    let (name, namespace) = check(name)?;
    manages(registry, changer, namespace)?;
    get_robot(registry, name).await?;
    // What it was granted goes with it.
    registry.access.stands_above(changer, &robot(name))?;
    super::remove(registry, ROBOT, name, &version.into(), unknown).await
}

/// The robot of that name with its secrets.
pub async fn get_robot(registry: &Registry, name: &str) -> Result<(PrincipalRow, Vec<Shown>)> {
    let found = registry.meta.read(principal::Get { name: name.into() });
    let found = found.await?.filter(|row| row.kind == ROBOT);
    let row = found.ok_or_else(|| unknown(name))?;
    let secrets = secrets(registry, name).await?;
    Ok((row, secrets))
}

async fn secrets(registry: &Registry, name: &str) -> Result<Vec<Shown>> {
    let of = credential::Of {
        principal: name.to_owned(),
        limit: MOST_SECRETS,
    };
    let secrets = registry.meta.read(of).await?;
    Ok(secrets.into_iter().map(Shown::from).collect())
}

/// Robots by name with their secrets, at most `limit` behind `after`; with a namespace, only its own, not those of namespaces
/// below.
pub async fn list_robots(
    registry: &Registry,
    namespace: Option<&str>,
    after: &str,
    limit: u32,
) -> Result<Vec<(PrincipalRow, Vec<Shown>)>> {
    // `,` is the character behind `+`.
    let (first, until) = match namespace {
        Some(namespace) => (format!("{namespace}+"), Some(format!("{namespace},"))),
        None => (String::new(), None),
    };
    let list = principal::List {
        kind: ROBOT.into(),
        after: first.max(after.to_owned()),
        until,
        limit,
    };
    let mut robots = Vec::new();
    for row in registry.meta.read(list).await? {
        let secrets = secrets(registry, &row.name).await?;
        robots.push((row, secrets));
    }
    Ok(robots)
}

/// Robots of a namespace are for whoever manages them there.
fn manages(registry: &Registry, changer: Changer<'_>, namespace: &str) -> Result<()> {
    let what = || format!("manage the robots of {namespace}");
    let access = &registry.access;
    Ok(access.needs(changer, Permission::ManageRobots, namespace, what)?)
}

/// Whether whoever asks may know a secret that lasts: a workload's rights end with its rule, and a robot's would not.
pub(crate) fn lasts(changer: Changer<'_>) -> std::result::Result<(), ChangeError> {
    match changer {
        Changer::Caller(caller) if matches!(caller.principal, Principal::Workload { .. }) => {
            Err(ChangeError::Passing(changer.name().to_owned()))
        }
        _ => Ok(()),
    }
}

fn robot(name: &str) -> Principal {
    Principal::Robot { name: name.into() }
}

/// A robot's name, and the namespace in it.
fn check(name: &str) -> Result<(&str, &str)> {
    match split_robot_name(name) {
        Some((namespace, _)) => Ok((name, namespace)),
        None => Err(IdentityError::Wrong(format!(
            "robot {name:?}: write <namespace>+<name> in lower case, such as team/a+ci"
        ))),
    }
}

fn unknown(name: &str) -> IdentityError {
    IdentityError::Unknown(format!(
        "there is no robot {name}; `wharf robot list` shows all"
    ))
}
