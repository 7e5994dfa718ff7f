//! From a file, the environment and flags to a [`Config`], with the source of each value.
//!
//! Later layers win: defaults, file, environment, flags. All problems are collected, so that one run shows them all.
//! Must never put a value into an error, except through a type that says it may.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::nearest::nearest;
use super::problem::{Problem, Problems, Source, in_file};
use super::section::{Outline, Place, Section, join};
use super::sections::Config;
use super::validate::validate;
use super::value::{Input, describe};

/// Environment variables of configuration keys begin with this.
///
/// Two underscores, because Kubernetes gives every pod beside a service named `wharf` variables like `WHARF_PORT`.
pub const ENV_PREFIX: &str = "WHARF__";

/// Keys that had another name once: the old path and the new one. They keep working with a warning.
pub const RENAMED: &[(&str, &str)] = &[];

/// A key given as a flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagValue {
    /// Dotted path of the key.
    pub path: String,
    /// The flag with its dashes.
    pub flag: String,
    /// Its value; several are joined by commas.
    pub value: String,
}

/// What a configuration is read from: kept, so that a reload reads the same.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// The environment; other variables than Wharf's are ignored.
    pub env: Vec<(OsString, OsString)>,
    /// Flags.
    pub flags: Vec<FlagValue>,
}

/// A configuration that was read and is valid.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Where values come from that are not defaults, by dotted path.
    pub sources: Sources,
    /// What deserves attention, though nothing is wrong.
    pub warnings: Vec<Problem>,
}

/// Sources of values by dotted path; what is missing is a default.
pub type Sources = BTreeMap<String, Source>;

/// Reads and validates.
///
/// # Errors
/// Everything that is wrong with the file, the environment and the flags.
pub fn load(inputs: &Inputs) -> Result<Loaded, Problems> {
    load_with(inputs, RENAMED)
}

pub(super) fn load_with(inputs: &Inputs, renamed: &[(&str, &str)]) -> Result<Loaded, Problems> {
    let mut loader = Loader {
        config: Config::default(),
        sources: Sources::new(),
        warnings: Vec::new(),
        problems: Vec::new(),
        renamed,
    };
    if let Some(path) = &inputs.file {
        match read_text(path) {
            Ok(text) => {
                loader.file(path, &text);
                // The parser sorts keys by name; people read from the top.
                loader.problems.sort_by_key(|problem| problem.at.line());
                loader.warnings.sort_by_key(|warning| warning.at.line());
            }
            Err(what) => loader.problems.push(Problem {
                at: Source::Default,
                what,
                help: None,
            }),
        }
    }
    loader.environment(&inputs.env);
    loader.flags(&inputs.flags);
    if loader.problems.is_empty() {
        validate(
            &loader.config,
            &loader.sources,
            &mut loader.problems,
            &mut loader.warnings,
        );
    }
    if loader.problems.is_empty() {
        Ok(Loaded {
            config: loader.config,
            sources: loader.sources,
            warnings: loader.warnings,
        })
    } else {
        Err(Problems(loader.problems))
    }
}

/// A small text file, with an error that names it.
fn read_text(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))
}

struct Loader<'a> {
    config: Config,
    sources: Sources,
    warnings: Vec<Problem>,
    problems: Vec<Problem>,
    renamed: &'a [(&'a str, &'a str)],
}

impl Loader<'_> {
    fn problem(&mut self, at: &Source, what: impl Into<String>, help: Option<String>) {
        self.problems.push(Problem {
            at: at.clone(),
            what: what.into(),
            help,
        });
    }

    fn file(&mut self, path: &Path, text: &str) {
        match DeTable::parse(text) {
            Ok(table) => self.table(path, text, "", table.get_ref()),
            Err(error) => {
                // Only the message: the parser's own display quotes the line, which may hold a secret.
                let at = in_file(path, text, error.span().map_or(0, |span| span.start));
                self.problem(&at, format!("this is not TOML: {}", error.message()), None);
            }
        }
    }

    fn table(&mut self, path: &Path, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let at = in_file(path, text, name.span().start);
            let full = join(prefix, name.get_ref());
            self.entry(path, text, &at, &full, value);
        }
    }

    fn entry(
        &mut self,
        path: &Path,
        text: &str,
        at: &Source,
        full: &str,
        value: &Spanned<DeValue<'_>>,
    ) {
        match Config::OUTLINE.find(full) {
            Some(Place::Key(_)) => self.set(at, full, &Input::Toml(value.get_ref())),
            Some(Place::Section(_)) => match value.get_ref() {
                DeValue::Table(inner) => self.table(path, text, full, inner),
                other => {
                    let help = format!("write `[{full}]` and its keys below");
                    self.problem(
                        at,
                        format!("`{full}` is a section, found {}", describe(other)),
                        Some(help),
                    );
                }
            },
            Some(Place::Tables(outline)) => {
                self.tables(at, full, outline, value.get_ref(), &|span| {
                    in_file(path, text, span)
                })
            }
            None => {
                if let Some(new) = self.renamed_to(at, full) {
                    self.entry(path, text, at, &new, value);
                } else if let Some(secret) = secret_of(full) {
                    match value.get_ref() {
                        DeValue::String(file) => self.secret_file(at, secret, file),
                        other => self.problem(
                            at,
                            format!("`{full}`: found {}; expected a path", describe(other)),
                            None,
                        ),
                    }
                } else if let (DeValue::Table(inner), true) =
                    (value.get_ref(), self.holds_renamed(full))
                {
                    self.table(path, text, full, inner);
                } else {
                    self.unknown(at, full, matches!(value.get_ref(), DeValue::Table(_)));
                }
            }
        }
    }

    /// Sets a key from one layer.
    fn set(&mut self, at: &Source, full: &str, input: &Input<'_>) {
        let (section, key) = full.rsplit_once('.').unwrap_or(("", full));
        let mut target: &mut dyn Section = &mut self.config;
        for name in section.split('.').filter(|name| !name.is_empty()) {
            match target.section_mut(name) {
                Some(inner) => target = inner,
                None => return,
            }
        }
        match target.set(key, input) {
            Ok(()) => {
                self.sources.insert(full.to_owned(), at.clone());
            }
            Err(what) => self.problem(at, format!("`{full}`: {what}"), None),
        }
    }

    /// Sets a secret from the file that holds it. A newline at its end is not part of it.
    fn secret_file(&mut self, at: &Source, full: &str, file: &str) {
        if self
            .sources
            .get(full)
            .is_some_and(|known| same_layer(known, at))
        {
            self.problem(
                at,
                format!("`{full}` and `{full}_file` are both given"),
                Some("keep one of them".to_owned()),
            );
            return;
        }
        match read_text(Path::new(file)) {
            Ok(text) => match text.trim_end_matches(['\n', '\r']) {
                "" => self.problem(
                    at,
                    format!("`{full}_file`: {file} is empty"),
                    Some("write the secret into it, alone".to_owned()),
                ),
                secret => self.set(at, full, &Input::Text(secret)),
            },
            Err(what) => self.problem(at, format!("`{full}_file`: {what}"), None),
        }
    }

    fn tables(
        &mut self,
        at: &Source,
        full: &str,
        outline: &'static Outline,
        value: &DeValue<'_>,
        place: &dyn Fn(usize) -> Source,
    ) {
        let (section, name) = full.rsplit_once('.').unwrap_or(("", full));
        let DeValue::Array(items) = value else {
            let what = format!("`{full}` is a list of tables, found {}", describe(value));
            self.problem(at, what, Some(format!("write `[[{full}]]`")));
            return;
        };
        let mut problems = Vec::new();
        {
            let mut target: &mut dyn Section = &mut self.config;
            for name in section.split('.').filter(|name| !name.is_empty()) {
                match target.section_mut(name) {
                    Some(inner) => target = inner,
                    None => return,
                }
            }
            // A later layer replaces the list: merging two lists would leave no way to take an entry away.
            target.clear(name);
            for (index, item) in items.iter().enumerate() {
                let item_at = place(item.span().start);
                self.sources
                    .insert(format!("{full}[{index}]"), item_at.clone());
                let DeValue::Table(fields) = item.get_ref() else {
                    let what = format!(
                        "`{full}` is a list of tables, found {} in it",
                        describe(item.get_ref())
                    );
                    problems.push(Problem {
                        at: item_at,
                        what,
                        help: None,
                    });
                    continue;
                };
                let Some(entry) = target.push(name) else {
                    return;
                };
                for (field, value) in fields {
                    let field_at = place(field.span().start);
                    let field = field.get_ref().as_ref();
                    if outline.keys.iter().any(|key| key.name == field) {
                        if let Err(what) = entry.set(field, &Input::Toml(value.get_ref())) {
                            problems.push(Problem {
                                at: field_at,
                                what: format!("`{field}` in `[[{full}]]`: {what}"),
                                help: None,
                            });
                        }
                    } else if let Some(secret) = secret_in(outline, field) {
                        let both = fields.iter().any(|(other, _)| other.get_ref() == secret);
                        let set = match value.get_ref() {
                            _ if both => Err(format!("`{secret}` is given, too; keep one of them")),
                            DeValue::String(file) => secret_in_file(file)
                                .and_then(|text| entry.set(secret, &Input::Text(&text))),
                            other => Err(format!("found {}; expected a path", describe(other))),
                        };
                        if let Err(what) = set {
                            problems.push(Problem {
                                at: field_at,
                                what: format!("`{field}` in `[[{full}]]`: {what}"),
                                help: None,
                            });
                        }
                    } else {
                        let names = outline.keys.iter().map(|key| key.name);
                        let help = match nearest(field, names.clone()) {
                            Some(name) => format!("did you mean `{name}`?"),
                            None => format!("known here: {}", names.collect::<Vec<_>>().join(", ")),
                        };
                        let what = format!("unknown key `{field}` in `[[{full}]]`");
                        problems.push(Problem {
                            at: field_at,
                            what,
                            help: Some(help),
                        });
                    }
                }
                for key in outline.keys.iter().filter(|key| key.required) {
                    if !fields.iter().any(|(field, _)| field.get_ref() == key.name) {
                        let what = format!("this `[[{full}]]` lacks `{}`", key.name);
                        problems.push(Problem {
                            at: item_at.clone(),
                            what,
                            help: Some(key.text()),
                        });
                    }
                }
            }
        }
        self.problems.append(&mut problems);
        self.sources.insert(full.to_owned(), at.clone());
    }

    fn renamed_to(&mut self, at: &Source, full: &str) -> Option<String> {
        let (old, new) = self.renamed.iter().find(|(old, _)| *old == full)?;
        let new = (*new).to_owned();
        let what = format!("`{old}` is now called `{new}`");
        self.warnings.push(Problem {
            at: at.clone(),
            what,
            help: Some("the old name will go away: rename it".to_owned()),
        });
        Some(new)
    }

    fn holds_renamed(&self, full: &str) -> bool {
        self.renamed.iter().any(|(old, _)| {
            old.strip_prefix(full)
                .is_some_and(|rest| rest.starts_with('.'))
        })
    }

    fn unknown(&mut self, at: &Source, full: &str, section: bool) {
        let kind = if section { "section" } else { "key" };
        let help = match suggestion(full) {
            Some(path) => format!("did you mean `{path}`?"),
            None => "`wharf config defaults` prints every key".to_owned(),
        };
        self.problem(at, format!("unknown {kind} `{full}`"), Some(help));
    }

    fn environment(&mut self, env: &[(OsString, OsString)]) {
        let aliases = aliases();
        for (name, value) in env {
            let Some(name) = name.to_str() else { continue };
            let alias = aliases
                .iter()
                .find_map(|(alias, path)| match name.strip_prefix(alias) {
                    Some("") => Some((*path).clone()),
                    Some("_FILE") => Some(format!("{path}_file")),
                    _ => None,
                });
            let full = match (alias, name.strip_prefix(ENV_PREFIX)) {
                (Some(path), _) => path,
                (None, Some(rest)) => rest
                    .split("__")
                    .map(str::to_ascii_lowercase)
                    .collect::<Vec<_>>()
                    .join("."),
                (None, None) => continue,
            };
            let at = Source::Env(name.to_owned());
            match value.to_str() {
                Some(value) => self.variable(&at, &full, value),
                None => self.problem(&at, "the value is not UTF-8", None),
            }
        }
    }

    fn variable(&mut self, at: &Source, full: &str, value: &str) {
        match Config::OUTLINE.find(full) {
            Some(Place::Key(_)) => {
                if let Some(other @ Source::Env(_)) = self.sources.get(full) {
                    // Which of them comes last is chance.
                    let what = format!("`{full}` is given by {other} too");
                    self.problem(at, what, Some("keep one of them".to_owned()));
                    return;
                }
                self.set(at, full, &Input::Text(value));
            }
            Some(Place::Tables(outline)) => {
                let value = if value.trim().is_empty() { "[]" } else { value };
                match DeValue::parse(value) {
                    Ok(parsed) => self.tables(at, full, outline, parsed.get_ref(), &|_| at.clone()),
                    Err(error) => {
                        let help = format!(
                            "write a TOML array of tables, such as {}",
                            example_of(outline)
                        );
                        self.problem(
                            at,
                            format!("this is not TOML: {}", error.message()),
                            Some(help),
                        );
                    }
                }
            }
            Some(Place::Section(_)) => {
                let help = format!("its keys are {}…", variable_of(&join(full, "")));
                self.problem(at, format!("`{full}` is a section"), Some(help));
            }
            None => {
                if let Some(new) = self.renamed_to(at, full) {
                    self.variable(at, &new, value);
                } else if let Some(secret) = secret_of(full) {
                    self.secret_file(at, secret, value);
                } else {
                    let help = match suggestion(full) {
                        Some(path) => format!("did you mean {}?", variable_of(&path)),
                        None => "`wharf config defaults` prints every key".to_owned(),
                    };
                    self.problem(at, format!("unknown key `{full}`"), Some(help));
                }
            }
        }
    }

    fn flags(&mut self, flags: &[FlagValue]) {
        for flag in flags {
            self.set(
                &Source::Flag(flag.flag.clone()),
                &flag.path,
                &Input::Text(&flag.value),
            );
        }
    }
}

/// The environment variable of a key.
#[must_use]
pub fn variable_of(path: &str) -> String {
    format!(
        "{ENV_PREFIX}{}",
        path.to_ascii_uppercase().replace('.', "__")
    )
}

/// Tables with more keys are shown with those that they must have.
const FEW: usize = 8;

/// A table of a list as it can be written on one line.
pub(super) fn example_of(outline: &Outline) -> String {
    let few = outline.keys.len() <= FEW;
    let fields: Vec<_> = outline
        .keys
        .iter()
        .filter(|key| few || key.required)
        .map(|key| format!("{} = {}", key.name, (key.example)()))
        .collect();
    format!("[{{ {} }}]", fields.join(", "))
}

/// `access.admin_password_file` → `access.admin_password`, when that is a secret.
fn secret_of(full: &str) -> Option<&str> {
    let base = full.strip_suffix("_file")?;
    match Config::OUTLINE.find(base) {
        Some(Place::Key(key)) if key.secret => Some(base),
        _ => None,
    }
}

/// The same in a table of a list.
fn secret_in(outline: &'static Outline, field: &str) -> Option<&'static str> {
    let base = field.strip_suffix("_file")?;
    let key = outline.keys.iter().find(|key| key.name == base)?;
    key.secret.then_some(key.name)
}

/// What the file of a secret in a table holds.
fn secret_in_file(file: &str) -> Result<String, String> {
    let text = read_text(Path::new(file))?;
    match text.trim_end_matches(['\n', '\r']) {
        "" => Err(format!("{file} is empty; write the secret into it, alone")),
        secret => Ok(secret.to_owned()),
    }
}

fn same_layer(one: &Source, other: &Source) -> bool {
    std::mem::discriminant(one) == std::mem::discriminant(other)
}

/// Second names of environment variables with their keys.
fn aliases() -> Vec<(&'static str, String)> {
    let mut aliases = Vec::new();
    Config::OUTLINE.walk("", &mut |path, outline| {
        aliases.extend(
            outline
                .keys
                .iter()
                .filter_map(|key| Some((key.env?, join(path, key.name)))),
        );
    });
    aliases
}

/// Every path that a file may name.
pub(super) fn paths() -> Vec<String> {
    let mut paths = Vec::new();
    Config::OUTLINE.walk("", &mut |path, outline| {
        if !path.is_empty() {
            paths.push(path.to_owned());
        }
        for key in outline.keys {
            paths.push(join(path, key.name));
            if key.secret {
                paths.push(join(path, &format!("{}_file", key.name)));
            }
        }
        paths.extend(outline.tables.iter().map(|(name, _)| join(path, name)));
    });
    paths
}

/// The path that was probably meant: near as a whole, or the same last name in another section.
fn suggestion(full: &str) -> Option<String> {
    let paths = paths();
    if let Some(path) = nearest(full, paths.iter().map(String::as_str)) {
        return Some(path.to_owned());
    }
    let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let wanted = last(full);
    let mut same = paths.iter().filter(|path| last(path) == wanted);
    match (same.next(), same.next()) {
        (Some(path), None) => Some(path.clone()),
        // One name in two sections: naming one of them would be a guess.
        (Some(_), Some(_)) => None,
        (None, _) => {
            let lasts: Vec<_> = paths.iter().map(|path| last(path)).collect();
            let name = nearest(&wanted, lasts.iter().map(String::as_str))?;
            let mut near = paths.iter().filter(|path| last(path) == name);
            match (near.next(), near.next()) {
                (Some(path), None) => Some(path.clone()),
                _ => None,
            }
        }
    }
}
