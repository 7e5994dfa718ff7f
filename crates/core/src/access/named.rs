//! Changing what has a name: groups and who is in them, roles, namespaces.
//!
//! Each change can be meant for one version of the thing ([`super::version`]); then it is made of that one, or not at all.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};

use wharf_meta::Meant;
use wharf_meta::access as rows;
use wharf_meta::access::group::Member;

use super::binding::{Subject, check_word};
use super::change::{Change, ChangeError, Changer, Failed, path};
use super::load::Visibility;
use super::policy::Policy;
use super::role::{Permission, Permissions, Role};
use super::version::{Set, namespace_version, role_version};
use super::{Access, GroupView};

impl Access {
    /// Makes a group, or removes it with its bindings. For administrators.
    pub async fn set_group(
        &self,
        changer: Changer<'_>,
        name: &str,
        there: bool,
        at: i64,
    ) -> Result<Change, ChangeError> {
        let set = self.group(changer, name, there, &Meant::Any, false, at);
        Ok(set.await?.change)
    }

    /// As [`Access::set_group`], if the group is still the one that is meant.
    pub async fn set_group_if(
        &self,
        changer: Changer<'_>,
        name: &str,
        there: bool,
        meant: &Meant,
        at: i64,
    ) -> Result<Set, ChangeError> {
        self.group(changer, name, there, meant, true, at).await
    }

    async fn group(
        &self,
        changer: Changer<'_>,
        name: &str,
        there: bool,
        meant: &Meant,
        bound: bool,
        at: i64,
    ) -> Result<Set, ChangeError> {
        word("group", name)?;
        let before = AtomicI64::new(0);
        let change = if there {
            let fits = |policy: &Policy| {
                let version = policy.version_of_group(name);
                before.store(version.unwrap_or(0), Ordering::Relaxed);
                meant.fits(version)
            };
            self.change_as(changer, at, bound, fits, |policy, by| {
                changer.needs(policy, Permission::Admin, "", || "make groups".into())?;
                let name = name.to_owned();
                Ok(rows::group::Create { name, by })
            })
            .await
        } else {
            let fits = |policy: &Policy| goes(meant, policy.version_of_group(name));
            self.change_as(changer, at, bound, fits, |policy, by| {
                changer.needs(policy, Permission::Admin, "", || "remove groups".into())?;
                changer.holds_of(policy, &Subject::Group(name.to_owned()))?;
                let name = name.to_owned();
                Ok(rows::group::Delete { name, by })
            })
            .await
        };
        let change = change.map_err(|failed| failed.or(|| no_group(name)))?;
        let version = match (there, change) {
            (false, _) => None,
            (true, Change::Made) => Some(GroupView::empty(name).version()),
            (true, Change::Same) => Some(before.into_inner()),
        };
        Ok(Set { change, version })
    }

    /// Puts somebody into a group, or takes them out. For administrators who hold what the group holds: who puts somebody in gives it.
    pub async fn set_member(
        &self,
        changer: Changer<'_>,
        group: &str,
        subject: &Subject,
        within: bool,
        at: i64,
    ) -> Result<Change, ChangeError> {
        let set = self.member(changer, group, subject, within, &Meant::Any, false, at);
        Ok(set.await?.change)
    }

    /// As [`Access::set_member`], if the group is still the one that is meant.
    pub async fn set_member_if(
        &self,
        changer: Changer<'_>,
        group: &str,
        subject: &Subject,
        within: bool,
        meant: &Meant,
        at: i64,
    ) -> Result<Set, ChangeError> {
        let set = self.member(changer, group, subject, within, meant, true, at);
        set.await
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "those of a change, and what it is meant for"
    )]
    async fn member(
        &self,
        changer: Changer<'_>,
        group: &str,
        subject: &Subject,
        within: bool,
        meant: &Meant,
        bound: bool,
        at: i64,
    ) -> Result<Set, ChangeError> {
        word("group", group)?;
        let (Subject::User(_) | Subject::Robot(_) | Subject::Workload(_), Some((kind, name))) =
            (subject, subject.row())
        else {
            return Err(ChangeError::Wrong(format!(
                "{subject} cannot be in a group; users, robots and rules on workloads can"
            )));
        };
        if within {
            self.knows(subject)?;
        }
        let member = Member {
            group: group.to_owned(),
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        let who = || format!("change who is in group {group}");
        let held = Subject::Group(group.to_owned());
        let after = AtomicI64::new(0);
        let fits = |policy: &Policy| {
            let view = policy.group_view(group);
            let mut view = view.unwrap_or_else(|| GroupView::empty(group));
            view.members.retain(|one| *one != subject.to_string());
            view.members.extend(within.then(|| subject.to_string()));
            after.store(view.version(), Ordering::Relaxed);
            goes(meant, policy.version_of_group(group))
        };
        let change = if within {
            self.change_as(changer, at, bound, fits, |policy, by| {
                changer.needs(policy, Permission::Admin, "", who)?;
                changer.holds_of(policy, &held)?;
                let member = member.clone();
                Ok(rows::group::Add { member, by })
            })
            .await
        } else {
            self.change_as(changer, at, bound, fits, |policy, by| {
                changer.needs(policy, Permission::Admin, "", who)?;
                changer.holds_of(policy, &held)?;
                let member = member.clone();
                Ok(rows::group::Remove { member, by })
            })
            .await
        };
        let change = change.map_err(|failed| {
            failed.or(|| match within {
                true => {
                    format!("there is no group {group}; make it with `wharf group create {group}`")
                }
                false => format!("{subject} is not in group {group}"),
            })
        })?;
        Ok(Set {
            change,
            version: Some(after.into_inner()),
        })
    }

    /// Lets whoever is in a provider's group be in a group here, `<provider>:<group>`, or no longer. For administrators
    /// who hold what the group holds.
    pub async fn set_source(
        &self,
        changer: Changer<'_>,
        group: &str,
        source: &str,
        there: bool,
        at: i64,
    ) -> Result<Change, ChangeError> {
        let set = self.outside(changer, group, source, there, &Meant::Any, at);
        Ok(set.await?.change)
    }

    /// As [`Access::set_source`], if the group is still the one that is meant.
    pub async fn set_source_if(
        &self,
        changer: Changer<'_>,
        group: &str,
        source: &str,
        there: bool,
        meant: &Meant,
        at: i64,
    ) -> Result<Set, ChangeError> {
        self.outside(changer, group, source, there, meant, at).await
    }

    /// Who comes by a source is known when it is there, so what the group is then is not told.
    async fn outside(
        &self,
        changer: Changer<'_>,
        group: &str,
        source: &str,
        there: bool,
        meant: &Meant,
        at: i64,
    ) -> Result<Set, ChangeError> {
        word("group", group)?;
        let (provider, name) = self.source(source, there)?;
        let source = rows::source::Source {
            group: group.to_owned(),
            provider,
            name,
        };
        let bound = *meant != Meant::Any;
        let fits = |policy: &Policy| goes(meant, policy.version_of_group(group));
        let what = || format!("change who is in group {group}");
        let held = Subject::Group(group.to_owned());
        let changed = if there {
            self.change_as(changer, at, bound, fits, |policy, by| {
                changer.needs(policy, Permission::Admin, "", what)?;
                changer.holds_of(policy, &held)?;
                let source = source.clone();
                Ok(rows::source::Put { source, by })
            })
            .await
        } else {
            self.change_as(changer, at, bound, fits, |policy, by| {
                changer.needs(policy, Permission::Admin, "", what)?;
                changer.holds_of(policy, &held)?;
                let source = source.clone();
                Ok(rows::source::Delete { source, by })
            })
            .await
        };
        let change = changed.map_err(|failed| match failed {
            Failed::Other(ChangeError::InUse(_)) => ChangeError::Conflict(format!(
                "group {group} has {} sources, which is the most; take one away first, or use two groups",
                rows::source::MOST_SOURCES
            )),
            failed => failed.or(|| match there {
                true => {
                    format!("there is no group {group}; make it with `wharf group create {group}`")
                }
                false => format!("group {group} has no such source"),
            }),
        })?;
        Ok(Set {
            change,
            version: None,
        })
    }

    /// The provider and the group of a source. One that is to go may be of a provider that went.
    pub(crate) fn source(&self, text: &str, there: bool) -> Result<(String, String), ChangeError> {
        let parts = text.split_once(':');
        let parts = parts.filter(|(_, name)| {
            !name.is_empty()
                && name.len() <= crate::identity::LONGEST_GROUP
                && !name.chars().any(char::is_control)
        });
        let Some((provider, name)) = parts else {
            return Err(ChangeError::Wrong(format!(
                "source {text:?}: write it as PROVIDER:GROUP, such as corp:developers"
            )));
        };
        if there {
            self.knows_provider(provider)?;
        }
        Ok((provider.to_owned(), name.to_owned()))
    }

    /// The provider of that name.
    pub(crate) fn knows_provider(&self, name: &str) -> Result<super::Provider, ChangeError> {
        let all = self.providers();
        if let Some(provider) = all.iter().find(|one| one.name == name) {
            return Ok(provider.clone());
        }
        let names: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
        let known = match names.is_empty() {
            true => "the configuration names none".to_owned(),
            false => format!("the configuration names {}", names.join(", ")),
        };
        Err(ChangeError::Unknown(format!(
            "there is no provider {name:?}; {known}"
        )))
    }

    /// Makes a role of these permissions, or changes it wherever it is bound; `None` removes it. For administrators
    /// who hold all of it, as it is and as it shall be, where it is bound.
    pub async fn set_role(
        &self,
        changer: Changer<'_>,
        name: &str,
        permissions: Option<Permissions>,
        at: i64,
    ) -> Result<Change, ChangeError> {
        let set = self.set_role_if(changer, name, permissions, &Meant::Any, at);
        Ok(set.await?.change)
    }

    /// As [`Access::set_role`], if the role is still the one that is meant.
    pub async fn set_role_if(
        &self,
        changer: Changer<'_>,
        name: &str,
        permissions: Option<Permissions>,
        meant: &Meant,
        at: i64,
    ) -> Result<Set, ChangeError> {
        check_role(name, permissions)?;
        // Under the epoch always: what everybody holds is looked up.
        let bound = true;
        let what = || "change roles".to_owned();
        let change = match permissions {
            Some(permissions) => {
                let fits = |policy: &Policy| meant.fits(policy.version_of_role(name));
                self.change_as(changer, at, bound, fits, |policy, by| {
                    changer.needs(policy, Permission::Admin, "", what)?;
                    gives_role(changer, policy, name, permissions)?;
                    Ok(rows::role::Put {
                        name: name.to_owned(),
                        permissions: permissions.to_string(),
                        by,
                    })
                })
                .await
            }
            None => {
                let fits = |policy: &Policy| goes(meant, policy.version_of_role(name));
                self.change_as(changer, at, bound, fits, |policy, by| {
                    changer.needs(policy, Permission::Admin, "", what)?;
                    let name = name.to_owned();
                    Ok(rows::role::Delete { name, by })
                })
                .await
            }
        };
        let change = change.map_err(|failed| match failed {
            Failed::Other(ChangeError::InUse(_)) => ChangeError::InUse(name.to_owned()),
            failed => failed.or(|| format!("there is no role {name}")),
        })?;
        let version = permissions.map(|permissions| role_version(name, permissions));
        Ok(Set { change, version })
    }

    /// Makes a namespace, or changes its visibility.
    pub async fn set_namespace(
        &self,
        changer: Changer<'_>,
        on: &str,
        visibility: Visibility,
        at: i64,
    ) -> Result<Change, ChangeError> {
        let set = self.set_namespace_if(changer, on, visibility, &Meant::Any, at);
        Ok(set.await?.change)
    }

    /// As [`Access::set_namespace`], if its settings are still those that are meant.
    pub async fn set_namespace_if(
        &self,
        changer: Changer<'_>,
        on: &str,
        visibility: Visibility,
        meant: &Meant,
        at: i64,
    ) -> Result<Set, ChangeError> {
        let on = below(on)?;
        let bound = *meant != Meant::Any;
        let fits = |policy: &Policy| meant.fits(policy.version_of_namespace(&on));
        let change = self.change_as(changer, at, bound, fits, |policy, by| {
            let what = || format!("change the settings of {on}");
            changer.needs(policy, Permission::ManageSettings, &on, what)?;
            if visibility != Visibility::Private {
                changer.holds(policy, Role::Reader.permissions(), &on)?;
            }
            Ok(rows::namespace::Put {
                path: on.clone(),
                visibility: visibility.as_str().to_owned(),
                by,
            })
        });
        let change = change.await;
        let change =
            change.map_err(|failed| failed.or(|| format!("there is no namespace {on}")))?;
        Ok(Set {
            change,
            version: Some(namespace_version(&on, visibility)),
        })
    }

    /// Removes a namespace with its settings and the bindings on exactly its path; its repositories stay. For administrators
    /// of what lies above.
    pub async fn remove_namespace(
        &self,
        changer: Changer<'_>,
        on: &str,
        at: i64,
    ) -> Result<Change, ChangeError> {
        self.remove_namespace_if(changer, on, &Meant::Any, at).await
    }

    /// As [`Access::remove_namespace`], if its settings are still those that are meant.
    pub async fn remove_namespace_if(
        &self,
        changer: Changer<'_>,
        on: &str,
        meant: &Meant,
        at: i64,
    ) -> Result<Change, ChangeError> {
        let on = below(on)?;
        let above = on.rsplit_once('/').map_or("", |(above, _)| above);
        let bound = *meant != Meant::Any;
        let fits = |policy: &Policy| goes(meant, policy.version_of_namespace(&on));
        let change = self.change_as(changer, at, bound, fits, |policy, by| {
            let what = || format!("remove namespace {on}");
            changer.needs(policy, Permission::Admin, above, what)?;
            let rows = policy
                .bindings()
                .filter(|one| one.on == on && one.origin.is_row());
            changer.holds_all(policy, rows)?;
            let path = on.clone();
            Ok(rows::namespace::Delete { path, by })
        });
        change.await.map_err(|failed| {
            failed.or(|| format!("there is no namespace {on}, and no grant on it"))
        })
    }
}

/// Whether a role can be called so, and be made of that; `None`: it goes.
pub(super) fn check_role(name: &str, permissions: Option<Permissions>) -> Result<(), ChangeError> {
    word("role", name)?;
    if name.parse::<Role>().is_ok() {
        return Err(ChangeError::Wrong(format!(
            "role {name} is built in and stays as it is; take another name"
        )));
    }
    if permissions == Some(Permissions::NONE) {
        return Err(ChangeError::Wrong(format!(
            "role {name} needs at least one permission; `wharf role list` shows them all"
        )));
    }
    Ok(())
}

/// A role that everybody holds must not become more than everybody may be.
fn fits_everybody(
    policy: &Policy,
    name: &str,
    permissions: Permissions,
) -> Result<(), ChangeError> {
    if permissions.within(Role::Maintainer.permissions()) {
        return Ok(());
    }
    let mut bound = policy.bindings().filter(|one| one.role == name);
    let open = bound.find(|one| {
        matches!(one.subject, Subject::Anonymous | Subject::SignedIn)
            || one.conditions.tags.is_some()
    });
    match open {
        Some(binding) => Err(ChangeError::Wrong(format!(
            "{binding}, and there the role cannot hold more than maintainer does; revoke that first"
        ))),
        None => Ok(()),
    }
}

/// Whoever has the role gets what is new in it and loses what is not, so that must be had; and everybody may get it.
pub(super) fn gives_role(
    changer: Changer<'_>,
    policy: &Policy,
    name: &str,
    permissions: Permissions,
) -> Result<(), ChangeError> {
    fits_everybody(policy, name, permissions)?;
    let before = policy.role(name).unwrap_or_default();
    let other = permissions.without(before) | before.without(permissions);
    if changer.holds(policy, other, "").is_ok() {
        return Ok(());
    }
    let bound = policy.bindings().filter(|one| one.role == name);
    let places: BTreeSet<&str> = bound.map(|one| one.on.as_str()).collect();
    places
        .into_iter()
        .try_for_each(|on| changer.holds(policy, other, on))
}

/// A path that is not everywhere.
fn below(on: &str) -> Result<String, ChangeError> {
    let on = path(on)?;
    if on.is_empty() {
        let text = "a namespace needs a path such as team/a";
        return Err(ChangeError::Wrong(text.to_owned()));
    }
    Ok(on)
}

fn word(what: &str, name: &str) -> Result<(), ChangeError> {
    check_word(name).map_err(|reason| ChangeError::Wrong(format!("{what} {name:?}: {reason}")))
}

fn no_group(name: &str) -> String {
    format!("there is no group {name}")
}

/// Whether something may go that has this version: where there is nothing, that is what is said, whatever is meant.
fn goes(meant: &Meant, version: Option<i64>) -> bool {
    version.is_none() || meant.fits(version)
}
