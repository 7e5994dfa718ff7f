//! Invitations: an administrator gives somebody a link, with which they choose a password, once, and so become a local user.
//!
//! What the user shall hold is granted when the invitation is made, by whoever makes it and by what they hold then; grants can
//! be older than whom they are for. So accepting gives nothing, and an invitation that is stolen late is worth what the lists
//! show. When one is taken back or runs out, what was granted to that name goes with it.

use wharf_meta::invitation::{self, InvitationRow};
use wharf_meta::principal;

use super::user::{administers, check_new_name, local};
use super::{DAY, IdentityError, Made, Result};
use crate::access::{
    ADMIN, Caller, Changer, Circumstances, Form, Granting, OPERATOR, Password, Principal,
    SecretKind, Source, Subject, check_password, form, hash_secret, new_secret, random_id,
};
use crate::audit::{Kind, Sight};
use crate::registry::Registry;

/// How long one is good that nobody said more of, in ms.
const USUAL: i64 = 7 * DAY;
/// How long one may be good at most, in ms.
const LONGEST: i64 = 30 * DAY;
/// So many groups, and so many bindings, one may come with.
const MOST: usize = 20;
/// So many that have ended are looked for at once.
const STEP: u32 = 100;

/// An invitation to be made.
#[derive(Debug, Clone, Default)]
pub struct NewInvitation {
    /// What the user will be called.
    pub name: String,
    /// How long it is good, in ms; `None`: seven days.
    pub lifetime: Option<i64>,
    /// Groups in which the user shall be.
    pub groups: Vec<String>,
    /// What the user shall hold: roles, and where; `""` is everywhere.
    pub bindings: Vec<(String, String)>,
}

/// An invitation without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invited {
    /// Its name in lists.
    pub id: String,
    /// What the user will be called.
    pub name: String,
    /// When it ends, in ms since 1970.
    pub expires_at: i64,
    /// In ms since 1970.
    pub created_at: i64,
    /// Who invited.
    pub created_by: String,
}

impl From<InvitationRow> for Invited {
    fn from(row: InvitationRow) -> Self {
        Self {
            id: row.id,
            name: row.name,
            expires_at: row.expires_at,
            created_at: row.created_at,
            created_by: row.created_by,
        }
    }
}

/// Invites somebody. A second invitation of the same name takes the place of the first.
pub async fn invite(
    registry: &Registry,
    changer: Changer<'_>,
    new: &NewInvitation,
) -> Result<Made> {
    let wrong = |text: String| Err(IdentityError::Wrong(text));
    check_new_name(&new.name)?;
    administers(registry, changer)?;
    registry.access.stands_above(changer, &local(&new.name))?;
    if is_of_file(registry, &new.name).await? {
        return Err(IdentityError::Taken(format!(
            "{} is a user of the htpasswd file; take it out there first",
            new.name
        )));
    }
    if new.groups.len() > MOST || new.bindings.len() > MOST {
        return wrong(format!(
            "an invitation can come with {MOST} groups and {MOST} bindings at most"
        ));
    }
    let now = registry.clock.now_ms();
    let lifetime = new.lifetime.unwrap_or(USUAL);
    if !(1..=LONGEST).contains(&lifetime) {
        let days = LONGEST / DAY;
        return wrong(format!("an invitation may be good for {days} days at most"));
    }
    let secret = new_secret(SecretKind::Invitation);
    let row = InvitationRow {
        name: new.name.clone(),
        id: random_id(),
        hash: hash_secret(&secret),
        expires_at: now + lifetime,
        created_at: now,
        created_by: changer.name().to_owned(),
    };
    let made = Made {
        principal: new.name.clone(),
        id: row.id.clone(),
        secret,
        expires_at: row.expires_at,
    };
    if !registry.meta.write(invitation::Put { row }).await? {
        return Err(IdentityError::Taken(format!(
            "there is a user or robot {:?} already; set the password instead",
            new.name
        )));
    }
    if let Err(error) = give(registry, changer, new, now).await {
        // Half of what was asked for is nothing that anybody asked for; nobody has the link.
        withdraw_invitation(registry, Changer::Operator, &made.id).await?;
        return Err(error);
    }
    Ok(made)
}

async fn give(
    registry: &Registry,
    changer: Changer<'_>,
    new: &NewInvitation,
    now: i64,
) -> Result<()> {
    let access = &registry.access;
    let subject = Subject::User(new.name.clone());
    for group in &new.groups {
        let add = access.set_member(changer, group, &subject, true, now);
        add.await?;
    }
    for (role, on) in &new.bindings {
        let granting = Granting {
            subject: subject.clone(),
            role: role.clone(),
            on: on.clone(),
            conditions: crate::access::Conditions::default(),
        };
        access.grant(changer, &granting, now).await?;
    }
    Ok(())
}

/// Accepts an invitation: its user has this password from now on. Gives the user's name. Whoever invited must still be there.
///
/// Who comes from the network may try as often as passwords may be tried from there, and wrong secrets are in the audit log;
/// `None` is the admin socket.
pub async fn accept_invitation(
    registry: &Registry,
    came: Option<Circumstances>,
    secret: &Password,
    password: Password,
) -> Result<String> {
    let Some(came) = came else {
        return accept(registry, secret, password).await;
    };
    let accepted = match registry.access.admit_guess(came.address) {
        Ok(()) => accept(registry, secret, password).await,
        Err(limited) => Err(limited.into()),
    };
    let sight = match &accepted {
        Err(IdentityError::Limited(limited)) => limited.sight(),
        Err(IdentityError::Unknown(_)) => wrong_guess(came),
        _ => return accepted,
    };
    let request = wharf_meta::origin::current();
    let request = request.as_ref().map_or("", |origin| &origin.request);
    registry.audit.note(sight, came.at, request);
    accepted
}

/// A secret that is none, as it is noted. What was sent is not.
fn wrong_guess(came: Circumstances) -> Sight {
    let origin = Caller::anonymous().under(came).origin("");
    Sight {
        kind: Kind::Refuse,
        principal: origin.actor,
        credential: origin.credential,
        address: came.address,
        repository: None,
        digest: None,
        tag: None,
        asked: "invitation".to_owned(),
        reason: "there is no such invitation".to_owned(),
    }
}

async fn accept(registry: &Registry, secret: &Password, password: Password) -> Result<String> {
    // A made up one costs no look-up; 190 random bits are not guessed.
    if form(secret.reveal()) != Form::Whole {
        return Err(gone());
    }
    let hash = hash_secret(secret);
    let found = registry
        .meta
        .read(invitation::ByHash { hash: hash.clone() })
        .await?;
    let now = registry.clock.now_ms();
    let Some(row) = found.filter(|row| now < row.expires_at) else {
        return Err(gone());
    };
    // What the file's user was granted is not for whoever has a link.
    if !stands(registry, &row.created_by).await? || is_of_file(registry, &row.name).await? {
        return Err(gone());
    }
    check_password(&row.name, &password)?;
    let secret_hash = registry.access.hash_password(&password).await?;
    let accept = invitation::Accept {
        hash,
        secret_hash,
        at: registry.clock.now_ms(),
    };
    let accepted = registry.meta.write(accept).await?;
    registry.access.forget(&row.name);
    match accepted {
        invitation::Accepted::Done(name) => Ok(name),
        invitation::Accepted::Gone | invitation::Accepted::Taken(_) => Err(gone()),
    }
}

/// Whether who invited may still do that: not locked out, not gone, not made anew as somebody else.
async fn stands(registry: &Registry, inviter: &str) -> Result<bool> {
    // Whoever has the machine, unless somebody who signs in is called that.
    if inviter == OPERATOR && registry.access.source_of(inviter).await?.is_none() {
        return Ok(true);
    }
    let Some(source) = registry.access.user_source(inviter).await? else {
        return Ok(false);
    };
    let caller = Caller::direct(Principal::User {
        name: inviter.into(),
        source,
    });
    let came = Circumstances {
        sign_in: crate::access::SignIn::Password,
        ..Circumstances::new(None, registry.clock.now_ms())
    };
    let caller = caller.under(came);
    Ok(administers(registry, Changer::Caller(&caller)).is_ok())
}

/// Whether the htpasswd file has a user of that name.
async fn is_of_file(registry: &Registry, name: &str) -> Result<bool> {
    Ok(registry.access.source_of(name).await? == Some(Source::Htpasswd))
}

fn gone() -> IdentityError {
    IdentityError::Unknown(
        "there is no such invitation: it was used, taken back or has ended, or a part of the link is missing; ask for another one"
            .to_owned(),
    )
}

/// Invitations that were not used yet, by name, at most `limit` behind `after`.
pub async fn list_invitations(
    registry: &Registry,
    after: &str,
    limit: u32,
) -> Result<Vec<Invited>> {
    let list = invitation::List {
        after: after.into(),
        limit,
    };
    let rows = registry.meta.read(list).await?;
    Ok(rows.into_iter().map(Invited::from).collect())
}

/// Takes an invitation back, with all that was granted to a name that nobody has; gives the name.
pub async fn withdraw_invitation(
    registry: &Registry,
    changer: Changer<'_>,
    id: &str,
) -> Result<String> {
    administers(registry, changer)?;
    let withdraw = invitation::Withdraw {
        id: id.into(),
        at: registry.clock.now_ms(),
    };
    let Some(name) = registry.meta.write(withdraw).await? else {
        return Err(IdentityError::Unknown(format!(
            "there is no invitation {id:?}; `wharf user invitations` shows all that were not used"
        )));
    };
    let named = registry.meta.read(principal::Get { name: name.clone() });
    // A user of the file, which may have come later, keeps what it was granted.
    if named.await?.is_none() && name != ADMIN && !is_of_file(registry, &name).await? {
        let now = registry.clock.now_ms();
        registry.access.take_all("user", &name, now).await?;
    }
    Ok(name)
}

/// Forgets invitations that are long over, as [`withdraw_invitation`] does, and grants and credentials that ended a while ago. Called once
/// an hour.
pub async fn forget_ended(registry: &Registry) -> Result<()> {
    let before = registry.long_over();
    loop {
        let ended = invitation::Ended {
            before,
            limit: STEP,
        };
        let ids = registry.meta.read(ended).await?;
        for id in &ids {
            match withdraw_invitation(registry, Changer::Operator, id).await {
                // Another replica was faster.
                Ok(_) | Err(IdentityError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        if ids.len() < STEP as usize {
            break;
        }
    }
    let (before, now) = (registry.shown_until(), registry.clock.now_ms());
    registry.access.forget_ended(before, now).await?;
    Ok(registry.access.forget_credentials(before).await?)
}
