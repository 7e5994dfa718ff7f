//! `cargo xtask <task>`: everything that people and CI do to this project besides writing it.
//!
//! Each task is a module of its own; what several of them need is in [`workspace`] (where things lie)
//! and [`run`] (starting programs). Nothing here is part of the shipped binary.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod bench;
mod ci;
mod clients;
mod dist;
mod e2e;
mod endure;
mod grow;
mod lex;
mod outside;
mod pairs;
mod queries;
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
    /// Measure Wharf against its rivals
    Bench(bench::Args),
    /// The rival that only receives, hashes and writes: started by `bench`
    #[command(hide = true)]
    BenchPipeline(bench::PipelineArgs),
    /// Check everything that has to hold before a change lands
    Ci(ci::Args),
    /// Install the real clients that the end-to-end tests use
    Clients(clients::Args),
    /// Run replicas over PostgreSQL and S3 while each part fails in turn
    Cluster(endure::cluster::Args),
    /// Build a release archive
    Dist,
    /// Run the real clients against the release binary
    E2e(e2e::Args),
    /// Kill the server and cut its power, and see that nothing is lost
    Endure(endure::Args),
    /// Write a data folder of any size
    Grow(grow::Args),
    /// Run the release binary beside the real programs that it takes identities from
    Outside(outside::Args),
    /// Record the query plan of each SQL statement
    Queries(queries::Args),
    /// Draw where the server's time goes in one figure
    Profile(bench::ProfileArgs),
    /// Show which test proves which item of the specification
    Spec(spec::Args),
    /// Check the project's own rules
    Tidy,
}

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Bench(args) => bench::main(&args),
        Task::BenchPipeline(args) => bench::pipeline(&args),
        Task::Ci(args) => ci::main(&args),
        Task::Clients(args) => clients::main(&args),
        Task::Cluster(args) => endure::cluster::main(&args),
        Task::Dist => dist::main(),
        Task::E2e(args) => e2e::main(&args),
        Task::Endure(args) => endure::main(&args),
        Task::Grow(args) => grow::main(&args),
        Task::Outside(args) => outside::main(&args),
        Task::Queries(args) => queries::main(&args),
        Task::Profile(args) => bench::profile(&args),
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
