//! Whoever holds a credential makes others by it, and none that may more.

use super::*;

/// Somebody over the network who signed in with a password, or with a credential that leaves this.
async fn as_whom(it: &It, secret: &str) -> Caller {
    it.basic("alice", secret).await.unwrap()
}

/// No credential makes one that may more, or lives on as a password: not by making, rotating, changing or resetting.
#[tokio::test]
async fn attack_a_credential_widens_itself() {
    let it = It::new().await;
    let registry = it.registry();
    let grant = |who: &str, role, on: &str| Grant {
        who: Who::parse(who).unwrap(),
        role,
        on: Some(on.into()),
    };
    let rights = Rights {
        grants: vec![
            grant("alice", Role::Admin, ""),
            grant("team+ci", Role::Writer, "team/a"),
            grant("carol", Role::Maintainer, "team"),
            grant("team+waiting", Role::Maintainer, "team"),
            grant("mia", Role::Owner, "team"),
        ],
        ..Rights::default()
    };
    registry.access.reload(&rights).unwrap();
    let password = as_whom(&it, "wonderland looks").await;
    let narrow = it
        .token("narrow", &["manage-robots,manage-bindings:team"])
        .await;
    let narrow = as_whom(&it, narrow.secret.reveal()).await;
    let whole = it.token("whole", &[]).await;
    let whole = as_whom(&it, whole.secret.reveal()).await;
    let refused = |error: IdentityError| {
        let kept = matches!(
            error,
            IdentityError::Rights(ChangeError::NotHeld { .. } | ChangeError::Denied { .. })
                | IdentityError::ByPassword(_)
        );
        assert!(kept, "{error}");
    };
    let of_alice = || NewToken {
        user: "alice".into(),
        name: "another".into(),
        ..NewToken::default()
    };
    let named = |name: &str| NewRobot {
        name: name.into(),
        ..NewRobot::default()
    };
    for token in [&narrow, &whole] {
        let by = Changer::Caller(token);
        // No token makes a token, or becomes a password.
        refused(create_token(registry, by, &of_alice()).await.unwrap_err());
        refused(set_password(registry, by, "alice", None).await.unwrap_err());
    }
    let by = Changer::Caller(&narrow);
    // Grants can be older than whom they are for, and be more than the token.
    refused(create_user(registry, by, "carol", None).await.unwrap_err());
    refused(
        create_robot(registry, by, &named("team+waiting"))
            .await
            .unwrap_err(),
    );
    refused(
        rotate_robot(registry, by, "team+ci", 0, None)
            .await
            .unwrap_err(),
    );
    let open = RobotChange {
        networks: Some(String::new()),
        ..RobotChange::default()
    };
    refused(
        change_robot(registry, by, "team+ci", open, None)
            .await
            .unwrap_err(),
    );
    let writes = NewRobot {
        bindings: vec![RobotBinding {
            role: "writer".into(),
            on: "team/b".into(),
            conditions: crate::access::Conditions::default(),
        }],
        ..named("team+b")
    };
    refused(create_robot(registry, by, &writes).await.unwrap_err());
    assert!(
        get_robot(registry, "team+b").await.is_err(),
        "nothing is left of it"
    );
    // Elsewhere than its scope, not even an empty one.
    refused(
        create_robot(registry, by, &named("other+x"))
            .await
            .unwrap_err(),
    );
    // What adds nothing is done.
    create_robot(registry, by, &named("team+empty"))
        .await
        .unwrap();
    refused(create_user(registry, by, "dave", None).await.unwrap_err());
    let by = Changer::Caller(&whole);
    create_user(registry, by, "dave", None).await.unwrap();
    refused(
        create_token(
            registry,
            by,
            &NewToken {
                user: "dave".into(),
                name: "x".into(),
                ..NewToken::default()
            },
        )
        .await
        .unwrap_err(),
    );
    // The same by password, or by a token that leaves all.
    for able in [&password, &whole] {
        let by = Changer::Caller(able);
        rotate_robot(registry, by, "team+ci", 0, None)
            .await
            .unwrap();
        set_password(registry, by, "dave", None).await.unwrap();
    }
    let by = Changer::Caller(&password);
    create_token(registry, by, &of_alice()).await.unwrap();
    set_password(registry, by, "alice", None).await.unwrap();
    // Who signed in with the old password may go on until told otherwise by the next request, and no longer.
    assert!(it.basic("alice", "wonderland looks").await.is_err());
}

/// What was bought at the token endpoint is no password either, and one that has ended makes nothing.
#[tokio::test]
async fn attack_a_bought_token_makes_credentials() {
    let it = It::new().await;
    let registry = it.registry();
    let secret = Password::new("wonderland looks");
    let (bought, ..) = it.buy(proof("alice", &secret)).await.unwrap();
    let caller = it.bearer(&bought).await.unwrap();
    let ended = Caller {
        expired_since: Some(0),
        ..Caller::direct(caller.principal.clone()).under(caller.circumstances)
    };
    let new = NewToken {
        user: "alice".into(),
        name: "x".into(),
        ..NewToken::default()
    };
    for caller in [&caller, &ended] {
        let by = Changer::Caller(caller);
        let made = create_token(registry, by, &new).await;
        assert!(
            matches!(made, Err(IdentityError::ByPassword(_))),
            "{made:?}"
        );
        let set = set_password(registry, by, "alice", None).await;
        assert!(matches!(set, Err(IdentityError::ByPassword(_))), "{set:?}");
        let robot = NewRobot {
            name: "team+x".into(),
            ..NewRobot::default()
        };
        assert!(create_robot(registry, by, &robot).await.is_err());
    }
}

/// A workload that owns a namespace makes no robot there, and learns no secret of one that is there: those would outlive its rule.
#[tokio::test]
async fn attack_a_workload_leaves_a_secret_behind() {
    let it = It::new().await;
    let registry = it.registry();
    let grant = Grant {
        who: Who::parse("team+ci").unwrap(),
        role: Role::Writer,
        on: Some("team/a".into()),
    };
    let rights = Rights {
        grants: vec![grant],
        ..Rights::default()
    };
    registry.access.reload(&rights).unwrap();
    let now = registry.clock.now_ms();
    let issuer = r#"{"kind":"oidc","issuer":"https://ci.example","audiences":["reg"],"algorithms":["ES256"],"keys":"discovery",
        "leeway":60,"longest_life":3600,"session":3600,"principal":"{sub}"}"#;
    let rule = r#"{"conditions":[{"claim":"sub","in":["job"]}]}"#;
    let (issuer, rule) = (
        serde_json::from_str(issuer).unwrap(),
        serde_json::from_str(rule).unwrap(),
    );
    let (access, operator) = (&registry.access, Changer::Operator);
    let forget = crate::workload::Bearer::Forget;
    let made = access.put_issuer(operator, "ci", &issuer, &forget, None, now);
    made.await.unwrap();
    let made = access.put_rule(operator, "deploy", "ci", &rule, None, now);
    made.await.unwrap();
    let owner = crate::access::Granting {
        subject: Subject::Workload("deploy".into()),
        role: "owner".into(),
        on: "team".into(),
        conditions: crate::access::Conditions::default(),
    };
    access.grant(operator, &owner, now).await.unwrap();
    let robot = |name: &str| NewRobot {
        name: name.into(),
        ..NewRobot::default()
    };
    if get_robot(registry, "team+ci").await.is_err() {
        create_robot(registry, operator, &robot("team+ci"))
            .await
            .unwrap();
    }
    let job = Caller::direct(Principal::Workload {
        name: "ci:job".into(),
        rules: vec!["deploy".into()].into(),
    });
    let by = Changer::Caller(&job);
    let passing = |error: IdentityError| {
        assert!(
            matches!(&error, IdentityError::Rights(ChangeError::Passing(_))),
            "{error}"
        );
        assert!(
            error
                .to_string()
                .contains("ask somebody who signs in otherwise")
        );
    };
    passing(
        create_robot(registry, by, &robot("team+mine"))
            .await
            .unwrap_err(),
    );
    assert!(get_robot(registry, "team+mine").await.is_err());
    passing(
        rotate_robot(registry, by, "team+ci", 0, None)
            .await
            .unwrap_err(),
    );
    let wanted = crate::access::Wanted {
        robots: vec![robot("team+mine")],
        ..Default::default()
    };
    let planned = crate::access::plan(registry, by, &wanted, false).await;
    assert!(planned.unwrap_err().to_string().contains("outlives it"));
    // What is no secret it does, as its role says.
    let disabled = RobotChange {
        disabled: Some(true),
        ..RobotChange::default()
    };
    change_robot(registry, by, "team+ci", disabled, None)
        .await
        .unwrap();
    remove_robot(registry, by, "team+ci", None).await.unwrap();
}

/// An invitation is good once, for a time, for a password that will do, and while whoever invited may still do so.
#[tokio::test]
async fn an_invitation_is_good_once_and_while_its_maker_stands() {
    let it = It::new().await;
    let registry = it.registry();
    let grant = |who: &str, role, on: &str| Grant {
        who: Who::parse(who).unwrap(),
        role,
        on: Some(on.into()),
    };
    let rights = Rights {
        grants: vec![grant("alice", Role::Admin, "")],
        ..Rights::default()
    };
    registry.access.reload(&rights).unwrap();
    let alice = as_whom(&it, "wonderland looks").await;
    let by = Changer::Caller(&alice);
    let new = |name: &str| NewInvitation {
        name: name.into(),
        bindings: vec![("writer".into(), "team/a".into())],
        ..NewInvitation::default()
    };
    let chosen = || Password::new("a looking glass");
    let accept = async |made: &Made, password: &str| {
        accept_invitation(registry, None, &made.secret, Password::new(password)).await
    };
    let gone = |outcome: Result<String>| match outcome {
        Err(IdentityError::Unknown(text)) => text,
        other => panic!("{other:?}"),
    };
    let made = invite(registry, by, &new("bob")).await.unwrap();
    // It is no password and no token, and what is made up is answered like what was used.
    assert!(it.basic("bob", made.secret.reveal()).await.is_err());
    assert!(it.bearer(made.secret.reveal()).await.is_err());
    let weak = accept(&made, "Password1").await;
    assert!(matches!(weak, Err(IdentityError::Password(_))), "{weak:?}");
    let text = gone(accept_invitation(registry, None, &Password::new("guess"), chosen()).await);
    let other = new_secret(SecretKind::Invitation);
    assert_eq!(
        gone(accept_invitation(registry, None, &other, chosen()).await),
        text
    );
    assert_eq!(accept(&made, "a looking glass").await.unwrap(), "bob");
    assert_eq!(gone(accept(&made, "another glass").await), text, "replayed");
    let bob = it.basic("bob", "a looking glass").await.unwrap();
    assert!(it.may(&bob, Permission::Push, "team/a/x"));
    let taken = invite(registry, by, &new("bob")).await;
    assert!(matches!(taken, Err(IdentityError::Taken(_))), "{taken:?}");

    // A second one ends the first.
    let first = invite(registry, by, &new("carol")).await.unwrap();
    let second = invite(registry, by, &new("carol")).await.unwrap();
    assert_eq!(gone(accept(&first, "a looking glass").await), text);
    let listed = list_invitations(registry, "", 9).await.unwrap();
    let names: Vec<_> = listed.iter().map(|one| one.name.as_str()).collect();
    assert_eq!(names, ["carol"]);

    // Whoever invited is locked out, then let in, then no administrator any more.
    let root = create_user(registry, Changer::Operator, "root", None);
    root.await.unwrap();
    registry.access.bootstrap_admin(None, 0).await.unwrap();
    let lock = async |disabled: bool| {
        disable_user(registry, Changer::Operator, "alice", disabled, None)
            .await
            .unwrap();
    };
    lock(true).await;
    assert_eq!(gone(accept(&second, "a looking glass").await), text);
    lock(false).await;
    registry.access.reload(&Rights::default()).unwrap();
    assert_eq!(gone(accept(&second, "a looking glass").await), text);
    registry.access.reload(&rights).unwrap();

    // Two at once: one of them is carol.
    let (one, two) = tokio::join!(
        accept(&second, "the first password"),
        accept(&second, "the second password")
    );
    let won = [&one, &two].map(Result::is_ok);
    assert_ne!(won[0], won[1], "{one:?} {two:?}");
    let first = it.basic("carol", "the first password").await.is_ok();
    let other = it.basic("carol", "the second password").await.is_ok();
    assert_eq!([first, other], won);

    // Taken back, or ended: with what was granted to a name that nobody has.
    let holds = |name: &str| {
        let policy = registry.access.policy();
        let subject = Subject::User(name.into());
        policy.bindings().any(|one| one.subject == subject)
    };
    let made = invite(registry, by, &new("dave")).await.unwrap();
    assert!(holds("dave"));
    withdraw_invitation(registry, by, &made.id).await.unwrap();
    assert!(!holds("dave"));
    assert_eq!(gone(accept(&made, "a looking glass").await), text);
    let made = invite(registry, by, &new("erin")).await.unwrap();
    it.house.clock.advance(7 * 24 * HOUR);
    assert_eq!(
        gone(accept(&made, "a looking glass").await),
        text,
        "it has ended"
    );
    it.house.clock.advance(1);
    forget_ended(registry).await.unwrap();
    assert!(
        holds("erin"),
        "a day later, since a clock may be wrong for a while"
    );
    it.house.clock.advance(24 * HOUR);
    forget_ended(registry).await.unwrap();
    assert!(!holds("erin") && holds("bob"));
    assert!(list_invitations(registry, "", 9).await.unwrap().is_empty());

    // Nobody invites to more than they have, and then nothing is left.
    let narrow = it.token("narrow", &["admin:team"]).await;
    let narrow = as_whom(&it, narrow.secret.reveal()).await;
    let refused = invite(registry, Changer::Caller(&narrow), &new("finn")).await;
    assert!(
        matches!(refused, Err(IdentityError::Rights(_))),
        "{refused:?}"
    );
    let unknown = NewInvitation {
        groups: vec!["nobodys".into()],
        ..new("finn")
    };
    assert!(invite(registry, by, &unknown).await.is_err());
    assert!(list_invitations(registry, "", 9).await.unwrap().is_empty());
    assert!(!holds("finn"));
}

/// A link makes nobody somebody of the htpasswd file, and its end takes nothing from them, whichever of the two came first.
#[tokio::test]
async fn an_invitation_never_touches_a_user_of_the_file() {
    let mut house = House::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("htpasswd");
    let line = |name: &str| format!("{name}:{}\n", bcrypt::hash("builder", 4).unwrap());
    std::fs::write(&file, line("fred")).unwrap();
    let options = AccessOptions {
        htpasswd: Some(file.clone()),
        ..AccessOptions::default()
    };
    let meta = house.registry.meta.clone();
    let access = Access::open(options, SecretKeys::of_tests(), meta, 0).await;
    house.registry.access = std::sync::Arc::new(access.unwrap());
    let registry = &house.registry;
    let by = Changer::Operator;
    let invited = |name: &str| NewInvitation {
        name: name.into(),
        ..NewInvitation::default()
    };
    let error = invite(registry, by, &invited("fred")).await.unwrap_err();
    assert!(
        matches!(&error, IdentityError::Taken(text) if text.contains("htpasswd")),
        "{error}"
    );
    // Here the line comes later.
    let used = invite(registry, by, &invited("gina")).await.unwrap();
    let back = invite(registry, by, &invited("hugo")).await.unwrap();
    for name in ["gina", "hugo"] {
        let granting = crate::access::Granting {
            subject: Subject::User(name.into()),
            role: "writer".into(),
            on: "team".into(),
            conditions: crate::access::Conditions::default(),
        };
        registry.access.grant(by, &granting, 0).await.unwrap();
    }
    std::fs::write(&file, line("gina") + &line("hugo")).unwrap();
    for _ in 0..2 {
        registry.access.upkeep(0).await.unwrap();
    }
    let chosen = Password::new("a looking glass");
    let taken = accept_invitation(registry, None, &used.secret, chosen).await;
    assert!(matches!(taken, Err(IdentityError::Unknown(_))), "{taken:?}");
    withdraw_invitation(registry, by, &back.id).await.unwrap();
    house.clock.advance(8 * 24 * HOUR);
    forget_ended(registry).await.unwrap();
    let policy = registry.access.policy();
    for name in ["gina", "hugo"] {
        let subject = Subject::User(name.into());
        assert!(
            policy.bindings().any(|one| one.subject == subject),
            "{name}"
        );
    }
}
