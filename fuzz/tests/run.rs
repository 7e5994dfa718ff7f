//! Mutates the seeds of every target for some seconds on stable Rust.
//!
//! `WHARF_FUZZ_SECONDS` says how long for each target (default 2), `WHARF_FUZZ_TARGET` names a single one,
//! `WHARF_FUZZ_SEED` which inputs: a number for the same ones in the same order (default 1, so that a change is judged by what it
//! does), `new` for others each time. A finding is printed as a line for the seed file, where it belongs once it is fixed.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};

use wharf_fuzz::seeds::{escape, unescape};
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
    b"\r\n\r\n",
    b" HTTP/1.1\r\n",
    b"^Range: bytes=",
    b"|",
    b"{d}",
    b"{u}",
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
    let seed = match env::var("WHARF_FUZZ_SEED").as_deref() {
        Ok("new") => SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64),
        _ => number("WHARF_FUZZ_SEED").unwrap_or(1),
    };
    let seeds: Vec<_> = target.inputs().collect();
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    let mut random = Random(seed);
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
    let (start, mut runs) = (Instant::now(), 0u64);
    while start.elapsed() < time {
        check(&mutate(&mut random, &seeds));
        runs += 1;
    }
    println!("{}: {runs} inputs from {} seeds", target.name, seeds.len());
}

#[test]
fn every_target_holds_for_mutated_seeds() {
    let only = env::var("WHARF_FUZZ_TARGET").ok();
    let chosen: Vec<_> = TARGETS
        .iter()
        .filter(|target| only.as_deref().is_none_or(|name| name == target.name))
        .collect();
    assert!(!chosen.is_empty(), "there is no target {only:?}");
    chosen.into_iter().for_each(run);
}

#[test]
fn seeds_survive_escaping() {
    for target in TARGETS {
        for input in target.inputs() {
            assert_eq!(unescape(&escape(&input)), input, "{}", target.name);
        }
    }
}
