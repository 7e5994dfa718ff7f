//! The keys that sign tokens: made here, kept in the metadata store, sealed, one signing and the retired ones still trusted
//! until every token that they signed has ended.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use arc_swap::ArcSwap;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::{Jwk, ThumbprintHash};
use jsonwebtoken::{DecodingKey, EncodingKey};

use super::seal::{SecretKeys, purpose};
use super::store::{Secrets, SigningKeyRow};
use super::token::{ALGORITHM, ALGORITHM_NAME};
use crate::{Error, Result};

/// A key that is not known is looked for at most this often, in ms: made-up names must not cost a query each.
const LOOK_AGAIN_MS: i64 = 5_000;

/// The key that signs.
pub(crate) struct Signer {
    pub(crate) kid: String,
    pub(crate) key: EncodingKey,
    created_at: i64,
}

struct Trusted {
    key: Arc<DecodingKey>,
    /// In ms since 1970; `None` while the key signs.
    until: Option<i64>,
}

struct Ring {
    signer: Arc<Signer>,
    trusted: HashMap<String, Trusted>,
}

/// Our keys.
pub(crate) struct Keyring {
    secrets: Arc<dyn Secrets>,
    sealing: Arc<SecretKeys>,
    /// After how many ms another key takes over.
    rotation: i64,
    /// How many ms a retired key is trusted: as long as a token that it signed can be of use.
    overlap: i64,
    ring: ArcSwap<Ring>,
    looked: AtomicI64,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("signer", &self.ring.load().signer.kid)
            .finish_non_exhaustive()
    }
}

impl Keyring {
    /// Takes the keys from the store and makes the first one if there is none.
    pub(crate) async fn open(
        secrets: Arc<dyn Secrets>,
        sealing: Arc<SecretKeys>,
        rotation: i64,
        overlap: i64,
        now: i64,
    ) -> Result<Self> {
        let ring = load(&*secrets, &sealing, rotation, overlap, now).await?;
        Ok(Self {
            secrets,
            sealing,
            rotation,
            overlap,
            ring: ArcSwap::from_pointee(ring),
            // Another one that started in the same moment may have made a key that this one did not see.
            looked: AtomicI64::new(now.saturating_sub(LOOK_AGAIN_MS)),
        })
    }

    /// Lets another key take over when the present one is old enough. Cheap while it is not.
    pub(crate) async fn upkeep(&self, now: i64) -> Result<()> {
        if now - self.ring.load().signer.created_at >= self.rotation {
            self.ring.store(Arc::new(self.load(now).await?));
        }
        Ok(())
    }

    async fn load(&self, now: i64) -> Result<Ring> {
        load(
            &*self.secrets,
            &self.sealing,
            self.rotation,
            self.overlap,
            now,
        )
        .await
    }

    pub(crate) fn signer(&self) -> Arc<Signer> {
        self.ring.load().signer.clone()
    }

    /// Whether tokens of that key are accepted.
    pub(crate) fn trusts(&self, kid: &str, now: i64) -> bool {
        self.ring
            .load()
            .trusted
            .get(kid)
            .is_some_and(|key| key.until.is_none_or(|until| now < until))
    }

    /// The key of exactly that name, if it is trusted. Another replica may have made it a moment ago.
    pub(crate) async fn find(&self, kid: &str, now: i64) -> Result<Option<Arc<DecodingKey>>> {
        if !self.ring.load().trusted.contains_key(kid) {
            let looked = self.looked.load(Ordering::Relaxed);
            let due = now - looked >= LOOK_AGAIN_MS || now < looked;
            if due
                && self
                    .looked
                    .compare_exchange(looked, now, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok()
            {
                self.ring.store(Arc::new(self.load(now).await?));
            }
        }
        let ring = self.ring.load();
        let key = ring.trusted.get(kid).filter(|_| self.trusts(kid, now));
        Ok(key.map(|key| key.key.clone()))
    }
}

/// Reads the keys, adds one when none is young enough to sign, and retires those that are too old to.
async fn load(
    secrets: &dyn Secrets,
    sealing: &SecretKeys,
    rotation: i64,
    overlap: i64,
    now: i64,
) -> Result<Ring> {
    let mut keys = secrets.signing_keys().await?;
    keys.retain(|key| key.algorithm == ALGORITHM_NAME);
    keys.retain_mut(|key| match sealing.open(&purpose(&key.kid), &key.private_der) {
        Ok(der) => {
            key.private_der = der;
            true
        }
        Err(closed) => {
            tracing::error!(kid = key.kid, %closed, "a signing key cannot be opened and is left out");
            false
        }
    });
    let mut trusted = HashMap::new();
    keys.retain(|key| match public_part(&key.private_der) {
        Ok((_, public)) => {
            trusted.insert(
                key.kid.clone(),
                Trusted {
                    key: Arc::new(public),
                    until: None,
                },
            );
            true
        }
        Err(error) => {
            tracing::error!(kid = key.kid, %error, "a signing key cannot be read and is left out");
            false
        }
    });
    let signs = |key: &SigningKeyRow| key.retired_at.is_none() && now - key.created_at < rotation;
    if !keys.iter().any(signs) {
        let (made, public) = make(now)?;
        let kept = SigningKeyRow {
            private_der: sealing.seal(&purpose(&made.kid), &made.private_der)?,
            ..made.clone()
        };
        match secrets.add_signing_key(kept).await {
            Ok(()) => {
                trusted.insert(
                    made.kid.clone(),
                    Trusted {
                        key: Arc::new(public),
                        until: None,
                    },
                );
                keys.push(made);
            }
            // A disk that takes no key is no reason to turn everybody away: the one before goes on, and is due at the
            // next look.
            Err(error) => return old_ring(keys, trusted).ok_or(error),
        }
    }
    for key in &keys {
        if key.retired_at.is_none() && !signs(key) {
            // What cannot be written down now is at the next start or rotation.
            if let Err(error) = secrets.retire_signing_key(&key.kid, now).await {
                tracing::warn!(kid = key.kid, %error, "a signing key could not be retired");
            }
        }
        if !signs(key)
            && let Some(trusted) = trusted.get_mut(&key.kid)
        {
            trusted.until = Some(key.retired_at.unwrap_or(now).saturating_add(overlap));
        }
    }
    trusted.retain(|_, key| key.until.is_none_or(|until| now < until));
    // A whole rotation more than its tokens last: a clock that jumps for some hours deletes nothing.
    let before = now.saturating_sub(overlap).saturating_sub(rotation);
    let spent = |key: &SigningKeyRow| key.retired_at.is_some_and(|at| at < before);
    if keys.iter().any(spent)
        && let Err(error) = secrets.forget_signing_keys(before).await
    {
        tracing::warn!(%error, "old signing keys could not be removed; trying again at the next rotation");
    }
    // Two processes that start together may both have made a key; both choose the same.
    let newest = keys
        .iter()
        .filter(|key| signs(key))
        .max_by_key(|key| (key.created_at, key.kid.clone()));
    let newest =
        newest.ok_or_else(|| Error::Internal("there is no key that signs tokens".into()))?;
    Ok(ring(newest, trusted))
}

fn ring(signer: &SigningKeyRow, trusted: HashMap<String, Trusted>) -> Ring {
    Ring {
        signer: Arc::new(Signer {
            kid: signer.kid.clone(),
            key: EncodingKey::from_ec_der(&signer.private_der),
            created_at: signer.created_at,
        }),
        trusted,
    }
}

/// With the youngest key that was not retired, whatever its age.
fn old_ring(keys: Vec<SigningKeyRow>, trusted: HashMap<String, Trusted>) -> Option<Ring> {
    let newest = keys
        .iter()
        .filter(|key| key.retired_at.is_none())
        .max_by_key(|key| (key.created_at, key.kid.clone()))?;
    tracing::error!(
        kid = newest.kid,
        "no new signing key can be stored; the old one goes on signing"
    );
    Some(ring(newest, trusted))
}

fn make(now: i64) -> Result<(SigningKeyRow, DecodingKey)> {
    let document =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .map_err(|_| Error::Internal("a signing key could not be made".into()))?;
    let (kid, public) = public_part(document.as_ref())?;
    let key = SigningKeyRow {
        kid,
        algorithm: ALGORITHM_NAME.into(),
        private_der: document.as_ref().to_vec(),
        created_at: now,
        retired_at: None,
    };
    Ok((key, public))
}

/// The thumbprint (RFC 7638) and the public key of a private one.
fn public_part(private_der: &[u8]) -> Result<(String, DecodingKey)> {
    let jwk = Jwk::from_encoding_key(&EncodingKey::from_ec_der(private_der), ALGORITHM);
    let parts = jwk.and_then(|jwk| {
        Ok((
            jwk.thumbprint(ThumbprintHash::SHA256)?,
            DecodingKey::from_jwk(&jwk)?,
        ))
    });
    parts.map_err(|error| Error::Internal(format!("a signing key is damaged: {error}")))
}
