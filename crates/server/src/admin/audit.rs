//! What of the commands goes into the audit log.

use serde_json::{Value, json};

use super::{Command, Upkeep};

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
        Command::Status | Command::ResetPassword { .. } => None,
    }
}
