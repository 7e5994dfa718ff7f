//! What is wrong with a configuration, and where.
//!
//! Never holds the text of a line or of a value that may be secret: only names, positions and what was expected.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody said anything.
    Default,
    /// A line of the configuration file.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Env(String),
    /// A flag, with its dashes.
    Flag(String),
}

impl Source {
    /// The line, if it is in a file.
    pub(crate) fn line(&self) -> Option<usize> {
        match self {
            Self::File { line, .. } => Some(*line),
            _ => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => out.write_str("default"),
            Self::File { path, line } => write!(out, "{}:{line}", path.display()),
            Self::Env(name) => out.write_str(name),
            Self::Flag(name) => out.write_str(name),
        }
    }
}

/// One thing that is wrong, or that deserves a warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub at: Source,
    /// What.
    pub what: String,
    /// The way out.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            Source::Default => {}
            at => write!(out, "{at}: ")?,
        }
        out.write_str(&self.what)?;
        match &self.help {
            Some(help) => write!(out, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong: never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                out.write_str("\n")?;
            }
            problem.fmt(out)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The line of a byte position, counted from 1.
#[must_use]
pub(super) fn line_of(text: &str, position: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(position)
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

/// A position in a file.
#[must_use]
pub(crate) fn in_file(path: &Path, text: &str, position: usize) -> Source {
    Source::File {
        path: path.to_owned(),
        line: line_of(text, position),
    }
}
