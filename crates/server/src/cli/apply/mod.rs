//! `wharf apply` and `wharf access export`: rights in a file.

mod file;

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::client::{Unanswered, Where};
use super::exit::{Exit, Failure, Outcome};
use super::gc::agree;
use super::human::count;
use super::print;
use crate::admin::CallError;

/// Make rights what a file says
///
/// The file names namespaces, own roles, groups, robots, grants and whose tokens are trusted, in TOML. What is missing is made; what is not named stays, unless --prune
/// is given, and then removals are listed first. Applying a file twice does nothing the second time. What the configuration
/// grants is not touched, nor are the secrets of robots that are there. `wharf access export` writes such a file.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf apply -f access.toml --dry-run
  wharf apply -f access.toml --prune --yes --secrets new-secrets.txt")]
pub(super) struct ApplyArgs {
    /// The file; `-` reads standard input
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
    /// Show what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove what the file does not name, too
    #[arg(long)]
    prune: bool,
    /// Do not ask before something is removed
    #[arg(long)]
    yes: bool,
    /// Write the secrets of robots that are made to this new file, a name and a secret in each line, instead of printing them
    #[arg(long, value_name = "FILE")]
    secrets: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    at: Where,
}

const PATH: &str = "/api/v1/apply";

pub(super) fn run(args: &ApplyArgs) -> Outcome {
    let mut wish = file::read(&args.file)?;
    let client = args.at.client()?;
    wish["prune"] = args.prune.into();
    wish["dry_run"] = true.into();
    let plan = client.send("POST", PATH, Some(&wish))?;
    let steps = list(&plan, "steps");
    if args.dry_run || steps.is_empty() {
        return match args.json {
            true => show(&plan),
            false if steps.is_empty() => print("Nothing to do.\n"),
            false => print(&format!("{}\n{}.\n", told(steps), sum(steps, "would be "))),
        };
    }
    let removes = steps.iter().any(|step| step["act"] == "remove");
    if removes && !args.yes {
        agree(&told(steps))?;
    } else if !args.json {
        print(&told(steps))?;
    }
    let makes_robots = (steps.iter()).any(|step| step["sort"] == "robot" && step["act"] == "add");
    let mut secrets = match (&args.secrets, makes_robots) {
        (Some(path), true) => Some(create(path)?),
        _ => None,
    };
    wish["dry_run"] = false.into();
    wish["epoch"] = plan["epoch"].clone();
    let answer = client.send("POST", PATH, Some(&wish));
    if let (Err(_), Some(_), Some(path)) = (&answer, &secrets, &args.secrets) {
        // It is empty, and would be in the way of the next run.
        let _ = std::fs::remove_file(path);
    }
    let mut outcome = answer.map_err(cut_off)?;
    let robots = list(&outcome, "robots");
    if let (Some(file), Some(path)) = (&mut secrets, &args.secrets) {
        let lines: String = robots.iter().map(line).collect();
        let written = file.write_all(lines.as_bytes());
        written.and_then(|()| file.sync_all()).map_err(|error| {
            let text = format!("{}: {error}; the secrets are:\n{lines}", path.display());
            Failure::text(Exit::Failure, text)
        })?;
        for robot in outcome["robots"].as_array_mut().into_iter().flatten() {
            robot["secret"] = Value::Null;
        }
    }
    match args.json {
        true => show(&outcome)?,
        false => print(&done(&outcome, args.secrets.as_deref()))?,
    }
    match outcome["stopped"].as_str() {
        None => Ok(()),
        Some(why) => Err(Failure::text(
            Exit::Failure,
            format!(
                "stopped: {why}\n  help: what is done stays; when the cause is gone, run it again"
            ),
        )),
    }
}

/// Where no answer came, nobody knows how far it got, and the way on is the same.
fn cut_off(failure: Failure) -> Failure {
    let broken = failure.error.downcast_ref::<CallError>();
    let local = matches!(broken, Some(CallError::Broken(_)));
    if !local && !failure.error.is::<Unanswered>() {
        return failure;
    }
    let text = format!(
        "{}\n  help: what was done stays, and no change is half done; run it again for the rest. A robot that was made, and whose secret \
         you were not told, gets one with `wharf robot rotate`",
        failure.error
    );
    Failure::text(failure.exit, text)
}

fn list<'a>(answer: &'a Value, name: &str) -> &'a [Value] {
    answer[name].as_array().map_or(&[], Vec::as_slice)
}

fn show(answer: &Value) -> Outcome {
    let text = serde_json::to_string_pretty(answer);
    print(&format!("{}\n", text.unwrap_or_default()))
}

/// A file that is not there yet, for its owner only.
fn create(path: &Path) -> Result<std::fs::File, Failure> {
    let mut options = std::fs::OpenOptions::new();
    let made = options.write(true).create_new(true).mode(0o600).open(path);
    made.map_err(|error| {
        let text = format!(
            "--secrets {}: {error}; name a file that is not there",
            path.display()
        );
        Failure::text(Exit::Usage, text)
    })
}

fn word<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn line(robot: &Value) -> String {
    format!("{} {}\n", word(robot, "name"), word(robot, "secret"))
}

/// A line for each step, as the server orders them: removals first.
fn told(steps: &[Value]) -> String {
    let line = |step: &Value| {
        let sign = match word(step, "act") {
            "add" => '+',
            "remove" => '-',
            _ => '~',
        };
        format!("{sign} {}\n", word(step, "text"))
    };
    steps.iter().map(line).collect()
}

fn sum(steps: &[Value], verb: &str) -> String {
    let number = |act: &str| steps.iter().filter(|step| step["act"] == act).count();
    let parts = [
        ("remove", "removed"),
        ("change", "changed"),
        ("add", "added"),
    ];
    let parts = parts.map(|(act, done)| (number(act), done));
    let parts: Vec<String> = (parts.into_iter())
        .filter(|(number, _)| *number > 0)
        .map(|(number, done)| format!("{number} {verb}{done}"))
        .collect();
    parts.join(", ")
}

fn done(outcome: &Value, secrets: Option<&Path>) -> String {
    let (made, left): (Vec<Value>, Vec<Value>) =
        (list(outcome, "steps").iter().cloned()).partition(|step| step["done"] == true);
    let mut text = format!("Done: {}.\n", sum(&made, ""));
    if !left.is_empty() {
        text.push_str(&format!("Not done:\n{}", told(&left)));
    }
    let robots = list(outcome, "robots");
    match secrets {
        _ if robots.is_empty() => {}
        Some(path) => text.push_str(&format!(
            "The secrets of {} are in {}.\n",
            count(robots.len() as u64, "robot"),
            path.display()
        )),
        None => {
            text.push_str("\nThese secrets are shown now and never again:\n");
            let width = robots.iter().map(|one| word(one, "name").len()).max();
            let width = width.unwrap_or_default();
            for robot in robots {
                let (name, secret) = (word(robot, "name"), word(robot, "secret"));
                let until = word(robot, "expires_at");
                text.push_str(&format!("  {name:width$}  {secret}  until {until}\n"));
            }
        }
    }
    text
}

/// Writes down what is there, as `wharf apply` reads it.
pub(super) fn export(at: &Where) -> Outcome {
    let wish = at.client()?.get(PATH)?;
    print(&file::write(&wish))
}

/// An empty wish, for what reads a file.
fn nothing() -> Value {
    json!({ "namespaces": [], "roles": [], "issuers": [], "rules": [], "groups": [], "robots": [], "bindings": [] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome() -> Value {
        json!({
            "steps": [
                { "act": "remove", "sort": "binding", "text": "bob is writer on team/a", "done": false },
                { "act": "change", "sort": "namespace", "text": "namespace team/a: private → public", "done": true },
                { "act": "add", "sort": "robot", "text": "robot team/a+ci", "done": true },
            ],
            "robots": [{ "name": "team/a+ci", "secret": "s3cret", "expires_at": "2027-01-31T00:00:00Z" }],
        })
    }

    #[test]
    fn a_plan_is_told_as_a_diff() {
        let outcome = outcome();
        let steps = list(&outcome, "steps");
        assert_eq!(
            told(steps),
            "- bob is writer on team/a\n~ namespace team/a: private → public\n+ robot team/a+ci\n"
        );
        assert_eq!(
            sum(steps, "would be "),
            "1 would be removed, 1 would be changed, 1 would be added"
        );
    }

    #[test]
    fn what_is_left_is_told_and_secrets_are_shown_once_or_not_at_all() {
        let shown = done(&outcome(), None);
        assert!(
            shown.starts_with("Done: 1 changed, 1 added.\nNot done:\n- bob is writer on team/a\n")
        );
        assert!(shown.contains("  team/a+ci  s3cret  until 2027-01-31T00:00:00Z\n"));
        let hidden = done(&outcome(), Some(Path::new("new.txt")));
        assert!(hidden.contains("The secrets of 1 robot are in new.txt."));
        assert!(!hidden.contains("s3cret"));
    }
}
