//! Rights of the configuration, compiled; those in rows are in `tests/model.rs`.

use super::*;
use proptest::prelude::*;

fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

fn user(name: &str, source: Source) -> Caller {
    Caller::direct(Principal::User {
        name: name.into(),
        source,
    })
}

fn grant(who: &str, role: Role, on: &str) -> Grant {
    Grant {
        who: Who::parse(who).unwrap(),
        role,
        on: (!on.is_empty()).then(|| on.to_owned()),
    }
}

fn policy(grants: &[Grant]) -> Policy {
    Policy::new(Role::None, Role::None, grants).unwrap()
}

#[test]
fn a_grant_holds_on_borders_of_the_path_only() {
    let policy = policy(&[grant("alice", Role::Reader, "team/a")]);
    let alice = user("alice", Source::Htpasswd);
    for (repository, allowed) in [
        ("team/a", true),
        ("team/a/b/c", true),
        ("team/ab", false),
        ("team", false),
        ("other/team/a", false),
        ("team/a-b", false),
        ("team/a.b", false),
    ] {
        assert_eq!(
            policy.allow(&alice, Permission::Pull, Some(&name(repository))),
            allowed,
            "{repository}"
        );
    }
}

#[test]
fn what_anonymous_may_everybody_may() {
    let policy = Policy::new(
        Role::None,
        Role::None,
        &[grant("anonymous", Role::Reader, "public")],
    )
    .unwrap();
    for principal in [
        Caller::anonymous(),
        user("x", Source::Htpasswd),
        user("y", Source::Local),
    ] {
        assert!(policy.allow(&principal, Permission::Pull, Some(&name("public/a"))));
        assert!(!policy.allow(&principal, Permission::Push, Some(&name("public/a"))));
        assert!(policy.allow(&principal, Permission::Catalog, None));
    }
}

#[test]
fn only_the_local_admin_is_born_an_administrator() {
    let policy = Policy::new(Role::None, Role::Writer, &[]).unwrap();
    assert!(policy.allow(&user(ADMIN, Source::Local), Permission::Admin, None));
    assert!(!policy.allow(&user(ADMIN, Source::Htpasswd), Permission::Admin, None));
    assert!(!policy.allow(
        &user("alice", Source::Local),
        Permission::Pull,
        Some(&name("a"))
    ));
    assert!(policy.allow(
        &user("alice", Source::Htpasswd),
        Permission::Push,
        Some(&name("a"))
    ));
}

#[test]
fn admin_below_a_prefix_does_not_run_the_registry() {
    let policy = policy(&[grant("alice", Role::Admin, "team")]);
    let alice = user("alice", Source::Htpasswd);
    assert!(policy.allow(&alice, Permission::Admin, Some(&name("team/a"))));
    assert!(!policy.allow(&alice, Permission::Admin, None));
    assert!(!policy.allow(&alice, Permission::Delete, None));
}

#[test]
fn grants_that_cannot_be_meant_are_refused_with_the_way_out() {
    let refused = |grant: Grant| {
        Policy::new(Role::None, Role::None, &[grant])
            .unwrap_err()
            .to_string()
    };
    for on in [
        "Team",
        "/team",
        "team//a",
        "*",
        "team/*",
        "te am",
        "team/a:v1",
        "/",
    ] {
        let error = refused(grant("alice", Role::Reader, on));
        assert!(
            error.contains(&format!("{on:?}")) && error.contains("leave `on` out"),
            "{error}"
        );
    }
    assert!(refused(grant("anonymous", Role::Admin, "team")).contains("maintainer is the most"));
    assert!(Policy::new(Role::Admin, Role::None, &[]).is_err());
    for who in ["", "a:b", "a\nb"] {
        assert!(
            Who::parse(who)
                .unwrap_err()
                .to_string()
                .contains(&format!("{who:?}"))
        );
    }
    assert_eq!(
        policy(&[grant("alice", Role::Reader, "team/")])
            .prefixes_for(&user("alice", Source::Htpasswd), Permission::Pull),
        Some(vec!["team".to_owned()])
    );
}

#[test]
fn prefixes_are_sorted_and_none_lies_within_another() {
    let grants = [
        ("a/b/c", Role::Reader),
        ("z", Role::Writer),
        ("a/b", Role::Reader),
        ("a-b", Role::Reader),
        ("a/c", Role::None),
    ];
    let policy = policy(&grants.map(|(on, role)| grant("alice", role, on)));
    let alice = user("alice", Source::Htpasswd);
    assert_eq!(
        policy.prefixes_for(&alice, Permission::Pull).unwrap(),
        ["a-b", "a/b", "z"]
    );
    assert_eq!(
        policy.prefixes_for(&alice, Permission::Push).unwrap(),
        ["z"]
    );
    assert!(
        policy
            .prefixes_for(&alice, Permission::Delete)
            .unwrap()
            .is_empty()
    );
    assert!(
        policy
            .prefixes_for(&user(ADMIN, Source::Local), Permission::Pull)
            .is_none()
    );
}

/// The same rights, told without any cleverness.
fn model(
    anonymous: Role,
    htpasswd: Role,
    grants: &[Grant],
    caller: &Caller,
    permission: Permission,
    repository: &RepositoryName,
) -> bool {
    let principal = &caller.principal;
    let mut roles = vec![anonymous];
    match principal {
        Principal::Anonymous => {}
        Principal::User {
            source: Source::Htpasswd,
            ..
        } => roles.push(htpasswd),
        Principal::User {
            name,
            source: Source::Local,
        } if &**name == "admin" => roles.push(Role::Admin),
        Principal::User { .. } | Principal::Robot { .. } | Principal::Workload { .. } => {}
    }
    for grant in grants {
        let name = principal.name().to_owned();
        let mine = grant.who == Who::Anonymous
            || grant.who
                == match principal {
                    Principal::Robot { .. } => Who::Robot(name),
                    _ => Who::User(name),
                };
        if mine && repository.is_within(grant.on.as_deref().unwrap_or("")) {
            roles.push(grant.role);
        }
    }
    roles
        .into_iter()
        .any(|role| role.permissions().contains(permission))
}

fn paths() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop::sample::select(vec!["a", "b", "ab", "a-b"]), 1..4)
        .prop_map(|parts| parts.join("/"))
}

fn grants() -> impl Strategy<Value = Vec<Grant>> {
    let one = (
        prop::sample::select(vec!["anonymous", "alice", "bob", "admin", "a/b+ci", "a+ci"]),
        prop::sample::select(&Role::ALL),
        prop::option::of(paths()),
    );
    let one = one.prop_map(|(who, role, on)| {
        let who = Who::parse(who).unwrap();
        let public = role.permissions().within(Role::Maintainer.permissions());
        let role = match who {
            Who::Anonymous if !public => Role::Maintainer,
            _ => role,
        };
        Grant { who, role, on }
    });
    proptest::collection::vec(one, 0..8)
}

fn principals() -> impl Strategy<Value = Caller> {
    prop::sample::select(vec![
        Caller::anonymous(),
        user("alice", Source::Htpasswd),
        user("bob", Source::Local),
        user("admin", Source::Local),
        user("carol", Source::Htpasswd),
        Caller::direct(Principal::Robot {
            name: "a/b+ci".into(),
        }),
    ])
}

fn low() -> impl Strategy<Value = Role> {
    prop::sample::select(vec![
        Role::None,
        Role::Reader,
        Role::Writer,
        Role::Maintainer,
    ])
}

proptest! {
    #[test]
    fn the_compiled_rights_are_those_of_the_model(
        anonymous in low(), htpasswd in low(), grants in grants(), principal in principals(), path in paths(),
    ) {
        let policy = Policy::new(anonymous, htpasswd, &grants).unwrap();
        let repository = name(&path);
        for permission in Permission::ALL {
            let expected = model(anonymous, htpasswd, &grants, &principal, permission, &repository);
            prop_assert_eq!(policy.allow(&principal, permission, Some(&repository)), expected);
            let listed = policy.prefixes_for(&principal, permission);
            let within = listed.is_none_or(|prefixes| prefixes.iter().any(|prefix| repository.is_within(prefix)));
            prop_assert_eq!(within, expected, "listing shows exactly what is allowed");
        }
    }

    #[test]
    fn one_more_grant_takes_nothing_away(
        grants in grants(), more in grants(), principal in principals(), path in paths(),
    ) {
        let before = Policy::new(Role::None, Role::None, &grants).unwrap();
        let after = Policy::new(Role::None, Role::None, &[grants, more].concat()).unwrap();
        let repository = name(&path);
        for permission in Permission::ALL {
            for on in [Some(&repository), None] {
                prop_assert!(!before.allow(&principal, permission, on) || after.allow(&principal, permission, on));
            }
        }
    }

    #[test]
    fn rights_reach_down_and_never_up(grants in grants(), principal in principals(), path in paths(), below in paths()) {
        let policy = Policy::new(Role::None, Role::None, &grants).unwrap();
        let (upper, lower) = (name(&path), name(&format!("{path}/{below}")));
        for permission in Permission::ALL {
            prop_assert!(!policy.allow(&principal, permission, Some(&upper)) || policy.allow(&principal, permission, Some(&lower)));
            prop_assert!(permission == Permission::Catalog || !policy.allow(&principal, permission, None) || policy.allow(&principal, permission, Some(&upper)));
        }
    }

    #[test]
    fn the_order_of_grants_does_not_matter(grants in grants(), principal in principals(), path in paths()) {
        let reversed: Vec<_> = grants.iter().rev().cloned().collect();
        let (one, two) = (policy(&grants), policy(&reversed));
        for permission in Permission::ALL {
            prop_assert_eq!(one.allow(&principal, permission, Some(&name(&path))), two.allow(&principal, permission, Some(&name(&path))));
            prop_assert_eq!(one.prefixes_for(&principal, permission), two.prefixes_for(&principal, permission));
        }
    }
}
