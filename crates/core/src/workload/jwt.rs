//! Tokens taken apart (RFC 7515, 7519), before anything in them is believed.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::claim::Claims;
use super::jwks::LONGEST_KID;
use super::verify::Fault;

/// Longest token that is looked at, in bytes.
pub const LONGEST_JWT: usize = 16 << 10;

/// A token, of which nothing is proved.
pub struct Jwt<'a> {
    /// The algorithm's name as the header says it.
    pub algorithm: String,
    /// The key's name as the header says it.
    pub kid: Option<String>,
    /// What it says.
    pub claims: Claims,
    /// The whole of it.
    pub(crate) text: &'a str,
    /// What is signed.
    pub(crate) message: &'a str,
    /// In base64.
    pub(crate) signature: &'a str,
}

/// Whether a text could be a token at all; no password of ours and nobody's usual password looks so.
pub fn is_jwt(text: &str) -> bool {
    // What JSON begins with, in base64.
    text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl std::fmt::Debug for Jwt<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Jwt").finish_non_exhaustive()
    }
}

impl<'a> Jwt<'a> {
    /// Takes a token to sign in with apart. Where its header says keys could be found is not looked at, and never followed.
    pub fn read(token: &'a str) -> Result<Self, Fault> {
        Self::read_as(token, &["jwt", "at+jwt"])
    }

    /// The same for a token whose header says one of these types, in small letters, or none.
    pub(crate) fn read_as(token: &'a str, types: &[&str]) -> Result<Self, Fault> {
        #[derive(Deserialize)]
        struct Head {
            alg: String,
            typ: Option<String>,
            kid: Option<String>,
            crit: Option<IgnoredAny>,
        }
        if token.len() > LONGEST_JWT {
            return Err(Fault::Malformed(
                "it is longer than any token that is accepted here",
            ));
        }
        let no_parts = || Fault::Malformed("a token has three parts between two dots");
        let (message, signature) = token.rsplit_once('.').ok_or_else(no_parts)?;
        let (head, body) = message.split_once('.').ok_or_else(no_parts)?;
        if body.contains('.') {
            return Err(no_parts());
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let head = decode(head).and_then(|json| serde_json::from_slice::<Head>(&json).ok());
        let head = head.ok_or(Fault::Malformed("its header cannot be read"))?;
        // A critical extension must be understood or the token refused (RFC 7515 §4.1.11).
        if head.crit.is_some() {
            return Err(Fault::Malformed(
                "it needs extensions that are not known here",
            ));
        }
        let usual = |typ: &String| types.contains(&&*typ.to_ascii_lowercase());
        if !head.typ.as_ref().is_none_or(usual) {
            return Err(Fault::Malformed(
                "it is a token for something else than signing in",
            ));
        }
        if head.kid.as_ref().is_some_and(|kid| kid.len() > LONGEST_KID) {
            return Err(Fault::Malformed("the name of its key is too long"));
        }
        let body = decode(body).and_then(|json| serde_json::from_slice::<Value>(&json).ok());
        let Some(Value::Object(claims)) = body else {
            return Err(Fault::Malformed("its claims cannot be read"));
        };
        Ok(Self {
            algorithm: head.alg,
            kid: head.kid,
            claims,
            text: token,
            message,
            signature,
        })
    }

    /// Who says that it signed this.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    /// A time of the token, in seconds since 1970. Fractions are cut off; what is no time that could be is `Err`.
    pub(crate) fn time(&self, name: &str) -> Result<Option<i64>, Fault> {
        let no_time = Fault::Malformed("one of its times is no time");
        match self.claims.get(name) {
            None => Ok(None),
            Some(Value::Number(number)) => {
                let whole = number
                    .as_i64()
                    .or_else(|| number.as_f64().map(|time| time as i64));
                // A year beyond 9999 is a mistake, and sums of it would overflow.
                whole
                    .filter(|time| (0..=253_402_300_799).contains(time))
                    .map_or(Err(no_time), |time| Ok(Some(time)))
            }
            Some(_) => Err(no_time),
        }
    }

    /// Its end (`exp`), in seconds since 1970, if it has one; what is no time is `Err`.
    pub fn end(&self) -> Result<Option<i64>, Fault> {
        self.time("exp")
    }

    /// For whom it is.
    pub fn audiences(&self) -> Vec<&str> {
        match self.claims.get("aud") {
            Some(Value::String(one)) => vec![one],
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn token(head: &Value, body: &str) -> String {
        let head = URL_SAFE_NO_PAD.encode(head.to_string());
        format!("{head}.{}.c2ln", URL_SAFE_NO_PAD.encode(body))
    }

    #[test]
    fn headers_that_ask_for_more_are_refused() {
        let plain = json!({"alg": "ES256", "typ": "JWT", "kid": "a", "jku": "https://evil.example", "jwk": {}, "x5u": "x"});
        let text = token(&plain, r#"{"iss":"i","aud":["a",7,"b"],"exp":1.5}"#);
        assert!(is_jwt(&text));
        let read = Jwt::read(&text).unwrap();
        assert_eq!(
            (read.issuer(), read.audiences()),
            (Some("i"), vec!["a", "b"])
        );
        assert_eq!(
            (read.time("exp"), read.time("nbf")),
            (Ok(Some(1)), Ok(None))
        );
        for (name, value) in [
            ("crit", json!([])),
            ("crit", json!(["b64"])),
            ("typ", json!("logout+jwt")),
            ("typ", json!(7)),
            ("alg", json!(null)),
            ("kid", json!("k".repeat(257))),
            ("kid", json!(["a"])),
        ] {
            let mut head = plain.clone();
            head[name] = value;
            assert!(Jwt::read(&token(&head, "{}")).is_err(), "{head}");
        }
        for body in ["", "[]", "7", "{", "\"x\"", "{\"a\":1}}"] {
            assert!(Jwt::read(&token(&plain, body)).is_err(), "{body}");
        }
        for time in ["-1", "1e300", "9999999999999", "\"1\"", "[1]", "true"] {
            let text = token(&plain, &format!("{{\"exp\":{time}}}"));
            assert!(Jwt::read(&text).unwrap().time("exp").is_err(), "{time}");
        }
        let deep = format!("{{\"a\":{}", "[".repeat(5_000));
        assert!(Jwt::read(&token(&plain, &deep)).is_err());
        assert!(Jwt::read(&"a".repeat(LONGEST_JWT + 1)).is_err());
        for text in ["", "eyJ", "eyJ.a", "eyJ.a.b.c", "a.b.c", "hunter2"] {
            assert!(!is_jwt(text), "{text}");
            assert!(Jwt::read(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_token_or_none(text in "\\PC{0,100}", head in "\\PC{0,60}", body in "\\PC{0,60}") {
            let _ = Jwt::read(&text);
            let both = format!("{}.{}.{text}", URL_SAFE_NO_PAD.encode(&head), URL_SAFE_NO_PAD.encode(&body));
            if let Ok(read) = Jwt::read(&both) {
                let _ = (read.issuer(), read.audiences(), read.time("exp"));
            }
        }
    }
}
