//! Local users: a name and a password. `admin` is one of them, and the one that cannot go.

use wharf_meta::{credential, principal};

use super::{IdentityError, Result};
use crate::access::{ADMIN, Password, check_password, check_user_name, split_robot_name};
use crate::registry::Registry;

const KIND: &str = "user";

/// Makes a user with a password, chosen or random, and gives it back.
pub async fn create_user(
    registry: &Registry,
    name: &str,
    chosen: Option<Password>,
) -> Result<Password> {
    check_user_name(name)
        .map_err(|reason| IdentityError::Wrong(format!("user {name:?}: {reason}")))?;
    if split_robot_name(name).is_some() {
        return Err(IdentityError::Wrong(format!(
            "user {name:?}: the name has the form of a robot's, <namespace>+<name>"
        )));
    }
    let password = good(name, chosen)?;
    let hash = registry.access.hash_password(&password).await?;
    let (owned, kind) = (name.to_owned(), KIND.to_owned());
    let at = registry.clock.now_ms();
    let made = registry
        .meta
        .write(principal::Create {
            name: owned,
            kind,
            secret_hash: Some(hash),
            at,
        })
        .await?;
    registry.access.forget(name);
    if !made {
        let way = "choose another, or set the password of the one there is";
        return Err(IdentityError::Taken(format!(
            "the name {name:?} is taken; {way}"
        )));
    }
    Ok(password)
}

/// Gives a user another password, chosen or random, and gives it back. Whoever signed in with the old one is signed out;
/// API tokens stay.
pub async fn set_password(
    registry: &Registry,
    name: &str,
    chosen: Option<Password>,
) -> Result<Password> {
    let password = good(name, chosen)?;
    let found = registry
        .meta
        .read(principal::Get { name: name.into() })
        .await?;
    if found.is_none_or(|row| row.kind != KIND) {
        return Err(unknown(name));
    }
    let hash = registry.access.hash_password(&password).await?;
    let (owned, at) = (name.to_owned(), registry.clock.now_ms());
    let set = principal::SetSecret {
        name: owned,
        hash,
        at,
    };
    let done = registry.meta.write(set).await?;
    registry.access.forget(name);
    if done {
        Ok(password)
    } else {
        Err(unknown(name))
    }
}

/// Locks a user out, with all tokens, or lets them in again with what they had.
pub async fn disable_user(registry: &Registry, name: &str, disabled: bool) -> Result<()> {
    spare_admin(name, "locked out")?;
    let done = registry
        .meta
        .write(principal::Disable {
            name: name.into(),
            kind: KIND.into(),
            disabled,
            at: registry.clock.now_ms(),
        })
        .await?;
    registry.access.forget(name);
    if done { Ok(()) } else { Err(unknown(name)) }
}

/// Removes a user with all API tokens and all that was granted.
pub async fn remove_user(registry: &Registry, name: &str) -> Result<()> {
    spare_admin(name, "removed")?;
    let now = registry.clock.now_ms();
    registry.access.take_all(KIND, name, now).await?;
    let (owned, kind) = (name.to_owned(), KIND.to_owned());
    let done = registry
        .meta
        .write(credential::RemovePrincipal {
            name: owned,
            kind,
            at: now,
        })
        .await?;
    registry.access.forget(name);
    if done { Ok(()) } else { Err(unknown(name)) }
}

/// Local users by name, at most `limit` behind `after`.
pub async fn list_users(
    registry: &Registry,
    after: &str,
    limit: u32,
) -> Result<Vec<principal::PrincipalRow>> {
    let list = principal::List {
        kind: KIND.into(),
        after: after.into(),
        until: None,
        limit,
    };
    Ok(registry.meta.read(list).await?)
}

fn good(name: &str, chosen: Option<Password>) -> Result<Password> {
    let Some(password) = chosen else {
        return Ok(Password::random());
    };
    check_password(name, &password)?;
    Ok(password)
}

fn spare_admin(name: &str, what: &str) -> Result<()> {
    if name == ADMIN {
        return Err(IdentityError::Wrong(format!(
            "{ADMIN} cannot be {what}: somebody must be able to run the registry"
        )));
    }
    Ok(())
}

fn unknown(name: &str) -> IdentityError {
    IdentityError::Unknown(format!(
        "there is no local user {name:?}; `wharf user list` shows all (users of the htpasswd file are changed there)"
    ))
}
