//! Whose bucket it is, and by which rule it fills.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::super::policy::{Grant, Who};
use super::super::principal::{Circumstances, Source};
use super::super::role::Role;
use super::*;
use crate::clock::ManualClock;

fn rates(rules: RateRules) -> (Arc<Rates>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::at(0));
    (Arc::new(Rates::new(rules, clock.clone())), clock)
}

fn rate(count: u64, burst: u64) -> Option<Rate> {
    Some(Rate::new(count, Per::Second, burst).unwrap())
}

fn from(name: &str, address: &str) -> Caller {
    let came = Circumstances::new(address.parse().ok(), 0);
    let caller = match name {
        "" => Caller::anonymous(),
        name if name.contains('+') => Caller::direct(Principal::Robot { name: name.into() }),
        name => Caller::direct(Principal::User {
            name: name.into(),
            source: Source::Local,
        }),
    };
    caller.under(came)
}

fn name(text: &str) -> RepositoryName {
    RepositoryName::parse(text).unwrap()
}

/// How many of so many requests pass.
fn pass(
    rates: &Rates,
    policy: &Policy,
    kind: RateKind,
    caller: &Caller,
    on: &str,
    of: usize,
) -> usize {
    let repository = RepositoryName::parse(on).ok();
    let request = |_: &usize| {
        let taken = rates.take(kind, policy, caller, repository.as_ref(), &[b"GET"]);
        taken.is_ok()
    };
    (0..of).filter(request).count()
}

#[test]
fn a_bucket_belongs_to_a_principal_at_an_address() {
    let (rates, _) = rates(RateRules {
        reads: rate(1, 5),
        ..RateRules::OFF
    });
    let policy = Policy::default();
    let pass = |who: &str, at: &str| {
        let caller = from(who, at);
        pass(&rates, &policy, RateKind::Reads, &caller, "", 10)
    };
    assert_eq!(pass("alice", "10.0.0.1"), 5);
    // Nobody else is slower for it.
    for (who, at) in [
        ("bob", "10.0.0.1"),
        ("alice", "10.0.0.2"),
        ("", "10.0.0.1"),
        ("alice", ""),
        ("alice", "2001:db8:0:1::1"),
        ("alice", "2001:db8:0:2::1"),
    ] {
        assert_eq!(pass(who, at), 5, "{who} at {at}");
    }
    // The same host in other words.
    for (who, at) in [
        ("alice", "::ffff:10.0.0.1"),
        ("alice", "2001:db8:0:1:ffff::7"),
    ] {
        assert_eq!(pass(who, at), 0, "{who} at {at}");
    }
}

#[test]
fn kinds_do_not_share_and_what_is_not_limited_passes() {
    let (rates, _) = rates(RateRules {
        reads: rate(1, 5),
        writes: rate(1, 3),
        ..RateRules::OFF
    });
    let (policy, alice) = (Policy::default(), from("alice", "10.0.0.1"));
    let pass = |kind| pass(&rates, &policy, kind, &alice, "a", 1_000);
    assert_eq!(pass(RateKind::Reads), 5);
    assert_eq!(pass(RateKind::Writes), 3);
    assert_eq!(pass(RateKind::Token), 1_000);
    for _ in 0..1_000 {
        rates.sign_in(alice.circumstances.address).unwrap();
    }
}

#[test]
fn it_says_what_is_limited_where_and_until_when() {
    let (rates, clock) = rates(RateRules {
        reads: Rate::new(6, Per::Minute, 1),
        ..RateRules::OFF
    });
    let (policy, alice) = (Policy::default(), from("alice", "10.0.0.1"));
    let take = |path: &str| {
        let request = ["GET".as_bytes(), path.as_bytes()];
        rates.take(RateKind::Reads, &policy, &alice, None, &request)
    };
    take("/a").unwrap();
    clock.advance(500);
    let limited = take("/a").unwrap_err();
    let seconds = limited.retry_after.as_secs();
    // The next one comes after 9.5 s more.
    assert!((10..10 + SPREAD).contains(&seconds), "{seconds}");
    assert_eq!(
        limited.to_string(),
        format!(
            "too many requests that read from this client: rate_limits.reads allows 6/m burst 1; try again in {seconds} s"
        )
    );
    // containerd tries five times more at once; whoever looks at the figures sees one request.
    for _ in 0..5 {
        assert_eq!(take("/a").unwrap_err().retry_after.as_secs(), seconds);
    }
    assert_eq!(rates.refused()[RateKind::Reads as usize], ("reads", 1));
    take("/b").unwrap_err();
    assert_eq!(rates.refused()[RateKind::Reads as usize], ("reads", 2));
    clock.advance(i64::try_from(limited.retry_after.as_millis()).unwrap());
    take("/a").unwrap();
}

#[test]
fn those_who_are_refused_together_come_back_one_after_another() {
    let (rates, _) = rates(RateRules {
        reads: rate(1, 1),
        ..RateRules::OFF
    });
    let policy = Policy::default();
    let mut seconds = std::collections::BTreeSet::new();
    for node in 0..100 {
        let caller = from("team+pull", &format!("10.0.0.{node}"));
        let take = || rates.take(RateKind::Reads, &policy, &caller, None, &[]);
        take().unwrap();
        seconds.insert(take().unwrap_err().retry_after.as_secs());
    }
    assert_eq!(seconds.len(), SPREAD as usize);
}

/// A rollout: each node asks without credentials, fetches tokens, and reads a manifest and forty layers, all in one moment and
/// from behind one gateway, with one robot.
#[test]
fn five_hundred_nodes_at_once_pass_the_defaults() {
    let (rates, _) = rates(RateRules::default());
    let policy = Policy::default();
    let (robot, nobody) = (from("team+pull", "192.0.2.1"), from("", "192.0.2.1"));
    for _ in 0..500 {
        rates.sign_in(robot.circumstances.address).unwrap();
        for (kind, caller, times) in [
            (RateKind::Reads, &nobody, 3),
            (RateKind::Token, &nobody, 2),
            (RateKind::Token, &robot, 3),
            (RateKind::Reads, &robot, 50),
        ] {
            for _ in 0..times {
                rates
                    .take(kind, &policy, caller, Some(&name("team/app")), &[])
                    .unwrap();
            }
        }
    }
}

#[test]
fn the_longest_prefix_decides_and_then_the_strongest_role() {
    let own = |on: &str, role, burst| RateOverride {
        on: on.into(),
        role,
        reads: Some(rate(1, burst)),
        ..RateOverride::default()
    };
    let (rates, _) = rates(RateRules {
        reads: rate(1, 2),
        overrides: vec![
            own("", Some(Role::Reader), 3),
            own("", Some(Role::Writer), 4),
            own("team", None, 5),
            own("team", Some(Role::Writer), 6),
            RateOverride {
                on: "team/free".into(),
                reads: Some(None),
                ..RateOverride::default()
            },
            RateOverride {
                on: "team/else".into(),
                writes: Some(rate(1, 9)),
                ..RateOverride::default()
            },
        ],
        ..RateRules::OFF
    });
    let grant = |who: &str, role, on: Option<&str>| Grant {
        who: Who::User(who.into()),
        role,
        on: on.map(str::to_owned),
    };
    let policy = Policy::new(
        Role::None,
        Role::None,
        &[
            grant("reader", Role::Reader, None),
            grant("writer", Role::Writer, None),
            grant("owner", Role::Owner, Some("team/a")),
        ],
    )
    .unwrap();
    let pass = |who: &str, on: &str| {
        let caller = from(who, "10.0.0.1");
        pass(&rates, &policy, RateKind::Reads, &caller, on, 20)
    };
    for (who, on, burst) in [
        ("stranger", "other", 2),
        ("reader", "other", 3),
        ("writer", "other", 4),
        ("stranger", "team/x", 5),
        ("reader", "teams", 0),
        ("reader", "team/x", 5),
        ("writer", "team", 6),
        ("owner", "team/b", 5),
        ("owner", "team/a/b", 6),
        ("reader", "team/free/x", 20),
        // Another kind is set there: the next one decides.
        ("writer", "team/else", 0),
        // Without a repository: what holds everywhere.
        ("owner", "", 2),
        ("reader", "", 0),
    ] {
        assert_eq!(pass(who, on), burst, "{who} on {on:?}");
    }
    let caller = from("writer", "10.0.0.1");
    let refused = rates.take(
        RateKind::Reads,
        &policy,
        &caller,
        Some(&name("team/b")),
        &[],
    );
    assert!(refused.unwrap_err().to_string().contains(
        "reads in the [[rate_limits.override]] with on = \"team\", role = \"writer\" allows 1/s burst 6"
    ));
}

#[test]
fn a_namespaces_rate_of_tokens_is_for_those_who_hold_something_there() {
    let own = |on: &str, role, burst| RateOverride {
        on: on.into(),
        role,
        token: Some(rate(1, burst)),
        ..RateOverride::default()
    };
    let (rates, _) = rates(RateRules {
        token: rate(1, 2),
        overrides: vec![own("ci", None, 4), own("ci", Some(Role::Writer), 6)],
        ..RateRules::OFF
    });
    let grant = |who: &str, role| Grant {
        who: Who::User(who.into()),
        role,
        on: Some("ci".into()),
    };
    let grants = [grant("reader", Role::Reader), grant("writer", Role::Writer)];
    let policy = Policy::new(Role::None, Role::None, &grants).unwrap();
    for (who, burst) in [("stranger", 2), ("reader", 4), ("writer", 6), ("", 2)] {
        let caller = from(who, "10.0.0.1");
        let passed = pass(&rates, &policy, RateKind::Token, &caller, "", 20);
        assert_eq!(passed, burst, "{who}");
    }
}

#[test]
fn bytes_that_have_passed_stop_the_next_request() {
    let (rates, clock) = rates(RateRules {
        bytes: rate(1 << 20, 8 << 20),
        ..RateRules::OFF
    });
    let (policy, alice) = (Policy::default(), from("alice", "10.0.0.1"));
    let ask = |kind| rates.take(kind, &policy, &alice, Some(&name("a")), &[]);
    let mut meter = rates.meter(&policy, &alice, Some(&name("a"))).unwrap();
    ask(RateKind::Reads).unwrap();
    // While it passes, and not only at its end.
    meter.pass(7 << 20);
    ask(RateKind::Reads).unwrap();
    meter.pass(5 << 20);
    let limited = ask(RateKind::Writes).unwrap_err();
    assert_eq!(limited.kind, RateKind::Bytes);
    assert!(limited.to_string().contains("rate_limits.bytes"));
    // A token is no byte of a layer: whoever waits may fetch one meanwhile.
    ask(RateKind::Token).unwrap();
    let mut other = meter.another();
    other.pass(1);
    drop((meter, other));
    // 4 MiB and a byte too many.
    clock.advance(4_000);
    ask(RateKind::Reads).unwrap_err();
    clock.advance(2);
    ask(RateKind::Reads).unwrap();
    assert!(
        rates
            .meter(&policy, &from("bob", "10.0.0.1"), None)
            .is_some()
    );
    rates.configure(RateRules::OFF);
    assert!(rates.meter(&policy, &alice, None).is_none());
}

#[test]
fn other_rules_hold_from_the_next_request_on_and_forget_nothing() {
    let (rates, _) = rates(RateRules {
        reads: rate(1, 2),
        ..RateRules::OFF
    });
    let (policy, alice) = (Policy::default(), from("alice", "10.0.0.1"));
    let pass = || pass(&rates, &policy, RateKind::Reads, &alice, "a", 20);
    assert_eq!(pass(), 2);
    rates.configure(RateRules {
        reads: rate(1, 5),
        ..RateRules::OFF
    });
    assert_eq!(pass(), 3);
    rates.configure(RateRules::OFF);
    assert_eq!(pass(), 20);
}

#[test]
fn addresses_that_are_made_up_take_no_room() {
    let (rates, _) = rates(RateRules::default());
    let policy = Policy::default();
    let loud = from("", "192.0.2.1");
    while rates
        .take(RateKind::Reads, &policy, &loud, None, &[])
        .is_ok()
    {}
    for number in 0..1_000_000_u128 {
        let address = match number % 2 {
            0 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(number).unwrap() << 8)),
            _ => IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | number << 64)),
        };
        let caller = Caller::anonymous().under(Circumstances::new(Some(address), 0));
        rates
            .take(RateKind::Reads, &policy, &caller, None, &[])
            .unwrap();
    }
    assert!(rates.buckets.len() <= MOST_BUCKETS);
    let again = rates.take(RateKind::Reads, &policy, &loud, None, &[]);
    assert!(again.is_err(), "it was forgotten");
}

#[test]
fn numbers_that_cannot_be_meant_make_no_rate() {
    for (count, per, burst) in [
        (0, Per::Second, 1),
        (1, Per::Second, 0),
        (1, Per::Hour, u64::MAX),
    ] {
        assert_eq!(Rate::new(count, per, burst), None);
    }
    let rate = Rate::new(7, Per::Minute, 7).unwrap();
    assert_eq!(rate.to_string(), "7/m");
    assert_eq!(rate.cost(1), 8_571_428_572);
}
