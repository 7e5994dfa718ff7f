//! `cargo xtask <task>`: everything that people and CI do to this project besides writing it.
//!
//! Each task is a module of its own; what several of them need is in [`workspace`] (where things lie)
//! and [`run`] (starting programs). Nothing here is part of the shipped binary.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod ci;
mod clients;
mod dist;
mod e2e;
mod endure;
mod lex;
mod run;
mod spec;
mod tidy;
mod workspace;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Wharf's project tasks",
    disable_version_flag = true
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check everything that has to hold before a change lands
    Ci(ci::Args),
    /// Install the real clients that the end-to-end tests use
    Clients(clients::Args),
    /// Build a release archive
    Dist,
    /// Run the real clients against the release binary
    E2e(e2e::Args),
    /// Kill the server and cut its power, and see that nothing is lost
    Endure(endure::Args),
    /// Show which test proves which item of the specification
    Spec(spec::Args),
    /// Check the project's own rules
    Tidy,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Ci(args) => ci::main(&args),
        Task::Clients(args) => clients::main(&args),
        Task::Dist => dist::main(),
        Task::E2e(args) => e2e::main(&args),
        Task::Endure(args) => endure::main(&args),
        Task::Spec(args) => spec::main(&args),
        Task::Tidy => tidy::main(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
