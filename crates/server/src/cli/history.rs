//! `wharf repo`, `wharf tag` and `wharf manifest`: what happened, and back again.

use clap::Subcommand;

use super::client::Where;
use super::exit::{Exit, Failure, Outcome};
use super::gc::{ask, time, unexpected};
use super::human::{bytes, count};
use super::print;
use crate::admin::{HistoryView, SizeView, Upkeep, UpkeepReply};
use crate::config::Inputs;

#[path = "history_remote.rs"]
mod remote;

/// What can be done with repositories.
#[derive(Debug, Subcommand)]
pub(super) enum RepoCommand {
    /// List repositories
    List {
        /// With what each takes up, and the sum
        #[arg(long)]
        size: bool,
        /// By the first part of the name, the largest first, with what each takes up
        #[arg(long, conflicts_with = "within")]
        prefixes: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Only below this prefix, on `/` borders
        #[arg(long, value_name = "PREFIX")]
        within: Option<String>,
        #[command(flatten)]
        at: Where,
    },
    /// Delete all manifests and tags of a repository
    ///
    /// They can be restored until their window ends; then what nothing else needs gives its room back. The name stays.
    Rm {
        /// The repository
        repository: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Show moves of tags and deleted manifests of a repository, the latest first
    History {
        /// The repository
        repository: String,
        /// At most so many of each
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// As JSON, with times in milliseconds since 1970
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
}

/// What can be done with tags.
#[derive(Debug, Subcommand)]
pub(super) enum TagCommand {
    /// List the tags of a repository, and where they stand
    List {
        /// The repository
        repository: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Delete tags; their manifests stay, and can be pulled by digest
    ///
    /// `wharf tag restore` puts them back.
    Rm {
        /// REPOSITORY:TAG
        #[arg(required = true)]
        references: Vec<String>,
        #[command(flatten)]
        at: Where,
    },
    /// Show where a tag stood, the latest first; without a tag, all moves in the repository
    History {
        /// REPOSITORY or REPOSITORY:TAG
        reference: String,
        /// At most so many
        #[arg(long, default_value_t = 50)]
        limit: u32,
        /// As JSON, with times in milliseconds since 1970
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Put a tag back to where it stood
    ///
    /// A deleted tag goes back to its last place. With --version any tag goes to where it stood from that version on, as
    /// `wharf tag history` shows it. A manifest that was deleted comes back with it.
    Restore {
        /// REPOSITORY:TAG
        reference: String,
        /// Back to this version
        #[arg(long)]
        version: Option<i64>,
        #[command(flatten)]
        at: Where,
    },
}

/// What can be done with manifests.
#[derive(Debug, Subcommand)]
pub(super) enum ManifestCommand {
    /// Bring a deleted manifest back, with the tags that went with it
    Restore {
        /// REPOSITORY@DIGEST, as `wharf repo history` shows it
        reference: String,
        #[command(flatten)]
        at: Where,
    },
}

pub(super) fn repo(command: &RepoCommand) -> Outcome {
    match command {
        RepoCommand::List {
            size,
            prefixes,
            json,
            within,
            at,
        } => {
            if at.is_remote()? {
                return remote::repositories(at, *size, *prefixes, *json, within.as_deref());
            }
            let within = within.clone();
            let wanted = match prefixes {
                true => Upkeep::PrefixList,
                false => Upkeep::RepoList { within },
            };
            match ask(&at.flags.inputs(), wanted)? {
                UpkeepReply::Sizes(sizes) if *json => print(&as_json(&sizes)),
                UpkeepReply::Sizes(sizes) if *prefixes => print(&sized(&sizes, "prefix")),
                UpkeepReply::Sizes(sizes) if *size => print(&sized(&sizes, "repository")),
                UpkeepReply::Sizes(sizes) => print(
                    &sizes
                        .iter()
                        .map(|row| row.name.clone() + "\n")
                        .collect::<String>(),
                ),
                other => Err(unexpected(other)),
            }
        }
        RepoCommand::History {
            repository,
            limit,
            json,
            at,
        } => history(at, repository, None, *limit, *json),
        RepoCommand::Rm {
            repository,
            yes,
            at,
        } => remote::clear(at, repository, *yes),
    }
}

/// One object for each, with bytes and times in milliseconds since 1970; `null` where nothing was counted yet.
fn as_json(sizes: &[SizeView]) -> String {
    let rows: Vec<_> = sizes
        .iter()
        .map(|row| {
            let counted = |number: u64| row.at.map(|_| number);
            serde_json::json!({
                "name": row.name,
                "size": row.logical,
                "own": counted(row.own),
                "shared": counted(row.logical.saturating_sub(row.own)),
                "blobs": counted(row.blobs),
                "counted_at": row.at,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::from(rows))
}

fn sized(sizes: &[SizeView], noun: &str) -> String {
    let mut text = format!(
        "{:>12}{:>12}{:>12}{:>9}  {}\n",
        "SIZE",
        "OWN",
        "SHARED",
        "BLOBS",
        noun.to_uppercase()
    );
    for row in sizes {
        let name = match row.at {
            Some(_) => row.name.clone(),
            None => format!("{} (only the size is counted yet)", row.name),
        };
        text.push_str(&format!(
            "{:>12}{:>12}{:>12}{:>9}  {name}\n",
            bytes(row.logical),
            bytes(row.own),
            bytes(row.logical.saturating_sub(row.own)),
            row.blobs
        ));
    }
    let sum = |of: fn(&SizeView) -> u64| sizes.iter().map(of).sum::<u64>();
    let (logical, own) = (sum(|row| row.logical), sum(|row| row.own));
    text.push_str(&format!(
        "{:>12}{:>12}{:>12}{:>9}  {}\n",
        bytes(logical),
        bytes(own),
        bytes(logical.saturating_sub(own)),
        sum(|row| row.blobs),
        count(sizes.len() as u64, noun)
    ));
    if let Some(oldest) = sizes.iter().filter_map(|row| row.at).min() {
        text.push_str(&format!(
            "SIZE is of now, the rest of {} or later; `wharf job run usage.recount` counts it again.\n",
            time(oldest)
        ));
    }
    text
}

pub(super) fn tag(command: &TagCommand) -> Outcome {
    match command {
        TagCommand::History {
            reference,
            limit,
            json,
            at,
        } => match reference.split_once(':') {
            Some((repository, tag)) => history(at, repository, Some(tag), *limit, *json),
            None => history(at, reference, None, *limit, *json),
        },
        TagCommand::List {
            repository,
            json,
            at,
        } => remote::tags(at, repository, *json),
        TagCommand::Rm { references, at } => {
            let parsed: Result<Vec<_>, _> = references
                .iter()
                .map(|reference| parts(reference, ':', "REPOSITORY:TAG"))
                .collect();
            remote::delete_tags(at, &parsed?)
        }
        TagCommand::Restore {
            reference,
            version,
            at,
        } => {
            let (repository, tag) = parts(reference, ':', "REPOSITORY:TAG")?;
            if at.is_remote()? {
                return print(&told_restored(remote::restore_tag(
                    at,
                    &repository,
                    &tag,
                    *version,
                )?)?);
            }
            let restore = Upkeep::TagRestore {
                repository,
                tag,
                version: *version,
            };
            restored(&at.flags.inputs(), restore)
        }
    }
}

pub(super) fn manifest(command: &ManifestCommand) -> Outcome {
    let ManifestCommand::Restore { reference, at } = command;
    let (repository, digest) = parts(reference, '@', "REPOSITORY@DIGEST")?;
    if at.is_remote()? {
        let back = remote::restore_manifest(at, &repository, &digest)?;
        return print(&told_restored(back)?);
    }
    let restore = Upkeep::ManifestRestore { repository, digest };
    restored(&at.flags.inputs(), restore)
}

fn parts(reference: &str, border: char, form: &str) -> Result<(String, String), Failure> {
    match reference.split_once(border) {
        Some((repository, rest)) => Ok((repository.to_owned(), rest.to_owned())),
        None => Err(Failure::text(
            Exit::Usage,
            format!("`{reference}` is not of the form {form}"),
        )),
    }
}

fn restored(inputs: &Inputs, restore: Upkeep) -> Outcome {
    print(&told_restored(ask(inputs, restore)?)?)
}

fn told_restored(reply: UpkeepReply) -> Result<String, Failure> {
    let UpkeepReply::Restored {
        digest,
        manifest,
        tags,
        others,
    } = reply
    else {
        return Err(unexpected(reply));
    };
    let mut text = String::new();
    if manifest {
        text.push_str(&format!("Restored manifest {digest}.\n"));
    }
    if others > 0 {
        let others = count(others, "other manifest");
        text.push_str(&format!("With it {others}, in it or about it.\n"));
    }
    for tag in tags {
        text.push_str(&format!("Tag {tag} stands at {digest}.\n"));
    }
    Ok(text)
}

/// `wharf whoami`.
pub(super) fn whoami(at: &Where, json: bool) -> Outcome {
    let me = at.client()?.get("/api/v1/me")?;
    match json {
        true => print(&format!("{me:#}\n")),
        false => {
            let word = |field: &str| me[field].as_str().unwrap_or_default().to_owned();
            print(&format!("{} ({})\n", word("name"), word("kind")))
        }
    }
}

fn history(at: &Where, repository: &str, tag: Option<&str>, limit: u32, json: bool) -> Outcome {
    let shown = |history: &HistoryView| match json {
        true => {
            let value = serde_json::to_value(history);
            let value = value.map_err(|error| Failure::new(Exit::Failure, error))?;
            print(&format!("{value:#}\n"))
        }
        false => print(&told(history)),
    };
    if at.is_remote()? {
        return shown(&remote::history(at, repository, tag, limit)?);
    }
    let ask_for = Upkeep::History {
        repository: repository.to_owned(),
        tag: tag.map(str::to_owned),
        limit,
    };
    match ask(&at.flags.inputs(), ask_for)? {
        UpkeepReply::History(history) => shown(&history),
        other => Err(unexpected(other)),
    }
}

fn told(history: &HistoryView) -> String {
    let mut text = String::new();
    for one in &history.moves {
        let place =
            |digest: &Option<String>| digest.clone().unwrap_or_else(|| "nowhere".to_owned());
        text.push_str(&format!(
            "{}  {} version {}: {} -> {} by {}\n",
            time(one.at),
            one.tag,
            one.version,
            place(&one.from),
            place(&one.to),
            one.actor
        ));
    }
    for one in &history.deleted {
        text.push_str(&format!(
            "{}  manifest {} deleted by {}, can be restored until {}\n",
            time(one.at),
            one.digest,
            one.actor,
            time(one.until)
        ));
    }
    if text.is_empty() {
        text.push_str("Nothing happened there, or nothing is known of it.\n");
    }
    text
}
