//! `wharf audit`: who did what, and whether the record of it is whole.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::exit::{Exit, Failure, Outcome};
use super::flags::DataFlags;
use super::gc::time;
use super::human::count;
use super::offline::perform;
use super::print;
use crate::admin::{
    Asked, AuditCommand as Asking, AuditPage, AuditReply, Checked, Command, EntryView, Reply,
};
use crate::api::Entry;
use crate::config::{Inputs, load};

/// Entries of one request.
const PAGE: usize = 500;
/// Entries that are shown to people who do not say how many.
const SHOWN: usize = 50;

/// What can be done with the audit log.
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Show the latest entries, the latest first
    List {
        #[command(flatten)]
        which: Which,
        /// At most so many
        #[arg(long, short = 'n', default_value_t = SHOWN)]
        number: usize,
        /// As JSON lines
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Write entries as JSON lines, the oldest first
    Export {
        #[command(flatten)]
        which: Which,
        /// Into this file, which must not exist; to standard output otherwise
        #[arg(long)]
        output: Option<PathBuf>,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Check that nobody altered, removed, moved or cut off an entry
    ///
    /// Prints the last entry's place and hash. Kept elsewhere and given with --expect later, they also show whether the whole
    /// database was put back to an older state. Ends with 4 when something is wrong, and names it.
    Verify {
        /// A place and its hash, as an earlier run printed them
        #[arg(long, value_name = "PLACE:HASH", value_parser = noted)]
        expect: Option<(i64, String)>,
        #[command(flatten)]
        flags: DataFlags,
    },
}

/// Which entries
#[derive(Debug, Args)]
pub(super) struct Which {
    /// From this moment on: 2026-01-31, 2026-01-31T03:00:00Z, or 12h for so long ago
    #[arg(long, value_parser = moment)]
    since: Option<i64>,
    /// Before this moment
    #[arg(long, value_parser = moment)]
    until: Option<i64>,
    /// By this user or robot
    #[arg(long)]
    principal: Option<String>,
    /// On exactly this repository
    #[arg(long)]
    repository: Option<String>,
    /// On this namespace and below
    #[arg(long)]
    namespace: Option<String>,
    /// This action, or all of a noun: tag.move, tag, refuse, sign-in
    #[arg(long)]
    action: Option<String>,
}

impl Which {
    fn asked(&self) -> Asked {
        Asked {
            since: self.since,
            until: self.until,
            principal: self.principal.clone(),
            repository: self.repository.clone(),
            namespace: self.namespace.clone(),
            action: self.action.clone(),
            ..Asked::default()
        }
    }
}

/// A moment, in ms since 1970.
fn moment(text: &str) -> Result<i64, String> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at.as_millisecond());
    }
    if let Ok(day) = text.parse::<jiff::civil::Date>()
        && let Ok(day) = day.to_zoned(jiff::tz::TimeZone::UTC)
    {
        return Ok(day.timestamp().as_millisecond());
    }
    let (number, unit) = text.split_at(text.len() - text.chars().last().map_or(0, char::len_utf8));
    let unit: i64 = match unit {
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    let ago = number
        .parse()
        .ok()
        .and_then(|number: u32| i64::from(number).checked_mul(unit));
    match ago.filter(|ago| *ago > 0) {
        Some(ago) => Ok(jiff::Timestamp::now().as_millisecond() - ago),
        None => Err("write a day (2026-01-31), a moment (2026-01-31T03:00:00Z), or how long ago (30m, 12h, 7d)".to_owned()),
    }
}

fn noted(text: &str) -> Result<(i64, String), String> {
    let parts = text.split_once(':');
    let read = parts.and_then(|(place, hash)| {
        let hex = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        Some((place.parse().ok()?, hash.to_ascii_lowercase())).filter(|_| hex)
    });
    read.ok_or_else(|| {
        "write it as `wharf audit verify` prints it: 1234:<64 hex digits>".to_owned()
    })
}

pub(super) fn run(command: &AuditCommand) -> Outcome {
    match command {
        AuditCommand::List {
            which,
            number,
            json,
            flags,
        } => list(&flags.inputs(), which, *number, *json),
        AuditCommand::Export {
            which,
            output,
            flags,
        } => export(&flags.inputs(), which, output.as_ref()),
        AuditCommand::Verify { expect, flags } => verify(&flags.inputs(), expect.clone()),
    }
}

fn ask(inputs: &Inputs, asking: Asking) -> Result<AuditReply, Failure> {
    let config = load(inputs)?.config;
    match perform(&config, Command::Audit(asking))? {
        Reply::Audit(reply) => Ok(reply),
        other => Err(super::storage::unexpected(&other)),
    }
}

/// Hands on page after page, until it has had so many entries.
fn pages(
    inputs: &Inputs,
    mut asked: Asked,
    mut most: usize,
    mut take: impl FnMut(Vec<EntryView>) -> Outcome,
) -> Outcome {
    while most > 0 {
        asked.limit = most.min(PAGE);
        let page = match ask(inputs, Asking::Read(asked.clone()))? {
            AuditReply::Page(page) => page,
            other => return Err(super::storage::unexpected(&Reply::Audit(other))),
        };
        let AuditPage { entries, next } = page;
        most -= entries.len().min(most);
        take(entries)?;
        match next {
            Some(place) => asked.after = Some(place),
            None => break,
        }
    }
    Ok(())
}

fn list(inputs: &Inputs, which: &Which, number: usize, json: bool) -> Outcome {
    let asked = Asked {
        latest_first: true,
        ..which.asked()
    };
    let mut text = String::new();
    pages(inputs, asked, number, |entries| {
        for entry in entries {
            match json {
                true => text.push_str(&line(entry)?),
                false => text.push_str(&told(&entry)),
            }
        }
        Ok(())
    })?;
    match text.is_empty() && !json {
        true => print("Nothing of that kind is in the audit log.\n"),
        false => print(&text),
    }
}

fn export(inputs: &Inputs, which: &Which, output: Option<&PathBuf>) -> Outcome {
    let Some(path) = output else {
        return pages(inputs, which.asked(), usize::MAX, |entries| {
            entries
                .into_iter()
                .try_for_each(|entry| print(&line(entry)?))
        });
    };
    let failed = |error: std::io::Error| {
        Failure::text(Exit::Failure, format!("{}: {error}", path.display()))
    };
    let file = std::fs::File::create_new(path).map_err(failed)?;
    let mut file = std::io::BufWriter::new(file);
    let mut written = 0;
    pages(inputs, which.asked(), usize::MAX, |entries| {
        for entry in entries {
            file.write_all(line(entry)?.as_bytes()).map_err(failed)?;
            written += 1;
        }
        Ok(())
    })?;
    file.flush().map_err(failed)?;
    file.get_ref().sync_all().map_err(failed)?;
    print(&format!(
        "Wrote {} to {}.\n",
        entries(written),
        path.display()
    ))
}

fn entries(number: u64) -> String {
    match number {
        1 => "1 entry".to_owned(),
        number => format!("{number} entries"),
    }
}

fn line(entry: EntryView) -> Result<String, Failure> {
    let text = serde_json::to_string(&Entry::from(entry));
    let text = text.map_err(|error| Failure::text(Exit::Failure, error))?;
    Ok(text + "\n")
}

/// One entry for people.
fn told(entry: &EntryView) -> String {
    let mut text = format!("{} {} {}", time(entry.at), entry.principal, entry.action);
    if entry.principal.is_empty() {
        text = format!("{} (no name) {}", time(entry.at), entry.action);
    }
    let on = entry.repository.as_deref().unwrap_or_default();
    let tag = entry
        .tag
        .as_ref()
        .map_or_else(String::new, |tag| format!(":{tag}"));
    let digest = entry.digest.as_ref().filter(|_| entry.tag.is_none());
    let digest = digest.map_or_else(String::new, |digest| format!("@{digest}"));
    let place = format!("{on}{tag}{digest}");
    if !place.is_empty() {
        text.push_str(&format!(" {place}"));
    }
    let said = |key: &str| {
        entry
            .detail
            .get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    for key in ["what", "command", "asked", "name"] {
        if let Some(word) = said(key) {
            text.push_str(&format!(" {word}"));
        }
    }
    let change = change(&entry.before, &entry.after);
    if !change.is_empty() {
        text.push_str(&format!(" ({change})"));
    }
    if let Some(reason) = said("reason") {
        text.push_str(&format!(": {reason}"));
    }
    if !entry.address.is_empty() {
        text.push_str(&format!(", from {}", entry.address));
    }
    if entry.count > 1 {
        text.push_str(&format!(", {} times", entry.count));
    }
    text + "\n"
}

/// What a change made, took, or made of what was before.
fn change(before: &Value, after: &Value) -> String {
    let all = |fields: &Map<String, Value>| {
        let said = fields.iter().filter(|(_, value)| !is_nothing(value));
        let said: Vec<_> = said
            .map(|(key, value)| format!("{key} {}", short(value)))
            .collect();
        said.join(", ")
    };
    match (before.as_object(), after.as_object()) {
        (None, None) => String::new(),
        (None, Some(after)) => all(after),
        (Some(before), None) => format!("was {}", all(before)),
        (Some(before), Some(after)) => {
            let was = |key: &String| before.get(key).unwrap_or(&Value::Null);
            let other = after.iter().filter(|(key, value)| was(key) != *value);
            let other =
                other.map(|(key, value)| format!("{key} {} → {}", short(was(key)), short(value)));
            let name = after
                .get("name")
                .map(|name| format!("name {}", short(name)));
            name.into_iter().chain(other).collect::<Vec<_>>().join(", ")
        }
    }
}

/// What a list for people leaves out.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is) => !is,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn short(value: &Value) -> String {
    match value {
        Value::String(text) if !text.is_empty() && !text.chars().any(char::is_control) => {
            text.clone()
        }
        Value::Array(list) if list.len() > 3 => format!("{} of them", list.len()),
        Value::Null => "nothing".to_owned(),
        other => other.to_string(),
    }
}

fn verify(inputs: &Inputs, expect: Option<(i64, String)>) -> Outcome {
    let checked = match ask(inputs, Asking::Verify { expect })? {
        AuditReply::Checked(checked) => checked,
        other => return Err(super::storage::unexpected(&Reply::Audit(other))),
    };
    let Checked {
        entries: looked,
        first,
        last,
        head,
        findings,
        bad,
        by_other_key,
    } = checked;
    let mut text = format!("Looked at {}, {first} to {last}.\n", entries(looked));
    for found in &findings {
        text.push_str(&format!("Entry {} {}.\n", found.seq, found.what));
    }
    let untold = bad - findings.len() as u64;
    if untold > 0 {
        text.push_str(&format!("And {} more.\n", count(untold, "finding")));
    }
    if by_other_key > 0 {
        text.push_str(&format!(
            "{} signed with an earlier secret key; the chain up to the signed end vouches for that.\n",
            entries(by_other_key)
        ));
    }
    if bad == 0 {
        text.push_str("The audit log is whole.\n");
        if last > 0 {
            text.push_str(&format!("Its end, to be kept elsewhere: {last}:{head}\n"));
        }
        return print(&text);
    }
    print(&text)?;
    Err(Failure::text(
        Exit::Damage,
        "the audit log is not what was written; docs/how-to/audit.md says what to do",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_by_what_it_made_took_or_made_of_it() {
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let none = Value::Null;
        let made = json(r#"{"name":"alice","kind":"user","networks":"","expires_at":0}"#);
        assert_eq!(change(&none, &made), "kind user, name alice");
        assert_eq!(change(&made, &none), "was kind user, name alice");
        let (before, after) = (
            json(r#"{"name":"a","disabled":false,"networks":""}"#),
            json(r#"{"name":"a","disabled":true,"networks":"10.0.0.0/8"}"#),
        );
        assert_eq!(
            change(&before, &after),
            "name a, disabled false → true, networks \"\" → 10.0.0.0/8"
        );
        let many = json(r#"{"bindings":[1,2,3,4],"name":"a\nb"}"#);
        assert_eq!(change(&none, &many), r#"bindings 4 of them, name "a\nb""#);
        assert_eq!(change(&none, &none), "");
    }

    #[test]
    fn moments_are_days_times_and_how_long_ago() {
        assert_eq!(moment("1970-01-02"), Ok(86_400_000));
        assert_eq!(moment("1970-01-01T00:00:01Z"), Ok(1_000));
        let ago = jiff::Timestamp::now().as_millisecond() - moment("2h").unwrap();
        assert!((7_200_000..7_260_000).contains(&ago), "{ago}");
        for wrong in ["", "h", "0h", "2", "-1h", "1y", "é", "yesterday"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_noted_end_is_a_place_and_a_hash() {
        let hash = "ab".repeat(32);
        assert_eq!(noted(&format!("12:{hash}")), Ok((12, hash.clone())));
        for wrong in [
            "",
            "12",
            "12:ab",
            &format!("x:{hash}"),
            &format!("12:{}", "zz".repeat(32)),
        ] {
            assert!(noted(wrong).is_err(), "{wrong}");
        }
    }
}
