//! `wharf admin`, `wharf backup`, `wharf storage`: on a running registry through its socket, on a stopped one directly.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ArgMatches;
use wharf_core::access::{Access, AccessOptions};
use wharf_core::clock::SystemClock;
use wharf_core::{Clock, ContentRules, Limits, Registry, backup as core_backup};

use super::{Exit, flags};
use crate::admin::{self, Command, Outcome};
use crate::app::{Data, DataOptions};

pub(super) fn admin(matches: &ArgMatches) -> Exit {
    let Some((_, matches)) = matches.subcommand() else {
        return Exit::Usage;
    };
    let password = match matches.get_one::<PathBuf>("password-file") {
        None => None,
        Some(path) => match first_line(path) {
            Ok(password) => Some(password),
            Err(error) => return fail(&format!("--password-file {}: {error}", path.display())),
        },
    };
    carry_out(matches, Command::ResetPassword { password })
}

pub(super) fn storage(matches: &ArgMatches) -> Exit {
    match matches.subcommand() {
        Some((_, matches)) => {
            let deep = matches.get_flag("deep");
            carry_out(matches, Command::VerifyStorage { deep })
        }
        None => Exit::Usage,
    }
}

pub(super) fn backup(matches: &ArgMatches) -> Exit {
    let Some((verb, matches)) = matches.subcommand() else {
        return Exit::Usage;
    };
    let Some(folder) = matches.get_one::<PathBuf>("folder") else {
        return Exit::Usage;
    };
    // The server has another working folder.
    let folder = match std::path::absolute(folder) {
        Ok(folder) => folder,
        Err(error) => return fail(&format!("{}: {error}", folder.display())),
    };
    match verb {
        "create" => carry_out(matches, Command::CreateBackup { folder }),
        "verify" => finish(block_on(async {
            let report = core_backup::verify(&folder, &mut |_| ())
                .await
                .map_err(|error| error.to_string())?;
            Ok(admin::describe_report(&report, true))
        })),
        _ => restore(matches, &folder),
    }
}

fn restore(matches: &ArgMatches, folder: &Path) -> Exit {
    let Some(options) = data_options(matches) else {
        return Exit::Usage;
    };
    let data = options.folder;
    finish(block_on(async {
        let copied = core_backup::restore(folder, &data, &mut |_| ())
            .await
            .map_err(|error| error.to_string())?;
        let mut outcome = admin::describe_backup(&data, &copied);
        outcome.lines = vec![format!(
            "{} holds the registry of the backup: {} blob file(s) of {}. Start it with wharf serve --data {}",
            data.display(),
            copied.blobs,
            admin::size(copied.bytes),
            data.display()
        )];
        Ok(outcome)
    }))
}

/// Through the socket if a registry runs on the folder, otherwise on the folder itself.
fn carry_out(matches: &ArgMatches, command: Command) -> Exit {
    let Some(options) = data_options(matches) else {
        return Exit::Usage;
    };
    if let Some(answer) = admin::ask(&options.folder, &command) {
        return finish(answer);
    }
    if !options.database().exists() {
        return refused(&format!(
            "there is no registry in {}; name its data folder with --data, or start one with wharf serve",
            options.folder.display()
        ));
    }
    let data = match Data::open(&options, |holder| {
        eprintln!("waiting for {holder} to let go of the data folder …")
    }) {
        Ok(data) => data,
        Err(error) => return refused(&error.to_string()),
    };
    finish(block_on(async {
        let clock = Arc::new(SystemClock);
        let access = Access::open(AccessOptions::default(), data.meta.clone(), clock.now_ms())
            .await
            .map_err(|error| error.to_string())?;
        let registry = Registry::new(
            data.meta.clone(),
            data.blobs.clone(),
            Arc::new(access),
            clock,
            Limits::default(),
            ContentRules::default(),
        );
        let outcome = admin::execute(&registry, command).await;
        data.meta.close().await;
        outcome
    }))
}

fn data_options(matches: &ArgMatches) -> Option<DataOptions> {
    Some(flags::read(&flags::inputs(matches))?.config.data_options())
}

fn block_on(work: impl Future<Output = Result<Outcome, String>>) -> Result<Outcome, String> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?
        .block_on(work)
}

fn finish(outcome: Result<Outcome, String>) -> Exit {
    match outcome {
        Ok(outcome) => {
            for line in &outcome.lines {
                println!("{line}");
            }
            if outcome.sound {
                Exit::Done
            } else {
                Exit::Damaged
            }
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> Exit {
    eprintln!("error: {error}");
    Exit::Failed
}

fn refused(error: &str) -> Exit {
    eprintln!("error: {error}");
    Exit::Refused
}

/// The first line of a file, or of standard input.
fn first_line(path: &Path) -> std::io::Result<String> {
    let mut line = String::new();
    if path.as_os_str() == "-" {
        std::io::stdin().lock().read_line(&mut line)?;
    } else {
        BufReader::new(std::fs::File::open(path)?).read_line(&mut line)?;
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
