//! `wharf metadata`: moving what a registry knows to another database.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};

use super::exit::{Exit, Failure, Outcome};
use super::human::count;
use super::offline::runtime;
use super::print;
use crate::app::{CopyError, Place, copy};

/// Time between two words about how far it is.
const OFTEN: Duration = Duration::from_secs(2);

/// What can be done with metadata.
#[derive(Debug, Subcommand)]
pub(super) enum MetadataCommand {
    /// Copy everything to another database, and compare
    ///
    /// From a file to PostgreSQL, or back. Nothing may serve from either; the target must be empty. Each table is read back
    /// and compared; its rows and their SHA-256 are printed. What lies in the data folder, such as larger blobs, stays where
    /// it is. The source is left as it is: serve from one of the two only.
    Copy(CopyArgs),
}

/// From where to where.
#[derive(Debug, Args)]
pub(super) struct CopyArgs {
    /// sqlite://FOLDER, sqlite://FILE or postgres://USER@HOST:PORT/DATABASE
    #[arg(long, value_name = "URL")]
    from: String,
    /// The same; a file is made if absent, a database must exist
    #[arg(long, value_name = "URL")]
    to: String,
    /// File that holds the password for --from
    #[arg(long, value_name = "FILE")]
    from_password_file: Option<PathBuf>,
    /// File that holds the password for --to
    #[arg(long, value_name = "FILE")]
    to_password_file: Option<PathBuf>,
}

/// Does it.
pub(super) fn run(command: MetadataCommand) -> Outcome {
    let MetadataCommand::Copy(args) = command;
    let place = |flag: &str, text: &str, file: Option<PathBuf>| {
        Place::parse(text, file).map_err(|why| Failure::text(Exit::Usage, format!("{flag}: {why}")))
    };
    let from = place("--from", &args.from, args.from_password_file)?;
    let to = place("--to", &args.to, args.to_password_file)?;
    let mut told = Instant::now();
    let mut progress = |table: &'static str, rows: u64, comparing: bool| {
        if told.elapsed() >= OFTEN {
            told = Instant::now();
            let doing = if comparing { "comparing" } else { "copying" };
            eprintln!("{doing} {table}: {}", count(rows, "row"));
        }
    };
    let copied = runtime()?.block_on(copy(&from, &to, &mut progress));
    let copied = copied.map_err(|(flag, error)| {
        let exit = match error {
            CopyError::Absent(_) | CopyError::Empty | CopyError::Served { .. } => Exit::Data,
            CopyError::Refused { .. } | CopyError::Data(_) => Exit::Failure,
        };
        Failure::text(exit, format!("{flag}: {error}"))
    })?;
    let mut text = format!("{:<20} {:>12}  SHA-256\n", "TABLE", "ROWS");
    for table in &copied {
        let _ = writeln!(
            text,
            "{:<20} {:>12}  {}",
            table.table, table.rows, table.digest
        );
    }
    let rows = copied.iter().map(|table| table.rows).sum();
    let _ = writeln!(
        text,
        "Copied {} in {}; all were read back and are the same. Serve from the new database only.",
        count(rows, "row"),
        count(copied.len() as u64, "table")
    );
    print(&text)
}
