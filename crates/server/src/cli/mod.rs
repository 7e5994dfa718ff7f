//! The command line. Each command is a file; flags of `serve` are the configuration keys that have one.
//!
//! Exit codes: 0 all is well, 1 it failed, 2 the command line or the configuration is wrong, 3 the data folder was
//! refused, 4 something was found damaged.

mod config;
mod flags;
mod serve;
mod stores;
mod trust;

use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Done,
    /// It failed.
    Failed,
    /// The command line or the configuration is wrong.
    Usage,
    /// The data folder was refused: in use, foreign, newer, damaged, not writable.
    Refused,
    /// Something was found damaged.
    Damaged,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Refused => 3,
            Exit::Damaged => 4,
        })
    }
}

/// Runs the command of this process's arguments.
pub fn main() -> ExitCode {
    // Parsing prints help and errors by itself, and exits with 0 or 2.
    let matches = command().get_matches();
    run(&matches).into()
}

fn run(matches: &ArgMatches) -> Exit {
    match matches.subcommand() {
        Some(("serve", matches)) => serve::run(matches),
        Some(("config", matches)) => config::run(matches),
        Some(("admin", matches)) => stores::admin(matches),
        Some(("backup", matches)) => stores::backup(matches),
        Some(("storage", matches)) => stores::storage(matches),
        Some(("trust", matches)) => trust::run(matches),
        _ => {
            println!("wharf {}", env!("CARGO_PKG_VERSION"));
            Exit::Done
        }
    }
}

/// The whole command line.
pub fn command() -> Command {
    let folder = |help: &'static str| {
        Arg::new("folder")
            .value_name("DIR")
            .required(true)
            .value_parser(value_parser!(std::path::PathBuf))
            .help(help)
    };
    Command::new("wharf")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A container registry in one binary")
        .after_help(AFTER)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .max_term_width(100)
        .subcommand(
            flags::add(Command::new("serve"))
                .about("Run the registry")
                .long_about(
                    "Runs the registry until it is stopped. Needs nothing: data lies in ./wharf-data, the address is \
                     127.0.0.1:5000, and the first start makes the user admin and says its password.\n\n\
                     Each flag is also a key of the configuration file and an environment variable: \
                     wharf config defaults shows them all.",
                )
                .after_help(SERVE),
        )
        .subcommand(
            Command::new("config")
                .about("Check and show the configuration")
                .subcommand_required(true)
                .subcommand(flags::add(Command::new("check")).about("Say what is wrong with the configuration, if anything"))
                .subcommand(flags::add(Command::new("show")).about("Show every value and where it comes from; secrets stay hidden"))
                .subcommand(Command::new("defaults").about("Print a configuration file with every key, its meaning and its default"))
                .subcommand(Command::new("reference").hide(true)),
        )
        .subcommand(
            Command::new("admin")
                .about("Look after the administrator")
                .subcommand_required(true)
                .subcommand(
                    flags::add_data(Command::new("reset-password"))
                        .about("Give the user admin another password, on a running registry or a stopped one")
                        .arg(
                            Arg::new("password-file")
                                .long("password-file")
                                .value_name("FILE")
                                .value_parser(value_parser!(std::path::PathBuf))
                                .help("Take the password from the first line of a file; - is standard input. Without it a random one is made and printed"),
                        ),
                ),
        )
        .subcommand(
            Command::new("backup")
                .about("Make, check and restore backups")
                .subcommand_required(true)
                .subcommand(
                    flags::add_data(Command::new("create"))
                        .about("Copy the registry into DIR while it runs; a second run adds only what is new")
                        .arg(folder("A folder that is empty, absent, or a backup already")),
                )
                .subcommand(
                    Command::new("verify")
                        .about("Check a backup byte by byte")
                        .arg(folder("The backup")),
                )
                .subcommand(
                    flags::add_data(Command::new("restore"))
                        .about("Make a data folder out of a backup")
                        .arg(folder("The backup")),
                ),
        )
        .subcommand(
            Command::new("storage")
                .about("Look after the stored bytes")
                .subcommand_required(true)
                .subcommand(
                    flags::add_data(Command::new("verify"))
                        .about("Compare what is stored with what should be")
                        .arg(
                            Arg::new("deep")
                                .long("deep")
                                .action(ArgAction::SetTrue)
                                .help("Read and hash every byte"),
                        ),
                ),
        )
        .subcommand(trust::command())
        .subcommand(Command::new("version").about("Print the version"))
}

const AFTER: &str = "\
Start here:
  wharf serve                     run a registry on 127.0.0.1:5000 with data in ./wharf-data
  docker login 127.0.0.1:5000     as admin, with the password that serve printed

Then:
  wharf serve --listen :5000 --tls-self-signed    for other machines, in a laboratory
  wharf config defaults > wharf.toml              every key, with its meaning
  wharf backup create /backup/wharf               while it runs

Exit codes: 0 well, 1 failed, 2 wrong usage or configuration, 3 data folder refused, 4 damage found";

const SERVE: &str = "\
Examples:
  wharf serve
  wharf serve --listen 0.0.0.0:443 --tls-cert cert.pem --tls-key key.pem --data /var/lib/wharf
  wharf serve --htpasswd users.htpasswd --anonymous reader
  WHARF_ADMIN_PASSWORD_FILE=/run/secrets/admin wharf serve --config /etc/wharf.toml";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        command().debug_assert();
    }

    #[test]
    fn help_teaches_the_first_step() {
        let help = command().render_long_help().to_string();
        assert!(help.contains("docker login 127.0.0.1:5000"), "{help}");
    }
}
