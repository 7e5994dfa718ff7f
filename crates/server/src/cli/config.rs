//! `wharf config check` and `wharf config show`.

use wharf_blob::Object;

use super::exit::{Exit, Failure};
use super::offline::runtime;
use super::{Outcome, print};
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

/// Asks the object store, if there is one.
fn ask(config: &Config) -> Outcome {
    let Some(options) = config.object_options() else {
        return print("Blobs are files in the data folder: there is no bucket to ask.\n");
    };
    let refused = |error: anyhow::Error| Failure::new(Exit::Data, error);
    let store = Object::open(&options).map_err(|error| refused(error.into()))?;
    let owner = runtime()?.block_on(store.owner());
    print(&match owner.map_err(|error| refused(error.into()))? {
        Some(name) => format!(
            "The bucket can be used by installation {name}; another one is refused at its start.\n"
        ),
        None => "The bucket can be used: it is empty, and a registry without blobs takes it at its start.\n".to_owned(),
    })
}

/// Prints every value with its source.
pub(super) fn show(inputs: &Inputs) -> Outcome {
    let loaded = load(inputs)?;
    print(&render::show(&loaded.config, &loaded.sources))
}
