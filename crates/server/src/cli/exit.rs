//! How a command ends: the exit codes, documented in `docs/reference/cli.md`.

use std::fmt;
use std::process::ExitCode;

use crate::app::{AppError, DataError};
use crate::config::Problems;

/// What went wrong, as a number for scripts. 0 is success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Anything that is not listed below.
    Failure = 1,
    /// The command line or the configuration is wrong. Nothing was started.
    Usage = 2,
    /// The data folder was refused: in use, foreign, damaged, from a newer version, not writable.
    Data = 3,
    /// A check found damage: `storage verify`, `backup verify`, `audit verify`, or a backup that lacks bytes.
    Damage = 4,
    /// An address cannot be listened on.
    Listen = 5,
}

impl Exit {
    /// All of them with what they mean, for the reference page.
    pub const ALL: [(Self, &'static str); 5] = [
        (
            Self::Failure,
            "anything else went wrong; the message says what",
        ),
        (
            Self::Usage,
            "the command line or the configuration is wrong; nothing was started",
        ),
        (
            Self::Data,
            "the data folder was refused: in use, foreign, damaged, newer, not writable, or not there",
        ),
        (
            Self::Damage,
            "a check found damage, somebody tampered with the audit log, or a backup lacks bytes that the registry has lost",
        ),
        (Self::Listen, "an address cannot be listened on"),
    ];
}

/// Why a command ends without success.
#[derive(Debug)]
pub struct Failure {
    /// The number.
    pub exit: Exit,
    /// The words.
    pub error: anyhow::Error,
}

/// What commands give back.
pub type Outcome = Result<(), Failure>;

impl Failure {
    /// With this number.
    pub fn new(exit: Exit, error: impl Into<anyhow::Error>) -> Self {
        Self {
            exit,
            error: error.into(),
        }
    }

    /// With this number, made of text.
    pub fn text(exit: Exit, text: impl fmt::Display) -> Self {
        Self {
            exit,
            error: anyhow::anyhow!("{text}"),
        }
    }

    /// With this number, and without words: they were said where a program looks for them.
    pub fn silent(exit: Exit) -> Self {
        Self::text(exit, "")
    }

    /// Says it on standard error.
    pub fn report(&self) -> ExitCode {
        if !self.error.to_string().is_empty() {
            eprintln!("{}", self.lines());
        }
        ExitCode::from(self.exit as u8)
    }

    /// One `error:` per line that begins a problem.
    fn lines(&self) -> String {
        let text = match self.error.downcast_ref::<Problems>() {
            Some(Problems(problems)) => problems
                .iter()
                .map(|problem| format!("error: {problem}"))
                .collect::<Vec<_>>()
                .join("\n"),
            None => format!("error: {}", whole(&self.error)),
        };
        text.trim_end().to_owned()
    }
}

/// An error with those of its causes that it does not tell itself.
fn whole(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let words = cause.to_string();
        match text.is_empty() {
            true => words,
            false if text.contains(&words) => text,
            false => format!("{text}: {words}"),
        }
    })
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self {
            exit: Exit::Failure,
            error,
        }
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::new(Exit::Usage, problems)
    }
}

impl From<DataError> for Failure {
    fn from(error: DataError) -> Self {
        Self::new(Exit::Data, error)
    }
}

impl From<AppError> for Failure {
    fn from(error: AppError) -> Self {
        let exit = match error {
            AppError::Access(_) | AppError::Directory(_) => Exit::Usage,
            AppError::Core(_) => Exit::Failure,
            AppError::Storage(_) => Exit::Data,
        };
        Self::new(exit, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Problem, Source};

    #[test]
    fn each_problem_is_an_error_of_its_own() {
        let problem = |what: &str| Problem {
            at: Source::Flag("--data".into()),
            what: what.into(),
            help: Some("h".into()),
        };
        let failure = Failure::from(Problems(vec![problem("one"), problem("two")]));
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(
            failure.lines(),
            "error: --data: one\n  help: h\nerror: --data: two\n  help: h"
        );
    }

    #[test]
    fn a_cause_is_told_once() {
        let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
        let error = DataError::Folder {
            folder: "/x".into(),
            source: missing(),
        };
        let told = Failure::from(error).lines();
        assert_eq!(told.matches(&missing().to_string()).count(), 1, "{told}");
        let told = anyhow::Error::new(missing()).context("while looking");
        let told = Failure::from(told).lines();
        assert_eq!(told, format!("error: while looking: {}", missing()));
    }

    #[test]
    fn codes_are_documented_in_order() {
        let codes: Vec<_> = Exit::ALL.iter().map(|(exit, _)| *exit as u8).collect();
        assert_eq!(codes, [1, 2, 3, 4, 5]);
    }
}
