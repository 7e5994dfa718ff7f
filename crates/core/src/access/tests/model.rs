//! The rights once more, told without any cleverness, and compared with the compiled ones over random sets: groups, roles,
//! conditions, visibility, configuration, narrowed credentials.

use std::net::IpAddr;
use std::sync::Arc;

use proptest::prelude::*;
use wharf_oci::RepositoryName;

use super::super::load::Rows;
use super::super::*;

/// One random line of rights, in words.
#[derive(Debug, Clone)]
struct Line {
    who: &'static str,
    permissions: Vec<Permission>,
    on: &'static str,
    until: Option<i64>,
    network: Option<&'static str>,
    tags: Option<&'static str>,
    sign_in: Option<SignIn>,
}

const PATHS: [&str; 6] = ["", "a", "a/b", "ab", "a/b/c", "b"];
const PEOPLE: [&str; 10] = [
    "anonymous",
    "signed-in",
    "alice",
    "bob",
    "a+ci",
    "group:one",
    "group:two",
    "group:empty",
    "workload:deploy",
    "workload:nightly",
];
const NOW: i64 = 1_000;

fn lines() -> impl Strategy<Value = Vec<Line>> {
    let conditions = (
        prop::option::weighted(0.2, prop::sample::select(vec![NOW - 1, NOW, NOW + 1])),
        prop::option::weighted(
            0.2,
            prop::sample::select(vec!["10.0.0.0/8", "10.1.0.0/16", "::/0"]),
        ),
        prop::option::weighted(0.2, prop::sample::select(vec!["v*", "v?", "*", "latest"])),
        prop::option::weighted(0.2, prop::sample::select(SignIn::ALL.to_vec())),
    );
    let one = (
        prop::sample::select(PEOPLE.to_vec()),
        proptest::collection::vec(prop::sample::select(Permission::ALL.to_vec()), 1..4),
        prop::sample::select(PATHS.to_vec()),
        conditions,
    );
    let one = one.prop_map(
        |(who, permissions, on, (until, network, tags, sign_in))| Line {
            who,
            permissions,
            on,
            until,
            network,
            tags,
            sign_in,
        },
    );
    proptest::collection::vec(one, 0..10)
}

/// Pairs of group and member.
fn members() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    let one = (
        prop::sample::select(vec!["one", "two"]),
        prop::sample::select(vec!["alice", "bob", "a+ci", "carol", "workload:nightly"]),
    );
    proptest::collection::vec(one, 0..5)
}

#[derive(Debug, Clone)]
struct Question {
    who: &'static str,
    permission: Permission,
    on: &'static str,
    tag: Option<Option<&'static str>>,
    address: Option<&'static str>,
    sign_in: SignIn,
    narrow: Option<(Permission, &'static str)>,
}

fn questions() -> impl Strategy<Value = Question> {
    (
        prop::sample::select(vec![
            "anonymous",
            "alice",
            "bob",
            "a+ci",
            "carol",
            "admin",
            // Machines whose tokens match one rule, both, and one that is granted nothing.
            "deploy",
            "deploy,nightly",
            "other",
        ]),
        prop::sample::select(Permission::ALL.to_vec()),
        prop::sample::select(vec!["a", "a/b", "a/b/c", "ab", "b/x", "c"]),
        prop::sample::select(vec![
            None,
            Some(None),
            Some(Some("v1")),
            Some(Some("v10")),
            Some(Some("latest")),
        ]),
        prop::sample::select(vec![
            None,
            Some("10.0.0.1"),
            Some("10.1.2.3"),
            Some("11.0.0.1"),
            Some("2001:db8::1"),
        ]),
        prop::sample::select(SignIn::ALL.to_vec()),
        prop::option::weighted(
            0.3,
            (
                prop::sample::select(Permission::ALL.to_vec()),
                prop::sample::select(PATHS.to_vec()),
            ),
        ),
    )
        .prop_map(
            |(who, permission, on, tag, address, sign_in, narrow)| Question {
                who,
                permission,
                on,
                tag,
                address,
                sign_in,
                narrow,
            },
        )
}

/// The model: every line is looked at, every condition in words.
fn model(lines: &[Line], members: &[(&str, &str)], asked: &Question) -> bool {
    if let Some((permission, on)) = asked.narrow
        && (permission != asked.permission || !lies_in(asked.on, on))
    {
        return false;
    }
    if asked.who == "admin" {
        return true;
    }
    // A machine is in all groups of all its rules, and has what is granted to any of them.
    let rules = rules(asked.who);
    let named = |who: &str| match who.strip_prefix("workload:") {
        Some(rule) => rules.contains(&rule),
        None => who == asked.who && rules.is_empty(),
    };
    lines.iter().any(|line| {
        let me = match line.who {
            "anonymous" => true,
            "signed-in" => asked.who != "anonymous",
            who => match who.strip_prefix("group:") {
                // Groups lead a robot nowhere but home.
                Some(group) => {
                    let at_home = asked.who != "a+ci" || lies_in(asked.on, "a");
                    let inside = members.iter().any(|(of, who)| *of == group && named(who));
                    inside && at_home
                }
                None => named(who),
            },
        };
        let timely = line.until.is_none_or(|until| NOW < until);
        let near = line.network.is_none_or(|network| {
            asked.address.is_some_and(|address| match network {
                "10.0.0.0/8" => address.starts_with("10."),
                "10.1.0.0/16" => address.starts_with("10.1."),
                "::/0" => address.contains(':'),
                other => panic!("{other}"),
            })
        });
        let tagged = line.tags.is_none_or(|pattern| match asked.tag {
            None => true,
            Some(None) => false,
            Some(Some(tag)) => match pattern {
                "*" => true,
                "v*" => tag.starts_with('v'),
                "v?" => tag.starts_with('v') && tag.len() == 2,
                other => tag == other,
            },
        });
        me && line.permissions.contains(&asked.permission)
            && lies_in(asked.on, line.on)
            && timely
            && near
            && tagged
            && line.sign_in.is_none_or(|wanted| wanted == asked.sign_in)
    })
}

/// The rules that a machine's token matches; none of who is no machine.
fn rules(who: &str) -> Vec<&str> {
    match who {
        "deploy" | "deploy,nightly" | "other" => who.split(',').collect(),
        _ => Vec::new(),
    }
}

fn lies_in(path: &str, prefix: &str) -> bool {
    let (path, prefix): (Vec<_>, Vec<_>) = (path.split('/').collect(), prefix.split('/').collect());
    prefix == [""] || path.starts_with(&prefix)
}

fn compiled(lines: &[Line], members: &[(&str, &str)]) -> Policy {
    let subject = |who: &str| who.parse::<Subject>().unwrap();
    let bindings = lines.iter().map(|line| Binding {
        subject: subject(line.who),
        role: "some".into(),
        permissions: line.permissions.iter().copied().collect(),
        on: line.on.into(),
        conditions: Conditions {
            expires_at: line.until,
            networks: line
                .network
                .iter()
                .map(|text| text.parse().unwrap())
                .collect(),
            tags: line.tags.map(|text| text.parse().unwrap()),
            sign_in: line.sign_in,
        },
        origin: Origin::Granted {
            by: "root".into(),
            at: 0,
        },
    });
    let members = members.iter();
    let rows = Rows {
        epoch: 1,
        bindings: bindings.collect(),
        members: members
            .map(|(group, who)| ((*group).to_owned(), subject(who)))
            .collect(),
        ..Rows::default()
    };
    Policy::compile(&Rights::default(), &rows).unwrap()
}

fn caller(asked: &Question) -> Caller {
    let principal = match asked.who {
        "anonymous" => Principal::Anonymous,
        "a+ci" => Principal::Robot {
            name: "a+ci".into(),
        },
        machine if !rules(machine).is_empty() => Principal::Workload {
            name: "ci:job".into(),
            rules: rules(machine).into_iter().map(Arc::from).collect(),
        },
        name => Principal::User {
            name: name.into(),
            source: Source::Local,
        },
    };
    let narrow = asked
        .narrow
        .map(|(permission, on)| Arc::new(Narrow::new([(on, [permission].into_iter().collect())])));
    let address: Option<IpAddr> = asked.address.map(|text| text.parse().unwrap());
    let caller = Caller {
        narrow,
        ..Caller::direct(principal)
    };
    caller.under(Circumstances {
        address,
        at: NOW,
        sign_in: asked.sign_in,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn the_compiled_rights_are_those_of_the_independent_model(
        lines in lines(), members in members(), asked in proptest::collection::vec(questions(), 8),
    ) {
        let policy = compiled(&lines, &members);
        for asked in &asked {
            let expected = model(&lines, &members, asked);
            let caller = caller(asked);
            let name = RepositoryName::parse(asked.on).unwrap();
            let tags = match asked.tag {
                None => Tags::None,
                Some(None) => Tags::All,
                Some(Some(tag)) => Tags::Named(tag),
            };
            let permission = asked.permission;
            prop_assert_eq!(policy.allow_tags(&caller, permission, Some(&name), tags), expected, "{:?}", asked);
            let allowed = policy.decide_tags(&caller, permission, Some(&name), tags) == Decision::Allow;
            prop_assert_eq!(allowed, expected, "{:?}", asked);
            // What is explained is what is decided, and the reason is one.
            let explained = policy.explain(&caller, permission, Some(&name), Some(tags));
            prop_assert_eq!(explained.allowed, expected);
            match &explained.by {
                Some(by) => {
                    prop_assert!(by.permissions.contains(permission) && lies_in(asked.on, &by.on));
                    prop_assert_eq!(by.conditions.unmet(&caller.circumstances, tags), None);
                    prop_assert!(policy.bindings_of(&caller.principal).contains(&by));
                    prop_assert!(policy.bindings_on(asked.on, false).contains(&by));
                    prop_assert_eq!(explained.narrowed, !expected);
                }
                None => prop_assert!(!expected && !explained.narrowed),
            }
            for (binding, reason) in &explained.unmet {
                prop_assert_eq!(binding.conditions.unmet(&caller.circumstances, tags), Some(*reason));
            }
            // So is what the audit log names.
            let rule = policy.rule(&caller, permission, Some(&name), tags);
            prop_assert_eq!(rule.is_some(), explained.by.is_some());
            if let Some(rule) = rule {
                prop_assert!(rule.permissions.contains(permission) && lies_in(asked.on, &rule.on));
                prop_assert_eq!(rule.conditions.unmet(&caller.circumstances, tags), None);
                prop_assert!(policy.bindings_of(&caller.principal).contains(&rule));
            }
            // A list of tags shows exactly those that are allowed one by one.
            let view = policy.tag_view(&caller, permission, &name);
            for tag in ["v1", "v10", "latest", "dev", "v"] {
                let one = Question { tag: Some(Some(tag)), ..asked.clone() };
                prop_assert_eq!(view.shows(tag), model(&lines, &members, &one), "{} {:?}", tag, asked);
            }
            let all = Question { tag: Some(None), ..asked.clone() };
            prop_assert!(view == TagView::All || !model(&lines, &members, &all), "{:?}", asked);
            // Lists show exactly what is allowed.
            let asked_for = Question { tag: (permission == Permission::Delete).then_some(None), ..asked.clone() };
            let listed = policy.prefixes_for(&caller, permission);
            let within = listed.is_none_or(|all| all.iter().any(|on| name.is_within(on)));
            prop_assert_eq!(within, model(&lines, &members, &asked_for), "{:?}", asked);
        }
    }

    /// One more line takes nothing away, and the order of lines never matters.
    #[test]
    fn lines_only_add_up(lines in lines(), more in lines(), members in members(), asked in questions()) {
        let caller = caller(&asked);
        let name = RepositoryName::parse(asked.on).unwrap();
        let may = |lines: &[Line]| compiled(lines, &members).allow(&caller, asked.permission, Some(&name));
        let mut all = [lines.clone(), more].concat();
        let before = may(&all);
        prop_assert!(!may(&lines) || before);
        all.reverse();
        prop_assert_eq!(may(&all), before);
    }
}
