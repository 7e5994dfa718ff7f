//! Commands about rights: grants, groups, roles, namespaces, and questions about them.

use serde::{Deserialize, Serialize};
use wharf_core::Registry;
use wharf_core::access::{
    ADMIN, Access, Binding, Caller, Change, ChangeError, Changer, Circumstances, Conditions,
    Granting, Permission, Permissions, Principal, Role, SignIn, Source, Subject, Tags, Unmet,
};
use wharf_oci::{RepositoryName, Tag};

use super::Refusal;

/// Most bindings of one answer.
const LISTED: usize = 10_000;

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessCommand {
    /// Makes a binding.
    Grant {
        /// Whom it is for.
        who: String,
        /// The role.
        role: String,
        /// The namespace; `""` is everywhere.
        on: String,
        /// Until then, in ms since 1970.
        expires_at: Option<i64>,
        /// From one of these.
        networks: Vec<String>,
        /// For tags of this pattern.
        tags: Option<String>,
        /// For who signed in that way.
        sign_in: Option<String>,
    },
    /// Removes bindings.
    Revoke {
        /// Whose.
        who: String,
        /// Of this role; of all roles otherwise.
        role: Option<String>,
        /// The namespace; `""` is everywhere.
        on: String,
    },
    /// Explains a decision.
    Explain {
        /// Who asks.
        who: String,
        /// For what.
        permission: String,
        /// Where; on the registry as a whole otherwise.
        repository: Option<String>,
        /// For this tag.
        tag: Option<String>,
        /// From this address.
        from: Option<String>,
        /// Signed in that way.
        sign_in: Option<String>,
    },
    /// Lists bindings.
    List {
        /// Those that reach this repository or namespace, or lie below it.
        on: Option<String>,
        /// Those that reach this one.
        who: Option<String>,
    },
    /// Lists groups with their members.
    GroupList,
    /// Makes a group or removes it.
    Group {
        /// Its name.
        name: String,
        /// Whether it shall be there.
        there: bool,
    },
    /// Puts somebody into a group or takes them out.
    Member {
        /// The group.
        group: String,
        /// Who.
        who: String,
        /// Whether they shall be in it.
        within: bool,
    },
    /// Lists namespaces.
    NamespaceList,
    /// Makes a namespace or changes its visibility.
    NamespaceSet {
        /// Its path.
        path: String,
        /// `private`, `internal` or `public`.
        visibility: String,
    },
    /// Removes a namespace and the bindings on it.
    NamespaceRemove {
        /// Its path.
        path: String,
    },
    /// Lists roles, and what they are made of.
    RoleList,
    /// Makes a role, changes it, or removes it.
    Role {
        /// Its name.
        name: String,
        /// Words separated by commas; `None` removes it.
        permissions: Option<String>,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessReply {
    /// Whether anything changed.
    Changed(bool),
    /// What went.
    Revoked(Vec<BindingView>),
    /// Bindings.
    Bindings(Vec<BindingView>),
    /// A decision.
    Explained(Box<ExplanationView>),
    /// Groups, each with its members.
    Groups(Vec<(String, Vec<String>)>),
    /// Namespaces, each with its visibility.
    Namespaces(Vec<(String, String)>),
    /// Roles: name, permissions, and whether they are built in.
    Roles(Vec<(String, String, bool)>),
}

/// A binding as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingView {
    /// Whom it is for.
    pub who: String,
    /// The role.
    pub role: String,
    /// The namespace; `""` is everywhere.
    pub on: String,
    /// When it counts, in words; empty: always.
    pub conditions: String,
    /// Where it comes from, in words.
    pub origin: String,
    /// Whether it has ended.
    pub ended: bool,
}

impl BindingView {
    pub(crate) fn new(binding: &Binding, now: i64) -> Self {
        Self {
            who: binding.subject.to_string(),
            role: binding.role.clone(),
            on: binding.on.clone(),
            conditions: binding.conditions.to_string(),
            origin: binding.origin.to_string(),
            ended: binding.conditions.expires_at.is_some_and(|end| end <= now),
        }
    }
}

/// An [`wharf_core::access::Explanation`] as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplanationView {
    /// Who was asked about.
    pub who: String,
    /// What is known of them: `local user`, `nobody of this name can sign in` …
    pub kind: String,
    /// For what.
    pub permission: String,
    /// What that lets one do: `push to`.
    pub doing: String,
    /// Where; `None`: on the registry as a whole.
    pub repository: Option<String>,
    /// Whether it is allowed.
    pub allowed: bool,
    /// The binding that gives it.
    pub by: Option<BindingView>,
    /// Bindings that would give it, and why they do not.
    pub unmet: Vec<(BindingView, String)>,
    /// Built-in roles that would give it.
    pub roles: Vec<String>,
    /// Who could grant one.
    pub grantors: Vec<String>,
}

fn wrong(error: impl std::fmt::Display) -> Refusal {
    Refusal::Wrong(error.to_string())
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Store(error) => Self::failed(error),
            ChangeError::Busy => Self::failed(error),
            error => Self::Wrong(error.to_string()),
        }
    }
}

/// Does it.
pub(crate) async fn execute(
    registry: &Registry,
    command: AccessCommand,
) -> Result<AccessReply, Refusal> {
    let access = &registry.access;
    let now = registry.clock.now_ms();
    let operator = Changer::Operator;
    let changed = |change| AccessReply::Changed(change == Change::Made);
    Ok(match command {
        AccessCommand::Grant {
            who,
            role,
            on,
            expires_at,
            networks,
            tags,
            sign_in,
        } => {
            let networks = networks.iter().map(|text| text.parse());
            let granting = Granting {
                subject: who.parse().map_err(wrong)?,
                role,
                on,
                conditions: Conditions {
                    expires_at,
                    networks: networks.collect::<Result<_, _>>().map_err(wrong)?,
                    tags: tags.map(|text| text.parse()).transpose().map_err(wrong)?,
                    sign_in: sign_in.map(|text| way(&text)).transpose()?,
                },
            };
            let change = access.grant(operator, &granting, now).await?;
            tracing::info!(who, role = granting.role, on = granting.on, "granted");
            changed(change)
        }
        AccessCommand::Revoke { who, role, on } => {
            let subject: Subject = who.parse().map_err(wrong)?;
            let role = role.as_deref();
            let gone = access.revoke(operator, &subject, role, &on, now).await?;
            tracing::info!(who, role, on, "revoked");
            AccessReply::Revoked(views(&gone.iter().collect::<Vec<_>>(), now))
        }
        AccessCommand::Explain {
            who,
            permission,
            repository,
            tag,
            from,
            sign_in,
        } => {
            let permission: Permission = permission.parse().map_err(wrong)?;
            let repository = repository
                .map(|name| RepositoryName::parse(&name))
                .transpose()
                .map_err(wrong)?;
            let tag = tag.map(|tag| Tag::parse(&tag)).transpose().map_err(wrong)?;
            let (caller, kind) = caller(access, &who).await?;
            let usual = caller.circumstances.sign_in;
            let caller = caller.under(Circumstances {
                address: from.map(|text| text.parse()).transpose().map_err(wrong)?,
                at: now,
                sign_in: sign_in.map(|text| way(&text)).transpose()?.unwrap_or(usual),
            });
            let tags = tag.as_ref().map(|tag| Tags::Named(tag.as_str()));
            let policy = access.policy();
            let told = policy.explain(&caller, permission, repository.as_ref(), tags);
            let unmet = told.unmet.iter();
            AccessReply::Explained(Box::new(ExplanationView {
                who,
                kind,
                permission: permission.to_string(),
                doing: permission.doing().to_owned(),
                repository: repository.map(|name| name.to_string()),
                allowed: told.allowed,
                by: told.by.as_ref().map(|by| BindingView::new(by, now)),
                unmet: unmet
                    .map(|(binding, reason)| (BindingView::new(binding, now), why(*reason)))
                    .collect(),
                roles: giving(permission),
                grantors: told.grantors.iter().map(ToString::to_string).collect(),
            }))
        }
        AccessCommand::List { on, who } => {
            let policy = access.policy();
            let on = on.as_deref().map(|on| on.trim_end_matches('/'));
            let mut listed = match &who {
                Some(who) => match who.parse().map_err(wrong)? {
                    subject @ (Subject::Group(_) | Subject::SignedIn) => {
                        let all = policy.bindings().iter();
                        all.filter(|binding| binding.subject == subject).collect()
                    }
                    _ => policy.bindings_of(&caller(access, who).await?.0.principal),
                },
                None => policy.bindings_on("", true),
            };
            if let Some(on) = on {
                let near = policy.bindings_on(on, true);
                listed.retain(|one| near.iter().any(|other| std::ptr::eq(*one, *other)));
            }
            if listed.len() > LISTED {
                return Err(Refusal::Wrong(format!(
                    "there are {} grants; name a repository with --repo or somebody with --who",
                    listed.len()
                )));
            }
            AccessReply::Bindings(views(&listed, now))
        }
        AccessCommand::GroupList => AccessReply::Groups(access.groups()),
        AccessCommand::Group { name, there } => {
            changed(access.set_group(operator, &name, there, now).await?)
        }
        AccessCommand::Member { group, who, within } => {
            let subject = who.parse().map_err(wrong)?;
            let change = access.set_member(operator, &group, &subject, within, now);
            changed(change.await?)
        }
        AccessCommand::NamespaceList => {
            let all = access.namespaces().into_iter();
            let all = all.map(|(path, visibility)| (path, visibility.as_str().to_owned()));
            AccessReply::Namespaces(all.collect())
        }
        AccessCommand::NamespaceSet { path, visibility } => {
            let visibility = visibility.parse().map_err(wrong)?;
            let change = access.set_namespace(operator, &path, visibility, now);
            changed(change.await?)
        }
        AccessCommand::NamespaceRemove { path } => {
            changed(access.remove_namespace(operator, &path, now).await?)
        }
        AccessCommand::RoleList => {
            let built_in = Role::ALL.into_iter().skip(1);
            let built_in = built_in.map(|role| (role.to_string(), role.permissions(), true));
            let own = access.roles().into_iter();
            let own = own.map(|(name, permissions)| (name, permissions, false));
            let all = built_in.chain(own);
            let all = all.map(|(name, permissions, born)| (name, permissions.to_string(), born));
            AccessReply::Roles(all.collect())
        }
        AccessCommand::Role { name, permissions } => {
            let permissions = permissions
                .map(|words| Permissions::parse(&words))
                .transpose()
                .map_err(wrong)?;
            changed(access.set_role(operator, &name, permissions, now).await?)
        }
    })
}

fn views(bindings: &[&Binding], now: i64) -> Vec<BindingView> {
    let views = bindings.iter();
    views
        .map(|binding| BindingView::new(binding, now))
        .collect()
}

pub(crate) fn way(text: &str) -> Result<SignIn, Refusal> {
    let mut all = SignIn::ALL.into_iter();
    all.find(|one| one.as_str() == text).ok_or_else(|| {
        let words = SignIn::ALL.map(SignIn::as_str).join(", ");
        Refusal::Wrong(format!("{text:?} is no way to sign in; those are {words}"))
    })
}

fn why(reason: Unmet) -> String {
    match reason {
        Unmet::Expired => "it has ended",
        Unmet::Network => "not from this address (--from names another)",
        Unmet::Tags => "not for this tag",
        Unmet::SignIn => "not signed in that way",
    }
    .to_owned()
}

/// Built-in roles that hold the permission, the least first.
fn giving(permission: Permission) -> Vec<String> {
    let mut roles: Vec<Role> = Role::ALL
        .into_iter()
        .filter(|role| role.permissions().contains(permission))
        .collect();
    roles.sort_by_key(|role| role.permissions().iter().count());
    roles.iter().map(ToString::to_string).collect()
}

/// Somebody as a caller who signs in the usual way, and what is known of them.
async fn caller(access: &Access, who: &str) -> Result<(Caller, String), Refusal> {
    let (principal, sign_in, kind) = match who.parse().map_err(wrong)? {
        Subject::Anonymous => (Principal::Anonymous, SignIn::Nobody, "without credentials"),
        Subject::Robot(name) => {
            let name = name.into();
            (Principal::Robot { name }, SignIn::RobotSecret, "robot")
        }
        Subject::User(name) => {
            let source = access.source_of(&name).await.map_err(Refusal::failed)?;
            let kind = match source {
                Some(Source::Local) if name == ADMIN => "administrator of the first start",
                Some(Source::Local) => "local user",
                Some(Source::Htpasswd) => "user of the htpasswd file",
                None => "nobody of this name can sign in",
            };
            let source = source.unwrap_or(Source::Local);
            let name = name.into();
            (Principal::User { name, source }, SignIn::Password, kind)
        }
        other => {
            let text =
                format!("{other} is nobody in particular; name a user, a robot or anonymous");
            return Err(Refusal::Wrong(text));
        }
    };
    let came = Circumstances {
        sign_in,
        ..Circumstances::UNKNOWN
    };
    Ok((Caller::direct(principal).under(came), kind.to_owned()))
}
