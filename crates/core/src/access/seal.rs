//! Secrets in the metadata store are sealed with a key that is not in it: who steals the database, or a backup of it, can sign no
//! token.
//!
//! Each sealed value names the key that it needs and is bound to what it is for, so that none can be put in the place of another.
//! Several keys open and the first one seals: that is how a key is replaced while replicas run. Called by `keys.rs` for signing
//! keys; whoever keeps a secret that has to be read again later seals it here.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use wharf_meta::access::workload;
use wharf_meta::{Meta, SECRET_KEY, setting, signing_key};

use super::secret::random_bytes;
use super::tag_view::Places;
use crate::Result;

/// Bytes of a key.
const LENGTH: usize = 32;
/// Bytes of its name.
const NAME: usize = 8;
/// What sealed values begin with; no DER, JSON or PEM does.
const MAGIC: &[u8; 4] = b"\0wk1";

/// A key that seals and opens.
struct SecretKey {
    name: [u8; NAME],
    key: LessSafeKey,
    /// Another key made of it, which authenticates the audit log and nothing else.
    log: hmac::Key,
    /// Another one, which hides places in lists and nothing else.
    places: Arc<LessSafeKey>,
    /// Another one, by which unknown users get the work of a check and nothing else.
    unknown: hmac::Key,
    /// Another one, which hides codes that people type and nothing else.
    codes: hmac::Key,
}

/// Keys from outside the metadata store; the first one seals.
pub struct SecretKeys(Vec<SecretKey>);

/// Why a text holds no keys. Never quotes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretKeysError {
    /// There is none.
    #[error(
        "it holds no key; a key is a line of 32 bytes in base64, as `openssl rand -base64 32` makes it"
    )]
    None,
    /// A line is no key.
    #[error(
        "line {0} is no key: a key is 32 bytes in base64, as `openssl rand -base64 32` makes them"
    )]
    Line(usize),
}

/// Why a value stays closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Closed {
    /// Its key is none of ours.
    #[error("it is sealed with the secret key {0}, which is not given")]
    Key(String),
    /// It is not what was sealed, or for something else.
    #[error("it is damaged")]
    Damaged,
}

/// What to do where the key that is needed is not there.
pub const KEY_CURE: &str = "give the right file (the first start made `secret.key` in its data folder; all replicas need the same one, \
     named by `access.secret_key_file`), or, when the key is lost, begin anew with `wharf admin forget-secrets`: whoever holds a token \
     signs in again";

/// The database belongs to another key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the secrets in the database are sealed with the key {theirs}, and this process has the key {ours}; {KEY_CURE}"
)]
pub struct OtherKey {
    theirs: String,
    ours: String,
}

/// What to do about the key that a database names.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Ours,
    /// One of those that still open.
    Earlier,
    Unknown,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl SecretKey {
    fn new(bytes: [u8; LENGTH]) -> Option<Self> {
        let digest = Sha256::new()
            .chain_update(b"the name of a secret key\0")
            .chain_update(bytes)
            .finalize();
        let mut name = [0; NAME];
        name.copy_from_slice(&digest[..NAME]);
        let key = UnboundKey::new(&AES_256_GCM, &bytes).ok()?;
        let log = hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        let places = hmac::sign(&log, b"wharf places in lists 1");
        let unknown = hmac::sign(&log, b"wharf unknown users 1");
        let codes = hmac::sign(&log, b"wharf codes of devices 1");
        let log = hmac::sign(&log, b"wharf audit log 1");
        Some(Self {
            name,
            key: LessSafeKey::new(key),
            log: hmac::Key::new(hmac::HMAC_SHA256, log.as_ref()),
            places: Arc::new(LessSafeKey::new(
                UnboundKey::new(&AES_256_GCM, places.as_ref()).ok()?,
            )),
            unknown: hmac::Key::new(hmac::HMAC_SHA256, unknown.as_ref()),
            codes: hmac::Key::new(hmac::HMAC_SHA256, codes.as_ref()),
        })
    }
}

impl fmt::Debug for SecretKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|key| hex(&key.name)))
            .finish()
    }
}

impl SecretKeys {
    /// One key a line; empty lines and lines that begin with `#` count for nothing.
    pub fn parse(text: &str) -> std::result::Result<Self, SecretKeysError> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let bytes = STANDARD.decode(line).ok().and_then(|b| b.try_into().ok());
            let key = bytes.and_then(SecretKey::new);
            keys.push(key.ok_or(SecretKeysError::Line(number + 1))?);
        }
        match keys.is_empty() {
            true => Err(SecretKeysError::None),
            false => Ok(Self(keys)),
        }
    }

    /// A key that everybody can read here, for tests.
    #[doc(hidden)]
    pub fn of_tests() -> Self {
        SecretKey::new([7; LENGTH]).map_or_else(|| Self(Vec::new()), |key| Self(vec![key]))
    }

    /// The text of a new key.
    pub fn make() -> String {
        STANDARD.encode(random_bytes::<LENGTH>())
    }

    /// The name of the key that seals: tells nothing about it.
    pub fn name(&self) -> String {
        hex(&self.0[0].name)
    }

    /// The keys of the audit log; the first one signs.
    pub(crate) fn of_log(&self) -> Vec<hmac::Key> {
        self.0.iter().map(|key| key.log.clone()).collect()
    }

    /// What hides places in lists.
    pub(crate) fn of_places(&self) -> Places {
        Places::new(self.0.iter().map(|key| key.places.clone()).collect())
    }

    /// By what the work for unknown users is chosen: replicas that chose each its own, and each start anew, would tell them.
    pub(crate) fn of_unknown(&self) -> hmac::Key {
        self.0[0].unknown.clone()
    }

    /// What hides codes that people type, the same on all replicas.
    pub(crate) fn of_codes(&self) -> hmac::Key {
        self.0[0].codes.clone()
    }

    fn standing(&self, name: &str) -> Standing {
        match self.0.iter().position(|key| hex(&key.name) == name) {
            Some(0) => Standing::Ours,
            Some(_) => Standing::Earlier,
            None => Standing::Unknown,
        }
    }

    /// Whether they open what is sealed with the key of that name.
    pub fn expect(&self, theirs: &str) -> std::result::Result<(), OtherKey> {
        match self.standing(theirs) {
            Standing::Ours | Standing::Earlier => Ok(()),
            Standing::Unknown => Err(OtherKey {
                theirs: theirs.to_owned(),
                ours: self.name(),
            }),
        }
    }

    /// Seals a value for one purpose, for example `signing-key/<kid>`.
    pub(crate) fn seal(&self, purpose: &str, value: &[u8]) -> Result<Vec<u8>> {
        let key = &self.0[0];
        let nonce = random_bytes::<NONCE_LEN>();
        let mut sealed = [MAGIC, &key.name[..], &nonce[..]].concat();
        let mut body = value.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let done =
            key.key
                .seal_in_place_append_tag(nonce, Aad::from(purpose.as_bytes()), &mut body);
        done.map_err(|_| crate::Error::Internal("a secret could not be sealed".into()))?;
        sealed.append(&mut body);
        Ok(sealed)
    }

    /// The value again. What an older version kept in clear is given back as it is.
    pub(crate) fn open(&self, purpose: &str, kept: &[u8]) -> std::result::Result<Vec<u8>, Closed> {
        let Some(sealed) = kept.strip_prefix(MAGIC) else {
            return Ok(kept.to_vec());
        };
        let (name, rest) = sealed.split_at_checked(NAME).ok_or(Closed::Damaged)?;
        let (nonce, body) = rest.split_at_checked(NONCE_LEN).ok_or(Closed::Damaged)?;
        let key = self.0.iter().find(|key| key.name == name);
        let key = key.ok_or_else(|| Closed::Key(hex(name)))?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Closed::Damaged)?;
        let mut body = body.to_vec();
        let purpose = Aad::from(purpose.as_bytes());
        let value = key.key.open_in_place(nonce, purpose, &mut body);
        value
            .map(|value| value.to_vec())
            .map_err(|_| Closed::Damaged)
    }

    /// The value of what came from outside, where nothing in clear is believed.
    pub(crate) fn open_sealed(&self, purpose: &str, given: &[u8]) -> Option<Vec<u8>> {
        given.starts_with(MAGIC).then_some(())?;
        self.open(purpose, given).ok()
    }

    /// Whether the value is sealed with the key that seals now.
    pub(crate) fn is_sealed_now(&self, kept: &[u8]) -> bool {
        let sealed = kept.strip_prefix(MAGIC);
        sealed.is_some_and(|sealed| sealed.starts_with(&self.0[0].name))
    }
}

/// What the signing key of that name is sealed for.
pub(crate) fn purpose(kid: &str) -> String {
    format!("signing-key/{kid}")
}

/// Makes sure that the database's secrets can be opened, and are sealed with the first key: once, at a start. What another key
/// sealed is never forgotten by itself: that key may only have been left out this time.
pub(super) async fn settle(meta: &Meta, keys: &SecretKeys) -> Result<(), super::AccessError> {
    let ours = keys.name();
    let ensure = setting::Ensure {
        key: SECRET_KEY.to_owned(),
        value: ours.clone(),
    };
    let theirs = meta.write(ensure).await.map_err(crate::Error::from)?;
    match keys.standing(&theirs) {
        Standing::Ours => {}
        Standing::Earlier => tracing::info!(
            from = theirs,
            to = ours,
            "the secrets in the database are sealed with the new secret key"
        ),
        Standing::Unknown => return Err(OtherKey { theirs, ours }.into()),
    }
    reseal(meta, keys).await?;
    if theirs != ours {
        let put = setting::Put {
            key: SECRET_KEY.to_owned(),
            value: ours,
        };
        meta.write(put).await.map_err(crate::Error::from)?;
    }
    Ok(())
}

/// What is in clear, since an older version kept it so, or sealed with an earlier key, is sealed with the first one.
async fn reseal(meta: &Meta, keys: &SecretKeys) -> Result<()> {
    for row in meta.read(signing_key::List).await? {
        if keys.is_sealed_now(&row.private_der) {
            continue;
        }
        let purpose = purpose(&row.kid);
        match keys.open(&purpose, &row.private_der) {
            Ok(value) => {
                let reseal = signing_key::Reseal {
                    kid: row.kid,
                    from: row.private_der,
                    to: keys.seal(&purpose, &value)?,
                };
                meta.write(reseal).await?;
            }
            // Left out and told where it would be used.
            Err(closed) => tracing::debug!(kid = row.kid, %closed, "a signing key stays closed"),
        }
    }
    for row in issuers(meta).await? {
        let Some(secret) = row.secret.filter(|secret| !keys.is_sealed_now(secret)) else {
            continue;
        };
        let purpose = crate::workload::purpose(&row.name);
        if let Ok(value) = keys.open(&purpose, &secret) {
            let reseal = workload::Reseal {
                name: row.name,
                to: Some(keys.seal(&purpose, &value)?),
                from: secret,
            };
            meta.write(reseal).await?;
        }
    }
    Ok(())
}

/// All issuers of tokens of workloads.
async fn issuers(meta: &Meta) -> Result<Vec<workload::IssuerRow>> {
    let mut all: Vec<workload::IssuerRow> = Vec::new();
    loop {
        let after = all.last().map_or_else(String::new, |row| row.name.clone());
        let page = meta.scan(workload::Issuers { after, limit: 100 }).await?;
        if page.is_empty() {
            return Ok(all);
        }
        all.extend(page);
    }
}

/// Forgets every sealed secret and the key that they were sealed with. Tokens that were signed end with it.
pub async fn forget(meta: &Meta) -> Result<()> {
    for row in meta.read(signing_key::List).await? {
        if row.private_der.starts_with(MAGIC) {
            meta.write(signing_key::Remove { kid: row.kid }).await?;
        }
    }
    for row in issuers(meta).await? {
        if let Some(from) = row.secret.filter(|secret| secret.starts_with(MAGIC)) {
            let (name, to) = (row.name, None);
            meta.write(workload::Reseal { name, from, to }).await?;
        }
    }
    meta.write(setting::Remove {
        key: SECRET_KEY.to_owned(),
    })
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys(texts: &[&str]) -> SecretKeys {
        SecretKeys::parse(&texts.join("\n")).unwrap()
    }

    #[test]
    fn a_file_of_keys_is_read_and_a_bad_line_is_named_without_quoting_it() {
        let (one, two) = (SecretKeys::make(), SecretKeys::make());
        let read = SecretKeys::parse(&format!("# new\n{one}\n\n  {two}  \n")).unwrap();
        assert_eq!(read.name(), keys(&[&one]).name());
        assert_eq!(read.standing(&keys(&[&two]).name()), Standing::Earlier);
        assert_eq!(
            SecretKeys::parse("# nothing\n").unwrap_err(),
            SecretKeysError::None
        );
        let error = SecretKeys::parse(&format!("{one}\nhunter2")).unwrap_err();
        assert_eq!(error, SecretKeysError::Line(2));
        assert!(!error.to_string().contains("hunter2"));
        assert!(!format!("{read:?}").contains(&one[..8]));
    }

    #[test]
    fn what_is_sealed_says_nothing_and_two_seals_differ() {
        let keys = keys(&[&SecretKeys::make()]);
        let sealed = keys.seal("a", b"private").unwrap();
        assert!(!sealed.windows(7).any(|part| part == b"private"));
        assert_ne!(sealed, keys.seal("a", b"private").unwrap());
    }

    proptest! {
        #[test]
        fn only_its_key_and_its_purpose_open_a_value(
            value in prop::collection::vec(any::<u8>(), 0..300), purpose in ".{0,20}", at in any::<prop::sample::Index>(), bit in 0..8u8,
        ) {
            let (old, new) = (SecretKeys::make(), SecretKeys::make());
            let before = keys(&[&old]);
            let sealed = before.seal(&purpose, &value).unwrap();
            let both = keys(&[&new, &old]);
            prop_assert_eq!(both.open(&purpose, &sealed), Ok(value.clone()));
            prop_assert!(!both.is_sealed_now(&sealed) && before.is_sealed_now(&sealed));
            prop_assert_eq!(keys(&[&new]).open(&purpose, &sealed), Err(Closed::Key(before.name())));
            prop_assert_eq!(both.open(&format!("{purpose}x"), &sealed), Err(Closed::Damaged));
            // Any flipped bit behind the magic word, and any cut.
            let mut damaged = sealed.clone();
            let at = MAGIC.len() + at.index(sealed.len() - MAGIC.len());
            damaged[at] ^= 1 << bit;
            prop_assert!(both.open(&purpose, &damaged).is_err());
            prop_assert!(both.open(&purpose, &sealed[..at]).is_err());
        }

        #[test]
        fn what_was_kept_in_clear_comes_back(value in prop::collection::vec(1..=255u8, 0..100)) {
            prop_assert_eq!(keys(&[&SecretKeys::make()]).open("x", &value), Ok(value));
        }
    }
}
