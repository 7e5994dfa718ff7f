//! Docker's `config.json`, as far as it says who keeps a registry's credentials.
//!
//! Everything else in it stays as it is: the order of its fields, what nobody here knows, how numbers are written.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{HELPER, Server};

/// Largest configuration that is read, in bytes.
pub const LARGEST_CONFIG: usize = 4 << 20;
const FIELD: &str = "credHelpers";

/// Why the configuration is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No JSON.
    #[error("it is no JSON object (line {0})")]
    Form(usize),
    /// A field of another type.
    #[error("credHelpers: it has to be an object with texts in it")]
    Helpers,
    /// More than one of the same name: clients differ in which one counts.
    #[error("credHelpers: it is there twice")]
    Twice,
    /// Beyond what is read.
    #[error("it is larger than {} MiB", LARGEST_CONFIG >> 20)]
    Large,
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// It is as it should be already.
    Nothing,
    /// What to write.
    Text {
        /// The whole configuration.
        text: String,
        /// The helper that stood there for this registry.
        before: Option<String>,
    },
}

/// An object with its fields in their order.
struct Fields<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Fields<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Reader<T> {
            type Value = Fields<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<T>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Reader(std::marker::PhantomData))
    }
}

impl<T: Serialize> Fields<T> {
    /// As docker writes it: a field on each line, behind tabs.
    fn render(&self, depth: usize) -> Result<String, serde_json::Error> {
        let mut text = String::from("{");
        for (at, (name, value)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let (name, value) = (serde_json::to_string(name)?, serde_json::to_string(value)?);
            text.push_str(&format!(
                "{comma}\n{}{name}: {value}",
                "\t".repeat(depth + 1)
            ));
        }
        if !self.0.is_empty() {
            text.push_str(&format!("\n{}", "\t".repeat(depth)));
        }
        text.push('}');
        Ok(text)
    }
}

/// Names [`HELPER`] for a registry, by host and port as images name it, since clients compare letter by letter. An empty text is a
/// configuration without fields.
///
/// # Errors
/// When the text is damaged; it is to be left as it is then.
pub fn name_helper(text: &str, host: &str) -> Result<Changed, ConfigError> {
    change(text, |helpers| {
        // Of several, readers of JSON take the last.
        let mut ours = helpers.0.iter().filter(|(named, _)| named == host);
        let (count, before) = (ours.clone().count(), ours.next_back().cloned());
        if count == 1 && before.as_ref().is_some_and(|(_, helper)| helper == HELPER) {
            return None;
        }
        let at = helpers.0.iter().position(|(named, _)| named == host);
        helpers.0.retain(|(named, _)| named != host);
        let at = at.unwrap_or(helpers.0.len());
        helpers.0.insert(at, (host.to_owned(), HELPER.to_owned()));
        Some(before.map(|(_, helper)| helper))
    })
}

/// Takes [`HELPER`] away from all spellings of a registry again. Another helper's name stays.
///
/// # Errors
/// When the text is damaged; it is to be left as it is then.
pub fn forget_helper(text: &str, server: &Server) -> Result<Changed, ConfigError> {
    change(text, |helpers| {
        let before = helpers.0.len();
        let is = |host: &str| host.parse::<Server>().is_ok_and(|named| named == *server);
        helpers
            .0
            .retain(|(host, helper)| helper != HELPER || !is(host));
        (helpers.0.len() < before).then(|| Some(HELPER.to_owned()))
    })
}

/// What `edit` returns: nothing when there is nothing to write, else the helper that was there.
fn change(
    text: &str,
    edit: impl FnOnce(&mut Fields<String>) -> Option<Option<String>>,
) -> Result<Changed, ConfigError> {
    if text.len() > LARGEST_CONFIG {
        return Err(ConfigError::Large);
    }
    let mut fields: Fields<Box<RawValue>> = match text.trim().is_empty() {
        true => Fields(Vec::new()),
        false => serde_json::from_str(text).map_err(|error| ConfigError::Form(error.line()))?,
    };
    let mut named = fields
        .0
        .iter()
        .enumerate()
        .filter(|(_, (name, _))| name == FIELD);
    let at = named.next().map(|(at, _)| at);
    if named.next().is_some() {
        return Err(ConfigError::Twice);
    }
    let mut helpers: Fields<String> = match at.map(|at| fields.0[at].1.get()) {
        None | Some("null") => Fields(Vec::new()),
        Some(text) => serde_json::from_str(text).map_err(|_| ConfigError::Helpers)?,
    };
    let Some(before) = edit(&mut helpers) else {
        return Ok(Changed::Nothing);
    };
    let form = |error: serde_json::Error| ConfigError::Form(error.line());
    match (at, helpers.0.is_empty()) {
        (Some(at), true) => drop(fields.0.remove(at)),
        (None, true) => {}
        (at, false) => {
            let value = RawValue::from_string(helpers.render(1).map_err(form)?).map_err(form)?;
            match at {
                Some(at) => fields.0[at].1 = value,
                None => fields.0.push((FIELD.to_owned(), value)),
            }
        }
    }
    let text = fields.render(0).map_err(form)? + "\n";
    Ok(Changed::Text { text, before })
}
