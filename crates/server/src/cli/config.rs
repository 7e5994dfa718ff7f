//! `wharf config`.

use clap::ArgMatches;

use super::{Exit, flags};
use crate::config::{render, validate};

pub(super) fn run(matches: &ArgMatches) -> Exit {
    match matches.subcommand() {
        Some(("check", matches)) => check(matches),
        Some(("show", matches)) => match flags::read(&flags::inputs(matches)) {
            Some(loaded) => {
                print!("{}", render::show(&loaded.config, &loaded.sources));
                Exit::Done
            }
            None => Exit::Usage,
        },
        Some(("reference", _)) => {
            print!("{}", render::reference());
            Exit::Done
        }
        _ => {
            print!("{}", render::defaults());
            Exit::Done
        }
    }
}

fn check(matches: &ArgMatches) -> Exit {
    let Some(loaded) = flags::read(&flags::inputs(matches)) else {
        return Exit::Usage;
    };
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    let problems = validate::check_files(&loaded.config, &loaded.sources);
    for problem in &problems {
        eprintln!("error: {problem}");
    }
    if problems.is_empty() {
        println!("The configuration is in order.");
        Exit::Done
    } else {
        Exit::Usage
    }
}
