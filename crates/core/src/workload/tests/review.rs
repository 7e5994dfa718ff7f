//! A cluster that is asked about its tokens (TokenReview), and clusters of one address.

use std::time::Duration;

use super::*;

const SERVER: &str = "https://10.0.0.1:6443";
const REVIEWS: &str = "https://10.0.0.1:6443/apis/authentication.k8s.io/v1/tokenreviews";

fn closed() -> IssuerSettings {
    let mut settings = cluster();
    settings.keys = KeySource::Review(SERVER.into());
    settings
}

/// What a cluster says of a good token.
fn good(namespace: &str, account: &str) -> Value {
    json!({"authenticated": true, "audiences": ["reg.example"], "user": {
        "username": format!("system:serviceaccount:{namespace}:{account}"), "uid": "u-1",
        "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
        "extra": {"authentication.kubernetes.io/pod-name": ["p"]},
    }})
}

impl House {
    /// With a cluster that is asked, whose pods of namespace prod read team/a; and a token that it knows.
    async fn closed() -> (Self, String) {
        let it = Self::empty().await;
        it.issuer("prod", &closed()).await;
        it.rule("prod-default", "prod", &prod()).await;
        it.grant("workload:prod-default", "reader", "team/a").await;
        // Of a key that nobody knows here.
        let token = TWO.sign(&pod("prod", "default"));
        it.says(&token, good("prod", "default"));
        (it, token)
    }

    fn says(&self, token: &str, status: Value) {
        self.web
            .reviews
            .lock()
            .unwrap()
            .insert(token.into(), status);
    }

    fn reviews(&self) -> usize {
        self.web.posted.lock().unwrap().len()
    }

    async fn refused(&self, token: &str, at: i64) -> Fault {
        match self.basic(token, at).await {
            Err(AuthFailure::Workload(refused)) => refused.fault,
            other => panic!("{other:?}"),
        }
    }
}

/// Spec: K8SCRED-7.
#[tokio::test]
async fn what_a_cluster_says_counts_for_a_minute() {
    let (it, token) = House::closed().await;
    let caller = it.basic(&token, NOW).await.unwrap();
    assert!(it.may(&caller, Permission::Pull, "team/a/app"));
    assert!(!it.may(&caller, Permission::Push, "team/a/app"));
    let asked = it.web.posted.lock().unwrap()[0].clone();
    assert_eq!(asked["apiVersion"], "authentication.k8s.io/v1");
    assert_eq!(asked["kind"], "TokenReview");
    assert_eq!(
        asked["spec"],
        json!({"token": token, "audiences": ["reg.example"]})
    );
    assert_eq!(*it.web.asked.lock().unwrap(), [REVIEWS]);

    // The account is deleted: that is noticed when the minute is over, and not before.
    it.says(
        &token,
        json!({"error": "serviceaccounts \"default\" not found"}),
    );
    it.bearer(&token, NOW + REVIEWED_FOR - 1).await.unwrap();
    assert_eq!(it.reviews(), 1);
    let Fault::Reviewed(why) = it.refused(&token, NOW + REVIEWED_FOR).await else {
        panic!("accepted");
    };
    assert!(why.contains("not found"), "{why}");
    it.refused(&token, NOW + REVIEWED_FOR + REFUSED_FOR - 1)
        .await;
    assert_eq!(it.reviews(), 2, "a refusal is remembered too");
    it.says(&token, good("prod", "default"));
    it.basic(&token, NOW + REVIEWED_FOR + REFUSED_FOR)
        .await
        .unwrap();
    assert_eq!(it.reviews(), 3);
    // And no answer counts longer than its token.
    it.says(&token, good("prod", "default"));
    assert_eq!(it.refused(&token, NOW + 660 * SECOND).await, Fault::Expired);
    assert_eq!(it.reviews(), 3);
}

#[tokio::test]
async fn rules_match_what_the_cluster_says_and_not_what_the_token_says() {
    let (it, token) = House::closed().await;
    it.says(&token, good("dev", "default"));
    assert!(
        matches!(it.fault(&token).await, Fault::Reviewed(_)),
        "the subject is another's"
    );
    let own = TWO.sign(&changed(
        pod("prod", "default"),
        "groups",
        json!(["system:masters"]),
    ));
    it.says(&own, good("prod", "default"));
    let masters = conditions(json!([{"claim": "groups", "in": ["system:masters"]}]));
    it.rule("masters", "prod", &masters).await;
    let members = conditions(json!([{"claim": "groups", "in": ["system:serviceaccounts:prod"]}]));
    it.rule("members", "prod", &members).await;
    let report = it.access.workloads().report(&own, NOW).await;
    let rules = vec!["members".to_owned(), "prod-default".to_owned()];
    assert_eq!(
        report.principal,
        Some(("prod:prod/default".to_owned(), rules))
    );
    assert!(
        report
            .seen
            .iter()
            .any(|seen| seen.what == "the cluster's review")
    );
}

/// What would be refused whatever the cluster says costs it nothing; nor does a flood of one token.
#[tokio::test]
async fn a_cluster_is_not_flooded() {
    let (it, token) = House::closed().await;
    let now = NOW / SECOND;
    for (name, value, fault) in [
        ("aud", json!("another"), Fault::Audience),
        ("exp", json!(now - 61), Fault::Expired),
        ("exp", Value::Null, Fault::Unbound),
        ("kubernetes.io", Value::Null, Fault::Legacy),
        ("iss", json!("https://another.example"), Fault::Issuer),
    ] {
        let claims = changed(pod("prod", "default"), name, value);
        assert_eq!(it.fault(&TWO.sign(&claims)).await, fault);
    }
    assert_eq!(it.reviews(), 0);
    let it = Arc::new(it);
    let many: Vec<_> = (0..50)
        .map(|_| {
            let (it, token) = (it.clone(), token.clone());
            tokio::spawn(async move { it.basic(&token, NOW).await.is_ok() })
        })
        .collect();
    for one in many {
        assert!(one.await.unwrap());
    }
    assert_eq!(it.reviews(), 1);
}

#[tokio::test(start_paused = true)]
async fn while_a_cluster_cannot_be_asked_whom_it_knew_is_let_in_for_a_time() {
    let (it, token) = House::closed().await;
    it.basic(&token, NOW).await.unwrap();
    let other = TWO.sign(&changed(pod("prod", "default"), "jti", json!("y")));
    it.says(&other, good("prod", "default"));
    it.web
        .pages
        .lock()
        .unwrap()
        .insert(REVIEWS.into(), Err("connection refused".into()));
    let later = NOW + REVIEWED_FOR;
    it.basic(&token, later).await.unwrap();
    assert_eq!(it.reviews(), 2);
    let Fault::Unreachable(why) = it.refused(&other, later).await else {
        panic!("no cluster said anything of it");
    };
    assert_eq!(why, "connection refused");
    assert_eq!(it.reviews(), 2, "it is not asked again at once");
    assert_eq!(
        it.access.workloads().trust().issuers["prod"]
            .standing()
            .error
            .as_deref(),
        Some("connection refused")
    );
    it.basic(&token, NOW + REVIEW_STALE - 1).await.unwrap();
    assert!(matches!(
        it.refused(&token, NOW + REVIEW_STALE).await,
        Fault::Unreachable(_)
    ));
    // It is back.
    it.web.pages.lock().unwrap().clear();
    let back = NOW + REVIEW_STALE + 10 * SECOND;
    it.basic(&other, back).await.unwrap();
    assert_eq!(
        it.access.workloads().trust().issuers["prod"]
            .standing()
            .error,
        None
    );
    // And one that never answers is given up in time.
    *it.web.silent.lock().unwrap() = Some(SERVER.into());
    let begun = tokio::time::Instant::now();
    it.refused(
        &TWO.sign(&changed(pod("prod", "default"), "jti", json!("z"))),
        back,
    )
    .await;
    assert!(begun.elapsed() <= Duration::from_secs(6));
}

#[tokio::test]
async fn what_cannot_be_meant_of_a_review_is_named() {
    let it = House::empty().await;
    for (kind, server) in [
        (Kind::Oidc, SERVER),
        (Kind::Kubernetes, "http://10.0.0.1:6443"),
        (Kind::Kubernetes, "10.0.0.1"),
        (Kind::Kubernetes, "https://10.0.0.1:6443/?x="),
    ] {
        let mut settings = IssuerSettings::new(kind, ISSUER, vec!["reg.example".into()]);
        settings.keys = KeySource::Review(server.into());
        assert_eq!(
            settings.check().unwrap_err().field,
            "token_review",
            "{server}"
        );
    }
    // What one cluster said is not taken for another's word, nor for other audiences.
    let (asked, token) = House::closed().await;
    asked.basic(&token, NOW).await.unwrap();
    let mut other = closed();
    other.audiences.push("second".into());
    asked.issuer("prod", &other).await;
    asked.basic(&token, NOW).await.unwrap();
    assert_eq!(asked.reviews(), 2);
    drop(it);
}

/// Two clusters that say the same of themselves, as most do: one of them that never answers keeps nobody of the other waiting.
///
/// Spec: K8SCRED-7.
#[tokio::test(start_paused = true)]
async fn a_silent_cluster_delays_no_other_of_the_same_address() {
    let it = House::empty().await;
    for name in ["a-silent", "b-good", "c-silent"] {
        let mut settings = cluster();
        settings.keys = KeySource::Url(format!("https://{name}.example/keys"));
        it.issuer(name, &settings).await;
        it.rule(&format!("{name}-default"), name, &prod()).await;
    }
    it.web.put("https://b-good.example/keys", jwks(&[&ONE]));
    *it.web.silent.lock().unwrap() = Some("https://a-silent".into());
    let begun = tokio::time::Instant::now();
    for at in [NOW, NOW + 1, NOW + 20 * SECOND] {
        // Another token each time, so that none is remembered.
        let token = ONE.sign(&changed(pod("prod", "default"), "jti", json!(at)));
        let caller = it.basic(&token, at).await.unwrap();
        assert_eq!(caller.principal.name(), "b-good:prod/default");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
    // A token of neither is refused, by what says most: it may be of the one that does not answer.
    let fault = it.fault(&TWO.sign(&pod("prod", "default"))).await;
    assert!(matches!(fault, Fault::Unreachable(_)), "{fault:?}");
}

/// Whoever shows a token learns nothing of whom this registry trusts.
#[tokio::test]
async fn refusals_are_the_same_whoever_is_trusted() {
    let it = House::new().await;
    let now = NOW / SECOND;
    let told = async |token: String| match it.basic(&token, NOW).await {
        Err(AuthFailure::Workload(refused)) => (refused.to_string(), refused.told()),
        other => panic!("{other:?}"),
    };
    let claims = || pod("prod", "default");
    let (signed, mine) = (ONE.sign(&claims()), ONE.sign(&pod("dev", "default")));
    let forged = format!(
        "{}.{}",
        signed.rsplit_once('.').unwrap().0,
        mine.rsplit_once('.').unwrap().1
    );
    let tokens = [
        ONE.sign(&changed(claims(), "iss", json!("https://nobody.example"))),
        TWO.sign(&claims()),
        forged,
        ONE.sign(&changed(claims(), "aud", json!("another"))),
        ONE.sign(&pod("dev", "default")),
        ONE.sign(&changed(claims(), "kubernetes.io", Value::Null)),
        ONE.sign(&changed(claims(), "nbf", json!(now + 300))),
        ONE.sign(&changed(claims(), "exp", json!(now + 90_000))),
    ];
    let mut outside = std::collections::BTreeSet::new();
    let mut inside = std::collections::BTreeSet::new();
    for token in tokens {
        let (shown, logged) = told(token).await;
        outside.insert(shown);
        inside.insert(logged);
    }
    assert_eq!(outside.len(), 1, "{outside:?}");
    assert_eq!(inside.len(), 8, "{inside:?}");
    // What everybody sees in the token is told to everybody.
    let mut over = std::collections::BTreeSet::new();
    for issuer in [ISSUER, "https://nobody.example"] {
        let token = changed(
            changed(claims(), "iss", json!(issuer)),
            "exp",
            json!(now - 600),
        );
        let (shown, _) = told(ONE.sign(&token)).await;
        assert!(shown.contains("it has expired"), "{shown}");
        over.insert(shown);
        let broken = changed(
            changed(claims(), "iss", json!(issuer)),
            "nbf",
            json!("soon"),
        );
        let (shown, _) = told(ONE.sign(&broken)).await;
        assert!(shown.contains("one of its times is no time"), "{shown}");
    }
    assert_eq!(over.len(), 1);
}
