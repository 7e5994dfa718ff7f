//! Where keys come from, how long they are good, and issuers that do wrong.

use super::*;

/// Spec: K8SCRED-7, OIDC-4.
#[tokio::test]
async fn keys_are_discovered_rotated_and_used_while_the_issuer_is_down() {
    let it = House::new().await;
    it.issuer("prod", &discovered()).await;
    publish(&it.web, &jwks(&[&ONE]));
    let token = |pair: &Pair, at: i64| {
        let claims = changed(pod("prod", "default"), "exp", (at / SECOND + 600).into());
        pair.sign(&changed(
            changed(claims, "iat", (at / SECOND).into()),
            "nbf",
            Value::Null,
        ))
    };
    it.basic(&token(&ONE, NOW), NOW).await.unwrap();
    assert_eq!(it.web.asked(), 2);
    // Another key signs from now on: it is looked for, but not at once again.
    publish(&it.web, &jwks(&[&TWO]));
    assert_eq!(it.fault(&token(&TWO, NOW)).await, Fault::Key);
    assert_eq!(it.web.asked(), 2);
    let later = NOW + FETCH_EVERY;
    it.basic(&token(&TWO, later), later).await.unwrap();
    assert_eq!(it.web.asked(), 4);
    // The old one is no longer published; what it signed is refused, remembered or not.
    assert!(it.basic(&token(&ONE, NOW), later).await.is_err());
    it.web.down();
    let down = later + STALE_AFTER - SECOND;
    it.basic(&token(&TWO, down), down).await.unwrap();
    let over = later + STALE_AFTER;
    let refused = it.basic(&token(&TWO, over), over).await.unwrap_err();
    assert!(
        refused.told().contains("connection refused"),
        "{}",
        refused.told()
    );
    assert!(!refused.to_string().contains("refused"), "{refused}");
}

#[tokio::test]
async fn keys_that_grow_old_are_fetched_beside_requests() {
    let it = House::new().await;
    it.issuer("prod", &discovered()).await;
    publish(&it.web, &jwks(&[&ONE]));
    let claims = changed(pod("prod", "default"), "exp", (NOW / SECOND + 7_200).into());
    let token = ONE.sign(&claims);
    it.basic(&token, NOW).await.unwrap();
    // The issuer takes its key back.
    publish(&it.web, &jwks(&[&TWO]));
    let later = NOW + REFRESH_AFTER;
    it.basic(&token, later).await.unwrap();
    while it.access.workloads().counts().fetched < 2 || it.basic(&token, later).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

/// Nobody asked for a while, so nobody fetched beside a request: the first who comes waits for what the issuer says now.
#[tokio::test]
async fn what_an_issuer_took_back_in_a_silence_is_refused_at_once() {
    for keys in [jwks(&[&TWO]), json!({"keys": []}).to_string()] {
        let it = House::new().await;
        it.issuer("prod", &discovered()).await;
        publish(&it.web, &jwks(&[&ONE]));
        let claims = changed(pod("prod", "default"), "exp", (NOW / SECOND + 7_200).into());
        let token = ONE.sign(&claims);
        it.basic(&token, NOW).await.unwrap();
        publish(&it.web, &keys);
        let later = NOW + REFRESH_AFTER + FETCH_EVERY;
        assert!(it.basic(&token, later).await.is_err(), "{keys}");
        assert_eq!(it.access.workloads().counts().fetched, 2);
    }
}

#[tokio::test]
async fn a_flood_of_unknown_keys_costs_one_fetch() {
    let it = House::new().await;
    it.issuer("prod", &discovered()).await;
    publish(&it.web, &jwks(&[&ONE]));
    it.basic(&ONE.sign(&pod("prod", "default")), NOW)
        .await
        .unwrap();
    let asked = it.web.asked();
    let later = NOW + FETCH_EVERY;
    let attacker = pair("one");
    let tries = (0..200).map(|n| {
        let token = attacker.with_header(&pod("prod", "default"), |header| {
            header.kid = Some(format!("k{n}"))
        });
        let it = &it;
        async move { it.access.workloads.verify(&token, later).await }
    });
    let mut refused = 0;
    for one in tries {
        refused += u32::from(matches!(
            one.await,
            Err(WorkloadFault {
                fault: Fault::Key,
                ..
            })
        ));
    }
    assert_eq!((refused, it.web.asked()), (200, asked + 2));
    assert!(
        it.basic(&ONE.sign(&pod("prod", "default")), later)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn jwks_poisoning() {
    let evil = pair("one");
    let keys = jwks(&[&evil]);
    let document = |issuer: &str, uri: &str| json!({"issuer": issuer, "jwks_uri": uri}).to_string();
    let many: Vec<Value> = (0..1_000)
        .map(|n| changed(evil.jwk.clone(), "kid", n.to_string().into()))
        .collect();
    for (document, keys, part) in [
        (
            document("https://evil.example", &format!("{ISSUER}/keys")),
            &*keys,
            "another issuer's",
        ),
        (
            document(&format!("{ISSUER}/"), &format!("{ISSUER}/keys")),
            &*keys,
            "another issuer's",
        ),
        (
            document(ISSUER, "https://evil.example/keys"),
            &*keys,
            "not the issuer's host",
        ),
        (
            document(ISSUER, "https://cluster.example:8443/keys"),
            &*keys,
            "not the issuer's host",
        ),
        (
            document(ISSUER, "https://cluster.example@evil.example/keys"),
            &*keys,
            "has no host",
        ),
        (
            document(ISSUER, "http://169.254.169.254/latest"),
            &*keys,
            "not encrypted",
        ),
        (document(ISSUER, "file:///etc/passwd"), &*keys, "https://"),
        ("<html>".to_owned(), &*keys, "no JSON"),
        ("{".repeat(70_000), &*keys, "larger than 64 KiB"),
        (
            document(ISSUER, &format!("{ISSUER}/keys")),
            &json!({"keys": many}).to_string(),
            "more than 100 keys",
        ),
        (
            document(ISSUER, &format!("{ISSUER}/keys")),
            &jwks(&[&evil, &ONE]),
            "two keys named",
        ),
        (
            document(ISSUER, &format!("{ISSUER}/keys")),
            &"x".repeat(300_000),
            "larger than 256 KiB",
        ),
        (
            document(ISSUER, &format!("{ISSUER}/keys")),
            r#"{"keys":[]}"#,
            "no public key",
        ),
    ] {
        let it = House::new().await;
        it.issuer("prod", &discovered()).await;
        it.web.put(
            &format!("{ISSUER}/.well-known/openid-configuration"),
            document,
        );
        for uri in [
            &format!("{ISSUER}/keys"),
            "https://evil.example/keys",
            "https://cluster.example:8443/keys",
        ] {
            it.web.put(uri, keys);
        }
        let Fault::Unreachable(why) = it.fault(&evil.sign(&pod("prod", "default"))).await else {
            panic!("{part}");
        };
        assert!(why.contains(part), "{part}: {why}");
        let asked = it.web.asked.lock().unwrap().clone();
        assert!(
            asked
                .iter()
                .all(|url| url.starts_with("https://cluster.example/")),
            "{asked:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_never_answers_is_given_up_in_time() {
    let it = House::new().await;
    it.issuer("prod", &discovered()).await;
    it.web.slow.store(true, Ordering::SeqCst);
    let begun = tokio::time::Instant::now();
    let token = ONE.sign(&pod("prod", "default"));
    let Fault::Unreachable(why) = it.fault(&token).await else {
        panic!()
    };
    assert!(why.contains("no answer within 5 s"), "{why}");
    assert!(begun.elapsed() < std::time::Duration::from_secs(6));
    // Whoever comes next does not wait for it.
    let begun = tokio::time::Instant::now();
    assert!(matches!(it.fault(&token).await, Fault::Unreachable(_)));
    assert!(begun.elapsed().is_zero());
}

/// Two clusters that were set up in the usual way have the same address.
#[tokio::test]
async fn clusters_of_one_address_are_told_apart_by_their_keys() {
    let it = House::new().await;
    let mut other = cluster();
    other.keys = KeySource::Static(jwks(&[&TWO]));
    it.issuer("stage", &other).await;
    it.rule("stage-all", "stage", &prod()).await;
    for (pair, name) in [(&ONE, "prod:prod/default"), (&TWO, "stage:prod/default")] {
        let caller = it
            .basic(&pair.sign(&pod("prod", "default")), NOW)
            .await
            .unwrap();
        assert_eq!(caller.principal.name(), name);
    }
    assert_eq!(
        it.fault(&pair("three").sign(&pod("prod", "default"))).await,
        Fault::Key
    );
    assert_eq!(
        it.fault(&ONE.sign(&pod("dev", "default"))).await,
        Fault::Rule
    );
}
