//! `wharf user`, `wharf robot`, `wharf token` and `wharf session`: who can sign in.
//!
//! All through the management API, on this machine over the socket and elsewhere with a context. Only a secret goes to standard
//! output, so that a script can take it; what people read beside it goes to standard error.

mod robot;
mod session;
mod token;
mod user;

use serde_json::Value;

pub(super) use self::robot::{RobotCommand, make, robots, rotate};
pub(super) use self::session::SessionCommand;
pub(super) use self::token::TokenCommand;
pub(super) use self::user::UserCommand;
use super::client::{as_json, moment, text};
use super::exit::Outcome;
use super::gc::time;
use super::print;

/// So many entries a list has at most.
pub(super) const LISTED: usize = 100_000;

pub(super) fn user(command: &UserCommand) -> Outcome {
    user::run(command)
}

pub(super) fn robot(command: &RobotCommand) -> Outcome {
    robot::run(command)
}

pub(super) fn session(command: &SessionCommand) -> Outcome {
    session::run(command)
}

pub(super) fn token(command: &TokenCommand) -> Outcome {
    token::run(command)
}

/// Prints a secret that was just made, alone or with all that belongs to it.
fn secret(made: &Value, json: bool) -> Outcome {
    if json {
        return print(&as_json(made));
    }
    let principal = text(&made["principal"]);
    let until = moment(&made["expires_at"]).map_or_else(String::new, time);
    eprintln!(
        "The secret of {principal}, shown only now and good until {until} (its id: {}); sign in as {principal} with it:",
        text(&made["id"])
    );
    print(&format!("{}\n", text(&made["secret"])))
}

/// A table of a user's tokens, or of a robot's secrets.
fn secrets(secrets: &[Value]) -> String {
    let mut out = format!(
        "{:<18}{:<22}{:<40}NAME AND SCOPES\n",
        "ID", "ENDS", "LAST USED"
    );
    for secret in secrets {
        let ends = moment(&secret["expires_at"]).map_or_else(|| "never".to_owned(), time);
        let scopes = secret["scopes"].as_array().map(|all| {
            let all: Vec<String> = all.iter().map(text).collect();
            all.join(" ")
        });
        let scopes = scopes.unwrap_or_else(|| "everything".to_owned());
        let what = match text(&secret["name"]) {
            name if name.is_empty() => name,
            name => format!("{name}: {scopes}"),
        };
        let line = format!(
            "{:<18}{ends:<22}{:<40}{what}",
            text(&secret["id"]),
            used(secret)
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// When a secret was used last, and from where.
pub(super) fn used(secret: &Value) -> String {
    match (moment(&secret["used_at"]), text(&secret["used_from"])) {
        (None, _) => "never".to_owned(),
        (Some(at), from) if from.is_empty() => time(at),
        (Some(at), from) => format!("{} from {from}", time(at)),
    }
}

/// A span of time such as 90d or 12h, in seconds.
pub(super) fn span(text: &str) -> Result<i64, String> {
    let wrong = || {
        format!("{text:?} is no span of time; write a whole number with s, m, h or d, such as 90d")
    };
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: i64 = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
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
    use serde_json::json;

    use super::*;

    #[test]
    fn spans_are_read_or_refused_with_the_way_out() {
        assert_eq!(span("90d"), Ok(7_776_000));
        assert_eq!(
            (span("1s"), span("2m"), span("0h")),
            (Ok(1), Ok(120), Ok(0))
        );
        for broken in [
            "",
            "d",
            "90",
            "90 d",
            "-1d",
            "1w",
            "1.5h",
            "999999999999999999d",
            "9d9",
            "ü",
        ] {
            assert!(span(broken).unwrap_err().contains("90d"), "{broken}");
        }
    }

    #[test]
    fn tables_show_ends_and_uses() {
        let secret = json!({
            "id": "0123456789abcdef", "name": "laptop", "scopes": ["pull:team", "push:team/a"],
            "expires_at": "1970-01-01T00:00:00.000Z", "used_at": "1970-01-01T00:01:00.000Z", "used_from": "10.0.0.1",
        });
        let text = secrets(std::slice::from_ref(&secret));
        assert!(
            text.contains("1970-01-01 00:01:00Z from 10.0.0.1")
                && text.contains("laptop: pull:team push:team/a"),
            "{text}"
        );
        let robot = json!({
            "name": "team+ci", "expires_at": "1970-01-01T00:00:00.000Z", "networks": ["10.0.0.0/8"], "secrets": [secret],
        });
        let text = robot::machines(&[robot]);
        assert!(
            text.starts_with("team+ci  until 1970-01-01 00:00:00Z, only from 10.0.0.0/8\n  ID"),
            "{text}"
        );
    }
}
