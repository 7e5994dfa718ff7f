//! Duties stay apart: nobody gives or takes what they do not hold, whichever way they try.

use super::super::*;
use super::NOW;
use super::rights::{Hall, granting, user};

/// Duties stay apart by every way: who administers the registry, and holds no more than that or not for good, gives themselves and others
/// nothing by groups, roles, people from outside, rules on workloads or files, and takes nothing either.
#[tokio::test]
async fn attack_an_administrator_of_less_gives_what_it_lacks() {
    let hall = Hall::new(Rights::default()).await;
    let (access, operator) = (&hall.access, Changer::Operator);
    let set = |permission: Permission| Some([permission].into_iter().collect());
    access
        .set_role(operator, "desk", set(Permission::Admin), NOW)
        .await
        .unwrap();
    access
        .set_role(operator, "viewer", set(Permission::Catalog), NOW)
        .await
        .unwrap();
    hall.grant("mallory desk ").await.unwrap();
    hall.grant("mallory viewer team").await.unwrap();
    let ends = Granting {
        conditions: Conditions {
            expires_at: Some(NOW + 1_000),
            ..Conditions::default()
        },
        ..granting("eve admin ")
    };
    access.grant(operator, &ends, NOW).await.unwrap();
    for group in ["great", "empty"] {
        access.set_group(operator, group, true, NOW).await.unwrap();
    }
    hall.grant("group:great writer team").await.unwrap();
    hall.grant("zoe owner team/z").await.unwrap();
    let issuer = |to: &str| {
        let kind = crate::workload::Kind::Oidc;
        crate::workload::IssuerSettings::new(kind, to, vec!["wharf".into()])
    };
    let at = issuer("https://ci.example");
    let keep = crate::workload::Bearer::Keep;
    access
        .put_issuer(operator, "ci", &at, &keep, None, NOW)
        .await
        .unwrap();
    let rule = |sub: &str| -> crate::workload::RuleSettings {
        let text = format!(r#"{{"conditions":[{{"claim":"sub","in":["{sub}"]}}]}}"#);
        serde_json::from_str(&text).unwrap()
    };
    for name in ["deploys", "idle"] {
        access
            .put_rule(operator, name, "ci", &rule("x"), None, NOW)
            .await
            .unwrap();
    }
    hall.grant("workload:deploys writer team").await.unwrap();

    let not_held = |what: &str, outcome: Result<Change, ChangeError>| {
        let error = outcome.expect_err(what);
        assert!(
            matches!(error, ChangeError::NotHeld { .. }),
            "{what}: {error}"
        );
    };
    for name in ["mallory", "eve"] {
        let who = user(name);
        let by = Changer::Caller(&who);
        let me = Subject::User(name.into());
        let more = Some(Role::Admin.permissions());
        not_held("a wider role", access.set_role(by, "desk", more, NOW).await);
        not_held(
            "a wider role below",
            access.set_role(by, "viewer", more, NOW).await,
        );
        not_held(
            "a group",
            access.set_member(by, "great", &me, true, NOW).await,
        );
        not_held(
            "a place in a group",
            access.set_member(by, "great", &me, false, NOW).await,
        );
        not_held(
            "the end of a group",
            access.set_group(by, "great", false, NOW).await,
        );
        not_held(
            "another's rule",
            access
                .put_rule(by, "deploys", "ci", &rule("y"), None, NOW)
                .await,
        );
        not_held(
            "the end of a rule",
            access.remove_rule(by, "deploys", None, NOW).await,
        );
        let elsewhere = issuer("https://mallory.example");
        not_held(
            "another's issuer",
            access
                .put_issuer(by, "ci", &elsewhere, &keep, None, NOW)
                .await,
        );
        not_held(
            "the end of a namespace",
            access.remove_namespace(by, "team/z", NOW).await,
        );
        // What gives nothing is theirs to do.
        assert_eq!(
            access
                .set_member(by, "empty", &me, true, NOW)
                .await
                .unwrap(),
            Change::Made
        );
        access
            .set_member(by, "empty", &me, false, NOW)
            .await
            .unwrap();
        access
            .put_rule(by, "idle", "ci", &rule(name), None, NOW)
            .await
            .unwrap();
        access
            .set_role(by, &format!("new-{name}"), more, NOW)
            .await
            .unwrap();
        assert!(!hall.may(name, Permission::Push, "team/a") || name == "eve");
    }
    // Who holds all of it for good may do all of it.
    hall.grant("anna admin ").await.unwrap();
    let anna = user("anna");
    let by = Changer::Caller(&anna);
    let bob = Subject::User("bob".into());
    access
        .set_member(by, "great", &bob, true, NOW)
        .await
        .unwrap();
    access
        .set_role(by, "viewer", set(Permission::Pull), NOW)
        .await
        .unwrap();
    access
        .put_rule(by, "deploys", "ci", &rule("y"), None, NOW)
        .await
        .unwrap();
    access.remove_namespace(by, "team/z", NOW).await.unwrap();
}

/// What everybody holds stays within bounds, however the role and the grant of it meet.
#[tokio::test]
async fn a_role_cannot_grow_while_everybody_gets_it() {
    let hall = Hall::new(Rights::default()).await;
    let other = Access::open(
        AccessOptions::default(),
        SecretKeys::of_tests(),
        hall.meta.clone(),
        NOW,
    );
    let other = other.await.unwrap();
    let small = Some([Permission::Pull].into_iter().collect());
    let great = Some([Permission::ReadAudit].into_iter().collect());
    let operator = Changer::Operator;
    for round in 0..20 {
        let name = format!("r{round}");
        hall.access
            .set_role(operator, &name, small, NOW)
            .await
            .unwrap();
        other.rights.refresh().await.unwrap();
        // Each knows the state before the other's change.
        let line = granting(&format!("anonymous {name} team"));
        let (granted, grown) = if round % 2 == 0 {
            let granted = other.grant(operator, &line, NOW).await;
            (
                granted,
                hall.access.set_role(operator, &name, great, NOW).await,
            )
        } else {
            let grown = other.set_role(operator, &name, great, NOW).await;
            (hall.access.grant(operator, &line, NOW).await, grown)
        };
        let (granted, grown) = (granted.is_ok(), grown.is_ok());
        assert!(granted != grown, "{round}: {granted} {grown}");
    }
}
