//! Tokens that are not as they must be, and attacks by their names.

use super::*;

/// Spec: K8SCRED-5, K8SCRED-6, OIDC-3.
#[tokio::test]
async fn a_pods_token_pulls_and_cannot_push() {
    let it = House::new().await;
    for pair in [&ONE, &RSA] {
        let token = pair.sign(&pod("prod", "default"));
        for caller in [it.basic(&token, NOW).await, it.bearer(&token, NOW).await] {
            let caller = caller.unwrap();
            assert_eq!(caller.principal.name(), "prod:prod/default");
            assert_eq!(caller.circumstances.sign_in, SignIn::Workload);
            assert_eq!(caller.origin("r").credential, "workload.prod-default");
            assert!(it.may(&caller, Permission::Pull, "team/a/app"));
            assert!(!it.may(&caller, Permission::Push, "team/a/app"));
            assert!(!it.may(&caller, Permission::Pull, "team/b"));
        }
    }
}

#[tokio::test]
async fn what_was_checked_costs_no_signature() {
    let it = House::new().await;
    let token = ONE.sign(&pod("prod", "default"));
    for _ in 0..50 {
        it.basic(&token, NOW).await.unwrap();
        it.bearer(&token, NOW).await.unwrap();
    }
    let counts = it.access.workloads().counts();
    assert_eq!((counts.checked, counts.remembered), (1, 99));
    // And it is over when it is over, remembered or not.
    let end = NOW + (600 + 60) * SECOND;
    assert!(it.basic(&token, end - SECOND).await.is_ok());
    let over = it.basic(&token, end).await.unwrap_err();
    assert!(
        matches!(
            over,
            AuthFailure::Workload(WorkloadFault {
                fault: Fault::Expired,
                ..
            })
        ),
        "{over:?}"
    );
}

/// Spec: OIDC-4.
#[tokio::test]
async fn tokens_that_are_not_as_they_must_be_are_refused() {
    let it = House::new().await;
    let now = NOW / SECOND;
    let plain = || pod("prod", "default");
    for (name, value, fault) in [
        // Issuer prefix tricks.
        ("iss", json!("https://cluster.example/"), Fault::Issuer),
        (
            "iss",
            json!("https://cluster.example.evil.example"),
            Fault::Issuer,
        ),
        ("iss", json!("https://cluster.exampl"), Fault::Issuer),
        ("iss", json!("HTTPS://cluster.example"), Fault::Issuer),
        ("iss", json!(["https://cluster.example"]), Fault::Issuer),
        ("iss", Value::Null, Fault::Issuer),
        // A token of another audience.
        ("aud", json!("another.example"), Fault::Audience),
        ("aud", json!(["reg.example.evil"]), Fault::Audience),
        ("aud", json!([]), Fault::Audience),
        ("aud", Value::Null, Fault::Audience),
        ("azp", json!("another.example"), Fault::Rule),
        // Expired and future tokens.
        ("exp", json!(now - 60), Fault::Expired),
        ("exp", Value::Null, Fault::Unbound),
        (
            "exp",
            json!("soon"),
            Fault::Malformed("one of its times is no time"),
        ),
        ("exp", json!(now + 90_000), Fault::Long),
        ("nbf", json!(now + 61), Fault::Early),
        ("iat", json!(now + 61), Fault::Early),
        ("iat", Value::Null, Fault::Unbound),
        // Legacy tokens, and such whose parts say different things.
        ("kubernetes.io", Value::Null, Fault::Legacy),
        (
            "sub",
            json!("system:serviceaccount:prod:admin"),
            Fault::Legacy,
        ),
    ] {
        let token = ONE.sign(&changed(plain(), name, value.clone()));
        if fault == Fault::Rule {
            // Only of several audiences is asked on whose behalf.
            assert!(it.basic(&token, NOW).await.is_ok());
            continue;
        }
        assert_eq!(it.fault(&token).await, fault, "{name} {value}");
    }
    for (name, value) in [("exp", now - 59), ("nbf", now + 60), ("iat", now + 60)] {
        let token = ONE.sign(&changed(plain(), name, value.into()));
        assert!(
            it.basic(&token, NOW).await.is_ok(),
            "{name} {value}: clocks may be a minute apart"
        );
    }
    assert_eq!(
        it.fault(&ONE.sign(&pod("dev", "default"))).await,
        Fault::Rule
    );
    assert_eq!(
        it.fault(&ONE.sign(&pod("prod", "builder"))).await,
        Fault::Rule
    );
}

#[tokio::test]
async fn azp_confusion() {
    let it = House::empty().await;
    let mut settings = cluster();
    settings.kind = Kind::Oidc;
    settings.principal = "{sub}".into();
    it.issuer("any", &settings).await;
    it.rule(
        "any",
        "any",
        &conditions(json!([{"claim": "iss", "in": [ISSUER]}])),
    )
    .await;
    let of = |aud: Value, azp: Value| {
        ONE.sign(&changed(
            changed(pod("prod", "default"), "aud", aud),
            "azp",
            azp,
        ))
    };
    let both = || json!(["reg.example", "another.example"]);
    assert_eq!(
        it.fault(&of(both(), json!("another.example"))).await,
        Fault::Party
    );
    assert_eq!(
        it.fault(&of(both(), json!(["reg.example"]))).await,
        Fault::Party
    );
    assert_eq!(it.fault(&of(both(), Value::Null)).await, Fault::Party);
    for good in [
        of(both(), json!("reg.example")),
        of(json!("reg.example"), Value::Null),
    ] {
        assert!(it.basic(&good, NOW).await.is_ok());
    }
}

#[tokio::test]
async fn algorithm_confusion() {
    let it = House::new().await;
    let claims = pod("prod", "default");
    let body = URL_SAFE_NO_PAD.encode(claims.to_string());
    // The public key as a shared secret.
    for public in [jwks(&[&ONE]), ONE.jwk["x"].as_str().unwrap().to_owned()] {
        let mut header = Header::new(jsonwebtoken::Algorithm::HS256);
        header.kid = Some("one".into());
        let secret = EncodingKey::from_secret(public.as_bytes());
        let token = jsonwebtoken::encode(&header, &claims, &secret).unwrap();
        assert_eq!(it.fault(&token).await, Fault::Algorithm);
    }
    for none in ["none", "None", "NONE", "", "RS256 ", "ES512"] {
        let head =
            URL_SAFE_NO_PAD.encode(json!({"alg": none, "typ": "JWT", "kid": "one"}).to_string());
        assert_eq!(
            it.fault(&format!("{head}.{body}.")).await,
            Fault::Algorithm,
            "{none}"
        );
    }
    // An algorithm of another form than the key's, and one that is not allowed.
    for (name, fault) in [
        ("RS256", Fault::Key),
        ("ES384", Fault::Algorithm),
        ("PS256", Fault::Algorithm),
    ] {
        let head = URL_SAFE_NO_PAD.encode(json!({"alg": name, "kid": "one"}).to_string());
        assert_eq!(
            it.fault(&format!("{head}.{body}.c2ln")).await,
            fault,
            "{name}"
        );
    }
    // A key of the attacker's own: in the header, at an address, or under the name of a good one.
    let attacker = pair("one");
    let token = attacker.with_header(&claims, |header| {
        header.jwk = serde_json::from_value(attacker.jwk.clone()).ok();
        header.jku = Some("https://evil.example/jwks".into());
        header.x5u = Some("https://evil.example/x5u".into());
    });
    assert_eq!(it.fault(&token).await, Fault::Signature);
    let unnamed = ONE.with_header(&claims, |header| header.kid = None);
    assert_eq!(it.fault(&unnamed).await, Fault::Key);
    // Claims of one token under the signature of another.
    let good = ONE.sign(&claims);
    let (head, rest) = good.split_once('.').unwrap();
    let signature = rest.split_once('.').unwrap().1;
    let other = URL_SAFE_NO_PAD.encode(pod("prod", "admin").to_string());
    assert_eq!(
        it.fault(&format!("{head}.{other}.{signature}")).await,
        Fault::Signature
    );
    assert_eq!(it.fault(&format!("{head}.{body}.")).await, Fault::Signature);
    assert_eq!(it.web.asked(), 0);
}
