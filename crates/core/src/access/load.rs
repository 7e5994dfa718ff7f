//! Rights in rows, as the policy takes them: read whole, page by page, whenever the epoch is another one.

use wharf_meta::Meta;
use wharf_meta::access::binding::{Binding as Key, BindingRow};
use wharf_meta::access::{Epoch, binding, group, namespace, role};

use super::binding::{Binding, Conditions, Origin, Subject};
use super::principal::SignIn;
use super::role::{Permissions, Role};
use crate::error::{Error, Result};

/// Rows in one page.
const PAGE: u32 = 500;
/// How often rows that change while they are read are read again before the caller has to.
const ATTEMPTS: u32 = 10;

/// Who may read what lies in a namespace without any binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord, Hash)]
pub enum Visibility {
    /// Nobody.
    #[default]
    Private,
    /// Everybody who signed in.
    Internal,
    /// Everybody.
    Public,
}

/// A word that names no visibility.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no visibility; a namespace is private, internal or public")]
pub struct VisibilityError(String);

impl Visibility {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Private, Self::Internal, Self::Public];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Private => "private",
            Self::Internal => "internal",
            Self::Public => "public",
        }
    }

    fn reader(self) -> Option<Subject> {
        match self {
            Self::Private => None,
            Self::Internal => Some(Subject::SignedIn),
            Self::Public => Some(Subject::Anonymous),
        }
    }
}

impl std::str::FromStr for Visibility {
    type Err = VisibilityError;

    fn from_str(text: &str) -> Result<Self, VisibilityError> {
        let mut all = Self::ALL.into_iter();
        all.find(|one| one.as_str() == text)
            .ok_or_else(|| VisibilityError(text.into()))
    }
}

/// All rights that are rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rows {
    /// Their state.
    pub(crate) epoch: i64,
    /// Groups with members, as pairs.
    pub(crate) members: Vec<(String, Subject)>,
    /// Bindings, those that visibility stands for too.
    pub(crate) bindings: Vec<Binding>,
    /// Roles beside those that are built in.
    pub(crate) roles: Vec<(String, Permissions)>,
    /// Groups, those without members too.
    pub(crate) groups: Vec<String>,
    /// Namespaces with settings.
    pub(crate) namespaces: Vec<(String, Visibility)>,
}

impl Rows {
    /// Reads all rows as of one epoch.
    pub(crate) async fn load(meta: &Meta) -> Result<Self> {
        #[cfg(test)]
        loads::LOADS.with(|loads| loads.set(loads.get() + 1));
        for _ in 0..ATTEMPTS {
            let epoch = meta.read(Epoch).await?;
            let rows = Self::pages(meta, epoch).await?;
            if meta.read(Epoch).await? == epoch {
                return Ok(rows);
            }
        }
        Err(Error::Internal(
            "the rights change faster than they can be read".into(),
        ))
    }

    async fn pages(meta: &Meta, epoch: i64) -> Result<Self> {
        let mut rows = Self {
            epoch,
            ..Self::default()
        };
        if epoch == 0 {
            return Ok(rows);
        }
        let limit = PAGE;
        let mut after = String::new();
        loop {
            let page = meta.scan(role::List { after, limit }).await?;
            let Some(last) = page.last() else { break };
            after = last.name.clone();
            for row in page {
                // A permission that is not known gives nothing; the others of the role stand.
                let words = row.permissions.split(',');
                let known = words.filter_map(|word| word.parse().ok()).collect();
                rows.roles.push((row.name, known));
            }
        }
        let mut after = String::new();
        loop {
            let page = meta.scan(group::List { after, limit }).await?;
            let Some(last) = page.last() else { break };
            after = last.name.clone();
            rows.groups.extend(page.into_iter().map(|row| row.name));
        }
        let mut after = None;
        loop {
            let page = meta.scan(group::Members { after, limit }).await?;
            after = page.last().cloned();
            if after.is_none() {
                break;
            }
            rows.members.extend(
                page.into_iter()
                    .filter_map(|row| Some((row.group, Subject::from_row(&row.kind, &row.name)?))),
            );
        }
        let mut after = String::new();
        loop {
            let page = meta.scan(namespace::List { after, limit }).await?;
            let Some(last) = page.last() else { break };
            after = last.path.clone();
            for row in page {
                // What is not known is closed.
                let visibility = row.visibility.parse().unwrap_or_default();
                rows.open(&row.path, visibility);
                rows.namespaces.push((row.path, visibility));
            }
        }
        let mut after = None;
        loop {
            let page = meta.scan(binding::List { after, limit }).await?;
            after = page.last().map(|row| row.binding.clone());
            if after.is_none() {
                break;
            }
            for row in page {
                match rows.read(&row) {
                    Some(binding) => rows.bindings.push(binding),
                    None => tracing::warn!(
                        namespace = row.binding.namespace,
                        kind = row.binding.kind,
                        role = row.binding.role,
                        "a binding says something that this version does not know; it gives nothing"
                    ),
                }
            }
        }
        Ok(rows)
    }

    fn open(&mut self, path: &str, visibility: Visibility) {
        if let Some(subject) = visibility.reader() {
            self.bindings.push(Binding {
                subject,
                role: Role::Reader.to_string(),
                permissions: Role::Reader.permissions(),
                on: path.to_owned(),
                conditions: Conditions::default(),
                origin: Origin::Visibility,
            });
        }
    }

    /// What a role is made of, if there is one of that name.
    pub(crate) fn role(&self, name: &str) -> Option<Permissions> {
        match name.parse::<Role>() {
            Ok(role) => Some(role.permissions()),
            Err(_) => self
                .roles
                .iter()
                .find(|(known, _)| known == name)
                .map(|(_, permissions)| *permissions),
        }
    }

    fn read(&self, row: &BindingRow) -> Option<Binding> {
        let key = &row.binding;
        Some(Binding {
            subject: Subject::from_row(&key.kind, &key.name)?,
            role: key.role.clone(),
            permissions: self.role(&key.role)?,
            on: key.namespace.clone(),
            conditions: conditions(key)?,
            origin: Origin::Granted {
                by: row.created_by.clone(),
                at: row.created_at,
            },
        })
    }
}

fn conditions(key: &Key) -> Option<Conditions> {
    let networks = key.networks.split(',').filter(|text| !text.is_empty());
    let sign_in = |text: &str| SignIn::ALL.into_iter().find(|one| one.as_str() == text);
    Some(Conditions {
        expires_at: (key.expires_at != 0).then_some(key.expires_at),
        networks: networks.map(str::parse).collect::<Result<_, _>>().ok()?,
        tags: match &*key.tags {
            "" => None,
            pattern => Some(pattern.parse().ok()?),
        },
        sign_in: match &*key.sign_in {
            "" => None,
            text => Some(sign_in(text)?),
        },
    })
}

/// The row of a binding; `None` for one that only configuration or birth can make.
pub(crate) fn key(binding: &Binding) -> Option<Key> {
    let (kind, name) = binding.subject.row()?;
    let conditions = &binding.conditions;
    let mut networks: Vec<String> = conditions
        .networks
        .iter()
        .map(ToString::to_string)
        .collect();
    networks.sort_unstable();
    networks.dedup();
    Some(Key {
        namespace: binding.on.clone(),
        kind: kind.into(),
        name: name.into(),
        role: binding.role.clone(),
        networks: networks.join(","),
        tags: conditions
            .tags
            .as_ref()
            .map_or_else(String::new, ToString::to_string),
        sign_in: conditions.sign_in.map_or("", SignIn::as_str).into(),
        expires_at: conditions.expires_at.unwrap_or(0),
    })
}

/// Counts how often this thread reads all rows.
#[cfg(test)]
pub(super) mod loads {
    use std::cell::Cell;

    thread_local! {
        pub(in super::super) static LOADS: Cell<usize> = const { Cell::new(0) };
    }
}
