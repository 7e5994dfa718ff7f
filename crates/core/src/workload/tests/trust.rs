//! What rules give, to whom, and who may change them.

use super::*;

/// Spec: OIDC-2.
#[tokio::test]
async fn a_fork_pull_request_gets_nothing() {
    let it = House::empty().await;
    let address = "https://token.actions.githubusercontent.com";
    let mut settings = IssuerSettings::new(Kind::Github, address, vec!["reg.example".into()]);
    settings.keys = KeySource::Static(jwks(&[&ONE]));
    it.issuer("github", &settings).await;
    it.rule(
        "app",
        "github",
        &conditions(json!([{"claim": "repository_id", "in": ["74"]}])),
    )
    .await;
    it.grant("workload:app", "writer", "acme").await;
    let caller = it.basic(&ONE.sign(&job("74", "push")), NOW).await.unwrap();
    assert_eq!(caller.principal.name(), "github:74/acme/app");
    assert!(it.may(&caller, Permission::Push, "acme/app"));
    for event in [
        "pull_request",
        "pull_request_target",
        "pull_request_review",
        "issue_comment",
        "workflow_run",
        "fork",
    ] {
        assert_eq!(
            it.fault(&ONE.sign(&job("74", event))).await,
            Fault::Rule,
            "{event}"
        );
    }
    // The same name with another id: somebody made it anew.
    assert_eq!(it.fault(&ONE.sign(&job("75", "push"))).await, Fault::Rule);
    let open = conditions(json!([
        {"claim": "repository_id", "in": ["74"]}, {"claim": "event_name", "in": ["pull_request"]},
    ]));
    it.rule("app-requests", "github", &open).await;
    it.grant("workload:app-requests", "reader", "acme").await;
    let caller = it
        .basic(&ONE.sign(&job("74", "pull_request")), NOW)
        .await
        .unwrap();
    assert!(
        it.may(&caller, Permission::Pull, "acme/app")
            && !it.may(&caller, Permission::Push, "acme/app")
    );
}

#[tokio::test]
async fn a_rule_with_a_glob_stays_within_slashes() {
    let it = House::empty().await;
    let mut settings = cluster();
    settings.kind = Kind::Oidc;
    settings.principal = "{sub}".into();
    it.issuer("any", &settings).await;
    it.rule(
        "any",
        "any",
        &conditions(json!([{"claim": "path", "glob": ["acme/*"]}])),
    )
    .await;
    for (path, good) in [
        ("acme/app", true),
        ("acme/app/evil", false),
        ("evil/acme/app", false),
        ("acme", false),
    ] {
        let token = ONE.sign(&changed(pod("prod", "default"), "path", path.into()));
        assert_eq!(it.basic(&token, NOW).await.is_ok(), good, "{path}");
    }
}

/// All rules that match count, and groups give what they give to everybody in them.
#[tokio::test]
async fn what_several_rules_and_groups_give_adds_up() {
    let it = House::new().await;
    let all = conditions(json!([{"claim": "sub", "glob": ["system:serviceaccount:*"]}]));
    it.rule("everything", "prod", &all).await;
    it.access
        .set_group(Changer::Operator, "builders", true, NOW)
        .await
        .unwrap();
    let rule: Subject = "workload:everything".parse().unwrap();
    it.access
        .set_member(Changer::Operator, "builders", &rule, true, NOW)
        .await
        .unwrap();
    it.grant("group:builders", "writer", "team/b").await;
    let both = it
        .basic(&ONE.sign(&pod("prod", "default")), NOW)
        .await
        .unwrap();
    assert!(it.may(&both, Permission::Pull, "team/a") && it.may(&both, Permission::Push, "team/b"));
    assert_eq!(
        both.origin("").credential,
        "workload.everything,prod-default"
    );
    let one = it.basic(&ONE.sign(&pod("dev", "x")), NOW).await.unwrap();
    assert!(!it.may(&one, Permission::Pull, "team/a") && it.may(&one, Permission::Push, "team/b"));
    let policy = it.access.policy();
    assert_eq!(policy.bindings_of(&both.principal).len(), 2);
    let on = RepositoryName::parse("team/b").unwrap();
    let why = policy.explain(&one, Permission::Push, Some(&on), None);
    assert_eq!(
        (why.allowed, why.groups),
        (true, vec!["builders".to_owned()])
    );
    // What a rule had is gone with it, for whoever gets its name later, too.
    it.access
        .remove_rule(Changer::Operator, "everything", None, NOW)
        .await
        .unwrap();
    it.rule("everything", "prod", &all).await;
    let one = it.basic(&ONE.sign(&pod("dev", "x")), NOW).await.unwrap();
    assert!(!it.may(&one, Permission::Push, "team/b"));
}

/// Spec: OIDC-3.
#[tokio::test]
async fn a_token_is_exchanged_for_one_that_lasts_and_dies_with_its_rule() {
    let it = House::new().await;
    it.grant("workload:prod-default", "writer", "team/a").await;
    let token = ONE.sign(&pod("prod", "default"));
    let grant = it
        .exchange(&token, "repository:team/a/app:pull,push", NOW)
        .await
        .unwrap();
    assert!(grant.refresh_token.is_none());
    assert_eq!(
        (grant.expires_in, grant.principal.name()),
        (3_600, "prod:prod/default")
    );
    assert_eq!(grant.credential, "workload.prod-default");
    let later = NOW + 3_000 * SECOND;
    assert!(it.basic(&token, later).await.is_err());
    let ours = grant.token.reveal();
    let caller = it.bearer(ours, later).await.unwrap();
    assert!(it.may(&caller, Permission::Push, "team/a/app"));
    let came = Circumstances::new(None, NOW);
    let barred = it.access.barred(&caller.principal, came).await;
    assert_eq!(barred.unwrap(), None);
    assert!(
        !it.may(&caller, Permission::Push, "team/a/other"),
        "it was bought for one repository"
    );
    // It buys no other one.
    assert!(
        it.exchange(ours, "repository:team/a/other:push", later)
            .await
            .is_err()
    );
    let basic = it.basic(ours, later).await;
    assert!(matches!(basic, Err(AuthFailure::Secret)), "{basic:?}");
    // A rule that asks for something else is another rule.
    let narrow = conditions(json!([{"claim": "kubernetes.io.namespace", "in": ["prod"]}]));
    it.rule("prod-default", "prod", &narrow).await;
    assert!(matches!(
        it.bearer(ours, later).await,
        Err(AuthFailure::Token(TokenFault::Revoked))
    ));
    // Nor does it come back to life with the words of the one before.
    it.rule("prod-default", "prod", &prod()).await;
    assert!(it.bearer(ours, later).await.is_err());
    let grant = it.exchange(&token, "repository:team/a/app:pull", NOW).await;
    let grant = grant.unwrap();
    let ours = grant.token.reveal();
    assert!(it.bearer(ours, later).await.is_ok());
    // Said again it is the same rule.
    it.rule("prod-default", "prod", &prod()).await;
    assert!(it.bearer(ours, later).await.is_ok());
    it.access
        .remove_rule(Changer::Operator, "prod-default", None, NOW)
        .await
        .unwrap();
    assert!(matches!(
        it.bearer(ours, later).await,
        Err(AuthFailure::Token(TokenFault::Revoked))
    ));
    assert_eq!(it.fault(&token).await, Fault::Rule);
    let came = Circumstances::new(None, NOW);
    let barred = it.access.barred(&caller.principal, came).await;
    assert_eq!(barred.unwrap(), Some(Barred::Unknown));
    // Made again it is another one, which nothing was granted to.
    let same = prod();
    let access = &it.access;
    let made = access.put_rule(
        Changer::Operator,
        "prod-default",
        "prod",
        &same,
        None,
        NOW + 1,
    );
    made.await.unwrap();
    assert!(it.bearer(ours, later).await.is_err());
    let caller = it.basic(&token, NOW).await.unwrap();
    assert!(!it.may(&caller, Permission::Pull, "team/a/app"));
    it.access
        .remove_rule(Changer::Operator, "prod-default", None, NOW)
        .await
        .unwrap();
    it.access
        .remove_issuer(Changer::Operator, "prod", None, NOW)
        .await
        .unwrap();
    // With no issuer left it is a password like any other.
    assert!(matches!(
        it.basic(&token, NOW).await,
        Err(AuthFailure::Password)
    ));
}

#[tokio::test]
async fn a_token_of_ours_lives_no_longer_than_the_issuer_allows() {
    let it = House::new().await;
    let mut settings = cluster();
    settings.session = 300;
    it.issuer("prod", &settings).await;
    let token = ONE.sign(&pod("prod", "default"));
    for scope in ["", "repository:team/a:pull,push"] {
        assert_eq!(
            it.exchange(&token, scope, NOW).await.unwrap().expires_in,
            300
        );
    }
}

#[tokio::test]
async fn a_report_says_which_rule_matches_and_why_others_do_not() {
    let it = House::new().await;
    it.rule(
        "dev",
        "prod",
        &conditions(json!([{"claim": "kubernetes.io.namespace", "in": ["dev"]}])),
    )
    .await;
    let token = ONE.sign(&pod("prod", "default"));
    let report = it.access.workloads().report(&token, NOW).await;
    assert_eq!(
        report.principal,
        Some(("prod:prod/default".into(), vec!["prod-default".into()]))
    );
    let unmet: Vec<_> = report
        .rules
        .iter()
        .map(|one| (&*one.rule, one.unmet.len()))
        .collect();
    assert_eq!(unmet, [("dev", 1), ("prod-default", 0)]);
    assert!(
        report.seen.iter().all(|seen| seen.wrong.is_none()),
        "{report:?}"
    );
    // All that is wrong is told at once.
    let late = it
        .access
        .workloads()
        .report(
            &pair("x").sign(&pod("dev", "default")),
            NOW + 3_600 * SECOND,
        )
        .await;
    let wrong: Vec<_> = late
        .seen
        .iter()
        .filter(|seen| seen.wrong.is_some())
        .map(|seen| &*seen.what)
        .collect();
    assert_eq!((late.principal, wrong), (None, vec!["signature", "times"]));
    let foreign = it
        .access
        .workloads()
        .report(&ONE.sign(&job("7", "push")), NOW)
        .await;
    let wrong = foreign.seen.last().unwrap().wrong.clone().unwrap();
    assert!(
        wrong.contains(ISSUER) && wrong.contains("githubusercontent"),
        "{wrong}"
    );
    assert!(
        it.access
            .workloads()
            .report("hunter2", NOW)
            .await
            .principal
            .is_none()
    );
}

#[tokio::test]
async fn who_may_change_trust_and_what_cannot_be_meant() {
    let it = House::new().await;
    let user = Caller::direct(Principal::User {
        name: "alice".into(),
        source: Source::Local,
    });
    it.grant("alice", "owner", "team/a").await;
    let settings = cluster();
    let denied = it
        .access
        .put_issuer(
            Changer::Caller(&user),
            "x",
            &settings,
            &Bearer::Keep,
            None,
            NOW,
        )
        .await;
    assert!(
        matches!(denied, Err(ChangeError::Denied { .. })),
        "{denied:?}"
    );
    let denied = it
        .access
        .put_rule(Changer::Caller(&user), "x", "prod", &prod(), None, NOW)
        .await;
    assert!(
        matches!(denied, Err(ChangeError::Denied { .. })),
        "{denied:?}"
    );
    let denied = it
        .access
        .remove_rule(Changer::Caller(&user), "prod-default", None, NOW)
        .await;
    assert!(
        matches!(denied, Err(ChangeError::Denied { .. })),
        "{denied:?}"
    );
    let root = Changer::Operator;
    let put = |name: &'static str, version| {
        it.access
            .put_issuer(root, name, &settings, &Bearer::Keep, version, NOW)
    };
    assert_eq!(put("prod", None).await.unwrap(), Change::Same);
    assert!(matches!(
        put("Prod", None).await,
        Err(ChangeError::Field("name", _))
    ));
    assert!(matches!(
        put("prod", Some(7)).await,
        Err(ChangeError::Differs)
    ));
    assert!(matches!(
        put("prod", Some(0)).await,
        Err(ChangeError::Differs)
    ));
    assert_eq!(put("prod", Some(1)).await.unwrap(), Change::Same);
    let unknown = it
        .access
        .put_rule(root, "x", "none", &prod(), None, NOW)
        .await;
    assert!(
        matches!(unknown, Err(ChangeError::Unknown(_))),
        "{unknown:?}"
    );
    put("second", None).await.unwrap();
    let taken = it
        .access
        .put_rule(root, "prod-default", "second", &prod(), None, NOW)
        .await;
    assert!(matches!(taken, Err(ChangeError::Conflict(_))), "{taken:?}");
    let used = it.access.remove_issuer(root, "prod", None, NOW).await;
    assert!(matches!(used, Err(ChangeError::Conflict(_))), "{used:?}");
    let nobody = Granting {
        subject: "workload:nobody".parse().unwrap(),
        role: "reader".into(),
        on: "team/a".into(),
        conditions: Conditions::default(),
    };
    assert!(matches!(
        it.access.grant(root, &nobody, NOW).await,
        Err(ChangeError::Unknown(_))
    ));
}

#[tokio::test]
async fn a_bearer_token_is_sealed_kept_and_shown_to_its_issuer_alone() {
    let it = House::new().await;
    let set = Bearer::Set(Password::new("hunter2"));
    it.access
        .put_issuer(Changer::Operator, "prod", &discovered(), &set, None, NOW)
        .await
        .unwrap();
    let meta = it.access.meta().unwrap();
    let page = wharf_meta::access::workload::Issuers {
        after: String::new(),
        limit: 9,
    };
    let kept = meta.scan(page.clone()).await.unwrap()[0]
        .secret
        .clone()
        .unwrap();
    assert!(!kept.windows(7).any(|part| part == b"hunter2"));
    assert!(!format!("{:?}", it.access.workloads()).contains("hunter2"));
    // Another setting, and the same secret.
    let mut settings = discovered();
    settings.session = 120;
    it.issuer("prod", &settings).await;
    assert!(it.access.workloads().trust().issuers["prod"].has_bearer);
    // Somewhere else it is not shown.
    for change in [
        (|it| it.keys = KeySource::Url("https://evil.example/keys".into()))
            as fn(&mut IssuerSettings),
        |it| it.issuer = "https://evil.example".into(),
        |it| it.authority = "-----BEGIN CERTIFICATE-----".into(),
    ] {
        let mut other = settings.clone();
        change(&mut other);
        let keep = &Bearer::Keep;
        let put = it
            .access
            .put_issuer(Changer::Operator, "prod", &other, keep, None, NOW);
        let put = put.await;
        assert!(
            matches!(put, Err(ChangeError::Field("bearer", _))),
            "{put:?}"
        );
    }
    it.access
        .put_issuer(
            Changer::Operator,
            "prod",
            &settings,
            &Bearer::Forget,
            None,
            NOW,
        )
        .await
        .unwrap();
    assert_eq!(meta.scan(page).await.unwrap()[0].secret, None);
    for bad in ["", "a b", "ä"] {
        let set = Bearer::Set(Password::new(bad));
        let put = it
            .access
            .put_issuer(Changer::Operator, "prod", &settings, &set, None, NOW)
            .await;
        assert!(
            matches!(put, Err(ChangeError::Field("bearer", _))),
            "{bad:?}"
        );
    }
}

/// Whatever a replica had read when another one changed whom to trust, it has read that change once it has looked again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_between_two_reads_is_not_missed() {
    let it = House::new().await;
    let meta = it.access.meta().unwrap().clone();
    let other = Access::open(AccessOptions::default(), SecretKeys::of_tests(), meta, NOW);
    let other = Arc::new(other.await.unwrap());
    let on = Arc::new(AtomicBool::new(true));
    let looks = {
        let (other, on) = (other.clone(), on.clone());
        tokio::spawn(async move {
            while on.load(Ordering::Relaxed) {
                other.rights.refresh().await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    };
    for n in 0..200 {
        // What the other one begins to read when the rule changes.
        it.grant("bob", "reader", &format!("n/{n}")).await;
        let rule =
            conditions(json!([{"claim": "kubernetes.io.namespace", "in": [format!("n{n}")]}]));
        it.rule("moves", "prod", &rule).await;
        other.rights.refresh().await.unwrap();
        let trust = other.workloads().trust();
        assert_eq!(trust.rules["moves"].settings, rule, "{n}");
    }
    on.store(false, Ordering::Relaxed);
    looks.await.unwrap();
}

#[tokio::test]
async fn no_issuer_is_called_like_a_kind_of_subject() {
    let it = House::empty().await;
    let settings = cluster();
    for name in TAKEN {
        let access = &it.access;
        let put = access.put_issuer(Changer::Operator, name, &settings, &Bearer::Keep, None, NOW);
        let put = put.await;
        assert!(matches!(put, Err(ChangeError::Field("name", _))), "{put:?}");
    }
}
