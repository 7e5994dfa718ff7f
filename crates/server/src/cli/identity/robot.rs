//! `wharf robot`.

use clap::Subcommand;
use serde_json::{Value, json};
use wharf_oci::percent::{encode_path, encode_query};

use super::super::client::{Client, Where, as_json, moment, text};
use super::super::exit::{Failure, Outcome};
use super::super::gc::time;
use super::super::print;
use super::{LISTED, secret, secrets, span};

/// What can be done with robots.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RobotCommand {
    /// Make a robot and print its secret
    ///
    /// It may do nothing but what --role says, until granted more. The secret is shown only now.
    Create {
        /// Its name, NAMESPACE+NAME, such as team/a+ci
        name: String,
        /// How long it lives, such as 90d; at most auth.longest_lifetime [default: 90d]
        #[arg(long, value_name = "DURATION", value_parser = span)]
        expires: Option<i64>,
        /// Network from which it may come, such as 10.0.0.0/8 [may be repeated]
        #[arg(long, value_name = "CIDR")]
        from: Vec<String>,
        /// A role that it has on its namespace from the start, or with ROLE:PATH below it [may be repeated]
        #[arg(long = "role", value_name = "ROLE")]
        roles: Vec<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Change how long a robot lives, or from where it may come; its secrets stay as they are
    #[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
    Set {
        /// Its name
        name: String,
        /// How long it lives from now on, such as 90d; its secrets end when they would have ended
        #[arg(long, value_name = "DURATION", value_parser = span, group = "change")]
        expires: Option<i64>,
        /// Network from which it may come from now on, in place of all before, such as 10.0.0.0/8 [may be repeated]
        #[arg(long, value_name = "CIDR", group = "change")]
        from: Vec<String>,
        /// It may come from everywhere
        #[arg(long, group = "change", conflicts_with = "from")]
        from_everywhere: bool,
        #[command(flatten)]
        at: Where,
    },
    /// List robots with their secrets, when they end and when they were used last
    List {
        /// Only those of this namespace
        #[arg(long)]
        namespace: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Give a robot another secret and print it
    ///
    /// The secret that it had stays good for the time of --overlap, so that programs can be moved to the new one one by one.
    /// A robot has two secrets at most.
    Rotate {
        /// Its name
        name: String,
        /// How long the old secret goes on
        #[arg(long, value_name = "DURATION", value_parser = span, default_value = "24h")]
        overlap: i64,
        /// How long the robot lives from now on, such as 90d [default: 90d]
        #[arg(long, value_name = "DURATION", value_parser = span)]
        expires: Option<i64>,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Lock a robot out, until `wharf robot enable`
    Disable {
        /// Its name
        name: String,
        #[command(flatten)]
        at: Where,
    },
    /// Let a robot in again
    Enable {
        /// Its name
        name: String,
        #[command(flatten)]
        at: Where,
    },
    /// Remove a robot with its secrets
    Remove {
        /// Its name
        name: String,
        #[command(flatten)]
        at: Where,
    },
}

/// Where a robot is.
fn path(name: &str) -> String {
    format!("/api/v1/robots/{}", encode_path(name))
}

/// Robots, all or those of one namespace.
pub(in crate::cli) fn robots(
    client: &Client,
    namespace: Option<&str>,
) -> Result<Vec<Value>, Failure> {
    let wanted = namespace.map(|namespace| format!("?namespace={}", encode_query(namespace)));
    let path = format!("/api/v1/robots{}", wanted.unwrap_or_default());
    client.list(&path, LISTED)
}

/// Makes a robot; gives it with its secret. Each role is on its namespace, or behind a colon where else below it.
pub(in crate::cli) fn make(
    client: &Client,
    name: &str,
    lifetime: Option<i64>,
    networks: &[String],
    roles: &[(String, Option<String>)],
) -> Result<Value, Failure> {
    let bindings = roles
        .iter()
        .map(|(role, on)| json!({ "role": role, "on": on }));
    let body = json!({
        "name": name,
        "lifetime": lifetime,
        "networks": networks,
        "bindings": bindings.collect::<Vec<_>>(),
    });
    client.send("POST", "/api/v1/robots", Some(&body))
}

/// Gives a robot another secret.
pub(in crate::cli) fn rotate(
    client: &Client,
    name: &str,
    overlap: i64,
    lifetime: Option<i64>,
) -> Result<Value, Failure> {
    let body = json!({ "overlap": overlap, "lifetime": lifetime });
    client.send("POST", &format!("{}/-/rotate", path(name)), Some(&body))
}

fn disable(at: &Where, name: &str, disabled: bool) -> Outcome {
    let body = json!({ "disabled": disabled });
    at.client()?.send("PATCH", &path(name), Some(&body))?;
    print("Done.\n")
}

pub(super) fn run(command: &RobotCommand) -> Outcome {
    match command {
        RobotCommand::Create {
            name,
            expires,
            from,
            roles,
            json,
            at,
        } => {
            let roles = roles.iter().map(|text| match text.split_once(':') {
                Some((role, on)) => (role.to_owned(), Some(on.to_owned())),
                None => (text.clone(), None),
            });
            let roles: Vec<_> = roles.collect();
            secret(&make(&at.client()?, name, *expires, from, &roles)?, *json)
        }
        RobotCommand::Set {
            name,
            expires,
            from,
            from_everywhere,
            at,
        } => {
            let networks = (*from_everywhere || !from.is_empty()).then_some(from);
            let body = json!({ "lifetime": expires, "networks": networks });
            at.client()?.send("PATCH", &path(name), Some(&body))?;
            print("Done.\n")
        }
        RobotCommand::List {
            namespace,
            json,
            at,
        } => {
            let robots = robots(&at.client()?, namespace.as_deref())?;
            match json {
                true => print(&as_json(&Value::from(robots))),
                false => print(&machines(&robots)),
            }
        }
        RobotCommand::Rotate {
            name,
            overlap,
            expires,
            json,
            at,
        } => secret(&rotate(&at.client()?, name, *overlap, *expires)?, *json),
        RobotCommand::Disable { name, at } => disable(at, name, true),
        RobotCommand::Enable { name, at } => disable(at, name, false),
        RobotCommand::Remove { name, at } => {
            at.client()?.send("DELETE", &path(name), None)?;
            print("Done.\n")
        }
    }
}

pub(super) fn machines(robots: &[Value]) -> String {
    let mut out = String::new();
    for robot in robots {
        let at = |field: &str| moment(&robot[field]).map(time);
        let state = match (at("disabled_at"), at("expires_at")) {
            (Some(since), _) => format!("locked out since {since}"),
            (None, Some(end)) => format!("until {end}"),
            (None, None) => String::new(),
        };
        let networks = robot["networks"].as_array().into_iter().flatten();
        let networks: Vec<String> = networks.map(text).collect();
        let from = match networks.is_empty() {
            true => String::new(),
            false => format!(", only from {}", networks.join(",")),
        };
        out.push_str(&format!("{}  {state}{from}\n", text(&robot["name"])));
        let held = robot["secrets"].as_array().cloned().unwrap_or_default();
        let lines = secrets(&held);
        out.extend(lines.lines().map(|line| format!("  {line}\n")));
    }
    if out.is_empty() {
        out.push_str("There are none.\n");
    }
    out
}
