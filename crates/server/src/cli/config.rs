//! `wharf config check` and `wharf config show`.

use super::exit::{Exit, Failure};
use super::offline::runtime;
use super::{Outcome, print};
use std::sync::Arc;

use wharf_core::oidc::look;

use crate::app::check as check_stores;
use crate::app::oidc::Providers;
use crate::config::reload::compare;
use crate::config::validate::check_files;
use crate::config::{Config, Inputs, Problems, load, render};

/// Says whether the configuration is one.
pub(super) fn check(inputs: &Inputs, online: bool) -> Outcome {
    let loaded = load(inputs)?;
    let problems = check_files(&loaded.config, &loaded.sources);
    if !problems.is_empty() {
        return Err(Problems(problems).into());
    }
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    if online {
        ask(&loaded.config)?;
    }
    let changed = compare(&Config::default(), &loaded.config).len();
    print(&match changed {
        0 => "The configuration is valid; every key has its default.\n".to_owned(),
        1 => "The configuration is valid; 1 key differs from its default (wharf config show).\n"
            .to_owned(),
        many => format!(
            "The configuration is valid; {many} keys differ from their defaults (wharf config show).\n"
        ),
    })
}

/// Asks the stores, and says what was found there.
fn ask(config: &Config) -> Outcome {
    let (report, directories) = runtime()?.block_on(async {
        let report = check_stores(&config.data_options()).await;
        (report, super::ldap::probe(config).await)
    });
    for found in &report.found {
        print(&format!("{found}\n"))?;
    }
    for warning in &report.warnings {
        eprintln!("warning: {warning}");
    }
    let mut problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    let looked = look(config.oidc_settings(), Arc::new(Providers::default()));
    for checked in runtime()?.block_on(looked) {
        match checked.problem {
            None => print(&format!(
                "The provider {} answers as it should.\n",
                checked.name
            ))?,
            Some(problem) => problems.push(format!("[[auth.oidc]] {}: {problem}", checked.name)),
        }
    }
    for told in directories {
        match told {
            Ok(found) => print(&format!("{found}\n"))?,
            Err(problem) => problems.push(problem),
        }
    }
    match problems.is_empty() {
        true => print("The stores were only read; nothing was written.\n"),
        false => Err(Failure::text(Exit::Data, problems.join("\nerror: "))),
    }
}

/// Prints every value with its source.
pub(super) fn show(inputs: &Inputs) -> Outcome {
    let loaded = load(inputs)?;
    print(&render::show(&loaded.config, &loaded.sources))
}
