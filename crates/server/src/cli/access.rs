//! `wharf grant`, `revoke`, `access`, `group`, `namespace` and `role`: who may do what.

use clap::{Args, Subcommand, ValueEnum};

use super::client::Where;
use super::exit::{Exit, Failure, Outcome};
use super::flags::DataFlags;
use super::offline::perform;
use super::print;
use crate::admin::{AccessCommand, AccessReply, BindingView, Command, ExplanationView, Reply};
use crate::config::load;
use crate::config::value::Value as _;

/// Give somebody a role on a namespace
///
/// WHO is a user, a robot (team/a+ci), group:NAME, anonymous or signed-in. The role holds on the namespace and everything below
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
    /// Only for who signed in that way: password, api-token or robot-secret
    #[arg(long, value_name = "WAY")]
    sign_in: Option<String>,
    #[command(flatten)]
    flags: DataFlags,
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
    flags: DataFlags,
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
        /// Signed in that way: password, api-token or robot-secret
        #[arg(long, value_name = "WAY")]
        sign_in: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Write down namespaces, groups, robots and grants, as `wharf apply` reads them
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
        flags: DataFlags,
    },
}

/// What can be done with groups.
#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// List groups and who is in them
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Make a group
    Create {
        /// Its name: a-z, 0-9, `-`, `_`, `.`
        name: String,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Remove a group and all that was granted to it
    Remove {
        /// Its name
        name: String,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Put a user or robot into a group
    AddMember {
        /// The group
        group: String,
        /// Who
        who: String,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Take a user or robot out of a group
    RemoveMember {
        /// The group
        group: String,
        /// Who
        who: String,
        #[command(flatten)]
        flags: DataFlags,
    },
}

/// Who may pull from a namespace without a grant.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Visible {
    /// Nobody
    Private,
    /// Everybody who signed in
    Internal,
    /// Everybody
    Public,
}

impl Visible {
    fn word(self) -> String {
        match self {
            Self::Private => "private",
            Self::Internal => "internal",
            Self::Public => "public",
        }
        .to_owned()
    }
}

/// What can be done with namespaces.
#[derive(Debug, Subcommand)]
pub(super) enum NamespaceCommand {
    /// List namespaces that have settings
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Set who may pull from a namespace without a grant
    Set {
        /// The namespace
        path: String,
        /// Who
        visibility: Visible,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Remove the settings of a namespace and every grant on exactly it; its repositories stay
    Remove {
        /// The namespace
        path: String,
        #[command(flatten)]
        flags: DataFlags,
    },
}

/// What can be done with roles.
#[derive(Debug, Subcommand)]
pub(super) enum RoleCommand {
    /// List roles and what they are made of
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Make a role, or change what it is made of wherever it is granted
    Set {
        /// Its name: a-z, 0-9, `-`, `_`, `.`
        name: String,
        /// Permissions separated by commas, as in pull,catalog
        permissions: String,
        #[command(flatten)]
        flags: DataFlags,
    },
    /// Remove a role that is granted nowhere
    Remove {
        /// Its name
        name: String,
        #[command(flatten)]
        flags: DataFlags,
    },
}

fn ask(flags: &DataFlags, command: AccessCommand) -> Result<AccessReply, Failure> {
    let config = load(&flags.inputs())?.config;
    match perform(&config, Command::Access(command))? {
        Reply::Access(reply) => Ok(reply),
        other => Err(super::storage::unexpected(&other)),
    }
}

fn unexpected(reply: AccessReply) -> Failure {
    super::storage::unexpected(&Reply::Access(reply))
}

fn wrong(text: String) -> Failure {
    Failure::text(Exit::Usage, text)
}

/// `on team/a`, or nothing for everywhere.
fn place(words: &[String]) -> Result<String, Failure> {
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

fn changed(reply: AccessReply) -> Outcome {
    match reply {
        AccessReply::Changed(true) => print("Done.\n"),
        AccessReply::Changed(false) => print("It was so already.\n"),
        other => Err(unexpected(other)),
    }
}

pub(super) fn grant(args: &GrantArgs) -> Outcome {
    let command = AccessCommand::Grant {
        who: args.who.clone(),
        role: args.role.clone(),
        on: place(&args.place)?,
        expires_at: args.expires.as_deref().map(end).transpose()?,
        networks: args.from.clone(),
        tags: args.tags.clone(),
        sign_in: args.sign_in.clone(),
    };
    changed(ask(&args.flags, command)?)
}

pub(super) fn revoke(args: &RevokeArgs) -> Outcome {
    let command = AccessCommand::Revoke {
        who: args.who.clone(),
        role: (args.role != "all").then(|| args.role.clone()),
        on: place(&args.place)?,
    };
    match ask(&args.flags, command)? {
        AccessReply::Revoked(gone) => print(&format!("Revoked:\n{}", table(&gone))),
        other => Err(unexpected(other)),
    }
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
            flags,
        } => {
            let command = AccessCommand::Explain {
                who: who.clone(),
                permission: permission.clone(),
                repository: repository.clone(),
                tag: tag.clone(),
                from: from.clone(),
                sign_in: sign_in.clone(),
            };
            let told = match ask(flags, command)? {
                AccessReply::Explained(told) => *told,
                other => return Err(unexpected(other)),
            };
            match json {
                true => shown(&told)?,
                false => print(&explained(&told))?,
            }
            match told.allowed {
                true => Ok(()),
                false => Err(Failure::text(Exit::Failure, "the answer is no")),
            }
        }
        RightsCommand::List {
            repo,
            who,
            json,
            flags,
        } => {
            let command = AccessCommand::List {
                on: repo.clone(),
                who: who.clone(),
            };
            match ask(flags, command)? {
                AccessReply::Bindings(all) if *json => shown(&all),
                AccessReply::Bindings(all) if all.is_empty() => print("No grants.\n"),
                AccessReply::Bindings(all) => print(&table(&all)),
                other => Err(unexpected(other)),
            }
        }
    }
}

pub(super) fn group(command: &GroupCommand) -> Outcome {
    let set = |name: &String, there| AccessCommand::Group {
        name: name.clone(),
        there,
    };
    let member = |group: &String, who: &String, within| AccessCommand::Member {
        group: group.clone(),
        who: who.clone(),
        within,
    };
    match command {
        GroupCommand::List { json, flags } => match ask(flags, AccessCommand::GroupList)? {
            AccessReply::Groups(all) if *json => shown(&all),
            AccessReply::Groups(all) if all.is_empty() => print("No groups.\n"),
            AccessReply::Groups(all) => {
                let row =
                    |(name, members): &(String, Vec<String>)| [name.clone(), members.join(", ")];
                let rows: Vec<_> = all.iter().map(row).collect();
                print(&columns(["GROUP", "MEMBERS"], &rows))
            }
            other => Err(unexpected(other)),
        },
        GroupCommand::Create { name, flags } => changed(ask(flags, set(name, true))?),
        GroupCommand::Remove { name, flags } => changed(ask(flags, set(name, false))?),
        GroupCommand::AddMember { group, who, flags } => {
            changed(ask(flags, member(group, who, true))?)
        }
        GroupCommand::RemoveMember { group, who, flags } => {
            changed(ask(flags, member(group, who, false))?)
        }
    }
}

pub(super) fn namespace(command: &NamespaceCommand) -> Outcome {
    match command {
        NamespaceCommand::List { json, flags } => match ask(flags, AccessCommand::NamespaceList)? {
            AccessReply::Namespaces(all) if *json => shown(&all),
            AccessReply::Namespaces(all) if all.is_empty() => {
                print("No namespace has settings; all are private.\n")
            }
            AccessReply::Namespaces(all) => {
                let rows: Vec<_> = all.into_iter().map(|(path, seen)| [path, seen]).collect();
                print(&columns(["NAMESPACE", "VISIBILITY"], &rows))
            }
            other => Err(unexpected(other)),
        },
        NamespaceCommand::Set {
            path,
            visibility,
            flags,
        } => {
            let (path, visibility) = (path.clone(), visibility.word());
            changed(ask(
                flags,
                AccessCommand::NamespaceSet { path, visibility },
            )?)
        }
        NamespaceCommand::Remove { path, flags } => {
            let path = path.clone();
            changed(ask(flags, AccessCommand::NamespaceRemove { path })?)
        }
    }
}

pub(super) fn role(command: &RoleCommand) -> Outcome {
    let set = |name: &String, permissions| AccessCommand::Role {
        name: name.clone(),
        permissions,
    };
    match command {
        RoleCommand::List { json, flags } => match ask(flags, AccessCommand::RoleList)? {
            AccessReply::Roles(all) if *json => shown(&all),
            AccessReply::Roles(all) => {
                let row = |(name, permissions, born): (String, String, bool)| {
                    let origin = if born { "built in" } else { "own" };
                    [name, origin.to_owned(), permissions.replace(',', " ")]
                };
                let rows: Vec<_> = all.into_iter().map(row).collect();
                print(&columns(["ROLE", "ORIGIN", "PERMISSIONS"], &rows))
            }
            other => Err(unexpected(other)),
        },
        RoleCommand::Set {
            name,
            permissions,
            flags,
        } => changed(ask(flags, set(name, Some(permissions.clone())))?),
        RoleCommand::Remove { name, flags } => changed(ask(flags, set(name, None))?),
    }
}

fn shown(value: &impl serde::Serialize) -> Outcome {
    // Plain structures of text always serialize.
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    print(&format!("{text}\n"))
}

fn table(bindings: &[BindingView]) -> String {
    let rows: Vec<_> = bindings.iter().map(row).collect();
    columns(["WHO", "ROLE", "NAMESPACE", "CONDITIONS", "ORIGIN"], &rows)
}

fn row(binding: &BindingView) -> [String; 5] {
    let conditions = match (&*binding.conditions, binding.ended) {
        ("", _) => "-".to_owned(),
        (text, true) => format!("{text} (ended)"),
        (text, false) => text.to_owned(),
    };
    [
        binding.who.clone(),
        binding.role.clone(),
        everywhere(&binding.on).to_owned(),
        conditions,
        binding.origin.clone(),
    ]
}

fn everywhere(on: &str) -> &str {
    match on {
        "" => "(everywhere)",
        on => on,
    }
}

/// Columns as wide as they need to be.
fn columns<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> String {
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

fn explained(told: &ExplanationView) -> String {
    let place = told
        .repository
        .as_deref()
        .unwrap_or("the registry as a whole");
    let (who, doing) = (&told.who, &told.doing);
    if let (true, Some(by)) = (told.allowed, &told.by) {
        let mut text = format!("Yes: {who} may {doing} {place}.\n  by: {}\n", line(by));
        if by.who != *who {
            text.push_str(&format!("  {who} is meant by {}\n", by.who));
        }
        if told.kind.starts_with("nobody") {
            text.push_str(&format!("  note: {}\n", told.kind));
        }
        return text;
    }
    let mut text = format!("No: {who} may not {doing} {place} ({}).\n", told.kind);
    for (binding, reason) in &told.unmet {
        text.push_str(&format!("  not by: {}: {reason}\n", line(binding)));
    }
    text.push_str(&format!(
        "  missing: {}, which these roles give: {}\n",
        told.permission,
        told.roles.join(", ")
    ));
    if !told.grantors.is_empty() {
        text.push_str(&format!(
            "  could be granted by: {}\n",
            told.grantors.join(", ")
        ));
    }
    if let (Some(role), Some(repository)) = (told.roles.first(), &told.repository) {
        text.push_str(&format!(
            "  as in: wharf grant {who} {role} on {repository}\n"
        ));
    }
    text
}

fn line(binding: &BindingView) -> String {
    let on = match &*binding.on {
        "" => "everywhere".to_owned(),
        on => format!("on {on}"),
    };
    let conditions = match &*binding.conditions {
        "" => String::new(),
        text => format!(", {text}"),
    };
    format!(
        "{} is {} {on}{conditions} ({})",
        binding.who, binding.role, binding.origin
    )
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
