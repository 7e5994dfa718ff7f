//! Which passwords people may choose: long enough, and not among those that are tried first.
//!
//! No rules about kinds of characters: they make passwords harder to remember, not to guess (NIST SP 800-63B §3.1.1).

use super::machine_secret::{Form, form};
use super::secret::{Password, SHORTEST_PASSWORD};

/// Most characters: more are a mistake, and cost time to hash.
pub const LONGEST_PASSWORD: usize = 256;

/// Those that lists of leaked passwords begin with, of [`SHORTEST_PASSWORD`] characters and more, in lower case.
const COMMON: &str = include_str!("common_passwords.txt");

/// Why a password will not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordRule {
    /// Too few characters.
    #[error("the password needs at least {SHORTEST_PASSWORD} characters")]
    Short,
    /// Too many.
    #[error("the password has more than {LONGEST_PASSWORD} characters")]
    Long,
    /// On the list, or the same few characters again and again.
    #[error(
        "the password is one of those that are tried first; choose another, or let one be made"
    )]
    Common,
    /// The user's name, or little more.
    #[error(
        "the password holds little more than the user's name; choose another, or let one be made"
    )]
    Name,
    /// Made by a registry, for a program.
    #[error("that is the form of an API token or a robot's secret, which no password may have")]
    Secret,
}

/// Whether the user of that name may have this password.
pub fn check_password(name: &str, password: &Password) -> Result<(), PasswordRule> {
    let text = password.reveal();
    let length = text.chars().count();
    if length < SHORTEST_PASSWORD {
        return Err(PasswordRule::Short);
    }
    if length > LONGEST_PASSWORD {
        return Err(PasswordRule::Long);
    }
    if form(text) != Form::Other {
        return Err(PasswordRule::Secret);
    }
    let lower = text.to_lowercase();
    let mut different: Vec<char> = lower.chars().collect();
    different.sort_unstable();
    different.dedup();
    if different.len() < 4 || COMMON.lines().any(|common| common == lower) {
        return Err(PasswordRule::Common);
    }
    let name = name.to_lowercase();
    let rest = lower.replacen(&name, "", 1);
    if lower.contains(&name) && rest.chars().count() < 4 {
        return Err(PasswordRule::Name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_first_is_refused() {
        let check = |password: &str| check_password("wilhelmina", &Password::new(password));
        for (password, rule) in [
            ("", PasswordRule::Short),
            ("hunter2", PasswordRule::Short),
            ("ÄÖÜäöüß", PasswordRule::Short),
            ("password", PasswordRule::Common),
            ("Password1", PasswordRule::Common),
            ("QWERTYUIOP", PasswordRule::Common),
            ("aaaaaaaaaaaaaaaa", PasswordRule::Common),
            ("1212121212", PasswordRule::Common),
            ("wilhelmina", PasswordRule::Name),
            ("Wilhelmina12", PasswordRule::Name),
        ] {
            assert_eq!(check(password), Err(rule), "{password}");
        }
        assert_eq!(check(&"ab1!".repeat(65)), Err(PasswordRule::Long));
        let secret = super::super::machine_secret::new_secret(
            super::super::machine_secret::SecretKind::Token,
        );
        assert_eq!(check_password("a", &secret), Err(PasswordRule::Secret));
        for good in [
            "correct horse battery staple",
            "wilhelmina and the 7",
            "ÄÖÜäöüß!",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        assert_eq!(check_password("a", &Password::random()), Ok(()));
    }

    #[test]
    fn the_list_holds_only_what_length_lets_through() {
        let mut seen = std::collections::HashSet::new();
        for line in COMMON.lines() {
            assert!(line.chars().count() >= SHORTEST_PASSWORD, "{line}");
            assert_eq!(line, line.to_lowercase());
            assert!(seen.insert(line), "{line} twice");
        }
        assert!(seen.len() >= 200, "{}", seen.len());
    }
}
