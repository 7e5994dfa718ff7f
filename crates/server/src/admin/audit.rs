//! Commands about the audit log, and what of the other commands goes into it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use wharf_core::Registry;
use wharf_core::audit::{self, EntryRow, Place, Query, Report};
use wharf_meta::origin;

use super::{Command, Refusal, Upkeep};

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditCommand {
    /// A page of entries.
    Read(Asked),
    /// A check of all of it.
    Verify {
        /// A place and its hash that were noted earlier.
        expect: Option<(i64, String)>,
    },
}

/// Which entries. Times in ms since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// From this time on.
    pub since: Option<i64>,
    /// Before this time.
    pub until: Option<i64>,
    /// By this principal.
    pub principal: Option<String>,
    /// On exactly this repository.
    pub repository: Option<String>,
    /// On this namespace or below.
    pub namespace: Option<String>,
    /// An action, or the noun of several.
    pub action: Option<String>,
    /// The latest first.
    pub latest_first: bool,
    /// Behind this place.
    pub after: Option<Place>,
    /// At most so many.
    pub limit: usize,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuditReply {
    /// To [`AuditCommand::Read`].
    Page(AuditPage),
    /// To [`AuditCommand::Verify`].
    Checked(Checked),
}

/// A part of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPage {
    /// Entries.
    pub entries: Vec<EntryView>,
    /// Where to go on; `None`: that is all.
    pub next: Option<Place>,
}

/// What a check of the log has found: [`Report`] on its way through the socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Entries looked at.
    pub entries: u64,
    /// The first one's place.
    pub first: i64,
    /// The last one's place.
    pub last: i64,
    /// The last one's hash.
    pub head: String,
    /// The first of what is wrong.
    pub findings: Vec<Found>,
    /// How much is wrong.
    pub bad: u64,
    /// Entries that were signed with a key that is not given any more.
    pub by_other_key: u64,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The entry's place.
    pub seq: i64,
    /// What is wrong with it.
    pub what: String,
}

/// An entry as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryView {
    /// Its place in the log.
    pub seq: i64,
    /// In ms since 1970.
    pub at: i64,
    /// Who did it.
    pub principal: String,
    /// The id of the credential, or how the principal signed in.
    pub credential: String,
    /// The client's address.
    pub address: String,
    /// The request's id.
    pub request: String,
    /// What happened.
    pub action: String,
    /// The repository or namespace.
    pub repository: Option<String>,
    /// The blob or manifest.
    pub digest: Option<String>,
    /// The tag.
    pub tag: Option<String>,
    /// `allowed` or `refused`; of what was found, `found`.
    pub decision: String,
    /// The binding or rule behind it.
    pub rule: Option<String>,
    /// What was before.
    pub before: Value,
    /// What was after.
    pub after: Value,
    /// How many equal ones it stands for.
    pub count: u64,
    /// What else is known.
    pub detail: Map<String, Value>,
    /// Its hash, over that of the entry before.
    pub hash: String,
}

impl From<EntryRow> for EntryView {
    fn from(row: EntryRow) -> Self {
        let mut detail: Map<String, Value> = serde_json::from_str(&row.detail).unwrap_or_default();
        let text = |value: Option<Value>| match value {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        // A tag's move has words of its own, which readers of events know.
        let moved = row.action.starts_with("tag.");
        let (before, after) = match moved {
            true => (detail.remove("from"), detail.remove("to")),
            false => (detail.remove("before"), detail.remove("after")),
        };
        let count = detail.remove("count").and_then(|count| count.as_u64());
        Self {
            seq: row.seq,
            at: row.at,
            principal: row.principal,
            credential: row.credential,
            address: row.address,
            request: row.request,
            action: row.action,
            repository: row.repository,
            digest: row.digest,
            tag: row.tag,
            decision: text(detail.remove("decision")).unwrap_or_else(|| "allowed".to_owned()),
            rule: text(detail.remove("rule")),
            before: before.unwrap_or_default(),
            after: after.unwrap_or_default(),
            count: count.unwrap_or(1),
            detail,
            hash: row.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

impl From<Report> for Checked {
    fn from(report: Report) -> Self {
        let findings = report.findings.into_iter();
        Self {
            entries: report.entries,
            first: report.first,
            last: report.last,
            head: report.head,
            findings: findings
                .map(|finding| Found {
                    seq: finding.seq,
                    what: finding.what,
                })
                .collect(),
            bad: report.bad,
            by_other_key: report.by_other_key,
        }
    }
}

impl From<Asked> for Query {
    fn from(asked: Asked) -> Self {
        Self {
            since: asked.since,
            until: asked.until,
            principal: asked.principal,
            repository: asked.repository,
            namespace: asked.namespace,
            action: asked.action,
            within: None,
            latest_first: asked.latest_first,
            after: asked.after,
            limit: asked.limit,
        }
    }
}

/// Does it.
pub(super) async fn execute(
    registry: &Registry,
    command: AuditCommand,
) -> Result<AuditReply, Refusal> {
    match command {
        AuditCommand::Read(asked) => {
            let origin = origin::current().map(|origin| (*origin).clone());
            let page = audit::read(registry, &asked.into(), origin.unwrap_or_default())
                .await
                .map_err(Refusal::failed)?;
            Ok(AuditReply::Page(AuditPage {
                entries: page.entries.into_iter().map(EntryView::from).collect(),
                next: page.next,
            }))
        }
        AuditCommand::Verify { expect } => {
            audit::seal_if_possible(registry).await;
            let report = audit::verify(registry, expect.as_ref()).await;
            Ok(AuditReply::Checked(report.map_err(Refusal::failed)?.into()))
        }
    }
}

/// What goes into the log before a command is done: those that change something which writes no event of its own, or that read
/// everything.
pub(super) fn noted(command: &Command) -> Option<(&'static str, Value)> {
    match command {
        Command::BackupCreate { folder, .. } => Some(("backup.create", json!({"folder": folder}))),
        Command::StorageVerify { deep } => Some(("storage.verify", json!({"deep": deep}))),
        Command::StorageReindex { repositories } => {
            Some(("storage.reindex", json!({"repositories": repositories})))
        }
        Command::StorageCopy { to } => Some(("storage.copy", json!({"to": to}))),
        Command::Audit(AuditCommand::Verify { .. }) => Some(("audit.verify", json!({}))),
        Command::Upkeep(upkeep) => match upkeep {
            Upkeep::GcRun { all } => Some(("gc.run", json!({"all": all}))),
            Upkeep::GcPause { reason } => Some(("gc.pause", json!({"reason": reason}))),
            Upkeep::GcResume => Some(("gc.resume", json!({}))),
            Upkeep::GcPlan
            | Upkeep::RepoList { .. }
            | Upkeep::PrefixList
            | Upkeep::History { .. }
            | Upkeep::TagRestore { .. }
            | Upkeep::ManifestRestore { .. }
            | Upkeep::Damaged => None,
        },
        Command::Status | Command::ResetPassword { .. } | Command::Audit(AuditCommand::Read(_)) => {
            None
        }
    }
}
