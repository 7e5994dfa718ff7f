//! `wharf audit`: who did what, and whether the record of it is whole.
//!
//! All through the management API, on this machine over the socket and elsewhere with a context. Entries come page by page, as the
//! lines that programs get, so that no log is too long.

use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use wharf_oci::percent::encode_query;

use super::client::{Client, Where, as_json, moment as read_moment, text};
use super::exit::{Exit, Failure, Outcome};
use super::gc::time;
use super::human::count;
use super::print;

/// Entries of one request.
const PAGE: usize = 1_000;
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
        at: Where,
    },
    /// Write entries as JSON lines, the oldest first
    Export {
        #[command(flatten)]
        which: Which,
        /// Into this file, which must not exist; to standard output otherwise
        #[arg(long)]
        output: Option<PathBuf>,
        #[command(flatten)]
        at: Where,
    },
    /// Check that nobody altered, removed, moved or cut off an entry
    ///
    /// Prints the last entry's place and hash. Kept elsewhere and given with --expect later, they also show whether the whole
    /// database was put back to an older state. Ends with 4 when something is wrong, and names it. It looks at all of the log: an
    /// auditor of one namespace may list and export what happened there, and not check.
    Verify {
        /// A place and its hash, as an earlier run printed them
        #[arg(long, value_name = "PLACE:HASH")]
        expect: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
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
    /// The address of those entries in this order, but for the number.
    fn path(&self, order: &str) -> String {
        let at = |ms: Option<i64>| {
            let at = ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
            at.map(|at| at.to_string())
        };
        let filters = [
            ("since", at(self.since)),
            ("until", at(self.until)),
            ("principal", self.principal.clone()),
            ("repository", self.repository.clone()),
            ("namespace", self.namespace.clone()),
            ("action", self.action.clone()),
        ];
        let mut path = format!("/api/v1/audit/export?order={order}");
        for (name, value) in filters {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encode_query(&value)));
            }
        }
        path
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

pub(super) fn run(command: &AuditCommand) -> Outcome {
    match command {
        AuditCommand::List {
            which,
            number,
            json,
            at,
        } => list(&at.client()?, which, *number, *json),
        AuditCommand::Export { which, output, at } => export(&at.client()?, which, output.as_ref()),
        AuditCommand::Verify { expect, json, at } => verify(&at.client()?, expect.as_ref(), *json),
    }
}

/// Hands on page after page of lines, until it has had so many.
fn pages(
    client: &Client,
    path: &str,
    mut most: usize,
    mut take: impl FnMut(&str) -> Outcome,
) -> Outcome {
    client.at_once(|| {
        let mut after = String::new();
        while most > 0 {
            let size = most.min(PAGE);
            let (lines, next) = client.lines(&format!("{path}&n={size}{after}"))?;
            most -= lines.lines().count().min(most);
            take(&lines)?;
            match next {
                Some(next) => after = format!("&after={}", encode_query(&next)),
                None => break,
            }
        }
        Ok(())
    })
}

fn list(client: &Client, which: &Which, number: usize, json: bool) -> Outcome {
    let mut none = true;
    pages(client, &which.path("latest"), number, |lines| {
        none &= lines.is_empty();
        if json {
            return print(lines);
        }
        let entries = lines.lines().map(|line| {
            let read = serde_json::from_str::<Value>(line);
            read.map(|entry| told(&entry))
                .map_err(|error| Failure::new(Exit::Failure, error))
        });
        print(&entries.collect::<Result<String, _>>()?)
    })?;
    match none && !json {
        true => print("Nothing of that kind is in the audit log.\n"),
        false => Ok(()),
    }
}

fn export(client: &Client, which: &Which, output: Option<&PathBuf>) -> Outcome {
    let path = which.path("oldest");
    let Some(output) = output else {
        return pages(client, &path, usize::MAX, print);
    };
    let failed = |error| Failure::text(Exit::Failure, format!("{}: {error}", output.display()));
    let file = std::fs::File::create_new(output).map_err(failed)?;
    match write(client, &path, file, failed) {
        Ok(written) => print(&format!(
            "Wrote {} to {}.\n",
            entries(written),
            output.display()
        )),
        Err(failure) => {
            // Half an export looks like a whole one.
            let _ = std::fs::remove_file(output);
            Err(failure)
        }
    }
}

/// Writes all of it to the disk; tells how many.
fn write(
    client: &Client,
    path: &str,
    mut file: std::fs::File,
    failed: impl Fn(std::io::Error) -> Failure,
) -> Result<u64, Failure> {
    let mut written = 0;
    pages(client, path, usize::MAX, |lines| {
        written += lines.lines().count() as u64;
        file.write_all(lines.as_bytes()).map_err(&failed)
    })?;
    file.sync_all().map_err(&failed)?;
    Ok(written)
}

fn entries(number: u64) -> String {
    match number {
        1 => "1 entry".to_owned(),
        number => format!("{number} entries"),
    }
}

/// One entry for people.
fn told(entry: &Value) -> String {
    let field = |name: &str| entry[name].as_str().filter(|text| !text.is_empty());
    let at = read_moment(&entry["time"]).map_or_else(String::new, time);
    let who = field("principal").unwrap_or("(no name)");
    let mut line = format!("{at} {who} {}", text(&entry["action"]));
    let mut place = text(&entry["repository"]);
    match (field("tag"), field("digest")) {
        (Some(tag), _) => place.push_str(&format!(":{tag}")),
        (None, Some(digest)) => place.push_str(&format!("@{digest}")),
        (None, None) => {}
    }
    if !place.is_empty() {
        line.push_str(&format!(" {place}"));
    }
    let detail = &entry["detail"];
    let said = |key: &str| detail[key].as_str().filter(|text| !text.is_empty());
    for word in ["what", "command", "asked", "name"]
        .into_iter()
        .filter_map(said)
    {
        line.push_str(&format!(" {word}"));
    }
    let change = change(&entry["before"], &entry["after"]);
    if !change.is_empty() {
        line.push_str(&format!(" ({change})"));
    }
    if let Some(reason) = said("reason") {
        line.push_str(&format!(": {reason}"));
    }
    if let Some(address) = field("address") {
        line.push_str(&format!(", from {address}"));
    }
    if let Some(count) = entry["count"].as_u64().filter(|count| *count > 1) {
        line.push_str(&format!(", {count} times"));
    }
    line + "\n"
}

/// What a change made, took, or made of what was before.
fn change(before: &Value, after: &Value) -> String {
    let all = |fields: &Map<String, Value>| {
        let said = fields.iter().filter(|(_, value)| !is_nothing(value));
        let said: Vec<_> = said
            .map(|(key, value)| format!("{key} {}", short(key, value)))
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
            let other = other.map(|(key, value)| {
                format!("{key} {} → {}", short(key, was(key)), short(key, value))
            });
            let name = after
                .get("name")
                .map(|name| format!("name {}", short("name", name)));
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

/// Most characters of one value in a list for people; `--json` has all of it.
const LONGEST_VALUE: usize = 120;

fn short(key: &str, value: &Value) -> String {
    let text = in_words(key, value);
    match text.char_indices().nth(LONGEST_VALUE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn in_words(key: &str, value: &Value) -> String {
    match value {
        Value::Number(at) if key.ends_with("_at") => at.as_i64().map_or_else(String::new, time),
        Value::String(text) if !text.is_empty() && !text.chars().any(char::is_control) => {
            text.clone()
        }
        Value::Array(list) if list.len() > 3 => format!("{} of them", list.len()),
        Value::Null => "nothing".to_owned(),
        other => other.to_string(),
    }
}

fn verify(client: &Client, expect: Option<&String>, json: bool) -> Outcome {
    let body = json!({ "expect": expect });
    let found = client.send("POST", "/api/v1/audit/verify", Some(&body))?;
    let told = match json {
        true => as_json(&found),
        false => verified(&found),
    };
    print(&told)?;
    if found["whole"].as_bool() == Some(true) {
        return Ok(());
    }
    Err(Failure::text(
        Exit::Damage,
        "the audit log is not what was written; docs/how-to/audit.md says what to do",
    ))
}

/// What the check says, for people.
fn verified(found: &Value) -> String {
    let number = |name: &str| found[name].as_u64().unwrap_or(0);
    let (first, last) = (number("first"), number("last"));
    let mut told = format!(
        "Looked at {}, {first} to {last}.\n",
        entries(number("entries"))
    );
    let findings = found["findings"].as_array().map_or(&[][..], Vec::as_slice);
    for finding in findings {
        told.push_str(&format!(
            "Entry {} {}.\n",
            finding["seq"],
            text(&finding["what"])
        ));
    }
    let untold = number("bad").saturating_sub(findings.len() as u64);
    if untold > 0 {
        told.push_str(&format!("And {} more.\n", count(untold, "finding")));
    }
    let by_other_key = number("by_other_key");
    if by_other_key > 0 {
        told.push_str(&format!(
            "{} signed with an earlier secret key; the chain up to the signed end vouches for that.\n",
            entries(by_other_key)
        ));
    }
    if found["whole"].as_bool() == Some(true) {
        told.push_str("The audit log is whole.\n");
        if let Some(end) = found["end"].as_str() {
            told.push_str(&format!("Its end, to be kept elsewhere: {end}\n"));
        }
    }
    told
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
        let ends = json(r#"{"expires_at":1795430257262}"#);
        assert_eq!(change(&none, &ends), "expires_at 2026-11-23 10:37:37Z");
        let many = json(r#"{"bindings":[1,2,3,4],"name":"a\nb"}"#);
        assert_eq!(change(&none, &many), r#"bindings 4 of them, name "a\nb""#);
        let long = json!({"settings": {"keys": "é".repeat(1_000)}});
        let told = change(&none, &long);
        let begins = format!(r#"settings {{"keys":"{}"#, "é".repeat(LONGEST_VALUE - 9));
        assert_eq!(told, begins + "…");
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
}
