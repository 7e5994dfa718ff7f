//! What people type and programs say of themselves. Pure.

use crate::access::{Form, Password, SecretKind, form, random_bytes};

/// The letters of codes for people: no vowels, so that no word comes out, and none that is taken for another (RFC 8628, 6.1).
const LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";
/// How many a code has: 20^8 are 34 bits, which is enough for ten minutes and few guesses.
const LENGTH: usize = 8;
/// Longest name of a machine, in characters.
pub const LONGEST_DEVICE: usize = 64;

/// A new code, without its dash.
pub(super) fn new() -> String {
    let mut code = String::with_capacity(LENGTH);
    while code.len() < LENGTH {
        for byte in random_bytes::<LENGTH>() {
            // 240 is the largest multiple of 20 in a byte: beyond, some letters would come more often than others.
            if byte < 240 && code.len() < LENGTH {
                code.push(char::from(LETTERS[usize::from(byte % 20)]));
            }
        }
    }
    code
}

/// A code as people see it.
pub(super) fn shown(code: &str) -> String {
    match code.split_at_checked(LENGTH / 2) {
        Some((first, last)) => format!("{first}-{last}"),
        None => code.to_owned(),
    }
}

/// A code as somebody typed it: in any case, with any spaces and dashes. `None`: it is none.
pub fn read_code(typed: &str) -> Option<String> {
    let mut code = String::with_capacity(LENGTH);
    for c in typed.chars() {
        if c.is_whitespace() || matches!(c, '-' | '_' | '.' | '\u{2010}'..='\u{2015}') {
            continue;
        }
        let letter = c.to_ascii_uppercase();
        let known = u8::try_from(letter).is_ok_and(|letter| LETTERS.contains(&letter));
        if !known || code.len() == LENGTH {
            return None;
        }
        code.push(letter);
    }
    (code.len() == LENGTH).then_some(code)
}

/// What a program calls its machine: what can be shown without misleading anybody.
pub fn read_device(name: &str) -> Result<String, String> {
    let name = name.trim();
    let plain = name
        .bytes()
        .all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if name.len() > LONGEST_DEVICE || !plain {
        return Err(format!(
            "device: a machine's name has at most {LONGEST_DEVICE} characters, and only letters, digits, spaces and signs of ASCII"
        ));
    }
    Ok(name.to_owned())
}

/// Whether it has the form of what programs poll with.
pub(super) fn is_device_code(code: &Password) -> bool {
    let start = format!("wharf_{}_", SecretKind::Device.as_str());
    form(code.reveal()) == Form::Whole && code.reveal().starts_with(&start)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn codes_are_read_as_people_type_them() {
        for typed in [
            "BCDF-GHJK",
            "bcdfghjk",
            " bcdf ghjk ",
            "b c d f-g h j k",
            "BCDF\u{2013}GHJK",
            "bcdf--ghjk\n",
        ] {
            assert_eq!(read_code(typed).as_deref(), Some("BCDFGHJK"), "{typed}");
        }
        for none in [
            "",
            "-",
            "BCDF-GHJ",
            "BCDF-GHJKL",
            "ABCD-EFGH",
            "BCDF/GHJK",
            "BCDF-GHJ\u{212a}",
            "ＢCDFGHJK",
            "BCDF\0GHJK",
        ] {
            assert_eq!(read_code(none), None, "{none}");
        }
    }

    #[test]
    fn every_letter_comes_equally_often() {
        let mut seen = [0_u32; 20];
        for _ in 0..2_000 {
            for byte in new().bytes() {
                seen[LETTERS.iter().position(|letter| *letter == byte).unwrap()] += 1;
            }
        }
        // 800 on average; eight standard deviations are 226.
        assert!(
            seen.iter().all(|count| (574..1_026).contains(count)),
            "{seen:?}"
        );
    }

    #[test]
    fn names_of_machines_are_plain() {
        assert_eq!(
            read_device("  anna's laptop (work) ").as_deref(),
            Ok("anna's laptop (work)")
        );
        assert_eq!(read_device("").as_deref(), Ok(""));
        let long = "x".repeat(65);
        for bad in [&*long, "a\nb", "a\u{202e}b", "a\0", "büro"] {
            assert!(
                read_device(bad).unwrap_err().starts_with("device: "),
                "{bad:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_code_survives_whatever_people_do_to_it(at in proptest::collection::vec((0..9_usize, prop::sample::select(vec![' ', '-', '\t', '_'])), 0..6), lower in any::<[bool; 8]>()) {
            let code = new();
            let mut typed: Vec<char> = code.chars().zip(lower).map(|(c, lower)| if lower { c.to_ascii_lowercase() } else { c }).collect();
            for (place, sign) in at {
                typed.insert(place.min(typed.len()), sign);
            }
            let typed: String = typed.into_iter().collect();
            let read = read_code(&typed);
            prop_assert_eq!(read.as_deref(), Some(&*code));
            prop_assert_eq!(read_code(&shown(&code)), Some(code));
        }

        #[test]
        fn whatever_is_typed_is_a_code_or_none(typed in "\\PC*") {
            if let Some(code) = read_code(&typed) {
                prop_assert!(code.len() == LENGTH && code.bytes().all(|byte| LETTERS.contains(&byte)));
                prop_assert_eq!(read_code(&code), Some(code));
            }
            if let Ok(name) = read_device(&typed) {
                prop_assert!(name.len() <= LONGEST_DEVICE && name.is_ascii() && !name.contains(char::is_control));
            }
        }
    }
}
