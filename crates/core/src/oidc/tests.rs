//! A provider in memory, and attacks by their names.

mod terminals;

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::access::Provider as OfRights;
use crate::access::*;
use crate::house::House;
use crate::identity;
use crate::registry::Registry;
use crate::session::{self, By, SessionRules};
use crate::workload::{FetchRequest, Fetched};

pub(super) const CORP: &str = "https://corp.example";
pub(super) const CLUB: &str = "https://club.example/auth";
pub(super) const BACK: &str = "https://reg.example/auth/oidc/corp/callback";
pub(super) const CLIENT: &str = "wharf";

pub(super) struct Pair {
    pub(super) key: EncodingKey,
    pub(super) jwk: Value,
}

pub(super) fn pair(kid: &str) -> Pair {
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
    let key = EncodingKey::from_ec_der(made.unwrap().as_ref());
    let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
    let mut jwk = serde_json::to_value(jwk).unwrap();
    jwk["kid"] = kid.into();
    Pair { key, jwk }
}

pub(super) static KEY: LazyLock<Pair> = LazyLock::new(|| pair("one"));
pub(super) static OTHER: LazyLock<Pair> = LazyLock::new(|| pair("one"));

pub(super) fn sign(key: &Pair, claims: &Value) -> String {
    let header = Header {
        kid: Some("one".into()),
        ..Header::new(Algorithm::ES256)
    };
    jsonwebtoken::encode(&header, claims, &key.key).unwrap()
}

/// What a code was given for.
#[derive(Debug, Clone)]
struct Given {
    nonce: String,
    challenge: String,
    redirect: String,
    person: Value,
}

type Change = Box<dyn Fn(&mut Value) -> Option<String> + Send>;

/// What comes instead of an answer: status and body, or why there is none.
pub(super) type Broken = Result<(u16, Vec<u8>), String>;

/// Two providers, `corp` and `club`, who sign with one key, as those of one maker may.
#[derive(Default)]
pub(super) struct World {
    codes: Mutex<HashMap<String, Given>>,
    pub(super) refresh: Mutex<HashMap<String, Value>>,
    pub(super) asked: Mutex<Vec<String>>,
    pub(super) now: Mutex<i64>,
    /// What becomes of the claims of a token, or the token in their place.
    change: Mutex<Option<Change>>,
    /// What everything is answered with.
    pub(super) broken: Mutex<Option<Broken>>,
    userinfo: Mutex<Option<Value>>,
    says_iss: Mutex<bool>,
}

impl Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

pub(super) fn query(url: &str, wanted: &str) -> String {
    let (_, query) = url.split_once('?').unwrap();
    let mut pairs = wharf_oci::percent::query_pairs(query);
    let found = pairs.find(|(key, _)| *key == *wanted);
    found
        .unwrap_or_else(|| panic!("{wanted} in {url}"))
        .1
        .into_owned()
}

impl World {
    /// Somebody signs in at the provider's page; gives the code.
    pub(super) fn sign_in(&self, location: &str, person: &Value) -> Answer {
        assert_eq!(query(location, "code_challenge_method"), "S256");
        assert_eq!(query(location, "response_type"), "code");
        let code = format!("code-{}", self.codes.lock().unwrap().len());
        let given = Given {
            nonce: query(location, "nonce"),
            challenge: query(location, "code_challenge"),
            redirect: query(location, "redirect_uri"),
            person: person.clone(),
        };
        self.codes.lock().unwrap().insert(code.clone(), given);
        Answer {
            code: Some(code),
            state: Some(query(location, "state")),
            iss: None,
            error: None,
        }
    }

    fn claims(&self, issuer: &str, person: &Value, nonce: Option<&str>) -> String {
        let now = *self.now.lock().unwrap() / 1_000;
        let mut claims = json!({"iss": issuer, "aud": CLIENT, "iat": now, "exp": now + 300});
        if let Some(nonce) = nonce {
            claims["nonce"] = nonce.into();
        }
        for (name, value) in person.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let change = self.change.lock().unwrap();
        let other = change.as_ref().and_then(|change| change(&mut claims));
        other.unwrap_or_else(|| sign(&KEY, &claims))
    }

    fn answer(&self, ask: &Ask) -> (u16, Value) {
        self.asked.lock().unwrap().push(ask.url.clone());
        let issuer = if ask.url.starts_with(CORP) {
            CORP
        } else {
            CLUB
        };
        let path = &ask.url[issuer.len()..];
        match path {
            "/.well-known/openid-configuration" => (
                200,
                json!({
                    "issuer": issuer,
                    "authorization_endpoint": format!("{issuer}/authorize?tenant=1"),
                    "token_endpoint": format!("{issuer}/token"),
                    "userinfo_endpoint": format!("{issuer}/me"),
                    "jwks_uri": format!("{issuer}/keys"),
                    "end_session_endpoint": format!("{issuer}/out?a=b"),
                    "scopes_supported": ["openid", "groups", "offline_access"],
                    "authorization_response_iss_parameter_supported": *self.says_iss.lock().unwrap(),
                }),
            ),
            "/token" => {
                let form: HashMap<_, _> = ask.form.as_ref().unwrap().0.iter().cloned().collect();
                let (user, password) = ask.basic.clone().unwrap();
                assert_eq!((&*user, password.reveal()), (CLIENT, "s%2Fcret"));
                self.tokens(issuer, &form)
            }
            "/me" => {
                let told = self.userinfo.lock().unwrap().clone();
                told.map_or((404, Value::Null), |told| (200, told))
            }
            _ => (404, Value::Null),
        }
    }

    fn tokens(&self, issuer: &str, form: &HashMap<&str, String>) -> (u16, Value) {
        let invalid = (400, json!({"error": "invalid_grant"}));
        if form["grant_type"] == "refresh_token" {
            let known = self
                .refresh
                .lock()
                .unwrap()
                .get(&form["refresh_token"])
                .cloned();
            let Some(person) = known else {
                return invalid;
            };
            let id_token = self.claims(issuer, &person, None);
            return (200, json!({"id_token": id_token, "access_token": "a"}));
        }
        let Some(given) = self.codes.lock().unwrap().remove(&form["code"]) else {
            return invalid;
        };
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"]));
        if challenge != given.challenge || form["redirect_uri"] != given.redirect {
            return invalid;
        }
        let token = format!("refresh-{}", given.nonce);
        let mut all = self.refresh.lock().unwrap();
        all.insert(token.clone(), given.person.clone());
        drop(all);
        let id_token = self.claims(issuer, &given.person, Some(&given.nonce));
        (
            200,
            json!({"id_token": id_token, "access_token": "a", "refresh_token": token}),
        )
    }
}

impl Web for World {
    fn ask(&self, ask: Ask) -> Asked<'_> {
        Box::pin(async move {
            if let Some(broken) = self.broken.lock().unwrap().clone() {
                return broken;
            }
            let (status, body) = self.answer(&ask);
            Ok((status, body.to_string().into_bytes()))
        })
    }
}

impl Fetch for World {
    fn get(&self, request: FetchRequest) -> Fetched<'_> {
        Box::pin(async move {
            assert!(request.url.ends_with("/keys"), "{}", request.url);
            Ok(json!({"keys": [KEY.jwk]}).to_string().into_bytes())
        })
    }
}

pub(super) struct Hall {
    pub(super) house: House,
    pub(super) world: Arc<World>,
}

pub(super) fn settings(name: &str, issuer: &str) -> OidcSettings {
    OidcSettings {
        name: name.into(),
        title: name.into(),
        issuer: issuer.into(),
        client_id: CLIENT.into(),
        client_secret: Some(Password::new("s/cret")),
        scopes: Vec::new(),
        prompt: None,
        username_claim: "preferred_username".into(),
        groups_claim: "groups".into(),
        admin_group: Some("admins".into()),
        group_filter: vec!["dev-*".parse().unwrap()],
        onboards: true,
        leaves: true,
        authority: String::new(),
    }
}

pub(super) async fn hall() -> Hall {
    hall_by(|world| world).await
}

pub(super) async fn hall_by<W: Web + 'static>(web: impl Fn(Arc<World>) -> Arc<W>) -> Hall {
    let mut house = House::new().await;
    house.clock.set(1_795_219_200_000);
    let world = Arc::new(World::default());
    *world.now.lock().unwrap() = house.registry.clock.now_ms();
    let provider = |name: &str, issuer: &str| OfRights {
        name: name.into(),
        issuer: issuer.into(),
        admin_group: Some("admins".into()),
        section: "[[auth.oidc]] admin_group",
    };
    let options = AccessOptions {
        rights: Rights {
            providers: vec![provider("corp", CORP), provider("club", CLUB)],
            ..Rights::default()
        },
        oidc: vec![settings("corp", CORP), settings("club", CLUB)],
        web: web(world.clone()),
        fetch: world.clone(),
        ..AccessOptions::default()
    };
    let meta = house.registry.meta.clone();
    let now = house.registry.clock.now_ms();
    let access = Access::open(options, SecretKeys::of_tests(), meta, now).await;
    house.registry.access = Arc::new(access.unwrap());
    Hall { house, world }
}

pub(super) fn ann() -> Value {
    json!({"sub": "248", "preferred_username": "ann", "email": "ann@corp.example", "groups": ["dev-a", "chess"]})
}

impl Hall {
    pub(super) fn registry(&self) -> &Registry {
        &self.house.registry
    }

    pub(super) async fn start(&self, provider: &str) -> Started {
        let started = start(self.registry(), provider, BACK, "/account/sessions").await;
        started.unwrap()
    }

    pub(super) async fn finish(
        &self,
        flow: &Password,
        answer: &Answer,
    ) -> Result<Arrived, OidcError> {
        finish(self.registry(), "corp", Some(flow), answer).await
    }

    pub(super) async fn whole(&self, person: &Value) -> Result<Arrived, OidcError> {
        let started = self.start("corp").await;
        let answer = self.world.sign_in(&started.location, person);
        self.finish(&started.flow, &answer).await
    }

    pub(super) fn tamper(&self, change: impl Fn(&mut Value) -> Option<String> + Send + 'static) {
        *self.world.change.lock().unwrap() = Some(Box::new(change));
    }

    pub(super) async fn proof(&self) -> String {
        match self.whole(&ann()).await {
            Err(OidcError::Proof { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    }
}

fn flow_error(done: Result<Arrived, OidcError>) -> &'static str {
    match done {
        Err(OidcError::Flow(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn somebody_signs_in_and_is_the_same_again_by_another_name() {
    let hall = hall().await;
    let started = hall.start("corp").await;
    assert!(
        started
            .location
            .starts_with("https://corp.example/authorize?tenant=1&response_type=code&")
    );
    assert_eq!(
        query(&started.location, "scope"),
        "openid groups offline_access"
    );
    assert_eq!(query(&started.location, "redirect_uri"), BACK);
    let answer = hall.world.sign_in(&started.location, &ann());
    let arrived = hall.finish(&started.flow, &answer).await.unwrap();
    assert_eq!(arrived.principal.name(), "ann");
    assert_eq!(arrived.back, "/account/sessions");
    assert!(arrived.refresh.is_some());
    let accounts = identity::accounts_of(hall.registry(), "ann").await.unwrap();
    assert_eq!(
        accounts[0].groups,
        ["dev-a"],
        "what the filter lets through"
    );
    // Married, promoted, and still the same account.
    let mut later = ann();
    later["preferred_username"] = "ann.new".into();
    later["groups"] = json!(["admins"]);
    let arrived = hall.whole(&later).await.unwrap();
    assert_eq!(arrived.principal.name(), "ann");
    let caller = Caller::direct(arrived.principal);
    assert!(
        hall.registry()
            .access
            .allow(&caller, Permission::Admin, None)
    );
}

#[tokio::test]
async fn email_takeover_another_account_with_the_same_address_or_name_is_somebody_else() {
    let hall = hall().await;
    hall.whole(&ann()).await.unwrap();
    let mut other = ann();
    other["sub"] = "666".into();
    let error = hall.whole(&other).await.unwrap_err().to_string();
    assert!(error.contains("is another user's already"), "{error}");
    other["preferred_username"] = "mallory".into();
    let arrived = hall.whole(&other).await.unwrap();
    assert_eq!(arrived.principal.name(), "mallory");
}

#[tokio::test]
async fn issuer_prefix_tricks_prove_nothing() {
    let hall = hall().await;
    for issuer in [
        "https://corp.example/",
        "https://corp.example.evil.example",
        "https://corp.exampl",
        "https://CORP.example",
        "http://corp.example",
        CLUB,
        "",
    ] {
        hall.tamper(move |claims| {
            claims["iss"] = issuer.into();
            None
        });
        assert_eq!(
            hall.proof().await,
            "it is another issuer's (iss)",
            "{issuer}"
        );
    }
}

/// Spec: OIDC-5.
#[tokio::test]
async fn azp_confusion_a_token_for_another_client_is_refused() {
    let hall = hall().await;
    for (aud, azp, told) in [
        (
            json!("other"),
            Value::Null,
            "it is for another client (aud)",
        ),
        (json!([]), json!(CLIENT), "it is for another client (aud)"),
        (
            json!({"a": CLIENT}),
            Value::Null,
            "it is for another client (aud)",
        ),
        (
            json!([CLIENT, "other"]),
            Value::Null,
            "it was issued to another client (azp)",
        ),
        (
            json!([CLIENT, "other"]),
            json!("other"),
            "it was issued to another client (azp)",
        ),
        (
            json!(CLIENT),
            json!("other"),
            "it was issued to another client (azp)",
        ),
        (
            json!(CLIENT),
            json!([CLIENT]),
            "it was issued to another client (azp)",
        ),
    ] {
        let shown = format!("{aud} {azp}");
        hall.tamper(move |claims| {
            claims["aud"] = aud.clone();
            if !azp.is_null() {
                claims["azp"] = azp.clone();
            }
            None
        });
        assert_eq!(hall.proof().await, told, "{shown}");
    }
    hall.tamper(|claims| {
        claims["aud"] = json!([CLIENT, "other"]);
        claims["azp"] = CLIENT.into();
        None
    });
    hall.whole(&ann()).await.unwrap();
}

#[tokio::test]
async fn expired_and_future_tokens_are_refused() {
    let hall = hall().await;
    let now = hall.registry().clock.now_ms() / 1_000;
    for (name, value, told) in [
        ("exp", json!(now - 61), "it has expired (exp)"),
        (
            "exp",
            Value::Null,
            "it has no end (exp), or no beginning (iat)",
        ),
        ("exp", json!("9"), "one of its times is no time"),
        (
            "iat",
            json!(now + 61),
            "it is not valid yet (iat, nbf); is the clock of a machine wrong?",
        ),
        ("iat", json!(now - 901), "it was issued too long ago (iat)"),
        (
            "nbf",
            json!(now + 61),
            "it is not valid yet (iat, nbf); is the clock of a machine wrong?",
        ),
    ] {
        hall.tamper(move |claims| {
            match &value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
            None
        });
        assert_eq!(hall.proof().await, told, "{name}");
    }
}

#[tokio::test]
async fn algorithm_confusion_and_keys_of_others_sign_nothing() {
    let hall = hall().await;
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    hall.tamper(move |claims| {
        let head = part(json!({"alg": "none", "typ": "JWT"}));
        Some(format!("{head}.{}.", part(claims.clone())))
    });
    assert!(hall.proof().await.contains("algorithm that is not allowed"));
    // With the public key as a shared secret.
    hall.tamper(|claims| {
        let secret = EncodingKey::from_secret(KEY.jwk.to_string().as_bytes());
        let header = Header {
            kid: Some("one".into()),
            ..Header::new(Algorithm::HS256)
        };
        jsonwebtoken::encode(&header, claims, &secret).ok()
    });
    assert!(hall.proof().await.contains("algorithm that is not allowed"));
    hall.tamper(|claims| Some(sign(&OTHER, claims)));
    assert_eq!(hall.proof().await, "its signature is wrong");
    hall.tamper(|claims| {
        let header = Header {
            kid: Some("two".into()),
            ..Header::new(Algorithm::ES256)
        };
        jsonwebtoken::encode(&header, claims, &OTHER.key).ok()
    });
    assert!(
        hall.proof()
            .await
            .contains("a key that its issuer does not publish")
    );
    // Ours in all but its type: an access token proves nobody.
    hall.tamper(|claims| {
        let header = Header {
            kid: Some("one".into()),
            typ: Some("at+jwt".into()),
            ..Header::new(Algorithm::ES256)
        };
        jsonwebtoken::encode(&header, claims, &KEY.key).ok()
    });
    assert!(hall.proof().await.contains("for something else"));
    hall.tamper(|_| Some("garbage".to_owned()));
    assert!(hall.proof().await.contains("three parts"));
}

/// Spec: OIDC-5.
#[tokio::test]
async fn nonce_replay_a_token_of_another_sign_in_is_refused() {
    let hall = hall().await;
    for nonce in [json!("another"), json!(7), Value::Null] {
        hall.tamper(move |claims| {
            claims["nonce"] = nonce.clone();
            None
        });
        assert_eq!(hall.proof().await, "it belongs to another sign-in (nonce)");
    }
}

/// Spec: OIDC-5.
#[tokio::test]
async fn state_fixation_an_answer_counts_only_in_the_browser_that_asked() {
    let hall = hall().await;
    let (mine, theirs) = (hall.start("corp").await, hall.start("corp").await);
    let answer = hall.world.sign_in(&theirs.location, &ann());
    // Mallory gives Ann the answer to a sign-in of his own.
    assert_eq!(
        flow_error(hall.finish(&mine.flow, &answer).await),
        "another state"
    );
    let none = finish(hall.registry(), "corp", None, &answer).await;
    assert_eq!(flow_error(none), "no cookie");
    for state in [None, Some(String::new()), Some("x".into())] {
        let answer = Answer {
            state,
            ..answer.clone()
        };
        assert_eq!(
            flow_error(hall.finish(&theirs.flow, &answer).await),
            "another state"
        );
    }
    // What was sealed for something else, cut, or written by hand.
    let people = hall.registry().access.people();
    let sealed = people.seal_refresh("1", &Password::new("{}")).unwrap();
    let flow = theirs.flow.reveal();
    for made_up in [
        URL_SAFE_NO_PAD.encode(sealed),
        flow[..flow.len() - 2].to_owned(),
        URL_SAFE_NO_PAD.encode(r#"{"provider":"corp","state":"s","nonce":"n","verifier":"v","redirect":"r","back":"/","at":0}"#),
        String::new(),
        "%%".into(),
    ] {
        let made_up = Password::new(made_up);
        assert_eq!(flow_error(hall.finish(&made_up, &answer).await), "a cookie of somebody else");
    }
    hall.house.clock.advance(FLOW_MS);
    assert_eq!(
        flow_error(hall.finish(&theirs.flow, &answer).await),
        "begun too long ago"
    );
}

#[tokio::test]
async fn code_replay_a_code_is_good_once_and_with_its_own_verifier() {
    let hall = hall().await;
    let started = hall.start("corp").await;
    let answer = hall.world.sign_in(&started.location, &ann());
    hall.finish(&started.flow, &answer).await.unwrap();
    let again = hall.finish(&started.flow, &answer).await;
    assert!(matches!(again, Err(OidcError::Refused { reason, .. }) if reason == "invalid_grant"));
    // A code that was stolen does nothing in the thief's sign-in: PKCE.
    let (victim, thief) = (hall.start("corp").await, hall.start("corp").await);
    let stolen = hall.world.sign_in(&victim.location, &ann());
    let answer = Answer {
        state: Some(query(&thief.location, "state")),
        ..stolen
    };
    let refused = hall.finish(&thief.flow, &answer).await;
    assert!(matches!(refused, Err(OidcError::Refused { .. })));
}

#[tokio::test]
async fn mix_up_between_providers_ends_before_a_code_is_sent() {
    let hall = hall().await;
    let started = hall.start("club").await;
    let answer = hall.world.sign_in(&started.location, &ann());
    let before = hall.world.asked.lock().unwrap().len();
    assert_eq!(
        flow_error(hall.finish(&started.flow, &answer).await),
        "begun with another provider"
    );
    let started = hall.start("corp").await;
    let answer = hall.world.sign_in(&started.location, &ann());
    let answer = Answer {
        iss: Some(CLUB.into()),
        ..answer
    };
    assert_eq!(
        flow_error(hall.finish(&started.flow, &answer).await),
        "the answer of another provider"
    );
    let asked = hall.world.asked.lock().unwrap()[before..].to_vec();
    assert!(
        !asked.iter().any(|url| url.ends_with("/token")),
        "{asked:?}"
    );
    // A provider that says who it is has to.
    *hall.world.says_iss.lock().unwrap() = true;
    hall.house.clock.advance(11 * 60_000);
    *hall.world.now.lock().unwrap() = hall.registry().clock.now_ms();
    let started = hall.start("corp").await;
    let answer = hall.world.sign_in(&started.location, &ann());
    assert_eq!(
        flow_error(hall.finish(&started.flow, &answer).await),
        "the answer of another provider"
    );
    let answer = Answer {
        iss: Some(CORP.into()),
        ..answer
    };
    hall.finish(&started.flow, &answer).await.unwrap();
}

#[tokio::test]
async fn open_redirect_whoever_signed_in_goes_on_here() {
    let hall = hall().await;
    for back in [
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "javascript:1",
        "",
    ] {
        let started = start(hall.registry(), "corp", BACK, back).await.unwrap();
        let answer = hall.world.sign_in(&started.location, &ann());
        let arrived = hall.finish(&started.flow, &answer).await.unwrap();
        assert_eq!(arrived.back, "/", "{back}");
    }
}

#[tokio::test]
async fn userinfo_is_asked_for_what_is_lacking_and_believed_of_that_account_alone() {
    let hall = hall().await;
    let bare = json!({"sub": "248"});
    *hall.world.userinfo.lock().unwrap() = Some(json!({"sub": "249", "preferred_username": "eve"}));
    let error = hall.whole(&bare).await.unwrap_err();
    assert!(matches!(error, OidcError::Proof { .. }), "{error:?}");
    *hall.world.userinfo.lock().unwrap() =
        Some(json!({"sub": "248", "preferred_username": "ann", "groups": "dev-b", "iss": "x"}));
    assert_eq!(hall.whole(&bare).await.unwrap().principal.name(), "ann");
    let accounts = identity::accounts_of(hall.registry(), "ann").await.unwrap();
    assert_eq!(accounts[0].groups, ["dev-b"]);
    // It is down: groups that nobody tells are not taken for none.
    *hall.world.userinfo.lock().unwrap() = None;
    let error = hall.whole(&bare).await.unwrap_err();
    assert!(matches!(error, OidcError::Provider { .. }), "{error:?}");
    let before = hall.world.asked.lock().unwrap().len();
    hall.whole(&ann()).await.unwrap();
    let asked = hall.world.asked.lock().unwrap()[before..].to_vec();
    assert!(!asked.iter().any(|url| url.ends_with("/me")), "{asked:?}");
}

#[tokio::test]
async fn a_provider_that_is_down_or_talks_nonsense_lets_nobody_in_and_ends_no_session() {
    let hall = hall().await;
    let arrived = hall.whole(&ann()).await.unwrap();
    let came = Circumstances::new(None, hall.registry().clock.now_ms());
    let by = By::Account {
        provider: "corp".into(),
        subject: arrived.subject,
        sid: arrived.sid,
        refresh: arrived.refresh,
    };
    let secret = session::begin(hall.registry(), &arrived.principal, by, came, "").await;
    let secret = secret.unwrap();
    let check_every = i64::try_from(SessionRules::default().check.as_millis()).unwrap();
    for broken in [
        Err("refused".to_owned()),
        Ok((500, Vec::new())),
        Ok((200, b"<html>".to_vec())),
        Ok((200, vec![b'x'; LARGEST_ANSWER + 1])),
        Ok((302, Vec::new())),
        Ok((200, b"{}".to_vec())),
        Ok((200, br#"{"issuer":"https://other.example","authorization_endpoint":"https://a.b","token_endpoint":"https://a.b","jwks_uri":"https://a.b"}"#.to_vec())),
    ] {
        *hall.world.broken.lock().unwrap() = None;
        let started = hall.start("corp").await;
        let answer = hall.world.sign_in(&started.location, &ann());
        *hall.world.broken.lock().unwrap() = Some(broken.clone());
        let done = hall.finish(&started.flow, &answer).await;
        assert!(
            matches!(done, Err(OidcError::Provider { .. } | OidcError::Proof { .. })),
            "{done:?} of {broken:?}"
        );
        // Asked about the session, it tells nothing that would end it.
        hall.house.clock.advance(check_every);
        assert_eq!(check(hall.registry()).await.unwrap(), 1);
        let came = Circumstances::new(None, hall.registry().clock.now_ms());
        let found = session::find(hall.registry(), &secret, came).await.unwrap();
        assert!(found.is_some(), "{broken:?}");
    }
    let looked = look(vec![settings("corp", CORP)], hall.world.clone()).await;
    let problem = looked[0].problem.as_deref().unwrap();
    assert!(
        problem.contains("calls itself \"https://other.example\"; write exactly that as issuer"),
        "{problem}"
    );
    *hall.world.broken.lock().unwrap() = None;
    let looked = look(vec![settings("corp", CORP)], hall.world.clone()).await;
    assert_eq!(looked[0].problem, None);
}

#[tokio::test]
async fn an_account_that_is_gone_takes_its_sessions_and_its_groups_along() {
    let hall = hall().await;
    let registry = hall.registry();
    let mut boss = ann();
    boss["groups"] = json!(["admins"]);
    let arrived = hall.whole(&boss).await.unwrap();
    let caller = Caller::direct(arrived.principal.clone());
    assert!(registry.access.allow(&caller, Permission::Admin, None));
    let begin = async |refresh: Option<Password>| {
        let by = By::Account {
            provider: "corp".into(),
            subject: arrived.subject.clone(),
            sid: String::new(),
            refresh,
        };
        let came = Circumstances::new(None, registry.clock.now_ms());
        session::begin(registry, &arrived.principal, by, came, "").await
    };
    begin(arrived.refresh.clone()).await.unwrap();
    begin(None).await.unwrap();
    assert_eq!(check(registry).await.unwrap(), 0, "not yet");
    let every = i64::try_from(SessionRules::default().check.as_millis()).unwrap();
    let later = || {
        hall.house.clock.advance(every);
        *hall.world.now.lock().unwrap() = registry.clock.now_ms();
    };
    // What the provider says of groups counts from the next look on.
    let refresh = arrived.refresh.as_ref().unwrap().reveal().to_owned();
    let mut lesser = ann();
    lesser["groups"] = json!(["dev-a"]);
    hall.world
        .refresh
        .lock()
        .unwrap()
        .insert(refresh.clone(), lesser);
    later();
    assert_eq!(check(registry).await.unwrap(), 1);
    assert!(!registry.access.allow(&caller, Permission::Admin, None));
    assert_eq!(session::list(registry, "ann").await.unwrap().len(), 2);
    // One replica at a time: nobody asks twice for one time.
    assert_eq!(check(registry).await.unwrap(), 0);
    hall.world.refresh.lock().unwrap().clear();
    later();
    assert_eq!(check(registry).await.unwrap(), 1);
    assert!(session::list(registry, "ann").await.unwrap().is_empty());
    let accounts = identity::accounts_of(registry, "ann").await.unwrap();
    assert!(accounts[0].groups.is_empty());
    later();
    assert_eq!(check(registry).await.unwrap(), 0);
}
