//! Own roles in a file, and that a file is no way around who may give what.

use super::tests::{Hall, caller, granting, issuer, robot, rule, told};
use super::*;

fn role(name: &str, permissions: &str) -> (String, Permissions) {
    (name.into(), Permissions::parse(permissions).unwrap())
}

fn scanners(permissions: &str) -> Wanted {
    Wanted {
        roles: vec![role("scanner", permissions)],
        bindings: vec![granting("alice scanner team")],
        ..Wanted::default()
    }
}

#[tokio::test]
async fn a_role_is_made_before_what_is_granted_with_it_and_goes_behind_it() {
    let hall = Hall::new().await;
    assert_eq!(
        hall.apply(&scanners("pull"), false).await,
        ["add role scanner: pull", "add alice is scanner on team"]
    );
    assert!(hall.apply(&scanners("pull"), true).await.is_empty());
    assert_eq!(
        hall.apply(&scanners("pull,catalog"), false).await,
        ["change role scanner: pull → pull,catalog"]
    );
    // What a grant speaks of counts as named.
    let spoken = Wanted {
        roles: Vec::new(),
        ..scanners("pull")
    };
    assert!(hall.apply(&spoken, true).await.is_empty());

    // Everything, in another registry.
    let written = export(&hall.registry).await.unwrap();
    let elsewhere = Hall::new().await;
    elsewhere.apply(&written, true).await;
    assert!(
        elsewhere
            .apply(&scanners("pull,catalog"), true)
            .await
            .is_empty()
    );

    assert_eq!(
        hall.apply(&Wanted::default(), true).await,
        ["remove alice is scanner on team", "remove role scanner"]
    );
    for (wanted, part) in [
        (role("owner", "pull"), "built in"),
        (
            ("idle".into(), Permissions::NONE),
            "role idle needs at least one",
        ),
    ] {
        let wanted = Wanted {
            roles: vec![wanted],
            ..Wanted::default()
        };
        let error = hall.plan(&wanted, false).await.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    // By the role as it shall be, not as it is.
    let open = Wanted {
        roles: vec![role("scanner", "pull,admin")],
        bindings: vec![granting("anonymous scanner team")],
        ..Wanted::default()
    };
    let error = hall.plan(&open, false).await.unwrap_err().to_string();
    assert!(error.contains("maintainer is the most"), "{error}");
}

/// Judged as a whole and before anything is done: whoever administers and holds no more gives nothing by a file either.
#[tokio::test]
async fn attack_a_file_gives_what_its_maker_lacks() {
    let hall = Hall::new().await;
    let there = Wanted {
        roles: vec![role(
            "desk",
            "admin,manage-bindings,manage-robots,manage-settings",
        )],
        issuers: vec![issuer("ci")],
        rules: vec![rule("deploys", "ci", "x")],
        groups: vec![("great".into(), vec!["zoe".parse().unwrap()])],
        robots: vec![robot("team/a+old")],
        bindings: vec![
            granting("mallory desk"),
            granting("group:great writer team"),
            granting("workload:deploys writer team"),
            granting("team/a+old writer team/a"),
            granting("team/a+new writer team/a"),
        ],
        ..Wanted::default()
    };
    hall.apply(&there, false).await;
    let mallory = caller("mallory");
    let ask = async |wanted: Wanted, prune: bool| {
        let by = Changer::Caller(&mallory);
        plan(&hall.registry, by, &wanted, prune).await
    };
    let nothing = Wanted::default;
    let mut elsewhere = issuer("ci");
    elsewhere.settings.issuer = "https://mallory.example".into();
    for (what, wanted) in [
        (
            "role",
            Wanted {
                roles: vec![role("desk", "admin,pull")],
                ..nothing()
            },
        ),
        (
            "member",
            Wanted {
                groups: vec![("great".into(), vec!["mallory".parse().unwrap()])],
                ..nothing()
            },
        ),
        (
            "rule",
            Wanted {
                rules: vec![rule("deploys", "ci", "mallory")],
                ..nothing()
            },
        ),
        (
            "issuer",
            Wanted {
                issuers: vec![elsewhere],
                ..nothing()
            },
        ),
        (
            "robot",
            Wanted {
                robots: vec![robot("team/a+new")],
                ..nothing()
            },
        ),
    ] {
        let error = ask(wanted, false).await.expect_err(what).to_string();
        assert!(error.contains("cannot give or take"), "{what}: {error}");
    }
    // Nor does it take: each of these alone would go.
    let all = || there.clone();
    for (what, wanted) in [
        (
            "member",
            Wanted {
                groups: vec![("great".into(), vec![])],
                ..all()
            },
        ),
        (
            "binding",
            Wanted {
                bindings: all().bindings.into_iter().take(4).collect(),
                ..all()
            },
        ),
        (
            "rule",
            Wanted {
                rules: vec![],
                bindings: all()
                    .bindings
                    .into_iter()
                    .filter(|one| !matches!(one.subject, Subject::Workload(_)))
                    .collect(),
                ..all()
            },
        ),
    ] {
        let error = ask(wanted, true).await.expect_err(what).to_string();
        assert!(error.contains("cannot give or take"), "{what}: {error}");
    }
    assert!(told(&ask(all(), true).await.unwrap()).is_empty());
}
