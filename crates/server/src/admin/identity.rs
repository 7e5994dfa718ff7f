//! Users, robots and API tokens, as commands. What they mean is decided in `wharf_core::identity`.

use serde::{Deserialize, Serialize};
use wharf_core::Registry;
use wharf_core::access::Password;
use wharf_core::identity::{self, IdentityError, Made, NewRobot, NewToken, PrincipalRow, Shown};

use super::{Hidden, Refusal};

/// Who is recorded as the maker of what comes through the socket.
const ROOT: &str = "root";
/// So many users or robots are read at once.
const PAGE: u32 = 500;

/// What can be asked for. Times are in ms.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Identity {
    /// A local user.
    UserCreate {
        /// The name.
        name: String,
        /// Chosen; random otherwise.
        password: Option<Hidden>,
    },
    /// All local users.
    UserList,
    /// Another password.
    UserPassword {
        /// The name.
        name: String,
        /// Chosen; random otherwise.
        password: Option<Hidden>,
    },
    /// Lock out, or let in again.
    UserDisable {
        /// The name.
        name: String,
        /// Whether to lock out.
        disabled: bool,
    },
    /// A user is to go.
    UserRemove {
        /// The name.
        name: String,
    },
    /// A robot.
    RobotCreate {
        /// `<namespace>+<name>`.
        name: String,
        /// How long it lives.
        lifetime: Option<i64>,
        /// From where it may come.
        networks: String,
        /// What it may pull from the start.
        reads: Option<String>,
    },
    /// Robots with their secrets.
    RobotList {
        /// Only this namespace's own.
        namespace: Option<String>,
    },
    /// Another secret.
    RobotRotate {
        /// The name.
        name: String,
        /// How long the old one goes on.
        overlap: i64,
        /// How long the new one, and the robot, live.
        lifetime: Option<i64>,
    },
    /// Lock out, or let in again.
    RobotDisable {
        /// The name.
        name: String,
        /// Whether to lock out.
        disabled: bool,
    },
    /// A robot is to go.
    RobotRemove {
        /// The name.
        name: String,
    },
    /// An API token.
    TokenCreate {
        /// Whose.
        user: String,
        /// What it is called.
        name: String,
        /// What it leaves of the user's rights.
        scopes: Vec<String>,
        /// How long it lives.
        lifetime: Option<i64>,
    },
    /// A user's tokens.
    TokenList {
        /// Whose.
        user: String,
    },
    /// A token is to end.
    TokenRevoke {
        /// Its id.
        id: String,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IdentityReply {
    /// It is done.
    Done,
    /// A user's password.
    Password(Hidden),
    /// Local users.
    Users(Vec<PersonView>),
    /// Robots.
    Robots(Vec<RobotView>),
    /// A user's tokens.
    Tokens(Vec<SecretView>),
    /// Whose token has ended.
    Revoked(String),
    /// A secret that was just made.
    Secret {
        /// Under which name to sign in with it.
        principal: String,
        /// Its id.
        id: String,
        /// The secret.
        secret: Hidden,
        /// When it ends, in ms since 1970.
        expires_at: i64,
    },
}

/// A local user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonView {
    /// The name.
    pub name: String,
    /// In ms since 1970.
    pub created_at: i64,
    /// When the password was set, in ms since 1970.
    pub changed_at: i64,
    /// Since when locked out, in ms since 1970.
    pub disabled_at: Option<i64>,
}

/// A robot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RobotView {
    /// The name.
    pub name: String,
    /// In ms since 1970.
    pub expires_at: Option<i64>,
    /// Since when locked out, in ms since 1970.
    pub disabled_at: Option<i64>,
    /// From where it may come; empty: from everywhere.
    pub networks: String,
    /// Its secrets, the oldest first.
    pub secrets: Vec<SecretView>,
}

/// A robot's secret or an API token, without the secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretView {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// What it leaves of its principal's rights; `None`: all.
    pub scopes: Option<String>,
    /// In ms since 1970.
    pub expires_at: Option<i64>,
    /// In ms since 1970.
    pub created_at: i64,
    /// Who made it.
    pub created_by: String,
    /// The last use, in ms since 1970, and from where.
    pub used: Option<(i64, String)>,
}

impl From<Shown> for SecretView {
    fn from(shown: Shown) -> Self {
        Self {
            id: shown.id,
            name: shown.name,
            scopes: shown.scopes,
            expires_at: shown.expires_at,
            created_at: shown.created_at,
            created_by: shown.created_by,
            used: shown.used,
        }
    }
}

impl From<PrincipalRow> for PersonView {
    fn from(row: PrincipalRow) -> Self {
        Self {
            name: row.name,
            created_at: row.created_at,
            changed_at: row.changed_at,
            disabled_at: row.disabled_at,
        }
    }
}

impl From<(PrincipalRow, Vec<Shown>)> for RobotView {
    fn from((row, secrets): (PrincipalRow, Vec<Shown>)) -> Self {
        Self {
            name: row.name,
            expires_at: row.expires_at,
            disabled_at: row.disabled_at,
            networks: row.networks,
            secrets: secrets.into_iter().map(SecretView::from).collect(),
        }
    }
}

impl From<Made> for IdentityReply {
    fn from(made: Made) -> Self {
        Self::Secret {
            principal: made.principal,
            id: made.id,
            secret: Hidden(made.secret.reveal().to_owned()),
            expires_at: made.expires_at,
        }
    }
}

impl From<IdentityError> for Refusal {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Store(error) => Self::failed(error),
            IdentityError::Rights(error) => error.into(),
            other => Self::Wrong(other.to_string()),
        }
    }
}

/// Does it.
pub(super) async fn execute(
    registry: &Registry,
    command: Identity,
) -> Result<IdentityReply, Refusal> {
    let chosen = |password: Option<Hidden>| password.map(|password| Password::new(password.0));
    let told = |password: Password| IdentityReply::Password(Hidden(password.reveal().to_owned()));
    match command {
        Identity::UserCreate { name, password } => {
            let password = identity::create_user(registry, &name, chosen(password)).await?;
            tracing::info!(user = name, "a user was made");
            Ok(told(password))
        }
        Identity::UserList => users(registry).await,
        Identity::UserPassword { name, password } => {
            let password = identity::set_password(registry, &name, chosen(password)).await?;
            tracing::info!(user = name, "a user has a new password");
            Ok(told(password))
        }
        Identity::UserDisable { name, disabled } => {
            identity::disable_user(registry, &name, disabled).await?;
            tracing::info!(
                user = name,
                disabled,
                "a user was locked out, or let in again"
            );
            Ok(IdentityReply::Done)
        }
        Identity::UserRemove { name } => {
            identity::remove_user(registry, &name).await?;
            tracing::info!(user = name, "a user was removed");
            Ok(IdentityReply::Done)
        }
        Identity::RobotCreate {
            name,
            lifetime,
            networks,
            reads,
        } => {
            let new = NewRobot {
                name,
                lifetime,
                networks,
                reads,
            };
            let made = identity::create_robot(registry, &new, ROOT).await?;
            tracing::info!(robot = new.name, id = made.id, "a robot was made");
            Ok(made.into())
        }
        Identity::RobotList { namespace } => robots(registry, namespace.as_deref()).await,
        Identity::RobotRotate {
            name,
            overlap,
            lifetime,
        } => {
            let made = identity::rotate_robot(registry, &name, overlap, lifetime, ROOT).await?;
            tracing::info!(robot = name, id = made.id, "a robot has a new secret");
            Ok(made.into())
        }
        Identity::RobotDisable { name, disabled } => {
            identity::disable_robot(registry, &name, disabled).await?;
            tracing::info!(
                robot = name,
                disabled,
                "a robot was locked out, or let in again"
            );
            Ok(IdentityReply::Done)
        }
        Identity::RobotRemove { name } => {
            identity::remove_robot(registry, &name).await?;
            tracing::info!(robot = name, "a robot was removed");
            Ok(IdentityReply::Done)
        }
        Identity::TokenCreate {
            user,
            name,
            scopes,
            lifetime,
        } => {
            let new = NewToken {
                user,
                name,
                scopes,
                lifetime,
            };
            let made = identity::create_token(registry, &new, ROOT).await?;
            tracing::info!(user = new.user, id = made.id, "an API token was made");
            Ok(made.into())
        }
        Identity::TokenList { user } => {
            let tokens = identity::list_tokens(registry, &user).await?;
            let tokens = tokens.into_iter().map(SecretView::from).collect();
            Ok(IdentityReply::Tokens(tokens))
        }
        Identity::TokenRevoke { id } => {
            let whose = identity::revoke_token(registry, &id).await?;
            tracing::info!(principal = whose, id, "a credential was revoked");
            Ok(IdentityReply::Revoked(whose))
        }
    }
}

async fn users(registry: &Registry) -> Result<IdentityReply, Refusal> {
    let mut users: Vec<PersonView> = Vec::new();
    loop {
        let after = users.last().map_or("", |user| &user.name);
        let page = identity::list_users(registry, after, PAGE).await?;
        let whole = page.len() < PAGE as usize;
        users.extend(page.into_iter().map(PersonView::from));
        if whole {
            return Ok(IdentityReply::Users(users));
        }
    }
}

async fn robots(registry: &Registry, namespace: Option<&str>) -> Result<IdentityReply, Refusal> {
    let mut robots: Vec<RobotView> = Vec::new();
    loop {
        let after = robots.last().map_or("", |robot| &robot.name);
        let page = identity::list_robots(registry, namespace, after, PAGE).await?;
        let whole = page.len() < PAGE as usize;
        robots.extend(page.into_iter().map(RobotView::from));
        if whole {
            return Ok(IdentityReply::Robots(robots));
        }
    }
}
