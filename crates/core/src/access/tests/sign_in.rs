//! Names and passwords: local users, the htpasswd file, the administrator, floods.

use std::pin::Pin;
use std::task::{Context, Poll};

use super::*;

/// Spec: BASIC-1.
#[tokio::test]
async fn basic_works_for_local_and_htpasswd_users() {
    let it = Fixture::plain().await;
    let alice = it.basic("alice", "wonderland").await.unwrap();
    assert_eq!(
        alice.principal,
        Principal::User {
            name: "alice".into(),
            source: Source::Htpasswd
        }
    );
    assert!(alice.scopes.is_none() && alice.expired_since.is_none());
    let admin = it.basic("admin", "administrator at home").await.unwrap();
    assert_eq!(
        admin.principal,
        Principal::User {
            name: "admin".into(),
            source: Source::Local
        }
    );
    assert!(it.access.allow(&admin, Permission::Admin, None));
    assert!(!it.access.allow(&alice, Permission::Admin, None));
}

/// Spec: TOK-7.
#[tokio::test]
async fn wrong_passwords_and_unknown_users_get_the_same_answer_for_the_same_work() {
    let it = Fixture::plain().await;
    for (user, password) in [
        ("alice", "Wonderland"),
        ("nobody", "wonderland"),
        ("admin", "wonderland"),
        ("", "x"),
        ("alice", ""),
    ] {
        let before = it.access.password_counts().checked;
        let failure = it.basic(user, password).await.unwrap_err();
        assert!(
            matches!(failure, AuthFailure::Password),
            "{user}: {failure:?}"
        );
        assert_eq!(
            failure.to_string(),
            "the user name or the password is wrong"
        );
        assert_eq!(it.access.password_counts().checked, before + 1, "{user}");
    }
}

#[tokio::test]
async fn empty_credentials_are_anonymous() {
    let it = Fixture::plain().await;
    let caller = it.basic("", "").await.unwrap();
    assert!(caller.came_without_credentials());
    assert!(
        it.access
            .authenticate(None, NOW)
            .await
            .unwrap()
            .came_without_credentials()
    );
    assert_eq!(it.access.password_counts().checked, 0);
}

#[tokio::test]
async fn other_schemes_are_refused() {
    let it = Fixture::plain().await;
    let failure = it
        .access
        .authenticate(Some(&Authorization::Other("digest".into())), NOW)
        .await
        .unwrap_err();
    assert_eq!(
        (failure.reason(), failure.challenge_error()),
        ("scheme", None)
    );
}

/// Spec: BASIC-2.
#[tokio::test]
async fn a_success_is_remembered_for_a_minute_and_asks_no_store() {
    let it = Fixture::plain().await;
    it.basic("alice", "wonderland").await.unwrap();
    let (calls, checked) = (it.calls(), it.access.password_counts().checked);
    for _ in 0..100 {
        it.basic_at("alice", "wonderland", NOW + MINUTE - 1)
            .await
            .unwrap();
    }
    assert_eq!(
        (it.calls(), it.access.password_counts().checked),
        (calls, checked)
    );
    assert_eq!(it.access.password_counts().remembered, 100);
    it.basic("alice", "other").await.unwrap_err();
    it.basic_at("alice", "wonderland", NOW + MINUTE)
        .await
        .unwrap();
    assert_eq!(it.access.password_counts().checked, checked + 2);
    // A clock that was set back must not keep a success alive.
    it.basic_at("alice", "wonderland", NOW - HOUR)
        .await
        .unwrap();
    assert_eq!(it.access.password_counts().checked, checked + 3);
}

#[tokio::test]
async fn a_failure_is_not_remembered() {
    let it = Fixture::plain().await;
    let checked = it.access.password_counts().checked;
    it.basic("alice", "guess").await.unwrap_err();
    it.basic("alice", "guess").await.unwrap_err();
    assert_eq!(it.access.password_counts().checked, checked + 2);
}

#[tokio::test]
async fn equal_credentials_that_arrive_together_are_checked_once() {
    let it = Fixture::new(|options| options.password_attempts = 2).await;
    let mut nodes = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let access = it.access.clone();
        nodes.spawn(async move {
            let header = Authorization::Basic {
                user: "alice".into(),
                password: "wonderland".into(),
            };
            access
                .authenticate(Some(&header), NOW)
                .await
                .map(|caller| caller.principal.name().to_owned())
        });
    }
    for answer in nodes.join_all().await {
        assert_eq!(answer.unwrap(), "alice");
    }
    assert_eq!(it.access.password_counts().checked, 1);
}

/// Spec: TOK-7.
#[tokio::test]
async fn a_flood_of_sign_ins_is_bounded_and_passes() {
    let it = Fixture::new(|options| {
        options.password_attempts = 4;
        options.password_threads = 1;
    })
    .await;
    let stalled = it.access.passwords.stall().await;
    let mut guesses = tokio::task::JoinSet::new();
    for guess in 0..200 {
        let access = it.access.clone();
        guesses.spawn(async move {
            let header = Authorization::Basic {
                user: "alice".into(),
                password: format!("guess {guess}"),
            };
            access.authenticate(Some(&header), NOW).await.unwrap_err()
        });
    }
    let mut busy = 0;
    while busy < 196 {
        let failure = guesses.join_next().await.unwrap().unwrap();
        assert!(
            matches!(failure, AuthFailure::Busy { retry_after } if !retry_after.is_zero()),
            "{failure:?}"
        );
        busy += 1;
    }
    drop(stalled);
    for failure in guesses.join_all().await {
        assert!(matches!(failure, AuthFailure::Password), "{failure:?}");
    }
    let counts = it.access.password_counts();
    assert_eq!((counts.checked, counts.refused), (4, 196));
    it.basic("alice", "wonderland").await.unwrap();
}

/// Polls a future that must not be ready yet.
async fn poll_once<F: Future + Unpin>(future: &mut F) {
    let pending =
        |context: &mut Context<'_>| Poll::Ready(Pin::new(&mut *future).poll(context).is_pending());
    assert!(std::future::poll_fn(pending).await);
}

#[tokio::test]
async fn those_who_hang_up_still_count_as_under_way() {
    let it = Fixture::new(|options| {
        options.password_attempts = 2;
        options.password_threads = 1;
    })
    .await;
    let _stalled = it.access.passwords.stall().await;
    for guess in ["a", "b"] {
        let mut attempt = Box::pin(it.basic("alice", guess));
        // The first poll waits for the store, the second for the check.
        for _ in 0..2 {
            poll_once(&mut attempt).await;
        }
    }
    let failure = it.basic("alice", "c").await.unwrap_err();
    assert!(matches!(failure, AuthFailure::Busy { .. }), "{failure:?}");
}

#[tokio::test]
async fn a_changed_htpasswd_file_counts_within_two_looks() {
    let it = Fixture::plain().await;
    let token = it.token("repository:a:pull").await;
    it.basic("bob", "builder").await.unwrap();
    std::fs::write(
        it.file(),
        line("bob", "rebuilt") + &line("carol", "singing"),
    )
    .unwrap();
    it.access.upkeep(NOW).await.unwrap();
    it.basic("bob", "builder").await.unwrap();
    assert!(!it.access.took_file());
    it.access.upkeep(NOW).await.unwrap();
    assert!(it.access.took_file() && !it.access.took_file(), "once");
    it.basic("bob", "builder").await.unwrap_err();
    it.basic("bob", "rebuilt").await.unwrap();
    it.basic("carol", "singing").await.unwrap();
    it.basic("alice", "wonderland").await.unwrap_err();
    assert_eq!(fault(it.bearer(&token, NOW).await), TokenFault::Revoked);
}

#[tokio::test]
async fn a_reload_that_leaves_a_user_alone_leaves_tokens_and_memory_alone() {
    let it = Fixture::plain().await;
    let token = it.token("repository:a:pull").await;
    let content = std::fs::read_to_string(it.file()).unwrap();
    std::fs::write(it.file(), content + &line("carol", "singing")).unwrap();
    it.settle().await;
    it.basic("carol", "singing").await.unwrap();
    let checked = it.access.password_counts().checked;
    it.basic("alice", "wonderland").await.unwrap();
    assert_eq!(it.access.password_counts().checked, checked);
    it.bearer(&token, NOW).await.unwrap();
}

#[tokio::test]
async fn a_file_that_vanishes_keeps_its_last_content_and_comes_back() {
    let it = Fixture::plain().await;
    std::fs::remove_file(it.file()).unwrap();
    it.settle().await;
    it.basic("alice", "wonderland").await.unwrap();
    std::fs::write(it.file(), line("carol", "singing")).unwrap();
    it.settle().await;
    it.basic("carol", "singing").await.unwrap();
    it.basic("alice", "wonderland").await.unwrap_err();
}

#[tokio::test]
async fn a_store_that_fails_is_no_wrong_password() {
    let it = Fixture::plain().await;
    it.memory.broken.store(true, Ordering::SeqCst);
    let failure = it.basic("dave", "x").await.unwrap_err();
    assert!(matches!(failure, AuthFailure::Store(_)), "{failure:?}");
    it.memory.broken.store(false, Ordering::SeqCst);
    assert!(matches!(
        it.basic("dave", "x").await.unwrap_err(),
        AuthFailure::Password
    ));
}

#[tokio::test]
async fn the_administrator_is_made_exactly_once() {
    let memory = Arc::new(Memory::default());
    let mut made = 0;
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let memory = memory.clone();
        starts.spawn(async move {
            let access = Access::with_secrets(
                AccessOptions::default(),
                SecretKeys::of_tests(),
                memory,
                NOW,
            )
            .await
            .unwrap();
            access.bootstrap_admin(None, NOW).await.unwrap()
        });
    }
    let mut password = None;
    for outcome in starts.join_all().await {
        if let Bootstrap::Created(chosen) = outcome {
            made += 1;
            password = Some(chosen);
        }
    }
    assert_eq!(made, 1);
    let access = Access::with_secrets(
        AccessOptions::default(),
        SecretKeys::of_tests(),
        memory,
        NOW,
    )
    .await
    .unwrap();
    let chosen = Some(Password::new("ignored-later"));
    assert_eq!(
        access.bootstrap_admin(chosen, NOW).await.unwrap(),
        Bootstrap::Existed
    );
    let header = Authorization::Basic {
        user: ADMIN.into(),
        password: password.unwrap().reveal().into(),
    };
    assert_eq!(
        access
            .authenticate(Some(&header), NOW)
            .await
            .unwrap()
            .principal
            .name(),
        ADMIN
    );
}

#[tokio::test]
async fn a_reset_ends_the_old_password_and_what_was_signed_in_with_it() {
    let it = Fixture::plain().await;
    let grant = it
        .grant(
            password(ADMIN, "administrator at home"),
            "repository:a:pull",
            false,
        )
        .await
        .unwrap();
    it.basic(ADMIN, "administrator at home").await.unwrap();
    let fresh = it.access.reset_admin_password(None, NOW).await.unwrap();
    it.basic(ADMIN, "administrator at home").await.unwrap_err();
    it.basic(ADMIN, fresh.reveal()).await.unwrap();
    assert_eq!(
        fault(it.bearer(grant.token.reveal(), NOW).await),
        TokenFault::Revoked
    );
}

#[tokio::test]
async fn a_short_administrator_password_is_refused_with_the_length() {
    let it = Fixture::plain().await;
    let error = it
        .access
        .reset_admin_password(Some(Password::new("1234567")), NOW)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("at least 8"), "{error}");
    for (weak, why) in [("Password1", "tried first"), ("admin-x1", "name")] {
        let reset = it
            .access
            .reset_admin_password(Some(Password::new(weak)), NOW);
        let error = reset.await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    it.basic(ADMIN, "administrator at home").await.unwrap();
}

#[tokio::test]
async fn a_fill_that_began_before_a_change_is_not_kept() {
    let it = Fixture::plain().await;
    it.access.users.forget(ADMIN);
    let mut slow = Box::pin(it.access.users.find(ADMIN));
    poll_once(&mut slow).await;
    // It has read the old row, whose answer is on its way; now the password changes.
    let fresh = it.access.reset_admin_password(None, NOW).await.unwrap();
    slow.await.unwrap();
    it.basic(ADMIN, fresh.reveal()).await.unwrap();
    it.basic(ADMIN, "administrator at home").await.unwrap_err();
}

#[tokio::test]
async fn grants_for_strangers_are_told() {
    let it = Fixture::new(|options| {
        let grant = |who: &str| Grant {
            who: Who::User(who.into()),
            role: Role::Reader,
            on: None,
        };
        options.rights.grants = ["zoe", "alice", "alcie", ADMIN].map(grant).to_vec();
    })
    .await;
    assert_eq!(
        it.access.unknown_grantees().await.unwrap(),
        ["alcie", "zoe"]
    );
}

#[tokio::test]
async fn over_the_real_store_everything_survives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wharf.db");
    let open = async || {
        let (meta, _) = Meta::open(wharf_meta::SqliteOptions::new(&path)).unwrap();
        let options = AccessOptions {
            identity_tokens: true,
            ..AccessOptions::default()
        };
        (
            Access::open(options, SecretKeys::of_tests(), meta.clone(), NOW)
                .await
                .unwrap(),
            meta,
        )
    };
    let (access, meta) = open().await;
    let Bootstrap::Created(chosen) = access.bootstrap_admin(None, NOW).await.unwrap() else {
        panic!()
    };
    let request = |proof| TokenRequest {
        proof,
        scopes: Scope::parse_list("repository:a:pull"),
        offline: true,
    };
    let grant = access
        .grant_token(request(password(ADMIN, chosen.reveal())), NOW)
        .await
        .unwrap();
    let refresh = grant.refresh_token.unwrap();
    meta.close().await;

    let (access, meta) = open().await;
    assert_eq!(
        access.bootstrap_admin(None, NOW).await.unwrap(),
        Bootstrap::Existed
    );
    let bearer = Authorization::Bearer(grant.token.reveal().into());
    let caller = access.authenticate(Some(&bearer), NOW).await.unwrap();
    assert!(access.allow(&caller, Permission::Admin, None));
    let again = access
        .grant_token(request(Proof::RefreshToken(refresh.clone())), NOW)
        .await
        .unwrap();
    assert_eq!(again.principal.name(), ADMIN);
    access.upkeep(NOW + 40 * 24 * HOUR).await.unwrap();
    access
        .reset_admin_password(Some(Password::new("another-one")), NOW)
        .await
        .unwrap();
    assert_eq!(
        fault(access.authenticate(Some(&bearer), NOW).await),
        TokenFault::Revoked
    );
    let late = access
        .grant_token(request(Proof::RefreshToken(refresh)), NOW)
        .await;
    assert!(matches!(
        late,
        Err(TokenRefusal::Auth(AuthFailure::RefreshToken))
    ));
    meta.close().await;
}

/// Were there one kind of work for all unknown names, the names of the other kind would be known by time.
#[tokio::test]
async fn unknown_names_look_like_those_of_either_kind_and_always_alike() {
    use super::super::password::Dummy;
    let it = Fixture::plain().await;
    let names: Vec<String> = (0..200).map(|at| format!("nobody-{at}")).collect();
    let kinds = |access: &Access| -> Vec<Dummy> {
        names.iter().map(|name| access.users.dummy(name)).collect()
    };
    let first = kinds(&it.access);
    let local = first.iter().filter(|kind| **kind == Dummy::Argon2).count();
    let filed = first
        .iter()
        .filter(|kind| **kind == Dummy::Bcrypt(4))
        .count();
    assert_eq!(local + filed, names.len());
    assert!((50..=150).contains(&local), "{local}");
    assert_eq!(first, kinds(&it.access));
    let other = Fixture::plain().await;
    assert_eq!(first, kinds(&other.access), "as on another replica");
    std::fs::write(it.file(), "").unwrap();
    it.settle().await;
    let alone = kinds(&it.access);
    assert!(alone.iter().all(|kind| *kind == Dummy::Argon2));
}
