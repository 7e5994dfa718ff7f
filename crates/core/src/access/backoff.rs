//! Guessing passwords costs more with each wrong guess, for one account from one address.
//!
//! Both together, so that nobody can lock another out: whoever guesses elsewhere slows down nobody but themselves. A
//! password that was tried before counts once, however often it comes: a node that retries at once with an old password
//! is no guesser. Asked by `authenticate` before a password is checked, never when it is known to be right.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use quick_cache::sync::Cache;

use super::network::one_client;
use super::secret::random_bytes;

/// So many different wrong passwords cost nothing.
const FREE: u32 = 5;
/// The longest wait, in ms.
const LONGEST: i64 = 15 * 60_000;
/// After so long without a guess all is forgotten, in ms.
const FORGET: i64 = 60 * 60_000;
/// So many passwords are known again.
const KNOWN: usize = 8;
/// So many pairs of account and address are watched.
const WATCHED: usize = 20_000;

type Key = [u8; 32];

#[derive(Debug, Default)]
struct Guesses {
    count: u32,
    last: i64,
    until: i64,
    known: Vec<Key>,
}

/// The watch over wrong passwords. One per process.
pub(crate) struct Backoff {
    key: hmac::Key,
    pairs: Cache<Key, Arc<Mutex<Guesses>>>,
}

impl std::fmt::Debug for Backoff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backoff(..)")
    }
}

/// A guess that was let through.
#[derive(Debug)]
pub(crate) struct Guess {
    pair: Key,
    password: Key,
    counted: bool,
}

impl Backoff {
    pub(crate) fn new() -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &random_bytes::<32>()),
            pairs: Cache::new(WATCHED),
        }
    }

    /// Lets a password be checked, or says how long to wait. It counts as wrong until told otherwise, so that guesses
    /// that come together are no cheaper.
    pub(crate) fn begin(
        &self,
        account: &str,
        address: Option<IpAddr>,
        password: &str,
        now: i64,
    ) -> Result<Guess, Duration> {
        let pair = self.digest(&[account.as_bytes(), &place(address)]);
        let password = self.digest(&[&pair, password.as_bytes()]);
        let made: Result<_, std::convert::Infallible> =
            self.pairs.get_or_insert_with(&pair, || Ok(Arc::default()));
        let Ok(guesses) = made;
        let mut guesses = guesses.lock().unwrap_or_else(PoisonError::into_inner);
        // The second half matters when the clock was set back.
        if now.saturating_sub(guesses.last) >= FORGET || guesses.last > now.saturating_add(FORGET) {
            *guesses = Guesses::default();
        }
        if guesses.known.contains(&password) {
            let counted = false;
            return Ok(Guess {
                pair,
                password,
                counted,
            });
        }
        if guesses.until > now {
            return Err(Duration::from_millis((guesses.until - now).unsigned_abs()));
        }
        guesses.last = now;
        guesses.count = guesses.count.saturating_add(1);
        if guesses.count >= FREE {
            let wait = 1_000_i64.saturating_mul(1 << (guesses.count - FREE).min(20));
            guesses.until = now.saturating_add(wait.min(LONGEST));
        }
        if guesses.known.len() == KNOWN {
            guesses.known.remove(0);
        }
        guesses.known.push(password);
        Ok(Guess {
            pair,
            password,
            counted: true,
        })
    }

    /// The password was right: all is forgotten.
    pub(crate) fn right(&self, guess: &Guess) {
        self.pairs.remove(&guess.pair);
    }

    /// The password was not looked at.
    pub(crate) fn withdraw(&self, guess: &Guess) {
        if guess.counted
            && let Some(guesses) = self.pairs.get(&guess.pair)
        {
            let mut guesses = guesses.lock().unwrap_or_else(PoisonError::into_inner);
            guesses.count = guesses.count.saturating_sub(1);
            guesses.until = 0;
            guesses.known.retain(|known| *known != guess.password);
        }
    }

    fn digest(&self, parts: &[&[u8]]) -> Key {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&(part.len() as u64).to_le_bytes());
            context.update(part);
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.sign().as_ref());
        key
    }
}

/// [`one_client`] as bytes.
fn place(address: Option<IpAddr>) -> Vec<u8> {
    match address.map(one_client) {
        None => Vec::new(),
        Some(IpAddr::V4(address)) => address.octets().to_vec(),
        Some(IpAddr::V6(network)) => network.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_219_200_000;

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    /// Guesses on until it has to wait, and gives for how many ms.
    fn guess(backoff: &Backoff, from: &str, start: u32, now: i64) -> (u32, u128) {
        for number in start.. {
            match backoff.begin("alice", address(from), &format!("guess {number}"), now) {
                Ok(_) => {}
                Err(wait) => return (number - start, wait.as_millis()),
            }
        }
        unreachable!()
    }

    #[test]
    fn each_guess_beyond_the_first_few_costs_twice_the_wait() {
        let backoff = Backoff::new();
        assert_eq!(guess(&backoff, "10.0.0.1", 0, NOW), (5, 1_000));
        let mut now = NOW;
        for (number, wait) in [(5, 2_000), (6, 4_000), (7, 8_000), (8, 16_000)] {
            now += wait as i64 / 2;
            assert_eq!(guess(&backoff, "10.0.0.1", number, now), (1, wait));
        }
        for number in 9..40 {
            now += LONGEST;
            let (guesses, wait) = guess(&backoff, "10.0.0.1", number, now);
            assert!(guesses == 1 && wait <= LONGEST as u128);
        }
        assert_eq!(guess(&backoff, "10.0.0.1", 99, now + FORGET).0, 5);
    }

    #[test]
    fn nobody_locks_another_out() {
        let backoff = Backoff::new();
        guess(&backoff, "10.0.0.1", 0, NOW);
        assert!(
            backoff
                .begin("alice", address("10.0.0.1"), "right", NOW)
                .is_err()
        );
        for (account, from) in [
            ("alice", "10.0.0.2"),
            ("bob", "10.0.0.1"),
            ("alice", "fd00::1"),
        ] {
            assert!(backoff.begin(account, address(from), "right", NOW).is_ok());
        }
        assert!(backoff.begin("alice", None, "right", NOW).is_ok());
        // A host has a whole network of version 6 to itself.
        assert_eq!(guess(&backoff, "fd00::2", 0, NOW).0, 4);
        assert_eq!(guess(&backoff, "fd00:0:0:1::2", 0, NOW).0, 5);
        assert_eq!(guess(&backoff, "::ffff:10.0.0.1", 7, NOW).0, 0);
    }

    #[test]
    fn a_password_that_is_retried_counts_once() {
        let backoff = Backoff::new();
        for _ in 0..1_000 {
            backoff
                .begin("alice", address("10.0.0.1"), "old", NOW)
                .unwrap();
        }
        assert_eq!(guess(&backoff, "10.0.0.1", 0, NOW).0, 4);
        assert!(
            backoff
                .begin("alice", address("10.0.0.1"), "old", NOW)
                .is_ok()
        );
    }

    #[test]
    fn what_is_right_or_was_not_looked_at_does_not_count() {
        let backoff = Backoff::new();
        for number in 0..100 {
            let password = format!("{number}");
            let guess = backoff
                .begin("alice", address("10.0.0.1"), &password, NOW)
                .unwrap();
            backoff.withdraw(&guess);
        }
        for number in 0..4 {
            backoff
                .begin("alice", address("10.0.0.1"), &format!("{number}"), NOW)
                .unwrap();
        }
        let right = backoff
            .begin("alice", address("10.0.0.1"), "right", NOW)
            .unwrap();
        backoff.right(&right);
        assert_eq!(guess(&backoff, "10.0.0.1", 0, NOW).0, 5);
    }

    #[test]
    fn a_clock_that_was_set_back_locks_nobody_out() {
        let backoff = Backoff::new();
        guess(&backoff, "10.0.0.1", 0, NOW);
        assert_eq!(guess(&backoff, "10.0.0.1", 9, NOW - 10 * FORGET).0, 5);
    }
}
