//! `wharf user`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};
use wharf_oci::percent::encode_query;

use super::super::client::{Client, Where, as_json, moment, text};
use super::super::exit::{Exit, Failure, Outcome};
use super::super::gc::time;
use super::super::print;
use super::super::storage::read_password;
use super::{LISTED, span};

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
    /// Invite somebody to become a local user, and print the link
    ///
    /// Whoever opens the link chooses a password, once; nobody else needs to know it. What --group and --role say is granted at once, and
    /// taken back if the link is not used in time. A second invitation of the same name ends the first.
    Invite {
        /// What the user will be called
        name: String,
        /// A group in which the user shall be [may be repeated]
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<String>,
        /// A role everywhere, or with ROLE:PATH on a namespace [may be repeated]
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// How long the link is good, such as 2d; 30d at most [default: 7d]
        #[arg(long, value_name = "DURATION", value_parser = span)]
        expires: Option<i64>,
        /// Address of the registry as people open it; otherwise that of the context, or server.external_url
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        #[command(flatten)]
        at: Where,
    },
    /// List invitations that were not used yet
    Invitations {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Take an invitation back, with what was granted to its name
    Withdraw {
        /// Its id, as `wharf user invitations` shows it
        id: String,
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
    /// Show a user and the accounts with which the user signs in from outside
    Show {
        /// The name
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Say which user an account of a provider is
    ///
    /// Whoever signs in with it is that user from then on. One that is not there is made, without a password.
    Link {
        /// The user
        name: String,
        /// The provider, as the configuration calls it
        #[arg(long, value_name = "NAME")]
        provider: String,
        /// What the provider calls the account for good: the `sub` of its tokens
        #[arg(long, value_name = "TEXT")]
        subject: String,
        #[command(flatten)]
        at: Where,
    },
    /// Take an account of a provider from its user, whose sessions with it end
    Unlink {
        /// The user
        name: String,
        /// The provider, as the configuration calls it
        #[arg(long, value_name = "NAME")]
        provider: String,
        /// What the provider calls the account for good
        #[arg(long, value_name = "TEXT")]
        subject: String,
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
        UserCommand::Invite {
            name,
            groups,
            roles,
            expires,
            url,
            at,
        } => {
            let client = at.client()?;
            let url = address(&client, url.as_deref())?;
            let bindings = roles.iter().map(|role| {
                let (role, on) = role.split_once(':').unwrap_or((role, ""));
                json!({ "role": role, "on": on })
            });
            let bindings: Vec<Value> = bindings.collect();
            let body = json!({
                "name": name,
                "groups": groups,
                "bindings": bindings,
                "lifetime": expires,
            });
            let made = client.send("POST", "/api/v1/invitations", Some(&body))?;
            eprintln!(
                "The link for {name}, shown only now and good once until {} (its id: {}):",
                moment(&made["expires_at"]).map_or_else(String::new, time),
                text(&made["id"])
            );
            print(&format!("{url}/invitation#{}\n", text(&made["secret"])))
        }
        UserCommand::Invitations { json, at } => {
            let all = at.client()?.list("/api/v1/invitations", LISTED)?;
            match json {
                true => print(&as_json(&Value::from(all))),
                false => print(&invitations(&all)),
            }
        }
        UserCommand::Withdraw { id, at } => {
            let path = format!("/api/v1/invitations/{}", encode_query(id));
            at.client()?.send("DELETE", &path, None)?;
            print("Done.\n")
        }
        UserCommand::Disable { name, at } => disable(at, name, true),
        UserCommand::Enable { name, at } => disable(at, name, false),
        UserCommand::Show { name, json, at } => {
            let client = at.client()?;
            let mut user = client.send("GET", &path(name), None)?;
            let accounts = client.list(&format!("{}/accounts", path(name)), LISTED)?;
            match json {
                true => {
                    user["accounts"] = Value::from(accounts);
                    print(&as_json(&user))
                }
                false => print(&format!("{}{}", people(&[user]), shown_accounts(&accounts))),
            }
        }
        UserCommand::Link {
            name,
            provider,
            subject,
            at,
        } => {
            let body = json!({ "provider": provider, "subject": subject });
            let path = format!("{}/accounts", path(name));
            at.client()?.send("POST", &path, Some(&body))?;
            print("Done.\n")
        }
        UserCommand::Unlink {
            name,
            provider,
            subject,
            at,
        } => {
            let (provider, subject) = (encode_query(provider), encode_query(subject));
            let path = format!(
                "{}/accounts?provider={provider}&subject={subject}",
                path(name)
            );
            at.client()?.send("DELETE", &path, None)?;
            print("Done.\n")
        }
        UserCommand::Remove { name, at } => {
            at.client()?.send("DELETE", &path(name), None)?;
            print("Done.\n")
        }
    }
}

/// Where people open the registry, without a slash at its end.
fn address(client: &Client, given: Option<&str>) -> Result<String, Failure> {
    let known = given.map(str::to_owned).or_else(|| client.url());
    let known = known.ok_or_else(|| {
        let text = "a link needs the address of the registry: give --url https://registry.example.com, or set server.external_url";
        Failure::text(Exit::Usage, text)
    })?;
    if !known.starts_with("https://") && !known.starts_with("http://") {
        let text = format!("--url {known}: write it like https://registry.example.com");
        return Err(Failure::text(Exit::Usage, text));
    }
    Ok(known.trim_end_matches('/').to_owned())
}

fn invitations(all: &[Value]) -> String {
    let mut out = format!("{:<18}{:<32}{:<22}INVITED BY\n", "ID", "NAME", "ENDS");
    for one in all {
        out.push_str(&format!(
            "{:<18}{:<32}{:<22}{}\n",
            text(&one["id"]),
            text(&one["name"]),
            moment(&one["expires_at"]).map_or_else(String::new, time),
            text(&one["created_by"])
        ));
    }
    out
}

/// The accounts of a user, one each line.
fn shown_accounts(accounts: &[Value]) -> String {
    let mut out = String::new();
    for account in accounts {
        let groups = account["groups"].as_array().into_iter().flatten();
        let groups: Vec<String> = groups.map(text).collect();
        out.push_str(&format!(
            "\naccount   {} {}\nseen      {}\ngroups    {}\n",
            text(&account["provider"]),
            text(&account["subject"]),
            moment(&account["seen_at"]).map_or_else(|| "never".to_owned(), time),
            match groups.is_empty() {
                true => "none".to_owned(),
                false => groups.join(", "),
            }
        ));
    }
    out
}

fn people(users: &[Value]) -> String {
    let mut out = format!(
        "{:<32}{:<22}{:<22}{:<16}STATE\n",
        "NAME", "MADE", "PASSWORD SET", "FROM"
    );
    for user in users {
        let at = |field: &str| moment(&user[field]).map(time);
        let state = match at("disabled_at") {
            Some(since) => format!("locked out since {since}"),
            None => "can sign in".to_owned(),
        };
        let (made, set) = (at("created_at"), at("password_set_at"));
        let (made, set) = (made.unwrap_or_default(), set.unwrap_or_default());
        let from = user["providers"].as_array().into_iter().flatten();
        let from = from.map(text).collect::<Vec<_>>().join(", ");
        let from = match from.is_empty() {
            true => "here".to_owned(),
            false => from,
        };
        out.push_str(&format!(
            "{:<32}{made:<22}{set:<22}{from:<16}{state}\n",
            text(&user["name"])
        ));
    }
    out
}
