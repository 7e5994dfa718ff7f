//! `wharf role`.

use clap::Subcommand;
use serde_json::{Value, json};
use wharf_oci::percent::encode_query;

use super::super::client::{Where, as_json, text};
use super::super::exit::Outcome;
use super::super::print;
use super::{LISTED, change, columns};

/// What can be done with roles.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RoleCommand {
    /// List roles and what they are made of
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Make a role, or change what it is made of wherever it is granted
    Set {
        /// Its name: a-z, 0-9, `-`, `_`, `.`
        name: String,
        /// Permissions separated by commas, as in pull,catalog
        permissions: String,
        #[command(flatten)]
        at: Where,
    },
    /// Remove a role that is granted nowhere
    Remove {
        /// Its name
        name: String,
        #[command(flatten)]
        at: Where,
    },
}

fn path(name: &str) -> String {
    format!("/api/v1/roles/{}", encode_query(name))
}

pub(super) fn run(command: &RoleCommand) -> Outcome {
    match command {
        RoleCommand::List { json, at } => {
            let all = at.client()?.list("/api/v1/roles", LISTED)?;
            if *json {
                return print(&as_json(&Value::from(all)));
            }
            let rows: Vec<_> = all.iter().map(row).collect();
            print(&columns(["ROLE", "ORIGIN", "PERMISSIONS"], &rows))
        }
        RoleCommand::Set {
            name,
            permissions,
            at,
        } => {
            let words: Vec<&str> = permissions.split(',').map(str::trim).collect();
            change(
                at,
                "PUT",
                &path(name),
                Some(&json!({ "permissions": words })),
            )
        }
        RoleCommand::Remove { name, at } => change(at, "DELETE", &path(name), None),
    }
}

fn row(role: &Value) -> [String; 3] {
    let permissions = role["permissions"].as_array().into_iter().flatten();
    let permissions: Vec<String> = permissions.map(text).collect();
    let origin = match role["built_in"].as_bool() {
        Some(true) => "built in",
        _ => "own",
    };
    [
        text(&role["name"]),
        origin.to_owned(),
        permissions.join(" "),
    ]
}
