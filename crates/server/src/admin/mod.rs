//! What an operator can ask of a registry, running or not.
//!
//! A command on a running registry goes through the socket in its data folder, which only the owner of the folder can
//! open; on a stopped one it opens the folder itself. Either way [`execute`] does the work.

mod client;
mod socket;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use wharf_core::access::Password;
use wharf_core::{Registry, backup, verify};

pub use self::client::ask;
pub use self::socket::{Socket, address};

/// One command.
#[derive(Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// Gives the administrator another password; a random one unless it is chosen.
    ResetPassword {
        /// The chosen one.
        password: Option<String>,
    },
    /// Copies the registry into a folder.
    CreateBackup {
        /// Absolute: the server has another working folder.
        folder: PathBuf,
    },
    /// Compares rows and bytes.
    VerifyStorage {
        /// Read and hash every byte.
        deep: bool,
    },
}

/// What came of it, as it is printed.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Lines for people.
    pub lines: Vec<String>,
    /// Whether what was looked at is whole.
    pub sound: bool,
}

impl Outcome {
    fn said(lines: Vec<String>) -> Self {
        Self { lines, sound: true }
    }
}

/// Carries a command out. The error is a sentence for people.
pub async fn execute(registry: &Registry, command: Command) -> Result<Outcome, String> {
    let now = registry.clock.now_ms();
    match command {
        Command::ResetPassword { password } => {
            let chosen = password.is_some();
            let password = registry
                .access
                .reset_admin_password(password.map(Password::new), now)
                .await
                .map_err(|error| error.to_string())?;
            Ok(Outcome::said(if chosen {
                vec!["The user admin has the given password now.".to_owned()]
            } else {
                vec![format!(
                    "The user admin has a new password: {}",
                    password.reveal()
                )]
            }))
        }
        Command::CreateBackup { folder } => {
            let copied = backup::create(registry, &folder, &mut |_| ())
                .await
                .map_err(|error| error.to_string())?;
            Ok(describe_backup(&folder, &copied))
        }
        Command::VerifyStorage { deep } => {
            let depth = verify::Depth {
                deep,
                condemn: true,
            };
            let report = verify::verify(&registry.meta, &*registry.blobs, depth, now, &mut |_| ())
                .await
                .map_err(|error| error.to_string())?;
            Ok(describe_report(&report, deep))
        }
    }
}

/// A backup in words.
pub fn describe_backup(folder: &std::path::Path, copied: &backup::Copied) -> Outcome {
    let mut lines = vec![format!(
        "{} holds {} blob file(s) of {}, {} of them new; {} that nothing names any more went.",
        folder.display(),
        copied.blobs,
        size(copied.bytes),
        copied.added,
        copied.removed
    )];
    for digest in &copied.missing {
        lines.push(format!(
            "MISSING {digest}: the registry has lost its bytes; push it again"
        ));
    }
    Outcome {
        lines,
        sound: copied.missing.is_empty(),
    }
}

/// A verification in words.
pub fn describe_report(report: &verify::Report, deep: bool) -> Outcome {
    let how = if deep {
        "byte by byte"
    } else {
        "by name and length"
    };
    let mut lines = vec![format!(
        "{} blob(s) of {} and {} manifest(s) were compared {how}.",
        report.blobs,
        size(report.bytes),
        report.manifests
    )];
    for finding in &report.findings {
        lines.push(format!("BAD {}: {}", finding.digest, finding.what));
    }
    if report.bad > report.findings.len() as u64 {
        let more = report.bad - report.findings.len() as u64;
        lines.push(format!("… and {more} more that are bad"));
    }
    for line in &report.database {
        lines.push(format!("BAD database: {line}"));
    }
    if report.orphans > 0 {
        lines.push(format!(
            "{} file(s) of {} belong to nothing: left over from a crash, or being pushed just now.",
            report.orphans,
            size(report.orphan_bytes)
        ));
    }
    for path in &report.strays {
        lines.push(format!("{path} is not one of Wharf's files."));
    }
    lines.push(if report.is_sound() {
        "Everything is whole.".to_owned()
    } else {
        "What is BAD is answered as unknown from now on; push it again to heal it.".to_owned()
    });
    Outcome {
        lines,
        sound: report.is_sound(),
    }
}

/// A number of bytes for people.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} B"),
        _ if bytes < 10 << 20 => format!("{} KiB", bytes >> 10),
        _ if bytes < 10 << 30 => format!("{} MiB", bytes >> 20),
        _ => format!("{} GiB", bytes >> 30),
    }
}
