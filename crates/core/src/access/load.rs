//! Rights in rows, as the policy takes them: read whole, page by page, at the start and where it is not known what changed; and
//! else by the parts that did.

use wharf_meta::Meta;
use wharf_meta::access::binding::{Binding as Key, BindingRow};
use wharf_meta::access::change::{Part, Since};
use wharf_meta::access::{Epoch, GROUP, account, binding, group, namespace, role, source};

use super::Provider;
use super::binding::{Binding, Conditions, Origin, Subject};
use super::policy::Policy;
use super::principal::SignIn;
use super::role::Permissions;
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

    pub(super) fn reader(self) -> Option<Subject> {
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
    /// When that was made, if that is known.
    pub(crate) mark: Option<i64>,
    /// Groups with members, as pairs.
    pub(crate) members: Vec<(String, Subject)>,
    /// Bindings; those that visibility stands for are no rows.
    pub(crate) bindings: Vec<Binding>,
    /// Roles beside those that are built in.
    pub(crate) roles: Vec<(String, Permissions)>,
    /// Groups, those without members too.
    pub(crate) groups: Vec<String>,
    /// Namespaces with settings.
    pub(crate) namespaces: Vec<(String, Visibility)>,
    /// Groups with the groups of providers that lead to them: provider, name.
    pub(crate) sources: Vec<(String, GroupOutside)>,
    /// Groups with whom such a group leads to them, and those of administrators from outside, as pairs.
    pub(crate) outside: Vec<(String, Subject)>,
}

/// A provider's group: the provider, and its name there.
pub(crate) type GroupOutside = (String, String);

impl Rows {
    /// Reads all rows as of one epoch.
    pub(crate) async fn load(meta: &Meta, providers: &[Provider]) -> Result<Self> {
        #[cfg(test)]
        loads::LOADS.with(|loads| loads.set(loads.get() + 1));
        for _ in 0..ATTEMPTS {
            let epoch = meta.read(Epoch).await?;
            let rows = Self::pages(meta, epoch, providers).await?;
            if meta.read(Epoch).await? == epoch {
                return Ok(rows);
            }
        }
        Err(Error::Internal(
            "the rights change faster than they can be read".into(),
        ))
    }

    async fn pages(meta: &Meta, epoch: i64, providers: &[Provider]) -> Result<Self> {
        let mut rows = Self {
            epoch,
            ..Self::default()
        };
        // Accounts that were told to be in these count, though no change of rights was seen in that when it was told.
        for provider in providers {
            if let (Some(name), Some(group)) = (&provider.admin_group, provider.admins()) {
                let users = users_in(meta, &provider.name, name, None).await?;
                let users = users.unwrap_or_default().into_iter();
                rows.outside.extend(users.map(|who| (group.clone(), who)));
            }
        }
        if epoch == 0 {
            return Ok(rows);
        }
        let since = Since { epoch, limit: 1 };
        let last = meta.scan(since).await?.into_iter().next();
        rows.mark = last.filter(|last| last.epoch == epoch).map(|last| last.at);
        let limit = PAGE;
        let mut after = String::new();
        loop {
            let page = meta.scan(role::List { after, limit }).await?;
            let Some(last) = page.last() else { break };
            after = last.name.clone();
            for row in page {
                rows.roles.push((row.name, known(&row.permissions)));
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
        let mut after = None;
        loop {
            let page = meta.scan(source::List { after, limit }).await?;
            after = page.last().cloned();
            if after.is_none() {
                break;
            }
            for one in page {
                let users = users_in(meta, &one.provider, &one.name, None).await?;
                let users = users.unwrap_or_default().into_iter();
                rows.outside
                    .extend(users.map(|who| (one.group.clone(), who)));
                rows.sources.push((one.group, (one.provider, one.name)));
            }
        }
        let mut after = String::new();
        loop {
            let page = meta.scan(namespace::List { after, limit }).await?;
            let Some(last) = page.last() else { break };
            after = last.path.clone();
            for row in page {
                // What is not known is closed.
                let visibility = row.visibility.parse().unwrap_or_default();
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
                let binding = read(&row, &rows.roles);
                rows.bindings.extend(binding);
            }
        }
        Ok(rows)
    }
}

/// The users whose accounts are in a provider's group; `None`: these are more than the limit.
async fn users_in(
    meta: &Meta,
    provider: &str,
    name: &str,
    most: Option<usize>,
) -> Result<Option<Vec<Subject>>> {
    let mut users = Vec::new();
    let mut after = String::new();
    loop {
        let page = account::InGroup {
            provider: provider.to_owned(),
            name: name.to_owned(),
            after,
            limit: PAGE,
        };
        let page = meta.scan(page).await?;
        let Some((last, _)) = page.last() else {
            return Ok(Some(users));
        };
        after = last.clone();
        users.extend(page.into_iter().map(|(_, user)| Subject::User(user)));
        if most.is_some_and(|most| users.len() > most) {
            return Ok(None);
        }
    }
}

/// A permission that is not known gives nothing; the others of the role stand.
fn known(permissions: &str) -> Permissions {
    let words = permissions.split(',');
    words.filter_map(|word| word.parse().ok()).collect()
}

/// A binding, if this version knows what it says.
fn read(row: &BindingRow, roles: &[(String, Permissions)]) -> Option<Binding> {
    let key = &row.binding;
    let binding = || {
        Some(Binding {
            subject: Subject::from_row(&key.kind, &key.name)?,
            role: key.role.clone(),
            permissions: super::compile::role(roles, &key.role)?,
            on: key.namespace.clone(),
            conditions: conditions(key)?,
            origin: Origin::Granted {
                by: row.created_by.clone(),
                at: row.created_at,
            },
        })
    };
    let binding = binding();
    if binding.is_none() {
        tracing::warn!(
            namespace = key.namespace,
            kind = key.kind,
            role = key.role,
            "a binding says something that this version does not know; it gives nothing"
        );
    }
    binding
}

/// Entries of changes that are looked at at most, and rows of one part: where more changed, everything is read.
const MOST: usize = 500;

/// A part of the rights as it is now.
#[derive(Debug)]
pub(super) enum Read {
    /// A role that is bound nowhere, and what it is made of, if it is there.
    Role(String, Option<Permissions>),
    /// A group, if it is there.
    Group(String, Option<GroupRead>),
    /// The groups that somebody is in, and those to which accounts lead.
    GroupsOf(Subject, Vec<String>, Vec<String>),
    /// Whether somebody is in a group.
    Member(String, Subject, bool),
    /// The settings of a namespace, if it has some.
    Visibility(String, Option<Visibility>),
    /// All bindings of a subject.
    BindingsOf(Subject, Vec<Binding>),
    /// All bindings on exactly one path, or those of one subject.
    BindingsOn(String, Option<Subject>, Vec<Binding>),
}

/// What makes a group.
#[derive(Debug, Default)]
pub(super) struct GroupRead {
    pub(super) members: Vec<Subject>,
    pub(super) sources: Vec<GroupOutside>,
    /// Whom a source leads to it.
    pub(super) outside: Vec<Subject>,
}

/// What changed since a state that is known.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) epoch: i64,
    pub(super) mark: i64,
    pub(super) parts: Vec<Read>,
}

impl Changes {
    /// Reads what changed since the policy's state; `None` where that is not known, or too much.
    pub(super) async fn load(
        meta: &Meta,
        policy: &Policy,
        providers: &[Provider],
    ) -> Result<Option<Self>> {
        let Some(mark) = policy.mark.filter(|_| !policy.is_worn()) else {
            return Ok(None);
        };
        let first = policy.epoch();
        for _ in 0..ATTEMPTS {
            let epoch = meta.read(Epoch).await?;
            let since = Since {
                epoch: first,
                limit: MOST as u32 + 1,
            };
            let entries = meta.scan(since).await?;
            // The state that is known is one of this past.
            let ours = entries.iter().take_while(|entry| entry.epoch == first);
            if ours.clone().count() == 0 || !ours.clone().all(|entry| entry.at == mark) {
                return Ok(None);
            }
            let mut parts: Vec<Part> = Vec::new();
            let (mut last, mut mark) = (first, mark);
            for entry in entries
                .iter()
                .filter(|one| first < one.epoch && one.epoch <= epoch)
            {
                if entry.epoch > last + 1 {
                    return Ok(None);
                }
                (last, mark) = (entry.epoch, entry.at);
                parts.push(entry.part.clone());
            }
            if last != epoch || entries.len() > MOST {
                return Ok(None);
            }
            // Roles come first, since bindings are read by them.
            parts.sort_unstable();
            parts.dedup();
            let mut reader = Reader {
                meta,
                providers,
                roles: policy.roles.to_vec(),
                parts: Vec::new(),
            };
            let mut whole = true;
            for part in parts {
                whole = reader.take(part).await?.is_some();
                if !whole {
                    break;
                }
            }
            if meta.read(Epoch).await? == epoch {
                let parts = reader.parts;
                let changes = Self { epoch, mark, parts };
                return Ok(whole.then_some(changes));
            }
        }
        Ok(None)
    }
}

/// Reads parts, `None` where one is too much.
struct Reader<'a> {
    meta: &'a Meta,
    providers: &'a [Provider],
    roles: Vec<(String, Permissions)>,
    parts: Vec<Read>,
}

impl Reader<'_> {
    async fn take(&mut self, part: Part) -> Result<Option<()>> {
        let limit = MOST as u32 + 1;
        match part {
            Part::All => return Ok(None),
            Part::Role(name) => {
                let role = role::Get { name: name.clone() };
                // What is bound changes wherever it is.
                let (permissions, false) = self.meta.read(role).await? else {
                    return Ok(None);
                };
                let permissions = permissions.as_deref().map(known);
                self.roles.retain(|(known, _)| *known != name);
                self.parts.push(Read::Role(name, permissions));
            }
            Part::Subject { kind, name } => {
                let Some(subject) = Subject::from_row(&kind, &name) else {
                    return Ok(Some(()));
                };
                if kind == GROUP {
                    let group = name.clone();
                    let members = self.meta.scan(group::In { group, limit }).await?;
                    if members.as_ref().is_some_and(|all| all.len() > MOST) {
                        return Ok(None);
                    }
                    let read = match members {
                        None => None,
                        Some(all) => {
                            let all = all.iter();
                            let members =
                                all.filter_map(|one| Subject::from_row(&one.kind, &one.name));
                            let mut read = GroupRead {
                                members: members.collect(),
                                ..GroupRead::default()
                            };
                            let group = name.clone();
                            for one in self.meta.scan(source::Of { group }).await? {
                                let users =
                                    users_in(self.meta, &one.provider, &one.name, Some(MOST));
                                let Some(users) = users.await? else {
                                    return Ok(None);
                                };
                                read.outside.extend(users);
                                read.sources.push((one.provider, one.name));
                            }
                            Some(read)
                        }
                    };
                    self.parts.push(Read::Group(name.clone(), read));
                } else {
                    let of = group::Of {
                        kind: kind.clone(),
                        name: name.clone(),
                        limit,
                    };
                    let groups = self.meta.scan(of).await?;
                    if groups.len() > MOST {
                        return Ok(None);
                    }
                    let Some(outside) = self.outside(&kind, &name).await? else {
                        return Ok(None);
                    };
                    let read = Read::GroupsOf(subject.clone(), groups, outside);
                    self.parts.push(read);
                }
                let rows = self.meta.scan(binding::Of { kind, name, limit }).await?;
                let Some(rows) = self.bindings(&rows) else {
                    return Ok(None);
                };
                self.parts.push(Read::BindingsOf(subject, rows));
            }
            Part::Member(member) => {
                let Some(who) = Subject::from_row(&member.kind, &member.name) else {
                    return Ok(Some(()));
                };
                let group = member.group.clone();
                let there = self.meta.read(group::Has { member }).await?;
                self.parts.push(Read::Member(group, who, there));
            }
            Part::Visibility(path) => self.visibility(path).await?,
            Part::Namespace(path) => {
                self.visibility(path.clone()).await?;
                return self.on(path, None).await;
            }
            Part::Bindings {
                namespace,
                kind,
                name,
            } => return self.on(namespace, Some((kind, name))).await,
        }
        Ok(Some(()))
    }

    /// The groups to which accounts lead somebody; `None`: too many.
    async fn outside(&self, kind: &str, name: &str) -> Result<Option<Vec<String>>> {
        if kind != "user" {
            return Ok(Some(Vec::new()));
        }
        let of = account::GroupsOf {
            user: name.to_owned(),
            limit: MOST as u32 + 1,
        };
        let mut groups = self.meta.scan(of).await?;
        if groups.len() > MOST {
            return Ok(None);
        }
        for provider in self.providers {
            let (Some(admins), Some(group)) = (&provider.admin_group, provider.admins()) else {
                continue;
            };
            let is_in = account::IsIn {
                user: name.to_owned(),
                provider: provider.name.clone(),
                name: admins.clone(),
            };
            if self.meta.read(is_in).await? {
                groups.push(group);
            }
        }
        Ok(Some(groups))
    }

    async fn visibility(&mut self, path: String) -> Result<()> {
        let get = namespace::Get { path: path.clone() };
        let visibility = self.meta.read(get).await?;
        // What is not known is closed.
        let visibility = visibility.map(|word| word.parse().unwrap_or_default());
        self.parts.push(Read::Visibility(path, visibility));
        Ok(())
    }

    async fn on(&mut self, path: String, subject: Option<(String, String)>) -> Result<Option<()>> {
        let on = binding::On {
            namespace: path.clone(),
            subject: subject.clone(),
            limit: MOST as u32 + 1,
        };
        let rows = self.meta.scan(on).await?;
        let Some(rows) = self.bindings(&rows) else {
            return Ok(None);
        };
        let subject = match subject {
            None => None,
            Some((kind, name)) => match Subject::from_row(&kind, &name) {
                Some(subject) => Some(subject),
                None => return Ok(Some(())),
            },
        };
        self.parts.push(Read::BindingsOn(path, subject, rows));
        Ok(Some(()))
    }

    fn bindings(&self, rows: &[BindingRow]) -> Option<Vec<Binding>> {
        #[cfg(test)]
        loads::ROWS.with(|all| all.set(all.get() + rows.len()));
        let rows = (rows.len() <= MOST).then_some(rows)?;
        Some(
            rows.iter()
                .filter_map(|row| read(row, &self.roles))
                .collect(),
        )
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
        /// Bindings that were read in parts.
        pub(in super::super) static ROWS: Cell<usize> = const { Cell::new(0) };
    }
}
