//! How rates are written: `100/s burst 5000`, `50MiB/s burst 10GiB`, `off`.

use wharf_core::access::{Per, Rate};

use super::value::{Size, Value, quote};

/// A word that stands for no limit.
const OFF: &str = "off";

/// A number of requests in some time; none: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestRate(pub Option<Rate>);

/// A number of bytes in some time; none: no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRate(pub Option<Rate>);

/// Reads a rate whose numbers are read so.
fn parse(text: &str, number: impl Fn(&str) -> Result<u64, String>) -> Result<Option<Rate>, String> {
    if text == OFF {
        return Ok(None);
    }
    let mut words = text.split_whitespace();
    let rate = words.next().unwrap_or_default();
    let Some((count, unit)) = rate.rsplit_once('/') else {
        return Err(format!("`{text}` has no `/s`, `/m` or `/h`"));
    };
    let Some(per) = Per::ALL.into_iter().find(|per| per.as_str() == unit) else {
        return Err(format!("the unit `/{unit}` is unknown"));
    };
    let count = number(count)?;
    let burst = match (words.next(), words.next(), words.next()) {
        (None, ..) => count,
        (Some("burst"), Some(burst), None) => number(burst)?,
        _ => return Err(format!("`{text}` goes on with something else than `burst`")),
    };
    if count == 0 || burst == 0 {
        return Err(format!("`{text}` would let nothing through"));
    }
    let rate = Rate::new(count, per, burst);
    let slow = || format!("at `{text}` what is used at once comes back in no lifetime");
    rate.map(Some).ok_or_else(slow)
}

fn write(rate: Option<Rate>, number: impl Fn(u64) -> String) -> String {
    let Some(rate) = rate else {
        return quote(OFF);
    };
    let mut text = format!("{}/{}", number(rate.count()), rate.per().as_str());
    if rate.burst() != rate.count() {
        text = format!("{text} burst {}", number(rate.burst()));
    }
    quote(&text)
}

impl Value for RequestRate {
    fn expects() -> String {
        "a number for each second, minute or hour (`/s`, `/m`, `/h`), and how many may come at once if these are not as many, \
         such as \"100/s burst 5000\"; or \"off\""
            .to_owned()
    }
    fn example() -> String {
        quote("100/s burst 5000")
    }
    fn parse(text: &str) -> Result<Self, String> {
        let number = |number: &str| {
            let parsed = number.parse();
            parsed.map_err(|_| format!("`{number}` is no whole number"))
        };
        parse(text, number).map(Self)
    }
    fn to_toml(&self) -> Option<String> {
        Some(write(self.0, |number| number.to_string()))
    }
}

impl Value for ByteRate {
    fn expects() -> String {
        "a size for each second, minute or hour (`/s`, `/m`, `/h`), and how much may pass at once if that is not as much, such \
         as \"50MiB/s burst 10GiB\"; or \"off\""
            .to_owned()
    }
    fn example() -> String {
        quote("50MiB/s burst 10GiB")
    }
    fn parse(text: &str) -> Result<Self, String> {
        parse(text, |size| Size::parse(size).map(|size| size.0)).map(Self)
    }
    fn to_toml(&self) -> Option<String> {
        Some(write(self.0, |size| Size(size).to_string()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rates_are_read_as_they_are_written() {
        for text in ["100/s burst 5000", "6/m", "1/h burst 2", "off"] {
            let rate = RequestRate::parse(text).unwrap();
            assert_eq!(rate.to_toml().unwrap(), quote(text));
        }
        for text in ["50MiB/s burst 10GiB", "1GiB/h", "off"] {
            let rate = ByteRate::parse(text).unwrap();
            assert_eq!(rate.to_toml().unwrap(), quote(text));
        }
        let same = RequestRate::parse("100/s burst 100").unwrap();
        assert_eq!(same, RequestRate::parse("100/s").unwrap());
    }

    #[test]
    fn what_is_no_rate_is_told_why() {
        for (text, part) in [
            ("", "has no `/s`"),
            ("100", "has no `/s`"),
            ("100/d", "the unit `/d` is unknown"),
            ("many/s", "`many` is no whole number"),
            ("-1/s", "`-1` is no whole number"),
            ("0/s", "would let nothing through"),
            ("1/s burst 0", "would let nothing through"),
            ("1/s burst", "something else than `burst`"),
            ("1/s at once 5", "something else than `burst`"),
            ("1/s burst 5 6", "something else than `burst`"),
            ("1/h burst 18446744073709551615", "in no lifetime"),
        ] {
            let error = RequestRate::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let error = ByteRate::parse("100/s").unwrap_err();
        assert!(error.contains("has no unit"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_a_rate_or_an_error(text in "[0-9a-zA-Z/ ]{0,24}|\\PC{0,16}") {
            if let Ok(rate) = RequestRate::parse(&text) {
                let shown = rate.to_toml().unwrap();
                prop_assert_eq!(RequestRate::parse(shown.trim_matches('"')), Ok(rate));
            }
            if let Ok(rate) = ByteRate::parse(&text) {
                let shown = rate.to_toml().unwrap();
                prop_assert_eq!(ByteRate::parse(shown.trim_matches('"')), Ok(rate));
            }
        }
    }
}
