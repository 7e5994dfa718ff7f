//! People from outside: who they become, what that gives them, and what it costs.

use super::super::outside::{Arrival, ArriveError, arrive, depart};
use super::*;
use crate::access::{Provider, Tags};

/// With the provider `corp`, whose `admins` are administrators; `team/dev` is for the group `devs`.
async fn house() -> House {
    let mut house = House::new().await;
    let grant = |who: &str, on: &str| Grant {
        who: Who::parse(who).unwrap(),
        role: Role::Writer,
        on: Some(on.into()),
    };
    let options = AccessOptions {
        rights: Rights {
            grants: vec![grant("promised", "team")],
            providers: vec![Provider {
                name: "corp".into(),
                issuer: "https://corp".into(),
                admin_group: Some("admins".into()),
                section: "[[auth.oidc]] admin_group",
            }],
            ..Rights::default()
        },
        ..AccessOptions::default()
    };
    let meta = house.registry.meta.clone();
    let access = Access::open(options, SecretKeys::of_tests(), meta, 0).await;
    house.registry.access = std::sync::Arc::new(access.unwrap());
    let access = &house.registry.access;
    access
        .set_group(Changer::Operator, "devs", true, 1)
        .await
        .unwrap();
    access
        .set_source(Changer::Operator, "devs", "corp:engineers", true, 1)
        .await
        .unwrap();
    let granting = crate::access::Granting {
        subject: Subject::Group("devs".into()),
        role: "writer".into(),
        on: "team/dev".into(),
        conditions: crate::access::Conditions::default(),
    };
    access.grant(Changer::Operator, &granting, 1).await.unwrap();
    house
}

fn from(subject: &str, wished: &str, groups: &[&str]) -> Arrival {
    Arrival {
        provider: "corp".into(),
        issuer: "https://corp".into(),
        subject: subject.into(),
        wished: Some(wished.into()),
        groups: groups.iter().map(|&name| name.into()).collect(),
    }
}

fn may(house: &House, principal: &Principal, permission: Permission, on: &str) -> bool {
    let caller = Caller::direct(principal.clone());
    let on = name(on);
    house.registry.access.allow(&caller, permission, Some(&on))
}

fn text(error: ArriveError) -> String {
    error.to_string()
}

#[tokio::test]
async fn groups_from_outside_give_what_an_administrator_said_and_as_long_as_they_are_told() {
    let house = house().await;
    let registry = &house.registry;
    let ann = arrive(registry, &from("1", "ann", &["engineers", "chess"]))
        .await
        .unwrap();
    assert_eq!(ann.name(), "ann");
    assert!(may(&house, &ann, Permission::Push, "team/dev"));
    assert!(!may(&house, &ann, Permission::Push, "team/ops"));
    let groups = registry.access.groups();
    assert_eq!(groups[0].sources, ["corp:engineers"]);
    assert_eq!(groups[0].outside, ["ann"]);
    assert!(groups[0].members.is_empty());
    // The same name of another provider, and a group that is called as one here, lead nowhere.
    let ben = arrive(registry, &from("2", "ben", &["devs"])).await;
    assert!(!may(&house, &ben.unwrap(), Permission::Push, "team/dev"));
    let carl = Arrival {
        provider: "club".into(),
        ..from("1", "carl", &["engineers", "admins"])
    };
    let carl = arrive(registry, &carl).await.unwrap();
    assert!(!may(&house, &carl, Permission::Pull, "team/dev"));
    // The administrators of the provider, as long as they are, and told as what they are.
    let ann = arrive(registry, &from("1", "x", &["admins"]))
        .await
        .unwrap();
    assert_eq!(ann.name(), "ann", "a name is wished for once");
    assert!(may(&house, &ann, Permission::Admin, "elsewhere"));
    let rule = registry.access.rule(
        &Caller::direct(ann.clone()),
        Permission::Admin,
        None,
        Tags::None,
    );
    assert_eq!(
        rule,
        "group:corp:admins is admin everywhere (configuration: [[auth.oidc]] admin_group)"
    );
    depart(registry, "corp", "1").await.unwrap();
    assert!(!may(&house, &ann, Permission::Admin, "elsewhere"));
    assert!(!may(&house, &ann, Permission::Push, "team/dev"));
}

#[tokio::test]
async fn whoever_comes_again_as_before_costs_no_write() {
    let house = house().await;
    let registry = &house.registry;
    let ann = from("1", "ann", &["engineers", "chess"]);
    arrive(registry, &ann).await.unwrap();
    let before = registry.meta.stats().operations;
    let epoch = registry.access.policy().epoch();
    for _ in 0..3 {
        let again = from("1", "ann", &["chess", "engineers", "chess"]);
        arrive(registry, &again).await.unwrap();
    }
    assert_eq!(registry.meta.stats().operations, before);
    // A group that gives nothing is noted, and no change of rights.
    arrive(registry, &from("1", "ann", &["engineers"]))
        .await
        .unwrap();
    assert!(registry.meta.stats().operations > before);
    assert_eq!(registry.access.policy().epoch(), epoch);
}

#[tokio::test]
async fn nobody_becomes_somebody_by_a_name() {
    let house = house().await;
    let registry = &house.registry;
    let password = Some(Password::new("wonderland looks"));
    create_user(registry, Changer::Operator, "alice", password)
        .await
        .unwrap();
    for (wished, told) in [
        ("alice", "is another user's already"),
        ("promised", "was granted something before"),
        ("team+ci", "which no user can be called here"),
        ("operator", "which no user can be called here"),
        ("a b", "which no user can be called here"),
        ("anonymous", "which no user can be called here"),
        ("", "which no user can be called here"),
    ] {
        let error = text(arrive(registry, &from("7", wished, &[])).await.unwrap_err());
        assert!(error.contains(told), "{wished:?}: {error}");
        let way_out = "wharf user link NAME --provider corp --subject '7'";
        assert!(error.contains(way_out), "{error}");
    }
    let stranger = Arrival {
        wished: None,
        ..from("7", "", &[])
    };
    let error = text(arrive(registry, &stranger).await.unwrap_err());
    assert!(error.contains("is no user's here"), "{error}");
    // Said by an administrator, it is so.
    link_account(registry, Changer::Operator, "alice", "corp", "7")
        .await
        .unwrap();
    assert_eq!(arrive(registry, &stranger).await.unwrap().name(), "alice");
    let other = Arrival {
        issuer: "https://corp.evil".into(),
        ..stranger.clone()
    };
    let error = text(arrive(registry, &other).await.unwrap_err());
    assert!(
        error.contains("was vouched for by \"https://corp\" before"),
        "{error}"
    );
    disable_user(registry, Changer::Operator, "alice", true, None)
        .await
        .unwrap();
    let error = text(arrive(registry, &stranger).await.unwrap_err());
    assert!(error.contains("alice is locked out"), "{error}");
    unlink_account(registry, Changer::Operator, "alice", "corp", "7")
        .await
        .unwrap();
    let error = text(arrive(registry, &stranger).await.unwrap_err());
    assert!(error.contains("is no user's here"), "{error}");
    let error = link_account(registry, Changer::Operator, "bob", "cork", "1").await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "there is no provider \"cork\"; the configuration names corp"
    );
}

#[tokio::test]
async fn who_is_linked_to_a_user_could_be_the_user_so_only_who_stands_above_links() {
    let house = house().await;
    let registry = &house.registry;
    let came = Circumstances::new(None, 1);
    let admin = arrive(registry, &from("1", "root2", &["admins"])).await;
    let admin = Caller::direct(admin.unwrap()).under(came);
    link_account(registry, Changer::Caller(&admin), "carol", "corp", "9")
        .await
        .unwrap();
    let carol = arrive(registry, &from("9", "x", &[])).await.unwrap();
    assert_eq!(carol.name(), "carol");
    let carol = Caller::direct(carol).under(came);
    let error = link_account(registry, Changer::Caller(&carol), "carol", "corp", "10").await;
    assert!(matches!(
        error,
        Err(IdentityError::Rights(ChangeError::Denied { .. }))
    ));
}

#[tokio::test]
async fn what_a_provider_says_is_bounded() {
    let house = house().await;
    let registry = &house.registry;
    let many: Vec<String> = (0..=MOST_GROUPS).map(|n| format!("g{n}")).collect();
    let many = Arrival {
        groups: many,
        ..from("1", "ann", &[])
    };
    let error = text(arrive(registry, &many).await.unwrap_err());
    assert!(error.contains("group_filter"), "{error}");
    let long = "x".repeat(LONGEST_SUBJECT + 1);
    for subject in ["", "a\nb", &long] {
        assert!(matches!(
            arrive(registry, &from(subject, "ann", &[])).await,
            Err(ArriveError::Wrong(_))
        ));
    }
    let long = "x".repeat(LONGEST_GROUP + 1);
    arrive(registry, &from("1", "ann", &[&long, "a\tb", "", "fine"]))
        .await
        .unwrap();
    let accounts = accounts_of(registry, "ann").await.unwrap();
    assert_eq!(accounts[0].groups, ["fine"]);
}

#[tokio::test]
async fn a_user_from_outside_has_no_password_and_works_with_tokens() {
    let house = house().await;
    let registry = &house.registry;
    arrive(registry, &from("1", "ann", &["engineers"]))
        .await
        .unwrap();
    let came = Circumstances::new(None, registry.clock.now_ms());
    let basic = |password: &str| Authorization::Basic {
        user: "ann".into(),
        password: password.into(),
    };
    for password in ["", "ann", "1"] {
        let with = basic(password);
        let tried = registry.access.authenticate(Some(&with), came);
        assert!(tried.await.is_err());
    }
    let new = NewToken {
        user: "ann".into(),
        name: "laptop".into(),
        ..NewToken::default()
    };
    let made = create_token(registry, Changer::Operator, &new)
        .await
        .unwrap();
    let with = basic(made.secret.reveal());
    let caller = registry.access.authenticate(Some(&with), came).await;
    assert!(may(
        &house,
        &caller.unwrap().principal,
        Permission::Push,
        "team/dev"
    ));
    remove_user(registry, Changer::Operator, "ann", None)
        .await
        .unwrap();
    assert!(registry.access.groups()[0].outside.is_empty());
    assert!(
        registry
            .access
            .authenticate(Some(&with), came)
            .await
            .is_err()
    );
}
