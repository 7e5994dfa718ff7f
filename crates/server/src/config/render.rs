//! The configuration as text: `config show`, `config defaults` and the reference page.
//!
//! All of it comes from the outline, so that nothing about a key is written twice. Secrets are never shown: their type
//! renders as hidden.

use std::fmt::Write as _;

use super::load::{Sources, example_of, variable_of};
use super::problem::Source;
use super::section::{Key, Outline, Section, When, join, paragraph};
use super::sections::Config;

/// Doc comments and TOML comments are wrapped at this column.
const WIDTH: usize = 100;

/// Every value as TOML, each with its source in a comment.
#[must_use]
pub fn show(config: &Config, sources: &Sources) -> String {
    let mut out = String::new();
    show_section(config, "", sources, &mut out);
    out
}

fn show_section(section: &dyn Section, path: &str, sources: &Sources, out: &mut String) {
    let outline = section.outline();
    if !path.is_empty() && (!outline.keys.is_empty() || outline.sections.is_empty()) {
        head(out, &format!("[{path}]"));
        let lines = outline.keys.iter().map(|key| {
            let source = sources
                .get(&join(path, key.name))
                .unwrap_or(&Source::Default);
            (assignment(key, section.get(key.name)), source.to_string())
        });
        aligned(lines.collect(), out);
    }
    for (name, _) in outline.sections {
        if let Some(inner) = section.section(name) {
            show_section(inner, &join(path, name), sources, out);
        }
    }
    for (name, table) in outline.tables {
        let list = join(path, name);
        for (index, entry) in section.tables(name).into_iter().enumerate() {
            let source = sources
                .get(&format!("{list}[{index}]"))
                .unwrap_or(&Source::Default);
            head(out, &format!("[[{list}]]"));
            let lines = table
                .keys
                .iter()
                .map(|key| (assignment(key, entry.get(key.name)), source.to_string()));
            aligned(lines.collect(), out);
        }
    }
}

fn head(out: &mut String, line: &str) {
    if !out.is_empty() {
        out.push('\n');
    }
    let _ = writeln!(out, "{line}");
}

fn assignment(key: &Key, value: Option<String>) -> String {
    match value {
        Some(value) => format!("{} = {value}", key.name),
        None => format!("# {} is unset", key.name),
    }
}

fn aligned(lines: Vec<(String, String)>, out: &mut String) {
    let width = lines
        .iter()
        .map(|(line, _)| line.chars().count())
        .max()
        .unwrap_or(0)
        .min(48);
    for (line, source) in lines {
        let _ = writeln!(out, "{line:width$}  # {source}");
    }
}

/// A whole configuration file with the defaults and everything that is known about each key.
#[must_use]
pub fn defaults() -> String {
    let mut out = String::from(
        "# Every key of Wharf's configuration with its default. Give this file with --config FILE.\n\
         # Keys that are unset by default are commented out, with an example.\n",
    );
    Config::OUTLINE.walk("", &mut |path, outline| {
        defaults_section(path, outline, &mut out)
    });
    out
}

fn defaults_section(path: &str, outline: &Outline, out: &mut String) {
    if !path.is_empty() {
        out.push('\n');
        comment(&paragraph(outline.doc), out);
        let _ = writeln!(out, "[{path}]");
        for key in outline.keys {
            comment(&key.text(), out);
            match (key.default)() {
                Some(value) => {
                    let _ = writeln!(out, "{} = {value}", key.name);
                }
                None => {
                    let _ = writeln!(out, "# {} = {}", key.name, (key.example)());
                }
            }
        }
    }
    for (name, table) in outline.tables {
        out.push('\n');
        comment(&paragraph(table.doc), out);
        let _ = writeln!(out, "# [[{}]]", join(path, name));
        for key in table.keys {
            comment(&key.text(), out);
            let _ = writeln!(out, "# {} = {}", key.name, (key.example)());
        }
    }
}

fn comment(text: &str, out: &mut String) {
    for line in wrap(text, WIDTH - 2) {
        let _ = writeln!(out, "# {line}");
    }
}

/// Breaks text at blanks.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let full = lines.last().is_some_and(|line| {
            !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width
        });
        if full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// The page `docs/reference/configuration.md`.
#[must_use]
pub fn reference() -> String {
    let mut out = String::from(include_str!("reference_head.md"));
    Config::OUTLINE.walk("", &mut |path, outline| {
        if !path.is_empty() {
            let _ = write!(out, "\n## `[{path}]`\n\n{}\n", paragraph(outline.doc));
            for key in outline.keys {
                reference_key(path, key, &mut out);
            }
        }
        for (name, table) in outline.tables {
            let list = join(path, name);
            let _ = write!(
                out,
                "\n## `[[{list}]]`\n\n{}\n\nMay be repeated. In the environment: `{}='{}'`.\n{}\n",
                paragraph(table.doc),
                variable_of(&list),
                example_of(table),
                match table.is_live() {
                    true => "A reload applies changes.",
                    false => "A change needs a restart.",
                },
            );
            for key in table.keys {
                let need = if key.required {
                    "Required."
                } else {
                    "May be left out."
                };
                let _ = write!(
                    out,
                    "\n### `{list}.{}`\n\n{}\n\n- Value: {}. {need}\n",
                    key.name,
                    key.text(),
                    (key.expects)()
                );
                if let (false, Some(default)) = (key.required, (key.default)()) {
                    let _ = writeln!(out, "- Default: `{default}`.");
                }
                if key.secret {
                    let _ = writeln!(out, "- From a file: `{}_file`.", key.name);
                }
            }
        }
    });
    out
}

fn reference_key(path: &str, key: &Key, out: &mut String) {
    let full = join(path, key.name);
    let default = match (key.default)() {
        Some(value) => format!("`{value}`"),
        None => "unset".to_owned(),
    };
    let _ = write!(
        out,
        "\n### `{full}`\n\n{}\n\n- Value: {}.\n- Default: {default}.\n",
        key.text(),
        (key.expects)()
    );
    let mut names = format!("- Environment: `{}`", variable_of(&full));
    if let Some(env) = key.env {
        let _ = write!(names, " or `{env}`");
    }
    names.push_str(".\n");
    if let Some((flag, _)) = key.flag {
        let repeat = if key.list { " (may be repeated)" } else { "" };
        let _ = writeln!(names, "- Flag: `--{flag}`{repeat}.");
    }
    if key.secret {
        let _ = write!(
            names,
            "- From a file: `{full}_file`, `{}_FILE`",
            variable_of(&full)
        );
        if let Some(env) = key.env {
            let _ = write!(names, " or `{env}_FILE`");
        }
        names.push_str(".\n");
    }
    out.push_str(&names);
    out.push_str(match key.when {
        When::live => "- A reload applies changes.\n",
        When::restart => "- A change needs a restart.\n",
    });
}
