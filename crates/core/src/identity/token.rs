//! API tokens: secrets of a user for programs, that may do as much as the user or less.

use wharf_meta::credential;

use super::user::by_own_password;
use super::{DAY, IdentityError, Made, Result, Shown, end, make};
use crate::access::{Caller, Changer, Principal, SecretKind, SignIn, parse_scope, write_scopes};
use crate::registry::Registry;

/// So many tokens one user may have.
pub const MOST_TOKENS: u32 = 100;
/// So many scopes one token may have.
const MOST_SCOPES: usize = 50;
/// How long a token lives that nobody said more of, in ms.
const USUAL: i64 = 90 * DAY;

/// A token to be made.
#[derive(Debug, Clone, Default)]
pub struct NewToken {
    /// Whose.
    pub user: String,
    /// What its owner calls it; unique among the user's.
    pub name: String,
    /// What it leaves of the user's rights, as [`parse_scope`] reads it; without any, all of them.
    pub scopes: Vec<String>,
    /// How long it lives, in ms; `None`: ninety days.
    pub lifetime: Option<i64>,
}

/// Gives a user, wherever kept, an API token. It never may more than the user, and dies with the user. Over the network everybody
/// makes their own, with their password: no token makes another one.
pub async fn create_token(
    registry: &Registry,
    changer: Changer<'_>,
    new: &NewToken,
) -> Result<Made> {
    let by_others = matches!(changer, Changer::Caller(_))
        && !by_own_password(changer, &new.user, "make an API token")?;
    if by_others {
        return Err(IdentityError::ByPassword(format!(
            "an API token of {0} is made by {0}, signed in with the password, or on the registry's own machine",
            new.user
        )));
    }
    make_token(registry, changer.name(), new).await
}

/// Gives whoever signed in on the pages an API token of their own.
pub async fn create_own_token(
    registry: &Registry,
    caller: &Caller,
    new: &NewToken,
) -> Result<Made> {
    let own = matches!(&caller.principal, Principal::User { name, .. } if **name == *new.user);
    if !own || caller.circumstances.sign_in != SignIn::Password {
        let text = "an API token is made by whoever it is for";
        return Err(IdentityError::ByPassword(text.to_owned()));
    }
    make_token(registry, &new.user, new).await
}

async fn make_token(registry: &Registry, by: &str, new: &NewToken) -> Result<Made> {
    let wrong = |text: &str| Err(IdentityError::Wrong(text.to_owned()));
    if new.name.is_empty() || new.name.len() > 100 || new.name.chars().any(char::is_control) {
        return wrong("a token's name has 1 to 100 bytes and no control characters");
    }
    if new.scopes.len() > MOST_SCOPES {
        return wrong("a token can have 50 scopes at most");
    }
    let scopes: Vec<_> = new
        .scopes
        .iter()
        .map(|scope| parse_scope(scope))
        .collect::<Result<_, _>>()?;
    let now = registry.clock.now_ms();
    let expires_at = end(registry, new.lifetime, USUAL, now)?;
    let Some(source) = registry.access.user_source(&new.user).await? else {
        return Err(unknown(&new.user));
    };
    let source = source.as_str();
    let (made, row) = make(SecretKind::Token, &new.user, source, by, expires_at, now);
    let row = credential::CredentialRow {
        name: new.name.clone(),
        scopes: (!scopes.is_empty()).then(|| write_scopes(&scopes)),
        ..row
    };
    let add = credential::Add {
        row,
        local: source == crate::access::Source::Local.as_str(),
        most: MOST_TOKENS,
    };
    let added = registry.meta.write(add).await?;
    registry.access.forget(&new.user);
    match added {
        credential::Added::Done => Ok(made),
        credential::Added::Unknown => Err(unknown(&new.user)),
        credential::Added::Refused => Err(IdentityError::Taken(format!(
            "{} has a token called {:?} already, or {MOST_TOKENS} of them; revoke one, or choose another name",
            new.user, new.name
        ))),
    }
}

/// A user's tokens, the oldest first.
pub async fn list_tokens(registry: &Registry, user: &str) -> Result<Vec<Shown>> {
    let of = credential::Of {
        principal: user.into(),
        limit: MOST_TOKENS,
    };
    let listed = registry.meta.read(of).await?;
    let tokens = listed.into_iter();
    let tokens = tokens.filter(|(row, _)| row.kind == SecretKind::Token.as_str());
    Ok(tokens.map(Shown::from).collect())
}

/// Whose a credential is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// A user's API token.
    User(String),
    /// A robot's secret.
    Robot(String),
}

/// Whose the API token or the secret with that id is, if there is one.
pub async fn owner_of(registry: &Registry, id: &str) -> Result<Option<Owner>> {
    let found = registry.meta.read(credential::ById { id: id.into() });
    let owner = |row: credential::CredentialRow| match row.kind == SecretKind::Token.as_str() {
        true => Owner::User(row.principal),
        false => Owner::Robot(row.principal),
    };
    Ok(found.await?.map(owner))
}

/// Ends a token, or one secret of a robot, by its id; gives whose it was. What it bought ends with it. Who may do that is for the
/// caller to know.
pub async fn revoke_token(registry: &Registry, id: &str) -> Result<String> {
    let at = registry.clock.now_ms();
    let revoke = credential::Revoke { id: id.into(), at };
    let whose = registry.meta.write(revoke).await?;
    registry.access.forget(whose.as_deref().unwrap_or_default());
    whose.ok_or_else(|| {
        IdentityError::Unknown(format!(
            "there is no credential {id:?}; `wharf token list USER` and `wharf robot list` show the ids"
        ))
    })
}

fn unknown(user: &str) -> IdentityError {
    IdentityError::Unknown(format!(
        "there is no user {user:?} who could sign in; make one first (`wharf user create`)"
    ))
}
