//! `wharf gc`, and what it shares with the other commands about what goes and comes back.

use std::io::{BufRead as _, IsTerminal as _};

use clap::Subcommand;

use super::exit::{Exit, Failure, Outcome};
use super::flags::DataFlags;
use super::human::{bytes, count};
use super::offline::perform;
use super::print;
use crate::admin::{Command, PlanView, PlannedView, Reply, Upkeep, UpkeepReply};
use crate::config::{Inputs, load};

/// What can be done about collection.
#[derive(Debug, Subcommand)]
pub(super) enum GcCommand {
    /// Show what would go, when and why; nothing is changed
    Plan {
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Collect what is due, without waiting for the next look
    ///
    /// With --now also what is not due yet: blobs whose grace still runs, and deleted manifests that could still be
    /// restored. Works on a full disk. Pushes under way may have to send blobs again.
    Run {
        /// Free everything that nothing needs, at once
        #[arg(long)]
        now: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Let nothing be removed until `wharf gc resume`
    Pause {
        /// Why, for whoever asks
        #[arg(long, default_value = "paused by an operator")]
        reason: String,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Let removal go on after a restore or a pause
    Resume {
        #[command(flatten)]
        flags: DataFlags,
    },
}

/// Sends a command to the registry of this configuration.
pub(super) fn ask(inputs: &Inputs, upkeep: Upkeep) -> Result<UpkeepReply, Failure> {
    let config = load(inputs)?.config;
    match perform(&config, Command::Upkeep(upkeep))? {
        Reply::Upkeep(reply) => Ok(reply),
        other => Err(super::storage::unexpected(&other)),
    }
}

pub(super) fn unexpected(reply: UpkeepReply) -> Failure {
    super::storage::unexpected(&Reply::Upkeep(reply))
}

/// A moment, as in `2026-01-31 12:00:00Z`.
pub(super) fn time(millis: i64) -> String {
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(at) => at.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
        Err(_) => "never".to_owned(),
    }
}

pub(super) fn run(command: &GcCommand) -> Outcome {
    match command {
        GcCommand::Plan { flags } => match ask(&flags.inputs(), Upkeep::GcPlan)? {
            UpkeepReply::Plan(plan) => print(&told(&plan)),
            other => Err(unexpected(other)),
        },
        GcCommand::Run { now, yes, flags } => {
            let inputs = flags.inputs();
            let all = *now && (*yes || confirm(&inputs)?);
            match ask(&inputs, Upkeep::GcRun { all })? {
                UpkeepReply::Freed(freed) => print(&format!(
                    "Freed {}: {}, {} in repositories; {} can no longer be restored.\n",
                    bytes(freed.bytes),
                    count(freed.blobs, "blob"),
                    count(freed.links, "link"),
                    count(freed.manifests, "deleted manifest"),
                )),
                other => Err(unexpected(other)),
            }
        }
        GcCommand::Pause { reason, flags } => {
            let reason = reason.clone();
            done(&flags.inputs(), Upkeep::GcPause { reason })
        }
        GcCommand::Resume { flags } => done(&flags.inputs(), Upkeep::GcResume),
    }
}

fn done(inputs: &Inputs, upkeep: Upkeep) -> Outcome {
    match ask(inputs, upkeep)? {
        UpkeepReply::Done => print("Done.\n"),
        other => Err(unexpected(other)),
    }
}

/// So many deleted manifests are named before the question.
const NAMED: usize = 20;

/// Names what can no longer be undone, and asks. When that is nothing, nobody is asked, and there is nothing to free at once.
fn confirm(inputs: &Inputs) -> Result<bool, Failure> {
    let plan = match ask(inputs, Upkeep::GcPlan)? {
        UpkeepReply::Plan(plan) => plan,
        other => return Err(unexpected(other)),
    };
    match irrevocable(&plan) {
        Some(text) => agree(&text).map(|()| true),
        None => Ok(false),
    }
}

/// What freeing at once would make final; `None`: nothing.
fn irrevocable(plan: &PlanView) -> Option<String> {
    let mut lines = Vec::new();
    if plan.manifest_count > 0 {
        lines.push(format!(
            "  {} will not be restorable any more, and the blobs that nothing else needs go, too",
            count(plan.manifest_count, "deleted manifest")
        ));
        let shown = plan.manifests.iter().take(NAMED);
        lines.extend(shown.map(|planned| format!("    {}@{}", planned.repository, planned.digest)));
        let rest = plan.manifest_count.saturating_sub(NAMED as u64);
        if rest > 0 {
            lines.push(format!("    … and {rest} more (wharf gc plan)"));
        }
    }
    if plan.blob_count > 0 {
        lines.push(format!(
            "  {} in {} that no manifest refers to will go, even if a push has just sent {}",
            count(plan.blob_count, "blob"),
            bytes(plan.blob_bytes),
            if plan.blob_count == 1 { "it" } else { "them" }
        ));
    }
    (!lines.is_empty()).then(|| format!("This cannot be undone:\n{}", lines.join("\n")))
}

/// Says what is about to be done, and asks.
pub(super) fn agree(text: &str) -> Outcome {
    eprintln!("{text}");
    if !std::io::stdin().is_terminal() {
        return Err(Failure::text(
            Exit::Usage,
            "nobody is there to be asked: say --yes if that is meant",
        ));
    }
    eprint!("Type yes to go on: ");
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match read {
        Ok(_) if answer.trim() == "yes" => Ok(()),
        _ => Err(Failure::text(Exit::Failure, "nothing was removed")),
    }
}

fn told(plan: &PlanView) -> String {
    let mut text = String::new();
    if let Some(reason) = &plan.paused {
        text.push_str(&format!("Nothing goes at present: {reason}\n"));
    }
    text.push_str(&format!(
        "{} in {} that no manifest needs\n",
        count(plan.blob_count, "blob"),
        bytes(plan.blob_bytes)
    ));
    list(&mut text, &plan.blobs, plan.blob_count, plan.now);
    text.push_str(&format!(
        "{}, with what they need\n",
        count(plan.manifest_count, "deleted manifest")
    ));
    list(&mut text, &plan.manifests, plan.manifest_count, plan.now);
    if plan.keys > 0 {
        text.push_str(&format!(
            "{} whose bytes go with the next run\n",
            count(plan.keys, "file")
        ));
    }
    text
}

fn list(text: &mut String, planned: &[PlannedView], all: u64, now: i64) {
    for one in planned {
        let when = match one.at <= now {
            true => "now".to_owned(),
            false => time(one.at),
        };
        let size = one
            .size
            .map_or_else(String::new, |size| format!(" ({})", bytes(size)));
        text.push_str(&format!(
            "  {when:<21} {}@{}{size}: {}\n",
            one.repository, one.digest, one.why
        ));
    }
    let more = all.saturating_sub(planned.len() as u64);
    if more > 0 {
        text.push_str(&format!("  and {more} more\n"));
    }
}

/// `wharf storage verify --list`.
pub(super) fn damaged(inputs: &Inputs) -> Outcome {
    let damaged = match ask(inputs, Upkeep::Damaged)? {
        UpkeepReply::Damaged(damaged) => damaged,
        other => return Err(unexpected(other)),
    };
    if damaged.is_empty() {
        return print("No blob is known to be damaged.\n");
    }
    let mut text = String::new();
    for blob in &damaged {
        text.push_str(&format!(
            "{}  {:<10} since {}: {}\n",
            blob.digest,
            bytes(blob.size),
            time(blob.since),
            blob.cause
        ));
    }
    print(&text)?;
    Err(Failure::text(
        Exit::Damage,
        format!(
            "{} damaged\n  help: push the same content again to heal it, or restore a backup",
            count(damaged.len() as u64, "blob")
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_undone_is_named_and_what_is_not_shown_is_counted() {
        let planned = |number: u64| PlannedView {
            repository: "team/app".to_owned(),
            digest: format!("sha256:{number}"),
            size: None,
            at: 0,
            why: String::new(),
        };
        let mut plan = PlanView {
            paused: None,
            now: 0,
            blobs: Vec::new(),
            blob_count: 0,
            blob_bytes: 0,
            manifests: Vec::new(),
            manifest_count: 0,
            keys: 3,
        };
        assert_eq!(irrevocable(&plan), None);
        plan.manifests = (0..25).map(planned).collect();
        plan.manifest_count = 1_000;
        let told = irrevocable(&plan).unwrap();
        assert!(told.contains("1000 deleted manifests will not"), "{told}");
        assert!(told.contains("team/app@sha256:19\n"), "{told}");
        assert!(told.contains("… and 980 more"), "{told}");
        assert!(!told.contains("blobs in"), "{told}");
        plan.blob_count = 1;
        plan.blob_bytes = 233;
        let told = irrevocable(&plan).unwrap();
        assert!(
            told.ends_with("\n  1 blob in 233 B that no manifest refers to will go, even if a push has just sent it"),
            "{told}"
        );
    }
}
