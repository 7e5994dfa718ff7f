//! Rights as rows: what is kept, what must not run out, and two who change them at once.

use super::{NOW, events};
use crate::access::binding::{self, Binding};
use crate::access::group::{self, Member};
use crate::access::{ADMIN, By, Changed, Epoch, OWNER, namespace, role};
use crate::{Error, Meant, Meta, Op, principal};

fn by(actor: &str) -> By {
    By {
        actor: actor.into(),
        epoch: None,
        at: NOW,
    }
}

/// A binding of a role on a path, without conditions.
fn bound(kind: &str, name: &str, role: &str, namespace: &str) -> Binding {
    Binding {
        namespace: namespace.into(),
        kind: kind.into(),
        name: name.into(),
        role: role.into(),
        networks: String::new(),
        tags: String::new(),
        sign_in: String::new(),
        expires_at: 0,
    }
}

fn put(binding: Binding) -> binding::Put {
    binding::Put {
        binding,
        custom_role: false,
        by: by("root"),
    }
}

fn delete(binding: Binding) -> binding::Delete {
    binding::Delete {
        binding,
        by: by("root"),
    }
}

fn member(group: &str, name: &str) -> Member {
    Member {
        group: group.into(),
        kind: "user".into(),
        name: name.into(),
    }
}

/// Busy is an honest answer; callers come again.
async fn write<O: Op + Clone>(meta: &Meta, op: O) -> O::Out {
    loop {
        match meta.write(op.clone()).await {
            Ok(out) => return out,
            Err(Error::Busy(_)) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn bindings(meta: &Meta) -> Vec<Binding> {
    let mut all: Vec<Binding> = Vec::new();
    loop {
        let list = binding::List {
            after: all.last().cloned(),
            limit: 2,
        };
        let page = meta.scan(list).await.unwrap();
        if page.is_empty() {
            return all;
        }
        assert!(page.iter().all(|row| row.created_by == "root"));
        all.extend(page.into_iter().map(|row| row.binding));
    }
}

/// All parts of a binding are its key; each change counts the epoch up and is an event, and nothing else does.
pub async fn bindings_are_kept(meta: Meta) {
    assert_eq!(meta.read(Epoch).await.unwrap(), 0);
    let plain = bound("user", "alice", "writer", "team/a");
    let until = Binding {
        expires_at: NOW + 1,
        ..plain.clone()
    };
    let from = Binding {
        networks: "10.0.0.0/8".into(),
        ..plain.clone()
    };
    let all = [
        bound("anonymous", "", "reader", ""),
        bound("robot", "team/a+ci", "publisher", "team/a"),
        plain.clone(),
        until.clone(),
        from,
    ];
    for binding in &all {
        assert_eq!(write(&meta, put(binding.clone())).await, Changed::Done);
    }
    assert_eq!(meta.read(Epoch).await.unwrap(), 5);
    assert_eq!(write(&meta, put(plain.clone())).await, Changed::Same);
    assert_eq!(meta.read(Epoch).await.unwrap(), 5);
    assert_eq!(bindings(&meta).await, all);
    assert_eq!(write(&meta, delete(plain.clone())).await, Changed::Done);
    assert_eq!(write(&meta, delete(plain)).await, Changed::Unknown);
    assert!(bindings(&meta).await.contains(&until));
    assert_eq!(meta.read(Epoch).await.unwrap(), 6);
    let recorded = events(&meta).await;
    assert_eq!(
        recorded
            .iter()
            .filter(|kind| *kind == "access.change")
            .count(),
        6
    );
}

/// Who was let in by rights that are no longer those decides anew.
pub async fn stale_decisions_are_refused(meta: Meta) {
    let at = |epoch| By {
        epoch: Some(epoch),
        ..by("alice")
    };
    let one = |epoch| binding::Put {
        by: at(epoch),
        ..put(bound("user", "bob", "reader", "team/a"))
    };
    assert_eq!(write(&meta, one(0)).await, Changed::Done);
    let revoke = |epoch| binding::Delete {
        by: at(epoch),
        ..delete(bound("user", "bob", "reader", "team/a"))
    };
    assert_eq!(write(&meta, revoke(0)).await, Changed::Stale);
    assert_eq!(write(&meta, revoke(1)).await, Changed::Done);
    // Many on the same epoch: one of them is first.
    let tasks = (0..16).map(|n| {
        let meta = meta.clone();
        async move {
            let op = binding::Put {
                by: By {
                    actor: "alice".into(),
                    epoch: Some(2),
                    at: NOW,
                },
                ..put(bound("user", &format!("u{n}"), "reader", "team/a"))
            };
            write(&meta, op).await
        }
    });
    let outcomes = super::concurrent::all(tasks).await;
    let done = outcomes.iter().filter(|o| **o == Changed::Done).count();
    let stale = outcomes.iter().filter(|o| **o == Changed::Stale).count();
    assert_eq!((done, stale), (1, 15));
}

/// Groups and roles must be there to be bound, and go only as far as nobody needs them.
pub async fn groups_and_roles(meta: Meta) {
    let team = bound("group", "team", "reader", "team");
    assert_eq!(write(&meta, put(team.clone())).await, Changed::Unknown);
    let create = group::Create {
        name: "team".into(),
        by: by("root"),
    };
    assert_eq!(write(&meta, create.clone()).await, Changed::Done);
    assert_eq!(write(&meta, create).await, Changed::Same);
    assert_eq!(write(&meta, put(team)).await, Changed::Done);
    let add = |name: &str| group::Add {
        member: member("team", name),
        by: by("root"),
    };
    for name in ["bob", "alice"] {
        assert_eq!(write(&meta, add(name)).await, Changed::Done);
    }
    assert_eq!(write(&meta, add("bob")).await, Changed::Same);
    let lost = group::Add {
        member: member("nobody", "bob"),
        by: by("root"),
    };
    assert_eq!(write(&meta, lost).await, Changed::Unknown);
    let members = async |after: Option<Member>| {
        let list = group::Members { after, limit: 1 };
        meta.scan(list).await.unwrap()
    };
    let first = members(None).await;
    assert_eq!(first, [member("team", "alice")]);
    let second = members(first.last().cloned()).await;
    assert_eq!(second, [member("team", "bob")]);
    assert!(members(second.last().cloned()).await.is_empty());

    let custom = binding::Put {
        custom_role: true,
        ..put(bound("user", "bob", "scanner", "team"))
    };
    assert_eq!(write(&meta, custom.clone()).await, Changed::Unknown);
    let role = |permissions: &str| role::Put {
        name: "scanner".into(),
        permissions: permissions.into(),
        by: by("root"),
    };
    assert_eq!(write(&meta, role("pull")).await, Changed::Done);
    assert_eq!(write(&meta, role("pull")).await, Changed::Same);
    assert_eq!(write(&meta, custom).await, Changed::Done);
    assert_eq!(write(&meta, role("pull,catalog")).await, Changed::Done);
    let roles = role::List {
        after: String::new(),
        limit: 9,
    };
    let roles = meta.scan(roles).await.unwrap();
    assert_eq!(roles.len(), 1);
    assert_eq!(roles[0].permissions, "pull,catalog");
    let remove = role::Delete {
        name: "scanner".into(),
        by: by("root"),
    };
    assert_eq!(write(&meta, remove.clone()).await, Changed::InUse);
    let of_bob = binding::DeleteOf {
        kind: "user".into(),
        name: "bob".into(),
        by: by("root"),
    };
    assert_eq!(write(&meta, of_bob.clone()).await, Changed::Done);
    assert_eq!(write(&meta, of_bob).await, Changed::Same);
    assert_eq!(members(None).await, [member("team", "alice")]);
    assert_eq!(write(&meta, remove.clone()).await, Changed::Done);
    assert_eq!(write(&meta, remove).await, Changed::Unknown);

    let gone = group::Delete {
        name: "team".into(),
        by: by("root"),
    };
    assert_eq!(write(&meta, gone.clone()).await, Changed::Done);
    assert_eq!(write(&meta, gone).await, Changed::Unknown);
    assert!(members(None).await.is_empty() && bindings(&meta).await.is_empty());
    let groups = group::List {
        after: String::new(),
        limit: 9,
    };
    assert!(meta.scan(groups).await.unwrap().is_empty());
}

/// Settings change, and go with all bindings on exactly that path.
pub async fn namespaces(meta: Meta) {
    let set = |visibility: &str| namespace::Put {
        path: "team/a".into(),
        visibility: visibility.into(),
        by: by("root"),
    };
    assert_eq!(write(&meta, set("public")).await, Changed::Done);
    assert_eq!(write(&meta, set("public")).await, Changed::Same);
    assert_eq!(write(&meta, set("private")).await, Changed::Done);
    let below = bound("user", "alice", OWNER, "team/a/b");
    for binding in [
        bound("user", "alice", OWNER, "team/a"),
        bound("user", "bob", "reader", "team/a"),
        below.clone(),
    ] {
        assert_eq!(write(&meta, put(binding)).await, Changed::Done);
    }
    let list = namespace::List {
        after: String::new(),
        limit: 9,
    };
    let listed = meta.scan(list.clone()).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].path.as_str(), listed[0].visibility.as_str()),
        ("team/a", "private")
    );
    let gone = |path: &str| namespace::Delete {
        path: path.into(),
        by: by("root"),
    };
    assert_eq!(write(&meta, gone("team/a")).await, Changed::Done);
    assert_eq!(write(&meta, gone("team/a")).await, Changed::Unknown);
    assert_eq!(write(&meta, gone("")).await, Changed::Unknown);
    assert_eq!(bindings(&meta).await, [below]);
    assert!(meta.scan(list).await.unwrap().is_empty());
}

/// The last owner stays, however it holds the role, and whichever way it would lose it.
pub async fn the_last_owner_stays(meta: Meta) {
    let last = Changed::Last("team/a".into());
    let alice = bound("user", "alice", OWNER, "team/a");
    write(&meta, put(alice.clone())).await;
    assert_eq!(write(&meta, delete(alice.clone())).await, last);
    let of_alice = binding::DeleteOf {
        kind: "user".into(),
        name: "alice".into(),
        by: by("root"),
    };
    assert_eq!(write(&meta, of_alice.clone()).await, last);
    // What may end by itself, what is elsewhere and who is nobody keeps nothing.
    for other in [
        Binding {
            expires_at: NOW + 1_000_000,
            ..bound("user", "bob", OWNER, "team/a")
        },
        Binding {
            networks: "10.0.0.0/8".into(),
            ..bound("user", "bob", OWNER, "team/a")
        },
        bound("user", "bob", OWNER, "team"),
        bound("user", "bob", "maintainer", "team/a"),
    ] {
        assert_eq!(write(&meta, put(other)).await, Changed::Done);
        assert_eq!(write(&meta, delete(alice.clone())).await, last);
    }
    // A group keeps it while somebody is in it.
    let create = group::Create {
        name: "owners".into(),
        by: by("root"),
    };
    write(&meta, create).await;
    write(&meta, put(bound("group", "owners", OWNER, "team/a"))).await;
    assert_eq!(write(&meta, delete(alice.clone())).await, last);
    let add = |name: &str| group::Add {
        member: member("owners", name),
        by: by("root"),
    };
    let remove = |name: &str| group::Remove {
        member: member("owners", name),
        by: by("root"),
    };
    write(&meta, add("carol")).await;
    write(&meta, add("dave")).await;
    assert_eq!(write(&meta, delete(alice)).await, Changed::Done);
    assert_eq!(write(&meta, remove("carol")).await, Changed::Done);
    assert_eq!(write(&meta, remove("dave")).await, last);
    let of_dave = binding::DeleteOf {
        name: "dave".into(),
        ..of_alice
    };
    assert_eq!(write(&meta, of_dave).await, last);
    let gone = group::Delete {
        name: "owners".into(),
        by: by("root"),
    };
    assert_eq!(write(&meta, gone).await, last);
    assert_eq!(write(&meta, remove("nobody")).await, Changed::Unknown);
}

/// The last administrator stays; the one of the first start is one without a binding.
pub async fn the_last_administrator_stays(meta: Meta) {
    let last = Changed::Last(String::new());
    let alice = bound("user", "alice", ADMIN, "");
    write(&meta, put(alice.clone())).await;
    assert_eq!(write(&meta, delete(alice.clone())).await, last);
    write(&meta, put(bound("user", "bob", ADMIN, "team"))).await;
    assert_eq!(write(&meta, delete(alice.clone())).await, last);
    let born = principal::Create {
        name: ADMIN.into(),
        kind: "user".into(),
        secret_hash: Some("hash".into()),
        at: NOW,
    };
    assert!(write(&meta, born).await);
    // It cannot go itself while it is the only one.
    assert_eq!(write(&meta, delete(alice)).await, Changed::Done);
    // Below a path administrators come and go.
    let below = delete(bound("user", "bob", ADMIN, "team"));
    assert_eq!(write(&meta, below).await, Changed::Done);
}

fn lock_out(name: &str, disabled: bool) -> principal::Change {
    principal::Change {
        name: name.into(),
        kind: "user".into(),
        version: Meant::Any,
        disabled: Some(disabled),
        expires_at: None,
        networks: None,
        at: NOW,
    }
}

/// Who is locked out administers nothing and owns nothing, be it the one of the first start, somebody with a binding or a
/// group's only member; so the last one is not locked out, and of two at once one is not.
pub async fn who_is_locked_out_does_not_count(meta: Meta) {
    let done = || principal::Changed::Done;
    let last = |path: &str| principal::Changed::Last(path.to_owned());
    for name in [ADMIN, "alice", "bob", "carol"] {
        let create = principal::Create {
            name: name.into(),
            kind: "user".into(),
            secret_hash: Some("hash".into()),
            at: NOW,
        };
        assert!(write(&meta, create).await);
    }
    assert_eq!(write(&meta, lock_out(ADMIN, true)).await, last(""));
    let alice = bound("user", "alice", ADMIN, "");
    write(&meta, put(alice.clone())).await;
    for _ in 0..16 {
        let tasks = [ADMIN, "alice"].map(|name| {
            let meta = meta.clone();
            async move { write(&meta, lock_out(name, true)).await }
        });
        let mut outcomes = super::concurrent::all(tasks).await;
        outcomes.sort_by_key(|outcome| *outcome != done());
        assert_eq!(outcomes, [done(), last("")]);
        for name in [ADMIN, "alice"] {
            assert_eq!(write(&meta, lock_out(name, false)).await, done());
        }
    }
    // The one of the first start is locked out: now the binding is the last.
    assert_eq!(write(&meta, lock_out(ADMIN, true)).await, done());
    assert_eq!(
        write(&meta, delete(alice.clone())).await,
        Changed::Last(String::new())
    );
    let remove = |name: &str| binding::DeleteOf {
        kind: "user".into(),
        name: name.into(),
        by: by("root"),
    };
    let kept = Changed::Last(String::new());
    assert_eq!(write(&meta, remove("alice")).await, kept);
    assert_eq!(write(&meta, lock_out(ADMIN, false)).await, done());
    assert_eq!(write(&meta, delete(alice)).await, Changed::Done);

    // Two groups with the same only member keep nothing for each other, nor does what the member holds itself.
    for name in ["one", "two"] {
        let create = group::Create {
            name: name.into(),
            by: by("root"),
        };
        write(&meta, create).await;
        let add = group::Add {
            member: member(name, "carol"),
            by: by("root"),
        };
        write(&meta, add).await;
        write(&meta, put(bound("group", name, OWNER, "team"))).await;
    }
    write(&meta, put(bound("user", "carol", OWNER, "team"))).await;
    assert_eq!(write(&meta, lock_out("carol", true)).await, last("team"));
    let kept = Changed::Last("team".into());
    assert_eq!(write(&meta, remove("carol")).await, kept);
    // Bob in one of them is enough, unless he is locked out.
    let add = group::Add {
        member: member("two", "bob"),
        by: by("root"),
    };
    write(&meta, add).await;
    assert_eq!(write(&meta, lock_out("bob", true)).await, done());
    assert_eq!(write(&meta, lock_out("carol", true)).await, last("team"));
    assert_eq!(write(&meta, lock_out("bob", false)).await, done());
    assert_eq!(write(&meta, lock_out("carol", true)).await, done());
    assert_eq!(write(&meta, lock_out("bob", true)).await, last("team"));
}

/// Groups lead a robot nowhere beyond its home, so it keeps nothing elsewhere.
pub async fn a_robot_looks_after_its_home_alone(meta: Meta) {
    let create = group::Create {
        name: "keepers".into(),
        by: by("root"),
    };
    write(&meta, create).await;
    let robot = |name: &str| Member {
        group: "keepers".into(),
        kind: "robot".into(),
        name: name.into(),
    };
    for who in [
        member("keepers", "carol"),
        robot("team/a+ci"),
        robot("tea+m"),
    ] {
        let add = group::Add {
            member: who,
            by: by("root"),
        };
        assert_eq!(write(&meta, add).await, Changed::Done);
    }
    let remove = |who: Member| group::Remove {
        member: who,
        by: by("root"),
    };
    let carol = || member("keepers", "carol");
    // What lies above its home, beside it, and begins with the same letters.
    for path in ["team", "team/b", "team/ab", "tea/m"] {
        let held = bound("group", "keepers", OWNER, path);
        write(&meta, put(held.clone())).await;
        let counts = path == "tea/m";
        let kept = Changed::Last(path.into());
        if !counts {
            assert_eq!(write(&meta, remove(carol())).await, kept, "{path}");
            assert_eq!(
                write(&meta, lock_out("carol", true)).await,
                principal::Changed::Unknown
            );
            // Nor does it keep what another is about to leave.
            let own = bound("user", "dora", OWNER, path);
            write(&meta, put(own.clone())).await;
            assert_eq!(write(&meta, remove(carol())).await, Changed::Done, "{path}");
            assert_eq!(write(&meta, delete(own.clone())).await, kept, "{path}");
            let add = group::Add {
                member: carol(),
                by: by("root"),
            };
            write(&meta, add).await;
            assert_eq!(write(&meta, delete(own)).await, Changed::Done);
            let other = bound("user", "eve", OWNER, path);
            write(&meta, put(other.clone())).await;
            assert_eq!(write(&meta, delete(held)).await, Changed::Done);
        }
    }
    // Its home and what lies below it are its own.
    for path in ["team/a", "team/a/b"] {
        write(&meta, put(bound("group", "keepers", OWNER, path))).await;
    }
    assert_eq!(write(&meta, remove(carol())).await, Changed::Done);
    let last = Changed::Last("team/a".into());
    assert_eq!(write(&meta, remove(robot("team/a+ci"))).await, last);
}

/// What ended before a time goes, and nothing else.
pub async fn bindings_that_ended_are_forgotten(meta: Meta) {
    let ends = |name: &str, expires_at: i64| Binding {
        expires_at,
        ..bound("user", name, "reader", "team")
    };
    for (name, end) in [("a", 0), ("b", NOW - 1), ("c", NOW), ("d", NOW + 1)] {
        write(&meta, put(ends(name, end))).await;
    }
    let forget = || binding::DeleteEnded {
        before: NOW,
        by: by("operator"),
    };
    assert_eq!(write(&meta, forget()).await, Changed::Done);
    assert_eq!(write(&meta, forget()).await, Changed::Same);
    let left: Vec<_> = bindings(&meta)
        .await
        .into_iter()
        .map(|one| one.name)
        .collect();
    assert_eq!(left, ["a", "c", "d"]);
}

/// Two owners, or two administrators, remove each other at once: one of them stays, each time.
pub async fn two_who_remove_each_other(meta: Meta) {
    for round in 0..24 {
        let (role, path) = match round % 2 {
            0 => (OWNER, format!("team/{round}")),
            _ => (ADMIN, String::new()),
        };
        let pair = ["alice", "bob"].map(|name| bound("user", name, role, &path));
        for binding in &pair {
            let made = write(&meta, put(binding.clone())).await;
            assert!(matches!(made, Changed::Done | Changed::Same), "{made:?}");
        }
        let tasks = pair.clone().map(|binding| {
            let meta = meta.clone();
            async move { write(&meta, delete(binding)).await }
        });
        let mut outcomes = super::concurrent::all(tasks).await;
        outcomes.sort_by_key(|outcome| *outcome != Changed::Done);
        assert_eq!(outcomes, [Changed::Done, Changed::Last(path)]);
        let left = bindings(&meta).await;
        assert_eq!(pair.iter().filter(|one| left.contains(one)).count(), 1);
    }
}

/// The last member leaves a group that owns while the other owner goes.
pub async fn an_owner_and_a_member_leave_at_once(meta: Meta) {
    for round in 0..16 {
        let (path, name) = (format!("team/{round}"), format!("group{round}"));
        let create = group::Create {
            name: name.clone(),
            by: by("root"),
        };
        write(&meta, create).await;
        let member = member(&name, "carol");
        let add = group::Add {
            member: member.clone(),
            by: by("root"),
        };
        write(&meta, add).await;
        let alice = bound("user", "alice", OWNER, &path);
        write(&meta, put(alice.clone())).await;
        write(&meta, put(bound("group", &name, OWNER, &path))).await;
        let (one, other) = (meta.clone(), meta.clone());
        let leave = async move {
            let remove = group::Remove {
                member,
                by: by("root"),
            };
            write(&one, remove).await
        };
        let go = async move { write(&other, delete(alice)).await };
        let (left, gone) = tokio::join!(tokio::spawn(leave), tokio::spawn(go));
        let (left, gone) = (left.unwrap(), gone.unwrap());
        let last = Changed::Last(path);
        assert!(
            (left == Changed::Done && gone == last) || (left == last && gone == Changed::Done),
            "{left:?} {gone:?}"
        );
    }
}

/// What has many rows goes in steps, and its rights with the first.
pub async fn large_groups_go_in_steps(meta: Meta) {
    let create = group::Create {
        name: "all".into(),
        by: by("root"),
    };
    write(&meta, create).await;
    write(&meta, put(bound("group", "all", "reader", "team"))).await;
    for n in 0..crate::access::STEP + 3 {
        let add = group::Add {
            member: member("all", &format!("u{n}")),
            by: by("root"),
        };
        assert_eq!(write(&meta, add).await, Changed::Done);
    }
    let gone = group::Delete {
        name: "all".into(),
        by: by("root"),
    };
    assert_eq!(write(&meta, gone.clone()).await, Changed::More);
    assert!(bindings(&meta).await.is_empty());
    assert_eq!(write(&meta, gone.clone()).await, Changed::Done);
    assert_eq!(write(&meta, gone).await, Changed::Unknown);
    let members = group::Members {
        after: None,
        limit: 9,
    };
    assert!(meta.scan(members).await.unwrap().is_empty());
}
