//! The strictness that manifests need and plain deserialising lacks (MPUT-17, IMG-2).
//!
//! [`check`] walks a whole document once, unknown fields too, and finds what could be read in two ways.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Reads `null` like an absent field, as Go does when it writes an empty slice or map.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

/// A list that is there, be it as `null`: Go writes an empty list so.
pub(crate) fn present<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    null_as_default(deserializer).map(Some)
}

/// A length: an integer from 0 to 2⁶³−1.
pub(crate) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let size = u64::deserialize(deserializer)?;
    if i64::try_from(size).is_err() {
        return Err(de::Error::custom("`size` is above 2^63-1"));
    }
    Ok(size)
}

/// Bytes as padded standard base64, or nothing.
pub(crate) fn base64_bytes<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<u8>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(deserializer)? else {
        return Ok(None);
    };
    STANDARD
        .decode(text)
        .map(Some)
        .map_err(|_| de::Error::custom("`data` is not base64"))
}

/// Checks a whole manifest: valid JSON, an object, nothing nested deeper than `max_depth`, no member name twice, and no
/// name that is a known field in other letters.
///
/// The last because clients written in Go match names without regard to case: of `layers` and `Layers` they take the one
/// that comes last, and we would have checked the other.
pub(crate) fn check(bytes: &[u8], max_depth: usize) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    deserializer.deserialize_map(Walk {
        left: max_depth,
        shape: Shape::Manifest,
    })?;
    deserializer.end()
}

/// What the fields at a place of the document mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Manifest,
    /// A descriptor, or an array of them.
    Descriptor,
    Platform,
    /// Annotations and whatever we do not know.
    Free,
}

impl Shape {
    fn fields(self) -> &'static [&'static str] {
        match self {
            Shape::Manifest => &[
                "schemaVersion",
                "mediaType",
                "artifactType",
                "config",
                "layers",
                "manifests",
                "blobs",
                "subject",
                "annotations",
            ],
            Shape::Descriptor => &[
                "mediaType",
                "digest",
                "size",
                "artifactType",
                "annotations",
                "urls",
                "data",
                "platform",
            ],
            Shape::Platform => &["architecture", "os", "os.version", "os.features", "variant"],
            Shape::Free => &[],
        }
    }

    fn inside(self, field: &str) -> Shape {
        match (self, field) {
            (Shape::Manifest, "config" | "layers" | "manifests" | "blobs" | "subject") => {
                Shape::Descriptor
            }
            (Shape::Descriptor, "platform") => Shape::Platform,
            _ => Shape::Free,
        }
    }

    /// The field that a reader without regard to case would take `name` for, when it is not that field.
    fn mistaken(self, name: &str) -> Option<&'static str> {
        self.fields()
            .iter()
            .copied()
            .find(|field| *field != name && folded(field).eq(folded(name)))
    }
}

/// Simple case folding; by way of upper case, so that U+017F and U+212A meet `s` and `k` as they do in Go.
fn folded(name: &str) -> impl Iterator<Item = char> {
    name.chars()
        .flat_map(char::to_uppercase)
        .flat_map(char::to_lowercase)
}

/// Visits a value and throws it away; `left` is how many levels of nesting are still allowed.
#[derive(Clone, Copy)]
struct Walk {
    left: usize,
    shape: Shape,
}

impl Walk {
    fn deeper<E: de::Error>(self) -> Result<Walk, E> {
        match self.left.checked_sub(1) {
            Some(left) => Ok(Walk { left, ..self }),
            None => Err(E::custom("the document is nested too deeply")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let inside = self.deeper()?;
        while items.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let deeper: Walk = self.deeper()?;
        let mut names = BTreeSet::new();
        while let Some(name) = members.next_key::<String>()? {
            if names.contains(&name) {
                let name = name.escape_debug();
                return Err(de::Error::custom(format_args!(
                    "the member `{name}` appears twice"
                )));
            }
            if let Some(field) = self.shape.mistaken(&name) {
                let name = name.escape_debug();
                return Err(de::Error::custom(format_args!(
                    "the member `{name}` differs from `{field}` only in letter case, and some clients would read it as that"
                )));
            }
            members.next_value_seed(Walk {
                shape: self.shape.inside(&name),
                ..deeper
            })?;
            names.insert(name);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        check(text.as_bytes(), 4).unwrap_err().to_string()
    }

    /// Spec: MPUT-17, IMG-2.
    #[test]
    fn a_member_name_stands_once_at_every_level() {
        for text in [
            r#"{"layers":[],"layers":[]}"#,
            r#"{"x":[{"y":{"a":1,"b":2,"a":3}}]}"#,
            r#"{"layers":[],"l\u0061yers":[]}"#,
            r#"{"annotations":{"":"","":""}}"#,
        ] {
            assert!(refusal(text).contains("appears twice"), "{text}");
        }
        assert!(check(br#"{"a":{"a":{"a":[]}},"b":[{"a":1},{"a":2}]}"#, 4).is_ok());
    }

    /// Spec: MPUT-17.
    #[test]
    fn nesting_has_a_limit() {
        assert!(check(br#"{"a":[[[1]]]}"#, 4).is_ok());
        assert!(refusal(r#"{"a":[[[[1]]]]}"#).contains("nested too deeply"));
        assert!(
            refusal(&format!(r#"{{"a":{}"#, "[".repeat(1 << 20))).contains("nested too deeply")
        );
        assert!(refusal(&r#"{"a":"#.repeat(1 << 18)).contains("nested too deeply"));
    }

    #[test]
    fn only_an_object_in_valid_json_will_do() {
        for text in [
            "",
            "[]",
            "null",
            "1",
            "\"a\"",
            "{",
            "{}x",
            "{} {}",
            r#"{"a":1,}"#,
            r#"{"a":NaN}"#,
            r#"{"a":"\ud800"}"#,
            "\u{feff}{}",
        ] {
            assert!(check(text.as_bytes(), 4).is_err(), "{text}");
        }
        assert!(check(b"{\"a\":\"\xff\"}", 4).is_err());
        assert!(check(b" {\"a\":[1,-1,1.5e3,true,null,\"\\u00e9\"]} \n", 4).is_ok());
    }

    #[test]
    fn known_fields_are_spelt_one_way() {
        for text in [
            r#"{"Layers":[]}"#,
            r#"{"\u017fubject":{}}"#,
            r#"{"layers":[{"Digest":"x"}]}"#,
            r#"{"config":{"MEDIATYPE":"x"}}"#,
            r#"{"manifests":[{"platform":{"OS":"x"}}]}"#,
        ] {
            assert!(refusal(text).contains("letter case"), "{text}");
        }
        // Where the names are free, so is their case.
        assert!(check(br#"{"annotations":{"Layers":"","layers":""},"custom":{"Config":1},"digest":1,"Digest":2}"#, 4).is_ok());
    }
}
