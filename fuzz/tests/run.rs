//! Mutates the seeds of every target for some seconds on stable Rust.
//!
//! `WHARF_FUZZ_SECONDS` says how long for each target (default 2), `WHARF_FUZZ_SEED` repeats a run. A finding is printed
//! as a line for the seed file, where it belongs once it is fixed.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};

use wharf_fuzz::{TARGETS, Target};

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 up to and without `end`; 0 when there is nothing to choose from.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// One seed line as bytes.
fn unescape(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line.as_bytes();
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', b'n', tail @ ..] => (bytes.push(b'\n'), rest = tail),
            [b'\\', b'\\', tail @ ..] => (bytes.push(b'\\'), rest = tail),
            [b'\\', b'x', high, low, tail @ ..] => {
                let pair = [*high, *low];
                let hex = std::str::from_utf8(&pair)
                    .ok()
                    .and_then(|hex| u8::from_str_radix(hex, 16).ok());
                (
                    bytes.push(hex.expect("two hexadecimal digits after \\x")),
                    rest = tail,
                )
            }
            _ => (bytes.push(*first), rest = tail),
        };
    }
    bytes
}

fn escape(bytes: &[u8]) -> String {
    let each = |byte: &u8| match byte {
        b'\n' => "\\n".to_owned(),
        b'\\' => "\\\\".to_owned(),
        b' '..=b'~' => char::from(*byte).to_string(),
        other => format!("\\x{other:02x}"),
    };
    bytes.iter().map(each).collect()
}

/// Bytes that have upset parsers before.
const TRICKS: &[&[u8]] = &[
    b"",
    b"\0",
    b"/",
    b"//",
    b"..",
    b"%2f",
    b"%00",
    b"%",
    b":",
    b"-",
    b",",
    b"=",
    b"\"",
    b"\\",
    b"\n",
    b"\r\n",
    b" ",
    b"\t",
    b"\xff",
    b"\xc3\xa9",
    b"\xe2\x84\xaa",
    b"0",
    b"18446744073709551615",
    b"9223372036854775808",
    b"-1",
    b"1e999",
    b"null",
    b"{}",
    b"[]",
    b"[[[[[[[[[[",
    b"{\"a\":",
    b"\\u0061",
    b"$2y$",
    b"Bearer ",
    b"Basic ",
    b"bytes=",
];

fn mutate(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut input = seeds[random.below(seeds.len())].clone();
    for _ in 0..=random.below(6) {
        let at = random.below(input.len() + 1);
        let end = at + random.below((input.len() - at).min(24) + 1);
        match random.below(8) {
            0 => drop(input.drain(at..end)),
            1 => input.truncate(at),
            2 => drop(input.splice(at..end, TRICKS[random.below(TRICKS.len())].iter().copied())),
            3 => drop(input.splice(at..at, TRICKS[random.below(TRICKS.len())].iter().copied())),
            4 => input.insert(at, random.next() as u8),
            5 => input
                .iter_mut()
                .skip(at)
                .take(1)
                .for_each(|byte| *byte ^= 1 << (random.next() % 8)),
            6 => {
                let copy = input[at..end].to_vec();
                input.splice(at..at, copy);
            }
            _ => {
                let other = &seeds[random.below(seeds.len())];
                let from = random.below(other.len() + 1);
                input.splice(at..end, other[from..].iter().copied());
            }
        }
    }
    input
}

fn run(target: &Target) {
    let number = |name: &str| {
        env::var(name)
            .ok()
            .map(|value| value.parse::<u64>().expect(name))
    };
    let time = Duration::from_secs(number("WHARF_FUZZ_SECONDS").unwrap_or(2));
    let now = || {
        SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64)
    };
    let seed = number("WHARF_FUZZ_SEED").unwrap_or_else(now);
    let seeds: Vec<_> = target.seeds.lines().map(unescape).collect();
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    let mut random = Random(seed);
    let (start, mut runs) = (Instant::now(), 0u64);
    let check = |input: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| (target.check)(input))).is_err() {
            panic!(
                "{} fails (WHARF_FUZZ_SEED={seed}) on this seed line:\n{}",
                target.name,
                escape(input)
            );
        }
    };
    seeds.iter().for_each(|seed| check(seed));
    while start.elapsed() < time {
        for _ in 0..100 {
            check(&mutate(&mut random, &seeds));
        }
        runs += 100;
    }
    println!("{}: {runs} inputs from {} seeds", target.name, seeds.len());
}

#[test]
fn every_target_holds_for_mutated_seeds() {
    TARGETS.iter().for_each(run);
}

#[test]
fn seeds_survive_escaping() {
    for target in TARGETS {
        for line in target.seeds.lines() {
            assert_eq!(
                unescape(&escape(&unescape(line))),
                unescape(line),
                "{}",
                target.name
            );
        }
    }
}
