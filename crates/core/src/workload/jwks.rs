//! Public keys as issuers publish them (RFC 7517).

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value};

use super::issuer::Algorithm;

/// Largest set, in bytes.
pub const LARGEST_KEYS: usize = 256 << 10;
/// Most keys in a set.
pub const MOST_KEYS: usize = 100;
/// Longest name of a key, in bytes.
pub(crate) const LONGEST_KID: usize = 256;
/// Bytes of an RSA modulus: 2048 to 8192 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// Why there are no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JwksError {
    /// Too many bytes.
    #[error("the key set is larger than {} KiB", LARGEST_KEYS >> 10)]
    Large,
    /// Too many keys.
    #[error("the key set has more than {MOST_KEYS} keys")]
    Many,
    /// No JSON, or not of this form.
    #[error("this is no key set: it has to be JSON like {{\"keys\": [...]}}")]
    Form,
    /// Two keys of one name: which one is meant would be anybody's guess.
    #[error("the key set has two keys named {0:?}")]
    Twice(String),
    /// No key that could be used.
    #[error(
        "the key set has no public key that signs tokens (RSA of 2048 to 8192 bits, P-256, P-384, Ed25519)"
    )]
    None,
    /// Somebody gave away a private key.
    #[error(
        "the key set holds a private or shared key, which must never be given away; upload the public half alone"
    )]
    Private,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// A public key.
pub(crate) struct Key {
    kid: Option<String>,
    form: Form,
    /// What its publisher says it is for.
    algorithm: Option<String>,
    pub(crate) key: DecodingKey,
}

impl Key {
    /// Whether it may be used so: as its form says, and as its publisher says.
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        let form = match algorithm {
            Algorithm::ES256 => Form::P256,
            Algorithm::ES384 => Form::P384,
            Algorithm::EdDSA => Form::Ed25519,
            Algorithm::RS256
            | Algorithm::RS384
            | Algorithm::RS512
            | Algorithm::PS256
            | Algorithm::PS384
            | Algorithm::PS512 => Form::Rsa,
        };
        let says = |named: &String| {
            named == algorithm.as_str() || (named == "Ed25519" && algorithm == Algorithm::EdDSA)
        };
        self.form == form && self.algorithm.as_ref().is_none_or(says)
    }
}

/// Public keys of one issuer.
#[derive(Clone, Default)]
pub struct KeySet(Arc<[Key]>);

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self
            .0
            .iter()
            .map(|key| key.kid.as_deref().unwrap_or_default());
        f.debug_list().entries(names).finish()
    }
}

impl KeySet {
    /// Reads a set. Keys of other forms and for other uses are passed over.
    pub fn parse(json: &[u8]) -> Result<Self, JwksError> {
        Self::read(json, false)
    }

    /// Reads a set that somebody hands in: what is secret in it is told.
    pub(crate) fn uploaded(json: &[u8]) -> Result<Self, JwksError> {
        Self::read(json, true)
    }

    fn read(json: &[u8], uploaded: bool) -> Result<Self, JwksError> {
        if json.len() > LARGEST_KEYS {
            return Err(JwksError::Large);
        }
        let json: Value = serde_json::from_slice(json).map_err(|_| JwksError::Form)?;
        let all = json
            .get("keys")
            .and_then(Value::as_array)
            .ok_or(JwksError::Form)?;
        if all.len() > MOST_KEYS {
            return Err(JwksError::Many);
        }
        let mut keys: Vec<Key> = Vec::new();
        for value in all {
            let Some(value) = value.as_object() else {
                return Err(JwksError::Form);
            };
            if uploaded && (value.contains_key("d") || value.contains_key("k")) {
                return Err(JwksError::Private);
            }
            let Some(key) = read(value) else { continue };
            if let Some(kid) = &key.kid
                && keys.iter().any(|other| other.kid.as_ref() == Some(kid))
            {
                return Err(JwksError::Twice(kid.clone()));
            }
            keys.push(key);
        }
        match keys.is_empty() {
            true => Err(JwksError::None),
            false => Ok(Self(keys.into())),
        }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key of exactly that name; for a token that names none, the only key there is.
    pub(crate) fn find(&self, kid: Option<&str>) -> Option<&Key> {
        match (kid, &*self.0) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(kid), keys) => keys.iter().find(|key| key.kid.as_deref() == Some(kid)),
        }
    }
}

fn read(value: &Map<String, Value>) -> Option<Key> {
    let text = |name: &str| value.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    if text("use").is_some_and(|usage| usage != "sig") {
        return None;
    }
    if let Some(operations) = value.get("key_ops") {
        let mut operations = operations.as_array()?.iter();
        operations.find(|one| one.as_str() == Some("verify"))?;
    }
    let coordinates = |length: usize| {
        let fits = |name| bytes(name).is_some_and(|bytes| bytes.len() == length);
        let key = DecodingKey::from_ec_components(text("x")?, text("y")?);
        (fits("x") && fits("y")).then_some(key.ok()?)
    };
    let (form, key) = match (text("kty")?, text("crv")) {
        ("RSA", None) => {
            let (modulus, exponent) = (bytes("n")?, bytes("e")?);
            let leading = modulus.iter().take_while(|byte| **byte == 0).count();
            if !MODULUS.contains(&(modulus.len() - leading)) || !(1..=8).contains(&exponent.len()) {
                return None;
            }
            let key = DecodingKey::from_rsa_raw_components(&modulus[leading..], &exponent);
            (Form::Rsa, key)
        }
        ("EC", Some("P-256")) => (Form::P256, coordinates(32)?),
        ("EC", Some("P-384")) => (Form::P384, coordinates(48)?),
        ("OKP", Some("Ed25519")) => {
            let key = DecodingKey::from_ed_components(text("x")?).ok()?;
            (Form::Ed25519, (bytes("x")?.len() == 32).then_some(key)?)
        }
        _ => return None,
    };
    let kid = match value.get("kid") {
        None => None,
        Some(kid) => Some(
            kid.as_str()
                .filter(|kid| kid.len() <= LONGEST_KID)?
                .to_owned(),
        ),
    };
    Some(Key {
        kid,
        form,
        algorithm: text("alg").map(str::to_owned),
        key,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn ec(kid: &str) -> Value {
        let half = URL_SAFE_NO_PAD.encode([7; 32]);
        json!({"kty": "EC", "crv": "P-256", "x": half, "y": half, "kid": kid})
    }

    fn with(key: Value, name: &str, value: Value) -> Value {
        let mut key = key;
        key[name] = value;
        key
    }

    fn set(keys: Value) -> Result<KeySet, JwksError> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes())
    }

    #[test]
    fn only_public_keys_that_sign_count() {
        let rsa = |bytes: usize| {
            let modulus = URL_SAFE_NO_PAD.encode(vec![0xff; bytes]);
            json!({"kty": "RSA", "n": modulus, "e": "AQAB", "kid": "r"})
        };
        for good in [
            ec("a"),
            rsa(256),
            rsa(1024),
            with(ec("a"), "use", json!("sig")),
            with(ec("a"), "key_ops", json!(["verify"])),
        ] {
            assert_eq!(set(json!([good])).map(|keys| keys.len()), Ok(1), "{good}");
        }
        for none in [
            rsa(128),
            rsa(255),
            rsa(1025),
            json!({"kty": "oct", "k": "c2VjcmV0", "kid": "a"}),
            with(ec("a"), "use", json!("enc")),
            with(ec("a"), "key_ops", json!(["sign"])),
            with(ec("a"), "crv", json!("P-521")),
            with(ec("a"), "x", json!("AA")),
            with(ec("a"), "x", json!("not base64!")),
            with(ec("a"), "kid", json!(7)),
            with(ec("a"), "kid", json!("k".repeat(257))),
            json!({"kty": "OKP", "crv": "Ed25519", "x": "AA"}),
            json!({}),
        ] {
            assert_eq!(set(json!([none])).unwrap_err(), JwksError::None, "{none}");
        }
    }

    #[test]
    fn what_is_no_set_of_keys_is_told() {
        let twice = set(json!([ec("a"), ec("b"), ec("a")]));
        assert_eq!(twice.unwrap_err(), JwksError::Twice("a".into()));
        let many: Vec<_> = (0..1_000).map(|n| ec(&n.to_string())).collect();
        assert_eq!(set(json!(many)).unwrap_err(), JwksError::Many);
        for form in ["", "[]", "{}", "{\"keys\": 7}", "{\"keys\": [7]}", "<html>"] {
            assert_eq!(
                KeySet::parse(form.as_bytes()).unwrap_err(),
                JwksError::Form,
                "{form}"
            );
        }
        let large = vec![b' '; LARGEST_KEYS + 1];
        assert_eq!(KeySet::parse(&large).unwrap_err(), JwksError::Large);
        let private = json!({"keys": [with(ec("a"), "d", json!("AA"))]}).to_string();
        assert_eq!(
            KeySet::uploaded(private.as_bytes()).unwrap_err(),
            JwksError::Private
        );
        assert_eq!(KeySet::parse(private.as_bytes()).unwrap().len(), 1);
    }

    #[test]
    fn a_key_is_found_by_its_name_and_used_as_it_is_meant() {
        let keys = set(json!([ec("a"), with(ec("b"), "alg", json!("ES384"))])).unwrap();
        assert!(keys.find(Some("a")).unwrap().fits(Algorithm::ES256));
        for other in Algorithm::ALL
            .into_iter()
            .filter(|one| *one != Algorithm::ES256)
        {
            assert!(!keys.find(Some("a")).unwrap().fits(other), "{other}");
        }
        assert!(!keys.find(Some("b")).unwrap().fits(Algorithm::ES256));
        assert!(keys.find(None).is_none() && keys.find(Some("c")).is_none());
        assert!(set(json!([ec("a")])).unwrap().find(None).is_some());
    }

    proptest! {
        #[test]
        fn any_bytes_are_keys_or_none(bytes in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,60}") {
            let _ = KeySet::parse(&bytes);
            for (name, value) in [("x", json!(text)), ("kid", json!(text)), ("key_ops", json!([text])), ("kty", json!(text))] {
                let _ = set(json!([with(ec("a"), name, value)]));
            }
            let _ = set(json!([{"kty": "RSA", "n": text, "e": text}]));
        }
    }
}
