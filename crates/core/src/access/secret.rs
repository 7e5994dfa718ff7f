//! Words that must never be shown, and how new ones are made.

use std::fmt;
use std::fmt::Write as _;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

/// Fewest characters of a chosen administrator password.
pub const SHORTEST_PASSWORD: usize = 8;

/// A secret in clear. Neither `Debug` nor `Display` shows it; [`Password::reveal`] is easy to find in a review.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// Takes a secret in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A new password of 100 random bits in five groups that can be read out, such as `k7qm-x2vd-9fhw-4trp-c6nb`.
    pub fn random() -> Self {
        // Without i, l, o and u: nothing looks like another, and no word comes out.
        const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
        let mut text = String::with_capacity(24);
        for (at, byte) in random_bytes::<20>().into_iter().enumerate() {
            if at > 0 && at % 4 == 0 {
                text.push('-');
            }
            text.push(char::from(LETTERS[usize::from(byte % 32)]));
        }
        Self(text)
    }

    /// The secret itself: to hash it, or to show it to its owner once.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Bytes from the operating system's generator.
///
/// # Panics
/// When the system cannot give randomness: nothing that this module makes would be a secret then.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the operating system gives random bytes");
    bytes
}

/// A new refresh token: `wharf_refresh_<256 random bits>_<checksum>`. The form lets secret scanners find leaked ones;
/// the checksum lets garbage be refused without a look-up.
pub(crate) fn new_refresh_token() -> Password {
    let body = format!("{REFRESH}{}", hex(&random_bytes::<32>()));
    let sum = checksum(&body);
    Password(format!("{body}_{sum}"))
}

const REFRESH: &str = "wharf_refresh_";

/// Whether the text has the form of a refresh token.
pub(crate) fn is_refresh_token(text: &str) -> bool {
    text.rsplit_once('_').is_some_and(|(body, sum)| {
        body.len() == REFRESH.len() + 64 && body.starts_with(REFRESH) && checksum(body) == sum
    })
}

fn checksum(body: &str) -> String {
    hex(&Sha256::digest(body)[..4])
}

/// How a refresh token is kept. It holds 256 random bits, so one round of SHA-256 is enough.
pub(crate) fn stored_form(token: &str) -> Vec<u8> {
    Sha256::digest(token).to_vec()
}

/// How a secret is kept that the registry made for a program, of at least 160 random bits.
pub(crate) fn hash_secret(secret: &Password) -> Vec<u8> {
    stored_form(secret.reveal())
}

/// A name for a row that says nothing of it.
pub(crate) fn random_id() -> String {
    hex(&random_bytes::<8>())
}

/// A short name for a stored password hash, the same as long as the password stays. Says nothing about either.
pub(crate) fn fingerprint(source: &str, name: &str, hash: &str) -> String {
    let mut sha = Sha256::new();
    for part in [source, name, hash] {
        sha.update((part.len() as u64).to_le_bytes());
        sha.update(part);
    }
    format!("{source}.{}", URL_SAFE_NO_PAD.encode(&sha.finalize()[..16]))
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_passwords_come_in_readable_groups_and_differ() {
        let one = Password::random();
        let groups: Vec<_> = one.reveal().split('-').collect();
        assert_eq!(groups.len(), 5);
        assert!(
            groups
                .iter()
                .all(|group| group.len() == 4 && !group.contains(['i', 'l', 'o', 'u']))
        );
        assert_ne!(one, Password::random());
    }

    #[test]
    fn a_password_does_not_show_in_debug() {
        assert!(!format!("{:?}", Password::new("hunter2!")).contains("hunter2"));
    }

    #[test]
    fn refresh_tokens_are_known_by_form_and_checksum() {
        let token = new_refresh_token();
        assert!(is_refresh_token(token.reveal()));
        let last = if token.reveal().ends_with('0') {
            "1"
        } else {
            "0"
        };
        let broken = format!("{}{last}", &token.reveal()[..token.reveal().len() - 1]);
        assert!(!is_refresh_token(&broken));
        assert!(
            !is_refresh_token("")
                && !is_refresh_token("wharf_refresh_")
                && !is_refresh_token("a_b")
        );
    }

    #[test]
    fn fingerprints_differ_by_source_name_and_hash() {
        let all = [
            ("local", "a", "h"),
            ("htpasswd", "a", "h"),
            ("local", "b", "h"),
            ("local", "a", "i"),
            ("local", "ah", ""),
        ];
        for (i, (source, name, hash)) in all.iter().enumerate() {
            for (other_source, other_name, other_hash) in &all[i + 1..] {
                assert_ne!(
                    fingerprint(source, name, hash),
                    fingerprint(other_source, other_name, other_hash)
                );
            }
        }
    }
}
