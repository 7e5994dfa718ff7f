//! `cargo xtask <task>`: everything that people and CI do to this project besides writing it.
//!
//! Each task is a module of its own; what several of them need is in [`workspace`] (where things lie)
//! and [`run`] (starting programs). Nothing here is part of the shipped binary.

use clap::{Parser, Subcommand};

mod clients;
mod lex;
mod run;
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
    /// Install the real clients that the end-to-end tests use
    Clients(clients::Args),
    /// Check the project's own rules
    Tidy,
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().task {
        Task::Clients(args) => clients::main(&args),
        Task::Tidy => tidy::main(),
    }
}
