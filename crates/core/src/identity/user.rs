//! Local users: a name and a password. `admin` is one of them, and the one that cannot be removed, since the next start would make
//! it anew.

use wharf_meta::{Meant, principal};

use super::{IdentityError, PrincipalRow, Result, change};
use crate::access::{
    ADMIN, Changer, Password, Permission, Principal, SignIn, Source, check_password,
    check_user_name, split_robot_name,
};
use crate::registry::Registry;

const KIND: &str = "user";

/// Makes a user with a password, chosen or random, and gives it back.
pub async fn create_user(
    registry: &Registry,
    changer: Changer<'_>,
    name: &str,
    chosen: Option<Password>,
) -> Result<Password> {
    check_new_name(name)?;
    administers(registry, changer)?;
    registry.access.stands_above(changer, &local(name))?;
    let password = good(name, chosen)?;
    let hash = registry.access.hash_password(&password).await?;
    let create = principal::Create {
        name: name.to_owned(),
        kind: KIND.to_owned(),
        secret_hash: Some(hash),
        at: registry.clock.now_ms(),
    };
    let made = registry.meta.write(create).await?;
    registry.access.forget(name);
    if !made {
        let way = "choose another, or set the password of the one there is";
        return Err(IdentityError::Taken(format!(
            "the name {name:?} is taken; {way}"
        )));
    }
    Ok(password)
}

/// Whether a local user may be called that.
pub(super) fn check_new_name(name: &str) -> Result<()> {
    check_user_name(name)
        .map_err(|reason| IdentityError::Wrong(format!("user {name:?}: {reason}")))?;
    if split_robot_name(name).is_some() {
        return Err(IdentityError::Wrong(format!(
            "user {name:?}: the name has the form of a robot's, <namespace>+<name>"
        )));
    }
    Ok(())
}

/// Gives a user another password, chosen or random, and gives it back. Whoever signed in with the old one is signed out;
/// API tokens stay. One's own is set by who has just given the old one, whatever else they may: no token becomes a password.
pub async fn set_password(
    registry: &Registry,
    changer: Changer<'_>,
    name: &str,
    chosen: Option<Password>,
) -> Result<Password> {
    if !by_own_password(changer, name, "set the password")? {
        administers(registry, changer)?;
        registry.access.stands_above(changer, &local(name))?;
    }
    let password = good(name, chosen)?;
    get_user(registry, name).await?;
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

/// Locks a user out, with all tokens, or lets them in again with what they had. The last administrator and the last owner of a
/// namespace stay.
pub async fn disable_user(
    registry: &Registry,
    changer: Changer<'_>,
    name: &str,
    disabled: bool,
    version: impl Into<Meant>,
) -> Result<()> {
    administers(registry, changer)?;
    if !disabled {
        // Whoever lets somebody do more could as well do it themselves. To lock out is for every administrator, in a hurry.
        registry.access.stands_above(changer, &local(name))?;
    }
    let to = principal::Change {
        name: name.into(),
        kind: KIND.into(),
        version: version.into(),
        disabled: Some(disabled),
        expires_at: None,
        networks: None,
        at: registry.clock.now_ms(),
    };
    change(registry, to, unknown).await
}

/// Removes a user with all API tokens and all that was granted.
pub async fn remove_user(
    registry: &Registry,
    changer: Changer<'_>,
    name: &str,
    version: impl Into<Meant>,
) -> Result<()> {
    administers(registry, changer)?;
    if name == ADMIN {
        return Err(IdentityError::Wrong(format!(
            "{ADMIN} cannot be removed, since the next start would make it anew; it can be locked out once there is another administrator"
        )));
    }
    get_user(registry, name).await?;
    // What it was granted goes with it.
    registry.access.stands_above(changer, &local(name))?;
    super::remove(registry, KIND, name, &version.into(), unknown).await
}

/// The local user of that name.
pub async fn get_user(registry: &Registry, name: &str) -> Result<PrincipalRow> {
    let found = registry.meta.read(principal::Get { name: name.into() });
    let found = found.await?.filter(|row| row.kind == KIND);
    found.ok_or_else(|| unknown(name))
}

/// Local users by name, at most `limit` behind `after`.
pub async fn list_users(registry: &Registry, after: &str, limit: u32) -> Result<Vec<PrincipalRow>> {
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

/// Local users are for administrators of the registry as a whole.
pub(super) fn administers(registry: &Registry, changer: Changer<'_>) -> Result<()> {
    let what = || "manage users".to_owned();
    Ok(registry
        .access
        .needs(changer, Permission::Admin, "", what)?)
}

/// Whether somebody does something to themselves, which needs their password and no token.
pub(super) fn by_own_password(changer: Changer<'_>, name: &str, what: &str) -> Result<bool> {
    let Changer::Caller(caller) = changer else {
        return Ok(false);
    };
    let own = matches!(&caller.principal, Principal::User { name: own, .. } if **own == *name);
    if !own {
        return Ok(false);
    }
    if caller.circumstances.sign_in != SignIn::Password
        || caller.scopes.is_some()
        || caller.expired_since.is_some()
    {
        return Err(IdentityError::ByPassword(format!(
            "to {what} of {name} over the network, sign in as {name} with the password itself, not with a token"
        )));
    }
    Ok(true)
}

pub(super) fn local(name: &str) -> Principal {
    Principal::User {
        name: name.into(),
        source: Source::Local,
    }
}

fn unknown(name: &str) -> IdentityError {
    IdentityError::Unknown(format!(
        "there is no local user {name:?}; `wharf user list` shows all (users of the htpasswd file are changed there)"
    ))
}
