//! Plans over real rows: what they say, that doing them twice does nothing, and who may.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::{Caller, Conditions, Principal, Source};
use super::*;
use crate::house::House;
use crate::workload::{Bearer, Condition, IssuerSettings, Kind, RuleSettings};

/// As the house has it.
const NOW: i64 = 1_000;

pub(super) struct Hall(House);

impl std::ops::Deref for Hall {
    type Target = House;

    fn deref(&self) -> &House {
        &self.0
    }
}

impl Hall {
    pub(super) async fn new() -> Self {
        Self(House::new().await)
    }

    pub(super) async fn plan(&self, wanted: &Wanted, prune: bool) -> Result<Plan, ApplyError> {
        plan(&self.registry, Changer::Operator, wanted, prune).await
    }

    /// Makes it so, and gives what was done, a line each.
    pub(super) async fn apply(&self, wanted: &Wanted, prune: bool) -> Vec<String> {
        let plan = self.plan(wanted, prune).await.unwrap();
        let applied = carry_out(&self.registry, Changer::Operator, &plan).await;
        assert!(applied.stopped.is_none(), "{:?}", applied.stopped);
        assert_eq!(applied.done, plan.steps.len());
        told(&plan)
    }

    pub(super) async fn grant(&self, line: &str) {
        let (access, granting) = (&self.registry.access, granting(line));
        let granted = access.grant(Changer::Operator, &granting, NOW);
        granted.await.unwrap();
    }
}

pub(super) fn told(plan: &Plan) -> Vec<String> {
    let line = |step: &Step| format!("{} {step}", step.act().as_str());
    plan.steps.iter().map(line).collect()
}

/// `WHO ROLE PATH`, an empty path being everywhere.
pub(super) fn granting(line: &str) -> Granting {
    let mut words = line.split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    Granting {
        subject: word().parse().unwrap(),
        role: word(),
        on: word(),
        conditions: Conditions::default(),
    }
}

pub(super) fn robot(name: &str) -> NewRobot {
    NewRobot {
        name: name.into(),
        ..NewRobot::default()
    }
}

pub(super) fn caller(name: &str) -> Caller {
    Caller::direct(Principal::User {
        name: name.into(),
        source: Source::Local,
    })
}

fn team() -> Wanted {
    Wanted {
        sources: Vec::new(),
        namespaces: vec![("team/a".into(), Visibility::Internal)],
        groups: vec![(
            "devs".into(),
            vec!["alice".parse().unwrap(), "team/a+ci".parse().unwrap()],
        )],
        robots: vec![robot("team/a+ci")],
        bindings: vec![
            granting("group:devs writer team/a"),
            granting("olga owner team/a"),
        ],
        ..Wanted::default()
    }
}

/// A CI service whose tokens count here.
pub(super) fn issuer(name: &str) -> WantedIssuer {
    let audiences = vec!["reg".to_owned()];
    WantedIssuer {
        name: name.into(),
        settings: IssuerSettings::new(Kind::Oidc, "https://ci.example", audiences),
    }
}

/// A rule on them that asks for this subject.
pub(super) fn rule(name: &str, issuer: &str, subject: &str) -> WantedRule {
    WantedRule {
        name: name.into(),
        issuer: issuer.into(),
        settings: RuleSettings {
            conditions: vec![Condition::equal("sub", subject)],
        },
    }
}

#[tokio::test]
async fn what_is_missing_is_made_once_and_secrets_stay() {
    let hall = Hall::new().await;
    let plan = hall.plan(&team(), false).await.unwrap();
    let expected = [
        "add namespace team/a: internal",
        "add group devs",
        "add robot team/a+ci",
        "add alice in group devs",
        "add team/a+ci in group devs",
        "add group:devs is writer on team/a",
        "add olga is owner on team/a",
    ];
    assert_eq!(told(&plan), expected);
    // A plan does nothing.
    assert_eq!(told(&hall.plan(&team(), false).await.unwrap()), expected);
    let applied = carry_out(&hall.registry, Changer::Operator, &plan).await;
    assert!(applied.stopped.is_none() && applied.done == 7);
    assert_eq!(applied.made.len(), 1);
    let name = wharf_oci::RepositoryName::parse("team/a/app").unwrap();
    let allowed = |who: &str| {
        let caller = caller(who);
        let access = &hall.registry.access;
        access.allow(&caller, Permission::Push, Some(&name))
    };
    assert!(allowed("alice") && allowed("olga") && !allowed("bob"));
    // Twice is once.
    for prune in [false, true] {
        assert_eq!(hall.apply(&team(), prune).await, Vec::<String>::new());
    }
    let auth = wharf_oci::Authorization::Basic {
        user: "team/a+ci".into(),
        password: applied.made[0].secret.reveal().into(),
    };
    let signed_in = hall.registry.access.authenticate(Some(&auth), NOW).await;
    assert!(signed_in.is_ok(), "the secret was touched");
}

#[tokio::test]
async fn what_is_not_named_stays_and_goes_only_when_that_is_asked_for() {
    let hall = Hall::new().await;
    hall.apply(&team(), false).await;
    hall.grant("bob reader team/a").await;
    hall.grant("bob owner team/b").await;
    hall.grant("carol reader").await;
    let more = Wanted {
        sources: Vec::new(),
        namespaces: vec![("team/c".into(), Visibility::Public)],
        groups: vec![("others".into(), vec!["dave".parse().unwrap()])],
        robots: vec![robot("team/b+bot")],
        bindings: vec![
            granting("team/b+bot reader team/b"),
            granting("group:others reader team/c"),
        ],
        ..Wanted::default()
    };
    hall.apply(&more, false).await;
    let mut wanted = team();
    wanted.groups[0].1.remove(0);
    assert_eq!(hall.apply(&wanted, false).await, Vec::<String>::new());
    let gone = hall.apply(&wanted, true).await;
    assert_eq!(
        gone,
        [
            "remove carol is reader everywhere",
            "remove bob is reader on team/a",
            "remove settings of namespace team/b, and team/b+bot is reader on team/b, and bob is owner on team/b",
            "remove settings of namespace team/c, and group:others is reader on team/c",
            "remove alice in group devs",
            "remove group others",
            "remove robot team/b+bot, with its secrets",
        ]
    );
    assert_eq!(hall.apply(&wanted, true).await, Vec::<String>::new());
    let left = export(&hall.registry).await.unwrap();
    assert_eq!(left.bindings.len(), 2);
    assert_eq!(
        (left.groups.len(), left.robots.len(), left.namespaces.len()),
        (1, 1, 1)
    );
}

#[tokio::test]
async fn an_owner_is_replaced_and_the_last_one_stays() {
    let hall = Hall::new().await;
    hall.grant("olga owner team/a").await;
    let wanted = Wanted {
        bindings: vec![granting("alice owner team/a")],
        ..Wanted::default()
    };
    assert_eq!(
        hall.apply(&wanted, true).await,
        [
            "add alice is owner on team/a",
            "remove olga is owner on team/a"
        ]
    );
    // Something on the namespace is named, so it is not given up, and somebody has to own it.
    let wanted = Wanted {
        bindings: vec![granting("bob reader team/a"), granting("bob reader team/b")],
        ..Wanted::default()
    };
    let plan = hall.plan(&wanted, true).await.unwrap();
    let applied = carry_out(&hall.registry, Changer::Operator, &plan).await;
    assert_eq!(applied.done, 2);
    let stopped = applied.stopped.unwrap().to_string();
    assert!(stopped.contains("the last owner of team/a"), "{stopped}");
    // What was done stays, and is not done again.
    assert_eq!(
        told(&hall.plan(&wanted, true).await.unwrap()),
        ["remove alice is owner on team/a"]
    );
}

#[tokio::test]
async fn exactly_the_binding_that_is_not_named_goes() {
    let hall = Hall::new().await;
    let limited = |tags: Option<&str>| Granting {
        conditions: Conditions {
            tags: tags.map(|tags| tags.parse().unwrap()),
            ..Conditions::default()
        },
        ..granting("alice writer team/a")
    };
    let wanted = |bindings| Wanted {
        bindings,
        ..Wanted::default()
    };
    let all = wanted(vec![
        limited(None),
        limited(Some("v*")),
        limited(Some("w*")),
    ]);
    assert_eq!(hall.apply(&all, false).await.len(), 3);
    let one = wanted(vec![limited(Some("v*"))]);
    assert_eq!(
        hall.apply(&one, true).await,
        [
            "remove alice is writer on team/a",
            "remove alice is writer on team/a (tags w*)"
        ]
    );
    assert_eq!(hall.apply(&one, true).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_grant_that_is_over_is_neither_made_nor_a_mistake() {
    let hall = Hall::new().await;
    let wanted = Wanted {
        bindings: vec![Granting {
            conditions: Conditions {
                expires_at: Some(NOW + 1_000),
                ..Conditions::default()
            },
            ..granting("alice reader team/a")
        }],
        ..Wanted::default()
    };
    let first = hall.plan(&wanted, false).await.unwrap();
    assert_eq!(first.steps.len(), 1);
    hall.clock.advance(2_000);
    assert_eq!(hall.apply(&wanted, true).await, Vec::<String>::new());
}

#[tokio::test]
async fn whoever_changes_rights_meanwhile_stops_it() {
    let hall = Hall::new().await;
    let plan = hall.plan(&team(), false).await.unwrap();
    hall.grant("bob reader team/z").await;
    let applied = carry_out(&hall.registry, Changer::Operator, &plan).await;
    assert_eq!(applied.done, 0);
    let stopped = applied.stopped.unwrap();
    assert!(matches!(stopped, ApplyError::Changed));
    assert!(stopped.to_string().contains("run it again"));
    assert_eq!(hall.apply(&team(), false).await.len(), 7);
}

#[tokio::test]
async fn nobody_applies_what_they_may_not_do_by_hand() {
    let hall = Hall::new().await;
    hall.grant("olga owner team/a").await;
    hall.grant("carol admin team/b").await;
    hall.apply(&team(), false).await;
    let olga = caller("olga");
    let ask = async |wanted: Wanted, prune| {
        let plan = plan(&hall.registry, Changer::Caller(&olga), &wanted, prune).await;
        plan.map(|plan| told(&plan))
            .map_err(|error| error.to_string())
    };
    let one = |line: &str| Wanted {
        bindings: vec![granting(line)],
        ..Wanted::default()
    };
    assert_eq!(
        ask(one("bob writer team/a"), false).await.unwrap(),
        ["add bob is writer on team/a"]
    );
    for (wanted, part) in [
        // What is there is judged, too: nobody learns of it here.
        (one("carol admin team/b"), "may not grant rights on team/b"),
        (one("bob reader team/x"), "may not grant rights on team/x"),
        (one("bob admin team/a"), "cannot give or take"),
        (one("bob reader"), "may not"),
        (
            Wanted {
                groups: vec![("devs".into(), vec![])],
                ..Wanted::default()
            },
            "may not make groups",
        ),
        (
            Wanted {
                robots: vec![robot("team/b+bot")],
                ..Wanted::default()
            },
            "may not make robots of team/b",
        ),
        (
            Wanted {
                namespaces: vec![("team/b".into(), Visibility::Private)],
                ..Wanted::default()
            },
            "may not change the settings of team/b",
        ),
    ] {
        let error = ask(wanted, false).await.unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    // Pruning reaches as far as they manage, and no further.
    let kept = Wanted {
        bindings: vec![granting("olga owner team/a")],
        ..Wanted::default()
    };
    assert_eq!(
        ask(kept, true).await.unwrap(),
        [
            "remove group:devs is writer on team/a",
            "change namespace team/a: internal → private",
            "remove robot team/a+ci, with its secrets"
        ]
    );
}

#[tokio::test]
async fn mistakes_are_told_before_anything_is_done() {
    let hall = Hall::new().await;
    hall.grant("dave reader team/a").await;
    let twice = |mut wanted: Wanted| {
        let also = wanted.clone();
        wanted.namespaces.extend(also.namespaces);
        wanted.groups.extend(also.groups);
        wanted.robots.extend(also.robots);
        wanted
    };
    let just = |change: fn(&mut Wanted)| {
        let mut wanted = Wanted::default();
        change(&mut wanted);
        wanted
    };
    for (wanted, part) in [
        (
            twice(just(|w| w.namespaces = team().namespaces)),
            "namespace team/a is named twice",
        ),
        (
            twice(just(|w| w.groups = team().groups)),
            "group devs is named twice",
        ),
        (
            twice(just(|w| w.robots = team().robots)),
            "robot team/a+ci is named twice",
        ),
        (
            just(|w| w.bindings = vec![granting("group:none reader a")]),
            "there is no group none",
        ),
        (
            just(|w| w.bindings = vec![granting("alice raeder a")]),
            "there is no role \"raeder\"",
        ),
        (
            just(|w| w.bindings = vec![granting("team/a+ci reader b")]),
            "belongs to team/a",
        ),
        (
            just(|w| w.bindings = vec![granting("anonymous admin")]),
            "cannot be admin",
        ),
        (just(|w| w.bindings = vec![granting("alice reader A")]), "A"),
        (
            just(|w| w.groups = vec![("G".into(), vec![])]),
            "group \"G\"",
        ),
        (
            just(|w| w.groups = vec![("g".into(), vec!["group:h".parse().unwrap()])]),
            "cannot be in group g",
        ),
        (
            just(|w| w.namespaces = vec![(String::new(), Visibility::Public)]),
            "needs a path",
        ),
        (
            just(|w| {
                w.robots = vec![NewRobot {
                    lifetime: Some(0),
                    ..robot("a+b")
                }]
            }),
            "must be longer than nothing",
        ),
        (
            just(|w| {
                w.bindings = (0..=MOST_STEPS)
                    .map(|n| granting(&format!("u{n} reader a")))
                    .collect()
            }),
            "split the file",
        ),
    ] {
        let error = hall.plan(&wanted, false).await.unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
}

fn anything() -> impl Strategy<Value = Wanted> {
    let path = || prop::sample::select(vec!["a", "a/b", "c"]);
    let visibility = prop::sample::select(&Visibility::ALL[..]);
    let group = || prop::sample::select(vec!["g", "h"]);
    let user = || prop::sample::select(vec!["alice", "bob"]);
    let role = prop::sample::select(vec!["reader", "writer", "maintainer"]);
    let tags = prop::option::of(prop::sample::select(vec!["v*", "w*"]));
    let who = prop_oneof![
        user().prop_map(str::to_owned),
        Just("signed-in".to_owned()),
        Just("group:g".to_owned())
    ];
    let binding = (who, role, prop_oneof![path(), Just("")], tags);
    (
        proptest::collection::btree_map(path(), visibility, 0..3),
        proptest::collection::btree_map(
            group(),
            proptest::collection::btree_set(user(), 0..3),
            0..3,
        ),
        proptest::collection::btree_set(prop::sample::select(vec!["a+ci", "a/b+ci"]), 0..3),
        proptest::collection::vec(binding, 0..6),
    )
        .prop_map(|(namespaces, groups, robots, bindings)| {
            let mut groups: Vec<(String, Vec<Subject>)> = (groups.into_iter())
                .map(|(name, members)| {
                    let members = members.iter().map(|who| who.parse().unwrap());
                    (name.to_owned(), members.collect())
                })
                .collect();
            if !groups.iter().any(|(name, _)| name == "g") {
                groups.push(("g".into(), Vec::new()));
            }
            let namespaces = namespaces.into_iter();
            Wanted {
                sources: Vec::new(),
                namespaces: namespaces.map(|(path, to)| (path.to_owned(), to)).collect(),
                groups,
                robots: robots.into_iter().map(robot).collect(),
                bindings: (bindings.into_iter())
                    .map(|(who, role, on, tags)| Granting {
                        conditions: Conditions {
                            tags: tags.map(|tags| tags.parse().unwrap()),
                            ..Conditions::default()
                        },
                        ..granting(&format!("{who} {role} {on}"))
                    })
                    .collect(),
                ..Wanted::default()
            }
        })
}

/// What a state says, without order.
fn said(wanted: &Wanted) -> BTreeSet<String> {
    // One without an entry is private.
    let open = |(_, visibility): &&(String, Visibility)| *visibility != Visibility::Private;
    let namespaces = wanted.namespaces.iter().filter(open);
    let namespaces = namespaces.map(|one| format!("{one:?}"));
    let members = wanted.groups.iter().flat_map(|(group, members)| {
        let member = move |who: &Subject| format!("{who} in {group}");
        std::iter::once(format!("group {group}")).chain(members.iter().map(member))
    });
    let robots = wanted.robots.iter().map(|robot| robot.name.clone());
    let bindings = wanted.bindings.iter().map(|one| format!("{one:?}"));
    namespaces
        .chain(members)
        .chain(robots)
        .chain(bindings)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn applied_twice_is_applied_once_and_what_is_exported_is_there(first in anything(), then in anything()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let hall = Hall::new().await;
            for wanted in [&first, &then] {
                hall.apply(wanted, false).await;
                assert_eq!(hall.apply(wanted, false).await, Vec::<String>::new());
            }
            let both = said(&export(&hall.registry).await.unwrap());
            assert!(said(&then).is_subset(&both), "{both:?}");
            // Pruned, exactly what is wanted is left.
            hall.apply(&then, true).await;
            assert_eq!(hall.apply(&then, true).await, Vec::<String>::new());
            let state = export(&hall.registry).await.unwrap();
            assert_eq!(said(&state), said(&then));
            for prune in [false, true] {
                assert_eq!(hall.apply(&state, prune).await, Vec::<String>::new());
            }
        });
    }
}

/// A file with something of every kind, and what is there before it.
fn large() -> Wanted {
    let bindings = (0..6).map(|n| granting(&format!("u{n} reader team/a{n}")));
    let mut wanted = team();
    wanted.bindings.extend(bindings);
    wanted
        .namespaces
        .push(("team/b".into(), Visibility::Public));
    wanted.issuers = vec![issuer("ci"), issuer("new")];
    wanted.rules = vec![rule("deploy", "ci", "after"), rule("new", "new", "x")];
    let role = |name: &str, permission| (name.to_owned(), [permission].into_iter().collect());
    wanted.roles = vec![
        role("scan", Permission::Catalog),
        role("new", Permission::Pull),
    ];
    wanted.bindings.push(granting("workload:new new team/b"));
    wanted
}

/// Whose tokens are trusted is made, changed and removed like all else; what is granted to a rule names it.
#[tokio::test]
async fn workloads_are_part_of_it_and_their_secrets_are_not() {
    let hall = Hall::new().await;
    let access = &hall.registry.access;
    let wanted = Wanted {
        issuers: vec![issuer("ci")],
        rules: vec![rule("deploy", "ci", "job")],
        groups: vec![("devs".into(), vec!["workload:deploy".parse().unwrap()])],
        bindings: vec![granting("workload:deploy writer team/a")],
        ..Wanted::default()
    };
    let added = [
        "add issuer ci: oidc at https://ci.example",
        "add rule deploy on tokens of ci",
        "add group devs",
        "add workload:deploy in group devs",
        "add workload:deploy is writer on team/a",
    ];
    assert_eq!(hall.apply(&wanted, false).await, added);
    assert!(hall.apply(&wanted, true).await.is_empty());
    // A secret stays, is not told, and stays where it was given for.
    let bearer = Bearer::Set(crate::access::Password::new("the-secret"));
    let settings = &wanted.issuers[0].settings;
    let put = access.put_issuer(Changer::Operator, "ci", settings, &bearer, None, NOW);
    put.await.unwrap();
    let exported = export(&hall.registry).await.unwrap();
    assert_eq!(
        (&exported.issuers, &exported.rules),
        (&wanted.issuers, &wanted.rules)
    );
    assert!(!format!("{exported:?}").contains("the-secret"));
    let mut other = wanted.clone();
    other.issuers[0].settings.session = 600;
    other.rules[0] = rule("deploy", "ci", "another");
    let changed = [
        "change issuer ci: oidc at https://ci.example",
        "change rule deploy on tokens of ci",
    ];
    assert_eq!(hall.apply(&other, true).await, changed);
    assert!(access.workloads().trust().issuers["ci"].has_bearer);
    other.issuers[0].settings.issuer = "https://evil.example".into();
    let refused = hall.plan(&other, false).await.unwrap_err();
    assert!(refused.to_string().contains("bearer token"), "{refused}");
    // What cannot be meant, and who may not.
    let mut alone = wanted.clone();
    alone.rules.push(rule("x", "nobody", "x"));
    let refused = hall.plan(&alone, false).await.unwrap_err();
    assert!(
        refused.to_string().contains("there is no issuer nobody"),
        "{refused}"
    );
    let mut twice = wanted.clone();
    twice.rules.push(rule("deploy", "ci", "x"));
    assert!(hall.plan(&twice, false).await.is_err());
    hall.grant("olga owner team/z").await;
    let olga = caller("olga");
    for only in [
        Wanted {
            issuers: vec![issuer("mine")],
            ..Wanted::default()
        },
        Wanted {
            rules: vec![rule("mine", "ci", "x")],
            ..Wanted::default()
        },
    ] {
        let refused = plan(&hall.registry, Changer::Caller(&olga), &only, false).await;
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .contains("change whose tokens are trusted")
        );
    }
    let by_olga = plan(
        &hall.registry,
        Changer::Caller(&olga),
        &Wanted::default(),
        true,
    )
    .await
    .unwrap();
    assert!(
        !told(&by_olga)
            .iter()
            .any(|line| line.contains("rule ") || line.contains("issuer "))
    );
    // What is spoken of stays; then all of it goes, rules first.
    let spoken = Wanted {
        bindings: wanted.bindings.clone(),
        ..Wanted::default()
    };
    let gone = hall.apply(&spoken, true).await;
    assert!(
        !gone
            .iter()
            .any(|line| line.contains("remove rule") || line.contains("remove issuer")),
        "{gone:?}"
    );
    let gone = hall.apply(&Wanted::default(), true).await;
    let at = |text: &str| gone.iter().position(|line| line == text);
    assert!(
        at("remove rule deploy, with what it was granted") < at("remove issuer ci"),
        "{gone:?}"
    );
    assert!(at("remove issuer ci").is_some());
}

/// A registry that has too much for [`large`], and too little.
async fn begun() -> Hall {
    let hall = Hall::new().await;
    let there = Wanted {
        sources: Vec::new(),
        namespaces: vec![("team/a".into(), Visibility::Public)],
        roles: vec![
            ("scan".into(), [Permission::Pull].into_iter().collect()),
            ("old".into(), [Permission::Pull].into_iter().collect()),
        ],
        groups: vec![
            ("devs".into(), vec!["zoe".parse().unwrap()]),
            ("gone".into(), vec!["zoe".parse().unwrap()]),
        ],
        robots: vec![robot("team/b+old")],
        issuers: vec![issuer("ci"), issuer("old")],
        rules: vec![rule("deploy", "ci", "before"), rule("old", "old", "x")],
        bindings: vec![
            granting("workload:old old team/a"),
            granting("group:gone reader team/a"),
            granting("zoe writer team/a"),
            granting("zoe owner team/z"),
        ],
    };
    hall.apply(&there, false).await;
    hall
}

/// What there is, in an order of its own.
async fn exported(hall: &Hall) -> String {
    let Wanted {
        namespaces,
        mut groups,
        robots,
        bindings,
        sources,
        issuers,
        rules,
        mut roles,
    } = export(&hall.registry).await.unwrap();
    groups.sort_by(|one, other| one.0.cmp(&other.0));
    roles.sort_by(|one, other| one.0.cmp(&other.0));
    for (_, members) in &mut groups {
        members.sort();
    }
    let robots: Vec<_> = robots.into_iter().map(|robot| robot.name).collect();
    let mut bindings: Vec<_> = bindings.iter().map(|one| format!("{one:?}")).collect();
    bindings.sort();
    format!(
        "{namespaces:?} {groups:?} {sources:?} {robots:?} {bindings:?} {issuers:?} {rules:?} {roles:?}"
    )
}

/// The process dies between two steps, wherever that is: what was done stays, and the next run does the rest and nothing twice.
#[tokio::test]
async fn what_was_cut_off_between_two_steps_is_finished_by_the_next_run() {
    let hall = begun().await;
    let steps = told(&hall.plan(&large(), true).await.unwrap());
    hall.apply(&large(), true).await;
    let whole = exported(&hall).await;
    for done in 0..steps.len() {
        let hall = begun().await;
        let mut plan = hall.plan(&large(), true).await.unwrap();
        plan.steps.truncate(done);
        let applied = carry_out(&hall.registry, Changer::Operator, &plan).await;
        assert!(applied.stopped.is_none() && applied.done == done);
        let rest = hall.apply(&large(), true).await;
        assert_eq!(rest, steps[done..], "after {done}");
        assert_eq!(exported(&hall).await, whole);
        assert!(hall.apply(&large(), true).await.is_empty());
    }
}

/// The request is dropped at any of its awaits, in the middle of a step too.
#[tokio::test]
async fn what_was_cut_off_anywhere_is_finished_by_the_next_run() {
    let hall = begun().await;
    hall.apply(&large(), true).await;
    let whole = exported(&hall).await;
    let mut cut = 0;
    for polls in (0..).step_by(3) {
        let hall = begun().await;
        let plan = hall.plan(&large(), true).await.unwrap();
        let mut left = polls;
        let mut work = Box::pin(carry_out(&hall.registry, Changer::Operator, &plan));
        let ended = std::future::poll_fn(|context| {
            if left == 0 {
                return std::task::Poll::Ready(None);
            }
            left -= 1;
            work.as_mut().poll(context).map(Some)
        });
        let ended = ended.await;
        drop(work);
        // What was written for the one that is gone is written; then the rest.
        hall.apply(&large(), true).await;
        assert_eq!(exported(&hall).await, whole, "cut off after {polls}");
        assert!(hall.apply(&large(), true).await.is_empty());
        if ended.is_some() {
            break;
        }
        cut += 1;
    }
    assert!(cut > 5, "{cut}");
}

/// A thousand changes read what they change: not one of them reads all rights anew.
#[tokio::test]
async fn many_changes_are_followed_one_by_one() {
    use super::super::load::loads::{LOADS, ROWS};

    let hall = Hall::new().await;
    hall.grant("first reader team").await;
    let bindings = (0..1_000).map(|n| granting(&format!("u{n} reader team/a{}", n % 7)));
    let wanted = Wanted {
        bindings: bindings.collect(),
        ..Wanted::default()
    };
    let before = (LOADS.get(), ROWS.get());
    assert_eq!(hall.apply(&wanted, false).await.len(), 1_000);
    assert_eq!((LOADS.get() - before.0, ROWS.get() - before.1), (0, 1_000));
    assert_eq!(hall.apply(&Wanted::default(), true).await.len(), 1_001);
    assert_eq!(LOADS.get() - before.0, 0);
}
