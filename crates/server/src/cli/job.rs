//! `wharf job`: work in the background.

use clap::Subcommand;

use serde_json::{Value, json};
use wharf_oci::percent::encode_query;

use super::client::{Where, as_json, moment, text};
use super::gc::time;
use super::human::span;
use super::{Outcome, print};

/// So many jobs are listed at most.
const LISTED: usize = 100_000;

/// What can be done with jobs.
#[derive(Debug, Subcommand)]
pub(super) enum JobCommand {
    /// List all jobs, with the error of those that failed
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Show everything about one job
    Show {
        /// Its id
        id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Let a schedule run now instead of at its time
    Run {
        /// Its kind, as `wharf job list` shows it
        kind: String,
        /// Not before this moment, as in 2026-01-31T03:00:00Z
        #[arg(long = "at", value_name = "AT")]
        moment: Option<jiff::Timestamp>,
        #[command(flatten)]
        at: Where,
    },
    /// End a job before its time; of a schedule, this run only
    Cancel {
        /// Its id
        id: String,
        #[command(flatten)]
        at: Where,
    },
    /// Let a dead or cancelled job run again
    Retry {
        /// Its id
        id: String,
        #[command(flatten)]
        at: Where,
    },
}

fn path(id: &str) -> String {
    format!("/api/v1/jobs/{}", encode_query(id))
}

fn act(at: &Where, path: &str, body: Option<&Value>) -> Outcome {
    at.client()?.send("POST", path, body)?;
    print("Done.\n")
}

pub(super) fn run(command: &JobCommand) -> Outcome {
    match command {
        JobCommand::List { json, at } => {
            let jobs = at.client()?.list("/api/v1/jobs", LISTED)?;
            match json {
                true => print(&as_json(&Value::from(jobs))),
                false => print(&table(&jobs)),
            }
        }
        JobCommand::Show { id, json, at } => {
            let job = at.client()?.get(&path(id))?;
            match json {
                true => print(&as_json(&job)),
                false => print(&shown(&job)),
            }
        }
        JobCommand::Run { kind, moment, at } => {
            let moment = moment.map(|moment| moment.to_string());
            let body = json!({ "kind": kind, "at": moment });
            act(at, "/api/v1/jobs", Some(&body))
        }
        JobCommand::Cancel { id, at } => act(at, &format!("{}/cancel", path(id)), None),
        JobCommand::Retry { id, at } => act(at, &format!("{}/retry", path(id)), None),
    }
}

fn every(job: &Value) -> String {
    job["every"]
        .as_i64()
        .map_or_else(|| "once".to_owned(), span)
}

fn at(job: &Value) -> String {
    moment(&job["at"]).map_or_else(String::new, time)
}

fn table(jobs: &[Value]) -> String {
    let mut out = format!(
        "{:<37}{:<18}{:<10}{:<22}{:<9}ERROR\n",
        "ID", "KIND", "STATE", "AT", "EVERY"
    );
    for job in jobs {
        out.push_str(&format!(
            "{:<37}{:<18}{:<10}{:<22}{:<9}{}\n",
            text(&job["id"]),
            text(&job["kind"]),
            text(&job["state"]),
            at(job),
            every(job),
            job["error"].as_str().unwrap_or("-")
        ));
    }
    out
}

fn shown(job: &Value) -> String {
    format!(
        "id:       {}\nkind:     {}\nstate:    {}\nat:       {}\nevery:    {}\nattempts: {}\nworker:   {}\nerror:    {}\n\
         payload:  {}\n",
        text(&job["id"]),
        text(&job["kind"]),
        text(&job["state"]),
        at(job),
        every(job),
        job["attempts"].as_i64().unwrap_or(0),
        job["worker"].as_str().unwrap_or("-"),
        job["error"].as_str().unwrap_or("-"),
        text(&job["payload"])
    )
}
