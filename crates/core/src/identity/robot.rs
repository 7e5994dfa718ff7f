//! Robots: principals of a namespace, for programs. They end, and have two secrets at most, so that one can be replaced
//! while the other still works.

use wharf_meta::principal::PrincipalRow;
use wharf_meta::{credential, principal};
use wharf_oci::RepositoryName;

use super::{DAY, IdentityError, Made, Result, Shown, end, make};
use crate::access::{
    Changer, Conditions, Granting, Networks, ROBOT, Role, SecretKind, Subject, split_robot_name,
};
use crate::registry::Registry;

/// How long an old secret may go on beside a new one at most, in ms.
pub const LONGEST_OVERLAP_MS: i64 = 30 * DAY;
/// How long a robot lives that nobody said more of, in ms.
const USUAL: i64 = 90 * DAY;

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
}

/// Makes a robot with its first secret. Apart from what it may read, it may do nothing until it is granted something.
pub async fn create_robot(registry: &Registry, new: &NewRobot, by: &str) -> Result<Made> {
    let name = check(&new.name)?;
    let networks: Networks = new.networks.parse()?;
    let now = registry.clock.now_ms();
    let expires_at = end(registry, new.lifetime, USUAL, now)?;
    if let (Some(on), Some((namespace, _))) = (&new.reads, split_robot_name(name)) {
        let within = RepositoryName::parse(on).is_ok_and(|on| on.is_within(namespace));
        if !within {
            return Err(IdentityError::Wrong(format!(
                "{on:?} does not lie in {namespace}, to which the robot belongs"
            )));
        }
    }
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
    if let Some(on) = &new.reads {
        let granting = Granting {
            subject: Subject::Robot(name.to_owned()),
            role: Role::Reader.as_str().to_owned(),
            on: on.clone(),
            conditions: Conditions::default(),
        };
        let granted = registry.access.grant(Changer::Operator, &granting, now);
        if let Err(error) = granted.await {
            remove_robot(registry, name).await?;
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
    name: &str,
    overlap: i64,
    lifetime: Option<i64>,
    by: &str,
) -> Result<Made> {
    let name = check(name)?;
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
    };
    let done = registry.meta.write(extend).await?
        && registry
            .meta
            .write(credential::Rotate { row, until })
            .await?;
    registry.access.forget(name);
    if done { Ok(made) } else { Err(unknown(name)) }
}

/// Locks a robot out, or lets it in again.
pub async fn disable_robot(registry: &Registry, name: &str, disabled: bool) -> Result<()> {
    let done = registry
        .meta
        .write(principal::Disable {
            name: check(name)?.into(),
            kind: ROBOT.into(),
            disabled,
            at: registry.clock.now_ms(),
        })
        .await?;
    registry.access.forget(name);
    if done { Ok(()) } else { Err(unknown(name)) }
}

/// Removes a robot with its secrets and all that was granted.
pub async fn remove_robot(registry: &Registry, name: &str) -> Result<()> {
    let (owned, kind) = (check(name)?.to_owned(), ROBOT.to_owned());
    let now = registry.clock.now_ms();
    registry.access.take_all(ROBOT, name, now).await?;
    let done = registry
        .meta
        .write(credential::RemovePrincipal { name: owned, kind })
        .await?;
    registry.access.forget(name);
    if done { Ok(()) } else { Err(unknown(name)) }
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
        let of = credential::Of {
            principal: row.name.clone(),
            limit: 10,
        };
        let secrets = registry.meta.read(of).await?;
        robots.push((row, secrets.into_iter().map(Shown::from).collect()));
    }
    Ok(robots)
}

fn check(name: &str) -> Result<&str> {
    match split_robot_name(name) {
        Some(_) => Ok(name),
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
