//! `wharf grant`, `revoke`, `access`, `group`, `namespace` and `role`: who may do what.
//!
//! All through the management API, on this machine over the socket and elsewhere with a context.

mod explain;
mod group;
mod namespace;
mod role;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use wharf_oci::percent::encode_query;

pub(super) use self::group::GroupCommand;
pub(super) use self::namespace::NamespaceCommand;
pub(super) use self::role::RoleCommand;
use super::client::{Where, as_json, text};
use super::exit::{Exit, Failure, Outcome};
use super::print;
use crate::config::value::Value as _;

/// So many entries a list has at most.
const LISTED: usize = 100_000;

/// Give somebody a role on a namespace
///
/// WHO is a user, a robot (team/a+ci), group:NAME, workload:RULE, anonymous or signed-in. The role holds on the namespace and everything below
/// it; without `on NAMESPACE`, everywhere. Roles: reader, publisher (makes tags, never moves one), writer, maintainer, owner,
/// auditor, admin, and those of `wharf role list`. It counts at once, and within five seconds on other replicas, for
/// tokens already issued too. Grants add up; nothing takes away but `wharf revoke`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  wharf grant alice writer on team/a
  wharf grant cluster reader on team/a --from 10.0.0.0/8
  wharf grant team/a+ci publisher on team/a --tags 'v*' --expires 90d")]
pub(super) struct GrantArgs {
    /// Whom it is for
    who: String,
    /// The role
    role: String,
    /// The namespace, after the word `on`
    #[arg(value_name = "on NAMESPACE", num_args = 0..=2)]
    place: Vec<String>,
    /// Until then: a span such as 30d or 12h, or a day such as 2027-01-31
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// Only from this network, as in 10.0.0.0/8; may be given several times
    #[arg(long, value_name = "NETWORK")]
    from: Vec<String>,
    /// Only for tags of this pattern, as in 'v*'
    #[arg(long, value_name = "PATTERN")]
    tags: Option<String>,
    /// Only for who signed in that way: password, api-token, robot-secret, workload, certificate or terminal
    #[arg(long, value_name = "WAY")]
    sign_in: Option<String>,
    #[command(flatten)]
    at: Where,
}

/// Take a role away
///
/// The reverse of `wharf grant`, whatever conditions the grant has. What the configuration grants is changed there. The last
/// owner of a namespace and the last administrator stay.
#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// Whose
    who: String,
    /// The role; `all` for every role that was granted there
    role: String,
    /// The namespace, after the word `on`
    #[arg(value_name = "on NAMESPACE", num_args = 0..=2)]
    place: Vec<String>,
    #[command(flatten)]
    at: Where,
}

/// What can be asked about rights.
#[derive(Debug, Subcommand)]
pub(super) enum RightsCommand {
    /// Say whether somebody may do something, and why
    ///
    /// Names the grant that allows it, or what is missing and who could give it. Permissions: pull, push, tag-create, tag-move,
    /// delete, catalog, read-settings, manage-settings, manage-bindings, manage-robots, read-audit, admin. Ends with 1 when the
    /// answer is no.
    Explain {
        /// A user, a robot or anonymous
        who: String,
        /// What they want to do
        permission: String,
        /// The repository; without it, the registry as a whole
        repository: Option<String>,
        /// For this tag
        #[arg(long)]
        tag: Option<String>,
        /// From this address
        #[arg(long, value_name = "ADDRESS")]
        from: Option<String>,
        /// Signed in that way: password, api-token, robot-secret, workload, certificate or terminal
        #[arg(long, value_name = "WAY")]
        sign_in: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Write down namespaces, roles, groups, robots, grants and whose tokens are trusted, as `wharf apply` reads them
    ///
    /// What the configuration grants is no part of it, and neither are secrets.
    Export {
        #[command(flatten)]
        at: Where,
    },
    /// List grants, with where each comes from
    List {
        /// Those that reach this repository or namespace, or lie below it
        #[arg(long, value_name = "NAME")]
        repo: Option<String>,
        /// Those that reach this user or robot, its groups' and everybody's too; or those of group:NAME
        #[arg(long)]
        who: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: Where,
    },
}

pub(super) fn group(command: &GroupCommand) -> Outcome {
    group::run(command)
}

pub(super) fn namespace(command: &NamespaceCommand) -> Outcome {
    namespace::run(command)
}

pub(super) fn role(command: &RoleCommand) -> Outcome {
    role::run(command)
}

fn wrong(text: String) -> Failure {
    Failure::text(Exit::Usage, text)
}

/// `on team/a`, or nothing for everywhere.
pub(super) fn place(words: &[String]) -> Result<String, Failure> {
    match words {
        [] => Ok(String::new()),
        [on, path] if on == "on" => Ok(path.clone()),
        [path] if path != "on" => Ok(path.clone()),
        _ => Err(wrong(
            "write the namespace after the word `on`, as in `wharf grant alice writer on team/a`"
                .to_owned(),
        )),
    }
}

/// A span from now on, or the end of a day in UTC, in ms since 1970.
fn end(text: &str) -> Result<i64, Failure> {
    let now = jiff::Timestamp::now().as_millisecond();
    if let Ok(span) = std::time::Duration::parse(text) {
        let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        return Ok(now.saturating_add(span));
    }
    moment(text).ok_or_else(|| {
        wrong(format!(
            "--expires {text}: write a span such as 30d or 12h, or a day such as 2027-01-31"
        ))
    })
}

/// A moment, or the end of a day in UTC, in ms since 1970.
pub(super) fn moment(text: &str) -> Option<i64> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(at.as_millisecond());
    }
    let day = text.parse::<jiff::civil::Date>().ok()?;
    let after = day.tomorrow().ok()?.to_zoned(jiff::tz::TimeZone::UTC);
    Some(after.ok()?.timestamp().as_millisecond())
}

/// Makes a change, and says whether it was one.
fn change(at: &Where, method: &str, path: &str, body: Option<&Value>) -> Outcome {
    let done = at.client()?.send(method, path, body)?;
    match done["changed"].as_bool() {
        Some(false) => print("It was so already.\n"),
        _ => print("Done.\n"),
    }
}

/// `?a=b&c=d` of those that are given.
fn query(parts: &[(&str, Option<&str>)]) -> String {
    let given = parts
        .iter()
        .filter_map(|(key, value)| value.map(|value| format!("{key}={}", encode_query(value))));
    let given: Vec<String> = given.collect();
    match given.is_empty() {
        true => String::new(),
        false => format!("?{}", given.join("&")),
    }
}

pub(super) fn grant(args: &GrantArgs) -> Outcome {
    let ends = args.expires.as_deref().map(end).transpose()?;
    let ends = ends.map(|ms| jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX));
    let body = json!({
        "who": args.who,
        "role": args.role,
        "on": place(&args.place)?,
        "expires_at": ends.map(|end| end.to_string()),
        "networks": args.from,
        "tags": args.tags,
        "sign_in": args.sign_in,
    });
    change(&args.at, "POST", "/api/v1/bindings", Some(&body))
}

pub(super) fn revoke(args: &RevokeArgs) -> Outcome {
    let on = place(&args.place)?;
    let role = (args.role != "all").then_some(args.role.as_str());
    let wanted = query(&[("who", Some(&args.who)), ("role", role), ("on", Some(&on))]);
    let path = format!("/api/v1/bindings{wanted}");
    let gone = args.at.client()?.send("DELETE", &path, None)?;
    let gone = gone.as_array().cloned().unwrap_or_default();
    print(&format!("Revoked:\n{}", table(&gone)))
}

pub(super) fn rights(command: &RightsCommand) -> Outcome {
    match command {
        RightsCommand::Export { at } => super::apply::export(at),
        RightsCommand::Explain {
            who,
            permission,
            repository,
            tag,
            from,
            sign_in,
            json,
            at,
        } => {
            let wanted = query(&[
                ("who", Some(who)),
                ("permission", Some(permission)),
                ("repository", repository.as_deref()),
                ("tag", tag.as_deref()),
                ("from", from.as_deref()),
                ("sign_in", sign_in.as_deref()),
            ]);
            let told = at.client()?.get(&format!("/api/v1/explain{wanted}"))?;
            match json {
                true => print(&as_json(&told))?,
                false => print(&explain::explained(&told))?,
            }
            match told["allowed"].as_bool() {
                Some(true) => Ok(()),
                _ => Err(Failure::text(Exit::Failure, "the answer is no")),
            }
        }
        RightsCommand::List {
            repo,
            who,
            json,
            at,
        } => {
            let repo = repo.as_deref().map(|repo| repo.trim_end_matches('/'));
            let wanted = query(&[("on", repo), ("who", who.as_deref())]);
            let path = format!("/api/v1/bindings{wanted}");
            let all = at.client()?.list(&path, LISTED)?;
            match () {
                () if *json => print(&as_json(&Value::from(all))),
                () if all.is_empty() => print("No grants.\n"),
                () => print(&table(&all)),
            }
        }
    }
}

fn table(bindings: &[Value]) -> String {
    let rows: Vec<_> = bindings.iter().map(row).collect();
    columns(["WHO", "ROLE", "NAMESPACE", "CONDITIONS", "ORIGIN"], &rows)
}

fn row(binding: &Value) -> [String; 5] {
    let ended = binding["ended"].as_bool() == Some(true);
    let conditions = match (text(&binding["conditions"]), ended) {
        (conditions, _) if conditions.is_empty() => "-".to_owned(),
        (conditions, true) => format!("ENDED: {conditions}"),
        (conditions, false) => conditions,
    };
    let on = match text(&binding["on"]) {
        on if on.is_empty() => "(everywhere)".to_owned(),
        on => on,
    };
    [
        text(&binding["who"]),
        text(&binding["role"]),
        on,
        conditions,
        text(&binding["origin"]),
    ]
}

/// Columns as wide as they need to be.
pub(super) fn columns<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
    let width = |at: usize| {
        let cells = rows.iter().map(|row| row[at].chars().count());
        cells.max().unwrap_or(0).max(head[at].len())
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in std::iter::once(&head.map(str::to_owned)).chain(rows) {
        let cells: Vec<String> = std::iter::zip(row, widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_with_and_without_the_word() {
        let words =
            |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        assert_eq!(place(&words("")).unwrap(), "");
        assert_eq!(place(&words("on team/a")).unwrap(), "team/a");
        assert_eq!(place(&words("team/a")).unwrap(), "team/a");
        for bad in ["on", "in team", "team on"] {
            assert!(place(&words(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn ends_are_spans_or_days() {
        let day = end("2027-01-31").unwrap();
        assert_eq!(day, 1_801_440_000_000, "the whole day counts");
        assert_eq!(end("2027-02-01T00:00:00Z").unwrap(), day);
        let soon = end("12h").unwrap() - jiff::Timestamp::now().as_millisecond();
        assert!((43_190_000..=43_200_000).contains(&soon), "{soon}");
        assert!(end("soon").is_err());
    }
}
