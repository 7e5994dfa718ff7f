//! Tokens of issuers of our own, and attacks by their names.

mod keys;
mod review;
mod tokens;
mod trust;

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

use super::change::TAKEN;
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
    /// Who never answers: addresses that begin so.
    silent: Mutex<Option<String>>,
    /// What clusters say of tokens; a token that is not there is refused.
    reviews: Mutex<HashMap<String, Value>>,
    /// What clusters were asked.
    posted: Mutex<Vec<Value>>,
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

    /// As a cluster does, some time later.
    async fn review(&self, url: &str, question: &str) -> Result<Vec<u8>, String> {
        let question: Value = serde_json::from_str(question).unwrap();
        self.posted.lock().unwrap().push(question.clone());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        if let Some(page) = self.pages.lock().unwrap().get(url) {
            return page.clone();
        }
        let token = question["spec"]["token"].as_str().unwrap();
        let status = self.reviews.lock().unwrap().get(token).cloned();
        let status = status.unwrap_or_else(|| json!({"error": "token lookup failed"}));
        let answer = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status});
        Ok(answer.to_string().into_bytes())
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
            let silent = self.silent.lock().unwrap().clone();
            if silent.is_some_and(|silent| request.url.starts_with(&silent)) {
                std::future::pending::<()>().await;
            }
            if let Some(post) = request.post {
                return self.review(&request.url, post.reveal()).await;
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
