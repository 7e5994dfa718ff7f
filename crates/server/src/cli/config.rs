//! `wharf config check` and `wharf config show`.

use super::{Outcome, print};
use crate::config::reload::compare;
use crate::config::validate::check_files;
use crate::config::{Config, Inputs, Problems, load, render};

/// Says whether the configuration is one.
pub(super) fn check(inputs: &Inputs) -> Outcome {
    let loaded = load(inputs)?;
    let problems = check_files(&loaded.config, &loaded.sources);
    if !problems.is_empty() {
        return Err(Problems(problems).into());
    }
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
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

/// Prints every value with its source.
pub(super) fn show(inputs: &Inputs) -> Outcome {
    let loaded = load(inputs)?;
    print(&render::show(&loaded.config, &loaded.sources))
}
