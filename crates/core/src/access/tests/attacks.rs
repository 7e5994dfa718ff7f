//! Tokens that somebody made up. Each attack by its name.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::*;

/// The claims of a token, changed.
async fn claims(it: &Fixture, change: impl FnOnce(&mut Value)) -> Value {
    let token = it.token("repository:a:pull").await;
    let part = token.split('.').nth(1).unwrap();
    let mut claims = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    change(&mut claims);
    claims
}

/// A header as ours.
fn header(it: &Fixture) -> Header {
    Header {
        kid: Some(it.access.tokens.keys.signer().kid.clone()),
        ..Header::new(Algorithm::ES256)
    }
}

/// Signed with our own key: what only a bug of ours could issue.
fn sign(it: &Fixture, header: &Header, claims: &Value) -> String {
    encode(header, claims, &it.access.tokens.keys.signer().key).unwrap()
}

fn raw(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!(
        "{}.{}.{}",
        part(header),
        part(claims),
        URL_SAFE_NO_PAD.encode(signature)
    )
}

#[tokio::test]
async fn the_unchanged_token_is_good_so_that_the_attacks_prove_something() {
    let it = Fixture::plain().await;
    let claims = claims(&it, |_| {}).await;
    let caller = it
        .bearer(&sign(&it, &header(&it), &claims), NOW)
        .await
        .unwrap();
    assert_eq!(caller.principal.name(), "alice");
    assert_eq!(
        caller.scopes.unwrap()[..],
        Scope::parse_list("repository:a:pull")[..]
    );
}

#[tokio::test]
async fn alg_none() {
    let it = Fixture::plain().await;
    let claims = claims(&it, |claims| claims["sub"] = json!("admin")).await;
    let kid = it.access.tokens.keys.signer().kid.clone();
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let token = raw(&json!({"typ": "JWT", "alg": alg, "kid": kid}), &claims, b"");
        assert_eq!(
            fault(it.bearer(&token, NOW).await),
            TokenFault::Algorithm,
            "{alg}"
        );
    }
}

/// The key that signs, in clear.
fn private_key(it: &Fixture) -> Vec<u8> {
    let key = it.memory.keys.lock().unwrap()[0].clone();
    let purpose = seal::purpose(&key.kid);
    let opened = SecretKeys::of_tests().open(&purpose, &key.private_der);
    opened.unwrap()
}

#[tokio::test]
async fn hs256_with_the_public_key_as_secret() {
    let it = Fixture::plain().await;
    let claims = claims(&it, |_| {}).await;
    let der = private_key(&it);
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).unwrap();
    let public = pair.public_key().as_ref();
    let header = Header {
        alg: Algorithm::HS256,
        ..header(&it)
    };
    let token = encode(&header, &claims, &EncodingKey::from_secret(public)).unwrap();
    assert_eq!(fault(it.bearer(&token, NOW).await), TokenFault::Algorithm);
}

#[tokio::test]
async fn a_foreign_key_under_its_own_name_and_under_ours() {
    let it = Fixture::plain().await;
    let other = Fixture::plain().await;
    let claims = claims(&it, |_| {}).await;
    let own = sign(&other, &header(&other), &claims);
    assert_eq!(fault(it.bearer(&own, NOW).await), TokenFault::Key);
    let ours = sign(&other, &header(&it), &claims);
    assert_eq!(fault(it.bearer(&ours, NOW).await), TokenFault::Signature);
}

/// Distribution, CVE-2025-24976.
#[tokio::test]
async fn a_key_that_comes_with_the_token() {
    let it = Fixture::plain().await;
    let other = Fixture::plain().await;
    let claims = claims(&it, |_| {}).await;
    let signer = other.access.tokens.keys.signer();
    let jwk = jsonwebtoken::jwk::Jwk::from_encoding_key(&signer.key, Algorithm::ES256).unwrap();
    let with_key = Header {
        jwk: Some(jwk),
        jku: Some("https://attacker.example/jwks".into()),
        ..header(&it)
    };
    assert_eq!(
        fault(it.bearer(&sign(&other, &with_key, &claims), NOW).await),
        TokenFault::Signature
    );
    let nameless = Header {
        kid: None,
        ..with_key
    };
    assert_eq!(
        fault(it.bearer(&sign(&other, &nameless, &claims), NOW).await),
        TokenFault::Key
    );
}

#[tokio::test]
async fn kid_injection() {
    let it = Fixture::plain().await;
    let claims = claims(&it, |_| {}).await;
    let calls = it.calls();
    let kids = [
        "../../../../dev/null",
        "/etc/passwd",
        "x' OR '1'='1",
        "x\"; DROP TABLE signing_key; --",
        "",
        "%00",
        "http://[::1]/",
    ];
    for kid in kids {
        let token = sign(
            &it,
            &Header {
                kid: Some(kid.into()),
                ..header(&it)
            },
            &claims,
        );
        assert_eq!(
            fault(it.bearer(&token, NOW).await),
            TokenFault::Key,
            "{kid}"
        );
    }
    assert_eq!(it.calls(), calls + 1, "made-up names cost one look");
    for kid in kids.iter().cycle().take(1_000) {
        let token = sign(
            &it,
            &Header {
                kid: Some((*kid).into()),
                ..header(&it)
            },
            &claims,
        );
        fault(it.bearer(&token, NOW + 10_000).await);
    }
    assert_eq!(
        it.calls(),
        calls + 2,
        "one look at the store per five seconds"
    );
}

#[tokio::test]
async fn a_wrong_or_missing_audience_and_issuer() {
    let it = Fixture::plain().await;
    let service = it.access.service().to_owned();
    let attacks: [(&str, Value, TokenFault); 8] = [
        ("aud", json!("another"), TokenFault::Audience),
        ("aud", json!(""), TokenFault::Audience),
        ("aud", json!([service]), TokenFault::Malformed),
        ("aud", json!([service, "another"]), TokenFault::Malformed),
        ("aud", Value::Null, TokenFault::Malformed),
        ("iss", json!("another"), TokenFault::Issuer),
        (
            "iss",
            json!(format!("{service}.attacker.example")),
            TokenFault::Issuer,
        ),
        ("iss", Value::Null, TokenFault::Malformed),
    ];
    for (claim, value, expected) in attacks {
        let text = format!("{claim} {value}");
        let claims = claims(&it, |claims| claims[claim] = value).await;
        assert_eq!(
            fault(it.bearer(&sign(&it, &header(&it), &claims), NOW).await),
            expected,
            "{text}"
        );
    }
}

#[tokio::test]
async fn missing_repeated_and_overflowing_claims() {
    let it = Fixture::plain().await;
    let good = claims(&it, |_| {}).await;
    for claim in ["iss", "sub", "aud", "exp", "nbf", "access"] {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(claim);
        assert_eq!(
            fault(it.bearer(&sign(&it, &header(&it), &claims), NOW).await),
            TokenFault::Malformed,
            "{claim}"
        );
    }
    let twice = good.to_string().replacen('{', "{\"sub\":\"admin\",", 1);
    let head = URL_SAFE_NO_PAD.encode(serde_json::to_string(&header(&it)).unwrap());
    let message = format!("{head}.{}", URL_SAFE_NO_PAD.encode(twice));
    let der = private_key(&it);
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).unwrap();
    let signature = pair
        .sign(&aws_lc_rs::rand::SystemRandom::new(), message.as_bytes())
        .unwrap();
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()));
    assert_eq!(fault(it.bearer(&token, NOW).await), TokenFault::Malformed);
    for exp in [
        json!(i64::MAX),
        json!(i64::MIN),
        json!(1e300),
        json!("1"),
        json!(-1),
    ] {
        let mut claims = good.clone();
        claims["exp"] = exp.clone();
        claims["nbf"] = exp.clone();
        let result = it.bearer(&sign(&it, &header(&it), &claims), NOW).await;
        let found = fault(result);
        let known = matches!(
            found,
            TokenFault::Malformed | TokenFault::Early | TokenFault::Expired
        );
        assert!(known, "{exp}: {found:?}");
    }
}

/// Spec: AUTH-6.
#[tokio::test]
async fn expired_and_future_tokens_with_a_minute_for_clocks() {
    let it = Fixture::new(|options| options.upload_grace = Duration::ZERO).await;
    let token = it.token("repository:a:pull").await;
    let end = NOW + 15 * MINUTE;
    for (now, expected) in [
        (NOW, None),
        (NOW - MINUTE, None),
        (NOW - MINUTE - 1, Some(TokenFault::Early)),
        (end + MINUTE - 1, None),
        (end + MINUTE, Some(TokenFault::Expired)),
        (end + 365 * 24 * HOUR, Some(TokenFault::Expired)),
    ] {
        let result = it.bearer(&token, now).await;
        match expected {
            None => assert!(result.is_ok(), "{now}: {result:?}"),
            Some(expected) => {
                let failure = result.unwrap_err();
                assert_eq!(failure.challenge_error(), Some(INVALID_TOKEN));
                assert!(
                    matches!(failure, AuthFailure::Token(fault) if fault == expected),
                    "{now}: {failure:?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn oversized_tokens_are_not_even_hashed() {
    let it = Fixture::plain().await;
    let checked = it.access.token_counts().checked;
    for length in [LONGEST_TOKEN + 1, 1 << 20] {
        assert_eq!(
            fault(it.bearer(&"a".repeat(length), NOW).await),
            TokenFault::Malformed
        );
    }
    assert_eq!(it.access.token_counts().checked, checked);
}

#[tokio::test]
async fn critical_extensions_and_other_types_are_refused() {
    let it = Fixture::plain().await;
    let claims = claims(&it, |_| {}).await;
    for change in [
        Header {
            crit: Some(vec!["b64".into()]),
            ..header(&it)
        },
        Header {
            typ: Some("at+jwt".into()),
            ..header(&it)
        },
    ] {
        assert_eq!(
            fault(it.bearer(&sign(&it, &change, &claims), NOW).await),
            TokenFault::Malformed
        );
    }
}

#[tokio::test]
async fn no_changed_byte_and_no_missing_part_passes() {
    let it = Fixture::plain().await;
    let token = it.token("repository:a:pull").await;
    let flip = |at: usize| {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(bytes).unwrap()
    };
    // The last character of a signature holds four bits that mean nothing, and the library ignores them or not.
    for at in 0..token.len() - 1 {
        assert!(it.bearer(&flip(at), NOW).await.is_err(), "byte {at}");
    }
    let parts: Vec<_> = token.split('.').collect();
    for broken in [
        parts[..2].join("."),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{token}.{}", parts[2]),
        format!(".{}.{}", parts[1], parts[2]),
        "..".into(),
        ".".into(),
        "x".into(),
    ] {
        assert!(it.bearer(&broken, NOW).await.is_err(), "{broken}");
    }
}

#[tokio::test]
async fn a_token_of_a_user_who_moved_between_sources_is_gone() {
    let it = Fixture::plain().await;
    let token = it.token("repository:a:pull").await;
    // A local alice appears: another person may be behind that name now.
    it.memory
        .principals
        .lock()
        .unwrap()
        .insert("alice".into(), "$argon2id$other".into());
    it.access.users.forget("alice");
    assert_eq!(fault(it.bearer(&token, NOW).await), TokenFault::Revoked);
}

#[tokio::test]
async fn a_token_cannot_claim_another_credential() {
    let it = Fixture::plain().await;
    for change in [json!("htpasswd.AAAAAAAAAAAAAAAAAAAAAA"), json!("")] {
        let claims = claims(&it, |claims| claims["cred"] = change).await;
        assert_eq!(
            fault(it.bearer(&sign(&it, &header(&it), &claims), NOW).await),
            TokenFault::Revoked
        );
    }
    let claims = claims(&it, |claims| claims["sub"] = json!("bob")).await;
    assert_eq!(
        fault(it.bearer(&sign(&it, &header(&it), &claims), NOW).await),
        TokenFault::Revoked
    );
}

/// A secret scanner's form is also a filter: what was cut or made up costs neither a look-up nor a slow hash.
#[tokio::test]
async fn made_up_secrets_cost_nothing() {
    let it = Fixture::plain().await;
    let (calls, checked) = (it.calls(), it.access.password_counts().checked);
    for secret in [
        "wharf_token_",
        "wharf_robot_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA_000000",
        "wharf_token_' OR 1=1 --",
    ] {
        for user in ["alice", "nobody", ""] {
            let failure = it.basic(user, secret).await.unwrap_err();
            assert!(matches!(failure, AuthFailure::Secret), "{failure:?}");
        }
        assert_eq!(fault(it.bearer(secret, NOW).await), TokenFault::Malformed);
        let proof = Proof::RefreshToken(Password::new(secret));
        assert!(it.grant(proof, "", false).await.is_err());
    }
    assert_eq!(
        (it.calls(), it.access.password_counts().checked),
        (calls, checked)
    );
}
