//! Rights that follow what changed, instead of being read anew: the same rights, for replicas that look at different moments, and at
//! a cost that goes by what changed.

use std::cell::Cell;

use proptest::prelude::*;
use wharf_meta::access::{By, Changed};
use wharf_meta::access::{account, binding, group, namespace, role, source};
use wharf_meta::{Meta, Op, SqliteOptions};
use wharf_oci::RepositoryName;

use super::super::compiled::Compiled;
use super::super::load::{Rows, loads};
use super::super::table::copies;
use super::super::*;
use super::NOW;

const PATHS: [&str; 4] = ["", "a", "a/b", "c"];
const SUBJECTS: [(&str, &str); 8] = [
    ("user", "alice"),
    ("user", "bob"),
    ("robot", "a+ci"),
    ("group", "one"),
    ("group", "two"),
    ("signed-in", ""),
    ("anonymous", ""),
    // Of a newer version.
    ("planet", "mars"),
];
const ROLES: [&str; 5] = ["reader", "writer", "owner", "custom", "unknown"];
const GROUPS: [&str; 2] = ["one", "two"];
const OUTSIDE: [&str; 3] = ["eng", "ops", "root"];
const MEMBERS: [(&str, &str); 4] = [
    ("user", "alice"),
    ("user", "bob"),
    ("robot", "a+ci"),
    ("user", "carol"),
];

/// One thing that happens.
#[derive(Debug, Clone)]
enum Act {
    Bind(binding::Binding),
    Unbind(binding::Binding),
    Group(&'static str, bool),
    Member(&'static str, (&'static str, &'static str), bool),
    Visibility(&'static str, &'static str),
    Namespace(&'static str),
    Role(Option<&'static str>),
    All((&'static str, &'static str)),
    /// Somebody comes from outside, with these groups there.
    Come(&'static str, Vec<&'static str>),
    /// A group from outside leads to one here, or no longer.
    Source(&'static str, &'static str, bool),
    Ended,
    /// One of the replicas looks.
    Look(usize),
    /// One of them gets another configuration.
    Configure(usize, usize),
}

fn bindings() -> impl Strategy<Value = binding::Binding> {
    (
        prop::sample::select(PATHS.to_vec()),
        prop::sample::select(SUBJECTS.to_vec()),
        prop::sample::select(ROLES.to_vec()),
        prop::sample::select(vec!["", "", "v*", "w"]),
        prop::sample::select(vec![0, 0, NOW - 1]),
    )
        .prop_map(
            |(path, (kind, name), role, tags, expires_at)| binding::Binding {
                namespace: path.into(),
                kind: kind.into(),
                name: name.into(),
                role: role.into(),
                tags: tags.into(),
                expires_at,
                ..binding::Binding::default()
            },
        )
}

fn acts() -> impl Strategy<Value = Act> {
    let groups = || prop::sample::select(GROUPS.to_vec());
    let members = || prop::sample::select(MEMBERS.to_vec());
    let users = || prop::sample::select(vec!["alice", "bob", "carol"]);
    let visibilities = vec!["private", "internal", "public", "hidden"];
    prop_oneof![
        8 => bindings().prop_map(Act::Bind),
        6 => bindings().prop_map(Act::Unbind),
        3 => (groups(), prop::bool::weighted(0.7)).prop_map(|(name, there)| Act::Group(name, there)),
        4 => (groups(), members(), any::<bool>()).prop_map(|(group, who, within)| Act::Member(group, who, within)),
        2 => (prop::sample::select(PATHS[1..].to_vec()), prop::sample::select(visibilities))
            .prop_map(|(path, to)| Act::Visibility(path, to)),
        1 => prop::sample::select(PATHS[1..].to_vec()).prop_map(Act::Namespace),
        1 => prop::sample::select(vec![None, Some("pull"), Some("pull,push"), Some("pull,fly")]).prop_map(Act::Role),
        2 => members().prop_map(Act::All),
        4 => (users(), prop::sample::subsequence(OUTSIDE.to_vec(), 0..=3)).prop_map(|(user, groups)| Act::Come(user, groups)),
        3 => (groups(), prop::sample::select(OUTSIDE.to_vec()), any::<bool>())
            .prop_map(|(group, name, there)| Act::Source(group, name, there)),
        1 => Just(Act::Ended),
        6 => (0..2_usize).prop_map(Act::Look),
        1 => (0..2_usize, 0..3_usize).prop_map(|(replica, rights)| Act::Configure(replica, rights)),
    ]
}

async fn write<O: Op<Out = Changed> + Clone>(meta: &Meta, op: O) {
    while meta.write(op.clone()).await.unwrap() == Changed::More {}
}

async fn act(meta: &Meta, it: &Act, at: i64) {
    let by = By {
        actor: "root".into(),
        epoch: None,
        at,
    };
    match it.clone() {
        Act::Bind(binding) => {
            // A role that does not exist, or that only a newer version knows, may be in rows all the same.
            let custom_role = false;
            let put = binding::Put {
                binding,
                custom_role,
                by,
            };
            write(meta, put).await;
        }
        Act::Unbind(binding) => write(meta, binding::Delete { binding, by }).await,
        Act::Group(name, there) => {
            let name = name.to_owned();
            match there {
                true => write(meta, group::Create { name, by }).await,
                false => write(meta, group::Delete { name, by }).await,
            }
        }
        Act::Member(group, (kind, name), within) => {
            let member = group::Member {
                group: group.into(),
                kind: kind.into(),
                name: name.into(),
            };
            match within {
                true => write(meta, group::Add { member, by }).await,
                false => write(meta, group::Remove { member, by }).await,
            }
        }
        Act::Visibility(path, visibility) => {
            let (path, visibility) = (path.to_owned(), visibility.to_owned());
            let put = namespace::Put {
                path,
                visibility,
                by,
            };
            write(meta, put).await;
        }
        Act::Namespace(path) => {
            let path = path.to_owned();
            write(meta, namespace::Delete { path, by }).await;
        }
        Act::Role(permissions) => {
            let name = "custom".to_owned();
            match permissions.map(str::to_owned) {
                Some(permissions) => {
                    let put = role::Put {
                        name,
                        permissions,
                        by,
                    };
                    write(meta, put).await;
                }
                None => write(meta, role::Delete { name, by }).await,
            }
        }
        Act::All((kind, name)) => {
            let (kind, name) = (kind.to_owned(), name.to_owned());
            write(meta, binding::DeleteOf { kind, name, by }).await;
        }
        Act::Come(user, groups) => {
            let link = account::Link {
                provider: "corp".into(),
                subject: user.into(),
                issuer: String::new(),
                user: user.into(),
                by,
            };
            meta.write(link).await.unwrap();
            let arrive = account::Arrive {
                provider: "corp".into(),
                subject: user.into(),
                issuer: String::new(),
                wished: None,
                groups: groups.into_iter().map(str::to_owned).collect(),
                telling: vec!["root".into()],
                at,
            };
            meta.write(arrive).await.unwrap();
        }
        Act::Source(group, name, there) => {
            let source = source::Source {
                group: group.into(),
                provider: "corp".into(),
                name: name.into(),
            };
            match there {
                true => write(meta, source::Put { source, by }).await,
                false => write(meta, source::Delete { source, by }).await,
            }
        }
        Act::Ended => write(meta, binding::DeleteEnded { before: NOW, by }).await,
        Act::Look(_) | Act::Configure(..) => {}
    }
}

fn rights(which: usize) -> Rights {
    let grant = |who: &str, role, on: &str| Grant {
        who: Who::parse(who).unwrap(),
        role,
        on: Some(on.to_owned()),
    };
    let providers = vec![Provider {
        name: "corp".into(),
        issuer: String::new(),
        admin_group: Some("root".into()),
        section: "[[auth.oidc]] admin_group",
    }];
    match which {
        0 => Rights {
            providers,
            ..Rights::default()
        },
        1 => Rights {
            anonymous: Role::Reader,
            htpasswd: Role::Writer,
            grants: vec![
                grant("alice", Role::Owner, "a"),
                grant("zoe", Role::Reader, "z"),
            ],
            providers,
        },
        _ => Rights {
            grants: vec![
                grant("bob", Role::Reader, "a"),
                grant("a+ci", Role::Writer, "a"),
            ],
            providers,
            ..Rights::default()
        },
    }
}

fn callers() -> Vec<Caller> {
    let user = |name: &str| Principal::User {
        name: name.into(),
        source: Source::Local,
    };
    let robot = Principal::Robot {
        name: "a+ci".into(),
    };
    let people = ["alice", "bob", "carol", "zoe"].map(user);
    let all = people.into_iter().chain([robot, Principal::Anonymous]);
    all.map(Caller::direct).collect()
}

/// Both are the same rights: by what they hold, by how much they hold, and by what they decide.
fn same(followed: &Policy, anew: &Policy) {
    let shown = |policy: &Policy| {
        let rows = policy.rows();
        let mut bindings: Vec<String> = policy.bindings().map(|one| format!("{one:?}")).collect();
        bindings.sort_unstable();
        (format!("{rows:?}"), bindings)
    };
    assert_eq!(shown(followed), shown(anew));
    let sizes = |policy: &Policy| {
        let paths: usize = policy.paths.iter().map(|(_, paths)| paths.len()).sum();
        [
            policy.everywhere.len(),
            policy.below.len(),
            policy.paths.len(),
            paths,
            policy.users.len(),
            policy.robots.len(),
            policy.groups.len(),
            policy.namespaces.len(),
        ]
    };
    assert_eq!(sizes(followed), sizes(anew));
    for caller in callers() {
        for on in ["a", "a/b", "a/b/c", "c", "d", "z"] {
            let name = RepositoryName::parse(on).unwrap();
            for permission in Permission::ALL {
                for tags in [Tags::None, Tags::Named("v1"), Tags::All] {
                    let ask = |policy: &Policy| {
                        let allowed = policy.allow_tags(&caller, permission, Some(&name), tags);
                        let why = policy.explain(&caller, permission, Some(&name), Some(tags));
                        (allowed, why)
                    };
                    assert_eq!(ask(followed), ask(anew), "{caller:?} {permission:?} {on}");
                }
                let listed = |policy: &Policy| policy.prefixes_for(&caller, permission);
                assert_eq!(listed(followed), listed(anew));
                let view = |policy: &Policy| policy.tag_view(&caller, permission, &name);
                assert_eq!(view(followed), view(anew));
            }
        }
    }
}

fn replica(meta: &Meta) -> Compiled {
    let mut compiled = Compiled::new(&rights(0)).unwrap();
    compiled.keep_in(meta.clone());
    compiled
}

fn store() -> (tempfile::TempDir, Meta) {
    let folder = tempfile::tempdir().unwrap();
    let (meta, _) = Meta::open(SqliteOptions::new(folder.path().join("meta.db"))).unwrap();
    (folder, meta)
}

/// What a count was raised by.
async fn counted<T>(
    count: &'static std::thread::LocalKey<Cell<usize>>,
    work: impl Future<Output = T>,
) -> usize {
    let before = count.get();
    work.await;
    count.get() - before
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Two replicas look at different moments, with other configurations, and both have the rights that one has who reads them all.
    #[test]
    fn whoever_follows_changes_has_the_rights_that_are_there(acts in proptest::collection::vec(acts(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (_folder, meta) = store();
            let replicas = [replica(&meta), replica(&meta)];
            let mut configured = [0, 0];
            for (at, it) in acts.iter().chain(&[Act::Look(0), Act::Look(1)]).enumerate() {
                act(&meta, it, NOW + at as i64).await;
                match *it {
                    Act::Look(replica) => {
                        replicas[replica].refresh().await.unwrap();
                        let rows = Rows::load(&meta, &rights(0).providers).await.unwrap();
                        let anew = Policy::compile(&rights(configured[replica]), &rows).unwrap();
                        same(&replicas[replica].load(), &anew);
                    }
                    Act::Configure(replica, which) => {
                        configured[replica] = which;
                        replicas[replica].configure(&rights(which)).unwrap();
                    }
                    _ => {}
                }
            }
        });
    }
}

fn bound(n: usize) -> Act {
    Act::Bind(binding::Binding {
        namespace: format!("team{}/app{n}", n % 97),
        kind: "user".into(),
        name: format!("u{}", n % 1_009),
        role: "reader".into(),
        ..binding::Binding::default()
    })
}

/// Rows that are read, and entries of tables that are copied, go by what changed, and not by what there is.
#[tokio::test]
async fn a_change_costs_what_it_changes() {
    let (_folder, meta) = store();
    let (one, other) = (replica(&meta), replica(&meta));
    act(&meta, &bound(0), NOW).await;
    one.refresh().await.unwrap();
    other.refresh().await.unwrap();
    for n in 1..200 {
        act(&meta, &bound(n), NOW).await;
    }
    // As many at once as there are, and one more, are followed alike.
    let rows = counted(&loads::ROWS, other.refresh()).await;
    assert_eq!(rows, 199);
    let whole = async || {
        for it in [
            Act::Group("one", true),
            Act::Member("one", ("user", "u1"), true),
            Act::Visibility("team1", "internal"),
            Act::Visibility("team1", "private"),
            Act::All(("user", "u1")),
            Act::Group("one", false),
            Act::Namespace("team1"),
            Act::Role(Some("pull")),
            Act::Role(None),
            Act::Ended,
            bound(1_000),
        ] {
            act(&meta, &it, NOW).await;
            let rows = counted(&loads::ROWS, other.refresh()).await;
            assert!(rows <= 1, "{rows} rows for {it:?}");
        }
    };
    assert_eq!(counted(&loads::LOADS, whole()).await, 0);
    // Too much is read whole, and so is what is bound somewhere and changes there.
    for n in 1_001..1_502 {
        act(&meta, &bound(n), NOW).await;
    }
    assert_eq!(counted(&loads::LOADS, other.refresh()).await, 1);
    act(&meta, &Act::Role(Some("pull")), NOW).await;
    let custom = binding::Binding {
        namespace: "a".into(),
        kind: "user".into(),
        name: "u1".into(),
        role: "custom".into(),
        ..binding::Binding::default()
    };
    act(&meta, &Act::Bind(custom), NOW).await;
    other.refresh().await.unwrap();
    act(&meta, &Act::Role(Some("pull,push")), NOW).await;
    assert_eq!(counted(&loads::LOADS, other.refresh()).await, 1);
    // So does the one that slept through all of it.
    for n in 0..5 {
        act(&meta, &Act::Unbind(unbound(n)), NOW).await;
    }
    assert_eq!(counted(&loads::LOADS, one.refresh()).await, 1);
    other.refresh().await.unwrap();
    let anew = Policy::compile(
        &rights(0),
        &Rows::load(&meta, &rights(0).providers).await.unwrap(),
    )
    .unwrap();
    same(&one.load(), &anew);
    same(&other.load(), &anew);
}

fn unbound(n: usize) -> binding::Binding {
    match bound(n) {
        Act::Bind(binding) => binding,
        _ => unreachable!("it binds"),
    }
}

/// A store that was put back to an older state and went on from there has the same epochs, and not the same rights.
#[tokio::test]
async fn another_past_is_read_whole() {
    let (_folder, meta) = store();
    let (_other_folder, restored) = store();
    let mut one = replica(&meta);
    for n in 0..5 {
        act(&meta, &bound(n), NOW + n as i64).await;
        act(&restored, &bound(n + 10), NOW + 100 + n as i64).await;
    }
    one.refresh().await.unwrap();
    act(&restored, &bound(20), NOW + 200).await;
    one.keep_in(restored.clone());
    assert_eq!(counted(&loads::LOADS, one.refresh()).await, 1);
    let anew = Policy::compile(
        &rights(0),
        &Rows::load(&restored, &rights(0).providers).await.unwrap(),
    )
    .unwrap();
    same(&one.load(), &anew);
}

/// With 50,000 bindings a change copies a few times as much as with 100, and not five hundred times.
#[tokio::test]
async fn the_next_policy_shares_what_did_not_change() {
    let policy = |count: usize| {
        let bindings = (0..count).map(|n| {
            let it = unbound(n);
            Binding {
                subject: Subject::User(it.name),
                role: it.role,
                permissions: Role::Reader.permissions(),
                on: it.namespace,
                conditions: Conditions::default(),
                origin: Origin::Granted {
                    by: "root".into(),
                    at: NOW,
                },
            }
        });
        let rows = Rows {
            epoch: 1,
            bindings: bindings.collect(),
            ..Rows::default()
        };
        Policy::compile(&Rights::default(), &rows).unwrap()
    };
    let mut costs = Vec::new();
    for count in [100, 50_000] {
        let before = policy(count);
        let binding = before.bindings_to(&Subject::User("u7".into())).next();
        let binding = binding.unwrap().clone();
        let caller = &callers()[0];
        let cost = counted(&copies::COPIED, async {
            let mut next = before.clone();
            let on = binding.on.clone();
            let changed = Binding {
                permissions: Role::Writer.permissions(),
                role: "writer".into(),
                ..binding.clone()
            };
            let subject = Some(binding.subject.clone());
            next.update(load::Changes {
                epoch: 2,
                mark: NOW,
                parts: vec![load::Read::BindingsOn(on.clone(), subject, vec![changed])],
            });
            assert_eq!(
                next.held(&binding.subject, &on).next().unwrap().role,
                "writer"
            );
        });
        costs.push(cost.await);
        // Whoever asks the one before is answered by the one before.
        assert_eq!(
            before.held(&binding.subject, &binding.on).next(),
            Some(&binding)
        );
        assert_eq!(before.bindings().count(), count + 1);
        assert!(!before.allow(caller, Permission::Push, None));
    }
    let (small, large) = (costs[0], costs[1]);
    assert!(
        0 < small && large < 12 * small,
        "{small} and {large} entries"
    );
}
