//! Targets of machines' sign-in: their tokens, issuers' keys, rules on claims, and what kubelets ask.

use std::sync::LazyLock;

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use wharf::credential_provider::{Entry, LARGEST_REQUEST, Options, answer};
use wharf_core::access::{Access, AccessOptions, Changer, SecretKeys};
use wharf_core::workload::{
    Bearer, Claims, IssuerSettings, KeySet, KeySource, Kind, MOST_KEYS, RuleSettings, find,
};
use wharf_meta::{Meta, SqliteOptions};
use wharf_oci::Authorization;
use wharf_testkit::TokenKey;

/// A moment, in ms since 1970.
const NOW: i64 = 1_800_000_000_000;
const ISSUER: &str = "https://cluster.example";

/// A registry that trusts a cluster, with one good token of it.
struct Door {
    runtime: Runtime,
    access: Access,
    token: String,
    _folder: tempfile::TempDir,
}

static DOOR: LazyLock<Door> = LazyLock::new(|| {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let (meta, _) =
        Meta::open(SqliteOptions::new(folder.path().join("meta.db"))).expect("a new database");
    let key = TokenKey::new("one");
    let now = NOW / 1_000;
    let token = key.sign(&json!({
        "iss": ISSUER, "sub": "system:serviceaccount:prod:default", "aud": ["reg.example"],
        "iat": now, "nbf": now, "exp": now + 3_600,
        "kubernetes.io": {"namespace": "prod", "serviceaccount": {"name": "default", "uid": "u"}},
    }));
    let mut settings = IssuerSettings::new(Kind::Kubernetes, ISSUER, vec!["reg.example".into()]);
    settings.keys = KeySource::Static(json!({"keys": [key.jwk]}).to_string());
    let rule = json!({"conditions": [{"claim": "kubernetes.io.namespace", "in": ["prod"]}]});
    let rule: RuleSettings = serde_json::from_value(rule).expect("a rule");
    let access = runtime.block_on(async {
        let access = Access::open(AccessOptions::default(), SecretKeys::of_tests(), meta, NOW)
            .await
            .expect("access opens");
        let by = Changer::Operator;
        let made = access.put_issuer(by, "prod", &settings, &Bearer::Forget, None, NOW);
        made.await.expect("an issuer");
        let made = access.put_rule(by, "prod-all", "prod", &rule, None, NOW);
        made.await.expect("a rule");
        access
    });
    Door {
        runtime,
        access,
        token,
        _folder: folder,
    }
});

/// `{head}`, `{claims}` and `{signature}` in the input stand for the parts of a good token, whose key is new each time.
pub(crate) fn jwt(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let door = &*DOOR;
    let mut text = text.to_owned();
    let names = ["{head}", "{claims}", "{signature}"];
    for (name, part) in names.iter().zip(door.token.split('.')) {
        text = text.replace(name, part);
    }
    for authorization in [
        Authorization::Bearer(text.clone()),
        Authorization::Basic {
            user: "kubernetes".into(),
            password: text.clone(),
        },
    ] {
        let authenticated = door.access.authenticate(Some(&authorization), NOW);
        match door.runtime.block_on(authenticated) {
            Ok(_) => assert_eq!(text, door.token, "only the token that was signed is good"),
            Err(refused) => {
                assert_ne!(text, door.token, "{refused}");
                let signature = door.token.rsplit('.').next().unwrap_or_default();
                assert!(
                    !refused.to_string().contains(signature),
                    "a refusal that shows a signature"
                );
            }
        }
    }
}

pub(crate) fn jwks(input: &[u8]) {
    if let Ok(keys) = KeySet::parse(input) {
        assert!(!keys.is_empty() && keys.len() <= MOST_KEYS);
        let json: Value = serde_json::from_slice(input).expect("it was read as JSON");
        let listed = json["keys"].as_array().expect("keys are a list");
        // Of a member that is named twice the last one counts (RFC 7517 §4): `"kty":"oct","kty":"EC"` is no secret.
        let secrets = listed.iter().filter(|key| key["kty"] == "oct").count();
        assert!(
            keys.len() + secrets <= listed.len(),
            "a shared secret is a key, or there are more keys than were listed"
        );
    }
}

/// A rule in the first line, what a token says in the second.
pub(crate) fn claims(input: &[u8]) {
    let Some(at) = input.iter().position(|byte| *byte == b'\n') else {
        return;
    };
    let rule = serde_json::from_slice::<RuleSettings>(&input[..at]);
    let said = serde_json::from_slice::<Claims>(&input[at + 1..]);
    let (Ok(rule), Ok(said)) = (rule, said) else {
        return;
    };
    for kind in Kind::ALL {
        let fits = rule.check(kind).is_ok();
        let unmet = rule.unmet(kind, &said);
        if !fits {
            continue;
        }
        assert!(
            !rule.unmet(kind, &Claims::new()).is_empty(),
            "a rule that asks for nothing"
        );
        for condition in &rule.conditions {
            let found = find(&said, &condition.claim);
            assert!(
                !unmet.is_empty() || found.is_some(),
                "a claim that is not there is met"
            );
        }
    }
}

pub(crate) fn credential_provider(input: &[u8]) {
    let entries: Vec<Entry> = ["reg.example", "*.reg.example:5000/team"]
        .iter()
        .map(|entry| entry.parse().expect("an entry"))
        .collect();
    for entries in [Vec::new(), entries] {
        let options = Options {
            entries,
            ..Options::default()
        };
        match answer(input, &options, NOW / 1_000) {
            Ok(answered) => {
                // A field that nobody reads may hold bytes that are no text.
                let Ok(request) = serde_json::from_slice::<Value>(input) else {
                    continue;
                };
                let image = request["image"]
                    .as_str()
                    .unwrap_or_default()
                    .to_ascii_lowercase();
                let answered: Value = serde_json::from_str(&answered).expect("JSON");
                for place in answered["auth"].as_object().expect("a map").keys() {
                    let host = place.split('/').next().unwrap_or_default();
                    assert!(
                        image.starts_with(&format!("{host}/")),
                        "{place} for {image}"
                    );
                }
            }
            Err(refused) => assert!(!refused.to_string().is_empty()),
        }
    }
    assert!(input.len() <= LARGEST_REQUEST || answer(input, &Options::default(), 0).is_err());
}
