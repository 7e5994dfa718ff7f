//! Tokens of issuers of our own, and attacks by their names.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{LazyLock, Mutex};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::{Value, json};
use wharf_meta::SqliteOptions;
use wharf_oci::{Authorization, RepositoryName, Scope};

use super::*;
use crate::access::*;

/// 2026-11-21, in ms.
const NOW: i64 = 1_795_219_200_000;
const SECOND: i64 = 1_000;
const ISSUER: &str = "https://cluster.example";

/// A key pair, and what is told of it.
struct Pair {
    algorithm: jsonwebtoken::Algorithm,
    key: EncodingKey,
    jwk: Value,
}

fn pair(kid: &str) -> Pair {
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    let key = EncodingKey::from_ec_der(made.unwrap().as_ref());
    named(jsonwebtoken::Algorithm::ES256, key, kid)
}

fn rsa(kid: &str) -> Pair {
    let made = KeyPair::generate(KeySize::Rsa2048).unwrap();
    // PKCS #1 lies within PKCS #8, behind 26 bytes.
    let key = EncodingKey::from_rsa_der(&made.as_der().unwrap().as_ref()[26..]);
    named(jsonwebtoken::Algorithm::RS256, key, kid)
}

fn named(algorithm: jsonwebtoken::Algorithm, key: EncodingKey, kid: &str) -> Pair {
    let jwk = Jwk::from_encoding_key(&key, algorithm).unwrap();
    let mut jwk = serde_json::to_value(jwk).unwrap();
    jwk["kid"] = kid.into();
    Pair {
        algorithm,
        key,
        jwk,
    }
}

static ONE: LazyLock<Pair> = LazyLock::new(|| pair("one"));
static TWO: LazyLock<Pair> = LazyLock::new(|| pair("two"));
static RSA: LazyLock<Pair> = LazyLock::new(|| rsa("rsa"));

impl Pair {
    fn sign(&self, claims: &Value) -> String {
        self.with_header(claims, |_| {})
    }

    fn with_header(&self, claims: &Value, change: impl FnOnce(&mut Header)) -> String {
        let mut header = Header::new(self.algorithm);
        header.kid = self.jwk["kid"].as_str().map(str::to_owned);
        change(&mut header);
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

fn jwks(pairs: &[&Pair]) -> String {
    let keys: Vec<&Value> = pairs.iter().map(|pair| &pair.jwk).collect();
    json!({ "keys": keys }).to_string()
}

/// What a pod's token says.
fn pod(namespace: &str, account: &str) -> Value {
    let now = NOW / SECOND;
    json!({
        "iss": ISSUER,
        "sub": format!("system:serviceaccount:{namespace}:{account}"),
        "aud": ["reg.example"],
        "iat": now - 10, "nbf": now - 10, "exp": now + 600, "jti": "x",
        "kubernetes.io": {
            "namespace": namespace,
            "serviceaccount": {"name": account, "uid": "u-1"},
            "pod": {"name": "p", "uid": "u-2"},
        },
    })
}

/// What a job's token says.
fn job(repository: &str, event: &str) -> Value {
    let now = NOW / SECOND;
    json!({
        "iss": "https://token.actions.githubusercontent.com",
        "sub": "repo:acme@7/app@74:ref:refs/heads/main",
        "aud": "reg.example",
        "iat": now - 10, "nbf": now - 300, "exp": now + 300,
        "repository": "acme/app", "repository_id": repository, "repository_owner_id": "7",
        "event_name": event, "ref": "refs/heads/main",
    })
}

fn changed(mut claims: Value, name: &str, value: Value) -> Value {
    match value {
        Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
        value => claims[name] = value,
    }
    claims
}

/// Issuers' web servers, all of them.
#[derive(Debug, Default)]
struct Web {
    pages: Mutex<HashMap<String, Result<Vec<u8>, String>>>,
    asked: Mutex<Vec<String>>,
    slow: AtomicBool,
}

impl Web {
    fn put(&self, url: &str, page: impl Into<Vec<u8>>) {
        self.pages
            .lock()
            .unwrap()
            .insert(url.into(), Ok(page.into()));
    }

    fn down(&self) {
        for page in self.pages.lock().unwrap().values_mut() {
            *page = Err("connection refused".into());
        }
    }

    fn asked(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

impl Fetch for Web {
    fn get(&self, request: FetchRequest) -> Fetched<'_> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(request.url.clone());
            if self.slow.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            let page = self.pages.lock().unwrap().get(&request.url).cloned();
            page.unwrap_or_else(|| Err("404".into()))
        })
    }
}

struct House {
    access: Access,
    web: Arc<Web>,
    _folder: tempfile::TempDir,
}

fn conditions(list: Value) -> RuleSettings {
    serde_json::from_value(json!({ "conditions": list })).unwrap()
}

fn cluster() -> IssuerSettings {
    let mut settings = IssuerSettings::new(Kind::Kubernetes, ISSUER, vec!["reg.example".into()]);
    settings.keys = KeySource::Static(jwks(&[&ONE, &RSA]));
    settings
}

fn prod() -> RuleSettings {
    conditions(json!([
        {"claim": "kubernetes.io.namespace", "in": ["prod"]},
        {"claim": "kubernetes.io.serviceaccount.name", "in": ["default"]},
    ]))
}

impl House {
    async fn empty() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (meta, _) = Meta::open(SqliteOptions::new(folder.path().join("db"))).unwrap();
        let web = Arc::new(Web::default());
        let options = AccessOptions {
            service: "reg.example".into(),
            identity_tokens: true,
            fetch: web.clone(),
            ..AccessOptions::default()
        };
        let access = Access::open(options, SecretKeys::of_tests(), meta, NOW)
            .await
            .unwrap();
        Self {
            access,
            web,
            _folder: folder,
        }
    }

    /// With a cluster whose pods of namespace prod read team/a.
    async fn new() -> Self {
        let it = Self::empty().await;
        it.issuer("prod", &cluster()).await;
        it.rule("prod-default", "prod", &prod()).await;
        it.grant("workload:prod-default", "reader", "team/a").await;
        it
    }

    async fn issuer(&self, name: &str, settings: &IssuerSettings) {
        let put =
            self.access
                .put_issuer(Changer::Operator, name, settings, &Bearer::Keep, None, NOW);
        put.await.unwrap();
    }

    async fn rule(&self, name: &str, issuer: &str, settings: &RuleSettings) {
        let put = self
            .access
            .put_rule(Changer::Operator, name, issuer, settings, None, NOW);
        put.await.unwrap();
    }

    async fn grant(&self, who: &str, role: &str, on: &str) {
        let granting = Granting {
            subject: who.parse().unwrap(),
            role: role.into(),
            on: on.into(),
            conditions: Conditions::default(),
        };
        self.access
            .grant(Changer::Operator, &granting, NOW)
            .await
            .unwrap();
    }

    async fn basic(&self, token: &str, at: i64) -> Result<Caller, AuthFailure> {
        let authorization = Authorization::Basic {
            user: "kubernetes".into(),
            password: token.into(),
        };
        self.access.authenticate(Some(&authorization), at).await
    }

    async fn bearer(&self, token: &str, at: i64) -> Result<Caller, AuthFailure> {
        let authorization = Authorization::Bearer(token.into());
        self.access.authenticate(Some(&authorization), at).await
    }

    /// Why it is refused.
    async fn fault(&self, token: &str) -> Fault {
        match self.basic(token, NOW).await {
            Err(AuthFailure::Workload(fault)) => {
                let shown = format!("{fault} {} {fault:?}", fault.told());
                assert!(
                    !shown.contains(token) && !shown.contains(&token[..40]),
                    "{shown}"
                );
                fault.fault
            }
            other => panic!("{other:?}"),
        }
    }

    fn may(&self, caller: &Caller, permission: Permission, on: &str) -> bool {
        let on = RepositoryName::parse(on).unwrap();
        self.access.decide(caller, permission, Some(&on)) == Decision::Allow
    }

    async fn exchange(
        &self,
        token: &str,
        scope: &str,
        at: i64,
    ) -> Result<TokenGrant, TokenRefusal> {
        let request = TokenRequest {
            proof: Proof::Workload(Password::new(token)),
            scopes: Scope::parse_list(scope),
            offline: true,
        };
        self.access.grant_token(request, at).await
    }
}

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
    for event in ["pull_request", "pull_request_target"] {
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
    assert!(matches!(basic, Err(AuthFailure::Workload(_))), "{basic:?}");
    // A rule that asks for something else is another rule.
    let narrow = conditions(json!([{"claim": "kubernetes.io.namespace", "in": ["prod"]}]));
    it.rule("prod-default", "prod", &narrow).await;
    assert!(matches!(
        it.bearer(ours, later).await,
        Err(AuthFailure::Token(TokenFault::Revoked))
    ));
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

fn discovered() -> IssuerSettings {
    let mut settings = cluster();
    settings.keys = KeySource::Discovery;
    settings
}

fn publish(web: &Web, keys: &str) {
    let document = json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/keys")});
    web.put(
        &format!("{ISSUER}/.well-known/openid-configuration"),
        document.to_string(),
    );
    web.put(&format!("{ISSUER}/keys"), keys);
}

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
