//! `wharf token`.

use clap::Subcommand;
use serde_json::{Value, json};
use wharf_oci::percent::encode_query;

use super::super::client::{Where, as_json, text};
use super::super::exit::Outcome;
use super::super::print;
use super::user::path;
use super::{LISTED, secret, secrets, span};

/// What can be done with API tokens.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum TokenCommand {
    /// Give a user an API token and print it
    ///
    /// It is used instead of the password, and never may more than its user. It is shown only now.
    Create {
        /// The user
        user: String,
        /// What to call it, so that it can be told from others
        #[arg(long)]
        name: String,
        /// What it leaves of the user's rights: roles or permissions, and where, such as reader:team/a or pull,push:team
        /// [may be repeated]
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// How long it lives, such as 30d; at most auth.longest_lifetime [default: 90d]
        #[arg(long, value_name = "DURATION", value_parser = span)]
        expires: Option<i64>,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
    /// List a user's API tokens, when they end and when they were used last
    List {
        /// The user
        user: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
    /// End an API token, or one secret of a robot, with all that was bought with it
    Revoke {
        /// Its id, as lists show it
        id: String,
        #[command(flatten)]
        at: Where,
    },
}

pub(super) fn run(command: &TokenCommand) -> Outcome {
    match command {
        TokenCommand::Create {
            user,
            name,
            scopes,
            expires,
            json,
            at,
        } => {
            let body = json!({ "name": name, "scopes": scopes, "lifetime": expires });
            let path = format!("{}/tokens", path(user));
            secret(&at.client()?.send("POST", &path, Some(&body))?, *json)
        }
        TokenCommand::List { user, json, at } => {
            let path = format!("{}/tokens", path(user));
            let tokens = at.client()?.list(&path, LISTED)?;
            match json {
                true => print(&as_json(&Value::from(tokens))),
                false => print(&secrets(&tokens)),
            }
        }
        TokenCommand::Revoke { id, at } => {
            let path = format!("/api/v1/credentials/{}", encode_query(id));
            let gone = at.client()?.send("DELETE", &path, None)?;
            let whose = text(&gone["principal"]);
            print(&format!("A credential of {whose} has ended.\n"))
        }
    }
}
