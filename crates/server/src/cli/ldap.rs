//! `wharf ldap`: asks directories as a sign-in would, and tells each step.

use std::io::Read as _;

use clap::Subcommand;
use serde_json::Value;
use wharf_core::access::Password;
use wharf_core::directory::{
    Directory as _, LONGEST_PASSWORD, Person, Step, Story, Verdict, acceptable,
};
use wharf_oci::percent::encode_query;

use super::client::Client;
use super::exit::{Exit, Failure, Outcome};
use super::flags::ConfigFlags;
use super::offline::runtime;
use super::print;
use crate::app::ldap::Ldap;
use crate::config::{Config, load};

/// So many entries a list has at most.
const LISTED: usize = 10_000;

/// What can be done with directories.
#[derive(Debug, Subcommand)]
pub(super) enum LdapCommand {
    /// Show each step of a sign-in, and the way out at the first that fails
    ///
    /// Asks the directories of the configuration from here, one after the other until one knows the user; no registry has to run.
    /// Without --password-stdin everything but the password is looked at. The password is never printed. Ends with 1 when the user
    /// could not sign in.
    Check {
        /// The name with which the user signs in
        user: String,
        /// Read the user's password from standard input, and try it
        #[arg(long)]
        password_stdin: bool,
        /// Only this directory
        #[arg(long, value_name = "NAME")]
        directory: Option<String>,
        #[command(flatten)]
        flags: ConfigFlags,
    },
}

pub(super) fn run(command: &LdapCommand) -> Outcome {
    let LdapCommand::Check {
        user,
        password_stdin,
        directory,
        flags,
    } = command;
    let usage = |text: String| Failure::text(Exit::Usage, text);
    let loaded = load(&flags.inputs())?;
    let chosen = |name: &str| directory.as_deref().is_none_or(|only| only == name);
    let tables: Vec<_> = loaded
        .config
        .auth
        .ldap
        .iter()
        .filter(|table| chosen(&table.name))
        .collect();
    if tables.is_empty() {
        return Err(usage(match directory {
            Some(name) => format!("the configuration has no [[auth.ldap]] with the name {name:?}"),
            None => {
                "the configuration has no [[auth.ldap]]; name its file with --config".to_owned()
            }
        }));
    }
    let password = match password_stdin {
        true => Some(read_password()?),
        false => None,
    };
    if let Some(password) = &password
        && !acceptable("somebody", password.reveal())
    {
        return Err(usage(
            "this password is empty, too long or holds a NUL: no directory is ever asked about it"
                .to_owned(),
        ));
    }
    let runtime = runtime()?;
    for table in tables {
        let ldap =
            Ldap::new(table.settings()).map_err(|error| Failure::text(Exit::Failure, error))?;
        let mut story = Story::default();
        let verdict = runtime.block_on(async {
            match &password {
                Some(password) => ldap.sign_in(user, password, &mut story).await,
                None => ldap.find(user, &mut story).await,
            }
        });
        print(&format!("Directory {}\n{}", ldap.name(), told(&story.0)))?;
        match verdict {
            Ok(Verdict::Proved(person)) => {
                let tried = match password {
                    Some(_) => "",
                    None => " with the right password, which was not tried (--password-stdin)",
                };
                print(&lead(&loaded.config, ldap.name(), &person))?;
                return print(&format!("{} can sign in{tried}.\n", person.name));
            }
            Ok(Verdict::Unknown) => {}
            Ok(_) => {
                return Err(Failure::text(
                    Exit::Failure,
                    format!("{user} cannot sign in"),
                ));
            }
            // As for a sign-in: one that may be of a directory which does not answer is not looked for in the next one.
            Err(fault) => {
                return Err(Failure::text(
                    Exit::Failure,
                    format!("{user} cannot sign in now: {}", fault.what),
                ));
            }
        }
    }
    Err(Failure::text(
        Exit::Failure,
        format!("no directory knows {user}"),
    ))
}

/// What the groups of somebody lead to here, as far as the registry of this configuration runs and says so.
fn lead(config: &Config, directory: &str, person: &Person) -> String {
    let client = Client::Local(Box::new(config.clone()));
    let Ok(groups) = client.list("/api/v1/groups", LISTED) else {
        return "  --  the registry and its data are not here, so what the groups lead to was not looked at\n".to_owned();
    };
    let sources = person
        .groups
        .iter()
        .map(|name| format!("{directory}:{name}"));
    let sources: Vec<_> = sources.collect();
    let mut text = String::new();
    for group in groups {
        let of = group["sources"].as_array().into_iter().flatten();
        let of: Vec<_> = of
            .filter_map(Value::as_str)
            .filter(|of| sources.iter().any(|one| one == of))
            .collect();
        let name = group["name"].as_str().unwrap_or_default();
        if of.is_empty() {
            continue;
        }
        text.push_str(&format!(
            "  ok  {} leads to group:{name} here, which has ",
            of.join(", ")
        ));
        let path = format!(
            "/api/v1/bindings?who={}",
            encode_query(&format!("group:{name}"))
        );
        let held = client.list(&path, LISTED).unwrap_or_default();
        let word =
            |binding: &Value, field: &str| binding[field].as_str().unwrap_or_default().to_owned();
        let held: Vec<_> = held
            .iter()
            .map(|binding| match word(binding, "on").as_str() {
                "" => format!("{} everywhere", word(binding, "role")),
                on => format!("{} on {on}", word(binding, "role")),
            })
            .collect();
        text.push_str(&match held.is_empty() {
            true => "no role\n".to_owned(),
            false => format!("{}\n", held.join(", ")),
        });
    }
    if text.is_empty() && !person.admin {
        text = format!(
            "  --  no group here has one of these for a source, so they give no rights: wharf group add GROUP --from {directory}:NAME\n"
        );
    }
    text
}

fn told(steps: &[Step]) -> String {
    let mut text = String::new();
    for step in steps {
        let sign = if step.good { "ok" } else { "!!" };
        text.push_str(&format!("  {sign}  {}\n", step.what));
        if let Some(cure) = &step.cure {
            text.push_str(&format!("      help: {cure}\n"));
        }
    }
    text
}

/// Without the newline that ends it.
fn read_password() -> Result<Password, Failure> {
    let mut text = String::new();
    let most = u64::try_from(LONGEST_PASSWORD).unwrap_or(u64::MAX) + 3;
    let read = std::io::stdin().lock().take(most).read_to_string(&mut text);
    read.map_err(|error| {
        Failure::text(
            Exit::Usage,
            format!("the password cannot be read from standard input: {error}"),
        )
    })?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(Password::new(text.strip_suffix('\r').unwrap_or(text)))
}

/// Asks all directories once, for `wharf config check --online`.
pub(super) async fn probe(config: &Config) -> Vec<Result<String, String>> {
    let mut told = Vec::new();
    for table in &config.auth.ldap {
        match Ldap::new(table.settings()) {
            Ok(ldap) => {
                let found = ldap.probe().await.into_iter();
                told.extend(found.map(|found| found.map_err(|fault| fault.to_string())));
            }
            Err(error) => told.push(Err(error)),
        }
    }
    told
}
