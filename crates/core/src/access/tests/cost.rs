//! What a question costs with 10,000 users, 1,000 groups and 50,000 bindings: as much as with those of one user alone.
//!
//! Counted in look-ups, which are the same on every machine and at every load.

use std::time::Instant;

use wharf_oci::RepositoryName;

use super::super::load::Rows;
use super::super::policy::looks;
use super::super::*;
use super::NOW;

const USERS: usize = 10_000;
const GROUPS: usize = 1_000;
const BINDINGS: usize = 50_000;

fn binding(subject: Subject, on: String) -> Binding {
    Binding {
        subject,
        role: "reader".into(),
        permissions: Role::Reader.permissions(),
        on,
        conditions: Conditions::default(),
        origin: Origin::Granted {
            by: "root".into(),
            at: NOW,
        },
    }
}

/// Every user is in ten groups, half of the bindings are groups', and all namespaces have several.
fn rows() -> Rows {
    let group = |n: usize| format!("g{}", n % GROUPS);
    let user = |n: usize| Subject::User(format!("u{}", n % USERS));
    let members = (0..USERS * 10).map(|n| (group(n * 7 + n / USERS), user(n)));
    let bindings = (0..BINDINGS).map(|n| {
        let on = match n % 3 {
            0 => format!("org{}", n % 97),
            1 => format!("org{}/team{}", n % 97, n % 31),
            _ => format!("org{}/team{}/app{}", n % 97, n % 31, n % 1_009),
        };
        match n % 2 {
            0 => binding(user(n), on),
            _ => binding(Subject::Group(group(n)), on),
        }
    });
    Rows {
        epoch: 1,
        members: members.collect(),
        bindings: bindings.collect(),
        ..Rows::default()
    }
}

/// The binding behind a change is named however many others there are, at the cost of a decision.
#[test]
fn the_rule_behind_a_change_is_found_among_fifty_thousand_bindings() {
    let mut all = rows();
    let place = "zoo/team/app";
    let mine = Binding {
        permissions: Role::Writer.permissions(),
        role: "writer".into(),
        ..binding(Subject::User("u7".into()), "zoo/team".into())
    };
    all.bindings.push(mine.clone());
    let policy = Policy::compile(&Rights::default(), &all).unwrap();
    let user = |name: &str| {
        Caller::direct(Principal::User {
            name: name.into(),
            source: Source::Local,
        })
    };
    let place = RepositoryName::parse(place).unwrap();
    let rule = |name: &str| {
        looks::reset();
        let caller = user(name);
        let found = policy.rule(&caller, Permission::Push, Some(&place), Tags::None);
        (found.cloned(), looks::count())
    };
    let (found, looked) = rule("u7");
    assert_eq!(found, Some(mine));
    assert!(looked <= 4 * (3 + 1 + 10), "{looked} look-ups");
    assert_eq!(rule("u8").0, None);
}

#[test]
fn a_decision_costs_no_more_with_fifty_thousand_bindings() {
    let all = rows();
    let began = Instant::now();
    let large = Policy::compile(&Rights::default(), &all).unwrap();
    let compiled = began.elapsed();
    let place = RepositoryName::parse("org1/team2/app3/image").unwrap();
    let mut spent = Duration::ZERO;
    for n in (0..USERS).step_by(97) {
        let name = format!("u{n}");
        let me = Subject::User(name.clone());
        let groups: Vec<_> = all
            .members
            .iter()
            .filter(|(_, who)| *who == me)
            .cloned()
            .collect();
        assert_eq!(groups.len(), 10);
        let mine = |one: &&Binding| {
            one.subject == me
                || groups
                    .iter()
                    .any(|(group, _)| one.subject == Subject::Group(group.clone()))
        };
        let alone = Rows {
            epoch: 1,
            bindings: all.bindings.iter().filter(mine).cloned().collect(),
            members: groups,
            ..Rows::default()
        };
        let small = Policy::compile(&Rights::default(), &alone).unwrap();
        let caller = Caller::direct(Principal::User {
            name: name.as_str().into(),
            source: Source::Local,
        });
        for permission in [Permission::Pull, Permission::Push] {
            let ask = |policy: &Policy| {
                looks::reset();
                let answer = policy.allow(&caller, permission, Some(&place));
                (answer, looks::count())
            };
            let (expected, _) = ask(&small);
            let began = Instant::now();
            let (answer, looked) = ask(&large);
            spent += began.elapsed();
            assert_eq!(answer, expected);
            // Everywhere and four borders; in each, everybody twice or three times, the user, ten groups.
            assert!(looked <= 5 * (3 + 1 + 10), "{looked} look-ups for {name}");
        }
    }
    eprintln!(
        "compiled in {compiled:?}; a decision took {:?}",
        spent / 208
    );
}
