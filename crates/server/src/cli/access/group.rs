//! `wharf group`.

use clap::Subcommand;
use serde_json::Value;
use wharf_oci::percent::encode_query;

use super::super::client::{Where, as_json, text};
use super::super::exit::Outcome;
use super::super::print;
use super::{LISTED, change, columns};

/// What can be done with groups.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum GroupCommand {
    /// List groups and who is in them
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Make a group
    Create {
        /// Its name: a-z, 0-9, `-`, `_`, `.`
        name: String,
        #[command(flatten)]
        at: Where,
    },
    /// Remove a group and all that was granted to it
    Remove {
        /// Its name
        name: String,
        #[command(flatten)]
        at: Where,
    },
    /// Put a user or robot into a group
    AddMember {
        /// The group
        group: String,
        /// Who
        who: String,
        #[command(flatten)]
        at: Where,
    },
    /// Take a user or robot out of a group
    RemoveMember {
        /// The group
        group: String,
        /// Who
        who: String,
        #[command(flatten)]
        at: Where,
    },
}

fn group(name: &str) -> String {
    format!("/api/v1/groups/{}", encode_query(name))
}

fn member(name: &str, who: &str) -> String {
    format!("{}/members/{}", group(name), encode_query(who))
}

pub(super) fn run(command: &GroupCommand) -> Outcome {
    match command {
        GroupCommand::List { json, at } => {
            let all = at.client()?.list("/api/v1/groups", LISTED)?;
            match () {
                () if *json => print(&as_json(&Value::from(all))),
                () if all.is_empty() => print("No groups.\n"),
                () => {
                    let rows: Vec<_> = all.iter().map(row).collect();
                    print(&columns(["GROUP", "MEMBERS"], &rows))
                }
            }
        }
        GroupCommand::Create { name, at } => change(at, "PUT", &group(name), None),
        GroupCommand::Remove { name, at } => change(at, "DELETE", &group(name), None),
        GroupCommand::AddMember { group, who, at } => change(at, "PUT", &member(group, who), None),
        GroupCommand::RemoveMember { group, who, at } => {
            change(at, "DELETE", &member(group, who), None)
        }
    }
}

fn row(group: &Value) -> [String; 2] {
    let members = group["members"].as_array().into_iter().flatten();
    let members: Vec<String> = members.map(text).collect();
    [text(&group["name"]), members.join(", ")]
}
