//! Signing out at the provider, and attacks on it by their names.

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::*;
use super::*;
use crate::access::Circumstances;
use crate::session::{self, By};

const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
const LEFT: &str = "https://reg.example/auth/oidc/corp/signed-out";

fn typed(key: &Pair, typ: Option<&str>, claims: &Value) -> String {
    let header = Header {
        kid: Some("one".into()),
        typ: typ.map(str::to_owned),
        ..Header::new(Algorithm::ES256)
    };
    jsonwebtoken::encode(&header, claims, &key.key).unwrap()
}

impl Hall {
    /// What a logout token of `corp` says.
    fn word(&self, jti: &str) -> Value {
        let now = self.registry().clock.now_ms() / 1_000;
        json!({"iss": CORP, "aud": CLIENT, "iat": now, "exp": now + 120, "jti": jti, "sub": "248", "events": {EVENT: {}}})
    }

    async fn hears(&self, word: &Value) -> Result<usize, OidcError> {
        let token = typed(&KEY, Some("logout+jwt"), word);
        heard(self.registry(), "corp", &token).await
    }

    async fn refuses(&self, word: &Value) -> String {
        match self.hears(word).await {
            Err(OidcError::Proof { reason, .. }) => reason,
            other => panic!("{other:?} of {word}"),
        }
    }

    /// Ann signs in; what the provider calls its session is `sid`.
    async fn session(&self, sid: &str) -> Password {
        let mut ann = ann();
        if !sid.is_empty() {
            ann["sid"] = sid.into();
        }
        let arrived = self.whole(&ann).await.unwrap();
        assert_eq!(arrived.sid, sid);
        let by = By::Account {
            provider: "corp".into(),
            subject: arrived.subject,
            sid: arrived.sid,
            refresh: arrived.refresh,
        };
        let came = Circumstances::new(None, self.registry().clock.now_ms());
        let begun = session::begin(self.registry(), &arrived.principal, by, came, "");
        begun.await.unwrap()
    }

    async fn is_in(&self, secret: &Password) -> bool {
        let came = Circumstances::new(None, self.registry().clock.now_ms());
        let found = session::find(self.registry(), secret, came).await;
        found.unwrap().is_some()
    }
}

#[tokio::test]
async fn a_provider_ends_its_session_or_all_of_an_account_and_no_other() {
    let hall = hall().await;
    let (one, two, plain) = (
        hall.session("s1").await,
        hall.session("s2").await,
        hall.session("").await,
    );
    let mut word = hall.word("a");
    word.as_object_mut().unwrap().remove("sub");
    word["sid"] = "s0".into();
    assert_eq!(hall.hears(&word).await.unwrap(), 0);
    word["sid"] = "s1".into();
    word["jti"] = "b".into();
    assert_eq!(hall.hears(&word).await.unwrap(), 1);
    assert!(!hall.is_in(&one).await && hall.is_in(&two).await && hall.is_in(&plain).await);
    // Of both: this session is not that account's.
    let mut word = hall.word("c");
    word["sid"] = "s2".into();
    word["sub"] = "249".into();
    assert_eq!(hall.hears(&word).await.unwrap(), 0);
    assert!(hall.is_in(&two).await);
    assert_eq!(hall.hears(&hall.word("d")).await.unwrap(), 2);
    assert!(!hall.is_in(&two).await && !hall.is_in(&plain).await);
    // Without a type, as older providers write them, and with the usual one.
    for (jti, typ) in [("e", None), ("f", Some("JWT"))] {
        let token = typed(&KEY, typ, &hall.word(jti));
        assert_eq!(heard(hall.registry(), "corp", &token).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn logout_tokens_that_do_not_say_all_they_must_end_nothing() {
    let hall = hall().await;
    let kept = hall.session("s1").await;
    let now = hall.registry().clock.now_ms() / 1_000;
    for (claim, value, told) in [
        ("iss", json!(CLUB), "it is another issuer's (iss)"),
        ("iss", Value::Null, "it is another issuer's (iss)"),
        ("aud", json!("other"), "it is for another client (aud)"),
        (
            "aud",
            json!([CLIENT, "other"]),
            "it was issued to another client (azp)",
        ),
        (
            "iat",
            Value::Null,
            "it has no end (exp), or no beginning (iat)",
        ),
        (
            "exp",
            Value::Null,
            "it has no end (exp), or no beginning (iat)",
        ),
        ("exp", json!(now - 61), "it has expired (exp)"),
        ("iat", json!(now - 901), "it was issued too long ago (iat)"),
        (
            "iat",
            json!(now + 61),
            "it is not valid yet (iat, nbf); is the clock of a machine wrong?",
        ),
        (
            "nonce",
            json!("n"),
            "it has a nonce, which no logout token has",
        ),
        (
            "nonce",
            json!(false),
            "it has a nonce, which no logout token has",
        ),
        ("events", Value::Null, "it is no logout token (events)"),
        ("events", json!([EVENT]), "it is no logout token (events)"),
        (
            "events",
            json!({"other": {}}),
            "it is no logout token (events)",
        ),
        (
            "events",
            json!({EVENT: true}),
            "it is no logout token (events)",
        ),
        (
            "sub",
            Value::Null,
            "it names neither a session (sid) nor an account (sub)",
        ),
        ("sub", json!(7), "its sub is no text of 1 to 255 bytes"),
        ("sub", json!(""), "its sub is no text of 1 to 255 bytes"),
        (
            "sid",
            json!("s".repeat(256)),
            "its sid is no text of 1 to 255 bytes",
        ),
        ("jti", Value::Null, "it has no name (jti)"),
        ("jti", json!(["a"]), "its jti is no text of 1 to 255 bytes"),
    ] {
        let mut word = hall.word("a");
        match &value {
            Value::Null => drop(word.as_object_mut().unwrap().remove(claim)),
            value => word[claim] = value.clone(),
        }
        assert_eq!(hall.refuses(&word).await, told, "{claim}: {value}");
    }
    assert!(hall.is_in(&kept).await);
    assert_eq!(
        hall.hears(&hall.word("a")).await.unwrap(),
        1,
        "no refused word counts as heard"
    );
}

#[tokio::test]
async fn logout_token_replay_ends_no_session_that_was_begun_since() {
    let hall = hall().await;
    let first = hall.session("s1").await;
    let word = hall.word("a");
    assert_eq!(hall.hears(&word).await.unwrap(), 1);
    let again = hall.session("s1").await;
    assert_eq!(hall.refuses(&word).await, "it was heard before (jti)");
    hall.house.clock.advance(119_000);
    session::forget(hall.registry()).await.unwrap();
    assert_eq!(hall.refuses(&word).await, "it was heard before (jti)");
    // Long-lived, and as old as it may be.
    let mut word = hall.word("b");
    word["exp"] = (word["iat"].as_i64().unwrap() + 9_999_999).into();
    assert_eq!(hall.hears(&word).await.unwrap(), 1);
    assert!(!hall.is_in(&first).await && !hall.is_in(&again).await);
    for _ in 0..17 {
        hall.house.clock.advance(60_000);
        session::forget(hall.registry()).await.unwrap();
        let told = hall.refuses(&word).await;
        assert!(told == "it was heard before (jti)" || told == "it was issued too long ago (iat)");
    }
    assert_eq!(
        hall.refuses(&word).await,
        "it was issued too long ago (iat)"
    );
}

#[tokio::test]
async fn id_tokens_are_no_logout_tokens_and_logout_tokens_prove_nobody() {
    let hall = hall().await;
    let kept = hall.session("s1").await;
    let now = hall.registry().clock.now_ms() / 1_000;
    let id_token = json!({"iss": CORP, "aud": CLIENT, "iat": now, "exp": now + 300, "sub": "248", "sid": "s1", "jti": "x"});
    assert_eq!(
        hall.refuses(&id_token).await,
        "it is no logout token (events)"
    );
    for typ in ["at+jwt", "secevent+jwt", "dpop+jwt"] {
        let token = typed(&KEY, Some(typ), &hall.word("a"));
        let refused = heard(hall.registry(), "corp", &token).await.unwrap_err();
        assert!(
            matches!(&refused, OidcError::Proof { reason, .. } if reason.contains("something else")),
            "{refused:?}"
        );
    }
    assert!(hall.is_in(&kept).await);
    // The other way round, in a sign-in: by its type, and without one by what it says, nonce or not.
    let word = hall.word("b");
    let typed_word = typed(&KEY, Some("logout+jwt"), &word);
    hall.tamper(move |_| Some(typed_word.clone()));
    assert!(
        hall.proof()
            .await
            .contains("something else than signing in")
    );
    hall.tamper(|claims| {
        claims["events"] = json!({EVENT: {}});
        None
    });
    assert_eq!(
        hall.proof().await,
        "it tells of an event, and proves nobody's identity (events)"
    );
    // And when a provider is asked about a session, where no nonce is expected.
    let every = i64::try_from(session::SessionRules::default().check.as_millis()).unwrap();
    hall.house.clock.advance(every);
    *hall.world.now.lock().unwrap() = hall.registry().clock.now_ms();
    assert_eq!(check(hall.registry()).await.unwrap(), 1);
    assert!(hall.is_in(&kept).await, "what proves nothing ends nothing");
}

#[tokio::test]
async fn algorithm_confusion_forged_logout_tokens_end_nothing() {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let hall = hall().await;
    let kept = hall.session("s1").await;
    let word = hall.word("a");
    let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let none = format!(
        "{}.{}.",
        part(&json!({"alg": "none", "typ": "logout+jwt"})),
        part(&word)
    );
    let shared = {
        let secret = EncodingKey::from_secret(KEY.jwk.to_string().as_bytes());
        let header = Header {
            kid: Some("one".into()),
            ..Header::new(Algorithm::HS256)
        };
        jsonwebtoken::encode(&header, &word, &secret).unwrap()
    };
    // Signed by a hash of what everybody knows.
    let hashed = format!(
        "{}.{}",
        part(&json!({"alg": "ES256", "kid": "one"})),
        part(&word)
    );
    let hashed = format!(
        "{hashed}.{}",
        URL_SAFE_NO_PAD.encode(digest(&SHA256, hashed.as_bytes()))
    );
    for token in [
        none,
        shared,
        hashed,
        typed(&OTHER, Some("logout+jwt"), &word),
        String::new(),
        "a.b.c".into(),
    ] {
        let refused = heard(hall.registry(), "corp", &token).await;
        assert!(
            matches!(refused, Err(OidcError::Proof { .. })),
            "{refused:?} of {token}"
        );
    }
    // Another provider's word, signed with a key that both have.
    let token = typed(&KEY, Some("logout+jwt"), &word);
    let refused = heard(hall.registry(), "club", &token).await;
    assert!(
        matches!(refused, Err(OidcError::Proof { .. })),
        "{refused:?}"
    );
    assert!(matches!(
        heard(hall.registry(), "none", &token).await,
        Err(OidcError::Unknown)
    ));
    assert!(hall.is_in(&kept).await);
}

#[tokio::test]
async fn who_leaves_is_sent_to_the_provider_with_an_address_that_we_chose() {
    let hall = hall().await;
    let leaving = leave(hall.registry(), "corp", LEFT, None).await.unwrap();
    assert!(
        leaving
            .location
            .starts_with("https://corp.example/out?a=b&client_id=wharf&")
    );
    assert_eq!(query(&leaving.location, "post_logout_redirect_uri"), LEFT);
    let state = query(&leaving.location, "state");
    assert!(
        !leaving.location.contains("id_token"),
        "there was nothing to remind it of"
    );
    let people = hall.registry().access.people();
    assert_eq!(
        left(people, "corp", &leaving.state, &state).as_deref(),
        Some("corp")
    );
    assert_eq!(left(people, "corp", &leaving.state, "x"), None);
    assert_eq!(left(people, "corp", &Password::new(""), ""), None);
    assert_eq!(left(people, "none", &leaving.state, &state), None);
    let none = leave(hall.registry(), "none", LEFT, None).await;
    assert!(none.is_none());
    // Its documents are too old, and it is down: whoever signs out here is done.
    hall.house.clock.advance(25 * 60 * 60_000);
    *hall.world.broken.lock().unwrap() = Some(Err("refused".to_owned()));
    let down = leave(hall.registry(), "corp", LEFT, None).await;
    assert!(down.is_none());
}

#[tokio::test]
async fn a_provider_is_reminded_of_its_own_sign_in_and_of_no_other() {
    let hall = hall().await;
    let arrived = hall.whole(&ann()).await.unwrap();
    let hint = arrived.hint.unwrap();
    assert!(
        !hint.reveal().contains("eyJ"),
        "the browser keeps it sealed"
    );
    let reminded = async |name: &str, hint: &Password| {
        let leaving = leave(hall.registry(), name, LEFT, Some(hint))
            .await
            .unwrap();
        let told = leaving.location.contains("id_token_hint=");
        told.then(|| query(&leaving.location, "id_token_hint"))
    };
    let token = reminded("corp", &hint).await.unwrap();
    let jwt = crate::workload::Jwt::read(&token).unwrap();
    assert_eq!(
        (jwt.issuer(), &jwt.claims["sub"]),
        (Some(CORP), &json!("248"))
    );
    // Neither another provider's nor what somebody made up goes anywhere.
    assert_eq!(reminded("club", &hint).await, None);
    let cut = Password::new(&hint.reveal()[..hint.reveal().len() - 4]);
    for made_up in [
        &cut,
        &Password::new(&token),
        &Password::new("a b"),
        &Password::new(""),
    ] {
        assert_eq!(reminded("corp", made_up).await, None);
    }
    // What no cookie can hold is done without.
    let mut long = ann();
    long["note"] = "x".repeat(2_800).into();
    assert!(hall.whole(&long).await.unwrap().hint.is_none());
}

proptest! {
    #[test]
    fn whatever_claims_say_is_read_or_refused(
        sid in "\\PC{0,300}", sub in "\\PC{0,20}", jti in "\\PC{0,20}", event in "\\PC{0,20}"
    ) {
        let claims = json!({"sid": sid, "sub": sub, "jti": jti, "events": {event: {}, EVENT: {}}});
        let word = logout::read("corp", claims.as_object().unwrap(), 0);
        let good = |text: &str| !text.is_empty() && text.len() <= logout::LONGEST_ID;
        prop_assert_eq!(word.is_ok(), good(&sid) && good(&sub) && good(&jti));
    }
}
