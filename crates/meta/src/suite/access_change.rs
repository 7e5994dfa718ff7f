//! What changes of rights were about: whoever takes the parts that are named has the rights that are there.

use std::collections::{BTreeMap, BTreeSet};

use super::NOW;
use crate::access::binding::{self, Binding};
use crate::access::change::{Entry, KEPT, MOST_PARTS, Part, Since};
use crate::access::group::{self, Member};
use crate::access::{By, Changed, Epoch, GROUP, STEP, namespace, role};
use crate::{Error, Meta, Op, setting};

const ALL: u32 = 10_000;

fn by() -> By {
    By {
        actor: "root".into(),
        epoch: None,
        at: NOW,
    }
}

fn bound(kind: &str, name: &str, namespace: &str) -> Binding {
    Binding {
        namespace: namespace.into(),
        kind: kind.into(),
        name: name.into(),
        role: "reader".into(),
        ..Binding::default()
    }
}

/// Busy is an honest answer, and what is done in steps goes on.
async fn write<O: Op<Out = Changed> + Clone>(meta: &Meta, op: O) -> Changed {
    loop {
        match meta.write(op.clone()).await {
            Ok(Changed::More) => {}
            Ok(outcome) => return outcome,
            Err(Error::Busy(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn since(meta: &Meta, epoch: i64) -> Vec<Entry> {
    meta.scan(Since { epoch, limit: ALL }).await.unwrap()
}

/// The parts of the last change.
async fn last(meta: &Meta) -> Vec<Part> {
    let epoch = meta.read(Epoch).await.unwrap();
    let entries = since(meta, epoch).await;
    assert!(
        entries
            .iter()
            .all(|one| one.epoch == epoch && one.at == NOW)
    );
    entries.into_iter().map(|one| one.part).collect()
}

fn put(binding: Binding) -> binding::Put {
    binding::Put {
        binding,
        custom_role: false,
        by: by(),
    }
}

fn member(group: &str, name: &str) -> Member {
    Member {
        group: group.into(),
        kind: "user".into(),
        name: name.into(),
    }
}

fn subject(kind: &str, name: &str) -> Part {
    Part::Subject {
        kind: kind.into(),
        name: name.into(),
    }
}

/// Each change names its part; what changes nothing names none.
pub async fn each_change_says_what_it_was_about(meta: Meta) {
    assert!(since(&meta, 0).await.is_empty());
    let binding = bound("user", "alice", "team");
    let bindings = Part::Bindings {
        namespace: "team".into(),
        kind: "user".into(),
        name: "alice".into(),
    };
    write(&meta, put(binding.clone())).await;
    assert_eq!(last(&meta).await, std::slice::from_ref(&bindings));
    assert_eq!(write(&meta, put(binding.clone())).await, Changed::Same);
    assert_eq!(since(&meta, 0).await.len(), 1);
    write(&meta, binding::Delete { binding, by: by() }).await;
    assert_eq!(last(&meta).await, std::slice::from_ref(&bindings));

    let name = "one".to_owned();
    let create = group::Create { name, by: by() };
    write(&meta, create).await;
    assert_eq!(last(&meta).await, [subject(GROUP, "one")]);
    let (member, by_root) = (member("one", "alice"), by());
    let add = group::Add {
        member: member.clone(),
        by: by_root,
    };
    write(&meta, add).await;
    assert_eq!(last(&meta).await, [Part::Member(member.clone())]);
    let remove = group::Remove {
        member: member.clone(),
        by: by(),
    };
    write(&meta, remove).await;
    assert_eq!(last(&meta).await, [Part::Member(member)]);
    let name = "one".to_owned();
    write(&meta, group::Delete { name, by: by() }).await;
    assert_eq!(last(&meta).await, [subject(GROUP, "one")]);

    let settings = namespace::Put {
        path: "team".into(),
        visibility: "public".into(),
        by: by(),
    };
    write(&meta, settings).await;
    assert_eq!(last(&meta).await, [Part::Visibility("team".into())]);
    let path = "team".to_owned();
    write(&meta, namespace::Delete { path, by: by() }).await;
    assert_eq!(last(&meta).await, [Part::Namespace("team".into())]);

    let role = role::Put {
        name: "scanner".into(),
        permissions: "pull".into(),
        by: by(),
    };
    write(&meta, role).await;
    assert_eq!(last(&meta).await, [Part::Role("scanner".into())]);
    let name = "scanner".to_owned();
    write(&meta, role::Delete { name, by: by() }).await;
    assert_eq!(last(&meta).await, [Part::Role("scanner".into())]);

    write(&meta, put(bound("user", "alice", "team"))).await;
    let all = binding::DeleteOf {
        kind: "user".into(),
        name: "alice".into(),
        by: by(),
    };
    write(&meta, all).await;
    assert_eq!(last(&meta).await, [subject("user", "alice")]);

    // One entry for each epoch at least, in order.
    let epochs: BTreeSet<i64> = since(&meta, 0).await.iter().map(|one| one.epoch).collect();
    let now = meta.read(Epoch).await.unwrap();
    assert_eq!(epochs, (1..=now).collect());
    assert_eq!(since(&meta, now + 1).await, []);
    assert_eq!(since(&meta, 3).await[0].epoch, 3);
}

/// Few parts are named one by one, and many as everything; what is old is forgotten.
pub async fn the_list_of_changes_is_bounded(meta: Meta) {
    let ended = |n: usize| Binding {
        expires_at: 1,
        ..bound("user", &format!("u{n}"), "team")
    };
    for (count, expected) in [(MOST_PARTS, MOST_PARTS), (MOST_PARTS + 1, 1)] {
        for n in 0..count {
            write(&meta, put(ended(n))).await;
        }
        let gone = binding::DeleteEnded {
            before: 9,
            by: by(),
        };
        write(&meta, gone).await;
        let parts = last(&meta).await;
        assert_eq!(parts.len(), expected);
        assert_eq!(parts.contains(&Part::All), expected == 1);
    }
    let now = meta.read(Epoch).await.unwrap();
    let later = setting::Put {
        key: "access.epoch".into(),
        value: (now + KEPT - 5).to_string(),
    };
    meta.write(later).await.unwrap();
    write(&meta, put(bound("user", "bob", "team"))).await;
    let epochs: BTreeSet<i64> = since(&meta, 0).await.iter().map(|one| one.epoch).collect();
    let expected: BTreeSet<i64> = (now - 3..=now).chain([now + KEPT - 4]).collect();
    assert_eq!(epochs, expected);
}

/// The rights as somebody knows them who takes parts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shadow {
    bindings: BTreeSet<Binding>,
    members: BTreeSet<Member>,
    groups: BTreeSet<String>,
    namespaces: BTreeMap<String, String>,
    roles: BTreeMap<String, String>,
}

impl Shadow {
    async fn whole(meta: &Meta) -> Self {
        let limit = ALL;
        let none = String::new;
        let list = binding::List { after: None, limit };
        let bindings = meta.scan(list).await.unwrap();
        let members = group::Members { after: None, limit };
        let members = meta.scan(members).await.unwrap();
        let groups = group::List {
            after: none(),
            limit,
        };
        let groups = meta.scan(groups).await.unwrap();
        let namespaces = namespace::List {
            after: none(),
            limit,
        };
        let namespaces = meta.scan(namespaces).await.unwrap();
        let roles = role::List {
            after: none(),
            limit,
        };
        let roles = meta.scan(roles).await.unwrap();
        Self {
            bindings: bindings.into_iter().map(|row| row.binding).collect(),
            members: members.into_iter().collect(),
            groups: groups.into_iter().map(|row| row.name).collect(),
            namespaces: (namespaces.into_iter())
                .map(|row| (row.path, row.visibility))
                .collect(),
            roles: (roles.into_iter())
                .map(|row| (row.name, row.permissions))
                .collect(),
        }
    }

    async fn take(&mut self, meta: &Meta, part: Part) {
        let limit = ALL;
        match part {
            Part::All => *self = Self::whole(meta).await,
            Part::Role(name) => {
                self.roles.remove(&name);
                let get = role::Get { name: name.clone() };
                let (permissions, bound) = meta.read(get).await.unwrap();
                assert_eq!(bound, self.bindings.iter().any(|one| one.role == name));
                self.roles.extend(permissions.map(|words| (name, words)));
            }
            Part::Subject { kind, name } => {
                if kind == GROUP {
                    let group = name.clone();
                    let members = meta.scan(group::In { group, limit }).await.unwrap();
                    self.groups.remove(&name);
                    self.groups.extend(members.is_some().then(|| name.clone()));
                    self.members.retain(|one| one.group != name);
                    self.members.extend(members.unwrap_or_default());
                } else {
                    let of = group::Of {
                        kind: kind.clone(),
                        name: name.clone(),
                        limit,
                    };
                    let groups = meta.scan(of).await.unwrap();
                    self.members
                        .retain(|one| (&one.kind, &one.name) != (&kind, &name));
                    self.members.extend(groups.into_iter().map(|group| Member {
                        group,
                        kind: kind.clone(),
                        name: name.clone(),
                    }));
                }
                self.bindings
                    .retain(|one| (&one.kind, &one.name) != (&kind, &name));
                let rows = meta.scan(binding::Of { kind, name, limit }).await.unwrap();
                self.bindings
                    .extend(rows.into_iter().map(|row| row.binding));
            }
            Part::Member(member) => {
                self.members.remove(&member);
                let has = group::Has {
                    member: member.clone(),
                };
                let there = meta.read(has).await.unwrap();
                self.members.extend(there.then_some(member));
            }
            Part::Visibility(path) => self.settings(meta, path).await,
            Part::Namespace(path) => {
                self.settings(meta, path.clone()).await;
                self.on(meta, path, None).await;
            }
            Part::Bindings {
                namespace,
                kind,
                name,
            } => self.on(meta, namespace, Some((kind, name))).await,
        }
    }

    async fn settings(&mut self, meta: &Meta, path: String) {
        self.namespaces.remove(&path);
        let get = namespace::Get { path: path.clone() };
        let visibility = meta.read(get).await.unwrap();
        self.namespaces
            .extend(visibility.map(|visibility| (path, visibility)));
    }

    async fn on(&mut self, meta: &Meta, namespace: String, subject: Option<(String, String)>) {
        self.bindings.retain(|one| {
            let other = |(kind, name): &(String, String)| *kind != one.kind || *name != one.name;
            one.namespace != namespace || subject.as_ref().is_some_and(other)
        });
        let limit = ALL;
        let on = binding::On {
            namespace,
            subject,
            limit,
        };
        let rows = meta.scan(on).await.unwrap();
        assert!(rows.is_sorted_by_key(|row| row.binding.clone()));
        self.bindings
            .extend(rows.into_iter().map(|row| row.binding));
    }
}

/// Whatever comes and goes, in steps too: taking the named parts, some changes at a time, is the same as taking all.
pub async fn whoever_takes_the_named_parts_has_all(meta: Meta) {
    // So many that the group and the namespace go in steps.
    let name = "large".to_owned();
    write(&meta, group::Create { name, by: by() }).await;
    for n in 0..STEP + 2 {
        write(&meta, put(bound(GROUP, "large", &format!("n{n}")))).await;
    }
    let mut shadow = Shadow::default();
    let mut seen = 0;
    let mut seed = 1_u64;
    let mut any = |of: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % of
    };
    for round in 0..400 {
        let user = format!("u{}", any(3));
        let path = ["", "a", "a/b"][any(3)].to_owned();
        let group = ["one", "two"][any(2)].to_owned();
        let kind = ["user", GROUP][any(2)];
        let holder = if kind == GROUP { &group } else { &user };
        let binding = Binding {
            role: ["reader", "custom"][any(2)].into(),
            tags: ["", "v*"][any(2)].into(),
            expires_at: [0, 0, 1][any(3)],
            ..bound(kind, holder, &path)
        };
        match any(12) {
            0..3 => {
                let custom_role = binding.role == "custom";
                let put = binding::Put {
                    custom_role,
                    ..put(binding)
                };
                write(&meta, put).await
            }
            3 => write(&meta, binding::Delete { binding, by: by() }).await,
            4 => {
                write(
                    &meta,
                    group::Create {
                        name: group,
                        by: by(),
                    },
                )
                .await
            }
            5 if any(4) == 0 => {
                write(
                    &meta,
                    group::Delete {
                        name: group,
                        by: by(),
                    },
                )
                .await
            }
            5 | 6 => {
                let member = member(&group, &user);
                write(&meta, group::Add { member, by: by() }).await
            }
            7 => {
                let member = member(&group, &user);
                write(&meta, group::Remove { member, by: by() }).await
            }
            8 if path.is_empty() => {
                let put = role::Put {
                    name: "custom".into(),
                    permissions: ["pull", "pull,push"][any(2)].into(),
                    by: by(),
                };
                write(&meta, put).await
            }
            8 => {
                let put = namespace::Put {
                    path,
                    visibility: ["private", "public"][any(2)].into(),
                    by: by(),
                };
                write(&meta, put).await
            }
            9 => write(&meta, namespace::Delete { path, by: by() }).await,
            10 => {
                let (kind, name) = ("user".to_owned(), user);
                write(
                    &meta,
                    binding::DeleteOf {
                        kind,
                        name,
                        by: by(),
                    },
                )
                .await
            }
            _ if any(3) == 0 => {
                let name = "custom".to_owned();
                write(&meta, role::Delete { name, by: by() }).await
            }
            _ => {
                write(
                    &meta,
                    binding::DeleteEnded {
                        before: 9,
                        by: by(),
                    },
                )
                .await
            }
        };
        if round == 200 {
            let name = "large".to_owned();
            write(&meta, group::Delete { name, by: by() }).await;
        }
        if any(4) == 0 || round == 399 {
            let entries = since(&meta, seen + 1).await;
            let parts: BTreeSet<Part> = entries.iter().map(|one| one.part.clone()).collect();
            seen = meta.read(Epoch).await.unwrap();
            assert!(entries.last().is_none_or(|last| last.epoch == seen));
            // Roles last: whether one is bound is compared with the bindings then.
            for part in parts.into_iter().rev() {
                shadow.take(&meta, part).await;
            }
            assert_eq!(shadow, Shadow::whole(&meta).await, "round {round}");
        }
    }
}
