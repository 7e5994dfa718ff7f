//! Secrets that the registry makes for programs: `wharf_<kind>_<random>_<checksum>`.
//!
//! The form lets secret scanners find leaked ones, and the checksum lets anybody tell a typing error from a secret without
//! a look-up. The random part holds 190 bits, so nobody guesses it, and one round of SHA-256 is enough to keep it: no
//! pull waits for a slow hash.

use super::secret::{Password, random_bytes};

/// The digits of base 62, as in the checksums of other makers' tokens.
const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Characters of the random part: 32 × log2(62) = 190 bits.
const RANDOM: usize = 32;
/// Characters of the random part that a terminal's refresh tokens share: 59 bits, so that nobody comes upon another's, and 131 bits are
/// left to each.
const FAMILY: usize = 10;
/// Characters of the checksum: 2^32 < 62^6.
const CHECKSUM: usize = 6;

/// What a secret is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SecretKind {
    /// An API token of a user.
    Token,
    /// A secret of a robot.
    Robot,
    /// What the link of an invitation says; nobody signs in with it.
    Invitation,
    /// What a browser's cookie says; nobody signs in to anything else with it.
    Session,
    /// What a program polls with while it waits to be let in; nobody signs in to anything else with it.
    Device,
    /// A refresh token of a terminal.
    Terminal,
}

impl SecretKind {
    /// The word in the secret and in its row.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Robot => "robot",
            Self::Invitation => "invitation",
            Self::Session => "session",
            Self::Device => "device",
            Self::Terminal => "terminal",
        }
    }
}

/// A new secret.
pub(crate) fn new_secret(kind: SecretKind) -> Password {
    let mut text = format!("wharf_{}_", kind.as_str());
    let whole = text.len() + RANDOM;
    while text.len() < whole {
        for byte in random_bytes::<RANDOM>() {
            // 248 is the largest multiple of 62 in a byte: beyond, some digits would come more often than others.
            if byte < 248 && text.len() < whole {
                text.push(char::from(DIGITS[usize::from(byte % 62)]));
            }
        }
    }
    let sum = checksum(&text);
    Password::new(format!("{text}_{sum}"))
}

/// Another secret of a terminal's family: it shares the first [`FAMILY`] characters with all others of it.
pub(crate) fn next_secret(of: &Password) -> Password {
    let new = new_secret(SecretKind::Terminal);
    let body = new.reveal().rsplit_once('_').map_or("", |(body, _)| body);
    let own = body.get(family_length()..).unwrap_or_default();
    let body = format!("{}{own}", family_of(of.reveal()).unwrap_or_default());
    let sum = checksum(&body);
    Password::new(format!("{body}_{sum}"))
}

/// What all secrets of a terminal's family begin with; `None`: it is no terminal's.
pub(crate) fn family_of(secret: &str) -> Option<&str> {
    let is_one = form(secret) == Form::Whole && secret.starts_with("wharf_terminal_");
    secret.get(..family_length()).filter(|_| is_one)
}

const fn family_length() -> usize {
    "wharf_terminal_".len() + FAMILY
}

/// What a text is that may be a secret of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Something else, such as a password.
    Other,
    /// One of ours that was cut, changed or made up.
    Broken,
    /// It has the form, and may be known.
    Whole,
}

/// Whether the text is one of our secrets, whole or broken.
pub(crate) fn is_secret(text: &str) -> bool {
    form(text) != Form::Other
}

/// Tells by the form alone.
pub(crate) fn form(text: &str) -> Form {
    let kinds = [
        SecretKind::Token,
        SecretKind::Robot,
        SecretKind::Invitation,
        SecretKind::Session,
        SecretKind::Device,
        SecretKind::Terminal,
    ];
    let ours = |kind: SecretKind| {
        let rest = text.strip_prefix("wharf_")?;
        rest.strip_prefix(kind.as_str())?.strip_prefix('_')
    };
    let Some(rest) = kinds.into_iter().find_map(ours) else {
        return Form::Other;
    };
    let whole = rest.len() == RANDOM + 1 + CHECKSUM
        && text
            .rsplit_once('_')
            .is_some_and(|(body, sum)| checksum(body) == sum);
    if whole { Form::Whole } else { Form::Broken }
}

/// CRC-32 as in zip and gzip, in base 62.
fn checksum(body: &str) -> String {
    let mut crc = u32::MAX;
    for byte in body.bytes() {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    crc = !crc;
    let mut digits = [b'0'; CHECKSUM];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(crc % 62) as usize];
        crc /= 62;
    }
    digits.into_iter().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_known_by_its_form_and_every_change_breaks_it() {
        for kind in [SecretKind::Token, SecretKind::Robot, SecretKind::Invitation] {
            let secret = new_secret(kind);
            let text = secret.reveal();
            assert!(text.starts_with(&format!("wharf_{}_", kind.as_str())));
            assert_eq!(form(text), Form::Whole);
            assert_ne!(secret, new_secret(kind));
            let start = format!("wharf_{}_", kind.as_str()).len();
            for at in start..text.len() {
                let mut bytes = text.as_bytes().to_vec();
                bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
                assert_eq!(
                    form(&String::from_utf8(bytes).unwrap()),
                    Form::Broken,
                    "{at}"
                );
                assert_eq!(form(&text[..at]), Form::Broken, "{at}");
            }
            assert_eq!(form(&format!("{text}0")), Form::Broken);
        }
        let refresh = super::super::secret::new_refresh_token();
        for other in [
            "",
            "hunter2",
            "wharf_",
            "wharf_tokenless",
            "WHARF_token_x",
            refresh.reveal(),
        ] {
            assert_eq!(form(other), Form::Other, "{other}");
        }
        assert_eq!(form("wharf_token_"), Form::Broken);
        assert_eq!(form("wharf_robot_ü"), Form::Broken);
    }

    #[test]
    fn a_family_shares_its_beginning_and_nothing_else() {
        let first = new_secret(SecretKind::Terminal);
        let (next, other) = (next_secret(&first), new_secret(SecretKind::Terminal));
        assert_eq!(form(next.reveal()), Form::Whole);
        assert_eq!(family_of(next.reveal()), family_of(first.reveal()));
        assert_ne!(family_of(other.reveal()), family_of(first.reveal()));
        assert_ne!(first, next);
        let shared = first.reveal().bytes().zip(next.reveal().bytes());
        let shared = shared.take_while(|(one, other)| one == other).count();
        assert!((25..32).contains(&shared), "{shared}");
        let token = new_secret(SecretKind::Token);
        for other in ["", "wharf_terminal_", "wharf_terminal_ä", token.reveal()] {
            assert_eq!(family_of(other), None, "{other}");
        }
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        // CRC-32 of "123456789" is 0xCBF43926 in every table of test vectors.
        let mut value = 0xCBF4_3926_u32;
        let mut digits = Vec::new();
        for _ in 0..6 {
            digits.insert(0, char::from(DIGITS[(value % 62) as usize]));
            value /= 62;
        }
        assert_eq!(
            checksum("123456789"),
            digits.into_iter().collect::<String>()
        );
    }

    #[test]
    fn every_digit_comes_equally_often() {
        let mut seen = [0_u32; 62];
        for _ in 0..1_000 {
            let secret = new_secret(SecretKind::Token);
            let random = secret.reveal()["wharf_token_".len()..].split('_').next();
            for byte in random.unwrap().bytes() {
                seen[DIGITS.iter().position(|digit| *digit == byte).unwrap()] += 1;
            }
        }
        // 516 on average; eight standard deviations are 180.
        assert!(
            seen.iter().all(|count| (336..696).contains(count)),
            "{seen:?}"
        );
    }
}
