//! `wharf session`.

use clap::Subcommand;
use serde_json::Value;
use wharf_oci::percent::encode_query;

use super::super::client::{Where, as_json, moment, text};
use super::super::exit::Outcome;
use super::super::gc::time;
use super::super::print;
use super::LISTED;
use super::user::path;

/// What can be done with sessions.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum SessionCommand {
    /// List a user's sessions in browsers, and terminals
    List {
        /// The user
        user: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
    /// End a session or terminal of a user, or all of them
    ///
    /// It is over with its next request. API tokens go on.
    End {
        /// The user
        user: String,
        /// The session, as `wharf session list` shows it
        #[arg(required_unless_present = "all")]
        id: Option<String>,
        /// All of them
        #[arg(long, conflicts_with = "id")]
        all: bool,
        #[command(flatten)]
        at: Where,
    },
}

pub(super) fn run(command: &SessionCommand) -> Outcome {
    match command {
        SessionCommand::List { user, json, at } => {
            let path = format!("{}/sessions", path(user));
            let sessions = at.client()?.list(&path, LISTED)?;
            match json {
                true => print(&as_json(&Value::from(sessions))),
                false => print(&shown(&sessions)),
            }
        }
        SessionCommand::End {
            user,
            id: Some(id),
            at,
            ..
        } => {
            let path = format!("{}/sessions/{}", path(user), encode_query(id));
            at.client()?.send("DELETE", &path, None)?;
            print("Done.\n")
        }
        SessionCommand::End { user, at, .. } => {
            let path = format!("{}/sessions", path(user));
            let ended = at.client()?.send("DELETE", &path, None)?;
            print(&format!("{} sessions have ended.\n", ended["ended"]))
        }
    }
}

fn shown(sessions: &[Value]) -> String {
    let mut out = format!(
        "{:<18}{:<10}{:<16}{:<22}{:<22}{:<20}BROWSER OR MACHINE\n",
        "ID", "KIND", "BY", "SINCE", "USED", "FROM"
    );
    for one in sessions {
        let at = |field: &str| moment(&one[field]).map_or_else(String::new, time);
        let by = match text(&one["provider"]) {
            by if by.is_empty() => "password".to_owned(),
            by => by,
        };
        let name = match text(&one["device"]) {
            name if name.is_empty() => text(&one["agent"]),
            name => name,
        };
        out.push_str(&format!(
            "{:<18}{:<10}{by:<16}{:<22}{:<22}{:<20}{name}\n",
            text(&one["id"]),
            text(&one["kind"]),
            at("created_at"),
            at("seen_at"),
            text(&one["address"]),
        ));
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn terminals_are_listed_by_their_machines_beside_browsers() {
        let at = "2026-11-22T10:00:00Z";
        let common =
            |id: &str| json!({"id": id, "created_at": at, "seen_at": at, "address": "10.0.0.1"});
        let (mut browser, mut terminal) = (common("d8127db3907edce9"), common("0f127db3907edce9"));
        browser["kind"] = "browser".into();
        browser["agent"] = "Browser/1".into();
        browser["provider"] = "corp".into();
        terminal["kind"] = "terminal".into();
        terminal["device"] = "laptop".into();
        let shown = shown(&[browser, terminal]);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(
            lines[1].contains("browser   corp ") && lines[1].ends_with("Browser/1"),
            "{shown}"
        );
        assert!(
            lines[2].contains("terminal  password ") && lines[2].ends_with("laptop"),
            "{shown}"
        );
        assert_eq!(lines[0].find("KIND"), lines[2].find("terminal"));
    }
}
