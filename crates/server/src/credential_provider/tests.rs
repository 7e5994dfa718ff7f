use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// A moment, in seconds since 1970.
const NOW: i64 = 1_800_000_000;

fn token(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = json!({"alg": "RS256", "kid": "k"});
    format!("{}.{}.c2lnbmF0dXJl", part(&head), part(claims))
}

fn lasting(seconds: i64) -> String {
    token(&json!({"aud": ["wharf"], "iat": NOW, "exp": NOW + seconds}))
}

/// As a kubelet writes it, annotations and all.
fn request(image: &str, token: &str) -> Value {
    json!({
        "kind": "CredentialProviderRequest", "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "image": image,
        "serviceAccountToken": token, "serviceAccountAnnotations": {"wharf.example/team": "a"},
    })
}

fn of(entries: &[&str]) -> Options {
    Options {
        entries: entries.iter().map(|entry| entry.parse().unwrap()).collect(),
        ..Options::default()
    }
}

fn asked(image: &str, token: &str, options: &Options) -> Result<Value, Refused> {
    let text = answer(request(image, token).to_string().as_bytes(), options, NOW)?;
    assert!(text.ends_with('\n'));
    Ok(serde_json::from_str(&text).unwrap())
}

/// Spec: K8SCRED-2, K8SCRED-5.
#[test]
fn the_token_is_the_password_for_the_images_registry() {
    let token = lasting(3_600);
    let answered = asked("reg.example/team/app:1", &token, &Options::default()).unwrap();
    let wanted = json!({
        "apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderResponse",
        "cacheKeyType": "Registry", "cacheDuration": "55m0s",
        "auth": {"reg.example": {"username": "kubernetes", "password": token}},
    });
    assert_eq!(answered, wanted);
}

/// Spec: K8SCRED-2.
#[test]
fn a_registry_that_is_not_meant_never_sees_a_token() {
    let token = lasting(3_600);
    let options = of(&[
        "reg.example",
        "*.reg.example:5000/team/a",
        "a.reg.example:5000/team/b",
    ]);
    let places = |image| {
        let answered = asked(image, &token, &options).unwrap();
        assert_eq!(answered["cacheKeyType"], "Registry");
        let auth = answered["auth"].as_object().unwrap();
        auth.keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(places("reg.example/x:1"), ["reg.example"]);
    let both = ["a.reg.example:5000/team/a", "a.reg.example:5000/team/b"];
    assert_eq!(places("a.reg.example:5000/team/b/x@sha256:0a"), both);
    // Kept for the whole registry, so it must not depend on the image.
    assert_eq!(places("a.reg.example:5000/other"), both);
    for other in [
        "reg.example.evil/x",
        "a.reg.example/x",
        "reg.example:5000/x",
        "evil.example/reg.example",
    ] {
        assert!(places(other).is_empty(), "{other}");
    }
}

/// Spec: K8SCRED-4.
#[test]
fn without_a_token_there_are_no_credentials_or_an_error() {
    let answered = asked("reg.example/app", "", &Options::default()).unwrap();
    assert_eq!(answered["auth"], json!({}));
    assert_eq!(answered["cacheDuration"], "0s");
    let strict = Options {
        needs_token: true,
        ..Options::default()
    };
    assert_eq!(asked("reg.example/app", "", &strict), Err(Refused::NoToken));
    // As older kubelets and those without tokenAttributes write it.
    let bare = json!({"kind": "CredentialProviderRequest", "apiVersion": VERSION, "image": "reg.example/app"});
    assert!(
        answer(bare.to_string().as_bytes(), &Options::default(), NOW)
            .unwrap()
            .contains("\"auth\":{}")
    );
}

/// Spec: K8SCRED-6.
#[test]
fn an_answer_is_kept_for_less_than_the_token_lasts() {
    for (left, kept) in [
        (1, "0s"),
        (59, "29s"),
        (120, "1m0s"),
        (600, "5m0s"),
        (607, "5m7s"),
        (3_607, "55m7s"),
        (86_400, "60m0s"),
    ] {
        let answered = asked("reg.example/app", &lasting(left), &Options::default()).unwrap();
        assert_eq!(answered["cacheDuration"], kept, "{left}");
    }
    assert_eq!(
        asked("reg.example/app", &lasting(0), &Options::default()),
        Err(Refused::Ended(0))
    );
    assert_eq!(
        asked("reg.example/app", &lasting(-7), &Options::default()),
        Err(Refused::Ended(7))
    );
}

#[test]
fn what_is_wrong_is_told_without_the_token() {
    let secret = lasting(3_600);
    let for_us = Options {
        audiences: vec!["registry".into()],
        ..Options::default()
    };
    let good = request("reg.example/app", &secret);
    let with = |field: &str, value: Value| {
        let mut changed = good.clone();
        changed[field] = value;
        changed.to_string()
    };
    let cases = [
        (String::new(), "it is empty"),
        ("{\"kind\":".to_owned(), "no JSON at line 1"),
        ("7".to_owned(), "a field is of another type"),
        (with("image", json!(7)), "a field is of another type"),
        (
            with("serviceAccountToken", json!([secret])),
            "a field is of another type",
        ),
        (
            with(
                "apiVersion",
                json!("credentialprovider.kubelet.k8s.io/v1beta1"),
            ),
            "only credentialprovider.kubelet.k8s.io/v1",
        ),
        (
            with("kind", json!("CredentialProviderResponse")),
            "kind \"CredentialProviderResponse\"",
        ),
        (with("image", json!("nginx")), "begins with no registry"),
        (
            with("image", json!("https://reg.example/app")),
            "leave out the scheme",
        ),
        (
            with("serviceAccountToken", json!("hunter2")),
            "it is no JWT",
        ),
        (
            with("serviceAccountToken", json!("eyJhbGciOiJ4In0.bm9wZQ.x")),
            "its claims cannot be read",
        ),
        (
            with(
                "serviceAccountToken",
                json!(token(&json!({"aud": "registry"}))),
            ),
            "no end (exp)",
        ),
        (
            with(
                "serviceAccountToken",
                json!(token(&json!({"aud": "registry", "exp": "soon"}))),
            ),
            "one of its times",
        ),
        (good.to_string(), "is for \"wharf\", and not for registry"),
        (
            with(
                "serviceAccountToken",
                json!(token(&json!({"exp": NOW + 9}))),
            ),
            "is for nobody",
        ),
        (" ".repeat(LARGEST_REQUEST + 1), "larger than 1024 KiB"),
    ];
    for (text, why) in cases {
        let refused = answer(text.as_bytes(), &for_us, NOW).unwrap_err();
        let told = refused.to_string();
        assert!(told.contains(why), "{why}: {told}");
        assert!(
            !told.contains(&secret) && !told.contains("hunter2"),
            "{told}"
        );
    }
}

/// Spec: K8SCRED-3, K8SCRED-4.
#[test]
fn the_node_is_told_to_do_what_the_plugin_expects() {
    let node = node::Node {
        entries: ["reg.example:5000", "*.reg.example/team"]
            .map(|entry| entry.parse().unwrap())
            .into(),
        audience: "wharf".into(),
        name: "wharf-credential-provider".into(),
        folder: "/usr/libexec/kubelet".into(),
        file: "/etc/kubernetes/credential-provider.yaml".into(),
        user: USER.into(),
        needs_account: false,
    };
    let wanted = r#"apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- name: "wharf-credential-provider"
  apiVersion: credentialprovider.kubelet.k8s.io/v1
  matchImages:
  - "reg.example:5000"
  - "*.reg.example/team"
  defaultCacheDuration: "0s"
  args:
  - "--audience"
  - "wharf"
  - "--registry"
  - "reg.example:5000"
  - "--registry"
  - "*.reg.example/team"
  tokenAttributes:
    serviceAccountTokenAudience: "wharf"
    # The password is the token, so it is good for no longer than that.
    cacheType: Token
    requireServiceAccount: false
"#;
    let made = node::config(&node);
    let (comments, rest) = made.split_at(made.find("apiVersion").unwrap());
    assert_eq!(rest, wanted);
    assert!(
        comments.lines().all(|line| line.starts_with('#')),
        "{comments}"
    );
    assert!(node::cluster_role("a\"b").contains(r#"resources: ["a\"b"]"#));
}

proptest! {
    #[test]
    fn any_request_is_answered_or_refused_in_words(
        image in "(reg\\.example(:[0-9]{1,5})?/)?[a-z0-9./:@*\\[\\] -]{0,30}",
        token in "(eyJ[a-zA-Z0-9]{0,9}\\.[a-zA-Z0-9_-]{0,20}\\.)?\\PC{0,20}",
        cut in 0..400_usize,
        entry in "[a-z*]{0,4}(\\.[a-z*]{1,7}){0,2}(:[0-9]{1,5})?(/[a-z]{1,3})?",
    ) {
        let options = entry.parse::<Entry>().map_or_else(|_| Options::default(), |entry| Options {
            entries: vec![entry],
            ..Options::default()
        });
        let text = request(&image, &token).to_string();
        let cut = (0..=cut.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        for text in [&text, &text[..cut]] {
            match answer(text.as_bytes(), &options, NOW) {
                Ok(answered) => {
                    let answered: Value = serde_json::from_str(&answered).unwrap();
                    let host = Entry::of_image(&image).unwrap().host().to_owned();
                    for key in answered["auth"].as_object().unwrap().keys() {
                        let stays = key.strip_prefix(&host).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                        prop_assert!(stays, "{key} for {image}");
                    }
                }
                Err(refused) => prop_assert!(token.len() < 8 || image.contains(&token) || !refused.to_string().contains(&token)),
            }
        }
    }
}
