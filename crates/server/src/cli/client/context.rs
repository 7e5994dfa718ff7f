//! `wharf context`: which registries there are, and as whom.
//!
//! Kept in `contexts.toml` in the user's configuration folder, mode 0600. What one signed in with is in the keeper's file beside it;
//! contexts that older versions made hold it themselves.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use super::file;
use super::keeper::{Good, How, Keeper, Kept, nobody};
use super::wire::Target;
use crate::cli::exit::{Exit, Failure, Outcome};
use crate::cli::print;
use crate::credential_helper::Server;

/// Largest file, in bytes.
const LARGEST: usize = 1 << 20;

/// A registry, and as whom.
#[derive(Clone, Deserialize, Serialize)]
pub(in crate::cli) struct Context {
    /// `https://registry.example.com`.
    pub(super) url: String,
    pub(super) user: String,
    /// The password, or a token in its place, of a context that an older version made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) password: Option<String>,
    /// Certificate of the authority, if it is none that this machine trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) authority: Option<PathBuf>,
}

impl Context {
    /// Where the registry is.
    pub(in crate::cli) fn url(&self) -> &str {
        &self.url
    }

    pub(super) fn target(&self) -> Target<'_> {
        Target {
            url: &self.url,
            authority: self.authority.as_deref(),
        }
    }

    /// The keeper's name for the registry.
    pub(super) fn server(&self) -> Result<Server, Failure> {
        let read = self.url.parse();
        read.map_err(|error: crate::credential_helper::ServerError| {
            Failure::new(Exit::Usage, error)
        })
    }

    /// What to ask with. `worn` is an access token that the registry has just refused.
    pub(super) fn good(&self, worn: Option<&str>) -> Result<Good, Failure> {
        if let Some(password) = &self.password {
            return Ok(Good::Password(password.clone()));
        }
        let good = Keeper::of_user()?.good(self.server()?.key(), &self.user, worn)?;
        good.ok_or_else(|| nobody(&self.url, &self.user))
    }

    fn how(&self, kept: &Kept) -> How {
        match &self.password {
            Some(_) => How::Password,
            None => {
                let server = self.server().ok();
                let how = server.and_then(|server| kept.how(server.key(), &self.user));
                how.unwrap_or(How::Out)
            }
        }
    }
}

/// All contexts of this user.
#[derive(Default, Deserialize, Serialize)]
pub(super) struct Contexts {
    /// The one in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    #[serde(default)]
    context: BTreeMap<String, Context>,
}

impl Contexts {
    /// Those in the file; none when there is no file.
    pub(super) fn load() -> Result<Self, Failure> {
        let Ok(path) = file::contexts() else {
            return Ok(Self::default());
        };
        let Some(text) = file::read(&path, LARGEST)? else {
            return Ok(Self::default());
        };
        toml::from_str(&text).map_err(|_| {
            // Not the parser's own words: they quote the line, and so a password.
            let text = format!(
                "{} is damaged: correct it, or remove it and log in again",
                path.display()
            );
            Failure::text(Exit::Usage, text)
        })
    }

    /// The context of this name, or the one in use.
    pub(super) fn chosen(&self, name: Option<&str>) -> Result<Option<Context>, Failure> {
        let Some(name) = name.or(self.current.as_deref()) else {
            return Ok(None);
        };
        let found = self.context.get(name).cloned();
        found.map(Some).ok_or_else(|| unknown(name))
    }

    /// Makes a context, or another one of its name, and uses it. Gives the one that was there.
    pub(super) fn put(&mut self, name: &str, context: Context) -> Option<Context> {
        self.current = Some(name.to_owned());
        self.context.insert(name.to_owned(), context)
    }

    /// Takes a context away; the one in use when none is named.
    pub(super) fn take(&mut self, name: Option<&str>) -> Result<(String, Context), Failure> {
        let name = name.or(self.current.as_deref()).map(str::to_owned);
        let name = name.ok_or_else(|| {
            Failure::text(
                Exit::Usage,
                "no context is in use; `wharf context list` shows those that there are",
            )
        })?;
        let taken = self.context.remove(&name).ok_or_else(|| unknown(&name))?;
        self.current.take_if(|current| *current == name);
        Ok((name, taken))
    }

    /// Whether another context is signed in by what the keeper holds for this one.
    pub(super) fn shares(&self, server: &Server, user: &str) -> bool {
        let mut kept = self
            .context
            .values()
            .filter(|context| context.password.is_none());
        kept.any(|context| context.user == user && context.server().is_ok_and(|its| its == *server))
    }

    pub(super) fn save(&self) -> Outcome {
        let text = toml::to_string(self).map_err(|error| Failure::new(Exit::Failure, error))?;
        file::write(&file::contexts()?, &text)
    }
}

fn unknown(name: &str) -> Failure {
    Failure::text(
        Exit::Usage,
        format!(
            "there is no context {name}; `wharf context list` shows those that there are, `wharf login` makes one"
        ),
    )
}

/// What can be done with contexts.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ContextCommand {
    /// List the registries that one is signed in to, and how; a star marks the one in use
    ///
    /// How: by terminal (confirmed in a browser), by password (or a token in its place), or signed out.
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the names of all contexts, for completions
    #[command(hide = true)]
    Names,
    /// Let commands talk to another registry from now on
    Use {
        /// The context's name; `-` for none: commands then look for a data folder on this machine
        name: String,
    },
}

/// `wharf context`.
pub(in crate::cli) fn run(command: &ContextCommand) -> Outcome {
    let mut contexts = Contexts::load()?;
    match command {
        ContextCommand::List { json } => {
            let kept = Keeper::of_user()?.load()?;
            let is_current = |name: &str| contexts.current.as_deref() == Some(name);
            if *json {
                let rows = contexts.context.iter().map(|(name, context)| {
                    serde_json::json!({
                        "name": name,
                        "url": context.url,
                        "user": context.user,
                        "signed_in": context.how(&kept).name(),
                        "in_use": is_current(name),
                    })
                });
                let rows: Vec<_> = rows.collect();
                return print(&format!("{:#}\n", serde_json::Value::from(rows)));
            }
            let rows = contexts.context.iter().map(|(name, context)| {
                let star = if is_current(name) { "*" } else { " " };
                let how = context.how(&kept).name();
                format!(
                    "{star} {name:<32} {:<16} {how:<10} {}\n",
                    context.user, context.url
                )
            });
            print(&rows.collect::<String>())
        }
        ContextCommand::Names => {
            let names = contexts.context.keys().map(|name| format!("{name}\n"));
            print(&names.collect::<String>())
        }
        ContextCommand::Use { name } if name == "-" => {
            contexts.current = None;
            contexts.save()?;
            print("No context is in use: commands look for a data folder on this machine.\n")
        }
        ContextCommand::Use { name } => {
            let context = contexts.context.get(name).ok_or_else(|| unknown(name))?;
            let told = format!("Commands talk to {} as {}.\n", context.url, context.user);
            contexts.current = Some(name.clone());
            contexts.save()?;
            print(&told)
        }
    }
}
