//! How a configuration section is written down once: struct, default, documentation, flag and environment name.
//!
//! `section!` turns one documented list of keys into a plain struct and an [`Outline`] of it. Everything that speaks
//! about keys (the loader, `config show`, `config defaults`, the reference page, the flags of `wharf serve`) walks
//! outlines, so that a key cannot exist in one of these places only. Must never know what a key means.

use super::value::Input;

/// Whether a changed value takes effect while Wharf runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    non_camel_case_types,
    reason = "written in lower case in the tables of keys"
)]
pub enum When {
    /// Applied by the next reload.
    live,
    /// Read at the start only.
    restart,
}

/// One key: all that is known of it beside its value.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Name inside its section.
    pub name: &'static str,
    /// Documentation, one entry per line as in the source.
    pub doc: &'static [&'static str],
    /// What a value must look like, to complete "expected …".
    pub expects: fn() -> String,
    /// A value as TOML, shown where the default is "unset".
    pub example: fn() -> String,
    /// The default as TOML; `None` when the key is unset by default.
    pub default: fn() -> Option<String>,
    /// Whether a reload applies it.
    pub when: When,
    /// Long flag of `wharf serve` without the dashes, and what its value is called in help.
    pub flag: Option<(&'static str, &'static str)>,
    /// A second environment variable beside `WHARF__SECTION__KEY`.
    pub env: Option<&'static str>,
    /// The value must never be shown, and `<key>_file` names a file that holds it.
    pub secret: bool,
    /// Must be given (inside a table of a list).
    pub required: bool,
    /// True or false: its flag needs no value.
    pub switch: bool,
    /// A list: its flag may be repeated.
    pub list: bool,
}

impl Key {
    /// With this flag of `wharf serve`.
    #[must_use]
    pub const fn flag(mut self, flag: &'static str, value: &'static str) -> Self {
        self.flag = Some((flag, value));
        self
    }

    /// With this second environment variable.
    #[must_use]
    pub const fn env(mut self, env: &'static str) -> Self {
        self.env = Some(env);
        self
    }

    /// Never shown; `<key>_file` is accepted as well.
    #[must_use]
    pub const fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Has no sensible default.
    #[must_use]
    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// The documentation as one text.
    #[must_use]
    pub fn text(&self) -> String {
        paragraph(self.doc)
    }
}

/// Doc-comment lines as one text without the leading blanks.
#[must_use]
pub fn paragraph(doc: &[&str]) -> String {
    doc.iter()
        .map(|line| line.trim())
        .collect::<Vec<_>>()
        .join(" ")
        .trim()
        .to_owned()
}

/// A section's keys, its inner sections and its lists of tables.
#[derive(Clone, Copy, Debug)]
pub struct Outline {
    /// Documentation of the section.
    pub doc: &'static [&'static str],
    /// Keys in the order of the source.
    pub keys: &'static [Key],
    /// `[outer.inner]` sections.
    pub sections: &'static [(&'static str, &'static Outline)],
    /// `[[outer.inner]]` lists.
    pub tables: &'static [(&'static str, &'static Outline)],
}

/// What a dotted path names.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// A key.
    Key(&'static Key),
    /// A section.
    Section(&'static Outline),
    /// A list of tables.
    Tables(&'static Outline),
}

impl Outline {
    /// Looks up a dotted path from here.
    #[must_use]
    pub fn find(&'static self, path: &str) -> Option<Place> {
        let (head, rest) = match path.split_once('.') {
            Some((head, rest)) => (head, Some(rest)),
            None => (path, None),
        };
        if let Some((_, inner)) = self.sections.iter().find(|(name, _)| *name == head) {
            return match rest {
                Some(rest) => inner.find(rest),
                None => Some(Place::Section(inner)),
            };
        }
        if rest.is_some() {
            return None;
        }
        if let Some((_, inner)) = self.tables.iter().find(|(name, _)| *name == head) {
            return Some(Place::Tables(inner));
        }
        self.keys
            .iter()
            .find(|key| key.name == head)
            .map(Place::Key)
    }

    /// Whether a reload applies changes of some key, and so of a table in a list.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.keys.iter().any(|key| key.when == When::live)
    }

    /// Calls `visit` with the dotted path of every section from here on, the nearest first.
    pub fn walk(&'static self, path: &str, visit: &mut dyn FnMut(&str, &'static Outline)) {
        visit(path, self);
        for (name, inner) in self.sections {
            inner.walk(&join(path, name), visit);
        }
    }
}

/// A dotted path made of two.
#[must_use]
pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The values of a section, reached by name.
pub trait Section {
    /// What there is.
    fn outline(&self) -> &'static Outline;
    /// Sets a key of this section. The error completes "expected …" or says what is wrong.
    fn set(&mut self, key: &str, input: &Input<'_>) -> Result<(), String>;
    /// A key's value as TOML; `None` when it is unset.
    fn get(&self, key: &str) -> Option<String>;
    /// An inner section.
    fn section(&self, name: &str) -> Option<&dyn Section>;
    /// An inner section, to be changed.
    fn section_mut(&mut self, name: &str) -> Option<&mut dyn Section>;
    /// The tables of a list.
    fn tables(&self, name: &str) -> Vec<&dyn Section>;
    /// Empties a list of tables.
    fn clear(&mut self, name: &str);
    /// Adds a table with default values to a list.
    fn push(&mut self, name: &str) -> Option<&mut dyn Section>;
}

/// Defines a section: see [`super::sections`] for what it looks like.
macro_rules! section {
    (
        $(#[doc = $doc:literal])+
        pub struct $name:ident {
            $(
                $(#[doc = $key_doc:literal])+
                $key:ident: $type:ty = $default:expr => $when:ident $(. $attribute:ident ( $($argument:literal),* ))*;
            )*
            $(section $inner:ident: $inner_type:ident;)*
            $(tables $list:ident = $list_name:literal: $list_type:ident;)*
        }
    ) => {
        $(#[doc = $doc])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[doc = $key_doc])+ pub $key: $type,)*
            $(#[doc = concat!("The section `", stringify!($inner), "`.")] pub $inner: $inner_type,)*
            $(#[doc = concat!("The tables `", $list_name, "`.")] pub $list: Vec<$list_type>,)*
        }

        impl $name {
            /// What this section consists of.
            pub const OUTLINE: $crate::config::section::Outline = $crate::config::section::Outline {
                doc: &[$($doc),+],
                keys: &[$(
                    $crate::config::section::Key {
                        name: stringify!($key),
                        doc: &[$($key_doc),+],
                        expects: <$type as $crate::config::value::Value>::expects,
                        example: <$type as $crate::config::value::Value>::example,
                        default: || <$type as $crate::config::value::Value>::to_toml(&$default),
                        when: $crate::config::section::When::$when,
                        flag: None,
                        env: None,
                        secret: false,
                        required: false,
                        switch: <$type as $crate::config::value::Value>::SWITCH,
                        list: <$type as $crate::config::value::Value>::LIST,
                    }$(.$attribute($($argument),*))*,
                )*],
                sections: &[$((stringify!($inner), &$inner_type::OUTLINE),)*],
                tables: &[$(($list_name, &$list_type::OUTLINE),)*],
            };

            /// Takes over from `new` what a reload may change.
            pub fn adopt(&mut self, new: &Self) {
                $(
                    if $crate::config::section::When::$when == $crate::config::section::When::live {
                        self.$key.clone_from(&new.$key);
                    }
                )*
                $(self.$inner.adopt(&new.$inner);)*
                $(
                    if $list_type::OUTLINE.is_live() {
                        self.$list.clone_from(&new.$list);
                    }
                )*
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* $($inner: $inner_type::default(),)* $($list: Vec::new(),)* }
            }
        }

        impl $crate::config::section::Section for $name {
            fn outline(&self) -> &'static $crate::config::section::Outline {
                &Self::OUTLINE
            }

            fn set(&mut self, key: &str, input: &$crate::config::value::Input<'_>) -> Result<(), String> {
                let _ = input;
                match key {
                    $(stringify!($key) => {
                        self.$key = $crate::config::value::Value::read(input)?;
                        Ok(())
                    })*
                    _ => Err(format!("there is no key `{key}` here")),
                }
            }

            fn get(&self, key: &str) -> Option<String> {
                match key {
                    $(stringify!($key) => $crate::config::value::Value::to_toml(&self.$key),)*
                    _ => None,
                }
            }

            fn section(&self, name: &str) -> Option<&dyn $crate::config::section::Section> {
                match name {
                    $(stringify!($inner) => Some(&self.$inner),)*
                    _ => None,
                }
            }

            fn section_mut(&mut self, name: &str) -> Option<&mut dyn $crate::config::section::Section> {
                match name {
                    $(stringify!($inner) => Some(&mut self.$inner),)*
                    _ => None,
                }
            }

            fn tables(&self, name: &str) -> Vec<&dyn $crate::config::section::Section> {
                match name {
                    $($list_name => {
                        self.$list.iter().map(|table| table as &dyn $crate::config::section::Section).collect()
                    })*
                    _ => Vec::new(),
                }
            }

            fn clear(&mut self, name: &str) {
                match name {
                    $($list_name => self.$list.clear(),)*
                    _ => {}
                }
            }

            fn push(&mut self, name: &str) -> Option<&mut dyn $crate::config::section::Section> {
                match name {
                    $($list_name => {
                        self.$list.push($list_type::default());
                        self.$list.last_mut().map(|table| table as &mut dyn $crate::config::section::Section)
                    })*
                    _ => None,
                }
            }
        }
    };
}

pub(crate) use section;
