//! Commands for whoever runs the registry: on a running one through the socket in its data folder, on a stopped one
//! directly. Both ways end in [`Operator::execute`].
//!
//! The socket speaks HTTP/1.1 with JSON: `POST /admin/<command>`, and the management API (`crate::api`). Whoever can open it (mode 0600) may do everything, so
//! there are no credentials. `cli` is the client; nothing of this is reachable over the network.

mod audit;
mod client;
mod server;
pub(crate) mod status;
mod upkeep;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wharf_core::access::{AdminError, Password};
use wharf_core::{Registry, backup, reindex, transfer, verify};
use wharf_oci::RepositoryName;

use crate::api::operator_origin;
use crate::config::{self, Inputs};

pub use self::client::{CallError, call};
pub use self::server::{AdminServer, start};
pub use self::status::{Health, ReplicaView};
pub use self::upkeep::{
    Damaged, Deleted, Freed, HistoryView, MoveView, PlanView, PlannedView, SizeView, Upkeep,
    UpkeepReply,
};

/// The socket's name in the data folder.
pub const SOCKET: &str = "admin.sock";
/// Where a random password is written when nobody watches the start.
pub const PASSWORD_FILE: &str = "admin-password";

/// What can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Command {
    /// Who is there?
    Status,
    /// A new password for the administrator.
    ResetPassword {
        /// Chosen; random otherwise.
        password: Option<Hidden>,
    },
    /// A backup.
    BackupCreate {
        /// Into this folder, absolute.
        folder: PathBuf,
        /// Without blobs.
        #[serde(default)]
        metadata_only: bool,
    },
    /// A check of what is stored.
    StorageVerify {
        /// Read every byte.
        deep: bool,
    },
    /// Jobs, collection, undelete.
    Upkeep(Upkeep),
    /// A look for bytes that no row names.
    StorageReindex {
        /// These are to hold them; without any, they are only listed.
        repositories: Vec<String>,
    },
    /// A copy of all blobs into another store.
    StorageCopy {
        /// The configuration that names it in its `[storage]`, absolute.
        to: PathBuf,
    },
}

impl Command {
    /// The last part of its path.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::ResetPassword { .. } => "reset-password",
            Self::BackupCreate { .. } => "backup-create",
            Self::StorageVerify { .. } => "storage-verify",
            Self::Upkeep(_) => "upkeep",
            Self::StorageCopy { .. } => "storage-copy",
            Self::StorageReindex { .. } => "storage-reindex",
        }
    }
}

/// A secret on its way through the socket.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(pub String);

impl fmt::Debug for Hidden {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Hidden(..)")
    }
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// To [`Command::Status`].
    Status {
        /// Process id.
        process: u32,
        /// Wharf's version.
        version: String,
        /// How the registry is; `None` for a process that only says that it is there.
        health: Option<Health>,
    },
    /// To [`Command::ResetPassword`].
    Password {
        /// The new one.
        password: Hidden,
    },
    /// To [`Command::BackupCreate`].
    Copied(Copied),
    /// To [`Command::StorageVerify`].
    Verified(Verified),
    /// To [`Command::Upkeep`].
    Upkeep(UpkeepReply),
    /// To [`Command::StorageReindex`].
    Reindexed(Reindexed),
}

/// What a look for bytes without a row has found: [`reindex::Reindexed`] on its way through the socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reindexed {
    /// Objects or files that no row names.
    pub found: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The first that are whole: digest, size, key.
    pub listed: Vec<(String, u64, String)>,
    /// Those that are blobs now.
    pub adopted: u64,
    /// Second copies of what is there.
    pub surplus: u64,
    /// Keys of those that were cut or changed.
    pub damaged: Vec<String>,
}

impl From<reindex::Reindexed> for Reindexed {
    fn from(done: reindex::Reindexed) -> Self {
        let listed = done.listed.into_iter();
        Self {
            found: done.found,
            bytes: done.bytes,
            listed: listed
                .map(|unnamed| (unnamed.digest.to_string(), unnamed.size, unnamed.key))
                .collect(),
            adopted: done.adopted,
            surplus: done.surplus,
            damaged: done.damaged,
        }
    }
}

/// What a backup or a restore has done: [`backup::Copied`] on its way through the socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// Blobs that are files.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those that were new to the backup.
    pub added: u64,
    /// Those that were removed from it.
    pub removed: u64,
    /// Those whose bytes the registry has lost.
    pub missing: Vec<String>,
}

impl From<backup::Copied> for Copied {
    fn from(copied: backup::Copied) -> Self {
        let backup::Copied {
            blobs,
            bytes,
            added,
            removed,
            missing,
        } = copied;
        Self {
            blobs,
            bytes,
            added,
            removed,
            missing,
        }
    }
}

impl From<transfer::Transferred> for Copied {
    fn from(done: transfer::Transferred) -> Self {
        Self {
            blobs: done.blobs,
            bytes: done.bytes,
            added: done.added,
            removed: 0,
            missing: done.missing.iter().map(ToString::to_string).collect(),
        }
    }
}

/// What a check has found: [`verify::Report`] on its way through the socket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Blobs looked at.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Manifests looked at.
    pub manifests: u64,
    /// How many are bad.
    pub bad: u64,
    /// The first of them: digest and what is wrong.
    pub findings: Vec<(String, String)>,
    /// How many of the bad ones are answered as before all the same: so many look bad that the disk may not be there.
    pub withheld: u64,
    /// What the database found wrong with itself.
    pub database: Vec<String>,
    /// Files that no row names.
    pub orphans: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Files that are no part of the store.
    pub strays: Vec<String>,
}

impl Verified {
    /// Whether everything that is promised is there.
    pub fn is_sound(&self) -> bool {
        self.bad == 0 && self.database.is_empty()
    }
}

impl From<verify::Report> for Verified {
    fn from(report: verify::Report) -> Self {
        let findings = report.findings.into_iter();
        Self {
            blobs: report.blobs,
            bytes: report.bytes,
            manifests: report.manifests,
            bad: report.bad,
            findings: findings
                .map(|finding| (finding.digest.to_string(), finding.what))
                .collect(),
            withheld: report.withheld,
            database: report.database,
            orphans: report.orphans,
            orphan_bytes: report.orphan_bytes,
            strays: report.strays,
        }
    }
}

/// Why a command was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It cannot be meant.
    #[error("{0}")]
    Wrong(String),
    /// It failed.
    #[error("{0}")]
    Failed(String),
}

impl Refusal {
    fn failed(error: impl fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Does what commands ask for.
#[derive(Debug, Clone)]
pub struct Operator {
    /// On this registry.
    pub registry: Arc<Registry>,
    /// In this data folder.
    pub folder: PathBuf,
}

impl Operator {
    /// Does it. Backups and checks take as long as they take.
    pub async fn execute(&self, command: Command) -> Result<Reply, Refusal> {
        self.execute_for(command, "").await
    }

    /// The same for a request of this id.
    pub async fn execute_for(&self, command: Command, request: &str) -> Result<Reply, Refusal> {
        let work = async {
            if let Some((name, with)) = audit::noted(&command) {
                wharf_core::audit::command(&self.registry, name, with).await;
            }
            self.perform(command).await
        };
        Box::pin(operator_origin(request).scope(work)).await
    }

    async fn perform(&self, command: Command) -> Result<Reply, Refusal> {
        match command {
            Command::Status => Ok(Reply::Status {
                process: std::process::id(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                health: Some(status::health(&self.registry, &self.folder).await),
            }),
            Command::ResetPassword { password } => self.reset_password(password).await,
            Command::BackupCreate {
                folder,
                metadata_only,
            } => {
                let content = match metadata_only {
                    true => backup::Content::Metadata,
                    false => backup::Content::Everything,
                };
                self.backup(&folder, content).await
            }
            Command::Upkeep(upkeep) => Ok(Reply::Upkeep(
                upkeep::execute(&self.registry, upkeep).await?,
            )),
            Command::StorageVerify { deep } => {
                // Otherwise clients would be told that damaged blobs exist, and never push them again.
                let depth = verify::Depth {
                    deep,
                    condemn: true,
                };
                let now = self.registry.clock.now_ms();
                let report = verify::verify(
                    &self.registry.meta,
                    &*self.registry.blobs,
                    depth,
                    now,
                    &mut |_| (),
                )
                .await;
                Ok(Reply::Verified(report.map_err(Refusal::failed)?.into()))
            }
            Command::StorageCopy { to } => self.copy_storage(&to).await,
            Command::StorageReindex { repositories } => self.reindex(&repositories).await,
        }
    }

    async fn reset_password(&self, password: Option<Hidden>) -> Result<Reply, Refusal> {
        let chosen = password.map(|password| Password::new(password.0));
        let now = self.registry.clock.now_ms();
        let password = self
            .registry
            .access
            .reset_admin_password(chosen, now)
            .await
            .map_err(|error| match error {
                AdminError::Password(_) => Refusal::Wrong(error.to_string()),
                AdminError::Store(error) => Refusal::failed(error),
            })?;
        // It holds the old one.
        let _ = std::fs::remove_file(self.folder.join(PASSWORD_FILE));
        tracing::info!("the administrator has a new password");
        Ok(Reply::Password {
            password: Hidden(password.reveal().to_owned()),
        })
    }

    async fn reindex(&self, repositories: &[String]) -> Result<Reply, Refusal> {
        let parse = |name: &String| {
            RepositoryName::parse(name)
                .map_err(|error| Refusal::Wrong(format!("--repository {name}: {error}")))
        };
        let repositories: Vec<_> = repositories.iter().map(parse).collect::<Result<_, _>>()?;
        let done = reindex::reindex(&self.registry, &repositories, &mut |_| ())
            .await
            .map_err(Refusal::failed)?;
        tracing::info!(
            found = done.found,
            adopted = done.adopted,
            "looked for bytes that nothing names"
        );
        Ok(Reply::Reindexed(done.into()))
    }

    /// Copies all blobs into the store that another configuration names.
    async fn copy_storage(&self, to: &Path) -> Result<Reply, Refusal> {
        let inputs = Inputs {
            file: Some(to.to_owned()),
            // Variables are about the registry that runs.
            env: Vec::new(),
            flags: Vec::new(),
        };
        let loaded =
            config::load(&inputs).map_err(|problems| Refusal::Wrong(problems.to_string()))?;
        let options = loaded.config.data_options();
        let target = crate::app::target(&self.registry.meta, &options).await;
        let target = target.map_err(Refusal::failed)?;
        let mut quiet = |_: &transfer::Transferred| ();
        let registry = &self.registry;
        let done = transfer::transfer(&registry.meta, &*registry.blobs, &*target, &mut quiet);
        let done = done.await.map_err(Refusal::failed)?;
        tracing::info!(to = %to.display(), blobs = done.blobs, added = done.added, "the blobs were copied");
        Ok(Reply::Copied(done.into()))
    }

    async fn backup(&self, folder: &Path, content: backup::Content) -> Result<Reply, Refusal> {
        if !folder.is_absolute() {
            return Err(Refusal::Wrong(
                "the backup's folder must be an absolute path".to_owned(),
            ));
        }
        if folder.starts_with(&self.folder) || self.folder.starts_with(folder) {
            let text = "the backup's folder and the data folder must not lie in each other; choose another one";
            return Err(Refusal::Wrong(text.to_owned()));
        }
        let copied = backup::create(&self.registry, folder, content, &mut |_| ())
            .await
            .map_err(Refusal::failed)?;
        tracing::info!(folder = %folder.display(), blobs = copied.blobs, added = copied.added, "backed up");
        Ok(Reply::Copied(copied.into()))
    }
}

/// The socket of a data folder as the kernel takes it: paths of sockets are short, so a long one goes through the
/// folder's descriptor, which must stay open as long as the path is used.
pub(crate) fn socket(folder: &Path) -> std::io::Result<(PathBuf, Option<std::fs::File>)> {
    use std::os::fd::AsRawFd as _;
    let path = folder.join(SOCKET);
    // 108 bytes with a zero, and the listener adds its process id while it binds.
    if path.as_os_str().len() <= 90 {
        return Ok((path, None));
    }
    let open = std::fs::File::open(folder)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd())).join(SOCKET);
    Ok((short, Some(open)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_do_not_show_in_debug_output() {
        let command = Command::ResetPassword {
            password: Some(Hidden("hunter2".into())),
        };
        assert!(!format!("{command:?}").contains("hunter2"));
        let reply = Reply::Password {
            password: Hidden("hunter2".into()),
        };
        assert!(!format!("{reply:?}").contains("hunter2"));
    }

    #[test]
    fn commands_and_replies_survive_the_way() {
        let commands = [
            Command::Status,
            Command::ResetPassword { password: None },
            Command::ResetPassword {
                password: Some(Hidden("x".into())),
            },
            Command::BackupCreate {
                folder: "/b".into(),
                metadata_only: true,
            },
            Command::StorageVerify { deep: true },
            Command::StorageCopy { to: "/c".into() },
            Command::StorageReindex {
                repositories: vec!["a/b".into()],
            },
        ];
        for command in commands {
            let text = serde_json::to_string(&command).unwrap();
            assert!(text.contains(command.name()), "{text}");
            assert_eq!(serde_json::from_str::<Command>(&text).unwrap(), command);
        }
        let reply = Reply::Verified(Verified {
            findings: vec![("d".into(), "w".into())],
            ..Verified::default()
        });
        let text = serde_json::to_string(&reply).unwrap();
        assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), reply);
    }
}
