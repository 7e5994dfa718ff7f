//! Changing rights: grants, groups, roles, namespaces.
//!
//! Called for the admin socket, whose user may do everything, and for callers over the network, who may give only what they
//! have. What they have is looked up in memory; the transaction refuses when the rights are others by then, and it is looked
//! up anew. When a change is acknowledged here, this process decides by it.

use std::collections::BTreeMap;

use wharf_meta::access::{self as rows, By, Changed};
use wharf_meta::{Meant, Op};
use wharf_oci::RepositoryName;

use super::Access;
use super::binding::{Binding, Conditions, Origin, Subject};
use super::load::key;
use super::policy::{Policy, check_prefix};
use super::principal::{Caller, Principal, SignIn};
use super::role::{Permission, Permissions, Role};
use super::version::Shown;
use crate::Error;

/// How often a change is tried again that others were in the way of.
const ATTEMPTS: u32 = 20;

/// Who wants a change.
#[derive(Debug, Clone, Copy)]
pub enum Changer<'a> {
    /// Whoever has the machine.
    Operator,
    /// Somebody over the network.
    Caller(&'a Caller),
}

/// The name under which changes over the admin socket are recorded.
pub const OPERATOR: &str = "operator";

/// A grant as it is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granting {
    /// Whom it is for.
    pub subject: Subject,
    /// The role's name.
    pub role: String,
    /// Where; `""` is everywhere.
    pub on: String,
    /// When it counts.
    pub conditions: Conditions,
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It is made, and in force here.
    Made,
    /// It was so before.
    Same,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// It cannot be meant.
    #[error("{0}")]
    Wrong(String),
    /// A field cannot be meant.
    #[error("{0}: {1}")]
    Field(&'static str, String),
    /// It is in the way of something else.
    #[error("{0}")]
    Conflict(String),
    /// It is no longer the version that the change is meant for.
    #[error("it is no longer what the change was meant for: somebody changed it meanwhile")]
    Differs,
    /// The caller may not make changes there.
    #[error("{who} may not {what}; it needs the permission {permission} there")]
    Denied {
        /// The caller.
        who: String,
        /// What was tried.
        what: String,
        /// What is lacking.
        permission: Permission,
    },
    /// The caller would give what it does not have.
    #[error(
        "{who} cannot give or take {missing} {place}, not having it there without conditions; ask somebody who has"
    )]
    NotHeld {
        /// The caller.
        who: String,
        /// What is lacking.
        missing: Permissions,
        /// Where.
        place: String,
    },
    /// The caller is there for the time of a token of its issuer.
    #[error(
        "{0} signs in with a token of its issuer, and can give nobody a secret that outlives it; ask somebody who signs in otherwise"
    )]
    Passing(String),
    /// There is no such thing.
    #[error("{0}")]
    Unknown(String),
    /// Only the configuration can change it.
    #[error("{0} comes from the configuration; change it there")]
    ReadOnly(String),
    /// A role that is still bound.
    #[error("role {0:?} is still bound; revoke that first (wharf access list shows where)")]
    InUse(String),
    /// Nobody would be left.
    #[error("{}", last(.0))]
    Last(String),
    /// Others change rights all the time.
    #[error("the rights kept changing meanwhile; try again")]
    Busy,
    /// The metadata store failed.
    #[error(transparent)]
    Store(#[from] Error),
}

fn last(path: &str) -> String {
    match path {
        "" => "this is the last administrator; grant admin to somebody else first".to_owned(),
        path => format!(
            "this is the last owner of {path}; grant owner to somebody else first, or remove the namespace with all its grants"
        ),
    }
}

/// Whether the change is meant for one of these lists as it is now.
fn is_listed(meant: &Meant, policy: &Policy, lists: &[Shown], now: i64) -> bool {
    let fits = |list: &Shown| meant.fits(Some(policy.version_of_shown(list, now)));
    *meant == Meant::Any || lists.iter().any(fits)
}

fn place(on: &str) -> String {
    match on {
        "" => "everywhere".to_owned(),
        on => format!("on {on}"),
    }
}

impl Changer<'_> {
    /// The name for rows and events.
    pub fn name(&self) -> &str {
        match self {
            Self::Operator => OPERATOR,
            Self::Caller(caller) => caller.principal.name(),
        }
    }

    /// Whether this one may, by the rights of this policy.
    pub(crate) fn needs(
        &self,
        policy: &Policy,
        permission: Permission,
        on: &str,
        what: impl FnOnce() -> String,
    ) -> Result<(), ChangeError> {
        let Self::Caller(caller) = self else {
            return Ok(());
        };
        let repository = RepositoryName::parse(on).ok();
        let decided = policy.decide(caller, permission, repository.as_ref());
        match decided {
            super::Decision::Allow => Ok(()),
            _ => Err(ChangeError::Denied {
                who: self.name().to_owned(),
                what: what(),
                permission,
            }),
        }
    }

    /// Whether this one holds all of it there, whatever the circumstances: what ends, or counts at home only, cannot be
    /// handed on for good and for everywhere.
    pub(crate) fn holds(
        &self,
        policy: &Policy,
        given: Permissions,
        on: &str,
    ) -> Result<(), ChangeError> {
        let Self::Caller(caller) = self else {
            return Ok(());
        };
        let repository = RepositoryName::parse(on).ok();
        let left: Permissions = given
            .iter()
            .filter(|&permission| caller.leaves(permission, repository.as_ref()))
            .collect();
        let held = policy
            .reaching(&caller.principal, on)
            .filter(|binding| binding.conditions.is_empty())
            .fold(Permissions::NONE, |held, one| held | one.permissions);
        let missing = given.without(left.both(held));
        if missing == Permissions::NONE {
            return Ok(());
        }
        Err(ChangeError::NotHeld {
            who: self.name().to_owned(),
            missing,
            place: place(on),
        })
    }

    /// Whether this one holds all that these bindings give, each where it is. Whoever has it everywhere is asked once.
    pub(crate) fn holds_all<'b>(
        &self,
        policy: &Policy,
        bindings: impl Iterator<Item = &'b Binding>,
    ) -> Result<(), ChangeError> {
        let mut by_path: BTreeMap<&str, Permissions> = BTreeMap::new();
        for binding in bindings {
            let given = by_path.entry(&binding.on).or_default();
            *given = *given | binding.permissions;
        }
        let all = by_path
            .values()
            .fold(Permissions::NONE, |all, one| all | *one);
        if self.holds(policy, all, "").is_ok() {
            return Ok(());
        }
        by_path
            .into_iter()
            .try_for_each(|(on, given)| self.holds(policy, given, on))
    }

    /// Whether this one holds all that a subject has, by its groups too: who decides who that is, gives it and takes it.
    pub(crate) fn holds_of(&self, policy: &Policy, subject: &Subject) -> Result<(), ChangeError> {
        self.holds_all(policy, policy.bindings_through(subject))
    }
}

impl Access {
    /// Whether whoever asks may do this there at present.
    pub(crate) fn needs(
        &self,
        changer: Changer<'_>,
        permission: Permission,
        on: &str,
        what: impl FnOnce() -> String,
    ) -> Result<(), ChangeError> {
        changer.needs(&self.policy(), permission, on, what)
    }

    /// Whether whoever asks holds all that a principal holds: who makes one, or gets a secret of one, can act as it from then on.
    /// What everybody may without credentials is nothing to be gained.
    pub(crate) fn stands_above(
        &self,
        changer: Changer<'_>,
        principal: &Principal,
    ) -> Result<(), ChangeError> {
        let policy = self.policy();
        let held = policy.bindings_of(principal).into_iter();
        let held = held.filter(|binding| binding.subject != Subject::Anonymous);
        changer.holds_all(&policy, held)
    }

    /// Forgets grants that ended before a time; until then lists show them, so that whoever is missing a right finds out why.
    pub(crate) async fn forget_ended(&self, before: i64, now: i64) -> Result<(), ChangeError> {
        let is_old = |binding: &Binding| {
            let ended = binding.conditions.expires_at;
            binding.origin.is_row() && ended.is_some_and(|end| end < before)
        };
        if !self.policy().bindings().any(is_old) {
            return Ok(());
        }
        let gone = self.change(Changer::Operator, now, |_, by| {
            Ok(rows::binding::DeleteEnded { before, by })
        });
        match gone.await {
            Ok(_) | Err(Failed::Unknown) => Ok(()),
            Err(Failed::Other(error)) => Err(error),
        }
    }

    /// Makes a binding.
    pub async fn grant(
        &self,
        changer: Changer<'_>,
        granting: &Granting,
        at: i64,
    ) -> Result<Change, ChangeError> {
        self.grant_if(changer, granting, &Meant::Any, at).await
    }

    /// As [`Access::grant`], if a list of bindings that shows what lies there, or what the subject has, is still the one that is
    /// meant.
    pub async fn grant_if(
        &self,
        changer: Changer<'_>,
        granting: &Granting,
        meant: &Meant,
        at: i64,
    ) -> Result<Change, ChangeError> {
        let binding = self.meant(changer, granting, at)?;
        let lists = self.lists(&granting.subject, &granting.on).await?;
        let custom_role = binding.role.parse::<Role>().is_err();
        // What an own role is made of is looked up.
        let bound = custom_role || *meant != Meant::Any;
        let key = key(&binding).ok_or_else(|| ChangeError::ReadOnly(binding.to_string()))?;
        let fits = |policy: &Policy| is_listed(meant, policy, &lists, at);
        self.change_as(changer, at, bound, fits, |policy, by| {
            let what = || format!("grant rights {}", place(&binding.on));
            changer.needs(policy, Permission::ManageBindings, &binding.on, what)?;
            let binding = self.meant(changer, granting, at)?;
            changer.holds(policy, binding.permissions, &binding.on)?;
            Ok(rows::binding::Put {
                binding: key.clone(),
                custom_role,
                by,
            })
        })
        .await
        .map_err(|error| match error {
            Failed::Unknown => ChangeError::Unknown(match &binding.subject {
                Subject::Group(name) => {
                    format!("there is no group {name}; make it with `wharf group create {name}`")
                }
                _ => format!("there is no role {:?}", binding.role),
            }),
            Failed::Other(error) => error,
        })
    }

    /// The lists that show what is about to change: of all that there is, of what reaches or lies below the path, of what the
    /// subject has, and of both.
    async fn lists(&self, subject: &Subject, on: &str) -> Result<[Shown; 4], ChangeError> {
        let who = Some(self.whose(subject).await.map_err(ChangeError::Store)?);
        let on = Some(on.to_owned());
        Ok([
            (None, None),
            (None, on.clone()),
            (who.clone(), None),
            (who, on),
        ]
        .map(|(who, on)| Shown { who, on }))
    }

    /// A rule that is granted something has to be there: it goes with all that it has.
    pub(super) fn knows(&self, subject: &Subject) -> Result<(), ChangeError> {
        match subject {
            Subject::Workload(rule) if !self.workloads.trust().rules.contains_key(&**rule) => {
                Err(ChangeError::Unknown(format!(
                    "there is no rule {rule} on workloads; `wharf workload list` shows those that there are"
                )))
            }
            _ => Ok(()),
        }
    }

    /// The binding that is asked for, as it would be in the rows.
    pub(crate) fn meant(
        &self,
        changer: Changer<'_>,
        granting: &Granting,
        at: i64,
    ) -> Result<Binding, ChangeError> {
        self.knows(&granting.subject)?;
        self.formed(changer, granting, self.policy().role(&granting.role), at)
    }

    /// The same of a rule on workloads that is yet to be made, or of a role that will be made of these permissions.
    pub(crate) fn formed(
        &self,
        changer: Changer<'_>,
        granting: &Granting,
        permissions: Option<Permissions>,
        at: i64,
    ) -> Result<Binding, ChangeError> {
        let wrong = |text: String| Err(ChangeError::Wrong(text));
        let on = path(&granting.on)?;
        let Some(permissions) = permissions else {
            return Err(ChangeError::Unknown(format!(
                "there is no role {:?}; the built-in ones are {}, and `wharf role list` shows the others",
                granting.role,
                Role::ALL.map(Role::as_str)[1..].join(", ")
            )));
        };
        if permissions == Permissions::NONE {
            return wrong(
                "role none gives nothing; to take rights away, revoke what gives them".into(),
            );
        }
        let open = matches!(granting.subject, Subject::Anonymous | Subject::SignedIn);
        if open && !permissions.within(Role::Maintainer.permissions()) {
            return wrong(format!(
                "{} cannot be {}; maintainer is the most that everybody may be",
                granting.subject, granting.role
            ));
        }
        let conditions = &granting.conditions;
        if conditions.expires_at.is_some_and(|end| end <= at) {
            return wrong("the end of this grant has passed already".into());
        }
        if conditions.tags.is_some() && !permissions.within(Role::Maintainer.permissions()) {
            return wrong(format!(
                "role {} is about more than tags, so a pattern of tags cannot limit it",
                granting.role
            ));
        }
        if conditions.sign_in == Some(SignIn::Nobody) {
            // Signing in never costs a right.
            return wrong(
                "sign_in: nobody signs in as nobody; leave the condition out, or grant to anonymous".into(),
            );
        }
        if conditions.networks.len() > super::binding::MOST_NETWORKS {
            return wrong(format!(
                "a grant can name at most {} networks",
                super::binding::MOST_NETWORKS
            ));
        }
        if let Subject::Robot(name) = &granting.subject
            && let Some((home, _)) = super::split_robot_name(name)
            && !super::policy::is_within(&on, home)
        {
            return wrong(format!(
                "robot {name} belongs to {home} and can have rights there only"
            ));
        }
        Ok(Binding {
            subject: granting.subject.clone(),
            role: granting.role.clone(),
            permissions,
            on,
            conditions: conditions.clone(),
            origin: Origin::Granted {
                by: changer.name().to_owned(),
                at,
            },
        })
    }

    /// Removes the bindings of a subject on exactly this path, of one role or of all; gives those that went.
    pub async fn revoke(
        &self,
        changer: Changer<'_>,
        subject: &Subject,
        role: Option<&str>,
        on: &str,
        at: i64,
    ) -> Result<Vec<Binding>, ChangeError> {
        self.revoke_if(changer, subject, role, on, &Meant::Any, at)
            .await
    }

    /// As [`Access::revoke`], if a list of bindings that shows what lies there, or what the subject has, is still the one that is
    /// meant.
    pub async fn revoke_if(
        &self,
        changer: Changer<'_>,
        subject: &Subject,
        role: Option<&str>,
        on: &str,
        meant: &Meant,
        at: i64,
    ) -> Result<Vec<Binding>, ChangeError> {
        let on = path(on)?;
        let lists = self.lists(subject, &on).await?;
        let bound = *meant != Meant::Any;
        let policy = self.policy();
        let admin = *subject == Subject::User(super::ADMIN.into());
        let born = admin.then_some(Subject::LocalAdmin);
        let found: Vec<Binding> = (born.iter().chain([subject]))
            .flat_map(|subject| policy.held(subject, &on))
            .filter(|binding| role.is_none_or(|role| binding.role == role))
            .cloned()
            .collect();
        let mut gone = Vec::new();
        for binding in found.iter().filter(|binding| binding.origin.is_row()) {
            let Some(key) = key(binding) else { continue };
            // Once the first is gone, the list is another one by that.
            let begun = !gone.is_empty();
            let fits = |policy: &Policy| begun || is_listed(meant, policy, &lists, at);
            let changed = self
                .change_as(changer, at, bound, fits, |policy, by| {
                    let what = || format!("revoke rights {}", place(&on));
                    changer.needs(policy, Permission::ManageBindings, &on, what)?;
                    // Who cannot give it cannot take it, or a lesser owner could put a greater one out.
                    changer.holds(policy, binding.permissions, &on)?;
                    Ok(rows::binding::Delete {
                        binding: key.clone(),
                        by,
                    })
                })
                .await;
            match changed {
                Ok(_) => gone.push(binding.clone()),
                Err(Failed::Unknown) => {}
                Err(Failed::Other(error)) => return Err(error),
            }
        }
        if let (true, Some(kept)) = (gone.is_empty(), found.first()) {
            return Err(match kept.origin {
                Origin::Birth => ChangeError::Wrong(
                    "the administrator of the first start is one by birth".to_owned(),
                ),
                Origin::Visibility => ChangeError::Wrong(format!(
                    "{kept} by the visibility of {on}; change that with `wharf namespace set {on} private`"
                )),
                _ => ChangeError::ReadOnly(format!("{kept}: {}", kept.origin)),
            });
        }
        if gone.is_empty() {
            changer.needs(&policy, Permission::ManageBindings, &on, || {
                format!("revoke rights {}", place(&on))
            })?;
            let role = role.unwrap_or("any role");
            return Err(ChangeError::Unknown(format!(
                "{subject} does not have {role} {}; `wharf access list --who {subject}` shows what there is",
                place(&on)
            )));
        }
        Ok(gone)
    }

    /// Removes exactly this binding, whatever others of the same role there are.
    pub(crate) async fn revoke_one(
        &self,
        changer: Changer<'_>,
        binding: &Binding,
        at: i64,
    ) -> Result<Change, ChangeError> {
        let key = key(binding).ok_or_else(|| ChangeError::ReadOnly(binding.to_string()))?;
        self.change(changer, at, |policy, by| {
            let what = || format!("revoke rights {}", place(&binding.on));
            changer.needs(policy, Permission::ManageBindings, &binding.on, what)?;
            changer.holds(policy, binding.permissions, &binding.on)?;
            Ok(rows::binding::Delete {
                binding: key.clone(),
                by,
            })
        })
        .await
        .map_err(|failed| failed.or(|| format!("{binding} is no more")))
    }

    /// Takes everything from a name that nobody has: whoever gets the name later begins with nothing.
    pub(crate) async fn take_all(
        &self,
        kind: &str,
        name: &str,
        at: i64,
    ) -> Result<(), ChangeError> {
        let taken = self.change(Changer::Operator, at, |_, by| {
            Ok(rows::binding::DeleteOf {
                kind: kind.to_owned(),
                name: name.to_owned(),
                by,
            })
        });
        match taken.await {
            Ok(_) | Err(Failed::Unknown) => Ok(()),
            Err(Failed::Other(error)) => Err(error),
        }
    }

    /// Removes a user or robot with all that it holds, if it is the version that is meant; false: there is none.
    pub(crate) async fn remove_principal(
        &self,
        kind: &str,
        name: &str,
        version: &Meant,
        at: i64,
    ) -> Result<bool, ChangeError> {
        // What is taken from it in a step before the last is no part of its version.
        let gone = self.change(Changer::Operator, at, |_, by| {
            Ok(wharf_meta::credential::RemovePrincipal {
                name: name.to_owned(),
                kind: kind.to_owned(),
                version: version.clone(),
                by,
            })
        });
        match gone.await {
            Ok(_) => Ok(true),
            Err(Failed::Unknown) => Ok(false),
            Err(Failed::Other(error)) => Err(error),
        }
    }

    /// Runs a change under the rights that its maker has, and puts what came of it in force.
    pub(crate) async fn change<O: Op<Out = Changed>>(
        &self,
        changer: Changer<'_>,
        at: i64,
        make: impl Fn(&Policy, By) -> Result<O, ChangeError>,
    ) -> Result<Change, Failed> {
        let bound = matches!(changer, Changer::Caller(_));
        self.change_as(changer, at, bound, |_| true, make).await
    }

    /// As [`Access::change`], if the policy fits; `bound`: the first step is made under the epoch of that policy, or not at all.
    pub(crate) async fn change_as<O: Op<Out = Changed>>(
        &self,
        changer: Changer<'_>,
        at: i64,
        bound: bool,
        fits: impl Fn(&Policy) -> bool,
        make: impl Fn(&Policy, By) -> Result<O, ChangeError>,
    ) -> Result<Change, Failed> {
        let meta = self.rights.meta().map_err(ChangeError::Store)?;
        let mut made = false;
        let mut stale = 0;
        let outcome = loop {
            let policy = self.policy();
            let always = matches!(changer, Changer::Caller(_));
            let by = By {
                actor: changer.name().to_owned(),
                epoch: (always || bound && !made).then_some(policy.epoch()),
                at,
            };
            let op = make(&policy, by)?;
            if !made && !fits(&policy) {
                // Another replica may have made it what is meant, a moment ago.
                self.refresh().await?;
                if self.policy().epoch() == policy.epoch() || stale >= ATTEMPTS {
                    return Err(ChangeError::Differs.into());
                }
                stale += 1;
                continue;
            }
            match meta
                .write(op)
                .await
                .map_err(Error::from)
                .map_err(ChangeError::Store)?
            {
                Changed::More => {
                    made = true;
                    self.refresh().await?;
                }
                Changed::Stale if stale < ATTEMPTS => {
                    stale += 1;
                    self.refresh().await?;
                }
                outcome => break outcome,
            }
        };
        if outcome == Changed::Done || made {
            self.refresh().await?;
        }
        match outcome {
            Changed::Done | Changed::More => Ok(Change::Made),
            Changed::Same => Ok(Change::Same),
            Changed::Unknown if made => Ok(Change::Made),
            Changed::Unknown => Err(Failed::Unknown),
            Changed::Stale => Err(ChangeError::Busy.into()),
            Changed::Differs => Err(ChangeError::Differs.into()),
            Changed::InUse => Err(ChangeError::InUse(String::new()).into()),
            Changed::Last(path) => Err(ChangeError::Last(path).into()),
        }
    }

    /// Where rights can be changed.
    pub(crate) fn meta(&self) -> crate::Result<&wharf_meta::Meta> {
        self.rights.meta()
    }

    async fn refresh(&self) -> Result<(), Failed> {
        let refreshed = self.rights.refresh().await;
        refreshed.map_err(|error| Failed::Other(ChangeError::Store(error)))
    }
}

/// Why a change was not made, before the caller says what is unknown.
pub(crate) enum Failed {
    Unknown,
    Other(ChangeError),
}

impl Failed {
    pub(crate) fn or(self, unknown: impl FnOnce() -> String) -> ChangeError {
        match self {
            Self::Unknown => ChangeError::Unknown(unknown()),
            Self::Other(error) => error,
        }
    }
}

impl From<ChangeError> for Failed {
    fn from(error: ChangeError) -> Self {
        Self::Other(error)
    }
}

/// A path as it is kept.
pub(super) fn path(on: &str) -> Result<String, ChangeError> {
    match check_prefix(on) {
        Ok(on) => Ok(on.to_owned()),
        Err(error) => Err(ChangeError::Wrong(error.to_string())),
    }
}
