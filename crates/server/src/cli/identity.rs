//! `wharf user`, `wharf robot` and `wharf token`: who can sign in.
//!
//! Only a secret goes to standard output, so that a script can take it; what people read beside it goes to standard error.

use std::path::PathBuf;

use clap::Subcommand;

use super::exit::{Exit, Failure, Outcome};
use super::flags::DataFlags;
use super::gc::time;
use super::offline::perform;
use super::print;
use super::storage::read_password;
use crate::admin::{
    Command, Hidden, Identity, IdentityReply, PersonView, Reply, RobotView, SecretView,
};
use crate::config::{Config, Inputs, load};

/// What can be done with local users.
#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
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
        flags: DataFlags,
    },
    /// List local users
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: DataFlags,
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
        flags: DataFlags,
    },
    /// Lock a user out, with all API tokens, until `wharf user enable`
    Disable {
        /// The name
        name: String,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Let a user in again, with the password and the tokens there were
    Enable {
        /// The name
        name: String,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Remove a user with all API tokens
    Remove {
        /// The name
        name: String,
        #[command(flatten)]
        flags: DataFlags,
    },
}

/// What can be done with robots.
#[derive(Debug, Subcommand)]
pub(super) enum RobotCommand {
    /// Make a robot and print its secret
    ///
    /// It may do nothing until granted something. The secret is shown only now.
    Create {
        /// Its name, NAMESPACE+NAME, such as team/a+ci
        name: String,
        /// How long it lives, such as 90d; at most auth.longest_lifetime [default: 90d]
        #[arg(long, value_name = "DURATION", value_parser = span)]
        expires: Option<i64>,
        /// Network from which it may come, such as 10.0.0.0/8 [may be repeated]
        #[arg(long, value_name = "CIDR")]
        from: Vec<String>,
        #[command(flatten)]
        flags: DataFlags,
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
        flags: DataFlags,
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
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Lock a robot out, until `wharf robot enable`
    Disable {
        /// Its name
        name: String,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Let a robot in again
    Enable {
        /// Its name
        name: String,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Remove a robot with its secrets
    Remove {
        /// Its name
        name: String,
        #[command(flatten)]
        flags: DataFlags,
    },
}

/// What can be done with API tokens.
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
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
        #[command(flatten)]
        flags: DataFlags,
    },
    /// List a user's API tokens, when they end and when they were used last
    List {
        /// The user
        user: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// End an API token, or one secret of a robot, with all that was bought with it
    Revoke {
        /// Its id, as lists show it
        id: String,
        #[command(flatten)]
        flags: DataFlags,
    },
}

pub(super) fn user(command: &UserCommand) -> Outcome {
    let password = |file: &Option<PathBuf>| file.as_deref().map(read_password).transpose();
    let shown = |reply: IdentityReply, name: &str, chosen: bool| match reply {
        IdentityReply::Password(_) if chosen => {
            print(&format!("The user {name} has this password.\n"))
        }
        IdentityReply::Password(Hidden(password)) => {
            eprintln!("The password of {name}, shown only now:");
            print(&format!("{password}\n"))
        }
        other => Err(unexpected(other)),
    };
    match command {
        UserCommand::Create {
            name,
            password_file,
            flags,
        } => {
            let (name, password) = (name.clone(), password(password_file)?);
            let chosen = password.is_some();
            let create = Identity::UserCreate {
                name: name.clone(),
                password,
            };
            shown(ask(&flags.inputs(), create)?, &name, chosen)
        }
        UserCommand::SetPassword {
            name,
            password_file,
            flags,
        } => {
            let (name, password) = (name.clone(), password(password_file)?);
            let chosen = password.is_some();
            let set = Identity::UserPassword {
                name: name.clone(),
                password,
            };
            shown(ask(&flags.inputs(), set)?, &name, chosen)
        }
        UserCommand::List { json, flags } => match ask(&flags.inputs(), Identity::UserList)? {
            IdentityReply::Users(users) if *json => as_json(&users),
            IdentityReply::Users(users) => print(&people(&users)),
            other => Err(unexpected(other)),
        },
        UserCommand::Disable { name, flags } => {
            let (name, disabled) = (name.clone(), true);
            done(&flags.inputs(), Identity::UserDisable { name, disabled })
        }
        UserCommand::Enable { name, flags } => {
            let (name, disabled) = (name.clone(), false);
            done(&flags.inputs(), Identity::UserDisable { name, disabled })
        }
        UserCommand::Remove { name, flags } => {
            let name = name.clone();
            done(&flags.inputs(), Identity::UserRemove { name })
        }
    }
}

pub(super) fn robot(command: &RobotCommand) -> Outcome {
    match command {
        RobotCommand::Create {
            name,
            expires,
            from,
            flags,
        } => {
            let create = Identity::RobotCreate {
                name: name.clone(),
                lifetime: *expires,
                networks: from.join(","),
                reads: None,
            };
            secret(ask(&flags.inputs(), create)?)
        }
        RobotCommand::List {
            namespace,
            json,
            flags,
        } => {
            let namespace = namespace.clone();
            match ask(&flags.inputs(), Identity::RobotList { namespace })? {
                IdentityReply::Robots(robots) if *json => as_json(&robots),
                IdentityReply::Robots(robots) => print(&machines(&robots)),
                other => Err(unexpected(other)),
            }
        }
        RobotCommand::Rotate {
            name,
            overlap,
            expires,
            flags,
        } => {
            let rotate = Identity::RobotRotate {
                name: name.clone(),
                overlap: *overlap,
                lifetime: *expires,
            };
            secret(ask(&flags.inputs(), rotate)?)
        }
        RobotCommand::Disable { name, flags } => {
            let (name, disabled) = (name.clone(), true);
            done(&flags.inputs(), Identity::RobotDisable { name, disabled })
        }
        RobotCommand::Enable { name, flags } => {
            let (name, disabled) = (name.clone(), false);
            done(&flags.inputs(), Identity::RobotDisable { name, disabled })
        }
        RobotCommand::Remove { name, flags } => {
            let name = name.clone();
            done(&flags.inputs(), Identity::RobotRemove { name })
        }
    }
}

pub(super) fn token(command: &TokenCommand) -> Outcome {
    match command {
        TokenCommand::Create {
            user,
            name,
            scopes,
            expires,
            flags,
        } => {
            let create = Identity::TokenCreate {
                user: user.clone(),
                name: name.clone(),
                scopes: scopes.clone(),
                lifetime: *expires,
            };
            secret(ask(&flags.inputs(), create)?)
        }
        TokenCommand::List { user, json, flags } => {
            let user = user.clone();
            match ask(&flags.inputs(), Identity::TokenList { user })? {
                IdentityReply::Tokens(tokens) if *json => as_json(&tokens),
                IdentityReply::Tokens(tokens) => print(&secrets(&tokens)),
                other => Err(unexpected(other)),
            }
        }
        TokenCommand::Revoke { id, flags } => {
            let id = id.clone();
            match ask(&flags.inputs(), Identity::TokenRevoke { id })? {
                IdentityReply::Revoked(whose) => {
                    print(&format!("A credential of {whose} has ended.\n"))
                }
                other => Err(unexpected(other)),
            }
        }
    }
}

/// Sends a command to the registry.
pub(super) fn ask(inputs: &Inputs, identity: Identity) -> Result<IdentityReply, Failure> {
    ask_of(&load(inputs)?.config, identity)
}

/// The same where the configuration is read already.
pub(super) fn ask_of(config: &Config, identity: Identity) -> Result<IdentityReply, Failure> {
    match perform(config, Command::Identity(identity))? {
        Reply::Identity(reply) => Ok(reply),
        other => Err(super::storage::unexpected(&other)),
    }
}

pub(super) fn unexpected(reply: IdentityReply) -> Failure {
    super::storage::unexpected(&Reply::Identity(reply))
}

fn done(inputs: &Inputs, identity: Identity) -> Outcome {
    match ask(inputs, identity)? {
        IdentityReply::Done => print("Done.\n"),
        other => Err(unexpected(other)),
    }
}

fn secret(reply: IdentityReply) -> Outcome {
    let IdentityReply::Secret {
        principal,
        id,
        secret: Hidden(secret),
        expires_at,
    } = reply
    else {
        return Err(unexpected(reply));
    };
    eprintln!(
        "The secret of {principal}, shown only now and good until {} (its id: {id}); sign in as {principal} with it:",
        time(expires_at)
    );
    print(&format!("{secret}\n"))
}

fn as_json<T: serde::Serialize>(rows: &[T]) -> Outcome {
    let json = serde_json::to_string_pretty(rows);
    let json = json.map_err(|error| Failure::text(Exit::Failure, error.to_string()))?;
    print(&format!("{json}\n"))
}

fn people(users: &[PersonView]) -> String {
    let mut text = format!("{:<32}{:<22}{:<22}STATE\n", "NAME", "MADE", "PASSWORD SET");
    for user in users {
        let state = match user.disabled_at {
            Some(at) => format!("locked out since {}", time(at)),
            None => "can sign in".to_owned(),
        };
        let (made, set) = (time(user.created_at), time(user.changed_at));
        text.push_str(&format!("{:<32}{made:<22}{set:<22}{state}\n", user.name));
    }
    text
}

fn machines(robots: &[RobotView]) -> String {
    let mut text = String::new();
    for robot in robots {
        let state = match (robot.disabled_at, robot.expires_at) {
            (Some(at), _) => format!("locked out since {}", time(at)),
            (None, Some(end)) => format!("until {}", time(end)),
            (None, None) => String::new(),
        };
        let from = match robot.networks.as_str() {
            "" => String::new(),
            networks => format!(", only from {networks}"),
        };
        text.push_str(&format!("{}  {state}{from}\n", robot.name));
        text.extend(
            secrets(&robot.secrets)
                .lines()
                .map(|line| format!("  {line}\n")),
        );
    }
    if text.is_empty() {
        text.push_str("There are none.\n");
    }
    text
}

fn secrets(secrets: &[SecretView]) -> String {
    let mut text = format!(
        "{:<18}{:<22}{:<40}NAME AND SCOPES\n",
        "ID", "ENDS", "LAST USED"
    );
    for secret in secrets {
        let ends = secret.expires_at.map_or_else(|| "never".to_owned(), time);
        let used = match &secret.used {
            None => "never".to_owned(),
            Some((at, address)) if address.is_empty() => time(*at),
            Some((at, address)) => format!("{} from {address}", time(*at)),
        };
        let scopes = secret.scopes.as_deref().unwrap_or("everything");
        let what = match secret.name.as_str() {
            "" => String::new(),
            name => format!("{name}: {scopes}"),
        };
        text.push_str(format!("{:<18}{ends:<22}{used:<40}{what}", secret.id).trim_end());
        text.push('\n');
    }
    text
}

/// A span of time such as 90d or 12h, in ms.
pub(super) fn span(text: &str) -> Result<i64, String> {
    let wrong = || {
        format!("{text:?} is no span of time; write a whole number with s, m, h or d, such as 90d")
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: i64 = match &text[digits.len()..] {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let number: i64 = digits.parse().map_err(|_| wrong())?;
    number
        .checked_mul(unit)
        .filter(|_| number >= 0)
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_or_refused_with_the_way_out() {
        assert_eq!(span("90d"), Ok(7_776_000_000));
        assert_eq!(
            (span("1s"), span("2m"), span("0h")),
            (Ok(1_000), Ok(120_000), Ok(0))
        );
        for broken in [
            "",
            "d",
            "90",
            "90 d",
            "-1d",
            "1w",
            "1.5h",
            "99999999999999999d",
            "9d9",
            "ü",
        ] {
            assert!(span(broken).unwrap_err().contains("90d"), "{broken}");
        }
    }

    #[test]
    fn tables_show_ends_and_uses() {
        let secret = SecretView {
            id: "0123456789abcdef".into(),
            name: "laptop".into(),
            scopes: Some("pull:team".into()),
            expires_at: Some(0),
            created_at: 0,
            created_by: "root".into(),
            used: Some((60_000, "10.0.0.1".into())),
        };
        let text = secrets(std::slice::from_ref(&secret));
        assert!(
            text.contains("1970-01-01 00:01:00Z from 10.0.0.1")
                && text.contains("laptop: pull:team"),
            "{text}"
        );
        let robot = RobotView {
            name: "team+ci".into(),
            expires_at: Some(0),
            disabled_at: None,
            networks: "10.0.0.0/8".into(),
            secrets: vec![secret],
        };
        let text = machines(&[robot]);
        assert!(
            text.starts_with("team+ci  until 1970-01-01 00:00:00Z, only from 10.0.0.0/8\n  ID"),
            "{text}"
        );
    }
}
