//! Signing keys over time.

use super::*;

const DAY: i64 = 24 * HOUR;

fn kids(it: &Fixture) -> Vec<(String, Option<i64>)> {
    it.memory
        .keys
        .lock()
        .unwrap()
        .iter()
        .map(|key| (key.kid.clone(), key.retired_at))
        .collect()
}

async fn again(it: &Fixture, now: i64) -> Access {
    let options = AccessOptions {
        htpasswd: Some(it.file()),
        ..AccessOptions::default()
    };
    Access::with_secrets(options, SecretKeys::of_tests(), it.memory.clone(), now)
        .await
        .unwrap()
}

async fn works(access: &Access, token: &str, now: i64) -> bool {
    access
        .authenticate(Some(&Authorization::Bearer(token.into())), now)
        .await
        .is_ok()
}

#[tokio::test]
async fn tokens_survive_a_restart() {
    let it = Fixture::plain().await;
    let token = it.token("repository:a:pull").await;
    assert!(works(&again(&it, NOW).await, &token, NOW).await);
    assert_eq!(kids(&it).len(), 1);
}

#[tokio::test]
async fn a_new_key_takes_over_after_a_month_and_the_old_one_is_trusted_until_its_tokens_ended() {
    let it = Fixture::plain().await;
    it.access.upkeep(NOW + 30 * DAY - 1).await.unwrap();
    assert_eq!(kids(&it).len(), 1);
    let late = NOW + 30 * DAY - 1_000;
    let request = || TokenRequest {
        proof: password("alice", "wonderland"),
        scopes: Scope::parse_list("repository:a:push"),
        offline: false,
    };
    let old = it.access.grant_token(request(), late).await.unwrap();
    let turn = NOW + 30 * DAY;
    it.access.upkeep(turn).await.unwrap();
    let [(_, Some(retired)), (second, None)] = &kids(&it)[..] else {
        panic!("{:?}", kids(&it))
    };
    assert_eq!(
        (*retired, &it.access.tokens.keys.signer().kid),
        (turn, second)
    );
    let new = it.access.grant_token(request(), turn).await.unwrap();
    let end = late + 60 * MINUTE;
    for access in [&*it.access, &again(&it, turn).await] {
        assert!(
            works(access, old.token.reveal(), end).await,
            "as long as it lives"
        );
        assert!(
            works(access, old.token.reveal(), end + 6 * HOUR - 1).await,
            "and for uploads of its own"
        );
        assert!(works(access, new.token.reveal(), end).await);
        assert!(
            !access.tokens.keys.trusts(&kids(&it)[0].0, turn + DAY),
            "then no longer"
        );
    }
}

#[tokio::test]
async fn a_key_that_another_replica_made_is_found() {
    let it = Fixture::plain().await;
    let turn = NOW + 30 * DAY;
    let other = again(&it, turn).await;
    let request = TokenRequest {
        proof: password("alice", "wonderland"),
        scopes: vec![],
        offline: false,
    };
    let token = other.grant_token(request, turn).await.unwrap();
    assert!(works(&it.access, token.token.reveal(), turn).await);
}

#[tokio::test]
async fn two_that_start_together_accept_each_other() {
    let memory = Arc::new(Memory::default());
    let start = || async {
        Access::with_secrets(
            AccessOptions::default(),
            SecretKeys::of_tests(),
            memory.clone(),
            NOW,
        )
        .await
        .unwrap()
    };
    let (one, two) = tokio::join!(start(), start());
    let request = || TokenRequest {
        proof: Proof::Nobody,
        scopes: vec![],
        offline: false,
    };
    for (issuer, reader) in [(&one, &two), (&two, &one)] {
        let token = issuer.grant_token(request(), NOW + 10_000).await.unwrap();
        assert!(works(reader, token.token.reveal(), NOW + 10_000).await);
    }
}

#[tokio::test]
async fn a_damaged_key_is_left_out_and_another_made() {
    let it = Fixture::plain().await;
    it.memory.keys.lock().unwrap()[0].private_der = vec![0; 10];
    let access = again(&it, NOW).await;
    let request = TokenRequest {
        proof: Proof::Nobody,
        scopes: vec![],
        offline: false,
    };
    let token = access.grant_token(request, NOW).await.unwrap();
    assert!(works(&access, token.token.reveal(), NOW).await);
}

#[tokio::test]
async fn tokens_of_a_key_that_was_taken_out_of_the_store_are_refused_though_remembered() {
    let it = Fixture::plain().await;
    let token = it.token("repository:a:pull").await;
    assert!(works(&it.access, &token, NOW).await);
    it.memory.keys.lock().unwrap().clear();
    // Any unknown name makes the keys be read again.
    assert!(
        it.access
            .tokens
            .keys
            .find("unknown", NOW + 10_000)
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(
        fault(it.bearer(&token, NOW + 10_000).await),
        TokenFault::Key
    );
}

#[tokio::test]
async fn the_key_is_named_by_its_thumbprint_and_never_shown() {
    let it = Fixture::plain().await;
    let shown = format!("{:?}", it.access);
    let der = it.memory.keys.lock().unwrap()[0].private_der.clone();
    let bytes = format!("{:?}", &der[36..46]);
    assert!(shown.contains(&it.access.tokens.keys.signer().kid));
    assert!(
        !shown.contains(bytes.trim_matches(['[', ']']))
            && !shown.contains("$argon2")
            && !shown.contains("$2b$")
    );
    assert_eq!(it.access.tokens.keys.signer().kid.len(), 43);
}

#[tokio::test]
async fn a_full_disk_keeps_the_old_key_signing_until_there_is_room() {
    let it = Fixture::plain().await;
    it.memory.full.store(true, Ordering::SeqCst);
    let turn = NOW + 31 * DAY;
    it.access.upkeep(turn).await.unwrap();
    let request = TokenRequest {
        proof: password("alice", "wonderland"),
        scopes: Scope::parse_list("repository:a:push"),
        offline: true,
    };
    let grant = it.access.grant_token(request, turn).await.unwrap();
    assert!(works(&it.access, grant.token.reveal(), turn).await);
    assert!(works(&again(&it, turn).await, grant.token.reveal(), turn).await);
    assert_eq!(kids(&it).len(), 1);

    it.memory.full.store(false, Ordering::SeqCst);
    it.access.upkeep(turn + 1).await.unwrap();
    assert_eq!(kids(&it).len(), 2);
    assert!(works(&it.access, grant.token.reveal(), turn + 1).await);
}

#[tokio::test]
async fn retired_keys_go_a_rotation_after_their_tokens() {
    let it = Fixture::plain().await;
    let first = kids(&it)[0].0.clone();
    let mut most = 0;
    for month in 1..=12 {
        it.access.upkeep(NOW + month * 30 * DAY).await.unwrap();
        most = most.max(kids(&it).len());
        // Retired a month ago, and its tokens ended weeks ago.
        let there = kids(&it).iter().any(|(kid, _)| *kid == first);
        assert_eq!(there, month <= 2, "month {month}");
    }
    assert!(most <= 3, "{most} keys at once");
}
