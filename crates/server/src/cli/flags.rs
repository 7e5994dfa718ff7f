//! Flags made from configuration keys, so that each is documented once.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::config::{Config, FlagValue, Inputs, Loaded, load};

/// Every key that has a flag, with its dotted path.
fn keys() -> Vec<(String, &'static crate::config::section::Key)> {
    let mut keys = Vec::new();
    Config::OUTLINE.walk("", &mut |path, outline| {
        for key in outline.keys {
            if key.flag.is_some() {
                keys.push((crate::config::section::join(path, key.name), key));
            }
        }
    });
    keys
}

/// Adds all flags of the configuration.
pub(super) fn add(command: Command) -> Command {
    keys()
        .into_iter()
        .fold(add_config(command), |command, (path, key)| {
            command.arg(argument(&path, key))
        })
}

/// Adds the flags that say where the data lies.
pub(super) fn add_data(command: Command) -> Command {
    keys()
        .into_iter()
        .filter(|(path, _)| path == "server.data")
        .fold(add_config(command), |command, (path, key)| {
            command.arg(argument(&path, key))
        })
}

fn add_config(command: Command) -> Command {
    command.arg(
        Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help("Configuration file (TOML). Environment variables WHARF__SECTION__KEY override it, flags override both"),
    )
}

fn argument(path: &str, key: &'static crate::config::section::Key) -> Arg {
    let flag = key.flag.unwrap_or(key.name);
    let mut help = key.text();
    if let Some(default) = (key.default)()
        && !key.switch
    {
        help.push_str(&format!(
            " [default: {}]",
            default.trim_matches(['"', '[', ']'])
        ));
    }
    let arg = Arg::new(path.to_owned()).long(flag).help(help);
    if key.switch {
        arg.action(ArgAction::SetTrue)
    } else if key.list {
        arg.action(ArgAction::Append).value_name("VALUE")
    } else {
        arg.action(ArgAction::Set).value_name("VALUE")
    }
}

/// What the configuration is read from: file, environment, flags.
pub(super) fn inputs(matches: &ArgMatches) -> Inputs {
    let mut flags = Vec::new();
    for (path, key) in keys() {
        let Some(flag) = key.flag else { continue };
        // Commands that look after data have only some of the flags.
        let value = if key.switch {
            match matches.try_get_one::<bool>(&path) {
                Ok(Some(true)) => Some("true".to_owned()),
                _ => None,
            }
        } else {
            match matches.try_get_many::<String>(&path) {
                Ok(Some(values)) => Some(values.cloned().collect::<Vec<_>>().join(",")),
                _ => None,
            }
        };
        if let Some(value) = value {
            flags.push(FlagValue {
                path,
                flag: format!("--{flag}"),
                value,
            });
        }
    }
    Inputs {
        file: matches.get_one::<PathBuf>("config").cloned(),
        env: std::env::vars_os().collect(),
        flags,
    }
}

/// Reads the configuration; what is wrong with it is printed.
pub(super) fn read(inputs: &Inputs) -> Option<Loaded> {
    match load(inputs) {
        Ok(loaded) => Some(loaded),
        Err(problems) => {
            for problem in &problems.0 {
                eprintln!("error: {problem}");
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Inputs {
        let matches = super::super::command().get_matches_from(args);
        let (_, matches) = matches.subcommand().unwrap();
        inputs(matches)
    }

    #[test]
    fn flags_become_values_of_their_keys() {
        let inputs = parse(&[
            "wharf",
            "serve",
            "--listen",
            "127.0.0.1:1",
            "--listen",
            "unix:/tmp/x",
            "--tls-self-signed",
        ]);
        let value = |path: &str| inputs.flags.iter().find(|flag| flag.path == path);
        assert_eq!(
            value("server.listen").unwrap().value,
            "127.0.0.1:1,unix:/tmp/x"
        );
        assert_eq!(value("tls.self_signed").unwrap().value, "true");
        assert!(value("server.data").is_none());
    }
}
