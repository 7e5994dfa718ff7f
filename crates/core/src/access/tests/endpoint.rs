//! The token endpoint, and what its tokens are good for.

use super::*;

fn scopes(text: &str) -> Vec<Scope> {
    Scope::parse_list(text)
}

fn grant(who: &str, role: Role, on: &str) -> Grant {
    Grant {
        who: Who::parse(who).unwrap(),
        role,
        on: Some(on.into()),
    }
}

/// Spec: TOK-1.
#[tokio::test]
async fn wrong_credentials_get_no_token_and_anonymous_gets_one_without_rights() {
    let it = Fixture::plain().await;
    let refusal = it
        .grant(password("alice", "wrong"), "", false)
        .await
        .unwrap_err();
    assert!(matches!(refusal, TokenRefusal::Auth(AuthFailure::Password)));
    for proof in [Proof::Nobody, password("", "")] {
        let grant = it.grant(proof, "repository:a:pull", true).await.unwrap();
        assert_eq!((grant.granted, grant.refresh_token), (vec![], None));
        let caller = it.bearer(grant.token.reveal(), NOW).await.unwrap();
        assert!(caller.principal.is_anonymous());
        let decision = it
            .access
            .decide(&caller, Permission::Pull, Some(&name("a")));
        assert!(matches!(
            decision,
            Decision::Challenge {
                scope: Some(_),
                error: Some(INSUFFICIENT_SCOPE)
            }
        ));
    }
}

/// Spec: TOK-3, PING-2.
#[tokio::test]
async fn a_token_without_scopes_is_good_for_the_ping() {
    let it = Fixture::plain().await;
    for proof in [password("alice", "wonderland"), Proof::Nobody] {
        let grant = it.grant(proof, "", false).await.unwrap();
        let caller = it.bearer(grant.token.reveal(), NOW).await.unwrap();
        assert_eq!(it.access.decide_ping(&caller), Decision::Allow);
    }
    assert_ne!(it.access.decide_ping(&Caller::anonymous()), Decision::Allow);
}

/// Spec: SCOPE-2.
#[tokio::test]
async fn what_is_granted_is_the_intersection_of_asked_and_held() {
    let it = Fixture::new(|options| {
        options.rights.htpasswd = Role::None;
        options.rights.grants = vec![
            grant("alice", Role::Writer, "team"),
            grant("alice", Role::Reader, "public"),
        ];
    })
    .await;
    for (asked, granted) in [
        ("repository:team/a:pull,push", "repository:team/a:pull,push"),
        ("repository:team/a:*", "repository:team/a:pull,push"),
        ("repository:team/a:delete", ""),
        (
            "repository:public/a:pull,push repository:team/b:push",
            "repository:public/a:pull repository:team/b:push",
        ),
        ("repository:private/a:pull", ""),
        (
            "repository:public/a:pull,teleport,push",
            "repository:public/a:pull",
        ),
        ("registry:catalog:*", "registry:catalog:*"),
        ("registry:admin:*", ""),
        ("galaxy:far/away:pull", ""),
        ("repository(plugin):team/a:pull", "repository:team/a:pull"),
        (
            "repository:team/a:pull repository:team/a:push",
            "repository:team/a:pull,push",
        ),
    ] {
        let grant = it
            .grant(password("alice", "wonderland"), asked, false)
            .await
            .unwrap();
        assert_eq!(grant.granted, scopes(granted), "{asked}");
    }
}

/// Spec: TOK-6.
#[tokio::test]
async fn tokens_that_push_live_an_hour_and_others_a_quarter() {
    let it = Fixture::plain().await;
    for (asked, minutes) in [
        ("", 15),
        ("repository:a:pull", 15),
        ("registry:catalog:*", 15),
        ("repository:a:pull,push", 60),
        ("repository:a:*", 60),
        ("repository:a:delete", 60),
    ] {
        let grant = it
            .grant(password("alice", "wonderland"), asked, false)
            .await
            .unwrap();
        assert_eq!(
            (grant.expires_in, grant.issued_at),
            (minutes * 60, NOW),
            "{asked}"
        );
    }
}

/// Spec: TOK-8.
#[tokio::test]
async fn many_scopes_fit_and_too_many_are_refused_with_the_limit() {
    let it = Fixture::plain().await;
    let asked = |count: usize| {
        (0..count)
            .map(|n| format!("repository:team/project/service-{n}:pull,push "))
            .collect::<String>()
    };
    let grant = it
        .grant(password("alice", "wonderland"), &asked(MOST_SCOPES), false)
        .await
        .unwrap();
    assert!(
        grant.token.reveal().len() < LONGEST_TOKEN,
        "{}",
        grant.token.reveal().len()
    );
    assert_eq!(
        it.bearer(grant.token.reveal(), NOW)
            .await
            .unwrap()
            .scopes
            .unwrap()
            .len(),
        MOST_SCOPES
    );
    let refusal = it
        .grant(Proof::Nobody, &asked(MOST_SCOPES + 1), false)
        .await
        .unwrap_err();
    assert!(refusal.to_string().contains("at most 50"), "{refusal}");
    let long: String = (0..MOST_SCOPES)
        .map(|n| format!("repository:{}{n}:pull ", "x".repeat(200)))
        .collect();
    assert!(matches!(
        it.grant(Proof::Nobody, &long, false).await.unwrap_err(),
        TokenRefusal::TooManyScopes
    ));
}

#[tokio::test]
async fn repeated_use_of_a_token_costs_no_cryptography_and_no_query() {
    let it = Fixture::plain().await;
    let token = it.token("repository:a:pull").await;
    it.bearer(&token, NOW).await.unwrap();
    let (calls, checked) = (it.calls(), it.access.token_counts().checked);
    for _ in 0..100 {
        it.bearer(&token, NOW).await.unwrap();
    }
    assert_eq!(
        (it.calls(), it.access.token_counts().checked),
        (calls, checked)
    );
    assert_eq!(it.access.token_counts().remembered, 100);
}

/// Spec: AUTH-7.
#[tokio::test]
async fn rights_count_at_the_next_request_for_tokens_already_issued() {
    let it = Fixture::new(|options| options.rights.htpasswd = Role::None).await;
    let token = it.token("repository:team/a:pull").await;
    let (team, push) = (name("team/a"), Permission::Push);
    let decide = async |permission| {
        it.access.decide(
            &it.bearer(&token, NOW).await.unwrap(),
            permission,
            Some(&team),
        )
    };
    assert_eq!(decide(Permission::Pull).await, Decision::Denied);
    let rights = Rights {
        grants: vec![grant("alice", Role::Writer, "team")],
        ..Rights::default()
    };
    it.access.reload(&rights).unwrap();
    assert_eq!(decide(Permission::Pull).await, Decision::Allow);
    assert!(matches!(
        decide(push).await,
        Decision::Challenge {
            error: Some(INSUFFICIENT_SCOPE),
            ..
        }
    ));
    it.access.reload(&Rights::default()).unwrap();
    assert_eq!(decide(Permission::Pull).await, Decision::Denied);
}

/// Spec: AUTH-20.
#[tokio::test]
async fn an_expired_token_goes_on_with_its_own_upload_and_with_nothing_else() {
    let it = Fixture::plain().await;
    let token = it.token("repository:a:pull,push").await;
    let end = NOW + HOUR;
    let caller = it.bearer(&token, end + 2 * HOUR).await.unwrap();
    assert_eq!(caller.expired_since, Some(end));
    let challenge = |scope: Option<Scope>| Decision::Challenge {
        scope,
        error: Some(INVALID_TOKEN),
    };
    let a = name("a");
    for permission in [Permission::Pull, Permission::Push] {
        let decision = it.access.decide(&caller, permission, Some(&a));
        assert_eq!(decision, challenge(scope_for(permission, Some(&a))));
    }
    assert_eq!(it.access.decide_ping(&caller), challenge(None));
    assert_eq!(
        it.access.decide_upload(&caller, "alice", &a),
        Decision::Allow
    );
    for (owner, repository) in [("bob", "a"), (ANONYMOUS, "a")] {
        assert_ne!(
            it.access.decide_upload(&caller, owner, &name(repository)),
            Decision::Allow,
            "{owner} {repository}"
        );
    }
    // The token was for another repository.
    assert!(matches!(
        it.access.decide_upload(&caller, "alice", &name("b")),
        Decision::Challenge { .. }
    ));
    // The subject may no longer push.
    it.access
        .reload(&Rights {
            htpasswd: Role::Reader,
            ..Rights::default()
        })
        .unwrap();
    assert_eq!(
        it.access.decide_upload(&caller, "alice", &a),
        Decision::Denied
    );
    assert_eq!(
        fault(it.bearer(&token, end + 6 * HOUR).await),
        TokenFault::Expired
    );
}

#[tokio::test]
async fn an_expired_token_of_nobody_goes_on_with_nothing() {
    let it = Fixture::new(|options| options.rights.anonymous = Role::Writer).await;
    let grant = it
        .grant(Proof::Nobody, "repository:a:push", false)
        .await
        .unwrap();
    let caller = it
        .bearer(grant.token.reveal(), NOW + 2 * HOUR)
        .await
        .unwrap();
    assert!(caller.expired_since.is_some());
    assert!(matches!(
        it.access.decide_upload(&caller, ANONYMOUS, &name("a")),
        Decision::Challenge { .. }
    ));
}

#[tokio::test]
async fn identity_tokens_are_given_only_when_switched_on_and_asked_for() {
    let off = Fixture::plain().await;
    let grant = off
        .grant(password("alice", "wonderland"), "", true)
        .await
        .unwrap();
    assert_eq!(grant.refresh_token, None);
    let on = Fixture::new(|options| options.identity_tokens = true).await;
    assert_eq!(
        on.grant(password("alice", "wonderland"), "", false)
            .await
            .unwrap()
            .refresh_token,
        None
    );
    assert_eq!(
        on.grant(Proof::Nobody, "", true)
            .await
            .unwrap()
            .refresh_token,
        None
    );
    let refresh = on
        .grant(password("alice", "wonderland"), "", true)
        .await
        .unwrap()
        .refresh_token
        .unwrap();
    let stored = format!("{:?}", on.memory.refresh.lock().unwrap());
    assert!(!stored.contains(refresh.reveal()), "stored hashed");
    for _ in 0..3 {
        let grant = on
            .grant(
                Proof::RefreshToken(refresh.clone()),
                "repository:a:pull",
                true,
            )
            .await
            .unwrap();
        assert_eq!(
            (grant.principal.name(), grant.refresh_token.as_ref()),
            ("alice", Some(&refresh)),
            "never rotates"
        );
        assert_eq!(
            on.bearer(grant.token.reveal(), NOW)
                .await
                .unwrap()
                .principal
                .name(),
            "alice"
        );
    }
    assert_eq!(on.memory.refresh.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn identity_tokens_die_with_the_password_and_when_switched_off() {
    let it = Fixture::new(|options| options.identity_tokens = true).await;
    let refresh = it
        .grant(password(ADMIN, "administrator at home"), "", true)
        .await
        .unwrap()
        .refresh_token
        .unwrap();
    let options = AccessOptions {
        htpasswd: Some(it.file()),
        ..AccessOptions::default()
    };
    let off = Access::with_secrets(options, SecretKeys::of_tests(), it.memory.clone(), NOW)
        .await
        .unwrap();
    let request = || TokenRequest {
        proof: Proof::RefreshToken(refresh.clone()),
        scopes: vec![],
        offline: false,
    };
    assert!(matches!(
        off.grant_token(request(), NOW).await,
        Err(TokenRefusal::Auth(AuthFailure::RefreshToken))
    ));
    it.access.grant_token(request(), NOW).await.unwrap();
    it.access.reset_admin_password(None, NOW).await.unwrap();
    assert!(matches!(
        it.access.grant_token(request(), NOW).await,
        Err(TokenRefusal::Auth(AuthFailure::RefreshToken))
    ));
    assert!(it.memory.refresh.lock().unwrap().is_empty());
}

#[tokio::test]
async fn made_up_identity_tokens_cost_no_query() {
    let it = Fixture::new(|options| options.identity_tokens = true).await;
    let calls = it.calls();
    for text in [
        "",
        "x",
        "wharf_refresh_",
        &format!("wharf_refresh_{}_00000000", "0".repeat(64)),
    ] {
        let result = it
            .grant(Proof::RefreshToken(Password::new(text)), "", false)
            .await;
        assert!(
            matches!(result, Err(TokenRefusal::Auth(AuthFailure::RefreshToken))),
            "{text}"
        );
    }
    assert_eq!(it.calls(), calls);
}

#[test]
fn the_header_of_the_endpoint_takes_basic_lets_strangers_be_nobody_and_refuses_tokens() {
    let proof = |header: &str| Proof::from_header([header.as_bytes()]);
    assert!(matches!(Proof::from_header([]), Ok(Proof::Nobody)));
    let basic = Authorization::basic("alice", "x");
    assert!(matches!(proof(&basic), Ok(Proof::Password { name, .. }) if name == "alice"));
    for stranger in ["ssh-ed25519 AAAA", "AAAAC3Nz+/:c2ln=="] {
        assert!(matches!(proof(stranger), Ok(Proof::Nobody)), "{stranger}");
    }
    assert!(matches!(proof("Bearer a.b.c"), Err(AuthFailure::Scheme(_))));
    assert!(matches!(proof("Basic ?"), Err(AuthFailure::Malformed(_))));
    assert!(matches!(
        Proof::from_header([basic.as_bytes(); 2]),
        Err(AuthFailure::Several)
    ));
}
