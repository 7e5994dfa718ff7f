//! `wharf job`: work in the background.

use clap::Subcommand;

use super::flags::DataFlags;
use super::gc::{ask, time};
use super::human::span;
use super::{Outcome, print};
use crate::admin::{JobView, Upkeep, UpkeepReply};

/// What can be done with jobs.
#[derive(Debug, Subcommand)]
pub(super) enum JobCommand {
    /// List all jobs, with the error of those that failed
    List {
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Show everything about one job
    Show {
        /// Its id
        id: String,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Let a schedule run now instead of at its time
    Run {
        /// Its kind, as `wharf job list` shows it
        kind: String,
        /// Not before this moment, as in 2026-01-31T03:00:00Z
        #[arg(long)]
        at: Option<jiff::Timestamp>,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// End a job before its time; of a schedule, this run only
    Cancel {
        /// Its id
        id: String,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Let a dead or cancelled job run again
    Retry {
        /// Its id
        id: String,
        #[command(flatten)]
        flags: DataFlags,
    },
}

pub(super) fn run(command: &JobCommand) -> Outcome {
    let (flags, upkeep) = match command {
        JobCommand::List { flags } => (flags, Upkeep::JobList),
        JobCommand::Show { id, flags } => (flags, Upkeep::JobShow { id: id.clone() }),
        JobCommand::Run { kind, at, flags } => {
            let at = at.map(jiff::Timestamp::as_millisecond);
            let kind = kind.clone();
            (flags, Upkeep::JobRun { kind, at })
        }
        JobCommand::Cancel { id, flags } => (flags, Upkeep::JobCancel { id: id.clone() }),
        JobCommand::Retry { id, flags } => (flags, Upkeep::JobRetry { id: id.clone() }),
    };
    let whole = matches!(command, JobCommand::Show { .. });
    match ask(&flags.inputs(), upkeep)? {
        UpkeepReply::Jobs(jobs) if whole => {
            print(&jobs.iter().map(shown).collect::<Vec<_>>().join("\n"))
        }
        UpkeepReply::Jobs(jobs) => print(&table(&jobs)),
        UpkeepReply::Done => print("Done.\n"),
        other => Err(super::gc::unexpected(other)),
    }
}

fn table(jobs: &[JobView]) -> String {
    let mut text = format!(
        "{:<37}{:<18}{:<10}{:<22}{:<9}ERROR\n",
        "ID", "KIND", "STATE", "AT", "EVERY"
    );
    for job in jobs {
        let every = job.every.map_or_else(|| "once".to_owned(), span);
        text.push_str(&format!(
            "{:<37}{:<18}{:<10}{:<22}{every:<9}{}\n",
            job.id,
            job.kind,
            job.state,
            time(job.at),
            job.error.as_deref().unwrap_or("-")
        ));
    }
    text
}

fn shown(job: &JobView) -> String {
    let every = job.every.map_or_else(|| "once".to_owned(), span);
    format!(
        "id:       {}\nkind:     {}\nstate:    {}\nat:       {}\nevery:    {every}\nattempts: {}\nworker:   {}\nerror:    {}\n\
         payload:  {}\n",
        job.id,
        job.kind,
        job.state,
        time(job.at),
        job.attempts,
        job.worker.as_deref().unwrap_or("-"),
        job.error.as_deref().unwrap_or("-"),
        job.payload
    )
}
