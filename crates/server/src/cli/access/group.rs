//! `wharf group`.

use clap::Subcommand;
use serde_json::{Value, json};
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
        /// Whoever is in this group of a provider is in it, such as corp:developers [may be repeated]
        #[arg(long = "from", value_name = "PROVIDER:GROUP")]
        from: Vec<String>,
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
    /// Let whoever is in a provider's group be in a group
    AddSource {
        /// The group
        group: String,
        /// The provider's group, such as corp:developers
        #[arg(value_name = "PROVIDER:GROUP")]
        source: String,
        #[command(flatten)]
        at: Where,
    },
    /// Let a provider's group lead to a group no longer
    RemoveSource {
        /// The group
        group: String,
        /// The provider's group, such as corp:developers
        #[arg(value_name = "PROVIDER:GROUP")]
        source: String,
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
                    print(&columns(["GROUP", "MEMBERS", "FROM"], &rows))
                }
            }
        }
        GroupCommand::Create { name, from, at } => {
            for source in from {
                at.client()?.send("PUT", &group(name), None)?;
                let body = json!({ "source": source });
                at.client()?.send("POST", &sources(name), Some(&body))?;
            }
            match from.is_empty() {
                true => change(at, "PUT", &group(name), None),
                false => print("Done.\n"),
            }
        }
        GroupCommand::AddSource { group, source, at } => {
            let body = json!({ "source": source });
            change(at, "POST", &sources(group), Some(&body))
        }
        GroupCommand::RemoveSource { group, source, at } => {
            let path = format!("{}?source={}", sources(group), encode_query(source));
            change(at, "DELETE", &path, None)
        }
        GroupCommand::Remove { name, at } => change(at, "DELETE", &group(name), None),
        GroupCommand::AddMember { group, who, at } => change(at, "PUT", &member(group, who), None),
        GroupCommand::RemoveMember { group, who, at } => {
            change(at, "DELETE", &member(group, who), None)
        }
    }
}

fn sources(name: &str) -> String {
    format!("{}/sources", group(name))
}

fn row(group: &Value) -> [String; 3] {
    let words = |field: &str| {
        let words = group[field].as_array().into_iter().flatten();
        words.map(text).collect::<Vec<_>>()
    };
    let (mut members, outside) = (words("members"), words("outside"));
    let outside = outside.into_iter();
    let outside: Vec<_> = outside.filter(|who| !members.contains(who)).collect();
    members.extend(outside);
    [
        text(&group["name"]),
        members.join(", "),
        words("sources").join(", "),
    ]
}
