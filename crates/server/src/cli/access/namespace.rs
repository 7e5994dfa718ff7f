//! `wharf namespace`.

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use wharf_oci::percent::encode_path;

use super::super::client::{Where, as_json, text};
use super::super::exit::Outcome;
use super::super::print;
use super::{LISTED, change, columns};

/// Who may pull from a namespace without a grant.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(in crate::cli) enum Visible {
    /// Nobody
    Private,
    /// Everybody who signed in
    Internal,
    /// Everybody
    Public,
}

impl Visible {
    fn word(self) -> String {
        match self {
            Self::Private => "private",
            Self::Internal => "internal",
            Self::Public => "public",
        }
        .to_owned()
    }
}

/// What can be done with namespaces.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum NamespaceCommand {
    /// List namespaces that have settings
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Set who may pull from a namespace without a grant
    Set {
        /// The namespace
        path: String,
        /// Who
        visibility: Visible,
        #[command(flatten)]
        at: Where,
    },
    /// Remove the settings of a namespace and every grant on exactly it; its repositories stay
    Remove {
        /// The namespace
        path: String,
        #[command(flatten)]
        at: Where,
    },
}

fn path(path: &str) -> String {
    format!(
        "/api/v1/namespaces/{}",
        encode_path(path.trim_end_matches('/'))
    )
}

pub(super) fn run(command: &NamespaceCommand) -> Outcome {
    match command {
        NamespaceCommand::List { json, at } => {
            let all = at.client()?.list("/api/v1/namespaces", LISTED)?;
            match () {
                () if *json => print(&as_json(&Value::from(all))),
                () if all.is_empty() => print("No namespace has settings; all are private.\n"),
                () => {
                    let row = |one: &Value| [text(&one["name"]), text(&one["visibility"])];
                    let rows: Vec<_> = all.iter().map(row).collect();
                    print(&columns(["NAMESPACE", "VISIBILITY"], &rows))
                }
            }
        }
        NamespaceCommand::Set {
            path: name,
            visibility,
            at,
        } => {
            let body = json!({ "visibility": visibility.word() });
            change(at, "PUT", &path(name), Some(&body))
        }
        NamespaceCommand::Remove { path: name, at } => change(at, "DELETE", &path(name), None),
    }
}
