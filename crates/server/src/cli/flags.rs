//! Flags that are configuration keys: made from the outline of the configuration, so that each is documented once.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::config::section::{Key, join};
use crate::config::{Config, FlagValue, Inputs};

/// Names the configuration file when `--config` does not.
pub(super) const CONFIG_VARIABLE: &str = "WHARF_CONFIG";

/// All flags that are configuration keys: for `serve` and `config`.
#[derive(Clone, Debug, Default)]
pub(super) struct ConfigFlags {
    config: Option<PathBuf>,
    values: Vec<FlagValue>,
}

/// `--config` and `--data`: for commands that work on a data folder.
#[derive(Clone, Debug, Default)]
pub(super) struct DataFlags(ConfigFlags);

impl ConfigFlags {
    /// What the configuration is read from: these flags, and the environment of this process.
    pub(super) fn inputs(&self) -> Inputs {
        Inputs {
            file: self.config.clone(),
            env: std::env::vars_os().collect(),
            flags: self.values.clone(),
        }
    }
}

impl DataFlags {
    /// Whether a data folder or a configuration was named.
    pub(super) fn are_given(&self) -> bool {
        self.0.config.is_some() || !self.0.values.is_empty()
    }

    /// What the configuration is read from.
    pub(super) fn inputs(&self) -> Inputs {
        self.0.inputs()
    }
}

/// Keys that have a flag, with their paths.
fn keys(wanted: fn(&str) -> bool) -> Vec<(String, &'static str, &'static str, Key)> {
    let mut keys = Vec::new();
    Config::OUTLINE.walk("", &mut |path, outline| {
        for key in outline.keys {
            if let Some((flag, value)) = key.flag.filter(|(flag, _)| wanted(flag)) {
                keys.push((join(path, key.name), flag, value, *key));
            }
        }
    });
    keys
}

fn augment(mut command: Command, wanted: fn(&str) -> bool) -> Command {
    command = command.arg(
        Arg::new("config")
            .long("config")
            .value_name("FILE")
            .env(CONFIG_VARIABLE)
            .hide_env_values(true)
            .help("Configuration file, TOML")
            .long_help("Configuration file, TOML. None is searched for. `wharf config defaults` prints one.")
            .value_parser(clap::value_parser!(PathBuf)),
    );
    for (_, flag, value, key) in keys(wanted) {
        let mut arg = Arg::new(flag)
            .long(flag)
            .value_name(value)
            .help(first_sentence(&key))
            .long_help(long_help(&key))
            .action(if key.list {
                ArgAction::Append
            } else {
                ArgAction::Set
            })
            .value_parser(clap::value_parser!(OsString));
        if key.switch {
            arg = arg
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true");
        }
        command = command.arg(arg);
    }
    command
}

fn first_sentence(key: &Key) -> String {
    let text = key.text();
    match text.split_once(". ") {
        Some((first, _)) => first.to_owned(),
        None => text.trim_end_matches('.').to_owned(),
    }
}

fn long_help(key: &Key) -> String {
    let mut text = key.text();
    if let Some(default) = (key.default)().filter(|_| !key.switch) {
        text.push_str(&format!(
            " [default: {}]",
            default.replace(['"', '[', ']'], "")
        ));
    }
    if key.list {
        text.push_str(" [may be repeated]");
    }
    text
}

fn read(matches: &ArgMatches, wanted: fn(&str) -> bool) -> Result<ConfigFlags, clap::Error> {
    let mut flags = ConfigFlags {
        config: matches.get_one::<PathBuf>("config").cloned(),
        values: Vec::new(),
    };
    for (path, flag, _, _) in keys(wanted) {
        let Some(given) = matches.get_many::<OsString>(flag) else {
            continue;
        };
        let given: Option<Vec<&str>> = given.map(|value| value.to_str()).collect();
        let Some(given) = given else {
            let kind = clap::error::ErrorKind::InvalidUtf8;
            return Err(clap::Error::raw(
                kind,
                format!("the value of --{flag} is not UTF-8\n"),
            ));
        };
        flags.values.push(FlagValue {
            path,
            flag: format!("--{flag}"),
            value: given.join(","),
        });
    }
    Ok(flags)
}

fn all(_: &str) -> bool {
    true
}

fn data(flag: &str) -> bool {
    flag == "data"
}

impl Args for ConfigFlags {
    fn augment_args(command: Command) -> Command {
        augment(command, all)
    }
    fn augment_args_for_update(command: Command) -> Command {
        augment(command, all)
    }
}

impl FromArgMatches for ConfigFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        read(matches, all)
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = read(matches, all)?;
        Ok(())
    }
}

impl Args for DataFlags {
    fn augment_args(command: Command) -> Command {
        augment(command, data)
    }
    fn augment_args_for_update(command: Command) -> Command {
        augment(command, data)
    }
}

impl FromArgMatches for DataFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self(read(matches, data)?))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self(read(matches, data)?);
        Ok(())
    }
}
