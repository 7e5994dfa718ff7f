//! Reading the configuration again while Wharf runs: parse, validate, then put in force what can be changed.
//!
//! `cli::serve` calls [`Reloader::reload`] on SIGHUP and [`Reloader::changed`] on a timer. The environment and flags
//! are those of the start; only files can change. A configuration with errors changes nothing.

use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::load::{Inputs, Loaded, load};
use super::problem::{Problem, Problems};
use super::section::{Section, When, join};
use super::sections::Config;

/// A key whose value differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Dotted path.
    pub path: String,
    /// The old value as TOML; secrets are hidden.
    pub from: String,
    /// The new one.
    pub to: String,
    /// Whether it takes effect without a restart.
    pub live: bool,
}

/// All keys whose values differ.
#[must_use]
pub fn compare(old: &Config, new: &Config) -> Vec<Change> {
    let mut changes = Vec::new();
    compare_sections(old, new, "", &mut changes);
    // Rendered secrets are equal whatever they hold.
    if old.access.admin_password != new.access.admin_password {
        changes.retain(|change| change.path != "access.admin_password");
        changes.push(Change {
            path: "access.admin_password".to_owned(),
            from: "(hidden)".to_owned(),
            to: "(hidden)".to_owned(),
            live: false,
        });
    }
    changes
}

fn compare_sections(old: &dyn Section, new: &dyn Section, path: &str, changes: &mut Vec<Change>) {
    let outline = old.outline();
    let text = |value: Option<String>| value.unwrap_or_else(|| "unset".to_owned());
    for key in outline.keys {
        let (from, to) = (text(old.get(key.name)), text(new.get(key.name)));
        if from != to {
            changes.push(Change {
                path: join(path, key.name),
                from,
                to,
                live: key.when == When::live,
            });
        }
    }
    for (name, _) in outline.sections {
        if let (Some(old), Some(new)) = (old.section(name), new.section(name)) {
            compare_sections(old, new, &join(path, name), changes);
        }
    }
    for (name, table) in outline.tables {
        let render = |section: &dyn Section| {
            let entries = section.tables(name).into_iter().map(|entry| {
                let fields: Vec<_> = table
                    .keys
                    .iter()
                    .filter_map(|key| Some(format!("{} = {}", key.name, entry.get(key.name)?)))
                    .collect();
                format!("{{ {} }}", fields.join(", "))
            });
            format!("[{}]", entries.collect::<Vec<_>>().join(", "))
        };
        let (from, to) = (render(old), render(new));
        if from != to {
            changes.push(Change {
                path: join(path, name),
                from,
                to,
                live: table.is_live(),
            });
        }
    }
}

/// What a reload did.
#[derive(Clone, Debug, Default)]
pub struct Reloaded {
    /// Changes now in force.
    pub applied: Vec<Change>,
    /// Changes since the start that wait for a restart.
    pub waiting: Vec<Change>,
    /// Warnings of the new configuration.
    pub warnings: Vec<Problem>,
}

/// A version of a file, without its content.
type Stamp = Option<(u64, i64, i64, u64)>;

/// The configuration in force, and how to read it again.
#[derive(Debug)]
pub struct Reloader {
    inputs: Inputs,
    current: ArcSwap<Config>,
    seen: Mutex<Stamp>,
}

impl Reloader {
    /// Starts with what was loaded from these inputs.
    #[must_use]
    pub fn new(inputs: Inputs, loaded: &Loaded) -> Self {
        let seen = Mutex::new(stamp(&inputs));
        Self {
            inputs,
            current: ArcSwap::from_pointee(loaded.config.clone()),
            seen,
        }
    }

    /// The configuration in force: values of keys that need a restart are those of the start.
    #[must_use]
    pub fn current(&self) -> Arc<Config> {
        self.current.load_full()
    }

    /// Whether the file is another one than at the last look. One `stat`.
    pub fn changed(&self) -> bool {
        let now = stamp(&self.inputs);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *seen, now) != now
    }

    /// Reads everything again; what is live is in force in [`Reloader::current`] afterwards. The caller hands it to the
    /// parts.
    ///
    /// # Errors
    /// What is wrong with the new configuration. Nothing has changed then.
    pub fn reload(&self) -> Result<Reloaded, Problems> {
        self.changed();
        let new = load(&self.inputs)?;
        let old = self.current.load_full();
        let (applied, waiting) = compare(&old, &new.config)
            .into_iter()
            .partition(|change| change.live);
        let mut next = Config::clone(&old);
        next.adopt(&new.config);
        // Live values must also fit those that stay as they were: a role that is only fit for loopback, say.
        let mut problems = Vec::new();
        super::validate::validate(&next, &new.sources, &mut problems, &mut Vec::new());
        if !problems.is_empty() {
            return Err(Problems(problems));
        }
        self.current.store(Arc::new(next));
        Ok(Reloaded {
            applied,
            waiting,
            warnings: new.warnings,
        })
    }
}

/// Kubernetes swaps symbolic links below the name, so the file is looked at through them.
fn stamp(inputs: &Inputs) -> Stamp {
    let metadata = std::fs::metadata(inputs.file.as_ref()?).ok()?;
    Some((
        metadata.ino(),
        metadata.mtime(),
        metadata.mtime_nsec(),
        metadata.len(),
    ))
}
