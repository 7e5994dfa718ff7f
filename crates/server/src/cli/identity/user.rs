//! `wharf user`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};
use wharf_oci::percent::encode_query;

use super::super::client::{Where, as_json, moment, text};
use super::super::exit::{Failure, Outcome};
use super::super::gc::time;
use super::super::print;
use super::super::storage::read_password;
use super::LISTED;

/// What can be done with local users.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum UserCommand {
    /// Make a user with a password
    ///
    /// Prints a random one, unless --password-file gives one. The user may do nothing until granted something.
    Create {
        /// The name
        name: String,
        /// File that holds the password; `-` reads it from standard input
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        at: Where,
    },
    /// List local users
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Give a user another password
    ///
    /// Prints a random one, unless --password-file gives one. Whoever signed in with the old password is signed out; API
    /// tokens stay.
    SetPassword {
        /// The name
        name: String,
        /// File that holds the password; `-` reads it from standard input
        #[arg(long, value_name = "FILE")]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        at: Where,
    },
    /// Lock a user out, with all API tokens, until `wharf user enable`
    Disable {
        /// The name
        name: String,
        #[command(flatten)]
        at: Where,
    },
    /// Let a user in again, with the password and the tokens there were
    Enable {
        /// The name
        name: String,
        #[command(flatten)]
        at: Where,
    },
    /// Remove a user with all API tokens
    Remove {
        /// The name
        name: String,
        #[command(flatten)]
        at: Where,
    },
}

/// Where a user is.
pub(super) fn path(name: &str) -> String {
    format!("/api/v1/users/{}", encode_query(name))
}

fn password(file: Option<&Path>) -> Result<Option<String>, Failure> {
    let read = file.map(read_password).transpose()?;
    Ok(read.map(|hidden| hidden.0))
}

/// Says what became of a password, or prints the one that was made.
fn shown(name: &str, made: &Value) -> Outcome {
    match made["password"].as_str() {
        None => print(&format!("The user {name} has this password.\n")),
        Some(password) => {
            eprintln!("The password of {name}, shown only now:");
            print(&format!("{password}\n"))
        }
    }
}

fn disable(at: &Where, name: &str, disabled: bool) -> Outcome {
    let body = json!({ "disabled": disabled });
    at.client()?.send("PATCH", &path(name), Some(&body))?;
    print("Done.\n")
}

pub(super) fn run(command: &UserCommand) -> Outcome {
    match command {
        UserCommand::Create {
            name,
            password_file,
            at,
        } => {
            let body = json!({ "name": name, "password": password(password_file.as_deref())? });
            let client = at.client()?;
            shown(name, &client.send("POST", "/api/v1/users", Some(&body))?)
        }
        UserCommand::SetPassword {
            name,
            password_file,
            at,
        } => {
            let body = json!({ "password": password(password_file.as_deref())? });
            let path = format!("{}/password", path(name));
            shown(name, &at.client()?.send("PUT", &path, Some(&body))?)
        }
        UserCommand::List { json, at } => {
            let users = at.client()?.list("/api/v1/users", LISTED)?;
            match json {
                true => print(&as_json(&Value::from(users))),
                false => print(&people(&users)),
            }
        }
        UserCommand::Disable { name, at } => disable(at, name, true),
        UserCommand::Enable { name, at } => disable(at, name, false),
        UserCommand::Remove { name, at } => {
            at.client()?.send("DELETE", &path(name), None)?;
            print("Done.\n")
        }
    }
}

fn people(users: &[Value]) -> String {
    let mut out = format!("{:<32}{:<22}{:<22}STATE\n", "NAME", "MADE", "PASSWORD SET");
    for user in users {
        let at = |field: &str| moment(&user[field]).map(time);
        let state = match at("disabled_at") {
            Some(since) => format!("locked out since {since}"),
            None => "can sign in".to_owned(),
        };
        let (made, set) = (at("created_at"), at("password_set_at"));
        let (made, set) = (made.unwrap_or_default(), set.unwrap_or_default());
        out.push_str(&format!(
            "{:<32}{made:<22}{set:<22}{state}\n",
            text(&user["name"])
        ));
    }
    out
}
